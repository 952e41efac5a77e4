"""Validation and JSON by pydantic: validators for JSON input, JSON encoders for output, and the models for both.

`input_model` is a model's input, without the fields marked `ReadOnly`. `output_model` is its output, without those
marked `WriteOnly`.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import (
    PydanticSerializationError,
    PydanticUndefined,
    SchemaSerializer,
    SchemaValidator,
    core_schema,
    to_json,
)

from wsaction.exceptions import ImproperlyConfigured, InvalidParameters, validation_items
from wsaction.serializers._core_schema import (
    MAX_MODELS,
    READ,
    WRITTEN,
    ReadOnly,
    SchemaRewriter,
    WriteOnly,
    build,
    check_unmarked,
    core_of,
    fields_of,
    marked,
    marked_names,
    model_validators,
)
from wsaction.serializers._write_only import strip_write_only, without_write_only

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo  # slow to import; defining a model loads it

M = TypeVar("M", bound=BaseModel)


def json_validator(annotation: Any) -> Callable[[Any], Any]:
    """A function that validates a parsed JSON value as ``annotation``, with the same result as for its JSON text.

    It raises ``pydantic.ValidationError``. Types that treat JSON and Python values differently (strict models, custom
    schemas, unions) validate JSON text, written anew; others validate the parsed value.
    ``json_validator(datetime.date)("2026-11-23")`` is a date, strict or not.

    Input for a model's `ReadOnly` fields is ignored. They get their defaults; without a default, they are missing from
    the instance. Raises `ImproperlyConfigured` for misplaced markers.
    """
    check_unmarked(annotation)
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    if (schema := READ.of_schema(adapter.core_schema)) is not None:
        return _json_validator(schema, build(SchemaValidator, schema))
    return _json_validator(adapter.core_schema, adapter.validator)


def _json_validator(schema: Any, validator: Any) -> Callable[[Any], Any]:
    validate_python, validate_json = validator.validate_python, validator.validate_json

    def as_json(value: Any) -> Any:
        return validate_json(to_json(value, inf_nan_mode="constants"))

    def as_parsed(value: Any) -> Any:
        try:
            return validate_python(value)
        except ValidationError:  # again, for error messages about JSON: "object", not "dictionary or instance"
            return as_json(value)

    if _any_part(schema, _tells_json_apart):
        return as_json
    as_parsed.fast_validate = validate_python  # type: ignore[attr-defined]
    return as_parsed


def fast_validate(validate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The first attempt of a `json_validator`. If it raises ``ValidationError``, call the validator itself."""
    first: Callable[[Any], Any] = getattr(validate, "fast_validate", validate)
    return first


