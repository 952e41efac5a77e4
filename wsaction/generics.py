"""Generic handlers and consumers: a queryset and a serializer, and the actions follow.

    class CardHandler(ModelAPIActionHandler):
        queryset = MemoryQuerySet(Card)
        serializer_class = Card

        def get_queryset(self):
            return super().get_queryset().filter(owner_id=self.user.id)

Each is a `GenericAsyncAPIActionHandler` with some of `wsaction.mixins`. What its name says, it has; a consumer,
with the same actions, is the root of a connection. The module is long because it is one thing: the base class, and
the names of its combinations.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import wraps
from inspect import iscoroutinefunction
from types import GenericAlias
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, TypeAdapter
from pydantic_core import core_schema

from wsaction._events.crud import event_routes, note_given
from wsaction._events.plan import is_live
from wsaction._handlers.declarations import HookFlags, overrides
from wsaction.consumers import AsyncAPIConsumer
from wsaction.exceptions import ImproperlyConfigured, NotFound
from wsaction.filters import check_query
from wsaction.handlers import ActionView, AsyncAPIActionHandler
from wsaction.mixins import (
    CreateModelMixin,
    DestroyModelMixin,
    ListModelMixin,
    RetrieveModelMixin,
    Slot,
    UpdateModelMixin,
    resolve_parts,
)
from wsaction.pagination import BasePagination, CursorPagination, Page, PageNumberPagination, paginator_of, total
from wsaction.permissions._classes import require
from wsaction.querysets._lookups import FieldError
from wsaction.serializers import ReadOnly, input_model, output_model
from wsaction.serializers._core_schema import marked
from wsaction.serializers._from_attributes import many_shown_as, shown_as
from wsaction.serializers._models import shows

__all__ = (
    "CreateAPIActionHandler",
    "CreateAPIConsumer",
    "DestroyAPIActionHandler",
    "DestroyAPIConsumer",
    "GenericAsyncAPIActionHandler",
    "GenericAsyncAPIConsumer",
    "ListAPIActionHandler",
    "ListAPIConsumer",
    "ListCreateAPIActionHandler",
    "ListCreateAPIConsumer",
    "ModelAPIActionHandler",
    "ModelAPIConsumer",
    "ReadOnlyModelAPIActionHandler",
    "ReadOnlyModelAPIConsumer",
    "RetrieveAPIActionHandler",
    "RetrieveAPIConsumer",
    "RetrieveDestroyAPIActionHandler",
    "RetrieveDestroyAPIConsumer",
    "RetrieveUpdateAPIActionHandler",
    "RetrieveUpdateAPIConsumer",
    "RetrieveUpdateDestroyAPIActionHandler",
    "RetrieveUpdateDestroyAPIConsumer",
    "UpdateAPIActionHandler",
    "UpdateAPIConsumer",
)

Serializer = type[BaseModel]


class GenericAsyncAPIActionHandler(AsyncAPIActionHandler):
    """A handler of the objects of a ``queryset``, shown as ``serializer_class``, a pydantic model.

    ``input_serializer_class`` is what comes in, where that is another model. The object is the one whose
    ``lookup_field`` has the value of the capture ``lookup_url_kwarg`` (by default of the same name); where the route
    has no such capture, of the frame's top-level key of that name, or ``pk``.

    ``filter_backends`` and ``pagination_class`` (see `wsaction.filters`, `wsaction.pagination`) are classes or
    instances. Query parameters that none of them reads are a 400, unless ``query_parameters`` names them, as those that
    the handler's own code reads. What is declared wrongly is refused with `ImproperlyConfigured` when the handler is
    mounted.
    """

    queryset: ClassVar[Any] = None
    serializer_class: ClassVar[Serializer | None] = None
    input_serializer_class: ClassVar[Serializer | None] = None
    lookup_field: ClassVar[str] = "pk"
    lookup_url_kwarg: ClassVar[str | None] = None
    lookup_value_converter: ClassVar[str] = "str"  # of `wsaction.routers.SimpleRouter`, as the next
    lookup_value_regex: ClassVar[str | None] = None
    pagination_class: ClassVar[Any] = PageNumberPagination
    filter_backends: ClassVar[Sequence[Any]] = ()
    filter_fields: ClassVar[Any] = ()
    search_fields: ClassVar[Sequence[str]] = ()
    ordering_fields: ClassVar[Sequence[str]] = ()
    ordering: ClassVar[str | Sequence[str]] = ()
    query_parameters: ClassVar[Sequence[str]] = ()
    version_field: ClassVar[str | None] = None  # that every change makes greater, so that clients drop older events

    decides_query: ClassVar[bool] = False  # whether a subclass took over filter_queryset or paginator
    decides_queryset: ClassVar[bool] = False  # whether a subclass took over get_queryset
    decides_object: ClassVar[bool] = False  # the same of get_object
    decides_serializer: ClassVar[bool] = False  # the same of what retrieve shows, by frame or by user
    decides_list: ClassVar[bool] = False  # the same of what list shows, which may be less than retrieve does
    decides_event_routes: ClassVar[bool] = False  # the same of get_event_routes
    scopes_queryset: ClassVar[bool] = False  # whether a subclass says which objects there are: by any hook
    tells_changes: ClassVar[bool] = False  # whether its routes can be subscribed to
    _hook_flags: ClassVar[HookFlags] = {
        "decides_query": ("filter_queryset", "paginator"),
        "decides_queryset": ("get_queryset",),
        "decides_object": ("get_object",),
        "decides_event_routes": ("get_event_routes",),
        "scopes_queryset": ("get_queryset", "get_object", "filter_queryset"),
    }
    announced_by: ClassVar[frozenset[str]] = frozenset(
        {"serializer_class", "input_serializer_class", "pagination_class"}
    )

    @classmethod
    def _read_hooks(cls) -> None:
        super()._read_hooks()
        generic = GenericAsyncAPIActionHandler
        for name in _PLAIN_HOOKS:
            if iscoroutinefunction(getattr(cls, name)):
                raise ImproperlyConfigured(
                    f"{cls.__name__}.{name} is a plain def, which may await nothing; load what it needs before, in "
                    "connect() or in check_permissions(), and keep it on self or self.consumer"
                )
        if cls.decides_object and iscoroutinefunction(cls.get_object) and not hasattr(cls.get_object, "is_recording"):
            cls.get_object = _recording(cls.get_object)  # type: ignore[method-assign]
        shows_objects = getattr(cls, "retrieve", None) is not None
        shows_lists = overrides(cls, ListModelMixin, "list") or overrides(cls, generic, *_LIST_HOOKS)
        cls.decides_list = shows_objects and shows_lists
        cls.decides_serializer = overrides(cls, generic, "get_serializer_class", "serialize") or (
            overrides(cls, RetrieveModelMixin, "retrieve")
            if shows_objects
            else getattr(cls, "list", None) is not None and shows_lists
        )
        cls.tells_changes = is_live(cls)

    # ---------------------------------------------------------------------------------------------- objects
    def get_queryset(self) -> Any:
        """The objects that this frame may reach; override it to narrow them."""
        if self.queryset is None:
            raise ImproperlyConfigured(f"{type(self).__name__} needs a queryset, or a get_queryset() of its own")
        return self.queryset

    async def get_object(self) -> Any:
        """The object that the route names, once its permissions have said yes.

        Raises `NotFound`, `PermissionDenied`.
        """
        queryset = self.filter_queryset(self.get_queryset())
        if (key := self._lookup_value()) is None:  # as a lookup, it would find what has no value there
            raise NotFound
        obj = await queryset.get(**{self.lookup_field: key})
        if self.decides_object_permissions:
            await require(self, "check_object_permissions", obj)
        else:
            await self.check_object_permissions(obj)
        self.frame.asks_object = (), {}
        return obj

    # ---------------------------------------------------------------------------------------------- events
    def get_event_routes(self, event: str, obj: Any) -> Sequence[str]:
        """Where it is told that ``obj`` was ``created``, ``updated`` or ``deleted``, with `SubscribeMixin`.

        This route and, where a `SimpleRouter` made it, those of the list and of the object. Override it to tell others.
        """
        return event_routes(self, obj)

    async def publish_object(self, event: str, obj: Any, before: Any = None) -> None:
        """Tells that an object was ``created``, ``updated`` or ``deleted`` otherwise than by ``perform_...``.

        ``before``: the object as it was, or its values, ``queryset.values_of(obj)`` before the change. Without it,
        whoever may not see the object gets ``deleted``, with its key: they may have seen it. An object whose session
        has expired it is read again by its key. Told after the commit, as `publish` does. Raises ``ValueError`` for
        the changed object as ``before``, for values that have expired and cannot be read again, ``TypeError`` for
        other objects.
        """
        await self._on_its_loop(lambda: note_given(self, event, obj, before))

    def _lookup_value(self) -> Any:
        name = self.lookup_url_kwarg or self.lookup_field
        captures, body = self.frame.kwargs, self.frame.body
        if name in captures:
            return captures[name]
        for key in (name, "pk"):
            if key in body:
                return body[key]
        raise NotFound(f"This route names no object: {name} is neither in the route nor in the frame.")

    # ---------------------------------------------------------------------------------------------- lists
    def filter_queryset(self, queryset: Any) -> Any:
        """What ``filter_backends`` leave of a queryset. Raises `wsaction.exceptions.InvalidParameters`."""
        if self.frame.call.query and self.frame.action is not None:
            check_query(self.query_params.multi_items(), self.known_parameters())
        for backend in map(_instance_of, self.filter_backends):
            queryset = backend.filter_queryset(queryset, self)
        return queryset

    @property
    def paginator(self) -> BasePagination | None:
        """What divides lists into pages; None where ``pagination_class`` is."""
        paginator: BasePagination | None = _instance_of(self.pagination_class)
        return paginator

    async def paginate_queryset(self, queryset: Any) -> Page | None:
        """The page that the frame asks for; None without a paginator. Raises `NotFound`."""
        paginator = self.paginator
        return None if paginator is None else await paginator.paginate_queryset(queryset, self)

    def get_paginated_response(self, page: Page, results: Sequence[Any]) -> Any:
        """What ``list`` answers, of a page and its objects, serialised."""
        return self.paginator.get_paginated_response(page, results)  # type: ignore[union-attr]  # it made the page

    def get_page_size(self) -> int:
        """How many objects a page of a stream has."""
        return (self.paginator or BasePagination()).get_page_size(self)

    def get_ordering(self) -> Sequence[str]:
        """The order that an `OrderingFilter` finds; nothing without one."""
        backends = [each for each in map(_instance_of, self.filter_backends) if hasattr(each, "get_ordering")]
        return backends[0].get_ordering(self) if backends else ()

    def get_total_ordering(self) -> Sequence[str] | None:
        """The order of the list down to the primary key; None where it is the queryset's own affair."""
        paginator = self.paginator
        ordering = self.get_ordering() or (paginator.ordering if isinstance(paginator, CursorPagination) else ())
        return total(ordering) if ordering else None

    def known_parameters(self) -> Sequence[str]:
        """The query parameters that a list takes: its backends', its paginator's, and ``query_parameters``."""
        names = [name for backend in map(_instance_of, self.filter_backends) for name in backend.parameters(self)]
        paginator = self.paginator
        return [*names, *(() if paginator is None else paginator.parameters), *self.query_parameters]

    # ---------------------------------------------------------------------------------------------- serializers
    def get_serializer_class(self) -> Serializer:
        """The model that objects are shown as; override it to decide for each frame."""
        if self.serializer_class is None:
            raise ImproperlyConfigured(
                f"{type(self).__name__} needs a serializer_class, or a get_serializer_class() of its own"
            )
        return self.serializer_class

    def get_input_serializer_class(self) -> Serializer:
        """The model of what comes in: ``input_serializer_class``, or else `get_serializer_class`."""
        return self.input_serializer_class or self.get_serializer_class()

    def serialize(self, obj: Any) -> BaseModel:
        """The object as `get_serializer_class` shows it, from its attributes."""
        return shown_as(output_model(self.get_serializer_class()), obj)

    def serialize_many(self, objs: Sequence[Any]) -> Sequence[BaseModel]:
        """The same of many, in one call of pydantic."""
        return many_shown_as(output_model(self.get_serializer_class()), objs)

    def validate(self, data: Any, obj: Any = None, *, partial: bool = False) -> dict[str, Any]:
        """The values to be written, of what came as ``data``: by field, without those marked ``ReadOnly``.

        ``partial``: of what was sent alone. ``obj`` is the object that they are meant for, of which the model's own
        validators see the rest. Raises `wsaction.exceptions.InvalidParameters`.
        """
        return input_model(self.get_input_serializer_class(), partial).values(data, obj)

    # ---------------------------------------------------------------------------------------------- declared
    @classmethod
    def resolve_annotation(cls, annotation: Any, initkwargs: Mapping[str, Any]) -> Any:
        """An annotation with the serializers in the place of ``Input``, ``Output`` and the like, at any depth."""
        slot = next((item for item in getattr(annotation, "__metadata__", ()) if isinstance(item, Slot)), None)
        if slot is None:
            return resolve_parts(annotation, lambda part: cls.resolve_annotation(part, initkwargs))
        mounted = _Mounted(cls, initkwargs)
        try:
            return (_input_type if slot in (Slot.INPUT, Slot.PARTIAL_INPUT) else _output_type)(mounted, slot)
        except ImproperlyConfigured as exc:
            raise ImproperlyConfigured(f"{cls.__name__}: {exc}") from exc

    @classmethod
    def check_mounting(cls, view: ActionView) -> None:
        mounted = _Mounted(cls, view.initkwargs)
        queryset = mounted.queryset
        model_actions = _MODEL_ACTIONS.intersection(action.function for action in view.actions.values())
        if model_actions and queryset is None and not cls.decides_queryset:
            raise ImproperlyConfigured(f"{cls.__name__} needs a queryset, or a get_queryset() of its own")
        if isinstance(queryset, type):
            raise ImproperlyConfigured(
                f"{cls.__name__}.queryset is a queryset, as in MemoryQuerySet({queryset.__name__}), not a class"
            )
        if queryset is not None and not hasattr(queryset, "get"):
            raise ImproperlyConfigured(
                f"{cls.__name__}.queryset is a queryset, as in MemoryQuerySet(Card, rows=[...]) or "
                f"SQLAlchemyQuerySet(Card, sessionmaker), not {queryset!r:.80}"
            )
        shows_objects = bool(model_actions - {DestroyModelMixin.destroy})
        if shows_objects and mounted.serializer_class is None and not mounted.decides("get_serializer_class"):
            raise ImproperlyConfigured(
                f"{cls.__name__} needs a serializer_class, or a get_serializer_class() of its own"
            )
        creates = CreateModelMixin.create in model_actions and not mounted.decides_create
        updates = UpdateModelMixin.update in model_actions and not mounted.decides_update
        if (creates or updates) and not mounted.decides("get_queryset", "get_input_serializer_class", "validate"):
            _check_storing(mounted)
        for attribute in ("lookup_field", "version_field") if hasattr(queryset, "filter") else ():
            try:
                if (name := getattr(mounted, attribute)) is not None:
                    queryset.filter(**{name: None})
            except FieldError as exc:
                raise ImproperlyConfigured(f"{cls.__name__}.{attribute}: {exc}") from None
        version, model = mounted.version_field, mounted.serializer_class
        if version is not None and model is not None and not shows(model, version):
            raise ImproperlyConfigured(
                f"{cls.__name__}.version_field is {version!r}, which {model.__name__} does not show; clients need it"
            )
        if isinstance(mounted.filter_backends, str) or not isinstance(mounted.filter_backends, Sequence):
            raise ImproperlyConfigured(f"{cls.__name__}.filter_backends is a sequence, as in (SearchFilter,)")
        paginator = paginator_of(mounted.pagination_class, f"{cls.__name__}.")
        for part in (*map(_instance_of, mounted.filter_backends), paginator):
            if part is not None:
                part.check(mounted)


