"""Frames of one connection that subscribe to the same route while others of its frames do, fail or are ended."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from tests.support.random_frames import play, receive_all
from tests.support.schedules import SCHEDULES
from tests.support.virtual_time import anyio_backend  # noqa: F401  # the fixture
from wsaction.applications import WSAction
from wsaction.authentication import BaseAuthentication, Credential
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import PermissionDenied
from wsaction.generics import ModelAPIActionHandler
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.permissions import AllowAny, BasePermission
from wsaction.presence import PresenceMixin
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import WebSocketSession, connect

BOARD, ROOM, SAME_ROOM = "board/", "room/", "same-room/"
LOST = {"reason": "permission_denied"}


class Board(SubscribeMixin, AsyncAPIActionHandler):
    @async_action
    async def list(self) -> str:
        return "rows"


class Room(PresenceMixin, Board):
    """Both of its routes have one topic."""

    def get_topic(self) -> str:
        return "room"


class Members(set[str]):
    """A permission for those whose ids are in this set. Each refusal waits for one of `refusals`."""

    def __init__(self, *ids: str) -> None:
        super().__init__(ids)
        self.refusals = asyncio.Semaphore(100)

    @property
    def permission(self) -> type[BasePermission]:
        members = self

        class IsMember(BasePermission):
            async def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
                if scope["user"].pk in members:
                    return True
                await members.refusals.acquire()
                return False

        return IsMember


def user(pk: str) -> Any:
    return SimpleNamespace(is_authenticated=True, pk=pk)


@asynccontextmanager
async def running(handler: Any, *routes: str, **options: Any) -> AsyncIterator[WSAction]:
    """Runs an app that serves a handler at these routes, by default at `BOARD`."""

    class Root(AsyncAPIConsumer):
        routepatterns = [path(route, handler.as_aaah()) for route in routes or (BOARD,)]

    app = WSAction([path("ws/", Root.as_asgi())], **options)
    async with app.lifespan():
        yield app


def connected(app: WSAction, **options: Any) -> AbstractAsyncContextManager[WebSocketSession]:
    return connect(app, "/ws/", **options)


async def begin(ws: WebSocketSession, action: str, route: str = BOARD, **keys: Any) -> None:
    """Sends a frame, whose id is by default its action, and returns once it waits for something."""
    await ws.send_json({"action": action, "route": route, "request_id": action} | keys)
    await ws.call("$ping")


async def status(ws: WebSocketSession, action: str, route: str = BOARD, **keys: Any) -> int:
    result: int = (await ws.call(action, route, **keys))["status"]
    return result


async def rest(ws: WebSocketSession) -> list[tuple[Any, Any]]:
    """Receives all that arrives: the name and data of events, the id and status of replies."""
    ws.timeout, before = 0.05, ws.timeout
    frames = await receive_all(ws)
    ws.timeout = before
    return [(f["event"], f["data"]) if "event" in f else (f["request_id"], f["status"]) for f in frames]


async def expect_one_subscription(app: WSAction, ws: WebSocketSession, route: str = BOARD) -> None:
    """Checks that the route's events arrive once, that it answers, and that one `unsubscribe` ends it."""
    await app.publish(route, "told", "still there")
    assert await rest(ws) == [("told", "still there")]
    assert await status(ws, "subscribe", route) == 200
    assert await status(ws, "unsubscribe", route) == 204
    await app.publish(route, "told", "after the end")
    assert await rest(ws) == []


# ------------------------------------------------------------------------------------------------- actions that fail
@pytest.mark.parametrize(("first", "second"), [(False, True), (True, False), (True, True)])
async def test_an_action_that_subscribes_twice_and_fails_changes_nothing(first: bool, second: bool) -> None:
    class Twice(Board):
        @async_action
        async def enter(self) -> None:
            await self.subscribe(snapshot=first)
            await self.subscribe(snapshot=second)
            raise PermissionDenied

    async with running(Twice) as app, connected(app) as ws:
        assert await status(ws, "enter") == 403
        await app.publish(BOARD, "told", "before")
        assert await status(ws, "subscribe") == 200
        assert await status(ws, "enter") == 403
        await expect_one_subscription(app, ws)


