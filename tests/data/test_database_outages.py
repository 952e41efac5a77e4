"""A database that is unavailable: 503 for each request, one log line for each outage and one for its end."""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import sqlalchemy
from pydantic import BaseModel
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.support import shelves
from tests.support.driving import talking
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.contrib.sqlalchemy import _session as sessions
from wsaction.decorators import async_action
from wsaction.exceptions import DatabaseUnavailable
from wsaction.generics import ModelAPIActionHandler
from wsaction.permissions import BasePermission
from wsaction.serializers import ReadOnly
from wsaction.subscriptions import SubscribeMixin


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


class ItemOut(BaseModel):
    id: Annotated[int, ReadOnly]
    title: str


class Gate:
    """A proxy between the app and PostgreSQL that can refuse and reset connections, and accept them again."""

    def __init__(self, host: str, port: int) -> None:
        self.address = host, port
        self.writers: set[asyncio.StreamWriter] = set()
        self.server: asyncio.Server | None = None
        self.port = 0

    async def open(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self.server is not None
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(*self.address)
        self.writers |= {writer, ours}

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65_536):
                    target.write(data)
            target.close()

        await asyncio.gather(copy(reader, ours), copy(theirs, writer))


@contextlib.asynccontextmanager
async def postgres(**options: Any) -> AsyncIterator[tuple[AsyncEngine, Gate, AsyncEngine]]:
    async with shelves.postgres(Base.metadata) as direct:
        if direct is None:
            pytest.skip(f"no PostgreSQL answers at {shelves.POSTGRES}; set WSACTION_TEST_POSTGRES_URL")
        async with direct.connect() as connection:
            schema = await connection.scalar(sqlalchemy.text("SHOW search_path"))
        gate = Gate(direct.url.host or "127.0.0.1", direct.url.port or 5432)
        await gate.open()
        engine = create_async_engine(
            direct.url.set(host="127.0.0.1", port=gate.port, password="secret"),
            connect_args={"server_settings": {"search_path": schema}},
            **options,
        )
        try:
            yield engine, gate, direct
        finally:
            await engine.dispose()
            await gate.close()


class HasItems(BasePermission):
    queryset: Any = None

    async def has_permission(self, scope: Any, consumer: Any, action: str) -> bool:
        return action != "guarded" or bool(await self.queryset.count())


def handler_of(items: Any) -> Any:
    class Asking(HasItems):
        queryset = items

    class Items(SubscribeMixin, ModelAPIActionHandler):
        queryset, serializer_class = items, ItemOut
        permission_classes = (Asking,)

        @async_action
        async def guarded(self) -> None: ...

        @async_action
        async def by_session(self) -> None:
            async with self.queryset.session() as session:
                await session.execute(sqlalchemy.text("SELECT 1"))

    return Items.as_aaah()


FRAMES: list[dict[str, Any]] = [
    {"action": "list"},
    {"action": "list", "stream": True},
    {"action": "retrieve"},
    {"action": "create", "data": {"title": "b"}},
    {"action": "partial_update", "data": {"title": "b"}},
    {"action": "destroy"},
    {"action": "subscribe", "snapshot": True},
    {"action": "guarded"},
    {"action": "by_session"},
]


