"""`wsaction._pubsub.hub`: joining, leaving, publishing, filters and bounds, one at a time. `test_hub_races` has random
schedules.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import ANY

import pytest

from tests.support.hubs import HISTORY, SLICED, TOPIC, RecordingSubscriber, ScriptedLayer, join, opened, publish, reply
from tests.support.virtual_time import anyio_backend  # noqa: F401  # the fixture
from wsaction._protocol.event_frames import encode_event
from wsaction._protocol.frames import current_frame, new_frame
from wsaction._pubsub.event import Event
from wsaction._pubsub.hub import Hub
from wsaction._pubsub.subscription import QueueLimits
from wsaction._pubsub.topic import Rings
from wsaction.exceptions import Cancelled, LayerUnavailable
from wsaction.layers.base import History, Page, Position
from wsaction.layers.memory import MemoryLayer


# -- joining ----------------------------------------------------------------------------------------------------------
async def test_the_reply_to_subscribe_precedes_the_events() -> None:
    async with opened() as hub:
        subscriber = RecordingSubscriber()
        await publish(hub, 1)
        await join(hub, subscriber)
        at = await publish(hub, 2)
        assert at is not None
        first, event = await subscriber.receive(2)
        assert first == {"epoch": at.epoch, "offset": 1, "recovered": None, "snapshot": None}
        assert event == {"event": "moved", "route": TOPIC, "data": 2, "offset": 2}


async def test_every_recipient_gets_the_same_string_object() -> None:
    async with opened() as hub:
        texts: list[str] = []
        for _ in range(3):
            subscriber = RecordingSubscriber()
            subscriber.put = texts.append  # type: ignore[method-assign]
            await join(hub, subscriber)
        texts.clear()
        await publish(hub)
        assert len(texts) == 3
        assert len({id(text) for text in texts}) == 1


async def test_without_history_there_are_no_positions_and_offsets() -> None:
    async with opened() as hub:
        subscriber = RecordingSubscriber()
        await join(hub, subscriber, history=None)
        assert await publish(hub, history=None) is None
        first, event = await subscriber.receive(2)
        assert (first["epoch"], first["offset"], first["recovered"]) == ("", 0, None)
        assert event == {"event": "moved", "route": TOPIC, "data": 0}
        await join(hub, subscriber, history=None, since=Position("x", 3))
        assert (await subscriber.receive(3))[2]["recovered"] is False


async def test_an_event_without_history_passes_through_its_topic() -> None:
    async with opened() as hub:
        subscriber = RecordingSubscriber()
        await join(hub, subscriber)
        await publish(hub, 1)
        await publish(hub, 2, history=None)
        await hub.invalidate(TOPIC, None)
        await publish(hub, 3)
        assert [(message["data"], message.get("offset")) for message in (await subscriber.receive(4))[1:]] == [
            (1, 1),
            (2, None),
            (3, 2),
        ]


@pytest.mark.parametrize("ring", [1, 64])
async def test_a_returning_subscriber_gets_the_missed_events(ring: int) -> None:
    async with opened(rings=Rings(events=ring)) as hub:
        existing, subscriber = RecordingSubscriber(), RecordingSubscriber()
        await join(hub, existing)
        first = await publish(hub, 1)
        assert first is not None
        for number in range(2, 7):
            await publish(hub, number)
        await join(hub, subscriber, since=first)
        await publish(hub, 7)
        messages = await subscriber.receive(7)
        assert messages[0] == {"epoch": first.epoch, "offset": 1, "recovered": True, "snapshot": None}
        assert [message["data"] for message in messages[1:]] == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    "since",
    [Position("other", 1), Position("", 0), Position("\ud800", 1), Position("e" * 1_000, 1), None, -1, 4, 2**60],
    ids=str,
)
async def test_a_recovery_is_complete_or_refused(since: Any) -> None:
    async with opened() as hub:
        subscriber = RecordingSubscriber()
        at = None
        for number in range(3):
            at = await publish(hub, number)
        assert at is not None
        position = Position(at.epoch, since) if isinstance(since, int) else since
        await join(hub, subscriber, since=position)
        assert await subscriber.receive(1) == [
            {"epoch": at.epoch, "offset": 3, "recovered": None if since is None else False, "snapshot": None}
        ]


@pytest.mark.parametrize(
    ("capacity", "options"),
    [(1_000, {}), (1 << 20, {"max_recovered": 5})],
    ids=["more than half of what it holds", "too many"],
)
async def test_a_recovery_is_bounded(capacity: int, options: dict[str, int]) -> None:
    async with opened(**options) as hub:
        existing, subscriber = RecordingSubscriber(), RecordingSubscriber(capacity=capacity)
        await join(hub, existing)
        first = await publish(hub)
        for number in range(20):
            await publish(hub, number)
        await join(hub, subscriber, since=first)
        assert (await subscriber.receive(1))[0]["recovered"] is False


async def test_a_snapshot_is_taken_unless_events_are_recovered() -> None:
    async with opened() as hub:
        subscriber, rows = RecordingSubscriber(), [1]

        async def snapshot() -> list[int]:
            await publish(hub, 5)  # published meanwhile, so it follows the reply
            return list(rows)

        first = await publish(hub)
        await join(hub, subscriber, snapshot=snapshot)
        messages = await subscriber.receive(2)
        assert (messages[0]["snapshot"], messages[0]["offset"], messages[1]["offset"]) == ([1], 1, 2)
        await join(hub, subscriber, since=first, snapshot=snapshot)
        assert [message.get("snapshot", message.get("offset")) for message in (await subscriber.receive(4))[2:]] == [
            None,
            2,
        ]
        await join(hub, subscriber, since=Position("other", 1), snapshot=snapshot)
        assert (await subscriber.receive(6))[4]["snapshot"] == [1]


@pytest.mark.parametrize("where", ["snapshot", "reply"])
async def test_a_failed_join_leaves_nothing_behind(where: str) -> None:
    async with opened(linger=0.0) as hub:

        async def snapshot() -> None:
            if where == "snapshot":
                raise TimeoutError("the database's")

        def failing(*_: Any) -> str:
            raise ZeroDivisionError

        subscriber = RecordingSubscriber()
        with pytest.raises(TimeoutError if where == "snapshot" else ZeroDivisionError):
            await join(hub, subscriber, snapshot=snapshot, reply=failing if where == "reply" else reply)
        assert hub.subscriptions(subscriber) == []
        await publish(hub)
        assert subscriber.is_empty


async def test_a_slow_join_times_out_and_leaves_nothing_behind() -> None:
    layer = ScriptedLayer()
    async with opened(layer, join_timeout=0.02) as hub:
        layer.gate.clear()
        subscriber = RecordingSubscriber()
        with pytest.raises(LayerUnavailable, match="in time"):
            await join(hub, subscriber)
        assert hub.subscriptions(subscriber) == []
        layer.gate.set()


async def test_joining_again_replies_with_the_position_only() -> None:
    async with opened() as hub:
        subscriber = RecordingSubscriber()
        await join(hub, subscriber)
        await publish(hub, 1)
        await join(hub, subscriber)
        await publish(hub, 2)
        messages = await subscriber.receive(4)
        assert [message.get("data", message.get("offset")) for message in messages] == [0, 1, 1, 2]
        assert hub.subscriptions(subscriber) == [(TOPIC, TOPIC)]


async def test_joining_again_replaces_a_join_under_way() -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        subscriber = RecordingSubscriber()
        layer.gate.clear()
        first = asyncio.create_task(join(hub, subscriber))
        await asyncio.sleep(0)
        second = asyncio.create_task(join(hub, subscriber))
        await asyncio.sleep(0)
        layer.gate.set()
        await second
        with pytest.raises(Cancelled):
            await first
        await publish(hub, 1)
        assert len(await subscriber.receive(2)) == 2


class Failing:
    """A snapshot that waits, and then fails."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()

    async def __call__(self) -> None:
        self.begun.set()
        await self.gate.wait()
        raise ZeroDivisionError


