"""`wsaction._dispatch.broadcasts`: replies broadcast to a group, compatible with rest_framework_channels."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.live_boards import Row
from wsaction._dispatch.broadcasts import MAX_WAITING
from wsaction._protocol.scope import group_topic
from wsaction.applications import WSAction
from wsaction.authentication import BaseAuthentication, Credential, FirstFrameAuthentication
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.layers.memory import MemoryLayer
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import HandshakeRefused, connect


class Nobody(BaseAuthentication):
    """Authenticates no connection."""

    async def authenticate(self, scope: Any) -> None:
        return None


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
        """No consumer has the method of its broadcast type."""


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


async def test_a_reply_is_broadcast_to_all_on_the_path() -> None:
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


async def test_broadcast_type_names_the_consumer_method(caplog: pytest.LogCaptureFixture) -> None:
    one_app = app()
    async with one_app.lifespan(), connect(one_app, "/ws/a/") as one, connect(one_app, "/ws/a/") as two:
        await one.call("lost", "child")
        assert (await one.call("typed", "child"))["data"] == {"n": 1}
        for ws in (one, two):
            assert await ws.receive_json() == {"got": {"type": "test.called", "data": {"n": 1}, "status": 200}}
    assert "Root has no method not_there" in caplog.text


@pytest.mark.parametrize("action", ["tell", "typed", "silently"])
@pytest.mark.parametrize("authenticated", [False, True])
async def test_the_caller_gets_the_broadcast_after_its_reply(action: str, authenticated: bool) -> None:
    classes = (Nobody,) if authenticated else ()
    one_app = WSAction([path("", Root.as_asgi())], authentication_classes=classes)
    async with one_app.lifespan(), connect(one_app, "/") as ws:
        for number in range(50):
            await ws.send_json({"action": action, "route": "child", "request_id": number})
            if action != "silently":
                assert (await ws.receive_json())["request_id"] == number
            assert "request_id" not in await ws.receive_json()


@pytest.mark.parametrize("action", ["tell", "typed"])
async def test_an_unauthenticated_connection_gets_no_broadcasts(action: str) -> None:
    class First(FirstFrameAuthentication):
        async def authenticate_data(self, data: Any) -> Credential | None:
            return Credential(SimpleNamespace(is_authenticated=True, pk=data))

    one_app = WSAction([path("", Root.as_asgi())], authentication_classes=[First])
    async with one_app.lifespan(), connect(one_app, "/") as one, connect(one_app, "/") as two:
        for ws in (one, two):
            assert (await ws.call("$auth", data="ada"))["status"] == 200
            if ws is one:
                await one.call(action, "child")
                assert "request_id" not in await one.receive_json()
        await one.call(action, "child")
        assert "request_id" not in await two.receive_json()
        await two.nothing()


async def test_broadcasts_of_others_wait_for_the_reply_too() -> None:
    has_broadcast, gate = asyncio.Event(), asyncio.Event()

    async def slow(handler: Any, call_next: Any) -> Any:
        result = await call_next(handler)
        if handler.action == "tell":
            has_broadcast.set()
            await gate.wait()
        return result

    one_app = WSAction([path("", Root.as_asgi())], middleware=[slow])
    async with one_app.lifespan(), connect(one_app, "/") as one, connect(one_app, "/") as two:
        await one.send_json({"action": "tell", "route": "child", "data": 1, "request_id": 1})
        await has_broadcast.wait()
        await two.send_json({"action": "silently", "route": "child"})
        assert await two.receive_json() == {"data": "quiet", "status": 200}
        await one.nothing()
        gate.set()
        assert (await one.receive_json())["request_id"] == 1
        assert sorted([(await one.receive_json())["data"] for _ in range(2)], key=str) == [1, "quiet"]


async def test_a_broadcasting_snapshot_action_holds_nothing_back() -> None:
    class Listed(SubscribeMixin, Root):
        @async_action(mode="broadcast")
        async def list(self) -> str:
            return "all"

    async with connect(Listed.as_asgi(), "/") as ws:
        assert (await ws.call("subscribe", snapshot=True))["data"]["snapshot"] == "all"
        assert await ws.receive_json() == {"data": "all", "status": 200}
        assert (await ws.call("list"))["data"] == "all"
        assert await ws.receive_json() == {"data": "all", "status": 200}


async def test_broadcasts_waiting_for_a_reply_are_bounded() -> None:
    class Slow(Root):
        @async_action(mode="broadcast")
        async def hang(self) -> None:
            await self.push("begun", None)

    async def never_ending(handler: Any, call_next: Any) -> Any:
        result = await call_next(handler)
        await (asyncio.Event().wait() if handler.action == "hang" else asyncio.sleep(0))
        return result

    one_app = WSAction([path("", Slow.as_asgi())], middleware=[never_ending])
    async with one_app.lifespan(), connect(one_app, "/") as one, connect(one_app, "/") as two:
        await one.send_json({"action": "hang"})
        assert (await one.receive_json())["event"] == "begun"
        for _ in range(MAX_WAITING + 1):
            assert (await two.call("typed", "child"))["status"] == 200
            await two.receive_json()  # its own broadcast
        assert await one.wait_closed() == (1013, f"slow consumer; {MAX_WAITING} broadcasts wait for it")


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


async def test_general_broadcast_can_be_overridden() -> None:
    class Own(Root):
        def general_broadcast(self, event: Any) -> None:
            self.connection.put(f'"{event["data"]}"')

    async with connect(Own.as_asgi(), "/") as ws:
        await ws.send_json({"action": "silently", "route": "child"})
        assert await ws.receive_json() == "quiet"


async def test_a_consumer_too_slow_for_broadcasts_is_closed() -> None:
    gate = asyncio.Event()

    class Slow(Root):
        async def test_called(self, event: Any) -> None:
            await gate.wait()

    async with connect(Slow.as_asgi(), "/") as ws:
        for _ in range(1 + MAX_WAITING):  # one broadcast is being delivered, the others wait
            assert (await ws.call("typed", "child"))["status"] == 200
        await ws.send_json({"action": "typed", "route": "child"})
        code, reason = await ws.wait_closed()
        assert (code, reason) == (1013, f"slow consumer; {MAX_WAITING} broadcasts wait for it")


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
def test_invalid_broadcast_options_are_refused(options: Any) -> None:
    with pytest.raises(ImproperlyConfigured):
        async_action(**options)


async def test_consumers_of_two_patterns_do_not_share_a_group() -> None:
    routes = [path(f"{name}/<str:room>/<int:user>/", Grouped.as_asgi()) for name in ("chat", "admin")]
    two = WSAction(routes)
    async with two.lifespan(), connect(two, "/chat/a/1/") as chat, connect(two, "/admin/a/1/") as admin:
        assert (await admin.call("tell", "child", "secret"))["status"] == 201
        assert (await admin.receive_json())["data"] == "secret"
        await chat.nothing()


async def test_a_broadcast_after_lost_events_is_delivered() -> None:
    layer = MemoryLayer()
    one_app = WSAction([path("ws/<str:room>/", Root.as_asgi())], layer=layer)
    async with one_app.lifespan(), connect(one_app, "/ws/a/") as one:
        for _ in range(3):
            await layer.invalidate(group_topic("ws/a/"), None)
        assert (await one.call("tell", "child", 1))["status"] == 201
        assert await one.receive_json() == {"data": 1, "status": 201}
