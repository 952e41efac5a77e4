"""Subscribing: a handler's connection joins its topic, and what is told of that.

`subscribe` is the action of `wsaction.subscriptions.SubscribeMixin`. `granted` asks whether it is allowed, `Hub.join`
begins it, and a `_Reply` is sent before its events.
"""

from collections.abc import Awaitable, Callable
from json import loads
from typing import TYPE_CHECKING, Any

from wsaction._events.access import check_key, check_object, event_filter
from wsaction._events.plan import Access, access_of, plan_named
from wsaction._events.publish import hub_of, own_route, own_topic, session_of, topic_at
from wsaction._events.reauthorization import Grant, release, withdraw
from wsaction._handlers.route_table import Call
from wsaction._protocol.frames import AfterReply, Frame, current_frame, encode_reply, new_frame, quote
from wsaction.exceptions import Busy, InvalidParameters, PermissionDenied, RouteNotFound, Throttled
from wsaction.layers.base import Place, Position
from wsaction.permissions._classes import require
from wsaction.throttling import MemoryThrottleStore, Rate
from wsaction.transactions import release_reads

if TYPE_CHECKING:
    from wsaction._dispatch.session import Session
    from wsaction.handlers import AsyncAPIActionHandler
    from wsaction.subscriptions import SubscribeMixin

    class SubscribingHandler(SubscribeMixin, AsyncAPIActionHandler):
        """What the mixin makes of a handler or a consumer."""


__all__ = ("COMINGS", "granted", "subscribe", "topic_to_join")

COMINGS = Rate(20, 10.0)  # how often one connection may come to a topic with presence: 20 times, and 2 more each second
MAX_COMINGS = 1_024  # topics of a connection that this is known of


async def subscribe(handler: "SubscribingHandler", since: Position | None, snapshot: bool) -> dict[str, Any]:
    """Subscribes the connection of a handler to its route; see `wsaction.subscriptions.SubscribeMixin.subscribe`."""
    session, frame, key = session_of(handler), handler.frame, (topic_to_join(handler), own_route(handler))
    hub, connection, access = hub_of(session), session.connection, access_of(handler)
    asked = _snapshot(handler, session) if snapshot else None
    has_key = access.names_object and access.plan.has_objects
    if has_key and (not handler.decides_topic or key[0] == own_topic(handler)):
        check_key(handler, access.plan.lookup)
    grant, access = await granted(handler, access, *key)
    earlier = session.grants.get(key)
    if earlier is None:
        _check_bound(session)
        if handler.shows_presence:
            _slow_down(session, key[0])
    session.grants[key] = grant
    reply, begun, history = _Reply(session, frame, grant, key), False, access.plan.history
    try:
        if session.revised and not await grant.holds():  # since this frame's permissions were asked, perhaps
            if earlier is not None:
                withdraw(session, *key)
            raise PermissionDenied
        begun = True
        decides = handler.decides_event_filter
        told = handler.get_event_filter(grant) if decides else event_filter(handler, access, grant)
        go_on = await hub.join(
            connection,
            *key,
            reply=reply.note,
            history=history,
            since=since,
            snapshot=asked,
            filter=told,
            patience=connection.limits.action_timeout,
        )
        if go_on is None and earlier is not None:
            grant.begun = earlier.begun
        if handler.shows_presence:
            grant.appear(Place(*key, history), earlier)
    finally:
        if not begun and earlier is not None and session.grants.get(key) is grant:
            session.grants[key] = earlier  # it was stopped before anything was begun again
        elif earlier is not None:
            earlier.end()
        if key not in hub.subscriptions(connection):
            release(session, *key)
    return reply.hold(go_on)


def topic_to_join(handler: "SubscribingHandler") -> str:
    """The topic of a handler. Raises `RouteNotFound` for a route that may not be subscribed to."""
    if not handler.frame.call.target.is_topic:
        raise RouteNotFound
    return topic_at(handler)


async def granted(handler: "SubscribingHandler", access: Access, topic: str, route: str) -> tuple[Grant, Access]:
    """The right to be told of a topic, and of who is there. Raises `PermissionDenied`, `NotFound`."""
    frame = handler.frame
    if handler.decides_subscription:
        await require(handler, "check_subscription")
        access = access_of(handler)  # the hook may have set a queryset on the handler
    else:
        await check_object(handler, access)
    grant = Grant(session_of(handler), handler, topic, route, access.shows)
    await grant.check_shown(frame)
    if frame.unit is not None and frame.call.name in ("subscribe", "presence"):
        await release_reads(frame)  # of another action, the objects are still in use
    return grant, access


def _check_bound(session: "Session") -> None:
    most = session.connection.limits.max_subscriptions
    if len(session.grants) >= most:
        raise Busy(
            "This connection is subscribed to as many routes as it may be.",
            {"limit": "max_subscriptions", "value": most},
        )


