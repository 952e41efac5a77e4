"""Actions: what a handler declares, read once when its class is made.

An `Action` knows how to fill its function's parameters, first from a route's captures (`fix`), then from a frame
(`bind`), and how to write what it returned (`write`); it does neither by inspecting anything at run time.
"""

import inspect
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

from pydantic import PydanticUserError, ValidationError
from pydantic.fields import FieldInfo

from wsaction.exceptions import ImproperlyConfigured, InvalidParameters, validation_items
from wsaction.frames import Frame
from wsaction.serializers import json_encoder, json_validator

__all__ = ("FINAL_STATUS", "Action", "ActionOptions", "collect_actions", "is_final_status", "select_actions")

OPTIONS_ATTRIBUTE = "_wsaction_options"  # where `decorators.async_action` leaves what it was told

PROTOCOL_KEYS = ("action", "route", "request_id")  # parameters of these names mean the protocol's own


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionOptions:
    """What `async_action` was told. ``name`` is the method's own where it is None."""

    name: str | None = None
    mode: Literal["response", "none"] = "response"
    ordered: bool = True
    permission_classes: Sequence[Any] | None = None
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
    threaded: bool  # a sync function: runs in a thread
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


# --------------------------------------------------------------------------------------------- reading a declaration
def collect_actions(cls: type, hidden: Collection[str]) -> dict[str, Action]:
    """The actions of a handler class by name: what it and its bases decorated, and what overrides that.

    ``hidden`` are the attributes of the framework's own base, which an action must not hide. Raises
    `ImproperlyConfigured` for a name that is taken or reserved and for a signature that cannot be filled.
    """
    declared: dict[str, ActionOptions] = {}  # by method name
    for base in reversed(cls.__mro__):
        for attribute, value in vars(base).items():
            marked = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            options = getattr(marked, OPTIONS_ATTRIBUTE, None)
            if isinstance(options, ActionOptions):  # and not what some proxy answers to any name
                declared[attribute] = options
            elif attribute in declared and value is None:
                del declared[attribute]  # `update = None` takes an inherited action away
    actions: dict[str, Action] = {}
    for attribute, options in declared.items():
        action = read_action(cls, attribute, options)
        if attribute in hidden:
            raise ImproperlyConfigured(
                f"{cls.__name__}.{attribute} hides an attribute of the handler itself; name the method otherwise and "
                f"keep the action's name with @async_action(name={attribute!r})"
            )
        if action.name in actions:
            raise ImproperlyConfigured(
                f"{cls.__name__} declares the action {action.name!r} twice, as "
                f"{actions[action.name].function.__name__} and {attribute}; give one of them another name"
            )
        actions[action.name] = action
    return actions


def select_actions(
    cls_name: str, actions: Mapping[str, Action], wanted: Mapping[str, str] | Sequence[str] | None
) -> dict[str, Action]:
    """The actions of one route by the name that clients use: all, some, or some under other names.

    ``{"get_all": "list"}`` answers ``get_all`` with what is declared as ``list``. Raises `ImproperlyConfigured`.
    """
    if wanted is None:
        return dict(actions)
    if isinstance(wanted, str):
        raise ImproperlyConfigured(
            f"{cls_name}.as_aaah(actions=...) takes names, as in actions=({wanted!r},), not a string"
        )
    names = dict(wanted) if isinstance(wanted, Mapping) else {name: name for name in wanted}
    for told, name in names.items():
        if name not in actions:
            near = get_close_matches(str(name), actions, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(actions)) or 'none'}"
            raise ImproperlyConfigured(f"{cls_name} has no action {name!r} for as_aaah(actions=...); {hint}")
        _check_name(cls_name, told)
    return {told: actions[name] for told, name in names.items()}


