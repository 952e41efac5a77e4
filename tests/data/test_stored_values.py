"""Values of pydantic's types in columns of every type: a written value is read back, even if drivers do not know it."""

import contextlib
import enum
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import sqlalchemy
from pydantic import (
    AnyUrl,
    BaseModel,
    ByteSize,
    HttpUrl,
    IPvAnyAddress,
    PostgresDsn,
    Secret,
    SecretBytes,
    SecretStr,
    create_model,
)
from sqlalchemy import JSON
from sqlalchemy.dialects.postgresql import ARRAY, INET, JSONB
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from tests.support import shelves
from tests.support.driving import talking
from wsaction.consumers import AsyncAPIConsumer
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.exceptions import ImproperlyConfigured, InvalidParameters
from wsaction.generics import ModelAPIActionHandler
from wsaction.querysets import FieldError, MemoryQuerySet
from wsaction.querysets._model_fields import jsonable, revealed
from wsaction.routers import SimpleRouter
from wsaction.serializers import ReadOnly


class Color(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    SMALL = 1


class Shade(str, enum.Enum):  # noqa: UP042  # as many have them
    DARK = "dark"


class Point(BaseModel):
    x: int
    at: datetime
    home: HttpUrl | None = None


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "row"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str | None]
    document: Mapped[Any] = mapped_column(JSON().with_variant(JSONB(), "postgresql"), nullable=True)
    plain_json: Mapped[Any] = mapped_column(JSON, nullable=True)
    number: Mapped[int | None]
    real: Mapped[float | None]
    amount: Mapped[Decimal | None] = mapped_column(sqlalchemy.Numeric(12, 2))
    flag: Mapped[bool | None]
    at: Mapped[datetime | None] = mapped_column(sqlalchemy.DateTime(timezone=True))
    day: Mapped[date | None]
    clock: Mapped[time | None]
    lasts: Mapped[timedelta | None]
    key: Mapped[uuid.UUID | None]
    raw: Mapped[bytes | None]
    color: Mapped[Color | None]
    word: Mapped[Any] = mapped_column(sqlalchemy.Enum("red", "blue", name="words"), nullable=True)


class Memory(BaseModel):
    """The same fields, for a `MemoryQuerySet`."""

    id: int
    text: str | None = None
    document: Any = None
    plain_json: Any = None
    number: int | None = None
    real: float | None = None
    amount: Decimal | None = None
    flag: bool | None = None
    at: datetime | None = None
    day: date | None = None
    clock: time | None = None
    lasts: timedelta | None = None
    key: uuid.UUID | None = None
    raw: bytes | None = None
    color: Color | None = None
    word: Literal["red", "blue"] | None = None


