"""A COMMIT whose answer is lost, on PostgreSQL and SQLite: the writer gets `outcome_unknown`, and subscribers a
`$resync`.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import sqlalchemy
from pydantic import BaseModel
from sqlalchemy import ForeignKey, event
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.support import shelves
from tests.support.driving import talking
from wsaction._events import publish as publishing
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.decorators import async_action
from wsaction.generics import ModelAPIActionHandler
from wsaction.querysets import MemoryQuerySet
from wsaction.serializers import ReadOnly
from wsaction.subscriptions import SubscribeMixin
from wsaction.transactions import join_unit


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    above_id: Mapped[int | None] = mapped_column(ForeignKey("item.id", deferrable=True, initially="DEFERRED"))


class ItemOut(BaseModel):
    id: Annotated[int, ReadOnly]
    title: str
    above_id: int | None = None


class Note(BaseModel):
    id: int
    text: str


def handler_of(queryset: Any, notes: Any = None, outcomes: list[str] | None = None) -> Any:
    class Items(SubscribeMixin, ModelAPIActionHandler):
        serializer_class = ItemOut

        @async_action
        async def rename(self, title: str) -> None:
            item = await self.get_object()
            await self.get_queryset().update(item, {"title": title})
            await self.publish("renamed", title)
            if notes is not None:
                await notes.create({"text": title})
            unit = join_unit()
            assert unit is not None
            assert outcomes is not None
            unit.on_commit(lambda: outcomes.append("committed"), if_unknown=lambda: outcomes.append("unknown"))

    Items.queryset = queryset
    return Items.as_aaah()


class CutConnection:
    """A proxy between the app and PostgreSQL; ``cut`` says where it cuts the connection at the next COMMIT."""

    cut: str | None = None

    def __init__(self, host: str, port: int) -> None:
        self.address, self.tasks = (host, port), set[asyncio.Task[None]]()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(*self.address)
        silenced = asyncio.Event()

        async def forward_answers() -> None:
            while data := await upstream_reader.read(65_536):
                if silenced.is_set():
                    writer.transport.abort()
                    return
                writer.write(data)
            writer.close()

        answers = asyncio.create_task(forward_answers())
        self.tasks.add(answers)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                if self.cut is not None and b"COMMIT" in data:
                    how, self.cut = self.cut, None
                    silenced.set()
                    if how != "after":
                        writer.transport.abort()
                    if how == "before":
                        break
                    if how == "late":
                        await asyncio.sleep(0.2)  # the delay of the network
                upstream_writer.write(data)
        upstream_writer.close()


@contextlib.asynccontextmanager
async def postgres() -> AsyncIterator[tuple[AsyncEngine, CutConnection]]:
    """An engine whose connections go through a `CutConnection`; skips the test if no server answers."""
    async with shelves.postgres(Base.metadata) as direct:
        if direct is None:
            pytest.skip(f"no PostgreSQL answers at {shelves.POSTGRES}; set WSACTION_TEST_POSTGRES_URL")
        async with direct.connect() as connection:
            schema = await connection.scalar(sqlalchemy.text("SHOW search_path"))
        url = direct.url
        proxy = CutConnection(url.host or "127.0.0.1", url.port or 5432)
        async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server:
            engine = create_async_engine(
                url.set(host="127.0.0.1", port=server.sockets[0].getsockname()[1]),
                connect_args={"server_settings": {"search_path": schema}},
            )
            try:
                yield engine, proxy
            finally:
                await engine.dispose()


@pytest.mark.parametrize("how", ["after", "before", "late"])
async def test_postgresql_never_answers_a_commit(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "LOST_COMMIT_DELAY", 0.5)
    async with postgres() as (engine, proxy):
        items, outcomes = SQLAlchemyQuerySet(Item, async_sessionmaker(engine)), list[str]()
        await items.create({"title": "old"})
        async with talking(handler_of(items, outcomes=outcomes), "/1/", at="<int:pk>/") as ws:
            assert (await ws.call("subscribe"))["status"] == 200
            proxy.cut = how
            reply = await ws.call("rename", title="new")
            assert (reply["status"], reply["errors"][0]["type"]) == (500, "outcome_unknown")
            assert (await ws.event())["event"] == "$resync"
            if how == "late":  # the first reload may have read the old state
                assert (await ws.event())["event"] == "$resync"
            assert outcomes == ["unknown"]
            assert (await items.get(pk=1)).title == ("old" if how == "before" else "new")
            assert (await ws.call("rename", title="newer"))["status"] == 200
            assert (await ws.event("renamed"))["data"] == "newer"


async def test_a_generic_update_whose_commit_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async with postgres() as (engine, proxy):
        items = SQLAlchemyQuerySet(Item, async_sessionmaker(engine))
        await items.create({"title": "old"})
        async with talking(handler_of(items), "/1/", at="<int:pk>/") as ws:
            await ws.call("subscribe")
            proxy.cut = "after"
            reply = await ws.call("partial_update", data={"title": "new"})
            assert reply["errors"][0]["type"] == "outcome_unknown"
            assert (await ws.event())["event"] == "$resync"
            assert (await ws.call("retrieve"))["data"]["title"] == "new"


async def test_a_backend_terminated_before_commit_is_unavailable() -> None:
    """PostgreSQL reports the end before it is asked to commit."""
    async with postgres() as (engine, _):
        items = SQLAlchemyQuerySet(Item, async_sessionmaker(engine))
        await items.create({"title": "old"})

        class Items(SubscribeMixin, ModelAPIActionHandler):
            queryset, serializer_class = items, ItemOut

            @async_action
            async def rename(self) -> None:
                await self.perform_update(await self.get_object(), {"title": "new"})
                async with items.session() as session:
                    pid = await session.scalar(sqlalchemy.text("SELECT pg_backend_pid()"))
                async with engine.connect() as other:
                    await other.execute(sqlalchemy.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
                await items.count()

        async with talking(Items.as_aaah(), "/1/", at="<int:pk>/") as ws:
            await ws.call("subscribe")
            reply = await ws.call("rename")
            assert (reply["status"], reply["errors"][0]["type"]) == (503, "database_unavailable")
            assert (await ws.call("retrieve"))["data"]["title"] == "old"
            await ws.nothing()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_commit_refused_by_a_constraint_is_a_conflict(kind: str, tmp_path: Path) -> None:
    """A constraint that is deferred to the commit: the writer gets the error, and nobody gets an event."""
    async with contextlib.AsyncExitStack() as stack:
        if kind == "sqlite":
            engine = await stack.enter_async_context(shelves.sqlite(tmp_path, Base.metadata))
            event.listen(engine.sync_engine, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys = ON"))
            await engine.dispose()
        else:
            engine, _ = await stack.enter_async_context(postgres())
        items = SQLAlchemyQuerySet(Item, async_sessionmaker(engine))
        await items.create({"title": "old"})
        ws = await stack.enter_async_context(talking(handler_of(items), "/1/", at="<int:pk>/"))
        await ws.call("subscribe")
        reply = await ws.call("partial_update", data={"above_id": 99})
        assert (reply["status"], reply["errors"][0]["type"]) == (409, "conflict")
        await ws.call("partial_update", data={"title": "new"})
        assert (await ws.event())["data"]["title"] == "new"  # the first event


async def _swallow_error(items: Any, session: Any, how: str) -> None:
    """An application that uses its session in this way, catches the error, and goes on."""
    if how == "commit":
        await session.commit()
    try:
        await session.execute(sqlalchemy.text("SELECT nothing"))
    except sqlalchemy.exc.DBAPIError:
        if how == "close":
            await session.close()
        elif how == "rollback":
            await session.rollback()
            await items.create({"title": "another"})


@pytest.mark.parametrize(
    ("kind", "how", "message"),
    [
        ("postgresql", "caught", r"begin_nested\(\)"),
        ("postgresql", "rollback", "dropped"),
        ("sqlite", "rollback", "dropped"),
        ("sqlite", "close", "dropped"),
        ("sqlite", "commit", "the unit commits"),
    ],
)
async def test_a_unit_whose_session_rolled_back_fails_and_is_silent(
    kind: str, how: str, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """PostgreSQL answers COMMIT with ROLLBACK after a failed statement; the application may also end the transaction of
    the unit.
    """
    async with contextlib.AsyncExitStack() as stack:
        if kind == "sqlite":
            engine = await stack.enter_async_context(shelves.sqlite(tmp_path, Base.metadata))
        else:
            engine, _ = await stack.enter_async_context(postgres())
        items = SQLAlchemyQuerySet(Item, async_sessionmaker(engine))

        class Items(SubscribeMixin, ModelAPIActionHandler):
            queryset, serializer_class = items, ItemOut

            @async_action
            async def add(self, within: bool) -> None:
                async with items.session() as session:
                    if within:
                        async with items.session():
                            await self.perform_create({"title": "within"})
                        await _swallow_error(items, session, how)
                if not within:
                    await self.perform_create({"title": "before"})
                    async with items.session() as session:
                        await _swallow_error(items, session, how)

        async with talking(Items.as_aaah()) as ws:
            await ws.call("subscribe")
            for within in (True, False):
                assert (await ws.call("add", within=within))["status"] == 500
                assert re.search(message, caplog.text)
                caplog.clear()
            assert await items.count() == 0
            await ws.call("create", data={"title": "new"})
            assert (await ws.event())["data"]["title"] == "new"  # the first event


@pytest.mark.parametrize("then", ["commit", "rollback"])
@pytest.mark.parametrize("before", ["read", "write", "write as text", "not written yet"])
async def test_a_unit_that_only_read_survives_a_session_rollback(
    before: str, then: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with shelves.sqlite(tmp_path, Base.metadata) as engine:
        items = SQLAlchemyQuerySet(Item, async_sessionmaker(engine))

        class Items(ModelAPIActionHandler):
            queryset, serializer_class = items, ItemOut

            @async_action
            async def add(self) -> None:
                async with items.session() as session:
                    if before == "read":
                        await session.execute(sqlalchemy.select(Item))
                    elif before == "write as text":
                        await session.execute(sqlalchemy.text("INSERT INTO item (title) VALUES ('a')"))
                    else:
                        session.add(Item(title="a"))
                        if before == "write":
                            await session.flush()
                async with items.session() as session:
                    await session.execute(sqlalchemy.select(Item).execution_options(autoflush=False))
                    await (session.commit() if then == "commit" else session.rollback())
                await items.create({"title": "b"})

        async with talking(Items.as_aaah()) as ws:
            reply = await ws.call("add")
        assert reply["status"] == (200 if before == "read" else 500)
        assert before == "read" or re.search("dropped|would keep", caplog.text)
        assert [one.title async for one in items] == ["b"] * (before == "read")


async def test_a_lent_session_may_commit_its_own_work(tmp_path: Path) -> None:
    async with postgres() as (engine, _):
        items = SQLAlchemyQuerySet(Item, async_sessionmaker(engine))

        class Items(ModelAPIActionHandler):
            queryset, serializer_class = items, ItemOut

            @async_action
            async def add(self) -> None:
                async with items.session() as session:
                    session.add(Item(title="its own"))
                    await session.commit()
                    await session.rollback()
                await items.create({"title": "more"})
                async with items.session() as session:
                    with contextlib.suppress(sqlalchemy.exc.DBAPIError):
                        async with session.begin_nested():
                            await session.execute(sqlalchemy.text("SELECT nothing"))
                    async with session.begin_nested(), items.session() as again:
                        again.add(Item(title="most"))

        async with talking(Items.as_aaah()) as ws:
            assert (await ws.call("add"))["status"] == 200
            assert [one.title async for one in items.order_by("id")] == ["its own", "more", "most"]


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
async def test_events_of_a_rolled_back_savepoint_are_dropped(kind: str, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        if kind == "sqlite":
            engine = await stack.enter_async_context(shelves.sqlite(tmp_path, Base.metadata))
        else:
            engine, _ = await stack.enter_async_context(postgres())
        items = SQLAlchemyQuerySet(Item, async_sessionmaker(engine))

        class Items(SubscribeMixin, ModelAPIActionHandler):
            queryset, serializer_class = items, ItemOut

            @async_action
            async def add(self, first: bool) -> None:
                if first:
                    await self.perform_create({"title": "first"})
                async with items.session() as session:
                    for title in ("taken back", "kept"):
                        with contextlib.suppress(ZeroDivisionError):
                            async with session.begin_nested():
                                async with session.begin_nested():
                                    await self.perform_create({"title": title})
                                    await self.publish("said", title)
                                _ = 1 / (title == "kept")
                await self.publish("said", "last")

        async with talking(Items.as_aaah()) as ws:
            await ws.call("subscribe")
            for first in (True, False):
                assert (await ws.call("add", first=first))["status"] == 200
                events = [await ws.event() for _ in range(3 + first)]
                titles = [*(["first"] * first), "kept", "kept", "last"]
                assert [one["data"] if one["event"] == "said" else one["data"]["title"] for one in events] == titles
            await ws.nothing()


def _fail_after_commit(error: BaseException) -> Callable[[Any], None]:
    """Carries out COMMIT on SQLite, then raises ``error``."""

    def commit(connection: Any) -> None:
        connection.commit()
        raise error

    return commit


@pytest.mark.parametrize("error", [OSError("disk"), asyncio.CancelledError(), TimeoutError()], ids=repr)
async def test_sqlite_raises_after_its_commit_was_carried_out(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes, outcomes = MemoryQuerySet(Note), list[str]()
    async with shelves.sqlite(tmp_path, Base.metadata) as engine:
        items = SQLAlchemyQuerySet(Item, async_sessionmaker(engine))
        await items.create({"title": "old"})
        async with talking(handler_of(items, notes, outcomes), "/1/", at="<int:pk>/") as ws:
            await ws.call("subscribe")
            with monkeypatch.context() as patch:
                patch.setattr(engine.dialect, "do_commit", _fail_after_commit(error))
                reply = await ws.call("rename", title="new")
            assert (reply["status"], reply["errors"][0]["type"]) == (500, "outcome_unknown")
            assert (await ws.event())["event"] == "$resync"
            assert outcomes == ["unknown"]
            assert (await items.get(pk=1)).title == "new"
            assert await notes.count() == 0  # memory is committed last
            assert (await ws.call("rename", title="newer"))["status"] == 200  # the lock for writers is free


async def test_the_second_of_two_databases_refuses_to_commit(tmp_path: Path) -> None:
    outcomes = list[str]()
    async with shelves.sqlite(tmp_path, Base.metadata) as one, shelves.sqlite(tmp_path, Base.metadata) as two:
        event.listen(two.sync_engine, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys = ON"))
        await two.dispose()
        items, others = (SQLAlchemyQuerySet(Item, async_sessionmaker(engine)) for engine in (one, two))
        await items.create({"title": "old"})

        class Both:
            async def create(self, values: Any) -> None:
                await others.create({"title": "other", "above_id": 99})

        async with talking(handler_of(items, Both(), outcomes), "/1/", at="<int:pk>/") as ws:
            await ws.call("subscribe")
            reply = await ws.call("rename", title="new")
            assert (reply["status"], reply["errors"][0]["type"]) == (500, "outcome_unknown")
            assert (await ws.event())["event"] == "$resync"
            assert ((await items.get(pk=1)).title, await others.count(), outcomes) == ("new", 0, ["unknown"])


async def test_a_database_that_was_only_read_leaves_no_doubt(tmp_path: Path) -> None:
    outcomes = list[str]()
    async with shelves.sqlite(tmp_path, Base.metadata) as one, shelves.sqlite(tmp_path, Base.metadata) as two:
        event.listen(two.sync_engine, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys = ON"))
        await two.dispose()
        items, others = (SQLAlchemyQuerySet(Item, async_sessionmaker(engine)) for engine in (one, two))
        await others.create({"title": "old"})

        class Reading:
            async def create(self, values: Any) -> None:
                await others.update(await others.get(pk=1), {"above_id": 99})

        class Items(ModelAPIActionHandler):
            queryset, serializer_class = items, ItemOut

            @async_action
            async def read_and_write(self) -> None:
                await items.count()
                await Reading().create({})

        async with talking(Items.as_aaah()) as ws:
            reply = await ws.call("read_and_write")
            assert (reply["status"], reply["errors"][0]["type"], outcomes) == (409, "conflict", [])
