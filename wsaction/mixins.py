"""The actions that generic handlers are made of, and what their signatures are written with.

`Input`, `PartialInput` and `Output` stand for what comes in and goes out of the handler's ``serializer_class``; an
action of one's own may say so too: ``async def finish(self) -> Output``, or ``list[Output]``, or ``Output | None``.
What comes is validated by ``self.validate(data)``. Where ``get_serializer_class()`` decides for each frame, it is
``self.serialize(obj)`` that shows an object by it: what such an action returns otherwise goes out as it is.

With `wsaction.subscriptions.SubscribeMixin`, what ``perform_create``, ``perform_update`` and ``perform_destroy`` do is
told to who is subscribed, after the commit, as ``created``, ``updated`` and ``deleted``: see `wsaction._events.crud`.
"""

import operator
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from enum import Enum
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeAlias, Union, get_args, get_origin

from pydantic import Strict

from wsaction._events.access import values_of
from wsaction._events.crud import note, watched
from wsaction._handlers.declarations import HookFlags
from wsaction.decorators import async_action
from wsaction.pagination import all_of, pages_of

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
    "resolve_parts",
)


class Slot(Enum):
    """What an annotation stands for, which the handler's class decides."""

    INPUT = "input"
    PARTIAL_INPUT = "partial input"
    OUTPUT = "output"
    LIST = "list"
    PAGES = "pages"


Input: TypeAlias = Annotated[Any, Slot.INPUT]  # all that a client may write
PartialInput: TypeAlias = Annotated[Any, Slot.PARTIAL_INPUT]  # the same, any of it left out
Output: TypeAlias = Annotated[Any, Slot.OUTPUT]  # one object
OutputList: TypeAlias = Annotated[Any, Slot.LIST]  # a page of them as the paginator has it, or all
OutputPages: TypeAlias = Annotated[Any, Slot.PAGES]  # lists of them, of an async generator


def resolve_parts(annotation: Any, resolve_annotation: Callable[[Any], Any]) -> Any:
    """An annotation of others, ``list[Output] | None``, with what stands for these; itself where nothing does."""
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


class CreateModelMixin:
    """Adds ``create``: a new object with the values of ``data``; answers it with 201."""

    decides_create: ClassVar[bool] = False  # whether a subclass took over perform_create
    _hook_flags: ClassVar[HookFlags] = {"decides_create": ("perform_create",)}

    @async_action(status=201)
    async def create(self: Any, data: Input) -> Output:
        """Makes an object."""
        values = self.validate(data)
        if self.tells_changes and self.decides_create:
            obj, known = await watched(self, self.perform_create(values))
            await note(self, "created", _check_returned(self, "perform_create", obj), known=known)
        elif (obj := await self.perform_create(values)) is None:
            _check_returned(self, "perform_create", obj)
        return self.serialize(obj)

    async def perform_create(self: Any, values: dict[str, Any]) -> Any:
        """Makes and returns the object. Override it to add what no client decides.

        >>> async def perform_create(self, values):
        ...     return await super().perform_create({**values, "owner_id": self.user.id})
        """
        obj = await self.get_queryset().create(values)
        if self.tells_changes:
            await note(self, "created", obj)
        return obj


