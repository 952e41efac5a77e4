"""Layers under random faults in virtual time: failovers, lost presence keys, lost commands about users, and histories
that are dropped for their size. A failing seed fails again."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.support.fake_redis import FakeRedisLayer, FakeServer
from tests.support.hub_simulation import FakeSubscriber
from tests.support.schedules import SCHEDULES
from tests.support.virtual_time import now, run
from wsaction._events.users import Users
from wsaction._protocol.event_frames import encode_event
from wsaction._pubsub.hub import Hub
from wsaction._pubsub.topic import Rings
from wsaction.exceptions import LayerUnavailable
from wsaction.layers._redis_pipeline import RedisConnection
from wsaction.layers.base import History, Place, Position
from wsaction.layers.memory import MemoryLayer

SEEDS = SCHEDULES // 4  # seeds per simulation in the slow tests
SLICE = 8  # seeds per simulation in every run
HISTORY = History(50, 60)


class Ears(FakeSubscriber):
    """Records events and their times."""

    def __init__(self) -> None:
        super().__init__(lambda text: self.heard.append((now(), json.loads(text))))
        self.heard: list[tuple[float, Any]] = []


# -- a failover -------------------------------------------------------------------------------------------------------
async def failover(rng: random.Random, _: pytest.MonkeyPatch) -> list[Any]:
    """Each subscriber gets every acknowledged event or a notice of loss, with and without history."""
    server, history = FakeServer(rng), rng.choice((None, None, HISTORY))
    hubs = [Hub(FakeRedisLayer(server, ping_interval=0.2), linger=0.0, check_interval=1.0) for _ in range(3)]
    ears = [Ears() for _ in range(4)]
    for number, one in enumerate(ears):  # one process only publishes
        await hubs[number % 2].join(one, "t", "t", reply=lambda *_: "{}", history=history)
    acknowledged: dict[int, float] = {}
    demotions = sorted(rng.random() * 3 for _ in range(rng.randint(1, 2)))
    for number in range(30):
        await asyncio.sleep(rng.random() * 0.2)
        if demotions and now() > demotions[0]:
            demotions.pop(0)
            server.demote()
        begun = now()
        try:
            await rng.choice(hubs).publish("t", encode_event("moved", "t", str(number)), history)
        except LayerUnavailable:
            continue
        acknowledged[number] = begun
    await asyncio.sleep(5.0)
    faults = []
    for at, one in enumerate(ears):
        told = [when for when, message in one.heard if message.get("event") == "$resync"]
        heard = [message["data"] for _, message in one.heard if message.get("event") == "moved"]
        if heard != sorted(set(heard)):
            faults.append((at, "order", heard))
        missing = [number for number in acknowledged if number not in heard]
        faults += [(at, "missing", number) for number in missing if not any(t > acknowledged[number] for t in told)]
        one.close()
    for hub in hubs:
        await hub.close()
    return faults if len(acknowledged) > 3 else [*faults, "nothing was published"]


# -- a lost key of presence -------------------------------------------------------------------------------------------
DELAY = 0.5  # longest delay of a reply in seconds
LEASE = 4 * DELAY


async def lost_presence(rng: random.Random, _: pytest.MonkeyPatch) -> list[Any]:
    """Presence is right again within four leases, and no present user is reported as gone."""
    server = FakeServer(rng)
    where = Place("room/", "room/", rng.choice((None, HISTORY)))
    layers = [FakeRedisLayer(server, lease=LEASE) for _ in range(3)]
    hub = Hub(layers[0], linger=0.0, check_interval=1.0)
    await hub.open()
    for layer in layers[1:]:
        await layer.open(Hub(layer))
    ears = Ears()
    await hub.join(ears, "room/", "room/", reply=lambda *_: "{}", history=where.history)
    counts, alone = Counter[tuple[int, str]](), dict[str, float]()  # since when a user is present without a break
    changes = list[tuple[float, str, int]]()
    faults = list[Any]()

    def step() -> None:
        at, name = rng.randrange(3), rng.choice("abc")
        by = -1 if counts[at, name] and rng.random() < 0.5 else 1
        counts[at, name] += by
        changes.append((now(), name, by))
        layers[at].roster.change(where, name, by)
        if not sum(counts[one, name] for one in range(3)):
            alone.pop(name, None)
        else:
            alone.setdefault(name, now())

    for _ in range(rng.randint(1, 3)):
        for _ in range(rng.randint(1, 6)):
            step()
            await asyncio.sleep(rng.random() * 0.4)
        await asyncio.sleep(1.0)
        heard = len(ears.heard)
        lose(server, rng)
        for _ in range(rng.randint(0, 4)):
            step()
            await asyncio.sleep(rng.random() * 0.4)
        await asyncio.sleep(4 * LEASE)
        wanted = {name: total for name in "abc" if (total := sum(counts[one, name] for one in range(3)))}
        if (found := await layers[0].roster.who("room/")) != wanted:
            faults.append(("presence", found, wanted))
        for when, message in ears.heard[heard:]:
            if (
                message.get("event") != "leave"
                or alone.get(user := message["data"]["user"], when) >= when - 1.5 * LEASE
            ):
                continue
            # A user who leaves in one process and joins in another may leave first, by what reaches Redis first.
            crossed = {by for at, name, by in changes if name == user and when - 2 * DELAY < at <= when}
            if crossed != {-1, 1}:
                faults.append(("a false leave", when, message))
    ears.close()
    await hub.close()
    for layer in layers[1:]:
        await layer.close()
    return faults


def lose(server: FakeServer, rng: random.Random) -> None:
    kinds: list[dict[bytes, Any]] = [server.people, server.topics, server.hashes, server.leases]
    kept = rng.choice(kinds if rng.random() < 0.5 else kinds[:1])
    for key in list(kept)[:1]:
        del kept[key]


# -- commands about users between processes ---------------------------------------------------------------------------
class Cuttable(FakeRedisLayer):
    """A layer whose process can be cut off from Redis."""

    is_cut = False

    async def _connect(self) -> RedisConnection:
        if self.is_cut:
            raise ConnectionError("cut off")
        link: Any = await super()._connect()
        link.layer = self
        return link  # type: ignore[no-any-return]

    def cut(self) -> None:
        self.is_cut = True
        for link in self._server.sorted_links():
            if getattr(link, "layer", None) is self:
                link.cut()


class FakeConnection:
    """A user's connection, which closes at once."""

    def __init__(self) -> None:
        self.code, self.told = 0, list[Any]()

    def close(self, code: int, reason: str) -> None:
        self.code = self.code or code

    def put(self, text: str) -> None:
        self.told.append(json.loads(text))


