"""`wsaction._events.reauthorization`: permissions that change before, during or after a subscription or connection."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.live_boards import Board, Room, position
from tests.support.virtual_time import anyio_backend  # noqa: F401  # the fixture
from wsaction.applications import WSAction
from wsaction.authentication import Credential, FirstFrameAuthentication
from wsaction.consumers import AsyncAPIConsumer
from wsaction.exceptions import APIError, LayerUnavailable
from wsaction.limits import Limits
from wsaction.permissions import BasePermission
from wsaction.presence import PresenceMixin
from wsaction.routing import path
from wsaction.testing import WebSocketSession, connect
from wsaction.testing.errors import HandshakeRefused

LOST = {"reason": "permission_denied"}


class Rights:
    """The answers of a test's permission, by route, and the events that `check_subscription` waits for."""

    def __init__(self) -> None:
        self.allowed = True
        self.hangs: set[str] = set()
        self.raises: dict[str, BaseException] = {}
        self.checked, self.proceed = asyncio.Event(), asyncio.Event()


class Allowed(BasePermission):
    async def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
        rights: Rights = scope["rights"]
        if (error := rights.raises.get(handler.route)) is not None and action == "subscribe":
            raise error
        if handler.route in rights.hangs and action == "subscribe":
            await asyncio.get_running_loop().create_future()
        return action != "subscribe" or rights.allowed


class Guarded(Board):
    permission_classes = (Allowed,)


class Slow(Guarded):
    """Waits between the permissions and the subscription."""

    async def check_subscription(self) -> None:
        rights: Rights = self.scope["rights"]
        rights.checked.set()
        await rights.proceed.wait()


class Twice(Guarded):
    """Waits when it is checked the second time."""

    times = 0

    async def check_subscription(self) -> None:
        Twice.times += 1
        if Twice.times == 2:
            rights: Rights = self.scope["rights"]
            rights.checked.set()
            await rights.proceed.wait()


class TwiceRoom(PresenceMixin, Twice):
    """The same, with presence."""


class Root(AsyncAPIConsumer):
    routepatterns = [
        path("guarded/<int:pk>/", Guarded.as_aaah()),
        path("slow/", Slow.as_aaah()),
        path("twice/", Twice.as_aaah()),
        path("twice/room/", TwiceRoom.as_aaah()),
    ]


def user(pk: Any, **more: Any) -> Any:
    return SimpleNamespace(is_authenticated=True, pk=pk, **more)


def opened(app: WSAction, rights: Rights) -> Any:
    return connect(app, "/ws/", user=user("ada"), scope={"rights": rights})


def served(**options: Any) -> WSAction:
    return WSAction([path("ws/", Root.as_asgi())], **options)


async def expect_unsubscribed(ws: WebSocketSession, route: str) -> None:
    assert await ws.event() == {"event": "$unsubscribed", "route": route, "data": LOST}


async def test_a_right_lost_between_permission_and_subscription() -> None:
    app, rights = served(), Rights()
    async with app.lifespan(), opened(app, rights) as ws:
        await ws.send_json({"action": "subscribe", "route": "slow/", "request_id": 1})
        await asyncio.wait_for(rights.checked.wait(), 5)
        rights.allowed = False
        await app.revoke_user("ada")
        rights.proceed.set()
        assert (await ws.receive_json())["status"] == 403
        await ws.call("tell", "slow/", 1)
        await ws.nothing()
        rights.allowed = True
        await position(ws, "slow/")


async def test_a_right_lost_while_it_is_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Twice, "times", 0)
    app, rights = served(), Rights()
    async with app.lifespan(), opened(app, rights) as ws:
        await app.revoke_user("ada")  # from now on, subscribing checks twice
        await ws.send_json({"action": "subscribe", "route": "twice/", "request_id": 1})
        await asyncio.wait_for(rights.checked.wait(), 5)
        rights.allowed = False
        await app.revoke_user("ada")
        await ws.nothing()  # it is refused, before there is a subscription to end
        rights.proceed.set()  # the earlier check allows it
        assert (await ws.receive_json())["status"] == 403
        await ws.call("tell", "twice/", 1)
        await ws.nothing()