def _check_storing(mounted: "_Mounted") -> None:
    """Refuses fields that clients write and whose columns cannot hold them."""
    check = getattr(mounted.queryset, "check_storable", None)
    model = mounted.input_serializer_class or mounted.serializer_class
    if check is None or model is None:
        return
    readonly = marked(model, ReadOnly)
    for name, field in model.model_fields.items():
        if name not in readonly:
            try:
                check(name, field.annotation)
            except FieldError as exc:
                raise ImproperlyConfigured(f"{mounted.cls.__name__}: {exc}") from None


def _recording(get_object: Any) -> Any:
    """A ``get_object()`` of the application's own, which notes as the framework's does that it was asked, and how."""

    @wraps(get_object)
    async def get_and_record(self: Any, *args: Any, **kwargs: Any) -> Any:
        obj = await get_object(self, *args, **kwargs)
        self.frame.asks_object = args, kwargs
        return obj

    get_and_record.is_recording = True  # type: ignore[attr-defined]
    return get_and_record


_LIST_HOOKS = ("serialize_many", "get_paginated_response")
_PLAIN_HOOKS = (
    "get_queryset",
    "filter_queryset",
    "get_serializer_class",
    "get_input_serializer_class",
    "serialize",
    "serialize_many",
    "validate",
    "get_paginated_response",
    "get_page_size",
    "get_ordering",
    "get_event_routes",
)
GenericAsyncAPIActionHandler.reserved_names = frozenset(
    name for name in vars(GenericAsyncAPIActionHandler) if not name.startswith("__")
)


