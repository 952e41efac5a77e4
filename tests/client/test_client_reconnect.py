"""`wsaction.client`: lost connections, reconnects, credentials, and refusals that end the client."""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.client_states import States
from tests.support.guarded_app import Me, Tokens, User, guarded_app
from tests.support.restarts import kept_port
from tests.support.scripted import WAIT, Peer, ScriptedServer, client_at, relayed, scripted
from tests.support.server_processes import WSACTION, started
from tests.support.worker_app import app as worker_app
from tests.support.worker_app import client_of
from wsaction._utils.backoff import Backoff
from wsaction.applications import WSAction
from wsaction.authentication import BearerAuthentication, Credential
from wsaction.client import ConnectionFailed, ConnectionLost, Event, Resync, connect
from wsaction.client import NotAuthenticated as NotAuthenticatedReply
from wsaction.client._event_routing import EventRouter
from wsaction.client._handshake import Dialer
from wsaction.client._pacing import Pacer
from wsaction.client._reconnect import ConnectionManager
from wsaction.routing import path

SOON = {"first_wait": 0.01, "longest_wait": 0.02, "proxy": None}


# -------------------------------------------------------------------------------------------------------- drops
async def test_requests_in_flight_at_a_drop_are_lost_and_not_resent(serve: Callable[..., Server]) -> None:
    server, states = serve(worker_app), States()
    async with relayed(server.port) as relay:
        async with connect(relay.url("/ws/"), on_state=states, **SOON) as client:
            hanging = [asyncio.create_task(client.call("hang")) for _ in range(3)]
            await client.call("echo")
            stream = client.stream("endless", size=10)
            assert await anext(stream) == "x" * 10
            relay.cut()
            for call in hanging:
                with pytest.raises(ConnectionLost, match="requests in flight may have run") as caught:
                    await call
                assert caught.value.code == 1006
            with pytest.raises(ConnectionLost):
                async for _ in stream:
                    pass
            waiting = asyncio.create_task(client.call("echo", text="later"))  # waits for the next connection
            await states.reach("waiting")
            relay.is_open = True
            assert await waiting == "later"
            assert states.all[:3] == ["connecting", "connected", "waiting"]
            assert states.all[-1] == "connected"
        assert states.all[-1] == "closed"


async def test_a_stopped_server_is_replaced_by_another_one(serve: Callable[..., Server]) -> None:
    states = States()
    with Server(worker_app).running() as first:
        async with relayed(first.port) as relay, connect(relay.url("/ws/"), on_state=states, **SOON) as client:
            hanging = asyncio.create_task(client.call("hang"))
            await client.call("echo")
            first.should_exit = True
            with pytest.raises(ConnectionLost) as caught:
                await hanging
            assert caught.value.code == 1012
            relay.target = (await asyncio.to_thread(serve, worker_app)).port
            assert await client.call("echo", text="again") == "again"


@pytest.mark.slow
async def test_a_server_that_is_killed_and_started_again() -> None:
    async with (
        started(*WSACTION[:-1], str(kept_port())) as server,
        connect(f"ws://127.0.0.1:{server.port}/ws/", **SOON) as client,
    ):
        numbers = client.stream("numbers")
        assert await anext(numbers) == 1
        working = asyncio.create_task(client.call("work", seconds=60))
        server.kill()
        with pytest.raises(ConnectionLost):
            await anext(numbers)
        with pytest.raises(ConnectionLost) as caught:
            await working
        assert caught.value.code == 1006
        waiting = asyncio.create_task(client.call("work", seconds=0))
        async with started(*WSACTION[:-1], str(server.port)):
            assert await waiting == "done"


async def test_a_call_that_waits_for_a_connection_has_its_timeout() -> None:
    values, states = iter(["a-token"]), States()

    async def token() -> str:
        return next(values, None) or await asyncio.get_running_loop().create_future()

    async with scripted() as server, client_at(server, token=token, on_state=states) as (client, peer):
        peer.drop()
        await states.reach("waiting")
        with pytest.raises(TimeoutError, match=r"echo: no reply in 0.1 s"):
            await client.call("echo", timeout=0.1)


async def test_a_client_with_reconnect_false() -> None:
    async with scripted() as server, client_at(server, reconnect=False) as (client, peer):
        events = client.events()
        await peer.close(1012, "restarting")
        with pytest.raises(ConnectionFailed, match=r"code 1012, 'restarting'"):
            await anext(events)
        with pytest.raises(ConnectionFailed) as caught:
            await client.call("echo")
        assert (caught.value.code, caught.value.is_final) == (1012, False)
        with pytest.raises(ConnectionFailed):
            await anext(client.events())


