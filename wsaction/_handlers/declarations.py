"""Reads the declarations of a handler class: its actions, their signatures and their names on a route."""

import dis
import inspect
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, TypeAlias

from wsaction._handlers.action import OPTIONS_ATTRIBUTE, Action, ActionOptions, Written
from wsaction._handlers.misplaced import (
    hides_action,
    refuse_misplaced,
    refuse_policies_of_function,
    refuse_unused_policies,
)
from wsaction._handlers.parameters import PROTOCOL_KEYS, Input, Parameter, built, read_hints, read_parameter
from wsaction._handlers.signatures import depends_of, read_dependencies
from wsaction._utils.hints import did_you_mean
from wsaction._utils.misspellings import is_ours, refuse_misspelt, user_attributes
from wsaction.exceptions import ImproperlyConfigured
from wsaction.serializers._models import json_encoder

HookFlags: TypeAlias = Mapping[str, tuple[str, ...]]
"""The flags of a class, each with the methods whose override sets it; see `read_hooks`."""


class NotMountedSo:
    """A method that other kinds of classes are mounted with; its ``AttributeError`` names the right one."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, obj: Any, cls: Any = None) -> Any:
        how = "a consumer is mounted with as_asgi()" if cls.is_consumer else "a handler is mounted with as_aaah()"
        raise AttributeError(f"{cls.__name__} has no {self._name}(); {how}")


_APPS = "authentication_classes allowed_origins allowed_hosts require_origin accept_refused exception_handlers"
_MISPLACED = {name: f"it is a setting of the app: WSAction([...], {name}=...)" for name in _APPS.split()} | {
    "http_method_names": "list the actions of a route: as_aaah(actions=('list', 'retrieve'))"
}


def check_attributes(cls: type) -> None:
    """Raises `ImproperlyConfigured` for attributes of a handler class that have no effect.

    These are misspelt attributes, settings of the app, and guards of other frameworks' views.
    """
    if is_ours(cls):
        return
    for base, name, value in user_attributes(cls):
        if (cure := _MISPLACED.get(name)) is not None:
            raise ImproperlyConfigured(f"{base.__qualname__}.{name} has no effect; {cure}")
        if _guards_elsewhere(name, value):
            raise ImproperlyConfigured(
                f"{base.__qualname__}.{name} has no effect, because nothing calls it; refuse clients with a permission "
                "in permission_classes, in check_permissions() or, in a consumer, in connect()"
            )
    refuse_misspelt(cls, is_exempt=_is_action)
    refuse_misplaced(cls)


# Methods that refuse in permissions and in views of DRF, Starlette and Channels, by the name of their first parameter.
_GUARDS_ELSEWHERE = {
    "scope": ("has_permission", "has_object_permission", "can_connect"),
    "request": ("has_permission", "has_object_permission", "initial", "dispatch"),
    "websocket": ("on_connect", "on_receive"),
    "message": ("websocket_connect",),
    "content": ("receive_json",),
}


def _guards_elsewhere(name: str, value: Any) -> bool:
    """Whether an attribute refuses clients in a permission, or in a view of another framework, but not in a handler."""
    if isinstance(value, list | tuple) and value:
        if name == "dependencies":
            return all(type(mark).__name__ in ("Depends", "Security") for mark in value)
        return name in ("guards", "middleware") and all(map(callable, value))
    if not inspect.isfunction(value) or _is_action(value) or value.__code__.co_argcount < 2:
        return False
    return name in _GUARDS_ELSEWHERE.get(value.__code__.co_varnames[1], ())


def check_settings(cls: Any) -> None:
    """Raises `ImproperlyConfigured` for policies that are set where they have no effect.

    That is on an instance, because policies are read once when the class is mounted, and in a ``class Meta``.
    """
    refuse_unused_policies(cls, cls.available_actions)
    unread = {*_READ_ONCE} - ({"permission_classes"} if cls.overrides_permissions else set())
    unread -= {"throttle_classes", "throttle_scope"} if cls.overrides_throttles else set()
    for base in (base for base in cls.__mro__ if not is_ours(base)):
        for name, value in vars(base).items():
            if inspect.isfunction(value) and (names := unread & _set_on_self(value)):
                hook = f"get_{min(names).partition('_')[0]}s"
                cure = f", or override {hook}()" if hasattr(cls, hook) else ""
                raise ImproperlyConfigured(
                    f"{base.__qualname__}.{name} sets self.{min(names)}, which has no effect, because it is read when "
                    f"the class is mounted; set it on the class{cure}"
                )
            if name == "Meta" and (names := {name for name in vars(value).keys() & dir(cls) if name[0] != "_"}):
                where = base.__qualname__
                raise ImproperlyConfigured(
                    f"{where}.Meta.{min(names)} has no effect, because nothing reads it there; set it in {where}"
                )


_READ_ONCE = ("permission_classes", "throttle_classes", "throttle_scope", "routepatterns")


def _set_on_self(function: Any) -> set[str]:
    """The attributes that a method assigns on its first argument, ``self``."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None or not code.co_varnames or not {*_READ_ONCE}.intersection(code.co_names):
        return set()
    # Why the bytecode: a `__setattr__` would cost time for every frame, and refuse only when the method runs.
    return {
        store.argval
        for load, store in pairwise(dis.get_instructions(code))
        if store.opname == "STORE_ATTR"
        and code.co_varnames[0]
        == (load.argval[-1] if isinstance(load.argval, tuple) else load.argval)  # a tuple since Python 3.13
    }


