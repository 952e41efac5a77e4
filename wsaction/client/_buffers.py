"""Bounded queues between the one who reads the socket and those who consume, and when reading pauses for them."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from wsaction.client.errors import Overflow

__all__ = ("HARD_LIMIT_FACTOR", "Buffer", "FlowControl", "Outbox", "StreamBuffer")

T = TypeVar("T")

MAX_PAUSE = 5.0  # seconds that reading pauses for a stream at most; a server closes a socket that is not read for long
HARD_LIMIT_FACTOR = 16  # times its mark that a stream's buffer may grow while reading cannot pause


class Buffer(Generic[T]):
    """Items that wait for their one consumer, with the end that follows them.

    It bounds nothing itself: whoever puts looks at ``size``, which is the sum of what `put` was told.
    """

    def __init__(self) -> None:
        self._items: deque[tuple[T, int]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._end: BaseException | None = None
        self.size = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def last(self) -> T | None:
        """The newest item that waits; None: there is none."""
        return self._items[-1][0] if self._items else None

    def put(self, item: T, size: int) -> None:
        """Adds an item; nothing is added after the end."""
        if self._end is None:
            self._items.append((item, size))
            self.size += size
            self._wake()

    def end(self, exc: BaseException | None = None) -> None:
        """Says what `get` raises after the last item, by default ``StopAsyncIteration``. The first one counts."""
        if self._end is None:
            self._end = exc or StopAsyncIteration()
            self._wake()

    def clear(self) -> None:
        """Drops what waits."""
        self._items.clear()
        self.size = 0

    async def get(self) -> T:
        """The next item; waits for it. Raises what `end` says once all items were taken, each time it is asked."""
        while not self._items:
            if self._end is not None:
                raise self._end
            if self._waiter is not None:
                raise RuntimeError("somebody iterates over this already; it has one consumer")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        item, size = self._items.popleft()
        self.size -= size
        return item

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class FlowControl:
    """Whether to read on: not while a stream's buffer is over its mark, unless somebody waits for a reply.

    A consumer that makes calls between two items would wait for ever if reading paused then. Nor does it pause for
    longer than `MAX_PAUSE`: pings and the server's bound on a send want the socket read.
    """

    def __init__(self, max_pause: float = MAX_PAUSE) -> None:
        self._max_pause = max_pause
        self._full: set[object] = set()
        self._calls = 0
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_paused(self) -> bool:
        """Whether whoever reads has to wait."""
        return bool(self._full) and not self._calls

    def hold(self, buffer: object) -> None:
        """A stream's buffer is over its mark."""
        self._full.add(buffer)

    def release(self, buffer: object) -> None:
        """It is not any more."""
        self._full.discard(buffer)
        self._wake_if_ready()

    def begin_call(self) -> None:
        """Somebody waits for a reply."""
        self._calls += 1
        self._wake_if_ready()

    def end_call(self) -> None:
        """That one does not any more."""
        self._calls -= 1

    async def ready(self) -> None:
        """Waits until reading may go on."""
        if not self.is_paused:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._max_pause):
                await self._waiter
        except TimeoutError:
            self._full.clear()  # from now on they fill up; past their bound they end
        finally:
            self._waiter = None

    def _wake_if_ready(self) -> None:
        if self._waiter is not None and not self._waiter.done() and not self.is_paused:
            self._waiter.set_result(None)


class StreamBuffer(Buffer[T]):
    """A stream's items. Over ``mark`` characters reading pauses; far over that, the stream ends."""

    def __init__(self, mark: int, give_up: Callable[[], None]) -> None:
        super().__init__()
        self._mark = mark
        self._give_up = give_up
        self.flow = FlowControl()  # of the connection that it comes on
        self._is_over_mark = False

    def put(self, item: T, size: int) -> None:
        super().put(item, size)
        if self.size > self._mark * HARD_LIMIT_FACTOR:
            limit = self._mark * HARD_LIMIT_FACTOR
            self.end(Overflow(f"over {limit} characters of this stream wait for their consumer"))
            self._give_up()
        elif self.size > self._mark and not self._is_over_mark:
            self._is_over_mark = True
            self.flow.hold(self)

    def end(self, exc: BaseException | None = None) -> None:
        super().end(exc)
        self.flow.release(self)

    async def get(self) -> T:
        item = await super().get()
        if self._is_over_mark and self.size <= self._mark // 2:
            self._is_over_mark = False
            self.flow.release(self)
        return item


class Outbox:
    """Messages on their way to the socket. It bounds nothing itself: a `pacing.Pacer` bounds what is under way."""

    def __init__(self) -> None:
        self._texts: deque[str] = deque()
        self._has_texts = asyncio.Event()

    def put(self, text: str) -> None:
        """Adds a message."""
        self._texts.append(text)
        self._has_texts.set()

    async def take(self) -> str:
        """The next message; waits for it."""
        while not self._texts:
            self._has_texts.clear()
            await self._has_texts.wait()
        return self._texts.popleft()