def python_validator(annotation: Any, title: str) -> Callable[[Any], Any]:
    """A function that validates a value of the application as ``annotation``, objects by their attributes.

    It raises ``pydantic.ValidationError``, "1 validation error for ``title``". `WriteOnly` fields may be missing.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    adapter.validator  # noqa: B018  # raises if the type is not fully defined yet
    hides: bool = getattr(annotation, "model_config", {}).get("hide_input_in_errors", False)
    config: Any = {"title": title, "hide_input_in_errors": hides}
    schema = WRITTEN.of_schema(adapter.core_schema)
    validator = (
        SchemaValidator(adapter.core_schema, config) if schema is None else build(SchemaValidator, schema, config)
    )
    return partial(validator.validate_python, from_attributes=True)


def _tells_json_apart(part: dict[str, Any]) -> bool:
    """Whether a core schema may validate a JSON text and the Python value parsed from it differently."""
    if part.get("strict") is True:
        return True
    # "with-info": a validator can read the mode, JSON or Python. "union": it tries its members in strict mode first.
    return part.get("type") in ("json-or-python", "bytes", "timedelta", "with-info", "union")


def _any_part(schema: Any, matches: Callable[[dict[str, Any]], bool]) -> bool:
    """Whether any part of a core schema matches."""
    if isinstance(schema, list | tuple):
        return any(_any_part(part, matches) for part in schema)
    if not isinstance(schema, dict):
        return False
    if matches(schema):
        return True
    for key, part in schema.items():
        if key in ("fields", "choices") and isinstance(part, dict):  # their keys are names of fields or tags: any text
            part = [*part.values()]
        if key not in ("metadata", "serialization") and _any_part(part, matches):
            return True
    return False


def json_encoder(annotation: Any = Any) -> Callable[[Any], str]:
    """A function that encodes a value as compact JSON, by the schema of ``annotation``. NaN and infinities become null.

    A value of the annotated type is not validated. Any other value (a row or a dict, for example) is validated from its
    attributes first; the function raises ``TypeError`` if it does not fit. `WriteOnly` fields of models are left out,
    annotated or not. Raises `ImproperlyConfigured` for misplaced markers and for a model that would write NaN.
    ``json_encoder(Decimal)(Decimal("1.50"))`` is ``'"1.50"'``.
    """
    check_unmarked(annotation)
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    if _any_part(adapter.core_schema, lambda part: part.get("ser_json_inf_nan") == "constants"):
        raise ImproperlyConfigured(
            f"{_name(annotation)} has ser_json_inf_nan='constants', which writes NaN and Infinity; these are not JSON; "
            "leave it out for null, or set 'strings'"
        )
    schema = WRITTEN.of_schema(adapter.core_schema)
    validate = (adapter.validator if schema is None else build(SchemaValidator, schema)).validate_python
    is_any = adapter.core_schema == {"type": "any"}
    schema = None if is_any else without_write_only(adapter.core_schema)
    to_json = (adapter.serializer if schema is None else build(SchemaSerializer, schema)).to_json
    announced = annotation if isinstance(annotation, type) else None
    # In the place of a model, pydantic writes any object by its __dict__, even with attributes missing: an expired row
    # becomes {}. So values that may hold such objects are validated first; instances of the model cost little there.
    holds_models = _any_part(adapter.core_schema, lambda part: part.get("type") == "model")

    def encode(value: Any) -> str:
        try:
            if type(value) is announced:  # "error": by default pydantic only warns about a value of a wrong type
                return to_json(value, warnings="error").decode()
            if is_any:
                value = strip_write_only(value)
            if not holds_models:
                return to_json(value, warnings="error").decode()
        except (PydanticSerializationError, RecursionError) as exc:
            if annotation is Any:
                raise unwritable(value, exc) from exc
        return reshape(value)

    def reshape(value: Any) -> str:
        if isinstance(value, BaseException):  # it would fit a model whose fields have defaults
            raise TypeError(_unawaited(value))
        try:
            return to_json(validate(value, from_attributes=True), warnings="error").decode()
        except ValidationError as exc:
            message = f"{type(value).__name__} was returned where {_name(annotation)} is announced"
            raise TypeError(_unawaited(value) or f"{message}{_status_hint(value, annotation)}: {exc}") from exc
        except (PydanticSerializationError, RecursionError) as exc:
            raise unwritable(value, exc) from exc

    def unwritable(value: Any, exc: Exception) -> TypeError:
        cure = "return a pydantic model, or annotate the return type with one"
        if "<class 'coroutine'>" in str(exc):  # inside the value
            cure = "did you forget `await`?"
        return TypeError(_unawaited(value) or f"{type(value).__name__} cannot be written as JSON: {exc}; {cure}")

    return encode


def _unawaited(value: Any) -> str | None:
    """The error for an exception that was not raised, or a coroutine that was not awaited; None for other values.

    Closes the coroutine: Python would warn too.
    """
    if isinstance(value, BaseException):
        return f"the exception {type(value).__name__} was returned, not raised; write raise"
    if not isinstance(value, CoroutineType):
        return None
    value.close()
    return f"the coroutine {value.__qualname__}() was returned, not its result; did you forget `await`?"


def _status_hint(value: Any, annotation: Any) -> str:
    """A hint for a tuple that was probably meant as (value, status)."""
    if type(value) is not tuple or len(value) != 2 or get_origin(annotation) is tuple:
        return ""
    if isinstance(value[1], int):
        return f"; where a status is returned too, annotate tuple[{_name(annotation)}, int]"
    return f"; a status is an int, got {value[1]!r}" if isinstance(value[1], str) and value[1].isdigit() else ""


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else repr(annotation)


# ------------------------------------------------------------------------------------------------- one model, two ways
class InputModel:
    """The input of a serializer; made by `input_model`. `values` validates what a client sent."""

    def __init__(self, model: type[BaseModel], partial: bool) -> None:
        self.model = model
        self.partial = partial
        rewriter = SchemaRewriter("Input", ReadOnly, _nested_input)
        self.schema = rewriter.of_outermost(model, partial=partial)
        self._defaults = {name: _default(info) for name, info in marked(model, ReadOnly).items()}
        self._validate = _fields_validator(self.schema)
        check = model_validators(model)
        self._check = None if check is None else SchemaValidator(check)

    def __repr__(self) -> str:
        return f"input_model({self.model.__name__}{', partial=True' if self.partial else ''})"

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return core_schema.any_schema()  # as an annotation it accepts anything: `values` validates it

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        return handler(self.schema)

    def values(self, data: Any, obj: Any = None) -> dict[str, Any]:
        """Validates input and returns the values to write, by the names of the model's fields.

        ``data`` is parsed JSON, or an instance of a model made from it. ``obj`` is the object to update. With partial
        input, only the fields that were sent are returned. Raises `InvalidParameters`, its ``loc`` below ``data``.

        * Nested models become dicts. A `ReadOnly` field in one keeps its value if ``obj`` has a model or a mapping
          there; otherwise, and in lists, it is left out.
        * Keys that ``extra="allow"`` admits reach the model's validators, but are not returned: such a key may be the
          name of a column that is no field.
        * ``after`` and ``wrap`` validators of the model see the default or None in place of a `ReadOnly` field. With
          partial input they see the sent fields together with the other fields of ``obj``; without ``obj`` they do not
          run.

        ``input_model(Card, partial=True).values({"title": None})`` is ``{"title": None}``.
        """
        try:
            if isinstance(data, BaseModel):
                fields, extra, sent = data.__dict__, data.__pydantic_extra__, data.model_fields_set
            else:
                fields, extra, sent = self._validate(data)
            wanted = [name for name in fields if name not in self._defaults and (name in sent or not self.partial)]
            fields = {name: fields[name] for name in wanted}
            if self._check is not None and not (self.partial and obj is None):
                fields = self._run_model_validators(fields, extra, sent, obj)
        except ValidationError as exc:
            raise InvalidParameters(validation_items(exc, "data")) from None
        return {name: _to_plain(value, _current_value(obj, name)) for name, value in fields.items()}

    def _run_model_validators(self, fields: dict[str, Any], extra: Any, sent: set[str], obj: Any) -> dict[str, Any]:
        """The fields after the model's own ``after`` and ``wrap`` validators."""
        absent = [name for name in self.model.model_fields if name not in fields]
        source = object() if obj is None else obj
        current = {name: getattr(source, name, self._defaults.get(name)) for name in absent}
        instance = self.model.__new__(self.model)
        object.__setattr__(instance, "__dict__", {**current, **fields})
        object.__setattr__(instance, "__pydantic_fields_set__", set(sent))
        object.__setattr__(instance, "__pydantic_extra__", extra)
        object.__setattr__(instance, "__pydantic_private__", None)
        checked = self._check.validate_python(instance)  # type: ignore[union-attr]  # checked by `values`
        return {name: checked.__dict__[name] for name in fields}


