"""`wsaction._utils.timer`: one timer that fires at the earliest of many times."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from wsaction._utils.timer import DeadlineTimer

WAIT = 5.0


class Bell:
    """An alarm on the running loop, and the times at which it fired."""

    def __init__(self, callback: Callable[[], None] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.rang: list[float] = []
        self.ringing = asyncio.Event()
        self.alarm = DeadlineTimer(self.loop, callback or self.ring)

    def ring(self) -> None:
        self.rang.append(self.loop.time())
        self.ringing.set()

    async def until_it_rings(self) -> float:
        await asyncio.wait_for(self.ringing.wait(), WAIT)
        self.ringing.clear()
        return self.rang[-1]


async def test_it_rings_at_the_earliest_time_that_it_was_told() -> None:
    bell = Bell()
    now = bell.loop.time()
    for seconds in (60, 0.02, 30):
        bell.alarm.call_by(now + seconds)
    assert 0.015 <= await bell.until_it_rings() - now < 1


async def test_it_rings_once_and_then_forgets() -> None:
    bell = Bell()
    bell.alarm.call_by(bell.loop.time())
    await bell.until_it_rings()
    bell.alarm.call_by(bell.loop.time() + 0.01)  # later than the first one, which is no longer set
    await bell.until_it_rings()
    assert len(bell.rang) == 2


async def test_it_may_be_set_while_it_rings() -> None:
    def again() -> None:
        bell.ring()
        if len(bell.rang) < 3:
            bell.alarm.call_by(bell.loop.time())

    bell = Bell(again)
    bell.alarm.call_by(bell.loop.time())
    while len(bell.rang) < 3:
        await bell.until_it_rings()


async def test_a_stopped_one_does_not_ring_and_can_be_set_again() -> None:
    bell = Bell()
    bell.alarm.call_by(bell.loop.time())
    bell.alarm.stop()
    bell.alarm.stop()
    later = asyncio.Event()
    bell.loop.call_later(0.01, later.set)
    await asyncio.wait_for(later.wait(), WAIT)
    assert bell.rang == []
    bell.alarm.call_by(bell.loop.time())
    await bell.until_it_rings()


def test_never_is_no_time() -> None:
    timers: list[Any] = []
    loop: Any = SimpleNamespace(call_at=lambda *arguments: timers.append(arguments))
    DeadlineTimer(loop, lambda: None).call_by(float("inf"))
    assert timers == []
