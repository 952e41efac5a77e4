"""Lookups and orders on Python objects: how a `MemoryQuerySet` filters and sorts its rows."""

import operator
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, time
from enum import Enum
from functools import lru_cache, total_ordering
from typing import Any, TypeAlias

from wsaction.querysets._lookups import Combination, Condition

Predicate: TypeAlias = Callable[[Any], bool]
Ordering: TypeAlias = tuple[tuple[str, ...], bool]  # the path of a field, and whether it descends


def predicate(condition: Combination | Condition) -> Predicate:
    """A function that returns whether an object meets the conditions.

    ``predicate(resolve([], {"title__contains": "a"}, fields))(card)`` is ``"a" in card.title``.
    """
    if isinstance(condition, Condition):
        return _make_comparison(condition)
    children = [predicate(child) for child in condition.children]
    if len(children) == 1:
        combined = children[0]
    elif condition.connector == "AND":

        def combined(row: Any) -> bool:
            return all(child(row) for child in children)
    else:

        def combined(row: Any) -> bool:
            return any(child(row) for child in children)

    return (lambda row: not combined(row)) if condition.negated else combined


def decide(condition: Combination | Condition, verdict: Callable[[Condition], bool | None]) -> bool | None:
    """Whether the conditions hold; None if that depends on conditions whose ``verdict`` is None.

    This is Kleene's three-valued logic: ``false and unknown`` is false, so one known condition may be enough.
    """
    if isinstance(condition, Condition):
        return verdict(condition)
    decisive = condition.connector == "OR"
    known: bool | None = not decisive
    for child in condition.children:
        decided = decide(child, verdict)
        if decided is decisive:
            known = decisive
            break
        if decided is None:
            known = None
    return known if known is None or not condition.negated else not known


def reader(path: tuple[str, ...]) -> Callable[[Any], Any]:
    """A function that reads the value at the end of a path; None if an object on the path is None."""
    if len(path) == 1:
        return operator.attrgetter(path[0])

    def read(row: Any) -> Any:
        for name in path:
            if row is None:
                return None
            row = getattr(row, name)
        return row

    return read


def _make_comparison(condition: Condition) -> Predicate:
    read, compare, value = reader(condition.path), _COMPARISONS[condition.lookup], condition.value
    if condition.lookup in ("in", "range"):
        if any(map(_is_ranked, value)):
            read, value = _rank_reader(read), tuple(map(_rank, value))
    elif _is_ranked(value):
        read, value = _rank_reader(read), _rank(value)

    def holds(row: Any) -> bool:
        actual = read(row)
        if actual is None:
            return condition.lookup == "isnull" and value is True
        try:
            return bool(compare(actual, value))
        except TypeError:  # values that cannot be compared do not match
            return False

    return holds


_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "exact": operator.eq,
    "in": lambda actual, value: actual in value,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
    "range": lambda actual, value: value[0] <= actual <= value[1],
    "isnull": lambda actual, value: (actual is None) is value,
    "iexact": lambda actual, value: _require_text(actual).lower() == value.lower(),
    "contains": lambda actual, value: value in _require_text(actual),
    "icontains": lambda actual, value: value.lower() in _require_text(actual).lower(),
    "startswith": lambda actual, value: _require_text(actual).startswith(value),
    "endswith": lambda actual, value: _require_text(actual).endswith(value),
}


def _require_text(actual: Any) -> str:
    if not isinstance(actual, str):
        raise TypeError(f"expected a text, got {actual!r}")
    return actual


def _is_ranked(value: Any) -> bool:
    """Whether values of this type are compared by `_rank`."""
    kind: Any = type(value)
    return isinstance(value, datetime | time | float) or (isinstance(value, Enum) and kind.__lt__ is _NO_ORDER)


def _rank(value: Any) -> Any:
    """A value that can be compared, for those that Python cannot order.

    An enumeration's member becomes its position in the declaration. A time without a zone is taken as UTC, because it
    cannot be compared with one that has a zone. NaN becomes `_NAN`.
    """
    if not _is_ranked(value):
        return value
    if isinstance(value, float):
        return _NAN if value != value else value
    if isinstance(value, Enum):
        return _positions(type(value))[value]
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


@total_ordering
class _Nan:
    """Stands for NaN in comparisons: greater than every number and equal to itself, so that rows with it sort too."""

    def __lt__(self, other: Any) -> bool:
        return False


_NAN = _Nan()
_NO_ORDER = vars(object)["__lt__"]


def _rank_reader(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda row: _rank(read(row))


@lru_cache(256)
def _positions(kind: type[Enum]) -> Mapping[Enum, int]:
    return {member: position for position, member in enumerate(kind)}


def sort_rows(rows: Iterable[Any], order: Iterable[Ordering]) -> list[Any]:
    """The rows in order; null is greater than every value."""
    ordered = list(rows)
    for path, descends in reversed(tuple(order)):  # sorting is stable, so the most important field comes last
        values = list(map(reader(path), ordered))
        if any(map(operator.ne, values, values)):  # a NaN, which would break the order of the other values
            values = list(map(_rank, values))
        try:
            ordered = _sort_by(values, ordered, descends)
        except TypeError:  # members of an enumeration, or times with and without a zone
            ordered = _sort_by(map(_rank, values), ordered, descends)
    return ordered


def _sort_by(values: Iterable[Any], rows: list[Any], descends: bool) -> list[Any]:
    def null_last(pair: tuple[Any, Any]) -> tuple[bool, Any]:
        return (True, 0) if pair[0] is None else (False, pair[0])

    return [row for _, row in sorted(zip(values, rows, strict=True), key=null_last, reverse=descends)]
