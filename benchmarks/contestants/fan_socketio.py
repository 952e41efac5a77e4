"""The fan-out on python-socketio: a room."""

from typing import Any

import socketio

__all__ = ("app",)

server = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*")


@server.event
async def subscribe(sid: str, route: str) -> int:
    await server.enter_room(sid, route)
    return 200


@server.event
async def tell(sid: str, route: str, data: str) -> None:
    await server.emit("told", data, room=route)


app: Any = socketio.ASGIApp(server)
