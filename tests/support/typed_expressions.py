"""The expressions that a handler uses most, for mypy and pyright: `tests/slow/test_types.py` compares the types.

Each ``reveal_type(...)  # T`` is what both type checkers have to reveal, without the modules of the names.
"""

from collections.abc import Sequence
from typing import reveal_type

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import wsaction.client
from wsaction import (
    AsyncAPIActionHandler,
    AsyncAPIConsumer,
    IsAuthenticated,
    MemoryQuerySet,
    ModelAPIActionHandler,
    ModelAPIConsumer,
    QuerySet,
    SQLAlchemyQuerySet,
    SubscribeMixin,
    Values,
    WSAction,
    async_action,
    path,
)
from wsaction.filters import SearchFilter
from wsaction.generics import ListAPIActionHandler
from wsaction.pagination import PageNumberPagination


class User(BaseModel):
    id: int
    name: str
    is_authenticated: bool = True


class Card(BaseModel):
    id: int
    title: str


class Board(AsyncAPIConsumer):
    theme = "dark"


class Base(AsyncAPIActionHandler):
    """The base class of an application's handlers."""

    user: User
    consumer: Board


class CardHandler(Base, SubscribeMixin, ModelAPIActionHandler[Card]):
    queryset = MemoryQuerySet(Card)
    serializer_class = Card
    permission_classes = (IsAuthenticated,)
    filter_backends = (SearchFilter,)
    search_fields = ("title",)
    pagination_class = PageNumberPagination(page_size=20)

    def get_queryset(self) -> QuerySet[Card]:
        reveal_type(super().get_queryset())  # QuerySet[Card]
        return super().get_queryset().filter(owner_id=self.user.id)

    async def perform_create(self, values: Values) -> Card:
        reveal_type(await super().perform_create(values))  # Card
        return await super().perform_create({**values, "owner_id": self.user.id})

    async def perform_update(self, card: Card, values: Values) -> Card:
        reveal_type(await super().perform_update(card, values))  # Card
        return await super().perform_update(card, values)

    async def perform_destroy(self, card: Card) -> None:
        reveal_type(await super().perform_destroy(card))  # None

    @async_action
    async def expressions(self) -> None:
        reveal_type(self.user)  # User
        reveal_type(self.user.name)  # str
        reveal_type(self.app)  # WSAction
        reveal_type(self.consumer)  # Board
        reveal_type(self.consumer.theme)  # str
        reveal_type(self.queryset)  # (Memory)?QuerySet[Card]
        reveal_type(self.get_queryset())  # QuerySet[Card]
        reveal_type(await self.get_object())  # Card
        reveal_type(await self.queryset.get(pk=1))  # Card
        reveal_type(await self.queryset.create({"title": "a"}))  # Card
        reveal_type(await self.queryset.first())  # Card | None
        reveal_type(self.queryset.filter(title="a").exclude(id=3).order_by("title")[:3])  # (Memory)?QuerySet[Card]
        reveal_type(await self.get_queryset().filter(title="a").count())  # int
        async for card in self.queryset:
            reveal_type(card)  # Card
        reveal_type([card.title async for card in self.get_queryset()])  # list[str]
        reveal_type(await self.perform_create({"title": "a"}))  # Card
        reveal_type(self.serialize(await self.get_object()))  # Card
        reveal_type(self.serialize_many([]))  # Sequence[Card]
        reveal_type(self.get_serializer_class())  # type[Card]
        reveal_type(self.validate({"title": "a"}))  # dict[str, Any]
        reveal_type(self.kwargs)  # dict[str, Any]
        reveal_type(self.args)  # tuple[Any, ...]
        reveal_type(self.route)  # str
        reveal_type(self.query_params["page"])  # str
        reveal_type(await self.paginate_queryset(self.get_queryset()))  # Page[Card] | None

    @async_action
    async def echo(self, text: str) -> str:
        reveal_type(await self.echo(text))  # str
        return text


reveal_type(CardHandler.as_aaah(actions=("list", "create")))  # ActionView
reveal_type(Board.as_asgi())  # ActionView
reveal_type(WSAction([path("ws/", Board.as_asgi())]))  # WSAction


class Table(DeclarativeBase):
    pass


class CardRow(Table):
    __tablename__ = "cards"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


ROWS = SQLAlchemyQuerySet(CardRow, async_sessionmaker())
reveal_type(ROWS)  # SQLAlchemyQuerySet[CardRow]
reveal_type(SQLAlchemyQuerySet(select(CardRow), async_sessionmaker()))  # SQLAlchemyQuerySet[CardRow]


class RowHandler(ModelAPIActionHandler[CardRow, Card]):
    """A serializer of another class than the model."""

    queryset = ROWS
    serializer_class = Card

    @async_action
    async def expressions(self) -> Card:
        row = await self.get_object()
        reveal_type(row)  # CardRow
        reveal_type(row.title)  # str
        reveal_type(self.serialize(row))  # Card
        reveal_type(await self.perform_update(row, {"title": "a"}))  # CardRow
        return self.serialize(row)


class RowsConsumer(ModelAPIConsumer[CardRow, Card]):
    queryset = ROWS
    serializer_class = Card

    async def connect(self) -> None:
        reveal_type(await self.get_object())  # CardRow


class Untyped(ListAPIActionHandler):
    """Without parameters, as before: nothing is checked, and nothing is an error."""

    queryset = ROWS
    serializer_class = Card

    def get_event_routes(self, event: str, row: CardRow) -> Sequence[str]:
        return [f"cards/{row.id}/"]


async def client() -> None:
    async with wsaction.client.connect("ws://localhost/ws/") as connected:
        reveal_type(connected)  # Client
        async with connected.subscribe("cards/") as subscription:
            reveal_type(subscription)  # Subscription
