"""`wsaction.layers._redis_presence`: users per topic, in memory and over a real Redis, and the cleanup after a process
that died.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.support.redis_servers import RedisServer, needs_redis_server, redis_server
from wsaction.exceptions import LayerUnavailable
from wsaction.layers import _redis_presence
from wsaction.layers._presence_events import encode_join, encode_leave
from wsaction.layers._redis_scripts import ALIVE, RENEW
from wsaction.layers.base import History, Place
from wsaction.layers.memory import MemoryLayer
from wsaction.layers.redis import RedisLayer
from wsaction.testing.layers import Recorder, new_topic

LEASE = 0.4


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as one:
        yield one


@pytest.fixture
async def opened() -> AsyncIterator[Any]:
    """``await opened(layer)`` opens a layer until the end of the test and returns its sink."""
    async with AsyncExitStack() as stack:

        async def open_(layer: Any) -> Recorder:
            sink = Recorder()
            await layer.open(sink)
            stack.push_async_callback(layer.close)
            return sink

        yield open_


HISTORY = History(100, 60)


def place(history: History | None = HISTORY) -> Place:
    topic = new_topic()
    return Place(topic, f"of {topic}", history)


def received(sink: Recorder) -> list[tuple[str, str, int]]:
    """Event, user and offset of every message."""
    messages = [(json.loads(body), offset) for _, _, offset, body in sink.messages]
    return [(message["event"], message["data"]["user"], offset) for message, offset in messages]


async def subscribe(layer: Any, sink: Recorder, where: Place) -> None:
    layer.subscribe(where.topic)
    await sink.until(lambda: where.topic in sink.confirmed)


async def until_there(layer: Any, where: Place, counts: dict[str, int]) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                if await layer.roster.who(where.topic) == counts:
                    return
            except LayerUnavailable:
                pass
            await asyncio.sleep(0.01)


async def kill(layer: RedisLayer) -> None:
    """Ends a layer as ``kill -9`` does, without closing it."""
    session, layer._opened = layer._opened, None
    assert session is not None
    await session._tasks.stop()


async def test_in_memory_the_first_joins_and_the_last_leaves(opened: Any) -> None:
    layer, where = MemoryLayer(), place()
    sink = await opened(layer)
    await subscribe(layer, sink, where)
    for user, by in (("ada", 1), ("ada", 1), ("bob", 1), ("ada", -1), ("ada", -1), ("bob", -1), ("bob", -1)):
        layer.roster.change(where, user, by)
        if user == "bob" and by == 1:
            assert await layer.roster.who(where.topic) == {"ada": 2, "bob": 1}
    assert received(sink) == [("join", "ada", 1), ("join", "bob", 2), ("leave", "ada", 3), ("leave", "bob", 4)]
    assert json.loads(sink.messages[0][3])["route"] == where.route
    assert (await layer.roster.who(where.topic), layer.roster._counts) == ({}, {})


@needs_redis_server
@pytest.mark.parametrize("history", [History(100, 60), None])
async def test_over_redis_users_are_counted_across_processes(
    server: RedisServer, opened: Any, history: History | None
) -> None:
    one, other = RedisLayer(server.url), RedisLayer(server.url)
    where = place(history)
    sink = await opened(one)
    await opened(other)
    await subscribe(one, sink, where)
    one.roster.change(where, "ada", 1)
    await until_there(other, where, {"ada": 1})
    other.roster.change(where, "ada", 1)
    other.roster.change(where, 'b"\u2028ö', 1)
    await until_there(one, where, {"ada": 2, 'b"\u2028ö': 1})
    one.roster.change(where, "ada", -1)
    await until_there(other, where, {"ada": 1, 'b"\u2028ö': 1})
    assert await other.roster.who(where.topic) == {"ada": 1, 'b"\u2028ö': 1}
    await other.close()  # which removes its users
    assert await one.roster.who(where.topic) == {}
    await sink.until(lambda: len(sink.messages) == 4)
    assert [event[:2] for event in received(sink)][:2] == [("join", "ada"), ("join", 'b"\u2028ö')]
    assert sorted(event[:2] for event in received(sink))[2:] == [("leave", "ada"), ("leave", 'b"\u2028ö')]
    assert [offset for *_, offset in received(sink)] == ([1, 2, 3, 4] if history else [0, 0, 0, 0])


@needs_redis_server
@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_several_routes_of_one_topic_count_together(server: RedisServer, opened: Any, kind: str) -> None:
    layer: Any = MemoryLayer() if kind == "memory" else RedisLayer(server.url)
    one = place()
    other, sink = Place(one.topic, "another/", one.history), await opened(layer)
    await subscribe(layer, sink, one)
    for where, by, count in ((one, 1, 1), (other, 1, 2), (one, -1, 1)):
        layer.roster.change(where, "ada", by)
        await until_there(layer, one, {"ada": count})
    layer.roster.change(other, "ada", -1)
    await until_there(layer, one, {})
    await sink.until(lambda: len(sink.messages) == 2)
    assert received(sink) == [("join", "ada", 1), ("leave", "ada", 2)]


@needs_redis_server
async def test_a_killed_process_is_removed(server: RedisServer, opened: Any) -> None:
    one, dead = RedisLayer(server.url, lease=LEASE), RedisLayer(server.url, lease=LEASE)
    where = place()
    sink = await opened(one)
    await dead.open(Recorder())
    await subscribe(one, sink, where)
    one.roster.change(where, "ada", 1)
    dead.roster.change(where, "ada", 2)
    dead.roster.change(where, "bob", 1)
    await until_there(one, where, {"ada": 3, "bob": 1})
    await kill(dead)
    await until_there(one, where, {"ada": 1})
    await sink.until(lambda: received(sink)[-1][:2] == ("leave", "bob"))
    assert [event for event, *_ in received(sink)].count("leave") == 1
    await until_gone(server, dead)


async def until_gone(server: RedisServer, layer: RedisLayer) -> None:
    """Waits until Redis has data of running processes only."""
    async with Redis.from_url(server.url) as admin, asyncio.timeout(10):
        while await admin.zcard("wsaction:{}:ended"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        living = {name.decode() for name in await admin.zrange("wsaction:{}:processes", 0, -1)}
        kept = [key.decode().rpartition(":")[2] async for key in admin.scan_iter("wsaction:{}:places:*")]
        assert set(kept) <= living


@needs_redis_server
async def test_a_paused_process_takes_a_new_lease_and_writes_again(server: RedisServer, opened: Any) -> None:
    one, paused = RedisLayer(server.url, lease=LEASE), RedisLayer(server.url, lease=LEASE)
    where = place()
    await opened(one)
    await opened(paused)
    one.roster.change(where, "ada", 1)
    paused.roster.change(where, "bob", 1)
    await until_there(one, where, {"ada": 1, "bob": 1})
    name = paused.roster.process
    async with Redis.from_url(server.url) as admin:
        await admin.zadd("wsaction:{}:processes", {name: 1})  # the lease has expired
    async with asyncio.timeout(10):
        while paused.roster.process == name:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await until_there(one, where, {"ada": 1, "bob": 1})
    await until_gone(server, paused)


@needs_redis_server
async def test_late_writes_of_an_expired_lease_are_removed(
    server: RedisServer, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, where = RedisLayer(server.url, lease=LEASE), place()
    await opened(one)
    roster: Any = one.roster
    roster.change(where, "bob", 1)
    await until_there(one, where, {"bob": 1})
    name, run = roster.process, roster._requests.run
    async with Redis.from_url(server.url) as admin:

        async def run_slowly(script: Any, keys: Any, *args: Any) -> Any:
            answer = await run(script, keys, *args)
            if script is RENEW and args[0] == name and not answer[0]:
                await roster._remove_process(name)  # as another process may do
                await roster._write(name, {(where.topic, "bob"): where})
            return answer

        monkeypatch.setattr(roster._requests, "run", run_slowly)
        await admin.zadd("wsaction:{}:processes", {name: 1})
        async with asyncio.timeout(10):
            while roster.process in ("", name):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    await until_there(one, where, {"bob": 1})
    await until_gone(server, one)


@needs_redis_server
@pytest.mark.parametrize("change", ["the last user leaves", "the lease is lost"])
async def test_an_unknown_process_is_removed_despite_a_change_meanwhile(
    server: RedisServer, opened: Any, change: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, where = RedisLayer(server.url, lease=LEASE), place()
    sink = await opened(one)
    await subscribe(one, sink, where)
    roster: Any = one.roster
    roster.change(where, "ada", 1)
    await until_there(one, where, {"ada": 1})
    async with asyncio.timeout(10):
        while not roster._known_processes:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    leaves = change == "the last user leaves"
    changes = iter([lambda: roster.change(where, "ada", -1) if leaves else roster._drop_lease()])
    people, run, renewed = _redis_presence.presence_key(roster._keys(where.topic)[0]), roster._requests.run, list[str]()

    async def run_and_change(script: Any, keys: Any, *args: Any) -> Any:
        answer = await run(script, keys, *args)
        if script is RENEW:
            renewed.append(args[0])
        elif script is ALIVE and b"ghost" in answer:
            next(changes, lambda: None)()
        return answer

    monkeypatch.setattr(roster._requests, "run", run_and_change)
    async with Redis.from_url(server.url) as foreign:
        await foreign.hset(people, mapping={":eve": "ghost 1", "by": f"{roster.process} ghost"})
    await until_there(one, where, {} if leaves else {"ada": 1})
    await sink.until(lambda: ("leave", "eve") in [event[:2] for event in received(sink)])
    assert "" not in renewed
    assert "could not be updated" not in caplog.text


@needs_redis_server
async def test_a_wiped_redis_gets_everything_again(server: RedisServer, opened: Any) -> None:
    one = RedisLayer(server.url, lease=LEASE)
    where = place()
    await opened(one)
    one.roster.change(where, "ada", 2)
    await until_there(one, where, {"ada": 2})
    server.kill()
    one.roster.change(where, "bob", 1)  # while Redis is down
    server.start()
    await until_there(one, where, {"ada": 2, "bob": 1})
    one.roster.change(where, "ada", -2)
    await until_there(one, where, {"bob": 1})


@needs_redis_server
async def test_interleaved_changes_give_the_right_counts(server: RedisServer, opened: Any) -> None:
    layers = [RedisLayer(server.url, lease=LEASE) for _ in range(3)]
    where, counts = place(), Counter[str]()
    sinks = [await opened(layer) for layer in layers]
    await subscribe(layers[0], sinks[0], where)
    for step in range(200):
        user = "abc"[step % 3]
        layers[step * 7 % 3].roster.change(where, user, 1)
        counts[user] += 1
        if step % 5 == 0:
            await asyncio.sleep(0)
    await until_there(layers[0], where, dict(counts))
    for layer in layers:
        mine = dict(layer.roster._counts)
        for (_, user), (count, _) in mine.items():
            layer.roster.change(where, user, -count)
    await until_there(layers[0], where, {})
    await sinks[0].until(lambda: [event for event, *_ in received(sinks[0])].count("leave") >= 3)
    balance: Counter[str] = Counter()
    for event, user, _ in received(sinks[0]):
        balance[user] += 1 if event == "join" else -1
        assert balance[user] in (0, 1)
    assert not +balance


@needs_redis_server
async def test_foreign_data_does_not_stop_the_roster(
    server: RedisServer, opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    one, where = RedisLayer(server.url, lease=LEASE), place()
    await opened(one)
    async with Redis.from_url(server.url) as foreign:
        await foreign.hset("wsaction:{}:places:foreign", "topic", "no json")
        await foreign.zadd("wsaction:{}:ended", {"foreign": 1})
        one.roster.change(where, "ada", 1)
        await until_there(one, where, {"ada": 1})
        async with asyncio.timeout(10):
            while caplog.text.count("presence in Redis could not be updated") < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await foreign.delete("wsaction:{}:places:foreign")
        await until_gone(server, one)


@needs_redis_server
async def test_the_lease_is_renewed_during_a_long_cleanup(
    server: RedisServer, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, where, forgetting = RedisLayer(server.url, lease=LEASE), place(), asyncio.Event()

    async def forget(process: str) -> None:
        forgetting.set()
        await asyncio.Event().wait()  # a cleanup that takes long

    await opened(one)
    monkeypatch.setattr(one.roster, "_remove_process", forget)
    one.roster.change(where, "ada", 1)
    await until_there(one, where, {"ada": 1})
    async with Redis.from_url(server.url) as foreign, asyncio.timeout(20):
        await foreign.zadd("wsaction:{}:ended", {"ended": 1})
        await forgetting.wait()
        seconds, microseconds = await foreign.time()
        later = seconds + microseconds / 1e6 + 2 * LEASE
        while (await foreign.zscore("wsaction:{}:processes", one.roster.process) or 0) < later:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@needs_redis_server
async def test_a_process_without_users_takes_no_lease(server: RedisServer, opened: Any) -> None:
    one = RedisLayer(server.url, lease=LEASE)
    sink = await opened(one)
    await subscribe(one, sink, place())
    server.kill()
    server.start()
    await sink.until(lambda: len(sink.confirmed) == 2)
    assert await one.roster.who("nowhere/") == {}
    assert one.roster.process == ""


@needs_redis_server
async def test_empty_topics_are_forgotten(server: RedisServer, opened: Any) -> None:
    one, stays, places = RedisLayer(server.url, lease=LEASE), place(), [place() for _ in range(20)]
    await opened(one)
    one.roster.change(stays, "ada", 1)
    for user in "ab":
        for where in places:
            one.roster.change(where, user, 1)
    for where in places:
        await until_there(one, where, {"a": 1, "b": 1})
    for user in "ab":
        for where in places:
            one.roster.change(where, user, -1)
    one.roster.change(places[0], "c", 1)
    kept = {stays.topic, places[0].topic}
    async with Redis.from_url(server.url) as admin, asyncio.timeout(10):
        noted = f"wsaction:{{}}:places:{one.roster.process}"
        while {topic.decode() for topic in await admin.hkeys(noted)} != kept:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert set(one.roster._users) == kept
    await until_there(one, places[0], {"c": 1})


@needs_redis_server
async def test_too_many_unwritten_changes_are_replaced_by_a_rewrite(
    server: RedisServer, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_redis_presence, "MAX_UNWRITTEN", 5)
    one, other, where = RedisLayer(server.url, lease=LEASE), RedisLayer(server.url, lease=LEASE), place()
    await opened(one)
    await opened(other)
    other.roster.change(where, "eve", 1)
    one.roster.change(where, "ada", 1)
    await until_there(one, where, {"ada": 1, "eve": 1})
    name = one.roster.process
    for number in range(10):
        one.roster.change(where, f"u{number}", 1)
        one.roster.change(where, f"u{number}", -1)
    one.roster.change(where, "bob", 1)
    assert len(one.roster._unwritten) <= 6
    await until_there(one, where, {"ada": 1, "bob": 1, "eve": 1})
    assert one.roster.process not in ("", name)


def test_presence_events_are_compact_utf8() -> None:
    place = Place("topic", "rooms/7/", None)
    assert encode_join(place, "ö\ud800").decode() == '{"event":"join","route":"rooms/7/","data":{"user":"ö?"}}'
    assert encode_leave(place, "1").decode() == '{"event":"leave","route":"rooms/7/","data":{"user":"1"}}'
