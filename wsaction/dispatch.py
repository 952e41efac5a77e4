"""From a frame to its handler: route → permissions → parameters → action → encode.

A `RouteTable` is compiled once for what a connection is served by, its *root*: a consumer, or a handler served alone. A
`Session` is one connection's way through it, and the `connections.Dispatcher` that the connection asks.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from wsaction.actions import Action, Binding
from wsaction.algebra import Refusal, Verdict
from wsaction.connections import Connection
from wsaction.exceptions import APIError, PermissionDenied, ReplyTooLarge, RouteNotFound, to_api_error
from wsaction.frames import Frame, encode_error, encode_reply, new_frame, reply_tail, size_of
from wsaction.mounts import MountedHandler, Plan, View, as_prefixes, mount
from wsaction.routing import Resolver404, ResolverMatch, Router
from wsaction.runtime import Runtime
from wsaction.throttling import check_throttles

__all__ = ("Call", "RouteTable", "Session", "Target", "Targets", "connection_captures", "raise_refusal")

logger = logging.getLogger("wsaction")

MAX_CACHED_ROUTES = 1_024
MAX_CACHED_ROUTES_OF_A_CONNECTION = 32  # where its path captures something, so that it cannot share them


ITEMS_IN_A_ROW = 32  # of a stream that never waits, before the loop is given its turn


class Call:
    """An action of a route: all that is known of it before a frame comes, and kept for the frames that follow."""

    __slots__ = (
        "args", "asked", "binding", "captures", "found", "key", "mounted", "name", "plan", "query", "tail", "throttles",
    )  # fmt: skip
    name: str | None

    def __init__(self, target: "Target", action: str, mounted: MountedHandler, plan: Plan) -> None:
        self.mounted, self.plan, self.asked, self.name = mounted, plan, plan.asked, plan.name or action
        self.throttles, self.found = plan.throttles, target.mounted is not None
        self.args, self.captures, self.query = target.args, target.captures, target.query
        self.key = target.canonical if plan.ordered else None  # frames with the same key run in order
        self.tail = reply_tail(action, target.route)
        self.binding: Binding | None = None

    def fixed(self, action: Action) -> Binding:
        """What the captures decide of the action's arguments, kept where frames may share it.

        Raises `InvalidParameters`.
        """
        binding = action.fix(self.args, self.captures)
        if binding.shareable:
            self.binding = binding
        return binding


@dataclass(frozen=True, slots=True)
class Target:
    """A resolved route, with the calls that were made to it."""

    route: str  # as the client wrote it
    mounted: MountedHandler | None  # None: no pattern matches
    args: tuple[Any, ...] = ()
    captures: Mapping[str, Any] = field(default_factory=dict)
    canonical: str | None = None
    query: str = ""
    calls: dict[str, Call] = field(default_factory=dict)  # of actions that exist, so that there is an end to it

    def call(self, action: str, table: "RouteTable") -> Call:
        """The call of an action here; of one that does not exist, one that only asks the permissions."""
        if (own := table.protocol.plans.get(action)) is not None:
            return Call(self, action, table.protocol, own)
        if self.mounted is None:
            return Call(self, action, table.root, table.root.no_such_action)
        if (plan := self.mounted.plans.get(action)) is None:
            return Call(self, action, self.mounted, self.mounted.no_such_action)
        call = self.calls[action] = Call(self, action, self.mounted, plan)
        return call


class RouteTable:
    """Every route below a root, resolved to its mounted handler.

    Raises `ImproperlyConfigured` for what cannot be mounted.
    """

    def __init__(self, view: View, protocol: View) -> None:
        self.root, self.protocol = MountedHandler(view), MountedHandler(protocol)
        patterns = tuple(mount(view.handler_class.routepatterns, (self.root,)))
        self.router = Router(patterns)
        self._strict = view.handler_class.strict_routing
        self._prefixes = Router(() if self._strict else tuple(as_prefixes(patterns)))
        self.targets = Targets(self, (), {}, MAX_CACHED_ROUTES)  # of connections whose path captures nothing

    def match(self, text: str) -> ResolverMatch | None:
        """What a route without its query matches, by its prefix where routing is not strict."""
        for router in (self.router, self._prefixes):
            try:
                return router.resolve(text)
            except Resolver404:
                continue
        return None

    def takes(self, text: str) -> bool:
        """Whether the root itself answers a route that nothing matches."""
        return text == "" or not self._strict

    def nearest(self, route: str) -> str:
        """Why a route was not found, and which patterns are near."""
        try:
            self.router.resolve(route.partition("?")[0])
        except Resolver404 as exc:
            return str(exc)
        return f"no route {route!r}"


class Targets:
    """Resolved routes, kept for the frames that follow; at most ``most`` of them, the oldest goes first."""

    __slots__ = ("_args", "_captures", "_kept", "_most", "_table")

    def __init__(self, table: RouteTable, args: tuple[Any, ...], captures: Mapping[str, Any], most: int) -> None:
        self._table, self._args, self._captures, self._most = table, args, captures, most
        self._kept: dict[str, Target] = {}

    def resolve(self, route: str) -> Target:
        """Where a route leads, its query split off; the connection's own captures come first, the route's win."""
        if (target := self._kept.get(route)) is not None:
            return target
        text, has_query, query = route.partition("?")
        if (match := self._table.match(text)) is None:
            root = self._table.root if self._table.takes(text) else None
            target = Target(route, root, self._args, self._captures, None if root is None else text, query)
            keep = text == ""
        else:
            captures = {**self._captures, **match.kwargs}
            target = Target(route, match.func, self._args + match.args, captures, match.canonical, query)
            keep = match.cacheable
        if keep and not has_query:
            if len(self._kept) >= self._most:
                del self._kept[next(iter(self._kept))]
            self._kept[route] = target
        return target


class Session:
    """One connection's way from a frame to its handler; ``consumer`` is the root's instance for this connection."""

    __slots__ = ("connection", "consumer", "runtime", "scope", "surely_small", "table", "targets")

    def __init__(self, table: RouteTable, runtime: Runtime, scope: Any, connection: Connection, consumer: Any) -> None:
        self.table, self.runtime, self.scope = table, runtime, scope
        self.connection, self.consumer = connection, consumer
        self.surely_small = connection.limits.max_outbox_bytes // 4  # characters
        args, captures = connection_captures(scope)
        own = args or captures
        self.targets = Targets(table, args, captures, MAX_CACHED_ROUTES_OF_A_CONNECTION) if own else table.targets

    def no_frame(self) -> Frame:
        """What stands for the frame outside of one: it asks for nothing and has the connection's own captures."""
        frame = new_frame({}, None, "", None)
        args, captures = connection_captures(self.scope)
        query = self.scope.get("query_string", b"").decode("latin-1")
        call = Target("", None, args, captures, None, query).call("", self.table)
        call.name = None
        frame.consumer, frame.call = self.consumer, call
        return frame

    def route(self, frame: Frame) -> None:
        """Notes on the frame what it calls, and its place in the order."""
        if frame.error is not None:
            return
        try:
            target = self.targets.resolve(frame.route)
            action: str = frame.action  # type: ignore[assignment]  # it has one, or an error
            call = target.calls.get(action) or target.call(action, self.table)
            frame.consumer, frame.call, frame.key = self.consumer, call, call.key
        except Exception as exc:  # a converter may raise anything
            frame.error = to_api_error(exc, what=_told(frame), debug=self.runtime.debug)

    async def run(self, frame: Frame) -> str | None:
        """The frame's reply: permissions, throttles, parameters, action, encoding; or the error on the way."""
        try:
            if frame.error is not None:
                raise frame.error
            call: Call = frame.call  # type: ignore[assignment]  # made by `route`
            scope, action = self.scope, call.plan.action
            handler = call.mounted.handler(frame, scope)
            for mounted, ask in call.asked:
                asked = handler if mounted is call.mounted else mounted.handler(frame, scope)
                if ask is None:
                    await asked.check_permissions()
                elif (verdict := ask((scope, asked, call.name), frame.keywords)) is not None:
                    await raise_refusal(verdict)
            if call.throttles:
                await self._throttle(frame, call, handler)
            if action is None:
                raise self._nothing_there(frame, call)
            binding = call.binding or call.fixed(action)
            parameters = action.bind(binding, frame)
            if action.plain:
                result = await action.function(handler, **parameters)
            else:
                args = action.positional(binding, parameters) if binding.rest else ()
                result = await self._perform(frame, action, handler, *args, **parameters)
            if frame.error is not None:  # cancelled, which the action swallowed
                raise frame.error
            if action.silent:
                return None
            status = action.status
            if action.returns_status is not False:
                result, status = action.split(result)
            reply = encode_reply(call.tail, action.write(result), status, frame.request_id)
            if len(reply) > self.surely_small and (error := self._too_large(reply)) is not None:
                raise error
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as exc:  # a cancellation too, unless it is the connection's end: its client waits
            if self.connection.ended and isinstance(exc, asyncio.CancelledError):
                raise
            return self._failure(frame, frame.error or exc)
        return reply

    async def _perform(self, frame: Frame, action: Action, handler: Any, /, *args: Any, **parameters: Any) -> Any:
        """Runs what is not just a coroutine: a stream, a sync function, one with ``*args``."""
        if action.streams:
            return await self._stream(frame, action, action.function(handler, *args, **parameters))
        if action.threaded:
            return await self.runtime.threads.run(action.function, handler, *args, **parameters)
        return await action.function(handler, *args, **parameters)

    async def _stream(self, frame: Frame, action: Action, items: AsyncGenerator[Any]) -> None:
        """Sends each item as a partial reply, as fast as the client reads; the generator is closed whatever happens."""
        sent = 0
        async with aclosing(items):
            async for item in items:
                reply = encode_reply(frame.call.tail, action.write(item), 206, frame.request_id)
                if len(reply) > self.surely_small and (error := self._too_large(reply)) is not None:
                    raise error
                await self.connection.outbox.offer(reply)
                if (sent := sent + 1) % ITEMS_IN_A_ROW == 0:
                    await asyncio.sleep(0)

    async def _throttle(self, frame: Frame, call: Call, handler: Any) -> None:
        for mounted, throttles in call.throttles:
            asked = handler if mounted is call.mounted else mounted.handler(frame, self.scope)
            if throttles is None:
                await asked.check_throttles()
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

    def _too_large(self, reply: str) -> APIError | None:
        most = self.connection.limits.max_outbox_bytes
        if (size := size_of(reply)) <= most:
            return None
        ctx = {"limit": "max_outbox_bytes", "value": most}
        return ReplyTooLarge(f"The reply has {size} bytes; max_outbox_bytes is {most}.", ctx)

    def _failure(self, frame: Frame, exc: BaseException) -> str:
        """The reply for whatever was raised; it cannot fail, and is no larger than a reply may be."""
        task = asyncio.current_task()
        while task is not None and task.cancelling():
            task.uncancel()
        try:
            reply = encode_error(frame, to_api_error(exc, what=_told(frame), debug=self.runtime.debug))
        except Exception as bad:  # an error of the application's own that is none: its attributes say anything
            reply = encode_error(frame, to_api_error(bad, what=f"the error reply to {_told(frame)}", debug=False))
        error = self._too_large(reply)
        return reply if error is None else encode_error(frame, error)


def _told(frame: Frame) -> str:
    """What the log calls a frame."""
    return f"{frame.action} {frame.route}"[:200]


async def raise_refusal(verdict: Verdict) -> None:
    """Raises `PermissionDenied` where the verdict, once it is known, is a refusal; in the permission's own words."""
    if not isinstance(verdict, Refusal | None):
        verdict = await verdict
    if verdict is not None:
        raise PermissionDenied(verdict.message, {"code": verdict.code} if verdict.code else None)


def connection_captures(scope: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the connection's own path captured: by an enclosing Starlette route, and by ours."""
    route = scope.get("url_route") or {}
    return tuple(route.get("args", ())), {**scope.get("path_params", {}), **route.get("kwargs", {})}
