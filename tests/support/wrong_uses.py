"""Wrong uses, each of which mypy and pyright have to refuse; `tests/slow/test_types.py` compares the lines.

A line that ends with ``# error`` has an error in both type checkers, and no other line has one in either.
"""

from pydantic import BaseModel

from wsaction import (
    APIError,
    AsyncAPIActionHandler,
    AsyncAPIConsumer,
    BasePermission,
    IsAuthenticated,
    Limits,
    MemoryQuerySet,
    ModelAPIActionHandler,
    QuerySet,
    Scope,
    SimpleRouter,
    SubscribeMixin,
    Values,
    WSAction,
    async_action,
    path,
)


class User(BaseModel):
    id: int
    name: str


class Card(BaseModel):
    id: int
    title: str


class CardOut(BaseModel):
    id: int


class Board(BaseModel):
    id: int


class Room(AsyncAPIConsumer):
    theme = "dark"


class Base(AsyncAPIActionHandler):
    user: User
    consumer: Room


class OtherModel(ModelAPIActionHandler[Card]):
    queryset = MemoryQuerySet(Board)  # error


class OtherSerializer(ModelAPIActionHandler[Card, CardOut]):
    serializer_class = Board  # error


class ListOfRows(ModelAPIActionHandler[Card]):
    queryset = [Card(id=1, title="a")]  # error


class TextPermission(AsyncAPIActionHandler):
    permission_classes = ("IsAuthenticated",)  # error


class BarePermission(AsyncAPIActionHandler):
    permission_classes = IsAuthenticated  # error


class TextThrottle(AsyncAPIActionHandler):
    throttle_classes = ("100/min",)  # error


class TextPaginator(ModelAPIActionHandler[Card]):
    pagination_class = "PageNumberPagination"  # error


class TextBackend(ModelAPIActionHandler[Card]):
    filter_backends = ("SearchFilter",)  # error


class NumberedLookup(ModelAPIActionHandler[Card]):
    lookup_field = 1  # error


class ListedQuerySet(ModelAPIActionHandler[Card]):
    def get_queryset(self) -> list[Card]:  # error
        return []


class OtherCreated(ModelAPIActionHandler[Card]):
    async def perform_create(self, values: Values) -> Board:  # error
        return Board(id=1)


class OtherUpdated(ModelAPIActionHandler[Card]):
    async def perform_update(self, obj: Board, values: Values) -> Card:  # error
        return await self.get_object()


class AsyncScope(ModelAPIActionHandler[Card]):
    async def get_queryset(self) -> QuerySet[Card]:  # error
        return super().get_queryset()


class TextAnswer(BasePermission):
    def has_permission(self, scope: Scope, handler: AsyncAPIActionHandler, action: str) -> str:  # error
        return "yes"


class Handler(Base, SubscribeMixin, ModelAPIActionHandler[Card]):
    queryset = MemoryQuerySet(Card)
    serializer_class = Card

    @async_action
    async def misuse(self) -> None:
        self.user.nmae  # noqa: B018  # error
        self.consumer.colour  # noqa: B018  # error
        await self.app.publsh("cards/", "moved")  # error
        await self.publish(1)  # error
        card = await self.get_object()
        card.titel  # noqa: B018  # error
        self.get_object().title  # noqa: B018  # error
        first = await self.queryset.first()
        first.title  # noqa: B018  # error
        await self.queryset.update(card)  # error
        await self.get_queryset().update(Board(id=1), {})  # error
        for _row in self.get_queryset():  # error
            pass
        async for row in self.get_queryset():
            row.titel  # noqa: B018  # error
        self.serialize(Board(id=1))  # error
        self.kwargs.board  # noqa: B018  # error
        self.query_params.get("page") + 1  # error
        await self.perform_update(card)  # error
        await self.publish_object("changed", card)  # error

    @async_action(mode="brodcast")  # error
    async def misspelt(self) -> None: ...

    @async_action(timeout="10")  # error
    async def late(self) -> None: ...


Handler.as_aaah(actions=1)  # error
path("cards/", 3)  # error
Limits(max_frame_bytes="1 MB")  # error
Limits(max_frames=1)  # error
WSAction(path("ws/", Room.as_asgi()))  # error
WSAction([], debog=True)  # error
WSAction([], allowed_origins=1)  # error
APIError("400", "bad", "Bad.")  # error
MemoryQuerySet("Card")  # error
SimpleRouter().register("cards")  # error
