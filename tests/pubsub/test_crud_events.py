"""`wsaction._events.crud` and `wsaction._events.access`: changes of objects reach the subscribers who may see them."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.cards import KINDS, Card, numbered, stored
from tests.support.live_boards import FailingLayer, position
from tests.support.live_cards import LIVE, Owner, cards, next_events, shown, user
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import APIError, PermissionDenied
from wsaction.generics import ListAPIActionHandler, ModelAPIActionHandler, ModelAPIConsumer
from wsaction.permissions import BasePermission
from wsaction.querysets import MemoryQuerySet
from wsaction.routers import SimpleRouter
from wsaction.routing import include, path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import connect
from wsaction.transactions import unit_of_work


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


# ------------------------------------------------------------------------------------------------- events of changes
async def test_changes_are_published_to_the_list_and_to_the_object(kind: str) -> None:
    async with cards(kind) as (app, _), connect(app, "/ws/") as one, connect(app, "/ws/") as two:
        await position(one, "cards/")
        await position(two, "cards/1/")
        await position(two, "cards/4/")
        card = (await one.call("create", "cards/", {"title": "new"}))["data"]
        assert (await one.call("partial_update", "cards/1/", {"title": "first"}))["status"] == 200
        assert (await one.call("destroy", "cards/1/"))["status"] == 204
        first = Card(id=1, title="first").model_dump()
        assert await next_events(one, 3) == [
            ("created", "cards/", card),
            ("updated", "cards/", first),
            ("deleted", "cards/", {"pk": 1}),
        ]
        assert await next_events(two, 3) == [
            ("created", "cards/4/", card),
            ("updated", "cards/1/", first),
            ("deleted", "cards/1/", {"pk": 1}),
        ]


async def test_an_object_is_subscribed_to_by_its_canonical_key(kind: str) -> None:
    async with cards(kind) as (app, _), connect(app, "/ws/") as ws:
        for key in ("01", "+1", "1.0", " 1"):
            assert (await ws.call("retrieve", f"cards/{key}/"))["status"] == 200
            reply = await ws.call("subscribe", f"cards/{key}/")
            assert (reply["status"], reply["errors"][0]["msg"]) == (
                404,
                "The events of this object are published where its key is 1.",
            )
        assert (await ws.call("subscribe", "cards/x/"))["status"] == 404
        assert (await ws.call("subscribe", "cards/1/"))["status"] == 200
        assert (await ws.call("subscribe", "cards/99/"))["status"] == 200  # such an object may appear later
    for own in ({"lookup_field": "title"}, {"get_topic": lambda self: "all"}):
        async with cards(kind, **own) as (app, _), connect(app, "/ws/") as ws:
            assert (await ws.call("subscribe", "cards/01/"))["status"] == 200


async def test_a_failed_action_publishes_nothing(kind: str) -> None:
    class Failing(ModelAPIActionHandler):
        async def perform_update(self, obj: Any, values: Any) -> Any:
            await super().perform_update(obj, values)
            raise PermissionDenied

    async with cards(kind, bases=(SubscribeMixin, Failing)) as (app, _), connect(app, "/ws/") as ws:
        await position(ws, "cards/")
        assert (await ws.call("update", "cards/1/", {"title": "no"}))["status"] == 403
        assert (await ws.call("create", "cards/", {"title": "yes"}))["status"] == 201
        assert (await ws.event())["event"] == "created"


async def test_one_action_publishes_one_event_for_each_object(kind: str) -> None:
    class Busy(ModelAPIActionHandler):
        @async_action(detail=False)
        async def several(self) -> None:
            one = await self.perform_create({"title": "one"})
            await self.perform_update(one, {"title": "two"})
            gone = await self.perform_create({"title": "gone"})
            await self.perform_destroy(gone)
            known = await self.get_queryset().get(pk=1)
            await self.perform_update(known, {"due": 1})
            await self.perform_update(await self.get_queryset().get(pk=1), {"due": 2})

    async with cards(kind, bases=(SubscribeMixin, Busy)) as (app, _), connect(app, "/ws/") as ws:
        await position(ws, "cards/")
        assert (await ws.call("several", "cards/"))["status"] == 200
        names = [(name, data["id"], data["title"], data["due"]) for name, _, data in await next_events(ws, 2)]
        assert names == [("created", 4, "two", None), ("updated", 1, "card 1", 2)]
        await ws.nothing()


async def test_equal_keys_of_two_querysets_are_two_objects() -> None:
    drafts, sent = (MemoryQuerySet(Card, rows=rows) for rows in (numbered(1), []))

    class CardHandler(*LIVE):  # type: ignore[misc]
        queryset, serializer_class = drafts, Card

        @async_action(detail=True)
        async def send(self) -> None:
            card = await self.get_object()
            await self.perform_destroy(card)
            await self.app.publish_object("sent/", "created", await sent.create(card.model_dump()))

    class Cards(AsyncAPIConsumer):
        router = SimpleRouter()
        router.register("drafts", CardHandler)
        routepatterns = (*router.urls, path("sent/", CardHandler.as_aaah(queryset=sent)))

    async with connect(WSAction([path("ws/", Cards.as_asgi())]), "/ws/") as ws:
        await position(ws, "drafts/")
        await position(ws, "sent/")
        assert (await ws.call("send", "drafts/1/"))["status"] == 200
        assert await next_events(ws, 2) == [
            ("deleted", "drafts/", {"pk": 1}),
            ("created", "sent/", numbered(1)[0].model_dump()),
        ]


@pytest.mark.parametrize(("route", "other"), [("mine/", "all/"), ("all/", "mine/")])
async def test_permissions_apply_at_each_of_two_routes_of_an_event(kind: str, route: str, other: str) -> None:
    class CardHandler(*LIVE):  # type: ignore[misc]
        serializer_class = Card

        @async_action(name="add")
        async def add_card(self) -> None:
            card = await self.perform_create({"title": "new"})
            await self.app.publish_object(other, "created", card)

        @async_action
        async def rename(self) -> None:
            card = await self.get_object()
            before = self.queryset.values_of(card)
            card = await self.perform_update(card, {"title": "renamed"})
            await self.app.publish_object(other, "updated", card, before=before)

    async with stored(kind) as queryset:

        class Cards(AsyncAPIConsumer):
            routepatterns = (
                path("mine/", CardHandler.as_aaah(queryset=queryset, permission_classes=(Owner,))),
                path("all/", CardHandler.as_aaah(queryset=queryset)),
            )

        app = WSAction([path("ws/", Cards.as_asgi())])
        async with connect(app, "/ws/", user=user(1)) as one, connect(app, "/ws/", user=user(2)) as two:
            await position(one, "mine/")
            await position(two, "mine/")
            await position(two, "all/")
            for action, event in (("add", "created"), ("rename", "updated")):
                assert (await one.call(action, route, pk=1))["status"] == 200
                assert (await one.event())["event"] == event
                assert (await two.event())["route"] == "all/"
                await two.nothing()


async def test_overridden_perform_hooks_publish_too() -> None:
    class Own(ModelAPIActionHandler):
        async def perform_create(self, values: Any) -> Any:
            return await self.get_queryset().create({**values, "owner_id": 7})

        async def perform_update(self, obj: Any, values: Any) -> Any:
            return await self.get_queryset().update(obj, values)

        async def perform_destroy(self, obj: Any) -> None:
            await self.get_queryset().delete(obj)

    async with cards("memory", bases=(SubscribeMixin, Own)) as (app, _), connect(app, "/ws/") as ws:
        await position(ws, "cards/")
        await ws.call("create", "cards/", {"title": "a"})
        await ws.call("update", "cards/4/", {"title": "b"})
        await ws.call("destroy", "cards/4/")
        assert [name for name, _, _ in await next_events(ws, 3)] == ["created", "updated", "deleted"]


async def test_a_perform_hook_with_its_own_unit_publishes_once(kind: str) -> None:
    class Whole(ModelAPIActionHandler):
        async def perform_create(self, values: Any) -> Any:
            async with self.unit_of_work():
                return await super().perform_create(values)

        async def perform_update(self, obj: Any, values: Any) -> Any:
            async with self.unit_of_work():
                obj = await super().perform_update(obj, values)
            return await self.queryset.update(obj, {"due": 7}) if values.get("done") else obj

        async def perform_destroy(self, obj: Any) -> None:
            async with self.unit_of_work():
                await super().perform_destroy(obj)

    async with cards(kind, count=1, bases=(SubscribeMixin, Whole)) as (app, _), connect(app, "/ws/") as ws:
        await position(ws, "cards/")
        card = (await ws.call("create", "cards/", {"title": "new"}))["data"]
        assert await next_events(ws, 1) == [("created", "cards/", card)]
        await ws.call("partial_update", "cards/2/", {"title": "renamed"})
        card["title"] = "renamed"
        assert await next_events(ws, 1) == [("updated", "cards/", card)]
        await ws.call("partial_update", "cards/2/", {"done": True})
        card["done"] = True
        assert await next_events(ws, 2) == [("updated", "cards/", card), ("updated", "cards/", {**card, "due": 7})]
        assert (await ws.call("destroy", "cards/2/"))["status"] == 204
        assert await next_events(ws, 1) == [("deleted", "cards/", {"pk": 2})]
        await ws.nothing()


async def test_events_follow_what_a_hook_does_not_the_action(kind: str) -> None:
    class Basket(ModelAPIActionHandler):
        async def perform_create(self, values: Any) -> Any:
            known = await self.get_queryset().filter(title=values["title"]).first()
            return await (super().perform_create(values) if known is None else self.perform_update(known, values))

        async def perform_update(self, obj: Any, values: Any) -> Any:
            if values.get("done"):
                await self.perform_destroy(obj)
                return obj
            return await super().perform_update(obj, values)

    async with cards(kind, count=1, bases=(SubscribeMixin, Basket)) as (app, _), connect(app, "/ws/") as ws:
        await position(ws, "cards/")
        assert (await ws.call("create", "cards/", {"title": "card 1", "due": 7}))["status"] == 201
        assert await next_events(ws, 1) == [("updated", "cards/", Card(id=1, title="card 1", due=7).model_dump())]
        assert (await ws.call("partial_update", "cards/1/", {"done": True}))["status"] == 200
        assert await next_events(ws, 1) == [("deleted", "cards/", {"pk": 1})]
        await ws.nothing()


async def test_handlers_without_subscriptions_start_no_hub() -> None:
    async with cards("memory", bases=(ModelAPIActionHandler,)) as (app, _), connect(app, "/ws/") as ws:
        for action, route, data in (
            ("create", "", {"title": "a"}),
            ("update", "4/", {"title": "b"}),
            ("destroy", "4/", 0),
        ):
            assert (await ws.call(action, f"cards/{route}", data))["status"] in (200, 201, 204)
        assert app.runtime.loop_state.hub is None


async def test_an_unavailable_layer_changes_no_reply(caplog: pytest.LogCaptureFixture) -> None:
    layer = FailingLayer()
    async with cards("memory", layer=layer) as (app, _), connect(app, "/ws/") as ws:
        await position(ws, "cards/")
        layer.away = True
        assert (await ws.call("create", "cards/", {"title": "a"}))["status"] == 201
        assert (await ws.event())["event"] == "$resync"
    assert "created could not be published to topic 'ws/?cards/'" in caplog.text


async def test_a_snapshot_is_a_page_of_the_list_or_the_object(kind: str) -> None:
    async with cards(kind) as (app, _), connect(app, "/ws/") as ws:
        listed = (await ws.call("list", "cards/?page_size=2"))["data"]
        assert (await position(ws, "cards/?page_size=2", snapshot=True))["snapshot"] == listed
        one = (await ws.call("retrieve", "cards/2/"))["data"]
        assert (await position(ws, "cards/2/", snapshot=True))["snapshot"] == one
        assert (await ws.call("subscribe", "cards/9/", snapshot=True))["status"] == 404


async def test_namespaces_custom_keys_and_outer_captures_are_kept() -> None:
    class Handler(*LIVE):  # type: ignore[misc]
        queryset = MemoryQuerySet(Card, rows=numbered(1))
        serializer_class = Card
        lookup_field = "title"
        lookup_url_kwarg = "name"

    class Consumer(AsyncAPIConsumer):
        router = SimpleRouter()
        router.register("cards", Handler)
        routepatterns = [path("in/<int:board>/", include((router.urls, "app"), namespace="deep"))]

    app = WSAction([path("ws/", Consumer.as_asgi())])
    async with app.lifespan(), connect(app, "/ws/") as ws:
        for route in ("in/7/cards/", "in/7/cards/card 1/", "in/8/cards/"):
            await position(ws, route)
        assert (await ws.call("partial_update", "in/7/cards/card 1/", {"due": 5}))["status"] == 200
        assert sorted(route for _, route, _ in await next_events(ws, 2)) == ["in/7/cards/", "in/7/cards/card 1/"]
        await ws.nothing()


async def test_get_event_routes_adds_routes_to_a_plain_detail_route() -> None:
    class Handler(*LIVE):  # type: ignore[misc]
        queryset = MemoryQuerySet(Card, rows=numbered(1))
        serializer_class = None

        def get_serializer_class(self) -> Any:
            return Card

        def get_event_routes(self, event: str, obj: Any) -> list[str]:
            return [*super().get_event_routes(event, obj), "other/", "silent/", "nowhere/"]

    class Consumer(AsyncAPIConsumer):
        routepatterns = [
            path("cards/<int:pk>/", Handler.as_aaah(), name="card-detail"),
            path("other/", Handler.as_aaah()),
            path("silent/", ListAPIActionHandler.as_aaah(queryset=Handler.queryset, serializer_class=Card)),
        ]

    app = WSAction([path("ws/", Consumer.as_asgi())])
    async with app.lifespan(), connect(app, "/ws/") as ws:
        for route in ("cards/1/", "other/"):
            await position(ws, route)
        assert (await ws.call("update", "cards/1/", {"title": "b"}))["status"] == 200
        assert await next_events(ws, 2) == [("updated", "cards/1/", {"pk": 1}), ("updated", "other/", {"pk": 1})]


async def test_a_consumer_itself_may_publish_changes() -> None:
    class Cards(SubscribeMixin, ModelAPIConsumer):
        queryset = MemoryQuerySet(Card, rows=numbered(2, owner_id=1))
        serializer_class = Card
        permission_classes = (Owner,)

    app = WSAction([path("ws/", Cards.as_asgi())])
    async with app.lifespan(), connect(app, "/ws/", user=user(1)) as one, connect(app, "/ws/", user=user(2)) as two:
        for ws in (one, two):
            assert len((await position(ws, "", snapshot=True))["snapshot"]["results"]) == 2
        assert (await one.call("partial_update", data={"due": 1}, pk=1))["status"] == 200
        assert (await one.event())["data"]["due"] == 1
        await two.nothing()


# ------------------------------------------------------------------------------------------------- publish_object
async def test_publish_object_publishes_to_the_list_and_the_object(kind: str) -> None:
    async with cards(kind) as (app, queryset), connect(app, "/ws/") as ws:
        await position(ws, "cards/")
        await position(ws, "cards/1/")
        before = await queryset.get(pk=1)
        async with unit_of_work():
            card = await queryset.update(await queryset.get(pk=1), {"due": 9})
            await app.publish_object("cards/", "updated", card, before=before)
        assert sorted(route for _, route, data in await next_events(ws, 2) if data["due"] == 9) == [
            "cards/",
            "cards/1/",
        ]
        await app.publish_object("cards/1/", "deleted", card)
        assert [name for name, _, _ in await next_events(ws, 2)] == ["deleted", "deleted"]
        with pytest.raises(ValueError, match="created, updated or deleted, got 'moved'"):
            await app.publish_object("cards/", "moved", card)


async def test_publish_object_refuses_a_handler_without_events() -> None:
    async with cards("memory", bases=(ModelAPIActionHandler,)) as (app, _):
        with pytest.raises(ValueError, match="one of CardHandler, which publishes no changes"):
            await app.publish_object("cards/", "updated", Card(id=1, title="a"))


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_subscriber_who_loses_access_gets_deleted(kind: str, keeps: bool) -> None:
    async with (
        cards(kind, 1, permission_classes=(Owner,)) as (app, queryset),
        connect(app, "/ws/", user=user(1)) as old,
        connect(app, "/ws/", user=user(2)) as new,
        connect(app, "/ws/", user=user(3)) as other,
    ):
        await queryset.update(await queryset.get(pk=1), {"owner_id": 1})
        for ws in (old, new, other):
            await position(ws, "cards/")
        async with unit_of_work():
            card = await queryset.get(pk=1)
            before = queryset.values_of(card) if keeps else None
            card = await queryset.update(card, {"owner_id": 2})
        await app.publish_object("cards/", "updated", card, before=before)
        assert shown(await old.event()) == ("deleted", "cards/", {"pk": 1})
        name, _, data = shown(await new.event())
        assert (name, data["owner_id"]) == ("created" if keeps else "updated", 2)
        if keeps:
            await other.nothing()
        else:  # the past is unknown, so a user who does not see it may have seen it
            assert shown(await other.event()) == ("deleted", "cards/", {"pk": 1})


async def test_before_must_not_be_the_changed_object(kind: str) -> None:
    async with cards(kind) as (app, queryset):
        card = await queryset.get(pk=1)
        with pytest.raises(ValueError, match=r"got the changed object itself.*before = queryset\.values_of\(obj\)"):
            await app.publish_object("cards/", "updated", card, before=card)
        await app.publish_object("cards/", "deleted", card, before=card)


async def test_publish_object_refuses_objects_of_other_types(kind: str) -> None:
    async with cards(kind) as (app, queryset):
        card, other = await queryset.get(pk=1), SimpleNamespace(id=1)
        expected = f"expected a {type(card).__name__}, got"
        with pytest.raises(TypeError, match=rf"CardHandler: the object: {expected} {{'id': 1}}"):
            await app.publish_object("cards/", "updated", {"id": 1})
        with pytest.raises(TypeError, match=rf"before=: {expected} namespace"):
            await app.publish_object("cards/", "updated", card, before=other)


# ------------------------------------------------------------------------------------------------- access
async def test_only_subscribers_who_may_see_an_object_get_its_events(kind: str) -> None:
    attributes = {"permission_classes": (Owner,)}
    async with cards(kind, 0, **attributes) as (app, queryset):
        await queryset.create({"title": "a", "owner_id": 1})
        async with connect(app, "/ws/", user=user(1)) as one, connect(app, "/ws/", user=user(2)) as two:
            for ws in (one, two):
                await position(ws, "cards/")
            await position(one, "cards/1/")
            assert (await two.call("subscribe", "cards/1/"))["status"] == 403
            assert (await one.call("subscribe", "cards/9/"))["status"] == 404
            assert (await one.call("partial_update", "cards/1/", {"due": 1}))["status"] == 200
            assert [name for name, _, _ in await next_events(one, 2)] == ["updated", "updated"]
            before = await queryset.get(pk=1)
            before = (
                Card.model_validate(before, from_attributes=True)
                if kind == "memory"
                else queryset.object_of(queryset.values_of(before))
            )
            given = await queryset.update(await queryset.get(pk=1), {"owner_id": 2})
            await app.publish_object("cards/", "updated", given, before=before)
            assert [(name, data) for name, _, data in await next_events(one, 2)] == [("deleted", {"pk": 1})] * 2
            assert [(name, data["owner_id"]) for name, _, data in await next_events(two, 1)] == [("created", 2)]
            assert (await two.call("destroy", "cards/1/"))["status"] == 204
            assert await next_events(two, 1) == [("deleted", "cards/", {"pk": 1})]
            await one.nothing()


async def test_get_queryset_narrows_the_events(kind: str) -> None:
    class Own(ModelAPIActionHandler):
        def get_queryset(self) -> Any:
            return super().get_queryset().filter(owner_id=self.user.pk)

        async def perform_create(self, values: Any) -> Any:
            return await super().perform_create({**values, "owner_id": self.user.pk})

    async with (
        cards(kind, 0, bases=(SubscribeMixin, Own)) as (app, _),
        connect(app, "/ws/", user=user(1)) as one,
        connect(app, "/ws/", user=user(2)) as two,
    ):
        for ws in (one, two):
            await position(ws, "cards/")
        await one.call("create", "cards/", {"title": "one's"})
        await two.call("create", "cards/", {"title": "two's"})
        assert [data["title"] for _, _, data in await next_events(one, 1)] == ["one's"]
        assert [data["title"] for _, _, data in await next_events(two, 1)] == ["two's"]
        await one.call("destroy", "cards/1/")
        assert (await one.event())["event"] == "deleted"
        await two.nothing()
        assert (await two.call("subscribe", "cards/1/"))["status"] == 404


async def test_the_row_is_queried_if_values_do_not_decide(kind: str) -> None:
    class Newest(ModelAPIActionHandler):
        def get_queryset(self) -> Any:
            return Asked(super().get_queryset().filter(owner_id=self.user.pk))

    class Asked:
        """A queryset that decides about objects only by a query."""

        def __init__(self, queryset: Any) -> None:
            self.filter, self.get = queryset.filter, queryset.get
            self.update, self.create, self.delete = queryset.update, queryset.create, queryset.delete

    async with (
        cards(kind, 2, bases=(SubscribeMixin, Newest)) as (app, _),
        connect(app, "/ws/", user=user(1)) as one,
        connect(app, "/ws/", user=user(2)) as two,
    ):
        for ws in (one, two):
            await position(ws, "cards/")
        assert (await one.call("update", "cards/1/", {"title": "b"}))["status"] == 200
        assert (await one.event())["event"] == "updated"
        assert shown(await two.event()) == ("deleted", "cards/", {"pk": 1})  # the user may have seen it before


async def test_a_topic_for_each_user_needs_no_filter() -> None:
    class Own(ModelAPIActionHandler):
        def get_topic(self) -> str:
            return f"{self.user.pk}:{super().get_topic()}"

    async with cards("memory", bases=(SubscribeMixin, Own)) as (app, _), connect(app, "/ws/", user=user(1)) as ws:
        await position(ws, "cards/")
        assert (await ws.call("update", "cards/1/", {"title": "b"}))["status"] == 200
        assert (await ws.event())["event"] == "updated"
        [subscription] = [one for topics in app.runtime.hub._joined.values() for one in topics.values()]
        assert type(subscription).__name__ == "Subscription"


async def _found(self: Any) -> Any:
    return await self.queryset.get(pk=self.kwargs["pk"], owner_id=self.user.pk)


@pytest.mark.parametrize(
    "scope",
    [
        {"get_queryset": lambda self: self.queryset.filter(owner_id=self.user.pk)},
        {"filter_queryset": lambda self, queryset: queryset.filter(owner_id=self.user.pk)},
        {"get_object": _found},
    ],
    ids=lambda scope: next(iter(scope)),
)
async def test_a_shared_topic_filters_by_the_scope_of_each_user(kind: str, scope: Any) -> None:
    """`get_topic()` says where events go; it does not grant everyone there access to the objects."""
    own = type("Own", (ModelAPIActionHandler,), {**scope, "get_topic": lambda self: "cards"})
    async with (
        cards(kind, 2, bases=(SubscribeMixin, own)) as (app, _),
        connect(app, "/ws/", user=user(1)) as one,
        connect(app, "/ws/", user=user(2)) as two,
    ):
        for ws in (one, two):
            await position(ws, "cards/")
        assert (await one.call("update", "cards/1/", {"title": "b"}))["status"] == 200
        assert (await one.event())["event"] == "updated"
        if "get_object" in scope:  # the past answer of `get_object()` is unknown
            assert shown(await two.event()) == ("deleted", "cards/", {"pk": 1})
        await two.nothing()


async def test_recheck_asks_the_permissions_at_each_event() -> None:
    allowed = {1}

    class Allowed(BasePermission):
        def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
            return action != "subscribe" or handler.user.pk in allowed

    attributes = {"permission_classes": (Allowed,), "recheck": True}
    async with cards("memory", **attributes) as (app, _), connect(app, "/ws/", user=user(1)) as ws:
        await position(ws, "cards/")
        for grant in ({1}, set(), {1}):
            allowed.clear()
            allowed.update(grant)
            assert (await ws.call("update", "cards/1/", {"title": f"b{len(grant)}"}))["status"] == 200
            await app.publish("cards/", "said", len(grant))
        names = [name for name, _, _ in await next_events(ws, 4)]
        assert names == ["updated", "said", "updated", "said"]
        await ws.nothing()


async def test_an_error_raised_by_an_object_permission_denies_access(caplog: pytest.LogCaptureFixture) -> None:
    class Paid(BasePermission):
        def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any) -> bool:
            if action == "list" and obj.title == "dear" and handler.user.pk == 1:
                raise APIError(402, "payment_required", "Pay first.")
            return True

    async with (
        cards("memory", permission_classes=(Paid,)) as (app, _),
        connect(app, "/ws/", user=user(1)) as ws,
        connect(app, "/ws/", user=user(2)) as other,
    ):
        await position(ws, "cards/")
        for title in ("dear", "still dear", "dear"):
            assert (await other.call("update", "cards/1/", {"title": title}))["status"] == 200
        assert [name for name, *_ in await next_events(ws, 3)] == ["deleted", "created", "deleted"]
        await ws.nothing()
    assert not caplog.records


async def test_a_hanging_permission_times_out_with_a_resync(caplog: pytest.LogCaptureFixture) -> None:
    class Hangs(BasePermission):
        async def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any) -> bool:
            if action == "list" and obj.title == "hang" and handler.user.pk == 1:
                await asyncio.get_running_loop().create_future()
            return True

    async with (
        cards("memory", seconds=0.2, permission_classes=(Hangs,)) as (app, _),
        connect(app, "/ws/", user=user(1)) as ws,
        connect(app, "/ws/", user=user(2)) as other,
    ):
        for one in (ws, other):
            await position(one, "cards/")
        for title in ("hang", "on"):
            assert (await other.call("update", "cards/1/", {"title": title}))["status"] == 200
        assert [name for name, _, _ in await next_events(other, 2)] == ["updated", "updated"]
        # The decision about the first event timed out, and the next event has an unknown past.
        assert [(await ws.event())["event"] for _ in range(2)] == ["$resync", "$resync"]
        assert (await other.call("update", "cards/1/", {"title": "b"}))["status"] == 200
        assert (await ws.event())["event"] == "updated"
    assert "TimeoutError" in caplog.text