@pytest.mark.parametrize(
    "actions", [*permutations(("watch", "enter", "subscribe"), 2), ("watch", "subscribe", "enter")]
)
@pytest.mark.parametrize("order", [*permutations(("watch", "enter", "list"))])
async def test_frames_that_all_fail_get_a_reply_each(actions: tuple[str, ...], order: tuple[str, ...]) -> None:
    gates = {name: asyncio.Event() for name in order}
    fails = True

    class Failing(Board):
        async def fail(self, name: str) -> None:
            await gates[name].wait()
            if fails:
                raise PermissionDenied

        @async_action
        async def list(self) -> str:
            await self.fail("list")
            return "rows"

        @async_action(ordered=False)
        async def enter(self) -> None:
            await self.subscribe()
            await self.fail("enter")

        @async_action
        async def watch(self) -> AsyncIterator[int]:
            await self.subscribe()
            await self.fail("watch")
            yield 1

    async with running(Failing) as app, connected(app) as ws:
        for action in actions:
            await begin(ws, action, **({"snapshot": True} if action == "subscribe" else {}))
        for name in order:
            gates[name].set()
            await ws.call("$ping")
        assert sorted(await rest(ws)) == [(action, 403) for action in sorted(actions)]
        fails = False
        assert await status(ws, "subscribe") == 200
        await expect_one_subscription(app, ws)


async def test_a_slow_subscribe_and_an_action_are_both_answered() -> None:
    snapshot, reply = asyncio.Event(), asyncio.Event()

    class Slow(Board):
        @async_action
        async def list(self) -> str:
            await snapshot.wait()
            return "rows"

        @async_action
        async def subscribe(self, snapshot: bool = False) -> Any:
            data = await super().subscribe(snapshot=snapshot)
            await reply.wait()
            return data

        @async_action(ordered=False)
        async def enter(self) -> Any:
            return await super().subscribe(snapshot=True)

    async with running(Slow) as app, connected(app) as ws:
        await begin(ws, "subscribe")
        await begin(ws, "enter")
        reply.set()
        await ws.call("$ping")
        snapshot.set()
        assert await rest(ws) == [("subscribe", 200), ("enter", 200)]
        await expect_one_subscription(app, ws)


@pytest.mark.parametrize("order", [*permutations(("succeed", "fail"))])
@pytest.mark.parametrize("first", ["succeed", "fail"])
async def test_a_failing_action_keeps_the_subscription_of_another(first: str, order: tuple[str, str]) -> None:
    gates = {name: asyncio.Event() for name in order}

    class Two(Board):
        @async_action(ordered=False)
        async def succeed(self) -> None:
            await self.subscribe()
            await gates["succeed"].wait()

        @async_action(ordered=False)
        async def fail(self) -> None:
            await self.subscribe(snapshot=True)
            await gates["fail"].wait()
            raise PermissionDenied

    async with running(Two) as app, connected(app) as ws:
        for action in sorted(order, key=lambda name: name != first):
            await begin(ws, action)
        for name in order:
            gates[name].set()
            await ws.call("$ping")
        assert sorted(await rest(ws)) == [("fail", 403), ("succeed", 200)]
        await expect_one_subscription(app, ws)


# ------------------------------------------------------------------------------------------------- revoked, cancelled
async def test_a_revoked_subscription_stays_so_if_an_action_fails() -> None:
    members, gate = Members("ada"), asyncio.Event()

    class Guarded(Board):
        permission_classes = (members.permission,)

        @async_action(permission_classes=[AllowAny])
        async def list(self) -> str:
            await gate.wait()
            raise PermissionDenied

        @async_action(permission_classes=[AllowAny])
        async def preview(self) -> Any:
            return await self.subscribe(snapshot=True)

    async with running(Guarded) as app, connected(app, user=user("ada")) as ws:
        assert await status(ws, "subscribe") == 200
        await begin(ws, "preview")
        members.clear()
        await app.revoke_user("ada")
        assert await rest(ws) == [("$unsubscribed", LOST)]
        gate.set()
        assert await rest(ws) == [("preview", 403)]
        await app.publish(BOARD, "told", "secret")
        assert await rest(ws) == []
        assert await status(ws, "subscribe") == 403


