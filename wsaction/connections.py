"""One WebSocket: reads frames, keeps their order, sends replies, and ends clean.

A `Connection` is given a `Dispatcher` and never knows what a handler is. Two facts shape it. Reading must never stop: a
server leaves pongs and closes unread while a frame is undelivered, so a slow action must not hold the reader up. And a
task for every frame is dear. Hence leader and follower: the reading task (the *leader*) runs a frame's action itself;
if that suspends, the loop gets round to `_pass_on`, which makes another task the leader and leaves this one with its
frame (a *follower*). An action that never waits costs no task; one that does costs one.

Frames with the same key (their canonical route) run in order: at most one of them is under way, the others wait in its
*lane*. At most `max_concurrency` are under way in all; the firsts of other lanes wait in `_ready`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import Context, copy_context
from typing import Any, Protocol

from wsaction.exceptions import APIError, Busy, DuplicateRequestID
from wsaction.frames import Frame, current_frame, decode
from wsaction.limits import Limits

__all__ = ("Connection", "Dispatcher")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

logger = logging.getLogger("wsaction")

READS_IN_A_ROW = 32  # frames read without the loop having had a turn, before it is given one


class Dispatcher(Protocol):
    """What a connection asks to answer a frame."""

    def route(self, frame: Frame) -> None:
        """Notes on the frame what will answer it, and its key. Never waits, never raises."""

    async def run(self, frame: Frame) -> str | None:
        """The frame's final reply, or None where it is silent. Raises only `asyncio.CancelledError`."""


