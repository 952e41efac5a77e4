"""Checks of an app's declarations for likely mistakes. They do not run the app."""

import ast
import http.client
import inspect
import math
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal

from wsaction._handlers.mounts import MountedHandler
from wsaction._handlers.route_table import RouteTable
from wsaction._utils.misspellings import get_framework_attributes, is_code, names_in, user_attributes
from wsaction.applications import WSAction
from wsaction.authentication import SessionAuthentication
from wsaction.cli._routes import Entry, inventory
from wsaction.filters import FieldFilter, OrderingFilter, SearchFilter
from wsaction.layers.memory import MemoryLayer
from wsaction.limits import Limits
from wsaction.routing import Router
from wsaction.routing._patterns import Pattern
from wsaction.routing._unreachable import find_unreachable
from wsaction.throttling import ConnectionRateThrottle, MemoryThrottleStore, SimpleRateThrottle

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
        *_unused_captures(entries),
        *_statuses_first(entries),
        *_missing_actions(app),
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
                yield Finding("error", "leading_slash", place, msg, "remove the '/'")
            if pattern.is_regex:
                continue
            if "(?P<" in source or source.startswith("^") or source.endswith("$"):
                msg = f"{source!r} is a regular expression, but path() treats it as plain text"
                yield Finding("error", "regex_in_path", place, msg, "use re_path()")
            for colon, name in _COLON.findall(source):
                msg = f"{colon} is plain text here and captures nothing"
                yield Finding("error", "braces_in_path", place, msg, f"write <{name}>")
            for braces, name, converter in _BRACES.findall(source):
                cure = f"write <{converter}:{name}>" if converter else f"write <{name}>"
                msg = f"{braces} is plain text here and captures nothing"
                yield Finding("error", "braces_in_path", place, msg, cure)


_BRACES = re.compile(r"(\{(\w+)(?::(\w+))?\})")
_COLON = re.compile(r"(?:^|(?<=/))(:(\w+))(?=/|$)")  # as Express writes captures


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
    for cls, (place, _) in handlers.items():
        known = get_framework_attributes(cls)
        settings = [name for name, value in known.items() if not is_code(value)]
        for base, name, value in user_attributes(cls):
            if name in known or is_code(value) or (base, name) in seen:
                continue
            seen.add((base, name))
            near = get_close_matches(name, settings, 1, cutoff=0.85)
            if name in ("middleware", "hooks", "layer"):
                msg = f"{base.__name__}.{name} is not an attribute of handlers"
                yield Finding("warning", "unknown_attribute", place, msg, f"write WSAction([...], {name}=...)")
            elif near and not name.endswith(f"_{near[0]}"):  # with a prefix it is a name of the application's own
                msg = f"{base.__name__}.{name} is not an attribute of handlers"
                yield Finding("warning", "unknown_attribute", place, msg, f"did you mean {near[0]}?")


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
            yield Finding("error", "no_subscribe", place, msg, "add SubscribeMixin as its first base class")
        backends = mounted.attribute("filter_backends") or ()
        classes = {backend if isinstance(backend, type) else type(backend) for backend in backends}
        if classes - {*_FILTER_ATTRIBUTES.values()} or getattr(cls, "overrides_query", True):
            continue  # the application's own backends and methods may read anything
        for name, reader in _FILTER_ATTRIBUTES.items():
            if mounted.attribute(name) and reader not in classes:
                msg = f"{cls.__name__}.{name} has no effect without {reader.__name__}"
                cure = f"add {reader.__name__} to its filter_backends, or remove {name}"
                yield Finding("error", "unused_filter", place, msg, cure)


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
                cure = f"use self.{name}; if clients should fill it, annotate it with its type, or rename it"
                place = f"{_place(entry.connection, entry.route)} {action_name}"
                level: Literal["error", "warning"] = "warning" if name in action.function.__annotations__ else "error"
                yield Finding(level, "client_input", place, msg, cure)


