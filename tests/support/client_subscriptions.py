"""Subscriptions of a client, at a scripted server and at a real one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.support.scripted import WAIT, Peer, ScriptedServer, client_at, scripted
from wsaction.client import (
    Client,
    Event,
    Resync,
    Subscription,
)
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin

ROUTE = "boards/7/"


def position(offset: int, epoch: str = "e1") -> dict[str, Any]:
    return {"epoch": epoch, "offset": offset}


def moved(offset: int, data: Any = None) -> Event:
    return Event("moved", ROUTE, data, offset)


async def subscribed(
    client: Client, peer: Peer, data: dict[str, Any], route: str = ROUTE, **options: Any
) -> tuple[Subscription, dict[str, Any]]:
    """Enters a subscription whose reply has ``data``. Returns it with the request frame."""
    entering = asyncio.create_task(client.subscribe(route, **options).__aenter__())
    request = await peer.frame("subscribe")
    await peer.reply(request, data)
    return await asyncio.wait_for(entering, WAIT), request


async def leave(subscription: Subscription, peer: Peer, status: int = 204, **errors: Any) -> dict[str, Any]:
    leaving = asyncio.create_task(subscription.__aexit__(None, None, None))
    request = await peer.frame("unsubscribe")
    await peer.reply(request, None, status, *([errors] if errors else []))
    await leaving
    return request


@contextlib.asynccontextmanager
async def subscription(**options: Any) -> AsyncIterator[tuple[Subscription, Peer, ScriptedServer]]:
    """Provides a subscription at offset 3 of epoch e1, with its peer and the server."""
    buffer = options.pop("buffer", 1_000_000)
    async with scripted() as server, client_at(server, buffer=buffer) as (client, peer):
        entered, _ = await subscribed(client, peer, {**position(3), "recovered": None}, **options)
        yield entered, peer, server


async def following(entered: Subscription) -> Event | Resync:
    return await asyncio.wait_for(anext(entered), WAIT)


async def all_read(entered: Subscription, peer: Peer) -> None:
    """Waits until the client has read all frames of the peer, by the reply to a later call."""
    connection = await entered._manager.connected()
    asking = asyncio.create_task(connection.call("sync", "", {}))
    await peer.reply(await peer.frame("sync"))
    await asking


class Board(SubscribeMixin, AsyncAPIActionHandler):
    history_size = 50

    @async_action
    async def move(self, to: int) -> None:
        await self.publish("moved", to)

    @async_action
    async def retrieve(self) -> str:
        return "all of it"

    @async_action(mode="none")
    async def poke(self) -> None:
        await self.consumer.push("poked", 1)


class Boards(AsyncAPIConsumer):
    routepatterns = [path("boards/<int:pk>/", Board.as_aaah())]
