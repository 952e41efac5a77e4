"""Access: who may see the objects of a route, and their events, if permissions or querysets restrict them.

An `Access` is compiled once for each route. Events are filtered for each recipient.

A message about an object carries its *subject*: the object's class, its key, and its values before and after. Clients
never get the subject. Each process reads the object again, as the recipient's handler loads it, with its class and
relations. It then asks the permissions of the action that shows the object there: ``retrieve`` or ``list``, or
``subscribe`` if the handler has neither. A recipient gets the content of an event only if the permissions were asked
about that content:

- If the row still has the event's values, the permissions are asked about the row.
- If the row has changed since, they are asked about an object restored from the event's values. If they read anything
  else of it, that raises, the answer is unknown, and the recipient gets ``$resync``.
- Whether the recipient could see the object *before* is asked about an object restored in the same way, with the
  objects that its foreign keys name. If the answer is unknown, the recipient may have seen it. They then get
  ``deleted`` with its key if they do not see it now.

A scope is ``get_queryset()``, a filter backend, or the ``select()`` of the queryset. The values decide whether an
object is in it if the store would decide the same; otherwise the row is read through it. One read serves all recipients
whose querysets load alike.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from copy import copy
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from wsaction._events.plan import EventPlan, event_plan
from wsaction._events.publish import session_of
from wsaction._events.reauthorization import Grant
from wsaction._handlers.mounts import MountedHandler, Plan
from wsaction._handlers.route_table import Call, Target
from wsaction._protocol.event_frames import encode_event
from wsaction._pubsub.event import Event
from wsaction._pubsub.subscription import Filter, VisibilityUnknown
from wsaction.exceptions import APIError, ImproperlyConfigured, NotFound
from wsaction.permissions._classes import require
from wsaction.querysets._base import NarrowingQuerySet
from wsaction.querysets._lookups import UnknownClass, name_of
from wsaction.routers import lookup_name
from wsaction.serializers import output_model
from wsaction.serializers._core_schema import MAX_MODELS
from wsaction.serializers._from_attributes import as_output
from wsaction.serializers._models import json_encoder
from wsaction.transactions import complete

if TYPE_CHECKING:
    from wsaction.generics import GenericAsyncAPIActionHandler
    from wsaction.handlers import AsyncAPIActionHandler

logger = logging.getLogger("wsaction")

Json = Mapping[str, Any]


def source_of(handler: "GenericAsyncAPIActionHandler") -> Any:
    """Returns the queryset whose objects a handler's events are about.

    Raises `ImproperlyConfigured` if ``queryset`` is not set and ``get_queryset()`` fails, for example without a user.
    """
    queryset: Any = handler.queryset  # None if get_queryset() alone decides
    if queryset is not None:
        return queryset
    try:
        return handler.get_queryset()
    except Exception as exc:
        raise ImproperlyConfigured(
            f"{type(handler).__name__}.get_queryset() failed outside of a connection ({exc!r}); set "
            f"{type(handler).__name__}.queryset too, which says which objects its events are about"
        ) from exc


# ------------------------------------------------------------------------------------------------- of a route
class Access:
    """How the objects of a route are protected: the actions that show them, and whether to check each recipient."""

    def __init__(self, target: Target, plan: EventPlan, names_object: bool) -> None:
        mounted = plan.mounted
        self.plan = plan
        self.names_object = names_object  # whether the route is that of one object
        actions = [name for name in ("list", "retrieve") if action_plan(mounted, name) is not None]
        # The action that returns the route's objects; None if the route has neither.
        self.shown_by = actions[-1 if names_object else 0] if actions else None
        showing = _actions_showing(mounted, self.shown_by) if plan.has_objects else []
        # Permissions that look at ``self.action`` are asked about events as about these actions.
        self.shows = tuple(Call(target, name, mounted, each) for name, each in showing if name != "subscribe")
        self.checks_permissions = any(has_object_permissions(plan.handler_class, each) for _, each in showing)
        self.is_restricted = self.checks_permissions or plan.is_scoped


def access_of(handler: "AsyncAPIActionHandler") -> Access:
    """Returns the access of the route that a handler answers."""
    plan = event_plan(handler)
    return access_at(handler.frame.call.target, plan, plan.lookup in handler.frame.kwargs)


def access_at(target: Target, plan: EventPlan, names_object: bool) -> Access:
    """Returns the access of a route, compiled at first use."""
    access = target.access
    if access is None or access.plan is not plan or access.names_object is not names_object:
        access = target.access = Access(target, plan, names_object)
    return access


def action_plan(mounted: MountedHandler, name: str) -> Plan | None:
    """Returns the plan of an action by its declared name; None if the route does not have the action."""
    return next((plan for plan in mounted.plans.values() if plan.name == name), None)


def _actions_showing(mounted: MountedHandler, name: str | None) -> list[tuple[str, Plan]]:
    """Returns the actions that show an object, by name: those of the route, or else of the handler's other routes.

    If the handler overrides ``list``, which may then show less than events do, ``retrieve`` is asked too.
    """
    if name is None:
        declared = {action.name for action in mounted.handler_class.available_actions.values()}
        name = next((each for each in ("retrieve", "list") if each in declared), None)
        if name is None:
            return [("subscribe", action_plan(mounted, "subscribe") or mounted.no_such_action)]
    names = [name, "retrieve"] if name == "list" and getattr(mounted.handler_class, "overrides_list", False) else [name]
    return [(each, action_plan(mounted, each) or mounted.plan_elsewhere(each)) for each in names]


def has_object_permissions(cls: Any, plan: Plan) -> bool:
    """Whether the permissions of an action are asked for each object."""
    return plan.permissions is None or plan.permissions.on_object is not None or cls.overrides_object_permissions


# ------------------------------------------------------------------------------------------------- event filters
async def check_object(handler: Any, access: Access) -> None:
    """Gets the object that a route names, as ``retrieve`` does, if access is restricted. Raises if that is refused."""
    if access.names_object and access.is_restricted:
        await handler.get_object()


def event_filter(handler: Any, access: Access, grant: Grant) -> Filter | None:
    """Returns the filter of a subscription: what its subscriber gets of each event; None if they get all of it.

    With ``recheck`` the subscriber gets no event for which the grant does not hold. Raises `ImproperlyConfigured` if
    the handler's objects were restricted in a way that cannot be repeated for each event.
    """
    recheck = handler.recheck
    if not (recheck or access.is_restricted or (access.plan.has_objects and access.plan.varies)):
        return None
    _check_scope(handler, access)

    async def visible_frame(event: Event) -> str | None:
        if recheck and not await grant.holds():
            return None
        if event.subject is None:
            return event.frame
        saw_answers, sees_answers = [], []
        for call in grant.shows or (None,):
            async with grant.handler(call) as handler:
                if call is not None and call.name == "retrieve":
                    _capture_key(handler, handler.queryset, event.subject)
                view = _View(grant, event, handler)
                if not await view.may_act():
                    return None
                if (answer := await view.sees()) is None:
                    raise VisibilityUnknown
                sees_answers.append(answer)
                saw_answers.append(await view.saw())
        saw = False if False in saw_answers else None if None in saw_answers else True
        return _frame_for_recipient(handler, event, saw=saw, sees=all(sees_answers))

    runtime, name = session_of(handler).runtime, f"what decides who gets events of {type(handler).__name__}"
    return (lambda event: runtime.watched(visible_frame(event), name)) if runtime.debug else visible_frame


def _check_scope(handler: "AsyncAPIActionHandler", access: Access) -> None:
    """Raises `ImproperlyConfigured` if a hook has set the handler's objects: events are asked of other instances."""
    mounted = handler.mounted
    if mounted.is_consumer or not access.plan.has_objects or access.plan.handler_class.overrides_queryset:
        return  # it is the same instance for all events, or get_queryset() narrows it for each
    own = {name: vars(handler)[name] for name in ("queryset", "filter_backends") if name in vars(handler)}
    for name in (name for name, value in own.items() if value is not mounted.initkwargs.get(name)):
        if name not in vars(mounted.handler_class()):
            raise ImproperlyConfigured(
                f"{type(handler).__name__}.{name}: expected it on the class, in __init__() or in as_aaah(), got it "
                "set while the subscription was checked (by a permission, a middleware or check_subscription()), "
                "where the events that follow do not see it; narrow it in get_queryset()"
            )


