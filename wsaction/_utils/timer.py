"""`DeadlineTimer`: one timer for many deadlines."""

import asyncio
from collections.abc import Callable


class DeadlineTimer:
    """Calls ``callback()`` once, at the earliest of the requested times, and then forgets them all.

    The callback looks at its deadlines and requests the next time by ``call_by``. Most deadlines are never reached, so
    none has a timer of its own: ``call_by`` only compares, unless the time is the earliest so far. Times are in
    seconds, by the event loop's clock.

    >>> alarm = Alarm(loop, look_at_deadlines)
    >>> alarm.by(loop.time() + 30)
    """

    __slots__ = ("_at", "_callback", "_loop", "_timer", "lateness")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._at = _NEVER
        self._timer: asyncio.TimerHandle | None = None
        self.lateness = 0.0  # seconds that the last call came too late

    def call_by(self, at: float) -> None:
        """Calls back at ``at`` or earlier; ``inf`` does nothing."""
        if at < self._at:
            if self._timer is not None:
                self._timer.cancel()
            self._at = at
            self._timer = self._loop.call_at(at, self._fire)

    def stop(self) -> None:
        """Forgets the requested times."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._at = _NEVER

    def _fire(self) -> None:
        self.lateness = max(self._loop.time() - self._at, 0.0)
        self._timer = None
        self._at = _NEVER
        self._callback()


_NEVER = float("inf")
