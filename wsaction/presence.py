"""`PresenceMixin`: who is subscribed to a route, in all processes, and who comes and goes."""

from typing import Any

from wsaction._events.plan import access_of
from wsaction._events.publish import hub_of, own_route, session_of, topic_at
from wsaction._events.subscribe import authorize
from wsaction._protocol.frames import AfterReply
from wsaction.decorators import async_action
from wsaction.exceptions import LayerUnavailable
from wsaction.layers.base import Roster
from wsaction.subscriptions import SubscribeMixin

__all__ = ("PresenceMixin",)


class PresenceMixin(SubscribeMixin):
    """`SubscribeMixin` whose subscribers know of each other.

    A user's first subscription to a route is told there as the event ``join``, the end of the last one as ``leave``,
    both with ``{"user": id}``: by ``WSAction(user_id=...)``, as text. A connection whose user has no id counts as
    itself, ``anonymous:`` and random text. A process that is killed is forgotten by the others within 12.5 s, and its
    users leave. Who may not subscribe to a route is not told who is there. A connection that subscribes to a topic more
    often than 20 times, and twice more each second, is answered 429 ``throttled``.
    """

    shows_presence = True

    @async_action
    async def presence(self: Any) -> dict[str, int]:
        """Who is subscribed to this route, and by how many connections: ``{"ada": 2}``.

        Where the client is subscribed itself, each ``join`` and ``leave`` before the reply is part of it, so that those
        after it can be applied to it.
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
