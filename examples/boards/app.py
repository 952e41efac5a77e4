"""The whole site as one FastAPI app: the page, an HTTP endpoint that changes a card, the socket and its explorer."""

from functools import cache
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from examples.boards import models
from examples.boards.live import live
from examples.boards.sign_in import TokenAuthentication
from examples.boards.tables import BOARDS, CARDS, User
from wsaction.codegen import erase_types, typescript
from wsaction.exceptions import APIError, NotFound
from wsaction.transactions import unit_of_work

PAGE = Path(__file__).parent / "page"

app = FastAPI(title="Boards", lifespan=live.lifespan, docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")


class CardChange(BaseModel):
    """The fields of a card to change; a missing field stays as it is."""

    title: models.Title = ""
    notes: str = Field("", max_length=2_000)


async def signed_in(sent: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> User:
    """The user whose token the request has. The socket accepts the same tokens."""
    user: User = (await TokenAuthentication().verify(sent.credentials)).user
    return user


@app.patch("/api/boards/{board}/cards/{pk}")
async def change_card(
    board: int, pk: int, change: CardChange, user: Annotated[User, Depends(signed_in)]
) -> models.Card:
    """Changes a card. Everyone who looks at the board sees the change at once."""
    async with unit_of_work():
        if not await BOARDS.filter(pk=board, members__id=user.id).exists():
            raise NotFound
        card = await CARDS.get(pk=pk, board_id=board)
        card = await CARDS.update(card, change.model_dump(exclude_unset=True))
        await live.publish_object(f"boards/{board}/cards/{pk}/", "updated", card)  # sent after the commit
    return models.Card.model_validate(card, from_attributes=True)


@app.exception_handler(APIError)
async def as_http(request: Request, error: APIError) -> JSONResponse:
    """Answers an `APIError`, which the socket's code raises, with its HTTP status."""
    return JSONResponse({"errors": error.errors}, error.status)


@app.get("/", include_in_schema=False)
async def index() -> FileResponse:
    return FileResponse(PAGE / "index.html")


@cache
def scripts() -> dict[str, str]:
    """The page's JavaScript by name: the TypeScript of `page/` and the client for `live`, with types erased."""
    sources = {file.stem: file.read_text("utf-8") for file in PAGE.glob("*.ts")}
    sources["client"] = typescript(live.asyncapi(), "ws")
    return {name: erase_types(source, f"{name}.ts") for name, source in sources.items()}


@app.get("/page/{name}.js", include_in_schema=False)
async def script(name: str) -> Response:
    if name not in scripts():
        raise NotFound
    return Response(scripts()[name], media_type="text/javascript")


app.mount("/page", StaticFiles(directory=PAGE))
app.mount("", live)  # /ws/, /docs and /asyncapi.json
