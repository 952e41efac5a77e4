"""The events of one object arrive in the order of its commits; versions say which state is newer."""

import asyncio
import json
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.support.cards import KINDS, Card
from tests.support.live_boards import position
from tests.support.live_cards import LIVE, Owner, cards, shown, user
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured
from wsaction.generics import ModelAPIActionHandler
from wsaction.layers.base import History, Position
from wsaction.layers.memory import MemoryLayer
from wsaction.querysets import MemoryQuerySet
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import connect
from wsaction.transactions import join_unit, unit_of_work

WAIT = 10.0


class GatedLayer(MemoryLayer):
    """A layer whose first publication waits for the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.gate, self.count = asyncio.Event(), asyncio.Event(), 0

    async def publish(self, topic: str, body: bytes, history: History | None) -> Position | None:
        self.count += 1
        if self.count == 1:
            self.reached.set()
            await self.gate.wait()
        return await super().publish(topic, body, history)


class UnevenLayer(MemoryLayer):
    """A layer whose publications take a random number of turns of the loop."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    async def publish(self, topic: str, body: bytes, history: History | None) -> Position | None:
        for _ in range(self._rng.randrange(6)):
            await asyncio.sleep(0)
        return await super().publish(topic, body, history)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_change_waits_for_the_event_of_the_change_before_it(kind: str) -> None:
    layer = GatedLayer()
    async with (
        cards(kind, layer=layer) as (app, _),
        connect(app, "/ws/") as one,
        connect(app, "/ws/") as two,
        connect(app, "/ws/") as reader,
    ):
        await position(reader, "cards/")
        await position(reader, "cards/1/")
        first = asyncio.create_task(one.call("partial_update", "cards/1/", {"title": "first"}))
        await asyncio.wait_for(layer.reached.wait(), WAIT)
        second = asyncio.create_task(two.call("partial_update", "cards/1/", {"title": "second"}))
        assert (await two.call("partial_update", "cards/2/", {"title": "other"}))[
            "status"
        ] == 200  # another object does not wait
        if kind == "memory":  # the SQLite here has one connection for all
            assert (await reader.call("retrieve", "cards/1/"))["data"]["title"] == "first"
        assert not second.done()
        layer.gate.set()
        assert [(await reply)["status"] for reply in (first, second)] == [200, 200]
        events = [shown(await reader.event()) for _ in range(5)]
        for route in ("cards/", "cards/1/"):
            assert [data["title"] for _, at, data in events if at == route and data["id"] == 1] == ["first", "second"]
        assert len(app.runtime.hub.locks) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_the_last_event_of_an_object_shows_its_stored_state(kind: str) -> None:
    async with AsyncExitStack() as stack:
        app, queryset = await stack.enter_async_context(cards(kind, layer=UnevenLayer(random.Random(11))))
        reader, *writers = [await stack.enter_async_context(connect(app, "/ws/")) for _ in range(5)]
        await position(reader, "cards/")
        for turn in range(15):
            changes = (
                ws.call("partial_update", "cards/1/", {"title": f"{turn}.{index}"}) for index, ws in enumerate(writers)
            )
            assert {reply["status"] for reply in await asyncio.gather(*changes)} == {200}
            titles = [(await reader.event())["data"]["title"] for _ in writers]
            assert titles[-1] == (await queryset.get(pk=1)).title
        assert len(app.runtime.hub.locks) == 0


async def test_an_on_commit_callback_may_change_the_object_again() -> None:
    class Twice(ModelAPIActionHandler):
        @async_action(detail=True)
        async def twice(self) -> None:
            card = await self.get_object()

            async def again() -> None:
                async with unit_of_work():
                    await self.perform_update(await self.get_queryset().get(pk=1), {"title": "then"})

            unit = join_unit()
            assert unit is not None
            unit.on_commit(again)
            await self.perform_update(card, {"title": "now"})

    async with cards("memory", bases=(SubscribeMixin, Twice)) as (app, _), connect(app, "/ws/") as ws:
        await position(ws, "cards/1/")
        assert (await ws.call("twice", "cards/1/"))["status"] == 200
        assert [(await ws.event())["data"]["title"] for _ in range(2)] == ["now", "then"]
        assert len(app.runtime.hub.locks) == 0


class FailingResource:
    """A resource that fails while its unit prepares to commit."""

    instant = True

    async def prepare(self) -> None:
        raise RuntimeError("not now")

    async def commit(self) -> None: ...

    async def rollback(self) -> None: ...


async def test_a_failed_commit_releases_the_object() -> None:
    class Failing(ModelAPIActionHandler):
        @async_action(detail=True)
        async def fail(self) -> None:
            await self.perform_update(await self.get_object(), {"title": "no"})
            unit = join_unit()
            assert unit is not None
            unit.resource("broken", FailingResource)

    async with cards("memory", bases=(SubscribeMixin, Failing)) as (app, _), connect(app, "/ws/") as ws:
        await position(ws, "cards/")
        assert (await ws.call("fail", "cards/1/"))["status"] == 500
        assert len(app.runtime.hub.locks) == 0
        assert (await ws.call("partial_update", "cards/1/", {"title": "yes"}))["status"] == 200
        assert (await ws.event())["data"]["title"] == "yes"


# ------------------------------------------------------------------------------------------------- versions
async def test_deleted_events_carry_the_version() -> None:
    async with (
        cards("memory", version_field="due", permission_classes=(Owner,)) as (app, queryset),
        connect(app, "/ws/", user=user(1)) as ws,
    ):
        await queryset.update(await queryset.get(pk=1), {"owner_id": 1, "due": 1})
        await queryset.update(await queryset.get(pk=2), {"owner_id": 1, "due": 1})
        await position(ws, "cards/")
        card = await queryset.get(pk=1)
        given = await queryset.update(card, {"owner_id": 2, "due": 7})
        await app.publish_object("cards/", "updated", given, before=Card(id=1, owner_id=1, title="card 1"))
        assert (await ws.event("deleted"))["data"] == {"pk": 1, "due": 7}  # a lost object shows its version too
        assert (await ws.call("destroy", "cards/2/"))["status"] == 204
        assert (await ws.event("deleted"))["data"] == {"pk": 2, "due": 1}
        assert '"required": ["pk", "due"]' in json.dumps(app.asyncapi())


@pytest.mark.parametrize(
    ("attributes", "message"),
    [({"version_field": "revision"}, "version_field: "), ({"version_field": "secret"}, "Shown does not show")],
)
def test_a_version_field_that_clients_cannot_see_is_refused(attributes: Any, message: str) -> None:
    class Kept(Card):
        secret: int = 0

    class Shown(Card): ...

    class Handler(*LIVE):  # type: ignore[misc]
        queryset = MemoryQuerySet(Kept)
        serializer_class = Shown
        version_field = attributes["version_field"]

    with pytest.raises(ImproperlyConfigured, match=message):
        Handler.as_aaah()
