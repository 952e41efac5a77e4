"""Addresses of routes: templates, the schemas of parameters, and the regex that a frame's route must match."""

import re
from typing import Any

import pytest
from django.urls import path as django_path

from wsaction.asyncapi._addresses import Address, address_of
from wsaction.routing import Router, include, path, re_path, register_converter


class Year:
    regex = "[0-9]{4}"

    def to_python(self, value: str) -> int:
        return int(value)

    def to_url(self, value: Any) -> str:
        return str(value)


class Odd(Year):
    regex = "(?i:a|b)"


register_converter(Year, "addressyear")
register_converter(Odd, "addressodd")


def view() -> None: ...


def address(*patterns: Any) -> Address:
    return address_of(Router(patterns).leaves[0])


def test_the_address_of_a_path() -> None:
    found = address(path("boards/<int:pk>/", view))
    assert (found.text, found.template) == ("boards/{pk}/", "boards/{pk}/")
    assert found.parameters == {"pk": {"type": "integer", "minimum": 0}}
    assert found.captures == {"pk"}
    assert found.pattern == r"^boards\/(?:[0-9]+)\/(\?.*)?$"


@pytest.mark.parametrize(
    ("route", "matching", "other"),
    [
        ("", ["", "?a=1"], ["a"]),
        ("a.b/<str:x>", ["a.b/c", "a.b/c?d"], ["aab/c", "a.b/c/d", "a.b/"]),
        ("<slug:x>/<uuid:y>", ["a-b/12345678-1234-1234-1234-123456789abc"], ["a b/1", "a-b/1"]),
        ("<addressyear:x>", ["2026"], ["26", "20260"]),
        ("<path:x>", ["a/b"], [""]),
    ],
)
def test_the_regex_of_a_route_matches_what_the_router_does(route: str, matching: list[str], other: list[str]) -> None:
    pattern = address(path(route, view)).pattern
    assert pattern is not None
    assert [text for text in (*matching, *other) if re.search(pattern, text)] == matching


def test_converters() -> None:
    found = address(path("<addressyear:y>/<addressodd:o>/<z>", view))
    assert found.parameters["y"] == {"type": "string", "pattern": "^(?:[0-9]{4})$"}
    assert found.parameters["o"] == {"type": "string"}
    assert found.parameters["z"] == {"type": "string", "minLength": 1, "pattern": "^[^/]+$"}
    assert found.pattern is None  # not valid in JavaScript
    assert address(django_path("<int:pk>", view)).parameters == {"pk": {"type": "integer", "minimum": 0}}


def test_includes_are_joined_and_default_kwargs_are_captures() -> None:
    found = address(path("a/<int:x>/", include([path("b/<y>", view, {"z": 1})]), {"w": 2}))
    assert (found.text, found.captures) == ("a/{x}/b/{y}", {"x", "y", "z", "w"})


@pytest.mark.parametrize(
    ("regex", "text", "optional"),
    [
        (r"^a/(?P<x>\d+)/$", "a/{x}/", set()),
        (r"^a/(?:(?P<x>\d+)/)?$", "a/{x}/", {"x"}),
        (r"^(\d+)/(\w+)$", "{_0}/{_1}", set()),
        (r"^plain/$", "plain/", set()),
    ],
)
def test_regexes(regex: str, text: str, optional: set[str]) -> None:
    found = address(re_path(regex, view))
    assert (found.template, found.optional) == (text, optional)
    assert found.pattern is None
    assert all(schema == {"type": "string"} for schema in found.parameters.values())


@pytest.mark.parametrize("regex", [r"^(?P<x>a)|b$", r"^a|b$", r"^(?i:a)$", r"^c(?=d)(?P<x>d)|(?P<y>e)$"])
def test_regexes_without_a_template(regex: str) -> None:
    found = address(re_path(regex, view))
    assert (found.template, found.text, found.parameters) == (None, regex, {})
    assert found.captures == set(re.compile(regex).groupindex)


@pytest.mark.parametrize(
    ("pattern", "route"),
    [
        (re_path(r"^(\d)/(\d)$", view), "1/2"),
        (re_path(r"^(\d)/", include([re_path(r"^(\d)$", view)])), "1/2"),
        (re_path(r"^(\d)/", include([path("a", view)])), "1/a"),
        (re_path(r"^(\d)/", include([re_path(r"^(?P<a>\d)$", view)])), "1/2"),
        (re_path(r"^(?P<a>\d)/", include([re_path(r"^(\d)$", view)])), "1/2"),
        (re_path(r"^(\d)/", include([re_path(r"^(\d)/", include([re_path(r"^(\d)$", view)]), {"k": 1})])), "1/2/3"),
        (re_path(r"^(\d)/(\d)$", view, {"k": 1}), "1/2"),
        (re_path(r"^(\d)/", include([re_path(r"^(\d)$", view, {"k": 1})])), "1/2"),
    ],
)
def test_unnamed_groups_are_counted_as_by_the_router(pattern: Any, route: str) -> None:
    router = Router([pattern])
    assert address_of(router.leaves[0]).unnamed == len(router.resolve(route).args)
