"""`Subscription`: the events of one route, once and in order, through lost connections and slow consumers.

`SharedRoute` is what all subscriptions of one route share: the server's subscription, of which a connection has one.
The two are one thing: what a subscription has received decides what its route asks for next.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol

from wsaction._utils.backoff import Backoff
from wsaction.client._buffers import Buffer
from wsaction.client._connection import Link
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

__all__ = ("Line", "Registry", "SharedRoute", "Subscription", "SubscriptionState")

logger = logging.getLogger("wsaction.client")

SubscriptionState = Literal["joining", "live", "recovering", "closed"]
"""``joining``: the server has not answered yet. ``recovering``: what was missed is being asked for."""


class Line(Protocol):
    """What a subscription asks of the connection."""

    @property
    def link(self) -> Link | None:
        """The connection, while there is one."""

    async def connected(self) -> Link:
        """The connection; waits for it."""


class Registry(Protocol):
    """Who tells routes of their events, and of each new connection."""

    def route(self, name: str, backoff: Backoff) -> "SharedRoute":
        """The route of that name; a new one where nobody is subscribed to it."""

    def rename(self, route: "SharedRoute", name: str) -> "SharedRoute":
        """Its events come under another name. Returns the one that has that name already, or the same."""

    def remove(self, route: "SharedRoute") -> None:
        """Tells it nothing any more."""


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
        line: Line,
        registry: Registry,
        route: str,
        *,
        since: Position | None,
        snapshot: bool,
        timeout: float,
        buffer: int,
        backoff: Backoff,
    ) -> None:
        self._line, self._registry, self._backoff = line, registry, backoff
        self.asked_route, self.wants_snapshot = route, snapshot
        self.timeout, self._most = timeout, buffer
        self.position = self.received = since
        self.recovered: bool | None = None
        self.snapshot: Any = None
        self.state: SubscriptionState = "joining"
        self._watchers: list[Callable[[SubscriptionState], None]] = []
        self.shared: SharedRoute | None = None
        self._buffer: Buffer[_Waiting] = Buffer()
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
        self.shared = self._registry.route(self.route, self._backoff)
        self.shared.add(self)
        try:
            async with asyncio.timeout(self.timeout) as deadline:
                await self._line.connected()
                self.shared.look(self._line.link)
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
        self._tell("closed")
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
        waiting = await self._buffer.get()
        self.position = waiting.position
        if self.is_behind and not self._buffer and self.shared is not None:
            self.shared.look(self._line.link)
        return waiting.item

    def on_state(self, watcher: Callable[[SubscriptionState], None]) -> Callable[[], None]:
        """Calls ``watcher`` with each new `SubscriptionState`; returns a function that ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    def _tell(self, state: SubscriptionState) -> None:
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
        self._tell("closed")
        if self._entered is not None and not self._entered.done():
            self._entered.set_exception(exc or ClientError("the client is closed"))
            self._entered.exception()  # it is seen by whoever enters, who may have gone

    def cut(self) -> None:
        """It has to be asked for again: what is known stays."""
        if self.has_entered:
            self._tell("recovering")

    def joined(self, position: Position, recovered: bool | None, snapshot: Any, size: int) -> None:
        """From here on what comes follows without a hole."""
        since = self.received
        lost, self.is_lost = self.is_lost or (since is not None and not recovered), False
        self.is_behind = False
        if since is not None and not lost:  # the position in the reply is the one before what follows
            position = Position(position.epoch, max(position.offset, since.offset))
        self.received = position
        if lost:
            self._keep_resync(Resync(position, snapshot), size)
        else:
            self._moved(position)
        if self._entered is not None and not self._entered.done():
            self.recovered, self.snapshot = recovered, snapshot
            self._entered.set_result(None)
        self._tell("live")

    def told(self, event: Event, size: int) -> None:
        """An event of its route came."""
        if self.is_behind:
            return
        if self._buffer and self._buffer.size + size > self._most:
            self.is_behind = True
            self._tell("recovering")
        elif event.offset is None:
            self._buffer.put(_Waiting(event, self.received), size)
        elif self.received is None or event.offset > self.received.offset:  # else it is known
            self.received = Position(self.received.epoch if self.received else "", event.offset)
            self._buffer.put(_Waiting(event, self.received), size)

    def moved(self, position: Position) -> None:
        """Its position is another, without an event."""
        if not self.is_behind:
            self.received = position
            self._moved(position)

    def missed(self, position: Position) -> None:
        """Something was lost."""
        if self.wants_snapshot:  # what comes until there is a new one is in it, or comes after it
            self.is_lost = True
            self._tell("recovering")
        elif not self.is_behind:
            self.received = position
            self._keep_resync(Resync(position), size=1)

    def _keep_resync(self, item: Resync, size: int) -> None:
        """It always fits, as nothing follows it that does not, and one right after another takes its place."""
        last = self._buffer.last
        if last is not None and isinstance(last.item, Resync):
            last.item, last.position = item, item.position
        else:
            self._buffer.put(_Waiting(item, item.position), size)

    def _moved(self, position: Position) -> None:
        """The position behind the last item that waits is another."""
        if (last := self._buffer.last) is not None:
            last.position = position
        else:
            self.position = position


