"""A stream ends when its user loses the right to it.

`app.revoke_user()` and `$auth` ask the permissions again; a handler with ``recheck`` asks them at each item.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from tests.support.virtual_time import anyio_backend  # noqa: F401  # the fixture
from wsaction import generics
from wsaction.applications import WSAction
from wsaction.authentication import BaseAuthentication, Credential
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.pagination import PageNumberPagination
from wsaction.permissions import BasePermission
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import WebSocketSession, connect

WAIT = 5.0


class Rights:
    """The answer of the permission, which may also hang or raise."""

    def __init__(self) -> None:
        self.allowed, self.raises = True, None
        self.gate, self.asked = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.ended: list[str] = []

    raises: BaseException | None

    async def ask(self, **keywords: Any) -> bool:
        self.asked.set()
        await self.gate.wait()
        if self.raises is not None:
            raise self.raises
        return self.allowed


class Member(BasePermission):
    async def has_permission(self, scope: Any, handler: Any, action: str, room: str = "", **captures: Any) -> bool:
        return room != "wrong" and await handler.app.rights.ask()


class Tokens(BaseAuthentication):
    async def authenticate_data(self, data: Any) -> Credential | None:
        return Credential(SimpleNamespace(is_authenticated=True, pk="ada", token=data))


class Room(AsyncAPIActionHandler):
    permission_classes = (Member,)

    @async_action
    async def tail(self, room: str = "right") -> AsyncIterator[int]:
        try:
            for number in range(10_000):
                yield number
                await asyncio.sleep(0.001)
        finally:
            self.app.rights.ended.append("tail")

    @async_action
    async def paused(self) -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.app.rights.ended.append("paused")

    @async_action
    async def itself(self) -> AsyncIterator[int]:
        yield 1
        self.app.rights.allowed = False
        await self.app.revoke_user("ada")
        for number in range(10_000):
            yield number
            await asyncio.sleep(0)

    @async_action
    async def call(self) -> str:
        await self.app.go.wait()
        return "done"


class Rechecking(SubscribeMixin, Room):
    recheck = True


class Root(AsyncAPIConsumer):
    routepatterns = [path("room/", Room.as_aaah()), path("asked/", Rechecking.as_aaah())]


def make_app(**options: Any) -> Any:
    app: Any = WSAction([path("ws/", Root.as_asgi())], authentication_classes=[Tokens], **options)
    app.rights, app.go = Rights(), asyncio.Event()
    return app


def connect_as_ada(app: Any) -> Any:
    return connect(app, "/ws/", user=SimpleNamespace(is_authenticated=True, pk="ada"))


async def start_stream(ws: WebSocketSession, action: str, route: str = "room/") -> None:
    await ws.send_json({"action": action, "route": route, "room": "right", "request_id": 1})
    assert (await ws.receive_json())["status"] == 206


async def final_status(ws: WebSocketSession) -> int:
    """The status of the stream's final reply."""
    async with asyncio.timeout(WAIT):
        while (frame := await ws.receive_json()).get("status", 206) == 206 or frame["action"] == "$auth":
            pass
    status: int = frame["status"]
    return status


async def revoke(app: Any, ws: WebSocketSession) -> None:
    await app.revoke_user("ada")


async def sign_in(app: Any, ws: WebSocketSession) -> None:
    await ws.send_json({"action": "$auth", "data": "another"})


@pytest.mark.parametrize("ask", [revoke, sign_in])
@pytest.mark.parametrize("action", ["tail", "paused"])
@pytest.mark.parametrize("answer", ["no", "fails", "hangs"])
async def test_a_revoked_stream_ends_with_403(
    action: str, answer: str, ask: Callable[[Any, WebSocketSession], Awaitable[None]], caplog: Any
) -> None:
    app = make_app(limits=Limits(action_timeout=0.3))
    async with app.lifespan(), connect_as_ada(app) as ws:
        await start_stream(ws, action)
        app.rights.allowed = False
        app.rights.raises = ZeroDivisionError("asking") if answer == "fails" else None
        if answer == "hangs":
            app.rights.gate.clear()
        await ask(app, ws)
        assert await final_status(ws) == 403
        assert app.rights.ended == [action]
    assert ("could not be checked" in caplog.text) is (answer != "no")


async def test_a_stream_pauses_while_its_right_is_checked() -> None:
    app = make_app()
    async with app.lifespan(), connect_as_ada(app) as ws:
        await start_stream(ws, "tail")
        app.rights.asked.clear()
        app.rights.gate.clear()
        for _ in range(2):
            await app.revoke_user("ada")
        await asyncio.wait_for(app.rights.asked.wait(), WAIT)
        while True:  # items that were already on their way
            try:
                await asyncio.wait_for(ws.receive_json(), 0.05)
            except TimeoutError:
                break
        app.rights.gate.set()
        assert [(await ws.receive_json())["status"] for _ in range(3)] == [206] * 3
        app.rights.allowed = False
        await app.revoke_user("ada")
        assert await final_status(ws) == 403


async def test_a_stream_that_revokes_its_own_user_ends() -> None:
    app = make_app()
    async with app.lifespan(), connect_as_ada(app) as ws:
        await start_stream(ws, "itself")
        assert await final_status(ws) == 403


