"""`AsyncAPIActionHandler`: the base class of handlers, which answer the actions of a route."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cache
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from starlette.authentication import UnauthenticatedUser as StarletteUnauthenticatedUser
from starlette.datastructures import QueryParams

from wsaction._connection.connection import Connection
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
from wsaction._protocol.awaited import awaited
from wsaction._protocol.frames import Frame
from wsaction._protocol.scope import RouteTopic
from wsaction._server.lifecycle import serve
from wsaction._server.runtime import Runtime, on_loop, on_loops
from wsaction._utils.asgi import Receive, Send
from wsaction._utils.hints import did_you_mean
from wsaction._utils.misspellings import get_framework_attributes, is_code, is_ours
from wsaction.decorators import async_action
from wsaction.dialects.base import Dialect
from wsaction.exceptions import ImproperlyConfigured, NotFound
from wsaction.limits import Limits
from wsaction.permissions._classes import Permission, Permissions, refusing
from wsaction.throttling import BaseThrottle, check_throttles, compile_throttles
from wsaction.transactions import UnitOfWork, unit_of_work

if TYPE_CHECKING:
    from wsaction.applications import WSAction

__all__ = ("ActionView", "AsyncAPIActionHandler", "protocol_view")


class UnauthenticatedUser(StarletteUnauthenticatedUser):
    """Starlette's anonymous user, but false, so that ``if self.user`` lets nobody in who has not signed in."""

    def __bool__(self) -> bool:
        return False


