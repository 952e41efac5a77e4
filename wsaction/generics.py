"""Generic handlers and consumers: a queryset and a serializer, and the actions follow."""

from typing import Any, ClassVar

from pydantic import BaseModel

from wsaction.consumers import AsyncAPIConsumer
from wsaction.exceptions import ImproperlyConfigured, NotFound
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.mixins import RetrieveModelMixin

__all__ = (
    "GenericAsyncAPIActionHandler",
    "GenericAsyncAPIConsumer",
    "RetrieveAPIActionHandler",
    "RetrieveAPIConsumer",
)


class GenericAsyncAPIActionHandler(AsyncAPIActionHandler):
    """A handler of the objects of a ``queryset``, shown as ``serializer_class``, a pydantic model.

    The object is the one whose ``lookup_field`` has the value of the capture ``lookup_url_kwarg`` (by default of the
    same name); where the route has no such capture, of the frame's top-level key.
    """

    queryset: ClassVar[Any] = None
    serializer_class: ClassVar[type[BaseModel] | None] = None
    lookup_field: ClassVar[str] = "pk"
    lookup_url_kwarg: ClassVar[str | None] = None

    def get_queryset(self) -> Any:
        """The objects that this frame may reach; override it to narrow them."""
        if self.queryset is None:
            raise ImproperlyConfigured(f"{type(self).__name__} needs a queryset, or a get_queryset() of its own")
        return self.queryset

    def get_serializer_class(self) -> type[BaseModel]:
        """The model that objects are shown as; override it to decide for each frame."""
        if self.serializer_class is None:
            raise ImproperlyConfigured(
                f"{type(self).__name__} needs a serializer_class, or a get_serializer_class() of its own"
            )
        return self.serializer_class

    async def get_object(self) -> Any:
        """The object that the route names, once its permissions have said yes.

        Raises `NotFound`, `PermissionDenied`.
        """
        name = self.lookup_url_kwarg or self.lookup_field
        if name in self.kwargs:
            value = self.kwargs[name]
        elif name in self.frame.body:
            value = self.frame.body[name]
        else:
            raise NotFound(f"This route names no object: {name} is neither in the route nor in the frame.")
        obj = await self.get_queryset().get(**{self.lookup_field: value})
        await self.check_object_permissions(obj)
        return obj

    def serialize(self, obj: Any) -> BaseModel:
        """The object as ``get_serializer_class()`` shows it, from its attributes."""
        return self.get_serializer_class().model_validate(obj, from_attributes=True)


class GenericAsyncAPIConsumer(GenericAsyncAPIActionHandler, AsyncAPIConsumer):
    """`GenericAsyncAPIActionHandler` as the root of a connection; the key may be captured by the connection's path."""


class RetrieveAPIActionHandler(RetrieveModelMixin, GenericAsyncAPIActionHandler):
    """Has ``retrieve``."""


class RetrieveAPIConsumer(RetrieveModelMixin, GenericAsyncAPIConsumer):
    """Has ``retrieve``."""