def _capture_key(handler: "GenericAsyncAPIActionHandler", queryset: Any, subject: Json) -> bool:
    """Sets the key that a handler looks objects up by, as a match of the object's route does.

    Returns False, and sets nothing, if the event lacks the key: the lookup is of a related object, or the field is null
    or not shown. With None as its key, a handler would find no object or another one.
    """
    captures, name, field = handler.frame.kwargs, lookup_name(handler), handler.lookup_field
    if name not in captures:
        values = subject["after"] or subject["before"] or {"text": {}, "exact": {}}
        is_key = field in ("pk", key_name(queryset))
        key = subject["pk"] if is_key else {**values["text"], **values["exact"]}.get(field)
        if key is None:
            return False
        captures[name] = key
    return True


def encode_key(plan: EventPlan, pk: Any, obj: Any) -> str:
    """Returns an object's key, and its version if it has one, as JSON: what ``deleted`` shows.

    ``obj`` is the object, or its values.
    """
    data, version = {"pk": pk}, plan.version_field
    if version is not None:
        data[version] = obj[version] if isinstance(obj, Mapping) else getattr(obj, version)
    return to_json(data).decode()


def _frame_for_recipient(
    handler: "GenericAsyncAPIActionHandler", event: Event, *, saw: bool | None, sees: bool
) -> str | None:
    message, subject = event.message, event.subject
    if sees:
        if saw is False and subject["before"] is not None:
            return event.with_offset(encode_event("created", message["route"], to_json(message["data"]).decode()))
        return event.frame
    if saw is False:
        return None
    if subject["after"] is None:
        return event.frame
    data = encode_key(event_plan(handler), subject["pk"], {**subject["after"]["text"], **subject["after"]["exact"]})
    return event.with_offset(encode_event("deleted", message["route"], data))


