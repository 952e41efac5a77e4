"""Every error that reaches the wire, in one tree and one catalogue.

::

    APIError(status, type, msg, ctx)
    ├── 400  InvalidJSON            invalid_json
    ├── 400  InvalidFrame           invalid_frame
    ├── 400  InvalidParameters      pydantic's own types, one item each
    ├── 401  NotAuthenticated       not_authenticated
    ├── 403  PermissionDenied       permission_denied
    ├── 404  RouteNotFound          route_not_found
    ├── 404  NotFound               not_found
    ├── 405  ActionNotAllowed       action_not_allowed
    ├── 408  ActionTimeout          action_timeout
    ├── 409  Conflict               conflict
    ├── 409  DuplicateRequestID     duplicate_request_id
    ├── 429  Throttled              throttled
    ├── 499  Cancelled              cancelled
    ├── 500  ServerError            server_error
    ├── 500  ReplyTooLarge          reply_too_large
    ├── 500  OutcomeUnknown         outcome_unknown
    ├── 503  Busy                   busy
    ├── 503  ShuttingDown           shutting_down
    ├── 503  LayerUnavailable       layer_unavailable
    └── 503  DatabaseUnavailable    database_unavailable

    ImproperlyConfigured            a declaration that cannot work; raised when declared, never on the wire

Application code raises a subclass, or ``APIError`` itself for a code of its own::

    raise NotFound("There is no card 7 on this board.")
    raise APIError(402, "payment_required", "The plan has no boards left.", {"plan": "free"})

or a class of its own, which ``except`` and ``exception_handlers`` can tell apart::

    class TicketClosed(Conflict):
        code = 409, "ticket_closed", "This ticket is closed."

Starlette's ``HTTPException`` and FastAPI's are answered with their status and detail. Anything else that an action
raises is a bug: it is logged with its traceback under a correlation id, and the client is told that id in a 500
``server_error``.
"""

import http.client
import logging
import re
import secrets
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import ValidationError

from wsaction.routing.exceptions import ImproperlyConfigured

__all__ = (
    "CATALOGUE",
    "APIError",
    "ActionNotAllowed",
    "ActionTimeout",
    "Busy",
    "Cancelled",
    "Conflict",
    "DatabaseUnavailable",
    "DuplicateRequestID",
    "ImproperlyConfigured",
    "InvalidFrame",
    "InvalidJSON",
    "InvalidParameters",
    "LayerUnavailable",
    "NotAuthenticated",
    "NotFound",
    "OutcomeUnknown",
    "PermissionDenied",
    "ReplyTooLarge",
    "RouteNotFound",
    "ServerError",
    "ShuttingDown",
    "Throttled",
    "bad_parameter",
    "from_starlette",
    "one_line",
    "to_api_error",
    "validation_items",
)

logger = logging.getLogger("wsaction")

_MAX_LISTED = 100  # of one parameter's validation errors in a reply
_MAX_COLLECTED = 1_000  # beyond which none of them is listed: to list the first of 32,000 takes pydantic 50 ms
_MAX_TRACEBACK = 16_384  # characters of it that a debug reply carries