class GenericAsyncAPIConsumer(GenericAsyncAPIActionHandler, AsyncAPIConsumer):
    """`GenericAsyncAPIActionHandler` as the root of a connection; the key may be captured by the connection's path."""


class _Mounted:
    """A handler's attributes as they are where it is mounted."""

    def __init__(self, cls: Any, initkwargs: Mapping[str, Any]) -> None:
        self.cls, self.initkwargs = cls, initkwargs

    def __getattr__(self, name: str) -> Any:
        return self.initkwargs[name] if name in self.initkwargs else getattr(self.cls, name)

    def decides(self, *hooks: str) -> bool:
        """Whether the class took over one of these methods."""
        return overrides(self.cls, GenericAsyncAPIActionHandler, *hooks)


class _DocumentedAs:
    """An annotation that tells of a type and lets anything pass, where a hook decides for each frame."""

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return core_schema.any_schema()

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        return handler(TypeAdapter(self.annotation).core_schema)


def _input_type(mounted: _Mounted, slot: Slot) -> Any:
    model = mounted.input_serializer_class or mounted.serializer_class
    return Any if model is None else Annotated[Any, input_model(model, slot is Slot.PARTIAL_INPUT)]


def _output_type(mounted: _Mounted, slot: Slot) -> Any:
    item: Any = Any if mounted.serializer_class is None else output_model(mounted.serializer_class)
    documented = item
    list_type = GenericAlias(list, (item,))
    if slot is Slot.LIST:
        paginator = paginator_of(mounted.pagination_class)
        documented = list_type if paginator is None else paginator.get_response_type(item)
    elif slot is Slot.PAGES:
        documented = list_type
    if mounted.decides("get_serializer_class", "serialize", "serialize_many", "get_paginated_response"):
        documented = Annotated[Any, _DocumentedAs(documented)]
    return GenericAlias(AsyncIterator, (documented,)) if slot is Slot.PAGES else documented


