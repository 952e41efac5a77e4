"""Actions: what a handler declares, ready to be called with a frame.

An `Action` knows how to fill its function's parameters, first from a route's captures (`fix`), then from a frame
(`bind`), and how to write what it returned (`write`); it does neither by inspecting anything at run time.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, TypeAlias
from uuid import UUID

from pydantic import ValidationError

from wsaction.exceptions import InvalidParameters, validation_items
from wsaction.frames import Frame

__all__ = ("FINAL_STATUS", "Action", "ActionOptions", "Binding", "Parameter", "is_final_status")

OPTIONS_ATTRIBUTE = "_wsaction_options"  # where `decorators.async_action` leaves what it was told

PROTOCOL_KEYS = ("action", "route", "request_id")  # parameters of these names mean the protocol's own


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionOptions:
    """What `async_action` was told. ``name`` is the method's own where it is None."""

    name: str | None = None
    mode: Literal["response", "none"] = "response"
    ordered: bool = True
    permission_classes: Sequence[Any] | None = None
    throttle_classes: Sequence[Any] | None = None
    status: int = 200
    summary: str | None = None


# One parameter of an action's function: its name; what validates it, None without an annotation; the type of which a
# value needs no validation; its default, `inspect.Parameter.empty` where it is required. A bare tuple: `bind` unpacks
# them.
Parameter: TypeAlias = tuple[str, Callable[[Any], Any] | None, type | None, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A declared action: its function, its parameters, its output, its options."""

    name: str
    function: Callable[..., Any]
    plain: bool  # a coroutine function without ``*args``
    threaded: bool  # a sync function: runs in a thread
    streams: bool  # an async generator: each item is a partial reply
    parameters: tuple[Parameter, ...]
    protocol: tuple[str, ...]  # of its parameters, those that mean the protocol's own
    takes_args: bool
    before_args: tuple[str, ...]  # parameters that ``*args`` stands behind
    filled_by_args: tuple[str, ...]  # parameters that unnamed captures fill, in turn
    takes_kwargs: bool
    reserved: frozenset[str]  # keys that ``**kwargs`` does not take from captures or frame
    status: int  # of the reply, unless the function returns one
    returns_status: bool | None  # (value, status); None: where what it returns looks like that
    write: Callable[[Any], str]  # the value as JSON
    silent: bool  # on success
    options: ActionOptions

    def fix(self, args: tuple[Any, ...], captures: Mapping[str, Any]) -> "Binding":
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
                    _fill(fixed, name, fixed[name], validate, errors)
        if errors:
            raise InvalidParameters(errors)
        if self.takes_kwargs:
            fixed.update(
                (name, value) for name, value in captures.items() if name not in fixed and name not in self.reserved
            )
        left = tuple(parameter for parameter in self.parameters if parameter[0] not in fixed)
        return Binding(fixed, left, args if self.takes_args else ())

    def bind(self, binding: "Binding", frame: Frame) -> dict[str, Any]:
        """The keyword arguments for ``function``: what the captures decided, then ``data`` and the frame's other keys.

        Raises `InvalidParameters`, one item of ``errors`` for each parameter that is missing or wrong.
        """
        body, bound = frame.body, binding.fixed.copy()
        errors: list[dict[str, Any]] = []
        for name, validate, plain, default in binding.open:
            if name in body:
                value = body[name]
                if validate is None or type(value) is plain:
                    bound[name] = value
                else:
                    _fill(bound, name, value, validate, errors)
            elif default is not _EMPTY:
                bound[name] = default
            else:
                errors.append({"type": "missing", "msg": "Field required", "loc": [name]})
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

    def positional(self, binding: "Binding", bound: dict[str, Any]) -> tuple[Any, ...]:
        """What ``function`` takes by position: the unnamed captures that no parameter took, for its ``*args``.

        What stands before ``*args`` is taken out of ``bound``.
        """
        return (*map(bound.pop, self.before_args), *binding.rest)

    def split(self, result: Any) -> tuple[Any, int]:
        """What the function returned, as (value, status); asked only where it may have returned a status.

        Raises ``ValueError`` for a status that no final reply can have.
        """
        if not self.returns_status and not _looks_like_status(result):
            return result, self.status
        value, status = result
        if not is_final_status(status):
            raise ValueError(f"{self.name} returned the status {status!r}; {FINAL_STATUS}")
        return value, int(status)


@dataclass(frozen=True, slots=True)
class Binding:
    """What a route's captures decide of an action's arguments, and which parameters are open until a frame comes."""

    fixed: dict[str, Any]
    open: tuple[Parameter, ...]
    rest: tuple[Any, ...]  # unnamed captures for ``*args``

    @property
    def shareable(self) -> bool:
        """Whether frames may share it: none of its values can be changed by who gets them."""
        return all(type(value) in _IMMUTABLE for value in self.fixed.values())


def _fill(
    bound: dict[str, Any], name: str, value: Any, validate: Callable[[Any], Any], errors: list[dict[str, Any]]
) -> None:
    """Fills a parameter with the validated value, or adds to the errors."""
    try:
        bound[name] = validate(value)
    except ValidationError as exc:
        errors += validation_items(exc, name)


_IMMUTABLE = frozenset({str, int, float, bool, bytes, type(None), UUID, Decimal, date, datetime, time, timedelta})
_EMPTY = inspect.Parameter.empty


FINAL_STATUS = "a final status is an int of 200 to 599, without 206 (a stream's)"


def is_final_status(status: Any) -> bool:
    """Whether a reply may end with this status: 200, ``HTTPStatus.CREATED``, 404, but neither 206 nor True."""
    return isinstance(status, int) and not isinstance(status, bool) and 200 <= status <= 599 and status != 206


def _looks_like_status(result: Any) -> bool:
    return type(result) is tuple and len(result) == 2 and isinstance(result[1], int) and type(result[1]) is not bool
