"""Generic handlers and consumers: actions for the objects of a queryset, by a serializer::

    class CardHandler(ModelAPIActionHandler):
        queryset = MemoryQuerySet(Card)
        serializer_class = Card

        def get_queryset(self):
            return super().get_queryset().filter(owner_id=self.user.id)

Each class is `GenericAsyncAPIActionHandler` with the mixins of `wsaction.mixins` that its name lists. A consumer has
the same actions and is the root of a connection. The module is long because it is one thing: the base class and its
named combinations.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import wraps
from inspect import iscoroutinefunction
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal

from pydantic import BaseModel, TypeAdapter
from pydantic_core import core_schema

from wsaction._events.crud import event_routes, publish_object_from
from wsaction._events.plan import is_live
from wsaction._handlers.declarations import HookFlags, overrides
from wsaction._protocol.awaited import awaited
from wsaction.consumers import AsyncAPIConsumer
from wsaction.exceptions import ImproperlyConfigured, NotFound
from wsaction.filters import BaseFilterBackend, check_query
from wsaction.handlers import ActionView, AsyncAPIActionHandler
from wsaction.mixins import (
    CreateModelMixin,
    DestroyModelMixin,
    ListModelMixin,
    ModelT,
    OutputT,
    RetrieveModelMixin,
    Slot,
    UpdateModelMixin,
    Values,
    resolve_parts,
)
from wsaction.pagination import BasePagination, CursorPagination, Page, PageNumberPagination, paginator_of, total
from wsaction.permissions._classes import require
from wsaction.querysets import QuerySet
from wsaction.querysets._lookups import FieldError
from wsaction.serializers import ReadOnly, input_model, output_model
from wsaction.serializers._core_schema import marked
from wsaction.serializers._from_attributes import as_output, many_as_output
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


class GenericAsyncAPIActionHandler(AsyncAPIActionHandler, Generic[ModelT, OutputT]):
    """A handler of the objects of a ``queryset``, which it serializes by ``serializer_class``, a pydantic model.

    ``input_serializer_class`` is the model of the input, if that differs. An action's object is the one whose
    ``lookup_field`` has the value that the route captures as ``lookup_url_kwarg`` (by default, of the same name as
    ``lookup_field``). If the route has no such capture, the value comes from the frame's top-level key of that name, or
    from ``pk``.

    ``filter_backends`` and ``pagination_class`` (see `wsaction.filters`, `wsaction.pagination`) are classes or
    instances. A query parameter that none of them reads is answered with 400; if the handler's own code reads it, name
    it in ``query_parameters``. Mounting the handler raises `ImproperlyConfigured` if these attributes are wrong.
    """

    if TYPE_CHECKING:
        queryset: QuerySet[ModelT]
        serializer_class: type[OutputT]
    else:
        queryset = None
        serializer_class = None
    input_serializer_class: ClassVar[Serializer | None] = None
    lookup_field: ClassVar[str] = "pk"
    lookup_url_kwarg: ClassVar[str | None] = None
    lookup_value_converter: ClassVar[str] = "str"  # for `wsaction.routers.SimpleRouter`, like the next
    lookup_value_regex: ClassVar[str | None] = None
    pagination_class: ClassVar[type[BasePagination] | BasePagination | None] = PageNumberPagination
    filter_backends: ClassVar[Sequence[type[BaseFilterBackend] | BaseFilterBackend]] = ()
    filter_fields: ClassVar[Sequence[str] | Mapping[str, Sequence[str]]] = ()
    search_fields: ClassVar[Sequence[str]] = ()
    ordering_fields: ClassVar[Sequence[str]] = ()
    ordering: ClassVar[str | Sequence[str]] = ()
    query_parameters: ClassVar[Sequence[str]] = ()
    version_field: ClassVar[str | None] = None  # a field that every change increases, so that clients drop older events

    overrides_query: ClassVar[bool] = False  # whether a subclass overrides filter_queryset or paginator
    overrides_queryset: ClassVar[bool] = False  # whether it overrides get_queryset
    overrides_object: ClassVar[bool] = False  # whether it overrides get_object
    overrides_serializer: ClassVar[bool] = False  # whether it decides what retrieve shows, by frame or by user
    overrides_list: ClassVar[bool] = False  # whether it decides what list shows, which may be less than retrieve shows
    overrides_event_routes: ClassVar[bool] = False  # whether it overrides get_event_routes
    scopes_queryset: ClassVar[bool] = False  # whether it limits, by any method, which objects exist
    publishes_changes: ClassVar[bool] = False  # whether its routes can be subscribed to
    _hook_flags: ClassVar[HookFlags] = {
        "overrides_query": ("filter_queryset", "paginator"),
        "overrides_queryset": ("get_queryset",),
        "overrides_object": ("get_object",),
        "overrides_event_routes": ("get_event_routes",),
        "scopes_queryset": ("get_queryset", "get_object", "filter_queryset"),
    }
    _plain_hooks: ClassVar[tuple[str, ...]] = (
        *AsyncAPIActionHandler._plain_hooks,
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
    annotation_attributes: ClassVar[frozenset[str]] = frozenset(
        {"serializer_class", "input_serializer_class", "pagination_class"}
    )

    @classmethod
    def _read_hooks(cls) -> None:
        super()._read_hooks()
        generic = GenericAsyncAPIActionHandler
        if cls.overrides_object and iscoroutinefunction(cls.get_object) and not hasattr(cls.get_object, "is_recording"):
            cls.get_object = _recording(cls.get_object)  # type: ignore[method-assign]
        shows_objects = getattr(cls, "retrieve", None) is not None
        shows_lists = overrides(cls, ListModelMixin, "list") or overrides(cls, generic, *_LIST_HOOKS)
        cls.overrides_list = shows_objects and shows_lists
        cls.overrides_serializer = overrides(cls, generic, "get_serializer_class", "serialize") or (
            overrides(cls, RetrieveModelMixin, "retrieve")
            if shows_objects
            else getattr(cls, "list", None) is not None and shows_lists
        )
        cls.publishes_changes = is_live(cls)

    # ---------------------------------------------------------------------------------------------- objects
    def get_queryset(self) -> QuerySet[ModelT]:
        """Returns the objects that this frame may access. Override it to limit them, for example to the user's own."""
        if self.queryset is None:
            raise ImproperlyConfigured(f"{type(self).__name__} needs a queryset; set it or override get_queryset()")
        return self.queryset

    @awaited
    async def get_object(self) -> ModelT:
        """Returns the object that the route names, after checking the object permissions.

        Raises `NotFound` if there is no such object or the route names none, and `PermissionDenied`.
        """
        queryset = self.filter_queryset(self.get_queryset())
        if (key := self._lookup_value()) is None:  # a lookup of None would find objects without a value
            raise NotFound
        obj = await queryset.get(**{self.lookup_field: key})
        if self.overrides_object_permissions:
            await require(self, "check_object_permissions", obj)
        else:
            await self.check_object_permissions(obj)
        self.frame.get_object_args = (), {}
        return obj

    # ---------------------------------------------------------------------------------------------- events
    def get_event_routes(self, event: str, obj: ModelT, /) -> Sequence[str]:
        """Returns the routes whose subscribers get ``created``, ``updated`` or ``deleted`` for ``obj``.

        By default, that is this route and, if a `SimpleRouter` made it, the routes of the list and of the object.
        Override it to publish to other routes. Used with `SubscribeMixin`.
        """
        return event_routes(self, obj)

    @awaited
    async def publish_object(
        self,
        event: Literal["created", "updated", "deleted"],
        obj: ModelT,
        before: ModelT | Mapping[str, Any] | None = None,
    ) -> None:
        """Publishes that an object was ``created``, ``updated`` or ``deleted`` other than by a ``perform_...`` method.

        The event is published after the commit, as by `publish`. If the database session has expired the object, it is
        read again by its key.

        :param before: The object before the change, or its values: ``queryset.values_of(obj)`` at that time. Without
            it, subscribers who may not see the object get ``deleted`` with its key, because they may have seen it.
        :raises ValueError: ``event`` is another one, ``before`` is the changed object itself, or expired values cannot
            be read again.
        :raises TypeError: ``obj`` or ``before`` is not an instance of the queryset's model.
        """
        await self._on_its_loop(lambda: publish_object_from(self, event, obj, before))

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
    def filter_queryset(self, queryset: QuerySet[ModelT], /) -> QuerySet[ModelT]:
        """Returns the queryset filtered by ``filter_backends``. Raises `wsaction.exceptions.InvalidParameters`."""
        if self.frame.call.query and self.frame.action is not None:
            check_query(self.query_params.multi_items(), self.known_parameters())
        for backend in map(_instance_of, self.filter_backends):
            queryset = backend.filter_queryset(queryset, self)
        return queryset

    @property
    def paginator(self) -> BasePagination | None:
        """The instance of ``pagination_class``, which divides lists into pages; None if that is None."""
        paginator: BasePagination | None = _instance_of(self.pagination_class)
        return paginator

    @awaited
    async def paginate_queryset(self, queryset: QuerySet[ModelT], /) -> Page[ModelT] | None:
        """Returns the page that the frame requests; None without a paginator. Raises `NotFound`."""
        paginator = self.paginator
        return None if paginator is None else await paginator.paginate_queryset(queryset, self)

    def get_paginated_response(self, page: Page[ModelT], results: Sequence[OutputT], /) -> Any:
        """Returns the reply of ``list`` for a page and its serialized objects."""
        return self.paginator.get_paginated_response(page, results)  # type: ignore[union-attr]  # it made the page

    def get_page_size(self) -> int:
        """Returns the number of objects on a page of a stream."""
        return (self.paginator or BasePagination()).get_page_size(self)

    def get_ordering(self) -> Sequence[str]:
        """Returns the ordering of the filter backend that orders, as `OrderingFilter` does; empty without one."""
        backends = [each for each in map(_instance_of, self.filter_backends) if hasattr(each, "get_ordering")]
        return backends[0].get_ordering(self) if backends else ()

    def get_total_ordering(self) -> Sequence[str] | None:
        """Returns the ordering of the list, made unique by the primary key; None to keep the queryset's ordering."""
        paginator = self.paginator
        ordering = self.get_ordering() or (paginator.ordering if isinstance(paginator, CursorPagination) else ())
        return total(ordering) if ordering else None

    def known_parameters(self) -> Sequence[str]:
        """Returns the query parameters of a list: of the backends, the paginator and ``query_parameters``."""
        names = [name for backend in map(_instance_of, self.filter_backends) for name in backend.parameters(self)]
        paginator = self.paginator
        return [*names, *(() if paginator is None else paginator.parameters), *self.query_parameters]

    # ---------------------------------------------------------------------------------------------- serializers
    def get_serializer_class(self) -> type[OutputT]:
        """Returns the model by which objects are serialized. Override it to choose one for each frame."""
        if self.serializer_class is None:
            raise ImproperlyConfigured(
                f"{type(self).__name__} needs a serializer_class; set it or override get_serializer_class()"
            )
        return self.serializer_class

    def get_input_serializer_class(self) -> Serializer:
        """Returns the model of the input: ``input_serializer_class``, or else `get_serializer_class`."""
        if self.input_serializer_class is not None:
            return self.input_serializer_class
        return self.get_serializer_class()  # type: ignore[return-value]  # OutputT has no bound: its default is ModelT

    def serialize(self, obj: ModelT, /) -> OutputT:
        """Returns the object as an instance of the serializer, from its attributes."""
        serializer: Any = self.get_serializer_class()
        output: OutputT = as_output(output_model(serializer), obj)
        return output

    def serialize_many(self, objs: Sequence[ModelT], /) -> Sequence[OutputT]:
        """Serializes many objects, in one call of pydantic."""
        serializer: Any = self.get_serializer_class()
        outputs: Sequence[OutputT] = many_as_output(output_model(serializer), objs)
        return outputs

    def validate(self, data: Any, obj: ModelT | None = None, *, partial: bool = False) -> Values:
        """Validates input. Returns the values to write by field, without the fields that are marked ``ReadOnly``.

        :param data: The input, as it came in the frame.
        :param obj: The object to update. With ``partial``, the model's own validators see its values of other fields.
        :param partial: Whether to return only the fields that ``data`` contains.
        :raises wsaction.exceptions.InvalidParameters: The input is invalid.
        """
        return input_model(self.get_input_serializer_class(), partial).values(data, obj)

    # ---------------------------------------------------------------------------------------------- mounting
    @classmethod
    def resolve_annotation(cls, annotation: Any, initkwargs: Mapping[str, Any]) -> Any:
        """Replaces ``Input``, ``Output`` and the like in an annotation, at any depth, by types of the serializers."""
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
        if model_actions and queryset is None and not cls.overrides_queryset:
            raise ImproperlyConfigured(f"{cls.__name__} needs a queryset; set it or override get_queryset()")
        if isinstance(queryset, type):
            raise ImproperlyConfigured(
                f"{cls.__name__}.queryset must be a queryset, as in MemoryQuerySet({queryset.__name__}), got a class"
            )
        is_queryset = hasattr(queryset, "get") and not isinstance(queryset, Mapping)
        if queryset is not None and not is_queryset:
            raise ImproperlyConfigured(
                f"{cls.__name__}.queryset must be a queryset, as in MemoryQuerySet(Card, rows=[...]) or "
                f"SQLAlchemyQuerySet(Card, sessionmaker), got {queryset!r:.80}"
            )
        shows_objects = bool(model_actions - {DestroyModelMixin.destroy})
        if shows_objects and mounted.serializer_class is None and not mounted.decides("get_serializer_class"):
            raise ImproperlyConfigured(
                f"{cls.__name__} needs a serializer_class; set it or override get_serializer_class()"
            )
        creates = CreateModelMixin.create in model_actions and not overrides(cls, CreateModelMixin, "perform_create")
        updates = UpdateModelMixin.update in model_actions and not overrides(cls, UpdateModelMixin, "perform_update")
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
                f"{cls.__name__}.version_field is {version!r}, which {model.__name__} does not show; add it to the "
                "model: clients need it"
            )
        if isinstance(mounted.filter_backends, str) or not isinstance(mounted.filter_backends, Sequence):
            raise ImproperlyConfigured(
                f"{cls.__name__}.filter_backends must be a sequence, as in (SearchFilter,), "
                f"got {mounted.filter_backends!r:.80}"
            )
        paginator = paginator_of(mounted.pagination_class, f"{cls.__name__}.")
        for part in (*map(_instance_of, mounted.filter_backends), paginator):
            if part is not None and not hasattr(part, "check"):
                raise ImproperlyConfigured(
                    f"{cls.__name__}.filter_backends: expected subclasses of BaseFilterBackend, got {part!r:.80}; name "
                    "the class itself, without quotes"
                )
            if part is not None:
                part.check(mounted)


