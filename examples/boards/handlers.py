"""Live generic handlers for boards, columns, cards and comments.

A route is a topic, so each route stands for an audience: ``users/3/boards/`` is the list of one user, and ``boards/7/``
with all routes below it is for the members of that board.
"""

from collections.abc import Sequence
from typing import TypeVar

from examples.boards import models, tables
from examples.boards.permissions import IsAuthor, IsBoardOwner, IsMember, is_self
from examples.boards.positions import between, renumbered
from examples.boards.tables import BOARDS, CARDS, COLUMNS, COMMENTS, USERS
from wsaction import IsAuthenticated, NotFound, PresenceMixin, QuerySet, SimpleRouter, SubscribeMixin, async_action
from wsaction.exceptions import Conflict
from wsaction.generics import (
    GenericAsyncAPIActionHandler,
    ListCreateAPIActionHandler,
    ModelAPIActionHandler,
    RetrieveUpdateDestroyAPIActionHandler,
)
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.mixins import CreateModelMixin, Output, Values

Row = TypeVar("Row")
Shown = TypeVar("Shown")


class BaseHandler(AsyncAPIActionHandler):
    """What all handlers have in common."""

    user: tables.User


class BoundedListMixin(SubscribeMixin, CreateModelMixin[Row, Shown]):
    """A live list without pages. Since clients load all of it, it has at most ``max_count`` items."""

    pagination_class = None
    lookup_value_converter = "int"
    max_count = 100

    async def perform_create(self, values: Values) -> Row:
        async with USERS.session():  # no other task can add an item between the count and the insert
            if await self.get_queryset().count() >= self.max_count:
                raise Conflict(f"There are already {self.max_count}. Delete one before you add another.")
            return await super().perform_create(values)


class CommentHandler(
    BaseHandler, BoundedListMixin[tables.Comment, models.Comment], ModelAPIActionHandler[tables.Comment, models.Comment]
):
    """The comments of a card."""

    queryset = COMMENTS
    serializer_class = models.Comment
    permission_classes = (IsAuthor,)
    max_count = 200

    def get_queryset(self) -> QuerySet[tables.Comment]:
        return super().get_queryset().filter(board_id=self.kwargs["board"], card_id=self.kwargs["card"])

    async def perform_create(self, values: Values) -> tables.Comment:
        card = await self._count(+1)
        written = {**values, "board_id": card.board_id, "card_id": card.id, "author_id": self.user.id}
        return await super().perform_create(written)

    async def perform_destroy(self, comment: tables.Comment) -> None:
        await self._count(-1)
        await super().perform_destroy(comment)

    async def _count(self, change: int) -> tables.Card:
        """Changes the card's comment count in the database, so that no count is lost, and publishes the card."""
        card = await CARDS.get(pk=self.kwargs["card"], board_id=self.kwargs["board"])
        card = await CARDS.update(card, {"comment_count": tables.Card.comment_count + change})
        await self.app.publish_object(f"boards/{card.board_id}/cards/{card.id}/", "updated", card)
        return card


class CardHandler(
    BaseHandler, BoundedListMixin[tables.Card, models.Card], ModelAPIActionHandler[tables.Card, models.Card]
):
    """The cards of a board."""

    queryset = CARDS
    serializer_class = models.Card
    max_count = 300
    events = {"moved": models.Moved}

    def get_queryset(self) -> QuerySet[tables.Card]:
        return super().get_queryset().filter(board_id=self.kwargs["board"])

    @async_action(status=201)
    async def create(self, data: models.NewCard) -> Output:
        """Adds a card at the end of a column."""
        async with CARDS.session():  # as in `move`
            column = await self._column(data.column_id)
            last = await CARDS.filter(column_id=column.id).order_by("-position").first()
            position = between(None if last is None else last.position, None)
            values = {**data.model_dump(), "board_id": column.board_id, "position": position}
            return self.serialize(await self.perform_create(values))

    @async_action(detail=True)
    async def move(self, data: models.Move) -> Output:
        """Moves a card before another card of a column, or to its end."""
        # Concurrent moves are safe. session() holds SQLite's write lock until the unit of work is committed, so the
        # neighbours cannot change between reading them and writing the card. If two processes choose one position at
        # the same time, the unique constraint refuses one of them.
        async with CARDS.session():
            card = await self.get_object()
            column = await self._column(data.column_id)
            try:
                position = await self._position(column, card, data.before)
                card = await self.perform_update(card, {"column_id": column.id, "position": position})
            except Conflict:
                raise Conflict("Another card was moved there at the same moment. Move the card again.") from None
        moved = models.Moved(card_id=card.id, column_id=column.id, by=models.Person.model_validate(self.user))
        await self.app.publish(f"boards/{card.board_id}/cards/", "moved", moved)
        return self.serialize(card)

    async def _column(self, pk: int) -> tables.Column:
        return await COLUMNS.get(pk=pk, board_id=self.kwargs["board"])

    async def _position(self, column: tables.Column, card: tables.Card, before: int | None) -> int:
        """A free position between two cards of a column. If there is none, renumbers and publishes all its cards."""
        others = [one async for one in CARDS.filter(column_id=column.id).exclude(pk=card.id).order_by("position")]
        at = next((number for number, one in enumerate(others) if one.id == before), len(others))
        above, below = others[at - 1].position if at else None, others[at].position if at < len(others) else None
        position = between(above, below)
        if position is not None:
            return position
        numbers = list(renumbered(len(others) + 1, above=max(card.position, others[-1].position)))
        position = numbers.pop(at)
        for other, number in zip(others, numbers, strict=True):
            await self.perform_update(other, {"position": number})
        return position


