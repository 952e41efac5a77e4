"""The life of one connection: handshake, frames, end."""

import asyncio
import logging
from typing import Any, Protocol

from wsaction.connections import Connection, Receive, Send
from wsaction.dispatch import RouteTable, Session, raise_refusal
from wsaction.exceptions import APIError, NotAuthenticated, PermissionDenied, to_api_error
from wsaction.frames import encode_errors
from wsaction.gates import Gate
from wsaction.mounts import View
from wsaction.permissions import compile_permissions
from wsaction.runtime import RUNTIME_KEY, Runtime

__all__ = ("SUBPROTOCOL", "RootView", "deny", "serve", "upgrade_required")

logger = logging.getLogger("wsaction")

SUBPROTOCOL = "wsaction.v1"


class RootView(View, Protocol):
    """A view that a connection can be served by."""

    @property
    def table(self) -> RouteTable: ...


async def serve(view: RootView, scope: Any, receive: Receive, send: Send, runtime: Runtime) -> None:
    """Serves one ASGI connection by a view: a WebSocket from handshake to end, 426 for HTTP, and lifespan events.

    An enclosing app's runtime, where the scope has one, goes before ``runtime``. Raises nothing on what a client does.
    """
    if scope["type"] == "lifespan":
        await _answer_lifespan(receive, send)
    elif scope["type"] == "http":
        await upgrade_required(send)
    elif (await receive())["type"] == "websocket.connect":
        await _serve_websocket(view, scope, receive, send, scope.get(RUNTIME_KEY, runtime))


async def _serve_websocket(view: RootView, scope: Any, receive: Receive, send: Send, runtime: Runtime) -> None:
    limits = view.handler_class.limits or runtime.limits
    connection = Connection(receive, send, limits)
    try:
        consumer, dispatcher = await _open(view, scope, connection, runtime)
    except (Exception, asyncio.CancelledError) as exc:  # whatever a hook raises becomes an answer
        _unless_cancelled(exc)
        await deny(scope, send, to_api_error(exc, what=f"the handshake of {scope['path']}", debug=runtime.debug))
        return
    code = 1006
    try:
        if connection.closing is not None:  # connect() closed it
            code = connection.closing[0]
            await deny(scope, send, _refusal(*connection.closing))
        elif await _accept(scope, send):
            if isinstance(dispatcher, Gate):
                dispatcher.watch()
            code = await connection.serve(dispatcher)
    finally:
        if isinstance(dispatcher, Gate):
            dispatcher.stop()
        await _say_goodbye(consumer, code, limits.drain_timeout)


async def _open(view: RootView, scope: Any, connection: Connection, runtime: Runtime) -> tuple[Any, Session | Gate]:
    """The root's instance for this connection, once all have said yes, and what its frames go to."""
    root = view.table.root
    consumer = root.instance()
    consumer.consumer, consumer.mounted, consumer.scope, consumer.connection = consumer, root, scope, connection
    session = Session(view.table, runtime, scope, connection, consumer)
    consumer.frame = session.no_frame()
    _check_origin(scope, runtime)
    dispatcher: Session | Gate = session
    if runtime.authenticator is not None:
        state = await runtime.authenticator.open(scope, connection.limits.auth_timeout)
        dispatcher = Gate(state, session, connection, debug=runtime.debug)
    await _check_permissions(consumer, scope)
    await consumer.connect()
    return consumer, dispatcher


async def _accept(scope: Any, send: Send) -> bool:
    """Accepts the handshake and says whether the peer is still there."""
    subprotocol = SUBPROTOCOL if SUBPROTOCOL in (scope.get("subprotocols") or ()) else None
    try:
        await send({"type": "websocket.accept", "subprotocol": subprotocol})
    except (OSError, RuntimeError) as exc:
        logger.debug("the peer was gone before it was accepted: %r", exc)
        return False
    return True


def _check_origin(scope: Any, runtime: Runtime) -> None:
    """Raises `PermissionDenied` for a foreign Origin."""
    if (why := runtime.origins.refusal(scope)) is not None:
        logger.warning("handshake of %s refused: %s", scope["path"], why)
        raise PermissionDenied(why if runtime.debug else "This Origin may not connect here.")


async def _check_permissions(consumer: Any, scope: Any) -> None:
    """Raises `PermissionDenied` where a permission refuses the connection."""
    permissions = compile_permissions(consumer.get_permissions(), owner=f"{type(consumer).__name__}.permission_classes")
    verdict = permissions.connect_refusal(scope, consumer)
    if verdict is not None:
        await raise_refusal(verdict)


def _refusal(code: int, reason: str) -> APIError:
    """What the handshake is answered where ``connect()`` closed: the status that its close code stands for."""
    return NotAuthenticated(reason or None) if code == 4401 else PermissionDenied(reason or None)


async def _say_goodbye(consumer: Any, code: int, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await consumer.disconnect(code)
    except (Exception, asyncio.CancelledError) as exc:  # it is over: there is nobody to tell but the log
        _unless_cancelled(exc)
        logger.error("%s.disconnect(%s) failed", type(consumer).__name__, code, exc_info=exc)


def _unless_cancelled(exc: BaseException) -> None:
    """Raises a cancellation that is ours; that of something which a hook awaited is an error like any other."""
    task = asyncio.current_task()
    if isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling():
        raise exc


async def deny(scope: Any, send: Send, error: APIError) -> None:
    """Refuses a handshake: with an HTTP status and the errors as JSON where the server can, else with a close (403)."""
    try:
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": {401: 4401, 403: 4403}.get(error.status, 1008)})
            return
        body = f'{{"errors":{encode_errors(error)}}}'.encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if error.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
    except (OSError, RuntimeError) as exc:
        logger.debug("the peer was gone before it was refused: %r", exc)


async def upgrade_required(send: Send) -> None:
    """Answers an HTTP request with 426: what is here speaks WebSocket."""
    body = b"This address speaks WebSocket (wsaction.v1).\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    headers += [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
    await send({"type": "http.response.start", "status": 426, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _answer_lifespan(receive: Receive, send: Send) -> None:
    for event in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{event}.complete"})
