"""ASGI's WebSocket messages as a server holds an app to them: in which order, and with what in them.

What uvicorn would refuse, or would put on the wire for the client to refuse, is refused here with a ``RuntimeError``
raised by the app's ``send()``.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from wsaction.testing._scope import Scope

__all__ = ("ASGIApp", "Message", "Predicate", "Protocol", "Received", "anything", "is_frame")

Message = MutableMapping[str, Any]
ASGIApp = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

# RFC 6455, 7.4: the close codes that may be sent. 1005, 1006 and 1015 only ever tell of a close frame that never came.
_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})
_MAX_REASON = 123  # bytes
# What the app may send in each phase, and the phase that follows.
_PHASES: dict[str, dict[str, str]] = {
    "handshake": {
        "websocket.accept": "open",
        "websocket.close": "closed",
        "websocket.http.response.start": "response",
    },
    "response": {"websocket.http.response.body": "response"},
    "open": {"websocket.send": "open", "websocket.close": "closed"},
    "closed": {},
}


@dataclass(eq=False)
class Received:
    """A message that the app sent, and the JSON object in it, parsed at most once."""

    message: Message

    @cached_property
    def frame(self) -> dict[str, Any]:
        """The JSON object that a text frame holds; ``{}`` for whatever else the message is."""
        try:
            frame = json.loads(self.message.get("text") or "null")
        except ValueError:
            return {}
        return frame if isinstance(frame, dict) else {}


Predicate = Callable[[Received], bool]


def anything(_: Received) -> bool:
    """Every message is wanted."""
    return True


def is_frame(received: Received) -> bool:
    """Whether a message is a frame, and not a part of the handshake or the close."""
    return bool(received.message["type"] == "websocket.send")


class Protocol:
    """Where a connection stands, seen from what its app has sent: ``phase`` handshake, response, open or closed."""

    def __init__(self, scope: Scope) -> None:
        self.phase = "handshake"
        self._extensions = scope.get("extensions") or {}

    def advance(self, message: Message) -> None:
        """Check the app's next message, and go on to the phase that it leads to.

        :raises RuntimeError: it may not come now, or holds what cannot be sent; the phase stays as it was then.
        """
        kind, phases = message["type"], _PHASES[self.phase]
        if kind not in phases:
            allowed = " or ".join(phases) or "nothing more"
            raise RuntimeError(f"expected {allowed} from the app in phase {self.phase!r}; came {kind!r}")
        if kind == "websocket.http.response.start" and "websocket.http.response" not in self._extensions:
            raise RuntimeError(f"{kind} came, but scope['extensions'] does not offer 'websocket.http.response'")
        if kind in _CHECKS:
            _CHECKS[kind](message)
        is_last = kind == "websocket.http.response.body" and not message.get("more_body", False)
        self.phase = "closed" if is_last else phases[kind]


def _check_send(message: Message) -> None:
    text, data = message.get("text"), message.get("bytes")
    if (text is None) == (data is None) or not isinstance(text, str | None) or not isinstance(data, bytes | None):
        raise RuntimeError(f"expected websocket.send with either 'text', a str, or 'bytes'; came {str(message)[:500]}")


def _check_close(message: Message) -> None:
    code, reason = message.get("code", 1000), message.get("reason") or ""
    if code not in _CLOSE_CODES:
        raise RuntimeError(f"expected a close code that may be sent, such as 1000, 1011 or 4000 to 4999; came {code!r}")
    if len(reason.encode()) > _MAX_REASON:
        raise RuntimeError(f"expected a close reason of at most {_MAX_REASON} UTF-8 bytes; came {len(reason.encode())}")


def _check_headers(message: Message) -> None:
    for name, value in message.get("headers") or ():
        if not (isinstance(name, bytes) and isinstance(value, bytes)):
            raise RuntimeError(f"expected headers as pairs of bytes in {message['type']}; came {(name, value)!r}")


_CHECKS: dict[str, Callable[[Message], None]] = {
    "websocket.accept": _check_headers,
    "websocket.http.response.start": _check_headers,
    "websocket.send": _check_send,
    "websocket.close": _check_close,
}
