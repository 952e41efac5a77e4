"""Output without `WriteOnly` fields, whether or not it is annotated.

`without_write_only` changes the core schema of an annotation so that its serializer leaves the fields out. If a schema
does not describe a value (``Any``, ``dict``, no annotation), `strip_write_only` looks at the value itself.
"""

import dataclasses
import operator
import typing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from itertools import chain
from typing import Any
from uuid import UUID

from pydantic import AliasChoices, BaseModel
from pydantic_core import SchemaSerializer

from wsaction.routing.exceptions import ImproperlyConfigured
from wsaction.serializers._core_schema import (
    MAX_MODELS,
    WriteOnly,
    build,
    check_class,
    dropping,
    fields_of,
    map_member,
    marked_fields,
    marked_names,
    whole_schema,
)

Node = dict[str, Any]  # one dict of a core schema
Model = type[BaseModel]


def without_write_only(schema: Any, *, values: bool = True) -> Node | None:
    """A copy of a core schema whose serializer, built by `build`, leaves out `WriteOnly` fields. None if nothing
    changes: then use the schema's own serializer.

    ``values``: pass a value through `strip_write_only` where the schema does not describe it. JSON Schema does not need
    that.
    """
    changed: list[Any] = []
    written: Node = _hide(schema, values, changed)
    return written if changed else None


def _hide(part: Any, values: bool, changed: list[Any]) -> Any:
    if type(part) in (list, tuple):
        return type(part)(_hide(item, values, changed) for item in part)
    if type(part) is not dict:
        return part
    kind, custom = part.get("type"), part.get("serialization")
    if values and _is_polymorphic(part):  # the class of the value decides how it is written
        changed.append(part)
        return {**_FILTERED, "ref": part["ref"]} if "ref" in part else _FILTERED
    replaces = type(custom) is dict and (custom["type"] not in _USING_THE_SCHEMA or "schema" in custom)
    if kind != "model" and replaces:
        node = {**part, "serialization": _hide_member("serialization", custom, values, changed)}
    else:
        unused = _UNUSED.get(kind) if isinstance(kind, str) else None  # serializers do not use it
        node = {key: _hide_member(key, value, values and key != unused, changed) for key, value in part.items()}
    if kind == "model" and "cls" in node:
        _exclude(node, values, changed)
    if values:
        _check_values(node, kind, changed)
    return node


def _is_polymorphic(schema: Node) -> bool:
    config = schema.get("config")
    return type(config) is dict and bool(config.get("polymorphic_serialization"))


def _hide_member(key: str, value: Any, values: bool, changed: list[Any]) -> Any:
    if key == "keys_schema":
        return value
    if key == "serialization" and type(value) is dict:  # no schema itself, but it may hold some
        below = ("schema", "return_schema")
        return {name: _hide(member, values, changed) if name in below else member for name, member in value.items()}
    return map_member(key, value, lambda member: _hide(member, values, changed))


def _exclude(node: Node, values: bool, changed: list[Any]) -> None:
    """Excludes the marked fields of a model, and their keys from the result of a ``model_serializer``."""
    names, fields = marked_fields(node, WriteOnly), fields_of(node)
    if fields is None or not names:
        return
    changed.append(node)
    keys = {fields["fields"][name].get("serialization_alias", name) for name in names}.union(names)
    for name in names:
        fields["fields"][name]["serialization_exclude"] = True
    serialization = node.get("serialization")
    if values and serialization is not None and serialization["type"] in ("function-plain", "function-wrap"):
        drop = {"type": "function-plain", "function": dropping(frozenset(keys)), "return_schema": _FILTERED}
        serialization["return_schema"] = {"type": "any", "serialization": drop}


def _check_values(node: Node, kind: Any, changed: list[Any]) -> None:
    """Passes values through `strip_write_only` wherever the schema does not describe them."""
    items = _ITEMS.get(kind) if isinstance(kind, str) else None
    if items is not None and node.get(items, _ANY) in (_ANY, _FILTERED):
        if kind in ("dict", "list"):  # one call for all items, which is faster
            whole = {key: value for key, value in node.items() if key != "ref"} | {items: _ANY}
            node.setdefault("serialization", {**_FILTERED["serialization"], "return_schema": whole})
        node[items] = _FILTERED
        changed.append(node)
    extra = node.get("extra_behavior") or (node.get("config") or {}).get("extra_fields_behavior")
    holder = fields_of(node) if kind == "model" else node if kind == "typed-dict" else None
    if extra == "allow" and holder is not None:
        holder.setdefault("extras_schema", _FILTERED)
        changed.append(node)
    serialization = node.get("serialization")
    if serialization is None:
        if kind in _UNTYPED or (kind == "enum" and _filter_for(node["cls"]) is not None):
            node["serialization"] = _FILTERED["serialization"]
            changed.append(node)
    elif serialization.get("type") == "any":  # SerializeAsAny
        node["serialization"] = _FILTERED["serialization"]
        changed.append(node)
    elif serialization.get("type") in ("function-plain", "function-wrap") and _returns_anything(serialization):
        serialization["return_schema"] = _FILTERED
        changed.append(node)


def _returns_anything(serialization: Node) -> bool:
    """Whether a serializer function may return models. pydantic's own functions return plain values."""
    module: str = getattr(serialization["function"], "__module__", None) or ""
    return "return_schema" not in serialization and module.partition(".")[0] != "pydantic"