# ------------------------------------------------------------------------------------------------- recipients
class _SharedReads:
    """The results read for one event, shared by all recipients in this process whose querysets load alike."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._results: dict[Any, Any] = {}

    async def get(self, key: Any, read: Callable[[], Awaitable[Any]]) -> Any:
        """Returns the result for a key, reading it at first use. If that is cancelled, the next caller reads it."""
        if key in self._results:
            return self._results[key]
        async with self._lock:
            if key not in self._results:
                self._results[key] = await read()
            return self._results[key]


class _View:
    """Decides what one recipient may see of one event."""

    def __init__(self, grant: Grant, event: Event, handler: "GenericAsyncAPIActionHandler") -> None:
        if event.filter_cache is None:
            event.filter_cache = _SharedReads()
        self._grant = grant
        self._handler = handler
        self._shared = event.filter_cache
        self._subject: Json = event.subject
        self._is_new = event.frame.startswith('{"event":"created"')
        self._checks_permissions = (
            has_object_permissions(type(handler), handler.frame.call.plan)
            if grant.shows
            else access_of(handler).checks_permissions
        )
        self._has_own_get_object = handler.overrides_object
        self._queryset = _scoped_queryset(handler)
        base = handler.queryset
        self._is_base = self._queryset is base
        # Whether it loads objects as the handler's `queryset` does; it may find fewer.
        self._is_shared = self._is_base or (isinstance(base, NarrowingQuerySet) and base.loads_like(self._queryset))
        self._source = base if self._is_shared else self._queryset

    async def may_act(self) -> bool:
        """Whether the permissions of the action allow the recipient, if the handler overrides them."""
        return not self._handler.overrides_permissions or await self._allows("check_permissions")

    async def sees(self) -> bool | None:
        """Whether the recipient may see the object as the event shows it; None if that is unknown."""
        after, pk = self._subject["after"], self._subject["pk"]
        if after is None or (in_scope := self._in_scope(after)) is False:
            return False
        if self._has_own_get_object:
            return await self._sees_by_get_object()
        if in_scope and not self._checks_permissions:
            return True
        shared = self._is_base or (in_scope is True and self._is_shared)
        row, is_unchanged = await self._row(pk) if shared else await self._read(self._queryset, pk)
        if row is None:  # deleted, or not in the scope
            return False
        if not is_unchanged:
            return await self._may_see_restored("after", after) if in_scope else None
        if not self._checks_permissions:
            return True
        try:
            return await self._may_see(row)
        except Exception as exc:
            if not shared or isinstance(exc, APIError):
                raise
            # A shared row has no session that could load more of it. A row read for this recipient has one.
            logger.debug("%r reads a row of its own, after %r", self._handler, exc)
        row, is_unchanged = await self._read(self._queryset, pk)
        return await self._may_see(row) if is_unchanged else None

    async def saw(self) -> bool | None:
        """Whether the recipient could see the object before the change; None if that is unknown."""
        before = self._subject["before"]
        if before is None:
            return False if self._is_new else None
        in_scope = self._in_scope(before)
        if in_scope is False or not (self._checks_permissions or self._has_own_get_object):
            return in_scope
        if self._has_own_get_object:
            return None
        allowed = await self._may_see_restored("before", before)
        return in_scope if allowed else allowed

    def _in_scope(self, values: Json) -> bool | None:
        """Whether an object with these values is in the recipient's queryset; None if only the store can tell."""
        if not isinstance(self._queryset, NarrowingQuerySet):
            return True if self._is_base else None
        if self._is_base and not self._queryset.is_narrowed:
            return True
        try:
            return self._queryset.decide(values["exact"], self._subject["kind"])
        except UnknownClass:
            return None

    async def _may_see(self, obj: Any) -> bool:
        return await self._allows("check_object_permissions", obj)

    async def _allows(self, method: str, *args: Any) -> bool:
        try:
            await require(self._handler, method, *args)
        except APIError as exc:  # any other error is a refusal
            if exc.status >= 500:
                raise
            return False
        return True

    async def _may_see_restored(self, when: str, values: Json) -> bool | None:
        """As `_may_see`, about an object restored from values.

        None if it cannot be restored, or if a permission reads a value that the event does not have.
        """
        if not self._checks_permissions:
            return True
        source, pk, kind = self._source, self._subject["pk"], self._subject["kind"]
        if not isinstance(source, NarrowingQuerySet):
            return None
        row, _ = await self._row(pk)
        restored = {key_name(source): pk, **values["exact"]}

        async def restore() -> Any:
            async with self._grant.handler():
                try:
                    # A related object may have changed since the event, so that it must not decide about content.
                    if when == "after":
                        return source.object_of(restored, kind)
                    return await source.restore(restored, kind, row)
                except (UnknownClass, ValueError) as exc:
                    logger.debug("the object of an event cannot be restored: %r", exc)
                    return None

        obj = await (self._shared.get(when, restore) if self._is_shared else restore())
        try:
            return None if obj is None else await self._may_see(obj)
        except APIError:
            raise
        except Exception as exc:  # a permission reads a value that was not restored
            logger.debug("the permissions of %r cannot decide about a restored object: %r", self._handler, exc)
            return None

    async def _row(self, pk: Any) -> tuple[Any, bool]:
        """Returns the current object and whether it still has the event's values.

        One read serves all recipients whose querysets load alike, whatever their scopes.
        """

        async def read() -> tuple[Any, bool]:
            async with self._grant.handler():  # a unit of work of its own, so that no recipient owns the row afterwards
                return await self._read(self._source, pk)

        await complete(self._handler.frame)  # hold no database connection while waiting for a shared read
        result: tuple[Any, bool] = await (self._shared.get("row", read) if self._is_shared else read())
        return result

    async def _read(self, queryset: Any, pk: Any) -> tuple[Any, bool]:
        """Returns the object from a queryset, or None, and whether it still has the event's values."""
        try:
            row = await queryset.get(pk=pk)
        except NotFound:
            return None, False
        after = self._subject["after"]
        return row, after is not None and _is_unchanged(self._handler, self._source, row, self._subject)

    async def _sees_by_get_object(self) -> bool | None:
        """As `sees`, by an overridden ``get_object()``. On a list's route it gets the object's key as a capture."""
        handler = self._handler
        if not _capture_key(handler, self._source, self._subject):
            return None
        try:
            obj = await handler.get_object()
        except APIError as exc:
            if exc.status >= 500:
                raise
            return False
        return True if _is_unchanged(handler, self._source, obj, self._subject) else None


