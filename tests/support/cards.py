"""For the tests of generic handlers: the same cards in memory and in SQLite, and an app around a handler."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Annotated, Any

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import StaticPool

from wsaction.consumers import AsyncAPIConsumer
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.generics import ModelAPIActionHandler
from wsaction.querysets import MemoryQuerySet
from wsaction.routers import SimpleRouter
from wsaction.serializers import ReadOnly

KINDS = ("memory", "sqlite")


class Card(BaseModel):
    id: Annotated[int, ReadOnly]
    owner_id: Annotated[int, ReadOnly] = 1
    title: str
    due: int | None = None
    done: bool = False


class Base(DeclarativeBase):
    pass


class CardRow(Base):
    __tablename__ = "cards"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(default=1)
    title: Mapped[str]
    due: Mapped[int | None]
    done: Mapped[bool] = mapped_column(default=False)


@asynccontextmanager
async def stored(kind: str, rows: Iterable[Card] = ()) -> AsyncIterator[Any]:
    """A queryset of these rows, in memory or in a new SQLite database."""
    if kind == "memory":
        yield MemoryQuerySet(Card, rows=list(rows))
        return
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        if values := [row.model_dump() for row in rows]:
            await connection.execute(CardRow.__table__.insert(), values)
    yield SQLAlchemyQuerySet(CardRow, async_sessionmaker(engine))
    await engine.dispose()


def served(queryset: Any, **attributes: Any) -> Any:
    """A consumer with ``cards/`` and ``cards/<pk>/``, served by a model handler with these attributes."""
    attributes = {"queryset": queryset, "serializer_class": Card, **attributes}
    bases = attributes.pop("bases", (ModelAPIActionHandler,))
    router = SimpleRouter()
    router.register("cards", type("CardHandler", bases, attributes), basename="card")
    consumer: Any = type("Consumer", (AsyncAPIConsumer,), {"routepatterns": router.urls})
    return consumer.as_asgi()


def asking(route: str = "cards/", **attributes: Any) -> Any:
    """A handler with the query of ``route``, as a paginator or filter sees it."""
    from starlette.datastructures import QueryParams

    own = {"route": route, "query_params": QueryParams(route.partition("?")[2]), "get_ordering": lambda: ()}
    return SimpleNamespace(**{**own, **attributes})


def numbered(count: int, **values: Any) -> list[Card]:
    """Cards with the keys from 1 on."""
    return [Card(id=number, title=f"card {number}", **values) for number in range(1, count + 1)]
