"""The action job on wsaction: `app` and `waiting_app`, the same routes, permission, validation and reply as
`by_hand`."""

from typing import Any

from benchmarks.contestants.by_hand import PATTERNS, TARGET, Card, CardIn
from benchmarks.job import pause
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.permissions import IsAuthenticated
from wsaction.routing import path


class OtherHandler(AsyncAPIActionHandler):
    permission_classes = (IsAuthenticated,)


class CardHandler(AsyncAPIActionHandler):
    permission_classes = (IsAuthenticated,)

    @async_action
    async def update(self, data: CardIn, board_id: int, pk: int) -> Card:
        return Card(id=pk, board_id=board_id, title=data.title, position=data.position, tags=data.tags)


class WaitingCardHandler(AsyncAPIActionHandler):
    permission_classes = (IsAuthenticated,)

    @async_action
    async def update(self, data: CardIn, board_id: int, pk: int) -> Card:
        await pause()
        return Card(id=pk, board_id=board_id, title=data.title, position=data.position, tags=data.tags)


def patterns(handler: type[AsyncAPIActionHandler]) -> list[Any]:
    return [path(text, (handler if text == TARGET else OtherHandler).as_aaah()) for text in PATTERNS]


class Boards(AsyncAPIConsumer):
    routepatterns = patterns(CardHandler)


class WaitingBoards(AsyncAPIConsumer):
    routepatterns = patterns(WaitingCardHandler)


app = WSAction([path("ws", Boards.as_asgi())])
waiting_app = WSAction([path("ws", WaitingBoards.as_asgi())])
