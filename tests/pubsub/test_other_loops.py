"""Publishing on another event loop than the one that serves: it is handed over and awaited, or raises an error; it
never gets lost silently.
"""

import asyncio
import contextlib
import multiprocessing
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import anyio
import pytest
from pydantic import BaseModel

from tests.support.live_boards import position
from tests.support.redis_servers import needs_redis_server, redis_server
from wsaction._server.runtime import on_loop
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import LayerUnavailable, OutcomeUnknown
from wsaction.generics import ModelAPIActionHandler
from wsaction.layers.redis import RedisLayer
from wsaction.presence import PresenceMixin
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path
from wsaction.serializers import ReadOnly
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import connect
from wsaction.transactions import unit_of_work


class Card(BaseModel):
    id: Annotated[int, ReadOnly]
    text: str = ""


class Cards(SubscribeMixin, ModelAPIActionHandler):
    queryset = MemoryQuerySet(Card, [Card(id=1)])
    serializer_class = Card

    @async_action
    def in_a_thread(self, way: str) -> None:
        """A sync action, which runs in a thread; it starts an event loop there."""
        card = Card(id=1, text="new")
        ways: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "publish": lambda: self.publish("told", 1),
            "push": lambda: self.push("told", 1),
            "publish_object": lambda: self.publish_object("updated", card),
            "app.publish": lambda: self.app.publish("cards/", "told", 1),
        }
        asyncio.run(ways[way]())

    @async_action
    def in_a_child(self) -> None:
        """The unit of work belongs to the parent process, not to the forked one."""
        anyio.from_thread.run(self.queryset.create, {"text": "new"})
        asyncio.run(forked(lambda: self.app.publish("cards/", "told", 1)))


class Root(AsyncAPIConsumer):
    routepatterns = [path("cards/", Cards.as_aaah())]


def served(**options: Any) -> WSAction:
    return WSAction([path("ws/", Root.as_asgi())], **options)


ada = SimpleNamespace(is_authenticated=True, pk="ada")

WAYS: dict[str, Callable[[WSAction], Coroutine[Any, Any, None]]] = {
    "publish": lambda app: app.publish("cards/", "told", 1),
    "publish_object": lambda app: app.publish_object("cards/", "updated", Card(id=1, text="new")),
    "push_user": lambda app: app.push_user("ada", "told", 1),
    "disconnect_user": lambda app: app.disconnect_user("ada", "bye"),
    "revoke_user": lambda app: app.revoke_user("ada"),
}


def on_another_loop(work: Callable[[], Coroutine[Any, Any, None]]) -> Coroutine[Any, Any, None]:
    """Runs ``work`` on a new event loop, in a thread."""
    return asyncio.to_thread(asyncio.run, work())


@contextlib.asynccontextmanager
async def layer(kind: str, tmp_path: Path) -> AsyncIterator[Any]:
    if kind == "memory":
        yield None
    else:
        with redis_server(tmp_path) as server:
            yield RedisLayer(server.url)


@pytest.mark.parametrize("kind", ["memory", pytest.param("redis", marks=needs_redis_server)])
@pytest.mark.parametrize("running", [True, False])
async def test_events_of_another_loop_reach_the_loop_that_serves(kind: str, running: bool, tmp_path: Path) -> None:
    async with layer(kind, tmp_path) as shared, contextlib.AsyncExitStack() as stack:
        app = served(layer=shared)
        if running:
            await stack.enter_async_context(app.lifespan())
        ws = await stack.enter_async_context(connect(app, "/ws/", user=ada))
        await position(ws, "cards/")
        for _ in range(2):
            for way in ("publish", "publish_object", "push_user"):
                await on_another_loop(lambda way=way: WAYS[way](app))  # type: ignore[misc]  # mypy knows no such lambdas
                assert (await ws.event())["event"] == ("updated" if way == "publish_object" else "told")
        await on_another_loop(lambda: WAYS["revoke_user"](app))
        await on_another_loop(lambda: WAYS["publish"](app))
        await ws.event("told")
        await on_another_loop(lambda: WAYS["disconnect_user"](app))
        assert await ws.wait_closed() == (4403, "bye")
        await app.runtime.close()


@pytest.mark.parametrize("way", ["publish", "push", "publish_object", "app.publish"])
async def test_publishing_from_a_sync_action(way: str) -> None:
    async with connect(served(), "/ws/") as ws:
        await position(ws, "cards/")
        await ws.send_json({"action": "in_a_thread", "route": "cards/", "way": way, "request_id": 1})
        frames = [await ws.receive_json() for _ in range(2)]
        assert {frame.get("event") for frame in frames} == {None, "updated" if way == "publish_object" else "told"}
        assert [frame["status"] for frame in frames if "status" in frame] == [200]