def _check_storing(mounted: "_Mounted") -> None:
    """Refuses a field that clients may write and whose values the queryset cannot store."""
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
    """Wraps an overridden ``get_object()``, so that object permissions are checked even if the override forgets to.

    The frame records the call and its arguments, as in `GenericAsyncAPIActionHandler.get_object`: a subscription
    repeats the call when its permissions are checked again.
    """

    @awaited
    @wraps(get_object)
    async def get_and_record(self: Any, *args: Any, **kwargs: Any) -> Any:
        frame = self.frame
        obj = await get_object(self, *args, **kwargs)
        if getattr(frame, "checked_object", None) is not obj:
            await require(self, "check_object_permissions", obj)
        frame.get_object_args = args, kwargs
        return obj

    get_and_record.is_recording = True  # type: ignore[attr-defined]
    return get_and_record


_LIST_HOOKS = ("serialize_many", "get_paginated_response")
GenericAsyncAPIActionHandler.reserved_names = frozenset(
    name for name in vars(GenericAsyncAPIActionHandler) if not name.startswith("__")
)


class GenericAsyncAPIConsumer(GenericAsyncAPIActionHandler[ModelT, OutputT], AsyncAPIConsumer):
    """`GenericAsyncAPIActionHandler` as the root of a connection. The connection's path may capture the key."""


