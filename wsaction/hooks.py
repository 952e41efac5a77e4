"""Hooks: callbacks for metrics, logs and traces. ``wsaction.contrib`` has some for Prometheus and OpenTelemetry.

``_dispatch.hooks`` calls ``around_action`` and ``on_action``, ``_server.lifecycle`` calls ``on_connect`` and
``on_disconnect``, ``_pubsub.hub`` calls ``around_publish``, ``on_publish``, ``on_unpublished`` and ``on_layer_state``,
``_pubsub.topic`` ``around_delivery`` and ``on_event``, and each connection and ``_dispatch.session`` ``on_limit``. To
add a hook, declare it in `Hooks` and use ``hooks.call("on_...", ...)`` or ``hooks.around("around_...", ...)`` where it
happens.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, unwrap
from types import TracebackType
from typing import TYPE_CHECKING, Any

from wsaction._utils.hints import did_you_mean
from wsaction.routing.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from wsaction.consumers import AsyncAPIConsumer
    from wsaction.exceptions import APIError

__all__ = ("ActionInfo", "HookList", "Hooks", "nobody")

logger = logging.getLogger("wsaction")


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionInfo:
    """One frame and how it was answered: the argument of `Hooks.on_action`.

    ``handler`` is the name of a handler class, ``action`` that of an action that it declares; each is None if the frame
    found none. So they have few values and can be labels of a metric, as can ``pattern``, the pattern that the route
    matched. ``route`` is the client's text and can be anything. ``status`` is that of the final reply, even if no reply
    is sent. ``seconds`` is the time since the frame was read, or since it left the queue. ``error`` is what an error
    reply says, ``exception`` what was raised.
    """

    consumer: "AsyncAPIConsumer"
    handler: str | None
    action: str | None
    route: str
    request_id: str | int | None
    status: int
    seconds: float
    pattern: str | None = None
    error: "APIError | None" = None
    exception: BaseException | None = None


class Hooks:
    """Base class for hooks. Override some methods and pass an instance: ``WSAction(routes, hooks=[Metrics()])``.

    Hooks are plain functions that run on the event loop, so they must be quick. An exception in a hook is logged and
    changes nothing else. A method that is not overridden costs nothing. A method ``around_...`` returns a context
    manager, which is open while the thing happens; decorate it with ``contextlib.contextmanager``.

    >>> class Metrics(Hooks):
    ...     def on_action(self, info):
    ...         SECONDS.labels(info.handler, info.action, info.status).observe(info.seconds)

    Raises `ImproperlyConfigured` for a subclass with an ``on_...`` or ``around_...`` method that is not a hook.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in vars(cls):
            if name.startswith(_PREFIXES) and name not in vars(Hooks):
                known = [hook for hook in _names() if hook.partition("_")[0] == name.partition("_")[0]]
                hint = did_you_mean(name, known, "there are")
                raise ImproperlyConfigured(f"{cls.__name__}.{name} is not a hook and would never be called; {hint}")

    def on_connect(self, consumer: Any) -> None:
        """A connection was accepted."""

    def on_disconnect(self, consumer: Any, code: int) -> None:
        """A connection ended with this close code, after ``disconnect()``. Called once for each accepted connection."""

    def around_action(self, consumer: Any, frame: Mapping[str, Any]) -> AbstractContextManager[object]:
        """Is open while a frame is answered, with its permissions and its commit, and for a stream until its end.

        ``frame`` is the client's JSON object, ``{}`` for a message that is none. `on_action` is called within. A frame
        that was answered 408 because its action does not end has two blocks: one that lasts until the action ends, and
        a short one for the reply, which has the `on_action`.
        """
        return nullcontext()

    def on_action(self, info: ActionInfo) -> None:
        """A frame was answered, with a success or an error. For a stream, called once, at its end."""

    def around_publish(self, topic: str, event: str) -> AbstractContextManager[Mapping[str, str] | None]:
        """Is open while an event is given to the layer, which raises ``LayerUnavailable`` if it cannot be reached.

        What ``__enter__`` returns is carried with the event to all processes. Clients see its ``traceparent`` alone.
        The topic of an event to one connection or user (``push()``, ``push_user()``) is ``"$push"``.
        """
        return nullcontext()

    def on_publish(self, topic: str, event: str) -> None:
        """An event was given to the layer."""

    def around_delivery(
        self, topic: str, event: str, carried: Mapping[str, str]
    ) -> AbstractContextManager[Mapping[str, str] | None]:
        """Is open while an event is sent to the subscribers of this process; ``carried`` is from `around_publish`.

        If ``__enter__`` returns a ``traceparent``, the subscribers get that one. The block may end before the last of
        many subscribers, or of those whose permissions are asked, got the event.
        """
        return nullcontext()

    def on_event(self, topic: str, event: str, recipients: int) -> None:
        """An event was delivered to the subscribers of this process; ``recipients`` is their number."""

    def on_unpublished(self, topic: str) -> None:
        """An event could not be published after its commit. Subscribers of the topic get a ``$resync`` once that is
        possible; the failure is logged too."""

    def on_layer_state(self, is_available: bool) -> None:
        """The layer delivers events to this process from now on, or no longer. The first call is False, at its start.

        It delivers once it has confirmed a subscription; a layer in memory therefore has to have a subscriber.
        """

    def on_limit(self, consumer: Any, limit: str, value: float) -> None:
        """A limit was reached; ``limit`` is its name in `wsaction.limits.Limits`, ``value`` its value."""


