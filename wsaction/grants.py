"""Grants: what a subscription was allowed, kept so that it can be asked again while it lasts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from wsaction.events import encode_event
from wsaction.exceptions import APIError
from wsaction.frames import current_frame, new_frame
from wsaction.layers.base import Place, Roster
from wsaction.units import abandon, complete

__all__ = ("Grant", "release", "withdraw")


class Grant:
    """One subscription's. It keeps the call, and not the frame that the client sent."""

    __slots__ = ("_call", "_place", "_present", "_session", "_topic", "route")

    def __init__(self, session: Any, handler: Any, topic: str, route: str) -> None:
        self._session, self._call, self._topic, self.route = session, handler.frame.call, topic, route
        self._place: Place | None = None  # where its user is to be counted
        self._present: tuple[Roster, Place, str] | None = None  # where it is counted, and for whom

    @property
    def patience(self) -> float:
        """Seconds that asking it may take."""
        seconds: float = self._session.connection.limits.action_timeout
        return seconds

    def appear(self, place: Place, earlier: "Grant | None") -> None:
        """Counts its user as present, unless the grant that it takes the place of has done so."""
        self._place = place
        if earlier is not None and earlier._present is not None:
            self._present, earlier._present = earlier._present, None
            return
        self.count()

    def count(self) -> None:
        """Counts its user as present where that is wanted and not done: who was nobody may be somebody by now."""
        if (place := self._place) is None or self._present is not None:
            return
        roster: Roster | None = getattr(self._session.runtime.hub.layer, "roster", None)
        if roster is not None and (user := self._session.runtime.here.users.key(self._session)) is not None:
            self._present = roster, place, user
            roster.change(place, user, 1)

    def end(self) -> None:
        """The subscription is no more."""
        self._place = None
        if self._present is not None:
            (roster, place, user), self._present = self._present, None
            roster.change(place, user, -1)

    @asynccontextmanager
    async def handler(self) -> AsyncIterator[Any]:
        """The handler as it was when it was subscribed to, for the user of now, with a unit of work of its own."""
        frame = new_frame({}, self._call.name, self._call.target.route, None)
        frame.consumer, frame.call = self._session.consumer, self._call
        before = current_frame.set(frame)
        try:
            yield self._call.mounted.handler(frame, self._session.scope)
            await complete(frame)
        except BaseException:
            await abandon(frame)
            raise
        finally:
            current_frame.reset(before)

    async def holds(self) -> bool:
        """Whether it would be allowed now, and of the same topic: ``get_topic()`` may depend on what ``$auth`` says."""
        try:
            async with self.handler() as handler:
                await self._session.allow(handler.frame)
                same: bool = handler.get_topic() == self._topic
                if same:
                    await handler.check_subscription()
        except APIError as exc:
            if exc.status >= 500:
                raise
            return False
        return same


def release(session: Any, topic: str) -> None:
    """Ends the subscription of a connection to a topic, if there is one."""
    session.runtime.here.leave(session.connection, topic)
    if (grant := session.grants.pop(topic, None)) is not None:
        grant.end()


def withdraw(session: Any, topic: str, route: str) -> None:
    """Ends a subscription whose right is lost, and tells its client."""
    release(session, topic)
    session.connection.put(encode_event("$unsubscribed", route, '{"reason":"permission_denied"}'))
