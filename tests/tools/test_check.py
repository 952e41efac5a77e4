"""`wsaction.cli.check`, `wsaction.routing._unreachable` and `wsaction.cli._routes`: findings and their absence."""

import math
from collections.abc import Iterable
from typing import Any

import pytest
from pydantic import BaseModel

from tests.support.kitchen_sink_app import everything
from wsaction.applications import WSAction
from wsaction.authentication import Credential, FirstFrameAuthentication, SessionAuthentication
from wsaction.cli._routes import inventory
from wsaction.cli.check import Finding, check
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured
from wsaction.filters import FieldFilter, SearchFilter
from wsaction.generics import ListAPIActionHandler
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.layers.redis import RedisLayer
from wsaction.limits import Limits
from wsaction.permissions import AllowAny, IsAuthenticated, IsAuthenticatedStrictly, IsOwner
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import Router, include, path, re_path, register_converter
from wsaction.routing._unreachable import find_unreachable
from wsaction.subscriptions import SubscribeMixin
from wsaction.throttling import ConnectionRateThrottle, UserRateThrottle


class Allowed(AsyncAPIActionHandler):
    permission_classes = (AllowAny,)

    @async_action
    async def act(self) -> None: ...


class Card(BaseModel):
    id: int
    title: str = ""


class Root(AsyncAPIConsumer):
    permission_classes = (AllowAny,)

    @async_action
    async def echo(self) -> None: ...


class Rows(ListAPIActionHandler):
    permission_classes = (AllowAny,)
    queryset = MemoryQuerySet(Card)
    serializer_class = Card


def hosted(routes: Any, **options: Any) -> WSAction:
    """Returns an app with ``allowed_hosts``, so that `check` does not report ``any_host``."""
    return WSAction(routes, **{"allowed_hosts": ["example.com"], **options})


def app(*patterns: Any, **options: Any) -> WSAction:
    root = type("Root", (Root,), {"routepatterns": list(patterns)})
    return hosted([path("ws/", root.as_asgi())], **options)


def codes(found: Iterable[Finding]) -> list[str]:
    return [finding.code for finding in found]


def view() -> None: ...


class FirstFrame(FirstFrameAuthentication):
    async def authenticate_data(self, data: Any) -> Credential | None:
        return None


class YearConverter:
    regex = "[0-9]{4}"

    def to_python(self, value: str) -> int:
        return int(value)

    def to_url(self, value: int) -> str:
        return str(value)


class NeverConverter(YearConverter):
    regex = "never"


class OddConverter(YearConverter):
    regex = "[0-9]+"

    def to_python(self, value: str) -> int:
        if int(value) % 2 == 0:
            raise ValueError
        return int(value)


for converter, name in ((YearConverter, "year"), (NeverConverter, "never"), (OddConverter, "odd")):
    register_converter(converter, name)


# ------------------------------------------------------------------------------------------------ shadows
@pytest.mark.parametrize(
    ("first", "second", "hidden"),
    [
        (path("a/", view), path("a/", view), True),
        (path("<str:pk>/", view), path("new/", view), True),
        (path("new/", view), path("<str:pk>/", view), False),
        (path("<slug:pk>/", view), path("<int:pk>/", view), True),
        (path("<int:pk>/", view), path("<slug:pk>/", view), False),
        (path("<str:pk>/", view), path("<slug:pk>/", view), True),
        (path("<slug:pk>/", view), path("<str:pk>/", view), False),
        (path("<path:rest>", view), path("a/<uuid:key>/", view), True),
        (path("<uuid:key>/", view), path("<str:pk>/", view), False),
        (path("<int:a>/", view), path("<year:a>/", view), True),
        (path("<year:a>/", view), path("<int:a>/", view), False),
        (path("<int:a>/", view), path("<odd:a>/", view), True),
        (path("<odd:a>/", view), path("<int:a>/", view), False),
        (path("<never:a>/", view), path("<never:b>/", view), False),  # there is no example route for either
        (path("<str:a>/<str:b>/", view), path("<int:x>/<slug:y>/", view), True),
        (re_path(r"^a/(\d+)/$", view), path("a/<int:pk>/", view), True),
        (re_path(r"^a", view), re_path(r"^a/(?P<x>\d+)/(?:(?P<y>\w+)/)?$", view), True),
        (path("a/<int:pk>/", view), re_path(r"^a/(\w+)/$", view), False),
        (path("a/", view), re_path(r"^(?:a|b)/$|^c$", view), False),  # there is no example route for it
        (path("a/", include([path("<str:x>/", view)])), path("a/b/", view), True),
        (path("a/b/", view), path("a/", include([path("b/", view)])), True),
    ],
)
def test_unreachable_patterns_are_found(first: Any, second: Any, hidden: bool) -> None:
    found = [*find_unreachable(Router([first, second]))]
    assert bool(found) is hidden
    if found:
        assert (found[0].hidden.index, found[0].by.index) == (1, 0)


