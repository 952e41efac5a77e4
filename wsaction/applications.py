"""`WSAction`: the app that routes connections to consumers."""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.routing import Router as LifespanRouter

from wsaction.admission import Authenticator
from wsaction.authentication import user_id as id_of_user
from wsaction.connections import Receive, Send
from wsaction.exceptions import RouteNotFound, to_api_error
from wsaction.lifespans import Lifespan, State
from wsaction.limits import Limits
from wsaction.origins import OriginPolicy
from wsaction.routing import Resolver404, Router
from wsaction.runtime import RUNTIME_KEY, Runtime
from wsaction.serving import deny, upgrade_required

__all__ = ("WSAction",)

logger = logging.getLogger("wsaction")


class WSAction:
    """An ASGI app of WebSocket connections; run by a server as it is, or mounted in Starlette or FastAPI.

    ``routes`` are `wsaction.routing.path` patterns whose views are ``Consumer.as_asgi()`` or any ASGI app; what a
    pattern captures is in ``self.kwargs`` of the consumer and its handlers. ``allowed_origins``: who may connect beside
    pages of the same host and port (``"https://example.com"``, ``"https://*.example.com"``, ``"*"``);
    ``require_origin``: refuse clients that are no browsers. ``limits``: every bound. ``authentication_classes``: see
    `wsaction.authentication`; ``user_id``: who a user is, where that is not its ``pk``, ``id`` or ``identity``.
    ``debug``: tell clients what was tried, and tracebacks. ``lifespan``: as Starlette's, given this app.

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
        self._lifespan = None if lifespan is None else Lifespan(lambda: lifespan(self))
        self._asgi_lifespan = LifespanRouter(lifespan=self.lifespan)

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[Any]:
        """This app's life, to be composed into that of an app around it: ``Starlette(routes, lifespan=app.lifespan)``.

        What nothing starts, starts at its first connection and ends with the event loop.
        """
        if self._lifespan is None:
            yield None
            return
        async with self._lifespan.run() as state:
            yield state

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
            if self._lifespan is not None and (state := await self._lifespan.ensure()):
                scope.setdefault("state", {}).update(state)
            match = self.router.resolve(_route_path(scope))
        except Exception as exc:  # a lifespan or a converter may raise anything; the client is told
            error = self._not_found(exc) if isinstance(exc, Resolver404) else exc
            if (await receive())["type"] == "websocket.connect":
                what = f"the way to {scope['path']}"
                await deny(scope, send, to_api_error(error, what=what, debug=self.debug))
            return
        scope[RUNTIME_KEY] = self.runtime
        scope["url_route"] = {"args": match.args, "kwargs": match.kwargs}
        await match.func(scope, receive, send)

    def _not_found(self, exc: Resolver404) -> RouteNotFound:
        logger.info("%s", exc)
        return RouteNotFound(str(exc) if self.debug else None)


def _route_path(scope: Any) -> str:
    """The path below the root path that we are mounted at, without its leading slash."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) :][:1] in ("", "/"):
        path = path[len(root) :]
    return path.removeprefix("/")
