"""The fan-out on litestar: a channel of its plugin, in memory."""

from typing import Any

from litestar import Litestar, WebSocket, websocket
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend

__all__ = ("app",)


@websocket("/ws")
async def feed(socket: WebSocket[Any, Any, Any], channels: ChannelsPlugin) -> None:
    await socket.accept()
    frame = await socket.receive_json()
    while frame["action"] != "subscribe":
        channels.publish({"event": "told", "route": frame["route"], "data": frame["data"]}, frame["route"])
        frame = await socket.receive_json()
    async with (
        channels.start_subscription([frame["route"]]) as subscriber,
        subscriber.run_in_background(socket.send_text),
    ):
        await socket.send_json({"status": 200})
        await socket.receive_json()


app = Litestar(
    [feed], plugins=[ChannelsPlugin(MemoryChannelsBackend(), arbitrary_channels_allowed=True)], openapi_config=None
)
