"""Reauthorization: checks the permissions of a subscription, a stream or a connection again while it lasts."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import copy
from typing import TYPE_CHECKING, Any, cast

from wsaction._events.publish import topic_at
from wsaction._protocol.event_frames import encode_event
from wsaction._protocol.frames import Frame, current_frame, new_frame
from wsaction._utils.tasks import is_being_cancelled
from wsaction.exceptions import APIError, Cancelled, PermissionDenied
from wsaction.layers.base import Place
from wsaction.permissions._classes import compile_permissions, raise_refusal, require
from wsaction.transactions import complete, roll_back

if TYPE_CHECKING:
    from wsaction._dispatch.session import Session
    from wsaction.generics import GenericAsyncAPIActionHandler
    from wsaction.handlers import AsyncAPIActionHandler

logger = logging.getLogger("wsaction")


class Right:
    """The right to continue a call: checks its permissions again, for the connection's current user."""

    __slots__ = ("_body", "_call", "_session")

    def __init__(self, session: "Session", call: Any, body: dict[str, Any]) -> None:
        self._session = session
        self._call = call
        self._body = body

    @property
    def label(self) -> str:
        """Its name in the log."""
        return f"a stream of {self._call.target.route!r}"

    async def still_holds(self) -> bool:
        """As `holds`, but False if the check fails or takes longer than ``action_timeout`` seconds."""
        try:
            async with asyncio.timeout(self._session.connection.limits.action_timeout):
                return await self.holds()
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError) and is_being_cancelled():
                raise
            logger.exception("the permissions of %s could not be checked", self.label)
            return False

    async def holds(self) -> bool:
        """Whether the call would be allowed now. Raises errors that are no refusal."""
        try:
            return await self._check()
        except APIError as exc:
            if exc.status >= 500:
                raise
            return False

    async def _check(self) -> bool:
        async with self.handler() as handler:
            return await self._allows(handler)

    async def _allows(self, handler: "AsyncAPIActionHandler") -> bool:
        """Whether the permissions allow the call. May raise an `APIError` instead of returning False."""
        await self._session.allow(handler.frame)
        return True

    @asynccontextmanager
    async def handler(self, call: Any = None) -> AsyncIterator[Any]:
        """Provides a handler for the call, or for another one, with the current user and a unit of work of its own."""
        call = call or self._call
        frame = new_frame(self._body, call.name, call.target.route, None)
        frame.consumer, frame.call = self._session.consumer, call
        before = current_frame.set(frame)
        frame.task = asyncio.current_task()  # the owner of its unit of work
        frame.status = 500  # nothing waits for a reply: a check that subscribes has no effect
        try:
            yield call.mounted.handler(frame, self._session.scope)
            await complete(frame)
        except BaseException:
            await roll_back(frame)
            raise
        finally:
            current_frame.reset(before)


class ConnectionRight(Right):
    """The right to be connected, and to receive the broadcasts of the connection's group."""

    __slots__ = ()

    def __init__(self, session: "Session") -> None:
        super().__init__(session, None, {})

    @property
    def label(self) -> str:
        return "a connection"

    async def _check(self) -> bool:
        await check_connect_permissions(self._session)
        return True


async def check_connect_permissions(session: "Session") -> None:
    """Asks the consumer's permissions for a connection. Raises `PermissionDenied` if one refuses it."""
    consumer = session.consumer
    permissions = consumer.mounted.no_such_action.permissions  # None if the consumer overrides the hooks
    if permissions is None:
        permissions = compile_permissions(
            consumer.get_permissions(), owner=f"{type(consumer).__name__}.get_permissions()"
        )
    if (verdict := permissions.connect_refusal(session.scope, consumer)) is not None:
        await raise_refusal(verdict)


