"""Serves one contestant with uvicorn in a process of its own, and reports its memory.

    python -m benchmarks.server NAME [--waiting] [--cpu 0]

It prints its port as the first line. For each line of input it prints its resident memory in bytes. When its input
ends, it stops.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import uvicorn

from benchmarks.contestants import Contestant, by_name
from benchmarks.driver import Unfit
from benchmarks.job import User

__all__ = ("Server", "pin")

OPTIONS: dict[str, Any] = {
    "ws": "websockets-sansio",
    "ws_max_size": 65536,
    "ws_per_message_deflate": False,
    "lifespan": "off",
}


class Server:
    """A contestant's server, as seen by the measuring process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.port = int(self._line())

    @classmethod
    @contextlib.contextmanager
    def of(cls, contestant: Contestant, *, waiting: bool = False, cpu: int | None = None) -> "Iterator[Server]":
        """Runs the server for the time of the block. Raises `Unfit` if it does not start."""
        if contestant.version is None:
            raise Unfit(f"{contestant.distribution} is not installed")
        command = [sys.executable, "-m", "benchmarks.server", contestant.name]
        command += ["--waiting"] if waiting else []
        command += [] if cpu is None else ["--cpu", str(cpu)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield cls(process)
            finally:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    def memory(self) -> int:
        """Resident memory in bytes, after garbage collection."""
        pipe = self._process.stdin
        if pipe is None:
            raise Unfit("its server was not started by us")
        pipe.write("memory\n")
        pipe.flush()
        return int(self._line())

    def _line(self) -> str:
        line = "" if self._process.stdout is None else self._process.stdout.readline()
        if not line:
            raise Unfit(f"its server ended with {self._process.wait(10)}")
        return line


def pin(cpu: int | None) -> None:
    """Pins this process to one CPU, if the system supports it and there are several."""
    if cpu is None or not hasattr(os, "sched_setaffinity"):
        return
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) > 1:
        os.sched_setaffinity(0, {cpus[cpu % len(cpus)]})


def resident() -> int:
    """The memory of this process in bytes, or its peak if the system provides only that."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, told: TextIO) -> None:
        super().__init__(config)
        self._told = told

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._asked)
        print(self.servers[0].sockets[0].getsockname()[1], file=self._told, flush=True)

    def _asked(self) -> None:
        if not sys.stdin.readline():  # the measuring process has ended; some contestants would take long to stop
            os._exit(0)
        gc.collect()
        print(resident(), file=self._told, flush=True)


def with_user(app: Callable[..., Any]) -> Callable[..., Any]:
    """The app with a stand-in for authentication middleware: every client is the same user."""
    user = User()

    async def known(scope: Any, receive: Any, send: Any) -> None:
        scope["user"] = user
        await app(scope, receive, send)

    return known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--waiting", action="store_true", help="the action suspends")
    parser.add_argument("--cpu", type=int, help="the CPU to keep to")
    options = parser.parse_args()
    pin(options.cpu)
    told = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # output of a contestant, such as its log, must not mix with our lines
    contestant = by_name(options.name)
    app = with_user(contestant.app(options.waiting))
    _Server(uvicorn.Config(app, port=0, log_level="warning", **OPTIONS), told).run()


if __name__ == "__main__":
    main()
