"""The test client, tested with plain ASGI apps and with Starlette."""

from __future__ import annotations

import ast
import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from wsaction import testing
from wsaction.testing import (
    ActionFailed,
    ClientDisconnected,
    ConnectionClosed,
    HandshakeRefused,
    UnexpectedFrame,
    WebsocketCommunicator,
    WebSocketSession,
    connect,
)
from wsaction.testing._scope import websocket_scope
from wsaction.testing._transport import Transport

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
ACCEPT = {"type": "websocket.accept"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def text(value: Any) -> dict[str, Any]:
    return {"type": "websocket.send", "text": value if isinstance(value, str) else json.dumps(value)}


class Script:
    """An app that sends ``messages`` after ``websocket.connect``, and records all messages until the disconnect."""

    def __init__(self, *messages: dict[str, Any], error: Exception | None = None) -> None:
        self.messages = messages
        self.error = error
        self.scope: dict[str, Any] = {}
        self.received: list[Any] = []
        self.sent = 0
        self.raised: list[Exception] = []

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.received.append(await receive())
        for message in self.messages:
            try:
                await send(message)
                self.sent += 1
            except (RuntimeError, OSError) as error:
                self.raised.append(error)
        if self.error:
            raise self.error
        while self.received[-1]["type"] != "websocket.disconnect":
            self.received.append(await receive())


async def answering(scope: Any, receive: Receive, send: Send) -> None:
    """Replies to each frame with the frames in its key ``answers``; those with a status get its request_id."""
    await receive()
    await send(ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        frame = json.loads(message["text"])
        for answer in frame["answers"]:
            await send(text(answer | ({"request_id": frame["request_id"]} if "status" in answer else {})))


async def never_ending(scope: Any, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    await asyncio.Event().wait()


def tasks() -> set[asyncio.Task[Any]]:
    """The tasks of apps that still run."""
    return {task for task in asyncio.all_tasks() if task.get_name().startswith("wsaction.testing")}


# The handshake.


async def test_the_scope_is_that_of_a_server() -> None:
    app = Script(ACCEPT)

    async with connect(
        app,
        "/caf%C3%A9/a b/?x=1&y=%20é",
        headers={"X-Token": "t", "Host": "example.com"},
        subprotocols=["wsaction.v1", "other"],
        user="ada",
        origin="https://example.com",
    ):
        pass

    assert app.scope.pop("headers") == [
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", b"d3NhY3Rpb24udGVzdGluZw=="),
        (b"sec-websocket-protocol", b"wsaction.v1, other"),
        (b"origin", b"https://example.com"),
        (b"x-token", b"t"),
        (b"host", b"example.com"),
    ]
    assert app.scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/café/a b/",
        "raw_path": b"/caf%C3%A9/a%20b/",
        "query_string": b"x=1&y=%20%C3%A9",
        "root_path": "",
        "client": ("testclient", 50000),
        "server": ("testserver", 80),
        "subprotocols": ["wsaction.v1", "other"],
        "extensions": {"websocket.http.response": {}},
        "state": {},
        "user": "ada",
    }


async def test_headers_may_repeat_and_scope_keys_override() -> None:
    app = Script(ACCEPT)
    headers: list[tuple[str | bytes, str | bytes]] = [("Cookie", "a"), (b"cookie", b"b")]

    async with connect(app, headers=headers, scope={"scheme": "wss", "root_path": "/sub"}, client=None):
        pass

    assert app.scope["headers"][0] == (b"host", b"testserver")
    assert app.scope["headers"][-2:] == [(b"cookie", b"a"), (b"cookie", b"b")]
    assert (app.scope["path"], app.scope["scheme"], app.scope["root_path"]) == ("/", "wss", "/sub")
    assert "user" not in app.scope
    assert app.scope["client"] is None


@pytest.mark.parametrize("path", ["ws/", "", "/ws/#top"])
async def test_an_invalid_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="expected a path such as '/ws/"):
        async with connect(Script(), path):
            pytest.fail("connected")


async def test_the_session_has_what_the_server_accepted() -> None:
    headers = [(b"X-A", b"1"), (b"x-a", b"2")]
    app = Script(ACCEPT | {"subprotocol": "b", "headers": headers})

    async with connect(app, subprotocols=["a", "b"]) as ws:
        assert isinstance(ws, WebSocketSession)
        assert ws.subprotocol == "b"
        assert ws.accept_headers == {"x-a": "1, 2"}
        assert ws.closed is None


async def test_a_subprotocol_that_was_not_offered_fails_as_in_a_browser() -> None:
    with pytest.raises(RuntimeError, match=r"expected a sub-protocol out of \['a'\], but the app chose 'b'"):
        async with connect(Script(ACCEPT | {"subprotocol": "b"}), subprotocols=["a"]):
            pytest.fail("connected")


async def test_a_close_before_accept_is_a_403() -> None:
    app = Script({"type": "websocket.close", "code": 4401, "reason": "no token"})

    with pytest.raises(HandshakeRefused, match=r"HTTP 403 \(close code 4401, 'no token'\)") as caught:
        async with connect(app):
            pytest.fail("connected")

    refused = caught.value
    assert (refused.status, refused.headers, refused.body) == (403, {}, b"")
    assert (refused.code, refused.reason) == (4401, "no token")
    assert app.received[-1]["type"] == "websocket.disconnect"


async def test_an_http_response_refuses_with_status_headers_and_body() -> None:
    app = Script(
        {"type": "websocket.http.response.start", "status": 401, "headers": [(b"WWW-Authenticate", b"Bearer")]},
        {"type": "websocket.http.response.body", "body": b"who ", "more_body": True},
        {"type": "websocket.http.response.body", "body": b"are you?"},
        ACCEPT,
    )

    with pytest.raises(HandshakeRefused, match="HTTP 401, body b'who are you") as caught:
        async with connect(app):
            pytest.fail("connected")

    refused = caught.value
    assert (refused.status, refused.headers, refused.body) == (401, {"www-authenticate": "Bearer"}, b"who are you?")
    assert refused.code is None
    assert "expected nothing more from the app" in str(app.raised)
    assert app.received[-1] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


async def test_http_responses_can_be_switched_off() -> None:
    app = Script({"type": "websocket.http.response.start", "status": 401}, {"type": "websocket.close"})

    with pytest.raises(HandshakeRefused, match="HTTP 403"):
        async with connect(app, scope={"extensions": {}}):
            pytest.fail("connected")

    assert "does not offer 'websocket.http.response'" in str(app.raised)


@pytest.mark.parametrize("messages", [(), ({"type": "websocket.http.response.start", "status": 401},)])
async def test_an_app_that_returns_without_an_answer_is_a_500(messages: tuple[dict[str, Any], ...]) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    with pytest.raises(HandshakeRefused, match=r"HTTP 500 \(the app returned without a complete answer\)"):
        async with connect(app):
            pytest.fail("connected")


async def test_an_app_that_fails_in_the_handshake_fails_the_test() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        async with connect(Script(error=ZeroDivisionError())):
            pytest.fail("connected")
    assert not hasattr(caught.value, "__notes__")


async def test_an_app_that_does_not_answer_times_out_and_is_ended() -> None:
    app = Script()

    with pytest.raises(TimeoutError, match=r"waited 0.01 s for the answer to the handshake; no message arrived"):
        async with connect(app, timeout=0.01):
            pytest.fail("connected")

    assert app.received[-1] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    assert not tasks()


# Frames.


async def test_frames_are_sent_and_received() -> None:
    binary = {"type": "websocket.send", "bytes": b"b", "text": None}
    app = Script(ACCEPT, text("a"), binary, text({"c": "é"}), text("d"))

    async with connect(app) as ws:
        assert await ws.receive_text() == "a"
        assert await ws.receive_bytes() == b"b"
        assert await ws.receive_json() == {"c": "é"}
        assert await ws.receive() == {"type": "websocket.send", "text": "d"}
        await ws.send_text("1")
        await ws.send_bytes(b"2")
        await ws.send_json({"3": "é"})

    assert app.received == [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "1"},
        {"type": "websocket.receive", "bytes": b"2"},
        {"type": "websocket.receive", "text": '{"3":"é"}'},
        {"type": "websocket.disconnect", "code": 1000, "reason": ""},
    ]


