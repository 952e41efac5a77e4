"""The gate of a connection that authenticates: it stands before the dispatcher and answers ``$auth`` itself."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, Protocol

from wsaction.admission import AuthenticationState
from wsaction.exceptions import to_api_error
from wsaction.frames import Frame, encode_error, encode_reply, reply_tail

__all__ = ("Gate",)

_LONGEST = 3_600.0  # seconds that a timer is set for; the clock that credentials expire by may be set meanwhile


class _Dispatcher(Protocol):
    def route(self, frame: Frame) -> None: ...

    async def run(self, frame: Frame) -> str | None: ...


class _Connection(Protocol):
    @property
    def ended(self) -> bool: ...

    def close(self, code: int, reason: str) -> None: ...


class Gate:
    """A `connections.Dispatcher` around another one: no frame gets past it that ``state`` refuses.

    What is wrong with a refused frame otherwise is not told. A frame that had to wait is asked about again when its
    turn comes. `watch` keeps one timer, which closes the connection (4401) once it is overdue; `stop` ends it.
    """

    __slots__ = ("_connection", "_debug", "_dispatcher", "_state", "_timer")

    def __init__(
        self, state: AuthenticationState, dispatcher: _Dispatcher, connection: _Connection, *, debug: bool
    ) -> None:
        self._state, self._dispatcher, self._connection, self._debug = state, dispatcher, connection, debug
        self._timer: asyncio.TimerHandle | None = None

    def route(self, frame: Frame) -> None:
        frame.error = self._state.gate(frame.action) or frame.error
        if frame.action == "$auth":
            frame.consumer = None  # in no order, of no handler
        else:
            self._dispatcher.route(frame)

    def run(self, frame: Frame) -> Coroutine[Any, Any, str | None]:
        frame.error = frame.error or self._state.gate(frame.action)
        if frame.action == "$auth" and frame.error is None:
            return self._answer(frame)
        return self._dispatcher.run(frame)

    async def _answer(self, frame: Frame) -> str:
        try:
            data = await self._state.present(frame.body.get("data"))
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError) and self._connection.ended:
                raise
            return encode_error(frame, to_api_error(frame.error or exc, what="$auth", debug=self._debug))
        self.watch()
        return encode_reply(reply_tail("$auth", frame.route), json.dumps(data), 200, frame.request_id)

    def watch(self) -> None:
        """Sets the timer by the state's deadline, or closes what is overdue. To be called once accepted."""
        self.stop()
        if (overdue := self._state.overdue) is not None:
            self._connection.close(*overdue)
        elif (left := self._state.time_left) is not None:
            self._timer = asyncio.get_running_loop().call_later(min(left, _LONGEST), self.watch)

    def stop(self) -> None:
        """Ends the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