def test_an_inconsistent_converter_has_no_findings() -> None:
    calls = 0

    class Fickle(YearConverter):
        def to_python(self, value: str) -> int:
            nonlocal calls
            calls += 1
            if calls > 2:
                raise ValueError
            return 1

    register_converter(Fickle, "fickle")
    assert [*find_unreachable(Router([path("<fickle:a>/", view)]))] == []


def test_a_finding_has_an_example_route() -> None:
    (found,) = find_unreachable(Router([path("<str:pk>/", view), path("new/", view)]))
    assert (found.example, found.is_duplicate) == ("new/", False)
    (found,) = find_unreachable(Router([path("new/", view), path("new/", view)]))
    assert found.is_duplicate


def test_patterns_with_many_captures_are_checked_quickly() -> None:
    many = "/".join(f"<str:p{number}>" for number in range(12))
    regex = "/".join(rf"(?P<p{number}>\w+)" for number in range(12))
    assert len([*find_unreachable(Router([path(many, view), re_path(f"^{regex}$", view)]))]) == 1


# ------------------------------------------------------------------------------------------------ the inventory
def test_the_inventory() -> None:
    entries = [*inventory(everything().router)]
    first = entries[0]
    assert (first.connection, first.route, first.handler, [*first.actions]) == ("", "", "Root", ["echo"])
    forest = entries[1]
    assert forest.permissions() == ["IsAuthenticated | AllowAny"]
    assert forest.permissions(forest.actions["fell"]) == ["DenyAll"]
    assert {entry.route for entry in entries if entry.is_live} == {"live/<int:pk>/", "watched/", "unshown/"}
    plain = next(entry for entry in entries if entry.mounted is None)
    assert (plain.handler, plain.actions, plain.permissions(), plain.is_live) == ("plain_asgi", {}, [], False)
    assert [entry.name for entry in entries if entry.name][:1] == ["rows:row"]


# ------------------------------------------------------------------------------------------------ checks
def test_an_app_without_findings() -> None:
    assert check(app(path("a/", Allowed.as_aaah()), path("a/<int:pk>/", Allowed.as_aaah())), workers=4) == []


def test_unreachable_routes() -> None:
    found = check(
        app(path("<str:pk>/", Allowed.as_aaah()), path("new/", Allowed.as_aaah()), path("new/", Allowed.as_aaah()))
    )
    assert codes(found) == ["shadowed_route", "shadowed_route"]
    assert (found[0].level, found[0].place) == ("error", "ws/ new/")
    assert found[0].msg == "never reached: 'new/' and similar routes go to '<str:pk>/', declared before it"
    root = Root.as_asgi()
    found = check(hosted([path("ws/", root), path("ws/", root), path("again/", root)]))
    assert codes(found) == ["duplicate_route"]
    assert (found[0].place, found[0].cure) == (
        "(root) ws/",
        "remove one of the two, or move the actions to one handler",
    )


