"""`wsaction._handlers.mounts`: nested handlers, and the permissions that apply to them."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import include as django_include  # type: ignore[import-untyped]
from django.urls import path as django_path
from django.urls import re_path as django_re_path

from tests.support.driving import ask, talking
from wsaction._handlers.mounts import as_prefixes, mount
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.permissions import AllowAny, BasePermission, DenyAll
from wsaction.routing import include, path, re_path


class Where(AsyncAPIActionHandler):
    """Replies with the name and captures of the handler that was reached."""

    name = ""

    @async_action
    async def where(self) -> Any:
        return [self.name or type(self).__name__, self.kwargs, list(self.args)]


def consumer_of(*patterns: Any, **attributes: Any) -> Any:
    kind: Any = type("Consumer", (Where, AsyncAPIConsumer), {"routepatterns": patterns, **attributes})
    return kind.as_asgi()


def named_view(name: str) -> Any:
    return Where.as_aaah(name=name)


def nesting(name: str, *patterns: Any, **attributes: Any) -> Any:
    kind: Any = type(name, (Where,), {"routepatterns": patterns, **attributes})
    return kind.as_aaah()


async def ask_where(view: Any, *routes: str) -> list[Any]:
    async with talking(view) as ws:
        replies = [await ws.call("where", route) for route in routes]
    return [reply["data"] if reply["status"] == 200 else reply["status"] for reply in replies]


# ------------------------------------------------------------------------------------------------- misuse
class Handler(AsyncAPIActionHandler):
    pass


class Another(AsyncAPIConsumer):
    pass


class Below(AsyncAPIActionHandler):
    pass


Below.routepatterns = [path("x/", include([path("again", Below.as_aaah())]))]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (lambda: path("a/<int:pk>", print), r"Consumer\.routepatterns, 'a/<int:pk>': expected a handler, as in Ca"),
        (lambda: re_path("^a$", print), r"Consumer\.routepatterns, '\^a\$': expected a handler"),
        (lambda: path("a", include([path("b", print)])), r"Consumer\.routepatterns, 'b': expected a handler"),
        (lambda: path("a", Another.as_asgi()), r"'a': Another is a consumer, which has a connection of its own"),
        (lambda: path("a", Below.as_aaah()), r"^Below\.routepatterns, 'again': Below is below itself, without end"),
        (lambda: nesting("Inner", path("b", print)), r"is what path\(\) or re_path\(\) returns, got <Inner as a view>"),
        (lambda: path("a", nesting("Inner", path("b", print))), r"^Inner\.routepatterns, 'b': expected a handler"),
        (lambda: "a", r"is what path\(\) or re_path\(\) returns, got 'a'"),
    ],
)  # fmt: skip
def test_an_unmountable_pattern_is_refused_with_its_place(pattern: Any, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        consumer_of(pattern())


@pytest.mark.parametrize("view", [Handler, Handler(), Handler.as_aaah])
def test_a_handler_that_is_not_a_view_is_refused_by_path(view: Any) -> None:
    with pytest.raises(TypeError, match="as_aaah"):
        path("a", view)


def test_a_nested_view_may_be_mounted_more_than_once() -> None:
    leaf = Handler.as_aaah()
    nest = nesting("Nest", path("b", leaf))
    consumer_of(path("a", nest), path("c", nest), path("d", nesting("Other", path("e", nest), path("f", leaf))))


# ------------------------------------------------------------------------------------------------- nesting
async def test_an_endpoint_is_matched_before_its_nested_patterns() -> None:
    board = nesting(
        "Board",
        path("", named_view("never: the endpoint is first")),
        path("cards/", named_view("cards")),
        path("cards/<int:card>/", nesting("Card", path("tags/<slug:tag>", named_view("tag")))),
        re_path(r"^(\d)!$", named_view("regex")),
    )
    view = consumer_of(
        path("boards/<int:board>/", board, {"extra": 1}), path("boards/7/cards/", named_view("too late"))
    )
    seven = {"board": 7, "extra": 1}
    assert await ask_where(
        view, "boards/07/", "boards/7/cards/", "boards/7/cards/8/", "boards/7/cards/8/tags/t", "boards/7/x/", "b/", ""
    ) == [
        ["Board", seven, []],
        ["cards", seven, []],
        ["Card", {**seven, "card": 8}, []],
        ["tag", {**seven, "card": 8, "tag": "t"}, []],
        404,
        404,
        ["Consumer", {}, []],
    ]  # fmt: skip


async def test_a_regex_ending_with_a_dollar_nests_without_it() -> None:
    board = nesting("Board", path("cards/", named_view("cards")), re_path(r"^x/(?P<n>\d)$", named_view("x")))
    view = consumer_of(re_path(r"^boards/(?P<pk>\w+)/$", board), re_path(r"^plain/\Z", board))
    assert await ask_where(view, "boards/a/", "boards/a/cards/", "boards/a/x/5", "boards/a/y", "plain/cards/") == [
        ["Board", {"pk": "a"}, []],
        ["cards", {"pk": "a"}, []],
        ["x", {"pk": "a", "n": "5"}, []],
        404,
        ["cards", {}, []],
    ]


async def test_includes_nest_patterns_but_are_not_handlers() -> None:
    inner = include(([path("<int:n>/", named_view("n")), path("", named_view("index"))], "app"), namespace="ns")
    view = consumer_of(
        path("i/<slug:s>/", inner, {"d": 1}),
        re_path(r"^r/", include([path("deep/", include([path("end", named_view("end"))]))])),
    )
    assert await ask_where(view, "i/a/", "i/a/5/", "r/deep/end", "r/", "i/a/5/6") == [
        ["index", {"s": "a", "d": 1}, []],
        ["n", {"s": "a", "d": 1, "n": 5}, []],
        ["end", {}, []],
        404,
        404,
    ]


async def test_patterns_of_django_are_accepted() -> None:
    view = consumer_of(
        django_path("d/<int:pk>/", named_view("django")),
        django_re_path(r"^r/(?P<pk>\d+)/$", nesting("Nest", django_path("below/", named_view("below")))),
        django_path(
            "i/", django_include([django_path("<slug:s>", named_view("included")), path("ours", named_view("ours"))])
        ),
        path("o/", include([django_path("theirs", named_view("theirs"))])),
    )
    assert await ask_where(view, "d/7/", "r/7/", "r/7/below/", "i/a", "o/theirs", "d/x/") == [
        ["django", {"pk": 7}, []],
        ["Nest", {"pk": "7"}, []],
        ["below", {"pk": "7"}, []],
        ["included", {"s": "a"}, []],
        ["theirs", {}, []],
        404,
    ]


async def test_one_view_may_be_mounted_in_many_places() -> None:
    view = named_view("shared")
    assert (
        await ask_where(consumer_of(path("a", view), path("b", include([path("", view)]))), "a", "b")
        == [["shared", {}, []]] * 2
    )


# ------------------------------------------------------------------------------------------------- permissions
class Asked(BasePermission):
    """Logs the handler that asked it; refuses if the frame's ``no`` is its name."""

    log: list[Any] = []

    def __init__(self, name: str) -> None:
        self.name = name

    def has_permission(self, scope: Any, handler: Any, action: str, no: str = "", **kwargs: Any) -> bool:
        self.log.append((self.name, type(handler).__name__, action, dict(handler.kwargs)))
        return no != self.name