def overrides(cls: Any, base: Any, *methods: str) -> bool:
    """Whether a class overrides one of a base's methods. It may lack some of them."""
    return any(getattr(cls, name, method) is not method for name in methods for method in (getattr(base, name),))


def read_hooks(cls: Any) -> None:
    """Sets the flags that the bases of a class name in ``_hook_flags``, by the methods that the class overrides."""
    for base in cls.__mro__:
        for flag, methods in vars(base).get("_hook_flags", {}).items():
            setattr(cls, flag, overrides(cls, base, *methods))


def is_changed(cls: type, actions: Mapping[str, Action]) -> bool:
    """Whether a method of the actions was replaced after they were read, as by a class decorator."""
    attributes: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        attributes.update(vars(base))
    current = set(map(id, attributes.values()))
    variants = [variant for action in actions.values() for variant in (action, action.streamed)]
    return any(variant is not None and id(variant.function) not in current for variant in variants)


def _is_action(value: Any) -> bool:
    return _options_of(value) is not None


def _options_of(value: Any) -> ActionOptions | None:
    """The options that `async_action` left on a method; None if it did not decorate the method."""
    function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    options = getattr(function, OPTIONS_ATTRIBUTE, None)
    return options if isinstance(options, ActionOptions) else None  # a proxy may answer any name with something else


