"""Serves one connection: the handshake, the frames and the close."""

import asyncio
import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from wsaction._connection.connection import Connection, Dispatcher
from wsaction._connection.gates import AuthenticationGate, BlockingWatch
from wsaction._connection.outbox import GONE, log_failed_send, send_close
from wsaction._dispatch.broadcasts import BroadcastOrderGate, is_grouped, join_group
from wsaction._dispatch.hooks import HooksGate
from wsaction._dispatch.session import Session
from wsaction._events.reauthorization import check_connect_permissions
from wsaction._events.users import recheck
from wsaction._handlers.mounts import View
from wsaction._handlers.route_table import RouteTable
from wsaction._protocol.close_codes import (
    INTERNAL_ERROR,
    NO_CLOSE_FRAME,
    NOT_AUTHENTICATED,
    POLICY_VIOLATION,
    SERVICE_RESTART,
    TRY_AGAIN_LATER,
    code_for_status,
)
from wsaction._protocol.frames import connecting_frame
from wsaction._protocol.scope import RUNTIME_KEY, SESSION_KEY, SOCKET_EXTENSION
from wsaction._server.runtime import RESTARTING, Runtime
from wsaction._utils.asgi import Receive, Send
from wsaction._utils.lifespan import app_running
from wsaction._utils.tasks import is_being_cancelled
from wsaction.dialects.base import DialectConnection, negotiate
from wsaction.exceptions import (
    ActionTimeout,
    APIError,
    Busy,
    NotAuthenticated,
    PermissionDenied,
    ShuttingDown,
    one_line,
    to_api_error,
)
from wsaction.limits import Limits, limit_in
from wsaction.permissions._classes import require
from wsaction.serializers._errors import encode_errors

if TYPE_CHECKING:
    from wsaction.consumers import AsyncAPIConsumer

logger = logging.getLogger("wsaction")


class RootView(View, Protocol):
    """A view with a route table, so that it can serve a connection."""

    @property
    def table(self) -> RouteTable: ...


async def serve(view: RootView, scope: Any, receive: Receive, send: Send, runtime: Runtime) -> None:
    """Serves one ASGI connection: a WebSocket until it closes, 426 for HTTP, and lifespan events.

    If an enclosing app has put its runtime into the scope, that is used instead of ``runtime``. Nothing that a client
    does raises an exception.
    """
    if scope["type"] == "lifespan":
        await _answer_lifespan(receive, send, runtime)
    elif RUNTIME_KEY not in scope and await refuse_host(scope, receive, send, runtime):  # else the app has checked
        return
    elif scope["type"] == "http":
        await upgrade_required(send)
    elif (await receive())["type"] == "websocket.connect":
        await _serve_websocket(view, scope, receive, send, scope.get(RUNTIME_KEY, runtime))


async def _serve_websocket(view: RootView, scope: Any, receive: Receive, send: Send, runtime: Runtime) -> None:
    cls = view.handler_class
    limits = cls.limits or runtime.limits
    drop_events = cls.outbox_policy == "drop_oldest"
    dialect, subprotocol = negotiate(cls.dialect, cls.dialects, scope.get("subprotocols") or ())
    kind = Connection if dialect is None else partial(DialectConnection, dialect.converse())
    connection = kind(receive, send, limits, runtime.loop_state.flusher, drop_events=drop_events)
    if drop_events:
        connection.outbox.on_lost = partial(runtime.loop_state.resync, connection)
    try:
        async with asyncio.timeout(limits.action_timeout) as deadline:
            opening = _open(view, scope, connection, runtime)
            consumer, dispatcher, gate = await runtime.watched(opening, f"the handshake of {cls.__name__}")
    except (Exception, asyncio.CancelledError) as exc:  # an exception of any hook refuses the handshake
        connection.peer_disconnected(NO_CLOSE_FRAME)
        _end_subscriptions(scope, runtime)
        scope.pop(SESSION_KEY, None)
        _raise_own_cancellation(exc)
        cause = _handshake_timeout(limits) if deadline.expired() else exc
        error = to_api_error(cause, what=f"the handshake of {scope['path']}", debug=runtime.debug)
        if (bound := limit_in(error.ctx)) is not None:
            connection.on_limit(*bound)
        await refuse(scope, send, error, runtime, subprotocol=subprotocol)
        return
    del deadline  # an open connection does not need it, and would keep its memory
    if (socket := (scope.get("extensions") or {}).get(SOCKET_EXTENSION)) is not None:
        socket.attach(connection)
    code = NO_CLOSE_FRAME
    try:
        if connection.closing is not None:  # connect() closed it
            code, reason = connection.closing
            await refuse(
                scope, send, _refusal_error(code, reason), runtime, connection.closing, subprotocol=subprotocol
            )
        elif await _accept(send, subprotocol):
            code = await _serve_frames(consumer, connection, dispatcher, gate, runtime)
    finally:
        if connection.closing is not None:  # the server closed it as this task was cancelled
            code, _ = connection.closing
        connection.peer_disconnected(code)  # no effect if the connection has ended already
        _end_subscriptions(scope, runtime)
        try:
            leaving = _call_disconnect(consumer, code, connection)
            await runtime.watched(leaving, f"{cls.__name__}.disconnect()")
        finally:
            scope.pop(SESSION_KEY, None)
            if connection in (accepted := runtime.loop_state.connections):
                accepted.discard(connection)
                runtime.hooks.call("on_disconnect", consumer, code)


