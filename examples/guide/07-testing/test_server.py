"""The app behind a real server, called by the Python client over a real socket."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from app import app

from wsaction.client import PermissionDenied, connect
from wsaction.server import DrainingProtocol, HTTPProtocol


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """The address of a server on a free port, on the test's own event loop."""
    config = uvicorn.Config(app, ws=DrainingProtocol, http=HTTPProtocol, log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:  # it listens already: clients wait until it answers
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        yield f"ws://127.0.0.1:{listening.getsockname()[1]}/ws/"
        server.should_exit = True
        await serving


async def test_nobody_may_do_anything_without_signing_in(url: str) -> None:
    async with connect(url) as client:
        with pytest.raises(PermissionDenied):
            await client.call("list", "notes/")
