"""`wsaction._events.users`: disconnecting, revoking and pushing to users, in this process and all others."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.hubs import RecordingSubscriber, join, opened
from tests.support.live_boards import Board, FailingLayer, Row, position
from tests.support.redis_servers import RedisServer, needs_redis_server, redis_server
from tests.support.virtual_time import in_virtual_time
from wsaction._events import users
from wsaction._events.users import CONTROL, PUSHES
from wsaction._pubsub.hub import Hub
from wsaction.applications import WSAction
from wsaction.authentication import BaseAuthentication, BearerAuthentication, Credential, FirstFrameAuthentication
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import Cancelled, ImproperlyConfigured, LayerUnavailable, PermissionDenied
from wsaction.layers.memory import MemoryLayer
from wsaction.layers.redis import RedisLayer
from wsaction.permissions import BasePermission, IsAuthenticated
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path
from wsaction.testing import ConnectionClosed, HandshakeRefused, connect

ALLOWED: set[str] = set()


class Allowed(BasePermission):
    def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
        if (user := handler.user) is not None and user.pk == "odd" and action == "subscribe" and "odd" not in ALLOWED:
            raise ZeroDivisionError("its permissions cannot be asked")
        return action != "subscribe" or handler.user.pk in ALLOWED


class Guarded(Board):
    permission_classes = (Allowed,)


class Root(AsyncAPIConsumer):
    routepatterns = [path("guarded/", Guarded.as_aaah()), path("open/", Board.as_aaah())]


@pytest.fixture(autouse=True)
def allowed() -> Iterator[None]:
    ALLOWED.update({"ada", "bob", "odd", "7"})
    yield
    ALLOWED.clear()


def user(pk: Any) -> Any:
    return SimpleNamespace(is_authenticated=True, pk=pk)


@asynccontextmanager
async def started(**options: Any) -> AsyncIterator[WSAction]:
    app = WSAction([path("ws/", Root.as_asgi())], **options)
    async with app.lifespan():
        yield app


async def test_disconnect_user_closes_the_connections_of_one_user() -> None:
    async with started() as app:
        async with (
            connect(app, "/ws/", user=user("ada")) as one,
            connect(app, "/ws/", user=user("ada")) as two,
            connect(app, "/ws/", user=user("bob")) as other,
            connect(app, "/ws/") as anonymous,
            connect(app, "/ws/", user=SimpleNamespace(is_authenticated=True)) as without_id,
        ):
            await app.disconnect_user("ada", "bye")
            assert await one.wait_closed() == await two.wait_closed() == (4403, "bye")
            for ws in (other, anonymous, without_id):
                assert (await ws.call("$ping"))["status"] == 200
        for key in ("ada", "bob"):
            assert not app.runtime.loop_state.users.sessions(key)
        await app.disconnect_user("ada")
        with pytest.raises(ValueError, match="expected a user's id, got None"):
            await app.disconnect_user(None)


class SlowAuthentication(BaseAuthentication):
    """Looks the user up, and answers when the test allows it."""

    def __init__(self) -> None:
        self.looked_up, self.answers = asyncio.Event(), asyncio.Event()

    async def authenticate(self, scope: Any) -> Credential | None:
        return None if scope["query_string"] else await self.authenticate_data("ada")

    async def authenticate_data(self, data: Any) -> Credential | None:
        self.looked_up.set()
        await self.answers.wait()
        return Credential(user(data))


@pytest.mark.parametrize("url", ["/ws/", "/ws/?later"])
@pytest.mark.parametrize("name", ["ada", "bob"])
async def test_a_user_disconnected_during_authentication_is_refused(name: str, url: str) -> None:
    slow = SlowAuthentication()
    async with started(authentication_classes=[slow]) as app:

        async def arrive() -> int:
            async with connect(app, url) as ws:
                if url == "/ws/":
                    return int((await ws.call("$ping"))["status"])
                await ws.send_json({"action": "$auth", "data": "ada", "request_id": 1})
                if name == "ada":
                    return (await ws.wait_closed())[0]
                return int((await ws.receive_json())["status"])

        arriving = asyncio.create_task(arrive())
        await slow.looked_up.wait()
        await app.disconnect_user(name)
        slow.answers.set()
        if (name, url) == ("ada", "/ws/"):
            with pytest.raises(HandshakeRefused, match="HTTP 403"):
                await arriving
        else:
            assert await arriving == (4403 if name == "ada" else 200)
        assert not app.runtime.loop_state.users._authenticating


@pytest.mark.parametrize("while_looked_up", [True, False])
async def test_a_second_auth_does_not_prevent_a_disconnect(while_looked_up: bool) -> None:
    slow = SlowAuthentication()
    async with started(authentication_classes=[slow]) as app, connect(app, "/ws/?later") as ws:
        for request_id in (1, 2):
            await ws.send_json({"action": "$auth", "data": "ada", "request_id": request_id})
        assert (await ws.receive_json())["errors"][0]["type"] == "busy"
        if while_looked_up:
            await app.disconnect_user("ada")
        slow.answers.set()
        if not while_looked_up:
            assert (await ws.receive_json())["status"] == 200
            await app.disconnect_user("ada")
        assert (await ws.wait_closed())[0] == 4403


class MayConnect(BasePermission):
    async def can_connect(self, scope: Any, handler: Any) -> bool:
        may = scope["user"].pk in ALLOWED
        if scope["user"].pk == "odd":  # they lose the right while it is checked
            ALLOWED.discard("odd")
            await handler.app.revoke_user("odd")
        return may


class Hall(AsyncAPIConsumer):
    permission_classes = (MayConnect,)

    async def connect(self) -> None:
        if self.user.pk == "7":  # they lose the right while they connect
            ALLOWED.discard("7")
            await self.app.revoke_user("7")

    @async_action(mode="broadcast")
    async def cast(self) -> str:
        return "told"


async def test_a_user_who_may_no_longer_connect_gets_no_broadcast() -> None:
    app = WSAction([path("ws/", Hall.as_asgi())])
    async with (
        app.lifespan(),
        connect(app, "/ws/", user=user("ada")) as ada,
        connect(app, "/ws/", user=user("bob")) as bob,
    ):
        await app.revoke_user("ada")
        ALLOWED.discard("bob")
        revoked = asyncio.create_task(app.revoke_user("bob"))
        await ada.send_json({"action": "cast"})
        await revoked
        assert await bob.wait_closed() == (4403, "permission denied")
        with pytest.raises(ConnectionClosed):
            await bob.receive_json()
        assert (await ada.receive_json())["data"] == "told"
        async with connect(app, "/ws/", user=user("7")) as revoked_later:
            assert (await revoked_later.wait_closed())[0] == 4403
        with pytest.raises(HandshakeRefused, match="HTTP 403"):
            async with connect(app, "/ws/", user=user("odd")):
                pass


async def test_push_user_reaches_each_connection_of_the_user() -> None:
    async with (
        started(user_id=lambda one: one.pk) as app,
        connect(app, "/ws/", user=user(7)) as one,
        connect(app, "/ws/", user=user(7)) as two,
        connect(app, "/ws/", user=user("bob")) as other,
    ):
        await app.push_user(7, "news", {"é": 1})
        for ws in (one, two):
            assert await ws.event() == {"event": "news", "route": "", "data": {"é": 1}}
        await other.nothing()
        with pytest.raises(ValueError, match="begin with"):
            await app.push_user(7, "$resync")


async def test_actions_change_users_after_their_commit() -> None:
    rows = MemoryQuerySet(Row, rows=[Row(id=1)])

    class Reads(BasePermission):
        async def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
            return action != "subscribe" or not await rows.filter(text=handler.user.pk).exists()

    class Guard(AsyncAPIConsumer):
        routepatterns = [path("guarded/", Board.as_aaah(permission_classes=(Reads,)))]

        @async_action
        async def forbid(self, name: str, fails: bool = False) -> None:
            await rows.update(await rows.get(pk=1), {"text": name})
            await self.app.revoke_user(name)
            await self.app.push_user(name, "forbidden")
            await self.app.disconnect_user("bob")
            if fails:
                raise PermissionDenied

    app = WSAction([path("ws/", Guard.as_asgi())])
    async with (
        app.lifespan(),
        connect(app, "/ws/", user=user("ada")) as ada,
        connect(app, "/ws/", user=user("bob")) as bob,
    ):
        await position(ada, "guarded/")
        assert (await bob.call("forbid", name="ada", fails=True))["status"] == 403
        await ada.nothing()
        assert (await bob.call("$ping"))["status"] == 200
        await bob.send_json({"action": "forbid", "name": "ada"})
        assert {(await ada.event())["event"] for _ in range(2)} == {"$unsubscribed", "forbidden"}
        assert (await bob.wait_closed())[0] == 4403
        assert (await rows.get(pk=1)).text == "ada"


async def test_revoke_user_ends_subscriptions_without_permission() -> None:
    async with started() as app, connect(app, "/ws/", user=user("ada")) as ws:
        for route in ("guarded/", "open/"):
            await position(ws, route)
        await app.revoke_user("ada")
        await ws.call("$ping")
        ALLOWED.discard("ada")
        await app.revoke_user("bob")
        await app.revoke_user("ada")
        assert await ws.event() == {
            "event": "$unsubscribed",
            "route": "guarded/",
            "data": {"reason": "permission_denied"},
        }
        for route in ("guarded/", "open/"):
            await ws.call("tell", route, route)
        assert (await ws.event())["data"] == "open/"
        assert (await ws.call("subscribe", "guarded/"))["status"] == 403
        ALLOWED.add("ada")
        await position(ws, "guarded/")


async def test_a_permission_that_raises_ends_the_subscription(caplog: pytest.LogCaptureFixture) -> None:
    async with started() as app, connect(app, "/ws/", user=user("odd")) as ws:
        await position(ws, "guarded/")
        ALLOWED.discard("odd")
        await app.revoke_user("odd")
        assert (await ws.event())["event"] == "$unsubscribed"
    assert "the permissions of a subscription to 'guarded/' could not be checked" in caplog.text


async def test_auth_checks_the_subscriptions_again() -> None:
    class Tokens(BearerAuthentication):
        async def verify(self, token: str) -> Credential | None:
            return Credential(user(token))

    class In(Guarded):
        permission_classes = (IsAuthenticated, Allowed)

    class Consumer(AsyncAPIConsumer):
        routepatterns = [path("in/", In.as_aaah())]

    classes = [Tokens, FirstFrameAuthentication]
    app = WSAction([path("ws/", Consumer.as_asgi())], authentication_classes=classes)
    async with app.lifespan(), connect(app, "/ws/") as ws:
        assert not app.runtime.loop_state.users.sessions("ada")
        assert (await ws.call("$auth", data="ada"))["status"] == 200
        assert len(app.runtime.loop_state.users.sessions("ada")) == 1
        await position(ws, "in/")
        ALLOWED.discard("ada")
        await ws.send_json({"action": "$auth", "data": "ada"})
        assert (await ws.receive_json())["event"] == "$unsubscribed"
        assert (await ws.receive_json())["status"] == 200


async def test_an_unavailable_layer_still_disconnects_locally() -> None:
    layer = FailingLayer()
    async with started(layer=layer) as app, connect(app, "/ws/", user=user("ada")) as ws:
        layer.away = True
        with pytest.raises(LayerUnavailable):
            await app.disconnect_user("ada")
        assert (await ws.wait_closed())[0] == 4403


async def test_changes_of_users_after_a_commit_are_retried(caplog: pytest.LogCaptureFixture) -> None:
    class Guard(AsyncAPIConsumer):
        routepatterns = [path("open/", Board.as_aaah())]

        @async_action
        async def ban(self, name: str) -> None:
            await rows.update(await rows.get(pk=1), {"text": name})
            await self.app.disconnect_user(name, "banned")
            await self.app.push_user(name, "news")

    rows, layer, published = MemoryQuerySet(Row, rows=[Row(id=1)]), FailingLayer(), list[str]()
    publish = layer.publish

    async def publish_and_note(topic: str, body: bytes, history: Any) -> Any:
        at = await publish(topic, body, history)
        published.append(json.loads(body.partition(b"\n")[0])["event"])
        return at

    layer.publish = publish_and_note  # type: ignore[method-assign]
    app = WSAction([path("ws/", Guard.as_asgi())], layer=layer)
    async with app.lifespan(), connect(app, "/ws/", user=user("bob")) as bob:
        await until_listening(app)
        layer.away = True
        assert (await bob.call("ban", name="ada"))["status"] == 200
        assert published == []
        assert caplog.text.count("and will be retried") == 2
        layer.away = False
        async with asyncio.timeout(5):
            while published != ["disconnect", "missed"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        layer.away = True
        assert (await bob.call("ban", name="eve"))["status"] == 200
    assert caplog.text.count("the server is stopping") == 2


async def test_pending_changes_of_users_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    layer = FailingLayer()
    async with opened(layer) as hub:
        bounded = users.Users(lambda: hub, str, shared=True, max_unsent=2)
        layer.away = True
        for name in ("a", "b", "b", "c"):
            await bounded.send_command_with_retry("disconnect", name, reason="")
        assert "about user 'c' (disconnect) does not reach other processes: 2 commands wait already" in caplog.text
        await join(hub, recorder := RecordingSubscriber(), CONTROL, history=users.HISTORY)
        layer.away = False
        published = [event["data"]["user"] for event in (await recorder.receive(3))[1:]]
        assert published == ["a", "b"]
        await bounded.stop()


async def test_a_user_with_a_possibly_missed_push_gets_a_resync() -> None:
    async with started(layer=MemoryLayer()) as app:
        await until_listening(app)
        here = app.runtime.loop_state.users
        async with connect(app, "/ws/", user=user("ada")) as ws, connect(app, "/ws/") as anonymous:
            app.runtime.hub.subscribed(PUSHES)  # it was lost until now
            here.put(f'{{"event":"$resync","route":"{PUSHES}","data":{{}}}}')
            assert await ws.event() == {"event": "$resync", "route": "", "data": {"epoch": "", "offset": 0}}
            await here.send_command("missed", "ada")
            assert (await ws.event("$resync"))["route"] == ""
            await anonymous.nothing()
            assert (await ws.call("$ping"))["status"] == 200


async def test_a_loss_of_control_messages_closes_older_connections() -> None:
    async with started(layer=MemoryLayer()) as app:
        await until_listening(app)
        here = app.runtime.loop_state.users
        async with connect(app, "/ws/", user=user("ada")) as before:
            app.runtime.hub.subscribed(CONTROL)
            await clock_tick()
            async with connect(app, "/ws/", user=user("bob")) as after:
                for _ in range(2):  # as when a store evicts repeatedly
                    here.put(f'{{"event":"$resync","route":"{CONTROL}","data":{{}}}}')
                assert (await before.wait_closed())[0] == 1012
                assert (await after.call("$ping"))["status"] == 200


async def until_listening(app: WSAction) -> None:
    """Waits until the app receives the control messages of other processes."""
    await asyncio.wait_for(app.runtime.loop_state.users.is_subscribed.wait(), 5)
    await clock_tick()


async def clock_tick() -> None:
    """Waits until the clock of the loop has advanced; that of uvloop counts milliseconds."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    while loop.time() == now:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def test_a_loss_of_control_messages_checks_all_subscriptions(caplog: pytest.LogCaptureFixture) -> None:
    layer = FailingLayer()
    async with started(layer=layer) as app, connect(app, "/ws/", user=user("ada")) as ws:
        await position(ws, "guarded/")
        await until_listening(app)
        ALLOWED.discard("ada")
        await app.runtime.hub.invalidate(CONTROL, None)
        app.runtime.loop_state.users.put('{"event":"$resync","route":"","data":{}}')
        assert (await ws.event("$unsubscribed"))["route"] == "guarded/"
    assert "may have been missed" in caplog.text


