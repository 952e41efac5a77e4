"""An app that logs, for the tests of `wsaction run --log-format json`."""

import logging

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.routing import path


class Shop(AsyncAPIConsumer):
    @async_action
    async def fail(self, text: str) -> None:
        raise RuntimeError(text)

    @async_action
    def note(self) -> None:
        logging.getLogger("shop").warning("noted", extra={"basket": 3})


app = WSAction([path("ws/", Shop.as_asgi())])