def _fields_validator(schema: Any) -> Callable[[Any], Any]:
    """A function that validates parsed JSON and returns the field values, the extra values and the names sent."""
    definitions = schema["definitions"] if schema["type"] == "definitions" else []
    core = core_of(schema["schema"] if definitions else schema)
    if core is None or fields_of(core) is None:
        raise ImproperlyConfigured(
            "a serializer_class needs fields; a RootModel, or a model with a schema of its own, has none"
        )
    inner = (
        {"type": "definitions", "schema": core["schema"], "definitions": definitions} if definitions else core["schema"]
    )
    return _json_validator({"schema": inner, "config": core.get("config")}, SchemaValidator(inner, core.get("config")))


def _default(info: "FieldInfo") -> Any:
    default = info.get_default(call_default_factory=False)
    return None if default is PydanticUndefined else default


def _to_plain(value: Any, current: Any = None) -> Any:
    """A value with dicts in place of models. `ReadOnly` fields of a model are those of the ``current`` value."""
    if isinstance(value, BaseModel):
        read_only, members = marked_names(type(value), ReadOnly), {**value.__dict__, **(value.__pydantic_extra__ or {})}
        sent = {
            name: _to_plain(v, _current_value(current, name)) for name, v in members.items() if name not in read_only
        }
        if not isinstance(current, BaseModel | Mapping):
            return sent
        return sent | {name: v for name in read_only if (v := _current_value(current, name)) is not None}
    if type(value) in (list, tuple):
        return type(value)(map(_to_plain, value))
    if type(value) is dict:
        return {key: _to_plain(member) for key, member in value.items()}
    return value


