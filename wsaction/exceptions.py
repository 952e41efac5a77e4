"""Exceptions: every error that a client can receive, as one class tree and one catalogue.

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

    ImproperlyConfigured            a declaration is wrong; raised at declaration, never sent to a client

Application code raises a subclass, or ``APIError`` itself with a type of its own::

    raise NotFound("There is no card 7 on this board.")
    raise APIError(402, "payment_required", "The plan has no boards left.", {"plan": "free"})

It can also define a class, which ``except`` and ``exception_handlers`` then tell apart::

    class TicketClosed(Conflict):
        code = 409, "ticket_closed", "This ticket is closed."

The ``HTTPException`` of Starlette or FastAPI becomes a reply with its status and detail. Any other exception from an
action is a bug: the server logs its traceback with a correlation id, and the client gets a 500 ``server_error`` with
that id.
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

_MAX_LISTED = 100  # validation errors of one parameter in a reply
_MAX_COLLECTED = 1_000  # with more errors, none is listed: for 32,000, pydantic takes 50 ms to list even the first
_MAX_TRACEBACK = 16_384  # characters of the traceback in a debug reply


class APIError(Exception):
    """An error for the client: the status of the reply and one item of its ``errors``.

    Parameters: ``status``, 400 to 599; ``type``, a stable snake_case code for programs; ``msg``, a sentence for
    people; ``ctx``, machine-readable detail; ``loc``, the path of the value in the frame that is at fault. Raises
    ``ValueError`` for any other status, and ``TypeError`` for a ``ctx`` that is no mapping or a ``loc`` that is no
    sequence.

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
                    f"{cls.__name__}.{name} would not count; subclass the nearest error (Conflict, NotFound, ...) and "
                    'write code = 409, "ticket_closed", "This ticket is closed."'
                )
        for name in vars(cls).keys() & {"status_code", "default_detail", "default_code"}:
            raise ImproperlyConfigured(
                f"{cls.__name__}.{name} has no effect; subclass the nearest error (Conflict, NotFound, ...) and write "
                'code = 409, "ticket_closed", "This ticket is closed."'
            )

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The items of the reply's ``errors``: each has ``type`` and ``msg``, and ``loc`` and ``ctx`` if given."""
        item: dict[str, Any] = {"type": self.type, "msg": self.msg}
        if self.loc:
            item["loc"] = list(self.loc)
        if self.ctx:
            item["ctx"] = dict(self.ctx)
        return [item]


def _check_arguments(status: Any, ctx: Any, loc: Any) -> None:
    """Raises for arguments that could not be sent: here, and not later when a client waits for the reply."""
    if not _is_error_status(status):
        raise ValueError(f"an error's status is 400 to 599, not {status!r}; return (value, status) for a success")
    if not isinstance(ctx, Mapping | None):
        raise TypeError(f"an error's ctx is a mapping, as in {{'plan': 'free'}}, or None, not {ctx!r}")
    if isinstance(loc, str) or not isinstance(loc, Sequence):
        raise TypeError(f"an error's loc is a sequence of keys, as in ('data', 'title'), not {loc!r}")


def _is_error_status(status: Any) -> bool:
    return isinstance(status, int) and not isinstance(status, bool) and 400 <= status <= 599


class _Catalogued(APIError):
    """An ``APIError`` whose class sets the status, the type and a default ``msg``."""

    code: ClassVar[tuple[int, str, str]]  # status, type, default msg

    def __init__(
        self, msg: str | None = None, ctx: Mapping[str, Any] | None = None, *, loc: Sequence[str | int] = ()
    ) -> None:
        status, type, default = self.code
        super().__init__(status, type, msg or default, ctx, loc=loc)


class InvalidJSON(_Catalogued):
    """400: the message is not JSON."""

    code = (400, "invalid_json", "A frame is one JSON object as a text message.")


class InvalidFrame(_Catalogued):
    """400: the message is JSON, but not an action frame."""

    code = (400, "invalid_frame", 'A frame is {"action": str, "route": str, "data": any, "request_id": str | int}.')


