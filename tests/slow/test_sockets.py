"""Real sockets: uvicorn in a thread with `websockets` clients, for each of uvicorn's WebSocket implementations."""

import asyncio
import contextlib
import gc
import importlib.util
import json
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.conftest import Server
from wsaction._connection.connection import Connection
from wsaction._dispatch.session import Session
from wsaction._protocol.frames import Frame
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.routing import path

WAIT = 10.0  # seconds that a test waits at most

# uvicorn's older implementation uses the legacy API of `websockets`, which warns.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .websockets. implementation is deprecated"),
    pytest.mark.filterwarnings("ignore:websockets.legacy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:websockets.server.WebSocketServerProtocol is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:remove second argument of ws_handler:DeprecationWarning"),
]

without_wsproto = pytest.mark.skipif(importlib.util.find_spec("wsproto") is None, reason="wsproto is not installed")
every_implementation = pytest.mark.parametrize(
    "ws",
    [
        "websockets-sansio",
        "wsaction.server:DrainingProtocol",
        "websockets",
        pytest.param("wsproto", marks=without_wsproto),
    ],
)

Serve = Callable[..., Server]


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of the client; the server has its own."""
    return "asyncio"


class Ends:
    """The close codes of ended connections; another thread can wait for them."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self._changed = threading.Condition()

    def add(self, code: int) -> None:
        with self._changed:
            self.codes.append(code)
            self._changed.notify_all()

    async def reach(self, count: int) -> None:
        def wait() -> bool:
            with self._changed:
                return self._changed.wait_for(lambda: len(self.codes) >= count, WAIT)

        assert await asyncio.to_thread(wait), f"{len(self.codes)} of {count} connections ended"


class Waiting(AsyncAPIActionHandler):
    @async_action
    async def wait(self) -> str:
        await self.consumer.event().wait()
        return "let go"

    @async_action
    async def echo(self, data: Any = None) -> Any:
        return data

    @async_action
    def in_thread(self, data: Any = None) -> Any:
        return data


class Room(AsyncAPIConsumer):
    """A consumer whose ``wait`` lasts until ``release``."""

    routepatterns = [path("<name>/", Waiting.as_aaah())]
    ends: Any = None
    frames = 0

    def event(self) -> asyncio.Event:
        if not hasattr(self, "_event"):
            self._event = asyncio.Event()
        return self._event

    @async_action
    async def release(self) -> None:
        self.event().set()

    @async_action(timeout=60)
    async def sleep(self, data: float) -> str:
        await asyncio.sleep(data)
        return "slept"

    @async_action(ordered=False)
    async def large(self, data: int) -> str:
        return "x" * data

    async def disconnect(self, code: int) -> None:
        if self.ends is not None:
            self.ends.add(code)


async def send(ws: ClientConnection, action: str, route: str = "", request_id: Any = None, **keys: Any) -> None:
    frame = {"action": action, "route": route, **keys}
    await ws.send(json.dumps(frame if request_id is None else {**frame, "request_id": request_id}))


