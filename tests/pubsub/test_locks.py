"""`wsaction._utils.locks`: order, no deadlocks, nothing left behind."""

import asyncio
import random

import pytest

from wsaction._utils.locks import Locks

WAIT = 5.0


async def test_locks_are_acquired_in_order_and_leave_nothing() -> None:
    locks, order = Locks(), list[int]()

    async def work(number: int) -> None:
        held = await locks.acquire(["a"])
        order.append(number)
        await asyncio.sleep(0)
        order.append(number)
        held.release()
        held.release()

    await asyncio.wait_for(asyncio.gather(*(work(number) for number in range(5))), WAIT)
    assert order == [number for number in range(5) for _ in range(2)]
    assert len(locks) == 0


async def test_overlapping_locks_cannot_deadlock() -> None:
    locks, rng, inside = Locks(), random.Random(3), set[str]()

    async def work() -> None:
        for _ in range(20):
            names = rng.sample("abcde", rng.randrange(1, 4))
            held = await locks.acquire(names)
            assert not inside & set(names)
            inside.update(names)
            await asyncio.sleep(0)
            inside.difference_update(names)
            held.release()

    await asyncio.wait_for(asyncio.gather(*(work() for _ in range(8))), WAIT)
    assert len(locks) == 0


async def test_a_cancelled_acquire_leaves_nothing_behind() -> None:
    locks = Locks()

    async def hold() -> None:
        held = await locks.acquire("b")
        holds.set()
        await release.wait()
        held.release()

    holds, release = asyncio.Event(), asyncio.Event()
    holding = asyncio.create_task(hold())
    await asyncio.wait_for(holds.wait(), WAIT)
    waiting = asyncio.create_task(locks.acquire("abc"))
    await asyncio.sleep(0)
    assert len(locks) == 2
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(locks) == 1
    release.set()
    await asyncio.wait_for(holding, WAIT)
    assert len(locks) == 0
