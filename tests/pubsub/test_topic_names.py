"""Topics are shared only where a handler says so. Whatever `get_topic()` returns, no client receives events of others,
in any way that events take.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.routing import Host, Mount, Router

from tests.support.redis_servers import needs_redis_server, redis_server
from wsaction._events.users import CONTROL
from wsaction._protocol.scope import MAX_NAME, group_topic, topic_for_name, topic_of
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.layers.base import Layer
from wsaction.layers.redis import RedisLayer
from wsaction.presence import PresenceMixin
from wsaction.routing import path
from wsaction.subscriptions import SharedTopic
from wsaction.testing import connect

NAMES = [
    CONTROL,  # of the framework itself
    group_topic("ws/red/"),
    group_topic("cast/red/"),
    group_topic("", "tenant", "red"),
    *(f"{tenant}?{route}" for tenant in ("ws/red/", "ws/blue/", "") for route in ("boards/7/", "inbox/", "news/")),
    *(f"{tenant}??ninbox/?inbox:7" for tenant in ("ws/red/", "ws/blue/", "")),  # of other handlers and tenants
    *("boards/7/", "inbox/", "inbox:7", "news", "??snews", "ws/red/??snews", "?", "??", "%3F?", "%", " "),
    *(
        "\x00",
        "a\nb",
        "{",
        "}",
        "}{inbox:7}",
        "{}",
        "é",
        "\U0001f600",
        "\x7f",
        "../inbox:7",
        "*",
        "[a-z]",
        "..",
        "x" * 1_900,
    ),
]


class Speaking(PresenceMixin, AsyncAPIActionHandler):
    """Publishes the text of its client."""

    @async_action
    async def tell(self, text: str) -> None:
        await self.publish("told", text)


class Inbox(Speaking):
    def get_topic(self) -> str:
        return f"inbox:{self.user.pk}"


class News(Speaking):
    def get_topic(self) -> str:
        return SharedTopic("news")


class AnyTopic(Speaking):
    """Its topic is named by the client."""

    def get_topic(self) -> str:
        return self.query_params["name"]


class Root(AsyncAPIConsumer):
    routepatterns = [
        path("boards/<int:pk>/", Speaking.as_aaah()),
        path("inbox/", Inbox.as_aaah()),
        path("news/", News.as_aaah()),
        path("rooms/", AnyTopic.as_aaah()),
    ]


class Cast(AsyncAPIConsumer):
    @async_action(mode="broadcast")
    async def cast(self) -> str:
        return "broadcast"


class Grouped(Cast):
    group_send_lookup_kwargs = "tenant"


ROUTES = [
    path("ws/<slug:tenant>/", Root.as_asgi()),
    path("cast/<slug:tenant>/", Cast.as_asgi()),
    path("groups/<slug:tenant>/", Grouped.as_asgi()),
    path("teams/<slug:team>/", type("Teams", (Cast,), {"group_send_lookup_kwargs": "team"}).as_asgi()),
]


def user_of(pk: Any) -> Any:
    return SimpleNamespace(is_authenticated=True, pk=pk)


@contextlib.asynccontextmanager
async def memory(tmp_path: Path) -> AsyncIterator[list[Layer | None]]:
    yield [None]


@contextlib.asynccontextmanager
async def redis(tmp_path: Path) -> AsyncIterator[list[Layer | None]]:
    with redis_server(tmp_path) as server:
        yield [RedisLayer(server.url), RedisLayer(server.url)]


@pytest.mark.parametrize("layers", [memory, pytest.param(redis, marks=needs_redis_server)])
async def test_no_topic_name_reaches_events_of_others(layers: Any, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack, layers(tmp_path) as shared_layers:
        apps = [WSAction(ROUTES, layer=layer) for layer in shared_layers]
        for app in apps:
            await stack.enter_async_context(app.lifespan())

        async def opened(app: WSAction, url: str, pk: Any) -> Any:
            return await stack.enter_async_context(connect(app, url, user=user_of(pk)))

        first, second = apps[0], apps[-1]
        curious = await opened(second, "/ws/red/", 66)
        for name in NAMES:
            route = f"rooms/?name={quote(name)}"
            assert (await curious.call("subscribe", route))["status"] == 200, name
            event = await curious.event()  # its own, and no event of another name
            assert (event["event"], event["data"], event["offset"]) == ("join", {"user": "66"}, 1)
            assert (await curious.call("presence", route))["data"] == {"66": 1}
        received = []
        expected = [[tenant, route] for tenant in ("red", "blue") for route in ("boards/7/", "inbox/", "news/")]
        for tenant in ("red", "blue"):
            one, two = await opened(first, f"/ws/{tenant}/", 7), await opened(second, f"/ws/{tenant}/", 7)
            for route in ("boards/7/", "inbox/", "news/"):
                assert (await two.call("subscribe", route))["status"] == 200
                await one.call("tell", route, text=tenant)
                received.append([(await two.event("told"))["data"], route])
            for url in (f"/cast/{tenant}/", f"/groups/{tenant}/", f"/teams/{tenant}/"):
                casting, listening = await opened(first, url, 7), await opened(second, url, 8)
                await casting.send_json({"action": "cast"})
                assert (await listening.receive_json())["data"] == "broadcast"
                await listening.nothing()
            await first.push_user(7, "pushed", tenant)
            assert (await two.event("pushed"))["data"] == tenant
            await first.publish("boards/7/", "told", "app", path=f"ws/{tenant}/")
            await first.publish("inbox/", "told", "app", path=f"ws/{tenant}/", topic="inbox:7")
            assert [(await two.event("told"))["data"] for _ in range(2)] == ["app", "app"]
            await first.revoke_user(7)
        assert received == expected
        await first.disconnect_user(7)
        await curious.nothing()


async def test_another_spelling_reaches_no_route_of_another_pattern() -> None:
    class Boards(Cast):
        routepatterns = [path("boards/0/", Speaking.as_aaah()), path("boards/<int:pk>/", Speaking.as_aaah())]

    class Staff(Boards):
        pass

    app = WSAction([path("ws/1/", Staff.as_asgi()), path("ws/<int:team>/", Boards.as_asgi())])
    async with app.lifespan(), connect(app, "/ws/1/") as staff, connect(app, "/ws/01/") as curious:
        for route in ("boards/00/", "boards/0/", "boards/7/"):
            assert (await curious.call("subscribe", route))["status"] == 200
            assert (await curious.event())["event"] == "join"
        for route in ("boards/0/", "boards/7/"):
            await staff.call("tell", route, text="secret")
        await app.publish("boards/0/", "told", "secret", path="ws/1/")
        await staff.send_json({"action": "cast"})
        async with connect(app, "/ws/001/") as other:  # nor does a place with another spelling
            await other.call("tell", "boards/0/", text="other")
        await curious.call("tell", "boards/0/", text="own")
        event = await curious.event("told")
        assert (event["route"], event["data"]) == ("boards/0/", "own")
        await curious.nothing()


@pytest.mark.parametrize("mount", ["", "/live"])
async def test_tenants_by_host_share_nothing(mount: str) -> None:
    app = WSAction([path("ws/", Root.as_asgi())])
    within = Router([Mount(mount, app)]) if mount else app
    hosts = [Host("{tenant}.eu.example", within), Host("{tenant}.us.example", within)]
    site = Starlette(routes=[Mount("/static", Router([])), *hosts])

    def opened(host: str) -> Any:
        return connect(site, f"{mount}/ws/", headers={"host": host}, user=user_of(7))

    async with app.lifespan(), opened("red.eu.example") as red, opened("RED.eu.example:80") as again:
        for route in ("boards/7/", "inbox/"):
            await red.call("subscribe", route)
            await red.event("join")
        for other in ("blue.eu.example", "red.us.example"):
            async with opened(other) as ws:
                await ws.call("tell", "boards/7/", text=other)
                await ws.call("tell", "inbox/", text=other)
        await app.publish("boards/7/", "told", "no tenant's")
        await again.call("tell", "boards/7/", text="red")
        await app.publish("boards/7/", "told", "app", root_path=f"red.eu.example{mount}")
        assert [(await red.event("told"))["data"] for _ in range(2)] == ["red", "app"]
        await red.nothing()


async def test_broadcast_groups_of_mounted_tenants_share_nothing() -> None:
    app = WSAction([path("ws/<slug:tenant>/", Grouped.as_asgi())])
    site = Starlette(routes=[Mount("/t/{owner}", app)])
    async with app.lifespan(), connect(site, "/t/red/ws/7/") as red, connect(site, "/t/blue/ws/7/") as blue:
        async with connect(site, "/t/red/ws/7/") as again:
            await again.send_json({"action": "cast"})
            assert (await red.receive_json())["data"] == "broadcast"
        await blue.nothing()


def topic_named(name: Any, space: str = "rooms/", tenant: str = "ws/red/") -> str:
    scope = {"path": tenant}
    return topic_for_name(SimpleNamespace(scope=scope, mounted=SimpleNamespace(topic_space=space)), name)


def test_topic_names_are_bounded_and_distinct() -> None:
    names = [*NAMES, "x" * MAX_NAME, "x" * (MAX_NAME + 1), "x" * 10**6, "y" * 10**6, "\ud800" * 600, "\ud800"]
    topics = {
        topic_named(name, space, tenant) for name in names for space in ("a", "a?b", "") for tenant in ("t", "t?a", "")
    }
    assert len(topics) == len(names) * 9
    assert max(map(len, topics)) < MAX_NAME + 20
    shared = {topic_named(SharedTopic(name)) for name in names}
    assert len(shared) == len(names)
    assert not topics & shared
    assert not (topics | shared) & {topic_of(path, route) for path in ("t", "") for route in NAMES if "?" not in route}
    hashed = topic_named("x" * 10**6)
    assert topic_named(hashed.rpartition("?")[2]) != hashed


async def test_topics_are_shared_by_get_topic_or_shared_topic() -> None:
    class Copy(Speaking):  # returns the same name, but for itself
        def get_topic(self) -> str:
            return f"inbox:{self.user.pk}"

    class More(Inbox):
        pass

    class Apart(AsyncAPIConsumer):
        routepatterns = [
            path("inbox/", Inbox.as_aaah()),
            path("more/", More.as_aaah()),
            path("copy/", Copy.as_aaah()),
            path("news/", News.as_aaah()),
            path("also/", type("Also", (Speaking,), {"get_topic": lambda self: SharedTopic("news")}).as_aaah()),
        ]

    app = WSAction([path("ws/<slug:tenant>/", Apart.as_asgi())])
    ada = user_of("ada")
    async with app.lifespan(), connect(app, "/ws/a/", user=ada) as one, connect(app, "/ws/b/", user=ada) as other:
        for route in ("more/", "also/"):
            await one.call("subscribe", route)
            await one.event("join")
        for ws, route in ((one, "copy/"), (other, "inbox/"), (one, "inbox/"), (other, "news/")):
            await ws.call("tell", route, text=route)
        for route, text in (("more/", "inbox/"), ("also/", "news/")):
            event = await one.event("told")
            assert (event["route"], event["data"]) == (route, text)
        await one.nothing()


@pytest.mark.parametrize("name", [None, 7, b"inbox", ["inbox"]])
async def test_a_topic_that_is_no_string_is_refused(name: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(Speaking):
        def get_topic(self) -> Any:
            return name

    async with connect(Wrong.as_aaah(), "/") as ws:
        for action in ("subscribe", "presence", "tell"):
            assert (await ws.call(action, text=""))["status"] == 500
    assert f"Wrong.get_topic() returned {name!r}; expected a string" in caplog.text
