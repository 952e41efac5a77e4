"""The lifespan of an app, whether a server, an outer app or the first connection starts it; and cleanup at its end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from wsaction._utils.tasks import new_task

logger = logging.getLogger("wsaction")

State: TypeAlias = Mapping[str, Any]
Enter: TypeAlias = Callable[[], AbstractAsyncContextManager[State | None]]

_running: set[asyncio.Task[None]] = set()  # the loop itself keeps only weak references


class Lifespan:
    """Runs the lifespan ``enter()`` at most once at a time on each event loop.

    A server or an outer app starts and ends it by `run`. If neither does, `ensure` starts it; then it ends when the
    event loop cancels its remaining tasks. If it fails to start, the next `ensure` tries again.
    """

    def __init__(self, enter: Enter) -> None:
        self._enter = enter
        self._states: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[State] | None] = WeakKeyDictionary()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[State | None]:
        """Runs the lifespan while the block runs; yields its state."""
        loop = asyncio.get_running_loop()
        self._states[loop] = None
        try:
            async with self._enter() as state:
                yield state
        finally:
            self._states.pop(loop, None)

    async def ensure(self) -> State:
        """Starts the lifespan on this event loop unless it runs, waits until it has started, and returns its state.

        Raises the lifespan's exception if it fails to start.
        """
        loop = asyncio.get_running_loop()
        if loop not in self._states:
            started = self._states[loop] = loop.create_future()
            task = new_task(loop, self._run_until_loop_ends(started))
            _running.add(task)
            task.add_done_callback(_running.discard)
        state_future = self._states[loop]
        return {} if state_future is None else await asyncio.shield(state_future)

    async def _run_until_loop_ends(self, state_future: asyncio.Future[State]) -> None:
        """Runs the lifespan until the event loop ends."""
        loop = asyncio.get_running_loop()
        try:
            async with self._enter() as state:
                state_future.set_result(state or {})
                await loop.create_future()  # until the loop ends
        except (Exception, asyncio.CancelledError) as exc:
            if state_future.done():
                raise
            error = exc if isinstance(exc, Exception) else RuntimeError("the lifespan was cancelled while it started")
            state_future.set_exception(error)  # for the callers of `ensure`
        finally:
            if self._states.get(loop) is state_future:
                del self._states[loop]


# ---------------------------------------------------------------------------------- cleanup when the last app ends
CLOSE_TIMEOUT = 5.0  # seconds that one ``close()`` may take

Close = Callable[[], Awaitable[None]]


class _LoopApps:
    """How many apps run on an event loop, and what to close after the last one."""

    def __init__(self) -> None:
        self.running = 0
        self.to_close: dict[Close, None] = {}


_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopApps] = WeakKeyDictionary()


def _apps_of_running_loop() -> _LoopApps:
    return _loops.setdefault(asyncio.get_running_loop(), _LoopApps())


def close_at_end(close: Close) -> None:
    """Awaits ``close()`` once, when the last app on the running event loop ends.

    If no lifespan is run there, ``close()`` is never awaited, because such an app has no end.
    """
    _apps_of_running_loop().to_close[close] = None


@asynccontextmanager
async def app_running(close_timeout: float = CLOSE_TIMEOUT) -> AsyncIterator[None]:
    """Marks an app as running on the event loop while the block runs."""
    loop_apps = _apps_of_running_loop()
    loop_apps.running += 1
    try:
        yield
    finally:
        loop_apps.running -= 1
        while loop_apps.to_close and not loop_apps.running:
            close, _ = loop_apps.to_close.popitem()
            await _close_logged(close, close_timeout)


async def _close_logged(close: Close, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await close()
    except Exception:
        logger.exception("%r failed when the last app of its event loop ended", close)
