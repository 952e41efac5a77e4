"""The app of the explorer's tests and pictures: routes with every kind of action, and sign-in by a token."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from pydantic import BaseModel, Field

from wsaction.applications import WSAction
from wsaction.authentication import BearerAuthentication, Credential
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import NotAuthenticated
from wsaction.generics import ModelAPIActionHandler
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.permissions import IsAuthenticated
from wsaction.presence import PresenceMixin
from wsaction.querysets import MemoryQuerySet
from wsaction.routers import SimpleRouter
from wsaction.routing import path
from wsaction.serializers import ReadOnly

__all__ = ("Root", "Tokens", "make")


class Label(BaseModel):
    name: str
    weight: int = 1


class CardIn(BaseModel):
    title: str = Field(description="What has to be done.")
    labels: list[Label] = []
    due: str | None = None
    notes: str = ""
    colour: Annotated[str, Field(json_schema_extra={"enum": ["red", "green"]})] = "red"
    owner: str | int = "nobody"


class Cards(AsyncAPIActionHandler):
    """Cards of a board."""

    @async_action(status=201)
    async def create(self, board: int, data: CardIn, notify: bool = False) -> dict[str, Any]:
        """Adds a card."""
        return {"board": board, "notify": notify, **data.model_dump()}

    @async_action
    async def search(self, board: int, notify: bool = False, limit: Annotated[int, Field(gt=0)] = 9) -> list[str]:
        """Searches the cards of a board,
        in no order.

        Give `notify` as well as ``limit``, *or not*:

        - **each word** is searched
        - by [the rules](https://example.com/rules), never by [this](javascript:alert(1))

        <b>No HTML</b> is kept.

        :param limit: how many at most
        """
        return ["a"] * min(limit, 2)

    @async_action(destructive=True)
    async def archive(self, board: int) -> None:
        """Removes all cards."""


class Task(BaseModel):
    id: Annotated[int, ReadOnly]
    title: Annotated[str, Field(min_length=2)]
    done: bool = False


class User:
    is_authenticated = True
    id = "ada"


class Tokens(BearerAuthentication):
    def verify(self, token: str) -> Credential:
        if token != "secret":
            raise NotAuthenticated("This token is not valid.")
        return Credential(User())


class Root(AsyncAPIConsumer):
    epoch = "a"

    @async_action
    async def echo(self, text: str) -> str:
        return text

    @async_action
    async def count(self) -> AsyncIterator[int]:
        """Counts until it is cancelled."""
        number = 0
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.02)  # the pace of the stream

    @async_action
    async def hang(self) -> None:
        await asyncio.Event().wait()

    @async_action
    async def subscribe(self, since: dict[str, Any] | None = None) -> dict[str, Any]:
        data = {"id": 7, "text": "long " * 99}
        for offset, event in enumerate(("moved", "<b>made</b>") if since is None else (), 1):
            self.consumer.connection.put(json.dumps({"event": event, "route": "", "data": data, "offset": offset}))
        recovered = None if since is None else since == {"epoch": self.epoch, "offset": 3}
        return {"epoch": self.epoch, "offset": 2, "recovered": recovered}

    @async_action
    async def evict(self) -> None:
        self.consumer.connection.put(json.dumps({"event": "$unsubscribed", "route": "", "data": None}))

    @async_action
    async def sign_in(self, name: str, password: str) -> dict[str, Any]:
        """Returns a token. The password is the name."""
        return {"user": name, "tokens": {"refresh_token": "no", "access_token": "secret" if name == "ada" else "wrong"}}

    @async_action(permission_classes=(IsAuthenticated,))
    async def whoami(self) -> str:
        return self.user.id

    @async_action
    async def leave(self, code: int) -> None:
        self.consumer.connection.put(json.dumps({"event": "left", "route": "", "data": code, "offset": 3}))
        await self.close(code, "because")


class Room(AsyncAPIConsumer):
    @async_action
    async def where(self) -> str:
        return self.kwargs["room"]


def make(**options: Any) -> WSAction:
    """The app, with tasks of its own."""

    class Tasks(PresenceMixin, ModelAPIActionHandler):
        """The tasks of all. A change is published to all subscribers."""

        queryset = MemoryQuerySet(Task, rows=[Task(id=4, title="Read the guide"), Task(id=5, title="Send a frame")])
        serializer_class = Task
        lookup_value_converter = "int"

    router = SimpleRouter()
    router.register("tasks", Tasks)

    class AppRoot(Root):
        routepatterns = [path("boards/<int:board>/cards/", Cards.as_aaah()), *router.urls]

    options = {"title": "<i>Boards</i>", "version": "7.1", "authentication_classes": [Tokens], **options}
    return WSAction([path("ws/", AppRoot.as_asgi()), path("rooms/<slug:room>/", Room.as_asgi())], **options)