async def test_an_unexpected_frame_is_in_the_error() -> None:
    binary = {"type": "websocket.send", "bytes": b"b"}
    async with connect(Script(ACCEPT, binary, text("no json"), text("t"))) as ws:
        with pytest.raises(UnexpectedFrame, match=r"expected a text frame, got .*b'b'.*; receive") as caught:
            await ws.receive_json()
        assert caught.value.message == binary
        with pytest.raises(UnexpectedFrame, match=r"expected JSON, got .*no json"):
            await ws.receive_json()
        with pytest.raises(UnexpectedFrame, match="expected a binary frame"):
            await ws.receive_bytes()


async def test_a_timeout_names_the_expected_and_the_received_frames() -> None:
    async with connect(Script(ACCEPT, *[text({"event": n}) for n in "abcdef"])) as ws:
        ws.timeout = 0.01
        with pytest.raises(
            TimeoutError, match=r"waited 0.01 s for the event 'z'; 6 other messages arrived: .*\"a\".*\"e\".*\.\.\."
        ):
            await ws.event("z")
        assert [(await ws.event())["event"] for _ in "abcdef"] == list("abcdef")
        with pytest.raises(TimeoutError, match="for a frame; no message arrived"):
            await ws.receive()


async def test_a_call_takes_its_final_reply_and_leaves_the_rest() -> None:
    async with connect(answering) as ws:
        answers = [{"event": "moved"}, {"status": 206, "data": 1}, {"status": 404, "data": None}]
        assert await ws.call("a", answers=answers) == {"status": 404, "data": None, "request_id": "test-1"}
        assert await ws.receive_json() == {"event": "moved"}
        assert await ws.receive_json() == {"status": 206, "data": 1, "request_id": "test-1"}


