"""The fan-out on chanx: a message is broadcast to a group of fast-channels' in-memory layer."""

import logging
from typing import Any, Literal

import structlog
from chanx.core.decorators import channel, ws_handler
from chanx.fast_channels.websocket import AsyncJsonWebsocketConsumer
from chanx.messages.base import BaseMessage
from fast_channels.layers import InMemoryChannelLayer, register_channel_layer
from pydantic import BaseModel

__all__ = ("app",)

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # else it logs a line per frame

register_channel_layer("feed", InMemoryChannelLayer())


class Subscribe(BaseMessage):
    action: Literal["subscribe"] = "subscribe"
    payload: str


class Subscribed(BaseMessage):
    action: Literal["subscribed"] = "subscribed"
    payload: None = None


class Speech(BaseModel):
    room: str
    text: str


class Tell(BaseMessage):
    action: Literal["tell"] = "tell"
    payload: Speech


class Told(BaseMessage):
    action: Literal["told"] = "told"
    payload: str


@channel(name="feed")
class Feed(AsyncJsonWebsocketConsumer):
    channel_layer_alias = "feed"
    groups: list[str] = []

    @ws_handler
    async def subscribe(self, message: Subscribe) -> Subscribed:
        await self.join_group(message.payload)
        return Subscribed()

    @ws_handler(output_type=Told)
    async def tell(self, message: Tell) -> None:
        await self.broadcast_message(Told(payload=message.payload.text), groups=[message.payload.room])


app: Any = Feed.as_asgi()
