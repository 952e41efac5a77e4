"""`wsaction.querysets._lookups`: names, values and `Q`. Random lookups find the same in every store."""

import datetime
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.support import shelves
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.querysets import MemoryQuerySet
from wsaction.querysets._lookups import (
    MAX_IN,
    Combination,
    Condition,
    FieldError,
    InvalidLookup,
    Q,
    field_name,
    field_path,
    resolve,
)
from wsaction.querysets._model_fields import ModelFields, coercer, is_immutable, members
from wsaction.querysets._predicates import predicate

FIELDS = ModelFields(shelves.Thing, "id")


class Node(BaseModel):
    id: int
    parent: "Node | None" = None
    kind: Literal["a", "b"] = "a"
    anything: Any = None
    pk_less: "Leaf | None" = None


class Leaf(BaseModel):
    size: int


NODES = ModelFields(Node, "id")


def found(q: Q, row: Any, fields: ModelFields = NODES) -> bool:
    return predicate(resolve([q], {}, fields))(row)


# ------------------------------------------------------------------------------------------------- Q
def test_the_repr_of_q_shows_its_conditions() -> None:
    assert repr(Q(Q(a=1) | Q(b="x"), c=None)) == "Q((a=1 | b='x'), c=None)"
    assert repr(~(Q(a=1) & Q(b=2))) == "~Q(Q(a=1, b=2))"
    assert repr(Q()) == "Q()"
    assert repr(Q(a=1, b=2) | Q(c=3)) == "(Q(a=1, b=2) | c=3)"


def test_an_empty_q_adds_nothing() -> None:
    some = Q(a=1)
    assert (Q() | some) is some
    assert (some & Q()) is some
    assert not ~Q()
    assert not Q(Q(), ~Q(Q()))
    assert resolve([~Q(), Q(Q())], {}, FIELDS).children == ()


def test_a_long_chain_is_flat() -> None:
    chain = Q(id=0)
    for number in range(1, 5_000):
        chain |= Q(id=number)
    assert len(chain.children) == 5_000
    assert found(chain, Node(id=4_999), NODES)


@pytest.mark.parametrize("other", [1, {"a": 1}, None, "a=1"])
def test_only_qs_are_combined(other: Any) -> None:
    with pytest.raises(TypeError, match="a condition is a Q, as in Q"):
        Q(other)
    for combine in (lambda: Q(a=1) & other, lambda: Q(a=1) | other):
        with pytest.raises(TypeError, match="a Q is combined with another Q"):
            combine()


def test_required_conditions_are_found() -> None:
    asked = resolve([Q(id=1) & Q(Q(slug="a"), ~Q(rank=1)), Q(rank=2) | Q(rank=3)], {}, FIELDS)
    assert [condition.path for condition in asked.required()] == [("id",), ("slug",)]


# ------------------------------------------------------------------------------------------------- names
@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("titel", "Thing has no field 'titel'; did you mean 'title'?"),
        ("xyz", "Thing has no field 'xyz'; there are id, slug, title, rank, done, due, board, position, owner"),
        (
            "title__contain",
            "title has no lookup 'contain' ('title__contain' of Thing); did you mean 'contains'?",
        ),
        ("owner__nam", "owner has no field 'nam' ('owner__nam' of Thing); did you mean 'name'?"),
        ("title__exact__in", "title has no lookup 'exact' ('title__exact__in' of Thing); did you mean 'exact'?"),
        ("rank__icontains", "Thing.rank is not a text field, which 'rank__icontains' needs"),
        ("owner__id__startswith", "Owner.id is not a text field, which 'owner__id__startswith' needs"),
    ],
)
def test_an_unknown_field_or_lookup_is_an_error(key: str, message: str) -> None:
    with pytest.raises(FieldError) as caught:
        resolve([], {key: "x"}, FIELDS)
    assert str(caught.value) == message
    assert isinstance(caught.value, TypeError)


def test_paths() -> None:
    assert field_path("owner__name", FIELDS) == ("owner", "name")
    assert field_path("owner", FIELDS) == ("owner", "id")
    assert field_path("pk", FIELDS) == ("id",)
    assert field_path("pk_less", NODES) == ("pk_less",)
    assert field_path("parent__parent__pk_less__size", NODES)[-1] == "size"
    assert (field_name("pk", FIELDS), field_name("owner", FIELDS)) == ("id", "owner")
    with pytest.raises(FieldError, match="Thing is ordered by fields, not by the lookup 'rank__lt'"):
        field_path("rank__lt", FIELDS)
    with pytest.raises(FieldError, match="Leaf has no field 'pk'"):
        field_name("pk", ModelFields(Leaf, None))


