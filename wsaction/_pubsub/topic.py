"""A topic in this process: its position, its subscriptions, and what each message of the layer changes.

Nothing here waits. Two rules always hold. The position changes only when the next event is applied, or a page that the
layer read. When events may be missing (after a confirmation, a gap or another epoch), the topic is not
*ready*, and the method returns True: the caller must have it reconciled, see `wsaction._pubsub.reconcile`.
"""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from wsaction._protocol.event_frames import encode_notice, event_name
from wsaction._protocol.scope import is_loadable
from wsaction._pubsub.event import Event
from wsaction._pubsub.fanout import Fanout, JobQueue
from wsaction._pubsub.subscription import FilteredSubscription, ReplyRecipient, State, Subscription
from wsaction.hooks import HookList
from wsaction.layers.base import History, Page, Position

RING = 64  # the newest events that a process keeps of each topic, for clients that reconnect soon
MAX_RING_BYTES = 262_144  # bytes of one ring
MAX_RINGS_BYTES = 16_777_216  # bytes of the rings of all topics
EVENT_BYTES = 200  # bytes of memory that an event takes beside its frame
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0  # seconds between two `$resync` of a topic, doubled each time
CALM_TIME = 30.0  # seconds without a `$resync` after which the pause is `FIRST_PAUSE` again

Message = tuple[str, int, bytes]  # a message of the layer: epoch, offset, body
_Recipients = tuple[list[tuple[str, tuple[Subscription, ...]]], tuple[Subscription, ...]]


