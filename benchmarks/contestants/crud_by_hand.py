"""The CRUD job by hand with FastAPI's WebSocket: a session per action, pydantic in and out, and 404 for missing cards.

In memory, it uses a dict. This is 1.00.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ValidationError
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import async_sessionmaker

from benchmarks.contestants.crud_cards import PAGE, Card, CardIn, CardOut

__all__ = ("in_database", "in_memory")


class Frame(BaseModel):
    action: str
    route: str = ""
    data: Any = None
    request_id: str | None = None


class Page(BaseModel):
    count: int
    next: str | None
    previous: str | None
    results: list[CardOut]


class Reply(BaseModel):
    errors: list[Any]
    data: CardOut | Page | None = None
    action: str | None
    route: str | None
    status: int
    request_id: str | None


class Refused(Exception):
    def __init__(self, status: int, *errors: Any):
        self.status, self.errors = status, list(errors)


Work = Callable[..., Awaitable[CardOut | Page]]
Routes = list[tuple[Callable[[str], re.Match[str] | None], Mapping[str, Work]]]


def routes(listed: Work, retrieve: Work, update: Work) -> Routes:
    return [
        (re.compile("^cards/$").match, {"list": listed}),
        (re.compile("^cards/(?P<pk>[0-9]+)/$").match, {"retrieve": retrieve, "update": update}),
    ]


def page_of(query: str) -> int:
    asked = parse_qs(query).get("page", ["1"])[0]
    if not asked.isdigit() or asked == "0":
        raise Refused(404, "no such page")
    return int(asked)


def paged(number: int, count: int, results: list[CardOut]) -> Page:
    if not results and number > 1:
        raise Refused(404, "no such page")
    return Page(
        count=count,
        next=f"cards/?page={number + 1}" if number * PAGE < count else None,
        previous=None if number == 1 else f"cards/?page={number - 1}" if number > 2 else "cards/",
        results=results,
    )


def in_database(sessionmaker: async_sessionmaker[Any]) -> FastAPI:
    """The app with its cards in a database."""

    async def listed(data: Any, query: str) -> Page:
        number = page_of(query)
        async with sessionmaker() as session:
            count = await session.scalar(select(func.count()).select_from(Card)) or 0
            found = await session.scalars(select(Card).order_by(Card.id).offset((number - 1) * PAGE).limit(PAGE))
            return paged(number, count, [CardOut.model_validate(card) for card in found])

    async def retrieve(data: Any, query: str, pk: int) -> CardOut:
        async with sessionmaker() as session:
            if (card := await session.get(Card, pk)) is None:
                raise Refused(404, "no such card")
            return CardOut.model_validate(card)

    async def update(data: Any, query: str, pk: int) -> CardOut:
        values = CardIn.model_validate(data).model_dump()
        async with sessionmaker() as session:
            if (card := await session.get(Card, pk)) is None:
                raise Refused(404, "no such card")
            for name, value in values.items():
                setattr(card, name, value)
            await session.commit()
            return CardOut.model_validate(card)

    return make(routes(listed, retrieve, update))


def in_memory(first: list[CardOut]) -> FastAPI:
    """The app with its cards in a dict."""
    kept = {card.id: card for card in first}

    async def listed(data: Any, query: str) -> Page:
        number = page_of(query)
        return paged(number, len(kept), [kept[key] for key in sorted(kept)[(number - 1) * PAGE : number * PAGE]])

    async def retrieve(data: Any, query: str, pk: int) -> CardOut:
        if (card := kept.get(pk)) is None:
            raise Refused(404, "no such card")
        return card

    async def update(data: Any, query: str, pk: int) -> CardOut:
        values = CardIn.model_validate(data).model_dump()
        if (card := kept.get(pk)) is None:
            raise Refused(404, "no such card")
        kept[pk] = card = card.model_copy(update=values)
        return card

    return make(routes(listed, retrieve, update))


async def handle(user: Any, frame: Frame, routes: Routes) -> Reply:
    action, route, request_id = frame.action, frame.route, frame.request_id
    try:
        path, _, query = route.partition("?")
        for match_route, actions in routes:  # noqa: B007  # used after the break
            if match := match_route(path):
                break
        else:
            raise Refused(404, "no such route")
        if user is None:
            raise Refused(403, "authentication required")
        if action not in actions:
            raise Refused(405, "no such action")
        kwargs = {name: int(value) for name, value in match.groupdict().items()}
        data = await actions[action](frame.data, query, **kwargs)
        return Reply(errors=[], data=data, action=action, route=route, status=200, request_id=request_id)
    except ValidationError as exc:
        status, errors = 400, exc.errors(include_url=False, include_context=False)
    except Refused as exc:
        status, errors = exc.status, exc.errors
    return Reply(errors=errors, action=action, route=route, status=status, request_id=request_id)


def user_of(websocket: WebSocket) -> Any:
    return websocket.scope["user"]


def make(routes: Routes) -> FastAPI:
    app = FastAPI()

    @app.websocket("/ws")
    async def cards(websocket: WebSocket, user: Annotated[Any, Depends(user_of)]) -> None:
        await websocket.accept()
        try:
            while True:
                frame = Frame.model_validate_json(await websocket.receive_text())
                reply = await handle(user, frame, routes)
                await websocket.send_text(reply.model_dump_json())
        except WebSocketDisconnect:
            pass

    return app