def _end_subscriptions(scope: Any, runtime: Runtime) -> None:
    """Ends the connection's subscriptions and forgets its user; ``disconnect()`` may still publish."""
    if (session := scope.get(SESSION_KEY)) is not None:
        runtime.loop_state.forget(session)


async def _open(
    view: RootView, scope: Any, connection: Connection, runtime: Runtime
) -> tuple[Any, Dispatcher, AuthenticationGate | None]:
    """Runs all checks of the handshake. Returns the consumer, the dispatcher for its frames, and the gate to watch."""
    root = view.table.root
    hooks = runtime.hooks
    consumer = root.instance()
    consumer.consumer, consumer.mounted, consumer.scope, consumer.connection = consumer, root, scope, connection
    if hooks.has("on_limit"):
        connection.on_limit = lambda limit, value: hooks.call("on_limit", consumer, limit, value)
    session = Session(view.table, runtime, scope, connection, consumer)
    consumer.frame = session.connection_frame()
    scope[SESSION_KEY] = session
    _check_origin(scope, runtime)
    dispatcher: Dispatcher = BroadcastOrderGate(session) if is_grouped(session) else session
    gate: AuthenticationGate | None = None
    users = runtime.loop_state.users
    is_awaited = False
    await users.wait_until_listening()
    runtime.loop_state.is_serving = True
    with users.authenticating(session):  # so that disconnect_user() reaches a connection that is about to be accepted
        if runtime.authenticator is not None:
            state = await runtime.authenticator.open(scope, connection.limits.auth_timeout)
            is_awaited = state.awaited
            authenticating = partial(users.authenticating, session)
            recheck_user = partial(recheck, session)
            gate = AuthenticationGate(state, dispatcher, connection, authenticating, recheck_user, debug=runtime.debug)
            dispatcher = gate
    if runtime.debug:
        dispatcher = BlockingWatch(dispatcher, runtime.monitor)
    if hooks.has("on_action", "around_action"):
        dispatcher = HooksGate(dispatcher, session)
    await check_connect_permissions(session)
    if runtime.loop_state.draining:
        raise ShuttingDown
    session.group = await join_group(session, is_receiving=not is_awaited)
    if session.rechecks:  # permissions may have changed since the first check
        await check_connect_permissions(session)
    with users.authenticating(session):
        await _connect(consumer)
    return consumer, dispatcher, gate


async def _connect(consumer: "AsyncAPIConsumer") -> None:
    """Calls ``connect()``. A ``self.close()`` in it that is not awaited must not accept the client."""
    frame = consumer.frame
    token = connecting_frame.set(frame)
    try:
        await require(consumer, "connect")
    finally:
        connecting_frame.reset(token)
    if frame.error is not None:
        raise frame.error
    frame.status = 200


async def _serve_frames(
    consumer: "AsyncAPIConsumer",
    connection: Connection,
    dispatcher: Dispatcher,
    gate: AuthenticationGate | None,
    runtime: Runtime,
) -> int:
    """Serves an accepted connection until it closes. Returns the close code."""
    runtime.loop_state.connections.add(connection)
    runtime.hooks.call("on_connect", consumer)
    try:
        if runtime.loop_state.draining:  # a drain may have begun since `_open` checked
            connection.close(SERVICE_RESTART, RESTARTING)
        if gate is not None:
            gate.watch()
        return await connection.serve(dispatcher)
    finally:
        if gate is not None:
            gate.stop()


async def _accept(send: Send, subprotocol: str | None) -> bool:
    """Accepts the handshake. Returns False if the client has gone."""
    try:
        await send({"type": "websocket.accept", "subprotocol": subprotocol})
    except Exception as exc:
        log_failed_send("websocket.accept", exc)
        return False
    return True


