"""`Action`: a method of a handler, compiled so that a frame can call it.

An action fills the parameters of its function, first from a route's captures (`bind_captures`), then from a frame
(`bind_frame`). It also encodes the result (`write`). Nothing is inspected at run time.
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

Start: TypeAlias = Callable[[Any, Frame], Any]  # calls an action's function with a handler and a frame

OPTIONS_ATTRIBUTE = "_wsaction_options"  # where `decorators.async_action` leaves its options


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ActionOptions:
    """The options of `async_action`.

    If ``name`` is None, it is the method's name; if ``timeout`` is None, it is the limits' ``action_timeout``. If
    ``destructive`` is None, the name decides.
    """

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
    destructive: bool | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Action:
    """An action: its function, parameters, output and options."""

    name: str
    function: Callable[..., Any]
    plain: bool  # a coroutine function without ``*args``, dependencies and broadcast
    threaded: bool  # a sync function: runs in a thread
    streams: bool  # an async generator: each item is a partial reply
    parameters: tuple[Parameter, ...]
    dependencies: Dependencies | None  # they make the other parameters
    own_inputs: tuple[Input, ...]  # `parameters`, as clients see them
    by_position: tuple[str, ...] | None  # their names in the function's order, if it can be called by position
    protocol: tuple[str, ...]  # the parameters among `PROTOCOL_KEYS`
    takes_args: bool
    before_args: tuple[str, ...]  # the parameters before ``*args``
    filled_by_args: tuple[str, ...]  # the parameters that unnamed captures fill, in order
    takes_kwargs: bool
    reserved: frozenset[str]  # keys that ``**kwargs`` does not take from captures or frame
    status: int  # of the reply, unless the function returns one
    returns_status: bool | None  # whether the result is (value, status); None: the result itself decides
    returns: Any  # the annotation of the value or of a stream's items, without the status
    write: Callable[[Any], str]  # encodes the value as JSON
    silent: bool  # whether success sends no reply
    options: ActionOptions
    streamed: "Action | None" = None  # runs instead if the frame has ``"stream": true``

    @property
    def inputs(self) -> tuple[Input, ...]:
        """All inputs that clients send, without duplicates. If dependencies declare a name differently, it repeats."""
        inputs = (*self.own_inputs, *(() if self.dependencies is None else self.dependencies.inputs))
        return tuple(field for index, field in enumerate(inputs) if field not in inputs[:index])

    def bind_captures(self, args: tuple[Any, ...], captures: Mapping[str, Any]) -> "Binding":
        """The arguments from a route's captures. Unnamed ones fill the first parameters; ``*args`` takes the rest.

        Raises `InvalidParameters` for a capture that its parameter's annotation refuses.
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
        """A function that calls a ``plain`` action: by position if at most one parameter is open, which is faster."""
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
        """As `_starter`, for one open parameter. ``by_name`` handles a value that is missing or invalid."""
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
            return function(*(handler, value) + after)  # noqa: RUF005  # twice as fast as unpacking, for each frame

        return start

    def bind_frame(self, binding: "Binding", frame: Frame) -> dict[str, Any]:
        """The keyword arguments for ``function``: those from the captures, then those from the frame's keys.

        Raises `InvalidParameters` with an item of ``errors`` for each parameter that is missing or invalid.
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
        """The arguments of ``bind_frame``, and those of the dependencies. The errors of both are raised together."""
        errors: list[dict[str, Any]] = []
        bound: dict[str, Any] = {}
        try:
            bound = self.bind_frame(binding, frame)
        except InvalidParameters as exc:
            errors += exc.items
        for_dependencies = dependencies.bind_frame(frame, errors)
        if errors:
            raise InvalidParameters(list({repr(item): item for item in errors}.values()))  # without duplicates
        return bound, for_dependencies

    def positional(self, binding: "Binding", bound: dict[str, Any]) -> tuple[Any, ...]:
        """The positional arguments for a ``function`` with ``*args``.

        These are the parameters before ``*args``, which are removed from ``bound``, then the other unnamed captures.
        """
        return (*map(bound.pop, self.before_args), *binding.rest)

    def split(self, result: Any) -> tuple[Any, int]:
        """The function's result as (value, status). Call it only if the function may have returned a status.

        Raises ``TypeError`` if a declared status is missing, ``ValueError`` for a status that no final reply can have.
        """
        if not self.returns_status and not _looks_like_status(result):
            return result, self.status
        try:
            value, status = result
        except (TypeError, ValueError):
            raise TypeError(
                f"{self.name}: expected (value, status), as it is annotated, got {result!r:.80}; return both, or "
                "annotate the value alone"
            ) from None
        if not is_final_status(status):
            raise ValueError(f"{self.name} returned the status {status!r}; {FINAL_STATUS}")
        return value, int(status)

    def written(self, result: Any) -> Any:
        """The result with its value already encoded; ``write`` leaves that unchanged."""
        if self.returns_status is False:
            return Written(self.write(result))
        value, status = self.split(result)
        return Written(self.write(value)), status


class Written(str):
    """A value that is already JSON."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, eq=False)
class Binding:
    """The arguments from a route's captures, and the parameters that remain open until there is a frame."""

    fixed: dict[str, Any]
    open: tuple[Parameter, ...]
    rest: tuple[Any, ...]  # unnamed captures for ``*args``
    start: Start  # calls a ``plain`` function

    @property
    def shareable(self) -> bool:
        """Whether frames may share it: all of its values are immutable."""
        return all(type(value) in _IMMUTABLE for value in self.fixed.values())


_IMMUTABLE = frozenset({str, int, float, bool, bytes, type(None), UUID, Decimal, date, datetime, time, timedelta})


FINAL_STATUS = "a final status is an int of 200 to 599, without 206 (a stream's)"


def is_final_status(status: Any) -> bool:
    """Whether a reply may end with this status: 200, ``HTTPStatus.CREATED``, 404, but neither 206 nor True."""
    return isinstance(status, int) and not isinstance(status, bool) and 200 <= status <= 599 and status != 206


def _looks_like_status(result: Any) -> bool:
    return type(result) is tuple and len(result) == 2 and isinstance(result[1], int) and type(result[1]) is not bool
