"""Checks of an app's declarations for likely mistakes. They do not run the app."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal

from wsaction._handlers.action import ActionOptions
from wsaction._handlers.mounts import MountedHandler
from wsaction._handlers.route_table import RouteTable
from wsaction._utils.misspellings import get_framework_attributes, is_code, user_attributes
from wsaction.applications import WSAction
from wsaction.authentication import SessionAuthentication
from wsaction.cli._routes import Entry, inventory
from wsaction.filters import FieldFilter, OrderingFilter, SearchFilter
from wsaction.layers.memory import MemoryLayer
from wsaction.limits import Limits
from wsaction.permissions import BasePermission
from wsaction.permissions._expressions import Composition
from wsaction.routing import Router
from wsaction.routing._patterns import Pattern
from wsaction.routing._unreachable import find_unreachable
from wsaction.throttling import BaseThrottle, ConnectionRateThrottle, MemoryThrottleStore, SimpleRateThrottle

__all__ = ("Finding", "check")

MAX_SECONDS = 86_400
MAX_COUNT = 1_073_741_824  # bytes, or whatever the limit counts


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake (``error``), or something that is only right if intended (``warning``).

    ``code`` is for programs; ``place``, ``msg`` and ``cure`` are for people.
    """

    level: Literal["error", "warning"]
    code: str
    place: str
    msg: str
    cure: str


def check(app: WSAction, workers: int = 1) -> list[Finding]:
    """Returns the findings about an app that ``workers`` processes will serve, errors first."""
    entries = [*inventory(app.router)]
    handlers = _handlers(app.router)
    findings = [
        *_unreachable_routes(app.router),
        *_foreign_patterns(app.router),
        *_unknown_attributes(handlers),
        *_unused_attributes(handlers),
        *_missing_permissions(entries),
        *_object_permissions(entries),
        *_open_broadcasts(app),
        *_client_inputs(entries),
        *_unbounded_actions(entries),
        *_loose_limits(app),
        *_exposure(app),
    ]
    if workers > 1:
        findings += _memory_only(app, entries, workers)
    return sorted(findings, key=lambda finding: finding.level)


def _tables(router: Router) -> Iterator[tuple[str, RouteTable]]:
    """Yields the path of each connection with its routes."""
    for leaf in router.leaves:
        if (table := getattr(leaf.endpoint.view, "table", None)) is not None:
            yield leaf.route, table


# routes
def _unreachable_routes(router: Router) -> Iterator[Finding]:
    """Routes that are never reached."""
    yield from _unreachable_in(router, "")
    seen: set[Any] = set()
    for connection, table in _tables(router):
        if (consumer := table.root.handler_class) not in seen:
            seen.add(consumer)
            yield from _unreachable_in(table.router, connection)


def _unreachable_in(router: Router, connection: str) -> Iterator[Finding]:
    for shadow in find_unreachable(router):
        place, by = _place(connection, shadow.hidden.route), f"{shadow.by.route!r}, declared before it"
        if shadow.is_duplicate:
            cure = "remove one of the two, or move the actions to one handler"
            yield Finding("error", "duplicate_route", place, f"never reached: its pattern is the same as {by}", cure)
        else:
            msg = f"never reached: {shadow.example!r} and similar routes go to {by}"
            yield Finding("error", "shadowed_route", place, msg, "declare it before that route")


def _place(connection: str, route: str) -> str:
    return f"{connection or '(root)'} {route}".strip()


def _foreign_patterns(router: Router) -> Iterator[Finding]:
    """Patterns in the syntax of another router."""
    yield from _foreign_patterns_in(router, "")
    for connection, table in _tables(router):
        yield from _foreign_patterns_in(table.router, connection)


def _foreign_patterns_in(router: Router, connection: str) -> Iterator[Finding]:
    seen: set[Pattern] = set()
    for leaf in router.leaves:
        place = _place(connection, leaf.route)
        first = next((pattern for pattern in leaf.patterns if pattern.source), None)
        for pattern in leaf.patterns:
            if pattern in seen:
                continue
            seen.add(pattern)
            source = pattern.source
            if pattern is first and source.removeprefix("^").startswith("/"):
                msg = f"{source!r} begins with '/', but the text to match never does"
                yield Finding("warning", "leading_slash", place, msg, "remove the '/'")
            if pattern.is_regex:
                continue
            if "(?P<" in source or source.startswith("^") or source.endswith("$"):
                msg = f"{source!r} is a regular expression, but path() treats it as plain text"
                yield Finding("warning", "regex_in_path", place, msg, "use re_path()")
            for braces, name, converter in _BRACES.findall(source):
                cure = f"write <{converter}:{name}>" if converter else f"write <{name}>"
                msg = f"{braces} is plain text here and captures nothing"
                yield Finding("warning", "braces_in_path", place, msg, cure)


