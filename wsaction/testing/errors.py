"""Exceptions of the test client.

::

    Exception
    ├── HandshakeRefused      connect(): the server did not accept the connection
    ├── ConnectionClosed      a method of a session: the connection is closed
    ├── UnexpectedFrame       a method of a session: the frame has another type
    └── ActionFailed          a stream: its final reply is an error
    OSError
    └── ClientDisconnected    in the app: ``await send()`` after the client disconnected

A wait that takes too long raises the built-in ``TimeoutError``. Exceptions of the app are raised unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ("ActionFailed", "ClientDisconnected", "ConnectionClosed", "HandshakeRefused", "UnexpectedFrame")


class HandshakeRefused(Exception):
    """The server answered the handshake with an HTTP response, or closed without accepting.

    ``status`` is the HTTP status: 403 for a close, 500 if the app returned without an answer. ``headers`` is a dict
    with lower-case names; values of repeated names are joined by ``", "``. ``body`` is the response body as bytes.
    ``code`` and ``reason`` are those of the close; ``code`` is None if there was none.

    >>> str(HandshakeRefused(403, code=4401, reason="no token"))
    "the handshake was refused: HTTP 403 (close code 4401, 'no token')"
    """

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        code: int | None = None,
        reason: str = "",
    ) -> None:
        self.status = status
        self.headers = dict(headers or {})
        self.body = body
        self.code = code
        self.reason = reason
        super().__init__(f"the handshake was refused: HTTP {status}{self._detail()}")

    def _detail(self) -> str:
        if self.code is not None:
            return f" (close code {self.code}, {self.reason!r})"
        return f" ({self.reason})" if self.reason else f", body {self.body[:200]!r}"


class ConnectionClosed(Exception):
    """The connection is closed, and the test has read every frame before the close.

    ``code`` and ``reason`` are those of the side that closed first; 1006 if the app ended without a close frame.

    >>> str(ConnectionClosed(1008, "policy"))
    "the connection is closed: code 1008, reason 'policy'"
    """

    def __init__(self, code: int, reason: str = "") -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"the connection is closed: code {code}, reason {reason!r}")


class UnexpectedFrame(Exception):
    """The next frame has another type than expected. ``message`` is its ASGI message; the frame counts as read.

    >>> str(UnexpectedFrame("a text frame", {"type": "websocket.send", "bytes": b"x"}))
    "expected a text frame, got {'type': 'websocket.send', 'bytes': b'x'}; receive() accepts any frame"
    """

    def __init__(self, expected: str, message: Mapping[str, Any]) -> None:
        self.message = message
        super().__init__(f"expected {expected}, got {str(dict(message))[:500]}; receive() accepts any frame")


class ActionFailed(Exception):
    """The final reply of a stream has a status of 400 or above. ``reply`` is that frame.

    >>> str(ActionFailed({"status": 499, "errors": [{"type": "cancelled", "msg": "cancelled by the client"}]}))
    "the action failed with status 499: [{'type': 'cancelled', 'msg': 'cancelled by the client'}]"
    """

    def __init__(self, reply: dict[str, Any]) -> None:
        self.reply = reply
        super().__init__(f"the action failed with status {reply.get('status')}: {reply.get('errors')}")


class ClientDisconnected(OSError):
    """Raised in the app by ``send()`` after the client disconnected, as ASGI's WebSocket spec 2.4 requires."""
