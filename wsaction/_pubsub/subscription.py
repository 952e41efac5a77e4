"""Who is told of events: subscribers, and what each of their subscriptions is at.

A subscription is *waiting* for its topic, *collecting* events while it is being answered, or *live*. One whose notes no
longer hold is *stale*, and is begun again; one that was answered from a newer past than this process has heard of is
*ahead* until that has caught up; one that is *left* is told nothing more.
"""

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
from wsaction._utils.timer import Alarm
from wsaction.layers.base import Position

__all__ = ("Filter", "FilteredSubscription", "NotKnown", "ReplyRecipient", "State", "Subscriber", "Subscription")

logger = logging.getLogger("wsaction")

MAX_COLLECTED = 1_024  # events that wait for a subscription that is being answered; past it, it is begun again
MAX_UNFILTERED = 1_024  # events that wait for a subscription's filter; past it its subscriber is a slow consumer
MAX_HELD = 1_024  # things that wait for a subscription that is held; past it, it loads again
SKIPS_BEFORE_POSITION = 100  # events in a row that a subscription is not told, before it is told where it stands

Filter = Callable[[Event], Awaitable[str | None]]
"""What a recipient is told of an event: ``event.frame``, or another frame (see `Event.numbered`), or None: nothing.

Raises `NotKnown` where that cannot be said any more; the recipient gets a ``$resync`` then.
"""


class NotKnown(Exception):
    """What an event was about has changed since, so that nobody can say who might see it as it was then."""


class Subscriber(Protocol):
    """Who subscribes: a connection. Compared by identity."""

    @property
    def capacity(self) -> int:
        """Bytes that may wait to be sent to it."""

    @property
    def is_closed(self) -> bool:
        """Whether it is over."""

    def put(self, text: str) -> None:
        """Sends a message without ever waiting, in order. Past `capacity` it closes, 1013. Raises nothing."""

    async def wait_for_space(self, size: int) -> None:
        """Waits until ``size`` more bytes fit well, or nothing waits any more, or it has ended."""

    def close(self, code: int, reason: str) -> None:
        """Ends it."""


class ReplyRecipient:
    """Who is told the reply to subscribing again, behind the events that come before it: even once he has left."""

    __slots__ = ("take",)

    def __init__(self, subscription: "Subscription") -> None:
        self.take = subscription.answer


@dataclass(frozen=True, slots=True)
class _Reply:
    """A reply that waits for a filter."""

    text: str


@dataclass(slots=True)
class _Hold:
    """What a subscription is told while its permissions are asked again, or the reply that goes before is not made."""

    take: Callable[[Any], None]
    limit: int
    count: int = 0
    items: deque[Any] = field(default_factory=deque)
    overrun: bool = False  # whether more came than may be kept


class State(Enum):
    """What a subscription is at; see the module."""

    WAITING = auto()
    COLLECTING = auto()
    STALE = auto()
    AHEAD = auto()
    LIVE = auto()
    LEFT = auto()


