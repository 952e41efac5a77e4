"""An event loop with virtual time: when nothing is ready, it jumps to the next timer.

Use it for tests that run in one thread: the loop does not wait for sockets, threads or other processes. A test module
imports `anyio_backend`, and calls `block` instead of ``time.sleep``.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never sleeps. Callbacks run in the same order every time."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._now += seconds

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


def block(seconds: float) -> None:
    """Blocks the running loop for so long. In virtual time its clock jumps, and nothing has run meanwhile either."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualLoop):
        loop.jump(seconds)
    else:
        time.sleep(seconds)


in_virtual_time = pytest.mark.parametrize(
    "anyio_backend", [pytest.param(("asyncio", {"loop_factory": VirtualLoop}), id="virtual")]
)
"""Marks a test of a module whose other tests need real time."""


@pytest.fixture(params=["virtual", pytest.param("uvloop", marks=pytest.mark.slow)])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """In virtual time, and in real time on uvloop where the slow tests run too."""
    if request.param == "virtual":
        return "asyncio", {"loop_factory": VirtualLoop}
    return "asyncio", {"use_uvloop": True}
