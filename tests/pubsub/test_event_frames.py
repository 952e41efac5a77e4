"""`wsaction._protocol.event_frames`: bodies of events, their frames, and notices."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsaction._protocol.event_frames import encode_body, encode_event, encode_notice, event_name, is_body
from wsaction._pubsub.event import Event
from wsaction.layers.base import Position

TEXT = st.text(st.characters(codec="utf-8"))
DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)
TEXT = st.text(st.characters(codec="utf-8"))


CARRIED = st.none() | st.dictionaries(st.sampled_from(["traceparent", "tracestate"]) | TEXT, TEXT, max_size=3)


@given(TEXT, TEXT, DATA, st.integers(0, 2**53), DATA, st.none() | TEXT, CARRIED)
def test_an_event_survives_encoding_and_decoding(
    event: str, route: str, data: Any, offset: int, subject: Any, excludes: str | None, carried: dict[str, str] | None
) -> None:
    text = encode_event(event, route, json.dumps(data))
    body = encode_body(text, excludes, json.dumps(subject), carried)
    assert is_body(body)
    assert event_name(text) == event_name(text.encode()) == event
    decoded = Event(offset, body)
    added = {"offset": offset} if offset else {}
    if carried and "traceparent" in carried:
        added["traceparent"] = carried["traceparent"]
    assert json.loads(decoded.frame) == {"event": event, "route": route, "data": data, **added} == decoded.message
    assert event_name(decoded.frame) == event
    assert decoded.carried == (carried or {})
    assert (decoded.subject, decoded.excluded_name) == (subject, excludes)
    assert len(decoded.frame.encode()) <= decoded.size


def test_event_frames_have_the_keys_and_order_of_the_protocol() -> None:
    body = encode_body(encode_event("moved", "boards/7/", '{"to":3}'))
    assert Event(0, body).frame == '{"event":"moved","route":"boards/7/","data":{"to":3}}'
    assert Event(7, body).frame == '{"event":"moved","route":"boards/7/","data":{"to":3},"offset":7}'
    notice = encode_notice("$resync", "boards/7/", Position("k3", 7))
    assert notice == '{"event":"$resync","route":"boards/7/","data":{"epoch":"k3","offset":7}}'


def test_private_fields_are_not_in_the_frame() -> None:
    event = Event(7, encode_body(encode_event("a", "r", "1"), "me", '{"owner":3}'))
    assert event.frame == '{"event":"a","route":"r","data":1,"offset":7}'
    assert event.subject == {"owner": 3}
    assert event.message is event.message


def test_a_replacement_frame_has_the_same_offset() -> None:
    event = Event(7, encode_body(encode_event("updated", "r", "1")))
    assert (
        event.with_offset(encode_event("deleted", "r", "null"))
        == '{"event":"deleted","route":"r","data":null,"offset":7}'
    )


def test_a_delivery_replaces_the_traceparent_in_every_frame_of_an_event() -> None:
    event = Event(7, encode_body(encode_event("a", "r", "1"), carried={"traceparent": "sent", "tracestate": "a=1"}))
    assert event.frame == '{"event":"a","route":"r","data":1,"offset":7,"traceparent":"sent"}'
    event.carry({"traceparent": "delivered"})
    assert event.frame == '{"event":"a","route":"r","data":1,"offset":7,"traceparent":"delivered"}'
    assert event.frame_for("other/") == '{"event":"a","route":"other/","data":1,"offset":7,"traceparent":"delivered"}'
    deleted = event.with_offset(encode_event("deleted", "r", "null"))
    assert deleted == '{"event":"deleted","route":"r","data":null,"offset":7,"traceparent":"delivered"}'
    assert len(event.frame) <= event.size <= len(event.frame) + 30


@pytest.mark.parametrize("carried", ['["traceparent"]', '"traceparent"', "7", '{"traceparent":7}', "null"])
def test_what_a_layer_carries_may_be_anything(carried: str) -> None:
    body = f'{{"event":"a","route":"r","data":1}}\n{{"carried":{carried}}}'.encode()
    assert Event(0, body).frame == '{"event":"a","route":"r","data":1}'


def test_a_frame_in_another_order_has_no_name() -> None:
    assert [event_name(text) for text in ('{"event":1,"route":""}', '{"event":"a"}', '{"event":', "")] == [""] * 4


@pytest.mark.parametrize(
    "text", ["", "[]", '{"event":1', '{"status":200}', b'{"event":"\xff"}', '{"event":\n1}', ' {"event":1}']
)
def test_text_that_is_not_an_event_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"an event is|codec can't decode"):
        encode_body(text)


def test_a_subject_must_be_json() -> None:
    with pytest.raises(ValueError, match="at line 1"):
        encode_body(encode_event("a", "r", "1"), None, "nope")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"event":1}', True),
        (b'{"event":1}\n{"excludes":null}', True),
        (b'{"event":1}\n[]', False),
        (b'{"event":1}\n{', False),
        (b'{"event":}', False),
        (b'{"event":NaN}', False),
        (b'{"event":"\xff"}', False),
        (b'{"event":1}}', False),
        (b'{"event":' + b"[" * 5_000 + b"]" * 5_000 + b"}", False),
        (b'{"other":1}', False),
        (b"", False),
        (b"\n", False),
    ],
)
def test_is_body_recognises_malformed_bodies(body: bytes, expected: bool) -> None:
    assert is_body(body) is expected


@given(st.binary(max_size=40))
def test_is_body_never_raises(tail: bytes) -> None:
    for body in (tail, b'{"event":' + tail, b'{"event":' + tail + b"}", b'{"event":1}\n' + tail):
        if is_body(body):
            assert Event(1, body).frame
