"""`wsaction.client`: bursts wait for room, keep their order, and are never lost without an error or a log entry."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.scripted import WAIT, Peer, client_at, relayed, scripted
from wsaction.applications import WSAction
from wsaction.client import CallTimeout, Client, ConnectionFailed, ConnectionLost, Overflow, Unavailable, connect
from wsaction.client._connection import PendingReply
from wsaction.client._pacing import Pacer, Request, was_not_run
from wsaction.client.messages import Reply
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.routing import path

SOON: dict[str, Any] = {"first_wait": 0.01, "longest_wait": 0.02, "proxy": None}
RAN: list[tuple[str, int]] = []


class Counter(AsyncAPIActionHandler):
    @async_action(mode="none")
    async def add(self, number: int, pause: float = 0.0005) -> None:
        await asyncio.sleep(pause)
        RAN.append((self.route, number))

    @async_action
    async def take(self, number: int) -> int:
        await asyncio.sleep(0.0005)
        RAN.append((self.route, number))
        return number

    @async_action
    async def count(self, to: int) -> Any:
        for number in range(to):
            yield number

    @async_action(mode="none")
    async def fail(self) -> None:
        raise ZeroDivisionError


class Root(AsyncAPIConsumer):
    routepatterns = [path("counters/<int:pk>/", Counter.as_aaah())]


@pytest.fixture
def served(serve: Callable[..., Server]) -> Callable[..., Server]:
    RAN.clear()
    return lambda **limits: serve(WSAction([path("ws/", Root.as_asgi())], limits=Limits(**limits)))


def in_order(route: str) -> list[int]:
    return [number for sent_to, number in RAN if sent_to == route]


# ------------------------------------------------------------------------------------------------ real servers
async def test_a_burst_of_sends_runs_in_order(served: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    async with connect(served().url("/ws/"), proxy=None) as client:
        for number in range(1_000):
            await client.send("add", f"counters/{number % 3}/", number=number)
        await client.flush()
        assert sorted(number for _, number in RAN) == [*range(1_000)]
        for pk in range(3):
            assert in_order(f"counters/{pk}/") == [*range(pk, 1_000, 3)]
    assert caplog.text == ""


async def test_a_burst_without_waiting_in_between(served: Callable[..., Server]) -> None:
    async with connect(served().url("/ws/"), proxy=None) as client:
        await asyncio.gather(*(client.send("add", "counters/1/", number=number) for number in range(1_000)))
        answers = await asyncio.gather(*(client.call("take", "counters/1/", number=number) for number in range(1_000)))
    assert answers == [*range(1_000)]
    assert in_order("counters/1/") == [*range(1_000)] * 2


@pytest.mark.parametrize("limits", [{"max_queued_actions": 5}, {"max_queued_bytes": 300}, {"max_concurrency": 1}])
async def test_with_less_room_at_the_server_everything_runs_once(
    served: Callable[..., Server], limits: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(served(**limits).url("/ws/"), proxy=None) as client:
        for number in range(150):
            await client.send("add", "counters/1/", number=number, pause=0.003)
        answers = await asyncio.gather(*(client.call("take", "counters/2/", number=number) for number in range(150)))
        streams = await asyncio.gather(*(counted(client) for _ in range(20)))
        await client.flush()
        if "max_queued_actions" in limits:
            assert client._pacer.max_in_flight == 5  # the limit that the server named
    assert (answers, streams) == ([*range(150)], [[0, 1, 2]] * 20)
    assert sorted(in_order("counters/1/")) == sorted(in_order("counters/2/")) == [*range(150)]
    assert "busy" not in caplog.text


async def test_order_is_kept_with_max_in_flight(served: Callable[..., Server]) -> None:
    async with connect(served(max_queued_actions=5).url("/ws/"), proxy=None, max_in_flight=5) as client:
        for number in range(300):
            await client.send("add", "counters/1/", number=number)
        await client.flush()
    assert in_order("counters/1/") == [*range(300)]


async def counted(client: Client) -> list[int]:
    return [number async for number in client.stream("count", "counters/3/", to=3)]


async def test_closing_waits_until_sent_requests_have_run(served: Callable[..., Server]) -> None:
    async with connect(served().url("/ws/"), proxy=None) as client:
        for number in range(50):
            await client.send("add", "counters/1/", number=number)
    assert in_order("counters/1/") == [*range(50)]


async def test_a_send_that_fails_counts_as_done(
    served: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(served().url("/ws/"), proxy=None) as client:
        for _ in range(200):
            await client.send("fail", "counters/1/")
        await client.flush()
    assert caplog.text.count("no caller waits for this reply: 500 server_error") == 200


async def test_calls_that_timed_out_give_up_their_room(served: Callable[..., Server]) -> None:
    async with connect(served().url("/ws/"), proxy=None, max_in_flight=4) as client:
        for number in range(12):  # an action with mode="none" never replies to a call
            with pytest.raises(CallTimeout):
                await client.call("add", "counters/1/", number=number, pause=0, timeout=0.02)
        assert await client.call("take", "counters/1/", number=99) == 99


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_runs_twice_over_a_flaky_connection(
    served: Callable[..., Server], seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    chance, server = random.Random(seed), served(max_queued_actions=20)
    answered: list[int] = []
    lost: list[int] = []
    async with relayed(server.port) as relay, connect(relay.url("/ws/"), **SOON) as client:

        async def take(number: int) -> None:
            try:
                answered.append(await client.call("take", f"counters/{number % 4}/", number=number, timeout=WAIT))
            except ConnectionLost:
                lost.append(number)

        for turn in range(6):
            calls = [asyncio.create_task(take(len(answered) + len(lost) + n)) for n in range(60)]
            await asyncio.sleep(0)  # sends the requests; in the first turn none has a reply yet
            while turn and len([call for call in calls if call.done()]) < chance.randrange(60):
                await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED, timeout=0.01)
            relay.cut()
            relay.is_open = True
            await asyncio.wait_for(asyncio.gather(*calls), WAIT)
    ran = sorted(number for _, number in RAN)
    assert sorted([*answered, *lost]) == [*range(360)]
    assert len(ran) == len(set(ran))  # a request runs at most once
    assert set(answered) <= set(ran) <= {*answered, *lost}
    assert 0 < len(lost) < 360


async def test_sends_in_flight_at_a_drop_are_reported(
    served: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = served()
    async with relayed(server.port) as relay, connect(relay.url("/ws/"), **SOON) as client:
        for number in range(20):
            await client.send("add", "counters/1/", number=number, pause=60)
        flushing = asyncio.create_task(client.flush())
        await client.call("take", "counters/2/", number=0)
        relay.cut()
        with pytest.raises(ConnectionLost, match="may have run"):
            await flushing
        assert "20 sent without waiting for a reply, add counters/1/ first: the connection was lost" in caplog.text
        relay.is_open = True
        await client.flush()  # no request is in flight any more
        await client.send("add", "counters/2/", number=1)
        await client.flush()
        assert in_order("counters/2/") == [0, 1]


# ------------------------------------------------------------------------------------------------ a server on a script
def full(limit: str = "max_queued_actions", value: int = 2) -> dict[str, Any]:
    return {"type": "busy", "msg": ".", "ctx": {"limit": limit, "value": value}}


async def frames(peer: Peer, count: int) -> list[dict[str, Any]]:
    """Returns the next frames that are not probes of sends."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        if (frame := await peer.frame())["action"] != "$ping":
            found.append(frame)
    return found


