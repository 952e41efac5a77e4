"""A feed with many followers for `benchmarks.recovery`: `app`, on the Redis at ``FEED_REDIS``.

With ``FEED_LEAK`` it is broken on purpose: the event with that number is dropped just before each client's socket,
where nothing can recover it, so that the benchmark must find it missing.
"""

import os
from typing import Any

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.layers.redis import RedisLayer
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin

__all__ = ("PATH", "ROUTE", "app", "make")

PATH, ROUTE = "/ws/", "feed/"


class Feed(SubscribeMixin, AsyncAPIActionHandler):
    events = {"told": int}
    history_size = 2_000


class Root(AsyncAPIConsumer):
    routepatterns = [path(ROUTE, Feed.as_aaah())]

    async def connect(self) -> None:
        await self.push("here", os.getpid())


def make(redis_url: str) -> WSAction:
    """The app on a Redis server."""
    return WSAction([path("ws/", Root.as_asgi())], layer=RedisLayer(redis_url))


def leaking(served: Any, number: str) -> Any:
    """The app without delivery of the event with this number."""
    wanted = f'"data":{number},'

    async def leaky(scope: Any, receive: Any, send: Any) -> None:
        async def leak(message: Any) -> None:
            if wanted not in message.get("text", ""):
                await send(message)

        await served(scope, receive, leak)

    return leaky


app: Any = make(os.environ.get("FEED_REDIS", "redis://127.0.0.1:6379/0"))
if "FEED_LEAK" in os.environ:
    app = leaking(app, os.environ["FEED_LEAK"])
