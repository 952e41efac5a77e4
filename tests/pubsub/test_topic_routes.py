"""Topics with several routes: each subscription gets events under its own route and ends by itself."""

from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from tests.support.live_boards import position
from tests.support.virtual_time import anyio_backend  # noqa: F401  # the fixture
from wsaction._events.publish import topic_at
from wsaction._protocol.event_frames import encode_event
from wsaction._pubsub.event import reroute
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.dialects.dcrf import DCRF
from wsaction.generics import ModelAPIActionHandler
from wsaction.layers.base import History
from wsaction.limits import Limits
from wsaction.permissions import BasePermission
from wsaction.presence import PresenceMixin
from wsaction.querysets import MemoryQuerySet
from wsaction.routers import SimpleRouter
from wsaction.routing import path
from wsaction.serializers import ReadOnly
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import WebSocketSession, connect

LIST, ONE = "inbox/", "inbox/1/"


class Mail(BaseModel):
    id: Annotated[int, ReadOnly]
    text: str


class NotSecret(BasePermission):
    async def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any, **captures: Any) -> bool:
        return bool(obj.text != "secret")


def inbox(*bases: Any, dialect: Any = None, limits: Limits | None = None, **attributes: Any) -> WSAction:
    class Inbox(*(bases or (SubscribeMixin,)), ModelAPIActionHandler):  # type: ignore[misc]  # bases by a test
        queryset = MemoryQuerySet(Mail, [Mail(id=1, text="first")])
        serializer_class = Mail

        def get_topic(self) -> str:
            return f"inbox:{getattr(self.user, 'id', 0)}"

        @async_action
        async def tell(self, data: Any = None, but_me: bool = False) -> None:
            await self.publish("told", data, exclude_self=but_me)

        @async_action
        async def lose(self) -> None:
            await self.consumer.app.runtime.hub.invalidate(topic_at(self), History(100, 300))

    for name, value in attributes.items():
        setattr(Inbox, name, value)
    router = SimpleRouter()
    router.register("inbox", Inbox)

    class Root(AsyncAPIConsumer):
        routepatterns = router.urls

    Root.dialect = dialect
    return WSAction([path("ws/", Root.as_asgi())], limits=limits)


async def receive_events(ws: WebSocketSession, count: int) -> list[tuple[Any, ...]]:
    """Receives ``count`` events: name, route and offset of each."""
    events = [await ws.event() for _ in range(count)]
    return [(one["event"], one["route"], one.get("offset")) for one in events]


@pytest.mark.parametrize("permissions", [(), (NotSecret,)])
async def test_each_subscribed_route_of_a_topic_gets_every_event(permissions: Any) -> None:
    app = inbox(permission_classes=permissions)
    async with connect(app, "/ws/") as ws, connect(app, "/ws/") as other:
        await position(ws, LIST)
        await position(ws, ONE)
        await position(other, ONE)
        await other.call("create", LIST, {"text": "hello"})
        await other.call("update", ONE, {"text": "hello again"})
        await other.call("tell", LIST)
        events = [(name, number) for number, name in enumerate(("created", "updated", "told"), 1)]
        both = [(name, route, number) for name, number in events for route in (LIST, ONE)]
        assert sorted(await receive_events(ws, 6)) == sorted(both)
        assert await receive_events(other, 3) == [(name, ONE, number) for name, number in events]
        await other.call("update", ONE, {"text": "secret"})
        name = "deleted" if permissions else "updated"
        assert sorted(await receive_events(ws, 2)) == [(name, LIST, 4), (name, ONE, 4)]
        for one in (ws, other):
            await other.event() if one is other else None
            await one.nothing()


async def test_unsubscribing_from_one_route_keeps_the_other() -> None:
    async with connect(inbox(), "/ws/") as ws:
        await position(ws, LIST)
        await position(ws, ONE)
        await ws.call("unsubscribe", ONE)
        await ws.call("tell", LIST)
        assert await receive_events(ws, 1) == [("told", LIST, 1)]
        await ws.call("unsubscribe", LIST)
        await ws.call("tell", LIST)
        await ws.nothing()


async def test_missed_events_have_the_route_that_asks_for_them() -> None:
    app = inbox()
    async with connect(app, "/ws/") as writer, connect(app, "/ws/") as ws:
        at = await position(writer, "inbox/2/")
        for number in range(3):
            await writer.call("tell", LIST, number)
        for route in (LIST, ONE):
            since = {"epoch": at["epoch"], "offset": 1}
            assert (await position(ws, route, since=since))["recovered"] is True
            assert await receive_events(ws, 2) == [("told", route, 2), ("told", route, 3)]
        await ws.nothing()


