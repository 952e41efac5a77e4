"""One WebSocket: reads frames, runs each, sends replies, and ends clean.

A `Connection` has a `Dispatcher` and knows no handlers. Two facts shape it. Reading must never stop: a server leaves
pongs and close frames unread while a frame is undelivered, so a slow action must not hold up the reader. And a task for
every frame is expensive. So the reading task (the *leader*) runs an action itself. If that suspends, the loop runs
`_hand_over`, which makes another task the leader; the first one stays with its frame (a *follower*). An action that
ends by the loop's next turn costs no task; one that waits longer costs one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import Any, Protocol

from wsaction._connection.deadlines import NEVER, Deadlines
from wsaction._connection.flusher import Flusher
from wsaction._connection.gates import DrainGate
from wsaction._connection.ordering import Lanes
from wsaction._connection.outbox import GONE, Outbox
from wsaction._protocol.close_codes import (
    INTERNAL_ERROR,
    MESSAGE_TOO_BIG,
    NO_CLOSE_FRAME,
    NO_STATUS,
    NORMAL,
    SERVICE_RESTART,
    TRY_AGAIN_LATER,
)
from wsaction._protocol.frames import Frame, current_frame, decode, set_since, size_of
from wsaction._utils.asgi import Message, Receive, Send
from wsaction._utils.tasks import is_closed_with, new_task
from wsaction.exceptions import APIError, Cancelled
from wsaction.hooks import nobody
from wsaction.limits import Limits
from wsaction.transactions import COMMITTING

logger = logging.getLogger("wsaction")

READS_IN_A_ROW = 32  # frames read without the loop having had a turn, before it is given one
MIN_CLOSE_TIME = 0.1  # seconds that sending a close frame may take at least, however late it is


class Dispatcher(Protocol):
    """Answers the frames of a connection."""

    def route(self, frame: Frame) -> None:
        """Sets the frame's call and key, or refuses it. Never raises."""

    async def run(self, frame: Frame) -> str | None:
        """The frame's final reply; None for no reply. Raises `CancelledError` only once the connection has ended."""

    def timeout(self, frame: Frame) -> float:
        """Seconds that the frame may take; ``inf`` for no limit."""