@pytest.mark.parametrize("code", [1008, 4400, 4401, 4403, 4404, 4499])
async def test_a_refusing_close_code_is_final(code: int) -> None:
    states = States()
    async with scripted() as server, client_at(server, on_state=states, token="t") as (client, peer):
        hanging = asyncio.create_task(client.call("hang"))
        await peer.frame("hang")
        await peer.close(code, "no")
        with pytest.raises(ConnectionLost, match=f"code {code}, 'no'"):
            await hanging
        await states.reach("closed")
        with pytest.raises(ConnectionFailed) as caught:
            await client.call("echo")
        assert (caught.value.code, caught.value.is_final, server.count) == (code, True, 1)
    assert states.all == ["connecting", "connected", "closed"]


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1009, 1011, 1012, 1013, 3000, 4000, 4408, 4425, 4429, 4500])
async def test_other_close_codes_reconnect(code: int) -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        await peer.close(code)
        peer = await server.accepted()
        answer = asyncio.create_task(client.call("echo"))
        await peer.reply(await peer.frame("echo"), "again")
        assert await answer == "again"


def manager_at(
    server: ScriptedServer, backoff: Backoff, *, token: Any = None, auth: Any = None, **times: float
) -> ConnectionManager:
    """Returns the part of a client that reconnects, with its own times."""
    dialer = Dialer(
        server.url,
        token=token,
        token_in="subprotocol",
        auth=auth,
        open_timeout=WAIT,
        close_timeout=1.0,
        buffer=1_000_000,
        socket_options={"proxy": None},
    )
    router = EventRouter()
    router.manager = ConnectionManager(dialer, router, backoff, True, None, Pacer(1), **times)
    return router.manager


