"""`WSAction`: the app that routes connections to consumers."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.routing import Router as Lifespan

from wsaction.admission import Authenticator
from wsaction.authentication import user_id as id_of_user
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
    ``require_origin``: refuse clients that are no browsers. ``limits``: every bound.
    ``authentication_classes``: see `wsaction.authentication`; ``user_id``: who a user is, where that is not its ``pk``,
    ``id`` or ``identity``. ``debug``: tell clients what was
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
        authentication_classes: Sequence[Any] = (),
        user_id: Callable[[Any], Any] | None = None,
        debug: bool = False,
        lifespan: "Callable[[WSAction], AbstractAsyncContextManager[State | None]] | None" = None,
    ) -> None:
        self.router = Router(routes)
        authenticator = Authenticator(authentication_classes, user_id=user_id or id_of_user)
        self.runtime = Runtime(
            limits=limits,
            origins=OriginPolicy(allowed_origins, require_origin),
            authenticator=authenticator if authentication_classes else None,
            debug=debug,
        )
        self.debug = debug
        self._lifespan = lifespan
        self._asgi_lifespan = Lifespan(lifespan=self.lifespan)
        self._started_on: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Future[State] | None = None  # where no server starts us
        self._own_life: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[State]:
        """This app's life, to be composed into that of an app around it: ``Starlette(routes, lifespan=app.lifespan)``.

        What nothing starts, starts at its first connection and ends with the event loop.
        """
        self._started_on = asyncio.get_running_loop()
        try:
            if self._lifespan is None:
                yield {}
            else:
                async with self._lifespan(self) as state:
                    yield state or {}
        finally:
            self._started_on = None

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
            error = RouteNotFound(str(exc) if self.debug else None) if isinstance(exc, Resolver404) else exc
            if (await receive())["type"] == "websocket.connect":
                await deny(scope, send, to_api_error(error, what="the app's lifespan", debug=self.debug))
            return
        scope[RUNTIME_KEY] = self.runtime
        scope["url_route"] = {"args": match.args, "kwargs": match.kwargs}
        await match.func(scope, receive, send)

    async def _start(self, scope: Any) -> None:
        """Makes sure that the lifespan has started on this loop, whoever starts it."""
        loop = asyncio.get_running_loop()
        if self._started_on is loop and self._starting is None:
            return
        if self._starting is None or self._starting.get_loop() is not loop:
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
        except Exception as exc:  # told to those who wait for it
            if starting.done():
                raise
            self._starting = None
            starting.set_exception(exc)


def _route_path(scope: Any) -> str:
    """The path below the root path that we are mounted at, without its leading slash."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) :][:1] in ("", "/"):
        path = path[len(root) :]
    return path.removeprefix("/")