async def test_cancelling_a_second_subscribe_keeps_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Twice, "times", 0)
    app, rights, room = served(), Rights(), "twice/room/"
    async with app.lifespan(), opened(app, rights) as ws:
        await app.revoke_user("ada")
        rights.proceed.set()
        await position(ws, room)
        await ws.event("join")
        rights.proceed.clear()
        rights.checked.clear()
        Twice.times = 0
        await ws.send_json({"action": "subscribe", "route": room, "request_id": 1})
        await asyncio.wait_for(rights.checked.wait(), 5)
        await ws.call("$cancel", data=1)
        assert (await ws.receive_json())["status"] == 499
        assert (await ws.call("presence", room))["data"] == {"ada": 1}
        await app.publish(room, "told", 1)
        assert (await ws.event("told"))["data"] == 1
        assert (await ws.call("unsubscribe", room))["status"] == 204
        assert (await ws.call("presence", room))["data"] == {}


async def test_events_wait_while_permissions_are_checked_again() -> None:
    app, rights = served(limits=Limits(action_timeout=0.3)), Rights()
    async with app.lifespan(), opened(app, rights) as ws:
        await position(ws, "guarded/1/")
        for allowed in (True, False):
            rights.allowed = allowed
            await app.revoke_user("ada")
            await app.revoke_user("ada")
            await app.publish("guarded/1/", "told", 1)
            if allowed:
                at = (await ws.call("subscribe", "guarded/1/"))["data"]
                assert (at["offset"], (await ws.event("told"))["offset"]) == (1, 1)
        await expect_unsubscribed(ws, "guarded/1/")
        await ws.nothing()


async def test_a_right_lost_during_a_recovery_ends_the_subscription() -> None:
    app, rights = served(), Rights()
    rights.proceed.set()
    async with app.lifespan(), opened(app, rights) as ws:
        at = await position(ws, "slow/")
        rights.checked.clear()
        rights.proceed.clear()
        since = {"epoch": at["epoch"], "offset": 0}
        await ws.send_json({"action": "subscribe", "route": "slow/", "request_id": 1, "since": since})
        await asyncio.wait_for(rights.checked.wait(), 5)
        rights.allowed = False
        rights.proceed.set()
        await app.revoke_user("ada")
        await expect_unsubscribed(ws, "slow/")
        assert (await ws.receive_json())["status"] == 403
        await ws.call("tell", "slow/", 1)
        await ws.nothing()


@pytest.mark.parametrize("error", [None, asyncio.CancelledError(), ZeroDivisionError(), LayerUnavailable()])
async def test_a_failing_permission_does_not_delay_other_checks(error: BaseException | None) -> None:
    app, rights = served(limits=Limits(action_timeout=0.5)), Rights()
    async with app.lifespan(), opened(app, rights) as ws:
        for pk in (1, 2):
            await position(ws, f"guarded/{pk}/")
        rights.allowed = False
        if error is None:
            rights.hangs.add("guarded/1/")
        else:
            rights.raises["guarded/1/"] = error
        await app.revoke_user("ada")
        routes = [(await ws.event("$unsubscribed"))["route"] for _ in range(2)]
        assert sorted(routes) == ["guarded/1/", "guarded/2/"]
        assert error is not None or routes[0] == "guarded/2/"


async def test_unsubscribing_during_a_check_sends_no_notice() -> None:
    app, rights = served(limits=Limits(action_timeout=0.3)), Rights()
    async with app.lifespan(), opened(app, rights) as ws:
        for pk in (1, 2):
            await position(ws, f"guarded/{pk}/")
            rights.hangs.add(f"guarded/{pk}/")
        await app.revoke_user("ada")
        assert (await ws.call("unsubscribe", "guarded/1/"))["status"] == 204
        await expect_unsubscribed(ws, "guarded/2/")
        await ws.nothing()


async def test_disconnecting_during_a_check_leaves_nothing_behind() -> None:
    app, rights = served(), Rights()
    async with app.lifespan():
        async with opened(app, rights) as ws:
            await position(ws, "guarded/1/")
            rights.hangs.add("guarded/1/")
            await app.revoke_user("ada")
            assert (await ws.call("$ping"))["status"] == 200
        assert not app.runtime.loop_state.users.sessions("ada")


async def test_a_custom_error_of_a_permission_denies_access(caplog: pytest.LogCaptureFixture) -> None:
    app, rights = served(), Rights()
    async with app.lifespan(), opened(app, rights) as ws:
        await position(ws, "guarded/1/")
        rights.raises["guarded/1/"] = APIError(402, "payment_required", "Pay first.")
        await app.revoke_user("ada")
        await expect_unsubscribed(ws, "guarded/1/")
    assert not caplog.records