def _unused_captures(entries: list[Entry]) -> Iterator[Finding]:
    """Routes of objects whose captures neither the lookup nor anything else reads: each action there is a 404."""
    for entry in entries:
        cls: Any = entry.mounted and entry.mounted.handler_class
        if entry.mounted is None or not hasattr(cls, "lookup_field") or cls.overrides_object:
            continue
        captures = set(_CAPTURES.findall(entry.route))
        if "(" in entry.route and not captures:
            captures = {"an unnamed capture"}
        lookup = entry.mounted.attribute("lookup_url_kwarg") or entry.mounted.attribute("lookup_field")
        asked = [name for name, action in entry.actions.items() if action.name in _OBJECT_ACTIONS]
        inputs = {field.name for action in entry.actions.values() for field in action.inputs}
        if not asked or lookup in captures or not (unread := captures - inputs - _names_read_by(entry.mounted)):
            continue
        msg = f"{cls.__name__} looks for its object by {lookup}, but the route captures {', '.join(sorted(unread))}"
        cure = f"capture <{lookup}>, or set {cls.__name__}.lookup_url_kwarg"
        yield Finding("error", "unused_capture", _place(entry.connection, entry.route), msg, cure)


_CAPTURES = re.compile(r"<(?:\w+:)?(\w+)>")
_OBJECT_ACTIONS = ("retrieve", "update", "partial_update", "destroy")


def _names_read_by(mounted: MountedHandler) -> set[str]:
    """The names in the methods of a handler, of the handlers above it, and of their permissions."""
    names: set[str] = set()
    for handler in (*mounted.above, mounted):
        names |= names_in(handler.handler_class)
        for entry in handler.attribute("permission_classes"):
            for operand in getattr(entry, "operands", (entry,)):
                names |= names_in(operand if isinstance(operand, type) else type(operand))
                function = getattr(operand, "__code__", None)
                names |= set() if function is None else {*function.co_varnames, *function.co_names}
    return names


def _statuses_first(entries: list[Entry]) -> Iterator[Finding]:
    """Actions that return ``(201, data)`` or ``(data, "201")``, which is data and no status."""
    seen: set[Any] = set()
    for entry in entries:
        for action_name, action in entry.actions.items():
            if action.function in seen or action.returns_status is True or action.streams:
                continue
            seen.add(action.function)
            for first, second in _returned_pairs(action.function):
                if _is_status(first) and not _is_status(second):
                    text = f"({first}, ...)"
                elif isinstance(second, str) and second.isdecimal() and _is_status(int(second)):
                    text = f"(..., {second!r})"
                else:
                    continue
                msg = f"{entry.handler}.{action.name} returns {text}, all of which is data, with the status 200"
                place = f"{_place(entry.connection, entry.route)} {action_name}"
                yield Finding("error", "status_first", place, msg, "return (data, status), with an int for the status")


def _is_status(value: Any) -> bool:
    return type(value) is int and value in http.client.responses and value >= 200


def _returned_pairs(function: Any) -> Iterator[tuple[Any, Any]]:
    """The constants in the pairs that a function returns; None for any other expression. None without its source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # it was not defined in a file
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) == 2:
            first, second = (getattr(element, "value", None) for element in node.value.elts)
            yield first, second


def _missing_actions(app: WSAction) -> Iterator[Finding]:
    """Handlers that no client can call, although they have methods for it."""
    for cls, (place, mounted) in _handlers(app.router).items():
        if mounted.actions or cls.routepatterns:
            continue
        known, mentioned = get_framework_attributes(cls), names_in(cls)
        methods = [
            name
            for _, name, value in user_attributes(cls)
            if inspect.isfunction(value) and name not in known and name not in mentioned
        ]
        if methods:
            msg = f"{cls.__name__} has no actions, so clients can call none of {', '.join(methods)}"
            yield Finding("error", "no_actions", place, msg, f"decorate {methods[0]} with @async_action")


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
            may_check = "check_object_permissions" in names_in(cls) or any(
                action.dependencies is not None for action in entry.actions.values()
            )
            level: Literal["error", "warning"] = "warning" if may_check else "error"
            yield Finding(level, "object_permissions", _place(entry.connection, entry.route), msg, cure)


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