async def receive(ws: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(WAIT):
        reply: dict[str, Any] = json.loads(await ws.recv())
    return reply


# ------------------------------------------------------------------------------------------------ order


@every_implementation
async def test_a_route_that_waits_delays_no_other_and_its_own_frames_keep_their_order(serve: Serve, ws: str) -> None:
    server = serve(WSAction([path("ws/", Room.as_asgi())]), ws=ws)
    async with server.connect("/ws/", subprotocols=["wsaction.v1"]) as client:
        assert client.subprotocol == "wsaction.v1"
        await send(client, "wait", "a/", 1)
        await send(client, "echo", "a/", 2, data="behind")
        await send(client, "echo", "b/", 3, data="another route")
        assert (await receive(client))["request_id"] == 3
        await send(client, "in_thread", "c/", 4, data="é")
        reply = await receive(client)
        assert (reply["request_id"], reply["data"]) == (4, "é")
        await send(client, "release", "", 5)
        replies = [await receive(client) for _ in range(3)]
        assert {reply["request_id"] for reply in replies} == {1, 2, 5}
        assert [reply["data"] for reply in replies if reply["request_id"] in (1, 2)] == ["let go", "behind"]


@every_implementation
async def test_a_frame_too_large_closes_and_malformed_ones_do_not(serve: Serve, ws: str) -> None:
    ends = Ends()
    server = serve(WSAction([path("", Room.as_asgi(ends=ends))], limits=Limits(max_frame_bytes=1_000)), ws=ws)
    async with server.connect("/") as client:
        for message in ("{", b"{}", "[]", "x" * 1_000):
            await client.send(message)
            assert (await receive(client))["status"] == 400
        await client.send("x" * 1_001)
        with pytest.raises(ConnectionClosed) as caught:
            await receive(client)
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (
        1009,
        "a frame of 1001 bytes; max_frame_bytes is 1000",
    )
    await ends.reach(1)
    assert ends.codes == [1009]


# ------------------------------------------------------------------------------------------------ pings

PINGS = {"ws_ping_interval": 0.2, "ws_ping_timeout": 0.2}


@every_implementation
async def test_a_handler_slower_than_the_servers_pings_keeps_its_socket(serve: Serve, ws: str) -> None:
    server = serve(WSAction([path("", Room.as_asgi())]), ws=ws, **PINGS)
    async with server.connect("/") as client:
        await send(client, "sleep", "", 1, data=0.8)
        for request_id in range(2, 8):  # unread frames keep pongs unread too
            await send(client, "sleep", "", request_id, data=0)
        assert [(await receive(client))["request_id"] for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.slow
async def test_a_handler_slower_than_many_pings_of_both_keeps_its_socket(serve: Serve) -> None:
    server = serve(WSAction([path("", Room.as_asgi())]), **PINGS)
    async with server.connect("/", ping_interval=0.2, ping_timeout=0.2) as client:
        await send(client, "sleep", "", 1, data=12)  # sixty pings
        await send(client, "echo", "elsewhere/", 2)
        assert (await receive(client))["request_id"] == 2
        async with asyncio.timeout(12 + WAIT):
            reply = json.loads(await client.recv())
        assert (reply["request_id"], reply["status"], reply["data"]) == (1, 200, "slept")


async def test_and_one_that_is_awaited_by_its_reader_does_not(serve: Serve) -> None:
    """The test above would notice such an app."""

    async def naive(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            await asyncio.sleep(0.8)
            with contextlib.suppress(OSError):
                await send({"type": "websocket.send", "text": "{}"})

    server = serve(naive, lifespan="off", **PINGS)
    async with server.connect("/") as client:
        for _ in range(2):
            await client.send("{}")
        async with asyncio.timeout(WAIT):
            await client.wait_closed()
        assert client.close_code == 1011
        assert client.close_reason == "keepalive ping timeout"


# ------------------------------------------------------------------------------------------------ the end


@every_implementation
async def test_a_client_that_does_not_read_is_closed_and_let_go(serve: Serve, ws: str) -> None:
    ends = Ends()
    limits = Limits(drain_timeout=0.2, max_outbox_bytes=200_000)
    server = serve(WSAction([path("", Room.as_asgi(ends=ends))], limits=limits), ws=ws)
    tasks = server.tasks()
    async with server.connect("/", max_queue=1, compression=None) as client:
        with contextlib.suppress(ConnectionClosed, OSError):
            for _ in range(2_000):
                await send(client, "large", "", data=60_000)
                if ends.codes:
                    break
        await ends.reach(1)
        client.transport.abort()
    assert ends.codes == [1013]
    if ws != "websockets":  # its tasks wait ten seconds for a close frame
        await tasks_are_down_to(server, tasks)


@every_implementation
async def test_a_server_that_shuts_down_cancels_what_runs(serve: Serve, ws: str) -> None:
    ends = Ends()
    server = serve(WSAction([path("", Room.as_asgi(ends=ends))], limits=Limits(drain_timeout=1)), ws=ws)
    async with server.connect("/") as client:
        await send(client, "wait", "a/", 1)
        await send(client, "echo", "b/", 2)
        await receive(client)
        server.should_exit = True
        with pytest.raises(ConnectionClosed) as caught:
            await receive(client)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1012
    await ends.reach(1)
    assert ends.codes == [1012]


# ------------------------------------------------------------------------------------------------ leaks


async def tasks_are_down_to(server: Server, count: int) -> None:
    """Waits until the server's loop has at most this many tasks, and no connection.

    The task of a connection may end before its transport is closed; until then, the protocol keeps its objects.
    """

    def wait() -> tuple[int, int]:
        deadline = time.monotonic() + WAIT
        while (server.tasks() > count or server.connections) and time.monotonic() < deadline:
            time.sleep(0.01)
        return server.tasks(), len(server.connections)

    tasks, connections = await asyncio.to_thread(wait)
    assert tasks <= count
    assert not connections


async def one_client(server: Server, number: int) -> None:
    """Opens, uses and drops one connection, in a way that depends on its number."""
    options = {"compression": None, "ping_interval": None, "open_timeout": WAIT, "close_timeout": WAIT}
    async with server.connect("/ws/blue/", **options) as client:
        way = number % 5
        await send(client, "echo", f"{number % 7}/", number)
        await receive(client)
        if way == 1:  # with a running action, queued frames and an unread reply
            for request_id in range(3):
                await send(client, "wait", "a/", request_id)
            await send(client, "echo", "b/", 9)
        elif way == 2:  # during a flood
            for _ in range(20):
                await send(client, "large", "", data=1_000)
        elif way == 3:  # a thread
            await send(client, "in_thread", "a/", 1)
        if way:
            client.transport.abort()


async def many_clients(server: Server, ends: Ends, count: int) -> None:
    before, tasks = len(ends.codes), server.tasks()
    numbers = iter(range(count))

    async def one_after_the_other() -> None:
        for number in numbers:
            await one_client(server, number)

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(one_after_the_other())
    await ends.reach(before + count)
    await tasks_are_down_to(server, tasks)


def alive() -> Counter[str]:
    """The number of objects of each type that a connection consists of."""
    for _ in range(3):
        gc.collect()
    kinds = (Connection, Session, Frame, Room, Waiting, asyncio.Task, asyncio.Event)
    return Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, kinds))


def resident() -> int:
    """The memory of this process in bytes, or its peak if the system provides only that."""
    with contextlib.suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # proc
        return int(file.read().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.slow
async def test_connections_that_are_dropped_leave_nothing_behind(serve: Serve) -> None:
    """The test below repeats this with ten thousand connections."""
    ends = Ends()
    app = WSAction([path("ws/<room>/", Room.as_asgi(ends=ends))])
    server = serve(app, ws="wsaction.server:DrainingProtocol")
    await many_clients(server, ends, 50)  # warm up: caches, threads
    before, objects = alive(), len(gc.get_objects())
    await many_clients(server, ends, 300)
    assert not alive() - before  # objects that other tests left count in both
    assert len(gc.get_objects()) - objects < 300  # less than one per connection
    assert len(ends.codes) == 350


@pytest.mark.slow
@pytest.mark.timeout(300)
@every_implementation
async def test_thousands_of_connections_leave_nothing_behind(serve: Serve, ws: str) -> None:
    """Ten thousand connections with the protocol of `wsaction run`."""
    ends, number = Ends(), 10_000 if ws.startswith("wsaction.") else 3_000
    server = serve(WSAction([path("ws/<room>/", Room.as_asgi(ends=ends))]), ws=ws)
    await many_clients(server, ends, 1_000)
    before, objects, memory = alive(), len(gc.get_objects()), resident()
    await many_clients(server, ends, number)
    assert not alive() - before
    assert len(gc.get_objects()) - objects < number // 10
    # 500 bytes for each connection, which is less than anything that could be forgotten of one: the allocator's own.
    assert resident() - memory < max(500 * number, 3_000_000)