async def test_a_call_sends_its_arguments() -> None:
    app = Script(ACCEPT, text({"status": 200, "request_id": 7}), text({"status": 200, "request_id": "x"}))

    async with connect(app) as ws:
        await ws.call("move", "cards/7/", {"x": 1}, request_id=7, speed=2, self="me")
        await ws.call("stop", request_id="x")

    assert [json.loads(message["text"]) for message in app.received[1:-1]] == [
        {"action": "move", "route": "cards/7/", "data": {"x": 1}, "request_id": 7, "speed": 2, "self": "me"},
        {"action": "stop", "route": "", "request_id": "x"},
    ]


async def test_request_ids_compare_by_type_too() -> None:
    replies = [{"request_id": each, "status": 200, "data": n} for n, each in enumerate([True, "1", 1.0, 1])]

    async with connect(Script(ACCEPT, text("[1]"), text("{"), *map(text, replies))) as ws:
        assert (await ws.call("a", request_id=1))["data"] == 3
        assert (await ws.call("a", request_id="1"))["data"] == 1
        ws.timeout = 0.01
        with pytest.raises(TimeoutError, match=r"the final reply to 'b' \(request_id 'q'\)"):
            await ws.call("b", request_id="q")


async def test_calls_and_a_plain_receive_may_wait_at_once() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        ids = [json.loads((await receive())["text"])["request_id"] for _ in range(2)]
        for request_id in reversed(ids):
            await send(text({"request_id": request_id, "status": 200}))
        await send(text({"event": "e"}))
        await receive()

    async with connect(app) as ws:
        plain = asyncio.create_task(ws.receive_json())
        await anyio.wait_all_tasks_blocked()  # it waits first, but does not take the replies of the calls
        replies = await asyncio.gather(ws.call("a"), ws.call("b"))
        assert [reply["request_id"] for reply in replies] == ["test-1", "test-2"]
        assert await plain == {"event": "e"}


async def test_a_cancelled_wait_loses_no_frame() -> None:
    release = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await release.wait()
        await send(text("kept"))
        await receive()

    async with connect(app) as ws:
        waiting = asyncio.create_task(ws.receive())
        await anyio.wait_all_tasks_blocked()
        release.set()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await ws.receive_text() == "kept"


