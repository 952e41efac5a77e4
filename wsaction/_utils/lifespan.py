"""An app's lifespan, whoever starts it: a server, an app around it, or its first connection; and what ends with it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from wsaction._utils.tasks import new_task

__all__ = ("Lifespan", "State", "app_running", "close_at_end")

logger = logging.getLogger("wsaction")

State: TypeAlias = Mapping[str, Any]
Enter: TypeAlias = Callable[[], AbstractAsyncContextManager[State | None]]

_running: set[asyncio.Task[None]] = set()  # the loop itself would let a waiting task be collected


class Lifespan:
    """Runs ``enter()`` at most once at a time on each event loop.

    What a server or an outer app `run`s is theirs to end. What nobody runs is started by `ensure` and ends with its
    loop, which cancels what is left on it; one that fails to start is tried again by the next who asks.
    """

    def __init__(self, enter: Enter) -> None:
        self._enter = enter
        self._lives: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[State] | None] = WeakKeyDictionary()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[State | None]:
        """The lifespan, run by whoever enters this; gives the state that it yields."""
        loop = asyncio.get_running_loop()
        self._lives[loop] = None
        try:
            async with self._enter() as state:
                yield state
        finally:
            self._lives.pop(loop, None)

    async def ensure(self) -> State:
        """Waits until the lifespan has started here, and starts it where nobody did; gives its state then.

        Raises what the lifespan raised as it started.
        """
        loop = asyncio.get_running_loop()
        if loop not in self._lives:
            starting = self._lives[loop] = loop.create_future()
            task = new_task(loop, self._live(starting))
            _running.add(task)
            task.add_done_callback(_running.discard)
        life = self._lives[loop]
        return {} if life is None else await asyncio.shield(life)

    async def _live(self, starting: asyncio.Future[State]) -> None:
        """The lifespan where nobody runs it."""
        loop = asyncio.get_running_loop()
        try:
            async with self._enter() as state:
                starting.set_result(state or {})
                await loop.create_future()  # until the loop ends
        except (Exception, asyncio.CancelledError) as exc:
            if starting.done():
                raise
            told = exc if isinstance(exc, Exception) else RuntimeError("the lifespan was cancelled as it started")
            starting.set_exception(told)  # to those who wait for it
        finally:
            if self._lives.get(loop) is starting:
                del self._lives[loop]


# ---------------------------------------------------------------------------------- what ends with the last app
CLOSE_TIMEOUT = 5.0  # seconds that closing one of them may take

Close = Callable[[], Awaitable[None]]


class _Loop:
    """What is known of one event loop."""

    def __init__(self) -> None:
        self.apps = 0
        self.closing: dict[Close, None] = {}


_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = WeakKeyDictionary()


def _here() -> _Loop:
    return _loops.setdefault(asyncio.get_running_loop(), _Loop())


def close_at_end(close: Close) -> None:
    """Has ``close()`` awaited, once, when the last app that lives on the running event loop ends.

    Where none does, nobody awaits it: an app whose lifespan nobody runs has no end.
    """
    _here().closing[close] = None


@asynccontextmanager
async def app_running(close_timeout: float = CLOSE_TIMEOUT) -> AsyncIterator[None]:
    """An app lives on the running event loop for as long as the block takes."""
    here = _here()
    here.apps += 1
    try:
        yield
    finally:
        here.apps -= 1
        while here.closing and not here.apps:
            close, _ = here.closing.popitem()
            await _closed(close, close_timeout)


async def _closed(close: Close, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await close()
    except Exception:
        logger.exception("%r failed, as the last app of its event loop ended", close)
