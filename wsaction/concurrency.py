"""Threads for sync functions, bounded."""

import asyncio
import functools
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread

__all__ = ("Threads",)

T = TypeVar("T")


class Threads:
    """Runs sync functions in threads, at most ``limit`` at a time; more wait for a slot.

    A slot is held until the function has returned, even when the task that asked was cancelled meanwhile: a thread
    cannot be stopped, and one that goes on unseen still counts. ``await Threads(16).run(math.factorial, 5)`` is 120.
    """

    def __init__(self, limit: int) -> None:
        self._slots = anyio.CapacityLimiter(limit)
        self._unlimited = anyio.CapacityLimiter(
            math.inf
        )  # anyio's own would give a cancelled caller's slot back at once

    async def run(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """What ``function`` returns or raises. Context variables are copied in; cancelling abandons the thread."""
        slot = object()
        await self._slots.acquire_on_behalf_of(slot)
        work = _Work(functools.partial(function, *args, **kwargs), lambda: self._slots.release_on_behalf_of(slot))
        try:
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._unlimited)
        finally:
            work.abandon()


class _Work(Generic[T]):
    """One function on its way through a thread; gives its slot back exactly once, on the loop."""

    def __init__(self, function: Callable[[], T], release: Callable[[], None]) -> None:
        self._function, self._release = function, release
        self._loop = asyncio.get_running_loop()
        self._taken = threading.Lock()  # by the thread that runs it, or by who abandons it before

    def __call__(self) -> T:
        if not self._taken.acquire(blocking=False):
            raise RuntimeError("abandoned before a thread was free")
        try:
            return self._function()
        finally:
            with suppress(RuntimeError):  # the loop is closed: nobody is left to wait for the slot
                self._loop.call_soon_threadsafe(self._release)

    def abandon(self) -> None:
        if self._taken.acquire(blocking=False):
            self._release()