@pytest.mark.parametrize(
    "message",
    [
        '"event":"strange","data":{"user":"ada"}',
        '"event":"disconnect","data":7',
        '"event":"disconnect","data":{"user":["ada"],"reason":""}',
        '"event":"disconnect","data":{"user":"ada","reason":5}',
        '"event":"disconnect","data":{"user":"ada"}',
        '"event":"push","data":{"user":"ada","text":{}}',
        '"event":["push"],"data":{"user":"ada","text":""}',
    ],
)
async def test_foreign_control_messages_are_logged_and_ignored(message: str, caplog: pytest.LogCaptureFixture) -> None:
    async with started(layer=MemoryLayer()) as app, connect(app, "/ws/", user=user("ada")) as ws:
        app.runtime.loop_state.users.put(f"{{{message}}}")
        app.runtime.loop_state.users.put('{"event":"$position","route":"","data":{"epoch":"a","offset":1}}')
        assert (await ws.call("$ping"))["status"] == 200
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "ignoring an unknown command about users" in caplog.text


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as one:
        yield one


@needs_redis_server
async def test_changes_of_users_reach_other_processes(server: RedisServer) -> None:
    async with (
        started(layer=RedisLayer(server.url)) as here,
        started(layer=RedisLayer(server.url)) as there,
        connect(there, "/ws/", user=user("ada")) as ws,
        connect(here, "/ws/", user=user("ada")) as own,
    ):
        await position(ws, "guarded/")
        for app in (here, there):
            await until_listening(app)
        await here.push_user("ada", "news", 1)
        for one in (ws, own):
            assert (await one.event("news"))["data"] == 1
        ALLOWED.discard("ada")
        await here.revoke_user("ada")
        assert (await ws.event("$unsubscribed"))["route"] == "guarded/"
        await here.disconnect_user("ada")
        assert (await ws.wait_closed())[0] == (await own.wait_closed())[0] == 4403


