"""`awaited`: an async method that does nothing unless it is awaited, and says so.

A forgotten ``await`` loses a change without an error: Python only warns when it drops the coroutine, and the client
gets a success. A method with this decorator fails the frame whose action dropped the call.
"""

import logging
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from weakref import ref

from wsaction._protocol.frames import Dropped, Frame, connecting_frame, current_frame
from wsaction.exceptions import one_line

logger = logging.getLogger("wsaction")

P = ParamSpec("P")
T = TypeVar("T")


F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])  # kept whole: type checkers differ in what it returns


def awaited(function: F) -> F:
    """Makes a frame fail whose action calls this coroutine function and drops the coroutine before it ran.

    Outside of a frame, and once the frame is answered, the log has an error instead.

    >>> @awaited
    ... async def publish(self, event, data): ...
    """

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        pending = _Pending(function.__qualname__, current_frame.get() or connecting_frame.get())
        coroutine = pending.run(function, *args, **kwargs)
        coroutine.__qualname__ = function.__qualname__  # type: ignore[attr-defined]  # for Python's own warning
        pending.dropped = ref(coroutine, pending.on_end)
        return coroutine

    return call  # type: ignore[return-value]


class _Pending:
    """A call that has not begun. The coroutine holds it, and its weak reference notices the coroutine's end."""

    __slots__ = ("_frame", "_has_begun", "_name", "dropped")
    dropped: object

    def __init__(self, name: str, frame: Frame | None) -> None:
        self._name = name
        self._frame = frame
        self._has_begun = False

    async def run(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        self._has_begun = True
        self._frame = None  # a long call must not keep its frame alive
        return await function(*args, **kwargs)

    def on_end(self, _: object) -> None:
        """The coroutine is being deleted."""
        if self._has_begun:
            return
        frame = self._frame
        error = Dropped(_caller(frame), self._name)
        if frame is None or frame.status is not None:  # nobody waits for a reply any more
            logger.error("%s", error)
        elif frame.error is None:
            frame.fail(error)


def _caller(frame: Frame | None) -> str:
    """The handler and the action of a frame, for messages."""
    call = getattr(frame, "call", None)
    if frame is None or call is None:
        return "code outside of an action"
    return one_line(f"{call.mounted.handler_class.__name__}.{frame.action or 'connect'}")