@pytest.mark.parametrize(
    ("pattern", "code", "msg", "cure"),
    [
        (
            path("/h/", Allowed.as_aaah()),
            "leading_slash",
            "'/h/' begins with '/', but the text to match never does",
            "remove the '/'",
        ),
        (
            re_path(r"^/h/$", Allowed.as_aaah()),
            "leading_slash",
            "'^/h/$' begins with '/', but the text to match never does",
            "remove the '/'",
        ),
        (
            path("", include([path("/h/", Allowed.as_aaah())])),
            "leading_slash",
            "'/h/' begins with '/', but the text to match never does",
            "remove the '/'",
        ),
        (
            path("items/{pk:int}/", Allowed.as_aaah()),
            "braces_in_path",
            "{pk:int} is plain text here and captures nothing",
            "write <int:pk>",
        ),
        (
            path("{pk}/", Allowed.as_aaah()),
            "braces_in_path",
            "{pk} is plain text here and captures nothing",
            "write <pk>",
        ),
        (
            path(r"^items/(?P<pk>\d+)/$", Allowed.as_aaah()),
            "regex_in_path",
            r"'^items/(?P<pk>\\d+)/$' is a regular expression, but path() treats it as plain text",
            "use re_path()",
        ),
    ],
)
def test_patterns_in_the_syntax_of_other_routers(pattern: Any, code: str, msg: str, cure: str) -> None:
    (found,) = check(app(pattern))
    assert (found.level, found.code, found.msg, found.cure) == ("error", code, msg, cure)


def test_correct_patterns() -> None:
    patterns = [
        path("items/<int:pk>/", include([path("", Allowed.as_aaah()), path("cards/", Allowed.as_aaah())])),
        re_path(r"^years/(?P<year>\d{4})/$", Allowed.as_aaah()),
        re_path(r"^a/", include([path("/odd/", Allowed.as_aaah())])),
    ]
    assert check(app(*patterns)) == []


def test_a_connection_path_that_begins_with_a_slash() -> None:
    found = check(hosted([path("/ws/", Root.as_asgi()), path("{room}/", Root.as_asgi())]))
    assert [(finding.code, finding.place) for finding in found] == [
        ("leading_slash", "(root) /ws/"),
        ("braces_in_path", "(root) {room}/"),
    ]


def test_unknown_attributes() -> None:
    class Base(Rows):
        filter_fieldset = ("id",)

    class Misspelt(Base):
        middleware = ()
        lookup_fields = "id"
        most = 300
        own_permission_classes = ()
        _orderin = ()

        def limit(self) -> None: ...

    found = check(app(path("a/", Misspelt.as_aaah()), path("b/", Misspelt.as_aaah()), path("c/", Base.as_aaah())))
    assert {finding.code for finding in found} == {"unknown_attribute"}
    assert {finding.place for finding in found} == {"ws/ a/"}
    assert sorted((finding.msg.split()[0], finding.cure) for finding in found) == [
        ("Base.filter_fieldset", "did you mean filter_fields?"),
        ("Misspelt.lookup_fields", "did you mean lookup_field?"),
        ("Misspelt.middleware", "write WSAction([...], middleware=...)"),
    ]


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("permissions", (IsAuthenticated,), "rename it to permission_classes"),
        ("guard", IsAuthenticated, "rename it to permission_classes"),
        ("who_may", [AllowAny & IsAuthenticated], "rename it to permission_classes"),
        ("throttles", (UserRateThrottle("1/s"),), "rename it to throttle_classes"),
        ("rate", UserRateThrottle("1/s"), None),  # not found: the action uses it
        ("STAFF", (IsAuthenticated,), None),
        ("own_permissions", (IsAuthenticated,), None),
        ("nothing", (), None),
    ],
)
def test_unused_policies(name: str, value: Any, cure: str | None) -> None:
    async def act(self: Any) -> None: ...

    options = {"throttle_classes": (ConnectionRateThrottle("9/s"), value)} if name == "rate" else {}
    handler = type("Guarded", (Allowed,), {name: value, "act": async_action(**options)(act)})
    if cure is None:
        assert check(app(path("a/", handler.as_aaah()))) == []
    else:
        with pytest.raises(ImproperlyConfigured, match=rf"Guarded\.{name} holds .*, but nothing reads it; {cure}"):
            handler.as_aaah()


def test_policies_used_by_a_method() -> None:
    class Deciding(Allowed):
        writers = (IsAuthenticated,)

        def get_permissions(self) -> Any:
            return self.writers

    assert check(app(path("a/", Deciding.as_aaah()))) == []


