"""CRUD for boards and cards with owners, in memory or in SQLite by changing one line."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Annotated

from pydantic import BaseModel, Field

from wsaction import (
    AsyncAPIActionHandler,
    AsyncAPIConsumer,
    BasePermission,
    MemoryQuerySet,
    ModelAPIActionHandler,
    Output,
    QuerySet,
    ReadOnly,
    Scope,
    SimpleRouter,
    Values,
    WSAction,
    async_action,
    include,
    path,
)
from wsaction.filters import FieldFilter, OrderingFilter, SearchFilter

DATABASE = ""  # in memory; with "sqlite+aiosqlite:///shelves.db", on disk

Lifespan = Callable[[WSAction], AbstractAsyncContextManager[None]]


class Board(BaseModel):
    id: Annotated[int, ReadOnly]
    owner: Annotated[str, ReadOnly]
    title: str = Field(min_length=1, max_length=80)


class Card(BaseModel):
    id: Annotated[int, ReadOnly]
    board_id: Annotated[int, ReadOnly]
    owner: Annotated[str, ReadOnly]
    title: str = Field(min_length=1, max_length=200)
    notes: str | None = None
    priority: int = Field(0, ge=0, le=9)
    done: bool = False


def stores(database: str) -> tuple[QuerySet[Board], QuerySet[Card], Lifespan | None]:
    """The querysets of boards and cards, and the app's lifespan. Mapped classes have the attributes of the models."""
    if database:
        from examples.shelf_tables import tables

        return tables(database)
    return MemoryQuerySet(Board, unique=["title"]), MemoryQuerySet(Card, unique=[("board_id", "title")]), None


BOARDS, CARDS, lifespan = stores(DATABASE)


class IsOwnerOrReads(BasePermission):
    """Everyone may read an object; only its owner may change it."""

    message = "Only the owner may do this."

    def has_object_permission(
        self, scope: Scope, handler: AsyncAPIActionHandler, action: str, obj: Board | Card, **kwargs: object
    ) -> bool:
        return action == "retrieve" or obj.owner == handler.consumer.name


class BoardHandler(ModelAPIActionHandler[Board]):
    """Boards, which everyone may see."""

    consumer: "Shelves"
    queryset = BOARDS
    serializer_class = Board
    permission_classes = (IsOwnerOrReads,)
    filter_backends = (FieldFilter, SearchFilter, OrderingFilter)
    filter_fields = ("owner",)
    search_fields = ("title",)
    ordering_fields = ("title",)

    async def perform_create(self, values: Values) -> Board:
        return await super().perform_create({**values, "owner": self.consumer.name})


class CardHandler(ModelAPIActionHandler[Card]):
    """Cards of the board in the route."""

    consumer: "Shelves"
    queryset = CARDS
    serializer_class = Card
    permission_classes = (IsOwnerOrReads,)
    filter_backends = (FieldFilter, SearchFilter, OrderingFilter)
    filter_fields = {"done": ["exact"], "priority": ["gte", "lt"], "owner": ["exact", "in"]}
    search_fields = ("title", "notes")
    ordering_fields = ("title", "priority", "done")
    ordering = ("-priority", "title")

    def get_queryset(self) -> QuerySet[Card]:
        return super().get_queryset().filter(board_id=self.kwargs["board_pk"])

    async def perform_create(self, values: Values) -> Card:
        board = await BOARDS.get(pk=self.kwargs["board_pk"])  # 404 if there is no such board
        return await super().perform_create({**values, "board_id": board.id, "owner": self.consumer.name})

    @async_action(detail=True)
    async def toggle(self) -> Output:
        """Marks a card as done, or as not done."""
        card = await self.get_object()
        return self.serialize(await self.perform_update(card, {"done": not card.done}))


boards = SimpleRouter()
boards.register("boards", BoardHandler)
cards = SimpleRouter()
cards.register("cards", CardHandler)


class Shelves(AsyncAPIConsumer):
    """The consumer. A client at ws/ada/ is Ada; a real app would authenticate by a token instead."""

    routepatterns = [*boards.urls, path("boards/<int:board_pk>/", include(cards.urls))]
    name = ""

    async def connect(self) -> None:
        self.name = self.kwargs["name"]


app = WSAction([path("ws/<slug:name>/", Shelves.as_asgi())], lifespan=lifespan)
