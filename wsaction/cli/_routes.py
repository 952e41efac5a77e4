"""Inventory of an app: every route of every connection with its handler, for ``routes`` and ``check``."""

from collections.abc import Iterator
from dataclasses import dataclass

from wsaction._handlers.action import Action
from wsaction._handlers.mounts import MountedHandler
from wsaction._handlers.route_table import RouteTable
from wsaction.asyncapi._operations import permissions_of
from wsaction.routing import Router
from wsaction.routing._resolver import Leaf


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A route of a connection; both texts are as declared. ``mounted`` is None for any other ASGI app."""

    connection: str
    route: str
    name: str
    handler: str
    mounted: MountedHandler | None = None

    @property
    def actions(self) -> dict[str, Action]:
        """The actions by their names on the wire."""
        plans = {} if self.mounted is None else self.mounted.plans
        return {name: plan.action for name, plan in plans.items() if plan.action is not None}

    def permissions(self, action: Action | None = None) -> list[str]:
        """The names of an action's permissions, or of the route's, those of the outermost handler first."""
        return [] if self.mounted is None else list(permissions_of(action, self.mounted))

    @property
    def is_live(self) -> bool:
        """Whether clients can subscribe to the route."""
        live = self.mounted is not None and self.mounted.attribute("_event_types") is not None
        return live and any(action.name == "subscribe" for action in self.actions.values())


def inventory(router: Router) -> Iterator[Entry]:
    """Yields the routes of an app in the order of their declaration; the root of a connection comes first."""
    for leaf in router.leaves:
        view = leaf.endpoint.view
        table: RouteTable | None = getattr(view, "table", None)
        if table is None:
            handler = getattr(view, "__name__", type(view).__name__)
            yield Entry(connection=leaf.route, route="", name=_name(leaf), handler=handler)
            continue
        places = [(below.route, below, below.endpoint.view) for below in table.router.leaves]
        if table.match("")[0] is None and table.root.plans:
            places.insert(0, ("", leaf, table.root))
        for route, place, mounted in places:
            handler = mounted.handler_class.__name__
            yield Entry(connection=leaf.route, route=route, name=_name(place), handler=handler, mounted=mounted)


def _name(leaf: Leaf) -> str:
    return ":".join([*leaf.namespaces, leaf.endpoint.name]) if leaf.endpoint.name else ""
