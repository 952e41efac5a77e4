"""Boards that clients subscribe to, an app that serves them, and a layer that fails."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import LayerUnavailable
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.layers.base import History, Position
from wsaction.layers.memory import MemoryLayer
from wsaction.presence import PresenceMixin
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import WebSocketSession


class Row(BaseModel):
    id: int
    text: str = ""


class Moved(BaseModel):
    x: int


class Board(SubscribeMixin, AsyncAPIActionHandler):
    @async_action
    async def tell(self, data: Any = None, event: str = "told", but_me: bool = False) -> None:
        await self.publish(event, data, exclude_self=but_me)

    @async_action
    async def whisper(self, data: Any = None) -> None:
        await self.push("whispered", data)


class Declared(Board):
    events = {"moved": Moved}


class Lean(Board):
    history_size = 0


class Counted(Board):
    """A board whose list may wait."""

    gate: Any = None

    @async_action
    async def list(self, stream: bool = False, most: int = 3) -> Any:
        if self.gate is not None:
            await self.gate.wait()
        return [self.kwargs.get("pk"), self.action, most]


class Root(SubscribeMixin, AsyncAPIConsumer):
    routepatterns = [
        path("boards/<int:pk>/", Board.as_aaah()),
        path("declared/", Declared.as_aaah()),
        path("lean/", Lean.as_aaah()),
        path("counted/<int:pk>/", Counted.as_aaah()),
    ]

    @async_action
    async def tell(self, data: Any = None) -> None:
        await self.publish("told", data)


@asynccontextmanager
async def running_app(*routes: Any, **options: Any) -> AsyncIterator[WSAction]:
    app = WSAction(routes or [path("ws/<str:tenant>/", Root.as_asgi())], **options)
    async with app.lifespan():
        yield app


async def position(ws: WebSocketSession, route: str, **parameters: Any) -> dict[str, Any]:
    reply = await ws.call("subscribe", route, **parameters)
    assert (reply["status"], reply["errors"]) == (200, [])
    data: dict[str, Any] = reply["data"]
    return data


class FailingLayer(MemoryLayer):
    """A layer that fails to publish while ``away`` is set."""

    away = False

    async def publish(self, topic: str, body: bytes, history: History | None) -> Position | None:
        if self.away:
            raise LayerUnavailable
        return await super().publish(topic, body, history)


class Room(PresenceMixin, Board):
    gate: Any = None

    @async_action
    async def list(self) -> list[int]:
        if self.gate is not None:
            await self.gate.wait()
        return []
