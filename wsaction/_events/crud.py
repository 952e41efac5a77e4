"""CRUD events: publishes that objects were created, updated or deleted, to the routes that show them.

All changes of one object in one unit of work become one event, published after the commit. An object that is created
and then updated is ``created``, with its last values. If the outcome of the commit is unknown, the subscribers of all
its changes get ``$resync``.

Within a process, the events of one object are published in the order of their commits: the unit of work holds the
object's locks from right before the commit until the event is published. Between processes, only a version tells which
event is newer: ``version_field`` names a field that every change increases, and ``deleted`` carries it too.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from wsaction._events.access import (
    access_at,
    encode_key,
    encode_object,
    json_of,
    key_name,
    source_of,
    subject_of,
    values_of,
)
from wsaction._events.plan import EventPlan, event_plan, is_live, plan_at
from wsaction._events.publish import hub_of, invalidate_later, is_on_loop, session_of, topic_at
from wsaction._handlers.mounts import MountedHandler
from wsaction._handlers.route_table import Call, Target
from wsaction._protocol.event_frames import encode_event
from wsaction._protocol.frames import new_frame
from wsaction._protocol.scope import is_named, is_shared
from wsaction._pubsub.hub import Hub
from wsaction._utils.locks import Held
from wsaction.exceptions import ImproperlyConfigured, LayerUnavailable
from wsaction.querysets._base import NarrowingQuerySet
from wsaction.querysets._lookups import name_of
from wsaction.routing import NoReverseMatch
from wsaction.serializers import output_model
from wsaction.transactions import join_unit, unit_to_wait_for

if TYPE_CHECKING:
    from wsaction._dispatch.session import Session
    from wsaction.generics import GenericAsyncAPIActionHandler

logger = logging.getLogger("wsaction")

T = TypeVar("T")

EVENTS = ("created", "updated", "deleted")


@dataclass(frozen=True, slots=True)
class _Place:
    """A route where a change is published."""

    plan: EventPlan  # of the route's handler
    output_plan: EventPlan  # whose serializer is used: `plan`, or the changing handler's if `plan` has no such objects
    hub: Hub
    topic: str
    route: str
    needs_subject: bool
    sharing: tuple[MountedHandler, ...]  # other handlers whose get_topic() may return this topic
    data: str = ""  # the event's data as JSON


@dataclass(frozen=True, slots=True)
class _Change:
    event: str
    pk: Any
    kind: type
    read_before: Callable[[], Mapping[str, Any] | None]  # returns its values before, as JSON
    read_after: Callable[[], Mapping[str, Any] | None]  # and after; to be called before the object changes again
    before: Mapping[str, Any] | None  # what they returned, if a place needs a subject
    after: Mapping[str, Any] | None
    places: tuple[_Place, ...]
    render: Callable[[_Place], _Place]  # returns a place with its data
    key: Any  # the handler class, the queryset and the key of the object
    recorded: Any  # the mapping of `record_changes` that a published change is added to; None outside of it

    def remainder_after(self, published: "_Change") -> "_Change | None":
        """Returns what remains to publish after another change of the object; None if nothing does."""
        if "deleted" in (self.event, published.event):
            return None
        data, published_data = ({place.topic: place.data for place in each.places} for each in (self, published))
        # If a place shows only keys, its data is equal even if the object has changed.
        may_hide = any(place.sharing or place.plan.overrides_serializer for place in self.places)
        if (data, self.after) == (published_data, published.after) and not may_hide:
            return None
        return replace(self, event="updated", read_before=lambda: published.after, before=published.after)

    def _record(self) -> None:
        if self.recorded is not None:
            self.recorded[self.key] = self

    async def publish(self) -> None:
        """Publishes the change to all places. Raises `LayerUnavailable`."""
        self._record()
        for place in self.places:
            await self.publish_to(place)

    async def publish_or_invalidate(self) -> None:
        """Publishes the change to all places. A failure is logged, and the subscribers there get ``$resync``."""
        self._record()
        for place in self.places:
            try:
                await self.publish_to(place)
            except LayerUnavailable as exc:
                logger.error(
                    "%s could not be published to topic %r; its subscribers will get $resync: %r",
                    self.event,
                    place.topic,
                    exc,
                    extra={"topic": place.topic, "event": self.event},
                )
                place.hub.invalidate_later(place.topic, place.plan.history)

    async def publish_to(self, place: _Place) -> None:
        """Publishes the change to one place. Raises `LayerUnavailable`."""
        text = encode_event(self.event, place.route, place.data)
        subject = subject_of(self.before, self.after, self.pk, name_of(self.kind)) if place.needs_subject else None
        await place.hub.publish(place.topic, text, place.plan.history, subject=subject)


class _Pending:
    """The changes of a unit of work, one for each object: a `transactions.Resource` that has nothing to commit."""

    instant = True

    def __init__(self) -> None:
        self._changes: dict[Any, _Change] = {}
        self._locks: list[Held] = []

    def add(self, change: _Change) -> None:
        """Adds a change; merges it with an earlier change of the same object."""
        previous = self._changes.pop(change.key, None)
        if previous is None:
            self._changes[change.key] = change
        elif (event := _MERGED.get((previous.event, change.event), change.event)) is not None:
            is_gone = event == "deleted" and change.event == "updated"  # its hook deleted the object
            last, other = (previous, change) if is_gone else (change, previous)
            topics = {place.topic for place in last.places}
            others = (last.render(place) for place in other.places if place.topic not in topics)
            places = (*others, *last.places)
            before, after = previous.before, last.after
            if any(place.needs_subject for place in places):  # perhaps places of only one of the two do
                before, after = before or previous.read_before(), after or last.read_after()
            self._changes[change.key] = replace(
                last, event=event, read_before=previous.read_before, before=before, after=after, places=places
            )

    def mark(self) -> Any:
        """Returns the changes so far, for `back_to`."""
        return dict(self._changes)

    def back_to(self, mark: Any) -> None:
        """Drops the changes since a mark, or all if that is None."""
        self._changes = {} if mark is None else mark

    async def hold(self) -> None:
        """Takes the locks of all changed objects: waits until earlier commits of them have been published."""
        locks: dict[Hub, set[str]] = {}
        for change in self._changes.values():
            for place in change.places:
                locks.setdefault(place.hub, set()).add(f"{change.pk}@{place.topic}")
        for hub, lock_names in locks.items():
            self._locks.append(await hub.locks.acquire(lock_names))

    def _release_locks(self) -> None:
        while self._locks:
            self._locks.pop().release()

    async def publish(self) -> None:
        """Publishes all changes, in the order of the last change of each object."""
        try:
            for change in self._changes.values():
                await change.publish_or_invalidate()
        finally:
            self._release_locks()

    def invalidate_later(self) -> None:
        """Sends ``$resync`` to the subscribers of all changes, as the outcome of the commit is unknown."""
        for place in {place.topic: place for change in self._changes.values() for place in change.places}.values():
            invalidate_later(place.hub, place.topic, place.plan.history)

    async def prepare(self) -> None:
        """Has nothing to prepare."""

    async def commit(self) -> bool:
        """Has nothing to commit: the changes are published after the commit of all resources."""
        return False

    async def rollback(self) -> None:
        self._release_locks()


_MERGED: Mapping[tuple[str, str], str | None] = {
    ("created", "updated"): "created",
    ("created", "deleted"): None,
    ("deleted", "created"): "updated",
    ("deleted", "updated"): "deleted",
    ("updated", "created"): "updated",  # a perform_create() that found the object and updated it
}


async def record_changes(handler: "GenericAsyncAPIActionHandler", hook: Awaitable[T]) -> tuple[T, Mapping[Any, Any]]:
    """Awaits a hook such as ``perform_create()``; returns its result and the changes that were published meanwhile.

    The action passes these to `publish_change` as ``recorded``, so that a change that the hook has published itself is
    not published twice. It matters if the hook is a unit of work of its own.
    """
    frame, recorded = handler.frame, dict[Any, Any]()
    before, frame.recorded_changes = getattr(frame, "recorded_changes", None), recorded
    try:
        return await hook, recorded
    finally:
        frame.recorded_changes = before


async def publish_change(
    handler: "GenericAsyncAPIActionHandler",
    event: str,
    obj: Any,
    before: Mapping[str, Any] | None = None,
    *,
    recorded: Mapping[Any, Any] | None = None,
) -> None:
    """Publishes that an object was created, updated or deleted: after the commit, or at once without a unit of work.

    ``before`` holds its values before the change. ``recorded`` holds changes that are published already and are not
    published again. Raises ``ValueError`` for another event; without a unit of work, `LayerUnavailable`.
    """
    if not is_on_loop(handler.consumer.connection):
        await handler._on_its_loop(lambda: publish_change(handler, event, obj, before, recorded=recorded))
        return
    if event != "deleted" and isinstance(queryset := source_of(handler), NarrowingQuerySet):
        obj = await queryset.loaded(obj, ()) or obj  # a flush may have expired columns that the database computes
    change = _change(handler, event, obj, before)
    if recorded and (published := recorded.get(change.key)) is not None:
        if (remainder := change.remainder_after(published)) is None:
            return
        change = remainder
    if (unit := join_unit()) is None:
        if (ending := unit_to_wait_for()) is None:
            await change.publish()
        else:
            ending.on_commit(change.publish_or_invalidate)
        return
    pending = unit.held(_Pending)
    if not isinstance(pending, _Pending):
        pending = unit.resource(_Pending, _Pending)
        unit.around_commit(pending.hold, pending.publish, pending.invalidate_later)
    pending.add(change)


async def publish_object_from(handler: "GenericAsyncAPIActionHandler", event: str, obj: Any, before: Any) -> None:
    """As `publish_change`, for a change that the application made itself. ``before`` is an object, its values, or None.

    Raises ``ValueError`` if ``before`` is the changed object itself, or if the values of the object have expired and
    its row is gone; ``TypeError`` for an object of another model.
    """
    if before is obj and event != "deleted":
        raise ValueError(
            f"before=: expected the {type(obj).__name__} as it was, got the changed object itself; keep its values "
            "before the change, as in before = queryset.values_of(obj)"
        )
    queryset = source_of(handler)
    _check_object(handler, "the object", obj)
    if before is not None and not isinstance(before, Mapping):
        _check_object(handler, "before=", before)
        before = values_of(handler, before)
    elif before is not None and isinstance(queryset, NarrowingQuerySet):
        before = queryset.named(before)
    if isinstance(queryset, NarrowingQuerySet):
        obj = await _readable(handler, queryset, event, obj, before)
    await publish_change(handler, event, obj, before)


async def _readable(
    handler: "GenericAsyncAPIActionHandler", queryset: Any, event: str, obj: Any, before: Mapping[str, Any] | None
) -> Any:
    """Returns the object with all fields that are shown; reads it again if a commit has expired it."""
    serializer: Any = handler.serializer_class  # None if get_serializer_class() alone decides
    output = None if serializer is None else output_model(serializer)
    shows = () if output is None or event == "deleted" else tuple(output.model_fields)
    try:
        if (found := await queryset.loaded(obj, shows)) is not None:
            return found
        if event == "deleted" and before is not None:
            return queryset.object_of({key_name(queryset): queryset.key_of(obj), **before}, name_of(type(obj)))
    except ValueError as exc:
        raise ValueError(f"publish_object({event!r}, ...): {exc}") from exc
    raise ValueError(
        f"publish_object({event!r}, ...): the values of this {type(obj).__name__} have expired with its session's "
        f"commit, and there is no such row any more; "
        + (
            "keep them before it is deleted, as in before = queryset.values_of(obj), and pass them as before="
            if event == "deleted"
            else 'if it was deleted, publish "deleted"'
        )
    )


def _check_object(handler: "GenericAsyncAPIActionHandler", label: str, obj: Any) -> None:
    model = getattr(source_of(handler), "model", None)
    if isinstance(model, type) and not isinstance(obj, model):
        raise TypeError(
            f"publish_object() of {type(handler).__name__}: {label}: expected a {model.__name__}, got {obj!r:.80}"
        )


def _change(handler: "GenericAsyncAPIActionHandler", event: str, obj: Any, before: Mapping[str, Any] | None) -> _Change:
    if event not in EVENTS:
        raise ValueError(f"expected the event {', '.join(EVENTS[:-1])} or {EVENTS[-1]}, got {event!r}")
    plan, source = event_plan(handler), source_of(handler)
    pk = getattr(obj, key_name(source))
    stored = id(handler.mounted.attribute("queryset"))  # a handler mounted with another queryset has other objects
    encoded: dict[Any, str] = {}

    def render(place: _Place) -> _Place:
        shows = place.output_plan
        if any(_shows_differently(mounted, shows) for mounted in place.sharing):
            return replace(place, data=encode_key(shows, pk, obj))
        key = shows.serializer_class, shows.overrides_serializer, shows.version_field
        if key not in encoded:
            encoded[key] = encode_key(shows, pk, obj) if event == "deleted" else _encode_at(shows, plan, obj, pk)
        return replace(place, data=encoded[key])

    places: dict[str, _Place] = {}
    decides = handler.overrides_event_routes
    for route in handler.get_event_routes(event, obj) if decides else event_routes(handler, obj):
        if (place := _place(handler, plan, route, obj)) is not None:
            places[place.topic] = render(place)

    def read_before() -> Mapping[str, Any] | None:
        return json_of(plan, source, obj, before) if before is not None or event == "deleted" else None

    def read_after() -> Mapping[str, Any] | None:
        return None if event == "deleted" else json_of(plan, source, obj)

    values = (read_before(), read_after()) if any(place.needs_subject for place in places.values()) else (None, None)
    key, recorded = (type(handler), stored, pk), getattr(handler.frame, "recorded_changes", None)
    return _Change(
        event, pk, type(obj), read_before, read_after, *values, tuple(places.values()), render, key, recorded
    )


def _encode_at(plan: EventPlan, own: EventPlan, obj: Any, pk: Any) -> str:
    """Returns the object as a route shows it; its key, if an object of another handler lacks a field shown there."""
    try:
        return encode_object(plan, obj, pk)
    except Exception as exc:
        if plan.serializer_class is own.serializer_class:
            raise
        logger.debug("subscribers of %s get only the object's key, after %r", plan.handler_class.__name__, exc)
        return encode_key(plan, pk, obj)


def _place(handler: "GenericAsyncAPIActionHandler", own: EventPlan, route: str, obj: Any) -> _Place | None:
    """Returns the place for a route; None if clients cannot subscribe to it."""
    session, target = session_of(handler), handler.frame.call.target
    if target.canonical != route or target.query:
        target = session.targets.resolve(route)
    if (mounted := target.mounted) is None or not target.is_topic:
        return None
    consumer = handler.consumer if mounted.is_consumer else None
    if not is_live(mounted.handler_class if consumer is None else type(consumer)):
        return None
    plan = event_plan(consumer) if consumer else plan_at(mounted, partial(_handler_at, handler, target))
    topic = session.topic_prefix + (target.canonical or "")
    sharing: tuple[MountedHandler, ...] = ()
    if plan.handler_class.overrides_topic:
        topic = topic_at(_handler_at(handler, target))
        sharers = _handlers_sharing(session, mounted, topic)
        sharing = tuple(sharer for sharer in sharers if _may_show(sharer, obj))
    # The handlers of some recipients may be asked, even if the publisher's is not.
    access = access_at(target, plan, plan.lookup in target.captures)
    needs_subject = bool(sharing) or plan.varies or access.is_restricted
    shows = plan if plan.handler_class is own.handler_class or _has_such_objects(handler, target, plan, obj) else own
    return _Place(plan, shows, hub_of(session), topic, target.canonical or "", needs_subject, sharing)


def _handler_at(handler: "GenericAsyncAPIActionHandler", target: Target) -> Any:
    """Returns the handler of a route, for the user who made the change."""
    mounted: Any = target.mounted
    frame = new_frame({}, None, target.route, None)
    frame.consumer, frame.call = handler.consumer, Call(target, "", mounted, mounted.no_such_action)
    return mounted.handler(frame, handler.scope)


def _has_such_objects(handler: "GenericAsyncAPIActionHandler", target: Target, plan: EventPlan, obj: Any) -> bool:
    """Whether the handler of a route has such objects. Otherwise the handler that made the change shows them."""
    if not plan.has_objects:
        return False
    try:
        source = source_of(_handler_at(handler, target)) if plan.queryset is None else plan.queryset
    except ImproperlyConfigured:  # unknown: assume that it has
        return True
    model = getattr(source, "model", None)
    return not isinstance(model, type) or isinstance(obj, model)


def _handlers_sharing(session: "Session", mounted: MountedHandler, topic: str) -> Iterator[MountedHandler]:
    """Yields the other handlers whose ``get_topic()`` may return the same topic."""
    if not is_named(topic):
        return
    tables, everywhere = [session.table], is_shared(topic)
    if everywhere and (app := session.runtime.app) is not None:
        views = [leaf.endpoint.view for leaf in app.router.leaves]
        tables += [view.table for view in views if hasattr(view, "table") and view.table is not session.table]
    for other in (other for table in tables for other in table.mounted):
        decides = is_live(other.handler_class) and other.handler_class.overrides_topic
        if decides and not other.is_like(mounted) and (everywhere or other.topic_space == mounted.topic_space):
            yield other


def _may_show(mounted: MountedHandler, obj: Any) -> bool:
    """Whether an object may be one of the handler's queryset."""
    queryset = mounted.attribute("queryset")
    model = getattr(queryset, "model", None)
    if isinstance(model, type):
        return isinstance(obj, model)
    return queryset is not None or mounted.attribute("overrides_queryset")


