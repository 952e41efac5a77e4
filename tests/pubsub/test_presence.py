"""`wsaction.presence`: the users who are subscribed to a route, counted by user."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from tests.support.live_boards import Room, position
from tests.support.redis_servers import needs_redis_server, redis_server
from wsaction._events.subscribe import JOIN_RATE
from wsaction.applications import WSAction
from wsaction.authentication import BaseAuthentication, Credential
from wsaction.consumers import AsyncAPIConsumer
from wsaction.exceptions import PermissionDenied
from wsaction.generics import ModelAPIActionHandler
from wsaction.layers.redis import RedisLayer
from wsaction.permissions import BasePermission, IsOwner
from wsaction.presence import PresenceMixin
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path
from wsaction.testing import WebSocketSession, connect


class Note(BaseModel):
    id: int
    owner_id: int = 1


class Root(AsyncAPIConsumer):
    routepatterns = [path("rooms/<int:pk>/", Room.as_aaah())]


def user(pk: Any) -> Any:
    return SimpleNamespace(is_authenticated=True, pk=pk)


def event_fields(event: Any) -> Any:
    return event["event"], event["route"], event["data"]


async def test_users_join_and_leave_once_with_many_connections() -> None:
    app = WSAction([path("ws/", Root.as_asgi())])
    room, other = "rooms/7/", "rooms/8/"
    async with app.lifespan(), connect(app, "/ws/", user=user("ada")) as one:
        assert (await one.call("presence", room))["data"] == {}
        await position(one, room)
        assert event_fields(await one.event()) == ("join", room, {"user": "ada"})
        async with connect(app, "/ws/", user=user("ada")) as two, connect(app, "/ws/", user=user(3)) as three:
            for ws in (two, three, three):
                await position(ws, room)
            async with connect(app, "/ws/") as anonymous:
                await position(anonymous, room)
                assert (await one.call("presence", other))["data"] == {}
                data = (await one.call("presence", room))["data"]
                (key,) = data.keys() - {"ada", "3"}
                assert data == {"ada": 2, "3": 1, key: 1}
                assert key.startswith("anonymous:")
            assert event_fields(await one.event()) == ("join", room, {"user": "3"})
            assert event_fields(await one.event()) == ("join", room, {"user": key})
            assert event_fields(await one.event()) == ("leave", room, {"user": key})
            await three.call("unsubscribe", room)
            await three.call("unsubscribe", room)
            assert event_fields(await one.event()) == ("leave", room, {"user": "3"})
        assert (await one.call("presence", room))["data"] == {"ada": 1}
        await position(one, room, since={"epoch": "gone", "offset": 1})
        assert (await one.call("presence", room))["data"] == {"ada": 1}
        await one.nothing()


async def test_joining_and_leaving_too_often_is_throttled() -> None:
    app = WSAction([path("ws/", Root.as_asgi())])
    room = "rooms/7/"
    async with app.lifespan(), connect(app, "/ws/", user=user("ada")) as one, connect(app, "/ws/") as other:
        for _ in range(JOIN_RATE.burst):
            await position(one, room)
            await position(one, room)  # the connection is present already
            assert (await one.call("unsubscribe", room))["status"] == 204
        refused = await one.call("subscribe", room)
        assert (refused["status"], refused["errors"][0]["type"]) == (429, "throttled")
        assert 0 < refused["errors"][0]["ctx"]["retry_after"] <= JOIN_RATE.period / JOIN_RATE.burst
        assert (await one.call("presence", room))["data"] == {}
        await position(one, "rooms/8/")
        await position(other, room)


async def test_cancelling_a_second_subscribe_leaves_the_presence(monkeypatch: pytest.MonkeyPatch) -> None:
    app = WSAction([path("ws/", Root.as_asgi())])
    async with app.lifespan(), connect(app, "/ws/", user=user("ada")) as ws:
        await position(ws, "rooms/7/")
        await ws.event("join")
        monkeypatch.setattr(Room, "gate", asyncio.Event())
        await ws.send_json({"action": "subscribe", "route": "rooms/7/", "snapshot": True, "request_id": 1})
        await ws.call("$ping")
        await ws.call("$cancel", data=1)
        assert (await ws.receive_json())["status"] == 499
        assert (await ws.call("presence", "rooms/7/"))["data"] == {"ada": 1}
        await ws.call("unsubscribe", "rooms/7/")
        assert (await ws.call("presence", "rooms/7/"))["data"] == {}


async def test_a_layer_without_presence_answers_503(monkeypatch: pytest.MonkeyPatch) -> None:
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


class Mine(IsOwner):
    lookup_field = "owner_id"


class Members(BasePermission):
    def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
        return action != "retrieve" or scope["user"].pk == 1


async def refuse(self: Any) -> None:
    if self.user.pk != 1:
        raise PermissionDenied


@pytest.mark.parametrize(
    "members",
    [{"permission_classes": (Mine,)}, {"permission_classes": (Members,)}, {"check_subscription": refuse}],
    ids=["the object", "what shows it", "a check of its own"],
)
async def test_presence_needs_the_right_to_subscribe(members: dict[str, Any]) -> None:
    rows = MemoryQuerySet(Note, rows=[Note(id=7)])
    notes: Any = type("Notes", (PresenceMixin, ModelAPIActionHandler), {"serializer_class": Note, "queryset": rows})
    notes = type("Guarded", (notes,), members)
    consumer = type("Notes", (AsyncAPIConsumer,), {"routepatterns": [path("notes/<int:pk>/", notes.as_aaah())]})
    app = WSAction([path("ws/", consumer.as_asgi())])  # type: ignore[attr-defined]
    async with app.lifespan(), connect(app, "/ws/", user=user(1)) as one, connect(app, "/ws/", user=user(2)) as two:
        await position(one, "notes/7/")
        await one.event("join")
        assert (await one.call("presence", "notes/7/"))["data"] == {"1": 1}
        for action in ("subscribe", "presence"):
            assert (await two.call(action, "notes/7/"))["status"] == 403


@needs_redis_server
async def test_presence_is_counted_across_processes(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        first, second = (WSAction([path("ws/", Root.as_asgi())], layer=RedisLayer(server.url)) for _ in range(2))
        async with first.lifespan(), second.lifespan(), connect(first, "/ws/", user=user("ada")) as one:
            await position(one, "rooms/7/")
            assert event_fields(await one.event()) == ("join", "rooms/7/", {"user": "ada"})
            async with connect(second, "/ws/", user=user("bob")) as two:
                await position(two, "rooms/7/")
                assert event_fields(await one.event()) == ("join", "rooms/7/", {"user": "bob"})
                assert (await two.call("presence", "rooms/7/"))["data"] == {"ada": 1, "bob": 1}
            assert event_fields(await one.event()) == ("leave", "rooms/7/", {"user": "bob"})


# ------------------------------------------------------------------------------------------ order of replies and events
async def audit(handler: Any, call_next: Any) -> Any:
    """Middleware that holds the reply of `presence` back."""
    result = await call_next(handler)
    if handler.action == "presence":
        handler.app.called.set()
        await handler.app.proceed.wait()
    return result


def people_shown(frames: list[Any]) -> set[str]:
    """The users that a page shows if it follows the frames in their order."""
    people: set[str] = set()
    for frame in frames:
        if frame.get("action") == "presence":
            people = set(frame["data"])
        elif frame.get("event") == "join":
            people.add(frame["data"]["user"])
        elif frame.get("event") == "leave":
            people.discard(frame["data"]["user"])
    return people


@pytest.mark.parametrize("action", ["subscribe", "unsubscribe"])
async def test_joins_and_leaves_during_presence_follow_its_reply(action: str) -> None:
    app: Any = WSAction([path("ws/", Root.as_asgi())], middleware=[audit])
    app.called, app.proceed = asyncio.Event(), asyncio.Event()
    room = "rooms/7/"
    async with app.lifespan(), connect(app, "/ws/", user=user("ada")) as one, connect(app, "/ws/") as two:
        await position(one, room)
        await one.event("join")
        if action == "unsubscribe":
            await position(two, room)
            await one.event("join")
        await one.send_json({"action": "presence", "route": room, "request_id": 1})
        await asyncio.wait_for(app.called.wait(), 5)
        await two.call(action, room)
        app.proceed.set()
        frames = [await one.receive_json() for _ in range(2)]
        assert [frame.get("action") for frame in frames] == ["presence", None]
        assert len(people_shown(frames)) == (2 if action == "subscribe" else 1)
        await one.nothing()


async def test_a_failed_presence_holds_back_no_events() -> None:
    async def failing(handler: Any, call_next: Any) -> Any:
        result = await call_next(handler)
        if handler.action == "presence":
            raise ZeroDivisionError
        return result

    app = WSAction([path("ws/", Root.as_asgi())], middleware=[failing])
    async with app.lifespan(), connect(app, "/ws/", user=user("ada")) as one, connect(app, "/ws/") as two:
        await position(one, "rooms/7/")
        await one.event("join")
        assert (await one.call("presence", "rooms/7/"))["status"] == 500
        await position(two, "rooms/7/")
        await one.event("join")


async def test_a_user_who_signs_in_is_counted_by_name() -> None:
    class Tokens(BaseAuthentication):
        async def authenticate_data(self, data: Any) -> Credential | None:
            return Credential(user(data))

    app = WSAction([path("ws/", Root.as_asgi())], authentication_classes=[Tokens])
    async with app.lifespan(), connect(app, "/ws/") as ws:
        await position(ws, "rooms/7/")
        key = (await ws.event("join"))["data"]["user"]
        assert key.startswith("anonymous:")
        assert (await ws.call("presence", "rooms/7/"))["data"] == {key: 1}
        await ws.call("$auth", data="ada")
        assert [event_fields(await ws.event())[::2] for _ in range(2)] == [
            ("join", {"user": "ada"}),
            ("leave", {"user": key}),
        ]
        assert (await ws.call("presence", "rooms/7/"))["data"] == {"ada": 1}


@needs_redis_server
async def test_presence_agrees_with_the_events_around_it(tmp_path: Path) -> None:
    """Two workers: one client asks for presence repeatedly while others join and leave at the other worker."""
    with redis_server(tmp_path) as server:
        first, second = (WSAction([path("ws/", Root.as_asgi())], layer=RedisLayer(server.url)) for _ in range(2))
        room = "rooms/7/"
        async with (
            first.lifespan(),
            second.lifespan(),
            connect(first, "/ws/", user=user("ada")) as one,
            AsyncExitStack() as stack,
        ):
            await position(one, room)
            others = [await stack.enter_async_context(connect(second, "/ws/", user=user(f"u{n}"))) for n in range(6)]
            for turn in range(31):
                if turn < 30:
                    await one.send_json({"action": "presence", "route": room, "request_id": turn})
                async with asyncio.TaskGroup() as group:
                    for number, ws in enumerate(others):
                        group.create_task(ws.call("subscribe" if (turn + number) % 2 else "unsubscribe", room))
            await until_present(others[0], {"ada": 1, "u1": 1, "u3": 1, "u5": 1})
            await first.publish(room, "told")
            frames = [await one.receive_json()]
            while "told" not in [frame.get("event") for frame in frames] or len(answers(frames)) < 30:
                frames.append(await one.receive_json())
            assert people_shown(frames) == {"ada", "u1", "u3", "u5"}


def answers(frames: list[Any]) -> list[Any]:
    return [frame for frame in frames if frame.get("action") == "presence"]


async def until_present(ws: WebSocketSession, people: dict[str, int]) -> None:
    """Waits for these counts; each process writes them in its own time."""
    async with asyncio.timeout(5):
        while (await ws.call("presence", "rooms/7/"))["data"] != people:
            pass
