"""Fan-out: one thing told to many, fast where it is cheap, and in slices where it is not."""

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from wsaction._utils.tasks import Tasks

__all__ = ("CHUNK", "SLICE", "Fanout", "Lane")

logger = logging.getLogger("wsaction")

CHUNK = 64  # recipients between two looks at the clock
SLICE = 0.001  # seconds that one fan-out holds the loop
MAX_UNTOLD = 4  # jobs that wait in a lane before who publishes more waits too
MAX_JOBS = 256  # that wait in a lane; past it the first is finished without regard to the loop


class Recipient(Protocol):
    """Who is told."""

    @property
    def take(self) -> Callable[[Any], None]:
        """Tells it; never waits."""


class _Job:
    """Something told to so many, of whom ``next`` is the first who has yet to be told."""

    __slots__ = ("next", "recipients", "what")

    def __init__(self, what: Any, recipients: Sequence[Recipient]) -> None:
        self.what, self.recipients, self.next = what, recipients, 0


Lane = deque[_Job]
"""What waits to be told, in order; a topic has one."""


class Fanout:
    """Tells things to many recipients without holding the loop for longer than a millisecond or so.

    Within a lane everything is told in the order it was given. ``turn`` gives the loop a turn; ``clock`` counts
    seconds. After every ``chunk`` of recipients it looks whether it has held the loop for ``seconds``.
    """

    def __init__(
        self,
        tasks: Tasks,
        turn: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.perf_counter,
        *,
        chunk: int = CHUNK,
        seconds: float = SLICE,
        max_jobs: int = MAX_JOBS,
    ) -> None:
        self._chunk, self._seconds, self._max_jobs = chunk, seconds, max_jobs
        self._tasks, self._turn, self._clock = tasks, turn, clock
        self._busy: deque[Lane] = deque()  # whose first job is half done
        self._running = False

    def send(self, lane: Lane, what: Any, recipients: Sequence[Recipient]) -> None:
        """Calls ``recipient.take(what)`` for each: at once where that is soon done, else beside what else runs."""
        if not lane and len(recipients) <= self._chunk:
            _tell(what, recipients)
            return
        job = _Job(what, recipients)
        if lane:
            lane.append(job)
            if len(lane) > self._max_jobs:  # who fills it faster than it empties holds the loop himself
                self._finish(lane)
        elif not self._go_on(job):
            lane.append(job)
            self._busy.append(lane)
            if not self._running:
                self._running = True
                self._tasks.start(self._run)

    async def catch_up(self, lane: Lane) -> None:
        """Waits until so little waits in the lane that its publisher may go on."""
        while len(lane) > MAX_UNTOLD:
            await self._turn()

    def _go_on(self, job: _Job) -> bool:
        """Tells some more, and says whether it is done."""
        deadline = self._clock() + self._seconds
        while job.next < len(job.recipients):
            first, job.next = job.next, job.next + self._chunk
            _tell(job.what, job.recipients[first : job.next])
            if self._clock() > deadline:
                break
        return job.next >= len(job.recipients)

    def _finish(self, lane: Lane) -> None:
        job = lane.popleft()
        _tell(job.what, job.recipients[job.next :])

    async def _run(self) -> None:
        """Goes round the busy lanes, a slice each."""
        try:
            while self._busy:
                await self._turn()
                lane = self._busy.popleft()
                if self._go_on(lane[0]):
                    lane.popleft()
                if lane:
                    self._busy.append(lane)
        finally:
            self._running = False


def _tell(what: Any, recipients: Sequence[Recipient]) -> None:
    for recipient in recipients:
        try:
            recipient.take(what)
        except Exception:  # the others have nothing to do with it
            logger.exception("a subscriber could not be told an event")
