"""An event loop with virtual time: when nothing is ready, it jumps to the next timer."""

from __future__ import annotations

import asyncio
from typing import Any


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never sleeps. Callbacks run in the same order every time."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        loop: Any = self
        if not loop._ready and loop._scheduled:
            first = loop._scheduled[0]
            if first.cancelled():  # the loop drops it, and would then sleep until the next one
                first = min((one for one in loop._scheduled if not one.cancelled()), default=first)
            self._now = max(self._now, first._when)
        super()._run_once()  # type: ignore[misc]


def run(main: Any) -> Any:
    """Runs ``main`` in virtual time and returns its result."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()
