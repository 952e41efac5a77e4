"""Queues between the socket's reader and the consumers, and the flow control that pauses reading."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from wsaction.client.errors import Overflow

T = TypeVar("T")

MAX_PAUSE = 5.0  # seconds that reading may pause for streams; servers close a socket that nobody reads
HARD_LIMIT_FACTOR = 16  # a stream's buffer may grow to this many times its mark while reading cannot pause


class Buffer(Generic[T]):
    """A queue of items for one consumer, with an end.

    It is unbounded: callers of `put` check ``size``, the sum of the sizes of the waiting items.
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
        """The newest waiting item, or None."""
        return self._items[-1][0] if self._items else None

    def put(self, item: T, size: int) -> None:
        """Adds an item, unless the buffer has ended."""
        if self._end is None:
            self._items.append((item, size))
            self.size += size
            self._wake()

    def end(self, exc: BaseException | None = None) -> None:
        """Sets what `get` raises after the last item, ``StopAsyncIteration`` by default. Only the first call counts."""
        if self._end is None:
            self._end = exc or StopAsyncIteration()
            self._wake()

    def clear(self) -> None:
        """Drops the waiting items."""
        self._items.clear()
        self.size = 0

    async def get(self) -> T:
        """Waits for the next item and returns it. After the last one, each call raises the exception of `end`."""
        while not self._items:
            if self._end is not None:
                raise self._end
            if self._waiter is not None:
                raise RuntimeError("another task already iterates over this; it has one consumer")
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
    """Decides when to pause reading: while a stream's buffer is over its mark and no call waits for a reply.

    If reading paused during calls, a consumer that makes calls between two items would wait for ever. A pause ends
    after `MAX_PAUSE`, because pings need answers and servers close connections on which a send takes too long.
    """

    def __init__(self, max_pause: float = MAX_PAUSE) -> None:
        self._max_pause = max_pause
        self._full: set[object] = set()
        self._calls = 0
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_paused(self) -> bool:
        """Whether the reader has to wait."""
        return bool(self._full) and not self._calls

    def hold(self, buffer: object) -> None:
        """Records that a stream's buffer is over its mark."""
        self._full.add(buffer)

    def release(self, buffer: object) -> None:
        """Records that the buffer is no longer over its mark."""
        self._full.discard(buffer)
        self._wake_if_ready()

    def begin_call(self) -> None:
        """Records that a call waits for a reply."""
        self._calls += 1
        self._wake_if_ready()

    def end_call(self) -> None:
        """Records that the call no longer waits."""
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
            self._full.clear()  # read on; the buffers fill, and end at their hard limit
        finally:
            self._waiter = None

    def _wake_if_ready(self) -> None:
        if self._waiter is not None and not self._waiter.done() and not self.is_paused:
            self._waiter.set_result(None)


class StreamBuffer(Buffer[T]):
    """Items of a stream. Over ``mark`` characters, reading pauses; `HARD_LIMIT_FACTOR` times over, the stream ends."""

    def __init__(self, mark: int, give_up: Callable[[], None]) -> None:
        super().__init__()
        self._mark = mark
        self._give_up = give_up
        self.flow = FlowControl()  # replaced by that of the connection when the stream begins
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
    """Messages that wait for the socket. It is unbounded: the `Pacer` bounds the requests in flight."""

    def __init__(self) -> None:
        self._texts: deque[str] = deque()
        self._has_texts = asyncio.Event()

    def put(self, text: str) -> None:
        """Adds a message."""
        self._texts.append(text)
        self._has_texts.set()

    async def take(self) -> str:
        """Waits for the next message and returns it."""
        while not self._texts:
            self._has_texts.clear()
            await self._has_texts.wait()
        return self._texts.popleft()
