"""`wsaction.subscriptions` and `wsaction._events.publish`: routes as topics, through real frames."""

import asyncio
import logging
import random
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.support.live_boards import Board, Counted, FailingLayer, Moved, Root, Row, position, running_app
from tests.support.virtual_time import in_virtual_time
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.dependencies import Depends
from wsaction.exceptions import ImproperlyConfigured, PermissionDenied
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.hooks import Hooks
from wsaction.layers.memory import MemoryLayer
from wsaction.limits import Limits
from wsaction.permissions import BasePermission
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path, re_path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import connect

WAIT = 5.0


# ------------------------------------------------------------------------------------------------- subscribing
async def test_events_arrive_in_order_under_the_canonical_route() -> None:
    async with running_app() as app, connect(app, "/ws/a/") as one, connect(app, "/ws/a/") as two:
        at = await position(one, "boards/07/")
        assert at == {"epoch": at["epoch"], "offset": 0, "recovered": None, "route": "boards/7/"}
        assert (await two.call("tell", "boards/7/", {"n": 1}))["status"] == 200
        assert (await two.call("tell", "boards/7/?x=1", 2))["status"] == 200
        assert (await two.call("tell", "boards/8/", 3))["status"] == 200
        event = {"event": "told", "route": "boards/7/"}
        assert await one.event() == {**event, "data": {"n": 1}, "offset": 1}
        assert await one.event() == {**event, "data": 2, "offset": 2}
        assert (await position(one, "boards/7/"))["offset"] == 2
        await two.nothing()


async def test_the_reply_to_subscribe_has_its_keys_in_order() -> None:
    async with running_app() as app, connect(app, "/ws/a/") as ws:
        await ws.send_json({"action": "subscribe", "route": "boards/07/?a", "request_id": 7})
        reply = await ws.receive_json()
        assert list(reply) == ["errors", "data", "action", "route", "status", "request_id"]
        assert (reply["action"], reply["route"], reply["status"], reply["request_id"]) == (
            "subscribe",
            "boards/07/?a",
            200,
            7,
        )
        assert list(reply["data"]) == [
            "epoch",
            "offset",
            "recovered",
            "route",
        ]  # the canonical route, as the client sent another spelling
        assert list(await position(ws, "boards/7/?a")) == ["epoch", "offset", "recovered"]


async def test_an_unsubscribed_client_receives_nothing_more() -> None:
    async with running_app() as app, connect(app, "/ws/a/") as ws:
        for _ in range(2):
            reply = await ws.call("unsubscribe", "boards/7/")
            assert (reply["status"], reply["data"]) == (204, None)
            await position(ws, "boards/7/")
        await ws.call("unsubscribe", "boards/07/")
        await ws.call("tell", "boards/7/", 1)
        await ws.nothing()


async def test_the_route_of_a_consumer_is_a_topic() -> None:
    async with running_app() as app, connect(app, "/ws/a/") as ws:
        await position(ws, "")
        await ws.call("tell", "", 1)
        assert await ws.event() == {"event": "told", "route": "", "data": 1, "offset": 1}


async def test_a_route_without_a_pattern_is_no_topic() -> None:
    class Loose(SubscribeMixin, AsyncAPIConsumer):
        strict_routing = False
        routepatterns = [path("boards/", Board.as_aaah())]

    async with running_app(path("ws/", Loose.as_asgi())) as app, connect(app, "/ws/") as ws:
        assert (await ws.call("subscribe", "boards/"))["status"] == 200
        assert (await ws.call("tell", "boards/"))["status"] == 200
        for route in ("elsewhere", "boards/7"):
            for action in ("subscribe", "unsubscribe"):
                reply = await ws.call(action, route)
                assert (reply["status"], reply["errors"][0]["type"]) == (404, "route_not_found")
        assert (await ws.call("tell", "boards/7"))["status"] == 404


