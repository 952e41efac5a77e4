"""Lookups: ``title__icontains="a"``, ``author__name="Ada"``, and how `Q` combines them.

A lookup's key is a field, or a path of fields through related objects, and then the name of a comparison. Without a
comparison it is ``exact``. ``pk`` is the primary key, whatever its field is called.

=================================== =================================================================================
``exact``, ``iexact``               equal; equal, ignoring case
``in``                              one of a list
``lt``, ``lte``, ``gt``, ``gte``    less, at most, greater, at least
``range``                           between two values, both included
``contains``, ``icontains``         a text contains this one; the same, ignoring case
``startswith``, ``endswith``        a text begins, ends with this one
``isnull``                          null if true, not null if false
=================================== =================================================================================

Every queryset follows these rules:

- A comparison with null is false, and its negation is true: ``filter(owner_id=1)`` leaves out rows without an owner,
  ``exclude(owner_id=1)`` keeps them. ``owner_id=None`` means ``owner_id__isnull=True``. ``in`` ignores None.
- If an object on a path is missing, the value at its end is null.
- In an order, null is greater than every value: last in ``order_by("due")``, first in ``order_by("-due")``.
- ``%``, ``_`` and ``\\`` in a text have no special meaning.
- Ignoring case means the case of ASCII letters. For other letters it depends on the database.
- The order of texts is that of the database's collation; in memory and in SQLite, that of code points. Members of an
  enumeration that Python cannot order have the order of their stored values; in memory, that of their declaration.
- A datetime or time without a zone is in UTC. NaN equals itself and is greater than every number; SQLite stores no NaN.
- A value is converted to its field's type as pydantic does: ``pk="7"`` finds 7.

To add a comparison, name it in `LOOKUPS` here, and say what it means in `_predicates` (memory) and in
`contrib.sqlalchemy._clauses` (SQL). The contract suite of `wsaction.testing` tests both.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from wsaction._utils.hints import did_you_mean

TEXT_LOOKUPS = ("iexact", "contains", "icontains", "startswith", "endswith")
LOOKUPS = ("exact", "in", "lt", "lte", "gt", "gte", "range", "isnull", *TEXT_LOOKUPS)
"""The names of all comparisons."""

MAX_IN = 30_000  # values of one ``in``; databases limit the parameters of a statement to slightly more

Connector: TypeAlias = Literal["AND", "OR"]


class FieldError(TypeError):
    """An unknown field or lookup. This is a bug in the application: the names that clients send are checked before."""


class InvalidLookup(ValueError):
    """A lookup's value does not fit its field.

    ``field`` is the path (``"author__born"``), ``lookup`` the comparison (``"lt"``), ``value`` the value that was
    given, and ``msg`` says what was expected.
    """

    def __init__(self, field: str, lookup: str, value: Any, msg: str) -> None:
        super().__init__(f"{field}__{lookup}: {msg}")
        self.field = field
        self.lookup = lookup
        self.value = value
        self.msg = msg


class UnknownClass(LookupError):
    """A queryset has no class of this name among its objects."""


def name_of(kind: type) -> str:
    """The name of a class of objects, by which another process finds the class."""
    return kind.__qualname__  # without the module, which is __main__ in the process that runs it as a script


class Q:
    """A condition for ``filter()``, ``exclude()`` and ``get()``, combined with ``&``, ``|`` and ``~``.

    All lookups of one `Q` must hold. An empty ``Q()`` holds for every object. A `Q` never changes once it is made.
    Raises ``TypeError`` for a positional argument that is not a `Q`.

    ``Q(done=False) & (Q(owner_id=7) | ~Q(title__icontains="secret"))``
    """

    __slots__ = ("children", "connector", "negated")

    def __init__(self, *conditions: "Q", **lookups: Any) -> None:
        for condition in conditions:
            if not isinstance(condition, Q):
                raise TypeError(f"a condition is a Q, as in Q(done=True), not {condition!r}. Lookups are keywords")
        self.children: tuple[Q | tuple[str, Any], ...] = (*filter(None, conditions), *lookups.items())
        self.connector: Connector = "AND"
        self.negated = False

    def __and__(self, other: "Q") -> "Q":
        return self._combine(other, "AND")

    def __or__(self, other: "Q") -> "Q":
        return self._combine(other, "OR")

    def __invert__(self) -> "Q":
        return _make_q((self,), "AND", True) if self else self

    def __bool__(self) -> bool:
        """Whether there is a lookup in it."""
        return bool(self.children)

    def __repr__(self) -> str:
        parts = [repr(child) if isinstance(child, Q) else f"{child[0]}={child[1]!r}" for child in self.children]
        if self.connector == "AND":
            return f"{'~' * self.negated}Q({', '.join(parts)})"
        return f"({' | '.join(parts)})"

    def _combine(self, other: "Q", connector: Connector) -> "Q":
        if not isinstance(other, Q):
            raise TypeError(f"a Q is combined with another Q, not with {other!r}")
        if not (self and other):
            return self or other
        return _make_q((*self._flatten(connector), *other._flatten(connector)), connector, False)

    def _flatten(self, connector: Connector) -> "tuple[Q | tuple[str, Any], ...]":
        """Its children if they can join those of another `Q`, so that a long chain stays flat; else itself."""
        if self.negated or (self.connector != connector and len(self.children) > 1):
            return (self,)
        return self.children


def _make_q(children: "tuple[Q | tuple[str, Any], ...]", connector: Connector, negated: bool) -> Q:
    q = Q()
    q.children = children
    q.connector = connector
    q.negated = negated
    return q


# ------------------------------------------------------------------------------------------------- resolved
class Fields(Protocol):
    """The fields of a model, as lookups need them."""

    @property
    def name(self) -> str:
        """The model's name, for messages."""

    @property
    def pk(self) -> str | None:
        """The primary key's field; None if the model has no key of one field."""

    def names(self) -> Collection[str]:
        """The names of all fields and relations."""

    def related(self, name: str) -> "Fields | None":
        """The fields of the model that a relation leads to; None if ``name`` is not a relation."""

    def coerce(self, name: str, value: Any) -> Any:
        """A value converted to the field's type. Raises ``ValueError``."""

    def is_text(self, name: str) -> bool:
        """Whether the field takes text lookups."""

    def coerce_text(self, name: str, value: str) -> str:
        """The value of a text lookup of the field. Raises ``ValueError`` if the store cannot hold such a text."""

    def key_of(self, value: Any) -> Any:
        """The primary key, if the value is an object of the model; any other value unchanged."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison, with its names resolved and its value coerced."""

    path: tuple[str, ...]
    lookup: str
    value: Any