def collect_actions(
    cls: type, hidden: Collection[str], resolve_annotation: Callable[[Any], Any] = lambda annotation: annotation
) -> dict[str, Action]:
    """The actions of a handler class by name: the decorated methods of it and its bases, as it overrides them.

    ``hidden`` are the attributes of the framework's base classes, which an action must not hide. ``resolve_annotation``
    returns the type that an annotation means in this class. Raises `ImproperlyConfigured` for a name that is taken or
    reserved, and for a signature that a frame cannot fill.
    """
    declared: dict[str, ActionOptions] = {}  # by method name
    for base in reversed(cls.__mro__):
        for attribute, value in vars(base).items():
            if (options := _options_of(value)) is not None:
                declared[attribute] = options
            elif attribute in declared and value is None:
                del declared[attribute]  # `update = None` removes an inherited action
            elif attribute not in declared and not is_ours(base) and hides_action(value):
                raise ImproperlyConfigured(
                    f"{base.__qualname__}.{attribute} is no action any more, because another decorator hides it; put "
                    "@async_action above that decorator, or let the decorator use functools.wraps"
                )
    actions: dict[str, Action] = {}
    for attribute, options in declared.items():
        action = read_action(cls, attribute, options, resolve_annotation)
        if attribute in hidden:
            raise ImproperlyConfigured(
                f"{cls.__name__}.{attribute} hides an attribute of the handler itself; give the method another name, "
                f"and keep the action's name with @async_action(name={attribute!r})"
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

    With ``{"get_all": "list"}``, clients call the action ``list`` as ``get_all``. Raises `ImproperlyConfigured` for an
    unknown action and an invalid name.
    """
    if wanted is None:
        return dict(actions)
    if isinstance(wanted, str):
        raise ImproperlyConfigured(
            f"{cls_name}.as_aaah(actions=...): expected names, as in actions=({wanted!r},), got a string"
        )
    names = dict(wanted) if isinstance(wanted, Mapping) else {name: name for name in wanted}
    for route_name, name in names.items():
        if name not in actions:
            hint = did_you_mean(name, sorted(actions), "it has")
            raise ImproperlyConfigured(f"{cls_name} has no action {name!r} for as_aaah(actions=...); {hint}")
        _check_name(cls_name, route_name)
    return {route_name: actions[name] for route_name, name in names.items()}


def read_action(
    cls: type,
    attribute: str,
    options: ActionOptions,
    resolve_annotation: Callable[[Any], Any] = lambda annotation: annotation,
) -> Action:
    """Compiles a method to an `Action`. Raises `ImproperlyConfigured` if a frame cannot fill its signature."""
    where, function = f"{cls.__name__}.{attribute}", inspect.getattr_static(cls, attribute)
    streams, awaited = _kind(where, function, options)
    refuse_policies_of_function(where, function)
    name = attribute if options.name is None else options.name
    _check_name(cls.__name__, name)
    hints = {key: resolve_annotation(hint) for key, hint in read_hints(where, function).items()}
    self_parameter, *rest = _parameters(where, function)
    named = [p for p in rest if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    marked = {p.name: mark for p in named if (mark := depends_of(where, p, hints.get(p.name))) is not None}
    dependencies = read_dependencies(where, tuple(marked.items())) if marked else None
    asked = [p for p in named if p.name not in marked]
    read = [read_parameter(where, p, hints) for p in asked if p.name not in PROTOCOL_KEYS]
    takes_args = any(p.kind is p.VAR_POSITIONAL for p in rest)
    before_args = tuple(p.name for p in named if p.kind is p.POSITIONAL_OR_KEYWORD)
    candidates = before_args if takes_args else [p.name for p in asked]
    returns_status, output = (_stream_output if streams else _output)(where, hints.get("return", Any))
    encode = built(where, "what it returns", json_encoder, output)
    encode = _or_null(encode) if streams else encode
    ordered = options.ordered and not streams
    options = replace(options, summary=options.summary or _first_line(function), ordered=ordered)
    return Action(
        name=name,
        function=function,
        plain=awaited and not takes_args and not marked and options.mode != "broadcast",
        threaded=not (streams or awaited),
        streams=streams,
        parameters=tuple(parameter for parameter, _ in read),
        dependencies=dependencies,
        own_inputs=tuple(field for _, field in read),
        by_position=_by_position(function, read),
        protocol=tuple(p.name for p in asked if p.name in PROTOCOL_KEYS),
        takes_args=takes_args,
        before_args=before_args if takes_args else (),
        filled_by_args=tuple(name for name in candidates if name not in ("data", *PROTOCOL_KEYS, *marked)),
        takes_kwargs=any(p.kind is p.VAR_KEYWORD for p in rest),
        reserved=frozenset({self_parameter.name, "action", "route"}),
        status=options.status,
        returns_status=returns_status,
        silent=options.mode == "none" or (options.mode == "broadcast" and not options.send_response_in_broadcast),
        returns=output,
        write=_unless_written(encode) if marked else encode,
        options=options,
        streamed=_streamed_by(cls, attribute, options, resolve_annotation),
    )


def _by_position(function: Any, read: Sequence[tuple[Parameter, Input]]) -> tuple[str, ...] | None:
    """A function's parameters in order; None if it cannot be called with the read parameters by position.

    The function's code decides, because a decorator's function may take other arguments than its signature says.
    """
    code = function.__code__
    names: tuple[str, ...] = code.co_varnames[1 : code.co_argcount]
    has_others = code.co_kwonlyargcount or code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    return names if not has_others and sorted(names) == sorted(field.name for _, field in read) else None


def _or_null(encode: Callable[[Any], str]) -> Callable[[Any], str]:
    """Extends ``encode`` by None, the value of a stream's final reply."""
    return lambda value: "null" if value is None else encode(value)


def _streamed_by(
    cls: type, attribute: str, options: ActionOptions, resolve_annotation: Callable[[Any], Any]
) -> Action | None:
    """The stream that answers instead of an action; None if a subclass has overridden only the action."""
    if options.streamed_by is None:
        return None
    definers = {name: base for base in reversed(cls.__mro__) for name in vars(base)}
    definer = definers.get(options.streamed_by)
    if definer is None or not inspect.isasyncgenfunction(vars(definer)[options.streamed_by]):
        raise ImproperlyConfigured(
            f"{cls.__name__}.{attribute} is streamed_by {options.streamed_by!r}, which is no async generator "
            "function of its class; write async def, with yield"
        )
    if not issubclass(definer, definers[attribute]):
        return None
    stream_options = replace(options, name=options.name or attribute, streamed_by=None)
    return read_action(cls, options.streamed_by, stream_options, resolve_annotation)


def _kind(where: str, function: Any, options: ActionOptions) -> tuple[bool, bool]:
    """Whether a function is a stream, and whether it is a coroutine function; a sync function is neither."""
    if not inspect.isfunction(function):
        raise ImproperlyConfigured(f"{where}: expected a method, def or async def, got {type(function).__name__}")
    wrapped = inspect.unwrap(function)  # a decorator's sync function may return the coroutine of the action
    if inspect.isgeneratorfunction(wrapped):
        raise ImproperlyConfigured(f"{where} is a sync generator; a stream is an async one: async def, with yield")
    streams = inspect.isasyncgenfunction(wrapped)
    if streams and options.mode != "response":
        raise ImproperlyConfigured(
            f"{where} is a stream, whose items are replies; leave out mode={options.mode!r}, or do not yield"
        )
    return streams, inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(wrapped)


def _check_name(owner: str, name: Any) -> None:
    if not isinstance(name, str) or not name or name.startswith("$"):
        raise ImproperlyConfigured(
            f"{owner}: expected an action's name, a string that is not empty and does not begin with '$' (reserved for "
            f"the protocol), got {name!r}"
        )


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


def _unless_written(encode: Callable[[Any], str]) -> Callable[[Any], str]:
    """Skips results that `Action.written` has encoded already, while the dependencies were alive."""
    return lambda value: value if type(value) is Written else encode(value)


def _output(where: str, annotation: Any) -> tuple[bool | None, Any]:
    """Whether the function returns (value, status), and the annotation of the value."""
    if typing.get_origin(annotation) in _STREAMS or annotation in _STREAMS:
        raise ImproperlyConfigured(f"{where} is annotated as a stream, {annotation!r}, and has no yield")
    if annotation is Any:
        return None, Any
    bare = typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation
    arguments = typing.get_args(bare)
    if typing.get_origin(bare) is tuple and len(arguments) == 2 and arguments[1] is int:
        return True, arguments[0]
    return False, annotation


_STREAMS = (AsyncIterator, AsyncIterable, AsyncGenerator)


def _stream_output(where: str, annotation: Any) -> tuple[bool | None, Any]:
    """The annotation of a stream's items: of ``AsyncIterator[Card]``, ``Card``."""
    if annotation is not Any and (typing.get_origin(annotation) or annotation) not in _STREAMS:
        raise ImproperlyConfigured(
            f"{where} is a stream, because it yields: expected the annotation AsyncIterator[...] with the type of its "
            f"items, got {annotation!r}"
        )
    arguments = typing.get_args(annotation)
    return False, arguments[0] if arguments else Any


def _first_line(function: Callable[..., Any]) -> str | None:
    text = inspect.getdoc(function)
    return text.partition("\n")[0] if text else None