@needs_redis_server
async def test_a_process_listens_before_its_first_connection(server: RedisServer) -> None:
    async with started(layer=RedisLayer(server.url)) as here, started(layer=RedisLayer(server.url)) as there:
        await until_listening(there)
        async with connect(there, "/ws/", user=user("ada")) as ws:
            await here.disconnect_user("ada")
            assert (await ws.wait_closed())[0] == 4403


async def test_an_unavailable_layer_is_subscribed_to_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [LayerUnavailable(), LayerUnavailable()]
    join = Hub.join

    async def joins_later(self: Hub, *args: Any, **options: Any) -> None:
        if failures:
            raise failures.pop()
        await join(self, *args, **options)

    async with started(layer=MemoryLayer()) as app:
        await until_listening(app)
        async with connect(app, "/ws/", user=user("ada")) as ws:
            await position(ws, "guarded/")
            await app.runtime.loop_state.users.stop()
            ALLOWED.discard("ada")  # another process says so, but this one does not listen
            monkeypatch.setattr(Hub, "join", joins_later)
            async with connect(app, "/ws/", user=user("bob")):
                assert (await ws.event("$unsubscribed"))["route"] == "guarded/"
                await until_listening(app)
    assert caplog.text.count("cannot be heard yet") == 2


@in_virtual_time
@pytest.mark.parametrize("waits", [True, False])
async def test_connections_wait_until_the_process_listens(waits: bool) -> None:
    class SlowLayer(MemoryLayer):
        called, proceed = asyncio.Event(), asyncio.Event()

        def subscribe(self, topic: str) -> None:
            self.called.set()
            asyncio.ensure_future(self._later(topic))  # noqa: RUF006  # it ends before the test does

        async def _later(self, topic: str) -> None:
            await self.proceed.wait()
            super().subscribe(topic)

    layer, slow = SlowLayer(), SlowAuthentication()
    slow.answers.set()
    async with started(layer=layer, authentication_classes=[slow]) as app:
        await layer.called.wait()

        async def arrive() -> int:
            async with connect(app, "/ws/") as ws:
                layer.proceed.set()
                return int((await ws.call("$ping"))["status"]) if waits else (await ws.wait_closed())[0]

        arriving = asyncio.create_task(arrive())
        if waits:  # no user is looked up before the process listens
            for _ in range(10):
                await asyncio.sleep(0)
            assert not slow.looked_up.is_set()
            layer.proceed.set()
        assert await arriving == (200 if waits else 1012)  # they may have been disconnected meanwhile


