"""Commits whose answer is lost: a subscriber gets each change, or a `$resync`.

A seed draws units of work over memory and two databases, whose commits are carried out, refused, or carried out and
never answered. The simulation runs in virtual time, so that a failing seed fails the same way again.
`test_lost_answers` tests PostgreSQL and SQLite.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from tests.support.schedules import SCHEDULES
from tests.support.virtual_time import run
from wsaction._pubsub.hub import Hub
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import Conflict
from wsaction.generics import ModelAPIActionHandler
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.layers.memory import MemoryLayer
from wsaction.permissions import BasePermission
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import WebSocketSession, connect
from wsaction.transactions import join_unit

OUTCOMES = ("kept", "kept", "refused", "refused at the end", "lost before", "lost after", "cancelled", "late")


class Thing(BaseModel):
    id: int
    value: int


class Database:
    """A remote database: it stores the writes of a unit when the COMMIT arrives."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.rows = rng, dict[int, int]()
        self.late: list[asyncio.TimerHandle] = []


class Writes:
    """The writes of a unit to a database; a `transactions.Resource`."""

    instant = False

    def __init__(self, database: Database) -> None:
        self.database, self.rows = database, dict[int, int]()
        self.outcome = database.rng.choice(OUTCOMES)

    async def prepare(self) -> None:
        await self._travel()
        if self.outcome == "refused":
            raise Conflict

    async def commit(self) -> None:
        database, rows = self.database, self.rows
        await self._travel()
        if self.outcome == "refused at the end":
            raise Conflict
        if self.outcome == "lost before":
            raise ConnectionResetError
        if self.outcome == "late":  # the COMMIT arrives after the connection is given up
            arrives = database.rng.random() * 2
            database.late.append(asyncio.get_running_loop().call_later(arrives, database.rows.update, rows))
            raise TimeoutError
        database.rows.update(rows)
        await self._travel()
        if self.outcome == "cancelled":
            raise asyncio.CancelledError
        if self.outcome == "lost after":
            raise ConnectionResetError

    async def rollback(self) -> None:
        await self._travel()

    async def _travel(self) -> None:
        if self.database.rng.random() < 0.7:
            await asyncio.sleep(self.database.rng.random() * 0.05)


class Shop:
    """The stored values, and the app that changes them."""

    def __init__(self, rng: random.Random) -> None:
        self.databases = [Database(rng), Database(rng)]
        self.things = things = MemoryQuerySet(Thing)
        self.keys = iter(range(1, 10_000))
        shop = self

        class Things(SubscribeMixin, ModelAPIActionHandler):
            queryset, serializer_class = things, Thing

            @async_action
            async def work(self, steps: list[tuple[str, int]], fail: bool = False) -> None:
                for what, value in steps:
                    await shop.step(self, what, value)
                    await asyncio.sleep(0)
                if fail:
                    raise ZeroDivisionError

        class Root(SubscribeMixin, AsyncAPIConsumer):
            routepatterns = [path("things/", Things.as_aaah())]

        self.app = WSAction([path("", Root.as_asgi())], layer=MemoryLayer())

    async def step(self, handler: Any, what: str, value: int) -> None:
        """One change of a unit, and its event."""
        key = next(self.keys)
        if what == "memory":
            await handler.perform_create({"id": key, "value": value})
        elif what == "update":
            if (thing := await self.things.first()) is not None:
                await handler.perform_update(thing, {"value": value})
        else:
            database = self.databases[value % 2]
            unit = join_unit()
            assert unit is not None
            unit.resource(database, lambda: Writes(database)).rows[key] = value
            if what == "object":
                await handler.publish_object("created", Thing(id=key, value=value))
            else:
                await handler.publish("stored", {"id": key, "value": value})

    def kept(self) -> dict[int, int]:
        """All stored values."""
        rows = {key: thing.value for key, thing in self.things._table.rows.items()}
        return rows | self.databases[0].rows | self.databases[1].rows


