"""The test suite of `rest_framework_channels` 0.0.7 on wsaction; each test has its name from there.

The consumers are migrated as the README describes: a pydantic model replaces the serializer, and `MemoryQuerySet`
replaces the ORM's. A comment marks each place where wsaction differs on purpose.
"""

from types import SimpleNamespace
from typing import Annotated, Any

from pydantic import BaseModel, PlainSerializer

from tests.support.driving import talking
from wsaction import generics
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.pagination import PageNumberPagination
from wsaction.permissions import IsAuthenticated, IsOwner
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path, re_path
from wsaction.serializers import ReadOnly
from wsaction.testing import WebSocketSession, connect

DETAIL_ROUTE = r"test_child_route/(?P<pk>[-\w]+)/$"


class Row(BaseModel):
    id: Annotated[int, ReadOnly]
    title: str
    content: str


class Authored(BaseModel):
    id: int
    title: str
    content: str
    author: Annotated[Any, PlainSerializer(lambda author: author.pk)]  # written as its key, as by a ModelSerializer


class Pages(PageNumberPagination):
    page_size = 10
    page_size_query_param = "page_size"
    max_page_size = 100


class IsAuthor(IsOwner):
    lookup_field = "author"


ADA, BOB = (SimpleNamespace(pk=pk, id=pk, is_authenticated=True) for pk in (1, 2))


def rows(count: int) -> MemoryQuerySet[Row]:
    return MemoryQuerySet(Row, rows=[row(number) for number in range(1, count + 1)])


def row(number: int) -> Row:
    return Row(id=number, title=f"Title{number}", content=f"Content{number}")


def parent(*patterns: Any, **attributes: Any) -> Any:
    """A consumer with these routes: the ``ParentConsumer`` of the original tests."""
    return type("ParentConsumer", (AsyncAPIConsumer,), {"routepatterns": patterns, **attributes}).as_asgi()


async def answer(ws: WebSocketSession, **frame: Any) -> dict[str, Any]:
    """Sends a frame with exactly these keys, as the original tests do, and returns the next message."""
    await ws.send_json(frame)
    reply = await ws.receive_json()
    assert list(reply) == ["errors", "data", "action", "route", "status"]
    return reply


def success(data: Any, action: str, route: str = "", status: int = 200) -> dict[str, Any]:
    return {"errors": [], "data": data, "action": action, "route": route, "status": status}


def refused(reply: dict[str, Any], action: str, route: str = "", status: int = 403) -> bool:
    errors = reply.pop("errors")
    return len(errors) > 0 and reply == {"data": None, "action": action, "route": route, "status": status}


# ------------------------------------------------------------------------------------------------- test_decorators
class Echoes(AsyncAPIActionHandler):
    @async_action()
    async def test_action(self, pk: Any = None, **kwargs: Any) -> Any:
        return {"pk": pk}, 200


async def test_decorator_action() -> None:
    class ParentConsumer(AsyncAPIConsumer):
        @async_action()
        async def test_action(self, pk: Any = None, **kwargs: Any) -> Any:
            return {"pk": pk}, 200

    async with talking(ParentConsumer.as_asgi()) as ws:
        assert await answer(ws, action="test_action", pk=2) == success({"pk": 2}, "test_action")


# ------------------------------------------------------------------------------------------------- test_generics
async def test_create_api_action_handler() -> None:
    class ChildActionHandler(generics.CreateAPIActionHandler):
        serializer_class = Row
        queryset = rows(0)

    async with talking(parent(path("test_child_route/", ChildActionHandler.as_aaah()))) as ws:
        data = {"title": "Title", "content": "Content"}
        reply = await answer(ws, action="create", data=data, route="test_child_route/")
        assert reply == success({"id": 1, **data}, "create", "test_child_route/", 201)
        assert (await ChildActionHandler.queryset.get(pk=1)).model_dump() == reply["data"]


async def test_create_api_consumer() -> None:
    class ParentConsumer(generics.CreateAPIConsumer):
        serializer_class = Row
        queryset = rows(0)

    async with talking(ParentConsumer.as_asgi()) as ws:
        data = {"title": "Title", "content": "Content"}
        reply = await answer(ws, action="create", data=data)
        assert reply == success({"id": 1, **data}, "create", "", 201)
        assert (await ParentConsumer.queryset.get(pk=1)).model_dump() == reply["data"]


