"""The fan-out by hand: an event is encoded once and sent to each connection in turn."""

import json
from collections import defaultdict
from typing import Any

__all__ = ("app",)

rooms: dict[str, dict[Any, None]] = defaultdict(dict)


async def app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    try:
        while (message := await receive())["type"] == "websocket.receive":
            frame = json.loads(message["text"])
            if frame["action"] == "subscribe":
                rooms[frame["route"]][send] = None
                await send({"type": "websocket.send", "text": '{"status":200}'})
            else:
                text = json.dumps({"event": "told", "route": frame["route"], "data": frame["data"]})
                for to in tuple(rooms[frame["route"]]):
                    await to({"type": "websocket.send", "text": text})
    finally:
        for members in rooms.values():
            members.pop(send, None)