class AsyncAPIActionHandler:
    """The base class of handlers, which answer the actions of a route. Each frame gets an instance of its own.

    Clients may call the methods that `wsaction.decorators.async_action` decorates. For each frame,
    ``permission_classes`` are checked first and ``throttle_classes`` second; see `wsaction.permissions` and
    `wsaction.throttling`. ``routepatterns`` nest other handlers below this handler's pattern. Mount a handler with
    `as_aaah`.

    >>> class Echo(AsyncAPIActionHandler):
    ...     @async_action
    ...     async def echo(self, text: str) -> str:
    ...         return text
    """

    permission_classes: ClassVar[Sequence[Permission]] = ()
    throttle_classes: ClassVar[Sequence[type[BaseThrottle] | BaseThrottle]] = ()
    throttle_scope: ClassVar[str | None] = None  # the name of a ScopedRateThrottle's rate
    routepatterns: ClassVar[Sequence[Any]] = ()
    group_send_lookup_kwargs: ClassVar[str | None] = None  # the capture that names the group of its broadcasts
    strict_routing: ClassVar[bool] = True
    limits: ClassVar[Limits | None] = None
    outbox_policy: ClassVar[Literal["close", "drop_oldest"]] = "close"
    dialect: ClassVar[Dialect | None] = None  # for clients that offer no sub-protocol; None: wsaction.v1
    dialects: ClassVar[Sequence[Dialect]] = ()  # for clients that offer the sub-protocol of one of them
    available_actions: ClassVar[Mapping[str, Action]] = {}  # by name; read from the class body
    reserved_names: ClassVar[frozenset[str]] = frozenset()  # names that no action may have, besides this class's own
    annotation_attributes: ClassVar[frozenset[str]] = frozenset()  # attributes that `resolve_annotation` depends on
    is_consumer: ClassVar[bool] = False  # whether one instance serves the whole connection
    overrides_permissions: ClassVar[bool] = False  # whether a subclass overrides get_permissions or check_permissions
    overrides_object_permissions: ClassVar[bool] = False  # the same for check_object_permissions
    overrides_throttles: ClassVar[bool] = False  # the same for get_throttles or check_throttles
    overrides_topic: ClassVar[bool] = False  # the same for get_topic
    _hook_flags: ClassVar[HookFlags] = {
        "overrides_permissions": ("get_permissions", "check_permissions"),
        "overrides_object_permissions": ("check_object_permissions",),
        "overrides_throttles": ("get_throttles", "check_throttles"),
        "overrides_topic": ("get_topic",),
    }
    _plain_hooks: ClassVar[tuple[str, ...]] = ("get_permissions", "get_throttles", "get_topic")

    # An application annotates the next two in a base class of its own: `user: User`, `consumer: Board`.
    consumer: Any  # the consumer of the connection; a consumer is its own
    if TYPE_CHECKING:
        user: Any  # a variable, because pyright lets no annotation override a property
    connection: Connection  # a consumer has it alone; None if it serves no connection
    scope: MutableMapping[str, Any]  # the connection's ASGI scope
    mounted: MountedHandler  # its place in the table of routes
    frame: Frame  # the frame that it answers

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_attributes(cls)
        cls.available_actions = cls.actions_with({})
        if not is_ours(cls):
            cls._read_hooks()

    @classmethod
    def _read_hooks(cls) -> None:
        """Sets the ``overrides_...`` flags. It runs again at mounting, since a class decorator may add overrides."""
        read_hooks(cls)
        for name in cls._plain_hooks:
            if iscoroutinefunction(getattr(cls, name)):
                raise ImproperlyConfigured(
                    f"{cls.__name__}.{name} must be a plain def, got an async def; load what it needs earlier, in "
                    "connect() or in check_permissions(), and keep it on self or self.consumer"
                )

    # ---------------------------------------------------------------------------------------------- mounting
    as_asgi: ClassVar[Any] = NotMountedSo()
    as_view: ClassVar[Any] = NotMountedSo()

    @classmethod
    def as_aaah(cls, *, actions: Mapping[str, str] | Sequence[str] | None = None, **initkwargs: Any) -> "ActionView":
        """A view of this handler for ``path()``: an "async API action handler". It is also an ASGI app of its own.

        :param actions: The actions of the route, as a tuple of names. A dict renames actions: with
            ``{"get_all": "list"}``, clients call ``list`` as ``get_all``. By default the route has all actions.
        :param initkwargs: Attributes of the class to set on each instance, such as ``serializer_class=CardOut``.
        :raises ImproperlyConfigured: for an unknown action or attribute.

        >>> path("cards/", CardHandler.as_aaah(actions=("list", "create")))
        """
        _check_initkwargs(cls, initkwargs)
        if is_changed(cls, cls.available_actions):
            cls.available_actions = cls.actions_with({})
        cls._read_hooks()
        check_settings(cls)
        available = (
            cls.actions_with(initkwargs) if cls.annotation_attributes & initkwargs.keys() else cls.available_actions
        )
        view = ActionView(cls, initkwargs, select_actions(cls.__name__, available, actions))
        cls.check_mounting(view)
        return view

    @classmethod
    def actions_with(cls, initkwargs: Mapping[str, Any]) -> dict[str, Action]:
        """The actions by name, for a view with these attributes."""
        hidden = _BASE_NAMES | cls.reserved_names
        return collect_actions(cls, hidden, lambda annotation: cls.resolve_annotation(annotation, initkwargs))

    @classmethod
    def resolve_annotation(cls, annotation: Any, initkwargs: Mapping[str, Any]) -> Any:
        """The type that an annotation of an action means in a view with these attributes: by default, itself."""
        return annotation

    @classmethod
    def check_mounting(cls, view: "ActionView") -> None:
        """Raises `ImproperlyConfigured` if the class lacks an attribute that the view's actions need; a hook."""

    # ---------------------------------------------------------------------------------------------- the connection
    if not TYPE_CHECKING:

        @property
        def user(self):
            """The user of the connection: ``scope["user"]``; Starlette's ``UnauthenticatedUser`` if that is not set.

            For type checkers it is ``Any``, unless a base class of the application's annotates it.

            >>> class Handler(AsyncAPIActionHandler):
            ...     user: User
            """
            user = self.scope.get("user")
            return UnauthenticatedUser() if user is None else user

    @property
    def app(self) -> "WSAction":
        """The `WSAction` that serves the connection: ``await self.app.publish("boards/7/", "moved", card)``.

        Raises ``RuntimeError`` if the consumer is served without an app.
        """
        if (app := session_of(self).runtime.app) is None:
            raise RuntimeError(f"this {type(self).__name__} is served without an app; route to it in WSAction([...])")
        return app

    async def connect(self) -> None:
        """A hook of consumers that runs before the handshake is accepted. Raise an `APIError` to refuse the handshake.

        The error's status becomes the HTTP status. Authentication, permissions and this hook share ``action_timeout``
        seconds.
        """

    async def disconnect(self, code: int) -> None:
        """A hook of consumers that runs with the close code once the connection has ended.

        It runs only if ``connect`` returned. The connection's actions and subscriptions have ended before;
        ``self.publish()`` still reaches other clients. The hook has at least half of ``drain_timeout``.
        """

    @awaited
    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Closes the connection. Its actions are cancelled; the current one at its next ``await``.

        In ``connect``, it refuses the handshake.

        :param code: 1000 to 1014, but not 1004 to 1006; or 3000 to 4999, of which 4000 and above are the application's.
        :param reason: The reason in the close frame; it is cut to 123 bytes of UTF-8.
        :raises ValueError: for a code or reason that a close frame cannot have.
        """
        if type(code) is not int or code not in _CLOSE_CODES or not isinstance(reason, str):
            expected = "a code of 1000 to 1014 (but not 1004 to 1006) or 3000 to 4999, and a string"
            raise ValueError(
                f"close({code!r}, {reason!r}): expected {expected}; for codes of your own, use 4000 to 4999"
            )
        self.consumer.connection.close(code, reason)

    # ---------------------------------------------------------------------------------------------- the frame
    @property
    def action(self) -> str | None:
        """The declared name of the current action."""
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
        """The unnamed captures: first those of the connection path, then those of the route."""
        return self.frame.call.args

    @property
    def kwargs(self) -> dict[str, Any]:
        """The named captures and default kwargs of the connection path and the route; those of the route win."""
        return self.frame.kwargs

    @property
    def query_params(self) -> QueryParams:
        """The query of the route: for ``boards/?page=4``, ``query_params["page"]`` is ``"4"``."""
        call = self.frame.call
        if call.params is None:
            call.params = QueryParams(call.query)
        params: QueryParams = call.params
        return params

    # ---------------------------------------------------------------------------------------------- events
    def get_topic(self) -> str:
        """The topic that subscribers join and `publish` publishes to. By default, each route is a topic of its own.

        The default is the connection path and the route, both in canonical form. Override it if the content of the
        route depends on the user, or to share events between routes of this handler. Subscribers get the events under
        the route that they subscribed to.

        An override returns a name within the connection path. Only handlers that inherit the same override share it.
        To share events between paths or handlers, return a `wsaction.subscriptions.SharedTopic`.

        Raises `RouteNotFound` if no pattern matches the whole route.

        >>> def get_topic(self) -> str:
        ...     return f"inbox:{self.user.id}"
        """
        return RouteTopic(own_topic(self))

    @awaited
    async def publish(self, event: str, data: Any = None, exclude_self: bool = False) -> None:
        """Publishes an event to the subscribers of this route, in every process. A consumer's is the empty route.

        If the action has changed anything, the event waits for the commit, and is dropped on a rollback. If publishing
        fails after the commit, the error is logged and the subscribers get a ``$resync``.

        :param event: A name in the handler's ``events``, if it declares them.
        :param data: The data of the event; it must have the type that ``events`` declares.
        :param exclude_self: Whether to leave this connection out.
        :raises LayerUnavailable: (503) if there is no commit to wait for and the layer cannot be reached.
        :raises ValueError: for an event that is not declared.
        :raises pydantic.ValidationError: for data of another type than the declared one.

        >>> await self.publish("moved", {"card": 3})
        """
        excluded = self.consumer.connection if exclude_self else None
        if self._is_on_its_loop:
            await publish_from(self, event, data, excluded)
        else:
            await self._on_its_loop(lambda: publish_from(self, event, data, excluded))

    @awaited
    async def push(self, event: str, data: Any = None) -> None:
        """Sends an event to this connection alone, at once. Raises as `publish` does for undeclared events and data."""
        if self._is_on_its_loop:
            await push_to(self, event, data)
        else:
            await on_loop(self.consumer.connection.loop, lambda: push_to(self, event, data))

    @property
    def _is_on_its_loop(self) -> bool:
        connection = self.consumer.connection
        return connection is None or connection.loop is asyncio.get_running_loop()

    async def _on_its_loop(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs ``work`` on the connection's event loop, for callers on another loop (``asyncio.run()`` in a thread).

        On another loop within a unit of work, it runs after that unit's commit.
        """
        if self._is_on_its_loop:
            await work()
        else:
            await on_loops([self.consumer.connection.loop], work)

    def unit_of_work(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """A context manager that commits the changes of its block at its end; `wsaction.transactions.unit_of_work`."""
        return unit_of_work()

    # ---------------------------------------------------------------------------------------------- permissions
    def get_permissions(self) -> Sequence[Permission]:
        """The permissions of this handler for the current frame; override it to choose them for each frame."""
        action = self._plan().action
        if action is not None and action.options.permission_classes is not None:
            return action.options.permission_classes
        return self.permission_classes

    def check_permissions(self) -> Coroutine[Any, Any, None]:
        """Raises `wsaction.exceptions.PermissionDenied` unless the current action is allowed. Await it."""
        verdict = self._permissions().action_refusal(self.scope, self, self.frame.call.name, self.frame.keywords)
        return refusing("check_permissions", verdict)

    def check_object_permissions(self, obj: Any) -> Coroutine[Any, Any, None]:
        """Raises `wsaction.exceptions.PermissionDenied` unless the current action is allowed for ``obj``.

        Await it: if a permission is async, an action that does not await the check fails.
        """
        frame = self.frame
        frame.checked_object = obj
        verdict = self._permissions().object_refusal(self.scope, self, frame.call.name, obj, frame.keywords)
        return refusing("check_object_permissions", verdict)

    def _plan(self) -> Plan:
        """This handler's plan for the current action; that of no action if the frame calls another handler."""
        call = self.frame.call
        return call.plan if call.mounted is self.mounted else self.mounted.no_such_action

    def _permissions(self) -> Permissions:
        if (permissions := self._plan().permissions) is not None:
            return permissions
        return self.mounted.compiled(self.get_permissions())

    # ---------------------------------------------------------------------------------------------- throttles
    def get_throttles(self) -> Sequence[type[BaseThrottle] | BaseThrottle]:
        """The throttles of this handler for the current frame; override it to choose them for each frame."""
        action = self._plan().action
        if action is not None and action.options.throttle_classes is not None:
            return action.options.throttle_classes
        return self.throttle_classes

    @awaited
    async def check_throttles(self) -> None:
        """Raises `wsaction.exceptions.Throttled` if the current action is called too often."""
        throttles = compile_throttles(
            self.get_throttles(), owner=f"{type(self).__name__}.get_throttles()", throttle_scope=self.throttle_scope
        )
        await check_throttles(throttles, self.scope, self, self.frame.call.name)


class ActionView:
    """What ``as_aaah()`` and ``as_asgi()`` return: a handler class with its ``initkwargs``. It is an ASGI app.

    ``actions`` has the actions of the route, by the names that clients use.
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
        """The compiled routes, built at first use. Raises `ImproperlyConfigured` for patterns that cannot work."""
        if self._table is None:
            self._table = RouteTable(self, protocol_view())
        return self._table

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serves one connection. Without a `WSAction` around it, it uses the default limits and Origin check."""
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
                f"{cls.__name__}: expected attributes of the class, no actions or hooks, got {name!r}; {hint}"
            )