async def test_a_closed_hub_is_not_subscribed_to_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = asyncio.Event()

    async def ended(self: Hub, *args: Any, **options: Any) -> None:
        tried.set()
        raise Cancelled

    monkeypatch.setattr(Hub, "join", ended)
    async with started(layer=MemoryLayer()) as app, connect(app, "/ws/", user=user("ada")) as ws:
        await asyncio.wait_for(tried.wait(), 5)
        assert (await ws.call("$ping"))["status"] == 200
        assert not app.runtime.loop_state.users.is_subscribed.is_set()


async def test_a_layer_that_fails_to_open_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried, join = asyncio.Event(), Hub.join

    async def wrong(self: Hub, *args: Any, **options: Any) -> None:
        tried.set()
        raise ImproperlyConfigured("Redis refuses the password")

    monkeypatch.setattr(Hub, "join", wrong)
    async with started(layer=MemoryLayer()) as app:
        await asyncio.wait_for(tried.wait(), 5)
        monkeypatch.setattr(Hub, "join", join)
        async with connect(app, "/ws/", user=user("ada")):
            await until_listening(app)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "Redis refuses the password" in caplog.text


# -- repeated losses --------------------------------------------------------------------------------------------------
async def test_a_disconnect_between_two_losses_is_not_missed() -> None:
    layer = MemoryLayer()
    async with started(layer=layer) as app:
        await asyncio.wait_for(app.runtime.loop_state.users.is_subscribed.wait(), 5)
        for _ in range(3):
            await layer.invalidate(CONTROL, users.HISTORY)
            await asyncio.wait_for(app.runtime.hub._topics[CONTROL].ready.wait(), 5)
        async with connect(app, "/ws/", user=user("ada")) as ws:
            text = '{"event":"disconnect","route":"","data":{"user":"ada","reason":"bye"}}'
            await layer.publish(CONTROL, text.encode(), users.HISTORY)  # as another process does
            assert await ws.wait_closed() == (4403, "bye")


async def test_a_loss_closes_older_connections_while_it_lasts() -> None:
    layer = MemoryLayer()
    async with started(layer=layer) as app:
        await asyncio.wait_for(app.runtime.loop_state.users.is_subscribed.wait(), 5)
        async with connect(app, "/ws/", user=user("ada")) as ws:
            app.runtime.hub.subscribed(CONTROL)
            app.runtime.hub.lost()
            app.runtime.loop_state.users.put(f'{{"event":"$resync","route":"{CONTROL}","data":{{}}}}')
            assert (await ws.wait_closed())[0] == 1012
