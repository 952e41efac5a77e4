"""Joining a topic: the subscriber gets the reply, the events they missed, those of meanwhile, then live events."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from wsaction._pubsub.event import Event
from wsaction._pubsub.reconcile import Reconciler
from wsaction._pubsub.subscription import State, Subscription
from wsaction._pubsub.topic import Pages, Topic
from wsaction.exceptions import Cancelled
from wsaction.layers.base import History, Position

MAX_RECOVERED = 1_000  # missed events that are sent; with more, or with over half the capacity, recovered is false

Reply = Callable[[Position, bool | None, Any], str | None]
"""Builds the reply's text from a position, ``recovered`` and the snapshot. If it raises, nothing is joined.

None means that the caller sends the reply later; until then the subscription is held.
"""
Snapshot = Callable[[], Awaitable[Any]]

_Missed = tuple[Position, list[Event] | None]  # the position after the events, and the events; None: not available


@dataclass(slots=True, eq=False)
class Join:
    """Makes one subscription live."""

    reconciler: Reconciler
    topic: Topic
    subscription: Subscription
    since: Position | None
    snapshot: Snapshot | None
    reply: Reply
    max_recovered: int
    position: Position | None = None  # of the reply
    is_answered: bool = False  # whether `reply` gave a text

    async def run(self) -> None:
        """Sends the reply and joins the topic, in as many attempts as that takes.

        Raises ``LayerUnavailable``, ``Cancelled`` if the subscription was left meanwhile, and the exceptions of the
        snapshot and the reply.
        """
        while not await self._try():
            pass

    async def _try(self) -> bool:
        """Returns whether the subscription was answered. If not, the collected events are stale: try again."""
        topic, subscription = self.topic, self.subscription
        await topic.ready.wait()
        self._raise_if_left()
        subscription.start_collecting()
        position, missed, recovered = topic.position, list[Event](), None
        if self.since is not None:
            past = await self._recover(self.since)
            if past is None:
                return False
            position = past[0]
            missed = past[1] or []
            recovered = past[1] is not None
        snapshot = await self.snapshot() if self.snapshot is not None and not recovered else None
        await subscription.subscriber.wait_for_space(_total_size(missed, subscription.route))
        if subscription.subscriber.is_closed:
            raise Cancelled("The connection has ended.")
        self._raise_if_left()
        if subscription.state is not State.COLLECTING:
            return False
        self._answer(position, missed, recovered, snapshot)
        return True

    def _raise_if_left(self) -> None:
        if self.subscription.state is State.LEFT:
            raise Cancelled("This subscription was ended or restarted before its reply.")

    def _answer(self, position: Position, missed: list[Event], recovered: bool | None, snapshot: Any) -> None:
        """Sends the reply and the events up to now. Awaits nothing, so that no other event comes in between.

        The reply has the position before the events that follow it. A client that loses its connection among them
        requests them again from there.
        """
        topic, subscription = self.topic, self.subscription
        start = Position(position.epoch, self.since.offset) if recovered and self.since is not None else position
        self.position = start
        if (reply := self.reply(start, recovered, snapshot)) is None:
            subscription.hold(extra=len(missed) + len(subscription.collected))
        else:
            self.is_answered = True
            subscription.subscriber.put(reply)
        for event in missed:
            subscription.deliver(event, topic.epoch)
        last = position.offset
        for event in subscription.collected:
            if not event.offset or event.offset > last:
                subscription.deliver(event, topic.epoch)
                last = event.offset or last
        subscription.cursor = last
        subscription.collected = []
        if last <= topic.offset:
            topic.go_live(subscription)
        else:
            subscription.state = State.AHEAD

    # ------------------------------------------------------------------------------------------------ missed events
    async def _recover(self, since: Position) -> _Missed | None:
        """Returns the missed events, or None if the join must start again."""
        topic, history = self.topic, self.topic.history
        if history is None or not since.is_sane:
            return topic.position, None
        past: _Missed | None = topic.events_since(since) or await self._read(since, history)
        if past is None:
            return None
        position, missed = past
        subscription = self.subscription
        if missed is None or len(missed) > self.max_recovered:
            return position, None
        is_large = _total_size(missed, subscription.route) > subscription.subscriber.capacity // 2
        return (position, None) if is_large else past

    async def _read(self, since: Position, history: History) -> _Missed | None:
        """Returns the layer's page, or one read for a subscription before.

        One join reads at a time. The next ones use its page if they can, so that many clients that return at once
        cause few reads.
        """
        topic = self.topic
        pages = topic.pages = topic.pages or Pages()
        pages.waiting += 1
        try:
            async with pages.lock:
                return (
                    topic.events_since(since)
                    or pages.events_since(since, topic)
                    or await self._read_page(since, history, pages)
                )
        finally:
            pages.waiting -= 1
            if not pages.waiting and topic.pages is pages:
                topic.pages = None

    async def _read_page(self, since: Position, history: History, pages: Pages) -> _Missed | None:
        topic = self.topic
        if not topic.ready.is_set() or self.subscription.state is not State.COLLECTING:
            return None  # the topic or the subscription changed while this join waited for the lock
        page = await self.reconciler.read(topic, history, since, self.max_recovered)
        if page.position.epoch != topic.epoch:
            if topic.ready.is_set():
                self.reconciler.start_reconciling(topic)
            return None
        # This process may be behind another one that the client was connected to: the page counts, not the topic.
        if page.events is None:
            return page.position, None
        missed = [Event(offset, body) for offset, body in page.events]
        if since.epoch == topic.epoch:
            pages.keep(since, missed)
        return page.position, missed


def _total_size(events: list[Event], route: str) -> int:
    return sum(event.frame_size_for(route) for event in events)
