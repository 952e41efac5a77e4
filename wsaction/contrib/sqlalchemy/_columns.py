"""The values of database columns: converted to the column's type, and refused if the database would refuse them.

Values are checked before they are sent. The database would report a number that is too large, or a text that is too
long, later and in its own words.
"""

import enum
from collections.abc import Callable, Collection, Mapping, Set
from datetime import UTC, date, datetime, time, timedelta
from decimal import MAX_PREC, ROUND_HALF_UP, Context, Decimal
from pathlib import PurePath
from types import SimpleNamespace
from typing import Any, get_origin
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import ClauseElement, types

from wsaction.querysets._lookups import Condition, FieldError
from wsaction.querysets._model_fields import coercer, json_text, jsonable, members, revealed
from wsaction.querysets._predicates import predicate

Check = Callable[[Any], Any]


class ColumnValues:
    """Converts and checks the values of a column of the type ``kind``, in a database with this dialect.

    ``coerce`` converts the value of a lookup, ``prepare`` a value to write. Both raise ``ValueError`` for a value that
    the column cannot hold: ``ColumnValues(SmallInteger(), "postgresql").prepare(40_000)``.
    """

    def __init__(self, kind: types.TypeEngine[Any], dialect: str, *, is_column: bool = True) -> None:
        plain = _plain_type(kind)
        self._decidable = _decidable_lookups(kind, dialect) if is_column else frozenset[str]()
        self._folds_like_python = _case_folding(dialect)
        python_type = None if plain is None else _python_type(plain)
        self._type: Any = python_type
        self._check: Check | None = None if plain is None else _make_check(plain, python_type, dialect)
        self._length = getattr(plain, "length", None) if python_type is str and dialect not in ("sqlite", "") else None
        self._places = _places(plain, dialect) if isinstance(plain, types.Numeric) else None
        self._is_json = isinstance(plain, types.JSON)
        self._items = ColumnValues(plain.item_type, dialect) if isinstance(plain, types.ARRAY) else None
        self._enum_names = plain.enums if isinstance(plain, types.Enum) else None
        self._is_opaque = plain is None  # a TypeDecorator converts the values itself
        # JSON has its own null, and an application's own type may store anything for None
        self.keeps_null = plain is not None and not (kind.should_evaluate_none or kind._variant_mapping)
        self._coerce: Check | None = None
        if plain is not None and python_type is not None:
            if isinstance(plain, types.Enum) and plain.enum_class is None:
                self._coerce = _enum_coercer(plain)
            else:
                self._coerce = coercer(python_type)

    def coerce(self, value: Any) -> Any:
        """The value of a lookup, as the column compares it."""
        value = value if self._coerce is None else self._coerce(value)
        return value if self._check is None else self._check(value)

    def prepare(self, value: Any) -> Any:
        """A value as it is written to the column.

        SQL expressions are written unchanged. A value of a type that drivers do not know (pydantic's URLs and secrets,
        paths, enums) is written as JSON represents it. Decimal places that the column does not store are rounded away.
        """
        if value is None or self._is_opaque or isinstance(value, ClauseElement) or hasattr(value, "__clause_element__"):
            return value
        if type(value) is not self._type or self._is_json or self._items is not None:
            value = self._convert(value)
        if self._check is None or type(value) is not self._type:
            return value
        if self._length is not None and len(value) > self._length:
            raise ValueError(f"expected a text of at most {self._length} characters")
        if self._places is not None and isinstance(value, Decimal):
            value = _round(self._places, value)
        return self._check(value)

    def verdict(self, actual: Any, lookup: str, value: Any) -> bool | None:
        """Whether a value of the column, not null, meets a lookup; None if only the database can tell.

        A database compares by collations, widths and locales that Python does not know. If it may fold or pad texts,
        Python only knows that identical texts are equal.
        """
        if lookup == "in" and not value:
            return False
        if lookup in self._decidable:
            folds = self._folds_like_python
            if lookup in ("iexact", "icontains") and not (folds(actual) and folds(value)):
                return None
            if isinstance(actual, Decimal) and self._places is not None:
                actual = _round(self._places, actual)  # as the column stores it
            return predicate(Condition(("actual",), lookup, value))(SimpleNamespace(actual=actual))
        if "same" in self._decidable and (actual == value if lookup == "exact" else lookup == "in" and actual in value):
            return True
        return None

    def _convert(self, value: Any) -> Any:
        """A value of another type, converted to the column's. Raises ``ValueError``."""
        if self._is_json:
            return _convert_json(value)
        if self._items is not None:
            return self._convert_array(value)
        value = revealed(value)
        if isinstance(value, enum.Enum) and not (self._enum_names is not None and type(value) is self._type):
            value = value.value
        if self._enum_names is not None:
            return self._convert_enum(value)
        if self._type is None:
            is_unknown_to_drivers = isinstance(value, PurePath) or type(value).__module__.startswith("pydantic")
            return jsonable(value) if is_unknown_to_drivers else value
        if isinstance(value, _BYTES if self._type is bytes else self._type):
            return value
        if self._type is str:
            if isinstance(value, _CONTAINERS):
                raise FieldError(f"a text column cannot hold a {type(value).__name__}; {_CURE}")
            return json_text(value)
        if self._coerce is None:
            return value
        try:
            return self._coerce(value)
        except ValueError:
            return self._coerce(jsonable(value))

    def _convert_array(self, value: Any) -> Any:
        """The items of an array, which may have several dimensions."""
        if isinstance(value, list | tuple | set | frozenset):
            return [self._convert_array(item) for item in value]
        return self._items.prepare(value)  # type: ignore[union-attr]  # it is an array

    def _convert_enum(self, value: Any) -> Any:
        """A member of an enum by its value, or else a text that is the name of one, which SQLAlchemy takes too."""
        try:
            return value if self._coerce is None else self._coerce(value)
        except ValueError:
            if isinstance(value, str) and self._enum_names is not None and value in self._enum_names:
                return value
            raise


