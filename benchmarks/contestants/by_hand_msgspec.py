"""The action job by hand, tuned as far as possible with msgspec: compiled schemas and cached routes.

It omits what a framework needs: it has a fixed route table, one kind of reply, no ordering, no limits and no hooks.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from benchmarks.contestants.by_hand import PATTERNS, TARGET, compile_pattern
from benchmarks.job import pause


class CardIn(msgspec.Struct):
    title: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    position: Annotated[int, msgspec.Meta(ge=0)]
    tags: list[str]


class Card(msgspec.Struct):
    id: int
    board_id: int
    title: str
    position: int
    tags: list[str]


class Frame(msgspec.Struct):
    action: str
    route: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    request_id: str | None = None


class Reply(msgspec.Struct):
    errors: list[Any]
    data: Card | None
    action: str | None
    route: str | None
    status: int
    request_id: str | None


async def update_card(data: CardIn, board_id: int, pk: int) -> Card:
    return Card(pk, board_id, data.title, data.position, data.tags)


async def update_card_waiting(data: CardIn, board_id: int, pk: int) -> Card:
    await pause()
    return Card(pk, board_id, data.title, data.position, data.tags)


ROUTES = [(compile_pattern(pattern), pattern == TARGET) for pattern in PATTERNS]
read_frame = msgspec.json.Decoder(Frame).decode
read_card = msgspec.json.Decoder(CardIn).decode
write = msgspec.json.Encoder().encode


@lru_cache(1024)
def resolve(route: str) -> tuple[bool, int, int] | None:
    for matches, can_update in ROUTES:
        if match := matches(route):
            return can_update, int(match["board_id"]), int(match["pk"])
    return None


def serve(update: Callable[[CardIn, int, int], Any]) -> Callable[..., Any]:
    async def answer(user: Any, frame: Frame) -> Reply:
        found = resolve(frame.route)
        if found is None:
            return refused(frame, 404, "no such route")
        if user is None:
            return refused(frame, 403, "authentication required")
        can_update, board_id, pk = found
        if not can_update or frame.action != "update":
            return refused(frame, 405, "no such action")
        try:
            data = read_card(frame.data)
        except msgspec.ValidationError as exc:
            return refused(frame, 400, str(exc))
        card = await update(data, board_id, pk)
        return Reply([], card, frame.action, frame.route, 200, frame.request_id)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        user = scope["user"]
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            reply = await answer(user, read_frame(event["text"]))
            await send({"type": "websocket.send", "text": write(reply).decode()})

    return app


def refused(frame: Frame, status: int, msg: str) -> Reply:
    return Reply([msg], None, frame.action, frame.route, status, frame.request_id)


app, waiting_app = serve(update_card), serve(update_card_waiting)