async def test_tenants_on_other_paths_share_nothing() -> None:
    paths = [path("ws/<str:tenant>/", Root.as_asgi()), re_path(r"^re/(\d+)$", Root.as_asgi())]
    async with running_app(*paths) as app:
        urls = ["/ws/a/", "/ws/b/", "/ws/a%3Fboards/", "/re/1", "/re/01"]
        for url in urls:
            async with connect(app, url) as one, connect(app, url) as other:
                await position(one, "boards/7/")
                for other_url in urls:
                    if other_url != url:
                        async with connect(app, other_url) as stranger:
                            assert (await stranger.call("tell", "boards/7/", "foreign"))["status"] == 200
                await other.call("tell", "boards/7/", "own")
                assert (await one.event())["data"] == "own"


async def test_tenants_of_an_enclosing_app_share_nothing() -> None:
    app = WSAction([path("ws/", Root.as_asgi())])
    around = Starlette(routes=[Mount("/t/{tenant}", app), Mount("/fixed", app), Mount("/also", app)])
    async with app.lifespan(), connect(around, "/t/a/ws/") as one, connect(around, "/t/b/ws/") as two:
        await position(one, "boards/7/")
        await two.call("tell", "boards/7/", "foreign")
        await one.call("tell", "boards/7/", "own")
        assert (await one.event())["data"] == "own"
        async with connect(around, "/fixed/ws/") as three, connect(around, "/also/ws/") as four:
            await position(three, "boards/7/")
            await four.call("tell", "boards/7/", "same")
            assert (await three.event())["data"] == "same"


async def test_views_served_alone_have_topics_too() -> None:
    for view in (Root.as_asgi(), Board.as_aaah()):
        async with connect(view, "/a") as one, connect(view, "/a") as two, connect(view, "/b") as other:
            await position(one, "")
            for ws in (other, two):
                assert (await ws.call("tell", data=ws is two))["status"] == 200
            assert (await one.event())["data"] is True


async def test_get_topic_names_the_topic() -> None:
    class Inbox(Board):
        def get_topic(self) -> str:
            return f"inbox:{self.user.name}"

    class Consumer(AsyncAPIConsumer):
        routepatterns = [path("inbox/", Inbox.as_aaah())]

    ada, bob = SimpleNamespace(name="ada"), SimpleNamespace(name="bob")
    app = WSAction([path("ws/", Consumer.as_asgi())])
    async with (
        connect(app, "/ws/", user=ada) as one,
        connect(app, "/ws/", user=ada) as again,
        connect(app, "/ws/", user=bob) as other,
    ):
        await position(one, "inbox/")
        await other.call("tell", "inbox/", "bob's")
        await again.call("tell", "inbox/", "ada's")
        assert (await one.event())["data"] == "ada's"
        await one.call("unsubscribe", "inbox/")
        await again.call("tell", "inbox/", "ada's")
        await one.nothing()


async def test_permissions_apply_to_subscribe_not_to_unsubscribe() -> None:
    class Closed(Board):
        permission_classes = [lambda scope, handler, action: action != "subscribe"]

    async with connect(Closed.as_aaah(), "/") as ws:
        assert (await ws.call("subscribe"))["status"] == 403
        assert (await ws.call("unsubscribe"))["status"] == 204


async def test_check_subscription_may_refuse() -> None:
    class Picky(Board):
        async def check_subscription(self) -> None:
            if self.query_params.get("x"):
                raise PermissionDenied

    async with connect(Picky.as_aaah(), "/") as ws:
        assert (await ws.call("subscribe", "?x=1"))["status"] == 403
        assert (await ws.call("subscribe", "?x="))["status"] == 200