def test_object_permissions_without_objects() -> None:
    class Owned(Allowed):
        permission_classes = (IsOwner,)

        @async_action
        async def touch(self) -> None: ...

    class Rated(Rows):
        permission_classes = (IsOwner,)

    found = check(app(path("a/", Owned.as_aaah()), path("b/", Rated.as_aaah())))
    assert [(finding.code, finding.place) for finding in found] == [("object_permissions", "ws/ a/")]
    assert "check_object_permissions(obj) in act, touch" in found[0].cure


@pytest.mark.parametrize(
    ("ask", "asked_of_root", "classes", "finds"),
    [
        (IsAuthenticated, AllowAny, (), True),
        (AllowAny, IsAuthenticated, (), True),
        (AllowAny, AllowAny, (), False),
        (IsAuthenticated, IsAuthenticatedStrictly, (), False),
        (IsAuthenticated, IsAuthenticated, (FirstFrame,), False),
    ],
)
def test_broadcasts_open_to_any_client(ask: Any, asked_of_root: Any, classes: Any, finds: bool) -> None:
    class Telling(Allowed):
        permission_classes = (ask,)

        @async_action(mode="broadcast")
        async def tell(self) -> str:
            return ""

    class Hall(Root):
        permission_classes = (asked_of_root,)
        routepatterns = [path("a/", Telling.as_aaah())]

    found = check(hosted([path("ws/", Hall.as_asgi())], authentication_classes=classes))
    assert codes(found) == ["open_broadcasts"] * finds
    assert all("Hall sends the broadcasts of tell to any client" in finding.msg for finding in found)


def test_settings_of_missing_filters() -> None:
    class Unfiltered(Rows):
        filter_fields = ("id",)
        ordering = "id"
        filter_backends = (SearchFilter(),)
        search_fields = ("title",)

    found = check(app(path("a/", Unfiltered.as_aaah())))
    assert [(finding.code, finding.msg) for finding in found] == [
        ("unused_filter", "Unfiltered.filter_fields has no effect without FieldFilter"),
        ("unused_filter", "Unfiltered.ordering has no effect without OrderingFilter"),
    ]

    class Own(FieldFilter):
        pass

    class Deciding(Unfiltered):
        def filter_queryset(self, queryset: Any) -> Any:
            return queryset

    assert check(app(path("a/", Unfiltered.as_aaah(filter_backends=(Own, SearchFilter))))) == []
    assert check(app(path("a/", Deciding.as_aaah()))) == []


def test_events_without_subscriptions() -> None:
    class Telling(Allowed):
        events = {"moved": int}

    class Live(SubscribeMixin, Telling):
        pass

    (found,) = check(app(path("a/", Telling.as_aaah()), path("b/", Live.as_aaah())))
    assert (found.code, found.place) == ("no_subscribe", "ws/ a/")
    assert found.msg == "Telling has events, but clients cannot subscribe to it"


def test_parameters_that_the_client_fills() -> None:
    class Trusting(Allowed):
        @async_action
        async def ask(self, user: str, scope: Any = None) -> None: ...

        @async_action
        async def greet(self, user: int) -> None: ...

    found = check(app(path("a/", Trusting.as_aaah()), path("b/", Trusting.as_aaah())))
    assert {finding.code for finding in found} == {"client_input"}
    assert sorted((finding.place, finding.msg) for finding in found) == [
        ("ws/ a/ ask", "Trusting.ask has a parameter scope, which the client fills"),
        ("ws/ a/ ask", "Trusting.ask has a parameter user, which the client fills"),
        ("ws/ a/ greet", "Trusting.greet has a parameter user, which the client fills"),
    ]
    assert check(app(path("<int:user>/", Trusting.as_aaah(actions=["greet"])))) == []