@dataclass(frozen=True, slots=True)
class Combination:
    """All of several conditions (AND; true without any) or one of them (OR; false without any), perhaps negated."""

    connector: Connector
    negated: bool
    children: "tuple[Condition | Combination, ...]"

    def required(self) -> Iterator[Condition]:
        """Conditions that must hold for the combination to hold; not all of them are found."""
        if self.connector == "AND" and not self.negated:
            for child in self.children:
                if isinstance(child, Condition):
                    yield child
                else:
                    yield from child.required()


def resolve(conditions: Iterable[Q], lookups: Mapping[str, Any], fields: Fields) -> Combination:
    """All conditions and lookups together, resolved for a model with these fields.

    Raises `FieldError` for an unknown field or lookup, `InvalidLookup` for a value that does not fit its field.
    """
    return _resolve(Q(*conditions, **lookups), fields)


def _resolve(q: Q, fields: Fields) -> Combination:
    children = (
        _resolve(child, fields) if isinstance(child, Q) else _make_condition(*child, fields) for child in q.children
    )
    return Combination(q.connector, q.negated, tuple(children))


def field_path(key: str, fields: Fields) -> tuple[str, ...]:
    """The path of a field in an order: ``field_path("author__name", fields) == ("author", "name")``.

    Raises `FieldError`.
    """
    path, _, lookup = _parse_key(key, fields)
    if lookup is not None:
        raise FieldError(f"{fields.name} is ordered by fields, not by the lookup {key!r}")
    return path


