"""The framework on a loop with `asyncio.eager_task_factory` (Python 3.12): tasks start in ``create_task``."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.eager_tasks import eager_task_factory
from tests.support.redis_servers import needs_redis_server, redis_server
from wsaction._utils.lifespan import Lifespan
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.layers.redis import RedisLayer
from wsaction.presence import PresenceMixin
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import connect


@asynccontextmanager
async def eager() -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(eager_task_factory)
    try:
        yield
    finally:
        loop.set_task_factory(None)


class Room(PresenceMixin, AsyncAPIActionHandler):
    recheck = True  # so that each event is filtered

    @async_action
    async def say(self, text: str) -> None:
        await self.publish("said", text)

    @async_action
    async def slowly(self) -> str:
        await asyncio.sleep(0)
        return await asyncio.create_task(asyncio.sleep(0, "done"))

    @async_action
    async def count(self) -> AsyncIterator[int]:
        for number in range(3):
            yield number
            await asyncio.sleep(0)


class Root(SubscribeMixin, AsyncAPIConsumer):
    routepatterns = [path("rooms/<int:pk>/", Room.as_aaah())]

    @async_action
    async def say(self, text: str) -> None:
        await self.publish("said", text)


async def test_a_task_begins_at_once() -> None:
    begun = []

    async def work() -> str:
        begun.append(asyncio.current_task())
        await asyncio.sleep(0)
        return "done"

    async with eager():
        task = asyncio.create_task(work())
        assert begun == [task]
        assert await task == "done"


@pytest.mark.parametrize("layer", ["memory", pytest.param("redis", marks=needs_redis_server)])
async def test_frames_events_streams_and_presence(layer: str, tmp_path: Path) -> None:
    async def use(**options: Any) -> None:
        app = WSAction([path("ws/", Root.as_asgi())], **options)
        async with eager(), app.lifespan(), connect(app, "/ws/") as one, connect(app, "/ws/") as two:
            for route in ("", "rooms/1/"):
                for ws in (one, two):
                    assert (await ws.call("subscribe", route))["status"] == 200
                for number in range(3):
                    await two.call("say", route, text=f"{number}")
                    assert (await one.event("said"))["data"] == f"{number}"
            assert len((await one.call("presence", "rooms/1/"))["data"]) == 2
            for number in range(20):
                await one.send_json({"action": "slowly", "route": f"rooms/{number}/", "request_id": number})
            replies = []
            while len(replies) < 20:
                frame = await one.receive_json()
                replies += [frame["data"]] if frame.get("action") == "slowly" else []
            assert replies == ["done"] * 20
            assert [item async for item in one.stream("count", "rooms/1/")] == [0, 1, 2]
            assert (await one.call("unsubscribe", "rooms/1/"))["status"] == 204
            await two.event("leave")

    if layer == "memory":
        await use()
    else:
        with redis_server(tmp_path) as server:
            await use(layer=RedisLayer(server.url))


async def test_a_lifespan_that_fails_as_it_starts() -> None:
    @asynccontextmanager
    async def failing() -> AsyncIterator[None]:
        raise ZeroDivisionError
        yield

    async with eager():
        with pytest.raises(ZeroDivisionError):
            await Lifespan(failing).ensure()
