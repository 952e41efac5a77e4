"""In debug mode, the log warns once about each action that blocks the event loop."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.dependencies import Depends
from wsaction.routing import path
from wsaction.testing import connect

pytestmark = pytest.mark.anyio
LONG = 0.03  # seconds: three times the slow_callback_duration that `call_actions` sets
WAITING = 0.3  # seconds: 1.5 times the limit of the test below, as a busy machine may delay any callback


def block() -> None:
    time.sleep(LONG)  # blocks the event loop on purpose


async def slow() -> None:
    block()


class Root(AsyncAPIConsumer):
    @async_action
    async def at_first(self) -> None:
        block()

    @async_action
    async def after_waiting(self) -> None:
        await asyncio.sleep(0)
        block()

    @async_action
    async def of_a_stream(self) -> AsyncIterator[int]:
        yield 1
        block()

    @async_action
    async def of_a_dependency(self, nothing: Annotated[None, Depends(slow)]) -> None: ...

    @async_action
    async def failing(self) -> None:
        block()
        raise ValueError

    @async_action
    def in_a_thread(self) -> None:
        time.sleep(WAITING)

    @async_action
    async def awaiting(self) -> None:
        await asyncio.sleep(WAITING)

    @async_action
    async def quick(self) -> None: ...


BLOCKING = ["at_first", "after_waiting", "of_a_stream", "of_a_dependency", "failing"]


@pytest.fixture
def logged_warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    return lambda: [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


async def call_actions(app: WSAction, *actions: str, too_long: float = LONG / 3) -> None:
    asyncio.get_running_loop().slow_callback_duration = too_long
    async with connect(app, "/ws/") as ws:
        for name in actions:
            assert (await ws.call(name))["status"] in (200, 500)


@pytest.mark.parametrize("action", BLOCKING)
async def test_a_blocking_action_is_logged_once(action: str, logged_warnings: Any) -> None:
    app = WSAction([path("ws/", Root.as_asgi())], debug=True)
    await call_actions(app, action, action)
    await call_actions(app, action)  # on another connection
    assert len(logged_warnings()) == 1
    assert f"Root.{action} blocked the event loop" in logged_warnings()[0]
    assert "plain def" in logged_warnings()[0]  # the cure


async def test_awaiting_or_threaded_actions_are_not_logged(logged_warnings: Any) -> None:
    app = WSAction([path("ws/", Root.as_asgi())], debug=True)
    await call_actions(app, "in_a_thread", "awaiting", "quick", too_long=WAITING / 1.5)
    assert [text for text in logged_warnings() if "in_a_thread" in text or "awaiting" in text] == []


async def test_without_debug_nothing_is_logged(logged_warnings: Any) -> None:
    await call_actions(WSAction([path("ws/", Root.as_asgi())]), "at_first")
    assert logged_warnings() == []


async def test_an_action_can_be_cancelled_in_debug_mode() -> None:
    ended = asyncio.Event()

    class Waiting(AsyncAPIConsumer):
        @async_action
        async def wait(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    async with connect(WSAction([path("ws/", Waiting.as_asgi())], debug=True), "/ws/") as ws:
        await ws.send_json({"action": "wait", "request_id": 1})
        await ws.send_json({"action": "$cancel", "data": 1, "request_id": 2})
        replies = {reply["request_id"]: reply["status"] for reply in [await ws.receive_json(), await ws.receive_json()]}
    assert replies == {1: 499, 2: 200}
    assert ended.is_set()
