"""Classifies database errors: what the client gets, whether the database is unavailable, whether a COMMIT failed.

Errors for clients contain neither SQL nor values.
"""

import re
from typing import Any

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Mapper

from wsaction.exceptions import APIError, Busy, Conflict, InvalidParameters

_SQLITE = re.compile(r"(?:UNIQUE|NOT NULL) constraint failed: (.+)")  # card.board_id, card.position
_DETAIL = re.compile(r"Key \((.+?)\)=")  # PostgreSQL's: Key (board_id, "position")=(1, 2) already exists.
# too long, out of range, ill-formed
_INVALID_VALUES = ("22001", "22003", "22007", "22008", "22015", "22021", "22P02", "22P05")
_TRANSIENT = ("40001", "40P01", "55P03")  # serialization failure, deadlock, lock not available
# connection error, out of resources (too many connections), shutting down, login refused, no such database
_AWAY = ("08", "53", "57P", "28", "3D")
_NO_ANSWER = ("08", "40003", "57P")  # the connection ended during a COMMIT, perhaps after the database carried it out
# SQLite's primary result codes
_SQLITE_AWAY = frozenset({8, 10, 13, 14})  # read-only, I/O error, disk full, cannot open
_SQLITE_REFUSES = frozenset({5, 6, 8, 13, 19})  # busy, locked, read-only, disk full, constraint


def api_error(exc: DBAPIError, mapper: Mapper[Any]) -> APIError | None:
    """The error for the client; None if it is a server error.

    A violated constraint becomes `Conflict`, with the fields in ``ctx.fields`` if the database names them. A lock that
    was not available becomes `Busy`, a value that the column cannot hold `InvalidParameters`.
    """
    if isinstance(exc, IntegrityError):
        return _conflict(exc.orig, mapper)
    if _sqlstate(exc.orig) in _TRANSIENT or "database is locked" in str(exc.orig) or "table is locked" in str(exc.orig):
        return Busy("The database is busy with other changes; nothing was done.")
    if _is_invalid_value(exc):
        msg = "A value is too large, too long or ill-formed for its column."
        return InvalidParameters([{"type": "value_error", "msg": msg}])
    return None


def is_unavailable(exc: BaseException) -> bool:
    """Whether an error says that the database cannot be reached or accepts no work at all."""
    if isinstance(exc, DBAPIError) and exc.connection_invalidated:
        return True
    orig = exc.orig if isinstance(exc, DBAPIError) else exc
    if (state := _sqlstate(orig)) is not None:
        return state.startswith(_AWAY)
    if (code := _sqlite_code(orig)) is not None:
        return code in _SQLITE_AWAY
    return isinstance(exc, OSError) and _came_from_sqlalchemy(exc)


def _came_from_sqlalchemy(exc: BaseException) -> bool:
    """Whether an error passed through SQLAlchemy, which wraps only the driver's own errors while it connects."""
    trace = exc.__traceback__
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__")).startswith("sqlalchemy."):
            return True
        trace = trace.tb_next
    return False


def is_aborted(exc: DBAPIError) -> bool:
    """Whether the database refused a statement because an earlier one in the transaction had failed."""
    return _sqlstate(exc.orig) == "25P02"


def is_refusal(exc: BaseException) -> bool:
    """Whether an error of a commit proves that the database did not carry it out; if False, the outcome is unknown."""
    if not isinstance(exc, DBAPIError):
        return isinstance(exc, SQLAlchemyError)  # SQLAlchemy's own error, raised before the COMMIT
    # a statement failed before the COMMIT, which has no statement in SQLAlchemy
    if exc.statement is not None or isinstance(exc, IntegrityError):
        return True
    if exc.connection_invalidated:
        return False
    if (state := _sqlstate(exc.orig)) is not None:
        return not state.startswith(_NO_ANSWER)
    return _sqlite_code(exc.orig) in _SQLITE_REFUSES


def _sqlite_code(orig: Any) -> int | None:
    code = getattr(orig, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None


def _is_invalid_value(exc: DBAPIError) -> bool:
    if (state := _sqlstate(exc.orig)) is not None:
        return state in _INVALID_VALUES
    cause = getattr(exc.orig, "__cause__", None)  # asyncpg's error for a value that it cannot send
    return isinstance(exc, DataError) or (type(cause).__name__ == "DataError" and isinstance(cause, ValueError))


def _conflict(orig: BaseException | None, mapper: Mapper[Any]) -> Conflict:
    text, state, fields = str(orig), _sqlstate(orig), _fields(orig, mapper)
    ctx = {"fields": fields} if fields else None
    names = " and ".join(fields)
    if state == "23503" or "FOREIGN KEY" in text:
        return Conflict("This refers to an object that does not exist, or another object refers to this one.", ctx)
    if state == "23502" or "NOT NULL" in text:
        return Conflict(f"This needs a value: {names}." if fields else None, ctx)
    return Conflict(f"There is already a {mapper.class_.__name__} with this {names}." if fields else None, ctx)


def _sqlstate(orig: Any) -> str | None:
    state = getattr(orig, "sqlstate", None) or getattr(orig, "pgcode", None)
    return state if isinstance(state, str) else None


def _fields(orig: Any, mapper: Mapper[Any]) -> list[str]:
    """The mapped fields that a database error names."""
    cause = getattr(orig, "__cause__", None) or getattr(orig, "diag", None)  # asyncpg's; psycopg's
    detail = getattr(cause, "detail", None) or getattr(cause, "message_detail", None)
    named: str = getattr(cause, "column_name", None) or ""
    if found := _SQLITE.search(str(orig)) or _DETAIL.search(detail or ""):
        named = found[1]
    columns = [name.rpartition(".")[2].strip('" ') for name in named.split(",")]
    by_column = {column.name: mapper.get_property_by_column(column).key for column in mapper.columns}
    return [by_column[name] for name in columns if name in by_column]
