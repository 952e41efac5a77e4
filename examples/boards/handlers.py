"""Boards, columns, cards and comments: generic handlers, live, and what is special about each of them.

A route is a topic, so routes are made for who should be told what: ``users/3/boards/`` is the list of one user, and
``boards/7/`` and all that is below it is for the members of that board.
"""

from collections.abc import Sequence
from typing import Any

from examples.boards import models, tables
from examples.boards.permissions import IsAuthor, IsBoardOwner, IsMember, is_self
from examples.boards.positions import between, renumbered
from examples.boards.tables import BOARDS, CARDS, COLUMNS, COMMENTS, USERS
from wsaction.decorators import async_action
from wsaction.exceptions import Conflict, NotFound
from wsaction.generics import (
    GenericAsyncAPIActionHandler,
    ListCreateAPIActionHandler,
    ModelAPIActionHandler,
    RetrieveUpdateDestroyAPIActionHandler,
)
from wsaction.mixins import CreateModelMixin, Output
from wsaction.permissions import IsAuthenticated
from wsaction.presence import PresenceMixin
from wsaction.routers import SimpleRouter
from wsaction.subscriptions import SubscribeMixin


class BoundedListMixin(SubscribeMixin, CreateModelMixin):
    """A live list that is shown as a whole, without pages, and therefore has a bound."""

    pagination_class = None
    lookup_value_converter = "int"
    max_count = 100

    async def perform_create(self: Any, values: dict[str, Any]) -> Any:
        async with self.queryset.session():  # nobody adds another one between counting and adding
            if await self.get_queryset().count() >= self.max_count:
                raise Conflict(f"There are {self.max_count} already. Delete one before you add another.")
            return await super().perform_create(values)


class CommentHandler(BoundedListMixin, ModelAPIActionHandler):
    """The comments of a card."""

    queryset = COMMENTS
    serializer_class = models.Comment
    permission_classes = (IsAuthor,)
    max_count = 200

    def get_queryset(self) -> Any:
        return super().get_queryset().filter(board_id=self.kwargs["board"], card_id=self.kwargs["card"])

    async def perform_create(self, values: dict[str, Any]) -> tables.Comment:
        card = await self._count(+1)
        written = {**values, "board_id": card.board_id, "card_id": card.id, "author_id": self.user.id}
        comment: tables.Comment = await super().perform_create(written)
        return comment

    async def perform_destroy(self, comment: tables.Comment) -> None:
        await self._count(-1)
        await super().perform_destroy(comment)

    async def _count(self, change: int) -> tables.Card:
        """Counts in the database, where nothing is lost, and tells those who look at the cards."""
        card = await CARDS.get(pk=self.kwargs["card"], board_id=self.kwargs["board"])
        card = await CARDS.update(card, {"comment_count": tables.Card.comment_count + change})
        await self.app.publish_object(f"boards/{card.board_id}/cards/{card.id}/", "updated", card)
        return card


class CardHandler(BoundedListMixin, ModelAPIActionHandler):
    """The cards of a board."""

    queryset = CARDS
    serializer_class = models.Card
    max_count = 300
    events = {"moved": models.Moved}

    def get_queryset(self) -> Any:
        return super().get_queryset().filter(board_id=self.kwargs["board"])

    @async_action(status=201)
    async def create(self, data: models.NewCard) -> Output:
        """Adds a card at the end of a column."""
        async with self.queryset.session():  # as in `move`
            column = await self._column(data.column_id)
            last = await CARDS.filter(column_id=column.id).order_by("-position").first()
            position = between(None if last is None else last.position, None)
            values = {**data.model_dump(), "board_id": column.board_id, "position": position}
            return self.serialize(await self.perform_create(values))

    @async_action(detail=True)
    async def move(self, data: models.Move) -> Output:
        """Puts a card before another one of a column, or at its end."""
        # Right under concurrent moves: who enters session() has SQLite to himself for writing until his unit of work is
        # committed, so that nothing changes between the neighbours being read and the card being put there. Another
        # process may do the same at the same time: then the unique constraint on positions refuses one of the two.
        async with self.queryset.session():
            card = await self.get_object()
            column = await self._column(data.column_id)
            try:
                position = await self._position(column, card, data.before)
                card = await self.perform_update(card, {"column_id": column.id, "position": position})
            except Conflict:
                raise Conflict("Somebody put a card there at the same moment. Move it once more.") from None
        moved = models.Moved(card_id=card.id, column_id=column.id, by=models.Person.model_validate(self.user))
        await self.app.publish(f"boards/{card.board_id}/cards/", "moved", moved)
        return self.serialize(card)

    async def _column(self, pk: int) -> tables.Column:
        return await COLUMNS.get(pk=pk, board_id=self.kwargs["board"])

    async def _position(self, column: tables.Column, card: tables.Card, before: int | None) -> int:
        """A free position between two cards of a column. Where there is none, they are numbered anew, and told so."""
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


