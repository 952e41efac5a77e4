"""`wsaction._protocol.scope`: one topic for each route of each connection path."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsaction._protocol.scope import captured_root, connection_path, topic_of

TEXTS = st.text(st.sampled_from("a/?%25 3F"), max_size=8)


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_distinct_places_have_distinct_topics(path: str, route: str, other_path: str, other_route: str) -> None:
    same = (path, route) == (other_path, other_route)
    assert (topic_of(path, route) == topic_of(other_path, other_route)) is same


@given(TEXTS, TEXTS, TEXTS)
def test_the_end_of_the_path_is_unambiguous(first: str, second: str, third: str) -> None:
    assert topic_of(f"{first}?{second}", third) != topic_of(first, f"{second}?{third}")
    assert topic_of(f"{first}%3F{second}", third) != topic_of(f"{first}?{second}", third)


def test_a_consumer_served_alone_has_its_path() -> None:
    assert connection_path({"path": "/ws/7"}) == "/ws/7"
    assert connection_path({"path": "/ws/07/", "wsaction.path": "ws/7/"}) == "ws/7/"


@pytest.mark.parametrize(
    ("scope", "wanted"),
    [
        ({}, ""),
        ({"root_path": "/live"}, ""),
        ({"root_path": "/t/acme", "path_params": {}}, ""),
        ({"root_path": "/t/acme", "path_params": {"tenant": "acme"}}, "t/acme/"),
        ({"root_path": "", "path_params": {"tenant": "acme"}}, ""),
    ],
)
def test_an_enclosing_mount_counts_if_it_captured_something(scope: Any, wanted: str) -> None:
    assert captured_root(scope) == wanted
