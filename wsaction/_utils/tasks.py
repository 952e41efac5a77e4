"""Tasks that somebody owns: kept while they run, their failures logged, stopped before their owner goes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any

__all__ = ("Tasks", "is_being_cancelled", "is_closed_with", "new_task")

logger = logging.getLogger("wsaction")

STOP_TIMEOUT = 10.0  # seconds that `stop` waits for what it cancelled


class Tasks:
    """The tasks of one owner. Each starts in a copy of ``context``: what an action set in its own does not reach it."""

    __slots__ = ("_context", "_running", "_stop_timeout")

    def __init__(self, context: Context | None = None, *, stop_timeout: float = STOP_TIMEOUT) -> None:
        self._stop_timeout = stop_timeout
        self._context = copy_context() if context is None else context
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Callable[..., Awaitable[None]], *args: Any) -> asyncio.Task[None]:
        """Starts ``work(*args)``. What it raises is logged: nobody else looks at it."""
        task = new_task(asyncio.get_running_loop(), _watched(work, *args), self._context.copy())
        self._running.add(task)
        task.add_done_callback(self._running.discard, context=self._context)  # not in that of whoever starts it
        return task

    async def stop(self) -> None:
        """Cancels all and waits until they have ended; one that still runs after ``stop_timeout`` seconds is logged and
        let go."""
        for task in self._running:
            task.cancel()
        if self._running:
            _, stubborn = await asyncio.wait(self._running, timeout=self._stop_timeout)
            for task in stubborn:
                logger.error("a task still runs %s s after it was cancelled: %r", self._stop_timeout, task)
        self._running.clear()


def new_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None], context: Context | None = None
) -> asyncio.Task[None]:
    """A task that begins at the loop's next turn at the earliest, whatever the loop's task factory does: what starts it
    notes it first. (``asyncio.eager_task_factory`` runs a task within ``create_task``.)"""
    return asyncio.Task(work, loop=loop, context=context)


def is_being_cancelled() -> bool:
    """Whether a ``CancelledError`` is the running task's own, and not that of something which it awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def is_closed_with(exc: BaseException, task: "asyncio.Task[Any] | None") -> bool:
    """Whether an exception is what a task's coroutine is closed with, as its loop was under it: nothing may be awaited
    then. A ``GeneratorExit`` that is raised while the task runs is somebody's own."""
    if not isinstance(exc, GeneratorExit):
        return False
    try:
        return asyncio.current_task() is not task
    except RuntimeError:
        return True


async def _watched(work: Callable[..., Awaitable[None]], *args: Any) -> None:
    try:
        await work(*args)
    except Exception as exc:
        logger.critical("a task failed; this is a bug of wsaction", exc_info=exc)