async def test_events_are_found_by_name() -> None:
    async with connect(
        Script(ACCEPT, text({"event": "a"}), text("x"), text({"event": "b"}), text({"event": "a"}))
    ) as ws:
        assert await ws.event("b") == {"event": "b"}
        assert await ws.event() == {"event": "a"}
        assert await ws.event() == {"event": "a"}
        assert await ws.receive_text() == "x"


async def test_nothing_waits_for_a_bounded_time() -> None:
    async with connect(answering) as ws:
        await ws.nothing(0.01)
        await ws.send_json({"answers": [{"event": "e"}]})
        with pytest.raises(AssertionError, match=r"expected nothing for 5 s, got .*event"):
            await ws.nothing(5)
        assert await ws.event() == {"event": "e"}


async def test_a_close_fails_nothing_once() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        await send({"type": "websocket.close", "code": 4408, "reason": "idle"})

    async with connect(app) as ws:
        await ws.send_text("go")
        with pytest.raises(AssertionError, match=r"but the connection closed with \(4408, 'idle'\)"):
            await ws.nothing(5)
        await ws.nothing(5)


# Streams.


async def test_a_stream_gives_the_data_of_its_partial_replies() -> None:
    answers = [{"status": 206, "data": 1}, {"event": "e"}, {"status": 206, "data": 2}, {"status": 200, "data": None}]

    async with connect(answering) as ws:
        stream = ws.stream("count", answers=answers)
        assert (stream.request_id, stream.reply) == ("test-1", None)
        assert [item async for item in stream] == [1, 2]
        assert stream.reply == {"status": 200, "data": None, "request_id": "test-1"}
        assert [item async for item in stream] == []
        assert await ws.event() == {"event": "e"}


async def test_a_failed_stream_raises_its_reply() -> None:
    final = {"status": 499, "errors": [{"type": "cancelled", "msg": "m"}]}

    async with connect(answering) as ws:
        stream = ws.stream("count", request_id=5, answers=[{"status": 206, "data": 1}, final])
        assert await anext(stream) == 1
        with pytest.raises(ActionFailed, match=r"the action failed with status 499: .*cancelled") as caught:
            await anext(stream)
        assert caught.value.reply == stream.reply == final | {"request_id": 5}


# The end of a connection.


async def test_messages_before_a_close_are_read_first() -> None:
    app = Script(ACCEPT, text("last"), {"type": "websocket.close", "code": 1008, "reason": "policy"}, text("too late"))

    async with connect(app) as ws:
        assert await ws.wait_closed() == (1008, "policy")
        assert ws.closed == (1008, "policy")
        assert await ws.receive_text() == "last"
        for use in (ws.receive(), ws.call("a"), ws.event(), ws.send_text("x")):
            with pytest.raises(ConnectionClosed, match="code 1008, reason 'policy'") as caught:
                await use
            assert (caught.value.code, caught.value.reason) == (1008, "policy")

    assert "expected nothing more from the app in phase 'closed', got 'websocket.send'" in str(app.raised)
    assert app.received[1:] == [{"type": "websocket.disconnect", "code": 1008, "reason": "policy"}]


async def test_a_close_without_a_code_is_1000() -> None:
    async with connect(Script(ACCEPT, {"type": "websocket.close"})) as ws:
        assert await ws.wait_closed() == (1000, "")


async def test_an_app_that_returns_without_a_close_is_1006() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)

    async with connect(app) as ws:
        with pytest.raises(ConnectionClosed, match="code 1006"):
            await ws.receive()


async def test_an_app_error_is_raised_once_where_the_test_waits() -> None:
    async with connect(Script(ACCEPT, text("a"), error=ZeroDivisionError("by hand"))) as ws:
        assert await ws.receive_text() == "a"
        with pytest.raises(ZeroDivisionError, match="by hand"):
            await ws.call("a")


async def test_an_unseen_app_error_is_raised_on_exit() -> None:
    with pytest.raises(ZeroDivisionError, match="by hand"):
        async with connect(Script(ACCEPT, error=ZeroDivisionError("by hand"))):
            pass


