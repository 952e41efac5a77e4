"""What the columns of a database hold: values coerced to their types, and refused where the database would refuse them.

A database tells that a number is too large, or a text too long, in its own words and too late. What is asked for or
written is looked at before.
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
from sqlalchemy import ClauseElement
from sqlalchemy.sql import sqltypes
from sqlalchemy.types import (
    ARRAY,
    JSON,
    NVARCHAR,
    TEXT,
    VARCHAR,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    Numeric,
    SmallInteger,
    String,
    Text,
    TypeDecorator,
    TypeEngine,
    Unicode,
    UnicodeText,
    Uuid,
)

from wsaction.querysets._lookups import Condition, FieldError
from wsaction.querysets._model_fields import coercer, json_text, jsonable, members, revealed
from wsaction.querysets._predicates import predicate

__all__ = ("ColumnValues", "refuse_container", "storable")

Check = Callable[[Any], Any]


class ColumnValues:
    """The values of a column of this type, in a database of this name.

    ``coerce`` makes a value one that may be compared with the column, ``prepare`` one that may be written to it; SQL
    expressions are written as they are, values of other types than the column's as JSON has them; decimal places that
    the column does not keep are rounded away. Both raise ``ValueError`` for what the column cannot hold:
    ``ColumnValues(SmallInteger(), "postgresql").stored(40_000)``.
    """

    def __init__(self, kind: TypeEngine[Any], dialect: str, *, is_column: bool = True) -> None:
        plain = _plain_type(kind)
        self._decidable = _decidable_lookups(kind, dialect) if is_column else frozenset[str]()
        self._folds_like_python = _case_folding(dialect)
        python_type = None if plain is None else _python_type(plain)
        self._type: Any = python_type
        self._check: Check | None = None if plain is None else _make_check(plain, python_type, dialect)
        self._length = getattr(plain, "length", None) if python_type is str and dialect not in ("sqlite", "") else None
        self._places = _places(plain, dialect) if isinstance(plain, Numeric) else None
        self._is_json = isinstance(plain, JSON)
        self._items = ColumnValues(plain.item_type, dialect) if isinstance(plain, ARRAY) else None
        self._enum_names = plain.enums if isinstance(plain, Enum) else None
        self._is_opaque = plain is None  # what is written is another's to say
        # JSON has a null of its own, and a type of one's own may keep anything in the place of None
        self.keeps_null = plain is not None and not (kind.should_evaluate_none or kind._variant_mapping)
        self._coerce: Check | None = None
        if plain is not None and python_type is not None:
            if isinstance(plain, Enum) and plain.enum_class is None:
                self._coerce = _enum_coercer(plain)
            else:
                self._coerce = coercer(python_type)

    def coerce(self, value: Any) -> Any:
        """A value of a lookup."""
        for convert in (self._coerce, self._check):
            value = value if convert is None else convert(value)
        return value

    def prepare(self, value: Any) -> Any:
        """A value to be written.

        Of a type that drivers do not know it is what JSON has in its place: pydantic's URLs, secrets, paths, enums.
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
        """Whether a value that the column holds, not null, meets a lookup; None where only the database can say.

        A database compares by collations, widths and locales that Python does not know. Of texts that it may fold or
        pad, only the very same is known to be equal.
        """
        if lookup == "in" and not value:
            return False
        if lookup in self._decidable:
            folds = self._folds_like_python
            if lookup in ("iexact", "icontains") and not (folds(actual) and folds(value)):
                return None
            if isinstance(actual, Decimal) and self._places is not None:
                actual = _round(self._places, actual)  # as the column keeps what was written
            return predicate(Condition(("actual",), lookup, value))(SimpleNamespace(actual=actual))
        if "same" in self._decidable and (actual == value if lookup == "exact" else lookup == "in" and actual in value):
            return True
        return None

    def _convert(self, value: Any) -> Any:
        """A value of another type than the column's, as one that it takes; raises ``ValueError``."""
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
            return jsonable(value) if _is_unknown_to_drivers(value) else value
        if isinstance(value, _BYTES if self._type is bytes else self._type):
            return value
        if self._type is str:
            return self._text(value)
        if self._coerce is None:
            return value
        try:
            return self._coerce(value)
        except ValueError:
            return self._coerce(jsonable(value))

    @staticmethod
    def _text(value: Any) -> str:
        if isinstance(value, _CONTAINERS):
            raise FieldError(f"a column of text holds no {type(value).__name__}; {_CURE}")
        return json_text(value)

    def _convert_array(self, value: Any) -> Any:
        """The items of an array, of several dimensions perhaps."""
        if isinstance(value, list | tuple | set | frozenset):
            return [self._convert_array(item) for item in value]
        return self._items.prepare(value)  # type: ignore[union-attr]  # it is an array

    def _convert_enum(self, value: Any) -> Any:
        """A member of an enum by its value, or by its name as SQLAlchemy has it."""
        try:
            return value if self._coerce is None else self._coerce(value)
        except ValueError:
            if isinstance(value, str) and self._enum_names is not None and value in self._enum_names:
                return value
            raise


