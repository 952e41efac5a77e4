"""`WSAction`: routing by path, embedding in other apps, and its lifespan on any event loop."""

import asyncio
import contextlib
import gc
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus

from wsaction._utils import lifespan as lifespans
from wsaction.applications import WSAction
from wsaction.authentication import BearerAuthentication
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured, NotFound
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.hooks import Hooks
from wsaction.limits import Limits
from wsaction.routing import include, path, re_path
from wsaction.testing import HandshakeRefused, WebSocketSession, connect

WAIT = 5.0  # the timeout of a test's waits, in seconds


class Where(AsyncAPIActionHandler):
    @async_action
    async def where(self) -> Any:
        return {"kwargs": self.kwargs, "args": list(self.args)}


class Show(AsyncAPIConsumer):
    """Replies with its captures and parts of its scope."""

    routepatterns = [path("items/<int:pk>/", Where.as_aaah())]

    @async_action
    async def where(self) -> Any:
        return {"kwargs": self.kwargs, "args": list(self.args)}

    @async_action
    async def captured(self, room: str) -> str:
        return room

    @async_action
    async def scoped(self) -> Any:
        names = ("path", "root_path", "url_route", "path_params")
        return {name: self.scope.get(name) for name in names}

    @async_action
    async def state(self) -> Any:
        return dict(self.scope.get("state", {}))

    @async_action
    async def who(self) -> Any:
        return {
            "user": getattr(self.user, "display_name", None),
            "scopes": getattr(self.scope.get("auth"), "scopes", None),
            "session": self.scope.get("session"),
        }


async def ask(app: Any, url: str, action: str, route: str = "", **options: Any) -> Any:
    """The data of the reply to one action, on a new connection."""
    async with connect(app, url, **options) as ws:
        reply = await ws.call(action, route)
    assert reply["status"] == 200, reply
    return reply["data"]


async def handshake_refusal(app: Any, url: str, **options: Any) -> HandshakeRefused:
    with pytest.raises(HandshakeRefused) as caught:
        async with connect(app, url, **options):
            raise AssertionError("it was accepted")
    return caught.value


# ------------------------------------------------------------------------------------------------ routing


async def test_path_captures_are_kwargs_of_consumers_and_handlers() -> None:
    app = WSAction([path("ws/<slug:room>/<int:n>/", Show.as_asgi(), {"extra": "yes"})])
    captured = {"room": "blue", "n": 7, "extra": "yes"}
    assert await ask(app, "/ws/blue/7/", "where") == {"kwargs": captured, "args": []}
    assert await ask(app, "/ws/blue/7/", "where", "items/3/") == {"kwargs": {**captured, "pk": 3}, "args": []}
    assert await ask(app, "/ws/blue/7/", "captured") == "blue"
    scope = await ask(app, "/ws/blue/7/", "scoped")
    assert scope["url_route"] == {"args": [], "kwargs": captured}
    assert scope["path"] == "/ws/blue/7/"


async def test_unnamed_captures_are_args() -> None:
    app = WSAction([re_path(r"^(\d+)-(\w+)$", Show.as_asgi())])
    assert await ask(app, "/12-ab", "where") == {"kwargs": {}, "args": ["12", "ab"]}
    assert await ask(app, "/12-ab", "where", "items/3/") == {"kwargs": {"pk": 3}, "args": ["12", "ab"]}


async def test_connections_do_not_share_captures() -> None:
    app = WSAction([path("<room>/", Show.as_asgi())])
    async with connect(app, "/a/") as one, connect(app, "/b/") as other:
        for _ in range(2):
            assert (await one.call("where", "items/1/"))["data"]["kwargs"] == {"room": "a", "pk": 1}
            assert (await other.call("where", "items/1/"))["data"]["kwargs"] == {"room": "b", "pk": 1}