@pytest.mark.parametrize(
    ("parameters", "loc"),
    [
        ({"since": 7}, ["since"]),
        ({"since": {"epoch": "e"}}, ["since", "offset"]),
        ({"since": {"epoch": 1, "offset": 1}}, ["since", "epoch"]),
        ({"since": {"epoch": "e", "offset": -1}}, ["since", "offset"]),
        ({"since": {"epoch": "e", "offset": "1"}}, ["since", "offset"]),
        ({"snapshot": "yes"}, ["snapshot"]),
        ({"snapshot": True}, ["snapshot"]),
    ],
)
async def test_invalid_parameters_are_refused_with_their_location(parameters: Any, loc: list[str]) -> None:
    async with running_app() as app, connect(app, "/ws/a/") as ws:
        reply = await ws.call("subscribe", "boards/7/", **parameters)
        assert (reply["status"], [error["loc"] for error in reply["errors"]]) == (400, [loc])
        await ws.call("tell", "boards/7/")
        await ws.nothing()


async def test_more_than_max_subscriptions_is_busy() -> None:
    seen: list[Any] = []

    class Seen(Hooks):
        def on_limit(self, consumer: Any, limit: str, value: float) -> None:
            seen.append((limit, value))

    async with running_app(limits=Limits(max_subscriptions=2), hooks=[Seen()]) as app, connect(app, "/ws/a/") as ws:
        for pk in (1, 2, 1, 2):
            await position(ws, f"boards/{pk}/")
        reply = await ws.call("subscribe", "boards/3/")
        assert (reply["status"], reply["errors"][0]["type"]) == (503, "busy")
        assert reply["errors"][0]["ctx"] == {"limit": "max_subscriptions", "value": 2}
        assert seen == [("max_subscriptions", 2)]
        await ws.call("unsubscribe", "boards/1/")
        await position(ws, "boards/3/")


@in_virtual_time  # a handshake waits for the layer, which does not open
async def test_subscriptions_under_way_count_while_the_layer_opens() -> None:
    class Slow(MemoryLayer):
        opening, proceed = asyncio.Event(), asyncio.Event()

        async def open(self, sink: Any) -> None:
            self.opening.set()
            await self.proceed.wait()
            await super().open(sink)

    layer, limits = Slow(), Limits(max_subscriptions=2)
    async with running_app(layer=layer, limits=limits) as app, connect(app, "/ws/a/") as ws:
        for pk in (1, 2, 3):
            await ws.send_json({"action": "subscribe", "route": f"boards/{pk}/", "request_id": pk})
        await asyncio.wait_for(layer.opening.wait(), WAIT)
        assert (await ws.receive_json())["errors"][0]["ctx"]["limit"] == "max_subscriptions"
        layer.proceed.set()
        assert [(await ws.receive_json())["status"] for _ in range(2)] == [200, 200]


async def test_a_closed_connection_is_forgotten() -> None:
    async with running_app() as app:
        async with connect(app, "/ws/a/") as one, connect(app, "/ws/a/") as two:
            for ws in (one, two):
                await position(ws, "boards/7/")
            hub, connections = app.runtime.hub, list(app.runtime.loop_state.connections)
            assert [len(hub.subscriptions(connection)) for connection in connections] == [1, 1]
            await two.close()
            assert sum(len(hub.subscriptions(connection)) for connection in connections) == 1
        assert [hub.subscriptions(connection) for connection in connections] == [[], []]


async def test_a_refused_connect_leaves_no_subscription() -> None:
    connections: list[Any] = []

    class Consumer(AsyncAPIConsumer):
        async def connect(self) -> None:
            connections.append(self.connection)
            hub = self.scope["wsaction.session"].runtime.hub
            await hub.join(self.connection, "t", "", reply=lambda *_: "{}")
            raise PermissionDenied

    async with running_app(path("ws/", Consumer.as_asgi())) as app:
        with pytest.raises(Exception, match="403"):
            async with connect(app, "/ws/"):
                raise AssertionError
        assert [app.runtime.hub.subscriptions(connection) for connection in connections] == [[]]