_PREFIXES = ("on_", "around_")


def _names() -> list[str]:
    return [name for name in vars(Hooks) if name.startswith(_PREFIXES)]


def nobody(limit: str, value: float) -> None:
    """Does nothing: the ``on_limit`` of a connection without such a hook."""


class HookList:
    """The `Hooks` of an app. `call` calls one method of all that override it, `around` enters what they return.

    Raises `ImproperlyConfigured` for items that are not instances of `Hooks`, for a hook that is ``async def``, and for
    a generator that is no context manager.
    """

    __slots__ = ("_by_name",)

    def __init__(self, hooks: Sequence[Hooks] = ()) -> None:
        names = _names()
        raw: Any = hooks
        if not isinstance(raw, Sequence) or not all(isinstance(item, Hooks) for item in raw):
            raise ImproperlyConfigured(f"hooks: expected a list of instances of Hooks, as in [Metrics()], got {raw!r}")
        for method in (getattr(hook, name) for hook in hooks for name in names):
            if iscoroutinefunction(method):
                raise ImproperlyConfigured(
                    f"{method.__qualname__} is a coroutine function, which is never awaited: expected a plain "
                    "function; write def, and start a task or fill a queue where the hook has to wait"
                )
            if isgeneratorfunction(method) or isasyncgenfunction(unwrap(method)):
                raise ImproperlyConfigured(
                    f"{method.__qualname__}: expected a function that returns a context manager, got a generator; "
                    "write def, and decorate it with contextlib.contextmanager"
                )
        self._by_name = {
            name: tuple(getattr(hook, name) for hook in hooks if getattr(type(hook), name) is not getattr(Hooks, name))
            for name in names
        }

    def has(self, *names: str) -> bool:
        """Whether any of the `Hooks` overrides one of these methods."""
        return any(self._by_name[name] for name in names)

    def call(self, name: str, *args: Any) -> None:
        """Calls the method of all `Hooks` that override it. Logs their exceptions and raises nothing."""
        for method in self._by_name[name]:
            try:
                method(*args)
            except Exception:
                _log_failure(method, name)

    def around(self, name: str, *args: Any) -> AbstractContextManager[dict[str, Any]]:
        """A block within the context managers of all `Hooks` that override the method.

        Its value is all that they carry. It logs the exceptions of the hooks, passes on those of the block, and raises
        nothing itself.
        """
        methods = self._by_name[name]
        return _Around(name, methods, args) if methods else nullcontext({})


class _Around:
    """The context managers of hooks, the first outermost."""

    __slots__ = ("_args", "_entered", "_methods", "_name")

    def __init__(self, name: str, methods: Sequence[Callable[..., Any]], args: tuple[Any, ...]) -> None:
        self._name = name
        self._methods = methods
        self._args = args
        self._entered: list[tuple[Callable[..., Any], AbstractContextManager[Any]]] = []

    def __enter__(self) -> dict[str, Any]:
        carried: dict[str, Any] = {}
        for method in self._methods:
            try:
                manager = method(*self._args)
                value = manager.__enter__()
                self._entered.append((method, manager))
                if isinstance(value, Mapping):
                    carried.update(value)
            except Exception:
                _log_failure(method, self._name)
        return carried

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for method, manager in reversed(self._entered):
            try:
                manager.__exit__(kind, exc, traceback)
            except Exception as raised:
                if raised is not exc:
                    _log_failure(method, self._name)


def _log_failure(method: Any, name: str) -> None:
    hook = f"{type(method.__self__).__name__}.{name}"
    logger.exception("the hook %s failed", hook, extra={"hook": hook})
