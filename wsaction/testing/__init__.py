"""Test client for ASGI WebSocket applications: runs in the test's process and event loop, and bounds every wait.

Import from the package: ``from wsaction.testing import connect``. It needs only the standard library and anyio.
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
