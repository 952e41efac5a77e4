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


def test_the_worked_value() -> None:
    told = address(path("boards/<int:pk>/", view))
    assert (told.text, told.template) == ("boards/{pk}/", "boards/{pk}/")
    assert told.parameters == {"pk": {"type": "integer", "minimum": 0}}
    assert told.captures == {"pk"}
    assert told.pattern == r"^boards\/(?:[0-9]+)\/(\?.*)?$"


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
    told = address(path("<addressyear:y>/<addressodd:o>/<z>", view))
    assert told.parameters["y"] == {"type": "string", "pattern": "^(?:[0-9]{4})$"}
    assert told.parameters["o"] == {"type": "string"}
    assert told.parameters["z"] == {"type": "string", "minLength": 1, "pattern": "^[^/]+$"}
    assert told.pattern is None  # not valid in JavaScript
    assert address(django_path("<int:pk>", view)).parameters == {"pk": {"type": "integer", "minimum": 0}}


def test_includes_are_joined_and_default_kwargs_are_no_keys() -> None:
    told = address(path("a/<int:x>/", include([path("b/<y>", view, {"z": 1})]), {"w": 2}))
    assert (told.text, told.captures) == ("a/{x}/b/{y}", {"x", "y", "z", "w"})


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
    told = address(re_path(regex, view))
    assert (told.template, told.optional) == (text, optional)
    assert told.pattern is None
    assert all(schema == {"type": "string"} for schema in told.parameters.values())


@pytest.mark.parametrize("regex", [r"^(?P<x>a)|b$", r"^a|b$", r"^(?i:a)$", r"^c(?=d)(?P<x>d)|(?P<y>e)$"])
def test_regexes_that_cannot_be_filled_in(regex: str) -> None:
    told = address(re_path(regex, view))
    assert (told.template, told.text, told.parameters) == (None, regex, {})
    assert told.captures == set(re.compile(regex).groupindex)


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
def test_unnamed_groups_count_as_the_router_counts_them(pattern: Any, route: str) -> None:
    router = Router([pattern])
    assert address_of(router.leaves[0]).unnamed == len(router.resolve(route).args)
