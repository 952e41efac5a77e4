"""Endings: what is made on the way and used by whoever is there is closed when the last app of its event loop ends."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

__all__ = ("close_at_end", "living")

logger = logging.getLogger("wsaction")

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
async def living() -> AsyncIterator[None]:
    """An app lives on the running event loop for as long as the block takes."""
    here = _here()
    here.apps += 1
    try:
        yield
    finally:
        here.apps -= 1
        while here.closing and not here.apps:
            close, _ = here.closing.popitem()
            await _closed(close)


async def _closed(close: Close) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await close()
    except Exception:
        logger.exception("%r failed, as the last app of its event loop ended", close)
