"""In debug mode, the log warns once about each action or hook that blocks the event loop, and says where it stood."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Annotated, Any

import pytest

from wsaction.applications import WSAction
from wsaction.authentication import BearerAuthentication, Credential
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.dependencies import Depends
from wsaction.permissions import BasePermission
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import connect

pytestmark = pytest.mark.anyio
LONG = 0.03  # seconds: three times the slow_callback_duration that `call_actions` sets
WAITING = 0.3  # seconds: 1.5 times the limit of the test below, as a busy machine may delay any callback


def block() -> None:
    time.sleep(LONG)  # blocks the event loop on purpose


async def slow() -> None:
    block()


class Root(AsyncAPIConsumer):
    @async_action
    async def at_first(self) -> None:
        block()

    @async_action
    async def after_waiting(self) -> None:
        await asyncio.sleep(0)
        block()

    @async_action
    async def of_a_stream(self) -> AsyncIterator[int]:
        yield 1
        block()

    @async_action
    async def of_a_dependency(self, nothing: Annotated[None, Depends(slow)]) -> None: ...

    @async_action
    async def failing(self) -> None:
        block()
        raise ValueError

    @async_action
    def in_a_thread(self) -> None:
        time.sleep(WAITING)

    @async_action
    async def awaiting(self) -> None:
        await asyncio.sleep(WAITING)

    @async_action
    async def quick(self) -> None: ...


BLOCKING = ["at_first", "after_waiting", "of_a_stream", "of_a_dependency", "failing"]


@pytest.fixture
def logged_warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    return lambda: [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


async def call_actions(app: WSAction, *actions: str, too_long: float = LONG / 3) -> None:
    asyncio.get_running_loop().slow_callback_duration = too_long
    async with connect(app, "/ws/") as ws:
        for name in actions:
            assert (await ws.call(name))["status"] in (200, 500)


@pytest.mark.parametrize("action", BLOCKING)
async def test_a_blocking_action_is_logged_once(action: str, logged_warnings: Any) -> None:
    app = WSAction([path("ws/", Root.as_asgi())], debug=True)
    await call_actions(app, action, action)
    await call_actions(app, action)  # on another connection
    [warning] = [text for text in logged_warnings() if text.startswith("the action")]  # a busy machine delays more
    assert f"Root.{action} blocked the event loop" in warning
    assert "plain def" in warning  # the cure


async def test_awaiting_or_threaded_actions_are_not_logged(logged_warnings: Any) -> None:
    app = WSAction([path("ws/", Root.as_asgi())], debug=True)
    await call_actions(app, "in_a_thread", "awaiting", "quick", too_long=WAITING / 1.5)
    assert [text for text in logged_warnings() if "in_a_thread" in text or "awaiting" in text] == []


async def test_without_debug_nothing_is_logged(logged_warnings: Any) -> None:
    await call_actions(WSAction([path("ws/", Root.as_asgi())]), "at_first")
    assert logged_warnings() == []


async def test_an_action_can_be_cancelled_in_debug_mode() -> None:
    ended = asyncio.Event()

    class Waiting(AsyncAPIConsumer):
        @async_action
        async def wait(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    async with connect(WSAction([path("ws/", Waiting.as_asgi())], debug=True), "/ws/") as ws:
        await ws.send_json({"action": "wait", "request_id": 1})
        await ws.send_json({"action": "$cancel", "data": 1, "request_id": 2})
        replies = {reply["request_id"]: reply["status"] for reply in [await ws.receive_json(), await ws.receive_json()]}
    assert replies == {1: 499, 2: 200}
    assert ended.is_set()


# ------------------------------------------------------------------------------------------------ where it stood
def read_a_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, suppress(TimeoutError):
        ours.settimeout(WAITING)
        ours.recv(1)  # as an HTTP client without async does


def compute() -> None:
    until = time.perf_counter() + WAITING
    while time.perf_counter() < until:
        pass


def sleep() -> None:
    time.sleep(WAITING)


class Slowly(BasePermission):
    def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
        sleep()
        return True


class Tokens(BearerAuthentication):
    async def verify(self, token: str) -> Credential | None:
        sleep()
        return Credential("me")


async def slowly(handler: Any, call_next: Any) -> Any:
    sleep()
    return await call_next(handler)


async def dependency() -> None:
    sleep()


class Standing(SubscribeMixin, AsyncAPIConsumer):
    @async_action
    async def sleeping(self) -> None:
        sleep()

    @async_action
    async def reading(self) -> None:
        read_a_socket()

    @async_action
    async def computing(self) -> None:
        await asyncio.sleep(0)
        compute()

    @async_action(permission_classes=(Slowly,))
    async def permitted(self) -> None: ...

    @async_action
    async def depending(self, nothing: Annotated[None, Depends(dependency)]) -> None: ...

    @async_action(mode="broadcast", broadcast_type="told.all")
    async def telling(self) -> None: ...

    async def told_all(self, event: dict[str, Any]) -> None:
        sleep()
        await self.push("told")


class Connecting(AsyncAPIConsumer):
    async def connect(self) -> None:
        sleep()


class Leaving(AsyncAPIConsumer):
    async def disconnect(self, code: int) -> None:
        sleep()


WHERE: dict[str, tuple[Any, str, str]] = {
    "sleeping": (Standing, "the action Standing.sleeping", "in sleep: time.sleep(WAITING)"),
    "reading": (Standing, "the action Standing.reading", "in read_a_socket: ours.recv(1)"),
    "computing": (Standing, "the action Standing.computing", "in compute: "),
    "permitted": (Standing, "the action Standing.permitted", "in sleep: time.sleep(WAITING)"),
    "depending": (Standing, "the action Standing.depending", "in sleep: time.sleep(WAITING)"),
    "telling": (Standing, "Standing.told.all", "in sleep: time.sleep(WAITING)"),
    "$auth": (Standing, "$auth", "in sleep: time.sleep(WAITING)"),
    "connect": (Connecting, "the handshake of Connecting", "in sleep: time.sleep(WAITING)"),
    "disconnect": (Leaving, "Leaving.disconnect()", "in sleep: time.sleep(WAITING)"),
}


@pytest.mark.parametrize("name", WHERE)
async def test_it_is_logged_where_it_stood(name: str, logged_warnings: Any) -> None:
    root, named, place = WHERE[name]
    app = WSAction([path("ws/", root.as_asgi())], debug=True, authentication_classes=[Tokens])
    async with connect(app, "/ws/") as ws:
        if name in root.available_actions:
            assert (await ws.call(name))["status"] == 200
        if name == "$auth":
            assert (await ws.call("$auth", data="token"))["status"] == 200
        if name == "telling":
            await ws.receive_json()
    [warning] = [text for text in logged_warnings() if text.startswith(named)]
    assert f"{named} blocked the event loop" in warning
    assert place in warning
    assert __file__ in warning


async def test_middleware_is_logged_with_the_action_and_its_own_line(logged_warnings: Any) -> None:
    class Quick(AsyncAPIConsumer):
        @async_action
        async def act(self) -> None: ...

    async with connect(WSAction([path("ws/", Quick.as_asgi())], debug=True, middleware=[slowly]), "/ws/") as ws:
        await ws.call("act")
    [warning] = [text for text in logged_warnings() if text.startswith("the action")]
    assert "the action Quick.act blocked the event loop" in warning
    assert "in sleep: time.sleep(WAITING)" in warning


class Rechecked(SubscribeMixin, AsyncAPIConsumer):
    recheck = True
    permission_classes = (Slowly,)

    @async_action(permission_classes=())
    async def tell(self) -> None:
        await self.publish("told")


async def test_permissions_that_are_asked_for_events_are_logged(logged_warnings: Any) -> None:
    async with connect(WSAction([path("ws/", Rechecked.as_asgi())], debug=True), "/ws/") as ws:
        await ws.call("subscribe")
        await ws.call("tell")
        assert (await ws.receive_json())["event"] == "told"
    [warning] = [text for text in logged_warnings() if "events of Rechecked" in text]
    assert "in sleep: time.sleep(WAITING)" in warning
