"""Three-valued conditions: a decision of Python about a row equals the answer of the database, or Python leaves it
open.
"""

import datetime
import decimal
import enum
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import CHAR, JSON, ForeignKey, Numeric, String, Text, select
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from tests.support import shelves
from tests.support.schedules import SCHEDULES
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.contrib.sqlalchemy._columns import ColumnValues
from wsaction.querysets._lookups import Combination, Condition, Q, name_of
from wsaction.querysets._predicates import decide

UTC = datetime.UTC
NAIVE = datetime.datetime(2026, 1, 1, 12, tzinfo=UTC).replace(tzinfo=None)


# ------------------------------------------------------------------------------------------------- Kleene's logic
@pytest.mark.parametrize(
    ("connector", "negated", "known", "wanted"),
    [
        ("AND", False, "", True),
        ("OR", False, "", False),
        ("AND", False, "t?", None),
        ("AND", False, "?f", False),
        ("AND", True, "?f", True),
        ("AND", True, "t?", None),
        ("OR", False, "?t", True),
        ("OR", False, "f?", None),
        ("OR", True, "?t", False),
        ("AND", False, "tt", True),
        ("OR", False, "ff", False),
    ],
)
def test_unknown_values_matter_only_if_they_change_the_result(
    connector: Any, negated: bool, known: str, wanted: bool | None
) -> None:
    verdicts = {"t": True, "f": False, "?": None}
    children = tuple(Condition((one,), "exact", 0) for one in known)
    asked = Combination("AND", False, (Combination(connector, negated, children),))
    assert decide(asked, lambda one: verdicts[one.path[0]]) is wanted


# ------------------------------------------------------------------------------------------------- columns
class Colour(enum.Enum):
    RED = "red"
    BLUE = "Blue"


class Loud(sqlalchemy.types.TypeDecorator[str]):
    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value and value.upper()


class Base(DeclarativeBase):
    pass


class Box(Base):
    __tablename__ = "box"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]


NOCASE = String(collation="NOCASE").with_variant(String(collation="und-x-icu"), "postgresql")


class Thing(Base):
    __tablename__ = "thing"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int | None]
    done: Mapped[bool | None]
    text: Mapped[str | None]
    long: Mapped[str | None] = mapped_column(Text)
    folded: Mapped[str | None] = mapped_column(NOCASE)
    padded: Mapped[str | None] = mapped_column(CHAR(8))
    loud: Mapped[str | None] = mapped_column(Loud)
    price: Mapped[decimal.Decimal | None] = mapped_column(Numeric(10, 2))
    ratio: Mapped[float | None]
    real: Mapped[float | None] = mapped_column(sqlalchemy.REAL)
    day: Mapped[datetime.date | None]
    moment: Mapped[datetime.datetime | None] = mapped_column(sqlalchemy.DateTime(timezone=True))
    naive: Mapped[datetime.datetime | None]
    key: Mapped[uuid.UUID | None]
    colour: Mapped[Colour | None]
    box_id: Mapped[int | None] = mapped_column(ForeignKey("box.id"))
    box: Mapped[Box | None] = relationship()


