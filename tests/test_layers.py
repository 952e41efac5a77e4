"""`wsaction.layers`: the contract that every layer keeps, run on each; positions and histories; what memory lets go."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.redis_servers import URL, needs_redis, redis_server
from tests.virtual_time import run
from wsaction.exceptions import ImproperlyConfigured
from wsaction.layers import memory
from wsaction.layers.base import History, Layer, Position, new_epoch
from wsaction.layers.memory import MemoryLayer
from wsaction.layers.redis import RedisLayer
from wsaction.testing.layers import HISTORY, LayerContract, Recorder, event_body


class TestMemoryLayer(LayerContract):
    def make(self) -> Layer:
        return MemoryLayer()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis for all tests that do not harm it."""
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


async def test_a_layer_that_breaks_the_contract_is_told_what_was_expected() -> None:
    class Forgetful(MemoryLayer):
        async def publish(self, topic: str, body: bytes, history: History | None) -> Position | None:
            at = await super().publish(topic, body, history)
            return at and Position(at.epoch, 1)

    class TestForgetful(LayerContract):
        def make(self) -> Layer:
            return Forgetful()

    with pytest.raises(AssertionError, match=r"1, 2, 3; came \[Position"):
        await TestForgetful().test_a_topic_begins_at_0_and_counts_in_one_epoch()


def test_importing_the_contract_does_not_import_pytest() -> None:
    code = "import sys, wsaction.testing.layers; print('pytest' in sys.modules, 'redis' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert out.stdout.split() == ["False", "False"]


def test_without_redis_py_the_layer_says_how_to_get_it() -> None:
    code = "import sys; sys.modules['redis'] = None; sys.modules['redis.asyncio'] = None; import wsaction.layers.redis"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert 'RedisLayer needs redis-py: pip install "wsaction[redis]"' in out.stderr


# -- positions and histories ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, -1, 1.5, True, None, 1_000_001])
def test_a_size_that_cannot_be_kept_is_refused(size: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="1 to 1,000,000 events"):
        History(size)


@pytest.mark.parametrize("ttl", [0, -1, float("inf"), float("nan"), True, None, "5", 86_401])
def test_a_ttl_that_cannot_be_kept_is_refused(ttl: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"0\.001 to 86400 seconds"):
        History(10, ttl)


def test_a_history_is_what_the_design_says_by_default() -> None:
    assert (History().size, History().ttl) == (100, 300)
    assert Position(new_epoch(), 0).is_sane
    assert new_epoch() != new_epoch()


# -- what memory lets go ----------------------------------------------------------------------------------------------
@contextmanager
def memory_in_virtual_time() -> Iterator[Callable[[Callable[[MemoryLayer], Any]], Any]]:
    def live(work: Callable[[MemoryLayer], Any]) -> Any:
        async def main() -> Any:
            layer = MemoryLayer()
            await layer.open(Recorder())
            try:
                return await work(layer)
            finally:
                await layer.close()

        return run(main())

    yield live


def test_events_expire_and_positions_much_later() -> None:
    async def work(layer: MemoryLayer) -> None:
        first = await layer.publish("a", event_body(1), History(10, 100))
        assert first is not None
        await layer.publish("b", event_body(1), History(10, 10))
        await asyncio.sleep(5)
        await layer.publish("a", event_body(2), History(10, 100))
        await layer.publish("b", event_body(2), History(10, 10))
        await asyncio.sleep(45)
        assert list(layer._filled) == [100]
        assert list(layer._idle) == ["b"]
        assert (await layer.read("a", first, 10, History(10, 100))).events == ((2, event_body(2)),)
        await asyncio.sleep(100)
        assert (layer._filled, list(layer._idle)) == ({}, ["b", "a"])
        await layer.publish("a", event_body(3), History(10, 100))
        await asyncio.sleep(40_000)
        assert (await layer.read("b", None, 0, History(10, 10))).position.offset == 2
        await asyncio.sleep(60_000)
        assert list(layer._logs) == ["b"]
        await asyncio.sleep(90_000)
        assert (layer._logs, layer._idle, layer._sweeper) == ({}, {}, None)
        again = await layer.publish("a", event_body(1), HISTORY)
        assert again is not None
        assert again.offset == 1
        assert again.epoch != first.epoch

    with memory_in_virtual_time() as live:
        live(work)


def test_positions_that_nobody_uses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_IDLE", 3)

    async def work(layer: MemoryLayer) -> None:
        for number in range(6):
            await layer.read(f"t{number}", None, 0, HISTORY)
        await layer.read("t3", None, 0, HISTORY)
        await layer.read("t6", None, 0, HISTORY)
        assert list(layer._logs) == ["t3", "t5", "t6"]
        for number in range(6):
            await layer.publish(f"u{number}", event_body(1), History(1, 1))
        await asyncio.sleep(61)
        assert len(layer._logs) == 3

    with memory_in_virtual_time() as live:
        live(work)


def test_topics_with_events_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_FILLED", 2)

    async def work(layer: MemoryLayer) -> None:
        short, long = History(10, 30), History(10, 60)
        kept = {"a": long, "b": short, "c": long}
        start = {topic: (await layer.read(topic, None, 0, history)).position for topic, history in kept.items()}
        for topic in ("a", "b", "a", "c"):
            await layer.publish(topic, event_body(1), kept[topic])
            await asyncio.sleep(1)
        assert len((await layer.read("a", start["a"], 10, long)).events or ()) == 2
        page = await layer.read("b", start["b"], 10, short)
        assert (page.position, page.events) == (Position(start["b"].epoch, 1), None)
        await layer.publish("b", event_body(2), short)
        assert (await layer.read("a", start["a"], 10, long)).events is None

    with memory_in_virtual_time() as live:
        live(work)


async def test_another_history_counts_from_when_it_is_used() -> None:
    layer, sink = MemoryLayer(), Recorder()
    await layer.open(sink)
    first = await layer.publish("a", event_body(1), History(10, 60))
    for number in range(2, 6):
        await layer.publish("a", event_body(number), History(3, 30))
    assert (await layer.read("a", first, 10, History(3, 30))).events is None
    await layer.publish("a", event_body(6), History(3, 30))
    assert list(layer._filled[30]) == ["a"]
    await layer.read("new", None, 0, HISTORY)
    await layer.read("new", None, 0, History(3, 30))
    assert "new" in layer._idle
    await layer.close()
    layer.subscribe("a")  # closed: nobody is told
    assert sink.confirmed == []


def test_a_layer_whose_loop_is_gone_may_be_opened_on_the_next() -> None:
    layer = MemoryLayer()
    for _ in range(2):
        run(layer.open(Recorder()))
    run(layer.close())
