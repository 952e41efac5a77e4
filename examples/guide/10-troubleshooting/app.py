"""A room and a board in debug mode, to be called wrongly."""

from pydantic import BaseModel

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import PermissionDenied
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.permissions import AllowAny, IsAuthenticated
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin


class Message(BaseModel):
    text: str


class Room(SubscribeMixin, AsyncAPIActionHandler):
    permission_classes = (AllowAny,)
    events = {"said": Message}

    @async_action
    async def say(self, data: Message) -> None:
        await self.publish("said", data)

    @async_action
    async def clear(self) -> None:
        raise PermissionDenied("Only the owner may clear a room.")


class Board(AsyncAPIActionHandler):
    permission_classes = (IsAuthenticated,)

    @async_action
    async def rename(self, title: str) -> str:
        return title


class Root(AsyncAPIConsumer):
    routepatterns = [path("rooms/<slug:name>/", Room.as_aaah()), path("boards/<int:pk>/", Board.as_aaah())]


app = WSAction([path("ws/", Root.as_asgi())], debug=True)
