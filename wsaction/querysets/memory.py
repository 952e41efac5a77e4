"""`MemoryQuerySet`: objects of any pydantic model, kept in this process.

``wsaction.querysets._lookups`` documents lookups, null and order; `wsaction.transactions` documents when changes take
effect.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from wsaction._protocol.awaited import awaited
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
    """Objects of a pydantic model, kept in this process.

    ``rows`` are the initial objects. ``pk`` is the name of the primary key's field. If ``create`` gets no key, an int
    key is one more than the largest so far, and a required UUID key is random. ``unique`` names fields, or groups of
    fields, whose values no two objects may share. Methods return copies: only ``create``, ``update`` and ``delete``
    change the stored objects. Querysets that ``filter`` and the like return share the objects.

    Raises `ImproperlyConfigured` for a class that is not a pydantic model or has no such fields, `Conflict` for initial
    objects with the same key or unique values.

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
            if not isinstance(row, BaseModel):
                raise ImproperlyConfigured(
                    f"MemoryQuerySet({model.__name__}, rows): expected instances of the model, as in "
                    f"{model.__name__}(...), got {row!r:.80}"
                )
            initial.of(self._table).create(self._table.with_key(row))
        initial.keep()

    # ---------------------------------------------------------------------------------------------- reading
    def get_ordering(self) -> tuple[str, ...] | None:
        return None if self._table.sort_key else super().get_ordering()

    @awaited
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
        if self._order and self._order != (((self.pk,), False),):  # rows are in the order of their keys already
            rows = sort_rows(rows, self._order)  # equal rows stay in that order
        return [self._table.copy(row) for row in islice(rows, self._start, self._stop)]

    async def _at(self, key: Any) -> M | None:
        row = self._find_row(self._current_draft(), key)
        return None if row is None or not self._matches(row) else self._table.copy(row)

    def _matches(self, row: M) -> bool:
        """Whether a row meets the conditions."""
        return all(predicate(condition)(row) for condition in self._where)

    def _matching_rows(self, draft: Draft[M] | None) -> Iterator[M]:
        """The rows that meet the conditions, in the order of their keys."""
        predicates = [predicate(condition) for condition in self._where]
        for row in self._candidate_rows(draft):
            if all(matches(row) for matches in predicates):
                yield row

    def _candidate_rows(self, draft: Draft[M] | None) -> Iterator[M]:
        """The rows that may meet the conditions: a condition on the key is answered without a scan of all rows."""
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
        except TypeError:  # the value is not hashable; a key of type Any takes any value
            return None

    def _current_draft(self) -> Draft[M] | None:
        """The changes of the current unit of work to these rows, or None."""
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
            del vars(obj)[name]  # a default that the model filled in, not a value of the object
        return obj

    def _fields_of(self, kind: str | None) -> Fields:
        return self._table.fields_of(kind)

    def _verdict(self, known: Mapping[str, Any], condition: Condition) -> bool | None:
        return predicate(condition)(SimpleNamespace(**known)) if condition.path[0] in known else None

    # ---------------------------------------------------------------------------------------------- writing
    @awaited
    async def create(self, values: Mapping[str, Any]) -> M:
        """Creates an object, which need not meet the conditions.

        Raises `Conflict` if another object has the same key or unique values, `FieldError` for an unknown field,
        ``pydantic.ValidationError`` for invalid values.
        """
        row = self._table.new_row(self.named(values))
        draft, immediate = self._open_draft()
        draft.create(row)
        immediate.keep()
        return self._table.copy(row)

    @awaited
    async def update(self, obj: M, values: Mapping[str, Any]) -> M:
        draft, immediate = self._open_draft()
        key, row = self._get_for_update(draft, obj)
        new = self._table.change(row, self.named(values))
        if getattr(new, self.pk) != key:
            raise Conflict(f"The {self.pk} of a {self.model.__name__} cannot change.", {"fields": [self.pk]})
        draft.update(key, new, self._table.difference(row, new))
        immediate.keep()
        return self._table.copy(new)

    @awaited
    async def delete(self, obj: M) -> None:
        draft, immediate = self._open_draft()
        draft.delete(self._get_for_update(draft, obj)[0])
        immediate.keep()

    def _get_for_update(self, draft: Draft[M], obj: M) -> tuple[Any, M]:
        """The key of an object and its current row. Raises `NotFound` if the queryset does not contain it."""
        self._refuse_sliced("be changed")
        key = getattr(obj, self.pk)
        row = draft.row(key)
        if row is None or not self._matches(row):
            raise NotFound
        return key, row

    def _open_draft(self) -> tuple[Draft[M], Drafts]:
        """The draft to change, and the drafts that the caller stores right away.

        In a unit of work the latter are empty: the unit stores its drafts when it commits.
        """
        if (unit := join_unit()) is not None:
            return unit.resource(Drafts, Drafts).of(self._table), _NO_DRAFTS
        drafts = Drafts()
        return drafts.of(self._table), drafts