class Subscription:
    """One subscriber's of one topic, under one route. ``take`` tells it what is next; it never waits."""

    __slots__ = ("_hold", "collected", "cursor", "excluded_as", "route", "skipped", "state", "subscriber", "take")

    take: Callable[[Any], None]

    def __init__(self, subscriber: Subscriber, route: str) -> None:
        self.subscriber = subscriber
        self.route = route
        self.state = State.WAITING
        self.collected: list[Event] = []
        self.cursor = 0  # the offset that it was answered up to
        self.excluded_as: str | None = None  # its subscriber's name in what it publishes to others only
        self.skipped = 0
        self._hold: _Hold | None = None
        self.take = subscriber.put

    @property
    def is_joining(self) -> bool:
        """Whether it is yet to be answered."""
        return self.state in (State.WAITING, State.COLLECTING, State.STALE)

    def start_collecting(self) -> None:
        """Begins to keep events, from here on."""
        self.state = State.COLLECTING
        self.collected = []

    def collect(self, event: Event) -> None:
        """Keeps an event for when it is answered."""
        if len(self.collected) < MAX_COLLECTED:
            self.collected.append(event)
        else:
            self.restart()

    def restart(self) -> None:
        """What was noted is no longer true."""
        if self.is_joining:
            self.state = State.STALE
            self.collected = []

    def leave(self) -> None:
        """It is told nothing more, whatever is on its way, but for the replies among it."""
        self.state = State.LEFT
        self.collected = []
        self.take = _ignore
        hold, self._hold = self._hold, None
        for reply in hold.items if hold is not None else ():
            if isinstance(reply, _Reply):
                self.subscriber.put(reply.text)

    # ------------------------------------------------------------------------------------------------ held back
    def hold(self, extra: int = 0) -> None:
        """Keeps back what it is told from now on, until `resume` was called as often. ``extra``: so many events are
        about to be kept that do not count."""
        if self._hold is None:
            self._hold = _Hold(self.take, MAX_HELD)
            self.take = self._hold_back
        self._hold.count += 1
        self._hold.limit += extra

    def resume(self) -> bool:
        """Tells it what was kept back, once nobody holds it any more; nothing where it was left meanwhile.

        Whether more came than could be kept, so that it has to load again.
        """
        if (hold := self._hold) is None:
            return False
        hold.count -= 1
        if hold.count:
            return False
        self._hold = None
        self.take = hold.take
        for item in hold.items:
            if isinstance(item, _Reply):
                self.answer(item.text)
            else:
                self.take(item)
        return hold.overrun

    def _hold_back(self, item: Any) -> None:
        hold = self._hold
        is_reply = isinstance(item, _Reply)
        if hold is None or (is_reply and len(hold.items) >= hold.limit):
            reason = f"slow consumer; {MAX_HELD} replies and events wait for a subscription"
            self.subscriber.close(TRY_AGAIN_LATER, reason)
        elif is_reply or (len(hold.items) < hold.limit and not hold.overrun):
            hold.items.append(item)
        elif not hold.overrun:
            hold.overrun = True
            hold.items = deque(each for each in hold.items if isinstance(each, _Reply))

    # ------------------------------------------------------------------------------------------------ told
    def replace_filter(self, filter: Filter | None) -> None:
        """It was asked for again, and what it may see is asked of the new filter."""

    def answer(self, reply: str) -> None:
        """Sends it a reply, behind what it has yet to be told."""
        if self._hold is not None:
            self._hold_back(_Reply(reply))
        else:
            self.subscriber.put(reply)

    def deliver(self, event: Event, epoch: str) -> None:
        """Tells it an event, unless it is excluded."""
        if event.excludes is not None and event.excludes == self.excluded_as:
            self.skip(event, epoch, self.take)
        else:
            self.take(event.under(self.route))

    def skip(self, event: Event, epoch: str, send: Callable[[str], None]) -> None:
        """It is not told this one; now and then it is told where it stands, so that its position stays in the past.

        ``send`` tells it that, behind all that comes before the event.
        """
        self.skipped += 1
        if self.skipped >= SKIPS_BEFORE_POSITION and event.offset:
            self.skipped = 0
            send(encode_notice("$position", self.route, Position(epoch, event.offset)))