@dataclass(slots=True, eq=False)
class Topic:
    """A topic that has subscriptions in this process, or had some until a moment ago."""

    name: str
    history: History | None
    fanout: Fanout
    hooks: HookList | None  # None: no hook is called for events
    rings: "Rings"
    max_backlog: int  # messages that wait while the topic is reconciled; with more, the layer is read again
    epoch: str = ""
    offset: int = 0
    has_position: bool = False  # false until the first page or, without history, confirmation
    ring: deque[Event] = field(init=False)  # the newest events, without a gap, up to `offset`
    ring_size: int = 0  # bytes
    live: dict[Subscription, None] = field(default_factory=dict)
    joining: dict[Subscription, None] = field(default_factory=dict)  # the subscriptions that are joining or ahead
    confirmed: bool = False  # whether the layer delivers the topic's events
    confirmed_at: float = 0.0  # the time of the last confirmation, by the loop's clock
    generation: int = 0  # how often `confirmed` has changed
    ready: asyncio.Event = field(default_factory=asyncio.Event)  # set: confirmed, and no event is missing
    backlog: list[Message] = field(default_factory=list)  # messages that arrived while not ready
    overrun: bool = False  # whether more arrived than the backlog holds
    reconciling: bool = False
    pages: "Pages | None" = None
    linger_timer: asyncio.TimerHandle | None = None  # removes the topic
    queue: JobQueue = field(default_factory=deque)
    _recipients: _Recipients | None = None
    _last_resync: float = -math.inf  # when the live subscriptions last got `$resync`
    _pause: float = 0.0  # seconds before they may get the next one
    _awaiting_resync: dict[Subscription, None] = field(default_factory=dict)  # get no event before the next `$resync`
    _resync_timer: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self.ring = deque(maxlen=self.rings.events)

    @property
    def position(self) -> Position:
        """The position up to which this process has applied events."""
        return Position(self.epoch, self.offset)

    @property
    def is_wanted(self) -> bool:
        """Whether the topic has subscriptions, or had some a moment ago."""
        return not self.is_empty or self.linger_timer is not None

    @property
    def is_empty(self) -> bool:
        """Whether the topic has no subscriptions."""
        return not (self.live or self.joining or self._awaiting_resync)

    # ------------------------------------------------------------------------------------------------ messages
    def confirm(self) -> bool:
        """From now on all events arrive. Returns whether the topic must be reconciled."""
        self.generation += 1
        self.confirmed = True
        self.confirmed_at = asyncio.get_running_loop().time()
        if self.history is not None:
            self.ready.clear()
            return True
        if self.has_position:
            self.resync()
        self.has_position = True
        self.ready.set()
        return False

    def unconfirm(self) -> None:
        """No events arrive until the next `confirm`."""
        self.generation += 1
        self.confirmed = False
        self.ready.clear()
        self.backlog.clear()  # the page that is read after the next confirmation has them too

    def receive(self, epoch: str, offset: int, body: bytes) -> bool:
        """Applies a message of the layer, or keeps it. Returns whether the topic must be reconciled."""
        if not self.confirmed:
            return False
        if self.history is None or not epoch:
            self._receive_without_history(body)
            return False
        if self.ready.is_set():
            if epoch == self.epoch and offset <= self.offset:
                return False  # applied before
            if self._is_next(epoch, offset, body):
                self.apply(Event(offset, body))
                return False
            self.ready.clear()
            self.backlog.append((epoch, offset, body))
            return True
        if len(self.backlog) < self.max_backlog:
            self.backlog.append((epoch, offset, body))
        else:
            self.overrun = True
        return False

    def _receive_without_history(self, body: bytes) -> None:
        if body:
            self.apply(Event(0, body))
        elif self.history is None:
            self.resync()

    def _is_next(self, epoch: str, offset: int, body: bytes) -> bool:
        return epoch == self.epoch and offset == self.offset + 1 and bool(body)

    def apply_backlog(self, before_read: int) -> bool:
        """Applies the messages that waited while the layer was read. Returns False if the layer must be read again.

        The first ``before_read`` messages arrived before the read, so the page contains them. If one of them does not
        follow, it belongs to an old or a foreign epoch, and is dropped. If a later one does not follow, it and the rest
        stay in the backlog for the next read.
        """
        backlog, self.backlog = self.backlog, []
        if self.overrun:
            return False
        for index, (epoch, offset, body) in enumerate(backlog):
            if epoch == self.epoch and offset <= self.offset:
                continue
            if self._is_next(epoch, offset, body):
                self.apply(Event(offset, body))
            elif index >= before_read:
                self.backlog = backlog[index:]
                return False
        return True

    # ------------------------------------------------------------------------------------------------ the position
    def apply(self, event: Event) -> None:
        """Applies an event, the next one or one without history: moves the position and sends it to subscribers."""
        if self.hooks is None:
            self._apply(event)
            return
        name = event_name(event.frame)
        with self.hooks.around("around_delivery", self.name, name, event.carried) as carried:
            if carried:
                event.carry(carried)
            self.hooks.call("on_event", self.name, name, self._apply(event))

    def _apply(self, event: Event) -> int:
        """Returns the number of live subscriptions that get the event."""
        if event.offset:
            self.offset = event.offset
            self._remember(event)
        for subscription in tuple(self.joining) if self.joining else ():
            if subscription.state is State.COLLECTING:
                subscription.collect(event)
            elif subscription.state is State.AHEAD:
                self._pass_to_ahead(subscription, event)
        return self._send(event) if self.live else 0

    def _pass_to_ahead(self, subscription: Subscription, event: Event) -> None:
        """Sends an event without history; makes the subscription live if the topic has passed its cursor."""
        if not event.offset:
            subscription.deliver(event, self.epoch)
        elif event.offset > subscription.cursor:
            self.go_live(subscription)

    def apply_page(self, page: Page) -> None:
        """Applies a page that the layer read from the topic's position."""
        position = page.position
        if not self.has_position:
            self.epoch, self.offset = position.epoch, position.offset
            self.has_position = True
        elif page.events is None:
            self.epoch, self.offset = position.epoch, self._offset_after_loss(position)
            self.clear_ring()
            self.resync()
        else:
            ahead_of_loss = self._change_epoch(position.epoch, page.shared) if position.epoch != self.epoch else []
            for offset, body in page.events:
                self.apply(Event(offset, body))
            for subscription in ahead_of_loss:
                subscription.take(encode_notice("$resync", subscription.route, self.position))
                self.go_live(subscription)

    def _offset_after_loss(self, position: Position) -> int:
        """Returns the offset from which to go on after a loss.

        Clients load again, so they need no events from before the layer's position. Messages between processes cannot
        be loaded (see `is_loadable`): those that wait in the backlog are still applied, so go on before them.
        """
        if is_loadable(self.name):
            return position.offset
        waiting = {offset for epoch, offset, body in self.backlog if epoch == position.epoch and body}
        offset = position.offset
        while offset in waiting:
            offset -= 1
        return offset

    def _change_epoch(self, epoch: str, shared: int) -> list[Subscription]:
        """Continues in another epoch, without a loss.

        Returns the subscriptions that got events which no longer exist: those of the old epoch after offset ``shared``.
        """
        self.epoch = epoch
        self._notify("$position", tuple(self.live))
        ahead_of_loss = []
        for subscription in tuple(self.joining):
            if subscription.state is not State.AHEAD:
                subscription.restart()
            elif subscription.cursor <= shared:
                position = Position(epoch, subscription.cursor)
                subscription.take(encode_notice("$position", subscription.route, position))
            else:
                ahead_of_loss.append(subscription)
                del self.joining[subscription]
        return ahead_of_loss

    def resync(self) -> None:
        """Events were lost: live subscriptions get ``$resync``, those that are joining start again.

        After the first loss the notice is sent at once. If losses follow each other, as when a store keeps evicting,
        the next notice waits for a pause, because it is expensive that all clients load again. The last loss always has
        a notice after it. Until the notice, clients get no events: one that reconnects meanwhile must not have a
        position past the loss. Messages that cannot be loaded (see `is_loadable`) are sent all the same.
        """
        for subscription in tuple(self.joining):
            if subscription.state is State.AHEAD:
                self.go_live(subscription)
            else:
                subscription.restart()
        loop = asyncio.get_running_loop()
        if self._resync_timer is None and loop.time() >= self._last_resync + self._pause:
            self._send_resync(tuple(self.live))
            return
        self._awaiting_resync.update(self.live)
        if is_loadable(self.name):
            self.live.clear()
            self._recipients = None
        if self._resync_timer is None:
            self._resync_timer = loop.call_at(self._last_resync + self._pause, self._resync_waiting)

    def _resync_waiting(self) -> None:
        waiting = tuple(self._awaiting_resync)
        self._awaiting_resync.clear()
        self._resync_timer = None
        for subscription in waiting:
            self.go_live(subscription)
        self._send_resync(waiting)

    def _send_resync(self, subscriptions: Sequence[Subscription]) -> None:
        now = asyncio.get_running_loop().time()
        is_calm = now - self._last_resync > CALM_TIME
        self._pause = FIRST_PAUSE if is_calm else min(2 * self._pause, LONGEST_PAUSE)
        self._last_resync = now
        self._notify("$resync", subscriptions)

    @property
    def is_resync_pending(self) -> bool:
        """Whether a `$resync` waits for the end of the pause."""
        return self._resync_timer is not None

    def close(self) -> None:
        """Cancels the waiting `$resync` and frees the ring."""
        if self._resync_timer is not None:
            self._resync_timer.cancel()
            self._resync_timer = None
        self.clear_ring()

    # ------------------------------------------------------------------------------------------------ recent events
    def _remember(self, event: Event) -> None:
        """Adds an event to the ring, and drops the oldest ones past the bounds."""
        ring = self.ring
        size_before = self.ring_size
        self.ring_size += event.size + EVENT_BYTES
        if len(ring) == ring.maxlen:
            self.ring_size -= ring[0].size + EVENT_BYTES
        ring.append(event)
        while self.ring_size > self.rings.ring_bytes:
            self.ring_size -= ring.popleft().size + EVENT_BYTES
        self.rings.grow(self, self.ring_size - size_before)

    def clear_ring(self) -> None:
        """Empties the ring. Clients that reconnect then get their events from the layer's history."""
        self.rings.forget(self)
        self.ring.clear()
        self.ring_size = 0

    def events_since(self, since: Position) -> tuple[Position, list[Event]] | None:
        """Returns the position and the events after ``since``; None if the ring lacks some of them."""
        if since.epoch != self.epoch or not self.offset - len(self.ring) <= since.offset <= self.offset:
            return None
        missed = self.offset - since.offset
        return self.position, list(islice(self.ring, len(self.ring) - missed, None))

    # ------------------------------------------------------------------------------------------------ subscriptions
    def go_live(self, subscription: Subscription) -> None:
        """Makes a subscription live: from now on it gets events as they are applied."""
        self.joining.pop(subscription, None)
        subscription.state = State.LIVE
        self.live[subscription] = None
        self._recipients = None

    def remove(self, subscription: Subscription) -> None:
        """Ends a subscription."""
        subscription.leave()
        self.joining.pop(subscription, None)
        self._awaiting_resync.pop(subscription, None)
        if subscription in self.live:
            del self.live[subscription]
            self._recipients = None

    def send_to(self, subscription: Subscription, text: str) -> None:
        """Sends a live subscription a text, behind the items that wait for it."""
        self.fanout.send(self.queue, text, (subscription,))

    def answer(self, subscription: Subscription, reply: str) -> None:
        """Sends a reply, behind the items that wait for the subscription."""
        subscription.unsent_replies += 1
        self.fanout.send(self.queue, reply, (ReplyRecipient(subscription),))

    def resync_one(self, subscription: Subscription) -> None:
        """Sends one subscription ``$resync``, with the position after all events that wait for it.

        A subscription that is joining gets none.
        """
        if subscription.state is State.LIVE:
            self.send_to(subscription, encode_notice("$resync", subscription.route, self.position))
        elif subscription.state is State.AHEAD:
            position = Position(self.epoch, subscription.cursor)
            subscription.take(encode_notice("$resync", subscription.route, position))

    def _notify(self, event: str, subscriptions: Sequence[Subscription]) -> None:
        for route in {subscription.route for subscription in subscriptions}:
            group = tuple(subscription for subscription in subscriptions if subscription.route == route)
            self.fanout.send(self.queue, encode_notice(event, route, self.position), group)

    def _send(self, event: Event) -> int:
        """Sends an event to the live subscriptions, except the excluded one. Returns their number."""
        if self._recipients is None:
            self._recipients = self._group_recipients()
        plain, filtered = self._recipients
        count = 0
        for route, group in plain:
            if event.excluded_name is not None:
                group = self._skip_excluded(group, event)
            if group:
                self.fanout.send(self.queue, event.frame_for(route), group)
                count += len(group)
        if event.excluded_name is not None:
            filtered = self._skip_excluded(filtered, event)
        if filtered:
            self.fanout.send(self.queue, (event, self.epoch), filtered)
        return count + len(filtered)

    def _group_recipients(self) -> _Recipients:
        """The live subscriptions: those without a filter, grouped by route, and those with one."""
        plain: dict[str, list[Subscription]] = {}
        filtered: list[Subscription] = []
        for subscription in self.live:
            is_filtered = isinstance(subscription, FilteredSubscription)
            (filtered if is_filtered else plain.setdefault(subscription.route, [])).append(subscription)
        return [(route, tuple(group)) for route, group in plain.items()], tuple(filtered)

    def _skip_excluded(self, subscriptions: Sequence[Subscription], event: Event) -> tuple[Subscription, ...]:
        """The subscriptions that are not excluded. The others skip the event."""
        recipients = tuple(each for each in subscriptions if each.excluded_as != event.excluded_name)
        if len(recipients) < len(subscriptions):
            for subscription in subscriptions:
                if subscription.excluded_as == event.excluded_name:
                    subscription.skip(event, self.epoch, partial(self.send_to, subscription))
        return recipients


