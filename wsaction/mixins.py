"""Mixins with the actions ``create``, ``list``, ``retrieve``, ``update``, ``partial_update`` and ``destroy``.

`Input`, `PartialInput` and `Output` in an action's signature stand for the types of the handler's serializers. Actions
of an application can use them too, as in ``async def finish(self) -> Output``, ``list[Output]`` or ``Output | None``.
``self.validate(data)`` validates the input. If ``get_serializer_class()`` is overridden, return
``self.serialize(obj)``: any other result is sent as it is.

With `wsaction.subscriptions.SubscribeMixin`, subscribers get ``created``, ``updated`` and ``deleted`` events for
``perform_create``, ``perform_update`` and ``perform_destroy``, after the commit. See ``wsaction._events.crud``.
"""

import operator
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from enum import Enum
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeAlias, Union, get_args, get_origin

from pydantic import Strict
from typing_extensions import TypeVar  # of typing, it has defaults from Python 3.13 on

from wsaction._events.access import values_of
from wsaction._events.crud import publish_change, record_changes
from wsaction._events.plan import is_default
from wsaction._protocol.awaited import awaited
from wsaction.decorators import async_action
from wsaction.pagination import fetch_all, iterate_pages

if TYPE_CHECKING:
    from wsaction.generics import GenericAsyncAPIActionHandler
    from wsaction.querysets import QuerySet

__all__ = (
    "CreateModelMixin",
    "DestroyModelMixin",
    "Input",
    "ListModelMixin",
    "Output",
    "OutputList",
    "OutputPages",
    "PartialInput",
    "RetrieveModelMixin",
    "Slot",
    "UpdateModelMixin",
    "Values",
    "resolve_parts",
)

ModelT = TypeVar("ModelT", default=Any)  # the class of the queryset's objects
OutputT = TypeVar("OutputT", default=ModelT)  # the serializer, by default the same class

if TYPE_CHECKING:
    # For type checkers, a mixin has the methods of the handler that it is mixed into.
    _Mixin = GenericAsyncAPIActionHandler
else:
    _Mixin = Generic


class Slot(Enum):
    """A placeholder in an annotation, which the handler's class replaces by a type."""

    INPUT = "input"
    PARTIAL_INPUT = "partial input"
    OUTPUT = "output"
    LIST = "list"
    PAGES = "pages"


Values: TypeAlias = dict[str, Any]  # what `validate` returns: values to write, by field
Input: TypeAlias = Annotated[Any, Slot.INPUT]  # the fields that a client may write
PartialInput: TypeAlias = Annotated[Any, Slot.PARTIAL_INPUT]  # the same, each of them optional
Output: TypeAlias = Annotated[Any, Slot.OUTPUT]  # one object
OutputList: TypeAlias = Annotated[Any, Slot.LIST]  # a page in the paginator's form or, without one, all objects
OutputPages: TypeAlias = Annotated[Any, Slot.PAGES]  # the lists of an async generator


def resolve_parts(annotation: Any, resolve_annotation: Callable[[Any], Any]) -> Any:
    """Applies ``resolve_annotation`` to the parts of an annotation such as ``list[Output] | None``.

    Returns the annotation itself if no part changes.
    """
    if _has_slots(getattr(annotation, "__value__", None)):  # `type Cards = list[Output]`
        return resolve_annotation(annotation.__value__)
    parts = get_args(annotation)
    others = tuple(map(resolve_annotation, parts))
    if all(map(operator.is_, others, parts)):
        return annotation
    origin: Any = get_origin(annotation)
    return (Union if origin is UnionType else origin)[others]


def _has_slots(part: Any) -> bool:
    return any(
        isinstance(item, Slot) or _has_slots(item) for item in (*getattr(part, "__metadata__", ()), *get_args(part))
    )


class CreateModelMixin(_Mixin[ModelT, OutputT]):
    """Adds ``create``, which creates an object from ``data`` and replies with it and status 201."""

    @async_action(status=201)
    async def create(self, data: Input) -> Output:
        """Creates an object."""
        values = self.validate(data)
        if self.publishes_changes and not is_default(self.perform_create, CreateModelMixin.perform_create):
            obj, recorded = await record_changes(self, self.perform_create(values))
            await publish_change(self, "created", _check_returned(self, "perform_create", obj), recorded=recorded)
        elif (obj := await self.perform_create(values)) is None:
            _check_returned(self, "perform_create", obj)
        return self.serialize(obj)

    @awaited
    async def perform_create(self, values: Values, /) -> ModelT:
        """Creates the object and returns it. Override it to set values that clients must not set.

        >>> async def perform_create(self, values: Values) -> Card:
        ...     return await super().perform_create({**values, "owner_id": self.user.id})
        """
        obj = await self.get_queryset().create(values)
        if self.publishes_changes:
            await publish_change(self, "created", obj)
        return obj


