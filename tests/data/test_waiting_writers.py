"""SQLite: units that write wait for each other, and hold no connection of the pool while they wait."""

import asyncio
import contextvars
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel
from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from tests.support import shelves
from tests.support.driving import talking
from wsaction._events.users import CONTROL, PUSHES
from wsaction.applications import WSAction
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.contrib.sqlalchemy import _session as sessions
from wsaction.decorators import async_action
from wsaction.exceptions import Busy
from wsaction.generics import ModelAPIActionHandler
from wsaction.layers.memory import MemoryLayer
from wsaction.permissions import BasePermission
from wsaction.routing import path
from wsaction.serializers import ReadOnly
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import connect
from wsaction.transactions import unit_of_work


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


class ItemOut(BaseModel):
    id: Annotated[int, ReadOnly]
    title: str


async def _items(engine: Any, number: int = 20) -> SQLAlchemyQuerySet[Item]:
    items = SQLAlchemyQuerySet(Item, async_sessionmaker(engine))
    async with unit_of_work():
        for _ in range(number):
            await items.create({"title": "old"})
    return items


def _apart(work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    """A task that does the work outside of the current unit of work."""
    return asyncio.create_task(work, context=contextvars.Context())


async def _until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # there is no event for waiting
            await asyncio.sleep(0.001)  # lets the drivers' threads run


@pytest.mark.parametrize("action", ["partial_update", "destroy", "create"])
async def test_reads_continue_beside_slow_and_waiting_writes(tmp_path: Path, action: str) -> None:
    async with shelves.sqlite(tmp_path, Base.metadata, pool_size=3, max_overflow=0, pool_timeout=5) as engine:
        items, writing, go_on = await _items(engine), asyncio.Event(), asyncio.Event()

        class Items(ModelAPIActionHandler):
            queryset, serializer_class = items, ItemOut

            @async_action
            async def slow(self) -> None:
                await self.perform_update(await self.get_object(), {"title": "slow"})
                writing.set()
                await go_on.wait()  # for example, a call to another service

        view = Items.as_aaah()
        async with talking(view, "/1/", at="<int:pk>/") as slow:
            await slow.send_json({"action": "slow", "request_id": 0})
            await writing.wait()
            write_lock = sessions._write_lock_of(engine.sync_engine)
            async with asyncio.TaskGroup() as tasks:
                work = []
                for pk in range(2, 12):
                    frame = {"title": "new"}
                    work.append(tasks.create_task(_call(view, pk, action, frame)))
                await _until(lambda: write_lock._wanted == 11)
                for _ in range(4):
                    assert await items.count() == 20
                async with unit_of_work():
                    assert await items.filter(title="old").count() == 20
                go_on.set()
            assert {task.result() for task in work} <= {200, 201, 204}
            assert (await slow.receive_json())["status"] == 200
            assert not write_lock.is_wanted


async def test_awaiting_a_task_that_awaits_the_commit_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sessions, "WARN_AFTER", 0.01)
    async with shelves.sqlite(tmp_path, Base.metadata) as engine:
        items = await _items(engine, 0)

        class Items(ModelAPIActionHandler):
            queryset, serializer_class = items, ItemOut

            @async_action(timeout=0.2)
            async def both(self) -> None:
                await self.queryset.create({"title": "the action's"})
                await asyncio.gather(self.queryset.create({"title": "the task's"}))

        async with talking(Items.as_aaah()) as ws:
            assert (await ws.call("both"))["status"] == 408
        assert "a task that the action 'both' started waits to write to SQLite" in caplog.text
        assert await items.count() == 0


async def _call(view: Any, pk: int, action: str, data: Any) -> int:
    async with talking(view, f"/{pk}/", at="<int:pk>/") as ws:
        return int((await ws.call(action, data=data))["status"])


@pytest.mark.parametrize(
    "options",
    [{"pool_size": 1, "max_overflow": 0}, {"pool_size": 2, "max_overflow": 0}, {"poolclass": NullPool}],
    ids=["one", "two", "NullPool"],
)
async def test_writers_do_not_deadlock_with_any_pool(tmp_path: Path, options: dict[str, Any]) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/items.db"
    engine = create_async_engine(url, **options)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await _work_together(await _items(engine, 3))
    finally:
        await engine.dispose()


async def test_writers_do_not_deadlock_with_one_connection() -> None:
    engine = create_async_engine("sqlite+aiosqlite:///:memory:")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await _work_together(await _items(engine, 3))
    await engine.dispose()


async def _work_together(items: SQLAlchemyQuerySet[Item]) -> None:
    """Runs units at the same time that read, write, read first, and nest blocks."""

    async def read_and_write(number: int) -> None:
        async with unit_of_work():
            item = await items.get(pk=number % 3 + 1)
            await asyncio.sleep(0)
            async with unit_of_work():
                await items.update(item, {"title": f"{number}"})
                assert (await items.get(pk=item.id)).title == f"{number}"

    async def set_and_write(number: int) -> None:
        async with unit_of_work():
            (await items.get(pk=1)).title = "set"  # flushed with the next change
            await items.create({"title": f"{number}"})

    async def in_the_session(number: int) -> None:
        async with unit_of_work(), items.session() as session:
            session.add(Item(title=f"{number}"))

    work = [
        begin(number)
        for number in range(6)
        for begin in (read_and_write, set_and_write, in_the_session, lambda _: items.count())
    ]
    async with asyncio.timeout(10):
        await asyncio.gather(*work)
    assert await items.count() == 3 + 12


