"""`MemoryQuerySet`: rows of any pydantic model, kept in this process.

What lookups mean, what null is and how rows are ordered is said in `wsaction.querysets._lookups`; when changes are
kept, in `wsaction.transactions`.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from wsaction.exceptions import Conflict, ImproperlyConfigured, NotFound
from wsaction.querysets._base import NarrowingQuerySet
from wsaction.querysets._lookups import Condition, Fields
from wsaction.querysets._memory_table import Draft, Drafts, Table
from wsaction.querysets._predicates import predicate, sort_rows
from wsaction.transactions import current_unit, join_unit

__all__ = ("MemoryQuerySet",)

M = TypeVar("M", bound=BaseModel)

_NO_DRAFTS = Drafts()


class MemoryQuerySet(NarrowingQuerySet[M], Generic[M]):
    """Objects of a pydantic model, kept in this process and found by primary key.

    ``rows`` are the first ones, ``pk`` the name of the key's field: an int that is left out of ``create`` counts on
    from the largest there ever was, a UUID is made. ``unique`` are fields, or groups of fields, that no two objects
    have alike. What is returned are copies: only ``create``, ``update`` and ``delete`` change what is kept. All that it
    is narrowed to share the rows. Raises `ImproperlyConfigured`, and `Conflict` for first rows that clash.

    >>> cards = MemoryQuerySet(Card, rows=[Card(id=1, title="a")], unique=("title", ("board_id", "position")))
    >>> await cards.filter(title__startswith="a").get(pk="1")
    Card(id=1, title='a')
    """

    def __init__(
        self, model: type[M], rows: Iterable[M] = (), pk: str = "id", unique: Iterable[str | Iterable[str]] = ()
    ) -> None:
        if not isinstance(model, type(BaseModel)):
            raise ImproperlyConfigured(f"MemoryQuerySet takes a pydantic model class, not {model!r}")
        self.model = model
        self.pk = pk
        self._table = Table(model, pk, unique)
        self._fields = self._table.fields
        initial = Drafts()
        for row in rows:
            initial.of(self._table).create(self._table.with_key(row))
        initial.keep()

    # ---------------------------------------------------------------------------------------------- reading
    def get_ordering(self) -> tuple[str, ...] | None:
        return None if self._table.sort_key else super().get_ordering()

    async def count(self) -> int:
        draft = self._current_draft()
        if not self._where and draft is None:
            return len(range(len(self._table.rows))[self._start : self._stop])
        return sum(1 for _ in islice(self._matching_rows(draft), self._start, self._stop))

    async def _fetch(self) -> list[M]:
        draft = self._current_draft()
        if draft is None and not self._where and not self._order:
            return [self._table.copy(self._table.rows[key]) for key in self._table.keys[self._start : self._stop]]
        rows: Iterable[M] = self._matching_rows(draft)
        if self._order and self._order != (((self.pk,), False),):  # which they are in already
            rows = sort_rows(rows, self._order)  # those that are equal stay in the order of their keys
        return [self._table.copy(row) for row in islice(rows, self._start, self._stop)]

    async def _at(self, key: Any) -> M | None:
        row = self._find_row(self._current_draft(), key)
        return None if row is None or not self._matches(row) else self._table.copy(row)

    def _matches(self, row: M) -> bool:
        """Whether a row is among those that it is narrowed to."""
        return all(predicate(condition)(row) for condition in self._where)

    def _matching_rows(self, draft: Draft[M] | None) -> Iterator[M]:
        """The rows that it is narrowed to, in the order of their keys."""
        predicates = [predicate(condition) for condition in self._where]
        for row in self._candidate_rows(draft):
            if all(matches(row) for matches in predicates):
                yield row

    def _candidate_rows(self, draft: Draft[M] | None) -> Iterator[M]:
        """Those that may be among them: the one with the key, or those behind a key, where that is asked for."""
        table = self._table
        for condition in chain.from_iterable(combination.required() for combination in self._where):
            if condition.path != (self.pk,):
                continue
            if condition.lookup == "exact":
                row = self._find_row(draft, condition.value)
                return iter(() if row is None else (row,))
            if condition.lookup == "gt" and draft is None and not table.sort_key:
                return map(table.rows.__getitem__, table.keys_after(condition.value))
        return map(table.rows.__getitem__, table.keys) if draft is None else draft.rows()

    def _find_row(self, draft: Draft[M] | None, key: Any) -> M | None:
        try:
            return self._table.rows.get(key) if draft is None else draft.row(key)
        except TypeError:  # not hashable, which a key of any type may be asked for as
            return None

    def _current_draft(self) -> Draft[M] | None:
        """What the unit of work under way has changed of these rows."""
        unit = current_unit()
        drafts = unit and unit.held(Drafts)
        return drafts.of(self._table) if isinstance(drafts, Drafts) else None

    # ---------------------------------------------------------------------------------------------- as values
    def values_of(self, obj: M) -> dict[str, Any]:
        return {name: getattr(obj, name) for name in type(obj).model_fields if name in vars(obj)}

    def object_of(self, values: Mapping[str, Any], kind: str | None = None) -> M:
        coerced = self._coerce_values(values, kind)
        obj: M = self._table.model_named(kind).model_construct(**coerced)
        for name in vars(obj).keys() - coerced.keys():
            del vars(obj)[name]  # a default is not what the object had
        return obj

    def _fields_of(self, kind: str | None) -> Fields:
        return self._table.fields_of(kind)

    def _verdict(self, known: Mapping[str, Any], condition: Condition) -> bool | None:
        return predicate(condition)(SimpleNamespace(**known)) if condition.path[0] in known else None

    # ---------------------------------------------------------------------------------------------- writing
    async def create(self, values: Mapping[str, Any]) -> M:
        """Keeps a new object and returns it, whatever the queryset is narrowed to.

        Raises `Conflict` for a key or unique fields that are taken, `FieldError` for a field that the model does not
        have, ``pydantic.ValidationError`` for bad values.
        """
        row = self._table.new_row(self.named(values))
        draft, immediate = self._open_draft()
        draft.create(row)
        immediate.keep()
        return self._table.copy(row)

    async def update(self, obj: M, values: Mapping[str, Any]) -> M:
        draft, immediate = self._open_draft()
        key, row = self._find_own(draft, obj)
        new = self._table.change(row, self.named(values))
        if getattr(new, self.pk) != key:
            raise Conflict(f"The {self.pk} of a {self.model.__name__} does not change.", {"fields": [self.pk]})
        draft.update(key, new, self._table.difference(row, new))
        immediate.keep()
        return self._table.copy(new)

    async def delete(self, obj: M) -> None:
        draft, immediate = self._open_draft()
        draft.delete(self._find_own(draft, obj)[0])
        immediate.keep()

    def _find_own(self, draft: Draft[M], obj: M) -> tuple[Any, M]:
        """The key of an object and its row as it is now; raises `NotFound` where the queryset does not have it."""
        self._refuse_sliced("be changed")
        key = getattr(obj, self.pk)
        row = draft.row(key)
        if row is None or not self._matches(row):
            raise NotFound
        return key, row

    def _open_draft(self) -> tuple[Draft[M], Drafts]:
        """The draft of the unit of work under way, and what is to be kept at once: nothing of it, but all of a new
        draft where there is no unit."""
        if (unit := join_unit()) is not None:
            return unit.resource(Drafts, Drafts).of(self._table), _NO_DRAFTS
        drafts = Drafts()
        return drafts.of(self._table), drafts
