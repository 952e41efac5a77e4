"""A queryset and a layer of one's own pass the tests of wsaction."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date

from pydantic import BaseModel

from wsaction.layers.memory import MemoryLayer
from wsaction.querysets import MemoryQuerySet
from wsaction.testing.layers import LayerContract
from wsaction.testing.querysets import QuerySetContract


class Owner(BaseModel):
    id: int
    name: str | None = None


class Thing(BaseModel):
    id: int
    slug: str
    title: str
    rank: int | None = None
    done: bool
    due: date | None = None
    board: int | None = None
    position: int
    owner: Owner | None = None


class TestQuerySet(QuerySetContract):
    @asynccontextmanager
    async def make(self, rows: Sequence[Mapping[str, object]]) -> AsyncIterator[MemoryQuerySet]:
        things = [Thing.model_validate(row) for row in rows]
        yield MemoryQuerySet(Thing, rows=things, unique=["slug", ("board", "position")])


class TestLayer(LayerContract):
    shared = False  # True: two layers deliver to each other, as those of two processes

    def make(self) -> MemoryLayer:
        return MemoryLayer()
