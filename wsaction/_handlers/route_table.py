"""The route table: resolves routes to mounted handlers.

It is compiled once for each *root*, the consumer that serves a connection, and shared by all connections.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wsaction._handlers.action import Action, Binding
from wsaction._handlers.mounts import MountedHandler, Plan, View, as_prefixes, mount
from wsaction._protocol.frames import Frame, reply_tail
from wsaction.exceptions import ActionNotAllowed
from wsaction.routing import Resolver404, ResolverMatch, Router

if TYPE_CHECKING:
    from wsaction._events.access import Access

MAX_CACHED_ROUTES = 1_024
MAX_CACHED_ROUTES_OF_A_CONNECTION = 32  # of a connection whose path has captures, which it cannot share


class Call:
    """An action on a route: everything known before a frame arrives, kept for later frames."""

    __slots__ = (
        "action",
        "args",
        "binding",
        "captures",
        "key",
        "mounted",
        "name",
        "params",
        "permission_checks",
        "plan",
        "query",
        "route_exists",
        "tail",
        "tail_with_status",
        "target",
        "throttles",
    )
    name: str | None

    def __init__(self, target: "Target", action: str, mounted: MountedHandler, plan: Plan) -> None:
        self.target = target
        self.args = target.args
        self.captures = target.captures
        self.query = target.query
        self.route_exists = target.mounted is not None
        self.mounted = mounted
        self.plan = plan
        self.name = plan.name or action
        self.action = plan.action
        self.permission_checks = plan.permission_checks
        self.throttles = plan.throttles
        self.key = target.canonical if plan.ordered else None  # frames with the same key run in order
        self.tail = reply_tail(action, target.route)
        self.tail_with_status = f"{self.tail}{plan.action.status if plan.action else ''}"  # the action's own status
        self.binding: Binding | None = None
        self.params: Any = None  # the query, once it is parsed

    def bind_captures(self, action: Action) -> Binding:
        """Binds the captures to the action's parameters, and keeps the binding if frames may share it.

        Raises `InvalidParameters`.
        """
        binding = action.bind_captures(self.args, self.captures)
        if binding.shareable:
            self.binding = binding
        return binding


@dataclass(slots=True, eq=False)
class Target:
    """A resolved route, with its calls."""

    route: str  # as the client wrote it
    mounted: MountedHandler | None  # None: no pattern matches
    args: tuple[Any, ...] = ()
    captures: Mapping[str, Any] = field(default_factory=dict)
    canonical: str | None = None
    query: str = ""
    match: ResolverMatch | None = None  # None too if only the beginning matches, without strict routing
    calls: dict[Any, Call] = field(default_factory=dict)  # only of actions that exist, so that their number is bounded
    is_topic: bool = field(init=False)  # whether clients can subscribe: a whole match, or the root's route
    access: "Access | None" = None  # who may see its objects, compiled at first use

    def __post_init__(self) -> None:
        self.is_topic = self.match is not None or self.canonical == ""

    def call(self, action: str, table: "RouteTable", frame: Frame) -> Call:
        """Returns the call of an action on this route.

        An action that does not exist gets a call that only checks the permissions. Raises `ActionNotAllowed` for an
        unknown name that begins with ``$``.
        """
        if (protocol_plan := table.protocol.plans.get(action)) is not None:
            return Call(self, action, table.protocol, protocol_plan)
        if action.startswith("$"):  # such frames skip order and limits, so no application code may run
            raise ActionNotAllowed
        if self.mounted is None:
            return Call(self, action, table.root, table.root.no_such_action)
        if (plan := self.mounted.plans.get(action)) is None:
            return Call(self, action, self.mounted, self.mounted.no_such_action)
        key: Any = action
        if plan.streamed is not None:  # two calls by one name; others are found without a look at the body
            key = (action, frame.body.get("stream") is True)
            if key in self.calls:
                return self.calls[key]
            plan = plan.streamed if key[1] else plan
        call = self.calls[key] = Call(self, action, self.mounted, plan)
        return call


class RouteTable:
    """All routes below a root, with their mounted handlers.

    Raises `ImproperlyConfigured` for a pattern that cannot be mounted.
    """

    def __init__(self, view: View, protocol: View) -> None:
        self.root = MountedHandler(view)
        self.protocol = MountedHandler(protocol)
        patterns = tuple(mount(view.handler_class.routepatterns, (self.root,)))
        self.router = Router(patterns)
        leaves = self.router.leaves
        self.mounted = (self.root, *(leaf.endpoint.view for leaf in leaves))
        spaces: dict[Any, str] = {}
        for mounted, route in zip(self.mounted, ("", *(leaf.route for leaf in leaves)), strict=True):
            mounted.topic_space = spaces.setdefault(mounted.attribute("get_topic"), route)
        self.is_live = any(hasattr(mounted.handler_class, "_event_types") for mounted in self.mounted)
        actions = (action for mounted in self.mounted for action in mounted.actions.values())
        self.broadcasts = any(action.options.mode == "broadcast" for action in actions)
        self.is_strict = view.handler_class.strict_routing  # otherwise the root answers routes that match nothing
        self._prefixes = Router(() if self.is_strict else tuple(as_prefixes(patterns)))
        self.targets = Targets(self, (), {}, MAX_CACHED_ROUTES)  # of connections whose path has no captures

    def match(self, text: str) -> tuple[ResolverMatch | None, bool]:
        """Matches a route without its query. Returns the match, and whether it covers the whole route.

        Without strict routing a pattern may match only the beginning of a route.
        """
        for router in (self.router, self._prefixes):
            try:
                return router.resolve(text), router is self.router
            except Resolver404:
                continue
        return None, False

    def nearest(self, route: str) -> str:
        """Returns a message that says why a route was not found, with similar patterns."""
        try:
            self.router.resolve(route.partition("?")[0])
        except Resolver404 as exc:
            return str(exc)
        return f"no route {route!r}"


class Targets:
    """A cache of resolved routes: at most ``max_size``, of which the oldest is dropped first."""

    __slots__ = ("_args", "_cache", "_captures", "_max_size", "_table", "calls")

    def __init__(self, table: RouteTable, args: tuple[Any, ...], captures: Mapping[str, Any], max_size: int) -> None:
        self._table = table
        self._args = args
        self._captures = captures
        self._max_size = max_size
        self._cache: dict[str, Target] = {}
        self.calls: dict[str, dict[Any, Call]] = {}  # of each cached route, for a lookup without `resolve`

    def resolve(self, route: str) -> Target:
        """Resolves a route, with or without a query.

        Positional captures of the connection's path come before those of the route. A named capture of the route wins.
        """
        if (target := self._cache.get(route)) is not None:
            return target
        text, has_query, query = route.partition("?")
        if has_query:
            path = self.resolve(text)
            return Target(route, path.mounted, path.args, path.captures, path.canonical, query, path.match)
        match, is_whole = self._table.match(text)
        if match is None:
            keep = text == ""
            root = self._table.root if keep or not self._table.is_strict else None
            target = Target(route, root, self._args, self._captures, None if root is None else text)
        else:
            captures = {**self._captures, **match.kwargs}
            whole = match if is_whole else None
            target = Target(route, match.func, self._args + match.args, captures, match.canonical, "", whole)
            keep = match.cacheable
        if keep:
            if len(self._cache) >= self._max_size:
                del self._cache[oldest := next(iter(self._cache))], self.calls[oldest]
            self._cache[route], self.calls[route] = target, target.calls
        return target
