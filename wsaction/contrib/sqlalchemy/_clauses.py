"""Lookups and orders as SQL: the conditions and the ORDER BY of an `SQLAlchemyQuerySet`."""

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeAlias

from sqlalchemy import BinaryExpression, Column, ColumnElement, and_, func, literal, not_, or_, true, type_coerce
from sqlalchemy.orm import MANYTOONE, ColumnProperty, Mapper, aliased
from sqlalchemy.types import Enum, Float, Numeric, String, TypeDecorator, TypeEngine

from wsaction.contrib.sqlalchemy._columns import ColumnValues, storable
from wsaction.querysets._lookups import TEXT_LOOKUPS, Combination, Condition, FieldError
from wsaction.querysets._predicates import Ordering

Clause: TypeAlias = ColumnElement[bool]


class MappedFields:
    """The columns and relationships of a mapped class; implements `querysets._lookups.Fields`.

    ``find_dialect`` returns the name of the database's dialect, or "" if no database is bound yet. ``pk`` is None for a
    primary key of several columns.
    """

    def __init__(self, mapper: Mapper[Any], find_dialect: Callable[[], str]) -> None:
        self.mapper = mapper
        self.find_dialect = find_dialect
        self._dialect = ""
        keys = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
        self.pk: str | None = keys[0] if len(keys) == 1 else None
        self._related: dict[str, MappedFields] = {}
        self._values: dict[str, ColumnValues] = {}

    @property
    def name(self) -> str:
        return self.mapper.class_.__name__

    @property
    def dialect(self) -> str:
        """The dialect's name. It is looked up late: sessions may be bound long after querysets are declared."""
        if not self._dialect:
            self._dialect = self.find_dialect()
        return self._dialect

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return (*self.mapper.column_attrs.keys(), *self.mapper.relationships.keys())

    def names(self) -> Collection[str]:
        return self._names

    def related(self, name: str) -> "MappedFields | None":
        if name not in self.mapper.relationships:
            return None
        if name not in self._related:
            self._related[name] = MappedFields(self.mapper.relationships[name].mapper, self.find_dialect)
        return self._related[name]

    def coerce(self, name: str, value: Any) -> Any:
        return self._column_values(name).coerce(value)

    def is_text(self, name: str) -> bool:
        kind = self._type(name)
        kind = kind.impl_instance if isinstance(kind, TypeDecorator) else kind
        return isinstance(kind, String) and not isinstance(kind, Enum)

    def coerce_text(self, name: str, value: str) -> str:
        return storable(value)

    def key_of(self, value: Any) -> Any:
        return getattr(value, self.pk) if self.pk and isinstance(value, self.mapper.class_) else value

    def verdict(self, known: Mapping[str, Any], condition: Condition) -> bool | None:
        """Whether a row with these values meets a condition; None if only the database can tell.

        The foreign key of a relation can only rule a condition out, if it is null or another key. Only the database
        can tell whether it leads to a row.
        """
        name = condition.path[0]
        related = self.related(name)
        key = name if related is None else self._foreign_key(name)
        if key is None or key not in known:
            return None
        if known[key] is None:
            is_null = condition.lookup == "isnull" and condition.value is True
            return is_null if self._column_values(key).keeps_null else None
        if related is not None:
            if condition.path[1:] != (related.pk,) or condition.lookup not in ("exact", "in"):
                return None
            meets = self._column_values(key).verdict(known[key], condition.lookup, condition.value)
            return False if meets is False else None
        return self._column_values(name).verdict(known[name], condition.lookup, condition.value)

    def _foreign_key(self, name: str) -> str | None:
        """The attribute of the row that holds the primary key of a relation's object; None if there is none."""
        relation = self.mapper.relationships[name]
        if relation.direction is not MANYTOONE or len(relation.local_remote_pairs) != 1:
            return None
        [(local, remote)] = relation.local_remote_pairs
        plain = isinstance(relation.primaryjoin, BinaryExpression) and relation.primaryjoin.operator is operator.eq
        if not plain or relation.mapper.primary_key != (remote,):
            return None
        return self.mapper.get_property_by_column(local).key

    def foreign_keys(self) -> Iterator[tuple[str, str]]:
        """The name of each relation that follows a foreign key of the row, and the attribute of that key."""
        for name in self.mapper.relationships.keys():  # noqa: SIM118
            if (key := self._foreign_key(name)) is not None:
                yield name, key

    def _type(self, name: str) -> TypeEngine[Any]:
        if (related := self.related(name)) is not None:
            raise _no_single_key(name, self, related)
        return self.mapper.column_attrs[name].columns[0].type

    def prepare(self, name: str, value: Any) -> Any:
        """A value as its column stores it.

        Raises ``ValueError`` if the column cannot hold it, `FieldError` for nested data instead of a related object.
        """
        if name in self.mapper.column_attrs:
            return self._column_values(name).prepare(value)
        objects = value if isinstance(value, list | tuple | set) else (value,)
        if (related := self.related(name)) is not None and any(isinstance(obj, Mapping) for obj in objects):
            raise FieldError(
                f"{self.name}.{name} takes objects of {related.name}, not a dict; write nested data in "
                f"perform_create() and perform_update(), or mark the serializer's {name} as ReadOnly"
            )
        return value

    def _column_values(self, name: str) -> ColumnValues:
        if not self._dialect or name not in self._values:
            kind = self._type(name)
            prop = self.mapper.column_attrs[name]
            is_plain = isinstance(prop.columns[0], Column) and prop.comparator_factory is ColumnProperty.Comparator
            self._values[name] = ColumnValues(kind, self.dialect, is_column=is_plain)
        return self._values[name]


