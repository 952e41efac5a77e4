"""`publish_object` with objects of SQLAlchemy sessions, whose attributes a commit expires."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel
from sqlalchemy import ForeignKey, func, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from tests.support.cards import served
from tests.support.live_boards import position
from tests.support.live_cards import LIVE, shown, user
from wsaction.applications import WSAction
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.exceptions import ImproperlyConfigured
from wsaction.generics import ModelAPIActionHandler
from wsaction.permissions import IsOwner
from wsaction.querysets._lookups import FieldError
from wsaction.routing import path
from wsaction.serializers import ReadOnly
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import connect
from wsaction.transactions import unit_of_work


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Note(Base):
    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    owner_id: Mapped[int] = mapped_column(default=1)
    touched: Mapped[str | None] = mapped_column(server_default="new", onupdate=func.lower("CHANGED"))
    author_id: Mapped[int | None] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author | None] = relationship()


class NoteOut(BaseModel):
    id: Annotated[int, ReadOnly]
    text: str


class AuthorOut(BaseModel):
    name: str


class WithAuthor(NoteOut):
    author: Annotated[AuthorOut | None, ReadOnly] = None


class Owner(IsOwner):
    lookup_field = "owner_id"


@asynccontextmanager
async def notes(folder: Path, source: Any = Note, **attributes: Any) -> AsyncIterator[tuple[WSAction, Any, Any]]:
    """An app with live notes, its sessions and its queryset; there is one note, of the first author."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder}/notes.db")
    sessions = async_sessionmaker(engine)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with sessions.begin() as session:
        session.add_all([Author(id=1, name="Ada"), Note(id=1, text="old", author_id=1)])
    queryset = SQLAlchemyQuerySet(source, sessions)
    attributes = {"bases": LIVE, "serializer_class": NoteOut, **attributes}
    served_queryset = attributes.pop("queryset", queryset)
    app = WSAction([path("ws/", served(served_queryset, **attributes))])
    try:
        async with app.lifespan():
            yield app, sessions, queryset
    finally:
        await engine.dispose()


@pytest.mark.parametrize("is_closed", [True, False])
async def test_an_object_expired_by_a_commit_is_read_again(is_closed: bool, tmp_path: Path) -> None:
    async with notes(tmp_path) as (app, sessions, queryset), connect(app, "/ws/") as ws:
        await position(ws, "cards/")
        session = sessions()
        note = await session.get(Note, 1)
        before, note.text = queryset.values_of(note), "new"
        await session.commit()
        if is_closed:
            await session.close()
        await app.publish_object("cards/", "updated", note, before=before)
        assert shown(await ws.event()) == ("updated", "cards/", {"id": 1, "text": "new"})
        await session.close()


async def test_a_new_object_is_read_again_and_needs_a_key(tmp_path: Path) -> None:
    async with notes(tmp_path) as (app, sessions, _), connect(app, "/ws/") as ws:
        await position(ws, "cards/")
        async with sessions() as session:
            session.add(note := Note(text="two"))
            with pytest.raises(ValueError, match=r"publish_object\('created', ...\): this Note has no key yet; flush"):
                await app.publish_object("cards/", "created", note)
            await session.commit()
            await app.publish_object("cards/", "created", note)
        assert shown(await ws.event()) == ("created", "cards/", {"id": 2, "text": "two"})


async def test_columns_expired_by_a_flush_are_read_in_the_unit(tmp_path: Path) -> None:
    """An ``onupdate`` of the database expires its column before anything is committed."""
    async with notes(tmp_path) as (app, _, queryset), connect(app, "/ws/") as ws:
        await position(ws, "cards/")
        async with unit_of_work(), queryset.session() as session:
            note = await session.get(Note, 1)
            before, note.text = queryset.values_of(note), "flushed"
            await session.flush()
            await app.publish_object("cards/", "updated", note, before=before)
            await ws.nothing()
        assert shown(await ws.event()) == ("updated", "cards/", {"id": 1, "text": "flushed"})


async def test_relations_that_the_serializer_shows_are_loaded(tmp_path: Path) -> None:
    source = select(Note).options(selectinload(Note.author))
    async with notes(tmp_path, source, serializer_class=WithAuthor) as (app, sessions, _), connect(app, "/ws/") as ws:
        await position(ws, "cards/")
        async with sessions(expire_on_commit=False) as session:
            note = await session.get(Note, 1)
            note.text = "new"
            await session.commit()
        await app.publish_object("cards/", "updated", note)
        assert (await ws.event())["data"] == {"id": 1, "text": "new", "author": {"name": "Ada"}}


