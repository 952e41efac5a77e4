"""`wsaction.dialects.base`: how a connection chooses its dialect, and a custom dialect."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from wsaction._protocol.frames import Frame, new_frame, read_object, refused
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.dialects.base import SUBPROTOCOL, Worded
from wsaction.dialects.dcrf import DCRF
from wsaction.exceptions import ImproperlyConfigured, PermissionDenied
from wsaction.limits import Limits
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import ConnectionClosed, connect


class JSONRPC:
    """The part of JSON-RPC 2.0 that these tests need."""

    subprotocol = "jsonrpc"

    def converse(self) -> "JSONRPC":
        return self  # it keeps no state for a connection

    def read(self, text: str | None, limits: Limits) -> Frame:
        request, error = read_object(text, limits)
        if error is not None:
            return refused({}, error)
        body = {**request.get("params", {}), "action": request.get("method")}
        return new_frame(body, request.get("method"), "", request.get("id"))

    def reply(self, frame: Frame, text: str) -> Worded:
        reply = json.loads(text)
        outcome = {"error": reply["errors"][0]} if reply["errors"] else {"result": reply["data"]}
        return Worded(json.dumps({"jsonrpc": "2.0", "id": frame.request_id, **outcome}))

    def event(self, text: str) -> Iterator[Worded]:
        event = json.loads(text)
        yield Worded(json.dumps({"jsonrpc": "2.0", "method": event["event"], "params": event["data"]}))

    def subscribed(self, route: str, frame: Frame, most: int) -> None:
        """Nothing to do: its events have no id."""

    def unsubscribed(self, route: str) -> None:
        """Nothing to do: it keeps no subscriptions."""


class Speaking(SubscribeMixin, AsyncAPIConsumer):
    dialect = DCRF()
    dialects = (JSONRPC(),)

    @async_action
    async def echo(self, text: str) -> str:
        return text

    @async_action
    async def count(self, to: int) -> Any:
        for number in range(to):
            yield number

    @async_action
    async def tell(self) -> None:
        await self.publish("told", 1)
        await self.connection.send("sent as it is")
        self.connection.put("put as it is")


APP = WSAction([path("ws/", Speaking.as_asgi())])
PAYLOAD = {"action": "echo", "text": "hello", "request_id": 1}
REPLY = {"errors": [], "data": "hello", "action": "echo", "route": "", "status": 200, "request_id": 1}
BARE = {"errors": [], "data": "hello", "action": "echo", "response_status": 200, "request_id": 1}
CALL, RESULT = {"jsonrpc": "2.0", "method": "echo", "params": {"text": "hello"}, "id": 1}, "hello"


@pytest.mark.parametrize(
    ("offered", "chosen", "sent", "answered"),
    [
        ([], None, PAYLOAD, BARE),
        (["graphql-ws", "bearer.token"], None, PAYLOAD, BARE),
        (["dcrf"], "dcrf", PAYLOAD, BARE),
        ([SUBPROTOCOL], SUBPROTOCOL, PAYLOAD, REPLY),
        (["jsonrpc", SUBPROTOCOL], "jsonrpc", CALL, {"jsonrpc": "2.0", "id": 1, "result": "hello"}),
        ([SUBPROTOCOL, "jsonrpc"], SUBPROTOCOL, PAYLOAD, REPLY),
    ],
)
async def test_the_first_known_subprotocol_chooses_the_dialect(
    offered: list[str], chosen: str | None, sent: dict[str, Any], answered: dict[str, Any]
) -> None:
    async with connect(APP, "/ws/", subprotocols=offered) as ws:
        assert ws.subprotocol == chosen
        await ws.send_json(sent)
        assert await ws.receive_json() == answered


async def test_a_dialect_writes_replies_streams_and_events() -> None:
    async with connect(APP, "/ws/", subprotocols=["jsonrpc"]) as ws:
        for call, answers in (
            ({"method": "count", "params": {"to": 2}, "id": 1}, [{"id": 1, "result": data} for data in (0, 1, None)]),
            ({"method": "nothing", "id": 2}, [{"id": 2, "error": {"type": "action_not_allowed"}}]),
        ):
            await ws.send_json(call)
            for answer in answers:
                message = await ws.receive_json()
                assert message.pop("jsonrpc") == "2.0"
                if "error" in message:
                    del message["error"]["msg"]
                assert message == answer
        await ws.send_json({"method": "subscribe", "id": 3})
        assert (await ws.receive_json())["result"]["recovered"] is None
        await ws.send_json({"method": "tell", "id": 4})
        assert await ws.receive_json() == {"jsonrpc": "2.0", "method": "told", "params": 1}
        assert await ws.receive_text() == "sent as it is"
        assert await ws.receive_text() == "put as it is"
        assert (await ws.receive_json())["id"] == 4
        await ws.send_text("nonsense")
        assert (await ws.receive_json())["error"]["type"] == "invalid_json"


async def test_messages_sent_on_connect_are_not_replies() -> None:
    class Greeting(AsyncAPIConsumer):
        dialect = DCRF()

        async def connect(self) -> None:
            await self.connection.send('{"errors":[],"greeting":true}')
            self.connection.put('{"event":"greeted","route":"","data":1}')

    async with connect(WSAction([path("", Greeting.as_asgi())]), "/") as ws:
        assert await ws.receive_json() == {"errors": [], "greeting": True}
        assert (await ws.receive_json())["action"] == "greeted"


async def test_an_accepted_refusal_has_the_chosen_subprotocol() -> None:
    class Refusing(AsyncAPIConsumer):
        dialects = (DCRF(),)

        async def connect(self) -> None:
            raise PermissionDenied

    app = WSAction([path("", Refusing.as_asgi())], accept_refused=True)
    async with connect(app, "/", subprotocols=["dcrf"]) as ws:
        assert ws.subprotocol == "dcrf"
        with pytest.raises(ConnectionClosed) as closed:
            await ws.receive()
        assert closed.value.code == 4403


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"dialect": DCRF}, "a dialect is an object, as in dialect = DCRF\\(\\), not <class"),
        ({"dialect": "dcrf"}, "a dialect is an object"),
        ({"dialects": DCRF()}, "dialects: expected a sequence"),
        ({"dialects": ("dcrf",)}, "a dialect is an object"),
        ({"dialect": DCRF(), "dialects": (DCRF({}),)}, "two dialects have the sub-protocol 'dcrf'"),
        ({"dialects": (DCRF(subprotocol=SUBPROTOCOL),)}, "two dialects have the sub-protocol 'wsaction.v1'"),
    ],
)
def test_invalid_dialects_are_refused_when_mounted(attributes: dict[str, Any], message: str) -> None:
    kind: Any = type("Wrong", (AsyncAPIConsumer,), attributes)
    with pytest.raises(ImproperlyConfigured, match=f"Wrong.*{message}"):
        kind.as_asgi()
