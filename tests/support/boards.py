"""The app of `codegen_scenarios.ts`, which uses its generated client. With BOARDS_REDIS, it has a RedisLayer."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

from pydantic import BaseModel

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import Throttled
from wsaction.generics import ModelAPIActionHandler
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.layers.redis import RedisLayer
from wsaction.querysets import MemoryQuerySet
from wsaction.routers import SimpleRouter
from wsaction.routing import path, re_path
from wsaction.serializers import ReadOnly, WriteOnly
from wsaction.subscriptions import SubscribeMixin


class Card(BaseModel):
    id: Annotated[int, ReadOnly]
    title: str
    note: Annotated[str, WriteOnly] = ""
    done: bool = False


class Moved(BaseModel):
    card: int
    to: str = "done"


class Cards(SubscribeMixin, ModelAPIActionHandler):
    queryset = MemoryQuerySet(Card, rows=[Card(id=1, title="one"), Card(id=2, title="two")])
    serializer_class = Card
    lookup_value_converter = "int"


class Board(SubscribeMixin, AsyncAPIActionHandler):
    events = {"moved": Moved}

    @async_action
    async def move(self, pk: int, data: Moved) -> int:
        """Moves a card and publishes `moved`."""
        await self.publish("moved", data)
        return pk

    @async_action
    async def count(self, to: int, size: int = 1) -> AsyncIterator[str]:
        for number in range(to):
            yield str(number).rjust(size)

    @async_action
    async def slow(self) -> str:
        await asyncio.sleep(60)
        return "slow"

    @async_action
    async def limited(self) -> None:
        raise Throttled(ctx={"retry_after": 1.5})


class Echo(AsyncAPIActionHandler):
    @async_action
    async def echo(self, **kwargs: Any) -> dict[str, Any]:
        return {"route": self.route, "query": dict(self.query_params.multi_items()), **self.kwargs}


router = SimpleRouter()
router.register("cards", Cards)


class Root(AsyncAPIConsumer):
    """Boards with cards."""

    routepatterns = [
        *router.urls,
        path("boards/<int:pk>/", Board.as_aaah()),
        path("echo/<slug:slug>/<uuid:key>/<path:rest>", Echo.as_aaah()),
        re_path(r"^years/(?P<year>[0-9]{4})/(?:(?P<month>[0-9]+)/)?$", Echo.as_aaah(), name="years"),
        re_path(r"^(?:a|b)$|^c$", Echo.as_aaah(), name="any"),
    ]

    @async_action
    async def hello(self, name: str = "you") -> str:
        return f"Hello {name}"

    @async_action(mode="none")
    async def whisper(self, text: str) -> None:
        await self.push("whispered", text)


REDIS = os.environ.get("BOARDS_REDIS")
app = WSAction([path("ws/", Root.as_asgi())], title="Boards", layer=RedisLayer(REDIS) if REDIS else None)