@pytest.fixture
def log() -> Iterator[list[Any]]:
    Asked.log.clear()
    yield Asked.log
    Asked.log.clear()


def tree() -> Any:
    class Leaf(Where):
        permission_classes = (Asked("leaf"),)

        @async_action
        async def typed(self, n: int) -> int:
            return n

        @async_action(permission_classes=(Asked("own"),))
        async def own(self) -> None: ...

    deciding: dict[str, Any] = {"get_permissions": lambda self: [Asked("middle")]}
    middle = nesting("Middle", path("leaf/", Leaf.as_aaah()), **deciding)
    outer = nesting("Outer", path("<int:m>/", middle), permission_classes=(Asked("outer"),))
    return consumer_of(path("<int:o>/", include([path("x/", outer)])), permission_classes=(Asked("root"),))


async def test_permissions_are_asked_from_the_outermost_handler(log: list[Any]) -> None:
    view = tree()
    assert (await ask(view, "where", "1/x/2/leaf/"))["status"] == 200
    kwargs = {"o": 1, "m": 2}
    assert log == [
        ("root", "Consumer", "where", kwargs),
        ("outer", "Outer", "where", kwargs),
        ("middle", "Middle", "where", kwargs),
        ("leaf", "Leaf", "where", kwargs),
    ]
    log.clear()
    await ask(view, "where", "1/x/")
    assert [name for name, *_ in log] == ["root", "outer"]
    log.clear()
    await ask(view, "where", "")
    assert [name for name, *_ in log] == ["root"]


@pytest.mark.parametrize("no", ["root", "outer", "middle", "leaf"])
@pytest.mark.parametrize("action", ["where", "typed", "lost"])
async def test_a_refusal_comes_before_existence_and_validation(log: list[Any], action: str, no: str) -> None:
    reply = await ask(tree(), action, "1/x/2/leaf/", no=no, n="no number")
    assert (reply["status"], reply["errors"][0]["type"]) == (403, "permission_denied")
    assert [name for name, *_ in log] == ["root", "outer", "middle", "leaf"][: len(log)]
    assert log[-1][0] == no