class ListModelMixin:
    """Adds ``list``: the objects that the route's query asks for, one page of them.

    With ``"stream": true`` in the frame it is the whole list, as partial replies of one page each and a last one with
    null. Which page is asked for counts for nothing then, how large it is does. A paused stream holds no connection to
    the database, and each page has what ``get_queryset()`` narrows to by then. Pages are found by their place in the
    order, and stay right while rows come and go; only where the order goes by related objects or is a ``select()``'s
    own, by their number.
    """

    @async_action(streamed_by="list_pages")
    async def list(self: Any, stream: Annotated[bool, Strict()] = False) -> OutputList:
        """The objects, a page at a time."""
        queryset = self.filter_queryset(self.get_queryset())
        page = await self.paginate_queryset(queryset)
        if page is None:
            return self.serialize_many(await all_of(queryset))
        return self.get_paginated_response(page, self.serialize_many(page.items))

    async def list_pages(self: Any) -> OutputPages:
        """The objects, a partial reply for each page."""

        def ask() -> Any:  # for each page, as what its user may reach may have changed
            return self.filter_queryset(self.get_queryset())

        queryset = ask()
        ordering = self.get_total_ordering() or (queryset.get_ordering() if hasattr(queryset, "get_ordering") else None)
        pages: AsyncIterator[Any] = pages_of(ask, ordering, self.get_page_size())
        async with aclosing(pages):  # type: ignore[type-var]  # an async generator, as pages_of says less than it is
            async for page in pages:
                yield self.serialize_many(page)


class RetrieveModelMixin:
    """Adds ``retrieve``: the object that the route names, as ``serializer_class`` shows it."""

    @async_action
    async def retrieve(self: Any) -> Output:
        """One object."""
        return self.serialize(await self.get_object())


class UpdateModelMixin:
    """Adds ``update``, of all that a client may write, and ``partial_update``, of what is sent and no more."""

    decides_update: ClassVar[bool] = False  # whether a subclass took over perform_update
    _hook_flags: ClassVar[HookFlags] = {"decides_update": ("perform_update",)}

    @async_action
    async def update(self: Any, data: Input) -> Output:
        """Changes an object; what is left out gets its default."""
        obj = await self.get_object()
        return self.serialize(await _update(self, obj, self.validate(data, obj)))

    @async_action
    async def partial_update(self: Any, data: PartialInput) -> Output:
        """Changes of an object what is sent."""
        obj = await self.get_object()
        return self.serialize(await _update(self, obj, self.validate(data, obj, partial=True)))

    async def perform_update(self: Any, obj: Any, values: dict[str, Any]) -> Any:
        """Changes the object and returns it as it is then."""
        if not self.tells_changes:
            return await self.get_queryset().update(obj, values)
        before = values_of(self, obj)
        obj = await self.get_queryset().update(obj, values)
        await note(self, "updated", obj, before)
        return obj


class DestroyModelMixin:
    """Adds ``destroy``: the object that the route names is no more; answers null with 204."""

    decides_destroy: ClassVar[bool] = False  # whether a subclass took over perform_destroy
    _hook_flags: ClassVar[HookFlags] = {"decides_destroy": ("perform_destroy",)}

    @async_action(status=204)
    async def destroy(self: Any) -> None:
        """Deletes an object."""
        obj = await self.get_object()
        if not (self.tells_changes and self.decides_destroy):
            await self.perform_destroy(obj)
            return
        before = values_of(self, obj)
        _, known = await watched(self, self.perform_destroy(obj))
        await note(self, "deleted", obj, before, known=known)

    async def perform_destroy(self: Any, obj: Any) -> None:
        """Deletes the object."""
        before = values_of(self, obj) if self.tells_changes else None
        await self.get_queryset().delete(obj)
        if self.tells_changes:
            await note(self, "deleted", obj, before)


async def _update(handler: Any, obj: Any, values: dict[str, Any]) -> Any:
    """The object after ``perform_update``; its change is noted."""
    if not (handler.tells_changes and handler.decides_update):
        return _check_returned(handler, "perform_update", await handler.perform_update(obj, values))
    before = values_of(handler, obj)
    obj, known = await watched(handler, handler.perform_update(obj, values))
    obj = _check_returned(handler, "perform_update", obj)
    await note(handler, "updated", obj, before, known=known)
    return obj


def _check_returned(handler: Any, hook: str, obj: Any) -> Any:
    """The object that a hook returned; raises ``TypeError`` for none, which is easily forgotten."""
    if obj is None:
        raise TypeError(
            f"{type(handler).__name__}.{hook}() returned None; it returns the object, as in return await "
            f"super().{hook}(...)"
        )
    return obj