_USING_THE_SCHEMA = ("function-wrap", "include-exclude-sequence", "include-exclude-dict")
_ITEMS = {
    **dict.fromkeys(("list", "set", "frozenset", "generator", "deque"), "items_schema"),
    **dict.fromkeys(("dict", "frozen-dict", "ordered-dict"), "values_schema"),
}
_UNUSED = {"lax-or-strict": "lax_schema", "json-or-python": "python_schema"}
_UNTYPED = frozenset({"any", "is-instance", "call", "callable", "function-plain", "is-subclass"})


def strip_write_only(value: Any) -> Any:
    """Prepares a value of unknown type for pydantic's encoder, so that models in it leave out `WriteOnly` fields.

    Returns the value itself if it has no such model. Raises `ImproperlyConfigured` for a marker in a dataclass or named
    tuple.
    """
    kind: Any = type(value)
    filter_value = _filter_for(kind)
    return value if filter_value is None else filter_value(value)


_ANY: Node = {"type": "any"}
_FILTERED: Node = {
    "type": "any",
    "serialization": {"type": "function-plain", "function": strip_write_only, "return_schema": _ANY},
}


@lru_cache(MAX_MODELS)
def _filter_for(kind: Any) -> Callable[[Any], Any] | None:
    """The function that `strip_write_only` applies to values of a type; None if they stay as they are."""
    if issubclass(kind, dict):
        return _filter_mapping
    if issubclass(kind, (list, tuple, set, frozenset, deque)):
        if hasattr(kind, "_fields"):
            check_class(kind)
        return _filter_items
    if issubclass(kind, Iterator):
        return lambda values: (strip_write_only(value) for value in values)
    if issubclass(kind, Enum):
        hides = any(strip_write_only(member.value) is not member.value for member in kind)
        return (lambda member: strip_write_only(member.value)) if hides else None
    if hasattr(kind, "__pydantic_core_schema__"):
        schema = whole_schema(kind) if issubclass(kind, BaseModel) else kind.__pydantic_core_schema__
        if _is_polymorphic(schema):  # the class of the value is known here
            schema = {**schema, "config": {**schema["config"], "polymorphic_serialization": False}}
        written = without_write_only(schema)
        return None if written is None else _WithSerializer.wrapper(written)
    if hasattr(kind, "__dataclass_fields__"):
        check_class(kind)
        return _filter_dataclass
    return None


_PLAIN = frozenset({str, int, float, bool, type(None), bytes, Decimal, UUID, date, datetime, time, timedelta})


def _filter_mapping(value: dict[Any, Any]) -> Any:
    if _PLAIN.issuperset(map(type, value.values())):
        return value
    changed = {key: filtered for key, member in value.items() if (filtered := strip_write_only(member)) is not member}
    return {**value, **changed} if changed else value


def _filter_items(values: Any) -> Any:
    kinds = set(map(type, values))
    if kinds <= _PLAIN:
        return values
    if kinds == {dict} and _PLAIN.issuperset(map(type, chain.from_iterable(map(dict.values, values)))):
        return values  # the usual list of rows, without a call for each value
    checked = [strip_write_only(value) for value in values]
    return values if all(map(operator.is_, checked, values)) else checked


def _filter_dataclass(value: Any) -> Any:
    members = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value if (checked := _filter_mapping(members)) is members else checked


class _WithSerializer:
    """Wraps an object so that pydantic writes it with a serializer other than that of the object's class."""

    __slots__ = ("__pydantic_serializer__", "value")

    def __init__(self, value: Any, serializer: SchemaSerializer) -> None:
        self.value = value
        self.__pydantic_serializer__ = serializer

    @classmethod
    def wrapper(cls, schema: Node) -> Callable[[Any], "_WithSerializer"]:
        """A function that wraps objects so that pydantic writes them by ``schema``."""
        written = {"type": "function-plain", "function": operator.attrgetter("value"), "return_schema": schema}
        serializer = build(SchemaSerializer, {"type": "any", "serialization": written})
        return lambda value: cls(value, serializer)


# ------------------------------------------------------------------------------------------------- lookups
def check_fields(handler: Any, attribute: str, names: Iterable[str]) -> None:
    """Raises `ImproperlyConfigured` if clients could filter or order by a `WriteOnly` field and so find out its values.

    ``handler`` has a ``serializer_class`` and a ``queryset``; ``names`` is the value of its ``attribute``.
    """
    models = (getattr(handler, "serializer_class", None), getattr(handler.queryset, "model", None))
    for model in models:
        for name in names:
            if isinstance(model, type) and issubclass(model, BaseModel) and _is_hidden(model, name):
                raise ImproperlyConfigured(
                    f"{handler.__name__}.{attribute} has {name}, which is WriteOnly in {model.__name__}: clients could "
                    "find out its values; leave it out"
                )


def _is_hidden(model: Model, field: str) -> bool:
    """Whether a lookup's path, ``"owner__password"`` for example, has a `WriteOnly` field."""
    models: set[Model] = {model}
    for name in field.split("__"):
        if any(name in _write_only_names(model) for model in models):
            return True
        annotations = [model.model_fields[name].annotation for model in models if name in model.model_fields]
        models = {model for annotation in annotations for model in _models_in(annotation)}
    return False


@lru_cache(MAX_MODELS)
def _write_only_names(model: Model) -> frozenset[str]:
    """The names of a model's `WriteOnly` fields and the aliases that they are read from."""
    names = marked_names(model, WriteOnly)
    aliases = [model.model_fields[name].validation_alias for name in names]
    choices = [path for alias in aliases for path in (alias.choices if isinstance(alias, AliasChoices) else [alias])]
    return names.union(path for path in choices if isinstance(path, str))


def _models_in(annotation: Any) -> Iterator[Model]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
