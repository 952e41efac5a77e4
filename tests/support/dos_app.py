"""The app that test_attacks.py attacks, in a process of its own: ``uvicorn tests.support.dos_app:app``."""

import asyncio
import contextlib
import gc
import json
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar

from wsaction._connection.connection import Connection
from wsaction._dispatch.session import Session
from wsaction._protocol.frames import Frame
from wsaction._server.uvicorn_protocol import FairProtocol
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin

hoarded: list[bytes] = []
left: list[asyncio.Task[None]] = []


class Mishap(Exception):
    """An error whose traceback the log may contain."""


async def take(step: str) -> None:
    """Runs one step of an action of the randomised test."""
    if step == "turn":
        await asyncio.sleep(0)
    elif step == "pause":
        await asyncio.sleep(0.002)
    elif step == "swallow":
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.002)
    elif step == "fail":
        raise Mishap


class Room(AsyncAPIActionHandler):
    """A handler with many routes."""

    @async_action
    async def wait(self) -> None:
        await asyncio.get_running_loop().create_future()

    # The actions of the randomised test. Each runs its ``steps`` and returns their number.

    @async_action
    async def act(self, steps: list[str]) -> int:
        for step in steps:
            await take(step)
        return len(steps)

    @async_action(ordered=False)
    async def act_any_time(self, steps: list[str]) -> int:
        return await self.act(steps)

    @async_action
    async def stream(self, steps: list[str]) -> AsyncIterator[int]:
        for number, step in enumerate(steps):
            await take(step)
            yield number

    @async_action
    def act_in_a_thread(self, steps: list[str]) -> int:
        if "fail" in steps:
            raise Mishap
        time.sleep(0.001 * steps.count("pause"))
        return len(steps)


class Talk(SubscribeMixin, AsyncAPIActionHandler):
    """A route with history: while it has subscribers, or always."""

    @async_action
    async def say(self, text: str) -> None:
        await self.publish("said", text)


class Target(AsyncAPIConsumer):
    """The consumer that serves attackers and well-behaved clients."""

    routepatterns: ClassVar[Sequence[Any]] = [
        path("rooms/<int:pk>/", Room.as_aaah()),
        path("talks/<int:pk>/", Talk.as_aaah()),
        path("kept/<int:pk>/", Talk.as_aaah(history_always=True)),
    ]

    @async_action
    async def echo(self, data: Any = None) -> Any:
        return data

    @async_action
    async def suspend(self, data: Any = None) -> Any:
        await asyncio.sleep(0)
        return data

    @async_action(ordered=False)
    async def large(self, size: int) -> str:
        return "x" * size

    @async_action
    async def endless(self) -> AsyncIterator[str]:
        while True:
            yield "x" * 60_000

    @async_action(ordered=False)
    async def stubborn(self) -> None:
        """Ignores its cancellation for a while."""
        until = time.monotonic() + 1.6  # longer than the server waits for a cancelled action
        while (left := until - time.monotonic()) > 0:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(left)

    @async_action(ordered=False)
    def block_a_thread(self) -> None:
        self.consumer.released.wait(60)

    @async_action(ordered=False)
    def block_a_thread_for_a_moment(self) -> None:
        time.sleep(0.001)

    async def connect(self) -> None:
        self.released = threading.Event()

    async def disconnect(self, code: int) -> None:
        self.released.set()

    # Faults that the tests must notice.

    @async_action
    async def block_the_loop(self) -> None:
        time.sleep(0.2)  # noqa: ASYNC251  # it blocks the loop on purpose

    @async_action
    async def hoard(self, size: int) -> None:
        hoarded.append(b"x" * size)

    @async_action
    async def fail(self) -> None:
        raise ZeroDivisionError

    @async_action
    async def leave_a_task(self) -> None:
        left.append(asyncio.create_task(asyncio.sleep(3_600)))


class Watch(AsyncAPIConsumer):
    """Counts the objects in the process."""

    @async_action
    async def counts(self) -> dict[str, int]:
        kinds = (Connection, Session, Frame, Target)
        gc.collect()
        alive = Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, kinds))
        return {"tasks": len(asyncio.all_tasks()), **alive}


@contextlib.asynccontextmanager
async def lifespan(_: Any) -> AsyncIterator[None]:
    await app.publish(
        "talks/0/", "said", "", path="ws/"
    )  # so that publishing has created its objects before the first count
    yield


bounds = json.loads(os.environ.get("ATTACKED_LIMITS", "{}"))
if (close_timeout := bounds.pop("close_timeout", None)) is not None:  # which uvicorn has no option for
    begin = FairProtocol.__init__

    def begin_in_a_hurry(self: FairProtocol, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        self.close_timeout = close_timeout

    FairProtocol.__init__ = begin_in_a_hurry  # type: ignore[method-assign]
limits = Limits(**bounds)
app = WSAction([path("ws/", Target.as_asgi()), path("watch/", Watch.as_asgi())], limits=limits, lifespan=lifespan)
