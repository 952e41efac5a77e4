"""The router compared with django.urls, on tables and on trees of patterns and routes from Hypothesis."""

import random
import re
from typing import Any

import django.core.exceptions
import django.urls
import pytest
from django.utils.regex_helper import normalize
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from tests.support import routing_trees as trees
from tests.support.routing_trees import VIEWS, Spec
from wsaction import routing
from wsaction.routing import ImproperlyConfigured, Resolver404, Router
from wsaction.routing._expansion import forms

bounded = settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
chances = st.builds(random.Random, st.integers(0, 9999))
ALPHABET = ["a", "b", "/", "7", "é", "\n", "-", "", "A"]
VALUES = ["a", "a/b", 7, "7", "07", "b", "é", (1, 2), "", "B", "A", None, "075194d3-6885-417e-a8a8-6c931e272f00"]
# Errors of django.urls itself while reversing: it neither returns a URL nor raises NoReverseMatch.
DJANGO_TRIPS = (re.error, django.core.exceptions.ImproperlyConfigured, ValueError, KeyError, IndexError)


def declared(tree: tuple[Spec, ...]) -> Router:
    """The router of a tree; trees with a regex that does not compile are skipped."""
    try:
        return Router(trees.build(tree, routing))
    except ImproperlyConfigured:
        assume(False)
        raise


def mutated(route: str, chance: random.Random) -> str:
    at = chance.randrange(len(route) + 1)
    return route[:at] + chance.choice(ALPHABET) + route[at + chance.randrange(2) :]


@bounded
@given(trees.specs(trees.STARTS + trees.FLAGS), chances)
def test_resolving_agrees_with_django(tree: tuple[Spec, ...], chance: random.Random) -> None:
    router, oracle = declared(tree), trees.oracle(tree)
    for route in ["", "a", "/", *list(trees.likely_routes(tree))[:60]]:
        for text in (route, mutated(route, chance), route + chance.choice(ALPHABET)):
            assert trees.resolved(router, text) == oracle.resolve(text), text


def include_of(text: str, *children: Spec, app_name: str | None = None, samples: tuple[str, str] = ("", "")) -> Spec:
    return Spec("path", text, samples, children=children, app_name=app_name)


EQUAL_ROUTES = (
    include_of(
        "",
        include_of(
            "", include_of("<int:w>", Spec("path", "", ("", ""), name="one"), app_name="app", samples=("7", "7"))
        ),
    ),
    include_of("<pair:w>", include_of(""), include_of("", app_name="app"), samples=("1/2", "1/2")),
)


@bounded
@given(trees.specs(trees.STARTS), chances)
@example(EQUAL_ROUTES, random.Random(0))
def test_reversing_agrees_with_django(tree: tuple[Spec, ...], chance: random.Random) -> None:
    router, oracle = declared(tree), trees.oracle(tree)
    for name in [*sorted(set(trees.names(tree))), "none:one", *VIEWS]:
        for size in range(5):
            kwargs = {key: chance.choice(VALUES) for key in chance.sample([*trees.NAMES, "k"], size)}
            compare_reverse(router, oracle, name, None, kwargs)
            compare_reverse(router, oracle, name, list(kwargs.values()), None)
    for route in trees.likely_routes(tree):
        match = trees.resolved(router, route)
        if match is not None:
            compare_reverse(router, oracle, match["view_name"], None, match["kwargs"])
            compare_reverse(router, oracle, match["view_name"], list(match["kwargs"].values()) or match["args"], None)


def compare_reverse(router: Router, oracle: trees.Oracle, name: Any, args: Any, kwargs: Any) -> None:
    ours = trees.reversed_url(router, name, args, kwargs)
    try:
        expected = oracle.reverse(name, args, kwargs)
    except DJANGO_TRIPS:
        return
    assert ours == expected, (name, args, kwargs)


VALUES_OF = {
    "int": st.integers(0, 10**30),
    "str": st.text(st.characters(exclude_characters="/"), min_size=1),
    "slug": st.text("aZ0-_", min_size=1),
    "uuid": st.uuids(),
    "path": st.text(st.characters(exclude_characters="\n"), min_size=1),
}


