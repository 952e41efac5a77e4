"""``WebsocketCommunicator``: the methods that tests written for Django Channels call, on the same transport.

It behaves as Channels' one does, with these differences: the scope is a full one (Host header, ``asgi``, extensions),
the app sees the test's context variables, and messages that break ASGI's order raise in the app, as under a server.
New tests are better off with ``connect``, which ends the app by itself.
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
    """One connection to ``application``, message by message. ``scope`` may be changed until the first message is sent.

    Timeouts are in seconds. As in Channels, a wait that times out cancels the application; end a test by
    ``await communicator.disconnect()``, which raises what the application raised::

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
        """``(True, sub-protocol or None)`` when accepted; ``(False, close code)`` or ``(False, HTTP status)`` when not.

        :raises TimeoutError: no answer came in time.
        """
        await self.send_input({"type": "websocket.connect"})
        answer = await self.receive_output(timeout)
        if answer["type"] == "websocket.accept":
            self.response_headers = list(answer.get("headers") or ())
            return True, answer.get("subprotocol")
        return False, answer["status"] if "status" in answer else answer.get("code", 1000)

    async def send_to(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send one frame, text or binary.

        :raises ValueError: both were given, or none.
        """
        if (text_data is None) == (bytes_data is None):
            raise ValueError("expected either text_data or bytes_data; came " + ("both" if text_data else "none"))
        kind, value = ("bytes", bytes_data) if text_data is None else ("text", text_data)
        await self.send_input({"type": "websocket.receive", kind: value})

    async def send_json_to(self, data: Any) -> None:
        """Send ``data`` as JSON in a text frame."""
        await self.send_to(text_data=json.dumps(data))

    async def receive_from(self, timeout: float = 1) -> Any:
        """The text or the bytes of the next frame.

        :raises UnexpectedFrame: the app closed instead.
        """
        message = await self.receive_output(timeout)
        if message["type"] != "websocket.send":
            raise UnexpectedFrame("a frame", message)
        return message["bytes"] if message.get("text") is None else message["text"]

    async def receive_json_from(self, timeout: float = 1) -> Any:
        """The value of the next frame, which is JSON text.

        :raises UnexpectedFrame: it is binary, or the app closed instead.
        """
        payload = await self.receive_from(timeout)
        if not isinstance(payload, str):
            raise UnexpectedFrame("a text frame", {"type": "websocket.send", "bytes": payload})
        return json.loads(payload)

    async def receive_nothing(self, timeout: float = 0.1, interval: float = 0.01) -> bool:
        """Whether no message is unread and none comes within ``timeout``.

        ``interval`` is Channels', which polls; this one is woken by what comes and does not need it.
        """
        received = await self._transport.peek(anything, timeout)
        self._transport.raise_error()
        return received is None

    async def disconnect(self, code: int = 1000, timeout: float = 1) -> None:
        """Disconnect and ``wait()``."""
        await self.send_input({"type": "websocket.disconnect", "code": code})
        await self.wait(timeout)

    async def send_input(self, message: Message) -> None:
        """Put any ASGI message where the app receives it; after the end of the connection it goes nowhere."""
        if message["type"] == "websocket.disconnect":
            self._transport.disconnect(message)
            return
        try:
            await self._transport.feed(message, 1)
        except ConnectionClosed:
            return

    async def receive_output(self, timeout: float = 1) -> Message:
        """The next ASGI message that the app sent, of whatever type.

        :raises TimeoutError: none came in time, and the app was cancelled; or none can come, as it has ended.
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
        """Wait for the app to return; raises what it raised.

        :raises TimeoutError: it did not return in time and was cancelled.
        """
        await self._transport.finish(timeout)
