"""`wsaction._utils.threads`: the bound on threads holds whatever becomes of those who asked."""

import asyncio
import contextvars
import functools
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

from wsaction._utils.threads import Threads, _Work

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


async def test_work_abandoned_before_it_begins_never_runs() -> None:
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


# ------------------------------------------------------------------------------------------------- to the end
async def test_run_to_end_is_run_where_nobody_is_cancelled() -> None:
    threads = Threads(1)
    assert await threads.run_to_end(dict, {"a": 1}, self=2, function=3) == {"a": 1, "self": 2, "function": 3}
    with pytest.raises(ZeroDivisionError):
        await threads.run_to_end(lambda: 1 // 0)


async def test_a_caller_that_is_cancelled_waits_for_a_function_that_has_begun() -> None:
    threads, crowd = Threads(1), Crowd()
    task = asyncio.create_task(threads.run_to_end(crowd.member(1)))
    assert await crowd.begun.get() == 1
    task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    crowd.ends[1].set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert crowd.at_once == 0
    assert await threads.run(lambda: "free") == "free"


async def test_cancelled_twice_it_is_left_and_the_thread_keeps_its_slot() -> None:
    threads, crowd = Threads(1), Crowd()
    task = asyncio.create_task(threads.run_to_end(crowd.member(1)))
    await crowd.begun.get()
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert crowd.at_once == 1
    second = asyncio.create_task(threads.run(lambda: crowd.at_once))
    crowd.ends[1].set()
    assert await second == 0


async def test_one_that_waits_for_a_slot_is_cancelled_at_once_and_never_runs() -> None:
    threads, crowd = Threads(1), Crowd()
    first = asyncio.create_task(threads.run_to_end(crowd.member(1)))
    await crowd.begun.get()
    waiting = asyncio.create_task(threads.run_to_end(crowd.member(2)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    crowd.ends[1].set()
    assert await first == 1
    assert crowd.begun.empty()


# ------------------------------------------------------------------------------------------------- context managers
class Door:
    """A context manager that counts, whose opening may be told to wait."""

    def __init__(self) -> None:
        self.opened = self.closed = 0
        self.left_with: list[type[BaseException] | None] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun, self.has_closed = asyncio.Event(), asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.fails = False

    def __enter__(self) -> str:
        self.loop.call_soon_threadsafe(self.begun.set)
        assert self.gate.wait(TIMEOUT)
        self.opened += 1
        return "open"

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: Any) -> None:
        self.closed += 1
        self.left_with.append(kind)
        self.loop.call_soon_threadsafe(self.has_closed.set)
        if self.fails:
            raise ValueError("the door is stuck")


async def test_a_managed_context_is_entered_and_left_in_threads() -> None:
    door = Door()
    async with Threads(1).managed(door) as value:
        assert (value, door.opened, door.closed) == ("open", 1, 0)
    assert door.left_with == [None]
    with pytest.raises(ZeroDivisionError):
        async with Threads(1).managed(door):
            raise ZeroDivisionError
    assert door.left_with == [None, ZeroDivisionError]


async def test_a_hundred_ends_at_once_take_no_more_threads_than_the_bound() -> None:
    threads, go_on, left = Threads(2), threading.Event(), []
    running = peak = 0
    lock = threading.Lock()

    def leave(number: int) -> None:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        go_on.wait(TIMEOUT)
        with lock:
            running -= 1
            left.append(number)

    leaving = [asyncio.ensure_future(threads.leave(leave, number)) for number in range(100)]
    while peak < 2:
        await asyncio.to_thread(threading.Event().wait, 0.01)
    for one in leaving[:50]:
        one.cancel()
    go_on.set()
    await asyncio.gather(*leaving, return_exceptions=True)
    assert (peak, sorted(left)) == (2, list(range(100)))  # those who asked were cancelled, the ends were run


async def test_leaving_needs_no_slot() -> None:
    threads, crowd, door = Threads(1), Crowd(), Door()
    async with threads.managed(door):
        task = asyncio.create_task(threads.run(crowd.member(1)))
        await crowd.begun.get()
    assert door.closed == 1
    crowd.ends[1].set()
    await task


async def test_what_is_entered_after_its_caller_was_cancelled_is_left_by_the_thread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    threads, door = Threads(1), Door()
    door.gate.clear()
    door.fails = True
    task = asyncio.create_task(threads.managed(door).__aenter__())
    await door.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert door.opened == 0
    door.gate.set()
    await asyncio.wait_for(door.has_closed.wait(), TIMEOUT)
    assert await threads.run(lambda: "free") == "free"
    assert door.left_with == [asyncio.CancelledError]
    assert "failed on exit after its caller was cancelled" in caplog.text
    assert "the door is stuck" in caplog.text


class TellingLock:
    """A lock that says when somebody has it."""

    def __init__(self) -> None:
        self.lock, self.is_taken = threading.Lock(), threading.Event()

    def acquire(self, *, blocking: bool) -> bool:
        took = self.lock.acquire(blocking=blocking)
        self.is_taken.set()
        return took


async def test_what_was_entered_just_before_its_caller_was_cancelled_is_left_by_the_caller() -> None:
    door = Door()
    managed: Any = Threads(1).managed(door)
    managed._claimed = TellingLock()
    door.gate.clear()
    task = asyncio.create_task(managed.__aenter__())
    await door.begun.wait()
    door.gate.set()
    assert managed._claimed.is_taken.wait(TIMEOUT)  # the loop cannot hear of it meanwhile
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (door.opened, door.left_with) == (1, [asyncio.CancelledError])


@pytest.mark.parametrize("turns", range(10))
async def test_cancelled_in_any_of_its_steps_what_was_entered_is_left_once(turns: int) -> None:
    threads, door = Threads(1), Door()

    async def use() -> None:
        async with threads.managed(door):
            pass

    task = asyncio.create_task(use())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert await threads.run(lambda: "free") == "free"
    assert door.opened == door.closed <= 1


@pytest.mark.parametrize("turns", range(5))
async def test_cancelled_as_it_is_left_it_is_left_all_the_same(turns: int) -> None:
    threads, door = Threads(1), Door()
    managed = threads.managed(door)
    await managed.__aenter__()
    task = asyncio.create_task(managed.__aexit__(None, None, None))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    for _ in range(turns):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([task])
    await asyncio.wait_for(door.has_closed.wait(), TIMEOUT)
    assert door.left_with == [None]
