"""`Alarm`: one timer for all the deadlines of a connection."""

import asyncio
from collections.abc import Callable

__all__ = ("Alarm",)


class Alarm:
    """Calls ``callback()`` once the earliest of the times that it was told has come; then it is told of the next.

    Deadlines are timestamps kept where they belong. Most are never reached, so none has a timer of its own: ``by`` is a
    comparison unless the time is earlier than all before it. Times are those of the event loop's clock, in seconds.

    >>> alarm = Alarm(loop, look_at_deadlines)
    >>> alarm.by(loop.time() + 30)
    """

    __slots__ = ("_at", "_callback", "_loop", "_timer", "late")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._at = _NEVER
        self._timer: asyncio.TimerHandle | None = None
        self.late = 0.0  # seconds between when it should have rung last and when it did

    def by(self, at: float) -> None:
        """Rings no later than ``at``; ``inf`` asks for nothing."""
        if at < self._at:
            if self._timer is not None:
                self._timer.cancel()
            self._at = at
            self._timer = self._loop.call_at(at, self._fire)

    def stop(self) -> None:
        """Forgets what it was told."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._at = _NEVER

    def _fire(self) -> None:
        self.late = max(self._loop.time() - self._at, 0.0)
        self._timer = None
        self._at = _NEVER
        self._callback()


_NEVER = float("inf")
