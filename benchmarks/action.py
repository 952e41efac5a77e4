"""Benchmark of the action job in process, with one frame in flight. The app written by hand is 1.

    python -m benchmarks.action [--quick]

Each contestant takes turns with the by-hand app in a process of their own, so that no other contestant's imports count.
A ratio is the median over the turns. Ratios hold across machines; microseconds do not.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.contestants import BY_HAND, CONTESTANTS, OURS, Contestant, by_name
from benchmarks.driver import Unfit, turn, verify
from benchmarks.job import Turns
from benchmarks.report import Aim, Answer, Row, rounded

__all__ = ("answer", "compare", "run")

AT_ONCE, WAITS, WAITS_LONGER = "does not suspend", "suspends", "for 3 turns"
TURNS = {AT_ONCE: 0, WAITS: 1, WAITS_LONGER: 3}  # iterations of the event loop that the action waits
AIMS = (Aim(AT_ONCE, 0.50), Aim(WAITS, 1.00), Aim(WAITS_LONGER, 1.00))
WARM_UP = 200  # frames
PATIENCE = 300  # seconds for one contestant


def answer(quick: bool = False) -> Answer:
    """Answers the question. Leaves out contestants that are not installed or fail the job, with a note."""
    rows, notes = [], []
    for contestant in CONTESTANTS:
        if quick and not contestant.quick:
            continue
        try:
            found = apart(contestant, quick)
        except Unfit as exc:
            if contestant in (OURS, BY_HAND):
                raise
            notes.append(f"left out: {contestant.name}: {exc}")
            continue
        rows.append(Row(contestant.name, found, AIMS if contestant is OURS else ()))
    return Answer("action", "The action job in process; time for each action, by hand = 1", rows, notes)


def apart(contestant: Contestant, quick: bool) -> dict[str, float | None]:
    """Measures one contestant in a process of its own."""
    if contestant.version is None:
        raise Unfit(f"{contestant.distribution} is not installed")
    command = [sys.executable, "-m", "benchmarks.action", "--only", contestant.name, *(["--quick"] if quick else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise Unfit(f"it was not done in {PATIENCE} s") from None
    if done.returncode:
        raise Unfit((done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1])
    found: dict[str, float | None] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(contestant: Contestant, quick: bool) -> dict[str, float]:
    """Verifies and measures one contestant in this process. Raises `Unfit`."""
    module = contestant.load()
    figures: dict[str, float] = {}
    for column, Turns.taken in TURNS.items():
        app, base = (one.app(waiting=Turns.taken > 0) for one in (contestant, BY_HAND))
        on_loop(verify(app, contestant.speech, getattr(module, "STATUSES", {}), getattr(module, "UNTOLD", ())))
        ratio, us = on_loop(compare(app, base, contestant, 10 if quick else 20, 0.02 if quick else 0.05))
        figures |= {column: rounded(ratio), f"{column}, µs": rounded(us)}
    return figures


async def compare(
    app: Callable[..., Any], base: Callable[..., Any], contestant: Contestant, turns: int, seconds: float
) -> tuple[float, float]:
    """The medians of the ratios and of the microseconds; a turn takes about ``seconds``.

    Measures CPU time, which varies less than wall time on a busy machine and equals it on a quiet one.
    """
    _, first = await turn(app, contestant.speech, 0, WARM_UP)
    n, base_n = (max(100, min(5_000, int(seconds * 1e6 / us))) for us in (first, 15.0))
    pairs = []
    for _ in range(turns):
        theirs = await turn(base, BY_HAND.speech, WARM_UP, base_n)
        pairs.append((theirs, await turn(app, contestant.speech, min(n, WARM_UP), n)))
    return (
        statistics.median(ours[1] / theirs[1] for theirs, ours in pairs),
        statistics.median(ours[1] for _, ours in pairs),
    )


def on_loop(work: Any) -> Any:
    """Runs a coroutine on uvloop if it is installed, as uvicorn does."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer turns, fewer contestants")
    parser.add_argument("--only", metavar="NAME", help="measure this contestant here, and print its figures as JSON")
    options = parser.parse_args()
    if options.only is None:
        print(answer(options.quick).table())
    else:
        print(json.dumps(run(by_name(options.only), options.quick)))


if __name__ == "__main__":
    main()
