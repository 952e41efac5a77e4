"""Reaches each limit of `Limits`: the error names it and its value, and memory and time stay within it."""

import asyncio
import json
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import Any

import pytest

from tests.support.dos_client import ws_frame
from tests.support.wire import wired
from wsaction.applications import WSAction
from wsaction.authentication import BearerAuthentication, Credential
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.hooks import Hooks
from wsaction.limits import Limits
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import ConnectionClosed, connect
from wsaction.testing._scope import websocket_scope

WAIT = 10.0
MANY = 500  # how many times the limit is exceeded

released = threading.Event()


class Reached(Hooks):
    def __init__(self) -> None:
        self.bounds: list[tuple[str, float]] = []
        self.connections: list[Any] = []

    def on_connect(self, consumer: Any) -> None:
        self.connections.append(consumer.connection)

    def on_limit(self, consumer: Any, limit: str, value: float) -> None:
        self.bounds.append((limit, value))


class Room(SubscribeMixin, AsyncAPIActionHandler):
    @async_action(ordered=False)
    async def wait(self, data: Any = None) -> None:
        await asyncio.get_running_loop().create_future()


class Root(AsyncAPIConsumer):
    routepatterns = [path("rooms/<int:pk>/", Room.as_aaah())]

    @async_action
    async def echo(self, data: Any = None) -> Any:
        return data

    @async_action
    async def large(self, size: int) -> str:
        return "x" * size

    @async_action(ordered=False)
    def block(self) -> None:
        released.wait(WAIT)

    async def disconnect(self, code: int) -> None:
        if self.kwargs.get("stubborn"):
            await asyncio.get_running_loop().create_future()


class Tokens(BearerAuthentication):
    first_frame = True

    def verify(self, token: str) -> Credential | None:
        return None


def app_of(hooks: Reached, limits: Limits, **options: Any) -> WSAction:
    routes = [path("", Root.as_asgi()), path("stubborn/", Root.as_asgi(), {"stubborn": True})]
    return WSAction(routes, hooks=[hooks], limits=limits, **options)


# ------------------------------------------------------------------------------------------------ how each is reached
async def answers(app: WSAction, frames: Iterable[dict[str, Any]], *, silent: int = 0) -> list[str]:
    """The beginning of the reply to each frame, where its errors are; the first ``silent`` frames get none."""
    async with connect(app) as ws:
        replies = []
        for number, frame in enumerate(frames):
            await ws.send_json(frame)
            if number >= silent:
                replies.append((await ws.receive_text())[:300])
        return replies


async def closing(app: WSAction, text: str | None = None, at: str = "/") -> list[str]:
    """The close reason of a connection."""
    async with connect(app, at) as ws:
        if text is not None:
            await ws.send_text(text)
        with pytest.raises(ConnectionClosed) as closed:
            await ws.receive_text()
    return [closed.value.reason]


@asynccontextmanager
async def unread(app: WSAction) -> AsyncIterator[Callable[[str], None]]:
    """A connection whose client reads nothing after the handshake; yields a function that sends a frame."""
    frames: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    frames.put_nowait({"type": "websocket.connect"})
    accepted, gone = asyncio.Event(), asyncio.Event()

    async def send(message: Any) -> None:
        accepted.set()
        if message["type"] != "websocket.accept":
            await gone.wait()

    serving = asyncio.create_task(app(websocket_scope("/"), frames.get, send))
    await asyncio.wait_for(accepted.wait(), WAIT)
    try:
        yield lambda text: frames.put_nowait({"type": "websocket.receive", "text": text})
        await asyncio.wait_for(serving, WAIT)
    finally:
        serving.cancel()


async def too_many_brackets(app: WSAction) -> list[str]:
    return await closing(app, "[" + "{}," * 300_000 + "{}]")


async def too_deep(app: WSAction) -> list[str]:
    return await answers(app, [{"action": "echo", "data": json.loads("[" * 60 + "]" * 60)}] * MANY)


async def too_long(app: WSAction) -> list[str]:
    return await answers(app, ({"action": "echo", "route": f"{number}{'x' * 20_000}"} for number in range(MANY)))


async def too_many(app: WSAction, size: int = 1) -> list[str]:
    frames = ({"action": "wait", "route": "rooms/1/", "data": "x" * size} for _ in range(MANY))
    return await answers(app, frames, silent=2 + 3)  # the running and the queued ones


async def too_large_together(app: WSAction) -> list[str]:
    return await too_many(app, 10_000)


async def too_many_topics(app: WSAction) -> list[str]:
    frames = ({"action": "subscribe", "route": f"rooms/{number}/"} for number in range(MANY))
    return (await answers(app, frames))[5:]


async def too_much_unread(app: WSAction) -> list[str]:
    async with unread(app) as send:
        connections = list(app.runtime.loop_state.connections)
        for number in range(MANY):
            send(json.dumps({"action": "large", "size": 2_000, "request_id": number}))
    return [connection.closing[1] for connection in connections]


