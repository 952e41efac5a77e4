"""Mounted handlers: each handler at its place in a root's ``routepatterns``, compiled once."""

import logging
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from inspect import isfunction
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from wsaction._handlers.action import Action
from wsaction._protocol.frames import Frame
from wsaction._utils.misspellings import defined_by_user
from wsaction.exceptions import ActionNotAllowed, APIError, ImproperlyConfigured
from wsaction.permissions import BasePermission
from wsaction.permissions._classes import Permissions, compile_permissions
from wsaction.permissions._expressions import Ask
from wsaction.routing import re_path
from wsaction.routing._patterns import Endpoint, Include
from wsaction.routing._urlconf import convert_patterns, endpoint_and_children
from wsaction.throttling import BaseThrottle, ScopedRateThrottle, Throttles, compile_throttles

if TYPE_CHECKING:
    from wsaction._events.plan import EventPlan
    from wsaction.handlers import AsyncAPIActionHandler

logger = logging.getLogger("wsaction")

MAX_COMPILED = 64  # results of one handler's get_permissions() that are kept compiled


class View(Protocol):
    """The attributes that a route table reads of a view, which ``as_aaah()`` or ``as_asgi()`` returns."""

    handler_class: Any
    initkwargs: Mapping[str, Any]
    actions: Mapping[str, Action]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Everything needed to run one action of one mounted handler."""

    action: Action | None  # None: no such action; the client learns that after the permissions allow it
    name: str | None  # as declared
    ordered: bool
    # The permissions to ask, outermost first, and whether they take the frame's keywords. None: `check_permissions()`.
    permission_checks: "tuple[tuple[MountedHandler, Ask | None, bool], ...]"
    permissions: Permissions | None  # of the handler itself, for objects; None: it overrides the hooks
    throttles: "tuple[tuple[MountedHandler, Throttles | None], ...]"  # None: `check_throttles()`
    streamed: "Plan | None" = None  # runs instead if the frame asks for a stream


class MountedHandler:
    """A handler at its place in a route table: its class, and a plan for each action of its route."""

    topic_space: str  # the first route whose handler has the same get_topic(): its topic names are local to it

    def __init__(self, view: View, above: "tuple[MountedHandler, ...]" = ()) -> None:
        self.handler_class = view.handler_class
        self.actions = view.actions
        self.initkwargs = dict(view.initkwargs)
        self.is_consumer: bool = view.handler_class.is_consumer
        self.above = above  # the root and the handlers whose `routepatterns` lead here
        self.action_names = _action_names(view)
        self._compiled: dict[tuple[Any, ...], Permissions] = {}  # by the classes from get_permissions()
        self.throttles = self._throttles(None)  # of the handler itself; None: it overrides the hooks
        self.no_such_action = self._plan(None)
        self._elsewhere: dict[str, Plan] = {}
        self.plans = {route_name: self._plan(action) for route_name, action in self.actions.items()}
        self.event_plan: EventPlan | None = None  # compiled at the first event or subscription
        self._check_throttle_scope()

    def _check_throttle_scope(self) -> None:
        """Raises `ImproperlyConfigured` for a ``throttle_scope`` that no throttle of the handler reads."""
        if self.attribute("throttle_scope") is None or self.handler_class.overrides_throttles:
            return
        own = [self.throttles, *map(self._throttles, self.actions.values())]
        if not any(isinstance(throttle, ScopedRateThrottle) for throttles in own for throttle in throttles or ()):
            raise ImproperlyConfigured(
                f"{self.handler_class.__name__}.throttle_scope has no effect; add a ScopedRateThrottle with its "
                "rates to throttle_classes"
            )

    def instance(self) -> Any:
        """Creates a handler with the attributes passed to ``as_aaah()``."""
        handler = self.handler_class()
        for name, value in self.initkwargs.items():
            setattr(handler, name, value)
        return handler

    def attribute(self, name: str) -> Any:
        """Returns an attribute as passed to ``as_aaah()``, or else of the class; None if there is none."""
        return self.initkwargs.get(name, getattr(self.handler_class, name, None))

    def is_like(self, other: "MountedHandler") -> bool:
        """Whether both have the same class and got the same attributes, such as permissions or a serializer."""
        return self.handler_class is other.handler_class and self.initkwargs == other.initkwargs

    def handler(self, frame: Frame, scope: Any) -> "AsyncAPIActionHandler":
        """Returns the handler for a frame: the consumer itself, or a new instance."""
        if self.is_consumer:
            return frame.consumer
        handler: AsyncAPIActionHandler = self.instance() if self.initkwargs else self.handler_class()
        handler.consumer = frame.consumer
        handler.scope = scope
        handler.frame = frame
        handler.mounted = self
        return handler

    def compiled(self, classes: Any) -> Permissions:
        """Compiles the permissions that ``get_permissions()`` returned.

        The result is kept: compiling takes longer than most actions, and events need it for each recipient.
        """
        kinds = tuple(map(_stateless_class, classes)) if isinstance(classes, list | tuple) else (None,)
        if None not in kinds and (kept := self._compiled.get(kinds)) is not None:
            return kept
        owner = f"{self.handler_class.__name__}.get_permissions()"
        permissions = compile_permissions(classes, owner=owner, actions=self.action_names)
        if None not in kinds and len(self._compiled) < MAX_COMPILED:
            self._compiled[kinds] = permissions
        return permissions

    def refusal(self, frame: Frame, debug: bool) -> APIError:
        """Returns the error for an action that does not exist. Only in debug mode it names similar actions."""
        if not (debug or logger.isEnabledFor(logging.INFO)):
            return ActionNotAllowed()
        asked_name = (frame.action or "")[:100]
        near = get_close_matches(asked_name, self.actions, 3) or sorted(self.actions)
        name = self.handler_class.__name__
        text = f"{name} has no action {asked_name!r} at {frame.route!r}; it has {', '.join(near) or 'none'}"
        if isfunction(getattr(self.handler_class, asked_name, None)) and defined_by_user(
            self.handler_class, asked_name
        ):
            text += f". Its method {asked_name} lacks @async_action"
        logger.info("%s", text, extra={"status": 405})
        return ActionNotAllowed(text if debug else None)

    def plan_elsewhere(self, name: str) -> Plan:
        """Returns the plan of an action that the handler has on another route."""
        if name not in self._elsewhere:
            declared: Iterable[Action] = self.handler_class.available_actions.values()
            self._elsewhere[name] = self._plan(next((action for action in declared if action.name == name), None))
        return self._elsewhere[name]

    def _plan(self, action: Action | None) -> Plan:
        permissions = self._permissions(action)
        deciding = [(mounted, mounted.no_such_action.permissions) for mounted in self.above]
        deciding.append((self, permissions))
        asked = [
            (mounted, None, False) if compiled is None else (mounted, compiled.on_action, compiled.takes_keywords)
            for mounted, compiled in deciding
            if compiled is None or compiled.on_action
        ]
        ordered = action is None or action.options.ordered
        limiting = [(mounted, mounted.throttles) for mounted in self.above]
        throttles = _without_repeats([*limiting, (self, self._throttles(action))])
        plan = Plan(action, None if action is None else action.name, ordered, tuple(asked), permissions, throttles)
        if action is None or action.streamed is None:
            return plan
        return replace(plan, streamed=replace(plan, action=action.streamed, ordered=False))

    def _permissions(self, action: Action | None) -> Permissions | None:
        cls = self.handler_class
        if cls.overrides_permissions:
            return None
        owner, classes = f"{cls.__name__}.permission_classes", self.attribute("permission_classes")
        connects = not self.above
        if action is not None and action.options.permission_classes is not None:
            owner = f"@async_action(permission_classes=...) of {cls.__name__}.{action.name}"
            classes = action.options.permission_classes
            connects = False
        return compile_permissions(classes, owner=owner, connects=connects, actions=self.action_names)

    def _throttles(self, action: Action | None) -> Throttles | None:
        cls = self.handler_class
        if cls.overrides_throttles:
            return None
        owner, classes = f"{cls.__name__}.throttle_classes", self.attribute("throttle_classes")
        if action is not None and action.options.throttle_classes is not None:
            owner = f"@async_action(throttle_classes=...) of {cls.__name__}.{action.name}"
            classes = action.options.throttle_classes
        return compile_throttles(classes, owner=owner, throttle_scope=self.attribute("throttle_scope"))


def _stateless_class(entry: Any) -> type | None:
    """Returns the class of a permission that has no state, given as a class or an instance; None for any other.

    A class with an ``__init__`` counts as one with state: what that reads may change.
    """
    if isinstance(entry, type):
        return entry if issubclass(entry, BasePermission) and entry.__init__ is object.__init__ else None
    if not isinstance(entry, BasePermission) or vars(entry):
        return None
    return None if any(vars(base).get("__slots__") for base in type(entry).__mro__) else type(entry)


def _action_names(view: View) -> dict[str, str]:
    """Returns the declared names of a handler's actions, by method name, by name on the route and by declared name."""
    actions: Mapping[str, Action] = view.handler_class.available_actions
    names = {action.function.__name__: action.name for action in actions.values()}
    route_names = {name: action.name for name, action in view.actions.items()}
    return {**names, **route_names, **{name: name for name in actions}}


