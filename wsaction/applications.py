"""`WSAction`: the app that routes connections to consumers."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.routing import Router as Lifespan

from wsaction.connections import Receive, Send
from wsaction.exceptions import RouteNotFound, to_api_error
from wsaction.limits import Limits
from wsaction.origins import OriginPolicy
from wsaction.routing import Resolver404, Router
from wsaction.runtime import RUNTIME_KEY, Runtime
from wsaction.serving import deny, upgrade_required

__all__ = ("WSAction",)

logger = logging.getLogger("wsaction")

State = Mapping[str, Any]


class WSAction:
    """An ASGI app of WebSocket connections; run by a server as it is, or mounted in Starlette or FastAPI.

    ``routes`` are `wsaction.routing.path` patterns whose views are ``Consumer.as_asgi()`` or any ASGI app; what a
    pattern captures is in ``self.kwargs`` of the consumer and its handlers. ``allowed_origins``: who may connect beside
    pages of the same host and port (``"https://example.com"``, ``"https://*.example.com"``, ``"*"``);
    ``require_origin``: refuse clients that are no browsers. ``limits``: every bound. ``debug``: tell clients what was
    tried, and tracebacks. ``lifespan``: as Starlette's, given this app.

    Raises `wsaction.exceptions.ImproperlyConfigured` for patterns and settings that cannot work.

    >>> app = WSAction([path("ws/<slug:room>/", Chat.as_asgi())], allowed_origins=["https://example.com"])
    """

    def __init__(
        self,
        routes: Sequence[Any],
        *,
        allowed_origins: Sequence[str] = (),
        require_origin: bool = False,
        limits: Limits | None = None,
        debug: bool = False,
        lifespan: "Callable[[WSAction], AbstractAsyncContextManager[State | None]] | None" = None,
    ) -> None:
        self.router = Router(routes)
        self.runtime = Runtime(limits=limits, origins=OriginPolicy(allowed_origins, require_origin), debug=debug)
        self.debug = debug
        self._lifespan = lifespan
        self._asgi_lifespan = Lifespan(lifespan=self._lifespan_of_server)
        self._started_on: asyncio.AbstractEventLoop | None = None
        self._own_life: asyncio.Task[None] | None = None  # where no server starts us
        self._starting: asyncio.Future[State]  # of that life

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[State]:
        """This app's life, to be composed into that of an app around it: ``Starlette(routes, lifespan=app.lifespan)``.

        What nothing starts, starts at its first connection and ends with the event loop.
        """
        loop = self._started_on = asyncio.get_running_loop()
        try:
            if self._lifespan is None:
                yield {}
            else:
                async with self._lifespan(self) as state:
                    yield state or {}
        finally:
            if self._started_on is loop:
                self._started_on = None

    @asynccontextmanager
    async def _lifespan_of_server(self, app: Any) -> AsyncIterator[Any]:
        async with self.lifespan(app) as state:
            yield state or None  # where there is none, the server need not know of it

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serves one ASGI scope: a WebSocket by the route of its path, 426 for HTTP, and lifespan events."""
        if scope["type"] == "lifespan":
            await self._asgi_lifespan.lifespan(scope, receive, send)
        elif scope["type"] == "http":
            await upgrade_required(send)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Any, receive: Receive, send: Send) -> None:
        try:
            await self._start(scope)
            match = self.router.resolve(_route_path(scope))
        except Exception as exc:  # a lifespan may raise anything; the client is told, and the next one tries again
            error = self._not_found(exc) if isinstance(exc, Resolver404) else exc
            if (await receive())["type"] == "websocket.connect":
                await deny(scope, send, to_api_error(error, what="the app's lifespan", debug=self.debug))
            return
        scope[RUNTIME_KEY] = self.runtime
        scope["url_route"] = {"args": match.args, "kwargs": match.kwargs}
        await match.func(scope, receive, send)

    def _not_found(self, exc: Resolver404) -> RouteNotFound:
        logger.info("%s", exc)
        return RouteNotFound(str(exc) if self.debug else None)

    async def _start(self, scope: Any) -> None:
        """Makes sure that the lifespan has started on this loop, whoever starts it."""
        loop, life = asyncio.get_running_loop(), self._own_life
        if life is None or life.done() or life.get_loop() is not loop:
            if self._started_on is loop:  # by the server
                return
            self._starting = loop.create_future()
            self._own_life = loop.create_task(self._live(self._starting))
        state = await asyncio.shield(self._starting)
        scope.setdefault("state", {}).update(state)

    async def _live(self, starting: asyncio.Future[State]) -> None:
        """The lifespan where no server runs it: open until the loop ends, which cancels this task."""
        try:
            async with self.lifespan() as state:
                starting.set_result(state)
                await asyncio.get_running_loop().create_future()
        except (Exception, asyncio.CancelledError) as exc:
            if starting.done():
                raise
            told = exc if isinstance(exc, Exception) else RuntimeError("the lifespan was cancelled as it started")
            starting.set_exception(told)  # to those who wait for it


def _route_path(scope: Any) -> str:
    """The path below the root path that we are mounted at, without its leading slash."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) :][:1] in ("", "/"):
        path = path[len(root) :]
    return path.removeprefix("/")
