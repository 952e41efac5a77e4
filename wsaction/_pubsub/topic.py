"""A topic in this process: where it stands, who is told, and how each thing that a layer says moves it.

Nothing here waits. Two rules hold throughout. The position moves only by applying the one event that follows it, or by
absorbing a page that the layer read. Whatever is doubtful (a confirmation, a hole, a foreign epoch) leaves the topic
*unready* and is answered by True: it has to be reconciled, see `wsaction._pubsub.reconcile`.
"""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

from wsaction._protocol.event_frames import encode_notice
from wsaction._protocol.scope import is_loaded
from wsaction._pubsub.event import Event
from wsaction._pubsub.fanout import Fanout, JobQueue
from wsaction._pubsub.subscription import FilteredSubscription, ReplyRecipient, State, Subscription
from wsaction.layers.base import History, Page, Position

__all__ = ("MAX_BACKLOG", "RING", "Message", "OnEvent", "Rings", "Topic")

RING = 64  # newest events that a process keeps of each topic, for those who were away for a moment
MAX_RING_BYTES = 262_144  # of those
MAX_RINGS_BYTES = 16_777_216  # of all topics' together
EVENT_BYTES = 200  # that an event takes beside its frame
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0  # seconds between two times that subscribers are told to load again; it doubles
CALM = 30.0  # seconds without a loss after which the next one is told at once again
MAX_BACKLOG = 1_024  # messages that wait while a topic is reconciled; past it the layer is read once more

Message = tuple[str, int, bytes]  # epoch, offset, body: a message that waits
OnEvent = Callable[[str, str, int], None]  # is told of a topic, the name of an event there, and to how many it is told
_Recipients = tuple[list[tuple[str, tuple[Subscription, ...]]], tuple[Subscription, ...]]


