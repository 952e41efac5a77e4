"""Drive any ASGI WebSocket app from a test, in process and in the test's event loop, with every wait bounded.

Its ``__init__`` re-exports, as the client's does: ``from wsaction.testing import connect``. It stands on the standard
library and anyio alone.
"""

from wsaction.testing.communicators import WebsocketCommunicator
from wsaction.testing.errors import (
    ActionFailed,
    ClientDisconnected,
    ConnectionClosed,
    HandshakeRefused,
    UnexpectedFrame,
)
from wsaction.testing.sessions import Stream, WebSocketSession, connect

__all__ = (
    "ActionFailed",
    "ClientDisconnected",
    "ConnectionClosed",
    "HandshakeRefused",
    "Stream",
    "UnexpectedFrame",
    "WebSocketSession",
    "WebsocketCommunicator",
    "connect",
)