def _instance_of(kind: Any) -> Any:
    return kind() if isinstance(kind, type) else kind


_MODEL_ACTIONS: frozenset[Any] = frozenset(
    {
        CreateModelMixin.create,
        DestroyModelMixin.destroy,
        ListModelMixin.list,
        RetrieveModelMixin.retrieve,
        UpdateModelMixin.partial_update,
        UpdateModelMixin.update,
    }
)


class CreateAPIActionHandler(CreateModelMixin, GenericAsyncAPIActionHandler):
    """Has ``create``."""


class CreateAPIConsumer(CreateModelMixin, GenericAsyncAPIConsumer):
    """Has ``create``."""


class ListAPIActionHandler(ListModelMixin, GenericAsyncAPIActionHandler):
    """Has ``list``."""


class ListAPIConsumer(ListModelMixin, GenericAsyncAPIConsumer):
    """Has ``list``."""


class RetrieveAPIActionHandler(RetrieveModelMixin, GenericAsyncAPIActionHandler):
    """Has ``retrieve``."""


class RetrieveAPIConsumer(RetrieveModelMixin, GenericAsyncAPIConsumer):
    """Has ``retrieve``."""


class UpdateAPIActionHandler(UpdateModelMixin, GenericAsyncAPIActionHandler):
    """Has ``update`` and ``partial_update``."""


