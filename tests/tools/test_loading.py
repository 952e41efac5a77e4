"""Attributes that a serializer shows but the queryset does not load: the error names a loader option that works."""

import gc
import re
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, create_model
from sqlalchemy import ForeignKey, Text, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload, undefer

from tests.support.cards import served
from wsaction.applications import WSAction
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.generics import ModelAPIActionHandler
from wsaction.routing import path
from wsaction.serializers import ReadOnly
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import connect


class Base(DeclarativeBase):
    pass


class Org(Base):
    __tablename__ = "org"

    id: Mapped[int] = mapped_column(primary_key=True)
    notes: Mapped[str | None] = mapped_column(Text, deferred=True)


class Author(Base):
    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[int | None] = mapped_column(ForeignKey("org.id"))
    org: Mapped[Org | None] = relationship()


class Tag(Base):
    __tablename__ = "tag"

    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int] = mapped_column(ForeignKey("book.id"))
    hint: Mapped[str | None] = mapped_column(Text, deferred=True)


class Book(Base):
    __tablename__ = "book"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    text: Mapped[str | None] = mapped_column(Text, deferred=True)
    secret: Mapped[str | None] = mapped_column(Text, deferred=True, deferred_raiseload=True)
    author_id: Mapped[int | None] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author | None] = relationship()
    strict: Mapped[Author | None] = relationship(lazy="raise", viewonly=True)
    tags: Mapped[list[Tag]] = relationship()


def shape(**fields: Any) -> Any:
    return create_model("Out", __base__=BaseModel, **fields)


NOTES = shape(notes=(str | None, None))
HINT = shape(hint=(str | None, None))
CASES: dict[str, tuple[Any, str]] = {
    "a deferred column": ({"text": (str | None, None)}, "undefer(Book.text)"),
    "one that raises": ({"secret": (str | None, None)}, "undefer(Book.secret)"),
    "a relation": ({"author": (shape(id=(int, ...)) | None, None)}, "selectinload(Book.author)"),
    "a relation that raises": ({"strict": (shape(id=(int, ...)) | None, None)}, "selectinload(Book.strict)"),
    "a relation of a relation": (
        {"author": (shape(org=(shape(id=(int, ...)), ...)) | None, None)},
        "selectinload(Book.author).selectinload(Author.org)",
    ),
    "a deferred column of a relation of a relation": (
        {"author": (shape(org=(NOTES, ...)) | None, None)},
        "selectinload(Book.author).selectinload(Author.org).undefer(Org.notes)",
    ),
    "a deferred column of each of many": (
        {"tags": (list[HINT], [])},  # type: ignore[valid-type]  # a model made here
        "selectinload(Book.tags).undefer(Tag.hint)",
    ),
}


@asynccontextmanager
async def sessions_of(folder: Path) -> AsyncIterator[Any]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder}/books.db")
    sessions = async_sessionmaker(engine)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with sessions.begin() as session:
        session.add_all([Org(id=1, notes="n"), Author(id=1, org_id=1), Book(id=1, title="a", author_id=1)])
        await session.flush()
        session.add(Tag(id=1, book_id=1, hint="h"))
    try:
        yield sessions
    finally:
        await engine.dispose()


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # by SQLAlchemy, of a lazy load
@pytest.mark.filterwarnings(  # the same, if it is collected within code that was compiled without builtins
    "ignore:Exception ignored in. <coroutine object Connection.cursor:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("case", CASES)
async def test_the_suggested_loader_option_loads_the_attribute(case: str, tmp_path: Path) -> None:
    """Errors may name other attributes first. After the options of a few errors, all actions work."""
    fields, wanted = CASES[case]
    model = shape(
        id=(Annotated[int, ReadOnly], ...),
        title=(str, ...),
        **{name: (Annotated[kind, ReadOnly], default) for name, (kind, default) in fields.items()},
    )
    async with sessions_of(tmp_path) as sessions:
        rows, option = select(Book), ""
        for _ in range(4):
            app, error = await answers(SQLAlchemyQuerySet(rows, sessions), model)
            if error is None:
                break
            found = re.search(r"as in select\(Book\)\.options\(((?:\w+\([\w.]+\)\.?)+)\)", error)
            assert found is not None, error
            option = found[1]
            names = {"Book": Book, "Author": Author, "Org": Org, "Tag": Tag, "undefer": undefer}
            rows = select(Book).options(eval(option, {**names, "selectinload": selectinload}))
        assert error is None
        assert option == wanted
        assert app == [200, 200, 200, 201]


async def answers(queryset: Any, model: Any) -> tuple[list[int], str | None]:
    """Returns the statuses of the actions, and the message of the first that failed."""
    consumer = served(queryset, bases=(SubscribeMixin, ModelAPIActionHandler), serializer_class=model)
    app = WSAction([path("ws/", consumer)], debug=True)
    async with app.lifespan(), connect(app, "/ws/") as ws:
        replies = [
            await ws.call("retrieve", "cards/1/"),
            await ws.call("list", "cards/"),
            await ws.call("partial_update", "cards/1/", {"title": "b"}),
            await ws.call("create", "cards/", {"title": "c"}),
        ]
    with warnings.catch_warnings():  # SQLAlchemy leaves a coroutine behind that a refused lazy load never awaits
        warnings.simplefilter("ignore")
        gc.collect()
    errors = [reply["errors"][0]["ctx"]["exception"] for reply in replies if reply["status"] == 500]
    return [reply["status"] for reply in replies], errors[0] if errors else None