class Connection:
    """A WebSocket that was accepted or is about to be.

    `serve` returns its close code once it has ended, and nothing of it runs any more. Messages that are given to `send`
    or `put` before the handshake is accepted wait until then.
    """

    __slots__ = (
        "_base_context",
        "_deadlines",
        "_dispatcher",
        "_ended",
        "_hand_over_scheduled",
        "_lanes",
        "_receive",
        "_running",
        "_running_before",
        "_tasks",
        "closing",
        "end_by",
        "leader",
        "limits",
        "loop",
        "on_limit",
        "outbox",
    )
    read = staticmethod(decode)  # what a dialect takes over

    def __init__(
        self, receive: Receive, send: Send, limits: Limits, flusher: Flusher | None = None, *, drop_events: bool = False
    ) -> None:
        self._receive = receive
        self.limits = limits
        self.on_limit: Callable[[str, float], None] = nobody  # called for each bound that no reply tells
        self.outbox = Outbox(send, self, limits.max_outbox_bytes, flusher or Flusher(), drop_events=drop_events)
        self.loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self.loop.create_future()
        self.closing: tuple[int, str] | None = None  # the close frame that we owe the client
        self._tasks: set[asyncio.Task[None]] = set()
        self._base_context: Context = copy_context()  # every frame starts from it; copied anew by `serve`
        self._running: Frame | None = None  # what the leader runs
        self.leader: asyncio.Task[None] | None = None  # the task that reads, and runs each frame until it suspends
        self._hand_over_scheduled = False
        self._running_before: Frame | None = None  # what the leader ran when `_hand_over` last looked
        self._lanes = Lanes(limits)
        self._deadlines = Deadlines(self, self._lanes.under_way)
        self.end_by = NEVER  # when all must be over that serves it, on the event loop's clock; known once it ends

    # ------------------------------------------------------------------------------------------------ its life
    async def serve(self, dispatcher: Dispatcher) -> int:
        """Runs the accepted connection to its end and returns the close code, the peer's or ours."""
        self._dispatcher = dispatcher
        current_frame.set(None)
        self._base_context = copy_context()
        self.outbox.open()
        self._start_leader()
        self._deadlines.check()
        try:
            return await self._ended
        finally:
            self._deadlines.alarm.stop()
            await self._shut_down()

    @property
    def capacity(self) -> int:
        """Bytes that may wait to be sent."""
        return self.limits.max_outbox_bytes

    async def wait_for_space(self, size: int) -> None:
        """As `Outbox.wait_for_space`."""
        await self.outbox.wait_for_space(size)

    @property
    def put(self) -> Callable[[str], None]:
        """As `Outbox.put`: sends a message behind those that wait, without waiting itself."""
        return self.outbox.put

    @property
    def is_closed(self) -> bool:
        """Whether it has ended: no more is read, and running actions are being cancelled."""
        return self._ended.done()

    @property
    def busy(self) -> bool:
        """Whether a frame is under way or a message on its way."""
        return self._running is not None or bool(self._lanes.under_way) or self.outbox.busy

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Ends the connection: cancels running actions, then sends the close frame. The first call counts."""
        if not self._ended.done():
            self.closing = code, reason
            self.peer_disconnected(code)

    def close_for_limit(self, code: int, limit: str, reason: str) -> None:
        """Closes the connection for a bound that it reached, and adds the bound's value to the ``reason``."""
        if not self._ended.done():
            value = getattr(self.limits, limit)
            self.on_limit(limit, value)
            self.close(code, f"{reason}; {limit} is {value}" + (" s" if limit.endswith("timeout") else ""))

    def peer_disconnected(self, code: int) -> None:
        """Ends the connection without a close frame: its peer is gone."""
        if not self._ended.done():
            self._ended.set_result(code)
            self.outbox.end()

    async def send(self, text: str) -> None:
        """As `put`, to be awaited. Raises nothing."""
        self.put(text)

    def on_subscribed(self, route: str, frame: Frame) -> None:
        """The frame's action has subscribed to a route, and events follow. A dialect overrides it."""

    def on_unsubscribed(self, route: str) -> None:
        """The subscription to a route has ended."""

    def cancel(self, request_id: str | int) -> bool:
        """Cancels the frame in flight with this id, which is answered 499; False if there is none to cancel.

        A frame that waits does not run any more. One that runs is cancelled where it awaits, and its reply is dropped.
        It is too late once it timed out, its unit of work is being committed, or its reply is on its way.
        """
        frame = self._lanes.find(request_id)
        if frame is None or frame.unit is COMMITTING or self.outbox.is_sending(frame):
            return False
        if self._lanes.withdraw(frame):
            frame.refuse(Cancelled())
            self.spawn(self._answer, frame)
        elif not frame.is_refused:
            self.stop(frame, Cancelled())
        return isinstance(frame.error, Cancelled)

    def drain(self, end_by: float) -> None:
        """Answers all new frames but the protocol's own with 503 ``shutting_down``; running ones go on.

        Once the connection is closed, nothing waits for them after ``end_by``, a time of the event loop's clock.
        """
        self.end_by = end_by
        self._dispatcher = DrainGate(self._dispatcher)
        if waiting := self._lanes.withdraw_all():
            self.spawn(self._answer_all, waiting)

    async def _shut_down(self) -> None:
        """Cancels what still runs and sends the close frame, in half of the time: `disconnect()` has the other half."""
        if self._ended.cancelled():  # with whoever serves us, who waited for it
            self.closing = SERVICE_RESTART, ""
            self.outbox.end()
        now = self.loop.time()
        self.end_by = min(self.end_by, now + self.limits.drain_timeout)
        deadline = now + max(self.end_by - now, 0) / 2
        self._lanes.clear()
        await self._stop_tasks(deadline - now)
        if self.closing is not None:
            try:
                async with asyncio.timeout_at(max(deadline, self.loop.time() + MIN_CLOSE_TIME)):
                    await self.outbox.flush_and_close(*self.closing)
            except TimeoutError:
                logger.debug("the peer did not read its close frame, %s", self.closing[0])
        self.outbox.waiting = None

    async def _stop_tasks(self, timeout: float) -> None:
        """Waits for what it cancels, but not for ever: a handler may swallow its cancellation."""
        # A message that is half-way is sent before a close frame: nobody knows what cancelling would leave of it.
        sends_close = self.closing is not None and self.closing[0] != TRY_AGAIN_LATER
        sending_task = self.outbox.sending_task(self.leader) if sends_close else None
        for task in self._tasks:
            if task is not sending_task:
                task.cancel()
        if not self._tasks:
            return
        ended, unfinished = await asyncio.wait(self._tasks, timeout=timeout)
        self._tasks -= ended  # those that were cancelled before they began do not leave by themselves
        for task in unfinished:
            if task is sending_task:  # the client does not read
                task.cancel()
            else:
                drain_timeout = self.limits.drain_timeout
                self.on_limit("drain_timeout", drain_timeout)
                since = f"{timeout:.3g} s after it was cancelled; drain_timeout is {drain_timeout} s"
                logger.error("an action still runs %s: %r", since, task)

    # ------------------------------------------------------------------------------------------------ what is too late
    def timeout(self, frame: Frame) -> float:
        """Seconds that a frame may take."""
        return self._dispatcher.timeout(frame)

    def stop(self, frame: Frame, error: APIError) -> None:
        """Cancels a frame under way: it is answered with ``error`` once it ends, or soon if it does not end."""
        frame.stop(error)
        self._deadlines.extend(frame)

    def answer_and_detach(self, frame: Frame) -> None:
        """Answers a frame whose action or commit does not end. It stays under way until it does, and its own reply is
        dropped."""
        self.spawn(self._answer, frame.answer_and_detach())
        self._lanes.release(frame)
        self._start_ready()

    # ------------------------------------------------------------------------------------------------ its tasks
    def spawn(self, work: Callable[..., Awaitable[None]], *args: Any) -> asyncio.Task[None]:
        """Starts a task of the connection, in the context that every frame starts from."""
        task = new_task(self.loop, self._watch(work, *args), self._base_context.copy())
        self._tasks.add(task)
        return task

    def adopt(self, task: "asyncio.Task[None]") -> None:
        """Takes over a task that waits in a send, and bounds the time that it takes."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._deadlines.begin_send()

    async def _watch(self, work: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Runs the ``work`` of a task, whose failure ends the connection."""
        task = asyncio.current_task()
        try:
            await work(*args)
        except asyncio.CancelledError:
            if task is self.leader:  # an action had kept its task and cancelled it: another one has to read on
                self._start_leader()
            raise
        except BaseException as exc:
            if is_closed_with(exc, task):
                raise
            logger.critical("a connection failed; this is a bug of wsaction", exc_info=exc)
            self.close(INTERNAL_ERROR, "internal error")
            if not isinstance(exc, Exception):
                raise
        finally:
            self._tasks.discard(task)

    def _start_leader(self) -> None:
        if not self._ended.done():
            self.leader = self.spawn(self._lead)

    # ------------------------------------------------------------------------------------------------ reading
    async def _lead(self) -> None:
        """Reads frames and runs each; ends once one has suspended, since another task leads by then."""
        receive, read, limits, lanes, ended = self._receive, self.read, self.limits, self._lanes, self._ended.done
        fast_path_size = limits.max_frame_bytes // 4  # characters
        deadlines, variables, reads = self._deadlines, len(self._base_context), 0
        while True:
            try:
                message = await receive()
            except Exception as exc:
                logger.log(logging.DEBUG if isinstance(exc, GONE) else logging.WARNING, "receive() raised %r", exc)
                self.peer_disconnected(NO_CLOSE_FRAME)
                return
            if message["type"] != "websocket.receive" or ended():
                break
            deadlines.has_received = True
            if (reads := reads + 1) % READS_IN_A_ROW == 0:
                await asyncio.sleep(0)
            text: str | None = message.get("text")
            if (text is None or len(text) > fast_path_size) and self._too_large(text, message):
                return
            frame, dispatcher = read(text, limits), self._dispatcher
            dispatcher.route(frame)
            if lanes.under_way and not lanes.admit(frame, len(text or "")):
                continue
            current_frame.set(frame)
            self._running = frame
            if not self._hand_over_scheduled:
                self._hand_over_scheduled = True
                self.loop.call_soon(self._hand_over)
            try:
                reply = await dispatcher.run(frame)
                if reply is not None:
                    await self.outbox.send(reply, frame)
            finally:
                if self._running is frame:
                    self._running = None
                if frame.task is not None:
                    self._on_finished(frame)
            if frame.task is not None:  # it has suspended: another task leads
                return
            if len(copy_context()) != variables or (variables > 1 and set_since(self._base_context)):
                self._start_leader()  # the action set a context variable, which the next frame must not see
                return
        self.peer_disconnected(message.get("code", NO_STATUS))

    def _hand_over(self) -> None:
        """Runs when the leader suspends. If it is within the same frame at the loop's second turn, another task reads
        on."""
        frame = self._running
        if frame is not None and frame is not self._running_before:
            self._running_before = frame
            self.loop.call_soon(self._hand_over)
            return
        self._hand_over_scheduled = False
        self._running = None
        self._running_before = None
        if frame is not None:
            if self.outbox.is_sending(frame):
                self.outbox.note_wait()
            frame.task = self.leader
            self._lanes.start(frame)
            self._deadlines.begin(frame, self._dispatcher.timeout(frame))
            self._start_leader()

    def _too_large(self, text: str | None, message: Message) -> bool:
        """Whether the connection is closed, by this message if that is too large."""
        size = len(message.get("bytes") or b"") if text is None else size_of(text)
        if size > self.limits.max_frame_bytes:
            self.close_for_limit(MESSAGE_TOO_BIG, "max_frame_bytes", f"a frame of {size} bytes")
        return self.is_closed

    # ------------------------------------------------------------------------------------------------ what suspends
    def _on_finished(self, frame: Frame) -> None:
        self._lanes.finish(frame)
        if not self._ended.done():
            self._start_ready()

    def _start_ready(self) -> None:
        """Starts the frames that waited for a place, while there is one."""
        while (frame := self._lanes.start_next()) is not None:
            self._deadlines.begin(frame, self._dispatcher.timeout(frame))
            self.spawn(self._follow, frame)

    async def _follow(self, frame: Frame) -> None:
        """Runs a frame that had to wait."""
        try:
            await self._answer(frame)
        finally:
            self._on_finished(frame)

    async def _answer(self, frame: Frame) -> None:
        if self._ended.done():
            return
        frame.task = asyncio.current_task()
        current_frame.set(frame)
        reply = await self._dispatcher.run(frame)
        if reply is not None:
            await self.outbox.send(reply, frame)

    async def _answer_all(self, frames: list[Frame]) -> None:
        for frame in frames:
            await self._answer(frame)
