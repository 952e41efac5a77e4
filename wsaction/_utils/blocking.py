"""`BlockingMonitor`: in debug mode, says which code blocks the event loop, and on which line it stood."""

import asyncio
import linecache
import logging
import sys
import sysconfig
import threading
import time
import types
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any, TypeVar

logger = logging.getLogger("wsaction")

T = TypeVar("T")

IDLE = 1.0  # seconds without anything to watch after which the sampling thread ends
_OURS = str(Path(__file__).parents[1])
_INSTALLED = tuple({_OURS, *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))})


class BlockingMonitor:
    """Watches the coroutines of one event loop, a step at a time: from where it goes on to where it waits again.

    A step that takes longer than the loop's ``slow_callback_duration`` (0.1 s unless it was set) blocks the loop. It is
    logged once for each name: ``warned`` has these, for all loops of an app. A thread looks at the stack meanwhile, to
    say where the code stood.
    """

    def __init__(self, warned: set[str]) -> None:
        self._warned = warned
        self._longest: float = getattr(asyncio.get_running_loop(), "slow_callback_duration", 0.1)
        self._thread_id = threading.get_ident()
        self._started: float | None = None  # when the step began that runs
        self._number = 0  # of that step
        self._sampled: tuple[int, str] = (0, "")  # a step, and where it stood
        self._sampler: threading.Thread | None = None

    @types.coroutine
    def watch(self, running: Coroutine[Any, Any, T], name: Callable[[], str | None]) -> Generator[Any, Any, T]:
        """Runs a coroutine. ``name`` says what it is; None: it is not watched."""
        value: Any = None
        raised: BaseException | None = None
        while True:
            is_outermost = self._started is None
            if is_outermost:
                self._begin()
            try:
                awaited = running.send(value) if raised is None else running.throw(raised)
            except StopIteration as done:
                result: T = done.value
                return result
            finally:
                if is_outermost:
                    self._end(name)
            try:
                value, raised = (yield awaited), None
            except BaseException as exc:  # a cancellation, which is the coroutine's to take
                value, raised = None, exc

    def _begin(self) -> None:
        self._number += 1
        self._started = time.perf_counter()
        if self._sampler is None:
            self._sampler = threading.Thread(target=self._sample, name="wsaction.blocking", daemon=True)
            self._sampler.start()

    def _end(self, name: Callable[[], str | None]) -> None:
        seconds = time.perf_counter() - (self._started or 0.0)
        self._started = None
        if seconds <= self._longest or (named := name()) is None or named in self._warned:
            return
        self._warned.add(named)
        number, place = self._sampled
        logger.warning(
            "%s blocked the event loop for %.2f s%s. Nobody else was served meanwhile; await what it waits for, or run "
            "it in a thread: a plain def of an action or a dependency runs in one",
            named,
            seconds,
            f" at {place}" if number == self._number else "",
        )

    def _sample(self) -> None:
        """Runs in the thread: looks where a step stands that takes too long."""
        interval = self._longest / 4
        idle = 0.0
        while idle < IDLE:
            time.sleep(interval)
            started, number = self._started, self._number
            idle = 0.0 if started is not None else idle + interval
            if started is None or number == self._sampled[0] or time.perf_counter() - started <= self._longest:
                continue
            place = _place(sys._current_frames().get(self._thread_id))
            if number == self._number:  # else the step ended meanwhile
                self._sampled = number, place
        self._sampler = None


def _place(frame: types.FrameType | None) -> str:
    """The innermost line of the application's own code on a stack, or the innermost line of all."""
    innermost = frame
    while frame is not None and frame.f_code.co_filename.startswith(_INSTALLED):
        frame = frame.f_back
    found = frame or innermost
    if found is None:
        return "an unknown place"
    code, line = found.f_code, found.f_lineno
    text = linecache.getline(code.co_filename, line).strip()
    return f"{code.co_filename}:{line}, in {code.co_qualname}: {text}".rstrip(": ")
