"""Threads for sync functions, bounded; and whether an event loop still runs anything."""

import asyncio
import functools
import logging
import math
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from contextvars import ContextVar, copy_context
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread

__all__ = ("Threads", "caller", "handed_over", "is_awaited_by_thread", "is_over", "note_process")

logger = logging.getLogger("wsaction")

T = TypeVar("T")

caller: ContextVar[Any] = ContextVar("wsaction.caller", default=None)
"""In a thread, the task that waits for it; inherited by what the thread has run on the event loop, and by the tasks
that are begun there, which nobody waits for."""
handed_over: ContextVar[Any] = ContextVar("wsaction.handed_over", default=None)
"""The task that does on one event loop what another thread gave it, and waits for."""

_FROM_THREAD = "AsyncIOBackend.run_async_from_thread."  # where anyio makes the coroutine of such a task


def is_awaited_by_thread(task: "asyncio.Task[Any] | None", owner: "asyncio.Task[Any]") -> bool:
    """Whether what runs is the thread that ``owner`` waits for, or what that thread waits for itself: an event loop of
    its own, or, on the owner's, what it called through `anyio.from_thread` or the app. ``task``: what it is on a loop.
    """
    if caller.get() is not owner or is_over(owner.get_loop()):
        return False
    if task is None or task is handed_over.get() or task.get_loop() is not owner.get_loop():
        return True
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_qualname.startswith(_FROM_THREAD)


_processes: "WeakKeyDictionary[asyncio.AbstractEventLoop, int]" = WeakKeyDictionary()


def note_process(loop: asyncio.AbstractEventLoop) -> None:
    """An event loop is of this process."""
    _processes.setdefault(loop, os.getpid())


def is_over(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether nothing will run on an event loop any more: it is closed, or a forked process has it from its parent,
    where it says that it is running all the same."""
    return loop.is_closed() or _processes.get(loop, process := os.getpid()) != process


class Threads:
    """Runs sync functions in threads, at most ``limit`` at a time; more wait for a slot.

    The ends of what was entered have as many slots of their own.

    A slot is held until the function has returned, even when the task that asked was cancelled meanwhile: a thread
    cannot be stopped, and one that goes on unseen still counts. ``await Threads(16).run(math.factorial, 5)`` is 120.
    ``on_cancelled_wait`` is called in the context of whoever is cancelled while waiting for a slot: nothing of it has
    been run.
    """

    def __init__(self, limit: int, on_cancelled_wait: Callable[[], None] = lambda: None) -> None:
        self._slots = anyio.CapacityLimiter(limit)
        self._exit_slots = anyio.CapacityLimiter(limit)
        # anyio's own limiter would give a cancelled caller's slot back at once.
        self._unlimited = anyio.CapacityLimiter(math.inf)
        self._on_cancelled_wait = on_cancelled_wait

    async def run(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """What ``function`` returns or raises. Context variables are copied in; cancelling abandons the thread."""
        return await self._run_in_thread(await self._acquire_slot(functools.partial(function, *args, **kwargs)))

    async def run_to_end(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """As `run`, but cancelling waits until a function that has begun has returned, since what it uses is in use.

        Cancelling once more abandons the thread.
        """
        work = await self._acquire_slot(functools.partial(function, *args, **kwargs))
        return await _wait_to_end(self._run_in_thread(work))

    def managed(self, manager: AbstractContextManager[T]) -> AbstractAsyncContextManager[T]:
        """A sync context manager as an async one. Both its ends run in threads, in one copy of the context variables.

        What has been entered is left exactly once, whenever the caller is cancelled. The end needs none of the slots
        that functions run in, since those who hold one may wait for what it gives back.
        """
        return _Managed(self, manager)

    async def leave(self, function: Callable[..., T], /, *args: Any) -> T:
        """Runs the end of something, in slots of its own; once asked for, it is run even where we are cancelled."""
        work = functools.partial(function, *args)
        return await _wait_to_end(anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._exit_slots))

    async def _acquire_slot(self, function: Callable[[], T]) -> "_Work[T]":
        slot = object()
        try:
            await self._slots.acquire_on_behalf_of(slot)
        except asyncio.CancelledError:
            self._on_cancelled_wait()
            raise
        return _Work(function, lambda: self._slots.release_on_behalf_of(slot))

    async def _run_in_thread(self, work: "_Work[T]") -> T:
        try:
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._unlimited)
        finally:
            work.abandon()


async def _wait_to_end(work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` returns or raises. Cancelling waits for its end first; cancelling once more leaves it to itself."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


class _Managed(AbstractAsyncContextManager[T]):
    """A sync context manager whose ends run in threads."""

    def __init__(self, threads: Threads, manager: AbstractContextManager[T]) -> None:
        self._threads = threads
        self._manager = manager
        self._context = copy_context()
        self._context.run(caller.set, asyncio.current_task())
        self._claimed = threading.Lock()  # by the thread that has entered it, or by who gave up waiting for that before

    async def __aenter__(self) -> T:
        try:
            return await self._threads.run(self._enter)
        except asyncio.CancelledError as exc:
            if not self._claimed.acquire(blocking=False):  # it has been entered meanwhile
                await self.__aexit__(type(exc), exc, exc.__traceback__)
            raise

    def _enter(self) -> T:
        value = self._context.run(self._manager.__enter__)
        if not self._claimed.acquire(blocking=False):  # nobody waits for it any more
            cancelled = asyncio.CancelledError()
            try:
                self._context.run(self._manager.__exit__, type(cancelled), cancelled, None)
            except BaseException as exc:
                logger.error("%r failed as it was left after its caller was cancelled", self._manager, exc_info=exc)
        return value

    async def __aexit__(self, *error: Any) -> bool | None:
        return await self._threads.leave(self._context.run, self._manager.__exit__, *error)


class _Work(Generic[T]):
    """One function on its way through a thread; gives its slot back exactly once, on the loop."""

    def __init__(self, function: Callable[[], T], release: Callable[[], None]) -> None:
        self._function = function
        self._release = release
        self._loop = asyncio.get_running_loop()
        self._caller = asyncio.current_task()
        self._claimed = threading.Lock()  # by the thread that runs it, or by who abandons it before

    def __call__(self) -> T:
        if not self._claimed.acquire(blocking=False):
            raise RuntimeError("abandoned before a thread was free")
        caller.set(self._caller)  # in the thread's own copy of the context
        try:
            return self._function()
        finally:
            with suppress(RuntimeError):  # the loop is closed: nobody is left to wait for the slot
                self._loop.call_soon_threadsafe(self._release)

    def abandon(self) -> None:
        if self._claimed.acquire(blocking=False):
            self._release()
