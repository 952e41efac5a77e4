"""Fan-out: one thing told to many, fast where it is cheap, and in slices where it is not."""

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wsaction._utils.tasks import Tasks

__all__ = ("CHUNK", "SLICE", "Fanout", "JobQueue")

logger = logging.getLogger("wsaction")

CHUNK = 64  # recipients between two looks at the clock
SLICE = 0.001  # seconds that one fan-out holds the loop
HIGH_WATER = 4  # jobs that wait in a lane before who publishes more waits too
MAX_JOBS = 256  # that wait in a lane; past it the first is finished without regard to the loop


class Recipient(Protocol):
    """Who is told."""

    @property
    def take(self) -> Callable[[Any], None]:
        """Tells it; never waits."""


@dataclass(slots=True)
class _Job:
    """Something told to so many, of whom ``next`` is the first who has yet to be told."""

    item: Any
    recipients: Sequence[Recipient]
    next: int = 0


JobQueue = deque[_Job]
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
        self._tasks = tasks
        self._turn = turn
        self._clock = clock
        self._chunk = chunk
        self._seconds = seconds
        self._max_jobs = max_jobs
        self._busy: deque[JobQueue] = deque()  # whose first job is half done
        self._running = False

    def send(self, queue: JobQueue, item: Any, recipients: Sequence[Recipient]) -> None:
        """Calls ``recipient.take(what)`` for each: at once where that is soon done, else beside what else runs."""
        if not queue and len(recipients) <= self._chunk:
            _send(item, recipients)
            return
        job = _Job(item, recipients)
        if queue:
            queue.append(job)
            if len(queue) > self._max_jobs:  # who fills it faster than it empties holds the loop himself
                first = queue.popleft()
                _send(first.item, first.recipients[first.next :])
        elif not self._send_some(job):
            queue.append(job)
            self._busy.append(queue)
            if not self._running:
                self._running = True
                self._tasks.start(self._run)

    async def catch_up(self, queue: JobQueue) -> None:
        """Waits until so little waits in the lane that its publisher may go on."""
        while len(queue) > HIGH_WATER:
            await self._turn()

    def _send_some(self, job: _Job) -> bool:
        """Tells some more, and says whether it is done."""
        deadline = self._clock() + self._seconds
        while job.next < len(job.recipients):
            first, job.next = job.next, job.next + self._chunk
            _send(job.item, job.recipients[first : job.next])
            if self._clock() > deadline:
                break
        return job.next >= len(job.recipients)

    async def _run(self) -> None:
        """Goes round the busy lanes, a slice each."""
        try:
            while self._busy:
                await self._turn()
                queue = self._busy.popleft()
                if self._send_some(queue[0]):
                    queue.popleft()
                if queue:
                    self._busy.append(queue)
        finally:
            self._running = False


def _send(item: Any, recipients: Sequence[Recipient]) -> None:
    for recipient in recipients:
        try:
            recipient.take(item)
        except Exception:  # the others have nothing to do with it
            logger.exception("a subscriber could not be told an event")
