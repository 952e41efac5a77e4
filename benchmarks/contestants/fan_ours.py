"""The fan-out on wsaction: subscriptions to a route, with a history of a hundred events."""

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin

__all__ = ("app",)


class Feed(SubscribeMixin, AsyncAPIActionHandler):
    events = {"told": str}

    @async_action(mode="none")
    async def tell(self, data: str, room: str) -> None:
        await self.publish("told", data)


class Root(AsyncAPIConsumer):
    routepatterns = [path("<slug:room>", Feed.as_aaah())]


app = WSAction([path("ws", Root.as_asgi())])