def _settable_names(cls: type[AsyncAPIActionHandler]) -> list[str]:
    """The attributes that ``as_aaah()`` may set. Hooks are not among them: `_read_hooks` reads the class alone."""
    actions = [action.function.__name__ for action in cls.available_actions.values()]
    hooks = [name for name, value in get_framework_attributes(cls).items() if is_code(value)]
    excluded = {*_BASE_NAMES, *actions, *hooks}
    flags = ("overrides_", "scopes_queryset", "publishes_changes")  # what `_read_hooks` has found out
    attributes = [name for name in dir(cls) if not name.startswith(("_", *flags)) and name not in excluded]
    return ["permission_classes", "throttle_classes", "throttle_scope", *attributes]


_BASE_NAMES: frozenset[str] = frozenset(
    name for name in (*vars(AsyncAPIActionHandler), *AsyncAPIActionHandler.__annotations__) if not name.startswith("__")
)


@cache
def protocol_view() -> ActionView:
    """The ``$`` actions of every connection. They are built with the first table, as pydantic takes time for that."""
    from pydantic import StrictInt, StrictStr

    class ProtocolHandler(AsyncAPIActionHandler):
        """These actions bypass the order of frames, the limits and the permissions."""

        @async_action(ordered=False)
        async def ping(self) -> None:
            """Replies at once, for clients that cannot send WebSocket pings."""

        @async_action(ordered=False)
        async def cancel(self, data: StrictStr | StrictInt) -> None:
            """Cancels the call or stream of this connection with this ``request_id``."""
            if not self.consumer.connection.cancel(data):
                raise NotFound("Nothing with this request_id is in flight on this connection.")

    actions = {f"${name}": action for name, action in ProtocolHandler.available_actions.items()}
    return ActionView(ProtocolHandler, {}, actions)
