"""Checks: what an app's declarations say that its author may not have meant. Nothing is run for it."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal

from wsaction._handlers.action import ActionOptions
from wsaction._handlers.mounts import MountedHandler
from wsaction._handlers.route_table import RouteTable
from wsaction._utils.misspellings import framework_names, is_code, user_attributes
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
from wsaction.routing._unreachable import shadows
from wsaction.throttling import BaseThrottle, ConnectionRateThrottle, MemoryThrottleStore, SimpleRateThrottle

__all__ = ("Finding", "check")

MAX_SECONDS = 86_400
MAX_COUNT = 1_073_741_824  # bytes, and whatever else is counted


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong (``error``), or that is only right where it is meant (``warning``).

    ``code`` names it for programs; ``place``, ``msg`` and ``cure`` are for people.
    """

    level: Literal["error", "warning"]
    code: str
    place: str
    msg: str
    cure: str


def check(app: WSAction, workers: int = 1) -> list[Finding]:
    """What there is to find in an app that so many processes are to serve; errors first."""
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
    """The routes of each connection."""
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
    for shadow in shadows(router):
        place, by = _place(connection, shadow.hidden.route), f"{shadow.by.route!r}, declared before it"
        if shadow.is_duplicate:
            cure = "remove one of the two, or give its actions to one handler"
            yield Finding("error", "duplicate_route", place, f"never reached: it is the same as {by}", cure)
        else:
            msg = f"never reached: {shadow.example!r} and all like it go to {by}"
            yield Finding("error", "shadowed_route", place, msg, "declare it before that one")


def _place(connection: str, route: str) -> str:
    return f"{connection or '(root)'} {route}".strip()


def _foreign_patterns(router: Router) -> Iterator[Finding]:
    """Patterns that are written as those of another router."""
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
                msg = f"{source!r} begins with '/', and what is matched never does"
                yield Finding("warning", "leading_slash", place, msg, "write it without that '/'")
            if pattern.is_regex:
                continue
            if "(?P<" in source or source.startswith("^") or source.endswith("$"):
                msg = f"{source!r} is a regular expression, which path() takes for text"
                yield Finding("warning", "regex_in_path", place, msg, "use re_path()")
            for braces, name, converter in _BRACES.findall(source):
                cure = f"write <{converter}:{name}>" if converter else f"write <{name}>"
                msg = f"{braces} is text here, and captures nothing"
                yield Finding("warning", "braces_in_path", place, msg, cure)


_BRACES = re.compile(r"(\{(\w+)(?::(\w+))?\})")


# attributes
def _handlers(router: Router) -> dict[Any, tuple[str, MountedHandler]]:
    """Every class of handlers, with the first place where it is mounted."""
    handlers: dict[Any, tuple[str, MountedHandler]] = {}
    for connection, table in _tables(router):
        handlers.setdefault(table.root.handler_class, (_place(connection, ""), table.root))
        for leaf in table.router.leaves:
            mounted: MountedHandler = leaf.endpoint.view
            for handler in (*mounted.above, mounted):
                handlers.setdefault(handler.handler_class, (_place(connection, leaf.route), handler))
    return handlers


def _unknown_attributes(handlers: Mapping[Any, tuple[str, MountedHandler]]) -> Iterator[Finding]:
    """Attributes that look like those that are read, and are not: what is surely misspelt is refused before."""
    seen: set[tuple[Any, str]] = set()
    for cls, (place, mounted) in handlers.items():
        known = framework_names(cls)
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
                if not (is_own or is_used or getattr(cls, f"decides_{policy}s")):
                    msg = f"{base.__name__}.{name} holds {policy}s, and nothing asks them"
                    yield Finding("error", "unused_policy", place, msg, f"call it {policy}_classes")
            elif name in ("middleware", "hooks", "layer"):
                msg = f"{base.__name__}.{name} is no attribute that a handler has"
                yield Finding("warning", "unknown_attribute", place, msg, f"WSAction([...], {name}=...)")
            elif near and not name.endswith(f"_{near[0]}"):  # which is a name of one's own
                msg = f"{base.__name__}.{name} is no attribute that a handler has"
                yield Finding("warning", "unknown_attribute", place, msg, f"did you mean {near[0]}?")


