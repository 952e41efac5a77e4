"""`Subscription`: the events of one route, each once and in order, across reconnects and slow consumers.

`SharedRoute` is what all subscriptions of a route share: the subscription on the server, one for each connection. The
two are one thing: what each subscription has received decides what its route requests next.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, cast

from typing_extensions import TypeVar  # with a default before Python 3.13

from wsaction._utils.backoff import Backoff
from wsaction.client._buffers import Buffer
from wsaction.client._connection import Connection
from wsaction.client._pacing import QUEUE_BOUNDS
from wsaction.client.errors import (
    ActionError,
    CallTimeout,
    ClientError,
    PermissionDenied,
    Throttled,
    Unavailable,
    UnexpectedReply,
    action_error,
)
from wsaction.client.messages import Event, Kind, Position, Reply, Resync, position_in, validated

if TYPE_CHECKING:
    from wsaction.client._event_routing import EventRouter
    from wsaction.client._reconnect import ConnectionManager

logger = logging.getLogger("wsaction.client")

Snapshot = TypeVar("Snapshot", default=Any)
Data = TypeVar("Data", default=Any)

SubscriptionState = Literal["joining", "live", "recovering", "closed"]
"""The state of a subscription: ``joining`` until the server has answered, ``recovering`` while it catches up."""


class Subscription(Generic[Snapshot, Data]):
    """The events of a route: an async context manager that subscribes, and an async iterator.

    ``Subscription[list[Card], Card]`` has a ``list[Card]`` as snapshot, and events with a ``Card`` as data.

    Iterating yields each `Event` once and in order. It yields a `Resync` where events were lost: if the server's
    history does not reach back to the position before a reconnect or to ``since``, or if the server reports a loss. The
    iteration ends when the client is closed. It raises `ActionError` if the server ends the subscription, for example
    because the user lost the right to see the route, and `ConnectionFailed`.

    At most ``buffer`` characters of events wait for the consumer. Over that, the subscription drops events and later
    requests them from the server's history, so that a slow consumer delays no other.

    Subscriptions of one route share one subscription on the server, which ends with the last of them. Each has its own
    position, buffer and snapshot.

    ``position`` is that of the last item that was yielded; save it, and pass it as ``since`` later. ``snapshot`` and
    ``recovered`` are from the server's reply on entering; ``recovered`` is None without ``since``.
    """

    def __init__(
        self,
        manager: "ConnectionManager",
        router: "EventRouter",
        route: str,
        *,
        since: Position | None,
        snapshot: bool | Kind[Snapshot],
        events: Mapping[str, type[Data]] | None,
        timeout: float,
        buffer: int,
        backoff: Backoff,
    ) -> None:
        self._manager = manager
        self._router = router
        self._backoff = backoff
        self._max_size = buffer
        self._requested_route = route
        self._wants_snapshot = snapshot is not False
        self._snapshot_kind = None if isinstance(snapshot, bool) else snapshot
        self._event_kinds = events
        self._timeout = timeout
        self.position = self._received = since
        self.recovered: bool | None = None
        self.snapshot: Snapshot = cast(Any, None)  # until it is entered
        self._raw_snapshot: Any = None
        self.state: SubscriptionState = "joining"
        self._watchers: list[Callable[[SubscriptionState], None]] = []
        self._shared_route: SharedRoute | None = None
        self._buffer: Buffer[_QueuedItem] = Buffer()
        self._is_behind = False  # the buffer is full: drops events, and requests them again later
        self._is_lost = False  # events were lost, for which the next reply brings a snapshot
        self._entered: asyncio.Future[None] | None = None

    @property
    def route(self) -> str:
        """The canonical route, as in its events."""
        return self._requested_route.partition("?")[0] if self._shared_route is None else self._shared_route.name

    # ------------------------------------------------------------------------------------------------ lifecycle
    async def __aenter__(self) -> Self:
        if self._entered is not None:
            raise RuntimeError(f"this subscription to {self.route!r} was entered before; create a new one")
        self._entered = asyncio.get_running_loop().create_future()
        self._shared_route = self._router.shared_route(self.route, self._backoff)
        self._shared_route.add(self)
        try:
            async with asyncio.timeout(self._timeout) as deadline:
                await self._manager.connected()
                self._shared_route.request_pending(self._manager.connection)
                await self._entered
            self.snapshot = self._validated_snapshot(self._raw_snapshot)
        except BaseException:
            self.close()
            if deadline.expired():
                raise CallTimeout(f"subscribe {self._requested_route}", self._timeout) from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the subscription at once and drops waiting items. The last one of a route unsubscribes on the server."""
        self._buffer.end()
        self._buffer.clear()
        self._set_state("closed")
        if self._shared_route is not None:
            self._shared_route.leave(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event[Data] | Resync[Snapshot]:
        if self._entered is None:  # it would wait for ever
            raise RuntimeError(
                f"this subscription to {self._requested_route!r} was not entered; enter it: "
                f"async with client.subscribe({self._requested_route!r}) as subscription"
            )
        while True:
            queued = await self._buffer.get()
            self.position = queued.position
            if self._is_behind and not self._buffer and self._shared_route is not None:
                self._shared_route.request_pending(self._manager.connection)
            item = queued.item
            if isinstance(item, Resync):
                return Resync(item.position, self._validated_snapshot(item.snapshot))
            if self._event_kinds is None:
                return item
            if (kind := self._event_kinds.get(item.event)) is not None:
                return replace(item, data=validated(item.data, kind, f"the event {item.event} of {item.route}"))

    def _validated_snapshot(self, data: Any) -> Any:
        """A snapshot as the type that was asked for. There is none where nothing was lost since ``since``."""
        if self._snapshot_kind is None or (data is None and self.recovered):
            return data
        return validated(data, self._snapshot_kind, f"the snapshot of {self._requested_route}")

    def on_state(self, watcher: Callable[[SubscriptionState], None]) -> Callable[[], None]:
        """Calls ``watcher`` with each new `SubscriptionState`. Returns a function that removes it."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    def _set_state(self, state: SubscriptionState) -> None:
        if state == self.state or self.state == "closed":
            return
        self.state = state
        for watcher in tuple(self._watchers):
            try:
                watcher(state)
            except Exception:  # a watcher must not break the subscription
                logger.exception("on_state(%r) of %s failed", state, self._requested_route)

    # ------------------------------------------------------------------------------------------------ for its route
    @property
    def _has_entered(self) -> bool:
        """Whether the server has answered once."""
        return self._entered is not None and self._entered.done()

    @property
    def _is_drained(self) -> bool:
        """Whether no item waits for the consumer."""
        return not self._buffer

    def _end(self, exc: Exception | None = None) -> None:
        """Ends the iteration: with ``exc``, or normally if the client is closed."""
        self._buffer.end(exc)
        self._set_state("closed")
        if self._entered is not None and not self._entered.done():
            self._entered.set_exception(exc or ClientError("the client is closed"))
            self._entered.exception()  # mark it as retrieved: the entering task may be gone

    def _on_disconnected(self) -> None:
        """Records that the connection was lost. Waiting items stay."""
        if self._has_entered:
            self._set_state("recovering")

    def _on_subscribed(self, position: Position, recovered: bool | None, snapshot: Any, size: int) -> None:
        """Handles the server's reply: all events after ``position`` will arrive."""
        since = self._received
        lost = self._is_lost or (since is not None and not recovered)
        self._is_lost = False
        self._is_behind = False
        if since is not None and not lost:  # the recovered events follow; it may have some of them
            position = Position(position.epoch, max(position.offset, since.offset))
        self._received = position
        if lost:
            self._put_resync(Resync(position, snapshot), size)
        else:
            self._set_position(position)
        if self._entered is not None and not self._entered.done():
            self.recovered = recovered
            self._raw_snapshot = snapshot
            self._entered.set_result(None)
        self._set_state("live")

    def _on_event(self, event: Event, size: int) -> None:
        """Delivers an event of its route."""
        if self._is_behind:
            return
        if self._buffer and self._buffer.size + size > self._max_size:
            self._is_behind = True
            self._set_state("recovering")
        elif event.offset is None:
            self._buffer.put(_QueuedItem(event, self._received), size)
        elif self._received is None or event.offset > self._received.offset:  # drops duplicates
            self._received = Position(self._received.epoch if self._received else "", event.offset)
            self._buffer.put(_QueuedItem(event, self._received), size)

    def _on_position(self, position: Position) -> None:
        """Moves the position without an event."""
        if not self._is_behind:
            self._received = position
            self._set_position(position)

    def _on_resync(self, position: Position) -> None:
        """Records that events were lost."""
        if self._wants_snapshot:  # later events are in the next snapshot or arrive after it
            self._is_lost = True
            self._set_state("recovering")
        elif not self._is_behind:
            self._received = position
            self._put_resync(Resync(position), size=1)

    def _put_resync(self, item: Resync, size: int) -> None:
        """Adds a `Resync`, even to a full buffer. It replaces a `Resync` right before it."""
        last = self._buffer.last
        if last is not None and isinstance(last.item, Resync):
            last.item = item
            last.position = item.position
        else:
            self._buffer.put(_QueuedItem(item, item.position), size)

    def _set_position(self, position: Position) -> None:
        """Sets the position after the last waiting item, or the current one if none waits."""
        if (last := self._buffer.last) is not None:
            last.position = position
        else:
            self.position = position


@dataclass(slots=True)
class _QueuedItem:
    """An item that waits for the consumer, and the position after it."""

    item: Event | Resync
    position: Position | None


class SharedRoute:
    """A route with all subscriptions of this client to it.

    The server keeps one subscription per route and connection; a new ``subscribe`` replaces it. This class therefore
    sends one ``subscribe`` at a time, for as many subscriptions as possible: those that join and those that catch up.
    The live subscriptions continue meanwhile and drop duplicates by their offsets. If a live subscription is behind the
    reply's position, it catches up next.
    """

    def __init__(self, name: str, manager: "ConnectionManager", router: "EventRouter", backoff: Backoff) -> None:
        self.name = name  # the route in its events
        self._manager = manager
        self._router = router
        self._backoff = backoff
        self._live: dict[Subscription, None] = {}
        self._pending: dict[Subscription, None] = {}  # those for which to send ``subscribe``
        self._request: _SubscribeRequest | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._subscribed_as = ""  # the route of the last ``subscribe`` on this connection; "": not subscribed
        self._unsubscribing: object | None = None  # the ``unsubscribe`` in flight

    @property
    def _subscriptions(self) -> list[Subscription]:
        return [*self._live, *self._pending]

    # ------------------------------------------------------------------------------------------------ members
    def add(self, subscription: Subscription) -> None:
        """Adds a subscription as pending."""
        self._pending[subscription] = None

    def leave(self, subscription: Subscription) -> None:
        """Removes a subscription; the last one unsubscribes. Until the server confirms that, its events are dropped."""
        if subscription not in self._live and subscription not in self._pending:
            return
        self._live.pop(subscription, None)
        self._pending.pop(subscription, None)
        if self._live or self._pending:
            return
        self._cancel_timers()
        self._request = None
        connection = self._manager.connection
        if connection is None or not self._subscribed_as:  # the server has no subscription
            self._router.remove(self)
            return
        request = self._unsubscribing = _UnsubscribeRequest(self)
        route_text, self._subscribed_as = self._subscribed_as, ""
        connection.ask("unsubscribe", route_text, {}, request)

    def on_unsubscribed(self, request: object) -> None:
        """Handles the reply to ``unsubscribe``, or its loss."""
        if request is self._unsubscribing:
            self._unsubscribing = None
            if not self._live and not self._pending:
                self._router.remove(self)

    def merge(self, other: "SharedRoute") -> None:
        """Takes over the subscriptions of ``other``, which turned out to be the same route."""
        for subscription in other._subscriptions:
            subscription._shared_route = self
            self._pending[subscription] = None
        self._subscribed_as = self._subscribed_as or other._subscribed_as
        other._live.clear()
        other._pending.clear()
        other._cancel_timers()
        if other._unsubscribing is not None:  # its ``unsubscribe`` ends this route's subscription on the server too
            self.on_disconnected()
            self.request_pending(self._manager.connection)

    # ------------------------------------------------------------------------------------------------ requests
    def request_pending(self, connection: Connection | None) -> None:
        """Sends ``subscribe`` for pending subscriptions, unless a request or a retry is under way."""
        for subscription in [*self._live]:
            if subscription._is_lost or (subscription._is_behind and subscription._is_drained):
                self._move_to_pending(subscription)
        if self._request is not None:
            self._join_request(self._request)
            return
        if connection is None or self._retry is not None:
            return
        while self._pending:
            first = next(iter(self._pending))
            if not self._try_join_locally(first):
                self._send_subscribe(connection, first)
                return

    def _move_to_pending(self, subscription: Subscription) -> None:
        self._live.pop(subscription, None)
        self._pending[subscription] = None

    def _join_request(self, request: "_SubscribeRequest") -> None:
        """Lets subscriptions that became pending meanwhile share the reply to the request in flight."""
        for pending in self._pending if request.is_from_now else ():
            is_served = not pending._wants_snapshot or (
                request.wants_snapshot and pending._requested_route == request.route_text
            )
            if self._since(pending) is None and is_served and pending not in request.subscriptions:
                request.subscriptions.append(pending)

    def _try_join_locally(self, subscription: Subscription) -> bool:
        """Joins a subscription without a request if it needs only the events of a live one. Returns whether it did."""
        positions = [live._received for live in self._live if not live._is_behind and live._received is not None]
        received = max(positions, key=lambda position: position.offset, default=None)
        if received is None or subscription._wants_snapshot or subscription._has_entered:
            return False
        if subscription._received not in (None, received):
            return False
        self._pending.pop(subscription)
        self._live[subscription] = None
        subscription._on_subscribed(received, None if subscription._received is None else True, None, 1)
        return True

    def _send_subscribe(self, connection: Connection, first: Subscription) -> None:
        """Sends ``subscribe`` for the first subscription and for all others that the same reply can serve."""
        since, route_text = self._since(first), first._requested_route
        if since is None:
            subscriptions = [
                pending
                for pending in self._pending
                if self._since(pending) is None
                and (not pending._wants_snapshot or (first._wants_snapshot and pending._requested_route == route_text))
            ]
        else:  # the earliest position serves all of the same epoch
            positions = {
                pending: position
                for pending in self._pending
                if (position := self._since(pending)) is not None and position.epoch == since.epoch
            }
            subscriptions = [*positions]
            since = min(positions.values(), key=lambda position: position.offset)
            with_snapshot = next(
                (subscription for subscription in subscriptions if subscription._wants_snapshot), first
            )
            route_text = with_snapshot._requested_route
        wants_snapshot = any(subscription._wants_snapshot for subscription in subscriptions)
        keys: dict[str, Any] = {"snapshot": True} if wants_snapshot else {}
        if since is not None:
            keys["since"] = {"epoch": since.epoch, "offset": since.offset}
        self._request = _SubscribeRequest(self, route_text, since is None, wants_snapshot, subscriptions)
        self._subscribed_as = route_text
        timeout = min(subscription._timeout for subscription in subscriptions)
        self._timer = asyncio.get_running_loop().call_later(timeout, self._on_timeout)
        connection.ask("subscribe", route_text, keys, self._request)

    @staticmethod
    def _since(subscription: Subscription) -> Position | None:
        return None if subscription._is_lost else subscription._received

    def _on_timeout(self) -> None:
        """Sends the request again if there is no reply in time."""
        self._request = self._timer = None
        self.request_pending(self._manager.connection)

    def on_disconnected(self) -> None:
        """Makes all subscriptions pending after the connection was lost."""
        self._cancel_timers()
        self._request = None
        self._subscribed_as = ""
        self._unsubscribing = None
        for subscription in [*self._live]:
            self._move_to_pending(subscription)
        for subscription in self._pending:
            subscription._on_disconnected()
        if not self._pending:
            self._router.remove(self)

    def end(self, exc_for: Callable[[], Exception | None]) -> None:
        """Ends all subscriptions, each with its own exception."""
        self._cancel_timers()
        for subscription in self._subscriptions:
            subscription._end(exc_for())
        self._live.clear()
        self._pending.clear()

    def _cancel_timers(self) -> None:
        for timer in (self._timer, self._retry):
            if timer is not None:
                timer.cancel()
        self._timer = self._retry = None

    # ------------------------------------------------------------------------------------------------ replies
    def on_reply(self, reply: Reply, request: "_SubscribeRequest") -> None:
        """Handles the reply to ``subscribe``."""
        if request is not self._request:  # it was sent again since, or all subscriptions have left
            if self._unsubscribing is not None:
                self._apply_name(reply)
            return
        self._cancel_timers()
        self._request = None
        if (error := reply.error) is not None:
            self._on_refused(error, request)
            return
        self._backoff.reset()
        try:
            position = position_in(reply.data)
        except UnexpectedReply as exc:
            for subscription in request.subscriptions:
                subscription._end(exc)
                self.leave(subscription)
            return
        self._apply_name(reply)._on_subscribed(position, reply, request)

    def _apply_name(self, reply: Reply) -> "SharedRoute":
        """Renames the route as the reply says, and returns the route of that name."""
        name = reply.data.get("route") if isinstance(reply.data, dict) else None
        return self._router.rename(self, name) if isinstance(name, str) and name != self.name else self

    def _on_subscribed(self, position: Position, reply: Reply, request: "_SubscribeRequest") -> None:
        recovered, snapshot = reply.data.get("recovered"), reply.data.get("snapshot")
        for subscription in [*self._live]:
            if subscription in request.subscriptions or subscription._is_behind:
                continue
            received = subscription._received
            if received is None or received.epoch != position.epoch or received.offset < position.offset:
                self._move_to_pending(subscription)  # events between its position and the reply's may be missing
        for subscription in request.subscriptions:
            if subscription not in self._pending:
                continue  # it has left meanwhile
            since = self._since(subscription)
            needs_snapshot = subscription._wants_snapshot and (since is None or not recovered)
            if needs_snapshot and (not request.wants_snapshot or subscription._requested_route != request.route_text):
                subscription._is_lost = subscription._is_lost or since is not None
                continue  # the reply has no snapshot for its query: it is served next
            self._pending.pop(subscription)
            self._live[subscription] = None
            subscription._on_subscribed(
                position,
                None if since is None else bool(recovered),
                snapshot if subscription._wants_snapshot else None,
                reply.size,
            )
        self.request_pending(self._manager.connection)

    def _on_refused(self, error: ActionError, request: "_SubscribeRequest") -> None:
        """Ends the subscriptions of a refused request, or retries if the refusal may be temporary.

        If the server's queue is full, all are retried. After `Unavailable` and `Throttled`, only those that were joined
        before are retried.
        """
        is_full = isinstance(error, Unavailable) and error.ctx.get("limit") in QUEUE_BOUNDS
        may_pass = isinstance(error, (Unavailable, Throttled))
        for subscription in request.subscriptions:
            if not (is_full or (may_pass and subscription._has_entered)):
                self._drop(subscription, action_error(error.status, error.errors, error.action, error.route))
        if may_pass and self._pending:
            wait = self._backoff.seconds() + ((error.retry_after or 0) if isinstance(error, Throttled) else 0)
            logger.info("%s; subscribing again in %.3g s", error, wait)
            self._retry = asyncio.get_running_loop().call_later(wait, self._on_retry)
        else:
            self.request_pending(self._manager.connection)

    def _on_retry(self) -> None:
        self._retry = None
        self.request_pending(self._manager.connection)

    def _drop(self, subscription: Subscription, exc: Exception) -> None:
        if subscription in self._pending or subscription in self._live:
            self._pending.pop(subscription, None)
            self._live.pop(subscription, None)
            subscription._end(exc)
        if not self._live:
            self._subscribed_as = ""
        if not self._live and not self._pending:
            self._router.remove(self)

    # ------------------------------------------------------------------------------------------------ events
    def deliver(self, event: Event, size: int) -> None:
        """Delivers an event of this route."""
        if event.event == "$unsubscribed":
            error = {"type": "permission_denied", "msg": "The right to this was lost after it was subscribed to."}
            if self._live or (self._request is None and self._pending):
                self._request = None
                self._subscribed_as = ""
                self._cancel_timers()
                for subscription in self._subscriptions:
                    self._drop(subscription, PermissionDenied(403, [error], "subscribe", subscription._requested_route))
        elif event.event in ("$position", "$resync"):
            self._on_position_event(event)
        else:
            for subscription in [*self._live]:
                subscription._on_event(event, size)

    def _on_position_event(self, event: Event) -> None:
        try:
            position = position_in(event.data)
        except UnexpectedReply as exc:
            logger.warning("%s of %s: %s", event.event, event.route, exc)
            return
        for subscription in [*self._live]:
            if event.event == "$position":
                subscription._on_position(position)
            else:
                subscription._on_resync(position)
        self.request_pending(self._manager.connection)


@dataclass(slots=True, eq=False)
class _SubscribeRequest:
    """The `ReplyReceiver` of a ``subscribe`` request."""

    route: SharedRoute
    route_text: str
    is_from_now: bool  # without ``since``
    wants_snapshot: bool
    subscriptions: list[Subscription]

    def on_reply(self, reply: Reply) -> None:
        self.route.on_reply(reply, self)

    def on_lost(self, exc: Exception) -> None:
        """Does nothing: the route sends it again on the next connection."""


class _UnsubscribeRequest:
    """The `ReplyReceiver` of an ``unsubscribe`` request."""

    def __init__(self, route: SharedRoute) -> None:
        self._route = route

    def on_reply(self, reply: Reply) -> None:
        if reply.error is not None and reply.status >= 500:  # below 500, the server no longer has the subscription
            logger.warning("%s", reply.error)
        self._route.on_unsubscribed(self)

    def on_lost(self, exc: Exception) -> None:
        self._route.on_unsubscribed(self)
