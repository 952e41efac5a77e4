"""What one connection sends: straight through while nothing is before it, else one message after the other."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Set
from typing import TYPE_CHECKING, Any

from wsaction._connection.flusher import Flusher
from wsaction._protocol.close_codes import INTERNAL_ERROR, NO_CLOSE_FRAME, TRY_AGAIN_LATER
from wsaction._protocol.event_frames import is_event, route_of
from wsaction._protocol.frames import Frame, size_of
from wsaction._utils.asgi import Send

if TYPE_CHECKING:
    from wsaction._connection.connection import Connection

logger = logging.getLogger("wsaction")

MAX_LOST = 1_024  # routes of which events were dropped that are remembered, until there is room to say so
NOTHING: Set[str] = frozenset()


class Outbox:
    """Sends text messages in order, and bounds those that wait.

    ``await send()`` can take for ever if the client stops reading. So one message is on its way at a time; the others
    wait for the flusher, at most ``max_bytes`` of UTF-8. No send is cancelled while the connection lives: nobody would
    know whether the client got its message. A frame's task sends its own reply; the flusher sends all else, and the
    replies too from a send that had to wait until one that did not.
    If the buffer is full, the connection closes with 1013. With ``drop_events`` the oldest events are dropped instead,
    never a reply; once half of the buffer is free, ``on_lost`` is called with the routes whose events were dropped, or
    with None if these are too many to remember. Until ``open()`` all messages wait for the handshake.
    """

    __slots__ = (
        "_connection",
        "_drops_events",
        "_flusher",
        "_leading_replies",
        "_lost",
        "_max_bytes",
        "_max_lost",
        "_may_send_directly",
        "_next",
        "_offer_waiters",
        "_seen",
        "_seen_at",
        "_sending",
        "_space_freed",
        "asgi_send",
        "is_closed",
        "on_lost",
        "sent",
        "size",
        "waiting",
    )

    def __init__(
        self,
        asgi_send: Send,
        connection: "Connection",
        max_bytes: int,
        flusher: Flusher,
        *,
        drop_events: bool = False,
        max_lost: int = MAX_LOST,
    ) -> None:
        self.asgi_send = asgi_send
        self._connection = connection
        self._flusher = flusher
        self._max_bytes = max_bytes
        self._max_lost = max_lost
        self._drops_events = drop_events
        self._next: str | None = None  # the flusher's next message; it counts as sent
        self._sending: Frame | asyncio.Task[None] | bool = True  # True: the flusher sends, or it is not open
        self._may_send_directly = True  # whether replies may pass the flusher: the last send did not have to wait
        self.sent = 0  # messages that the flusher sent
        self._seen: tuple[Any, int] | None = None  # `_sending` and `sent` when `stuck_for` was last asked
        self._seen_at = 0.0
        self._offer_waiters: deque[asyncio.Future[None]] | None = None
        self._space_freed: asyncio.Event | None = None  # made by the first that waits for space
        self.waiting: deque[str] | None = None
        self._leading_replies = 0  # of `waiting`, messages at its left end that are known to be no events
        self.size = 0  # bytes of `waiting`
        self._lost: Set[str] | None = NOTHING  # the routes whose events were dropped; None: too many of them
        self.on_lost: Callable[[Set[str] | None], None] | None = None
        self.is_closed = False  # nothing more is taken

    @property
    def busy(self) -> bool:
        """Whether a message is on its way."""
        return bool(self._sending)

    def stuck_for(self, now: float, blocked_for: float = 0.0) -> float:
        """Seconds for which calls of this method have seen the same message on its way.

        The last ``blocked_for`` seconds do not count: the loop was blocked, so that no send could go on.
        """
        if not self._sending:
            self._seen = None
            return 0.0
        if self._seen != (on_its_way := (self._sending, self.sent)):
            self._seen = on_its_way
            self._seen_at = now
        else:
            self._seen_at += blocked_for
        return now - self._seen_at

    def sending_task(self, leader: asyncio.Task[None] | None) -> asyncio.Task[None] | None:
        """The connection's task that is half-way through a message, or None; it ends once the message is sent.

        If that is the ``leader``, it becomes a follower here, and reads no more.
        """
        sender = self._sending
        if isinstance(sender, Frame):
            sender.task = sender.task or leader
            return sender.task
        return sender if isinstance(sender, asyncio.Task) else None

    def is_sending(self, frame: Frame) -> bool:
        """Whether the frame's reply is half-way."""
        return self._sending is frame

    def note_wait(self) -> None:
        """A send has to wait: the flusher sends the next ones."""
        self._may_send_directly = False

    def open(self) -> None:
        """Sends the messages that waited for the handshake, and all later ones at once."""
        self._sending = bool(self.waiting or self._lost is not NOTHING) and not self.is_closed
        if self._sending:
            self._flusher.add(self)
        else:
            self._wake_offer()

    def translate(self, text: str, by: Frame | None = None) -> str:
        """The message in the client's dialect; ``by`` is the frame whose reply it is."""
        return text

    async def send(self, text: str, by: Frame) -> None:
        """Sends the reply of a frame, at once or behind the messages that wait. Raises nothing of the peer's.

        Only the application can cancel it, by a task that it kept: the connection then closes with 1011.
        """
        # Once closed, the messages that wait are sent before the close frame: no reply may overtake them.
        if self._sending or not self._may_send_directly or (self.is_closed and self.waiting):
            self.put(text)
            return
        self._sending = by
        asgi_send = self.asgi_send
        try:
            await asgi_send({"type": "websocket.send", "text": text})
        except Exception as exc:
            self._handle_send_error(exc)
        except asyncio.CancelledError:
            self.close_after_failed_send()
            raise
        finally:
            self._sending = False
            if self.waiting or self._lost is not NOTHING:
                self.open()
            elif self._offer_waiters:
                self._wake_offer()

    def put(self, text: str) -> None:
        """Sends a message behind those that wait, without waiting itself."""
        if self.is_closed:
            return
        if not self._sending and len(text) * 4 <= self._max_bytes:  # a character is 4 bytes at most
            self._sending = True
            self._next = text
            self._flusher.add(self)
            return
        if type(self._sending) is Frame:  # the reply's send has to wait, or this could not run
            self._may_send_directly = False
        size = len(text) if text.isascii() else size_of(text)
        if self.size + size > self._max_bytes and not self._make_room(text, size):
            return
        self.size += size
        if self.waiting is None:
            self.waiting = deque()
        self.waiting.append(text)
        if not self._sending:
            self._sending = True
            self._flusher.add(self)

    # ------------------------------------------------------------------------------------------------ past the bound
    def _make_room(self, text: str, size: int) -> bool:
        """Whether a message fits once the oldest events are dropped; else it is dropped, or the connection closes."""
        if self._drops_events:
            self._drop_oldest(size)
            if self.size + size <= self._max_bytes:
                self._connection.on_limit("max_outbox_bytes", self._max_bytes)
                return True
            if self.is_event(text):
                self._drop(text)
                self._connection.on_limit("max_outbox_bytes", self._max_bytes)
                if not self._sending:  # it alone is larger than the bound
                    self._report_lost()
                return False
        self._connection.close_for_limit(TRY_AGAIN_LATER, "max_outbox_bytes", "slow consumer")
        return False

    def _drop_oldest(self, size: int) -> None:
        """Drops the oldest events until ``size`` bytes more fit, or none is left.

        Each message is looked at once, so that events stay cheap for a client that lets replies pile up.
        """
        waiting = deque[str]() if self.waiting is None else self.waiting
        if not (unknown := len(waiting) - self._leading_replies):
            return
        waiting.rotate(-self._leading_replies)
        while unknown and self.size + size > self._max_bytes:
            unknown -= 1
            text = waiting.popleft()
            if self.is_event(text):
                self.size -= size_of(text)
                self._drop(text)
            else:
                waiting.append(text)
                self._leading_replies += 1
        waiting.rotate(self._leading_replies)

    def _drop(self, text: str) -> None:
        if self._lost is not None and (route := route_of(text)) is not None:
            self._lost = self._lost | {route} if len(self._lost) < self._max_lost else None

    def _report_lost(self) -> None:
        """Calls ``on_lost``; events that are dropped meanwhile are reported the next time."""
        lost = self._lost
        self._lost = NOTHING
        if self.on_lost is not None:
            self.on_lost(lost)

    def is_event(self, text: str) -> bool:
        """Whether a message may be dropped."""
        return is_event(text)

    async def offer(self, text: str) -> None:
        """Puts a message once all before it are sent, so that the caller is no faster than the client reads."""
        while self._sending:
            waiter = asyncio.get_running_loop().create_future()
            if self._offer_waiters is None:
                self._offer_waiters = deque()
            self._offer_waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._offer_waiters:
                    self._offer_waiters.remove(waiter)
                else:  # it was its turn
                    self._wake_offer()
                raise
        self.put(text)

    async def wait_for_space(self, size: int) -> None:
        """Waits until ``size`` more bytes fill at most half of the buffer, or it is empty, or the connection has ended.

        Only actions of the connection wait here: at most ``max_concurrency``.
        """
        while self.size and self.size + size > self._max_bytes // 2 and not self.is_closed:
            self._space_freed = self._space_freed or asyncio.Event()
            await self._space_freed.wait()

    def wake_waiting(self) -> None:
        """Wakes those who wait for space: there is more, or the connection has ended."""
        if self._space_freed is not None:
            self._space_freed.set()
            self._space_freed = None

    def end(self) -> None:
        """Its connection has ended: takes no more messages."""
        self.is_closed = True
        if (text := self._next) is not None:  # the flusher has not taken it: it is sent before the close frame
            self._next = None
            self.waiting = self.waiting or deque()
            self.waiting.appendleft(text)
            self.size += size_of(text)
        self.wake_waiting()

    def _wake_offer(self) -> None:
        """Wakes the first of those who wait to offer."""
        while self._offer_waiters and not self._sending:
            waiter = self._offer_waiters.popleft()
            if not waiter.done():  # else it was cancelled, and has yet to notice
                waiter.set_result(None)
                return

    async def flush_and_close(self, code: int, reason: str) -> None:
        """Sends the messages that wait, unless the client was too slow for them, and then the close frame."""
        try:
            while self.waiting and code != TRY_AGAIN_LATER:
                await self.asgi_send({"type": "websocket.send", "text": self.waiting.popleft()})
        except Exception as exc:
            log_failed_send("a message", exc)
        await send_close(self.asgi_send, code, reason)

    # ------------------------------------------------------------------------------------------------ the flusher's
    def next(self) -> str | None:
        """The message that the flusher sends now; None if there is none."""
        if (text := self._next) is not None:
            self._next = None
        elif (self.waiting or self._lost is not NOTHING) and not self.is_closed:
            if not self.waiting:
                self._report_lost()  # its notices wait from now on, unless there is no room for them either
            text = self._pop(self.waiting) if self.waiting else None
        if text is None:
            self.pause()
            return None
        self.sent += 1
        return text

    def _pop(self, waiting: deque[str]) -> str:
        text = waiting.popleft()
        self._leading_replies = max(self._leading_replies - 1, 0)
        self.size -= len(text) if text.isascii() else size_of(text)
        self.wake_waiting()
        if self._lost is not NOTHING and self.size <= self._max_bytes // 2:
            self._report_lost()
        return text

    def pause(self) -> None:
        """Nothing is on its way."""
        self._may_send_directly = self._sending is True  # else the flusher's task had to wait, and was adopted
        self._sending = False
        if self._offer_waiters:
            self._wake_offer()

    def on_send_error(self, exc: BaseException) -> None:
        """A send raised something."""
        self.pause()
        self._handle_send_error(exc)

    def adopt(self, task: "asyncio.Task[None]") -> None:
        """The flusher's task waits in a send of ours: from now on it is the connection's."""
        self._sending = task
        self._connection.adopt(task)

    def close_after_failed_send(self) -> None:
        """A send failed or was cancelled: nobody knows what became of its message."""
        self._connection.close(INTERNAL_ERROR, "internal error")

    def _handle_send_error(self, exc: BaseException) -> None:
        log_failed_send("a message", exc)
        if isinstance(exc, GONE):
            self._connection.peer_disconnected(NO_CLOSE_FRAME)
        else:
            self.close_after_failed_send()


GONE = (OSError, RuntimeError)  # raised by a server's send() once the peer is gone


def log_failed_send(what: str, exc: BaseException) -> None:
    """Logs what a server's ``send()`` raised for ``what``, without a traceback: it is no fault of ours."""
    gone = isinstance(exc, GONE)
    logger.log(logging.DEBUG if gone else logging.WARNING, "the server's send() raised %r for %s", exc, what)


async def send_close(asgi_send: Send, code: int, reason: str) -> None:
    """Sends a close frame. Raises nothing of the server's. If the server refuses the code, as daphne does between 1001
    and 2999, it is sent as one of the application's own, 4009 for 1009."""
    for allowed_code in (code, 3_000 + code) if code < 2_000 else (code,):
        try:
            await asgi_send({"type": "websocket.close", "code": allowed_code, "reason": cut_reason(reason)})
        except GONE as exc:
            log_failed_send(f"the close frame, {allowed_code}", exc)
            return
        except Exception as exc:
            log_failed_send(f"the close frame, {allowed_code}", exc)
        else:
            return


def cut_reason(reason: str) -> str:
    """As much of a reason as a close frame holds: 123 bytes of UTF-8."""
    return reason.encode(errors="replace")[:123].decode(errors="ignore")
