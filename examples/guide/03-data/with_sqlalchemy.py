"""The same with SQLAlchemy: books and their authors in SQLite."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from pydantic import BaseModel
from sqlalchemy import ForeignKey, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship

from wsaction import (
    AsyncAPIConsumer,
    ModelAPIActionHandler,
    SimpleRouter,
    SQLAlchemyQuerySet,
    WSAction,
    async_action,
    path,
)


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(unique=True)
    sold: Mapped[int] = mapped_column(default=0)
    author_id: Mapped[int | None] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author | None] = relationship()


class BookOut(BaseModel):
    id: int
    title: str
    sold: int = 0
    author_id: int | None = None


engine = create_async_engine("sqlite+aiosqlite:///books.db")
sessions = async_sessionmaker(engine)
books = SQLAlchemyQuerySet(select(Book).options(joinedload(Book.author)), sessions)
adas = books.filter(author__name__icontains="ada").exclude(title="Notes").order_by("-sold")[:10]


class BookHandler(ModelAPIActionHandler[Book, BookOut]):
    """Books; of the columns, clients see what `BookOut` has."""

    queryset = books
    serializer_class = BookOut

    @async_action(detail=True)
    async def sell(self, copies: int) -> None:
        book = await self.get_object()
        await self.queryset.update(book, {"sold": Book.sold + copies})  # what the database counts is not lost
        async with books.session() as session:  # for what lookups cannot say; the same unit of work
            await session.refresh(book)


class Library(AsyncAPIConsumer):
    """The consumer."""

    router = SimpleRouter()
    router.register("books", BookHandler)
    routepatterns = router.urls


@asynccontextmanager
async def lifespan(app: WSAction) -> AsyncGenerator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


app = WSAction([path("ws/", Library.as_asgi())], lifespan=lifespan)
