"""The timeouts of `Limits`: for actions, sends, handshakes and idle connections."""

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.driving import talking
from tests.support.virtual_time import anyio_backend, block  # noqa: F401  # the fixture
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured
from wsaction.hooks import Hooks
from wsaction.limits import Limits
from wsaction.permissions import BasePermission
from wsaction.routing import path
from wsaction.testing import ConnectionClosed, HandshakeRefused, connect

QUICK = Limits(action_timeout=0.05, send_timeout=60, idle_timeout=60, drain_timeout=1)
NEVER_ENDS = WAIT = 60.0


class Slow(AsyncAPIConsumer):
    """Actions that end only when the test lets them, and a record of how they ended."""

    seen: list[str] = []

    @async_action
    async def hang(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.seen.append("hang ended")

    @async_action(timeout=NEVER_ENDS)
    async def patient(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    @async_action(timeout=math.inf)
    async def endless(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    @async_action(timeout=0.02)
    async def hasty(self) -> None:
        await asyncio.get_running_loop().create_future()

    @async_action
    async def swallow(self) -> str:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.seen.append("swallowed")
        return "as if nothing had happened"

    @async_action
    async def stubborn(self) -> str:
        while "let go" not in self.seen:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                self.seen.append("ignored")
        self.seen.append("stubborn ended")
        return "too late"

    @async_action
    async def first_item(self) -> AsyncIterator[int]:
        await asyncio.get_running_loop().create_future()
        yield 1

    @async_action
    async def second_item(self, seconds: float) -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(seconds)
        yield 2

    @async_action(ordered=False)
    async def let_go(self) -> None:
        self.seen.append("let go")

    @async_action(ordered=False)
    async def quick(self) -> str:
        return "quick"


@pytest.fixture
def slow() -> type[Slow]:
    class Fresh(Slow):
        seen: list[str] = []

    return Fresh


# ------------------------------------------------------------------------------------------------ actions
async def test_an_action_past_its_timeout_is_cancelled_and_told_so(slow: type[Slow]) -> None:
    async with talking(slow.as_asgi(), limits=QUICK) as ws:
        reply = await ws.call("hang")
        assert (reply["status"], reply["data"]) == (408, None)
        assert reply["errors"] == [
            {
                "type": "action_timeout",
                "msg": "This took longer than 0.05 s.",
                "ctx": {"limit": "action_timeout", "value": 0.05},
            }
        ]
        assert slow.seen == ["hang ended"]
        assert (await ws.call("quick"))["data"] == "quick"


async def test_an_action_may_have_a_timeout_of_its_own(slow: type[Slow]) -> None:
    async with talking(slow.as_asgi(), limits=QUICK) as ws:
        assert (await ws.call("patient", seconds=0.2))["status"] == 200
        assert (await ws.call("endless", seconds=0.2))["status"] == 200
        assert (await ws.call("hasty"))["errors"][0]["ctx"]["value"] == 0.02


async def test_an_action_that_swallows_its_cancellation_gets_a_408(slow: type[Slow]) -> None:
    async with talking(slow.as_asgi(), limits=QUICK) as ws:
        assert (await ws.call("swallow"))["status"] == 408
    assert slow.seen == ["swallowed"]


@pytest.mark.parametrize("by", ["timeout", "$cancel"])
async def test_an_action_that_ignores_cancellation_is_detached(
    slow: type[Slow], by: str, caplog: pytest.LogCaptureFixture
) -> None:
    limits = QUICK if by == "timeout" else Limits(drain_timeout=1)
    async with talking(slow.as_asgi(), limits=limits) as ws:
        await ws.send_json({"action": "stubborn", "route": "", "request_id": "s"})
        await ws.send_json({"action": "quick", "route": "", "request_id": "q"})
        assert (await ws.receive_json())["request_id"] == "q"
        await ws.send_json({"action": "patient", "seconds": 0, "request_id": "behind it"})
        if by == "$cancel":
            assert (await ws.call("$cancel", data="s"))["status"] == 200
        reply = await ws.receive_json()
        assert (reply["request_id"], reply["status"]) == ("s", 408 if by == "timeout" else 499)
        assert (await ws.receive_json())["request_id"] == "behind it"
        assert (await ws.call("$cancel", data="s"))["status"] == 404  # it has been answered
        await ws.call("let_go")
        await ws.send_json({"action": "quick", "request_id": "s"})  # its id is free
        assert (await ws.receive_json())["data"] == "quick"
    assert "goes on 1 s after it was cancelled" in caplog.text
    assert slow.seen.count("stubborn ended") == 1


async def test_one_that_timed_out_cannot_be_cancelled_any_more(slow: type[Slow]) -> None:
    async with talking(slow.as_asgi(), limits=QUICK) as ws:
        await ws.send_json({"action": "stubborn", "request_id": "s"})
        while "ignored" not in slow.seen:
            await asyncio.wait_for(_after(0.01), WAIT)
        assert (await ws.call("$cancel", data="s"))["status"] == 404
        await ws.call("let_go")
        assert (await ws.receive_json())["status"] == 408


async def test_for_how_long_another_blocked_the_loop_is_not_counted() -> None:
    class Blocking(AsyncAPIConsumer):
        async def connect(self) -> None:
            self.gate, self.before = asyncio.Event(), asyncio.Event()

        @async_action(timeout=0.3)
        async def ready(self) -> str:
            self.before.set()
            await self.gate.wait()
            await asyncio.wait_for(_after(0.02), WAIT)
            return "ready"

        @async_action(ordered=False)
        async def block(self) -> str:
            await self.before.wait()
            self.gate.set()
            block(1.4)
            return "blocked"

    async with talking(Blocking.as_asgi()) as ws:
        await ws.send_json({"action": "ready"})
        await ws.send_json({"action": "ready"})
        await ws.send_json({"action": "block"})
        assert [(await ws.receive_json())["data"] for _ in range(3)] == ["blocked", "ready", "ready"]


async def test_a_timeout_applies_to_the_first_item_of_a_stream_alone(slow: type[Slow]) -> None:
    async with talking(slow.as_asgi(), limits=QUICK) as ws:
        assert (await ws.call("first_item"))["status"] == 408
        await ws.send_json({"action": "second_item", "seconds": 0.3, "request_id": 1})
        replies = [await ws.receive_json() for _ in range(3)]
        assert [(reply["status"], reply["data"]) for reply in replies] == [(206, 1), (206, 2), (200, None)]


async def test_what_waits_its_turn_is_not_counted(slow: type[Slow]) -> None:
    async with talking(slow.as_asgi(), limits=Limits(action_timeout=0.3)) as ws:
        for number in range(3):
            await ws.send_json({"action": "hang" if number < 2 else "patient", "seconds": 0, "request_id": number})
        assert [(await ws.receive_json())["status"] for _ in range(3)] == [408, 408, 200]


@pytest.mark.parametrize("timeout", [0, -1, True, "5", math.nan])
def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"expected seconds above 0, math.inf for no timeout"):
        async_action(timeout=timeout)


# ------------------------------------------------------------------------------------------------ handshakes
@pytest.mark.parametrize("hook", ["connect", "permission"])
async def test_a_handshake_that_takes_too_long_is_refused(hook: str) -> None:
    async def hang(*args: Any) -> bool:
        await asyncio.get_running_loop().create_future()
        return True

    class Hanging(AsyncAPIConsumer):
        limits = Limits(action_timeout=0.05)

        async def connect(self) -> None:
            if hook == "connect":
                await hang()

    class Asks(BasePermission):
        async def can_connect(self, *args: Any, **kwargs: Any) -> bool:
            return await hang()

    if hook == "permission":
        Hanging.permission_classes = (Asks,)
    with pytest.raises(HandshakeRefused) as refused:
        async with connect(Hanging.as_asgi()):
            pass
    assert refused.value.status == 408
    assert "action_timeout" in str(refused.value.body)


# ------------------------------------------------------------------------------------------------ silence
async def closed_with(ws: Any) -> tuple[int, str]:
    try:
        while True:
            await ws.receive_json()
    except ConnectionClosed as closed:
        return closed.code, closed.reason


async def test_a_silent_connection_is_closed(slow: type[Slow]) -> None:
    async with talking(slow.as_asgi(), limits=Limits(idle_timeout=0.1)) as ws:
        await ws.call("quick")
        assert await closed_with(ws) == (4408, "idle; idle_timeout is 0.1 s")


async def test_one_on_which_something_runs_is_not_idle(slow: type[Slow]) -> None:
    async with talking(slow.as_asgi(), limits=Limits(idle_timeout=0.1)) as ws:
        assert (await ws.call("patient", seconds=0.4))["status"] == 200
        assert (await closed_with(ws))[0] == 4408


async def test_pings_of_the_protocol_keep_it_open(slow: type[Slow]) -> None:
    async with talking(slow.as_asgi(), limits=Limits(idle_timeout=0.4)) as ws:
        loop = asyncio.get_running_loop()
        until = loop.time() + 1
        while loop.time() < until:
            await asyncio.wait_for(_after(0.1), WAIT)
            assert (await ws.call("$ping"))["status"] == 200


async def test_one_that_only_listens_is_not_idle(slow: type[Slow]) -> None:
    connections: list[Any] = []

    class Listening(Slow):
        async def connect(self) -> None:
            connections.append(self.connection)

    async with talking(Listening.as_asgi(), limits=Limits(idle_timeout=0.3)) as ws:
        for number in range(10):
            await asyncio.wait_for(_after(0.1), WAIT)
            if number % 2:
                connections[0].put('{"event":"told"}')
            else:
                await connections[0].send('{"event":"told"}')
            assert await ws.receive_json() == {"event": "told"}
        assert (await closed_with(ws))[0] == 4408


async def test_for_how_long_the_loop_was_blocked_nobody_was_silent(slow: type[Slow]) -> None:
    async with talking(slow.as_asgi(), limits=Limits(idle_timeout=0.2)) as ws:
        await asyncio.wait_for(_after(0.1), WAIT)
        block(0.5)
        assert (await ws.call("quick"))["data"] == "quick"


def _after(seconds: float) -> "asyncio.Future[None]":
    loop = asyncio.get_running_loop()
    passed: asyncio.Future[None] = loop.create_future()
    loop.call_later(seconds, passed.set_result, None)
    return passed


# ------------------------------------------------------------------------------------------------ sends
async def test_a_send_that_hangs_closes_the_socket(slow: type[Slow]) -> None:
    class LimitHooks(Hooks):
        def __init__(self) -> None:
            self.limit = asyncio.get_running_loop().create_future()

        def on_limit(self, consumer: Any, limit: str, value: float) -> None:
            self.limit.set_result((limit, value))

    limits, hooks = Limits(send_timeout=0.1, action_timeout=60, drain_timeout=2), LimitHooks()
    async with connect(WSAction([path("", slow.as_asgi())], limits=limits, hooks=[hooks])) as ws:
        ws.pause_reading()
        await ws.send_json({"action": "quick"})
        assert await asyncio.wait_for(hooks.limit, WAIT) == ("send_timeout", 0.1)
        ws.resume_reading()
        assert await closed_with(ws) == (1013, "slow consumer; send_timeout is 0.1 s")


async def test_a_send_cannot_hang_for_as_long_as_the_loop_was_blocked(slow: type[Slow]) -> None:
    connections: list[Any] = []

    class Known(Slow):
        async def connect(self) -> None:
            connections.append(self.connection)

    async with talking(Known.as_asgi(), limits=Limits(send_timeout=0.4)) as ws:
        ws.pause_reading()
        await ws.send_json({"action": "quick"})
        while connections[0].outbox._seen is None:
            await asyncio.wait_for(_after(0.01), WAIT)
        block(1)
        ws.resume_reading()
        assert (await ws.receive_json())["data"] == "quick"
        assert (await ws.call("quick"))["data"] == "quick"


async def test_a_stream_that_is_read_slowly_but_read_goes_on(slow: type[Slow]) -> None:
    class Long(AsyncAPIConsumer):
        @async_action
        async def count(self) -> AsyncIterator[int]:
            for number in range(20):
                yield number

    limits = Limits(send_timeout=0.3, action_timeout=0.05)
    async with talking(Long.as_asgi(), limits=limits, capacity=1) as ws:
        await ws.send_json({"action": "count"})
        for number in range(20):
            await asyncio.wait_for(_after(0.03), WAIT)
            assert (await ws.receive_json())["data"] == number
        assert (await ws.receive_json())["status"] == 200
