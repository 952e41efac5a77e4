"""`wsaction.generics`: handlers with a queryset and a serializer, and their hooks."""

import re
from types import SimpleNamespace
from typing import Any, ClassVar, get_type_hints

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter

from tests.support.cards import KINDS, Card, stored
from tests.support.driving import ask, talking
from wsaction import generics
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured, NotFound
from wsaction.mixins import OutputList
from wsaction.pagination import PageNumberPagination
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
async def test_the_key_comes_from_the_route_or_else_the_frame(
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
async def test_lookup_field_and_kwarg_may_be_renamed(initkwargs: Any, pattern: str, route: str) -> None:
    assert (await ask(at(pattern, Rows, **initkwargs), "retrieve", route))["data"] == ONE


@pytest.mark.parametrize("action", ["retrieve", "destroy"])
@pytest.mark.parametrize("kind", KINDS)
async def test_null_is_no_key_even_if_a_row_has_null_there(kind: str, action: str) -> None:
    async with stored(kind, [Card(id=1, title="a"), Card(id=2, title="b", due=1)]) as cards:
        options = {"queryset": cards, "serializer_class": Card, "lookup_field": "due", "lookup_url_kwarg": "when"}
        view = at("cards/", generics.ModelAPIActionHandler, **options)
        for frame in ({"when": None}, {"pk": None}):
            assert (await ask(view, action, "cards/", **frame))["status"] == 404
        assert await cards.count() == 2


async def test_object_permissions_are_checked_before_the_reply() -> None:
    class Own(IsOwner):
        lookup_field = "user_id"

    class Handler(Rows):
        permission_classes = (Own,)

    async with talking(at("<int:pk>/", Handler), user=SimpleNamespace(is_authenticated=True, pk=1)) as ws:
        assert (await ws.call("retrieve", "1/"))["data"] == ONE
        assert (await ws.call("retrieve", "7/"))["errors"][0]["type"] == "permission_denied"
        assert (await ws.call("retrieve", "5/"))["errors"][0]["type"] == "not_found"


# ------------------------------------------------------------------------------------------------- hooks
async def test_hooks_decide_for_each_frame() -> None:
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
        ({"serializer_class": Shown}, "Handler needs a queryset; set it or override get_queryset()"),
        ({"queryset": ROWS}, "Handler needs a serializer_class; set it or override get_serializer_class()"),
    ],
)
def test_missing_attributes_are_an_error_with_the_cure(attributes: dict[str, Any], message: str) -> None:
    handler: Any = type("Handler", (generics.RetrieveAPIActionHandler,), attributes)
    with pytest.raises(ImproperlyConfigured, match=re.escape(message)):
        handler.as_aaah()


@pytest.mark.parametrize(
    "obj", [Row(id=7, slug="seven"), {"id": 7, "slug": "seven"}, SimpleNamespace(id="7", slug="seven")]
)
def test_an_object_is_shown_from_its_attributes(obj: Any) -> None:
    handler = Rows()
    assert handler.serialize(obj) == Shown.model_validate(SEVEN)
    setattr(handler, "serializer_class", Strictly)  # noqa: B010  # as initkwargs do
    assert handler.serialize(obj) == Strictly(slug="seven")


async def test_any_object_with_get_is_a_queryset() -> None:
    class Constant:
        async def get(self, **lookups: Any) -> Any:
            if lookups != {"pk": 1}:
                raise NotFound
            return SimpleNamespace(id=1, slug="one")

    view = at("<int:pk>/", Rows, queryset=Constant())
    assert (await ask(view, "retrieve", "1/"))["data"] == ONE
    assert (await ask(view, "retrieve", "2/"))["status"] == 404


# ------------------------------------------------------------------------------------------------- consumers
async def test_a_consumer_takes_its_key_from_its_path_or_the_frame() -> None:
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


@pytest.mark.parametrize("kind", ["ActionHandler", "Consumer"])
def test_generic_classes_have_their_actions(kind: str) -> None:
    changes = ["update", "partial_update"]
    wanted = {
        "GenericAsyncAPI": [],
        "CreateAPI": ["create"],
        "ListAPI": ["list"],
        "RetrieveAPI": ["retrieve"],
        "UpdateAPI": changes,
        "DestroyAPI": ["destroy"],
        "ListCreateAPI": ["list", "create"],
        "RetrieveUpdateAPI": ["retrieve", *changes],
        "RetrieveDestroyAPI": ["retrieve", "destroy"],
        "RetrieveUpdateDestroyAPI": ["retrieve", *changes, "destroy"],
        "ModelAPI": ["list", "create", "retrieve", *changes, "destroy"],
        "ReadOnlyModelAPI": ["list", "retrieve"],
    }
    assert {f"{name}{kind}" for name in wanted} == {name for name in generics.__all__ if name.endswith(kind)}
    for name, actions in wanted.items():
        assert sorted(getattr(generics, f"{name}{kind}").available_actions) == sorted(actions)


