"""`HooksGate` calls the app's ``around_action`` and ``on_action`` hooks. `wsaction.hooks` says who calls the others."""

import time
from typing import TYPE_CHECKING

from wsaction._connection.gates import Gate
from wsaction._protocol.frames import Frame
from wsaction.exceptions import Cancelled
from wsaction.hooks import ActionInfo

if TYPE_CHECKING:
    from wsaction._connection.connection import Dispatcher
    from wsaction._dispatch.session import Session
    from wsaction._handlers.route_table import Call


class HooksGate(Gate):
    """Calls the app's ``on_action`` hooks for each answered frame, within its ``around_action`` hooks."""

    __slots__ = ("_session",)

    def __init__(self, dispatcher: "Dispatcher", session: "Session") -> None:
        super().__init__(dispatcher)
        self._session = session

    async def run(self, frame: Frame) -> str | None:
        started = time.perf_counter()
        session = self._session
        with session.runtime.hooks.around("around_action", session.consumer, frame.body):
            try:
                return await super().run(frame)
            finally:
                if not frame.is_detached:
                    self._call_hooks(frame, time.perf_counter() - started)

    def _call_hooks(self, frame: Frame, seconds: float) -> None:
        call: Call | None = getattr(frame, "call", None)  # None for a malformed frame, `$auth` or an unknown route
        match = None if call is None else call.target.match
        error, exception = getattr(frame, "failure", (None, None))
        info = ActionInfo(
            consumer=self._session.consumer,
            handler=None if call is None or not call.route_exists else call.mounted.handler_class.__name__,
            action=call.plan.name if call is not None else "$auth" if frame.action == "$auth" else None,
            route=frame.route,
            request_id=frame.request_id,
            status=frame.status or Cancelled.code[0],  # None if the connection has closed
            seconds=seconds,
            pattern=None if match is None else match.route,
            error=error,
            exception=exception,
        )
        self._session.runtime.hooks.call("on_action", info)