class NotAuthenticated(_Catalogued):
    """401: the credential is missing, wrong or expired."""

    code = (401, "not_authenticated", "Authentication is required.")


class PermissionDenied(_Catalogued):
    """403: a permission refused. The reply does not reveal whether the action exists."""

    code = (403, "permission_denied", "You do not have permission to do this.")


class RouteNotFound(_Catalogued):
    """404: no pattern matches the route."""

    code = (404, "route_not_found", "No such route.")


class NotFound(_Catalogued):
    """404: there is no such object or page, or the user may not see it."""

    code = (404, "not_found", "Not found.")


class ActionNotAllowed(_Catalogued):
    """405: the handler has no such action at this route."""

    code = (405, "action_not_allowed", "There is no such action here.")


class ActionTimeout(_Catalogued):
    """408: the action ran longer than its timeout and was cancelled."""

    code = (408, "action_timeout", "The request took too long.")


class Conflict(_Catalogued):
    """409: a unique or foreign-key constraint was violated."""

    code = (409, "conflict", "This conflicts with what is already there.")


class DuplicateRequestID(_Catalogued):
    """409: a request with this ``request_id`` is still in flight on the connection."""

    code = (409, "duplicate_request_id", "This request_id is still in flight on this connection.")


class Throttled(_Catalogued):
    """429: too many requests. ``wait`` becomes ``ctx.retry_after``: seconds until the client may send it again."""

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
    """499: the client cancelled the request, with ``$cancel``."""

    code = (499, "cancelled", "The client cancelled this request.")


class ServerError(_Catalogued):
    """500: any other exception. ``ctx.error_id`` is the id of its traceback in the log."""

    code = (500, "server_error", "The server failed to answer this; the error is in its log.")


class ReplyTooLarge(_Catalogued):
    """500: the reply alone is larger than ``max_outbox_bytes``."""

    code = (500, "reply_too_large", "The reply is too large to send.")


class OutcomeUnknown(_Catalogued):
    """500: the answer to a commit was lost, or only a part of the changes was committed.

    It is not a 503, after which a client may send the same frame again. Here the client has to check first.
    """

    code = (500, "outcome_unknown", "The outcome of this request is unknown; check before you send it again.")


class Busy(_Catalogued):
    """503: a limit is reached; ``ctx.limit`` names it. Nothing was changed: the client may send it again later."""

    code = (503, "busy", "Too many requests are under way on this connection.")


class ShuttingDown(_Catalogued):
    """503: the server is stopping and did not run the request. The client should reconnect and send it again."""

    code = (503, "shutting_down", "The server is shutting down; connect again.")


class LayerUnavailable(_Catalogued):
    """503: the layer that carries events between processes (Redis, for example) is unavailable.

    The log says why; the client does not learn it. ``uncertain``: the command was sent to the layer, and may have been
    carried out.
    """

    code = (503, "layer_unavailable", "The layer that carries events is unavailable; try again later.")

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
    """503: the database is unreachable or accepts no work. Nothing was changed: the client may send it again later."""

    code = (503, "database_unavailable", "The database is unavailable; nothing was changed. Try again later.")


CATALOGUE: Mapping[str, type[_Catalogued]] = {cls.code[1]: cls for cls in _Catalogued.__subclasses__()}
"""The class of each error ``type`` that wsaction sends. Validation errors have pydantic's types, which are not here."""


class InvalidParameters(APIError):
    """400: parameters are missing or invalid. ``errors`` has one item for each error, without the client's input."""

    def __init__(self, items: list[dict[str, Any]]) -> None:
        super().__init__(400, items[0]["type"], items[0]["msg"])
        self.items = items

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The items of the reply's ``errors``."""
        return self.items


def bad_parameter(name: str, type: str, msg: str, **ctx: Any) -> InvalidParameters:
    """A 400 for a query parameter of the route; its ``loc`` is ``["route", name]``."""
    item: dict[str, Any] = {"type": type, "msg": f"{msg}.", "loc": ["route", name]}
    return InvalidParameters([{**item, "ctx": ctx} if ctx else item])


