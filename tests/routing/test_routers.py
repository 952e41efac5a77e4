"""`wsaction.routers`: a router makes two routes for each handler."""

from typing import Any

import pytest

from tests.support.cards import Card, numbered
from tests.support.driving import ask, talking
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured
from wsaction.generics import ModelAPIActionHandler, ReadOnlyModelAPIActionHandler
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.querysets import MemoryQuerySet
from wsaction.routers import SimpleRouter
from wsaction.routing import Resolver404, Router, include, path


class Cards(ModelAPIActionHandler):
    queryset = MemoryQuerySet(Card, rows=numbered(3))
    serializer_class = Card

    @async_action
    async def clear(self) -> str:
        return "list"

    @async_action
    async def move(self, pk: int, to: int = 0) -> str:
        return f"object {pk}"

    @async_action(detail=True)
    async def archive(self) -> str:
        return f"object {self.kwargs['pk']}"

    @async_action(detail=False)
    async def find(self, pk: int) -> str:
        return "list"


class Plain(AsyncAPIActionHandler):
    @async_action
    async def ping(self) -> str:
        return "list"

    @async_action
    async def touch(self, pk: str) -> str:
        return f"object {pk}"


def consumer(patterns: Any) -> Any:
    kind: Any = type("Consumer", (AsyncAPIConsumer,), {"routepatterns": patterns})
    return kind.as_asgi()


def test_the_list_and_the_object_have_their_own_actions() -> None:
    router = SimpleRouter()
    router.register("cards", Cards)
    found = {
        match.url_name: sorted(match.func.actions) for match in map(Router(router.urls).resolve, ("cards/", "cards/7/"))
    }
    assert found == {
        "card-list": ["clear", "create", "find", "list"],
        "card-detail": ["archive", "destroy", "move", "partial_update", "retrieve", "update"],
    }


async def test_actions_of_both_routes_reply() -> None:
    router = SimpleRouter()
    router.register("cards", Cards)
    async with talking(consumer(router.urls)) as ws:
        assert (await ws.call("list", "cards/"))["data"]["count"] == 3
        assert (await ws.call("retrieve", "cards/2/"))["data"]["title"] == "card 2"
        assert (await ws.call("move", "cards/2/"))["data"] == "object 2"
        assert (await ws.call("archive", "cards/x/"))["data"] == "object x"
        assert (await ws.call("find", "cards/", pk=3))["data"] == (await ws.call("clear", "cards/"))["data"] == "list"
        for action, route in [("retrieve", "cards/"), ("list", "cards/2/"), ("clear", "cards/2/"), ("move", "cards/")]:
            assert (await ws.call(action, route))["status"] == 405


@pytest.mark.parametrize(
    ("attributes", "options", "prefix", "wanted"),
    [
        ({}, {}, "cards", {"cards/": {}, "cards/x-1/": {"pk": "x-1"}}),
        ({}, {"trailing_slash": False}, "cards", {"cards": {}, "cards/7": {"pk": "7"}}),
        ({}, {}, "/cards/", {"cards/": {}, "cards/7/": {"pk": "7"}}),
        ({}, {}, "", {"": {}, "7/": {"pk": "7"}}),
        ({"lookup_value_converter": "int"}, {}, "cards", {"cards/7/": {"pk": 7}, "cards/x/": None}),
        ({"lookup_value_regex": "[0-9]{2}"}, {}, "cards", {"cards/07/": {"pk": "07"}, "cards/7/": None}),
        ({"lookup_value_regex": "[a-z]+"}, {}, "", {"x/": {"pk": "x"}, "7/": None, "x/\n": None}),
        (
            {"lookup_value_regex": "[a-z.]+"},
            {"trailing_slash": False},
            "a.b",
            {"a.b/x.y": {"pk": "x.y"}, "axb/x": None},
        ),
        ({"lookup_field": "title"}, {}, "cards", {"cards/a/": {"title": "a"}}),
        ({"lookup_field": "title", "lookup_url_kwarg": "name"}, {}, "cards", {"cards/a/": {"name": "a"}}),
        (
            {},
            {},
            "boards/<int:board>/cards",
            {"boards/1/cards/": {"board": 1}, "boards/1/cards/7/": {"board": 1, "pk": "7"}},
        ),
        (
            {"lookup_value_regex": "[0-9]"},
            {},
            "boards/<int:board>/cards",
            {"boards/1/cards/7/": {"board": 1, "pk": "7"}, "boards/1/cards/77/": None},
        ),
    ],
)
def test_options_shape_the_routes(attributes: Any, options: Any, prefix: str, wanted: dict[str, Any]) -> None:
    router = SimpleRouter(**options)
    router.register(prefix, type("Handler", (Cards,), attributes))
    resolver = Router(router.urls)
    for route, kwargs in wanted.items():
        if kwargs is None:
            with pytest.raises(Resolver404):
                resolver.resolve(route)
        else:
            assert resolver.resolve(route).kwargs == kwargs


def test_routes_are_reversed_by_name() -> None:
    router = SimpleRouter()
    router.register("cards", Cards)
    router.register("plain", Plain, basename="other")
    reverse = Router([path("v1/", include(router)), *router.urls]).reverse
    assert (reverse("card-list"), reverse("card-detail", kwargs={"pk": 7})) == ("cards/", "cards/7/")
    assert (reverse("other-list"), reverse("other-detail", ["x"])) == ("plain/", "plain/x/")


async def test_any_handler_may_be_registered() -> None:
    router = SimpleRouter()
    router.register("plain", Plain, basename="plain")
    view = consumer(router.urls)
    assert (await ask(view, "ping", "plain/"))["data"] == "list"
    assert (await ask(view, "touch", "plain/7/"))["data"] == "object 7"


def test_a_route_without_actions_is_left_out() -> None:
    class Listed(ReadOnlyModelAPIActionHandler):
        queryset, serializer_class = MemoryQuerySet(Card), Card
        retrieve = None  # type: ignore[assignment]

    class Single(ReadOnlyModelAPIActionHandler):
        queryset, serializer_class = MemoryQuerySet(Card), Card
        list = None  # type: ignore[assignment]

    router = SimpleRouter()
    router.register("listed", Listed, "listed")
    router.register("single", Single, "single")
    assert [route.name for route in router.urls] == ["listed-list", "single-detail"]  # type: ignore[union-attr]
    assert [route.name for route in router.routepatterns] == ["listed-list", "single-detail"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cards", Cards.as_aaah()), r"takes a handler class, as in register\('cards', CardHandler\), not <Cards"),
        (("cards", object), "takes a handler class"),
        (("plain", Plain), "Plain has no queryset to name its routes after; register it with basename='...'"),
        (("known", Cards, "new"), "the prefix 'known' is Cards's already; register Cards by another"),
        (("/known/", Cards, "new"), "the prefix 'known'"),
        (("new", Cards), "the basename 'card' is Cards's already"),
    ],
)
def test_misuse_is_refused(arguments: Any, message: str) -> None:
    router = SimpleRouter()
    router.register("known", Cards)
    with pytest.raises(ImproperlyConfigured, match=message):
        router.register(*arguments)
