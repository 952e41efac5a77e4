"""`wsaction._utils.locks`: order, no circles, nothing left."""

import asyncio
import random

import pytest

from wsaction._utils.locks import Locks

WAIT = 5.0


async def test_who_comes_first_has_it_first_and_nothing_is_left() -> None:
    locks, order = Locks(), list[int]()

    async def one(number: int) -> None:
        held = await locks.acquire(["a"])
        order.append(number)
        await asyncio.sleep(0)
        order.append(number)
        held.release()
        held.release()

    await asyncio.wait_for(asyncio.gather(*(one(number) for number in range(5))), WAIT)
    assert order == [number for number in range(5) for _ in range(2)]
    assert len(locks) == 0


async def test_nobody_waits_in_a_circle() -> None:
    locks, rng, inside = Locks(), random.Random(3), set[str]()

    async def one() -> None:
        for _ in range(20):
            names = rng.sample("abcde", rng.randrange(1, 4))
            held = await locks.acquire(names)
            assert not inside & set(names)
            inside.update(names)
            await asyncio.sleep(0)
            inside.difference_update(names)
            held.release()

    await asyncio.wait_for(asyncio.gather(*(one() for _ in range(8))), WAIT)
    assert len(locks) == 0


async def test_who_gives_up_waiting_leaves_nothing_behind() -> None:
    locks = Locks()

    async def have() -> None:
        held = await locks.acquire("b")
        has.set()
        await let_go.wait()
        held.release()

    has, let_go = asyncio.Event(), asyncio.Event()
    having = asyncio.create_task(have())
    await asyncio.wait_for(has.wait(), WAIT)
    waiting = asyncio.create_task(locks.acquire("abc"))
    await asyncio.sleep(0)
    assert len(locks) == 2
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(locks) == 1
    let_go.set()
    await asyncio.wait_for(having, WAIT)
    assert len(locks) == 0
