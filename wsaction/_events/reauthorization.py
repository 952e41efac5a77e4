"""Reauthorization: checks the permissions of a subscription, a stream or a connection again while it lasts."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from copy import copy
from typing import TYPE_CHECKING, Any, cast

from wsaction._events.publish import topic_at
from wsaction._protocol.event_frames import encode_event
from wsaction._protocol.frames import Frame, current_frame, new_frame
from wsaction._utils.tasks import is_being_cancelled
from wsaction.exceptions import APIError, PermissionDenied
from wsaction.layers.base import Place, Roster
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


class SubscriptionState:
    """The state that the frames of one subscription share. The subscription ends if all of them fail."""

    __slots__ = ("is_confirmed", "is_renewal", "resume", "waiting")

    def __init__(self) -> None:
        self.is_renewal = False  # whether it replaces an earlier subscription, so that it goes on if all of them fail
        self.is_confirmed = False  # whether a frame has succeeded
        self.waiting = 0  # the number of frames that have not ended yet
        self.resume: Callable[[], None] | None = None  # left by a frame that failed, for the next that succeeds


class Grant(Right):
    """The right of one subscription. It keeps the call, but not the frame that the client sent."""

    __slots__ = ("_counted", "_place", "_topic", "earlier", "is_joined", "route", "shows", "state")

    def __init__(
        self, session: "Session", handler: "AsyncAPIActionHandler", topic: str, route: str, shows: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(session, handler.frame.call, {})
        self.shows = shows  # the calls that show the objects of its events
        self.earlier: Grant | None = None  # that of the subscription which goes on if this one cannot be joined
        self.is_joined = False
        self._topic = topic
        self.route = route
        self.state = SubscriptionState()  # the previous grant's, if its subscription goes on
        self._place: Place | None = None  # where to count the user as present; None: nowhere
        self._counted: tuple[Roster, Place, str] | None = None  # where the user is counted, and as whom

    @property
    def label(self) -> str:
        return f"a subscription to {self.route!r}"

    def replace(self, previous: "Grant | None") -> None:
        """Takes the place of the route's grant. While that one is not joined, it goes on from what that replaces."""
        self.earlier = previous if previous is None or previous.is_joined else previous.earlier

    def start_presence(self, place: Place) -> None:
        """Counts the user as present. If the earlier grant has counted them, takes that over."""
        self._place = place
        if self.earlier is not None and self.earlier._counted is not None:
            self._counted, self.earlier._counted = self.earlier._counted, None
            return
        self.count_presence()

    def count_presence(self) -> None:
        """Counts the user as present, once for each topic of the connection; does nothing before `start_presence`.

        If the connection's user has changed, by ``$auth``, counts the new user in place of the old one.
        """
        if (place := self._place) is None:
            return
        user = self._session.runtime.loop_state.users.key(self._session) or self._session.name
        if (counted := self._counted) is not None and counted[2] != user:
            roster, place, earlier_user = counted
            self._counted = roster, place, user
            roster.change(place, user, 1)
            roster.change(place, earlier_user, -1)
        if counted is not None or any(grant._counted is not None for grant in self._siblings()):
            return
        known: Roster | None = getattr(self._session.runtime.hub.layer, "roster", None)
        if known is not None:
            self._counted = known, place, user
            known.change(place, user, 1)

    def end_presence(self) -> None:
        """Stops counting the user; if the connection has another subscription of the topic, that takes over."""
        self._place = None
        if self._counted is not None:
            counted, self._counted = self._counted, None
            if (heir := next((grant for grant in self._siblings() if grant._place is not None), None)) is not None:
                heir._counted = counted
            else:
                roster, place, user = counted
                roster.change(place, user, -1)

    def _siblings(self) -> "Iterator[Grant]":
        """The connection's other grants for this topic, under other routes."""
        return (grant for grant in self._session.grants.values() if grant._topic == self._topic and grant is not self)

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


def end_subscription(session: "Session", topic: str, route: str) -> None:
    """Ends a connection's subscription to a topic under a route, if there is one."""
    session.runtime.loop_state.leave(session.connection, topic, route)
    session.connection.on_unsubscribed(route)
    if (grant := session.grants.pop((topic, route), None)) is not None:
        grant.end_presence()


def revoke_subscription(session: "Session", topic: str, route: str) -> None:
    """Ends a subscription whose permissions were lost, and sends ``$unsubscribed`` to the client."""
    end_subscription(session, topic, route)
    session.connection.put(encode_event("$unsubscribed", route, '{"reason":"permission_denied"}'))