def _no_single_key(name: str, fields: MappedFields, related: MappedFields) -> FieldError:
    known = ", ".join(f"{name}__{field}" for field in related.mapper.column_attrs.keys())  # noqa: SIM118
    return FieldError(
        f"{fields.name}.{name} is a {related.name}, whose primary key has several columns and cannot be compared; "
        f"name one of {known}"
    )


# ------------------------------------------------------------------------------------------------- conditions
def clause(condition: Combination, entity: Any, fields: MappedFields, negated: bool = False) -> Clause:
    """The SQL for conditions on ``entity``, a mapped class or an alias of one.

    Conditions on one relation that are combined by AND must hold for the same related object. ``negated`` says that the
    clause is inside a NOT: its comparisons are then false, not NULL, for null values.
    """
    negated = negated or condition.negated
    clauses = list(_child_clauses(condition, entity, fields, negated))
    combined = and_(true(), *clauses) if condition.connector == "AND" else or_(*clauses)
    return not_(combined) if condition.negated else combined


def _child_clauses(condition: Combination, entity: Any, fields: MappedFields, negated: bool) -> Iterator[Clause]:
    by_relation: dict[str, list[Condition]] = {}
    for child in condition.children:
        if isinstance(child, Combination):
            yield clause(child, entity, fields, negated)
        elif len(child.path) == 1 and fields.related(child.path[0]) is None:
            yield _comparison(getattr(entity, child.path[0]), child, fields.dialect, negated)
        elif condition.connector == "AND" and not _is_null(child):
            by_relation.setdefault(child.path[0], []).append(child)
        else:
            yield _related_clause(child.path[0], [child], entity, fields)
    for name, conditions in by_relation.items():
        yield _related_clause(name, conditions, entity, fields)


def _related_clause(name: str, conditions: list[Condition], entity: Any, fields: MappedFields) -> Clause:
    """An EXISTS for a related object that meets the conditions; ``isnull=True`` also holds if there is no object."""
    relation, related = getattr(entity, name), fields.related(name)
    if related is None:
        raise FieldError(f"{fields.name}.{name} is not a relationship")
    target = aliased(related.mapper.class_)
    exists = relation.of_type(target).any if relation.property.uselist else relation.of_type(target).has
    if len(conditions[0].path) == 1:  # isnull of a relation whose objects have no single key
        return not_(exists()) if _is_null(conditions[0]) else exists()  # type: ignore[no-any-return]
    children = tuple(Condition(child.path[1:], child.lookup, child.value) for child in conditions)
    found: Clause = exists(clause(Combination("AND", False, children), target, related))
    return or_(found, not_(exists())) if _is_null(conditions[0]) else found


