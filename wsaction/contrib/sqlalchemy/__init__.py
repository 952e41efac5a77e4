"""SQLAlchemy support: `SQLAlchemyQuerySet` reads and writes rows of a mapped class in the unit of work of an action.

Install it with ``pip install "wsaction[sqlalchemy]"``.
"""

from wsaction.contrib.sqlalchemy._queryset import SQLAlchemyQuerySet

__all__ = ("SQLAlchemyQuerySet",)