class Topic:
    """A topic that somebody in this process is subscribed to, or was until just now."""

    __slots__ = (
        "_awaiting_resync",
        "_fanout",
        "_last_resync",
        "_pause",
        "_recipients",
        "_resync_timer",
        "_rings",
        "backlog",
        "confirmed",
        "confirmed_at",
        "epoch",
        "generation",
        "has_position",
        "history",
        "joining",
        "linger_timer",
        "live",
        "name",
        "offset",
        "on_event",
        "overrun",
        "pages",
        "queue",
        "ready",
        "reconciling",
        "ring",
        "ring_size",
    )

    def __init__(
        self,
        name: str,
        history: History | None,
        fanout: Fanout,
        on_event: OnEvent | None = None,
        rings: "Rings | None" = None,
    ) -> None:
        self.name = name
        self.history = history
        self.on_event = on_event
        self.epoch = ""
        self.offset = 0
        self.has_position = False  # whether it has a position
        self._rings = rings or Rings()
        self.ring: deque[Event] = deque(maxlen=self._rings.events)  # the newest, without a hole up to `offset`
        self.ring_size = 0  # bytes
        self.live: dict[Subscription, None] = {}
        self.joining: dict[Subscription, None] = {}  # all others
        self.confirmed = False  # whether the layer tells what is published
        self.confirmed_at = 0.0  # since when, by the loop's clock
        self.generation = 0  # how often that has changed
        self.ready = asyncio.Event()  # set: confirmed and reconciled, so that nothing up to `offset` is missing
        self.backlog: list[Message] = []  # heard while not ready
        self.overrun = False  # more was heard than the backlog holds
        self.reconciling = False
        self.pages: Pages | None = None
        self.linger_timer: asyncio.TimerHandle | None = None  # until it is let go
        self.queue: JobQueue = deque()
        self._fanout = fanout
        self._recipients: _Recipients | None = None
        self._last_resync = -math.inf  # when all were last told to load again
        self._pause = 0.0  # and how long that holds
        self._awaiting_resync: dict[Subscription, None] = {}  # who is told nothing before that, when the pause is over
        self._resync_timer: asyncio.TimerHandle | None = None

    @property
    def position(self) -> Position:
        """Where it stands in this process."""
        return Position(self.epoch, self.offset)

    @property
    def is_wanted(self) -> bool:
        """Whether anybody is here, or may be back in a moment."""
        return not self.is_empty or self.linger_timer is not None

    @property
    def is_empty(self) -> bool:
        """Whether nobody is here."""
        return not (self.live or self.joining or self._awaiting_resync)

    # ------------------------------------------------------------------------------------------------ what layers say
    def confirm(self) -> bool:
        """From here on everything arrives. Whether it has to be reconciled."""
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
        """Nothing arrives."""
        self.generation += 1
        self.confirmed = False
        self.ready.clear()
        self.backlog.clear()  # the read that follows has it too

    def receive(self, epoch: str, offset: int, body: bytes) -> bool:
        """A message came. Whether it has to be reconciled."""
        if not self.confirmed:
            return False
        if self.history is None or not epoch:
            self._receive_without_history(body)
            return False
        if self.ready.is_set():
            if epoch == self.epoch and offset <= self.offset:
                return False  # known
            if self._is_next(epoch, offset, body):
                self.apply(Event(offset, body))
                return False
            self.ready.clear()
            self.backlog.append((epoch, offset, body))
            return True
        if len(self.backlog) < MAX_BACKLOG:
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

    def apply_backlog(self, heard_before: int) -> bool:
        """Applies the backlog, of which so much was heard before the layer was read; whether all of it fitted.

        What was heard before must be in the page that was read. What is not there all the same is of a dead epoch or
        foreign, and is dropped; of what was heard meanwhile the rest is kept, to read again.
        """
        backlog, self.backlog = self.backlog, []
        if self.overrun:
            return False
        for index, (epoch, offset, body) in enumerate(backlog):
            if epoch == self.epoch and offset <= self.offset:
                continue
            if self._is_next(epoch, offset, body):
                self.apply(Event(offset, body))
            elif index >= heard_before:
                self.backlog = backlog[index:]
                return False
        return True

    # ------------------------------------------------------------------------------------------------ its position
    def apply(self, event: Event) -> None:
        """Moves by one event, the next one or one of no history, and tells it."""
        if event.offset:
            self.offset = event.offset
            self._remember(event)
        for subscription in tuple(self.joining) if self.joining else ():
            if subscription.state is State.COLLECTING:
                subscription.collect(event)
            elif subscription.state is State.AHEAD:
                self._pass_to_ahead(subscription, event)
        recipients = self._send(event) if self.live else 0
        if self.on_event is not None:
            self.on_event(self.name, event.message["event"], recipients)

    def _pass_to_ahead(self, subscription: Subscription, event: Event) -> None:
        """It was answered up to its cursor, which the topic may have passed now."""
        if not event.offset:
            subscription.deliver(event, self.epoch)
        elif event.offset > subscription.cursor:
            self.go_live(subscription)

    def absorb(self, page: Page) -> None:
        """Moves by what the layer read for our position."""
        position = page.position
        if not self.has_position:
            self.epoch, self.offset = position.epoch, position.offset
            self.has_position = True
        elif page.events is None:
            self.epoch, self.offset = position.epoch, self._offset_after_loss(position)
            self.forget_ring()
            self.resync()
        else:
            ahead_of_loss = self._change_epoch(position.epoch, page.shared) if position.epoch != self.epoch else []
            for offset, body in page.events:
                self.apply(Event(offset, body))
            for subscription in ahead_of_loss:
                subscription.take(encode_notice("$resync", subscription.route, self.position))
                self.go_live(subscription)

    def _offset_after_loss(self, position: Position) -> int:
        """The offset from which on it counts where its past was lost.

        Subscribers of routes load again, and need not be told what was heard before that: it is the position itself.
        What processes tell each other (``$...``) is no state to be loaded: what was heard, and waits, is told all the
        same.
        """
        if is_loaded(self.name):
            return position.offset
        waiting = {offset for epoch, offset, body in self.backlog if epoch == position.epoch and body}
        offset = position.offset
        while offset in waiting:
            offset -= 1
        return offset

    def _change_epoch(self, epoch: str, shared: int) -> list[Subscription]:
        """Nothing was lost, but offsets count on in another epoch. Returns those that were answered with events that
        are gone: of the old epoch, after offset ``shared``."""
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
        """Something was lost: who is subscribed loads again, who is being answered begins again.

        The first loss is told at once. Where one follows another, as when a store evicts again and again, subscribers
        wait for it: since all of them loading is dear, they are told once in a while, and a last time after the last
        one. Until then they are told no event, so that one who drops asks for all of it, by the position of before.
        What cannot be loaded is told all the same.
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
        if is_loaded(self.name):
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
        is_calm = now - self._last_resync > CALM
        self._pause = FIRST_PAUSE if is_calm else min(2 * self._pause, LONGEST_PAUSE)
        self._last_resync = now
        self._notify("$resync", subscriptions)

    @property
    def is_resync_pending(self) -> bool:
        """Whether anybody is yet to be told to load again."""
        return self._resync_timer is not None

    def close(self) -> None:
        """Nobody is told anything any more."""
        if self._resync_timer is not None:
            self._resync_timer.cancel()
            self._resync_timer = None
        self.forget_ring()

    # ------------------------------------------------------------------------------------------------ its past
    def _remember(self, event: Event) -> None:
        """Keeps the newest events, within bounds."""
        ring = self.ring
        size_before = self.ring_size
        self.ring_size += event.size + EVENT_BYTES
        if len(ring) == ring.maxlen:
            self.ring_size -= ring[0].size + EVENT_BYTES
        ring.append(event)
        while self.ring_size > self._rings.ring_bytes:
            self.ring_size -= ring.popleft().size + EVENT_BYTES
        self._rings.grow(self, self.ring_size - size_before)

    def forget_ring(self) -> None:
        """Keeps none: whoever was away for a moment is told from the layer's history."""
        self._rings.forget(self)
        self.ring.clear()
        self.ring_size = 0

    def events_since(self, since: Position) -> tuple[Position, list[Event]] | None:
        """What came after ``since``, as far as this process remembers, and where that ends."""
        if since.epoch != self.epoch or not self.offset - len(self.ring) <= since.offset <= self.offset:
            return None
        missed = self.offset - since.offset
        return self.position, list(islice(self.ring, len(self.ring) - missed, None))

    # ------------------------------------------------------------------------------------------------ who is told
    def go_live(self, subscription: Subscription) -> None:
        """From now on it is told everything at once."""
        self.joining.pop(subscription, None)
        subscription.state = State.LIVE
        self.live[subscription] = None
        self._recipients = None

    def remove(self, subscription: Subscription) -> None:
        """It is told nothing any more."""
        subscription.leave()
        self.joining.pop(subscription, None)
        self._awaiting_resync.pop(subscription, None)
        if subscription in self.live:
            del self.live[subscription]
            self._recipients = None

    def send_to(self, subscription: Subscription, text: str) -> None:
        """Tells a live subscription something, behind what it has yet to be told."""
        self._fanout.send(self.queue, text, (subscription,))

    def answer(self, subscription: Subscription, reply: str) -> None:
        """Sends a reply, behind what its subscription has yet to be told."""
        self._fanout.send(self.queue, reply, (ReplyRecipient(subscription),))

    def resync_one(self, subscription: Subscription) -> None:
        """One that is subscribed loads again, and counts from where it will have been told everything."""
        if subscription.state is State.LIVE:
            self.send_to(subscription, encode_notice("$resync", subscription.route, self.position))
        elif subscription.state is State.AHEAD:
            position = Position(self.epoch, subscription.cursor)
            subscription.take(encode_notice("$resync", subscription.route, position))

    def _notify(self, event: str, subscriptions: Sequence[Subscription]) -> None:
        for route in {subscription.route for subscription in subscriptions}:
            group = tuple(subscription for subscription in subscriptions if subscription.route == route)
            self._fanout.send(self.queue, encode_notice(event, route, self.position), group)

    def _send(self, event: Event) -> int:
        """Tells all that are live, each under its route, but the one that is excluded; says how many these are."""
        if self._recipients is None:
            self._recipients = self._group_recipients()
        plain, filtered = self._recipients
        count = 0
        for route, group in plain:
            if event.excludes is not None:
                group = self._skip_excluded(group, event)
            if group:
                self._fanout.send(self.queue, event.under(route), group)
                count += len(group)
        if event.excludes is not None:
            filtered = self._skip_excluded(filtered, event)
        if filtered:
            self._fanout.send(self.queue, (event, self.epoch), filtered)
        return count + len(filtered)

    def _group_recipients(self) -> _Recipients:
        """All that are live: those that need not be asked about, by route, and those that have to be."""
        plain: dict[str, list[Subscription]] = {}
        filtered: list[Subscription] = []
        for subscription in self.live:
            is_filtered = isinstance(subscription, FilteredSubscription)
            (filtered if is_filtered else plain.setdefault(subscription.route, [])).append(subscription)
        return [(route, tuple(group)) for route, group in plain.items()], tuple(filtered)

    def _skip_excluded(self, subscriptions: Sequence[Subscription], event: Event) -> tuple[Subscription, ...]:
        """All but those of the subscriber that is excluded."""
        recipients = tuple(each for each in subscriptions if each.excluded_as != event.excludes)
        if len(recipients) < len(subscriptions):
            for subscription in subscriptions:
                if subscription.excluded_as == event.excludes:
                    subscription.skip(event, self.epoch, partial(self.send_to, subscription))
        return recipients


