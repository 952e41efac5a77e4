"""A board of cards, ported from rest_framework_channels."""

from typing import Annotated

from pydantic import BaseModel, Field

from wsaction import generics
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.permissions import BasePermission
from wsaction.querysets import MemoryQuerySet  # or wsaction.contrib.sqlalchemy
from wsaction.routing import path, re_path
from wsaction.serializers import ReadOnly


class CardModel(BaseModel):
    id: Annotated[int, ReadOnly]
    title: str = Field(max_length=100)
    archived: Annotated[bool, ReadOnly] = False


class IsOpen(BasePermission):
    """Archived cards do not change."""

    message = "This card is archived."

    def has_object_permission(
        self, scope: object, handler: object, action: str, obj: CardModel, **captures: object
    ) -> bool:
        return action == "retrieve" or not obj.archived


class CardHandler(generics.RetrieveUpdateDestroyAPIActionHandler[CardModel]):
    queryset = MemoryQuerySet(CardModel, rows=[CardModel(id=1, title="Move")])
    serializer_class = CardModel
    permission_classes = (IsOpen,)

    @async_action()
    async def archive(self, *args: object, **kwargs: object) -> tuple[dict[str, bool], int]:
        await self.perform_update(await self.get_object(), {"archived": True})
        return {"archived": True}, 200


class CardsHandler(generics.ListCreateAPIActionHandler[CardModel]):
    queryset = CardHandler.queryset
    serializer_class = CardModel
    pagination_class = None  # the whole list, as there


class BoardConsumer(AsyncAPIConsumer):
    routepatterns = [
        path("cards/", CardsHandler.as_aaah()),
        re_path(r"cards/(?P<pk>[-\w]+)/$", CardHandler.as_aaah()),
    ]


app = WSAction([path("ws/", BoardConsumer.as_asgi())])