class ListModelMixin(_Mixin[ModelT, OutputT]):
    """Adds ``list``, which replies with one page of the objects that match the route's query.

    With ``"stream": true`` in the frame, the reply is the whole list: a partial reply for each page, then a final reply
    with null. The query's page size counts, its page number does not. A paused stream holds no database connection.
    Each page is a new query on ``get_queryset()``. It starts after the last object before, so that inserts and deletes
    meanwhile neither skip nor repeat objects. If the order is by related objects, or comes from the queryset's own
    ``select()``, pages are counted off instead.
    """

    @async_action(streamed_by="list_pages")
    async def list(self, stream: Annotated[bool, Strict()] = False) -> OutputList:
        """Lists the objects, one page at a time."""
        queryset = self.filter_queryset(self.get_queryset())
        page = await self.paginate_queryset(queryset)
        if page is None:
            return self.serialize_many(await fetch_all(queryset))
        return self.get_paginated_response(page, self.serialize_many(page.items))

    async def list_pages(self) -> OutputPages:
        """Lists all objects, with a partial reply for each page."""

        def ask() -> "QuerySet[ModelT]":  # for each page again, because the user's access may have changed
            return self.filter_queryset(self.get_queryset())

        queryset = ask()
        ordering = self.get_total_ordering() or (queryset.get_ordering() if hasattr(queryset, "get_ordering") else None)
        pages: AsyncIterator[Any] = iterate_pages(ask, ordering, self.get_page_size())
        async with aclosing(pages):  # type: ignore[type-var]  # an async generator, though typed as an iterator
            async for page in pages:
                yield self.serialize_many(page)


class RetrieveModelMixin(_Mixin[ModelT, OutputT]):
    """Adds ``retrieve``, which replies with the object that the route names."""

    @async_action
    async def retrieve(self) -> Output:
        """Returns an object."""
        return self.serialize(await self.get_object())


class UpdateModelMixin(_Mixin[ModelT, OutputT]):
    """Adds ``update``, which replaces all fields that a client may write, and ``partial_update``."""

    @async_action
    async def update(self, data: Input) -> Output:
        """Updates an object. Fields that are left out get their defaults."""
        obj = await self.get_object()
        return self.serialize(await _update(self, obj, self.validate(data, obj)))

    @async_action
    async def partial_update(self, data: PartialInput) -> Output:
        """Updates the given fields of an object."""
        obj = await self.get_object()
        return self.serialize(await _update(self, obj, self.validate(data, obj, partial=True)))

    @awaited
    async def perform_update(self, obj: ModelT, values: Values, /) -> ModelT:
        """Updates the object and returns it. Override it to set values that clients must not set."""
        if not self.publishes_changes:
            return await self.get_queryset().update(obj, values)
        before = values_of(self, obj)
        obj = await self.get_queryset().update(obj, values)
        await publish_change(self, "updated", obj, before)
        return obj


class DestroyModelMixin(_Mixin[ModelT, OutputT]):
    """Adds ``destroy``, which deletes the object that the route names and replies with null and status 204."""

    @async_action(status=204)
    async def destroy(self) -> None:
        """Deletes an object."""
        obj = await self.get_object()
        if not self.publishes_changes or is_default(self.perform_destroy, DestroyModelMixin.perform_destroy):
            await self.perform_destroy(obj)
            return
        before = values_of(self, obj)
        _, recorded = await record_changes(self, self.perform_destroy(obj))
        await publish_change(self, "deleted", obj, before, recorded=recorded)

    @awaited
    async def perform_destroy(self, obj: ModelT, /) -> None:
        """Deletes the object. Override it to do more, or to mark the object as deleted instead."""
        before = values_of(self, obj) if self.publishes_changes else None
        await self.get_queryset().delete(obj)
        if self.publishes_changes:
            await publish_change(self, "deleted", obj, before)


async def _update(handler: UpdateModelMixin[ModelT, OutputT], obj: ModelT, values: Values) -> ModelT:
    """Calls ``perform_update``, publishes the change and returns the object."""
    if not handler.publishes_changes or is_default(handler.perform_update, UpdateModelMixin.perform_update):
        return _check_returned(handler, "perform_update", await handler.perform_update(obj, values))
    before = values_of(handler, obj)
    obj, recorded = await record_changes(handler, handler.perform_update(obj, values))
    obj = _check_returned(handler, "perform_update", obj)
    await publish_change(handler, "updated", obj, before, recorded=recorded)
    return obj


def _check_returned(handler: object, hook: str, obj: ModelT | None) -> ModelT:
    """Returns the object that a hook returned. Raises ``TypeError`` for None: a ``return`` is easily forgotten."""
    if obj is None:
        raise TypeError(
            f"{type(handler).__name__}.{hook}() must return the object, got None; end it with return await "
            f"super().{hook}(...)"
        )
    return obj
