"""The action job by hand, as a good engineer writes it on bare ASGI with json, re and pydantic. This is 1.00.

`app` answers without waiting; `waiting_app` is the same with an action that waits.
"""

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from benchmarks.job import pause

WORDS = (
    "members labels lists columns swimlanes sprints milestones releases comments attachments "
    "checklists reminders webhooks filters templates automations invitations exports reports cards"
)
NAMES = WORDS.split()
PATTERNS = [f"boards/<int:board_id>/{name}/<int:pk>/" for name in NAMES]
TARGET = PATTERNS[-1]


class CardIn(BaseModel):
    title: Annotated[str, Field(min_length=1, max_length=200)]
    position: Annotated[int, Field(ge=0)]
    tags: list[str]


class Card(BaseModel):
    id: int
    board_id: int
    title: str
    position: int
    tags: list[str]


class Reply(BaseModel):
    errors: list[Any]  # no default: pydantic deep-copies a mutable one
    data: Card | None = None
    action: str | None
    route: str | None
    status: int
    request_id: str | None


class Refused(Exception):
    def __init__(self, status: int, *errors: Any):
        self.status, self.errors = status, list(errors)


async def update_card(user: Any, data: CardIn, board_id: int, pk: int) -> Card:
    return Card(id=pk, board_id=board_id, title=data.title, position=data.position, tags=data.tags)


async def update_card_waiting(user: Any, data: CardIn, board_id: int, pk: int) -> Card:
    await pause()
    return await update_card(user, data, board_id, pk)


async def update_other(user: Any, data: CardIn, board_id: int, pk: int) -> Card:
    raise Refused(405, "not this one")


def compile_pattern(pattern: str) -> Any:
    return re.compile("^" + re.sub(r"<int:(\w+)>", r"(?P<\1>[0-9]+)", pattern) + "$").match


def routes(update: Any) -> Any:
    return [(compile_pattern(p), {"update": (CardIn, update if p == TARGET else update_other)}) for p in PATTERNS]


ROUTES = routes(update_card)
WAITING_ROUTES = routes(update_card_waiting)


async def handle(user: Any, message: dict[str, Any], routes: Any) -> Reply:
    action, route, request_id = message.get("action"), message.get("route"), message.get("request_id")
    try:
        for match_route, actions in routes:  # noqa: B007  # used after the break
            if match := match_route(route):
                break
        else:
            raise Refused(404, "no such route")
        if user is None:
            raise Refused(403, "authentication required")
        if action not in actions:
            raise Refused(405, "no such action")
        schema, run = actions[action]
        data = schema.model_validate(message.get("data"))
        kwargs = {name: int(value) for name, value in match.groupdict().items()}
        card = await run(user, data, **kwargs)
        return Reply(errors=[], data=card, action=action, route=route, status=200, request_id=request_id)
    except ValidationError as exc:
        status, errors = 400, exc.errors(include_url=False, include_context=False)
    except Refused as exc:
        status, errors = exc.status, exc.errors
    return Reply(errors=errors, action=action, route=route, status=status, request_id=request_id)


async def serve(scope: Any, receive: Any, send: Any, routes: Any) -> None:
    user = scope["user"]
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        reply = await handle(user, json.loads(event["text"]), routes)
        await send({"type": "websocket.send", "text": reply.model_dump_json()})


async def app(scope: Any, receive: Any, send: Any) -> None:
    await serve(scope, receive, send, ROUTES)


async def waiting_app(scope: Any, receive: Any, send: Any) -> None:
    await serve(scope, receive, send, WAITING_ROUTES)
