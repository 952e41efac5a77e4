"""The SQLAlchemy tables and their querysets: users, boards with members, columns, cards, comments. Stored in SQLite."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy import BigInteger, ForeignKey, Integer, Table, UniqueConstraint, event
from sqlalchemy import Column as TableColumn
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.pool import ConnectionPoolEntry

from wsaction import SQLAlchemyQuerySet


class Base(DeclarativeBase):
    pass


members = Table(
    "members",
    Base.metadata,
    TableColumn("board_id", Integer, ForeignKey("boards.id", ondelete="CASCADE"), primary_key=True),
    TableColumn("user_id", Integer, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
)


class User(Base):
    __tablename__ = "users"

    is_authenticated = True  # for `IsAuthenticated`

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    password: Mapped[str]  # as `sign_in.hash_password` returns it


class Board(Base):
    __tablename__ = "boards"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    members: Mapped[list[User]] = relationship(secondary=members, lazy="selectin", order_by=User.id)


class Column(Base):
    __tablename__ = "columns"

    id: Mapped[int] = mapped_column(primary_key=True)
    board_id: Mapped[int] = mapped_column(ForeignKey("boards.id", ondelete="CASCADE"))
    title: Mapped[str]


class Card(Base):
    __tablename__ = "cards"
    __table_args__ = (UniqueConstraint("column_id", "position"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    board_id: Mapped[int] = mapped_column(ForeignKey("boards.id", ondelete="CASCADE"), index=True)
    column_id: Mapped[int] = mapped_column(ForeignKey("columns.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(BigInteger)  # the order in the column, see `positions`
    title: Mapped[str]
    notes: Mapped[str] = mapped_column(default="")
    comment_count: Mapped[int] = mapped_column(default=0)


class Comment(Base):
    __tablename__ = "comments"

    id: Mapped[int] = mapped_column(primary_key=True)
    board_id: Mapped[int] = mapped_column(ForeignKey("boards.id", ondelete="CASCADE"))
    card_id: Mapped[int] = mapped_column(ForeignKey("cards.id", ondelete="CASCADE"), index=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    author: Mapped[User] = relationship(lazy="joined")
    text: Mapped[str]
    written_at: Mapped[int] = mapped_column(default=lambda: int(time.time()))  # unix seconds


sessions = async_sessionmaker[AsyncSession]()  # bound to a database when the app starts

USERS = SQLAlchemyQuerySet(User, sessions)
BOARDS = SQLAlchemyQuerySet(Board, sessions)
COLUMNS = SQLAlchemyQuerySet(Column, sessions)
CARDS = SQLAlchemyQuerySet(Card, sessions)
COMMENTS = SQLAlchemyQuerySet(Comment, sessions)


@asynccontextmanager
async def database(url: str) -> AsyncGenerator[None]:
    """Binds the querysets to a database for the time of the block, and creates missing tables."""
    engine = create_async_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _configure_sqlite)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions.configure(bind=engine)
    try:
        yield
    finally:
        await engine.dispose()


def _configure_sqlite(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")  # off by default
    cursor.execute("PRAGMA journal_mode = WAL")  # readers do not wait for writers
    cursor.close()
