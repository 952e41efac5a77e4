"""Quickstart: an echo action, and cards behind routes and a queryset."""

from pydantic import BaseModel

from wsaction import AsyncAPIConsumer, MemoryQuerySet, WSAction, async_action, path
from wsaction.generics import RetrieveAPIActionHandler


class Card(BaseModel):
    id: int
    title: str
    done: bool = False


class CardIn(BaseModel):
    title: str


CARDS = MemoryQuerySet(Card, rows=[Card(id=1, title="Read the README"), Card(id=2, title="Send a frame")])


class CardHandler(RetrieveAPIActionHandler[Card]):
    """`retrieve` is inherited from the generic class; `create` is an action of its own."""

    queryset = CARDS
    serializer_class = Card

    @async_action(status=201)
    async def create(self, data: CardIn) -> Card:
        """Adds a card."""
        return await CARDS.create(data.model_dump())


class Quickstart(AsyncAPIConsumer):
    """The consumer. Its own actions are at the empty route; `routepatterns` has the others."""

    routepatterns = [
        path("cards/", CardHandler.as_aaah(actions=["create"])),
        path("cards/<int:pk>/", CardHandler.as_aaah(actions=["retrieve"])),
    ]

    @async_action
    async def echo(self, text: str) -> str:
        """Returns the text."""
        return text


app = WSAction([path("ws/", Quickstart.as_asgi())], title="Quickstart", description="An echo, and a few cards.")