def _current_value(holder: Any, name: str) -> Any:
    """An object's attribute, or the value of a key in a JSON column; None if it cannot be read."""
    if isinstance(holder, Mapping):
        return holder.get(name)
    try:
        return getattr(holder, name, None)
    except Exception:  # a relation that is not loaded
        return None


def input_model(model: type[BaseModel], partial: bool = False) -> InputModel:
    """The input of a model: its fields without those marked `ReadOnly`, which are ignored if a client sends them.

    With ``partial``, every field may be absent: an absent field gets no default, and null is a value like any other.
    Raises `ImproperlyConfigured` for anything but a pydantic model, and for misplaced markers.
    """
    return _input_model(_checked_model(model), partial)


def output_model(model: type[M]) -> type[M]:
    """The output of a model: a model without the fields marked `WriteOnly`, in nested models too.

    Returns the model itself if there is nothing to leave out. Objects are read by the names of the fields, even if
    these have aliases. The ``after`` validators of a model with `WriteOnly` fields do not run: they may read such a
    field. Raises `ImproperlyConfigured` as `input_model` does, and for an SQLModel table with a `WriteOnly` field.
    """
    output: Any = _output_model(_checked_model(model))  # `lru_cache` forgets that it returns the model or a subclass
    typed: type[M] = output
    return typed


def shows(model: type[BaseModel], field: str) -> bool:
    """Whether a model has a field that is not `WriteOnly`."""
    return field in model.model_fields and field not in marked_names(model, WriteOnly)


@lru_cache(MAX_MODELS)
def _input_model(model: type[BaseModel], partial: bool) -> InputModel:
    return InputModel(model, partial)


@lru_cache(MAX_MODELS)
def _output_model(model: type[BaseModel]) -> type[BaseModel]:
    return _make_stand_in(model, _OUTPUT) if _OUTPUT.changes(model) else model


def _make_stand_in(model: type[BaseModel], rewriter: SchemaRewriter) -> type[BaseModel]:
    """A subclass of a model with another schema. That is made at its first use, because models may be cyclic."""
    if hasattr(model, "__table__"):
        raise ImproperlyConfigured(
            f"{model.__name__} is a table, of which no field can be left out; use a serializer that is no table"
        )

    def schema(cls: type[BaseModel], source: Any, handler: Any) -> Any:
        return rewriter.of(model)

    members = {
        "__module__": model.__module__,
        "__qualname__": f"{model.__qualname__}{rewriter.name}",
        "__doc__": model.__doc__,
        "__get_pydantic_core_schema__": classmethod(schema),
        "model_config": ConfigDict(defer_build=True, title=model.model_config.get("title") or model.__name__),
    }
    metaclass: Any = type(model)
    stand_in: type[BaseModel] = metaclass(f"{model.__name__}{rewriter.name}", (model,), members)
    return stand_in


@lru_cache(MAX_MODELS)
def _nested_input(model: type[BaseModel]) -> type[BaseModel]:
    nested = _make_stand_in(model, SchemaRewriter("Input", ReadOnly, _nested_input))
    for name, info in marked(model, ReadOnly).items():
        setattr(nested, name, _default(info))  # validators may read it
    return nested


_OUTPUT = SchemaRewriter("Output", WriteOnly, output_model, by_name=True)


def _checked_model(model: Any) -> type[BaseModel]:
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        raise ImproperlyConfigured(f"a serializer_class is a pydantic model, a subclass of BaseModel, not {model!r}")
    return model
