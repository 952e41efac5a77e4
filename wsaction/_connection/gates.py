"""What stands before a connection's dispatcher: each `Gate` has another dispatcher behind it, and changes what it says.

`AuthenticationGate` refuses frames until the client has authenticated, `DrainGate` once the server is stopping.
`BlockingWatch` warns, in debug mode, of actions that block the event loop. `_dispatch.broadcasts.BroadcastOrderGate`
sends broadcasts after the reply, `_dispatch.hooks.HooksGate` calls ``on_action``. Most connections have none of them.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from wsaction._connection.deadlines import NEVER
from wsaction._protocol.close_codes import POLICY_VIOLATION
from wsaction._protocol.frames import Frame, current_frame, encode_reply, reply_tail
from wsaction._utils.blocking import BlockingMonitor
from wsaction._utils.timer import DeadlineTimer
from wsaction.authentication._state import AuthenticationState
from wsaction.exceptions import Busy, NotAuthenticated, ShuttingDown, to_api_error
from wsaction.limits import limit_in
from wsaction.serializers._errors import encode_error

if TYPE_CHECKING:
    from wsaction._connection.connection import Connection, Dispatcher
    from wsaction._handlers.route_table import Call

logger = logging.getLogger("wsaction")

_MAX_ALARM = 3_600.0  # seconds that the alarm is set for: the clock that credentials expire by may be set meanwhile
_STATUSES_WITHOUT_VERDICT = (405, 408, 429)  # on the credential; all others below 500 count as failures


class Gate:
    """A `_connection.connection.Dispatcher` that passes all frames on; a subclass overrides what it changes."""

    __slots__ = ("_dispatcher",)

    def __init__(self, dispatcher: "Dispatcher") -> None:
        self._dispatcher = dispatcher

    def route(self, frame: Frame) -> None:
        self._dispatcher.route(frame)

    def run(self, frame: Frame) -> Coroutine[Any, Any, str | None]:
        return self._dispatcher.run(frame)

    def timeout(self, frame: Frame) -> float:
        return self._dispatcher.timeout(frame)


class AuthenticationGate(Gate):
    """Lets no frame pass that ``state`` refuses, and answers ``$auth``.

    A frame that had to wait is asked about again when its turn comes. Each ``$auth`` is verified within a block of
    ``authenticating``. If it is accepted, ``recheck_user`` starts a task that is awaited before the reply, and until
    that ends another ``$auth`` is refused. After ``max_auth_failures`` credentials that were refused, or whose frame
    the client cancelled, the connection closes with 1008. `watch` closes it with 4401 once it is overdue, until `stop`.
    """

    def __init__(
        self,
        state: AuthenticationState,
        dispatcher: "Dispatcher",
        connection: "Connection",
        authenticating: Callable[[], AbstractContextManager[None]] = nullcontext,
        recheck_user: Callable[[], asyncio.Task[None] | None] | None = None,
        *,
        debug: bool,
    ) -> None:
        super().__init__(dispatcher)
        self._state = state
        self._connection = connection
        self._authenticating = authenticating
        self._recheck_user = recheck_user
        self._debug = debug
        self._failures = 0  # credentials that were refused
        self._recheck: asyncio.Task[None] | None = None  # of `recheck_user`, for the last `$auth`
        self._loop = asyncio.get_running_loop()
        self._alarm = DeadlineTimer(self._loop, self.watch)

    def route(self, frame: Frame) -> None:
        if (error := self._state.gate(frame.action)) is not None:
            frame.refuse(error)
        if frame.action == "$auth":
            frame.consumer = frame.call = None  # type: ignore[assignment]  # in no order, of no handler
        else:
            super().route(frame)

    def run(self, frame: Frame) -> Coroutine[Any, Any, str | None]:
        if frame.error is None and (error := self._state.gate(frame.action)) is not None:
            frame.fail(error)
        if frame.action == "$auth" and frame.error is None:
            return self._answer(frame)
        return super().run(frame)

    def timeout(self, frame: Frame) -> float:
        return NEVER if frame.action == "$auth" else super().timeout(frame)  # it has auth_timeout

    async def _answer(self, frame: Frame) -> str | None:
        current_frame.set(None)  # it has no unit of work: code that reads a token's row commits by itself
        try:
            data = json.dumps(await self._accept_credential(frame.body.get("data")), separators=(",", ":"))
            if frame.error is not None:  # cancelled, which the class that authenticates swallowed
                raise frame.error
            if self._recheck is not None:  # to its end, even if the frame is cancelled
                await asyncio.shield(self._recheck)
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError) and self._connection.is_closed:
                raise
            if frame.is_detached:
                return None
            error = to_api_error(frame.error or exc, what="$auth", debug=self._debug)
            frame.status = error.status
            frame.failure = error, exc
            if (bound := limit_in(error.ctx)) is not None:
                self._connection.on_limit(*bound)
            if error.status < 500 and error.status not in _STATUSES_WITHOUT_VERDICT:
                self._count_failure()
            return encode_error(frame, error)
        frame.status = 200
        return encode_reply(reply_tail("$auth", frame.route), data, 200, frame.request_id)

    async def _accept_credential(self, data: Any) -> dict[str, Any]:
        """Puts a credential in force, even if its frame is cancelled meanwhile."""
        if self._recheck is not None and not self._recheck.done():
            raise Busy("What the last $auth has changed is still being asked about; send it again later.")
        if self._failures >= self._connection.limits.max_auth_failures:  # it is about to be closed
            raise NotAuthenticated("Too many credentials were refused on this connection.")
        with self._authenticating():
            reply_data = await self._state.present(data)
        self.watch()
        if self._recheck_user is not None and not self._connection.is_closed:
            self._recheck = self._recheck_user()
        return reply_data

    def _count_failure(self) -> None:
        """Closes the connection once too many credentials were refused, behind the reply to the last of them."""
        self._failures += 1
        if self._failures >= self._connection.limits.max_auth_failures:
            reason = "too many credentials were refused"
            self._loop.call_soon(self._connection.close_for_limit, POLICY_VIOLATION, "max_auth_failures", reason)

    def watch(self) -> None:
        """Sets the alarm by the state's deadline, or closes an overdue connection. Called once it is accepted."""
        if self._connection.is_closed:  # by a verification that went on although it was cancelled
            return
        if (overdue := self._state.overdue) is not None:
            if self._state.awaited:
                self._connection.close_for_limit(overdue[0], "auth_timeout", "no $auth came")
            else:
                self._connection.close(*overdue)
        elif (left := self._state.time_left) is not None:
            self._alarm.call_by(self._loop.time() + min(left, _MAX_ALARM))

    def stop(self) -> None:
        """Ends the alarm."""
        self._alarm.stop()