def _scoped_queryset(handler: "GenericAsyncAPIActionHandler") -> Any:
    """Returns the handler's filtered queryset without the route's query, as events are those of the whole route."""
    if (call := handler.frame.call).query:
        handler.frame.call = copy(call)
        handler.frame.call.query = ""
        handler.frame.call.params = None
        try:
            return handler.filter_queryset(handler.get_queryset())
        except APIError as exc:  # a filter backend requires a parameter
            logger.debug("%r is filtered by the query of the subscription, after %r", handler, exc)
            handler.frame.call = call
    return handler.filter_queryset(handler.get_queryset())


def _is_unchanged(handler: "GenericAsyncAPIActionHandler", queryset: Any, row: Any, subject: Json) -> bool:
    """Whether a row still has the class and the values of an event's object."""
    if isinstance(queryset, NarrowingQuerySet):
        return isinstance(row, queryset.model) and queryset.is_still(row, subject["after"], subject["kind"])
    return bool(json_of(event_plan(handler), source_of(handler), row) == subject["after"])


# ------------------------------------------------------------------------------------------------- subjects
def key_name(queryset: Any) -> str:
    """Returns the name of a queryset's key field."""
    name: str = getattr(queryset, "pk", "id")
    return name


def check_key(handler: Any, lookup: str) -> None:
    """Raises `NotFound` if an object's route spells its key in another way than its events do: ``07`` for 7.

    Such a subscription would never get an event. With a converter such as ``<int:pk>`` this cannot happen.
    """
    queryset, key = handler.queryset, handler.frame.kwargs[lookup]
    if not isinstance(key, str) or not hasattr(queryset, "coerce") or "__" in handler.lookup_field:
        return
    name: str = key_name(queryset) if handler.lookup_field == "pk" else handler.lookup_field
    try:
        value = queryset.coerce(name, key)
    except ValueError:
        raise NotFound from None
    if not isinstance(value, str | Enum) and str(value) != key:
        raise NotFound(f"The events of this object are published where its key is {value}.")


