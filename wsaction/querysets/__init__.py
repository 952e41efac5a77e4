"""Querysets: the async protocol that generic handlers read and write objects through.

`MemoryQuerySet` keeps its rows in this process; `wsaction.contrib.sqlalchemy.SQLAlchemyQuerySet` reads a database.
Lookups are Django's: ``filter(title__icontains="a")``, `Q`.
"""

from typing import TYPE_CHECKING, Any

from wsaction.querysets._base import MultipleObjectsReturned, NarrowingQuerySet
from wsaction.querysets._lookups import FieldError, InvalidLookup, Q
from wsaction.querysets._protocol import QuerySet

if TYPE_CHECKING:
    from wsaction.querysets.memory import MemoryQuerySet

__all__ = (
    "FieldError",
    "InvalidLookup",
    "MemoryQuerySet",
    "MultipleObjectsReturned",
    "NarrowingQuerySet",
    "Q",
    "QuerySet",
)


def __getattr__(name: str) -> Any:
    """Imports `MemoryQuerySet` at first use, because an app on a database does not need it."""
    if name == "MemoryQuerySet":
        from wsaction.querysets.memory import MemoryQuerySet

        return MemoryQuerySet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
