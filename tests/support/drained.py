"""An app for the tests of shutdown. When it ends, it reports what is left of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.limits import Limits
from wsaction.routing import path

DRAIN_TIMEOUT = 4.0


class Worker(AsyncAPIConsumer):
    @async_action
    async def work(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    @async_action(ordered=False)
    async def numbers(self) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.get_running_loop().create_future()
        finally:
            print(json.dumps({"stream": "closed"}), flush=True)


@asynccontextmanager
async def lifespan(app: WSAction) -> AsyncIterator[Any]:
    before = len(asyncio.all_tasks())
    yield
    left = [repr(task) for task in asyncio.all_tasks() if "_watch" in repr(task) or "serve" in repr(task.get_coro())]
    served = {"connections": len(app.runtime.loop_state.connections), "tasks": len(asyncio.all_tasks()) - before}
    print(json.dumps({**served, "left": [text for text in left if "Server.serve" not in text]}), flush=True)


app = WSAction([path("ws/", Worker.as_asgi())], limits=Limits(drain_timeout=DRAIN_TIMEOUT), lifespan=lifespan)
