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
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, Strict

from wsaction.announcements import Announced, history
from wsaction.decorators import async_action
from wsaction.exceptions import Busy, InvalidParameters, PermissionDenied, RouteNotFound
from wsaction.frames import Frame, encode_reply, new_frame, quote
from wsaction.grants import Grant, release, withdraw
from wsaction.layers.base import Place, Position
from wsaction.publishing import own_route, own_topic, session_of
from wsaction.recipients import Filter
from wsaction.routers import lookup_name
from wsaction.tables import Call
from wsaction.visibility import asks_of_objects, check_key, event_filter, plan_of

__all__ = ("Since", "SubscribeMixin")


class Since(BaseModel):
    """The position of the last event that a client had, or of the reply to ``subscribe``."""

    epoch: Annotated[str, Strict()]
    offset: Annotated[int, Strict(), Field(ge=0)]


class SubscribeMixin:
    """Adds ``subscribe`` and ``unsubscribe``, of the route that a frame names.

    ``events`` are those that may be published here, each with the pydantic model or type of its data; where there are
    none, any. ``history_size`` newest events are kept for ``history_ttl`` seconds after the last, for those who come
    back; 0: none, and no offsets. ``recheck``: ask the permissions again at each event.

    What is declared wrongly is refused with `ImproperlyConfigured` when the class is made.
    """

    events: ClassVar[Mapping[str, Any]] = {}
    history_size: ClassVar[int] = 100
    history_ttl: ClassVar[float] = 300
    recheck: ClassVar[bool] = False
    shows_presence: ClassVar[bool] = False  # whether subscribers are counted, see `wsaction.presence`
    decides_snapshot: ClassVar[bool] = False  # whether a subclass took over get_snapshot_action
    _announced: ClassVar[Announced]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._announced = Announced(f"{cls.__name__}.events", cls.events)
        cls.decides_snapshot = cls.get_snapshot_action is not SubscribeMixin.get_snapshot_action
        history(cls)

    @property
    def announced(self) -> Announced:
        """Its events, ready to be encoded."""
        cls = type(self)
        return cls._announced if self.events is cls.events else Announced(f"{cls.__name__}.events", self.events)

    @async_action(mode="none")
    async def subscribe(
        self: Any, *args: Any, since: Since | None = None, snapshot: Annotated[bool, Strict()] = False
    ) -> None:
        """Tells the events of this route from now on, and what was missed ``since`` a position.

        The reply's data is ``{"epoch", "offset", "recovered"}``: a position to come back with, and whether all that was
        missed follows (null without ``since``); with ``route``, under which its events come, where it was asked for
        otherwise (``boards/07/``). ``snapshot``: with what ``list`` or ``retrieve`` answers here, such
        that every change is in it or in a later event; not where all that was missed follows.
        """
        await _subscribe(self, None if since is None else Position(since.epoch, since.offset), snapshot)

    @async_action(status=204)
    async def unsubscribe(self: Any) -> None:
        """Tells nothing of this route any more."""
        release(session_of(self), _topic(self))

    async def check_subscription(self: Any) -> None:
        """Raises `PermissionDenied` or `NotFound` where the route that it names may not be subscribed to.

        Asked after the permissions of the action, and whenever they are asked again. Of a generic handler's object it
        asks as ``retrieve`` does, where who may see it has to be asked at all.
        """
        if asks_of_objects(self) and _names_object(self):
            await self.get_object()

    def get_event_filter(self: Any, grant: Grant) -> Filter | None:
        """What a subscriber may see of each event, where that has to be asked; None: all of it."""
        return event_filter(grant, self.recheck) if self.recheck or asks_of_objects(self) else None

    def get_snapshot_action(self: Any) -> str | None:
        """The action whose answer is the snapshot: ``list`` or ``retrieve``, whichever the route has."""
        known = [name for name in ("list", "retrieve") if plan_of(self, name) is not None]
        if len(known) == 2:
            return "retrieve" if _names_object(self) else "list"
        return known[0] if known else None


def _names_object(handler: Any) -> bool:
    """Whether the route is that of one object."""
    return lookup_name(handler) in handler.kwargs


async def _subscribe(handler: Any, since: Position | None, snapshot: bool) -> None:
    session, frame, topic = session_of(handler), handler.frame, _topic(handler)
    hub, connection = session.runtime.hub, session.connection
    asked = _snapshot(handler) if snapshot else None
    if topic == own_topic(handler):
        check_key(handler)
    await handler.check_subscription()
    _check_bound(session, topic)
    earlier, grant = session.grants.get(topic), Grant(session, handler, topic, own_route(handler))
    session.grants[topic] = grant
    begun = False
    try:
        if session.revised and not await grant.holds():  # since this frame's permissions were asked, perhaps
            if earlier is not None:
                withdraw(session, topic, grant.route)
            raise PermissionDenied
        begun = True
        await hub.join(
            connection,
            topic,
            grant.route,
            reply=partial(_reply, session, frame, topic),
            history=history(handler),
            since=since,
            snapshot=asked,
            filter=handler.get_event_filter(grant),
            patience=grant.patience,
        )
        if handler.shows_presence:
            grant.appear(Place(topic, grant.route, history(handler)), earlier)
    finally:
        if not begun and earlier is not None and session.grants.get(topic) is grant:
            session.grants[topic] = earlier  # it was stopped before anything was begun again
        elif earlier is not None:
            earlier.end()
        if topic not in hub.topics(connection):
            release(session, topic)


def _check_bound(session: Any, topic: str) -> None:
    most = session.connection.limits.max_subscriptions
    if topic not in session.grants and len(session.grants) >= most:
        raise Busy(
            "This connection is subscribed to as many routes as it may be.",
            {"limit": "max_subscriptions", "value": most},
        )


def _topic(handler: Any) -> str:
    if not handler.frame.call.target.is_topic:
        raise RouteNotFound
    topic: str = handler.get_topic()
    return topic


def _reply(
    session: Any, frame: Frame, topic: str, position: Position, recovered: bool | None, snapshot: str | None
) -> str:
    """The reply to ``subscribe``; the hub sends it, so that nothing comes between it and what follows.

    Raises `PermissionDenied` where the right was lost and the grant taken away since it was asked for.
    """
    if topic not in session.grants:
        raise PermissionDenied
    route: str = session.grants[topic].route
    told = "null" if recovered is None else "true" if recovered else "false"
    data = f'{{"epoch":{quote(position.epoch)},"offset":{position.offset},"recovered":{told}'
    if route != frame.route.partition("?")[0]:
        data += f',"route":{quote(route)}'
    data += "}" if snapshot is None else f',"snapshot":{snapshot}}}'
    reply = encode_reply(frame.call.tail, data, 200, frame.request_id)
    session.check_size(reply)
    frame.answered = True
    worded: str = session.connection.outbox.word(reply, frame)
    return worded


# ------------------------------------------------------------------------------------------------- snapshots
def _snapshot(handler: Any) -> Callable[[], Awaitable[str]]:
    """What answers the snapshot. Raises `InvalidParameters` where nothing does."""
    name = handler.get_snapshot_action()
    plan = None if name is None else plan_of(handler, name)
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
