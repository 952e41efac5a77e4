"""Subscriptions of connections to topics, and the protocol of a subscriber. `State` has their states."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

from wsaction._protocol.close_codes import TRY_AGAIN_LATER
from wsaction._protocol.event_frames import encode_notice
from wsaction._pubsub.event import Event, reroute
from wsaction._utils.tasks import Tasks, is_being_cancelled
from wsaction._utils.timer import DeadlineTimer
from wsaction.layers.base import Position

logger = logging.getLogger("wsaction")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How many items may wait in the queues of a subscription, or of its topic.

    * ``max_collected``: events that wait for the reply of a subscription. With more, the join starts again.
    * ``max_unfiltered``: events that wait for a filter. With more, the subscriber is closed as a slow consumer.
    * ``max_held``: items that wait while a subscription is held. With more, it gets ``$resync``.
    * ``max_backlog``: messages that wait while a topic is reconciled. With more, the layer is read again.
    * ``skips_before_position``: skipped events in a row after which the subscriber gets ``$position``.
    """

    max_collected: int = 1_024
    max_unfiltered: int = 1_024
    max_held: int = 1_024
    max_backlog: int = 1_024
    skips_before_position: int = 100


Filter = Callable[[Event], Awaitable[str | None]]
"""Decides what a recipient gets of an event: ``event.frame``, another frame (see `Event.with_offset`), or None.

Raises `VisibilityUnknown` if that cannot be decided any more; the recipient then gets ``$resync``.
"""


class VisibilityUnknown(Exception):
    """The object of an event has changed since, so it cannot be decided who was allowed to see it."""


