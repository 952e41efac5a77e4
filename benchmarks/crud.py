"""Benchmark of CRUD in process: `retrieve`, `list` of 50 and `update` of a generic handler. By hand is 1.

    python -m benchmarks.crud [--quick]

By hand is FastAPI's WebSocket with SQLAlchemy on SQLite, and with a dict in memory. One frame is in flight. A ratio is
the median over the turns, in wall time, since SQLite works in a thread that the action awaits.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.action import on_loop
from benchmarks.driver import Driver, Unfit, drive
from benchmarks.job import JSON, User, scope
from benchmarks.report import Aim, Answer, Row, rounded

__all__ = ("JOBS", "Job", "Pair", "answer", "verify")

MEMORY, SQLITE = "memory", "SQLite"
OURS, BY_HAND = "wsaction", "by hand"
KEYS = 200  # number of cards
WARM_UP = 50  # frames

App = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Job:
    """A timed action: its frame and its reply, both by number."""

    name: str
    body: Callable[[int], dict[str, Any]]
    data: Callable[[int], Any]

    def frame(self, number: int) -> str:
        return json.dumps({**self.body(number), "request_id": f"{number:08}"}, separators=(",", ":"))

    def expected(self, number: int) -> dict[str, Any]:
        """The reply to ``frame(number)``."""
        body = self.body(number)
        told = {"errors": [], "data": self.data(number), "action": body["action"], "route": body["route"]}
        return {**told, "status": 200, "request_id": f"{number:08}"}


def key_of(number: int) -> int:
    return 1 + number % KEYS


def route_of(number: int) -> str:
    return f"cards/{key_of(number)}/"


def card(key: int) -> dict[str, Any]:
    """The initial values of a card."""
    created = import_module("benchmarks.contestants.crud_cards").BEGIN + timedelta(minutes=key)
    return {
        "id": key,
        "board_id": 7,
        "title": f"Card {key}",
        "position": key,
        "done": False,
        "created": created.isoformat(),
    }


def changes(number: int) -> dict[str, Any]:
    return {"title": f"Write the report {number:08}", "position": number, "done": number % 2 == 0}


JOBS = (
    Job("retrieve", lambda n: {"action": "retrieve", "route": route_of(n)}, lambda n: card(key_of(n))),
    Job(
        "list of 50",
        lambda n: {"action": "list", "route": "cards/?page=2"},
        lambda n: {
            "count": KEYS,
            "next": "cards/?page=3",
            "previous": "cards/",
            "results": [card(key) for key in range(51, 101)],
        },
    ),
    Job(
        "update",
        lambda n: {"action": "update", "route": route_of(n), "data": changes(n)},
        lambda n: {**card(key_of(n)), **changes(n)},
    ),
)
"""The order matters: the last job changes the cards that the others read."""

REFUSED: tuple[tuple[int, Mapping[str, Any]], ...] = (
    (404, {"action": "retrieve", "route": "cards/201/"}),
    (404, {"action": "update", "route": "cards/201/", "data": changes(1)}),
    (400, {"action": "update", "route": "cards/1/", "data": {**changes(1), "title": ""}}),
    (404, {"action": "list", "route": "cards/?page=5"}),
    (405, {"action": "list", "route": "cards/1/"}),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """The two apps on one store."""

    store: str
    ours: App
    by_hand: App


def answer(quick: bool = False) -> Answer:
    """Answers the question."""
    figures: dict[tuple[str, str], dict[str, float | None]] = on_loop(measured(quick))
    rows = [
        Row(f"{store}: {who}", found, tuple(Aim(job.name, 1.0) for job in JOBS) if who == OURS else ())
        for (store, who), found in figures.items()
    ]
    return Answer("crud", "CRUD in process; time for each action, by hand with FastAPI and SQLAlchemy = 1", rows)


async def measured(quick: bool) -> dict[tuple[str, str], dict[str, float | None]]:
    """The figures by store and contestant. Raises `Unfit` for a wrong reply."""
    figures: dict[tuple[str, str], dict[str, float | None]] = {}
    turns, seconds = (10, 0.03) if quick else (30, 0.05)
    with tempfile.TemporaryDirectory() as directory:
        pairs, close = await made(Path(directory))
        try:
            for pair in pairs:
                for app in (pair.ours, pair.by_hand):
                    await verify(app)
                ours, by_hand = (
                    figures.setdefault((pair.store, OURS), {}),
                    figures.setdefault((pair.store, BY_HAND), {}),
                )
                for job in JOBS:
                    ratio, us, base = await compare(pair, job, turns, seconds)
                    ours |= {job.name: rounded(ratio), f"{job.name}, µs": rounded(us)}
                    by_hand |= {job.name: 1.0, f"{job.name}, µs": rounded(base)}
        finally:
            await close()
    return figures


async def made(directory: Path) -> tuple[list[Pair], Callable[[], Any]]:
    """The pairs of apps, each app with its own cards, and a function that closes their databases."""
    models, ours, by_hand = (
        import_module(f"benchmarks.contestants.crud_{name}") for name in ("cards", "ours", "by_hand")
    )
    own, other = await models.database(directory / "ours.db"), await models.database(directory / "by_hand.db")

    async def close() -> None:
        for sessionmaker in (own, other):
            await sessionmaker.kw["bind"].dispose()

    return [
        Pair(MEMORY, ours.in_memory(models.cards()), by_hand.in_memory(models.cards())),
        Pair(SQLITE, ours.in_database(own), by_hand.in_database(other)),
    ], close


async def compare(pair: Pair, job: Job, turns: int, seconds: float) -> tuple[float, float, float]:
    """The medians of the ratios, and of the microseconds of wsaction and by hand; a turn takes about ``seconds``."""
    first = await turn(pair.by_hand, job, 0, WARM_UP)
    n = max(20, min(5_000, int(seconds * 1e6 / first)))
    took = []
    for _ in range(turns):
        base = await turn(pair.by_hand, job, WARM_UP, n)
        took.append((await turn(pair.ours, job, WARM_UP, n), base))
    return (
        statistics.median(ours / base for ours, base in took),
        statistics.median(ours for ours, _ in took),
        statistics.median(base for _, base in took),
    )


async def turn(app: App, job: Job, warm_up: int, n: int) -> float:
    """Microseconds for one action. Verifies the last reply."""
    driver = Driver([job.frame(i) for i in range(warm_up + n)], JSON, warm_up)
    await drive(app, driver, scope())
    check(driver.last, job.expected(warm_up + n - 1))
    return (driver.stopped[0] - driver.started[0]) / n * 1e6


async def verify(app: App) -> None:
    """Sends each job once, and requests that must be refused. Leaves the cards unchanged.

    Raises `Unfit` for a wrong reply.
    """
    for job in JOBS:
        check(await asked(app, job.frame(6)), job.expected(6))
    updated = json.loads(await asked(app, JOBS[0].frame(6)))["data"]
    if updated != JOBS[-1].data(6):
        raise Unfit(f"an update was not kept: {updated}")
    back = {key: value for key, value in card(key_of(6)).items() if key in changes(6)}
    await asked(app, json.dumps({**JOBS[-1].body(6), "data": back}))
    for status, body in REFUSED:
        if (reply := json.loads(await asked(app, json.dumps(body))))["status"] != status or reply["errors"] == []:
            raise Unfit(f"{body}: expected status {status}, got {reply}")
    if (reply := json.loads(await asked(app, JOBS[0].frame(6), user=None)))["status"] != 403:
        raise Unfit(f"nobody: expected status 403, got {reply}")


async def asked(app: App, message: str, user: Any = User) -> str:
    driver = Driver([message], JSON)
    await drive(app, driver, scope(user=user))
    return driver.last


def check(text: str, expected: dict[str, Any]) -> None:
    if json.loads(text) != expected:
        raise Unfit(f"expected the reply {expected}, got {text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns")
    print(answer(parser.parse_args().quick).table())


if __name__ == "__main__":
    main()
