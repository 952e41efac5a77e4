"""`wsaction.contrib.sqlalchemy`: behaviour beyond the contract, and many sockets at once on SQLite."""

import asyncio
import contextlib
import gc
import json
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ForeignKey, event, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    contains_eager,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
)

from tests.conftest import Server
from tests.support import shelves
from tests.support.driving import ask, talking
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.contrib.sqlalchemy import _session as sessions
from wsaction.decorators import async_action
from wsaction.exceptions import APIError, Busy, Conflict, ImproperlyConfigured, NotFound
from wsaction.generics import ModelAPIActionHandler
from wsaction.mixins import OutputPages
from wsaction.querysets import FieldError, InvalidLookup, Q
from wsaction.routing import path
from wsaction.transactions import current_unit, unit_of_work


class Base(DeclarativeBase):
    pass


class Board(Base):
    __tablename__ = "board"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    cards: Mapped[list["Card"]] = relationship(back_populates="board", passive_deletes="all")


class Card(Base):
    __tablename__ = "card"
    __table_args__ = (sqlalchemy.CheckConstraint("n < 1000"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(unique=True)
    n: Mapped[int] = mapped_column(server_default="0")
    changed: Mapped[int] = mapped_column(default=0, onupdate=sqlalchemy.text("changed + 1"))
    board_id: Mapped[int | None] = mapped_column(ForeignKey("board.id"))
    board: Mapped[Board | None] = relationship(back_populates="cards")


class Folder(Base):
    __tablename__ = "folder"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    above_id: Mapped[int | None] = mapped_column(ForeignKey("folder.id"))
    above: Mapped["Folder | None"] = relationship(remote_side="Folder.id", back_populates="below")
    below: Mapped[list["Folder"]] = relationship(back_populates="above")


class Versioned(Base):
    __tablename__ = "versioned"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}


class Pair(Base):
    __tablename__ = "pair"
    left: Mapped[int] = mapped_column(primary_key=True)
    right: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    async with shelves.sqlite(tmp_path, Base.metadata) as engine:
        event.listen(engine.sync_engine, "connect", _with_foreign_keys)
        await engine.dispose()
        yield engine


def _with_foreign_keys(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA foreign_keys = ON")


def _without_fsync(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture
def cards(engine: AsyncEngine) -> SQLAlchemyQuerySet[Card]:
    return SQLAlchemyQuerySet(Card, async_sessionmaker(engine))


@pytest.fixture
def boards(engine: AsyncEngine) -> SQLAlchemyQuerySet[Board]:
    return SQLAlchemyQuerySet(Board, async_sessionmaker(engine))


# ------------------------------------------------------------------------------------------------- declarations
@pytest.mark.parametrize(
    "source",
    [int, "Card", Card.id, select(Card.id), select(Card, Board), select(sqlalchemy.literal(1)), BaseModel, None],
    ids=str,
)
def test_only_a_mapped_class_or_a_select_is_accepted(source: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="takes a mapped class, or a select"):
        SQLAlchemyQuerySet(source, async_sessionmaker())


@pytest.mark.parametrize("source", [select(Card).limit(5), select(Card).offset(5), select(Card).fetch(5)], ids=str)
def test_a_select_with_limit_or_offset_is_refused(source: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"without LIMIT and OFFSET: each Card .* slice the queryset"):
        SQLAlchemyQuerySet(source, async_sessionmaker())


def test_only_an_async_sessionmaker_is_accepted() -> None:
    sessionmaker: Any = create_async_engine("sqlite+aiosqlite:///none.db")
    with pytest.raises(ImproperlyConfigured, match=r"takes an async_sessionmaker, as in async_sessionmaker\(engine\)"):
        SQLAlchemyQuerySet(Card, sessionmaker)


def test_a_composite_key_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"Pair has the primary key \(left, right\), and a queryset needs"):
        SQLAlchemyQuerySet(Pair, async_sessionmaker())


def test_without_sqlalchemy_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['sqlalchemy'] = None; import wsaction.contrib.sqlalchemy"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert 'ImportError: SQLAlchemyQuerySet needs SQLAlchemy: pip install "wsaction[sqlalchemy]"' in ran.stderr


def test_sessions_may_be_bound_later() -> None:
    SQLAlchemyQuerySet(Card, async_sessionmaker()).filter(id=2**31 - 1)
    with pytest.raises(InvalidLookup, match="expected a number from -2147483648 to 2147483647"):
        SQLAlchemyQuerySet(Card, async_sessionmaker()).filter(id=2**31)


# ------------------------------------------------------------------------------------------------- relationships
async def test_conditions_of_one_call_apply_to_one_related_object(cards: Any, boards: Any) -> None:
    one, two = await boards.create({"name": "one"}), await boards.create({"name": "two"})
    await cards.create({"title": "a", "n": 1, "board_id": one.id})
    await cards.create({"title": "b", "n": 2, "board": one})
    await cards.create({"title": "c", "n": 1})

    async def names(*conditions: Q, **lookups: Any) -> list[str]:
        return [board.name async for board in boards.filter(*conditions, **lookups)]

    assert await names(cards__title="a", cards__n=1) == ["one"]
    assert await names(cards__title="a", cards__n=2) == []
    assert await names(Q(cards__title="a"), Q(cards__n=2)) == ["one"]
    assert await names(cards__n__gt=0) == ["one"]  # once, although two cards match
    assert await names(Q(cards__title="z") | Q(cards__n=2)) == ["one"]
    assert await names(cards=None) == ["two"]
    assert await names(cards=(await cards.get(title="b"))) == ["one"]
    assert await names(cards__board__cards__title="b") == ["one"]
    assert [card.title async for card in cards.exclude(board__cards__title="a")] == ["c"]
    assert [card.title async for card in cards.filter(board__in=[one, two.id])] == ["a", "b"]
    with pytest.raises(FieldError, match="Board cannot be ordered by cards__title: cards is not a single object"):
        await boards.order_by("cards__title").first()


async def test_relations_of_the_select_are_loaded_after_writing(engine: AsyncEngine, boards: Any) -> None:
    one, two = await boards.create({"name": "one"}), await boards.create({"name": "two"})
    cards = SQLAlchemyQuerySet(select(Card).options(joinedload(Card.board)), async_sessionmaker(engine))
    card = await cards.create({"title": "a", "board_id": one.id})
    assert (card.board and card.board.name, card.n, card.changed) == ("one", 0, 0)
    card = await cards.update(card, {"board_id": two.id})
    assert (card.board and card.board.name, card.changed) == ("two", 1)
    full = SQLAlchemyQuerySet(select(Board).options(selectinload(Board.cards)), async_sessionmaker(engine))
    assert [len(board.cards) async for board in full.order_by("-id")] == [1, 0]
    narrow = SQLAlchemyQuerySet(select(Card).where(Card.n > 5).order_by(Card.n.desc()), async_sessionmaker(engine))
    outside = await narrow.create({"title": "b"})  # the select leaves it out
    assert (outside.n, await narrow.count(), await cards.count()) == (0, 0, 2)
    for n, title in ((7, "c"), (8, "d")):
        await narrow.create({"title": title, "n": n})
    assert [card.n async for card in narrow] == [8, 7]
    assert [card.n async for card in narrow.order_by("n")[1:]] == [8]
    with pytest.raises(NotFound):
        await narrow.update(outside, {"n": 1})


async def test_relations_are_loaded_for_rows_outside_the_select(engine: AsyncEngine, boards: Any) -> None:
    one, two = await boards.create({"name": "one"}), await boards.create({"name": "two"})
    some = select(Card).options(joinedload(Card.board)).where(Card.n > 5)
    cards = SQLAlchemyQuerySet(some, async_sessionmaker(engine))
    outside = await cards.create({"title": "a", "board_id": one.id})
    assert getattr(outside.board, "name", None) == "one"
    card = await cards.create({"title": "b", "board_id": one.id, "n": 6})
    card = await cards.update(card, {"board_id": two.id, "n": 5})
    assert getattr(card.board, "name", None) == "two"
    joined = select(Card).join(Card.board).options(contains_eager(Card.board))
    cards = SQLAlchemyQuerySet(joined.where(Board.name == "one"), async_sessionmaker(engine))
    async with unit_of_work():
        card = await cards.update(await cards.get(title="a"), {"board_id": None})  # now the inner join leaves it out
    assert card.board is None


async def test_a_row_may_refer_to_itself(engine: AsyncEngine) -> None:
    loading = select(Folder).options(selectinload(Folder.above), selectinload(Folder.below))
    folders = SQLAlchemyQuerySet(loading, async_sessionmaker(engine))
    top = await folders.create({"name": "top"})
    sub = await folders.create({"name": "sub", "above_id": top.id})
    assert (sub.above and sub.above.name, sub.below) == ("top", [])
    top = await folders.update(top, {"above_id": top.id})
    assert (top.above, {node.name for node in top.below}) == (top, {"top", "sub"})


async def test_a_path_is_joined_once_for_many_orders(cards: Any, boards: Any) -> None:
    for name in ("a", "b"):
        await cards.create({"title": name, "board": await boards.create({"name": name})})
    ordered = cards.order_by(*["-board__name", "board__id"] * 70)  # SQLite joins 64 tables at most
    assert [card.title async for card in ordered] == ["b", "a"]


class BoardOut(BaseModel):
    name: str


class CardOut(BaseModel):
    title: str
    board: BoardOut | None


@pytest.mark.parametrize("action", ["retrieve", "list"])
async def test_a_relation_that_is_not_loaded_is_an_error(engine: AsyncEngine, action: str) -> None:
    cards = SQLAlchemyQuerySet(Card, async_sessionmaker(engine))
    await SQLAlchemyQuerySet(Board, async_sessionmaker(engine)).create({"name": "one"})
    await cards.create({"title": "a", "board_id": 1})
    view = type("Cards", (ModelAPIActionHandler,), {"queryset": cards, "serializer_class": CardOut}).as_aaah()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # SQLAlchemy leaves a coroutine that is never awaited
        reply = await ask(view, action, debug=True, pk=1)
        gc.collect()
    assert "select(Card).options(selectinload(Card.board))" in reply["errors"][0]["ctx"]["exception"]


async def test_nested_data_for_a_relation_is_an_error(cards: Any, boards: Any) -> None:
    with pytest.raises(FieldError, match=r"Card.board takes objects of Board, not a dict; write nested data in perf"):
        await cards.create({"title": "a", "board": {"name": "one"}})
    with pytest.raises(FieldError, match=r"Board.cards takes objects of Card, not a dict"):
        await boards.create({"name": "a", "cards": [{"title": "one"}]})


# ------------------------------------------------------------------------------------------------- writing
async def test_an_sql_expression_may_be_a_value(cards: Any) -> None:
    card = await cards.create({"title": "a"})
    card = await cards.update(card, {"n": Card.n + 5})
    assert (card.n, card.changed) == (5, 1)


async def test_constraint_errors_show_no_sql(cards: Any, boards: Any) -> None:
    board = await boards.create({"name": "one"})
    card = await cards.create({"title": "a", "board_id": board.id})
    for values, msg, ctx in (
        ({"title": "a"}, "There is already a Card with this title.", {"fields": ["title"]}),
        ({"title": None}, "This needs a value: title.", {"fields": ["title"]}),
        (
            {"title": "b", "board_id": 99},
            "This refers to an object that does not exist, or another object refers to this one.",
            None,
        ),
        ({"title": "b", "n": 1000}, "This conflicts with what is already there.", None),
    ):
        with pytest.raises(Conflict) as caught:
            await cards.create(values)
        assert (caught.value.msg, caught.value.ctx) == (msg, ctx)
    with pytest.raises(Conflict, match="another object refers to this one"):
        await boards.delete(board)
    async with unit_of_work():
        await cards.update(card, {"n": 1})
        with pytest.raises(Conflict, match="another object refers to this one"):
            await boards.delete(board)
        assert (card.board_id, board.name) == (1, "one")
    assert (await cards.get()).n == 1


async def test_a_row_deleted_meanwhile_is_not_found(cards: Any) -> None:
    card = await cards.create({"title": "a"})
    other = await cards.create({"title": "b"})
    async with unit_of_work():
        held = await cards.get(pk=card.id)
        async with cards.session() as session:
            await session.execute(sqlalchemy.delete(Card), execution_options={"synchronize_session": False})
        with pytest.raises(NotFound):
            await cards.update(held, {"n": 1})
        assert held.title == "a"
    async with unit_of_work():
        with pytest.raises(NotFound):
            await cards.update(other, {"n": 1})


async def test_a_version_changed_meanwhile_is_a_conflict(engine: AsyncEngine) -> None:
    rows = SQLAlchemyQuerySet(Versioned, async_sessionmaker(engine))
    row = await rows.create({"title": "a"})
    for write in ("update", "delete"):
        async with unit_of_work():
            held = await rows.get(pk=row.id)
            await asyncio.create_task(rows.update(row, {"title": write}), context=Context())
            with pytest.raises(Conflict, match="This Versioned was changed meanwhile; load it again"):
                await (rows.update(held, {"title": "mine"}) if write == "update" else rows.delete(held))
    assert [row.title async for row in rows] == ["delete"]


async def test_a_unit_has_one_session(cards: Any) -> None:
    async with cards.session() as session:
        session.add(Card(title="by itself"))
    async with unit_of_work() as unit:
        async with cards.session() as session:
            session.add(Card(title="a"))
            assert await cards.count() == 2  # the same task may read within the block
        async with cards.session() as again:
            assert again is session
        await cards.create({"title": "b"})
        (await cards.get(title="b")).n = 7  # the unit would commit it
        await unit.rollback()
        unit.closed = False
        unit._resources.clear()
    assert [card.title async for card in cards] == ["by itself"]


async def test_attributes_set_on_an_object_are_committed(cards: Any) -> None:
    await cards.create({"title": "a"})
    async with unit_of_work():
        (await cards.get(title="a")).n = 7
        assert await cards.filter(n=7).exists()
    assert (await cards.get(title="a")).n == 7


async def test_a_session_may_not_end_the_unit_that_lends_it(cards: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Consumer(AsyncAPIConsumer):
        @async_action
        async def nested(self) -> None:
            async with cards.session() as session:
                async with self.unit_of_work():
                    await cards.create({"title": "a"})
                session.add(Card(title="b"))

    assert (await ask(Consumer.as_asgi(), "nested"))["status"] == 200
    assert await cards.count() == 2


async def test_tasks_of_a_unit_take_turns(cards: Any) -> None:
    async with unit_of_work():
        await asyncio.gather(*(cards.create({"title": str(number)}) for number in range(20)))
        assert await asyncio.gather(*(cards.count() for _ in range(5))) == [20] * 5
    assert await cards.count() == 20


async def test_tasks_that_wait_for_a_closed_session_get_their_own(cards: Any) -> None:
    class Consumer(AsyncAPIConsumer):
        @async_action
        async def change(self) -> None:
            await cards.create({"title": "a"})
            held = current_unit()._resources[cards._sessionmaker.kw["bind"]]  # type: ignore[union-attr]
            await held.lock.acquire()
            waiting.append(asyncio.create_task(cards.create({"title": "later"})))
            waiting.append(asyncio.create_task(cards.create({"title": "last"})))
            await asyncio.sleep(0)  # both have joined the unit and wait for its session
            asyncio.get_running_loop().call_soon(held.lock.release)
            raise APIError(418, "teapot", "no")

    waiting: list[asyncio.Task[Any]] = []
    assert (await ask(Consumer.as_asgi(), "change"))["status"] == 418
    await asyncio.gather(*waiting)
    await cards.create({"title": "b"})  # the write lock is free
    assert {card.title async for card in cards} == {"later", "last", "b"}


async def test_errors_in_sql_are_raised(cards: Any) -> None:
    with pytest.raises(OperationalError, match="no such table"):
        await _execute(cards, "SELECT * FROM nowhere")
    assert await cards.count() == 0


async def _execute(cards: Any, sql: str) -> None:
    async with cards.session() as session:
        await session.execute(sqlalchemy.text(sql))


async def test_no_free_connection_is_busy(tmp_path: Path) -> None:
    async with shelves.sqlite(tmp_path, Base.metadata, pool_size=1, max_overflow=0, pool_timeout=0.05) as engine:
        cards = SQLAlchemyQuerySet(Card, async_sessionmaker(engine))
        async with unit_of_work():
            await cards.count()
            with pytest.raises(Busy, match="No connection to the database was free"):
                await _apart(cards.create({"title": "a"}))
            await cards.create({"title": "b"})
        await cards.create({"title": "c"})


async def test_waiting_writers_hold_no_connection(tmp_path: Path) -> None:
    async with shelves.sqlite(tmp_path, Base.metadata, pool_size=2, max_overflow=0, pool_timeout=20) as engine:
        cards = SQLAlchemyQuerySet(Card, async_sessionmaker(engine))

        async def read_and_write(number: int) -> None:
            async with unit_of_work():
                await cards.count()
                await cards.create({"title": f"read {number}"})

        works = [
            work for number in range(10) for work in (read_and_write(number), cards.create({"title": str(number)}))
        ]
        await asyncio.gather(*works)
        assert await cards.count() == 20


async def test_objects_are_readable_after_their_unit(cards: Any) -> None:
    class Shown(BaseModel):
        model_config = ConfigDict(from_attributes=True)
        id: int
        title: str

    class Consumer(AsyncAPIConsumer):
        @async_action
        async def add(self, title: str) -> Shown:
            return await cards.create({"title": title})

        @async_action
        async def add_two(self) -> None:
            await cards.create({"title": "one"})
            await cards.create({"title": "a"})

    assert (await ask(Consumer.as_asgi(), "add", title="a"))["data"] == {"id": 1, "title": "a"}
    reply = await ask(Consumer.as_asgi(), "add_two")
    assert reply["errors"] == [
        {"type": "conflict", "msg": "There is already a Card with this title.", "ctx": {"fields": ["title"]}}
    ]
    assert [card.title async for card in cards] == ["a"]


async def test_a_conflict_at_the_commit_is_the_reply(tmp_path: Path) -> None:
    class Later(DeclarativeBase):
        pass

    class Child(Later):
        __tablename__ = "child"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int | None] = mapped_column(ForeignKey("child.id", deferrable=True, initially="DEFERRED"))

    async with shelves.sqlite(tmp_path, Later.metadata) as engine:
        event.listen(engine.sync_engine, "connect", _with_foreign_keys)
        await engine.dispose()
        children = SQLAlchemyQuerySet(Child, async_sessionmaker(engine))

        class Consumer(AsyncAPIConsumer):
            @async_action
            async def add(self) -> int:
                child = await children.create({"parent_id": 99})
                return int(child.id)

        assert (await ask(Consumer.as_asgi(), "add"))["status"] == 409
        assert await children.count() == 0


# ------------------------------------------------------------------------------------------------- SQLite
async def test_waiting_for_the_write_lock_times_out(cards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "QUEUE_TIMEOUT", 0.01)
    async with unit_of_work():
        await cards.create({"title": "a"})
        with pytest.raises(Busy, match="The database is busy with other changes; nothing was done"):
            await _apart(cards.create({"title": "b"}))
        assert await _apart(cards.count()) == 0
    await cards.create({"title": "b"})


async def test_a_lock_of_another_process_is_busy(tmp_path: Path) -> None:
    async with shelves.sqlite(tmp_path, Base.metadata, connect_args={"timeout": 0}) as engine:
        cards = SQLAlchemyQuerySet(Card, async_sessionmaker(engine))
        with contextlib.closing(sqlite3.connect(str(engine.url.database), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Busy):
                await cards.create({"title": "a"})
            other.execute("ROLLBACK")
        await cards.create({"title": "a"})


async def test_an_engine_with_one_connection_has_one_unit_at_a_time() -> None:
    engine = create_async_engine("sqlite+aiosqlite:///:memory:")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    cards = SQLAlchemyQuerySet(Card, async_sessionmaker(engine))
    await cards.create({"title": "a"})
    begun, seen = asyncio.Event(), list[int]()

    async def rolled_back() -> None:
        with contextlib.suppress(ZeroDivisionError):
            async with unit_of_work():
                await cards.create({"title": "b"})
                begun.set()
                await asyncio.sleep(0)
                raise ZeroDivisionError

    async def reading() -> None:
        await begun.wait()
        seen.append(await cards.count())

    await asyncio.gather(rolled_back(), reading())
    assert seen == [1]
    await engine.dispose()


async def test_a_cancelled_action_leaks_no_connection(engine: AsyncEngine, cards: Any) -> None:
    reached = asyncio.Event()

    class Consumer(AsyncAPIConsumer):
        @async_action
        async def change(self) -> None:
            await cards.create({"title": "a"})
            reached.set()
            while True:  # the cancellation arrives anywhere in here
                await cards.get(title="a")

    async with talking(Consumer.as_asgi()) as ws, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(ws.call("change", request_id=1))
        await reached.wait()
        assert (await ws.call("$cancel", data=1))["status"] == 200
        assert (await waiting)["status"] == 499
        await ws.send_json({"action": "change"})
    assert await cards.count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("ordering", [(), ("board__name",)], ids=["by place", "by number"])
async def test_a_streamed_list_holds_no_connection_between_pages(
    engine: AsyncEngine, cards: Any, boards: Any, ordering: tuple[str, ...]
) -> None:
    async with unit_of_work():
        board = await boards.create({"name": "a"})
        for number in range(20):
            await cards.create({"title": f"card {number}", "board_id": board.id})
    pool: Any = engine.pool
    held: list[tuple[int, int]] = []

    class Title(BaseModel):
        title: str

    class Cards(ModelAPIActionHandler):
        queryset = cards.order_by(*ordering)
        serializer_class = Title

        def serialize_many(self, objs: Any) -> Any:
            assert pool.checkedout() == 1  # the connection of this step
            return super().serialize_many(objs)

        async def list_pages(self) -> OutputPages:
            async for page in super().list_pages():
                yield page
                gc.collect()
                held.append((pool.checkedout(), sum(type(obj) is Card for obj in gc.get_objects())))

    async with talking(Cards.as_aaah()) as ws:
        await ws.send_json({"action": "list", "route": "?page_size=5", "stream": True})
        while (await ws.receive_json())["status"] == 206:
            pass
    assert len(held) == 4
    assert {connections for connections, _ in held} == {0}
    assert max(rows for _, rows in held) <= 10  # this page, and the one before


async def _apart(work: Any) -> Any:
    """Runs work outside of the current unit of work."""
    import contextvars

    return await asyncio.create_task(work, context=contextvars.Context())


# ------------------------------------------------------------------------------------------------- many sockets
SOCKETS, UPDATES = 20, 10


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with one card that all sockets change, and one card for each socket."""
    file = tmp_path / "cards.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{file}")
    Base.metadata.create_all(engine)
    with sqlalchemy.orm.Session(engine) as session:
        session.add_all([Card(title=f"card {number}", n=0) for number in range(SOCKETS + 1)])
        session.commit()
    engine.dispose()
    return file


@pytest.mark.slow
@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
async def test_200_updates_from_20_sockets(
    database: Path, journal: str, serve: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
    engine = create_async_engine(f"sqlite+aiosqlite:///{database}", pool_size=8, max_overflow=4)
    event.listen(engine.sync_engine, "connect", _without_fsync)
    cards = SQLAlchemyQuerySet(Card, async_sessionmaker(engine))

    class Consumer(AsyncAPIConsumer):
        @async_action
        async def bump(self, pk: int, fail: bool = False) -> int:
            own = await cards.get(pk=pk)
            await cards.update(await cards.get(pk=1), {"n": Card.n + 1})
            changed = await cards.update(own, {"n": own.n + 1})
            if fail:
                raise APIError(418, "teapot", "no")
            return int(changed.n)

        @async_action
        async def checked_out(self) -> int:
            return engine.pool.checkedout()  # type: ignore[attr-defined]

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        await engine.dispose()

    server = serve(WSAction([path("ws/", Consumer.as_asgi())], lifespan=lifespan))

    async def one(number: int) -> list[dict[str, Any]]:
        async with server.connect("/ws/") as ws:
            for update in range(UPDATES):
                await ws.send(json.dumps({"action": "bump", "pk": number + 2, "request_id": update}))
                await ws.send(json.dumps({"action": "bump", "pk": number + 2, "fail": True}))
            return [json.loads(await ws.recv()) for _ in range(2 * UPDATES)]

    replies = [reply for batch in await asyncio.gather(*map(one, range(SOCKETS))) for reply in batch]
    assert {reply["status"] for reply in replies if "request_id" in reply} == {200}
    assert {reply["errors"][0]["type"] for reply in replies if "request_id" not in reply} == {"teapot"}
    assert "locked" not in caplog.text
    async with server.connect("/ws/") as ws:
        await ws.send('{"action": "checked_out"}')
        assert json.loads(await ws.recv())["data"] == 0
    with contextlib.closing(sqlite3.connect(database)) as connection:
        kept = [n for (n,) in connection.execute("SELECT n FROM card ORDER BY id")]
    assert kept == [SOCKETS * UPDATES] + [UPDATES] * SOCKETS