Limiting: TypeAlias = Iterable[tuple[MountedHandler, Throttles | None]]


def _without_repeats(limiting: Limiting) -> tuple[tuple[MountedHandler, Throttles | None], ...]:
    """Drops throttles that an outer handler has asked already, and handlers left without any."""
    seen: set[Hashable] = set()

    def is_new(throttle: BaseThrottle) -> bool:
        count = len(seen)
        seen.add(throttle.counts_as())
        return len(seen) > count

    remaining = [(mounted, throttles and tuple(filter(is_new, throttles))) for mounted, throttles in limiting]
    return tuple((mounted, throttles) for mounted, throttles in remaining if throttles != ())


# patterns
def mount(patterns: Iterable[Any], above: tuple[MountedHandler, ...]) -> Iterable[Endpoint | Include]:
    """Yields patterns with mounted handlers as views. A handler's own ``routepatterns`` follow below its pattern."""
    owner = f"{above[-1].handler_class.__name__}.routepatterns"
    for pattern in convert_patterns(patterns, owner):
        check_captures(pattern, owner)
        if isinstance(pattern, Include):
            yield pattern.with_children(tuple(mount(pattern.children, above)))
            continue
        _check_view(pattern, above)
        mounted = MountedHandler(pattern.view, above)
        _check_root_attributes(mounted)
        endpoint = pattern.with_view(mounted)
        below = tuple(mount(mounted.handler_class.routepatterns, (*above, mounted)))
        if below:
            yield from endpoint_and_children(endpoint, below)
        else:
            yield endpoint


