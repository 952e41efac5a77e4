"""`wsaction.generics`: a queryset and a serializer, and the hooks between them."""

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ConfigDict

from tests.driving import ask, talking
from wsaction import generics
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import NotFound
from wsaction.permissions import IsOwner
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path


class Row(BaseModel):
    id: int
    slug: str
    user_id: int = 1
    secret: str = "secret"


class Shown(BaseModel):
    id: int
    slug: str


class Strictly(BaseModel):
    model_config = ConfigDict(strict=True)

    slug: str


ROWS = MemoryQuerySet(Row, rows=[Row(id=1, slug="one"), Row(id=7, slug="seven", user_id=2)])
ONE, SEVEN = {"id": 1, "slug": "one"}, {"id": 7, "slug": "seven"}


class Rows(generics.RetrieveAPIActionHandler):
    queryset = ROWS
    serializer_class = Shown


def at(route: str, kind: Any, **initkwargs: Any) -> Any:
    consumer: Any = type("Consumer", (AsyncAPIConsumer,), {"routepatterns": [path(route, kind.as_aaah(**initkwargs))]})
    return consumer.as_asgi()


# ------------------------------------------------------------------------------------------------- the object
@pytest.mark.parametrize(
    ("pattern", "route", "frame", "wanted"),
    [
        ("rows/<int:pk>/", "rows/7/", {}, SEVEN),
        ("rows/<pk>/", "rows/07/", {}, SEVEN),
        ("rows/<int:pk>/", "rows/7/", {"pk": 1}, SEVEN),
        ("rows/", "rows/", {"pk": 7}, SEVEN),
        ("rows/", "rows/", {"pk": "7"}, SEVEN),
        ("rows/<int:pk>/", "rows/5/", {}, "Not found."),
        ("rows/<pk>/", "rows/x/", {}, "Not found."),
        ("rows/", "rows/", {"pk": [7]}, "Not found."),
        ("rows/", "rows/", {"pk": None}, "Not found."),
        ("rows/", "rows/", {}, "This route names no object: pk is neither in the route nor in the frame."),
    ],
)
async def test_the_object_is_the_one_that_the_route_names_or_else_the_frame(
    pattern: str, route: str, frame: dict[str, Any], wanted: Any
) -> None:
    reply = await ask(at(pattern, Rows), "retrieve", route, **frame)
    if isinstance(wanted, str):
        assert (reply["status"], reply["errors"]) == (404, [{"type": "not_found", "msg": wanted}])
    else:
        assert (reply["status"], reply["data"]) == (200, wanted)


@pytest.mark.parametrize(
    ("initkwargs", "pattern", "route"),
    [
        ({"lookup_field": "slug"}, "<slug>/", "one/"),
        ({"lookup_field": "slug", "lookup_url_kwarg": "name"}, "<name>/", "one/"),
        ({"lookup_url_kwarg": "number"}, "<int:number>/", "1/"),
        ({"lookup_field": "id"}, "<int:id>/", "1/"),
    ],
)
async def test_the_lookup_may_have_other_names(initkwargs: Any, pattern: str, route: str) -> None:
    assert (await ask(at(pattern, Rows, **initkwargs), "retrieve", route))["data"] == ONE


async def test_object_permissions_are_asked_before_it_is_told() -> None:
    class Own(IsOwner):
        lookup_field = "user_id"

    class Handler(Rows):
        permission_classes = (Own,)

    async with talking(at("<int:pk>/", Handler), user=SimpleNamespace(is_authenticated=True, pk=1)) as ws:
        assert (await ws.call("retrieve", "1/"))["data"] == ONE
        assert (await ws.call("retrieve", "7/"))["errors"][0]["type"] == "permission_denied"
        assert (await ws.call("retrieve", "5/"))["errors"][0]["type"] == "not_found"


