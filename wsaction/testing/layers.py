"""`LayerContract`: tests that every layer must pass, to run on a layer of your own.

::

    from wsaction.testing.layers import LayerContract

    class TestMyLayer(LayerContract):
        shared = True  # layers returned by make() deliver to each other

        def make(self):
            return MyLayer("my://127.0.0.1")

Any test runner works that collects classes and awaits their ``test_*`` methods, such as pytest with anyio's plugin.
Every wait is bounded. Every test uses topics with new names, so one server can serve many runs.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from wsaction.exceptions import LayerUnavailable
from wsaction.layers.base import History, Layer, Page, Position

__all__ = ("LayerContract", "Recorder", "event_body", "new_topic")

TIMEOUT = 10.0  # seconds for each wait
HISTORY = History(100, 60)

Message = tuple[str, str, int, bytes]  # topic, epoch, offset, body


class Recorder:
    """A sink that records the calls of a layer.

    ``messages`` are the events as (topic, epoch, offset, body). ``confirmed`` are the topics of confirmed
    subscriptions. ``losses`` counts the calls of `lost`.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.confirmed: list[str] = []
        self.losses = 0
        self._changed = asyncio.Event()

    def message(self, topic: str, epoch: str, offset: int, body: bytes) -> None:
        """Records an event."""
        self.messages.append((topic, epoch, offset, body))
        self._changed.set()

    def subscribed(self, topic: str) -> None:
        """Records that a subscription is confirmed."""
        self.confirmed.append(topic)
        self._changed.set()

    def lost(self) -> None:
        """Records that the layer may have lost events."""
        self.losses += 1
        self._changed.set()

    async def until(self, what: Callable[[], bool]) -> None:
        """Waits until ``what()`` is true. Raises ``TimeoutError`` after 10 seconds."""
        async with asyncio.timeout(TIMEOUT):
            while not what():
                self._changed.clear()
                await self._changed.wait()

    async def bodies(self, topic: str, count: int) -> list[bytes]:
        """Waits for ``count`` events of a topic. Returns the bodies of all that have arrived."""
        await self.until(lambda: sum(message[0] == topic for message in self.messages) >= count)
        return [body for name, _, _, body in self.messages if name == topic]


def new_topic(name: str = "boards/7/") -> str:
    """Returns the name of a topic that no test has used."""
    return f"{name}{secrets.token_urlsafe(8)}"


def event_body(number: int, text: str = "") -> bytes:
    """Returns the body of an event. A layer may refuse any other bytes."""
    return b'{"event":"moved","route":"boards/7/","data":[%d,"%b"]}' % (number, text.encode())


def _expect(condition: bool, expected: str, actual: object) -> None:
    if not condition:
        raise AssertionError(f"expected {expected}, got {actual!r}")


