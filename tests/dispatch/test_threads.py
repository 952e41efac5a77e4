"""`wsaction._utils.threads`: the bound on threads holds, also when callers are cancelled."""

import asyncio
import contextvars
import functools
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

from wsaction._utils.threads import Threads, _Work

TIMEOUT = 5.0  # the timeout of a thread's waits, in seconds
variable = contextvars.ContextVar("variable", default="unset")


async def test_results_and_exceptions_are_passed_on() -> None:
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


class Workers:
    """Functions that report to the loop when they start, and wait until the test ends them."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.started: asyncio.Queue[int] = asyncio.Queue()
        self.ends: dict[int, threading.Event] = {}
        self.lock = threading.Lock()
        self.running = self.peak = 0

    def worker(self, number: int) -> Callable[[], int]:
        self.ends[number] = threading.Event()
        return functools.partial(self._run, number)

    def _run(self, number: int) -> int:
        with self.lock:
            self.running += 1
            self.peak = max(self.peak, self.running)
        self.loop.call_soon_threadsafe(self.started.put_nowait, number)
        assert self.ends[number].wait(TIMEOUT)
        with self.lock:
            self.running -= 1
        return number


@pytest.mark.parametrize("limit", [1, 3])
async def test_the_bound_holds_with_more_callers_than_slots(limit: int) -> None:
    threads, workers = Threads(limit), Workers()
    tasks = [asyncio.create_task(threads.run(workers.worker(number))) for number in range(10)]
    order = []
    for _ in tasks:
        order.append(await workers.started.get())
        workers.ends[order[-1]].set()
    assert await asyncio.gather(*tasks) == list(range(10))
    assert sorted(order) == list(range(10))
    assert 1 <= workers.peak <= limit


async def test_all_slots_are_used() -> None:
    threads, workers = Threads(4), Workers()
    tasks = [asyncio.create_task(threads.run(workers.worker(number))) for number in range(4)]
    assert sorted([await workers.started.get() for _ in tasks]) == [0, 1, 2, 3]
    assert workers.peak == 4
    for end in workers.ends.values():
        end.set()
    await asyncio.gather(*tasks)


async def test_a_cancelled_call_keeps_its_slot_until_the_thread_ends() -> None:
    threads, workers = Threads(1), Workers()
    first = asyncio.create_task(threads.run(workers.worker(1)))
    assert await workers.started.get() == 1
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert workers.running == 1

    def next_one() -> int:
        return workers.running

    second = asyncio.create_task(threads.run(next_one))
    workers.ends[1].set()
    assert await second == 0


async def test_a_caller_waiting_for_a_slot_may_be_cancelled() -> None:
    threads, workers = Threads(1), Workers()
    first = asyncio.create_task(threads.run(workers.worker(1)))
    await workers.started.get()
    waiting = asyncio.create_task(threads.run(workers.worker(2)))
    third = asyncio.create_task(threads.run(lambda: "third"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    workers.ends[1].set()
    assert await first == 1
    assert await third == "third"
    assert workers.started.empty()


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancellation_at_any_step_releases_the_slot(turns: int) -> None:
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


async def test_abandoning_started_work_does_not_release_its_slot() -> None:
    released: list[str] = []
    work = idle_work(released)
    assert work() == "ran"
    work.abandon()
    assert released == []  # the loop releases it
    await asyncio.sleep(0)
    assert released == ["slot"]


def test_a_thread_that_outlives_its_loop_ends_silently() -> None:
    started, end = threading.Event(), threading.Event()
    thread: list[threading.Thread] = []
    returned: list[Any] = []

    def outlive() -> None:
        thread.append(threading.current_thread())
        started.set()
        returned.append(end.wait(TIMEOUT))

    async def main() -> None:
        task = asyncio.create_task(Threads(1).run(outlive))
        await asyncio.to_thread(started.wait, TIMEOUT)
        task.cancel()

    asyncio.run(main())
    end.set()
    thread[0].join(TIMEOUT)
    assert not thread[0].is_alive()
    assert returned == [True]


# ------------------------------------------------------------------------------------------------- run_to_end
async def test_run_to_end_without_a_cancellation_equals_run() -> None:
    threads = Threads(1)
    assert await threads.run_to_end(dict, {"a": 1}, self=2, function=3) == {"a": 1, "self": 2, "function": 3}
    with pytest.raises(ZeroDivisionError):
        await threads.run_to_end(lambda: 1 // 0)


async def test_run_to_end_waits_for_a_started_function() -> None:
    threads, workers = Threads(1), Workers()
    task = asyncio.create_task(threads.run_to_end(workers.worker(1)))
    assert await workers.started.get() == 1
    task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    workers.ends[1].set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert workers.running == 0
    assert await threads.run(lambda: "free") == "free"


async def test_run_to_end_is_left_at_a_second_cancellation() -> None:
    threads, workers = Threads(1), Workers()
    task = asyncio.create_task(threads.run_to_end(workers.worker(1)))
    await workers.started.get()
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert workers.running == 1
    second = asyncio.create_task(threads.run(lambda: workers.running))
    workers.ends[1].set()
    assert await second == 0


async def test_run_to_end_waiting_for_a_slot_is_cancelled_at_once() -> None:
    threads, workers = Threads(1), Workers()
    first = asyncio.create_task(threads.run_to_end(workers.worker(1)))
    await workers.started.get()
    waiting = asyncio.create_task(threads.run_to_end(workers.worker(2)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    workers.ends[1].set()
    assert await first == 1
    assert workers.started.empty()


# ------------------------------------------------------------------------------------------------- context managers
class CountingContext:
    """A context manager that counts entries and exits; its entry waits for ``gate``."""

    def __init__(self) -> None:
        self.entered = self.exited = 0
        self.left_with: list[type[BaseException] | None] = []
        self.gate = threading.Event()
        self.gate.set()
        self.started, self.has_closed = asyncio.Event(), asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.fails = False

    def __enter__(self) -> str:
        self.loop.call_soon_threadsafe(self.started.set)
        assert self.gate.wait(TIMEOUT)
        self.entered += 1
        return "open"

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: Any) -> None:
        self.exited += 1
        self.left_with.append(kind)
        self.loop.call_soon_threadsafe(self.has_closed.set)
        if self.fails:
            raise ValueError("the door is stuck")


async def test_a_managed_context_is_entered_and_exited() -> None:
    context = CountingContext()
    async with Threads(1).managed(context) as value:
        assert (value, context.entered, context.exited) == ("open", 1, 0)
    assert context.left_with == [None]
    with pytest.raises(ZeroDivisionError):
        async with Threads(1).managed(context):
            raise ZeroDivisionError
    assert context.left_with == [None, ZeroDivisionError]


async def test_a_hundred_exits_at_once_stay_within_the_bound() -> None:
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
    assert (peak, sorted(left)) == (2, list(range(100)))  # the exits of cancelled callers ran too


async def test_exiting_needs_no_slot() -> None:
    threads, workers, context = Threads(1), Workers(), CountingContext()
    async with threads.managed(context):
        task = asyncio.create_task(threads.run(workers.worker(1)))
        await workers.started.get()
    assert context.exited == 1
    workers.ends[1].set()
    await task


async def test_the_thread_exits_what_it_enters_after_a_cancellation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    threads, context = Threads(1), CountingContext()
    context.gate.clear()
    context.fails = True
    task = asyncio.create_task(threads.managed(context).__aenter__())
    await context.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert context.entered == 0
    context.gate.set()
    await asyncio.wait_for(context.has_closed.wait(), TIMEOUT)
    assert await threads.run(lambda: "free") == "free"
    assert context.left_with == [asyncio.CancelledError]
    assert "failed on exit after its caller was cancelled" in caplog.text
    assert "the door is stuck" in caplog.text


class SignallingLock:
    """A lock with an event that is set once the lock is taken."""

    def __init__(self) -> None:
        self.lock, self.is_taken = threading.Lock(), threading.Event()

    def acquire(self, *, blocking: bool) -> bool:
        took = self.lock.acquire(blocking=blocking)
        self.is_taken.set()
        return took


async def test_the_caller_exits_what_was_entered_before_cancellation() -> None:
    context = CountingContext()
    managed: Any = Threads(1).managed(context)
    managed._claimed = SignallingLock()
    context.gate.clear()
    task = asyncio.create_task(managed.__aenter__())
    await context.started.wait()
    context.gate.set()
    assert managed._claimed.is_taken.wait(TIMEOUT)  # blocks the loop, so it does not know yet
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (context.entered, context.left_with) == (1, [asyncio.CancelledError])


@pytest.mark.parametrize("turns", range(10))
async def test_a_cancellation_at_any_step_exits_what_was_entered(turns: int) -> None:
    threads, context = Threads(1), CountingContext()

    async def use() -> None:
        async with threads.managed(context):
            pass

    task = asyncio.create_task(use())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert await threads.run(lambda: "free") == "free"
    assert context.entered == context.exited <= 1


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancellation_during_exit_still_exits(turns: int) -> None:
    threads, context = Threads(1), CountingContext()
    managed = threads.managed(context)
    await managed.__aenter__()
    task = asyncio.create_task(managed.__aexit__(None, None, None))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    for _ in range(turns):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([task])
    await asyncio.wait_for(context.has_closed.wait(), TIMEOUT)
    assert context.left_with == [None]