async def test_an_unknown_protocol_action_asks_no_permission(log: list[Any]) -> None:
    reply = await ask(tree(), "$x", "1/x/2/leaf/", no="root")
    assert (reply["status"], reply["errors"][0]["type"]) == (405, "action_not_allowed")
    assert log == []


async def test_existence_and_validation_follow_the_permissions(log: list[Any]) -> None:
    view = tree()
    assert (await ask(view, "lost", "1/x/2/leaf/"))["errors"][0]["type"] == "action_not_allowed"
    assert (await ask(view, "typed", "1/x/2/leaf/", n="x"))["errors"][0]["type"] == "int_parsing"


async def test_action_permissions_replace_only_those_of_its_handler(log: list[Any]) -> None:
    view = tree()
    assert (await ask(view, "own", "1/x/2/leaf/"))["status"] == 200
    assert [name for name, *_ in log] == ["root", "outer", "middle", "own"]
    assert (await ask(view, "own", "1/x/2/leaf/", no="own"))["status"] == 403


async def test_an_unmatched_route_asks_the_root_permissions_first(log: list[Any]) -> None:
    view = tree()
    assert (await ask(view, "where", "lost/", no="root"))["status"] == 403
    assert (await ask(view, "where", "lost/"))["errors"][0]["type"] == "route_not_found"
    assert [name for name, *_ in log] == ["root", "root"]


class NoObject(BasePermission):
    def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any) -> bool:
        return False


async def test_permissions_above_apply_whatever_nested_ones_allow() -> None:
    class Leaf(Where):
        @async_action(permission_classes=(AllowAny,))
        async def open(self) -> None: ...

        @async_action
        async def of_the_root(self) -> None:
            await self.consumer.check_object_permissions(self)

    deny: dict[str, Any] = {"get_permissions": lambda self: [DenyAll]}
    by_default: dict[str, Any] = {
        "permission_classes": (DenyAll,),
        "get_permissions": lambda self: AsyncAPIActionHandler.get_permissions(self),
    }
    for attributes in (deny, by_default):
        view = consumer_of(path("in/", nesting("Above", path("leaf/", Leaf.as_aaah()), **attributes)))
        assert (await ask(view, "open", "in/leaf/"))["status"] == 403
    for attributes in ({"permission_classes": (NoObject,)}, {"get_permissions": lambda self: [NoObject]}):
        view = consumer_of(path("leaf/", Leaf.as_aaah()), **attributes)
        assert (await ask(view, "open", "leaf/"))["status"] == 200
        assert (await ask(view, "of_the_root", "leaf/"))["status"] == 403


# ------------------------------------------------------------------------------------------------- prefixes
async def test_without_strict_routing_prefixes_match_then_the_root() -> None:
    view = consumer_of(
        path("boards/<int:pk>/", nesting("Board", path("cards/", named_view("cards")))),
        re_path(r"^regex/$", named_view("regex")),
        path("inc/", include([path("in/", named_view("in"))])),
        path("b", named_view("b")),
        strict_routing=False,
    )
    assert await ask_where(
        view, "boards/7/", "boards/07/anything?q", "boards/7/cards/", "boards/7/cards/x", "regex/", "regex/x",
        "inc/in/", "inc/in/x", "bx", "nothing/at/all", "",
    ) == [
        ["Board", {"pk": 7}, []],
        ["Board", {"pk": 7}, []],
        ["cards", {"pk": 7}, []],  # a full match wins over a prefix
        ["Board", {"pk": 7}, []],
        ["regex", {}, []],
        ["Consumer", {}, []],
        ["in", {}, []],
        ["Consumer", {}, []],
        ["b", {}, []],
        ["Consumer", {}, []],
        ["Consumer", {}, []],
    ]  # fmt: skip


OF_THE_ROOT: dict[str, Any] = {
    "strict_routing": False,
    "limits": Limits(action_timeout=1),
    "outbox_policy": "drop_oldest",
    "connect": lambda self: asyncio.sleep(0),
    "disconnect": lambda self, code: asyncio.sleep(0),
}


@pytest.mark.parametrize("name", OF_THE_ROOT)
def test_root_only_attributes_are_refused_below_the_root(name: str) -> None:
    below = nesting("Inner", path("b/", named_view("b")), **{name: OF_THE_ROOT[name]})
    with pytest.raises(ImproperlyConfigured, match=f"Inner.{name} has no effect.*move it there"):
        consumer_of(path("a/", below))
    below.table  # noqa: B018  # which may be a root itself


def test_prefixes_come_from_paths_of_the_root_only() -> None:
    root = consumer_of().table.root
    patterns = tuple(
        mount([path("a", named_view("a")), re_path("b", named_view("b")), path("c", include([]))], (root,))
    )
    assert [str(prefix.pattern) for prefix in as_prefixes(patterns)] == ["a"]