@dataclass(slots=True)
class _Waiting:
    """What waits for the consumer, and the position behind it."""

    item: Event | Resync
    position: Position | None


class SharedRoute:
    """One route that this client is subscribed to, for all of its subscriptions there.

    The server has one subscription of a route for each connection, and a new ``subscribe`` replaces it. So one is asked
    for at a time (`_Ask`), for as many subscriptions as it serves: those that are joining, or have to catch up. The
    others go on meanwhile, and drop by its offset what comes to them twice. If the answer's position is later than what
    one of them had, that one catches up next.
    """

    def __init__(self, name: str, line: Line, registry: Registry, backoff: Backoff) -> None:
        self.name = name  # under which its events come
        self._line, self._registry, self._backoff = line, registry, backoff
        self._live: dict[Subscription, None] = {}
        self._waiting: dict[Subscription, None] = {}  # to be asked for
        self._asking: _Ask | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._asked_route = ""  # with which it is subscribed on this connection; "": it is not
        self._leaving: object | None = None  # the request to unsubscribe that is under way

    @property
    def _all(self) -> list[Subscription]:
        return [*self._live, *self._waiting]

    # ------------------------------------------------------------------------------------------------ who shares it
    def add(self, subscription: Subscription) -> None:
        """One more."""
        self._waiting[subscription] = None

    def leave(self, subscription: Subscription) -> None:
        """One fewer; the last one unsubscribes. Until the server has said that it is done, what comes is dropped."""
        known = self._live.keys() | self._waiting.keys()
        self._live.pop(subscription, None)
        self._waiting.pop(subscription, None)
        if subscription not in known or self._live or self._waiting:
            return
        self._settle()
        self._asking = None
        link = self._line.link
        if link is None or not self._asked_route:  # the server does not know of it
            self._registry.remove(self)
            return
        leaving = self._leaving = _Leaving(self)
        asked, self._asked_route = self._asked_route, ""
        link.ask("unsubscribe", asked, {}, leaving)

    def left(self, leaving: object) -> None:
        """The server has said that it is unsubscribed."""
        if leaving is self._leaving:
            self._leaving = None
            if not self._live and not self._waiting:
                self._registry.remove(self)

    def adopt(self, other: "SharedRoute") -> None:
        """Takes over those of another one, which turned out to be the same route."""
        for subscription in other._all:
            subscription.shared = self
            self._waiting[subscription] = None
        self._asked_route = self._asked_route or other._asked_route
        other._live.clear()
        other._waiting.clear()
        other._settle()
        if other._leaving is not None:  # by its own name for it, which ends this one at the server too
            self.cut()
            self.look(self._line.link)

    # ------------------------------------------------------------------------------------------------ asking
    def look(self, link: Link | None) -> None:
        """Asks for those that wait, one after the other, if nothing is being asked."""
        for subscription in [one for one in self._live if one.is_lost or (one.is_behind and one.is_drained)]:
            self._wait(subscription)
        if link is None or self._asking is not None or self._retry is not None:
            return
        while self._waiting:
            first = next(iter(self._waiting))
            if not self._join_at_once(first):
                self._ask(link, first)
                return

    def _wait(self, subscription: Subscription) -> None:
        self._live.pop(subscription, None)
        self._waiting[subscription] = None

    def _join_at_once(self, subscription: Subscription) -> bool:
        """One that wants no more than what comes from now on needs no word of the server's, once there is one live."""
        known = [one.received for one in self._live if not one.is_behind and one.received is not None]
        received = max(known, key=lambda position: position.offset, default=None)
        if received is None or subscription.wants_snapshot or subscription.has_entered:
            return False
        if subscription.received not in (None, received):
            return False
        self._waiting.pop(subscription)
        self._live[subscription] = None
        subscription.joined(received, None if subscription.received is None else True, None, 1)
        return True

    def _ask(self, link: Link, first: Subscription) -> None:
        """Subscribes with what the first one needs, and all who need the same."""
        since, asked = self._since(first), first.asked_route
        concerned = [first]
        if since is not None:  # from the earliest of them, once for all
            others = [one for one in self._waiting if one is not first and self._since(one) is not None]
            same = [one for one in others if self._since(one).epoch == since.epoch]  # type: ignore[union-attr]
            concerned += same
            since = min((self._since(one) for one in concerned), key=lambda one: one.offset)  # type: ignore[union-attr]
            with_snapshot = next((one for one in concerned if one.wants_snapshot), None)
            asked = asked if with_snapshot is None else with_snapshot.asked_route
        else:
            concerned += [
                one
                for one in self._waiting
                if one is not first
                and self._since(one) is None
                and (not one.wants_snapshot or (first.wants_snapshot and one.asked_route == asked))
            ]
        wants_snapshot = any(one.wants_snapshot for one in concerned)
        keys: dict[str, Any] = {"snapshot": True} if wants_snapshot else {}
        if since is not None:
            keys["since"] = {"epoch": since.epoch, "offset": since.offset}
        self._asking = _Ask(self, asked, wants_snapshot, since, concerned)
        self._asked_route = asked
        timeout = min(one.timeout for one in concerned)
        self._timer = asyncio.get_running_loop().call_later(timeout, self._late)
        link.ask("subscribe", asked, keys, self._asking)

    @staticmethod
    def _since(subscription: Subscription) -> Position | None:
        return None if subscription.is_lost else subscription.received

    def _late(self) -> None:
        """No answer in time: it is asked again, if there is still a connection."""
        self._asking = self._timer = None
        self.look(self._line.link)

    def cut(self) -> None:
        """The connection was lost."""
        self._settle()
        self._asking, self._asked_route, self._leaving = None, "", None
        for subscription in [*self._live]:
            self._wait(subscription)
        for subscription in self._waiting:
            subscription.cut()
        if not self._waiting:
            self._registry.remove(self)

    def end(self, exc_for: Callable[[], Exception | None]) -> None:
        """Nothing more comes."""
        self._settle()
        for subscription in self._all:
            subscription.end(exc_for())
        self._live.clear()
        self._waiting.clear()

    def _settle(self) -> None:
        for timer in (self._timer, self._retry):
            if timer is not None:
                timer.cancel()
        self._timer = self._retry = None

    # ------------------------------------------------------------------------------------------------ being answered
    def answered(self, reply: Reply, ask: "_Ask") -> None:
        """The server's word on subscribing."""
        if ask is not self._asking:  # it has been asked again since, or was left
            if self._leaving is not None:
                self._named(reply)
            return
        self._settle()
        self._asking = None
        if (error := reply.error) is not None:
            self._refused(error, ask)
            return
        self._backoff.reset()
        try:
            position = position_in(reply.data)
        except UnexpectedReply as exc:
            for one in ask.concerned:
                one.end(exc)
                self.leave(one)
            return
        self._named(reply)._joined(position, reply, ask)

    def _named(self, reply: Reply) -> "SharedRoute":
        """The route under whose name its events come, as the server has said."""
        name = reply.data.get("route") if isinstance(reply.data, dict) else None
        return self._registry.rename(self, name) if isinstance(name, str) and name != self.name else self

    def _joined(self, position: Position, reply: Reply, ask: "_Ask") -> None:
        recovered, snapshot = reply.data.get("recovered"), reply.data.get("snapshot")
        for one in [one for one in self._live if one not in ask.concerned and not one.is_behind]:
            if one.received is None or one.received.epoch != position.epoch or one.received.offset < position.offset:
                self._wait(one)  # what is between its position and this one may not come any more
        for one in ask.concerned:
            if one not in self._waiting:
                continue  # it has left
            since = self._since(one)
            needs_snapshot = one.wants_snapshot and (since is None or not recovered)
            if needs_snapshot and (not ask.wants_snapshot or one.asked_route != ask.asked):
                one.is_lost = one.is_lost or since is not None
                continue  # that snapshot is another list's: it is asked for next
            self._waiting.pop(one)
            self._live[one] = None
            own = snapshot if one.wants_snapshot else None
            one.joined(position, None if since is None else bool(recovered), own, reply.size)
        self.look(self._line.link)

    def _refused(self, error: ActionError, ask: "_Ask") -> None:
        """Ends those for whom it was asked, unless they were there before and the server may think better of it."""
        is_full = isinstance(error, Unavailable) and error.ctx.get("limit") in QUEUE_BOUNDS
        may_pass = isinstance(error, (Unavailable, Throttled))
        for one in ask.concerned:
            if not (is_full or (may_pass and one.has_entered)):
                self._drop([one], action_error(error.status, error.errors, error.action, error.route))
        if may_pass and self._waiting:
            wait = self._backoff.seconds() + ((error.retry_after or 0) if isinstance(error, Throttled) else 0)
            logger.info("%s; asking again in %.3g s", error, wait)
            self._retry = asyncio.get_running_loop().call_later(wait, self._ask_again)
        else:
            self.look(self._line.link)

    def _ask_again(self) -> None:
        self._retry = None
        self.look(self._line.link)

    def _drop(self, subscriptions: Iterable[Subscription], exc: Exception) -> None:
        for one in subscriptions:
            if one in self._waiting or one in self._live:
                self._waiting.pop(one, None)
                self._live.pop(one, None)
                one.end(exc)
        if not self._live:
            self._asked_route = ""
        if not self._live and not self._waiting:
            self._registry.remove(self)

    # ------------------------------------------------------------------------------------------------ being told
    def told(self, event: Event, size: int) -> None:
        """An event of its route came."""
        if event.event == "$unsubscribed":
            lost = {"type": "permission_denied", "msg": "The right to this was lost after it was subscribed to."}
            if self._live or (self._asking is None and self._waiting):
                self._asking, self._asked_route = None, ""
                self._settle()
                for one in self._all:
                    self._drop([one], PermissionDenied(403, [lost], "subscribe", one.asked_route))
        elif event.event in ("$position", "$resync"):
            self._notice(event)
        else:
            for one in [*self._live]:
                one.told(event, size)

    def _notice(self, event: Event) -> None:
        try:
            position = position_in(event.data)
        except UnexpectedReply as exc:
            logger.warning("%s of %s: %s", event.event, event.route, exc)
            return
        for one in [*self._live]:
            if event.event == "$position":
                one.moved(position)
            else:
                one.missed(position)
        self.look(self._line.link)


class _Ask:
    """The `pacing.Asker` of one request to subscribe."""

    def __init__(
        self,
        route: SharedRoute,
        asked: str,
        wants_snapshot: bool,
        since: Position | None,
        concerned: list[Subscription],
    ) -> None:
        self._route = route
        self.asked, self.wants_snapshot, self.since, self.concerned = asked, wants_snapshot, since, concerned

    def reply(self, reply: Reply) -> None:
        self._route.answered(reply, self)

    def lost(self, exc: Exception) -> None:
        """It is asked again on the next connection."""


class _Leaving:
    """The `pacing.Asker` of one request to unsubscribe."""

    def __init__(self, route: SharedRoute) -> None:
        self._route = route

    def reply(self, reply: Reply) -> None:
        if reply.error is not None and reply.status >= 500:  # refused: there is no such subscription any more
            logger.warning("%s", reply.error)
        self._route.left(self)

    def lost(self, exc: Exception) -> None:
        self._route.left(self)