class Drafts(SubscribeMixin, ModelAPIActionHandler):
    serializer_class = Card

    async def change(self) -> None:
        """Creates, updates and deletes, by the methods that publish."""
        card = await self.perform_create({"text": "a"})
        card = await self.perform_update(card, {"text": "b"})
        if self.frame.body.get("fail"):
            raise ZeroDivisionError
        await self.perform_destroy(await self.queryset.get(pk=1))

    async def change_as_a_unit(self) -> None:
        async with unit_of_work():
            await self.change()

    @async_action
    def by_a_thread(self) -> None:
        """Its thread belongs to the action's unit of work."""
        asyncio.run(self.change())

    @async_action
    async def apart(self) -> None:
        """A thread outside of the action's unit: each change is a unit by itself."""
        await on_another_loop(self.change)

    @async_action
    async def apart_as_a_unit(self) -> None:
        await on_another_loop(self.change_as_a_unit)

    @async_action
    def on_its_own_loop(self, method: str) -> None:
        asyncio.run(getattr(self, method)())


class SharedDrafts(PresenceMixin, Drafts):
    pass


@contextlib.asynccontextmanager
async def drafts(kind: str, tmp_path: Path, handler: Any = Drafts) -> AsyncIterator[tuple[Any, Any]]:
    """A connection that is subscribed to rows, and their queryset."""
    rows = MemoryQuerySet(Card, [Card(id=1)])
    routes = [path("drafts/", handler.as_aaah(queryset=rows))]
    root: Any = type("Root", (AsyncAPIConsumer,), {"routepatterns": routes})
    async with layer(kind, tmp_path) as shared:
        app = WSAction([path("ws/", root.as_asgi())], layer=shared)
        async with app.lifespan(), connect(app, "/ws/") as ws:
            await position(ws, "drafts/")
            yield ws, rows


@pytest.mark.parametrize("kind", ["memory", pytest.param("redis", marks=needs_redis_server)])
@pytest.mark.parametrize("action", ["by_a_thread", "apart", "apart_as_a_unit"])
async def test_changes_on_another_loop_are_published(action: str, kind: str, tmp_path: Path) -> None:
    async with drafts(kind, tmp_path) as (ws, rows):
        assert (await ws.call(action, "drafts/"))["status"] == 200
        events = [(await ws.event())["event"]]
        while events[-1] != "deleted":
            events.append((await ws.event())["event"])
        merged = action == "by_a_thread"  # the changes of one object in the action's unit are one event
        assert events == ["created", "deleted"] if merged else ["created", "updated", "deleted"]
        assert [(row.id, row.text) async for row in rows] == [(2, "b")]
        await ws.nothing()


@pytest.mark.parametrize("action", ["by_a_thread", "apart_as_a_unit"])
async def test_changes_on_another_loop_that_are_rolled_back_are_not_published(action: str, tmp_path: Path) -> None:
    async with drafts("memory", tmp_path) as (ws, rows):
        assert (await ws.call(action, "drafts/", fail=True))["status"] == 500
        assert [row.id async for row in rows] == [1]
        await ws.nothing()


