"""The life of a connection around its frames: handshake, hooks, refusals, HTTP requests and lifespan."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.dialects.base import SUBPROTOCOL
from wsaction.exceptions import APIError, NotAuthenticated, NotFound, PermissionDenied
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.permissions import AllowAny, BasePermission, DenyAll, IsAuthenticated
from wsaction.routing import path
from wsaction.testing import HandshakeRefused, connect
from wsaction.testing._scope import websocket_scope

WAIT = 5.0  # seconds that a test waits at most
NO_EXTENSION: dict[str, Any] = {"extensions": {}}

Hook = Callable[["Hooked"], Awaitable[None]]


class Hooked(AsyncAPIConsumer):
    """A consumer with the hooks that the test passes. It records the codes that `disconnect` gets."""

    on_connect: Any = None
    on_disconnect: Any = None
    codes: list[int] | None = None
    limits = Limits(drain_timeout=0.1)

    async def connect(self) -> None:
        if self.on_connect is not None:
            await self.on_connect(self)

    async def disconnect(self, code: int) -> None:
        if self.codes is not None:
            self.codes.append(code)
        if self.on_disconnect is not None:
            await self.on_disconnect(self)

    @async_action
    async def echo(self, data: Any = None) -> Any:
        return data

    @async_action
    async def leave(self, data: int) -> None:
        await self.close(data, "as you wish")


def logged(caplog: pytest.LogCaptureFixture, level: int = logging.ERROR) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


def cause(caplog: pytest.LogCaptureFixture) -> BaseException | None:
    """The exception of the last log record."""
    info = caplog.records[-1].exc_info
    return info[1] if info else None


async def refusal(app: Any, where: str = "/", **options: Any) -> HandshakeRefused:
    with pytest.raises(HandshakeRefused) as caught:
        async with connect(app, where, **options):
            raise AssertionError("it was accepted")
    return caught.value


def type_of(refused: HandshakeRefused) -> str:
    assert refused.headers["content-type"] == "application/json"
    assert refused.headers["content-length"] == str(len(refused.body))
    (error,) = json.loads(refused.body)["errors"]
    return str(error["type"])


class Script:
    """A scripted server: the messages that the app receives in order, and those that it sends."""

    def __init__(self, *messages: dict[str, Any], fails_at: str | None = None, error: Exception | None = None) -> None:
        self.messages, self.fails_at, self.error = list(messages), fails_at, error
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        if not self.messages:
            await asyncio.get_running_loop().create_future()
        return self.messages.pop(0)

    async def send(self, message: Any) -> None:
        if self.fails_at is not None and message["type"].startswith(self.fails_at):
            raise self.error or OSError("gone")
        self.sent.append(message)

    async def run(self, app: Any, scope: dict[str, Any]) -> list[str]:
        async with asyncio.timeout(WAIT):
            await app(scope, self.receive, self.send)
        return [message["type"] for message in self.sent]


# ------------------------------------------------------------------------------------------------ sub-protocol


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([], None),
        ([SUBPROTOCOL], SUBPROTOCOL),
        (["graphql-ws", SUBPROTOCOL], SUBPROTOCOL),
        (["graphql-ws", "wsaction.v2", "WSACTION.V1"], None),
    ],
)
async def test_the_subprotocol_is_echoed_if_it_was_offered(offered: list[str], chosen: str | None) -> None:
    async with connect(Hooked.as_asgi(), subprotocols=offered) as ws:
        assert ws.subprotocol == chosen
        assert (await ws.call("echo", data=1))["data"] == 1


# ------------------------------------------------------------------------------------------------ Origin


@pytest.mark.parametrize("origin", [None, "http://testserver", "https://testserver"])
async def test_the_same_origin_and_clients_without_origin_may_connect(origin: str | None) -> None:
    async with connect(Hooked.as_asgi(), origin=origin):
        pass


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://testserver:8000"])
@pytest.mark.parametrize("debug", [False, True])
async def test_a_foreign_origin_is_refused_before_any_hook(
    origin: str, debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    codes: list[int] = []
    asked: list[Any] = []

    async def on_connect(consumer: Hooked) -> None:
        asked.append(consumer)

    app = WSAction([path("", Hooked.as_asgi(codes=codes, on_connect=on_connect))], debug=debug)
    refused = await refusal(app, origin=origin)
    assert refused.status == 403
    assert type_of(refused) == "permission_denied"
    assert (repr(origin) in refused.body.decode()) is debug
    assert repr(origin) in logged(caplog, logging.WARNING)[0]
    assert codes == asked == []
    assert (await refusal(app, origin=origin, scope=NO_EXTENSION)).code == 4403


async def test_allowed_origins_and_require_origin() -> None:
    app = WSAction([path("", Hooked.as_asgi())], allowed_origins=["https://*.example.com"], require_origin=True)
    async with connect(app, origin="https://a.example.com"):
        pass
    assert (await refusal(app)).status == 403
    assert (await refusal(app, origin="https://example.com")).status == 403


# ------------------------------------------------------------------------------------------------ can_connect


class SyncYes(BasePermission):
    def can_connect(self, scope: Any, consumer: Any) -> bool:
        return bool(scope["query_string"] == b"yes")


class AsyncYes(BasePermission):
    async def can_connect(self, scope: Any, consumer: Any) -> bool:
        await asyncio.sleep(0)
        return bool(scope["query_string"] == b"yes")


class Told(BasePermission):
    message = "Members only."

    def can_connect(self, scope: Any, consumer: Any) -> bool:
        return isinstance(consumer, Hooked) and consumer.kwargs == {"no": "body"}


@pytest.mark.parametrize(
    ("permission", "yes", "no"),
    [
        (SyncYes, True, False),
        (AsyncYes, True, False),
        (SyncYes & AsyncYes, True, False),
        (SyncYes | AsyncYes, True, False),
        (~AsyncYes, False, True),
        (~SyncYes & ~AsyncYes, False, True),
        (SyncYes | ~AsyncYes, True, True),
        (AsyncYes & ~SyncYes, False, False),
        (AllowAny, True, True),
    ],
)
async def test_can_connect_sync_async_and_composed(permission: Any, yes: bool, no: bool) -> None:
    codes: list[int] = []
    app = Hooked.as_asgi(permission_classes=(permission,), codes=codes)
    for where, allowed in (("/?yes", yes), ("/?no", no)):
        if allowed:
            async with connect(app, where):
                pass
        else:
            refused = await refusal(app, where)
            assert (refused.status, type_of(refused)) == (403, "permission_denied")
            assert (await refusal(app, where, scope=NO_EXTENSION)).code == 4403
    assert codes == [1000] * (yes + no)


async def test_a_refusal_says_the_permissions_own_words() -> None:
    refused = await refusal(Hooked.as_asgi(permission_classes=(Told,)))
    assert json.loads(refused.body)["errors"][0]["msg"] == "Members only."


async def test_permissions_on_frames_do_not_hinder_connecting() -> None:
    async with connect(Hooked.as_asgi(permission_classes=(IsAuthenticated,))) as ws:
        assert (await ws.call("echo"))["status"] == 403
    assert (await refusal(Hooked.as_asgi(permission_classes=(DenyAll,)))).status == 403


# ------------------------------------------------------------------------------------------------ connect()


def raising(error: BaseException) -> Hook:
    async def hook(consumer: Hooked) -> None:
        raise error

    return hook


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (NotAuthenticated(), 401, "not_authenticated", 4401),
        (PermissionDenied("Not you."), 403, "permission_denied", 4403),
        (NotFound(), 404, "not_found", 1008),
        (APIError(402, "payment_required", "Pay first.", {"price": object()}), 402, "payment_required", 1008),
    ],
)
async def test_connect_refuses_with_the_status_that_it_raises(
    error: APIError, status: int, kind: str, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    codes: list[int] = []
    app = Hooked.as_asgi(on_connect=raising(error), codes=codes)
    refused = await refusal(app)
    assert (refused.status, type_of(refused)) == (status, kind)
    assert json.loads(refused.body)["errors"][0]["msg"] == error.msg
    for scope in (NO_EXTENSION, {"extensions": None}):
        refused = await refusal(app, scope=scope)
        assert (refused.status, refused.code) == (403, code)
    assert codes == []
    assert not logged(caplog)


@pytest.mark.parametrize("error", [ZeroDivisionError("a secret"), asyncio.CancelledError(), OSError("the database")])
@pytest.mark.parametrize("debug", [False, True])
async def test_connect_raising_anything_is_a_500_and_logged(
    error: BaseException, debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    codes: list[int] = []
    app = WSAction([path("", Hooked.as_asgi(on_connect=raising(error), codes=codes))], debug=debug)
    refused = await refusal(app)
    assert (refused.status, type_of(refused)) == (500, "server_error")
    ctx = json.loads(refused.body)["errors"][0]["ctx"]
    assert (ctx.get("exception") == repr(error)) is debug
    assert logged(caplog) == [f"the handshake of / failed (error_id {ctx['error_id']})"]
    assert (await refusal(app, scope=NO_EXTENSION)).code == 1008
    assert codes == []


async def test_a_get_permissions_that_fails_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Hooked):
        def get_permissions(self) -> Any:
            raise ZeroDivisionError

    assert (await refusal(Broken.as_asgi())).status == 500
    assert len(logged(caplog)) == 1


async def test_what_connect_sees_and_sets_is_the_connections() -> None:
    async def on_connect(consumer: Hooked) -> None:
        assert consumer.scope["path"] == "/a"
        assert (consumer.action, consumer.route, consumer.request_id, consumer.args) == (None, "", None, ())
        assert consumer.kwargs == {"room": "blue"}
        assert consumer.query_params["x"] == "1"
        assert consumer.user == "ada"
        consumer.connection.put('"welcome"')

    codes: list[int] = []
    app = Hooked.as_asgi(on_connect=on_connect, codes=codes)
    async with connect(app, "/a?x=1", user="ada", scope={"path_params": {"room": "blue"}}) as ws:
        assert await ws.receive_text() == '"welcome"'
    assert codes == [1000]


@pytest.mark.parametrize("code", [1008, 4401, 4403])
async def test_close_in_connect_refuses_and_disconnect_gets_the_code(code: int) -> None:
    codes: list[int] = []

    async def on_connect(consumer: Hooked) -> None:
        await consumer.close(code, "no")
        consumer.connection.put("never sent")

    app = Hooked.as_asgi(on_connect=on_connect, codes=codes)
    refused = await refusal(app)
    expected = (401, "not_authenticated") if code == 4401 else (403, "permission_denied")
    assert (refused.status, type_of(refused)) == expected
    assert json.loads(refused.body)["errors"][0]["msg"] == "no"
    assert (await refusal(app, scope=NO_EXTENSION)).code == (4401 if code == 4401 else 4403)
    assert codes == [code, code]


async def test_the_apps_task_being_cancelled_in_connect_is_no_answer() -> None:
    begun = asyncio.Event()
    codes: list[int] = []

    async def on_connect(consumer: Hooked) -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    script = Script({"type": "websocket.connect"})
    app = Hooked.as_asgi(on_connect=on_connect, codes=codes)
    task = asyncio.create_task(script.run(app, websocket_scope("/")))
    async with asyncio.timeout(WAIT):
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert script.sent == []
    assert codes == []


# ------------------------------------------------------------------------------------------------ disconnect()


@pytest.mark.parametrize("code", [1000, 1001, 1006, 4999])
async def test_disconnect_is_told_the_peers_code(code: int) -> None:
    codes: list[int] = []
    async with connect(Hooked.as_asgi(codes=codes)) as ws:
        await ws.call("echo")
        await ws.close(code)
    assert codes == [code]


async def test_disconnect_is_told_our_code() -> None:
    codes: list[int] = []
    async with connect(Hooked.as_asgi(codes=codes)) as ws:
        await ws.call("leave", data=4321)
        assert await ws.wait_closed() == (4321, "as you wish")
    assert codes == [4321]


async def test_disconnect_is_told_the_code_of_a_bound() -> None:
    codes: list[int] = []
    async with connect(Hooked.as_asgi(codes=codes)) as ws:
        await ws.send_bytes(b"x" * 65_537)
        assert (await ws.wait_closed())[0] == 1009
    assert codes == [1009]


async def test_nothing_of_the_connection_runs_when_disconnect_is_asked() -> None:
    running: list[str] = []
    begun = asyncio.Event()

    class Busy(Hooked):
        @async_action
        async def wait(self) -> None:
            running.append("action")
            begun.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                running.clear()

        async def disconnect(self, code: int) -> None:
            assert running == []
            assert (self.action, self.request_id) == (None, None)
            running.append("disconnected")

    async with connect(Busy.as_asgi()) as ws:
        await ws.send_json({"action": "wait", "request_id": 1})
        async with asyncio.timeout(WAIT):
            await begun.wait()
    assert running == ["disconnected"]


async def test_disconnect_has_drain_timeout_and_then_is_let_go(caplog: pytest.LogCaptureFixture) -> None:
    async def hangs(consumer: Hooked) -> None:
        await asyncio.get_running_loop().create_future()

    codes: list[int] = []
    async with connect(Hooked.as_asgi(on_disconnect=hangs, codes=codes)):
        pass
    assert codes == [1000]
    assert logged(caplog) == ["Hooked.disconnect(1000) took too long; drain_timeout is 0.1 s"]
    assert isinstance(cause(caplog), TimeoutError)


@pytest.mark.parametrize("error", [ZeroDivisionError(), APIError(403, "no", "No."), asyncio.CancelledError()])
async def test_what_disconnect_raises_is_logged(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    async with connect(Hooked.as_asgi(on_disconnect=raising(error))):
        pass
    assert logged(caplog) == ["Hooked.disconnect(1000) failed"]
    assert cause(caplog) is error


async def test_disconnect_is_asked_when_the_apps_task_is_cancelled() -> None:
    codes: list[int] = []
    script = Script({"type": "websocket.connect"})
    accepted = asyncio.Event()

    async def send(message: Any) -> None:
        accepted.set()

    task = asyncio.create_task(Hooked.as_asgi(codes=codes)(websocket_scope("/"), script.receive, send))
    async with asyncio.timeout(WAIT):
        await accepted.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert codes == [1012]  # the code of the close frame


async def test_a_cancelled_disconnect_is_cancelled() -> None:
    begun = asyncio.Event()

    async def hangs(consumer: Hooked) -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    class Patient(Hooked):
        limits = Limits(drain_timeout=60)

    script = Script({"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001})
    app = Patient.as_asgi(on_disconnect=hangs)
    task = asyncio.create_task(script.run(app, websocket_scope("/")))
    async with asyncio.timeout(WAIT):
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# ------------------------------------------------------------------------------------------------ a peer that is gone


async def test_a_peer_that_is_gone_before_it_asks_gets_no_answer() -> None:
    codes: list[int] = []
    script = Script({"type": "websocket.disconnect", "code": 1006})
    assert await script.run(Hooked.as_asgi(codes=codes), websocket_scope("/")) == []
    assert codes == []


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("too late")])
async def test_a_peer_that_is_gone_before_it_is_accepted(error: Exception) -> None:
    codes: list[int] = []
    script = Script({"type": "websocket.connect"}, fails_at="websocket.accept", error=error)
    assert await script.run(Hooked.as_asgi(codes=codes), websocket_scope("/")) == []
    assert codes == [1006]  # connect() had returned before


@pytest.mark.parametrize("fails_at", ["websocket.http.response.start", "websocket.http.response.body"])
async def test_a_peer_that_is_gone_before_it_is_refused(fails_at: str) -> None:
    script = Script({"type": "websocket.connect"}, fails_at=fails_at)
    sent = await script.run(Hooked.as_asgi(permission_classes=(SyncYes,)), websocket_scope("/"))
    assert len(sent) == fails_at.endswith("body")


async def test_a_peer_that_leaves_while_connect_runs() -> None:
    codes: list[int] = []
    script = Script({"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001})
    assert await script.run(Hooked.as_asgi(codes=codes), websocket_scope("/")) == ["websocket.accept"]
    assert codes == [1001]


# ------------------------------------------------------------------------------------------------ what is no WebSocket


@pytest.mark.parametrize("app", [Hooked.as_asgi(), WSAction([path("x", Hooked.as_asgi())])], ids=["consumer", "app"])
async def test_http_is_told_to_upgrade(app: Any) -> None:
    script = Script({"type": "http.request"})
    assert await script.run(app, {"type": "http", "path": "/"}) == ["http.response.start", "http.response.body"]
    start, body = script.sent
    assert start["status"] == 426
    headers = dict(start["headers"])
    assert headers[b"upgrade"] == b"websocket"
    assert headers[b"content-length"] == str(len(body["body"])).encode()


async def test_a_bare_consumer_answers_lifespan_events() -> None:
    script = Script({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    sent = await script.run(Hooked.as_asgi(), {"type": "lifespan"})
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# ------------------------------------------------------------------------------------------------ a handler alone


class Greeter(AsyncAPIActionHandler):
    greeting = "hello"
    ends: list[int] = []

    @async_action
    async def greet(self, name: str) -> str:
        return f"{self.greeting} {name}"

    @async_action
    async def leave(self) -> None:
        await self.close(4000)

    async def disconnect(self, code: int) -> None:
        self.ends.append(code)


async def test_a_handler_served_alone() -> None:
    ends: list[int] = []
    async with connect(Greeter.as_aaah(greeting="good day", ends=ends)) as ws:
        assert await ws.call("greet", name="Ada", request_id=1) == {
            "errors": [],
            "data": "good day Ada",
            "action": "greet",
            "route": "",
            "status": 200,
            "request_id": 1,
        }
        assert (await ws.call("greet", "elsewhere"))["status"] == 404
        await ws.call("leave")
        assert (await ws.wait_closed())[0] == 4000
    assert ends == [4000]


async def test_the_limits_of_a_consumer_go_before_those_of_the_app() -> None:
    class Small(Hooked):
        limits = Limits(max_frame_bytes=100)

    async with connect(WSAction([path("", Small.as_asgi())], limits=Limits(max_frame_bytes=200))) as ws:
        await ws.send_text("x" * 101)
        assert await ws.wait_closed() == (1009, "a frame of 101 bytes; max_frame_bytes is 100")
