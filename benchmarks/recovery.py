"""Test of delivery: hundreds of clients of two uvicorn workers on Redis disconnect and return with `since`.

    python -m benchmarks.recovery [--quick]
    python -m benchmarks.recovery --only workers --clients 500 --seconds 12

A publisher in a process of its own publishes numbers at a steady rate. Every client must get every event once and in
order, whatever restarts meanwhile: with `calm` nothing, with `workers` both workers in turn (uvicorn's SIGHUP), with
`redis` Redis, which is killed: a client that misses events because of that must get a notice. With ``--only``, the
result is printed as JSON, and the process fails if a client misses an event without a notice.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contestants.feed import ROUTE, make
from benchmarks.driver import Unfit
from benchmarks.load import may_open, percentile
from benchmarks.reconnecting_clients import Follower, Ledger
from benchmarks.redis_server import PROGRAM, RedisServer, free_port, redis_server
from benchmarks.report import Aim, Answer, Row, rounded
from wsaction.exceptions import LayerUnavailable

__all__ = ("DISTURBANCES", "account", "answer")

RATE = 25.0  # events per second
PATIENCE = 30.0  # seconds for all to join, and for all to have every event
PAUSE = 1.0  # seconds that Redis is down
SHORT, WRONG = "short", "wrong"
LABELS = {"calm": "nothing else happens", "workers": "both workers restarted", "redis": "Redis killed twice"}


def answer(quick: bool = False) -> Answer:
    """Answers the question if redis-server is installed. Raises `Broken` if a client was short of an event."""
    question = "Every event once and in order, for clients that drop and come back"
    if PROGRAM is None:
        return Answer("recovery", question, [], ["left out: there is no redis-server on PATH"])
    clients, seconds = (100, 4.0) if quick else (500, 20.0)
    rows, notes = [], []
    for disturbance in DISTURBANCES:
        found = account(disturbance, clients, seconds)
        figures = {key: found[key] for key in ("events", "deliveries", "drops", "told", SHORT, WRONG, "p50", "p99")}
        rows.append(Row(LABELS[disturbance], figures, (Aim(SHORT, 0), Aim(WRONG, 0))))
        notes += found["faults"]
    notes += [
        f"{clients} clients, two uvicorn workers, {RATE:g} events a second for {seconds:g} s; each client stays for up "
        "to 3 s and is away for up to 2 s.",
        "told: that something was lost ($resync, or recovered false); short: clients that never got the last event and "
        "were not told; wrong: events that came twice, late or after a hole of which nobody was told; p50, p99: "
        "milliseconds from subscribe with since to its reply.",
    ]
    told = Answer("recovery", question, rows, notes)
    if any(row.figures[key] for row in rows for key in (SHORT, WRONG)):
        raise Broken(f"a promise was not kept:\n{told.table()}")
    return told


class Broken(Exception):
    """A client missed an event without a notice, which is a fault."""


def account(disturbance: str, clients: int, seconds: float, leak: int | None = None) -> dict[str, Any]:
    """The result of one run. ``leak``: number of an event that the servers drop on purpose."""
    if may_open(clients + 200) < clients + 100:
        raise Unfit(f"{clients} clients need more open files than the system allows")
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder), *REDIS_OPTIONS) as redis:
        return asyncio.run(Run(redis, clients, leak).account(disturbance, seconds))


REDIS_OPTIONS = ("--appendonly", "yes", "--appendfsync", "everysec")  # a kill may lose a second


class Run:
    """One run with its servers, clients and ledger."""

    def __init__(self, redis: RedisServer, clients: int, leak: int | None) -> None:
        self.redis, self.ledger, self._leak = redis, Ledger(), leak
        self.port, self.servers = free_port(), None  # type: int, Any
        self.followers = [Follower(name, self.port, self.ledger) for name in range(clients)]

    async def account(self, disturbance: str, seconds: float) -> dict[str, Any]:
        """Performs the run and returns the result."""
        app = make(self.redis.url)
        async with uvicorn(self), app.lifespan():
            following = [asyncio.create_task(one.follow()) for one in self.followers]
            try:
                async with asyncio.timeout(PATIENCE):
                    for one in self.followers:
                        await one.joined.wait()
                await self._storm(partial(app.publish, ROUTE, "told"), DISTURBANCES[disturbance], seconds)
            finally:
                for task in following:
                    task.cancel()
                await asyncio.wait(following)
        return self._found()

    async def _storm(self, tell: Callable[[int], Any], disturb: Callable[..., Any], seconds: float) -> None:
        self.ledger.counts.clear()  # from clients that connected before the servers were up
        publishing = asyncio.create_task(self._publish(tell))
        for one in self.followers:
            one.restless = True
        await asyncio.gather(asyncio.sleep(seconds), disturb(self, seconds))
        for one in self.followers:
            one.restless = False
        final = len(self.ledger.kept)  # publishing continues, so that every client learns of it
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not all(one.last >= final for one in self.followers):  # noqa: ASYNC110  # of many clients
                    await asyncio.sleep(0.05)
        self.ledger.counts[SHORT] = sum(one.last < final for one in self.followers)
        publishing.cancel()
        await asyncio.wait([publishing])

    async def _publish(self, tell: Callable[[int], Any]) -> None:
        """Publishes numbers. One without acknowledgement may have been delivered, and is not repeated."""
        loop, kept = asyncio.get_running_loop(), self.ledger.kept
        began = loop.time()
        while True:
            try:
                kept.append(False)
                await tell(len(kept) - 1)
                kept[-1] = True
            except LayerUnavailable:
                self.ledger.counts["unavailable"] += 1
            await asyncio.sleep(began + len(kept) / RATE - loop.time())

    def _found(self) -> dict[str, Any]:
        ledger, waits = self.ledger, self.ledger.waits
        known = ("deliveries", "back", "told", "refused", "unavailable", SHORT, WRONG)
        percents = {f"p{part}": rounded(percentile(waits, part), 3) if len(waits) > 1 else 0.0 for part in (50, 99)}
        drops = [one.drops for one in self.followers]
        return {
            "clients": len(self.followers), "events": len(ledger.kept), "drops": sum(drops), "fewest": min(drops),
            **{key: ledger.counts[key] for key in known}, **percents,
            "workers": len(ledger.workers), "faults": ledger.faults,
        }  # fmt: skip


# ------------------------------------------------------------------------------------------------------- disturbances
async def _nothing(run: Run, seconds: float) -> None:
    """No disturbance."""


async def _restart_workers(run: Run, seconds: float) -> None:
    """uvicorn replaces its workers one after the other."""
    await asyncio.sleep(seconds * 0.3)
    before = set(run.ledger.workers)
    run.servers.send_signal(signal.SIGHUP)
    async with asyncio.timeout(PATIENCE):
        while len(run.ledger.workers - before) < 2:  # noqa: ASYNC110  # clients report the workers
            await asyncio.sleep(0.05)


async def _restart_redis(run: Run, seconds: float) -> None:
    """Kills Redis twice; the second time with all its data."""
    for share in (0.25, 0.35):
        await asyncio.sleep(seconds * share)
        await asyncio.to_thread(run.redis.kill)
        if share > 0.3:
            for part in run.redis.directory.glob("appendonlydir/*"):
                part.unlink()
        await asyncio.sleep(PAUSE)
        await asyncio.to_thread(run.redis.start)


DISTURBANCES = {"calm": _nothing, "workers": _restart_workers, "redis": _restart_redis}


@contextlib.asynccontextmanager
async def uvicorn(run: Run) -> AsyncIterator[None]:
    """Two workers, once they listen."""
    environ = os.environ | {"FEED_REDIS": run.redis.url}
    if run._leak is not None:
        environ["FEED_LEAK"] = str(run._leak)
    command = [sys.executable, "-m", "uvicorn", "benchmarks.contestants.feed:app", "--port", str(run.port)]
    command += ["--workers", "2", "--ws", "websockets-sansio", "--ws-per-message-deflate", "false"]
    command += ["--log-level", "critical", "--timeout-worker-healthcheck", "30"]
    run.servers = await asyncio.to_thread(subprocess.Popen, command, env=environ)
    try:
        yield
    finally:
        run.servers.terminate()
        try:
            await asyncio.to_thread(run.servers.wait, 20)
        except subprocess.TimeoutExpired:
            run.servers.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 clients, 4 s each")
    parser.add_argument("--only", choices=DISTURBANCES, help="this one alone; its account as JSON")
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--leak", type=int, help="the number of an event that the servers swallow, to see it found")
    options = parser.parse_args()
    if PROGRAM is None:
        sys.exit("benchmarks.recovery needs a redis-server on PATH")
    if options.only is None:
        print(answer(options.quick).table())
        return
    found = account(options.only, options.clients, options.seconds, options.leak)
    print(json.dumps(found))
    sys.exit(bool(found[SHORT] or found[WRONG]))


if __name__ == "__main__":
    main()
