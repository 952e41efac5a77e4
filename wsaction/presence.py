"""`PresenceMixin`: who is subscribed to a route, in all processes, and who comes and goes."""

from typing import Any

from wsaction.decorators import async_action
from wsaction.exceptions import LayerUnavailable
from wsaction.layers.base import Roster
from wsaction.publishing import session_of
from wsaction.subscriptions import SubscribeMixin

__all__ = ("PresenceMixin",)


class PresenceMixin(SubscribeMixin):
    """`SubscribeMixin` whose subscribers know of each other.

    A user's first subscription to a route is told there as the event ``join``, the end of the last one as ``leave``,
    both with ``{"user": id}``: by ``WSAction(user_id=...)``, as text. Who is nobody is not counted. A process that is
    killed is forgotten by the others within 12.5 s, and its users leave.
    """

    shows_presence = True

    @async_action
    async def presence(self: Any) -> dict[str, int]:
        """Who is subscribed to this route, and by how many connections: ``{"ada": 2}``."""
        hub = session_of(self).runtime.hub
        if hub.is_closed:
            raise LayerUnavailable
        await hub.open()
        roster: Roster | None = getattr(hub.layer, "roster", None)
        if roster is None:
            raise LayerUnavailable
        return await roster.who(self.get_topic())
