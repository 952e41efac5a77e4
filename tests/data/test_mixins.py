"""`wsaction.mixins`: the actions that are mixed into a generic handler, and the types in their signatures."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, JsonValue
from typing_extensions import TypeAliasType

from tests.support.cards import KINDS, Card, numbered, served, stored
from tests.support.driving import ask, talking, types_and_locs
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured, PermissionDenied
from wsaction.filters import OrderingFilter
from wsaction.generics import GenericAsyncAPIActionHandler, GenericAsyncAPIConsumer, ModelAPIActionHandler
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.mixins import (
    CreateModelMixin,
    Input,
    ListModelMixin,
    Output,
    OutputPages,
    PartialInput,
    RetrieveModelMixin,
)
from wsaction.pagination import CursorPagination, LimitOffsetPagination, PageNumberPagination
from wsaction.permissions import BasePermission
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path
from wsaction.serializers import ReadOnly, WriteOnly

CARD = {"id": 1, "owner_id": 1, "title": "card 1", "due": None, "done": False}


@pytest.mark.parametrize("generic", [GenericAsyncAPIActionHandler, GenericAsyncAPIConsumer])
def test_each_mixin_adds_its_actions(generic: Any) -> None:
    kind: Any = type("Cards", (RetrieveModelMixin, generic), {})
    assert list(kind.available_actions) == ["retrieve"]
    action = kind.available_actions["retrieve"]
    assert (action.options.status, action.options.summary, action.threaded) == (200, "Returns an object.", False)


async def test_actions_may_be_overridden_and_removed() -> None:
    class Cards(RetrieveModelMixin, GenericAsyncAPIActionHandler):
        queryset = MemoryQuerySet(Card, rows=numbered(1))
        serializer_class = Card

    class Wrapped(Cards):
        async def retrieve(self) -> Any:
            return {"card": await super().retrieve()}

    class Without(Cards):
        retrieve = None  # type: ignore[assignment]

    class Consumer(AsyncAPIConsumer):
        routepatterns = [
            path("a/<int:pk>/", Cards.as_aaah()),
            path("b/<int:pk>/", Wrapped.as_aaah()),
            path("c/<int:pk>/", Without.as_aaah()),
        ]

    view = Consumer.as_asgi()
    assert (await ask(view, "retrieve", "a/1/"))["data"] == CARD
    assert (await ask(view, "retrieve", "b/1/"))["data"] == {"card": CARD}
    assert (await ask(view, "retrieve", "c/1/"))["status"] == 405


async def test_a_mixin_needs_only_the_hooks_that_it_calls() -> None:
    class Own(RetrieveModelMixin, AsyncAPIActionHandler):
        async def get_object(self) -> Any:
            return 7

        def serialize(self, obj: int) -> Any:
            return [obj]

    assert (await ask(Own.as_aaah(), "retrieve"))["data"] == [7]


# ------------------------------------------------------------------------------------------------- writing
@pytest.mark.parametrize("kind", KINDS)
async def test_create(kind: str) -> None:
    async with stored(kind, numbered(1)) as cards, talking(served(cards)) as ws:
        reply = await ws.call("create", "cards/", data={"title": "new", "id": 77, "owner_id": 9, "colour": "red"})
        assert (reply["status"], reply["data"]) == (201, {**CARD, "id": 2, "title": "new"})
        assert types_and_locs(await ws.call("create", "cards/")) == [("missing", ["data"])]
        assert types_and_locs(await ws.call("create", "cards/", data=None)) == [("model_type", ["data"])]
        assert types_and_locs(await ws.call("create", "cards/", data={"due": "x"})) == [
            ("missing", ["data", "title"]),
            ("int_parsing", ["data", "due"]),
        ]
        assert await cards.count() == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_update(kind: str) -> None:
    rows = [Card(id=1, title="card 1", due=5, done=True), Card(id=2, title="other", due=6)]
    async with stored(kind, rows) as cards, talking(served(cards)) as ws:
        other = (await ws.call("retrieve", "cards/2/"))["data"]
        for data, changed in [
            ({"done": False}, {"done": False, "due": 5}),
            ({"due": None}, {"due": None}),
            ({}, {"due": None}),
            ({"title": "b", "owner_id": 9, "id": 2}, {"title": "b", "due": None}),
        ]:
            reply = await ws.call("partial_update", "cards/1/", data=data)
            assert (reply["status"], reply["data"]) == (200, {**CARD, **changed})
            assert (await ws.call("retrieve", "cards/1/"))["data"] == {**CARD, **changed}
        reply = await ws.call("update", "cards/1/", data={"title": "whole", "due": 1})
        assert (reply["status"], reply["data"]) == (200, {**CARD, "title": "whole", "due": 1})
        reply = await ws.call("update", "cards/1/", data={"title": "whole"})
        assert reply["data"] == {**CARD, "title": "whole"}  # missing fields get their defaults
        assert types_and_locs(await ws.call("update", "cards/1/", data={"due": 1})) == [("missing", ["data", "title"])]
        assert types_and_locs(await ws.call("partial_update", "cards/1/")) == [("missing", ["data"])]
        assert (await ws.call("partial_update", "cards/9/", data={"title": "x"}))["status"] == 404
        assert (await ws.call("retrieve", "cards/2/"))["data"] == other


@pytest.mark.parametrize("kind", KINDS)
async def test_destroy(kind: str) -> None:
    async with stored(kind, numbered(2)) as cards, talking(served(cards)) as ws:
        reply = await ws.call("destroy", "cards/1/")
        assert (reply["status"], reply["data"], reply["errors"]) == (204, None, [])
        for action in ("retrieve", "destroy"):
            assert (await ws.call(action, "cards/1/"))["status"] == 404
        assert [card.id async for card in cards] == [2]


@pytest.mark.parametrize("kind", KINDS)
async def test_perform_hooks_decide_what_is_written(kind: str) -> None:
    class Hooked(ModelAPIActionHandler):
        async def perform_create(self, values: dict[str, Any]) -> Any:
            return await super().perform_create({**values, "owner_id": 7})

        async def perform_update(self, obj: Any, values: dict[str, Any]) -> Any:
            return await super().perform_update(obj, {**values, "due": (obj.due or 0) + 1})

        async def perform_destroy(self, obj: Any) -> None:
            if not obj.done:
                raise PermissionDenied("It is not done.")
            await super().perform_destroy(obj)

    async with stored(kind, numbered(1)) as cards, talking(served(cards, bases=(Hooked,))) as ws:
        assert (await ws.call("create", "cards/", data={"title": "new"}))["data"]["owner_id"] == 7
        assert (await ws.call("partial_update", "cards/1/", data={}))["data"]["due"] == 1
        assert (await ws.call("update", "cards/1/", data={"title": "a", "due": 9}))["data"]["due"] == 2
        assert (await ws.call("destroy", "cards/1/"))["status"] == 403
        await ws.call("partial_update", "cards/1/", data={"done": True})
        assert (await ws.call("destroy", "cards/1/"))["status"] == 204


class ReadsOnly(BasePermission):
    def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any) -> bool:
        return bool(obj.owner_id == 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("action", "parameters"),
    [
        ("retrieve", {}),
        ("update", {"data": {"title": "mine"}}),
        ("update", {"data": {"title": 7}}),
        ("partial_update", {"data": {"title": "mine"}}),
        ("partial_update", {"data": []}),
        ("destroy", {}),
    ],
)
async def test_permissions_are_checked_before_validation_and_changes(kind: str, action: str, parameters: Any) -> None:
    async with stored(kind, numbered(1, owner_id=2)) as cards:
        before = [Card.model_validate(card, from_attributes=True) async for card in cards]
        async with talking(served(cards, permission_classes=(ReadsOnly,))) as ws:
            assert (await ws.call(action, "cards/1/", **parameters))["status"] == 403
        assert [Card.model_validate(card, from_attributes=True) async for card in cards] == before


async def test_an_error_after_a_change_rolls_it_back() -> None:
    class Failing(ModelAPIActionHandler):
        async def perform_update(self, obj: Any, values: dict[str, Any]) -> Any:
            await super().perform_update(obj, values)
            raise PermissionDenied

    async with stored("memory", numbered(1)) as cards:
        view = served(cards, bases=(Failing,))
        assert (await ask(view, "partial_update", "cards/1/", data={"title": "x"}))["status"] == 403
        assert (await cards.get(pk=1)).title == "card 1"


# ------------------------------------------------------------------------------------------------- lists
@pytest.mark.parametrize("kind", KINDS)
async def test_a_page_has_a_hundred_objects_by_default(kind: str) -> None:
    async with stored(kind, numbered(101)) as cards:
        reply = (await ask(served(cards), "list", "cards/"))["data"]
        assert list(reply) == ["count", "next", "previous", "results"]
        assert (reply["count"], reply["next"], reply["previous"]) == (101, "cards/?page=2", None)
        assert [card["id"] for card in reply["results"]] == [*range(1, 101)]
        assert reply["results"][0] == CARD
        by_offset = await ask(served(cards, pagination_class=LimitOffsetPagination), "list", "cards/?offset=100")
        assert by_offset["data"]["results"][0]["id"] == 101
        whole = await ask(served(cards, pagination_class=None), "list", "cards/")
        assert [card["id"] for card in whole["data"]] == [*range(1, 102)]


async def streamed(ws: Any, route: str, **parameters: Any) -> tuple[list[list[int]], dict[str, Any]]:
    """The keys in each partial reply, and the final reply."""
    await ws.send_json({"action": "list", "route": route, "stream": True, "request_id": 1, **parameters})
    parts = []
    while (reply := await ws.receive_json())["status"] == 206:
        parts.append([card["id"] for card in reply["data"]])
    return parts, reply


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("route", "attributes", "wanted"),
    [
        ("cards/", {}, [[1, 2, 3, 4, 5]]),
        ("cards/?page_size=2", {}, [[1, 2], [3, 4], [5]]),
        ("cards/", {"pagination_class": PageNumberPagination(page_size=5)}, [[1, 2, 3, 4, 5]]),
        ("cards/?limit=3", {"pagination_class": LimitOffsetPagination}, [[1, 2, 3], [4, 5]]),
        ("cards/", {"pagination_class": None}, [[1, 2, 3, 4, 5]]),
        (
            "cards/",
            {"pagination_class": CursorPagination(page_size=3, ordering="-pk", secret_key="s" * 16)},
            [[5, 4, 3], [2, 1]],
        ),
        (
            "cards/?ordering=-title&page_size=4",
            {"filter_backends": [OrderingFilter], "ordering_fields": ["title"]},
            [[5, 4, 3, 2], [1]],
        ),
    ],
)
async def test_a_list_may_be_streamed(kind: str, route: str, attributes: Any, wanted: Any) -> None:
    async with stored(kind, numbered(5)) as cards, talking(served(cards, **attributes)) as ws:
        parts, final = await streamed(ws, route)
        assert parts == wanted
        assert (final["status"], final["data"], final["errors"], final["request_id"]) == (200, None, [], 1)
        assert (await ws.call("list", "cards/", stream=False))["status"] == 200
        assert types_and_locs(await ws.call("list", "cards/", stream="yes")) == [("bool_type", ["stream"])]
        assert (await ws.call("retrieve", "cards/1/", stream=True))["data"] == CARD


class Shrinking(ModelAPIActionHandler):
    """Deletes each page once it is sent."""

    async def list_pages(self) -> OutputPages:
        async for page in super().list_pages():
            yield page
            for card in page:
                await self.queryset.delete(await self.queryset.get(pk=card.id))


class ShrinkingByTitle(Shrinking):
    def get_queryset(self) -> Any:
        return super().get_queryset().order_by("-title")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("handler", "wanted"), [(Shrinking, [[1, 2], [3, 4], [5]]), (ShrinkingByTitle, [[5, 4], [3, 2], [1]])]
)
async def test_a_stream_is_correct_while_rows_are_deleted(kind: str, handler: Any, wanted: Any) -> None:
    async with stored(kind, numbered(5)) as cards, talking(served(cards, bases=(handler,))) as ws:
        parts, final = await streamed(ws, "cards/?page_size=2")
        assert (parts, final["status"], await cards.count()) == (wanted, 200, 0)


async def test_a_stream_blocks_no_frames_and_can_be_cancelled() -> None:
    paused, go = asyncio.Event(), asyncio.Event()

    class Slow(ModelAPIActionHandler):
        def serialize_many(self, objs: Sequence[Any]) -> Any:
            paused.set()
            return super().serialize_many(objs)

    async with stored("memory", numbered(3)) as cards:
        rows = cards

        class Gated:
            pk, model = "id", Card

            def __getitem__(self, wanted: slice) -> Any:
                return self._walk(rows[wanted])

            async def _walk(self, queryset: Any) -> Any:
                async for card in queryset:
                    if card.id == 2:
                        await go.wait()
                    yield card

            async def get(self, **lookups: Any) -> Any:
                return await rows.get(**lookups)

        async with talking(served(Gated(), bases=(Slow,)), limits=Limits(max_concurrency=4)) as ws:
            await ws.send_json({"action": "list", "route": "cards/?page_size=1", "stream": True, "request_id": "s"})
            assert [card["id"] for card in (await ws.receive_json())["data"]] == [1]
            assert paused.is_set()
            assert types_and_locs(await ws.call("create", "cards/?page_size=1")) == [("missing", ["data"])]
            await ws.send_json({"action": "$cancel", "data": "s", "request_id": "c"})
            replies = {reply["request_id"]: reply["status"] for reply in [await ws.receive_json() for _ in range(2)]}
            assert replies == {"s": 499, "c": 200}


async def test_an_overridden_list_has_no_stream() -> None:
    class Own(ModelAPIActionHandler):
        async def list(self) -> Any:
            return "mine"

    class Both(ModelAPIActionHandler):
        async def list(self, stream: bool = False) -> Any:
            return "mine"

        async def list_pages(self) -> Any:
            yield "page"

    async with stored("memory", numbered(5)) as cards:
        reply = await ask(served(cards, bases=(Own,)), "list", "cards/", stream=True)
        assert (reply["status"], reply["data"]) == (200, "mine")
        async with talking(served(cards, bases=(Both,))) as ws:
            await ws.send_json({"action": "list", "route": "cards/", "stream": True})
            assert [(await ws.receive_json())["data"] for _ in range(2)] == ["page", None]
            assert (await ws.call("list", "cards/"))["data"] == "mine"


async def test_a_stream_checks_the_permissions_of_list() -> None:
    def no_lists(scope: Any, handler: Any, action: str) -> bool:
        return action != "list"

    async with stored("memory", numbered(5)) as cards:
        view = served(cards, permission_classes=(no_lists,))
        assert (await ask(view, "list", "cards/"))["status"] == 403
        assert (await ask(view, "list", "cards/", stream=True))["status"] == 403


async def test_a_stream_refuses_an_invalid_query() -> None:
    async with stored("memory", numbered(5)) as cards, talking(served(cards)) as ws:
        assert (await streamed(ws, "cards/?colour=red"))[1]["status"] == 400
        assert (await streamed(ws, "cards/?page_size=x"))[1]["status"] == 400


# ------------------------------------------------------------------------------------------------- slots
class Account(BaseModel):
    id: Annotated[int, ReadOnly]
    name: str
    pin: Annotated[str, WriteOnly] = "0"


async def test_custom_actions_may_use_input_and_output() -> None:
    class Accounts(GenericAsyncAPIActionHandler):
        queryset = MemoryQuerySet(Account, rows=[Account(id=1, name="ada", pin="secret")])
        serializer_class = Account

        @async_action
        async def rename(self, data: PartialInput) -> Output:
            obj = await self.get_object()
            return await self.get_queryset().update(obj, self.validate(data, obj, partial=True))

        @async_action
        async def echo(self, data: Input) -> Mapping[str, Any]:
            return self.validate(data)

        @async_action
        async def plain(self) -> Any:
            return [self.serialize(await self.get_object())]

    async with talking(Accounts.as_aaah()) as ws:
        assert (await ws.call("rename", pk=1, data={"name": "eve", "id": 9}))["data"] == {"id": 1, "name": "eve"}
        assert (await ws.call("echo", data={"name": "a"}))["data"] == {"name": "a", "pin": "0"}
        assert (await ws.call("plain", pk=1))["data"] == [{"id": 1, "name": "eve"}]


Several = TypeAliasType("Several", list[Output])


async def test_output_may_be_nested_in_other_types() -> None:
    class Accounts(GenericAsyncAPIActionHandler):
        queryset = MemoryQuerySet(Account, rows=[Account(id=1, name="ada", pin="secret")])
        serializer_class = Account

        @async_action
        async def several(self) -> list[Output]:
            return [card async for card in self.queryset]

        @async_action
        async def aliased(self) -> Several | None:
            return [card async for card in self.queryset]

        @async_action
        async def perhaps(self) -> Output | None:
            return await self.queryset.first()

        @async_action
        async def accepted(self) -> tuple[Output, int]:
            return await self.queryset.first(), 202

        @async_action
        async def each(self) -> AsyncIterator[Output]:
            yield await self.queryset.first()

        @async_action
        async def deep(self) -> Annotated[Mapping[str, tuple[Output | None, ...]], "of all"]:
            return {"all": (await self.queryset.first(), None)}

    shown = {"id": 1, "name": "ada"}
    async with talking(Accounts.as_aaah()) as ws:
        for action, status, data in (
            ("several", 200, [shown]),
            ("aliased", 200, [shown]),
            ("perhaps", 200, shown),
            ("accepted", 202, shown),
            ("deep", 200, {"all": [shown, None]}),
        ):
            reply = await ws.call(action)
            assert (reply["status"], reply["data"]) == (status, data)
        await ws.send_json({"action": "each"})
        assert (await ws.receive_json())["data"] == shown
    assert Accounts.resolve_annotation(JsonValue | None, {}) == JsonValue | None  # an alias that refers to itself


def test_streamed_by_needs_an_async_generator() -> None:
    with pytest.raises(
        ImproperlyConfigured, match=r"Bad.list is streamed_by 'list_pages', which is no async generator"
    ):

        class Bad(ListModelMixin, GenericAsyncAPIActionHandler):
            async def list_pages(self) -> Any:
                return []

    with pytest.raises(ImproperlyConfigured, match="is streamed_by 'nothing'"):

        class Missing(AsyncAPIActionHandler):
            @async_action(streamed_by="nothing")
            async def some(self) -> Any: ...


async def test_create_alone_needs_no_detail_route() -> None:
    class Cards(CreateModelMixin, GenericAsyncAPIConsumer):
        queryset = MemoryQuerySet(Card)
        serializer_class = Card

    assert (await ask(Cards.as_asgi(), "create", data={"title": "a"}))["status"] == 201


@pytest.mark.parametrize("hook", ["perform_create", "perform_update"])
async def test_a_hook_that_returns_no_object_is_an_error(hook: str) -> None:
    async def forgets(self: Any, *args: Any) -> None:
        pass

    async with stored("memory", numbered(1)) as cards:
        action, route = ("create", "cards/") if hook == "perform_create" else ("partial_update", "cards/1/")
        view = served(cards, **{hook: forgets})
        reply = await ask(view, action, route, data={"title": "a"}, debug=True)
        assert f"CardHandler.{hook}() must return the object, got None" in reply["errors"][0]["ctx"]["exception"]
