"""A layer that loses its history again and again: subscribers get the first `$resync` at once, then ever fewer, and one
after the last loss. The newest events of a topic that a process keeps are bounded.
"""

import asyncio
import json
import random
from typing import Any

import pytest

from tests.support.fake_redis import FakeRedisLayer, FakeServer
from tests.support.hubs import RecordingSubscriber
from tests.support.virtual_time import now, run
from wsaction._protocol.event_frames import encode_event
from wsaction._pubsub.hub import Hub
from wsaction._pubsub.topic import Rings
from wsaction.layers.base import History, Position
from wsaction.layers.memory import MemoryLayer

HISTORY = History(100, 60)


class TimedSubscriber(RecordingSubscriber):
    """Records the times of each `$resync`."""

    def __init__(self) -> None:
        super().__init__()
        self.resynced_at: list[float] = []

    def _record(self, text: str) -> None:
        super()._record(text)
        if self.received[-1].get("event") == "$resync":
            self.resynced_at.append(now())


async def join(
    hub: Hub, subscriber: RecordingSubscriber, history: History | None, since: Position | None = None
) -> None:
    def reply(at: Position, recovered: bool | None, _: Any) -> str:
        return json.dumps({"epoch": at.epoch, "offset": at.offset, "recovered": recovered})

    await hub.join(subscriber, "t", "t", reply=reply, history=history, since=since)


async def publish(hub: Hub, data: int, history: History | None = HISTORY) -> Position | None:
    return await hub.publish("t", encode_event("moved", "t", str(data)), history)


@pytest.mark.parametrize("history", [HISTORY, None], ids=["history", "no history"])
def test_resyncs_back_off_and_the_last_loss_is_never_skipped(
    history: History | None,
) -> None:
    async def main() -> list[float]:
        hub, subscriber = Hub(MemoryLayer(), linger=0.0), TimedSubscriber()
        await join(hub, subscriber, history)
        started = now()
        for number in range(200):  # a hundred seconds
            await hub.invalidate("t", history)
            await publish(hub, number, history)
            await asyncio.sleep(0.5)
        ended = now()
        await asyncio.sleep(30)
        await publish(hub, 1_000, history)
        await asyncio.sleep(0)
        assert subscriber.resynced_at[-1] >= ended - 0.5
        assert subscriber.received[-1]["data"] == 1_000  # events arrive again
        await hub.invalidate("t", history)  # after a pause, a resync is immediate again
        await asyncio.sleep(60)
        await hub.invalidate("t", history)
        at = now()
        await asyncio.sleep(0.001)
        assert subscriber.resynced_at[-1] - at < 0.001
        subscriber.close()
        await hub.close()
        return [round(when - started, 1) for when in subscriber.resynced_at]

    times = run(main())
    assert times[:6] == [0.0, 1.0, 3.0, 7.0, 15.0, 25.0]
    assert len([when for when in times if when <= 100]) == 13


def test_a_subscriber_who_drops_before_a_resync_cannot_recover() -> None:
    async def main() -> None:
        layer = MemoryLayer()
        hub, subscriber = Hub(layer, linger=1.0), TimedSubscriber()
        await join(hub, subscriber, HISTORY)
        await hub.invalidate("t", HISTORY)
        await asyncio.sleep(0.1)
        await publish(hub, 1)
        await asyncio.sleep(0.1)
        epoch, offset = subscriber.received[1]["data"]["epoch"], subscriber.received[-1]["offset"]
        await hub.invalidate("t", HISTORY)  # its resync is still delayed
        for number in (2, 3):
            await publish(hub, number)
        await asyncio.sleep(0.1)
        assert subscriber.received[-1]["offset"] == offset  # and so are the events after it
        hub.leave_all(subscriber)
        subscriber.close()
        back = TimedSubscriber()
        await join(hub, back, HISTORY, Position(epoch, offset))
        await asyncio.sleep(5)
        assert back.received[0]["recovered"] is False
        assert back.resynced_at == []
        await publish(hub, 4)
        await asyncio.sleep(0.1)
        assert back.received[-1]["data"] == 4
        back.close()
        await hub.close()
        await asyncio.sleep(1)

    run(main())


def test_endless_evictions_do_not_make_each_event_a_resync() -> None:
    async def main() -> tuple[int, int]:
        server = FakeServer(random.Random(1))
        hub, subscriber = Hub(FakeRedisLayer(server), linger=0.0), TimedSubscriber()
        await join(hub, subscriber, HISTORY)
        for number in range(300):  # a minute
            server.topics.clear()
            await publish(hub, number)
            await asyncio.sleep(0.2)
        await asyncio.sleep(12)
        await publish(hub, 300)
        await asyncio.sleep(0.5)
        last = subscriber.received[-1]["data"]
        subscriber.close()
        await hub.close()
        return len(subscriber.resynced_at), last

    count, last = run(main())
    assert 5 <= count <= 10
    assert last == 300


# -- the newest events of a topic -------------------------------------------------------------------------------------
async def test_the_ring_of_newest_events_is_bounded_in_bytes() -> None:
    all_rings = Rings(ring_bytes=5_000, max_bytes=12_000)
    hub = Hub(MemoryLayer(), linger=0.0, rings=all_rings)
    subscribers = {f"t{number}": RecordingSubscriber() for number in range(4)}
    for topic, subscriber in subscribers.items():
        await hub.join(subscriber, topic, topic, reply=lambda *_: "{}", history=HISTORY)
    for topic in subscribers:
        for number in range(20):
            data = json.dumps([number, "x" * 700])
            await hub.publish(topic, encode_event("moved", topic, data), HISTORY)
    rings = [hub._topics[topic].ring for topic in subscribers]
    assert [len(ring) for ring in rings] == [0, 0, 5, 5]
    assert all_rings.size == sum(topic.ring_size for topic in hub._topics.values()) < 12_000
    for topic in ("t0", "t3"):  # older events are read from the layer
        back, at = RecordingSubscriber(), hub._topics[topic].position
        since = Position(at.epoch, at.offset - 8)
        await hub.join(back, topic, topic, reply=lambda *_: "{}", history=HISTORY, since=since)
        await back.receive(9)
        assert [topic["data"][0] for topic in back.received[1:]] == list(range(12, 20))
        back.close()
        hub.leave_all(back)
    await hub.publish("t1", encode_event("moved", "t1", json.dumps("x" * 9_000)), HISTORY)
    assert (len(hub._topics["t1"].ring), hub._topics["t1"].ring_size) == (0, 0)
    for subscriber in subscribers.values():
        hub.leave_all(subscriber)
        subscriber.close()
    await hub.close()
    assert all_rings.size == 0