async def a_message_unread(app: WSAction) -> list[str]:
    async with unread(app) as send:
        connections = list(app.runtime.loop_state.connections)
        send('{"action": "echo"}')
    return [connection.closing[1] for connection in connections]


async def every_thread_blocked(app: WSAction) -> list[str]:
    released.clear()
    before = threading.active_count()
    try:
        async with connect(app) as ws:
            for number in range(8):
                await ws.send_json({"action": "block", "request_id": number})
            replies = [await ws.receive_text() for _ in range(8)]
        assert threading.active_count() - before <= 2
    finally:
        released.set()
    assert json.loads(replies[0])["errors"][0]["type"] == "action_timeout", "the running one"
    return replies[1:]


async def guesses(app: WSAction) -> list[str]:
    """Sends five wrong tokens; returns the close reason."""
    async with connect(app) as ws:
        for number in range(5):
            assert (await ws.call("$auth", data=f"guess-{number}"))["status"] == 401
        code, reason = await ws.wait_closed()
    assert code == 1008
    return [reason]


async def too_slow(app: WSAction) -> list[str]:
    return await answers(app, [{"action": "wait", "route": "rooms/1/"}])


async def disconnects_slowly(app: WSAction) -> list[str]:
    async with connect(app, "/stubborn/") as ws:
        await ws.call("echo")
    return []  # the client is gone, so only the log has it


async def a_message_that_is_not_whole(app: WSAction) -> list[str]:
    async with wired(app) as wire:
        await wire.feed(ws_frame(b"{}")[:-1])
        code, reason = await wire.close_frame()
        assert code == 1008
    return [reason]


@dataclass(frozen=True)
class Case:
    """How a limit is reached, and how much memory (bytes at the peak) and time (seconds) that may take."""

    reach: Callable[[WSAction], Awaitable[list[str]]]
    limits: dict[str, float]
    may_hold: int = 1_000_000  # of the server, and of the client, which keeps the replies
    may_take: float = WAIT
    at_least: float = 0.0
    named_limit: str = ""  # the limit that the error names, if it is another one
    options: dict[str, Any] | None = None


CASES = {
    "max_frame_bytes": Case(too_many_brackets, {"max_frame_bytes": 1_000}, may_hold=4_000_000),
    "max_json_depth": Case(too_deep, {"max_json_depth": 50}),
    "max_route_length": Case(too_long, {"max_route_length": 10_000}, may_hold=4_000_000),
    "max_concurrency": Case(
        too_many, {"max_concurrency": 2, "max_queued_actions": 3}, named_limit="max_queued_actions"
    ),
    "max_queued_actions": Case(too_many, {"max_concurrency": 2, "max_queued_actions": 3}),
    "max_queued_bytes": Case(
        too_large_together, {"max_concurrency": 2, "max_queued_bytes": 35_000}, may_hold=3_000_000
    ),
    "max_subscriptions": Case(too_many_topics, {"max_subscriptions": 5}, may_hold=4_000_000),
    "max_outbox_bytes": Case(too_much_unread, {"max_outbox_bytes": 20_000, "drain_timeout": 0.2}),
    "max_threads": Case(every_thread_blocked, {"max_threads": 1, "action_timeout": 0.2}, at_least=0.2),
    "max_auth_failures": Case(guesses, {"max_auth_failures": 5}, options={"authentication_classes": [Tokens]}),
    "message_timeout": Case(
        a_message_that_is_not_whole,
        {"message_timeout": 0.2},
        at_least=0.2,
        may_hold=3_000_000,  # including the modules of uvicorn
    ),
    "send_timeout": Case(a_message_unread, {"send_timeout": 0.2, "drain_timeout": 0.2}, at_least=0.2),
    "action_timeout": Case(too_slow, {"action_timeout": 0.2}, at_least=0.2),
    "auth_timeout": Case(closing, {"auth_timeout": 0.2}, at_least=0.2, options={"authentication_classes": [Tokens]}),
    "idle_timeout": Case(closing, {"idle_timeout": 0.2}, at_least=0.2),
    "drain_timeout": Case(disconnects_slowly, {"drain_timeout": 0.2}, at_least=0.2),
}


def test_no_bound_is_missing() -> None:
    assert list(CASES) == [field.name for field in fields(Limits)]


@pytest.mark.parametrize("name", CASES)
async def test_a_bound_holds_and_says_so(name: str, caplog: pytest.LogCaptureFixture) -> None:
    case, hooks = CASES[name], Reached()
    app = app_of(hooks, Limits(**case.limits), **(case.options or {}))  # type: ignore[arg-type]
    limit = case.named_limit or name
    tracemalloc.start()
    try:
        started = time.monotonic()
        texts = await asyncio.wait_for(case.reach(app), 3 * WAIT)
        seconds = time.monotonic() - started
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    value = case.limits[limit]
    texts = texts or [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert texts
    assert not [text for text in texts if limit not in text or f"{value}" not in text]
    assert (limit, value) in hooks.bounds
    assert len(hooks.bounds) >= len(texts)
    assert peak < case.may_hold
    assert case.at_least <= seconds < case.may_take
    assert not app.runtime.loop_state.connections
