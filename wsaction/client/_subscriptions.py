"""`Subscription`: the events of one route, once and in order, through lost connections and slow consumers.

`SharedRoute` is what all subscriptions of one route share: the server's subscription, of which a connection has one.
The two are one thing: what a subscription has received decides what its route asks for next.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

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
from wsaction.client.messages import Event, Position, Reply, Resync, position_in

if TYPE_CHECKING:
    from wsaction.client._event_routing import EventRouter
    from wsaction.client._reconnect import ConnectionManager

__all__ = ("SharedRoute", "Subscription", "SubscriptionState")

logger = logging.getLogger("wsaction.client")

SubscriptionState = Literal["joining", "live", "recovering", "closed"]
"""``joining``: the server has not answered yet. ``recovering``: what was missed is being asked for."""


class Subscription:
    """The events of a route: an async context manager that subscribes, and an async iterator of what comes.

    Iterating gives each `Event` once and in order, and a `Resync` wherever something was lost: after a reconnect that
    came too late for the server's history, when the server says so, or where ``since`` could not be honoured. It ends
    when the client is closed, and raises the `ActionError` with which the server refuses to go on (the right to see the
    route was taken away), or `ConnectionFailed`. Events wait for their consumer, at most ``buffer`` characters of them;
    what comes beyond that is asked for again from the server's history, so that a slow consumer keeps nobody waiting.

    Subscriptions of one route share one of the server's, which ends with the last of them. Each has its own position,
    buffer and snapshot.

    ``position`` is that of the last item that was handed out: keep it, and pass it as ``since`` another day.
    ``snapshot`` and ``recovered`` are what the server said on entering; ``recovered`` is None without ``since``.
    """

    def __init__(
        self,
        manager: "ConnectionManager",
        router: "EventRouter",
        route: str,
        *,
        since: Position | None,
        snapshot: bool,
        timeout: float,
        buffer: int,
        backoff: Backoff,
    ) -> None:
        self._manager = manager
        self._router = router
        self._backoff = backoff
        self._max_size = buffer
        self.asked_route = route
        self.wants_snapshot = snapshot
        self.timeout = timeout
        self.position = self.received = since
        self.recovered: bool | None = None
        self.snapshot: Any = None
        self.state: SubscriptionState = "joining"
        self._watchers: list[Callable[[SubscriptionState], None]] = []
        self.shared: SharedRoute | None = None
        self._buffer: Buffer[_QueuedItem] = Buffer()
        self.is_behind = False  # more waits than may; what comes is dropped, and asked for again once there is room
        self.is_lost = False  # whether something was lost that the next answer makes good
        self._entered: asyncio.Future[None] | None = None

    @property
    def route(self) -> str:
        """The route, as its events name it."""
        return self.asked_route.partition("?")[0] if self.shared is None else self.shared.name

    # ------------------------------------------------------------------------------------------------ its life
    async def __aenter__(self) -> "Subscription":
        if self._entered is not None:
            raise RuntimeError(f"this subscription to {self.route!r} was entered before; make a new one")
        self._entered = asyncio.get_running_loop().create_future()
        self.shared = self._router.shared_route(self.route, self._backoff)
        self.shared.add(self)
        try:
            async with asyncio.timeout(self.timeout) as deadline:
                await self._manager.connected()
                self.shared.request_pending(self._manager.connection)
                await self._entered
        except BaseException:
            self.close()
            if deadline.expired():
                raise CallTimeout(f"subscribe {self.asked_route}", self.timeout) from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends it, at once: what waits and what comes is dropped. The last one of a route unsubscribes."""
        self._buffer.end()
        self._buffer.clear()
        self._set_state("closed")
        if self.shared is not None:
            self.shared.leave(self)

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Event | Resync:
        if self._entered is None:  # nothing would ever come
            raise RuntimeError(
                f"this subscription to {self.asked_route!r} was not entered; enter it: "
                f"async with client.subscribe({self.asked_route!r}) as subscription"
            )
        queued = await self._buffer.get()
        self.position = queued.position
        if self.is_behind and not self._buffer and self.shared is not None:
            self.shared.request_pending(self._manager.connection)
        return queued.item

    def on_state(self, watcher: Callable[[SubscriptionState], None]) -> Callable[[], None]:
        """Calls ``watcher`` with each new `SubscriptionState`; returns a function that ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    def _set_state(self, state: SubscriptionState) -> None:
        if state == self.state or self.state == "closed":
            return
        self.state = state
        for watcher in tuple(self._watchers):
            try:
                watcher(state)
            except Exception:  # the subscription must not end by it
                logger.exception("on_state(%r) of %s failed", state, self.asked_route)

    # ------------------------------------------------------------------------------------------------ its route's word
    @property
    def has_entered(self) -> bool:
        """Whether it was answered once."""
        return self._entered is not None and self._entered.done()

    @property
    def is_drained(self) -> bool:
        """Whether nothing waits for the consumer."""
        return not self._buffer

    def end(self, exc: Exception | None = None) -> None:
        """Nothing more comes: because of ``exc``, or because the client is closed."""
        self._buffer.end(exc)
        self._set_state("closed")
        if self._entered is not None and not self._entered.done():
            self._entered.set_exception(exc or ClientError("the client is closed"))
            self._entered.exception()  # it is seen by whoever enters, who may have gone

    def cut(self) -> None:
        """It has to be asked for again: what is known stays."""
        if self.has_entered:
            self._set_state("recovering")

    def joined(self, position: Position, recovered: bool | None, snapshot: Any, size: int) -> None:
        """From here on what comes follows without a hole."""
        since = self.received
        lost = self.is_lost or (since is not None and not recovered)
        self.is_lost = False
        self.is_behind = False
        if since is not None and not lost:  # the position in the reply is the one before what follows
            position = Position(position.epoch, max(position.offset, since.offset))
        self.received = position
        if lost:
            self._put_resync(Resync(position, snapshot), size)
        else:
            self._set_position(position)
        if self._entered is not None and not self._entered.done():
            self.recovered, self.snapshot = recovered, snapshot
            self._entered.set_result(None)
        self._set_state("live")

    def told(self, event: Event, size: int) -> None:
        """An event of its route came."""
        if self.is_behind:
            return
        if self._buffer and self._buffer.size + size > self._max_size:
            self.is_behind = True
            self._set_state("recovering")
        elif event.offset is None:
            self._buffer.put(_QueuedItem(event, self.received), size)
        elif self.received is None or event.offset > self.received.offset:  # else it is known
            self.received = Position(self.received.epoch if self.received else "", event.offset)
            self._buffer.put(_QueuedItem(event, self.received), size)

    def moved(self, position: Position) -> None:
        """Its position is another, without an event."""
        if not self.is_behind:
            self.received = position
            self._set_position(position)

    def missed(self, position: Position) -> None:
        """Something was lost."""
        if self.wants_snapshot:  # what comes until there is a new one is in it, or comes after it
            self.is_lost = True
            self._set_state("recovering")
        elif not self.is_behind:
            self.received = position
            self._put_resync(Resync(position), size=1)

    def _put_resync(self, item: Resync, size: int) -> None:
        """It always fits, as nothing follows it that does not, and one right after another takes its place."""
        last = self._buffer.last
        if last is not None and isinstance(last.item, Resync):
            last.item = item
            last.position = item.position
        else:
            self._buffer.put(_QueuedItem(item, item.position), size)

    def _set_position(self, position: Position) -> None:
        """The position behind the last item that waits is another."""
        if (last := self._buffer.last) is not None:
            last.position = position
        else:
            self.position = position


@dataclass(slots=True)
class _QueuedItem:
    """What waits for the consumer, and the position behind it."""

    item: Event | Resync
    position: Position | None


class SharedRoute:
    """One route that this client is subscribed to, for all of its subscriptions there.

    The server has one subscription of a route for each connection, and a new ``subscribe`` replaces it. So one is asked
    for at a time, for as many subscriptions as it serves: those that are joining, or have to catch up. The others go on
    meanwhile, and drop by its offset what comes to them twice. If the answer's position is later than what one of them
    had, that one catches up next.
    """

    def __init__(self, name: str, manager: "ConnectionManager", router: "EventRouter", backoff: Backoff) -> None:
        self.name = name  # under which its events come
        self._manager = manager
        self._router = router
        self._backoff = backoff
        self._live: dict[Subscription, None] = {}
        self._pending: dict[Subscription, None] = {}  # to be asked for
        self._request: _SubscribeRequest | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._subscribed_as = ""  # with which it is subscribed on this connection; "": it is not
        self._unsubscribing: object | None = None  # the request to unsubscribe that is under way

    @property
    def _subscriptions(self) -> list[Subscription]:
        return [*self._live, *self._pending]

    # ------------------------------------------------------------------------------------------------ who shares it
    def add(self, subscription: Subscription) -> None:
        """One more."""
        self._pending[subscription] = None

    def leave(self, subscription: Subscription) -> None:
        """One fewer; the last one unsubscribes. Until the server has said that it is done, what comes is dropped."""
        if subscription not in self._subscriptions:
            return
        self._live.pop(subscription, None)
        self._pending.pop(subscription, None)
        if self._live or self._pending:
            return
        self._cancel_timers()
        self._request = None
        connection = self._manager.connection
        if connection is None or not self._subscribed_as:  # the server does not know of it
            self._router.remove(self)
            return
        request = self._unsubscribing = _UnsubscribeRequest(self)
        route_text, self._subscribed_as = self._subscribed_as, ""
        connection.ask("unsubscribe", route_text, {}, request)

    def on_unsubscribed(self, request: object) -> None:
        """The server has said that it is unsubscribed."""
        if request is self._unsubscribing:
            self._unsubscribing = None
            if not self._live and not self._pending:
                self._router.remove(self)

    def merge(self, other: "SharedRoute") -> None:
        """Takes over those of another one, which turned out to be the same route."""
        for subscription in other._subscriptions:
            subscription.shared = self
            self._pending[subscription] = None
        self._subscribed_as = self._subscribed_as or other._subscribed_as
        other._live.clear()
        other._pending.clear()
        other._cancel_timers()
        if other._unsubscribing is not None:  # by its own name for it, which ends this one at the server too
            self.on_disconnected()
            self.request_pending(self._manager.connection)

    # ------------------------------------------------------------------------------------------------ asking
    def request_pending(self, connection: Connection | None) -> None:
        """Asks for those that wait, one after the other, if nothing is being asked."""
        for subscription in [*self._live]:
            if subscription.is_lost or (subscription.is_behind and subscription.is_drained):
                self._move_to_pending(subscription)
        if connection is None or self._request is not None or self._retry is not None:
            return
        while self._pending:
            first = next(iter(self._pending))
            if not self._try_join_locally(first):
                self._send_subscribe(connection, first)
                return

    def _move_to_pending(self, subscription: Subscription) -> None:
        self._live.pop(subscription, None)
        self._pending[subscription] = None

    def _try_join_locally(self, subscription: Subscription) -> bool:
        """One that wants no more than what comes from now on needs no word of the server's, once there is one live."""
        positions = [live.received for live in self._live if not live.is_behind and live.received is not None]
        received = max(positions, key=lambda position: position.offset, default=None)
        if received is None or subscription.wants_snapshot or subscription.has_entered:
            return False
        if subscription.received not in (None, received):
            return False
        self._pending.pop(subscription)
        self._live[subscription] = None
        subscription.joined(received, None if subscription.received is None else True, None, 1)
        return True

    def _send_subscribe(self, connection: Connection, first: Subscription) -> None:
        """Subscribes with what the first one needs, and all who need the same."""
        since, route_text = self._since(first), first.asked_route
        if since is None:
            subscriptions = [
                pending
                for pending in self._pending
                if self._since(pending) is None
                and (not pending.wants_snapshot or (first.wants_snapshot and pending.asked_route == route_text))
            ]
        else:  # from the earliest of them, once for all
            positions = {
                pending: position
                for pending in self._pending
                if (position := self._since(pending)) is not None and position.epoch == since.epoch
            }
            subscriptions = [*positions]
            since = min(positions.values(), key=lambda position: position.offset)
            with_snapshot = next((subscription for subscription in subscriptions if subscription.wants_snapshot), first)
            route_text = with_snapshot.asked_route
        wants_snapshot = any(subscription.wants_snapshot for subscription in subscriptions)
        keys: dict[str, Any] = {"snapshot": True} if wants_snapshot else {}
        if since is not None:
            keys["since"] = {"epoch": since.epoch, "offset": since.offset}
        self._request = _SubscribeRequest(self, route_text, wants_snapshot, subscriptions)
        self._subscribed_as = route_text
        timeout = min(subscription.timeout for subscription in subscriptions)
        self._timer = asyncio.get_running_loop().call_later(timeout, self._on_timeout)
        connection.ask("subscribe", route_text, keys, self._request)

    @staticmethod
    def _since(subscription: Subscription) -> Position | None:
        return None if subscription.is_lost else subscription.received

    def _on_timeout(self) -> None:
        """No answer in time: it is asked again, if there is still a connection."""
        self._request = self._timer = None
        self.request_pending(self._manager.connection)

    def on_disconnected(self) -> None:
        """The connection was lost."""
        self._cancel_timers()
        self._request = None
        self._subscribed_as = ""
        self._unsubscribing = None
        for subscription in [*self._live]:
            self._move_to_pending(subscription)
        for subscription in self._pending:
            subscription.cut()
        if not self._pending:
            self._router.remove(self)

    def end(self, exc_for: Callable[[], Exception | None]) -> None:
        """Nothing more comes."""
        self._cancel_timers()
        for subscription in self._subscriptions:
            subscription.end(exc_for())
        self._live.clear()
        self._pending.clear()

    def _cancel_timers(self) -> None:
        for timer in (self._timer, self._retry):
            if timer is not None:
                timer.cancel()
        self._timer = self._retry = None

    # ------------------------------------------------------------------------------------------------ being answered
    def on_reply(self, reply: Reply, request: "_SubscribeRequest") -> None:
        """The server's word on subscribing."""
        if request is not self._request:  # it has been asked again since, or was left
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
                subscription.end(exc)
                self.leave(subscription)
            return
        self._apply_name(reply)._on_subscribed(position, reply, request)

    def _apply_name(self, reply: Reply) -> "SharedRoute":
        """The route under whose name its events come, as the server has said."""
        name = reply.data.get("route") if isinstance(reply.data, dict) else None
        return self._router.rename(self, name) if isinstance(name, str) and name != self.name else self

    def _on_subscribed(self, position: Position, reply: Reply, request: "_SubscribeRequest") -> None:
        recovered, snapshot = reply.data.get("recovered"), reply.data.get("snapshot")
        for subscription in [*self._live]:
            if subscription in request.subscriptions or subscription.is_behind:
                continue
            received = subscription.received
            if received is None or received.epoch != position.epoch or received.offset < position.offset:
                self._move_to_pending(subscription)  # what is between its position and this one may not come any more
        for subscription in request.subscriptions:
            if subscription not in self._pending:
                continue  # it has left
            since = self._since(subscription)
            needs_snapshot = subscription.wants_snapshot and (since is None or not recovered)
            if needs_snapshot and (not request.wants_snapshot or subscription.asked_route != request.route_text):
                subscription.is_lost = subscription.is_lost or since is not None
                continue  # that snapshot is another list's: it is asked for next
            self._pending.pop(subscription)
            self._live[subscription] = None
            subscription.joined(
                position,
                None if since is None else bool(recovered),
                snapshot if subscription.wants_snapshot else None,
                reply.size,
            )
        self.request_pending(self._manager.connection)

    def _on_refused(self, error: ActionError, request: "_SubscribeRequest") -> None:
        """Ends those for whom it was asked, unless they were there before and the server may think better of it."""
        is_full = isinstance(error, Unavailable) and error.ctx.get("limit") in QUEUE_BOUNDS
        may_pass = isinstance(error, (Unavailable, Throttled))
        for subscription in request.subscriptions:
            if not (is_full or (may_pass and subscription.has_entered)):
                self._drop(subscription, action_error(error.status, error.errors, error.action, error.route))
        if may_pass and self._pending:
            wait = self._backoff.seconds() + ((error.retry_after or 0) if isinstance(error, Throttled) else 0)
            logger.info("%s; asking again in %.3g s", error, wait)
            self._retry = asyncio.get_running_loop().call_later(wait, self._on_retry)
        else:
            self.request_pending(self._manager.connection)

    def _on_retry(self) -> None:
        self._retry = None
        self.request_pending(self._manager.connection)

    def _drop(self, subscription: Subscription, exc: Exception) -> None:
        if subscription in self._subscriptions:
            self._pending.pop(subscription, None)
            self._live.pop(subscription, None)
            subscription.end(exc)
        if not self._live:
            self._subscribed_as = ""
        if not self._live and not self._pending:
            self._router.remove(self)

    # ------------------------------------------------------------------------------------------------ being told
    def deliver(self, event: Event, size: int) -> None:
        """An event of its route came."""
        if event.event == "$unsubscribed":
            error = {"type": "permission_denied", "msg": "The right to this was lost after it was subscribed to."}
            if self._live or (self._request is None and self._pending):
                self._request = None
                self._subscribed_as = ""
                self._cancel_timers()
                for subscription in self._subscriptions:
                    self._drop(subscription, PermissionDenied(403, [error], "subscribe", subscription.asked_route))
        elif event.event in ("$position", "$resync"):
            self._on_position_event(event)
        else:
            for subscription in [*self._live]:
                subscription.told(event, size)

    def _on_position_event(self, event: Event) -> None:
        try:
            position = position_in(event.data)
        except UnexpectedReply as exc:
            logger.warning("%s of %s: %s", event.event, event.route, exc)
            return
        for subscription in [*self._live]:
            if event.event == "$position":
                subscription.moved(position)
            else:
                subscription.missed(position)
        self.request_pending(self._manager.connection)


class _SubscribeRequest:
    """The `pacing.ReplyReceiver` of one request to subscribe."""

    def __init__(
        self,
        route: SharedRoute,
        route_text: str,
        wants_snapshot: bool,
        subscriptions: list[Subscription],
    ) -> None:
        self._route = route
        self.route_text = route_text
        self.wants_snapshot = wants_snapshot
        self.subscriptions = subscriptions

    def on_reply(self, reply: Reply) -> None:
        self._route.on_reply(reply, self)

    def on_lost(self, exc: Exception) -> None:
        """It is asked again on the next connection."""


class _UnsubscribeRequest:
    """The `pacing.ReplyReceiver` of one request to unsubscribe."""

    def __init__(self, route: SharedRoute) -> None:
        self._route = route

    def on_reply(self, reply: Reply) -> None:
        if reply.error is not None and reply.status >= 500:  # refused: there is no such subscription any more
            logger.warning("%s", reply.error)
        self._route.on_unsubscribed(self)

    def on_lost(self, exc: Exception) -> None:
        self._route.on_unsubscribed(self)
