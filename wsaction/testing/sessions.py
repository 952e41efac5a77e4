"""``connect``: a WebSocket client for tests that runs in the test's own process and event loop (asyncio).

::

    async with connect(app, "/ws/?x=1", user=user) as ws:
        reply = await ws.call("echo", text="hello")
        assert reply["data"] == "hello"

The session's ``timeout`` bounds every wait. The ``TimeoutError`` names what did not arrive and shows the unread frames.
A frame that a method does not return stays unread, in its order, for later calls.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from wsaction.testing._asgi import ASGIApp, Message, Received, anything, is_frame
from wsaction.testing._scope import HeaderTypes, decode_headers, websocket_scope
from wsaction.testing._transport import ABNORMAL, CAPACITY, Transport
from wsaction.testing.errors import ActionFailed, ConnectionClosed, HandshakeRefused, UnexpectedFrame

__all__ = ("Stream", "WebSocketSession", "connect")

_UNSET: Any = object()


@asynccontextmanager
async def connect(
    app: ASGIApp,
    path: str = "/",
    *,
    headers: HeaderTypes | None = None,
    subprotocols: Sequence[str] = (),
    user: Any = _UNSET,
    scope: Mapping[str, Any] | None = None,
    timeout: float = 5.0,  # for each wait of the session, not for this call
    client: tuple[str, int] | None = ("testclient", 50000),
    origin: str | None = None,
    capacity: int = CAPACITY,
) -> AsyncIterator[WebSocketSession]:
    """Open a connection to ``app`` and close it at the end of the block.

    The app runs in its own task, which sees the caller's context variables. At the end, the block disconnects with code
    1000 (1006 if it raised), waits for the app to return, and raises the app's exception, if any. If both raise, the
    block's exception is raised, with a note about the app's. The task is over after the block, also after cancellation,
    unless the app ignores its own cancellation for a whole second.

    :param path: The path, with an optional query string.
    :param user: The value of ``scope["user"]``.
    :param scope: Keys that replace those of the scope: ``{"extensions": {}}`` is a server without HTTP responses to
        handshakes.
    :param timeout: The limit for each wait, in seconds.
    :param capacity: The number of unread frames at which the app's ``send()`` blocks.
    :raises HandshakeRefused: The server closed without accepting, or answered with an HTTP response.
    :raises TimeoutError: No answer arrived in time; or, at the end, the app did not return in time and was cancelled.
    :raises RuntimeError: The server chose a sub-protocol that the client did not offer.
    """
    full_scope = websocket_scope(path, headers=headers, subprotocols=subprotocols, origin=origin, client=client)
    if user is not _UNSET:
        full_scope["user"] = user
    transport = Transport(app, full_scope | dict(scope or {}), capacity)
    try:
        session = WebSocketSession(transport, await _handshake(transport, subprotocols, timeout), timeout)
        yield session
    except BaseException as error:
        await transport.abandon(error, timeout)
        raise
    await session.close()


async def _handshake(transport: Transport, subprotocols: Sequence[str], seconds: float) -> Message:
    await transport.feed({"type": "websocket.connect"}, seconds)
    answer = await _answer(transport, seconds)
    if answer["type"] == "websocket.close":
        raise HandshakeRefused(403, code=answer.get("code", 1000), reason=answer.get("reason") or "")
    if answer["type"] == "websocket.http.response.start":
        body = await _response_body(transport, seconds)
        raise HandshakeRefused(answer["status"], decode_headers(answer.get("headers") or ()), body)
    chosen = answer.get("subprotocol")
    if chosen not in (None, *subprotocols):
        raise RuntimeError(f"expected a sub-protocol out of {list(subprotocols)}, but the app chose {chosen!r}")
    return answer


async def _response_body(transport: Transport, seconds: float) -> bytes:
    body, more = b"", True
    while more:
        part = await _answer(transport, seconds)
        body += part.get("body", b"")
        more = part.get("more_body", False)
    return body


async def _answer(transport: Transport, seconds: float) -> Message:
    try:
        return (await transport.take(anything, "the answer to the handshake", seconds)).message
    except ConnectionClosed:
        raise HandshakeRefused(500, reason="the app returned without a complete answer") from None


class WebSocketSession:
    """The client side of an accepted connection, as returned by ``connect``.

    ``timeout`` bounds every wait, in seconds; tests may set it. ``subprotocol`` is the chosen sub-protocol or None.
    ``accept_headers`` is a dict with lower-case names. Several tasks may call methods at once.

    A method that raises ``ConnectionClosed`` does so only after the test has read all frames before the close. If an
    exception of the app closed the connection, the method raises that exception instead.
    """

    def __init__(self, transport: Transport, accept: Message, timeout: float) -> None:
        self.timeout = timeout
        self.subprotocol: str | None = accept.get("subprotocol")
        self.accept_headers = decode_headers(accept.get("headers") or ())
        self._transport = transport
        self._ids = itertools.count(1)

    @property
    def closed(self) -> tuple[int, str] | None:
        """Code and reason after either side has closed, else None; 1006 if the app ended without a close."""
        return self._transport.closed

    async def send_text(self, text: str) -> None:
        """Send a text frame. Raises ``ConnectionClosed``, or ``TimeoutError`` if the app does not receive."""
        await self._transport.feed({"type": "websocket.receive", "text": text}, self.timeout)

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary frame. Raises as ``send_text`` does."""
        await self._transport.feed({"type": "websocket.receive", "bytes": data}, self.timeout)

    async def send_json(self, value: Any) -> None:
        """Send ``value`` as JSON in a text frame."""
        await self.send_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")))

    async def receive(self) -> Message:
        """Return the ASGI message of the next frame, text or binary. Raises ``ConnectionClosed``."""
        received = await self._transport.take(is_frame, "a frame", self.timeout, claim=False)
        return received.message

    async def receive_text(self) -> str:
        """Return the text of the next frame. Raises ``ConnectionClosed``, or ``UnexpectedFrame`` if it is binary."""
        message = await self.receive()
        text = message.get("text")
        if not isinstance(text, str):
            raise UnexpectedFrame("a text frame", message)
        return text

    async def receive_bytes(self) -> bytes:
        """Return the bytes of the next frame. Raises ``ConnectionClosed``, or ``UnexpectedFrame`` if it is text."""
        message = await self.receive()
        data = message.get("bytes")
        if not isinstance(data, bytes):
            raise UnexpectedFrame("a binary frame", message)
        return data

    async def receive_json(self) -> Any:
        """Return the JSON value of the next text frame. Raises ``ConnectionClosed`` or ``UnexpectedFrame``."""
        text = await self.receive_text()
        try:
            return json.loads(text)
        except ValueError:
            raise UnexpectedFrame("JSON", {"type": "websocket.send", "text": text}) from None

    async def call(
        self,
        /,
        action: str,
        route: str = "",
        data: Any = _UNSET,
        *,
        request_id: str | int = _UNSET,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Call an action and return its final reply, also if it is an error. Raises ``ConnectionClosed``.

        Events, partial replies (206) and replies to other calls stay unread. ``request_id`` is generated by default.
        ``parameters`` are the frame's other keys: ``await ws.call("move", "cards/7/", x=1)``.
        """
        frame = self._request(action, route, data, request_id, parameters)
        await self.send_json(frame)
        return await self._reply(frame, partial=False)

    def stream(
        self,
        /,
        action: str,
        route: str = "",
        data: Any = _UNSET,
        *,
        request_id: str | int = _UNSET,
        **parameters: Any,
    ) -> Stream:
        """Call a streaming action: ``async for item in ws.stream("count", to=3)``. See ``Stream``."""
        return Stream(self, self._request(action, route, data, request_id, parameters))

    async def event(self, name: str | None = None) -> dict[str, Any]:
        """Return the next event, of that name if given. Frames before it stay unread. Raises ``ConnectionClosed``."""

        def matches(received: Received) -> bool:
            return "event" in received.frame and name in (None, received.frame["event"])

        description = "an event" if name is None else f"the event {name!r}"
        return (await self._transport.take(matches, description, self.timeout)).frame

    async def nothing(self, duration: float = 0.05) -> None:
        """Check that no frame is unread, and that no frame or close arrives within ``duration`` seconds.

        A successful check takes the whole duration. A test is faster if it waits for a later frame instead, such as a
        reply that the server would send after the unwanted one. After a close, the check succeeds at once.

        :raises AssertionError: A frame, which stays unread, or a close arrived.
        """
        closed_before = self.closed
        received = await self._transport.peek(is_frame, duration)
        if received is not None:
            raise AssertionError(f"expected nothing for {duration:g} s, got {str(received.message)[:500]}")
        if self.closed != closed_before:
            raise AssertionError(f"expected nothing for {duration:g} s, but the connection closed with {self.closed}")

    async def wait_closed(self) -> tuple[int, str]:
        """Wait until the server closes or the app ends. Return code and reason. Unread frames stay."""
        return await self._transport.wait_closed(self.timeout)

    def pause_reading(self) -> None:
        """Act as a client that does not read: the app's ``send()`` blocks from now on, also for a close."""
        self._transport.pause()

    def resume_reading(self) -> None:
        """Read again after ``pause_reading``: blocked messages of the app arrive in their order."""
        self._transport.resume()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Disconnect, wait for the app to return, and raise its exception, if any. A second call does nothing.

        :raises TimeoutError: The app did not return in time and was cancelled.
        """
        self.drop(code, reason)
        await self._transport.finish(self.timeout)

    def drop(self, code: int = ABNORMAL, reason: str = "") -> None:
        """Disconnect without waiting for the app; by default without a close frame, as a broken network does."""
        self._transport.disconnect({"type": "websocket.disconnect", "code": code, "reason": reason})

    def _request(
        self, action: str, route: str, data: Any, request_id: Any, parameters: dict[str, Any]
    ) -> dict[str, Any]:
        frame: dict[str, Any] = {"action": action, "route": route}
        if data is not _UNSET:
            frame["data"] = data
        frame["request_id"] = f"test-{next(self._ids)}" if request_id is _UNSET else request_id
        return frame | parameters

    async def _reply(self, request: dict[str, Any], *, partial: bool) -> dict[str, Any]:
        """Return the final reply to ``request``; with ``partial``, the next one of either kind."""
        request_id = request["request_id"]

        def matches(received: Received) -> bool:
            frame = received.frame
            answers = frame.get("request_id", _UNSET)
            # Ids compare by type and value: 1, "1" and true are different requests.
            if type(answers) is not type(request_id) or answers != request_id or "event" in frame:
                return False
            return partial or frame.get("status") != 206

        description = f"the {'next' if partial else 'final'} reply to {request['action']!r} (request_id {request_id!r})"
        return (await self._transport.take(matches, description, self.timeout)).frame


class Stream:
    """Async iterator over the ``data`` of each partial reply to a request, as returned by ``WebSocketSession.stream``.

    The request is sent when the iteration begins. ``request_id`` is its id. ``reply`` is None until the final reply
    arrives. To cancel, call ``$cancel`` with ``data=stream.request_id`` and keep iterating to the end.

    :raises ActionFailed: The final reply is an error (499 after ``$cancel``).
    :raises ConnectionClosed: The connection closed before the final reply.
    """

    def __init__(self, session: WebSocketSession, request: dict[str, Any]) -> None:
        self.request_id: str | int = request["request_id"]
        self.reply: dict[str, Any] | None = None
        self._session = session
        self._request = request
        self._sent = False

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        if self.reply is not None:
            raise StopAsyncIteration
        if not self._sent:
            self._sent = True
            await self._session.send_json(self._request)
        reply = await self._session._reply(self._request, partial=True)
        if reply.get("status") == 206:
            return reply.get("data")
        self.reply = reply
        if reply.get("status", 500) >= 400:
            raise ActionFailed(reply)
        raise StopAsyncIteration
