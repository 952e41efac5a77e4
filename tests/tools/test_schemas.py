"""JSON Schemas of annotations: names of fields, one name for each model, and draft 7."""

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, computed_field
from typing_extensions import TypedDict

from wsaction.asyncapi._schemas import Schemas, as_draft_7, json_of
from wsaction.serializers._models import json_encoder


class Inner(BaseModel):
    inner_name: int = Field(alias="innerName")


class Outer(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)

    outer_name: Inner = Field(alias="outerName")

    @computed_field(alias="computedName")
    def computed_name(self) -> int:
        return 1


class Around(BaseModel):
    outer: Outer
    last_name: str = Field(alias="lastName")


@dataclass
class Plain:
    width: int


class Keys(TypedDict):
    a: int


class Dog(BaseModel):
    kind: Literal["dog"]


class Cat(BaseModel):
    kind: Literal["cat"]


def schema(annotation: Any, mode: Any = "validation") -> tuple[dict[str, Any], dict[str, Any]]:
    schemas = Schemas()
    converted = schemas.of(annotation, mode)
    components = schemas.components()
    return converted, components


def test_replies_have_the_serialized_names() -> None:
    _, components = schema(Around, "serialization")
    around = Around.model_validate({"outer": {"outerName": {"innerName": 1}}, "lastName": "a"})
    written = TypeAdapter(dict[str, Any]).validate_json(json_encoder(Around)(around))
    assert set(components["Around"]["properties"]) == set(written) == {"outer", "last_name"}
    assert set(components["Outer"]["properties"]) == set(written["outer"]) == {"outerName", "computedName"}
    assert set(components["Inner"]["properties"]) == set(written["outer"]["outerName"]) == {"inner_name"}


def test_requests_have_the_aliases() -> None:
    _, components = schema(Around)
    assert set(components["Around"]["properties"]) == {"outer", "lastName"}
    assert set(components["Inner"]["properties"]) == {"innerName"}


def test_a_model_of_one_schema_has_one_name() -> None:
    schemas = Schemas()
    converted = [schemas.of(one, mode) for one in (Dog, Inner, Plain, Keys) for mode in ("validation", "serialization")]
    components = schemas.components()
    names = [one["$ref"].removeprefix("#/components/schemas/") for one in converted]
    assert names == ["Dog", "Dog", "Inner-Input", "Inner-Output", "Plain", "Plain", "Keys", "Keys"]
    assert set(names) == set(components)


def test_a_discriminator_is_the_name_of_its_property() -> None:
    converted, components = schema(Annotated[Dog | Cat, Field(discriminator="kind")])
    assert converted == {
        "discriminator": "kind",
        "oneOf": [{"$ref": "#/components/schemas/Dog"}, {"$ref": "#/components/schemas/Cat"}],
    }
    assert set(components) == {"Dog", "Cat"}


def test_tuples_are_lists_of_items() -> None:
    converted, _ = schema(tuple[int, str])
    assert converted["items"] == [{"type": "integer"}, {"type": "string"}]
    assert (converted["minItems"], converted["maxItems"]) == (2, 2)


def test_a_reference_with_other_keys_becomes_allof() -> None:
    assert as_draft_7({"$ref": "#/a", "description": "b"}) == {"allOf": [{"$ref": "#/a"}], "description": "b"}
    assert as_draft_7({"$ref": "#/a"}) == {"$ref": "#/a"}


@pytest.mark.parametrize(
    "same",
    [
        True,
        {"properties": {"discriminator": {"type": "string"}, "prefixItems": {"type": "integer"}}},
        {"default": {"$ref": "a", "title": "data"}},
        {"examples": [{"prefixItems": []}], "const": {"discriminator": {"propertyName": "data"}}},
        {"additionalProperties": False, "items": {"not": {"type": "null"}}},
    ],
)
def test_property_names_and_data_are_left_unchanged(same: Any) -> None:
    assert as_draft_7(same) == same


def test_nested_schemas_are_converted() -> None:
    inner = {"prefixItems": [{"type": "null"}]}
    converted = as_draft_7({"anyOf": [{"additionalProperties": inner}], "$defs": {"a": inner}})
    anew = {"items": [{"type": "null"}], "additionalItems": True}
    assert converted == {"anyOf": [{"additionalProperties": anew}], "$defs": {"a": anew}}


def test_types_without_a_schema_allow_anything() -> None:
    assert schema(Any) == ({}, {})
    assert schema(Callable[[], int])[0] == {}
    assert schema(int)[0] == {"type": "integer"}
    assert schema(None)[0] == {"type": "null"}


def test_defaults_as_json() -> None:
    assert json_of(datetime.date, datetime.date(2026, 11, 23)) == ("2026-11-23",)
    assert json_of(int | None, None) == (None,)
    assert json_of(Any, object()) == ()
