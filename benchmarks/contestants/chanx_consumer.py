"""The action job on chanx: a message type with a validated payload, and a handler that returns the reply.

The route and the permission are by hand. chanx answers invalid payloads with an error message of its own.
"""

import logging
from typing import Any, Literal

import structlog
from chanx.core.decorators import channel, ws_handler
from chanx.fast_channels.websocket import AsyncJsonWebsocketConsumer
from chanx.messages.base import BaseMessage
from pydantic import BaseModel

from benchmarks.contestants.by_hand import ROUTES, WAITING_ROUTES, CardIn, Refused, Reply

# else it logs a line for each connection, and slow tracebacks (50 ms) for actions that run when one ends
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


class Payload(BaseModel):
    action: str
    route: str
    data: CardIn
    request_id: str | None = None


class Update(BaseMessage):
    action: Literal["update"] = "update"
    payload: Payload


class Updated(BaseMessage):
    action: Literal["updated"] = "updated"
    payload: Reply


@channel(name="cards")
class Cards(AsyncJsonWebsocketConsumer):
    channel_layer_alias = ""
    groups: list[str] = []
    routes = ROUTES

    @ws_handler
    async def update(self, message: Update) -> Updated:
        frame = message.payload
        told: dict[str, Any] = {"action": frame.action, "route": frame.route, "request_id": frame.request_id}
        try:
            card = await self.answer(frame)
        except Refused as exc:
            return Updated(payload=Reply(errors=exc.errors, status=exc.status, **told))
        return Updated(payload=Reply(errors=[], data=card, status=200, **told))

    async def answer(self, frame: Payload) -> Any:
        for matches, actions in self.routes:  # noqa: B007  # used after the break
            if match := matches(frame.route):
                break
        else:
            raise Refused(404, "no such route")
        user = self.scope["user"]
        if user is None:
            raise Refused(403, "authentication required")
        _, update = actions["update"]
        return await update(user, frame.data, **{name: int(value) for name, value in match.groupdict().items()})


@channel(name="waiting_cards")
class WaitingCards(Cards):
    routes = WAITING_ROUTES


app, waiting_app = Cards.as_asgi(), WaitingCards.as_asgi()
