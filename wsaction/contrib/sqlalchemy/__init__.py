"""SQLAlchemy: `SQLAlchemyQuerySet` reads and writes rows of a mapped class, in the unit of work of each action.

It needs the extra `sqlalchemy`: `pip install "wsaction[sqlalchemy]"`.
"""

from wsaction.contrib.sqlalchemy._queryset import SQLAlchemyQuerySet

__all__ = ("SQLAlchemyQuerySet",)
