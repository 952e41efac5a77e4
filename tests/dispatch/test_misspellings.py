"""`wsaction._utils.misspellings`: mistakes that would switch off a policy are refused, with a suggestion."""

import asyncio
import functools
import gc
from collections.abc import Generator
from typing import Any, ClassVar, Protocol

import pytest
from pydantic import BaseModel

from tests.support.driving import ask
from wsaction.applications import WSAction
from wsaction.authentication import BaseAuthentication, BearerAuthentication, Credential
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.dependencies import Depends
from wsaction.exceptions import ImproperlyConfigured, PermissionDenied
from wsaction.filters import BaseFilterBackend
from wsaction.generics import ModelAPIActionHandler
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.hooks import Hooks
from wsaction.limits import Limits
from wsaction.pagination import PageNumberPagination
from wsaction.permissions import AllowAny, BasePermission, DenyAll, IsAuthenticated, IsOwner
from wsaction.permissions._classes import compile_permissions
from wsaction.presence import PresenceMixin
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import include, path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import HandshakeRefused, connect
from wsaction.throttling import BaseThrottle, SimpleRateThrottle, UserRateThrottle, check_throttles, compile_throttles

pytestmark = pytest.mark.anyio


def method_with(*names: str) -> Any:
    """A method with these parameters."""
    return eval(f"lambda self, {', '.join(names)}: None")  # the names are constants of this module


ASKED = method_with("scope", "handler", "action")
MISSPELT: list[tuple[type, str, Any, str]] = [
    # base, misspelt name, its value, expected text of the suggestion (None: the name is accepted)
    (BasePermission, "has_permision", ASKED, "has_permission"),
    (BasePermission, "has_permissions", ASKED, "has_permission"),
    (BasePermission, "hasPermission", ASKED, "has_permission"),
    (BasePermission, "has_object_permision", method_with("scope", "handler", "action", "obj"), "has_object_permission"),
    (BasePermission, "has_obj_permission", method_with("scope", "handler", "action", "obj"), "has_object_permission"),
    (BasePermission, "can_conect", method_with("scope", "handler"), "can_connect"),
    (BaseThrottle, "Wait", ASKED, "wait"),
    (UserRateThrottle, "get_cachekey", ASKED, "get_cache_key"),
    (UserRateThrottle, "num_proxy", 1, None),
    (UserRateThrottle, "num_proxys", 1, "num_proxies"),
    (UserRateThrottle, "throttle_rates", {"user": "1/s"}, "THROTTLE_RATES"),
    (BaseAuthentication, "autenticate", method_with("scope"), "authenticate"),
    (BaseAuthentication, "authenticate_date", method_with("data"), "authenticate_data"),
    (BaseAuthentication, "firstframe", True, "first_frame"),
    (PageNumberPagination, "max_pagesize", 10, "max_page_size"),
    (BaseFilterBackend, "filter_query_set", method_with("queryset", "handler"), "filter_queryset"),
    (Hooks, "on_conect", method_with("consumer"), "on_connect"),
    (Hooks, "on_error", method_with("exc"), "there are on_connect, on_disconnect"),
    (AsyncAPIConsumer, "permission_class", (IsAuthenticated,), "permission_classes"),
    (AsyncAPIConsumer, "permision_classes", (IsAuthenticated,), "permission_classes"),
    (AsyncAPIConsumer, "permissionClasses", (IsAuthenticated,), "permission_classes"),
    (AsyncAPIConsumer, "throttle_class", (), "throttle_classes"),
    (AsyncAPIConsumer, "get_permisions", method_with(), "get_permissions"),
    (AsyncAPIConsumer, "check_permisions", method_with(), "check_permissions"),
    (AsyncAPIConsumer, "check_objects_permissions", method_with("obj"), "check_object_permissions"),
    (AsyncAPIConsumer, "get_permission", method_with(), "get_permissions"),
    (AsyncAPIConsumer, "check_permission", method_with(), "check_permissions"),
    (AsyncAPIConsumer, "check_object_permission", method_with("obj"), "check_object_permissions"),
    (AsyncAPIConsumer, "check_throttle", method_with(), "check_throttles"),
    (AsyncAPIConsumer, "routepattern", (), "routepatterns"),
    (AsyncAPIConsumer, "route_patterns", (), "routepatterns"),
    (AsyncAPIConsumer, "strict_routng", True, "strict_routing"),
    (AsyncAPIConsumer, "disconect", method_with("code"), "disconnect"),
    (ModelAPIActionHandler, "get_query_set", method_with(), "get_queryset"),
    (ModelAPIActionHandler, "get_querset", method_with(), "get_queryset"),
    (ModelAPIActionHandler, "perform_crate", method_with("values"), "perform_create"),
    (ModelAPIActionHandler, "perform_destory", method_with("obj"), "perform_destroy"),
    (ModelAPIActionHandler, "serialiser_class", None, "serializer_class"),
    (ModelAPIActionHandler, "input_serializer_clas", None, "input_serializer_class"),
    (ModelAPIActionHandler, "filter_backend", (), "filter_backends"),
    (ModelAPIActionHandler, "pagination_classes", (), "pagination_class"),
    (SubscribeMixin, "history_sise", 0, "history_size"),
]


