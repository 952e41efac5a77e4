"""`WSAction`: the ASGI application that routes WebSocket connections to consumers."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from inspect import isasyncgenfunction, signature
from typing import Any, Never

from starlette.routing import Router as LifespanRouter

from wsaction._dispatch.middleware import (
    CallNext,
    ExceptionHandler,
    Middleware,
    check_exception_handlers,
    check_middleware,
)
from wsaction._events.event_types import EventTypes
from wsaction._events.plan import is_live
from wsaction._events.publish import handler_at, publish_from, pushed_frame
from wsaction._handlers.mounts import check_captures
from wsaction._protocol.awaited import awaited
from wsaction._protocol.event_frames import encode_event
from wsaction._protocol.scope import PATH_KEY, PATTERN_KEY, RUNTIME_KEY, USER_ID_KEY, captured_root
from wsaction._server.http import Pages
from wsaction._server.lifecycle import refuse, refuse_host
from wsaction._server.origins import HostPolicy, OriginPolicy
from wsaction._server.runtime import Runtime
from wsaction._utils.asgi import Receive, Send
from wsaction._utils.hints import did_you_mean
from wsaction._utils.lifespan import Lifespan, State, app_running
from wsaction.authentication._classes import BaseAuthentication
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
    """An ASGI application of WebSocket consumers. Run it with a server, or mount it in Starlette or FastAPI.

    :param routes: `wsaction.routing.path` patterns whose views are ``Consumer.as_asgi()`` or other ASGI apps. The
        consumer and its handlers find the captures in ``self.kwargs``.
    :param layer: Carries events between processes, such as ``RedisLayer(url)``. Without one, events stay within this
        process.
    :param allowed_origins: Origins whose pages may connect, besides pages of the same host and port:
        ``"https://example.com"``, ``"https://*.example.com"`` or ``"*"``.
    :param allowed_hosts: Host names of this server: ``"example.com"``, ``"*.example.com"``. Without them, a server on a
        loopback address accepts loopback names alone, and any other server accepts every name.
    :param require_origin: Whether to refuse clients that send no Origin header; only browsers send one.
    :param limits: Sizes, counts and timeouts; see `wsaction.limits.Limits`.
    :param authentication_classes: How clients sign in; see `wsaction.authentication`.
    :param user_id: A function that returns the id of a user. The default is ``pk``, ``id`` or ``identity``.
    :param middleware: Functions ``async def middleware(handler, call_next)`` around each action, after permissions and
        validation. ``await call_next(handler)`` returns the result of the action.
    :param exception_handlers: For an exception class, a sync or async function ``(handler, exc)`` that returns the
        `APIError` of the reply.
    :param hooks: Instances of `wsaction.hooks.Hooks`, for metrics and logs.
    :param accept_refused: Whether to accept a refused handshake and close it at once, with 4401 for 401 and so on.
        Scripts in browsers can read a close code, but no HTTP status.
    :param title: The title of the AsyncAPI document and the explorer; ``version`` and ``description`` likewise.
    :param asyncapi_url: The path of the AsyncAPI document, below the root path; None disables it and the explorer.
    :param docs_url: The path of the explorer, below the root path; None disables it. If it is on and no page is at the
        root path, browsers get a page there that links it. Programs get 426.
    :param debug: Whether error replies have tracebacks and name similar routes and actions.
    :param lifespan: An async context manager around the app's life, as in Starlette; it is called with this app.
    :raises ImproperlyConfigured: for patterns and settings that cannot work.

    >>> app = WSAction([path("ws/<slug:room>/", Chat.as_asgi())], allowed_origins=["https://example.com"])
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        settings = signature(WSAction).parameters.keys() - vars(WSAction).keys() - {"unknown"}
        for name in vars(cls):
            if name in settings:
                raise ImproperlyConfigured(f"{cls.__name__}.{name} has no effect; pass WSAction({name}=...)")
            if name in ("permission_classes", "throttle_classes"):
                raise ImproperlyConfigured(f"{cls.__name__}.{name} has no effect; set it on the consumers")

    def __init__(
        self,
        routes: Sequence[Any],
        *,
        layer: Layer | None = None,
        allowed_origins: Sequence[str] = (),
        allowed_hosts: Sequence[str] = (),
        require_origin: bool = False,
        limits: Limits | None = None,
        authentication_classes: Sequence[type[BaseAuthentication] | BaseAuthentication] = (),
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
        **unknown: Never,
    ) -> None:
        _refuse_unknown(unknown)
        if user_id is not None and not callable(user_id):
            raise ImproperlyConfigured(
                f"WSAction(user_id=...): expected a function, as in lambda user: user.email, got {user_id!r}"
            )
        if lifespan is not None and (isasyncgenfunction(lifespan) or not hasattr(lifespan, "__call__")):  # noqa: B004
            raise ImproperlyConfigured(
                f"WSAction(lifespan=...): expected a function with @asynccontextmanager, got {lifespan!r}"
            )
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
        """Whether error replies have tracebacks, and name the routes and actions similar to an unknown one."""
        return self.runtime.debug

    @debug.setter
    def debug(self, debug: bool) -> None:
        self.runtime.debug = debug

    @property
    def dependency_overrides(self) -> dict[Callable[..., Any], Callable[..., Any]]:
        """The functions that replace dependencies, for tests.

        The keys are the functions in `Depends`. A replacement may have the parameters of any dependency. A change
        applies from the next frame on; ``app.dependency_overrides.clear()`` undoes all of them.

        >>> app.dependency_overrides[get_session] = get_test_session
        """
        return self.runtime.dependency_overrides

    @dependency_overrides.setter
    def dependency_overrides(self, overrides: dict[Callable[..., Any], Callable[..., Any]]) -> None:
        self.runtime.dependency_overrides = overrides

    def asyncapi(self) -> dict[str, Any]:
        """The AsyncAPI document of this app, built at the first call; see `wsaction.asyncapi`.

        The app serves this very dict, with your changes to it. To serve another one, replace or override this method.
        """
        if self._asyncapi is None:
            from wsaction.asyncapi import describe  # takes a fifth of this module's import time, and few apps need it

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
        """The lifespan of this app, for an app that mounts it: ``Starlette(routes, lifespan=app.lifespan)``.

        If no server or enclosing app runs it, the app starts at its first connection and ends with the event loop.
        """
        self.runtime.reopen()
        if any(view.table.is_live for view in self._views()):
            self.runtime.warn_of_workers()
        async with app_running():
            self.runtime.loop_state.users.start_listening()
            try:
                if self._lifespan is None:
                    yield None
                else:
                    async with self._lifespan.run() as state:
                        yield state
            finally:
                await self.runtime.close()

    def _views(self) -> list[Any]:
        """The consumers' views among its routes, without other ASGI apps."""
        return [leaf.endpoint.view for leaf in self.router.leaves if hasattr(leaf.endpoint.view, "table")]

    @awaited
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
        """Publishes an event to the subscribers of a route, from outside a handler: an HTTP endpoint, a job, a test.

        It does the same as ``self.publish()`` of the handler at that route, with its ``events`` and its history. Within
        a unit of work that has changed anything, the event waits for the commit. If another event loop serves the app,
        as with ``asyncio.run()`` in a thread, the call is passed to that loop. A process that does not serve the app
        needs a layer that reaches the processes that do.

        :param route: The route of the subscribers.
        :param event: A name in the handler's ``events``, if it declares them.
        :param data: The data of the event; it must have the type that ``events`` declares.
        :param path: The path of the connections, such as ``"ws/acme/"``. It may be left out if exactly one consumer of
            the app has a path without captures.
        :param root_path: The root path of the app if an enclosing Starlette route captures something in it, such as
            ``"t/acme"``. If a ``Host`` captures something, the host comes first: ``"acme.example.com/t/acme"``.
        :param topic: The name of the topic; required if the handler overrides ``get_topic()``.
        :param exclude: A handler or consumer whose connection does not get the event.
        :raises ValueError: for an unknown path, route or event.
        :raises LayerUnavailable: if the layer cannot be reached.

        >>> await app.publish("boards/7/", "moved", {"card": 3})
        """
        await self.runtime.run_where_served(
            lambda: self._publish(route, event, data, path=path, root_path=root_path, topic=topic, exclude=exclude)
        )

    async def _publish(
        self, route: str, event: str, data: Any, *, path: str | None, root_path: str, topic: str | None, exclude: Any
    ) -> None:
        handler = handler_at(self.router, self.runtime, route, path, root_path)
        if topic is None and type(handler).get_topic is not AsyncAPIActionHandler.get_topic:
            raise ValueError(
                f"{type(handler).__name__} overrides get_topic(), whose result may depend on the user; name the topic "
                "with topic=..."
            )
        excluded = None if exclude is None else exclude.consumer.connection
        await publish_from(handler, event, data, excluded, topic)

    @awaited
    async def publish_object(
        self, route: str, event: str, obj: Any, *, before: Any = None, path: str | None = None, root_path: str = ""
    ) -> None:
        """Publishes that something other than a generic handler created, updated or deleted one of its objects.

        Use it after a bulk change, in an HTTP endpoint or in a job. It publishes the events that the handler publishes
        for its own changes. ``path`` and ``root_path`` are those of `publish`.

        :param route: The route of the handler, either of the object or of its list.
        :param event: ``"created"``, ``"updated"`` or ``"deleted"``.
        :param obj: The object after the change.
        :param before: The object or its values from before the change. Without it, every subscriber who may not see the
            object gets ``deleted``.
        :raises ValueError: as `publish`, and if the handler does not publish changes.
        :raises LayerUnavailable: if the layer cannot be reached.

        >>> before = cards.values_of(card)
        >>> card = await cards.update(card, {"owner_id": 2})
        >>> await app.publish_object("cards/", "updated", card, before=before)
        """
        await self.runtime.run_where_served(
            lambda: self._publish_object(route, event, obj, before=before, path=path, root_path=root_path)
        )

    async def _publish_object(
        self, route: str, event: str, obj: Any, *, before: Any, path: str | None, root_path: str
    ) -> None:
        handler = handler_at(self.router, self.runtime, route, path, root_path)
        if not (is_live(type(handler)) and hasattr(handler, "publish_object")):
            raise ValueError(
                "publish_object(): expected a route of a generic handler with SubscribeMixin, got one of "
                f"{type(handler).__name__}, which publishes no changes; use publish()"
            )
        await handler.publish_object(event, obj, before)

    @awaited
    async def disconnect_user(self, user_id: Any, reason: str = "") -> None:
        """Closes all connections of a user with 4403, in every process.

        Within a unit of work that has changed anything, this waits for the commit, and does not happen after a
        rollback. If other processes cannot be reached after the commit, this process tries again until they can.

        A process that had lost the layer closes the connections when it is back. If it cannot find out what it missed,
        it closes the connections of all users with 1012, so that they reconnect and authenticate again.

        :param user_id: The id of the user: what ``WSAction(user_id=...)`` returns for ``scope["user"]``.
        :param reason: The reason in the close frame.
        :raises ValueError: if ``user_id`` is None.
        :raises LayerUnavailable: if there is no commit to wait for and other processes cannot be reached. The
            connections of this process are closed all the same.
        """
        await self._notify_user("disconnect", user_id, reason=reason)

    @awaited
    async def revoke_user(self, user_id: Any) -> None:
        """Checks the permissions of a user's subscriptions and streams again, in every process.

        A refused subscription ends: the client gets ``{"event": "$unsubscribed", "route": ..., "data": {"reason":
        "permission_denied"}}`` and no later event of that route. A refused stream ends with 403. Events and items wait
        while their permissions are checked. A running call continues, as an HTTP request would; the permissions of a
        queued call are checked when it starts. If the consumer has broadcasts, ``can_connect`` is checked again, and a
        refused connection closes with 4403.

        It waits for a commit and raises as `disconnect_user` does.
        """
        await self._notify_user("revoke", user_id)

    @awaited
    async def push_user(self, user_id: Any, event: str, data: Any = None) -> None:
        """Sends an event to all connections of a user, in every process, under the empty route.

        The event has no history, so a user who connects later does not get it. A connection that may have missed one
        gets a ``$resync`` under the empty route.

        It waits for a commit and raises as `disconnect_user` does. It also raises ``ValueError`` for an invalid event
        name.

        >>> await app.push_user(7, "invited", {"board": 3})
        """
        text = encode_event(event, "", EventTypes("push_user()", {}).encode(event, data))
        text = pushed_frame(self.runtime.hooks, event, text)
        await self._notify_user("push", user_id, text=text)

    async def _notify_user(self, command: str, user_id: Any, **details: Any) -> None:
        if user_id is None:
            raise ValueError("expected a user's id, got None; pass what WSAction(user_id=...) returns for the user")
        await self.runtime.run_where_served(lambda: self._notify_user_here(command, user_id, details))

    async def _notify_user_here(self, command: str, user_id: Any, details: Mapping[str, Any]) -> None:
        users = self.runtime.loop_state.users
        if (unit := unit_to_wait_for()) is None:
            await users.send_command(command, user_id, **details)
        else:
            unit.on_commit(
                partial(users.send_command_with_retry, command, user_id, **details),
                if_unknown=partial(users.send_command_if_unknown, command, user_id, **details),
            )

    async def drain(self) -> None:
        """Shuts the connections of the running event loop down gracefully, within ``drain_timeout`` seconds.

        From the call on, new frames and handshakes get a 503 ``shutting_down``. A connection closes with 1012 as soon
        as no action runs on it. Connections close in batches with random pauses, so that their clients do not all
        reconnect at once. After four fifths of ``drain_timeout``, the actions that still run are cancelled.

        ``wsaction run`` calls this before the server stops. With another server, call it yourself.
        """
        await self.runtime.drain()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serves one ASGI scope: a WebSocket connection, an HTTP request for a page, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._asgi_lifespan.lifespan(scope, receive, send)
        elif await refuse_host(scope, receive, send, self.runtime):
            return
        elif scope["type"] == "http":
            await self._pages.serve(scope, "/" + _route_path(scope), send)
        elif (view := await self._resolve_view(scope, receive, send)) is not None:
            await view(scope, receive, send)

    async def _resolve_view(self, scope: Any, receive: Receive, send: Send) -> Any:
        """The view for a connection, with the captures put in the scope; None after a refusal.

        It is a method of its own so that an open connection does not keep its local variables alive.
        """
        try:
            if self._lifespan is not None and (state := await self._lifespan.ensure()):
                scope.setdefault("state", {}).update(state)
            match = self.router.resolve(_route_path(scope))
        except Exception as exc:  # a lifespan or a converter may raise anything, and the client needs an answer
            error = exc
            if isinstance(exc, Resolver404):
                logger.info("%s", exc, extra={"path": scope["path"], "status": 404})
                error = RouteNotFound(str(exc) if self.debug else None)
            if (await receive())["type"] == "websocket.connect":
                what = f"the connection to {scope['path']}"
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
    """The path below the root path of the app, without its leading slash."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) :][:1] in ("", "/"):
        path = path[len(root) :]
    return path.removeprefix("/")


def _refuse_unknown(unknown: Mapping[str, Any]) -> None:
    """Raises `ImproperlyConfigured` for a keyword that is no setting of an app."""
    for name in unknown:
        known = [*signature(WSAction).parameters.keys() - {"unknown"}]
        of_consumers = name in ("permission_classes", "throttle_classes")
        cure = "set it on the consumers" if of_consumers else did_you_mean(name, sorted(known), "it has")
        raise ImproperlyConfigured(f"WSAction() has no setting {name!r}; {cure}")


def _check_setting(name: str, value: Any, attribute: str, example: str) -> None:
    """Raises `ImproperlyConfigured` unless the value is None or an instance that has the attribute."""
    if value is not None and (isinstance(value, type) or not hasattr(value, attribute)):
        raise ImproperlyConfigured(f"WSAction({name}=...): expected an object like {example}, got {value!r}")
