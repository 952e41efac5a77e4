"""`wsaction.contrib.sqlalchemy`: lookups, values and errors with columns of every type, on SQLite and PostgreSQL."""

import asyncio
import datetime
import decimal
import enum
import uuid
from collections.abc import AsyncIterator
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from pydantic import BaseModel
from sqlalchemy import ForeignKey, inspect
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship

from tests.support import shelves
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.contrib.sqlalchemy._clauses import Condition, MappedFields, _related_clause
from wsaction.contrib.sqlalchemy._errors import api_error
from wsaction.exceptions import Busy, Conflict, InvalidParameters, NotFound
from wsaction.pagination import iterate_pages, total
from wsaction.querysets import MemoryQuerySet
from wsaction.querysets._lookups import FieldError, InvalidLookup
from wsaction.transactions import unit_of_work

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
LATER = datetime.datetime(2026, 1, 1, 14, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))  # the same moment


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Reversed(sqlalchemy.types.TypeDecorator[str]):
    """A text that is stored backwards."""

    impl = sqlalchemy.String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value and value[::-1]

    process_result_value = process_bind_param


class Point(sqlalchemy.types.UserDefinedType[str]):
    cache_ok = True

    def get_col_spec(self, **options: Any) -> str:
        return "VARCHAR(250)"

    @property
    def python_type(self) -> type:
        raise NotImplementedError


class Ratio(BaseModel):
    id: int
    ratio: float | None


class Base(DeclarativeBase):
    pass


class Kind(Base):
    __tablename__ = "kind"
    id: Mapped[int] = mapped_column(primary_key=True)
    small: Mapped[int | None] = mapped_column(sqlalchemy.SmallInteger)
    big: Mapped[int | None] = mapped_column(sqlalchemy.BigInteger)
    price: Mapped[decimal.Decimal | None] = mapped_column(sqlalchemy.Numeric(10, 2))
    ratio: Mapped[float | None]
    colour: Mapped[Colour | None]
    size: Mapped[str | None] = mapped_column(sqlalchemy.Enum("s", "m", name="size"))
    key: Mapped[uuid.UUID | None] = mapped_column(unique=True)
    raw: Mapped[bytes | None]
    naive: Mapped[datetime.datetime | None]
    aware: Mapped[datetime.datetime | None] = mapped_column(sqlalchemy.DateTime(timezone=True))
    backwards: Mapped[str | None] = mapped_column(Reversed)
    point: Mapped[str | None] = mapped_column(Point)
    text: Mapped[str | None] = mapped_column(
        sqlalchemy.String(200).with_variant(sqlalchemy.String(200, collation="C"), "postgresql")
    )
    span: Mapped[datetime.timedelta | None]
    doc: Mapped[Any] = mapped_column(sqlalchemy.JSON().with_variant(JSONB(), "postgresql"), nullable=True)
    long: Mapped[str | None] = mapped_column(sqlalchemy.Text, deferred=True)
    links: Mapped[list["Link"]] = relationship(back_populates="kind", passive_deletes="all")


class Link(Base):
    __tablename__ = "link"
    __table_args__ = (sqlalchemy.UniqueConstraint("kind_id", "order"), sqlalchemy.CheckConstraint('"order" < 1000'))
    id: Mapped[int] = mapped_column(primary_key=True)
    kind_id: Mapped[int | None] = mapped_column(ForeignKey("kind.id"))
    place: Mapped[int] = mapped_column("order")  # the column has another name, which must be quoted
    kind: Mapped[Kind | None] = relationship(back_populates="links")
    pairs: Mapped[list["Pair"]] = relationship()


Link.double = column_property(Link.place * 2)  # type: ignore[attr-defined]


