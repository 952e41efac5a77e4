"""What every queryset does alike: it is narrowed by conditions, orders and slices, each time into a new one."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping
from copy import copy
from functools import partial
from typing import Any, ClassVar, Generic, NoReturn, Self, TypeVar

from pydantic_core import from_json, to_json

from wsaction._utils.misspellings import defined_by_user, is_ours
from wsaction.exceptions import NotFound
from wsaction.querysets._lookups import (
    Combination,
    Condition,
    Fields,
    InvalidLookup,
    Q,
    UnknownKind,
    field_name,
    field_path,
    name_of,
    resolve,
)
from wsaction.querysets._predicates import Ordering, decide

__all__ = ("MultipleObjectsReturned", "NarrowingQuerySet")

M = TypeVar("M")

_READ_METHODS = ("get", "_at", "_fetch", "filter")
_NARROWING_ATTRIBUTES = {"_where", "_order", "_start", "_stop"}


class MultipleObjectsReturned(Exception):
    """``get()`` was asked for the one object of several: a mistake of the programmer's."""


class NarrowingQuerySet(ABC, Generic[M]):
    """A base for querysets: it keeps what they are narrowed to, resolved and coerced, and leaves them to answer it.

    A subclass sets ``model`` and ``_fields``, and answers `_fetch`, `count`, `create`, `update` and `delete` from
    ``_where``, ``_ordering()``, ``_start`` and ``_stop``.
    """

    model: type[M]
    _fields: Fields
    _where: tuple[Combination, ...] = ()
    _order: tuple[Ordering, ...] = ()
    _start: int = 0
    _stop: int | None = None
    _overrides_reading: ClassVar[bool] = False  # whether the application's class takes over how one of ours reads

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
        """Those that meet all the conditions.

        Raises `FieldError`, and `InvalidLookup` for a value that cannot be what its field holds.
        """
        return self._narrow(resolve(conditions, lookups, self._fields))

    def exclude(self, *conditions: Q, **lookups: Any) -> Self:
        """Those that do not meet all the conditions. Raises as ``filter`` does."""
        condition = resolve(conditions, lookups, self._fields)
        return self._narrow(Combination("AND", True, (condition,)) if condition.children else condition)

    def order_by(self, *fields: str) -> Self:
        """Ordered by these fields, ``"-due"`` descending, and last by the primary key; without any, by that alone.

        Raises `FieldError`.
        """
        self._refuse_sliced("be ordered")
        order: dict[tuple[str, ...], bool] = {}
        for name in fields:  # its second time decides nothing, and SQLite 3.40 can crash at 64 of them
            order.setdefault(field_path(name.removeprefix("-"), self._fields), name.startswith("-"))
        other = copy(self)
        other._order = tuple(order.items())
        return other

    def __getitem__(self, key: slice) -> Self:
        """The objects of a part: ``cards[20:30]``, of which ``[5:]`` is ``cards[25:30]``.

        Raises ``TypeError`` for what is no slice, ``ValueError`` for a negative one or one with a step.
        """
        if not isinstance(key, slice):
            raise TypeError(f"{self!r} takes slices, as in [{key!r}:], not {key!r}; or await .first()")
        start = key.start or 0
        stop = key.stop
        if key.step not in (None, 1) or start < 0 or (stop is not None and stop < 0):
            raise ValueError(f"a slice of a queryset is neither negative nor has it a step: {key!r}")
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
            raise TypeError(f"{self!r} is a slice, which cannot {what}; slice last")

    def _ordering(self) -> tuple[Ordering, ...]:
        """Its order, which is total."""
        key = (str(self._fields.pk),)
        return self._order if any(path == key for path, _ in self._order) else (*self._order, (key, False))

    def get_ordering(self) -> tuple[str, ...] | None:
        """Its order by fields, the primary key last; None where it is not told by fields of the objects themselves.

        ``cards.order_by("-due").get_ordering() == ("-due", "pk")``.
        """
        order = self._ordering()
        if self._start or self._stop is not None or any(len(path) > 1 for path, _ in order):
            return None
        names = (("pk" if path[0] == self._fields.pk else path[0], descends) for path, descends in order)
        return tuple(f"-{name}" if descends else name for name, descends in names)

    def path_of(self, field: str) -> tuple[str, ...]:
        """The attributes that lead from an object to what an order by a field goes by, of a relation to its key.

        ``cards.path_of("author") == ("author", "id")``. Raises `FieldError`.
        """
        return field_path(field, self._fields)

    # ---------------------------------------------------------------------------------------------- reading
    @abstractmethod
    async def _fetch(self) -> list[M]:
        """The objects, in order."""

    async def fetch(self) -> list[M]:
        """The objects, in order, all at once."""
        return await self._fetch()

    @abstractmethod
    async def count(self) -> int:
        """How many there are."""

    async def exists(self) -> bool:
        """Whether there are any."""
        return await self[:1].count() > 0

    async def first(self) -> M | None:
        """The first in order; None where there are none."""
        found = await self[:1]._fetch()
        return found[0] if found else None

    async def get(self, *conditions: Q, **lookups: Any) -> M:
        """The one object that meets the conditions: ``get(pk="7")``.

        Raises `wsaction.exceptions.NotFound` where there is none, also where a value cannot be what its field holds;
        `FieldError`; `MultipleObjectsReturned`.
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
            raise MultipleObjectsReturned(f"{self!r}.get({given}) found more than one; ask for a key, or for first()")
        return found[0]

    async def _at(self, key: Any) -> M | None:
        """The object with this key. Override it where one is found faster than by a condition."""
        found = await self.filter(pk=key)[:1]._fetch()
        return found[0] if found else None

    def _extract_key(self, lookups: Mapping[str, Any]) -> Any:
        """The key, coerced, where it alone is asked for; None where more is, or it is for lookups to say what it means.

        Raises `NotFound` for a value that no key can be.
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
        """An object's own values by field, as they are now."""

    @abstractmethod
    def object_of(self, values: Mapping[str, Any], kind: str | None = None) -> M:
        """An object with these values, which may have been JSON meanwhile; it is not one that is kept.

        ``kind`` is the name of its class. Reading a value that is not among them raises.
        """

    async def restore(self, values: Mapping[str, Any], kind: str, row: M | None = None) -> M:
        """The object as it was with these values, of its own class, with the objects that its foreign keys led to.

        ``row`` is the object as it is now, where there is one. Reading what could not be had raises. Raises
        `UnknownKind`.
        """
        return self.object_of(values, kind)

    async def loaded(self, obj: M, names: Collection[str]) -> M | None:
        """The object, read again by its key where its values or these fields cannot be read from it any more.

        None where it is gone. Raises ``ValueError`` for an object that has no key yet.
        """
        return obj

    def decide(self, values: Mapping[str, Any], kind: str | None = None) -> bool | None:
        """Whether an object with these values is among these; None where only the store can say.

        It is decided here only where the store decides alike: a collation, a relation or a number's width may differ.
        """
        if self._start or self._stop is not None:
            return None
        known = self._coerce_values(values, kind)
        decided = decide(Combination("AND", False, self._where), partial(self._verdict, known))
        return None if decided and self._overrides_reading else decided

    def _verdict(self, known: Mapping[str, Any], condition: Condition) -> bool | None:
        """Whether an object with these values meets one condition, where that is known without the store."""
        return None

    def to_json(self, values: Mapping[str, Any], kind: str | None = None) -> "dict[str, dict[str, Any]]":
        """Values as JSON: ``exact`` are those that come back from it as they were, ``text`` the others."""
        plain = _as_json(values)
        read_back = self._coerce_values(plain, kind)
        exact = {name for name, value in values.items() if name in read_back and _is_same(value, read_back[name])}
        return {
            "exact": {name: value for name, value in plain.items() if name in exact},
            "text": {name: value for name, value in plain.items() if name not in exact},
        }

    def is_still(self, obj: M, told: Mapping[str, Mapping[str, Any]], kind: str) -> bool:
        """Whether an object has the class and the values that `to_json` told, as far as both are known."""
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
        """Whether both find their objects in the same place and load the same with them, however they are narrowed."""
        if type(other) is not type(self):
            return False
        mine, others = vars(self), vars(other)
        names = mine.keys() - _NARROWING_ATTRIBUTES
        return names == others.keys() - _NARROWING_ATTRIBUTES and all(mine[name] is others[name] for name in names)

    @property
    def is_narrowed(self) -> bool:
        """Whether it leaves out objects of its model."""
        return self._overrides_reading or bool(self._where or self._start) or self._stop is not None

    def key_of(self, obj: M) -> Any:
        """An object's key, also where its other values cannot be read any more."""
        return getattr(obj, str(self._fields.pk))

    def named(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values by their fields' names, ``pk`` being one for the key's. Raises `FieldError`."""
        return {field_name(name, self._fields): value for name, value in values.items()}

    def coerce(self, name: str, value: Any) -> Any:
        """A value as a field holds it. Raises ``ValueError``."""
        return self._fields.coerce(name, value)

    def _fields_of(self, kind: str | None) -> Fields:
        """The fields of a class of its objects; raises `UnknownKind`."""
        if kind is None or kind == name_of(self.model):
            return self._fields
        raise UnknownKind(f"{self!r} knows no {kind}")

    def _coerce_values(self, values: Mapping[str, Any], kind: str | None) -> dict[str, Any]:
        """Values as their fields hold them, without those that they cannot hold."""
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
        """A new object, whatever the queryset is narrowed to. Raises `Conflict`, `FieldError`."""

    @abstractmethod
    async def update(self, obj: M, values: Mapping[str, Any]) -> M:
        """The object with these values changed and no others.

        Raises `NotFound` where the queryset does not have it (any more), `Conflict`, `FieldError`.
        """

    @abstractmethod
    async def delete(self, obj: M) -> None:
        """Removes the object. Raises `NotFound` where the queryset does not have it (any more), `Conflict`."""


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = from_json(to_json(values, inf_nan_mode="null", bytes_mode="base64", fallback=str))
    return plain


def _is_same(value: Any, other: Any) -> bool:
    try:
        return type(value) is type(other) and bool(value == other)
    except Exception:  # values of any type, which may compare to anything, or to nothing at all
        return False
