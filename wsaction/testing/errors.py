"""What a test is told when the server does something other than what was waited for.

::

    Exception
    ├── HandshakeRefused      connect(): the server did not accept
    ├── ConnectionClosed      a method of a session: the connection is over
    ├── UnexpectedFrame       a frame came, of another kind than was asked for
    └── ActionFailed          a stream's final reply is an error
    OSError
    └── ClientDisconnected    in the app: ``await send()`` after the client has gone

What does not come in time is the built-in ``TimeoutError``, and what the app raises is raised as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ("ActionFailed", "ClientDisconnected", "ConnectionClosed", "HandshakeRefused", "UnexpectedFrame")


class HandshakeRefused(Exception):
    """The server answered the handshake with an HTTP response, or closed before it accepted.

    ``status`` is the HTTP status (403 for a close before accept, 500 when the app returned without an answer),
    ``headers`` a dict with lower-case names (repeated ones are joined by ``", "``), ``body`` the bytes of the response.
    ``code`` and ``reason`` are those of a close before accept; otherwise ``code`` is None.

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
    """The connection is over, and every frame that came before its end has been read.

    ``code`` and ``reason`` are those of whichever side closed first; 1006 when the app ended without a close frame.

    >>> str(ConnectionClosed(1008, "policy"))
    "the connection is closed: code 1008, reason 'policy'"
    """

    def __init__(self, code: int, reason: str = "") -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"the connection is closed: code {code}, reason {reason!r}")


class UnexpectedFrame(Exception):
    """A frame came, and it is not of the kind that was asked for; ``message`` is the ASGI message, which is consumed.

    >>> str(UnexpectedFrame("a text frame", {"type": "websocket.send", "bytes": b"x"}))
    "expected a text frame, came {'type': 'websocket.send', 'bytes': b'x'}; receive() takes any kind"
    """

    def __init__(self, expected: str, message: Mapping[str, Any]) -> None:
        self.message = message
        super().__init__(f"expected {expected}, came {str(dict(message))[:500]}; receive() takes any kind")


class ActionFailed(Exception):
    """The final reply of a stream has a status of 400 or more; ``reply`` is that frame.

    >>> str(ActionFailed({"status": 499, "errors": [{"type": "cancelled", "msg": "cancelled by the client"}]}))
    "the action failed with status 499: [{'type': 'cancelled', 'msg': 'cancelled by the client'}]"
    """

    def __init__(self, reply: dict[str, Any]) -> None:
        self.reply = reply
        super().__init__(f"the action failed with status {reply.get('status')}: {reply.get('errors')}")


class ClientDisconnected(OSError):
    """Raised in the app by ``send()`` once the client has gone, as servers of ASGI's WebSocket spec 2.4 do."""