async def test_objects_changed_before_the_wait_keep_their_changes(tmp_path: Path) -> None:
    async with shelves.sqlite(tmp_path, Base.metadata, pool_size=2, max_overflow=0) as engine:
        items = await _items(engine, 3)
        write_lock = sessions._write_lock_of(engine.sync_engine)

        async def change() -> None:
            async with unit_of_work():
                one, two = await items.get(pk=1), await items.get(pk=2)
                one.title = "set"
                await items.update(two, {"title": "updated"})
                assert (await items.get(pk=1)) is one
                assert (one.title, two.title) == ("set", "updated")

        async with unit_of_work():
            await items.create({"title": "first"})
            waiting = _apart(change())
            await _until(lambda: write_lock._wanted == 2)
            assert engine.pool.checkedout() == 1  # type: ignore[attr-defined]  # ours
        await waiting
        assert [item.title async for item in items] == ["set", "updated", "old", "first"]


async def test_a_cancelled_writer_leaves_the_queue(tmp_path: Path) -> None:
    async with shelves.sqlite(tmp_path, Base.metadata) as engine:
        items = await _items(engine, 1)
        write_lock = sessions._write_lock_of(engine.sync_engine)
        async with unit_of_work():
            await items.create({"title": "first"})
            waiting = _apart(items.create({"title": "never"}))
            await _until(lambda: write_lock._wanted == 2)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await items.create({"title": "second"})
        assert [item.title async for item in items] == ["old", "first", "second"]
        assert not write_lock.is_wanted


async def test_reading_units_hold_half_of_the_pool_at_most(tmp_path: Path) -> None:
    """The unit keeps its connection while it waits, so that its snapshot stays the same until it writes."""
    async with shelves.sqlite(tmp_path, Base.metadata, pool_size=4, max_overflow=0, pool_timeout=1) as engine:

        def connect(raw: Any, _: Any) -> None:
            raw.isolation_level = None
            raw.execute("PRAGMA journal_mode = WAL")

        event.listen(engine.sync_engine, "connect", connect)
        event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        await engine.dispose()
        items = await _items(engine, 9)
        write_lock = sessions._write_lock_of(engine.sync_engine)

        async def change(pk: int) -> None:
            async with unit_of_work():
                item = await items.get(pk=pk)
                await items.update(item, {"title": "new"})

        writing, go_on = asyncio.Event(), asyncio.Event()

        async def write_nothing() -> None:
            async with unit_of_work():
                async with items.session():
                    pass
                writing.set()
                await go_on.wait()

        first = _apart(write_nothing())
        await writing.wait()
        waiting = [_apart(change(pk)) for pk in range(2, 9)]
        await _until(lambda: write_lock._wanted == 3 and sum(task.done() for task in waiting) == 5)
        assert await items.count() == 9
        go_on.set()
        await first
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert sum(isinstance(outcome, Busy) for outcome in found) in (
            5,
            6,
        )  # the snapshot of the second one may be outdated
        assert not write_lock.is_wanted


async def test_a_deadlock_of_two_databases_is_busy(tmp_path: Path) -> None:
    """The unit that would cause a deadlock gets `Busy` at once; the other continues."""
    async with shelves.sqlite(tmp_path, Base.metadata) as one, shelves.sqlite(tmp_path, Base.metadata) as two:
        both = [await _items(engine, 1) for engine in (one, two)]
        reached = [asyncio.Event(), asyncio.Event()]

        async def change(first: int) -> None:
            async with unit_of_work():
                await both[first].create({"title": "new"})
                reached[first].set()
                await reached[1 - first].wait()
                await both[1 - first].create({"title": "new"})

        async with asyncio.timeout(5):
            found = await asyncio.gather(_apart(change(0)), _apart(change(1)), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in found) == ["Busy", "NoneType"]
        assert [await items.count() for items in both] == [2, 2]


class MuteLayer(MemoryLayer):
    """A layer that confirms no subscription, as if its server was unavailable."""

    def subscribe(self, topic: str) -> None:
        if topic in (CONTROL, PUSHES):  # for these a handshake would wait
            super().subscribe(topic)
        else:
            self.asked.set()

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()


class AllowAll(BasePermission):
    async def has_object_permission(self, scope: Any, consumer: Any, action: str, obj: Any) -> bool:
        return True


async def test_a_subscription_that_awaits_its_layer_holds_no_connection(tmp_path: Path) -> None:
    async with shelves.sqlite(tmp_path, Base.metadata, pool_size=1, max_overflow=0, pool_timeout=5) as engine:
        items, layer = await _items(engine, 1), MuteLayer()

        class Items(SubscribeMixin, ModelAPIActionHandler):
            queryset, serializer_class, permission_classes = items, ItemOut, (AllowAll,)

        app = WSAction([path("<int:pk>/", Items.as_aaah())], layer=layer)
        async with app.lifespan(), connect(app, "/1/") as ws, connect(app, "/1/") as other:
            await ws.send_json({"action": "subscribe", "request_id": 1})
            await asyncio.wait_for(layer.asked.wait(), 5)
            assert (await other.call("retrieve"))["status"] == 200
