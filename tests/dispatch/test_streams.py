"""Streams, ``$cancel`` and ``$ping``: each request has one final reply, in any interleaving."""

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.driving import talking, untold
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured, NotFound
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.permissions import IsAuthenticated
from wsaction.routing import path
from wsaction.testing import ActionFailed, WebSocketSession

WAIT = 5.0


class Work(AsyncAPIActionHandler):
    """Calls of one route run in order."""

    @async_action
    async def wait(self) -> str:
        self.consumer.started.append(self.request_id)
        self.consumer.has_started.set()
        await self.consumer.gate.wait()
        return "done"


class Streams(AsyncAPIConsumer):
    routepatterns = [path("work/<int:pk>/", Work.as_aaah())]

    async def connect(self) -> None:
        self.gate, self.has_started, self.closed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.started: list[Any] = []
        self.yielded = 0
        self.thread_gate, self.in_thread = threading.Event(), asyncio.Event()
        self.loop = asyncio.get_running_loop()

    async def disconnect(self, code: int) -> None:
        self.thread_gate.set()

    @async_action
    async def count(self, to: int, fail_at: int = -1) -> AsyncIterator[dict[str, int]]:
        try:
            for number in range(to):
                if number == fail_at:
                    raise NotFound("No more.")
                self.yielded += 1
                yield {"number": number}
        finally:
            self.closed.set()

    @async_action
    async def endless(self) -> Any:
        try:
            while True:
                self.yielded += 1
                yield "x" * 1_000
        finally:
            await asyncio.sleep(0)
            self.closed.set()

    @async_action
    async def patient(self) -> Any:
        yield "first"
        self.has_started.set()
        await self.gate.wait()
        yield "second"

    @async_action
    async def state(self) -> dict[str, Any]:
        return {"yielded": self.yielded, "closed": self.closed.is_set(), "started": self.started}

    @async_action
    async def until_started(self) -> None:
        await self.has_started.wait()

    @async_action
    async def until_closed(self) -> None:
        await self.closed.wait()

    @async_action
    def in_a_thread(self) -> str:
        self.loop.call_soon_threadsafe(self.in_thread.set)
        self.thread_gate.wait(WAIT)
        return "too late"

    @async_action(ordered=False)
    async def until_in_thread(self) -> None:
        await self.in_thread.wait()

    @async_action(ordered=False)
    async def swallowing(self) -> str:
        try:
            self.has_started.set()
            await self.gate.wait()
        except asyncio.CancelledError:
            return "I go on"
        return "not cancelled"


async def test_items_are_partial_replies_before_one_final_reply() -> None:
    async with talking(Streams.as_asgi()) as ws:
        stream = ws.stream("count", to=3, request_id="s")
        assert [item async for item in stream] == [{"number": 0}, {"number": 1}, {"number": 2}]
        assert stream.reply is not None
        assert untold(stream.reply) == {"errors": [], "data": None, "action": "count", "route": "", "status": 200}
        await ws.send_json({"action": "count", "to": 1, "request_id": 7})
        assert await ws.receive_text() == (
            '{"errors":[],"data":{"number":0},"action":"count","route":"","status":206,"request_id":7}'
        )
        assert (await ws.receive_json())["status"] == 200
        assert (await ws.call("count", to="many"))["status"] == 400


async def test_an_error_half_way_is_the_final_reply() -> None:
    async with talking(Streams.as_asgi()) as ws:
        stream = ws.stream("count", to=5, fail_at=2)
        assert [await anext(stream), await anext(stream)] == [{"number": 0}, {"number": 1}]
        with pytest.raises(ActionFailed) as failed:
            await anext(stream)
        assert failed.value.reply["errors"] == [{"type": "not_found", "msg": "No more."}]
        assert (await ws.call("state"))["data"]["closed"] is True


async def test_a_stream_that_never_waits_blocks_no_other_frames() -> None:
    async with talking(Streams.as_asgi()) as ws:
        await ws.send_json({"action": "endless", "request_id": "s"})
        assert (await ws.call("state"))["data"]["closed"] is False
        assert (await ws.call("$cancel", data="s"))["status"] == 200
        while (reply := await ws.receive_json())["status"] == 206:
            assert reply["request_id"] == "s"
        assert (reply["request_id"], reply["status"], reply["errors"][0]["type"]) == ("s", 499, "cancelled")
        assert (await ws.call("state"))["data"]["closed"] is True


async def test_a_client_that_does_not_read_pauses_the_generator() -> None:
    async with talking(Streams.as_asgi(), limits=Limits(max_outbox_bytes=50_000), capacity=8) as ws:
        ws.pause_reading()
        for number in range(3):
            await ws.send_json({"action": "endless", "request_id": number})
        for number in range(10):  # their replies wait in the outbox
            await ws.send_json({"action": "state", "request_id": f"t{number}"})
        ws.resume_reading()
        seen = set()
        while len(seen) < 10:
            reply = await ws.receive_json()
            if reply["status"] == 200:
                seen.add(reply["request_id"])
                assert reply["data"]["yielded"] < 100
        assert seen == {f"t{number}" for number in range(10)}


