"""The protocol `wsaction.v1`: reads and writes its frames.

`frames` reads requests and writes replies, and holds the current frame. `event_frames` writes the events that the
server sends. `close_codes` has the close codes. `scope` names the keys in ASGI scopes, and the topics. Read `frames`
first.
"""
