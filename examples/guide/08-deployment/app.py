"""Chat rooms for several processes: Redis carries the events, and two HTTP addresses say how a process is."""

import asyncio
import os

from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import LayerUnavailable
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.layers.redis import RedisLayer
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin

REDIS_URL = os.environ.get("REDIS_URL")
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "localhost").split(",")


class Message(BaseModel):
    text: str = Field(max_length=2_000)


class Connection(BaseModel):
    process: int
    address: str
    scheme: str


class Room(SubscribeMixin, AsyncAPIActionHandler):
    """A room. Whoever is subscribed to it gets what is said."""

    events = {"said": Message}

    @async_action
    async def say(self, text: str) -> None:
        """Says something to the room."""
        await self.publish("said", Message(text=text))


class Rooms(AsyncAPIConsumer):
    routepatterns = [path("rooms/<slug:name>/", Room.as_aaah())]

    @async_action
    async def whereami(self) -> Connection:
        """Returns which process serves this connection, and what it knows of the client."""
        return Connection(process=os.getpid(), address=self.scope["client"][0], scheme=self.scope["scheme"])


layer = RedisLayer(REDIS_URL) if REDIS_URL else None  # None: a single process keeps the events itself
rooms = WSAction([path("ws/", Rooms.as_asgi())], layer=layer, allowed_hosts=ALLOWED_HOSTS)


async def alive(request: Request) -> PlainTextResponse:
    """Answers while the event loop runs. It asks nothing else: a restart would not bring Redis back."""
    return PlainTextResponse("alive")


async def ready(request: Request) -> PlainTextResponse:
    """Publishes to a topic that nobody is subscribed to: 503 while Redis is away."""
    try:
        async with asyncio.timeout(2):
            if layer is not None:
                await layer.publish("health", b"{}", None)
    except (LayerUnavailable, TimeoutError):
        return PlainTextResponse("Redis is away", 503)
    return PlainTextResponse("ready")


app = Starlette(
    routes=[Route("/healthz", alive), Route("/readyz", ready), Mount("/", rooms)],
    lifespan=rooms.lifespan,
)
