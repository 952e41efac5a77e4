"""Benchmark of resolving a route among 10 to 10,000 patterns: wsaction, Django, Starlette and werkzeug.

    python -m benchmarks.routing [--quick]

The resolved route is the last declared one, unless a shape says otherwise. Contestants take turns, and a figure is the
median of the rounds. A ratio compares medians of one run, so it holds across machines; the microseconds do not.
"""

import argparse
import gc
import importlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.report import Aim, Answer, Row, rounded

__all__ = ("SHAPES", "Library", "answer", "libraries")

SIZES = (10, 100, 1_000, 10_000)
GROWTH, TO_DJANGO = "1000/10", "to django at 100"
ENOUGH = 0.002  # approximate seconds of one sample
Resolve = Callable[[str], Any]  # returns the match of a route, or None


def view(**kwargs: object) -> None:
    """The target of all patterns."""


# -------------------------------------------------------------------------------------------------------- libraries
class Library(Protocol):
    """A router with what the shapes need; patterns are in Django's syntax."""

    name: str

    def path(self, pattern: str) -> Any: ...

    def include(self, prefix: str, patterns: list[Any]) -> Any: ...

    def resolver(self, patterns: list[Any]) -> Resolve: ...


class Ours:
    name = "wsaction"

    def __init__(self) -> None:
        self.routing = importlib.import_module("wsaction.routing")

    def path(self, pattern: str) -> Any:
        return self.routing.path(pattern, view)

    def include(self, prefix: str, patterns: list[Any]) -> Any:
        return self.routing.path(prefix, self.routing.include(patterns))

    def resolver(self, patterns: list[Any]) -> Resolve:
        return or_none(self.routing.Router(patterns).resolve, self.routing.Resolver404)


class Django(Ours):
    name = "django"

    def __init__(self) -> None:
        self.routing = importlib.import_module("django.urls")

    def resolver(self, patterns: list[Any]) -> Resolve:
        resolvers = importlib.import_module("django.urls.resolvers")
        root = resolvers.URLResolver(resolvers.RegexPattern(r""), patterns)
        return or_none(root.resolve, self.routing.Resolver404)


class Starlette:
    name = "starlette"

    def __init__(self) -> None:
        self.routing = importlib.import_module("starlette.routing")

    def path(self, pattern: str) -> Any:
        return self.routing.WebSocketRoute("/" + swapped(pattern), view)

    def include(self, prefix: str, patterns: list[Any]) -> Any:
        return self.routing.Mount("/" + swapped(prefix).rstrip("/"), routes=patterns)

    def resolver(self, patterns: list[Any]) -> Resolve:
        routes, full = self.routing.Router(patterns).routes, self.routing.Match.FULL

        def first(routes: Any, scope: dict[str, Any]) -> Any:  # as Router.app does before it calls
            for route in routes:
                match, child = route.matches(scope)
                if match is full:
                    inner = getattr(route, "routes", None)
                    return child if inner is None else first(inner, {**scope, **child})
            return None

        return lambda text: first(routes, {"type": "websocket", "path": "/" + text, "root_path": "", "headers": []})


class Werkzeug:
    name = "werkzeug"

    def __init__(self) -> None:
        self.routing = importlib.import_module("werkzeug.routing")
        self.exceptions = importlib.import_module("werkzeug.exceptions")

    def path(self, pattern: str) -> Any:
        return self.routing.Rule("/" + pattern.replace("<slug:", "<string:"), endpoint=pattern)

    def include(self, prefix: str, patterns: list[Any]) -> Any:
        return self.routing.Submount("/" + prefix.rstrip("/"), patterns)

    def resolver(self, patterns: list[Any]) -> Resolve:
        match = self.routing.Map(patterns, strict_slashes=False).bind("localhost").match
        return or_none(lambda text: match("/" + text), self.exceptions.NotFound)


def swapped(pattern: str) -> str:
    """Converts Django's ``<int:pk>`` to Starlette's ``{pk:int}``."""
    parts = pattern.replace("<slug:", "<str:").split("<")
    return parts[0] + "".join(
        "{{{1}:{0}}}{2}".format(*part.partition(">")[0].split(":"), part.partition(">")[2]) for part in parts[1:]
    )


def or_none(resolve: Resolve, nothing: type[Exception]) -> Resolve:
    """``resolve`` that returns None if no pattern matches."""

    def resolved(route: str) -> Any:
        try:
            return resolve(route)
        except nothing:
            return None

    return resolved


def libraries() -> tuple[list[Library], list[str]]:
    """The installed libraries, wsaction first, and a note for each that is missing."""
    found: list[Library] = []
    notes = []
    for library in (Ours, Django, Starlette, Werkzeug):
        try:
            found.append(library())
        except ImportError as exc:
            notes.append(f"left out: {library.name}: {exc}")
    return found, notes


# ----------------------------------------------------------------------------------------------------------- shapes
@dataclass(frozen=True, slots=True)
class Shape:
    """A way to arrange an app's patterns. ``build`` returns the patterns and the routes to resolve."""

    name: str
    build: Callable[[Library, int], tuple[list[Any], list[str]]]
    matches: bool = True
    aims: bool = True  # whether the aim against django.urls applies
    huge: bool = False  # whether to run 10,000 patterns too, which Django needs seconds to compile