class Numbered:
    """A `token` callable that counts: "token-1", "token-2", ..."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return f"token-{self.count}"


def token_of(peer: Peer) -> str:
    """Returns the token that a client has offered."""
    offered: str = peer.socket.request.headers["Sec-WebSocket-Protocol"]
    return offered.rpartition("bearer.")[2]


async def test_an_expired_credential_is_renewed_each_time() -> None:
    states, backoff = States(), Backoff(60, 60)  # so long that a wait would time out the test
    async with scripted() as server:
        manager = manager_at(server, backoff, token=Numbered(), min_credential_lifetime=0.0)
        manager.watch(states)
        await manager.open()
        for number in range(1, 6):
            peer = await server.accepted()
            assert token_of(peer) == f"token-{number}"
            await peer.close(4401, "the credential has expired")
        peer = await server.accepted()
        connection = await manager.connected()
        answer = asyncio.create_task(connection.call("echo", "", {}))
        await peer.reply(await peer.frame("echo"), "still here")
        assert (await answer).data == "still here"
        assert "waiting" not in states.all
        await manager.close()


async def test_a_credential_that_expires_at_once_is_renewed_after_a_wait() -> None:
    states = States()
    options: dict[str, Any] = {"token": Numbered(), "on_state": states}
    async with scripted() as server, client_at(server, **options) as (_, peer):
        for number in (2, 3, 4):
            await peer.close(4401, "the credential has expired")
            peer = await server.accepted()
            assert token_of(peer) == f"token-{number}"
        await states.reach("connected")
        assert states.all.count("waiting") == 3


async def test_a_renewed_token_that_is_refused_twice_is_final() -> None:
    states = States()
    async with scripted() as server, client_at(server, on_state=states, token=Numbered()) as (client, peer):
        server.greets = False
        await peer.close(4401, "the credential has expired")
        for number in (2, 3):
            peer = await server.accepted()
            assert token_of(peer) == f"token-{number}"
            await peer.close(4401, "This token is not valid.")
        await states.reach("closed")
        assert server.count == 3
        for _ in range(2):
            with pytest.raises(ConnectionFailed, match=r"code 4401, 'This token is not valid.'"):
                await client.call("echo")


async def test_an_accepted_connection_resets_the_count_of_refusals() -> None:
    """Simulates short-lived tokens on a bad network, where a token may expire just before each drop."""
    async with scripted() as server, client_at(server, token=Numbered()) as (client, peer):
        for number in (2, 4, 6):
            server.greets = False
            peer.drop()
            peer = await server.accepted()
            assert token_of(peer) == f"token-{number}"
            server.greets = True
            await peer.close(4401, "This token is not valid.")
            peer = await server.accepted()
        answer = asyncio.create_task(client.call("echo"))
        await peer.reply(await peer.frame("echo"), "still here")
        assert await answer == "still here"


async def test_two_closes_with_4403_in_a_row_are_final() -> None:
    states = States()
    async with scripted() as server, client_at(server, on_state=states, token=Numbered()) as (_, peer):
        await peer.close(4403, "no")
        await (await server.accepted()).close(4403, "no")
        await states.reach("closed")
        assert server.count == 2


@pytest.mark.parametrize("code", [1008, 4400, 4401, 4403, 4404, 4422, 4499])
async def test_a_refusal_after_the_handshake_is_raised_on_entering(code: int) -> None:
    async with scripted(greets=False) as server:
        connecting = asyncio.create_task(connect(server.url, token="bad", proxy=None).__aenter__())
        await (await server.accepted()).close(code, "no")
        with pytest.raises(ConnectionFailed, match=f"refused the connection: code {code}, 'no'") as caught:
            await connecting
        assert (caught.value.code, caught.value.is_final, server.count) == (code, True, 1)


async def test_a_call_that_waits_during_a_refusal_fails_unsent() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        server.greets = False
        peer.drop()
        peer = await server.accepted()
        waiting = asyncio.create_task(client.call("echo"))
        assert (await peer.frame())["action"] == "$ping"
        await peer.close(4403, "no")
        with pytest.raises(ConnectionFailed, match="code 4403, 'no'"):
            await waiting
        assert await peer.gone() == 4403  # no request was sent before the close


async def test_a_client_may_send_auth_by_itself() -> None:
    async with scripted(greets=False) as server:
        connecting = asyncio.create_task(connect(server.url, proxy=None).__aenter__())
        peer = await server.accepted()
        await peer.reply(
            await peer.frame("$ping"), None, 401, {"type": "not_authenticated", "msg": "Authenticate first"}
        )
        client = await connecting
        signing_in = asyncio.create_task(client.call("$auth", data="good"))
        await peer.reply(await peer.frame("$auth"), {"expires_at": None})
        assert await signing_in == {"expires_at": None}
        await client.__aexit__(None, None, None)


async def test_events_before_the_first_answer_reach_early_listeners() -> None:
    async with scripted(greets=False) as server:

        async def welcome() -> None:
            peer = await server.accepted()
            request = await peer.frame("$ping")
            await peer.event(None, "hello", route="", event="welcome")
            await peer.reply(request)

        welcoming = asyncio.create_task(welcome())
        async with connect(server.url, proxy=None) as client:
            assert await anext(client.events()) == Event("welcome", "", "hello")
        await welcoming


async def test_backoff_waits_are_random_and_grow() -> None:
    always = Backoff(0.5, 30, lambda: 1.0, least=0.0)
    assert [always.seconds() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    always.reset()
    assert always.seconds() == 0.5
    half = Backoff(1, 8, lambda: 0.5, least=0.0)
    assert [half.seconds() for _ in range(5)] == [0.5, 1, 2, 4, 4]
    for first, longest in ((0, 1), (2, 1), (-1, 1)):
        with pytest.raises(ValueError, match="needs 0 < first <= longest"):
            Backoff(first, longest)


async def test_reconnecting_waits_by_the_backoff() -> None:
    states, chances = States(), iter([0.0] * 50)
    async with scripted() as server, relayed(int(server.url.split(":")[2].strip("/"))) as relay:
        options: dict[str, Any] = {"proxy": None, "on_state": states, "chance": lambda: next(chances)}
        async with connect(relay.url("/"), **options) as client:
            await server.accepted()
            relay.cut()
            await states.reach("waiting", times=4)
            assert isinstance(states.causes[-1], ConnectionFailed)
            relay.is_open = True
            peer = await server.accepted()
            answer = asyncio.create_task(client.call("echo"))
            await peer.reply(await peer.frame("echo"), 1)
            assert await answer == 1


async def test_a_stable_connection_resets_the_backoff() -> None:
    class Counting(Backoff):
        waits = 0  # since the last reset

        def seconds(self) -> float:
            self.waits += 1
            return super().seconds()

        def reset(self) -> None:
            self.waits = 0
            super().reset()

    backoff = Counting(0.01, 0.02)
    async with scripted() as server:
        manager = manager_at(server, backoff, stable_after=0.0)
        await manager.open()
        peer = await server.accepted()
        for _ in range(3):
            peer.drop()
            peer = await server.accepted()
        assert backoff.waits == 1
        await manager.close()


async def test_an_exception_of_on_state_is_logged_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    def on_state(state: str, cause: Exception | None) -> None:
        raise ZeroDivisionError

    async with scripted() as server, client_at(server, on_state=on_state) as (client, peer):
        answer = asyncio.create_task(client.call("echo"))
        await peer.reply(await peer.frame("echo"), 1)
        assert await answer == 1
    assert "on_state('connected', ...) failed" in caplog.text


async def test_a_bug_in_the_client_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(self: Any) -> None:
        raise ZeroDivisionError("a bug")

    async with scripted() as server:
        monkeypatch.setattr("wsaction.client._connection.Connection.run", failing)
        states = States()
        client = connect(server.url, proxy=None, on_state=states)
        await client.__aenter__()
        await states.reach("closed")
        with pytest.raises(ConnectionFailed, match="the client failed: ZeroDivisionError"):
            await client.call("echo")
        with pytest.raises(ZeroDivisionError):
            await client.__aexit__(None, None, None)


# -------------------------------------------------------------------------------------------------------- connecting
async def test_the_first_connection_is_not_retried(serve: Callable[..., Server]) -> None:
    with pytest.raises(ConnectionFailed, match=r"cannot connect to ws://127.0.0.1:1/") as caught:
        async with connect("ws://127.0.0.1:1/", proxy=None):
            pass
    assert not caught.value.is_final
    states = States()
    with pytest.raises(ZeroDivisionError):
        async with connect("ws://127.0.0.1:1/", token=lambda: 1 / 0, on_state=states):  # type: ignore[return-value]
            pass
    assert states.all == ["connecting", "closed"]
    with pytest.raises(ConnectionFailed, match="expected a WebSocket URL"):
        async with connect("http://127.0.0.1/"):
            pass
    server = serve(worker_app)
    with pytest.raises(ConnectionFailed, match="refused the handshake: HTTP 404") as caught:
        async with connect(server.url("/nowhere/"), proxy=None):
            pass
    assert (caught.value.status, caught.value.is_final) == (404, True)


async def test_no_redirect_is_followed() -> None:
    async with scripted() as server:

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 302 Found\r\nLocation: {server.url}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            writer.close()

        redirecting = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = redirecting.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionFailed, match="HTTP 302"):
            async with connect(f"ws://127.0.0.1:{port}/", token="secret", proxy=None):
                pass
        redirecting.close()
        assert server.count == 0


async def test_handshake_and_auth_time_out() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    mute = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = mute.sockets[0].getsockname()[1]
    with pytest.raises(ConnectionFailed, match="timed out during opening handshake"):
        async with connect(f"ws://127.0.0.1:{port}/", open_timeout=0.1, proxy=None):
            pass
    mute.close()
    async with scripted() as server:
        with pytest.raises(ConnectionFailed, match=r"did not answer \$auth in 0.1 s"):
            async with connect(server.url, open_timeout=0.1, auth="me", proxy=None):
                pass


async def test_closing_is_bounded() -> None:
    async with scripted(close_timeout=20) as server:
        client = connect(server.url, proxy=None, close_timeout=0.2)
        await client.__aenter__()
        peer = await server.accepted()
        peer.socket.transport.pause_reading()
        await asyncio.wait_for(client.__aexit__(None, None, None), WAIT)  # less than the server's close_timeout
        peer.drop()


async def test_a_cancelled_close_drops_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "wsaction.client")
    before = asyncio.all_tasks()
    async with scripted(close_timeout=20) as server:
        during = asyncio.all_tasks()
        client = connect(server.url, proxy=None, close_timeout=30)
        await client.__aenter__()
        peer = await server.accepted()
        await asyncio.sleep(0)
        peer.socket.transport.pause_reading()
        closing = asyncio.create_task(client.__aexit__(None, None, None))
        asyncio.get_running_loop().call_later(0.1, closing.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(closing, 5)
        assert closing.cancelled()
        peer.drop()
        assert not [task for task in asyncio.all_tasks() - during - before if "client" in repr(task.get_coro())]


async def test_an_idle_client_sends_pings() -> None:
    async with scripted() as server, client_at(server, heartbeat=0.05) as (_, peer):
        for _ in range(2):
            assert await peer.frame() == {"action": "$ping"}
            await peer.say(errors=[], data=None, action="$ping", route="", status=200)


async def test_a_server_that_answers_no_pings_is_disconnected() -> None:
    options = {"ping_interval": 0.05, "ping_timeout": 0.05, "close_timeout": 0.1}
    async with scripted() as server, client_at(server, **options) as (client, peer):
        hanging = asyncio.create_task(client.call("hang"))
        await peer.frame("hang")
        peer.socket.transport.pause_reading()
        with pytest.raises(ConnectionLost, match="code 1011, 'keepalive ping timeout'"):
            await hanging
        peer.drop()
        await server.accepted()


# -------------------------------------------------------------------------------------------------------- credentials


@pytest.fixture
def guarded(serve: Callable[..., Server]) -> Server:
    return serve(guarded_app())


async def test_a_token_by_sub_protocol_or_header(guarded: Server) -> None:
    async with client_of(guarded, token="good-1") as client:
        assert await client.call("whoami") == "ada"

    async def fetch() -> str:
        return "good-2"

    async with client_of(guarded, token=fetch) as client:
        assert await client.call("whoami") == "ada"
    options: dict[str, Any] = {"token_in": "header", "additional_headers": {"X-Other": "1"}}
    async with client_of(guarded, token="good/3==", **options) as client:
        assert await client.call("whoami") == "ada"
    assert Tokens.seen == ["good-1", "good-2", "good/3=="]
    with pytest.raises(ValueError, match="pass token_in='header'"):
        async with client_of(guarded, token="good/3=="):
            pass
    with pytest.raises(ValueError, match="expected 'subprotocol' or 'header', got 'url'"):
        connect("ws://127.0.0.1/", token_in="url")  # type: ignore[arg-type]


async def test_a_refused_token_fails_the_handshake(guarded: Server) -> None:
    with pytest.raises(ConnectionFailed, match=r"HTTP 401 .*This token is not valid") as caught:
        async with client_of(guarded, token="bad"):
            pass
    assert (caught.value.status, caught.value.is_final) == (401, True)


async def test_auth_is_sent_first(guarded: Server) -> None:
    async with client_of(guarded, auth="good") as client:
        assert await client.call("whoami") == "ada"
    async with client_of(guarded, auth=lambda: {"token": "good"}) as client:
        assert await client.call("whoami") == "ada"
    with pytest.raises(ConnectionFailed, match=r"refused \$auth: 401 not_authenticated") as caught:
        async with client_of(guarded, auth="bad"):
            pass
    assert (caught.value.status, caught.value.is_final) == (401, True)


@pytest.mark.slow
async def test_auth_is_refreshed_before_it_expires(guarded: Server) -> None:
    numbers = iter(range(100))
    states = States()
    async with client_of(guarded, auth=lambda: f"short-{next(numbers)}", on_state=states) as client:
        async with asyncio.timeout(WAIT):
            while len(Tokens.seen) < 4:  # by then the first token has expired
                assert await client.call("whoami") == "ada"
        assert states.all == ["connecting", "connected"]
    assert Tokens.seen == [f"short-{number}" for number in range(4)]


@pytest.mark.slow
async def test_a_failed_refresh_is_logged_and_repeated_on_reconnect(
    guarded: Server, caplog: pytest.LogCaptureFixture
) -> None:
    states = States()

    def auth() -> str:
        if not Tokens.seen:
            return "short"
        return "good" if "waiting" in states.all else "bad"

    async with client_of(guarded, auth=auth, on_state=states, first_wait=0.01) as client:
        await states.reach("waiting")
        assert await client.call("whoami") == "ada"
    assert "the credential could not be refreshed" in caplog.text
    assert isinstance(states.causes[2], ConnectionLost)
    assert states.causes[2].code == 4401


async def test_a_credential_without_expiry_is_not_refreshed(guarded: Server) -> None:
    values = iter(["short-0", "good-1"])
    async with client_of(guarded, auth=lambda: next(values)) as client:
        await Tokens.until_seen(2)
        assert await client.call("whoami") == "ada"
    assert Tokens.seen == ["short-0", "good-1"]


async def test_a_clock_that_is_ahead_slows_down_the_refreshes() -> None:
    loop = asyncio.get_running_loop()
    async with scripted() as server:
        manager = manager_at(server, Backoff(), auth=lambda: "me", min_refresh_wait=0.01)
        opening = asyncio.create_task(manager.open())
        peer = await server.accepted()
        times: list[float] = []
        for _ in range(6):
            frame = await peer.frame("$auth")
            times.append(loop.time())
            await peer.reply(frame, {"expires_at": time.time() - 600})
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert sum(gaps) >= 0.01 + 0.02 + 0.04 + 0.08 + 0.16
        await opening
        await manager.close()


async def test_a_connection_that_is_lost_during_a_refresh() -> None:
    async with scripted() as server:
        connecting = asyncio.create_task(connect(server.url, auth=lambda: "me", **SOON).__aenter__())
        for _ in range(2):
            peer = await server.accepted()
            await peer.reply(await peer.frame("$auth"), {"expires_at": time.time()})
            client = await connecting
            await peer.frame("$auth")
            peer.drop()
        await client.__aexit__(None, None, None)


async def test_a_failing_token_callable_is_called_again(caplog: pytest.LogCaptureFixture) -> None:
    values = iter(["one", OSError("no token today"), asyncio.CancelledError("who fetches it for all"), "two"])

    def token() -> str:
        value = next(values)
        if isinstance(value, BaseException):
            raise value
        return value

    async with scripted() as server, client_at(server, token=token) as (_, peer):
        peer.drop()
        peer = await server.accepted()
        assert "bearer.two" in peer.socket.request.headers["Sec-WebSocket-Protocol"]
    assert "the credential could not be obtained" in caplog.text


async def test_the_status_of_an_auth_refusal_decides_if_it_is_final() -> None:
    async with scripted() as server:
        for status, final in ((503, False), (403, True)):
            connecting = asyncio.create_task(connect(server.url, auth="me", proxy=None).__aenter__())
            peer = await server.accepted()
            await peer.event(None, route="", event="early")
            request = await peer.frame("$auth")
            await peer.reply(request, None, status, {"type": "x", "msg": "no"})
            with pytest.raises(ConnectionFailed) as caught:
                await connecting
            assert (caught.value.status, caught.value.is_final) == (status, final)
        connecting = asyncio.create_task(connect(server.url, auth="me", proxy=None).__aenter__())
        peer = await server.accepted()
        await peer.close(4401, "no")
        with pytest.raises(ConnectionFailed, match="code 4401, 'no'") as caught:
            await connecting
        assert caught.value.is_final


async def test_a_refusal_while_reconnecting_is_final() -> None:
    refuse = False

    def process_request(connection: Any, request: Any) -> Any:
        return connection.respond(403, "go away\n") if refuse else None

    async with scripted(process_request=process_request) as server, client_at(server) as (client, peer):
        events = client.events()
        refuse = True
        peer.drop()
        with pytest.raises(ConnectionFailed, match="HTTP 403 go away"):
            await anext(events)
        assert client.state == "closed"


async def test_events_yield_a_resync_after_a_reconnect() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        events = client.events()
        peer.drop()
        await server.accepted()
        assert await anext(events) == Resync()


# -------------------------------------------------------------------------------------------------------- real servers
async def test_an_accepted_refusal_is_raised_on_entering(serve: Callable[..., Server]) -> None:
    routes = [path("ws/", Me.as_asgi())]
    server = serve(WSAction(routes, authentication_classes=[Tokens], accept_refused=True))
    for _ in range(3):
        with pytest.raises(ConnectionFailed, match=r"code 4401, 'This token is not valid.'") as caught:
            async with client_of(server, token="bad"):
                pass
        assert caught.value.is_final


class ShortTokens(BearerAuthentication):
    """Accepts tokens that contain their expiry."""

    def verify(self, token: str) -> Credential:
        return Credential(User("ada"), expires_at=float(token))


async def test_calls_go_on_with_tokens_that_live_for_half_a_second(serve: Callable[..., Server]) -> None:
    server, states = serve(WSAction([path("ws/", Me.as_asgi())], authentication_classes=[ShortTokens])), States()
    async with (
        client_of(server, token=lambda: str(time.time() + 0.5), on_state=states, first_wait=0.01) as client,
        asyncio.timeout(WAIT),
    ):
        answered = 0
        while states.all.count("connected") < 4:
            try:
                answered += await client.call("whoami") == "ada"
            except ConnectionLost:
                continue  # it was in flight when a token expired
            except NotAuthenticatedReply:
                continue  # it arrived after the token expired and before the close
        assert answered > 4
        assert "closed" not in states.all
