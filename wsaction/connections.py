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
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import Any, Protocol

from wsaction.exceptions import APIError, Busy, Cancelled, DuplicateRequestID
from wsaction.frames import Frame, current_frame, decode, set_since
from wsaction.limits import Limits
from wsaction.outboxes import Message, Outbox, Send

__all__ = ("Connection", "Dispatcher", "Receive", "Send")

Receive = Callable[[], Awaitable[Message]]

logger = logging.getLogger("wsaction")

READS_IN_A_ROW = 32  # frames read without the loop having had a turn, before it is given one


class Dispatcher(Protocol):
    """What a connection asks to answer a frame."""

    def route(self, frame: Frame) -> None:
        """Notes on the frame what will answer it, and its key. Never waits, never raises."""

    async def run(self, frame: Frame) -> str | None:
        """The frame's final reply, or None where it is silent. Raises `asyncio.CancelledError` once it has ended."""


class Connection:
    """A WebSocket that was accepted or is about to be.

    `serve` returns when it has ended, with the close code; nothing of it runs on then. `send` and `put` may be called
    before the handshake is accepted: what they are given waits until then.
    """

    __slots__ = (
        "_armed", "_at_work", "_base", "_dispatcher", "_ended", "_ids", "_in_flight", "_lanes", "_leader", "_loop",
        "_ready", "_receive", "_tasks", "_waiting", "closing", "limits", "outbox",
    )  # fmt: skip

    def __init__(self, receive: Receive, send: Send, limits: Limits) -> None:
        self._receive, self.limits = receive, limits
        self.outbox = Outbox(send, self, limits.max_outbox_bytes)
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

    # ------------------------------------------------------------------------------------------------ its life
    async def serve(self, dispatcher: Dispatcher) -> int:
        """Runs the accepted connection to its end and returns the close code, the peer's or ours."""
        self._dispatcher = dispatcher
        current_frame.set(None)
        self._base = copy_context()
        self.outbox.open()
        self._lead_on()
        try:
            code = await self._ended
        finally:
            await self._settle()
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
            self.closing = code, reason.encode(errors="replace")[:123].decode(errors="ignore")
            self.lost(code)

    def lost(self, code: int) -> None:
        """Ends the connection without a close frame: its peer is gone."""
        if not self._ended.done():
            self._ended.set_result(code)

    async def send(self, text: str) -> None:
        """Sends a message: at once where nothing is before it, else it waits in the outbox. Raises nothing."""
        await self.outbox.send(text)

    def put(self, text: str) -> None:
        """Sends a message without ever waiting: behind what waits in the outbox. Closes, 1013, past its bound."""
        self.outbox.put(text)

    def cancel(self, request_id: str | int) -> bool:
        """Cancels the frame in flight that has this id, and says whether there is one; it is answered 499.

        One that waits is not run. One under way is cancelled where it awaits; what it answers afterwards is dropped.
        One whose reply is on its way is done.
        """
        frame = self._ids.get(request_id)
        if frame is None or self.outbox.is_sending(frame):
            return False
        frame.error = Cancelled()
        if frame.task is not None:
            frame.task.cancel()
        elif self._withdraw(frame):
            del self._ids[request_id]
            frame.key = None
            self.spawn(self._answer, frame)
        return True  # one that is just about to begin is refused by its error

    def _withdraw(self, frame: Frame) -> bool:
        """Takes a frame out of where it waits, and says whether it did wait."""
        lane = None if frame.key is None else self._lanes.get(frame.key)
        if lane and frame in lane:
            lane.remove(frame)
        elif self._ready and frame in self._ready:
            self._ready.remove(frame)
            self._next_of_lane(frame)
        else:
            return False
        self._waiting -= 1
        return True

    async def _settle(self) -> None:
        """Cancels what still runs and says goodbye; in all no longer than ``drain_timeout``."""
        if self._ended.cancelled():  # with whoever serves us, who waited for it
            self.closing = 1012, ""
        deadline = self._loop.time() + self.limits.drain_timeout
        self._lanes.clear()
        self._ids.clear()
        self._ready = None
        await self._stop_tasks()
        if self.closing is not None:
            try:
                async with asyncio.timeout_at(deadline):
                    await self.outbox.say_close(*self.closing)
            except TimeoutError:
                logger.debug("the peer did not read its close frame, %s", self.closing[0])
        self.outbox.waiting = None

    async def _stop_tasks(self) -> None:
        """Waits for what it cancels, but not for ever: a handler may swallow its cancellation."""
        # Where we say goodbye, a reply that is half-way is sent before: nobody knows what cancelling would leave of it.
        polite = self.closing is not None and self.closing[0] != 1013
        spared = self.outbox.sender if polite else None
        for task in self._tasks:
            if task is not spared:
                task.cancel()
        if not self._tasks:
            return
        _, stubborn = await asyncio.wait(self._tasks, timeout=self.limits.drain_timeout)
        for task in stubborn:
            if task is spared:  # the client does not read
                task.cancel()
            else:
                logger.error("an action still runs %s s after it was cancelled: %r", self.limits.drain_timeout, task)

    # ------------------------------------------------------------------------------------------------ its tasks
    def spawn(self, work: Callable[..., Awaitable[None]], *args: Any) -> asyncio.Task[None]:
        """Starts a task of the connection's, in the context that every frame starts from."""
        task = self._loop.create_task(self._watch(work, *args), context=self._base.copy())
        self._tasks.add(task)
        return task

    async def _watch(self, work: Callable[..., Awaitable[None]], *args: Any) -> None:
        """What each task runs: ``work``, which may end otherwise than it should."""
        task = asyncio.current_task()
        try:
            await work(*args)
        except asyncio.CancelledError:
            if task is self._leader:  # by an action that had kept its task: somebody has to read on
                self._lead_on()
            raise
        except BaseException as exc:
            logger.critical("a connection failed; this is a bug of wsaction", exc_info=exc)
            self.close(1011, "internal error")
            if not isinstance(exc, Exception):
                raise
        finally:
            self._tasks.discard(task)

    def _lead_on(self) -> None:
        if not self._ended.done():
            self._leader = self.spawn(self._lead)

    # ------------------------------------------------------------------------------------------------ reading
    async def _lead(self) -> None:
        """Reads frames and runs each; ends when one has suspended, since another task leads by then."""
        receive, limits, dispatcher, ended = self._receive, self.limits, self._dispatcher, self._ended.done
        surely_small = limits.max_frame_bytes // 4  # characters
        reads, variables = 0, len(self._base)
        while (message := await receive())["type"] == "websocket.receive":
            if ended():
                return
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
            self._at_work = frame
            if not self._armed:
                self._armed = True
                self._loop.call_soon(self._pass_on)
            try:
                reply = await dispatcher.run(frame)
                if reply is not None:
                    await self.outbox.send(reply, frame)
            finally:
                if frame.task is None:
                    self._at_work = None
                else:
                    self._finished(frame)
            if frame.task is not None:  # it has suspended: another task leads
                return
            if len(copy_context()) != variables or (variables > 1 and set_since(self._base)):
                self._lead_on()  # the action set a context variable, which the next frame must not see
                return
        self.lost(message.get("code", 1005))

    def _pass_on(self) -> None:
        """The loop has its turn. If that is because the leader waits within a frame, another task reads on."""
        self._armed = False
        if (frame := self._at_work) is not None:
            self._at_work = None
            frame.task = self._leader
            self._under_way(frame)
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
        if frame.action is not None and frame.action.startswith("$"):  # the protocol's own wait for nothing
            return False
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

    def _under_way(self, frame: Frame) -> None:
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
        self._next_of_lane(frame)
        while self._ready and self._in_flight < self.limits.max_concurrency:
            frame = self._ready.popleft()
            self._waiting -= 1
            self._under_way(frame)
            self.spawn(self._follow, frame)

    def _next_of_lane(self, frame: Frame) -> None:
        """The lane's first is gone: the one behind it waits for a place only, or the lane is over."""
        if frame.key is None:
            return
        if lane := self._lanes[frame.key]:
            self._now_ready(lane.popleft())
        else:
            del self._lanes[frame.key]

    async def _follow(self, frame: Frame) -> None:
        """Runs a frame that had to wait."""
        frame.task = asyncio.current_task()
        try:
            await self._answer(frame)
        finally:
            self._finished(frame)

    async def _answer(self, frame: Frame) -> None:
        if self._ended.done():
            return
        current_frame.set(frame)
        reply = await self._dispatcher.run(frame)
        if reply is not None:
            await self.outbox.send(reply, frame)
