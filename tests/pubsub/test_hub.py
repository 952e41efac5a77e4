"""`wsaction._pubsub.hub`: joining, leaving, publishing, filters and bounds, one at a time; under chaos in
`test_hub_races`."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.hub_simulation import FakeSubscriber
from tests.support.virtual_time import anyio_backend  # noqa: F401  # the fixture
from wsaction._protocol.event_frames import encode_event
from wsaction._protocol.frames import current_frame, new_frame
from wsaction._pubsub import subscription as recipients
from wsaction._pubsub import topic as topics
from wsaction._pubsub.event import Event
from wsaction._pubsub.hub import Hub
from wsaction._pubsub.topic import Rings
from wsaction.exceptions import Cancelled, LayerUnavailable
from wsaction.layers.base import History, Page, Position, Sink
from wsaction.layers.memory import MemoryLayer

TOPIC = "boards/7/"
HISTORY = History(100, 60, always=True)


class Ears(FakeSubscriber):
    """A subscriber whose client notes everything."""

    def __init__(self, capacity: int = 1 << 20) -> None:
        super().__init__(self._hear, capacity)
        self.heard: list[Any] = []
        self._changed = asyncio.Event()

    def _hear(self, text: str) -> None:
        self.heard.append(json.loads(text))
        self._changed.set()

    async def hear(self, count: int) -> list[Any]:
        """The first so many messages."""
        async with asyncio.timeout(5):
            while len(self.heard) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.heard

    def events(self) -> list[tuple[str, int]]:
        """Name and offset of every event heard."""
        return [(one["event"], one.get("offset", 0)) for one in self.heard if "event" in one]


class Scripted(MemoryLayer):
    """A layer whose reads can be held up or fail, and that tells only what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.sink: Sink
        self.gate = asyncio.Event()
        self.gate.set()
        self.reads = 0
        self.failures: list[Exception] = []
        self.pages: list[Page] = []
        self.is_deaf = False
        self.publish_failures = 0

    async def open(self, sink: Sink) -> None:
        await super().open(self)
        self.sink = sink

    def message(self, topic: str, epoch: str, offset: int, body: bytes) -> None:
        if not self.is_deaf:
            self.sink.message(topic, epoch, offset, body)

    def subscribed(self, topic: str) -> None:
        if not self.is_deaf:
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


SLICED: Any = {"fanout_chunk": 1, "fanout_seconds": -1.0}  # one recipient a turn


@asynccontextmanager
async def opened(layer: MemoryLayer | None = None, **options: Any) -> AsyncIterator[Hub]:
    one = Hub(layer or MemoryLayer(), **options)
    before = asyncio.all_tasks()
    await one.open()
    try:
        yield one
    finally:
        await one.close()
        left = asyncio.all_tasks() - before
        assert not [task for task in left if "Subscriber" not in repr(task) and "_write" not in repr(task)]


def reply(position: Position, recovered: bool | None, snapshot: Any) -> str:
    return json.dumps(
        {"epoch": position.epoch, "offset": position.offset, "recovered": recovered, "snapshot": snapshot}
    )


async def join(one: Hub, ears: Any, topic: str = TOPIC, **options: Any) -> None:
    options = {"history": HISTORY, "reply": reply, **options}
    await one.join(ears, topic, topic, **options)


async def say(one: Hub, number: int = 0, topic: str = TOPIC, **options: Any) -> Position | None:
    history = options.pop("history", HISTORY)
    return await one.publish(topic, encode_event("moved", topic, str(number)), history, **options)


# -- joining ----------------------------------------------------------------------------------------------------------
async def test_the_reply_comes_first_then_what_is_published() -> None:
    async with opened() as one:
        ears = Ears()
        await say(one, 1)
        await join(one, ears)
        at = await say(one, 2)
        assert at is not None
        first, event = await ears.hear(2)
        assert first == {"epoch": at.epoch, "offset": 1, "recovered": None, "snapshot": None}
        assert event == {"event": "moved", "route": TOPIC, "data": 2, "offset": 2}


async def test_every_recipient_gets_the_same_text() -> None:
    async with opened() as one:
        texts: list[str] = []
        for _ in range(3):
            ears = Ears()
            ears.put = texts.append  # type: ignore[method-assign]
            await join(one, ears)
        texts.clear()
        await say(one)
        assert len(texts) == 3
        assert len({id(text) for text in texts}) == 1


async def test_without_history_there_is_no_position_and_no_offset() -> None:
    async with opened() as one:
        ears = Ears()
        await join(one, ears, history=None)
        assert await say(one, history=None) is None
        first, event = await ears.hear(2)
        assert (first["epoch"], first["offset"], first["recovered"]) == ("", 0, None)
        assert event == {"event": "moved", "route": TOPIC, "data": 0}
        await join(one, ears, history=None, since=Position("x", 3))
        assert (await ears.hear(3))[2]["recovered"] is False


async def test_an_event_of_no_history_passes_through_a_topic_that_keeps_one() -> None:
    async with opened() as one:
        ears = Ears()
        await join(one, ears)
        await say(one, 1)
        await say(one, 2, history=None)
        await one.invalidate(TOPIC, None)
        await say(one, 3)
        assert [(two["data"], two.get("offset")) for two in (await ears.hear(4))[1:]] == [(1, 1), (2, None), (3, 2)]