_BRACES = re.compile(r"(\{(\w+)(?::(\w+))?\})")


# attributes
def _handlers(router: Router) -> dict[Any, tuple[str, MountedHandler]]:
    """Returns every handler class with the first place where it is mounted."""
    handlers: dict[Any, tuple[str, MountedHandler]] = {}
    for connection, table in _tables(router):
        handlers.setdefault(table.root.handler_class, (_place(connection, ""), table.root))
        for leaf in table.router.leaves:
            mounted: MountedHandler = leaf.endpoint.view
            for handler in (*mounted.above, mounted):
                handlers.setdefault(handler.handler_class, (_place(connection, leaf.route), handler))
    return handlers


def _unknown_attributes(handlers: Mapping[Any, tuple[str, MountedHandler]]) -> Iterator[Finding]:
    """Attributes with names similar to the framework's. The class refuses clearer misspellings itself."""
    seen: set[tuple[Any, str]] = set()
    for cls, (place, mounted) in handlers.items():
        known = get_framework_attributes(cls)
        settings = [name for name, value in known.items() if not is_code(value)]
        actions = [action.options for action in mounted.actions.values()]
        for base, name, value in user_attributes(cls):
            if name in known or is_code(value) or (base, name) in seen:
                continue
            seen.add((base, name))
            near = get_close_matches(name, settings, 1, cutoff=0.85)
            if (policy := _policy(value)) is not None:
                is_own = name.isupper() or name.endswith((f"_{policy}s", f"_{policy}_classes"))
                is_used = any(value is used for used in _action_policies(actions))
                if not (is_own or is_used or getattr(cls, f"overrides_{policy}s")):
                    msg = f"{base.__name__}.{name} holds {policy}s, but nothing reads it"
                    yield Finding("error", "unused_policy", place, msg, f"rename it to {policy}_classes")
            elif name in ("middleware", "hooks", "layer"):
                msg = f"{base.__name__}.{name} is not an attribute of handlers"
                yield Finding("warning", "unknown_attribute", place, msg, f"write WSAction([...], {name}=...)")
            elif near and not name.endswith(f"_{near[0]}"):  # with a prefix it is a name of the application's own
                msg = f"{base.__name__}.{name} is not an attribute of handlers"
                yield Finding("warning", "unknown_attribute", place, msg, f"did you mean {near[0]}?")


def _policy(value: Any) -> str | None:
    """Returns the kind of policy that an attribute holds, alone or in a tuple or list; None if it holds none."""
    entries = value if isinstance(value, list | tuple) else (value,)
    for policy, kinds in (("permission", (BasePermission, Composition)), ("throttle", (BaseThrottle,))):
        classes = [entry if isinstance(entry, type) else type(entry) for entry in entries]
        if classes and all(issubclass(cls, kinds) for cls in classes):
            return policy
    return None


def _action_policies(actions: list[ActionOptions]) -> Iterator[Any]:
    """Yields the policies given to ``@async_action``, both the collections and their items."""
    for options in actions:
        yield from (options.permission_classes, options.throttle_classes)
        yield from (*(options.permission_classes or ()), *(options.throttle_classes or ()))


_FILTER_ATTRIBUTES: Mapping[str, Any] = {
    "filter_fields": FieldFilter,
    "search_fields": SearchFilter,
    "ordering_fields": OrderingFilter,
    "ordering": OrderingFilter,
}