def _slow_down(session: "Session", topic: str) -> None:
    """Raises `Throttled` for a connection that comes and goes all the time: all who are there are told of it, and their
    history holds nothing else."""
    if session.comings is None:
        session.comings = MemoryThrottleStore(MAX_COMINGS)
    if wait := session.comings.take(topic, COMINGS):
        raise Throttled(wait=wait)


class _Reply:
    """What is told of a subscription: the reply of the frame whose action is ``subscribe``; of any other frame, what
    ``await self.subscribe()`` returns, while the reply is its own action's."""

    __slots__ = ("_answers", "_begun", "_frame", "_go_on", "_grant", "_key", "_session", "_text", "_told")

    def __init__(self, session: "Session", frame: Frame, grant: Grant, key: tuple[str, str]) -> None:
        self._session, self._frame, self._grant, self._key = session, frame, grant, key
        waits = any(work.send_reply for work in frame.held or ())  # another call of this very action
        self._answers = frame.call.name == "subscribe" and frame is current_frame.get() and not waits
        self._go_on: Callable[[], None] | None = None  # None: it was subscribed before
        self._begun = grant.begun
        self._told: tuple[Position, bool | None, str | None] = Position("", 0), None, None
        self._text = ""  # of the reply, where this is it

    def note(self, position: Position, recovered: bool | None, snapshot: str | None) -> None:
        """The hub's: it is about to be subscribed. Raises `PermissionDenied` where the right was lost and the grant
        taken away since it was asked for, `ReplyTooLarge`."""
        if self._key not in self._session.grants:
            raise PermissionDenied
        self._told = position, recovered, snapshot
        if self._answers:
            self._text = self._written(*self._told)
            if len(self._text) > self._session.fast_path_size:
                self._session.check_size(self._text)

    def hold(self, go_on: Callable[[], None] | None) -> dict[str, Any]:
        """It is subscribed; what follows waits for the frame's reply. Returns the reply's data."""
        self._go_on, self._begun = go_on, self._grant.begun
        self._begun.waiting += 1
        data: dict[str, Any] = loads(self._data(*self._told))
        self._frame.hold(AfterReply(self._begin, self._undo, self._answer if self._answers else None, data))
        return data

    def _begin(self) -> None:
        self._begun.is_kept = True
        self._begun.waiting -= 1
        if not self._answers:
            self._session.connection.subscribed(self._key[1], self._frame)
        for go_on in (self._go_on, self._begun.go_on):
            if go_on is not None:
                go_on()
        self._begun.go_on = None

    def _undo(self) -> None:
        """Nothing is left of a subscription whose client was told that the action failed."""
        begun, grant = self._begun, self._session.grants.get(self._key)
        begun.waiting -= 1
        if begun.is_kept:  # another frame has asked for it too
            if self._go_on is not None:
                self._go_on()
        elif begun.waiting:
            begun.go_on = self._go_on or begun.go_on
        elif grant is not None and grant.begun is begun:
            release(self._session, *self._key)

    def _answer(self, own: str | None) -> None:
        """Sends the reply, behind what a subscription that went on has yet to be told. Raises `PermissionDenied` where
        the right was lost meanwhile."""
        session, translate = self._session, self._session.connection.outbox.translate
        if (grant := session.grants.get(self._key)) is None:
            raise PermissionDenied
        if self._go_on is not None and grant.begun is self._begun:
            session.connection.outbox.put(translate(own or self._text, self._frame))
        else:  # with the position of then
            hub_of(session).answer(
                session.connection, *self._key, lambda *told: translate(own or self._written(*told), self._frame)
            )

    def _written(self, position: Position, recovered: bool | None, snapshot: str | None) -> str:
        frame = self._frame
        return encode_reply(frame.call.tail, self._data(position, recovered, snapshot), 200, frame.request_id)

    def _data(self, position: Position, recovered: bool | None, snapshot: str | None) -> str:
        route, told = self._key[1], "null" if recovered is None else "true" if recovered else "false"
        data = f'{{"epoch":{quote(position.epoch)},"offset":{position.offset},"recovered":{told}'
        if route != self._frame.route.partition("?")[0]:
            data += f',"route":{quote(route)}'
        return data + ("}" if snapshot is None else f',"snapshot":{snapshot}}}')


# ------------------------------------------------------------------------------------------------- snapshots
def _snapshot(handler: "SubscribingHandler", session: "Session") -> Callable[[], Awaitable[str]]:
    """What answers the snapshot. Raises `InvalidParameters` where nothing does."""
    name, outer = handler.get_snapshot_action() or "", handler.frame
    if (plan := plan_named(handler.mounted, name)) is None:
        msg = "This route has nothing to take a snapshot of: neither list nor retrieve."
        raise InvalidParameters([{"type": "no_snapshot", "msg": msg, "loc": ["snapshot"]}])
    body = {key: value for key, value in outer.body.items() if key not in ("since", "snapshot", "stream")}

    async def take() -> str:
        frame = new_frame(body, name, outer.route, None)
        frame.consumer, frame.call = outer.consumer, Call(outer.call.target, name, handler.mounted, plan)
        return await session.answer(frame)

    return take