# ------------------------------------------------------------------------------------------------- hooks
async def test_the_hooks_decide_for_each_frame() -> None:
    class Narrowed:
        def __init__(self, owner: int) -> None:
            self.owner = owner

        async def get(self, **lookups: Any) -> Any:
            return await ROWS.get(**lookups, user_id=self.owner)

    class Handler(generics.GenericAsyncAPIActionHandler):
        def get_queryset(self) -> Any:
            return Narrowed(self.user.pk)

        def get_serializer_class(self) -> type[BaseModel]:
            return Row if self.action == "full" else Shown

        @async_action
        async def full(self) -> Any:
            return self.serialize(await self.get_object())

        @async_action
        async def brief(self) -> Any:
            return self.serialize(await self.get_object())

    async with talking(at("<int:pk>/", Handler), user=SimpleNamespace(pk=2)) as ws:
        assert (await ws.call("full", "7/"))["data"] == {**SEVEN, "user_id": 2, "secret": "secret"}
        assert (await ws.call("brief", "7/"))["data"] == SEVEN
        assert (await ws.call("brief", "1/"))["status"] == 404


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"serializer_class": Shown}, "Handler needs a queryset, or a get_queryset() of its own"),
        ({"queryset": ROWS}, "Handler needs a serializer_class, or a get_serializer_class() of its own"),
    ],
)
async def test_what_is_missing_is_told_with_the_cure(attributes: dict[str, Any], message: str) -> None:
    handler = type("Handler", (generics.RetrieveAPIActionHandler,), attributes)
    reply = await ask(at("<int:pk>/", handler), "retrieve", "1/", debug=True)
    assert reply["status"] == 500
    assert message in reply["errors"][0]["ctx"]["exception"]


@pytest.mark.parametrize(
    "obj", [Row(id=7, slug="seven"), {"id": 7, "slug": "seven"}, SimpleNamespace(id="7", slug="seven")]
)
def test_an_object_is_shown_from_its_attributes(obj: Any) -> None:
    handler = Rows()
    assert handler.serialize(obj) == Shown.model_validate(SEVEN)
    setattr(handler, "serializer_class", Strictly)  # noqa: B010  # as initkwargs do
    assert handler.serialize(obj) == Strictly(slug="seven")


async def test_any_object_that_gets_is_a_queryset() -> None:
    class Constant:
        async def get(self, **lookups: Any) -> Any:
            if lookups != {"pk": 1}:
                raise NotFound
            return SimpleNamespace(id=1, slug="one")

    view = at("<int:pk>/", Rows, queryset=Constant())
    assert (await ask(view, "retrieve", "1/"))["data"] == ONE
    assert (await ask(view, "retrieve", "2/"))["status"] == 404


# ------------------------------------------------------------------------------------------------- consumers
async def test_a_consumer_takes_its_key_from_the_connections_path_or_from_the_frame() -> None:
    class Consumer(generics.RetrieveAPIConsumer):
        queryset = ROWS
        serializer_class = Shown
        seen: ClassVar[list[Any]] = []

        async def connect(self) -> None:
            if "pk" in self.kwargs:
                self.seen.append((await self.get_object()).slug)

    view = Consumer.as_asgi()
    async with talking(view, "/rows/7/", at="rows/<int:pk>/") as ws:
        assert (await ws.call("retrieve"))["data"] == SEVEN
        assert (await ws.call("retrieve", pk=1))["data"] == SEVEN
    assert Consumer.seen == ["seven"]
    assert (await ask(view, "retrieve", pk=1))["data"] == ONE
    assert (await ask(view, "retrieve"))["status"] == 404


def test_the_names_and_their_actions() -> None:
    assert {name: list(getattr(generics, name).available_actions) for name in generics.__all__} == {
        "GenericAsyncAPIActionHandler": [],
        "GenericAsyncAPIConsumer": [],
        "RetrieveAPIActionHandler": ["retrieve"],
        "RetrieveAPIConsumer": ["retrieve"],
    }