# ------------------------------------------------------------------------------------------------- recovery
async def test_since_sends_the_missed_events_after_the_reply() -> None:
    async with running_app() as app, connect(app, "/ws/a/") as writer:
        async with connect(app, "/ws/a/") as ws:
            at = await position(ws, "boards/7/")
        for number in range(3):
            await writer.call("tell", "boards/7/", number)
        async with connect(app, "/ws/a/") as ws:
            since = {"epoch": at["epoch"], "offset": 1}
            await ws.send_json({"action": "subscribe", "route": "boards/7/", "since": since, "request_id": 1})
            await ws.send_json({"action": "tell", "route": "boards/7/", "data": "live"})
            reply = await ws.receive_json()
            assert (reply["data"], reply["request_id"]) == ({**since, "recovered": True}, 1)
            assert [(await ws.event())["data"] for _ in range(3)] == [1, 2, "live"]


async def test_a_refused_recovery_sends_no_missed_events() -> None:
    async with running_app() as app, connect(app, "/ws/a/") as ws:
        await position(ws, "boards/7/")  # otherwise nothing is kept
        await ws.call("unsubscribe", "boards/7/")
        for number in range(3):
            await ws.call("tell", "boards/7/", number)
        for since in ({"epoch": "other", "offset": 1}, {"epoch": "", "offset": 10**30}):
            at = await position(ws, "boards/7/", since=since)
            assert (at["offset"], at["recovered"]) == (3, False)
        await ws.nothing()


async def test_history_always_keeps_events_without_subscribers() -> None:
    class Kept(Board):
        history_always = True

    class Consumer(AsyncAPIConsumer):
        routepatterns = [path("kept/", Kept.as_aaah()), path("plain/", Board.as_aaah())]

    async with running_app(path("", Consumer.as_asgi())) as app, connect(app, "/") as ws:
        for route in ("kept/", "plain/"):
            await ws.call("tell", route, "early")
        assert (await position(ws, "plain/"))["offset"] == 0
        at = await position(ws, "kept/")
        assert at["offset"] == 1
        await ws.call("unsubscribe", "kept/")
        assert (await position(ws, "kept/", since={"epoch": at["epoch"], "offset": 0}))["recovered"] is True
        assert (await ws.event())["data"] == "early"


async def test_without_history_nothing_is_recovered() -> None:
    async with running_app() as app, connect(app, "/ws/a/") as ws:
        assert await position(ws, "lean/") == {"epoch": "", "offset": 0, "recovered": None}
        await ws.call("tell", "lean/", 1)
        assert await ws.event() == {"event": "told", "route": "lean/", "data": 1}
        at = await position(ws, "lean/", since={"epoch": "", "offset": 0})
        assert at == {"epoch": "", "offset": 0, "recovered": False}


# ------------------------------------------------------------------------------------------------- snapshots
async def test_a_snapshot_is_the_result_of_list() -> None:
    async with running_app() as app, connect(app, "/ws/a/") as ws:
        at = await position(ws, "counted/7/", snapshot=True, most=5)
        assert at["snapshot"] == [7, "list", 5]
        since = {"epoch": at["epoch"], "offset": 0}
        assert await position(ws, "counted/7/", snapshot=True, since=since) == {**since, "recovered": True}
        lost = await position(ws, "counted/7/", snapshot=True, since={"epoch": "x", "offset": 0})
        assert (lost["recovered"], lost["snapshot"]) == (False, [7, "list", 3])


async def test_errors_of_the_snapshot_are_the_reply() -> None:
    class Other(BasePermission):
        def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
            return handler.query_params.get("ok") == "1"

    async def doubled(most: int) -> int:
        return 2 * most

    class Guarded(Board):
        @async_action(permission_classes=[Other])
        async def list(self, most: Annotated[int, Depends(doubled)]) -> tuple[Any, int]:
            return [most], 203

    async with connect(Guarded.as_aaah(), "/") as ws:
        assert (await ws.call("subscribe", "?ok=0", snapshot=True))["status"] == 403
        reply = await ws.call("subscribe", "?ok=1", snapshot=True)
        assert (reply["status"], reply["errors"][0]["loc"]) == (400, ["most"])
        await ws.call("tell")
        await ws.nothing()
        assert (await position(ws, "?ok=1", snapshot=True, most=4))["snapshot"] == [8]