@pytest.mark.parametrize("ring", [1, 64])
async def test_who_comes_back_gets_what_was_missed_and_the_position_before_it(ring: int) -> None:
    async with opened(rings=Rings(events=ring)) as one:
        stays, ears = Ears(), Ears()
        await join(one, stays)
        first = await say(one, 1)
        assert first is not None
        for number in range(2, 7):
            await say(one, number)
        await join(one, ears, since=first)
        await say(one, 7)
        heard = await ears.hear(7)
        assert heard[0] == {"epoch": first.epoch, "offset": 1, "recovered": True, "snapshot": None}
        assert [two["data"] for two in heard[1:]] == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    "since",
    [Position("other", 1), Position("", 0), Position("\ud800", 1), Position("e" * 1_000, 1), None, -1, 4, 2**60],
    ids=str,
)
async def test_what_cannot_be_recovered_is_not_told_in_part(since: Any) -> None:
    async with opened() as one:
        ears = Ears()
        at = None
        for number in range(3):
            at = await say(one, number)
        assert at is not None
        position = Position(at.epoch, since) if isinstance(since, int) else since
        await join(one, ears, since=position)
        assert await ears.hear(1) == [
            {"epoch": at.epoch, "offset": 3, "recovered": None if since is None else False, "snapshot": None}
        ]


@pytest.mark.parametrize(
    ("capacity", "options"),
    [(1_000, {}), (1 << 20, {"max_recovered": 5})],
    ids=["more than half of what it holds", "too many"],
)
async def test_too_much_is_not_recovered(capacity: int, options: dict[str, int]) -> None:
    async with opened(**options) as one:
        stays, ears = Ears(), Ears(capacity=capacity)
        await join(one, stays)
        first = await say(one)
        for number in range(20):
            await say(one, number)
        await join(one, ears, since=first)
        assert (await ears.hear(1))[0]["recovered"] is False


async def test_a_snapshot_is_asked_for_unless_recovered() -> None:
    async with opened() as one:
        ears, rows = Ears(), [1]

        async def snapshot() -> list[int]:
            await say(one, 5)  # meanwhile: it is in what follows
            return list(rows)

        first = await say(one)
        await join(one, ears, snapshot=snapshot)
        heard = await ears.hear(2)
        assert (heard[0]["snapshot"], heard[0]["offset"], heard[1]["offset"]) == ([1], 1, 2)
        await join(one, ears, since=first, snapshot=snapshot)
        assert [two.get("snapshot", two.get("offset")) for two in (await ears.hear(4))[2:]] == [None, 2]
        await join(one, ears, since=Position("other", 1), snapshot=snapshot)
        assert (await ears.hear(6))[4]["snapshot"] == [1]


@pytest.mark.parametrize("where", ["snapshot", "reply"])
async def test_what_fails_as_it_joins_leaves_nothing_behind(where: str) -> None:
    async with opened(linger=0.0) as one:

        async def snapshot() -> None:
            if where == "snapshot":
                raise TimeoutError("the database's")

        def failing(*_: Any) -> str:
            raise ZeroDivisionError

        ears = Ears()
        with pytest.raises(TimeoutError if where == "snapshot" else ZeroDivisionError):
            await join(one, ears, snapshot=snapshot, reply=failing if where == "reply" else reply)
        assert one.subscriptions(ears) == []
        await say(one)
        assert ears.is_empty
        assert not one._joined


async def test_a_join_that_takes_too_long_is_refused_and_leaves_nothing_behind() -> None:
    layer = Scripted()
    async with opened(layer, join_timeout=0.02) as one:
        layer.gate.clear()
        ears = Ears()
        with pytest.raises(LayerUnavailable, match="in time"):
            await join(one, ears)
        assert not one._joined
        layer.gate.set()


async def test_joining_again_is_told_where_it_stands_and_nothing_twice() -> None:
    async with opened() as one:
        ears = Ears()
        await join(one, ears)
        await say(one, 1)
        await join(one, ears)
        await say(one, 2)
        heard = await ears.hear(4)
        assert [two.get("data", two.get("offset")) for two in heard] == [0, 1, 1, 2]
        assert one.subscriptions(ears) == [(TOPIC, TOPIC)]


async def test_joining_again_while_the_first_is_under_way_replaces_it() -> None:
    layer = Scripted()
    async with opened(layer) as one:
        ears = Ears()
        layer.gate.clear()
        first = asyncio.create_task(join(one, ears))
        await asyncio.sleep(0)
        second = asyncio.create_task(join(one, ears))
        await asyncio.sleep(0)
        layer.gate.set()
        await second
        with pytest.raises(Cancelled):
            await first
        await say(one, 1)
        assert len(await ears.hear(2)) == 2