_EQUAL = frozenset({"exact", "in"})
_ORDERED = _EQUAL | {"lt", "lte", "gt", "gte", "range"}
_TEXT = _EQUAL | {"iexact", "contains", "icontains", "startswith", "endswith"}
_PLAIN_TEXTS = (String, Text, Unicode, UnicodeText, VARCHAR, NVARCHAR, TEXT)
_ASCII_BUT_I = frozenset(map(chr, range(128))) - {"I"}


def _decidable_lookups(kind: TypeEngine[Any], dialect: str) -> frozenset[str]:
    """The lookups of a column's type that Python decides as the database does; "same": that a value equals itself.

    Anything that is not known to be decided alike is left to the database: types of one's own, JSON, floats (a REAL is
    not as wide as Python's), and what a dialect or a collation compares in its own way.
    """
    known = dialect in ("sqlite", "postgresql")
    if type(kind).__module__ != sqltypes.__name__ or kind._variant_mapping:
        return frozenset({"same"} if isinstance(kind, String) and not isinstance(kind, Enum) else ())
    if isinstance(kind, Boolean | Integer | Date):
        return _ORDERED
    if isinstance(kind, DateTime):
        return _ORDERED if known else frozenset()
    if isinstance(kind, Numeric) and not isinstance(kind, Float):
        return _ORDERED if dialect == "postgresql" and kind.asdecimal else frozenset()
    if isinstance(kind, Enum | Uuid):
        return _EQUAL if known else frozenset()
    if type(kind) not in _PLAIN_TEXTS or kind.collation is not None or not known:  # type: ignore[attr-defined]
        return frozenset({"same"} if isinstance(kind, String) else ())
    return _TEXT | _ORDERED if dialect == "sqlite" else _TEXT


def _case_folding(dialect: str) -> Callable[[str], bool]:
    """Whether the database's lower() of a text is Python's: of ASCII alone, in PostgreSQL but for the I of Turkish."""
    return str.isascii if dialect == "sqlite" else _ASCII_BUT_I.issuperset


_BYTES = (bytes, bytearray, memoryview)
_CONTAINERS = (list, tuple, set, frozenset, dict)
_SCALARS = (str, int, float, bool, bytes, Decimal, date, time, timedelta, UUID)
_CURE = "make it a JSON column, or write what it holds in perform_create() and perform_update()"


def refuse_container(where: str, kind: TypeEngine[Any], annotation: Any) -> None:
    """Raises `FieldError` where a column of one plain value is to hold a list, a dict or a model."""
    plain = _plain_type(kind)
    python_type = None if plain is None or isinstance(plain, JSON | ARRAY) else _python_type(plain)
    if not isinstance(python_type, type) or not issubclass(python_type, _SCALARS):
        return
    for part in members(annotation):
        base = get_origin(part) or part
        if isinstance(base, type) and issubclass(base, (*_CONTAINERS, BaseModel, Mapping, Set)):
            raise FieldError(f"{where} is a column of {python_type.__name__} and holds no {base.__name__}; {_CURE}")


def _convert_json(value: Any) -> Any:
    """What a JSON column holds; what is none is left to the engine's own ``json_serializer``."""
    try:
        return jsonable(value)
    except ValueError as exc:
        if "utf-8" in str(exc):
            raise ValueError("expected bytes that are text; JSON holds no others") from None
        return revealed(value)


def _is_unknown_to_drivers(value: Any) -> bool:
    return isinstance(value, PurePath) or type(value).__module__.startswith("pydantic")


