"""Run sync functions in a bounded number of threads; and tell whether an event loop still runs."""

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

logger = logging.getLogger("wsaction")

T = TypeVar("T")

caller: ContextVar[Any] = ContextVar("wsaction.caller", default=None)
"""In a thread, the task that waits for it. The work that the thread starts on the event loop inherits it, and so do
tasks that this work starts, although the thread does not wait for those."""
handed_over: ContextVar[Any] = ContextVar("wsaction.handed_over", default=None)
"""The task that runs, on one event loop, the work that another thread handed over and waits for."""

_FROM_THREAD = "AsyncIOBackend.run_async_from_thread."  # the coroutine of a task that anyio starts for a thread


def is_awaited_by_thread(task: "asyncio.Task[Any] | None", owner: "asyncio.Task[Any]") -> bool:
    """Whether the caller is in the thread that ``owner`` waits for, or in work that this thread waits for.

    Such work runs on an event loop of the thread's own; or it was called on the owner's loop, through
    `anyio.from_thread` or the app. ``task`` is the caller's task, None outside an event loop.
    """
    if caller.get() is not owner or is_loop_closed(owner.get_loop()):
        return False
    if task is None or task is handed_over.get() or task.get_loop() is not owner.get_loop():
        return True
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_qualname.startswith(_FROM_THREAD)


_processes: "WeakKeyDictionary[asyncio.AbstractEventLoop, int]" = WeakKeyDictionary()


def note_process(loop: asyncio.AbstractEventLoop) -> None:
    """Notes that an event loop belongs to this process."""
    _processes.setdefault(loop, os.getpid())


def is_loop_closed(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether an event loop will run nothing any more: it is closed, or a fork copied it from the parent process.

    A copied loop still says that it is running.
    """
    return loop.is_closed() or _processes.get(loop, process := os.getpid()) != process


class Threads:
    """Runs sync functions in threads, at most ``limit`` at a time. Further calls wait for a slot.

    A call holds its slot until the function returns, even if its task is cancelled: a thread cannot be stopped, so it
    still counts. Exits of context managers have ``limit`` slots of their own. If a call is cancelled while it waits for
    a slot, its function has not run, and ``on_cancelled_wait`` is called in its context.

    ``await Threads(16).run(math.factorial, 5)`` is 120.
    """

    def __init__(self, limit: int, on_cancelled_wait: Callable[[], None] = lambda: None) -> None:
        self._slots = anyio.CapacityLimiter(limit)
        self._exit_slots = anyio.CapacityLimiter(limit)
        # With a real limit here, anyio would free a cancelled caller's slot at once, while its thread still runs.
        self._unlimited = anyio.CapacityLimiter(math.inf)
        self._on_cancelled_wait = on_cancelled_wait

    async def run(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Returns the function's result. It runs in a copy of the context; if cancelled, the thread is abandoned."""
        return await self._run_in_thread(await self._acquire_slot(functools.partial(function, *args, **kwargs)))

    async def run_to_end(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """As `run`; but if cancelled, waits until a function that has begun returns, as its resources are in use.

        A second cancellation abandons the thread.
        """
        work = await self._acquire_slot(functools.partial(function, *args, **kwargs))
        return await _wait_to_end(self._run_in_thread(work))

    def managed(self, manager: AbstractContextManager[T]) -> AbstractAsyncContextManager[T]:
        """A sync context manager as an async one. Enter and exit run in threads, in the same copy of the context.

        If it was entered, it is exited exactly once, whenever the caller is cancelled. The exit takes no slot of the
        functions: those that hold the slots may wait for what the exit releases.
        """
        return _Managed(self, manager)

    async def leave(self, function: Callable[..., T], /, *args: Any) -> T:
        """Runs an exit in the slots for exits. It runs even if the caller is cancelled."""
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
    """Returns the result of ``work``. If cancelled, waits for its end first; a second cancellation abandons it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


class _Managed(AbstractAsyncContextManager[T]):
    """A sync context manager whose enter and exit run in threads."""

    def __init__(self, threads: Threads, manager: AbstractContextManager[T]) -> None:
        self._threads = threads
        self._manager = manager
        self._context = copy_context()
        self._context.run(caller.set, asyncio.current_task())
        self._claimed = threading.Lock()  # by the thread that entered, or by a caller cancelled before that

    async def __aenter__(self) -> T:
        try:
            return await self._threads.run(self._enter)
        except asyncio.CancelledError as exc:
            if not self._claimed.acquire(blocking=False):  # the thread has entered meanwhile
                await self.__aexit__(type(exc), exc, exc.__traceback__)
            raise

    def _enter(self) -> T:
        value = self._context.run(self._manager.__enter__)
        if not self._claimed.acquire(blocking=False):  # the caller was cancelled
            cancelled = asyncio.CancelledError()
            try:
                self._context.run(self._manager.__exit__, type(cancelled), cancelled, None)
            except BaseException as exc:
                logger.error("%r failed on exit after its caller was cancelled", self._manager, exc_info=exc)
        return value

    async def __aexit__(self, *error: Any) -> bool | None:
        return await self._threads.leave(self._context.run, self._manager.__exit__, *error)


class _Work(Generic[T]):
    """A function that holds a slot. It releases the slot exactly once, on the event loop."""

    def __init__(self, function: Callable[[], T], release: Callable[[], None]) -> None:
        self._function = function
        self._release = release
        self._loop = asyncio.get_running_loop()
        self._caller = asyncio.current_task()
        self._claimed = threading.Lock()  # by the thread that runs it, or by `abandon` before that

    def __call__(self) -> T:
        if not self._claimed.acquire(blocking=False):
            raise RuntimeError("the call was abandoned before a thread was free")
        caller.set(self._caller)  # in the thread's copy of the context
        try:
            return self._function()
        finally:
            with suppress(RuntimeError):  # the loop is closed: no call waits for the slot
                self._loop.call_soon_threadsafe(self._release)

    def abandon(self) -> None:
        if self._claimed.acquire(blocking=False):
            self._release()
