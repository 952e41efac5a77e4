"""pydantic at the edges: a type's validator for what comes as JSON, and its serializer for what goes out as JSON.

One model is enough for both directions: `input_model` is what comes in of it, without the fields marked `ReadOnly`,
`output_model` what goes out of it, without those marked `WriteOnly`.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, get_origin

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
from wsaction.serializers._write_only import hidden, shown

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo  # whoever has a model has loaded it

__all__ = (
    "MAX_MODELS",
    "InputModel",
    "ReadOnly",
    "WriteOnly",
    "fast_validate",
    "input_model",
    "json_encoder",
    "json_validator",
    "output_model",
    "python_validator",
    "shows",
)


def json_validator(annotation: Any) -> Callable[[Any], Any]:
    """A function that validates a parsed JSON value as ``annotation``, with the verdict that its JSON text would have.

    It raises ``pydantic.ValidationError``. A type that tells JSON from Python (strict models, custom schemas, unions)
    is given JSON text again; others, the parsed value. ``json_validator(datetime.date)("2026-11-23")`` is a date,
    strict or not.

    What comes for a model's `ReadOnly` fields is ignored: they have their defaults, and where they have none, are
    missing from the instance. Raises `ImproperlyConfigured` for markers where they do not count.
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
        except ValidationError:  # once more, so that the errors speak of JSON: no dictionaries, no instances
            return as_json(value)

    if _any_part(schema, _tells_json_apart):
        return as_json
    as_parsed.fast_validate = validate_python  # type: ignore[attr-defined]
    return as_parsed