async def test_an_app_error_after_a_close_is_raised_second() -> None:
    app = Script(ACCEPT, {"type": "websocket.close", "code": 1011}, error=ZeroDivisionError("by hand"))

    async with connect(app) as ws:
        with pytest.raises(ConnectionClosed, match="1011"):
            await ws.receive()
        with pytest.raises(ZeroDivisionError):
            await ws.close()


async def test_a_test_error_wins_and_the_app_error_is_a_note() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        raise ZeroDivisionError("by hand")

    with pytest.raises(KeyError) as caught:
        async with connect(app):
            raise KeyError("the test's own")

    assert caught.value.__notes__ == ["and then the app failed: ZeroDivisionError('by hand')"]
    assert not tasks()


async def test_close_waits_for_the_app_and_may_be_called_again() -> None:
    app = Script(ACCEPT)

    async with connect(app) as ws:
        await ws.close(4000, "done")
        assert app.received[-1] == {"type": "websocket.disconnect", "code": 4000, "reason": "done"}
        assert ws.closed == (4000, "done")
        await ws.close()
        with pytest.raises(ConnectionClosed, match="4000"):
            await ws.receive()


async def test_drop_does_not_wait_and_its_code_is_1006() -> None:
    app = Script(ACCEPT)

    async with connect(app) as ws:
        ws.drop()
        assert len(app.received) == 1

    assert app.received[-1] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


async def test_sending_after_a_disconnect_raises_in_the_app() -> None:
    raised: list[OSError] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        try:
            await send(text("x"))
        except ClientDisconnected as error:
            raised.append(error)
            raise

    async with connect(app):
        pass

    assert len(raised) == 1


async def test_older_asgi_specs_drop_late_messages() -> None:
    returned = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        await send(text("x"))
        returned.set()

    async with connect(app, scope={"asgi": {"spec_version": "2.3"}}):
        pass

    assert returned.is_set()


async def test_an_app_that_does_not_return_is_cancelled_and_reported() -> None:
    with pytest.raises(TimeoutError, match=r"did not return within 0.01 s of the disconnect and was cancelled"):
        async with connect(never_ending, timeout=0.01):
            pass
    assert not tasks()


async def test_an_app_that_ignores_being_cancelled_is_reported() -> None:
    release = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    with pytest.raises(TimeoutError, match="ignores being cancelled"):
        async with connect(app, timeout=0.01):
            pass
    (left,) = tasks()
    release.set()
    await left


async def test_an_app_that_cancels_itself_has_failed() -> None:
    with pytest.raises(RuntimeError, match="the app cancelled its own task"):
        async with connect(Script(ACCEPT, error=asyncio.CancelledError())):  # type: ignore[arg-type]
            pass


async def test_an_app_that_sends_forever_does_not_stop_the_test() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        while True:
            try:
                await send(text("x"))
            except OSError:
                continue

    with pytest.raises(TimeoutError, match="was cancelled"):
        async with connect(app, timeout=0.01) as ws:
            assert await ws.receive_text() == "x"


# Tasks and context.


async def test_a_cancelled_test_leaves_no_task() -> None:
    app = Script(ACCEPT)

    with anyio.CancelScope() as scope:
        async with connect(app):
            scope.cancel()
            await anyio.sleep_forever()

    assert scope.cancelled_caught
    assert app.received[-1]["code"] == 1006
    assert not tasks()


async def test_a_test_that_is_cancelled_twice_leaves_no_task() -> None:
    inside = asyncio.Event()

    async def body() -> None:
        async with connect(never_ending):
            inside.set()
            await asyncio.Event().wait()

    test = asyncio.create_task(body())
    await inside.wait()
    test.cancel()
    await anyio.wait_all_tasks_blocked()
    test.cancel()
    with pytest.raises(asyncio.CancelledError):
        await test
    assert not tasks()


current: ContextVar[str] = ContextVar("current", default="unset")


