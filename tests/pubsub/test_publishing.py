"""`wsaction._events.publish` and `app.publish`: publishing from outside of any connection."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.live_boards import Board, Declared, FailingLayer, Root, Row, position, running_app
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import OutcomeUnknown
from wsaction.generics import ModelAPIActionHandler
from wsaction.hooks import Hooks
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import include, path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import connect
from wsaction.transactions import unit_of_work


class Inbox(Board):
    def get_topic(self) -> str:
        return f"inbox:{self.user.name}"


class Many(AsyncAPIConsumer):
    routepatterns = [path("inbox/", Inbox.as_aaah())]


async def http(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError


ROUTES = [
    path("ws/", Root.as_asgi()),
    path("t/<str:tenant>/", include([path("ws/<int:pk>/", Root.as_asgi())])),
    path("raw/<str:any>/", http),
]


async def test_the_only_path_without_captures_is_the_default() -> None:
    async with running_app(*ROUTES) as app, connect(app, "/ws/") as ws:
        await position(ws, "boards/7/")
        await position(ws, "")
        await app.publish("boards/07/", "told", {"a": 1})
        await app.publish("", "told", 2)
        assert await ws.event() == {"event": "told", "route": "boards/7/", "data": {"a": 1}, "offset": 1}
        assert await ws.event() == {"event": "told", "route": "", "data": 2, "offset": 1}


async def test_path_selects_the_connections() -> None:
    async with running_app(*ROUTES) as app, connect(app, "/t/a/ws/7/") as ws:
        await position(ws, "boards/7/")
        await app.publish("boards/7/", "told", 0)
        await app.publish("boards/7/", "told", 1, path="/t/b/ws/7/")
        await app.publish("boards/7/", "told", 2, path="/t/a/ws/07/")
        assert (await ws.event())["data"] == 2


async def test_root_path_selects_the_tenant_of_a_mount() -> None:
    scope = {"root_path": "/t/a", "path_params": {"tenant": "a"}}
    async with running_app(*ROUTES) as app, connect(app, "/t/a/ws/", scope=scope) as ws:
        await position(ws, "boards/7/")
        await app.publish("boards/7/", "told", 1)
        await app.publish("boards/7/", "told", 2, root_path="/t/a")
        assert (await ws.event())["data"] == 2


@pytest.mark.parametrize(
    ("routes", "route", "options", "message"),
    [
        (
            ROUTES,
            "bords/7/",
            {},
            r"None of the 4 patterns matches the route 'bords/7/'. Did you mean .*\(Root at 'ws/'\)",
        ),
        (ROUTES, "", {"path": "nowhere/"}, r"path='nowhere/' leads to no connection: None of the 3"),
        (ROUTES, "", {"path": "raw/x/"}, r"path='raw/x/': expected the path of a consumer, .*, got that of "),
        (ROUTES[1:], "", {}, r"path= says which connections .* the app has 't/<str:tenant>/ws/<int:pk>/'$"),
        ([*ROUTES, path("b/", Root.as_asgi())], "", {}, r"the app has 'ws/', .*, 'b/'$"),
        ([path("ws/", Many.as_asgi())], "inbox/", {}, r"Inbox overrides get_topic\(\).* with topic="),
        (ROUTES, "declared/", {}, r"Declared\.events declares no event 'told'"),
    ],
)
async def test_an_address_without_a_topic_is_an_error(routes: Any, route: str, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        await WSAction(routes).publish(route, "told", **options)


async def test_topic_names_a_custom_topic() -> None:
    app = WSAction([path("ws/", Many.as_asgi())])
    async with connect(app, "/ws/", user=SimpleNamespace(name="ada")) as ws:
        await position(ws, "inbox/")
        await app.publish("inbox/", "told", 1, topic="inbox:ada")
        assert await ws.event() == {"event": "told", "route": "inbox/", "data": 1, "offset": 1}


async def test_exclude_skips_one_connection() -> None:
    seen: list[Any] = []

    class Root2(Root):
        async def connect(self) -> None:
            seen.append(self)

    async with (
        running_app(path("ws/", Root2.as_asgi())) as app,
        connect(app, "/ws/") as one,
        connect(app, "/ws/") as two,
    ):
        for ws in (one, two):
            await position(ws, "")
        await app.publish("", "told", 1, exclude=seen[0])
        await app.publish("", "told", 2)
        assert (await one.event())["data"] == 2
        assert (await two.event())["data"] == 1


async def test_within_a_unit_of_work_publish_waits_for_the_commit() -> None:
    rows = MemoryQuerySet(Row)
    async with running_app(*ROUTES) as app, connect(app, "/ws/") as ws:
        await position(ws, "")
        with contextlib.suppress(ZeroDivisionError):
            async with unit_of_work():
                await app.publish("", "told", 1)
                raise ZeroDivisionError
        async with unit_of_work():
            await rows.create({"text": "a"})
            await app.publish("", "told", 2)
            await ws.nothing()
        assert (await ws.event())["data"] == 2


async def test_hooks_get_events_and_their_number_of_recipients() -> None:
    calls: list[Any] = []

    class RecordingHooks(Hooks):
        def on_event(self, topic: str, event: str, recipients: int) -> None:
            calls.append((topic, event, recipients))

    async with (
        running_app(*ROUTES, hooks=[RecordingHooks()]) as app,
        connect(app, "/ws/") as one,
        connect(app, "/ws/") as two,
    ):
        await position(one, "declared/")
        await app.publish("declared/", "moved", {"x": 1})
        await position(two, "declared/")
        await two.call("tell", "declared/", {"x": 2}, event="moved", but_me=True)
        await one.call("unsubscribe", "declared/")
        await two.call("unsubscribe", "declared/")
        await app.publish("declared/", "moved", Declared.events["moved"](x=3))
    assert calls == [("ws/?declared/", "moved", 1), ("ws/?declared/", "moved", 1), ("ws/?declared/", "moved", 0)]


async def test_self_app_publishes_for_the_app_that_serves() -> None:
    class Teller(AsyncAPIConsumer):
        routepatterns = [path("boards/<int:pk>/", Board.as_aaah())]

        @async_action
        async def tell(self) -> None:
            await self.app.publish("boards/7/", "told", Row(id=1))

    async with running_app(path("ws/", Teller.as_asgi())) as app, connect(app, "/ws/") as ws:
        await position(ws, "boards/7/")
        assert (await ws.call("tell"))["status"] == 200
        assert (await ws.event())["data"]["id"] == 1
    async with connect(Teller.as_asgi(), "/") as ws:
        assert (await ws.call("tell"))["errors"][0]["type"] == "server_error"


class Rows(SubscribeMixin, ModelAPIActionHandler):
    queryset = MemoryQuerySet(Row)
    serializer_class = Row

    @async_action
    async def follow(self, way: str) -> None:
        """Publishes in an on-commit callback."""
        row = await self.queryset.create({"text": "a"})
        ways: dict[str, Callable[[], Awaitable[None]]] = {
            "self.publish": lambda: self.publish("told", 1),
            "app.publish": lambda: self.app.publish("rows/", "told", 1),
            "publish_object": lambda: self.publish_object("created", row),
            "nested": lambda: nested(),
        }

        async def nested() -> None:
            unit.on_commit(lambda: self.publish("told", 1))

        async with self.unit_of_work() as unit:
            unit.on_commit(ways[way])


class Rooted(AsyncAPIConsumer):
    routepatterns = [path("rows/", Rows.as_aaah())]


@pytest.mark.parametrize("way", ["self.publish", "app.publish", "publish_object", "nested"])
async def test_on_commit_callbacks_publish_like_committed_events(way: str) -> None:
    layer = FailingLayer()
    async with running_app(path("ws/", Rooted.as_asgi()), layer=layer) as app, connect(app, "/ws/") as ws:
        at = await position(ws, "rows/")
        assert (await ws.call("follow", "rows/", way=way))["status"] == 200
        assert (await ws.event())["event"] == ("created" if way == "publish_object" else "told")
        layer.away = True
        assert (await ws.call("follow", "rows/", way=way))["status"] == 200
        assert (await ws.event("$resync"))["data"]["epoch"] != at["epoch"]


async def test_each_on_commit_callback_publishes_before_the_next_runs() -> None:
    """The next callback may take long."""
    called, go_on = asyncio.Event(), asyncio.Event()
    async with running_app(*ROUTES) as app, connect(app, "/ws/") as ws:
        await position(ws, "boards/7/")

        async def slow_callback() -> None:
            called.set()
            await go_on.wait()

        async def work_and_publish() -> None:
            async with unit_of_work() as unit:
                for number in (1, 2):
                    unit.on_commit(lambda number=number: app.publish("boards/7/", "told", number))
                unit.on_commit(slow_callback)
                unit.on_commit(lambda: app.publish("boards/7/", "told", 3))

        work = asyncio.create_task(work_and_publish())
        await called.wait()
        assert [(await ws.event("told"))["data"] for _ in range(2)] == [1, 2]
        go_on.set()
        assert (await ws.event("told"))["data"] == 3
        await work


@pytest.mark.parametrize("way", ["publish", "perform_create", "push_user"])
async def test_what_an_if_unknown_callback_publishes_is_published(way: str) -> None:
    """Its outcome is its own, although that of the unit is unknown."""

    class UnknownCommit:
        instant = True

        async def prepare(self) -> None: ...

        async def commit(self) -> bool:
            raise OutcomeUnknown

        async def rollback(self) -> None: ...

    class Repairing(Rows):
        @async_action
        async def repair(self) -> None:
            ways = {
                "publish": lambda: self.publish("told", 1),
                "perform_create": lambda: self.perform_create({"text": "b"}),
                "push_user": lambda: self.app.push_user("ada", "told", 1),
            }
            async with self.unit_of_work() as unit:
                unit.resource(1, UnknownCommit)
                unit.on_commit(lambda: None, if_unknown=ways[way])

    class Root(AsyncAPIConsumer):
        routepatterns = [path("rows/", Repairing.as_aaah())]

    ada = SimpleNamespace(is_authenticated=True, pk="ada")
    async with running_app(path("ws/", Root.as_asgi())) as app, connect(app, "/ws/", user=ada) as ws:
        await position(ws, "rows/")
        assert (await ws.call("repair", "rows/"))["errors"][0]["type"] == "outcome_unknown"
        assert (await ws.event())["event"] == ("created" if way == "perform_create" else "told")
        await ws.nothing()


async def test_disconnecting_after_a_commit_is_retried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    layer = FailingLayer()
    async with running_app(*ROUTES, layer=layer) as app, connect(app, "/ws/"):
        layer.away = True
        async with unit_of_work() as unit:
            unit.on_commit(lambda: app.disconnect_user("ada"))
        assert "disconnect about a user has not reached other processes and will be retried" in caplog.text
        layer.away = False
