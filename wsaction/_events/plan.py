"""The event settings of a handler, compiled: event types, history, and the objects that the events are about.

An `EventPlan` is compiled once for each place of a handler in the route table. The code that publishes or subscribes
reads it, and calls the handler only for what depends on the frame.
"""

from collections.abc import Callable
from functools import lru_cache
from inspect import getattr_static
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from wsaction._events.event_types import EventTypes
from wsaction._handlers.mounts import MountedHandler
from wsaction.filters import BaseFilterBackend, FieldFilter, OrderingFilter, SearchFilter
from wsaction.layers.base import History
from wsaction.querysets._base import NarrowingQuerySet
from wsaction.routers import lookup_name

if TYPE_CHECKING:
    from wsaction.handlers import AsyncAPIActionHandler


@lru_cache(256)
def _history(size: Any, ttl: Any, always: bool) -> History:
    return History(size, ttl, always)


def history(owner: Any) -> History | None:
    """Returns the history that a handler declares by ``history_size``, ``history_ttl`` and ``history_always``.

    None if the size or the TTL is 0. Raises `ImproperlyConfigured` for invalid values.
    """
    size, ttl = getattr(owner, "history_size", 0), getattr(owner, "history_ttl", 0)
    return _history(size, ttl, bool(getattr(owner, "history_always", False))) if size != 0 and ttl != 0 else None


def is_live(cls: type) -> bool:
    """Whether clients can subscribe to the routes of a handler class."""
    return hasattr(cls, "_event_types")


def is_default(hook: Any, *defaults: Any) -> bool:
    """Whether a bound method is one of the given functions. Ask at each use: a class or an instance may get another."""
    return getattr(hook, "__func__", None) in defaults


# ------------------------------------------------------------------------------------------------- of a handler
class EventPlan:
    """The event settings of a handler instance.

    They are attributes of the class, arguments of ``as_aaah()``, or set by ``__init__``, ``connect()`` or a property.
    """

    def __init__(self, handler: "AsyncAPIActionHandler") -> None:
        mounted = handler.mounted
        cls = mounted.handler_class
        values = {name: getattr(handler, name, None) for name in _PLANNED}
        declared = SimpleNamespace(**{name: value for name, value in values.items() if value is not None})
        self.mounted = mounted
        self.handler_class = cls
        self.values = values
        if not is_live(cls):  # no `SubscribeMixin`: any event may be published
            self.types = EventTypes(f"{cls.__name__}.events", {})
        elif values["events"] is cls.events:
            self.types = cls._event_types
        else:  # mounted with other events
            self.types = EventTypes(f"{cls.__name__}.events", values["events"])
        self.history = history(declared)
        self.queryset = values["queryset"]
        self.version_field = values["version_field"]
        self.serializer_class = values["serializer_class"]
        self.overrides_serializer = bool(values["overrides_serializer"])
        self.has_objects = self.queryset is not None or bool(getattr(cls, "overrides_queryset", False))
        self.lookup = lookup_name(declared)  # the capture that holds the key of one object
        # Whether `retrieve` may hide an object that exists, from some users or from all.
        self.is_scoped = self.has_objects and (
            (isinstance(self.queryset, NarrowingQuerySet) and self.queryset.is_narrowed)
            or getattr(cls, "scopes_queryset", True)
            or _has_own_backends(declared.filter_backends)
        )
        # Whether another connection's handler may have other settings: code of its own may have set them.
        self.varies = mounted.is_consumer or not _is_plain(cls)


_OF_EVENTS = ("events", "history_always", "history_size", "history_ttl", "serializer_class", "version_field")
_OF_OBJECTS = ("overrides_serializer", "filter_backends", "lookup_field", "lookup_url_kwarg", "queryset")
_PLANNED = frozenset((*_OF_EVENTS, *_OF_OBJECTS))


def event_plan(handler: "AsyncAPIActionHandler") -> EventPlan:
    """Returns the plan of a handler: that of its place, unless the handler has other settings than most there.

    The settings are compared at each use, since a class may change after it was mounted, and an instance may differ.
    """
    plan = handler.mounted.event_plan
    if plan is not None:
        for name, value in plan.values.items():
            if getattr(handler, name, None) is not value:
                break
        else:
            return plan
    own = EventPlan(handler)
    if _PLANNED.isdisjoint(vars(handler)) or plan is None:
        handler.mounted.event_plan = own
    return own


def plan_at(mounted: MountedHandler, create: Callable[[], "AsyncAPIActionHandler"]) -> EventPlan:
    """Returns the plan of a place. It creates a handler only if the class or its instances may have other settings."""
    plan, cls = mounted.event_plan, mounted.handler_class
    if plan is None or not _is_plain(cls):
        return event_plan(create())
    given = mounted.initkwargs
    for name, value in plan.values.items():
        if given.get(name, getattr(cls, name, None)) is not value:
            return event_plan(create())
    return plan


@lru_cache(1_024)
def _is_plain(cls: Any) -> bool:
    """Whether all instances of a class have its attributes: no code decides what an instance says."""
    if cls.__init__ is not object.__init__ or cls.__new__ is not object.__new__:
        return False
    if cls.__getattribute__ is not object.__getattribute__ or hasattr(cls, "__getattr__"):
        return False
    return not any(hasattr(type(getattr_static(cls, name, None)), "__get__") for name in _PLANNED)


def _has_own_backends(backends: Any) -> bool:
    """Whether a filter backend may leave rows out even if the route has no query."""
    kinds = (each if isinstance(each, type) else type(each) for each in backends)
    return any(getattr(kind, "filter_queryset", None) not in _BY_QUERY for kind in kinds)


_BY_QUERY = [each.filter_queryset for each in (BaseFilterBackend, FieldFilter, SearchFilter, OrderingFilter)]