def values_of(handler: "GenericAsyncAPIActionHandler", obj: Any) -> dict[str, Any] | None:
    """Returns the current values of an object; None if the queryset cannot provide them."""
    queryset = source_of(handler)
    return queryset.values_of(obj) if isinstance(queryset, NarrowingQuerySet) else None


def json_of(plan: EventPlan, queryset: Any, obj: Any, values: Json | None = None) -> Json:
    """Returns an object's values as a subject carries them; for a third-party queryset, the serialized object."""
    if isinstance(queryset, NarrowingQuerySet):
        return queryset.to_json(queryset.values_of(obj) if values is None else values, name_of(type(obj)))
    return {"exact": {}, "text": from_json(encode_object(plan, obj, getattr(obj, key_name(queryset))))}


def encode_object(plan: EventPlan, obj: Any, pk: Any) -> str:
    """Returns the object as JSON by the handler's ``serializer_class``.

    It is only the key if the handler has no ``serializer_class``, or decides for each frame what it shows.
    """
    if plan.serializer_class is None or plan.overrides_serializer:
        return encode_key(plan, pk, obj)
    output: Any = output_model(plan.serializer_class)
    return _writer(output)(as_output(output, obj))


@lru_cache(MAX_MODELS)
def _writer(output: Any) -> Callable[[Any], str]:
    return json_encoder(output)


def subject_of(before: Json | None, after: Json | None, pk: Any, kind: str) -> bytes:
    """Returns the subject of a message as JSON."""
    return to_json({"before": before, "after": after, "pk": pk, "kind": kind}, inf_nan_mode="null", fallback=str)