UUID = "274fc698-a61e-492b-b137-dd17a82e865f"
TEXT: list[tuple[Any, Any]] = [
    (HttpUrl, "https://example.com/"),
    (AnyUrl, "ftp://example.com/a"),
    (PostgresDsn, "postgresql://a@example.com/b"),
    (IPvAnyAddress, "10.0.0.1"),
    (IPv4Address, "10.0.0.1"),
    (IPv6Network, "fe80::/64"),
    (Path, "a/b"),
    (Color, "red"),
    (Size, 1),
    (Shade, "dark"),
    (uuid.UUID, UUID),
    (datetime, "2024-01-01T00:00:00Z"),
    (date, "2024-01-31"),
    (time, "12:30:00"),
    (timedelta, "PT1H"),
    (Decimal, "1.50"),
    (bytes, "abc"),
    (bool, True),
    (int, 7),
    (float, 1.5),
    (ByteSize, 1024),
    (Literal["a"], "a"),
    (str, "plain"),
]
DOCUMENTS: list[tuple[Any, Any]] = [
    *((dict[str, kind], {"a": value}) for kind, value in TEXT),
    (list[uuid.UUID], [UUID]),
    (set[date], ["2024-01-31"]),
    (tuple[int, Decimal], [1, "1.50"]),
    (dict[uuid.UUID, int], {UUID: 1}),
    (dict[Color, int], {"red": 1}),
    (Point, {"x": 1, "at": "2024-01-01T00:00:00Z", "home": "https://example.com/"}),
    (list[Point], [{"x": 1, "at": "2024-01-01T00:00:00Z", "home": None}]),
    (dict[str, Point], {"a": {"x": 1, "at": "2024-01-01T00:00:00Z", "home": None}}),
    (Color, "red"),
    (HttpUrl, "https://example.com/"),
    (datetime, "2024-01-01T00:00:00Z"),
    (float, 2.5),
]
OTHERS: list[tuple[str, Any, Any]] = [
    ("number", Size, 1),
    ("number", int, 5),
    ("number", Literal[3], 3),
    ("number", ByteSize, 1024),
    ("number", Decimal, "5"),
    ("real", Decimal, "1.5"),
    ("real", int, 2),
    ("amount", float, 1.5),
    ("flag", bool, True),
    ("flag", int, 1),
    ("at", datetime, "2024-01-01T00:00:00Z"),
    ("day", date, "2024-01-31"),
    ("clock", time, "12:30:00"),
    ("lasts", timedelta, "PT1H"),
    ("key", uuid.UUID, UUID),
    ("raw", bytes, "abc"),
    ("color", Color, "red"),
    ("word", Color, "red"),
    ("word", str, "blue"),
]
CASES = [
    *(("text", kind, value) for kind, value in TEXT),
    *(("document", kind, value) for kind, value in DOCUMENTS),
    *(("plain_json", kind, value) for kind, value in DOCUMENTS[-8:]),
    *OTHERS,
]


@contextlib.asynccontextmanager
async def queryset_of(kind: str, path: Path, base: Any = Base, model: Any = Row) -> AsyncIterator[Any]:
    if kind == "memory":
        yield MemoryQuerySet(Memory)
    elif kind == "sqlite":
        async with shelves.sqlite(path, base.metadata) as engine:
            sqlalchemy.event.listen(engine.sync_engine, "connect", _without_fsync)
            await engine.dispose()
            yield SQLAlchemyQuerySet(model, async_sessionmaker(engine))
    else:
        async with shelves.postgres(base.metadata) as found:
            if found is None:
                pytest.skip(f"no PostgreSQL answers at {shelves.POSTGRES}; set WSACTION_TEST_POSTGRES_URL")
            yield SQLAlchemyQuerySet(model, async_sessionmaker(found))


