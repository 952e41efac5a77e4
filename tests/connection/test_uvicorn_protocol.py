"""`FairProtocol` below ASGI, with clients that write raw bytes; test_sockets and test_attacks have more."""

import asyncio
import contextlib
import errno
import logging
import runpy
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from tests.conftest import Server
from tests.support.dos_client import WAIT, Client, handshake, ws_frame
from wsaction._server import uvicorn_protocol as fairness
from wsaction._server.uvicorn_protocol import SHARE, FairProtocol, Turns

Serve = Callable[..., Server]
Connect = Callable[..., Client]


class Impatient(FairProtocol):
    """A protocol that waits only briefly for the answer to its close frame."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.close_timeout = 0.3


class App:
    """Answers each message with its length once ``may`` is set; records how each connection ended."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.may.set()
        self.received: list[int] = []
        self.ended = threading.Event()
        self.code = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await self.serve(receive, send)
        finally:
            self.ended.set()

    async def serve(self, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "websocket.receive":
            if not self.may.is_set():
                await asyncio.to_thread(self.may.wait, WAIT)
            text = message["text"]
            self.received.append(len(text))
            if text == "close":
                await send({"type": "websocket.close", "code": 4000})
                return
            reply = "x" * int(text[5:]) if text.startswith("send ") else str(len(text))
            with contextlib.suppress(OSError):  # the peer has closed, with messages still to receive
                await send({"type": "websocket.send", "text": reply})
        self.code = message["code"]


@pytest.fixture
def app() -> Iterator[App]:
    app = App()
    yield app
    app.may.set()


@pytest.fixture(params=[pytest.param("asyncio", marks=pytest.mark.slow), "uvloop"])
def serve_app(request: pytest.FixtureRequest, serve: Serve, app: App) -> Callable[..., Server]:
    def start(ws: type = FairProtocol, **options: Any) -> Server:
        return serve(app, ws=ws, loop=request.param, lifespan="off", ws_max_size=65_536, **options)

    return start


@pytest.fixture
def connect() -> Iterator[Connect]:
    """``connect(port)`` returns a client, which is aborted after the test."""
    with contextlib.ExitStack() as stack:

        def connect(port: int, **options: Any) -> Client:
            client = Client(port, **options)
            stack.callback(client.abort)
            return client

        yield connect


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log of servers with ``log_config=None``; servers of earlier tests have disabled uvicorn's propagation."""
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def protocol_of(server: Server) -> FairProtocol:
    (protocol,) = (one for one in server.server_state.connections if isinstance(one, FairProtocol))
    return protocol


def in_loop(server: Server, look: Callable[[], Any]) -> Any:
    """Calls ``look`` on the server's loop and returns its result."""

    async def run() -> Any:
        return look()

    assert server.loop is not None
    return asyncio.run_coroutine_threadsafe(run(), server.loop).result(WAIT)


def lengths(client: Client, count: int) -> list[int]:
    return [int(client.receive()[1]) for _ in range(count)]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 1_000, 5_000, 65_000])
def test_what_comes_at_once_is_received_in_turn(serve_app: Serve, connect: Connect, app: App, size: int) -> None:
    client = connect(serve_app().port)
    client.send(b"".join(ws_frame(b"x" * (size + number % 3)) for number in range(40)))
    assert lengths(client, 40) == app.received == [size + number % 3 for number in range(40)]


def test_nothing_is_parsed_or_read_that_the_app_does_not_ask_for(serve_app: Serve, connect: Connect, app: App) -> None:
    app.may.clear()
    server = serve_app()
    client = connect(server.port)
    client.socket.settimeout(1)
    with pytest.raises(TimeoutError):
        client.send(ws_frame(b"x" * 100) * 500_000)
    protocol = protocol_of(server)
    assert protocol.queue.qsize() <= SHARE // 8
    assert len(protocol._unparsed) <= 2 * 262_144  # one read, after the rest of another
    app.may.set()
    lengths(client, 1_000)
    client.abort()
    assert app.ended.wait(WAIT)


