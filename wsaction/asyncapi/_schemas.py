"""JSON Schemas of annotations, as AsyncAPI documents hold them.

AsyncAPI's Schema Object is a superset of JSON Schema draft 7. pydantic writes draft 2020-12 with OpenAPI's
discriminators. `as_draft_7` converts them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import SchemaSerializer

from wsaction.serializers._core_schema import READ, build
from wsaction.serializers._write_only import without_write_only

Schema = dict[str, Any]
Mode = Literal["validation", "serialization"]  # of input and of output

_REFS = "#/components/schemas/{model}"


class Schemas:
    """The schemas of one document.

    `components` generates all of them together, so that each model gets one name. Only then does it fill the schemas
    that `of` returned: ``of(Card, "serialization")`` becomes ``{"$ref": "#/components/schemas/Card"}``. A model whose
    input and output differ becomes ``Card-Input`` and ``Card-Output``. Models of the same name also get the names of
    their modules. What JSON Schema cannot express becomes ``{}``, which allows any value.
    """

    def __init__(self) -> None:
        self._requested: list[tuple[Any, Mode, Schema]] = []

    def of(self, annotation: Any, mode: Mode) -> Schema:
        """Returns the schema of an annotation, empty until `components` fills it."""
        schema: Schema = {}
        if annotation is not Any:
            self._requested.append((annotation, mode, schema))
        return schema

    def components(self) -> dict[str, Schema]:
        """Fills all schemas that `of` returned, and returns those of the models they refer to, by name."""
        inputs = [
            (number, mode, _schema(annotation, mode)) for number, (annotation, mode, _) in enumerate(self._requested)
        ]
        schemas, definitions = _Generator(ref_template=_REFS).generate_definitions(inputs)
        for number, (_, mode, schema) in enumerate(self._requested):
            schema.update(as_draft_7(schemas[number, mode]))
        return {name: as_draft_7(schema) for name, schema in definitions.items()}


def _schema(annotation: Any, mode: Mode) -> Any:
    """Returns an annotation's core schema: for input without `ReadOnly` fields, for output without `WriteOnly` ones."""
    schema = TypeAdapter(annotation).core_schema
    visible = READ.of_schema(schema) if mode == "validation" else without_write_only(schema, values=False)
    return schema if visible is None else visible


class _Generator(GenerateJsonSchema):
    """Generates schemas of what wsaction writes, which differs from pydantic's defaults.

    Replies use the names of fields, unless a model sets ``serialize_by_alias``, and contain fields with a default too.
    """

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}

    def model_schema(self, schema: Any) -> Schema:
        return self._with_field_names(schema, super().model_schema)

    def dataclass_schema(self, schema: Any) -> Schema:
        return self._with_field_names(schema, super().dataclass_schema)

    def typed_dict_schema(self, schema: Any) -> Schema:
        return self._with_field_names(schema, super().typed_dict_schema)

    def field_is_required(self, field: Any, total: bool) -> bool:
        if self.mode == "validation" or field["type"] == "typed-dict-field":
            return super().field_is_required(field, total)
        return not (field.get("serialization_exclude") or field.get("serialization_exclude_if"))

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:
        return {}

    def _with_field_names(self, schema: Any, write: Callable[[Any], Schema]) -> Schema:
        before = self.by_alias
        config = schema.get("config") or {}
        self.by_alias = self.mode == "validation" or bool(config.get("serialize_by_alias"))
        try:
            return write(schema)
        finally:
            self.by_alias = before


_MAP_KEYWORDS = ("properties", "patternProperties", "definitions", "$defs", "dependentSchemas")
_SCHEMA_KEYWORDS = ("additionalProperties", "items", "contains", "propertyNames", "not", "if", "then", "else")
_LIST_KEYWORDS = ("anyOf", "oneOf", "allOf", "prefixItems")


def as_draft_7(schema: Any) -> Any:
    """Converts a JSON Schema of draft 2020-12 to AsyncAPI's Schema Object.

    A tuple's ``prefixItems`` become ``items``, and a discriminator the name of its property. A ``$ref`` that has other
    keywords beside it moves into an ``allOf``, because draft 7 ignores those keywords.
    """
    if not isinstance(schema, Mapping):
        return schema
    converted = dict(_convert_keywords(schema))
    if "prefixItems" in converted:
        converted["additionalItems"] = converted.get("items", True)
        converted["items"] = converted.pop("prefixItems")
    if isinstance(converted.get("discriminator"), Mapping):
        converted["discriminator"] = converted["discriminator"]["propertyName"]
    if "$ref" in converted and len(converted) > 1:
        converted = {"allOf": [{"$ref": converted.pop("$ref")}], **converted}
    return converted


def _convert_keywords(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in schema.items():
        if key in _MAP_KEYWORDS and isinstance(value, Mapping):
            yield key, {name: as_draft_7(subschema) for name, subschema in value.items()}
        elif key in _SCHEMA_KEYWORDS:
            yield key, as_draft_7(value)
        elif key in _LIST_KEYWORDS and isinstance(value, list):
            yield key, [as_draft_7(subschema) for subschema in value]
        else:
            yield key, value


def json_of(annotation: Any, value: Any) -> tuple[Any, ...]:
    """Returns a default as JSON in a 1-tuple, or an empty tuple if it cannot become JSON."""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        schema = without_write_only(adapter.core_schema)
        serializer = adapter.serializer if schema is None else build(SchemaSerializer, schema)
        return (serializer.to_python(value, mode="json", warnings=False),)
    except Exception:  # the class of a default may raise anything; the document then leaves the default out
        return ()
