"""What databases refuse, as errors that clients may be told: without SQL, without values."""

import re
from typing import Any

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.orm import Mapper

from wsaction.exceptions import APIError, Busy, Conflict, InvalidParameters

__all__ = ("api_error",)

_SQLITE = re.compile(r"(?:UNIQUE|NOT NULL) constraint failed: (.+)")  # card.board_id, card.position
_DETAIL = re.compile(r"Key \((.+?)\)=")  # PostgreSQL's: Key (board_id, "position")=(1, 2) already exists.
_VALUES = ("22001", "22003", "22007", "22008", "22015", "22021", "22P02", "22P05")  # too long, out of range, ill-formed
_AGAIN = ("40001", "40P01", "55P03")  # serialization failure, deadlock, lock not available


def api_error(exc: DBAPIError, mapper: Mapper[Any]) -> APIError | None:
    """The error that clients are told, None where it is none of theirs.

    A constraint that is violated is a `Conflict` whose ``ctx.fields`` are the fields at fault, as far as the database
    says; a lock that was not to be had is `Busy`; a value that a column cannot hold is a 400.
    """
    if isinstance(exc, IntegrityError):
        return _conflict(exc.orig, mapper)
    if _sqlstate(exc.orig) in _AGAIN or "database is locked" in str(exc.orig) or "table is locked" in str(exc.orig):
        return Busy("The database is busy with other changes; nothing was done.")
    if _is_of_values(exc):
        told = "A value is too large, too long or ill-formed for where it is kept."
        return InvalidParameters([{"type": "value_error", "msg": told}])
    return None


def _is_of_values(exc: DBAPIError) -> bool:
    if (state := _sqlstate(exc.orig)) is not None:
        return state in _VALUES
    cause = getattr(exc.orig, "__cause__", None)  # asyncpg's, of what it cannot even send
    return isinstance(exc, DataError) or (type(cause).__name__ == "DataError" and isinstance(cause, ValueError))


def _conflict(orig: BaseException | None, mapper: Mapper[Any]) -> Conflict:
    text, state, fields = str(orig), _sqlstate(orig), _fields(orig, mapper)
    ctx, told = ({"fields": fields}, " and ".join(fields)) if fields else (None, "")
    if state == "23503" or "FOREIGN KEY" in text:
        return Conflict("This refers to what is not there, or something refers to it.", ctx)
    if state == "23502" or "NOT NULL" in text:
        return Conflict(f"This needs a value: {told}." if told else None, ctx)
    if told:
        return Conflict(f"There is already a {mapper.class_.__name__} with this {told}.", ctx)
    return Conflict()


def _sqlstate(orig: Any) -> str | None:
    state = getattr(orig, "sqlstate", None) or getattr(orig, "pgcode", None)
    return state if isinstance(state, str) else None


def _fields(orig: Any, mapper: Mapper[Any]) -> list[str]:
    """The mapped fields that the database's error names."""
    cause = getattr(orig, "__cause__", None) or getattr(orig, "diag", None)  # asyncpg's; psycopg's
    detail = getattr(cause, "detail", None) or getattr(cause, "message_detail", None)
    named: str = getattr(cause, "column_name", None) or ""
    if found := _SQLITE.search(str(orig)) or _DETAIL.search(detail or ""):
        named = found[1]
    columns = [name.rpartition(".")[2].strip('" ') for name in named.split(",")]
    by_column = {column.name: mapper.get_property_by_column(column).key for column in mapper.columns}
    return [by_column[name] for name in columns if name in by_column]