async def test_a_snapshot_that_is_too_large_joins_nothing() -> None:
    class Large(Board):
        @async_action
        def list(self) -> str:
            return "x" * 5_000

    limits = Limits(max_outbox_bytes=4_000)
    async with running_app(path("", Large.as_aaah()), limits=limits) as app, connect(app, "/") as ws:
        reply = await ws.call("subscribe", snapshot=True)
        assert (reply["status"], reply["errors"][0]["type"]) == (500, "reply_too_large")
        await ws.call("tell")
        await ws.nothing()
        (connection,) = app.runtime.loop_state.connections
        assert app.runtime.hub.subscriptions(connection) == []


@pytest.mark.parametrize("how", ["cancel", "timeout", "drop"])
async def test_a_subscribe_that_is_stopped_leaves_nothing_behind(how: str) -> None:
    gate = asyncio.Event()

    class Waiting(Counted):
        pass

    Waiting.gate = gate
    limits = Limits(action_timeout=0.05) if how == "timeout" else None
    async with running_app(path("", Waiting.as_aaah()), limits=limits) as app, connect(app, "/") as ws:
        await ws.send_json({"action": "subscribe", "snapshot": True, "request_id": 1})
        await ws.call("$ping")
        (connection,) = app.runtime.loop_state.connections
        if how == "drop":
            await ws.close()
        else:
            if how == "cancel":
                assert (await ws.call("$cancel", data=1))["status"] == 200
            reply = await ws.receive_json()
            assert (reply["request_id"], reply["status"]) == (1, 499 if how == "cancel" else 408)
            assert (await ws.call("tell"))["status"] == 200
            await ws.nothing()
        assert app.runtime.hub.subscriptions(connection) == []


FAILURES = {"refused": 403, "cancelled": 499, "timed out": 408, "error": 500, "too large": 500, "error after it": 500}


@pytest.mark.parametrize(("how", "status"), FAILURES.items())
async def test_a_subscribe_that_fails_leaves_the_earlier_subscription(how: str, status: int) -> None:
    gate = asyncio.Event()

    class Snapshots(Board):
        async def check_subscription(self) -> None:
            if "snapshot" in self.frame.body and how == "refused":
                raise PermissionDenied

        @async_action
        async def list(self) -> str:
            await gate.wait()
            if how == "error":
                raise ZeroDivisionError("no snapshot")
            return "x" * 5_000 if how == "too large" else "x"

    async def failing(handler: Any, call_next: Any) -> Any:
        result = await call_next(handler)
        if "snapshot" in handler.frame.body and how == "error after it":
            raise ZeroDivisionError("behind")
        return result

    limits = Limits(action_timeout=0.05 if how == "timed out" else WAIT, max_outbox_bytes=4_000)
    routes = [path("", Snapshots.as_aaah())]
    async with running_app(*routes, limits=limits, middleware=[failing]) as app, connect(app, "/") as ws:
        await position(ws, "")
        await app.publish("", "told", 1)
        assert (await ws.event())["offset"] == 1
        subscribing = asyncio.create_task(ws.call("subscribe", snapshot=True, request_id=1))
        await ws.call("$ping")
        await app.publish("", "told", 2)
        if how == "cancelled":
            assert (await ws.call("$cancel", data=1))["status"] == 200
        elif how != "timed out":
            gate.set()
        assert (await subscribing)["status"] == status
        await app.publish("", "told", 3)
        assert [(await ws.event()).get("offset") for _ in range(2)] == [2, 3]


