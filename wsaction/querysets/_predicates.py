"""Lookups and orders asked of Python objects: what the rows of a `MemoryQuerySet` are chosen and sorted by."""

import operator
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, time
from enum import Enum
from functools import lru_cache
from typing import Any, TypeAlias

from wsaction.querysets._lookups import Combination, Condition

__all__ = ("Ordering", "Predicate", "decide", "predicate", "sort_rows")

Predicate: TypeAlias = Callable[[Any], bool]
Ordering: TypeAlias = tuple[tuple[str, ...], bool]  # the path of a field, and whether it descends


def predicate(asked: Combination | Condition) -> Predicate:
    """A function that says whether an object meets the conditions.

    ``predicate(resolve([], {"title__contains": "a"}, fields))(card)`` is ``"a" in card.title``.
    """
    if isinstance(asked, Condition):
        return _comparison(asked)
    holds = [predicate(child) for child in asked.children]
    if len(holds) == 1:
        together = holds[0]
    elif asked.connector == "AND":

        def together(row: Any) -> bool:
            return all(one(row) for one in holds)
    else:

        def together(row: Any) -> bool:
            return any(one(row) for one in holds)

    return (lambda row: not together(row)) if asked.negated else together


def decide(asked: Combination | Condition, verdict: Callable[[Condition], bool | None]) -> bool | None:
    """Whether the conditions hold, where ``verdict`` may not know of some: Kleene's three-valued logic.

    None where it depends on what is not known. ``false and unknown`` is false, so that one known condition may do.
    """
    if isinstance(asked, Condition):
        return verdict(asked)
    decisive = asked.connector == "OR"
    known: bool | None = not decisive
    for child in asked.children:
        one = decide(child, verdict)
        if one is decisive:
            known = decisive
            break
        if one is None:
            known = None
    return known if known is None or not asked.negated else not known


def reader(path: tuple[str, ...]) -> Callable[[Any], Any]:
    """A function that reads what a path leads to; None where there is nothing on the way."""
    if len(path) == 1:
        return operator.attrgetter(path[0])

    def read(row: Any) -> Any:
        for name in path:
            if row is None:
                return None
            row = getattr(row, name)
        return row

    return read


def _comparison(asked: Condition) -> Predicate:
    read, compare, value = reader(asked.path), _COMPARISONS[asked.lookup], asked.value
    if asked.lookup in ("in", "range"):
        if any(map(_is_ranked, value)):
            read, value = _ranked(read), tuple(map(_rank, value))
    elif _is_ranked(value):
        read, value = _ranked(read), _rank(value)

    def holds(row: Any) -> bool:
        held = read(row)
        if held is None:
            return compare is _isnull and value is True
        try:
            return bool(compare(held, value))
        except TypeError:  # what cannot be compared is neither less nor greater, nor part of it
            return False

    return holds


def _isnull(held: Any, value: bool) -> bool:
    return (held is None) is value


_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "exact": operator.eq,
    "in": lambda held, value: held in value,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
    "range": lambda held, value: value[0] <= held <= value[1],
    "isnull": _isnull,
    "iexact": lambda held, value: _text(held).lower() == value.lower(),
    "contains": lambda held, value: value in _text(held),
    "icontains": lambda held, value: value.lower() in _text(held).lower(),
    "startswith": lambda held, value: _text(held).startswith(value),
    "endswith": lambda held, value: _text(held).endswith(value),
}


def _text(held: Any) -> str:
    if not isinstance(held, str):
        raise TypeError(f"{held!r} is no text")
    return held


def _is_ranked(value: Any) -> bool:
    """Whether values of its kind are compared by their rank."""
    kind: Any = type(value)
    return isinstance(value, datetime | time | float) or (isinstance(value, Enum) and kind.__lt__ is _NO_ORDER)


def _rank(value: Any) -> Any:
    """Of a member of an enumeration that do not compare, its place among them; of a time without a zone, that in UTC,
    as it does not compare with those that have one; of NaN, what does compare; any other value as it is."""
    if not _is_ranked(value):
        return value
    if isinstance(value, float):
        return _NAN if value != value else value
    if isinstance(value, Enum):
        return _places(type(value))[value]
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


class _Nan:
    """In the place of NaN: greater than every number, and equal to itself, so that rows with it have a place too."""

    def __lt__(self, other: Any) -> bool:
        return False

    def __le__(self, other: Any) -> bool:
        return other is self

    def __gt__(self, other: Any) -> bool:
        return other is not self

    def __ge__(self, other: Any) -> bool:
        return True


_NAN = _Nan()
_NO_ORDER = vars(object)["__lt__"]


def _ranked(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda row: _rank(read(row))


@lru_cache(256)
def _places(kind: type[Enum]) -> Mapping[Enum, int]:
    return {member: place for place, member in enumerate(kind)}


def sort_rows(rows: Iterable[Any], order: Iterable[Ordering]) -> list[Any]:
    """The rows in order: null is greater than every value."""
    ordered = list(rows)
    for path, descends in reversed(tuple(order)):  # a sort keeps what is equal as it was
        held = list(map(reader(path), ordered))
        if any(map(operator.ne, held, held)):  # NaN, by which a sort would leave the others in no order
            held = list(map(_rank, held))
        try:
            ordered = _sorted(ordered, held, descends)
        except TypeError:  # members of an enumeration, or times with and without a zone
            ordered = _sorted(ordered, map(_rank, held), descends)
    return ordered


def _sorted(rows: list[Any], held: Iterable[Any], descends: bool) -> list[Any]:
    return [row for _, row in sorted(zip(held, rows, strict=True), key=_null_last, reverse=descends)]


def _null_last(pair: tuple[Any, Any]) -> tuple[bool, Any]:
    held = pair[0]
    return (True, 0) if held is None else (False, held)
