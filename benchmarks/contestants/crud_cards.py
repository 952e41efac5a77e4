"""The data of the CRUD job: two hundred cards, their input and output models, and their table in SQLite."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = ("PAGE", "ROWS", "Card", "CardIn", "CardOut", "cards", "database")

ROWS, PAGE = 200, 50
BEGIN = datetime(2026, 11, 23, tzinfo=UTC).replace(tzinfo=None)


class CardIn(BaseModel):
    title: Annotated[str, Field(min_length=1, max_length=200)]
    position: Annotated[int, Field(ge=0)]
    done: bool


class CardOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    board_id: int
    title: str
    position: int
    done: bool
    created: datetime


class Base(DeclarativeBase):
    pass


class Card(Base):
    __tablename__ = "card"
    id: Mapped[int] = mapped_column(primary_key=True)
    board_id: Mapped[int]
    title: Mapped[str]
    position: Mapped[int]
    done: Mapped[bool]
    created: Mapped[datetime]


def cards() -> list[CardOut]:
    """The initial cards by key, from 1 on."""
    return [
        CardOut(
            id=key, board_id=7, title=f"Card {key}", position=key, done=False, created=BEGIN + timedelta(minutes=key)
        )
        for key in range(1, ROWS + 1)
    ]


async def database(path: Path) -> async_sessionmaker[Any]:
    """A new SQLite file with the cards. It uses a write-ahead log, so that the disk is not measured."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessionmaker = async_sessionmaker(engine, expire_on_commit=False)
    async with sessionmaker.begin() as session:
        session.add_all(Card(**card.model_dump()) for card in cards())
    return sessionmaker