class Reader:
    """A subscriber that applies events, and loads everything again after a `$resync`."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.seen = shop, shop.kept()

    async def read(self, ws: WebSocketSession) -> None:
        while True:
            frame = await ws.event()
            if frame["event"] == "$resync":
                self.seen = self.shop.kept()
            else:
                self.seen[frame["data"]["id"]] = frame["data"]["value"]


def simulate(seed: int) -> None:
    """Runs one seed."""
    rng = random.Random(seed)

    async def live() -> None:
        shop = Shop(rng)
        async with shop.app.lifespan(), connect(shop.app, "/", timeout=1e6) as ws:
            assert (await ws.call("subscribe", "things/"))["status"] == 200
            reader = Reader(shop)
            reading = asyncio.create_task(reader.read(ws))
            await write(shop)
            await asyncio.sleep(10)  # all late commits have arrived, and all $resync are sent
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
            assert reader.seen == shop.kept(), f"seed {seed}"

    async def write(shop: Shop) -> None:
        for _ in range(rng.randint(1, 3)):
            async with connect(shop.app, "/", timeout=1e6) as ws:
                for number in range(rng.randint(1, 4)):
                    steps = [
                        (rng.choice(("memory", "update", "object", "event")), rng.randint(0, 99))
                        for _ in range(rng.randint(1, 4))
                    ]
                    frame = {"action": "work", "route": "things/", "steps": steps, "fail": rng.random() < 0.1}
                    await ws.send_json({**frame, "request_id": number})
                    if rng.random() < 0.2:
                        await asyncio.sleep(rng.random() * 0.1)
                        await ws.send_json({"action": "$cancel", "data": number, "request_id": f"cancel {number}"})
                    if rng.random() < 0.8:
                        while (await ws.receive_json()).get("request_id") != number:
                            pass

    run(live())


def _simulate_all(seeds: range) -> None:
    for seed in seeds:
        simulate(seed)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", "wsaction")


@pytest.mark.parametrize("slice_", range(4))
def test_subscribers_know_what_is_committed(slice_: int) -> None:
    _simulate_all(range(slice_ * 25, slice_ * 25 + 25))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("slice_", range(10))
def test_subscribers_know_what_is_committed_in_many_schedules(slice_: int) -> None:
    _simulate_all(range(1_000 + slice_ * 1_000, 1_000 + slice_ * 1_000 + SCHEDULES // 10))


def test_the_simulation_fails_without_resyncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `$resync` the simulation must fail."""
    monkeypatch.setattr(Hub, "invalidate_later", lambda *_: None)
    with pytest.raises(AssertionError, match="seed"):
        _simulate_all(range(25))


class Lost:
    """A `transactions.Resource` whose commit arrives two seconds after its connection is lost."""

    instant = False

    def __init__(self, rights: set[str]) -> None:
        self.rights = rights

    async def prepare(self) -> None:
        pass

    async def commit(self) -> None:
        asyncio.get_running_loop().call_later(2.0, self.rights.clear)
        raise ConnectionResetError

    async def rollback(self) -> None:
        pass


RIGHTS: set[str] = set()


class HasRight(BasePermission):
    def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
        return action != "subscribe" or "ada" in RIGHTS


class Room(SubscribeMixin, AsyncAPIActionHandler):
    permission_classes = (HasRight,)


class Rights(AsyncAPIConsumer):
    routepatterns = [path("room/", Room.as_aaah())]

    @async_action
    async def take(self, how: str) -> None:
        unit = join_unit()
        assert unit is not None
        unit.resource("rights", lambda: Lost(RIGHTS))
        app = self.app
        await {"revoke": app.revoke_user, "disconnect": app.disconnect_user}[how]("ada")

    @async_action
    async def tell(self) -> None:
        unit = join_unit()
        assert unit is not None
        unit.resource("rights", lambda: Lost(RIGHTS))
        await self.app.push_user("ada", "news", 1)


ADA = SimpleNamespace(is_authenticated=True, pk="ada")


@contextlib.asynccontextmanager
async def rights_app() -> AsyncIterator[WSAction]:
    RIGHTS.add("ada")
    app = WSAction([path("", Rights.as_asgi())], layer=MemoryLayer())
    Rights.app = app  # type: ignore[attr-defined]
    async with app.lifespan():
        yield app


def test_a_right_revoked_by_a_late_commit_is_checked_again() -> None:
    async def live() -> None:
        async with rights_app() as app, connect(app, "/", user=ADA, timeout=1e6) as ada, connect(app, "/") as admin:
            assert (await ada.call("subscribe", "room/"))["status"] == 200
            assert (await admin.call("take", how="revoke"))["status"] == 500
            event = await ada.event()
            assert (event["event"], event["route"]) == ("$unsubscribed", "room/")

    run(live())


def test_a_late_commit_disconnects_a_returning_user_again() -> None:
    async def live() -> None:
        async with rights_app() as app, connect(app, "/") as admin:
            async with connect(app, "/", user=ADA, timeout=1e6) as ada:
                assert (await admin.call("take", how="disconnect"))["status"] == 500
                assert await ada.wait_closed() == (4403, "")
            async with connect(app, "/", user=ADA, timeout=1e6) as ada:
                assert await ada.wait_closed() == (4403, "")

    run(live())


def test_a_push_of_an_uncertain_commit_is_a_resync() -> None:
    async def live() -> None:
        async with rights_app() as app, connect(app, "/", user=ADA, timeout=1e6) as ada, connect(app, "/") as admin:
            assert (await admin.call("tell"))["status"] == 500
            for _ in range(2):  # at once, and once the commit must have arrived
                event = await ada.event()
                assert (event["event"], event["route"]) == ("$resync", "")

    run(live())
