"""Reading what a handler class declares: its actions, their signatures, the names that a route gives them."""

import inspect
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import PydanticUserError
from pydantic.fields import FieldInfo

from wsaction.actions import OPTIONS_ATTRIBUTE, PROTOCOL_KEYS, Action, ActionOptions, Parameter
from wsaction.exceptions import ImproperlyConfigured
from wsaction.serializers import json_encoder, json_validator

__all__ = ("collect_actions", "read_action", "select_actions")

_EMPTY = inspect.Parameter.empty


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
    streams, awaited = _kind(where, function, options)
    name = attribute if options.name is None else options.name
    _check_name(cls.__name__, name)
    hints = _hints(where, function)
    own, *rest = _parameters(where, function)
    named = [p for p in rest if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    takes_args = any(p.kind is p.VAR_POSITIONAL for p in rest)
    before_args = tuple(p.name for p in named if p.kind is p.POSITIONAL_OR_KEYWORD)
    candidates = before_args if takes_args else [p.name for p in named]
    returns_status, output = _streamed(hints.get("return", Any)) if streams else _output(hints.get("return", Any))
    ordered = options.ordered and not streams
    options = replace(options, summary=options.summary or _first_line(function), ordered=ordered)
    return Action(
        name=name,
        function=function,
        plain=awaited and not takes_args,
        threaded=not (streams or awaited),
        streams=streams,
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


def _kind(where: str, function: Any, options: ActionOptions) -> tuple[bool, bool]:
    """Whether a function is a stream, and whether it is awaited; it is a plain sync function where it is neither."""
    if not inspect.isfunction(function):
        raise ImproperlyConfigured(
            f"{where} is no function but a {type(function).__name__}; an action is a method, def or async def"
        )
    wrapped = inspect.unwrap(function)  # a decorator's plain function may return what the action it wraps does
    if inspect.isgeneratorfunction(wrapped):
        raise ImproperlyConfigured(f"{where} is a sync generator; a stream is an async one: async def, with yield")
    streams = inspect.isasyncgenfunction(wrapped)
    if streams and options.mode == "none":
        raise ImproperlyConfigured(f"{where} yields, which has replies; leave out mode='none', or do not yield")
    return streams, inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(wrapped)


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
    for field in getattr(annotation, "__metadata__", ()):
        if isinstance(field, FieldInfo) and (field.alias or field.validation_alias or not field.is_required()):
            raise ImproperlyConfigured(
                f"{where}: the Field() of {parameter.name} sets a default or an alias, which would not count; write "
                "the default behind =, and name the parameter as clients do"
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


def _streamed(annotation: Any) -> tuple[bool | None, Any]:
    """What the items of a stream are announced to be: ``AsyncIterator[Card]`` says ``Card``."""
    arguments = typing.get_args(annotation)
    return False, arguments[0] if arguments else Any


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