async def test_subscribe_and_unsubscribe_run_in_order_on_their_route() -> None:
    gate = asyncio.Event()

    class Waiting(Counted):
        pass

    Waiting.gate = gate
    async with connect(Waiting.as_aaah(), "/") as ws:
        for number, action in enumerate(("subscribe", "tell", "unsubscribe", "tell")):
            await ws.send_json({"action": action, "snapshot": action == "subscribe", "request_id": number})
        await ws.call("$ping")
        gate.set()
        frames = [await ws.receive_json() for _ in range(5)]
        assert [one.get("request_id", one.get("event")) for one in frames] in (
            [0, 1, "told", 2, 3],
            [0, "told", 1, 2, 3],
        )


async def test_middleware_that_fails_after_subscribe_undoes_it() -> None:
    async def failing(handler: Any, call_next: Any) -> Any:
        await call_next(handler)
        raise ZeroDivisionError("behind")

    async with running_app(path("", Board.as_aaah()), middleware=[failing]) as app, connect(app, "/") as ws:
        assert (await ws.call("subscribe"))["status"] == 500
        await app.publish("", "told", 1)
        await ws.nothing()


# ------------------------------------------------------------------------------------------------- publishing
async def test_declared_events_are_validated_and_others_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with running_app() as app, connect(app, "/ws/a/") as ws:
        await position(ws, "declared/")
        assert (await ws.call("tell", "declared/", {"x": "7"}, event="moved"))["status"] == 200
        assert (await ws.event("moved"))["data"] == {"x": 7}
        for event, data in (("move", {"x": 1}), ("moved", {"x": "one"}), ("$resync", None)):
            assert (await ws.call("tell", "declared/", data, event=event))["status"] == 500
        assert "declares no event 'move'; did you mean 'moved'?" in caplog.text
        await ws.nothing()


async def test_events_may_be_declared_where_a_handler_is_mounted() -> None:
    async with connect(Board.as_aaah(events={"moved": Moved}, history_ttl=0), "/") as ws:
        assert (await position(ws, ""))["epoch"] == ""
        assert (await ws.call("tell", data={"x": 1}, event="moved"))["status"] == 200
        assert (await ws.event())["data"] == {"x": 1}
        assert (await ws.call("tell", data={"x": 1}))["status"] == 500


def test_invalid_declarations_are_refused_at_class_creation() -> None:
    for attributes in ({"events": ["moved"]}, {"events": {"$x": int}}, {"history_size": -1}, {"history_ttl": "5"}):
        with pytest.raises(ImproperlyConfigured):
            type("Bad", (SubscribeMixin, AsyncAPIActionHandler), attributes)


async def test_exclude_self_skips_the_publisher() -> None:
    async with running_app() as app, connect(app, "/ws/a/") as one, connect(app, "/ws/a/") as two:
        for ws in (one, two):
            await position(ws, "boards/7/")
        await one.call("tell", "boards/7/", 1, but_me=True)
        await one.call("tell", "boards/7/", 2)
        assert [(await two.event())["data"] for _ in range(2)] == [1, 2]
        assert (await one.event())["data"] == 2


async def test_push_reaches_only_its_own_connection() -> None:
    async with running_app() as app, connect(app, "/ws/a/") as one, connect(app, "/ws/a/") as two:
        await position(two, "boards/7/")
        await one.call("whisper", "boards/07/", {"a": "é"})
        assert await one.event() == {"event": "whispered", "route": "boards/7/", "data": {"a": "é"}}
        await two.nothing()


class Writing(Board):
    """A board that writes, publishes, and may fail afterwards."""

    rows: Any

    @async_action
    async def write(self, text: str, fail: bool = False) -> None:
        row = await self.rows.create({"text": text})
        await self.publish("written", row)
        if fail:
            raise ValueError("after all")


async def test_events_of_an_action_are_published_after_its_commit(caplog: pytest.LogCaptureFixture) -> None:
    Writing.rows = MemoryQuerySet(Row)
    async with connect(Writing.as_aaah(), "/") as ws:
        await position(ws, "")
        assert (await ws.call("write", text="a", fail=True))["status"] == 500
        assert (await ws.call("write", text="b"))["status"] == 200
        assert (await ws.event())["data"]["text"] == "b"
        await ws.nothing()


