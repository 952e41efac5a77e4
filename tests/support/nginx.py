"""A real nginx with the site of chapter 08, and processes of its app behind it."""

import asyncio
import contextlib
import os
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from websockets.asyncio.client import connect as websockets_connect

from tests.support.restarts import kept_port, listening
from wsaction.client import Client
from wsaction.client import connect as client_connect

__all__ = ("CHAPTER", "HOST", "NGINX", "Nginx", "Worker", "needs_nginx", "nginx", "replaced", "until", "workers")

CHAPTER = Path(__file__).parents[2] / "examples" / "guide" / "08-deployment"
HOST = "chat.example.com"
NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="no nginx: apt install nginx-light")
WAIT = 20.0  # seconds


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """A text with parts replaced, each of which has to be in it."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Asks again and again, for 20 seconds at most, until the answer is yes. What is asked is in another process."""
    async with asyncio.timeout(WAIT):
        while True:
            if await is_so():
                return
            await asyncio.sleep(0.05)


class Worker:
    """A process of the app, ``wsaction run`` as the chapter starts it, on a port that it keeps over restarts."""

    def __init__(self, redis: str, *options: str) -> None:
        self.port = kept_port()
        self._options = options
        self._environment = {**os.environ, "REDIS_URL": redis, "ALLOWED_HOSTS": f"{HOST},localhost"}
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Starts it, and waits until it is ready."""
        command = [sys.executable, "-m", "wsaction", "run", "app:app", "--port", str(self.port), *self._options]
        command += ["--log-level", "warning"]
        self.process = subprocess.Popen(command, cwd=CHAPTER, env=self._environment)  # noqa: ASYNC220  # it returns at once
        await until(lambda: self.answers("/readyz", 200))

    async def health(self, path: str) -> int:
        """The status of one of its HTTP addresses; 0 if it cannot be reached."""

        def ask() -> int:
            try:
                with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                    return int(response.status)
            except OSError as exc:
                return int(getattr(exc, "code", 0))

        return await asyncio.to_thread(ask)

    async def answers(self, path: str, status: int) -> bool:
        """Whether one of its HTTP addresses answers with a status. The process has to run."""
        assert self.process is not None
        assert self.process.poll() is None
        return await self.health(path) == status

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends it, and waits until it is over."""
        if self.process is not None:
            self.process.send_signal(how)
            await asyncio.to_thread(self.process.wait, WAIT)
            self.process = None


@contextlib.asynccontextmanager
async def workers(redis: str, *options: str) -> AsyncIterator[tuple[Worker, Worker]]:
    """Two processes of the app."""
    pair = Worker(redis, *options), Worker(redis, *options)
    try:
        await asyncio.gather(*(worker.start() for worker in pair))
        yield pair
    finally:
        await asyncio.gather(*(worker.stop(signal.SIGKILL) for worker in pair))


class Nginx:
    """An nginx with its files in ``directory``, for the site of the chapter."""

    def __init__(self, directory: Path, pair: tuple[Worker, Worker], changes: Mapping[str, str]) -> None:
        self._directory = directory
        self.port, self.http_port = kept_port(), kept_port()
        self._made = {
            "127.0.0.1:8001": f"127.0.0.1:{pair[0].port}",
            "127.0.0.1:8002": f"127.0.0.1:{pair[1].port}",
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "listen 80;": f"listen 127.0.0.1:{self.http_port};",
            "/etc/ssl/chat": str(directory),
            **changes,
        }
        self.log = directory / "error.log"
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self) -> None:
        """Writes its files, a self-signed certificate among them."""
        site = replaced((CHAPTER / "nginx.conf").read_text(), self._made)
        (self._directory / "site.conf").write_text(site)
        places = "".join(
            f"    {name}_temp_path {self._directory}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self._directory / "nginx.conf").write_text(
            f"pid {self._directory}/nginx.pid;\nerror_log {self.log} info;\nworker_processes 1;\n"
            f"events {{}}\nhttp {{\n    access_log off;\n{places}    include {self._directory}/site.conf;\n}}\n"
        )
        key = ["-keyout", str(self._directory / "privkey.pem"), "-out", str(self._directory / "fullchain.pem")]
        of = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-days", "2"]
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        subprocess.run(["openssl", "req", "-x509", *kind, *key, *of], check=True, capture_output=True)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Runs ``nginx`` with these files: ``-t`` tests them, ``-s reload`` has them read again."""
        assert NGINX
        command = [NGINX, "-p", str(self._directory), "-c", str(self._directory / "nginx.conf"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=WAIT)

    async def start(self) -> None:
        assert NGINX
        self.configure()
        tested = self.run("-t")
        assert tested.returncode == 0, tested.stderr
        assert "[warn]" not in tested.stderr, tested.stderr
        command = [NGINX, "-p", str(self._directory), "-c", str(self._directory / "nginx.conf"), "-g", "daemon off;"]
        self.process = subprocess.Popen(command)  # noqa: ASYNC220  # it returns at once
        await listening(self.port)

    async def has_reloaded(self) -> bool:
        """Whether a process with the files of before ends, as soon as its sockets have closed."""
        return "gracefully shutting down" in self.log.read_text()

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(WAIT)

    @property
    def url(self) -> str:
        """The address of the socket, as clients write it."""
        return f"wss://{HOST}:{self.port}/ws/"

    @property
    def origin(self) -> str:
        return f"https://{HOST}:{self.port}"

    def _place(self) -> dict[str, Any]:
        """Where the name of the site is, for clients: this machine, with its certificate."""
        trusted = ssl.create_default_context(cafile=str(self._directory / "fullchain.pem"))
        return {"host": "127.0.0.1", "port": self.port, "ssl": trusted, "server_hostname": HOST, "proxy": None}

    def connect(self, **options: Any) -> Any:
        """A client of `websockets`."""
        return websockets_connect(**{"uri": self.url, **self._place(), **options})

    def client(self, **options: Any) -> Client:
        """A client of wsaction, which comes back when its connection is lost."""
        return client_connect(self.url, **{**self._place(), **options})


@contextlib.asynccontextmanager
async def nginx(
    directory: Path, pair: tuple[Worker, Worker], changes: Mapping[str, str] | None = None
) -> AsyncIterator[Nginx]:
    """An nginx in front of two processes."""
    server = Nginx(directory, pair, changes or {})
    try:
        await server.start()
        yield server
    finally:
        server.stop()