async def test_at_most_max_in_flight_are_sent_and_the_rest_in_order() -> None:
    async with scripted() as server, client_at(server, max_in_flight=2) as (client, peer):
        calls = [asyncio.create_task(client.call("take", number=number)) for number in range(5)]
        first = await frames(peer, 2)
        assert [frame["number"] for frame in first] == [0, 1]
        await peer.reply(first[1], 1)
        third = await peer.frame("take")
        assert third["number"] == 2
        calls[3].cancel()  # it still waits, so it is never sent
        await peer.reply(first[0], 0)
        last = await peer.frame("take")
        assert last["number"] == 4
        await peer.reply(third, 2)
        await peer.reply(last, 4)
        await asyncio.wait(calls)
        assert [call.result() for call in calls if not call.cancelled()] == [0, 1, 2, 4]


async def test_requests_refused_as_busy_are_resent_before_later_ones() -> None:
    async with scripted() as server, client_at(server, max_in_flight=3) as (client, peer):
        calls = [asyncio.create_task(client.call("take", number=number)) for number in range(5)]
        first = await frames(peer, 3)
        await peer.reply(first[2], None, 503, full(value=2))
        await peer.reply(first[0], 0)
        await peer.reply(first[1], 1)
        again = await frames(peer, 2)
        assert [frame["number"] for frame in again] == [2, 3]
        assert again[0]["request_id"] != first[2]["request_id"]
        await peer.reply(again[0], 2)
        await peer.reply(again[1], 3)
        await peer.reply(await peer.frame("take"), 4)
        assert await asyncio.gather(*calls) == [*range(5)]


