"""Lookups: ``title__icontains="a"``, ``author__name="Ada"``, and their combinations by `Q`.

A lookup's key is a field, or a path of fields through related objects, and the name of a comparison; without one,
``exact`` is meant. ``pk`` is the primary key, whatever its field is called.

=================================== =================================================================================
``exact``, ``iexact``               equal; the same without regard to case
``in``                              one of a list
``lt``, ``lte``, ``gt``, ``gte``    less, at most, greater, at least
``range``                           between two values, both included
``contains``, ``icontains``,         of a text: holds it (``icontains``: without regard to case), begins with it,
``startswith``, ``endswith``        ends with it
``isnull``                          whether there is no value
=================================== =================================================================================

Every queryset keeps to this:

- A comparison with null is false, and its negation is true: ``filter(owner_id=1)`` leaves out rows without an owner,
  ``exclude(owner_id=1)`` keeps them. ``owner_id=None`` means ``owner_id__isnull=True``. None within ``in`` is passed
  over.
- Where a path leads through what is not there, its value is null.
- In an order, null is greater than every value: last in ``order_by("due")``, first in ``order_by("-due")``.
- ``%``, ``_`` and ``\\`` in a text are themselves.
- Without regard to case means that of ASCII letters; of others, as the database has it.
- Texts are less or greater as the database's collation has it; in memory and in SQLite, by code point. Members of an
  enumeration that do not compare are so as the database keeps them; in memory, as they are declared.
- A point in time without a zone is one in UTC. NaN is itself, and greater than every number; SQLite keeps none.
- A value is coerced to its field's type as pydantic does: ``pk="7"`` finds 7.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from wsaction._utils.hints import did_you_mean

__all__ = (
    "LOOKUPS",
    "Combination",
    "Condition",
    "FieldError",
    "Fields",
    "InvalidLookup",
    "Q",
    "UnknownKind",
    "field_name",
    "field_path",
    "name_of",
    "resolve",
)

TEXT_LOOKUPS = ("iexact", "contains", "icontains", "startswith", "endswith")
LOOKUPS = ("exact", "in", "lt", "lte", "gt", "gte", "range", "isnull", *TEXT_LOOKUPS)
"""The names of all comparisons."""

MAX_IN = 30_000  # values of one ``in``: databases take some more parameters than that in a statement

Connector: TypeAlias = Literal["AND", "OR"]


class FieldError(TypeError):
    """A field or a lookup that there is not: a mistake of the programmer's, since clients name none unchecked."""


class InvalidLookup(ValueError):
    """A value that cannot be what its field holds.

    ``field`` is the path (``"author__born"``), ``lookup`` the comparison (``"lt"``), ``value`` what came, and ``msg``
    says what was expected.
    """

    def __init__(self, field: str, lookup: str, value: Any, msg: str) -> None:
        super().__init__(f"{field}__{lookup}: {msg}")
        self.field = field
        self.lookup = lookup
        self.value = value
        self.msg = msg


class UnknownKind(LookupError):
    """A class of objects that a queryset does not have."""


def name_of(kind: type) -> str:
    """The name of a class of objects, by which another process finds it."""
    return kind.__qualname__  # without its module, which a script that is run calls otherwise than those who import it


class Q:
    """Lookups that hold together, to be combined with ``&``, ``|`` and ``~``.

    ``Q(done=False) & (Q(owner_id=7) | ~Q(title__icontains="secret"))``; `Q()` holds for everything and adds nothing.
    Never changed once made. Raises ``TypeError`` for a condition that is no `Q`.
    """

    __slots__ = ("children", "connector", "negated")

    def __init__(self, *conditions: "Q", **lookups: Any) -> None:
        for condition in conditions:
            if not isinstance(condition, Q):
                raise TypeError(f"a condition is a Q, as in Q(done=True), not {condition!r}; lookups are named")
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
        """Whether it asks for anything."""
        return bool(self.children)

    def __repr__(self) -> str:
        parts = [repr(child) if isinstance(child, Q) else f"{child[0]}={child[1]!r}" for child in self.children]
        if self.connector == "AND":
            return f"{'~' * self.negated}Q({', '.join(parts)})"
        return f"({' | '.join(parts)})"

    def _combine(self, other: "Q", connector: Connector) -> "Q":
        if not isinstance(other, Q):
            raise TypeError(f"a Q is combined with another one, not with {other!r}")
        if not (self and other):
            return self or other
        return _make_q((*self._flatten(connector), *other._flatten(connector)), connector, False)

    def _flatten(self, connector: Connector) -> "tuple[Q | tuple[str, Any], ...]":
        """Its children where they may stand among others, so that a long chain is flat; else itself."""
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
    """What lookups have to know of a model."""

    @property
    def name(self) -> str:
        """The model's, for messages."""

    @property
    def pk(self) -> str | None:
        """The primary key's field."""

    def names(self) -> Collection[str]:
        """All fields and relations."""

    def related(self, name: str) -> "Fields | None":
        """The fields behind a relation; None where it is a value."""

    def coerce(self, name: str, value: Any) -> Any:
        """A value as the field holds it; raises ``ValueError``."""

    def is_text(self, name: str) -> bool:
        """Whether text lookups make sense."""

    def coerce_text(self, name: str, value: str) -> str:
        """A part of a text as a text lookup of the field takes it; raises ``ValueError``."""

    def key_of(self, value: Any) -> Any:
        """The primary key of an object of the model; any other value as it is."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison, its names resolved and its value coerced."""

    path: tuple[str, ...]
    lookup: str
    value: Any


