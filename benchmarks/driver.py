"""Drives one connection of an ASGI app in process, with one frame in flight, and verifies the replies."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.job import CASES, JSON, Speech, expected, frame, number_of, scope

__all__ = ("Driver", "Unfit", "drive", "turn", "verify")

App = Callable[[Any, Any, Any], Any]
PATIENCE = 60  # seconds for a turn


class Unfit(Exception):
    """A contestant fails the job. It is left out of the table, with a note."""


class Driver:
    """The server's side of one connection: `receive` returns message i + 1 only after reply i was sent.

    ``mark``: the number of messages before the clock starts.
    """

    def __init__(self, messages: Sequence[str], speech: Speech, mark: int = 0) -> None:
        self.messages, self.hello = messages, list(speech.hello)
        self.mark, self.greetings = mark, speech.greetings
        self.asked = self.answered = 0
        self.connected = False
        self.waiting: asyncio.Future[None] | None = None
        self.last = ""
        self.started = self.stopped = (0.0, 0.0)
        self.finished = asyncio.get_running_loop().create_future()

    async def receive(self) -> dict[str, Any]:
        if not self.connected:
            self.connected = True
            return {"type": "websocket.connect"}
        if self.hello:
            return {"type": "websocket.receive", "text": self.hello.pop(0)}
        if self.answered < self.asked or self.greetings:
            self.waiting = asyncio.get_running_loop().create_future()
            await self.waiting
            self.waiting = None
        i = self.asked
        if i == self.mark:
            self.started = (time.perf_counter(), time.process_time())
        if i == len(self.messages):
            self.stopped = (time.perf_counter(), time.process_time())
            self.finished.set_result(None)
            return {"type": "websocket.disconnect", "code": 1000}
        self.asked = i + 1
        return {"type": "websocket.receive", "text": self.messages[i]}

    async def send(self, message: Any) -> None:
        if message["type"] != "websocket.send":
            return
        if self.greetings:
            self.greetings -= 1
        else:
            self.answered += 1
            self.last = message["text"]
        if self.waiting is not None and not self.greetings and not self.waiting.done():
            self.waiting.set_result(None)


async def drive(app: App, driver: Driver, asgi_scope: Any) -> None:
    """Runs a connection to its end. Raises `Unfit` if the app ends or stalls before."""
    task = asyncio.ensure_future(app(asgi_scope, driver.receive, driver.send))
    await asyncio.wait([task, driver.finished], return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE)
    done = driver.finished.done()
    if not task.done():
        await asyncio.wait([task], timeout=5 if done else 0)
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception if done else asyncio.CancelledError):
        await task  # an app may handle its disconnect as it likes
    if not done:
        raise Unfit(f"it answered {driver.answered} of {len(driver.messages)} frames")


async def turn(app: App, speech: Speech, warm_up: int, n: int) -> tuple[float, float]:
    """Wall and CPU time of one action in microseconds. Verifies the last reply."""
    total = warm_up + n
    driver = Driver([speech.wrap(frame(i), i) for i in range(total)], speech, warm_up)
    await drive(app, driver, scope(speech.path, speech.query))
    if number_of(driver.last) != total - 1:
        raise Unfit(f"the last reply is none: {driver.last}")
    wall, cpu = ((b - a) / n * 1e6 for a, b in zip(driver.started, driver.stopped, strict=True))
    return wall, cpu


async def verify(app: App, speech: Speech = JSON, statuses: Mapping[str, int] = {}, untold: Sequence[str] = ()) -> None:
    """Runs each of `CASES` on a connection of its own. Raises `Unfit` for a wrong reply.

    ``statuses``: statuses in which this contestant differs; ``untold``: keys that its replies lack.
    """
    for case in CASES:
        driver = Driver([speech.wrap(frame(1, **case.changes), 1)], speech)
        await drive(app, driver, scope(speech.path, speech.query, case.user))
        reply, wanted = speech.read(driver.last), statuses.get(case.name, case.status)
        if reply["status"] != wanted or (reply["errors"] == []) is not (wanted == 200):
            raise Unfit(f"{case.name}: expected status {wanted}, got {reply}")
        if wanted == 200:
            _compare(reply, {key: value for key, value in expected(1).items() if key not in untold})


def _compare(reply: dict[str, Any], wanted: dict[str, Any]) -> None:
    if {key: reply.get(key) for key in wanted} != wanted or reply["data"] != wanted["data"]:
        raise Unfit(f"expected the reply {wanted}, got {reply}")