async def test_who_leaves_or_ends_while_joining_does_not_join() -> None:
    layer = Scripted()
    async with opened(layer) as one:
        left, ended = Ears(), Ears()
        layer.gate.clear()
        both = [asyncio.create_task(join(one, left)), asyncio.create_task(join(one, ended))]
        await asyncio.sleep(0)
        assert one.leave(left, TOPIC, TOPIC)
        ended.close(1000)
        layer.gate.set()
        assert [type(came) for came in await asyncio.gather(*both, return_exceptions=True)] == [Cancelled, Cancelled]
        assert not one._joined
        with pytest.raises(Cancelled):
            await join(one, ended)


async def test_closing_refuses_who_is_on_the_way_in_and_who_comes_later() -> None:
    layer = Scripted()
    one = Hub(layer)
    layer.gate.clear()
    ears = Ears()
    joining = asyncio.create_task(join(one, ears))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await one.close()
    with pytest.raises(Cancelled):
        await joining
    for late in (join(one, ears), say(one), one.invalidate(TOPIC)):
        with pytest.raises(LayerUnavailable):
            await late
    one.invalidate_later(TOPIC, HISTORY)
    layer.gate.set()
    await one.open()  # said anew, it opens again
    await join(one, ears)
    await one.close()


async def test_it_opens_itself_when_it_is_used() -> None:
    one = Hub(MemoryLayer())
    await say(one)
    await one.open()
    await one.close()
    await one.close()


# -- leaving ----------------------------------------------------------------------------------------------------------
async def test_who_leaves_is_told_nothing_more() -> None:
    async with opened() as one:
        ears, stays = Ears(), Ears()
        await join(one, ears)
        await join(one, ears, "other/")
        await join(one, stays)
        assert one.subscriptions(ears) == [(TOPIC, TOPIC), ("other/", "other/")]
        assert one.leave(ears, TOPIC, TOPIC)
        assert not one.leave(ears, TOPIC, TOPIC)
        await say(one)
        await stays.hear(2)
        assert len(ears.heard) == 2
        one.leave_all(ears)
        one.leave_all(ears)
        assert one.subscriptions(ears) == []


async def test_who_leaves_is_told_nothing_that_is_still_on_its_way() -> None:
    async with opened(**SLICED) as one:
        crowd = [Ears() for _ in range(5)]
        for ears in crowd:
            await join(one, ears)
        await say(one)
        one.leave(crowd[4], TOPIC, TOPIC)
        await join(one, crowd[3])  # again: told behind the event
        await crowd[3].hear(3)
        assert [len(ears.heard) for ears in crowd] == [2, 2, 2, 3, 1]
        assert crowd[3].heard[2]["offset"] == 1


async def test_who_leaves_has_the_answer_that_was_still_on_its_way() -> None:
    async with opened(**SLICED) as one:
        crowd = [Ears() for _ in range(5)]
        for ears in crowd:
            await join(one, ears)
        await say(one)
        await join(one, crowd[4])  # again: to be told behind the event
        one.leave(crowd[4], TOPIC, TOPIC)
        assert "event" not in (await crowd[4].hear(2))[1]
        await crowd[3].hear(2)


async def test_who_leaves_has_the_answer_that_waited_for_a_filter() -> None:
    async with opened() as one:
        ears, asked = Ears(), asyncio.Event()

        async def never(event: Event) -> str | None:
            asked.set()
            await asyncio.get_running_loop().create_future()
            return None

        await join(one, ears, filter=never)
        for number in range(2):
            await say(one, number)
        await asked.wait()
        await join(one, ears, filter=never)
        assert len(ears.heard) == 1
        one.leave(ears, TOPIC, TOPIC)
        assert (await ears.hear(2))[1]["offset"] == 2


async def test_answers_that_wait_for_a_filter_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipients, "MAX_UNFILTERED", 5)
    async with opened() as one:
        ears, asked = Ears(), asyncio.Event()

        async def never(event: Event) -> str | None:
            asked.set()
            await asyncio.get_running_loop().create_future()
            return None

        await join(one, ears, filter=never)
        await say(one)
        await asked.wait()
        for _ in range(6):
            await join(one, ears, filter=never)
        assert ears.code == 1013


async def test_the_answer_behind_a_filter_comes_behind_its_event() -> None:
    async with opened() as one:
        ears, asked, go = Ears(), asyncio.Event(), asyncio.Event()

        async def slow(event: Event) -> str | None:
            asked.set()
            await go.wait()
            return event.frame

        await join(one, ears, filter=slow)
        await say(one, 1)
        await asked.wait()
        await join(one, ears, filter=slow)
        await one.invalidate(TOPIC, HISTORY)
        go.set()
        told = [told.get("event", "reply") for told in await ears.hear(4)]
        assert told == ["reply", "moved", "reply", "$resync"]