class Stream(Right):
    """The right of a running stream. It sends no item while its permissions are checked, and none after a refusal.

    If the stream has called ``get_object()``, access to that object is checked again too.
    """

    __slots__ = ("_checks_done", "_running_checks", "always", "frame")

    def __init__(self, session: "Session", frame: Frame, *, always: bool) -> None:
        super().__init__(session, frame.call, frame.body)
        self.frame = frame
        self.always = always
        self._running_checks = 0
        self._checks_done = asyncio.Event()  # set while no check runs

    @property
    def must_wait(self) -> bool:
        """Whether the next item has to wait for `wait_until_allowed`."""
        return self.always or self._running_checks > 0

    def hold(self) -> Callable[[], None]:
        """Pauses the stream until the returned function is called."""
        self._running_checks += 1
        self._checks_done.clear()
        return self._resume

    def _resume(self) -> None:
        self._running_checks -= 1
        if not self._running_checks:
            self._checks_done.set()

    async def wait_until_allowed(self) -> None:
        """Waits until the next item may be sent. Raises `PermissionDenied` if the permissions refuse it."""
        if self._running_checks:
            await self._checks_done.wait()
        elif not await self.still_holds():
            raise PermissionDenied

    async def _allows(self, handler: "AsyncAPIActionHandler") -> bool:
        await super()._allows(handler)
        if hasattr(self.frame, "get_object_args"):
            args, kwargs = self.frame.get_object_args
            await cast("GenericAsyncAPIActionHandler", handler).get_object(*args, **kwargs)
        return True


class Grant(Right):
    """The right of one subscription. It keeps the call, but not the frame that the client sent."""

    __slots__ = ("_topic", "place", "route", "shows")

    def __init__(
        self, session: "Session", handler: "AsyncAPIActionHandler", topic: str, route: str, shows: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(session, handler.frame.call, {})
        self.shows = shows  # the calls that show the objects of its events
        self._topic = topic
        self.route = route
        self.place: Place | None = None  # where the user is present by it; None: nowhere

    @property
    def label(self) -> str:
        return f"a subscription to {self.route!r}"

    async def _allows(self, handler: "AsyncAPIActionHandler") -> bool:
        """Checks the topic too: ``get_topic()`` may depend on the user, whom ``$auth`` may have changed."""
        await super()._allows(handler)
        if topic_at(handler) != self._topic:
            return False
        await require(handler, "check_subscription")
        await self.check_showing_actions(handler.frame)
        return True

    async def check_showing_actions(self, frame: Frame) -> None:
        """Raises `PermissionDenied` unless the user may call the actions that show the objects of the events.

        A permission that looks at the action's name may not know ``subscribe``. A handler that overrides the
        permission hooks is not asked here but at each event. The check runs in the frame's unit of work, as the
        database may have only one connection for all.
        """
        for call in self.shows:
            if all(check is None and mounted is call.mounted for mounted, check, _ in call.permission_checks):
                continue
            probe, unit = copy(frame), frame.unit
            probe.call, probe.task = call, asyncio.current_task()
            before = current_frame.get()
            current_frame.set(None if before is None else probe)
            try:
                await self._session.allow(probe, include_overridden=False)
            finally:
                current_frame.set(before)
                if frame.unit is unit:
                    frame.unit = probe.unit


def update_presence(session: "Session", topic: str) -> None:
    """Counts the connection's user as present in a topic, once, while a subscription shows them there.

    To be called whenever such a subscription begins or ends, or the user may have changed, by ``$auth``.
    """
    grants = [*session.grants.values(), *(attempt.grant for attempt in session.attempts.values())]
    places = (grant.place for grant in grants if grant is not None and grant.place is not None)
    place = next((place for place in places if place.topic == topic), None)
    counted = session.present.get(topic)
    if place is None:
        session.present.pop(topic, None)
    else:
        user = session.runtime.loop_state.users.key(session) or session.name
        roster = counted[0] if counted is not None else getattr(session.runtime.hub.layer, "roster", None)
        if roster is None or (counted is not None and counted[2] == user):
            return
        session.present[topic] = roster, place, user
        roster.change(place, user, 1)
    if counted is not None:
        roster, place, user = counted
        roster.change(place, user, -1)


def end_subscription(session: "Session", topic: str, route: str, error: APIError | None = None) -> None:
    """Ends a connection's subscription to a topic under a route, if there is one.

    A frame that is about to subscribe to it gets ``error``, by default `Cancelled`.
    """
    session.runtime.loop_state.leave(session.connection, topic, route)
    session.connection.on_unsubscribed(route)
    session.grants.pop((topic, route), None)
    if (attempt := session.attempts.get((topic, route))) is not None:
        attempt.end(error or Cancelled("This subscription was ended before its reply."))
    update_presence(session, topic)


def revoke_subscription(session: "Session", topic: str, route: str) -> None:
    """Ends a subscription whose permissions were lost, and sends ``$unsubscribed`` to the client."""
    end_subscription(session, topic, route, PermissionDenied())
    session.connection.put(encode_event("$unsubscribed", route, '{"reason":"permission_denied"}'))