@pytest.mark.parametrize(
    ("base", "name", "value", "meant"), MISSPELT, ids=[f"{one[0].__name__}.{one[1]}" for one in MISSPELT]
)
def test_a_misspelt_attribute_is_refused_with_a_suggestion(
    base: type, name: str, value: Any, meant: str | None
) -> None:
    bases = (base, AsyncAPIActionHandler) if base is SubscribeMixin else (base,)
    if meant is None:
        type("Mistaken", bases, {name: value})
        return
    with pytest.raises(ImproperlyConfigured, match=rf"Mistaken\.{name} .*{meant}"):
        type("Mistaken", bases, {name: value})
    if base not in (Hooks, BasePermission):
        mixin = type("Mistaken", (), {name: value})
        with pytest.raises(ImproperlyConfigured, match=rf"Mistaken\.{name} "):
            type("Mixed", (mixin, *bases), {})  # also in a mixin that derives from no class of ours


def test_ordinary_attribute_names_are_accepted() -> None:
    class Card(BaseModel):
        id: int

    class Cards(PresenceMixin, ModelAPIActionHandler):
        queryset = MemoryQuerySet(Card)
        serializer_class = Card
        permission: ClassVar[str] = "cards.view"
        permission_class_names = ("IsOwner",)
        querysets: ClassVar[dict[str, Any]] = {}
        search_field = "title"
        lookup_fields = ("id",)
        events_log: ClassVar[list[Any]] = []
        routes = route_names = limit = actions = users = topics = apps = ()
        title = description = version = debug = hooks = layer = middleware = None

        def get_objects(self) -> Any: ...
        def get_topics(self) -> Any: ...
        def set_topic(self, topic: str) -> Any: ...
        def check_permission(self, board: Any) -> Any: ...
        def perform_creates(self, many: Any) -> Any: ...
        def get_subject(self) -> Any: ...
        def get_project(self) -> Any: ...
        def reconnect(self) -> Any: ...
        def unpublish(self) -> Any: ...
        def on_disconnect(self, code: int) -> Any: ...
        async def unsubscribed(self, reason: str) -> Any: ...
        async def disconnected(self, event: Any) -> Any: ...
        async def card_created(self, event: Any) -> Any: ...
        async def has_permission(self, *args: Any) -> Any: ...

        @async_action
        async def retreive(self) -> None: ...

        @async_action
        async def updates(self) -> None: ...

    class Owns(BasePermission):
        def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
            return self.has_permissions(scope, handler, action)

        def has_permissions(self, scope: Any, handler: Any, action: str) -> bool:  # a helper beside has_permission
            return self.has_permission_for(scope["user"])

        def has_permission_for(self, user: Any) -> bool:
            return bool(user.is_authenticated)

    class Root(AsyncAPIConsumer):
        permission_classes = (Owns,)
        routepatterns = (path("cards/", Cards.as_aaah()),)

    WSAction([path("ws/", Root.as_asgi())])


# ------------------------------------------------------------------------------------------------ wrong places
APP_SETTINGS = ["authentication_classes", "allowed_origins", "require_origin", "accept_refused", "exception_handlers"]


