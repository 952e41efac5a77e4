"""Attributes that are almost those that the framework reads, and would count for nothing.

A misspelt policy opens an endpoint: whoever writes ``has_permision`` or ``permission_class`` guards nothing. So a class
with such an attribute is refused where it is created. Only what is hardly anything else is refused: the name differs by
a letter or two, or by case and underscores; it stands for the same kind of thing, of a method one that could be called
in its place; and nobody has overridden what is meant. ``wsaction check`` reports what can only be guessed.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from wsaction.routing.exceptions import ImproperlyConfigured

__all__ = ("defined_by_user", "framework_names", "is_code", "is_ours", "refuse_misspelt", "user_attributes")

_POLICIES = ("class", "classes", "backends", "patterns")  # of which the singular or plural is a mistake too
# Settings which open something where they count for nothing; of methods, any may refuse.
_GUARDS = ("permission_classes", "throttle_classes", "filter_backends", "recheck", "limits", "lookup_field")
# Of these a singular is a mistake too, where it takes the same arguments.
_ASKING = {"getpermissions", "checkpermissions", "checkobjectpermissions", "getthrottles", "checkthrottles"}


def is_ours(cls: type) -> bool:
    """Whether a class is the framework's own."""
    return cls.__module__.partition(".")[0] == "wsaction"


def framework_names(cls: type) -> dict[str, Any]:
    """The public attributes of the framework's classes that a class derives from, by name."""
    ours = [base for base in reversed(cls.__mro__) if is_ours(base)]
    return {name: value for base in ours for name, value in vars(base).items() if not name.startswith("_")}


def user_attributes(cls: type) -> Iterator[tuple[type, str, Any]]:
    """The public attributes that the user's classes among its bases define: each class, name and value."""
    for base in cls.__mro__:
        if not is_ours(base) and base.__module__ not in ("builtins", "typing", "abc"):
            yield from ((base, name, value) for name, value in vars(base).items() if not name.startswith("_"))


def defined_by_user(cls: type, name: str) -> bool:
    """Whether it is a class of the user's that says what an attribute is, and not the framework."""
    definer = next((base for base in cls.__mro__ if name in vars(base)), None)
    return definer is not None and not is_ours(definer)


def refuse_misspelt(cls: type, is_exempt: Callable[[Any], bool] = lambda value: False) -> None:
    """Raises `ImproperlyConfigured` for an attribute of a user's class that is misspelt.

    ``is_exempt`` tells values that are never meant for the framework's attributes, actions for example.
    """
    if is_ours(cls):
        return
    read = framework_names(cls)
    _refuse_hidden(cls, read)
    _refuse_unset(cls, read)
    own = [*user_attributes(cls)]
    overridden = {name for _, name, _ in own}
    meant = [(name, _plain(name), value) for name, value in read.items() if name not in overridden]
    for base, name, value in own:
        if name in read or is_exempt(value):
            continue
        plain = _plain(name)
        for target, plain_target, read_value in meant:
            if _is_misspelt(plain, value, plain_target, read_value):
                raise ImproperlyConfigured(
                    f"{base.__qualname__}.{name} is an attribute that nothing reads; did you mean {target!r}? If it is "
                    "your own, give it a name that cannot be mistaken"
                )


def _refuse_hidden(cls: type, read: dict[str, Any]) -> None:
    """Raises for what a user's class says and the framework's own hides, as its class comes first among the bases: a
    guard opens nothing so in silence, whichever hook it stands in."""
    for name in (one for one, value in read.items() if one in _GUARDS or is_code(value)):
        first, *others = (base for base in cls.__mro__ if name in vars(base))
        hidden = next((one for one in others if not (is_ours(one) or one is object or _is_protocol(one))), None)
        if is_ours(first) and hidden is not None:
            raise ImproperlyConfigured(
                f"{hidden.__qualname__}.{name} would count for nothing in {cls.__qualname__}, where "
                f"{first.__qualname__} comes before it and has its own; put {hidden.__qualname__} first among the bases"
            )


def _is_protocol(cls: type) -> bool:
    """Whether it is a ``Protocol``, which says nothing but for type checkers."""
    return bool(vars(cls).get("_is_protocol"))


def _refuse_unset(cls: type, read: dict[str, Any]) -> None:
    """Raises for a setting that is given a value as if that were its type: ``permission_classes: (IsOwner,)``."""
    for base in (one for one in cls.__mro__ if not is_ours(one)):
        for name, said in vars(base).get("__annotations__", {}).items():
            is_value = said.lstrip().startswith(("(", "[")) if isinstance(said, str) else isinstance(said, list | tuple)
            if is_value and name in read and name not in vars(base):
                raise ImproperlyConfigured(
                    f"{base.__qualname__}.{name} is annotated and has no value, so that it would count for nothing; "
                    f"write {name} = ..."
                )


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _is_misspelt(name: str, value: Any, target: str, read: Any) -> bool:
    if is_code(value) is not is_code(read):
        return False
    arguments = _required(read) if is_code(read) else 0
    most = 0 if len(target) < 7 else 1 if len(target) < 10 else 2 if arguments < 5 else 3
    if abs(len(name) - len(target)) > most:
        return False
    if name == target:
        return True
    if target in name or name in target:  # a plural, or another name that begins or ends so
        if target in _ASKING:
            return _takes_only(value, arguments)
        if is_code(read) and arguments < 3:
            return False
        if not (is_code(read) or target.endswith(_POLICIES)):
            return False
    return _distance(name, target) <= most and (not is_code(read) or _takes(value, arguments))


def is_code(value: Any) -> bool:
    """Whether an attribute is a method, a property or the like, and no setting."""
    return hasattr(type(value), "__get__")


def _function(value: Any) -> Any:
    return getattr(value, "__func__", None) or getattr(value, "fget", None) or value


def _required(method: Any) -> int:
    """How many arguments a method has to be given, itself among them."""
    try:
        parameters = inspect.signature(_function(method)).parameters.values()
    except (TypeError, ValueError):  # a descriptor that is no function
        return 0
    return len([one for one in parameters if one.default is one.empty and one.kind <= one.POSITIONAL_OR_KEYWORD])


def _takes(method: Any, arguments: int) -> bool:
    """Whether a method could be called with so many arguments."""
    try:
        inspect.signature(_function(method)).bind(*[None] * arguments)
    except (TypeError, ValueError):
        return False
    return True


def _takes_only(method: Any, arguments: int) -> bool:
    """Whether a method takes so many arguments, and no others."""
    try:
        return len(inspect.signature(_function(method)).parameters) == arguments and _takes(method, arguments)
    except (TypeError, ValueError):
        return False


def _distance(one: str, other: str) -> int:
    """How many letters were left out, added, replaced or swapped with the next."""
    before: list[int] = []
    last: list[int] = [*range(len(other) + 1)]
    for i, left in enumerate(one, 1):
        row: list[int] = [i]
        for j, right in enumerate(other, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (left != right)))
            if i > 1 < j and (left, one[i - 2]) == (other[j - 2], right):
                row[j] = min(row[j], before[j - 2] + 1)
        before, last = last, row
    return last[-1]
