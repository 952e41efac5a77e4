"""`wsaction.server`: stopping an app with SIGTERM, under `wsaction run` and plain uvicorn."""

import asyncio
import contextlib
import json
import logging
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websockets_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.drained import DRAIN_TIMEOUT, app
from tests.support.server_processes import UVICORN, WSACTION, Process, started
from wsaction.server import DrainingProtocol, run


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # for the clients; the server has its own loop


@contextlib.asynccontextmanager
async def connected(server: Process, count: int) -> AsyncIterator[list[ClientConnection]]:
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for _ in range(0, count, 50):
            some = await asyncio.gather(*(server.connect() for _ in range(min(50, count))))
            for client in some:
                stack.push_async_callback(client.close)
            clients += some
        yield clients


async def messages_until_close(client: ClientConnection) -> tuple[list[dict[str, Any]], int | None]:
    """All messages that a client gets until the end, and the close code."""
    replies = []
    try:
        while True:
            replies.append(json.loads(await asyncio.wait_for(client.recv(), 30)))
    except ConnectionClosed as closed:
        return replies, None if closed.rcvd is None else closed.rcvd.code


@pytest.mark.slow
async def test_wsaction_run_drains() -> None:
    async with started(*WSACTION) as server, connected(server, 500) as idle, connected(server, 10) as busy:
        for number, client in enumerate(busy):
            seconds = 1 if number < 5 else 60
            await client.send(json.dumps({"action": "work", "seconds": seconds, "request_id": "under way"}))
            await client.send(json.dumps({"action": "work", "seconds": 0, "request_id": "behind it"}))
            await client.send(json.dumps({"action": "numbers", "route": "", "request_id": "stream"}))
            assert json.loads(await client.recv())["status"] == 206
        stopping = asyncio.create_task(server.stop())
        refused = json.loads(await busy[0].recv())
        assert (refused["request_id"], refused["status"]) == ("behind it", 503)
        assert refused["errors"][0]["type"] == "shutting_down"
        await busy[0].send('{"action": "work", "seconds": 0, "request_id": "late"}')
        await busy[0].send('{"action": "$ping", "request_id": "ping"}')
        ends = await asyncio.gather(*(messages_until_close(client) for client in [*idle, *busy]))
        seconds, printed = await stopping
    assert {code for _, code in ends} == {1012}
    statuses = [Counter((reply["request_id"], reply["status"]) for reply in replies) for replies, _ in ends]
    assert not any(statuses[: len(idle)])
    first, *others = statuses[len(idle) :]
    assert first == {("under way", 200): 1, ("late", 503): 1, ("ping", 200): 1}
    assert others[:4] == [{("behind it", 503): 1, ("under way", 200): 1}] * 4
    assert others[4:] == [{("behind it", 503): 1}] * 5
    assert seconds < DRAIN_TIMEOUT + 1.5  # the process needs a moment to end
    assert printed == [{"stream": "closed"}] * 10 + [{"connections": 0, "tasks": printed[-1]["tasks"], "left": []}]
    assert server.returncode == -signal.SIGTERM
    assert not [line for line in server.log if "Traceback" in line or "ERROR" in line]


async def test_idle_connections_are_closed_at_once() -> None:
    async with started(*WSACTION) as server, connected(server, 20) as idle:
        stopping = asyncio.create_task(server.stop())
        ends = await asyncio.gather(*(messages_until_close(client) for client in idle))
        seconds, printed = await stopping
    assert ends == [([], 1012)] * 20
    assert seconds < DRAIN_TIMEOUT
    assert printed[-1]["connections"] == 0


@pytest.mark.slow
async def test_under_plain_uvicorn_all_ends_within_drain_timeout() -> None:
    async with started(*UVICORN) as server, connected(server, 500) as idle, connected(server, 10) as busy:
        for client in busy:
            await client.send(json.dumps({"action": "work", "seconds": 60}))
            await client.send(json.dumps({"action": "numbers"}))
            assert json.loads(await client.recv())["status"] == 206
        stopping = asyncio.create_task(server.stop())
        ends = await asyncio.gather(*(messages_until_close(client) for client in [*idle, *busy]))
        seconds, printed = await stopping
    assert {code for _, code in ends} == {1012}
    assert seconds < DRAIN_TIMEOUT + 1.5
    assert printed == [{"stream": "closed"}] * 10 + [{"connections": 0, "tasks": printed[-1]["tasks"], "left": []}]
    assert not [line for line in server.log if "Traceback" in line or "ERROR" in line]


