"""An app whose cards publish their changes, over each kind of queryset."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from tests.support.cards import numbered, served, stored
from wsaction.applications import WSAction
from wsaction.generics import ModelAPIActionHandler
from wsaction.limits import Limits
from wsaction.permissions import IsOwner
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import WebSocketSession

LIVE = (SubscribeMixin, ModelAPIActionHandler)


class Owner(IsOwner):
    lookup_field = "owner_id"


def user(pk: int) -> Any:
    return SimpleNamespace(is_authenticated=True, pk=pk, id=pk)


@asynccontextmanager
async def cards(
    kind: str, count: int = 3, layer: Any = None, seconds: float = 30, **attributes: Any
) -> AsyncIterator[tuple[WSAction, Any]]:
    """An app with live cards, and their queryset."""
    async with stored(kind, numbered(count)) as queryset:
        app = WSAction(
            [path("ws/", served(queryset, **{"bases": LIVE, **attributes}))],
            layer=layer,
            limits=Limits(action_timeout=seconds),
        )
        async with app.lifespan():
            yield app, queryset


def shown(event: Any) -> Any:
    return event["event"], event["route"], event["data"]


async def next_events(ws: WebSocketSession, count: int) -> list[Any]:
    return [shown(await ws.event()) for _ in range(count)]