async def test_list_api_action_handler() -> None:
    class ChildActionHandler(generics.ListAPIActionHandler):
        serializer_class = Row
        queryset = rows(2)
        pagination_class = None  # the default there; wsaction's default is pages of 100

    async with talking(parent(path("test_child_route/", ChildActionHandler.as_aaah()))) as ws:
        reply = await answer(ws, action="list", route="test_child_route/")
        assert reply == success([row(1).model_dump(), row(2).model_dump()], "list", "test_child_route/")


async def test_list_api_consumer() -> None:
    class ParentConsumer(generics.ListAPIConsumer):
        serializer_class = Row
        queryset = rows(2)
        pagination_class = None

    async with talking(ParentConsumer.as_asgi()) as ws:
        assert await answer(ws, action="list") == success([row(1).model_dump(), row(2).model_dump()], "list")


async def check_pages(ws: WebSocketSession, route: str) -> None:
    def page(number: int, following: str | None, previous: str | None) -> dict[str, Any]:
        results = [row(n).model_dump() for n in range(10 * number - 9, 10 * number + 1)]
        return {"count": 100, "next": following, "previous": previous, "results": results}

    fourth = page(4, f"{route}?page=5", f"{route}?page=3")
    assert await answer(ws, action="list", route=f"{route}?page=4") == success(fourth, "list", f"{route}?page=4")
    last = page(10, None, f"{route}?page=9")
    assert await answer(ws, action="list", route=f"{route}?page=10") == success(last, "list", f"{route}?page=10")


async def test_pagenated_list_api_action_handler() -> None:
    class ChildActionHandler(generics.ListAPIActionHandler):
        serializer_class = Row
        queryset = rows(100)
        pagination_class = Pages

    async with talking(parent(path("test_child_route/", ChildActionHandler.as_aaah()))) as ws:
        await check_pages(ws, "test_child_route/")


async def test_pagenated_list_api_consumer() -> None:
    class ParentConsumer(generics.ListAPIConsumer):
        serializer_class = Row
        queryset = rows(100)
        pagination_class = Pages

    async with talking(ParentConsumer.as_asgi()) as ws:
        await check_pages(ws, "")


async def test_retrieve_api_action_handler() -> None:
    class ChildActionHandler(generics.RetrieveAPIActionHandler):
        serializer_class = Row
        queryset = rows(2)

    async with talking(parent(re_path(DETAIL_ROUTE, ChildActionHandler.as_aaah()))) as ws:
        reply = await answer(ws, action="retrieve", route="test_child_route/1/")
        assert reply == success(row(1).model_dump(), "retrieve", "test_child_route/1/")
        # rest_framework_channels replies with 500
        assert refused(
            await answer(ws, action="retrieve", route="test_child_route/3/"), "retrieve", "test_child_route/3/", 404
        )


async def test_retrieve_api_consumer() -> None:
    class ParentConsumer(generics.RetrieveAPIConsumer):
        serializer_class = Row
        queryset = rows(1)

    async with talking(ParentConsumer.as_asgi(), "/testws/1/", at="testws/<int:pk>/") as ws:
        assert await answer(ws, action="retrieve") == success(row(1).model_dump(), "retrieve")


async def test_update_api_action_handler() -> None:
    class ChildActionHandler(generics.UpdateAPIActionHandler):
        serializer_class = Row
        queryset = rows(2)

    route = "test_child_route/1/"
    async with talking(parent(re_path(DETAIL_ROUTE, ChildActionHandler.as_aaah()))) as ws:
        reply = await answer(ws, action="partial_update", data={"title": "titletitle"}, route=route)
        assert reply == success({**row(1).model_dump(), "title": "titletitle"}, "partial_update", route)
        assert (await ChildActionHandler.queryset.get(pk=1)).model_dump() == reply["data"]

        assert refused(
            await answer(ws, action="update", data={"title": "titletitle"}, route=route), "update", route, 400
        )

        whole = {"id": 1, "title": "titletitle", "content": "contentcontent"}
        assert await answer(ws, action="update", data=whole, route=route) == success(whole, "update", route)
        assert (await ChildActionHandler.queryset.get(pk=1)).model_dump() == whole


