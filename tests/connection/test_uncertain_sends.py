"""Servers whose `send` differs from uvicorn's: it hands a message over and returns later, or raises any exception.

Each message is sent once, each request gets one final reply while its socket is open, and the app raises nothing.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import PermissionDenied
from wsaction.limits import Limits
from wsaction.routing import path

WAIT = 10.0


class Root(AsyncAPIConsumer):
    @async_action
    async def echo(self, data: Any = None) -> Any:
        return data

    @async_action
    async def suspended(self, data: Any = None) -> Any:
        await asyncio.sleep(0)
        return data

    @async_action
    async def bye(self) -> str:
        await self.close(4403)
        return "bye"

    @async_action
    async def late_bye(self) -> str:
        await asyncio.sleep(0)
        await self.close(4403)
        return "bye"

    @async_action(timeout=0.05)
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @async_action
    async def push_some(self) -> str:
        for number in range(5):
            await self.send_json({"pushed": number})
        return "pushed"


class Refuses(Root):
    async def connect(self) -> None:
        raise PermissionDenied


async def stops_early(handler: Any, call_next: Callable[[Any], Any]) -> Any:
    """A middleware with a timeout of its own for actions."""
    async with asyncio.timeout(0.03):
        return await call_next(handler)


class Server:
    """One connection of a server.

    ``turns``: how many loop turns `send` takes after the client has the message. ``stuck``: whether the `send` of the
    first message after the handshake returns only once ``reads`` is set.
    """

    def __init__(self, app: Any, *, turns: int = 0, stuck: bool = False, extensions: Any = None) -> None:
        self.inbox: asyncio.Queue[Any] = asyncio.Queue()
        self.sent: list[Any] = []
        self.turns, self.stuck = turns, stuck
        self.reads = asyncio.Event()
        self.raises: dict[str, Exception] = {}  # by message type
        self.takes: set[int] | None = None  # the close codes that it accepts; None: all
        self.changed = asyncio.Event()
        scope = {"type": "websocket", "path": "/ws/", "headers": [], "query_string": b"", "subprotocols": []}
        self.inbox.put_nowait({"type": "websocket.connect"})
        self.app = asyncio.create_task(app({**scope, "extensions": extensions or {}}, self.inbox.get, self.send))

    async def send(self, message: Any) -> None:
        if (exc := self.raises.get(message["type"])) is not None:
            raise exc
        if self.takes is not None and message.get("code", 1000) not in self.takes:
            raise Refusal(f"invalid close code {message['code']}")
        self.sent.append(message)
        self.changed.set()
        for _ in range(self.turns):
            await asyncio.sleep(0)
        if self.stuck and message["type"] == "websocket.send":
            await self.reads.wait()

    def ask(self, *frames: Any) -> None:
        for frame in frames:
            self.inbox.put_nowait({"type": "websocket.receive", "text": json.dumps(frame)})

    @property
    def texts(self) -> list[Any]:
        return [json.loads(one["text"]) for one in self.sent if one["type"] == "websocket.send"]

    @property
    def codes(self) -> list[int]:
        return [one["code"] for one in self.sent if one["type"] == "websocket.close"]

    def finals(self, request_id: int) -> list[int]:
        return [one["status"] for one in self.texts if one.get("request_id") == request_id and one["status"] != 206]

    def items(self) -> list[Any]:
        return [one["data"] for one in self.texts if one.get("status") == 206]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def end(self) -> None:
        """Disconnects the client if it is still there; the app may raise nothing."""
        self.inbox.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await asyncio.wait_for(self.app, WAIT)


def app_of(consumer: Any = Root, **options: Any) -> WSAction:
    return WSAction([path("ws/", consumer.as_asgi())], **options)


def in_order(server: Server) -> bool:
    return server.items() == list(range(len(server.items())))


# ------------------------------------------------------------------------------------------------ sent once
turns = pytest.mark.parametrize("turns", [1, 2, 5])


@turns
@pytest.mark.parametrize("action", ["bye", "late_bye"])
async def test_the_reply_of_an_action_that_closes(turns: int, action: str) -> None:
    server = Server(app_of(limits=Limits(drain_timeout=60)), turns=turns)  # longer than the test
    server.ask({"action": action, "request_id": 1})
    await server.until(lambda: server.codes)
    await server.end()
    assert server.finals(1) in ([], [200])
    assert server.codes == [4403]


@turns
async def test_a_stream_that_is_cancelled_while_an_item_is_sent(turns: int) -> None:
    server = Server(app_of(), turns=turns)
    server.ask({"action": "count", "to": 100_000, "request_id": 1})
    await server.until(server.items)
    server.ask({"action": "$cancel", "data": 1, "request_id": 2}, {"action": "echo", "request_id": 3})
    await server.until(lambda: server.finals(1) and server.finals(2) and server.finals(3))
    await server.end()
    assert [server.finals(number) for number in (1, 2, 3)] == [[499], [200], [200]]
    assert in_order(server)
    assert server.texts[-1].get("status") != 206


@turns
async def test_a_stream_that_a_middleware_stops_while_an_item_is_sent(turns: int) -> None:
    server = Server(app_of(middleware=[stops_early]), turns=turns)
    server.ask({"action": "count", "to": 100_000_000, "request_id": 1}, {"action": "echo", "request_id": 2})
    await server.until(lambda: server.finals(1) and server.finals(2))
    await server.end()
    assert [server.finals(number) for number in (1, 2)] == [[500], [200]]
    assert in_order(server)


@pytest.mark.parametrize("way", ["$cancel", "middleware"])
async def test_a_cancelled_stream_does_not_wait_for_the_socket(way: str) -> None:
    """The item in `send` stays there. The action ends at once, and its reply follows the item."""
    ended = asyncio.Event()

    class Ending(Root):
        @async_action
        async def forever(self) -> AsyncIterator[int]:
            try:
                number = 0
                while True:
                    yield number
                    number += 1
            finally:
                ended.set()

    server = Server(app_of(Ending, middleware=[stops_early] if way == "middleware" else ()), stuck=True)
    server.ask({"action": "forever", "request_id": 1})
    await server.until(server.items)
    if way == "$cancel":
        server.ask({"action": "$cancel", "data": 1, "request_id": 2})
    await asyncio.wait_for(ended.wait(), WAIT)
    assert server.items() == [0]
    server.reads.set()
    await server.until(lambda: server.finals(1))
    await server.end()
    assert in_order(server)


@turns
@pytest.mark.parametrize("action", ["echo", "suspended", "push_some", "count"])
async def test_the_apps_task_is_cancelled_while_something_is_sent(turns: int, action: str) -> None:
    """As hypercorn does when it stops."""
    server = Server(app_of(), turns=turns)
    server.ask(*({"action": action, "to": 20, "request_id": number} for number in range(10)))
    await server.until(lambda: server.texts)
    server.app.cancel()
    await asyncio.wait({server.app}, timeout=WAIT)
    assert server.app.cancelled()
    assert all(len(server.finals(number)) <= 1 for number in range(10))
    assert server.codes == [1012]
    assert server.sent[-1]["type"] == "websocket.close"


@turns
@pytest.mark.parametrize("action", ["echo", "suspended", "push_some"])
async def test_the_app_drains_while_something_is_sent(turns: int, action: str) -> None:
    app = app_of()
    server = Server(app, turns=turns)
    server.ask(*({"action": action, "request_id": number} for number in range(10)))
    await server.until(lambda: server.texts)
    await asyncio.wait_for(app.drain(), WAIT)
    await server.end()
    assert all(server.finals(number) in ([], [200], [503]) for number in range(10))
    assert server.codes == [1012]


async def test_a_client_that_does_not_read_gets_each_message_once() -> None:
    server = Server(app_of(limits=Limits(send_timeout=0.1, drain_timeout=0.2)), stuck=True)
    server.ask({"action": "echo", "request_id": 1}, {"action": "echo", "request_id": 2})
    await server.until(lambda: server.codes)
    await server.end()
    assert server.codes == [1013]
    assert server.finals(1) == [200]


# ------------------------------------------------------------------------------------------------ whatever it raises


class Refusal(Exception):
    """An exception class that wsaction does not know."""


RAISED = [Refusal("no"), ValueError("no"), TypeError("no"), KeyError("no"), OSError("gone"), RuntimeError("gone")]
raised = pytest.mark.parametrize("exc", RAISED, ids=lambda exc: type(exc).__name__)


def well_told(caplog: pytest.LogCaptureFixture, exc: Exception) -> bool:
    """Checks the log: no traceback, one line for a refused send, and none if the peer is gone."""
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [record for record in caplog.records if record.exc_info]
    return bool(records) is not isinstance(exc, OSError | RuntimeError)


@raised
async def test_a_message_that_it_refuses_ends_the_connection(exc: Exception, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(app_of())
    server.raises["websocket.send"] = exc
    server.ask({"action": "echo", "request_id": 1})
    await asyncio.wait_for(server.app, WAIT)
    assert server.texts == []
    assert server.codes == ([] if isinstance(exc, OSError | RuntimeError) else [1011])
    assert well_told(caplog, exc)


@raised
async def test_one_that_waited_and_is_refused_ends_it_too(exc: Exception, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(app_of())
    server.raises["websocket.send"] = exc
    server.ask({"action": "push_some", "request_id": 1})
    await asyncio.wait_for(server.app, WAIT)
    assert server.codes == ([] if isinstance(exc, OSError | RuntimeError) else [1011])
    assert well_told(caplog, exc)


@raised
async def test_a_handshake_that_it_does_not_accept_is_over(exc: Exception, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(app_of())
    server.raises["websocket.accept"] = exc
    await asyncio.wait_for(server.app, WAIT)
    assert server.sent == []
    assert well_told(caplog, exc)


@raised
@pytest.mark.parametrize("accept_refused", [True, False])
@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
async def test_a_refusal_that_it_does_not_take_is_over(
    exc: Exception, accept_refused: bool, extensions: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(app_of(Refuses, accept_refused=accept_refused), extensions=extensions)
    for kind in ("websocket.accept", "websocket.close", "websocket.http.response.start"):
        server.raises[kind] = exc
    await asyncio.wait_for(server.app, WAIT)
    assert server.sent == []
    assert well_told(caplog, exc)


async def test_a_refusal_that_it_cannot_answer_over_http_is_a_close() -> None:
    server = Server(app_of(Refuses), extensions={"websocket.http.response": {}})
    server.raises["websocket.http.response.start"] = Refusal()
    await asyncio.wait_for(server.app, WAIT)
    assert server.codes == [4403]


@pytest.mark.parametrize(("code", "expected"), [(1009, 4009), (1000, 1000), (4403, 4403)])
async def test_a_close_code_that_the_server_refuses_is_replaced(code: int, expected: int) -> None:
    """As with daphne, which accepts 1000 and 3000 to 4999."""

    class Closing(Root):
        @async_action
        async def leave(self, code: int) -> None:
            await self.close(code)

    server = Server(app_of(Closing))
    server.takes = {1000, *range(3_000, 5_000)}
    server.ask({"action": "leave", "code": code})
    await asyncio.wait_for(server.app, WAIT)
    assert server.codes == [expected]
