"""Attributes of handlers that are right elsewhere: in the app, in a permission or paginator, or in another framework.

Each would be silent, and some would leave an endpoint open. A name alone is no proof: an application may use it for
something of its own. So its value has the other framework's kind, and no method of the class mentions it.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import CellType
from typing import Any

from wsaction._handlers.action import OPTIONS_ATTRIBUTE, Action, ActionOptions
from wsaction._utils.misspellings import get_framework_attributes, names_in, user_attributes
from wsaction.exceptions import ImproperlyConfigured
from wsaction.hooks import Hooks
from wsaction.permissions import BasePermission, Composition
from wsaction.routing._patterns import Endpoint, Include
from wsaction.throttling import BaseThrottle


def _is_text_or_names(value: Any) -> bool:
    return isinstance(value, str) or _holds(value, str)


def _holds(value: Any, *kinds: type) -> bool:
    """Whether it is a list or tuple of such objects, and not empty."""
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, kinds) for item in value)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_guard(name: str, value: Any) -> bool:
    """Whether a method is that of another framework. ``has_permission`` with a parameter is one of the application."""
    return inspect.isfunction(value) and (not name.startswith("has_") or len(inspect.signature(value).parameters) == 1)


_PERMISSIONS = "set permission_classes = (IsAuthenticated,), or a permission of your own"
_PAGES = "it is a setting of the paginator: pagination_class = PageNumberPagination(page_size=20)"
_ELSEWHERE: Mapping[str, tuple[Callable[[Any], bool], str]] = {  # the kind of the value, and the cure
    "debug": (_is_bool, "it is a setting of the app: WSAction([...], debug=True)"),
    "hooks": (lambda value: _holds(value, Hooks), "it is a setting of the app: WSAction([...], hooks=[...])"),
    "layer": (lambda value: hasattr(value, "subscribe"), "it is a setting of the app: WSAction([...], layer=...)"),
    "login_required": (_is_bool, _PERMISSIONS),
    "authentication_required": (_is_bool, _PERMISSIONS),
    "permission_required": (_is_text_or_names, _PERMISSIONS),
    "permission_denied_message": (_is_text_or_names, "it is the attribute `message` of the permission"),
    "throttle_rate": (_is_text_or_names, "set throttle_classes = (UserRateThrottle('100/min'),)"),
    "throttle_rates": (lambda value: isinstance(value, dict), "it is THROTTLE_RATES of the throttle's class"),
    "page_size": (lambda value: type(value) is int, _PAGES),
    "max_page_size": (lambda value: type(value) is int, _PAGES),
    "paginate_by": (lambda value: type(value) is int, _PAGES),
    "filterset_fields": (_is_text_or_names, "set filter_backends = (FieldFilter,) and filter_fields"),
}
_GUARDS = {  # methods of permissions, and of views and consumers of other frameworks
    "authenticate",
    "can_connect",
    "get_permission_classes",
    "has_object_permission",
    "has_permission",
    "on_connect",
    "test_func",
    "websocket_connect",
}


def refuse_misplaced(cls: type) -> None:
    """Raises `ImproperlyConfigured` for attributes of a new class that nothing reads there."""
    for base, name, value in _unused_attributes(cls, lambda name, value: name in _ELSEWHERE or name in _GUARDS):
        is_kind, cure = _ELSEWHERE.get(name, (partial(_is_guard, name), _PERMISSIONS + ", or override connect()"))
        if is_kind(value):
            raise ImproperlyConfigured(
                f"{base.__qualname__}.{name} has no effect, because nothing reads it; {cure}. If it is your own "
                "attribute, give it another name"
            )
    for base, name, _ in _unused_attributes(cls, lambda name, value: _holds(value, Endpoint, Include)):
        raise ImproperlyConfigured(
            f"{base.__qualname__}.{name} holds patterns, but nothing reads it; rename it to routepatterns"
        )


def refuse_unused_policies(cls: Any, actions: Mapping[str, Action]) -> None:
    """Raises `ImproperlyConfigured` if a class that is mounted holds permissions or throttles that nothing asks."""
    options = [action.options for action in actions.values()]
    for base, name, value in _unused_attributes(cls, lambda name, value: _policy(value) is not None):
        policy = _policy(value)
        is_own = name.isupper() or name.endswith((f"_{policy}s", f"_{policy}_classes"))
        is_used = any(value is used for used in _action_policies(options))
        if not (is_own or is_used or getattr(cls, f"overrides_{policy}s")):
            raise ImproperlyConfigured(
                f"{base.__qualname__}.{name} holds {policy}s, but nothing reads it; rename it to {policy}_classes"
            )


def refuse_policies_of_function(where: str, function: Any) -> None:
    """Raises `ImproperlyConfigured` for ``act.permission_classes = ...``, as DRF's decorators set it."""
    for name in ("permission_classes", "throttle_classes"):
        if hasattr(function, name):
            raise ImproperlyConfigured(f"{where}.{name} has no effect on the function; write @async_action({name}=...)")


def hides_action(value: Any) -> bool:
    """Whether another decorator has hidden an action, without its options, so that no client could call it."""
    if inspect.isfunction(value):
        inner = [part for part in map(_content, value.__closure__ or ()) if inspect.isfunction(part)]
    elif isinstance(value, type):
        return False
    else:
        slots = (getattr(value, name, None) for name in ("fget", "func", "__wrapped__"))
        inner = [part for part in (*slots, *getattr(value, "__dict__", {}).values()) if inspect.isfunction(part)]
    return any(isinstance(vars(part).get(OPTIONS_ATTRIBUTE), ActionOptions) for part in inner)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is bound later
        return None


def _unused_attributes(cls: type, is_suspect: Callable[[str, Any], bool]) -> Iterator[tuple[type, str, Any]]:
    """The suspect attributes of a class that neither wsaction nor a method of the class reads."""
    suspects = [(base, name, value) for base, name, value in user_attributes(cls) if is_suspect(name, value)]
    if suspects:
        known = get_framework_attributes(cls).keys() | names_in(cls)
        yield from (suspect for suspect in suspects if suspect[1] not in known and not _is_action(suspect[2]))


def _is_action(value: Any) -> bool:
    return isinstance(getattr(value, OPTIONS_ATTRIBUTE, None), ActionOptions)


def _policy(value: Any) -> str | None:
    """The kind of policy that an attribute holds, alone or in a tuple or list; None if it holds none."""
    entries = value if isinstance(value, list | tuple) else (value,)
    for policy, kinds in (("permission", (BasePermission, Composition)), ("throttle", (BaseThrottle,))):
        classes = [entry if isinstance(entry, type) else type(entry) for entry in entries]
        if classes and all(issubclass(cls, kinds) for cls in classes):
            return policy
    return None


def _action_policies(actions: list[ActionOptions]) -> Iterator[Any]:
    """The policies given to ``@async_action``, both the collections and their items."""
    for options in actions:
        yield from (options.permission_classes, options.throttle_classes)
        yield from (*(options.permission_classes or ()), *(options.throttle_classes or ()))