@dataclass(frozen=True, slots=True)
class Combination:
    """Conditions that hold together (AND; none: always) or of which one holds (OR; none: never), or the opposite."""

    connector: Connector
    negated: bool
    children: "tuple[Condition | Combination, ...]"

    def required(self) -> Iterator[Condition]:
        """Conditions without which the whole does not hold, as far as that is plain to see."""
        if self.connector == "AND" and not self.negated:
            for child in self.children:
                if isinstance(child, Condition):
                    yield child
                else:
                    yield from child.required()

    def paths(self) -> Iterator[tuple[str, ...]]:
        """What each condition looks at."""
        for child in self.children:
            if isinstance(child, Condition):
                yield child.path
            else:
                yield from child.paths()


def resolve(conditions: Iterable[Q], lookups: Mapping[str, Any], fields: Fields) -> Combination:
    """What all of them ask together, of a model with these fields.

    Raises `FieldError` for a name that there is not, `InvalidLookup` for a value that cannot be what its field holds.
    """
    return _resolve(Q(*conditions, **lookups), fields)


def _resolve(q: Q, fields: Fields) -> Combination:
    children = (
        _resolve(child, fields) if isinstance(child, Q) else _make_condition(*child, fields) for child in q.children
    )
    return Combination(q.connector, q.negated, tuple(children))


def field_path(key: str, fields: Fields) -> tuple[str, ...]:
    """The fields that an order names: ``field_path("author__name", fields) == ("author", "name")``.

    Raises `FieldError`.
    """
    path, _, lookup = _parse_key(key, fields)
    if lookup is not None:
        raise FieldError(f"{fields.name} is ordered by fields, not by the lookup {key!r}")
    return path


def field_name(key: str, fields: Fields) -> str:
    """A field by the name that values are written to: ``field_name("pk", fields) == "id"``. Raises `FieldError`."""
    name = _find_name(key, fields)
    if name is None:
        raise _unknown_name(key, key, fields, [], fields.names())
    return name


def _make_condition(key: str, value: Any, fields: Fields) -> Condition:
    path, owner, lookup = _parse_key(key, fields)
    lookup = lookup or "exact"
    if value is None and lookup in ("exact", "iexact"):
        return Condition(path, "isnull", True)
    if lookup in TEXT_LOOKUPS and not owner.is_text(path[-1]):
        raise FieldError(f"{owner.name}.{path[-1]} is no text, which {key!r} asks for")
    try:
        return Condition(path, lookup, _coerce(lookup, value, owner, path[-1]))
    except FieldError:
        raise
    except (ValueError, TypeError) as exc:
        raise InvalidLookup("__".join(path), lookup, value, str(exc)) from None


def _parse_key(key: str, fields: Fields) -> tuple[tuple[str, ...], Fields, str | None]:
    """A key's path, whose last field it is, and the lookup where it names one."""
    path: list[str] = []
    owner = fields
    target: Fields | None = fields  # where the next part is looked for; None: behind a value
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
    if target is not None and target.pk is not None:  # a relation compares by the key of what is behind it
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
    context = "" if key == part else f", as {key[:100]!r} asks of {fields.name}"
    return FieldError(f"{owner} has no {kind} {part[:100]!r}{context}; {hint}")


# ------------------------------------------------------------------------------------------------- values
def _coerce(lookup: str, value: Any, owner: Fields, name: str) -> Any:
    """The value coerced to what the lookup compares with; raises ``ValueError``, ``TypeError``."""
    if lookup == "isnull":
        return _parse_boolean(value)
    if value is None:
        raise ValueError("null is neither less nor greater, and no text; ask with isnull")

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
    if plain in (True, "true", "1"):  # 1 too, which equals True
        return True
    if plain in (False, "false", "0"):
        return False
    raise ValueError("expected true or false")


def _check_list(value: Any) -> Collection[Any]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise TypeError(f"expected a list of values, got {type(value).__name__}")
    values = value if isinstance(value, Collection) else tuple(value)
    if len(values) > MAX_IN:
        raise ValueError(f"{len(values)} values are more than {MAX_IN}")
    return values


def _coerce_range(value: Any, coerce: Callable[[Any], Any]) -> tuple[Any, Any]:
    if len(ends := tuple(_check_list(value))) != 2 or None in ends:
        raise ValueError("expected two values, the least and the greatest")
    return coerce(ends[0]), coerce(ends[1])
