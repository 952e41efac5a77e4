"""`RedisLayer` on a real redis-server: refused settings, foreign data, broken connections, kills and restarts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.support.hub_simulation import World, now
from tests.support.redis_servers import RedisServer, needs_redis_server, redis_server
from wsaction._protocol.event_frames import encode_event
from wsaction._pubsub.hub import Hub
from wsaction.exceptions import ImproperlyConfigured, LayerUnavailable
from wsaction.layers import _redis_pipeline as links
from wsaction.layers import _redis_pubsub as channels
from wsaction.layers import redis
from wsaction.layers._redis_pipeline import Demoted, Pipeline, Refused, encode_command
from wsaction.layers._redis_pubsub import parse_message
from wsaction.layers._redis_scripts import PUBLISH
from wsaction.layers.base import History, Position
from wsaction.layers.memory import MemoryLayer
from wsaction.layers.redis import RedisLayer
from wsaction.testing.layers import Recorder, event_body, new_topic

HISTORY = History(100, 60, always=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as one:
        yield one


@pytest.fixture
async def opened() -> Any:
    """``await opened(layer)`` opens a layer until the end of the test and returns its sink."""
    async with AsyncExitStack() as stack:

        async def open_(layer: RedisLayer) -> Recorder:
            sink = Recorder()
            await layer.open(sink)
            stack.push_async_callback(layer.close)
            return sink

        yield open_


async def subscribe(layer: RedisLayer, sink: Recorder, topic: str) -> None:
    before = sink.confirmed.count(topic)
    layer.subscribe(topic)
    await sink.until(lambda: sink.confirmed.count(topic) > before)


async def eventually(work: Callable[[], Any]) -> Any:
    """The result of ``work`` once the layer is available again."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await work()
            except LayerUnavailable:
                await asyncio.sleep(0.02)


# -- invalid settings -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:6379", "http://127.0.0.1", "redis://:secret/word@host", "redis://host:port", None, 7]
)
def test_an_invalid_url_is_refused_without_its_password(url: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="redis://user:password@host:6379/0") as refused:
        RedisLayer(url)
    assert "secret" not in str(refused.value)


def test_an_unknown_option_or_a_prefix_with_braces_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"takes the options db, username, .* not 'nope'"):
        RedisLayer("redis://host?nope=1")
    with pytest.raises(ImproperlyConfigured, match=r"no braces.*'a{b'"):
        RedisLayer("redis://host", prefix="a{b")


def test_the_keys_of_a_topic_share_one_slot() -> None:
    for topic in ("boards/7/", "a}b{c", "", "\ud800"):
        keys = RedisLayer("redis://host", prefix="app:").keys(topic)
        assert len({key[key.index("{") : key.index("}") + 1] for key in keys}) == 1
        assert all(key.startswith("app:{") and key.count("{") == key.count("}") == 1 for key in keys)
        assert len(set(keys)) == 3


