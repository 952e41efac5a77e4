"""Any message gets exactly one reply or a documented close code, and the connection stays usable."""

import asyncio
import json
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from tests.support.driving import talking
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.permissions import BasePermission
from wsaction.routing import path, re_path
from wsaction.testing import WebSocketSession

REPLY = ["errors", "data", "action", "route", "status"]


class Curious(BasePermission):
    """Takes all keys of a frame as keyword arguments."""

    def has_permission(self, scope: Any, handler: Any, action: str, x: Any = None, **kwargs: Any) -> bool:
        return not isinstance(x, str) or x != "refuse"


class Card(BaseModel):
    title: str
    tags: set[int] = set()
    more: "Card | None" = None


class Handler(AsyncAPIActionHandler):
    permission_classes = (Curious,)

    @async_action
    async def typed(self, pk: int, data: Card, n: Annotated[int, Field(ge=0)] = 0) -> Card:
        return data

    @async_action
    async def loose(self, *args: Any, **kwargs: Any) -> Any:
        return [self.kwargs, args, kwargs]

    @async_action
    def threaded(self, data: Any = None, **kwargs: Any) -> Any:
        return data


class Consumer(AsyncAPIConsumer):
    permission_classes = (Curious,)
    routepatterns = [path("c/<int:pk>/", Handler.as_aaah()), re_path(r"^r/(\w*)$", Handler.as_aaah())]

    @async_action
    async def echo(self, data: Any = None, **kwargs: Any) -> Any:
        return [data, kwargs]

    @async_action
    async def suspend(self, data: Any = None) -> Any:
        await asyncio.sleep(0)
        return data


VIEW = Consumer.as_asgi()


async def sane(ws: WebSocketSession, n: int) -> None:
    """Checks that the connection answers a valid frame, and sends nothing before that reply."""
    await ws.send_json({"action": "echo", "data": n, "request_id": f"good {n}"})
    assert await ws.receive_json() == {
        "errors": [],
        "data": [n, {"request_id": f"good {n}", "action": "echo"}],
        "action": "echo",
        "route": "",
        "status": 200,
        "request_id": f"good {n}",
    }


async def one_reply(ws: WebSocketSession, message: str | bytes, n: int) -> dict[str, Any]:
    """The reply to a message; checks that it is the only one and well-formed."""
    await (ws.send_bytes(message) if isinstance(message, bytes) else ws.send_text(message))
    text = await ws.receive_text()
    text.encode()
    reply: dict[str, Any] = json.loads(text, parse_constant=pytest.fail)
    keys = list(reply)
    assert keys == REPLY or keys == [*REPLY, "request_id"]
    assert type(reply["status"]) is int
    assert 200 <= reply["status"] <= 599
    assert isinstance(reply["route"], str)
    assert bool(reply["errors"]) == (reply["status"] >= 400)
    for error in reply["errors"]:
        assert {"type", "msg"} <= set(error) <= {"type", "msg", "loc", "ctx"}
    if reply["errors"]:
        assert reply["data"] is None
    await sane(ws, n)
    return reply


def frame(**keys: Any) -> str:
    return json.dumps({"action": "echo", **keys})


def nested(depth: int) -> str:
    return f'{{"action":"echo","data":{"[" * depth}{"]" * depth}}}'


KEYS = dict.fromkeys(
    ["self", "scope", "handler", "obj", "cls", "args", "kwargs", "frame", "function", "__class__", "__init__", "", "é"],
    1,
)

DEEP = "[" * 100_000 + "]" * 100_000
MANY_KEYS = json.dumps({"action": "echo", **{f"key{n}": n for n in range(10_000)}})

