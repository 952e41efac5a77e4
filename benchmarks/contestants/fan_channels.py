"""The fan-out on Django Channels: a group of its in-memory layer."""

from typing import Any

from benchmarks.contestants.django_settings import set_up

set_up()

from channels.generic.websocket import AsyncJsonWebsocketConsumer  # noqa: E402  # Django comes first

__all__ = ("app",)


class Feed(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        if content["action"] == "subscribe":
            await self.channel_layer.group_add(content["route"], self.channel_name)
            await self.send_json({"status": 200})
        else:
            told = {"type": "told", "route": content["route"], "data": content["data"]}
            await self.channel_layer.group_send(content["route"], told)

    async def told(self, event: Any) -> None:
        await self.send_json({"event": "told", "route": event["route"], "data": event["data"]})


app = Feed.as_asgi()
