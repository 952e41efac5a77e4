"""`async_action`: makes a method an action."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, overload

from wsaction._handlers.action import FINAL_STATUS, OPTIONS_ATTRIBUTE, ActionOptions, is_final_status
from wsaction.exceptions import ImproperlyConfigured

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
    permission_classes: Sequence[Any] | None = None,
    throttle_classes: Sequence[Any] | None = None,
    status: int = 200,
    summary: str | None = None,
    detail: bool | None = None,
    streamed_by: str | None = None,
) -> Callable[[F], F]: ...


def async_action(function: F | None = None, /, **options: Any) -> F | Callable[[F], F]:
    """Makes a method an action of its handler; it stays an ordinary method.

    ``async def`` runs on the loop, ``def`` in a thread; an async generator is a stream, whose items are partial replies
    and which waits for no other frame. ``name``: what clients call it, by default the method's name.
    ``mode="none"``: silent on success; ``mode="broadcast"``: the answer is told to the consumer's group too, see
    `wsaction._dispatch.broadcasts`, with ``broadcast_type`` and ``send_response_in_broadcast``. ``timeout``: seconds
    that it may take, of a stream until its first item, instead of the limits' ``action_timeout``; ``math.inf`` for as
    long as it likes. ``ordered=False``: does not wait for other frames of its route. ``permission_classes``,
    ``throttle_classes``: asked instead of the handler's own, for this action. ``status``: of the reply when the method
    returns none itself. ``summary``: one line for the documentation, by default the docstring's first. ``detail``:
    whether it belongs to one object's route or the list's, for `wsaction.routers.SimpleRouter`. ``streamed_by``: the
    name of the method, an async generator, that answers in its place where the frame says ``"stream": true``; a
    subclass that overrides the action alone has no stream.

    Raises `ImproperlyConfigured` for an option that is unknown or cannot be; the signature is read when the class is
    made.

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
            "@async_action(broadcast_type=..., send_response_in_broadcast=...) count with mode='broadcast' only"
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
    if not is_final_status(parsed.status):
        raise ImproperlyConfigured(f"@async_action(status={parsed.status!r}): {FINAL_STATUS}")
    return parsed