# A message, the status of its reply, and the type of its first error.
TABLE: dict[str, tuple[str | bytes, int, str | None]] = {
    "nothing": ("", 400, "invalid_json"),
    "space": (" \n", 400, "invalid_json"),
    "not JSON": ("hello", 400, "invalid_json"),
    "cut off": ('{"action":"echo"', 400, "invalid_json"),
    "two": (frame() + frame(), 400, "invalid_json"),
    "null": ("null", 400, "invalid_frame"),
    "true": ("true", 400, "invalid_frame"),
    "number": ("5", 400, "invalid_frame"),
    "huge number": ("9" * 5_000, 400, "invalid_json"),
    "1e999": ("1e999", 400, "invalid_frame"),
    "NaN": ("NaN", 400, "invalid_json"),
    "string": ('"a"', 400, "invalid_frame"),
    "array": ("[]", 400, "invalid_frame"),
    "array of frames": (f"[{frame()}]", 400, "invalid_frame"),
    "object": ("{}", 400, "invalid_frame"),
    "binary": (b"\x00\xff", 400, "invalid_frame"),
    "binary frame": (frame().encode(), 400, "invalid_frame"),
    "no bytes": (b"", 400, "invalid_frame"),
    "NUL": ("\0", 400, "invalid_json"),
    "BOM": ("\ufeff" + frame(), 400, "invalid_json"),
    "depth 65,000": ("[" * 65_000, 400, "invalid_frame"),
    "objects in depth": ('{"a":' * 13_000, 400, "invalid_frame"),
    "as deep as may be": (nested(63), 200, None),
    "one deeper": (nested(64), 400, "invalid_frame"),
    "deeper than the parser": (nested(1_000), 400, "invalid_frame"),
    "keys": (json.dumps({"action": "echo", **{f"k{n}": n for n in range(3_500)}}), 200, None),
    "NaN within": ('{"action":"echo","data":NaN}', 400, "invalid_json"),
    "infinity by overflow": ('{"action":"echo","data":1e999}', 200, None),
    "huge integer": ('{"action":"echo","data":' + "9" * 4_000 + "}", 200, None),
    "larger integer": ('{"action":"echo","data":' + "9" * 5_000 + "}", 400, "invalid_json"),
    "huge request_id": ('{"action":"echo","request_id":' + "9" * 4_000 + "}", 200, None),
    "duplicate keys": ('{"action":"lost","action":"echo"}', 200, None),
    "duplicate data": ('{"action":"echo","data":1,"data":2}', 200, None),
    "lone surrogate escaped": ('{"action":"echo","data":"\\ud800"}', 400, "invalid_json"),
    "lone surrogate": ('{"action":"echo","data":"\ud800"}', 400, "invalid_json"),
    "surrogates paired": ('{"action":"echo","data":"\\ud83d\\ude00"}', 200, None),
    "hostile keys": (frame(**KEYS), 200, None),
    "hostile keys in data": (frame(data=KEYS), 200, None),
    "hostile keys where typed": (frame(route="c/7/", **{**KEYS, "action": "typed", "data": {"title": "t"}}), 200, None),
    "hostile keys in a thread": (frame(route="c/7/", **{**KEYS, "action": "threaded"}), 200, None),
    "hostile keys and args": (frame(route="r/a", **{**KEYS, "action": "loose"}), 200, None),
    "refused by a key": (frame(x="refuse"), 403, "permission_denied"),
    "action null": (frame(action=None), 400, "invalid_frame"),
    "action number": (frame(action=5), 400, "invalid_frame"),
    "action empty": (frame(action=""), 405, "action_not_allowed"),
    "action of the protocol": (frame(action="$cancel"), 400, "missing"),
    "action of nobody's": (frame(action="$nothing"), 405, "action_not_allowed"),
    "action dunder": (frame(action="__init__"), 405, "action_not_allowed"),
    "action long": (frame(action="a" * 60_000), 405, "action_not_allowed"),
    "route number": (frame(route=5), 400, "invalid_frame"),
    "route null": (frame(route=None), 400, "invalid_frame"),
    "route long": (frame(route="r" * 2_049), 400, "invalid_frame"),
    "route lost": (frame(route="r" * 2_048), 404, "route_not_found"),
    "route NUL": (frame(route="\0"), 404, "route_not_found"),
    "route huge int": (frame(route="c/" + "9" * 2_000 + "/", action="loose"), 200, None),
    "request_id null": (frame(request_id=None), 400, "invalid_frame"),
    "request_id true": (frame(request_id=True), 400, "invalid_frame"),
    "request_id float": (frame(request_id=1.0), 400, "invalid_frame"),
    "request_id object": (frame(request_id={}), 400, "invalid_frame"),
    "data wrong": (frame(action="typed", route="c/7/", data=[]), 400, "model_type"),
    "data in depth wrong": (
        frame(action="typed", route="c/7/", data={"title": "t", "more": {"tags": 1}}),
        400,
        "missing",
    ),
    "data missing": (frame(action="typed", route="c/7/"), 400, "missing"),
    "larger than may be sent back": (frame(data="\0" * 9_000), 500, "reply_too_large"),
}


