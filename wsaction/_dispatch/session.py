"""From a frame to its handler: route → permissions → parameters → action → encode.

A `Session` is one connection's way through a `_handlers.route_table.RouteTable`, and the
`_connection.connection.Dispatcher` that the connection asks.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any

from wsaction._connection.connection import Connection
from wsaction._dispatch.broadcasts import Group, broadcast
from wsaction._dispatch.middleware import handle_exception, wrap
from wsaction._events.reauthorization import Stream
from wsaction._handlers.action import Action, Binding
from wsaction._handlers.dependencies import Dependencies
from wsaction._handlers.route_table import MAX_CACHED_ROUTES_OF_A_CONNECTION, Call, RouteTable, Target, Targets
from wsaction._handlers.signatures import read_dependencies
from wsaction._protocol.frames import (
    Frame,
    Held,
    current_frame,
    encode_reply,
    is_answered,
    let_go,
    new_frame,
    quote,
    size_of,
)
from wsaction._protocol.scope import connection_captures, connection_path, topic_of
from wsaction._utils.tasks import is_closed_with
from wsaction.exceptions import APIError, PermissionDenied, ReplyTooLarge, RouteNotFound, one_line, to_api_error
from wsaction.limits import bound_in
from wsaction.permissions._classes import raise_refusal, require
from wsaction.serializers._errors import encode_error
from wsaction.throttling import MemoryThrottleStore, check_throttles
from wsaction.transactions import COMMITTING, abandon, complete

if TYPE_CHECKING:
    from wsaction._server.runtime import Runtime
    from wsaction.consumers import AsyncAPIConsumer
    from wsaction.handlers import AsyncAPIActionHandler

__all__ = ("Session",)

logger = logging.getLogger("wsaction")

ITEMS_IN_A_ROW = 32  # of a stream that never waits, before the loop is given its turn


class Session:
    """One connection's way from a frame to its handler; ``consumer`` is the root's instance for this connection."""

    __slots__ = (
        "_name",
        "comings",
        "connection",
        "consumer",
        "direct",
        "fast_path_size",
        "grants",
        "group",
        "here",
        "known",
        "revised",
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
        self.table, self.runtime, self.scope = table, runtime, scope
        self.here = runtime.here  # what belongs to the event loop that serves it
        self.topic_prefix = topic_of(connection_path(scope), "")  # which the canonical route of a topic follows
        self.direct = not runtime.middleware  # nothing stands before an action
        self.connection, self.consumer = connection, consumer
        self.group: Group | None = None  # which its consumer's broadcasts are told to
        self.grants: dict[tuple[str, str], Any] = {}  # what its subscriptions were allowed, by topic and route
        self._name: str | None = None
        self.comings: MemoryThrottleStore | None = None  # how often it came to topics with presence
        self.streams: dict[Stream, None] = {}  # that run
        self.revised = False  # whether its user's rights have changed since it was opened
        self.fast_path_size = connection.limits.max_outbox_bytes // 4  # characters
        args, captures = connection_captures(scope)
        own = args or captures
        self.targets = Targets(table, args, captures, MAX_CACHED_ROUTES_OF_A_CONNECTION) if own else table.targets
        self.known = self.targets.calls

    @property
    def name(self) -> str:
        """What stands for the connection's user where nobody has signed in."""
        if self._name is None:
            self._name = f"anonymous:{token_urlsafe(9)}"
        return self._name

    def no_frame(self) -> Frame:
        """What stands for the frame outside of one: it asks for nothing and has the connection's own captures."""
        frame = new_frame({}, None, "", None)
        args, captures = connection_captures(self.scope)
        query = self.scope.get("query_string", b"").decode("latin-1")
        call = Target("", None, args, captures, "", query).call("", self.table, frame)
        call.name = None
        frame.consumer, frame.call = self.consumer, call
        return frame

    def route(self, frame: Frame) -> None:
        """Notes on the frame what it calls, and its place in the order."""
        if frame.error is not None:
            return
        try:
            call = self.known[frame.route][frame.action]
        except KeyError:
            self._resolve(frame)
        else:
            frame.consumer, frame.call, frame.key = self.consumer, call, call.key

    def _resolve(self, frame: Frame) -> None:
        """`route`, of what no frame has called yet, or is not kept."""
        try:
            target = self.targets.resolve(frame.route)
            action: str = frame.action  # type: ignore[assignment]  # it has one, or an error
            call = target.calls.get(action) or target.call(action, self.table, frame)
            frame.consumer, frame.call, frame.key = self.consumer, call, call.key
        except Exception as exc:  # a converter may raise anything
            frame.error = to_api_error(exc, what=_told(frame), debug=self.runtime.debug)

    def timeout(self, frame: Frame) -> float:
        """Seconds that the frame may take."""
        if frame.is_refused:
            return _NEVER
        action = frame.call.plan.action
        own: float | None = None if action is None else action.options.timeout
        return self.connection.limits.action_timeout if own is None else own

    async def run(self, frame: Frame) -> str | None:
        """The frame's reply: permissions, throttles, parameters, action, encoding; or the error on the way."""
        handler: AsyncAPIActionHandler | None = None
        try:
            if frame.error is not None:
                raise frame.error
            call: Call = frame.call
            scope, action, own = self.scope, call.action, call.mounted
            handler = own.handler(frame, scope)
            for mounted, ask, keywords in call.asked:
                asked = handler if mounted is own else mounted.handler(frame, scope)
                if ask is None:
                    await require(asked, "check_permissions")
                elif (verdict := ask((scope, asked, call.name), frame.keywords if keywords else dict)) is not None:
                    await raise_refusal(verdict)
            if call.throttles:
                await self._throttle(frame, call, handler)
            if action is None:
                raise self._nothing_there(frame, call)
            binding = call.binding or call.fixed(action)
            if action.plain and self.direct:
                start = binding.start  # of a slot, faster than as if it were a method; so is `write`
                result = await start(handler, frame)
            elif action.dependencies is None:
                result = await self._perform(frame, action, handler, binding, action.bind_frame(binding, frame))
            else:
                result = await self._depend(frame, action, handler, binding, action.dependencies)
            if frame.error is not None:  # cancelled, which the action swallowed; or something was asked and not awaited
                raise frame.error
            frame.status, reply = action.status, None
            if not action.silent and (frame.held is None or not is_answered(frame.held, result)):
                if action.returns_status is not False:
                    result, frame.status = action.split(result)
                write, request_id = action.write, frame.request_id
                data = write(result)
                if type(request_id) is str and frame.status == action.status:  # as `encode_reply` does
                    reply = f'{{"errors":[],"data":{data}{call.end},"request_id":{quote(request_id)}}}'
                else:
                    reply = encode_reply(call.tail, data, frame.status, request_id)
                if len(reply) > self.fast_path_size and (error := self._too_large(reply)) is not None:
                    raise error
            unit, frame.unit = frame.unit, COMMITTING
            if unit is not None:
                await unit.commit()
                if frame.detached:
                    let_go(frame, failed=True)
                    return None
            if frame.held is not None:
                self._send_before(frame.held, frame, reply)
                return None
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # a cancellation too, unless it is the connection's end: its client waits
            if is_closed_with(exc, frame.task or self.connection.leader):
                raise
            let_go(frame, failed=True)
            await abandon(frame)
            if self.connection.is_closed and isinstance(exc, asyncio.CancelledError):
                raise
            if self.runtime.exception_handlers and frame.error is None and call.mounted is not self.table.protocol:
                exc = await self._translated(handler or self.consumer, exc)
            if frame.error not in (None, exc) and isinstance(exc, Exception) and not isinstance(exc, APIError):
                logger.error("%s failed to end cleanly as it was cancelled", one_line(_told(frame)), exc_info=exc)
            return self._failure(frame, frame.error or exc)
        return reply

    def _send_before(self, held: list[Held], frame: Frame, reply: str | None) -> None:
        """Sends a reply before what waits for it."""
        if (answer := next((one.answer for one in held if one.answer is not None), None)) is not None:
            answer(reply)
        elif reply is not None:
            self.connection.put(self.connection.outbox.translate(reply, frame))
        let_go(frame)

    async def answer(self, frame: Frame) -> str:
        """What the action of a frame within another one's answers, as JSON; raises what it raises.

        What is asked before an action is asked before this one too, and its unit of work is its own.
        """
        call: Call = frame.call  # whoever made the frame made it
        action: Action = call.plan.action  # type: ignore[assignment]  # there is one
        before = current_frame.set(frame)
        frame.task = asyncio.current_task()  # whose its unit of work is
        try:
            handler = await self.allow(frame)
            if call.throttles:
                await self._throttle(frame, call, handler)
            binding = call.fixed(action)
            if action.dependencies is None:
                result = await self._perform(frame, action, handler, binding, action.bind_frame(binding, frame))
            else:
                result = await self._depend(frame, action, handler, binding, action.dependencies)
            if action.returns_status is not False:
                result, _ = action.split(result)
            if frame.error is not None:  # cancelled, or something was asked and not awaited
                raise frame.error
            written = action.write(result)
            await complete(frame)
            let_go(frame)
        except BaseException:
            let_go(frame, failed=True)
            await abandon(frame)
            raise
        finally:
            current_frame.reset(before)
        return written

    async def allow(self, frame: Frame, *, decided: bool = True) -> Any:
        """The handler of a frame, once all who have a say in its action have said yes; ``decided``: the handler
        itself too where it decides for each frame. Raises `PermissionDenied`."""
        call: Call = frame.call
        handler = call.mounted.handler(frame, self.scope)
        for mounted, ask, _ in call.asked:
            asked = handler if mounted is call.mounted else mounted.handler(frame, self.scope)
            if ask is None:
                if decided or mounted is not call.mounted:
                    await require(asked, "check_permissions")
            elif (verdict := ask((self.scope, asked, call.name), frame.keywords)) is not None:
                await raise_refusal(verdict)
        return handler

    async def _perform(
        self,
        frame: Frame,
        action: Action,
        handler: "AsyncAPIActionHandler",
        binding: Binding,
        parameters: dict[str, Any],
        *,
        lent: bool = False,
    ) -> Any:
        """Runs what is not just a coroutine, or what middleware stands before.

        ``lent``: what is in its parameters is finished after it, so that a thread has to have ended.
        """
        args = action.positional(binding, parameters) if binding.rest else ()
        if self.direct or frame.call.mounted is self.table.protocol:
            return await self._call(frame, action, handler, args, parameters, lent)

        async def innermost(handler: "AsyncAPIActionHandler") -> Any:
            return await self._call(frame, action, handler, args, parameters, lent)

        return await wrap(self.runtime.middleware, innermost)(handler)

    async def _call(
        self,
        frame: Frame,
        action: Action,
        handler: "AsyncAPIActionHandler",
        args: tuple[Any, ...],
        parameters: dict[str, Any],
        lent: bool,
    ) -> Any:
        """Runs a stream, a sync function, or a coroutine."""
        if action.streams:
            return await self._stream(frame, action, handler, action.function(handler, *args, **parameters))
        if action.threaded:
            run = self.runtime.threads.run_to_end if lent else self.runtime.threads.run
            result = await run(action.function, handler, *args, **parameters)
        else:
            result = await action.function(handler, *args, **parameters)
        if action.options.mode == "broadcast":
            value, status = (result, action.status) if action.returns_status is False else action.split(result)
            await broadcast(handler, action.options.broadcast_type, action.write(value), status)
        return result

    async def _depend(
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
        parameters, below = action.bind_all(binding, frame, dependencies)
        async with AsyncExitStack() as stack:
            parameters |= await dependencies.resolve(below, frame, handler, stack, self.runtime.threads)
            result = await self._perform(frame, action, handler, binding, parameters, lent=dependencies.finishes)
            if frame.error is not None:  # cancelled, which the action swallowed
                raise frame.error
            if not action.silent and not is_answered(frame.held, result):
                result = action.written(result)
        return result

    async def _stream(
        self, frame: Frame, action: Action, handler: "AsyncAPIActionHandler", items: AsyncGenerator[Any]
    ) -> None:
        """Sends each item as a partial reply, as fast as the client reads; the generator is closed whatever happens."""
        stream = Stream(self, frame, always=getattr(handler, "recheck", False))
        self.streams[stream] = None
        try:
            if self.revised and not await stream.still_holds():  # since its permissions were asked, perhaps
                raise PermissionDenied
            await self._send_items(frame, action, stream, items)
        finally:
            self.streams.pop(stream, None)

    async def _send_items(self, frame: Frame, action: Action, stream: Stream, items: AsyncGenerator[Any]) -> None:
        sent = 0
        async with aclosing(items):
            async for item in items:
                if stream.waits:
                    await stream.allow()
                if frame.error is not None:  # cancelled, which the generator swallowed
                    raise frame.error
                frame.deadline = _NEVER  # a timeout bounds the first item
                reply = encode_reply(frame.call.tail, action.write(item), 206, frame.request_id)
                if len(reply) > self.fast_path_size and (error := self._too_large(reply)) is not None:
                    raise error
                await complete(frame)
                await self.connection.outbox.offer(reply)
                if frame.held is not None:
                    let_go(frame)
                if (sent := sent + 1) % ITEMS_IN_A_ROW == 0:
                    await asyncio.sleep(0)

    async def _throttle(self, frame: Frame, call: Call, handler: "AsyncAPIActionHandler") -> None:
        for mounted, throttles in call.throttles:
            asked = handler if mounted is call.mounted else mounted.handler(frame, self.scope)
            if throttles is None:
                await require(asked, "check_throttles")
            else:
                await check_throttles(throttles, self.scope, asked, call.name)

    def _nothing_there(self, frame: Frame, call: Call) -> APIError:
        if call.found:
            return call.mounted.refusal(frame, self.runtime.debug)
        if not (self.runtime.debug or logger.isEnabledFor(logging.INFO)):
            return RouteNotFound()
        text = self.table.nearest(frame.route)
        logger.info("%s", text)
        return RouteNotFound(text if self.runtime.debug else None)

    def check_size(self, reply: str) -> None:
        """Raises `ReplyTooLarge` for a reply that no connection could be sent."""
        if (error := self._too_large(reply)) is not None:
            raise error

    def _too_large(self, reply: str) -> APIError | None:
        most = self.connection.limits.max_outbox_bytes
        if (size := size_of(reply)) <= most:
            return None
        ctx = {"limit": "max_outbox_bytes", "value": most}
        return ReplyTooLarge(f"The reply has {size} bytes; max_outbox_bytes is {most}.", ctx)

    async def _translated(self, handler: "AsyncAPIActionHandler", exc: BaseException) -> BaseException:
        """What the app's ``exception_handlers`` make of an exception."""
        try:
            return await handle_exception(self.runtime.exception_handlers, handler, exc)
        except (Exception, asyncio.CancelledError) as another:
            if self.connection.is_closed and isinstance(another, asyncio.CancelledError):
                raise
            return another

    def _failure(self, frame: Frame, exc: BaseException) -> str | None:
        """The reply for whatever was raised; it cannot fail, and is no larger than a reply may be."""
        if frame.detached:
            return None
        task = asyncio.current_task()
        while task is not None and task.cancelling():
            task.uncancel()
        try:
            error = to_api_error(exc, what=_told(frame), debug=self.runtime.debug)
            reply = encode_error(frame, error)
        except Exception as bad:  # an error of the application's own that is none: its attributes say anything
            error = to_api_error(bad, what=f"the error reply to {_told(frame)}", debug=False)
            reply = encode_error(frame, error)
        if (too_large := self._too_large(reply)) is not None:
            error, reply = too_large, encode_error(frame, too_large)
        frame.status = error.status
        if (bound := bound_in(error.ctx)) is not None:
            self.runtime.hooks.call("on_limit", self.consumer, *bound)
        return reply


_NEVER = float("inf")


def _told(frame: Frame) -> str:
    """What the log calls a frame."""
    return f"{frame.action} {frame.route}"[:200]
