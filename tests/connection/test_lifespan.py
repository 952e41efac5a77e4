"""`wsaction._utils.lifespan`: the last user closes it, once, even after errors."""

import asyncio

import pytest

from wsaction._utils.lifespan import app_running, close_at_end
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.routing import path


class Store:
    def __init__(self) -> None:
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1


async def test_the_last_app_closes_what_is_there_once() -> None:
    store = Store()
    one, two = (WSAction([path("ws/", AsyncAPIConsumer.as_asgi())]) for _ in range(2))
    async with one.lifespan():
        async with two.lifespan():
            close_at_end(store.close)
            close_at_end(store.close)
        assert store.closed == 0
    assert store.closed == 1
    async with one.lifespan():
        assert store.closed == 1
    assert store.closed == 1


async def test_what_cannot_be_closed_is_logged_and_the_others_are(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()

    async def fails() -> None:
        raise ConnectionError("gone")

    async def hangs() -> None:
        await asyncio.get_running_loop().create_future()

    async with app_running(close_timeout=0.02):
        for close in (store.close, fails, hangs):
            close_at_end(close)
    assert store.closed == 1
    assert caplog.text.count("failed when the last app of its event loop ended") == 2
