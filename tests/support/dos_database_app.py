"""The app of test_attacks.py with a database: clients write to one SQLite file, and ``echo`` reads from it."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel
from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.support.dos_app import Target, Watch
from wsaction.applications import WSAction
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.decorators import async_action
from wsaction.generics import ModelAPIActionHandler
from wsaction.routing import path
from wsaction.serializers import ReadOnly

ROWS = 16  # each is changed by its own action: as many as one connection may run at once

# What is measured is how reads and writes share the pool, and not how fast this machine's disk is.
FOLDER = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
ENGINE = create_async_engine(f"sqlite+aiosqlite:///{Path(FOLDER.name) / 'items.db'}")


@event.listens_for(ENGINE.sync_engine, "connect")
def _forget_the_disk(connection: Any, _: Any) -> None:
    """Has no commit wait for the disk."""
    connection.execute("PRAGMA synchronous = OFF")


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


class ItemOut(BaseModel):
    id: Annotated[int, ReadOnly]
    title: str


class Items(ModelAPIActionHandler):
    queryset: Any = SQLAlchemyQuerySet(Item, async_sessionmaker(ENGINE))
    serializer_class = ItemOut


class Reading(Target):
    routepatterns = [path("items/<int:pk>/", Items.as_aaah())]

    @async_action
    async def echo(self, data: Any = None) -> Any:
        await Items.queryset.get(pk=1)
        return data


@asynccontextmanager
async def lifespan(_: Any) -> AsyncIterator[None]:
    async with ENGINE.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    for number in range(1, ROWS + 1):
        await Items.queryset.create({"id": number, "title": "old"})
    yield
    await ENGINE.dispose()
    FOLDER.cleanup()


app = WSAction([path("ws/", Reading.as_asgi()), path("watch/", Watch.as_asgi())], lifespan=lifespan)