def read_action(cls: type, attribute: str, options: ActionOptions) -> Action:
    """One method as an `Action`. Raises `ImproperlyConfigured` where its signature cannot be filled from a frame."""
    where, function = f"{cls.__name__}.{attribute}", inspect.getattr_static(cls, attribute)
    if not inspect.isfunction(function):
        raise ImproperlyConfigured(
            f"{where} is no function but a {type(function).__name__}; an action is a method, def or async def"
        )
    wrapped = inspect.unwrap(function)  # a decorator's plain function may return what the action it wraps does
    if inspect.isasyncgenfunction(wrapped) or inspect.isgeneratorfunction(wrapped):
        raise ImproperlyConfigured(f"{where} is a generator; this version has no streams: return a list instead")
    name = attribute if options.name is None else options.name
    _check_name(cls.__name__, name)
    hints = _hints(where, function)
    own, *rest = _parameters(where, function)
    named = [p for p in rest if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    takes_args = any(p.kind is p.VAR_POSITIONAL for p in rest)
    before_args = tuple(p.name for p in named if p.kind is p.POSITIONAL_OR_KEYWORD)
    candidates = before_args if takes_args else [p.name for p in named]
    returns_status, output = _output(hints.get("return", Any))
    options = replace(options, summary=options.summary or _first_line(function))
    return Action(
        name=name,
        function=function,
        threaded=not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(wrapped)),
        parameters=tuple(_parameter(where, p, hints) for p in named if p.name not in PROTOCOL_KEYS),
        protocol=tuple(p.name for p in named if p.name in PROTOCOL_KEYS),
        takes_args=takes_args,
        before_args=before_args if takes_args else (),
        filled_by_args=tuple(name for name in candidates if name not in ("data", *PROTOCOL_KEYS)),
        takes_kwargs=any(p.kind is p.VAR_KEYWORD for p in rest),
        reserved=frozenset({own.name, "action", "route"}),
        status=options.status,
        returns_status=returns_status,
        silent=options.mode == "none",
        write=_built(where, "what it returns", json_encoder, output),
        options=options,
    )


def _check_name(owner: str, name: Any) -> None:
    if not isinstance(name, str) or not name or name.startswith("$"):
        raise ImproperlyConfigured(
            f"{owner}: an action's name is a string that is not empty and does not begin with '$' (the protocol's "
            f"own), not {name!r}"
        )


def _hints(where: str, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as exc:  # annotations may be any expression, so they may raise anything
        raise ImproperlyConfigured(
            f"the annotations of {where} cannot be read ({type(exc).__name__}: {exc}); they are evaluated when the "
            "class is made: define the names at module level, before the class"
        ) from exc


def _parameters(where: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
        raise ImproperlyConfigured(f"{where} takes no self; an action is a method of its handler")
    for parameter in parameters[1:]:
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ImproperlyConfigured(
                f"{where}: {parameter.name} is positional-only, but parameters are filled by name; drop the /"
            )
    return parameters


def _parameter(where: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Parameter:
    annotation = hints.get(parameter.name, _EMPTY)
    if annotation is _EMPTY or annotation is Any:
        return parameter.name, None, None, parameter.default
    if isinstance(parameter.default, FieldInfo):
        raise ImproperlyConfigured(
            f"{where}: the default of {parameter.name} is a pydantic Field(), which would be its value; write "
            f"{parameter.name}: Annotated[..., Field(...)], and = the default after it"
        )
    validate = _built(where, f"parameter {parameter.name}", json_validator, annotation)
    plain = annotation if annotation in (str, int, bool) else None
    return parameter.name, validate, plain, parameter.default


def _output(annotation: Any) -> tuple[bool | None, Any]:
    """Whether the function returns (value, status), and what the value is announced to be."""
    if annotation is Any:
        return None, Any
    bare = typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation
    arguments = typing.get_args(bare)
    if typing.get_origin(bare) is tuple and len(arguments) == 2 and arguments[1] is int:
        return True, arguments[0]
    return False, annotation


def _built(where: str, what: str, build: Callable[[Any], Any], annotation: Any) -> Any:
    try:
        return build(annotation)
    except PydanticUserError as exc:
        raise ImproperlyConfigured(
            f"{where}: {what} is annotated {annotation!r}, which pydantic cannot handle: {exc.message}; annotate a "
            "type that it can, or leave the annotation out"
        ) from exc


def _first_line(function: Callable[..., Any]) -> str | None:
    text = inspect.getdoc(function)
    return text.partition("\n")[0] if text else None