class _Mounted:
    """A handler class with the ``initkwargs`` of its mounting: they override its attributes."""

    def __init__(self, cls: Any, initkwargs: Mapping[str, Any]) -> None:
        self.cls = cls
        self.initkwargs = initkwargs

    def __getattr__(self, name: str) -> Any:
        return self.initkwargs[name] if name in self.initkwargs else getattr(self.cls, name)

    def decides(self, *hooks: str) -> bool:
        """Whether the class overrides one of these methods."""
        return overrides(self.cls, GenericAsyncAPIActionHandler, *hooks)


class _DocumentedAs:
    """Annotates a result that a hook decides for each frame: documented as a type, but not validated."""

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


class CreateAPIActionHandler(CreateModelMixin[ModelT, OutputT], GenericAsyncAPIActionHandler[ModelT, OutputT]):
    """A handler with ``create``."""


class CreateAPIConsumer(CreateModelMixin[ModelT, OutputT], GenericAsyncAPIConsumer[ModelT, OutputT]):
    """A consumer with ``create``."""


class ListAPIActionHandler(ListModelMixin[ModelT, OutputT], GenericAsyncAPIActionHandler[ModelT, OutputT]):
    """A handler with ``list``."""


class ListAPIConsumer(ListModelMixin[ModelT, OutputT], GenericAsyncAPIConsumer[ModelT, OutputT]):
    """A consumer with ``list``."""


