"""The action job in process: wsaction and the by-hand app in turns, one frame in flight, ratios of the medians.

python -m benchmarks.action [--quick]
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks import by_hand, cards

AIMS = {"the action does not suspend": 0.50, "the action suspends": 1.00}


class User:
    id = pk = 1
    is_authenticated = True


def scope(path: str) -> dict[str, Any]:
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "subprotocols": [],
        "extensions": {},
        "state": {},
        "user": User(),
    }


def fields(tag: str) -> dict[str, Any]:
    return {"title": f"Write the report {tag}", "position": 3, "tags": ["urgent", "backend"]}


def request(tag: str) -> str:
    frame = {"action": "update", "route": "boards/7/cards/42/", "data": fields(tag), "request_id": tag}
    return json.dumps(frame, separators=(",", ":"))


def expected(tag: str) -> dict[str, Any]:
    return {
        "errors": [],
        "data": {"id": 42, "board_id": 7, **fields(tag)},
        "action": "update",
        "route": "boards/7/cards/42/",
        "status": 200,
        "request_id": tag,
    }


class Driver:
    """receive() hands out frame i+1 only once reply i has been sent."""

    def __init__(self, warmup: int, n: int) -> None:
        self.frames = [request(f"{i:08}") for i in range(warmup + n)]
        self.mark, self.total = warmup, warmup + n
        self.asked = self.answered = 0
        self.connected = False
        self.waiting: asyncio.Future[None] | None = None
        self.last = ""
        self.started = self.stopped = (0.0, 0.0)

    async def receive(self) -> dict[str, Any]:
        if not self.connected:
            self.connected = True
            return {"type": "websocket.connect"}
        if self.answered < self.asked:
            self.waiting = asyncio.get_running_loop().create_future()
            await self.waiting
            self.waiting = None
        i = self.asked
        if i == self.mark:
            self.started = (time.perf_counter(), time.process_time())
        if i == self.total:
            self.stopped = (time.perf_counter(), time.process_time())
            return {"type": "websocket.disconnect", "code": 1000}
        self.asked = i + 1
        return {"type": "websocket.receive", "text": self.frames[i]}

    async def send(self, message: Any) -> None:
        if message["type"] != "websocket.send":
            return
        self.answered += 1
        self.last = message["text"]
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)


async def turn(app: Callable[..., Any], warmup: int, n: int) -> tuple[float, float]:
    """Wall and CPU time of one action, in microseconds; the last reply is verified."""
    driver = Driver(warmup, n)
    await app(scope("/ws"), driver.receive, driver.send)
    if json.loads(driver.last) != expected(f"{driver.total - 1:08}"):
        raise RuntimeError(f"the reply is wrong: {driver.last}")
    wall, cpu = ((b - a) / n * 1e6 for a, b in zip(driver.started, driver.stopped, strict=True))
    return wall, cpu


async def compare(app: Callable[..., Any], base: Callable[..., Any], n: int, turns: int) -> dict[str, float]:
    rows = []
    for _ in range(turns):
        by_hand_turn = await turn(base, 200, n // turns)
        rows.append((by_hand_turn, await turn(app, 200, n // turns)))
    return {
        "us": round(statistics.median(ours[0] for _, ours in rows), 2),
        "by_hand_us": round(statistics.median(theirs[0] for theirs, _ in rows), 2),
        "ratio": round(statistics.median(ours[0] / theirs[0] for theirs, ours in rows), 3),
        "cpu_ratio": round(statistics.median(ours[1] / theirs[1] for theirs, ours in rows), 3),
    }


async def measure(quick: bool) -> dict[str, dict[str, float]]:
    n, turns = (6_000, 6) if quick else (40_000, 20)
    return {
        "the action does not suspend": await compare(cards.app, by_hand.app, n, turns),
        "the action suspends": await compare(cards.waiting_app, by_hand.waiting_app, n, turns),
    }


def main(quick: bool = False) -> dict[str, dict[str, float]]:
    """Prints a line for each question and returns the figures."""
    try:
        import uvloop
    except ImportError:
        results = asyncio.run(measure(quick))
    else:
        results = uvloop.run(measure(quick))
    for question, row in results.items():
        print(
            f"{question:32} {row['us']:6.2f} µs, by hand {row['by_hand_us']:6.2f} µs: "
            f"{row['ratio']:.3f} (CPU {row['cpu_ratio']:.3f}; aim {AIMS[question]:.2f})"
        )
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    main(parser.parse_args().quick)