def _is_null(condition: Condition) -> bool:
    return condition.lookup == "isnull" and condition.value is True


def _comparison(column: Any, condition: Condition, dialect: str, negated: bool) -> Clause:
    lookup, value = condition.lookup, condition.value
    if lookup == "isnull":
        return column.is_(None) if value else column.is_not(None)  # type: ignore[no-any-return]  # of any attribute
    if lookup in TEXT_LOOKUPS:
        holds = _text_comparison(column, lookup, value, dialect)
    else:
        # with the column's own type, PostgreSQL would round the value to its decimal places
        if isinstance(column.type, Numeric) and not isinstance(column.type, Float):
            column = type_coerce(column, Numeric())
        holds = _COMPARISONS[lookup](column, _bind(column, lookup, value))
    return and_(column.is_not(None), holds) if negated else holds


def _bind(column: Any, lookup: str, value: Any) -> Any:
    """The value of a comparison with a column. SQLAlchemy refuses a plain True or False in < and >."""
    if lookup == "range":
        return tuple(_bind(column, "lt", end) for end in value)
    ordered = lookup in ("lt", "lte", "gt", "gte")
    return literal(value, column.type) if ordered and isinstance(value, bool) else value


_COMPARISONS: dict[str, Callable[[Any, Any], Clause]] = {
    "exact": lambda column, value: column == value,
    "in": lambda column, value: column.in_(value),
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "range": lambda column, value: and_(column >= value[0], column <= value[1]),  # BETWEEN is invalid SQL with COLLATE
}


def _text_comparison(column: Any, lookup: str, value: str, dialect: str) -> Clause:
    if lookup == "iexact":
        return func.lower(column) == func.lower(value)
    if not value:  # every text contains the empty text
        return column.is_not(None)  # type: ignore[no-any-return]
    if dialect == "sqlite":
        return _SQLITE_TEXT_COMPARISONS[lookup](column, value)
    compare: Callable[..., Clause] = getattr(column, lookup)
    return compare(value, autoescape=True)


# Functions instead of LIKE, which ignores case in SQLite and limits the length of its patterns.
_SQLITE_TEXT_COMPARISONS: dict[str, Callable[[Any, str], Clause]] = {
    "contains": lambda column, value: func.instr(column, value) > 0,
    "icontains": lambda column, value: func.instr(func.lower(column), func.lower(value)) > 0,
    "startswith": lambda column, value: func.substr(column, 1, len(value)) == value,
    "endswith": lambda column, value: func.substr(column, -len(value)) == value,
}


# ------------------------------------------------------------------------------------------------- order
def ordering(order: Iterable[Ordering], entity: Any, fields: MappedFields) -> tuple[list[Any], list[Any]]:
    """The columns to order by, and the relationships to outer-join for them, each once.

    Raises `FieldError` for a path through a collection.
    """
    columns: list[Any] = []
    joins: list[Any] = []
    targets: dict[tuple[str, ...], tuple[Any, MappedFields]] = {(): (entity, fields)}
    for path, descends in order:
        for length, name in enumerate(path[:-1], 1):
            if path[:length] in targets:
                continue
            owner, owner_fields = targets[path[: length - 1]]
            relation, related = getattr(owner, name), owner_fields.related(name)
            if related is None or relation.property.uselist:
                raise FieldError(f"{fields.name} cannot be ordered by {'__'.join(path)}: {name} is not a single object")
            target = aliased(related.mapper.class_)
            joins.append(relation.of_type(target))
            targets[path[:length]] = target, related
        owner, owner_fields = targets[path[:-1]]
        if (related := owner_fields.related(path[-1])) is not None:
            raise _no_single_key(path[-1], owner_fields, related)
        attribute = getattr(owner, path[-1])
        ordered = attribute.desc() if descends else attribute.asc()
        column = owner_fields.mapper.column_attrs[path[-1]].columns[0]  # an SQL expression has no `nullable`
        if owner is not entity or getattr(column, "nullable", True):
            ordered = ordered.nulls_first() if descends else ordered.nulls_last()
        columns.append(ordered)
    return columns, joins
