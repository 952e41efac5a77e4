"""The layer of a single process: nothing to run, nothing to lose but the process."""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from contextvars import Context
from itertools import islice

from wsaction._utils.threads import is_over
from wsaction.exceptions import LayerUnavailable
from wsaction.layers._presence_events import encode_join, encode_leave
from wsaction.layers.base import (
    MAX_TOPIC_BYTES,
    META_TTL,
    UNUSED_TTL,
    History,
    Page,
    Place,
    Position,
    Sink,
    check_bytes,
    new_epoch,
)

__all__ = ("MAX_BYTES", "MAX_FILLED", "MAX_IDLE", "SWEEP_INTERVAL", "MemoryLayer")

MAX_BYTES = 67_108_864  # of all histories together
EVENT_BYTES = 130  # that an event takes beside its body
MAX_FILLED = 50_000  # topics with events; past it the past of the one published to longest ago is forgotten
MAX_IDLE = 100_000  # topics without events whose position is remembered; past it the oldest is forgotten
SWEEP_INTERVAL = 30.0  # seconds after which what has expired is let go, at the latest


class _Log:
    """The past of one topic."""

    __slots__ = ("asked", "epoch", "events", "history", "offset", "size", "used")

    def __init__(self, history: History, now: float) -> None:
        self.epoch, self.offset, self.history, self.used = new_epoch(), 0, history, now
        self.asked = now  # when somebody last asked for its position, as subscribers do, or left
        self.size = 0  # bytes of its events
        self.events: deque[tuple[int, bytes]] | None = None  # None: there are none, which takes no memory

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.offset)

    def is_expired(self, now: float) -> bool:
        return self.events is not None and now - self.used > self.history.ttl

    def append(self, body: bytes, max_bytes: int) -> int:
        """The next one; the oldest go where that is too much. By how many bytes it has grown."""
        before = self.size
        if self.events is None:
            self.events = deque()
        self.offset += 1
        self.events.append((self.offset, body))
        self.size += len(body) + EVENT_BYTES
        while self.size > max_bytes or len(self.events) > self.history.size:
            self.size -= len(self.events.popleft()[1]) + EVENT_BYTES
        return self.size - before

    def newest(self, count: int) -> tuple[tuple[int, bytes], ...] | None:
        """So many, where there are so many."""
        events = self.events or ()
        return tuple(islice(events, len(events) - count, None)) if count <= len(events) else None


class MemoryRoster:
    """The roster of one process."""

    def __init__(self, tell: Callable[[str, bytes, History | None], object]) -> None:
        self._tell = tell
        self._counts: dict[str, dict[str, int]] = {}

    def change(self, place: Place, user: str, by: int) -> None:
        """So many connections of the user more, or less."""
        counts = self._counts.setdefault(place.topic, {})
        before, after = counts.get(user, 0), counts.get(user, 0) + by
        if after > 0:
            counts[user] = after
        else:
            counts.pop(user, None)
        if not counts:
            del self._counts[place.topic]
        if before <= 0 < after:
            self._tell(place.topic, encode_join(place, user), place.history)
        elif after <= 0 < before:
            self._tell(place.topic, encode_leave(place, user), place.history)

    async def who(self, topic: str) -> dict[str, int]:
        """Users and their connections."""
        return dict(self._counts.get(topic, {}))

    def clear(self) -> None:
        """Forgets all, and tells nobody."""
        self._counts.clear()


