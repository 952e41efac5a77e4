"""`wsaction._utils.tasks`: background tasks and their owners. Also `wsaction._utils.backoff`."""

import asyncio
import contextvars
import gc
import logging
import weakref

import pytest

from wsaction._utils.backoff import Backoff
from wsaction._utils.tasks import Tasks

variable = contextvars.ContextVar("variable", default="unset")


async def test_a_task_does_not_see_what_its_starter_set() -> None:
    mine = Tasks()
    variable.set("by an action")
    seen = asyncio.get_running_loop().create_future()

    async def look() -> None:
        seen.set_result(variable.get())

    mine.start(look)
    assert await seen == "unset"


async def test_a_running_task_does_not_keep_its_starters_context() -> None:
    class Connection:
        """An object that a context variable of the action holds."""

    async def act() -> weakref.ref[Connection]:
        connection = Connection()
        current.set(connection)
        mine.start(asyncio.get_running_loop().create_future)
        return weakref.ref(connection)

    mine, current = Tasks(), contextvars.ContextVar[Connection]("current")
    connection = await asyncio.create_task(act())
    await asyncio.sleep(0)  # until the loop has released the finished task
    gc.collect()
    assert connection() is None
    await mine.stop()


async def test_stopping_waits_for_the_end() -> None:
    mine, ends = Tasks(), list[int]()
    began = asyncio.Event()

    async def work(number: int) -> None:
        began.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            ends.append(number)

    for number in range(3):
        mine.start(work, number)
    assert len(mine) == 3
    await began.wait()
    await mine.stop()
    assert (sorted(ends), len(mine)) == ([0, 1, 2], 0)
    await mine.stop()


async def test_one_that_will_not_end_is_logged_and_let_go(caplog: pytest.LogCaptureFixture) -> None:
    mine, go, began = Tasks(stop_timeout=0.01), asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        while not go.is_set():
            began.set()
            try:
                await go.wait()
            except asyncio.CancelledError:
                began.set()

    task = mine.start(stubborn)
    await began.wait()
    await mine.stop()
    assert "still runs 0.01 s after it was cancelled" in caplog.text
    go.set()
    await asyncio.wait([task])


async def test_one_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    mine = Tasks()

    async def fail() -> None:
        raise ZeroDivisionError("told")

    with caplog.at_level(logging.CRITICAL, "wsaction"):
        await mine.start(fail)
    assert "ZeroDivisionError: told" in caplog.text


def test_waits_double_up_to_the_most_and_are_jittered() -> None:
    backoff = Backoff(1.0, 8.0)
    for longest in (1, 2, 4, 8, 8, 8):
        assert longest / 2 <= backoff.seconds() <= longest
    backoff.reset()
    assert backoff.seconds() <= 1
    assert len({Backoff(1.0, 8.0).seconds() for _ in range(20)}) > 1