async def test_a_failing_layer_is_a_503_or_a_resync_after_a_commit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    layer, unpublished = FailingLayer(), []

    class Counting(Hooks):
        def on_unpublished(self, topic: str) -> None:
            unpublished.append(topic)

    Writing.rows = MemoryQuerySet(Row)
    async with (
        running_app(path("", Writing.as_aaah()), layer=layer, hooks=[Counting()]) as app,
        connect(app, "/") as ws,
    ):
        at = await position(ws, "")
        layer.away = True
        reply = await ws.call("tell")
        assert (reply["status"], reply["errors"][0]["type"]) == (503, "layer_unavailable")
        with caplog.at_level(logging.ERROR):
            assert (await ws.call("write", text="a"))["status"] == 200
        resync = await ws.event("$resync")
        assert resync["data"]["epoch"] != at["epoch"]
        assert "its subscribers will get $resync" in caplog.text
        assert unpublished == ["?"]


async def test_a_handler_without_a_connection_cannot_publish() -> None:
    handler = Board()
    handler.scope = {"path": "/"}
    handler.consumer, handler.frame = SimpleNamespace(connection=None), None
    handler.is_consumer = True  # type: ignore[misc]
    with pytest.raises(RuntimeError, match=r"app\.publish"):
        await handler.publish("told")


# ------------------------------------------------------------------------------------------------- random order
@pytest.mark.parametrize("seed", range(3))
async def test_a_snapshot_and_later_events_equal_the_store(seed: int) -> None:
    """Writers write continuously; clients subscribe, drop and come back; each must end up with the content of the
    store.
    """
    rng = random.Random(seed)
    store: dict[str, int] = {}

    class Store(SubscribeMixin, AsyncAPIActionHandler):
        history_size = 20

        @async_action
        async def list(self) -> dict[str, int]:
            rows = dict(store)
            for _ in range(rng.randrange(3)):
                await asyncio.sleep(0)
            return rows

        @async_action
        async def put(self, key: str, value: int) -> None:
            store[key] = value
            for _ in range(rng.randrange(3)):
                await asyncio.sleep(0)
            await self.publish("put", [key, value])

    app = WSAction([path("", Store.as_aaah())])

    async def write(name: str) -> None:
        async with connect(app, "/") as ws:
            for value in range(100):
                await ws.call("put", key=f"{name}{rng.randrange(5)}", value=value)

    async def follow(writers: asyncio.Future[Any]) -> None:
        state: dict[str, int] = {}
        at: dict[str, Any] | None = None
        while True:
            last = writers.done()
            async with connect(app, "/") as ws:
                since = {} if at is None else {"since": at}
                reply = await ws.call("subscribe", snapshot=True, **since)
                data = reply["data"]
                assert (data["recovered"] is True) == ("snapshot" not in data)
                if "snapshot" in data:
                    state = data["snapshot"]
                at = {"epoch": data["epoch"], "offset": data["offset"]}
                ended = await ws.call("unsubscribe") if last else None
                for _ in range(0 if last else rng.randrange(40)):
                    try:
                        async with asyncio.timeout(0.25):  # no event comes once the writers have ended
                            event = await ws.event("put")
                    except TimeoutError:
                        break
                    state[event["data"][0]] = event["data"][1]
                    assert event["offset"] == at["offset"] + 1
                    at["offset"] = event["offset"]
                    if writers.done():
                        break
                if last and ended is not None:
                    while at["offset"] < app.runtime.hub.layer._logs["?"].offset:  # type: ignore[attr-defined]
                        event = await ws.event("put")
                        state[event["data"][0]] = event["data"][1]
                        at["offset"] = event["offset"]
                    assert state == store
                    return

    async with app.lifespan(), asyncio.timeout(30):
        writers = asyncio.gather(*(write(name) for name in "ab"))
        await asyncio.gather(writers, *(follow(writers) for _ in range(4)))
