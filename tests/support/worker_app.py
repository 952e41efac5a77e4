"""An app of one consumer that the tests of the client call, and clients of it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

from pydantic import BaseModel

from tests.conftest import Server
from wsaction.applications import WSAction
from wsaction.client import (
    Client,
    connect,
)
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import APIError
from wsaction.exceptions import Conflict as ServerConflict
from wsaction.exceptions import NotFound as ServerNotFound
from wsaction.exceptions import PermissionDenied as ServerPermissionDenied
from wsaction.exceptions import Throttled as ServerThrottled
from wsaction.limits import Limits
from wsaction.routing import path


class Card(BaseModel):
    id: int
    due: date


class Worker(AsyncAPIConsumer):
    """The actions that these tests call."""

    ended: asyncio.Queue[str]

    @async_action
    async def echo(self, data: Any = None, text: str = "") -> Any:
        return data if data is not None else text

    @async_action
    async def card(self) -> Card:
        return Card(id=7, due=date(2026, 11, 23))

    @async_action
    async def fail(self, kind: str) -> None:
        raise {
            "missing": ServerNotFound("There is no card 7."),
            "taken": ServerConflict(),
            "denied": ServerPermissionDenied(),
            "throttled": ServerThrottled(wait=1.5),
            "bug": ZeroDivisionError(),
            "own": APIError(402, "payment_required", "No boards left.", {"plan": "free"}),
        }[kind]

    @async_action(ordered=False)
    async def hang(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ENDED.append("hang")

    @async_action(ordered=False)
    async def ended_so_far(self) -> list[str]:
        return ENDED

    @async_action
    async def count(self, to: int, fail: bool = False) -> AsyncIterator[int]:
        try:
            for number in range(to):
                yield number
            if fail:
                raise ServerNotFound("no more")
        finally:
            ENDED.append("count")

    @async_action
    async def days(self) -> AsyncIterator[date]:
        yield date(2026, 11, 23)

    @async_action
    async def endless(self, size: int) -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * size
        finally:
            ENDED.append("endless")

    @async_action(mode="none")
    async def note(self, text: str) -> None:
        if not text:
            raise ServerNotFound("nothing to note")
        ENDED.append(text)


ENDED: list[str] = []


app = WSAction([path("ws/", Worker.as_asgi())], limits=Limits(max_queued_actions=2_000))


def client_of(server: Server, **options: Any) -> Client:
    return connect(server.url("/ws/"), proxy=None, **options)
