"""Grants: what a subscription was allowed, kept so that it can be asked again while it lasts."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from wsaction.events import encode_event
from wsaction.exceptions import APIError
from wsaction.frames import current_frame, new_frame
from wsaction.layers.base import Place, Roster
from wsaction.scopes import topic_at
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
        """Counts its user as present where that is wanted, once for each topic; who was nobody may be somebody by now,
        and is counted as that."""
        if (place := self._place) is None:
            return
        user = self._session.runtime.here.users.key(self._session) or self._session.name
        if (present := self._present) is not None and present[2] != user:
            roster, place, before = present
            self._present = roster, place, user
            roster.change(place, user, 1)
            roster.change(place, before, -1)
        if present is not None or any(one._present is not None for one in self._siblings()):
            return
        known: Roster | None = getattr(self._session.runtime.hub.layer, "roster", None)
        if known is not None:
            self._present = known, place, user
            known.change(place, user, 1)

    def end(self) -> None:
        """The subscription is no more."""
        self._place = None
        if self._present is not None:
            present, self._present = self._present, None
            if (heir := next((one for one in self._siblings() if one._place is not None), None)) is not None:
                heir._present = present
            else:
                roster, place, user = present
                roster.change(place, user, -1)

    def _siblings(self) -> "Iterator[Grant]":
        """The connection's other subscriptions of this topic, under other routes."""
        return (one for one in self._session.grants.values() if one._topic == self._topic and one is not self)

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
                same = topic_at(handler) == self._topic
                if same:
                    await handler.check_subscription()
        except APIError as exc:
            if exc.status >= 500:
                raise
            return False
        return same


def release(session: Any, topic: str, route: str) -> None:
    """Ends the subscription of a connection to a topic under a route, if there is one."""
    session.runtime.here.leave(session.connection, topic, route)
    session.connection.unsubscribed(route)
    if (grant := session.grants.pop((topic, route), None)) is not None:
        grant.end()


def withdraw(session: Any, topic: str, route: str) -> None:
    """Ends a subscription whose right is lost, and tells its client."""
    release(session, topic, route)
    session.connection.put(encode_event("$unsubscribed", route, '{"reason":"permission_denied"}'))