async def test_requests_refused_at_shutdown_go_to_the_next_server() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        call = asyncio.create_task(client.call("take", number=1))
        await peer.reply(await peer.frame("take"), None, 503, {"type": "shutting_down", "msg": "."})
        with pytest.raises(TimeoutError):  # this connection will close, and the request would be lost on it
            await asyncio.wait_for(peer.socket.recv(), 0.05)
        await peer.close(1012)
        peer = await server.accepted()
        await peer.reply(await peer.frame("take"), 1)
        assert await call == 1


@pytest.mark.parametrize(
    "error",
    [
        {"type": "busy", "msg": "."},
        {"type": "busy", "msg": ".", "ctx": {"limit": "max_threads", "value": 1}},
        {"type": "busy", "msg": ".", "ctx": {"limit": "max_subscriptions", "value": 1}},
        {"type": "layer_unavailable", "msg": "."},
    ],
)
async def test_requests_that_may_have_run_are_not_resent(error: dict[str, Any]) -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        call = asyncio.create_task(client.call("take", number=1))
        await peer.reply(await peer.frame("take"), None, 503, error)
        with pytest.raises(Unavailable):
            await call


async def test_a_send_waits_for_its_turn_within_the_timeout() -> None:
    async with (
        scripted() as server,
        client_at(server, max_in_flight=1, timeout=0.1, close_timeout=0.1) as (client, peer),
    ):
        await client.send("add", number=1)
        with pytest.raises(CallTimeout, match=r"add: no reply in 0.1 s"):
            await client.send("add", number=2)
        request = await peer.frame("add")
        probe = await peer.frame("$ping")
        assert probe["request_id"] == request["request_id"]
        await peer.reply(probe)
        await client.send("add", number=3)
        assert [frame["number"] for frame in await frames(peer, 1)] == [3]


async def test_too_many_waiting_requests_raise_overflow() -> None:
    pacer = Pacer(1, max_waiting=3)  # without a connection
    for number in range(3):
        pacer.submit(Request("take", "", {"number": number}, PendingReply()))
    with pytest.raises(Overflow, match="3 requests wait to be sent; await some of them before asking more"):
        pacer.submit(Request("take", "", {"number": 3}, PendingReply()))
    with pytest.raises(ValueError, match="max_in_flight: expected at least 1, got 0"):
        connect("ws://127.0.0.1/", max_in_flight=0)


async def test_waiting_requests_fail_when_the_client_closes(caplog: pytest.LogCaptureFixture) -> None:
    async with scripted() as server:
        async with client_at(server, max_in_flight=1, close_timeout=0.1) as (client, peer):
            await client.send("add", number=0)
            await peer.frame("add")
            waiting = asyncio.create_task(client.send("add", number=1))
            calling = asyncio.create_task(client.call("take", number=2))
            await asyncio.sleep(0)
        for task in (waiting, calling):
            with pytest.raises(ConnectionFailed, match="the client is closed"):
                await task
    assert "the client closes before all sent requests are known to have run" in caplog.text
    assert "1 sent without waiting for a reply, add first" in caplog.text


async def test_a_refused_send_that_cannot_be_resent_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with scripted() as server, client_at(server, reconnect=False) as (client, peer):
        await client.send("add", number=0)
        states = asyncio.Event()
        client.on_state(lambda state, cause: states.set())
        await peer.reply(await peer.frame("add"), None, 503, {"type": "shutting_down", "msg": "."})
        await peer.close(1012, "restart")
        await asyncio.wait_for(states.wait(), WAIT)
    assert "add was refused as busy and could not be sent again" in caplog.text


async def test_withdrawn_requests_leave_the_queue() -> None:
    pacer = Pacer(1)  # without a connection
    for _ in range(1_000):
        request = Request("take", "", {}, PendingReply())
        pacer.submit(request)
        pacer.withdraw(request)
        pacer.withdraw(request)
    assert len(pacer._queue) < 100


def test_which_refusals_show_that_nothing_ran() -> None:
    def reply(status: int, *errors: dict[str, Any]) -> Reply:
        return Reply(status, None, [*errors], "a", "", "1", 1)

    assert was_not_run(reply(503, full()))
    assert was_not_run(reply(503, full("max_queued_bytes")))
    assert was_not_run(reply(503, {"type": "shutting_down"}))
    assert not was_not_run(reply(503))
    assert not was_not_run(reply(500, full()))
    assert not was_not_run(reply(503, full("max_threads")))
    assert not was_not_run(reply(503, {"type": "busy", "ctx": 7}))