class Team(Board):
    def get_topic(self) -> str:
        return f"team:{getattr(self.user, 'team', None)}"


def teams(verify: Callable[[Any], Credential], **options: Any) -> WSAction:
    class Auth(FirstFrameAuthentication):
        first_frame = False

        async def authenticate_data(self, data: Any) -> Credential | None:
            return verify(data)

    class Teams(AsyncAPIConsumer):
        routepatterns = [
            path("team/", Team.as_aaah()),
            path("rooms/<int:pk>/", Room.as_aaah()),
            path("guarded/<int:pk>/", Guarded.as_aaah()),
        ]

    return WSAction([path("ws/", Teams.as_asgi())], authentication_classes=[Auth], **options)


async def test_a_topic_that_changes_with_auth_is_unsubscribed() -> None:
    app = teams(lambda data: Credential(user("ada", team=data)))
    async with app.lifespan(), connect(app, "/ws/") as ws, connect(app, "/ws/") as red:
        for one in (ws, red):
            assert (await one.call("$auth", data="red"))["status"] == 200
            await position(one, "team/")
        assert (await ws.call("$auth", data="red"))["status"] == 200
        await ws.send_json({"action": "$auth", "data": "blue", "request_id": 1})
        assert (await ws.receive_json())["event"] == "$unsubscribed"
        assert (await ws.receive_json())["status"] == 200
        await red.call("tell", "team/", "of the reds")
        await ws.nothing()
        await position(ws, "team/")


async def test_a_user_who_signs_in_after_subscribing_is_present() -> None:
    app = teams(lambda data: Credential(user(data)))
    async with app.lifespan(), connect(app, "/ws/") as ws:
        await position(ws, "rooms/7/")
        for _ in range(2):
            assert (await ws.call("$auth", data="ada"))["status"] == 200
            assert (await ws.call("presence", "rooms/7/"))["data"] == {"ada": 1}
        assert (await ws.event())["event"] == "join"
        assert (await ws.call("unsubscribe", "rooms/7/"))["status"] == 204
        assert (await ws.call("presence", "rooms/7/"))["data"] == {}


async def test_cancelling_auth_still_removes_lost_subscriptions() -> None:
    app, rights = teams(lambda data: Credential(user(data)), limits=Limits(action_timeout=0.5)), Rights()
    async with app.lifespan(), connect(app, "/ws/", scope={"rights": rights}) as ws:
        await position(ws, "guarded/1/")
        rights.hangs.add("guarded/1/")
        await ws.send_json({"action": "$auth", "data": "ada", "request_id": 1})
        await ws.send_json({"action": "$cancel", "data": 1, "request_id": 2})
        statuses = {(await ws.receive_json())["status"] for _ in range(2)}
        assert statuses == {499, 200}
        await expect_unsubscribed(ws, "guarded/1/")


class Entrance(AsyncAPIConsumer):
    async def connect(self) -> None:
        self.scope["entered"].set()
        await self.scope["go"].wait()

    async def disconnect(self, code: int) -> None:
        self.scope["code"].append(code)


async def test_a_user_disconnected_while_connecting_is_refused() -> None:
    app = WSAction([path("ws/", Entrance.as_asgi())])
    entered, admit, codes = asyncio.Event(), asyncio.Event(), list[int]()
    scope = {"entered": entered, "go": admit, "code": codes}

    async def enter() -> int:
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(app, "/ws/", user=user("ada"), scope=scope):
                raise AssertionError("it was accepted")
        return refused.value.status

    async with app.lifespan():
        entering = asyncio.create_task(enter())
        await asyncio.wait_for(entered.wait(), 5)
        await app.disconnect_user("ada", "banned")
        admit.set()
        assert await asyncio.wait_for(entering, 5) == 403
        assert codes == [4403]
        assert not app.runtime.loop_state.users.sessions("ada")


class Leaver(Board, AsyncAPIConsumer):
    async def disconnect(self, code: int) -> None:
        await self.publish("left", self.user.pk)


async def test_a_disconnect_hook_may_publish() -> None:
    app = WSAction([path("ws/", Leaver.as_asgi())])
    async with app.lifespan(), connect(app, "/ws/", user=user("bob")) as stays:
        await position(stays, "")
        async with connect(app, "/ws/", user=user("ada")) as goes:
            await position(goes, "")
        event = await stays.event()
        assert (event["event"], event["data"]) == ("left", "ada")
