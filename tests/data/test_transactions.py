"""`wsaction.transactions`: each action has a unit, which commits before the reply and rolls back on any error."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, TypeAlias

import anyio
import anyio.from_thread
import pytest
from pydantic import BaseModel

from tests.support.driving import ask, talking
from tests.support.virtual_time import in_virtual_time
from wsaction._protocol.frames import current_frame
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.dependencies import Depends
from wsaction.exceptions import Conflict, OutcomeUnknown
from wsaction.hooks import ActionInfo, Hooks
from wsaction.limits import Limits
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import connect
from wsaction.transactions import ENDED, UnitOfWork, current_unit, join_unit, unit_of_work

Work: TypeAlias = Callable[[], Awaitable[Any]]


class Card(BaseModel):
    id: int
    title: str
    n: int = 0


class Deck:
    """A consumer, its rows, and the events that its actions wait for."""

    def __init__(self) -> None:
        self.cards = cards = MemoryQuerySet(Card, rows=[Card(id=1, title="a")], unique=("title",))
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        self.units: list[UnitOfWork | None] = []
        self.callback_calls: list[Any] = []
        deck = self

        class Consumer(AsyncAPIConsumer):
            @async_action
            async def add(self, title: str) -> Card:
                return await cards.create({"title": title})

            @async_action
            async def add_two(self, first: str, second: str) -> int:
                await cards.create({"title": first})
                await cards.create({"title": second})
                return await cards.count()

            @async_action
            async def add_and_fail(self, title: str) -> None:
                await cards.create({"title": title})
                raise ZeroDivisionError

            @async_action
            async def add_what_cannot_be_written(self) -> object:
                await cards.create({"title": "never"})
                return object()

            @async_action(mode="none")
            async def add_silently(self, title: str) -> None:
                await cards.create({"title": title})

            @async_action
            async def add_and_wait(self, title: str) -> int:
                await cards.create({"title": title})
                deck.reached.set()
                await deck.go_on.wait()
                return await cards.count()

            @async_action
            async def read(self) -> int:
                count = await cards.count()
                deck.units.append(current_unit())
                return count

            @async_action
            async def in_two_units(self) -> None:
                async with self.unit_of_work() as first:
                    await cards.create({"title": "first"})
                    async with self.unit_of_work() as joined:
                        deck.units = [first, joined]
                await cards.create({"title": "second"})
                deck.units.append(current_unit())
                raise ZeroDivisionError

            @async_action
            async def all_at_once(self) -> int:
                async def add(title: str) -> UnitOfWork | None:
                    await cards.create({"title": title})
                    return current_unit()

                unit = join_unit()
                assert unit is not None
                deck.units = list(await asyncio.gather(*(unit.include(add(title)) for title in "xyz")))
                raise ZeroDivisionError

            @async_action
            def add_in_a_thread_and_fail(self) -> None:
                anyio.from_thread.run(cards.create, {"title": "of the thread"})
                raise ZeroDivisionError

            @async_action
            async def leave_work(self, *, used: bool, fail: bool = False) -> None:
                if used:
                    await cards.create({"title": "of the action"})
                deck.left = asyncio.create_task(deck.later())
                if fail:
                    raise ZeroDivisionError

            @async_action
            async def leave_open(self) -> None:
                await unit_of_work().__aenter__()
                await cards.create({"title": "never"})

            @async_action
            async def follow(self, *, fail: bool = False) -> None:
                async with unit_of_work() as unit:
                    unit.on_commit(lambda: deck.callback_calls.append(current_unit()))
                (unit := join_unit()).on_commit(lambda: deck.callback_calls.append("implicit"))  # type: ignore[union-attr]
                deck.units = [unit]
                if fail:
                    raise ZeroDivisionError

            @async_action
            async def stream(self, fail: str = "") -> AsyncIterator[str]:
                for title in ("one", "two", "three"):
                    await cards.create({"title": title})
                    deck.units.append(current_unit())
                    if fail == title:
                        raise ZeroDivisionError
                    yield title
                    deck.units.append(current_unit())

            @async_action
            async def stream_in_one(self) -> AsyncIterator[str]:
                async with self.unit_of_work():
                    await cards.create({"title": "one"})
                    yield "one"

            @async_action
            async def stream_slowly(self) -> AsyncIterator[str]:
                try:
                    await cards.create({"title": "one"})
                    yield "one"
                    await cards.create({"title": "two"})
                    deck.reached.set()
                    await deck.go_on.wait()
                    yield "two"
                finally:
                    async with self.unit_of_work():
                        await cards.create({"title": "ended"})

        self.view = Consumer.as_asgi()
        self.left: asyncio.Task[None]

    async def later(self) -> None:
        await self.go_on.wait()
        self.units.append(current_unit())
        async with unit_of_work() as unit:
            await self.cards.create({"title": "later"})
            assert current_unit() is unit
        self.units.append(join_unit())

    async def titles(self) -> list[str]:
        return [card.title async for card in self.cards]


# ------------------------------------------------------------------------------------------------- of a frame
async def test_changes_of_an_action_are_committed_before_its_reply() -> None:
    deck = Deck()
    assert (await ask(deck.view, "add", title="b"))["data"] == {"id": 2, "title": "b", "n": 0}
    assert (await ask(deck.view, "add_two", first="c", second="d"))["data"] == 4
    async with talking(deck.view) as ws:
        await ws.send_json({"action": "add_silently", "title": "e"})
        await ws.call("$ping")
    assert await deck.titles() == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("action", "parameters", "status"),
    [
        ("add_two", {"first": "b", "second": "a"}, 409),
        ("add_and_fail", {"title": "b"}, 500),
        ("add_what_cannot_be_written", {}, 500),
        ("all_at_once", {}, 500),
        ("add_in_a_thread_and_fail", {}, 500),
    ],
)
async def test_a_failed_action_is_rolled_back(action: str, parameters: dict[str, Any], status: int) -> None:
    deck = Deck()
    assert (await ask(deck.view, action, **parameters))["status"] == status
    assert await deck.titles() == ["a"]


async def test_reading_from_memory_begins_no_unit() -> None:
    deck = Deck()
    assert (await ask(deck.view, "read"))["data"] == 1
    assert deck.units == [None]


async def test_a_failed_commit_is_the_reply() -> None:
    deck = Deck()
    async with talking(deck.view) as ws, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(ws.call("add_and_wait", title="b"))
        await deck.reached.wait()
        assert await deck.titles() == ["a"]
        await deck.cards.create({"title": "b"})
        deck.go_on.set()
        reply = await waiting
        assert (reply["status"], reply["errors"][0]["type"]) == (409, "conflict")
        assert reply["errors"][0]["ctx"] == {"fields": ["title"]}
    assert await deck.titles() == ["a", "b"]


async def test_a_cancelled_action_is_rolled_back() -> None:
    deck = Deck()
    async with talking(deck.view) as ws, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(ws.call("add_and_wait", title="b", request_id="x"))
        await deck.reached.wait()
        assert (await ws.call("$cancel", data="x"))["status"] == 200
        assert (await waiting)["status"] == 499
    assert await deck.titles() == ["a"]


async def test_an_action_that_times_out_is_rolled_back() -> None:
    deck = Deck()
    limits = Limits(action_timeout=0.05)
    async with talking(deck.view, limits=limits) as ws:
        assert (await ws.call("add_and_wait", title="b"))["status"] == 408
    assert await deck.titles() == ["a"]


async def test_a_closed_connection_rolls_back() -> None:
    deck = Deck()
    async with talking(deck.view) as ws:
        await ws.send_json({"action": "add_and_wait", "title": "b"})
        await deck.reached.wait()
    assert await deck.titles() == ["a"]


async def test_concurrent_actions_share_nothing() -> None:
    deck = Deck()
    async with talking(deck.view) as ws, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(ws.call("add_and_wait", title="b"))
        await deck.reached.wait()
        async with talking(deck.view) as other:
            assert (await other.call("read"))["data"] == 1
            assert (await other.call("add", title="c"))["status"] == 200
        deck.go_on.set()
        assert (await waiting)["data"] == 3
    assert await deck.titles() == ["a", "b", "c"]


async def test_include_runs_tasks_in_the_unit() -> None:
    deck = Deck()
    assert (await ask(deck.view, "all_at_once"))["status"] == 500
    assert len(set(deck.units)) == 1
    assert deck.units[0] is not None


@pytest.mark.parametrize("in_block", [False, True])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("then", [False, True])
async def test_a_block_of_an_included_task_ends_with_the_action(in_block: bool, fails: bool, then: bool) -> None:
    cards = MemoryQuerySet(Card)

    async def work(title: str) -> None:
        async with unit_of_work():
            await cards.create({"title": title})
            if fails:
                raise ValueError(title)

    class View(AsyncAPIConsumer):
        @async_action
        async def add(self) -> None:
            await cards.create({"title": "first"})
            async with self.unit_of_work() if in_block else contextlib.nullcontext():
                await cards.create({"title": "second"})
                unit = current_unit()
                assert unit is not None
                await asyncio.gather(*(unit.include(work(title)) for title in "ab"), return_exceptions=True)
            if then:
                await cards.create({"title": "last"})

    reply = await ask(View.as_asgi(), "add")
    kept = [] if fails else ["first", "second", "a", "b", *(["last"] if then else [])]
    assert reply["status"] == (500 if fails else 200)
    assert [card.title async for card in cards] == kept


async def test_work_included_after_the_end_of_its_unit_fails() -> None:
    deck, reached, go_on = Deck(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await deck.cards.create({"title": "in time"})
        reached.set()
        await go_on.wait()
        await deck.cards.create({"title": "too late"})

    async with unit_of_work() as unit:
        task = asyncio.create_task(unit.include(work()))
        await reached.wait()
    go_on.set()
    with pytest.raises(RuntimeError, match="this unit of work has ended"):
        await task
    with pytest.raises(RuntimeError, match="this unit of work has ended"):
        await unit.include(work())
    assert await deck.titles() == ["a", "in time"]


# Each function runs the work in another task, which has ended when the function returns.
async def _create_task(work: Work) -> None:
    await _ended(lambda done: asyncio.create_task(_then(work, done)))


async def _ensure_future(work: Work) -> None:
    await _ended(lambda done: asyncio.ensure_future(_then(work, done)))


async def _gather(work: Work) -> None:
    await asyncio.gather(work(), asyncio.sleep(0))


async def _task_group(work: Work) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work())


async def _anyio_task_group(work: Work) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)


async def _call_soon(work: Work) -> None:
    loop = asyncio.get_running_loop()
    await _ended(lambda done: loop.call_soon(lambda: done.tasks.append(loop.create_task(_then(work, done)))))


async def _thread(work: Work) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(work(), loop).result(5))


async def _task_of_a_task(work: Work) -> None:
    await _create_task(lambda: _create_task(work))


class Done(asyncio.Event):
    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[Any] = []  # so that they are not garbage-collected


async def _then(work: Work, done: Done) -> None:
    await work()
    done.set()


async def _ended(begin: Callable[[Done], Any]) -> None:
    done = Done()
    done.tasks.append(begin(done))
    await done.wait()


WAYS = [
    _create_task,
    _ensure_future,
    _gather,
    _task_group,
    _anyio_task_group,
    _call_soon,
    _thread,
    _task_of_a_task,
]


async def test_a_sync_action_shares_its_unit_with_calls_not_tasks() -> None:
    cards, tasks = MemoryQuerySet(Card), list[Any]()

    class Shop(AsyncAPIConsumer):
        @async_action
        def fill(self) -> None:
            def later() -> None:
                tasks.append(asyncio.ensure_future(self.audit()))

            anyio.from_thread.run(self.begin)
            anyio.from_thread.run_sync(later)
            anyio.from_thread.run(cards.create, {"title": "in the unit"})
            raise ValueError("not today")

        async def begin(self) -> None:
            tasks.append(asyncio.create_task(self.audit()))

        async def audit(self) -> None:
            await cards.create({"title": "audited"})

    assert (await ask(Shop.as_asgi(), "fill"))["status"] == 500
    await asyncio.gather(*tasks)
    assert [card.title async for card in cards] == ["audited"] * 2


@pytest.mark.parametrize("has_begun", [True, False], ids=["unit begun", "no unit yet"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
async def test_changes_of_other_tasks_survive_a_failed_action(way: Any, has_begun: bool) -> None:
    cards = MemoryQuerySet(Card)

    class Shop(SubscribeMixin, AsyncAPIConsumer):
        async def audit(self) -> None:
            await cards.create({"title": "audited"})
            await self.publish("audited")

        @async_action
        async def buy(self) -> None:
            if has_begun:
                await cards.create({"title": "of the action"})
                await self.publish("bought")
            await way(self.audit)
            await self.push("had_ended", await cards.filter(title="audited").count())
            raise ZeroDivisionError

    async with talking(Shop.as_asgi()) as ws:
        await ws.call("subscribe")
        assert (await ws.call("buy"))["status"] == 500
        assert [(await ws.event())["event"] for _ in range(2)] == ["audited", "had_ended"]
    assert [card.title async for card in cards] == ["audited"]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
async def test_outside_of_frames_a_unit_belongs_to_its_task(way: Any) -> None:
    cards = MemoryQuerySet(Card)

    async def work() -> None:
        async with unit_of_work() as unit:
            await cards.create({"title": "of the block"})
            await way(lambda: cards.create({"title": "audited"}))
            await way(lambda: unit.include(cards.create({"title": "included"})))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()
    assert [card.title async for card in cards] == ["audited"]


async def test_a_block_in_another_task_has_its_own_unit() -> None:
    deck = Deck()

    async def apart() -> None:
        async with unit_of_work() as unit:
            await deck.cards.create({"title": "b"})
            deck.units.append(unit)

    async with unit_of_work() as outer:
        await deck.cards.create({"title": "c"})
        await asyncio.gather(apart(), apart(), return_exceptions=True)  # the second one raises Conflict
        assert outer not in deck.units
        assert current_unit() is outer
    assert await deck.titles() == ["a", "c", "b"]  # in the order of their keys


async def test_a_block_within_an_action_commits_at_its_end() -> None:
    deck = Deck()
    assert (await ask(deck.view, "in_two_units"))["status"] == 500
    first, joined, following = deck.units
    assert first is joined
    assert following not in (first, None)
    assert await deck.titles() == ["a", "first"]


@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("fail", [True, False])
async def test_a_task_that_outlives_its_action_has_no_unit(used: bool, fail: bool) -> None:
    deck = Deck()
    async with talking(deck.view) as ws:
        assert (await ws.call("leave_work", used=used, fail=fail))["status"] == (500 if fail else 200)
        deck.go_on.set()
        await deck.left
    assert deck.units == [None, None]
    assert await deck.titles() == ["a", *(["of the action"] if used and not fail else []), "later"]


async def test_a_block_that_is_left_open_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    deck = Deck()
    assert (await ask(deck.view, "leave_open"))["status"] == 500
    assert "a unit of work is left open" in caplog.text
    assert await deck.titles() == ["a"]


async def test_on_commit_callbacks_run_only_after_the_commit() -> None:
    deck = Deck()
    assert (await ask(deck.view, "follow"))["status"] == 200
    assert deck.callback_calls == [None, "implicit"]
    assert (await ask(deck.view, "follow", fail=True))["status"] == 500
    assert deck.callback_calls == [None, "implicit", None]
    with pytest.raises(RuntimeError, match="this unit of work has ended"):
        deck.units[0].on_commit(print)  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------------- of a stream
async def test_each_step_of_a_stream_is_a_unit() -> None:
    deck = Deck()
    async with talking(deck.view) as ws:
        assert [item async for item in ws.stream("stream")] == ["one", "two", "three"]
    assert deck.units[1::2] == [None, None, None]
    assert len({*deck.units[::2]} - {None}) == 3
    assert await deck.titles() == ["a", "one", "two", "three"]


async def test_a_failed_stream_keeps_its_earlier_steps() -> None:
    deck = Deck()
    assert (await _final(deck, "stream", fail="two"))["status"] == 500
    assert await deck.titles() == ["a", "one"]


async def test_a_cancelled_stream_may_still_clean_up() -> None:
    deck = Deck()
    async with talking(deck.view) as ws:
        await ws.send_json({"action": "stream_slowly", "request_id": 1})
        assert (await ws.receive_json())["status"] == 206
        await deck.reached.wait()
        await ws.send_json({"action": "$cancel", "data": 1, "request_id": 2})
        assert {(await ws.receive_json())["status"] for _ in range(2)} == {200, 499}
    assert await deck.titles() == ["a", "one", "ended"]


@pytest.mark.parametrize("action", ["fail", "fail_before", "stream", "swallow"])
async def test_dependencies_do_not_commit_a_failed_action(action: str) -> None:
    cards = MemoryQuerySet(Card)
    raised: list[str] = []

    async def audited() -> AsyncIterator[None]:
        try:
            yield
        except Exception as exc:
            async with unit_of_work():
                raised.append(type(exc).__name__)
                await cards.create({"title": "audited"})
            raise

    async def changing() -> None:
        await cards.create({"title": "before"})
        if action == "fail_before":
            raise ZeroDivisionError

    class Consumer(AsyncAPIConsumer):
        @async_action
        async def fail(self, _: Annotated[None, Depends(audited)], __: Annotated[None, Depends(changing)]) -> None:
            await cards.create({"title": "never"})
            raise ZeroDivisionError

        @async_action
        async def fail_before(
            self, _: Annotated[None, Depends(audited)], __: Annotated[None, Depends(changing)]
        ) -> None:
            raise AssertionError

        @async_action
        async def stream(self, _: Annotated[None, Depends(audited)]) -> AsyncIterator[int]:
            await cards.create({"title": "kept"})
            yield 1
            await cards.create({"title": "never"})
            raise ZeroDivisionError

        @async_action
        async def swallow(self, _: Annotated[None, Depends(audited)]) -> None:
            with contextlib.suppress(ZeroDivisionError):
                await cards.create({"title": "kept"})
                raise ZeroDivisionError

    async with talking(Consumer.as_asgi()) as ws:
        await ws.send_json({"action": action})
        while (reply := await ws.receive_json())["status"] == 206:
            pass
    kept = [card.title async for card in cards]
    if action == "swallow":
        assert (reply["status"], raised, kept) == (200, [], ["kept"])
    else:
        assert (reply["status"], raised) == (500, ["ZeroDivisionError"])
        assert kept == [*(["kept"] if action == "stream" else []), "audited"]


@pytest.mark.parametrize(("recovers", "kept"), [(False, ["audited"]), (True, ["audited"]), (None, [])])
async def test_middleware_does_not_commit_a_failed_action(recovers: bool | None, kept: list[str]) -> None:
    """With None, the middleware recovers without a unit of its own."""
    cards = MemoryQuerySet(Card)

    class Consumer(AsyncAPIConsumer):
        @async_action
        async def fail(self) -> str:
            await cards.create({"title": "tried"})
            raise ZeroDivisionError

    async def auditing(handler: Any, call_next: Any) -> Any:
        try:
            return await call_next(handler)
        except ZeroDivisionError:
            if recovers is not None:
                async with unit_of_work():
                    await cards.create({"title": "audited"})
            if recovers is False:
                raise
            return "recovered"

    app = WSAction([path("", Consumer.as_asgi())], middleware=[auditing])
    async with app.lifespan(), connect(app, "/") as ws:
        assert (await ws.call("fail"))["status"] == (500 if recovers is False else 200)
    assert [card.title async for card in cards] == kept


@pytest.mark.parametrize("answers", ["again", "otherwise"])
@pytest.mark.parametrize("fails", ["before", "within", "after"])
@pytest.mark.parametrize("has_written", [True, False])
async def test_middleware_continues_without_the_failed_changes(has_written: bool, fails: str, answers: str) -> None:
    """Middleware may run the action again, so that nothing is changed twice, or reply itself."""
    cards = MemoryQuerySet(Card)
    failing = [fails]

    def fail(where: str) -> None:
        if where in failing:
            failing.remove(where)
            raise ZeroDivisionError

    class Consumer(AsyncAPIConsumer):
        @async_action
        async def go(self) -> str:
            if has_written:
                await cards.create({"title": "first"})
            fail("before")
            async with self.unit_of_work():
                await cards.create({"title": "second"})
                fail("within")
            fail("after")
            return "done"

    async def recovering(handler: Any, call_next: Any) -> Any:
        try:
            return await call_next(handler)
        except ZeroDivisionError:
            return await call_next(handler) if answers == "again" else "recovered"

    app = WSAction([path("", Consumer.as_asgi())], middleware=[recovering])
    async with app.lifespan(), connect(app, "/") as ws:
        assert (await ws.call("go"))["data"] == ("done" if answers == "again" else "recovered")
    once = [*(["first"] * has_written), "second"]
    if answers == "again":
        assert [card.title async for card in cards] == once * (2 if fails == "after" else 1)
    else:
        assert [card.title async for card in cards] == once * (fails == "after")


@pytest.mark.parametrize("fails", ["action", "middleware"])
async def test_a_repeated_action_drops_only_its_failed_attempts(fails: str) -> None:
    """Inner middleware may change something before the action, and may fail after it."""
    cards = MemoryQuerySet(Card)
    tries: list[str] = []

    class Consumer(SubscribeMixin, AsyncAPIConsumer):
        @async_action
        async def go(self) -> str:
            await cards.create({"title": f"action {len(tries)}"})
            if len(tries) == 1:
                await self.subscribe()
            if tries == ["action"]:
                raise ZeroDivisionError
            await self.publish("went")
            return "done"

    async def again(handler: Any, call_next: Any) -> Any:
        try:
            return await call_next(handler)
        except ZeroDivisionError:
            return await call_next(handler)

    async def within(handler: Any, call_next: Any) -> Any:
        tries.append(fails)
        await cards.create({"title": f"before {len(tries)}"})
        result = await call_next(handler)
        if tries == ["middleware"]:
            raise ZeroDivisionError
        return result

    app = WSAction([path("", Consumer.as_asgi())], middleware=[again, within])
    async with app.lifespan(), connect(app, "/") as ws:
        assert (await ws.call("go"))["data"] == "done"
        await ws.nothing()  # the subscriptions of the failed tries are undone
    assert [card.title async for card in cards] == ["before 2", "action 2"]


async def test_a_unit_may_not_span_a_yield() -> None:
    deck = Deck()
    assert (await _final(deck, "stream_in_one"))["status"] == 500
    assert await deck.titles() == ["a"]


async def _final(deck: Deck, action: str, **parameters: Any) -> dict[str, Any]:
    """The final reply to a stream."""
    async with talking(deck.view) as ws:
        await ws.send_json({"action": action, "request_id": 1, **parameters})
        while (reply := await ws.receive_json())["status"] == 206:
            pass
        return dict(reply)


# ------------------------------------------------------------------------------------------------- on its own
class Slow:
    """A resource whose commit waits."""

    instant = False

    def __init__(self, fail: type[Exception] | None = None) -> None:
        self.calls: list[str] = []
        self.fail = fail
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def prepare(self) -> None:
        self.calls.append("prepare")

    async def commit(self) -> None:
        self.begun.set()
        await self.go_on.wait()
        if self.fail:
            raise self.fail
        self.calls.append("commit")

    async def rollback(self) -> None:
        self.calls.append("rollback")


async def test_a_commit_that_has_begun_cannot_be_cancelled() -> None:
    slow = Slow()

    class Consumer(AsyncAPIConsumer):
        @async_action
        async def change(self) -> str:
            join_unit().resource(slow, lambda: slow)  # type: ignore[union-attr]
            return "changed"

        @async_action(ordered=False)
        async def wait(self) -> None:
            await asyncio.Event().wait()

    async with talking(Consumer.as_asgi(), limits=Limits(action_timeout=0.05)) as ws, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(ws.call("change", request_id="x"))
        await slow.begun.wait()
        assert (await ws.call("$cancel", data="x"))["status"] == 404
        assert (await ws.call("wait"))["status"] == 408  # the other call would have timed out by now, too
        slow.go_on.set()
        assert (await waiting)["data"] == "changed"
    assert slow.calls == ["prepare", "commit"]


@in_virtual_time
async def test_a_hanging_commit_is_answered_and_frees_its_turn(caplog: pytest.LogCaptureFixture) -> None:
    slow, statuses = Slow(), list[int]()

    class Observing(Hooks):
        def on_action(self, info: ActionInfo) -> None:
            statuses.append(info.status)

    class Consumer(AsyncAPIConsumer):
        @async_action
        async def change(self) -> str:
            join_unit().resource(slow, lambda: slow)  # type: ignore[union-attr]
            return "changed"

        @async_action
        async def next(self) -> None: ...

    limits = Limits(action_timeout=0.05)
    app = WSAction([path("", Consumer.as_asgi())], limits=limits, hooks=[Observing()])
    async with app.lifespan(), connect(app, "/", timeout=60) as ws:
        reply = await ws.call("change", request_id="x")
        assert (reply["status"], reply["errors"][0]["type"]) == (408, "action_timeout")
        assert "not known" in reply["errors"][0]["msg"]
        assert (await ws.call("next", request_id="x"))["status"] == 200  # the request_id and the route are free again
        slow.go_on.set()
        assert (await ws.call("$ping"))["status"] == 200
        assert slow.calls == ["prepare", "commit"]
        assert (await ws.call("next"))["action"] == "next"  # the late commit sent nothing before it
    assert statuses == [408, 200, 200, 200]
    assert "change  goes on 30 s after its timeout, with its commit" in caplog.text


@pytest.mark.parametrize("fail", [None, Conflict])
async def test_a_commit_finishes_despite_a_cancellation(
    fail: type[Exception] | None, caplog: pytest.LogCaptureFixture
) -> None:
    slow, callbacks = Slow(fail), list[str]()

    async def work() -> None:
        async with unit_of_work() as unit:
            unit.resource("slow", lambda: slow)
            unit.on_commit(lambda: callbacks.append("committed"))

    task = asyncio.create_task(work())
    await slow.begun.wait()
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    slow.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert slow.calls == ["prepare", "rollback" if fail else "commit"]
    assert callbacks == ([] if fail else ["committed"])
    assert ("was cancelled, and failed as it ended" in caplog.text) is (fail is not None)


async def test_a_failed_rollback_is_logged_and_the_others_run(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Slow):
        async def rollback(self) -> None:
            raise OSError("gone")

    good = Slow()

    async def work() -> None:
        async with unit_of_work() as unit:
            unit.resource(1, Broken)
            unit.resource(2, lambda: good)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()
    assert good.calls == ["rollback"]
    assert "could not be rolled back" in caplog.text


async def test_failed_callbacks_are_logged_and_the_others_run(caplog: pytest.LogCaptureFixture) -> None:
    callbacks: list[str] = []

    async def later() -> None:
        callbacks.append("later")

    async def cancelled() -> None:
        raise asyncio.CancelledError

    def odd() -> None:
        raise BaseException  # as pytest.fail() does

    with caplog.at_level(logging.ERROR, "wsaction"):
        async with unit_of_work() as unit:
            for callback in (lambda: 1 / 0, cancelled, odd, later):
                unit.on_commit(callback)
    assert callbacks == ["later"]
    assert caplog.text.count("which was called after a commit") == 3


@pytest.mark.parametrize("outcome", ["committed", "unknown"])
async def test_callbacks_of_callbacks_follow_the_outcome(outcome: str) -> None:
    class Commit:
        instant = True

        async def prepare(self) -> None: ...

        async def commit(self) -> bool:
            if outcome == "unknown":
                raise OutcomeUnknown
            return True

        async def rollback(self) -> None: ...

    called: list[str] = []

    def follow(unit: UnitOfWork, name: str, then: Any = lambda: None) -> None:
        def call(said: str) -> None:
            called.append(f"{name} {said}")
            then()

        unit.on_commit(lambda: call("committed"), if_unknown=lambda: call("unknown"))

    with pytest.raises(OutcomeUnknown) if outcome == "unknown" else contextlib.nullcontext():
        async with unit_of_work() as unit:
            unit.resource(1, Commit)

            def add() -> None:
                follow(unit, "second", lambda: follow(unit, "third"))
                unit.on_commit(lambda: called.append("fourth committed"))

            follow(unit, "first", add)
            follow(unit, "last")
    names = ["first", "second", "third", "fourth", "last"]
    assert called == [f"{name} {outcome}" for name in names if (name, outcome) != ("fourth", "unknown")]
    with pytest.raises(RuntimeError, match="has ended"):
        unit.on_commit(print)


async def test_outside_of_frames_each_operation_is_a_unit() -> None:
    deck = Deck()
    assert current_frame.get() is None
    await deck.cards.create({"title": "b"})
    assert (current_unit(), join_unit()) == (None, None)
    with pytest.raises(Conflict):
        await deck.cards.create({"title": "b"})
    assert await deck.titles() == ["a", "b"]


async def test_inner_blocks_join_the_outermost() -> None:
    deck = Deck()

    async def work() -> None:
        async with unit_of_work() as outer:
            async with unit_of_work() as inner:
                assert inner is outer
                await deck.cards.create({"title": "b"})
            assert current_unit() is outer
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()
    assert current_unit() is None
    assert await deck.titles() == ["a"]


async def test_a_failed_inner_block_fails_the_outer_one() -> None:
    deck = Deck()

    async def fail() -> None:
        async with unit_of_work():
            raise ZeroDivisionError

    async def work() -> None:
        async with unit_of_work():
            await deck.cards.create({"title": "b"})
            with pytest.raises(ZeroDivisionError):
                await fail()

    with pytest.raises(RuntimeError, match="a unit of work within this one failed"):
        await work()
    assert await deck.titles() == ["a"]


@pytest.mark.parametrize("then", ["return", "write", "another block", "an on_commit"])
@pytest.mark.parametrize("has_written", [True, False])
async def test_a_failed_block_fails_an_action_that_made_changes(has_written: bool, then: str) -> None:
    """The action fails if it had changed something; otherwise it continues."""
    cards = MemoryQuerySet(Card)
    called: list[str] = []

    class Consumer(AsyncAPIConsumer):
        @async_action
        async def go(self) -> str:
            await cards.count()
            if has_written:
                await cards.create({"title": "before"})
            with contextlib.suppress(ZeroDivisionError):
                async with self.unit_of_work():
                    await cards.create({"title": "never"})
                    raise ZeroDivisionError
            if then == "write":
                await cards.create({"title": "after"})
            elif then == "another block":
                with contextlib.suppress(RuntimeError):
                    async with self.unit_of_work():
                        await cards.create({"title": "after"})
            elif then == "an on_commit":
                async with self.unit_of_work() as unit:
                    unit.on_commit(lambda: called.append("called"))
            return "done"

    async with talking(Consumer.as_asgi()) as ws:
        assert (await ws.call("go"))["status"] == (500 if has_written else 200)
    went_on = not has_written
    assert [card.title async for card in cards] == ["after"] * (went_on and then in ("write", "another block"))
    assert called == ["called"] * (went_on and then == "an on_commit")


async def test_a_block_that_ends_after_its_unit_is_an_error() -> None:
    block = unit_of_work()
    unit = await block.__aenter__()
    await unit.rollback()
    with pytest.raises(RuntimeError, match="this unit of work has ended before"):
        await block.__aexit__(None, None, None)
    assert current_unit() is None


async def test_the_unit_of_an_ended_frame_is_closed() -> None:
    assert ENDED.closed
    await ENDED.rollback()  # a second time is harmless
