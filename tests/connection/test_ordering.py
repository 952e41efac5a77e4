"""`wsaction._connection.ordering`: the order in which frames run."""

import random
from typing import Any

import pytest

from wsaction._connection.ordering import Lanes
from wsaction._protocol.frames import Frame, new_frame
from wsaction.limits import Limits


def frame(key: str | None = None, request_id: Any = None, action: str = "act") -> Frame:
    one = new_frame({}, action, "", request_id)
    one.key = key
    return one


def admit(one: Lanes, each: Frame) -> bool:
    return one.admit(each, 10)


def lanes(**limits: Any) -> Lanes:
    return Lanes(Limits(**limits))


def is_empty(one: Lanes) -> bool:
    return not (one.under_way or one._lanes or one._ids or one._ready or one._waiting or one._bytes)


def test_frames_of_one_key_wait_for_each_other_and_others_do_not() -> None:
    one = lanes()
    first, second, other, free = frame("a"), frame("a"), frame("b"), frame(None)
    one.start(first)
    assert [admit(one, each) for each in (second, other, free)] == [False, True, True]
    assert one.start_next() is None
    one.finish(first)
    assert one.start_next() is second
    one.finish(second)
    assert is_empty(one)


def test_beyond_max_concurrency_all_wait_in_turn() -> None:
    one = lanes(max_concurrency=1)
    first, *others = [frame(key) for key in ("a", "b", None, "b")]
    one.start(first)
    assert [admit(one, each) for each in others] == [False] * 3
    order = [first]
    while order[-1] is not None:
        one.finish(order[-1])
        order.append(one.start_next())  # type: ignore[arg-type]
    assert order == [first, others[0], others[1], others[2], None]
    assert is_empty(one)


def test_where_ids_need_not_be_unique_the_first_is_found() -> None:
    one = lanes()
    one.unique_ids = False
    first, second, third = frame("a", 1), frame("a", 1), frame("b", 1)
    one.start(first)
    assert [admit(one, each) for each in (second, third)] == [False, True]
    one.start(third)
    assert one.find(1) is first
    for each in (first, third):
        one.finish(each)
    assert one.start_next() is second
    assert one.find(1) is second
    one.finish(second)
    assert is_empty(one)


def test_beyond_max_queued_actions_the_error_names_the_limit() -> None:
    one = lanes(max_queued_actions=1)
    one.start(frame("a"))
    assert not admit(one, frame("a"))
    refused = frame("a")
    assert admit(one, refused)
    assert refused.error is not None
    assert (refused.error.status, refused.error.ctx) == (503, {"limit": "max_queued_actions", "value": 1})
    assert refused.key is None  # it is answered at once and blocks no other frame


def test_beyond_max_queued_bytes_too_unless_nothing_else_waits() -> None:
    one = lanes(max_queued_bytes=100)
    first = frame("a")
    one.start(first)
    large, small, refused = frame("a"), frame("a"), frame("a")
    assert not one.admit(large, 1_000)  # max_frame_bytes bounds a single frame
    assert one.admit(refused, 1)
    assert refused.error is not None
    assert refused.error.ctx == {"limit": "max_queued_bytes", "value": 100}
    one.finish(first)
    assert one.start_next() is large
    assert not one.admit(small, 60)
    assert one.admit(frame("a"), 60)
    one.withdraw(small)
    one.finish(large)
    assert is_empty(one)


@pytest.mark.parametrize("waits", [False, True])
def test_an_id_that_is_in_flight_is_refused_by_type_and_value(waits: bool) -> None:
    one = lanes(max_concurrency=1)
    first = frame("a", "other" if waits else 1)
    one.start(first)
    if waits:
        admit(one, frame("a", 1))
    same, text = frame("b", 1), frame("c", "1")
    assert admit(one, same)
    assert same.error is not None
    assert (same.error.status, same.error.type) == (409, "duplicate_request_id")
    assert not admit(one, text)
    assert text.error is None
    assert one.find("1") is text


def test_protocol_actions_and_frames_with_an_error_do_not_wait() -> None:
    one = lanes(max_concurrency=1, max_queued_actions=1)
    one.start(frame("a"))
    admit(one, frame("a"))
    assert admit(one, frame(None, action="$ping"))
    bad = frame("a")
    bad.error = ValueError()  # type: ignore[assignment]
    assert admit(one, bad)


def test_what_is_withdrawn_does_not_run() -> None:
    one = lanes(max_concurrency=1)
    first, in_lane, ready, behind_ready = frame("a", 1), frame("a", 2), frame("b", 3), frame("b", 4)
    one.start(first)
    for each in (in_lane, ready, behind_ready):
        assert not admit(one, each)
    assert not one.withdraw(first)  # it is running
    assert one.withdraw(in_lane)
    assert one.withdraw(ready)
    assert not one.withdraw(ready)
    assert [one.find(each) for each in (2, 3)] == [None, None]
    one.finish(first)
    assert one.start_next() is behind_ready
    one.finish(behind_ready)
    assert is_empty(one)


def test_all_that_wait_are_withdrawn_in_order() -> None:
    one = lanes(max_concurrency=1)
    first, *waiting = [frame(key, number) for number, key in enumerate("aababb")]
    one.start(first)
    for each in waiting:
        assert not admit(one, each)
    gone = [each.request_id for each in one.withdraw_all()]
    assert sorted(gone) == [1, 2, 3, 4, 5]  # type: ignore[type-var]
    assert [each for each in gone if each in (1, 3)] == [1, 3]
    assert [each for each in gone if each in (2, 4, 5)] == [2, 4, 5]
    assert one.withdraw_all() == []
    one.finish(first)
    assert one.start_next() is None
    assert is_empty(one)


def test_a_released_frame_keeps_its_place_but_blocks_no_other() -> None:
    one = lanes(max_concurrency=2)
    stubborn, behind, third = frame("a", 1), frame("a", 2), frame("c", 1)
    one.start(stubborn)
    admit(one, behind)
    one.release(stubborn)
    assert one.start_next() is behind
    assert not admit(one, third)  # two are still running, but the id is free
    assert third.error is None
    one.finish(stubborn)
    assert one.start_next() is third


@pytest.mark.parametrize("seed", range(50))
def test_random_frames_keep_order_and_bounds_and_leave_nothing(seed: int) -> None:
    rng = random.Random(seed)
    most, queue = rng.randrange(1, 4), rng.randrange(1, 8)
    one, begun, came = lanes(max_concurrency=most, max_queued_actions=queue), [], []
    for number in range(200):
        if rng.random() < 0.6:
            each = frame(rng.choice(["a", "b", "c", None]), number)
            key = each.key
            if not one.under_way or admit(one, each):
                if each.error is None:
                    one.start(each)
                    begun.append((key, number))
                    came.append((key, number))
            else:
                came.append((key, number))
        elif one.under_way:
            done = rng.choice(sorted(one.under_way, key=lambda each: each.request_id))  # type: ignore[arg-type,return-value]
            one.finish(done)
            while (each := one.start_next()) is not None:
                begun.append((each.key, each.request_id))
        assert len(one.under_way) <= most
        assert one._waiting <= queue
        keys = [each.key for each in one.under_way if each.key is not None]
        assert len(keys) == len(set(keys))
    while one.under_way:
        one.finish(next(iter(one.under_way)))
        while (each := one.start_next()) is not None:
            begun.append((each.key, each.request_id))
    assert is_empty(one)
    for key in "abc":
        assert [number for each, number in begun if each == key] == [number for each, number in came if each == key]
    assert sorted(begun, key=str) == sorted(came, key=str)