class UpdateAPIConsumer(UpdateModelMixin, GenericAsyncAPIConsumer):
    """Has ``update`` and ``partial_update``."""


class DestroyAPIActionHandler(DestroyModelMixin, GenericAsyncAPIActionHandler):
    """Has ``destroy``."""


class DestroyAPIConsumer(DestroyModelMixin, GenericAsyncAPIConsumer):
    """Has ``destroy``."""


class ListCreateAPIActionHandler(ListModelMixin, CreateModelMixin, GenericAsyncAPIActionHandler):
    """Has ``list`` and ``create``."""


class ListCreateAPIConsumer(ListModelMixin, CreateModelMixin, GenericAsyncAPIConsumer):
    """Has ``list`` and ``create``."""


class RetrieveUpdateAPIActionHandler(RetrieveModelMixin, UpdateModelMixin, GenericAsyncAPIActionHandler):
    """Has ``retrieve``, ``update`` and ``partial_update``."""


class RetrieveUpdateAPIConsumer(RetrieveModelMixin, UpdateModelMixin, GenericAsyncAPIConsumer):
    """Has ``retrieve``, ``update`` and ``partial_update``."""


class RetrieveDestroyAPIActionHandler(RetrieveModelMixin, DestroyModelMixin, GenericAsyncAPIActionHandler):
    """Has ``retrieve`` and ``destroy``."""