@pytest.mark.parametrize(("how", "reason"), [("revoke", "permission_denied"), ("unsubscribe", "cancelled")])
async def test_an_action_is_told_that_its_subscription_was_ended_before_its_reply(how: str, reason: str) -> None:
    members, gate = Members("ada"), asyncio.Event()

    class Guarded(Board):
        permission_classes = (members.permission,)

        @async_action(ordered=False)
        async def enter(self) -> None:
            await self.subscribe()
            await gate.wait()

    async with running(Guarded) as app, connected(app, user=user("ada")) as ws:
        await begin(ws, "enter")
        if how == "revoke":
            members.clear()
            await app.revoke_user("ada")
            assert await rest(ws) == []
        else:
            assert await status(ws, "unsubscribe") == 204
        gate.set()
        assert await rest(ws) == [("enter", 200), ("$unsubscribed", {"reason": reason})]
        await app.publish(BOARD, "told", 1)
        assert await rest(ws) == []


async def test_a_subscription_that_ends_while_its_frame_commits_has_one_reply() -> None:
    members, gate = Members("ada"), asyncio.Event()

    class Committing(Board):
        permission_classes = (members.permission,)

        @async_action
        async def subscribe(self) -> Any:
            async with self.unit_of_work() as unit:
                data = await super().subscribe()
                unit.on_commit(gate.wait)
            return data

    async with running(Committing) as app, connected(app, user=user("ada")) as ws:
        await begin(ws, "subscribe")
        members.clear()
        await app.revoke_user("ada")
        gate.set()
        assert await rest(ws) == [("subscribe", 403)]


async def test_an_exception_handler_that_subscribes_has_no_effect() -> None:
    async def subscribe(handler: Any, exc: Exception) -> Any:
        await handler.subscribe()
        raise PermissionDenied

    class Failing(Board):
        @async_action
        async def fail(self) -> None:
            raise ZeroDivisionError

    handlers: Any = {ZeroDivisionError: subscribe}
    async with running(Failing, exception_handlers=handlers) as app, connected(app) as ws:
        assert await status(ws, "fail") == 403
        await app.publish(BOARD, "told", 1)
        assert await rest(ws) == []
        assert await status(ws, "subscribe") == 200


async def test_a_stream_that_subscribes_after_its_first_item_gets_events_at_once() -> None:
    class Late(Board):
        @async_action
        async def watch(self) -> AsyncIterator[int]:
            yield 1
            await self.subscribe()
            await asyncio.Event().wait()
            yield 2

    async with running(Late) as app, connected(app) as ws:
        await begin(ws, "watch")
        await rest(ws)
        await app.publish(BOARD, "told", 1)
        assert await rest(ws) == [("told", 1)]


async def test_the_last_frames_over_the_limit_are_refused() -> None:
    routes = [f"boards/{number}/" for number in range(4)]
    async with running(Board, *routes, limits=Limits(max_subscriptions=3)) as app, connected(app) as ws:
        calls = [asyncio.create_task(ws.call("subscribe", route)) for route in routes]
        assert [(await call)["status"] for call in calls] == [200, 200, 200, 503]


async def test_an_action_may_subscribe_and_unsubscribe() -> None:
    class Peeking(Board):
        @async_action
        async def peek(self) -> Any:
            data = await self.subscribe()
            await self.unsubscribe()
            return data

    async with running(Peeking) as app, connected(app) as ws:
        assert await status(ws, "peek") == 200
        await app.publish(BOARD, "told", 1)
        assert await rest(ws) == []


@pytest.mark.parametrize("waits_in", ["check", "snapshot"])
@pytest.mark.parametrize("cancels", [False, True])
async def test_a_revoked_subscription_stays_so_while_it_is_repeated(waits_in: str, cancels: bool) -> None:
    members, gate = Members("ada"), asyncio.Event()

    class Guarded(Board):
        permission_classes = (members.permission,)

        async def check_subscription(self) -> None:
            if waits_in == "check" and self.frame.request_id == "again":
                await gate.wait()

        @async_action
        async def list(self) -> str:
            await gate.wait()
            return "rows"

    async with running(Guarded) as app, connected(app, user=user("ada")) as ws:
        assert await status(ws, "subscribe") == 200
        await begin(ws, "subscribe", request_id="again", snapshot=waits_in == "snapshot")
        members.clear()
        members.refusals = asyncio.Semaphore(0)
        await app.revoke_user("ada")
        await app.publish(BOARD, "told", "secret")
        if cancels:
            assert await status(ws, "$cancel", "", data="again") == 200
            assert await rest(ws) == [("again", 499)]
        for _ in range(10):
            members.refusals.release()
        assert await rest(ws) == [("$unsubscribed", LOST)]
        gate.set()
        assert await rest(ws) == ([] if cancels else [("again", 403)])
        await app.publish(BOARD, "told", "secret")
        assert await rest(ws) == []