async def test_destroy_api_action_handler() -> None:
    class ChildActionHandler(generics.DestroyAPIActionHandler):
        queryset = rows(2)

    async with talking(parent(re_path(DETAIL_ROUTE, ChildActionHandler.as_aaah()))) as ws:
        reply = await answer(ws, action="destroy", route="test_child_route/1/")
        assert reply == success(None, "destroy", "test_child_route/1/", 204)
        assert [item.id async for item in ChildActionHandler.queryset] == [2]


async def test_destroy_api_consumer() -> None:
    class ParentConsumer(generics.DestroyAPIConsumer):
        queryset = rows(1)
        strict_routing = False  # the consumer handles a route that no pattern matches

    async with talking(ParentConsumer.as_asgi(), "/testws/1/", at="testws/<int:pk>/") as ws:
        reply = await answer(ws, action="destroy", route="test_child_route/1/")
        assert reply == success(None, "destroy", "test_child_route/1/", 204)
        assert not await ParentConsumer.queryset.exists()


# ------------------------------------------------------------------------------------------------- test_handlers
class Failing(AsyncAPIActionHandler):
    @async_action()
    async def test_exception(self, **kwargs: Any) -> Any:
        raise ValueError("Error")


async def test_exception_debug() -> None:
    """wsaction replies with the exception and its traceback, and the connection stays open.

    In rest_framework_channels, the exception ends the connection. In both, a developer sees what went wrong.
    """
    route = "test_async_child_route/"
    async with talking(parent(path(route, Failing.as_aaah())), debug=True) as ws:
        for _ in range(2):
            reply = await answer(ws, action="test_exception", route=route)
            assert reply["errors"][0]["ctx"]["exception"] == "ValueError('Error')"
            assert 'raise ValueError("Error")' in reply["errors"][0]["ctx"]["traceback"]
            assert refused(reply, "test_exception", route, 500)


async def test_exception_production() -> None:
    route = "test_async_child_route/"
    async with talking(parent(path(route, Failing.as_aaah()))) as ws:
        reply = await answer(ws, action="test_exception", route=route)
        assert "ValueError" not in str(reply)
        assert refused(reply, "test_exception", route, 500)


class Capturing(AsyncAPIActionHandler):
    captured: dict[str, Any] = {}

    @async_action()
    async def test_async_action(self, pk: Any = None, **kwargs: Any) -> Any:
        self.captured["test_async_action"] = self.kwargs
        return {"pk": pk}, 200

    @async_action()
    def test_sync_action(self, pk: Any = None, **kwargs: Any) -> Any:
        self.captured["test_sync_action"] = self.kwargs
        return {"pk": pk, "sync": True}, 200


async def test_decorator_sync_route() -> None:
    patterns = [path(f"test_{kind}_child_route/", Capturing.as_aaah()) for kind in ("async", "sync")]
    async with talking(parent(*patterns, strict_routing=False)) as ws:  # the sent routes are longer than the patterns
        route = "test_async_child_route/test_async_action/"
        reply = await answer(ws, action="test_async_action", pk=2, route=route)
        assert reply == success({"pk": 2}, "test_async_action", route)

        route = "test_sync_child_route/test_sync_action/"
        reply = await answer(ws, action="test_sync_action", pk=3, route=route)
        assert reply == success({"pk": 3, "sync": True}, "test_sync_action", route)


async def test_decorator_async_route() -> None:
    tail = r"(?P<child_id>[-\w]+)/$"
    patterns = [re_path(f"test_{kind}_child_route/{tail}", Capturing.as_aaah()) for kind in ("async", "sync")]
    async with talking(parent(*patterns)) as ws:
        reply = await answer(ws, action="test_async_action", pk=2, route="test_async_child_route/2/")
        assert reply == success({"pk": 2}, "test_async_action", "test_async_child_route/2/")
        assert Capturing.captured["test_async_action"] == {"child_id": "2"}

        reply = await answer(ws, action="test_sync_action", pk=3, route="test_sync_child_route/3/")
        assert reply == success({"pk": 3, "sync": True}, "test_sync_action", "test_sync_child_route/3/")
        assert Capturing.captured["test_sync_action"] == {"child_id": "3"}


