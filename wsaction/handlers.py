"""`AsyncAPIActionHandler`: answers the actions of a route, one instance for each frame."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cache
from typing import Any, ClassVar, Literal

from starlette.authentication import UnauthenticatedUser
from starlette.datastructures import QueryParams

from wsaction._connection.connection import Connection, Receive, Send
from wsaction._events.publish import own_topic, publish_from, push_to, session_of
from wsaction._handlers.action import Action
from wsaction._handlers.declarations import (
    HookFlags,
    NotMountedSo,
    check_attributes,
    check_settings,
    collect_actions,
    is_changed,
    read_hooks,
    select_actions,
)
from wsaction._handlers.mounts import MountedHandler, Plan
from wsaction._handlers.route_table import RouteTable
from wsaction._protocol.frames import Frame
from wsaction._protocol.scope import RouteTopic
from wsaction._server.lifecycle import serve
from wsaction._server.runtime import Runtime, on_loop, on_loops
from wsaction._utils.hints import did_you_mean
from wsaction._utils.misspellings import framework_names, is_code, is_ours
from wsaction.decorators import async_action
from wsaction.dialects.base import Dialect
from wsaction.exceptions import ImproperlyConfigured, NotFound
from wsaction.limits import Limits
from wsaction.permissions._classes import Permissions, refusing
from wsaction.throttling import check_throttles, compile_throttles
from wsaction.transactions import UnitOfWork, unit_of_work

__all__ = ("ActionView", "AsyncAPIActionHandler", "protocol_view")


class AsyncAPIActionHandler:
    """Answers the actions of a route. Mounted with ``as_aaah()``; one instance for each frame.

    Its methods that `wsaction.decorators.async_action` decorates are what clients may call. ``permission_classes`` are
    asked before anything else is looked at, ``throttle_classes`` next (see `wsaction.throttling`); ``routepatterns``
    nest more handlers below this one's pattern.

    >>> class Echo(AsyncAPIActionHandler):
    ...     @async_action
    ...     async def echo(self, text: str) -> str:
    ...         return text
    """

    permission_classes: ClassVar[Sequence[Any]] = ()
    throttle_classes: ClassVar[Sequence[Any]] = ()
    throttle_scope: ClassVar[str | None] = None  # by which a ScopedRateThrottle finds its rate
    routepatterns: ClassVar[Sequence[Any]] = ()
    group_send_lookup_kwargs: ClassVar[str | None] = None  # the capture that names the group of its broadcasts
    strict_routing: ClassVar[bool] = True
    limits: ClassVar[Limits | None] = None
    outbox_policy: ClassVar[Literal["close", "drop_oldest"]] = "close"
    dialect: ClassVar[Dialect | None] = None  # spoken to clients that offer no sub-protocol; None: wsaction.v1
    dialects: ClassVar[Sequence[Dialect]] = ()  # spoken to clients that offer their sub-protocol
    available_actions: ClassVar[Mapping[str, Action]] = {}  # by name; read from the class body
    reserved_names: ClassVar[frozenset[str]] = frozenset()  # that no action may have, beside this class's own
    announced_by: ClassVar[frozenset[str]] = frozenset()  # attributes that decide what annotations stand for
    is_consumer: ClassVar[bool] = False  # whether one instance serves the whole connection
    decides_permissions: ClassVar[bool] = False  # whether a subclass took over get_permissions or check_permissions
    decides_object_permissions: ClassVar[bool] = False  # the same of check_object_permissions
    decides_throttles: ClassVar[bool] = False  # the same of get_throttles or check_throttles
    decides_topic: ClassVar[bool] = False  # the same of get_topic
    _hook_flags: ClassVar[HookFlags] = {
        "decides_permissions": ("get_permissions", "check_permissions"),
        "decides_object_permissions": ("check_object_permissions",),
        "decides_throttles": ("get_throttles", "check_throttles"),
        "decides_topic": ("get_topic",),
    }

    consumer: Any  # the connection's root, of the application's own class
    connection: Connection  # the root's alone; None of one that serves no connection
    scope: Any  # the connection's ASGI scope
    mounted: MountedHandler  # its own place in the table of routes
    frame: Frame  # what is being answered

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_attributes(cls)
        cls.available_actions = cls.actions_with({})
        if not is_ours(cls):
            cls._read_hooks()

    @classmethod
    def _read_hooks(cls) -> None:
        """Notes which hooks the class took over; once more when it is mounted, as decorators of classes change them."""
        read_hooks(cls)

    # ---------------------------------------------------------------------------------------------- mounting
    as_asgi: ClassVar[Any] = NotMountedSo()
    as_view: ClassVar[Any] = NotMountedSo()

    @classmethod
    def as_aaah(cls, *, actions: Mapping[str, str] | Sequence[str] | None = None, **initkwargs: Any) -> "ActionView":
        """An "async API action handler" to be mounted with ``path()``; also an ASGI app that serves this handler alone.

        ``actions`` says which actions the route has: a tuple of names, or ``{"get_all": "list"}`` to answer under other
        names. ``initkwargs`` are set on each instance: attributes that the class has, like
        ``serializer_class=CardOut``. Raises `ImproperlyConfigured` for a name that is none of them.
        """
        _check_initkwargs(cls, initkwargs)
        if is_changed(cls, cls.available_actions):
            cls.available_actions = cls.actions_with({})
        cls._read_hooks()
        check_settings(cls)
        available = cls.actions_with(initkwargs) if cls.announced_by & initkwargs.keys() else cls.available_actions
        view = ActionView(cls, initkwargs, select_actions(cls.__name__, available, actions))
        cls.check_mounting(view)
        return view

    @classmethod
    def actions_with(cls, initkwargs: Mapping[str, Any]) -> dict[str, Action]:
        """Its actions by name, as they are where it is mounted with these attributes."""
        hidden = _BASE_NAMES | cls.reserved_names
        return collect_actions(cls, hidden, lambda annotation: cls.resolve_annotation(annotation, initkwargs))

    @classmethod
    def resolve_annotation(cls, annotation: Any, initkwargs: Mapping[str, Any]) -> Any:
        """What an annotation of an action stands for in this class, mounted with these attributes: here, itself."""
        return annotation

    @classmethod
    def check_mounting(cls, view: "ActionView") -> None:
        """Raises `ImproperlyConfigured` for a class that lacks what the actions of this view need; here, nothing."""

    # ---------------------------------------------------------------------------------------------- the connection
    @property
    def user(self) -> Any:
        """The connection's user, ``scope["user"]``; Starlette's ``UnauthenticatedUser`` if nothing set one."""
        user = self.scope.get("user")
        return UnauthenticatedUser() if user is None else user

    @property
    def app(self) -> Any:
        """The `WSAction` that serves the connection: ``await self.app.publish("boards/7/", "moved", card)``.

        Raises ``RuntimeError`` for a consumer that is served without one.
        """
        if (app := session_of(self).runtime.app) is None:
            raise RuntimeError(f"this {type(self).__name__} is served without an app; put it in WSAction([...])")
        return app

    async def connect(self) -> None:
        """Asked of the root before the handshake is accepted: raise an `APIError` to refuse it with that status.

        All that is asked before a handshake is accepted has ``action_timeout`` seconds together.
        """

    async def disconnect(self, code: int) -> None:
        """Asked of the root once the connection has ended, with the close code, if ``connect`` had returned.

        Nothing of the connection runs any more, and it is subscribed to nothing; ``self.publish()`` tells the others.
        It has at least half of ``drain_timeout``.
        """

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Ends the connection: what runs on it is cancelled, this action too once it waits.

        In ``connect``, refuses it. Raises ``ValueError`` for what a close frame cannot hold; a ``reason`` is cut to 123
        bytes.
        """
        if type(code) is not int or code not in _CLOSE_CODES or not isinstance(reason, str):
            expected = "a code of 1000 to 1014 (but 1004 to 1006) or 3000 to 4999, and a string"
            raise ValueError(f"close({code!r}, {reason!r}): expected {expected}; your own codes are 4000 up")
        self.consumer.connection.close(code, reason)

    # ---------------------------------------------------------------------------------------------- the frame
    @property
    def action(self) -> str | None:
        """The action under way, by its declared name."""
        return self.frame.call.name

    @property
    def route(self) -> str:
        """The route as the client sent it, with its query."""
        return self.frame.route

    @property
    def request_id(self) -> str | int | None:
        """The frame's ``request_id``, or None."""
        return self.frame.request_id

    @property
    def args(self) -> tuple[Any, ...]:
        """Unnamed captures: the connection path's, then the route's."""
        return self.frame.call.args

    @property
    def kwargs(self) -> dict[str, Any]:
        """Named captures and default kwargs: the connection path's, overlaid by the route's."""
        return self.frame.kwargs

    @property
    def query_params(self) -> QueryParams:
        """The route's query: of ``boards/?page=4``, ``query_params["page"] == "4"``."""
        call = self.frame.call
        if call.params is None:
            call.params = QueryParams(call.query)
        params: QueryParams = call.params
        return params

    # ---------------------------------------------------------------------------------------------- events
    def get_topic(self) -> str:
        """What this route is told under: by default its connection path and itself, both in canonical form.

        Override it where what is there depends on who asks (``return f"inbox:{self.user.id}"``), or where routes of
        this handler share their events; each subscriber gets them under the route it subscribed to. What an override
        returns is a name within the connection path, shared only with handlers that inherit the same override; return
        a `wsaction.subscriptions.SharedTopic` to share events between paths or handlers. Who subscribes and who
        publishes both ask it. Raises `RouteNotFound` for no route of ours.
        """
        return RouteTopic(own_topic(self))

    async def publish(self, event: str, data: Any = None, exclude_self: bool = False) -> None:
        """Tells an event to all who are subscribed to this route, in every process; a consumer, to its own route.

        Once the action has changed anything, they are told when that is committed, and not if it is not; what goes
        wrong then is logged, and they are told to load again. ``exclude_self``: all but this connection. ``data`` is
        what the handler's ``events`` says. Raises `LayerUnavailable` (503) where it is told at once, ``ValueError``
        for an event that is not declared, ``pydantic.ValidationError`` for data that is not what was.
        """
        excluded = self.consumer.connection if exclude_self else None
        if self._is_on_its_loop:
            await publish_from(self, event, data, excluded)
        else:
            await self._on_its_loop(lambda: publish_from(self, event, data, excluded))

    async def push(self, event: str, data: Any = None) -> None:
        """Tells an event to this connection alone, at once. Raises as `publish` does for what is not declared."""
        if self._is_on_its_loop:
            await push_to(self, event, data)
        else:
            await on_loop(self.consumer.connection.loop, lambda: push_to(self, event, data))

    @property
    def _is_on_its_loop(self) -> bool:
        connection = self.consumer.connection
        return connection is None or connection.loop is asyncio.get_running_loop()

    async def _on_its_loop(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Does something on the connection's event loop, which `asyncio.run()` in a thread is not: now, or once the
        unit of work is committed that is under way here."""
        if self._is_on_its_loop:
            await work()
        else:
            await on_loops([self.consumer.connection.loop], work)

    def unit_of_work(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """`wsaction.transactions.unit_of_work`: what its block changes is committed at its end, before the action
        goes on."""
        return unit_of_work()

    # ---------------------------------------------------------------------------------------------- permissions
    def get_permissions(self) -> Sequence[Any]:
        """What is asked of this handler for the frame under way; override it to decide for each frame."""
        action = self._plan().action
        if action is not None and action.options.permission_classes is not None:
            return action.options.permission_classes
        return self.permission_classes

    def check_permissions(self) -> Coroutine[Any, Any, None]:
        """Raises `wsaction.exceptions.PermissionDenied` unless the action under way is allowed. To be awaited."""
        verdict = self._permissions().action_refusal(self.scope, self, self.frame.call.name, self.frame.keywords)
        return refusing("check_permissions", verdict)

    def check_object_permissions(self, obj: Any) -> Coroutine[Any, Any, None]:
        """Raises `wsaction.exceptions.PermissionDenied` unless the action under way may touch ``obj``. To be awaited:
        the action fails where it is not."""
        verdict = self._permissions().object_refusal(self.scope, self, self.frame.call.name, obj, self.frame.keywords)
        return refusing("check_object_permissions", verdict)

    def _plan(self) -> Plan:
        """This handler's own: of the action under way where it is the one called, else of one that it does not have."""
        call = self.frame.call
        return call.plan if call.mounted is self.mounted else self.mounted.no_such_action

    def _permissions(self) -> Permissions:
        if (permissions := self._plan().permissions) is not None:
            return permissions
        return self.mounted.compiled(self.get_permissions())

    # ---------------------------------------------------------------------------------------------- throttles
    def get_throttles(self) -> Sequence[Any]:
        """What limits this handler for the frame under way; override it to decide for each frame."""
        action = self._plan().action
        if action is not None and action.options.throttle_classes is not None:
            return action.options.throttle_classes
        return self.throttle_classes

    async def check_throttles(self) -> None:
        """Raises `wsaction.exceptions.Throttled` where the action under way is called too often."""
        throttles = compile_throttles(
            self.get_throttles(), owner=f"{type(self).__name__}.get_throttles()", throttle_scope=self.throttle_scope
        )
        await check_throttles(throttles, self.scope, self, self.frame.call.name)


class ActionView:
    """What ``as_aaah()`` and ``as_asgi()`` return: a handler class with what it is mounted with, and an ASGI app.

    ``handler_class``, ``initkwargs`` and ``actions`` (by the name that clients use) say what it is.
    """

    def __init__(
        self, handler_class: type[AsyncAPIActionHandler], initkwargs: Mapping[str, Any], actions: Mapping[str, Action]
    ) -> None:
        self.handler_class: Any = handler_class
        self.initkwargs: Mapping[str, Any] = dict(initkwargs)
        self.actions = actions
        self.__name__ = handler_class.__name__
        self.__doc__ = handler_class.__doc__
        self._table: RouteTable | None = None
        self._runtime: Runtime | None = None

    def __repr__(self) -> str:
        return f"<{self.handler_class.__name__} as a view>"

    @property
    def table(self) -> RouteTable:
        """Its routes, compiled at first use; raises `ImproperlyConfigured` for patterns that cannot be mounted."""
        if self._table is None:
            self._table = RouteTable(self, protocol_view())
        return self._table

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serves one connection; without an enclosing `WSAction`, with the default bounds and Origin check."""
        if self._runtime is None:
            self._runtime = Runtime(limits=self.handler_class.limits)
        if scope["type"] == "websocket" and scope.get("user") is None:
            scope["user"] = UnauthenticatedUser()
        await serve(self, scope, receive, send, self._runtime)


_CLOSE_CODES = frozenset((*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)))


def _check_initkwargs(cls: type[AsyncAPIActionHandler], initkwargs: Mapping[str, Any]) -> None:
    for name in initkwargs:
        if name not in (settable := _settable_names(cls)):
            hint = did_you_mean(name, settable, "it has")
            raise ImproperlyConfigured(
                f"{cls.__name__} is mounted with attributes of the class, no actions or hooks, not {name!r}; {hint}"
            )


def _settable_names(cls: type[AsyncAPIActionHandler]) -> list[str]:
    """What a class may be mounted with: no hooks, since it is the class that says which of these are taken over."""
    actions = [action.function.__name__ for action in cls.available_actions.values()]
    hooks = [name for name, value in framework_names(cls).items() if is_code(value)]
    excluded = {*_BASE_NAMES, *actions, *hooks}
    attributes = [name for name in dir(cls) if not name.startswith("_") and name not in excluded]
    return ["permission_classes", "throttle_classes", "throttle_scope", *attributes]


_BASE_NAMES: frozenset[str] = frozenset(
    name for name in (*vars(AsyncAPIActionHandler), *AsyncAPIActionHandler.__annotations__) if not name.startswith("__")
)


@cache
def protocol_view() -> ActionView:
    """The actions of every connection that begin with ``$``; made when the first root is, as pydantic builds them."""
    from pydantic import StrictInt, StrictStr

    class ProtocolHandler(AsyncAPIActionHandler):
        """They pass by the order, the bounds and the permissions."""

        @async_action(ordered=False)
        async def ping(self) -> None:
            """Answers, for clients that cannot send the pings of WebSocket."""

        @async_action(ordered=False)
        async def cancel(self, data: StrictStr | StrictInt) -> None:
            """Cancels the call or stream of this connection whose ``request_id`` is ``data``."""
            if not self.consumer.connection.cancel(data):
                raise NotFound("Nothing with this request_id is in flight on this connection.")

    actions = {f"${name}": action for name, action in ProtocolHandler.available_actions.items()}
    return ActionView(ProtocolHandler, {}, actions)