TEXTS = ("", "a", "A", "é", "É", "ab", "aB", "I", "i", "ı", "ß", "ss", "a ", "%", "_a", "\\", "Ω", "𝔘")
VALUES: dict[str, tuple[Any, ...]] = {
    "number": (-1, 0, 1, 7),
    "done": (True, False),
    "text": TEXTS,
    "long": TEXTS,
    "folded": TEXTS,
    "padded": TEXTS,
    "loud": TEXTS,
    "price": tuple(map(decimal.Decimal, ("0", "0.10", "1.50", "-2"))),
    "ratio": (0.1, 0.5, -1.0),
    "real": (0.1, 0.5, -1.0),
    "day": (datetime.date(2026, 1, 1), datetime.date(2026, 2, 1)),
    "moment": (
        datetime.datetime(2026, 1, 1, 12, tzinfo=UTC),
        datetime.datetime(2026, 1, 1, 13, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
        datetime.datetime(2026, 1, 1, 12, 0, 0, 1, tzinfo=UTC),
    ),
    "naive": (NAIVE, NAIVE.replace(microsecond=500)),
    "key": (uuid.UUID(int=1), uuid.UUID(int=2)),
    "colour": tuple(Colour),
    "box_id": (1, 2),
}
COMPARED = ("exact", "lt", "lte", "gt", "gte")
ORDERLESS = {"colour": ("exact",)}
TEXTUAL = ("iexact", "contains", "icontains", "startswith", "endswith")


def condition(rng: random.Random) -> Q:
    name = rng.choice([*VALUES, "box", "box__name", "box__id"])
    values = {"box": (1, 2), "box__id": (1, 2), "box__name": ("a", "é")}.get(name) or VALUES[name]
    lookups = [*ORDERLESS.get(name, COMPARED), "in", "isnull"]
    if name in ("text", "long", "folded", "padded", "loud", "box__name"):
        lookups += TEXTUAL
    lookup = rng.choice(lookups)
    if lookup == "isnull":
        value: Any = rng.choice((True, False))
    elif lookup == "in":
        value = rng.sample(values, rng.randint(0, min(2, len(values))))
    else:
        value = rng.choice(values)
    return Q(**{f"{name}__{lookup}": value})


def conditions(rng: random.Random, depth: int = 2) -> Q:
    if depth == 0 or rng.random() < 0.4:
        one = condition(rng)
    elif rng.random() < 0.5:
        one = conditions(rng, depth - 1) & conditions(rng, depth - 1)
    else:
        one = conditions(rng, depth - 1) | conditions(rng, depth - 1)
    return ~one if rng.random() < 0.3 else one


@asynccontextmanager
async def things(store: str, folder: Path, count: int) -> AsyncIterator[tuple[Any, list[Any]]]:
    """A queryset, and its rows as they were written; no value was read back from the database."""
    made = shelves.sqlite(folder, Base.metadata) if store == "sqlite" else shelves.postgres(Base.metadata)
    async with made as engine:
        if engine is None:
            pytest.skip(f"no PostgreSQL answers at {shelves.POSTGRES}; set WSACTION_TEST_POSTGRES_URL")
        sessions, rng = async_sessionmaker(engine), random.Random(7)
        queryset = SQLAlchemyQuerySet(Thing, sessions)
        async with sessions.begin() as session:
            session.add_all([Box(id=1, name="a"), Box(id=2, name="É")])
        rows = []
        for pk in range(1, count + 1):
            values = {name: rng.choice((None, *known)) for name, known in VALUES.items()}
            rows.append(await queryset.create({"id": pk, **values}))
        yield queryset, rows


@pytest.mark.parametrize("count", [30, pytest.param(SCHEDULES, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_python_never_contradicts_the_database(store: str, count: int, tmp_path: Path) -> None:
    rng, decided, undecided = random.Random(count), 0, 0
    async with things(store, tmp_path, 40) as (queryset, rows):
        known = [(row.id, queryset.to_json(queryset.values_of(row), name_of(Thing))["exact"]) for row in rows]
        for _ in range(count):
            asked = conditions(rng)
            narrowed = queryset.filter(asked)
            found = {row.id async for row in narrowed}
            for pk, values in known:
                verdict = narrowed.decide(values)
                assert verdict in (None, pk in found), (asked, values)
                decided, undecided = decided + (verdict is not None), undecided + (verdict is None)
    assert decided > undecided  # Python does decide most rows


@pytest.mark.parametrize(
    ("kind", "dialect", "held", "lookup", "value", "wanted"),
    [
        (String(), "sqlite", "é", "icontains", "É", None),
        (String(), "sqlite", "abc", "icontains", "B", True),
        (String(), "sqlite", "é", "contains", "É", False),
        (String(), "sqlite", "b", "gt", "B", True),
        (String(), "postgresql", "b", "gt", "B", None),
        (String(), "postgresql", "b", "exact", "B", False),
        (String(), "postgresql", "i", "iexact", "I", None),  # in Turkish they differ
        (String(), "postgresql", "ab", "iexact", "AB", True),
        (String(), "mysql", "b", "exact", "B", None),
        (String(), "mysql", "b", "exact", "b", True),
        (String(collation="NOCASE"), "sqlite", "x", "exact", "X", None),
        (String(collation="NOCASE"), "sqlite", "x", "in", ("x",), True),
        (String(collation="NOCASE"), "sqlite", "x", "in", (), False),
        (CHAR(3), "postgresql", "a", "exact", "a  ", None),
        (CITEXT(), "postgresql", "a", "exact", "A", None),
        (String().with_variant(CITEXT(), "postgresql"), "postgresql", "a", "exact", "A", None),
        (Loud(), "sqlite", "a", "exact", "a", None),
        (sqlalchemy.Float(), "postgresql", 0.1, "exact", 0.1, None),
        (Numeric(10, 2), "sqlite", decimal.Decimal("0.1"), "exact", decimal.Decimal("0.1"), None),
        (Numeric(10, 2), "postgresql", decimal.Decimal("0.105"), "exact", decimal.Decimal("0.11"), True),
        (JSON(), "sqlite", {"a": 1}, "exact", {"a": 1}, None),
        (sqlalchemy.Uuid(), "sqlite", uuid.UUID(int=1), "lt", uuid.UUID(int=2), None),
        (sqlalchemy.DateTime(), "mysql", NAIVE, "exact", NAIVE, None),
        (sqlalchemy.LargeBinary(), "sqlite", b"a", "exact", b"a", None),
        (sqlalchemy.Integer(), "mysql", 1, "lt", 2, True),
    ],
)
def test_column_types_limit_what_python_decides(
    kind: Any, dialect: str, held: Any, lookup: str, value: Any, wanted: bool | None
) -> None:
    assert ColumnValues(kind, dialect).verdict(held, lookup, value) is wanted


async def test_a_select_that_omits_rows_is_left_to_the_database(tmp_path: Path) -> None:
    async with things("sqlite", tmp_path, 1) as (plain, _):
        sessions = plain._sessionmaker
        for rows, narrows in (
            (select(Thing), False),
            (select(Thing).order_by(Thing.number), False),
            (select(Thing).where(Thing.done), True),
            (select(Thing).join(Thing.box), True),
        ):
            queryset = SQLAlchemyQuerySet(rows, sessions)
            assert queryset.is_narrowed is narrows
            seven = queryset.filter(number=7)
            assert seven.decide({"number": 7}) is (None if narrows else True)
            assert seven.decide({"number": 8}) is False
            assert queryset[:1].decide({}) is None
            assert seven.loads_like(queryset)
            assert not seven.loads_like(plain)