def _policy(value: Any) -> str | None:
    """What an attribute holds, one or several in a tuple or list: permissions or throttles; None: neither."""
    entries = value if isinstance(value, list | tuple) else (value,)
    for policy, kinds in (("permission", (BasePermission, Composition)), ("throttle", (BaseThrottle,))):
        classes = [entry if isinstance(entry, type) else type(entry) for entry in entries]
        if classes and all(issubclass(cls, kinds) for cls in classes):
            return policy
    return None


def _action_policies(actions: list[ActionOptions]) -> Iterator[Any]:
    """What the decorators of actions were given for policies."""
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
    """Attributes that nothing reads, for want of what would."""
    for cls, (place, mounted) in handlers.items():
        if mounted.attribute("events") and not hasattr(cls, "_event_types"):
            msg = f"{cls.__name__} has events, and nobody can subscribe to it"
            yield Finding("warning", "no_subscribe", place, msg, "put SubscribeMixin first among its bases")
        backends = mounted.attribute("filter_backends") or ()
        classes = {backend if isinstance(backend, type) else type(backend) for backend in backends}
        if classes - {*_FILTER_ATTRIBUTES.values()} or getattr(cls, "decides_query", True):
            continue  # the application's own backends and methods may read anything
        for name, reader in _FILTER_ATTRIBUTES.items():
            if mounted.attribute(name) and reader not in classes:
                msg = f"{cls.__name__}.{name} counts for nothing without {reader.__name__}"
                cure = f"add {reader.__name__} to its filter_backends, or leave {name} out"
                yield Finding("warning", "unused_filter", place, msg, cure)


def _client_inputs(entries: list[Entry]) -> Iterator[Finding]:
    """Parameters that a dependency is given, and an action is told by the client."""
    seen: set[tuple[str, str, str]] = set()
    for entry in entries:
        for action_name, action in entry.actions.items():
            for name in {parameter.name for parameter in action.own_inputs} & {"scope", "user"}:
                key = (entry.handler, action_name, name)
                if key in seen or re.search(rf"[<:]{name}>", entry.connection + entry.route):
                    continue
                seen.add(key)
                msg = f"{entry.handler}.{action.name} has a parameter {name}, which is whatever the client sends"
                cure = f"use self.{name}, or call it otherwise where clients are to say it"
                place = f"{_place(entry.connection, entry.route)} {action_name}"
                yield Finding("warning", "client_input", place, msg, cure)


# permissions
def _missing_permissions(entries: list[Entry]) -> Iterator[Finding]:
    """Handlers of which nobody has said who may use them."""
    seen: set[Any] = set()
    for entry in entries:
        cls = entry.mounted and entry.mounted.handler_class
        unprotected = [name for name, action in entry.actions.items() if not entry.permissions(action)]
        if not unprotected or cls in seen:
            continue
        seen.add(cls)
        msg = f"{entry.handler} asks no permission: whoever is connected may {', '.join(unprotected)}"
        cure = "set its permission_classes, to (AllowAny,) where it is meant so"
        yield Finding("warning", "no_permissions", _place(entry.connection, entry.route), msg, cure)


def _object_permissions(entries: list[Entry]) -> Iterator[Finding]:
    """Permissions that are about objects, of handlers that have none."""
    seen: set[Any] = set()
    for entry in entries:
        if entry.mounted is None or (cls := entry.mounted.handler_class) in seen or hasattr(cls, "get_object"):
            continue
        seen.add(cls)
        plans = [(name, plan.permissions) for name, plan in entry.mounted.plans.items() if plan.permissions]
        names = [name for name, permissions in plans if permissions.on_object and not permissions.on_action]
        if names:
            msg = f"{entry.handler} has permissions for objects alone, and no get_object() that asks them"
            cure = f"await self.check_object_permissions(obj) in {', '.join(names)}, or define has_permission"
            yield Finding("warning", "object_permissions", _place(entry.connection, entry.route), msg, cure)


