"""Cards that several clients share: a page without a build step, TypeScript, React and Python."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route

from wsaction import AsyncAPIConsumer, WSAction, path
from wsaction.codegen import erase_types, typescript
from wsaction.generics import ModelAPIActionHandler
from wsaction.querysets import MemoryQuerySet
from wsaction.routers import SimpleRouter
from wsaction.serializers import ReadOnly
from wsaction.subscriptions import SubscribeMixin


class Card(BaseModel):
    id: Annotated[int, ReadOnly]
    title: str
    done: bool = False


class CardHandler(SubscribeMixin, ModelAPIActionHandler[Card]):
    queryset = MemoryQuerySet(Card, rows=[Card(id=1, title="Write the guide")])
    serializer_class = Card
    lookup_value_converter = "int"


router = SimpleRouter()
router.register("cards", CardHandler)


class Desk(AsyncAPIConsumer):
    routepatterns = router.urls


live = WSAction([path("ws/", Desk.as_asgi())], title="Desk")
script = erase_types(typescript(live.asyncapi(), "ws"))


async def page(request: Request) -> Response:
    return FileResponse(Path(__file__).with_name("index.html"))


async def client(request: Request) -> Response:
    return Response(script, media_type="text/javascript")


app = Starlette(routes=[Route("/", page), Route("/client.js", client), Mount("/", live)], lifespan=live.lifespan)
