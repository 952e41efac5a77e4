"""`wsaction.client`: calls, streams, errors and cancellation, against real servers."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.conftest import Server
from tests.support.scripted import WAIT, client_at, scripted
from tests.support.worker_app import ENDED, Card, Worker, app, client_of
from wsaction.applications import WSAction
from wsaction.client import (
    ActionError,
    ActionNotAllowed,
    CallTimeout,
    Client,
    ClientError,
    Conflict,
    ConnectionFailed,
    ConnectionLost,
    Event,
    InvalidRequest,
    NotFound,
    Overflow,
    PermissionDenied,
    Resync,
    RouteNotFound,
    ServerError,
    Throttled,
    Unavailable,
    UnexpectedReply,
)
from wsaction.client._buffers import Buffer, FlowControl
from wsaction.client._connection import Connection
from wsaction.client._pacing import Pacer
from wsaction.client._websocket import open_socket
from wsaction.client.errors import action_error
from wsaction.client.messages import Reply, encode_request, read
from wsaction.limits import Limits
from wsaction.routing import path


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    ENDED.clear()
    return serve(app)


async def ended(client: Client, action: str) -> None:
    """Waits until the server has ended the action."""
    async with asyncio.timeout(WAIT):
        while action not in await client.call("ended_so_far"):
            pass


# -------------------------------------------------------------------------------------------------------- calls
async def test_a_call_returns_the_data(server: Server) -> None:
    async with client_of(server) as client:
        assert client.state == "connected"
        assert await client.call("echo", text="hé ☃") == "hé ☃"
        assert await client.call("echo", data={"list": [1, None, 2.5]}) == {"list": [1, None, 2.5]}
        assert await client.call("echo") == ""
    assert client.state == "closed"


async def test_values_that_pydantic_can_serialise_are_sent(server: Server) -> None:
    async with client_of(server) as client:
        assert await client.call("echo", data=Card(id=1, due=date(2026, 1, 2))) == {"id": 1, "due": "2026-01-02"}
        assert await client.call("echo", data=[UUID(int=1), float("nan")]) == [str(UUID(int=1)), None]
        assert await client.call("echo", params={"text": "by params"}) == "by params"
        with pytest.raises(Exception, match="Unable to serialize"):
            await client.call("echo", data=object())
        assert await client.call("echo", text="goes on") == "goes on"


async def test_protocol_keys_are_refused_as_parameters(server: Server) -> None:
    async with client_of(server) as client:
        with pytest.raises(TypeError, match="request_id is a key of the protocol"):
            await client.call("echo", request_id=7)


async def test_returns_validates_the_data(server: Server) -> None:
    async with client_of(server) as client:
        assert await client.call("card", returns=Card) == Card(id=7, due=date(2026, 11, 23))
        assert await client.call("echo", data=["2026-01-02"], returns=list[date]) == [date(2026, 1, 2)]
        assert [day async for day in client.stream("days", returns=date)] == [date(2026, 11, 23)]
        with pytest.raises(ValidationError):
            await client.call("echo", text="no card", returns=Card)


async def test_many_calls_at_once_each_get_their_own_reply(server: Server) -> None:
    async with client_of(server) as client:
        replies = await asyncio.gather(*(client.call("echo", data=number) for number in range(1_000)))
    assert replies == list(range(1_000))


async def test_frames_over_the_in_flight_limit_are_sent_one_at_a_time(serve: Callable[..., Server]) -> None:
    large = WSAction(
        [path("ws/", Worker.as_asgi())], limits=Limits(max_frame_bytes=4_000_000, max_outbox_bytes=8_000_000)
    )
    async with client_of(serve(large)) as client:
        text = "x" * 700_000
        assert await asyncio.gather(*(client.call("echo", text=text) for _ in range(5))) == [text] * 5


async def test_send_is_for_actions_without_replies(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async with client_of(server) as client:
        await client.send("note", text="noted")
        await ended(client, "noted")
        await client.send("note", params={"text": ""})
        await client.call("echo", text="after it")
    assert "no caller waits for this reply: 404 not_found: nothing to note (note)" in caplog.text


# -------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("parameters", "kind", "type_"),
    [
        ({"kind": "missing"}, NotFound, "not_found"),
        ({"kind": "taken"}, Conflict, "conflict"),
        ({"kind": "denied"}, PermissionDenied, "permission_denied"),
        ({"kind": "throttled"}, Throttled, "throttled"),
        ({"kind": "bug"}, ServerError, "server_error"),
        ({"kind": "own"}, ActionError, "payment_required"),
        ({}, InvalidRequest, "missing"),
    ],
)
async def test_an_error_reply_is_raised(
    server: Server, parameters: dict[str, Any], kind: type[ActionError], type_: str
) -> None:
    async with client_of(server) as client:
        with pytest.raises(kind) as caught:
            await client.call("fail", **parameters)
    assert type(caught.value) is kind
    assert (caught.value.type, caught.value.action, caught.value.route) == (type_, "fail", "")
    if kind is Throttled:
        assert caught.value.retry_after == 1.5
    if kind is ServerError:
        assert len(caught.value.error_id) == 16
    if type_ == "payment_required":
        assert (caught.value.status, caught.value.ctx) == (402, {"plan": "free"})
        assert str(caught.value) == "402 payment_required: No boards left. (fail)"
    if kind is InvalidRequest:
        assert caught.value.errors[0]["loc"] == ["kind"]
        assert "missing: Field required [kind]" in str(caught.value)


async def test_unknown_routes_and_actions_raise(server: Server) -> None:
    async with client_of(server) as client:
        with pytest.raises(RouteNotFound, match=r"404 route_not_found: .* \(echo nowhere/\)"):
            await client.call("echo", "nowhere/")
        with pytest.raises(ActionNotAllowed):
            await client.call("nothing")


def test_errors_by_status_and_type() -> None:
    assert type(action_error(503, [{"type": "busy", "msg": "."}], "a", "")) is Unavailable
    assert action_error(429, [{"type": "throttled", "msg": "."}], "a", "").retry_after is None  # type: ignore[attr-defined]
    bare = action_error(418, [], "a", "")
    assert (type(bare), bare.type, bare.msg, bare.ctx) == (ActionError, "unknown", "", {})


# -------------------------------------------------------------------------------------------------------- cancelling
async def test_a_call_that_times_out_is_cancelled_at_the_server(server: Server) -> None:
    async with client_of(server) as client:
        with pytest.raises(CallTimeout, match=r"hang: no reply in 0.2 s") as caught:
            await client.call("hang", timeout=0.2)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.seconds == 0.2
        await ended(client, "hang")


async def test_a_cancelled_call_is_cancelled_at_the_server() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        calling = asyncio.create_task(client.call("hang"))
        request = await peer.frame("hang")
        calling.cancel()
        assert (await peer.frame("$cancel"))["data"] == request["request_id"]
        with pytest.raises(asyncio.CancelledError):
            await calling
        await peer.reply(request, None, 499, {"type": "cancelled", "msg": "."})
        answer = asyncio.create_task(client.call("echo"))
        await peer.reply(await peer.frame("echo"), 1)
        assert await answer == 1


async def test_answered_calls_are_not_cancelled() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        for number in range(3):
            answer = asyncio.create_task(client.call("echo"))
            await peer.reply(await peer.frame("echo"), number)
            assert await answer == number


# -------------------------------------------------------------------------------------------------------- streams
async def test_a_stream_gives_its_items(server: Server) -> None:
    async with client_of(server) as client:
        assert [number async for number in client.stream("count", to=200)] == list(range(200))
        assert [number async for number in client.stream("count", to=0)] == []


async def test_the_error_at_the_end_of_a_stream_comes_after_its_items(server: Server) -> None:
    async with client_of(server) as client:
        stream = client.stream("count", to=3, fail=True)
        assert [await anext(stream) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(NotFound, match="no more"):
            await anext(stream)


async def test_leaving_the_loop_cancels_the_stream(server: Server) -> None:
    async with client_of(server) as client:
        async for text in client.stream("endless", size=4_000):
            assert text == "x" * 4_000
            break
        await ended(client, "endless")
        ENDED.clear()
        async with aclosing(client.stream("endless", size=4_000)) as texts:
            assert await anext(texts) == "x" * 4_000
        await ended(client, "endless")


async def test_calls_go_on_beside_streams_and_between_their_items(server: Server) -> None:
    async with client_of(server, buffer=50_000) as client:  # reading pauses, but not during a call
        numbers = []
        async for number in client.stream("count", to=3_000):
            numbers.append(number)
            if number < 20:
                assert await client.call("echo", data=number) == number
    assert numbers == list(range(3_000))


async def test_reading_pauses_for_a_slow_consumer_and_nothing_is_lost(server: Server) -> None:
    async with client_of(server, buffer=2_000) as client:
        numbers = []
        async for number in client.stream("count", to=5_000):
            numbers.append(number)
            if number % 100 == 0:
                await asyncio.sleep(0)
    assert numbers == list(range(5_000))


async def test_a_stream_without_a_reader_ends_with_overflow() -> None:
    async with scripted() as server, client_at(server, buffer=100) as (client, peer):
        stream = client.stream("endless")
        first = asyncio.ensure_future(anext(stream))
        request = await peer.frame("endless")
        await peer.reply(request, 0, 206)
        assert await first == 0
        waiting = asyncio.create_task(client.call("echo"))  # a call in flight keeps the client reading
        echo = await peer.frame("echo")
        for number in range(1, 40):
            await peer.reply(request, number, 206)
        assert (await peer.frame("$cancel"))["data"] == request["request_id"]
        await peer.reply(echo, "read")
        assert await waiting == "read"
        assert [await anext(stream) for _ in range(10)] == list(range(1, 11))
        with pytest.raises(Overflow, match="over 1600 characters"):
            await rest_of(stream)


async def rest_of(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


async def test_a_timeout_bounds_the_first_item_only() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        stream = client.stream("tail", timeout=0.2)
        first = asyncio.ensure_future(anext(stream))
        request = await peer.frame("tail")
        await peer.reply(request, "one", 206)
        assert await first == "one"
        second = asyncio.ensure_future(anext(stream))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(second), 0.4)
        await peer.reply(request, "two", 206)
        assert await second == "two"
        await peer.reply(request)
        assert [item async for item in stream] == []
        with pytest.raises(CallTimeout, match=r"tail logs/: no reply in 0.1 s"):
            await anext(client.stream("tail", "logs/", timeout=0.1))
        assert (await peer.frame())["action"] == "tail"
        assert (await peer.frame())["action"] == "$cancel"


async def test_calling_a_stream_is_refused_and_streaming_a_call_works(server: Server) -> None:
    async with client_of(server) as client:
        with pytest.raises(UnexpectedReply, match=r"^count is a stream; iterate over client.stream"):
            await client.call("count", to=3)
        assert [item async for item in client.stream("echo", text="one")] == ["one"]


# -------------------------------------------------------------------------------------------------------- events
async def test_pushes_reach_all_event_iterators() -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        one, two = client.events(), client.events()
        await peer.event(None, {"text": "hello"}, route="", event="note")
        await peer.say(errors=[], data=3, action="shout", route="rooms/1/", status=200)
        expected = [Event("note", "", {"text": "hello"}), Event("shout", "rooms/1/", 3)]
        assert [await anext(one), await anext(one)] == expected == [await anext(two), await anext(two)]
    assert [event async for event in one] == []
    with pytest.raises(ConnectionFailed, match="the client is closed"):
        await client.call("echo")
    assert [event async for event in client.events()] == []


async def test_lost_events_are_reported_by_a_resync() -> None:
    async with scripted() as server, client_at(server, buffer=150) as (client, peer):
        events = client.events()
        for number in range(5):
            await peer.event(None, number, route="", event="note")
        answer = asyncio.create_task(client.call("echo"))
        await peer.reply(await peer.frame())
        await answer
        assert [await anext(events) for _ in range(4)] == [*(Event("note", "", n) for n in range(3)), Resync()]
        await peer.event(None, 9, route="", event="note")
        assert await anext(events) == Event("note", "", 9)
        peer.drop()
        peer = await server.accepted()
        assert await anext(events) == Resync()


async def test_an_iterator_has_one_consumer() -> None:
    async with scripted() as server, client_at(server) as (client, _):
        events = client.events()
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="it has one consumer"):
            await anext(events)
        first.cancel()


async def test_invalid_messages_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with scripted() as server, client_at(server) as (client, peer):
        await peer.socket.send("hello")
        await peer.socket.send("[1]")
        await peer.say(errors=[], data=None, action="$ping", route="", status=200)
        await peer.say(errors=[{"type": "x", "msg": "."}], data=None, action="a", route="", status=400)
        answer = asyncio.create_task(client.call("echo"))
        await peer.reply(await peer.frame("echo"), 1)
        assert await answer == 1
    assert "is not JSON: 'hello'" in caplog.text
    assert "neither a reply nor an event: '[1]'" in caplog.text


async def test_a_connection_that_is_lost_while_reading_pauses() -> None:
    async with scripted() as server, client_at(server, buffer=100, heartbeat=None) as (client, peer):
        stream = client.stream("tail")
        first = asyncio.ensure_future(anext(stream))
        request = await peer.frame("tail")
        for number in range(6):
            await peer.reply(request, number, 206)
        assert await first == 0
        peer.drop()
        await peer.socket.wait_closed()
        assert await anext(stream) == 1
        for _ in range(3):
            await client.send("note")  # an action that does not reply
        assert [await anext(stream) for _ in range(2)] == [2, 3]
        with pytest.raises(ConnectionLost):
            await rest_of(stream)


# ---------------------------------------------------------------------------------------------------- the parts
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_keys = st.sampled_from(["event", "status", "errors", "action", "route", "data", "offset", "request_id", "other"])
_items = st.lists(st.dictionaries(st.sampled_from(["type", "msg", "loc", "ctx"]), _json), max_size=3)
_messages = st.dictionaries(_keys, _json) | st.builds(
    lambda body, status, errors: {**body, "status": status, "errors": errors},
    st.dictionaries(_keys, _json), st.integers(0, 600), _items,
)  # fmt: skip


@settings(max_examples=50)
@given(message=_messages | _json)
def test_any_message_is_a_reply_an_event_or_refused(message: Any) -> None:
    try:
        result = read(json.dumps(message))
    except UnexpectedReply:
        return
    assert isinstance(result, Event | Reply)
    if isinstance(result, Event):
        assert result.event == message["event"]
    else:
        assert result.status == message["status"]
        assert (result.error is None) == (result.status < 400)
        if isinstance(result.error, Throttled):
            assert result.error.retry_after is None or isinstance(result.error.retry_after, float)


async def test_a_buffer_takes_nothing_after_its_end() -> None:
    buffer: Buffer[int] = Buffer()
    buffer.put(1, 10)
    buffer.end()
    buffer.end(ValueError())
    buffer.put(2, 10)
    assert (len(buffer), buffer.size, buffer.last, await buffer.get()) == (1, 10, 1, 1)
    with pytest.raises(StopAsyncIteration):
        await buffer.get()


async def test_reading_pauses_at_most_for_max_pause() -> None:
    flow, buffer = FlowControl(max_pause=0.01), object()
    flow.hold(buffer)
    assert flow.is_paused
    await flow.ready()
    assert not flow.is_paused
    flow.hold(buffer)
    flow.begin_call()
    await flow.ready()
    flow.end_call()
    waiting = asyncio.ensure_future(flow.ready())
    await asyncio.sleep(0)
    assert not waiting.done()
    flow.release(buffer)
    await waiting


async def test_a_lost_connection_refuses_calls() -> None:
    async with scripted() as server:
        socket = await open_socket(server.url, token=None, token_in_header=False, close_timeout=1, proxy=None)
        connection = Connection(socket, lambda event, size: None, 100, Pacer(1))
        await connection.close(1001, "away")
        assert connection.is_lost
        assert not connection.has_room(1)
        with pytest.raises(ConnectionLost, match="code 1001, 'closed by this client'"):
            await connection.call("echo", "", {})


# ---------------------------------------------------------------------------------------------------- use and misuse
async def test_a_client_is_entered_once(server: Server) -> None:
    client = client_of(server)
    with pytest.raises(RuntimeError, match="not connected; use it in `async with"):
        await client.call("echo")
    async with client:
        with pytest.raises(RuntimeError, match="entered before"):
            await client.__aenter__()
    with pytest.raises(RuntimeError, match="entered before"):
        await client.__aenter__()


async def test_nothing_is_left_running(server: Server) -> None:
    before = asyncio.all_tasks()
    async with client_of(server) as client:
        hanging = asyncio.create_task(client.call("hang"))
        await client.call("echo")
        assert len(asyncio.all_tasks()) > len(before) + 1
    with pytest.raises(ConnectionLost, match="closed by this client"):
        await hanging
    async with client_of(server):
        pass  # closes at once
    assert asyncio.all_tasks() == before


def test_a_frame_as_json() -> None:
    assert encode_request("move", "cards/7/", {"to": 2}, "a-1") == (
        '{"action":"move","route":"cards/7/","to":2,"request_id":"a-1"}'
    )
    assert encode_request("$ping", "", {}, None) == '{"action":"$ping"}'


def test_without_websockets_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("wsaction.client")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "websockets.asyncio.client", None)
    with pytest.raises(ImportError, match=r"pip install 'wsaction\[client\]'"):
        import wsaction.client  # noqa: F401


def test_every_error_is_a_client_error() -> None:
    import wsaction.client as package

    errors = [each for each in vars(package).values() if isinstance(each, type) and issubclass(each, Exception)]
    assert len(errors) == 19
    assert all(issubclass(each, ClientError) for each in errors)
