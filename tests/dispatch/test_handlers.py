"""`wsaction.handlers`: mounting a handler, the values of its frame, and its permissions."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from tests.support.driving import ask, talking
from wsaction._handlers import mounts
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured, NotFound, PermissionDenied
from wsaction.handlers import ActionView, AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.permissions import AllowAny, BasePermission, DenyAll, IsAuthenticated, IsOwner
from wsaction.permissions._classes import compile_permissions
from wsaction.routers import SimpleRouter
from wsaction.routing import path, re_path
from wsaction.testing import HandshakeRefused, connect

ADA = SimpleNamespace(is_authenticated=True, pk=1, name="ada")
BOB = SimpleNamespace(is_authenticated=True, pk=2, name="bob")


class Cards(AsyncAPIActionHandler):
    """Cards of a board."""

    serializer_class: Any = None
    page_size: ClassVar[int] = 100

    @async_action(name="list")
    async def get_all(self) -> Any:
        return self.page_size

    @async_action
    async def update(self, n: int) -> Any:
        return [n, self.action]

    def helper(self) -> None: ...


def mounted(view: Any, route: str = "cards/") -> ActionView:
    """A consumer with one route."""
    consumer: Any = type("Consumer", (AsyncAPIConsumer,), {"routepatterns": [path(route, view)]})
    served: ActionView = consumer.as_asgi()
    return served


# ------------------------------------------------------------------------------------------------- as_aaah
def test_a_view_describes_its_handler() -> None:
    view = Cards.as_aaah(page_size=5)
    assert (view.handler_class, view.initkwargs, list(view.actions)) == (Cards, {"page_size": 5}, ["list", "update"])
    assert (view.__name__, view.__doc__, repr(view)) == ("Cards", "Cards of a board.", "<Cards as a view>")
    assert callable(view)


async def test_initkwargs_apply_to_their_mount_only() -> None:
    class Consumer(AsyncAPIConsumer):
        routepatterns = [path("few/", Cards.as_aaah(page_size=5)), path("many/", Cards.as_aaah())]

    view = Consumer.as_asgi()
    assert (await ask(view, "list", "few/"))["data"] == 5
    assert (await ask(view, "list", "many/"))["data"] == 100
    assert Cards.page_size == 100


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("page_sise", "did you mean 'page_size'?"),
        ("permision_classes", "did you mean 'permission_classes'?"),
        ("zzz", "it has permission_classes, throttle_classes, throttle_scope, helper, page_size, serializer_class"),
        ("update", "did you mean 'page_size'?|it has permission_classes"),
        ("get_all", "it has|did you mean"),
        ("route", "it has|did you mean"),
        ("routepatterns", "it has|did you mean"),
        ("_frame", "it has|did you mean"),
    ],
)
def test_an_unknown_initkwarg_is_refused(name: Any, hint: str) -> None:
    wanted = rf"^Cards: expected attributes of the class, no actions or hooks, got '{name}'; ({hint})"
    with pytest.raises(ImproperlyConfigured, match=wanted.replace("?", r"\?")):
        Cards.as_aaah(**{name: None})


def test_a_wrong_mounting_method_names_the_right_one() -> None:
    class Consumer(AsyncAPIConsumer): ...

    for name in ("as_asgi", "as_view"):
        with pytest.raises(AttributeError, match=rf"^Cards has no {name}\(\); a handler is mounted with as_aaah\(\)$"):
            getattr(Cards, name)
        assert not hasattr(Cards(), name)
    with pytest.raises(AttributeError, match=r"^Consumer has no as_view\(\); a consumer is mounted with as_asgi\(\)$"):
        Consumer.as_view()
    with pytest.raises(TypeError, match=r"pass Consumer\.as_asgi\(\), not Consumer\."):
        path("ws/", Consumer)
    with pytest.raises(TypeError, match=r"pass Cards\.as_aaah\(\), not Cards\."):
        path("cards/", Cards)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (SimpleRouter(), r"got <.*SimpleRouter object .*>; pass its urls\.$"),
        (path("a/", Cards.as_aaah()), r"takes a list, and got one path\(\); put it in one: \[path\(\.\.\.\)\]\.$"),
    ],
)
def test_routepatterns_must_be_a_list(patterns: Any, message: str) -> None:
    consumer: Any = type("Consumer", (AsyncAPIConsumer,), {"routepatterns": patterns})
    with pytest.raises(ImproperlyConfigured, match=rf"^Consumer\.routepatterns .*{message}"):
        consumer.as_asgi()


async def test_permission_classes_may_be_an_initkwarg() -> None:
    view = mounted(Cards.as_aaah(permission_classes=(DenyAll,)))
    assert (await ask(view, "list", "cards/"))["status"] == 403
    assert (await ask(mounted(Cards.as_aaah(permission_classes=())), "list", "cards/"))["status"] == 200


@pytest.mark.parametrize(
    ("actions", "names"),
    [
        (None, ["list", "update"]),
        (("list",), ["list"]),
        (["update", "list"], ["update", "list"]),
        ({"get_all": "list"}, ["get_all"]),
        ({"a": "list", "b": "list"}, ["a", "b"]),
        ((), []),
        ({}, []),
    ],
)
async def test_a_mount_has_only_the_actions_it_is_given(actions: Any, names: list[str]) -> None:
    view = Cards.as_aaah(actions=actions)
    assert list(view.actions) == names
    served = mounted(view)
    for name in ("list", "update", "get_all", "a", "b"):
        assert (await ask(served, name, "cards/", n=1))["status"] == (200 if name in names else 405)


async def test_self_action_is_the_declared_name_of_a_renamed_action() -> None:
    reply = await ask(mounted(Cards.as_aaah(actions={"patch": "update"})), "patch", "cards/", n=1)
    assert reply == {"errors": [], "data": [1, "update"], "action": "patch", "route": "cards/", "status": 200}


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (("lost",), r"Cards has no action 'lost' for as_aaah\(actions=...\); did you mean 'list'\?"),
        (("get_all",), "Cards has no action 'get_all' for .*; it has list, update"),
        ({"x": "zzz"}, "no action 'zzz'.*; it has list, update"),
        ((5,), "no action 5 .*; it has list, update"),
        ("list", r"Cards.as_aaah\(actions=...\): expected names, as in actions=\('list',\), got a string"),
        ({"$x": "list"}, r"does not begin with '\$'"),
        ({"": "list"}, "not empty"),
    ],
)
def test_invalid_actions_of_a_mount_are_refused(actions: Any, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        Cards.as_aaah(actions=actions)


def test_the_error_for_a_handler_without_actions_says_so() -> None:
    class Empty(AsyncAPIActionHandler):
        pass

    with pytest.raises(ImproperlyConfigured, match=r"Empty has no action 'list' .*; it has none"):
        Empty.as_aaah(actions=("list",))


# ------------------------------------------------------------------------------------------------- values of the frame
async def test_a_handler_has_the_values_of_its_frame() -> None:
    seen: list[Any] = []

    class Handler(AsyncAPIActionHandler):
        @async_action(name="look")
        def see(self) -> Any:
            seen.append(self)
            query = {key: self.query_params.getlist(key) for key in self.query_params}
            return [self.action, self.route, self.request_id, list(self.args), self.kwargs, query]

    class Consumer(AsyncAPIConsumer):
        routepatterns = [
            path("b/<int:pk>/", Handler.as_aaah(), {"fixed": 1}),
            re_path(r"^u/(\d)/(\w)$", Handler.as_aaah()),
        ]

    async with talking(Consumer.as_asgi(), "/ws/lobby/?x=not+ours", at="ws/<room>/", user=ADA) as ws:
        reply = await ws.call("look", "b/07/?page=4&q=a%20b&q=&é=1", request_id="7")
        kwargs = {"room": "lobby", "pk": 7, "fixed": 1}
        query = {"page": ["4"], "q": ["a b", ""], "é": ["1"]}
        assert reply["data"] == ["look", "b/07/?page=4&q=a%20b&q=&é=1", "7", [], kwargs, query]
        await ws.send_json({"action": "look", "route": "u/1/a"})
        reply = await ws.receive_json()
        assert reply["data"] == ["look", "u/1/a", None, ["1", "a"], {"room": "lobby"}, {}]
    first, second = seen
    assert first is not second
    assert first.consumer is second.consumer
    assert type(first.consumer) is Consumer
    assert first.scope is second.scope is first.consumer.scope
    assert first.scope["path"] == "/ws/lobby/"
    assert first.user is ADA


async def test_kwargs_are_a_copy_for_each_frame() -> None:
    class Handler(AsyncAPIActionHandler):
        @async_action
        async def change(self, **kwargs: Any) -> Any:
            before = dict(self.kwargs)
            self.kwargs["pk"] = kwargs["pk"] = 666
            assert self.kwargs["pk"] == 666
            return before

    async with talking(mounted(Handler.as_aaah(), "b/<int:pk>/")) as ws:
        for _ in range(2):
            assert (await ws.call("change", "b/7/"))["data"] == {"pk": 7}


async def test_an_instance_serves_one_frame() -> None:
    class Handler(AsyncAPIActionHandler):
        count = 0

        @async_action
        async def add(self) -> int:
            self.count += 1
            return self.count

    async with talking(mounted(Handler.as_aaah())) as ws:
        assert [(await ws.call("add", "cards/"))["data"] for _ in range(3)] == [1, 1, 1]


async def test_an_action_may_close_the_connection() -> None:
    class Handler(AsyncAPIActionHandler):
        @async_action(mode="none")
        async def leave(self) -> None:
            await self.close(4000, "bye")

    async with talking(mounted(Handler.as_aaah())) as ws:
        await ws.send_json({"action": "leave", "route": "cards/"})
        assert await ws.wait_closed() == (4000, "bye")


# ------------------------------------------------------------------------------------------------- served alone
class Alone(AsyncAPIActionHandler):
    limits = Limits(max_route_length=10)
    routepatterns = [path("cards/", Cards.as_aaah(page_size=7))]
    count = 0

    async def connect(self) -> None:
        self.count = 10

    @async_action
    async def add(self) -> Any:
        self.count += 1
        return [self.count, self.consumer.count, self.consumer is self, self.route]


async def test_a_handler_may_be_served_alone_with_its_routes() -> None:
    async with connect(Alone.as_aaah()) as ws:
        for _ in range(2):  # each frame has a new instance; the connection has one of its own
            assert (await ws.call("add"))["data"] == [1, 10, False, ""]
        assert (await ws.call("list", "cards/"))["data"] == 7
        reply = await ws.call("list", "x/")
        assert (reply["status"], reply["errors"][0]["type"]) == (404, "route_not_found")
        assert (await ws.call("add", "x" * 11))["errors"][0]["ctx"]["limit"] == "max_route_length"


async def test_an_app_routes_to_a_handler_as_to_a_consumer() -> None:
    async with talking(Cards.as_aaah(actions=("update",)), "/ws/7/", at="ws/<int:n>/") as ws:
        assert (await ws.call("update", n=1))["data"] == [7, "update"]
        assert (await ws.call("list"))["status"] == 405


async def test_a_bad_pattern_of_a_handler_alone_fails_the_handshake(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Wrong(AsyncAPIActionHandler):
        routepatterns = [path("x", print)]

    view = Wrong.as_aaah()
    with pytest.raises(ImproperlyConfigured, match=r"Wrong\.routepatterns, 'x': expected a handler"):
        view.table  # noqa: B018
    with pytest.raises(HandshakeRefused) as refused:
        async with connect(view):
            pass
    assert refused.value.status == 500
    assert "Wrong.routepatterns, 'x': expected a handler" in caplog.text


# ------------------------------------------------------------------------------------------------- permissions
class OnMondays(BasePermission):
    message = "Only on Mondays."
    code = "mondays"

    def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
        return False


async def test_a_refusal_has_the_permissions_message_and_code() -> None:
    class Handler(Cards):
        permission_classes = (OnMondays,)

    (error,) = (await ask(mounted(Handler.as_aaah()), "list", "cards/"))["errors"]
    assert error == {"type": "permission_denied", "msg": "Only on Mondays.", "ctx": {"code": "mondays"}}
    (error,) = (await ask(mounted(Cards.as_aaah(permission_classes=(DenyAll,))), "list", "cards/"))["errors"]
    assert error == {"type": "permission_denied", "msg": PermissionDenied.code[2]}


async def test_an_actions_own_permissions_replace_the_handlers() -> None:
    class Handler(AsyncAPIActionHandler):
        permission_classes = (DenyAll,)

        @async_action
        async def default(self) -> None: ...

        @async_action(permission_classes=(AllowAny,))
        async def open(self) -> None: ...

        @async_action(permission_classes=())
        async def empty(self) -> None: ...

        @async_action(permission_classes=(IsAuthenticated,))
        async def users(self) -> None: ...

    async with talking(mounted(Handler.as_aaah())) as ws:
        statuses = [(await ws.call(name, "cards/"))["status"] for name in ("default", "open", "empty", "users", "none")]
    assert statuses == [403, 200, 200, 403, 403]
    async with talking(mounted(Handler.as_aaah()), user=ADA) as ws:
        assert (await ws.call("users", "cards/"))["status"] == 200


async def test_a_permission_gets_scope_handler_action_and_kwargs() -> None:
    asked: list[Any] = []

    async def permission(scope: Any, handler: Any, action: str, pk: Any = None, **kwargs: Any) -> bool:
        asked.append((scope["path"], type(handler).__name__, handler.action, action, pk, kwargs))
        return True

    class Handler(Cards):
        permission_classes = (permission,)

    view = mounted(Handler.as_aaah(actions={"patch": "update"}), "c/<int:pk>/")
    assert (await ask(view, "patch", "c/7/", request_id=1, n=2, pk=3, handler=4, scope=5, self=6))["status"] == 200
    assert (await ask(view, "lost", "c/7/", request_id=1))["status"] == 405
    frame = {"route": "c/7/", "request_id": 1}
    assert asked == [
        ("/", "Handler", "update", "update", 7, {**frame, "n": 2}),
        ("/", "Handler", "lost", "lost", 7, frame),
    ]


async def test_an_exception_of_a_permission_is_the_error_reply() -> None:
    def hidden(scope: Any, handler: Any, action: str) -> bool:
        raise NotFound

    def broken(scope: Any, handler: Any, action: str) -> bool:
        raise ZeroDivisionError

    for permission, status in ((hidden, 404), (broken, 500)):
        assert (await ask(mounted(Cards.as_aaah(permission_classes=(permission,))), "list", "cards/"))[
            "status"
        ] == status


async def test_get_permissions_decides_for_each_frame() -> None:
    class Handler(Cards):
        permission_classes = (DenyAll,)

        def get_permissions(self) -> Any:
            if self.action == "list":
                return [AllowAny]
            return super().get_permissions()

        @async_action(permission_classes=(IsAuthenticated,))
        async def own(self) -> None: ...

    for user, statuses in ((None, [200, 403, 403, 403]), (ADA, [200, 403, 200, 403])):
        async with talking(mounted(Handler.as_aaah()), user=user) as ws:
            received = [(await ws.call(name, "cards/", n=1))["status"] for name in ("list", "update", "own", "none")]
        assert received == statuses


async def test_repeated_results_of_get_permissions_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []

    class Switched(BasePermission):
        on = [False, True]

        def __init__(self) -> None:
            self.answer = self.on.pop()

        def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
            return self.answer

    class Named(BasePermission):
        def __init__(self, name: str = "x") -> None:
            if name != "x":
                self.name = name

        def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
            return getattr(self, "name", "x") == "x"

    @dataclass(slots=True)
    class Slotted(BasePermission):
        answer: bool

        def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
            return self.answer

    answers: dict[str, Any] = {
        "slotted": [Slotted(True)],
        "another of these": [Slotted(False)],
        "none": [],
        "class": [IsAuthenticated],
        "instance": [Named()],
        "its own": [Named("y")],
        "another": [DenyAll()],
        "nothing": None,
        "switched": [Switched],
    }

    class Deciding(AsyncAPIConsumer):
        @async_action
        async def act(self, which: str) -> None: ...

        def get_permissions(self) -> Any:
            return answers[self.frame.body.get("which", "none")]

    def compiled(classes: Any, **options: Any) -> Any:
        read.append(classes)
        return compile_permissions(classes, **options)

    monkeypatch.setattr(mounts, "compile_permissions", compiled)
    async with connect(Deciding.as_asgi()) as ws:
        read.clear()
        for switched in (200, 403):
            received = [(await ws.call("act", which=which))["status"] for which in answers]
            assert received == [200, 403, 200, 403, 200, 403, 403, 500, switched]
    once = [answers[which] for which in ("none", "class", "instance", "another")]
    assert [one for one in read if one in once] == once


async def test_an_invalid_get_permissions_is_a_500_that_names_it() -> None:
    class Handler(Cards):
        def get_permissions(self) -> Any:
            return IsAuthenticated

    reply = await ask(mounted(Handler.as_aaah()), "list", "cards/", debug=True)
    assert reply["status"] == 500
    assert r"Handler.get_permissions(): expected a tuple" in reply["errors"][0]["ctx"]["exception"]


async def test_overrides_apply_to_actions_with_their_own_permissions() -> None:
    class Locked(AsyncAPIActionHandler):
        def get_permissions(self) -> Any:
            return [*super().get_permissions(), DenyAll]

        @async_action(permission_classes=(AllowAny,))
        async def act(self) -> None: ...

    class Checked(AsyncAPIActionHandler):
        async def check_permissions(self) -> None:
            raise NotFound("hidden")

        @async_action(permission_classes=(AllowAny,))
        async def act(self) -> None: ...

    assert (await ask(mounted(Locked.as_aaah()), "act", "cards/"))["status"] == 403
    assert (await ask(mounted(Checked.as_aaah()), "act", "cards/"))["status"] == 404


async def test_check_permissions_can_be_overridden() -> None:
    class Handler(Cards):
        permission_classes = (IsAuthenticated,)

        async def check_permissions(self) -> None:
            if self.action == "update":
                raise NotFound("hidden")
            await super().check_permissions()

    view = mounted(Handler.as_aaah())
    assert (await ask(view, "update", "cards/", n=1))["errors"] == [{"type": "not_found", "msg": "hidden"}]
    assert (await ask(view, "list", "cards/"))["status"] == 403
    async with talking(view, user=ADA) as ws:
        assert (await ws.call("list", "cards/"))["status"] == 200
        assert (await ws.call("none", "cards/"))["status"] == 405


class Owner(IsOwner):
    lookup_field = "owner_id"
    message = "Not yours."


class OwnerSlowly(BasePermission):
    async def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any, pk: int = 0) -> bool:
        return bool(obj.owner_id == scope["user"].pk and pk == 7)


@pytest.mark.parametrize("how", ["classes", "slowly", "per action", "get_permissions"])
async def test_object_permissions_are_checked_when_an_action_asks(how: str) -> None:
    permission: Any = {"slowly": OwnerSlowly}.get(how, Owner)

    class Handler(AsyncAPIActionHandler):
        permission_classes = () if how in ("per action", "get_permissions") else (permission,)

        @async_action(permission_classes=(permission,) if how == "per action" else None)
        async def touch(self) -> str:
            await self.check_object_permissions(SimpleNamespace(owner_id=1))
            return "touched"

        @async_action
        async def skip(self) -> str:
            return "never asked"

    class Deciding(Handler):
        def get_permissions(self) -> Any:
            return [permission]

    kind = Deciding if how == "get_permissions" else Handler
    view = mounted(kind.as_aaah(), "c/<int:pk>/")
    async with talking(view, user=ADA) as ws:
        assert (await ws.call("touch", "c/7/"))["data"] == "touched"
    async with talking(view, user=BOB) as ws:
        (error,) = (await ws.call("touch", "c/7/"))["errors"]
        assert error["type"] == "permission_denied"
        assert error["msg"] == ("Not yours." if permission is Owner else PermissionDenied.code[2])
        assert (await ws.call("skip", "c/7/"))["status"] == 200


@pytest.mark.parametrize("value", [IsAuthenticated, [5], ["IsAuthenticated"], [object]])
def test_invalid_permission_classes_are_refused_when_mounted(value: Any) -> None:
    class Handler(Cards):
        permission_classes = value

    with pytest.raises(ImproperlyConfigured, match=r"Handler\.permission_classes: expected"):
        mounted(Handler.as_aaah())
    with pytest.raises(ImproperlyConfigured, match=r"Cards\.permission_classes: expected"):
        mounted(Cards.as_aaah(permission_classes=value))

    class PerAction(AsyncAPIActionHandler):
        @async_action(permission_classes=value)
        async def act(self) -> None: ...

    with pytest.raises(
        ImproperlyConfigured, match=r"@async_action\(permission_classes=...\) of PerAction.act: expected"
    ):
        mounted(PerAction.as_aaah())