class LayerContract:
    """Tests of a layer. Subclasses override `make`; see the module for an example."""

    shared = False  # whether layers returned by `make` deliver to each other, as in several processes

    def make(self) -> Layer:
        """Returns a new layer that is not open."""
        raise NotImplementedError("make() must return the layer to test, not yet open")

    def opened(self) -> AbstractAsyncContextManager[tuple[Layer, Recorder]]:
        """Returns an async context manager that provides an open layer and its sink."""
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[tuple[Layer, Recorder]]:
        layer, sink = self.make(), Recorder()
        await layer.open(sink)
        try:
            yield layer, sink
        finally:
            await layer.close()

    async def subscribed(self, layer: Layer, sink: Recorder, topic: str) -> None:
        """Subscribes to a topic and waits until the layer confirms it."""
        before = sink.confirmed.count(topic)
        layer.subscribe(topic)
        await sink.until(lambda: sink.confirmed.count(topic) > before)

    # ------------------------------------------------------------------------------------------------ delivery
    async def test_what_is_published_arrives_in_order_with_its_position(self) -> None:
        """Events arrive in the order of their publication, with the positions that ``publish`` returned."""
        async with self.opened() as (layer, sink):
            topic = new_topic()
            await self.subscribed(layer, sink, topic)
            positions = [await layer.publish(topic, event_body(n), HISTORY) for n in range(5)]
            await sink.bodies(topic, 5)
            received = [(Position(epoch, offset), body) for _, epoch, offset, body in sink.messages]
            wanted = [(position, event_body(n)) for n, position in enumerate(positions)]
            _expect(received == wanted, "all five events in order", received)

    async def test_what_has_no_history_arrives_without_a_position(self) -> None:
        """Without history, ``publish`` returns None, and the event arrives with the epoch ``""`` and the offset 0."""
        async with self.opened() as (layer, sink):
            topic = new_topic()
            await self.subscribed(layer, sink, topic)
            published = await layer.publish(topic, event_body(1), None)
            await sink.bodies(topic, 1)
            result = (published, sink.messages)
            _expect(result == (None, [(topic, "", 0, event_body(1))]), "no position", result)

    async def test_only_what_is_subscribed_to_arrives(self) -> None:
        """Events of other topics do not arrive."""
        async with self.opened() as (layer, sink):
            wanted, other = new_topic(), new_topic()
            await self.subscribed(layer, sink, wanted)
            await layer.publish(other, event_body(1), HISTORY)
            await layer.publish(wanted, event_body(2), HISTORY)
            await sink.bodies(wanted, 1)
            _expect(len(sink.messages) == 1, "one message", sink.messages)

    async def test_what_is_unsubscribed_from_arrives_no_more(self) -> None:
        """After ``unsubscribe``, which may be called twice, events do not arrive."""
        async with self.opened() as (layer, sink):
            topic, other = new_topic(), new_topic()
            await self.subscribed(layer, sink, topic)
            layer.unsubscribe(topic)
            layer.unsubscribe(topic)
            await self.subscribed(layer, sink, other)
            await layer.publish(topic, event_body(1), HISTORY)
            await layer.publish(other, event_body(2), HISTORY)
            await sink.bodies(other, 1)
            _expect(len(sink.messages) == 1, "one message", sink.messages)

    async def test_subscribing_twice_tells_once(self) -> None:
        """A second ``subscribe`` is confirmed too, and each event still arrives once."""
        async with self.opened() as (layer, sink):
            topic, other = new_topic(), new_topic()
            await self.subscribed(layer, sink, topic)
            await self.subscribed(layer, sink, topic)
            await self.subscribed(layer, sink, other)
            await layer.publish(topic, event_body(1), HISTORY)
            await layer.publish(other, event_body(2), HISTORY)
            await sink.bodies(other, 1)
            _expect(len(await sink.bodies(topic, 1)) == 1, "one message", sink.messages)

    async def test_who_subscribes_again_is_told_again(self) -> None:
        """After ``unsubscribe``, a new ``subscribe`` is confirmed, and events arrive again."""
        async with self.opened() as (layer, sink):
            topic = new_topic()
            for n in range(3):
                await self.subscribed(layer, sink, topic)
                await layer.publish(topic, event_body(n), HISTORY)
                await sink.bodies(topic, n + 1)
                layer.unsubscribe(topic)

    async def test_topics_and_bodies_may_be_any_text(self) -> None:
        """Topics and bodies may contain any characters, and may be long."""
        async with self.opened() as (layer, sink):
            for name in ("", "{a}", "a b\r\nc", "über/\u2028/", "%7B", "x" * 3_000):
                topic, body = new_topic(name), event_body(1, "ü \u2028 {} " + "y" * 50_000)
                await self.subscribed(layer, sink, topic)
                start = (await layer.read(topic, None, 10, HISTORY)).position
                await layer.publish(topic, body, HISTORY)
                _expect(await sink.bodies(topic, 1) == [body], f"the body, for topic {name!r}", sink.messages[-1])
                page = await layer.read(topic, start, 10, HISTORY)
                _expect(page.events is not None and list(page.events) == [(1, body)], "the body", page)

    async def test_many_may_publish_at_once(self) -> None:
        """Concurrent calls of ``publish`` get consecutive offsets, and events arrive in their order."""
        async with self.opened() as (layer, sink):
            topic = new_topic()
            await self.subscribed(layer, sink, topic)
            start = (await layer.read(topic, None, 10, HISTORY)).position
            positions = await asyncio.gather(*(layer.publish(topic, event_body(n), HISTORY) for n in range(60)))
            offsets = [position.offset for position in positions if position is not None]
            _expect(sorted(offsets) == list(range(1, 61)), "offsets 1 to 60", offsets)
            await sink.bodies(topic, 60)
            page = await layer.read(topic, start, 100, HISTORY)
            received = [(offset, body) for _, _, offset, body in sink.messages]
            _expect(received == list(page.events or ()), "the events in the order of the history", received)

    # ------------------------------------------------------------------------------------------------ history
    async def _publish(self, layer: Layer, topic: str, count: int, history: History = HISTORY) -> Position:
        """Publishes ``count`` events and returns the position before them."""
        start = (await layer.read(topic, None, 0, history)).position
        for n in range(1, count + 1):
            await layer.publish(topic, event_body(n), history)
        return start

    async def test_a_topic_begins_at_0_and_counts_in_one_epoch(self) -> None:
        """A new topic is at offset 0; each event increases the offset by 1 within the same epoch."""
        async with self.opened() as (layer, _):
            topic = new_topic()
            page = await layer.read(topic, None, 10, HISTORY)
            _expect(page.position.offset == 0 and page.position.is_sane and page.events is None, "offset 0", page)
            positions = [await layer.publish(topic, event_body(n), HISTORY) for n in range(3)]
            wanted = [Position(page.position.epoch, offset) for offset in (1, 2, 3)]
            _expect(positions == wanted, "1, 2, 3", positions)

    async def test_what_was_missed_is_read_whole(self) -> None:
        """``read`` returns all events after a position, and the current position."""
        async with self.opened() as (layer, _):
            topic = new_topic()
            start = await self._publish(layer, topic, 6)
            for since in range(7):
                page = await layer.read(topic, Position(start.epoch, since), 6 - since, HISTORY)
                _expect(page.position == Position(start.epoch, 6), "offset 6", page)
                wanted = [(n, event_body(n)) for n in range(since + 1, 7)]
                _expect(page.events is not None and list(page.events) == wanted, f"all since {since}", page)

    async def test_more_than_the_limit_is_not_read_in_part(self) -> None:
        """``read`` returns no events if there are more than ``limit``."""
        async with self.opened() as (layer, _):
            topic = new_topic()
            start = await self._publish(layer, topic, 6)
            page = await layer.read(topic, start, 5, HISTORY)
            _expect(page == Page(Position(start.epoch, 6), None), "no events", page)

    async def test_a_position_that_was_never_given_out_has_no_past(self) -> None:
        """``read`` returns no events for an unknown epoch, an offset out of range, or None."""
        async with self.opened() as (layer, _):
            topic = new_topic()
            start = await self._publish(layer, topic, 3)
            of_other_epochs = [Position(epoch, 1) for epoch in ("other", "", "x" * 1_000, "\ud800")]
            unknown_offsets = [Position(start.epoch, offset) for offset in (4, -1, 2**70)]
            for since in [*of_other_epochs, *unknown_offsets, None]:
                page = await layer.read(topic, since, 10, HISTORY)
                _expect(page.events is None and page.position.offset == 3, f"no events since {since}", page)
                _expect(page.position.epoch == start.epoch, "the same epoch", page)

    async def test_the_newest_are_kept_and_not_all(self) -> None:
        """The history keeps at least its ``size`` newest events, but not all events."""
        async with self.opened() as (layer, _):
            topic, history = new_topic(), History(10, 60)
            start = await self._publish(layer, topic, 300, history)
            page = await layer.read(topic, Position(start.epoch, 290), 1_000, history)
            _expect(page.events is not None and len(page.events) == 10, "the newest ten", page)
            page = await layer.read(topic, start, 1_000, history)
            _expect(page.events is None, "no events, as not all 300 are kept", page)

    async def test_the_past_expires_and_the_position_stays(self) -> None:
        """Events expire ``ttl`` seconds after the last one; the epoch and the offset stay."""
        async with self.opened() as (layer, _):
            topic, history = new_topic(), History(10, 0.05)
            start = await self._publish(layer, topic, 3, history)
            async with asyncio.timeout(TIMEOUT):
                while (page := await layer.read(topic, start, 10, history)).events is not None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)  # only time expires the events, and no layer reports it
            _expect(page.position == Position(start.epoch, 3), "the position", page)
            published = await layer.publish(topic, event_body(4), history)
            _expect(published == Position(start.epoch, 4), "offset 4 in the same epoch", published)
            page = await layer.read(topic, Position(start.epoch, 3), 10, history)
            _expect(page.events is not None and len(page.events) == 1, "only the new event", page)
            page = await layer.read(topic, start, 10, history)
            _expect(page.events is None, "no expired events", page)

    async def test_what_nobody_was_there_for_is_kept_only_if_the_history_says_so(self) -> None:
        """Events without subscribers are kept only if the history says ``always``."""
        async with self.opened() as (layer, _):
            for always in (False, True):
                topic, history = new_topic(), History(10, 60, always)
                published = await layer.publish(topic, event_body(1), history)
                since = None if published is None else Position(published.epoch, 0)
                page = await layer.read(topic, since, 10, history)
                _expect((page.events is not None) == always, "kept" if always else "not kept", page)

    async def test_invalidating_begins_a_new_epoch_and_tells(self) -> None:
        """``invalidate`` begins a new epoch at the same offset and delivers an empty body."""
        async with self.opened() as (layer, sink):
            for count in (0, 3):
                topic = new_topic()
                start = await self._publish(layer, topic, count)
                await self.subscribed(layer, sink, topic)
                await layer.invalidate(topic, HISTORY)
                page = await layer.read(topic, Position(start.epoch, count), 10, HISTORY)
                _expect(page.events is None and page.position.offset == count, "no events", page)
                _expect(page.position.epoch != start.epoch, "another epoch", page)
                await sink.bodies(topic, 1)
                _expect(sink.messages[-1] == (topic, page.position.epoch, count, b""), "an empty body", sink.messages)
                published = await layer.publish(topic, event_body(1), HISTORY)
                _expect(published == Position(page.position.epoch, count + 1), "the next offset", published)

    async def test_invalidating_without_history_tells_too(self) -> None:
        """``invalidate`` delivers an empty body without history too."""
        async with self.opened() as (layer, sink):
            topic = new_topic()
            await self.subscribed(layer, sink, topic)
            await layer.invalidate(topic, None)
            await sink.bodies(topic, 1)
            _expect(sink.messages == [(topic, "", 0, b"")], "an empty body", sink.messages)

    # ------------------------------------------------------------------------------------------------ open and close
    async def test_it_is_opened_once_and_again_after_it_was_closed(self) -> None:
        """Opening an open layer raises ``RuntimeError``; a closed layer can be opened again."""
        layer = self.make()
        for _ in range(2):
            sink, topic = Recorder(), new_topic()
            await layer.open(sink)
            try:
                await layer.open(Recorder())
            except RuntimeError:
                pass
            else:
                raise AssertionError("expected RuntimeError from opening the layer twice")
            await self.subscribed(layer, sink, topic)
            await layer.publish(topic, event_body(1), HISTORY)
            await sink.bodies(topic, 1)
            await layer.close()

    async def test_nothing_runs_once_it_is_closed(self) -> None:
        """A closed layer has no tasks, and ``publish`` raises `LayerUnavailable`."""
        before = asyncio.all_tasks()
        async with self.opened() as (layer, sink):
            await self.subscribed(layer, sink, new_topic())
        _expect(asyncio.all_tasks() == before, "no task", asyncio.all_tasks() - before)
        await layer.close()
        try:
            await layer.publish(new_topic(), event_body(1), HISTORY)
        except LayerUnavailable as exc:
            _expect(not exc.uncertain, "not uncertain: the event is not published", exc)
        else:
            raise AssertionError("expected LayerUnavailable from publishing on a closed layer")

    # ------------------------------------------------------------------------------------------------ several processes
    async def test_processes_hear_each_other_in_one_order(self) -> None:
        """If ``shared``, two layers deliver the events of both in the same order."""
        if not self.shared:
            return
        async with self.opened() as (first, sink), self.opened() as (second, second_sink):
            topic = new_topic()
            await self.subscribed(first, sink, topic)
            await self.subscribed(second, second_sink, topic)
            layers = (first, second)
            await asyncio.gather(*(layers[n % 2].publish(topic, event_body(n), HISTORY) for n in range(40)))
            await sink.bodies(topic, 40)
            await second_sink.bodies(topic, 40)
            _expect(sink.messages == second_sink.messages, "the same messages", second_sink.messages)
            offsets = [offset for _, _, offset, _ in sink.messages]
            _expect(offsets == list(range(1, 41)), "1 to 40", offsets)

    async def test_a_process_reads_what_another_published(self) -> None:
        """If ``shared``, a layer reads the events that another layer published."""
        if not self.shared:
            return
        async with self.opened() as (first, _), self.opened() as (second, _):
            topic = new_topic()
            start = await self._publish(first, topic, 3)
            page = await second.read(topic, start, 10, HISTORY)
            _expect(page.events is not None and len(page.events) == 3, "three events", page)
