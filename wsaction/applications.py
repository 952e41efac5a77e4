"""`WSAction`: the app that routes connections to consumers."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from inspect import signature
from typing import Any

from starlette.routing import Router as LifespanRouter

from wsaction._connection.connection import Receive, Send
from wsaction._dispatch.middleware import (
    CallNext,
    ExceptionHandler,
    Middleware,
    check_exception_handlers,
    check_middleware,
)
from wsaction._events.plan import EventTypes, is_live
from wsaction._events.publish import handler_at, publish_from
from wsaction._handlers.mounts import check_captures
from wsaction._protocol.event_frames import encode_event
from wsaction._protocol.scope import PATH_KEY, PATTERN_KEY, RUNTIME_KEY, USER_ID_KEY, captured_root
from wsaction._server.http import Pages
from wsaction._server.lifecycle import refuse, refuse_host
from wsaction._server.origins import HostPolicy, OriginPolicy
from wsaction._server.runtime import Runtime
from wsaction._utils.lifespan import Lifespan, State, app_running
from wsaction.authentication._identity import user_id as id_of_user
from wsaction.authentication._state import Authenticator
from wsaction.exceptions import ImproperlyConfigured, RouteNotFound, to_api_error
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.hooks import HookList, Hooks
from wsaction.layers.base import Layer
from wsaction.limits import Limits
from wsaction.routing import Resolver404, Router
from wsaction.transactions import unit_to_wait_for

__all__ = ("CallNext", "ExceptionHandler", "Middleware", "WSAction")

logger = logging.getLogger("wsaction")


class WSAction:
    """An ASGI app of WebSocket connections; run by a server as it is, or mounted in Starlette or FastAPI.

    ``routes`` are `wsaction.routing.path` patterns whose views are ``Consumer.as_asgi()`` or any ASGI app; what a
    pattern captures is in ``self.kwargs`` of the consumer and its handlers. ``layer`` carries events between processes,
    ``RedisLayer(url)``; without one they stay within this process. ``allowed_origins``: who may connect beside
    pages of the same host and port (``"https://example.com"``, ``"https://*.example.com"``, ``"*"``);
    ``allowed_hosts``: the names that this server is reached by (``"example.com"``, ``"*.example.com"``); without them,
    one that is reached on a loopback address answers to loopback names alone, others to any. ``require_origin``: refuse
    clients that are no browsers. ``limits``: every bound. ``authentication_classes``: see `wsaction.authentication`;
    ``user_id``: who a user is, where that is not its ``pk``, ``id`` or ``identity``.
    ``middleware``: functions ``async def mw(handler, call_next)`` around each action, once its frame was allowed and
    validated; ``result = await call_next(handler)`` is what the action returned. ``exception_handlers``: for a class of
    exceptions a function ``(handler, exc)``, sync or async, that returns the `APIError` to tell instead. ``hooks``: see
    `wsaction.hooks`. ``accept_refused``: accept handshakes that are refused and close them at once, 4401 for 401 and so
    on, since scripts in browsers see no HTTP status. ``title``, ``version``, ``description``: told by the AsyncAPI
    document, which is served at ``asyncapi_url``, and by the explorer, which is at ``docs_url``; both are paths below
    the app's root path, None turns a page off, and without a document there is no explorer. ``debug``: tell clients
    what was tried, and tracebacks.
    ``lifespan``: as Starlette's, given this app.

    Raises `wsaction.exceptions.ImproperlyConfigured` for patterns and settings that cannot work.

    >>> app = WSAction([path("ws/<slug:room>/", Chat.as_asgi())], allowed_origins=["https://example.com"])
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        settings = signature(WSAction).parameters.keys() - vars(WSAction).keys()
        for name in vars(cls):
            if name in settings:
                raise ImproperlyConfigured(f"{cls.__name__}.{name} would count for nothing; pass WSAction({name}=...)")
            if name in ("permission_classes", "throttle_classes"):
                raise ImproperlyConfigured(f"{cls.__name__}.{name} would count for nothing; set it on the consumers")

    def __init__(
        self,
        routes: Sequence[Any],
        *,
        layer: Layer | None = None,
        allowed_origins: Sequence[str] = (),
        allowed_hosts: Sequence[str] = (),
        require_origin: bool = False,
        limits: Limits | None = None,
        authentication_classes: Sequence[Any] = (),
        user_id: Callable[[Any], Any] | None = None,
        middleware: Sequence[Middleware] = (),
        exception_handlers: Mapping[type[BaseException], ExceptionHandler] | None = None,
        hooks: Sequence[Hooks] = (),
        accept_refused: bool = False,
        title: str = "wsaction",
        version: str = "0.1.0",
        description: str = "",
        asyncapi_url: str | None = "/asyncapi.json",
        docs_url: str | None = "/docs",
        debug: bool = False,
        lifespan: "Callable[[WSAction], AbstractAsyncContextManager[State | None]] | None" = None,
    ) -> None:
        _check_setting("layer", layer, "subscribe", 'RedisLayer("redis://localhost")')
        _check_setting("limits", limits, "max_threads", "Limits()")
        self.router = Router(routes)
        for leaf in self.router.leaves:
            check_captures(leaf.endpoint, "WSAction")
        authenticator = Authenticator(authentication_classes, user_id=user_id or id_of_user)
        self.runtime = Runtime(
            limits=limits,
            origins=OriginPolicy(allowed_origins, require_origin),
            hosts=HostPolicy(allowed_hosts),
            authenticator=authenticator if authentication_classes else None,
            middleware=check_middleware(middleware),
            exception_handlers=check_exception_handlers(exception_handlers),
            hooks=HookList(hooks),
            layer=layer,
            user_id=user_id or id_of_user,
            accept_refused=accept_refused,
            debug=debug,
        )
        self.runtime.app = self
        self._user_id = user_id
        self.title = title
        self.version = version
        self.description = description
        self._asyncapi: dict[str, Any] | None = None
        self._pages = Pages(lambda: self.asyncapi(), asyncapi_url=asyncapi_url, docs_url=docs_url)
        self._lifespan = None if lifespan is None else Lifespan(lambda: lifespan(self))
        self._asgi_lifespan = LifespanRouter(lifespan=self.lifespan)

    @property
    def debug(self) -> bool:
        """Whether clients are told what the log is told: tracebacks, and what is near a route or action that is not."""
        return self.runtime.debug

    @debug.setter
    def debug(self, debug: bool) -> None:
        self.runtime.debug = debug

    @property
    def dependency_overrides(self) -> dict[Callable[..., Any], Callable[..., Any]]:
        """What runs instead of a dependency, for tests: ``app.dependency_overrides[get_session] = get_test_session``.

        The functions are the `Depends`'; the ones put in their place may ask for what any dependency may. It counts
        from the next frame on; ``app.dependency_overrides.clear()`` ends it.
        """
        return self.runtime.dependency_overrides

    @dependency_overrides.setter
    def dependency_overrides(self, overrides: dict[Callable[..., Any], Callable[..., Any]]) -> None:
        self.runtime.dependency_overrides = overrides

    def asyncapi(self) -> dict[str, Any]:
        """The AsyncAPI document of this app, made at the first call and then kept; see `wsaction.asyncapi`.

        What is changed in it, or returned by a function that is put in this one's place, is what is served.
        """
        if self._asyncapi is None:
            from wsaction.asyncapi import describe  # a fifth of what importing this module takes, and few ask for it

            self._asyncapi = describe(
                self.router,
                title=self.title,
                version=self.version,
                description=self.description,
                limits=self.runtime.limits,
                authenticator=self.runtime.authenticator,
            )
        return self._asyncapi

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[Any]:
        """This app's life, to be composed into that of an app around it: ``Starlette(routes, lifespan=app.lifespan)``.

        What nothing starts, starts at its first connection and ends with the event loop.
        """
        self.runtime.reopen()
        if any(view.table.is_live for view in self._views()):
            self.runtime.warn_of_workers()
        async with app_running():
            self.runtime.here.users.listen()
            try:
                if self._lifespan is None:
                    yield None
                else:
                    async with self._lifespan.run() as state:
                        yield state
            finally:
                await self.runtime.close()

    def _views(self) -> list[Any]:
        """What its routes lead to, as far as that is ours."""
        return [leaf.endpoint.view for leaf in self.router.leaves if hasattr(leaf.endpoint.view, "table")]

    async def publish(
        self,
        route: str,
        event: str,
        data: Any = None,
        *,
        path: str | None = None,
        root_path: str = "",
        topic: str | None = None,
        exclude: Any = None,
    ) -> None:
        """Tells an event to all who are subscribed to a route: from an HTTP endpoint, a job, a test.

        As ``self.publish()`` of the handler there, with its ``events`` and history. ``path`` is that of the connections
        (``"ws/acme/"``), and may be left out where just one path of the app captures nothing; ``root_path``, what an
        enclosing route that captures something stands for (``"t/acme"``; of a ``Host``, ``"acme.example.com"``, then
        the root path). ``topic`` is needed where the handler has a
        `get_topic` of its own. ``exclude``: a handler or consumer whose connection is not told. Where another event
        loop serves this app, as from ``asyncio.run()`` in a thread, it is done there and awaited, or once the unit of
        work under way is committed; another process needs a layer that reaches the connections.

        Raises ``ValueError`` for a path, route or event that there is not, `LayerUnavailable`.

        >>> await app.publish("boards/7/", "moved", {"card": 3})
        """
        await self.runtime.where_served(
            lambda: self._publish(route, event, data, path=path, root_path=root_path, topic=topic, exclude=exclude)
        )

    async def _publish(
        self, route: str, event: str, data: Any, *, path: str | None, root_path: str, topic: str | None, exclude: Any
    ) -> None:
        handler = handler_at(self.router, self.runtime, route, path, root_path)
        if topic is None and type(handler).get_topic is not AsyncAPIActionHandler.get_topic:
            raise ValueError(
                f"{type(handler).__name__} says what its topic is by its get_topic(), which may depend on a user; "
                "say which is meant, with topic="
            )
        excluded = None if exclude is None else exclude.consumer.connection
        await publish_from(handler, event, data, excluded, topic)

    async def publish_object(
        self, route: str, event: str, obj: Any, *, before: Any = None, path: str | None = None, root_path: str = ""
    ) -> None:
        """Tells that an object of a generic handler was ``created``, ``updated`` or ``deleted`` by something else.

        By a bulk change, an HTTP endpoint or a job: as the handler at ``route``, which may be that of the list, would
        have told its own change. ``before``: the object as it was, or its values, kept before the change; without it,
        whoever may not see the object is told that it was deleted. The rest is as for `publish`.

        >>> before = cards.values_of(card)
        >>> card = await cards.update(card, {"owner_id": 2})
        >>> await app.publish_object("cards/", "updated", card, before=before)
        """
        await self.runtime.where_served(
            lambda: self._publish_object(route, event, obj, before=before, path=path, root_path=root_path)
        )

    async def _publish_object(
        self, route: str, event: str, obj: Any, *, before: Any, path: str | None, root_path: str
    ) -> None:
        handler = handler_at(self.router, self.runtime, route, path, root_path)
        if not (is_live(type(handler)) and hasattr(handler, "publish_object")):
            raise ValueError(f"{type(handler).__name__} tells no changes: it is no generic handler with SubscribeMixin")
        await handler.publish_object(event, obj, before)

    async def disconnect_user(self, user_id: Any, reason: str = "") -> None:
        """Closes all connections of a user, 4403, in every process.

        ``user_id`` is what ``WSAction(user_id=...)`` says of its ``scope["user"]``. Where the action, or the unit of
        work, under way has changed anything, it is done once that is committed, and not if it is not; other processes
        that cannot be told then are told as soon as they can be. Raises ``ValueError`` for None and, where it is done
        at once, `LayerUnavailable` if other processes may not know of it; in this one it is done.

        A process that was cut off meanwhile does it when it is back. If it cannot find out any more what it has missed,
        it closes the connections of all users that it had before, 1012, so that they are authenticated again.
        """
        await self._notify_user("disconnect", user_id, reason=reason)

    async def revoke_user(self, user_id: Any) -> None:
        """Asks the permissions of all that a user is subscribed to again, and of their streams, in every process.

        A stream that is refused ends with 403. A call that is under way goes on, as an HTTP request would; one that
        waits is asked as it begins. A subscription that is refused ends: the client is told ``{"event":
        "$unsubscribed", "route": ..., "data": {"reason": "permission_denied"}}``, and nothing of that route any more,
        whatever is on its way. What comes while permissions are asked is held back. A connection to a consumer with
        broadcasts is asked ``can_connect`` again, and closed, 4403, where it is refused.
        Waits for a commit, and raises, as `disconnect_user` does.
        """
        await self._notify_user("revoke", user_id)

    async def push_user(self, user_id: Any, event: str, data: Any = None) -> None:
        """Tells an event to all connections of a user, in every process, under the empty route. It is not kept for who
        comes back. A connection that may have missed one is told ``$resync`` under the empty route.

        Waits for a commit, and raises, as `disconnect_user` does; ``ValueError`` for what is no event's name too.
        """
        text = encode_event(event, "", EventTypes("push_user()", {}).encode(event, data))
        await self._notify_user("push", user_id, text=text)

    async def _notify_user(self, command: str, user_id: Any, **details: Any) -> None:
        if user_id is None:
            raise ValueError("a user's id is wanted, as WSAction(user_id=...) says what it is, not None")
        await self.runtime.where_served(lambda: self._notify_user_here(command, user_id, details))

    async def _notify_user_here(self, command: str, user_id: Any, details: Mapping[str, Any]) -> None:
        users = self.runtime.here.users
        if (unit := unit_to_wait_for()) is None:
            await users.tell(command, user_id, **details)
        else:
            unit.on_commit(
                partial(users.tell_surely, command, user_id, **details),
                if_unknown=partial(users.tell_in_doubt, command, user_id, **details),
            )

    async def drain(self) -> None:
        """Ends all connections of the running event loop, and takes no more; returns within ``drain_timeout``.

        From now on no frame is started: each is answered 503 ``shutting_down``, and so are handshakes. Connections are
        closed, 1012, as soon as nothing runs on them any more, in batches with random pauses between, so that their
        clients do not come back all at once. What still runs after four fifths of ``drain_timeout`` is cancelled.
        ``wsaction run`` does this before the server stops; call it yourself where another server runs the app and
        tells you first.
        """
        await self.runtime.drain()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serves one ASGI scope: a WebSocket by the route of its path, the pages by HTTP, and lifespan events."""
        if scope["type"] == "lifespan":
            await self._asgi_lifespan.lifespan(scope, receive, send)
        elif await refuse_host(scope, receive, send, self.runtime):
            return
        elif scope["type"] == "http":
            await self._pages.serve(scope, "/" + _route_path(scope), send)
        elif (view := await self._resolve_view(scope, receive, send)) is not None:
            await view(scope, receive, send)

    async def _resolve_view(self, scope: Any, receive: Receive, send: Send) -> Any:
        """What serves a connection, its captures noted in the scope; None where it was refused. It ends here, so that
        nothing of it is kept for as long as the connection is open."""
        try:
            if self._lifespan is not None and (state := await self._lifespan.ensure()):
                scope.setdefault("state", {}).update(state)
            match = self.router.resolve(_route_path(scope))
        except Exception as exc:  # a lifespan or a converter may raise anything; the client is told
            error = exc
            if isinstance(exc, Resolver404):
                logger.info("%s", exc)
                error = RouteNotFound(str(exc) if self.debug else None)
            if (await receive())["type"] == "websocket.connect":
                what = f"the way to {scope['path']}"
                await refuse(scope, send, to_api_error(error, what=what, debug=self.debug), self.runtime)
            return None
        scope[RUNTIME_KEY] = self.runtime
        scope[USER_ID_KEY] = self._user_id
        scope["url_route"] = {"args": match.args, "kwargs": match.kwargs}
        root = captured_root(scope)
        scope[PATTERN_KEY] = root, match.route
        scope[PATH_KEY] = root + match.canonical
        return match.func


def _route_path(scope: Any) -> str:
    """The path below the root path that we are mounted at, without its leading slash."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) :][:1] in ("", "/"):
        path = path[len(root) :]
    return path.removeprefix("/")


def _check_setting(name: str, value: Any, attribute: str, example: str) -> None:
    """Raises `ImproperlyConfigured` for a value that is no object with this attribute, and is not None."""
    if value is not None and (isinstance(value, type) or not hasattr(value, attribute)):
        raise ImproperlyConfigured(f"WSAction({name}=...): expected an object like {example}, got {value!r}")