@pytest.mark.parametrize("cancels", [False, True])
async def test_a_revoked_subscription_stays_so_while_two_are_rechecked(cancels: bool) -> None:
    members, gate = Members("ada"), asyncio.Event()

    class Guarded(Board):
        permission_classes = (members.permission,)

        async def check_subscription(self) -> None:
            if self.frame.request_id == "again":
                await gate.wait()

    async with running(Guarded) as app, connected(app, user=user("ada")) as ws:
        assert await status(ws, "subscribe") == 200
        await begin(ws, "subscribe", request_id="again")
        members.clear()
        members.refusals = asyncio.Semaphore(0)
        await app.revoke_user("ada")
        await ws.call("$ping")  # the permission of the first is being checked
        gate.set()
        await ws.call("$ping")  # now that of the second, too
        members.refusals.release()
        assert await rest(ws) == [("$unsubscribed", LOST)]
        if cancels:
            assert await status(ws, "$cancel", "", data="again") == 200
        else:
            members.refusals.release()
        assert await rest(ws) == [("again", 499 if cancels else 403)]
        await app.publish(BOARD, "told", "secret")
        assert await rest(ws) == []


# ------------------------------------------------------------------------------------------------- filters
class Filtered(Board):
    """Whoever watches all sees secrets too."""

    def get_event_filter(self, grant: Any) -> Any:
        shows_all = self.action == "watch_all"

        async def let_through(event: Any) -> str | None:
            shows = shows_all or event.message["data"] != "secret"
            return event.frame if shows else None

        return let_through

    @async_action
    async def watch_all(self, snapshot: bool = False, fails: bool = False) -> None:
        await self.subscribe(snapshot=snapshot)
        if fails:
            raise PermissionDenied


async def publish_both(app: WSAction) -> None:
    for data in ("secret", "public"):
        await app.publish(BOARD, "told", data)


@pytest.mark.parametrize("snapshot", [False, True])
async def test_an_action_replaces_the_filter_only_if_it_succeeds(snapshot: bool) -> None:
    async with running(Filtered) as app, connected(app) as ws:
        assert await status(ws, "subscribe") == 200
        assert await status(ws, "watch_all", snapshot=snapshot, fails=True) == 403
        await publish_both(app)
        assert await rest(ws) == [("told", "public")]
        assert await status(ws, "watch_all", snapshot=snapshot) == 200
        await publish_both(app)
        assert await rest(ws) == [("told", "secret"), ("told", "public")]
        assert await status(ws, "subscribe", snapshot=snapshot) == 200
        await publish_both(app)
        assert await rest(ws) == [("told", "public")]


async def test_a_reply_behind_a_slow_filter_precedes_a_later_snapshot() -> None:
    gate = asyncio.Event()

    class SlowFilter(Board):
        def get_event_filter(self, grant: Any) -> Any:
            async def let_through(event: Any) -> str:
                await gate.wait()
                frame: str = event.frame
                return frame

            return let_through

    async with running(SlowFilter) as app, connected(app) as ws:
        assert await status(ws, "subscribe") == 200
        await app.publish(BOARD, "told", 1)
        await begin(ws, "subscribe", request_id="plain")
        await begin(ws, "subscribe", request_id="with a snapshot", snapshot=True)
        assert await rest(ws) == []
        gate.set()
        assert await rest(ws) == [("told", 1), ("plain", 200), ("with a snapshot", 200)]
        await expect_one_subscription(app, ws)


# ------------------------------------------------------------------------------------------------- presence
async def present(witness: WebSocketSession, route: str = ROOM) -> dict[str, int]:
    counts: dict[str, int] = (await witness.call("presence", route))["data"]
    return counts


