"""Apps on a Redis that is shared, demoted, full, or cut off, that loses data, or that lacks rights."""

import asyncio
import contextlib
import json
import logging
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis

from benchmarks.redis_server import free_port
from tests.support.redis_servers import RedisServer, needs_redis_server, redis_server
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured, LayerUnavailable
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.layers.base import History, Place
from wsaction.layers.redis import RedisLayer
from wsaction.presence import PresenceMixin
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import connect
from wsaction.testing.layers import Recorder, event_body

pytestmark = needs_redis_server

LEASE = 0.6  # seconds
HISTORY = History(10, 60)


class Room(PresenceMixin, AsyncAPIActionHandler):
    pass


class Root(SubscribeMixin, AsyncAPIConsumer):
    history_size = 0
    routepatterns = [path("rooms/<slug:name>/", Room.as_aaah())]

    @async_action
    async def say(self, text: str) -> None:
        await self.publish("said", text)


def app_on(url: str, **options: Any) -> WSAction:
    return WSAction([path("ws/", Root.as_asgi())], layer=RedisLayer(url, **options))


def user(pk: Any) -> Any:
    return SimpleNamespace(is_authenticated=True, pk=pk)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as one:
        yield one


@contextlib.asynccontextmanager
async def opened(layer: RedisLayer) -> AsyncIterator[Recorder]:
    sink = Recorder()
    await layer.open(sink)
    try:
        yield sink
    finally:
        await layer.close()


# -- a shared Redis ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("history", [None, HISTORY], ids=["no history", "history"])
@pytest.mark.parametrize("other", ["database", "prefix"])
async def test_two_apps_on_one_redis_are_separate(server: RedisServer, history: History | None, other: str) -> None:
    address = server.url.rpartition("/")[0]
    one = RedisLayer(f"{address}/0", prefix="one:")
    two = RedisLayer(f"{address}/1", prefix="one:")
    if other == "prefix":
        two = RedisLayer(f"{address}/0", prefix="two:")
    async with opened(one) as first_sink, opened(two) as second_sink:
        for layer, sink in ((one, first_sink), (two, second_sink)):
            layer.subscribe("t")
            await sink.until(lambda sink=sink: sink.confirmed == ["t"])  # type: ignore[misc]
            layer.roster.change(Place("t", "t", history), f"of {layer._prefix}{layer._database}", 1)
        await one.publish("t", event_body(1), history)
        await one.invalidate("t", history)
        await two.publish("t", event_body(2), history)  # published after the other, which would be here by now
        await second_sink.until(lambda: len(second_sink.messages) == 2)
        await first_sink.until(lambda: len(first_sink.messages) == 3)
        assert event_body(1) in [body for *_, body in first_sink.messages]
        bodies = [body for *_, body in second_sink.messages]
        assert event_body(2) in bodies
        assert event_body(1) not in bodies
        assert b"" not in bodies
        assert len(await one.roster.who("t")) == len(await two.roster.who("t")) == 1


async def test_a_database_is_named_by_path_or_query(server: RedisServer) -> None:
    address = server.url.rpartition("/")[0]
    one, two = RedisLayer(f"{address}/3"), RedisLayer(f"{address}?db=3")
    assert one.keys("t") == two.keys("t") != RedisLayer(f"{address}/4").keys("t")


# -- a failover -------------------------------------------------------------------------------------------------------
async def test_publishing_to_a_replica_is_an_error(
    server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "new").mkdir()
    with redis_server(tmp_path / "new") as new:
        speaking, listening = app_on(server.url, ping_interval=0.2), app_on(server.url, ping_interval=0.2)
        async with connect(speaking, "/ws/") as speaker, connect(listening, "/ws/") as listener:
            assert (await listener.call("subscribe"))["status"] == 200
            assert (await speaker.call("say", text="before"))["status"] == 200
            assert (await listener.event())["data"] == "before"
            async with Redis.from_url(server.url) as admin:
                await admin.execute_command("REPLICAOF", "127.0.0.1", new.port)
                reply = await speaker.call("say", text="after")
                assert (reply["status"], reply["errors"][0]["type"]) == (503, "layer_unavailable")
                async with asyncio.timeout(10):  # the other process, which sends no commands, finds it too
                    while caplog.text.count("Redis is unavailable: it is a replica") < 2:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                assert (await speaker.call("say", text="after"))["status"] == 503
                await admin.execute_command("REPLICAOF", "NO", "ONE")
            assert (await listener.event("$resync"))["route"] == ""
            while (await speaker.call("say", text="again"))["status"] != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert (await listener.event("said"))["data"] == "again"


