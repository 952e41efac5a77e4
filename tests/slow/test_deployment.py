"""Chapter 08 for real: nginx in front of two processes, Redis between them; rolling updates lose no event."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.deployment_files import command, compose, healthcheck, kubernetes
from tests.support.nginx import CHAPTER, HOST, Nginx, Worker, needs_nginx, nginx, replaced, until, workers
from tests.support.redis_servers import needs_redis_server, redis_server
from tests.support.restarts import kept_port
from wsaction.client import Client, ConnectionLost, Event

pytestmark = [pytest.mark.slow, needs_nginx, needs_redis_server, pytest.mark.timeout(120)]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # for the clients; the servers are processes


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[str]:
    with redis_server(tmp_path) as server:
        yield server.url


@pytest.fixture
async def pair(redis: str) -> AsyncIterator[tuple[Worker, Worker]]:
    async with workers(redis) as both:
        yield both


@pytest.fixture
async def site(tmp_path: Path, pair: tuple[Worker, Worker]) -> AsyncIterator[Nginx]:
    async with nginx(tmp_path, pair) as server:
        yield server


async def where(client: Any) -> dict[str, Any]:
    """Which process serves a client of `websockets`, and what it knows of the client."""
    await client.send('{"action": "whereami"}')
    data: dict[str, Any] = json.loads(await asyncio.wait_for(client.recv(), 10))["data"]
    return data


def pids(pair: tuple[Worker, Worker]) -> set[int]:
    return {worker.process.pid for worker in pair if worker.process is not None}


async def test_a_browser_connects_through_it(site: Nginx, pair: tuple[Worker, Worker]) -> None:
    async with site.connect(origin=site.origin, subprotocols=["wsaction.v1"]) as client:
        assert client.subprotocol == "wsaction.v1"
        found = await where(client)
        assert found["process"] in pids(pair)
        assert (found["address"], found["scheme"]) == ("127.0.0.1", "wss")
    async with site.connect(additional_headers={"X-Forwarded-For": "6.6.6.6"}) as client:
        assert (await where(client))["address"] == "127.0.0.1"  # what the client claims is not passed on


async def test_pages_of_other_sites_and_other_hosts_are_refused(site: Nginx) -> None:
    for origin in ("https://evil.example", f"https://{HOST}"):  # the second one is of another port
        with pytest.raises(InvalidStatus) as refused:
            await site.connect(origin=origin)
        assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus) as refused:
        await site.connect(uri=f"wss://evil.example:{site.port}/ws/")
    assert refused.value.response.status_code == 403


async def test_http_goes_to_https_and_health_checks_stay_inside(site: Nginx, pair: tuple[Worker, Worker]) -> None:
    async with httpx.AsyncClient(headers={"Host": HOST}, trust_env=False) as client:
        moved = await client.get(f"http://127.0.0.1:{site.http_port}/docs")
        assert (moved.status_code, moved.headers["location"]) == (301, f"https://{HOST}/docs")
    async with httpx.AsyncClient(headers={"Host": HOST}, trust_env=False, verify=False) as client:
        answers = [
            (await client.get(f"https://127.0.0.1:{site.port}{path}")).status_code
            for path in ("/healthz", "/readyz", "/docs", "/ws/")
        ]
        assert answers == [404, 404, 200, 426]
    for worker in pair:
        assert [await worker.health(path) for path in ("/healthz", "/readyz")] == [200, 200]


async def test_a_process_without_redis_is_alive_but_not_ready(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis") as redis:
        async with workers(redis.url) as (worker, _):
            redis.kill()
            await until(lambda: worker.answers("/readyz", 503))
            assert await worker.health("/healthz") == 200
            redis.start()
            await until(lambda: worker.answers("/readyz", 200))


async def test_sockets_are_spread_and_go_elsewhere_when_a_process_is_killed(
    site: Nginx, pair: tuple[Worker, Worker]
) -> None:
    clients = [await site.connect() for _ in range(6)]
    served = [(await where(client))["process"] for client in clients]
    assert sorted(served.count(pid) for pid in pids(pair)) == [3, 3]
    killed, kept = pair
    gone = [client for client, pid in zip(clients, served, strict=True) if pid == killed.process.pid]  # type: ignore[union-attr]
    await killed.stop(signal.SIGKILL)
    for client in gone:
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(client.recv(), 10)
        assert closed.value.rcvd is None  # no close frame: 1006
    again = [await site.connect() for _ in gone]
    assert {(await where(client))["process"] for client in again} == pids((kept, kept))
    for client in (*clients, *again):
        await client.close()


async def test_a_reload_of_nginx_leaves_open_sockets_alone(site: Nginx) -> None:
    async with site.connect() as before:
        process = (await where(before))["process"]
        reloaded = site.run("-s", "reload")
        assert reloaded.returncode == 0, reloaded.stderr
        await until(site.has_reloaded)
        async with site.connect() as after:
            assert (await where(after))["process"]
            assert (await where(before))["process"] == process


async def silent_for(client: Any) -> float:
    """How many seconds a connection stays open on which nothing is said, at most 4."""
    loop = asyncio.get_running_loop()
    since = loop.time()
    with pytest.raises((TimeoutError, ConnectionClosed)) as ended:
        await asyncio.wait_for(client.recv(), 4)
    assert getattr(ended.value, "rcvd", None) is None  # nginx sends no close frame
    return loop.time() - since


@pytest.mark.parametrize(("interval", "is_cut"), [("0.3", False), ("60", True)])
async def test_nginx_cuts_a_silent_socket_unless_the_server_pings(
    tmp_path: Path, redis: str, interval: str, is_cut: bool
) -> None:
    short = {"proxy_read_timeout 60s;": "proxy_read_timeout 1s;"}
    async with (
        workers(redis, "--ws-ping-interval", interval) as pair,
        nginx(tmp_path, pair, short) as site,
        site.connect(ping_interval=None) as client,
    ):
        assert (await silent_for(client) < 3) is is_cut
        if not is_cut:
            assert (await where(client))["process"] in pids(pair)


class Follower:
    """A client that is subscribed to the room, and notes all that comes."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.heard: list[Any] = []
        self.joined = asyncio.Event()
        self.changed = asyncio.Event()

    async def follow(self) -> None:
        async with self.client.subscribe("rooms/tea/") as room:
            self.joined.set()
            async for item in room:
                self.heard.append(int(item.data["text"]) if isinstance(item, Event) else item)
                self.changed.set()

    async def until(self, number: int) -> None:
        async with asyncio.timeout(30):
            while number not in self.heard:
                self.changed.clear()
                await self.changed.wait()

    async def process(self) -> int:
        data = await self.client.call("whereami")
        pid: int = data["process"]
        return pid


