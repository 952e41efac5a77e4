"""Subscribing: a handler's connection joins its topic, and what is told of that.

`subscribe` is the action of `wsaction.subscriptions.SubscribeMixin`. `authorize` asks whether it is allowed, `Hub.join`
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


__all__ = ("COMINGS", "authorize", "subscribable_topic", "subscribe")

COMINGS = Rate(20, 10.0)  # how often one connection may come to a topic with presence: 20 times, and 2 more each second
MAX_RATED_TOPICS = 1_024  # topics of a connection that this is known of


async def subscribe(handler: "SubscribingHandler", since: Position | None, snapshot: bool) -> dict[str, Any]:
    """Subscribes the connection of a handler to its route; see `wsaction.subscriptions.SubscribeMixin.subscribe`."""
    session = session_of(handler)
    key = subscribable_topic(handler), own_route(handler)
    hub, connection, access = hub_of(session), session.connection, access_of(handler)
    take_snapshot = _snapshot(handler, session) if snapshot else None
    has_key = access.names_object and access.plan.has_objects
    if has_key and (not handler.decides_topic or key[0] == own_topic(handler)):
        check_key(handler, access.plan.lookup)
    grant, access = await authorize(handler, access, *key)
    previous = session.grants.get(key)
    if previous is None:
        _check_limit(session)
        if handler.shows_presence:
            _check_join_rate(session, key[0])
    session.grants[key] = grant
    reply = _Reply(session, handler.frame, grant, key)
    history = access.plan.history
    is_joining = False
    try:
        if session.revised and not await grant.holds():  # since this frame's permissions were asked, perhaps
            if previous is not None:
                withdraw(session, *key)
            raise PermissionDenied
        is_joining = True
        if handler.decides_event_filter:
            filter = handler.get_event_filter(grant)
        else:
            filter = event_filter(handler, access, grant)
        resume = await hub.join(
            connection,
            *key,
            reply=reply.note,
            history=history,
            since=since,
            snapshot=take_snapshot,
            filter=filter,
            patience=connection.limits.action_timeout,
        )
        if resume is None and previous is not None:
            grant.state = previous.state
        if handler.shows_presence:
            grant.appear(Place(*key, history), previous)
    finally:
        if not is_joining and previous is not None and session.grants.get(key) is grant:
            session.grants[key] = previous  # it was stopped before anything was begun again
        elif previous is not None:
            previous.end()
        if key not in hub.subscriptions(connection):
            release(session, *key)
    return reply.hold(resume)


def subscribable_topic(handler: "SubscribingHandler") -> str:
    """The topic of a handler. Raises `RouteNotFound` for a route that may not be subscribed to."""
    if not handler.frame.call.target.is_topic:
        raise RouteNotFound
    return topic_at(handler)


async def authorize(handler: "SubscribingHandler", access: Access, topic: str, route: str) -> tuple[Grant, Access]:
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


def _check_limit(session: "Session") -> None:
    limit = session.connection.limits.max_subscriptions
    if len(session.grants) >= limit:
        raise Busy(
            "This connection is subscribed to as many routes as it may be.",
            {"limit": "max_subscriptions", "value": limit},
        )


def _check_join_rate(session: "Session", topic: str) -> None:
    """Raises `Throttled` for a connection that comes and goes all the time: all who are there are told of it, and their
    history holds nothing else."""
    if session.comings is None:
        session.comings = MemoryThrottleStore(MAX_RATED_TOPICS)
    if wait := session.comings.take(topic, COMINGS):
        raise Throttled(wait=wait)


class _Reply:
    """What is told of a subscription: the reply of the frame whose action is ``subscribe``; of any other frame, what
    ``await self.subscribe()`` returns, while the reply is its own action's."""

    __slots__ = ("_frame", "_grant", "_is_reply", "_key", "_outcome", "_resume", "_session", "_state", "_text")

    def __init__(self, session: "Session", frame: Frame, grant: Grant, key: tuple[str, str]) -> None:
        self._session = session
        self._frame = frame
        self._grant = grant
        self._key = key
        waits = any(work.send_reply for work in frame.held or ())  # another call of this very action
        self._is_reply = frame.call.name == "subscribe" and frame is current_frame.get() and not waits
        self._resume: Callable[[], None] | None = None  # None: it was subscribed before
        self._state = grant.state
        self._outcome: tuple[Position, bool | None, str | None] = Position("", 0), None, None
        self._text = ""  # of the reply, where this is it

    def note(self, position: Position, recovered: bool | None, snapshot: str | None) -> None:
        """The hub's: it is about to be subscribed. Raises `PermissionDenied` where the right was lost and the grant
        taken away since it was asked for, `ReplyTooLarge`."""
        if self._key not in self._session.grants:
            raise PermissionDenied
        self._outcome = position, recovered, snapshot
        if self._is_reply:
            self._text = self._encode_reply(*self._outcome)
            if len(self._text) > self._session.fast_path_size:
                self._session.check_size(self._text)

    def hold(self, resume: Callable[[], None] | None) -> dict[str, Any]:
        """It is subscribed; what follows waits for the frame's reply. Returns the reply's data."""
        self._resume = resume
        self._state = self._grant.state
        self._state.waiting += 1
        data: dict[str, Any] = loads(self._encode_data(*self._outcome))
        self._frame.hold(AfterReply(self._begin, self._undo, self._send if self._is_reply else None, data))
        return data

    def _begin(self) -> None:
        self._state.is_confirmed = True
        self._state.waiting -= 1
        if not self._is_reply:
            self._session.connection.subscribed(self._key[1], self._frame)
        for resume in (self._resume, self._state.resume):
            if resume is not None:
                resume()
        self._state.resume = None

    def _undo(self) -> None:
        """Nothing is left of a subscription whose client was told that the action failed."""
        state, grant = self._state, self._session.grants.get(self._key)
        state.waiting -= 1
        if state.is_confirmed:  # another frame has asked for it too
            if self._resume is not None:
                self._resume()
        elif state.waiting:
            state.resume = self._resume or state.resume
        elif grant is not None and grant.state is state:
            release(self._session, *self._key)

    def _send(self, override: str | None) -> None:
        """Sends the reply, behind what a subscription that went on has yet to be told. Raises `PermissionDenied` where
        the right was lost meanwhile."""
        session, outbox = self._session, self._session.connection.outbox
        if (grant := session.grants.get(self._key)) is None:
            raise PermissionDenied
        if self._resume is not None and grant.state is self._state:
            outbox.put(outbox.translate(override or self._text, self._frame))
        else:  # with the position of then
            hub_of(session).answer(
                session.connection,
                *self._key,
                lambda *outcome: outbox.translate(override or self._encode_reply(*outcome), self._frame),
            )

    def _encode_reply(self, position: Position, recovered: bool | None, snapshot: str | None) -> str:
        frame = self._frame
        return encode_reply(frame.call.tail, self._encode_data(position, recovered, snapshot), 200, frame.request_id)

    def _encode_data(self, position: Position, recovered: bool | None, snapshot: str | None) -> str:
        route, flag = self._key[1], "null" if recovered is None else "true" if recovered else "false"
        data = f'{{"epoch":{quote(position.epoch)},"offset":{position.offset},"recovered":{flag}'
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