async def test_a_filter_that_takes_too_long_is_given_up_for_its_event(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as one:
        ears, slow, cancelled = Ears(), Ears(), 0

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

        await join(one, slow, filter=stubborn, patience=0.05)
        await join(one, ears, filter=quick, patience=0.05)
        for number in range(3):
            await say(one, number)
        told = [message.get("event") for message in await slow.hear(4)]
        assert told == [None, "$resync", "moved", "$resync"]
        assert (cancelled, caplog.text.count("TimeoutError: it took longer than 0.05 s")) == (3, 2)
        assert ears.events() == [("moved", 1), ("moved", 2), ("moved", 3)]
        await say(one, 3)
        one.leave(slow, TOPIC, TOPIC)
        await one.close()
        assert len(slow.heard) == 4


async def test_the_filter_of_who_joins_again_is_asked_from_then_on() -> None:
    async with opened() as one:
        ears, asked = Ears(), asyncio.Event()

        async def all_of_it(event: Event) -> str | None:
            return event.frame

        async def nothing(event: Event) -> str | None:
            asked.set()
            return None

        await join(one, ears, filter=all_of_it)
        await say(one, 1)
        await ears.hear(2)
        await join(one, ears, filter=nothing)
        await say(one, 2)
        await asked.wait()
        await join(one, ears, filter=all_of_it)
        await say(one, 3)
        assert [name.get("data") for name in (await ears.hear(5))] == [None, 1, None, None, 3]


async def test_a_topic_lingers_and_is_then_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[str] = []
    layer = MemoryLayer()
    unsubscribe = layer.unsubscribe
    let_go = asyncio.Event()

    def noting(topic: str) -> None:
        gone.append(topic)
        unsubscribe(topic)
        let_go.set()

    monkeypatch.setattr(layer, "unsubscribe", noting)
    async with opened(layer, linger=0.1) as one:
        ears = Ears()
        for _ in range(3):
            await join(one, ears)
            one.leave(ears, TOPIC, TOPIC)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert gone == []
        await let_go.wait()
        assert (gone, one._topics, one._joined) == ([TOPIC], {}, {})
        await say(one)
        await join(one, ears)
        assert len(await ears.hear(4)) == 4


# -- publishing -------------------------------------------------------------------------------------------------------
async def test_who_publishes_to_the_others_is_not_told() -> None:
    async with opened() as one:
        me, other = Ears(), Ears()
        first = await say(one)
        for ears in (me, other):
            await join(one, ears)
        for number in range(1, 4):
            await say(one, number, exclude=me)
        await say(one, 4)
        assert [offset for _, offset in (await me.hear(2) and me.events())] == [5]
        assert [offset for _, offset in (await other.hear(5) and other.events())] == [2, 3, 4, 5]
        await join(one, me, since=first)
        await say(one, 5, exclude=me)
        await say(one, 6)
        await me.hear(5)
        assert [offset for _, offset in me.events()] == [5, 5, 7]
        stranger = Ears()
        await say(one, 7, exclude=stranger)  # it is told nothing anyway
        one.leave_all(me)
        assert not one._names


async def test_who_is_told_little_is_told_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipients, "SKIPS_BEFORE_POSITION", 3)

    async def none(event: Event) -> None:
        return None

    async with opened() as one:
        me, blind = Ears(), Ears()
        await join(one, me)
        await join(one, blind, filter=none)
        for number in range(7):
            at = await say(one, number, exclude=me)
        await say(one, 8, history=None, exclude=me)
        assert at is not None
        for ears in (me, blind):
            notices = (await ears.hear(3))[1:]
            assert notices == [
                {"event": "$position", "route": TOPIC, "data": {"epoch": at.epoch, "offset": offset}}
                for offset in (3, 6)
            ]


@pytest.mark.parametrize("filtered", [False, True])
async def test_where_one_stands_is_told_behind_what_is_still_on_its_way(
    filtered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipients, "SKIPS_BEFORE_POSITION", 3)

    async def all_of_it(event: Event) -> str:
        return event.frame

    async with opened(**SLICED) as one:
        crowd = [Ears() for _ in range(4)]
        for ears in crowd:
            await join(one, ears, filter=all_of_it if filtered else None)
        me = crowd[3]
        await say(one)
        for number in range(3):
            await say(one, number, exclude=me)
        await me.hear(3)  # who drops after the notice asks for nothing before it
        assert me.events() == [("moved", 1), ("$position", 0)]
        assert me.heard[2]["data"]["offset"] == 4


@pytest.mark.parametrize("filtered", [False, True])
async def test_what_is_held_back_is_told_in_order_once_nobody_holds_it(filtered: bool) -> None:
    async def all_of_it(event: Event) -> str:
        await asyncio.sleep(0)
        return event.frame

    async with opened() as one:
        me = Ears()
        await join(one, me, filter=all_of_it if filtered else None)
        first, second = one.hold(me, TOPIC, TOPIC), one.hold(me, TOPIC, TOPIC)
        await say(one)
        await join(one, me)  # again: told behind the event
        await say(one)
        first()
        await say(one)
        await asyncio.sleep(0)
        assert len(await me.hear(1)) == 1
        second()
        await say(one)
        heard = await me.hear(6)
        assert [message["offset"] for message in heard] == [0, 1, 1, 2, 3, 4]
        assert "event" not in heard[2]


