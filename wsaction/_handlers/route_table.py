"""Routes and what they lead to: compiled once for what a connection is served by, its *root*, and shared by frames."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wsaction._handlers.action import Action, Binding
from wsaction._handlers.mounts import MountedHandler, Plan, View, as_prefixes, mount
from wsaction._protocol.frames import Frame, reply_tail
from wsaction.exceptions import ActionNotAllowed
from wsaction.routing import Resolver404, ResolverMatch, Router

if TYPE_CHECKING:
    from wsaction._events.plan import Access

__all__ = ("MAX_CACHED_ROUTES_OF_A_CONNECTION", "Call", "RouteTable", "Target", "Targets")

MAX_CACHED_ROUTES = 1_024
MAX_CACHED_ROUTES_OF_A_CONNECTION = 32  # where its path captures something, so that it cannot share them


class Call:
    """An action of a route: all that is known of it before a frame comes, and kept for the frames that follow."""

    __slots__ = (
        "action",
        "args",
        "asked",
        "binding",
        "captures",
        "end",
        "found",
        "key",
        "mounted",
        "name",
        "params",
        "plan",
        "query",
        "tail",
        "target",
        "throttles",
    )
    name: str | None

    def __init__(self, target: "Target", action: str, mounted: MountedHandler, plan: Plan) -> None:
        self.target = target
        self.args = target.args
        self.captures = target.captures
        self.query = target.query
        self.found = target.mounted is not None
        self.mounted = mounted
        self.plan = plan
        self.name = plan.name or action
        self.action = plan.action
        self.asked = plan.asked
        self.throttles = plan.throttles
        self.key = target.canonical if plan.ordered else None  # frames with the same key run in order
        self.tail = reply_tail(action, target.route)
        self.end = f"{self.tail}{plan.action.status if plan.action else ''}"  # with the status that it has by default
        self.binding: Binding | None = None
        self.params: Any = None  # the query, once it was parsed

    def fixed(self, action: Action) -> Binding:
        """What the captures decide of the action's arguments, kept where frames may share it.

        Raises `InvalidParameters`.
        """
        binding = action.bind_captures(self.args, self.captures)
        if binding.shareable:
            self.binding = binding
        return binding


@dataclass(slots=True, eq=False)
class Target:
    """A resolved route, with the calls that were made to it."""

    route: str  # as the client wrote it
    mounted: MountedHandler | None  # None: no pattern matches
    args: tuple[Any, ...] = ()
    captures: Mapping[str, Any] = field(default_factory=dict)
    canonical: str | None = None
    query: str = ""
    match: ResolverMatch | None = None  # None too where only its beginning matches, as it may without strict routing
    calls: dict[Any, Call] = field(default_factory=dict)  # of actions that exist, so that there is an end to it
    is_topic: bool = field(init=False)  # whether it may be subscribed to: a matched route, or the root's own
    access: "Access | None" = None  # who may see its objects, compiled when it is first subscribed to

    def __post_init__(self) -> None:
        self.is_topic = self.match is not None or self.canonical == ""

    def call(self, action: str, table: "RouteTable", frame: Frame) -> Call:
        """The call of an action here; of one that does not exist, one that only asks the permissions.

        Raises `ActionNotAllowed` for a name of the protocol's that it does not have.
        """
        if (protocol_plan := table.protocol.plans.get(action)) is not None:
            return Call(self, action, table.protocol, protocol_plan)
        if action.startswith("$"):  # passes by order and bounds, so that nothing of the application may be asked
            raise ActionNotAllowed
        if self.mounted is None:
            return Call(self, action, table.root, table.root.no_such_action)
        if (plan := self.mounted.plans.get(action)) is None:
            return Call(self, action, self.mounted, self.mounted.no_such_action)
        key: Any = action
        if plan.streamed is not None:  # it is not found by its name alone, so that other frames need not look
            key = (action, frame.body.get("stream") is True)
            if key in self.calls:
                return self.calls[key]
            plan = plan.streamed if key[1] else plan
        call = self.calls[key] = Call(self, action, self.mounted, plan)
        return call


class RouteTable:
    """Every route below a root, resolved to its mounted handler.

    Raises `ImproperlyConfigured` for what cannot be mounted.
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
        self._strict = view.handler_class.strict_routing
        self._prefixes = Router(() if self._strict else tuple(as_prefixes(patterns)))
        self.targets = Targets(self, (), {}, MAX_CACHED_ROUTES)  # of connections whose path captures nothing

    def match(self, text: str) -> tuple[ResolverMatch | None, bool]:
        """What a route without its query matches, and whether as a whole: by its prefix where routing is not strict."""
        for router in (self.router, self._prefixes):
            try:
                return router.resolve(text), router is self.router
            except Resolver404:
                continue
        return None, False

    def takes(self, text: str) -> bool:
        """Whether the root itself answers a route that nothing matches."""
        return text == "" or not self._strict

    def nearest(self, route: str) -> str:
        """Why a route was not found, and which patterns are near."""
        try:
            self.router.resolve(route.partition("?")[0])
        except Resolver404 as exc:
            return str(exc)
        return f"no route {route!r}"


class Targets:
    """Resolved routes, kept for the frames that follow; at most ``most`` of them, the oldest goes first."""

    __slots__ = ("_args", "_captures", "_kept", "_most", "_table", "calls")

    def __init__(self, table: RouteTable, args: tuple[Any, ...], captures: Mapping[str, Any], most: int) -> None:
        self._table = table
        self._args = args
        self._captures = captures
        self._most = most
        self._kept: dict[str, Target] = {}
        self.calls: dict[str, dict[Any, Call]] = {}  # by the routes that are kept: the short way to a call

    def resolve(self, route: str) -> Target:
        """Where a route leads, its query split off; the connection's own captures come first, the route's win."""
        if (target := self._kept.get(route)) is not None:
            return target
        text, has_query, query = route.partition("?")
        if has_query:
            path = self.resolve(text)
            return Target(route, path.mounted, path.args, path.captures, path.canonical, query, path.match)
        match, is_whole = self._table.match(text)
        if match is None:
            root = self._table.root if self._table.takes(text) else None
            target = Target(route, root, self._args, self._captures, None if root is None else text)
            keep = text == ""
        else:
            captures = {**self._captures, **match.kwargs}
            whole = match if is_whole else None
            target = Target(route, match.func, self._args + match.args, captures, match.canonical, "", whole)
            keep = match.cacheable
        if keep:
            if len(self._kept) >= self._most:
                del self._kept[oldest := next(iter(self._kept))], self.calls[oldest]
            self._kept[route], self.calls[route] = target, target.calls
        return target