class ColumnHandler(BoundedListMixin, ModelAPIActionHandler):
    """The columns of a board. With a column go its cards, of which nobody is told one by one."""

    queryset = COLUMNS
    serializer_class = models.Column
    max_count = 20

    def get_queryset(self) -> Any:
        return super().get_queryset().filter(board_id=self.kwargs["board"])

    async def perform_create(self, values: dict[str, Any]) -> tables.Column:
        column: tables.Column = await super().perform_create({**values, "board_id": self.kwargs["board"]})
        return column


board_router = SimpleRouter()
board_router.register("columns", ColumnHandler)
board_router.register("cards", CardHandler)
board_router.register("cards/<int:card>/comments", CommentHandler)


class BoardsMixin(GenericAsyncAPIActionHandler):
    """The boards that somebody is a member of, and whom their changes are told to."""

    queryset = BOARDS
    serializer_class = models.Board

    def get_queryset(self) -> Any:
        return super().get_queryset().filter(members__id=self.user.id)

    def get_event_routes(self, event: str, board: tables.Board) -> Sequence[str]:
        return [f"boards/{board.id}/", *(f"users/{one.id}/boards/" for one in board.members)]


class MyBoardsHandler(BoundedListMixin, BoardsMixin, ListCreateAPIActionHandler):
    """The boards of a user: a list of his own, and a topic of his own."""

    permission_classes = (IsAuthenticated, is_self)

    async def perform_create(self, values: dict[str, Any]) -> tables.Board:
        owned = {**values, "owner_id": self.user.id, "members": [await USERS.get(pk=self.user.id)]}
        board: tables.Board = await super().perform_create(owned)
        return board


class BoardHandler(PresenceMixin, BoardsMixin, RetrieveUpdateDestroyAPIActionHandler):
    """One board, who looks at it, and all that is on it: its permissions are those of every route below."""

    lookup_url_kwarg = "board"
    permission_classes = (IsAuthenticated, IsMember, IsBoardOwner)
    routepatterns = board_router.urls

    @async_action(status=201)
    async def invite(self, name: str) -> Output:
        """Makes somebody a member."""
        board = await self.get_object()
        user = await USERS.filter(name=name).first()
        if user is None:
            raise NotFound(f"There is nobody called {name}.")
        if user in board.members:
            raise Conflict(f"{name} is a member already.")
        return self.serialize(await self.perform_update(board, {"members": [*board.members, user]}))

    @async_action
    async def dismiss(self, user_id: int) -> Output:
        """Ends a membership: from now on the board is none of his business."""
        board = await self.get_object()
        if user_id == board.owner_id:
            raise Conflict("The owner of a board stays its member.")
        left = [one for one in board.members if one.id != user_id]
        board = await self.perform_update(board, {"members": left})
        await self.app.publish(f"users/{user_id}/boards/", "deleted", {"pk": board.id})
        await self.app.revoke_user(user_id)  # all that he is subscribed to is asked for anew, after the commit
        return self.serialize(board)
