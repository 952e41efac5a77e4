"""`app.drain()` and ``accept_refused``, in process."""

import asyncio
import contextlib
import logging
from typing import Any

import pytest

from tests.support.virtual_time import anyio_backend  # noqa: F401  # the fixture
from wsaction._server.runtime import drain_all
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import APIError
from wsaction.limits import Limits
from wsaction.routing import path
from wsaction.testing import ConnectionClosed, HandshakeRefused, connect

WAIT = 5.0


class Worker(AsyncAPIConsumer):
    ends: list[int] | None = None
    gate: asyncio.Event | None = None

    @async_action
    async def work(self) -> str:
        assert self.gate is not None
        await self.gate.wait()
        return "done"

    @async_action
    async def swallow(self) -> None:
        assert self.gate is not None
        while not self.gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.gate.wait()

    async def disconnect(self, code: int) -> None:
        if self.ends is not None:
            self.ends.append(code)


def app_of(seconds: float, **initkwargs: Any) -> WSAction:
    return WSAction([path("ws/", Worker.as_asgi(**initkwargs))], limits=Limits(drain_timeout=seconds))


async def closed_with(ws: Any) -> int:
    try:
        while True:
            await ws.receive_json()
    except ConnectionClosed as closed:
        return closed.code


async def test_what_runs_ends_what_waits_is_refused_and_all_are_closed() -> None:
    gate, ends = asyncio.Event(), []  # type: ignore[var-annotated]
    app = app_of(WAIT, gate=gate, ends=ends)
    async with connect(app, "/ws/") as busy, connect(app, "/ws/") as idle:
        for number in range(3):
            await busy.send_json({"action": "work", "request_id": number})
        await busy.call("$ping")
        draining = asyncio.create_task(app.drain())
        assert await closed_with(idle) == 1012
        refused = [await busy.receive_json() for _ in range(2)]
        assert [(reply["request_id"], reply["status"]) for reply in refused] == [(1, 503), (2, 503)]
        assert refused[0]["errors"][0]["type"] == "shutting_down"
        assert (await busy.call("work"))["status"] == 503
        assert (await busy.call("$ping"))["status"] == 200
        await busy.send_text("no JSON")
        assert (await busy.receive_json())["status"] == 400
        gate.set()
        assert (await busy.receive_json())["data"] == "done"
        assert await closed_with(busy) == 1012
        await asyncio.wait_for(draining, WAIT)
    assert ends == [1012, 1012]
    with pytest.raises(HandshakeRefused) as refusal:
        async with connect(app, "/ws/"):
            pass
    assert refusal.value.status == 503
    await app.drain()  # a second call does nothing


async def test_what_does_not_end_is_cancelled_and_all_is_over_in_time() -> None:
    app = app_of(0.5, gate=asyncio.Event())
    async with connect(app, "/ws/") as ws:
        await ws.send_json({"action": "work"})
        await ws.call("$ping")
        loop = asyncio.get_running_loop()
        before = loop.time()
        await app.drain()
        assert 0.3 < loop.time() - before < 2
        assert await closed_with(ws) == 1012
    assert not app.runtime.loop_state.connections


async def test_what_swallows_its_cancellation_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    gate = asyncio.Event()
    app = app_of(0.3, gate=gate)
    async with connect(app, "/ws/") as ws:
        await ws.send_json({"action": "swallow"})
        await ws.call("$ping")
        await app.drain()
        try:
            assert await closed_with(ws) == 1012
        finally:
            gate.set()
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert any("an action still runs" in message for message in messages)


async def test_an_app_that_is_started_again_takes_connections_again() -> None:
    app = app_of(1)
    async with app.lifespan():
        await app.drain()
    async with app.lifespan(), connect(app, "/ws/") as ws:
        assert (await ws.call("$ping"))["status"] == 200


async def test_all_apps_that_served_here_are_drained_and_no_others() -> None:
    one, another, unused = app_of(1), app_of(1), app_of(1)
    async with connect(one, "/ws/") as first, connect(another, "/ws/") as second:
        await drain_all()
        assert [await closed_with(first), await closed_with(second)] == [1012, 1012]
    assert not unused.runtime.loop_state.draining


async def test_a_connection_that_was_on_its_way_in_is_closed() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    class Late(AsyncAPIConsumer):
        async def connect(self) -> None:
            asked.set()
            await go_on.wait()

    app = WSAction([path("", Late.as_asgi())], limits=Limits(drain_timeout=0.2))

    async def come() -> int:
        async with connect(app) as ws:
            return await closed_with(ws)

    coming = asyncio.create_task(come())
    await asyncio.wait_for(asked.wait(), WAIT)
    await app.drain()
    go_on.set()
    assert await asyncio.wait_for(coming, WAIT) == 1012


# ------------------------------------------------------------------------------------------------ accept, then close
class Refusing(AsyncAPIConsumer):
    error: Any = None
    closes: Any = None

    async def connect(self) -> None:
        if self.closes:
            await self.close(*self.closes)
        else:
            raise self.error


@pytest.mark.parametrize(
    ("initkwargs", "code", "reason"),
    [
        ({"error": APIError(401, "a", "Who?")}, 4401, "Who?"),
        ({"error": APIError(403, "a", "No.")}, 4403, "No."),
        ({"error": APIError(429, "a", "é" * 100)}, 4429, "é" * 61),
        ({"error": ZeroDivisionError()}, 1011, "The server failed to answer this; the error is in its log."),
        ({"closes": (4001, "mine")}, 4001, "mine"),
        ({"closes": (1000, "")}, 1000, ""),
    ],
    ids=str,
)
async def test_a_refused_handshake_may_be_accepted_and_closed(
    initkwargs: dict[str, Any], code: int, reason: str
) -> None:
    app = WSAction([path("", Refusing.as_asgi(**initkwargs))], accept_refused=True)
    async with connect(app) as ws:
        with pytest.raises(ConnectionClosed) as closed:
            await ws.receive_json()
    assert (closed.value.code, closed.value.reason) == (code, reason)


async def test_accept_refused_covers_paths_origins_and_draining() -> None:
    app = WSAction([path("", Worker.as_asgi())], accept_refused=True)
    async with connect(app, "/nowhere/") as ws:
        assert await closed_with(ws) == 4404
    async with connect(app, origin="https://evil.example") as ws:
        assert await closed_with(ws) == 4403
    await app.drain()
    async with connect(app) as ws:
        assert await closed_with(ws) == 1012
