"""`wsaction.layers`: the contract of every layer, run on each; positions and histories; what the memory layer drops."""

import asyncio
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.support.redis_servers import PROGRAM, URL, needs_redis, needs_redis_server, redis_server
from tests.support.virtual_time import run
from wsaction.exceptions import ImproperlyConfigured
from wsaction.layers.base import History, Layer, Position, new_epoch
from wsaction.layers.memory import MemoryLayer
from wsaction.layers.redis import RedisLayer
from wsaction.testing.layers import HISTORY, LayerContract, Recorder, event_body


class TestMemoryLayer(LayerContract):
    def make(self) -> Layer:
        return MemoryLayer()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server for all tests that leave it intact."""
    if URL:
        yield URL
        return
    directory: Path = tmp_path_factory.mktemp("redis")
    with redis_server(directory) as server:
        yield server.url


@needs_redis
class TestRedisLayer(LayerContract):
    shared = True

    @pytest.fixture(autouse=True)
    def _url(self, redis_url: str) -> None:
        self.url = redis_url

    def make(self) -> Layer:
        return RedisLayer(self.url, prefix="wsaction-test:")


def test_the_contract_asks_for_a_layer() -> None:
    with pytest.raises(NotImplementedError, match="make"):
        LayerContract().make()


async def test_a_broken_layer_fails_the_contract_with_a_reason() -> None:
    class Forgetful(MemoryLayer):
        async def publish(self, topic: str, body: bytes, history: History | None) -> Position | None:
            at = await super().publish(topic, body, history)
            return at and Position(at.epoch, 1)

    class TestForgetful(LayerContract):
        def make(self) -> Layer:
            return Forgetful()

    with pytest.raises(AssertionError, match=r"expected 1, 2, 3, got \[Position"):
        await TestForgetful().test_a_topic_begins_at_0_and_counts_in_one_epoch()


def test_importing_the_contract_does_not_import_pytest() -> None:
    code = "import sys, wsaction.testing.layers; print('pytest' in sys.modules, 'redis' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert out.stdout.split() == ["False", "False"]


def test_the_redis_layer_says_how_to_install_redis_py() -> None:
    code = "import sys; sys.modules['redis'] = None; sys.modules['redis.asyncio'] = None; import wsaction.layers.redis"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert 'RedisLayer needs redis-py: pip install "wsaction[redis]"' in out.stderr


# -- positions and histories ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, -1, 1.5, True, None, 1_000_001])
def test_an_invalid_history_size_is_refused(size: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="1 to 1,000,000 events"):
        History(size)


@pytest.mark.parametrize("ttl", [0, -1, float("inf"), float("nan"), True, None, "5", 86_401])
def test_an_invalid_history_ttl_is_refused(ttl: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"0\.001 to 86400 seconds"):
        History(10, ttl)


def test_defaults_of_histories_and_epochs() -> None:
    assert (History().size, History().ttl) == (100, 300)
    assert Position(new_epoch(), 0).is_sane
    assert new_epoch() != new_epoch()


# -- what the memory layer drops --------------------------------------------------------------------------------------
@contextmanager
def memory_in_virtual_time(**options: int) -> Iterator[Callable[[Callable[[MemoryLayer], Any]], Any]]:
    def run_on_layer(work: Callable[[MemoryLayer], Any]) -> Any:
        async def main() -> Any:
            layer = MemoryLayer(**options)
            await layer.open(Recorder())
            try:
                return await work(layer)
            finally:
                await layer.close()

        return run(main())

    yield run_on_layer


def kept(size: int, ttl: float) -> History:
    """A history that is kept even without subscribers."""
    return History(size, ttl, always=True)


def test_events_expire_and_positions_much_later() -> None:
    async def work(layer: MemoryLayer) -> None:
        first = await layer.publish("a", event_body(1), kept(10, 100))
        assert first is not None
        await layer.publish("b", event_body(1), kept(10, 10))
        await asyncio.sleep(5)
        await layer.publish("a", event_body(2), kept(10, 100))
        await layer.publish("b", event_body(2), kept(10, 10))
        await asyncio.sleep(45)
        assert list(layer._filled) == [100]
        assert list(layer._idle) == ["b"]
        assert (await layer.read("a", first, 10, kept(10, 100))).events == ((2, event_body(2)),)
        await asyncio.sleep(100)
        assert (layer._filled, list(layer._idle)) == ({}, ["b", "a"])
        await layer.publish("a", event_body(3), kept(10, 100))
        await asyncio.sleep(2_000)
        assert (await layer.read("b", None, 0, kept(10, 10))).position.offset == 2
        await asyncio.sleep(2_000)
        assert list(layer._logs) == ["b"]
        await asyncio.sleep(4_000)
        assert (layer._logs, layer._idle, layer._sweeper) == ({}, {}, None)
        again = await layer.publish("a", event_body(1), kept(10, 100))
        assert again is not None
        assert again.offset == 1
        assert again.epoch != first.epoch

    with memory_in_virtual_time() as run_on_layer:
        run_on_layer(work)


def test_idle_positions_are_bounded() -> None:
    async def work(layer: MemoryLayer) -> None:
        for number in range(6):
            await layer.read(f"t{number}", None, 0, HISTORY)
        await layer.read("t3", None, 0, HISTORY)
        await layer.read("t6", None, 0, HISTORY)
        assert list(layer._logs) == ["t3", "t5", "t6"]
        for number in range(6):
            await layer.publish(f"u{number}", event_body(1), kept(1, 1))
        await asyncio.sleep(61)
        assert len(layer._logs) == 3

    with memory_in_virtual_time(max_idle_topics=3) as run_on_layer:
        run_on_layer(work)


def test_topics_with_events_are_bounded() -> None:
    async def work(layer: MemoryLayer) -> None:
        short, long = kept(10, 30), kept(10, 60)
        histories = {"a": long, "b": short, "c": long}
        start = {topic: (await layer.read(topic, None, 0, history)).position for topic, history in histories.items()}
        for topic in ("a", "b", "a", "c"):
            await layer.publish(topic, event_body(1), histories[topic])
            await asyncio.sleep(1)
        assert len((await layer.read("a", start["a"], 10, long)).events or ()) == 2
        page = await layer.read("b", start["b"], 10, short)
        assert (page.position, page.events) == (Position(start["b"].epoch, 1), None)
        await layer.publish("b", event_body(2), short)
        assert (await layer.read("a", start["a"], 10, long)).events is None

    with memory_in_virtual_time(max_topics=2) as run_on_layer:
        run_on_layer(work)


async def test_a_changed_history_applies_from_its_first_use() -> None:
    layer, sink = MemoryLayer(), Recorder()
    await layer.open(sink)
    first = await layer.publish("a", event_body(1), kept(10, 60))
    for number in range(2, 6):
        await layer.publish("a", event_body(number), kept(3, 30))
    assert (await layer.read("a", first, 10, kept(3, 30))).events is None
    await layer.publish("a", event_body(6), kept(3, 30))
    assert list(layer._filled[30]) == ["a"]
    await layer.read("new", None, 0, HISTORY)
    await layer.read("new", None, 0, kept(3, 30))
    assert "new" in layer._idle
    await layer.close()
    layer.subscribe("a")  # the layer is closed: no confirmation
    assert sink.confirmed == []


# -- bounds of histories -----------------------------------------------------------------------------------------------
def big_body(number: int, size: int) -> bytes:
    return event_body(number, "x" * size)


async def offsets_after(layer: Layer, topic: str, start: Position, count: int) -> list[int] | None:
    """The offsets after the first ``count`` events, or None if the layer no longer has all of them."""
    page = await layer.read(topic, Position(start.epoch, start.offset + count), 10_000, HISTORY)
    return None if page.events is None else [offset for offset, _ in page.events]


@contextmanager
def bounded_layers(tmp_path: Path, max_topic_bytes: int) -> Iterator[list[Layer]]:
    layers: list[Layer] = [MemoryLayer(max_topic_bytes=max_topic_bytes)]
    if not PROGRAM:
        yield layers
        return
    with redis_server(tmp_path) as server:
        yield [*layers, RedisLayer(server.url, max_topic_bytes=max_topic_bytes)]


async def test_a_topic_is_bounded_in_bytes_and_keeps_no_holes(tmp_path: Path) -> None:
    with bounded_layers(tmp_path, 10_000) as layers:
        for layer in layers:
            await layer.open(Recorder())
            start = (await layer.read("t", None, 0, HISTORY)).position
            for number in range(1, 41):
                await layer.publish("t", big_body(number, 900), HISTORY)
            assert await offsets_after(layer, "t", start, 0) is None
            newest = await offsets_after(layer, "t", start, 35)
            assert newest == [36, 37, 38, 39, 40]
            await layer.publish("t", big_body(41, 20_000), HISTORY)  # larger than the bound
            assert await offsets_after(layer, "t", start, 40) is None
            assert await offsets_after(layer, "t", start, 41) == []
            await layer.publish("t", big_body(42, 10), HISTORY)
            assert await offsets_after(layer, "t", start, 41) == [42]
            few = History(20, 60)
            for number in range(43, 143):  # the number of events is bounded as before
                await layer.publish("t", event_body(number), few)
            assert await offsets_after(layer, "t", start, 122) == list(range(123, 143))
            assert await offsets_after(layer, "t", start, 110) is None
            await layer.close()


async def test_a_bound_of_bytes_drops_the_oldest_topics_first() -> None:
    layer = MemoryLayer(max_bytes=50_000, max_topic_bytes=20_000)
    await layer.open(Recorder())
    topics = [f"t{number}" for number in range(10)]
    start = {topic: (await layer.read(topic, None, 0, HISTORY)).position for topic in topics}
    for topic in topics:
        for number in range(10):
            await layer.publish(topic, big_body(number, 870), HISTORY)
        await asyncio.sleep(0.002)  # the loop's clock moves on
    offsets = [await offsets_after(layer, topic, start[topic], 0) for topic in topics]
    assert offsets[:6] == [None] * 6
    assert offsets[6:] == [list(range(1, 11))] * 4
    assert layer._size <= 50_000
    assert layer._size == sum(log.size for log in layer._logs.values()) > 35_000
    await layer.invalidate("t9", HISTORY)
    await layer.publish("t8", big_body(11, 30_000), HISTORY)
    assert layer._size == sum(log.size for log in layer._logs.values()) < 30_000
    await layer.close()
    assert layer._size == 0


async def test_events_without_subscribers_are_kept_only_on_request(tmp_path: Path) -> None:
    with bounded_layers(tmp_path, 10_000) as layers:
        for layer in layers:
            await layer.open(Recorder())
            for number in range(3):
                assert await layer.publish("empty", event_body(number), HISTORY) is None
            page = await layer.read("empty", None, 0, HISTORY)
            assert page.position.offset == 0
            first = await layer.publish("always", event_body(1), kept(10, 60))
            assert first is not None
            assert await offsets_after(layer, "always", Position(first.epoch, 0), 0) == [1]
            await layer.close()


def test_a_history_outlasts_a_short_absence_but_no_long_one() -> None:
    history = History(10, 100)

    async def work(layer: MemoryLayer) -> None:
        layer.subscribe("t")
        start = (await layer.read("t", None, 0, history)).position
        layer.unsubscribe("t")
        await asyncio.sleep(99)
        await layer.publish("t", event_body(1), history)
        assert await offsets_after(layer, "t", start, 0) == [1]
        layer.subscribe("t")
        await asyncio.sleep(1_000)
        layer.unsubscribe("t")
        await asyncio.sleep(101)
        for number in (2, 3):
            at = await layer.publish("t", event_body(number), history)
        assert at == Position(start.epoch, 3)
        assert layer._size == 0
        assert await offsets_after(layer, "t", start, 1) is None
        await layer.publish("t", event_body(4), history)  # the topic was read just now
        assert await offsets_after(layer, "t", start, 3) == [4]
        assert await offsets_after(layer, "t", start, 2) is None

    with memory_in_virtual_time() as run_on_layer:
        run_on_layer(work)


@needs_redis_server
async def test_redis_keeps_nothing_long_after_the_last_subscriber(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        layer = RedisLayer(server.url)
        await layer.open(Recorder())
        start = (await layer.read("t", None, 0, HISTORY)).position
        await layer.publish("t", event_body(1), HISTORY)
        assert await offsets_after(layer, "t", start, 0) == [1]
        meta, stream, _ = layer.keys("t")
        async with Redis.from_url(server.url) as admin:
            await admin.hset(meta, "read", 1)  # a time long ago
            for number in (2, 3):
                at = await layer.publish("t", event_body(number), HISTORY)
            assert at == Position(start.epoch, 3)
            assert await admin.xlen(stream) == 1
        assert await offsets_after(layer, "t", start, 1) is None
        await layer.close()


@pytest.mark.parametrize("bound", [0, -1, 1.5, True, None, "5"])
@pytest.mark.parametrize("name", ["max_bytes", "max_topic_bytes"])
def test_an_invalid_bound_in_bytes_is_refused(name: str, bound: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"MemoryLayer's {name} is a whole number of bytes above 0"):
        MemoryLayer(**{name: bound})
    if name == "max_topic_bytes":
        with pytest.raises(ImproperlyConfigured, match=f"RedisLayer's {name} is a whole number of bytes above 0"):
            RedisLayer("redis://host", max_topic_bytes=bound)


def test_a_layer_may_be_opened_again_on_another_loop() -> None:
    async def use() -> list[str]:
        sink = Recorder()
        await layer.open(sink)
        layer.subscribe("t")
        await asyncio.sleep(0)
        return sink.confirmed

    layer = MemoryLayer()
    assert [run(use()) for _ in range(2)] == [["t"], ["t"]]
    run(layer.close())


async def test_the_memory_layer_keeps_no_context_of_its_first_use() -> None:
    class Connection:
        """An object that a context variable of an action refers to."""

    current = ContextVar[Connection]("current")

    async def use() -> weakref.ref[Connection]:
        current.set(connection := Connection())
        layer.subscribe("t")
        await layer.publish("t", event_body(1), HISTORY)
        return weakref.ref(connection)

    layer = MemoryLayer()
    await layer.open(Recorder())
    used = await asyncio.create_task(use())
    await asyncio.sleep(0)  # let the loop release the task that woke us
    gc.collect()
    assert used() is None
    await layer.close()
