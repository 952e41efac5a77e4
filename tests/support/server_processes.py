"""Servers in processes of their own, started by `wsaction run` or uvicorn."""

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect as websockets_connect

from tests.support.restarts import listening

ROOT = Path(__file__).parents[2]


WSACTION = ["-m", "wsaction", "run", "tests.support.drained:app", "--port", "0"]


UVICORN = ["-m", "uvicorn", "tests.support.drained:app", "--port", "0", "--ws", "websockets-sansio"]


class Process(subprocess.Popen[str]):
    """A server in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        pipe = subprocess.PIPE
        super().__init__([sys.executable, *arguments], cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
        self.port = 0
        self.log: list[str] = []

    def listen(self) -> None:
        """Reads the log until the server has started and logged its address."""
        assert self.stderr is not None
        started = 0
        wanted = int(self.args[self.args.index("--workers") + 1]) if "--workers" in self.args else 1
        while started < wanted or not self.port:
            if (line := self.stderr.readline()) == "":
                raise RuntimeError("".join(self.log))
            self.log.append(line)
            started += "startup complete" in line
            if found := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])

    def connect(self, path: str = "/ws/") -> Any:
        return websockets_connect(f"ws://127.0.0.1:{self.port}{path}", proxy=None, ping_interval=None)

    async def stop(self) -> tuple[float, list[dict[str, Any]]]:
        """Sends SIGTERM. Returns the seconds until the process ended, and its output."""
        self.send_signal(signal.SIGTERM)
        started = time.monotonic()
        out, err = await asyncio.to_thread(self.communicate, timeout=30)
        self.log += err.splitlines(keepends=True)
        return time.monotonic() - started, [json.loads(line) for line in out.splitlines()]


@contextlib.asynccontextmanager
async def started(*arguments: str) -> AsyncIterator[Process]:
    with Process(*arguments) as server:
        try:
            await asyncio.wait_for(asyncio.to_thread(server.listen), 30)
            if {"--workers", "--reload"} & {*arguments}:  # these log "started" before they listen
                await listening(server.port)
            yield server
        finally:
            server.kill()