@pytest.mark.parametrize("filtered", [False, True])
async def test_who_leaves_has_the_answer_that_was_held_back_and_nothing_else(filtered: bool) -> None:
    async def all_of_it(event: Event) -> str:
        return event.frame

    async with opened() as one:
        me, stays = Ears(), Ears()
        await join(one, stays)
        await join(one, me, filter=all_of_it if filtered else None)
        go_on = one.hold(me, TOPIC, TOPIC)
        await say(one)
        await join(one, me)
        one.leave(me, TOPIC, TOPIC)
        go_on()
        one.hold(me, TOPIC, TOPIC)()  # it is not there
        await say(one)
        await stays.hear(3)
        assert [message["offset"] for message in await me.hear(2)] == [0, 1]
        assert me.events() == []


async def test_what_is_held_back_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipients, "MAX_HELD", 3)
    async with opened() as one:
        me = Ears()
        await join(one, me)
        go_on = one.hold(me, TOPIC, TOPIC)
        for _ in range(2):
            await say(one)
        await join(one, me)  # its reply comes all the same
        for _ in range(2):  # too many, so that it loads again
            await say(one)
        assert len(await me.hear(1)) == 1
        go_on()
        await say(one)
        reply, notice, event = (await me.hear(4))[1:]
        assert reply["offset"] == 2
        assert (notice["event"], notice["data"]["offset"]) == ("$resync", 4)
        assert (event["event"], event["offset"]) == ("moved", 5)


async def test_replies_that_are_held_back_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipients, "MAX_HELD", 3)
    async with opened() as one:
        me = Ears()
        await join(one, me)
        one.hold(me, TOPIC, TOPIC)
        for _ in range(3):
            await join(one, me)
        assert not me.is_closed
        await join(one, me)
        assert me.code == 1013


async def test_what_is_no_event_is_not_published() -> None:
    async with opened() as one:
        with pytest.raises(ValueError, match="an event is"):
            await one.publish(TOPIC, '{"status":200}', HISTORY)


async def test_a_loop_of_publications_lets_others_run() -> None:
    async with opened() as one:
        ears = Ears(capacity=20_000)
        await join(one, ears)
        for number in range(2_000):
            await say(one, number)
        await ears.hear(2_001)
        assert not ears.code


async def test_invalidating_tells_everybody_to_load_again() -> None:
    async with opened() as one:
        ears, without = Ears(), Ears()
        await join(one, ears)
        await join(one, without, "other/", history=None)
        at = await say(one)
        assert at is not None
        await one.invalidate(TOPIC, HISTORY)
        await one.invalidate("other/")
        notice = (await ears.hear(3))[2]
        assert (notice["event"], notice["data"]["offset"]) == ("$resync", 1)
        assert notice["data"]["epoch"] != at.epoch
        assert (await without.hear(2))[1] == {"event": "$resync", "route": "other/", "data": {"epoch": "", "offset": 0}}


async def test_healing_goes_on_until_it_is_done(caplog: pytest.LogCaptureFixture) -> None:
    layer = Scripted()
    async with opened(layer, max_pending_invalidations=2) as one:
        ears = Ears()
        await join(one, ears)
        layer.publish_failures = 2
        for topic in (TOPIC, "other/", "third/", TOPIC):
            one.invalidate_later(topic, HISTORY)
        assert "'third/' are not told" in caplog.text
        assert (await ears.hear(2))[1]["event"] == "$resync"


@pytest.mark.parametrize("hangs", [False, True])
async def test_who_cannot_be_told_before_the_end_is_named(hangs: bool, caplog: pytest.LogCaptureFixture) -> None:
    class Away(MemoryLayer):
        asked = asyncio.Event()

        async def invalidate(self, topic: str, history: History | None) -> None:
            self.asked.set()
            if hangs:
                await asyncio.get_running_loop().create_future()
            raise LayerUnavailable

    layer = Away()
    async with opened(layer) as one:
        for topic in (TOPIC, "other/"):
            one.invalidate_later(topic, HISTORY)
        await layer.asked.wait()
    for topic in (TOPIC, "other/"):
        assert f"subscribers of {topic!r} are not told that they missed something: the server ends" in caplog.text


# -- filters ----------------------------------------------------------------------------------------------------------
async def test_a_filter_says_what_its_subscriber_is_told() -> None:
    async with opened() as one:
        some, all_ = Ears(), Ears()
        go = asyncio.Event()

        async def filter(event: Event) -> str | None:
            await go.wait()
            if event.subject == {"owner": 2}:
                return event.numbered(encode_event("deleted", TOPIC, "null"))
            return event.frame if event.message["data"] % 2 else None

        await join(one, some, filter=filter)
        await join(one, all_)
        for number in range(4):
            await say(one, number)
        await say(one, 4, subject='{"owner":2}')
        await join(one, some, filter=filter)  # again: told behind what it has yet to be told
        go.set()
        await some.hear(5)
        assert some.events() == [("moved", 2), ("moved", 4), ("deleted", 5)]
        assert some.heard[-1]["offset"] == 5
        await all_.hear(6)
        assert [offset for _, offset in all_.events()] == [1, 2, 3, 4, 5]