def flat(library: Library, size: int) -> tuple[list[Any], list[str]]:
    """`boards/<int:board_id>/<name>/<int:pk>/` with a name per pattern, like the resources of an API."""
    patterns = [library.path(f"boards/<int:board_id>/things{number}/<int:pk>/") for number in range(size)]
    return patterns, [f"boards/7/things{size - 1}/42/"]


def evenly(library: Library, size: int) -> tuple[list[Any], list[str]]:
    """The same patterns; ten routes spread among them are resolved."""
    patterns, _ = flat(library, size)
    return patterns, [f"boards/7/things{number}/42/" for number in range(0, size, size // 10)]


def spread(library: Library, size: int) -> tuple[list[Any], list[str]]:
    """Patterns that differ in their first segment."""
    patterns = [library.path(f"app{number}/<int:pk>/<slug:name>/") for number in range(size)]
    return patterns, [f"app{size - 1}/42/some-card/"]


def included(library: Library, size: int) -> tuple[list[Any], list[str]]:
    """Includes of ten patterns. Django tries only 20 of 100 here, so the aim against it does not apply."""
    apps = [
        library.include(
            f"app{app}/<int:board_id>/", [library.path(f"things{number}/<int:pk>/") for number in range(10)]
        )
        for app in range(size // 10)
    ]
    return apps, [f"app{size // 10 - 1}/7/things9/42/"]


def twenty_way(library: Library, size: int) -> tuple[list[Any], list[str]]:
    """A tree of segments with twenty branches at each node."""
    digits = itertools.islice(itertools.product(range(20), repeat=4), size)
    patterns = [library.path(f"a{a}/<int:p>/b{b}/<int:q>/c{c}/d{d}/") for d, c, b, a in digits]
    d, c, b, a = next(itertools.islice(itertools.product(range(20), repeat=4), size - 1, None))
    return patterns, [f"a{a}/7/b{b}/42/c{c}/d{d}/"]


def unmatched(library: Library, size: int) -> tuple[list[Any], list[str]]:
    """A route that matches nothing."""
    return flat(library, size)[0], ["boards/7/nothing/42/"]


SHAPES = (
    Shape("flat", flat, huge=True),
    Shape("flat, any of them", evenly),
    Shape("other first segments", spread),
    Shape("includes of ten", included, aims=False, huge=True),
    Shape("20-way tree", twenty_way, huge=True),
    Shape("no such route", unmatched, matches=False),
)


# -------------------------------------------------------------------------------------------------------- measuring
def answer(quick: bool = False) -> Answer:
    """Answers the question. Leaves out libraries that are not installed, with a note."""
    found, notes = libraries()
    rows: list[Row] = []
    for shape in SHAPES:
        sizes = SIZES if shape.huge and not quick else SIZES[:3]
        rows += measure(shape, found, sizes, 5 if quick else 15)
    notes.append("µs for each route by how many patterns there are")
    return Answer("routing", "Resolving a route among so many patterns", rows, notes)


def measure(shape: Shape, found: list[Library], sizes: tuple[int, ...], rounds: int) -> Iterator[Row]:
    """A row per library with its medians by size. All sizes and libraries take turns."""
    contestants = {(library.name, size): contestant(shape, library, size) for library in found for size in sizes}
    samples: dict[tuple[str, int], list[float]] = {key: [] for key in contestants}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for key, (resolve, routes, loops) in contestants.items():
                samples[key].append(seconds(resolve, routes, loops) / loops / len(routes) * 1e6)
    finally:
        gc.enable()
    medians = {key: statistics.median(times) for key, times in samples.items()}
    for library in found:
        us = {size: medians[library.name, size] for size in sizes}
        figures: dict[str, float | None] = {f"{size:,}": rounded(us[size], 3) for size in sizes}
        figures[GROWTH] = rounded(us[1_000] / us[10], 3)
        django = medians.get(("django", 100))
        figures[TO_DJANGO] = None if django is None else rounded(us[100] / django, 3)
        yield Row(f"{shape.name}: {library.name}", figures, aims(shape) if library.name == Ours.name else ())


def aims(shape: Shape) -> tuple[Aim, ...]:
    return (Aim(GROWTH, 1.5), Aim(TO_DJANGO, 0.1)) if shape.aims else (Aim(GROWTH, 1.5),)


def contestant(shape: Shape, library: Library, size: int) -> tuple[Resolve, list[str], int]:
    """A resolve function, its routes, and the number of loops that take `ENOUGH`. Raises ``RuntimeError``."""
    patterns, routes = shape.build(library, size)
    resolve = library.resolver(patterns)
    for route in routes:
        if (resolve(route) is not None) is not shape.matches:
            raise RuntimeError(f"{library.name} resolves {route!r} among {size} {shape.name} to {resolve(route)!r}")
    return resolve, routes, max(1, int(ENOUGH / (seconds(resolve, routes, 3) / 3)))


def seconds(resolve: Resolve, routes: list[str], loops: int) -> float:
    """The time of ``loops`` calls for each route."""
    start = time.process_time()
    for _ in range(loops):
        for route in routes:
            resolve(route)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, up to 1,000 patterns")
    print(answer(parser.parse_args().quick).table())


if __name__ == "__main__":
    main()
