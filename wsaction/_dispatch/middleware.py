"""Middleware and exception handlers of an app."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from wsaction._utils.bytecode import returns_nothing
from wsaction.exceptions import APIError, ImproperlyConfigured
from wsaction.transactions import roll_back_failed

if TYPE_CHECKING:
    from wsaction.handlers import AsyncAPIActionHandler

CallNext: TypeAlias = Callable[[Any], Awaitable[Any]]
"""``await call_next(handler)`` runs the next middleware, or the action, and returns its result.

Middleware that calls it without ``await`` is a ``RuntimeError``; middleware that does not call it answers itself. If
the call fails, its changes and subscriptions are dropped, whether the middleware calls it again, answers or raises.
"""

Middleware: TypeAlias = Callable[[Any, CallNext], Awaitable[Any]]
"""``async def mw(handler, call_next)``; it returns the action's result, or another one."""

ExceptionHandler: TypeAlias = Callable[[Any, Any], Any]
"""``(handler, exc) -> APIError``, sync or async."""


def check_middleware(middleware: Sequence[Middleware]) -> tuple[Middleware, ...]:
    """The same as a tuple. Raises `ImproperlyConfigured` for an entry that cannot be called with two arguments."""
    if not isinstance(middleware, Sequence):
        raise ImproperlyConfigured(f"middleware: expected a list of functions, as in [timing], got {middleware!r}")
    function: Any
    for function in middleware:
        if isinstance(function, type) or not callable(function) or not _takes_two_arguments(function):
            raise ImproperlyConfigured(
                f"middleware: expected functions like `async def mw(handler, call_next)`, got {function!r}"
            )
        if returns_nothing(function):
            raise ImproperlyConfigured(
                f"middleware: {function.__name__} returns nothing, so that all replies would have no data; end it "
                "with return await call_next(handler)"
            )
    return tuple(middleware)


def check_exception_handlers(
    handlers: Mapping[type[BaseException], ExceptionHandler] | None,
) -> Mapping[type[BaseException], ExceptionHandler]:
    """A copy. Raises `ImproperlyConfigured` for a key that is no exception class, or a value that is no handler."""
    cls: Any
    handler: Any
    for cls, handler in (handlers or {}).items():
        if not (isinstance(cls, type) and issubclass(cls, Exception)):
            raise ImproperlyConfigured(f"exception_handlers: expected subclasses of Exception as keys, got {cls!r}")
        if not callable(handler) or not _takes_two_arguments(handler):
            raise ImproperlyConfigured(
                f"exception_handlers[{cls.__name__}]: expected a function like `def handle(handler, exc)` that returns "
                f"an APIError, got {handler!r}"
            )
    return dict(handlers or {})


def wrap(middleware: Sequence[Middleware], innermost: CallNext) -> CallNext:
    """A function that runs the middleware, the first outermost, around ``innermost``."""
    call = _rolling_back(innermost)
    for function in reversed(middleware):
        call = _rolling_back(_wrap_one(function, call))
    return call


def _rolling_back(inner: CallNext) -> CallNext:
    """The same, which drops its changes if it fails; for middleware too, as an outer one may run it again."""

    async def call(handler: "AsyncAPIActionHandler") -> Any:
        try:
            return await inner(handler)
        except BaseException:
            await roll_back_failed()
            raise

    return call


def _wrap_one(function: Middleware, call_next: CallNext) -> CallNext:
    async def call(handler: "AsyncAPIActionHandler") -> Any:
        calls: list[Any] = []

        def recorded_call_next(handler: "AsyncAPIActionHandler") -> Any:
            calls.append(call_next(handler))
            return calls[-1]

        result = await function(handler, recorded_call_next)
        for coroutine in calls:
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                coroutine.close()  # Python's own warning would say the same
                raise RuntimeError(
                    f"the middleware {getattr(function, '__qualname__', type(function).__qualname__)} called "
                    "call_next() and did not await it, so that the action never ran; write return await "
                    "call_next(handler)"
                )
        return result

    return call


async def handle_exception(
    handlers: Mapping[type[BaseException], ExceptionHandler], handler: "AsyncAPIActionHandler", exc: BaseException
) -> BaseException:
    """The error that the handler for the exception's nearest class returns; the exception itself if there is none.

    Raises ``TypeError`` if the handler returns no `APIError`.
    """
    for cls in type(exc).__mro__:
        if (handle := handlers.get(cls)) is not None:
            break
    else:
        return exc
    error = handle(handler, exc)
    if inspect.isawaitable(error):
        error = await error
    if not isinstance(error, APIError):
        raise TypeError(
            f"the exception handler for {cls.__name__} returned {error!r}; it is to return an APIError"
        ) from exc
    return error


def _takes_two_arguments(function: Any) -> bool:
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # it has no signature that can be read
        return True
    return True