@pytest.mark.parametrize("base", [AsyncAPIActionHandler, AsyncAPIConsumer, ModelAPIActionHandler])
@pytest.mark.parametrize("name", APP_SETTINGS)
def test_app_settings_are_refused_on_a_handler(base: type, name: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=rf"Mistaken\.{name} .*WSAction\(\[\.\.\.\], {name}=\.\.\.\)"):
        type("Mistaken", (base,), {name: ()})
    with pytest.raises(ImproperlyConfigured, match=name):
        AsyncAPIConsumer.as_asgi(**{name: ()})


def test_http_method_names_is_refused_on_a_handler() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"http_method_names .*as_aaah\(actions="):
        type("Mistaken", (AsyncAPIActionHandler,), {"http_method_names": ["get"]})


def may_write(scope: Any, handler: Any, action: str, **captures: Any) -> bool:
    return False


GUARDS_ELSEWHERE: dict[str, Any] = {
    "has_permission": method_with("scope", "handler", "action"),
    "has_object_permission": method_with("request", "view", "obj"),
    "can_connect": method_with("scope", "handler"),
    "initial": method_with("request", "*args", "**kwargs"),
    "dispatch": method_with("request", "*args", "**kwargs"),
    "on_connect": method_with("websocket"),
    "on_receive": method_with("websocket", "data"),
    "websocket_connect": method_with("message"),
    "receive_json": method_with("content", "**kwargs"),
    "dependencies": [Depends(may_write)],
    "guards": [may_write],
    "middleware": (may_write,),
}


@pytest.mark.parametrize("base", [AsyncAPIActionHandler, AsyncAPIConsumer, ModelAPIActionHandler])
@pytest.mark.parametrize("name", GUARDS_ELSEWHERE)
def test_guards_that_belong_elsewhere_are_refused_on_a_handler(base: type, name: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=rf"Mistaken\.{name} has no effect"):
        type("Mistaken", (base,), {name: GUARDS_ELSEWHERE[name]})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("has_permission", method_with("permission")),
        ("receive_json", method_with("event")),  # the handler of a broadcast
        ("dispatch", async_action(method_with("request"))),
        ("dependencies", ["a task"]),
        ("guards", ["a person"]),
        ("middleware", ()),
    ],
)
def test_a_helper_with_the_name_of_a_guard_is_accepted(name: str, value: Any) -> None:
    type("Own", (AsyncAPIConsumer,), {name: value})


def test_a_guard_that_a_method_of_the_class_calls_is_accepted() -> None:
    class Own(AsyncAPIConsumer):
        login_required = True

        async def connect(self) -> None:
            if self.login_required and not self.has_permission():
                raise PermissionDenied

        def has_permission(self) -> bool:
            return bool(self.user.is_authenticated)


@pytest.mark.parametrize("name", [*APP_SETTINGS, "limits", "permission_classes", "throttle_classes"])
def test_class_attributes_without_effect_on_an_app_are_refused(name: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=rf"Mistaken\.{name} has no effect"):
        type("Mistaken", (WSAction,), {name: ()})
    type("Own", (WSAction,), {"debug": property(lambda self: True), "own": 1})


# ------------------------------------------------------------------------------------------------ missing methods
async def act(self: Any) -> None: ...


class OnlyConnects(BasePermission):
    def can_connect(self, scope: Any, handler: Any) -> bool:
        return False


class Nothing(BasePermission):
    message = "It answers no question."


@pytest.mark.parametrize(
    "permission",
    [Nothing, Nothing(), ~Nothing, AllowAny & Nothing, IsAuthenticated | ~Nothing, BasePermission],
    ids=["a class", "an instance", "not", "and", "or not", "the base"],
)
def test_a_permission_without_methods_is_refused(permission: Any) -> None:
    name = "BasePermission" if permission is BasePermission else "Nothing"
    with pytest.raises(ImproperlyConfigured, match=rf"H: expected {name} to define can_connect.*use AllowAny"):
        compile_permissions((permission,), owner="H")


@pytest.mark.parametrize("base", [AllowAny, IsAuthenticated])
def test_a_permission_with_inherited_methods_is_accepted(base: type) -> None:
    compile_permissions((type("Named", (base,), {"message": "Sign in."}),), owner="H")