def _without_fsync(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA synchronous = OFF")


def handler_of(queryset: Any, field: str, kind: Any, **hooks: Any) -> Any:
    model = create_model("Model", id=(Annotated[int, ReadOnly], ...), **{field: (kind | None, None)})
    attributes = {"queryset": queryset, "serializer_class": model, **hooks}
    return type("Rows", (ModelAPIActionHandler,), attributes).as_aaah()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql"])
async def test_written_values_are_read_back(kind: str, tmp_path: Path) -> None:
    """Each column is written with each type that a serializer may use for it."""
    failed = []
    async with queryset_of(kind, tmp_path) as queryset:
        router = SimpleRouter()
        for number, (field, annotation, _) in enumerate(CASES):
            router.register(f"{number}", handler_of(queryset, field, annotation).handler_class, basename=f"r{number}")

        class Root(AsyncAPIConsumer):
            routepatterns = router.urls

        async with talking(Root.as_asgi(), debug=True) as ws:
            for number, (field, annotation, value) in enumerate(CASES):
                if (kind, field) == ("sqlite", "at"):
                    continue  # SQLite stores no time zones
                replies = [await ws.call("create", f"{number}/", {field: value})]
                key = (replies[0]["data"] or {"id": 0})["id"]
                replies.append(await ws.call("retrieve", f"{number}/{key}/"))
                replies.append(await ws.call("partial_update", f"{number}/{key}/", {field: value}))
                if [reply["data"] for reply in replies] != [{"id": key, field: value}] * 3:
                    failed.append((field, annotation, value, replies))
    assert not failed, "\n".join(map(repr, failed))


# Columns of other types whose serializer has a text: the column, the text, and the value that is read back.
TEXT_FOR_OTHERS = [
    ("number", "5", 5),
    ("amount", "1.50", Decimal("1.50")),
    ("at", "2024-01-01T00:00:00Z", datetime(2024, 1, 1, tzinfo=UTC)),
    ("day", "2024-01-31", date(2024, 1, 31)),
    ("clock", "12:30:00", time(12, 30)),
    ("lasts", "PT1H", timedelta(hours=1)),
    ("key", UUID, uuid.UUID(UUID)),
    ("raw", "abc", b"abc"),
    ("color", "red", Color.RED),
]


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql"])
async def test_text_is_converted_to_its_column_or_a_400(kind: str, tmp_path: Path) -> None:
    async with queryset_of(kind, tmp_path) as queryset:
        for field, text, value in TEXT_FOR_OTHERS:
            row = await queryset.create({field: text})
            found = getattr(await queryset.get(pk=row.id), field)
            assert (found.replace(tzinfo=UTC) if field == "at" else found) == value
            async with talking(handler_of(queryset, field, str)) as ws:
                reply = await ws.call("create", data={field: "no such thing"})
                if kind == "memory" and reply["status"] == 500:
                    continue  # the model of the row decides what it takes
                assert (reply["status"] == 400) is (field != "raw"), (field, reply)


SECRETS = [
    ("text", SecretStr, "s", "s"),
    ("text", SecretBytes, "s", "s"),
    ("raw", SecretBytes, "s", b"s"),
    ("raw", SecretStr, "s", b"s"),
    ("day", Secret[date], "2024-01-31", date(2024, 1, 31)),
    ("number", Secret[int], 7, 7),
    ("document", SecretStr, "s", "s"),
    ("document", dict[str, SecretStr], {"a": "s"}, {"a": "s"}),
    ("document", list[dict[str, SecretBytes]], [{"a": "s"}], [{"a": "s"}]),
    ("plain_json", dict[str, Secret[date]], {"a": "2024-01-31"}, {"a": "2024-01-31"}),
]


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql"])
async def test_secrets_are_stored_unmasked(kind: str, tmp_path: Path) -> None:
    async with queryset_of(kind, tmp_path) as queryset:
        for field, annotation, value, kept in SECRETS:
            async with talking(handler_of(queryset, field, annotation), "/0/", at="<int:ignored>/", debug=True) as ws:
                reply = await ws.call("create", data={field: value})
                assert reply["status"] == 201, (field, annotation, reply)
                assert reply["data"][field] != value  # a secret is shown masked
            found = getattr(await queryset.get(pk=reply["data"]["id"]), field)
            assert revealed(found) == kept or (kind == "memory" and jsonable(found) == jsonable(kept))


@pytest.mark.parametrize("annotation", [list[str], dict[str, int], set[int], Point, list[Point] | None])
async def test_a_column_that_cannot_hold_a_field_is_refused_at_mounting(annotation: Any, tmp_path: Path) -> None:
    async with queryset_of("sqlite", tmp_path) as rows:
        message = r"Rows: Row.\w+ is a column of \w+ and cannot hold a \w+; make it a JSON column, or write"
        for field in ("text", "number", "day"):
            with pytest.raises(ImproperlyConfigured, match=message):
                handler_of(rows, field, annotation)
        for field in ("document", "plain_json"):
            assert handler_of(rows, field, annotation)

        async def perform_create(self: Any, values: Any) -> Any:
            return await rows.create({"text": "its own"})

        async def perform_update(self: Any, obj: Any, values: Any) -> Any:
            return obj

        assert handler_of(rows, "text", annotation, perform_create=perform_create, perform_update=perform_update)


async def test_a_value_that_would_not_be_read_back_is_refused(tmp_path: Path) -> None:
    async with queryset_of("sqlite", tmp_path) as rows:
        with pytest.raises(FieldError, match="a text column cannot hold a list; make it a JSON column, or"):
            await rows.create({"text": ["a"]})
        with pytest.raises(InvalidParameters) as caught:
            await rows.create({"document": {"a": b"\xff"}})
        assert caught.value.errors[0]["loc"] == ["data", "document"]


class Odd(DeclarativeBase):
    pass


class Folded(sqlalchemy.TypeDecorator[str]):
    """A type that converts its values itself."""

    impl = sqlalchemy.String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value.get_secret_value().upper()


class OddRow(Odd):
    __tablename__ = "odd"
    id: Mapped[int] = mapped_column(primary_key=True)
    pickled: Mapped[Any] = mapped_column(sqlalchemy.PickleType, nullable=True)
    folded: Mapped[Any] = mapped_column(Folded, nullable=True)
    same: Mapped[Any] = mapped_column(sqlalchemy.LargeBinary, nullable=True)


async def test_columns_of_custom_types_are_left_alone(tmp_path: Path) -> None:
    async with queryset_of("sqlite", tmp_path, Odd, OddRow) as rows:
        row = await rows.create(
            {"pickled": {"a": date(2024, 1, 31)}, "folded": SecretStr("s"), "same": bytearray(b"b")}
        )
        row = await rows.get(pk=row.id)
        assert (row.pickled, row.folded, row.same) == ({"a": date(2024, 1, 31)}, "S", b"b")


class Native(DeclarativeBase):
    pass


class NativeRow(Native):
    __tablename__ = "native"
    id: Mapped[int] = mapped_column(primary_key=True)
    urls: Mapped[Any] = mapped_column(ARRAY(sqlalchemy.Text), nullable=True)
    grid: Mapped[Any] = mapped_column(ARRAY(sqlalchemy.Integer, dimensions=2), nullable=True)
    address: Mapped[Any] = mapped_column(INET, nullable=True)


async def test_arrays_and_addresses_of_postgresql(tmp_path: Path) -> None:
    cases = [
        ("urls", list[HttpUrl], ["https://example.com/"]),
        ("urls", set[Color], ["red"]),
        ("urls", list[Path], ["a/b"]),
        ("grid", list[list[Size]], [[1, 1], [1, 1]]),
        ("address", IPvAnyAddress, "10.0.0.1"),
        ("address", IPv4Address, "10.0.0.1"),
    ]
    async with queryset_of("postgresql", tmp_path, Native, NativeRow) as queryset:
        for number, (field, annotation, value) in enumerate(cases, 1):
            async with talking(
                handler_of(queryset, field, annotation), f"/{number}/", at="<int:pk>/", debug=True
            ) as ws:
                for action in ("create", "retrieve"):
                    reply = await ws.call(action, data={field: value})
                    assert reply["data"] == {"id": number, field: value}, (annotation, reply)


class Plain(DeclarativeBase):
    pass


class Made(MappedAsDataclass, Plain):
    __tablename__ = "made"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    title: Mapped[str]
    note: Mapped[str | None] = mapped_column(init=False, default="none")
    count: Mapped[int] = mapped_column(init=False, server_default="0")


class Constructed(Plain):
    __tablename__ = "constructed"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    note: Mapped[str | None]
    count: Mapped[int] = mapped_column(server_default="0")

    def __init__(self, title: str) -> None:
        self.title = title


@pytest.mark.parametrize("model", [Made, Constructed])
async def test_attributes_that_a_constructor_does_not_take_are_written(model: Any, tmp_path: Path) -> None:
    async with queryset_of("sqlite", tmp_path, Plain, model) as rows:
        made = await rows.create({"title": "a", "note": "b", "count": 3})
        assert (made.title, made.note, made.count) == ("a", "b", 3)
        assert (await rows.create({"title": "a"})).count == 0
        assert (await rows.update(made, {"note": None})).note is None