async def test_include_and_the_order_of_patterns() -> None:
    inner = [path("", Show.as_asgi(), {"which": "index"}), path("<int:n>/", Show.as_asgi())]
    app = WSAction(
        [
            path("a/special/", Show.as_asgi(), {"which": "special"}),
            path("<name>/", include(inner)),
            path("", Show.as_asgi(), {"which": "root"}),
        ]
    )
    assert (await ask(app, "/a/special/", "where"))["kwargs"] == {"which": "special"}
    assert (await ask(app, "/x/", "where"))["kwargs"] == {"name": "x", "which": "index"}
    assert (await ask(app, "/x/7/", "where"))["kwargs"] == {"name": "x", "n": 7}
    assert (await ask(app, "/", "where"))["kwargs"] == {"which": "root"}
    assert (await ask(app, "/caf%C3%A9/", "where"))["kwargs"] == {"name": "café", "which": "index"}


@pytest.mark.parametrize("debug", [False, True])
async def test_an_unknown_path_is_a_404_and_the_log_lists_the_patterns(
    debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wsaction")
    app = WSAction([path("boards/<int:pk>/", Show.as_asgi())], debug=debug)
    error = await handshake_refusal(app, "/bords/7/")
    assert error.status == 404
    (item,) = json.loads(error.body)["errors"]
    assert item["type"] == "route_not_found"
    assert ("boards/<int:pk>/" in item["msg"]) is debug
    assert "boards/<int:pk>/" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert (await handshake_refusal(app, "/bords/7/", scope={"extensions": {}})).code == 1008


async def test_a_disconnected_peer_gets_no_answer_for_an_unknown_path() -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(message: Any) -> None:
        sent.append(message)

    await WSAction([])({"type": "websocket", "path": "/x", "headers": []}, receive, send)
    assert sent == []


async def test_views_may_be_any_asgi_app() -> None:
    async def other_app(scope: Any, receive: Any, send: Any) -> None:
        ws = WebSocket(scope, receive, send)
        await ws.accept()
        await ws.send_json(scope["url_route"]["kwargs"])
        await ws.close(4000)

    app = WSAction([path("own/<int:n>/", other_app), path("ws/", Show.as_asgi())])
    async with connect(app, "/own/7/") as ws:
        assert await ws.receive_json() == {"n": 7}
        assert await ws.wait_closed() == (4000, "")


async def test_invalid_patterns_are_refused_when_declared() -> None:
    with pytest.raises(ImproperlyConfigured):
        WSAction([path("<int:a>/<int:a>/", Show.as_asgi())])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"allowed_origins": ["https://a.example/path"]}, "expected .* in allowed_origins"),
        (
            {"layer": "redis://localhost"},
            r"layer=\.\.\.\): expected an object like RedisLayer.*got 'redis://localhost'",
        ),
        ({"limits": {"max_threads": 4}}, r"limits=\.\.\.\): expected an object like Limits\(\)"),
        ({"limits": Limits}, r"limits=\.\.\.\): expected an object like Limits\(\)"),
        ({"hooks": [Hooks]}, "hooks: expected a list of instances"),
        ({"hooks": Hooks()}, "hooks: expected a list of instances"),
        ({"middleware": print}, "middleware: expected a list of functions"),
        ({"authentication_classes": BearerAuthentication}, "authentication_classes: expected a list"),
        ({"authentication_classes": "token"}, "authentication_classes: expected a list"),
    ],
    ids=lambda given: "-".join(given) if isinstance(given, dict) else "",
)
def test_invalid_settings_are_refused_when_declared(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        WSAction([], **settings)


async def test_http_requests_get_a_426_on_every_path() -> None:
    app = WSAction([path("ws/", Show.as_asgi())])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
        for url in ("/", "/ws/", "/elsewhere"):
            response = await client.get(url)
            assert response.status_code == 426
            assert response.headers["upgrade"] == "websocket"


# ------------------------------------------------------------------------------------------------ root paths


@pytest.mark.parametrize(
    ("root", "url", "room"),
    [
        ("", "/rooms/a/", "a"),
        ("/api", "/api/rooms/a/", "a"),
        ("/api", "/rooms/a/", "a"),  # a proxy removed the root path
        ("/roo", "/rooms/a/", "a"),  # not a whole segment
        ("/rooms/a", "/rooms/a", None),
        ("/rooms/a", "/rooms/a/", None),
    ],
)
async def test_the_root_path_is_not_part_of_the_route(root: str, url: str, room: str | None) -> None:
    app = WSAction([path("rooms/<room>/", Show.as_asgi()), path("", Show.as_asgi())])
    data = await ask(app, url, "where", scope={"root_path": root})
    assert data["kwargs"] == ({} if room is None else {"room": room})


async def test_the_host_header_does_not_affect_routing() -> None:
    app = WSAction([path("rooms/<room>/", Show.as_asgi())])
    assert await ask(app, "/rooms/a/", "captured", headers={"host": "evil.example/api"}) == "a"


# ------------------------------------------------------------------------------------------------ embedding


def rooms() -> WSAction:
    return WSAction([path("rooms/<room>/", Show.as_asgi())])


def in_fastapi(app: WSAction) -> FastAPI:
    api = FastAPI()
    api.mount("/sub", app)
    return api


EMBEDDINGS: dict[str, tuple[Callable[[], Any], str]] = {
    "itself": (rooms, "/rooms/blue/"),
    "Mount": (lambda: Starlette(routes=[Mount("/sub", rooms())]), "/sub/rooms/blue/"),
    "Mount with a parameter": (lambda: Starlette(routes=[Mount("/{tenant}", rooms())]), "/sub/rooms/blue/"),
    "Mounts": (lambda: Starlette(routes=[Mount("/a", routes=[Mount("/sub", rooms())])]), "/a/sub/rooms/blue/"),
    "Mount at the root": (lambda: Starlette(routes=[Mount("/", rooms())]), "/rooms/blue/"),
    "WebSocketRoute of the app": (
        lambda: Starlette(routes=[WebSocketRoute("/rooms/{anything}/", rooms())]),
        "/rooms/blue/",
    ),
    "WebSocketRoute": (lambda: Starlette(routes=[WebSocketRoute("/ws/{room}", Show.as_asgi())]), "/ws/blue"),
    "FastAPI": (lambda: in_fastapi(rooms()), "/sub/rooms/blue/"),
}


@pytest.mark.parametrize("name", EMBEDDINGS)
async def test_embedded_in_other_apps(name: str) -> None:
    make, url = EMBEDDINGS[name]
    app = make()
    async with connect(app, url) as ws:
        assert (await ws.call("captured"))["data"] == "blue"
        assert (await ws.call("where", "items/3/"))["data"]["kwargs"].items() >= {"room": "blue", "pk": 3}.items()
    async with connect(app, url, scope={"root_path": "/root", "path": f"/root{url}"}) as ws:
        assert (await ws.call("captured"))["data"] == "blue"


@pytest.mark.parametrize("name", EMBEDDINGS)
@pytest.mark.parametrize("root", ["", "/root"])
async def test_embedded_under_uvicorn(name: str, root: str, serve: Any) -> None:
    make, url = EMBEDDINGS[name]
    server = serve(make(), root_path=root)
    async with server.connect(url, subprotocols=["wsaction.v1"], open_timeout=WAIT) as ws:
        await ws.send('{"action":"captured","request_id":1}')
        async with asyncio.timeout(WAIT):
            assert json.loads(await ws.recv())["data"] == "blue"


async def test_refusals_under_uvicorn(serve: Any) -> None:
    class Refusing(AsyncAPIConsumer):
        async def connect(self) -> None:
            raise NotFound("No such room.")

    server = serve(WSAction([path("ws/", Refusing.as_asgi())]))
    for url, kind in (("/ws/", "not_found"), ("/elsewhere", "route_not_found")):
        with pytest.raises(InvalidStatus) as caught:
            async with server.connect(url, open_timeout=WAIT):
                pass
        assert caught.value.response.status_code == 404
        assert json.loads(caught.value.response.body or b"")["errors"][0]["type"] == kind


async def test_http_under_uvicorn(serve: Any) -> None:
    server = serve(rooms())
    async with httpx.AsyncClient(timeout=WAIT, trust_env=False) as client:
        for _ in range(2):
            response = await client.get(server.url("/rooms/a/", "http"))
            assert response.status_code == 426
            assert "WebSocket" in response.text


class Tokens(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        name = conn.query_params.get("name")
        return None if name is None else (AuthCredentials(["authenticated"]), SimpleUser(name))


def sign_in(request: Request) -> PlainTextResponse:
    request.session["name"] = "ada"
    return PlainTextResponse("in")


async def test_starlettes_authentication_and_sessions() -> None:
    app = Starlette(
        routes=[Route("/in", sign_in), Mount("/sub", rooms())],
        middleware=[
            Middleware(SessionMiddleware, secret_key="secret"),
            Middleware(AuthenticationMiddleware, backend=Tokens()),
        ],
    )
    url = "/sub/rooms/blue/"
    assert await ask(app, url, "who") == {"user": "", "scopes": [], "session": {}}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
        cookie = (await client.get("/in")).headers["set-cookie"].partition(";")[0]
    assert await ask(app, f"{url}?name=grace", "who", headers={"cookie": cookie}) == {
        "user": "grace",
        "scopes": ["authenticated"],
        "session": {"name": "ada"},
    }


# ------------------------------------------------------------------------------------------------ lifespan


class CountingLifespan:
    """A lifespan that counts its runs; it fails with ``error`` and waits for ``gate``, if they are set."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.apps: list[Any] = []
        self.error: BaseException | None = None
        self.gate: asyncio.Event | None = None
        self.has_started = asyncio.Event()
        self.ended = threading.Event()

    @contextlib.asynccontextmanager
    async def __call__(self, app: WSAction) -> AsyncIterator[dict[str, Any]]:
        self.events.append("starting")
        self.apps.append(app)
        self.has_started.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        try:
            yield {"number": len(self.apps)}
        finally:
            await asyncio.sleep(0)
            self.events.append("ended")
            self.ended.set()


def app_with_lifespan() -> tuple[WSAction, CountingLifespan]:
    lifespan = CountingLifespan()
    return WSAction([path("rooms/<room>/", Show.as_asgi())], lifespan=lifespan), lifespan


def test_without_a_server_the_lifespan_ends_with_the_loop() -> None:
    app, lifespan = app_with_lifespan()

    async def main() -> None:
        lifespan.gate = asyncio.Event()

        async def state() -> Any:
            return await ask(app, "/rooms/a/", "state")

        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(state()) for _ in range(5)]
            await lifespan.has_started.wait()
            lifespan.gate.set()
        assert [task.result() for task in calls] == [{"number": 1}] * 5
        assert await state() == {"number": 1}
        assert lifespan.events == ["starting"]

    asyncio.run(asyncio.wait_for(main(), WAIT))
    assert lifespan.events == ["starting", "ended"]
    assert lifespan.apps == [app]


def test_open_connections_are_disconnected_when_the_loop_ends() -> None:
    app, lifespan = app_with_lifespan()

    class Noting(Show):
        async def disconnect(self, code: int) -> None:
            lifespan.events.append("disconnect")

    app = WSAction([path("", Noting.as_asgi())], lifespan=lifespan)

    async def main() -> None:
        session = connect(app, "/")
        ws: WebSocketSession = await session.__aenter__()
        await ws.call("state")

    asyncio.run(asyncio.wait_for(main(), WAIT))
    gc.collect()
    assert sorted(lifespan.events) == ["disconnect", "ended", "starting"]


def test_one_app_on_two_loops_in_turn() -> None:
    app, lifespan = app_with_lifespan()

    async def main(number: int) -> None:
        for _ in range(2):
            assert await ask(app, "/rooms/a/", "state") == {"number": number}

    for number in (1, 2):
        asyncio.run(asyncio.wait_for(main(number), WAIT))
    assert lifespan.events == ["starting", "ended"] * 2


async def test_a_server_may_run_an_app_that_another_loop_started(serve: Any) -> None:
    app, lifespan = app_with_lifespan()
    await asyncio.to_thread(asyncio.run, ask(app, "/rooms/a/", "state"))
    assert lifespan.events == ["starting", "ended"]
    server = serve(app)
    for _ in range(2):
        async with server.connect("/rooms/a/", open_timeout=WAIT) as ws:
            await ws.send('{"action":"state"}')
            async with asyncio.timeout(WAIT):
                assert json.loads(await ws.recv())["data"] == {"number": 2}
    assert lifespan.events == ["starting", "ended", "starting"]


def test_a_stopped_loop_does_not_affect_another_loop() -> None:
    app, lifespan = app_with_lifespan()
    dropped = asyncio.new_event_loop()

    def end_dropped() -> None:
        for task in asyncio.all_tasks(dropped):
            task.cancel()
            dropped.run_until_complete(asyncio.wait({task}, timeout=WAIT))
        dropped.close()

    async def main() -> None:
        assert await ask(app, "/rooms/a/", "state") == {"number": 2}
        await asyncio.to_thread(end_dropped)  # its lifespan ends while the one of this loop goes on
        assert lifespan.events == ["starting", "starting", "ended"]
        assert await ask(app, "/rooms/a/", "state") == {"number": 2}

    assert dropped.run_until_complete(ask(app, "/rooms/a/", "state")) == {"number": 1}
    asyncio.run(asyncio.wait_for(main(), WAIT))
    assert lifespan.events == ["starting", "starting", "ended", "ended"]


async def test_a_cancelled_lifespan_starts_again() -> None:
    app, lifespan = app_with_lifespan()
    for number in (1, 2):
        assert await ask(app, "/rooms/a/", "state") == {"number": number}
        await end_lifespan(app)
        assert lifespan.events == ["starting", "ended"] * number


async def test_ending_one_lifespan_leaves_that_of_another_loop_alone() -> None:
    app, lifespan = app_with_lifespan()
    other = asyncio.new_event_loop()
    other_lifespan = app.lifespan()
    await asyncio.to_thread(other.run_until_complete, other_lifespan.__aenter__())
    async with app.lifespan() as state:
        await asyncio.to_thread(other.run_until_complete, other_lifespan.__aexit__(None, None, None))
        assert await ask(app, "/rooms/a/", "state", scope={"state": dict(state)}) == {"number": 2}
    other.close()
    assert lifespan.events == ["starting", "starting", "ended", "ended"]


@pytest.mark.parametrize("error", [ZeroDivisionError("a secret"), asyncio.CancelledError()])
@pytest.mark.parametrize("debug", [False, True])
async def test_a_failing_lifespan_is_a_500_and_is_retried(
    error: BaseException, debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    lifespan = CountingLifespan()
    app = WSAction([path("rooms/<room>/", Show.as_asgi())], lifespan=lifespan, debug=debug)
    lifespan.error, lifespan.gate = error, asyncio.Event()
    async with asyncio.TaskGroup() as group:
        failing = [group.create_task(handshake_refusal(app, "/rooms/a/")) for _ in range(3)]
        await lifespan.has_started.wait()
        lifespan.gate.set()
    for task in failing:
        assert task.result().status == 500
        assert (b"traceback" in task.result().body) is debug
    assert lifespan.events == ["starting"]
    assert "the connection to /rooms/a/ failed" in caplog.text
    lifespan.error = None
    assert await ask(app, "/rooms/a/", "state") == {"number": 2}
    await end_lifespan(app)
    assert lifespan.events == ["starting", "starting", "ended"]


def lifespans_without_server() -> set[asyncio.Task[None]]:
    """The tasks of lifespans on this loop that no server runs."""
    return {task for task in lifespans._running if task.get_loop() is asyncio.get_running_loop()}


async def end_lifespan(app: WSAction) -> asyncio.Task[None]:
    """Ends the lifespan that the app runs without a server, as the end of the loop does."""
    (task,) = lifespans_without_server()
    task.cancel()
    await asyncio.wait({task}, timeout=WAIT)
    return task


async def test_an_abandoned_first_connection_does_not_stop_startup() -> None:
    app, lifespan = app_with_lifespan()
    lifespan.gate = asyncio.Event()
    task = asyncio.create_task(ask(app, "/rooms/a/", "state", timeout=0.05))
    await lifespan.has_started.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=WAIT)
    lifespan.gate.set()
    assert await ask(app, "/rooms/a/", "state") == {"number": 1}
    assert lifespan.events == ["starting"]
    await end_lifespan(app)


async def test_a_failing_lifespan_shutdown_is_not_silent() -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: WSAction) -> AsyncIterator[None]:
        try:
            yield None
        finally:
            raise ZeroDivisionError

    app = WSAction([path("rooms/<room>/", Show.as_asgi())], lifespan=lifespan)
    assert await ask(app, "/rooms/a/", "state") == {}
    assert isinstance((await end_lifespan(app)).exception(), ZeroDivisionError)


async def test_the_lifespan_composes_with_that_of_an_outer_app() -> None:
    app, lifespan = app_with_lifespan()
    around = Starlette(routes=[Mount("/sub", app)], lifespan=app.lifespan)
    for number in (1, 2):
        async with around.router.lifespan_context(around) as state:
            assert state == {"number": number}
            for _ in range(2):
                # a server copies the state of the lifespan into each scope
                data = await ask(around, "/sub/rooms/a/", "state", scope={"state": dict(state)})
                assert data == {"number": number}
        assert lifespan.events == ["starting", "ended"] * number
    assert not lifespans_without_server()


async def test_mounted_in_an_app_that_does_not_run_its_lifespan() -> None:
    app, lifespan = app_with_lifespan()
    around = Starlette(routes=[Mount("/sub", app)])
    async with around.router.lifespan_context(around):
        for _ in range(2):
            assert await ask(around, "/sub/rooms/a/", "state") == {"number": 1}
    assert lifespan.events == ["starting"]
    await end_lifespan(app)
    assert lifespan.events == ["starting", "ended"]


@pytest.mark.parametrize("composed", [False, True])
async def test_run_by_uvicorn(serve: Any, composed: bool) -> None:
    app, lifespan = app_with_lifespan()
    url = "/sub/rooms/a/" if composed else "/rooms/a/"
    server = serve(Starlette(routes=[Mount("/sub", app)], lifespan=app.lifespan) if composed else app, lifespan="on")
    assert lifespan.events == ["starting"]
    for _ in range(2):
        async with server.connect(url, open_timeout=WAIT) as ws:
            await ws.send('{"action":"state"}')
            async with asyncio.timeout(WAIT):
                assert json.loads(await ws.recv())["data"] == {"number": 1}
    assert lifespan.events == ["starting"]
    server.should_exit = True
    assert await asyncio.to_thread(lifespan.ended.wait, WAIT)
    assert lifespan.events == ["starting", "ended"]


@pytest.mark.parametrize("scope", [{"type": "lifespan"}, {"type": "lifespan", "state": {}}])
async def test_a_lifespan_without_state_runs_on_any_server(scope: dict[str, Any]) -> None:
    sent: list[Any] = []
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await rooms()(scope, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert scope.get("state", {}) == {}


# ------------------------------------------------------------------------------------------------ origins
ORIGINS: dict[str | None, list[str]] = {  # the paths that each origin may connect to
    None: ["/one/", "/two/", "/any/"],
    "http://127.0.0.1:{port}": ["/one/", "/two/", "/any/", "/browsers/"],  # same origin
    "https://one.example": ["/one/", "/any/"],
    "https://two.example": ["/two/", "/any/"],
    "https://a.two.example": ["/any/", "/browsers/"],
    "https://one.example:444": ["/any/"],
    "https://one.example.evil.example": ["/any/"],
    "http://127.0.0.1:1": ["/any/"],
    "null": ["/any/"],
}


@pytest.mark.parametrize("origin", ORIGINS)
async def test_apps_never_share_an_origin_policy(serve: Callable[..., Any], origin: str | None) -> None:
    """All apps serve the same view, in one process."""
    view = Show.as_asgi()
    policies: dict[str, dict[str, Any]] = {
        "/one/": {"allowed_origins": ["https://one.example"]},
        "/two/": {"allowed_origins": ["https://two.example"]},
        "/any/": {"allowed_origins": ["*"]},
        "/browsers/": {"allowed_origins": ["https://*.two.example"], "require_origin": True},
    }
    routes = [Mount(at[:-1], WSAction([path("", view)], **options)) for at, options in policies.items()]
    server = serve(Starlette(routes=routes))
    headers = {} if origin is None else {"Origin": origin.format(port=server.port)}
    statuses = []
    for at in (*policies, *policies):
        try:
            async with server.connect(at, additional_headers=headers):
                statuses.append(101)
        except InvalidStatus as refusal:
            statuses.append(refusal.response.status_code)
    assert statuses == [101 if at in ORIGINS[origin] else 403 for at in policies] * 2