@asynccontextmanager
async def joining_again(hub: Hub, subscriber: RecordingSubscriber) -> AsyncIterator[Failing]:
    """Joins, and joins again with a snapshot that fails when the block ends."""
    await join(hub, subscriber)
    snapshot = Failing()
    second = asyncio.create_task(join(hub, subscriber, snapshot=snapshot))
    await snapshot.begun.wait()
    yield snapshot
    snapshot.gate.set()
    with pytest.raises((ZeroDivisionError, Cancelled)):
        await second


async def test_a_failed_second_join_leaves_the_first_without_a_hole() -> None:
    async with opened() as hub:
        subscriber = RecordingSubscriber()
        async with joining_again(hub, subscriber):
            await publish(hub, 1)
            assert len(await subscriber.receive(1)) == 1  # held back
        await publish(hub, 2)
        assert [message.get("data") for message in await subscriber.receive(3)] == [None, 1, 2]


@pytest.mark.parametrize("what", ["publish", "hold", "resync"])
async def test_what_reaches_a_subscription_that_joins_again_reaches_the_first(what: str) -> None:
    async with opened() as hub:
        subscriber = RecordingSubscriber()
        async with joining_again(hub, subscriber):
            if what == "publish":
                await publish(hub, 1, exclude=subscriber)
            elif what == "hold":
                resume = hub.hold(subscriber, TOPIC, TOPIC)
            else:
                hub.resync(subscriber, None)
        await publish(hub, 2)
        if what == "hold":
            assert len(await subscriber.receive(1)) == 1
            resume()
        received = await subscriber.receive(3 if what == "resync" else 2)
        assert [message.get("event") for message in received[1:]] == ["$resync"] * (what == "resync") + ["moved"]
        assert received[-1]["data"] == 2


async def test_leaving_ends_both_when_a_subscription_joins_again() -> None:
    async with opened(linger=0.0) as hub:
        subscriber = RecordingSubscriber()
        async with joining_again(hub, subscriber):
            assert hub.leave(subscriber, TOPIC, TOPIC)
            await publish(hub, 1)
        assert not hub._joined
        await publish(hub, 2)
        await join(hub, subscriber)
        assert [message["offset"] for message in await subscriber.receive(2)] == [0, 2]


async def test_a_third_join_replaces_the_second_and_keeps_the_first() -> None:
    async with opened() as hub:
        subscriber = RecordingSubscriber()
        async with joining_again(hub, subscriber):
            await publish(hub, 1)
            third = Failing()
            third.gate.set()
            with pytest.raises(ZeroDivisionError):
                await join(hub, subscriber, snapshot=third)
        await publish(hub, 2)
        assert [message.get("data") for message in await subscriber.receive(3)] == [None, 1, 2]


async def test_leaving_or_closing_cancels_a_join_under_way() -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        left, ended = RecordingSubscriber(), RecordingSubscriber()
        layer.gate.clear()
        both = [asyncio.create_task(join(hub, left)), asyncio.create_task(join(hub, ended))]
        await asyncio.sleep(0)
        assert hub.leave(left, TOPIC, TOPIC)
        ended.close(1000)
        layer.gate.set()
        assert [type(error) for error in await asyncio.gather(*both, return_exceptions=True)] == [Cancelled, Cancelled]
        assert hub.subscriptions(left) == hub.subscriptions(ended) == []
        with pytest.raises(Cancelled):
            await join(hub, ended)


