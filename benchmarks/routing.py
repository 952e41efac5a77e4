"""Resolving among 10, 100 and 1,000 patterns, against ``django.urls`` in the same run.

    python -m benchmarks.routing [--quick]

The target is declared last. Contestants take turns; a figure is the median of the rounds. A ratio compares medians of
this run, so it holds across machines; the microseconds do not.
"""

import argparse
import gc
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import django  # type: ignore[import-untyped]  # untyped, as are its modules
import django.urls  # type: ignore[import-untyped]
from django.urls.resolvers import RegexPattern, URLResolver  # type: ignore[import-untyped]

from wsaction import __version__, routing

__all__ = ("main",)

SIZES = (10, 100, 1000)
AIM_GROWTH = 1.5
AIM_DJANGO = 0.1
RESOURCES = ("cards", "lists", "labels", "comments", "members")

Resolve = Callable[[str], Any]


def view(**kwargs: object) -> None:
    """What all patterns lead to."""


def nested(library: Any, size: int) -> tuple[list[Any], str]:
    """``boards/<int:board_id>/<name>/<int:pk>/``, each with another name."""
    names = [f"{RESOURCES[number % 5]}{number}" for number in range(size - 1)] + ["cards"]
    patterns = [library.path(f"boards/<int:board_id>/{name}/<int:pk>/", view, name=name) for name in names]
    return patterns, "boards/7/cards/42/"


def spread(library: Any, size: int) -> tuple[list[Any], str]:
    """Each pattern with another first segment."""
    patterns = [library.path(f"app{number}/<int:pk>/<slug:name>/", view) for number in range(size)]
    return patterns, f"app{size - 1}/42/some-card/"


def regexes(library: Any, size: int) -> tuple[list[Any], str]:
    """``re_path`` with a literal beginning."""
    patterns = [library.re_path(rf"^app{number}/(?P<pk>[0-9]+)/(?P<name>[-\w]+)/$", view) for number in range(size)]
    return patterns, f"app{size - 1}/42/some-card/"


def included(library: Any, size: int) -> tuple[list[Any], str]:
    """Ten patterns in each include. Django asks only 20 of 100 here, so the aim against it is for the other shapes."""
    apps = [
        library.path(
            f"app{app}/<int:board_id>/",
            library.include([library.path(f"things{number}/<int:pk>/", view) for number in range(10)]),
        )
        for app in range(size // 10)
    ]
    return apps, f"app{size // 10 - 1}/7/things9/42/"


def unmatched(library: Any, size: int) -> tuple[list[Any], str]:
    """A route that matches nothing."""
    return nested(library, size)[0], "boards/7/nothing/42/"


SHAPES = (nested, spread, regexes, included, unmatched)


def main(quick: bool = False) -> dict[str, Any]:
    """Measure, print, and return ``{shape: {"ours": {size: µs}, "django": {size: µs}, "growth", "to_django"}}``.

    :param quick: fewer rounds; under ten seconds.
    """
    results = {shape.__name__: measure(shape, rounds=7 if quick else 25) for shape in SHAPES}
    print(f"wsaction {__version__}, Django {django_version()}, Python {platform.python_version()}; µs per resolve")
    print(
        f"{'':10}"
        + "".join(f"{f'ours {size}':>12}{f'django {size}':>13}" for size in SIZES)
        + "  1000/10  to django (100)"
    )
    for name, found in results.items():
        times = "".join(f"{found['ours'][size]:12.2f}{found['django'][size]:13.1f}" for size in SIZES)
        print(f"{name:10}{times}{found['growth']:9.2f}{found['to_django']:17.3f}")
    print(f"{'aims':10}{'':75}{AIM_GROWTH:9.2f}{AIM_DJANGO:17.3f}")
    return results


def measure(shape: Callable[[Any, int], tuple[list[Any], str]], rounds: int) -> dict[str, Any]:
    """The medians of one shape, all sizes and both libraries taking turns."""
    contestants = {(who, size): (resolve, route) for size in SIZES for who, resolve, route in pair(shape, size)}
    samples: dict[tuple[str, int], list[float]] = {key: [] for key in contestants}
    loops = {key: loops_for(*contestant) for key, contestant in contestants.items()}
    gc.disable()
    try:
        for _ in range(rounds):
            for key, contestant in contestants.items():
                samples[key].append(seconds(*contestant, loops[key]) / loops[key] * 1e6)
    finally:
        gc.enable()
    medians = {key: statistics.median(times) for key, times in samples.items()}
    ours, django = ({size: medians[who, size] for size in SIZES} for who in ("ours", "django"))
    return {"ours": ours, "django": django, "growth": ours[1000] / ours[10], "to_django": ours[100] / django[100]}


def pair(shape: Callable[[Any, int], tuple[list[Any], str]], size: int) -> Iterator[tuple[str, Resolve, str]]:
    """Both libraries' resolve functions, which agree on whether the route matches."""
    patterns, route = shape(routing, size)
    yield "ours", quiet(routing.Router(patterns).resolve, routing.Resolver404), route
    yield (
        "django",
        quiet(URLResolver(RegexPattern(r""), shape(django.urls, size)[0]).resolve, django.urls.Resolver404),
        route,
    )


def quiet(resolve: Resolve, nothing: type[Exception]) -> Resolve:
    """``resolve`` with None for "nothing matches"."""

    def resolved(route: str) -> Any:
        try:
            return resolve(route)
        except nothing:
            return None

    return resolved


def loops_for(resolve: Resolve, route: str) -> int:
    """How many calls take about two milliseconds."""
    seconds(resolve, route, 3)
    return max(1, int(0.002 / (seconds(resolve, route, 3) / 3)))


def seconds(resolve: Resolve, route: str, loops: int) -> float:
    """The time of ``loops`` calls."""
    start = time.process_time()
    for _ in range(loops):
        resolve(route)
    return time.process_time() - start


def django_version() -> str:
    """The version of the other contestant."""
    return str(django.get_version())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    main(parser.parse_args().quick)
