"""The apps of test_message_sizes.py: one bound, in every place where it can be set."""

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.limits import Limits
from wsaction.routing import path

LARGE = Limits(max_frame_bytes=1_048_576)
SMALL = Limits(max_frame_bytes=1_000)


class Sized(AsyncAPIConsumer):
    @async_action
    async def size(self, data: str) -> int:
        return len(data)


class Large(Sized):
    limits = LARGE


class Small(Sized):
    limits = SMALL


both = WSAction([path("large/", Large.as_asgi()), path("small/", Small.as_asgi()), path("other/", Sized.as_asgi())])
large = WSAction([path("ws/", Sized.as_asgi())], limits=LARGE)
small = WSAction([path("ws/", Sized.as_asgi())], limits=SMALL)
api = FastAPI()
api.mount("/both", both)
api.mount("/large", large)
site = Starlette(routes=[WebSocketRoute("/alone", Large.as_asgi()), Mount("/api", api)])
