"""Checks: what an app's declarations say that its author may not have meant. Nothing is run for it."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal

from wsaction._handlers.action import ActionOptions
from wsaction._handlers.mounts import MountedHandler
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
from wsaction.routing._resolver import Leaf
from wsaction.routing._unreachable import shadows
from wsaction.throttling import BaseThrottle, ConnectionRateThrottle, MemoryThrottleStore, SimpleRateThrottle

__all__ = ("Finding", "check")

LONGEST = 86_400  # seconds
LARGEST = 1_073_741_824  # bytes, and whatever else is counted


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
    found = [*_hidden(app.router), *_miswritten(app.router), *_misspelt(handlers), *_unused(handlers)]
    found += [
        *_open(entries),
        *_asked_of_objects(entries),
        *_overheard(app),
        *_taken(entries),
        *_endless(entries),
        *_loose(app),
        *_exposed(app),
    ]
    if workers > 1:
        found += _unshared(app, entries, workers)
    return sorted(found, key=lambda one: one.level)


# routes
def _hidden(router: Router) -> Iterator[Finding]:
    """Routes that are never reached."""
    yield from _hidden_in(router, "")
    seen: set[Any] = set()
    for leaf in router.leaves:
        view: Any = leaf.endpoint.view
        if (table := getattr(view, "table", None)) is not None and view.handler_class not in seen:
            seen.add(view.handler_class)
            yield from _hidden_in(table.router, leaf.route)


def _hidden_in(router: Router, connection: str) -> Iterator[Finding]:
    for one in shadows(router):
        place, by = _place(connection, one.hidden.route), f"{one.by.route!r}, declared before it"
        if one.is_duplicate:
            cure = "remove one of the two, or give its actions to one handler"
            yield Finding("error", "duplicate_route", place, f"never reached: it is the same as {by}", cure)
        else:
            msg = f"never reached: {one.example!r} and all like it go to {by}"
            yield Finding("error", "shadowed_route", place, msg, "declare it before that one")


def _place(connection: str, route: str) -> str:
    return f"{connection or '(root)'} {route}".strip()


def _miswritten(router: Router) -> Iterator[Finding]:
    """Patterns that are written as those of another router."""
    yield from _miswritten_in(router.leaves, "")
    for leaf in router.leaves:
        if (table := getattr(leaf.endpoint.view, "table", None)) is not None:
            yield from _miswritten_in(table.router.leaves, leaf.route)


def _miswritten_in(leaves: list[Leaf], connection: str) -> Iterator[Finding]:
    seen: set[Pattern] = set()
    for leaf in leaves:
        first = next((one for one in leaf.patterns if one.source), None)
        for one in leaf.patterns:
            if one in seen:
                continue
            seen.add(one)
            place = _place(connection, leaf.route)
            if one is first and one.source.removeprefix("^").startswith("/"):
                msg = f"{one.source!r} begins with '/', and what is matched never does"
                yield Finding("warning", "leading_slash", place, msg, "write it without that '/'")
            if one.is_regex:
                continue
            if "(?P<" in one.source or one.source.startswith("^") or one.source.endswith("$"):
                msg = f"{one.source!r} is a regular expression, which path() takes for text"
                yield Finding("warning", "regex_in_path", place, msg, "use re_path()")
            for braces, name, kind in _BRACES.findall(one.source):
                angles = f"<{kind}:{name}>" if kind else f"<{name}>"
                msg = f"{braces} is text here, and captures nothing"
                yield Finding("warning", "braces_in_path", place, msg, f"write {angles}")


_BRACES = re.compile(r"(\{(\w+)(?::(\w+))?\})")


# attributes
def _handlers(router: Router) -> dict[Any, tuple[str, MountedHandler]]:
    """Every class of handlers, with the first place where it is mounted."""
    handlers: dict[Any, tuple[str, MountedHandler]] = {}
    for leaf in router.leaves:
        if (table := getattr(leaf.endpoint.view, "table", None)) is None:
            continue
        mounted = [(_place(leaf.route, ""), table.root)]
        for below in table.router.leaves:
            place = _place(leaf.route, below.route)
            mounted += [(place, one) for one in (*below.endpoint.view.above, below.endpoint.view)]
        for place, one in mounted:
            handlers.setdefault(one.handler_class, (place, one))
    return handlers


def _misspelt(handlers: Mapping[Any, tuple[str, MountedHandler]]) -> Iterator[Finding]:
    """Attributes that look like those that are read, and are not: what is surely misspelt is refused before."""
    seen: set[tuple[Any, str]] = set()
    for cls, (place, mounted) in handlers.items():
        read = framework_names(cls)
        settings = [name for name, value in read.items() if not is_code(value)]
        actions = [action.options for action in mounted.actions.values()]
        for base, name, value in user_attributes(cls):
            if name in read or is_code(value) or (base, name) in seen:
                continue
            seen.add((base, name))
            near = get_close_matches(name, settings, 1, cutoff=0.85)
            if (policy := _policy(value)) is not None:
                decides, is_used = getattr(cls, f"decides_{policy}s"), any(value is one for one in _used(actions))
                if not (decides or is_used or name.isupper() or name.endswith((f"_{policy}s", f"_{policy}_classes"))):
                    msg = f"{base.__name__}.{name} holds {policy}s, and nothing asks them"
                    yield Finding("error", "unused_policy", place, msg, f"call it {policy}_classes")
            elif name in ("middleware", "hooks", "layer"):
                msg, cure = f"{base.__name__}.{name} is no attribute that a handler has", f"WSAction([...], {name}=...)"
                yield Finding("warning", "unknown_attribute", place, msg, cure)
            elif near and not name.endswith(f"_{near[0]}"):  # which is a name of one's own
                msg = f"{base.__name__}.{name} is no attribute that a handler has"
                yield Finding("warning", "unknown_attribute", place, msg, f"did you mean {near[0]}?")


def _policy(value: Any) -> str | None:
    """What an attribute holds, one or several in a tuple or list: permissions or throttles; None: neither."""
    entries = value if isinstance(value, list | tuple) else (value,)
    for policy, kinds in (("permission", (BasePermission, Composition)), ("throttle", (BaseThrottle,))):
        if entries and all(
            issubclass(one, kinds) if isinstance(one, type) else isinstance(one, kinds) for one in entries
        ):
            return policy
    return None


def _used(actions: list[ActionOptions]) -> Iterator[Any]:
    """What the decorators of actions were given for policies."""
    for options in actions:
        yield from (options.permission_classes, options.throttle_classes)
        yield from (*(options.permission_classes or ()), *(options.throttle_classes or ()))


_READERS: Mapping[str, Any] = {
    "filter_fields": FieldFilter,
    "search_fields": SearchFilter,
    "ordering_fields": OrderingFilter,
    "ordering": OrderingFilter,
}


def _unused(handlers: Mapping[Any, tuple[str, MountedHandler]]) -> Iterator[Finding]:
    """Attributes that nothing reads, for want of what would."""
    for cls, (place, mounted) in handlers.items():
        if mounted.attribute("events") and not hasattr(cls, "_event_types"):
            msg = f"{cls.__name__} has events, and nobody can subscribe to it"
            yield Finding("warning", "no_subscribe", place, msg, "put SubscribeMixin first among its bases")
        backends = [one if isinstance(one, type) else type(one) for one in mounted.attribute("filter_backends") or ()]
        own = [one for one in backends if one not in _READERS.values()]  # which may read anything
        if own or getattr(cls, "decides_query", True):
            continue
        for name, reader in _READERS.items():
            if mounted.attribute(name) and reader not in backends:
                msg = f"{cls.__name__}.{name} counts for nothing without {reader.__name__}"
                cure = f"add {reader.__name__} to its filter_backends, or leave {name} out"
                yield Finding("warning", "unused_filter", place, msg, cure)


def _taken(entries: list[Entry]) -> Iterator[Finding]:
    """Parameters that a dependency is given, and an action is told by the client."""
    seen: set[tuple[str, str, str]] = set()
    for entry in entries:
        for told, action in entry.actions.items():
            for name in {one.name for one in action.own_inputs} & {"scope", "user"}:
                if re.search(rf"[<:]{name}>", entry.connection + entry.route) or (entry.handler, told, name) in seen:
                    continue
                seen.add((entry.handler, told, name))
                msg = f"{entry.handler}.{action.name} has a parameter {name}, which is whatever the client sends"
                cure = f"use self.{name}, or call it otherwise where clients are to say it"
                place = f"{_place(entry.connection, entry.route)} {told}"
                yield Finding("warning", "client_input", place, msg, cure)


# permissions
def _open(entries: list[Entry]) -> Iterator[Finding]:
    """Handlers of which nobody has said who may use them."""
    seen: set[Any] = set()
    for entry in entries:
        cls = entry.mounted and entry.mounted.handler_class
        silent = [told for told, action in entry.actions.items() if not entry.permissions(action)]
        if not silent or cls in seen:
            continue
        seen.add(cls)
        msg = f"{entry.handler} asks no permission: whoever is connected may {', '.join(silent)}"
        cure = "set its permission_classes, to (AllowAny,) where it is meant so"
        yield Finding("warning", "no_permissions", _place(entry.connection, entry.route), msg, cure)


def _asked_of_objects(entries: list[Entry]) -> Iterator[Finding]:
    """Permissions that are about objects, of handlers that have none."""
    seen: set[Any] = set()
    for entry in entries:
        if entry.mounted is None or (cls := entry.mounted.handler_class) in seen or hasattr(cls, "get_object"):
            continue
        seen.add(cls)
        plans = entry.mounted.plans.items()
        owned = [told for told, plan in plans if (own := plan.permissions) and own.on_object and not own.on_action]
        if owned:
            msg = f"{entry.handler} has permissions for objects alone, and no get_object() that asks them"
            cure = f"await self.check_object_permissions(obj) in {', '.join(owned)}, or define has_permission"
            yield Finding("warning", "object_permissions", _place(entry.connection, entry.route), msg, cure)


def _overheard(app: WSAction) -> Iterator[Finding]:
    """Broadcasts that not everybody may tell, and everybody hears."""
    if app.runtime.authenticator is not None and app.runtime.authenticator.first_frame:
        return  # nobody hears any before
    for leaf in app.router.leaves:
        if (table := getattr(leaf.endpoint.view, "table", None)) is None:
            continue
        permissions = table.root.no_such_action.permissions
        if permissions is None or permissions.on_connect is not None:
            continue
        plans = [plan for one in table.mounted for plan in one.plans.values()]
        told = [one.name for one in plans if one.action and one.action.options.mode == "broadcast" and one.asked]
        if told:
            name = table.root.handler_class.__name__
            msg = f"whoever may connect hears what {', '.join(dict.fromkeys(told))} of {name} broadcasts"
            cure = f"{name}.permission_classes = (IsAuthenticatedStrictly,), or a permission with can_connect()"
            yield Finding("warning", "open_broadcasts", _place(leaf.route, ""), msg, cure)


# bounds
def _endless(entries: list[Entry]) -> Iterator[Finding]:
    """Actions without an end, and lists."""
    seen: set[Any] = set()
    for entry in entries:
        for told, action in entry.actions.items():
            key, place = (entry.handler, action.name), f"{_place(entry.connection, entry.route)} {told}"
            if key in seen:
                continue
            seen.add(key)
            if action.options.timeout is not None and math.isinf(action.options.timeout):
                msg, cure = f"{entry.handler}.{action.name} has no timeout", "give it one: @async_action(timeout=60)"
                yield Finding("warning", "no_timeout", place, msg, cure)
            if action.name == "list" and _is_unpaginated(entry):
                msg = f"{entry.handler}.list answers every row at once"
                yield Finding("warning", "no_pagination", place, msg, "set its pagination_class")


def _is_unpaginated(entry: Entry) -> bool:
    cls = entry.mounted and entry.mounted.handler_class
    return hasattr(cls, "pagination_class") and entry.mounted.attribute("pagination_class") is None  # type: ignore[union-attr]


def _loose(app: WSAction) -> Iterator[Finding]:
    """Bounds so wide that they are none."""
    owners: dict[str, Limits] = {"WSAction(limits=...)": app.runtime.limits}
    for leaf in app.router.leaves:
        cls = getattr(leaf.endpoint.view, "handler_class", None)
        if cls is not None and cls.limits is not None:
            owners[f"{cls.__name__}.limits"] = cls.limits
    for owner, limits in owners.items():
        for field in fields(limits):
            value, most = getattr(limits, field.name), LONGEST if field.type is float else LARGEST
            if value > most:
                msg, cure = f"{field.name}={value:g} bounds nothing", f"the default is {field.default:g}"
                yield Finding("warning", "loose_limit", owner, msg, cure)


# what strangers get
def _exposed(app: WSAction) -> Iterator[Finding]:
    if app.debug:
        msg = "clients are told tracebacks, and which routes and actions there are"
        yield Finding("warning", "debug", "WSAction(debug=True)", msg, "leave it out where strangers connect")
    if not (app.runtime.hosts.allowed_hosts or app.runtime.origins.allowed_origins):
        msg = "unless it is served on a loopback address, a page of any name that was pointed at it may connect"
        cure = "list the names that it is reached by: allowed_hosts=['example.com']"
        yield Finding("warning", "any_host", "WSAction(allowed_hosts=...)", msg, cure)
    ways = app.runtime.authenticator.classes if app.runtime.authenticator is not None else ()
    if "*" in app.runtime.origins.allowed_origins and any(isinstance(one, SessionAuthentication) for one in ways):
        msg = "pages of any origin may connect with the cookies of whoever looks at them"
        cure = "list the origins that are yours"
        yield Finding("error", "any_origin", "WSAction(allowed_origins=['*'])", msg, cure)


# several processes
def _unshared(app: WSAction, entries: list[Entry], workers: int) -> Iterator[Finding]:
    """What each of several processes has for itself."""
    if isinstance(app.runtime.layer, MemoryLayer | None) and _publishes(app):
        msg = f"{workers} workers, and an event reaches only those who are connected to the one that published it"
        cure = "WSAction(layer=RedisLayer('redis://...')), of wsaction.layers.redis"
        yield Finding("error", "memory_layer", "WSAction(layer=...)", msg, cure)
    kept = [entry for entry in entries if _counts_here(entry)]
    if kept:
        msg = f"{workers} workers, each of which counts for itself: rates are {workers} times what they say"
        cure = "SimpleRateThrottle.store = RedisThrottleStore('redis://...'), of wsaction.layers.throttles"
        yield Finding("warning", "memory_throttles", _place(kept[0].connection, kept[0].route), msg, cure)


def _publishes(app: WSAction) -> bool:
    tables: list[Any] = [getattr(leaf.endpoint.view, "table", None) for leaf in app.router.leaves]
    return any(table is not None and (table.is_live or table.broadcasts) for table in tables)


def _counts_here(entry: Entry) -> bool:
    plans = {} if entry.mounted is None else entry.mounted.plans
    asked = [throttle for plan in plans.values() for _, throttles in plan.throttles for throttle in throttles or ()]
    return any(
        isinstance(one, SimpleRateThrottle)
        and not isinstance(one, ConnectionRateThrottle)
        and isinstance(one.store, MemoryThrottleStore)
        for one in asked
    )
