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

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, Strict

from wsaction._events.access import check_object, event_filter
from wsaction._events.plan import EventTypes, access_of, history
from wsaction._events.publish import own_route, session_of
from wsaction._events.reauthorization import Grant, release
from wsaction._events.subscribe import COMINGS, subscribable_topic, subscribe
from wsaction._handlers.declarations import HookFlags
from wsaction._protocol.scope import SharedTopic
from wsaction._pubsub.subscription import Filter
from wsaction.decorators import async_action
from wsaction.layers.base import Position

__all__ = ("COMINGS", "SharedTopic", "Since", "SubscribeMixin")


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
    decides_subscription: ClassVar[bool] = False  # the same of check_subscription
    decides_event_filter: ClassVar[bool] = False  # the same of get_event_filter
    _hook_flags: ClassVar[HookFlags] = {
        "decides_snapshot": ("get_snapshot_action",),
        "decides_subscription": ("check_subscription",),
        "decides_event_filter": ("get_event_filter",),
    }
    _event_types: ClassVar[EventTypes]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._event_types = EventTypes(f"{cls.__name__}.events", cls.events)
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
        return await subscribe(self, None if since is None else Position(since.epoch, since.offset), snapshot)

    @async_action(status=204)
    async def unsubscribe(self: Any) -> None:
        """Tells nothing of this route any more."""
        release(session_of(self), subscribable_topic(self), own_route(self))

    async def check_subscription(self: Any) -> None:
        """Raises `PermissionDenied` or `NotFound` where the route that it names may not be subscribed to.

        Asked after the permissions of the action, and whenever they are asked again. Of a generic handler's object it
        asks as ``retrieve`` does, where who may see it has to be asked at all.
        """
        await check_object(self, access_of(self))

    def get_event_filter(self: Any, grant: Grant) -> Filter | None:
        """What a subscriber may see of each event, where that has to be asked; None: all of it."""
        return event_filter(self, access_of(self), grant)

    def get_snapshot_action(self: Any) -> str | None:
        """The action whose answer is the snapshot: ``list`` or ``retrieve``, whichever the route has."""
        return access_of(self).shown_by
