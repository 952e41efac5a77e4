"""The action job on Starlette: a `WebSocketEndpoint` that reads JSON. The rest is by hand."""

from typing import Any

from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from benchmarks.contestants.by_hand import ROUTES, WAITING_ROUTES, handle


class Cards(WebSocketEndpoint):
    encoding = "json"
    routes = ROUTES

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        reply = await handle(websocket.scope["user"], data, self.routes)
        await websocket.send_text(reply.model_dump_json())


class WaitingCards(Cards):
    routes = WAITING_ROUTES


app = Starlette(routes=[WebSocketRoute("/ws", Cards)])
waiting_app = Starlette(routes=[WebSocketRoute("/ws", WaitingCards)])
