"""A board with logs, metrics and traces: JSON lines, a page for Prometheus, and spans that are printed."""

import logging

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from wsaction import (
    AsyncAPIConsumer,
    MemoryQuerySet,
    ModelAPIActionHandler,
    SimpleRouter,
    SubscribeMixin,
    WSAction,
    async_action,
    path,
)
from wsaction.contrib.opentelemetry import OpenTelemetry
from wsaction.contrib.prometheus import Prometheus

logger = logging.getLogger("board")

provider = TracerProvider(resource=Resource.create({"service.name": "board"}))
provider.add_span_processor(
    SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda span: span.to_json(indent=None) + "\n"))
)
tracer = provider.get_tracer("board")
metrics = Prometheus()


class Card(BaseModel):
    id: int
    title: str
    votes: int = 0


class CardHandler(SubscribeMixin, ModelAPIActionHandler[Card]):
    """Cards. Subscribers of the list are told of every change."""

    queryset = MemoryQuerySet(Card, rows=[Card(id=1, title="Look at the logs")])
    serializer_class = Card

    @async_action(detail=True)
    async def vote(self) -> int:
        """Adds a vote."""
        card = await self.get_object()
        with tracer.start_as_current_span("count the votes"):
            votes = card.votes + 1
        await self.perform_update(card, {"votes": votes})
        logger.warning("card %s has %s votes", card.id, votes, extra={"votes": votes})
        return votes

    @async_action(detail=True)
    async def average(self, voters: int) -> float:
        """Has a bug: 0 voters are a 500 with an error id."""
        return (await self.get_object()).votes / voters


router = SimpleRouter()
router.register("cards", CardHandler)


class Board(AsyncAPIConsumer):
    routepatterns = router.urls


board = WSAction([path("ws/", Board.as_asgi())], hooks=[metrics, OpenTelemetry(provider)])
app = Starlette(routes=[Route("/metrics", metrics), Mount("/", board)], lifespan=board.lifespan)
