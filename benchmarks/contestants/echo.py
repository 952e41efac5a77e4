"""A bare ASGI app that does no work: the maximum of server and load, and the memory of a bare connection."""

from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


waiting_app = app
