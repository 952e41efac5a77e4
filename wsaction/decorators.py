"""`async_action`: makes a method an action."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, overload

from wsaction.actions import FINAL_STATUS, OPTIONS_ATTRIBUTE, ActionOptions, is_final_status
from wsaction.exceptions import ImproperlyConfigured

__all__ = ("async_action",)

F = TypeVar("F", bound=Callable[..., Any])


@overload
def async_action(function: F, /) -> F: ...


@overload
def async_action(
    *,
    name: str | None = None,
    mode: Literal["response", "none"] = "response",
    ordered: bool = True,
    permission_classes: Sequence[Any] | None = None,
    throttle_classes: Sequence[Any] | None = None,
    status: int = 200,
    summary: str | None = None,
) -> Callable[[F], F]: ...


def async_action(function: F | None = None, /, **options: Any) -> F | Callable[[F], F]:
    """Makes a method an action of its handler; it stays an ordinary method.

    ``async def`` runs on the loop, ``def`` in a thread; an async generator is a stream, whose items are partial replies
    and which waits for no other frame. ``name``: what clients call it, by default the method's name.
    ``mode="none"``: silent on success. ``ordered=False``: does not wait for other frames of its route.
    ``permission_classes``, ``throttle_classes``: asked instead of the handler's own, for this action. ``status``: of
    the reply when the method returns none itself. ``summary``: one line for the documentation, by default the
    docstring's first.

    Raises `ImproperlyConfigured` for an option that is unknown or cannot be; the signature is read when the class is
    made.

    >>> @async_action(status=201)
    ... async def create(self, data: CardIn) -> Card: ...
    """
    if isinstance(function, staticmethod | classmethod):
        raise ImproperlyConfigured(f"@async_action takes a method with self; leave out @{type(function).__name__}")
    if function is not None and not callable(function):
        raise ImproperlyConfigured(f"@async_action takes its options by name, as in @async_action(name={function!r})")
    told = _options(options)

    def mark(function: F) -> F:
        setattr(function, OPTIONS_ATTRIBUTE, told)
        return function

    return mark if function is None else mark(function)


def _options(options: dict[str, Any]) -> ActionOptions:
    try:
        told = ActionOptions(**options)
    except TypeError:
        known = ", ".join(ActionOptions.__slots__)
        unknown = ", ".join(sorted(set(options) - set(ActionOptions.__slots__)))
        raise ImproperlyConfigured(f"@async_action has no option {unknown}; it has {known}") from None
    if told.mode not in ("response", "none"):
        raise ImproperlyConfigured(
            f"@async_action(mode=...) is 'response' or 'none' in this version, not {told.mode!r}"
        )
    if not is_final_status(told.status):
        raise ImproperlyConfigured(f"@async_action(status={told.status!r}): {FINAL_STATUS}")
    return told
