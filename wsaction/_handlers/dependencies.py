"""Dependency injection: `Depends` marks a parameter of an action whose value a function makes before the action runs.

::

    async def get_board(pk: int, handler) -> Board: ...

    class Boards(AsyncAPIActionHandler):
        @async_action
        async def rename(self, board: Annotated[Board, Depends(get_board)], title: str) -> Board: ...

The parameters of a dependency are filled by name, as those of an action are: from the route's captures, then from the
frame's keys, validated by annotation. A few names are special:

* ``scope``, ``handler`` and ``user`` are those of the handler that answers the frame;
* ``action``, ``route`` and ``request_id`` are those of the frame;
* parameters marked with `Depends` are other dependencies.

All parameters are validated before the first dependency runs. A coroutine function is awaited, and a class is
instantiated on the event loop. Any other function may block, so it runs in one of the app's threads. A pydantic model
validates the keys that its fields name.

After the action, generators continue after their ``yield``, the last one first. The reply is sent after that, so an
error there becomes the reply. An error or cancellation of the action is raised at the ``yield``. The generator may
raise another error, but it cannot turn an error into a success. The generators of a stream continue when it ends.

Dependencies are read once, when the class is created, into `Step`s in the order in which they run.
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
from wsaction.transactions import roll_back_failed

if TYPE_CHECKING:
    from wsaction.handlers import AsyncAPIActionHandler

Kind: TypeAlias = Literal["coroutine", "function", "class", "async generator", "generator"]


@dataclass(frozen=True, slots=True, eq=False)
class Depends:
    """Marks a parameter of an action, or of another dependency, whose value a function makes.

    :param fn: A function, generator function, class or other callable that returns or yields the value. Without it, the
        annotated class is used: ``Annotated[Page, Depends()]`` gets ``Page(...)``.
    :param use_cache: Whether the parameter shares its value with all other parameters of the same call that have the
        same ``fn``, which then runs once.
    :raises ImproperlyConfigured: if ``fn`` is not callable.

    >>> async def rename(self, board: Annotated[Board, Depends(get_board)], title: str) -> Board: ...
    """

    fn: Callable[..., Any] | None = None
    use_cache: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        if self.fn is not None and not callable(self.fn):
            raise ImproperlyConfigured(
                f"Depends: expected the function itself, as in Depends(get_session), got {self.fn!r}"
            )

    def __repr__(self) -> str:
        return f"Depends({'' if self.fn is None else name_of(self.fn)})"


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A call of a dependency."""

    function: Callable[..., Any]
    kind: Kind
    parameters: tuple[Parameter, ...]
    given: tuple[str, ...]  # parameters that the framework fills
    needs: tuple[tuple[str, int], ...]  # parameters that earlier steps make, with the numbers of these

    def bind_frame(self, frame: Frame, errors: list[dict[str, Any]]) -> dict[str, Any]:
        """The keyword arguments from the captures, the frame and the defaults; adds to ``errors``."""
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
        """Makes the value. A generator's clean-up is pushed on the stack.

        ``finishes``: whether the arguments may be cleaned up after the action, so that a thread must end before that.
        """
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
    """A pydantic model as a dependency. It is validated as a whole, so that all settings of its fields apply."""

    keys: tuple[str, ...]  # the names and aliases of its fields, looked up in the captures and the frame
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
    """The dependencies of an action, in the order in which they run."""

    where: str
    roots: tuple[tuple[str, Depends], ...]  # the marked parameters of the action
    steps: tuple[Step | ModelStep, ...]
    numbers: tuple[int, ...]  # the numbers of the steps that make the roots
    inputs: tuple[Input, ...]  # what clients send for them
    finishes: bool  # whether any is a generator, so that threads which may use its value must end before its clean-up

    def bind_frame(self, frame: Frame, errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The arguments of the steps from the route and the frame; adds an error for each missing or invalid one."""
        return [step.bind_frame(frame, errors) for step in self.steps]

    async def resolve(
        self,
        bound: list[dict[str, Any]],
        frame: Frame,
        handler: "AsyncAPIActionHandler",
        stack: AsyncExitStack,
        threads: Threads,
    ) -> dict[str, Any]:
        """Runs the steps and returns the values for the action by parameter. The stack cleans them up."""
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
            await roll_back_failed()
        await manager.__aexit__(*exc_info)
        return False  # the error of the action stays, even if the generator suppressed it

    value = await manager.__aenter__()
    stack.push_async_exit(leave)
    return value


def name_of(function: Any) -> str:
    """The name of a dependency in error messages."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(function).__name__
