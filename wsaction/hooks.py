"""Hooks: what an app tells those who count, measure and trace."""

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
    """One frame that was answered.

    ``handler`` and ``action`` are the names of a class and of an action that it declares, or None where the frame found
    none, so that there are few of them and they are fit to be labels. ``route`` is what the client wrote. ``status`` is
    that of the final reply, sent or not; ``seconds`` passed since the frame was read, or since its turn came.
    """

    consumer: Any
    handler: str | None
    action: str | None
    route: str
    request_id: str | int | None
    status: int
    seconds: float


class Hooks:
    """Override what you want to know of, and give an instance to the app: ``WSAction(routes, hooks=[Metrics()])``.

    Hooks are plain functions, called on the event loop in the midst of the work: they must be quick. What one raises is
    logged, and changes nothing. One that is not overridden costs nothing.

    >>> class Metrics(Hooks):
    ...     def on_action(self, info):
    ...         SECONDS.labels(info.handler, info.action, info.status).observe(info.seconds)

    Raises `ImproperlyConfigured` for a subclass with an ``on_...`` method that is none of these.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        known = [name for name in vars(Hooks) if name.startswith("on_")]
        for name in vars(cls):
            if name.startswith("on_") and name not in known:
                hint = did_you_mean(name, known, "there are")
                raise ImproperlyConfigured(f"{cls.__name__}.{name} is no hook, and would never be called; {hint}")

    def on_connect(self, consumer: Any) -> None:
        """A connection was accepted."""

    def on_disconnect(self, consumer: Any, code: int) -> None:
        """It has ended, with this close code; ``disconnect()`` has run. Of one that was accepted, exactly once."""

    def on_action(self, info: ActionInfo) -> None:
        """A frame was answered, be it with an error. A stream is told of once, when it has ended."""

    def on_event(self, topic: str, event: str, recipients: int) -> None:
        """An event was handed to so many subscribers of this process."""

    def on_unpublished(self, topic: str) -> None:
        """What was changed could not be told: its event failed after the commit. All who are subscribed to the topic
        are told to load again once that can be done; it is logged too."""

    def on_limit(self, consumer: Any, limit: str, value: float) -> None:
        """A bound of `wsaction.limits.Limits` was reached: by its name, with its value."""


def nobody(limit: str, value: float) -> None:
    """Whom a connection tells of a bound that was reached, where no hook wants to know."""


class HookList:
    """Calls the same hook of several `Hooks`; of those only that override it.

    Raises `ImproperlyConfigured` for what are no `Hooks`, and for a hook that would have to be awaited.
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
                    f"{method.__qualname__} is a coroutine function, which nobody would await: expected a plain "
                    "function; write def, and let it start a task or fill a queue where something has to be awaited"
                )
        self._by_name = {
            name: tuple(getattr(hook, name) for hook in hooks if getattr(type(hook), name) is not getattr(Hooks, name))
            for name in names
        }

    def has(self, name: str) -> bool:
        """Whether anybody wants to be told."""
        return bool(self._by_name[name])

    def call(self, name: str, *args: Any) -> None:
        """Tells all who want to know. Raises nothing."""
        for method in self._by_name[name]:
            try:
                method(*args)
            except Exception:
                logger.exception("the hook %s.%s failed", type(method.__self__).__name__, name)
