"""`wsaction.concurrency`: the bound on threads holds whatever becomes of those who asked."""

import asyncio
import contextvars
import functools
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

from wsaction.concurrency import Threads, _Work

TIMEOUT = 5.0  # seconds that a thread waits for what the test does
variable = contextvars.ContextVar("variable", default="unset")


async def test_what_the_function_returns_or_raises_is_passed_on() -> None:
    threads = Threads(1)
    assert await threads.run(math.factorial, 5) == 120
    assert await threads.run(dict, {"a": 1}, self=2, function=3) == {"a": 1, "self": 2, "function": 3}
    assert await threads.run(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.run(next, iter(()))
    assert await threads.run(lambda: "free again") == "free again"


async def test_context_variables_are_copied_in_and_not_out() -> None:
    def in_thread() -> str:
        before = variable.get()
        variable.set("by the thread")
        return before

    variable.set("by the caller")
    assert await Threads(1).run(in_thread) == "by the caller"
    assert variable.get() == "by the caller"


class Crowd:
    """Functions that say on the loop when they begin, and end when they are told to."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.begun: asyncio.Queue[int] = asyncio.Queue()
        self.ends: dict[int, threading.Event] = {}
        self.lock = threading.Lock()
        self.at_once = self.most = 0

    def member(self, number: int) -> Callable[[], int]:
        self.ends[number] = threading.Event()
        return functools.partial(self._run, number)

    def _run(self, number: int) -> int:
        with self.lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.loop.call_soon_threadsafe(self.begun.put_nowait, number)
        assert self.ends[number].wait(TIMEOUT)
        with self.lock:
            self.at_once -= 1
        return number


@pytest.mark.parametrize("limit", [1, 3])
async def test_the_bound_holds_with_more_callers_than_slots(limit: int) -> None:
    threads, crowd = Threads(limit), Crowd()
    tasks = [asyncio.create_task(threads.run(crowd.member(number))) for number in range(10)]
    order = []
    for _ in tasks:
        order.append(await crowd.begun.get())
        crowd.ends[order[-1]].set()
    assert await asyncio.gather(*tasks) == list(range(10))
    assert sorted(order) == list(range(10))
    assert 1 <= crowd.most <= limit


async def test_all_slots_are_used() -> None:
    threads, crowd = Threads(4), Crowd()
    tasks = [asyncio.create_task(threads.run(crowd.member(number))) for number in range(4)]
    assert sorted([await crowd.begun.get() for _ in tasks]) == [0, 1, 2, 3]
    assert crowd.most == 4
    for end in crowd.ends.values():
        end.set()
    await asyncio.gather(*tasks)


async def test_a_cancelled_caller_goes_at_once_and_its_slot_when_the_thread_ends() -> None:
    threads, crowd = Threads(1), Crowd()
    first = asyncio.create_task(threads.run(crowd.member(1)))
    assert await crowd.begun.get() == 1
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert crowd.at_once == 1

    def next_one() -> int:
        return crowd.at_once

    second = asyncio.create_task(threads.run(next_one))
    crowd.ends[1].set()
    assert await second == 0


async def test_one_that_waits_for_a_slot_may_be_cancelled() -> None:
    threads, crowd = Threads(1), Crowd()
    first = asyncio.create_task(threads.run(crowd.member(1)))
    await crowd.begun.get()
    waiting = asyncio.create_task(threads.run(crowd.member(2)))
    third = asyncio.create_task(threads.run(lambda: "third"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    crowd.ends[1].set()
    assert await first == 1
    assert await third == "third"
    assert crowd.begun.empty()


@pytest.mark.parametrize("turns", range(8))
async def test_cancelled_in_any_of_its_first_steps_it_gives_its_slot_back(turns: int) -> None:
    threads = Threads(1)
    ran: list[int] = []
    task = asyncio.create_task(threads.run(ran.append, 1))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() or ran == [1]
    assert await threads.run(lambda: "free") == "free"


def idle_work(released: list[str]) -> _Work[str]:
    return _Work(lambda: "ran", lambda: released.append("slot"))


async def test_work_that_is_abandoned_before_its_thread_begins_never_runs_and_releases_once() -> None:
    released: list[str] = []
    work = idle_work(released)
    work.abandon()
    work.abandon()
    with pytest.raises(RuntimeError, match="abandoned"):
        work()
    await asyncio.sleep(0)
    assert released == ["slot"]


async def test_work_that_has_begun_is_not_released_by_who_abandons_it() -> None:
    released: list[str] = []
    work = idle_work(released)
    assert work() == "ran"
    work.abandon()
    assert released == []  # the loop does it
    await asyncio.sleep(0)
    assert released == ["slot"]


def test_a_thread_that_outlives_its_loop_ends_in_silence() -> None:
    begun, end = threading.Event(), threading.Event()
    thread: list[threading.Thread] = []
    returned: list[Any] = []

    def outlive() -> None:
        thread.append(threading.current_thread())
        begun.set()
        returned.append(end.wait(TIMEOUT))

    async def main() -> None:
        task = asyncio.create_task(Threads(1).run(outlive))
        await asyncio.to_thread(begun.wait, TIMEOUT)
        task.cancel()

    asyncio.run(main())
    end.set()
    thread[0].join(TIMEOUT)
    assert not thread[0].is_alive()
    assert returned == [True]