class RetrieveAPIActionHandler(RetrieveModelMixin[ModelT, OutputT], GenericAsyncAPIActionHandler[ModelT, OutputT]):
    """A handler with ``retrieve``."""


class RetrieveAPIConsumer(RetrieveModelMixin[ModelT, OutputT], GenericAsyncAPIConsumer[ModelT, OutputT]):
    """A consumer with ``retrieve``."""


class UpdateAPIActionHandler(UpdateModelMixin[ModelT, OutputT], GenericAsyncAPIActionHandler[ModelT, OutputT]):
    """A handler with ``update`` and ``partial_update``."""


class UpdateAPIConsumer(UpdateModelMixin[ModelT, OutputT], GenericAsyncAPIConsumer[ModelT, OutputT]):
    """A consumer with ``update`` and ``partial_update``."""


class DestroyAPIActionHandler(DestroyModelMixin[ModelT, OutputT], GenericAsyncAPIActionHandler[ModelT, OutputT]):
    """A handler with ``destroy``."""


class DestroyAPIConsumer(DestroyModelMixin[ModelT, OutputT], GenericAsyncAPIConsumer[ModelT, OutputT]):
    """A consumer with ``destroy``."""


class ListCreateAPIActionHandler(
    ListModelMixin[ModelT, OutputT], CreateModelMixin[ModelT, OutputT], GenericAsyncAPIActionHandler[ModelT, OutputT]
):
    """A handler with ``list`` and ``create``."""