async def test_context_variables_reach_the_app_and_stay_there() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await send(text(current.get()))
        current.set("by the app")
        await receive()

    token = current.set("by the test")
    try:
        async with connect(app) as ws:
            assert await ws.receive_text() == "by the test"
    finally:
        assert current.get() == "by the test"
        current.reset(token)


# Slow consumers and slow apps.


async def test_a_client_that_does_not_read_blocks_the_send_of_the_app() -> None:
    steps: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        async def send_one(name: str) -> None:
            await send(text(name))
            steps.append(name)

        await receive()
        await send(ACCEPT)
        await receive()
        await asyncio.gather(send_one("a"), send_one("b"))
        await send({"type": "websocket.close", "code": 1013})

    async with connect(app) as ws:
        ws.pause_reading()
        await ws.send_text("go")
        await ws.nothing(0.01)
        assert steps == []
        ws.resume_reading()
        assert [await ws.receive_text(), await ws.receive_text()] == ["a", "b"]
        assert await ws.wait_closed() == (1013, "")
        assert steps == ["a", "b"]


async def test_a_client_that_leaves_releases_the_send_of_the_app() -> None:
    app = Script(ACCEPT, text("a"), text("b"), text("c"))

    async with connect(app, capacity=1) as ws:
        ws.pause_reading()

    assert app.sent < 4
    assert {type(error) for error in app.raised} == {ClientDisconnected}


async def test_unread_frames_are_bounded() -> None:
    app = Script(ACCEPT, *map(text, "abcd"))

    async with connect(app, capacity=2) as ws:
        ws.timeout = 0.01
        with pytest.raises(TimeoutError, match="2 other messages arrived"):
            await ws.event()
        assert app.sent == 3
        ws.timeout = 5
        assert [await ws.receive_text() for _ in "abcd"] == list("abcd")


async def test_frames_that_the_app_does_not_receive_are_bounded() -> None:
    release = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await release.wait()

    async with connect(app, capacity=2) as ws:
        await ws.send_text("1")
        await ws.send_text("2")
        ws.timeout = 0.01
        with pytest.raises(TimeoutError, match="the app to receive one of the 2 queued messages"):
            await ws.send_text("3")
        release.set()


# Messages that a server would not send.


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"type": "websocket.accept"}, "expected websocket.send or websocket.close from the app in phase 'open'"),
        ({"type": "websocket.send"}, "either 'text' (str) or 'bytes'"),
        ({"type": "websocket.send", "text": "a", "bytes": b"b"}, "either 'text' (str) or 'bytes'"),
        ({"type": "websocket.send", "text": b"a"}, "either 'text' (str) or 'bytes'"),
        ({"type": "websocket.send", "bytes": "a"}, "either 'text' (str) or 'bytes'"),
        ({"type": "websocket.close", "code": 1006}, "expected a close code that may be sent"),
        ({"type": "websocket.close", "code": 999}, "got 999"),
        ({"type": "websocket.close", "code": 1000, "reason": "é" * 62}, "at most 123 UTF-8 bytes, got 124"),
    ],
)
async def test_an_invalid_message_raises_in_the_app(message: dict[str, Any], expected: str) -> None:
    app = Script(ACCEPT, message, text("still open"))

    async with connect(app) as ws:
        assert await ws.receive_text() == "still open"

    assert expected in str(app.raised)


async def test_headers_are_pairs_of_bytes_and_accept_comes_first() -> None:
    app = Script(text("too early"), ACCEPT | {"headers": [("x", "y")]}, ACCEPT)

    async with connect(app):
        pass

    early, headers = map(str, app.raised)
    assert "expected websocket.accept or websocket.close or websocket.http.response.start" in early
    assert "expected headers as pairs of bytes in websocket.accept, got ('x', 'y')" in headers


# Comparisons: the messages of uvicorn, and an app of Starlette.


