"""The fields of pydantic models, as lookups use them, and conversion of values by pydantic's rules."""

import types
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_json, to_jsonable_python


def coercer(annotation: Any) -> Callable[[Any], Any]:
    """A function that converts a value to a type: ``coercer(int)("7") == 7``.

    It raises ``ValueError`` with pydantic's message.
    """
    validate = TypeAdapter[Any](annotation).validator.validate_python

    def coerce(value: Any) -> Any:
        try:
            return validate(value)
        except ValidationError as exc:
            raise ValueError(exc.errors(include_url=False, include_input=False)[0]["msg"]) from None

    return coerce


def revealed(value: Any) -> Any:
    """A value with pydantic's secrets replaced by their plain values, and models by dicts."""
    if hasattr(value, "get_secret_value"):  # not isinstance: the module of pydantic's secrets is slow to import
        return revealed(value.get_secret_value())
    if isinstance(value, BaseModel):
        value = {**value.__dict__, **(value.__pydantic_extra__ or {})}
    if isinstance(value, dict):
        return {revealed(key): revealed(item) for key, item in value.items()}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(map(revealed, value))
    return value


def jsonable(value: Any) -> Any:
    """A value as JSON data, secrets as plain values: ``jsonable({"at": date(2024, 1, 31)}) == {"at": "2024-01-31"}``.

    Raises ``ValueError`` for a value that JSON cannot represent.
    """
    return to_jsonable_python(revealed(value), inf_nan_mode="strings")


def json_text(value: Any) -> str:
    """A value of another type as the text that JSON has for it, for a text field: ``json_text(True) == "true"``.

    Raises ``ValueError`` for a list or an object, because the text field would not read it back as one.
    """
    plain = jsonable(value)
    if isinstance(plain, list | dict):
        raise ValueError(f"expected a value that can be stored as a text, not a {type(value).__name__}")
    return plain if isinstance(plain, str) else to_json(plain).decode()


def members(annotation: Any) -> tuple[Any, ...]:
    """The types in a union, without None: ``members(int | None) == (int,)``. `Annotated` is looked through."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(part for option in get_args(annotation) for part in members(option) if part is not type(None))
    return (annotation,)


_IMMUTABLE = (str, int, float, bytes, UUID, Decimal, date, datetime, time, timedelta, Enum)


def is_immutable(annotation: Any) -> bool:
    """Whether all values of a type are immutable."""
    return all(
        part is type(None)
        or get_origin(part) is Literal
        or (isinstance(part, type) and issubclass(part, _IMMUTABLE) and get_origin(part) is None)
        for part in members(annotation)
    )


class ModelFields:
    """The fields of a pydantic model and of the models nested in it; implements `querysets._lookups.Fields`.

    ``pk`` is the name of the key's field, None if objects have no key.
    """

    def __init__(self, model: type[BaseModel], pk: str | None) -> None:
        self.model = model
        self.pk = pk
        if not model.__pydantic_complete__:  # it refers to classes that were declared after it
            model.model_rebuild(raise_errors=False)
        self.types: Mapping[str, Any] = {name: field.annotation for name, field in model.model_fields.items()}
        self._coercers: dict[str, Callable[[Any], Any]] = {}

    @property
    def name(self) -> str:
        return self.model.__name__

    def names(self) -> Collection[str]:
        return self.types

    @cached_property
    def _related(self) -> "dict[str, ModelFields]":
        """Made at first use, because a model may contain itself."""
        models = {name: members(annotation) for name, annotation in self.types.items()}
        return {
            name: ModelFields(found[0], "id" if "id" in found[0].model_fields else None)
            for name, found in models.items()
            if len(found) == 1 and isinstance(found[0], type) and issubclass(found[0], BaseModel)
        }

    def related(self, name: str) -> "ModelFields | None":
        return self._related.get(name)

    def coerce(self, name: str, value: Any) -> Any:
        if name not in self._coercers:
            self._coercers[name] = coercer(self.types[name])
        return self._coercers[name](value)

    def is_text(self, name: str) -> bool:
        return any(
            part is Any or get_origin(part) is Literal or (isinstance(part, type) and issubclass(part, str))
            for part in members(self.types[name])
        )

    def coerce_text(self, name: str, value: str) -> str:
        return value

    def key_of(self, value: Any) -> Any:
        return getattr(value, self.pk) if self.pk is not None and isinstance(value, self.model) else value
