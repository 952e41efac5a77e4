"""`wsaction._connection.flusher`: one task for many outboxes, in which a slow client delays no other."""

import asyncio
import logging
from typing import Any

import pytest

from wsaction._connection.flusher import OUTBOXES_IN_A_ROW, Flusher
from wsaction._protocol.frames import current_frame, new_frame

WAIT = 5.0


class Box:
    """An outbox whose sends wait until ``reads`` is set."""

    def __init__(self, name: int, order: list[int], *, reads: bool = True, fails: BaseException | None = None) -> None:
        self.name, self.order, self.fails = name, order, fails
        self.reads, self.adopted, self.emptied = asyncio.Event(), asyncio.Event(), asyncio.Event()
        if reads:
            self.reads.set()
        self.task: asyncio.Task[None] | None = None
        self.failures = self.paused = 0
        self.message: str | None = "message"
        self.raised: BaseException | None = None
        self.frame: object = "unset"

    def next(self) -> str | None:
        self.frame = current_frame.get()
        message, self.message = self.message, None
        if message == "broken":
            raise ZeroDivisionError
        if message is None:
            self.order.append(self.name)
            self.emptied.set()
        return message

    async def asgi_send(self, message: Any) -> None:
        assert message == {"type": "websocket.send", "text": "message"}
        await self.reads.wait()
        if self.fails is not None:
            raise self.fails

    def on_send_error(self, exc: BaseException) -> None:
        self.raised = exc
        self.emptied.set()

    def pause(self) -> None:
        self.paused += 1

    def adopt(self, task: "asyncio.Task[None]") -> None:
        self.task = task
        self.adopted.set()

    def close_after_failed_send(self) -> None:
        self.failures += 1
        self.emptied.set()


async def emptied(*boxes: Box) -> None:
    async with asyncio.timeout(WAIT):
        for box in boxes:
            await box.emptied.wait()


async def test_they_are_emptied_in_order_by_one_task() -> None:
    order: list[int] = []
    flusher, before = Flusher(), asyncio.all_tasks()
    boxes = [Box(number, order) for number in range(3 * OUTBOXES_IN_A_ROW)]
    for box in boxes:
        flusher.add(box)
    assert len(asyncio.all_tasks() - before) == 1
    await emptied(*boxes)
    assert order == list(range(3 * OUTBOXES_IN_A_ROW))
    assert not any(box.task for box in boxes)
    again = Box(1_000, order)
    flusher.add(again)
    await emptied(again)


async def test_one_that_waits_keeps_its_task_and_the_others_go_on() -> None:
    order: list[int] = []
    flusher = Flusher()
    stuck, another, *others = [Box(number, order, reads=number > 1) for number in range(10)]
    for box in (stuck, another, *others):
        flusher.add(box)
    await emptied(*others)
    assert order == [box.name for box in others]
    assert stuck.task is not None
    assert another.task not in (None, stuck.task)
    stuck.reads.set()
    await asyncio.wait_for(stuck.task, WAIT)
    another.task.cancel()  # as its connection does when it ends
    await asyncio.wait({another.task}, timeout=WAIT)
    assert order[-1] == stuck.name
    last = Box(100, order)
    flusher.add(last)
    await emptied(last)


async def test_the_last_one_may_wait_too() -> None:
    order: list[int] = []
    flusher, only = Flusher(), Box(0, order, reads=False)
    flusher.add(only)
    await asyncio.wait_for(only.adopted.wait(), WAIT)
    later = Box(1, order)
    flusher.add(later)
    await emptied(later)
    only.reads.set()
    await emptied(only)
    assert order == [1, 0]


async def test_a_failing_outbox_is_notified_and_logged_and_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    flusher, broken, other = Flusher(), Box(0, []), Box(1, [])
    broken.message = "broken"
    flusher.add(broken)
    flusher.add(other)
    await emptied(other, broken)
    assert (broken.failures, broken.paused) == (1, 1)
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]


@pytest.mark.parametrize(
    "exc",
    [ConnectionResetError(), RuntimeError("Cannot call send once closed"), ValueError("no"), asyncio.CancelledError()],
    ids=lambda exc: type(exc).__name__,
)
@pytest.mark.parametrize("reads", [True, False])
async def test_one_whose_send_raises_is_told_and_the_others_go_on(exc: BaseException, reads: bool) -> None:
    order: list[int] = []
    flusher, broken, other = Flusher(), Box(0, order, fails=exc, reads=reads), Box(1, order)
    flusher.add(broken)
    flusher.add(other)
    await emptied(other)
    broken.reads.set()
    await emptied(broken)
    assert (broken.raised, broken.failures, order) == (exc, 0, [1])


async def test_one_whose_send_is_cancelled_is_told_that_it_failed() -> None:
    flusher, box = Flusher(), Box(0, [], reads=False)
    flusher.add(box)
    await asyncio.wait_for(box.adopted.wait(), WAIT)
    assert box.task is not None
    box.task.cancel()
    await emptied(box)
    assert (box.paused, box.failures) == (1, 1)  # unknown whether the client has the message


async def test_a_leader_that_somebody_cancels_is_followed_by_another() -> None:
    order: list[int] = []
    flusher, first, later = Flusher(), Box(0, order), Box(1, order)
    before = asyncio.all_tasks()
    flusher.add(first)
    (leader,) = asyncio.all_tasks() - before
    leader.cancel()
    await asyncio.wait({leader}, timeout=WAIT)
    flusher.add(later)
    await emptied(later)
    assert order == [0, 1]


async def test_the_flusher_runs_outside_of_the_frame_that_created_it() -> None:
    token = current_frame.set(new_frame({}, "act", "", None))
    flusher, box = Flusher(), Box(0, [])
    flusher.add(box)
    current_frame.reset(token)
    await emptied(box)
    assert box.frame is None