class FakeSession:
    """A session without subscriptions."""

    rechecks = 0

    def __init__(self, name: str) -> None:
        self.scope, self.connection = {"user": name}, FakeConnection()
        self.grants, self.streams = dict[str, Any](), dict[str, Any]()


async def lost_words(rng: random.Random, _: pytest.MonkeyPatch) -> list[Any]:
    """A disconnected user is closed everywhere; later connections stay. A lost push is reported to its user."""
    server = FakeServer(rng)
    layers = [Cuttable(server, ping_interval=0.2) for _ in range(3)]
    hubs = [Hub(layer, linger=0.0, check_interval=1.0) for layer in layers]
    users = [Users(lambda hub=hub: hub, str, shared=True) for hub in hubs]  # type: ignore[misc]
    sessions = list[tuple[float, str, Any]]()
    asked = set[str]()  # users to disconnect, acknowledged or not
    disconnected, pushed = list[tuple[float, str]](), list[tuple[float, str, int]]()
    for one in users:
        one.start_listening()
    await asyncio.gather(*(one.is_subscribed.wait() for one in users))
    for number in range(rng.randint(10, 25)):
        drawn, at, name = rng.random(), rng.randrange(3), rng.choice("abcd")
        if drawn < 0.25:
            session = FakeSession(name)
            sessions.append((now(), name, session))
            with users[at].authenticating(session):
                pass
        elif drawn < 0.6:
            begun = now()
            try:
                if rng.random() < 0.5:
                    asked.add(name)
                    await users[at].send_command("disconnect", name, reason="")
                    disconnected.append((begun, name))
                else:
                    text = encode_event("news", "", str(number))
                    await users[at].send_command("push", name, text=text)
                    pushed.append((begun, name, number))
            except LayerUnavailable:
                continue
        elif drawn < 0.75:
            layers[at].cut()
        elif drawn < 0.8:
            for layer in layers:
                layer.is_cut = False
        elif any(layer.is_cut for layer in layers):
            for key in [key for key in server.topics if b"%24" in key]:
                del server.topics[key]
        await asyncio.sleep(rng.random() * 0.5)
    for layer in layers:
        layer.is_cut = False
    await asyncio.sleep(25.0)  # `$resync` is sent at intervals
    faults = list[Any]()
    for noted, name, session in sessions:
        connection = session.connection
        if not connection.code:
            faults += [("stays", name, noted, at) for at, who in disconnected if who == name and noted < at]
            missed = [
                number
                for at, who, number in pushed
                if who == name and noted < at and number not in [one["data"] for one in connection.told]
            ]
            if missed and not any(one["event"] == "$resync" for one in connection.told):
                faults.append(("a push is lost", name, missed))
        elif connection.code == 4403 and name not in asked:
            faults.append(("closed without cause", name))
    for one, hub in zip(users, hubs, strict=True):
        await one.stop()
        await hub.close()
    return faults