# ------------------------------------------------------------------------------------------------- values
NULL = "expected a value, got null; use isnull to find null"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("rank", "x", ("rank", "exact", "x", "Input should be a valid integer, unable to parse string as an integer")),
        ("rank__lt", None, ("rank", "lt", None, NULL)),
        ("title__contains", None, ("title", "contains", None, NULL)),
        ("title__icontains", 5, ("title", "icontains", 5, "expected a text, got int")),
        ("rank__in", "12", ("rank", "in", "12", "expected a list of values, got str")),
        ("rank__in", 5, ("rank", "in", 5, "expected a list of values, got int")),
        ("rank__in", {1: 2}, ("rank", "in", {1: 2}, "expected a list of values, got dict")),
        ("rank__range", [1], ("rank", "range", [1], "expected two values, the smallest and the largest")),
        ("done__isnull", "maybe", ("done", "isnull", "maybe", "expected true or false")),
        ("owner__id__in", [[]], ("owner__id", "in", [[]], "Input should be a valid integer")),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_its_field_is_an_error(key: str, value: Any, expected: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidLookup) as error:
        resolve([], {key: value}, FIELDS)
    exc = error.value
    assert (exc.field, exc.lookup, exc.value, exc.msg) == expected
    assert str(exc) == f"{expected[0]}__{expected[1]}: {expected[3]}"
    assert isinstance(exc, ValueError)


def test_values_are_coerced() -> None:
    def value(**lookups: Any) -> Any:
        (condition,) = resolve([], lookups, FIELDS).children
        assert isinstance(condition, Condition)
        return condition.value

    assert value(rank__in=iter(["1", None, 2.0])) == (1, 2)
    assert value(due__range=("2026-01-01", datetime.date(2026, 2, 1)))[0] == datetime.date(2026, 1, 1)
    assert value(rank__isnull=1) is True
    assert value(rank__isnull="False") is False
    assert value(owner=shelves.Owner(id=3, name=None)) == 3
    with pytest.raises(InvalidLookup, match=f"expected at most {MAX_IN} values, got {MAX_IN + 1}"):
        value(rank__in=range(MAX_IN + 1))
    with pytest.raises(ValueError, match="valid integer"):
        coercer(int)("x")


def test_incomparable_values_do_not_match() -> None:
    node = Node(id=1, anything={"a": 1}, pk_less=Leaf(size=3))
    assert not found(Q(anything__lt=3), node)
    assert found(~Q(anything__lt=3), node)
    assert not found(Q(anything__contains="a"), node)
    assert found(Q(pk_less={"size": 3}, kind__icontains="A", parent__parent__id=None), node)
    assert found(Q(pk_less__size__range=(1, 3)), node)


def test_types() -> None:
    assert members(Annotated[int | None, "x"]) == (int,)
    assert members(Annotated[str, 1] | Literal["a"] | None) == (str, Literal["a"])
    kinds: list[Any] = [int, str | None, Literal[1], datetime.date, Annotated[bytes, 1] | None, type(None)]
    assert all(map(is_immutable, kinds))
    changeable: list[Any] = [list[int], dict, Any, Leaf, int | list[str], tuple[int, ...]]
    assert not any(map(is_immutable, changeable))


def test_never_and_always() -> None:
    assert predicate(Combination("AND", False, ()))(None)
    assert not predicate(Combination("OR", False, ()))(None)


# ------------------------------------------------------------------------------------------------- three answers
TEXTS = ["", "a", "A", "aA%", "%", "_", "a_b", "\\", "a\\%", "é", "b'\"", "ab", "B", "日本", "*?[a]"]
OWNERS: list[Any] = [None, {"id": 1, "name": "ab"}, {"id": 2, "name": None}, {"id": 3, "name": "A_"}]
RANKS = [None, -1, 0, 1, 2, 2]
DUES = [None, datetime.date(2026, 1, 1), datetime.date(2026, 6, 1)]
ROWS = [
    {
        "id": number + 1, "slug": f"s{number}", "title": text, "rank": RANKS[number % 6], "done": number % 3 == 0,
        "due": DUES[number % 3], "board": None, "position": number, "owner": OWNERS[number % 4],
    }
    for number, text in enumerate(TEXTS)
]  # fmt: skip

texts = st.sampled_from([*TEXTS, "b", "aa", "z"]) | st.text(alphabet="aAbB%_\\é", max_size=3)
numbers = st.integers(-2, 4)
dates = st.sampled_from([*DUES[1:], datetime.date(2026, 3, 1)])
COMPARED = ["lt", "lte", "gt", "gte", "exact"]


