"""``connect``: a WebSocket client for tests, in process and in the test's own event loop (asyncio).

::

    async with connect(app, "/ws/?x=1", user=user) as ws:
        reply = await ws.call("echo", text="hello")
        assert reply["data"] == "hello"

Every wait is bounded by the session's ``timeout`` and ends in a ``TimeoutError`` that says what was waited for and what
came instead. A frame that nobody asked for stays unread, in its order, for whoever asks for it later.
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
    timeout: float = 5.0,  # it bounds each wait of the session, not this call
    client: tuple[str, int] | None = ("testclient", 50000),
    origin: str | None = None,
    capacity: int = CAPACITY,
) -> AsyncIterator[WebSocketSession]:
    """Open one connection to ``app`` and close it at the end of the block.

    ``path`` may hold a query. ``user`` becomes ``scope["user"]``; the keys of ``scope`` are put over all others, so
    ``scope={"extensions": {}}`` is a server without HTTP responses to handshakes. ``timeout`` is in seconds, for each
    wait. ``capacity`` is how many frames may be unread before the app's ``send()`` has to wait.

    The app runs in a task of its own that sees the caller's context variables. Leaving the block disconnects with code
    1000 (1006 when the block raised), waits for the app to return, and raises what the app raised; what the block
    raised goes first, and the app's failure is noted on it. However the block ends, by cancellation too, the task is
    over, unless the app ignores being cancelled for a whole second.

    :raises HandshakeRefused: the server closed before it accepted, or answered with an HTTP response.
    :raises TimeoutError: no answer came in time; or, at the end, the app did not return in time and was cancelled.
    :raises RuntimeError: the server chose a sub-protocol that was not offered.
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
        raise RuntimeError(f"expected a sub-protocol out of {list(subprotocols)}; the app chose {chosen!r}")
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
        raise HandshakeRefused(500, reason="the app returned without a whole answer") from None


