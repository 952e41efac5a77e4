"""A hub, a layer whose reads can wait or fail, and subscribers that record what they receive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.hub_simulation import FakeSubscriber
from tests.support.virtual_time import anyio_backend  # noqa: F401  # the fixture
from wsaction._protocol.event_frames import encode_event
from wsaction._pubsub.hub import Hub
from wsaction.exceptions import LayerUnavailable
from wsaction.layers.base import History, Page, Position, Sink
from wsaction.layers.memory import MemoryLayer

TOPIC = "boards/7/"


HISTORY = History(100, 60, always=True)


class RecordingSubscriber(FakeSubscriber):
    """A subscriber whose client records every message."""

    def __init__(self, capacity: int = 1 << 20) -> None:
        super().__init__(self._record, capacity)
        self.received: list[Any] = []
        self._changed = asyncio.Event()

    def _record(self, text: str) -> None:
        self.received.append(json.loads(text))
        self._changed.set()

    async def receive(self, count: int) -> list[Any]:
        """Waits for ``count`` messages; returns all that were received."""
        async with asyncio.timeout(5):
            while len(self.received) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.received

    def events(self) -> list[tuple[str, int]]:
        """Name and offset of every received event."""
        return [(message["event"], message.get("offset", 0)) for message in self.received if "event" in message]


class ScriptedLayer(MemoryLayer):
    """A layer whose reads can wait or fail, and whose messages can be dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.sink: Sink
        self.gate = asyncio.Event()
        self.gate.set()
        self.reads = 0
        self.failures: list[Exception] = []
        self.pages: list[Page] = []
        self.drops_messages = False
        self.publish_failures = 0

    async def open(self, sink: Sink) -> None:
        await super().open(self)
        self.sink = sink

    def message(self, topic: str, epoch: str, offset: int, body: bytes) -> None:
        if not self.drops_messages:
            self.sink.message(topic, epoch, offset, body)

    def subscribed(self, topic: str) -> None:
        if not self.drops_messages:
            self.sink.subscribed(topic)

    def lost(self) -> None:
        self.sink.lost()

    async def read(self, *args: Any, **kwargs: Any) -> Page:
        self.reads += 1
        page = await super().read(*args, **kwargs)
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        return self.pages.pop(0) if self.pages else page

    async def invalidate(self, topic: str, history: History | None) -> None:
        if self.publish_failures:
            self.publish_failures -= 1
            raise LayerUnavailable
        await super().invalidate(topic, history)


SLICED: Any = {"fanout_chunk": 1, "fanout_seconds": -1.0}  # one recipient per turn of the loop


@asynccontextmanager
async def opened(layer: MemoryLayer | None = None, **options: Any) -> AsyncIterator[Hub]:
    hub = Hub(layer or MemoryLayer(), **options)
    before = asyncio.all_tasks()
    await hub.open()
    try:
        yield hub
    finally:
        await hub.close()
        left = asyncio.all_tasks() - before
        assert not [task for task in left if "Subscriber" not in repr(task) and "_write" not in repr(task)]


def reply(position: Position, recovered: bool | None, snapshot: Any) -> str:
    return json.dumps(
        {"epoch": position.epoch, "offset": position.offset, "recovered": recovered, "snapshot": snapshot}
    )


async def join(hub: Hub, subscriber: Any, topic: str = TOPIC, **options: Any) -> None:
    options = {"history": HISTORY, "reply": reply, **options}
    await hub.join(subscriber, topic, topic, **options)


async def publish(hub: Hub, number: int = 0, topic: str = TOPIC, **options: Any) -> Position | None:
    history = options.pop("history", HISTORY)
    return await hub.publish(topic, encode_event("moved", topic, str(number)), history, **options)
