"""Background tasks with an owner, which keeps them while they run, logs their failures and stops them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any

logger = logging.getLogger("wsaction")

STOP_TIMEOUT = 10.0  # seconds that `Tasks.stop` waits for cancelled tasks


class Tasks:
    """The tasks of one owner. Each starts in a copy of ``context``, so it sees no context variables of an action."""

    __slots__ = ("_context", "_running", "_stop_timeout")

    def __init__(self, context: Context | None = None, *, stop_timeout: float = STOP_TIMEOUT) -> None:
        self._stop_timeout = stop_timeout
        self._context = copy_context() if context is None else context
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Callable[..., Awaitable[None]], *args: Any) -> asyncio.Task[None]:
        """Starts ``work(*args)`` as a task. Its exceptions are logged, because nothing awaits it."""
        task = new_task(asyncio.get_running_loop(), _run_logged(work, *args), self._context.copy())
        self._running.add(task)
        task.add_done_callback(self._running.discard, context=self._context)  # the caller's would be kept alive
        return task

    async def stop(self) -> None:
        """Cancels all tasks and waits at most ``stop_timeout`` seconds for them. One that still runs is logged."""
        for task in self._running:
            task.cancel()
        if self._running:
            _, unfinished = await asyncio.wait(self._running, timeout=self._stop_timeout)
            for task in unfinished:
                logger.error("a task still runs %s s after it was cancelled: %r", self._stop_timeout, task)
        self._running.clear()


def new_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None], context: Context | None = None
) -> asyncio.Task[None]:
    """A task that begins at the loop's next turn at the earliest, so that its creator can note it first.

    It does not use the loop's task factory: ``asyncio.eager_task_factory`` runs a task within ``create_task``.
    """
    return asyncio.Task(work, loop=loop, context=context)


def is_being_cancelled() -> bool:
    """Whether the running task itself is being cancelled, and not only something that it awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def is_closed_with(exc: BaseException, task: "asyncio.Task[Any] | None") -> bool:
    """Whether a task's coroutine is being closed with this exception because its event loop is gone.

    Nothing may be awaited then. A ``GeneratorExit`` raised while the task runs is something else.
    """
    if not isinstance(exc, GeneratorExit):
        return False
    try:
        return asyncio.current_task() is not task
    except RuntimeError:
        return True


async def _run_logged(work: Callable[..., Awaitable[None]], *args: Any) -> None:
    try:
        await work(*args)
    except Exception as exc:
        logger.critical("a task failed; this is a bug of wsaction", exc_info=exc)
