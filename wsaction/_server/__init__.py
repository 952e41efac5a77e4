"""What the connections of an app share: from a handshake to the end of a connection.

`lifecycle` serves one connection; read it first. `runtime` is what all of them share, `origins` refuses foreign pages
and hosts, `http` answers requests that are no WebSocket, `uvicorn_protocol` is the protocol class of `wsaction run`,
`worker_count` warns of several processes without a layer.
"""
