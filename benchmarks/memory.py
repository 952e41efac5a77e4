"""Benchmark of memory: what an idle connection takes, compared with a bare ASGI app.

    python -m benchmarks.memory [--quick]

Each turn has a server of its own. A few connections open and close first, so that one-time allocations do not count.
"""

import argparse
import statistics
from typing import Any

from benchmarks import load
from benchmarks.contestants import BY_HAND, CONTESTANTS, ECHO, OURS, Contestant
from benchmarks.driver import Unfit
from benchmarks.report import Aim, Answer, Row, rounded
from benchmarks.server import Server

__all__ = ("answer",)

WARM_UP = 300  # connections
QUICK = ("wsaction", "by hand")
OVER_BARE = "KiB over bare"


def answer(quick: bool = False) -> Answer:
    """Answers the question. Leaves out contestants that cannot be served, with a note."""
    sizes, rounds = ((2_000,), 1) if quick else ((2_000, 10_000), 3)
    allowed = load.may_open(max(sizes) + 200) - 200
    notes = [f"{size:,} connections need more open files than the system allows" for size in sizes if size > allowed]
    figures: dict[Contestant, dict[str, float | None]] = {}
    for contestant in (ECHO, *CONTESTANTS):
        if quick and contestant.name not in QUICK and contestant is not ECHO:
            continue
        try:
            figures[contestant] = {
                f"KiB at {size:,}": rounded(statistics.median(growth(contestant, size) for _ in range(rounds)), 3)
                for size in sizes
                if size <= allowed and (size == sizes[0] or contestant in (ECHO, BY_HAND, OURS))
            }
        except Unfit as exc:
            if contestant in (ECHO, OURS):
                raise
            notes.append(f"left out: {contestant.name}: {exc}")
    bare = figures[ECHO]
    rows = [
        Row("a bare ASGI app" if one is ECHO else one.name, *over(found, bare, one)) for one, found in figures.items()
    ]
    return Answer("memory", "An idle connection's memory, under uvicorn", rows, notes)


def over(
    found: dict[str, float | None], bare: dict[str, float | None], contestant: Contestant
) -> tuple[dict[str, float | None], tuple[Aim, ...]]:
    """The figures, their difference from the bare app, and their aims."""
    extra: dict[str, float | None] = {
        column.replace("KiB", OVER_BARE): rounded(figure - base, 3)
        for column, figure in found.items()
        if figure is not None and (base := bare[column]) is not None
    }
    return found | extra, tuple(Aim(column, 6.0) for column in extra) if contestant is OURS else ()


def growth(contestant: Contestant, connections: int) -> float:
    """KiB of memory per idle connection."""
    with Server.of(contestant) as server:
        held(contestant, server, WARM_UP)
        before = server.memory()
        return (held(contestant, server, connections) - before) / connections / 1024


def held(contestant: Contestant, server: Server, connections: int) -> int:
    """The server's memory while a number of connections are open."""
    plan: dict[str, Any] = {"contestant": contestant.name, "port": server.port, "connections": connections}
    with load.start(kind="hold", **plan) as process:
        ready = "" if process.stdout is None else process.stdout.readline()
        memory = server.memory() if ready else 0
        _, err = process.communicate("\n", timeout=60)
    if not ready:
        raise Unfit((err.strip().splitlines() or ["the connections could not be opened"])[-1])
    return memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn each, 2,000 connections, fewer contestants")
    print(answer(parser.parse_args().quick).table())


if __name__ == "__main__":
    main()