async def refuse_host(scope: Any, receive: Receive, send: Send, runtime: Runtime) -> bool:
    """Answers 403 and returns True if the request's Host header is not allowed."""
    if (reason := runtime.hosts.refusal(scope)) is None:
        return False
    fields = {"path": scope["path"], "status": 403}
    logger.warning("%s %s refused: %s", scope["type"], one_line(scope["path"]), reason, extra=fields)
    error = PermissionDenied(reason if runtime.debug else "This server does not serve the requested host.")
    if scope["type"] == "http":
        await _answer_text(send, 403, f"{error.msg}\n".encode(), [])
    elif (await receive())["type"] == "websocket.connect":
        await refuse(scope, send, error, runtime)
    return True


def _check_origin(scope: Any, runtime: Runtime) -> None:
    """Raises `PermissionDenied` if the request's Origin header is not allowed."""
    if (reason := runtime.origins.refusal(scope)) is not None:
        fields = {"path": scope["path"], "status": 403}
        logger.warning("handshake of %s refused: %s", one_line(scope["path"]), reason, extra=fields)
        raise PermissionDenied(reason if runtime.debug else "Pages of this origin may not connect.")


def _handshake_timeout(limits: Limits) -> APIError:
    seconds = limits.action_timeout
    ctx = {"limit": "action_timeout", "value": seconds}
    return ActionTimeout(f"The handshake took longer than {seconds:g} s.", ctx)


def _refusal_error(code: int, reason: str) -> APIError:
    """The error for a handshake whose ``connect()`` closed the connection, by the close code."""
    if code == TRY_AGAIN_LATER:  # connect() sent more than the outbox holds
        return Busy(reason or None)
    return NotAuthenticated(reason or None) if code == NOT_AUTHENTICATED else PermissionDenied(reason or None)


async def _call_disconnect(consumer: "AsyncAPIConsumer", code: int, connection: Connection) -> None:
    now = asyncio.get_running_loop().time()
    seconds = connection.limits.drain_timeout
    call = f"{type(consumer).__name__}.disconnect({code})"
    fields = {"path": consumer.scope["path"], "close_code": code}
    try:
        async with asyncio.timeout_at(min(connection.end_by, now + seconds)) as deadline:
            await consumer.disconnect(code)
    except (Exception, asyncio.CancelledError) as exc:  # the client has gone, so the error can only be logged
        _raise_own_cancellation(exc)
        if deadline.expired():
            logger.error("%s took too long; drain_timeout is %s s", call, seconds, exc_info=exc, extra=fields)
            connection.on_limit("drain_timeout", seconds)
        else:
            logger.error("%s failed", call, exc_info=exc, extra=fields)


def _raise_own_cancellation(exc: BaseException) -> None:
    """Raises ``exc`` if this task is being cancelled. Otherwise a task that a hook awaited was: an ordinary error."""
    if isinstance(exc, asyncio.CancelledError) and is_being_cancelled():
        raise exc


async def refuse(
    scope: Any,
    send: Send,
    error: APIError,
    runtime: Runtime,
    closing: tuple[int, str] | None = None,
    *,
    subprotocol: str | None = None,
) -> None:
    """Refuses a handshake with an HTTP status and the errors as JSON.

    With ``accept_refused``, accepts it and closes it at once, with ``closing`` or the code and message of the error.
    """
    if runtime.accept_refused:
        if await _accept(send, subprotocol or negotiate(None, (), scope.get("subprotocols") or ())[1]):
            await send_close(send, *(closing or (_close_code(error), error.msg)))
        return
    if "websocket.http.response" in (scope.get("extensions") or {}):
        try:
            await _answer_http(send, error)
            return
        except Exception as exc:
            log_failed_send("websocket.http.response", exc)
            if isinstance(exc, GONE):
                return
    await send_close(send, code_for_status(error.status) if error.status in (401, 403) else POLICY_VIOLATION, "")


def _close_code(error: APIError) -> int:
    """4401 for 401, 4404 for 404; 1012 if the server is stopping, 1011 for other server errors."""
    if error.status < 500:
        return code_for_status(error.status)
    return SERVICE_RESTART if isinstance(error, ShuttingDown) else INTERNAL_ERROR


async def _answer_http(send: Send, error: APIError) -> None:
    body = f'{{"errors":{encode_errors(error)}}}'.encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(seconds := (error.ctx or {}).get("retry_after"), int | float):
        headers.append((b"retry-after", str(math.ceil(seconds)).encode()))  # the header takes whole seconds
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


async def upgrade_required(send: Send) -> None:
    """Answers an HTTP request with 426 Upgrade Required."""
    headers = [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
    await _answer_text(send, 426, b"This address speaks WebSocket (wsaction.v1).\n", headers)


async def _answer_text(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    described = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*described, *headers]})
    await send({"type": "http.response.body", "body": body})


async def _answer_lifespan(receive: Receive, send: Send, runtime: Runtime) -> None:
    await receive()
    runtime.reopen()
    async with app_running():
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await runtime.close()
    await send({"type": "lifespan.shutdown.complete"})