_EQUAL = frozenset({"exact", "in"})
_ORDERED = _EQUAL | {"lt", "lte", "gt", "gte", "range"}
_TEXT = _EQUAL | {"iexact", "contains", "icontains", "startswith", "endswith"}
_PLAIN_TEXTS = (types.String, types.Text, types.Unicode, types.UnicodeText, types.VARCHAR, types.NVARCHAR, types.TEXT)
_ASCII_BUT_I = frozenset(map(chr, range(128))) - {"I"}


def _decidable_lookups(kind: types.TypeEngine[Any], dialect: str) -> frozenset[str]:
    """The lookups on a column of this type that Python decides as the database does.

    "same" means only that identical values are equal. Everything else is left to the database: the application's own
    types, JSON, floats (a REAL is narrower than Python's), and types that a dialect or collation compares differently.
    """
    known = dialect in ("sqlite", "postgresql")
    if type(kind).__module__ != types.String.__module__ or kind._variant_mapping:
        return frozenset({"same"} if isinstance(kind, types.String) and not isinstance(kind, types.Enum) else ())
    if isinstance(kind, types.Boolean | types.Integer | types.Date):
        return _ORDERED
    if isinstance(kind, types.DateTime):
        return _ORDERED if known else frozenset()
    if isinstance(kind, types.Numeric) and not isinstance(kind, types.Float):
        return _ORDERED if dialect == "postgresql" and kind.asdecimal else frozenset()
    if isinstance(kind, types.Enum | types.Uuid):
        return _EQUAL if known else frozenset()
    if type(kind) not in _PLAIN_TEXTS or kind.collation is not None or not known:  # type: ignore[attr-defined]
        return frozenset({"same"} if isinstance(kind, types.String) else ())
    return _TEXT | _ORDERED if dialect == "sqlite" else _TEXT


def _case_folding(dialect: str) -> Callable[[str], bool]:
    """A test whether the database's lower() of a text is Python's: only ASCII, on PostgreSQL without the Turkish I."""
    return str.isascii if dialect == "sqlite" else _ASCII_BUT_I.issuperset


_BYTES = (bytes, bytearray, memoryview)
_CONTAINERS = (list, tuple, set, frozenset, dict)
_SCALARS = (str, int, float, bool, bytes, Decimal, date, time, timedelta, UUID)
_CURE = "make it a JSON column, or write what it holds in perform_create() and perform_update()"


def refuse_container(where: str, kind: types.TypeEngine[Any], annotation: Any) -> None:
    """Raises `FieldError` if a field's annotation is a list, a dict or a model and its column holds a single value."""
    plain = _plain_type(kind)
    python_type = None if plain is None or isinstance(plain, types.JSON | types.ARRAY) else _python_type(plain)
    if not isinstance(python_type, type) or not issubclass(python_type, _SCALARS):
        return
    for part in members(annotation):
        base = get_origin(part) or part
        if isinstance(base, type) and issubclass(base, (*_CONTAINERS, BaseModel, Mapping, Set)):
            raise FieldError(
                f"{where} is a column of {python_type.__name__} and cannot hold a {base.__name__}; {_CURE}"
            )


def _convert_json(value: Any) -> Any:
    """A value for a JSON column. If it is not JSON data, the engine's own ``json_serializer`` gets it."""
    try:
        return jsonable(value)
    except ValueError as exc:
        if "utf-8" in str(exc):
            raise ValueError("expected bytes that are UTF-8 text; JSON cannot hold others") from None
        return revealed(value)