# ------------------------------------------------------------------------------------------------- declared
@pytest.mark.parametrize("kind", ["create", "list", "update", "partial_update"])
def test_requirements_of_actions_are_checked_at_mounting(kind: str) -> None:
    class Handler(generics.ModelAPIActionHandler):
        serializer_class = Shown

    with pytest.raises(ImproperlyConfigured, match="Handler needs a queryset"):
        Handler.as_aaah(actions=[kind])
    with pytest.raises(ImproperlyConfigured, match="Handler needs a serializer_class"):
        Handler.as_aaah(actions=[kind], queryset=ROWS, serializer_class=None)
    Handler.as_aaah(actions=[kind], queryset=ROWS)


def test_only_mounted_actions_have_requirements() -> None:
    generics.DestroyAPIActionHandler.as_aaah(queryset=ROWS)
    generics.GenericAsyncAPIActionHandler.as_aaah()
    generics.ModelAPIActionHandler.as_aaah(actions=["destroy"], queryset=ROWS)
    with pytest.raises(ImproperlyConfigured, match="RetrieveAPIConsumer needs a queryset"):
        generics.RetrieveAPIConsumer.as_asgi()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"serializer_class": dict},
            "Handler: a serializer_class is a pydantic model, a subclass of BaseModel, not <cl",
        ),
        ({"serializer_class": Shown, "input_serializer_class": 7}, "not 7"),
    ],
)
def test_an_invalid_serializer_is_refused_at_class_creation(attributes: Any, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        type("Handler", (generics.ModelAPIActionHandler,), attributes)


def test_a_model_instead_of_a_queryset_is_refused() -> None:
    with pytest.raises(
        ImproperlyConfigured, match=r"Rows.queryset must be a queryset, as in MemoryQuerySet\(Row\), got a cl"
    ):
        Rows.as_aaah(queryset=Row)


def test_an_unknown_lookup_field_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"Rows.lookup_field: .*did you mean 'slug'"):
        Rows.as_aaah(lookup_field="slugg")


class Entry(BaseModel):
    title: str


def schema(action: Any, name: str) -> set[str]:
    """The properties in the schema of an action's parameter, or of its return value."""
    kind: Any = action
    hints = {
        key: kind.resolve_annotation(hint, {}) for key, hint in get_type_hints(kind.create, include_extras=True).items()
    }
    return set(
        TypeAdapter(hints[name]).json_schema(mode="validation" if name == "data" else "serialization")["properties"]
    )


def test_input_and_output_types_are_known_at_class_creation() -> None:
    class Handler(generics.ModelAPIActionHandler):
        serializer_class = Shown
        input_serializer_class = Entry

    class Deciding(Handler):
        def get_serializer_class(self) -> Any:
            return Row

    for kind in (Handler, Deciding):
        assert schema(kind, "data") == {"title"}
        assert schema(kind, "return") == {"id", "slug"}
    page = TypeAdapter(Handler.resolve_annotation(OutputList, {})).json_schema(mode="serialization")
    assert page["properties"]["results"]["items"] == {"$ref": "#/$defs/Shown"}
    assert page["required"] == ["next", "previous", "results"]
    whole = TypeAdapter(Handler.resolve_annotation(OutputList, {"pagination_class": None})).json_schema(
        mode="serialization"
    )
    assert whole["items"] == {"$ref": "#/$defs/Shown"}
    assert Handler.resolve_annotation(int, {}) is int


async def test_serializers_may_be_given_at_mounting() -> None:
    class Handler(generics.ModelAPIActionHandler):
        queryset = MemoryQuerySet(Row, rows=[Row(id=1, slug="one")])
        serializer_class = Shown

    class Root(AsyncAPIConsumer):
        routepatterns = [
            path("brief/<int:pk>/", Handler.as_aaah()),
            path("full/<int:pk>/", Handler.as_aaah(serializer_class=Row, pagination_class=None)),
        ]

    async with talking(Root.as_asgi()) as ws:
        assert (await ws.call("retrieve", "brief/1/"))["data"] == ONE
        assert (await ws.call("retrieve", "full/1/"))["data"] == {**ONE, "user_id": 1, "secret": "secret"}
        assert (await ws.call("list", "full/1/"))["data"] == [{**ONE, "user_id": 1, "secret": "secret"}]


async def test_input_and_output_may_have_different_serializers() -> None:
    class In(BaseModel):
        slug: str

    class Handler(generics.ListCreateAPIActionHandler):
        queryset = MemoryQuerySet(Row)
        serializer_class, input_serializer_class = Shown, In

        def get_input_serializer_class(self) -> Any:
            return super().get_input_serializer_class()

    async with talking(Handler.as_aaah()) as ws:
        reply = await ws.call("create", data={"slug": "new", "secret": "x", "id": 9})
        assert (reply["status"], reply["data"]) == (201, {"id": 1, "slug": "new"})
        assert (await Handler.queryset.get(pk=1)).secret == "secret"
        assert (await ws.call("list"))["data"]["results"] == [{"id": 1, "slug": "new"}]


