"""Cards for clients of djangochannelsrestframework, which stay as they are."""

from typing import Annotated

from pydantic import BaseModel

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.dialects.dcrf import DCRF
from wsaction.generics import ModelAPIActionHandler
from wsaction.querysets import MemoryQuerySet
from wsaction.routers import SimpleRouter
from wsaction.routing import path
from wsaction.serializers import ReadOnly
from wsaction.subscriptions import SubscribeMixin


class Card(BaseModel):
    id: Annotated[int, ReadOnly]
    title: str
    archived: bool = False


class CardHandler(SubscribeMixin, ModelAPIActionHandler[Card]):
    queryset = MemoryQuerySet(Card, rows=[Card(id=1, title="Move")])
    serializer_class = Card
    pagination_class = None  # these clients expect a list

    @async_action
    async def archive(self, pk: int) -> tuple[dict[str, bool], int]:
        await self.perform_update(await self.get_object(), {"archived": True})
        return {"archived": True}, 200


streams = SimpleRouter()
streams.register("cards", CardHandler)  # stream "cards" is the route cards/, with a pk cards/<pk>/


class Streams(AsyncAPIConsumer):
    dialect = DCRF()  # clients that offer the sub-protocol wsaction.v1 speak that, at the same address
    routepatterns = streams.urls


app = WSAction([path("ws/", Streams.as_asgi())])
