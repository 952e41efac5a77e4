"""`SubscribeMixin`: clients subscribe to a handler's routes, and are told the events that are published there.

    class BoardHandler(SubscribeMixin, AsyncAPIActionHandler):
        events = {"moved": CardMoved}

        @async_action
        async def move(self, pk: int, data: CardMoved) -> None:
            ...
            await self.publish("moved", data, exclude_self=True)

A client that was away subscribes with ``since``, the position that it had, and gets every event after it, in order and
once, or is told that this cannot be had; never a part of them.
"""

from collections.abc import Awaitable, Callable, Mapping
from json import loads
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, Field, Strict

from wsaction._events.access import (
    asks_of_objects,
    check_key,
    event_filter,
    names_object,
    plan_of,
    showing_action,
    showing_calls,
)
from wsaction._events.event_types import EventTypes, history
from wsaction._events.publish import own_route, own_topic, session_of, topic_at
from wsaction._events.reauthorization import Grant, release, withdraw
from wsaction._handlers.route_table import Call
from wsaction._protocol.frames import AfterReply, Frame, current_frame, encode_reply, new_frame, quote
from wsaction._protocol.scope import SharedTopic
from wsaction._pubsub.subscription import Filter
from wsaction.decorators import async_action
from wsaction.exceptions import Busy, InvalidParameters, PermissionDenied, RouteNotFound, Throttled
from wsaction.layers.base import Place, Position
from wsaction.permissions._classes import require
from wsaction.throttling import MemoryThrottleStore, Rate
from wsaction.transactions import release_reads

if TYPE_CHECKING:
    from wsaction._dispatch.session import Session
    from wsaction.handlers import AsyncAPIActionHandler


__all__ = ("COMINGS", "SharedTopic", "Since", "SubscribeMixin")

COMINGS = Rate(20, 10.0)  # how often one connection may come to a topic with presence: 20 times, and 2 more each second
MAX_COMINGS = 1_024  # topics of a connection that this is known of


class Since(BaseModel):
    """The position of the last event that a client had, or of the reply to ``subscribe``."""

    epoch: Annotated[str, Strict()]
    offset: Annotated[int, Strict(), Field(ge=0)]


class SubscribeMixin:
    """Adds ``subscribe`` and ``unsubscribe``, of the route that a frame names.

    ``events`` are those that may be published here, each with the pydantic model or type of its data; where there are
    none, any. ``history_size`` newest events are kept for ``history_ttl`` seconds after the last, for those who come
    back; 0: none, and no offsets. Events of a route that nobody has been subscribed to for ``history_ttl`` seconds are
    not kept, unless ``history_always`` is True. ``recheck``: ask the permissions again at each event.

    What is declared wrongly is refused with `ImproperlyConfigured` when the class is made.
    """

    events: ClassVar[Mapping[str, Any]] = {}
    history_size: ClassVar[int] = 100
    history_ttl: ClassVar[float] = 300
    history_always: ClassVar[bool] = False
    recheck: ClassVar[bool] = False
    shows_presence: ClassVar[bool] = False  # whether subscribers are counted, see `wsaction.presence`
    decides_snapshot: ClassVar[bool] = False  # whether a subclass took over get_snapshot_action
    _event_types: ClassVar[EventTypes]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._event_types = EventTypes(f"{cls.__name__}.events", cls.events)
        cls.decides_snapshot = cls.get_snapshot_action is not SubscribeMixin.get_snapshot_action
        history(cls)

    @async_action
    async def subscribe(
        self: Any, *args: Any, since: Since | None = None, snapshot: Annotated[bool, Strict()] = False
    ) -> dict[str, Any]:
        """Tells the events of this route from now on, and what was missed ``since`` a position.

        The reply's data is ``{"epoch", "offset", "recovered"}``: a position to come back with, and whether all that was
        missed follows (null without ``since``); with ``route``, under which its events come, where it was asked for
        otherwise (``boards/07/``). ``snapshot``: with what ``list`` or ``retrieve`` answers here, such
        that every change is in it or in a later event; not where all that was missed follows.

        Another action may await it, ``await self.subscribe()``, and gets the same data. The events then follow that
        action's reply, or the first item of its stream; where the action fails, nothing is subscribed. An action that
        overrides this one answers what it returns, or as this one where that is None.
        """
        return await _subscribe(self, None if since is None else Position(since.epoch, since.offset), snapshot)

    @async_action(status=204)
    async def unsubscribe(self: Any) -> None:
        """Tells nothing of this route any more."""
        release(session_of(self), _topic(self), own_route(self))

    async def check_subscription(self: Any) -> None:
        """Raises `PermissionDenied` or `NotFound` where the route that it names may not be subscribed to.

        Asked after the permissions of the action, and whenever they are asked again. Of a generic handler's object it
        asks as ``retrieve`` does, where who may see it has to be asked at all.
        """
        if names_object(self) and asks_of_objects(self):
            await self.get_object()

    def get_event_filter(self: Any, grant: Grant) -> Filter | None:
        """What a subscriber may see of each event, where that has to be asked; None: all of it."""
        return event_filter(grant, self.recheck) if self.recheck or asks_of_objects(self) else None

    def get_snapshot_action(self: Any) -> str | None:
        """The action whose answer is the snapshot: ``list`` or ``retrieve``, whichever the route has."""
        return showing_action(self)


if TYPE_CHECKING:

    class SubscribingHandler(SubscribeMixin, AsyncAPIActionHandler):
        """What the mixin makes of a handler or a consumer."""