class ColumnHandler(
    BaseHandler, BoundedListMixin[tables.Column, models.Column], ModelAPIActionHandler[tables.Column, models.Column]
):
    """The columns of a board. Deleting a column deletes its cards, without an event for each of them."""

    queryset = COLUMNS
    serializer_class = models.Column
    max_count = 20

    def get_queryset(self) -> QuerySet[tables.Column]:
        return super().get_queryset().filter(board_id=self.kwargs["board"])

    async def perform_create(self, values: Values) -> tables.Column:
        return await super().perform_create({**values, "board_id": self.kwargs["board"]})


board_router = SimpleRouter()
board_router.register("columns", ColumnHandler)
board_router.register("cards", CardHandler)
board_router.register("cards/<int:card>/comments", CommentHandler)


class BoardsMixin(BaseHandler, GenericAsyncAPIActionHandler[tables.Board, models.Board]):
    """The boards of which the user is a member. Their changes are published to the board and to all its members."""

    queryset = BOARDS
    serializer_class = models.Board

    def get_queryset(self) -> QuerySet[tables.Board]:
        return super().get_queryset().filter(members__id=self.user.id)

    def get_event_routes(self, event: str, board: tables.Board) -> Sequence[str]:
        return [f"boards/{board.id}/", *(f"users/{one.id}/boards/" for one in board.members)]


class MyBoardsHandler(
    BoundedListMixin[tables.Board, models.Board], BoardsMixin, ListCreateAPIActionHandler[tables.Board, models.Board]
):
    """The boards of one user, with a list and a topic for each user."""

    permission_classes = (IsAuthenticated, is_self)

    async def perform_create(self, values: Values) -> tables.Board:
        owned = {**values, "owner_id": self.user.id, "members": [await USERS.get(pk=self.user.id)]}
        return await super().perform_create(owned)


class BoardHandler(PresenceMixin, BoardsMixin, RetrieveUpdateDestroyAPIActionHandler[tables.Board, models.Board]):
    """One board, its viewers, and all routes below it, to which its permissions apply too."""

    lookup_url_kwarg = "board"
    permission_classes = (IsAuthenticated, IsMember, IsBoardOwner)
    routepatterns = board_router.urls

    @async_action(status=201)
    async def invite(self, name: str) -> Output:
        """Makes a user a member of the board."""
        board = await self.get_object()
        user = await USERS.filter(name=name).first()
        if user is None:
            raise NotFound(f"There is no user {name}.")
        if user in board.members:
            raise Conflict(f"{name} is already a member.")
        return self.serialize(await self.perform_update(board, {"members": [*board.members, user]}))

    @async_action
    async def dismiss(self, user_id: int) -> Output:
        """Removes a member. Their subscriptions to the board end at once."""
        board = await self.get_object()
        if user_id == board.owner_id:
            raise Conflict("The owner of a board cannot be removed.")
        left = [one for one in board.members if one.id != user_id]
        board = await self.perform_update(board, {"members": left})
        await self.app.publish(f"users/{user_id}/boards/", "deleted", {"pk": board.id})
        await self.app.revoke_user(user_id)  # checks the permissions of all their subscriptions again, after the commit
        return self.serialize(board)