def _about(names: list[str], values: st.SearchStrategy[Any], *more: str) -> st.SearchStrategy[Q]:
    names_ = st.sampled_from(names)
    lookup = st.tuples(names_, st.sampled_from([*COMPARED, *more]), values)
    many = st.tuples(names_, st.just("in"), st.lists(st.none() | values, max_size=3))
    between = st.tuples(names_, st.just("range"), st.tuples(values, values))
    null = st.tuples(names_, st.just("isnull"), st.booleans())
    return (lookup | many | between | null).map(lambda asked: Q(**{f"{asked[0]}__{asked[1]}": asked[2]}))


TEXT_LOOKUPS = ("iexact", "contains", "icontains", "startswith", "endswith")
leaves = (
    _about(["title", "owner__name"], texts, *TEXT_LOOKUPS)
    | _about(["rank", "owner__id", "owner__pk", "position", "pk"], numbers)
    | _about(["due"], dates)
    | st.booleans().map(lambda done: Q(done=done))
)
questions = st.recursive(
    leaves,
    lambda q: st.builds(lambda a, b: a & b, q, q) | st.builds(lambda a, b: a | b, q, q) | q.map(lambda a: ~a)
    | st.lists(q, max_size=3).map(lambda several: Q(*several)),
    max_leaves=6,
)  # fmt: skip
ORDERED = ["id", "title", "rank", "done", "due", "owner__name", "owner__id", "position"]
orders = st.lists(st.builds("{}{}".format, st.sampled_from(["", "-"]), st.sampled_from(ORDERED)), max_size=3)
ends = st.none() | st.integers(0, 17)


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[tuple[Any, Any]]:
    async with shelves.sqlite(tmp_path, shelves.Base.metadata) as engine:
        sessions = await shelves.fill(engine, shelves.OwnerRow, shelves.ThingRow, ROWS)
        memory = MemoryQuerySet(shelves.Thing, rows=[shelves.Thing(**row) for row in ROWS])
        yield memory, SQLAlchemyQuerySet(shelves.ThingRow, sessions)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(questions, questions, orders, ends, ends)
async def test_memory_sqlite_and_plain_python_agree(
    shelf: tuple[Any, Any], q: Q, without: Q, order: list[str], start: int | None, stop: int | None
) -> None:
    rows = [row for row in ROWS if _holds(q, row) and not (_holds(without, row) and without)]
    for name in reversed(order):
        rows.sort(key=_key(name.removeprefix("-")), reverse=name.startswith("-"))
    wanted = [row["id"] for row in rows][start:stop]
    for things in shelf:
        part = things.filter(q).exclude(without).order_by(*order)[start:stop]
        assert [thing.id async for thing in part] == wanted, things
        assert await part.count() == len(wanted), things


def _holds(q: Q, row: dict[str, Any]) -> bool:
    """The meaning of `Q`, implemented a second time."""
    children = (_holds(child, row) if isinstance(child, Q) else _compares(*child, row) for child in q.children)
    together = all(children) if q.connector == "AND" else any(children)
    return together is not q.negated


def _compares(key: str, value: Any, row: dict[str, Any]) -> bool:
    name, lookup = key.rsplit("__", 1) if "__" in key else (key, "exact")
    held = _read(name, row)
    if lookup == "isnull":
        return (held is None) is value
    if held is None:
        return False
    say: dict[str, Callable[[], bool]] = {
        "exact": lambda: held == value,
        "iexact": lambda: held.lower() == value.lower(),
        "lt": lambda: held < value,
        "lte": lambda: held <= value,
        "gt": lambda: held > value,
        "gte": lambda: held >= value,
        "in": lambda: any(held == item for item in value),
        "range": lambda: value[0] <= held <= value[1],
        "contains": lambda: held.find(value) >= 0,
        "icontains": lambda: held.lower().find(value.lower()) >= 0,
        "startswith": lambda: held[: len(value)] == value,
        "endswith": lambda: held[len(held) - len(value) :] == value if len(value) <= len(held) else False,
    }
    return say[lookup]()


def _read(name: str, row: dict[str, Any]) -> Any:
    held: Any = row
    for word in name.split("__"):
        held = None if held is None else held["id" if word == "pk" else word]
    return held


def _key(name: str) -> Callable[[dict[str, Any]], Any]:
    def key(row: dict[str, Any]) -> Any:
        held = _read(name, row)
        return (1, 0) if held is None else (0, held)

    return key
