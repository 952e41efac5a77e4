"""`wsaction._pubsub.fanout`: order, slices, and what becomes of one who cannot be told."""

import asyncio
from collections import deque
from typing import Any

import pytest

from wsaction._pubsub import fanout as fanouts
from wsaction._pubsub.fanout import Fanout, Lane
from wsaction._utils.tasks import Tasks


class Someone:
    def __init__(self, log: list[tuple[int, Any]], number: int) -> None:
        self.take = lambda what: log.append((number, what))


class Clock:
    """Every look at it takes ``step`` seconds."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def fanout(step: float, **options: int) -> tuple[Fanout, list[int]]:
    turns: list[int] = []

    async def turn() -> None:
        turns.append(1)
        await asyncio.sleep(0)

    return Fanout(Tasks(), turn, Clock(step), **options), turns


async def emptied(*lanes: Lane) -> None:
    while any(lanes):  # noqa: ASYNC110  # turns of the loop are what is counted
        await asyncio.sleep(0)


async def test_what_is_cheap_is_told_at_once() -> None:
    log: list[tuple[int, Any]] = []
    some = [Someone(log, number) for number in range(1_000)]
    quick, turns = fanout(0.00001)
    lane: Lane = deque()
    quick.send(lane, "a", some)
    quick.send(lane, "b", some[:3])
    assert log == [(number, "a") for number in range(1_000)] + [(number, "b") for number in range(3)]
    assert (turns, lane) == ([], deque())


async def test_what_is_dear_is_told_in_slices_and_in_order() -> None:
    log: list[tuple[int, Any]] = []
    some = [Someone(log, number) for number in range(300)]
    slow, turns = fanout(0.01)
    lane, other = deque(), deque()  # type: Lane, Lane
    for what in "abc":
        slow.send(lane, what, some)
    slow.send(other, "other", some)
    assert len(log) == 2 * fanouts.CHUNK
    slow.send(lane, "d", some[:1])
    assert (0, "d") not in log  # though it is only one, it waits behind the others
    await slow.catch_up(lane)
    await emptied(lane, other)
    assert len(turns) >= 15
    for number in range(300):
        assert [what for one, what in log if one == number and what != "other"] == list("abc" + "d" * (number == 0))
    assert [one for one, what in log if what == "other"] == list(range(300))
    first_other = next(at for at, (_, what) in enumerate(log) if what == "other")
    assert first_other < 300  # lanes take turns
    slow.send(lane, "e", some)  # it starts again
    await emptied(lane)
    assert log[-1] == (299, "e")


async def test_who_publishes_waits_for_those_who_are_told() -> None:
    log: list[tuple[int, Any]] = []
    some = [Someone(log, number) for number in range(200)]
    slow, _ = fanout(0.01)
    lane: Lane = deque()
    for what in range(20):
        slow.send(lane, what, some)
        await slow.catch_up(lane)
        assert len(lane) <= fanouts.MAX_UNTOLD


async def test_a_lane_is_bounded() -> None:
    log: list[tuple[int, Any]] = []
    some = [Someone(log, number) for number in range(200)]
    slow, _ = fanout(0.01, max_jobs=5)
    lane: Lane = deque()
    for what in range(20):
        slow.send(lane, what, some)
        assert len(lane) <= 5
    assert [what for one, what in log if one == 199] == list(range(15))
    await emptied(lane)
    assert [what for one, what in log if one == 7] == list(range(20))


async def test_one_who_cannot_be_told_does_not_keep_the_others_from_it(caplog: pytest.LogCaptureFixture) -> None:
    log: list[tuple[int, Any]] = []
    some = [Someone(log, number) for number in range(3)]
    some[1].take = lambda what: 1 // 0  # type: ignore[assignment]
    quick, _ = fanout(0.0)
    quick.send(deque(), "a", some)
    assert log == [(0, "a"), (2, "a")]
    assert "a subscriber could not be told an event" in caplog.text
