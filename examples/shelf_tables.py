"""Database tables for shelves.py, used if its `DATABASE` is set."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from wsaction import QuerySet, SQLAlchemyQuerySet, WSAction


class Base(DeclarativeBase):
    pass


class Board(Base):
    __tablename__ = "boards"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    title: Mapped[str] = mapped_column(unique=True)


class Card(Base):
    __tablename__ = "cards"
    __table_args__ = (UniqueConstraint("board_id", "title"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    board_id: Mapped[int] = mapped_column(ForeignKey("boards.id"))
    owner: Mapped[str]
    title: Mapped[str]
    notes: Mapped[str | None]
    priority: Mapped[int]
    done: Mapped[bool]


def tables(url: str) -> tuple[QuerySet, QuerySet, Callable[[WSAction], AbstractAsyncContextManager[None]]]:
    """The querysets of boards and cards in a database, and a lifespan that creates missing tables."""
    engine = create_async_engine(url)
    sessions = async_sessionmaker(engine)

    @asynccontextmanager
    async def lifespan(app: WSAction) -> AsyncGenerator[None]:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield
        await engine.dispose()

    return SQLAlchemyQuerySet(Board, sessions), SQLAlchemyQuerySet(Card, sessions), lifespan
