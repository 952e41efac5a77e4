"""From a frame to its handler: route → permissions → parameters → action → encode.

A `Session` is one connection's way through a `_handlers.route_table.RouteTable`, and the
`_connection.connection.Dispatcher` that the connection asks. `wsaction.handlers` declares the actions ``$ping`` and
``$cancel``; ``$auth`` is answered by `_connection.gates.AuthenticationGate`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any

from wsaction._connection.connection import Connection
from wsaction._connection.deadlines import NEVER
from wsaction._dispatch.broadcasts import Group, broadcast
from wsaction._dispatch.middleware import handle_exception, wrap
from wsaction._events.reauthorization import Grant, Stream
from wsaction._handlers.action import Action, Binding
from wsaction._handlers.dependencies import Dependencies
from wsaction._handlers.route_table import MAX_CACHED_ROUTES_OF_A_CONNECTION, Call, RouteTable, Target, Targets
from wsaction._handlers.signatures import read_dependencies
from wsaction._protocol.frames import Frame, Lateness, Unawaited, current_frame, encode_reply, new_frame, quote, size_of
from wsaction._protocol.scope import connection_captures, connection_path, topic_of
from wsaction._utils.tasks import is_closed_with
from wsaction.exceptions import (
    APIError,
    Cancelled,
    PermissionDenied,
    ReplyTooLarge,
    RouteNotFound,
    one_line,
    to_api_error,
)
from wsaction.limits import limit_in
from wsaction.permissions._classes import raise_refusal, require
from wsaction.serializers._errors import encode_error
from wsaction.throttling import MemoryThrottleStore, check_throttles
from wsaction.transactions import COMMITTING, complete, roll_back

if TYPE_CHECKING:
    from wsaction._events.subscribe import Attempt
    from wsaction._server.runtime import Runtime
    from wsaction.consumers import AsyncAPIConsumer
    from wsaction.handlers import AsyncAPIActionHandler
    from wsaction.layers.base import Place, Roster

logger = logging.getLogger("wsaction")

ITEMS_IN_A_ROW = 32  # of a stream that never waits, before the event loop has its turn


class Session:
    """One connection's way from a frame to its handler; ``consumer`` is the root's instance for this connection."""

    __slots__ = (
        "_name",
        "attempts",
        "cached_calls",
        "connection",
        "consumer",
        "fast_path_size",
        "grants",
        "group",
        "join_rates",
        "loop_state",
        "no_middleware",
        "present",
        "rechecks",
        "runtime",
        "scope",
        "streams",
        "table",
        "targets",
        "topic_prefix",
    )

    def __init__(
        self, table: RouteTable, runtime: "Runtime", scope: Any, connection: Connection, consumer: "AsyncAPIConsumer"
    ) -> None:
        self.table = table
        self.runtime = runtime
        self.scope = scope
        self.loop_state = runtime.loop_state
        self.topic_prefix = topic_of(connection_path(scope), "")  # names of topics are this and a canonical route
        self.no_middleware = not runtime.middleware
        self.connection = connection
        self.consumer = consumer
        self.group: Group | None = None  # gets the broadcasts of its consumer
        self.grants: dict[tuple[str, str], Grant] = {}  # the rights of its subscriptions, by topic and route
        self.attempts: dict[tuple[str, str], Attempt] = {}  # the frames that are about to subscribe, by the same
        self.present: dict[str, tuple[Roster, Place, str]] = {}  # by topic: where the user is counted, and as whom
        self._name: str | None = None
        self.join_rates: MemoryThrottleStore | None = None  # how often it joined topics with presence
        self.streams: dict[Stream, None] = {}  # that run
        self.rechecks = 0  # times that `recheck` was called: rights may have changed since a check before
        self.fast_path_size = connection.limits.max_outbox_bytes // 4  # characters
        self.targets = table.targets
        args, captures = connection_captures(scope)
        if args or captures:
            self.targets = Targets(table, args, captures, MAX_CACHED_ROUTES_OF_A_CONNECTION)
        self.cached_calls = self.targets.calls

    @property
    def name(self) -> str:
        """The name of the connection's user if nobody has signed in."""
        if self._name is None:
            self._name = f"anonymous:{token_urlsafe(9)}"
        return self._name

    def connection_frame(self) -> Frame:
        """The frame of code that runs outside of one: it calls nothing and has the connection's own captures."""
        frame = new_frame({}, None, "", None)
        args, captures = connection_captures(self.scope)
        query = self.scope.get("query_string", b"").decode("latin-1")
        call = Target("", None, args, captures, "", query).call("", self.table, frame)
        call.name = None
        frame.consumer = self.consumer
        frame.call = call
        return frame

    def route(self, frame: Frame) -> None:
        """Sets the frame's call and its place in the order."""
        if frame.error is not None:
            return
        try:
            call = self.cached_calls[frame.route][frame.action]
        except KeyError:
            try:
                call = self._resolve(frame)
            except Exception as exc:  # a converter may raise anything
                frame.refuse(to_api_error(exc, what=_log_name(frame), debug=self.runtime.debug))
                return
        frame.consumer = self.consumer
        frame.call = call
        frame.key = call.key

    def _resolve(self, frame: Frame) -> Call:
        """The call of a frame that is the first of its kind, or whose calls are not kept."""
        target = self.targets.resolve(frame.route)
        action: str = frame.action  # type: ignore[assignment]  # it has one, or an error
        return target.calls.get(action) or target.call(action, self.table, frame)

    def timeout(self, frame: Frame) -> float:
        """Seconds that the frame may take."""
        if frame.is_refused:
            return NEVER
        action = frame.call.plan.action
        timeout = None if action is None else action.options.timeout
        return self.connection.limits.action_timeout if timeout is None else timeout

    async def run(self, frame: Frame) -> str | None:
        """The frame's reply: permissions, throttles, parameters, action, encoding; or the error on the way."""
        handler: AsyncAPIActionHandler | None = None
        try:
            if frame.error is not None:
                raise frame.error
            call: Call = frame.call
            scope, action, called = self.scope, call.action, call.mounted
            handler = called.handler(frame, scope)
            for mounted, check, takes_keywords in call.permission_checks:
                owner = handler if mounted is called else mounted.handler(frame, scope)
                if check is None:
                    await require(owner, "check_permissions")
                elif (
                    verdict := check((scope, owner, call.name), frame.keywords if takes_keywords else dict)
                ) is not None:
                    await raise_refusal(verdict)
            if call.throttles:
                await self._throttle(frame, call, handler)
            if action is None:
                raise self._not_found_error(frame, call)
            binding = call.binding or call.bind_captures(action)
            if action.plain and self.no_middleware:
                start = binding.start  # faster than a call of a method; so is `write` below
                result = await start(handler, frame)
            elif action.dependencies is None:
                result = await self._run_with_middleware(
                    frame, action, handler, binding, action.bind_frame(binding, frame)
                )
            else:
                result = await self._run_with_dependencies(frame, action, handler, binding, action.dependencies)
            if frame.error is not None:  # the action swallowed its cancellation, or did not await a check
                raise frame.error
            frame.status = action.status
            reply = None
            if not action.silent and (frame.held is None or not frame.is_answered_by_held(result)):
                if action.returns_status is not False:
                    result, frame.status = action.split(result)
                write, request_id = action.write, frame.request_id
                data = write(result)
                if type(request_id) is str and frame.status == action.status:  # as `encode_reply` does
                    reply = f'{{"errors":[],"data":{data}{call.tail_with_status},"request_id":{quote(request_id)}}}'
                else:
                    reply = encode_reply(call.tail, data, frame.status, request_id)
                if len(reply) > self.fast_path_size and (error := self._too_large(reply)) is not None:
                    raise error
            unit = frame.unit
            frame.unit = COMMITTING
            if unit is not None:
                await unit.commit()
                if frame.lateness is Lateness.DETACHED:
                    frame.finish_held(failed=True)
                    return None
            if frame.held is not None:
                self._send_before_held(frame, reply)
                return None
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # a cancellation too, as its client waits, unless the connection has ended
            if is_closed_with(exc, frame.task or self.connection.leader):
                raise
            frame.status = Cancelled.code[0]  # until the reply says more
            frame.finish_held(failed=True)
            await roll_back(frame)
            if self.connection.is_closed and isinstance(exc, asyncio.CancelledError):
                raise
            if self.runtime.exception_handlers and frame.error is None and call.mounted is not self.table.protocol:
                exc = await self._handle_exception(handler or self.consumer, exc)
            if isinstance(frame.error, Unawaited) and frame.error is not exc:
                frame.error.__context__ = exc  # its consequence, as a rule
            elif frame.error not in (None, exc) and isinstance(exc, Exception) and not isinstance(exc, APIError):
                logger.error("%s failed to end cleanly as it was cancelled", one_line(_log_name(frame)), exc_info=exc)
            return self._error_reply(frame, frame.error or exc)
        return reply

    def _send_before_held(self, frame: Frame, reply: str | None) -> None:
        """Sends the reply before the work that waits for it goes on."""
        senders = [work.send_reply for work in frame.held or () if work.send_reply is not None]
        if senders:
            senders[0](reply)
        elif reply is not None:
            self.connection.put(self.connection.outbox.translate(reply, frame))
        frame.finish_held()

    async def answer(self, frame: Frame) -> str:
        """The JSON that the action of a frame within another frame's returns; raises what the action raises.

        Permissions and throttles are asked as for any action, and its unit of work is its own.
        """
        call = frame.call
        action: Action = call.plan.action  # type: ignore[assignment]  # there is one
        token = current_frame.set(frame)
        frame.task = asyncio.current_task()  # whose its unit of work is
        try:
            handler = await self.allow(frame)
            if call.throttles:
                await self._throttle(frame, call, handler)
            binding = call.bind_captures(action)
            if action.dependencies is None:
                result = await self._run_with_middleware(
                    frame, action, handler, binding, action.bind_frame(binding, frame)
                )
            else:
                result = await self._run_with_dependencies(frame, action, handler, binding, action.dependencies)
            if action.returns_status is not False:
                result, _ = action.split(result)
            if frame.error is not None:  # cancelled, or a check is not awaited
                raise frame.error
            data = action.write(result)
            await complete(frame)
            frame.status = 200
            frame.finish_held()
        except BaseException:
            frame.status = 500
            frame.finish_held(failed=True)
            await roll_back(frame)
            raise
        finally:
            current_frame.reset(token)
        return data

    async def allow(self, frame: Frame, *, include_overridden: bool = True) -> "AsyncAPIActionHandler":
        """Returns the handler of a frame, once all permissions for its action have allowed it.

        ``include_overridden``: whether a handler that overrides the permission hooks is asked too. Raises
        `PermissionDenied`.
        """
        call = frame.call
        handler = call.mounted.handler(frame, self.scope)
        for mounted, check, _ in call.permission_checks:
            owner = handler if mounted is call.mounted else mounted.handler(frame, self.scope)
            if check is None:
                if include_overridden or mounted is not call.mounted:
                    await require(owner, "check_permissions")
            elif (verdict := check((self.scope, owner, call.name), frame.keywords)) is not None:
                await raise_refusal(verdict)
        return handler

    async def _run_with_middleware(
        self,
        frame: Frame,
        action: Action,
        handler: "AsyncAPIActionHandler",
        binding: Binding,
        parameters: dict[str, Any],
        *,
        finishes: bool = False,
    ) -> Any:
        """Runs an action that is not ``plain``, or that middleware stands before.

        ``finishes``: some of its parameters are closed once it returns, so that its thread has to have ended by then.
        """
        args = action.positional(binding, parameters) if binding.rest else ()
        if self.no_middleware or frame.call.mounted is self.table.protocol:
            return await self._run_action(frame, action, handler, args, parameters, finishes)

        async def innermost(handler: "AsyncAPIActionHandler") -> Any:
            return await self._run_action(frame, action, handler, args, parameters, finishes)

        return await wrap(self.runtime.middleware, innermost)(handler)

    async def _run_action(
        self,
        frame: Frame,
        action: Action,
        handler: "AsyncAPIActionHandler",
        args: tuple[Any, ...],
        parameters: dict[str, Any],
        finishes: bool,
    ) -> Any:
        """Runs a stream, a sync function, or a coroutine."""
        if action.streams:
            return await self._run_stream(frame, action, handler, action.function(handler, *args, **parameters))
        if action.threaded:
            run = self.runtime.threads.run_to_end if finishes else self.runtime.threads.run
            result = await run(action.function, handler, *args, **parameters)
        else:
            result = await action.function(handler, *args, **parameters)
        if action.options.mode == "broadcast":
            value, status = (result, action.status) if action.returns_status is False else action.split(result)
            await broadcast(handler, action.options.broadcast_type, action.write(value), status)
        return result

    async def _run_with_dependencies(
        self,
        frame: Frame,
        action: Action,
        handler: "AsyncAPIActionHandler",
        binding: Binding,
        dependencies: Dependencies,
    ) -> Any:
        """Runs an action with its dependencies. Its result is written while they live, as it may read from them."""
        if self.runtime.dependency_overrides:
            dependencies = read_dependencies(dependencies.where, dependencies.roots, self.runtime.dependency_overrides)
        parameters, bound = action.bind_all(binding, frame, dependencies)
        async with AsyncExitStack() as stack:
            parameters |= await dependencies.resolve(bound, frame, handler, stack, self.runtime.threads)
            result = await self._run_with_middleware(
                frame, action, handler, binding, parameters, finishes=dependencies.finishes
            )
            if frame.error is not None:  # cancelled, which the action swallowed
                raise frame.error
            if not action.silent and not frame.is_answered_by_held(result):
                result = action.written(result)
        return result

    async def _run_stream(
        self, frame: Frame, action: Action, handler: "AsyncAPIActionHandler", items: AsyncGenerator[Any]
    ) -> None:
        """Sends each item as a partial reply, as fast as the client reads, and closes the generator in any case."""
        stream = Stream(self, frame, always=getattr(handler, "recheck", False))
        self.streams[stream] = None
        try:
            if self.rechecks and not await stream.still_holds():  # perhaps after its permissions were asked
                raise PermissionDenied
            await self._send_items(frame, action, stream, items)
        finally:
            self.streams.pop(stream, None)

    async def _send_items(self, frame: Frame, action: Action, stream: Stream, items: AsyncGenerator[Any]) -> None:
        sent = 0
        async with aclosing(items):
            async for item in items:
                if stream.must_wait:
                    await stream.wait_until_allowed()
                if frame.error is not None:  # cancelled, which the generator swallowed
                    raise frame.error
                frame.deadline = NEVER  # a timeout bounds the first item
                reply = encode_reply(frame.call.tail, action.write(item), 206, frame.request_id)
                if len(reply) > self.fast_path_size and (error := self._too_large(reply)) is not None:
                    raise error
                await complete(frame)
                await self.connection.outbox.offer(reply)
                frame.has_sent_item = True
                frame.finish_held()
                if (sent := sent + 1) % ITEMS_IN_A_ROW == 0:
                    await asyncio.sleep(0)

    async def _throttle(self, frame: Frame, call: Call, handler: "AsyncAPIActionHandler") -> None:
        for mounted, throttles in call.throttles:
            owner = handler if mounted is call.mounted else mounted.handler(frame, self.scope)
            if throttles is None:
                await require(owner, "check_throttles")
            else:
                await check_throttles(throttles, self.scope, owner, call.name)

    def _not_found_error(self, frame: Frame, call: Call) -> APIError:
        if call.route_exists:
            return call.mounted.refusal(frame, self.runtime.debug)
        if not (self.runtime.debug or logger.isEnabledFor(logging.INFO)):
            return RouteNotFound()
        text = self.table.nearest(frame.route)
        logger.info("%s", text, extra={"status": 404})
        return RouteNotFound(text if self.runtime.debug else None)

    def check_size(self, reply: str) -> None:
        """Raises `ReplyTooLarge` for a reply that is larger than ``max_outbox_bytes``."""
        if (error := self._too_large(reply)) is not None:
            raise error

    def _too_large(self, reply: str) -> APIError | None:
        limit = self.connection.limits.max_outbox_bytes
        if (size := size_of(reply)) <= limit:
            return None
        ctx = {"limit": "max_outbox_bytes", "value": limit}
        return ReplyTooLarge(f"The reply has {size} bytes; max_outbox_bytes is {limit}.", ctx)

    async def _handle_exception(self, handler: "AsyncAPIActionHandler", exc: BaseException) -> BaseException:
        """The exception that the app's ``exception_handlers`` make of this one."""
        try:
            return await handle_exception(self.runtime.exception_handlers, handler, exc)
        except (Exception, asyncio.CancelledError) as raised:
            if self.connection.is_closed and isinstance(raised, asyncio.CancelledError):
                raise
            return raised

    def _error_reply(self, frame: Frame, exc: BaseException) -> str | None:
        """The error reply for an exception; None once the frame is detached. Raises nothing."""
        if frame.is_detached:
            return None
        task = asyncio.current_task()
        while task is not None and task.cancelling():
            task.uncancel()
        try:
            error = to_api_error(exc, what=_log_name(frame), debug=self.runtime.debug)
            reply = encode_error(frame, error)
        except Exception as raised:  # the attributes of an application's own error may be anything
            error = to_api_error(raised, what=f"the error reply to {_log_name(frame)}", debug=False)
            reply = encode_error(frame, error)
        if (too_large := self._too_large(reply)) is not None:
            error, reply = too_large, encode_error(frame, too_large)
        frame.status = error.status
        frame.failure = error, exc
        if (bound := limit_in(error.ctx)) is not None:
            self.runtime.hooks.call("on_limit", self.consumer, *bound)
        return reply


def _log_name(frame: Frame) -> str:
    return f"{frame.action} {frame.route}"[:200]
