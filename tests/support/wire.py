"""`FairProtocol` in memory: the client writes bytes in any pieces, and reads what the server writes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from tests.support.dos_client import handshake
from wsaction._server.uvicorn_protocol import FairProtocol

WAIT = 10.0


class Transport(asyncio.Transport):
    """A transport whose other end is the test."""

    def __init__(self, wire: "Wire") -> None:
        super().__init__()
        self.wire = wire
        self.paused = self.closed = False

    def write(self, data: Any) -> None:
        if not self.closed:
            self.wire.written += data
            self.wire.notify()

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False
        self.wire.notify()

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.wire.eof = True
        self.wire.notify()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self._lost)

    abort = close

    def _lost(self) -> None:
        self.wire.protocol.connection_lost(None)
        self.wire.notify()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Wire:
    """A connection to an ASGI app."""

    def __init__(self, app: Any, **options: Any) -> None:
        options = {"ws_max_size": None, "ws_per_message_deflate": False, "ws_ping_interval": None, **options}
        config = uvicorn.Config(app, ws=FairProtocol, lifespan="off", log_config=None, **options)
        config.load()
        self.state = ServerState()
        self.written = bytearray()
        self.eof = False
        self._changed = asyncio.Event()
        self.protocol = FairProtocol(config, self.state, {}, asyncio.get_running_loop())
        self.transport = Transport(self)
        self.protocol.connection_made(self.transport)

    def notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(WAIT):
            while not condition():
                await self._changed.wait()

    async def feed(self, data: bytes) -> None:
        """Sends bytes when the server reads; drops them if it has closed the socket."""
        await self.until(lambda: not self.transport.paused or self.transport.closed)
        if not self.transport.closed:
            self.protocol.data_received(data)

    async def connect(self, path: str = "/") -> None:
        """Does the handshake, which the server must accept."""
        await self.feed(handshake(8_000, path))
        await self.until(lambda: b"\r\n\r\n" in self.written)
        head, _, rest = bytes(self.written).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        self.written[:] = rest

    def frames(self) -> list[tuple[int, bytes]]:
        """The opcode and payload of each complete frame that the server has written."""
        found, data = [], bytes(self.written)
        while len(data) > 1:
            size, head = data[1], 2
            if size > 125:
                head = 4 if size == 126 else 10
                size = int.from_bytes(data[2:head], "big")
            if len(data) < head + size:
                break
            found.append((data[0] & 15, data[head : head + size]))
            data = data[head + size :]
        return found

    async def receive(self, count: int) -> list[tuple[int, bytes]]:
        await self.until(lambda: len(self.frames()) >= count)
        return self.frames()

    async def close_frame(self) -> tuple[int, str]:
        """The code and reason of the close frame, which must be the last frame."""
        await self.until(lambda: any(opcode == 8 for opcode, _ in self.frames()))
        opcode, payload = self.frames()[-1]
        assert opcode == 8
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()


@contextlib.asynccontextmanager
async def wired(app: Any, path: str = "/", **options: Any) -> AsyncIterator[Wire]:
    """An accepted connection. At the end the client disconnects, and the app ends."""
    wire = Wire(app, **options)
    await wire.connect(path)
    try:
        yield wire
    finally:
        wire.transport.close()
        if wire.state.tasks:
            await asyncio.wait(wire.state.tasks, timeout=WAIT)
        assert not wire.state.tasks