async def test_what_was_missed_is_filtered_too() -> None:
    async with opened() as one:
        ears = Ears()

        async def even(event: Event) -> str | None:
            return None if event.message["data"] % 2 else event.frame

        first = await say(one, 0)
        for number in range(1, 5):
            await say(one, number)
        await join(one, ears, since=first, filter=even)
        await ears.hear(3)
        assert [offset for _, offset in ears.events()] == [3, 5]
        await say(one, 6, exclude=ears)
        await say(one, 8)
        await ears.hear(4)
        assert ears.events()[-1] == ("moved", 7)


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
async def test_a_filter_that_fails_shows_nothing_and_says_so(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async with opened() as one:
        ears = Ears()

        async def failing(event: Event) -> str | None:
            raise error  # a cancellation: of what it awaits, not of us

        await join(one, ears, filter=failing)
        at = await say(one)
        assert at is not None
        notice = (await ears.hear(2))[1]
        assert notice == {"event": "$resync", "route": TOPIC, "data": {"epoch": at.epoch, "offset": 1}}
        assert error.__name__ in caplog.text


async def test_a_filter_that_is_too_slow_closes_its_subscriber(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipients, "MAX_UNFILTERED", 5)
    async with opened() as one:
        ears, other = Ears(), Ears()

        async def never(event: Event) -> str | None:
            await asyncio.get_running_loop().create_future()
            return None

        await join(one, ears, filter=never)
        await join(one, other)
        for number in range(7):
            await say(one, number)
        assert ears.code == 1013
        one.leave_all(ears)
        assert len(await other.hear(8)) == 8


async def test_a_filter_does_not_run_on_after_its_subscription() -> None:
    async with opened() as one:
        ears = Ears()
        asked, go = asyncio.Event(), asyncio.Event()

        async def filter(event: Event) -> str | None:
            asked.set()
            with contextlib.suppress(asyncio.CancelledError):  # as careless code does
                await go.wait()
            return event.frame

        await join(one, ears, filter=filter)
        await say(one)
        await asked.wait()
        one.leave(ears, TOPIC, TOPIC)
        await one.close()
        assert len(ears.heard) == 1


async def test_a_filter_does_not_see_the_frame_of_who_published() -> None:
    async with opened() as one:
        ears = Ears()
        seen: list[Any] = []

        async def look(event: Event) -> str | None:
            seen.append(current_frame.get())
            return event.frame

        await join(one, ears, filter=look)
        current_frame.set(new_frame({}, "move", TOPIC, None))
        await say(one)
        await ears.hear(2)
        assert seen == [None]


# -- what layers say --------------------------------------------------------------------------------------------------
async def test_a_hole_is_filled() -> None:
    layer = Scripted()
    async with opened(layer) as one:
        ears = Ears()
        await join(one, ears)
        await say(one, 1)
        layer.is_deaf = True
        await say(one, 2)
        await say(one, 3)
        layer.is_deaf = False
        await say(one, 4)
        await ears.hear(5)
        assert [offset for _, offset in ears.events()] == [1, 2, 3, 4]


async def test_a_quiet_loss_is_found_by_comparing_positions() -> None:
    layer = Scripted()
    async with opened(layer, check_interval=0.01, check_grace=0.001) as one:
        ears = Ears()
        await join(one, ears)
        await join(one, ears, "other/", history=None)
        layer.is_deaf = True
        await say(one, 1)
        layer.is_deaf = False
        layer.failures = [LayerUnavailable(), ZeroDivisionError()]
        await ears.hear(3)
        assert ears.events() == [("moved", 1)]


async def test_a_loss_that_cannot_be_filled_is_told() -> None:
    layer = Scripted()
    async with opened(layer) as one:
        ears, without = Ears(), Ears()
        await join(one, ears)
        await join(one, without, "other/", history=None)
        one.lost()
        await layer.invalidate(TOPIC, HISTORY)
        for topic in (TOPIC, "other/", "nobody's/"):
            one.subscribed(topic)
        assert (await ears.hear(2))[1]["event"] == "$resync"
        assert (await without.hear(2))[1]["event"] == "$resync"


async def test_messages_before_the_confirmation_and_of_others_topics_are_nobodys() -> None:
    layer = Scripted()
    async with opened(layer) as one:
        ears = Ears()
        await join(one, ears)
        one.lost()
        one.message(TOPIC, "e", 9, b'{"event":1}')
        one.message("nobody's/", "e", 9, b'{"event":1}')
        one.subscribed(TOPIC)
        await say(one, 1)
        await ears.hear(2)
        assert ears.events() == [("moved", 1)]


async def test_a_layer_that_fails_to_read_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    layer = Scripted()
    async with opened(layer) as one:
        ears = Ears()
        layer.failures = [LayerUnavailable(), ZeroDivisionError("the layer's")]
        await join(one, ears)
        assert len(await ears.hear(1)) == 1
        assert "ZeroDivisionError: the layer's" in caplog.text


async def test_a_page_read_on_a_connection_that_was_lost_meanwhile_is_thrown_away() -> None:
    layer = Scripted()
    async with opened(layer) as one:
        ears = Ears()
        layer.gate.clear()
        layer.pages = [Page(Position("dead", 99), None)]
        joining = asyncio.create_task(join(one, ears))
        while not layer.reads:  # noqa: ASYNC110
            await asyncio.sleep(0)
        one.lost()
        one.subscribed(TOPIC)
        layer.gate.set()
        await joining
        assert (await ears.hear(1))[0]["offset"] == 0


async def test_more_than_the_backlog_holds_is_read_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "MAX_BACKLOG", 3)
    layer = Scripted()
    async with opened(layer) as one:
        ears = Ears()
        await join(one, ears)
        layer.gate.clear()
        one.subscribed(TOPIC)
        await asyncio.sleep(0)
        reads = layer.reads
        for number in range(10):
            await say(one, number)
        layer.gate.set()
        await ears.hear(11)
        assert [offset for _, offset in ears.events()] == list(range(1, 11))
        assert layer.reads == reads + 1


