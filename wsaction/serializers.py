"""pydantic at the edges: a type's validator for what comes as JSON, and its serializer for what goes out as JSON."""

from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

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

    return as_json if _tells_json_apart(adapter.core_schema) else as_parsed


def _tells_json_apart(schema: Any) -> bool:
    """Whether a core schema may judge a JSON text and the Python value parsed from it differently."""
    if isinstance(schema, list | tuple):
        return any(map(_tells_json_apart, schema))
    if not isinstance(schema, dict):
        return False
    if schema.get("strict") is True or schema.get("type") in ("json-or-python", "bytes", "timedelta"):
        return True
    if schema.get("type") in ("with-info", "union"):  # one may ask which it is given; the other tries strictly first
        return True
    return any(_tells_json_apart(part) for key, part in schema.items() if key not in ("metadata", "serialization"))


def json_encoder(annotation: Any = Any) -> Callable[[Any], str]:
    """A function that writes a value as compact JSON the way ``annotation`` says; NaN and infinities become null.

    A value that is what was announced is not validated. One that is not (a row, a dict where a model is announced) is
    validated from its attributes first, so that it has the announced shape; ``TypeError`` says when it cannot.
    ``json_encoder(Decimal)(Decimal("1.50"))`` is ``'"1.50"'``.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
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
        try:
            return to_json(validate(value, from_attributes=True), warnings="error").decode()
        except ValidationError as exc:
            raise TypeError(
                f"{type(value).__name__} was returned where {_name(annotation)} is announced: {exc}"
            ) from exc
        except PydanticSerializationError:
            raise TypeError(
                f"{type(value).__name__} cannot be written as JSON: {unexpected}; "
                "return a pydantic model, or annotate the return type with one"
            ) from unexpected

    return encode


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else repr(annotation)
