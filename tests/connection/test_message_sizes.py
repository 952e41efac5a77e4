"""`max_frame_bytes` applies below ASGI too: no larger message is read, and no smaller one refused."""

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.support import large_frames
from tests.support.dos_client import Server, ws_frame
from tests.support.wire import wired
from wsaction.server import run

DEFAULT, LARGE, SMALL = 65_536, 1_048_576, 1_000
PLACES = [
    pytest.param(large_frames.both, "/large/", LARGE, id="a consumer's"),
    pytest.param(large_frames.both, "/small/", SMALL, id="a consumer's that is small"),
    pytest.param(large_frames.both, "/other/", DEFAULT, id="the default, beside a larger one"),
    pytest.param(large_frames.large, "/ws/", LARGE, id="an app's"),
    pytest.param(large_frames.small, "/ws/", SMALL, id="an app's that is small"),
    pytest.param(large_frames.Large.as_asgi(), "/", LARGE, id="of a consumer alone"),
    pytest.param(large_frames.api, "/large/ws/", LARGE, id="an app's within FastAPI"),
    pytest.param(large_frames.api, "/both/small/", SMALL, id="a consumer's within FastAPI"),
    pytest.param(large_frames.site, "/alone", LARGE, id="of a consumer as a route of Starlette"),
    pytest.param(large_frames.site, "/api/both/large/", LARGE, id="of a consumer in an app in FastAPI in Starlette"),
]


def sized(size: int) -> bytes:
    """A request of ``size`` bytes."""
    frame = json.dumps({"action": "size", "data": ""}).encode()
    return frame[:-2] + b"x" * (size - len(frame)) + frame[-2:]


def fragments(message: bytes) -> bytes:
    """The message in two fragments."""
    half = len(message) // 2
    first = bytearray(ws_frame(message[:half]))
    first[0] &= 0x7F
    return bytes(first) + ws_frame(message[half:], 0)


@pytest.mark.parametrize(("app", "at", "most"), PLACES)
@pytest.mark.parametrize("cut", [ws_frame, fragments], ids=["whole", "in fragments"])
async def test_a_message_beyond_max_frame_bytes_closes_the_connection(app: Any, at: str, most: int, cut: Any) -> None:
    async with wired(app, at) as wire:
        await wire.feed(cut(sized(most)))
        ((opcode, reply),) = await wire.receive(1)
        assert (opcode, json.loads(reply)["status"]) == (1, 200)
        await wire.feed(cut(sized(most + 1)))
        assert await wire.close_frame() == (1009, f"a frame of {most + 1} bytes; max_frame_bytes is {most}")
        assert wire.protocol._unparsed == b""


@pytest.mark.parametrize(("app", "at", "most"), PLACES)
async def test_one_that_is_too_large_is_refused_by_its_head(app: Any, at: str, most: int) -> None:
    async with wired(app, at) as wire:
        await wire.feed(b"\x81\xff" + (most + 1).to_bytes(8, "big"))
        assert await wire.close_frame() == (1009, f"a frame of {most + 1} bytes; max_frame_bytes is {most}")


@pytest.mark.parametrize(("app", "at", "most"), PLACES)
async def test_what_the_server_was_started_with_goes_before(app: Any, at: str, most: int) -> None:
    limit_text = "max_frame_bytes is 1000" if most == SMALL else "--ws-max-size is 2000"
    most = min(most, 2_000)
    async with wired(app, at, ws_max_size=2_000) as wire:
        await wire.feed(ws_frame(sized(most)))
        await wire.receive(1)
        await wire.feed(ws_frame(sized(most + 1)))
        assert await wire.close_frame() == (1009, f"a frame of {most + 1} bytes; {limit_text}")


@pytest.mark.parametrize(("given", "most"), [(None, DEFAULT), (LARGE, LARGE), (SMALL, SMALL)])
async def test_another_asgi_app_has_the_servers_bound_or_the_default(given: int | None, most: int) -> None:
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            received.append(len(message["text"]))

    async with wired(app, ws_max_size=given) as wire:
        await wire.feed(ws_frame(b"x" * most) + ws_frame(b"x" * (most + 1)))
        assert (await wire.close_frame())[0] == 1009
    assert received == [most]


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--workers", "2"], ["--reload"]], ids=" ".join)
async def test_under_wsaction_run(flags: list[str]) -> None:
    with Server("wsaction run", *flags, app="tests.support.large_frames:site") as server:
        url = f"ws://127.0.0.1:{server.port}/api/both/large/"
        async for client in connect(url, proxy=None, compression=None):  # retries until a worker listens
            async with client, asyncio.timeout(20):
                await client.send(sized(200_000).decode())
                assert json.loads(await client.recv())["data"] > 199_000
            break


def test_other_protocols_are_started_with_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, Any]] = []
    monkeypatch.setattr("uvicorn.run", lambda app, **options: started.append(options))
    for options in ({}, {"ws": "websockets-sansio"}, {"ws": "wsproto", "ws_max_size": 7}):
        run("main:app", **options)
    assert [one["ws_max_size"] for one in started] == [None, DEFAULT, 7]