async def test_broadcast() -> None:
    called: list[str] = []

    class ChildConsumer(AsyncAPIActionHandler):
        permission_classes = (IsAuthenticated,)

        @async_action(mode="broadcast", broadcast_type="test.called")
        async def test_async_action(self, **kwargs: Any) -> Any:
            return {"test": "content"}, 200

    class ParentConsumer(AsyncAPIConsumer):
        group_send_lookup_kwargs = "group_id"
        routepatterns = (path("test_async_child_route/", ChildConsumer.as_aaah()),)

        async def test_called(self, event: dict[str, Any]) -> None:
            called.append(self.kwargs["group_id"])
            await self.send_json(event)

    app = WSAction([path("testws/<str:group_id>/", ParentConsumer.as_asgi())])
    frame = {"action": "test_async_action", "route": "test_async_child_route/"}
    group, other = "/testws/1234-5678/", "/testws/another/"
    async with connect(app, group, user=ADA) as ada, connect(app, group) as anonymous, connect(app, other) as elsewhere:
        assert refused(await answer(anonymous, **frame), frame["action"], frame["route"])

        event = {"type": "test.called", "data": {"test": "content"}, "status": 200}
        await ada.send_json(frame)
        assert await ada.receive_json() == success({"test": "content"}, frame["action"], frame["route"])
        assert await ada.receive_json() == event
        assert await anonymous.receive_json() == event
        await elsewhere.nothing()
        assert called == ["1234-5678"] * 2


# ------------------------------------------------------------------------------------------------- test_permissions
async def test_parent_is_authenticated() -> None:
    route = "test_child_route/"
    view = parent(path(route, Echoes.as_aaah()), permission_classes=(IsAuthenticated,))
    async with talking(view) as ws:
        assert refused(await answer(ws, action="test_action", pk=2, route=route), "test_action", route)
    async with talking(view, user=ADA) as ws:
        reply = await answer(ws, action="test_action", pk=3, route=route)
        assert reply == success({"pk": 3}, "test_action", route)


async def test_child_is_authenticated() -> None:
    class ParentConsumer(AsyncAPIConsumer):
        routepatterns = (path("test_child_route/", Echoes.as_aaah(permission_classes=(IsAuthenticated,))),)

        @async_action()
        async def test_parent_action(self, pk: Any = None, **kwargs: Any) -> Any:
            return {"pk": pk}, 200

    view, route = ParentConsumer.as_asgi(), "test_child_route/"
    async with talking(view) as ws:
        assert await answer(ws, action="test_parent_action", pk=2) == success({"pk": 2}, "test_parent_action")
        assert refused(await answer(ws, action="test_action", pk=3, route=route), "test_action", route)
    async with talking(view, user=ADA) as ws:
        reply = await answer(ws, action="test_action", pk=3, route=route)
        assert reply == success({"pk": 3}, "test_action", route)


async def check_owner(view: Any, url: str, at: str, route: dict[str, str]) -> None:
    where = route.get("route", "")
    for user in (None, BOB):
        async with talking(view, url, at=at, user=user) as ws:
            assert refused(await answer(ws, action="retrieve", **route), "retrieve", where)
    async with talking(view, url, at=at, user=ADA) as ws:
        shown = {"id": 1, "title": "Title", "content": "Content", "author": 1}
        assert await answer(ws, action="retrieve", **route) == success(shown, "retrieve", where)


def authored() -> MemoryQuerySet[Authored]:
    return MemoryQuerySet(Authored, rows=[Authored(id=1, title="Title", content="Content", author=ADA)])


async def test_parent_is_owner() -> None:
    class ParentConsumer(generics.RetrieveAPIConsumer):
        queryset = authored()
        serializer_class = Authored
        permission_classes = (IsAuthor,)

    await check_owner(ParentConsumer.as_asgi(), "/testws/1/", "testws/<int:pk>/", {})


async def test_child_is_owner() -> None:
    class ChildActionHandler(generics.RetrieveAPIActionHandler):
        queryset = authored()
        serializer_class = Authored
        permission_classes = (IsAuthor,)

    view = parent(re_path(DETAIL_ROUTE, ChildActionHandler.as_aaah()))
    await check_owner(view, "/testws/", "testws/", {"route": "test_child_route/1/"})