def validation_items(error: ValidationError, *loc: str | int) -> list[dict[str, Any]]:
    """pydantic's errors as items of ``errors``, with ``loc`` before their own places, as in ``["data", "title"]``.

    Lists the first 100 and counts the rest; of more than 1,000 it gives the count only.
    """
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
    """Converts an exception to the error that the client receives.

    An ``APIError`` is returned as it is, and `from_starlette` converts Starlette's. Any other exception is logged with
    ``what``, a description of the work that failed. It becomes a 500 whose ``ctx.error_id`` is in the log too; with
    ``debug``, ``ctx`` also has the exception and its traceback.

    ``to_api_error(ZeroDivisionError(), what="update boards/7/", debug=False)``
    """
    if isinstance(exc, APIError):
        return exc
    if (error := from_starlette(exc)) is not None:
        return error
    error_id = secrets.token_hex(8)
    extra = {"error_id": error_id, "status": 500}
    logger.error("%s failed (error_id %s)", one_line(what), error_id, exc_info=exc, extra=extra)
    ctx = {"error_id": error_id}
    if debug:
        ctx["exception"] = _encodable(_repr(exc))[:_MAX_TRACEBACK]
        ctx["traceback"] = _encodable("".join(traceback.format_exception(exc)))[-_MAX_TRACEBACK:]
    return ServerError(ctx=ctx)


def from_starlette(exc: BaseException) -> APIError | None:
    """The ``APIError`` for an exception of Starlette or FastAPI; None for other exceptions.

    ``HTTPException(404, "No such card.")`` becomes a 404 ``not_found`` with that message. A detail that is no string
    becomes ``ctx["detail"]``, and ``Retry-After`` in seconds becomes ``ctx["retry_after"]``.
    ``WebSocketException(1008)`` becomes a 403. None for a status outside 400 to 599, such as a redirect: raising it is
    a bug like any other.
    """
    bases = {cls.__name__ for cls in type(exc).__mro__ if cls.__module__ == "starlette.exceptions"}
    known: Any = exc  # recognised by its class name, because this module does not import Starlette
    if "HTTPException" in bases:
        return _from_http(known.status_code, known.detail, known.headers or {})
    if "WebSocketException" in bases:
        statuses = {4401: 401, 4404: 404, 1013: 503}  # as in `_protocol.close_codes`; `_protocol` imports this module
        return _from_http(statuses.get(known.code, 403), known.reason, {})
    return None


def _from_http(status: Any, detail: Any, headers: Mapping[str, str]) -> APIError | None:
    if not _is_error_status(status):
        return None
    phrase = http.client.responses.get(status, f"HTTP {status}")
    type = _TYPES.get(status) or re.sub(r"\W+", "_", phrase.replace("'", "").lower())
    ctx = {} if detail is None or isinstance(detail, str) else {"detail": detail}
    seconds = {str(name).lower(): str(value) for name, value in headers.items()}.get("retry-after", "")
    if seconds.isascii() and seconds.isdecimal():  # it may also be a date
        ctx["retry_after"] = float(seconds)
    return APIError(int(status), type, detail if isinstance(detail, str) and detail else phrase, ctx)


_TYPES = {cls.code[0]: cls.code[1] for cls in (NotAuthenticated, PermissionDenied, NotFound, Conflict, Throttled)}


def one_line(text: str) -> str:
    """A client's text for the log, on one line, so that it cannot forge log lines; cut to 300 characters.

    ``one_line("a\\nb") == "'a\\\\nb'"``
    """
    return text[:300] if text.isprintable() else ascii(text[:300])


def _repr(exc: BaseException) -> str:
    try:
        return repr(exc)
    except Exception:  # the client must get a reply even if __repr__ fails
        return f"{type(exc).__name__}, whose repr() failed"


def _encodable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()  # UTF-8 has no lone surrogates
