"""The objects of the queryset contract, as pydantic models and as mapped classes."""

import datetime
import os
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from pydantic import BaseModel
from sqlalchemy import ForeignKey, MetaData, UniqueConstraint
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlmodel import Field, Relationship, SQLModel

POSTGRES = os.environ.get("WSACTION_TEST_POSTGRES_URL", "postgresql+asyncpg://root@127.0.0.1:5432/test")


class Owner(BaseModel):
    id: int
    name: str | None


class Thing(BaseModel):
    id: int
    slug: str
    title: str
    rank: int | None = None
    done: bool
    due: datetime.date | None = None
    board: int | None = None
    position: int
    owner: Owner | None = None


class Base(DeclarativeBase):
    pass


class OwnerRow(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    things: Mapped[list["ThingRow"]] = relationship(back_populates="owner")


class ThingRow(Base):
    __tablename__ = "thing"
    __table_args__ = (UniqueConstraint("board", "position"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(unique=True)
    title: Mapped[str]
    rank: Mapped[int | None]
    done: Mapped[bool]
    due: Mapped[datetime.date | None]
    board: Mapped[int | None]
    position: Mapped[int]
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owner.id"))
    owner: Mapped[OwnerRow | None] = relationship(back_populates="things")


class SQLModelOwner(SQLModel, table=True):
    __tablename__ = "sqlmodel_owner"
    id: int | None = Field(default=None, primary_key=True)
    name: str | None = None


class SQLModelThing(SQLModel, table=True):
    __tablename__ = "sqlmodel_thing"
    __table_args__ = (UniqueConstraint("board", "position"),)
    id: int | None = Field(default=None, primary_key=True)
    slug: str = Field(unique=True)
    title: str
    rank: int | None = None
    done: bool
    due: datetime.date | None = None
    board: int | None = None
    position: int
    owner_id: int | None = Field(default=None, foreign_key="sqlmodel_owner.id")
    owner: SQLModelOwner | None = Relationship()


@asynccontextmanager
async def sqlite(path: Path, metadata: MetaData, **options: Any) -> AsyncIterator[AsyncEngine]:
    """An engine of a new database in a file, with the tables. At the end, no connection may be checked out."""
    # SQLAlchemy before 2.0.38 has no pool for files by default
    options.setdefault("poolclass", sqlalchemy.AsyncAdaptedQueuePool)
    engine = create_async_engine(f"sqlite+aiosqlite:///{path / uuid.uuid4().hex}.db", **options)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    try:
        yield engine
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    finally:
        await engine.dispose()


@asynccontextmanager
async def postgres(metadata: MetaData) -> AsyncIterator[AsyncEngine | None]:
    """An engine of a new schema with the tables, dropped afterwards; None if no server answers."""
    schema = f"wsaction_{uuid.uuid4().hex}"
    engine = create_async_engine(POSTGRES, connect_args={"server_settings": {"search_path": schema}})
    try:
        try:
            async with engine.begin() as connection:
                await connection.execute(sqlalchemy.text(f"CREATE SCHEMA {schema}"))
        except (OSError, sqlalchemy.exc.DBAPIError):
            yield None
            return
        try:
            async with engine.begin() as connection:
                await connection.run_sync(metadata.create_all)
            yield engine
            assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        finally:
            async with engine.begin() as connection:
                await connection.execute(sqlalchemy.text(f"DROP SCHEMA {schema} CASCADE"))
    finally:
        await engine.dispose()


async def fill(
    engine: AsyncEngine, owner: Any, thing: Any, rows: Sequence[Mapping[str, Any]]
) -> async_sessionmaker[Any]:
    """Inserts the contract's rows into the mapped tables, and sets the next key after them."""
    sessions = async_sessionmaker(engine)
    async with sessions.begin() as session:
        owners = {row["owner"]["id"]: owner(**row["owner"]) for row in rows if row["owner"]}
        session.add_all(owners.values())
        await session.flush()
        for row in rows:
            values = {name: value for name, value in row.items() if name != "owner"}
            session.add(thing(**values, owner_id=row["owner"] and row["owner"]["id"]))
            await session.flush()
        if engine.dialect.name == "postgresql":
            table = thing.__tablename__
            await session.execute(
                sqlalchemy.text(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {len(rows) + 1}, false)")
            )
    return sessions