def fragments(*payloads: bytes) -> bytes:
    """One text message, with a frame for each part."""
    last = len(payloads) - 1
    frames = [bytearray(ws_frame(payload, 1 if number == 0 else 0)) for number, payload in enumerate(payloads)]
    for frame in frames[:last]:
        frame[0] &= 0x7F
    return b"".join(frames)


def test_a_message_in_fragments(serve_app: Serve, connect: Connect, app: App) -> None:
    client = connect(serve_app().port)
    client.send(fragments(b"a" * 700, b"", b"b" * 700, b"c") + fragments(b"", b"") + fragments(b"x", b"") * 3)
    assert lengths(client, 5) == [1_401, 0, 1, 1, 1]


def test_a_message_is_not_late_while_the_app_reads_earlier_ones(serve_app: Serve, connect: Connect, app: App) -> None:
    app.may.clear()
    server = serve_app()
    client = connect(server.port)
    begun, over = fragments(b"begun", b" and over")[:11], fragments(b"begun", b" and over")[11:]
    client.send(ws_frame(b"taken") + ws_frame(b"waits") + begun)  # one segment, so that all of it is parsed
    protocol = protocol_of(server)
    while not in_loop(server, lambda: protocol._fragments):
        pass
    client.send(over)  # not parsed, because the app has not asked for it
    while not in_loop(server, lambda: protocol._unparsed):
        pass
    in_loop(server, lambda: setattr(protocol, "_message_began", protocol._message_began - 60))
    in_loop(server, protocol._check_timeout)
    app.may.set()
    assert lengths(client, 3) == [5, 5, 14]


def test_empty_fragments_take_no_place(serve_app: Serve, connect: Connect, app: App) -> None:
    server = serve_app()
    client, other = connect(server.port), connect(server.port)
    client.send(fragments(*[b""] * 50_000, b"end"))
    other.send(ws_frame(b"x"))
    assert lengths(other, 1) == [1]
    client.send(b"")
    assert lengths(client, 1) == [3]
    assert [protocol.frames for protocol in server.server_state.connections] == [[], []]  # the fragments are not kept


def test_who_does_not_read_is_sent_no_pongs(serve_app: Serve, connect: Connect, app: App) -> None:
    server = serve_app()
    client = connect(server.port, receive_buffer=4_096)
    client.send(ws_frame(b"x" * 125, 9) * 50_000)  # 6 MB
    client.send(ws_frame(b"12345"))
    deadline = threading.Event()
    while not app.received and not deadline.wait(0.01):
        pass
    assert in_loop(server, lambda: protocol_of(server).transport.get_write_buffer_size()) < 200_000
    while (received := client.receive())[0] != 1:
        assert received[0] == 10
    assert received[1] == b"5"


@pytest.mark.parametrize("said", [b"send 5000000", b"x"], ids=["and is owed a lot", "and is owed nothing"])
def test_who_answers_no_ping_is_cut_off(serve_app: Serve, connect: Connect, app: App, said: bytes) -> None:
    server = serve_app(ws_ping_interval=0.2, ws_ping_timeout=0.2)
    client = connect(server.port, receive_buffer=4_096)
    client.send(ws_frame(said))
    assert app.ended.wait(WAIT)
    assert app.code == 1005


def test_who_does_not_take_its_close_frame_is_cut_off(serve_app: Serve, connect: Connect, app: App) -> None:
    server = serve_app(Impatient)
    client = connect(server.port, receive_buffer=4_096)
    client.send(ws_frame(b"send 60000") * 2 + ws_frame(b"close"))
    assert app.ended.wait(WAIT)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        client.send(ws_frame(b"", 9) * 5_000_000)  # more than fits in any buffer if nobody reads


