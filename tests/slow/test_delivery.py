"""Delivery over real sockets: clients that disconnect and return get every event once and in order."""

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import recovery
from benchmarks.__main__ import ask as ask_benchmarks
from tests.conftest import Server
from tests.support.redis_servers import needs_redis_server, redis_server
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.layers.redis import RedisLayer
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin

ROUTE = "feed/"


class Feed(SubscribeMixin, AsyncAPIActionHandler):
    history_size = 2_000

    @async_action
    async def tell(self, data: int) -> None:
        await self.publish("told", data)


class Root(AsyncAPIConsumer):
    routepatterns = [path(ROUTE, Feed.as_aaah())]


async def ask(ws: Any, action: str, **parameters: Any) -> Any:
    await ws.send(json.dumps({"action": action, "route": ROUTE, "request_id": 1, **parameters}))


async def follow(servers: list[Server], seed: int, events: int, ready: asyncio.Barrier) -> list[int]:
    """The events of one client, which disconnects at random and returns to any of the servers."""
    rng, heard, at = random.Random(seed), list[int](), None
    while len(heard) < events:
        async with rng.choice(servers).connect("/ws/") as ws:
            await ask(ws, "subscribe", **({} if at is None else {"since": at}))
            reply = json.loads(await ws.recv())
            told = reply["data"]
            assert told["recovered"] is (None if at is None else True)
            if at is None:
                await ready.wait()
            at = {"epoch": told["epoch"], "offset": told["offset"]}
            for _ in range(rng.randrange(1, 80)):
                event = json.loads(await ws.recv())
                assert event["event"] == "told"
                at["offset"] = event["offset"]
                heard.append(event["data"])
                if len(heard) == events:
                    break
            if rng.random() < 0.5:
                ws.transport.abort()  # as a broken network does
    return heard


async def reconcile(servers: list[Server], clients: int, events: int) -> None:
    ready = asyncio.Barrier(clients + 1)
    async with asyncio.timeout(100):
        following = [asyncio.ensure_future(follow(servers, seed, events, ready)) for seed in range(clients)]
        await ready.wait()
        async with servers[0].connect("/ws/") as writer:
            for number in range(events):
                await ask(writer, "tell", data=number)
                assert json.loads(await writer.recv())["status"] == 200
        for heard in await asyncio.gather(*following):
            assert heard == list(range(events))


@needs_redis_server
@pytest.mark.parametrize(("clients", "events"), [(10, 300)])
async def test_every_client_has_every_event_once_and_in_order(
    clients: int, events: int, tmp_path: Path, serve: Callable[..., Server]
) -> None:
    with redis_server(tmp_path) as redis:
        apps = [WSAction([path("ws/", Root.as_asgi())], layer=RedisLayer(redis.url)) for _ in range(2)]
        await reconcile([serve(app) for app in apps], clients, events)


# ------------------------------------------------------------------------------------------- hundreds of clients
def account(disturbance: str, clients: int, seconds: float, *more: str) -> dict[str, Any]:
    """The result of `benchmarks.recovery`, with two uvicorn workers, Redis and clients in processes of their own."""
    command = [sys.executable, "-m", "benchmarks.recovery", "--only", disturbance]
    command += ["--clients", str(clients), "--seconds", str(seconds), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == bool(found["short"] or found["wrong"])
    return found


@needs_redis_server
@pytest.mark.slow
@pytest.mark.parametrize(("disturbance", "workers"), [("calm", 2), ("workers", 4), ("redis", 2)])
def test_500_clients_that_drop_and_come_back_miss_nothing(disturbance: str, workers: int) -> None:
    found = account(disturbance, 500, 9.0)
    assert (found["short"], found["wrong"], found["faults"]) == (0, 0, [])
    assert found["events"] > 200
    assert found["drops"] >= 1_000
    assert found["workers"] >= workers
    if disturbance == "redis":  # the second kill loses all its data, so every client must get a notice
        assert found["told"] >= 500
        assert found["unavailable"] > 0
    else:
        assert (found["told"], found["unavailable"]) == (0, 0)
        assert found["deliveries"] > 500 * 200


@needs_redis_server
@pytest.mark.slow
def test_one_event_that_is_swallowed_is_found_missing() -> None:
    found = account("calm", 10, 3.0, "--leak", "40")
    assert found["wrong"] >= 10
    assert any("was told 41 without [40]" in fault for fault in found["faults"])


@pytest.mark.parametrize("key", ["short", "wrong"])
def test_the_benchmark_fails_where_one_client_is_short(
    key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = ("events", "deliveries", "drops", "told", "short", "wrong", "p50", "p99")
    found: dict[str, Any] = {**dict.fromkeys(known, 0), "faults": ["client 7 was told 41 without [40]"]}

    def one(disturbance: str, *_: Any) -> dict[str, Any]:
        return {**found, key: int(disturbance == "workers")}

    monkeypatch.setattr("benchmarks.recovery.PROGRAM", "redis-server")
    monkeypatch.setattr("benchmarks.recovery.account", one)
    answers, failed = ask_benchmarks(["recovery"], True)
    assert (answers, failed) == ({}, ["recovery"])
    assert "client 7 was told 41 without [40]" in capsys.readouterr().err
    key = ""
    assert ask_benchmarks(["recovery"], True)[1] == []


def test_without_a_redis_server_the_question_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.recovery.PROGRAM", None)
    answer = recovery.answer(quick=True)
    assert answer.rows == []
    assert "left out: there is no redis-server on PATH" in answer.table()
