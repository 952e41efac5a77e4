"""`PresenceMixin`: shows who is subscribed to a route in all processes, with events when users join and leave."""

from typing import Any

from wsaction._events.access import access_of
from wsaction._events.publish import hub_of, own_route, session_of, topic_at
from wsaction._events.subscribe import authorize
from wsaction._protocol.frames import AfterReply
from wsaction.decorators import async_action
from wsaction.exceptions import LayerUnavailable
from wsaction.layers.base import Roster
from wsaction.subscriptions import SubscribeMixin

__all__ = ("PresenceMixin",)


class PresenceMixin(SubscribeMixin):
    """A `SubscribeMixin` that shows the subscribers of a route to each other.

    A user's first subscription to a route sends the event ``join`` to its subscribers, and the end of the last one
    ``leave``. Both have ``{"user": id}``, the id from ``WSAction(user_id=...)`` as text. A connection whose user has no
    id counts as a user of its own, named ``anonymous:`` and random text. If a process is killed, its users leave within
    12.5 s. Only clients that may subscribe to a route may see who is there.

    A connection may subscribe to a topic 20 times, and 2 more times each second. Beyond that it gets 429
    ``throttled``.
    """

    shows_presence = True

    @async_action
    async def presence(self: Any) -> dict[str, int]:
        """Returns the users subscribed to this route, each with their number of connections: ``{"ada": 2}``.

        If the client is subscribed itself, the reply includes each ``join`` and ``leave`` that came before it, so that
        the client can apply later ones to it.
        """
        session, topic, route = session_of(self), topic_at(self), own_route(self)
        await authorize(self, access_of(self), topic, route)
        hub = hub_of(session)
        if hub.is_closed:
            raise LayerUnavailable
        await hub.open()
        roster: Roster | None = getattr(hub.layer, "roster", None)
        if roster is None:
            raise LayerUnavailable
        resume = hub.hold(session.connection, topic, route)
        self.frame.hold(AfterReply(resume, resume))
        return await roster.who(topic)
