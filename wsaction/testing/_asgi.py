"""Checks of the ASGI WebSocket messages that an app sends: their order and their content.

If uvicorn or the client would refuse a message, the app's ``send()`` raises ``RuntimeError``.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from wsaction.testing._scope import Scope

Message = MutableMapping[str, Any]
ASGIApp = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

# Close codes that may be sent (RFC 6455, 7.4). 1005, 1006 and 1015 are reserved for local reports.
_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})
_MAX_REASON = 123  # bytes
# For each phase, the messages that the app may send and the phase that each leads to.
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
    """A message from the app. Its JSON is parsed at most once."""

    message: Message

    @cached_property
    def frame(self) -> dict[str, Any]:
        """The JSON object in a text frame; ``{}`` for any other message."""
        try:
            frame = json.loads(self.message.get("text") or "null")
        except ValueError:
            return {}
        return frame if isinstance(frame, dict) else {}


Predicate = Callable[[Received], bool]


def anything(_: Received) -> bool:
    """Matches every message."""
    return True


def is_frame(received: Received) -> bool:
    """Matches text and binary frames, not messages of the handshake or the close."""
    return bool(received.message["type"] == "websocket.send")


class Protocol:
    """The state of a connection after the app's messages: ``phase`` is handshake, response, open or closed."""

    def __init__(self, scope: Scope) -> None:
        self.phase = "handshake"
        self._extensions = scope.get("extensions") or {}

    def advance(self, message: Message) -> None:
        """Check the app's next message and move to the phase that it leads to.

        :raises RuntimeError: The message is not allowed in this phase, or its content is invalid. The phase stays.
        """
        kind, phases = message["type"], _PHASES[self.phase]
        if kind not in phases:
            allowed = " or ".join(phases) or "nothing more"
            raise RuntimeError(f"expected {allowed} from the app in phase {self.phase!r}, got {kind!r}")
        if kind == "websocket.http.response.start" and "websocket.http.response" not in self._extensions:
            raise RuntimeError(f"got {kind}, but scope['extensions'] does not offer 'websocket.http.response'")
        if kind in _CHECKS:
            _CHECKS[kind](message)
        is_last = kind == "websocket.http.response.body" and not message.get("more_body", False)
        self.phase = "closed" if is_last else phases[kind]


def _check_send(message: Message) -> None:
    text, data = message.get("text"), message.get("bytes")
    if (text is None) == (data is None) or not isinstance(text, str | None) or not isinstance(data, bytes | None):
        raise RuntimeError(f"expected websocket.send with either 'text' (str) or 'bytes', got {str(message)[:500]}")


def _check_close(message: Message) -> None:
    code, reason = message.get("code", 1000), message.get("reason") or ""
    if code not in _CLOSE_CODES:
        raise RuntimeError(f"expected a close code that may be sent, such as 1000, 1011 or 4000 to 4999, got {code!r}")
    if len(reason.encode()) > _MAX_REASON:
        raise RuntimeError(f"expected a close reason of at most {_MAX_REASON} UTF-8 bytes, got {len(reason.encode())}")


def _check_headers(message: Message) -> None:
    for name, value in message.get("headers") or ():
        if not (isinstance(name, bytes) and isinstance(value, bytes)):
            raise RuntimeError(f"expected headers as pairs of bytes in {message['type']}, got {(name, value)!r}")


_CHECKS: dict[str, Callable[[Message], None]] = {
    "websocket.accept": _check_headers,
    "websocket.http.response.start": _check_headers,
    "websocket.send": _check_send,
    "websocket.close": _check_close,
}
