"""Hooks: callbacks for metrics, logs and traces.

``_dispatch.hooks`` calls ``on_action``, ``_server.lifecycle`` calls ``on_connect`` and ``on_disconnect``,
``_pubsub.topic`` ``on_event``, ``_pubsub.hub`` ``on_unpublished``, and each connection and ``_dispatch.session``
``on_limit``. To add a hook, declare it in `Hooks` and call ``hooks.call("on_...", ...)`` where it happens.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any

from wsaction._utils.hints import did_you_mean
from wsaction.routing.exceptions import ImproperlyConfigured

__all__ = ("ActionInfo", "HookList", "Hooks", "nobody")

logger = logging.getLogger("wsaction")


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionInfo:
    """One frame and how it was answered: the argument of `Hooks.on_action`.

    ``handler`` is the name of a handler class, ``action`` that of an action that it declares; each is None if the frame
    found none. So they have few values and can be labels of a metric. ``route`` is the client's text and can be
    anything. ``status`` is that of the final reply, even if no reply is sent. ``seconds`` is the time since the frame
    was read, or since it left the queue.
    """

    consumer: Any
    handler: str | None
    action: str | None
    route: str
    request_id: str | int | None
    status: int
    seconds: float


class Hooks:
    """Base class for hooks. Override some methods and pass an instance: ``WSAction(routes, hooks=[Metrics()])``.

    Hooks are plain functions that run on the event loop, so they must be quick. An exception in a hook is logged and
    changes nothing else. A method that is not overridden costs nothing.

    >>> class Metrics(Hooks):
    ...     def on_action(self, info):
    ...         SECONDS.labels(info.handler, info.action, info.status).observe(info.seconds)

    Raises `ImproperlyConfigured` for a subclass with an ``on_...`` method that is not a hook.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        known = [name for name in vars(Hooks) if name.startswith("on_")]
        for name in vars(cls):
            if name.startswith("on_") and name not in known:
                hint = did_you_mean(name, known, "there are")
                raise ImproperlyConfigured(f"{cls.__name__}.{name} is not a hook and would never be called; {hint}")

    def on_connect(self, consumer: Any) -> None:
        """A connection was accepted."""

    def on_disconnect(self, consumer: Any, code: int) -> None:
        """A connection ended with this close code, after ``disconnect()``. Called once for each accepted connection."""

    def on_action(self, info: ActionInfo) -> None:
        """A frame was answered, with a success or an error. For a stream, called once, at its end."""

    def on_event(self, topic: str, event: str, recipients: int) -> None:
        """An event was delivered to the subscribers of this process; ``recipients`` is their number."""

    def on_unpublished(self, topic: str) -> None:
        """An event could not be published after its commit. Subscribers of the topic get a ``$resync`` once that is
        possible; the failure is logged too."""

    def on_limit(self, consumer: Any, limit: str, value: float) -> None:
        """A limit was reached; ``limit`` is its name in `wsaction.limits.Limits`, ``value`` its value."""


def nobody(limit: str, value: float) -> None:
    """Does nothing: the ``on_limit`` of a connection without such a hook."""


class HookList:
    """The `Hooks` of an app. `call` calls one method of all that override it.

    Raises `ImproperlyConfigured` for items that are not instances of `Hooks`, and for a hook that is ``async def``.
    """

    __slots__ = ("_by_name",)

    def __init__(self, hooks: Sequence[Hooks] = ()) -> None:
        names = [name for name in vars(Hooks) if name.startswith("on_")]
        raw: Any = hooks
        if not isinstance(raw, Sequence) or not all(isinstance(item, Hooks) for item in raw):
            raise ImproperlyConfigured(f"hooks: expected a list of instances of Hooks, as in [Metrics()], got {raw!r}")
        for method in (getattr(hook, name) for hook in hooks for name in names):
            if iscoroutinefunction(method):
                raise ImproperlyConfigured(
                    f"{method.__qualname__} is a coroutine function, which is never awaited: expected a plain "
                    "function; write def, and start a task or fill a queue where the hook has to wait"
                )
        self._by_name = {
            name: tuple(getattr(hook, name) for hook in hooks if getattr(type(hook), name) is not getattr(Hooks, name))
            for name in names
        }

    def has(self, name: str) -> bool:
        """Whether any of the `Hooks` overrides this method."""
        return bool(self._by_name[name])

    def call(self, name: str, *args: Any) -> None:
        """Calls the method of all `Hooks` that override it. Logs their exceptions and raises nothing."""
        for method in self._by_name[name]:
            try:
                method(*args)
            except Exception:
                logger.exception("the hook %s.%s failed", type(method.__self__).__name__, name)