async def test_what_came_behind_a_hole_while_the_layer_was_read_is_read_again() -> None:
    layer = Scripted()
    async with opened(layer) as one:
        ears = Ears()
        await join(one, ears)
        layer.gate.clear()
        one.subscribed(TOPIC)
        await asyncio.sleep(0)  # the page is made, and on its way
        layer.is_deaf = True
        await say(one, 1)
        layer.is_deaf = False
        await say(one, 2)
        layer.gate.set()
        await ears.hear(3)
        assert [offset for _, offset in ears.events()] == [1, 2]


async def test_what_was_cut_off_is_not_the_past_of_what_follows() -> None:
    layer = Scripted()
    async with opened(layer) as one:
        stays, ears = Ears(), Ears()
        await join(one, stays)
        for number in range(1, 6):
            await say(one, number)
        layer.is_deaf = True
        await one.invalidate(TOPIC, HISTORY)
        at = await say(one, 6)
        await say(one, 7)
        layer.is_deaf = False
        one.subscribed(TOPIC)
        assert (await stays.hear(7))[-1]["event"] == "$resync"
        assert at is not None
        await join(one, ears, since=Position(at.epoch, 5))
        assert [message.get("data") for message in await ears.hear(3)] == [None, 6, 7]


async def test_reads_of_the_layer_at_once_are_bounded() -> None:
    layer = Scripted()
    layer.gate.clear()
    async with opened(layer, max_reads=2) as one:
        crowd = [Ears() for _ in range(5)]
        joining = [asyncio.ensure_future(join(one, ears, f"t{number}")) for number, ears in enumerate(crowd)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert layer.reads == 2
        layer.gate.set()
        await asyncio.gather(*joining)
        assert layer.reads == 5


async def test_one_that_collects_too_much_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipients, "MAX_COLLECTED", 3)
    async with opened() as one:
        ears = Ears()
        asked: list[int] = []

        async def snapshot() -> int:
            asked.append(1)
            if len(asked) == 1:
                for number in range(10):
                    await say(one, number)
            return len(asked)

        await join(one, ears, snapshot=snapshot)
        assert [(two["snapshot"], two["offset"]) for two in await ears.hear(1)] == [(2, 10)]


async def test_many_who_come_back_at_once_cost_one_read() -> None:
    layer = Scripted()
    async with opened(layer) as one:
        stays, crowd = Ears(), [Ears() for _ in range(20)]
        await join(one, stays)
        first = await say(one, 0)
        assert first is not None
        for number in range(99):
            await say(one, number)
        reads = layer.reads
        back = [Position(first.epoch, first.offset + number % 10) for number in range(20)]
        layer.gate.clear()
        joining = [asyncio.create_task(join(one, ears, since=at)) for ears, at in zip(crowd, back, strict=True)]
        while one._topics[TOPIC].pages is None or one._topics[TOPIC].pages.waiting < 20:  # noqa: ASYNC110
            await asyncio.sleep(0)
        layer.gate.set()
        await asyncio.gather(*joining)
        assert layer.reads == reads + 1
        for ears, since in zip(crowd, back, strict=True):
            await ears.hear(1 + 100 - since.offset)
            assert [offset for _, offset in ears.events()] == list(range(since.offset + 1, 101))
        assert one._topics[TOPIC].pages is None


async def test_who_is_ahead_of_its_process_is_told_once_that_catches_up() -> None:
    layer = Scripted()
    async with opened(layer) as one:
        stays, ears = Ears(), Ears()
        await join(one, stays)
        first = await say(one, 1)
        for number in range(2, 80):
            await say(one, number)
        layer.is_deaf = True  # this process hears nothing yet of what others published
        for number in range(80, 83):
            await say(one, number)
        await join(one, ears, since=first)
        assert len(await ears.hear(82)) == 82
        await join(one, ears)  # again: where it stands, not where the process does
        assert (await ears.hear(83))[-1]["offset"] == 82
        layer.is_deaf = False
        one.message(TOPIC, "", 0, b'{"event":"passing","route":"boards/7/","data":0}')
        await say(one, 83)
        await ears.hear(85)
        assert [offset for _, offset in ears.events()] == [*range(2, 83), 0, 83]
        await stays.hear(85)
        assert sorted(offset for _, offset in stays.events()) == [0, *range(1, 84)]