@pytest.mark.parametrize("keeps", [True, False])
async def test_deleted_events_carry_the_key(keeps: bool, tmp_path: Path) -> None:
    async with (
        notes(tmp_path, permission_classes=(Owner,)) as (app, sessions, queryset),
        connect(app, "/ws/", user=user(1)) as owner,
        connect(app, "/ws/", user=user(2)) as stranger,
    ):
        for ws in (owner, stranger):
            await position(ws, "cards/")
        async with sessions() as session:
            note = await session.get(Note, 1)
            before = queryset.values_of(note) if keeps else None
            await session.delete(note)
            await session.commit()
        await app.publish_object("cards/", "deleted", note, before=before)
        assert shown(await owner.event()) == ("deleted", "cards/", {"pk": 1})
        await stranger.nothing()


async def test_an_object_without_a_row_needs_its_values_before(tmp_path: Path) -> None:
    async with (
        notes(tmp_path, permission_classes=(Owner,)) as (app, sessions, queryset),
        connect(app, "/ws/", user=user(1)) as owner,
        connect(app, "/ws/", user=user(2)) as stranger,
    ):
        for ws in (owner, stranger):
            await position(ws, "cards/")
        async with sessions() as session:
            note = await session.get(Note, 1)
            before = queryset.values_of(note)
            await session.commit()
        async with sessions.begin() as session:
            await session.delete(await session.get(Note, 1))
        with pytest.raises(ValueError, match=r"no such row any more; if it was deleted, publish \"deleted\""):
            await app.publish_object("cards/", "updated", note, before=before)
        with pytest.raises(ValueError, match=r"keep them before it is deleted, as in before = queryset\.values_of"):
            await app.publish_object("cards/", "deleted", note)
        await app.publish_object("cards/", "deleted", note, before=before)
        assert shown(await owner.event()) == ("deleted", "cards/", {"pk": 1})
        await stranger.nothing()


async def test_an_expired_before_is_refused(tmp_path: Path) -> None:
    async with notes(tmp_path) as (app, sessions, queryset):
        async with sessions() as session:
            old = await session.get(Note, 1)
            await session.commit()
        note = await queryset.get(pk=1)
        for publish in (
            lambda: app.publish_object("cards/", "updated", note, before=old),
            lambda: app.publish_object("cards/", "updated", note, before=queryset.values_of(old)),
        ):
            with pytest.raises(ValueError, match=r"have expired .*keep queryset\.values_of\(obj\) before the change"):
                await publish()
        with pytest.raises(FieldError, match="Note has no field 'txt'"):
            await app.publish_object("cards/", "updated", note, before={"txt": "old"})


async def test_get_queryset_alone_must_work_without_a_connection(tmp_path: Path) -> None:
    class Scoped(SubscribeMixin, ModelAPIActionHandler):
        def get_queryset(self) -> Any:
            return cards.filter(owner_id=self.user.pk)

    async with notes(tmp_path, queryset=None, bases=(Scoped,)) as (app, _, cards):
        note = await cards.get(pk=1)
        with pytest.raises(
            ImproperlyConfigured, match=r"get_queryset\(\) failed outside of a connection .*queryset too"
        ):
            await app.publish_object("cards/", "updated", note)


async def test_perform_update_may_leave_computed_columns_expired(tmp_path: Path) -> None:
    class Shown(NoteOut):
        touched: Annotated[str | None, ReadOnly] = None

    class Own(SubscribeMixin, ModelAPIActionHandler):
        async def perform_update(self, obj: Any, values: Any) -> Any:
            async with self.queryset.session() as session:
                obj.text = values["text"]
                await session.flush()
            return obj

    attributes = {"bases": (Own,), "serializer_class": Shown, "permission_classes": (Owner,)}
    async with notes(tmp_path, **attributes) as (app, _, _), connect(app, "/ws/", user=user(1)) as ws:
        await position(ws, "cards/")
        changed = {"id": 1, "text": "new", "touched": "changed"}
        assert (await ws.call("partial_update", "cards/1/", {"text": "new"}))["data"] == changed
        assert shown(await ws.event()) == ("updated", "cards/", changed)


async def test_a_row_that_leaves_the_queryset_is_deleted(tmp_path: Path) -> None:
    source = select(Note).where(Note.text != "hidden")
    async with notes(tmp_path, source) as (app, sessions, queryset), connect(app, "/ws/") as ws:
        await position(ws, "cards/")
        async with sessions() as session:
            note = await session.get(Note, 1)
            before, note.text = queryset.values_of(note), "hidden"
            await session.commit()
        await app.publish_object("cards/", "updated", note, before=before)
        assert shown(await ws.event()) == ("deleted", "cards/", {"pk": 1})