async def test_two_routes_of_a_topic_count_a_connection_once() -> None:
    gate = asyncio.Event()

    class SlowRoom(Room):
        @async_action
        async def list(self) -> str:
            await gate.wait()
            return "rows"

    async with running(SlowRoom, ROOM, SAME_ROOM) as app, connected(app, user=user("bob")) as bob:
        async with connected(app, user=user("ada")) as ada:
            assert await status(ada, "subscribe", ROOM) == 200
            await begin(ada, "subscribe", ROOM, snapshot=True, request_id="again")
            assert await status(ada, "subscribe", SAME_ROOM) == 200
            assert await present(bob) == {"ada": 1}
            gate.set()
            assert ("again", 200) in await rest(ada)
            assert await present(bob) == {"ada": 1}
            for route in (SAME_ROOM, ROOM):
                assert await status(ada, "subscribe", route) == 200
                assert await status(ada, "subscribe", route, snapshot=True) == 200
            assert await present(bob) == await present(bob, SAME_ROOM) == {"ada": 1}
            assert await status(ada, "unsubscribe", ROOM) == 204
            assert await present(bob) == {"ada": 1}
            assert await status(ada, "unsubscribe", SAME_ROOM) == 204
            assert await present(bob) == {}
            assert await status(ada, "subscribe", SAME_ROOM, snapshot=True) == 200
            assert await present(bob) == {"ada": 1}
            gate.clear()
            await begin(ada, "subscribe", SAME_ROOM, snapshot=True)
        await rest(bob)
        assert await present(bob) == {}


async def test_subscribing_in_two_frames_after_a_recheck_counts_once() -> None:
    gate = asyncio.Event()

    class SlowRoom(Room):
        @async_action(ordered=False)
        async def enter(self) -> None:
            await self.subscribe(snapshot=True)

        async def check_subscription(self) -> None:
            if self.frame.request_id == "slow":
                await gate.wait()

    async with running(SlowRoom, ROOM) as app, connected(app, user=user("bob")) as bob:
        async with connected(app, user=user("ada")) as ada:
            assert await status(ada, "subscribe", ROOM) == 200
            await app.revoke_user("ada")
            await begin(ada, "subscribe", ROOM, request_id="slow")
            await begin(ada, "enter", ROOM)
            gate.set()
            assert [pair for pair in await rest(ada) if pair[0] != "join"] == [("slow", 200), ("enter", 200)]
            assert await present(bob) == {"ada": 1}
        assert await present(bob) == {}


@pytest.mark.parametrize("fails", [False, True])
async def test_signing_in_during_a_repeated_subscribe_names_the_user(fails: bool) -> None:
    gate = asyncio.Event()

    class ByName(BaseAuthentication):
        async def authenticate_data(self, data: Any) -> Credential:
            return Credential(user(data))

    class SlowRoom(Room):
        @async_action
        async def list(self) -> str:
            await gate.wait()
            if fails:
                raise PermissionDenied
            return "rows"

    async with running(SlowRoom, ROOM, authentication_classes=[ByName]) as app, connected(app) as bob:
        async with connected(app) as ada:
            assert await status(ada, "subscribe", ROOM) == 200
            ((anonymous, count),) = (await present(bob)).items()
            assert (anonymous.partition(":")[0], count) == ("anonymous", 1)
            await begin(ada, "subscribe", ROOM, snapshot=True)
            assert await status(ada, "$auth", "", data="ada") == 200
            gate.set()
            assert ("subscribe", 403 if fails else 200) in await rest(ada)
            assert await present(bob) == {"ada": 1}
        assert await present(bob) == {}


@pytest.mark.parametrize("returns", [False, True])
async def test_unsubscribing_during_a_repeated_subscribe_ends_presence(returns: bool) -> None:
    gate = asyncio.Event()

    class SlowRoom(Room):
        @async_action
        async def list(self) -> str:
            await gate.wait()
            return "rows"

        @async_action(ordered=False)
        async def enter(self) -> None:
            await self.subscribe()

        @async_action(ordered=False)
        async def leave(self) -> None:
            await self.unsubscribe()

    async with running(SlowRoom, ROOM) as app, connected(app, user=user("bob")) as bob:
        async with connected(app, user=user("ada")) as ada:
            assert await status(ada, "subscribe", ROOM) == 200
            await begin(ada, "subscribe", ROOM, snapshot=True)
            assert await status(ada, "leave", ROOM) == 200
            await asyncio.sleep(0.01)
            assert await present(bob) == {}
            if returns:
                await begin(ada, "enter", ROOM)
            gate.set()
            assert ("subscribe", 499) in await rest(ada)
            assert await present(bob) == ({"ada": 1} if returns else {})
        assert await present(bob) == {}


