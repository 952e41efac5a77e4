"""`wsaction.client`: several subscriptions of one route share one subscription on the server."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.client_subscriptions import ROUTE, Boards, all_read, following, moved, position, subscribed
from tests.support.scripted import WAIT, Peer, client_at, relayed, scripted
from wsaction.applications import WSAction
from wsaction.client import (
    Client,
    ConnectionFailed,
    Event,
    InvalidRequest,
    PermissionDenied,
    Position,
    Resync,
    Subscription,
    connect,
)
from wsaction.routing import path


async def entered(client: Client, route: str = ROUTE, **options: Any) -> Subscription:
    """Enters a subscription that needs no request to the server."""
    return await asyncio.wait_for(client.subscribe(route, **options).__aenter__(), WAIT)


async def nothing_asked(client: Client, peer: Peer) -> None:
    """Checks that the client has sent nothing: its next frame is the one that this function sends."""
    await all_read_of(client, peer)


async def all_read_of(client: Client, peer: Peer) -> None:
    asking = asyncio.create_task(client.call("sync"))
    await peer.reply(await peer.frame("sync"))
    await asking


async def test_a_second_subscription_sends_no_request() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        one, _ = await subscribed(client, peer, position(3))
        await peer.event(4)
        assert await following(one) == moved(4)
        two = await entered(client)
        assert (two.position, two.recovered, two.snapshot) == (Position("e1", 4), None, None)
        three = await entered(client, since=Position("e1", 4))
        assert three.recovered is True
        await nothing_asked(client, peer)
        await peer.event(5)
        for each in (one, two, three):
            assert await following(each) == moved(5)


async def test_the_last_subscription_that_closes_unsubscribes() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        one, _ = await subscribed(client, peer, position(3))
        two = await entered(client)
        one.close()
        one.close()
        await nothing_asked(client, peer)
        await peer.event(4)
        assert await following(two) == moved(4)
        assert [item async for item in one] == []
        two.close()
        assert (await peer.frame("unsubscribe"))["route"] == ROUTE


async def test_closing_and_subscribing_again_at_once() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        first = client.subscribe(ROUTE)
        entering = asyncio.create_task(first.__aenter__())
        requests = [await peer.frame("subscribe")]
        first.close()  # before the server answers
        again = asyncio.create_task(client.subscribe(ROUTE).__aenter__())
        requests += [await peer.frame("unsubscribe"), await peer.frame("subscribe")]
        await peer.reply(requests[0], position(3))
        await peer.event(4)  # of the subscription that was closed
        await peer.reply(requests[1], None, 204)
        await peer.reply(requests[2], position(5))
        await peer.event(6)
        assert await following(await again) == moved(6)
        entering.cancel()


async def test_a_new_snapshot_loses_no_events_of_the_others() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        one, _ = await subscribed(client, peer, position(3))
        two, request = await subscribed(client, peer, {**position(5), "snapshot": ["now"]}, snapshot=True)
        assert ("since" in request, two.snapshot, two.position) == (False, ["now"], Position("e1", 5))
        # the new subscribe may have replaced the old one before 4 and 5 arrived
        request = await peer.frame("subscribe")
        assert request["since"] == position(3)
        assert "snapshot" not in request
        await peer.reply(request, {**position(3), "recovered": True})
        for offset in (4, 5, 6):
            await peer.event(offset)
        assert [await following(one) for _ in range(3)] == [moved(4), moved(5), moved(6)]
        assert await following(two) == moved(6)


async def test_each_query_has_its_own_snapshot() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        done, _ = await subscribed(
            client, peer, {**position(3), "snapshot": ["done"]}, ROUTE + "?done=1", snapshot=True
        )
        todo, request = await subscribed(
            client, peer, {**position(3), "snapshot": ["to do"]}, ROUTE + "?done=0", snapshot=True
        )
        assert (request["route"], done.snapshot, todo.snapshot) == (ROUTE + "?done=0", ["done"], ["to do"])
        await peer.say(event="$resync", route=ROUTE, data=position(9, "e2"))
        for _ in range(2):
            request = await peer.frame("subscribe")
            assert "since" not in request
            await peer.reply(request, {**position(9, "e2"), "snapshot": [request["route"]]})
        assert await following(done) == Resync(Position("e2", 9), [ROUTE + "?done=1"])
        assert await following(todo) == Resync(Position("e2", 9), [ROUTE + "?done=0"])


async def test_a_reconnect_subscribes_once_for_all() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        one, _ = await subscribed(client, peer, position(3))
        two = await entered(client)
        await peer.event(4)
        await all_read(one, peer)
        peer.drop()
        peer = await server.accepted()
        request = await peer.frame("subscribe")
        assert request["since"] == position(4)
        await peer.reply(request, {**position(4), "recovered": True})
        await nothing_asked(client, peer)
        await peer.event(5)
        for each in (one, two):
            assert [await following(each), await following(each)] == [moved(4), moved(5)]
        peer.drop()
        peer = await server.accepted()
        await peer.reply(await peer.frame("subscribe"), {**position(8, "e2"), "recovered": False})
        for each in (one, two):
            assert await following(each) == Resync(Position("e2", 8))


async def test_a_slow_subscription_does_not_delay_the_others() -> None:
    async with scripted() as server, client_at(server, buffer=200) as (client, peer):
        fast, _ = await subscribed(client, peer, position(0))
        slow = await entered(client)
        for offset in range(1, 9):
            await peer.event(offset)
            assert await following(fast) == moved(offset)
        assert (fast.state, slow.state) == ("live", "recovering")
        offsets = [(await following(slow)).offset]
        while slow._is_behind and not slow._is_drained:
            offsets.append((await following(slow)).offset)
        request = await peer.frame("subscribe")
        assert request["since"] == position(offsets[-1])
        await peer.reply(request, {**position(offsets[-1]), "recovered": True})
        for offset in range(offsets[-1] + 1, 10):
            await peer.event(offset)
            offsets.append((await following(slow)).offset)
        assert offsets == [*range(1, 10)]
        assert await following(fast) == moved(9)
        assert slow.state == "live"


async def test_a_refusal_ends_only_the_new_subscription() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        one, _ = await subscribed(client, peer, position(3))
        entering = asyncio.create_task(client.subscribe(ROUTE + "?nonsense=1", snapshot=True).__aenter__())
        await peer.reply(await peer.frame("subscribe"), None, 400, {"type": "extra_forbidden", "msg": "."})
        with pytest.raises(InvalidRequest):
            await entering
        await peer.event(4)
        assert await following(one) == moved(4)


async def test_a_lost_right_or_closed_client_ends_all_subscriptions() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        one, _ = await subscribed(client, peer, position(3))
        two = await entered(client)
        await peer.say(event="$unsubscribed", route=ROUTE, data={"reason": "permission_denied"})
        for each in (one, two):
            with pytest.raises(PermissionDenied):
                await following(each)
        one, _ = await subscribed(client, peer, position(3))
        two = await entered(client)
        await peer.close(4403, "kicked")
        for each in (one, two):
            with pytest.raises(ConnectionFailed, match="kicked"):
                await following(each)
            assert each.state == "closed"


async def test_on_state_receives_the_states() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        connection: list[str] = []
        stop = client.on_state(lambda state, cause: connection.append(state))
        one, _ = await subscribed(client, peer, position(3))
        states: list[str] = []
        one.on_state(states.append)
        one.on_state(lambda state: 1 // 0)  # its error does not end the subscription
        peer.drop()
        peer = await server.accepted()
        await peer.reply(await peer.frame("subscribe"), {**position(3), "recovered": True})
        await all_read(one, peer)
        assert (connection, states) == (["waiting", "connecting", "connected"], ["recovering", "live"])
        stop()
        stop()
        one.close()
        assert states == ["recovering", "live", "closed"]
        stopped: list[Any] = []
        one.on_state(stopped.append)()
    assert (connection[3:], stopped) == ([], [])


async def test_an_event_of_another_route_moves_no_position() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        one, _ = await subscribed(client, peer, position(3))
        elsewhere = client.events()
        await peer.event(9, route="boards/8/")
        await peer.say(event="$position", route="boards/8/", data=position(9))
        await peer.event(4)
        assert await following(one) == moved(4)
        assert (await anext(elsewhere)).route == "boards/8/"  # type: ignore[union-attr]
        peer.drop()
        assert (await (await server.accepted()).frame("subscribe"))["since"] == position(4)


@pytest.mark.parametrize("seed", range(6))
async def test_random_use_delivers_every_event_once_and_in_order(serve: Callable[..., Server], seed: int) -> None:
    """Fast and slow subscriptions, with and without snapshots, come and go while the connection drops repeatedly."""
    chance, server = random.Random(seed), serve(WSAction([path("ws/", Boards.as_asgi())]))
    options: dict[str, Any] = {"first_wait": 0.001, "longest_wait": 0.005, "proxy": None, "buffer": 1_000}
    async with (
        relayed(server.port) as relay,
        connect(server.url("/ws/"), proxy=None) as writer,
        connect(relay.url("/ws/"), **options) as client,
    ):
        heard: dict[Subscription, list[int]] = {}
        consuming: dict[Subscription, asyncio.Task[None]] = {}
        has_event = asyncio.Event()

        async def consume(one: Subscription) -> None:
            async for item in one:
                assert isinstance(item, Event), "the history of 50 reaches across every cut"
                heard[one].append(item.data)
                has_event.set()
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)

        async def join() -> None:
            last = client.subscribe(ROUTE, snapshot=chance.random() < 0.4)
            await asyncio.wait_for(last.__aenter__(), WAIT)
            heard[last] = []
            consuming[last] = asyncio.create_task(consume(last))

        await join()
        at = 0
        for _ in range(40):
            match chance.choice(["join", "leave", "publish", "publish", "cut"]):
                case "join":
                    await join()
                case "leave" if len(consuming) > 1:
                    gone = chance.choice([*consuming])
                    gone.close()
                    await consuming.pop(gone)
                case "cut":
                    relay.cut()
                    relay.is_open = True
                case _:
                    for _ in range(chance.randrange(12)):
                        at += 1
                        await writer.call("move", ROUTE, to=at)
        at += 1
        await writer.call("move", ROUTE, to=at)
        async with asyncio.timeout(WAIT):
            while any(not heard[one] or heard[one][-1] != at for one in consuming):
                has_event.clear()
                await has_event.wait()
        for numbers in heard.values():
            assert numbers == [*range(numbers[0], numbers[-1] + 1)] if numbers else True
        for one, task in consuming.items():
            one.close()
            await task
