"""`Depends`: what is made for an action before it runs: a session, the board that it works on, common parameters.

::

    async def get_board(pk: int, handler) -> Board: ...

    class Boards(AsyncAPIActionHandler):
        @async_action
        async def rename(self, board: Annotated[Board, Depends(get_board)], title: str) -> Board: ...

A dependency's own parameters are filled by name: ``scope``, ``handler`` and ``user`` with what the frame is answered
by; ``action``, ``route`` and ``request_id`` with the protocol's own; those marked with `Depends` with other
dependencies; all others like an action's, from the route's captures, then from the frame's keys, validated by
annotation. All of them are validated before the first dependency runs. A coroutine function is awaited and a class
made on the loop; any other function runs in one of the app's bounded threads, since it may block. A pydantic model is
what validates its fields' keys.

One that yields is finished after the action, last first, before the reply is sent, so that an error in its end is the
reply. It sees the error of the action, a cancellation too, where it yielded; it may raise another one, but cannot
turn an error into a success. A stream's dependencies are finished when it ends.

They are read once, when the class is made, into `Step`s in the order in which they run.
"""

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import ValidationError

from wsaction._handlers.parameters import EMPTY, PROTOCOL_KEYS, Input, Parameter, copy_default, fill, missing_error
from wsaction._protocol.frames import Frame
from wsaction._utils.threads import Threads
from wsaction.exceptions import ImproperlyConfigured, validation_items
from wsaction.transactions import drop_failed

if TYPE_CHECKING:
    from wsaction.handlers import AsyncAPIActionHandler

__all__ = ("GIVEN", "Dependencies", "Depends", "Kind", "ModelStep", "Step", "name_of")

Kind: TypeAlias = Literal["coroutine", "function", "class", "async generator", "generator"]


@dataclass(frozen=True, slots=True, eq=False)
class Depends:
    """Marks a parameter that ``fn`` makes: ``Annotated[Board, Depends(get_board)]``.

    Without ``fn``, what is annotated makes itself: ``Annotated[Page, Depends()]`` is ``Page(...)``. Within an action
    the same ``fn`` runs once, and all who ask for it share the value; ``use_cache=False`` makes one for this parameter
    alone. Raises `ImproperlyConfigured` for what cannot be called.
    """

    fn: Callable[..., Any] | None = None
    use_cache: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        if self.fn is not None and not callable(self.fn):
            raise ImproperlyConfigured(
                f"Depends takes the function itself, as in Depends(get_session), not {self.fn!r}"
            )

    def __repr__(self) -> str:
        return f"Depends({'' if self.fn is None else name_of(self.fn)})"


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One call of a dependency."""

    function: Callable[..., Any]
    kind: Kind
    parameters: tuple[Parameter, ...]
    given: tuple[str, ...]  # of its parameters, those that the framework fills
    needs: tuple[tuple[str, int], ...]  # those that earlier steps make, and the numbers of these

    def bind_frame(self, frame: Frame, errors: list[dict[str, Any]]) -> dict[str, Any]:
        """The keyword arguments from the captures, the frame and the defaults."""
        captures, body, bound = frame.call.captures, frame.body, dict[str, Any]()
        for name, validate, plain, default in self.parameters:
            values = captures if name in captures else body
            if name in values:
                bound[name] = values[name]
                if validate is not None and type(bound[name]) is not plain:
                    fill(bound, name, bound[name], validate, errors)
            elif default is not EMPTY:
                bound[name] = copy_default(default)
            else:
                errors.append(missing_error(name))
        return bound

    async def run(self, bound: dict[str, Any], stack: AsyncExitStack, threads: Threads, finishes: bool) -> Any:
        """The value. A generator's clean-up is put on the stack. ``finishes``: what is bound may be cleaned up once the
        action is done, so that a thread has to have ended by then."""
        if self.kind == "coroutine":
            return await self.function(**bound)
        if self.kind == "function":
            return await (threads.run_to_end if finishes else threads.run)(self.function, **bound)
        if self.kind == "async generator":
            return await _enter(stack, self.function(**bound))
        if self.kind == "generator":
            return await _enter(stack, threads.managed(self.function(**bound)))
        return self.function(**bound)


@dataclass(frozen=True, slots=True, eq=False)
class ModelStep:
    """A pydantic model as a dependency: validated as a whole, so that all that it says of its fields counts."""

    keys: tuple[str, ...]  # of the frame and the captures, by its fields' names and aliases
    validate: Callable[[Any], Any]
    given: tuple[str, ...] = ()
    needs: tuple[tuple[str, int], ...] = ()
    kind: Literal["model"] = "model"

    def bind_frame(self, frame: Frame, errors: list[dict[str, Any]]) -> dict[str, Any]:
        """The model as ``model``."""
        captures, body = frame.call.captures, frame.body
        values = {
            key: captures[key] if key in captures else body[key] for key in self.keys if key in captures or key in body
        }
        try:
            return {"model": self.validate(values)}
        except ValidationError as exc:
            errors += validation_items(exc)
            return {}

    async def run(self, bound: dict[str, Any], stack: AsyncExitStack, threads: Threads, finishes: bool) -> Any:
        """The model."""
        return bound["model"]


@dataclass(frozen=True, slots=True, eq=False)
class Dependencies:
    """All that an action's dependencies take, in the order in which they run."""

    where: str
    roots: tuple[tuple[str, Depends], ...]  # the action's parameters
    steps: tuple[Step | ModelStep, ...]
    numbers: tuple[int, ...]  # of the steps that make the roots
    inputs: tuple[Input, ...]  # that clients send
    finishes: bool  # whether some have to be finished: threads that may use them are waited for

    def bind_frame(self, frame: Frame, errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The arguments of the steps from the route and the frame; adds an error for each that is missing or wrong."""
        return [step.bind_frame(frame, errors) for step in self.steps]

    async def resolve(
        self,
        bound: list[dict[str, Any]],
        frame: Frame,
        handler: "AsyncAPIActionHandler",
        stack: AsyncExitStack,
        threads: Threads,
    ) -> dict[str, Any]:
        """Runs the steps and returns their values for the action, by parameter. The stack cleans them up."""
        values: list[Any] = []
        for step, keywords in zip(self.steps, bound, strict=True):
            for name in step.given:
                keywords[name] = getattr(frame, name) if name in PROTOCOL_KEYS else GIVEN[name](handler)
            for name, number in step.needs:
                keywords[name] = values[number]
            values.append(await step.run(keywords, stack, threads, self.finishes))
        return {name: values[number] for (name, _), number in zip(self.roots, self.numbers, strict=True)}


GIVEN: Mapping[str, Callable[[Any], Any]] = {
    "scope": lambda handler: handler.scope,
    "handler": lambda handler: handler,
    "user": lambda handler: handler.user,
}


async def _enter(stack: AsyncExitStack, manager: AbstractAsyncContextManager[Any]) -> Any:
    async def leave(*exc_info: Any) -> bool:
        if exc_info[0] is not None:
            await drop_failed()
        await manager.__aexit__(*exc_info)
        return False  # an error stays one, whatever the generator made of it

    value = await manager.__aenter__()
    stack.push_async_exit(leave)
    return value


def name_of(function: Any) -> str:
    """The name of a dependency in errors."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(function).__name__