# ------------------------------------------------------------------------------------------------- within one action
@pytest.mark.parametrize(("first", "second"), [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("delay", [0.0, 0.004])
async def test_an_action_may_subscribe_in_two_tasks_at_once(first: bool, second: bool, delay: float) -> None:
    class Gathering(Board):
        @async_action
        async def list(self) -> str:
            await asyncio.sleep(0.005)
            return "rows"

        @async_action
        async def enter(self) -> Any:
            async def later() -> Any:
                await asyncio.sleep(delay)
                return await self.subscribe(snapshot=second)

            return await asyncio.gather(self.subscribe(snapshot=first), later())

    async with running(Gathering) as app, connected(app) as ws:
        reply = await ws.call("enter", BOARD)
        assert reply["status"] == 200
        assert ["snapshot" in data for data in reply["data"]] == [first, second]
        await expect_one_subscription(app, ws)


async def test_a_snapshot_that_subscribes_to_its_own_route_fails(caplog: pytest.LogCaptureFixture) -> None:
    class Recursive(Board):
        @async_action
        async def list(self) -> str:
            await self.subscribe()
            return "rows"

    async with running(Recursive) as app, connected(app) as ws:
        assert await status(ws, "subscribe") == 200
        await begin(ws, "subscribe", request_id="again", snapshot=True)
        assert await rest(ws) == [("again", 500)]
        assert f"RuntimeError: expected an action that only reads for the snapshot of {BOARD!r}" in caplog.text
        await expect_one_subscription(app, ws)
        assert await status(ws, "list") == 200
        await expect_one_subscription(app, ws)


# ------------------------------------------------------------------------------------------------- querysets
class Card(BaseModel):
    id: int
    owner: int


class Cards(SubscribeMixin, ModelAPIActionHandler):
    serializer_class = input_serializer_class = Card


async def test_get_queryset_may_set_the_queryset_of_its_handler() -> None:
    class OwnCards(Cards):
        queryset = MemoryQuerySet(Card, rows=[Card(id=1, owner=1), Card(id=2, owner=2)])

        def get_queryset(self) -> Any:
            self.queryset = self.queryset.filter(owner=1)
            return self.queryset

    async with running(OwnCards, "cards/", "cards/<int:pk>/") as app, connected(app) as ws:
        for route, expected in (("cards/", 200), ("cards/1/", 200), ("cards/2/", 404)):
            assert await status(ws, "subscribe", route) == expected
        assert await status(ws, "partial_update", "cards/1/", data={"owner": 1}) == 200
        assert await rest(ws) == [("updated", {"id": 1, "owner": 1})]


async def test_a_consumer_may_narrow_its_queryset_after_a_subscribe() -> None:
    class OwnCards(Cards, AsyncAPIConsumer):
        queryset = MemoryQuerySet(Card)

        @async_action
        async def only_mine(self) -> None:
            self.queryset = self.queryset.filter(owner=2)

    app = WSAction([path("ws/", OwnCards.as_asgi())])
    async with app.lifespan(), connected(app) as writer, connected(app) as ws:
        assert await status(ws, "subscribe", "") == 200
        assert await status(ws, "only_mine", "") == 200
        for pk, owner in ((1, 1), (2, 2)):
            assert await status(writer, "create", "", data={"id": pk, "owner": owner}) == 201
        assert await rest(ws) == [("created", {"id": 2, "owner": 2})]
        assert (await ws.call("list"))["data"]["results"] == [{"id": 2, "owner": 2}]


# ------------------------------------------------------------------------------------------------- random frames
def check_rounds(seeds: range, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "wsaction")
    for seed in seeds:
        assert (seed, play(seed)) == (seed, [])


def test_random_frames_leave_client_and_server_in_agreement(caplog: pytest.LogCaptureFixture) -> None:
    check_rounds(range(40), caplog)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(SCHEDULES // 250))
def test_thousands_of_rounds_of_random_frames(block: int, caplog: pytest.LogCaptureFixture) -> None:
    check_rounds(range(1_000 + 250 * block, 1_000 + 250 * (block + 1)), caplog)
