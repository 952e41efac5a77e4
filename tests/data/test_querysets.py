"""`wsaction.querysets`: `MemoryQuerySet` finds objects by their fields and returns copies."""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import joinedload
from sqlmodel import SQLModel

from tests.support import shelves
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.exceptions import Conflict, ImproperlyConfigured, NotFound
from wsaction.querysets import FieldError, MemoryQuerySet, MultipleObjectsReturned, QuerySet
from wsaction.testing.querysets import QuerySetContract


class Card(BaseModel):
    id: int
    title: str = "t"
    tags: list[str] = []
    owner_id: int | None = None


class Key(BaseModel):
    key: uuid.UUID
    n: int = 0


class Loose(BaseModel):
    id: Any = None


CARDS = [Card(id=1, title="a"), Card(id=7, title="b", owner_id=1), Card(id=3, title="b", owner_id=2)]


def cards() -> MemoryQuerySet[Card]:
    return MemoryQuerySet(Card, rows=CARDS)


def test_a_memory_queryset_has_the_protocol() -> None:
    queryset: QuerySet = cards()
    assert {"get", "create", "count"} <= set(dir(queryset))


def test_a_plain_for_loop_is_an_error() -> None:
    with pytest.raises(TypeError, match="<MemoryQuerySet of Card> is iterated by `async for`, in an `async def`"):
        list(cards())  # type: ignore[call-overload]


# ------------------------------------------------------------------------------------------------- declarations
@pytest.mark.parametrize("model", [dict, int, Card(id=1), "Card", None])
def test_only_model_classes_are_accepted(model: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="MemoryQuerySet takes a pydantic model class, not "):
        MemoryQuerySet(model)


def test_the_key_must_be_a_field() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"Key has no field 'id' for a key; name one of key, n"):
        MemoryQuerySet(Key)
    assert MemoryQuerySet(Key, pk="n").pk == "n"


def test_first_rows_with_one_key_are_refused() -> None:
    with pytest.raises(Conflict, match="There is already a Card with this id"):
        MemoryQuerySet(Card, rows=[Card(id=1), Card(id=1)])


# ------------------------------------------------------------------------------------------------- get and count
@pytest.mark.parametrize(
    ("lookups", "id_"),
    [
        ({"pk": 7}, 7),
        ({"id": 7}, 7),
        ({"pk": "7"}, 7),
        ({"pk": "07"}, 7),
        ({"pk": 7.0}, 7),
        ({"title": "a"}, 1),
        ({"title": "b", "owner_id": "2"}, 3),
        ({"pk": 7, "title": "b"}, 7),
        ({"owner_id": None}, 1),
        ({"tags": [], "pk": 1}, 1),
    ],
)
async def test_get_finds_a_row_by_values_of_fields(lookups: dict[str, Any], id_: int) -> None:
    assert (await cards().get(**lookups)).id == id_


@pytest.mark.parametrize(
    "lookups",
    [{"pk": 2}, {"pk": "x"}, {"pk": None}, {"pk": [1]}, {"pk": {}}, {"pk": 1.5}, {"pk": 10**40}, {"pk": "7 or 1"},
     {"pk": 7, "title": "a"}, {"title": "z"}, {"title": 5}, {"owner_id": "x"}, {"tags": "x"}],
    ids=str,
)  # fmt: skip
async def test_unknown_or_invalid_values_are_not_found(lookups: dict[str, Any]) -> None:
    with pytest.raises(NotFound):
        await cards().get(**lookups)


async def test_an_unknown_field_is_a_field_error() -> None:
    with pytest.raises(FieldError, match=r"Card has no field 'titel'; did you mean 'title'"):
        await cards().get(titel=1)


async def test_get_raises_if_several_rows_match() -> None:
    with pytest.raises(MultipleObjectsReturned, match=r"MemoryQuerySet of Card>.get\(title\) found more than one"):
        await cards().get(title="b")
    assert (await cards().filter(owner_id=2).get()).id == 3


async def test_invalid_keys_of_any_type_are_not_found() -> None:
    rows = MemoryQuerySet(Loose, rows=[Loose(id="a"), Loose(id=1)])
    assert (await rows.get(pk="a")).id == "a"
    unknown: list[Any] = [[], {}, {"a": 1}, "b"]
    for value in unknown:
        with pytest.raises(NotFound):
            await rows.get(pk=value)


async def test_a_key_is_converted_to_the_type_of_its_field() -> None:
    key = uuid.uuid4()
    rows = MemoryQuerySet(Key, rows=[Key(key=key)], pk="key")
    assert (await rows.get(pk=str(key))).key == key
    assert (await rows.get(pk=key)).key == key
    with pytest.raises(NotFound):
        await rows.get(pk=str(uuid.uuid4()))


