"""What clients can make a server remember of what they say, whether anybody is there or not: it is bounded in bytes."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from benchmarks.redis_server import free_port
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.layers.memory import MemoryLayer
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a process's memory is read in /proc"),
    pytest.mark.timeout(180),
]

MIB = 1_048_576
MAX_BYTES = 8 * MIB
FRAMES, ROOMS, TEXT = 20_000, 3_000, "x" * 4_000  # 80 MB in all


class Room(SubscribeMixin, AsyncAPIActionHandler):
    @async_action
    async def say(self, text: str) -> None:
        await self.publish("said", text)


class Kept(Room):
    history_always = True


class Root(AsyncAPIConsumer):
    routepatterns = [path("rooms/<slug:name>/", Room.as_aaah()), path("kept/<slug:name>/", Kept.as_aaah())]


app = WSAction([path("ws/", Root.as_asgi())], layer=MemoryLayer(max_bytes=MAX_BYTES))


class Running:
    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.process, self.url = process, f"ws://127.0.0.1:{port}/ws/"

    def memory(self) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@contextmanager
def running() -> Iterator[Running]:
    port = free_port()
    command = [sys.executable, "-m", "wsaction", "run", "tests.test_attacks_history:app", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield Running(process, port)
    finally:
        process.terminate()
        process.wait(15)


async def connected(url: str) -> Any:
    async with asyncio.timeout(60):
        while True:
            try:
                return await connect(url, proxy=None, max_queue=None)
            except OSError:
                await asyncio.sleep(0.05)


async def ask(ws: Any, *frames: dict[str, Any]) -> None:
    """Sends frames, and waits for the reply to each."""
    for number, frame in enumerate(frames):
        await ws.send(json.dumps({**frame, "request_id": number}))
    waiting = len(frames)
    while waiting:
        message = json.loads(await asyncio.wait_for(ws.recv(), 20))
        if "status" in message:
            assert message["status"] in (200, 204), message
            waiting -= 1


async def say_everywhere(url: str, how: str, share: range) -> None:
    ws = await connected(url)
    for start in range(share.start, share.stop, 50):
        frames = list[dict[str, Any]]()
        for number in range(start, min(start + 50, share.stop)):
            room = f"{'kept' if how == 'kept' else 'rooms'}/r{number % ROOMS}/"
            said = {"action": "say", "route": room, "text": TEXT}
            if how == "joined":
                await ask(ws, {"action": "subscribe", "route": room}, {"action": "unsubscribe", "route": room})
            frames.append(said)
        await ask(ws, *frames)
    await ws.close()


@pytest.mark.parametrize("sockets", [1, 40])
@pytest.mark.parametrize(
    ("how", "frames", "most"),
    [("nobody is there", FRAMES, 12 * MIB), ("kept", FRAMES, 5 * MAX_BYTES), ("joined", FRAMES // 4, 5 * MAX_BYTES)],
)
async def test_what_is_said_in_thousands_of_rooms_is_bounded(how: str, frames: int, most: int, sockets: int) -> None:
    with running() as server:
        warm = await connected(server.url)
        await ask(
            warm, {"action": "subscribe", "route": "rooms/warm/"}, {"action": "say", "route": "kept/a/", "text": ""}
        )
        before, share = server.memory(), frames // sockets
        attackers = (say_everywhere(server.url, how, range(at * share, (at + 1) * share)) for at in range(sockets))
        await asyncio.gather(*attackers)
        grown = server.memory() - before
        print(f"{how}, {sockets} sockets: {grown / MIB:.1f} MiB")
        await warm.close()
    assert grown < most + sockets * MIB // 2
