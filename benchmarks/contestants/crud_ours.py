"""The CRUD job on wsaction: a generic handler, its queryset in memory or in a database."""

from typing import Any

from sqlalchemy.ext.asyncio import async_sessionmaker

from benchmarks.contestants.crud_cards import PAGE, Card, CardIn, CardOut
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.generics import ModelAPIActionHandler
from wsaction.pagination import PageNumberPagination
from wsaction.permissions import IsAuthenticated
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path

__all__ = ("in_database", "in_memory")


class CardHandler(ModelAPIActionHandler):
    serializer_class = CardOut
    input_serializer_class = CardIn
    pagination_class = PageNumberPagination(page_size=PAGE)
    permission_classes = (IsAuthenticated,)


def in_database(sessionmaker: async_sessionmaker[Any]) -> WSAction:
    """The app with its cards in a database."""
    return make(SQLAlchemyQuerySet(Card, sessionmaker))


def in_memory(first: list[CardOut]) -> WSAction:
    """The app with its cards in a `MemoryQuerySet`."""
    return make(MemoryQuerySet(CardOut, first))


def make(rows: Any) -> WSAction:
    class Boards(AsyncAPIConsumer):
        routepatterns = [
            path("cards/", CardHandler.as_aaah(queryset=rows, actions=("list", "create"))),
            path(
                "cards/<int:pk>/",
                CardHandler.as_aaah(queryset=rows, actions=("retrieve", "update", "partial_update", "destroy")),
            ),
        ]

    return WSAction([path("ws", Boards.as_asgi())])