def test_a_can_connect_permission_is_refused_where_unused() -> None:
    class Handler(AsyncAPIActionHandler):
        permission_classes = (OnlyConnects,)

    class Root(AsyncAPIConsumer):
        permission_classes = (OnlyConnects,)

        @async_action
        async def act(self) -> None: ...

    Root.as_asgi()
    with pytest.raises(ImproperlyConfigured, match=r"Handler\.permission_classes: .*OnlyConnects .*can_connect alone"):
        type("Above", (AsyncAPIConsumer,), {"routepatterns": [path("a/", Handler.as_aaah())]}).as_asgi()  # type: ignore[attr-defined]
    acting = async_action(permission_classes=(OnlyConnects | IsAuthenticated,))(act)
    with pytest.raises(ImproperlyConfigured, match=r"OnlyConnects .*can_connect alone"):
        type("Acting", (AsyncAPIConsumer,), {"act": acting}).as_asgi()  # type: ignore[attr-defined]


class NoWait(BaseThrottle):
    """It defines no method."""


class NoKey(SimpleRateThrottle):
    rate = "1/min"


class Short(SimpleRateThrottle):
    rate = "1/min"

    def get_cache_key(self, scope: Any) -> str:  # type: ignore[override]
        return "all"


@pytest.mark.parametrize(
    ("throttle", "method"),
    [(NoWait, "wait"), (NoKey, "get_cache_key"), (Short, "get_cache_key"), (BaseThrottle, "wait")],
)
def test_a_throttle_without_its_method_is_refused(throttle: type, method: str) -> None:
    with pytest.raises(
        ImproperlyConfigured, match=rf"H: expected {throttle.__name__} to define {method}\(scope, handler"
    ):
        compile_throttles((throttle,), owner="H")


def test_a_throttle_with_allow_request_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"Rest\.allow_request would never be called; expected wait"):
        type("Rest", (UserRateThrottle,), {"allow_request": method_with("request", "view")})


async def test_a_throttle_that_returns_a_bool_raises() -> None:
    class Allows(BaseThrottle):
        def wait(self, scope: Any, handler: Any, action: str) -> Any:
            return False  # the "not allowed" of an `allow_request`

    with pytest.raises(TypeError, match=r"Allows\.wait returned False; return the seconds"):
        await check_throttles(compile_throttles((Allows,), owner="H"), {}, None, "act")


def test_an_authentication_without_methods_is_refused() -> None:
    class Tokens(BaseAuthentication):
        def verify(self, token: str) -> Any: ...  # only a BearerAuthentication has it

    with pytest.raises(ImproperlyConfigured, match="expected Tokens to define authenticate or authenticate_data"):
        WSAction([], authentication_classes=[Tokens])

    class Verified(BearerAuthentication):
        def verify(self, token: str) -> Credential | None: ...

    WSAction([], authentication_classes=[Verified])


# ------------------------------------------------------------------------------------------------ wrong values
@pytest.mark.parametrize(
    "value",
    [
        IsAuthenticated,
        IsAuthenticated(),
        "IsAuthenticated",
        None,
        ("IsAuthenticated",),
        (None,),
        {IsAuthenticated},
        (True,),
    ],
    ids=["a class", "an instance", "a string", "None", "of a string", "of None", "a set", "of a bool"],
)
def test_invalid_permission_classes_are_refused_everywhere(value: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="permission_classes"):
        type("Mistaken", (AsyncAPIConsumer,), {"permission_classes": value}).as_asgi()  # type: ignore[attr-defined]
    with pytest.raises(ImproperlyConfigured, match="permission_classes"):
        AsyncAPIConsumer.as_asgi(permission_classes=value)
    if value is not None:  # None means: those of the handler
        acting = async_action(permission_classes=value)(act)
        with pytest.raises(ImproperlyConfigured, match="permission_classes"):
            type("Acting", (AsyncAPIConsumer,), {"act": acting}).as_asgi()  # type: ignore[attr-defined]


async def unawaited(scope: Any, handler: Any, action: str) -> Any:
    async def check() -> bool:
        return False

    return check()