class Pair(Base):
    __tablename__ = "pair"
    link_id: Mapped[int] = mapped_column(ForeignKey("link.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)


class Later(Base):
    __tablename__ = "later"
    id: Mapped[int] = mapped_column(primary_key=True)
    next_id: Mapped[int | None] = mapped_column(ForeignKey("later.id", deferrable=True, initially="DEFERRED"))


@pytest.fixture(params=["sqlite", "postgresql"])
async def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    if request.param == "sqlite":
        async with shelves.sqlite(tmp_path, Base.metadata) as engine:
            yield async_sessionmaker(engine)
    else:
        async with shelves.postgres(Base.metadata) as found:
            if found is None:
                pytest.skip(f"no PostgreSQL answers at {shelves.POSTGRES}; set WSACTION_TEST_POSTGRES_URL")
            yield async_sessionmaker(found)


KEY = uuid.UUID(int=5)
VALUES = {
    "small": 3, "big": 2**40, "price": decimal.Decimal("1.50"), "ratio": 0.5, "colour": Colour.RED, "size": "s",
    "key": KEY, "raw": b"ab", "naive": LATER, "aware": NOON, "backwards": "abc", "point": "1,2", "text": "Tä_%",
    "span": datetime.timedelta(hours=1, seconds=-5),
}  # fmt: skip

FINDS = [
    {"small": "3"},
    {"big__gt": 2**39},
    {"price": "1.5"},
    {"price__lt": 2},
    {"ratio__lte": "0.5"},
    {"colour": "red"},
    {"colour__in": ["red", Colour.BLUE]},
    {"size": "s"},
    {"key": str(KEY)},
    {"raw": b"ab"},
    {"naive": LATER},
    {"naive": NOON.replace(tzinfo=None)},
    {"naive__gte": "2026-01-01T13:00+01:00"},
    {"naive__lt": "2026-01-01T12:00:01"},
    {"backwards": "abc"},
    {"point": "1,2"},
    {"text__endswith": "_%"},
    {"text__startswith": "T"},
    {"text__iexact": "tä_%"},
    {"text__contains": "ä_"},
    {"text__icontains": "T"},
    {"text__range": ["T", "U"]},
    {"span": "PT59M55S"},
    {"span__gt": datetime.timedelta(minutes=59)},
    {"span__range": ["-P1D", "PT1H"]},
    {"links": None},
    {"links__isnull": True},
]

FAILS: list[tuple[str, Any, str]] = [
    ("id", 2**63, "expected a number from -"),
    ("id", 10**40, "expected a number from"),
    ("big", -(2**63) - 1, "expected"),
    ("small", "x", "valid integer"),
    ("colour", "green", "Input should be 'red' or 'blue'"),
    ("size", "xl", "expected one of s, m"),
    ("size", [], "expected one of"),
    ("key", "5", "valid UUID"),
    ("text", "a\0b", "without NUL and"),
    ("text__icontains", "\ud800", "without NUL and"),
    ("text__in", ["a", "\0"], "without NUL"),
    ("naive", "soon", "valid datetime"),
    ("price", "NaN", "finite number"),
    ("price", "1e400", "digits before the decimal point"),
    ("naive", "0001-01-01T00:00:00+14:00", "years 1 to 9999"),
    ("aware__lt", "9999-12-31T23:59:59-14:00", "years 1 to 9999"),
    ("span", "soon", "valid timedelta"),
]

UNSTORABLE: list[tuple[str, Any, str, str]] = [  # field, value, message, which databases cannot hold it
    ("big", 2**63, "expected a number from -9223372036854775808", "both"),
    ("small", 40_000, "expected a number from -32768 to 32767", "postgresql"),
    ("price", decimal.Decimal("1e999999"), "at most", "both"),
    ("price", decimal.Decimal("1e8"), "at most 8 digits", "postgresql"),
    ("text", "a\0b", "without NUL and", "both"),
    ("text", "x" * 201, "at most 200 characters", "postgresql"),
    ("naive", datetime.datetime.fromisoformat("0001-01-01T00:00:00+14:00"), "years 1 to 9999", "both"),
    ("span", datetime.timedelta(days=99_999_999), "in the years", "sqlite"),
    ("ratio", float("nan"), "SQLite stores no NaN", "sqlite"),
    ("price", decimal.Decimal("99999999.999"), "at most 8 digits", "postgresql"),  # it has 9 once it is rounded
    ("point", "x" * 300, "too large, too long", "postgresql"),  # values of the application's own types are not checked
    ("doc", {"a\0": 1}, "ill-formed", "postgresql"),
]


async def test_columns_of_every_type_are_filtered(sessions: Any) -> None:
    kinds = SQLAlchemyQuerySet(Kind, sessions)
    kind = await kinds.create(VALUES)
    for lookups in FINDS:
        assert await kinds.filter(**lookups).count() == 1, lookups
        assert await kinds.exclude(**lookups).count() == 0, lookups
    for name, value, message in FAILS:
        with pytest.raises(InvalidLookup, match=message):
            kinds.filter(**{name: value})
        with pytest.raises(NotFound):
            await kinds.get(**{name: value})
    for name in (
        "small__contains",
        "colour__icontains",
        "size__startswith",
        "key__contains",
        "point__iexact",
        "links__id__contains",
    ):
        with pytest.raises(FieldError, match="is not a text field"):
            kinds.filter(**{name: "x"})
    kind = await kinds.update(kind, {"naive": NOON, "aware": LATER, "point": None})
    assert await kinds.filter(naive=NOON).exists()
    assert "long" in inspect(kind).unloaded


async def test_a_number_is_rounded_to_the_places_of_its_column(sessions: Any) -> None:
    kinds, unit = SQLAlchemyQuerySet(Kind, sessions), decimal.Decimal("0.01")
    written = [decimal.Decimal(text) for text in ("1.234", "1.236", "1.23", "1.2399", "-0.005", "1.005", "1e7", "0e-9")]
    wanted = [number.quantize(unit, decimal.ROUND_HALF_UP) for number in written]
    assert [(await kinds.create({"price": number})).price for number in written] == wanted
    assert [row.price async for row in kinds] == wanted
    for ordering in ("price", "-price"):  # if a cursor missed its own object, this would not end
        whole = [row.id async for row in kinds.order_by(ordering)]
        walked: list[int] = []
        async for page in iterate_pages(lambda: kinds, total(ordering), 2):
            walked += [row.id for row in page]
            assert len(walked) <= len(whole)
        assert walked == whole
    found = {"price": "1.234", "price__gt": "1.235", "price__lte": "1.2349", "price__range": ("1.234", "1.239")}
    counts = [await kinds.filter(**{name: value}).count() for name, value in found.items()]
    assert counts == [0, 3, 5, 0]  # the value of a lookup is not rounded


async def test_nan_is_greater_than_every_number(tmp_path: Path) -> None:
    nan, rows = float("nan"), [1.5, float("nan"), None, 3.0, float("nan"), float("inf"), -2.0]

    async def check(kinds: Any) -> None:
        for order, wanted in (("ratio", [7, 1, 4, 6, 2, 5, 3]), ("-ratio", [3, 2, 5, 6, 4, 1, 7])):
            assert [row.id async for row in kinds.order_by(order)] == wanted
            assert [row.id async for page in iterate_pages(lambda: kinds, total(order), 2) for row in page] == wanted
        for lookups, wanted in (
            ({"ratio": nan}, [2, 5]), ({"ratio__lt": nan}, [1, 4, 6, 7]), ({"ratio__lte": "nan"}, [1, 2, 4, 5, 6, 7]),
            ({"ratio__gt": 2}, [2, 4, 5, 6]), ({"ratio__gte": nan}, [2, 5]), ({"ratio__in": [nan, 3]}, [2, 4, 5]),
        ):  # fmt: skip
            assert [row.id async for row in kinds.filter(**lookups)] == wanted, lookups
            left = [n for n in range(1, 8) if n not in wanted]
            assert [row.id async for row in kinds.exclude(**lookups)] == left, lookups

    await check(MemoryQuerySet(Ratio, rows=[Ratio(id=n, ratio=ratio) for n, ratio in enumerate(rows, 1)]))
    async with shelves.sqlite(tmp_path, Base.metadata) as engine:
        with pytest.raises(InvalidLookup, match="SQLite stores no NaN"):
            SQLAlchemyQuerySet(Kind, async_sessionmaker(engine)).exclude(ratio__gt=nan)
    async with shelves.postgres(Base.metadata) as found:
        if found is not None:
            kinds = SQLAlchemyQuerySet(Kind, async_sessionmaker(found))
            for ratio in rows:
                await kinds.create({"ratio": ratio})
            await check(kinds)


async def test_a_value_that_a_column_cannot_hold_is_a_400(sessions: Any) -> None:
    kinds = SQLAlchemyQuerySet(Kind, sessions)
    dialect = sessions.kw["bind"].dialect.name
    async with unit_of_work():
        kind = await kinds.create({"text": "kept"})
        for field, value, message, where in UNSTORABLE:
            if where in ("both", dialect):
                for write in (kinds.create({field: value}), kinds.update(kind, {field: value})):
                    with pytest.raises(InvalidParameters, match=message) as caught:
                        await write
                    by_the_database = "loc" not in caught.value.items[0]
                    assert by_the_database or caught.value.items[0]["loc"] == ["data", field]
        with pytest.raises(InvalidParameters) as caught:
            await kinds.create({"big": 2**63, "text": "\0", "ratio": 1.5})
        assert [item["loc"][1] for item in caught.value.items] == ["big", "text"]
        kind = await kinds.update(kind, {"small": 5})  # the unit continues
    assert [(row.text, row.small) async for row in kinds] == [("kept", 5)]
    assert (await kinds.update(kind, {"big": Kind.small + 1})).big == 6  # the database checks an expression


async def test_the_first_write_of_a_unit_needs_no_savepoint(sessions: Any) -> None:
    kinds, engine = SQLAlchemyQuerySet(Kind, sessions), sessions.kw["bind"].sync_engine
    names: list[str] = []
    sqlalchemy.event.listen(engine, "savepoint", lambda connection, name: names.append(name))
    kind = await kinds.create({"key": KEY, "text": "kept"})
    async with unit_of_work():
        held = await kinds.get(pk=kind.id)
        with pytest.raises(Conflict):
            await kinds.create({"key": KEY})
        assert (held.text, names) == ("kept", [])  # loaded objects stay readable
        held = await kinds.update(held, {"small": 1})
    del names[:]
    async with unit_of_work():
        await kinds.update(await kinds.get(pk=kind.id), {"small": 2})
        assert names == []
        with pytest.raises(Conflict):
            await kinds.create({"key": KEY})
        assert len(names) == 1
    assert [(row.text, row.small) async for row in kinds] == [("kept", 2)]


async def test_32_bit_columns_refuse_larger_numbers(sessions: Any) -> None:
    kinds = SQLAlchemyQuerySet(Kind, sessions)
    on_sqlite = sessions.kw["bind"].dialect.name == "sqlite"
    for lookups in ({"id": 2**31}, {"small": 2**15}, {"links__place__lt": -(2**31) - 1}):
        if on_sqlite:
            assert not await kinds.filter(**lookups).exists()
        else:
            with pytest.raises(InvalidLookup, match="expected a number from"):
                kinds.filter(**lookups)


async def test_a_relation_to_objects_with_a_composite_key(sessions: Any) -> None:
    links, pairs = SQLAlchemyQuerySet(Link, sessions), sessions()
    for place in (2, 1):
        await links.create({"place": place})
    async with pairs.begin():
        pairs.add(Pair(link_id=1, number=3))
    for lookups, wanted in (({"pairs": None}, [2]), ({"pairs__isnull": False}, [1]), ({"pairs__number": 3}, [1])):
        assert [link.id async for link in links.filter(**lookups)] == wanted
        assert [link.id async for link in links.exclude(**lookups)] == [3 - wanted[0]]
    for lookup, value in (("pairs", 1), ("pairs__in", [1]), ("pairs__contains", "x")):
        with pytest.raises(FieldError, match=r"key has several columns .* name one of pairs__link_id, pairs__number"):
            links.filter(**{lookup: value})
    with pytest.raises(FieldError, match="cannot be compared"):
        await links.order_by("pairs").first()


async def test_an_expression_may_be_ordered_by(sessions: Any) -> None:
    links = SQLAlchemyQuerySet(Link, sessions)
    for place in (2, 3, 1):
        await links.create({"place": place})
    for order, wanted in (("double", [3, 1, 2]), ("-double", [2, 1, 3])):
        assert [link.id async for link in links.order_by(order)] == wanted
        assert [row.id async for page in iterate_pages(lambda: links, total(order), 1) for row in page] == wanted
    assert await links.filter(double__gte="4").count() == 2


async def test_constraint_violations_become_conflicts(sessions: Any) -> None:
    links, kinds = SQLAlchemyQuerySet(Link, sessions), SQLAlchemyQuerySet(Kind, sessions)
    kind = await kinds.create({"key": KEY})
    await links.create({"kind": kind, "place": 1})
    enforced = sessions.kw["bind"].dialect.name == "postgresql"
    for queryset, values, msg, fields in (
        (
            links,
            {"kind_id": kind.id, "place": 1},
            "There is already a Link with this kind_id and place.",
            ["kind_id", "place"],
        ),
        (kinds, {"key": KEY}, "There is already a Kind with this key.", ["key"]),
        (links, {"place": None}, "This needs a value: place.", ["place"]),
        (
            links,
            {"kind_id": 99, "place": 1},
            "This refers to an object that does not exist, or another object refers to this one.",
            ["kind_id"],
        ),
        (links, {"place": 1000}, "This conflicts with what is already there.", None),
    ):
        if fields != ["kind_id"] or enforced:
            with pytest.raises(Conflict) as caught:
                await queryset.create(values)
            assert (caught.value.msg, caught.value.ctx) == (msg, fields and {"fields": fields})
    if enforced:
        with pytest.raises(Conflict, match="another object refers to this one"):
            await kinds.delete(kind)
    assert (await links.count(), await kinds.count()) == (1, 1)


async def test_a_constraint_deferred_to_the_commit_is_a_conflict(sessions: Any) -> None:
    if sessions.kw["bind"].dialect.name == "sqlite":
        return  # PRAGMA foreign_keys is off; test_sqlalchemy has it on
    later = SQLAlchemyQuerySet(Later, sessions)
    with pytest.raises(Conflict, match="This refers to an object that does not exist"):
        await later.create({"next_id": 99})
    assert await later.count() == 0


async def test_a_deadlock_is_busy(sessions: Any) -> None:
    if sessions.kw["bind"].dialect.name == "sqlite":
        return  # units that write to SQLite queue
    kinds = SQLAlchemyQuerySet(Kind, sessions)
    one, two = await kinds.create({"small": 1}), await kinds.create({"small": 2})
    both = asyncio.Barrier(2)

    async def cross(first: Any, second: Any) -> None:
        async with unit_of_work():
            await kinds.update(first, {"small": 7})
            await both.wait()
            await kinds.update(second, {"small": 7})

    work = (asyncio.create_task(cross(*pair), context=Context()) for pair in ((one, two), (two, one)))
    results = await asyncio.gather(*work, return_exceptions=True)
    assert sorted(map(type, results), key=str) == [type(None), Busy] or {type(result) for result in results} == {
        type(None),
        Busy,
    }


async def test_a_narrowed_row_is_locked_until_the_unit_ends(sessions: Any) -> None:
    kinds = SQLAlchemyQuerySet(Kind, sessions)
    kind = await kinds.create({"small": 1})
    reached = asyncio.Event()

    async def move_out() -> None:
        other = await kinds.get(pk=kind.id)
        reached.set()
        await kinds.update(other, {"small": 2})

    async with unit_of_work():
        await kinds.filter(small=1).update(kind, {"text": "mine"})
        moving = asyncio.create_task(move_out(), context=Context())
        await reached.wait()
    await moving
    kind = await kinds.get(pk=kind.id)
    assert (kind.small, kind.text) == (2, "mine")


# ------------------------------------------------------------------------------------------------- by themselves
def test_only_relationships_are_followed() -> None:
    with pytest.raises(FieldError, match=r"Kind\.text is not a relationship"):
        _related_clause("text", [Condition(("text", "x"), "exact", 1)], Kind, MappedFields(inspect(Kind), str))


def test_a_composite_key_cannot_be_filtered_by() -> None:
    links = SQLAlchemyQuerySet(Link, async_sessionmaker())
    links.filter(pairs__number=1)
    with pytest.raises(FieldError, match="pairs has no field 'pk'"):
        links.filter(pairs__pk=1)
    assert MappedFields(inspect(Pair), str).key_of(Pair(link_id=1, number=2)) is not None


async def test_sessions_may_be_bound_after_querysets_are_declared(tmp_path: Path) -> None:
    sessions: Any = async_sessionmaker()
    kinds = SQLAlchemyQuerySet(Kind, sessions)
    with pytest.raises(InvalidLookup, match="a number from"):
        kinds.filter(small=2**40)
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/later.db")
    sessions.configure(bind=engine)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await kinds.create({"small": 2**40, "text": "abc"})
    assert await kinds.filter(small=2**40).exists()  # SQLite integers have 64 bits
    assert await kinds.filter(text__contains="b").exists()
    assert not await kinds.filter(text__contains="B").exists()  # although SQLite's LIKE ignores case
    await engine.dispose()


class Diag(Exception):
    """A unique violation as psycopg reports it."""

    sqlstate = "23505"

    class diag:
        message_detail = 'Key ("order", other)=(1, 2) already exists.'


class DivisionByZero(Exception):
    """A bug in the application that SQLAlchemy raises as the same class of error."""

    sqlstate = "22012"


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (IntegrityError("INSERT", {}, Diag()), "There is already a Link with this place."),
        (IntegrityError("INSERT", {}, Exception("Duplicate entry 'a' for key 'slug'")), "This conflicts with what is"),
        (IntegrityError("INSERT", {}, Exception("NOT NULL constraint failed: other.x")), "This conflicts with what is"),
        (OperationalError("UPDATE", {}, Exception("database table is locked: card")), "The database is busy"),
        (OperationalError("UPDATE", {}, Exception("no such table")), None),
        (DataError("UPDATE", {}, Exception("Data too long for column 'text'")), "A value is too large"),
        (DataError("UPDATE", {}, DivisionByZero()), None),
        (DBAPIError("UPDATE", {}, Exception("x")), None),
    ],
)
def test_errors_of_other_databases_are_translated(exc: DBAPIError, expected: str | None) -> None:
    error = api_error(exc, inspect(Link))
    assert (error is None) if expected is None else str(error).startswith(expected)
