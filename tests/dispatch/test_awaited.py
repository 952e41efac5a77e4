"""An action that forgets ``await`` fails, with its name in the error; calls that run later in a task are no mistake."""

import asyncio
import gc
from typing import Any

import pytest
from pydantic import BaseModel

from tests.support.driving import ask, talking
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.generics import ModelAPIConsumer
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import HandshakeRefused, connect

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")]


class Card(BaseModel):
    id: int = 0
    title: str = ""


class Root(SubscribeMixin, ModelAPIConsumer):
    queryset = MemoryQuerySet(Card, [Card(id=1)])
    serializer_class = Card

    @async_action
    async def dropped(self) -> None:
        await self.queryset.create({"title": "kept if it were not for the next line"})
        self.queryset.create({"title": "lost"})

    @async_action
    def dropped_in_a_thread(self) -> None:
        self.queryset.create({"title": "lost"})

    @async_action
    async def in_a_local(self) -> None:
        created = self.queryset.create({"title": "lost"})
        del created

    @async_action
    async def failing(self) -> Any:
        return self.get_object() + 1  # type: ignore[operator]

    @async_action
    async def as_tasks(self) -> None:
        await asyncio.gather(self.publish("a"), self.publish("b"))
        task = asyncio.create_task(self.publish("c"))
        asyncio.get_running_loop().call_soon(task.add_done_callback, lambda done: done.result())

    @async_action
    async def items(self) -> Any:
        yield 1
        self.queryset.create({"title": "lost"})
        yield 2

    @async_action
    async def count(self) -> int:
        return await self.queryset.count()


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("action", ["dropped", "dropped_in_a_thread", "in_a_local"])
async def test_a_dropped_call_fails_its_action_and_undoes_its_changes(
    action: str, debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with talking(Root.as_asgi(), debug=debug) as ws:
        assert (await ws.call(action))["status"] == 500
        assert (await ws.call("count"))["data"] == 1
    assert f"Root.{action} called MemoryQuerySet.create() without `await`" in caplog.text


async def test_a_stream_ends_with_the_error() -> None:
    async with talking(Root.as_asgi()) as ws:
        await ws.send_json({"action": "items"})
        assert [(await ws.receive_json())["status"] for _ in range(2)] == [206, 500]


async def test_the_error_that_follows_is_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    assert (await ask(Root.as_asgi(), "failing"))["status"] == 500
    assert "unsupported operand" in caplog.text
    assert "Root.failing called GenericAsyncAPIActionHandler.get_object() without `await`" in caplog.text


async def test_calls_that_run_in_tasks_are_no_mistake(caplog: pytest.LogCaptureFixture) -> None:
    async with talking(Root.as_asgi()) as ws:
        await ws.call("subscribe")
        assert (await ws.call("as_tasks"))["status"] == 200
        assert [(await ws.receive_json())["event"] for _ in range(3)] == ["a", "b", "c"]
    assert caplog.records == []


async def test_a_handshake_that_forgot_to_close_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    class Closing(AsyncAPIConsumer):
        async def connect(self) -> None:
            self.close(4403)

    with pytest.raises(HandshakeRefused):
        async with connect(WSAction([path("ws/", Closing.as_asgi())]), "/ws/"):
            pass
    assert "Closing.connect called AsyncAPIActionHandler.close() without `await`" in caplog.text


async def test_outside_of_a_frame_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    Root.queryset.create({"title": "lost"})
    gc.collect()
    assert "code outside of an action called MemoryQuerySet.create() without `await`" in caplog.text


async def test_the_object_permissions_hold_for_an_own_get_object() -> None:
    checked: list[Any] = []

    class Guarded(ModelAPIConsumer):
        queryset = Root.queryset
        serializer_class = Card

        async def get_object(self) -> Any:
            obj = await self.queryset.get(pk=1)
            if self.action == "partial_update":
                await self.check_object_permissions(obj)
            return obj

        def check_object_permissions(self, obj: Any) -> Any:
            checked.append(self.action)
            return super().check_object_permissions(obj)

    async with talking(Guarded.as_asgi()) as ws:
        assert (await ws.call("retrieve"))["status"] == 200
        assert (await ws.call("partial_update", data={}))["status"] == 200
    assert checked == ["retrieve", "partial_update"]  # once each
