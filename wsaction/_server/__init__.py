"""Serves the connections of an app, from the handshake to the close.

Read `lifecycle` first: it serves one connection. `runtime` holds what all connections of an app share. `origins` checks
the Host and Origin headers. `http` answers HTTP requests. `uvicorn_protocol` is the protocol class of `wsaction run`.
`worker_count` warns if several processes run without a layer.
"""
