"""Routes: boards and their cards behind one socket, with a dependency, a middleware and an error of the app's own."""

import time
from typing import Annotated

from pydantic import BaseModel

from wsaction import APIError, AsyncAPIActionHandler, AsyncAPIConsumer, Depends, NotFound, WSAction, async_action, path
from wsaction.applications import CallNext


class Board(BaseModel):
    title: str
    cards: dict[str, str] = {}


BOARDS = {1: Board(title="House", cards={"roof": "Mend the roof"}), 2: Board(title="Garden")}


class BoardClosed(Exception):
    """An exception that knows nothing of the web."""


async def get_board(board_pk: int) -> Board:  # from the route
    if board_pk not in BOARDS:
        raise NotFound(f"There is no board {board_pk}.")
    return BOARDS[board_pk]


CurrentBoard = Annotated[Board, Depends(get_board)]


class CardHandler(AsyncAPIActionHandler):
    """One card of a board."""

    @async_action
    async def retrieve(self, board: CurrentBoard, card: str) -> str:
        if card not in board.cards:
            raise NotFound(f"There is no card {card!r}.")
        return board.cards[card]

    @async_action
    async def rename(self, board: CurrentBoard, card: str, title: str) -> str:
        if board.title == "Garden":
            raise BoardClosed("It is winter.")
        board.cards[card] = title
        return title


class BoardHandler(AsyncAPIActionHandler):
    """One board. The handlers below are behind its permissions."""

    routepatterns = [path("cards/<slug:card>/", CardHandler.as_aaah(), name="card")]

    @async_action
    async def retrieve(self, board: CurrentBoard) -> Board:
        return board


class BoardsHandler(AsyncAPIActionHandler):
    """All boards."""

    @async_action
    async def list(self) -> list[str]:
        """Returns the titles. `boards/?search=ho` narrows them."""
        search = self.query_params.get("search", "")
        return [board.title for board in BOARDS.values() if search.lower() in board.title.lower()]


class Root(AsyncAPIConsumer):
    """The consumer: its own actions are at the empty route."""

    routepatterns = [
        path("boards/", BoardsHandler.as_aaah(), name="boards"),
        path("boards/<int:board_pk>/", BoardHandler.as_aaah(), name="board"),
    ]

    @async_action
    async def now(self) -> float:
        return time.time()


async def timed(handler: AsyncAPIActionHandler, call_next: CallNext) -> object:
    """Middleware: says how long each action took."""
    start = time.perf_counter()
    try:
        return await call_next(handler)
    finally:
        print(f"{handler.action} at {handler.route!r} took {time.perf_counter() - start:.4f} s")


def closed(handler: AsyncAPIActionHandler, error: Exception) -> APIError:
    return APIError(423, "board_closed", str(error))


app = WSAction(
    [path("ws/", Root.as_asgi())],
    middleware=[timed],
    exception_handlers={BoardClosed: closed},
    title="Boards",
)