@settings(bounded, max_examples=150)
@given(st.lists(st.sampled_from(["int", "str", "slug", "uuid", "path"]), max_size=4), st.integers(0, 4), st.data())
def test_reversed_routes_resolve_to_the_same_values(kinds: list[str], cut: int, data: st.DataObject) -> None:
    if "path" in kinds:
        kinds = [*kinds[: kinds.index("path")], "path"]
    segments = [f"<{kind}:p{number}>/" for number, kind in enumerate(kinds)]
    below = routing.path("".join(segments[cut:]) + "end", VIEWS[0], name="end")
    router = Router([routing.path("".join(segments[:cut]), routing.include(([below], "app")))])
    values = {f"p{number}": data.draw(VALUES_OF[kind]) for number, kind in enumerate(kinds)}
    route = router.reverse("app:end", kwargs=values)
    match = router.resolve(route)
    assert (match.func, match.kwargs, match.canonical, match.view_name) == (VIEWS[0], values, route, "app:end")
    assert router.reverse("app:end", list(values.values())) == route


REGEX_STEPS = [
    *"ab/.()[]$^|*+?{}%",
    *[r"\d", r"\w", r"\.", r"\(", r"\)", r"\Z", r"\b", r"\$", r"\?", r"[^a]", r"[\w]", "a++"],
]
REGEX_STEPS += [
    "(?:",
    "(?P<x>",
    "(?P<y>",
    "(?P=x)",
    "(?=",
    "(?!",
    "(?<=",
    "(?#",
    "(?>",
    "()",
    "(a)",
    "(a)?",
    "(?:(a)/)?",
]
REGEX_STEPS += ["{2}", "{0}", "{1,2}", "{,2}", "*?"]


@settings(bounded, max_examples=500)
@given(st.lists(st.sampled_from(REGEX_STEPS), max_size=9).map("".join))
def test_forms_of_regexes_agree_with_django(regex: str) -> None:
    try:
        expected = [(text, list(parameters)) for text, parameters in normalize(regex)]
    except (ValueError, IndexError):
        expected = []
    ours = [
        (
            "".join(piece if isinstance(piece, str) else f"%({piece[0]})s" for piece in form.pieces),
            list(form.parameters),
        )
        for form in forms(regex)
    ]
    assert ours == expected


@pytest.mark.parametrize("regex", ["(?P>a)", "(?i)a", "(?>a)", "a{,2}", "a)", "*"])
def test_some_regexes_have_no_form(regex: str) -> None:
    assert forms(regex) == ()


def leaf(text: str, kind: str = "path", name: str | None = None, kwargs: Any = None, view: int = 0) -> Spec:
    return Spec(kind, text, (), kwargs, name, view)


def mount(text: str, *children: Spec, kind: str = "path", app: str | None = None, ns: str | None = None) -> Spec:
    return Spec(kind, text, (), None, None, 0, children, app, ns)