def test_a_close_is_answered_although_frames_were_unparsed(serve_app: Serve, connect: Connect, app: App) -> None:
    server = serve_app()
    client = connect(server.port)
    client.send(ws_frame(b"close") + ws_frame(b"x" * 100) * 5_000)
    assert client.receive() == (8, (4000).to_bytes(2, "big"))
    client.send(ws_frame((4000).to_bytes(2, "big"), 8))
    assert client.socket.recv(1) == b""
    assert app.received == [5]


def test_a_peers_close_frame_behind_others(serve_app: Serve, connect: Connect, app: App) -> None:
    client = connect(serve_app().port)
    client.send(ws_frame(b"x") * 1_000 + ws_frame((1001).to_bytes(2, "big"), 8))
    assert app.ended.wait(WAIT)
    assert (app.code, app.received) == (1001, [1] * 1_000)


def test_what_follows_an_invalid_frame_is_nothing(serve_app: Serve, connect: Connect, app: App) -> None:
    server = serve_app()
    client = connect(server.port)
    too_large = b"\x81\xff" + (65_537).to_bytes(8, "big") + b"\0\0\0\0"
    client.send(ws_frame(b"x") * 1_000 + too_large + b"x" * 65_537 + ws_frame(b"y") * 1_000)
    assert app.ended.wait(WAIT)
    assert (app.code, len(app.received)) == (1009, 1_000)


def test_others_have_their_turn_while_one_floods(serve_app: Serve, connect: Connect, app: App) -> None:
    """Counts messages, not seconds: at most a few hundred of the flood between two of the other client."""
    server = serve_app()
    flood, other = connect(server.port), connect(server.port)
    stop = threading.Event()

    def flooding() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                flood.send(ws_frame(b"xx") * 10_000)
                flood.swallow()

    thread = threading.Thread(target=flooding)
    thread.start()
    try:
        while len(app.received) < 1_000:
            other.send(ws_frame(b"x"))
            lengths(other, 1)
        before = len(app.received)
        for _ in range(20):
            other.send(ws_frame(b"x"))
            lengths(other, 1)
        assert len(app.received) - before < 20 * 2_000
    finally:
        stop.set()
        flood.socket.shutdown(socket.SHUT_RDWR)
        thread.join(WAIT)


async def test_one_whose_turn_fails_keeps_no_other_from_theirs() -> None:
    loop = asyncio.get_running_loop()
    failures, turns = asyncio.Queue[Any](), Turns(loop)
    loop.set_exception_handler(lambda _, context: failures.put_nowait(context["exception"]))

    class Waiting:
        queued = False

        def __init__(self, fails: bool) -> None:
            self.fails, self.had = fails, asyncio.Event()

        def take_turn(self) -> int:
            self.had.set()
            if self.fails:
                raise ZeroDivisionError
            return 1

    waiting = [Waiting(fails=number == 0) for number in range(3)]
    for one in waiting:
        turns.enqueue(cast(FairProtocol, one))
    for one in waiting:
        await asyncio.wait_for(one.had.wait(), WAIT)
    assert isinstance(failures.get_nowait(), ZeroDivisionError)
    assert failures.empty()


def test_who_is_gone_as_it_is_told_what_it_did_wrong_is_no_error(
    serve: Serve, connect: Connect, app: App, log: pytest.LogCaptureFixture
) -> None:
    server = serve(app, ws=FairProtocol, loop="asyncio", lifespan="off", log_config=None)
    client = connect(server.port)
    transport = protocol_of(server).transport

    def write_eof() -> None:  # as asyncio's does if the peer has reset the connection
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    transport.write_eof = write_eof  # type: ignore[method-assign]
    client.send(ws_frame(b"x") * 40 + b"\xff\xff\xff\xff")  # more than one loop turn, so that a later one fails
    while client.receive()[0] != 8:
        pass
    assert app.ended.wait(WAIT)
    assert not [record for record in log.records if record.levelno >= logging.ERROR]