def check_captures(pattern: Endpoint | Include, owner: str) -> None:
    """Raises `ImproperlyConfigured` for a policy among a pattern's default captures, where it has no effect."""
    if policies := [name for name in pattern.kwargs if name in _POLICIES]:
        raise ImproperlyConfigured(
            f"{owner}, {str(pattern.pattern)!r}: {policies[0]} would be a capture, which protects nothing; pass it "
            f"to as_aaah({policies[0]}=...), or to as_asgi() of a consumer"
        )


_POLICIES = ("permission_classes", "throttle_classes", "filter_backends")


def _check_view(pattern: Endpoint, above: tuple[MountedHandler, ...]) -> None:
    owner, cls = above[-1].handler_class.__name__, getattr(pattern.view, "handler_class", None)
    where = f"{owner}.routepatterns, {str(pattern.pattern)!r}"
    if cls is None:
        raise ImproperlyConfigured(f"{where}: expected a handler, as in CardHandler.as_aaah(), got {pattern.view!r}")
    if cls.is_consumer:
        raise ImproperlyConfigured(
            f"{where}: {cls.__name__} is a consumer, which has a connection of its own; route to it in "
            "WSAction([...]), or make it an AsyncAPIActionHandler"
        )
    if any(mounted.handler_class is cls and cls.routepatterns for mounted in above):
        raise ImproperlyConfigured(
            f"{where}: {cls.__name__} is below itself, without end; route to another handler there"
        )


_ROOT_ATTRIBUTES = ("limits", "outbox_policy", "dialect", "dialects", "strict_routing", "connect", "disconnect")


def _check_root_attributes(mounted: MountedHandler) -> None:
    """Raises `ImproperlyConfigured` for attributes that have an effect only on the root of a connection."""
    cls, root = mounted.handler_class, mounted.above[0].handler_class
    for name in _ROOT_ATTRIBUTES:
        if name in mounted.initkwargs or defined_by_user(cls, name):
            raise ImproperlyConfigured(
                f"{cls.__name__}.{name} has no effect: only the root of the connection may set it, which is "
                f"{root.__name__}; move it there"
            )


def as_prefixes(patterns: Iterable[Endpoint | Include]) -> Iterable[Include]:
    """Yields a root's own `path()` patterns as prefixes, for ``strict_routing = False``."""
    for pattern in patterns:
        if isinstance(pattern, Endpoint) and not pattern.pattern.is_regex:
            yield endpoint_and_children(pattern, [_ANY_REST.with_view(pattern.view)])[1]


_ANY_REST = re_path(r"", lambda: None)  # the view is replaced