class APIError(Exception):
    """An error that is told to the client as it is.

    Parameters: ``status``, 400 to 599; ``type``, a stable snake_case code that programs compare; ``msg``, a sentence
    for people; ``ctx``, machine-readable detail; ``loc``, the place in the frame that is at fault. Raises
    ``ValueError`` for a status that says success, since the reply would contradict itself.

    ``APIError(409, "stale", "The card changed meanwhile.", {"version": 4})`` becomes the reply's
    ``"errors": [{"type": "stale", "msg": "The card changed meanwhile.", "ctx": {"version": 4}}]``.
    """

    def __init__(
        self, status: int, type: str, msg: str, ctx: Mapping[str, Any] | None = None, *, loc: Sequence[str | int] = ()
    ) -> None:
        _check_arguments(status, ctx, loc)
        super().__init__(msg)
        self.status = int(status)
        self.type = str(type)
        self.msg = str(msg)
        self.ctx = ctx
        self.loc = loc

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("status", "type", "msg"):
            if isinstance(vars(cls).get(name), int | str):
                raise ImproperlyConfigured(
                    f"{cls.__name__}.{name} would not count; derive it from the error that it is like (Conflict, "
                    'NotFound, ...) and write code = 409, "ticket_closed", "This ticket is closed."'
                )

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The items of the reply's ``errors``, each ``{"type", "msg"}`` and, where there is one, ``loc`` and
        ``ctx``."""
        item: dict[str, Any] = {"type": self.type, "msg": self.msg}
        if self.loc:
            item["loc"] = list(self.loc)
        if self.ctx:
            item["ctx"] = dict(self.ctx)
        return [item]


def _check_arguments(status: Any, ctx: Any, loc: Any) -> None:
    """What an error is made of, refused where it is made: it cannot fail later, when a client waits for it."""
    if not _is_error_status(status):
        raise ValueError(f"an error's status is 400 to 599, not {status!r}; return (value, status) for success")
    if not isinstance(ctx, Mapping | None):
        raise TypeError(f"an error's ctx is a mapping, as in {{'plan': 'free'}}, or None, not {ctx!r}")
    if isinstance(loc, str) or not isinstance(loc, Sequence):
        raise TypeError(f"an error's loc is a sequence of keys, as in ('data', 'title'), not {loc!r}")


def _is_error_status(status: Any) -> bool:
    return isinstance(status, int) and not isinstance(status, bool) and 400 <= status <= 599


class _Catalogued(APIError):
    """An ``APIError`` whose status and type are fixed by the catalogue."""

    code: ClassVar[tuple[int, str, str]]  # status, type, default msg

    def __init__(
        self, msg: str | None = None, ctx: Mapping[str, Any] | None = None, *, loc: Sequence[str | int] = ()
    ) -> None:
        status, type, default = self.code
        super().__init__(status, type, msg or default, ctx, loc=loc)


class InvalidJSON(_Catalogued):
    """What came is not JSON."""

    code = (400, "invalid_json", "A frame is one JSON object as a text message.")


class InvalidFrame(_Catalogued):
    """JSON, but not an action frame."""

    code = (400, "invalid_frame", 'A frame is {"action": str, "route": str, "data": any, "request_id": str | int}.')


class NotAuthenticated(_Catalogued):
    """The first frame had to authenticate, and did not."""

    code = (401, "not_authenticated", "Authentication is required.")


class PermissionDenied(_Catalogued):
    """A permission said no; told before it is told whether the action exists."""

    code = (403, "permission_denied", "You do not have permission to do this.")


class RouteNotFound(_Catalogued):
    """No pattern matches the route."""

    code = (404, "route_not_found", "No such route.")


class NotFound(_Catalogued):
    """No such object or page, or none that this user may see."""

    code = (404, "not_found", "Not found.")


class ActionNotAllowed(_Catalogued):
    """The handler has no such action here."""

    code = (405, "action_not_allowed", "There is no such action here.")


class ActionTimeout(_Catalogued):
    """It took longer than its timeout, and was cancelled."""

    code = (408, "action_timeout", "This took too long.")


class Conflict(_Catalogued):
    """A unique or foreign-key constraint was violated."""

    code = (409, "conflict", "This conflicts with what is already there.")


class DuplicateRequestID(_Catalogued):
    """A ``request_id`` that is still in flight on this connection."""

    code = (409, "duplicate_request_id", "This request_id is still in flight on this connection.")


class Throttled(_Catalogued):
    """Too often; ``wait`` is told as ``ctx.retry_after``, the seconds until the same frame may be sent again."""

    code = (429, "throttled", "Too many requests; try again later.")

    def __init__(
        self,
        msg: str | None = None,
        ctx: Mapping[str, Any] | None = None,
        *,
        wait: float | None = None,
        loc: Sequence[str | int] = (),
    ) -> None:
        if wait is not None:
            seconds = round(wait, 6)
            msg, ctx = msg or f"Too many requests; try again in {seconds} s.", {**(ctx or {}), "retry_after": seconds}
        super().__init__(msg, ctx, loc=loc)


class Cancelled(_Catalogued):
    """The client cancelled it, with ``$cancel``."""

    code = (499, "cancelled", "This was cancelled by the client.")


class ServerError(_Catalogued):
    """Anything else; ``ctx.error_id`` finds it in the log."""

    code = (500, "server_error", "The server failed to answer this; the error is in its log.")


class ReplyTooLarge(_Catalogued):
    """The reply alone is larger than ``max_outbox_bytes``."""

    code = (500, "reply_too_large", "The reply is too large to be sent.")


class OutcomeUnknown(_Catalogued):
    """A commit was sent and its answer never came, or only a part of the changes was committed.

    No 503: after a 503 the same frame may be sent again, since nothing was done. Here the client has to look first.
    """

    code = (500, "outcome_unknown", "Whether this was carried out is not known; look before you send it again.")


class Busy(_Catalogued):
    """A bound is reached; ``ctx.limit`` names the setting. Nothing was done: the same frame may be sent again later."""

    code = (503, "busy", "Too much is under way on this connection.")


class ShuttingDown(_Catalogued):
    """The server is being stopped; what was sent has not been begun. Connect again, and send it there."""

    code = (503, "shutting_down", "The server is shutting down; connect again.")


class LayerUnavailable(_Catalogued):
    """What carries events between processes is away, Redis for one. It is logged why; the client is not told.

    ``uncertain``: the request had been sent, so it may have been carried out all the same.
    """

    code = (503, "layer_unavailable", "What carries the events is away; try again later.")

    def __init__(
        self,
        msg: str | None = None,
        ctx: Mapping[str, Any] | None = None,
        *,
        uncertain: bool = False,
        loc: Sequence[str | int] = (),
    ) -> None:
        super().__init__(msg, ctx, loc=loc)
        self.uncertain = uncertain


class DatabaseUnavailable(_Catalogued):
    """The database cannot be reached, or takes no work. Nothing was done: the same frame may be sent again later."""

    code = (503, "database_unavailable", "The database is away; nothing was done. Try again later.")


CATALOGUE: Mapping[str, type[_Catalogued]] = {cls.code[1]: cls for cls in _Catalogued.__subclasses__()}
"""Every ``type`` that wsaction itself sends, with its class; validation adds pydantic's own types."""


