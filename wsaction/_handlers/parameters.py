"""Parameters of functions: read once from the signature, then filled by name with validated values."""

import copy
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import PydanticUserError, ValidationError

from wsaction.exceptions import ImproperlyConfigured, validation_items
from wsaction.serializers._models import json_validator

EMPTY = inspect.Parameter.empty
PROTOCOL_KEYS = ("action", "route", "request_id")  # parameters with these names get the frame's attributes

# A parameter: its name; its validator (None without an annotation); the type whose values need no validation; and its
# default (`EMPTY` if it is required). It is a plain tuple, because unpacking that for each frame is fast.
Parameter: TypeAlias = tuple[str, Callable[[Any], Any] | None, type | None, Any]


@dataclass(frozen=True, slots=True)
class Input:
    """A parameter as clients see it: a key of the frame, unless the route captures that name."""

    name: str
    annotation: Any = Any
    default: Any = EMPTY  # also for a default that is created for each call
    required: bool = True


def fill(
    bound: dict[str, Any], name: str, value: Any, validate: Callable[[Any], Any], errors: list[dict[str, Any]]
) -> None:
    """Fills a parameter with the validated value, or adds to ``errors``."""
    try:
        bound[name] = validate(value)
    except ValidationError as exc:
        errors += validation_items(exc, name)


def copy_default(default: Any) -> Any:
    """A parameter's default for one call: a copy if its type is mutable."""
    return copy.deepcopy(default) if type(default).__hash__ is None else default


def missing_error(name: str) -> dict[str, Any]:
    """The item of ``errors`` for a parameter that the frame does not have."""
    return {"type": "missing", "msg": "Field required", "loc": [name]}


def read_hints(where: str, function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function by name. Raises `ImproperlyConfigured` if one cannot be evaluated."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as exc:  # annotations may be any expression, so they may raise anything
        raise ImproperlyConfigured(
            f"the annotations of {where} cannot be read ({type(exc).__name__}: {exc}); they are evaluated when the "
            "class is created, so define their names at module level, before the class"
        ) from exc


def read_parameter(where: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> tuple[Parameter, Input]:
    """A parameter, and how clients see it. Raises `ImproperlyConfigured` for a declaration that has no effect."""
    name, default = parameter.name, parameter.default
    annotation = hints.get(name, EMPTY)
    from pydantic.fields import FieldInfo  # here, because importing it takes 12 ms

    if annotation is EMPTY or annotation is Any:
        return (name, None, None, default), Input(name, Any, default, default is EMPTY)
    if isinstance(default, FieldInfo):
        raise ImproperlyConfigured(
            f"{where}: the default of {name} is a pydantic Field(), which would be its value; write "
            f"{name}: Annotated[..., Field(...)], and = the default after it"
        )
    for field in getattr(annotation, "__metadata__", ()):
        if isinstance(field, FieldInfo) and (field.alias or field.validation_alias or not field.is_required()):
            raise ImproperlyConfigured(
                f"{where}: the Field() of {name} sets a default or an alias, which has no effect; write the default "
                "after =, and give the parameter the name that clients use"
            )
    validate = built(where, f"parameter {name}", json_validator, annotation)
    plain = annotation if annotation in (str, int, bool) else None
    return (name, validate, plain, default), Input(name, annotation, default, default is EMPTY)


def built(where: str, what: str, build: Callable[[Any], Any], annotation: Any) -> Any:
    """Builds a validator or encoder for an annotation. Raises `ImproperlyConfigured` if pydantic cannot."""
    try:
        return build(annotation)
    except PydanticUserError as exc:
        raise ImproperlyConfigured(
            f"{where}: {what} is annotated {annotation!r}, which pydantic cannot handle: {exc.message}; annotate a "
            "type that it can, or leave the annotation out"
        ) from exc
