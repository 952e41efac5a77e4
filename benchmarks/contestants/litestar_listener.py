"""The action job on litestar: a `websocket_listener`, which gets decoded JSON, and msgspec structs."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from litestar import Litestar, WebSocket
from litestar.handlers import websocket_listener

from benchmarks.contestants.by_hand import PATTERNS, TARGET, compile_pattern
from benchmarks.contestants.by_hand_msgspec import Card, CardIn, Reply
from benchmarks.job import pause


async def update_card(data: CardIn, board_id: int, pk: int) -> Card:
    return Card(id=pk, board_id=board_id, title=data.title, position=data.position, tags=data.tags)


async def update_card_waiting(data: CardIn, board_id: int, pk: int) -> Card:
    await pause()
    return await update_card(data, board_id, pk)


Update = Callable[[CardIn, int, int], Awaitable[Card]]


def routes(update: Update) -> list[tuple[Callable[[str], Any], dict[str, Update]]]:
    return [(compile_pattern(pattern), {"update": update} if pattern == TARGET else {}) for pattern in PATTERNS]


def make(update: Update) -> Litestar:
    table = routes(update)

    @websocket_listener("/ws")
    async def listen(data: dict[str, Any], socket: WebSocket[Any, Any, Any]) -> Reply:
        action, route, request_id = data["action"], data.get("route", ""), data.get("request_id")

        def refused(status: int, msg: str) -> Reply:
            return Reply([msg], None, action, route, status, request_id)

        for matches, actions in table:  # noqa: B007  # used after the break
            if match := matches(route):
                break
        else:
            return refused(404, "no such route")
        if socket.scope["user"] is None:
            return refused(403, "authentication required")
        if action not in actions:
            return refused(405, "no such action")
        try:
            fields = msgspec.convert(data.get("data"), CardIn)
        except msgspec.ValidationError as exc:
            return refused(400, str(exc))
        card = await actions[action](fields, int(match["board_id"]), int(match["pk"]))
        return Reply([], card, action, route, 200, request_id)

    return Litestar([listen], openapi_config=None)


app, waiting_app = make(update_card), make(update_card_waiting)
