"""`wsaction._pubsub.fanout`: order, slices, bounds, and recipients that fail."""

import asyncio
from collections import deque
from typing import Any

import pytest

from wsaction._pubsub import fanout as fanouts
from wsaction._pubsub.fanout import Fanout, JobQueue
from wsaction._utils.tasks import Tasks


class FakeRecipient:
    def __init__(self, log: list[tuple[int, Any]], number: int) -> None:
        self.take = lambda event: log.append((number, event))


class Clock:
    """A clock that advances by ``step`` seconds at each reading."""

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


async def emptied(*lanes: JobQueue) -> None:
    while any(lanes):  # noqa: ASYNC110  # turns of the loop are what is counted
        await asyncio.sleep(0)


async def test_a_quick_fanout_is_sent_at_once() -> None:
    log: list[tuple[int, Any]] = []
    recipients = [FakeRecipient(log, number) for number in range(1_000)]
    quick, turns = fanout(0.00001)
    lane: JobQueue = deque()
    quick.send(lane, "a", recipients)
    quick.send(lane, "b", recipients[:3])
    assert log == [(number, "a") for number in range(1_000)] + [(number, "b") for number in range(3)]
    assert (turns, lane) == ([], deque())


async def test_a_slow_fanout_is_sent_in_slices_and_in_order() -> None:
    log: list[tuple[int, Any]] = []
    recipients = [FakeRecipient(log, number) for number in range(300)]
    slow, turns = fanout(0.01)
    lane, other = deque(), deque()  # type: JobQueue, JobQueue
    for event in "abc":
        slow.send(lane, event, recipients)
    slow.send(other, "other", recipients)
    assert len(log) == 2 * fanouts.CHUNK
    slow.send(lane, "d", recipients[:1])
    assert (0, "d") not in log  # although it is small, it waits behind the others
    await slow.catch_up(lane)
    await emptied(lane, other)
    assert len(turns) >= 15
    for number in range(300):
        assert [event for recipient, event in log if recipient == number and event != "other"] == list(
            "abc" + "d" * (number == 0)
        )
    assert [recipient for recipient, event in log if event == "other"] == list(range(300))
    first_other = next(at for at, (_, event) in enumerate(log) if event == "other")
    assert first_other < 300  # lanes take turns
    slow.send(lane, "e", recipients)  # an empty fanout starts again
    await emptied(lane)
    assert log[-1] == (299, "e")


async def test_a_publisher_waits_for_slow_recipients() -> None:
    log: list[tuple[int, Any]] = []
    recipients = [FakeRecipient(log, number) for number in range(200)]
    slow, _ = fanout(0.01)
    lane: JobQueue = deque()
    for event in range(20):
        slow.send(lane, event, recipients)
        await slow.catch_up(lane)
        assert len(lane) <= fanouts.HIGH_WATER


async def test_the_jobs_of_a_lane_are_bounded() -> None:
    log: list[tuple[int, Any]] = []
    recipients = [FakeRecipient(log, number) for number in range(200)]
    slow, _ = fanout(0.01, max_jobs=5)
    lane: JobQueue = deque()
    for event in range(20):
        slow.send(lane, event, recipients)
        assert len(lane) <= 5
    assert [event for recipient, event in log if recipient == 199] == list(range(15))
    await emptied(lane)
    assert [event for recipient, event in log if recipient == 7] == list(range(20))


async def test_a_failing_recipient_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    log: list[tuple[int, Any]] = []
    recipients = [FakeRecipient(log, number) for number in range(3)]
    recipients[1].take = lambda event: 1 // 0  # type: ignore[assignment]
    quick, _ = fanout(0.0)
    quick.send(deque(), "a", recipients)
    assert log == [(0, "a"), (2, "a")]
    assert "an event could not be sent to a subscriber" in caplog.text