# -- too many bytes ---------------------------------------------------------------------------------------------------
async def too_many_bytes(rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A history that was dropped for its size is never delivered in part."""
    rings = Rings(ring_bytes=rng.choice((500, 3_000, 262_144)), max_bytes=rng.choice((1_000, 10_000, 16_777_216)))
    most, of_one = rng.choice((2_000, 10_000)), rng.choice((500, 2_000, 20_000))
    layer = MemoryLayer(max_bytes=most, max_topic_bytes=of_one)
    hub = Hub(layer, linger=rng.choice((0.0, 1.0)), check_interval=1e6, rings=rings)
    at: dict[str, Position] = {}
    published, faults = Counter[str](), list[Any]()
    for number in range(80):
        topic = rng.choice(("t1", "t2", "t3", "t4"))
        if rng.random() < 0.7:
            data = json.dumps([number, "x" * rng.choice((10, 100, 1_500))])
            if await hub.publish(topic, encode_event("moved", topic, data), HISTORY) is not None:
                published[topic] += 1
        else:
            ears = Ears()
            told = list[tuple[Position, bool | None]]()

            def reply(position: Position, recovered: bool | None, _: Any, told: Any = told) -> str:
                told.append((position, recovered))
                return "{}"

            since = at.get(topic)
            await hub.join(ears, topic, topic, reply=reply, history=HISTORY, since=since)
            await asyncio.sleep(0.01)
            (position, recovered), offsets = told[0], [one["offset"] for _, one in ears.heard if "offset" in one]
            wanted = list(range(since.offset + 1, published[topic] + 1)) if since and recovered else []
            if offsets != wanted or (recovered is not None) != (since is not None):
                faults.append((topic, since, recovered, offsets, wanted))
            at[topic] = Position(position.epoch, published[topic])
            hub.leave_all(ears)
            ears.close()
        await asyncio.sleep(rng.random())
        rings = sum(one.ring_size for one in hub._topics.values())
        if layer._size > most or any(log.size > of_one for log in layer._logs.values()) or rings != hub._rings.size:
            faults.append(("bytes", layer._size, rings))
    await hub.close()
    return faults


# -- all of them ------------------------------------------------------------------------------------------------------
Simulation = Callable[[random.Random, pytest.MonkeyPatch], Coroutine[Any, Any, list[Any]]]
SIMULATIONS: tuple[Simulation, ...] = (failover, lost_presence, lost_words, too_many_bytes)


def faults_of(simulation: Simulation, seeds: range) -> dict[int, list[Any]]:
    found = {}
    for seed in seeds:
        random.seed(seed)  # the back-off's
        with pytest.MonkeyPatch.context() as patch:
            epochs = itertools.count()
            patch.setattr("wsaction.layers.redis.new_epoch", lambda epochs=epochs: f"e{next(epochs)}")
            found[seed] = run(simulation(random.Random(seed), patch))
    return {seed: faults for seed, faults in found.items() if faults}


@pytest.mark.parametrize("simulation", SIMULATIONS, ids=lambda one: one.__name__)
def test_what_is_promised_holds(simulation: Simulation) -> None:
    assert faults_of(simulation, range(SLICE)) == {}


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("part", range(10))
@pytest.mark.parametrize("simulation", SIMULATIONS, ids=lambda one: one.__name__)
def test_what_is_promised_holds_in_thousands_of_schedules(simulation: Simulation, part: int) -> None:
    size = SEEDS // 10
    assert faults_of(simulation, range(SLICE + part * size, SLICE + (part + 1) * size)) == {}
