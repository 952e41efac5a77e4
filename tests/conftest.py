"""What all tests share: the event loops, a real server, real clients, and an eye on what is left behind."""

import asyncio
import contextlib
import gc
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import hypothesis
import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websockets_connect

pytest.register_assert_rewrite("tests.support")  # so that a failure there shows the values too
hypothesis.settings.register_profile("wsaction", deadline=None, max_examples=50)  # a busy machine is no counterexample
hypothesis.settings.load_profile("wsaction")


def pytest_collection_finish() -> None:
    """What has been imported stays: those who look for leaks do not look through it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["asyncio", pytest.param("uvloop", marks=pytest.mark.slow)])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Every async test runs on asyncio's own loop and, where the slow ones run too, on uvloop.

    The servers of the tests over real sockets run on uvloop anyway.
    """
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


class Present(set[Any]):
    """The connections or the tasks of a server: tells when the last one has gone."""

    def __init__(self) -> None:
        super().__init__()
        self._gone = asyncio.Event()

    def discard(self, one: Any) -> None:
        super().discard(one)
        if not self:
            self._gone.set()

    def remove(self, one: Any) -> None:
        super().remove(one)
        self.discard(one)

    async def gone(self) -> None:
        while self:
            self._gone.clear()
            await self._gone.wait()


class Server(uvicorn.Server):
    """uvicorn in a thread of its own, on a free port.

    uvicorn looks every tenth of a second whether it is to exit and whether all have gone; this one is told.
    """

    def __init__(self, app: Any, **options: Any) -> None:
        options = {"ws": "websockets-sansio", "ws_per_message_deflate": False, "lifespan": "auto", **options}
        super().__init__(uvicorn.Config(app, log_level="warning", **options))
        self.connections, self.running_tasks = Present(), Present()
        self.server_state.connections, self.server_state.tasks = self.connections, self.running_tasks
        self.told_to_exit = asyncio.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.loop: asyncio.AbstractEventLoop | None = None
        self.is_up = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.loop = asyncio.get_running_loop()
        self.is_up.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.told_to_exit.wait()

    async def shutdown(self, sockets: Any = None) -> None:
        for listening in [*self.servers, *(sockets or ())]:
            listening.close()
        for connection in list(self.connections):
            connection.shutdown()
        await self.connections.gone()
        await self.running_tasks.gone()
        for server in self.servers:
            await server.wait_closed()
        await self.lifespan.shutdown()

    @property
    def should_exit(self) -> bool:
        """Set from any thread, it ends the server."""
        return self._should_exit

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._should_exit = value
        if value and self.loop is not None:
            with contextlib.suppress(RuntimeError):  # its loop has ended already
                self.loop.call_soon_threadsafe(self.told_to_exit.set)

    def url(self, path: str, scheme: str = "ws") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def connect(self, path: str, **options: Any) -> Any:
        """A `websockets` client, to be used as an async context manager."""
        return websockets_connect(self.url(path), proxy=None, **options)

    def tasks(self) -> int:
        """How many tasks the server's loop has now."""
        assert self.loop is not None

        async def count() -> int:
            return len(asyncio.all_tasks()) - 1

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(5)

    @contextlib.contextmanager
    def running(self) -> Iterator["Server"]:
        thread = threading.Thread(target=self.run, args=([self.socket],), daemon=True)  # one that hangs ends with all
        thread.start()
        try:
            if not self.is_up.wait(10):
                raise RuntimeError("uvicorn did not start in 10 s")
            yield self
        finally:
            self.should_exit = True
            thread.join(15)
            self.socket.close()
            if thread.is_alive():
                raise RuntimeError("uvicorn did not stop in 15 s")


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """``serve(app, **uvicorn_options)``: a running uvicorn, stopped after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda app, **options: stack.enter_context(Server(app, **options).running())


@contextlib.asynccontextmanager
async def client(server: Server, path: str, **options: Any) -> AsyncIterator[ClientConnection]:
    async with server.connect(path, **options) as socket_:
        yield socket_


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Tests wait, for sockets, processes and databases, for as long as they compute: three workers fill two cores."""
    return (os.cpu_count() or 1) * 3 // 2


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Lone surrogates in what was logged are escaped: a worker of pytest-xdist cannot send them."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