@pytest.mark.parametrize(("shared", "told"), [(82, "$position"), (80, "$resync")])
async def test_one_that_is_ahead_when_the_epoch_changes_is_told_what_became_of_its_past(shared: int, told: str) -> None:
    layer = Scripted()
    async with opened(layer) as one:
        stays, ears, waits = Ears(), Ears(), Ears()
        await join(one, stays)
        first = await say(one, 1)
        for number in range(2, 80):
            await say(one, number)
        layer.is_deaf = True
        for number in range(80, 83):
            await say(one, number)
        await join(one, ears, since=first)
        layer.pages = [Page(Position("next", 83), [(n, b'{"event":"moved"}') for n in range(80, 84)], shared)]

        async def snapshot() -> None:
            one.subscribed(TOPIC)  # and by this, all is read again
            while not stays.heard or stays.heard[-1].get("offset") != 83:  # noqa: ASYNC110
                await asyncio.sleep(0)

        await join(one, waits, snapshot=snapshot)
        notice = next(two for two in await ears.hear(83) if two.get("event", "").startswith("$"))
        assert (notice["event"], notice["data"]["epoch"]) == (told, "next")
        assert notice["data"]["offset"] == (82 if told == "$position" else 83)
        renamed = next(two for two in stays.heard if two.get("event") == "$position")
        assert renamed["data"] == {"epoch": "next", "offset": 79}
        assert (await waits.hear(1))[0] == {"epoch": "next", "offset": 83, "recovered": None, "snapshot": None}


async def test_one_that_is_ahead_when_the_past_is_cut_off_is_told() -> None:
    layer = Scripted()
    async with opened(layer) as one:
        stays, ears = Ears(), Ears()
        await join(one, stays)
        first = await say(one, 1)
        for number in range(2, 80):
            await say(one, number)
        layer.is_deaf = True
        await say(one, 80)
        await join(one, ears, since=first)
        await one.invalidate(TOPIC, HISTORY)
        layer.is_deaf = False
        one.subscribed(TOPIC)
        assert (await ears.hear(81))[-1]["event"] == "$resync"


async def test_a_page_of_another_epoch_sends_the_join_back() -> None:
    layer = Scripted()
    async with opened(layer) as one:
        stays, ears = Ears(), Ears()
        await join(one, stays)
        first = await say(one, 1)
        assert first is not None
        for number in range(2, 80):
            await say(one, number)
        layer.pages = [Page(Position("dead", 3), None)]
        await join(one, ears, since=first)
        assert [(await ears.hear(1))[0][key] for key in ("epoch", "recovered")] == [first.epoch, True]


async def test_a_topic_that_is_lost_while_a_join_waits_to_read_sends_it_back() -> None:
    layer = Scripted()
    async with opened(layer) as one:
        stays, crowd = Ears(), [Ears(), Ears()]
        await join(one, stays)
        first = await say(one, 1)
        assert first is not None
        for number in range(2, 80):
            await say(one, number)
        layer.gate.clear()
        reads = layer.reads
        joining = [
            asyncio.create_task(join(one, ears, since=Position(first.epoch, 2 - at))) for at, ears in enumerate(crowd)
        ]
        while layer.reads == reads:  # noqa: ASYNC110
            await asyncio.sleep(0)
        one.lost()
        layer.gate.set()
        await joining[0]
        one.subscribed(TOPIC)
        await joining[1]
        for ears, missed in zip(crowd, (77, 78), strict=True):
            assert (await ears.hear(1 + missed))[0]["recovered"] is True


async def test_what_comes_while_a_topic_is_reconciled_is_told_after_that() -> None:
    layer = Scripted()
    async with opened(layer) as one:
        ears = Ears()
        await join(one, ears)
        layer.gate.clear()
        one.subscribed(TOPIC)
        await asyncio.sleep(0)
        await say(one, 1)
        await say(one, 2)
        assert ears.events() == []
        layer.gate.set()
        await ears.hear(3)
        assert [offset for _, offset in ears.events()] == [1, 2]
        assert layer.reads == 2


async def test_nobody_is_answered_while_the_layer_is_away() -> None:
    layer = Scripted()
    async with opened(layer) as one:
        first, late = Ears(), Ears()
        await join(one, first)
        one.lost()
        joining = asyncio.create_task(join(one, late))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not joining.done()
        one.subscribed(TOPIC)
        await joining
        assert len(await late.hear(1)) == 1


async def test_a_message_of_another_epoch_is_not_told() -> None:
    layer = Scripted()
    async with opened(layer) as one:
        ears = Ears()
        await join(one, ears)
        one.message(TOPIC, "foreign", 1, b'{"event":"foreign","route":"x","data":1}')
        await say(one, 1)
        await ears.hear(2)
        await say(one, 2)
        await ears.hear(3)
        assert [event["data"] for event in ears.heard[1:]] == [1, 2]


async def test_a_topic_without_history_is_told_of_each_loss() -> None:
    layer = Scripted()
    async with opened(layer) as one:
        waits = Ears()
        layer.is_deaf = True
        joining = asyncio.create_task(join(one, waits, history=None))
        await asyncio.sleep(0)
        one.subscribed(TOPIC)
        await joining
        one.lost()
        one.subscribed(TOPIC)
        one.message(TOPIC, "", 0, b"")
        heard = await waits.hear(3)
        assert [message.get("event") for message in heard] == [None, "$resync", "$resync"]