INT = "1" * 5000
RESOLVING = [
    ("the digits that int() takes", (leaf("<int:x>"), leaf("<str:x>", view=1)), ["1" * 4300, INT, "", "٣", "-1", "+1"]),
    ("5,000 digits in an include", (mount("<int:x>/", leaf("a")), leaf("<path:p>")), [f"{INT}/a", "1/a"]),
    ("nothing matches nothing", (leaf(""),), ["", "/", "\n"]),
    ("a regex of nothing matches all", (leaf("", "re_path"),), ["", "abc", "/"]),
    ("all of it", (leaf("^$", "re_path"), leaf("$", "re_path", view=1)), ["", "\n", "a"]),
    ("the end is the end", (leaf("a"), leaf("^a$", "re_path", view=1), leaf(r"^a\Z", "re_path")), ["a", "a\n", "\na"]),
    ("an escaped dollar", (leaf(r"^a\$", "re_path"),), ["a$", "a$b", "a"]),
    ("captures to the end of an include", (mount("<str:a>", leaf("b"), leaf("", view=1)),), ["xb", "x", "b"]),
    ("an include takes what it can", (mount("<path:p>/", leaf("x")), leaf("<path:p>", view=1)), ["a/b/x", "a/x/"]),
    ("literals inside a segment", (leaf("a<int:x>b/c"), mount("a<int:x>", leaf("b/d"))), ["a1b/c", "a1b/d", "ab/c"]),
    ("an include inside a segment", (mount("ab", leaf("c/"), mount("d/e", leaf("f"))),), ["abc/", "abd/ef", "ab"]),
    ("the first declared", (leaf("<str:x>"), leaf("a", view=1), leaf("<slug:x>", view=2)), ["a", "é", "b-"]),
    ("the first, literals first", (leaf("a/<x>"), leaf("<x>/b", view=1), leaf("a/b", view=2)), ["a/b", "a/", "b/b"]),
    ("a regex between", (leaf("b"), leaf("a", "re_path", view=1), leaf("ab", view=2)), ["b", "ab", "xxa"]),
    ("back out of an include", (mount("a/", leaf("b")), leaf("a/c", view=1), mount("a/", leaf("d"))), ["a/c", "a/d"]),
    ("alternatives", (leaf("^a|b", "re_path"), leaf("^c|d$", "re_path", view=1)), ["a", "xb", "cx", "c", "d", "xd"]),
    ("flags", (leaf("(?i)^ab$", "re_path"), leaf("(?x) ^ a b c $", "re_path", view=1)), ["AB", "abc", "ab"]),
    ("repeated", (leaf("^ab*", "re_path"), leaf("^c/?$", "re_path", view=1)), ["a", "abbb", "c", "c/", "c//", "b"]),
    ("numbers as escapes", (leaf(r"^a\x2fb$", "re_path"), leaf(r"^c\057d$", "re_path")), ["a/b", "c/d", "a2fb"]),
    ("a slash in a class", (leaf("^a[/]b[^x]c$", "re_path"), leaf("^[a/]+$", "re_path")), ["a/b/c", "a//a", "abc"]),
    ("unnamed groups", (leaf(r"(\d)(x)?(?:y)?$", "re_path"), leaf(r"(a)(?P<n>b)?", "re_path")), ["1x", "1", "a", "ab"]),
    (
        "unnamed groups in includes",
        (
            mount("(a)", leaf("(b)", "re_path"), leaf("<int:x>"), kind="re_path"),
            mount("<int:y>/", leaf("(b)", "re_path")),
        ),
        ["ab", "a7", "7/b"],
    ),
    ("defaults win", (leaf("<int:x>", kwargs={"x": 1, "y": 2}),), ["7"]),
    ("newlines", (leaf("<a>\n<b>"), leaf("<path:p>")), ["x\ny", "\n\n\n", "x"]),
    ("not ASCII", (leaf("日本/<slug:s>/é"), leaf("<str:x>/é")), ["日本/a/é", "日本/é", "日本/ü/é"]),
    ("empty segments", (leaf("a//<x>/"), leaf("//")), ["a//b/", "a///", "//", "/", "a/b/"]),
    (
        "what looks like a parameter",
        (leaf("<>"), leaf("a>b<"), leaf("^a$"), leaf("(?P<x>.)")),
        ["<>", "a>b<", "^a$", "a"],
    ),
    ("a question mark is nothing special", (leaf("a?b=<x>"), leaf("a")), ["a?b=c", "a?", "a"]),
    ("converters across slashes", (leaf("<pair:p>/x"), leaf("<anything:p>x", view=1)), ["1/2/x", "2/1/x", "x", "\nx"]),
    ("converters of nothing", (leaf("<maybe:p>/a"), mount("<maybe:p>", leaf("a"))), ["/a", "a/a", "a", "aa", "ca"]),
    (
        "endings after any text",
        (leaf("<path:p>/x"), leaf("<path:p>/y", view=1), leaf(".*yz$", "re_path")),
        ["a/y", "yz"],
    ),
]


@pytest.mark.parametrize(("tree", "routes"), [row[1:] for row in RESOLVING], ids=[row[0] for row in RESOLVING])
def test_a_table_of_routes(tree: tuple[Spec, ...], routes: list[str]) -> None:
    router, oracle = declared(tree), trees.oracle(tree)
    for route in routes:
        assert trees.resolved(router, route) == oracle.resolve(route), route


