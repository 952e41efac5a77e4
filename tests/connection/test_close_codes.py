"""Close codes, reasons and refused handshakes of real servers, as clients see them."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from wsaction.applications import WSAction
from wsaction.authentication import BearerAuthentication, Credential
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import APIError, NotAuthenticated
from wsaction.limits import Limits
from wsaction.permissions import DenyAll
from wsaction.routing import path

WAIT = 10.0
PROTOCOLS = ["websockets-sansio", "wsproto", "wsaction.server:DrainingProtocol"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # for the clients; the server has its own loop


class Token(BearerAuthentication):
    first_frame = True

    def verify(self, token: str) -> Credential:
        if token != "good":
            raise NotAuthenticated("This token is not valid.")
        return Credential(type("User", (), {"id": 1, "is_authenticated": True})())


class Closing(AsyncAPIConsumer):
    refusal: Any = None
    limits = Limits(
        max_frame_bytes=300,
        max_outbox_bytes=100_000,
        idle_timeout=0.3,
        auth_timeout=0.3,
        send_timeout=1,
        drain_timeout=2,
    )

    async def connect(self) -> None:
        if isinstance(self.refusal, APIError):
            raise self.refusal
        if self.refusal is not None:
            await self.close(*self.refusal)

    @async_action
    async def leave(self, code: int, reason: str = "") -> None:
        await self.close(code, reason)

    @async_action(timeout=60)
    async def push_much(self) -> None:
        for _ in range(2_000):
            self.connection.put("x" * 50_000)
            await asyncio.sleep(0)
            if self.connection.is_closed:
                return


class Denied(Closing):
    permission_classes = (DenyAll,)


def app(**options: Any) -> WSAction:
    def at(route: str, cls: type[Closing], **initkwargs: Any) -> Any:
        return path(route, cls.as_asgi(**initkwargs))

    return WSAction(
        [
            at("ws/", Closing),
            at("error/", Closing, refusal=APIError(429, "throttled", "Later.")),
            at("closes/", Closing, refusal=(4401, "Who are you?")),
            at("bug/", Closing, refusal=(ZeroDivisionError(),)),
        ],
        **options,
    )


Serve = Callable[..., Any]


async def ended(client: Any) -> tuple[int, str]:
    """The close frame that a client gets, whatever comes before it; (1006, "") if there is none."""
    try:
        while True:
            await asyncio.wait_for(client.recv(), WAIT)
    except ConnectionClosed as closed:
        return (1006, "") if closed.rcvd is None else (closed.rcvd.code, closed.rcvd.reason)


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_a_consumers_own_code_and_reason(serve: Serve, ws: str) -> None:
    server = serve(app(), ws=ws)
    for code, reason, expected in [
        (1000, "", ""),
        (1008, "policy", "policy"),
        (1011, "fault", "fault"),
        (4403, "kicked", "kicked"),
        (4999, "é" * 80, "é" * 61),
    ]:
        async with server.connect("/ws/") as client:
            frame = {"action": "leave", "code": code, "reason": reason}
            await client.send(json.dumps(frame, ensure_ascii=False))
            assert await ended(client) == (code, expected)


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_a_frame_too_large_silence_and_too_late(serve: Serve, ws: str) -> None:
    server = serve(app(), ws=ws)
    async with server.connect("/ws/") as client:
        await client.send("x" * 301)
        assert await ended(client) == (1009, "a frame of 301 bytes; max_frame_bytes is 300")
    async with server.connect("/ws/") as client:
        assert await ended(client) == (4408, "idle; idle_timeout is 0.3 s")
    server = serve(app(authentication_classes=[Token]), ws=ws)
    async with server.connect("/ws/") as client:
        assert await ended(client) == (4401, "no $auth came; auth_timeout is 0.3 s")


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_a_slow_consumer(serve: Serve, ws: str) -> None:
    server = serve(app(), ws=ws)
    async with server.connect("/ws/", max_size=None, max_queue=1) as client:
        await client.send('{"action": "push_much"}')
        client.transport.pause_reading()
        slow = asyncio.Event()
        asyncio.get_running_loop().call_later(0.5, slow.set)
        await slow.wait()
        client.transport.resume_reading()
        code, reason = await ended(client)
        assert (code, reason.partition(";")[0]) in [
            (1013, "slow consumer"),
            (1006, ""),
        ]  # the connection broke before the client had read that far


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_denials_are_http_statuses(serve: Serve, ws: str) -> None:
    class Error(Closing):
        async def connect(self) -> None:
            raise ZeroDivisionError

    routes = [path("denied/", Denied.as_asgi()), path("fault/", Error.as_asgi())]
    server = serve(WSAction([*app().router.patterns, *routes], authentication_classes=[Token]), ws=ws)
    for url, headers, status, type in [
        ("/ws/", {"Authorization": "Bearer bad"}, 401, "not_authenticated"),
        ("/denied/", {}, 403, "permission_denied"),
        ("/ws/", {"Origin": "https://evil.example"}, 403, "permission_denied"),
        ("/nowhere/", {}, 404, "route_not_found"),
        ("/closes/", {}, 401, "not_authenticated"),
        ("/error/", {}, 429, "throttled"),
        ("/fault/", {}, 500, "server_error"),
    ]:
        with pytest.raises(InvalidStatus) as refused:
            async with server.connect(url, additional_headers=headers):
                pass
        response = refused.value.response
        assert response.status_code == status
        assert json.loads(response.body)["errors"][0]["type"] == type


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_denials_that_are_accepted_are_close_codes(serve: Serve, ws: str) -> None:
    routes = [*app().router.patterns, path("denied/", Denied.as_asgi())]
    server = serve(WSAction(routes, accept_refused=True, authentication_classes=[Token]), ws=ws)
    for url, headers, code in [
        ("/ws/", {"Authorization": "Bearer bad"}, 4401),
        ("/denied/", {}, 4403),
        ("/ws/", {"Origin": "https://evil.example"}, 4403),
        ("/nowhere/", {}, 4404),
        ("/closes/", {}, 4401),
        ("/error/", {}, 4429),
    ]:
        async with server.connect(url, additional_headers=headers) as client:
            assert (await ended(client))[0] == code