async def test_an_app_receives_the_same_as_from_uvicorn() -> None:
    async def run_with_uvicorn(app: Script) -> None:
        server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None, ws="websockets-sansio"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving = asyncio.create_task(server.serve([listener]))
            url = f"ws://127.0.0.1:{listener.getsockname()[1]}/a%20b/?x=1"
            async with websockets.connect(url, subprotocols=[websockets.Subprotocol("v1")]) as client:
                await client.send("t")
                await client.send(b"b")
                await client.close(4000, "done")
            server.should_exit = True
            await serving

    async def run_with_connect(app: Script) -> None:
        async with connect(app, "/a%20b/?x=1", subprotocols=["v1"]) as ws:
            await ws.send_text("t")
            await ws.send_bytes(b"b")
            await ws.close(4000, "done")

    real, simulated = Script(ACCEPT | {"subprotocol": "v1"}), Script(ACCEPT | {"subprotocol": "v1"})
    await run_with_uvicorn(real)
    await run_with_connect(simulated)

    assert simulated.received == real.received
    assert {type(value) for value in simulated.scope.values()} <= {type(value) for value in real.scope.values()}
    for key in ("type", "http_version", "scheme", "path", "raw_path", "query_string", "root_path", "subprotocols"):
        assert simulated.scope[key] == real.scope[key]
    assert simulated.scope.keys() == real.scope.keys()
    assert {name for name, _ in simulated.scope["headers"]} <= {name for name, _ in real.scope["headers"]}


async def echo(websocket: WebSocket) -> None:
    if websocket.query_params.get("refuse"):
        return await websocket.send_denial_response(PlainTextResponse("go away", status_code=418))
    await websocket.accept(subprotocol=websocket.scope["subprotocols"][0])
    async for message in websocket.iter_json():
        await websocket.send_json(message | {"status": 200, "path": websocket.url.path, "user": websocket.user})
    return None


starlette = Starlette(routes=[WebSocketRoute("/ws/{name}/", echo)])


async def test_starlette() -> None:
    async with connect(starlette, "/ws/café/", subprotocols=["v1"], user="ada") as ws:
        reply = await ws.call("hello", text="world")
        assert reply["text"] == "world"
        assert reply["user"] == "ada"
        assert ws.subprotocol == "v1"

    with pytest.raises(HandshakeRefused) as caught:
        async with connect(starlette, "/ws/a/?refuse=1"):
            pytest.fail("connected")
    assert (caught.value.status, caught.value.body) == (418, b"go away")
    assert caught.value.headers["content-type"] == "text/plain; charset=utf-8"

    with pytest.raises(HandshakeRefused, match="403"):
        async with connect(starlette, "/elsewhere"):
            pytest.fail("connected")


# The communicator.


async def test_the_communicator_works_like_that_of_channels() -> None:
    app = Script(ACCEPT | {"subprotocol": "b", "headers": [(b"x", b"y")]}, text({"a": 1}), text("b"))
    communicator = WebsocketCommunicator(app, "ws/?q", [(b"Cookie", b"c")], ["a", "b"], "2.3")
    communicator.scope["user"] = "ada"

    assert await communicator.connect() == (True, "b")
    assert communicator.response_headers == [(b"x", b"y")]
    assert await communicator.receive_nothing(5) is False
    assert await communicator.receive_json_from() == {"a": 1}
    assert await communicator.receive_from() == "b"
    assert await communicator.receive_nothing(timeout=0.01, interval=0.001) is True
    await communicator.send_to(text_data="t")
    await communicator.send_to(bytes_data=b"")
    await communicator.send_json_to([1])
    await communicator.disconnect(code=4001)

    assert app.received[1:] == [
        {"type": "websocket.receive", "text": "t"},
        {"type": "websocket.receive", "bytes": b""},
        {"type": "websocket.receive", "text": "[1]"},
        {"type": "websocket.disconnect", "code": 4001},
    ]
    assert (app.scope["path"], app.scope["user"], app.scope["query_string"]) == ("/ws/", "ada", b"q")
    assert app.scope["asgi"]["spec_version"] == "2.3"
    assert (b"cookie", b"c") in app.scope["headers"]
    assert not tasks()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"type": "websocket.close", "code": 4403}, (False, 4403)),
        ({"type": "websocket.close"}, (False, 1000)),
        ({"type": "websocket.http.response.start", "status": 401}, (False, 401)),
    ],
)
async def test_a_refused_communicator_returns_the_code(answer: dict[str, Any], expected: tuple[bool, int]) -> None:
    communicator = WebsocketCommunicator(Script(answer), "/ws/")

    assert await communicator.connect() == expected
    await communicator.disconnect()
    assert not tasks()