async def rows(scope: Any, handler: Any, action: str) -> Any:
    return MemoryQuerySet(type("Row", (BaseModel,), {"__annotations__": {"id": int}}))


class Uncalled:
    def is_staff(self) -> bool:
        return False


ALWAYS_TRUE: dict[str, Any] = {
    "a coroutine": unawaited,
    "a queryset": rows,
    "a method": lambda scope, handler, action: Uncalled().is_staff,
    "an exception": lambda scope, handler, action: PermissionError("no"),
    "a pair": lambda scope, handler, action: (False, "You are not staff."),
}


@pytest.mark.parametrize("kind", ALWAYS_TRUE)
@pytest.mark.parametrize("negated", [False, True], ids=["as it is", "negated"])
async def test_a_permission_result_that_is_always_true_is_a_500(
    kind: str, negated: bool, caplog: pytest.LogCaptureFixture
) -> None:
    permission = type("Asked", (BasePermission,), {"has_permission": staticmethod(ALWAYS_TRUE[kind])})

    class Root(AsyncAPIConsumer):
        permission_classes = (~permission if negated else permission,)

        @async_action
        async def act(self) -> None: ...

    assert (await ask(Root.as_asgi(), "act"))["status"] == 500
    assert "which is always true" in str(caplog.records[0].exc_info)


class Row(BaseModel):
    id: int


class Rows(ModelAPIActionHandler):
    queryset = MemoryQuerySet(Row, [Row(id=1)])
    serializer_class = Row


async def says_false(self: Any, *args: Any) -> bool:
    return False


async def returns_the_error(self: Any, *args: Any) -> Exception:
    return PermissionDenied()


async def returns_the_class_of_an_error(self: Any, *args: Any) -> type[Exception]:
    return PermissionDenied


async def returns_a_pair(self: Any, *args: Any) -> tuple[bool, str]:
    return False, "You are not staff."


async def returns_an_awaitable(self: Any, *args: Any) -> Any:
    return Later(False)


@pytest.mark.parametrize("method", ["check_permissions", "check_object_permissions"])
@pytest.mark.parametrize(
    "answer", [says_false, returns_the_error, returns_the_class_of_an_error, returns_a_pair, returns_an_awaitable]
)
async def test_a_check_that_returns_instead_of_raising_is_a_500(
    method: str, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = type("Guarded", (Rows,), {method: answer})
    root = type("Root", (AsyncAPIConsumer,), {"routepatterns": [path("rows/<pk>/", guarded.as_aaah())]})  # type: ignore[attr-defined]
    assert (await ask(root.as_asgi(), "retrieve", "rows/1/"))["status"] == 500  # type: ignore[attr-defined]
    assert f"Guarded.{method}() returned " in str(caplog.records[0].exc_info)


class Quick(BasePermission):
    def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
        return action != "hit"

    def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any) -> bool:
        return False


