"""The `QuerySet` protocol: where the objects of a generic handler come from."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol, Self

from wsaction.querysets._lookups import Q

__all__ = ("QuerySet",)


class QuerySet(Protocol):
    """What a generic handler's ``queryset`` has to offer; any object that does is one.

    `wsaction.testing.querysets` has the tests that it must pass. Narrowing returns a new one and leaves the old as it
    was.
    """

    @property
    def model(self) -> Any:
        """The class of its objects."""

    def all(self) -> Self:
        """The same objects."""

    def filter(self, *conditions: Q, **lookups: Any) -> Self:
        """Those that meet all conditions. Raises `FieldError`, `InvalidLookup`."""

    def exclude(self, *conditions: Q, **lookups: Any) -> Self:
        """Those that do not meet all conditions. Raises `FieldError`, `InvalidLookup`."""

    def order_by(self, *fields: str) -> Self:
        """By these fields, ``"-due"`` descending, and last by the primary key. Raises `FieldError`."""

    def __getitem__(self, key: slice, /) -> Self:
        """A part, as of a list; negative numbers and steps are a ``ValueError``. Narrowing it is a ``TypeError``."""

    def __aiter__(self) -> AsyncIterator[Any]:
        """The objects, in order."""

    async def count(self) -> int:
        """How many objects there are."""

    async def exists(self) -> bool:
        """Whether there are any."""

    async def first(self) -> Any:
        """The first in order, or None."""

    async def get(self, *conditions: Q, **lookups: Any) -> Any:
        """The one object that meets the conditions (``pk`` is the primary key).

        Raises `NotFound` when there is none, or a value cannot be what its field holds; `MultipleObjectsReturned`.
        """

    async def create(self, values: Mapping[str, Any]) -> Any:
        """A new object with these values, whatever it is narrowed to. Raises `Conflict`."""

    async def update(self, obj: Any, values: Mapping[str, Any]) -> Any:
        """The object with these values changed and no others.

        Raises `NotFound` where it is not among these (any more), `Conflict`.
        """

    async def delete(self, obj: Any) -> None:
        """Removes the object. Raises `NotFound` where it is not among these, `Conflict`."""
