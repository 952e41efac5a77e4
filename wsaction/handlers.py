"""`AsyncAPIActionHandler`: answers the actions of a route, one instance for each frame."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar

from starlette.datastructures import QueryParams

from wsaction.actions import Action, collect_actions, select_actions
from wsaction.connections import Receive, Send
from wsaction.dispatch import RouteTable, raise_refusal
from wsaction.exceptions import ImproperlyConfigured
from wsaction.limits import Limits
from wsaction.mounts import Plan
from wsaction.permissions import Permissions, compile_permissions
from wsaction.runtime import Runtime
from wsaction.serving import serve

__all__ = ("ActionView", "AsyncAPIActionHandler")


class AsyncAPIActionHandler:
    """Answers the actions of a route. Mounted with ``as_aaah()``; one instance for each frame.

    Its methods that `wsaction.decorators.async_action` decorates are what clients may call. ``permission_classes`` are
    asked before anything else is looked at; ``routepatterns`` nest more handlers below this one's pattern.

    >>> class Echo(AsyncAPIActionHandler):
    ...     @async_action
    ...     async def echo(self, text: str) -> str:
    ...         return text
    """

    permission_classes: ClassVar[Sequence[Any]] = ()
    routepatterns: ClassVar[Sequence[Any]] = ()
    strict_routing: ClassVar[bool] = True
    limits: ClassVar[Limits | None] = None
    available_actions: ClassVar[Mapping[str, Action]] = {}  # by name; read from the class body
    is_consumer: ClassVar[bool] = False  # whether one instance serves the whole connection
    decides_permissions: ClassVar[bool] = False  # whether a subclass took over get_permissions or check_permissions

    consumer: Any  # the connection's root
    connection: Any  # the root's alone
    scope: Any  # the connection's ASGI scope
    mounted: Any  # its own place in the table of routes
    frame: Any  # what is being answered

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.available_actions = collect_actions(cls, hidden=_OWN)
        cls.decides_permissions = (
            cls.get_permissions is not AsyncAPIActionHandler.get_permissions
            or cls.check_permissions is not AsyncAPIActionHandler.check_permissions
        )

    # ---------------------------------------------------------------------------------------------- mounting
    @classmethod
    def as_aaah(cls, *, actions: Mapping[str, str] | Sequence[str] | None = None, **initkwargs: Any) -> "ActionView":
        """An "async API action handler" to be mounted with ``path()``; also an ASGI app that serves this handler alone.

        ``actions`` says which actions the route has: a tuple of names, or ``{"get_all": "list"}`` to answer under other
        names. ``initkwargs`` are set on each instance: attributes that the class has, like
        ``serializer_class=CardOut``. Raises `ImproperlyConfigured` for a name that is none of them.
        """
        _check_initkwargs(cls, initkwargs)
        return ActionView(cls, initkwargs, select_actions(cls.__name__, cls.available_actions, actions))

    # ---------------------------------------------------------------------------------------------- the connection
    @property
    def user(self) -> Any:
        """Who asks: ``scope["user"]``, or None where no authentication set one."""
        return self.scope.get("user")

    async def connect(self) -> None:
        """Asked of the root before the handshake is accepted: raise an `APIError` to refuse it with that status."""

    async def disconnect(self, code: int) -> None:
        """Asked of the root once the connection has ended, with the close code, if ``connect`` had returned.

        Nothing of the connection runs any more. It has ``drain_timeout`` seconds.
        """

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Ends the connection: what runs on it is cancelled, this action too once it waits.

        In ``connect``, refuses it.
        """
        self.consumer.connection.close(code, reason)

    # ---------------------------------------------------------------------------------------------- the frame
    @property
    def action(self) -> str | None:
        """The action under way, by its declared name."""
        name: str | None = self.frame.call.name
        return name

    @property
    def route(self) -> str:
        """The route as the client sent it, with its query."""
        route: str = self.frame.route
        return route

    @property
    def request_id(self) -> str | int | None:
        """The frame's ``request_id``, or None."""
        request_id: str | int | None = self.frame.request_id
        return request_id

    @property
    def args(self) -> tuple[Any, ...]:
        """Unnamed captures: the connection path's, then the route's."""
        args: tuple[Any, ...] = self.frame.call.args
        return args

    @property
    def kwargs(self) -> dict[str, Any]:
        """Named captures and default kwargs: the connection path's, overlaid by the route's."""
        kwargs: dict[str, Any] = self.frame.kwargs
        return kwargs

    @property
    def query_params(self) -> QueryParams:
        """The route's query: of ``boards/?page=4``, ``query_params["page"] == "4"``."""
        return QueryParams(self.frame.call.query)

    # ---------------------------------------------------------------------------------------------- permissions
    def get_permissions(self) -> Sequence[Any]:
        """What is asked of this handler for the frame under way; override it to decide for each frame."""
        action = self._plan().action
        if action is not None and action.options.permission_classes is not None:
            return action.options.permission_classes
        return self.permission_classes

    async def check_permissions(self) -> None:
        """Raises `wsaction.exceptions.PermissionDenied` unless the action under way is allowed."""
        verdict = self._permissions().action_refusal(self.scope, self, self.frame.call.name, self.frame.keywords)
        if verdict is not None:
            await raise_refusal(verdict)

    async def check_object_permissions(self, obj: Any) -> None:
        """Raises `wsaction.exceptions.PermissionDenied` unless the action under way may touch ``obj``."""
        verdict = self._permissions().object_refusal(self.scope, self, self.frame.call.name, obj, self.frame.keywords)
        if verdict is not None:
            await raise_refusal(verdict)

    def _plan(self) -> Plan:
        """This handler's own: of the action under way where it is the one called, else of one that it does not have."""
        call = self.frame.call
        plan: Plan = call.plan if call.mounted is self.mounted else self.mounted.no_such_action
        return plan

    def _permissions(self) -> Permissions:
        permissions = self._plan().permissions
        if permissions is not None:
            return permissions
        return compile_permissions(self.get_permissions(), owner=f"{type(self).__name__}.get_permissions()")


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
        self.__name__, self.__doc__ = handler_class.__name__, handler_class.__doc__
        self._table: RouteTable | None = None
        self._runtime: Runtime | None = None

    def __repr__(self) -> str:
        return f"<{self.handler_class.__name__} as a view>"

    @property
    def table(self) -> RouteTable:
        """Its routes, compiled at first use; raises `ImproperlyConfigured` for patterns that cannot be mounted."""
        if self._table is None:
            self._table = RouteTable(self)
        return self._table

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serves one connection; without an enclosing `WSAction`, with the default bounds and Origin check."""
        if self._runtime is None:
            self._runtime = Runtime()
        await serve(self, scope, receive, send, self._runtime)


def _check_initkwargs(cls: type, initkwargs: Mapping[str, Any]) -> None:
    for name in initkwargs:
        if name not in (known := _settable(cls)):
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise ImproperlyConfigured(
                f"{cls.__name__} is mounted with attributes that the class has and that are no actions, not {name!r}; "
                f"{hint}"
            )


def _settable(cls: type) -> list[str]:
    actions = [action.function.__name__ for action in cls.available_actions.values()]  # type: ignore[attr-defined]
    own = [name for name in dir(cls) if not name.startswith("_") and name not in _OWN and name not in actions]
    return ["permission_classes", *own]


_OWN: frozenset[str] = frozenset(
    name for name in (*vars(AsyncAPIActionHandler), *AsyncAPIActionHandler.__annotations__) if not name.startswith("__")
)
