"""Actions: what a handler declares, ready to be called with a frame.

An `Action` fills its function's parameters, first from a route's captures (`bind_captures`), then from a frame
(`bind_frame`), and writes what the function returned (`write`). Nothing is inspected at run time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from uuid import UUID

from pydantic import ValidationError

from wsaction._handlers.dependencies import Dependencies
from wsaction._handlers.parameters import EMPTY, Input, Parameter, copy_default, fill, missing_error
from wsaction._protocol.frames import Frame
from wsaction.exceptions import InvalidParameters
from wsaction.serializers._models import fast_validate

if TYPE_CHECKING:
    from wsaction.handlers import AsyncAPIActionHandler

__all__ = ("FINAL_STATUS", "Action", "ActionOptions", "Binding", "Written", "is_final_status")

Start: TypeAlias = Callable[[Any, Frame], Any]  # calls an action's function with a handler, for a frame

OPTIONS_ATTRIBUTE = "_wsaction_options"  # where `decorators.async_action` leaves its options


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ActionOptions:
    """The options of `async_action`. ``name`` None: the method's own; ``timeout`` None: that of the limits."""

    name: str | None = None
    mode: Literal["response", "broadcast", "none"] = "response"
    timeout: float | None = None
    ordered: bool = True
    permission_classes: Sequence[Any] | None = None
    throttle_classes: Sequence[Any] | None = None
    status: int = 200
    summary: str | None = None
    detail: bool | None = None
    streamed_by: str | None = None
    broadcast_type: str | None = None
    send_response_in_broadcast: bool = True


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Action:
    """A declared action: its function, its parameters, its output, its options."""

    name: str
    function: Callable[..., Any]
    plain: bool  # a coroutine function without ``*args`` and dependencies, whose answer is no broadcast
    threaded: bool  # a sync function: runs in a thread
    streams: bool  # an async generator: each item is a partial reply
    parameters: tuple[Parameter, ...]
    dependencies: Dependencies | None  # these make its other parameters
    own_inputs: tuple[Input, ...]  # `parameters`, as clients see them
    by_position: tuple[str, ...] | None  # all of these in the function's order, if it can be called by position
    protocol: tuple[str, ...]  # of its parameters, those that mean the protocol's own
    takes_args: bool
    before_args: tuple[str, ...]  # parameters that ``*args`` stands behind
    filled_by_args: tuple[str, ...]  # parameters that unnamed captures fill, in turn
    takes_kwargs: bool
    reserved: frozenset[str]  # keys that ``**kwargs`` does not take from captures or frame
    status: int  # of the reply, unless the function returns one
    returns_status: bool | None  # (value, status); None: if the result looks like that
    returns: Any  # the annotation of its value, or of a stream's items; without the status
    write: Callable[[Any], str]  # the value as JSON
    silent: bool  # on success
    options: ActionOptions
    streamed: "Action | None" = None  # runs instead if the frame has ``"stream": true``

    @property
    def inputs(self) -> tuple[Input, ...]:
        """All that clients send for it, each name once, or once for each if its dependencies disagree on it."""
        inputs = (*self.own_inputs, *(() if self.dependencies is None else self.dependencies.inputs))
        return tuple(field for index, field in enumerate(inputs) if field not in inputs[:index])

    def bind_captures(self, args: tuple[Any, ...], captures: Mapping[str, Any]) -> "Binding":
        """What a route's captures decide. Unnamed ones fill the first parameters in turn; ``*args`` takes the rest.

        Raises `InvalidParameters` for a capture that is not what its parameter says.
        """
        if args:
            names = [name for name in self.filled_by_args if name not in captures]
            captures, args = {**captures, **dict(zip(names, args, strict=False))}, args[len(names) :]
        fixed: dict[str, Any] = {}
        errors: list[dict[str, Any]] = []
        for name, validate, plain, _ in self.parameters:
            if name in captures:
                fixed[name] = captures[name]
                if validate is not None and type(fixed[name]) is not plain:
                    fill(fixed, name, fixed[name], validate, errors)
        if errors:
            raise InvalidParameters(errors)
        if self.takes_kwargs:
            fixed.update(
                (name, value) for name, value in captures.items() if name not in fixed and name not in self.reserved
            )
        open_parameters = tuple(parameter for parameter in self.parameters if parameter[0] not in fixed)
        return Binding(fixed, open_parameters, args if self.takes_args else (), self._starter(fixed, open_parameters))

    def _starter(self, fixed: dict[str, Any], open_parameters: tuple[Parameter, ...]) -> Start:
        """Calls a ``plain`` function, by position if the captures leave no more than one parameter open."""
        names = self.by_position
        if names is None or len(open_parameters) > 1:
            return self._start_by_name(fixed, open_parameters)
        if not open_parameters:
            values = tuple(fixed[name] for name in names)
            return lambda handler, frame: self.function(handler, *values)
        index = names.index(open_parameters[0][0])
        before = tuple(fixed[name] for name in names[:index])
        after = tuple(fixed[name] for name in names[index + 1 :])
        return self._start_with_one(open_parameters[0], before, after, self._start_by_name(fixed, open_parameters))

    def _start_by_name(self, fixed: dict[str, Any], open_parameters: tuple[Parameter, ...]) -> Start:
        return lambda handler, frame: self.function(handler, **self._fill(fixed, open_parameters, frame))

    def _start_with_one(
        self, parameter: Parameter, before: tuple[Any, ...], after: tuple[Any, ...], by_name: Start
    ) -> Start:
        """Fills one parameter fast; ``by_name`` handles a value that is missing or wrong."""
        name, validate, plain, _ = parameter
        function = self.function
        validate_fast = None if validate is None else fast_validate(validate)
        is_first = not before

        def start(handler: "AsyncAPIActionHandler", frame: Frame) -> Any:
            body = frame.body
            if name not in body:
                return by_name(handler, frame)
            value = body[name]
            if validate_fast is not None and type(value) is not plain:
                try:
                    value = validate_fast(value)
                except ValidationError:
                    return by_name(handler, frame)
            if not is_first:
                return function(handler, *before, value, *after)
            return function(*(handler, value) + after)  # noqa: RUF005  # half of what the other way costs, for each frame

        return start

    def bind_frame(self, binding: "Binding", frame: Frame) -> dict[str, Any]:
        """The keyword arguments for ``function``: those that the captures decided, then the frame's keys.

        Raises `InvalidParameters`, one item of ``errors`` for each parameter that is missing or wrong.
        """
        return self._fill(binding.fixed, binding.open, frame)

    def _fill(self, fixed: dict[str, Any], open_parameters: tuple[Parameter, ...], frame: Frame) -> dict[str, Any]:
        body, bound = frame.body, fixed.copy()
        errors: list[dict[str, Any]] = []
        for name, validate, plain, default in open_parameters:
            if name in body:
                value = body[name]
                if validate is None or type(value) is plain:
                    bound[name] = value
                else:
                    fill(bound, name, value, validate, errors)
            elif default is not EMPTY:
                bound[name] = copy_default(default)
            else:
                errors.append(missing_error(name))
        if errors:
            raise InvalidParameters(errors)
        for name in self.protocol:
            bound[name] = getattr(frame, name)
        if self.takes_kwargs:
            bound.update(
                (name, value) for name, value in body.items() if name not in bound and name not in self.reserved
            )
            bound["action"] = frame.action
        return bound

    def bind_all(
        self, binding: "Binding", frame: Frame, dependencies: Dependencies
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """As ``bind_frame``, and the same for its dependencies; the errors of both are raised together."""
        errors: list[dict[str, Any]] = []
        bound: dict[str, Any] = {}
        try:
            bound = self.bind_frame(binding, frame)
        except InvalidParameters as exc:
            errors += exc.items
        for_dependencies = dependencies.bind_frame(frame, errors)
        if errors:
            raise InvalidParameters(list({repr(item): item for item in errors}.values()))  # one for all who ask for it
        return bound, for_dependencies

    def positional(self, binding: "Binding", bound: dict[str, Any]) -> tuple[Any, ...]:
        """The positional arguments for ``function``: the unnamed captures that no parameter took, for its ``*args``.

        Parameters before ``*args`` are taken out of ``bound``.
        """
        return (*map(bound.pop, self.before_args), *binding.rest)

    def split(self, result: Any) -> tuple[Any, int]:
        """The function's result as (value, status); called only if it may have returned a status.

        Raises ``ValueError`` for a status that no final reply can have.
        """
        if not self.returns_status and not _looks_like_status(result):
            return result, self.status
        try:
            value, status = result
        except (TypeError, ValueError):
            raise TypeError(
                f"{self.name} returned {result!r:.80} where (value, status) is announced; return both, or annotate one"
            ) from None
        if not is_final_status(status):
            raise ValueError(f"{self.name} returned the status {status!r}; {FINAL_STATUS}")
        return value, int(status)

    def written(self, result: Any) -> Any:
        """The same result with its value written already, which ``write`` then leaves as it is."""
        if self.returns_status is False:
            return Written(self.write(result))
        value, status = self.split(result)
        return Written(self.write(value)), status


class Written(str):
    """A value that is JSON already."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, eq=False)
class Binding:
    """The arguments that a route's captures decide, and the parameters that are open until a frame comes."""

    fixed: dict[str, Any]
    open: tuple[Parameter, ...]
    rest: tuple[Any, ...]  # unnamed captures for ``*args``
    start: Start  # calls a ``plain`` function

    @property
    def shareable(self) -> bool:
        """Whether frames may share it: none of its values can be changed by who gets them."""
        return all(type(value) in _IMMUTABLE for value in self.fixed.values())


_IMMUTABLE = frozenset({str, int, float, bool, bytes, type(None), UUID, Decimal, date, datetime, time, timedelta})


FINAL_STATUS = "a final status is an int of 200 to 599, without 206 (a stream's)"


def is_final_status(status: Any) -> bool:
    """Whether a reply may end with this status: 200, ``HTTPStatus.CREATED``, 404, but neither 206 nor True."""
    return isinstance(status, int) and not isinstance(status, bool) and 200 <= status <= 599 and status != 206


def _looks_like_status(result: Any) -> bool:
    return type(result) is tuple and len(result) == 2 and isinstance(result[1], int) and type(result[1]) is not bool
