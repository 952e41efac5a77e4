"""For any bytes, in any pieces, one close frame has the code of RFC 6455, and the log stays empty."""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.wire import Wire, wired
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.limits import Limits
from wsaction.routing import path

LARGEST = 1_000  # bytes in a message


class App:
    """Records the messages that it receives."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.code: int | None = None
        self.ended = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            self.received.append(message.get("text") if "text" in message else message["bytes"])
        self.code = message["code"]
        self.ended.set()


class Echo(AsyncAPIConsumer):
    @async_action
    async def echo(self, data: Any = None) -> Any:
        return data


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes = b"abcd", size: int | None = None
) -> bytes:
    """A frame of a client. An empty ``mask`` leaves it unmasked; ``size`` puts another length in its header."""
    length = len(payload) if size is None else size
    head = bytes([0x80 * fin | rsv << 4 | opcode])
    masked = 0x80 if mask else 0
    if length < 126:
        head += bytes([masked | length])
    elif length < 65_536:
        head += bytes([masked | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([masked | 127]) + length.to_bytes(8, "big")
    if mask:
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return head + mask + payload


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(8, code.to_bytes(2, "big") + reason)


BEGUN = frame(1, b"a", fin=False)
ENDS = {  # the last bytes of a client, and the code of the close frame that it gets
    "no UTF-8": (frame(1, b"\xff"), 1007),
    "no UTF-8, and a close frame": (frame(1, b"\xff") + close(1000), 1007),
    "no UTF-8, and much more": (frame(1, b"\xff") + frame(1, b"{}") * 2_000, 1007),
    "half a character": (frame(1, "é".encode()[:1]), 1007),
    "no UTF-8 in fragments": (frame(1, b"\xc3", fin=False) + frame(0, b"x"), 1007),
    "a surrogate": (frame(1, b"\xed\xa0\x80"), 1007),
    "a reserved bit": (frame(1, b"{}", rsv=1), 1002),
    "another reserved bit": (frame(2, rsv=4), 1002),
    "a reserved bit of a fragment": (BEGUN + frame(0, b"x", rsv=2), 1002),
    "a reserved bit of a ping": (frame(9, rsv=1), 1002),
    "opcode 3": (frame(3, b"{}"), 1002),
    "opcode 7": (frame(7), 1002),
    "opcode 11": (frame(11), 1002),
    "opcode 15": (frame(15), 1002),
    "not masked": (frame(1, b"{}", mask=b""), 1002),
    "a ping that is not masked": (frame(9, mask=b""), 1002),
    "a close frame that is not masked": (frame(8, mask=b""), 1002),
    "a long ping": (frame(9, b"x" * 126), 1002),
    "a ping that says it is endless": (frame(9, size=1 << 62), 1002),
    "a fragmented ping": (frame(9, fin=False), 1002),
    "a fragmented close frame": (frame(8, fin=False), 1002),
    "a fragment of nothing": (frame(0, b"x"), 1002),
    "the middle of nothing": (frame(0, b"x", fin=False), 1002),
    "a message within another": (BEGUN + frame(1, b"{}"), 1002),
    "bytes within a text": (BEGUN + frame(2, b"{}", fin=False), 1002),
    "too large": (frame(1, b"x" * (LARGEST + 1)), 1009),
    "too large by its head": (frame(2, size=1 << 40), 1009),
    "the largest number": (frame(1, size=(1 << 64) - 1), 1009),
    "too large in fragments": (frame(1, b"x" * LARGEST, fin=False) + frame(9, b"hi") + frame(0, b"x"), 1009),
    "close": (frame(8), 1005),
    "close, and more": (close(4000, b"bye") + frame(1, b"{}") + b"\xff" * 20, 4000),
    "close within a message": (BEGUN + close(1001), 1001),
    "close twice": (close(1000) + close(1001), 1000),
    "a close frame of one byte": (frame(8, b"\x03"), 1002),
    "a close frame whose reason is no UTF-8": (close(1000, b"\xff"), 1007),
    "a code of nobody's": (close(999), 1002),
    "a code that is not sent": (close(1005), 1002),
    "a code that is not sent either": (close(1006), 1002),
    "a code past all": (close(5000), 1002),
    "no HTTP any more": (b"GET / HTTP/1.1\r\n\r\n", 1002),
    "zeros": (bytes(30), 1002),
    "ones": (b"\xff" * 30, 1002),
}


def code_of(close_frame: bytes) -> int:
    return int.from_bytes(close_frame[:2], "big") if close_frame else 1005


def complaints(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


async def ends_with(wire: Wire, code: int) -> None:
    """Waits for a close frame with this code; checks that it is the only one and the last frame."""
    await wire.until(lambda: any(opcode == 8 for opcode, _ in wire.frames()))
    closes = [payload for opcode, payload in wire.frames() if opcode == 8]
    assert wire.frames()[-1][0] == 8
    assert [code_of(payload) for payload in closes] == [code]


@pytest.mark.parametrize("name", ENDS)
async def test_each_end_at_once_byte_by_byte_and_split_anywhere(name: str, caplog: pytest.LogCaptureFixture) -> None:
    data, code = ENDS[name]
    before = frame(1, b"first") + frame(9, b"ping")
    whole = before + data
    splits = [[whole], [whole[at : at + 1] for at in range(min(len(whole), 1_200))]]
    splits += [[whole[:at], whole[at:]] for at in range(1, min(len(whole), 60))]
    for pieces in splits:
        app = App()
        async with wired(app, ws_max_size=LARGEST) as wire:
            for piece in pieces:
                await wire.feed(piece)
            await ends_with(wire, code)
            await asyncio.wait_for(app.ended.wait(), 5)
        assert app.received == ["first"]
        assert app.code == code
        assert wire.frames()[0] == (10, b"ping")
    assert not complaints(caplog)


@pytest.mark.parametrize("name", ENDS)
async def test_each_end_of_a_consumers_connection(name: str, caplog: pytest.LogCaptureFixture) -> None:
    data, code = ENDS[name]
    app = WSAction([path("", Echo.as_asgi())], limits=Limits(max_frame_bytes=LARGEST))
    async with app.lifespan(), wired(app) as wire:
        await wire.feed(frame(1, b'{"action":"echo","data":1}') + data)
        await ends_with(wire, code)
        if code == 1009:
            assert wire.frames()[-1][1].endswith(b" bytes; max_frame_bytes is 1000")
    assert not complaints(caplog)
    assert not app.runtime.loop_state.connections


# ------------------------------------------------------------------------------------------------ random streams


class Stream:
    """The bytes that a client sends, and the expected answers by RFC 6455, 5 and 7."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.data = bytearray()
        self.messages: list[Any] = []
        self.pongs: list[bytes] = []
        self.code = 0  # of the last close frame
        self._parts: list[bytes] | None = None
        self._is_text = True
        for _ in range(rng.randrange(25)):
            if not self.code:
                self._go_on()
        if not self.code:
            self._send(close(1000), 1000)
        self.data += rng.randbytes(rng.choice((0, 0, 3, 300)))  # ignored after the close frame

    def _send(self, data: bytes, code: int = 0) -> None:
        self.data += data
        self.code = code

    def _go_on(self) -> None:
        rng = self.rng
        kind = rng.choices(("message", "fragment", "control", "end"), (8, 8, 5, 1))[0]
        if kind == "control":
            payload = rng.randbytes(rng.choice((0, 5, 125)))
            opcode = rng.choice((9, 10))
            self._send(frame(opcode, payload, mask=rng.randbytes(4)))
            if opcode == 9:
                self.pongs.append(payload)
        elif kind == "end":
            data, code = ENDS[rng.choice([name for name in ENDS if self._parts is None or "fragment" not in name])]
            if self._parts is None:
                self._send(data, code)
                self.pongs += [b"hi"] * data.count(frame(9, b"hi"))
        elif kind == "message" and self._parts is None:
            self._is_text, payload = self._payload()
            self._send(frame(1 if self._is_text else 2, payload, mask=rng.randbytes(4)))
            self._deliver(payload)
        else:
            self._fragment()

    def _fragment(self) -> None:
        fin = self.rng.random() < 0.3 and self._parts is not None
        is_text, payload = self._payload()
        opcode = 0
        if self._parts is None:
            self._parts, self._is_text = [], is_text
            opcode = 1 if is_text else 2
        if self.rng.random() < 0.2:
            payload = payload[: len(payload) // 2]  # may cut a character in two
        self._parts.append(payload)
        whole = b"".join(self._parts)
        self._send(frame(opcode, payload, fin=fin), 1009 if len(whole) > LARGEST else 0)
        if fin and not self.code:
            self._parts = None
            self._deliver(whole)

    def _payload(self) -> tuple[bool, bytes]:
        rng = self.rng
        size = rng.choice((0, 1, 10, 125, 126, 300))
        if rng.random() < 0.7:
            return True, "".join(rng.choice("ab\x00é€🙂") for _ in range(size // 4)).encode()
        return False, rng.randbytes(size)

    def _deliver(self, payload: bytes) -> None:
        if not self._is_text:
            self.messages.append(payload)
            return
        try:
            self.messages.append(payload.decode())
        except UnicodeDecodeError:
            self.code = 1007

    def pieces(self) -> list[bytes]:
        """The stream, cut at random places."""
        cuts = sorted(self.rng.sample(range(len(self.data) + 1), min(self.rng.randrange(40), len(self.data))))
        return [bytes(self.data[a:b]) for a, b in zip([0, *cuts], [*cuts, len(self.data)], strict=True)]


async def one_stream(seed: str, make: Callable[[], Any] = App) -> None:
    stream = Stream(random.Random(seed))
    app = make()
    async with wired(app, ws_max_size=LARGEST) as wire:
        for piece in stream.pieces():
            await wire.feed(piece)
            if stream.rng.random() < 0.3:
                await asyncio.sleep(0)
        await ends_with(wire, stream.code)
        await asyncio.wait_for(app.ended.wait(), 5)
    assert app.received == stream.messages
    assert app.code == stream.code
    assert [payload for opcode, payload in wire.frames() if opcode == 10] == stream.pongs


@pytest.mark.parametrize("block", [*range(6), *(pytest.param(n, marks=pytest.mark.slow) for n in range(6, 200))])
async def test_random_streams_against_a_model(block: int, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(50):
        seed = f"{block}:{number}"
        try:
            await one_stream(seed)
        except BaseException as error:
            error.add_note(f"the stream {seed!r}")
            raise
    assert not complaints(caplog)


@pytest.mark.parametrize("seed", range(20))
async def test_noise_is_answered_by_a_close_frame(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(seed)
    app = App()
    async with wired(app, ws_max_size=LARGEST) as wire:
        while not any(opcode == 8 for opcode, _ in wire.frames()):
            await wire.feed(rng.randbytes(rng.randrange(1, 50)))
            await asyncio.sleep(0)
        ((_, payload),) = [one for one in wire.frames() if one[0] == 8]
        assert code_of(payload) in (1002, 1007, 1009)
        await asyncio.wait_for(app.ended.wait(), 5)
    assert not complaints(caplog)
