"""The timeouts of a connection: for its actions, its sends and its silence."""

import asyncio
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from wsaction._protocol.close_codes import IDLE, TRY_AGAIN_LATER
from wsaction._protocol.frames import Frame, Lateness
from wsaction._utils.timer import DeadlineTimer
from wsaction.exceptions import ActionTimeout, one_line
from wsaction.transactions import COMMITTING

if TYPE_CHECKING:
    from wsaction._connection.connection import Connection
    from wsaction.consumers import AsyncAPIConsumer

logger = logging.getLogger("wsaction")

NEVER = float("inf")
CANCEL_GRACE = 1.0  # seconds that a cancelled action has to end, before its frame is answered without it
COMMIT_GRACE = 30.0  # the same for a commit, after the action's timeout
BLOCKED_GRACE = 1.0  # if the loop was blocked for so many seconds, overdue actions get as many more


class Deadlines:
    """Timestamps that one alarm of the connection looks at: none has a timer of its own.

    The reader sets ``has_received`` for each message. A send that hangs is found within an eighth of ``send_timeout``
    after it has passed, silence within an eighth of ``idle_timeout``. Time for which the loop was blocked does not
    count there.
    """

    __slots__ = ("_connection", "_idle_since", "_loop", "_sent", "_under_way", "alarm", "has_received")

    def __init__(self, connection: "Connection", under_way: Collection[Frame]) -> None:
        self._connection = connection
        self._under_way = under_way
        self._loop = asyncio.get_running_loop()
        self.alarm = DeadlineTimer(self._loop, self.check)
        self.has_received = True  # whether a message came since the last `check`
        self._idle_since = 0.0
        self._sent = 0  # `Outbox.sent` at the last `check`

    def begin(self, frame: Frame, timeout: float) -> None:
        """A frame is under way: its time is counted from now on, and that of its sends."""
        now = self._loop.time()
        if frame.deadline is None:
            frame.deadline = now + timeout
        self.alarm.call_by(min(frame.deadline, now + self._connection.limits.send_timeout / 8))

    def begin_send(self) -> None:
        """Something is being sent, by no frame."""
        self.alarm.call_by(self._loop.time() + self._connection.limits.send_timeout / 8)

    def extend(self, frame: Frame, seconds: float = CANCEL_GRACE) -> None:
        """Gives a frame that was stopped, or is committing, so many seconds to end; then it is answered without it."""
        frame.deadline = self._loop.time() + seconds
        self.alarm.call_by(frame.deadline)

    def check(self) -> None:
        """Ends what is overdue, and sets the alarm for the next."""
        connection, limits, now = self._connection, self._connection.limits, self._loop.time()
        outbox, blocked_for = connection.outbox, self.alarm.lateness
        if outbox.stuck_for(now, blocked_for) >= limits.send_timeout:
            connection.close_for_limit(TRY_AGAIN_LATER, "send_timeout", "slow consumer")
        for frame in tuple(self._under_way):
            if frame.deadline is not None and frame.deadline <= now:
                if blocked_for < BLOCKED_GRACE:
                    self._overdue(frame)
                else:  # its result may be there, and it had no turn to take it
                    frame.deadline = now + BLOCKED_GRACE
        busy = outbox.busy or bool(self._under_way)
        if self.has_received or busy or outbox.sent != self._sent:
            self.has_received = False
            self._sent = outbox.sent
            self._idle_since = now
        else:
            self._idle_since += blocked_for
            if now - self._idle_since >= limits.idle_timeout:
                connection.close_for_limit(IDLE, "idle_timeout", "idle")
        if not connection.is_closed:
            step = min(limits.idle_timeout, limits.send_timeout if busy else NEVER) / 8
            self.alarm.call_by(min([now + step, *(frame.deadline or NEVER for frame in self._under_way)]))

    def _overdue(self, frame: Frame) -> None:
        """Ends a frame that is under way for too long, or gives it another deadline."""
        if self._connection.outbox.is_sending(frame):
            frame.deadline = NEVER  # it has ended; the send has a bound of its own
        elif frame.is_refused:
            self._give_up(frame, f"{CANCEL_GRACE:g} s after it was cancelled")
        elif frame.unit is not COMMITTING:
            seconds, ctx = self._bound(frame)
            self._connection.stop(frame, ActionTimeout(f"This took longer than {seconds:g} s.", ctx))
        elif frame.lateness is Lateness.NONE:
            frame.lateness = Lateness.COMMIT  # it is too late to time out
            self.extend(frame, COMMIT_GRACE)
        else:
            _, ctx = self._bound(frame)
            frame.fail(ActionTimeout("Its commit goes on and on; whether it is kept is not known.", ctx))
            self._give_up(frame, f"{COMMIT_GRACE:g} s after its timeout, with its commit")

    def _bound(self, frame: Frame) -> tuple[float, dict[str, Any]]:
        seconds = self._connection.timeout(frame)
        return seconds, {"limit": "action_timeout", "value": seconds}

    def _give_up(self, frame: Frame, since: str) -> None:
        consumer: AsyncAPIConsumer | None = frame.consumer  # None for `$auth`
        fields = {"action": frame.action, "route": frame.route[:300]}
        if consumer is not None:
            fields["path"] = consumer.scope["path"]
        logger.error("%s goes on %s", one_line(f"{frame.action} {frame.route}"), since, extra=fields)
        frame.deadline = NEVER
        self._connection.answer_and_detach(frame)