REVERSING = [
    ("the last declared", (leaf("a", name="n"), leaf("b", name="n")), [("n", None, None), ("x", None, None)]),
    (
        "what takes the arguments",
        (leaf("<x>", name="n"), leaf("<x>/<y>", name="n")),
        [("n", "a", None), ("n", "ab", None)],
    ),
    (
        "a value that does not fit",
        (leaf("<int:x>", name="n"), leaf("<slug:x>", name="n")),
        [("n", ["é"], None), ("n", ["7"], None)],
    ),
    (
        "text for a number",
        (leaf("<int:x>", name="n"),),
        [("n", ["07"], None), ("n", [7.5], None), ("n", None, {"x": True})],
    ),
    ("a number of 5,000 digits", (leaf("<int:x>", name="n"), leaf("b<path:x>", name="n")), [("n", ["9" * 5000], None)]),
    (
        "defaults",
        (leaf("a", name="n", kwargs={"x": 1}),),
        [("n", None, {"x": 1}), ("n", None, {"x": 2}), ("n", None, None)],
    ),
    (
        "optional groups",
        (leaf(r"^a(?:/(?P<x>\d+))?$", "re_path", "n"),),
        [("n", None, None), ("n", "7", None), ("n", "b", None)],
    ),
    (
        "unnamed groups",
        (leaf(r"^(\d)/(?:(\w)/)?$", "re_path", "n"),),
        [("n", "1", None), ("n", "1a", None), ("n", None, None)],
    ),
    ("the end is not a newline", (leaf(r"^(.)$", "re_path", "n"),), [("n", "\n", None), ("n", "a", None)]),
    (
        "instances of an app",
        (
            mount("1/", leaf("x", name="n"), app="app", ns="one"),
            mount("2/", leaf("x", name="n"), app="app", ns="two"),
            mount("3/", mount("<int:i>/", leaf("x", name="n"), app="app", ns="three")),
        ),
        [
            ("app:n", None, None),
            ("one:n", None, None),
            ("two:n", None, None),
            ("three:n", [3], None),
            ("n", None, None),
        ],
    ),
    (
        "the instance called as the app",
        (mount("1/", leaf("x", name="n"), app="app"), mount("2/", leaf("x", name="n"), app="app", ns="two")),
        [("app:n", None, None), ("app:two:n", None, None), ("app:x", None, None)],
    ),
    (
        "namespaces in namespaces",
        (
            mount("<int:a>/", mount("<pair:p>-", leaf("<b>", name="n"), app="in"), app="out"),
            mount("", leaf("y"), app="e"),
        ),
        [
            ("out:in:n", None, {"a": 1, "p": (1, 2), "b": "z"}),
            ("in:n", None, None),
            ("out:n", None, None),
            ("e:n", None, None),
        ],
    ),
    (
        "an empty prefix",
        (mount("", leaf("<x>", name="n", kwargs={"k": 1}), app="e"),),
        [("e:n", "a", None), ("e:n", None, {"x": 1})],
    ),
]


@pytest.mark.parametrize(("tree", "calls"), [row[1:] for row in REVERSING], ids=[row[0] for row in REVERSING])
def test_a_table_of_names(tree: tuple[Spec, ...], calls: list[tuple[str, Any, Any]]) -> None:
    router, oracle = declared(tree), trees.oracle(tree)
    for name, args, kwargs in calls:
        assert trees.reversed_url(router, name, args and list(args), kwargs) == oracle.reverse(name, args, kwargs)


@pytest.mark.slow
@bounded
@given(trees.specs(trees.STARTS + trees.FLAGS))
def test_patterns_made_by_django_are_accepted(tree: tuple[Spec, ...]) -> None:
    declared(tree)  # compiles
    oracle = trees.oracle(tree)
    router = Router(oracle.patterns)
    for route in ["", *list(trees.likely_routes(tree))[:40]]:
        assert trees.resolved(router, route) == oracle.resolve(route), route


def test_the_trie_never_hides_a_pattern_from_its_regex() -> None:
    """With many unusual regexes in one router, the first regex that matches by itself wins."""
    chance = random.Random(7)
    specs = [
        leaf(
            chance.choice(["^", "^", ""])
            + "".join(chance.choices([*trees.REGEXES], k=3)).replace("{}", "x")
            + chance.choice(["$", "", r"\Z"]),
            "re_path",
        )
        for _ in range(400)
    ]
    patterns = []
    for spec in specs:
        try:
            patterns.append(spec.build(routing))
        except ImproperlyConfigured:  # the same parameter twice
            continue
    patterns = [pattern.with_view(number) for number, pattern in enumerate(patterns)]
    chance.shuffle(patterns)
    router = Router(patterns)
    for _ in range(600):
        route = "".join(chance.choices(["a", "b", "/", "7", "x1", "é", "-", "]", "{"], k=chance.randrange(6)))
        alone = [pattern.view for pattern in patterns if pattern.pattern.match(route) is not None]
        try:
            assert router.resolve(route).func == alone[0]
        except Resolver404:
            assert not alone