class Later:
    """An awaitable answer that is not a coroutine."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer

    def __await__(self) -> Generator[Any, Any, bool]:
        yield from asyncio.sleep(0).__await__()
        return self.answer


class Slow(BasePermission):
    def has_permission(self, scope: Any, handler: Any, action: str) -> Later:
        return Later(action != "hit")

    def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any) -> Later:
        return Later(False)


@pytest.mark.parametrize(("permission", "status"), [(Quick, 403), (Slow, 500)])
@pytest.mark.parametrize("action", ["hit", "look", "look_in_a_thread", "look_and_yield"])
@pytest.mark.filterwarnings("ignore:coroutine '(single.<locals>.later|_check)' was never awaited")
async def test_a_check_that_is_not_awaited_fails_the_action(permission: Any, status: int, action: str) -> None:
    class Guarded(Rows):
        permission_classes = (permission,)

        async def check_permissions(self) -> None:
            if self.action == "hit":
                super().check_permissions()  # type: ignore[unused-coroutine]
            else:
                await super().check_permissions()

        @async_action
        async def hit(self) -> None: ...

        @async_action
        async def look(self) -> None:
            self.check_object_permissions(None)  # type: ignore[unused-coroutine]

        @async_action
        def look_in_a_thread(self) -> None:
            self.check_object_permissions(None)  # type: ignore[unused-coroutine]

        @async_action
        async def look_and_yield(self) -> Any:
            self.check_object_permissions(None)  # type: ignore[unused-coroutine]
            yield 1

    root: Any = type("Root", (AsyncAPIConsumer,), {"routepatterns": [path("rows/", Guarded.as_aaah())]})
    assert (await ask(root.as_asgi(), action, "rows/"))["status"] == status
    gc.collect()  # so that Python's own warning comes here, where it is expected


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("how", ["gather", "task", "task group", "wait_for", "cancelled before it began"])
@pytest.mark.filterwarnings("ignore:coroutine '(single.<locals>.later|_check)' was never awaited")
async def test_a_check_may_be_awaited_in_any_way(how: str, waits: bool) -> None:
    class Even(BasePermission):
        def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any) -> Any:
            return Later(obj % 2 == 0) if waits else obj % 2 == 0

    class Guarded(AsyncAPIConsumer):
        permission_classes = (Even,)

        @async_action
        async def look(self, numbers: list[int]) -> None:
            if how == "gather":
                await asyncio.gather(*(self.check_object_permissions(one) for one in numbers))
            elif how == "task group":
                try:
                    async with asyncio.TaskGroup() as tasks:
                        for one in numbers:
                            tasks.create_task(self.check_object_permissions(one))
                except* PermissionDenied as several:
                    raise several.exceptions[0] from None
            elif how == "wait_for":
                for one in numbers:
                    await asyncio.wait_for(self.check_object_permissions(one), 5)
            else:
                for one in numbers:
                    task = asyncio.create_task(self.check_object_permissions(one))
                    if how != "task":
                        task.cancel()
                    await task

    async with connect(Guarded.as_asgi()) as ws:
        cancelled = how == "cancelled before it began"
        assert (await ws.call("look", numbers=[2, 4]))["status"] == (500 if cancelled else 200)
        assert (await ws.call("look", numbers=[2, 3]))["status"] == (500 if cancelled else 403)
    gc.collect()  # so that Python's own warning comes here, where it is expected


@pytest.mark.parametrize("ends", ["by its timeout", "by $cancel"])
@pytest.mark.filterwarnings("ignore:coroutine '(single.<locals>.later|_check)' was never awaited")
async def test_an_action_with_an_unawaited_check_can_be_ended(ends: str) -> None:
    class Guarded(AsyncAPIConsumer):
        permission_classes = (Slow,)
        began = asyncio.Event()

        @async_action(timeout=60 if ends == "by $cancel" else 0.02)
        async def hang(self) -> None:
            self.check_object_permissions(None)  # type: ignore[unused-coroutine]
            self.began.set()
            await asyncio.Event().wait()

    async with connect(Guarded.as_asgi()) as ws:
        await ws.send_json({"action": "hang", "request_id": 1})
        if ends == "by $cancel":
            await Guarded.began.wait()
            assert (await ws.call("$cancel", data=1))["status"] == 200
        assert (await ws.receive_json())["status"] == (499 if ends == "by $cancel" else 408)
    gc.collect()


async def test_a_connect_that_returns_false_refuses_with_a_500() -> None:
    closed = type("Closed", (AsyncAPIConsumer,), {"connect": says_false})
    with pytest.raises(HandshakeRefused) as refused:
        async with connect(WSAction([path("ws/", closed.as_asgi())]), "/ws/"):  # type: ignore[attr-defined]
            pass
    assert refused.value.status == 500


class Guard:
    """A mixin of the application."""

    permission_classes = (IsAuthenticated,)

    async def check_throttles(self) -> None: ...
    def get_queryset(self) -> Any: ...


@pytest.mark.parametrize("base", [AsyncAPIActionHandler, AsyncAPIConsumer, ModelAPIActionHandler])
def test_a_guard_hidden_by_the_order_of_bases_is_refused(base: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"Guard\.permission_classes has no effect .* put Guard first"):
        type("Hiding", (base, Guard), {})
    made: Any = type("Guarded", (Guard, base), {})
    assert made.permission_classes == Guard.permission_classes
    own: Any = type("Own", (base, Guard), {name: vars(Guard)[name] for name in vars(Guard) if name[0] != "_"})
    assert own.permission_classes == Guard.permission_classes  # a value of its own is no mistake

    class Mine(AsyncAPIActionHandler):
        permission_classes = (AllowAny,)

    below: Any = type("Below", (SubscribeMixin, ModelAPIActionHandler, Mine), {})
    assert below.permission_classes == Mine.permission_classes


@pytest.mark.parametrize(
    ("base", "hook", "value"),
    [
        (AsyncAPIConsumer, "connect", says_false),
        (AsyncAPIConsumer, "limits", Limits(max_concurrency=1)),
        (ModelAPIActionHandler, "serialize", lambda self, obj: None),
        (ModelAPIActionHandler, "get_serializer_class", lambda self: None),
        (ModelAPIActionHandler, "perform_create", says_false),
        (SubscribeMixin, "recheck", True),
        (SubscribeMixin, "check_subscription", says_false),
        (IsOwner, "lookup_field", "owner_id"),
    ],
)
def test_any_hook_hidden_by_the_order_of_bases_is_refused(base: Any, hook: str, value: Any) -> None:
    bases = (base,) if base is not SubscribeMixin else (base, AsyncAPIActionHandler)
    guard = type("Guard", (), {hook: value})
    with pytest.raises(ImproperlyConfigured, match=rf"Guard\.{hook} has no effect .* put Guard first"):
        type("Hiding", (*bases, guard), {})
    type("Guarded", (guard, *bases), {})


def test_a_protocol_after_a_base_is_accepted() -> None:
    class HasUser(Protocol):
        @property
        def user(self) -> Any: ...

    type("Typed", (AsyncAPIActionHandler, HasUser), {})


def test_a_permission_hidden_by_the_order_of_bases_is_refused() -> None:
    class Team:
        def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
            return False

    with pytest.raises(ImproperlyConfigured, match=r"Team\.has_permission has no effect .* put .*Team first"):
        type("Member", (IsAuthenticated, Team), {})


@pytest.mark.parametrize(
    "annotation", [(IsAuthenticated,), [IsAuthenticated], "(IsAuthenticated,)", "[IsAuthenticated]"]
)
def test_a_value_written_as_an_annotation_is_refused(annotation: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"permission_classes is annotated and has no value"):
        type("Annotated", (AsyncAPIActionHandler,), {"__annotations__": {"permission_classes": annotation}})
    types = {"permission_classes": "ClassVar[Any]", "queryset": "MemoryQuerySet[Any]", "mine": annotation}
    type("Annotated", (ModelAPIActionHandler,), {"__annotations__": types})


@pytest.mark.parametrize("hook", ["check_subscription", "check_throttles"])
async def test_false_from_a_check_hook_is_a_500(hook: str) -> None:
    async def refuse(self: Any) -> bool:
        return False

    made: Any = type("Refusing", (SubscribeMixin, AsyncAPIConsumer), {hook: refuse})
    assert (await ask(made.as_asgi(), "subscribe"))["status"] == 500


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("udpate", "update"),
        ("partial-update", "partial_update"),
        ("delete", "destroy"),
        ("archive_all", "archive"),  # the name of its method
        ("store", "archive"),  # its name at this mount
    ],
)
def test_an_unknown_name_in_check_actions_is_refused(name: str, meant: str) -> None:
    class Archive(Rows):
        @async_action(name="archive")
        async def archive_all(self) -> None: ...

    def mounted(*actions: str) -> Any:
        permission = type("Guard", (IsOwner,), {"check_actions": actions})
        view = Archive.as_aaah(
            permission_classes=(IsAuthenticated & permission,), actions={"store": "archive", "update": "update"}
        )
        return type("Root", (AsyncAPIConsumer,), {"routepatterns": [path("cards/", view)]}).as_asgi().table  # type: ignore[attr-defined]

    with pytest.raises(ImproperlyConfigured, match=f"Guard.check_actions: .* got '{name}', .* mean '{meant}'"):
        mounted("update", name)
    assert mounted("update", "archive", "publish")  # "publish" may be an action of another handler


async def refuse(self: Any, *args: Any) -> None:
    raise PermissionDenied


def guarding_the_action(cls: Any) -> None:
    original = cls.retrieve

    @functools.wraps(original)
    async def retrieve(self: Any) -> Any:
        await refuse(self)
        return await original(self)

    cls.retrieve = retrieve


DECORATORS: dict[str, Any] = {
    "check_permissions": lambda cls: setattr(cls, "check_permissions", refuse),
    "get_permissions": lambda cls: setattr(cls, "get_permissions", lambda self: [DenyAll()]),
    "permission_classes": lambda cls: setattr(cls, "permission_classes", (DenyAll,)),
    "action": guarding_the_action,
}


@pytest.mark.parametrize("by", DECORATORS)
@pytest.mark.parametrize("inherited", [False, True])
async def test_policies_set_by_a_class_decorator_apply(by: str, inherited: bool) -> None:
    class Base(Rows):
        def __init_subclass__(cls, **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            if inherited:
                DECORATORS[by](cls)

    class Guarded(Base): ...

    if not inherited:
        DECORATORS[by](Guarded)
    root: Any = type("Root", (AsyncAPIConsumer,), {"routepatterns": [path("rows/<pk>/", Guarded.as_aaah())]})
    assert (await ask(root.as_asgi(), "retrieve", "rows/1/"))["status"] == 403


def sets_it_on_itself(self: Any) -> None:
    self.permission_classes = (DenyAll,)


async def connects_with_it(self: Any) -> None:
    self.permission_classes = (DenyAll,)


def sets_it_on_another(self: Any, other: Any) -> None:
    other.permission_classes = self.permission_classes


@pytest.mark.parametrize("base", [AsyncAPIActionHandler, AsyncAPIConsumer])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("__init__", sets_it_on_itself, r"__init__ sets self\.permission_classes.*get_permissions"),
        ("connect", connects_with_it, r"connect sets self\.permission_classes"),
        ("Meta", type("Meta", (), {"permission_classes": (DenyAll,)}), r"Meta\.permission_classes has no effect"),
    ],
)
def test_a_policy_set_where_nothing_reads_it_is_refused(base: Any, name: str, value: Any, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        type("Said", (base,), {name: value}).as_aaah()  # type: ignore[attr-defined]


def test_a_policy_set_in_get_object_is_refused() -> None:
    async def get_object(self: Any) -> Any:
        self.permission_classes = (DenyAll,)
        return await self.queryset.first()

    with pytest.raises(ImproperlyConfigured, match=r"get_object sets self\.permission_classes"):
        type("Said", (Rows,), {"get_object": get_object}).as_aaah()  # type: ignore[attr-defined]


def test_harmless_assignments_of_policies_are_accepted() -> None:
    own = {"get_permissions": lambda self: self.permission_classes, "__init__": sets_it_on_itself}
    assert type("Deciding", (AsyncAPIActionHandler,), own).as_aaah()  # type: ignore[attr-defined]
    other = {"show": sets_it_on_another, "Meta": type("Meta", (), {"verbose_name": "row"})}
    assert type("Setting", (AsyncAPIActionHandler,), other).as_aaah()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["permission_classes", "throttle_classes"])
def test_a_policy_among_the_captures_of_a_pattern_is_refused(name: str) -> None:
    kwargs: Any = {name: (DenyAll,)}
    within = [path("rows/", Rows.as_aaah(), kwargs), path("a/", include([path("rows/", Rows.as_aaah())]), kwargs)]
    for pattern in within:
        root = type("Root", (AsyncAPIConsumer,), {"routepatterns": [pattern]})
        with pytest.raises(ImproperlyConfigured, match=f"{name} would be a capture, which protects nothing"):
            root.as_asgi()  # type: ignore[attr-defined]
    with pytest.raises(ImproperlyConfigured, match=f"{name} would be a capture"):
        WSAction([path("ws/", Rows.as_aaah(), kwargs)])


@pytest.mark.parametrize("hook", ["get_queryset", "get_object", "serialize", "get_event_routes", "paginator"])
def test_a_hook_cannot_be_an_initkwarg(hook: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"attributes of the class, no actions or hooks.*'{hook}'"):
        Rows.as_aaah(**{hook: lambda *args: None})