def _unused_attributes(handlers: Mapping[Any, tuple[str, MountedHandler]]) -> Iterator[Finding]:
    """Attributes without the mixin or the filter backend that reads them."""
    for cls, (place, mounted) in handlers.items():
        if mounted.attribute("events") and not hasattr(cls, "_event_types"):
            msg = f"{cls.__name__} has events, but clients cannot subscribe to it"
            yield Finding("warning", "no_subscribe", place, msg, "add SubscribeMixin as its first base class")
        backends = mounted.attribute("filter_backends") or ()
        classes = {backend if isinstance(backend, type) else type(backend) for backend in backends}
        if classes - {*_FILTER_ATTRIBUTES.values()} or getattr(cls, "overrides_query", True):
            continue  # the application's own backends and methods may read anything
        for name, reader in _FILTER_ATTRIBUTES.items():
            if mounted.attribute(name) and reader not in classes:
                msg = f"{cls.__name__}.{name} has no effect without {reader.__name__}"
                cure = f"add {reader.__name__} to its filter_backends, or remove {name}"
                yield Finding("warning", "unused_filter", place, msg, cure)


def _client_inputs(entries: list[Entry]) -> Iterator[Finding]:
    """Parameters ``user`` and ``scope``: those of a dependency are trusted, those of an action come from the client."""
    seen: set[tuple[str, str, str]] = set()
    for entry in entries:
        for action_name, action in entry.actions.items():
            for name in {parameter.name for parameter in action.own_inputs} & {"scope", "user"}:
                key = (entry.handler, action_name, name)
                if key in seen or re.search(rf"[<:]{name}>", entry.connection + entry.route):
                    continue
                seen.add(key)
                msg = f"{entry.handler}.{action.name} has a parameter {name}, which the client fills"
                cure = f"use self.{name}, or rename the parameter if clients should fill it"
                place = f"{_place(entry.connection, entry.route)} {action_name}"
                yield Finding("warning", "client_input", place, msg, cure)


# permissions
def _missing_permissions(entries: list[Entry]) -> Iterator[Finding]:
    """Handlers without permissions."""
    seen: set[Any] = set()
    for entry in entries:
        cls = entry.mounted and entry.mounted.handler_class
        unprotected = [name for name, action in entry.actions.items() if not entry.permissions(action)]
        if not unprotected or cls in seen:
            continue
        seen.add(cls)
        msg = f"{entry.handler} has no permissions: any connected client may call {', '.join(unprotected)}"
        cure = "set its permission_classes; (AllowAny,) if this is intended"
        yield Finding("warning", "no_permissions", _place(entry.connection, entry.route), msg, cure)


def _object_permissions(entries: list[Entry]) -> Iterator[Finding]:
    """Object permissions of handlers that have no ``get_object()`` to check them."""
    seen: set[Any] = set()
    for entry in entries:
        if entry.mounted is None or (cls := entry.mounted.handler_class) in seen or hasattr(cls, "get_object"):
            continue
        seen.add(cls)
        plans = [(name, plan.permissions) for name, plan in entry.mounted.plans.items() if plan.permissions]
        names = [name for name, permissions in plans if permissions.on_object and not permissions.on_action]
        if names:
            msg = f"{entry.handler} has only object permissions, but no get_object() that checks them"
            cure = f"await self.check_object_permissions(obj) in {', '.join(names)}, or define has_permission"
            yield Finding("warning", "object_permissions", _place(entry.connection, entry.route), msg, cure)


def _open_broadcasts(app: WSAction) -> Iterator[Finding]:
    """Broadcasts that only some clients may send, but all connected clients receive."""
    if app.runtime.authenticator is not None and app.runtime.authenticator.first_frame:
        return  # clients receive none before they authenticate
    for connection, table in _tables(app.router):
        permissions = table.root.no_such_action.permissions
        if permissions is None or permissions.on_connect is not None:
            continue
        plans = [
            plan
            for mounted in table.mounted
            for plan in mounted.plans.values()
            if plan.action and plan.permission_checks
        ]
        names = [str(plan.name) for plan in plans if plan.action.options.mode == "broadcast"]
        if names:
            consumer = table.root.handler_class.__name__
            msg = f"{consumer} sends the broadcasts of {', '.join(dict.fromkeys(names))} to any client that may connect"
            cure = f"set {consumer}.permission_classes = (IsAuthenticatedStrictly,), or a permission with can_connect()"
            yield Finding("warning", "open_broadcasts", _place(connection, ""), msg, cure)


