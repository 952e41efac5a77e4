"""`SubscribeMixin`: lets clients subscribe to a handler's routes and receive the events published there.

    class BoardHandler(SubscribeMixin, AsyncAPIActionHandler):
        events = {"moved": CardMoved}

        @async_action
        async def move(self, pk: int, data: CardMoved) -> None:
            ...
            await self.publish("moved", data, exclude_self=True)

A client that reconnects subscribes with ``since``, its last position. It gets every event after that, in order and
once. If some of them are lost, it gets none of them, and the reply says ``"recovered": false``.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, Strict

from wsaction._events.access import access_of, check_object, event_filter
from wsaction._events.event_types import EventTypes
from wsaction._events.plan import history
from wsaction._events.publish import check_loop, own_route, session_of
from wsaction._events.reauthorization import Grant, end_subscription
from wsaction._events.subscribe import subscribable_topic, subscribe
from wsaction._handlers.declarations import HookFlags
from wsaction._protocol.awaited import awaited
from wsaction._protocol.scope import SharedTopic
from wsaction._pubsub.subscription import Filter
from wsaction.decorators import async_action
from wsaction.layers.base import Position

__all__ = ("SharedTopic", "Since", "SubscribeMixin")


class Since(BaseModel):
    """The position of a client in a topic: that of its last event, or of the reply to ``subscribe``."""

    epoch: Annotated[str, Strict()]
    offset: Annotated[int, Strict(), Field(ge=0)]


class SubscribeMixin:
    """Adds the actions ``subscribe`` and ``unsubscribe``, for the route that a frame names.

    * ``events``: the events that may be published, by name, with the pydantic model or type of their data. If it is
      empty, any event may be published.
    * ``history_size`` and ``history_ttl``: how many of the newest events are kept for clients that reconnect, and for
      how many seconds after the last one. If either is 0, nothing is kept and events have no offsets.
    * ``history_always``: keep events even if the route has had no subscriber for ``history_ttl`` seconds.
    * ``recheck``: check the permissions of each subscriber again for each event.

    Raises `ImproperlyConfigured` for invalid values when the class is created.
    """

    events: ClassVar[Mapping[str, Any]] = {}
    history_size: ClassVar[int] = 100
    history_ttl: ClassVar[float] = 300
    history_always: ClassVar[bool] = False
    recheck: ClassVar[bool] = False
    shows_presence: ClassVar[bool] = False  # whether subscribers are counted, see `wsaction.presence`
    # Whether a subclass overrides the method that `_hook_flags` names.
    overrides_snapshot: ClassVar[bool] = False
    _hook_flags: ClassVar[HookFlags] = {
        "overrides_snapshot": ("get_snapshot_action",),
    }
    _event_types: ClassVar[EventTypes]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._event_types = EventTypes(f"{cls.__name__}.events", cls.events)
        history(cls)

    @async_action
    @awaited
    async def subscribe(
        self: Any, *args: Any, since: Since | None = None, snapshot: Annotated[bool, Strict()] = False
    ) -> dict[str, Any]:
        """Subscribes the connection to the events of this route.

        :param since: the client's last position. The events after it follow the reply, if all of them are kept.
        :param snapshot: whether the reply carries ``snapshot``, the data of ``list`` or ``retrieve`` on this route.
            Each change is in the snapshot or in a later event. It is left out if all missed events follow.

        The reply's data is ``{"epoch", "offset", "recovered"}``: a position for the next ``since``, and whether all
        missed events follow (null without ``since``). If the client spelled the route in another way, such as
        ``boards/07/``, the data has ``route`` too, the route that its events come under. If this fails where the
        connection is subscribed already, the earlier subscription goes on.

        Another action may call ``await self.subscribe()`` and gets the same data. The events then follow that action's
        reply, or the first item of its stream. If that action fails, the connection is not subscribed. An action that
        overrides this one replies with its return value, or, if that is None, with the data of this one.
        """
        return await subscribe(self, None if since is None else Position(since.epoch, since.offset), snapshot)

    @async_action(status=204)
    @awaited
    async def unsubscribe(self: Any) -> None:
        """Ends the connection's subscription to this route."""
        session = session_of(self)
        check_loop(session)
        end_subscription(session, subscribable_topic(self), own_route(self))

    async def check_subscription(self: Any) -> None:
        """Checks that the client may subscribe to the route. Override it for rules of your own.

        It runs after the permissions of the action, and again whenever they are checked again. On the route of one
        object, a generic handler gets the object as ``retrieve`` does, if its permissions or queryset restrict objects.

        :raises wsaction.exceptions.PermissionDenied: if the client may not subscribe.
        :raises wsaction.exceptions.NotFound: if the object does not exist for the client.
        """
        await check_object(self, access_of(self))

    def get_event_filter(self: Any, grant: Grant) -> Filter | None:
        """Returns the filter of a subscription: what the subscriber gets of each event; None if they get all of it."""
        return event_filter(self, access_of(self), grant)

    _default_hooks: ClassVar = (check_subscription, get_event_filter)

    def get_snapshot_action(self: Any) -> str | None:
        """Returns the action whose data is the snapshot: ``list`` or ``retrieve``; None if the route has neither."""
        return access_of(self).shown_by
