"""The router: features that django.urls lacks, refused declarations, and error messages."""

import subprocess
import sys
import time
import types
from functools import partial
from typing import Any

import django.urls
import django.views
import pytest
from django.conf import settings

from wsaction.routers import SimpleRouter
from wsaction.routing import (
    ImproperlyConfigured,
    NoReverseMatch,
    Resolver404,
    Router,
    converters,
    include,
    path,
    re_path,
)
from wsaction.routing._resolver import Leaf
from wsaction.routing._urlconf import Endpoint, Include, convert_pattern, endpoint_and_children

if not settings.configured:
    settings.configure(USE_I18N=False)


def view(*args: object, **kwargs: object) -> None: ...


def other(*args: object, **kwargs: object) -> None: ...


class Handler:
    @classmethod
    def as_aaah(cls) -> Any:
        return view


class Consumer(Handler):
    @classmethod
    def as_asgi(cls) -> Any:
        return view


def test_importing_routing_loads_only_the_standard_library() -> None:
    code = (
        "import sys, wsaction.routing\n"
        "tops = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names) - {'__main__'}\n"
        "print(sorted(top for top in tops if not top.startswith(('_', 'sitecustomize'))))\n"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert (done.stdout, done.stderr) == ("['wsaction']\n", "")


def test_a_match_has_the_attributes_of_django_and_unpacks_alike() -> None:
    inner = [path("<slug:name>", view, {"k": 1}, "n")]
    router = Router([path("none", other), path("a/<int:x>/", include((inner, "app"), "ns"), {"j": 2})])
    match = router.resolve("a/07/b-c")
    func, args, kwargs = match
    assert (func, args, kwargs) == (view, (), {"x": 7, "name": "b-c", "k": 1, "j": 2}) == match[:]
    assert (match.url_name, match.app_names, match.namespaces, match.view_name) == ("n", ["app"], ["ns"], "ns:n")
    assert (match.app_name, match.namespace, match.route) == ("app", "ns", "a/<int:x>/<slug:name>")
    assert (match.captured_kwargs, match.extra_kwargs) == ({"name": "b-c"}, {"j": 2, "k": 1})
    assert match.tried == ["none", "a/<int:x>/<slug:name>"]
    assert repr(match).startswith("ResolverMatch(func=<function view")
    assert "url_name='n'" in repr(match)


def test_changing_a_match_does_not_change_the_next() -> None:
    router = Router([path("<x>", view, {"k": 1})])
    match = router.resolve("a")
    for held in (match.kwargs, match.captured_kwargs, match.extra_kwargs):
        held["spoilt"] = True
    match.namespaces.append("spoilt")
    fresh = router.resolve("a")
    assert (fresh.kwargs, fresh.captured_kwargs, fresh.extra_kwargs) == ({"x": "a", "k": 1}, {"x": "a"}, {"k": 1})
    assert fresh.namespaces == []


def test_the_view_name_of_views_without_a_name() -> None:
    class Callable:
        def __call__(self) -> None: ...

    named = Callable()
    named.view_class = Handler  # type: ignore[attr-defined]
    router = Router([path("a", partial(view)), path("b", Callable()), path("c", named), path("d", view)])
    names = [router.resolve(route).view_name for route in "abcd"]
    assert names == ["functools.partial", f"{__name__}.Callable", f"{__name__}.Handler", f"{__name__}.view"]


class YearConverter:
    regex = "[0-9]{1,4}"

    def to_python(self, value: str) -> int:
        return int(value)

    def to_url(self, value: int) -> str:
        if value == 13:
            raise ValueError("never 13")
        return f"{value:04}"


@pytest.fixture
def _year(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converters, "_registered", {})
    converters.register_converter(YearConverter, "year")


@pytest.mark.usefixtures("_year")
@pytest.mark.parametrize(
    ("route", "canonical", "cacheable"),
    [
        ("boards/007/", "boards/7/", True),
        ("regex/007/", "regex/007/", True),
        ("regex/x/7", "regex/x/7", True),
        ("regex/x/7and more", "regex/x/7", True),
        ("in/01/05/", "in/1/05/", True),
        ("years/7", "years/0007", False),
        ("years/0013", "years/0013", False),
        ("years/in/13/07", "years/in/13/7", False),
        ("overridden/07", "overridden/7", True),
        ("names/a b?c", "names/a b?c", True),
        ("apart/07/", "apart/07/", True),  # apart/7/ is the route of another pattern
        ("apart/08/", "apart/8/", True),
        ("apart/in/0/1", "apart/in/0/", True),
        ("apart/in/00/1", "apart/in/00/1", True),
    ],
)
def test_the_canonical_form_of_a_route(route: str, canonical: str, cacheable: bool) -> None:
    router = Router(
        [
            path("boards/<int:pk>/", view),
            re_path(r"^regex/(?P<pk>\d+)/$", view),
            re_path(r"^regex/x/(?P<pk>\d)", view),
            path("in/<int:a>/", include([re_path(r"^(?P<b>\d+)/$", view)])),
            path("years/<year:y>", view),
            path("years/in/<year:y>/", include([path("<int:x>", view)])),
            path("overridden/<int:x>", view, {"x": "default"}),
            path("names/<str:name>", view),
            path("apart/7/", view),
            path("apart/<int:pk>/", view),
            re_path("^apart/in/0/", view),
            path("apart/in/<int:pk>/", include([path("<int:x>", view)])),
        ]
    )
    match = router.resolve(route)
    assert (match.canonical, match.canonical, match.cacheable) == (canonical, canonical, cacheable)


def test_the_canonical_form_costs_the_same_among_many_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    router, asked = Router([path(f"boards{n}/<int:pk>/", view) for n in range(1_000)]), 0

    def match(leaf: Leaf, route: str, memo: Any) -> Any:
        nonlocal asked
        asked += 1
        return found(leaf, route, memo)

    found = Leaf.match
    monkeypatch.setattr(Leaf, "match", match)
    assert router.resolve("boards999/007/").canonical == "boards999/7/"
    assert asked == 2


def test_includes_of_modules_objects_and_routers(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, django_like = types.ModuleType("ours_module"), types.ModuleType("django_module")
    ours.routepatterns = [path("x", view, name="x")]  # type: ignore[attr-defined]
    ours.app_name = "app"  # type: ignore[attr-defined]
    django_like.urlpatterns = (path("y", view, name="y"),)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ours_module", ours)
    router = Router(
        [
            path("1/", include("ours_module", namespace="first")),
            path("2/", include(django_like)),
            path("3/", include((django_like, "tuple"))),
            path("4/", include(Router([path("z", view)]))),
            path("5/", ([path("t", view, name="t")], "triple", "three")),
            path("6/", include(("ours_module", None))),
        ]
    )
    for route in ("1/x", "2/y", "3/y", "4/z", "5/t", "6/x"):
        assert router.resolve(route).func is view
    assert [router.reverse(name) for name in ("first:x", "y", "tuple:y", "three:t", "app:x")] == [
        "1/x",
        "2/y",
        "3/y",
        "5/t",
        "6/x",
    ]


def test_endpoint_and_children_gives_an_endpoint_and_an_include_below_it() -> None:
    endpoint, below = endpoint_and_children(
        path("boards/<int:pk>/", view, {"k": 1}, "board"), [path("cards/<int:card>/", other)]
    )
    router = Router([endpoint, below])
    assert router.resolve("boards/7/").func is view
    assert router.resolve("boards/7/cards/8/").kwargs == {"pk": 7, "card": 8, "k": 1}
    assert router.reverse("board", [7]) == "boards/7/"
    with pytest.raises(ImproperlyConfigured, match="expected an endpoint, got the include 'a/'"):
        endpoint_and_children(path("a/", include([])), [])


@pytest.mark.parametrize(
    ("regex", "prefix"),
    [(r"^a/$", "^a/"), (r"^a/\Z", "^a/"), (r"^a\$", r"^a\$"), (r"a\\$", r"a\\"), (r"a\\Z", r"a\\Z"), ("^a", "^a")],
)
def test_nesting_below_a_regex_removes_its_end(regex: str, prefix: str) -> None:
    endpoint, below = endpoint_and_children(re_path(regex, view), [path("b", other)])
    assert (endpoint.pattern.source, below.pattern.source) == (regex, prefix)


def test_nesting_below_a_regex_and_django_patterns() -> None:
    router = Router(endpoint_and_children(re_path(r"^a/(?P<x>\d)/$", view), [path("b", other)]))
    assert (router.resolve("a/1/").func, router.resolve("a/1/b").kwargs) == (view, {"x": "1"})
    router = Router(endpoint_and_children(django.urls.path("a/<uuid:x>/", view), [path("b", other)]))
    assert router.resolve("a/00000000-0000-0000-0000-000000000007/b").cacheable


def test_a_pattern_is_copied_with_another_view_or_children() -> None:
    endpoint = path("a/<x>", view, {"k": 1}, "n")
    changed = endpoint.with_view(other)
    assert isinstance(changed, Endpoint)
    assert (changed.view, changed.kwargs, changed.name) == (other, {"k": 1}, "n")
    assert (endpoint.view, changed.pattern) == (view, endpoint.pattern)
    mounted = path("in/", include(([endpoint], "app"))).with_children((changed,))
    assert isinstance(mounted, Include)
    assert Router([mounted]).resolve("in/a/b").func is other
    assert str(endpoint.pattern) == "a/<x>"


def test_patterns_of_django_are_adopted() -> None:
    mounted = convert_pattern(
        django.urls.path("a/<int:x>/", django.urls.include(([django.urls.path("b", view)], "app")), {"k": 1})
    )
    assert isinstance(mounted, Include)
    assert (mounted.app_name, mounted.namespace, mounted.kwargs) == ("app", "app", {"k": 1})
    assert convert_pattern(mounted) is mounted
    mixed = django.urls.path(
        "mixed/", django.urls.include([path("ours", view), django.urls.re_path("^theirs$", other)])
    )
    router = Router([mixed, mounted])
    assert [router.resolve(route).func for route in ("mixed/ours", "mixed/theirs", "a/7/b")] == [view, other, view]


def test_a_recursive_include_is_refused() -> None:
    module = types.ModuleType("endless")
    module.urlpatterns = [django.urls.path("again/", django.urls.include(module))]  # type: ignore[attr-defined]
    with pytest.raises(ImproperlyConfigured, match="'again/' includes itself"):
        Router(module.urlpatterns)


class Broken:
    """A converter that is registered with Django only."""

    regex = "(?P<inner>a)"

    def to_python(self, value: str) -> str:
        return value

    to_url = to_python


def test_django_patterns_are_held_to_the_same_rules() -> None:
    pattern = django.urls.path("<x>", view)
    pattern.pattern.converters = {"x": Broken()}
    with pytest.raises(ImproperlyConfigured, match="Converter Broken has a named group"):
        convert_pattern(pattern)
    pattern.pattern.converters = {"x": type("Odd", (Broken,), {"regex": "(?i)a"})()}
    with pytest.raises(ImproperlyConfigured, match="is not a valid regular expression"):
        convert_pattern(pattern)
    with pytest.raises(TypeError, match=r"pass Handler.as_aaah\(\), not Handler"):
        convert_pattern(django.urls.path("a", Handler))


WRONG: list[tuple[Any, type[Exception], str]] = [
    (lambda: path("a", Handler), TypeError, r"pass Handler\.as_aaah\(\), not Handler\."),
    (lambda: path("a", Consumer), TypeError, r"pass Consumer.as_asgi\(\), not Consumer\."),
    (lambda: path("a", django.views.View), TypeError, r"pass View\.as_view\(\), not View\."),
    (lambda: path("a", Handler()), TypeError, r"pass Handler\.as_aaah\(\), not Handler\(\)"),
    (lambda: path("a", Handler.as_aaah), TypeError, r"what Handler.as_aaah\(\) returns: call it"),
    (lambda: path("a", "views.view"), TypeError, "got the string 'views.view': import it"),
    (lambda: path("a", None), TypeError, "must be a callable, or include"),
    (lambda: path("a", [path("b", view)]), TypeError, r"view of 'a' is a list; put include\(\) around"),
    (lambda: path("a", Router([])), TypeError, "must be a callable, or include"),
    (lambda: path("a", view, "name"), TypeError, "kwargs must be a mapping, got str 'name'; a name is passed as name="),
    (lambda: path(None, view), TypeError, "path.. takes a string.*got NoneType"),
    (lambda: re_path(7, view), TypeError, "re_path.. takes a regex as a string, got int 7"),
    (lambda: path("<int:1>", view), ImproperlyConfigured, "parameter name '1' which isn't a valid Python identifier"),
    (lambda: path("<:x>", view), ImproperlyConfigured, "invalid converter ''|isn't a valid Python identifier"),
    (lambda: path("<a:b:c>", view), ImproperlyConfigured, "isn't a valid Python identifier"),
    (
        lambda: path("<int: x>", view),
        ImproperlyConfigured,
        "cannot contain whitespace in angle brackets, got '<int: x>'",
    ),
    (lambda: path("<x\n>", view), ImproperlyConfigured, "cannot contain whitespace"),
    (lambda: path("<in:x>", view), ImproperlyConfigured, "invalid converter 'in'. Did you mean 'int'"),
    (lambda: path("<a>/<int:a>", view), ImproperlyConfigured, "the parameter 'a' twice"),
    (lambda: re_path("(", view), ImproperlyConfigured, "'.' is not a valid regular expression: missing"),
    (lambda: re_path("(?P<x>a)(?P<x>a)", view), ImproperlyConfigured, "redefinition of group name"),
    (lambda: include([view]), ImproperlyConfigured, "what path.. or re_path.. returns, got <function"),
    (lambda: include([], namespace="n"), ImproperlyConfigured, "namespace 'n' without an app_name"),
    (lambda: include(([], "a", "b")), ImproperlyConfigured, "takes a 2-tuple .* got 3 items"),
    (lambda: include(([],), "n"), ImproperlyConfigured, "got 1 items"),
    (lambda: include((path("a", view), path("b", view))), ImproperlyConfigured, "app_name is a string, got Endpoint"),
    (lambda: include(7), ImproperlyConfigured, "takes a list of what path.. and re_path.. return, got 7"),
    (lambda: include({"a": view}), ImproperlyConfigured, "takes a list of what"),
    (lambda: include(types), ImproperlyConfigured, "module 'types' has no routepatterns; .* import each other"),
    (lambda: Router(path("a", view)), ImproperlyConfigured, r"takes a list, and got one path\(\); put it in one: \["),
    (lambda: Router(SimpleRouter()), ImproperlyConfigured, r"got <.*SimpleRouter object .*>; pass its urls\."),
    (lambda: Router("abc"), ImproperlyConfigured, r"Router\(\) takes a list"),
    (lambda: Router([[path("a", view)]]), ImproperlyConfigured, "A pattern is what path"),
    (lambda: Router([]).reverse("a", [1], {"b": 2}), ValueError, "got both"),
]


@pytest.mark.parametrize(("declare", "error", "message"), WRONG, ids=[row[2][:40] for row in WRONG])
def test_misuse_is_refused_when_declared(declare: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        declare()


def test_a_missing_module_raises_module_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        include("wsaction.no_such_module")


def test_a_404_lists_suggestions_and_tried_patterns() -> None:
    router = Router([path("boards/<int:pk>/", view), path("boards/<int:pk>/cards/", include([re_path("^x$", view)]))])
    with pytest.raises(Resolver404) as caught:
        router.resolve("board/7/")
    assert caught.value.route == "board/7/"
    assert caught.value.tried == ["boards/<int:pk>/", "boards/<int:pk>/cards/x$"]
    assert "None of the 2 patterns matches the route 'board/7/'. Did you mean one of 'boards/<int:pk>/'" in str(
        caught.value
    )
    with pytest.raises(Resolver404, match="Routes have no leading slash"):
        router.resolve("/boards/7/")
    with pytest.raises(Resolver404, match=r"None of the 0 patterns matches the route ''\.$"):
        Router([]).resolve("")


def test_a_404_is_cheap_and_its_message_is_bounded() -> None:
    router = Router([path(f"name{number}/" * 50 + "<int:x>", view) for number in range(200)])
    route = "name7/" * 300_000
    start = time.process_time()
    with pytest.raises(Resolver404) as caught:
        router.resolve(route)
    message = str(caught.value)
    assert time.process_time() - start < 5
    assert len(message) < 1200


def test_no_reverse_match_lists_suggestions_or_tried_patterns() -> None:
    inner = [path("<int:x>", view, name="detail")]
    router = Router([path("a/<int:x>/", other, name="board"), path("in/", include((inner, "app"), "ns"))])
    for name, args, message in [
        ("bord", None, "Reverse for 'bord' not found: no pattern has that name or view. Did you mean 'board'?"),
        ("zzz", None, "Reverse for 'zzz' not found: no pattern has that name or view."),
        (view, None, "Reverse for 'view' not found: no pattern has that name or view."),
        (["unhashable"], None, "not found: no pattern has that name or view."),
        ("nss:detail", None, "'nss' is not a registered namespace. Did you mean 'ns'?"),
        ("ns:x:detail", None, "'x' is not a registered namespace inside 'ns'."),
        ("ns:detal", None, "Did you mean 'detail'?"),
        ("board", None, r"Reverse for 'board' with no arguments not found. Tried, in this order: "),
        ("board", [1, 2], r"with arguments (1, 2) not found. Tried, in this order: 'a/(?P<x>[0-9]+)/\\Z' takes (x)."),
        ("board", ["x" * 999], "x..."),
        ("board", [10**5000], "with arguments of tuple not found"),
    ]:
        with pytest.raises(NoReverseMatch) as caught:
            router.reverse(name, args)
        assert message in str(caught.value)
    with pytest.raises(NoReverseMatch, match=r"with keyword arguments {'y': 1}"):
        router.reverse("board", kwargs={"y": 1})


def test_reversing_works_in_cases_that_break_django() -> None:
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self) -> None: ...

    router = Router(
        [
            path("100%/<x>", view, name="percent"),
            path("50%%(x)s/", view, name="percents"),
            path("<int:x>/", view, {"x": 5}, "default"),
            path("<int:x>/", include([path("<int:x>", view, name="twice")])),
            re_path("(?i)^a$", view, name="flags"),
            path("unhashable", Unhashable()),
        ]
    )
    assert router.reverse("percent", ["%s"]) == "100%/%s"
    assert router.reverse("percents") == "50%%(x)s/"
    assert router.reverse("default", [5]) == "5/"
    for name, args in [("default", None), ("twice", [1, 2]), ("flags", None)]:
        with pytest.raises(NoReverseMatch):
            router.reverse(name, args)
    with pytest.raises(NoReverseMatch, match="takes nothing, it cannot be reversed"):
        router.reverse("flags")


def test_a_view_is_reversed_like_a_name() -> None:
    router = Router([path("a", view), path("in/<int:x>", include([path("b", other)]))])
    assert (router.reverse(view), router.reverse(other, [7])) == ("a", "in/7b")