@pytest.mark.parametrize("history", [None, HISTORY], ids=["no history", "history"])
async def test_a_replica_refuses_publications_and_invalidations(server: RedisServer, history: History | None) -> None:
    layer = RedisLayer(server.url, ping_interval=60)
    async with opened(layer), Redis.from_url(server.url) as admin:
        await layer.publish("t", event_body(1), history)
        for publish in (layer.publish("t", event_body(2), history), layer.invalidate("t", history)):
            await admin.execute_command("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(LayerUnavailable):
                await publish
            await admin.execute_command("REPLICAOF", "NO", "ONE")
            async with asyncio.timeout(5):
                while True:
                    with contextlib.suppress(LayerUnavailable):
                        await layer.read("t", None, 0, HISTORY)
                        await layer.publish("other", event_body(1), None)
                        break
                    await asyncio.sleep(0.02)


async def test_an_app_that_starts_on_a_replica_waits_for_the_master(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with Redis.from_url(server.url) as admin:
        await admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        layer = RedisLayer(server.url)
        async with opened(layer) as sink:
            assert "it is a replica; RedisLayer needs the master" in caplog.text
            layer.subscribe("t")
            with pytest.raises(LayerUnavailable):
                await layer.publish("t", event_body(1), None)
            assert sink.confirmed == []
            await admin.execute_command("REPLICAOF", "NO", "ONE")
            await sink.until(lambda: sink.confirmed == ["t"])


async def test_two_servers_behind_one_address_are_noticed(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "other").mkdir()
    with redis_server(tmp_path / "other") as other:
        layer, other_layer = RedisLayer(server.url, ping_interval=0.1), RedisLayer(other.url)
        connect_to = [layer._connect, other_layer._connect]
        made = iter([0, 1, 1])  # one to publish, then the others in any order

        async def either() -> Any:
            return await connect_to[next(made, 0)]()

        monkeypatch.setattr(layer, "_connect", either)
        async with opened(layer) as sink:
            layer.subscribe("t")
            await sink.until(lambda: sink.losses == 1 and sink.confirmed == ["t", "t"])
            await layer.publish("t", event_body(1), None)
            assert await sink.bodies("t", 1) == [event_body(1)]
    assert "on another Redis than the one they are received from" in caplog.text


# -- a worker that was cut off -----------------------------------------------------------------------------------------
class CuttableProxy:
    """A proxy between a worker and Redis that can be cut."""

    def __init__(self, port: int) -> None:
        self.port, self.is_open, self.writers = port, True, list[asyncio.StreamWriter]()
        self.piping = set[asyncio.Task[Any]]()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.piping.add(task)
        if not self.is_open:
            writer.transport.abort()
            return
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers += [writer, upstream_writer]
        await asyncio.gather(self.pipe(reader, upstream_writer), self.pipe(upstream_reader, writer))

    async def pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    def cut(self) -> None:
        self.is_open = False
        for writer in self.writers:
            writer.transport.abort()


@pytest.mark.parametrize("is_lost", [False, True], ids=["history is there", "history is lost"])
async def test_a_worker_that_was_cut_off_catches_up_on_disconnects(
    server: RedisServer, is_lost: bool, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = CuttableProxy(server.port)
    listening = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    one, other = app_on(server.url), app_on(f"redis://127.0.0.1:{port}/0")
    async with (
        connect(one, "/ws/", user=user(1)) as first,
        connect(other, "/ws/", user=user(7)) as banned,
        connect(other, "/ws/", user=user(8)) as pushed,
        connect(other, "/ws/") as anonymous,
    ):
        for app in (one, other):
            await asyncio.wait_for(app.runtime.loop_state.users.is_subscribed.wait(), 5)
        for ws in (pushed, anonymous):
            assert (await ws.call("subscribe", "rooms/tea/"))["status"] == 200
        proxy.cut()
        await one.push_user(8, "news", 1)
        await one.disconnect_user(7, "banned")
        async with Redis.from_url(server.url) as admin:
            if is_lost:
                await admin.flushall()  # as after a restart or failover that loses writes
        proxy.is_open = True
        assert await banned.wait_closed() == (
            (1012, "commands about users may have been lost; connect again") if is_lost else (4403, "banned")
        )
        if is_lost:
            assert (await pushed.wait_closed())[0] == 1012  # it may have been disconnected meanwhile
        else:
            assert (await pushed.event("news"))["data"] == 1
        for ws in (first, anonymous):
            assert (await ws.call("$ping"))["status"] == 200
        async with connect(other, "/ws/", user=user(8)) as back:
            assert (await back.call("$ping"))["status"] == 200
    proxy.cut()
    listening.close()
    await asyncio.wait(proxy.piping)


# -- presence ---------------------------------------------------------------------------------------------------------
async def until_present(layer: RedisLayer, topic: str, counts: dict[str, int]) -> None:
    async with asyncio.timeout(4 * LEASE + 2):
        while await layer.roster.who(topic) != counts:  # noqa: ASYNC110  # nothing tells that it has changed
            await asyncio.sleep(0.01)


def users_who_left(sink: Recorder) -> list[str]:
    """The users with a `leave` event."""
    events = [json.loads(body) for *_, body in sink.messages if body]
    return [event["data"]["user"] for event in events if event["event"] == "leave"]


LOST = ("people", "meta", "stream", "processes", "places", "all")


@pytest.mark.parametrize("history", [None, HISTORY], ids=["no history", "history"])
@pytest.mark.parametrize(
    "lost",
    [
        "people",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("meta", "stream", "processes", "places", "all")),
    ],
)
async def test_a_lost_presence_key_is_repaired_without_leave_events(
    server: RedisServer, history: History | None, lost: str
) -> None:
    layers = [RedisLayer(server.url, lease=LEASE) for _ in range(3)]
    one, two, third = layers
    place = Place("room/", "room/", history)
    async with opened(one) as sink, opened(two), opened(third), Redis.from_url(server.url) as admin:
        one.subscribe("room/")
        await sink.until(lambda: sink.confirmed == ["room/"])
        await one.read("room/", None, 0, HISTORY)
        for layer, name in ((one, "ada"), (two, "ada"), (two, "bob"), (third, "eve")):
            layer.roster.change(place, name, 1)
        await until_present(one, "room/", {"ada": 2, "bob": 1, "eve": 1})
        keys = [key async for key in admin.scan_iter("*") if lost in key.decode() or lost == "all"]
        await admin.delete(*keys or ["none"])
        one.roster.change(place, "new", 1)  # the hash exists again, without the other users
        one.roster.change(place, "ada", -1)
        await until_present(one, "room/", {"ada": 1, "bob": 1, "eve": 1, "new": 1})
        assert users_who_left(sink) == []
        third.roster.change(place, "eve", -1)
        await sink.until(lambda: users_who_left(sink) == ["eve"])
        two.roster.change(place, "ada", -1)
        await sink.until(lambda: users_who_left(sink) == ["eve", "ada"])
        await until_present(one, "room/", {"bob": 1, "new": 1})


@pytest.mark.parametrize("lost", ["places", "ended", "processes"])
async def test_users_of_a_killed_process_leave_despite_lost_keys(server: RedisServer, lost: str) -> None:
    one, dead = RedisLayer(server.url, lease=LEASE), RedisLayer(server.url, lease=LEASE)
    place = Place("room/", "room/", HISTORY)
    async with opened(one) as sink, Redis.from_url(server.url) as admin:
        await dead.open(Recorder())
        one.subscribe("room/")
        one.roster.change(place, "ada", 1)
        dead.roster.change(place, "bob", 1)
        await until_present(one, "room/", {"ada": 1, "bob": 1})
        session, dead._opened = dead._opened, None
        assert session is not None
        await session._tasks.stop()  # as kill -9 does
        name = session.roster.process
        gone = {"places": f"wsaction:{{}}:places:{name}", "processes": "wsaction:{}:processes"}
        if lost == "ended":
            await admin.zrem("wsaction:{}:processes", name)  # it ended, and that was forgotten
        else:
            await admin.delete(gone[lost])
        await until_present(one, "room/", {"ada": 1})
        await sink.until(lambda: users_who_left(sink) == ["bob"])


async def test_a_leave_during_a_repair_is_published_afterwards(server: RedisServer) -> None:
    one, place = RedisLayer(server.url, lease=LEASE), Place("room/", "room/", HISTORY)
    async with opened(one) as sink, Redis.from_url(server.url) as admin:
        one.subscribe("room/")
        await sink.until(lambda: sink.confirmed == ["room/"])
        await one.read("room/", None, 0, HISTORY)
        for name in ("ada", "bob"):
            one.roster.change(place, name, 1)
        await until_present(one, "room/", {"ada": 1, "bob": 1})
        await admin.delete("wsaction:{room/}:people")
        one.roster.change(place, "bob", -1)
        await until_present(one, "room/", {"ada": 1})
        await sink.until(lambda: users_who_left(sink) == ["bob"])
        assert len([body for *_, body in sink.messages if b'"join"' in body]) == 2
        one.roster.change(place, "ada", -1)
        await until_present(one, "room/", {})
        async with asyncio.timeout(5):
            while await admin.exists("wsaction:{room/}:people"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_empty_rooms_are_forgotten_within_an_hour(server: RedisServer) -> None:
    app = app_on(server.url)
    async with connect(app, "/ws/", user=user("a")) as ws, Redis.from_url(server.url) as admin:
        for number in range(20):
            assert (await ws.call("subscribe", f"rooms/x{number}/"))["status"] == 200
            assert (await ws.call("unsubscribe", f"rooms/x{number}/"))["status"] == 204
        async with asyncio.timeout(5):
            while [key async for key in admin.scan_iter("*rooms/x*people*")]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        users_who_left = [await admin.pttl(key) async for key in admin.scan_iter("*rooms/x*")]
        assert users_who_left
        assert all(0 < milliseconds <= 3_600_000 for milliseconds in users_who_left)
        all_expiries = [await admin.pttl(key) async for key in admin.scan_iter("*")]
        assert all(0 < milliseconds <= 3_600_000 for milliseconds in all_expiries)  # nothing is kept forever


# -- settings that cannot work ----------------------------------------------------------------------------------------
RIGHTS = (
    "+info", "+script|load", "+evalsha", "+ping", "+subscribe", "+unsubscribe", "+publish", "+hmget", "+hget", "+hset",
    "+hdel", "+hlen", "+hexists", "+hgetall", "+del", "+pexpire", "+xadd", "+xlen", "+xrange", "+xtrim", "+time",
    "+zadd", "+zrem", "+zscore", "+zrange", "+zrangebyscore", "+select",
)  # fmt: skip


async def refused(server: RedisServer, *rights: str, database: int = 0) -> str:
    """The error of an app whose Redis user has these rights; "" if it starts."""
    async with Redis.from_url(server.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "app", "reset", "on", ">pw", *rights)
    layer = RedisLayer(f"redis://app:pw@127.0.0.1:{server.port}/{database}")
    try:
        await layer.open(Recorder())
    except ImproperlyConfigured as exc:
        return str(exc)
    await layer.close()
    return ""


async def test_each_missing_right_is_reported_at_startup(server: RedisServer) -> None:
    keys, channels = "~wsaction:*", "&wsaction:*"
    assert await refused(server, keys, channels, *RIGHTS, database=1) == ""
    for right in RIGHTS:
        message = await refused(server, keys, channels, *RIGHTS, f"-{right[1:]}", database=1)
        command = right[1:].partition("|")[0]
        assert "NOPERM" in message or "ACL failure" in message or "can't run this command" in message, (right, message)
        assert "refuses a command" in message
        if command in ("info", "evalsha", "subscribe", "unsubscribe", "hgetall", "select"):
            assert command in message.lower()
    for kind, rights in (
        ("channel", (keys, "resetchannels", *RIGHTS)),
        ("channel", (keys, "&other:*", *RIGHTS)),
        ("key", (channels, *RIGHTS)),
        ("key", (channels, "~other:*", *RIGHTS)),
    ):
        assert kind in await refused(server, *rights)


async def test_a_right_that_is_lost_later_is_logged_and_retried(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with Redis.from_url(server.url) as admin:
        grant = "ACL", "SETUSER", "app", "on", ">pw", "~*", "&*"
        await admin.execute_command(*grant, "+@all")
        layer = RedisLayer(f"redis://app:pw@127.0.0.1:{server.port}/0", ping_interval=0.1)
        async with opened(layer) as sink:
            await admin.execute_command(*grant, "-subscribe")
            layer.subscribe("t")
            async with asyncio.timeout(5):
                while "NOPERM" not in caplog.text:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await admin.execute_command(*grant, "+subscribe")
            await sink.until(lambda: "t" in sink.confirmed)


async def test_a_node_of_a_cluster_is_refused(tmp_path: Path) -> None:
    options = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    refused = pytest.raises(ImproperlyConfigured, match=r"a node of a cluster .redis_mode:cluster.; give it")
    with redis_server(tmp_path, *options) as server, refused:
        await RedisLayer(server.url).open(Recorder())


async def test_a_missing_database_is_refused(server: RedisServer) -> None:
    with pytest.raises(ImproperlyConfigured, match="DB index is out of range"):
        await RedisLayer(server.url.rpartition("/")[0] + "/99").open(Recorder())


async def test_a_password_for_a_server_without_one_is_refused(server: RedisServer) -> None:
    with pytest.raises(ImproperlyConfigured, match="refuses the user or password") as caught:
        await RedisLayer(f"redis://:secret@127.0.0.1:{server.port}/0").open(Recorder())
    assert "secret" not in str(caught.value)


async def test_an_app_starts_on_a_full_redis(server: RedisServer, caplog: Any) -> None:
    async with Redis.from_url(server.url) as admin:
        first = RedisLayer(server.url)
        async with opened(first):
            await first.publish("t", event_body(0), History(100, 60, always=True))
        await admin.config_set("maxmemory", "1")
        layer = RedisLayer(server.url)
        async with opened(layer) as sink:
            assert "OOM" not in caplog.text
            layer.subscribe("t")
            await sink.until(lambda: sink.confirmed == ["t"])
            await layer.publish("t", event_body(0), None)  # without history nothing is stored
            await sink.until(lambda: len(sink.messages) == 1)
            with pytest.raises(LayerUnavailable) as caught:
                await layer.publish("t", event_body(1), HISTORY)
            assert not caught.value.uncertain
            await admin.config_set("maxmemory", "0")
            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(LayerUnavailable):
                        await layer.publish("t", event_body(1), HISTORY)
                        break
                    await asyncio.sleep(0.02)
            await sink.until(lambda: sink.confirmed == ["t"])


# -- the url ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "option",
    [
        "protocol=3", "protocol=2", "decode_responses=True", "decode_responses=False", "encoding=latin-1",
        "health_check_interval=5", "retry_on_timeout=True", "retry=3", "retry_on_error=x", "max_connections=1",
        "single_connection_client=True", "socket_timeout=1", "socket_connect_timeout=1", "socket_read_size=1",
        "timeout=1", "legacy_responses=True", "parser_class=x", "connection_class=x", "cache=1", "host=elsewhere",
        "port=1", "path=/x", "lib_name=x", "credential_provider=x", "redis_connect_func=x", "ssl=True",
    ],
)  # fmt: skip
def test_options_that_change_the_protocol_are_refused(option: str) -> None:
    name = option.partition("=")[0]
    with pytest.raises(ImproperlyConfigured, match=rf"takes the options db, .*, not '{name}'"):
        RedisLayer(f"redis://host/0?{option}")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://host/0?ssl_cert_reqs=none", "its scheme does not take.*ssl_cert_reqs"),
        ("rediss://host/0?ssl_cert_reqs=perhaps", "an ssl_ option that cannot be used.*perhaps"),
        ("rediss://host/0?ssl_ca_certs=/nowhere/ca.pem", "an ssl_ option that cannot be used.*No such file"),
        ("rediss://host/0?ssl_certfile=/nowhere/cert.pem", "an ssl_ option that cannot be used.*No such file"),
        ("rediss://host/0?ssl_ciphers=NONE-OF-THESE", "an ssl_ option that cannot be used"),
        ("rediss://host/0?ssl_unknown=1", "its scheme does not take.*ssl_unknown"),
        ("redis://host/staging", "redis://user:password@host:6379/0"),
        ("redis://host/0?db=one", "redis://user:password@host:6379/0"),
        ("unix:///tmp/redis.sock?db=one", "redis://user:password@host:6379/0"),
    ],
)
def test_an_invalid_url_is_refused(url: str, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        RedisLayer(url)


@pytest.mark.parametrize("options", ["", "?client_name=app", "?socket_keepalive=True", "?db=2", "?username=default"])
async def test_harmless_options_work(server: RedisServer, options: str) -> None:
    layer = RedisLayer(f"redis://127.0.0.1:{server.port}{options}")
    async with opened(layer) as sink, Redis.from_url(server.url) as admin:
        layer.subscribe("t")
        await sink.until(lambda: sink.confirmed == ["t"])
        await layer.publish("t", event_body(1), HISTORY)
        assert await sink.bodies("t", 1) == [event_body(1)]
        if "client_name" in options:
            assert {one["name"] for one in await admin.client_list()} >= {"app"}


async def test_a_unix_socket_works_with_its_own_database(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--unixsocket", str(tmp_path / "redis.sock")):
        layer = RedisLayer(f"unix://{tmp_path}/redis.sock?db=2")
        async with opened(layer) as sink:
            layer.subscribe("t")
            await sink.until(lambda: sink.confirmed == ["t"])
            await layer.publish("t", event_body(1), None)
            assert await sink.bodies("t", 1) == [event_body(1)]
            assert layer.keys("t")[2].endswith(":channel:2")


async def test_an_untrusted_certificate_is_refused(tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
        "-keyout",
    ]
    made = await asyncio.to_thread(
        subprocess.run, [*command, str(key), "-out", str(cert)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("no openssl to make a certificate with")
    port = free_port()
    options = ["--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key)]
    refused = pytest.raises(ImproperlyConfigured, match=r"no TLS connection.*self.signed")
    with redis_server(tmp_path, *options, "--tls-ca-cert-file", str(cert), "--tls-auth-clients", "no"), refused:
        await RedisLayer(f"rediss://127.0.0.1:{port}/0").open(Recorder())


async def test_a_layer_that_can_no_longer_be_used_logs_the_reason(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.kill()
    layer = RedisLayer(f"redis://app:pw@127.0.0.1:{server.port}/0")
    with caplog.at_level(logging.WARNING, "wsaction"):
        async with opened(layer):
            server.start()
            with pytest.raises(LayerUnavailable):
                await layer.publish("t", event_body(1), None)
            async with asyncio.timeout(5):
                while "Redis cannot be used, and is tried again" not in caplog.text:
                    with contextlib.suppress(LayerUnavailable):
                        await layer.publish("t", event_body(1), None)
                    await asyncio.sleep(0.02)
    assert "refuses the user or password" in caplog.text