class WebSocketSession:
    """The client's end of an accepted connection; made by ``connect``.

    ``timeout`` (seconds, may be set) bounds every wait. ``subprotocol`` is the chosen one or None, ``accept_headers`` a
    dict with lower-case names. Methods may be called from several tasks at once.

    Where a method says "raises ``ConnectionClosed``", it does so after what came before the end has been read, and it
    raises the app's own exception instead if that is how the connection ended.
    """

    def __init__(self, transport: Transport, accept: Message, timeout: float) -> None:
        self.timeout = timeout
        self.subprotocol: str | None = accept.get("subprotocol")
        self.accept_headers = decode_headers(accept.get("headers") or ())
        self._transport = transport
        self._ids = itertools.count(1)

    @property
    def closed(self) -> tuple[int, str] | None:
        """Code and reason once either side has closed, unread frames or not; 1006 if the app ended without a close."""
        return self._transport.closed

    async def send_text(self, text: str) -> None:
        """Send a text frame. Raises ``ConnectionClosed``, or ``TimeoutError`` if the app has stopped receiving."""
        await self._transport.feed({"type": "websocket.receive", "text": text}, self.timeout)

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary frame, otherwise as ``send_text``."""
        await self._transport.feed({"type": "websocket.receive", "bytes": data}, self.timeout)

    async def send_json(self, value: Any) -> None:
        """Send ``value`` as JSON in a text frame."""
        await self.send_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")))

    async def receive(self) -> Message:
        """The next frame as its ASGI message, text or binary. Raises ``ConnectionClosed``."""
        received = await self._transport.take(is_frame, "a frame", self.timeout, claim=False)
        return received.message

    async def receive_text(self) -> str:
        """The text of the next frame. Raises ``ConnectionClosed``, or ``UnexpectedFrame`` if it is binary."""
        message = await self.receive()
        text = message.get("text")
        if not isinstance(text, str):
            raise UnexpectedFrame("a text frame", message)
        return text

    async def receive_bytes(self) -> bytes:
        """The bytes of the next frame. Raises ``ConnectionClosed``, or ``UnexpectedFrame`` if it is text."""
        message = await self.receive()
        data = message.get("bytes")
        if not isinstance(data, bytes):
            raise UnexpectedFrame("a binary frame", message)
        return data

    async def receive_json(self) -> Any:
        """The value of the next frame. Raises ``ConnectionClosed``, or ``UnexpectedFrame`` if it is not JSON text."""
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
        """Send an action frame and return its final reply, whatever its status. Raises ``ConnectionClosed``.

        Events, partial replies (206) and replies to others that come meanwhile stay unread. ``request_id`` is made up
        unless given; ``parameters`` are the frame's other keys: ``await ws.call("move", "cards/7/", x=1)``.
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
        """The partial replies of a streaming action: ``async for item in ws.stream("count", to=3)``. See ``Stream``."""
        return Stream(self, self._request(action, route, data, request_id, parameters))

    async def event(self, name: str | None = None) -> dict[str, Any]:
        """The next event frame, of that name if one is given; what comes before it stays unread.

        Raises ``ConnectionClosed``.
        """

        def matches(received: Received) -> bool:
            return "event" in received.frame and name in (None, received.frame["event"])

        description = "an event" if name is None else f"the event {name!r}"
        return (await self._transport.take(matches, description, self.timeout)).frame

    async def nothing(self, duration: float = 0.05) -> None:
        """Check that no frame is unread and that none, and no close, comes within ``duration`` seconds.

        It always takes that long where it succeeds, so prefer to wait for what does come after the thing that should
        not: a reply, or an event on which the server would have sent it before. After a close it succeeds at once.

        :raises AssertionError: something came; a frame stays unread.
        """
        closed_before = self.closed
        received = await self._transport.peek(is_frame, duration)
        if received is not None:
            raise AssertionError(f"expected nothing for {duration:g} s, came {str(received.message)[:500]}")
        if self.closed != closed_before:
            raise AssertionError(f"expected nothing for {duration:g} s, the connection ended with {self.closed}")

    async def wait_closed(self) -> tuple[int, str]:
        """Wait until the server closes or the app ends; code and reason. Unread frames stay."""
        return await self._transport.wait_closed(self.timeout)

    def pause_reading(self) -> None:
        """Become a client that does not read: from now on ``await send()`` of the app waits, for ``close`` too."""
        self._transport.pause()

    def resume_reading(self) -> None:
        """Read again, after ``pause_reading``: what waits in the app's ``send()`` comes in its order."""
        self._transport.resume()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Disconnect, wait for the app to return, and raise what it raised; a second call does nothing.

        :raises TimeoutError: the app did not return in time and was cancelled.
        """
        self.drop(code, reason)
        await self._transport.finish(self.timeout)

    def drop(self, code: int = ABNORMAL, reason: str = "") -> None:
        """Disconnect and do not wait for the app: by default as a broken network does, without a close frame."""
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
        """The next reply to ``request``; the final one unless ``partial``."""
        request_id = request["request_id"]

        def matches(received: Received) -> bool:
            frame = received.frame
            answers = frame.get("request_id", _UNSET)
            # Ids compare by type and value: 1 and "1" and true are three requests.
            if type(answers) is not type(request_id) or answers != request_id or "event" in frame:
                return False
            return partial or frame.get("status") != 206

        description = f"the {'next' if partial else 'final'} reply to {request['action']!r} (request_id {request_id!r})"
        return (await self._transport.take(matches, description, self.timeout)).frame


class Stream:
    """The ``data`` of each partial reply to one request, in order; made by ``WebSocketSession.stream``.

    The request is sent when the iteration begins. ``request_id`` is known before; ``reply`` is the final reply once it
    has come, else None. To cancel, call ``$cancel`` with ``data=stream.request_id`` and go on iterating to the end.

    :raises ActionFailed: the final reply is an error (499 after ``$cancel``).
    :raises ConnectionClosed: as any method of the session.
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