@pytest.mark.parametrize("method", ["subscribe", "unsubscribe", "presence"])
async def test_subscribing_on_another_loop_is_an_error(
    method: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with drafts("memory", tmp_path, SharedDrafts) as (ws, _):
        assert (await ws.call("on_its_own_loop", "drafts/", method=method))["status"] == 500
        assert "expected a call on the event loop that serves this connection" in caplog.text
        assert (await ws.call("apart", "drafts/"))["status"] == 200
        await ws.event("created")


async def test_errors_are_raised_in_the_calling_loop() -> None:
    app = served()
    async with connect(app, "/ws/"):
        with pytest.raises(ValueError, match="None of the 1 patterns"):
            await on_another_loop(lambda: app.publish("nowhere/", "told"))
        with pytest.raises(ValueError, match="None"):
            await on_another_loop(lambda: app.push_user(None, "told"))


async def test_two_loops_that_serve_both_get_the_event() -> None:
    """A loop that has ended is not waited for."""
    app, serving, received = served(), threading.Event(), asyncio.Event()
    loop, events = asyncio.get_running_loop(), list[Any]()

    async def serve() -> None:
        async with connect(app, "/ws/", user=ada) as ws:
            await position(ws, "cards/")
            serving.set()
            events.append(await ws.event("told"))
            loop.call_soon_threadsafe(received.set)

    thread = asyncio.create_task(asyncio.to_thread(asyncio.run, serve()))
    await asyncio.to_thread(serving.wait, 5)
    async with connect(app, "/ws/", user=ada) as ws:
        await position(ws, "cards/")
        await on_another_loop(lambda: WAYS["publish"](app))
        assert (await ws.event("told"))["data"] == 1
        await asyncio.wait_for(received.wait(), 5)
        await thread
        await on_another_loop(lambda: WAYS["publish"](app))
        assert (await ws.event("told"))["data"] == 1
    assert len(events) == 1


async def test_a_loop_that_does_not_answer_is_an_error() -> None:
    loop, gate = asyncio.get_running_loop(), asyncio.Event()

    async def never() -> None:
        await gate.wait()

    with pytest.raises(LayerUnavailable, match=r"did not answer within 0\.05 s") as caught:
        await on_another_loop(lambda: on_loop(loop, never, 0.05))
    assert caught.value.uncertain

    async def late() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await on_another_loop(lambda: on_loop(loop, late))


async def test_a_loop_that_was_closed_is_an_error() -> None:
    loop = asyncio.new_event_loop()
    loop.close()

    async def work() -> None:
        raise AssertionError

    with pytest.raises(LayerUnavailable, match="has ended"):
        await on_loop(loop, work)


async def test_without_connections_publishing_runs_in_the_calling_loop() -> None:
    app = served()
    await on_another_loop(lambda: WAYS["publish"](app))
    async with connect(app, "/ws/") as ws:
        assert (await position(ws, "cards/"))["offset"] == 0
        await app.publish("cards/", "told", 1)
        assert (await ws.event("told"))["data"] == 1


@pytest.mark.parametrize("way", ["publish", "publish_object", "push_user"])
async def test_a_unit_on_another_loop_publishes_after_its_commit(way: str) -> None:
    app = served()

    async def job(fail: bool) -> None:
        async with unit_of_work():
            await WAYS[way](app)
            if fail:
                raise ZeroDivisionError
            log.append("committed")

    log: list[str] = []
    async with connect(app, "/ws/", user=ada) as ws:
        await position(ws, "cards/")
        with pytest.raises(ZeroDivisionError):
            await on_another_loop(lambda: job(fail=True))
        assert (await ws.call("$ping"))["status"] == 200
        await on_another_loop(lambda: job(fail=False))
        event = await ws.event()
        assert (event["event"], log) == ("updated" if way == "publish_object" else "told", ["committed"])
        assert (await ws.call("list", "cards/"))["status"] == 200
        await ws.nothing()


async def test_an_unknown_commit_on_another_loop_is_a_resync() -> None:
    app = served()

    class UnknownCommit:
        instant = True

        async def prepare(self) -> None: ...

        async def commit(self) -> bool:
            raise OutcomeUnknown

        async def rollback(self) -> None: ...

    async def job() -> None:
        async with unit_of_work() as unit:
            unit.resource(1, UnknownCommit)
            await app.publish("cards/", "told", 1)

    async with connect(app, "/ws/") as ws:
        await position(ws, "cards/")
        with pytest.raises(OutcomeUnknown):
            await on_another_loop(job)
        await ws.event("$resync")


# ------------------------------------------------------------------------------------------------ other processes
async def forked(work: Callable[[], Coroutine[Any, Any, None]], *refused: type[Exception]) -> None:
    """Runs ``work`` on a new event loop in a forked process; expects one of the errors ``refused``, if any."""

    def child() -> None:
        with pytest.raises(refused) if refused else contextlib.nullcontext():
            asyncio.run(work())

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    await asyncio.to_thread(process.join, 5)
    assert process.exitcode == 0


@needs_redis_server
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_forked_process_publishes_by_itself(tmp_path: Path) -> None:
    """As in a `ProcessPoolExecutor`: the inherited event loop claims to be running."""
    async with layer("redis", tmp_path) as shared:
        app = served(layer=shared)
        async with app.lifespan(), connect(app, "/ws/") as ws:
            await position(ws, "cards/")
            await forked(lambda: app.publish("cards/", "told", 1))
            assert (await ws.event("told"))["data"] == 1
            await app.publish("cards/", "told", 2)
            assert (await ws.event("told"))["data"] == 2


@needs_redis_server
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_process_forked_in_an_action_does_not_await_its_commit(tmp_path: Path) -> None:
    async with layer("redis", tmp_path) as shared:
        app = served(layer=shared)
        async with app.lifespan(), connect(app, "/ws/") as ws:
            await position(ws, "cards/")
            assert (await ws.call("in_a_child", "cards/"))["status"] == 200
            assert (await ws.event("told"))["data"] == 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_connection_of_the_parent_process_cannot_publish() -> None:
    loop, app = asyncio.get_running_loop(), served()
    async with connect(app, "/ws/"):
        await forked(lambda: on_loop(loop, lambda: WAYS["publish"](app)), LayerUnavailable)


async def test_publishing_without_a_layer_or_connections_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    app = served()
    for _ in range(2):
        await app.publish("cards/", "told", 1)
    logged = [one.getMessage().partition(",")[0] for one in caplog.records]
    assert logged == [f"process {os.getpid()} serves no connections"]
    caplog.clear()
    app = served()
    async with app.lifespan():
        await app.publish("cards/", "told", 1)
    app = served()
    async with connect(app, "/ws/"):
        await app.publish("cards/", "told", 1)
    assert not caplog.records
