"""`wsaction._pubsub.hub` and `RedisLayer` under random faults: each client gets all events, or a notice of loss.

The tests run in virtual time over a fake Redis, so that a failing seed fails again in the same way. `test_redis` uses a
real Redis.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pytest

from tests.support.fake_redis import FakeLink, FakeRedisLayer, FakeServer
from tests.support.hub_simulation import World
from tests.support.schedules import SCHEDULES
from tests.support.virtual_time import now, run
from wsaction._protocol.event_frames import encode_event
from wsaction._pubsub.subscription import QueueLimits
from wsaction._pubsub.topic import Rings
from wsaction.layers import redis


def simulate(seed: int, monkeypatch: pytest.MonkeyPatch, *, gentle: bool = False, short: bool = False) -> World:
    """Runs one simulation. ``gentle``: nothing is lost and no publication fails, so no notice of loss may come.
    ``short``: a small one, so that thousands can run."""
    rng = random.Random(seed)
    random.seed(seed)  # for the back-off
    FakeLink.numbers = itertools.count()
    epochs, ticks = itertools.count(), random.Random(seed)
    monkeypatch.setattr(redis, "new_epoch", lambda: f"e{next(epochs)}")
    events = rng.choice((1, 8, 64))
    queue_limits = QueueLimits(
        max_backlog=rng.choice((4, 16, 1024)),
        max_collected=rng.choice((4, 16, 1024)),
        max_held=rng.choice((1024,) * 3 if gentle else (4, 16, 1024)),  # events beyond it are lost
        skips_before_position=rng.choice((3, 100)),
    )
    chunk = rng.choice((1, 3, 64))

    async def live() -> World:
        server = FakeServer(rng)
        if not gentle and seed % 4 == 0:
            server.quiet_loss = 0.03

        def options() -> dict[str, Any]:
            return {
                "linger": rng.choice((0.0, 0.05, 1.0)),
                "check_interval": 1.0 if server.quiet_loss else rng.choice((1.0, 1e6)),
                "join_timeout": 4.0,
                "max_fill": 1000 if gentle else rng.choice((50, 1000)),
                "fanout_chunk": chunk,
                "fanout_clock": lambda: ticks.random() * 0.003 + now(),
                "rings": Rings(events=events),
                "queue_limits": queue_limits,
            }

        world = World(
            rng,
            lambda: FakeRedisLayer(server),
            clients=4 if short else 14,
            topics=1 if short else 3,
            history=5000 if gentle else rng.choice((20, 200)),
            gentle=gentle,
            apart=seed % 4 == 1,
            options=options,
        )
        seconds = 0.8 if short else 8.0
        await world.live(lambda world: trouble(world, server, seconds), pause=rng.choice((0.02, 0.1)))
        return world

    return run(live())


async def trouble(world: World, server: FakeServer, seconds: float) -> None:
    """Causes faults for some seconds."""
    rng, end = world.rng, now() + seconds
    most = 1 if world.gentle or seconds < 1 else 3
    restarts = sorted(now() + rng.uniform(seconds / 8, seconds) for _ in range(rng.randint(0, most)))
    while now() < end:
        await asyncio.sleep(rng.random() * 0.15)
        if restarts and now() > restarts[0]:
            restarts.pop(0)
            await restart(world, server)
        elif world.gentle:
            await mild_trouble(world, server)
        else:
            await any_trouble(world, server)


async def any_trouble(world: World, server: FakeServer) -> None:
    rng, count = world.rng, world.count
    keys = [key.encode() for key in FakeRedisLayer(server).keys(rng.choice(world.topics))]
    kept, drawn = server.topics.get(keys[0]), rng.random()
    if drawn < 0.20 and server.links:
        rng.choice(server.sorted_links()).cut(silent=rng.random() < 0.2)
        count["cuts"] += 1
    elif drawn < 0.22 and kept:
        kept.stream.clear()
        count["streams_evicted"] += 1
    elif drawn < 0.235 and kept:
        del server.topics[keys[0]]
        count["metas_evicted"] += 1
    elif drawn < 0.25:
        next_one = b"foreign %d\n" % (kept.offset + 1 if kept else 1)
        event = encode_event("updated", world.topics[0], '{"by":-1,"n":1,"key":"","version":0}').encode()
        server.publish(keys[2], rng.choice([next_one + event, next_one, b"\xff 1\n", b"zz", b"e0 1\n{", b"- 7\n{}"]))
        count["foreign"] += 1
    elif drawn < 0.27:
        await world.restart_node()
    elif drawn < 0.4:
        world.hold_one()
    else:
        world.drop_some()


async def mild_trouble(world: World, server: FakeServer) -> None:
    drawn = world.rng.random()
    listening = [link for link in server.sorted_links() if link.channels]
    if drawn < 0.3 and listening:
        listening[0].cut()
        world.count["cuts"] += 1
    elif drawn < 0.8:
        world.drop_some()
    elif drawn < 0.9:
        world.hold_one()
    else:
        await world.quiet()
        await world.restart_node()
        world.paused = False


async def restart(world: World, server: FakeServer) -> None:
    rng = world.rng
    if world.gentle or rng.random() < 0.6:
        await world.quiet()
    drawn = rng.random()
    lost = rng.random() if drawn < 0.6 and not world.gentle else 0.0
    server.stop(lost, wiped=drawn > 0.85 and not world.gentle)
    await asyncio.sleep(rng.random())
    server.start()
    world.count["restarts"] += 1
    if world.gentle:
        await asyncio.sleep(2.0)  # until all are connected again, so that no publication fails
    world.paused = False


def check(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = simulate(seed, monkeypatch)
    assert world.faults() == []
    count = world.count
    assert count["acknowledged"] > 40
    # More than was published, over all clients: of what was not delivered somebody was told instead.
    assert count["delivered"] + count["$resync"] + count["recovered_False"] > count["acknowledged"]


def check_gentle(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = simulate(seed, monkeypatch, gentle=True)
    assert world.faults() == []
    assert (world.count["$resync"], world.count["recovered_False"]) == (0, 0)
    assert world.count["recovered_True"] > 10


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_each_client_has_all_in_order_or_was_told(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check(seed, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4, 44))
def test_the_same_at_length(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check(seed, monkeypatch)


def test_where_nothing_is_lost_nobody_is_told_of_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    check_gentle(1_000, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1_001, 1_015))
def test_where_nothing_is_lost_nobody_is_told_of_a_loss_at_length(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check_gentle(seed, monkeypatch)


def check_short(seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in seeds:
        with monkeypatch.context() as patch:
            assert (seed, simulate(seed, patch, short=True).faults()) == (seed, [])


def test_small_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    check_short(range(10_000, 10_012), monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("block", range(SCHEDULES // 250))
def test_thousands_of_small_worlds(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check_short(range(20_000 + 250 * block, 20_000 + 250 * (block + 1)), monkeypatch)