async def test_closing_the_hub_refuses_pending_and_later_calls() -> None:
    layer = ScriptedLayer()
    hub = Hub(layer)
    layer.gate.clear()
    subscriber = RecordingSubscriber()
    joining = asyncio.create_task(join(hub, subscriber))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await hub.close()
    with pytest.raises(Cancelled):
        await joining
    for late in (join(hub, subscriber), publish(hub), hub.invalidate(TOPIC)):
        with pytest.raises(LayerUnavailable):
            await late
    hub.invalidate_later(TOPIC, HISTORY)
    layer.gate.set()
    await hub.open()  # an explicit open() opens it again
    await join(hub, subscriber)
    await hub.close()


async def test_the_hub_opens_itself_on_first_use() -> None:
    layer = ScriptedLayer()
    hub = Hub(layer)
    assert not hasattr(layer, "sink")
    await publish(hub)
    assert layer.sink is hub
    await hub.open()
    assert not hub.is_closed
    await hub.close()
    await hub.close()
    assert hub.is_closed


# -- leaving ----------------------------------------------------------------------------------------------------------
async def test_a_subscriber_who_left_receives_nothing_more() -> None:
    async with opened() as hub:
        subscriber, existing = RecordingSubscriber(), RecordingSubscriber()
        await join(hub, subscriber)
        await join(hub, subscriber, "other/")
        await join(hub, existing)
        assert hub.subscriptions(subscriber) == [(TOPIC, TOPIC), ("other/", "other/")]
        assert hub.leave(subscriber, TOPIC, TOPIC)
        assert not hub.leave(subscriber, TOPIC, TOPIC)
        await publish(hub)
        await existing.receive(2)
        assert len(subscriber.received) == 2
        hub.leave_all(subscriber)
        hub.leave_all(subscriber)
        assert hub.subscriptions(subscriber) == []


async def test_leaving_drops_events_that_are_being_sent() -> None:
    async with opened(**SLICED) as hub:
        subscribers = [RecordingSubscriber() for _ in range(5)]
        for subscriber in subscribers:
            await join(hub, subscriber)
        await publish(hub)
        hub.leave(subscribers[4], TOPIC, TOPIC)
        await join(hub, subscribers[3])  # joins again: the reply follows the event
        await subscribers[3].receive(3)
        assert [len(subscriber.received) for subscriber in subscribers] == [2, 2, 2, 3, 1]
        assert subscribers[3].received[2]["offset"] == 1


async def test_leaving_still_sends_a_queued_reply() -> None:
    async with opened(**SLICED) as hub:
        subscribers = [RecordingSubscriber() for _ in range(5)]
        for subscriber in subscribers:
            await join(hub, subscriber)
        await publish(hub)
        await join(hub, subscribers[4])  # joins again: its reply is queued behind the event
        hub.leave(subscribers[4], TOPIC, TOPIC)
        assert "event" not in (await subscribers[4].receive(2))[1]
        await subscribers[3].receive(2)


async def test_leaving_still_sends_a_reply_that_waits_for_a_filter() -> None:
    async with opened() as hub:
        subscriber, called = RecordingSubscriber(), asyncio.Event()

        async def never(event: Event) -> str | None:
            called.set()
            await asyncio.get_running_loop().create_future()
            return None

        await join(hub, subscriber, filter=never)
        for number in range(2):
            await publish(hub, number)
        await called.wait()
        await join(hub, subscriber, filter=never)
        assert len(subscriber.received) == 1
        hub.leave(subscriber, TOPIC, TOPIC)
        assert (await subscriber.receive(2))[1]["offset"] == 2


async def test_replies_that_wait_for_a_filter_are_bounded() -> None:
    async with opened(queue_limits=QueueLimits(max_unfiltered=5)) as hub:
        subscriber, called = RecordingSubscriber(), asyncio.Event()

        async def never(event: Event) -> str | None:
            called.set()
            await asyncio.get_running_loop().create_future()
            return None

        await join(hub, subscriber, filter=never)
        await publish(hub)
        await called.wait()
        for _ in range(6):
            await join(hub, subscriber, filter=never)
        assert subscriber.code == 1013


async def test_a_reply_waits_for_the_filter_of_earlier_events() -> None:
    async with opened() as hub:
        subscriber, called, proceed = RecordingSubscriber(), asyncio.Event(), asyncio.Event()

        async def slow(event: Event) -> str | None:
            called.set()
            await proceed.wait()
            return event.frame

        await join(hub, subscriber, filter=slow)
        await publish(hub, 1)
        await called.wait()
        await join(hub, subscriber, filter=slow)
        await hub.invalidate(TOPIC, HISTORY)
        proceed.set()
        events = [events.get("event", "reply") for events in await subscriber.receive(4)]
        assert events == ["reply", "moved", "reply", "$resync"]


