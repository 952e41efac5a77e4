"""A task factory that runs tasks within ``create_task``, like `asyncio.eager_task_factory` of Python 3.12."""

import asyncio
import sys
from collections.abc import Coroutine, Generator
from contextvars import Context, copy_context
from types import coroutine
from typing import Any

__all__ = ("eager_task_factory",)


@coroutine
def _go_on(work: Coroutine[Any, Any, Any], first: Any) -> Generator[Any, Any, Any]:
    """Runs the rest of a coroutine whose first step waits for ``first``."""
    waits_for = first
    while True:
        try:
            value = yield waits_for
        except BaseException as exc:
            step, given = work.throw, exc
        else:
            step, given = work.send, value
        try:
            waits_for = step(given)
        except StopIteration as ended:
            return ended.value


async def _ended(value: Any, exc: BaseException | None) -> Any:
    if exc is not None:
        raise exc
    return value


def _emulated(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], context: Context | None = None, **options: Any
) -> asyncio.Task[Any]:
    """Runs the first step at once, and the rest as a task."""
    own = copy_context() if context is None else context
    rest: list[Any] = []

    async def whole() -> Any:
        return await rest[0]

    task, outer = asyncio.Task(whole(), loop=loop, context=own), asyncio.current_task(loop)
    if outer is not None:
        asyncio.tasks._leave_task(loop, outer)
    asyncio.tasks._enter_task(loop, task)
    try:
        rest.append(_go_on(work, own.run(work.send, None)))
    except StopIteration as ended:
        rest.append(_ended(ended.value, None))
    except BaseException as exc:
        rest.append(_ended(None, exc))
    finally:
        asyncio.tasks._leave_task(loop, task)
        if outer is not None:
            asyncio.tasks._enter_task(loop, outer)
    return task


eager_task_factory: Any = asyncio.eager_task_factory if sys.version_info >= (3, 12) else _emulated
