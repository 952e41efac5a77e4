"""Outlines and tries: what an outline claims of a pattern, and how few of 1,000 patterns are tried."""

from collections.abc import Callable

import pytest

from wsaction.routing import Resolver404, Router, include, path, re_path
from wsaction.routing._patterns import Endpoint, Include, compile_regex, compile_route
from wsaction.routing._trie import Outline, Trie, outline


def view(**kwargs: object) -> None: ...


def text(shape: Outline) -> str:
    return "".join(piece or "*" for piece in shape.pieces) + ("..." + shape.tail if shape.is_open else "")


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ("", ""),
        ("a/<int:x>/b", "a/*/b"),
        ("a<int:x>-<slug:y>", "a*-*"),
        ("a/<path:x>/b", "a/.../b"),
        ("<uuid:x>.$^", "*.$^"),
        ("é\n<x>", "é\n*"),
    ],
)
def test_outlines_of_routes(route: str, expected: str) -> None:
    assert text(outline(compile_route(route, True))) == expected
    assert not outline(compile_route("a/<int:x>", False)).is_open


@pytest.mark.parametrize(
    ("regex", "expected"),
    [
        (r"^a/$", "a/"),
        (r"a/$", "a/"),  # matched in full
        (r"^a\Z", "a"),
        (r"a\Z", "...a"),
        (r"^a\\Z", "a\\Z..."),
        (r"^a\$", "a$"),
        (r"^a", "a..."),
        (r"a", "..."),
        (r"^(?P<x>\d+)/(\w)?$", "*/*"),
        (r"^(?:a|b)[^/]c\.\-\/$", "**c.-/"),
        (r"^a|b$", "..."),
        (r"^a[/]b$", "a...b"),
        (r"^a.b$", "a...b"),
        (r"^ab*c+d?/$", "a***/"),
        (r"^ab/*c$", "ab...c"),
        (r"^ab{2}$", "a..."),
        (r"^{a$", "...a"),
        (r"^\x2f\057\x61b$", "...b"),
        (r"^(?P<x>\x61)b$", "*b"),
        (r"^(\1)b$", "...b"),
        (r"^a(?:/(?P<x>\d))?$", "a..."),
        (r"^a(?=b)b$", "a...b"),
        (r"^((?!a)b)/c$", ".../c"),
        (r"(?i)^a$", "..."),
        (r"^a(?#|\q)$", "..."),
        (r"^(a)?(?(1)b|c)$", "..."),
        (r"(?x)^a # \q", "..."),
        (r"^$", ""),
        (r"$", ""),
        (r"", "..."),
    ],
)
def test_outlines_of_regexes(regex: str, expected: str) -> None:
    if r"\1" in regex:
        regex = regex.replace(r"(\1)", r"(a)(\1)")
        expected = "*" + expected
    assert text(outline(compile_regex(regex, True))) == expected


def test_a_regex_prefix_is_not_open_at_its_end() -> None:
    prefix = outline(compile_regex("^a/", False))
    assert text(prefix + outline(compile_route("b/<int:x>", True))) == "a/b/*"
    assert text(outline(compile_regex("^a$", False)) + outline(compile_route("b", True))) == "a...b"


SHAPES: dict[str, Callable[[int], Endpoint | Include]] = {
    "a/<int:x>/name0/": lambda n: path(f"a/<int:x>/name{n}/", view),
    "name0/<x>": lambda n: path(f"name{n}/<x>", view),
    "name0-<int:x>": lambda n: path(f"name{n}-<int:x>", view),
    "<int:x>-name0": lambda n: path(f"<int:x>-name{n}", view),
    "<path:x>/name0": lambda n: path(f"<path:x>/name{n}", view),
    "name0<path:x>": lambda n: path(f"name{n}-<path:x>", view),
    "^name0": lambda n: re_path(f"^name{n}-", view),
    "^a/(x)/name0": lambda n: re_path(rf"^a/(?P<x>[^/]+)/name{n}/$", view),
    "^a(/x)?/name0": lambda n: re_path(rf"^a(/(?P<x>[^/]+))?/name{n}$", view),
    "include": lambda n: path(f"<x>/name{n}/", include([path("<int:y>", view), re_path("^$", view)])),
    "mid-segment include": lambda n: path("a", include([path(f"b{n}/c", view)])),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_few_of_1000_patterns_are_tried(shape: str) -> None:
    router = Router([SHAPES[shape](number) for number in range(1000)])
    texts = [
        "a/7/name999/",
        "name999/a",
        "name999-7",
        "7-name999",
        "a/b/name999",
        "a/name999/7",
        "ab999/c",
        "name999",
        "",
    ]
    assert any(router._trie.candidates(route) for route in texts)
    for route in [*texts, "name/" * 400, "/" * 2048, "a/" * 1024]:
        assert len(router._trie.candidates(route)) <= 3, route


def test_candidates_come_in_the_order_of_declaration() -> None:
    trie = Trie()
    for index, route in enumerate(["<path:p>", "a/<x>", "<x>/b", "a/b", "a<path:p>", "c", "a/<x>"]):
        trie.add(outline(compile_route(route, True)), index)
    assert trie.candidates("a/b") == [0, 1, 2, 3, 4, 6]
    assert trie.candidates("c") == [0, 5]
    assert trie.candidates("a/b/c") == [0, 4]


def test_long_routes_and_deep_patterns_do_not_recurse() -> None:
    deep: Endpoint | Include = path("<x>", view)
    for _ in range(200):
        deep = path("a/", include([path("b", view), deep]))
    router = Router([path("a/" * 1000, view), path("<x>/<y>/<z>/", view), deep])
    assert router.resolve("a/" * 1000).func is view
    assert router.resolve("a/" * 200 + "c").kwargs == {"x": "c"}
    for route in ("b/" * 1024, "a/" * 1001, "a/" * 300, "/" * 2048, "a" * 2048):
        with pytest.raises(Resolver404):
            router.resolve(route)