class Rings:
    """The rings of all topics of a process: past the bound, that of the topic published to longest ago is let go.

    A topic keeps at most so many ``events`` and ``ring_bytes``, all of them together ``max_bytes``.
    """

    __slots__ = ("_max_bytes", "_topics", "events", "ring_bytes", "size")

    def __init__(
        self, *, events: int = RING, ring_bytes: int = MAX_RING_BYTES, max_bytes: int = MAX_RINGS_BYTES
    ) -> None:
        self.events = events
        self.ring_bytes = ring_bytes
        self._max_bytes = max_bytes
        self.size = 0  # bytes
        self._topics: OrderedDict[Topic, None] = OrderedDict()

    def grow(self, topic: Topic, by: int) -> None:
        """A topic's ring has grown by so many bytes."""
        self.size += by
        self._topics[topic] = None
        self._topics.move_to_end(topic)
        while self.size > self._max_bytes:
            next(iter(self._topics)).forget_ring()

    def forget(self, topic: Topic) -> None:
        """A topic lets its ring go."""
        if topic in self._topics:
            del self._topics[topic]
            self.size -= topic.ring_size


class Pages:
    """What the layer read of a topic's past, for as long as anybody waits to read it: many come back at once."""

    __slots__ = ("_events", "_since", "lock", "waiting")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0
        self._since: Position | None = None
        self._events: list[Event] = []

    def note(self, since: Position, events: list[Event]) -> None:
        """Keeps a page, in the place of the last one; ``since`` in the epoch that it was read in."""
        self._since = since
        self._events = events

    def events_since(self, since: Position, topic: Topic) -> tuple[Position, list[Event]] | None:
        """What came after ``since`` by the page and, after it, by the topic's ring, where they meet."""
        start = self._since
        if start is None or not start.epoch == since.epoch == topic.epoch or since.offset < start.offset:
            return None
        end = start.offset + len(self._events)
        newer = topic.events_since(Position(since.epoch, max(end, since.offset))) if end < topic.offset else (None, [])
        if newer is None or since.offset > max(end, topic.offset):
            return None
        events = self._events[since.offset - start.offset :] + newer[1]
        return Position(topic.epoch, max(end, topic.offset)), events
