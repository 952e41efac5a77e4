"""``WebsocketCommunicator``: the API of Django Channels' communicator, for tests written for it.

It differs from Channels' in three ways: the scope is complete (Host header, ``asgi``, extensions), the app sees the
test's context variables, and messages in the wrong order raise in the app, as on a server. For new tests, prefer
``connect``, which ends the app by itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from wsaction.testing._asgi import ASGIApp, Message, anything
from wsaction.testing._scope import HeaderTypes, websocket_scope
from wsaction.testing._transport import Transport
from wsaction.testing.errors import ConnectionClosed, UnexpectedFrame

__all__ = ("WebsocketCommunicator",)


class WebsocketCommunicator:
    """One connection to ``application``, message by message. A test may change ``scope`` before the first message.

    Timeouts are in seconds. As in Channels, a wait that times out cancels the application. End a test with
    ``await communicator.disconnect()``, which raises the application's exception, if any::

        communicator = WebsocketCommunicator(app, "/ws/")
        connected, subprotocol = await communicator.connect()
        await communicator.send_json_to({"action": "echo", "text": "hello"})
        assert (await communicator.receive_json_from())["data"] == "hello"
        await communicator.disconnect()
    """

    def __init__(
        self,
        application: ASGIApp,
        path: str,
        headers: HeaderTypes | None = None,
        subprotocols: Sequence[str] | None = None,
        spec_version: str | None = None,
    ) -> None:
        self.application = application
        self.scope: dict[str, Any] = websocket_scope(
            path if path.startswith("/") else f"/{path}",
            headers=headers,
            subprotocols=subprotocols or (),
            spec_version=spec_version or "2.4",
        )
        self.response_headers: list[tuple[bytes, bytes]] | None = None
        self._started: Transport | None = None

    @property
    def _transport(self) -> Transport:
        if self._started is None:
            self._started = Transport(self.application, self.scope)
        return self._started

    async def connect(self, timeout: float = 1) -> tuple[bool, Any]:
        """Connect. Return ``(True, sub-protocol or None)``, or ``(False, close code or HTTP status)`` if refused.

        :raises TimeoutError: No answer arrived in time.
        """
        await self.send_input({"type": "websocket.connect"})
        answer = await self.receive_output(timeout)
        if answer["type"] == "websocket.accept":
            self.response_headers = list(answer.get("headers") or ())
            return True, answer.get("subprotocol")
        return False, answer["status"] if "status" in answer else answer.get("code", 1000)

    async def send_to(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send one frame, text or binary.

        :raises ValueError: Both arguments were given, or neither.
        """
        if text_data is not None and bytes_data is not None:
            raise ValueError("expected text_data or bytes_data, got both; send each in a frame of its own")
        if text_data is None and bytes_data is None:
            raise ValueError("expected text_data or bytes_data, got neither; for an empty frame pass '' or b''")
        kind, value = ("bytes", bytes_data) if text_data is None else ("text", text_data)
        await self.send_input({"type": "websocket.receive", kind: value})

    async def send_json_to(self, data: Any) -> None:
        """Send ``data`` as JSON in a text frame."""
        await self.send_to(text_data=json.dumps(data))

    async def receive_from(self, timeout: float = 1) -> Any:
        """Return the text or the bytes of the next frame.

        :raises UnexpectedFrame: The app closed instead.
        """
        message = await self.receive_output(timeout)
        if message["type"] != "websocket.send":
            raise UnexpectedFrame("a frame", message)
        return message["bytes"] if message.get("text") is None else message["text"]

    async def receive_json_from(self, timeout: float = 1) -> Any:
        """Return the JSON value of the next text frame.

        :raises UnexpectedFrame: The frame is binary, or the app closed instead.
        """
        payload = await self.receive_from(timeout)
        if not isinstance(payload, str):
            raise UnexpectedFrame("a text frame", {"type": "websocket.send", "bytes": payload})
        return json.loads(payload)

    async def receive_nothing(self, timeout: float = 0.1, interval: float = 0.01) -> bool:
        """Return whether no message is unread and none arrives within ``timeout``.

        ``interval`` has no effect; it exists because Channels polls.
        """
        received = await self._transport.peek(anything, timeout)
        self._transport.raise_error()
        return received is None

    async def disconnect(self, code: int = 1000, timeout: float = 1) -> None:
        """Disconnect, then ``wait()`` for the app."""
        await self.send_input({"type": "websocket.disconnect", "code": code})
        await self.wait(timeout)

    async def send_input(self, message: Message) -> None:
        """Queue any ASGI message for the app. After the end of the connection it is dropped."""
        if message["type"] == "websocket.disconnect":
            self._transport.disconnect(message)
            return
        try:
            await self._transport.feed(message, 1)
        except ConnectionClosed:
            return

    async def receive_output(self, timeout: float = 1) -> Message:
        """Return the next ASGI message from the app, of any type.

        :raises TimeoutError: No message arrived in time, and the app was cancelled; or the app has ended.
        """
        try:
            return (await self._transport.take(anything, "a message of the app", timeout, claim=False)).message
        except ConnectionClosed as error:
            await self._transport.finish(timeout)
            self._transport.raise_error()
            raise TimeoutError(f"waited for a message of the app; {error}") from None
        except TimeoutError:
            await self._transport.cancel()
            self._transport.raise_error()
            raise

    async def wait(self, timeout: float = 1) -> None:
        """Wait for the app to return. Raises the app's exception, if any.

        :raises TimeoutError: The app did not return in time and was cancelled.
        """
        await self._transport.finish(timeout)