# limits
def _unbounded_actions(entries: list[Entry]) -> Iterator[Finding]:
    """Actions without a timeout, and lists without pagination."""
    seen: set[Any] = set()
    for entry in entries:
        for name, action in entry.actions.items():
            key = (entry.handler, action.name)
            if key in seen:
                continue
            seen.add(key)
            place = f"{_place(entry.connection, entry.route)} {name}"
            if action.options.timeout is not None and math.isinf(action.options.timeout):
                msg, cure = f"{entry.handler}.{action.name} has no timeout", "set one, as @async_action(timeout=60)"
                yield Finding("warning", "no_timeout", place, msg, cure)
            if action.name == "list" and _is_unpaginated(entry):
                msg = f"{entry.handler}.list returns all rows at once"
                yield Finding("warning", "no_pagination", place, msg, "set its pagination_class")


def _is_unpaginated(entry: Entry) -> bool:
    cls = entry.mounted and entry.mounted.handler_class
    return hasattr(cls, "pagination_class") and entry.mounted.attribute("pagination_class") is None  # type: ignore[union-attr]


def _loose_limits(app: WSAction) -> Iterator[Finding]:
    """Limits too large to have an effect."""
    owners: dict[str, Limits] = {"WSAction(limits=...)": app.runtime.limits}
    for leaf in app.router.leaves:
        cls = getattr(leaf.endpoint.view, "handler_class", None)
        if cls is not None and cls.limits is not None:
            owners[f"{cls.__name__}.limits"] = cls.limits
    for owner, limits in owners.items():
        for field in fields(limits):
            value = getattr(limits, field.name)
            if value > (MAX_SECONDS if field.type is float else MAX_COUNT):
                msg, cure = f"{field.name}={value:g} is no effective limit", f"the default is {field.default:g}"
                yield Finding("warning", "loose_limit", owner, msg, cure)


# exposure
def _exposure(app: WSAction) -> Iterator[Finding]:
    if app.debug:
        msg = "clients receive tracebacks and the names of routes and actions"
        yield Finding("warning", "debug", "WSAction(debug=True)", msg, "remove it in production")
    if not (app.runtime.hosts.allowed_hosts or app.runtime.origins.allowed_origins):
        msg = "unless it is served on a loopback address, pages of any host name that resolves to it may connect"
        cure = "list its host names: allowed_hosts=['example.com']"
        yield Finding("warning", "any_host", "WSAction(allowed_hosts=...)", msg, cure)
    classes = app.runtime.authenticator.classes if app.runtime.authenticator is not None else ()
    has_cookies = any(isinstance(authentication, SessionAuthentication) for authentication in classes)
    if has_cookies and "*" in app.runtime.origins.allowed_origins:
        msg = "pages of any origin may connect with the cookies of their visitors"
        cure = "list the trusted origins"
        yield Finding("error", "any_origin", "WSAction(allowed_origins=['*'])", msg, cure)


# several processes
def _memory_only(app: WSAction, entries: list[Entry], workers: int) -> Iterator[Finding]:
    """State in memory that several processes do not share."""
    if isinstance(app.runtime.layer, MemoryLayer | None) and _publishes(app):
        msg = f"with {workers} workers, an event reaches only the clients of the worker that published it"
        cure = "set WSAction(layer=RedisLayer('redis://...')), from wsaction.layers.redis"
        yield Finding("error", "memory_layer", "WSAction(layer=...)", msg, cure)
    throttled = [entry for entry in entries if _has_memory_throttles(entry)]
    if throttled:
        msg = f"with {workers} workers, each counts for itself, so rates are up to {workers} times as high"
        cure = "set SimpleRateThrottle.store = RedisThrottleStore('redis://...'), from wsaction.layers.throttles"
        yield Finding("warning", "memory_throttles", _place(throttled[0].connection, throttled[0].route), msg, cure)


def _publishes(app: WSAction) -> bool:
    return any(table.is_live or table.broadcasts for _, table in _tables(app.router))


def _has_memory_throttles(entry: Entry) -> bool:
    plans = {} if entry.mounted is None else entry.mounted.plans
    throttles = [throttle for plan in plans.values() for _, asked in plan.throttles for throttle in asked or ()]
    return any(
        isinstance(throttle, SimpleRateThrottle)
        and not isinstance(throttle, ConnectionRateThrottle)
        and isinstance(throttle.store, MemoryThrottleStore)
        for throttle in throttles
    )
