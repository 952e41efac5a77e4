"""The in-memory layer, for an app that runs in one process."""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from contextvars import Context
from itertools import islice

from wsaction._utils.threads import is_loop_closed
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

__all__ = ("MAX_BYTES", "MAX_IDLE_TOPICS", "MAX_TOPICS", "SWEEP_INTERVAL", "MemoryLayer")

MAX_BYTES = 67_108_864  # of all histories together
EVENT_BYTES = 130  # that an event takes besides its body
MAX_TOPICS = 50_000  # topics with events; beyond that, the one published to longest ago loses its events
MAX_IDLE_TOPICS = 100_000  # topics without events whose position is kept; beyond that, the oldest is forgotten
SWEEP_INTERVAL = 30.0  # seconds between two removals of what has expired


class _Log:
    """The history of one topic."""

    __slots__ = ("epoch", "events", "history", "last_asked", "last_used", "offset", "size")

    def __init__(self, history: History, now: float) -> None:
        self.epoch = new_epoch()
        self.offset = 0
        self.history = history
        self.last_used = now
        self.last_asked = now  # when a subscriber last read the position, or the last one left
        self.size = 0  # bytes of its events
        self.events: deque[tuple[int, bytes]] | None = None  # None instead of an empty deque saves memory

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.offset)

    def is_expired(self, now: float) -> bool:
        return self.events is not None and now - self.last_used > self.history.ttl

    def append(self, body: bytes, max_bytes: int) -> int:
        """Adds an event and drops the oldest beyond the bounds. Returns by how many bytes the log has grown."""
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
        """The newest ``count`` events, or None if there are fewer."""
        events = self.events or ()
        return tuple(islice(events, len(events) - count, None)) if count <= len(events) else None


class MemoryRoster:
    """Counts the connections of users in the topics of one process."""

    def __init__(self, publish: Callable[[str, bytes, History | None], object]) -> None:
        self._publish = publish
        self._counts: dict[str, dict[str, int]] = {}

    def change(self, place: Place, user: str, by: int) -> None:
        """Adds ``by`` to the user's connections; publishes ``join`` for the first and ``leave`` after the last."""
        counts = self._counts.setdefault(place.topic, {})
        before = counts.get(user, 0)
        after = before + by
        if after > 0:
            counts[user] = after
        else:
            counts.pop(user, None)
        if not counts:
            del self._counts[place.topic]
        if before <= 0 < after:
            self._publish(place.topic, encode_join(place, user), place.history)
        elif after <= 0 < before:
            self._publish(place.topic, encode_leave(place, user), place.history)

    async def who(self, topic: str) -> dict[str, int]:
        """The users in a topic, with their connections."""
        return dict(self._counts.get(topic, {}))

    def clear(self) -> None:
        """Forgets all users, without events."""
        self._counts.clear()


