"""Fan-out: sends one item to many recipients, at once if that is quick, in slices of the event loop's time if not."""

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wsaction._utils.tasks import Tasks

logger = logging.getLogger("wsaction")

CHUNK = 64  # recipients between two checks of the clock
SLICE = 0.001  # seconds for which a fan-out holds the event loop
HIGH_WATER = 4  # jobs in a queue; with more, the publisher waits
MAX_JOBS = 256  # jobs in a queue; with more, the first one is finished at once, however long that takes


class Recipient(Protocol):
    """Gets the items of a fan-out."""

    @property
    def take(self) -> Callable[[Any], None]:
        """Sends it one item, without waiting."""


@dataclass(slots=True)
class _Job:
    """An item for some recipients. ``next`` is the index of the first recipient that has yet to get it."""

    item: Any
    recipients: Sequence[Recipient]
    next: int = 0


JobQueue = deque[_Job]
"""The jobs of a topic that wait, in order."""


class Fanout:
    """Sends items to many recipients without holding the event loop for much longer than a millisecond.

    Items of one queue are sent in the order of `send`. ``turn`` lets the loop run once, ``clock`` returns seconds.
    After every ``chunk`` recipients the fan-out pauses if it has held the loop for ``seconds``.
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
        self._busy: deque[JobQueue] = deque()  # queues whose first job is under way
        self._running = False

    def send(self, queue: JobQueue, item: Any, recipients: Sequence[Recipient]) -> None:
        """Calls ``recipient.take(item)`` for each recipient: at once if that is quick, otherwise partly in a task."""
        if not queue and len(recipients) <= self._chunk:
            _send(item, recipients)
            return
        job = _Job(item, recipients)
        if queue:
            queue.append(job)
            if len(queue) > self._max_jobs:  # publishers are faster than the fan-out: the queue stays bounded
                first = queue.popleft()
                _send(first.item, first.recipients[first.next :])
        elif not self._send_some(job):
            queue.append(job)
            self._busy.append(queue)
            if not self._running:
                self._running = True
                self._tasks.start(self._run)

    async def catch_up(self, queue: JobQueue) -> None:
        """Waits until at most `HIGH_WATER` jobs are in the queue, to slow its publisher down."""
        while len(queue) > HIGH_WATER:
            await self._turn()

    def _send_some(self, job: _Job) -> bool:
        """Sends for one slice of time. Returns whether the job is done."""
        deadline = self._clock() + self._seconds
        while job.next < len(job.recipients):
            first, job.next = job.next, job.next + self._chunk
            _send(job.item, job.recipients[first : job.next])
            if self._clock() > deadline:
                break
        return job.next >= len(job.recipients)

    async def _run(self) -> None:
        """Serves the busy queues in turn, a slice each."""
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
        except Exception:  # the other recipients must still get the item
            logger.exception("an event could not be sent to a subscriber")