class ListCreateAPIConsumer(
    ListModelMixin[ModelT, OutputT], CreateModelMixin[ModelT, OutputT], GenericAsyncAPIConsumer[ModelT, OutputT]
):
    """A consumer with ``list`` and ``create``."""


class RetrieveUpdateAPIActionHandler(
    RetrieveModelMixin[ModelT, OutputT],
    UpdateModelMixin[ModelT, OutputT],
    GenericAsyncAPIActionHandler[ModelT, OutputT],
):
    """A handler with ``retrieve``, ``update`` and ``partial_update``."""


class RetrieveUpdateAPIConsumer(
    RetrieveModelMixin[ModelT, OutputT], UpdateModelMixin[ModelT, OutputT], GenericAsyncAPIConsumer[ModelT, OutputT]
):
    """A consumer with ``retrieve``, ``update`` and ``partial_update``."""


class RetrieveDestroyAPIActionHandler(
    RetrieveModelMixin[ModelT, OutputT],
    DestroyModelMixin[ModelT, OutputT],
    GenericAsyncAPIActionHandler[ModelT, OutputT],
):
    """A handler with ``retrieve`` and ``destroy``."""


class RetrieveDestroyAPIConsumer(
    RetrieveModelMixin[ModelT, OutputT], DestroyModelMixin[ModelT, OutputT], GenericAsyncAPIConsumer[ModelT, OutputT]
):
    """A consumer with ``retrieve`` and ``destroy``."""


class RetrieveUpdateDestroyAPIActionHandler(
    RetrieveModelMixin[ModelT, OutputT],
    UpdateModelMixin[ModelT, OutputT],
    DestroyModelMixin[ModelT, OutputT],
    GenericAsyncAPIActionHandler[ModelT, OutputT],
):
    """A handler with ``retrieve``, ``update``, ``partial_update`` and ``destroy``."""


class RetrieveUpdateDestroyAPIConsumer(
    RetrieveModelMixin[ModelT, OutputT],
    UpdateModelMixin[ModelT, OutputT],
    DestroyModelMixin[ModelT, OutputT],
    GenericAsyncAPIConsumer[ModelT, OutputT],
):
    """A consumer with ``retrieve``, ``update``, ``partial_update`` and ``destroy``."""


class ModelAPIActionHandler(
    ListModelMixin[ModelT, OutputT],
    CreateModelMixin[ModelT, OutputT],
    RetrieveModelMixin[ModelT, OutputT],
    UpdateModelMixin[ModelT, OutputT],
    DestroyModelMixin[ModelT, OutputT],
    GenericAsyncAPIActionHandler[ModelT, OutputT],
):
    """A handler with ``list``, ``create``, ``retrieve``, ``update``, ``partial_update`` and ``destroy``."""


class ModelAPIConsumer(
    ListModelMixin[ModelT, OutputT],
    CreateModelMixin[ModelT, OutputT],
    RetrieveModelMixin[ModelT, OutputT],
    UpdateModelMixin[ModelT, OutputT],
    DestroyModelMixin[ModelT, OutputT],
    GenericAsyncAPIConsumer[ModelT, OutputT],
):
    """A consumer with ``list``, ``create``, ``retrieve``, ``update``, ``partial_update`` and ``destroy``."""


class ReadOnlyModelAPIActionHandler(
    ListModelMixin[ModelT, OutputT], RetrieveModelMixin[ModelT, OutputT], GenericAsyncAPIActionHandler[ModelT, OutputT]
):
    """A handler with ``list`` and ``retrieve``."""


class ReadOnlyModelAPIConsumer(
    ListModelMixin[ModelT, OutputT], RetrieveModelMixin[ModelT, OutputT], GenericAsyncAPIConsumer[ModelT, OutputT]
):
    """A consumer with ``list`` and ``retrieve``."""
