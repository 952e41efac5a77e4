"""`wsaction.dialects.dcrf`, message by message; `tests.slow.test_dcrf_client` runs the npm client against it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.support.driving import talking
from wsaction._events.plan import history
from wsaction.applications import WSAction
from wsaction.authentication import Credential, FirstFrameAuthentication
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.dialects.dcrf import DCRF, DCRFConversation
from wsaction.exceptions import ImproperlyConfigured, PermissionDenied, RouteNotFound
from wsaction.generics import ModelAPIActionHandler
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.querysets import MemoryQuerySet
from wsaction.routers import SimpleRouter
from wsaction.routing import path
from wsaction.serializers._errors import encode_error
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import WebSocketSession, connect

BY_RULE = DCRF()


class Card(BaseModel):
    id: int
    title: str = ""


class Echo(SubscribeMixin, AsyncAPIActionHandler):
    """A handler with a stream, pushes and custom events."""

    @async_action
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @async_action
    async def tell(self, event: str) -> str:
        await self.push(event, {"id": 7})
        await self.publish(event, "all")
        return self.route


@asynccontextmanager
async def served(dcrf: DCRF = BY_RULE, limits: Limits | None = None) -> AsyncIterator[WebSocketSession]:
    class Cards(SubscribeMixin, ModelAPIActionHandler):
        queryset = MemoryQuerySet(Card, rows=[Card(id=7)])
        serializer_class = Card
        pagination_class = None
        lookup_value_converter = "int"

    router = SimpleRouter()
    router.register("cards", Cards)

    class Both(AsyncAPIConsumer):
        dialect = dcrf
        routepatterns = (
            *router.urls,
            path("echo/", Echo.as_aaah()),
            path("", Echo.as_aaah()),
            path("<int:pk>/", Cards.as_aaah()),
        )

    async with talking(Both.as_asgi(), limits=limits) as ws:
        yield ws


async def ask(ws: WebSocketSession, stream: str, **payload: Any) -> dict[str, Any]:
    """Sends one request in the envelope and returns the payload of the next message."""
    await ws.send_json({"stream": stream, "payload": payload})
    return await receive_payload(ws, stream)


async def receive_payload(ws: WebSocketSession, stream: str) -> dict[str, Any]:
    message = await ws.receive_json()
    assert list(message) == ["stream", "payload"]
    assert message["stream"] == stream
    payload: dict[str, Any] = message["payload"]
    assert list(payload) == ["errors", "data", "action", "response_status", "request_id"]
    return payload


def answer(data: Any, action: str | None, status: int, request_id: Any) -> dict[str, Any]:
    return {"errors": [], "data": data, "action": action, "response_status": status, "request_id": request_id}


# ------------------------------------------------------------------------------------------------- requests, replies
@pytest.mark.parametrize(
    ("payload", "data", "status"),
    [
        ({"action": "list", "data": {}}, [{"id": 7, "title": ""}], 200),
        ({"action": "list", "pk": 9}, [{"id": 7, "title": ""}], 200),
        ({"action": "create", "data": {"id": 8}}, {"id": 8, "title": ""}, 201),
        ({"action": "retrieve", "pk": 7, "data": {}}, {"id": 7, "title": ""}, 200),
        ({"action": "retrieve", "pk": "7"}, {"id": 7, "title": ""}, 200),
        ({"action": "update", "pk": 7, "data": {"id": 7, "title": "new"}}, {"id": 7, "title": "new"}, 200),
        ({"action": "patch", "pk": 7, "data": {"title": "new"}}, {"id": 7, "title": "new"}, 200),
        ({"action": "delete", "pk": 7, "data": {}}, None, 204),
        ({"action": "subscribe_instance", "pk": 7}, None, 201),
        ({"action": "unsubscribe_instance", "pk": 7}, None, 204),
    ],
)
@pytest.mark.parametrize("request_id", [1, "1", None])
async def test_actions_are_answered_under_their_dcrf_names(
    payload: dict[str, Any], data: Any, status: int, request_id: Any
) -> None:
    async with served() as ws:
        reply = await ask(ws, "cards", **payload, request_id=request_id)
        assert reply == answer(data, payload["action"], status, request_id)
    async with served(DCRF({"": "cards/"})) as ws:
        await ws.send_json({**payload, "request_id": request_id})
        assert await ws.receive_json() == reply


async def test_a_reply_without_a_request_id_has_null() -> None:
    async with served() as ws:
        assert (await ask(ws, "cards", action="retrieve", pk=7))["request_id"] is None


@pytest.mark.parametrize(
    ("payload", "status", "type", "loc"),
    [
        ({"action": "retrieve", "pk": 404}, 404, "not_found", None),
        ({"action": "retrieve", "pk": "x"}, 404, "route_not_found", None),
        ({"action": "unknown"}, 405, "action_not_allowed", None),
        ({"action": "patch", "pk": 7, "data": {"title": 1}}, 400, "string_type", ["data", "title"]),
        ({}, 400, "invalid_frame", ["action"]),
        ({"action": 7}, 400, "invalid_frame", ["action"]),
        ({"action": "retrieve", "pk": 1.5}, 400, "invalid_frame", ["pk"]),
        ({"action": "retrieve", "pk": True}, 400, "invalid_frame", ["pk"]),
        ({"action": "retrieve", "pk": ""}, 400, "invalid_frame", ["pk"]),
        ({"action": "retrieve", "pk": "7/?x=1"}, 400, "invalid_frame", ["pk"]),
        ({"action": "retrieve", "pk": "7" * 3_000}, 400, "invalid_frame", None),
        ({"action": "create", "data": {"id": 7}}, 409, "conflict", None),
    ],
)
async def test_errors_are_replied_in_the_envelope_of_the_stream(
    payload: dict[str, Any], status: int, type: str, loc: list[str] | None
) -> None:
    async with served() as ws:
        reply = await ask(ws, "cards", **{"request_id": 1, **payload})
        (error,) = reply["errors"]
        assert (reply["response_status"], error["type"], error.get("loc")) == (status, type, loc)
        assert reply["data"] is None
        action = payload.get("action")
        assert reply["action"] == (action if isinstance(action, str) else None)
        assert reply["request_id"] == 1
        assert (await ask(ws, "cards", action="list"))["response_status"] == 200


@pytest.mark.parametrize(
    ("message", "stream", "type"),
    [
        ("nonsense", None, "invalid_json"),
        ("[]", None, "invalid_frame"),
        ('{"payload": {}}', None, "invalid_frame"),
        ('{"stream": "", "payload": {}}', None, "invalid_frame"),
        ('{"stream": "cards", "payload": []}', "cards", "invalid_frame"),
        ('{"stream": "cards", "payload": ' + '{"a":' * 80 + "1" + "}" * 81, "cards", "invalid_frame"),
    ],
)
async def test_invalid_messages_are_answered(message: str, stream: str | None, type: str) -> None:
    async with served() as ws:
        await ws.send_text(message)
        reply = await ws.receive_json() if stream is None else await receive_payload(ws, stream)
        assert (reply["response_status"], reply["errors"][0]["type"]) == (400, type)


async def test_an_unknown_stream_is_answered_in_its_envelope() -> None:
    async with served(DCRF({"tasks": "cards/"})) as ws:
        for stream in ("cards", "nowhere"):
            reply = await ask(ws, stream, action="list", request_id=1)
            assert (reply["response_status"], reply["errors"][0]["type"]) == (404, "route_not_found")
        assert (await ask(ws, "tasks", action="list"))["response_status"] == 200


async def test_ping_and_streamed_replies_work() -> None:
    async with served() as ws:
        assert await ask(ws, "echo", action="$ping", request_id=1) == answer(None, "$ping", 200, 1)
        assert await ask(ws, "echo", action="count", to=2, request_id=2) == answer(0, "count", 206, 2)
        assert await receive_payload(ws, "echo") == answer(1, "count", 206, 2)
        assert await receive_payload(ws, "echo") == answer(None, "count", 200, 2)


async def test_busy_cancelled_and_timeout_replies_have_the_envelope() -> None:
    class Waiting(AsyncAPIActionHandler):
        @async_action
        async def hang(self) -> None:
            await asyncio.Event().wait()

        @async_action
        async def endless(self) -> AsyncIterator[int]:
            yield 1
            await asyncio.Event().wait()

        @async_action(timeout=0.05)
        async def late(self) -> None:
            await asyncio.Event().wait()

    class Root(AsyncAPIConsumer):
        dialect = BY_RULE
        routepatterns = (path("w/", Waiting.as_aaah()),)

    def error(reply: dict[str, Any]) -> tuple[Any, ...]:
        return reply["action"], reply["response_status"], reply["errors"][0]["type"], reply["request_id"]

    async with talking(Root.as_asgi(), limits=Limits(max_queued_actions=1)) as ws:
        for request_id in ("a", "b"):
            await ws.send_json({"stream": "w", "payload": {"action": "hang", "request_id": request_id}})
        assert error(await ask(ws, "w", action="hang", request_id="c")) == ("hang", 503, "busy", "c")
        for request_id in ("b", "a"):
            cancelled = [
                await ask(ws, "w", action="$cancel", data=request_id, request_id="x"),
                await receive_payload(ws, "w"),
            ]
            assert answer(None, "$cancel", 200, "x") in cancelled
            assert ("hang", 499, "cancelled", request_id) in [error(reply) for reply in cancelled if reply["errors"]]
        assert await ask(ws, "w", action="endless", request_id="s") == answer(1, "endless", 206, "s")
        assert await ask(ws, "w", action="$cancel", data="s", request_id=1) == answer(None, "$cancel", 200, 1)
        assert error(await receive_payload(ws, "w")) == ("endless", 499, "cancelled", "s")
        unknown = await ask(ws, "w", action="$cancel", data="s", request_id=2)
        assert error(unknown) == ("$cancel", 404, "not_found", 2)
        assert error(await ask(ws, "w", action="late", request_id=3)) == ("late", 408, "action_timeout", 3)
        await ws.nothing()


@pytest.mark.parametrize("request_id", [1.5, True, [1], {"a": None}, "", 10**30])
async def test_a_request_id_may_be_any_json(request_id: Any) -> None:
    async with served() as ws:
        acknowledged = await ask(ws, "cards", action="subscribe_instance", pk=7, request_id=request_id)
        assert acknowledged == answer(None, "subscribe_instance", 201, request_id)
        assert type(acknowledged["request_id"]) is type(request_id)
        event = await ask(ws, "cards", action="patch", pk=7, data={}, request_id=request_id)
        assert event == answer({"id": 7, "title": ""}, "update", 200, request_id)
        assert await receive_payload(ws, "cards") == answer({"id": 7, "title": ""}, "patch", 200, request_id)
        assert (await ask(ws, "cards", action="nothing", request_id=request_id))["request_id"] == request_id
        await ws.nothing()


async def test_a_request_id_in_flight_may_be_reused() -> None:
    gate = asyncio.Event()

    class Waiting(AsyncAPIActionHandler):
        @async_action
        async def wait(self) -> Any:
            await gate.wait()
            return self.request_id

    class Root(AsyncAPIConsumer):
        dialect = BY_RULE
        routepatterns = (path("a/", Waiting.as_aaah()), path("b/", Waiting.as_aaah()))

    async with talking(Root.as_asgi()) as ws:
        for stream in ("a", "a", "b"):
            await ws.send_json({"stream": stream, "payload": {"action": "wait", "request_id": 1}})
        assert (await ask(ws, "b", action="$ping", request_id=1))["response_status"] == 200
        gate.set()
        messages = [await ws.receive_json() for _ in range(3)]
        assert sorted(message["stream"] for message in messages) == ["a", "a", "b"]
        assert [message["payload"] for message in messages] == [answer(1, "wait", 200, 1)] * 3
        await ws.nothing()


async def test_unauthenticated_requests_get_a_401_in_the_dialect() -> None:
    class Tokens(FirstFrameAuthentication):
        async def authenticate_data(self, data: Any) -> Credential | None:
            return Credential(user=data) if data == "ada" else None

    class Root(AsyncAPIConsumer):
        dialect = BY_RULE
        routepatterns = (path("echo/", Echo.as_aaah()),)

    app = WSAction([path("", Root.as_asgi())], authentication_classes=[Tokens])
    async with connect(app, "/") as ws:
        for payload in ({"action": "count"}, {"action": "nothing"}, {"action": "$auth", "data": "eve"}):
            reply = await ask(ws, "echo", **payload, request_id=1)
            assert (reply["response_status"], reply["errors"][0]["type"]) == (401, "not_authenticated")
        await ws.send_text("nonsense")
        assert (await ws.receive_json())["response_status"] == 401
        assert (await ask(ws, "echo", action="$auth", data="ada", request_id=2))["response_status"] == 200
        assert (await ask(ws, "echo", action="count", to=0, request_id=3))["response_status"] == 200


# ------------------------------------------------------------------------------------------------- events
async def test_each_subscription_gets_events_with_its_id_and_key() -> None:
    async with served() as ws:
        for request_id, pk in (("a", 7), ("b", "7"), (3, "07")):
            assert (await ask(ws, "cards", action="subscribe_instance", pk=pk, request_id=request_id))["data"] is None
        keys = {"a": 7, "b": "7", 3: "07"}
        event = await ask(ws, "cards", action="patch", pk=7, data={"title": "new"}, request_id="patch")
        for request_id, pk in keys.items():
            assert event == answer({"id": pk, "title": "new"}, "update", 200, request_id)
            event = await receive_payload(ws, "cards")
        assert event["request_id"] == "patch"
        event = await ask(ws, "cards", action="delete", pk=7, request_id="delete")
        for request_id, pk in keys.items():
            assert event == answer({"pk": pk}, "delete", 204, request_id)
            event = await receive_payload(ws, "cards")
        assert event["request_id"] == "delete"


async def test_the_acknowledgement_comes_before_the_events_of_its_id() -> None:
    class Asking(Echo):
        recheck = True

    class Root(AsyncAPIConsumer):
        dialect = BY_RULE
        routepatterns = (path("echo/", Asking.as_aaah()),)

    async with talking(Root.as_asgi()) as ws:
        await ask(ws, "echo", action="subscribe_instance", request_id="a")
        for payload in (
            {"action": "tell", "event": "early"},
            {"action": "subscribe_instance", "request_id": "b"},
            {"action": "tell", "event": "late"},
        ):
            await ws.send_json({"stream": "echo", "payload": payload})
        messages = [await receive_payload(ws, "echo") for _ in range(8)]
    assert [message["action"] for message in messages if message["request_id"] == "b"] == ["subscribe_instance", "late"]


async def test_a_list_can_be_subscribed_to_as_well() -> None:
    async with served() as ws:
        await ask(ws, "cards", action="subscribe_instance", request_id="all")
        event = await ask(ws, "cards", action="create", data={"id": 8}, request_id=1)
        assert event == answer({"id": 8, "title": ""}, "create", 201, "all")


async def test_check_subscription_may_require_the_object_to_exist() -> None:
    class Cards(SubscribeMixin, ModelAPIActionHandler):
        queryset = MemoryQuerySet(Card, rows=[Card(id=7)])
        serializer_class = Card

    class Existing(Cards):
        async def check_subscription(self) -> None:
            await self.get_object()

    class Root(AsyncAPIConsumer):
        dialect = BY_RULE
        routepatterns = (path("any/<int:pk>/", Cards.as_aaah()), path("existing/<int:pk>/", Existing.as_aaah()))

    async with talking(Root.as_asgi()) as ws:
        for stream, pk, status in (("any", 9, 201), ("existing", 7, 201), ("existing", 9, 404)):
            reply = await ask(ws, stream, action="subscribe_instance", pk=pk, request_id=1)
            assert reply["response_status"] == status


async def test_unsubscribing_ends_the_events() -> None:
    async with served() as ws:
        await ask(ws, "cards", action="subscribe_instance", pk=7, request_id="a")
        assert await ask(ws, "cards", action="unsubscribe_instance", pk=7, request_id="a") == answer(
            None, "unsubscribe_instance", 204, "a"
        )
        assert (await ask(ws, "cards", action="patch", pk=7, data={}, request_id=1))["request_id"] == 1


async def test_other_events_and_pushes_keep_their_names() -> None:
    async with served() as ws:
        await ws.send_json({"action": "tell", "event": "moved"})
        assert await ws.receive_json() == answer({"id": 7}, "moved", 200, None)
        assert await ws.receive_json() == answer("", "tell", 200, None)
        await ask(ws, "echo", action="subscribe_instance", request_id="a")
        assert await ask(ws, "echo", action="tell", event="moved", request_id=1) == answer({"id": 7}, "moved", 200, "a")
        assert await receive_payload(ws, "echo") == answer("all", "moved", 200, "a")
        assert await receive_payload(ws, "echo") == answer("echo/", "tell", 200, 1)


async def test_a_push_without_subscription_has_its_routes_stream() -> None:
    async with served() as ws:
        assert await ask(ws, "echo", action="tell", event="moved") == answer({"id": 7}, "moved", 200, None)


async def test_subscriptions_are_limited_by_request_id_too() -> None:
    async with served(limits=Limits(max_subscriptions=2)) as ws:
        for request_id in (1, 2):
            await ask(ws, "cards", action="subscribe_instance", pk=7, request_id=request_id)
        reply = await ask(ws, "cards", action="subscribe_instance", pk=7, request_id=3)
        assert (reply["response_status"], reply["errors"][0]["ctx"]) == (
            503,
            {"limit": "max_subscriptions", "value": 2},
        )


async def test_pending_subscriptions_count_toward_the_limit() -> None:
    gate = asyncio.Event()

    class Waiting(Echo):
        async def check_subscription(self) -> None:
            await gate.wait()
            if self.request_id == 1:
                raise PermissionDenied

    class Root(AsyncAPIConsumer):
        dialect = BY_RULE
        routepatterns = (path("echo/", Waiting.as_aaah()),)

    async with talking(Root.as_asgi(), limits=Limits(max_subscriptions=2)) as ws:
        for request_id in range(4):
            payload = {"action": "subscribe_instance", "request_id": request_id}
            await ws.send_json({"stream": "echo", "payload": payload})
        assert [(await receive_payload(ws, "echo"))["response_status"] for _ in range(2)] == [503, 503]
        gate.set()
        assert [(await receive_payload(ws, "echo"))["response_status"] for _ in range(2)] == [201, 403]
        for request_id, status in ((4, 201), (5, 503)):
            reply = await ask(ws, "echo", action="subscribe_instance", request_id=request_id)
            assert reply["response_status"] == status


async def test_lost_events_close_the_connection_with_1012() -> None:
    class Losing(SubscribeMixin, AsyncAPIActionHandler):
        @async_action
        async def lose(self) -> None:
            await self.app.runtime.hub.invalidate(self.get_topic(), history(type(self)))

    class Root(AsyncAPIConsumer):
        dialect = BY_RULE
        routepatterns = (path("echo/", Losing.as_aaah()),)

    app = WSAction([path("", Root.as_asgi())])
    async with connect(app, "/") as ws, connect(app, "/") as other:
        assert (await ask(ws, "echo", action="subscribe_instance", request_id=1))["response_status"] == 201
        assert (await ask(other, "echo", action="lose"))["response_status"] == 200
        assert await ws.wait_closed() == (1012, "events were lost; connect again")
        assert (await ask(other, "echo", action="lose"))["response_status"] == 200


def test_a_subscription_ended_by_the_server_is_forgotten() -> None:
    conversation = DCRFConversation(DCRF())
    frame = conversation.read(
        '{"stream":"cards","payload":{"action":"subscribe_instance","pk":7,"request_id":1}}', Limits()
    )
    frame.key = "cards/7/"
    text = '{"errors":[],"data":{},"action":"subscribe","route":"cards/7/","status":200,"request_id":1}'
    reply = conversation.reply(frame, text)
    updated = '{"event":"updated","route":"cards/7/","data":null,"offset":1}'
    assert reply.then is not None
    reply.then()
    (event,) = conversation.event(updated) or ()
    assert event.endswith('"request_id":1}}')
    assert conversation.event('{"event":"$position","route":"cards/7/","data":{"epoch":"","offset":2}}') == ()
    assert (
        conversation.event('{"event":"$unsubscribed","route":"cards/7/","data":{"reason":"permission_denied"}}') == ()
    )
    (event,) = conversation.event(updated) or ()
    assert event.endswith('"request_id":null}}')


# ------------------------------------------------------------------------------------------------- streams
def test_streams_map_to_the_beginning_of_routes() -> None:
    by_rule, by_name = BY_RULE, DCRF({"cards": "v1/cards/", "v1": "v1/", "": "bare/"})
    assert (by_rule.route("cards", None), by_rule.route("cards", "7"), by_rule.route(None, "7")) == (
        "cards/",
        "cards/7/",
        "7/",
    )
    assert (by_rule.stream("cards/7/"), by_rule.stream("")) == ("cards", None)
    assert (by_name.route("cards", "7"), by_name.route(None, None)) == ("v1/cards/7/", "bare/")
    assert [by_name.stream(route) for route in ("v1/cards/7/", "v1/x/", "bare/7/", "x/")] == ["cards", "v1", None, None]
    with pytest.raises(RouteNotFound):
        by_name.route("nowhere", None)


@pytest.mark.parametrize("streams", [{"cards": "/cards/"}, {"cards": None}, {7: "cards/"}])
def test_invalid_streams_are_refused(streams: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="streams maps each stream to the beginning"):
        DCRF(streams)


@given(st.text() | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x)))
def test_any_key_is_a_route_of_the_stream_or_refused(key: Any) -> None:
    text = json.dumps({"stream": "cards", "payload": {"action": "retrieve", "pk": key, "request_id": 1}})
    frame = DCRFConversation(DCRF()).read(text, Limits())
    assert frame.error is not None or frame.route.startswith("cards/")
    assert frame.route.count("/") <= 2
    assert "?" not in frame.route


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda one: st.lists(one) | st.dictionaries(st.text() | st.sampled_from(["action", "pk", "request_id"]), one),
    max_leaves=8,
)
PAYLOADS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("action", "pk", "data", "request_id", "stream", "payload", "route"), ANYTHING)
)
MESSAGES = ANYTHING | PAYLOADS | st.fixed_dictionaries({"stream": ANYTHING, "payload": PAYLOADS | ANYTHING})


@given(MESSAGES.map(json.dumps) | st.text() | st.none(), st.sampled_from([BY_RULE, DCRF({"": "", "a": "b/"})]))
def test_any_message_is_a_frame_or_gets_an_error_reply(text: str | None, dcrf: DCRF) -> None:
    conversation = DCRFConversation(dcrf)
    frame = conversation.read(text, Limits())
    reply = json.loads(conversation.reply(frame, encode_error(frame, frame.error or RouteNotFound())))
    if "payload" in reply:
        assert list(reply) == ["stream", "payload"]
        reply = reply["payload"]
    assert list(reply) == ["errors", "data", "action", "response_status", "request_id"]
    assert reply["response_status"] >= 400
    assert (reply["action"], reply["request_id"]) == (frame.body.action, frame.body.get("request_id"))