async def test_a_stream_that_starts_during_a_revocation_is_rechecked() -> None:
    app = make_app()
    async with app.lifespan(), connect_as_ada(app) as ws:
        app.rights.gate.clear()
        await ws.send_json({"action": "tail", "route": "room/", "room": "right", "request_id": 1})
        await asyncio.wait_for(app.rights.asked.wait(), WAIT)
        await app.revoke_user("ada")
        app.rights.ask = _no
        app.rights.gate.set()
        assert (await ws.receive_json())["status"] == 403
        assert app.rights.ended == []


async def _no() -> bool:
    return False


async def test_recheck_asks_at_each_item() -> None:
    app = make_app()
    async with app.lifespan(), connect_as_ada(app) as ws:
        await start_stream(ws, "tail", "asked/")
        app.rights.allowed = False
        assert await final_status(ws) == 403
        assert app.rights.ended == ["tail"]


async def test_a_running_call_goes_on_and_a_waiting_one_is_refused() -> None:
    app = make_app()
    async with app.lifespan(), connect_as_ada(app) as ws:
        for number in (1, 2):  # one route, so they run in order
            await ws.send_json({"action": "call", "route": "room/", "request_id": number})
        await ws.call("$ping")
        app.rights.allowed = False
        await app.revoke_user("ada")
        app.go.set()
        assert [(await ws.receive_json())["status"] for _ in range(2)] == [200, 403]


async def test_disconnect_user_ends_the_streams_of_the_user() -> None:
    app = make_app()
    async with app.lifespan(), connect_as_ada(app) as ws:
        await start_stream(ws, "paused")
        await app.disconnect_user("ada", "bye")
        assert await ws.wait_closed() == (4403, "bye")
        assert app.rights.ended == ["paused"]


# -- objects ----------------------------------------------------------------------------------------------------------
class Card(BaseModel):
    id: int
    owner: str = "ada"


class Owner(BasePermission):
    async def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any, **captures: Any) -> bool:
        return bool(obj.owner == scope["user"].pk)


class Cards(generics.GenericAsyncAPIActionHandler):
    permission_classes = (Owner,)

    @async_action
    async def tail(self) -> AsyncIterator[int]:
        await self.get_object()
        for number in range(10_000):
            yield number
            await asyncio.sleep(0.001)


class OwnCards(Cards):
    """`get_object` is overridden and uses another capture."""

    async def get_object(self) -> Card:
        card: Card = await self.get_queryset().get(id=self.kwargs["number"])
        await self.check_object_permissions(card)
        return card


class ToldCards(Cards):
    """`get_object` takes an argument, as in rest_framework_channels."""

    async def get_object(self, action: str) -> Card:  # type: ignore[override]
        assert action == "tail"
        card: Card = await super().get_object()
        return card

    @async_action
    async def tail(self) -> AsyncIterator[int]:
        await self.get_object("tail")
        for number in range(10_000):
            yield number
            await asyncio.sleep(0.001)


class ScopedCards(OwnCards):
    permission_classes = ()

    async def get_object(self) -> Card:
        card: Card = await self.get_queryset().get(id=self.kwargs["number"], owner=self.user.pk)
        return card


@pytest.mark.parametrize("handler", [Cards, OwnCards, ScopedCards, ToldCards])
@pytest.mark.parametrize("change", ["given away", "deleted", "kept"])
async def test_a_revocation_checks_the_object_of_a_stream_again(change: str, handler: Any) -> None:
    cards = MemoryQuerySet(Card, rows=[Card(id=7)])

    class Root(AsyncAPIConsumer):
        key = "number" if issubclass(handler, OwnCards) else "pk"
        routepatterns = [path(f"cards/<int:{key}>/", handler.as_aaah(queryset=cards))]

    app = WSAction([path("ws/", Root.as_asgi())])
    async with app.lifespan(), connect_as_ada(app) as ws:
        await start_stream(ws, "tail", "cards/7/")
        card = await cards.get(id=7)
        if change == "given away":
            await cards.update(card, {"owner": "bob"})
        elif change == "deleted":
            await cards.delete(card)
        await app.revoke_user("ada")
        if change == "kept":
            assert [(await ws.receive_json())["status"] for _ in range(200)] == [206] * 200
        else:
            assert await final_status(ws) == 403


class Note(BaseModel):
    id: int
    team: str = "red"


async def test_a_streamed_list_filters_each_page_by_the_current_rights() -> None:
    teams = {"red", "blue"}
    cards = MemoryQuerySet(Note, [Note(id=number, team="blue" if number == 5 else "red") for number in range(1, 8)])

    class Cards(generics.ListAPIActionHandler):
        queryset, serializer_class = cards, Note
        pagination_class = type("Two", (PageNumberPagination,), {"page_size": 2})

        def get_queryset(self) -> Any:
            return cards.filter(team__in=list(teams))

        def serialize_many(self, objs: Any) -> Any:
            teams.discard("red")  # while the first page is sent
            return super().serialize_many(objs)

    async with connect(Cards.as_aaah(), "/") as ws:
        await ws.send_json({"action": "list", "stream": True, "request_id": 1})
        replies = [await ws.receive_json() for _ in range(3)]
    assert [one["status"] for one in replies] == [206, 206, 200]
    assert [[card["id"] for card in one["data"] or ()] for one in replies] == [[1, 2], [5], []]