class FilteredSubscription(Subscription):
    """One that asks, for every event, what its subscriber may see of it: one at a time, in order.

    ``take`` is given texts, or an event and its epoch. A filter that takes longer than ``patience`` seconds is given up
    for its event, as one that fails. No event has a timer of its own: one alarm looks when the last one was asked of.
    """

    __slots__ = (
        "_alarm",
        "_filter",
        "_filter_started",
        "_filter_timeout",
        "_filtering",
        "_has_timed_out",
        "_loop",
        "_queue",
        "_tasks",
    )

    def __init__(self, subscriber: Subscriber, route: str, filter: Filter, tasks: Tasks, patience: float) -> None:
        super().__init__(subscriber, route)
        self._filter = filter
        self._filter_timeout = patience
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm(self._loop, self._check_deadline)
        self._filter_started = 0.0  # when the filter was asked last
        self._has_timed_out = False  # whether it was given up
        self._queue: deque[str | tuple[Event, str] | _Reply] = deque()
        self._filtering: Any = None
        self.take = self._enqueue

    def deliver(self, event: Event, epoch: str) -> None:
        if event.excludes is not None and event.excludes == self.excluded_as:
            self.skip(event, epoch, self.take)
        else:
            self.take((event, epoch))

    def leave(self) -> None:
        super().leave()
        self._alarm.stop()
        for item in self._queue:
            if isinstance(item, _Reply):
                self.subscriber.put(item.text)
        self._queue.clear()
        if self._filtering is not None:
            self._filtering.cancel()

    def replace_filter(self, filter: Filter | None) -> None:
        self._filter = filter or self._filter

    def answer(self, reply: str) -> None:
        if self._hold is not None or self._filtering is None or self.state is State.LEFT:
            super().answer(reply)
        else:
            self._enqueue(_Reply(reply))

    def _enqueue(self, item: str | tuple[Event, str] | _Reply) -> None:
        if type(item) is str and not self._queue and self._filtering is None:
            self.subscriber.put(item)
            return
        if len(self._queue) >= MAX_UNFILTERED:
            self.subscriber.close(TRY_AGAIN_LATER, f"slow consumer; {MAX_UNFILTERED} events wait for its permissions")
            return
        self._queue.append(item)
        if self._filtering is None:
            self._filter_started = self._loop.time()
            self._alarm.by(self._filter_started + self._filter_timeout)
            self._filtering = self._tasks.start(self._filter_all)

    def _check_deadline(self) -> None:
        """Gives the filter up that was asked too long ago."""
        if self._filtering is None:
            return
        if self._loop.time() - self._filter_started >= self._filter_timeout:
            self._has_timed_out = True
            self._filtering.cancel()
            self._filter_started = self._loop.time()  # what does not end by that is cancelled again
        self._alarm.by(self._filter_started + self._filter_timeout)

    async def _filter_all(self) -> None:
        try:
            while self._queue:
                item = self._queue.popleft()
                if isinstance(item, str):
                    self.subscriber.put(item)
                elif isinstance(item, _Reply):
                    self.subscriber.put(item.text)
                else:
                    await self._filter_one(*item)
        finally:
            self._filtering = None

    async def _call_filter(self, event: Event) -> str | None:
        """What the filter says; ``TimeoutError`` once it was given up."""
        self._filter_started = self._loop.time()
        try:
            return await self._filter(event)
        except asyncio.CancelledError:
            if not self._has_timed_out or self.state is State.LEFT:
                raise
            raise TimeoutError(f"it took longer than {self._filter_timeout:g} s") from None
        finally:
            if self._has_timed_out:
                self._has_timed_out = False
                self._filtering.uncancel()

    async def _filter_one(self, event: Event, epoch: str) -> None:
        try:
            text = await self._call_filter(event)
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError) and is_being_cancelled():
                raise  # it was left; else what the filter awaited was cancelled, which is a failure like any other
            # It is not known what it may see, so it is not shown; but then it has to be told that it missed something.
            if not isinstance(exc, NotKnown):
                logger.exception("the filter of a subscription to %r failed", self.route)
            text = encode_notice("$resync", self.route, Position(epoch if event.offset else "", event.offset))
        send = _ignore if self.state is State.LEFT else self.subscriber.put
        if text is None:
            self.skip(event, epoch, send)
        else:
            self.skipped = 0
            send(reroute(text, self.route))


def _ignore(_: Any) -> None:
    """What is told to one that has left."""