async def test_list_hooks_filter_and_wrap_the_page() -> None:
    class Handler(generics.ListAPIActionHandler):
        queryset, serializer_class = ROWS, Shown

        def filter_queryset(self, queryset: Any) -> Any:
            return queryset.filter(slug="seven")

        def get_paginated_response(self, page: Any, results: Any) -> Any:
            return {"found": results, "of": page.count}

    class Every(Handler):
        async def paginate_queryset(self, queryset: Any) -> Any:
            return None

    assert (await ask(Handler.as_aaah(), "list"))["data"] == {"found": [SEVEN], "of": 1}
    assert (await ask(Every.as_aaah(), "list"))["data"] == [SEVEN]


async def test_serialize_may_add_to_the_serializer() -> None:
    class Handler(generics.ReadOnlyModelAPIActionHandler):
        queryset, serializer_class = ROWS, Shown

        def serialize(self, obj: Any) -> Any:
            return {**super().serialize(obj).model_dump(), "more": True}

    assert (await ask(at("<int:pk>/", Handler), "retrieve", "7/"))["data"] == {**SEVEN, "more": True}


async def test_the_frame_names_a_key_pk_or_by_its_kwarg() -> None:
    view = at("rows/", Rows, lookup_field="slug", lookup_url_kwarg="name")
    assert (await ask(view, "retrieve", "rows/", pk="one"))["data"] == ONE
    assert (await ask(view, "retrieve", "rows/", name="one", pk="seven"))["data"] == ONE
    assert (await ask(view, "retrieve", "rows/", slug="one"))["status"] == 404


@pytest.mark.parametrize("name", ["serialize", "validate", "get_object", "filter_queryset", "ordering"])
def test_an_action_may_not_hide_a_hook(name: str) -> None:
    async def method(self: Any) -> None: ...

    with pytest.raises(ImproperlyConfigured, match=rf"Handler.{name} hides an attribute of the handler itself"):
        type("Handler", (generics.ListAPIActionHandler,), {name: async_action(method)})
    named = type("Handler", (generics.ListAPIActionHandler,), {"own": async_action(name=name)(method)})
    assert set(named.available_actions) == {"list", name}  # type: ignore[attr-defined]


async def test_a_consumer_lists_its_own_route() -> None:
    class Cards(generics.ListAPIConsumer):
        queryset, serializer_class = ROWS, Shown
        pagination_class = PageNumberPagination(page_size=1)

    async with talking(Cards.as_asgi()) as ws:
        first = (await ws.call("list"))["data"]
        assert (first["results"], first["next"], first["previous"]) == ([ONE], "?page=2", None)
        second = (await ws.call("list", first["next"]))["data"]
        assert (second["results"], second["next"], second["previous"]) == ([SEVEN], None, "")
        await ws.send_json({"action": "list", "route": "?page_size=1", "stream": True})
        assert [(await ws.receive_json())["data"] for _ in range(3)] == [[ONE], [SEVEN], None]


async def test_a_renamed_list_may_be_streamed() -> None:
    view = at("all/", generics.ListAPIActionHandler, queryset=ROWS, serializer_class=Shown, actions={"get_all": "list"})
    async with talking(view) as ws:
        assert (await ws.call("get_all", "all/"))["data"]["count"] == 2
        await ws.send_json({"action": "get_all", "route": "all/", "stream": True})
        replies = [await ws.receive_json() for _ in range(2)]
        assert [(reply["action"], reply["status"], reply["data"]) for reply in replies] == [
            ("get_all", 206, [ONE, SEVEN]),
            ("get_all", 200, None),
        ]


async def test_hooks_without_their_attribute_name_the_cure() -> None:
    class Handler(generics.GenericAsyncAPIActionHandler):
        @async_action
        async def objects(self) -> Any:
            return self.get_queryset()

        @async_action
        async def shown(self) -> Any:
            return self.get_serializer_class()

    for action, message in [
        ("objects", "Handler needs a queryset; set it"),
        ("shown", "Handler needs a serializer_class"),
    ]:
        reply = await ask(Handler.as_aaah(), action, debug=True)
        assert (reply["status"], message in reply["errors"][0]["ctx"]["exception"]) == (500, True)


@pytest.mark.parametrize("name", ["get_queryset", "get_serializer_class", "filter_queryset"])
def test_an_async_hook_that_is_not_awaited_is_refused(name: str) -> None:
    async def hook(self: Any, *args: Any) -> Any:
        raise NotImplementedError

    with pytest.raises(ImproperlyConfigured, match=rf"Cards\.{name} must be a plain def, got an async def; load what"):
        type("Cards", (generics.ListAPIActionHandler,), {name: hook})
