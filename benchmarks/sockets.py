"""Benchmark of the action job over uvicorn: throughput (by hand is 1) and latency at a fixed load.

    python -m benchmarks.sockets [--quick]

Each contestant has a server process. All run the whole time and take turns under one load, which is another process.
Server and load each have a CPU of their own. An echo app shows the maximum of the server and the load.
"""

import argparse
import contextlib
import math
import statistics
from typing import Any

from benchmarks import load
from benchmarks.contestants import BY_HAND, CONTESTANTS, ECHO, OURS, Contestant
from benchmarks.driver import Unfit
from benchmarks.report import Aim, Answer, Row, rounded
from benchmarks.server import Server

__all__ = ("answer",)

CONNECTIONS, IN_FLIGHT = 32, 4
RATES = (2_000, 10_000)  # frames per second of the fixed loads
THROUGHPUT, PER_CPU = "throughput", "per CPU second"
AIMS = (Aim(THROUGHPUT, 1.35, at_least=True),)
QUICK = ("wsaction", "by hand", "Starlette")


def answer(quick: bool = False) -> Answer:
    """Answers the question. Leaves out contestants that cannot be served, with a note."""
    rounds, seconds = (3, 0.7) if quick else (5, 1.0)
    with contextlib.ExitStack() as stack:
        servers, notes = up(stack, quick)
        found = floods(servers, notes, rounds, seconds)
        delays = {
            contestant: waits(contestant, servers[contestant], median(turns, "rate"), quick, notes)
            for contestant, turns in found.items()
        }
    rows = [
        Row(one.name, against(turns, found[BY_HAND]) | delays[one], AIMS if one is OURS else ())
        for one, turns in found.items()
    ]
    every = [turn for turns in found.values() for turn in turns]
    notes += [
        f"{CONNECTIONS} connections, {IN_FLIGHT} frames in flight on each, medians of {rounds} turns. The load was "
        f"idle for {min(turn['idle'] for turn in every):.0%} of its time at the least, the servers had "
        f"{min(turn['server'] for turn in every):.0%} of a CPU at the least.",
        "p50, p99: milliseconds from when a frame was due to its reply, at fixed loads of "
        f"{' and '.join(f'{rate:,}' for rate in RATES)} a second.",
    ]
    return Answer("sockets", "The action job over uvicorn; actions a second, by hand = 1", rows, notes)


def up(stack: contextlib.ExitStack, quick: bool) -> tuple[dict[Contestant, Server], list[str]]:
    """A server for each contestant that can be served, with a note for each other one."""
    servers, notes = {}, []
    for contestant in (*CONTESTANTS, ECHO):
        if quick and contestant.name not in QUICK and contestant is not ECHO:
            continue
        try:
            servers[contestant] = stack.enter_context(Server.of(contestant, cpu=0))
        except Unfit as exc:
            if contestant in (OURS, BY_HAND):
                raise
            notes.append(f"left out: {contestant.name}: {exc}")
    return servers, notes


def floods(
    servers: dict[Contestant, Server], notes: list[str], rounds: int, seconds: float
) -> dict[Contestant, list[dict[str, float]]]:
    """The results of the load in each contestant's turns."""
    turns: dict[Contestant, list[dict[str, float]]] = {contestant: [] for contestant in servers}
    for _ in range(rounds):
        for contestant in list(turns):
            plan: dict[str, Any] = {"connections": CONNECTIONS, "in_flight": IN_FLIGHT, "seconds": seconds}
            server = servers[contestant]
            try:
                found = load.run(1, kind="flood", contestant=contestant.name, port=server.port, pid=server.pid, **plan)
            except Unfit as exc:
                notes.append(f"left out: {contestant.name}: {exc}")
                del turns[contestant]
            else:
                turns[contestant].append(found)
    return turns


def median(turns: list[dict[str, float]], key: str) -> float:
    return statistics.median(turn[key] for turn in turns)


def against(turns: list[dict[str, float]], base: list[dict[str, float]]) -> dict[str, float | None]:
    """The medians of the ratios of the turns, by wall time and by the server's CPU time."""
    pairs = list(zip(turns, base, strict=True))
    per_cpu = statistics.median(one["rate"] / one["server"] / (by["rate"] / by["server"]) for one, by in pairs)
    return {
        THROUGHPUT: rounded(statistics.median(one["rate"] / by["rate"] for one, by in pairs)),
        PER_CPU: None if math.isnan(per_cpu) else rounded(per_cpu),
        "actions/s": rounded(median(turns, "rate")),
    }


def waits(
    contestant: Contestant, server: Server, most: float, quick: bool, notes: list[str]
) -> dict[str, float | None]:
    """p50 and p99 at the fixed loads that the contestant can handle."""
    figures: dict[str, float | None] = {}
    for rate in RATES[:1] if quick else RATES:
        names = [f"{percent} at {rate // 1000}k/s" for percent in ("p50", "p99")]
        if most < 1.25 * rate:
            figures |= dict.fromkeys(names)
            continue
        plan: dict[str, Any] = {"connections": CONNECTIONS, "rate": rate, "seconds": 1.0 if quick else 2.5}
        found = load.run(1, kind="at_rate", contestant=contestant.name, port=server.port, **plan)
        figures |= {name: rounded(found[key], 3) for name, key in zip(names, ("p50", "p99"), strict=True)}
        if found["late"] > found["p50"]:
            notes.append(f"{contestant.name} at {rate:,}/s: the load was late itself, p99 {found['late']:.2f} ms")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, fewer contestants")
    print(answer(parser.parse_args().quick).table())


if __name__ == "__main__":
    main()