def fast_validate(validate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What a `json_validator` tries first. Where it raises ``ValidationError``, only the validator itself can tell."""
    first: Callable[[Any], Any] = getattr(validate, "fast_validate", validate)
    return first


def python_validator(annotation: Any, title: str) -> Callable[[Any], Any]:
    """A function that makes a value of the application's what ``annotation`` says, of an object by its attributes.

    It raises ``pydantic.ValidationError``, "1 validation error for ``title``". The value may lack what is `WriteOnly`.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    adapter.validator  # noqa: B018  # raises for what pydantic cannot build yet
    hides: bool = getattr(annotation, "model_config", {}).get("hide_input_in_errors", False)
    config: Any = {"title": title, "hide_input_in_errors": hides}
    schema = WRITTEN.of_schema(adapter.core_schema)
    validator = (
        SchemaValidator(adapter.core_schema, config) if schema is None else build(SchemaValidator, schema, config)
    )
    return partial(validator.validate_python, from_attributes=True)


def _tells_json_apart(part: dict[str, Any]) -> bool:
    """Whether a core schema may judge a JSON text and the Python value parsed from it differently."""
    if part.get("strict") is True:
        return True
    # The last two: a validator may ask which of the two it is given, and a union tries its members strictly first.
    return part.get("type") in ("json-or-python", "bytes", "timedelta", "with-info", "union")


def _any_part(schema: Any, matches: Callable[[dict[str, Any]], bool]) -> bool:
    """Whether any part of a core schema says so."""
    if isinstance(schema, list | tuple):
        return any(_any_part(part, matches) for part in schema)
    if not isinstance(schema, dict):
        return False
    parts = (part for key, part in schema.items() if key not in ("metadata", "serialization"))
    return matches(schema) or any(_any_part(part, matches) for part in parts)


def json_encoder(annotation: Any = Any) -> Callable[[Any], str]:
    """A function that writes a value as compact JSON the way ``annotation`` says; NaN and infinities become null.

    A value that is what was announced is not validated. One that is not (a row, a dict where a model is announced) is
    validated from its attributes first, so that it has the announced shape; ``TypeError`` says when it cannot.
    `WriteOnly` fields of models are left out, announced or not. Raises `ImproperlyConfigured` for a model that is
    configured to write what is no JSON, and for markers where they do not count.
    ``json_encoder(Decimal)(Decimal("1.50"))`` is ``'"1.50"'``.
    """
    check_unmarked(annotation)
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    if _any_part(adapter.core_schema, lambda part: part.get("ser_json_inf_nan") == "constants"):
        raise ImproperlyConfigured(
            f"{_name(annotation)} is configured with ser_json_inf_nan='constants', which writes NaN and Infinity, "
            "no JSON; leave it out for null, or say 'strings'"
        )
    schema = WRITTEN.of_schema(adapter.core_schema)
    validate = (adapter.validator if schema is None else build(SchemaValidator, schema)).validate_python
    is_any = adapter.core_schema == {"type": "any"}
    schema = None if is_any else hidden(adapter.core_schema)
    to_json = (adapter.serializer if schema is None else build(SchemaSerializer, schema)).to_json
    announced = annotation if isinstance(annotation, type) else None
    # pydantic writes any object in the place of a model by its __dict__, whatever is missing there: a row that is not
    # loaded as {}. So what may hold such objects is validated first, which costs little where all are what they should.
    holds_models = _any_part(adapter.core_schema, lambda part: part.get("type") == "model")

    def encode(value: Any) -> str:
        try:
            if type(value) is announced:  # by default pydantic only warns where a field holds what it does not announce
                return to_json(value, warnings="error").decode()
            if is_any:
                value = shown(value)
            if not holds_models:
                return to_json(value, warnings="error").decode()
        except (PydanticSerializationError, RecursionError) as exc:
            if annotation is Any:
                raise unwritable(value, exc) from exc
        return reshape(value)

    def reshape(value: Any) -> str:
        try:
            return to_json(validate(value, from_attributes=True), warnings="error").decode()
        except ValidationError as exc:
            message = f"{type(value).__name__} was returned where {_name(annotation)} is announced"
            raise TypeError(_unawaited(value) or f"{message}{_status_hint(value, annotation)}: {exc}") from exc
        except (PydanticSerializationError, RecursionError) as exc:
            raise unwritable(value, exc) from exc

    def unwritable(value: Any, exc: Exception) -> TypeError:
        cure = "return a pydantic model, or annotate the return type with one"
        if "<class 'coroutine'>" in str(exc):  # somewhere in it
            cure = "did you forget `await`?"
        return TypeError(_unawaited(value) or f"{type(value).__name__} cannot be written as JSON: {exc}; {cure}")

    return encode


def _unawaited(value: Any) -> str | None:
    """What is said of a coroutine that was returned as it is; it is closed, as Python would say less of it."""
    if not isinstance(value, CoroutineType):
        return None
    value.close()
    return f"the coroutine {value.__qualname__}() was returned, not what it returns; did you forget `await`?"


def _status_hint(value: Any, annotation: Any) -> str:
    """What is said of a tuple that was meant as (value, status), and is not."""
    if type(value) is not tuple or len(value) != 2 or get_origin(annotation) is tuple:
        return ""
    if isinstance(value[1], int):
        return f"; where a status is returned too, annotate tuple[{_name(annotation)}, int]"
    return f"; a status is an int, got {value[1]!r}" if isinstance(value[1], str) and value[1].isdigit() else ""


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else repr(annotation)


# ------------------------------------------------------------------------------------------------- one model, two ways
class InputModel:
    """What comes in of a model; made by `input_model`. Its values are told by the names of the model's fields."""

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
        return core_schema.any_schema()  # it announces what comes, which `values` validates

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        return handler(self.schema)

    def values(self, data: Any, obj: Any = None) -> dict[str, Any]:
        """The values to be written: of parsed JSON, or of an instance of a model that was made of it.

        Of partial input, only what was sent. Nested models become dicts, in which what is `ReadOnly` is left out, or
        stays what it is in a model or JSON that ``obj`` has there; in lists it is left out. What a model
        with ``extra="allow"`` allows beside its fields is seen by its validators, and written nowhere: it may name a
        column that is no field. Validators of the model as a whole see
        None, or the default, in the place of `ReadOnly` fields; of partial input they see what was sent together with
        the other fields of ``obj``, the object that it is meant for. Raises `InvalidParameters`, with places below
        ``data``.

        ``input_model(Card, partial=True).values({"title": None})`` is ``{"title": None}``.
        """
        try:
            fields, extra, sent = _parts(data) if isinstance(data, BaseModel) else self._validate(data)
            wanted = [name for name in fields if name not in self._defaults and (name in sent or not self.partial)]
            fields = {name: fields[name] for name in wanted}
            if self._check is not None and not (self.partial and obj is None):
                fields = self._run_model_validators(fields, extra, sent, obj)
        except ValidationError as exc:
            raise InvalidParameters(validation_items(exc, "data")) from None
        return {name: _to_plain(value, _current_value(obj, name)) for name, value in fields.items()}

    def _run_model_validators(self, fields: dict[str, Any], extra: Any, sent: set[str], obj: Any) -> dict[str, Any]:
        """The fields as the model's own validators of the whole leave them."""
        absent = [name for name in self.model.model_fields if name not in fields]
        source = object() if obj is None else obj
        current = {name: getattr(source, name, self._defaults.get(name)) for name in absent}
        instance = self.model.__new__(self.model)
        object.__setattr__(instance, "__dict__", {**current, **fields})
        object.__setattr__(instance, "__pydantic_fields_set__", set(sent))
        object.__setattr__(instance, "__pydantic_extra__", extra)
        object.__setattr__(instance, "__pydantic_private__", None)
        checked = self._check.validate_python(instance)  # type: ignore[union-attr]  # asked before
        return {name: checked.__dict__[name] for name in fields}


def _fields_validator(schema: Any) -> Callable[[Any], Any]:
    """What validates parsed JSON by the fields of a model: their values, the extra ones, the names that were sent."""
    definitions = schema["definitions"] if schema["type"] == "definitions" else []
    core = core_of(schema["schema"] if definitions else schema)
    if core is None or fields_of(core) is None:
        raise ImproperlyConfigured(
            "a serializer_class has fields; a RootModel, or a model with a schema of its own, none"
        )
    inner = (
        {"type": "definitions", "schema": core["schema"], "definitions": definitions} if definitions else core["schema"]
    )
    return _json_validator({"schema": inner, "config": core.get("config")}, SchemaValidator(inner, core.get("config")))


def _parts(instance: BaseModel) -> tuple[dict[str, Any], Any, set[str]]:
    return instance.__dict__, instance.__pydantic_extra__, instance.model_fields_set


def _default(info: "FieldInfo") -> Any:
    default = info.get_default(call_default_factory=False)
    return None if default is PydanticUndefined else default


def _to_plain(value: Any, current: Any = None) -> Any:
    """A value with dicts in the place of models. What is `ReadOnly` in a model is that of the ``current`` one."""
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
    """What an object, or a dict in a column of JSON, has of a model's field; None where that cannot be read."""
    if isinstance(holder, Mapping):
        return holder.get(name)
    try:
        return getattr(holder, name, None)
    except Exception:  # a relation that is not loaded
        return None


def input_model(model: type[BaseModel], partial: bool = False) -> InputModel:
    """What comes in of a model: all but its `ReadOnly` fields, which are ignored when they are sent.

    ``partial``: every field may be absent; an absent one is not touched, its default not filled in, and null is a
    value like others. Raises `ImproperlyConfigured` for a model that is none, or is marked where it cannot be.
    """
    return _input_model(_checked_model(model), partial)


def output_model(model: type[BaseModel]) -> type[BaseModel]:
    """What goes out of a model: one like it without the `WriteOnly` fields, in nested models neither.

    The model itself, where there is nothing to leave out. Fields of objects are found by name, aliases or not. Where
    something is left out, the model's ``after`` validators, which may look at it, are too. Raises
    `ImproperlyConfigured` as `input_model` does, and for an SQLModel table with a `WriteOnly` field.
    """
    return _output_model(_checked_model(model))


def shows(model: type[BaseModel], field: str) -> bool:
    """Whether a model has a field that goes out."""
    return field in model.model_fields and field not in marked_names(model, WriteOnly)


@lru_cache(MAX_MODELS)
def _input_model(model: type[BaseModel], partial: bool) -> InputModel:
    return InputModel(model, partial)


@lru_cache(MAX_MODELS)
def _output_model(model: type[BaseModel]) -> type[BaseModel]:
    return _make_stand_in(model, _OUTPUT) if _OUTPUT.changes(model) else model


def _make_stand_in(model: type[BaseModel], rewriter: SchemaRewriter) -> type[BaseModel]:
    """A subclass of a model with another schema, which is written when it is first needed: models may be cyclic."""
    if hasattr(model, "__table__"):
        raise ImproperlyConfigured(
            f"{model.__name__} is a table, of which no field can be left out; make the serializer a model of its own"
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
        setattr(nested, name, _default(info))  # for validators that look at it
    return nested


_OUTPUT = SchemaRewriter("Output", WriteOnly, output_model, by_name=True)


def _checked_model(model: Any) -> type[BaseModel]:
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        raise ImproperlyConfigured(f"a serializer_class is a pydantic model, a subclass of BaseModel, not {model!r}")
    return model
