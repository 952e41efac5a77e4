"""The accepted Host headers: ``allowed_hosts``; without it, loopback names alone on a loopback address."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute

from wsaction._server.origins import HostPolicy
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured
from wsaction.routing import path
from wsaction.testing import HandshakeRefused, connect

pytestmark = pytest.mark.anyio


def scope(*hosts: str, server: Any = ("10.0.0.5", 8000)) -> dict[str, Any]:
    return {"type": "websocket", "server": server, "headers": [(b"host", one.encode("latin-1")) for one in hosts]}


# ------------------------------------------------------------------------------------------------ names that are listed
LISTED = [
    # entry, host, whether the request is accepted
    ("example.com", "example.com", True),
    ("example.com", "EXAMPLE.com:8443", True),
    ("example.com", "example.com.", True),
    ("example.com", "example.com.:8443", True),
    ("example.com", "example.com:", True),
    ("EXAMPLE.COM", "example.com", True),
    ("example.com.", "example.com", True),
    ("example.com", "www.example.com", False),
    ("example.com", "example.com.evil.com", False),
    ("example.com", "evilexample.com", False),
    ("example.com", "evil.com", False),
    ("example.com", "localhost", False),
    ("example.com", "", False),
    ("example.com", "example.com example.com", False),
    ("example.com", "example.com/", False),
    ("example.com", "user@example.com", False),
    ("example.com", "example.com:80:80", False),
    ("example.com", "example.com:999999", False),
    ("example.com", "example.com:80a", False),
    ("example.com", "ex\xe4mple.com", False),
    ("*.example.com", "a.example.com", True),
    ("*.example.com", "b.a.example.com:1", True),
    ("*.example.com", "example.com", False),
    ("*.example.com", "evilexample.com", False),
    (".example.com", "example.com", True),
    (".example.com", "a.example.com", True),
    (".example.com", "evilexample.com", False),
    ("bücher.example", "xn--bcher-kva.example", True),
    ("10.0.0.5", "10.0.0.5:80", True),
    ("10.0.0.5", "10.0.0.6", False),
    ("[::1]", "[::1]:8000", True),
    ("::1", "[0:0::1]", True),
    ("[::1]", "::1", False),
    ("[::1]", "[::1%25lo]", False),
    ("*", "whatever.it.is", True),
    ("*", "", True),
]


@pytest.mark.parametrize(("entry", "host", "answered"), LISTED)
@pytest.mark.parametrize("server", [("10.0.0.5", 8000), ("127.0.0.1", 8000), None])
def test_an_entry_answers_to_what_it_says_and_no_more(entry: str, host: str, answered: bool, server: Any) -> None:
    assert (HostPolicy([entry]).refusal(scope(host, server=server)) is None) is answered


NEVER = [
    "https://example.com",
    "example.com:80",
    "example.com/",
    "",
    " ",
    ".",
    "*.",
    "a.*.com",
    "*example.com",
    "[1]",
    "bü cher.example",
]


@pytest.mark.parametrize("entry", NEVER)
def test_an_entry_that_can_never_match_is_refused_at_once(entry: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"expected 'example\.com', .* leave out scheme, port and path"):
        WSAction([], allowed_hosts=[entry])


@pytest.mark.parametrize("entries", ["example.com", [7], [None]])
def test_entries_are_a_list_of_strings(entries: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="a list of strings"):
        WSAction([], allowed_hosts=entries)


# ------------------------------------------------------------------------------------------------ loopback addresses
OWN = [
    "localhost",
    "localhost:8000",
    "LOCALHOST.",
    "app.localhost:3000",
    "127.0.0.1",
    "127.0.0.1:8000",
    "127.8.9.1",
    "[::1]",
    "[::1]:8000",
    "[0:0::1]",
    "0.0.0.0:8000",
    "[::ffff:127.0.0.1]",
]
STRANGE = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.nip.io",
    "10.0.0.5",
    "evillocalhost",
    "127.1",
    "2130706433",
    "[::2]",
    "[::ffff:10.0.0.5]",
    "",
    "::1",
    "localhost, localhost",
]
LOOPBACK = [("127.0.0.1", 8000), ("127.0.0.2", 80), ("::1", 8000), ("::ffff:127.0.0.1", 1), ("localhost", 8000)]
ELSEWHERE = [("10.0.0.5", 8000), ("0.0.0.0", 8000), ("testserver", 80), ("/run/app.sock", None), None]


@pytest.mark.parametrize("server", LOOPBACK)
def test_on_a_loopback_address_loopback_names_alone_are_answered(server: Any) -> None:
    policy = HostPolicy()
    assert [one for one in OWN if policy.refusal(scope(one, server=server)) is not None] == []
    assert [one for one in STRANGE if policy.refusal(scope(one, server=server)) is None] == []


@pytest.mark.parametrize("server", ELSEWHERE)
def test_elsewhere_any_name_is_answered_until_some_are_listed(server: Any) -> None:
    assert [one for one in (*OWN, *STRANGE) if HostPolicy().refusal(scope(one, server=server)) is not None] == []
    assert HostPolicy(["example.com"]).refusal(scope("localhost", server=server)) is not None


@pytest.mark.parametrize("policy", [HostPolicy(), HostPolicy(["localhost"])])
@pytest.mark.parametrize("hosts", [("localhost", "localhost"), ("localhost", "evil.example")])
def test_several_hosts_name_nothing(policy: HostPolicy, hosts: tuple[str, ...]) -> None:
    assert policy.refusal(scope(*hosts, server=("127.0.0.1", 8000))) is not None


def test_a_request_without_host_is_refused_only_by_a_list() -> None:
    assert HostPolicy(["localhost"]).refusal(scope(server=("127.0.0.1", 8000))) is not None
    assert HostPolicy().refusal(scope(server=("127.0.0.1", 8000))) is None


def test_a_refusal_has_the_host_and_the_cure_in_one_short_line() -> None:
    why = HostPolicy().refusal(scope("shop.example\n" * 100, server=("127.0.0.1", 8000)))
    assert why is not None
    assert "'shop.example\\n" in why
    assert "WSAction([...], allowed_hosts=['example.com'])" in why
    assert len(why) < 500
    assert "\n" not in why


@given(st.binary(max_size=40))
def test_no_bytes_make_it_raise(value: bytes) -> None:
    for policy in (HostPolicy(), HostPolicy(["example.com", "*.example.org"])):
        refusal = policy.refusal({"server": ("127.0.0.1", 1), "headers": [(b"host", value)]})
        assert refusal is None or "Host" in refusal


# ------------------------------------------------------------------------------------------------ wherever it is served
class Root(AsyncAPIConsumer):
    @async_action
    async def echo(self) -> None: ...


def in_fastapi(app: Any) -> Any:
    fastapi = FastAPI()
    fastapi.mount("/", app)
    return fastapi


def served(**settings: Any) -> dict[str, Any]:
    app = WSAction([path("ws/", Root.as_asgi())], **settings)
    return {
        "an app": app,
        "Mount": Starlette(routes=[Mount("/", app)]),
        "WebSocketRoute": Starlette(routes=[WebSocketRoute("/ws/", app)]),
        "FastAPI": in_fastapi(app),
    }


ALONE = {"a consumer alone": Root.as_asgi(), "alone in Starlette": Starlette(routes=[Mount("/", Root.as_asgi())])}
EMBEDDED = {**served(), **ALONE}
NAMED = served(allowed_hosts=["good.example"])


async def status(app: Any, host: str, server: Any) -> int:
    try:
        async with connect(app, "/ws/", headers={"host": host}, origin=f"http://{host}", scope={"server": server}):
            return 101
    except HandshakeRefused as refused:
        return int(refused.status or 0)


@pytest.mark.parametrize("how", EMBEDDED)
async def test_a_page_that_was_pointed_at_this_machine_gets_no_socket(how: str) -> None:
    for server in (("127.0.0.1", 8000), ("::1", 8000)):
        assert await status(EMBEDDED[how], "localhost:8000", server) == 101
        assert await status(EMBEDDED[how], "evil.example:8000", server) == 403
    # `wsaction check` warns about this.
    assert await status(EMBEDDED[how], "evil.example:8000", ("10.0.0.5", 8000)) == 101


@pytest.mark.parametrize("how", NAMED)
async def test_allowed_hosts_are_answered_on_every_address(how: str) -> None:
    for server in (("127.0.0.1", 8000), ("10.0.0.5", 8000)):
        assert await status(NAMED[how], "good.example", server) == 101
        assert await status(NAMED[how], "evil.example", server) == 403


async def test_the_host_is_checked_before_the_route_and_the_cure_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = WSAction([path("ws/", Root.as_asgi())], accept_refused=True)
    options: Any = {"headers": {"host": "shop.example"}, "scope": {"server": ("127.0.0.1", 8000)}}
    async with connect(app, "/nowhere/", **options) as ws:
        assert (await ws.wait_closed())[0] == 4403
    assert "allowed_hosts=['example.com']" in caplog.text
    assert "None of the" not in caplog.text


@pytest.mark.parametrize("url", ["/docs", "/asyncapi.json", "/elsewhere"])
async def test_the_pages_of_the_app_are_answered_by_the_same_names(url: str) -> None:
    for app, good in ((EMBEDDED["an app"], "127.0.0.1"), (NAMED["an app"], "good.example")):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            assert (await client.get(url, headers={"host": "evil.example"})).status_code == 403
            expected = 426 if url == "/elsewhere" else 200
            assert (await client.get(url, headers={"host": good})).status_code == expected


async def test_a_consumer_alone_answers_http_by_the_same_names() -> None:
    app: Any = ALONE["a consumer alone"]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        assert (await client.get("/", headers={"host": "evil.example"})).status_code == 403
        assert (await client.get("/")).status_code == 426


async def test_over_uvicorn(serve: Callable[..., Any]) -> None:
    server = serve(WSAction([path("ws/", Root.as_asgi())]))

    async def answered(host: str) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        lines = [
            "GET /ws/ HTTP/1.1",
            f"Host: {host}",
            f"Origin: http://{host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Version: 13",
            "",
            "",
        ]
        writer.write("\r\n".join(lines).encode())
        first = await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        return int(first.split()[1])

    for own in ("127.0.0.1", "localhost", "[::1]"):
        assert await answered(f"{own}:{server.port}") == 101
    assert await answered(f"evil.example:{server.port}") == 403