async def test_a_stream_cancelled_while_it_waits_frees_its_turn() -> None:
    async with talking(Streams.as_asgi(), limits=Limits(max_outbox_bytes=50_000), capacity=2) as ws:
        ws.pause_reading()
        for number in range(4):
            await ws.send_json({"action": "endless", "request_id": number})
        await ws.send_json({"action": "$cancel", "data": 1, "request_id": "c"})
        await ws.send_json({"action": "$cancel", "data": 2, "request_id": "d"})
        ws.resume_reading()
        final, partial = set(), set()
        while final != {1, 2, "c", "d"} or partial < {0, 3}:
            reply = await ws.receive_json()
            (partial if reply["status"] == 206 else final).add(reply["request_id"])
            if final == {1, 2, "c", "d"} and reply["status"] != 206:
                partial.clear()  # later items show that the other streams go on


async def test_a_disconnect_runs_the_finally_blocks() -> None:
    closed: list[bool] = []

    class Watched(Streams):
        async def disconnect(self, code: int) -> None:
            await super().disconnect(code)
            closed.append(self.closed.is_set())

    async with talking(Watched.as_asgi()) as ws:
        await ws.send_json({"action": "endless", "request_id": "s"})
        await ws.receive_json()
    assert closed == [True]


async def test_cancelling_running_and_waiting_calls() -> None:
    async with talking(Streams.as_asgi()) as ws:
        await ws.send_json({"action": "wait", "route": "work/1/", "request_id": 1})
        await ws.send_json({"action": "wait", "route": "work/1/", "request_id": 2})
        await ws.send_json({"action": "wait", "route": "work/1/", "request_id": 3})
        await ws.call("until_started")
        assert (await ws.call("$cancel", data=2, request_id="c2"))["status"] == 200  # it waits, so it never runs
        assert (await ws.receive_json())["request_id"] == 2
        assert (await ws.call("$cancel", data=1, request_id="c1"))["status"] == 200
        reply = await ws.receive_json()
        assert (reply["request_id"], reply["status"], reply["route"]) == (1, 499, "work/1/")
        assert (await ws.call("$cancel", data=1))["errors"][0]["type"] == "not_found"
        assert (await ws.call("$cancel", data="3"))["status"] == 404  # the id is the number 3
        assert (await ws.call("$cancel", data=3))["status"] == 200
        assert (await ws.receive_json())["status"] == 499
        assert 2 not in (await ws.call("state"))["data"]["started"]
        await ws.nothing()


async def test_cancelling_a_queued_call() -> None:
    async with talking(Streams.as_asgi(), limits=Limits(max_concurrency=1)) as ws:
        for number in (1, 2, 2.5, 3):
            route = f"work/{int(number)}/"
            await ws.send_json({"action": "wait", "route": route, "request_id": str(number)})
        assert (await ws.call("$cancel", data="2"))["status"] == 200  # the first of its route: the next one moves up
        assert [(await ws.receive_json())["request_id"]] == ["2"]
        for number in ("1", "2.5", "3"):
            assert (await ws.call("$cancel", data=number))["status"] == 200
            assert ((await ws.receive_json())["request_id"]) == number
        started = (await ws.call("state"))["data"]["started"]
        assert started[0] == "1"
        assert "2" not in started


async def test_a_cancelled_thread_is_answered_and_its_result_dropped() -> None:
    async with talking(Streams.as_asgi()) as ws:
        await ws.send_json({"action": "in_a_thread", "request_id": "t"})
        await ws.call("until_in_thread")
        assert (await ws.call("$cancel", data="t"))["status"] == 200
        assert (await ws.receive_json())["status"] == 499
        assert (await ws.call("state"))["status"] == 200  # later calls of the route may run
        await ws.nothing()


async def test_an_action_that_swallows_cancellation_gets_a_499() -> None:
    async with talking(Streams.as_asgi()) as ws:
        await ws.send_json({"action": "swallowing", "request_id": "s"})
        await ws.call("until_started")
        assert (await ws.call("$cancel", data="s"))["status"] == 200
        assert (await ws.receive_json())["status"] == 499
        await ws.nothing()


@pytest.mark.parametrize("data", [None, True, 1.0, [], {"request_id": 1}])
async def test_cancel_requires_a_request_id(data: Any) -> None:
    async with talking(Streams.as_asgi()) as ws:
        assert (await ws.call("$cancel", data=data))["status"] == 400
        assert (await ws.call("$cancel"))["errors"][0] == {"type": "missing", "msg": "Field required", "loc": ["data"]}