def test_handlers_without_permissions() -> None:
    class Silent(AsyncAPIActionHandler):
        @async_action
        async def one(self) -> None: ...

        @async_action(permission_classes=[IsAuthenticated])
        async def two(self) -> None: ...

        @async_action
        async def three(self) -> None: ...

    class Deciding(Silent):
        def get_permissions(self) -> Any:
            return ()

    class Open(AsyncAPIConsumer):
        routepatterns = [
            path("a/", Silent.as_aaah()),
            path("b/", Silent.as_aaah()),
            path("c/", Deciding.as_aaah()),
            path("d/", Silent.as_aaah(permission_classes=[AllowAny])),
        ]

    found = check(hosted([path("ws/", Open.as_asgi())]))
    assert [(finding.level, finding.code, finding.place) for finding in found] == [
        ("warning", "no_permissions", "ws/ a/")
    ]
    assert found[0].msg == "Silent has no permissions: any connected client may call one, three"
    assert check(app(path("a/", Silent.as_aaah()))) == []  # the permissions of the root apply


def test_actions_without_timeout_or_pagination() -> None:
    class Endless(Allowed):
        @async_action(timeout=math.inf)
        async def wait(self) -> None: ...

    class Rows(ListAPIActionHandler):
        permission_classes = (AllowAny,)
        queryset = MemoryQuerySet(Card)
        serializer_class = Card
        pagination_class = None

        @async_action
        async def list(self) -> None: ...

    class Paged(Rows):
        pagination_class = ListAPIActionHandler.pagination_class

    found = check(
        app(
            path("a/", Endless.as_aaah()),
            path("b/", Rows.as_aaah()),
            path("c/", Rows.as_aaah()),
            path("d/", Paged.as_aaah()),
        )
    )
    assert [(finding.code, finding.place) for finding in found] == [
        ("no_timeout", "ws/ a/ wait"),
        ("no_pagination", "ws/ b/ list"),
    ]


def test_limits_without_effect() -> None:
    class Loose(Root):
        limits = Limits(max_outbox_bytes=2**40)

    loose = hosted([path("ws/", Loose.as_asgi()), path("x/", Root.as_asgi())], limits=Limits(idle_timeout=1e9))
    found = check(loose)
    assert [(finding.code, finding.place) for finding in found] == [
        ("loose_limit", "WSAction(limits=...)"),
        ("loose_limit", "Loose.limits"),
    ]
    assert (found[0].msg, found[0].cure) == ("idle_timeout=1e+09 is no effective limit", "the default is 300")


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, ["any_host"]),
        ({"allowed_hosts": ["example.com"]}, []),
        ({"allowed_origins": ["https://example.com"]}, []),
        ({"allowed_hosts": ["*"]}, []),  # explicitly any host
    ],
)
def test_an_app_without_allowed_hosts_or_origins(settings: dict[str, Any], found: list[str]) -> None:
    assert codes(check(WSAction([path("ws/", Root.as_asgi())], **settings))) == found


def test_debug_and_open_origins() -> None:
    class Sessions(SessionAuthentication):
        def get_user(self, session: dict[str, Any]) -> Any:
            return None

    assert codes(check(app(debug=True))) == ["debug"]
    assert check(app(allowed_origins=["*"])) == []
    found = check(app(allowed_origins=["*"], authentication_classes=[Sessions]))
    assert [(finding.level, finding.code) for finding in found] == [("error", "any_origin")]
    assert check(app(allowed_origins=["https://a.example"], authentication_classes=[Sessions])) == []


def test_a_memory_layer_with_several_workers() -> None:
    class Live(SubscribeMixin, Allowed):
        pass

    class Telling(Allowed):
        @async_action(mode="broadcast")
        async def tell(self) -> None: ...

    for handler in (Live, Telling):
        found = check(app(path("a/", handler.as_aaah())), workers=3)
        assert [(finding.level, finding.code) for finding in found] == [("error", "memory_layer")]
        assert "3 workers" in found[0].msg
        assert check(app(path("a/", handler.as_aaah())), workers=1) == []
        assert check(app(path("a/", handler.as_aaah()), layer=RedisLayer("redis://127.0.0.1:1")), workers=3) == []


def test_throttles_counted_by_each_process() -> None:
    class Limited(Allowed):
        throttle_classes = (UserRateThrottle("1/min"),)

    class OfAConnection(Allowed):
        throttle_classes = (ConnectionRateThrottle("1/min"),)

    assert codes(check(app(path("a/", Limited.as_aaah())), workers=2)) == ["memory_throttles"]
    assert check(app(path("a/", OfAConnection.as_aaah())), workers=2) == []