def test_without_uvicorn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, FairProtocol.__bases__[0].__module__, None)
    with pytest.raises(ImportError, match=r"pip install 'wsaction\[standard\]'"):
        runpy.run_path(str(fairness.__file__))


def test_more_connections_than_the_limit_are_refused(serve_app: Serve, connect: Connect, app: App) -> None:
    server = serve_app(limit_concurrency=2)
    clients = [connect(server.port) for _ in range(2)]
    with pytest.raises(ConnectionError, match="503"):
        Client(server.port)
    clients[0].abort()
    assert app.ended.wait(WAIT)
    third = connect(server.port)
    third.send(ws_frame(b"x"))
    assert lengths(third, 1) == [1]


@pytest.mark.parametrize(
    "message",
    [ws_frame(b"\xff{}"), fragments(b"\xc3", b"x"), fragments(b"a", b"\xe2\x82")],
    ids=["one", "across fragments", "cut"],
)
def test_what_is_no_utf8_closes_without_a_traceback(
    serve_app: Serve, connect: Connect, app: App, log: pytest.LogCaptureFixture, message: bytes
) -> None:
    server = serve_app(log_config=None)
    client = connect(server.port)
    client.send(ws_frame("é".encode()) + fragments(b"\xc3", b"\xa9"))
    assert lengths(client, 2) == [1, 1]
    client.send(message + ws_frame(b"more"))
    assert client.receive() == (8, (1007).to_bytes(2, "big") + b"a text message must be UTF-8")
    assert app.ended.wait(WAIT)
    assert (app.code, app.received) == (1007, [1, 1])
    assert not [record for record in log.records if record.exc_info or record.levelname == "ERROR"]


@pytest.mark.parametrize(
    "headers",
    [{"Cookie": "x" * 9_000}, {f"X-{number}": "x" for number in range(200)}],
    ids=["a long one", "many"],
)
def test_a_handshake_with_more_headers_than_it_takes_is_told_so(
    serve_app: Serve, app: App, headers: dict[str, str]
) -> None:
    server = serve_app(http="h11")
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
    with socket.create_connection(("127.0.0.1", server.port), WAIT) as client:
        client.sendall(handshake(server.port)[:-2] + lines + b"\r\n")
        answer = b"".join(iter(lambda: client.recv(65_536), b""))  # until the socket closes
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert (
        in_loop(server, lambda: [one for one in server.server_state.connections if isinstance(one, FairProtocol)]) == []
    )


SECRET = "s3cr3t-t0ken"


def test_what_comes_is_logged_at_no_level(serve_app: Serve, app: App, log: pytest.LogCaptureFixture) -> None:
    server = serve_app(log_config=None)
    log.set_level("DEBUG", "uvicorn.error")
    offered = f"Sec-WebSocket-Protocol: bearer.{SECRET}\r\nAuthorization: Bearer {SECRET}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.port), WAIT) as client:
        client.sendall(handshake(server.port)[:-2] + offered)
        assert client.recv(65_536).startswith(b"HTTP/1.1 101 ")
        client.sendall(ws_frame(SECRET.encode()) + ws_frame((1000).to_bytes(2, "big"), 8))
        assert app.ended.wait(WAIT)
    assert app.received == [len(SECRET)]
    assert "[accepted]" in log.text  # so the log is not empty
    assert SECRET not in log.text


def test_a_refusal_over_http_is_no_error_in_the_log(serve: Serve, log: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()

    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"No."})

    class Ending(FairProtocol):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            ended.set()

    server = serve(refuses, ws=Ending, lifespan="off", log_config=None)
    with pytest.raises(ConnectionError, match="403"):
        Client(server.port)
    assert ended.wait(WAIT)
    assert server.tasks() >= 0  # the loop has run
    assert not [record for record in log.records if record.levelname == "ERROR"]