class InvalidParameters(APIError):
    """Parameters that are missing or that pydantic refused: one item of ``errors`` for each, the input not echoed."""

    def __init__(self, items: list[dict[str, Any]]) -> None:
        super().__init__(400, items[0]["type"], items[0]["msg"])
        self.items = items

    @property
    def errors(self) -> list[dict[str, Any]]:
        return self.items


def bad_parameter(name: str, type: str, msg: str, **ctx: Any) -> InvalidParameters:
    """The 400 for a parameter of the route's query, at ``["route", name]``."""
    item: dict[str, Any] = {"type": type, "msg": f"{msg}.", "loc": ["route", name]}
    return InvalidParameters([{**item, "ctx": ctx} if ctx else item])


def validation_items(error: ValidationError, *loc: str | int) -> list[dict[str, Any]]:
    """pydantic's errors as items of ``errors``, their places below ``loc``: ``["data", "title"]``; the first 100 of
    them and how many more there are, or, of more than 1,000, just how many."""
    if (count := error.error_count()) > _MAX_COLLECTED:
        return [{"type": "too_many_errors", "msg": f"{count} errors, which are not listed.", "loc": [*loc]}]
    items = []
    lines = error.errors(include_url=False, include_input=False)
    for line in lines[:_MAX_LISTED]:
        item: dict[str, Any] = {"type": line["type"], "msg": line["msg"], "loc": [*loc, *line["loc"]]}
        if line.get("ctx"):
            item["ctx"] = {key: str(v) if isinstance(v, Exception) else v for key, v in line["ctx"].items()}
        items.append(item)
    if len(lines) > _MAX_LISTED:
        more = len(lines) - _MAX_LISTED
        items.append({"type": "too_many_errors", "msg": f"{more} more errors are not listed.", "loc": [*loc]})
    return items


