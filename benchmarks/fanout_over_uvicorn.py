"""Fan-out over uvicorn: a server in a process of its own, and 1,000 sockets in this one.

python -m benchmarks.fanout_over_uvicorn MODULE      serves one contestant, for `figures`
"""

import contextlib
import importlib
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import uvicorn

from benchmarks.contestants import Contestant
from benchmarks.driver import Unfit
from benchmarks.fanout_in_process import Talk, number_in, payload
from benchmarks.load import Client, cpu_of, masked, may_open
from benchmarks.report import rounded
from benchmarks.server import OPTIONS, pin

__all__ = ("Crowd", "figures")

LISTENERS = 1_000
WINDOW = 2  # events in flight
PATIENCE = 20.0  # seconds


def figures(
    contestant: Contestant, talk: Talk, base: Contestant, base_talk: Talk, quick: bool
) -> dict[str, float | None]:
    """Throughput in proportion to that of the base, and the server's CPU time per recipient."""
    if may_open(2 * LISTENERS + 200) < 2 * LISTENERS + 100:
        raise Unfit(f"{2 * LISTENERS} sockets need more open files than the system allows")
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    pin(1)
    try:
        with Crowd.of(contestant, talk) as ours, Crowd.of(base, base_talk) as by_hand:
            turns = [(ours.turn(10), by_hand.turn(10)) for _ in range(5 if quick else 11)]
    finally:
        if cpus:
            os.sched_setaffinity(0, cpus)
    used, base_used = (sum(pair[at][1] for pair in turns) for at in (0, 1))
    return {
        "over uvicorn": rounded(base_used / used, 3),  # over all turns, since the CPU clock is coarse
        "by the clock": rounded(statistics.median(by[0] / one[0] for one, by in turns), 3),
        "µs": rounded(used / len(turns) / LISTENERS * 1e6, 3),
    }


class Crowd:
    """1,000 sockets that listen to one server, and one speaker."""

    def __init__(self, talk: Talk, port: int, pid: int) -> None:
        self._tell, self._pid, self.number = talk.tell, pid, 0
        joining = replace(talk.speech, hello=(*talk.speech.hello, talk.join("room")), greetings=talk.greetings)
        self.clients = {}
        self._poll: Any = select.poll()
        for _ in range(LISTENERS):
            client = Client(port, joining)
            self.clients[client.socket.fileno()] = client
            self._poll.register(client.socket, select.POLLIN)
        self.speaker = Client(port, replace(talk.speech, greetings=talk.greetings - 1))
        self.turn(5)

    @classmethod
    @contextlib.contextmanager
    def of(cls, contestant: Contestant, talk: Talk) -> "Iterator[Crowd]":
        """Runs the server and its clients for the time of the block. Raises `Unfit`."""
        command = [
            sys.executable,
            "-m",
            "benchmarks.fanout_over_uvicorn",
            contestant.module,
            "on" if talk.lifespan else "off",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                line = "" if process.stdout is None else process.stdout.readline()
                if not line:
                    raise Unfit(f"its server ended with {process.wait(10)}")
                crowd = cls(talk, int(line), process.pid)
                try:
                    yield crowd
                finally:
                    for client in (*crowd.clients.values(), crowd.speaker):
                        client.socket.close()
            finally:
                process.kill()

    def turn(self, events: int) -> tuple[float, float]:
        """Seconds until all listeners have each event, and seconds of the server's CPU. Raises `Unfit`."""
        used, began = cpu_of(self._pid), time.perf_counter()
        first, sent = self.number + 1, self.number
        self.number += events
        heard = dict.fromkeys(range(first, self.number + 1), 0)
        whole = 0
        while whole < events:
            while sent < self.number and sent - first + 1 - whole < WINDOW:
                sent += 1
                self.speaker.socket.sendall(masked(self._tell("room", payload(sent))))
            if time.perf_counter() - began > PATIENCE:
                raise Unfit(f"{events - whole} of {events} events were not with all in {PATIENCE:g} s")
            for fd, _ in self._poll.poll(1_000):
                for text in self.clients[fd].replies():
                    number = number_in(text.decode())
                    if number is not None:
                        heard[number] += 1
                        whole += heard[number] == LISTENERS
        took = time.perf_counter() - began
        return took / events, (cpu_of(self._pid) - used) / events


class _Server(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


def main() -> None:
    pin(0)
    app = importlib.import_module(f"benchmarks.contestants.{sys.argv[1]}").app
    options = OPTIONS | {"lifespan": sys.argv[2]}
    _Server(uvicorn.Config(app, port=0, log_level="warning", backlog=4_096, **options)).run()


if __name__ == "__main__":
    main()
