"""Events follow the settings that a handler's instance has, wherever they come from and whenever they change."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured, PermissionDenied
from wsaction.filters import BaseFilterBackend
from wsaction.generics import ModelAPIActionHandler
from wsaction.permissions import BasePermission
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import WebSocketSession, connect

pytestmark = pytest.mark.anyio


class Card(BaseModel):
    id: int
    owner: int = 1
    secret: str = "s"


class PublicCard(BaseModel):
    id: int


class OwnRows(BaseFilterBackend):
    def filter_queryset(self, queryset: Any, handler: Any) -> Any:
        return queryset.filter(owner=1)


class Cards(SubscribeMixin, ModelAPIActionHandler):
    serializer_class = Card
    input_serializer_class = Card

    @async_action
    async def move(self) -> None:
        await self.publish("moved", 1)


def cards(**attributes: Any) -> type[Cards]:
    return type("OwnCards", (Cards,), {"queryset": MemoryQuerySet(Card), **attributes})


def set_in_init(name: str, value: Callable[[Any], Any]) -> Callable[..., None]:
    def __init__(self: Any) -> None:
        setattr(self, name, value(self))

    return __init__


class OwnCards:
    """A descriptor: all rows for the class, those of owner 1 for an instance."""

    rows = MemoryQuerySet(Card)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self.rows if instance is None else self.rows.filter(owner=1)


def app_of(handler: type[Cards], route: str = "cards/") -> WSAction:
    class Root(AsyncAPIConsumer):
        routepatterns = [path(route, handler.as_aaah())]

    return WSAction([path("ws/", Root.as_asgi())])


async def events_of_creating(handler: type[Cards], change: Callable[[], None] = lambda: None) -> list[Any]:
    """The data of the events that a subscriber gets of two new cards: one of owner 2, then one of owner 1."""
    app = app_of(handler)
    async with connect(app, "/ws/") as subscriber, connect(app, "/ws/") as writer:
        await subscriber.call("subscribe", "cards/")
        await writer.call("create", "cards/", {"id": 1, "owner": 1})
        await subscriber.event("created")
        change()
        await writer.call("create", "cards/", {"id": 2, "owner": 2})
        await writer.call("create", "cards/", {"id": 3, "owner": 1})
        found = [await subscriber.event()]
        while found[-1]["data"]["id"] != 3:
            found.append(await subscriber.event())
        return [event["data"] for event in found]


@pytest.mark.parametrize(
    "attributes",
    [
        {"__init__": set_in_init("queryset", lambda self: type(self).queryset.filter(owner=1))},
        {"__init__": set_in_init("filter_backends", lambda self: (OwnRows,))},
        {"queryset": OwnCards()},
    ],
    ids=["queryset in __init__", "filter backends in __init__", "queryset by a descriptor"],
)
async def test_rows_that_an_instance_leaves_out_are_not_shown(attributes: dict[str, Any]) -> None:
    shown = await events_of_creating(cards(**attributes))
    assert [data for data in shown if data.get("owner") == 2] == []


async def test_a_serializer_set_in_init_decides_what_events_show() -> None:
    handler = cards(__init__=set_in_init("serializer_class", lambda self: PublicCard))
    assert await events_of_creating(handler) == [{"id": 2}, {"id": 3}]


async def test_a_serializer_that_changes_after_the_first_event_is_followed() -> None:
    handler = cards()
    shown = await events_of_creating(handler, lambda: setattr(handler, "serializer_class", PublicCard))
    assert shown == [{"id": 2}, {"id": 3}]


async def test_a_hook_that_is_replaced_after_mounting_still_publishes() -> None:
    handler = cards()

    async def create(self: Any, values: dict[str, Any]) -> Any:
        return await self.get_queryset().create(values)

    shown = await events_of_creating(handler, lambda: setattr(handler, "perform_create", create))
    assert [data["id"] for data in shown] == [2, 3]


async def hide_all(*args: Any) -> None:
    """A filter that shows no event."""


async def test_a_filter_that_an_instance_sets_is_asked() -> None:
    handler = cards(__init__=set_in_init("get_event_filter", lambda self: lambda grant: hide_all))
    app = app_of(handler)
    async with connect(app, "/ws/") as subscriber, connect(app, "/ws/") as writer:
        await subscriber.call("subscribe", "cards/")
        await writer.call("create", "cards/", {"id": 2, "owner": 2})
        await writer.call("move", "cards/")
        await subscriber.call("unsubscribe", "cards/")  # answered behind all events
        await subscriber.nothing()


@pytest.mark.parametrize("where", ["instance", "class"])
async def test_a_check_that_is_set_after_mounting_is_asked(where: str) -> None:
    async def refuse(*args: Any) -> None:
        raise PermissionDenied

    handler = cards(__init__=set_in_init("check_subscription", lambda self: refuse)) if where == "instance" else cards()
    app = app_of(handler)
    if where == "class":
        handler.check_subscription = refuse  # type: ignore[method-assign]
    async with connect(app, "/ws/") as ws:
        assert (await ws.call("subscribe", "cards/"))["status"] == 403


class IsAllowed(BasePermission):
    def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any) -> bool:
        return scope["user"].pk == 1


def user(pk: int) -> Any:
    return SimpleNamespace(is_authenticated=True, pk=pk)


async def subscribed(ws: WebSocketSession) -> int:
    status: int = (await ws.call("subscribe", "cards/7/"))["status"]
    return status


async def test_a_lookup_by_a_property_names_the_object_that_is_checked() -> None:
    handler = cards(
        queryset=MemoryQuerySet(Card, rows=[Card(id=7)]),
        permission_classes=(IsAllowed,),
        lookup_url_kwarg=property(lambda self: "key"),
    )
    app = app_of(handler, "cards/<int:key>/")
    async with connect(app, "/ws/", user=user(1)) as owner, connect(app, "/ws/", user=user(2)) as stranger:
        assert (await subscribed(owner), await subscribed(stranger)) == (200, 403)


@pytest.mark.parametrize("flag", ["overrides_topic", "overrides_query", "publishes_changes", "scopes_queryset"])
def test_what_is_found_out_of_a_class_cannot_be_mounted(flag: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=flag):
        cards().as_aaah(**{flag: False})


class OwnCardsConsumer(SubscribeMixin, ModelAPIActionHandler, AsyncAPIConsumer):
    """Everybody but user 1 sees the cards of owner 1 only."""

    queryset = MemoryQuerySet(Card)
    serializer_class = Card
    input_serializer_class = Card

    async def connect(self) -> None:
        if self.scope["user"].pk != 1:
            self.queryset = self.queryset.filter(owner=1)


async def test_a_consumer_that_narrows_its_queryset_gets_the_events_of_its_rows_only() -> None:
    app = WSAction([path("ws/", OwnCardsConsumer.as_asgi())])
    async with connect(app, "/ws/", user=user(1)) as writer, connect(app, "/ws/", user=user(2)) as subscriber:
        assert (await subscriber.call("subscribe"))["status"] == 200
        for pk, owner in ((1, 2), (2, 1)):
            assert (await writer.call("create", "", {"id": pk, "owner": owner}))["status"] == 201
        assert (await subscriber.event())["data"] == {"id": 2, "owner": 1, "secret": "s"}


class Narrows(BasePermission):
    def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
        handler.queryset = handler.queryset.filter(owner=1)
        return True


async def narrow_when_subscribing(handler: Any) -> None:
    handler.queryset = handler.queryset.filter(owner=1)


@pytest.mark.parametrize(
    "attributes",
    [{"permission_classes": (Narrows,)}, {"check_subscription": narrow_when_subscribing}],
    ids=["permission", "check_subscription"],
)
async def test_a_queryset_that_is_narrowed_for_one_call_cannot_be_subscribed(
    attributes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(app_of(cards(**attributes)), "/ws/") as ws:
        assert (await ws.call("subscribe", "cards/"))["status"] == 500
    assert "narrow it in get_queryset()" in caplog.text