def to_api_error(exc: BaseException, *, what: str, debug: bool) -> APIError:
    """The error that the client is told for ``exc``. What is no ``APIError``, nor stands for one, is logged, with
    ``what`` was under way.

    ``to_api_error(ZeroDivisionError(), what="update boards/7/", debug=False)`` gives a 500 whose ``ctx.error_id``
    stands in the log beside the traceback; with ``debug``, ``ctx`` holds the exception and the traceback too.
    """
    if isinstance(exc, APIError):
        return exc
    if (error := from_starlette(exc)) is not None:
        return error
    error_id = secrets.token_hex(8)
    logger.error("%s failed (error_id %s)", one_line(what), error_id, exc_info=exc)
    ctx = {"error_id": error_id}
    if debug:
        ctx["exception"] = _encodable(_repr(exc))[:_MAX_TRACEBACK]
        ctx["traceback"] = _encodable("".join(traceback.format_exception(exc)))[-_MAX_TRACEBACK:]
    return ServerError(ctx=ctx)


def from_starlette(exc: BaseException) -> APIError | None:
    """The error that an exception of Starlette's stands for, or of FastAPI's, which derive from them; None for others.

    ``HTTPException(404, "No such card.")`` becomes a 404 ``not_found`` with that message; a detail that is no string is
    its ``ctx["detail"]``, and ``Retry-After`` its ``ctx["retry_after"]``. ``WebSocketException(1008)`` becomes a 403.
    A status that is no error's, a redirect for example, makes it a bug like any other exception: None.
    """
    bases = {cls.__name__ for cls in type(exc).__mro__ if cls.__module__ == "starlette.exceptions"}
    known: Any = exc  # known by its name, as this module does not import Starlette
    if "HTTPException" in bases:
        return _from_http(known.status_code, known.detail, known.headers or {})
    if "WebSocketException" in bases:
        statuses = {4401: 401, 4404: 404, 1013: 503}  # `_protocol.close_codes`, which is above this module
        return _from_http(statuses.get(known.code, 403), known.reason, {})
    return None


def _from_http(status: Any, detail: Any, headers: Mapping[str, str]) -> APIError | None:
    if not _is_error_status(status):
        return None
    phrase = http.client.responses.get(status, f"HTTP {status}")
    type = _TYPES.get(status) or re.sub(r"\W+", "_", phrase.replace("'", "").lower())
    ctx = {} if detail is None or isinstance(detail, str) else {"detail": detail}
    seconds = {str(name).lower(): str(value) for name, value in headers.items()}.get("retry-after", "")
    if seconds.isascii() and seconds.isdecimal():  # else it is a date
        ctx["retry_after"] = float(seconds)
    return APIError(int(status), type, detail if isinstance(detail, str) and detail else phrase, ctx)


_TYPES = {cls.code[0]: cls.code[1] for cls in (NotAuthenticated, PermissionDenied, NotFound, Conflict, Throttled)}


def one_line(text: str) -> str:
    """What a client says, fit for the log: it cannot forge a line of it. ``one_line("a\\nb") == "'a\\\\nb'"``."""
    return text[:300] if text.isprintable() else ascii(text[:300])


def _repr(exc: BaseException) -> str:
    try:
        return repr(exc)
    except Exception:  # a __repr__ that fails must not keep the client from its reply
        return f"{type(exc).__name__}, which has no repr"


def _encodable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()  # a lone surrogate is no UTF-8
