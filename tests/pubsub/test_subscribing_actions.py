"""Actions that subscribe and unsubscribe by themselves: one final reply of their own, then the events."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.virtual_time import anyio_backend  # noqa: F401  # the fixture
from wsaction._pubsub.subscription import QueueLimits
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.dialects.dcrf import DCRF
from wsaction.exceptions import PermissionDenied
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.routing import path
from wsaction.subscriptions import Since, SubscribeMixin
from wsaction.testing import WebSocketSession, connect

ROOM, LOUD = "rooms/1/", "loud/1/"


class Room(SubscribeMixin, AsyncAPIActionHandler):
    @async_action
    async def join(self, times: int = 1) -> Any:
        for _ in range(times):
            data = await self.subscribe()
        await self.publish("joined", times)
        return data

    @async_action(mode="broadcast")
    async def cast(self) -> str:
        await self.subscribe()
        await self.publish("joined")
        return "cast"

    @async_action(mode="none")
    async def watch(self) -> None:
        await self.subscribe()
        await self.publish("joined")

    @async_action(mode="none")
    async def unwatch(self) -> None:
        await self.unsubscribe()

    @async_action
    async def catch_up(self, since: Since) -> Any:
        return await self.subscribe(since=since, snapshot=True)

    @async_action
    async def list(self) -> list[str]:
        return ["a"]

    @async_action
    async def both(self) -> Any:
        return await asyncio.gather(self.subscribe(), self.list())

    @async_action
    async def fail(self) -> None:
        await self.subscribe()
        await self.publish("joined")
        raise ValueError("not today")

    @async_action(ordered=False)
    async def fail_later(self, times: int = 1) -> None:
        for _ in range(times):
            await self.subscribe()
        await self.app.go_on.wait()
        raise ValueError("not today")

    @async_action(ordered=False)
    async def join_meanwhile(self) -> Any:
        return await self.subscribe()

    @async_action
    async def hang(self) -> None:
        await self.subscribe()
        await asyncio.get_running_loop().create_future()

    @async_action(timeout=0.05)
    async def late(self) -> None:
        await self.subscribe()
        await asyncio.get_running_loop().create_future()

    @async_action
    async def tail(self) -> AsyncIterator[int]:
        await self.subscribe()
        await self.publish("joined")
        yield 1
        await self.publish("on")
        yield 2

    @async_action
    async def tell(self, count: int = 1) -> None:
        for number in range(count):
            await self.publish("told", number)

    @async_action
    async def flood(self, count: int) -> None:
        await self.subscribe()
        await self.tell(count)

    @async_action
    async def whisper(self) -> None:
        await self.push("whispered")


class Loud(Room):
    """Its `subscribe` publishes, and may fail."""

    fails = True

    @async_action
    async def subscribe(self, since: Since | None = None) -> None:
        await super().subscribe(since=since)
        await self.publish("joined")
        if self.fails:
            raise ValueError("not today")


class CustomReply(SubscribeMixin, AsyncAPIActionHandler):
    """Its `subscribe` replies with more data than that of the mixin."""

    @async_action
    async def subscribe(self) -> Any:
        data = await super().subscribe()
        await self.publish("joined")
        return {**data, "more": 1}, 201


class Root(AsyncAPIConsumer):
    routepatterns = [
        path("rooms/<int:pk>/", Room.as_aaah()),
        path("loud/<int:pk>/", Loud.as_aaah()),
        path("wordy/", CustomReply.as_aaah()),
    ]


def served(**options: Any) -> WSAction:
    return WSAction([path("ws/", Root.as_asgi())], **options)


async def receive_names(ws: WebSocketSession, count: int) -> list[Any]:
    """Receives ``count`` frames: the name of an event, the status of a reply."""
    frames = [await ws.receive_json() for _ in range(count)]
    return [one["event"] if "event" in one else one["status"] for one in frames]


async def expect_no_subscription(ws: WebSocketSession, route: str = ROOM) -> None:
    assert (await ws.call("tell", route))["status"] == 200
    await ws.nothing()


@pytest.mark.parametrize(
    ("action", "frames"),
    [
        ("join", [200, "joined"]),
        ("watch", ["joined"]),
        ("both", [200]),
        ("tail", [206, "joined", "on", 206, 200]),
    ],
)
async def test_the_events_follow_the_one_final_reply(action: str, frames: list[Any]) -> None:
    async with connect(served(), "/ws/") as ws:
        await ws.send_json({"action": action, "route": ROOM, "request_id": 1})
        assert await receive_names(ws, len(frames)) == frames
        await ws.send_json({"action": "tell", "route": ROOM})
        assert sorted(map(str, await receive_names(ws, 2))) == ["200", "told"]
        await ws.nothing()


async def test_an_action_that_broadcasts_may_subscribe_too() -> None:
    async with connect(served(), "/ws/") as ws:
        await ws.send_json({"action": "cast", "route": ROOM})
        assert (await ws.receive_json())["status"] == 200
        frames = [await ws.receive_json() for _ in range(2)]
        assert {"data": "cast", "status": 200} in frames
        assert "joined" in [one.get("event") for one in frames]
        await ws.nothing()


async def test_subscribe_returns_the_data_of_its_reply() -> None:
    async with connect(served(), "/ws/") as ws:
        data = (await ws.call("join", ROOM))["data"]
        assert data == {"epoch": data["epoch"], "offset": 0, "recovered": None}
        await ws.event("joined")
        assert (await ws.call("join", ROOM, times=2))["data"] == {**data, "offset": 1}
        await ws.event("joined")
        since = {"epoch": data["epoch"], "offset": 1}
        assert (await ws.call("catch_up", ROOM, since=since))["data"] == {**since, "recovered": True}
        assert (await ws.event("joined"))["offset"] == 2
        since = {"epoch": "other", "offset": 1}
        reply = await ws.call("catch_up", ROOM, since=since)
        assert reply["data"] == {**data, "offset": 2, "recovered": False, "snapshot": ["a"]}


@pytest.mark.parametrize(("action", "status"), [("fail", 500), ("late", 408), ("hang", 499)])
async def test_a_failed_action_sends_its_error_and_subscribes_nothing(action: str, status: int) -> None:
    app = served()
    async with connect(app, "/ws/") as ws:
        await ws.send_json({"action": action, "route": ROOM, "request_id": 1})
        if action == "hang":
            await ws.call("$cancel", data=1)
        assert (await ws.receive_json())["status"] == status
        await expect_no_subscription(ws)
        (connection,) = app.runtime.loop_state.connections
        assert app.runtime.hub.subscriptions(connection) == []
        await ws.call("join", ROOM)
        await ws.event("joined")
        await ws.send_json({"action": action, "route": ROOM, "request_id": 1})
        if action == "hang":
            await ws.call("$cancel", data=1)
        if action == "fail":
            await ws.event("joined")
        assert (await ws.receive_json())["status"] == status
        await ws.call("tell", ROOM)
        assert (await ws.event("told"))["data"] == 0  # the earlier subscription remains


async def test_an_overridden_subscribe_that_fails_subscribes_nothing() -> None:
    app = served()
    async with connect(app, "/ws/") as ws:
        await ws.send_json({"action": "subscribe", "route": LOUD, "request_id": 1})
        assert await receive_names(ws, 1) == [500]
        await expect_no_subscription(ws, LOUD)
        Loud.fails = False
        try:
            await ws.send_json({"action": "subscribe", "route": LOUD, "request_id": 1})
            first = await ws.receive_json()
            assert (first["status"], first["data"]["recovered"], first["request_id"]) == (200, None, 1)
            await ws.event("joined")
            await ws.send_json({"action": "subscribe", "route": LOUD, "request_id": 2})  # its event precedes the reply
            assert await receive_names(ws, 2) == ["joined", 200]
        finally:
            Loud.fails = True


async def test_too_many_events_before_the_reply_become_a_resync() -> None:
    count = QueueLimits().max_held + 2
    async with connect(served(), "/ws/") as ws:
        await ws.send_json({"action": "flood", "route": ROOM, "count": count})
        assert await receive_names(ws, 2) == [200, "$resync"]
        await ws.send_json({"action": "tell", "route": ROOM})
        assert await receive_names(ws, 2) == ["told", 200]


async def test_a_task_that_outlives_its_action_subscribes_at_once() -> None:
    tasks: set[asyncio.Task[Any]] = set()
    gate = asyncio.Event()

    class Later(Room):
        @async_action
        async def start(self) -> None:
            async def subscribe() -> None:
                await gate.wait()
                await self.subscribe()

            tasks.add(asyncio.create_task(subscribe()))

    async with connect(Later.as_aaah(), "/") as ws:
        assert (await ws.call("start"))["status"] == 200
        gate.set()
        await asyncio.gather(*tasks)
        await ws.send_json({"action": "tell"})
        assert sorted(map(str, await receive_names(ws, 2))) == ["200", "told"]


# ------------------------------------------------------------------------------------------------- dialects
class Speaking(AsyncAPIConsumer):
    dialect = DCRF({"": "rooms/"})
    routepatterns = [path("rooms/<int:pk>/", Room.as_aaah())]


async def test_dcrf_events_have_the_id_of_the_subscribing_action() -> None:
    app = WSAction([path("ws/", Speaking.as_asgi())], limits=Limits(max_subscriptions=2))
    async with connect(app, "/ws/") as ws:
        for pk, request_id in ((1, 7), (1, 8), (1, 9), (2, 10)):
            await ws.send_json({"action": "watch", "pk": pk, "request_id": request_id})
        ids = [(await ws.receive_json())["request_id"] for _ in range(5)]
        assert ids == [7, 7, 7, 8, 10]  # each from the end of its action on
        await app.publish("rooms/1/", "said", 1)
        assert [(await ws.receive_json())["request_id"] for _ in range(2)] == [8, 9]  # the newest two
        await ws.nothing()


async def test_unsubscribing_in_an_action_forgets_its_ids() -> None:
    async with connect(Speaking.as_asgi(), "/") as ws:
        await ws.send_json({"action": "subscribe_instance", "pk": 1, "request_id": 7})
        assert (await ws.receive_json())["response_status"] == 201
        await ws.send_json({"action": "unwatch", "pk": 1, "request_id": 8})
        await ws.send_json({"action": "whisper", "pk": 1, "request_id": 9})
        whispered, reply = [await ws.receive_json() for _ in range(2)]
        assert (whispered["action"], whispered["request_id"]) == ("whispered", None)
        assert reply["request_id"] == 9


# -- several actions with one subscription ----------------------------------------------------------------------------
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_failed_action_undoes_repeated_subscribing(times: int) -> None:
    app: Any = served()
    app.go_on = asyncio.Event()
    app.go_on.set()
    async with app.lifespan(), connect(app, "/ws/") as ws:
        assert (await ws.call("fail_later", ROOM, times=times))["status"] == 500
        assert (await ws.call("tell", ROOM))["status"] == 200
        await ws.nothing()
        assert (await ws.call("subscribe", ROOM))["status"] == 200
        await ws.call("tell", ROOM)
        assert (await ws.event("told"))["data"] == 0


async def test_a_subscription_that_another_action_made_too_remains() -> None:
    app: Any = served()
    app.go_on = asyncio.Event()
    async with app.lifespan(), connect(app, "/ws/") as ws:
        await ws.send_json({"action": "fail_later", "route": ROOM, "request_id": 1})
        await ws.send_json({"action": "join_meanwhile", "route": ROOM, "request_id": 2})
        await ws.call("$ping")
        app.go_on.set()
        replies = [await ws.receive_json() for _ in range(2)]  # the second waits for what the first becomes
        assert [(reply["request_id"], reply["status"]) for reply in replies] == [(1, 500), (2, 200)]
        await ws.call("tell", ROOM)
        assert (await ws.event("told"))["data"] == 0


async def test_a_subscription_ends_if_all_its_actions_fail() -> None:
    app: Any = served()
    app.go_on = asyncio.Event()
    async with app.lifespan(), connect(app, "/ws/") as ws:
        for number in (1, 2):
            await ws.send_json({"action": "fail_later", "route": ROOM, "request_id": number})
        await ws.call("whisper", ROOM)
        await ws.event("whispered")
        app.go_on.set()
        assert [(await ws.receive_json())["status"] for _ in range(2)] == [500, 500]
        await ws.call("tell", ROOM)
        await ws.nothing()
        assert (await ws.call("subscribe", ROOM))["data"]["offset"] == 1


async def test_an_overridden_subscribe_replies_with_its_result() -> None:
    app = served()
    async with app.lifespan(), connect(app, "/ws/") as ws:
        for offset in (0, 1):
            await ws.send_json({"action": "subscribe", "route": "wordy/", "request_id": 1})
            messages = [await ws.receive_json() for _ in range(2)]
            reply = next(one for one in messages if "status" in one)
            assert (reply["status"], reply["data"]["more"], reply["data"]["offset"]) == (201, 1, offset)
            assert next(one for one in messages if "event" in one)["offset"] == offset + 1
            assert offset or messages[0] is reply


class MaybeSubscribing(Room):
    """Its `subscribe`, which is not marked as an action, may skip that of the mixin."""

    async def subscribe(self, since: Since | None = None) -> Any:
        if self.query_params:
            return "full"
        return {**await super().subscribe(since=since), "more": 1}

    async def check_subscription(self) -> None:
        if self.kwargs["pk"] == 2:
            raise PermissionDenied


@pytest.mark.parametrize(
    ("route", "answers", "data"),
    [
        ("rooms/1/?full=1", False, "full"),
        ("rooms/1/", False, 1),
        ("rooms/1/", True, "closed"),
        ("rooms/2/", False, "refused"),
    ],
)
async def test_a_reply_that_replaces_that_of_subscribe_is_sent(route: str, answers: bool, data: Any) -> None:
    async def answering(handler: Any, call_next: Any) -> Any:
        try:
            return "closed" if answers else await call_next(handler)
        except PermissionDenied:
            return "refused"

    class Doubt(AsyncAPIConsumer):
        routepatterns = [path("rooms/<int:pk>/", MaybeSubscribing.as_aaah())]

    app = WSAction([path("ws/", Doubt.as_asgi())], middleware=[answering])
    async with connect(app, "/ws/") as ws:
        reply = await ws.call("subscribe", route)
        reply_data = reply["data"]
        assert (reply["status"], reply_data if isinstance(reply_data, str) else reply_data["more"]) == (200, data)
        await app.publish("rooms/1/", "told", 1, path="ws/")
        if data == 1:
            await ws.event("told")
        await ws.nothing()
