"""`wsaction.broadcasts`: answers told to a group, by the names and frames of rest_framework_channels."""

import asyncio
from typing import Any

import pytest

from tests.test_subscriptions import Row
from wsaction import broadcasts
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path
from wsaction.testing import HandshakeRefused, connect


class Child(AsyncAPIActionHandler):
    rows = MemoryQuerySet(Row)

    @async_action(mode="broadcast")
    async def tell(self, data: Any = None, fail: bool = False) -> Any:
        await self.rows.create({"text": "a"})
        if fail:
            raise ValueError
        return data, 201

    @async_action(mode="broadcast", send_response_in_broadcast=False)
    def silently(self) -> str:
        return "quiet"

    @async_action(mode="broadcast", broadcast_type="test.called")
    async def typed(self) -> dict[str, int]:
        return {"n": 1}

    @async_action(mode="broadcast", broadcast_type="not.there")
    async def lost(self) -> None:
        """Nobody takes it."""


class Root(AsyncAPIConsumer):
    routepatterns = [path("child", Child.as_aaah())]

    async def test_called(self, event: Any) -> None:
        await self.send_json({"got": event})


class Grouped(Root):
    group_send_lookup_kwargs = "room"


def app() -> WSAction:
    return WSAction(
        [path("ws/<str:room>/", Root.as_asgi()), path("rooms/<str:room>/<int:user>/", Grouped.as_asgi()),
         path("none/", Grouped.as_asgi())]
    )  # fmt: skip


async def test_the_answer_is_told_to_all_on_the_path() -> None:
    one_app = app()
    async with one_app.lifespan(), connect(one_app, "/ws/a/") as one, connect(one_app, "/ws/a/") as two:
        async with connect(one_app, "/ws/b/") as other:
            assert (await one.call("tell", "child", [1]))["status"] == 201
            for ws in (one, two):
                assert await ws.receive_json() == {"data": [1], "status": 201}
            assert (await one.call("tell", "child", fail=True))["status"] == 500
            await one.send_json({"action": "silently", "route": "child", "request_id": 1})
            for ws in (one, two):
                assert await ws.receive_json() == {"data": "quiet", "status": 200}
            await other.nothing()
        await one.nothing()


async def test_a_type_names_the_method_of_each_consumer(caplog: pytest.LogCaptureFixture) -> None:
    one_app = app()
    async with one_app.lifespan(), connect(one_app, "/ws/a/") as one, connect(one_app, "/ws/a/") as two:
        await one.call("lost", "child")
        assert (await one.call("typed", "child"))["data"] == {"n": 1}
        for ws in (one, two):
            assert await ws.receive_json() == {"got": {"type": "test.called", "data": {"n": 1}, "status": 200}}
    assert "Root has no method not_there" in caplog.text


async def test_a_capture_may_name_the_group() -> None:
    one_app = app()
    async with one_app.lifespan(), connect(one_app, "/rooms/x/1/") as one, connect(one_app, "/rooms/x/2/") as two:
        async with connect(one_app, "/rooms/y/1/") as other:
            await one.call("tell", "child", 7)
            assert await two.receive_json() == {"data": 7, "status": 201}
            await other.nothing()
        assert len(one_app.runtime.hub._joined) == 2
        with pytest.raises(HandshakeRefused):
            async with connect(one_app, "/none/"):
                raise AssertionError


async def test_the_general_one_may_be_a_method_too() -> None:
    class Own(Root):
        def general_broadcast(self, event: Any) -> None:
            self.connection.put(f'"{event["data"]}"')

    async with connect(Own.as_asgi(), "/") as ws:
        await ws.send_json({"action": "silently", "route": "child"})
        assert await ws.receive_json() == "quiet"


async def test_a_consumer_that_is_too_slow_for_them_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcasts, "MAX_WAITING", 1)
    gate = asyncio.Event()

    class Slow(Root):
        async def test_called(self, event: Any) -> None:
            await gate.wait()

    async with connect(Slow.as_asgi(), "/") as ws:
        for _ in range(4):
            await ws.send_json({"action": "typed", "route": "child"})
        code, reason = await ws.wait_closed()
        assert (code, reason) == (1013, "slow consumer; 1 broadcasts wait for it")


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "shout"},
        {"mode": "broadcast", "broadcast_type": "_own"},
        {"mode": "broadcast", "broadcast_type": "a b"},
        {"mode": "broadcast", "broadcast_type": 7},
        {"broadcast_type": "a.b"},
        {"send_response_in_broadcast": False},
    ],
)
def test_what_cannot_be_is_refused(options: Any) -> None:
    with pytest.raises(ImproperlyConfigured):
        async_action(**options)