@needs_redis_server
async def test_wrong_passwords_and_rights_are_refused_at_opening(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--requirepass", "right", "--user", *["weak", "on", ">pw", "~*", "+ping"]) as server:
        host = f"127.0.0.1:{server.port}"
        for user, message in (
            (":wrong@", "user or password"),
            ("", "refuses a command"),
            ("weak:pw@", "refuses a command"),
        ):
            before = asyncio.all_tasks()
            with pytest.raises(ImproperlyConfigured, match=message) as refused:
                await RedisLayer(f"redis://{user}{host}").open(Recorder())
            assert "wrong" not in str(refused.value)
            assert asyncio.all_tasks() == before
        layer = RedisLayer(f"redis://default:right@{host}/1")
        await layer.open(Recorder())
        await layer.publish("t", event_body(1), HISTORY)
        await layer.close()


class ScriptedConnection:
    """A connection with scripted answers."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.sent, self.is_closed = list(answers), list[bytes](), False

    async def send(self, data: bytes) -> None:
        self.sent.append(data)

    async def receive(self) -> Any:
        answer = self.answers.pop(0) if self.answers else ConnectionError("no more")
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (b"redis_version:5.0.14\r\nrun_id:x\r\n", ImproperlyConfigured, "needs Redis 6.0 or newer, not 5.0.14"),
        (b"garbage", ImproperlyConfigured, "needs Redis 6.0"),
        (Refused("NOPERM no", "NOPERM"), ImproperlyConfigured, "refuses a command that RedisLayer needs: NOPERM no"),
        (Refused("LOADING the dataset", "LOADING"), ConnectionError, "for now: LOADING the dataset"),
        (b"redis_version:7.0.0\r\nrun_id:x\r\nrole:slave\r\n", Demoted, "needs the master"),
        (b"redis_version:7.0.0\r\nrun_id:x\r\nredis_mode:cluster\r\n", ImproperlyConfigured, "a node of a cluster"),
        (b"redis_version:7.0.0\r\nrun_id:x\r\nredis_mode:sentinel\r\n", ImproperlyConfigured, "a Sentinel"),
        (b"redis_version:7.0.0\r\nrun_id:x\r\nredis_mode:odd\r\n", ImproperlyConfigured, "leads to 'odd'"),
        (OSError("gone"), OSError, "gone"),
    ],
)
async def test_a_server_that_cannot_be_used_is_an_error(answer: Any, error: type[Exception], message: str) -> None:
    link = ScriptedConnection(answer)

    async def connect() -> Any:
        return link

    with pytest.raises(error, match=message):
        await Pipeline(connect, ()).ensure()
    assert link.is_closed


@needs_redis_server
async def test_a_layer_over_tls(tmp_path: Path, opened: Any) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    files = ["-keyout", str(key), "-out", str(cert)]
    made = await asyncio.to_thread(subprocess.run, [*command.split(), *files], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no openssl to make a certificate with")
    with redis_server(tmp_path) as probe:
        tls_port = probe.port
    options = ["--tls-port", str(tls_port), "--tls-cert-file", str(cert), "--tls-key-file", str(key)]
    with redis_server(tmp_path, *options, "--tls-ca-cert-file", str(cert), "--tls-auth-clients", "no"):
        layer = RedisLayer(f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={cert}")
        sink, topic = await opened(layer), new_topic()
        await subscribe(layer, sink, topic)
        await layer.publish(topic, event_body(1), HISTORY)
        assert await sink.bodies(topic, 1) == [event_body(1)]


# -- foreign data -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("payload", "parsed"),
    [
        (b"k3Jx 7\n{}", ("k3Jx", 7, b"{}")),
        (b"k3Jx 0\n", ("k3Jx", 0, b"")),
        (b"- 0\n{}\n{}", ("", 0, b"{}\n{}")),
        (b"- 7\n{}", None),
        (b" 7\n{}", None),
        (b"e \n{}", None),
        (b"e 7", None),
        (b"e7\n{}", None),
        (b"e -7\n{}", None),
        (b"e 9007199254740992\n{}", None),
        (b"e " + b"9" * 5_000 + b"\n{}", None),
        (b"\xff 1\n{}", None),
        (b"", None),
    ],
)
def test_parse_message_accepts_any_bytes(payload: bytes, parsed: Any) -> None:
    assert parse_message(payload) == parsed


@needs_redis_server
async def test_foreign_messages_are_logged_and_ignored(
    server: RedisServer, opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    layer, topic = RedisLayer(server.url), new_topic()
    sink = await opened(layer)
    await subscribe(layer, sink, topic)
    async with Redis.from_url(server.url) as foreign:
        for payload in (b"", b"zz", b"\xff 1\nx", b'e 1\n{"event":', b"e 1\n[]", b"- 0\n\x80\x04K\x01."):
            await foreign.publish(layer.keys(topic)[2], payload)
    await layer.publish(topic, event_body(1), HISTORY)
    assert await sink.bodies(topic, 1) == [event_body(1)]
    assert caplog.text.count("that is no event") == 6


@needs_redis_server
async def test_foreign_writes_into_the_keys_do_no_harm(server: RedisServer, opened: Any) -> None:
    layer, topic = RedisLayer(server.url), new_topic()
    await opened(layer)
    meta, stream, _ = layer.keys(topic)
    start = (await layer.read(topic, None, 0, HISTORY)).position
    async with Redis.from_url(server.url) as foreign:
        await foreign.set(stream, "no stream")
        at = await layer.publish(topic, event_body(1), HISTORY)
        assert at == Position(start.epoch, 1)
        assert (await layer.read(topic, start, 10, HISTORY)).events == [(1, event_body(1))]
        await foreign.xadd(stream, {"d": "no event"}, id="2-0")
        await foreign.hset(meta, "offset", 2)
        assert (await layer.read(topic, start, 10, HISTORY)).events is None
        await foreign.delete(stream)
        assert (await layer.read(topic, start, 10, HISTORY)).events is None
        await foreign.delete(meta)
        page = await layer.read(topic, start, 10, HISTORY)
        assert (page.events, page.position.offset) == (None, 0)
        assert page.position.epoch != start.epoch
        await foreign.delete(meta)
        await foreign.set(meta, "no hash")
        with pytest.raises(LayerUnavailable) as refused:
            await layer.publish(topic, event_body(1), HISTORY)
        assert not refused.value.uncertain


@needs_redis_server
async def test_idle_topics_expire_soon(server: RedisServer, opened: Any) -> None:
    layer, history = RedisLayer(server.url), History(5, 90)
    await opened(layer)
    async with Redis.from_url(server.url) as foreign:
        await layer.read("quiet", None, 0, history)
        assert 80_000 < await foreign.pttl(layer.keys("quiet")[0]) <= 90_000
        await layer.publish("quiet", event_body(1), history)
        await layer.read("quiet", None, 0, history)
        assert 3_590_000 < await foreign.pttl(layer.keys("quiet")[0]) <= 3_600_000


@needs_redis_server
async def test_flushed_scripts_are_loaded_again_without_repetition(server: RedisServer, opened: Any) -> None:
    layer, topic = RedisLayer(server.url), new_topic()
    sink = await opened(layer)
    await subscribe(layer, sink, topic)
    await layer.publish(topic, event_body(0), HISTORY)
    async with Redis.from_url(server.url) as admin:
        await admin.script_flush()
    positions = await asyncio.gather(*(layer.publish(topic, event_body(n), HISTORY) for n in range(1, 6)))
    assert [at.offset for at in positions if at is not None] == [2, 3, 4, 5, 6]
    assert await sink.bodies(topic, 6) == [event_body(n) for n in range(6)]


async def test_a_script_that_stays_unknown_is_unavailable() -> None:
    async def connect() -> Any:
        info = b"redis_version:7.0.0\r\nrun_id:x\r\n"
        return ScriptedConnection(info, b"sha", Refused("no matching script", "NOSCRIPT"))

    pipeline = Pipeline(connect, (PUBLISH,))
    answer = pipeline.run(PUBLISH, ("a", "b", "c"), "epoch")
    for _ in range(2):
        await pipeline.serve()
    with pytest.raises(LayerUnavailable) as refused:
        await answer
    assert not refused.value.uncertain


# -- a connection that breaks -----------------------------------------------------------------------------------------
INFO = b"redis_version:7.0.0\r\nrun_id:x\r\n"


async def test_after_a_break_sent_commands_are_uncertain_not_queued() -> None:
    connections = [ScriptedConnection(INFO, b"one"), ScriptedConnection(INFO, b"three")]

    async def connect() -> Any:
        return connections.pop(0)

    pipeline = Pipeline(connect, (), max_batch=2)
    answers = [pipeline.call("GET", str(number)) for number in range(3)]
    await pipeline.serve()
    await pipeline.serve()
    first, second, third = await asyncio.gather(*answers, return_exceptions=True)
    assert (first, third) == (b"one", b"three")
    assert isinstance(second, LayerUnavailable)
    assert second.uncertain


async def test_a_cancelled_command_is_not_sent() -> None:
    link = ScriptedConnection(INFO, b"2")

    async def connect() -> Any:
        return link

    pipeline = Pipeline(connect, ())
    one, two = pipeline.call("GET", "1"), pipeline.call("GET", "2")
    one.cancel()
    await pipeline.serve()
    assert await two == b"2"
    assert link.sent[-1] == encode_command(b"GET", b"2")
    three = pipeline.call("GET", "3")
    three.cancel()
    await pipeline.serve()
    assert link.sent[-1] == encode_command(b"GET", b"2")


async def test_commands_that_wait_are_bounded() -> None:
    async def connect() -> Any:
        raise ConnectionRefusedError

    pipeline = Pipeline(connect, (), max_commands=3)
    waiting = [pipeline.call("PING") for _ in range(3)]
    with pytest.raises(LayerUnavailable) as refused:
        pipeline.call("PING")
    assert refused.value.ctx == {"limit": "commands that wait for Redis", "value": 3}
    for _ in range(2):
        await pipeline.serve()  # the second time it does not even connect
    assert all(isinstance(answer.exception(), LayerUnavailable) for answer in waiting)


async def test_a_silent_server_times_out() -> None:
    class Silent(ScriptedConnection):
        async def receive(self) -> Any:
            return await (super().receive() if self.answers else asyncio.get_running_loop().create_future())

    async def connect() -> Any:
        return Silent(INFO)

    pipeline = Pipeline(connect, (), answer_timeout=0.01)
    answer = pipeline.call("PING")
    await pipeline.serve()
    with pytest.raises(LayerUnavailable) as refused:
        await answer
    assert refused.value.uncertain


async def test_any_failure_answers_the_pending_commands(caplog: pytest.LogCaptureFixture) -> None:
    async def connect() -> Any:
        raise ZeroDivisionError

    pipeline = Pipeline(connect, ())
    task = asyncio.create_task(pipeline.run_forever())
    for _ in range(2):
        with pytest.raises(LayerUnavailable):
            await pipeline.call("PING")
    assert "ZeroDivisionError" in caplog.text
    task.cancel()
    await asyncio.wait([task])


async def test_commands_under_way_at_closing_are_uncertain() -> None:
    class Hanging(ScriptedConnection):
        async def receive(self) -> Any:
            return await (super().receive() if self.answers else asyncio.get_running_loop().create_future())

    async def connect() -> Any:
        return Hanging(INFO)

    pipeline = Pipeline(connect, ())
    task = asyncio.create_task(pipeline.run_forever())
    answer = pipeline.call("PING")
    while pipeline._queue:  # noqa: ASYNC110
        await asyncio.sleep(0)
    late = pipeline.call("PING")
    task.cancel()
    assert [error.uncertain for error in await asyncio.gather(answer, late, return_exceptions=True)] == [True, False]


@needs_redis_server
async def test_a_layer_opens_before_redis_is_available(server: RedisServer, opened: Any, caplog: Any) -> None:
    server.kill()
    layer, topic = RedisLayer(server.url), new_topic()
    with caplog.at_level(logging.WARNING, "wsaction"):
        sink = await opened(layer)
    assert "Redis is unavailable" in caplog.text
    layer.subscribe(topic)
    with pytest.raises(LayerUnavailable) as refused:
        await layer.publish(topic, event_body(1), HISTORY)
    assert not refused.value.uncertain
    server.start()
    await sink.until(lambda: sink.confirmed == [topic])
    await eventually(lambda: layer.publish(topic, event_body(1), HISTORY))
    assert await sink.bodies(topic, 1) == [event_body(1)]


@needs_redis_server
async def test_a_lost_connection_is_reported_and_made_again(server: RedisServer, opened: Any) -> None:
    layer, topic, other = RedisLayer(server.url), new_topic(), new_topic()
    sink = await opened(layer)
    await subscribe(layer, sink, topic)
    at = await layer.publish(topic, event_body(1), HISTORY)
    assert at is not None
    async with Redis.from_url(server.url) as admin:
        for client in await admin.client_list(_type="pubsub"):
            await admin.client_kill_filter(_id=client["id"])
    await sink.until(lambda: sink.losses == 1)
    layer.subscribe(other)  # while the connection is lost
    await sink.until(lambda: sorted(sink.confirmed) == sorted([topic, topic, other]))
    page = await layer.read(topic, Position(at.epoch, 0), 10, HISTORY)
    assert page.events == [(1, event_body(1))]


@needs_redis_server
async def test_a_connection_that_died_while_idle_loses_no_command(
    server: RedisServer, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "FRESH", -1.0)
    layer, topic = RedisLayer(server.url), new_topic()
    await opened(layer)
    await layer.publish(topic, event_body(1), HISTORY)
    async with Redis.from_url(server.url) as admin:
        await admin.client_kill_filter(_type="normal", skipme=True)
    at = await layer.publish(topic, event_body(2), HISTORY)
    assert at is not None
    assert at.offset == 2


@needs_redis_server
async def test_a_server_that_stops_answering_is_a_loss(server: RedisServer, opened: Any) -> None:
    layer, topic = RedisLayer(server.url, ping_interval=0.4), new_topic()
    sink = await opened(layer)
    await subscribe(layer, sink, topic)
    async with asyncio.timeout(5):  # until a PONG arrives
        heard = layer._open_layer.pubsub._last_heard
        while layer._open_layer.pubsub._last_heard == heard:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    losses = sink.losses
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    await sink.until(lambda: sink.losses > losses)
    confirmed = len(sink.confirmed)
    os.kill(server.process.pid, signal.SIGCONT)
    await sink.until(lambda: len(sink.confirmed) > confirmed)


@needs_redis_server
async def test_a_failing_sink_does_not_end_the_layer(server: RedisServer, opened: Any, caplog: Any) -> None:
    layer, topic = RedisLayer(server.url), new_topic()
    sink = await opened(layer)
    await subscribe(layer, sink, topic)
    message = sink.message
    sink.message = lambda *_: 1 // 0
    await layer.publish(topic, event_body(1), HISTORY)
    await sink.until(lambda: sink.confirmed == [topic, topic])
    sink.message = message
    await layer.publish(topic, event_body(2), HISTORY)
    assert await sink.bodies(topic, 1) == [event_body(2)]
    assert "ZeroDivisionError" in caplog.text


async def test_many_channels_go_out_in_few_commands() -> None:
    pubsub = channels.PubSub(None, Recorder(), bool, lambda: None, 1.0, max_names=2)  # type: ignore[arg-type]
    pubsub.subscribe("early", "early")
    pubsub._is_up = True
    for name in "abc":
        pubsub.subscribe(name, name)
    pubsub.unsubscribe("a")
    pubsub.unsubscribe("unknown")
    pubsub.subscribe("d", "d")
    commands = []
    while pubsub._pending:
        commands.append(pubsub._next_command())
    assert commands == [
        encode_command(b"SUBSCRIBE", b"b", b"c"),
        encode_command(b"UNSUBSCRIBE", b"a"),
        encode_command(b"SUBSCRIBE", b"d"),
    ]


@needs_redis_server
async def test_a_demoted_master_is_left(server: RedisServer, opened: Any) -> None:
    layer, topic = RedisLayer(server.url), new_topic()
    await opened(layer)
    await layer.publish(topic, event_body(1), HISTORY)
    async with Redis.from_url(server.url) as admin:
        await admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(LayerUnavailable):
            await layer.publish(topic, event_body(2), HISTORY)
        await admin.execute_command("REPLICAOF", "NO", "ONE")
    assert await eventually(lambda: layer.publish(topic, event_body(3), HISTORY))


async def test_a_closed_layer_refuses_requests() -> None:
    for layer in (RedisLayer("redis://127.0.0.1"), MemoryLayer()):
        layer.subscribe("t")
        layer.unsubscribe("t")
        for request in (
            layer.publish("t", event_body(1), None),
            layer.read("t", None, 0, HISTORY),
            layer.invalidate("t", HISTORY),
        ):
            with pytest.raises(LayerUnavailable) as refused:
                await request
            assert not refused.value.uncertain


# -- a restart --------------------------------------------------------------------------------------------------------
@needs_redis_server
async def test_a_restart_that_keeps_all_shares_a_past_with_the_old(tmp_path: Path, opened: Any) -> None:
    with redis_server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        layer, topic = RedisLayer(server.url), new_topic()
        await opened(layer)
        first = await layer.publish(topic, event_body(1), HISTORY)
        assert first is not None
        await layer.publish(topic, event_body(2), HISTORY)
        server.kill()
        server.start()
        page = await eventually(lambda: layer.read(topic, first, 10, HISTORY))
        assert page.events == [(2, event_body(2))]
        assert (page.position.offset, page.shared) == (2, 2)
        assert page.position.epoch != first.epoch
        third = await eventually(lambda: layer.publish(topic, event_body(3), HISTORY))
        assert third == Position(page.position.epoch, 3)


@needs_redis_server
@pytest.mark.parametrize("lost", ["publication", "invalidation"])
async def test_a_restart_that_loses_writes_ends_the_history(tmp_path: Path, opened: Any, lost: str) -> None:
    with redis_server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        layer, other, topic = RedisLayer(server.url), RedisLayer(server.url), new_topic()
        await opened(layer)
        sink = await opened(other)
        await subscribe(other, sink, topic)
        first = await layer.publish(topic, event_body(1), HISTORY)
        assert first is not None
        kept = {path: path.read_bytes() for path in (tmp_path / "appendonlydir").iterdir()}
        if lost == "publication":
            await layer.publish(topic, event_body(2), HISTORY)
        else:
            await layer.invalidate(topic, HISTORY)
        await sink.bodies(topic, 2)
        server.kill()
        for path, content in kept.items():
            path.write_bytes(content)
        server.start()
        # Nobody publishes: the layer of the publisher finds by itself that an acknowledged position is lost.
        async with asyncio.timeout(10):
            while (await eventually(lambda: other.read(topic, first, 10, HISTORY))).events is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@needs_redis_server
async def test_a_closed_connection_does_not_reconnect_silently(server: RedisServer) -> None:
    layer = RedisLayer(server.url)
    link = await layer._connect()
    await link.close()
    with pytest.raises(ConnectionError, match="was closed"):
        await link.send(encode_command(b"PING"))


@needs_redis_server
async def test_acknowledged_positions_are_kept_within_bounds(
    server: RedisServer, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "MAX_ACKNOWLEDGED", 3)
    layer = RedisLayer(server.url)
    await opened(layer)
    for number in range(6):
        await layer.publish(f"t{number}", event_body(1), HISTORY)
    noted = layer._open_layer._recent_positions
    assert [keys[0] for keys in noted] == [layer.keys(f"t{number}")[0] for number in (3, 4, 5)]
    monkeypatch.setattr(redis, "ACKNOWLEDGED_FOR", -1.0)
    layer._open_layer.acknowledge(layer.keys("t9"), Position("e", 1))
    assert not noted
    session = layer._open_layer
    session._doubtful = {layer.keys(f"d{number}"): Position("e", 1) for number in range(5)}
    session._on_connected(b"another", b"one")
    assert [keys[0] for keys in session._doubtful] == [layer.keys(f"d{number}")[0] for number in (2, 3, 4)]


# -- simulation over a real server ------------------------------------------------------------------------------------
async def cause_faults(world: World, server: RedisServer, seconds: float, restarts: int) -> None:
    rng, count, end = world.rng, world.count, now() + seconds
    times = sorted(now() + seconds * rng.uniform(0.2, 0.8) for _ in range(restarts))
    async with Redis.from_url(server.url) as admin:
        while now() < end:
            await asyncio.sleep(rng.random() * 0.15)
            if times and now() > times[0]:
                times.pop(0)
                await asyncio.to_thread(restart, server, rng)
                count["restarts"] += 1
            with contextlib.suppress(RedisError):  # a fault may kill this connection too
                await cause_one_fault(world, server, admin)


async def cause_one_fault(world: World, server: RedisServer, admin: Redis) -> None:
    rng, count, drawn = world.rng, world.count, world.rng.random()
    if drawn < 0.12:
        ids = [one["id"] for one in await admin.client_list() if one["cmd"] != "client|list"]
        if ids:  # else the server has just started, without clients
            await admin.client_kill_filter(_id=rng.choice(ids))
            count["kills"] += 1
    elif drawn < 0.16:
        await admin.delete(RedisLayer(server.url).keys(rng.choice(world.topics))[rng.randrange(2)])
        count["evictions"] += 1
    elif drawn < 0.18:
        await world.restart_node()
    else:
        world.drop_some()


def restart(server: RedisServer, rng: random.Random) -> None:
    """Kills the server, perhaps loses its last writes as after a power cut or a failover, and starts it again."""
    server.kill()
    if rng.random() < 0.7:
        last = sorted((server.directory / "appendonlydir").glob("*.incr.aof"))[-1]
        os.truncate(last, max(0, last.stat().st_size - rng.randrange(1, 30_000)))
    server.start()


async def simulate(tmp_path: Path, seed: int, seconds: float, restarts: int) -> World:
    rng = random.Random(seed)
    with redis_server(tmp_path, "--appendonly", "yes") as server:
        world = World(
            rng,
            lambda: RedisLayer(server.url, ping_interval=0.5),
            clients=20,
            topics=4,
            options=lambda: {"linger": rng.choice((0.0, 0.05, 1.0)), "check_interval": 1.0},
        )
        await world.live(lambda world: cause_faults(world, server, seconds, restarts))
    return world


@needs_redis_server
@pytest.mark.slow
async def test_clients_miss_nothing_silently_over_a_real_redis(tmp_path: Path) -> None:
    world = await simulate(tmp_path, 1, seconds=1.5, restarts=1)
    assert world.faults() == []
    assert world.count["delivered"] > world.count["acknowledged"] > 20


@needs_redis_server
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 5))
async def test_clients_miss_nothing_silently_over_a_long_run(tmp_path: Path, seed: int) -> None:
    world = await simulate(tmp_path, seed, seconds=10.0, restarts=3)
    assert world.faults() == []
    assert world.count["restarts"] == 3


@needs_redis_server
async def test_two_hubs_receive_events_of_each_other(server: RedisServer) -> None:
    received: asyncio.Queue[str] = asyncio.Queue()

    class Client:
        capacity, is_closed = 1 << 20, False

        def put(self, text: str) -> None:
            received.put_nowait(text)

        async def wait_for_space(self, size: int) -> None: ...

        def close(self, code: int, reason: str) -> None: ...

    one, other = Hub(RedisLayer(server.url)), Hub(RedisLayer(server.url))
    await one.join(Client(), "t", "t", history=HISTORY, reply=lambda *_: "joined")
    at = await other.publish("t", encode_event("moved", "t", "1"), HISTORY)
    assert at is not None
    async with asyncio.timeout(5):
        assert [await received.get(), await received.get()] == [
            "joined",
            '{"event":"moved","route":"t","data":1,"offset":1}',
        ]
    await one.close()
    await other.close()
