"""`Flusher`: empties many outboxes with one task.

An event for a thousand connections fills a thousand outboxes. A task for each would cost more than the sends, and a
single task would wait for the slowest client. So one task leads, as with a connection's frames: it empties one outbox
after the other. If a send makes it wait, the task becomes the connection's own and another one leads.
"""

import asyncio
import logging
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING

from wsaction._protocol.frames import current_frame
from wsaction._utils.tasks import is_being_cancelled, new_task

if TYPE_CHECKING:
    from wsaction._connection.outbox import Outbox

logger = logging.getLogger("wsaction")

OUTBOXES_IN_A_ROW = 64  # that are emptied before the loop has its turn


class Flusher:
    """Empties outboxes in the order they were added; those of one event loop share one.

    It holds an outbox from ``add`` until it is emptied, at most once each, so there are no more than connections.
    """

    __slots__ = ("_base_context", "_current", "_hand_over_scheduled", "_leader", "_loop", "_outboxes")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._base_context = copy_context()
        self._base_context.run(current_frame.set, None)
        self._outboxes: deque[Outbox] = deque()
        self._leader: asyncio.Task[None] | None = None
        self._current: Outbox | None = None  # what the leader empties
        self._hand_over_scheduled = False

    def add(self, outbox: "Outbox") -> None:
        """Empties an outbox soon. It may be added again once it is empty."""
        self._outboxes.append(outbox)
        if self._leader is None or self._leader.done():  # done: all tasks of the loop were cancelled
            self._start_leader()

    def _start_leader(self) -> None:
        self._leader = new_task(self._loop, self._lead(), self._base_context.copy())

    async def _lead(self) -> None:
        emptied = 0
        while self._outboxes:
            self._current = outbox = self._outboxes.popleft()
            if not self._hand_over_scheduled:
                self._hand_over_scheduled = True
                self._loop.call_soon(self._hand_over)
            try:
                while (text := outbox.next()) is not None:
                    try:
                        await outbox.asgi_send({"type": "websocket.send", "text": text})
                    except (Exception, asyncio.CancelledError) as exc:
                        if isinstance(exc, asyncio.CancelledError) and is_being_cancelled():
                            raise
                        outbox.on_send_error(exc)
                        break
            except (Exception, asyncio.CancelledError) as exc:
                outbox.pause()
                outbox.close_after_failed_send()
                if isinstance(exc, asyncio.CancelledError):
                    raise
                logger.critical("an outbox failed; this is a bug of wsaction", exc_info=exc)
            if self._current is not outbox:  # it had to wait: this task became the outbox's own, and another leads
                return
            self._current = None
            if (emptied := emptied + 1) % OUTBOXES_IN_A_ROW == 0:
                await asyncio.sleep(0)
        self._leader = None

    def _hand_over(self) -> None:
        """Runs when the leader suspends. If it waits in a send, another task leads on."""
        self._hand_over_scheduled = False
        if self._current is not None and self._leader is not None:
            outbox, task = self._current, self._leader
            self._current = self._leader = None
            outbox.adopt(task)
            if self._outboxes:
                self._start_leader()
