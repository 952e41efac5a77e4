"""`wsaction.mixins`: actions to be mixed into a generic handler."""

from typing import Any

import pytest
from pydantic import BaseModel

from tests.driving import ask
from wsaction.consumers import AsyncAPIConsumer
from wsaction.generics import GenericAsyncAPIActionHandler, GenericAsyncAPIConsumer
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.mixins import RetrieveModelMixin
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path


class Card(BaseModel):
    id: int
    title: str


ROWS = MemoryQuerySet(Card, rows=[Card(id=7, title="t")])


@pytest.mark.parametrize("generic", [GenericAsyncAPIActionHandler, GenericAsyncAPIConsumer])
def test_it_adds_retrieve(generic: Any) -> None:
    kind: Any = type("Cards", (RetrieveModelMixin, generic), {})
    assert list(kind.available_actions) == ["retrieve"]
    action = kind.available_actions["retrieve"]
    assert (action.options.status, action.options.summary, action.threaded) == (200, "One object.", False)


async def test_it_may_be_overridden_and_taken_away() -> None:
    class Cards(RetrieveModelMixin, GenericAsyncAPIActionHandler):
        queryset = ROWS
        serializer_class = Card

    class Wrapped(Cards):
        async def retrieve(self) -> Any:
            return {"card": await super().retrieve()}

    class Without(Cards):
        retrieve = None  # type: ignore[assignment]

    class Consumer(AsyncAPIConsumer):
        routepatterns = [
            path("a/<int:pk>/", Cards.as_aaah()),
            path("b/<int:pk>/", Wrapped.as_aaah()),
            path("c/<int:pk>/", Without.as_aaah()),
        ]

    view, card = Consumer.as_asgi(), {"id": 7, "title": "t"}
    assert (await ask(view, "retrieve", "a/7/"))["data"] == card
    assert (await ask(view, "retrieve", "b/7/"))["data"] == {"card": card}
    assert (await ask(view, "retrieve", "c/7/"))["status"] == 405


async def test_it_needs_no_more_than_get_object_and_serialize() -> None:
    class Own(RetrieveModelMixin, AsyncAPIActionHandler):
        async def get_object(self) -> Any:
            return 7

        def serialize(self, obj: int) -> Any:
            return [obj]

    assert (await ask(Own.as_aaah(), "retrieve"))["data"] == [7]
