"""The `async_action` decorator, which makes a method an action that clients can call."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, overload

from wsaction._handlers.action import FINAL_STATUS, OPTIONS_ATTRIBUTE, ActionOptions, is_final_status
from wsaction.exceptions import ImproperlyConfigured
from wsaction.permissions._classes import Permission
from wsaction.throttling import BaseThrottle

__all__ = ("async_action",)

F = TypeVar("F", bound=Callable[..., Any])


@overload
def async_action(function: F, /) -> F: ...


@overload
def async_action(
    *,
    name: str | None = None,
    mode: Literal["response", "broadcast", "none"] = "response",
    broadcast_type: str | None = None,
    send_response_in_broadcast: bool = True,
    timeout: float | None = None,
    ordered: bool = True,
    permission_classes: Sequence[Permission] | None = None,
    throttle_classes: Sequence[type[BaseThrottle] | BaseThrottle] | None = None,
    status: int = 200,
    summary: str | None = None,
    detail: bool | None = None,
    streamed_by: str | None = None,
    destructive: bool | None = None,
) -> Callable[[F], F]: ...


def async_action(function: F | None = None, /, **options: Any) -> F | Callable[[F], F]:
    """Makes a method an action of its handler. It can still be called as a method.

    ``async def`` runs on the event loop, ``def`` in a thread. An async generator is a stream: each item is a partial
    reply, and it does not wait for other frames.

    * ``name``: the name that clients call; by default the method's name.
    * ``mode``: ``"none"`` sends no reply on success. ``"broadcast"`` also sends the result to the consumer's group.
    * ``broadcast_type``: in broadcast mode, calls this method of each consumer in the group, with dots for underscores,
      instead of sending the result to its client.
    * ``send_response_in_broadcast``: in broadcast mode, whether the caller also gets a reply.
    * ``timeout``: seconds for the action, or for the first item of a stream, instead of the limits' ``action_timeout``;
      ``math.inf`` for no timeout.
    * ``ordered``: if False, the action does not wait for earlier frames of its route.
    * ``permission_classes``, ``throttle_classes``: replace those of the handler for this action.
    * ``status``: the reply's status, unless the method returns one.
    * ``summary``: one line for the documentation; by default the first line of the docstring.
    * ``detail``: whether `wsaction.routers.SimpleRouter` adds the action to the detail route or to the list route.
    * ``streamed_by``: the name of an async generator method that answers instead if the frame has ``"stream": true``.
      A subclass that overrides only the action has no stream.
    * ``destructive``: whether the action destroys what cannot be brought back; the explorer marks such actions. By
      default, ``destroy`` and ``delete`` do.

    Raises `ImproperlyConfigured` for an unknown or invalid option. The signature is read when the class is created.

    >>> @async_action(status=201)
    ... async def create(self, data: CardIn) -> Card: ...
    """
    if isinstance(function, staticmethod | classmethod):
        raise ImproperlyConfigured(f"@async_action takes a method with self; leave out @{type(function).__name__}")
    if function is not None and not callable(function):
        raise ImproperlyConfigured(f"@async_action takes its options by name, as in @async_action(name={function!r})")
    action_options = _options(options)

    def mark(function: F) -> F:
        setattr(function, OPTIONS_ATTRIBUTE, action_options)
        return function

    return mark if function is None else mark(function)


def _options(options: dict[str, Any]) -> ActionOptions:
    try:
        parsed = ActionOptions(**options)
    except TypeError:
        known = ", ".join(ActionOptions.__slots__)
        unknown = ", ".join(sorted(set(options) - set(ActionOptions.__slots__)))
        raise ImproperlyConfigured(f"@async_action has no option {unknown}; it has {known}") from None
    if parsed.mode not in ("response", "broadcast", "none"):
        raise ImproperlyConfigured(f"@async_action(mode=...) is 'response', 'broadcast' or 'none', not {parsed.mode!r}")
    kind: Any = parsed.broadcast_type
    if kind is not None and not (isinstance(kind, str) and kind.replace(".", "_").isidentifier() and kind[0] != "_"):
        raise ImproperlyConfigured(
            f"@async_action(broadcast_type={kind!r}) names a method of the consumer, with dots for underscores, as in "
            "'card.moved'"
        )
    if parsed.mode != "broadcast" and (kind is not None or parsed.send_response_in_broadcast is not True):
        raise ImproperlyConfigured(
            "@async_action(broadcast_type=..., send_response_in_broadcast=...) need mode='broadcast'"
        )
    timeout: Any = parsed.timeout
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0):
        raise ImproperlyConfigured(
            f"@async_action(timeout={timeout!r}): expected seconds above 0, math.inf for no timeout, or None for the "
            "limits' action_timeout"
        )
    if parsed.detail not in (None, True, False):
        raise ImproperlyConfigured(
            "@async_action(detail=...) is True for an action of one object, False for one of the list, "
            f"not {parsed.detail!r}"
        )
    if parsed.destructive not in (None, True, False):
        raise ImproperlyConfigured(
            "@async_action(destructive=...): expected True, False, or None to decide by the name, got "
            f"{parsed.destructive!r}"
        )
    if not is_final_status(parsed.status):
        raise ImproperlyConfigured(f"@async_action(status={parsed.status!r}): {FINAL_STATUS}")
    return parsed