class Subscriber(Protocol):
    """A connection that subscribes. Subscribers are compared by identity."""

    @property
    def capacity(self) -> int:
        """The bytes that may wait to be sent."""

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended."""

    def put(self, text: str) -> None:
        """Sends a message in order, without waiting. Past `capacity` the connection closes with 1013. Never raises."""

    async def wait_for_space(self, size: int) -> None:
        """Waits until there is room for ``size`` more bytes, or no bytes wait, or the connection has ended."""

    def close(self, code: int, reason: str) -> None:
        """Closes the connection."""


class ReplyRecipient:
    """Gets the reply to a repeated ``subscribe``, behind the events before it, even if the subscription was left."""

    __slots__ = ("take",)

    def __init__(self, subscription: "Subscription") -> None:
        self.take = subscription.answer


@dataclass(frozen=True, slots=True)
class _Reply:
    """A reply that waits behind events. Unlike these, it is sent even if the subscription is left."""

    text: str


@dataclass(slots=True)
class _Hold:
    """Items held back while permissions are checked again, or until a reply that must come first is ready.

    ``take`` sends an item once the hold ends; ``count`` is how many have asked to hold.
    """

    take: Callable[[Any], None]
    limit: int
    count: int = 0
    items: deque[Any] = field(default_factory=deque)
    overrun: bool = False  # whether there were more than can be kept

    def drop_events(self) -> None:
        """Keeps replies alone: there are too many events."""
        self.overrun = True
        self.items = deque(item for item in self.items if isinstance(item, _Reply))


class State(Enum):
    """The states of a subscription."""

    WAITING = auto()  # for its topic to be ready
    COLLECTING = auto()  # keeps events until it is answered
    STALE = auto()  # what it has collected is incomplete: the join starts again
    AHEAD = auto()  # was answered with events that this process has not received yet
    LIVE = auto()  # gets events as they are applied
    LEFT = auto()  # gets nothing more, except replies


class Subscription:
    """A subscription of one subscriber to one topic, under one route. ``take`` sends it one item, without waiting."""

    __slots__ = (
        "_hold",
        "_limits",
        "_replies_sent",
        "collected",
        "cursor",
        "excluded_as",
        "replaces",
        "route",
        "skipped",
        "state",
        "subscriber",
        "take",
        "unsent_replies",
    )

    take: Callable[[Any], None]

    def __init__(self, subscriber: Subscriber, route: str, limits: QueueLimits) -> None:
        self.subscriber = subscriber
        self.route = route
        self._limits = limits
        self.state = State.WAITING
        self.collected: list[Event] = []
        self.cursor = 0  # the offset of the last event sent when it was answered
        self.excluded_as: str | None = None  # the name by which events exclude its subscriber
        self.skipped = 0
        self.replaces: Subscription | None = None  # an earlier one, held back, which goes on if this one fails
        self.unsent_replies = 0  # that wait behind events
        self._replies_sent: asyncio.Event | None = None
        self._hold: _Hold | None = None
        self.take = subscriber.put

    @property
    def is_joining(self) -> bool:
        """Whether it waits for its reply."""
        return self.state in (State.WAITING, State.COLLECTING, State.STALE)

    @property
    def has_filter(self) -> bool:
        """Whether a filter decides what its subscriber gets."""
        return False

    @property
    def with_replaced(self) -> "tuple[Subscription, ...]":
        """This subscription, and the one that it replaces while it joins."""
        return (self,) if self.replaces is None else (self, self.replaces)

    def start_collecting(self) -> None:
        """Starts to collect events."""
        self.state = State.COLLECTING
        self.collected = []

    def collect(self, event: Event) -> None:
        """Keeps an event until the subscription is answered."""
        if len(self.collected) < self._limits.max_collected:
            self.collected.append(event)
        else:
            self.restart()

    def restart(self) -> None:
        """Drops the collected events, so that the join starts again."""
        if self.is_joining:
            self.state = State.STALE
            self.collected = []

    def leave(self) -> None:
        """Stops delivery: drops the items that wait, except replies, which are sent."""
        self.state = State.LEFT
        self.collected = []
        self.take = _ignore
        hold, self._hold = self._hold, None
        for reply in hold.items if hold is not None else ():
            if isinstance(reply, _Reply):
                self._put_reply(reply.text)

    # ------------------------------------------------------------------------------------------------ holding back
    def hold(self, extra: int = 0) -> None:
        """Holds back items from now on, until `resume` has been called as many times as this.

        ``extra`` is a number of items that may be held beyond ``max_held``.
        """
        if self._hold is None:
            self._hold = _Hold(self.take, self._limits.max_held)
            self.take = self._hold_back
        self._hold.count += 1
        self._hold.limit += extra

    def resume(self) -> bool:
        """Ends one `hold`. After the last one, sends the items, unless the subscription was left.

        Returns whether events were dropped because there were too many, so that a ``$resync`` is needed.
        """
        if (hold := self._hold) is None:
            return False
        hold.count -= 1
        if hold.count:
            return False
        self._hold = None
        self.take = hold.take
        if not self._has_room_for(len(hold.items)):
            hold.drop_events()
        for item in hold.items:
            if isinstance(item, _Reply):
                self.answer(item.text)
            else:
                self.take(item)
        return hold.overrun

    def _has_room_for(self, count: int) -> bool:
        """Whether so many items can be taken at once."""
        return True

    def _hold_back(self, item: Any) -> None:
        hold = self._hold
        is_reply = isinstance(item, _Reply)
        if hold is None or (is_reply and len(hold.items) >= hold.limit):
            reason = f"slow consumer; {self._limits.max_held} replies and events wait for a subscription"
            self.subscriber.close(TRY_AGAIN_LATER, reason)
        elif is_reply or (len(hold.items) < hold.limit and not hold.overrun):
            hold.items.append(item)
        elif not hold.overrun:
            hold.drop_events()

    # ------------------------------------------------------------------------------------------------ sending
    def replace_filter(self, filter: Filter | None) -> None:
        """Replaces the filter by that of a repeated ``subscribe``."""

    def answer(self, reply: str) -> None:
        """Sends a reply, behind the items that wait."""
        if self._hold is not None:
            self._hold_back(_Reply(reply))
        else:
            self._put_reply(reply)

    def _put_reply(self, reply: str) -> None:
        self.subscriber.put(reply)
        self.unsent_replies -= 1
        if not self.unsent_replies and self._replies_sent is not None:
            self._replies_sent.set()

    async def send_replies(self) -> None:
        """Waits until no reply waits behind events."""
        while self.unsent_replies:
            self._replies_sent = asyncio.Event()
            await self._replies_sent.wait()

    def deliver(self, event: Event, epoch: str) -> None:
        """Sends an event, unless the subscriber is excluded."""
        if event.excluded_name is not None and event.excluded_name == self.excluded_as:
            self.skip(event, epoch, self.take)
        else:
            self.take(event.frame_for(self.route))

    def skip(self, event: Event, epoch: str, send: Callable[[str], None]) -> None:
        """Skips an event that the subscriber does not get.

        After many skipped events ``send`` is called with a ``$position`` notice, so that the client's position stays
        within the history. It must send behind all earlier events.
        """
        self.skipped += 1
        if self.skipped >= self._limits.skips_before_position and event.offset:
            self.skipped = 0
            send(encode_notice("$position", self.route, Position(epoch, event.offset)))


class FilteredSubscription(Subscription):
    """A subscription with a filter, which decides for one event after the other what the subscriber may see.

    ``take`` gets texts, or an event with its epoch. If the filter needs more than ``filter_timeout`` seconds for an
    event, it is cancelled and counts as failed. Events have no timers of their own: one alarm watches the filter.
    """

    __slots__ = ("_alarm", "_filter", "_filter_task", "_loop", "_queue", "_started", "_tasks", "_timed_out", "_timeout")

    def __init__(
        self,
        subscriber: Subscriber,
        route: str,
        limits: QueueLimits,
        filter: Filter,
        tasks: Tasks,
        filter_timeout: float,
    ) -> None:
        super().__init__(subscriber, route, limits)
        self._filter = filter
        self._timeout = filter_timeout
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._alarm = DeadlineTimer(self._loop, self._check_deadline)
        self._started = 0.0  # when the filter was called last
        self._timed_out = False  # whether that call was cancelled for its time
        self._queue: deque[str | tuple[Event, str] | _Reply] = deque()
        self._filter_task: Any = None
        self.take = self._enqueue

    def deliver(self, event: Event, epoch: str) -> None:
        if event.excluded_name is not None and event.excluded_name == self.excluded_as:
            self.skip(event, epoch, self.take)
        else:
            self.take((event, epoch))

    def leave(self) -> None:
        super().leave()
        self._alarm.stop()
        for item in self._queue:
            if isinstance(item, _Reply):
                self._put_reply(item.text)
        self._queue.clear()
        if self._filter_task is not None:
            self._filter_task.cancel()

    @property
    def has_filter(self) -> bool:
        return True

    def _has_room_for(self, count: int) -> bool:
        return len(self._queue) + count <= self._limits.max_unfiltered

    def replace_filter(self, filter: Filter | None) -> None:
        self._filter = filter or self._filter

    def answer(self, reply: str) -> None:
        if self._hold is not None or self._filter_task is None or self.state is State.LEFT:
            super().answer(reply)
        else:
            self._enqueue(_Reply(reply))

    def _enqueue(self, item: str | tuple[Event, str] | _Reply) -> None:
        if type(item) is str and not self._queue and self._filter_task is None:
            self.subscriber.put(item)
            return
        if len(self._queue) >= (most := self._limits.max_unfiltered):
            self.subscriber.close(TRY_AGAIN_LATER, f"slow consumer; {most} events wait for its permissions")
            return
        self._queue.append(item)
        if self._filter_task is None:
            self._started = self._loop.time()
            self._alarm.call_by(self._started + self._timeout)
            self._filter_task = self._tasks.start(self._filter_all)

    def _check_deadline(self) -> None:
        """Cancels a filter that has taken too long."""
        if self._filter_task is None:
            return
        if self._loop.time() - self._started >= self._timeout:
            self._timed_out = True
            self._filter_task.cancel()
            self._started = self._loop.time()  # a filter that ignores the cancellation is cancelled again
        self._alarm.call_by(self._started + self._timeout)

    async def _filter_all(self) -> None:
        try:
            while self._queue:
                item = self._queue.popleft()
                if isinstance(item, str):
                    self.subscriber.put(item)
                elif isinstance(item, _Reply):
                    self._put_reply(item.text)
                else:
                    await self._filter_one(*item)
        finally:
            self._filter_task = None

    async def _call_filter(self, event: Event) -> str | None:
        """Calls the filter. Raises ``TimeoutError`` if it took too long."""
        self._started = self._loop.time()
        try:
            return await self._filter(event)
        except asyncio.CancelledError:
            if not self._timed_out or self.state is State.LEFT:
                raise
            raise TimeoutError(f"the filter took longer than {self._timeout:g} s") from None
        finally:
            if self._timed_out:
                self._timed_out = False
                self._filter_task.uncancel()

    async def _filter_one(self, event: Event, epoch: str) -> None:
        try:
            text = await self._call_filter(event)
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError) and is_being_cancelled():
                raise  # this task was cancelled; otherwise a call within the filter was, which is a failure like others
            # Nobody knows whether the subscriber may see the event, so they do not get it, and `$resync` tells them so.
            if not isinstance(exc, VisibilityUnknown):
                logger.exception("the filter of a subscription to %r failed", self.route, extra={"route": self.route})
            text = encode_notice("$resync", self.route, Position(epoch if event.offset else "", event.offset))
        send = _ignore if self.state is State.LEFT else self.subscriber.put
        if text is None:
            self.skip(event, epoch, send)
        else:
            self.skipped = 0
            send(reroute(text, self.route))


def _ignore(_: Any) -> None:
    """Is `take` of a subscription that was left."""