@dataclass(slots=True, eq=False)
class Rings:
    """The bounds of the rings of a process: past ``max_bytes``, the ring with the oldest newest event is emptied.

    A ring keeps at most ``events`` events and ``ring_bytes`` bytes; all rings together keep at most ``max_bytes``.
    """

    events: int = RING
    ring_bytes: int = MAX_RING_BYTES
    max_bytes: int = MAX_RINGS_BYTES
    size: int = 0  # bytes of all rings
    _topics: OrderedDict[Topic, None] = field(default_factory=OrderedDict)

    def grow(self, topic: Topic, by: int) -> None:
        """Counts the bytes by which a topic's ring has grown, and empties other rings past the bound."""
        self.size += by
        self._topics[topic] = None
        self._topics.move_to_end(topic)
        while self.size > self.max_bytes:
            next(iter(self._topics)).clear_ring()

    def forget(self, topic: Topic) -> None:
        """Stops counting a topic's ring."""
        if topic in self._topics:
            del self._topics[topic]
            self.size -= topic.ring_size


@dataclass(slots=True, eq=False)
class Pages:
    """The last page that was read for a join, kept while other joins wait: many clients may reconnect at once."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0  # joins
    _since: Position | None = None
    _events: list[Event] = field(default_factory=list)

    def keep(self, since: Position, events: list[Event]) -> None:
        """Keeps a page instead of the last one. ``since`` must be in the epoch in which the page was read."""
        self._since = since
        self._events = events

    def events_since(self, since: Position, topic: Topic) -> tuple[Position, list[Event]] | None:
        """Returns the position and the events after ``since``, from the page and the topic's ring.

        None if the page begins later, or if events are missing between the page and the ring.
        """
        start = self._since
        if start is None or not start.epoch == since.epoch == topic.epoch or since.offset < start.offset:
            return None
        end = start.offset + len(self._events)
        newer = topic.events_since(Position(since.epoch, max(end, since.offset))) if end < topic.offset else (None, [])
        if newer is None or since.offset > max(end, topic.offset):
            return None
        events = self._events[since.offset - start.offset :] + newer[1]
        return Position(topic.epoch, max(end, topic.offset)), events
