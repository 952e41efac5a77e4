"""For the tests of handlers: serve one view in process, and send it one frame at a time."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from wsaction.applications import WSAction
from wsaction.limits import Limits
from wsaction.routing import path
from wsaction.testing import WebSocketSession, connect


@asynccontextmanager
async def talking(
    view: Any, url: str = "/", *, at: str = "", debug: bool = False, limits: Limits | None = None, **options: Any
) -> AsyncIterator[WebSocketSession]:
    """A connection to ``view``, which a running app serves at ``path(at)``; ``options`` are those of ``connect``."""
    app = WSAction([path(at, view)], debug=debug, limits=limits)
    async with app.lifespan(), connect(app, url, **options) as ws:
        yield ws


async def ask(view: Any, action: str, route: str = "", *, debug: bool = False, **parameters: Any) -> dict[str, Any]:
    """The reply to one frame, on a new connection, without its ``request_id``."""
    async with talking(view, debug=debug) as ws:
        return untold(await ws.call(action, route, **parameters))


def untold(reply: Mapping[str, Any]) -> dict[str, Any]:
    """A reply without its ``request_id``."""
    return {key: value for key, value in reply.items() if key != "request_id"}


def types_and_locs(reply: Mapping[str, Any]) -> list[tuple[str, list[Any]]]:
    """The type and ``loc`` of each error of a reply, whose status must be 400."""
    assert (reply["status"], reply["data"]) == (400, None)
    return [(error["type"], error["loc"]) for error in reply["errors"]]
