"""pydantic at the edges: a type's validator for what comes as JSON, and its serializer for what goes out as JSON."""

from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from wsaction.exceptions import ImproperlyConfigured

__all__ = ("json_encoder", "json_validator")


def json_validator(annotation: Any) -> Callable[[Any], Any]:
    """A function that validates a parsed JSON value as ``annotation``, with the verdict that its JSON text would have.

    It raises ``pydantic.ValidationError``. A type that tells JSON from Python (strict models, custom schemas, unions)
    is given JSON text again; others, the parsed value. ``json_validator(datetime.date)("2026-11-23")`` is a date,
    strict or not.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    validate_python, validate_json = adapter.validator.validate_python, adapter.validator.validate_json

    def as_json(value: Any) -> Any:
        return validate_json(to_json(value, inf_nan_mode="constants"))

    def as_parsed(value: Any) -> Any:
        try:
            return validate_python(value)
        except ValidationError:  # once more, so that the errors speak of JSON: no dictionaries, no instances
            return as_json(value)

    return as_json if _any_part(adapter.core_schema, _tells_json_apart) else as_parsed


def _tells_json_apart(part: dict[str, Any]) -> bool:
    """Whether a core schema may judge a JSON text and the Python value parsed from it differently."""
    if part.get("strict") is True:
        return True
    # The last two: a validator may ask which of the two it is given, and a union tries its members strictly first.
    return part.get("type") in ("json-or-python", "bytes", "timedelta", "with-info", "union")


def _any_part(schema: Any, says: Callable[[dict[str, Any]], bool]) -> bool:
    """Whether any part of a core schema says so."""
    if isinstance(schema, list | tuple):
        return any(_any_part(part, says) for part in schema)
    if not isinstance(schema, dict):
        return False
    parts = (part for key, part in schema.items() if key not in ("metadata", "serialization"))
    return says(schema) or any(_any_part(part, says) for part in parts)


def json_encoder(annotation: Any = Any) -> Callable[[Any], str]:
    """A function that writes a value as compact JSON the way ``annotation`` says; NaN and infinities become null.

    A value that is what was announced is not validated. One that is not (a row, a dict where a model is announced) is
    validated from its attributes first, so that it has the announced shape; ``TypeError`` says when it cannot.
    Raises `ImproperlyConfigured` for a model that is configured to write what is no JSON.
    ``json_encoder(Decimal)(Decimal("1.50"))`` is ``'"1.50"'``.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    if _any_part(adapter.core_schema, lambda part: part.get("ser_json_inf_nan") == "constants"):
        raise ImproperlyConfigured(
            f"{_name(annotation)} is configured with ser_json_inf_nan='constants', which writes NaN and Infinity, "
            "no JSON; leave it out for null, or say 'strings'"
        )
    to_json, validate = adapter.serializer.to_json, adapter.validator.validate_python
    announced = annotation if isinstance(annotation, type) else None

    def encode(value: Any) -> str:
        try:
            if type(value) is announced:
                return to_json(value).decode()
            return to_json(value, warnings="error").decode()
        except PydanticSerializationError as exc:
            return reshape(value, exc)

    def reshape(value: Any, unexpected: PydanticSerializationError) -> str:
        unwritable = TypeError(
            f"{type(value).__name__} cannot be written as JSON: {unexpected}; "
            "return a pydantic model, or annotate the return type with one"
        )
        if annotation is Any:
            raise unwritable from unexpected
        try:
            return to_json(validate(value, from_attributes=True), warnings="error").decode()
        except ValidationError as exc:
            raise TypeError(
                f"{type(value).__name__} was returned where {_name(annotation)} is announced: {exc}"
            ) from exc
        except PydanticSerializationError:
            raise unwritable from unexpected

    return encode


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else repr(annotation)
