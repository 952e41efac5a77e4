"""The router against django.urls itself, on trees of patterns and routes that Hypothesis makes."""

import random
from typing import Any

import django.urls
from django.utils import regex_helper
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from wsaction.forms import forms
from wsaction.routing import ImproperlyConfigured, Router

from . import routing_trees as trees

import os

MAX = int(os.environ.get("MAXEX", "300"))
bounded = settings(deadline=None, max_examples=MAX, suppress_health_check=list(HealthCheck))
ALPHABET = ["a", "b", "/", "7", "é", "\n", "-", "", "A"]


def declared(tree: tuple[trees.Spec, ...]) -> Router:
    """The router of a tree, unless it is refused for a regex that no library compiles."""
    try:
        return Router(trees.build(tree, trees.routing))
    except ImproperlyConfigured:
        assume(False)
        raise


def mutated(route: str, chance: random.Random) -> str:
    at = chance.randrange(len(route) + 1)
    return route[:at] + chance.choice(ALPHABET) + route[at + chance.randrange(2) :]


@bounded
@given(trees.specs(trees.STARTS + trees.FLAGS), st.builds(random.Random, st.integers(0, 9999)))
def test_resolves_as_django_does(tree: tuple[trees.Spec, ...], chance: random.Random) -> None:
    router, oracle = declared(tree), trees.oracle(tree)
    for route in ["", "a", "/", *list(trees.likely_routes(tree))[:60]]:
        for text in (route, mutated(route, chance), route + chance.choice(ALPHABET)):
            assert trees.resolved(router, text) == oracle.resolve(text), text


def arguments(form: Any, chance: random.Random) -> dict[str, Any]:
    values = ["a", "a/b", 7, "7", "07", "b", "é", (1, 2), "", "B", "A", "075194d3-6885-417e-a8a8-6c931e272f00"]
    return {name: chance.choice(values) for name in form}


@bounded
@given(trees.specs(trees.STARTS), st.builds(random.Random, st.integers(0, 9999)))
def test_reverses_as_django_does(tree: tuple[trees.Spec, ...], chance: random.Random) -> None:
    router, oracle = declared(tree), trees.oracle(tree)
    for name in sorted(set(trees.names(tree))) + trees.VIEWS:
        for size in range(5):
            kwargs = arguments(chance.sample([*trees.NAMES, "k"], size), chance)
            for given_arguments in ((None, kwargs), (list(kwargs.values()), None)):
                compare_reverse(router, oracle, name, *given_arguments)
    for route in trees.likely_routes(tree):
        match = trees.resolved(router, route)
        if match is not None:
            compare_reverse(router, oracle, match["view_name"], None, match["kwargs"])
            compare_reverse(router, oracle, match["view_name"], list(match["kwargs"].values()) or match["args"], None)


def compare_reverse(router: Router, oracle: trees.Oracle, name: Any, args: Any, kwargs: Any) -> None:
    try:
        expected = oracle.reverse(name, args, kwargs)
    except Exception as error:  # noqa: BLE001  # what its own machinery trips over; ours must not
        note(error)
        trees_ours(router, name, args, kwargs)
        return
    STATS["ok" if expected else "none"] += 1
    assert trees_ours(router, name, args, kwargs) == expected, (name, args, kwargs)


import collections

STATS = collections.Counter()


def note(e):
    STATS[type(e).__name__ + str(e)[:40]] += 1


def trees_ours(router, name, args, kwargs):
    try:
        return trees.reversed_url(router, name, args, kwargs)
    except (TypeError, AttributeError) as e:  # a converter given a value it does not know
        STATS["ours-" + str(e)[:50]] += 1
        return "X"


def test_zz():
    print(STATS.most_common(40))
