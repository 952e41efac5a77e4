"""`wsaction._protocol.frames`: valid and invalid frames, what errors echo, and the exact text of replies."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsaction._handlers.route_table import Call as RealCall
from wsaction._protocol.frames import Frame, NotAwaited, decode, encode_reply, new_frame, reply_tail
from wsaction.exceptions import APIError, Busy, InvalidFrame, NotFound
from wsaction.limits import Limits
from wsaction.serializers._errors import encode_error

LIMITS = Limits()
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def decoded(value: Any, limits: Limits = LIMITS) -> Frame:
    return decode(json.dumps(value), limits)


def error_of(frame: Frame) -> dict[str, Any]:
    assert frame.error is not None
    assert frame.error.status == 400
    (item,) = frame.error.errors
    return item


# ------------------------------------------------------------------------------------------------- decode
@pytest.mark.parametrize(
    ("text", "action", "route", "request_id"),
    [
        ('{"action":"list"}', "list", "", None),
        ('{"action":"list","request_id":7}', "list", "", 7),
        ('{"action":"list","request_id":"7"}', "list", "", "7"),
        ('{"action":"list","request_id":""}', "list", "", ""),
        ('{"action":"list","request_id":0}', "list", "", 0),
        ('{"action":"list","request_id":-123456789012345678901234567890}', "list", "", -123456789012345678901234567890),
        ('{"action":"","route":""}', "", "", None),
        ('{"action":"$x","route":"b/7/?page=4"}', "$x", "b/7/?page=4", None),
        (' \r\n\t{"route":"r","action":"a"} ', "a", "r", None),
        ('{"action":"a","action":"b"}', "b", "", None),
        ('{"action":"caf\\u00e9 \u20ac \\ud83d\\ude00"}', "café € 😀", "", None),
    ],
)
def test_a_frame_is_read(text: str, action: str, route: str, request_id: Any) -> None:
    frame = decode(text, LIMITS)
    assert frame.error is None
    assert (frame.action, frame.route, frame.request_id) == (action, route, request_id)
    assert type(frame.request_id) is type(request_id)
    assert frame.body == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "nonsense",
        "{",
        '{"action":"a"',
        '{"action":"a"}{}',
        "{'action':'a'}",
        '{"action":NaN}',
        "NaN",
        '{"action":"a","x":Infinity}',
        '{"action":"a","x":-Infinity}',
        '{"action":"a",}',
        "\ufeff{}",
        '{"action":"\\ud800"}',
        '{"action":"\ud800"}',
        '{"action":"a\n"}',
        '{"action":"a","x":01}',
        '{"action":"a","request_id":' + "9" * 5_000 + "}",
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_what_is_no_json_is_told_so_and_nothing_is_echoed(text: str) -> None:
    frame = decode(text, LIMITS)
    item = error_of(frame)
    assert item["type"] == "invalid_json"
    assert item["msg"].startswith("A frame is one JSON object: ")
    assert (frame.action, frame.route, frame.request_id) == (None, "", None)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000], ids=["arrays", "objects"])
def test_what_is_deeper_than_the_parser_goes_is_told_the_bound(text: str) -> None:
    assert error_of(decode(text, LIMITS)) == {
        "type": "invalid_frame",
        "msg": "Its arrays and objects are nested too deep; max_json_depth is 64.",
        "ctx": {"limit": "max_json_depth", "value": 64},
    }


def test_a_binary_message_is_told_so() -> None:
    assert error_of(decode(None, LIMITS)) == {
        "type": "invalid_frame",
        "msg": "A frame is a text message, not a binary one.",
    }


@pytest.mark.parametrize(
    ("value", "name"),
    [(None, "null"), (True, "a boolean"), (1, "a number"), (1.5, "a number"), ("a", "a string"), ([], "an array")],
)
def test_json_that_is_no_object_is_told_what_it_is(value: Any, name: str) -> None:
    frame = decoded(value)
    assert error_of(frame) == {"type": "invalid_frame", "msg": f"A frame is a JSON object, not {name}."}
    assert (frame.action, frame.route, frame.request_id) == (None, "", None)


WRONG: list[tuple[str, Any, str]] = [
    ("action", "absent", "action is a string; it is missing."),
    ("action", None, "action is a string, not null."),
    ("action", 5, "action is a string, not a number."),
    ("action", ["a"], "action is a string, not an array."),
    ("route", None, "route is a string, or absent, not null."),
    ("route", 5, "route is a string, or absent, not a number."),
    ("route", {}, "route is a string, or absent, not an object."),
    ("request_id", None, "request_id is a string or an integer, or absent, not null."),
    ("request_id", True, "request_id is a string or an integer, or absent, not a boolean."),
    ("request_id", 1.0, "request_id is a string or an integer, or absent, not a number."),
    ("request_id", [7], "request_id is a string or an integer, or absent, not an array."),
]


@pytest.mark.parametrize(("key", "value", "msg"), WRONG, ids=[f"{key}={value}" for key, value, _ in WRONG])
def test_an_envelope_error_has_its_loc_and_the_rest_is_echoed(key: str, value: Any, msg: str) -> None:
    good: dict[str, Any] = {"action": "list", "route": "b/?q", "request_id": 7}
    body = {**good, key: value}
    if value == "absent":
        del body[key]
    frame = decoded(body)
    assert error_of(frame) == {"type": "invalid_frame", "msg": msg, "loc": [key]}
    echoed = {**good, key: {"action": None, "route": "", "request_id": None}[key]}
    assert (frame.action, frame.route, frame.request_id) == tuple(echoed.values())


def test_of_several_faults_the_first_is_told() -> None:
    assert error_of(decoded({"action": 1, "route": 2, "request_id": 3.5}))["loc"] == ["action"]
    assert error_of(decoded({"action": "a", "route": 2, "request_id": 3.5}))["loc"] == ["route"]


@pytest.mark.parametrize("most", [1, 10, 2_048])
def test_the_bound_on_the_route_is_exact_and_counts_characters(most: int) -> None:
    limits = Limits(max_route_length=most)
    assert decoded({"action": "a", "route": "é" * most}, limits).error is None
    frame = decoded({"action": "a", "route": "é" * (most + 1), "request_id": 7}, limits)
    assert error_of(frame) == {
        "type": "invalid_frame",
        "msg": f"The route has {most + 1} characters; max_route_length is {most}.",
        "loc": ["route"],
        "ctx": {"limit": "max_route_length", "value": most},
    }
    assert (frame.action, frame.route, frame.request_id) == ("a", "é" * (most + 1), 7)


def nested(depth: int, open_: str, close: str) -> str:
    """A frame with arrays or objects nested ``depth`` deep, itself included."""
    return f'{{"action":"a","request_id":7,"data":{open_ * (depth - 1)}1{close * (depth - 1)}}}'


@pytest.mark.parametrize("kind", [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("most", [3, 64, 199])
def test_the_bound_on_depth_is_exact(most: int, kind: tuple[str, str]) -> None:
    limits = Limits(max_json_depth=most)
    assert decode(nested(most, *kind), limits).error is None
    frame = decode(nested(most + 1, *kind), limits)
    assert error_of(frame) == {
        "type": "invalid_frame",
        "msg": f"Its arrays and objects are nested too deep; max_json_depth is {most}.",
        "ctx": {"limit": "max_json_depth", "value": most},
    }
    assert (frame.action, frame.request_id) == ("a", 7)


def test_a_frame_of_depth_one_is_the_least() -> None:
    limits = Limits(max_json_depth=1)
    assert decoded({"action": "a", "x": 1}, limits).error is None
    assert decoded({"action": "a", "x": []}, limits).error is not None


def test_brackets_in_strings_and_sibling_arrays_are_not_depth() -> None:
    limits = Limits(max_json_depth=2)
    assert decoded({"action": "[" * 500, "x": [], "y": {}, "z": ["{{{{"]}, limits).error is None


@given(JSON, st.integers(1, 6))
def test_depth_is_what_it_is_by_definition(value: Any, most: int) -> None:
    def depth(value: Any) -> int:
        if not isinstance(value, dict | list):
            return 0
        return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)

    frame = decoded({"action": "a", "data": value}, Limits(max_json_depth=most))
    assert (frame.error is None) == (1 + depth(value) <= most)


# ------------------------------------------------------------------------------------------------- encode
@pytest.mark.parametrize(
    ("action", "route", "status", "request_id", "wanted"),
    [
        ("list", "", 200, None, '"action":"list","route":"","status":200'),
        ("list", "", 200, 7, '"action":"list","route":"","status":200,"request_id":7'),
        ("a", "b/7/?x=1", 201, "7", '"action":"a","route":"b/7/?x=1","status":201,"request_id":"7"'),
        ("a", "", 200, 0, '"action":"a","route":"","status":200,"request_id":0'),
        ("a", "", 200, "", '"action":"a","route":"","status":200,"request_id":""'),
        ("a", "", 200, -(10**30), f'"action":"a","route":"","status":200,"request_id":-1{"0" * 30}'),
        ('é"\\\n', "€😀", 200, "ü\0", r'"action":"é\"\\\n","route":"€😀","status":200,"request_id":"ü\u0000"'),
    ],
)
def test_a_reply_byte_for_byte(action: str, route: str, status: int, request_id: Any, wanted: str) -> None:
    reply = encode_reply(reply_tail(action, route), "[1]", status, request_id)
    assert reply == f'{{"errors":[],"data":[1],{wanted}}}'
    assert type(json.loads(reply).get("request_id")) is type(request_id)


@pytest.mark.parametrize(
    ("frame", "error", "item", "wanted"),
    [
        (new_frame({}, None, "", None), NotFound("m"), '"type":"not_found","msg":"m"', 'null,"route":"","status":404'),
        (
            new_frame({}, "é", "€", "ü"),
            NotFound("ß"),
            '"type":"not_found","msg":"ß"',
            '"é","route":"€","status":404,"request_id":"ü"',
        ),
        (
            new_frame({}, "a", "", 7),
            Busy("m", {"limit": "x", "nan": math.nan}, loc=("a", 1)),
            '"type":"busy","msg":"m","loc":["a",1],"ctx":{"limit":"x","nan":null}',
            '"a","route":"","status":503,"request_id":7',
        ),
        (
            new_frame({}, "a", "", 10**30),
            APIError(418, "t", "m"),
            '"type":"t","msg":"m"',
            f'"a","route":"","status":418,"request_id":1{"0" * 30}',
        ),
    ],
)
def test_an_error_reply_byte_for_byte(frame: Frame, error: APIError, item: str, wanted: str) -> None:
    assert encode_error(frame, error) == f'{{"errors":[{{{item}}}],"data":null,"action":{wanted}}}'


@given(TEXT, TEXT.filter(lambda route: len(route) <= 2_048), JSON, st.none() | TEXT | st.integers())
def test_what_is_decoded_is_what_a_reply_echoes(action: str, route: str, data: Any, request_id: Any) -> None:
    body = {"action": action, "route": route, "data": data}
    if request_id is not None:
        body["request_id"] = request_id
    frame = decoded(body)
    assert frame.error is None
    assert frame.action is not None
    text = json.dumps(frame.body["data"], ensure_ascii=False)
    reply = json.loads(encode_reply(reply_tail(frame.action, frame.route), text, 200, frame.request_id))
    assert list(reply) == [
        "errors",
        "data",
        "action",
        "route",
        "status",
        *(["request_id"] if "request_id" in body else []),
    ]
    assert reply == {"errors": [], **body, "status": 200}
    assert type(reply.get("request_id")) is type(request_id)
    error = json.loads(encode_error(frame, NotFound("m")))
    assert error == {**body, "errors": [{"type": "not_found", "msg": "m"}], "data": None, "status": 404}
    assert decode(json.dumps(reply), LIMITS).body == reply  # a reply can be read as a frame


@given(st.text())
def test_any_text_is_a_frame_or_an_error_that_can_be_encoded(text: str) -> None:
    frame = decode(text, LIMITS)
    if frame.error is not None:
        reply = encode_error(frame, frame.error)
        assert json.loads(reply)["status"] == 400
        reply.encode()


@given(JSON)
def test_any_json_is_a_frame_or_an_error_with_the_readable_keys(value: Any) -> None:
    frame = decoded(value)
    body = value if isinstance(value, dict) else {}
    action, route, request_id = body.get("action"), body.get("route"), body.get("request_id")
    assert frame.action == (action if isinstance(action, str) else None)
    assert frame.route == (route if isinstance(route, str) else "")
    assert frame.request_id == (request_id if type(request_id) in (str, int) else None)


# ------------------------------------------------------------------------------------------------- captures and keys
class Captured:
    name = None
    args = ()
    query = ""

    def __init__(self, **captures: Any) -> None:
        self.captures = captures


def test_permission_keywords_are_the_captures_over_the_frames_keys() -> None:
    frame = decoded({"action": "a", "pk": 1, "scope": {}, "self": 1, "handler": 2, "obj": 3, "x": 2})
    frame.call = Captured(pk=7, obj=4)
    assert frame.keywords() == {"pk": 7, "x": 2}
    assert frame.body["scope"] == {}


def test_the_kwargs_of_a_frame_are_its_own() -> None:
    captures = Captured(pk=7)
    first, second = decoded({"action": "a"}), decoded({"action": "a"})
    first.call = second.call = captures
    first.kwargs["pk"] = 8
    assert first.kwargs == {"pk": 8}
    assert second.kwargs == captures.captures == {"pk": 7}


def test_the_dispatchers_call_is_one() -> None:
    assert {"name", "args", "captures", "query"} <= set(RealCall.__slots__)


def test_a_check_fails_the_frame_until_it_is_awaited() -> None:
    frame = new_frame({}, "list", "", None)
    frame.begin_check("first")
    frame.begin_check("second")
    assert (type(frame.error), frame.is_refused) == (NotAwaited, False)
    frame.end_check("first")
    assert str(frame.error).startswith("second() is awaited by nobody")
    frame.end_check("second")
    assert frame.error is None
    frame.fail(InvalidFrame("cancelled"))
    frame.begin_check("third")
    frame.end_check("third")
    assert (type(frame.error), frame.is_refused) == (InvalidFrame, True)


def test_a_refused_frame_loses_its_key_and_a_failed_one_keeps_it() -> None:
    frame = new_frame({}, "list", "", None)
    frame.key = "cards/"
    frame.fail(InvalidFrame("too late"))
    assert frame.key == "cards/"
    frame.refuse(InvalidFrame("at once"))
    assert frame.key is None