def _open_broadcasts(app: WSAction) -> Iterator[Finding]:
    """Broadcasts that not everybody may tell, and everybody hears."""
    if app.runtime.authenticator is not None and app.runtime.authenticator.first_frame:
        return  # nobody hears any before
    for connection, table in _tables(app.router):
        permissions = table.root.no_such_action.permissions
        if permissions is None or permissions.on_connect is not None:
            continue
        plans = [plan for mounted in table.mounted for plan in mounted.plans.values() if plan.action and plan.asked]
        names = [str(plan.name) for plan in plans if plan.action.options.mode == "broadcast"]
        if names:
            consumer = table.root.handler_class.__name__
            msg = f"whoever may connect hears what {', '.join(dict.fromkeys(names))} of {consumer} broadcasts"
            cure = f"{consumer}.permission_classes = (IsAuthenticatedStrictly,), or a permission with can_connect()"
            yield Finding("warning", "open_broadcasts", _place(connection, ""), msg, cure)


# bounds
def _unbounded_actions(entries: list[Entry]) -> Iterator[Finding]:
    """Actions without an end, and lists."""
    seen: set[Any] = set()
    for entry in entries:
        for name, action in entry.actions.items():
            key = (entry.handler, action.name)
            if key in seen:
                continue
            seen.add(key)
            place = f"{_place(entry.connection, entry.route)} {name}"
            if action.options.timeout is not None and math.isinf(action.options.timeout):
                msg, cure = f"{entry.handler}.{action.name} has no timeout", "give it one: @async_action(timeout=60)"
                yield Finding("warning", "no_timeout", place, msg, cure)
            if action.name == "list" and _is_unpaginated(entry):
                msg = f"{entry.handler}.list answers every row at once"
                yield Finding("warning", "no_pagination", place, msg, "set its pagination_class")


def _is_unpaginated(entry: Entry) -> bool:
    cls = entry.mounted and entry.mounted.handler_class
    return hasattr(cls, "pagination_class") and entry.mounted.attribute("pagination_class") is None  # type: ignore[union-attr]


def _loose_limits(app: WSAction) -> Iterator[Finding]:
    """Bounds so wide that they are none."""
    owners: dict[str, Limits] = {"WSAction(limits=...)": app.runtime.limits}
    for leaf in app.router.leaves:
        cls = getattr(leaf.endpoint.view, "handler_class", None)
        if cls is not None and cls.limits is not None:
            owners[f"{cls.__name__}.limits"] = cls.limits
    for owner, limits in owners.items():
        for field in fields(limits):
            value = getattr(limits, field.name)
            if value > (MAX_SECONDS if field.type is float else MAX_COUNT):
                msg, cure = f"{field.name}={value:g} bounds nothing", f"the default is {field.default:g}"
                yield Finding("warning", "loose_limit", owner, msg, cure)


# what strangers get
def _exposure(app: WSAction) -> Iterator[Finding]:
    if app.debug:
        msg = "clients are told tracebacks, and which routes and actions there are"
        yield Finding("warning", "debug", "WSAction(debug=True)", msg, "leave it out where strangers connect")
    if not (app.runtime.hosts.allowed_hosts or app.runtime.origins.allowed_origins):
        msg = "unless it is served on a loopback address, a page of any name that was pointed at it may connect"
        cure = "list the names that it is reached by: allowed_hosts=['example.com']"
        yield Finding("warning", "any_host", "WSAction(allowed_hosts=...)", msg, cure)
    classes = app.runtime.authenticator.classes if app.runtime.authenticator is not None else ()
    has_cookies = any(isinstance(authentication, SessionAuthentication) for authentication in classes)
    if has_cookies and "*" in app.runtime.origins.allowed_origins:
        msg = "pages of any origin may connect with the cookies of whoever looks at them"
        cure = "list the origins that are yours"
        yield Finding("error", "any_origin", "WSAction(allowed_origins=['*'])", msg, cure)


# several processes
def _memory_only(app: WSAction, entries: list[Entry], workers: int) -> Iterator[Finding]:
    """What each of several processes has for itself."""
    if isinstance(app.runtime.layer, MemoryLayer | None) and _publishes(app):
        msg = f"{workers} workers, and an event reaches only those who are connected to the one that published it"
        cure = "WSAction(layer=RedisLayer('redis://...')), of wsaction.layers.redis"
        yield Finding("error", "memory_layer", "WSAction(layer=...)", msg, cure)
    throttled = [entry for entry in entries if _has_memory_throttles(entry)]
    if throttled:
        msg = f"{workers} workers, each of which counts for itself: rates are {workers} times what they say"
        cure = "SimpleRateThrottle.store = RedisThrottleStore('redis://...'), of wsaction.layers.throttles"
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
