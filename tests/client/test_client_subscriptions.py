"""`wsaction.client`: subscriptions, against a scripted server."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import Server
from tests.support.client_states import States
from tests.support.client_subscriptions import (
    ROUTE,
    Boards,
    all_read,
    following,
    leave,
    moved,
    position,
    subscribed,
    subscription,
)
from tests.support.redis_servers import RedisServer, needs_redis_server
from tests.support.restarts import kept_port, listening, serving
from tests.support.scripted import WAIT, Peer, client_at, relayed, scripted
from wsaction.applications import WSAction
from wsaction.client import (
    CallTimeout,
    ClientError,
    ConnectionFailed,
    Event,
    NotFound,
    PermissionDenied,
    Position,
    Resync,
    Subscription,
    Unavailable,
    UnexpectedReply,
    connect,
)
from wsaction.routing import path


# -------------------------------------------------------------------------------------------------------- live
async def test_events_arrive_once_in_order_and_move_the_position() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        entered, request = await subscribed(client, peer, {**position(3), "recovered": None})
        assert {key: request[key] for key in request if key != "request_id"} == {"action": "subscribe", "route": ROUTE}
        assert (entered.position, entered.recovered, entered.snapshot) == (Position("e1", 3), None, None)
        for offset in (4, 4, 3, 6, 5, 9):  # a gap is an event that was filtered for this user
            await peer.event(offset, {"at": offset})
        for offset in (4, 6, 9):
            assert await following(entered) == moved(offset, {"at": offset})
            assert entered.position == Position("e1", offset)
        await leave(entered, peer)
        assert [item async for item in entered] == []


async def test_iterating_before_entering_raises() -> None:
    async with scripted() as server, client_at(server) as (client, _):
        with pytest.raises(RuntimeError, match=rf"not entered; enter it: async with client.subscribe\('{ROUTE}'\) as"):
            async for _ in client.subscribe(ROUTE):
                pass


async def test_entering_subscribes_and_leaving_unsubscribes() -> None:
    async with scripted() as server, client_at(server) as (client, peer):

        async def use() -> list[Any]:
            async with client.subscribe(ROUTE, since=Position("e1", 2), snapshot=True) as board:
                assert (board.recovered, board.position) == (True, Position("e1", 2))
                return [await anext(board), await anext(board)]

        using = asyncio.create_task(use())
        request = await peer.frame("subscribe")
        assert (request["since"], request["snapshot"]) == (position(2), True)
        await peer.reply(request, {**position(2), "recovered": True})
        await peer.event(3)
        await peer.event(4)
        request = await peer.frame("unsubscribe")
        assert request["route"] == ROUTE
        elsewhere = client.events()
        await peer.event(5)  # dropped: the route has no subscription left, and the event is not a push
        await peer.reply(request, None, 204)
        assert await asyncio.wait_for(using, WAIT) == [moved(3), moved(4)]
        await peer.event(6)
        assert await anext(elsewhere) == moved(6)


async def test_a_route_without_history() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        entered, _ = await subscribed(client, peer, {**position(0, ""), "recovered": None})
        await peer.event(None, 1)
        await peer.event(None, 1)
        assert [await following(entered), await following(entered)] == [Event("moved", ROUTE, 1)] * 2
        peer.drop()
        peer = await server.accepted()
        await peer.reply(await peer.frame("subscribe"), {**position(0, ""), "recovered": False})
        assert await following(entered) == Resync(Position("", 0))


async def test_the_reply_has_the_snapshot() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        entered, request = await subscribed(
            client, peer, {**position(3), "recovered": None, "snapshot": [1]}, snapshot=True
        )
        assert request["snapshot"] is True
        assert entered.snapshot == [1]
        await peer.event(4)
        assert await following(entered) == moved(4)


async def test_an_unrecovered_since_starts_with_a_resync() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        answer = {**position(9, "e2"), "recovered": False, "snapshot": ["all"]}
        entered, _ = await subscribed(client, peer, answer, since=Position("e1", 2), snapshot=True)
        assert entered.recovered is False
        assert await following(entered) == Resync(Position("e2", 9), ["all"])
        assert entered.position == Position("e2", 9)


async def test_events_of_routes_and_pushes_are_kept_apart() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        pushed = client.events()
        one, _ = await subscribed(client, peer, position(0), "boards/1/?expand=cards")
        two, _ = await subscribed(client, peer, position(0), "boards/2/")
        await peer.event(1, "two", "boards/2/")
        await peer.event(1, "one", "boards/1/")
        await peer.event(None, "pushed", "boards/3/")
        assert (await following(one)).data == "one"
        assert (await following(two)).data == "two"
        assert (await anext(pushed)).data == "pushed"
        assert (await leave(one, peer))["route"] == "boards/1/?expand=cards"


async def test_the_server_may_name_the_route_of_events() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        one, _ = await subscribed(client, peer, {**position(0), "route": ROUTE}, "boards/07/")
        await peer.event(1)
        assert await following(one) == moved(1)
        other, _ = await subscribed(client, peer, {**position(1), "route": ROUTE}, "boards/007/")
        await peer.event(2)
        assert await following(one) == await following(other) == moved(2)
        other.close()
        await peer.event(3)
        assert await following(one) == moved(3)
        assert (await leave(one, peer))["route"] in ("boards/07/", "boards/007/")


async def test_a_cancelled_subscribe_keeps_others_of_the_same_route() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        one, _ = await subscribed(client, peer, position(0), ROUTE)
        await peer.event(1)
        assert await following(one) == moved(1)
        entering = asyncio.ensure_future(client.subscribe("boards/07/").__aenter__())
        request = await peer.frame("subscribe")
        entering.cancel()
        leaving = await peer.frame("unsubscribe")
        await peer.reply(request, {**position(1), "route": ROUTE})
        await peer.reply(leaving, None)
        again = await peer.frame("subscribe")
        assert (again["route"], again["since"]) == (ROUTE, position(1))
        await peer.reply(again, {**position(1), "recovered": True})
        await peer.event(2)
        assert await following(one) == moved(2)
        assert (await leave(one, peer))["route"] == ROUTE


# -------------------------------------------------------------------------------------------------------- drops
async def test_missed_events_arrive_once_after_a_drop() -> None:
    async with subscription() as (entered, peer, server):
        await peer.event(4)
        await peer.event(5)
        assert await following(entered) == moved(4)
        await all_read(entered, peer)
        peer.drop()
        peer = await server.accepted()
        request = await peer.frame("subscribe")
        assert request["since"] == position(5)
        await peer.event(6)  # before the reply, so it belongs to no subscription yet
        await peer.reply(request, {**position(5), "recovered": True})
        for offset in (5, 6, 7):
            await peer.event(offset)
        assert [await following(entered) for _ in range(3)] == [moved(5), moved(6), moved(7)]
        assert entered.position == Position("e1", 7)


async def test_a_drop_longer_than_the_history_is_a_resync() -> None:
    for snapshot in (False, True):
        async with subscription(snapshot=snapshot) as (entered, peer, server):
            peer.drop()
            peer = await server.accepted()
            request = await peer.frame("subscribe")
            assert (request["since"], request.get("snapshot", False)) == (position(3), snapshot)
            new = {"snapshot": [1, 2]} if snapshot else {}
            await peer.reply(request, {**position(40, "e2"), "recovered": False, **new})
            await peer.event(41)
            assert await following(entered) == Resync(Position("e2", 40), [1, 2] if snapshot else None)
            assert await following(entered) == moved(41)
            assert entered.position == Position("e2", 41)


async def test_a_renamed_epoch_counts_on() -> None:
    async with subscription() as (entered, peer, server):
        peer.drop()
        peer = await server.accepted()
        await peer.reply(await peer.frame("subscribe"), {**position(3, "e2"), "recovered": True})
        await peer.event(4)
        assert await following(entered) == moved(4)
        assert entered.position == Position("e2", 4)


async def test_repeated_drops_before_any_reply() -> None:
    async with subscription() as (entered, peer, server):
        for _ in range(3):
            peer.drop()
            peer = await server.accepted()
            request = await peer.frame("subscribe")
            assert request["since"] == position(3)
        await peer.reply(request, {**position(3), "recovered": True})
        await peer.event(4)
        assert await following(entered) == moved(4)


async def test_a_right_lost_during_a_drop_raises() -> None:
    async with subscription() as (entered, peer, server):
        await peer.event(4)
        await all_read(entered, peer)
        peer.drop()
        peer = await server.accepted()
        error = {"type": "permission_denied", "msg": "no more"}
        await peer.reply(await peer.frame("subscribe"), None, 403, error)
        assert await following(entered) == moved(4)
        with pytest.raises(PermissionDenied, match="no more"):
            await following(entered)
        await entered.__aexit__(None, None, None)  # the server has no subscription, so the client sends nothing


async def test_a_busy_server_is_asked_again() -> None:
    async with subscription() as (entered, peer, server):
        peer.drop()
        peer = await server.accepted()
        await peer.reply(await peer.frame("subscribe"), None, 503, {"type": "busy", "msg": "later"})
        error = {"type": "throttled", "msg": "later", "ctx": {"retry_after": 0.01}}
        await peer.reply(await peer.frame("subscribe"), None, 429, error)
        await peer.reply(await peer.frame("subscribe"), {**position(3), "recovered": True})
        await peer.event(4)
        assert await following(entered) == moved(4)


async def test_an_unanswered_resubscribe_is_repeated() -> None:
    async with subscription(timeout=0.3) as (entered, peer, server):
        peer.drop()
        peer = await server.accepted()
        first = await peer.frame("subscribe")
        second = await peer.frame("subscribe")
        await peer.reply(first, {**position(3), "recovered": True})  # too late: the second request's counts
        await peer.event(4)
        await peer.reply(second, {**position(3), "recovered": True})
        await peer.event(4)
        await peer.event(5)
        assert [await following(entered), await following(entered)] == [moved(4), moved(5)]


# -------------------------------------------------------------------------------------------------------- notices
async def test_entering_without_a_connection() -> None:
    states = States()
    async with scripted() as server, client_at(server, on_state=states) as (client, peer):
        peer.drop()
        await states.reach("waiting")
        entering = asyncio.create_task(client.subscribe(ROUTE).__aenter__())
        peer = await server.accepted()
        await peer.reply(await peer.frame("subscribe"), position(3))
        entered = await entering
        await peer.event(4)
        assert await following(entered) == moved(4)


async def test_an_ended_subscription_is_not_resubscribed() -> None:
    async with subscription() as (entered, peer, server):
        peer.drop()
        peer = await server.accepted()
        await peer.reply(await peer.frame("subscribe"), None, 404, {"type": "not_found", "msg": "gone"})
        await all_read(entered, peer)
        peer.drop()
        peer = await server.accepted()
        await all_read(entered, peer)  # its first frame is not another `subscribe`
        with pytest.raises(NotFound):
            await following(entered)


async def test_leaving_does_not_wait() -> None:
    async with subscription() as (entered, peer, _):
        await entered.__aexit__(None, None, None)
        assert (entered.state, [item async for item in entered]) == ("closed", [])
        await peer.frame("unsubscribe")


async def test_a_position_notice_moves_the_position() -> None:
    async with subscription() as (entered, peer, server):
        await peer.say(event="$position", route=ROUTE, data=position(8))
        await all_read(entered, peer)
        assert entered.position == Position("e1", 8)
        await peer.event(9)
        await peer.say(event="$position", route=ROUTE, data=position(12))
        await all_read(entered, peer)
        assert entered.position == Position("e1", 8)
        assert await following(entered) == moved(9)
        assert entered.position == Position("e1", 12)
        peer.drop()
        assert (await (await server.accepted()).frame("subscribe"))["since"] == position(12)


async def test_a_resync_is_delivered_and_sets_the_position() -> None:
    async with subscription() as (entered, peer, server):
        await peer.event(4)
        for offset in (7, 8):  # consecutive ones become one
            await peer.say(event="$resync", route=ROUTE, data=position(offset, "e2"))
        await peer.event(9)
        assert [await following(entered) for _ in range(3)] == [moved(4), Resync(Position("e2", 8)), moved(9)]
        assert entered.position == Position("e2", 9)
        peer.drop()
        assert (await (await server.accepted()).frame("subscribe"))["since"] == position(9, "e2")


async def test_a_lost_right_ends_it_after_the_earlier_events() -> None:
    async with subscription() as (entered, peer, server):
        await peer.event(4)
        await peer.say(event="$unsubscribed", route=ROUTE, data={"reason": "permission_denied"})
        assert await following(entered) == moved(4)
        with pytest.raises(PermissionDenied, match="403 permission_denied: The right to this was lost"):
            await following(entered)
        peer.drop()
        await server.accepted()
        with pytest.raises(PermissionDenied):
            await following(entered)


async def test_a_resync_fetches_a_new_snapshot() -> None:
    async with subscription(snapshot=True) as (entered, peer, server):
        await peer.say(event="$resync", route=ROUTE, data=position(7, "e2"))
        await peer.event(8)
        request = await peer.frame("subscribe")
        assert (request["snapshot"], request.get("since")) == (True, None)
        peer.drop()  # this request gets no reply either
        peer = await server.accepted()
        request = await peer.frame("subscribe")
        assert (request["snapshot"], request.get("since")) == (True, None)
        await peer.event(9)
        await peer.reply(request, {**position(9, "e2"), "recovered": None, "snapshot": ["new"]})
        await peer.event(10)
        assert [await following(entered), await following(entered)] == [Resync(Position("e2", 9), ["new"]), moved(10)]


async def test_invalid_notices_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with subscription() as (entered, peer, _):
        await peer.say(event="$resync", route=ROUTE, data=None)
        await peer.event(4)
        assert await following(entered) == moved(4)
    assert "$resync of boards/7/: expected an epoch and an offset, got None" in caplog.text


# ---------------------------------------------------------------------------------------------------- slow consumers
async def test_a_slow_consumer_gets_the_rest_from_the_history() -> None:
    async with subscription(buffer=200) as (entered, peer, _):
        for offset in range(4, 12):
            await peer.event(offset)
        await all_read(entered, peer)
        first = [await following(entered)]
        while entered._buffer:
            first.append(await following(entered))
        request = await peer.frame("subscribe")
        last = first[-1].offset
        assert request["since"] == position(last)
        await peer.event(12)
        await peer.reply(request, {**position(last), "recovered": True})
        rest = []
        for offset in range(last + 1, 13):
            await peer.event(offset)
            rest.append(await following(entered))
        assert [item.offset for item in first + rest] == list(range(4, 13))


async def test_an_event_larger_than_the_buffer_arrives() -> None:
    async with subscription(buffer=10) as (entered, peer, _):
        await peer.event(4, "x" * 1_000)
        assert await following(entered) == moved(4, "x" * 1_000)


async def test_a_connection_lost_while_a_subscription_is_behind() -> None:
    async with subscription(buffer=200) as (entered, peer, server):
        for offset in range(4, 12):
            await peer.event(offset)
        await all_read(entered, peer)
        peer.drop()
        peer = await server.accepted()
        request = await peer.frame("subscribe")
        since = request["since"]["offset"]
        await peer.reply(request, {**position(since), "recovered": True})
        items = [await following(entered) for _ in range(4, since + 1)]
        for offset in range(since + 1, 12):
            await peer.event(offset)
            items.append(await following(entered))
        assert [item.offset for item in items] == list(range(4, 12))


# ---------------------------------------------------------------------------------------------------- entering, leaving
async def test_a_refusal_is_raised_on_entering() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        for status, kind in ((403, PermissionDenied), (503, Unavailable)):
            entering = asyncio.create_task(client.subscribe(ROUTE).__aenter__())
            await peer.reply(await peer.frame("subscribe"), None, status, {"type": "x", "msg": "no"})
            with pytest.raises(kind):
                await entering
        entered, _ = await subscribed(client, peer, position(1))  # the failed subscription has left no trace
        assert entered.position == Position("e1", 1)


async def test_a_reply_without_a_position_is_refused() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        with pytest.raises(UnexpectedReply, match="expected an epoch and an offset"):
            await subscribed(client, peer, {"joined": True})


async def test_a_subscribe_without_a_reply_times_out() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        with pytest.raises(CallTimeout, match=r"subscribe boards/7/: no reply in 0.1 s"):
            await client.subscribe(ROUTE, timeout=0.1).__aenter__()
        await peer.frame("subscribe")
        frame = await peer.frame()
        assert frame["action"] in ("subscribe", "unsubscribe")


async def test_a_cancelled_enter_unsubscribes() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        entering = asyncio.create_task(client.subscribe(ROUTE).__aenter__())
        request = await peer.frame("subscribe")
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        await peer.frame("unsubscribe")
        await peer.reply(request, position(3))
        entered, _ = await subscribed(client, peer, position(4))  # replaces the subscription that is leaving
        await peer.event(5)
        assert await following(entered) == moved(5)


async def test_a_subscription_is_entered_once() -> None:
    async with subscription() as (entered, _, _):
        with pytest.raises(RuntimeError, match="entered before; create a new one"):
            await entered.__aenter__()


async def test_leaving_without_a_connection_or_reply(caplog: pytest.LogCaptureFixture) -> None:
    async with subscription() as (entered, peer, server):
        peer.drop()
        await entered.__aexit__(None, None, None)
        peer = await server.accepted()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.socket.recv(), 0.1)
    async with subscription() as (entered, peer, server):
        entered.close()
        await peer.frame("unsubscribe")
        peer.drop()
        await all_read(entered, await server.accepted())  # its first frame is not another `subscribe`
    async with subscription() as (entered, peer, server):
        await leave(entered, peer, 500, type="server_error", msg="a bug")
        await all_read(entered, peer)
    assert "500 server_error: a bug (unsubscribe boards/7/)" in caplog.text


async def test_the_end_of_the_client_ends_its_subscriptions() -> None:
    async with scripted() as server:
        async with client_at(server) as (client, peer):
            entered, _ = await subscribed(client, peer, position(3))
            waiting = asyncio.create_task(list_of(entered))
        assert await waiting == []
        async with client_at(server) as (client, peer):
            entered, _ = await subscribed(client, peer, position(3))
            await peer.event(4)
            await all_read(entered, peer)
            await peer.close(4403, "kicked")
            assert await following(entered) == moved(4)
            with pytest.raises(ConnectionFailed, match="code 4403, 'kicked'"):
                await following(entered)
        async with client_at(server) as (client, peer):
            entering = asyncio.create_task(client.subscribe(ROUTE).__aenter__())
            await peer.frame("subscribe")
        with pytest.raises(ClientError, match="the client is closed"):
            await entering


async def list_of(entered: Subscription) -> list[Any]:
    return [item async for item in entered]


# -------------------------------------------------------------------------------------------------------- the promise
class History:
    """A server with subscriptions to one route: events of one epoch, with a history of the newest ``size``."""

    def __init__(self, size: int) -> None:
        self.size, self.offset = size, 0
        self.live: list[Peer] = []

    def publish(self) -> None:
        self.offset += 1
        for peer in self.live:
            self.send(peer, self.message(self.offset))

    def message(self, offset: int) -> dict[str, Any]:
        return {"event": "moved", "route": ROUTE, "data": offset, "offset": offset}

    def send(self, peer: Peer, message: dict[str, Any]) -> None:
        peer.socket.protocol.send_text(json.dumps(message).encode())
        peer.socket.send_data()

    async def serve(self, peer: Peer) -> None:
        """Replies to ``subscribe`` frames until the connection is lost."""
        try:
            async for text in peer.socket:
                frame = json.loads(text)
                if peer in self.live:
                    self.live.remove(peer)
                since, data = frame.get("since"), {**position(self.offset), "recovered": None}
                missed: range = range(0)
                if since is not None:
                    is_recoverable = since["epoch"] == "e1" and self.offset - self.size <= since["offset"]
                    missed = range(since["offset"] + 1, self.offset + 1) if is_recoverable else missed
                    data = {**position(since["offset"] if is_recoverable else self.offset), "recovered": is_recoverable}
                reply = {"errors": [], "data": data, "action": "subscribe", "route": ROUTE, "status": 200}
                self.send(peer, {**reply, "request_id": frame["request_id"]})
                for offset in missed:
                    self.send(peer, self.message(offset))
                self.live.append(peer)
        except Exception as exc:
            assert "close" in repr(exc).lower()  # noqa: PT017
        finally:
            if peer in self.live:
                self.live.remove(peer)


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.sampled_from(["publish", "publish", "burst", "drop", "take", "turn"]), max_size=60))
async def test_random_drops_lose_no_event_without_a_resync(steps: list[str]) -> None:
    history = History(size=10)
    async with scripted() as server, asyncio.TaskGroup() as serving:
        peers: list[Peer] = []

        async def accept() -> None:
            while True:
                peers.append(await server._peers.get())
                serving.create_task(history.serve(peers[-1]))

        accepting = asyncio.create_task(accept())
        items: list[Event | Resync] = []
        options: dict[str, Any] = {"first_wait": 0.001, "longest_wait": 0.002, "proxy": None, "buffer": 300}
        async with connect(server.url, **options) as client, client.subscribe(ROUTE) as entered:
            for step in steps:
                if step == "publish":
                    history.publish()
                elif step == "burst":
                    for _ in range(8):
                        history.publish()
                elif step == "drop":
                    peers[-1].drop()
                elif step == "take" and entered._buffer:
                    items.append(await following(entered))
                else:
                    for _ in range(5):
                        await asyncio.sleep(0)
            history.publish()
            async with asyncio.timeout(WAIT):
                while not items or entered.position != Position("e1", history.offset):
                    items.append(await anext(entered))
            peers[-1].drop()  # this server does not reply to `unsubscribe`
        accepting.cancel()
    at = 0
    for item in items:
        if isinstance(item, Resync):
            assert item.position is not None
            assert item.position.offset >= at
            at = item.position.offset
        else:
            assert item.offset == at + 1 == item.data
            at += 1
    assert at == history.offset


# ---------------------------------------------------------------------------------------------------- our own server


async def test_a_real_server_recovers_missed_events(serve: Callable[..., Server]) -> None:
    server = serve(WSAction([path("ws/", Boards.as_asgi())]))
    options: dict[str, Any] = {"first_wait": 0.01, "longest_wait": 0.02, "proxy": None}
    async with (
        relayed(server.port) as relay,
        connect(server.url("/ws/"), proxy=None) as writer,
        connect(relay.url("/ws/"), **options) as client,
        client.subscribe(ROUTE, snapshot=True) as board,
    ):
        assert board.snapshot == "all of it"
        await writer.call("move", ROUTE, to=1)
        assert (await following(board)).data == 1
        relay.cut()
        for to in range(2, 12):
            await writer.call("move", ROUTE, to=to)
        relay.is_open = True
        assert [(await following(board)).data for _ in range(10)] == list(range(2, 12))
        relay.cut()
        for to in range(80):  # more than fit into the history (50) and the ring of the process (64)
            await writer.call("move", ROUTE, to=to)
        relay.is_open = True
        assert await following(board) == Resync(board.position, "all of it")
        await writer.call("move", ROUTE, to=99)
        assert (await following(board)).data == 99
        async with client.subscribe("boards/08/") as other:  # canonical: boards/8/
            await writer.call("move", "boards/8/", to=1)
            assert (await following(other)).data == 1
        elsewhere = client.events()
        await client.send("poke", "boards/8/")
        assert (await anext(elsewhere)).event == "poked"


@pytest.mark.slow
@needs_redis_server
async def test_a_killed_and_restarted_server_loses_no_event(tmp_path: Path) -> None:
    ports = kept_port(), kept_port()
    redis, states = RedisServer(tmp_path), States()
    options: dict[str, Any] = {"first_wait": 0.05, "longest_wait": 0.1, "proxy": None, "on_state": states}
    redis.start()
    try:
        with serving(ports[0], redis.url) as first, serving(ports[1], redis.url):
            for port in ports:
                await listening(port)
            async with (
                connect(f"ws://127.0.0.1:{ports[1]}/ws/", proxy=None) as publisher,
                connect(f"ws://127.0.0.1:{ports[0]}/ws/", **options) as client,
                client.subscribe(ROUTE) as board,
            ):

                async def publish(*numbers: int) -> None:
                    for number in numbers:
                        await publisher.call("move", ROUTE, data={"card": number})

                await publish(1, 2)
                first.kill()
                await states.reach("waiting")
                await publish(*range(3, 40))
                with serving(ports[0], redis.url):
                    await publish(40)
                    items = [await following(board) for _ in range(40)]
                    await publish(41)
                    items.append(await following(board))
        assert [item.data["card"] if isinstance(item, Event) else item for item in items] == [*range(1, 42)]
    finally:
        redis.kill()
