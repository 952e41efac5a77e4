"""The requirements of RFC 6455, 4.2.1 for a client's handshake, with the protocols that `wsaction run` uses."""

import json
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Server
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.routing import path
from wsaction.server import DrainingProtocol, HTTPProtocol

KEY = "MDEyMzQ1Njc4OWFiY2RlZg=="
HANDSHAKE = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


class Root(AsyncAPIConsumer):
    pass


def request(line: str = "GET /ws/ HTTP/1.1", **changes: str | None) -> bytes:
    """A handshake with changed headers; None removes a header."""
    headers = HANDSHAKE | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([line, *lines, "", ""]).encode()


def twice(name: str, value: str) -> bytes:
    return request()[:-2] + f"{name}: {value}\r\n\r\n".encode()


REQUESTS = {  # the allowed statuses of the response
    "as it should be": (request(), {101}),
    "in other cases": (request(Upgrade="WebSocket", Connection="keep-alive, uPGRADE"), {101}),
    "with Connection twice, as from a proxy": (twice("Connection", "keep-alive"), {101}),
    "of a later version of HTTP": (request("GET /ws/ HTTP/1.2"), {101, 400, 505}),
    "HTTP/1.0": (request("GET /ws/ HTTP/1.0"), {400, 426}),
    "HTTP/1.0 without a Host": (request("GET /ws/ HTTP/1.0", Host=None), {400, 426}),
    "HTTP/0.9": (request("GET /ws/ HTTP/0.9"), {400, 426, 505}),
    "POST": (request("POST /ws/ HTTP/1.1"), {400, 405}),
    "HEAD": (request("HEAD /ws/ HTTP/1.1"), {400, 405}),
    "no Host": (request(Host=None), {400}),
    "two Hosts": (twice("Host", "other"), {400}),
    "no Upgrade": (request(Upgrade=None), {400, 426}),
    "an Upgrade to something else": (request(Upgrade="h2c"), {400, 426}),
    "an Upgrade that only begins so": (request(Upgrade="websockets"), {400, 426}),
    "no Connection": (request(Connection=None), {400, 426}),
    "a Connection that upgrades nothing": (request(Connection="keep-alive"), {400, 426}),
    "a body": (request(Content_Length="5"), {400}),
    "a body in chunks": (request(Transfer_Encoding="chunked"), {400}),
    "no key": (request(Sec_WebSocket_Key=None), {400}),
    "an empty key": (request(Sec_WebSocket_Key=""), {400}),
    "a key of 15 bytes": (request(Sec_WebSocket_Key="MDEyMzQ1Njc4OWFiY2Rl"), {400}),
    "a key of 17 bytes": (request(Sec_WebSocket_Key="MDEyMzQ1Njc4OWFiY2RlZmc="), {400}),
    "a key that is no base64": (request(Sec_WebSocket_Key="!" * 24), {400}),
    "two keys": (twice("Sec-WebSocket-Key", KEY), {400}),
    "no version": (request(Sec_WebSocket_Version=None), {400, 426}),
    "version 8": (request(Sec_WebSocket_Version="8"), {426}),
    "version 130": (request(Sec_WebSocket_Version="130"), {426}),
    "versions": (request(Sec_WebSocket_Version="13, 8"), {426}),
    "two versions": (twice("Sec-WebSocket-Version", "8"), {400, 426}),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    app = WSAction([path("ws/", Root.as_asgi())])
    with Server(app, ws=DrainingProtocol, http=HTTPProtocol, log_config=None).running() as server:
        yield server


@pytest.mark.parametrize("name", REQUESTS)
def test_a_handshake_is_answered(server: Server, name: str) -> None:
    asked, statuses = REQUESTS[name]
    with socket.create_connection(("127.0.0.1", server.port), 5) as client:
        client.sendall(asked)
        answer = client.makefile("rb")
        status = int(answer.readline().split()[1])
        headers = dict(line.decode().lower().split(": ", 1) for line in iter(answer.readline, b"\r\n"))
    assert status in statuses
    if status == 426:
        assert headers["upgrade"].strip() == "websocket"
        if "version" in name:
            assert headers["sec-websocket-version"].strip() == "13"  # RFC 6455, 4.4: the supported version


def test_nothing_but_what_is_asked_for_is_accepted() -> None:
    assert [name for name, (_, statuses) in REQUESTS.items() if 101 in statuses] == [
        "as it should be",
        "in other cases",
        "with Connection twice, as from a proxy",
        "of a later version of HTTP",
    ]


def test_a_frame_in_one_segment_with_the_handshake_is_answered(server: Server) -> None:
    asked = b'{"action":"$ping"}'
    frame = bytes([0x81, 0x80 | len(asked), 0, 0, 0, 0]) + asked
    with socket.create_connection(("127.0.0.1", server.port), 5) as client:
        client.sendall(REQUESTS["as it should be"][0] + frame)
        answer = client.makefile("rb")
        assert answer.readline().startswith(b"HTTP/1.1 101 ")
        while answer.readline() != b"\r\n":
            pass
        head = answer.read(2)
        assert json.loads(answer.read(head[1]))["status"] == 200


@pytest.mark.parametrize("ws", ["websockets-sansio", DrainingProtocol])
def test_it_is_http_that_tells_the_version(serve: Callable[..., Server], ws: type) -> None:
    """uvicorn's own HTTP protocol accepts it, so `wsaction run` uses another one."""
    server = serve(WSAction([path("ws/", Root.as_asgi())]), ws=ws, http=HTTPProtocol)
    with socket.create_connection(("127.0.0.1", server.port), 5) as client:
        client.sendall(REQUESTS["HTTP/1.0"][0])
        answer = b"".join(iter(lambda: client.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"A WebSocket handshake is HTTP/1.1 or later.")
