"""`wsaction.layers.throttles`: processes share one bucket, in a real redis-server."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.support.redis_servers import RedisServer, needs_redis_server, redis_server
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured, LayerUnavailable
from wsaction.layers.throttles import MAX_CONNECTIONS, RedisThrottleStore
from wsaction.routing import path
from wsaction.testing import connect
from wsaction.throttling import Rate, UserRateThrottle


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as one:
        yield one


@needs_redis_server
async def test_two_processes_take_from_one_bucket(server: RedisServer) -> None:
    one, two = RedisThrottleStore(server.url), RedisThrottleStore(server.url)
    rate = Rate(3, 60.0)
    waits = [await store.take("a", rate) for store in (one, two, one, two, one)]
    assert waits[:3] == [0, 0, 0]
    assert 10 < waits[3] <= 20
    assert 10 < waits[4] <= 20
    assert await two.take("b", rate) == 0
    for store in (one, two, one):
        await store.close()


@needs_redis_server
async def test_a_token_is_available_after_the_returned_wait(server: RedisServer) -> None:
    store, rate = RedisThrottleStore(server.url), Rate(2, 2.0)
    assert [await store.take("a", rate) for _ in range(2)] == [0, 0]
    wait = await store.take("a", rate)
    assert 0 < wait <= 1
    await asyncio.sleep(wait)  # the test shows that this wait is long enough
    assert await store.take("a", rate) == 0
    await store.close()


@needs_redis_server
async def test_concurrent_takes_share_few_connections(server: RedisServer) -> None:
    store = RedisThrottleStore(server.url)
    waits = await asyncio.gather(*(store.take(str(number % 50), Rate(6, 60.0)) for number in range(300)))
    assert waits == [0.0] * 300
    async with Redis.from_url(server.url) as admin:
        assert (await admin.info("clients"))["connected_clients"] <= MAX_CONNECTIONS + 1
    await store.close()


@needs_redis_server
async def test_throttles_use_the_redis_store(server: RedisServer) -> None:
    class Shared(UserRateThrottle):
        rate = "2/hour"
        store = RedisThrottleStore(server.url)

    class Consumer(AsyncAPIConsumer):
        throttle_classes = (Shared,)

        @async_action
        async def ping(self) -> None:
            """Answers."""

    statuses = []
    for _ in range(3):
        async with connect(Consumer.as_asgi(), "/") as ws:
            statuses.append((await ws.call("ping"))["status"])
    assert statuses == [200, 200, 429]
    await Shared.store.close()


@needs_redis_server
async def test_the_store_closes_with_the_app(server: RedisServer) -> None:
    shared = RedisThrottleStore(server.url)

    class Shared(UserRateThrottle):
        rate = "2/hour"
        store = shared

    class Consumer(AsyncAPIConsumer):
        throttle_classes = (Shared,)

        @async_action
        async def ping(self) -> None:
            """Answers."""

    app = WSAction([path("ws/", Consumer.as_asgi())])
    for status in (200, 200, 429):  # the lifespan may begin and end several times
        async with app.lifespan():
            async with connect(app, "/ws/") as ws:
                assert (await ws.call("ping"))["status"] == status
            (script,) = shared._clients.values()
            pool = script.registered_client.connection_pool
            assert pool._available_connections
        assert not shared._clients
        assert not any(one.is_connected for one in pool._available_connections)


@needs_redis_server
async def test_take_raises_while_redis_is_down(server: RedisServer) -> None:
    store = RedisThrottleStore(server.url)
    assert await store.take("a", Rate(1, 60.0)) == 0
    server.kill()
    with pytest.raises(LayerUnavailable):
        await store.take("a", Rate(1, 60.0))
    server.start()
    assert await store.take("b", Rate(1, 60.0)) == 0
    await store.close()


def test_an_invalid_url_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="not 'http' with what followed it"):
        RedisThrottleStore("http://:secret@host")
