"""The protocol `wsaction.v1` as text: frames and events, read and written.

`frames` reads a request and writes its reply, and has the frame that is being handled. `event_frames` writes what the
server sends unasked. `scope` names what wsaction keeps in ASGI scopes, topics among it. Read `frames` first.
"""
