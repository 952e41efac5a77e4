"""Exceptions of the client.

::

    ClientError
    ├── ConnectionFailed      no connection, and the client does not reconnect
    ├── ConnectionLost        the connection was lost during a call or stream; the action may have run
    ├── CallTimeout           no reply in time; the client cancels the action; also a TimeoutError
    ├── Overflow              a consumer was too slow for its stream, or too many requests wait
    ├── UnexpectedReply       the reply is not of the expected kind
    └── ActionError           an error reply: status, type, msg, ctx, errors
        ├── 400  InvalidRequest
        ├── 401  NotAuthenticated
        ├── 403  PermissionDenied
        ├── 404  NotFound
        │        └── RouteNotFound     type "route_not_found"
        ├── 405  ActionNotAllowed
        ├── 408  ActionTimeout
        ├── 409  Conflict
        ├── 429  Throttled             .retry_after
        ├── 499  Cancelled
        ├── 500  ServerError           .error_id
        └── 503  Unavailable

Other statuses of an application, such as 402, are a plain ``ActionError``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = (
    "ActionError",
    "ActionNotAllowed",
    "ActionTimeout",
    "CallTimeout",
    "Cancelled",
    "ClientError",
    "Conflict",
    "ConnectionFailed",
    "ConnectionLost",
    "InvalidRequest",
    "NotAuthenticated",
    "NotFound",
    "Overflow",
    "PermissionDenied",
    "RouteNotFound",
    "ServerError",
    "Throttled",
    "Unavailable",
    "UnexpectedReply",
    "action_error",
)


class ClientError(Exception):
    """Base class of all exceptions of the client."""


class ConnectionFailed(ClientError):
    """There is no connection, and the client does not reconnect.

    ``status`` is the HTTP status of a refused handshake or the status of a refused ``$auth``, ``code`` a close code;
    each is None otherwise. ``is_final``: another attempt with the same credential would fail too.
    """

    def __init__(self, msg: str, *, status: int | None = None, code: int | None = None, is_final: bool = False) -> None:
        super().__init__(msg)
        self.status = status
        self.code = code
        self.is_final = is_final

    def _copy(self) -> "ConnectionFailed":
        """Returns a copy to raise, since several callers may get the same failure."""
        copied = type(self)(str(self), status=self.status, code=self.code, is_final=self.is_final)
        copied.__cause__ = self
        return copied


class ConnectionLost(ClientError):
    """The connection was lost before the final reply. The action may have run or not; the client does not retry it.

    ``code`` and ``reason`` are those of the close; 1006 if there was no close frame. ``refused``: the server
    refused the client by this code, before it answered any request.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.refused = False

    def __str__(self) -> str:
        close = f"code {self.code}, {self.reason!r}" if self.reason else f"code {self.code}"
        if self.refused:
            return f"the server refused the connection, or closed it before its first answer ({close})"
        return f"the connection was lost ({close}); requests in flight may have run"

    def _copy(self) -> "ConnectionLost":
        """Returns a copy to raise, since several callers may get the same failure."""
        copied = type(self)(self.code, self.reason)
        copied.refused = self.refused
        return copied


class CallTimeout(ClientError, TimeoutError):
    """No reply arrived within ``seconds``."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(f"{what}: no reply in {seconds:g} s")
        self.seconds = seconds


class Overflow(ClientError):
    """Too many items of a stream wait for their consumer (see ``buffer`` of `Client`), or too many requests wait."""


class UnexpectedReply(ClientError):
    """The reply is not of the expected kind: a stream's reply to a call, for example."""


class ActionError(ClientError):
    """The reply of an action is an error.

    ``status`` and ``errors``, the list of error items, are those of the reply. ``type``, ``msg`` and ``ctx`` are those
    of the first item. ``action`` and ``route`` are those of the request. ``str()`` of an error looks like
    ``404 not_found: There is no card 7. (retrieve cards/7/)``.
    """

    def __init__(self, status: int, errors: Sequence[Mapping[str, Any]], action: str, route: str) -> None:
        first: Mapping[str, Any] = errors[0] if errors else {}
        self.status = status
        self.errors = list(errors)
        self.action = action
        self.route = route
        self.type = str(first.get("type", "unknown"))
        self.msg = str(first.get("msg", ""))
        ctx = first.get("ctx")
        self.ctx: Mapping[str, Any] = ctx if isinstance(ctx, Mapping) else {}
        super().__init__(f"{status} {self._describe_errors()} ({f'{action} {route}'.strip()})")

    def _describe_errors(self) -> str:
        items = []
        for item in self.errors[:5]:
            loc = item.get("loc")
            place = ".".join(map(str, loc)) if isinstance(loc, list) else ""
            items.append(f"{item.get('type')}: {item.get('msg')}" + (f" [{place}]" if place else ""))
        return "; ".join(items)


class InvalidRequest(ActionError):
    """400: the frame, its data or its parameters are invalid. Each item of ``errors`` has the ``loc`` of a fault."""


class NotAuthenticated(ActionError):
    """401: ``$auth`` was refused, or must come first."""


class PermissionDenied(ActionError):
    """403: a permission refused the action."""


class NotFound(ActionError):
    """404: there is no such object, page or route (`RouteNotFound`)."""


class RouteNotFound(NotFound):
    """404: no pattern on the server matches the route."""


class ActionNotAllowed(ActionError):
    """405: the route does not have this action."""


class ActionTimeout(ActionError):
    """408: the action exceeded its timeout on the server and was cancelled."""


class Conflict(ActionError):
    """409: the request conflicts with existing data."""


class Throttled(ActionError):
    """429: too many requests."""

    @property
    def retry_after(self) -> float | None:
        """Seconds until the request may be repeated; None if the server does not say."""
        seconds = self.ctx.get("retry_after")
        return float(seconds) if isinstance(seconds, (int, float)) else None


class Cancelled(ActionError):
    """499: the action was cancelled by a ``$cancel`` that the application sent."""


class ServerError(ActionError):
    """500: a bug in the server."""

    @property
    def error_id(self) -> str | None:
        """The id of this error in the server's log."""
        return self.ctx.get("error_id")


class Unavailable(ActionError):
    """503: the server is busy, shutting down, or a part of it is unavailable. The request may be repeated later."""


_BY_STATUS: Mapping[int, type[ActionError]] = {
    400: InvalidRequest,
    401: NotAuthenticated,
    403: PermissionDenied,
    404: NotFound,
    405: ActionNotAllowed,
    408: ActionTimeout,
    409: Conflict,
    429: Throttled,
    499: Cancelled,
    500: ServerError,
    503: Unavailable,
}


def action_error(status: int, errors: Sequence[Mapping[str, Any]], action: str, route: str) -> ActionError:
    """Returns the exception for an error reply, by its status and type."""
    kind = _BY_STATUS.get(status, ActionError)
    if kind is NotFound and errors and errors[0].get("type") == "route_not_found":
        kind = RouteNotFound
    return kind(status, errors, action, route)