async def _subscribe(handler: "SubscribingHandler", since: Position | None, snapshot: bool) -> dict[str, Any]:
    session, frame, key = session_of(handler), handler.frame, (_topic(handler), own_route(handler))
    hub, connection = session.runtime.hub, session.connection
    asked = _snapshot(handler) if snapshot else None
    if not handler.decides_topic or key[0] == own_topic(handler):
        check_key(handler)
    grant = await granted(handler, *key)
    _check_bound(session, key)
    if handler.shows_presence and key not in session.grants:
        _slow_down(session, key[0])
    earlier = session.grants.get(key)
    session.grants[key] = grant
    reply, begun = _Reply(session, frame, grant, key), False
    try:
        if session.revised and not await grant.holds():  # since this frame's permissions were asked, perhaps
            if earlier is not None:
                withdraw(session, *key)
            raise PermissionDenied
        begun = True
        go_on = await hub.join(
            connection,
            *key,
            reply=reply.note,
            history=history(handler),
            since=since,
            snapshot=asked,
            filter=handler.get_event_filter(grant),
            patience=grant.patience,
        )
        if go_on is None and earlier is not None:
            grant.begun = earlier.begun
        if handler.shows_presence:
            grant.appear(Place(*key, history(handler)), earlier)
    finally:
        if not begun and earlier is not None and session.grants.get(key) is grant:
            session.grants[key] = earlier  # it was stopped before anything was begun again
        elif earlier is not None:
            earlier.end()
        if key not in hub.subscriptions(connection):
            release(session, *key)
    return reply.hold(go_on)


async def granted(handler: "SubscribingHandler", topic: str, route: str) -> Grant:
    """The right to be told of a topic, and of who is there. Raises `PermissionDenied`, `NotFound`."""
    await require(handler, "check_subscription")
    grant = Grant(session_of(handler), handler, topic, route, showing_calls(handler))
    await grant.check_shown(handler.frame)
    if handler.frame.call.name in ("subscribe", "presence"):  # of another action, the objects are still in use
        await release_reads(handler.frame)
    return grant


def _check_bound(session: "Session", key: tuple[str, str]) -> None:
    most = session.connection.limits.max_subscriptions
    if key not in session.grants and len(session.grants) >= most:
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


def _topic(handler: "SubscribingHandler") -> str:
    if not handler.frame.call.target.is_topic:
        raise RouteNotFound
    return topic_at(handler)


class _Reply:
    """What is told of a subscription: the reply of the frame whose action is ``subscribe``; of any other frame, what
    ``await self.subscribe()`` returns, while the reply is its own action's."""

    __slots__ = ("_answers", "_begun", "_frame", "_go_on", "_grant", "_key", "_session", "_told")

    def __init__(self, session: "Session", frame: Frame, grant: Grant, key: tuple[str, str]) -> None:
        self._session, self._frame, self._grant, self._key = session, frame, grant, key
        waits = any(work.send_reply for work in frame.held or ())  # another call of this very action
        self._answers = frame.call.name == "subscribe" and frame is current_frame.get() and not waits
        self._go_on: Callable[[], None] | None = None  # None: it was subscribed before
        self._begun = grant.begun
        self._told: tuple[Position, bool | None, str | None] = Position("", 0), None, None

    def note(self, position: Position, recovered: bool | None, snapshot: str | None) -> None:
        """The hub's: it is about to be subscribed. Raises `PermissionDenied` where the right was lost and the grant
        taken away since it was asked for, `ReplyTooLarge`."""
        if self._key not in self._session.grants:
            raise PermissionDenied
        self._told = position, recovered, snapshot
        if self._answers:
            self._session.check_size(self._text(*self._told))

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
        session = self._session
        if (grant := session.grants.get(self._key)) is None:
            raise PermissionDenied

        def reply(*told: Any) -> str:
            translated: str = session.connection.outbox.translate(
                self._text(*told) if own is None else own, self._frame
            )
            return translated

        if self._go_on is not None and grant.begun is self._begun:
            session.connection.put(reply(*self._told))
        else:
            session.runtime.hub.answer(session.connection, *self._key, reply)

    def _text(self, position: Position, recovered: bool | None, snapshot: str | None) -> str:
        frame = self._frame
        return encode_reply(frame.call.tail, self._data(position, recovered, snapshot), 200, frame.request_id)

    def _data(self, position: Position, recovered: bool | None, snapshot: str | None) -> str:
        route, told = self._key[1], "null" if recovered is None else "true" if recovered else "false"
        data = f'{{"epoch":{quote(position.epoch)},"offset":{position.offset},"recovered":{told}'
        if route != self._frame.route.partition("?")[0]:
            data += f',"route":{quote(route)}'
        return data + ("}" if snapshot is None else f',"snapshot":{snapshot}}}')


# ------------------------------------------------------------------------------------------------- snapshots
def _snapshot(handler: "SubscribingHandler") -> Callable[[], Awaitable[str]]:
    """What answers the snapshot. Raises `InvalidParameters` where nothing does."""
    name = handler.get_snapshot_action() or ""
    plan = plan_of(handler, name)
    if plan is None:
        msg = "This route has nothing to take a snapshot of: neither list nor retrieve."
        raise InvalidParameters([{"type": "no_snapshot", "msg": msg, "loc": ["snapshot"]}])
    session, outer = session_of(handler), handler.frame
    body = {key: value for key, value in outer.body.items() if key not in ("since", "snapshot", "stream")}

    async def take() -> str:
        frame = new_frame(body, name, outer.route, None)
        frame.consumer, frame.call = outer.consumer, Call(outer.call.target, name, handler.mounted, plan)
        answer: str = await session.answer(frame)
        return answer

    return take