class MemoryLayer:
    """Carries events within one process and keeps their history there.

    What is published reaches the sink before ``publish`` returns, so nothing is ever missed while subscribed. Several
    worker processes each have their own: use ``RedisLayer`` there.

    At most ``max_topic_bytes`` of a topic's history are kept, the newest events, and ``max_bytes`` of all histories:
    past it that of the topic published to longest ago is forgotten. A client that asks for what was forgotten is told
    ``recovered: false``. At most ``max_filled`` topics have a history, and ``max_idle`` more a position that is
    remembered; what has expired is let go within ``sweep_interval`` seconds. Raises ``ImproperlyConfigured`` for bounds
    of bytes that are no whole numbers above 0.
    """

    def __init__(
        self,
        *,
        max_bytes: int = MAX_BYTES,
        max_topic_bytes: int = MAX_TOPIC_BYTES,
        max_filled: int = MAX_FILLED,
        max_idle: int = MAX_IDLE,
        sweep_interval: float = SWEEP_INTERVAL,
    ) -> None:
        check_bytes("MemoryLayer", max_bytes=max_bytes, max_topic_bytes=max_topic_bytes)
        self._max_filled, self._max_idle, self._sweep_interval = max_filled, max_idle, sweep_interval
        self._max_bytes, self._max_topic_bytes = max_bytes, max_topic_bytes
        self._size = 0  # bytes of all events
        self._sink: Sink | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._wanted: set[str] = set()
        self._logs: dict[str, _Log] = {}  # all of them
        self._filled: dict[float, OrderedDict[str, _Log]] = {}  # by ttl, published to longest ago first
        self._idle: OrderedDict[str, _Log] = OrderedDict()  # those without events, the one used longest ago first
        self.roster = MemoryRoster(self._publish)

    async def open(self, sink: Sink) -> None:
        """Begins to tell ``sink``. Raises ``RuntimeError`` when it is open already."""
        if self._sink is not None and self._loop is not None and not is_over(self._loop):
            raise RuntimeError("this MemoryLayer is open already; give each app a layer of its own")
        await self.close()
        self._sink, self._loop = sink, asyncio.get_running_loop()

    async def close(self) -> None:
        """Forgets everything."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sink = self._loop = self._sweeper = None
        self._size = 0
        self._wanted.clear()
        self._logs.clear()
        self._filled.clear()
        self._idle.clear()
        self.roster.clear()

    def subscribe(self, topic: str) -> None:
        """Tells what is published to the topic from now on."""
        if self._sink is not None:
            self._wanted.add(topic)
            self._sink.subscribed(topic)

    def unsubscribe(self, topic: str) -> None:
        """Tells it no more."""
        if topic in self._wanted:
            self._wanted.discard(topic)
            if (log := self._logs.get(topic)) is not None and self._loop is not None:
                log.asked = self._loop.time()

    async def publish(self, topic: str, body: bytes, history: History | None) -> Position | None:
        """Tells the sink, where it is subscribed, and keeps the body; returns its position."""
        return self._publish(topic, body, history)

    def _publish(self, topic: str, body: bytes, history: History | None) -> Position | None:
        if self._loop is None:
            raise _closed()
        if history is None:
            self._tell(topic, "", 0, body)
            return None
        now = self._loop.time()
        is_kept = history.always or topic in self._wanted
        if not is_kept and topic not in self._logs:
            return None  # nobody is there, or was
        log = self._log(topic, history, now)
        if is_kept or now - log.asked <= max(history.ttl, UNUSED_TTL):
            self._keep(topic, log, body, now)
        else:
            log.offset += 1
            self._forget_events(log)
        position = log.position
        self._tell(topic, log.epoch, log.offset, body)
        return position

    async def read(self, topic: str, since: Position | None, limit: int, history: History, own: bool = False) -> Page:
        """Where the topic stands, and what came after ``since``. What was acknowledged is never lost, so that ``own``
        says nothing new."""
        if self._loop is None:
            raise _closed()
        now = self._loop.time()
        log = self._log(topic, history, now)
        log.asked = now
        if log.is_expired(now):
            self._forget_events(log)
        if since is None or since.epoch != log.epoch or not 0 <= since.offset <= log.offset:
            return Page(log.position, None)
        missed = log.offset - since.offset
        events = log.newest(missed) if missed <= limit else None
        return Page(log.position, events, log.offset) if events is not None else Page(log.position, None)

    async def invalidate(self, topic: str, history: History | None) -> None:
        """Begins a new epoch without a past, and tells the sink."""
        if self._loop is None:
            raise _closed()
        if history is None:
            self._tell(topic, "", 0, b"")
            return
        log = self._log(topic, history, self._loop.time())
        log.epoch = new_epoch()
        self._forget_events(log)
        self._tell(topic, log.epoch, log.offset, b"")

    def _tell(self, topic: str, epoch: str, offset: int, body: bytes) -> None:
        if topic in self._wanted and self._sink is not None:
            self._sink.message(topic, epoch, offset, body)

    # ------------------------------------------------------------------------------------------------ what is kept
    def _log(self, topic: str, history: History, now: float) -> _Log:
        if (log := self._logs.get(topic)) is None:
            log = self._logs[topic] = self._idle[topic] = _Log(history, now)
            self._forget_past_bound()
            if self._sweeper is None:
                self._sweep_later()
        elif topic in self._idle:
            log.used = now
            self._idle.move_to_end(topic)
        if log.history is not history and log.history != history:
            self._change_history(topic, log, history)
        return log

    def _change_history(self, topic: str, log: _Log, history: History) -> None:
        """Another process of the same code would keep what it was last told to; so does this."""
        if topic not in self._idle:
            del self._filled[log.history.ttl][topic]
            self._filled.setdefault(history.ttl, OrderedDict())[topic] = log
        log.history = history

    def _keep(self, topic: str, log: _Log, body: bytes, now: float) -> None:
        if log.is_expired(now):
            self._forget_events(log)
        self._size += log.append(body, self._max_topic_bytes)
        self._file_as_filled(topic, log, now)
        while self._size > self._max_bytes:
            self._empty(min(self._filled.values(), key=_oldest), now)
        self._forget_past_bound()

    def _forget_events(self, log: _Log) -> None:
        self._size -= log.size
        log.events, log.size = None, 0

    def _file_as_filled(self, topic: str, log: _Log, now: float) -> None:
        """It was published to just now."""
        log.used = now
        filled = self._filled.get(log.history.ttl)
        if filled is None:
            filled = self._filled[log.history.ttl] = OrderedDict()
        if topic in filled:
            filled.move_to_end(topic)
        else:
            self._idle.pop(topic, None)
            filled[topic] = log
            if sum(map(len, self._filled.values())) > self._max_filled:
                self._empty(min(self._filled.values(), key=_oldest), now)

    def _empty(self, filled: "OrderedDict[str, _Log]", now: float) -> None:
        """Lets go the events of the topic that was published to longest ago; its position is remembered."""
        topic, log = filled.popitem(last=False)
        self._forget_events(log)
        log.used = now
        self._idle[topic] = log

    def _sweep(self) -> None:
        """Lets go what has expired, and comes again while there is anything."""
        now = asyncio.get_running_loop().time()
        for ttl, filled in list(self._filled.items()):
            while filled and now - _oldest(filled) > ttl:
                self._empty(filled, now)
            if not filled:
                del self._filled[ttl]
        while self._idle and now - next(iter(self._idle.values())).used > META_TTL:
            self._forget_oldest()
        self._forget_past_bound()
        self._sweeper = None
        if self._logs:
            self._sweep_later()

    def _sweep_later(self) -> None:
        """In a context of its own: that of whoever published first would keep their connection for as long."""
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(self._sweep_interval, self._sweep, context=Context())

    def _forget_past_bound(self) -> None:
        while len(self._idle) > self._max_idle:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Who is subscribed to it finds a new epoch the next time, and is told."""
        topic, _ = self._idle.popitem(last=False)
        del self._logs[topic]


def _oldest(filled: "OrderedDict[str, _Log]") -> float:
    """When the topic was published to that was so longest ago."""
    return next((log.used for log in filled.values()), math.inf)


def _closed() -> LayerUnavailable:
    error = LayerUnavailable()
    error.__cause__ = RuntimeError("the layer is not open")
    return error