def _plain_type(kind: types.TypeEngine[Any]) -> types.TypeEngine[Any] | None:
    """The type itself, or the type that a `TypeDecorator` wraps; None if the decorator converts values."""
    if not isinstance(kind, types.TypeDecorator) or isinstance(kind, types.Interval):
        return kind
    cls = type(kind)
    converts = (
        cls.process_bind_param is not types.TypeDecorator.process_bind_param
        or cls.bind_processor is not types.TypeDecorator.bind_processor  # PickleType's
    )
    return None if converts else kind.impl_instance


def _python_type(kind: types.TypeEngine[Any]) -> Any:
    try:
        return kind.python_type
    except NotImplementedError:
        return None


def _make_check(kind: types.TypeEngine[Any], python_type: Any, dialect: str) -> Check | None:
    """A function that returns a value of the column's Python type, or raises ``ValueError`` if it does not fit."""
    if isinstance(kind, types.Enum):
        return None
    if python_type is str and isinstance(kind, types.String):
        return storable
    if isinstance(kind, types.Integer):
        limit = 2 ** (_bits(kind, dialect) - 1)
        return lambda value: _check_range(limit, value)
    if python_type is Decimal and isinstance(kind, types.Numeric):
        digits = _max_digits(kind, dialect)
        return lambda value: _check_digits(digits, value)
    if python_type is float and dialect == "sqlite":
        return _check_not_nan
    if isinstance(kind, types.DateTime):
        return lambda value: _to_utc(kind, value)
    if isinstance(kind, types.Interval) and not (kind.native and dialect in ("postgresql", "oracle")):
        return lambda value: _check_interval(kind, value)
    return None


# ------------------------------------------------------------------------------------------------- types
def _enum_coercer(kind: types.Enum) -> Check:
    known: Collection[Any] = kind.enums

    def coerce(value: Any) -> Any:
        if value not in known:
            raise ValueError(f"expected one of {', '.join(map(str, known))}")
        return value

    return coerce


def storable(text: str) -> str:
    """The text unchanged. Raises ``ValueError`` for a text that databases cannot store."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("expected a text without NUL and lone surrogates, which a database cannot store")
    return text


def _bits(kind: types.Integer, dialect: str) -> int:
    if dialect == "sqlite" or isinstance(kind, types.BigInteger):
        return 64
    return 16 if isinstance(kind, types.SmallInteger) else 32


def _check_range(limit: int, number: int) -> int:
    if not -limit <= number < limit:
        raise ValueError(f"expected a number from {-limit} to {limit - 1}")
    return number


def _check_not_nan(number: float) -> float:
    if number != number:
        raise ValueError("expected a number; SQLite stores no NaN")
    return number


def _max_digits(kind: types.Numeric[Any], dialect: str) -> int:
    """The maximum number of digits before the decimal point. SQLite stores numbers as floats."""
    if dialect == "sqlite":
        return 308
    return 131_072 if kind.precision is None else kind.precision - (kind.scale or 0)


def _places(kind: types.Numeric[Any], dialect: str) -> int | None:
    """The number of digits after the decimal point, or None for any. SQLite stores more, but SQLAlchemy reads these."""
    if isinstance(kind, types.Float):  # a subclass of Numeric in SQLAlchemy 2.0
        return None
    if kind.scale is not None:
        return kind.scale
    if dialect == "sqlite":
        return int(kind._effective_decimal_return_scale)
    return None if kind.precision is None else 0


def _round(places: int, number: Decimal) -> Decimal:
    """A number rounded as databases do, half away from zero.

    Reading it then gives the value that was written, and a cursor made from an object's value finds its place.
    """
    if not number.is_finite() or number.as_tuple().exponent >= -places:  # type: ignore[operator]  # an int if finite
        return number
    return number.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP, Context(prec=MAX_PREC))


def _check_digits(digits: int, number: Decimal) -> Decimal:
    if number.is_finite() and number.adjusted() >= max(digits, 1) and number:
        raise ValueError(f"expected a number of at most {digits} digits before the decimal point")
    return number


def _to_utc(kind: types.DateTime, value: datetime) -> datetime:
    """A datetime as its column stores it. Without a zone it is taken as UTC."""
    try:
        aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise ValueError("expected a date and time of the years 1 to 9999, in UTC") from None
    return aware if kind.timezone else aware.replace(tzinfo=None)


def _check_interval(kind: types.Interval, value: timedelta) -> timedelta:
    """Checks a duration for a database without a type for them, which stores an epoch plus the duration."""
    try:
        kind.epoch + value
    except OverflowError:
        raise ValueError("expected a duration that, added to 1970, ends in the years 1 to 9999") from None
    return value