@pytest.mark.parametrize("debug", [False, True], ids=["production", "debug"])
@pytest.mark.parametrize("name", TABLE)
async def test_each_gets_its_one_reply(name: str, debug: bool) -> None:
    message, status, type_ = TABLE[name]
    limits = Limits(max_outbox_bytes=50_000 if type_ == "reply_too_large" else 1_048_576)
    async with talking(VIEW, debug=debug, limits=limits) as ws:
        reply = await one_reply(ws, message, 1)
    assert reply["status"] == status
    assert [error["type"] for error in reply["errors"]][:1] == ([] if type_ is None else [type_])


@pytest.mark.parametrize("debug", [False, True], ids=["production", "debug"])
async def test_all_of_them_on_one_connection(debug: bool) -> None:
    async with talking(VIEW, debug=debug) as ws:
        for n, (message, status, type_) in enumerate(TABLE.values()):
            reply = await one_reply(ws, message, n)
            assert reply["status"] == status or type_ == "reply_too_large"


@pytest.mark.parametrize(
    ("message", "size"),
    [
        ("x" * 65_537, 65_537),
        ("é" * 32_769, 65_538),
        ("😀" * 16_385, 65_540),
        ("\ud800" * 21_846, 65_538),
        (b"\xff" * 65_537, 65_537),
        (DEEP, 200_000),
        (MANY_KEYS, len(MANY_KEYS)),
    ],
    ids=["ascii", "two bytes", "four bytes", "surrogates", "binary", "depth", "keys"],
)
async def test_what_is_too_large_closes_1009(message: str | bytes, size: int) -> None:
    async with talking(VIEW) as ws:
        await sane(ws, 0)
        await (ws.send_bytes(message) if isinstance(message, bytes) else ws.send_text(message))
        assert await ws.wait_closed() == (1009, f"a frame of {size} bytes; max_frame_bytes is 65536")


@pytest.mark.parametrize(
    "message", ["x" * 65_536, "é" * 32_768, b"\xff" * 65_536], ids=["ascii", "two bytes", "binary"]
)
async def test_what_is_just_not_too_large_is_answered(message: str | bytes) -> None:
    async with talking(VIEW) as ws:
        assert (await one_reply(ws, message, 1))["status"] == 400


async def test_with_a_larger_bound_depth_and_keys_are_no_danger() -> None:
    async with talking(VIEW, limits=Limits(max_frame_bytes=1_000_000)) as ws:
        assert (await one_reply(ws, DEEP, 1))["status"] == 400
        assert (await one_reply(ws, '{"a":' * 100_000 + "1" + "}" * 100_000, 2))["status"] == 400
        reply = await one_reply(ws, MANY_KEYS, 3)
        assert len(reply["data"][1]) == 10_001


# ------------------------------------------------------------------------------------------------- Hypothesis
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from([*KEYS, "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)
ACTIONS = st.sampled_from([*Consumer.available_actions, *Handler.available_actions]) | st.text()
ROUTES = st.sampled_from(["", "c/7/", "c/07/?q", "r/", "r/é", "?", "lost"]) | st.text()
FRAMES = st.fixed_dictionaries(
    {"action": ACTIONS},
    optional={
        "route": ROUTES,
        "data": JSON | st.fixed_dictionaries({"title": JSON}, optional={"tags": JSON, "more": JSON}),
        "request_id": st.text() | st.integers() | JSON,
        **dict.fromkeys([*KEYS, "x", "n", "pk"], JSON),
    },
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A frame with parts removed, repeated or replaced."""
    text = json.dumps(draw(FRAMES), ensure_ascii=draw(st.booleans()))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 10)))
        new = draw(
            st.sampled_from(["", text[start:end] * 2, "\\", '"', "{", "}", "[", "]", ",", ":", "null", "1", "\0"])
        )
        text = text[:start] + new + text[end:]
    return text


MESSAGES = (
    st.text()
    | st.text(st.characters())  # includes surrogates
    | st.binary()
    | FRAMES.map(json.dumps)
    | FRAMES.map(lambda frame: json.dumps(frame, ensure_ascii=False))
    | FRAMES.map(lambda frame: json.dumps(frame).encode())
    | JSON.map(json.dumps)
    | mutated()
)


@pytest.mark.parametrize("debug", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["production", "debug"])
@settings(max_examples=50, deadline=None)
@given(messages=st.lists(MESSAGES, min_size=1, max_size=8))
def test_any_message_gets_its_one_reply(messages: list[str | bytes], debug: bool) -> None:
    async def main() -> None:
        async with talking(VIEW, debug=debug) as ws:
            for n, message in enumerate(messages):
                await one_reply(ws, message, n)

    asyncio.run(main())