@pytest.mark.slow
async def test_a_client_that_does_not_read_does_not_hold_the_server_up() -> None:
    async with started(*WSACTION) as server, server.connect() as client:
        client.transport.pause_reading()  # the client does not answer the close frame either
        seconds, printed = await server.stop()
        client.transport.abort()
    assert seconds < DRAIN_TIMEOUT + 3
    assert printed[-1]["connections"] == 0


@pytest.mark.slow
async def test_with_several_workers() -> None:
    async with started(*WSACTION, "--workers", "2") as server, server.connect() as one, server.connect() as another:
        for client in (one, another):
            await client.send('{"action": "work", "seconds": 0.5, "request_id": 1}')
            await client.send('{"action": "$ping"}')
            assert json.loads(await client.recv())["status"] == 200
        stopping = asyncio.create_task(server.stop())
        ends = await asyncio.gather(messages_until_close(one), messages_until_close(another))
        await stopping
    assert [[reply["status"] for reply in replies] for replies, _ in ends] == [[200], [200]]
    assert [code for _, code in ends] == [1012, 1012]


async def test_a_second_server_on_the_same_loop_drains_as_well() -> None:
    for _ in range(2):
        config = uvicorn.Config(app, port=0, ws=DrainingProtocol, log_config=None)
        server = uvicorn.Server(config)
        is_up = asyncio.Event()
        startup = server.startup

        async def start(sockets: Any = None, startup: Any = startup, is_up: asyncio.Event = is_up) -> None:
            await startup(sockets)
            is_up.set()

        server.startup = start  # type: ignore[method-assign]  # uvicorn tells nobody that it is up
        serving = asyncio.create_task(server.serve())
        await asyncio.wait_for(is_up.wait(), 10)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with websockets_connect(f"ws://127.0.0.1:{port}/ws/", proxy=None) as client:
            await client.send('{"action": "work", "seconds": 0.2}')
            await client.send('{"action": "$ping"}')
            assert json.loads(await client.recv())["action"] == "$ping"
            server.should_exit = True
            replies, code = await messages_until_close(client)
            assert ([one["status"] for one in replies], code) == ([200], 1012)
        await asyncio.wait_for(serving, 10)


# ------------------------------------------------------------------------------------------------ the log
async def lost(server: Process) -> str:
    """The log line about a handshake to a path that is similar to a route."""
    with pytest.raises(InvalidStatus):
        await websockets_connect(f"ws://127.0.0.1:{server.port}/ws", proxy=None)

    def read() -> str:
        assert server.stderr is not None
        return next(line for line in iter(server.stderr.readline, "") if "None of the" in line)

    return await asyncio.wait_for(asyncio.to_thread(read), 10)


@pytest.mark.slow
async def test_wsaction_run_shows_the_frameworks_own_log() -> None:
    async with started(*WSACTION) as server:
        assert re.fullmatch(r"INFO: +None of the 1 patterns? .*'ws/'.*\n", await lost(server))


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--workers", "2"], ["--reload", "--reload-dir", "tests"]], ids=" ".join)
async def test_processes_that_are_started_from_it_show_it_too(options: list[str]) -> None:
    async with started(*WSACTION, *options) as server:
        assert "'ws/'" in await lost(server)
        await server.stop()


def configured(monkeypatch: pytest.MonkeyPatch, handlers: list[logging.Handler], **options: Any) -> Any:
    """The log configuration that uvicorn gets if the root logger has these handlers."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(uvicorn, "run", lambda app, **settings: given.update(settings))
    with monkeypatch.context() as patch:
        patch.setattr(logging.getLogger(), "handlers", handlers)
        run(app, **options)
    return given.get("log_config")


@pytest.mark.parametrize(
    ("level", "expected"), [(None, "INFO"), ("warning", "WARNING"), ("DEBUG", "DEBUG"), (logging.ERROR, "ERROR")]
)
def test_the_frameworks_log_has_uvicorns_level(monkeypatch: pytest.MonkeyPatch, level: Any, expected: str) -> None:
    logger = configured(monkeypatch, [], **({} if level is None else {"log_level": level}))["loggers"]["wsaction"]
    assert (logging.getLevelName(logger["level"]), logger["handlers"]) == (expected, ["default"])
    assert not logger["propagate"]
    assert "wsaction" not in uvicorn.config.LOGGING_CONFIG["loggers"]  # a global of uvicorn, which must stay unchanged


def test_a_program_with_a_log_of_its_own_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert configured(monkeypatch, [logging.NullHandler()]) is None
    with monkeypatch.context() as patch:
        patch.setattr(logging.getLogger("wsaction"), "handlers", [logging.NullHandler()])
        assert configured(monkeypatch, []) is None
    assert configured(monkeypatch, [], log_config={"version": 1}) == {"version": 1}