async def test_exclude_self_covers_all_routes_of_the_connection() -> None:
    app = inbox()
    async with connect(app, "/ws/") as ws, connect(app, "/ws/") as other:
        for route in (LIST, ONE):
            await position(ws, route)
            await position(other, route)
        await ws.call("tell", LIST, but_me=True)
        assert sorted(await receive_events(other, 2)) == [("told", LIST, 1), ("told", ONE, 1)]
        await ws.nothing()


async def test_a_loss_sends_a_resync_to_each_route() -> None:
    async with connect(inbox(), "/ws/") as ws:
        for route in (LIST, ONE):
            await position(ws, route)
        await ws.call("lose", LIST)
        assert sorted(await receive_events(ws, 2)) == [("$resync", LIST, None), ("$resync", ONE, None)]


async def test_every_route_counts_as_a_subscription() -> None:
    async with connect(inbox(limits=Limits(max_subscriptions=2)), "/ws/") as ws:
        for route in (LIST, ONE, LIST):
            await position(ws, route)
        reply = await ws.call("subscribe", "inbox/2/")
        assert reply["errors"][0]["ctx"] == {"limit": "max_subscriptions", "value": 2}


async def test_a_connection_is_present_until_it_leaves_all_routes() -> None:
    app, ada = inbox(PresenceMixin), SimpleNamespace(is_authenticated=True, id=0, pk="ada")
    async with connect(app, "/ws/") as ws, connect(app, "/ws/", user=ada) as other:
        await position(ws, ONE)
        await ws.event("join")
        for route in (LIST, ONE, "inbox/2/"):
            await position(other, route)
        for route in (LIST, ONE, "inbox/2/"):
            assert (await ws.call("presence", LIST))["data"]["ada"] == 1
            await other.call("unsubscribe", route)
        for name in ("join", "leave"):
            event = await ws.event()
            assert (event["event"], event["route"], event["data"]) == (name, ONE, {"user": "ada"})
        await ws.nothing()


async def test_permissions_are_revoked_route_by_route() -> None:
    lost: set[str] = set()

    class Member(BasePermission):
        def has_permission(self, scope: Any, handler: Any, action: str, **captures: Any) -> bool:
            return handler.route not in lost

    app, ada = inbox(permission_classes=[Member]), SimpleNamespace(is_authenticated=True, id=0, pk="ada")
    app.runtime.user_id = lambda user: user.pk
    async with connect(app, "/ws/", user=ada) as ws:
        for route in (LIST, ONE):
            await position(ws, route)
        lost.add(ONE)
        await app.revoke_user("ada")
        assert (await ws.event("$unsubscribed"))["route"] == ONE
        await ws.call("tell", LIST)
        assert await receive_events(ws, 1) == [("told", LIST, 1)]
        await ws.nothing()


async def test_dcrf_clients_get_an_event_for_each_subscription() -> None:
    async with connect(inbox(dialect=DCRF({"": "inbox/"})), "/ws/") as ws:
        for pk, request_id in ((None, "list"), (1, "one")):
            await ws.send_json({"action": "subscribe_instance", "pk": pk, "request_id": request_id})
            await ws.receive_json()
        await ws.send_json({"action": "patch", "pk": 1, "data": {"text": "new"}, "request_id": "patch"})
        messages = [await ws.receive_json() for _ in range(3)]
        assert sorted((one["action"], one["request_id"]) for one in messages) == [
            ("patch", "patch"), ("update", "list"), ("update", "one"),
        ]  # fmt: skip
        await ws.nothing()


@pytest.mark.parametrize("name", ["a", '","route":"', '\\","data":', "é\n"])
def test_reroute_changes_only_the_route_of_a_frame(name: str) -> None:
    for route in ("", "inbox/", name):
        for data in ('{"route":"x","data":1}', '"\\",\\"route\\":\\"x\\",\\"data\\":"', "3"):
            frame = encode_event(name, route, data)
            assert reroute(frame, "other/") == encode_event(name, "other/", data)
            assert reroute(frame, route) == frame
    for foreign in ('{"event":"a"}', '{"event":"a", "route":"b", "data":1}', '{"event":"a","data":1,"route":"x"}'):
        assert reroute(foreign, "other/") == foreign
