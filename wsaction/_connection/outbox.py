"""What one connection sends: straight through while nothing is before it, else one message after the other."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Set
from typing import TYPE_CHECKING, Any

from wsaction._connection.flusher import Flusher, Message, Send
from wsaction._protocol.event_frames import is_event, route_of
from wsaction._protocol.frames import Frame, size_of

if TYPE_CHECKING:
    from wsaction._connection.connection import Connection

__all__ = (
    "GONE",
    "Message",
    "Outbox",
    "Receive",
    "Send",
    "cut_reason",
    "log_failed_send",
    "send_close",
)

Receive = Callable[[], Awaitable[Message]]

logger = logging.getLogger("wsaction")

MAX_LOST = 1_024  # routes of which events were dropped that are remembered, until there is room to say so
NOTHING: Set[str] = frozenset()


class Outbox:
    """Sends text messages in the order they were given, and bounds what waits.

    ``await send()`` can take for ever on a client that stopped reading, so only one message is on its way at a time;
    what is given meanwhile waits, at most ``max_bytes`` of UTF-8, for the flusher. Whether the client gets a message
    whose send was cancelled, nobody knows: it could neither be sent again nor be forgotten. So no send is cancelled
    while the connection lives. All but replies are sent by the flusher's task; a reply goes straight through, by its
    frame's task, which has nothing else to do any more. Once such a send was seen to wait, replies are the flusher's
    too, until it has sent without waiting.
    Past the bound the connection is closed, 1013; with ``drop_events`` the oldest events are dropped instead, but never
    a reply, and ``on_lost`` is called once half of it is free again: with the routes whose events were dropped, or None
    where these are more than ``max_lost``. Until ``open()`` everything waits: for the handshake.
    """

    __slots__ = (
        "_connection", "_direct", "_drop_events", "_firm", "_flusher", "_lost", "_max_bytes", "_max_lost", "_next",
        "_offering", "_seen", "_seen_at", "_sending", "_shrunk", "asgi_send", "dropped", "ended", "on_lost", "sent",
        "size", "waiting",
    )  # fmt: skip

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
        self.asgi_send, self._connection, self._flusher = asgi_send, connection, flusher
        self._max_bytes, self._drop_events, self._max_lost = max_bytes, drop_events, max_lost
        self._next: str | None = None  # what is about to be sent, before all that waits, and counts as sent
        self._sending: Any = True  # whose work it is: a frame's, a task's, or anybody's; False: nothing is on its way
        self._direct = True  # whether a reply may go straight through: the last sends did not have to wait
        self.sent = 0  # messages that had waited, and those that are no frame's reply
        self._seen: tuple[Any, int] | None = None  # what was on its way when `stuck_for` last asked, and since when
        self._seen_at = 0.0
        self._offering: deque[asyncio.Future[None]] | None = None  # who waits until nothing is before them
        self._shrunk: asyncio.Event | None = None  # set when less waits; there while anybody waits for that
        self.waiting: deque[str] | None = None
        self._firm = 0  # so many of the first that wait are no events, and need not be looked at again
        self.size = 0  # bytes of what waits
        self.dropped = 0  # events
        self._lost: Set[str] | None = NOTHING  # the routes of those; None: of too many
        self.on_lost: Callable[[Set[str] | None], None] | None = None
        self.ended = False  # nothing more is taken

    @property
    def busy(self) -> bool:
        """Whether a message is on its way."""
        return bool(self._sending)

    def stuck_for(self, now: float, late: float = 0.0) -> float:
        """How long the same message has been on its way, in seconds, as far as was seen: asked from time to time.

        The last ``late`` seconds do not count: the loop was blocked, so that nothing could be seen to go on.
        """
        if not self._sending:
            self._seen = None
            return 0.0
        if self._seen != (on_its_way := (self._sending, self.sent)):
            self._seen, self._seen_at = on_its_way, now
        else:
            self._seen_at += late
        return now - self._seen_at

    def sender(self, leader: asyncio.Task[None] | None) -> asyncio.Task[None] | None:
        """The connection's task that is half-way through a message, where there is one; it ends once that is sent.

        A reply's may be the ``leader``, which is a follower from now on: it is to read no more.
        """
        by = self._sending
        if isinstance(by, Frame):
            by.task = by.task or leader
            return by.task
        return by if isinstance(by, asyncio.Task) else None

    def is_sending(self, frame: Frame) -> bool:
        """Whether the frame's reply is half-way."""
        return self._sending is frame

    def waits(self) -> None:
        """A send was seen to wait: those that follow are the flusher's, until it is emptied without waiting."""
        self._direct = False

    def open(self) -> None:
        """Sends what has waited; from now on messages go straight through."""
        self._sending = bool(self.waiting or self._lost is not NOTHING) and not self.ended
        if self._sending:
            self._flusher.add(self)
        else:
            self._let_offer()

    def word(self, text: str, by: Frame | None = None) -> str:
        """A message as the client is to get it: here, as it is. ``by`` is the frame whose reply it is."""
        return text

    async def send(self, text: str, by: Frame) -> None:
        """Sends the reply of a frame: at once where nothing is before it, else it waits its turn. Raises nothing of the
        peer's.

        Only the application can cancel it half-way, by a task that it kept: then the connection is closed, 1011.
        """
        # Nobody overtakes what waits for the close frame to be sent behind it.
        if self._sending or not self._direct or (self.ended and self.waiting):
            self.put(text)
            return
        self._sending = by
        asgi_send = self.asgi_send
        try:
            await asgi_send({"type": "websocket.send", "text": text})
        except Exception as exc:
            self._failed(exc)
        except asyncio.CancelledError:
            self.fail()
            raise
        finally:
            self._sending = False
            if self.waiting or self._lost is not NOTHING:
                self.open()
            elif self._offering:
                self._let_offer()

    def put(self, text: str) -> None:
        """Sends a message without ever waiting: behind what waits. Past the bound the policy says what happens."""
        if self.ended:
            return
        if not self._sending and len(text) * 4 <= self._max_bytes:  # a character is 4 bytes at most
            self._sending, self._next = True, text
            self._flusher.add(self)
            return
        if type(self._sending) is Frame:  # its send waits, as this one is asked for meanwhile
            self._direct = False
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
        """Whether a message fits once the oldest events are dropped; where it does not, the policy is followed."""
        if self._drop_events:
            self._drop_oldest(size)
            if self.size + size <= self._max_bytes:
                self._connection.on_limit("max_outbox_bytes", self._max_bytes)
                return True
            if self.is_event(text):
                self._drop(text)
                self._connection.on_limit("max_outbox_bytes", self._max_bytes)
                if not self._sending:  # it alone is larger than the bound
                    self._tell_lost()
                return False
        self._connection.close_for_limit(1013, "max_outbox_bytes", "slow consumer")
        return False

    def _drop_oldest(self, size: int) -> None:
        """Drops the oldest events that wait until ``size`` bytes more fit, or none is left.

        Each message is looked at once: else a client that lets replies pile up would make every event dear.
        """
        waiting = deque[str]() if self.waiting is None else self.waiting
        if not (unknown := len(waiting) - self._firm):
            return
        waiting.rotate(-self._firm)
        while unknown and self.size + size > self._max_bytes:
            unknown -= 1
            text = waiting.popleft()
            if self.is_event(text):
                self.size -= size_of(text)
                self._drop(text)
            else:
                waiting.append(text)
                self._firm += 1
        waiting.rotate(self._firm)

    def _drop(self, text: str) -> None:
        self.dropped += 1
        if self._lost is not None and (route := route_of(text)) is not None:
            self._lost = self._lost | {route} if len(self._lost) < self._max_lost else None

    def _tell_lost(self) -> None:
        """There is room again for saying of which routes something was dropped. What is dropped as that is said is said
        the next time."""
        lost, self._lost = self._lost, NOTHING
        if self.on_lost is not None:
            self.on_lost(lost)

    def is_event(self, text: str) -> bool:
        """Whether a message may be dropped."""
        return is_event(text)

    async def offer(self, text: str) -> None:
        """Puts a message once all that was given before is sent: who offers waits with a client that reads slowly."""
        while self._sending:
            waiter = asyncio.get_running_loop().create_future()
            if self._offering is None:
                self._offering = deque()
            self._offering.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._offering:
                    self._offering.remove(waiter)
                else:  # it was its turn
                    self._let_offer()
                raise
        self.put(text)

    async def room(self, size: int) -> None:
        """Waits until ``size`` more bytes fill no more than half of it, or nothing waits, or its connection has ended.

        Who waits is an action of the connection, so that there are no more of them than ``max_concurrency``.
        """
        while self.size and self.size + size > self._max_bytes // 2 and not self.ended:
            self._shrunk = self._shrunk or asyncio.Event()
            await self._shrunk.wait()

    def tell_room(self) -> None:
        """Less waits than before, or it has ended: wakes those who wait for room."""
        if self._shrunk is not None:
            self._shrunk.set()
            self._shrunk = None

    def end(self) -> None:
        """Its connection is over: nothing more is taken, and nobody waits for room."""
        self.ended = True
        if (text := self._next) is not None:  # the flusher has yet to take it: it is sent before the close frame
            self._next = None
            self.waiting = self.waiting or deque()
            self.waiting.appendleft(text)
            self.size += size_of(text)
        self.tell_room()

    def _let_offer(self) -> None:
        """Wakes the first of those who wait to offer."""
        while self._offering and not self._sending:
            waiter = self._offering.popleft()
            if not waiter.done():  # else it was cancelled, and has yet to notice
                waiter.set_result(None)
                return

    async def say_close(self, code: int, reason: str) -> None:
        """Sends what still waits, unless the client is too slow for it, then the close frame."""
        try:
            while self.waiting and code != 1013:
                await self.asgi_send({"type": "websocket.send", "text": self.waiting.popleft()})
        except Exception as exc:
            log_failed_send("a message", exc)
        await send_close(self.asgi_send, code, reason)

    # ------------------------------------------------------------------------------------------------ the flusher's
    def next(self) -> str | None:
        """The message to be sent now, for the flusher; None: there is none, and it is idle."""
        if (text := self._next) is not None:
            self._next = None
        elif (self.waiting or self._lost is not NOTHING) and not self.ended:
            if not self.waiting:
                self._tell_lost()  # which waits from now on, unless there is no room for that either
            text = self._pop() if self.waiting else None
        if text is None:
            self.pause()
            return None
        self.sent += 1
        return text

    def _pop(self) -> str:
        """The first of what waits; there is room then where it was."""
        waiting: Any = self.waiting
        text: str = waiting.popleft()
        self._firm = max(self._firm - 1, 0)
        self.size -= len(text) if text.isascii() else size_of(text)
        self.tell_room()
        if self._lost is not NOTHING and self.size <= self._max_bytes // 2:
            self._tell_lost()
        return text

    def pause(self) -> None:
        """Nothing is on its way."""
        self._direct = self._sending is True  # else this task was adopted, since it had to wait
        self._sending = False
        if self._offering:
            self._let_offer()

    def failed(self, exc: BaseException) -> None:
        """A send raised something."""
        self.pause()
        self._failed(exc)

    def adopt(self, task: "asyncio.Task[None]") -> None:
        """The flusher's task waits here, and is the connection's own from now on."""
        self._sending = task
        self._connection.adopt(task)

    def fail(self) -> None:
        """Emptying it failed, or was cancelled: what became of the message that was on its way, nobody knows."""
        self._connection.close(1011, "internal error")

    def _failed(self, exc: BaseException) -> None:
        log_failed_send("a message", exc)
        if isinstance(exc, GONE):
            self._connection.lost(1006)
        else:
            self.fail()


GONE = (OSError, RuntimeError)  # what a server's send() raises once the peer is gone; anything else is a refusal


def log_failed_send(what: str, exc: BaseException) -> None:
    """Notes what a server's ``send()`` raised for ``what``: in one line, as it is no fault of ours."""
    gone = isinstance(exc, GONE)
    logger.log(logging.DEBUG if gone else logging.WARNING, "the server's send() raised %r for %s", exc, what)


async def send_close(asgi_send: Send, code: int, reason: str) -> None:
    """Sends a close frame. Raises nothing of the server's: one that refuses the code, as daphne does those between 1001
    and 2999, is given one of the application's own in its place, 4009 for 1009."""
    for told in (code, 3_000 + code) if code < 2_000 else (code,):
        try:
            await asgi_send({"type": "websocket.close", "code": told, "reason": cut_reason(reason)})
        except GONE as exc:
            log_failed_send(f"the close frame, {told}", exc)
            return
        except Exception as exc:
            log_failed_send(f"the close frame, {told}", exc)
        else:
            return


def cut_reason(reason: str) -> str:
    """As much of a reason as a close frame holds: 123 bytes of UTF-8."""
    return reason.encode(errors="replace")[:123].decode(errors="ignore")
