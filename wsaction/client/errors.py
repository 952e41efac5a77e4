"""What a client raises.

::

    ClientError
    ├── ConnectionFailed      there is no connection, and the client does not try (any more)
    ├── ConnectionLost        it was lost while a call or stream was under way; whether it was carried out is unknown
    ├── CallTimeout           also a TimeoutError: no reply in time; the server is told to cancel it
    ├── Overflow              a stream's consumer was too slow; the server is told to cancel it
    ├── UnexpectedReply       the reply is not of the kind that was asked for
    └── ActionError           the reply says an error: status, type, msg, ctx, errors
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

Statuses of an application's own, 402 for example, are a plain ``ActionError``.
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
    """Whatever a client raises of its own."""


class ConnectionFailed(ClientError):
    """There is no connection, and the client does not try any more.

    ``status`` is that of a handshake that was refused by HTTP, ``code`` that of a close which says no; else None.
    ``is_final``: trying again as it is would not help.
    """

    def __init__(self, msg: str, *, status: int | None = None, code: int | None = None, is_final: bool = False) -> None:
        super().__init__(msg)
        self.status = status
        self.code = code
        self.is_final = is_final

    def again(self) -> "ConnectionFailed":
        """The same, to be raised once more."""
        again = type(self)(str(self), status=self.status, code=self.code, is_final=self.is_final)
        again.__cause__ = self
        return again


class ConnectionLost(ClientError):
    """The connection was lost before the final reply. The action may have been carried out or not: never sent again.

    ``code`` and ``reason`` are those of the close; 1006 where the server went without one. ``refused``: its code says
    no, and nothing came before it, as from a server that accepts a handshake to refuse it.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.refused = False

    def __str__(self) -> str:
        close = f"code {self.code}, {self.reason!r}" if self.reason else f"code {self.code}"
        if self.refused:
            return f"the server refused the connection, or ended it before it said anything ({close})"
        return f"the connection was lost ({close}); what was under way may have been carried out"

    def again(self) -> "ConnectionLost":
        """The same, to be raised once more."""
        again = type(self)(self.code, self.reason)
        again.refused = self.refused
        return again


class CallTimeout(ClientError, TimeoutError):
    """No reply came in ``seconds``."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(f"{what}: no reply in {seconds:g} s")
        self.seconds = seconds


class Overflow(ClientError):
    """More items of a stream waited for their consumer than the client's ``buffer`` allows."""


class UnexpectedReply(ClientError):
    """The server answered something else than what was asked for."""


class ActionError(ClientError):
    """The server answered with an error.

    ``errors`` are the items as they came; ``type``, ``msg`` and ``ctx`` are those of the first; ``action`` and
    ``route`` say what was asked. ``str()`` of one is ``404 not_found: There is no card 7. (retrieve cards/7/)``.
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
    """400: the frame, its data or its parameters; ``errors`` has an item, with ``loc``, for each fault."""


class NotAuthenticated(ActionError):
    """401: ``$auth`` was refused, or has to come first."""


class PermissionDenied(ActionError):
    """403: a permission said no."""


class NotFound(ActionError):
    """404: no such object, page or, see `RouteNotFound`, route."""


class RouteNotFound(NotFound):
    """404: no pattern of the server's matches the route."""


class ActionNotAllowed(ActionError):
    """405: the route has no such action."""


class ActionTimeout(ActionError):
    """408: it took the server too long, which cancelled it."""


class Conflict(ActionError):
    """409: with what is already there."""


class Throttled(ActionError):
    """429: too often."""

    @property
    def retry_after(self) -> float | None:
        """Seconds until the same may be asked again; None where the server does not say."""
        seconds = self.ctx.get("retry_after")
        return float(seconds) if isinstance(seconds, (int, float)) else None


class Cancelled(ActionError):
    """499: cancelled, by somebody with another ``$cancel`` than the client's own."""


class ServerError(ActionError):
    """500: a bug of the server's."""

    @property
    def error_id(self) -> str | None:
        """What finds it in the server's log."""
        return self.ctx.get("error_id")


class Unavailable(ActionError):
    """503: busy, shutting down, or a part is away. Nothing was done: the same may be asked again later."""


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
    """The error that a reply says, by its status and type."""
    kind = _BY_STATUS.get(status, ActionError)
    if kind is NotFound and errors and errors[0].get("type") == "route_not_found":
        kind = RouteNotFound
    return kind(status, errors, action, route)