@given(st.lists(st.integers(), unique=True, max_size=20), st.integers())
async def test_every_row_is_found_by_its_own_key_only(ids: list[int], other: int) -> None:
    rows = MemoryQuerySet(Card, rows=[Card(id=id_, title=str(id_)) for id_ in ids])
    assert await rows.count() == len(ids)
    for id_ in ids:
        assert (await rows.get(pk=str(id_))).title == str(id_)
    if other not in ids:
        with pytest.raises(NotFound):
            await rows.get(pk=other)


# ------------------------------------------------------------------------------------------------- create
async def test_create_returns_a_new_object_with_the_next_key() -> None:
    rows = cards()
    assert await rows.create({"title": "new"}) == Card(id=8, title="new")
    assert await rows.create({"id": "20", "title": "given"}) == Card(id=20, title="given")
    assert (await rows.create({})).id == 21
    assert await rows.count() == 6
    assert (await rows.get(pk=8)).title == "new"
    assert (await MemoryQuerySet(Card).create({})).id == 1


async def test_create_refuses_a_used_key_and_invalid_values() -> None:
    rows = cards()
    with pytest.raises(Conflict, match="There is already a Card with this id"):
        await rows.create({"id": 7})
    with pytest.raises(ValidationError):
        await rows.create({"title": ["a list"]})
    assert await rows.count() == 3


async def test_a_constrained_key_counts_on_too() -> None:
    class Row(BaseModel):
        id: Annotated[int, Field(ge=1)]

    assert (await MemoryQuerySet(Row, rows=[Row(id=4)]).create({})).id == 5


# ------------------------------------------------------------------------------------------------- copies
async def test_objects_are_copies_of_the_rows() -> None:
    first = Card(id=1, tags=["kept"])
    rows = MemoryQuerySet(Card, rows=[first])
    created = await rows.create({"tags": ["kept"]})
    for lent in (first, await rows.get(pk=1), created, await rows.get(pk=2)):
        lent.title = "changed"
        lent.tags.append("changed")
    for pk in (1, 2):
        assert await rows.get(pk=pk) == Card(id=pk, tags=["kept"])
    values: dict[str, Any] = {"tags": ["kept"]}
    third = await rows.create(values)
    values["tags"].append("changed")
    assert values == {"tags": ["kept", "changed"]}
    assert (await rows.get(pk=third.id)).tags == ["kept"]


# ------------------------------------------------------------------------------------------------- the contract
class TestMemoryQuerySet(QuerySetContract):
    @asynccontextmanager
    async def make(self, rows: Sequence[Mapping[str, Any]]) -> AsyncIterator[Any]:
        things = [shelves.Thing(**row) for row in rows]
        yield MemoryQuerySet(shelves.Thing, rows=things, unique=("slug", ("board", "position")))


class TestSQLite(QuerySetContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.path = tmp_path

    @asynccontextmanager
    async def make(self, rows: Sequence[Mapping[str, Any]]) -> AsyncIterator[Any]:
        async with shelves.sqlite(self.path, shelves.Base.metadata) as engine:
            sessions = await shelves.fill(engine, shelves.OwnerRow, shelves.ThingRow, rows)
            yield SQLAlchemyQuerySet(shelves.ThingRow, sessions)


class TestASelect(TestSQLite):
    @asynccontextmanager
    async def make(self, rows: Sequence[Mapping[str, Any]]) -> AsyncIterator[Any]:
        async with super().make(rows) as things:
            every = select(shelves.ThingRow).options(joinedload(shelves.ThingRow.owner))
            yield SQLAlchemyQuerySet(every.where(shelves.ThingRow.position > 0), things._sessionmaker)


class TestSQLModel(TestSQLite):
    @asynccontextmanager
    async def make(self, rows: Sequence[Mapping[str, Any]]) -> AsyncIterator[Any]:
        async with shelves.sqlite(self.path, SQLModel.metadata) as engine:
            sessions = await shelves.fill(engine, shelves.SQLModelOwner, shelves.SQLModelThing, rows)
            yield SQLAlchemyQuerySet(shelves.SQLModelThing, sessions)


class TestPostgreSQL(QuerySetContract):
    @asynccontextmanager
    async def make(self, rows: Sequence[Mapping[str, Any]]) -> AsyncIterator[Any]:
        async with shelves.postgres(shelves.Base.metadata) as engine:
            if engine is None:
                pytest.skip(f"no PostgreSQL answers at {shelves.POSTGRES}; set WSACTION_TEST_POSTGRES_URL")
            sessions = await shelves.fill(engine, shelves.OwnerRow, shelves.ThingRow, rows)
            yield SQLAlchemyQuerySet(shelves.ThingRow, sessions)
