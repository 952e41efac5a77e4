"""The cost per route does not grow with ten thousand routes, and their memory is freed when all subscribers leave."""

import asyncio
import gc
import time
import tracemalloc
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.support.live_boards import Board
from wsaction._pubsub.hub import Hub
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.layers.base import History
from wsaction.layers.memory import MemoryLayer
from wsaction.routing import path
from wsaction.testing import connect

ROUTES, CONNECTIONS = 10_000, 100
EVENT = '{"event":"told","route":"r","data":1}'


class Root(AsyncAPIConsumer):
    routepatterns = [path("boards/<int:pk>/", Board.as_aaah())]


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})], ids=["uvloop"])
async def test_publishing_to_one_of_ten_thousand_routes_is_as_fast_as_to_the_only_one() -> None:
    one, many = WSAction([path("ws/", Root.as_asgi())]), WSAction([path("ws/", Root.as_asgi())])
    async with AsyncExitStack() as stack:
        only = await stack.enter_async_context(connect(one, "/ws/"))
        assert (await only.call("subscribe", "boards/0/"))["status"] == 200
        for first in range(0, ROUTES, ROUTES // CONNECTIONS):
            ws = await stack.enter_async_context(connect(many, "/ws/"))
            for pk in range(first, first + ROUTES // CONNECTIONS):
                assert (await ws.call("subscribe", f"boards/{pk}/"))["status"] == 200
        best = {one: float("inf"), many: float("inf")}
        for turn in range(5):
            for app, routes in ((one, 1), (many, ROUTES)):
                began = time.thread_time()
                for number in range(1_000):
                    await app.publish(f"boards/{(number * 7 + turn) % routes}/", "told", number)
                best[app] = min(best[app], time.thread_time() - began)
    # 1.1 to 1.5 was measured, due to cold memory. A cost that grows with the routes would be a hundred times higher.
    assert best[many] < 3 * best[one]


class Listener:
    capacity, is_closed = 1 << 20, False

    def put(self, text: str) -> None: ...

    async def wait_for_space(self, size: int) -> None: ...

    def close(self, code: int, reason: str) -> None: ...


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"])
async def test_memory_returns_when_all_have_left() -> None:
    hub = Hub(MemoryLayer(sweep_interval=0.1), linger=0.05)
    listeners = [Listener() for _ in range(ROUTES)]
    history = History(100, 0.05)
    await hub.open()

    async def come_and_go() -> tuple[int, int]:
        """Bytes that all of them took, and bytes that were not freed."""
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for number, listener in enumerate(listeners):
            await hub.join(listener, f"t{number}", "r", reply=lambda *told: "", history=history)
            await hub.publish(f"t{number}", EVENT, history)
        took = tracemalloc.get_traced_memory()[0] - before
        for listener in listeners:
            hub.leave_all(listener)
        async with asyncio.timeout(10):
            while hub._topics or hub.layer._filled:  # type: ignore[attr-defined]  # noqa: ASYNC110  # by timers
                await asyncio.sleep(0.02)
        gc.collect()
        return took, tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        took, left = await come_and_go()
        grown = min([(await come_and_go())[1] for _ in range(3)])  # a leak grows each time, a dict only once
    finally:
        tracemalloc.stop()
        await hub.close()
    told: Any = {"took": took / ROUTES, "left": left / ROUTES, "grown": grown / ROUTES}  # bytes per route
    assert took / ROUTES < 6_000, told
    assert left < took / 5, told  # positions are kept for a day
    assert grown < took / 50, told