async def test_ping_skips_permissions_and_limits() -> None:
    class Closed(Streams):
        permission_classes = (~IsAuthenticated,)

    async with talking(Closed.as_asgi(), limits=Limits(max_concurrency=1, max_queued_actions=1)) as ws:
        for number in range(2):
            await ws.send_json({"action": "wait", "route": "work/1/", "request_id": number})
        assert (await ws.call("state"))["status"] == 503
        assert untold(await ws.call("$ping")) == {
            "errors": [], "data": None, "action": "$ping", "route": "", "status": 200
        }  # fmt: skip
        assert (await ws.call("$ping", "nowhere/?x=1"))["route"] == "nowhere/?x=1"
        assert (await ws.call("$pong"))["status"] == 405  # names that begin with $ do not queue


async def test_protocol_actions_are_not_actions_of_the_handler() -> None:
    async with talking(Streams.as_asgi()) as ws:
        assert (await ws.call("$pong"))["status"] == 405
        assert (await ws.call("ping"))["status"] == 405


async def test_protocol_actions_ask_no_permissions() -> None:
    asked: list[Any] = []

    class Slow(Streams):
        async def check_permissions(self) -> None:
            asked.append(self.request_id)
            await self.gate.wait()

    async with talking(Slow.as_asgi(), limits=Limits(max_concurrency=1, max_queued_actions=1)) as ws:
        await ws.send_json({"action": "state", "request_id": "first"})
        for number in range(50):
            assert (await ws.call("$pong", request_id=number))["errors"][0]["type"] == "action_not_allowed"
            assert (await ws.call("$cancel", data=number))["errors"][0]["type"] == "not_found"
        assert asked == ["first"]


def test_a_stream_cannot_have_mode_none() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"act is a stream, .* replies; leave out mode='none'"):

        class Silent(AsyncAPIActionHandler):
            @async_action(mode="none")
            async def act(self) -> Any:
                yield 1


class Chaos(AsyncAPIConsumer):
    @async_action
    async def act(self, steps: list[str]) -> Any:
        for step in steps:
            if step == "turn":
                await asyncio.sleep(0)
            elif step == "fail":
                raise ZeroDivisionError
        return "done"

    @async_action
    async def stream(self, steps: list[str]) -> Any:
        for step in steps:
            if step == "turn":
                await asyncio.sleep(0)
            elif step == "fail":
                raise ZeroDivisionError
            yield step

    @async_action(name="elsewhere")
    def threaded(self, steps: list[str]) -> str:
        return "done"


@pytest.mark.parametrize("block", [0, 1, *(pytest.param(block, marks=pytest.mark.slow) for block in range(2, 8))])
async def test_random_interleavings_have_one_final_reply_each(block: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        sessions = [await interleave(stack, random.Random(seed)) for seed in range(block * 25, block * 25 + 25)]
        await asyncio.gather(*(ws.nothing() for ws in sessions))


async def interleave(stack: contextlib.AsyncExitStack, rng: random.Random) -> WebSocketSession:
    """Sends requests and cancellations at random and waits for all final replies.

    The connection stays open, so that a second final reply would be seen.
    """
    final: dict[str, list[int]] = {}
    limits = Limits(max_concurrency=rng.choice((1, 2, 16)), max_queued_actions=rng.choice((2, 256)))
    ws = await stack.enter_async_context(talking(Chaos.as_asgi(), limits=limits, capacity=rng.choice((1, 5, 1024))))
    sent = []
    for number in range(60):
        steps = rng.choices(("turn", "item", "fail"), (6, 6, 1), k=rng.randrange(6))
        frame: dict[str, Any] = {"action": rng.choice(("act", "stream", "elsewhere")), "steps": steps}
        if sent and rng.random() < 0.4:
            frame = {"action": "$cancel", "data": rng.choice(sent)}
        sent.append(f"r{number}")
        await ws.send_json({**frame, "request_id": sent[-1]})
    while sum(map(len, final.values())) < len(sent):
        reply = await ws.receive_json()
        if reply["status"] != 206:
            final.setdefault(reply["request_id"], []).append(reply["status"])
        else:
            assert reply["request_id"] not in final
    assert sorted(final) == sorted(sent)
    assert all(len(statuses) == 1 for statuses in final.values())
    assert {status for statuses in final.values() for status in statuses} <= {200, 404, 499, 500, 503}
    assert (await ws.call("$ping"))["status"] == 200
    return ws


def test_the_annotation_of_a_stream_must_match_its_body() -> None:
    async def number(self: Any) -> int:  # type: ignore[misc]
        yield 1

    async def numbers(self: Any) -> AsyncIterator[int]:
        return [1]  # type: ignore[return-value]

    for function, message in (
        (
            number,
            r"act is a stream, because it yields: .* got <class 'int'>",
        ),
        (numbers, r"act is annotated as a stream, .*AsyncIterator\[int\], and has no yield"),
    ):
        with pytest.raises(ImproperlyConfigured, match=message):
            type("Numbers", (AsyncAPIActionHandler,), {"act": async_action(function)})
