"""Boards with cards, each with an owner: all of CRUD, on memory or on SQLite by changing one line."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from wsaction import generics
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.filters import FieldFilter, OrderingFilter, SearchFilter
from wsaction.mixins import Output
from wsaction.permissions import BasePermission
from wsaction.querysets import MemoryQuerySet
from wsaction.routers import SimpleRouter
from wsaction.routing import include, path
from wsaction.serializers import ReadOnly

DATABASE = ""  # in memory; "sqlite+aiosqlite:///shelves.db" keeps it on disk


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


def stores(database: str) -> tuple[Any, Any, Any]:
    """Where boards and cards are kept, and the app's lifespan."""
    if database:
        from examples.shelf_tables import tables

        return tables(database)
    return MemoryQuerySet(Board, unique=["title"]), MemoryQuerySet(Card, unique=[("board_id", "title")]), None


BOARDS, CARDS, lifespan = stores(DATABASE)


class IsOwnerOrReads(BasePermission):
    """Everybody looks; only the owner changes."""

    message = "Only the owner may do this."

    def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any, **kwargs: Any) -> bool:
        return action == "retrieve" or obj.owner == handler.consumer.name


class BoardHandler(generics.ModelAPIActionHandler):
    """The boards that everybody sees."""

    queryset = BOARDS
    serializer_class = Board
    permission_classes = (IsOwnerOrReads,)
    filter_backends = (FieldFilter, SearchFilter, OrderingFilter)
    filter_fields = ("owner",)
    search_fields = ("title",)
    ordering_fields = ("title",)

    async def perform_create(self, values: dict[str, Any]) -> Any:
        return await super().perform_create({**values, "owner": self.consumer.name})


class CardHandler(generics.ModelAPIActionHandler):
    """The cards of the board that the route names."""

    queryset = CARDS
    serializer_class = Card
    permission_classes = (IsOwnerOrReads,)
    filter_backends = (FieldFilter, SearchFilter, OrderingFilter)
    filter_fields = {"done": ["exact"], "priority": ["gte", "lt"], "owner": ["exact", "in"]}
    search_fields = ("title", "notes")
    ordering_fields = ("title", "priority", "done")
    ordering = ("-priority", "title")

    def get_queryset(self) -> Any:
        return super().get_queryset().filter(board_id=self.kwargs["board_pk"])

    async def perform_create(self, values: dict[str, Any]) -> Any:
        board = await BOARDS.get(pk=self.kwargs["board_pk"])  # a 404 where there is none
        return await super().perform_create({**values, "board_id": board.id, "owner": self.consumer.name})

    @async_action(detail=True)
    async def toggle(self) -> Output:
        """Done, or not any more."""
        card = await self.get_object()
        return self.serialize(await self.perform_update(card, {"done": not card.done}))


boards = SimpleRouter()
boards.register("boards", BoardHandler)
cards = SimpleRouter()
cards.register("cards", CardHandler)


class Shelves(AsyncAPIConsumer):
    """The root of a connection: who connects to ws/ada/ is Ada. An app of yours would ask for a token."""

    routepatterns = [*boards.urls, path("boards/<int:board_pk>/", include(cards.urls))]
    name = ""

    async def connect(self) -> None:
        self.name = self.kwargs["name"]


app = WSAction([path("ws/<slug:name>/", Shelves.as_asgi())], lifespan=lifespan)
