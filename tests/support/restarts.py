"""Runs `tests.support.boards` in a process that tests kill and start again on the same port."""

import asyncio
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.scripted import WAIT

__all__ = ("kept_port", "listening", "serving")


def kept_port() -> int:
    """A free port below the range for outgoing connections, so that it stays free while the server is down."""
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def serving(port: int, redis: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs ``wsaction run`` with the boards; waits until it answers; kills it at the end."""
    command = [
        sys.executable,
        "-m",
        "wsaction",
        "run",
        "tests.support.boards:app",
        "--port",
        str(port),
        "--log-level",
        "warning",
    ]
    process = subprocess.Popen(command, env={**os.environ, "BOARDS_REDIS": redis})
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


async def listening(port: int) -> None:
    async with asyncio.timeout(WAIT):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
