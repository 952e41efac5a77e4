"""A WebSocket server that a test controls frame by frame, and a relay that cuts connections."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as websockets_serve
from websockets.exceptions import ConnectionClosed

from wsaction.client import Client, connect

WAIT = 10.0  # seconds; the longest wait for anything


class Peer:
    """A connection, on the side of the server."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.over = asyncio.Event()
        self._first: str | bytes | None = None

    async def greeted(self) -> None:
        """Answers the `$ping` that a client begins with, if it does."""
        with contextlib.suppress(ConnectionClosed):
            first = await asyncio.wait_for(self.socket.recv(), WAIT)
            frame = json.loads(first)
            if frame["action"] == "$ping" and "request_id" in frame:
                await self.reply(frame)
            else:
                self._first = first

    async def frame(self, action: str | None = None) -> dict[str, Any]:
        """The client's next frame, which must have this action."""
        first, self._first = self._first, None
        frame = json.loads(first or await asyncio.wait_for(self.socket.recv(), WAIT))
        assert action is None or frame["action"] == action, frame
        return frame

    async def say(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def reply(self, frame: dict[str, Any], data: Any = None, status: int = 200, *errors: Any) -> None:
        echoed = {key: frame[key] for key in ("action", "route", "request_id") if key in frame}
        await self.say(**{"errors": list(errors), "data": data, "route": "", "status": status, **echoed})

    async def event(self, offset: int | None, data: Any = None, route: str = "boards/7/", event: str = "moved") -> None:
        message = {"event": event, "route": route, "data": data}
        await self.say(**message if offset is None else {**message, "offset": offset})

    async def close(self, code: int, reason: str = "") -> None:
        await self.socket.close(code, reason)
        self.over.set()

    def drop(self) -> None:
        """Aborts the connection without a close frame."""
        self.socket.transport.abort()
        self.over.set()

    async def gone(self) -> int | None:
        """Waits until the client has closed; returns the close code."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.wait_for(self.socket.recv(), WAIT)
        return self.socket.close_code


class ScriptedServer:
    """The server that clients connect to. `accepted` returns their connections, one after the other."""

    def __init__(self, greets: bool = True) -> None:
        self.greets = greets
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self.url = ""
        self.count = 0  # connections so far

    async def accepted(self) -> Peer:
        return await asyncio.wait_for(self._peers.get(), WAIT)

    async def handle(self, socket: ServerConnection) -> None:
        self.count += 1
        peer = Peer(socket)
        if self.greets:
            await peer.greeted()
        self._peers.put_nowait(peer)
        closed = asyncio.ensure_future(socket.wait_closed())
        over = asyncio.ensure_future(peer.over.wait())
        await asyncio.wait([closed, over], return_when=asyncio.FIRST_COMPLETED)
        for task in (closed, over):
            task.cancel()


@contextlib.asynccontextmanager
async def scripted(greets: bool = True, **options: Any) -> AsyncIterator[ScriptedServer]:
    """A scripted server. With ``greets`` it answers the first `$ping` of each connection before the test gets it."""
    server = ScriptedServer(greets)
    options = {"subprotocols": ["wsaction.v1"], "ping_interval": None, "close_timeout": 1, **options}
    async with websockets_serve(server.handle, "127.0.0.1", 0, **options) as listening:
        server.url = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
        yield server


@contextlib.asynccontextmanager
async def client_at(server: ScriptedServer, **options: Any) -> AsyncIterator[tuple[Client, Peer]]:
    async with connect(server.url, proxy=None, first_wait=0.01, longest_wait=0.02, **options) as client:
        yield client, await server.accepted()


class Relay:
    """A proxy between a client and a server on this machine, which can be cut."""

    def __init__(self, port: int) -> None:
        self.target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.is_open = True
        self.port = 0

    def url(self, path: str) -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    def cut(self) -> None:
        """Aborts every connection, and each new one until ``is_open`` is set again."""
        self.is_open = False
        for writer in self._writers:
            writer.transport.abort()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if not self.is_open:
            writer.transport.abort()
            return
        try:
            upstream, downstream = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:  # the server is down
            writer.transport.abort()
            return
        self._writers.add(downstream)
        pumps = [asyncio.create_task(_pump(reader, downstream)), asyncio.create_task(_pump(upstream, writer))]
        self._pumps.update(pumps)
        await asyncio.wait(pumps)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


@contextlib.asynccontextmanager
async def relayed(port: int) -> AsyncIterator[Relay]:
    relay = Relay(port)
    listening = await asyncio.start_server(relay.handle, "127.0.0.1", 0)
    relay.port = listening.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        listening.close()
        relay.cut()
        await asyncio.gather(*relay._pumps, return_exceptions=True)
