"""`wsaction.presence`: who is there, counted by user."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.redis_servers import needs_redis_server, redis_server
from tests.test_subscriptions import Board, position
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.layers.redis import RedisLayer
from wsaction.presence import PresenceMixin
from wsaction.routing import path
from wsaction.testing import connect


class Room(PresenceMixin, Board):
    gate: Any = None

    @async_action
    async def list(self) -> list[int]:
        if self.gate is not None:
            await self.gate.wait()
        return []


class Root(AsyncAPIConsumer):
    routepatterns = [path("rooms/<int:pk>/", Room.as_aaah())]


def user(pk: Any) -> Any:
    return SimpleNamespace(is_authenticated=True, pk=pk)


def told(event: Any) -> Any:
    return event["event"], event["route"], event["data"]


async def test_users_come_and_go_once_however_many_connections_they_have() -> None:
    app = WSAction([path("ws/", Root.as_asgi())])
    room, other = "rooms/7/", "rooms/8/"
    async with app.lifespan(), connect(app, "/ws/", user=user("ada")) as one:
        assert (await one.call("presence", room))["data"] == {}
        await position(one, room)
        assert told(await one.event()) == ("join", room, {"user": "ada"})
        async with connect(app, "/ws/", user=user("ada")) as two, connect(app, "/ws/", user=user(3)) as three:
            for ws in (two, three, three):
                await position(ws, room)
            async with connect(app, "/ws/") as nobody:
                await position(nobody, room)
                assert (await one.call("presence", other))["data"] == {}
                data = (await one.call("presence", room))["data"]
                (key,) = data.keys() - {"ada", "3"}
                assert data == {"ada": 2, "3": 1, key: 1}
                assert key.startswith("anonymous:")
            assert told(await one.event()) == ("join", room, {"user": "3"})
            assert told(await one.event()) == ("join", room, {"user": key})
            assert told(await one.event()) == ("leave", room, {"user": key})
            await three.call("unsubscribe", room)
            await three.call("unsubscribe", room)
            assert told(await one.event()) == ("leave", room, {"user": "3"})
        assert (await one.call("presence", room))["data"] == {"ada": 1}
        await position(one, room, since={"epoch": "gone", "offset": 1})
        assert (await one.call("presence", room))["data"] == {"ada": 1}
        await one.nothing()


async def test_one_who_is_begun_again_and_stopped_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    app = WSAction([path("ws/", Root.as_asgi())])
    async with app.lifespan(), connect(app, "/ws/", user=user("ada")) as ws:
        await position(ws, "rooms/7/")
        await ws.event("join")
        monkeypatch.setattr(Room, "gate", asyncio.Event())
        await ws.send_json({"action": "subscribe", "route": "rooms/7/", "snapshot": True, "request_id": 1})
        await ws.call("$ping")
        await ws.call("$cancel", data=1)
        assert (await ws.receive_json())["status"] == 499
        assert (await ws.call("presence", "rooms/7/"))["data"] == {}


async def test_without_a_layer_that_knows_presence_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    app = WSAction([path("ws/", Root.as_asgi())])
    async with connect(app, "/ws/", user=user("ada")) as ws:
        async with app.lifespan():
            await position(ws, "rooms/7/")
            await ws.event("join")
            with monkeypatch.context() as patch:
                patch.setattr(app.runtime.hub.layer, "roster", None)
                reply = await ws.call("presence", "rooms/7/")
                assert (reply["status"], reply["errors"][0]["type"]) == (503, "layer_unavailable")
                await position(ws, "rooms/8/")
        assert (await ws.call("presence", "rooms/7/"))["status"] == 503


@needs_redis_server
async def test_they_are_counted_across_processes(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        here, there = (WSAction([path("ws/", Root.as_asgi())], layer=RedisLayer(server.url)) for _ in range(2))
        async with here.lifespan(), there.lifespan(), connect(here, "/ws/", user=user("ada")) as one:
            await position(one, "rooms/7/")
            assert told(await one.event()) == ("join", "rooms/7/", {"user": "ada"})
            async with connect(there, "/ws/", user=user("bob")) as two:
                await position(two, "rooms/7/")
                assert told(await one.event()) == ("join", "rooms/7/", {"user": "bob"})
                assert (await two.call("presence", "rooms/7/"))["data"] == {"ada": 1, "bob": 1}
            assert told(await one.event()) == ("leave", "rooms/7/", {"user": "bob"})
