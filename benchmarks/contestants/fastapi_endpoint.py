"""The action job on FastAPI: a WebSocket function with the user as a dependency and the frame as a model.

The rest is by hand.
"""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect
from pydantic import BaseModel

from benchmarks.contestants.by_hand import ROUTES, WAITING_ROUTES, handle


class Frame(BaseModel):
    action: str
    route: str = ""
    data: Any = None
    request_id: str | None = None


def user_of(websocket: WebSocket) -> Any:
    return websocket.scope["user"]


def make(routes: Any) -> FastAPI:
    app = FastAPI()

    @app.websocket("/ws")
    async def cards(websocket: WebSocket, user: Annotated[Any, Depends(user_of)]) -> None:
        await websocket.accept()
        try:
            while True:
                frame = Frame.model_validate_json(await websocket.receive_text())
                reply = await handle(user, frame.model_dump(), routes)
                await websocket.send_text(reply.model_dump_json())
        except WebSocketDisconnect:
            pass

    return app


app, waiting_app = make(ROUTES), make(WAITING_ROUTES)