class RetrieveDestroyAPIConsumer(RetrieveModelMixin, DestroyModelMixin, GenericAsyncAPIConsumer):
    """Has ``retrieve`` and ``destroy``."""


class RetrieveUpdateDestroyAPIActionHandler(
    RetrieveModelMixin, UpdateModelMixin, DestroyModelMixin, GenericAsyncAPIActionHandler
):
    """Has ``retrieve``, ``update``, ``partial_update`` and ``destroy``."""


class RetrieveUpdateDestroyAPIConsumer(
    RetrieveModelMixin, UpdateModelMixin, DestroyModelMixin, GenericAsyncAPIConsumer
):
    """Has ``retrieve``, ``update``, ``partial_update`` and ``destroy``."""


class ModelAPIActionHandler(
    ListModelMixin,
    CreateModelMixin,
    RetrieveModelMixin,
    UpdateModelMixin,
    DestroyModelMixin,
    GenericAsyncAPIActionHandler,
):
    """Has all six: ``list``, ``create``, ``retrieve``, ``update``, ``partial_update`` and ``destroy``."""


class ModelAPIConsumer(
    ListModelMixin, CreateModelMixin, RetrieveModelMixin, UpdateModelMixin, DestroyModelMixin, GenericAsyncAPIConsumer
):
    """Has all six: ``list``, ``create``, ``retrieve``, ``update``, ``partial_update`` and ``destroy``."""


class ReadOnlyModelAPIActionHandler(ListModelMixin, RetrieveModelMixin, GenericAsyncAPIActionHandler):
    """Has ``list`` and ``retrieve``."""


class ReadOnlyModelAPIConsumer(ListModelMixin, RetrieveModelMixin, GenericAsyncAPIConsumer):
    """Has ``list`` and ``retrieve``."""