def field_name(key: str, fields: Fields) -> str:
    """The real name of a field: ``field_name("pk", fields) == "id"``. Raises `FieldError`."""
    if (name := _find_name(key, fields)) is None:
        raise _unknown_name(key, key, fields, [], fields.names())
    return name


def _make_condition(key: str, value: Any, fields: Fields) -> Condition:
    path, owner, lookup = _parse_key(key, fields)
    lookup = lookup or "exact"
    if value is None and lookup in ("exact", "iexact"):
        return Condition(path, "isnull", True)
    if lookup in TEXT_LOOKUPS and not owner.is_text(path[-1]):
        raise FieldError(f"{owner.name}.{path[-1]} is not a text field, which {key!r} needs")
    try:
        return Condition(path, lookup, _coerce(lookup, value, owner, path[-1]))
    except FieldError:
        raise
    except (ValueError, TypeError) as exc:
        raise InvalidLookup("__".join(path), lookup, value, str(exc)) from None


def _parse_key(key: str, fields: Fields) -> tuple[tuple[str, ...], Fields, str | None]:
    """The path in a lookup's key, the fields of the model at its end, and the comparison if the key names one."""
    path: list[str] = []
    owner = fields
    target: Fields | None = fields  # the model that has the next part; None after a field that is not a relation
    lookup: str | None = None
    parts = key.split("__")
    for number, part in enumerate(parts, 1):
        name = None if target is None else _find_name(part, target)
        if target is not None and name is not None:
            owner, target = target, target.related(name)
            path.append(name)
        elif path and part in LOOKUPS and number == len(parts):
            lookup = part
        else:
            raise _unknown_name(key, part, fields, path, () if target is None else target.names())
    if target is not None and target.pk is not None:  # a relation is compared by the key of its object
        return (*path, target.pk), target, lookup
    return tuple(path), owner, lookup


def _find_name(name: str, fields: Fields) -> str | None:
    if name in fields.names():
        return name
    return fields.pk if name == "pk" else None


def _unknown_name(key: str, part: str, fields: Fields, path: list[str], names: Collection[str]) -> FieldError:
    hint = did_you_mean(part, [*names, *(LOOKUPS if path else ())], "there are")
    kind = "lookup" if path and not names else "field"
    owner = "__".join(path) or fields.name
    context = "" if key == part else f" ({key[:100]!r} of {fields.name})"
    return FieldError(f"{owner} has no {kind} {part[:100]!r}{context}; {hint}")


# ------------------------------------------------------------------------------------------------- values
def _coerce(lookup: str, value: Any, owner: Fields, name: str) -> Any:
    """A lookup's value, converted to the type that it compares with. Raises ``ValueError``, ``TypeError``."""
    if lookup == "isnull":
        return _parse_boolean(value)
    if value is None:
        raise ValueError("expected a value, got null; use isnull to find null")

    def coerce(item: Any) -> Any:
        return owner.coerce(name, owner.key_of(item))

    if lookup == "in":
        return tuple(coerce(item) for item in _check_list(value) if item is not None)
    if lookup == "range":
        return _coerce_range(value, coerce)
    if lookup in TEXT_LOOKUPS:
        if not isinstance(value, str):
            raise TypeError(f"expected a text, got {type(value).__name__}")
        return owner.coerce_text(name, value)
    return coerce(value)


def _parse_boolean(value: Any) -> bool:
    plain = value.lower() if isinstance(value, str) else value
    if plain in (True, "true", "1"):  # the number 1 equals True
        return True
    if plain in (False, "false", "0"):
        return False
    raise ValueError("expected true or false")


def _check_list(value: Any) -> Collection[Any]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise TypeError(f"expected a list of values, got {type(value).__name__}")
    values = value if isinstance(value, Collection) else tuple(value)
    if len(values) > MAX_IN:
        raise ValueError(f"expected at most {MAX_IN} values, got {len(values)}")
    return values


def _coerce_range(value: Any, coerce: Callable[[Any], Any]) -> tuple[Any, Any]:
    if len(ends := tuple(_check_list(value))) != 2 or None in ends:
        raise ValueError("expected two values, the smallest and the largest")
    return coerce(ends[0]), coerce(ends[1])
