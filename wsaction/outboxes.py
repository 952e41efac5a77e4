"""What one connection sends: straight through while nothing is before it, else one message after the other."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from wsaction.frames import Frame, size_of

__all__ = ("Message", "Outbox", "Send", "Sender")

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

logger = logging.getLogger("wsaction")


class Sender(Protocol):
    """What an outbox asks of its connection."""

    @property
    def ended(self) -> bool:
        """Whether it is over, so that nothing more is taken."""

    def spawn(self, work: Callable[..., Awaitable[None]], *args: Any) -> asyncio.Task[None]:
        """Starts a task of the connection's."""

    def close(self, code: int, reason: str) -> None:
        """Ends the connection with a close frame."""

    def lost(self, code: int) -> None:
        """Ends the connection, whose peer is gone."""


class Outbox:
    """Sends text messages in the order they were given, and bounds what waits.

    ``await send()`` can take for ever on a client that stopped reading, so only one message is on its way at a time, by
    whoever gave it; what is given meanwhile waits, at most ``max_bytes`` of UTF-8, and is sent by a task of its own.
    Past the bound the connection is closed, 1013. Until ``open()`` everything waits: for the handshake.
    """

    __slots__ = ("_asgi_send", "_connection", "_max_bytes", "_offering", "_sending", "size", "waiting")

    def __init__(self, asgi_send: Send, connection: Sender, max_bytes: int) -> None:
        self._asgi_send, self._connection, self._max_bytes = asgi_send, connection, max_bytes
        self._sending: Frame | asyncio.Task[None] | bool = True  # whose work it is, where that is known
        self._offering: deque[asyncio.Future[None]] | None = None  # who waits until nothing is before them
        self.waiting: deque[str] | None = None
        self.size = 0  # bytes of what waits

    @property
    def sender(self) -> asyncio.Task[None] | None:
        """The connection's task that is half-way through a message, where there is one."""
        by = self._sending
        return by.task if isinstance(by, Frame) else by if isinstance(by, asyncio.Task) else None

    def is_sending(self, frame: Frame) -> bool:
        """Whether the frame's reply is half-way."""
        return self._sending is frame

    def open(self) -> None:
        """Sends what has waited; from now on messages go straight through."""
        more = self.waiting and not self._connection.ended
        self._sending = self._connection.spawn(self._empty) if more else False
        self._let_offer()

    async def send(self, text: str, by: Frame | None = None) -> None:
        """Sends a message: at once where nothing is before it, else it waits its turn. Raises nothing of the peer's.

        ``by`` is the frame whose reply it is. Cancelled half-way, the message goes to the front of those that wait.
        """
        if self._sending:
            self.put(text)
            return
        self._sending = by or True
        try:
            await self._asgi_send({"type": "websocket.send", "text": text})
        except (OSError, RuntimeError) as exc:  # both mean that the peer is gone
            self._peer_gone(exc)
        except asyncio.CancelledError:
            self._put_back(text)
            raise
        finally:
            self._sending = False
            if self.waiting:
                self.open()
            else:
                self._let_offer()

    def put(self, text: str) -> None:
        """Sends a message without ever waiting: behind what waits. Closes the connection, 1013, past the bound."""
        if self._connection.ended:
            return
        self.size += size_of(text)
        if self.size > self._max_bytes:
            self._connection.close(1013, f"slow consumer; max_outbox_bytes is {self._max_bytes}")
            return
        if self.waiting is None:
            self.waiting = deque()
        self.waiting.append(text)
        if not self._sending:
            self.open()

    async def offer(self, text: str) -> None:
        """Sends a message once all that was given before is sent: who offers waits with a client that reads slowly."""
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
        await self.send(text)

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
                await self._asgi_send({"type": "websocket.send", "text": self.waiting.popleft()})
            await self._asgi_send({"type": "websocket.close", "code": code, "reason": reason})
        except (OSError, RuntimeError) as exc:
            logger.debug("the peer was gone before it could be told %s: %r", code, exc)

    def _put_back(self, text: str) -> None:
        self.waiting = self.waiting or deque()
        self.waiting.appendleft(text)
        self.size += size_of(text)

    async def _empty(self) -> None:
        try:
            while self.waiting:
                text = self.waiting.popleft()
                self.size -= size_of(text)
                await self._asgi_send({"type": "websocket.send", "text": text})
        except (OSError, RuntimeError) as exc:
            self._peer_gone(exc)
        finally:
            self._sending = False
            self._let_offer()

    def _peer_gone(self, exc: Exception) -> None:
        logger.debug("the peer is gone: %r", exc)
        self._connection.lost(1006)
