"""Querysets: the small async protocol that generic handlers read and write through, and one that keeps rows in memory.

`wsaction.contrib.sqlalchemy` has the one for databases. Lookups are Django's: `filter(title__icontains="a")`, `Q`.
"""

from wsaction.querysets._base import MultipleObjectsReturned
from wsaction.querysets._lookups import FieldError, InvalidLookup, Q
from wsaction.querysets.memory import MemoryQuerySet, QuerySet

__all__ = (
    "FieldError",
    "InvalidLookup",
    "MemoryQuerySet",
    "MultipleObjectsReturned",
    "Q",
    "QuerySet",
)