async def test_a_rolling_update_loses_no_event(site: Nginx, pair: tuple[Worker, Worker]) -> None:
    """Each process is drained and started anew while the other one serves; ten clients follow a room all the while."""
    old = pids(pair)
    async with AsyncExitStack() as clients, asyncio.TaskGroup() as tasks:
        speaker, *others = [await clients.enter_async_context(site.client()) for _ in range(11)]
        followers = [Follower(client) for client in others]
        following = [tasks.create_task(follower.follow()) for follower in followers]
        for follower in followers:
            await asyncio.wait_for(follower.joined.wait(), 20)
        assert {await follower.process() for follower in followers} == old
        said = 0

        async def update() -> None:
            for worker in pair:
                await worker.stop()
                for follower in followers:
                    assert await follower.process() in pids(pair)  # all are with the other process now
                await worker.start()

        updating = asyncio.create_task(update())
        while not updating.done():
            with suppress(ConnectionLost):  # it crossed the close frame: a process that drains has not run it
                await speaker.call("say", "rooms/tea/", text=str(said + 1))
                said += 1
            await asyncio.wait([updating], timeout=0.05)
        await updating
        await speaker.call("say", "rooms/tea/", text=str(said + 1))
        for follower in followers:
            await follower.until(said + 1)
            assert await follower.process() in pids(pair) - old
        for task in following:
            task.cancel()
    for follower in followers:
        assert follower.heard == [*range(1, said + 2)]


async def test_the_commands_of_the_image(redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """CMD serves, and HEALTHCHECK fails as soon as nothing answers. Both run outside of a container here."""
    port = str(kept_port())
    monkeypatch.setenv("REDIS_URL", redis)
    serve = [sys.executable, "-m", "wsaction", *replaced(" ".join(command()[1:]), {"8000": port}).split()]
    check = [sys.executable, *(word.replace(":8000/", f":{port}/") for word in healthcheck()[1:])]

    async def is_healthy() -> bool:
        checking = await asyncio.create_subprocess_exec(*check, stderr=asyncio.subprocess.DEVNULL)
        return await asyncio.wait_for(checking.wait(), 20) == 0

    assert not await is_healthy()
    server = await asyncio.create_subprocess_exec(*serve, cwd=CHAPTER, stderr=asyncio.subprocess.DEVNULL)
    try:
        await until(is_healthy)
        server.terminate()
        assert await asyncio.wait_for(server.wait(), 20) == -signal.SIGTERM
        assert not await is_healthy()
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()


def test_compose_starts_redis_with_options_that_it_takes(tmp_path: Path) -> None:
    with redis_server(tmp_path, *compose()["services"]["redis"]["command"][1:]) as server:
        asked = ["redis-cli", "-p", str(server.port), "config", "get", "maxmemory*"]
        told = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.split()
    assert told[told.index("maxmemory") + 1] == str(256 * 1024 * 1024)
    assert told[told.index("maxmemory-policy") + 1] == "allkeys-lru"


def test_the_files_follow_their_schemas() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    compose_spec = pytest.importorskip("compose_spec", reason="pip install compose-spec")
    for resource in kubernetes():
        assert kubernetes_validate.validate(resource, "1.33", strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate({**resource, "spec": {**resource["spec"], "misspelt": 1}}, "1.33", strict=True)
    made = compose()
    assert compose_spec.PyCompose.from_yaml(yaml.safe_dump(made)).service_names
    made["services"]["chat-1"]["misspelt"] = 1
    with pytest.raises(ValueError, match="misspelt"):
        compose_spec.PyCompose.from_yaml(yaml.safe_dump(made))
