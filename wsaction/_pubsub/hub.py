"""The hub holds the topics of one process: it joins subscribers, publishes events and receives those of the layer.

An event is decoded once per process, and every recipient gets the same text. A subscriber gets the messages of a topic
in order: the reply, the events that they missed, the live events. If the topic keeps history, the subscriber gets every
event once, or a ``$resync`` if they may have missed one, or their connection is closed. It is one thing, beyond 500
lines: publications, joins and the layer's calls change the same table of topics.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial

from wsaction._protocol.event_frames import encode_body, encode_notice, event_name
from wsaction._protocol.frames import current_frame
from wsaction._pubsub.fanout import CHUNK, SLICE, Fanout
from wsaction._pubsub.join import MAX_RECOVERED, Join, Reply, Snapshot
from wsaction._pubsub.reconcile import CHECK_GRACE, CHECK_INTERVAL, MAX_FILL, MAX_READS, Reconciler
from wsaction._pubsub.subscription import Filter, FilteredSubscription, QueueLimits, State, Subscriber, Subscription
from wsaction._pubsub.topic import Rings, Topic
from wsaction._utils.backoff import Backoff
from wsaction._utils.locks import Locks
from wsaction._utils.tasks import Tasks
from wsaction.exceptions import Cancelled, LayerUnavailable
from wsaction.hooks import HookList
from wsaction.layers.base import History, Layer, Position

logger = logging.getLogger("wsaction")

JOIN_TIMEOUT = 10.0  # seconds that a join may take, its snapshot included
LINGER = 2.0  # seconds for which a topic is kept after its last subscriber has left
MAX_PENDING_INVALIDATIONS = 10_000  # topics with a failed publication that wait to be invalidated
PUBLICATIONS_IN_A_ROW = 32  # publications after which the hub lets the event loop run


class Hub:
    """The topics of one process and one event loop, on a layer that the hub opens and closes.

    ``linger``, ``check_interval`` and ``join_timeout`` are in seconds, ``max_fill`` in events. The hub calls the hooks
    about events and the layer; for messages between processes, ``on_event`` alone.
    """

    def __init__(
        self,
        layer: Layer,
        *,
        linger: float = LINGER,
        check_interval: float = CHECK_INTERVAL,
        join_timeout: float = JOIN_TIMEOUT,
        max_fill: int = MAX_FILL,
        max_reads: int = MAX_READS,
        max_recovered: int = MAX_RECOVERED,
        max_pending_invalidations: int = MAX_PENDING_INVALIDATIONS,
        check_grace: float = CHECK_GRACE,
        fanout_chunk: int = CHUNK,
        fanout_seconds: float = SLICE,
        fanout_clock: Callable[[], float] = time.perf_counter,
        rings: Rings | None = None,
        queue_limits: QueueLimits | None = None,
        hooks: HookList | None = None,
    ) -> None:
        self.layer = layer
        self._linger = linger
        self._join_timeout = join_timeout
        self._max_recovered = max_recovered
        self._max_pending = max_pending_invalidations
        self._hooks = hooks or HookList()
        self._has_publish_hooks = self._hooks.has("on_publish", "around_publish")
        self._is_available: bool | None = None  # whether the layer delivers; None: it was not opened yet
        self._context = copy_context()
        self._context.run(current_frame.set, None)
        self._tasks = Tasks(self._context)
        self._fanout = Fanout(
            self._tasks, partial(asyncio.sleep, 0), fanout_clock, chunk=fanout_chunk, seconds=fanout_seconds
        )
        self._reconciler = Reconciler(
            layer,
            self._tasks,
            check_interval=check_interval,
            max_fill=max_fill,
            check_grace=check_grace,
            max_reads=max_reads,
        )
        self._topics: dict[str, Topic] = {}
        self._rings = rings or Rings()
        self._queue_limits = queue_limits or QueueLimits()
        self._joined: dict[Subscriber, dict[tuple[str, str], Subscription]] = {}  # the subscriptions by topic and route
        self._names: dict[Subscriber, str] = {}  # the names of subscribers that have been excluded
        self._pending_invalidation: dict[str, History | None] = {}
        self._invalidating = False
        self._published = 0
        self._is_open = False
        self._is_closed = False
        self._opening = asyncio.Lock()
        self.locks = Locks()  # of objects whose changes are being committed and published

    # ------------------------------------------------------------------------------------------------ opening, closing
    async def open(self) -> None:
        """Opens the layer, unless it is open. Joining and publishing do so too. Raises the layer's exceptions."""
        async with self._opening:
            if not self._is_open:
                await self.layer.open(self)
                self._tasks.start(self._reconciler.check, self._topics)
                self._is_open = True
                self._is_closed = False
                if self._is_available is None:
                    self._is_available = False
                    self._hooks.call("on_layer_state", False)

    async def _ensure_open(self) -> None:
        if self._is_closed:
            raise LayerUnavailable("The server is shutting down.")
        await self.open()

    @property
    def is_closed(self) -> bool:
        """Whether the hub was closed and not opened again."""
        return self._is_closed

    async def close(self) -> None:
        """Ends all subscriptions and tasks, and closes the layer. Joins under way raise ``Cancelled``."""
        async with self._opening:
            self._is_open = False
            self._is_closed = True
            for subscriber in list(self._joined):
                self.leave_all(subscriber)
            for topic in list(self._topics.values()):
                topic.ready.set()  # joins that wait for it go on, and find that they were left
                self._remove_topic(topic)
            await self._tasks.stop()
            for name in self._pending_invalidation:
                _log_missed_invalidation(name, "the server ends before it could send the notice")
            self._pending_invalidation.clear()
            await self.layer.close()

    # ------------------------------------------------------------------------------------------------ the layer's calls
    def subscribed(self, topic: str) -> None:
        """The layer calls this: from now on all events of the topic arrive."""
        if not self._is_available:
            self._is_available = True
            self._hooks.call("on_layer_state", True)
        local_topic = self._topics.get(topic)
        if local_topic is not None and local_topic.confirm():
            self._reconciler.start_reconciling(local_topic)

    def message(self, topic: str, epoch: str, offset: int, body: bytes) -> None:
        """The layer calls this: an event was published."""
        local_topic = self._topics.get(topic)
        if local_topic is not None and local_topic.receive(epoch, offset, body):
            self._reconciler.start_reconciling(local_topic)

    def lost(self) -> None:
        """The layer calls this: no events arrive until the next `subscribed`."""
        if self._is_available:
            self._is_available = False
            self._hooks.call("on_layer_state", False)
        for topic in self._topics.values():
            topic.unconfirm()

    # ------------------------------------------------------------------------------------------------ publishing
    async def publish(
        self,
        topic: str,
        event: str | bytes,
        history: History | None = None,
        *,
        exclude: Subscriber | None = None,
        subject: str | bytes | None = None,
        carried: Mapping[str, str] | None = None,
    ) -> Position | None:
        """Publishes an event, made by ``encode_event``, to all subscribers of the topic in every process.

        ``exclude`` does not get the event. ``subject`` is JSON that only filters see. ``carried`` is what hooks carry
        with it; None: they are asked. Returns the event's position, or None without history. Raises
        ``LayerUnavailable``, whose ``uncertain`` says whether the event may have been published all the same, and
        ``ValueError`` if ``event`` is not one.
        """
        if self._has_publish_hooks and carried is None and not topic.startswith("$"):
            name = event_name(event)
            with self._hooks.around("around_publish", topic, name) as carried:
                position = await self.publish(topic, event, history, exclude=exclude, subject=subject, carried=carried)
            self._hooks.call("on_publish", topic, name)
            return position
        body = encode_body(event, None if exclude is None else self._name_of(exclude), subject, carried)
        if not self._is_open:
            await self._ensure_open()
        position = await self.layer.publish(topic, body, history)
        self._published += 1
        if self._published % PUBLICATIONS_IN_A_ROW == 0:
            await asyncio.sleep(0)
        if (local_topic := self._topics.get(topic)) is not None and local_topic.queue:
            await self._fanout.catch_up(local_topic.queue)
        return position

    async def invalidate(self, topic: str, history: History | None = None) -> None:
        """Sends ``$resync`` to all subscribers of the topic in every process. Raises ``LayerUnavailable``."""
        if not self._is_open:
            await self._ensure_open()
        await self.layer.invalidate(topic, history)

    def invalidate_later(self, topic: str, history: History | None = None) -> None:
        """Invalidates a topic as soon as the layer is available: for changes made whose events were not published."""
        self._hooks.call("on_unpublished", topic)
        pending = self._pending_invalidation
        if self._is_closed:
            _log_missed_invalidation(topic, "the server is shutting down")
        elif len(pending) >= self._max_pending and topic not in pending:
            _log_missed_invalidation(topic, f"{self._max_pending} topics already wait to send it")
        else:
            pending[topic] = history
            if not self._invalidating:
                self._invalidating = True
                self._tasks.start(self._invalidate_pending)

    async def _invalidate_pending(self) -> None:
        backoff = Backoff()
        try:
            while self._pending_invalidation:
                topic, history = next(iter(self._pending_invalidation.items()))
                del self._pending_invalidation[topic]  # before the await: a loss meanwhile adds it again
                try:
                    await self.invalidate(topic, history)
                except (LayerUnavailable, asyncio.CancelledError) as exc:
                    self._pending_invalidation[topic] = history
                    if isinstance(exc, asyncio.CancelledError):
                        raise
                    await asyncio.sleep(backoff.seconds())
                else:
                    backoff.reset()
        finally:
            self._invalidating = False

    def _name_of(self, subscriber: Subscriber) -> str | None:
        """The name by which a publication excludes a subscriber; None for one without subscriptions."""
        if not (subscriptions := self._joined.get(subscriber)):
            return None
        if (name := self._names.get(subscriber)) is None:
            name = self._names[subscriber] = secrets.token_urlsafe(9)
            for each in subscriptions.values():
                for subscription in each.with_replaced:
                    subscription.excluded_as = name
        return name

    # ------------------------------------------------------------------------------------------------ joining, leaving
    async def join(
        self,
        subscriber: Subscriber,
        topic: str,
        route: str,
        *,
        reply: Reply,
        history: History | None = None,
        since: Position | None = None,
        snapshot: Snapshot | None = None,
        filter: Filter | None = None,
        filter_timeout: float = JOIN_TIMEOUT,
    ) -> "Joined":
        """Subscribes: sends the reply, the events missed after ``since``, and from then on live events.

        ``route`` is the route of the events and notices that the subscriber gets. A subscriber may have several
        subscriptions to a topic, each with its own route.

        ``reply(position, recovered, snapshot)`` returns the reply's text. ``recovered`` is None without ``since``,
        otherwise whether all missed events follow. ``snapshot`` is called unless ``recovered`` is true. If ``reply``
        returns None, the caller sends a reply itself, and then calls `Joined.confirm`, or else `Joined.revert`; a new
        subscription is held back until then.

        ``filter`` is called for every event, and cancelled after ``filter_timeout`` seconds.

        If there is such a subscription, it is answered with its position. If it is still joining, or if ``since``,
        ``snapshot`` or its first ``filter`` is given, a new one replaces it instead: the earlier one is held back until
        the new one is answered and confirmed, and goes on if that fails or is reverted.

        Raises ``LayerUnavailable`` after ``join_timeout``, ``Cancelled`` if the subscription was left meanwhile, and
        the exceptions of ``snapshot`` and ``reply``.
        """
        if not self._is_open:
            await self._ensure_open()
        if subscriber.is_closed:
            raise Cancelled("The connection has ended.")
        earlier = self._joined.get(subscriber, {}).get((topic, route))
        is_again = earlier is not None and not earlier.is_joining and since is None and snapshot is None
        if earlier is not None and is_again and (filter is None or earlier.has_filter):
            joined = Joined(self, self._topics[topic], earlier, filter)
            if self._answer(joined.topic, earlier, reply):
                joined.confirm()
            return joined
        if earlier is not None:
            earlier = await self._await_replies(subscriber, topic, route)
        local_topic = self._get_topic(topic, history)
        subscription = self._new_subscription(subscriber, route, filter, filter_timeout)
        subscriptions = self._joined.setdefault(subscriber, {})
        if earlier is not None:
            self._replace(local_topic, earlier, subscription)
        local_topic.joining[subscription] = None
        subscriptions[topic, route] = subscription
        join = Join(self._reconciler, local_topic, subscription, since, snapshot, reply, self._max_recovered)
        try:
            async with asyncio.timeout(self._join_timeout) as deadline:
                await join.run()
        except TimeoutError:
            if not deadline.expired():
                raise  # the timeout is one of the snapshot's
            raise LayerUnavailable("The subscription was not ready in time; try again later.") from None
        finally:
            if subscription.is_joining:
                self.revert(local_topic, subscription)
        gap = join.position if is_again and earlier is not None else None
        joined = Joined(self, local_topic, subscription, is_new=True, gap=gap)
        if join.is_answered:
            joined.replace()
        return joined

    async def _await_replies(self, subscriber: Subscriber, topic: str, route: str) -> Subscription | None:
        """Returns the subscription once it has sent its replies, which have to come before that of its successor."""
        try:
            async with asyncio.timeout(self._join_timeout):
                while (subscription := self._joined.get(subscriber, {}).get((topic, route))) is not None:
                    if not subscription.unsent_replies:
                        break
                    await subscription.send_replies()
        except TimeoutError:
            raise LayerUnavailable("The subscription was not ready in time; try again later.") from None
        if not self._is_open:  # it was closed meanwhile
            await self._ensure_open()
        return subscription

    def _replace(self, topic: Topic, earlier: Subscription, subscription: Subscription) -> None:
        """Holds back what ``subscription`` replaces; if that is not confirmed itself, what that has replaced."""
        if earlier.is_joining or earlier.replaces is not None:
            subscription.replaces = earlier.replaces
            earlier.replaces = None
            topic.remove(earlier)
        else:
            subscription.replaces = earlier
            earlier.hold()

    def drop_replaced(self, topic: Topic, subscription: Subscription) -> None:
        """Ends the subscription that this one has replaced, if there is one."""
        if subscription.replaces is not None:
            topic.remove(subscription.replaces)
            subscription.replaces = None

    def revert(self, topic: Topic, subscription: Subscription) -> None:
        """Ends a subscription, unless it was left; the one that it has replaced goes on."""
        subscriptions, key = self._joined.get(subscription.subscriber, {}), (topic.name, subscription.route)
        if subscriptions.get(key) is not subscription:
            return
        if (earlier := subscription.replaces) is None:
            self.leave(subscription.subscriber, *key)
        else:
            topic.remove(subscription)
            subscriptions[key] = earlier
            self.resume(topic, earlier)

    def answer(self, subscriber: Subscriber, topic: str, route: str, reply: Reply) -> bool:
        """If the subscription is live, sends a reply with its position, behind messages that wait for it.

        Returns whether it is.
        """
        subscription = self._joined.get(subscriber, {}).get((topic, route))
        if subscription is None or subscription.is_joining:
            return False
        self._answer(self._topics[topic], subscription, reply)
        return True

    def _answer(self, topic: Topic, subscription: Subscription, reply: Reply) -> bool:
        """Returns whether ``reply`` has given a text, which is then sent."""
        is_ahead = subscription.state is State.AHEAD
        position = Position(topic.epoch, subscription.cursor) if is_ahead else topic.position
        if (text := reply(position, None, None)) is None:
            return False
        topic.answer(subscription, text)
        return True

    def _get_topic(self, name: str, history: History | None) -> Topic:
        """Returns the topic, created if need be, and keeps it from being removed."""
        topic = self._topics.get(name)
        if topic is None:
            hooks = self._hooks if self._hooks.has("on_event", "around_delivery") else None
            topic = self._topics[name] = Topic(
                name, history, self._fanout, hooks, self._rings, self._queue_limits.max_backlog
            )
            self.layer.subscribe(name)
        elif topic.linger_timer is not None:
            topic.linger_timer.cancel()
            topic.linger_timer = None
        if topic.confirmed and not topic.ready.is_set():
            self._reconciler.start_reconciling(topic)
        return topic

    def _new_subscription(
        self, subscriber: Subscriber, route: str, filter: Filter | None, filter_timeout: float
    ) -> Subscription:
        if filter is None:
            subscription = Subscription(subscriber, route, self._queue_limits)
        else:
            limits = self._queue_limits
            subscription = FilteredSubscription(subscriber, route, limits, filter, self._tasks, filter_timeout)
        subscription.excluded_as = self._names.get(subscriber)
        return subscription

    def subscriptions(self, subscriber: Subscriber) -> list[tuple[str, str]]:
        """The topics and routes of the subscriber's subscriptions, those that are joining included."""
        return list(self._joined.get(subscriber, ()))

    def leave(self, subscriber: Subscriber, topic: str, route: str) -> bool:
        """Ends a subscription: the subscriber gets no more of its events. Returns whether it existed."""
        subscriptions = self._joined.get(subscriber)
        if subscriptions is None or (subscription := subscriptions.pop((topic, route), None)) is None:
            return False
        if not subscriptions:
            del self._joined[subscriber]
        local_topic = self._topics[topic]
        local_topic.remove(subscription)
        self.drop_replaced(local_topic, subscription)
        if local_topic.is_empty and local_topic.linger_timer is None:
            loop = asyncio.get_running_loop()
            local_topic.linger_timer = loop.call_later(
                self._linger, self._remove_topic, local_topic, context=self._context
            )
        return True

    def hold(self, subscriber: Subscriber, topic: str, route: str) -> Callable[[], None]:
        """Holds back the messages of a subscription until the returned function is called.

        For the time in which permissions are checked again, or in which a reply is built that must come first. Then the
        messages are sent, unless the subscription was left meanwhile. If there were too many, `$resync` is sent.
        """
        subscription = self._joined.get(subscriber, {}).get((topic, route))
        if subscription is None:
            return lambda: None
        for each in subscription.with_replaced:
            each.hold()
        return partial(self.resume, self._topics[topic], *subscription.with_replaced)

    def resume(self, topic: Topic, *subscriptions: Subscription) -> None:
        """Ends one `hold` of each subscription."""
        for subscription in subscriptions:
            if subscription.resume():
                topic.resync_one(subscription)

    def confirmed_since(self, topic: str) -> float:
        """When the layer last confirmed the topic, by the loop's clock; 0.0 for a topic that this process lacks.

        All events since then have arrived, until the layer lost its connection.
        """
        local_topic = self._topics.get(topic)
        return local_topic.confirmed_at if local_topic is not None else 0.0

    def resync(self, subscriber: Subscriber, routes: Collection[str] | None) -> None:
        """Sends a subscriber ``$resync`` for its subscriptions under these routes; None: under all routes.

        A subscription that is joining gets none: the events that it collects are complete.
        """
        for (topic, route), subscription in tuple(self._joined.get(subscriber, {}).items()):
            if routes is None or route in routes:
                for each in subscription.with_replaced:
                    self._topics[topic].resync_one(each)

    def leave_all(self, subscriber: Subscriber) -> None:
        """Ends all subscriptions of a subscriber and forgets its name. To be called when its connection has ended."""
        for topic, route in self.subscriptions(subscriber):
            self.leave(subscriber, topic, route)
        self._names.pop(subscriber, None)

    def _remove_topic(self, topic: Topic) -> None:
        if topic.linger_timer is not None:
            topic.linger_timer.cancel()
            topic.linger_timer = None
        topic.close()
        del self._topics[topic.name]
        topic.confirmed = False  # ends its reconciliation
        self.layer.unsubscribe(topic.name)


@dataclass(slots=True)
class Joined:
    """What `Hub.join` has joined: a new subscription, or one that was there already."""

    hub: Hub
    topic: Topic
    subscription: Subscription
    filter: Filter | None = None  # of the subscription that was there already, from now on
    is_new: bool = False
    gap: Position | None = None  # of the reply, if it does not say what came between the subscriptions

    def confirm(self) -> None:
        """The caller has sent the reply. To be called once, and only if it had to."""
        if not self.is_new:
            self.subscription.replace_filter(self.filter)
            return
        self.replace()
        self.hub.resume(self.topic, self.subscription)

    def replace(self) -> None:
        """Ends the subscription that this one replaces. The client is told of what may be missing in between."""
        self.hub.drop_replaced(self.topic, self.subscription)
        if self.gap is not None:
            subscription = self.subscription
            subscription.subscriber.put(encode_notice("$resync", subscription.route, self.gap))

    def revert(self) -> None:
        """The caller has not sent the reply: all is as it was before."""
        if self.is_new:
            self.hub.revert(self.topic, self.subscription)


def _log_missed_invalidation(topic: str, reason: str) -> None:
    logger.error(
        "subscribers of %r get no $resync for events that they missed: %s", topic, reason, extra={"topic": topic}
    )
