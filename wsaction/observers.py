"""Observers: a session that tells the app's hooks of each frame."""

import time
from typing import Any

from wsaction.dispatch import Session
from wsaction.exceptions import Cancelled
from wsaction.frames import Frame
from wsaction.hooks import ActionInfo

__all__ = ("ObservedSession",)


class ObservedSession(Session):
    """A `Session` that tells the app's hooks of each frame that was answered."""

    __slots__ = ()

    async def run(self, frame: Frame) -> str | None:
        started = time.perf_counter()
        try:
            return await super().run(frame)
        finally:
            if not frame.disowned:
                self.tell(frame, time.perf_counter() - started)

    def tell(self, frame: Frame, seconds: float) -> None:
        """A frame was answered, by the session or by what stands before it."""
        call: Any = getattr(frame, "call", None)  # None: it was none, or could not be routed
        info = ActionInfo(
            consumer=self.consumer,
            handler=None if call is None or not call.found else call.mounted.handler_class.__name__,
            action=call.plan.name if call is not None else "$auth" if frame.action == "$auth" else None,
            route=frame.route,
            request_id=frame.request_id,
            status=getattr(frame, "status", Cancelled.code[0]),  # unset: the connection has ended
            seconds=seconds,
        )
        self.runtime.hooks.call("on_action", info)
