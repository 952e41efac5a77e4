"""The `QuerySet` protocol: the methods that generic handlers call on their ``queryset``."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol, Self

from typing_extensions import TypeVar  # of typing, it has defaults from Python 3.13 on

from wsaction.querysets._lookups import Q

M = TypeVar("M", default=Any)


class QuerySet(Protocol[M]):
    """A set of objects that can be filtered, ordered, read and written: a generic handler's ``queryset``.

    Any object with these methods is one; it must pass `wsaction.testing.querysets.QuerySetContract`. ``filter``,
    ``exclude``, ``order_by`` and slices return a new queryset and leave the old one unchanged.
    """

    @property
    def model(self) -> type[M]:
        """The class of the objects."""

    def all(self) -> Self:
        """A new queryset of the same objects."""

    def filter(self, *conditions: Q, **lookups: Any) -> Self:
        """The objects that meet all conditions. Raises `FieldError`, `InvalidLookup`."""

    def exclude(self, *conditions: Q, **lookups: Any) -> Self:
        """The objects that do not meet all conditions. Raises `FieldError`, `InvalidLookup`."""

    def order_by(self, *fields: str) -> Self:
        """The objects ordered by these fields, then by the primary key; ``"-due"`` descends. Raises `FieldError`."""

    def __getitem__(self, key: slice, /) -> Self:
        """A slice; to filter or order it raises ``TypeError``. Negative numbers and steps raise ``ValueError``."""

    def __aiter__(self) -> AsyncIterator[M]:
        """The objects, in order."""

    async def count(self) -> int:
        """The number of objects."""

    async def exists(self) -> bool:
        """Whether there is an object."""

    async def first(self) -> M | None:
        """The first object in order, or None."""

    async def get(self, *conditions: Q, **lookups: Any) -> M:
        """The one object that meets the conditions; ``pk`` is the primary key.

        Raises `NotFound` if there is none, or if a value does not fit its field. Raises `MultipleObjectsReturned`.
        """

    async def create(self, values: Mapping[str, Any]) -> M:
        """Creates an object with these values, which need not meet the conditions. Raises `Conflict`."""

    async def update(self, obj: M, values: Mapping[str, Any]) -> M:
        """Changes these values of the object and returns it.

        Raises `NotFound` if the queryset does not contain the object (any more), `Conflict`.
        """

    async def delete(self, obj: M) -> None:
        """Deletes the object. Raises `NotFound` if the queryset does not contain it (any more), `Conflict`."""