def _shows_differently(mounted: MountedHandler, plan: EventPlan) -> bool:
    """Whether another handler shows an object by another serializer."""
    shape = mounted.attribute("serializer_class"), mounted.attribute("overrides_serializer")
    return shape != (plan.serializer_class, plan.overrides_serializer)


def event_routes(handler: "GenericAsyncAPIActionHandler", obj: Any) -> list[str]:
    """Returns the routes where an object's events are published.

    They are the handler's own route and, if a `SimpleRouter` made it, the routes of the list and of the object.
    """
    target = handler.frame.call.target
    routes: dict[Any, None] = {target.canonical: None}
    match = target.match
    name, _, kind = (match.url_name or "" if match is not None else "").rpartition("-")
    if match is None or not name or kind not in ("list", "detail"):
        return list(routes)
    key = handler.lookup_url_kwarg or handler.lookup_field
    value = getattr(obj, key_name(source_of(handler)) if handler.lookup_field == "pk" else handler.lookup_field)
    of_list = {name: captured for name, captured in match.kwargs.items() if name != key}
    names = ":".join([*match.namespaces, name])
    for kind, kwargs in (("list", of_list), ("detail", {**of_list, key: value})):
        try:
            routes[session_of(handler).table.router.reverse(f"{names}-{kind}", kwargs=kwargs)] = None
        except NoReverseMatch:
            logger.debug("%s-%s is no route of %r", names, kind, kwargs)
    return list(routes)