def _plain_type(kind: TypeEngine[Any]) -> TypeEngine[Any] | None:
    """What a type that only decorates another decorates; None where it makes something else of values."""
    if not isinstance(kind, TypeDecorator) or isinstance(kind, Interval):
        return kind
    cls = type(kind)
    converts = (
        cls.process_bind_param is not TypeDecorator.process_bind_param
        or cls.bind_processor is not TypeDecorator.bind_processor  # PickleType's
    )
    return None if converts else kind.impl_instance


def _python_type(kind: TypeEngine[Any]) -> Any:
    try:
        return kind.python_type
    except NotImplementedError:
        return None


def _make_check(kind: TypeEngine[Any], python_type: Any, dialect: str) -> Check | None:
    """What a value of the column's Python type has to pass; it raises ``ValueError``."""
    if isinstance(kind, Enum):
        return None
    if python_type is str and isinstance(kind, String):
        return storable
    if isinstance(kind, Integer):
        limit = 2 ** (_bits(kind, dialect) - 1)
        return lambda value: _check_range(limit, value)
    if python_type is Decimal and isinstance(kind, Numeric):
        digits = _max_digits(kind, dialect)
        return lambda value: _check_digits(digits, value)
    if python_type is float and dialect == "sqlite":
        return _check_not_nan
    if isinstance(kind, DateTime):
        return lambda value: _to_utc(kind, value)
    if isinstance(kind, Interval) and not (kind.native and dialect in ("postgresql", "oracle")):
        return lambda value: _check_interval(kind, value)
    return None


# ------------------------------------------------------------------------------------------------- of each type
def _enum_coercer(kind: Enum) -> Check:
    known: Collection[Any] = kind.enums

    def coerce(value: Any) -> Any:
        if value not in known:
            raise ValueError(f"expected one of {', '.join(map(str, known))}")
        return value

    return coerce


def storable(text: str) -> str:
    """A text as it is; raises ``ValueError`` for one that databases do not hold."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("a database holds neither NUL nor lone surrogates in a text")
    return text


def _bits(kind: Integer, dialect: str) -> int:
    if dialect == "sqlite" or isinstance(kind, BigInteger):
        return 64
    return 16 if isinstance(kind, SmallInteger) else 32


def _check_range(limit: int, number: int) -> int:
    if not -limit <= number < limit:
        raise ValueError(f"expected a number from {-limit} to {limit - 1}")
    return number


def _check_not_nan(number: float) -> float:
    if number != number:
        raise ValueError("expected a number; SQLite keeps no NaN")
    return number


def _max_digits(kind: Numeric[Any], dialect: str) -> int:
    """How many digits there may be before the point; SQLite keeps numbers as floats."""
    if dialect == "sqlite":
        return 308
    return 131_072 if kind.precision is None else kind.precision - (kind.scale or 0)


def _places(kind: Numeric[Any], dialect: str) -> int | None:
    """How many digits there may be behind the point; SQLite keeps any number, of which no more than these are read."""
    if isinstance(kind, Float):  # which SQLAlchemy 2.0 has as a kind of these
        return None
    if kind.scale is not None:
        return kind.scale
    if dialect == "sqlite":
        return int(kind._effective_decimal_return_scale)
    return None if kind.precision is None else 0


def _round(places: int, number: Decimal) -> Decimal:
    """A number as databases round it, half away from zero: what is read again is then what was written, and the place
    of an object in an order is the one that its own value says."""
    if not number.is_finite() or number.as_tuple().exponent >= -places:  # type: ignore[operator]  # it is a number's
        return number
    return number.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP, Context(prec=MAX_PREC))


def _check_digits(digits: int, number: Decimal) -> Decimal:
    if number.is_finite() and number.adjusted() >= max(digits, 1) and number:
        raise ValueError(f"expected a number of at most {digits} digits before its point")
    return number


def _to_utc(kind: DateTime, value: datetime) -> datetime:
    """A point in time as its column compares it: without a zone it is taken for one in UTC."""
    try:
        aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise ValueError("expected a point in time of the years 1 to 9999, in UTC") from None
    return aware if kind.timezone else aware.replace(tzinfo=None)


def _check_interval(kind: Interval, value: timedelta) -> timedelta:
    """Where there is no type for them, they are kept as points in time from an epoch on."""
    try:
        kind.epoch + value
    except OverflowError:
        raise ValueError("expected a duration that ends between the years 1 and 9999, from 1970 on") from None
    return value