class MemoryLayer:
    """Carries events within one process and keeps their history in memory.

    Events reach the sink before ``publish`` returns, so a subscriber misses none. Each worker process has its own
    layer: with several workers, use ``RedisLayer``.

    The layer keeps the newest ``max_topic_bytes`` of each topic's history, and ``max_bytes`` of all histories. Beyond
    that, the topic published to longest ago loses its events, and a client that asks for them gets
    ``recovered: false``. At most ``max_topics`` topics have events; the positions of ``max_idle_topics`` more are kept.
    Expired events are removed every ``sweep_interval`` seconds. Raises ``ImproperlyConfigured`` if a bound in bytes is
    not an integer above 0.
    """

    def __init__(
        self,
        *,
        max_bytes: int = MAX_BYTES,
        max_topic_bytes: int = MAX_TOPIC_BYTES,
        max_topics: int = MAX_TOPICS,
        max_idle_topics: int = MAX_IDLE_TOPICS,
        sweep_interval: float = SWEEP_INTERVAL,
    ) -> None:
        check_bytes("MemoryLayer", max_bytes=max_bytes, max_topic_bytes=max_topic_bytes)
        self._max_bytes = max_bytes
        self._max_topic_bytes = max_topic_bytes
        self._max_topics = max_topics
        self._max_idle_topics = max_idle_topics
        self._sweep_interval = sweep_interval
        self._size = 0  # bytes of all events
        self._sink: Sink | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._subscribed: set[str] = set()
        self._logs: dict[str, _Log] = {}  # of all topics: those in _filled and those in _idle
        self._filled: dict[float, OrderedDict[str, _Log]] = {}  # had events, by ttl; published to longest ago first
        self._idle: OrderedDict[str, _Log] = OrderedDict()  # have no events; used longest ago first
        self.roster = MemoryRoster(self._publish)

    async def open(self, sink: Sink) -> None:
        """Starts to deliver to ``sink``. Raises ``RuntimeError`` if the layer is open already."""
        if self._sink is not None and self._loop is not None and not is_loop_closed(self._loop):
            raise RuntimeError("this MemoryLayer is open already; give each app its own layer")
        await self.close()
        self._sink = sink
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Stops delivery and forgets all topics, events and users."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sink = self._loop = self._sweeper = None
        self._size = 0
        self._subscribed.clear()
        self._logs.clear()
        self._filled.clear()
        self._idle.clear()
        self.roster.clear()

    def subscribe(self, topic: str) -> None:
        """Delivers the topic's events from now on."""
        if self._sink is not None:
            self._subscribed.add(topic)
            self._sink.subscribed(topic)

    def unsubscribe(self, topic: str) -> None:
        """Stops the delivery of the topic's events."""
        if topic in self._subscribed:
            self._subscribed.discard(topic)
            if (log := self._logs.get(topic)) is not None and self._loop is not None:
                log.last_asked = self._loop.time()

    async def publish(self, topic: str, body: bytes, history: History | None) -> Position | None:
        """Delivers a body if the topic is subscribed, and keeps it as ``history`` says. Returns its position."""
        return self._publish(topic, body, history)

    def _publish(self, topic: str, body: bytes, history: History | None) -> Position | None:
        now = self._now()
        if history is None:
            self._deliver(topic, "", 0, body)
            return None
        is_kept = history.always or topic in self._subscribed
        if not is_kept and topic not in self._logs:
            return None  # the topic has, and had, no subscribers
        log = self._log(topic, history, now)
        if is_kept or now - log.last_asked <= max(history.ttl, UNUSED_TTL):
            self._append_to_log(topic, log, body, now)
        else:
            log.offset += 1
            self._clear_events(log)
        position = log.position  # read before the sink is called, which may publish too
        self._deliver(topic, log.epoch, log.offset, body)
        return position

    async def read(self, topic: str, since: Position | None, limit: int, history: History, own: bool = False) -> Page:
        """The position of a topic, and all events after ``since`` if they are at most ``limit``.

        ``own`` makes no difference, because this layer never loses acknowledged events.
        """
        now = self._now()
        log = self._log(topic, history, now)
        log.last_asked = now
        if log.is_expired(now):
            self._clear_events(log)
        if since is None or since.epoch != log.epoch or not 0 <= since.offset <= log.offset:
            return Page(log.position, None)
        missed = log.offset - since.offset
        events = log.newest(missed) if missed <= limit else None
        return Page(log.position, events, log.offset) if events is not None else Page(log.position, None)

    async def invalidate(self, topic: str, history: History | None) -> None:
        """Begins a new epoch without history, and tells the sink."""
        now = self._now()
        if history is None:
            self._deliver(topic, "", 0, b"")
            return
        log = self._log(topic, history, now)
        log.epoch = new_epoch()
        self._clear_events(log)
        self._deliver(topic, log.epoch, log.offset, b"")

    def _now(self) -> float:
        if self._loop is None:
            raise LayerUnavailable() from RuntimeError("the layer is not open")
        return self._loop.time()

    def _deliver(self, topic: str, epoch: str, offset: int, body: bytes) -> None:
        if topic in self._subscribed and self._sink is not None:
            self._sink.message(topic, epoch, offset, body)

    # ------------------------------------------------------------------------------------------------ histories
    def _log(self, topic: str, history: History, now: float) -> _Log:
        if (log := self._logs.get(topic)) is None:
            log = self._logs[topic] = self._idle[topic] = _Log(history, now)
            self._trim_idle()
            if self._sweeper is None:
                self._schedule_sweep()
        elif topic in self._idle:
            log.last_used = now
            self._idle.move_to_end(topic)
        if log.history is not history and log.history != history:
            self._change_history(topic, log, history)
        return log

    def _change_history(self, topic: str, log: _Log, history: History) -> None:
        """Applies another history to a topic. The last one wins, as it does between processes."""
        if topic not in self._idle:
            del self._filled[log.history.ttl][topic]
            self._filled.setdefault(history.ttl, OrderedDict())[topic] = log
        log.history = history

    def _append_to_log(self, topic: str, log: _Log, body: bytes, now: float) -> None:
        if log.is_expired(now):
            self._clear_events(log)
        self._size += log.append(body, self._max_topic_bytes)
        self._mark_filled(topic, log, now)
        while self._size > self._max_bytes:
            self._drop_oldest_events(min(self._filled.values(), key=_oldest_use), now)
        self._trim_idle()

    def _clear_events(self, log: _Log) -> None:
        self._size -= log.size
        log.events = None
        log.size = 0

    def _mark_filled(self, topic: str, log: _Log, now: float) -> None:
        """Moves a topic to the end of `_filled`: it was just published to."""
        log.last_used = now
        filled = self._filled.get(log.history.ttl)
        if filled is None:
            filled = self._filled[log.history.ttl] = OrderedDict()
        if topic in filled:
            filled.move_to_end(topic)
        else:
            self._idle.pop(topic, None)
            filled[topic] = log
            if sum(map(len, self._filled.values())) > self._max_topics:
                self._drop_oldest_events(min(self._filled.values(), key=_oldest_use), now)

    def _drop_oldest_events(self, filled: "OrderedDict[str, _Log]", now: float) -> None:
        """Drops the events of the topic that was published to longest ago, and keeps its position."""
        topic, log = filled.popitem(last=False)
        self._clear_events(log)
        log.last_used = now
        self._idle[topic] = log

    def _sweep(self) -> None:
        """Drops what has expired, and runs again later while any topic is left."""
        now = asyncio.get_running_loop().time()
        for ttl, filled in list(self._filled.items()):
            while filled and now - _oldest_use(filled) > ttl:
                self._drop_oldest_events(filled, now)
            if not filled:
                del self._filled[ttl]
        while self._idle and now - next(iter(self._idle.values())).last_used > META_TTL:
            self._forget_oldest()
        self._trim_idle()
        self._sweeper = None
        if self._logs:
            self._schedule_sweep()

    def _schedule_sweep(self) -> None:
        """Runs `_sweep` later, in an empty context: the publisher's would keep its connection alive until then."""
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(self._sweep_interval, self._sweep, context=Context())

    def _trim_idle(self) -> None:
        while len(self._idle) > self._max_idle_topics:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Forgets the topic used longest ago. Its subscribers find a new epoch when they next read it."""
        topic, _ = self._idle.popitem(last=False)
        del self._logs[topic]


def _oldest_use(filled: "OrderedDict[str, _Log]") -> float:
    """When the first of these topics, published to longest ago, was last used."""
    return next((log.last_used for log in filled.values()), math.inf)