async def test_a_slow_filter_times_out_for_its_event_only(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as hub:
        subscriber, slow, cancelled = RecordingSubscriber(), RecordingSubscriber(), 0

        async def stubborn(event: Event) -> str | None:
            nonlocal cancelled
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                cancelled += 1
                if event.offset == 2:
                    return event.frame  # as careless code does
                raise
            return None

        async def quick(event: Event) -> str | None:
            return event.frame

        await join(hub, slow, filter=stubborn, filter_timeout=0.05)
        await join(hub, subscriber, filter=quick, filter_timeout=0.05)
        for number in range(3):
            await publish(hub, number)
        events = [message.get("event") for message in await slow.receive(4)]
        assert events == [None, "$resync", "moved", "$resync"]
        assert (cancelled, caplog.text.count("TimeoutError: the filter took longer than 0.05 s")) == (3, 2)
        assert subscriber.events() == [("moved", 1), ("moved", 2), ("moved", 3)]
        await publish(hub, 3)
        hub.leave(slow, TOPIC, TOPIC)
        await hub.close()
        assert len(slow.received) == 4


async def test_joining_again_replaces_the_filter() -> None:
    async with opened() as hub:
        subscriber, called = RecordingSubscriber(), asyncio.Event()

        async def all_of_it(event: Event) -> str | None:
            return event.frame

        async def nothing(event: Event) -> str | None:
            called.set()
            return None

        await join(hub, subscriber, filter=all_of_it)
        await publish(hub, 1)
        await subscriber.receive(2)
        await join(hub, subscriber, filter=nothing)
        await publish(hub, 2)
        await called.wait()
        await join(hub, subscriber, filter=all_of_it)
        await publish(hub, 3)
        assert [name.get("data") for name in (await subscriber.receive(5))] == [None, 1, None, None, 3]


async def test_joining_again_adds_a_first_filter() -> None:
    async with opened() as hub:
        subscriber = RecordingSubscriber()

        async def only_even(event: Event) -> str | None:
            return event.frame if event.message["data"] % 2 == 0 else None

        await join(hub, subscriber)
        await publish(hub, 1)
        await join(hub, subscriber, filter=only_even)
        for number in (3, 4):
            await publish(hub, number)
        received = [message.get("data") for message in await subscriber.receive(5)]
        # What came between the two subscriptions may be missing, so that there is a `$resync` behind the reply.
        assert received == [None, 1, None, {"epoch": ANY, "offset": 1}, 4]
        assert hub.subscriptions(subscriber) == [(TOPIC, TOPIC)]


async def test_a_topic_lingers_and_is_then_released(monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[str] = []
    layer = MemoryLayer()
    unsubscribe = layer.unsubscribe
    let_go = asyncio.Event()

    def noting(topic: str) -> None:
        gone.append(topic)
        unsubscribe(topic)
        let_go.set()

    monkeypatch.setattr(layer, "unsubscribe", noting)
    async with opened(layer, linger=0.1) as hub:
        subscriber = RecordingSubscriber()
        for _ in range(3):
            await join(hub, subscriber)
            hub.leave(subscriber, TOPIC, TOPIC)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert gone == []
        await let_go.wait()
        assert (gone, hub.subscriptions(subscriber)) == ([TOPIC], [])
        await publish(hub)
        await join(hub, subscriber)
        assert len(await subscriber.receive(4)) == 4


# -- publishing -------------------------------------------------------------------------------------------------------
async def test_exclude_skips_the_publisher() -> None:
    async with opened() as hub:
        me, other = RecordingSubscriber(), RecordingSubscriber()
        first = await publish(hub)
        for subscriber in (me, other):
            await join(hub, subscriber)
        for number in range(1, 4):
            await publish(hub, number, exclude=me)
        await publish(hub, 4)
        assert [offset for _, offset in (await me.receive(2) and me.events())] == [5]
        assert [offset for _, offset in (await other.receive(5) and other.events())] == [2, 3, 4, 5]
        await join(hub, me, since=first)
        await publish(hub, 5, exclude=me)
        await publish(hub, 6)
        await me.receive(5)
        assert [offset for _, offset in me.events()] == [5, 5, 7]
        stranger = RecordingSubscriber()
        await publish(hub, 7, exclude=stranger)  # it receives nothing anyway
        hub.leave_all(me)
        assert not hub._names


async def test_a_subscriber_with_few_events_gets_its_position() -> None:

    async def none(event: Event) -> None:
        return None

    async with opened(queue_limits=QueueLimits(skips_before_position=3)) as hub:
        me, blind = RecordingSubscriber(), RecordingSubscriber()
        await join(hub, me)
        await join(hub, blind, filter=none)
        for number in range(7):
            at = await publish(hub, number, exclude=me)
        await publish(hub, 8, history=None, exclude=me)
        assert at is not None
        for subscriber in (me, blind):
            notices = (await subscriber.receive(3))[1:]
            assert notices == [
                {"event": "$position", "route": TOPIC, "data": {"epoch": at.epoch, "offset": offset}}
                for offset in (3, 6)
            ]


@pytest.mark.parametrize("filtered", [False, True])
async def test_a_position_is_sent_behind_events_that_are_under_way(filtered: bool) -> None:

    async def all_of_it(event: Event) -> str:
        return event.frame

    async with opened(**SLICED, queue_limits=QueueLimits(skips_before_position=3)) as hub:
        subscribers = [RecordingSubscriber() for _ in range(4)]
        for subscriber in subscribers:
            await join(hub, subscriber, filter=all_of_it if filtered else None)
        me = subscribers[3]
        await publish(hub)
        for number in range(3):
            await publish(hub, number, exclude=me)
        await me.receive(3)  # a client that drops after the notice asks for nothing before it
        assert me.events() == [("moved", 1), ("$position", 0)]
        assert me.received[2]["data"]["offset"] == 4


@pytest.mark.parametrize("filtered", [False, True])
async def test_held_messages_are_sent_in_order_after_the_last_release(filtered: bool) -> None:
    async def all_of_it(event: Event) -> str:
        await asyncio.sleep(0)
        return event.frame

    async with opened() as hub:
        me = RecordingSubscriber()
        await join(hub, me, filter=all_of_it if filtered else None)
        first, second = hub.hold(me, TOPIC, TOPIC), hub.hold(me, TOPIC, TOPIC)
        await publish(hub)
        await join(hub, me)  # joins again: the reply follows the event
        await publish(hub)
        first()
        await publish(hub)
        await asyncio.sleep(0)
        assert len(await me.receive(1)) == 1
        second()
        await publish(hub)
        messages = await me.receive(6)
        assert [message["offset"] for message in messages] == [0, 1, 1, 2, 3, 4]
        assert "event" not in messages[2]


@pytest.mark.parametrize("filtered", [False, True])
async def test_leaving_still_sends_a_held_reply_and_no_events(filtered: bool) -> None:
    async def all_of_it(event: Event) -> str:
        return event.frame

    async with opened() as hub:
        me, existing = RecordingSubscriber(), RecordingSubscriber()
        await join(hub, existing)
        await join(hub, me, filter=all_of_it if filtered else None)
        release = hub.hold(me, TOPIC, TOPIC)
        await publish(hub)
        await join(hub, me)
        hub.leave(me, TOPIC, TOPIC)
        release()
        hub.hold(me, TOPIC, TOPIC)()  # it has left
        await publish(hub)
        await existing.receive(3)
        assert [message["offset"] for message in await me.receive(2)] == [0, 1]
        assert me.events() == []


async def test_held_events_are_bounded() -> None:
    async with opened(queue_limits=QueueLimits(max_held=3)) as hub:
        me = RecordingSubscriber()
        await join(hub, me)
        release = hub.hold(me, TOPIC, TOPIC)
        for _ in range(2):
            await publish(hub)
        await join(hub, me)  # its reply is sent all the same
        for _ in range(2):  # too many, so it gets a resync
            await publish(hub)
        assert len(await me.receive(1)) == 1
        release()
        await publish(hub)
        reply, notice, event = (await me.receive(4))[1:]
        assert reply["offset"] == 2
        assert (notice["event"], notice["data"]["offset"]) == ("$resync", 4)
        assert (event["event"], event["offset"]) == ("moved", 5)


async def test_held_replies_are_bounded() -> None:
    async with opened(queue_limits=QueueLimits(max_held=3)) as hub:
        me = RecordingSubscriber()
        await join(hub, me)
        hub.hold(me, TOPIC, TOPIC)
        for _ in range(3):
            await join(hub, me)
        assert not me.is_closed
        await join(hub, me)
        assert me.code == 1013


async def test_text_that_is_not_an_event_is_refused() -> None:
    async with opened() as hub:
        with pytest.raises(ValueError, match="an event is"):
            await hub.publish(TOPIC, '{"status":200}', HISTORY)


async def test_a_loop_of_publications_lets_other_tasks_run() -> None:
    async with opened() as hub:
        subscriber = RecordingSubscriber(capacity=20_000)
        await join(hub, subscriber)
        for number in range(2_000):
            await publish(hub, number)
        await subscriber.receive(2_001)
        assert not subscriber.code


async def test_invalidate_sends_a_resync_to_every_subscriber() -> None:
    async with opened() as hub:
        subscriber, without = RecordingSubscriber(), RecordingSubscriber()
        await join(hub, subscriber)
        await join(hub, without, "other/", history=None)
        at = await publish(hub)
        assert at is not None
        await hub.invalidate(TOPIC, HISTORY)
        await hub.invalidate("other/")
        notice = (await subscriber.receive(3))[2]
        assert (notice["event"], notice["data"]["offset"]) == ("$resync", 1)
        assert notice["data"]["epoch"] != at.epoch
        assert (await without.receive(2))[1] == {
            "event": "$resync",
            "route": "other/",
            "data": {"epoch": "", "offset": 0},
        }


async def test_pending_invalidations_are_retried_until_they_succeed(caplog: pytest.LogCaptureFixture) -> None:
    layer = ScriptedLayer()
    async with opened(layer, max_pending_invalidations=2) as hub:
        subscriber = RecordingSubscriber()
        await join(hub, subscriber)
        layer.publish_failures = 2
        for topic in (TOPIC, "other/", "third/", TOPIC):
            hub.invalidate_later(topic, HISTORY)
        assert "'third/' get no $resync" in caplog.text
        assert (await subscriber.receive(2))[1]["event"] == "$resync"


@pytest.mark.parametrize("hangs", [False, True])
async def test_closing_logs_topics_with_a_pending_invalidation(hangs: bool, caplog: pytest.LogCaptureFixture) -> None:
    class Away(MemoryLayer):
        called = asyncio.Event()

        async def invalidate(self, topic: str, history: History | None) -> None:
            self.called.set()
            if hangs:
                await asyncio.get_running_loop().create_future()
            raise LayerUnavailable

    layer = Away()
    async with opened(layer) as hub:
        for topic in (TOPIC, "other/"):
            hub.invalidate_later(topic, HISTORY)
        await layer.called.wait()
    for topic in (TOPIC, "other/"):
        assert f"subscribers of {topic!r} get no $resync for events that they missed: the server ends" in caplog.text


# -- filters ----------------------------------------------------------------------------------------------------------
async def test_a_filter_decides_what_its_subscriber_receives() -> None:
    async with opened() as hub:
        some, all_ = RecordingSubscriber(), RecordingSubscriber()
        proceed = asyncio.Event()

        async def filter(event: Event) -> str | None:
            await proceed.wait()
            if event.subject == {"owner": 2}:
                return event.with_offset(encode_event("deleted", TOPIC, "null"))
            return event.frame if event.message["data"] % 2 else None

        await join(hub, some, filter=filter)
        await join(hub, all_)
        for number in range(4):
            await publish(hub, number)
        await publish(hub, 4, subject='{"owner":2}')
        await join(hub, some, filter=filter)  # joins again: the reply follows its pending events
        proceed.set()
        await some.receive(5)
        assert some.events() == [("moved", 2), ("moved", 4), ("deleted", 5)]
        assert some.received[-1]["offset"] == 5
        await all_.receive(6)
        assert [offset for _, offset in all_.events()] == [1, 2, 3, 4, 5]


async def test_missed_events_are_filtered_too() -> None:
    async with opened() as hub:
        subscriber = RecordingSubscriber()

        async def even(event: Event) -> str | None:
            return None if event.message["data"] % 2 else event.frame

        first = await publish(hub, 0)
        for number in range(1, 5):
            await publish(hub, number)
        await join(hub, subscriber, since=first, filter=even)
        await subscriber.receive(3)
        assert [offset for _, offset in subscriber.events()] == [3, 5]
        await publish(hub, 6, exclude=subscriber)
        await publish(hub, 8)
        await subscriber.receive(4)
        assert subscriber.events()[-1] == ("moved", 7)


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
async def test_a_failing_filter_sends_a_resync_and_is_logged(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async with opened() as hub:
        subscriber = RecordingSubscriber()

        async def failing(event: Event) -> str | None:
            raise error  # a cancellation raised by the filter, not of the hub

        await join(hub, subscriber, filter=failing)
        at = await publish(hub)
        assert at is not None
        notice = (await subscriber.receive(2))[1]
        assert notice == {"event": "$resync", "route": TOPIC, "data": {"epoch": at.epoch, "offset": 1}}
        assert error.__name__ in caplog.text


async def test_too_many_unfiltered_events_close_the_subscriber() -> None:
    async with opened(queue_limits=QueueLimits(max_unfiltered=5)) as hub:
        subscriber, other = RecordingSubscriber(), RecordingSubscriber()

        async def never(event: Event) -> str | None:
            await asyncio.get_running_loop().create_future()
            return None

        await join(hub, subscriber, filter=never)
        await join(hub, other)
        for number in range(7):
            await publish(hub, number)
        assert subscriber.code == 1013
        hub.leave_all(subscriber)
        assert len(await other.receive(8)) == 8


async def test_a_filter_ends_with_its_subscription() -> None:
    async with opened() as hub:
        subscriber = RecordingSubscriber()
        called, proceed = asyncio.Event(), asyncio.Event()

        async def filter(event: Event) -> str | None:
            called.set()
            with contextlib.suppress(asyncio.CancelledError):  # as careless code does
                await proceed.wait()
            return event.frame

        await join(hub, subscriber, filter=filter)
        await publish(hub)
        await called.wait()
        hub.leave(subscriber, TOPIC, TOPIC)
        await hub.close()
        assert len(subscriber.received) == 1


async def test_a_filter_does_not_see_the_frame_of_the_publisher() -> None:
    async with opened() as hub:
        subscriber = RecordingSubscriber()
        seen: list[Any] = []

        async def look(event: Event) -> str | None:
            seen.append(current_frame.get())
            return event.frame

        await join(hub, subscriber, filter=look)
        current_frame.set(new_frame({}, "move", TOPIC, None))
        await publish(hub)
        await subscriber.receive(2)
        assert seen == [None]


# -- layers -----------------------------------------------------------------------------------------------------------
async def test_a_hole_is_filled_from_the_layer() -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        subscriber = RecordingSubscriber()
        await join(hub, subscriber)
        await publish(hub, 1)
        layer.drops_messages = True
        await publish(hub, 2)
        await publish(hub, 3)
        layer.drops_messages = False
        await publish(hub, 4)
        await subscriber.receive(5)
        assert [offset for _, offset in subscriber.events()] == [1, 2, 3, 4]


async def test_a_silent_loss_is_found_by_comparing_positions() -> None:
    layer = ScriptedLayer()
    async with opened(layer, check_interval=0.01, check_grace=0.001) as hub:
        subscriber = RecordingSubscriber()
        await join(hub, subscriber)
        await join(hub, subscriber, "other/", history=None)
        layer.drops_messages = True
        await publish(hub, 1)
        layer.drops_messages = False
        layer.failures = [LayerUnavailable(), ZeroDivisionError()]
        await subscriber.receive(3)
        assert subscriber.events() == [("moved", 1)]


async def test_a_loss_that_cannot_be_filled_is_a_resync() -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        subscriber, without = RecordingSubscriber(), RecordingSubscriber()
        await join(hub, subscriber)
        await join(hub, without, "other/", history=None)
        hub.lost()
        await layer.invalidate(TOPIC, HISTORY)
        for topic in (TOPIC, "other/", "nobody's/"):
            hub.subscribed(topic)
        assert (await subscriber.receive(2))[1]["event"] == "$resync"
        assert (await without.receive(2))[1]["event"] == "$resync"


async def test_unconfirmed_and_unknown_topics_ignore_messages() -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        subscriber = RecordingSubscriber()
        await join(hub, subscriber)
        hub.lost()
        hub.message(TOPIC, "e", 9, b'{"event":1}')
        hub.message("nobody's/", "e", 9, b'{"event":1}')
        hub.subscribed(TOPIC)
        await publish(hub, 1)
        await subscriber.receive(2)
        assert subscriber.events() == [("moved", 1)]


async def test_a_failed_read_of_the_layer_is_retried(caplog: pytest.LogCaptureFixture) -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        subscriber = RecordingSubscriber()
        layer.failures = [LayerUnavailable(), ZeroDivisionError("the layer's")]
        await join(hub, subscriber)
        assert len(await subscriber.receive(1)) == 1
        assert "ZeroDivisionError: the layer's" in caplog.text


async def test_a_page_from_a_lost_connection_is_discarded() -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        subscriber = RecordingSubscriber()
        layer.gate.clear()
        layer.pages = [Page(Position("dead", 99), None)]
        joining = asyncio.create_task(join(hub, subscriber))
        while not layer.reads:  # noqa: ASYNC110
            await asyncio.sleep(0)
        hub.lost()
        hub.subscribed(TOPIC)
        layer.gate.set()
        await joining
        assert (await subscriber.receive(1))[0]["offset"] == 0


async def test_a_full_backlog_is_replaced_by_a_read() -> None:
    layer = ScriptedLayer()
    async with opened(layer, queue_limits=QueueLimits(max_backlog=3)) as hub:
        subscriber = RecordingSubscriber()
        await join(hub, subscriber)
        layer.gate.clear()
        hub.subscribed(TOPIC)
        await asyncio.sleep(0)
        reads = layer.reads
        for number in range(10):
            await publish(hub, number)
        layer.gate.set()
        await subscriber.receive(11)
        assert [offset for _, offset in subscriber.events()] == list(range(1, 11))
        assert layer.reads == reads + 1


async def test_a_hole_found_during_a_read_is_read_again() -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        subscriber = RecordingSubscriber()
        await join(hub, subscriber)
        layer.gate.clear()
        hub.subscribed(TOPIC)
        await asyncio.sleep(0)  # the page is made and under way
        layer.drops_messages = True
        await publish(hub, 1)
        layer.drops_messages = False
        await publish(hub, 2)
        layer.gate.set()
        await subscriber.receive(3)
        assert [offset for _, offset in subscriber.events()] == [1, 2]


async def test_an_invalidated_past_is_no_past_of_later_events() -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        existing, subscriber = RecordingSubscriber(), RecordingSubscriber()
        await join(hub, existing)
        for number in range(1, 6):
            await publish(hub, number)
        layer.drops_messages = True
        await hub.invalidate(TOPIC, HISTORY)
        at = await publish(hub, 6)
        await publish(hub, 7)
        layer.drops_messages = False
        hub.subscribed(TOPIC)
        assert (await existing.receive(7))[-1]["event"] == "$resync"
        assert at is not None
        await join(hub, subscriber, since=Position(at.epoch, 5))
        assert [message.get("data") for message in await subscriber.receive(3)] == [None, 6, 7]


async def test_concurrent_reads_of_the_layer_are_bounded() -> None:
    layer = ScriptedLayer()
    layer.gate.clear()
    async with opened(layer, max_reads=2) as hub:
        subscribers = [RecordingSubscriber() for _ in range(5)]
        joining = [
            asyncio.ensure_future(join(hub, subscriber, f"t{number}")) for number, subscriber in enumerate(subscribers)
        ]
        for _ in range(10):
            await asyncio.sleep(0)
        assert layer.reads == 2
        layer.gate.set()
        await asyncio.gather(*joining)
        assert layer.reads == 5


async def test_a_join_that_collects_too_much_takes_a_new_snapshot() -> None:
    async with opened(queue_limits=QueueLimits(max_collected=3)) as hub:
        subscriber = RecordingSubscriber()
        called: list[int] = []

        async def snapshot() -> int:
            called.append(1)
            if len(called) == 1:
                for number in range(10):
                    await publish(hub, number)
            return len(called)

        await join(hub, subscriber, snapshot=snapshot)
        assert [(message["snapshot"], message["offset"]) for message in await subscriber.receive(1)] == [(2, 10)]


async def test_many_returning_subscribers_cost_one_read() -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        existing, subscribers = RecordingSubscriber(), [RecordingSubscriber() for _ in range(20)]
        await join(hub, existing)
        first = await publish(hub, 0)
        assert first is not None
        for number in range(99):
            await publish(hub, number)
        reads = layer.reads
        back = [Position(first.epoch, first.offset + number % 10) for number in range(20)]
        layer.gate.clear()
        joining = [
            asyncio.create_task(join(hub, subscriber, since=at))
            for subscriber, at in zip(subscribers, back, strict=True)
        ]
        while hub._topics[TOPIC].pages is None or hub._topics[TOPIC].pages.waiting < 20:  # noqa: ASYNC110
            await asyncio.sleep(0)
        layer.gate.set()
        await asyncio.gather(*joining)
        assert layer.reads == reads + 1
        for subscriber, since in zip(subscribers, back, strict=True):
            await subscriber.receive(1 + 100 - since.offset)
            assert [offset for _, offset in subscriber.events()] == list(range(since.offset + 1, 101))
        assert hub._topics[TOPIC].pages is None


async def test_a_subscriber_ahead_of_its_process_gets_no_event_twice() -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        existing, subscriber = RecordingSubscriber(), RecordingSubscriber()
        await join(hub, existing)
        first = await publish(hub, 1)
        for number in range(2, 80):
            await publish(hub, number)
        layer.drops_messages = True  # this process receives no events of others yet
        for number in range(80, 83):
            await publish(hub, number)
        await join(hub, subscriber, since=first)
        assert len(await subscriber.receive(82)) == 82
        await join(hub, subscriber)  # joins again: the reply has its own position, not that of the process
        assert (await subscriber.receive(83))[-1]["offset"] == 82
        layer.drops_messages = False
        hub.message(TOPIC, "", 0, b'{"event":"passing","route":"boards/7/","data":0}')
        await publish(hub, 83)
        await subscriber.receive(85)
        assert [offset for _, offset in subscriber.events()] == [*range(2, 83), 0, 83]
        await existing.receive(85)
        assert sorted(offset for _, offset in existing.events()) == [0, *range(1, 84)]


@pytest.mark.parametrize(("shared", "expected"), [(82, "$position"), (80, "$resync")])
async def test_a_new_epoch_tells_subscribers_ahead_where_they_stand(shared: int, expected: str) -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        existing, subscriber, waits = RecordingSubscriber(), RecordingSubscriber(), RecordingSubscriber()
        await join(hub, existing)
        first = await publish(hub, 1)
        for number in range(2, 80):
            await publish(hub, number)
        layer.drops_messages = True
        for number in range(80, 83):
            await publish(hub, number)
        await join(hub, subscriber, since=first)
        layer.pages = [Page(Position("next", 83), [(n, b'{"event":"moved"}') for n in range(80, 84)], shared)]

        async def snapshot() -> None:
            hub.subscribed(TOPIC)  # which makes the topic read everything again
            while not existing.received or existing.received[-1].get("offset") != 83:  # noqa: ASYNC110
                await asyncio.sleep(0)

        await join(hub, waits, snapshot=snapshot)
        notice = next(message for message in await subscriber.receive(83) if message.get("event", "").startswith("$"))
        assert (notice["event"], notice["data"]["epoch"]) == (expected, "next")
        assert notice["data"]["offset"] == (82 if expected == "$position" else 83)
        renamed = next(message for message in existing.received if message.get("event") == "$position")
        assert renamed["data"] == {"epoch": "next", "offset": 79}
        assert (await waits.receive(1))[0] == {"epoch": "next", "offset": 83, "recovered": None, "snapshot": None}


async def test_an_invalidation_reaches_subscribers_ahead() -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        existing, subscriber = RecordingSubscriber(), RecordingSubscriber()
        await join(hub, existing)
        first = await publish(hub, 1)
        for number in range(2, 80):
            await publish(hub, number)
        layer.drops_messages = True
        await publish(hub, 80)
        await join(hub, subscriber, since=first)
        await hub.invalidate(TOPIC, HISTORY)
        layer.drops_messages = False
        hub.subscribed(TOPIC)
        assert (await subscriber.receive(81))[-1]["event"] == "$resync"


async def test_a_page_of_another_epoch_restarts_the_join() -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        existing, subscriber = RecordingSubscriber(), RecordingSubscriber()
        await join(hub, existing)
        first = await publish(hub, 1)
        assert first is not None
        for number in range(2, 80):
            await publish(hub, number)
        layer.pages = [Page(Position("dead", 3), None)]
        await join(hub, subscriber, since=first)
        assert [(await subscriber.receive(1))[0][key] for key in ("epoch", "recovered")] == [first.epoch, True]


async def test_a_lost_topic_restarts_a_join_that_waits_to_read() -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        existing, subscribers = RecordingSubscriber(), [RecordingSubscriber(), RecordingSubscriber()]
        await join(hub, existing)
        first = await publish(hub, 1)
        assert first is not None
        for number in range(2, 80):
            await publish(hub, number)
        layer.gate.clear()
        reads = layer.reads
        joining = [
            asyncio.create_task(join(hub, subscriber, since=Position(first.epoch, 2 - at)))
            for at, subscriber in enumerate(subscribers)
        ]
        while layer.reads == reads:  # noqa: ASYNC110
            await asyncio.sleep(0)
        hub.lost()
        layer.gate.set()
        await joining[0]
        hub.subscribed(TOPIC)
        await joining[1]
        for subscriber, missed in zip(subscribers, (77, 78), strict=True):
            assert (await subscriber.receive(1 + missed))[0]["recovered"] is True


async def test_events_during_a_reconciliation_are_sent_after_it() -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        subscriber = RecordingSubscriber()
        await join(hub, subscriber)
        layer.gate.clear()
        hub.subscribed(TOPIC)
        await asyncio.sleep(0)
        await publish(hub, 1)
        await publish(hub, 2)
        assert subscriber.events() == []
        layer.gate.set()
        await subscriber.receive(3)
        assert [offset for _, offset in subscriber.events()] == [1, 2]
        assert layer.reads == 2


async def test_a_join_waits_while_the_layer_is_away() -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        first, late = RecordingSubscriber(), RecordingSubscriber()
        await join(hub, first)
        hub.lost()
        joining = asyncio.create_task(join(hub, late))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not joining.done()
        hub.subscribed(TOPIC)
        await joining
        assert len(await late.receive(1)) == 1


async def test_a_message_of_another_epoch_is_ignored() -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        subscriber = RecordingSubscriber()
        await join(hub, subscriber)
        hub.message(TOPIC, "foreign", 1, b'{"event":"foreign","route":"x","data":1}')
        await publish(hub, 1)
        await subscriber.receive(2)
        await publish(hub, 2)
        await subscriber.receive(3)
        assert [event["data"] for event in subscriber.received[1:]] == [1, 2]


async def test_a_topic_without_history_gets_a_resync_at_each_loss() -> None:
    layer = ScriptedLayer()
    async with opened(layer) as hub:
        waits = RecordingSubscriber()
        layer.drops_messages = True
        joining = asyncio.create_task(join(hub, waits, history=None))
        await asyncio.sleep(0)
        hub.subscribed(TOPIC)
        await joining
        hub.lost()
        hub.subscribed(TOPIC)
        hub.message(TOPIC, "", 0, b"")
        messages = await waits.receive(3)
        assert [message.get("event") for message in messages] == [None, "$resync", "$resync"]