async def test_a_communicator_sees_a_close_as_a_message() -> None:
    close = {"type": "websocket.close", "code": 4000}
    communicator = WebsocketCommunicator(Script(ACCEPT, close), "/ws/")
    await communicator.connect()

    assert await communicator.receive_output() == close
    await communicator.send_to(text_data="goes nowhere")
    with pytest.raises(TimeoutError, match="waited for a message of the app; the connection is closed: code 4000"):
        await communicator.receive_output()
    await communicator.wait()


async def test_a_communicator_refuses_other_messages() -> None:
    binary = {"type": "websocket.send", "bytes": b"b"}
    communicator = WebsocketCommunicator(Script(ACCEPT, binary, binary, {"type": "websocket.close"}), "/ws/")
    await communicator.connect()

    assert await communicator.receive_from() == b"b"
    with pytest.raises(UnexpectedFrame, match="expected a text frame"):
        await communicator.receive_json_from()
    with pytest.raises(UnexpectedFrame, match=r"expected a frame, got .*websocket\.close"):
        await communicator.receive_from()
    with pytest.raises(ValueError, match="got neither; for an empty frame pass '' or b''"):
        await communicator.send_to()
    for text_data, bytes_data in (("a", b"b"), ("", b"b"), ("a", b""), ("", b"")):
        with pytest.raises(ValueError, match="got both; send each in a frame of its own"):
            await communicator.send_to(text_data, bytes_data)
    await communicator.disconnect()


async def test_a_communicator_cancels_the_app_on_a_timeout() -> None:
    communicator = WebsocketCommunicator(Script(ACCEPT), "/ws/")
    await communicator.connect()

    with pytest.raises(TimeoutError, match=r"waited 0.01 s for a message of the app; no message arrived"):
        await communicator.receive_output(timeout=0.01)
    assert not tasks()
    await communicator.disconnect()


async def test_a_communicator_cancels_an_app_that_does_not_return() -> None:
    communicator = WebsocketCommunicator(never_ending, "/ws/")
    await communicator.connect()

    with pytest.raises(TimeoutError, match="was cancelled"):
        await communicator.disconnect(timeout=0.01)
    assert not tasks()


async def test_a_communicator_raises_the_error_of_the_app() -> None:
    communicator = WebsocketCommunicator(Script(ACCEPT, error=ZeroDivisionError()), "/ws/")
    await communicator.connect()

    with pytest.raises(ZeroDivisionError):
        await communicator.receive_from()
    with pytest.raises(ZeroDivisionError):
        await communicator.receive_nothing()
    with pytest.raises(ZeroDivisionError):
        await communicator.send_to("x")
    await communicator.wait()


async def test_a_communicator_raises_an_error_after_the_close() -> None:
    communicator = WebsocketCommunicator(Script(ACCEPT, {"type": "websocket.close"}, error=ZeroDivisionError()), "/ws/")
    await communicator.connect()

    assert await communicator.receive_output() == {"type": "websocket.close"}
    with pytest.raises(ZeroDivisionError):
        await communicator.receive_output()


# The package.


async def test_a_transport_closed_without_a_code_ends_with_1005() -> None:
    transport = Transport(Script(ACCEPT), websocket_scope("/"))
    transport.disconnect({"type": "websocket.disconnect"})

    assert await transport.wait_closed(1) == (1005, "")
    await transport.finish(1)


def test_testing_imports_only_the_standard_library_and_anyio() -> None:
    imported = set()
    for path in Path(testing.__file__).parent.glob("*.py"):
        if path.name in ("layers.py", "querysets.py", "_queryset_cases.py"):  # the contract test suites are separate
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module))
    foreign = {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names}

    assert {name for name in foreign if not name.startswith("wsaction.testing.")} == {"anyio"}


def test_all_exports_exist() -> None:
    assert all(hasattr(testing, name) for name in testing.__all__)