class BlockingWatch(Gate):
    """Warns, in debug mode, of an action that blocks the event loop, and of what is called on the way to it."""

    __slots__ = ("_monitor",)

    def __init__(self, dispatcher: "Dispatcher", monitor: BlockingMonitor) -> None:
        super().__init__(dispatcher)
        self._monitor = monitor

    def run(self, frame: Frame) -> Coroutine[Any, Any, str | None]:
        return self._monitor.watch(self._dispatcher.run(frame), partial(_action_name, frame))


def _action_name(frame: Frame) -> str | None:
    call: Call | None = getattr(frame, "call", None)
    if call is None:
        return frame.action if frame.action == "$auth" else None
    if not call.route_exists or call.plan.name is None:
        return None
    return f"the action {call.mounted.handler_class.__name__}.{call.plan.name}"


class DrainGate(Gate):
    """Starts no more frames but the protocol's own."""

    __slots__ = ()

    def route(self, frame: Frame) -> None:
        super().route(frame)
        if self._refuses(frame):
            frame.refuse(ShuttingDown())

    def run(self, frame: Frame) -> Coroutine[Any, Any, str | None]:
        if self._refuses(frame):  # it had waited
            frame.fail(ShuttingDown())
        return super().run(frame)

    def _refuses(self, frame: Frame) -> bool:
        return frame.error is None and not (frame.action or "").startswith("$")
