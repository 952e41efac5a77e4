"""Visibility: who may see which event, asked for each recipient where a handler's permissions look at objects.

A message about an object carries its *subject*, the object's own values before and after, which no client is shown.
Every process makes objects of them again and asks each subscriber's permissions, as action ``subscribe``. Who may not
see the object any more is told that it was deleted; who newly sees it, that it was created. Where it is not known how
the object was, whoever does not see it may have seen it.

Where a handler narrows ``get_queryset()`` and has no ``get_topic()`` of its own, the object has to be in it too. That
is decided by the object's values where the queryset is narrowed by them alone, else by asking for the key: a query for
each recipient of each event. A ``get_topic()`` that tells users or tenants apart costs nothing.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic_core import to_json

from wsaction.events import Event, encode_event
from wsaction.exceptions import APIError, NotFound
from wsaction.grants import Grant
from wsaction.recipients import Filter
from wsaction.routers import lookup_name

__all__ = (
    "asks_of_objects",
    "check_key",
    "event_filter",
    "gone",
    "key_name",
    "plan_of",
    "subject_of",
    "values_of",
)


def plan_of(handler: Any, name: str) -> Any:
    """The plan of an action by its declared name, where the route of a handler has it."""
    return next((plan for plan in handler.mounted.plans.values() if plan.name == name), None)


def asks_of_objects(handler: Any) -> bool:
    """Whether who may see an object has to be asked."""
    plan = plan_of(handler, "subscribe") or handler.mounted.no_such_action
    permissions = plan.permissions
    decides = permissions is None or permissions.on_object is not None or handler.decides_object_permissions
    return getattr(handler, "queryset", None) is not None and (decides or handler.scopes_queryset)


def event_filter(grant: Grant, recheck: bool) -> Filter:
    """What a subscriber is told of each event; ``recheck``: nothing once the grant does not hold."""

    async def told(event: Event) -> str | None:
        if recheck and not await grant.holds():
            return None
        if event.subject is None:
            return event.frame
        async with grant.handler() as handler:
            before, after = event.subject["before"], event.subject["after"]
            saw, sees = await _sees(handler, before, was=True), await _sees(handler, after)
            return _shown(handler, event, saw=saw, sees=sees)

    return told


def gone(handler: Any, pk: Any, obj: Any) -> str:
    """What is told of an object that is no more, or no more to be seen, as JSON: its key, and its version if it has
    one. ``obj`` is the object, or its values."""
    data, version = {"pk": pk}, getattr(handler, "version_field", None)
    if version is not None:
        data[version] = obj[version] if isinstance(obj, Mapping) else getattr(obj, version)
    return to_json(data).decode()


def _shown(handler: Any, event: Event, *, saw: bool, sees: bool) -> str | None:
    message, subject = event.message, event.subject
    if sees and not saw and subject["before"] is not None:
        return event.numbered(encode_event("created", message["route"], to_json(message["data"]).decode()))
    unknown = subject["before"] is None and message["event"] == "updated"  # who does not see it may have seen it
    if (saw or unknown) and not sees and subject["after"] is not None:
        data = gone(handler, subject["pk"], subject["after"])
        return event.numbered(encode_event("deleted", message["route"], data))
    return event.frame if saw or sees else None


async def _sees(handler: Any, values: Mapping[str, Any] | None, *, was: bool = False) -> bool:
    """Whether the handler's user may see the object with these values; ``was``: or may have seen it."""
    if values is None:
        return False
    queryset = handler.queryset
    obj = queryset.object_of(values)
    if handler.scopes_queryset and not await _is_in(handler.get_queryset(), queryset, obj, was):
        return False
    try:
        await handler.check_object_permissions(obj)
    except APIError as exc:  # whatever its words, it is a no
        if exc.status >= 500:
            raise
        return False
    return True


async def _is_in(narrowed: Any, queryset: Any, obj: Any, was: bool) -> bool:
    known: bool | None = narrowed.holds(obj) if hasattr(narrowed, "holds") else None
    if known is not None:
        return known
    return was or bool(await narrowed.filter(pk=getattr(obj, key_name(queryset))).exists())


def key_name(queryset: Any) -> str:
    """The name of the key's field."""
    name: str = getattr(queryset, "pk", "id")
    return name


def check_key(handler: Any) -> None:
    """Raises `NotFound` for an object's route whose key is written otherwise than its events are told: ``07`` for 7.

    Its events would never come. A capture by a converter that makes it a number has no such writings.
    """
    queryset: Any = getattr(handler, "queryset", None)
    key = handler.kwargs.get(lookup_name(handler))
    if not isinstance(key, str) or not hasattr(queryset, "object_of") or "__" in handler.lookup_field:
        return
    name: str = key_name(queryset) if handler.lookup_field == "pk" else handler.lookup_field
    try:
        value = getattr(queryset.object_of({name: key}), name)
    except ValueError:
        raise NotFound from None
    if not isinstance(value, str | Enum) and str(value) != key:
        raise NotFound(f"The events of this object are told where its key is {value}.")


def values_of(handler: Any, obj: Any) -> dict[str, Any] | None:
    """An object's own values, as they are now; None where nobody asks for them, or the queryset cannot say."""
    queryset: Any = getattr(handler, "queryset", None)
    return queryset.values_of(obj) if hasattr(queryset, "values_of") else None


def subject_of(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, pk: Any) -> bytes:
    """The subject of a message, as JSON."""
    return to_json({"before": before, "after": after, "pk": pk}, inf_nan_mode="null", fallback=str)
