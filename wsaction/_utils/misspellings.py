"""Refuse misspelt attributes of classes that users write, when the class is created.

A misspelt policy opens an endpoint: ``has_permision`` or ``permission_class`` guards nothing. To refuse no attribute
that is meant, three things must hold. The name differs by a letter or two, or by case and underscores. The value is of
the same kind: a method could be called in the other's place. No class of the user defines the attribute with the right
name. ``wsaction check`` reports less certain cases.
"""

import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from wsaction._utils.bytecode import returns_nothing
from wsaction.routing.exceptions import ImproperlyConfigured

_POLICIES = ("class", "classes", "backends", "patterns")  # settings whose singular or plural is a mistake too
# Settings that leave something open if they have no effect. Any method may refuse, so all methods count too.
_GUARDS = ("permission_classes", "throttle_classes", "filter_backends", "recheck", "limits", "lookup_field")
# Methods whose singular is a mistake too, if it takes the same arguments.
_GUARD_METHODS = {"getpermissions", "checkpermissions", "checkobjectpermissions", "getthrottles", "checkthrottles"}


def is_ours(cls: type) -> bool:
    """Whether a class is wsaction's own."""
    return cls.__module__.partition(".")[0] == "wsaction"


def get_framework_attributes(cls: type) -> dict[str, Any]:
    """The public attributes that a class inherits from wsaction's classes, by name."""
    ours = [base for base in reversed(cls.__mro__) if is_ours(base)]
    return {name: value for base in ours for name, value in vars(base).items() if not name.startswith("_")}


def user_attributes(cls: type) -> Iterator[tuple[type, str, Any]]:
    """The public attributes that a class and its bases outside wsaction define: each class, name and value."""
    for base in cls.__mro__:
        if not is_ours(base) and base.__module__ not in ("builtins", "typing", "abc"):
            yield from ((base, name, value) for name, value in vars(base).items() if not name.startswith("_"))


