"""Generic handlers and consumers: a queryset and a serializer, and the actions follow.

    class CardHandler(ModelAPIActionHandler):
        queryset = MemoryQuerySet(Card)
        serializer_class = Card

        def get_queryset(self):
            return super().get_queryset().filter(owner_id=self.user.id)

Each is a `GenericAsyncAPIActionHandler` with some of `wsaction.mixins`. What its name says, it has; a consumer,
with the same actions, is the root of a connection.
"""

from wsaction.bases import GenericAsyncAPIActionHandler, GenericAsyncAPIConsumer
from wsaction.mixins import (
    CreateModelMixin,
    DestroyModelMixin,
    ListModelMixin,
    RetrieveModelMixin,
    UpdateModelMixin,
)

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
