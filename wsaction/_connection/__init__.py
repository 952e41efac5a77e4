"""One WebSocket: frames come in, replies and events go out, in order and within bounds.

`connection` reads frames, runs them and ends; read it first. `ordering` decides which frame runs when, `outbox` and
`flusher` send, `deadlines` watches timeouts, `gates` stand before the dispatcher.
"""
