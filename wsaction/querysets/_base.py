"""`NarrowingQuerySet`: the conditions, orders and slices that all querysets share."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping
from copy import copy
from functools import partial
from typing import Any, ClassVar, Generic, NoReturn, Self, TypeVar

from pydantic_core import from_json, to_json

from wsaction._protocol.awaited import awaited
from wsaction._utils.misspellings import defined_by_user, is_ours
from wsaction.exceptions import NotFound
from wsaction.querysets._lookups import (
    Combination,
    Condition,
    Fields,
    InvalidLookup,
    Q,
    UnknownClass,
    field_name,
    field_path,
    name_of,
    resolve,
)
from wsaction.querysets._predicates import Ordering, decide

M = TypeVar("M")

_READ_METHODS = ("get", "_at", "_fetch", "filter")
_NARROWING_ATTRIBUTES = {"_where", "_order", "_start", "_stop"}


class MultipleObjectsReturned(Exception):
    """``get()`` found more than one object. This is a bug in the application, not an error of the client."""


class NarrowingQuerySet(ABC, Generic[M]):
    """Base class of querysets. It keeps the conditions, order and slice, with names resolved and values coerced.

    A subclass sets ``model`` and ``_fields``. It implements the abstract methods from ``_where``, ``_ordering()``,
    ``_start`` and ``_stop``.
    """

    model: type[M]
    _fields: Fields
    _where: tuple[Combination, ...] = ()
    _order: tuple[Ordering, ...] = ()
    _start: int = 0
    _stop: int | None = None
    _overrides_reading: ClassVar[bool] = False  # whether an application's subclass overrides one of _READ_METHODS

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        ours = next(base for base in cls.__mro__ if is_ours(base))
        read = [name for name in _READ_METHODS if not getattr(getattr(ours, name), "__isabstractmethod__", False)]
        cls._overrides_reading = any(defined_by_user(cls, name) for name in read)

    # ---------------------------------------------------------------------------------------------- narrowing
    def all(self) -> Self:
        """A new queryset of the same objects."""
        return copy(self)

    def filter(self, *conditions: Q, **lookups: Any) -> Self:
        """A new queryset of the objects that meet all the conditions.

        Raises `FieldError` for an unknown field or lookup, `InvalidLookup` for a value that does not fit its field.
        """
        return self._narrow(resolve(conditions, lookups, self._fields))

    def exclude(self, *conditions: Q, **lookups: Any) -> Self:
        """A new queryset of the objects that do not meet all the conditions. Raises as ``filter`` does."""
        condition = resolve(conditions, lookups, self._fields)
        return self._narrow(Combination("AND", True, (condition,)) if condition.children else condition)

    def order_by(self, *fields: str) -> Self:
        """A new queryset ordered by these fields, then by the primary key; ``"-due"`` descends.

        Raises `FieldError` for an unknown field.
        """
        self._refuse_sliced("be ordered")
        order: dict[tuple[str, ...], bool] = {}
        for name in fields:  # a repeated field has no effect, and SQLite 3.40 can crash at 64 of them
            order.setdefault(field_path(name.removeprefix("-"), self._fields), name.startswith("-"))
        other = copy(self)
        other._order = tuple(order.items())
        return other

    def __getitem__(self, key: slice) -> Self:
        """A slice of the objects: ``cards[20:30]``. A slice of a slice counts from its start: ``cards[20:30][5:]``.

        Raises ``TypeError`` for a number, ``ValueError`` for a slice with a negative number or a step.
        """
        if not isinstance(key, slice):
            raise TypeError(f"{self!r} takes a slice, as in [{key!r}:], not {key!r}. For one object, await first()")
        start = key.start or 0
        stop = key.stop
        if key.step not in (None, 1) or start < 0 or (stop is not None and stop < 0):
            raise ValueError(f"a queryset takes a slice without a step and without negative numbers, not {key!r}")
        other = copy(self)
        other._start = self._start + start
        if stop is not None:
            stop += self._start
            other._stop = stop if self._stop is None else min(stop, self._stop)
        return other

    def __iter__(self) -> NoReturn:
        raise TypeError(f"{self!r} is iterated by `async for`, in an `async def`: [obj async for obj in queryset]")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.model.__name__}>"

    def _narrow(self, condition: Combination) -> Self:
        self._refuse_sliced("be narrowed")
        other = copy(self)
        if condition.children:
            other._where = (*self._where, condition)
        return other

    def _refuse_sliced(self, what: str) -> None:
        if self._start or self._stop is not None:
            raise TypeError(f"{self!r} is a slice, which cannot {what}. Take the slice last")

    def _ordering(self) -> tuple[Ordering, ...]:
        """The order, with the primary key last, so that no two objects are equal in it."""
        key = (str(self._fields.pk),)
        return self._order if any(path == key for path, _ in self._order) else (*self._order, (key, False))

    def get_ordering(self) -> tuple[str, ...] | None:
        """The names of the fields in the order, the primary key last.

        None for a slice, and for an order that uses fields of related objects.
        ``cards.order_by("-due").get_ordering() == ("-due", "pk")``.
        """
        order = self._ordering()
        if self._start or self._stop is not None or any(len(path) > 1 for path, _ in order):
            return None
        names = (("pk" if path[0] == self._fields.pk else path[0], descends) for path, descends in order)
        return tuple(f"-{name}" if descends else name for name, descends in names)

    def path_of(self, field: str) -> tuple[str, ...]:
        """The attributes that lead from an object to the value that an order by this field compares.

        A relation is ordered by its key: ``cards.path_of("author") == ("author", "id")``. Raises `FieldError`.
        """
        return field_path(field, self._fields)

    # ---------------------------------------------------------------------------------------------- reading
    @abstractmethod
    async def _fetch(self) -> list[M]:
        """The objects, in order."""

    def __bool__(self) -> bool:
        raise TypeError(
            f"{self!r} is neither true nor false before it is read; write `await queryset.exists()`, or `is not None`"
        )

    @awaited
    async def fetch(self) -> list[M]:
        """A list of the objects, in order."""
        return await self._fetch()

    @abstractmethod
    async def count(self) -> int:
        """The number of objects."""

    @awaited
    async def exists(self) -> bool:
        """Whether there is an object."""
        return await self[:1].count() > 0

    @awaited
    async def first(self) -> M | None:
        """The first object in order; None if there is no object."""
        found = await self[:1]._fetch()
        return found[0] if found else None

    @awaited
    async def get(self, *conditions: Q, **lookups: Any) -> M:
        """The one object that meets the conditions: ``get(pk="7")``.

        Raises `wsaction.exceptions.NotFound` if there is no such object or if a value does not fit its field,
        `FieldError` for an unknown field or lookup, `MultipleObjectsReturned` if there are several.
        """
        if not conditions and (key := self._extract_key(lookups)) is not None:
            if (obj := await self._at(key)) is None:
                raise NotFound
            return obj
        try:
            narrowed = self.filter(*conditions, **lookups) if conditions or lookups else self
        except InvalidLookup:
            raise NotFound from None
        found = await narrowed[:2]._fetch()
        if not found:
            raise NotFound
        if len(found) > 1:
            given = ", ".join([*map(repr, conditions), *lookups])
            raise MultipleObjectsReturned(f"{self!r}.get({given}) found more than one object. Use a key, or first()")
        return found[0]

    async def _at(self, key: Any) -> M | None:
        """The object with this key, or None. Override it if the store has a faster way than a condition."""
        found = await self.filter(pk=key)[:1]._fetch()
        return found[0] if found else None

    def _extract_key(self, lookups: Mapping[str, Any]) -> Any:
        """The coerced key if the lookups are one key and nothing else; None if they have to be resolved.

        Raises `NotFound` for a value that does not fit the key's field.
        """
        fields = self._fields
        pk = fields.pk
        if len(lookups) != 1 or pk is None or self._start or self._stop is not None:
            return None
        [(name, value)] = lookups.items()
        if value is None or (name != pk and (name != "pk" or "pk" in fields.names())) or fields.related(pk) is not None:
            return None
        try:
            return fields.coerce(pk, fields.key_of(value))
        except (ValueError, TypeError):
            raise NotFound from None

    async def __aiter__(self) -> AsyncIterator[M]:
        for obj in await self._fetch():
            yield obj

    # ---------------------------------------------------------------------------------------------- as values
    @abstractmethod
    def values_of(self, obj: M) -> dict[str, Any]:
        """The current values of an object's own fields, by field name."""

    @abstractmethod
    def object_of(self, values: Mapping[str, Any], kind: str | None = None) -> M:
        """An object with these values, which may come from JSON. It does not belong to the store.

        ``kind`` is the name of its class. Reading a field that has no value here raises.
        """

    async def restore(self, values: Mapping[str, Any], kind: str, row: M | None = None) -> M:
        """The object as it was with these values: of the class ``kind``, with the objects that its foreign keys named.

        ``row`` is the current object, if it still exists. Reading a field or relation that could not be restored
        raises. Raises ``UnknownClass``.
        """
        return self.object_of(values, kind)

    async def loaded(self, obj: M, names: Collection[str]) -> M | None:
        """The object. If its values or these fields are no longer loaded, it is read again by its key.

        None if the object is gone. Raises ``ValueError`` for an object that has no key yet.
        """
        return obj

    def decide(self, values: Mapping[str, Any], kind: str | None = None) -> bool | None:
        """Whether an object with these values meets the conditions; None if only the store can tell.

        Python decides only comparisons that the store decides the same way. A collation, a relation or the width of a
        number may give another result there.
        """
        if self._start or self._stop is not None:
            return None
        known = self._coerce_values(values, kind)
        decided = decide(Combination("AND", False, self._where), partial(self._verdict, known))
        return None if decided and self._overrides_reading else decided

    def _verdict(self, known: Mapping[str, Any], condition: Condition) -> bool | None:
        """Whether an object with these values meets one condition; None if only the store can tell."""
        return None

    def to_json(self, values: Mapping[str, Any], kind: str | None = None) -> "dict[str, dict[str, Any]]":
        """Values as JSON: ``exact`` holds those that can be read back unchanged, ``text`` the others."""
        plain = _as_json(values)
        read_back = self._coerce_values(plain, kind)
        exact = {name for name, value in values.items() if name in read_back and _is_same(value, read_back[name])}
        return {
            "exact": {name: value for name, value in plain.items() if name in exact},
            "text": {name: value for name, value in plain.items() if name not in exact},
        }

    def is_still(self, obj: M, told: Mapping[str, Mapping[str, Any]], kind: str) -> bool:
        """Whether an object still has the class ``kind`` and the values ``told``, which `to_json` made.

        Only fields that both have are compared.
        """
        if name_of(type(obj)) != kind:
            return False
        text, exact = told["text"], told["exact"]
        now = _as_json(self.values_of(obj))
        if any(now[name] != text[name] for name in now.keys() & text.keys()):
            return False
        differ = {name for name in now.keys() & exact.keys() if now[name] != exact[name]}
        now = self._coerce_values({name: now[name] for name in differ}, kind)
        then = self._coerce_values({name: exact[name] for name in differ}, kind)
        return now.keys() == then.keys() == differ and now == then

    def loads_like(self, other: Any) -> bool:
        """Whether both read the same store and load the same related data; conditions, order and slice may differ."""
        if type(other) is not type(self):
            return False
        mine, others = vars(self), vars(other)
        names = mine.keys() - _NARROWING_ATTRIBUTES
        return names == others.keys() - _NARROWING_ATTRIBUTES and all(mine[name] is others[name] for name in names)

    @property
    def is_narrowed(self) -> bool:
        """Whether the queryset may leave out objects of its model."""
        return self._overrides_reading or bool(self._where or self._start) or self._stop is not None

    def key_of(self, obj: M) -> Any:
        """An object's primary key, even if its other values are no longer loaded."""
        return getattr(obj, str(self._fields.pk))

    def named(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values by the real names of their fields, with ``pk`` replaced. Raises `FieldError`."""
        return {field_name(name, self._fields): value for name, value in values.items()}

    def coerce(self, name: str, value: Any) -> Any:
        """A value converted to the type of a field. Raises ``ValueError``."""
        return self._fields.coerce(name, value)

    def _fields_of(self, kind: str | None) -> Fields:
        """The fields of the class with this name. Raises `UnknownClass`."""
        if kind is None or kind == name_of(self.model):
            return self._fields
        raise UnknownClass(f"{self!r} has no class {kind}")

    def _coerce_values(self, values: Mapping[str, Any], kind: str | None) -> dict[str, Any]:
        """The values converted to the types of their fields, without those that do not fit."""
        fields = self._fields_of(kind)
        coerced: dict[str, Any] = {}
        for name, value in values.items():
            try:
                coerced[name] = None if value is None else fields.coerce(name, value)
            except (ValueError, TypeError, LookupError):
                continue
        return coerced

    # ---------------------------------------------------------------------------------------------- writing
    @abstractmethod
    async def create(self, values: Mapping[str, Any]) -> M:
        """Creates an object, which need not meet the conditions. Raises `Conflict`, `FieldError`."""

    @abstractmethod
    async def update(self, obj: M, values: Mapping[str, Any]) -> M:
        """Changes these values of the object and returns it.

        Raises `NotFound` if the queryset does not contain the object (any more), `Conflict`, `FieldError`.
        """

    @abstractmethod
    async def delete(self, obj: M) -> None:
        """Deletes the object. Raises `NotFound` if the queryset does not contain it (any more), `Conflict`."""


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = from_json(to_json(values, inf_nan_mode="null", bytes_mode="base64", fallback=str))
    return plain


def _is_same(value: Any, other: Any) -> bool:
    try:
        return type(value) is type(other) and bool(value == other)
    except Exception:  # a value's own __eq__ may raise anything
        return False