def names_in(cls: type) -> set[str]:
    """Every name, parameter and string constant in the methods of a class and its bases outside wsaction."""
    names: set[str] = set()
    for base in (base for base in cls.__mro__ if not is_ours(base)):
        for value in vars(base).values():
            for code in _codes(value):
                names.update(code.co_names, code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
                names.update(const for const in code.co_consts if isinstance(const, str))
    return names


def _codes(value: Any) -> Iterator[CodeType]:
    """The code of a method or property, and of the functions in it."""
    parts = [value, *(getattr(value, name, None) for name in ("__func__", "fget", "fset", "func", "__wrapped__"))]
    pending = [code for part in parts if isinstance(code := getattr(part, "__code__", None), CodeType)]
    while pending:
        yield (code := pending.pop())
        pending += [const for const in code.co_consts if isinstance(const, CodeType)]


def defined_by_user(cls: type, name: str) -> bool:
    """Whether an attribute comes from a class outside wsaction."""
    definer = next((base for base in cls.__mro__ if name in vars(base)), None)
    return definer is not None and not is_ours(definer)


def refuse_misspelt(cls: type, is_exempt: Callable[[Any], bool] = lambda value: False) -> None:
    """Raises `ImproperlyConfigured` if a user's class has a misspelt attribute.

    ``is_exempt`` returns whether a value is never meant for an attribute of the framework, as an action is not.
    """
    if is_ours(cls):
        return
    framework_attributes = get_framework_attributes(cls)
    _refuse_hidden(cls, framework_attributes)
    _refuse_unset(cls, framework_attributes)
    attributes = [*user_attributes(cls)]
    overridden = {name for _, name, _ in attributes}
    targets = [
        (name, _normalized(name), value) for name, value in framework_attributes.items() if name not in overridden
    ]
    for base, name, value in attributes:
        if name in framework_attributes and not (is_exempt(value) or is_exempt(framework_attributes[name])):
            _check_override(base, name, value, framework_attributes[name])
        if name in framework_attributes or is_exempt(value):
            continue
        normalized = _normalized(name)
        for target, normalized_target, framework_value in targets:
            if _is_misspelt(normalized, value, normalized_target, framework_value):
                raise ImproperlyConfigured(
                    f"{base.__qualname__}.{name} is an attribute that nothing reads; did you mean {target!r}? If it is "
                    "your own attribute, give it a name that is less similar"
                )


def _check_override(base: type, name: str, value: Any, framework_value: Any) -> None:
    """Raises `ImproperlyConfigured` for a method that can never do what the one it overrides does."""
    if not (inspect.isfunction(value) and inspect.isfunction(framework_value)):
        return
    original: Any = inspect.unwrap(framework_value)
    where, parameters = f"{base.__qualname__}.{name}", inspect.signature(original).parameters
    arguments = _required(original)
    if name in _CALLED_FOR_ALL and not _accepts(value, arguments):
        expected, got = ", ".join([*parameters][:arguments]), ", ".join(inspect.signature(value).parameters)
        raise ImproperlyConfigured(
            f"{where}: expected the parameters ({expected}), got ({got}); it is called with these"
        )
    if not returns_nothing(value):
        return
    if inspect.iscoroutinefunction(original) and not inspect.iscoroutinefunction(value):
        raise ImproperlyConfigured(
            f"{where}: expected an async def, got a def that returns nothing to await; add async"
        )
    returned = original.__annotations__.get("return")
    if returned is not None and ("None" not in str(returned) or name in _USELESS_WITHOUT_RESULT):
        raise ImproperlyConfigured(f"{where} returns nothing, whatever it is asked; did you forget `return`?")


# Methods that may return None, but do nothing if they always do.
_USELESS_WITHOUT_RESULT = {"authenticate", "authenticate_data", "verify", "get_cache_key"}
# Methods that run for each connection or frame, so that none works if their parameters differ.
_CALLED_FOR_ALL = {"connect", "disconnect", "check_permissions", "get_permissions", "check_throttles", "get_throttles"}
_CALLED_FOR_ALL |= {"check_object_permissions", "get_queryset", "get_topic"}


def _refuse_hidden(cls: type, framework_attributes: dict[str, Any]) -> None:
    """Raises if a class of wsaction hides an attribute of a user's class, because it comes first among the bases.

    A guard in any hook would otherwise be switched off silently.
    """
    for name in (name for name, value in framework_attributes.items() if name in _GUARDS or is_code(value)):
        first, *others = (base for base in cls.__mro__ if name in vars(base))
        hidden = next((base for base in others if not (is_ours(base) or base is object or _is_protocol(base))), None)
        if is_ours(first) and hidden is not None:
            raise ImproperlyConfigured(
                f"{hidden.__qualname__}.{name} has no effect in {cls.__qualname__}, because {first.__qualname__} comes "
                f"before it and has its own; put {hidden.__qualname__} first among the bases"
            )


def _is_protocol(cls: type) -> bool:
    """Whether it is a ``Protocol``, which only type checkers read."""
    return bool(vars(cls).get("_is_protocol"))


def _refuse_unset(cls: type, framework_attributes: dict[str, Any]) -> None:
    """Raises if a setting's value was written as its type: ``permission_classes: (IsOwner,)``."""
    for base in (base for base in cls.__mro__ if not is_ours(base)):
        for name, annotation in vars(base).get("__annotations__", {}).items():
            if _is_value(annotation) and name in framework_attributes and name not in vars(base):
                raise ImproperlyConfigured(
                    f"{base.__qualname__}.{name} is annotated and has no value, so it has no effect; write {name} = ..."
                )


def _is_value(annotation: Any) -> bool:
    """Whether an annotation is a list or a tuple instead of a type."""
    if isinstance(annotation, str):
        return annotation.lstrip().startswith(("(", "["))
    return isinstance(annotation, list | tuple)


def _normalized(name: str) -> str:
    return name.replace("_", "").lower()


def _is_misspelt(name: str, value: Any, target: str, framework_value: Any) -> bool:
    if is_code(value) is not is_code(framework_value):
        return False
    arguments = _required(framework_value) if is_code(framework_value) else 0
    max_distance = 0 if len(target) < 7 else 1 if len(target) < 10 else 2 if arguments < 5 else 3
    if abs(len(name) - len(target)) > max_distance:
        return False
    if name == target:
        return True
    if target in name or name in target:  # a plural, or another name that contains this one
        if target in _GUARD_METHODS:
            return _accepts_only(value, arguments)
        if is_code(framework_value) and arguments < 3:
            return False
        if not (is_code(framework_value) or target.endswith(_POLICIES)):
            return False
    return _distance(name, target) <= max_distance and (not is_code(framework_value) or _accepts(value, arguments))


def is_code(value: Any) -> bool:
    """Whether an attribute is a method, a property or another descriptor, and not a setting."""
    return hasattr(type(value), "__get__")


def _function(value: Any) -> Any:
    return getattr(value, "__func__", None) or getattr(value, "fget", None) or value


def _required(method: Any) -> int:
    """The number of arguments that a method requires, ``self`` included."""
    try:
        parameters = inspect.signature(_function(method)).parameters.values()
    except (TypeError, ValueError):  # a descriptor that is not a function
        return 0
    return sum(p.default is p.empty and p.kind <= p.POSITIONAL_OR_KEYWORD for p in parameters)


def _accepts(method: Any, arguments: int) -> bool:
    """Whether a method can be called with this number of arguments."""
    try:
        inspect.signature(_function(method)).bind(*[None] * arguments)
    except (TypeError, ValueError):
        return False
    return True


def _accepts_only(method: Any, arguments: int) -> bool:
    """Whether a method takes exactly this number of arguments."""
    try:
        return len(inspect.signature(_function(method)).parameters) == arguments and _accepts(method, arguments)
    except (TypeError, ValueError):
        return False


def _distance(name: str, target: str) -> int:
    """The edit distance: letters left out, added, replaced, or swapped with their neighbour."""
    before_previous: list[int] = []
    previous: list[int] = [*range(len(target) + 1)]
    for i, left in enumerate(name, 1):
        row: list[int] = [i]
        for j, right in enumerate(target, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (left != right)))
            if i > 1 < j and (left, name[i - 2]) == (target[j - 2], right):
                row[j] = min(row[j], before_previous[j - 2] + 1)
        before_previous, previous = previous, row
    return previous[-1]