def logged_changes(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The log lines of wsaction since the last call, shortened to "away" and "back"."""
    lines = [record.getMessage() for record in caplog.records if record.name == "wsaction"]
    caplog.clear()
    return ["away" if "is away" in line else "back" if "is back" in line else line for line in lines]


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "wsaction")


async def test_postgresql_goes_away_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    async with postgres() as (engine, gate, _):
        items = SQLAlchemyQuerySet(Item, async_sessionmaker(engine))
        await items.create({"title": "a"})
        async with talking(handler_of(items), "/1/", at="<int:pk>/") as ws:
            assert (await ws.call("retrieve"))["status"] == 200
            await gate.close()
            for frame in FRAMES:
                reply = await ws.call(**frame)
                assert (reply["status"], reply["errors"][0]["type"]) == (503, "database_unavailable"), frame
            with pytest.raises(DatabaseUnavailable):
                await items.count()
            text = caplog.text
            assert logged_changes(caplog) == ["away"]
            assert "secret" not in text
            assert "Traceback" not in text
            await gate.open()
            for action in ("retrieve", "list", "subscribe", "guarded", "by_session"):
                assert (await ws.call(action))["status"] == 200
            assert logged_changes(caplog) == ["back"]


async def test_a_connection_reset_within_an_action_is_a_503(caplog: pytest.LogCaptureFixture) -> None:
    async with postgres() as (engine, gate, _):
        items = SQLAlchemyQuerySet(Item, async_sessionmaker(engine))
        await items.create({"title": "a"})

        class Items(ModelAPIActionHandler):
            queryset, serializer_class = items, ItemOut

            @async_action
            async def change(self) -> None:
                await self.perform_update(await self.get_object(), {"title": "b"})
                await gate.close()
                await gate.open()
                await self.perform_update(await self.get_object(), {"title": "c"})

            @async_action
            async def read(self) -> str:
                title = (await self.get_object()).title
                await gate.close()
                await gate.open()
                return str(title)

        async with talking(Items.as_aaah(), "/1/", at="<int:pk>/") as ws:
            reply = await ws.call("change")
            assert (reply["status"], reply["errors"][0]["type"]) == (503, "database_unavailable")
            assert (await ws.call("retrieve"))["data"]["title"] == "a"
            assert (await ws.call("read"))["data"] == "a"  # the action had read everything before the outage
            assert (await ws.call("retrieve"))["status"] == 200
        assert set(logged_changes(caplog)) == {"away", "back"}


@pytest.mark.parametrize("state", ["57P01", "57P03", "53300", "08006", "28000", "3D000"])
async def test_a_postgresql_that_takes_no_work_is_unavailable(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(Exception):
        sqlstate = state

    async with postgres() as (engine, _, _):
        items = SQLAlchemyQuerySet(Item, async_sessionmaker(engine))

        def connect(*args: Any, **options: Any) -> None:
            raise Refused

        monkeypatch.setattr(engine.dialect.loaded_dbapi, "connect", connect)
        with pytest.raises(DatabaseUnavailable):
            await items.count()


async def test_too_many_connections_make_postgresql_unavailable(caplog: pytest.LogCaptureFixture) -> None:
    async with postgres() as (_, _, direct):
        async with direct.connect() as connection:
            name = f"wsaction_{id(direct)}"
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(sqlalchemy.text(f"CREATE ROLE {name} LOGIN CONNECTION LIMIT 0"))
            engine = create_async_engine(direct.url.set(username=name))
            try:
                items = SQLAlchemyQuerySet(Item, async_sessionmaker(engine))
                with pytest.raises(DatabaseUnavailable):
                    await items.count()
            finally:
                await engine.dispose()
                await connection.execute(sqlalchemy.text(f"DROP ROLE {name}"))
        assert logged_changes(caplog) == ["away"]


async def test_a_sqlite_file_that_cannot_be_used_is_a_503(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    async with _sqlite(folder) as engine:
        items = SQLAlchemyQuerySet(Item, async_sessionmaker(engine))
        await items.create({"title": "a"})
        async with talking(handler_of(items), "/1/", at="<int:pk>/") as ws:
            folder.rename(tmp_path / "gone")
            for frame in FRAMES:
                reply = await ws.call(**frame)
                assert (reply["status"], reply["errors"][0]["type"]) == (503, "database_unavailable"), frame
            assert logged_changes(caplog) == ["away"]
            (tmp_path / "gone").rename(folder)
            assert (await ws.call("retrieve"))["status"] == 200
            assert logged_changes(caplog) == ["back"]


@contextlib.asynccontextmanager
async def _sqlite(folder: Path) -> AsyncIterator[AsyncEngine]:
    """An engine without a pool: each use opens the file again."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder}/items.db", poolclass=sqlalchemy.NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    try:
        yield engine
    finally:
        await engine.dispose()


async def test_a_read_only_sqlite_file_can_still_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with _sqlite(tmp_path) as engine:
        items = SQLAlchemyQuerySet(Item, async_sessionmaker(engine))
        await items.create({"title": "a"})
        event.listen(engine.sync_engine, "connect", lambda raw, _: raw.execute("PRAGMA query_only = ON"))
        async with talking(handler_of(items), "/1/", at="<int:pk>/") as ws:
            reply = await ws.call("partial_update", data={"title": "b"})
            assert (reply["status"], reply["errors"][0]["type"]) == (503, "database_unavailable")
            assert (await ws.call("retrieve"))["data"]["title"] == "a"
        assert logged_changes(caplog) == ["away", "back"]


async def test_a_flapping_database_does_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _sqlite(tmp_path) as engine:
        items = SQLAlchemyQuerySet(Item, async_sessionmaker(engine))
        await items.create({"title": "a"})
        event.listen(engine.sync_engine, "connect", lambda raw, _: raw.execute("PRAGMA query_only = ON"))

        async def flap() -> list[str]:
            for _ in range(3):
                with pytest.raises(DatabaseUnavailable):
                    await items.create({"title": "b"})
                assert await items.count() == 1
            return logged_changes(caplog)

        assert await flap() == ["away", "back"]
        monkeypatch.setattr(sessions, "QUIET", 0.0)
        assert await flap() == ["away", "back"] * 3


async def test_errors_of_the_application_are_no_outage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with _sqlite(tmp_path) as engine:
        items = SQLAlchemyQuerySet(Item, async_sessionmaker(engine))

        async def fail(error: Exception) -> None:
            async with items.session():
                raise error

        for error in (FileNotFoundError("mine"), TimeoutError(), ConnectionRefusedError(), sqlite3.Error("mine")):
            with pytest.raises(type(error)):
                await fail(error)
        assert logged_changes(caplog) == []