class Connection:
    """A WebSocket that was accepted or is about to be.

    `serve` returns when it has ended, with the close code; nothing of it runs on then. `send` and `put` may be called
    before the handshake is accepted: what they are given waits until then.
    """

    __slots__ = (
        "_armed", "_asgi_send", "_at_work", "_base", "_dispatcher", "_ended", "_ids", "_in_flight", "_lanes",
        "_leader", "_loop", "_outbox", "_outbox_bytes", "_ready", "_receive", "_sending", "_tasks", "_waiting",
        "closing", "limits",
    )  # fmt: skip

    def __init__(self, receive: Receive, send: Send, limits: Limits) -> None:
        self._receive, self._asgi_send, self.limits = receive, send, limits
        self._loop = asyncio.get_running_loop()
        self._dispatcher: Dispatcher
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self.closing: tuple[int, str] | None = None  # the close frame that we owe the client
        self._tasks: set[asyncio.Task[None]] = set()
        self._base: Context  # what every frame starts from
        self._leader: asyncio.Task[None]
        self._at_work: Frame | None = None  # what the leader runs
        self._armed = False  # whether `_pass_on` is on its way
        self._lanes: dict[str, deque[Frame] | None] = {}  # key of a frame under way or in `_ready` -> those behind it
        self._ready: deque[Frame] | None = None  # these wait only for one of max_concurrency
        self._ids: dict[str | int, Frame] = {}  # of all that have suspended or wait
        self._in_flight = 0  # suspended
        self._waiting = 0  # in lanes and in `_ready`
        self._outbox: deque[str] | None = None
        self._outbox_bytes = 0
        self._sending = True  # until accepted

    # ------------------------------------------------------------------------------------------------ its life
    async def serve(self, dispatcher: Dispatcher) -> int:
        """Runs the accepted connection to its end and returns the close code, the peer's or ours."""
        self._dispatcher = dispatcher
        current_frame.set(None)
        self._base = copy_context()
        self._go_on_sending()
        self._lead_on()
        try:
            code = await self._ended
        finally:
            await self._settle()
        if self.closing is not None:
            await self._say_close(*self.closing)
        return code

    @property
    def ended(self) -> bool:
        """Whether it is over: nothing more is read, and what runs is being cancelled."""
        return self._ended.done()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Ends the connection: what runs is cancelled, then the close frame is sent. The first call counts.

        ``reason`` is cut to the 123 bytes of UTF-8 that a close frame holds.
        """
        if not self._ended.done():
            self.closing = code, reason.encode()[:123].decode(errors="ignore")
            self._ended.set_result(code)

    def _lost(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    async def _settle(self) -> None:
        """Cancels what still runs and waits for it, but not for ever: a handler may swallow its cancellation."""
        self._ended.cancel()  # where it is still open, since whoever served this was cancelled
        self._lanes.clear()
        self._ids.clear()
        self._ready = None
        if not self._tasks:
            return
        for task in self._tasks:
            task.cancel()
        _, stubborn = await asyncio.wait(self._tasks, timeout=self.limits.drain_timeout)
        for task in stubborn:
            logger.error("an action still runs %s s after it was cancelled: %r", self.limits.drain_timeout, task)

    async def _say_close(self, code: int, reason: str) -> None:
        """Sends what still waits, unless the client is too slow for it, and the close frame."""
        try:
            async with asyncio.timeout(self.limits.drain_timeout):
                while self._outbox and code != 1013:
                    await self._asgi_send({"type": "websocket.send", "text": self._outbox.popleft()})
                await self._asgi_send({"type": "websocket.close", "code": code, "reason": reason})
        except (OSError, RuntimeError, TimeoutError) as exc:
            logger.debug("the peer was gone before it could be told %s: %r", code, exc)

    # ------------------------------------------------------------------------------------------------ its tasks
    def _spawn(self, work: Callable[..., Awaitable[None]], *args: Any) -> asyncio.Task[None]:
        task = self._loop.create_task(self._watch(work, *args), context=self._base.copy())
        self._tasks.add(task)
        return task

    async def _watch(self, work: Callable[..., Awaitable[None]], *args: Any) -> None:
        """What each task runs: ``work``, and an end to the connection where it ends otherwise than it should."""
        task = asyncio.current_task()
        try:
            await work(*args)
        except asyncio.CancelledError:
            if task is self._leader:
                self.close(1011, "the reader was cancelled")
            raise
        except Exception as exc:
            logger.critical("a connection failed; this is a bug of wsaction", exc_info=exc)
            self.close(1011, "internal error")
        finally:
            self._tasks.discard(task)

    def _lead_on(self) -> None:
        if not self._ended.done():
            self._leader = self._spawn(self._lead)

    # ------------------------------------------------------------------------------------------------ reading
    async def _lead(self) -> None:
        """Reads frames and runs each; ends when one has suspended, since another task leads by then."""
        receive, limits, dispatcher = self._receive, self.limits, self._dispatcher
        surely_small = limits.max_frame_bytes // 4  # characters
        reads = 0
        while (message := await receive())["type"] == "websocket.receive":
            if (reads := reads + 1) % READS_IN_A_ROW == 0:
                await asyncio.sleep(0)
            text: str | None = message.get("text")
            if (text is None or len(text) > surely_small) and self._too_large(text, message):
                return
            frame = decode(text, limits)
            dispatcher.route(frame)
            if self._in_flight and self._must_wait(frame):
                continue
            current_frame.set(frame)
            clean = copy_context()
            self._at_work = frame
            if not self._armed:
                self._armed = True
                self._loop.call_soon(self._pass_on)
            reply = await dispatcher.run(frame)
            if reply is not None:
                await self.send(reply)
            if frame.task is not None:  # it has suspended: another task leads
                self._finished(frame)
                return
            self._at_work = None
            if copy_context() != clean:  # the action set a context variable, which the next frame must not see
                self._lead_on()
                return
        self._lost(message.get("code", 1005))

    def _pass_on(self) -> None:
        """The loop has its turn. If that is because the leader waits within a frame, another task reads on."""
        self._armed = False
        if (frame := self._at_work) is not None:
            self._at_work = None
            self._under_way(frame, self._leader)
            self._lead_on()

    def _too_large(self, text: str | None, message: Message) -> bool:
        """Whether a message that may be too large is, and has closed the connection."""
        most = self.limits.max_frame_bytes
        size = len(message.get("bytes") or b"") if text is None else len(text.encode(errors="surrogatepass"))
        if size > most:
            self.close(1009, f"a frame of {size} bytes; max_frame_bytes is {most}")
        return size > most

    # ------------------------------------------------------------------------------------------------ order
    def _must_wait(self, frame: Frame) -> bool:
        """Whether the frame has been put behind others; asked only while one is under way."""
        if frame.error is not None:
            return False
        if frame.request_id is not None and frame.request_id in self._ids:
            return self._refuse(frame, DuplicateRequestID(ctx={"request_id": frame.request_id}))
        key = frame.key
        behind = key is not None and key in self._lanes
        if not behind and self._in_flight < self.limits.max_concurrency:
            return False
        if self._waiting >= self.limits.max_queued_actions:
            return self._refuse(
                frame, Busy(ctx={"limit": "max_queued_actions", "value": self.limits.max_queued_actions})
            )
        self._waiting += 1
        if frame.request_id is not None:
            self._ids[frame.request_id] = frame
        if behind:
            lane = self._lanes[key]  # type: ignore[index]  # behind: it has one
            if lane is None:
                lane = self._lanes[key] = deque()  # type: ignore[index]
            lane.append(frame)
        else:
            if key is not None:
                self._lanes[key] = None
            self._now_ready(frame)
        return True

    def _refuse(self, frame: Frame, error: APIError) -> bool:
        frame.error, frame.key = error, None  # answered at once, whatever is before it
        return False

    def _now_ready(self, frame: Frame) -> None:
        if self._ready is None:
            self._ready = deque()
        self._ready.append(frame)

    def _under_way(self, frame: Frame, task: asyncio.Task[None]) -> None:
        frame.task = task
        self._in_flight += 1
        if frame.request_id is not None:
            self._ids.setdefault(frame.request_id, frame)
        if frame.key is not None:
            self._lanes.setdefault(frame.key, None)

    def _finished(self, frame: Frame) -> None:
        """A frame that was under way is answered: the next of its lane is ready, and a place is free."""
        if self._ended.done():
            return
        self._in_flight -= 1
        if self._ids.get(frame.request_id) is frame:  # type: ignore[arg-type]  # None is never in it
            del self._ids[frame.request_id]  # type: ignore[arg-type]
        if frame.key is not None:
            if lane := self._lanes[frame.key]:
                self._now_ready(lane.popleft())
            else:
                del self._lanes[frame.key]
        while self._ready and self._in_flight < self.limits.max_concurrency:
            frame = self._ready.popleft()
            self._waiting -= 1
            self._under_way(frame, self._spawn(self._follow, frame))

    async def _follow(self, frame: Frame) -> None:
        """Runs a frame that had to wait."""
        current_frame.set(frame)
        reply = await self._dispatcher.run(frame)
        if reply is not None:
            await self.send(reply)
        self._finished(frame)

    # ------------------------------------------------------------------------------------------------ sending
    async def send(self, text: str) -> None:
        """Sends a message: at once where nothing is before it, else it waits in the outbox. Raises nothing."""
        if self._sending:
            self.put(text)
            return
        self._sending = True
        try:
            await self._asgi_send({"type": "websocket.send", "text": text})
        except (OSError, RuntimeError) as exc:  # both mean that the peer is gone
            self._peer_gone(exc)
        finally:
            self._sending = False
            if self._outbox:
                self._go_on_sending()

    def put(self, text: str) -> None:
        """Sends a message without ever waiting: behind what waits in the outbox. Closes, 1013, past its bound."""
        if self._ended.done():
            return
        self._outbox_bytes += len(text) if text.isascii() else len(text.encode())
        if self._outbox_bytes > self.limits.max_outbox_bytes:
            self.close(1013, f"slow consumer; max_outbox_bytes is {self.limits.max_outbox_bytes}")
            return
        if self._outbox is None:
            self._outbox = deque()
        self._outbox.append(text)
        if not self._sending:
            self._go_on_sending()

    def _go_on_sending(self) -> None:
        self._sending = bool(self._outbox) and not self._ended.done()
        if self._sending:
            self._spawn(self._empty_outbox)

    async def _empty_outbox(self) -> None:
        try:
            while self._outbox:
                text = self._outbox.popleft()
                self._outbox_bytes -= len(text) if text.isascii() else len(text.encode())
                await self._asgi_send({"type": "websocket.send", "text": text})
        except (OSError, RuntimeError) as exc:
            self._peer_gone(exc)
        finally:
            self._sending = False

    def _peer_gone(self, exc: Exception) -> None:
        logger.debug("the peer is gone: %r", exc)
        self._lost(1006)
