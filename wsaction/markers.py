"""Markers for annotations: which fields of a model only go out or only come in, and what that makes of its schema.

    class Card(BaseModel):
        id: Annotated[int, ReadOnly]  # never taken from a client
        title: str
        pin: Annotated[str, WriteOnly]  # never shown to one

The model itself stays what it is. A `Shape` writes its pydantic core schema anew, for the way in or the way out.
"""

import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel

from wsaction.converters import ImproperlyConfigured

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo  # whoever has a model has loaded it

__all__ = ("ReadOnly", "Shape", "WriteOnly", "checks_of_the_whole", "fields_of", "marked", "optional")

Node = dict[str, Any]  # of a core schema


class ReadOnly:
    """A field that is left out of input: what a client sends for it is ignored. ``Annotated[int, ReadOnly]``."""


class WriteOnly:
    """A field that is left out of output. ``Annotated[str, WriteOnly]``."""


Marker = type[ReadOnly] | type[WriteOnly]
Model = type[BaseModel]


def marked(model: Model, marker: Marker) -> "dict[str, FieldInfo]":
    """The fields of a model that bear a marker.

    Raises `ImproperlyConfigured` where it marks less than a field, as in ``Annotated[int, WriteOnly] | None``.
    """
    for name, info in model.model_fields.items():
        if any(_is(marker, one) for one in _metadata_within(info.annotation)):
            raise ImproperlyConfigured(
                f"{model.__name__}.{name}: {marker.__name__} marks a whole field; write "
                f"Annotated[..., {marker.__name__}] around all of its type"
            )
    return {name: info for name, info in model.model_fields.items() if any(_is(marker, m) for m in info.metadata)}


@dataclass(frozen=True, slots=True)
class Shape:
    """How core schemas are written anew.

    ``name`` ends the names of the new schemas. ``without``: fields with this marker are left out, in nested models too.
    ``by_name``: fields are found by name as well as by alias, as the attributes of objects are. ``stand_in`` gives the
    class that stands for a model which is changed: pydantic would take the model's own schema for the model's class.
    """

    name: str
    without: Marker
    stand_in: Callable[[Model], Model]
    by_name: bool = False

    def of(self, model: Model) -> Node:
        """The new schema of ``model``.

        Raises `ImproperlyConfigured` for a model that is not fully defined yet, and for markers where none can be.
        """
        root, definitions = _core_schema(model)
        return _with_definitions(self._written(root), self._written(definitions))

    def of_outermost(self, model: Model, change: Callable[[Node], Node], name: str) -> Node:
        """The new schema of ``model`` where it is the outermost one, ``name`` in its name: it needs no class to stand
        for it, and ``change`` makes of its schema what it makes of it nowhere else.
        """
        root, definitions = _core_schema(model)
        root = _copied(_found(root, definitions))
        ref, core = root.pop("ref", None), core_of(root)
        if core is not None:
            core["outermost"] = True
        written: Node = self._written(change(root))
        if ref is not None:
            ref = self._member("ref", re.sub(r"(:\d+)?$", rf"{name}\1", ref, count=1))
        below = self._written(definitions)
        if ref is not None and all(one["ref"] != ref for one in below):
            written["ref"] = ref
        return _with_definitions(written, below)

    def changes(self, model: Model) -> bool:
        """Whether the new schema of ``model`` differs from its own."""
        return any(map(self._changes, _models_within(_core_schema(model))))

    def _changes(self, core: Node) -> bool:
        fields = fields_of(core)
        if fields is None:
            return False
        aliased = self.by_name and any("validation_alias" in one for one in fields["fields"].values())
        return aliased or bool(marked(core["cls"], self.without))

    def _written(self, part: Any) -> Any:
        """A part of a schema, written anew, with all that is below it."""
        if isinstance(part, list | tuple):
            return type(part)(map(self._written, part))
        if not isinstance(part, dict):
            return part
        node = {key: self._member(key, value) for key, value in part.items()}
        if node.get("type") == "model":
            return self._model(node)
        if node.get("type") == "function-after" and (core := core_of(part)) is not None:
            return self._unchecked(node, core["cls"])
        return node

    def _member(self, key: str, value: Any) -> Any:
        if key in _NO_SCHEMAS:
            return value
        if key in ("ref", "schema_ref"):
            return re.sub(r"(:\d+)?$", rf"{self.name}\1", value, count=1)
        if key in ("fields", "choices") and isinstance(value, dict):  # schemas, by names that may be anything
            return {name: self._written(member) for name, member in value.items()}
        return self._written(value)

    def _model(self, node: Node) -> Node:
        cls: Model = node["cls"]
        is_outermost = node.pop("outermost", False)
        if not self.changes(cls):
            return node
        if not is_outermost:
            node["cls"] = self.stand_in(cls)
        node["custom_init"] = False  # which would validate by the model's own schema
        fields = fields_of(node)
        if fields is not None:
            self._leave_out(cls, node, fields)
        return node

    def _leave_out(self, cls: Model, node: Node, fields: Node) -> None:
        left_out, all_fields = marked(cls, self.without), fields["fields"]
        fields["fields"] = {name: one for name, one in all_fields.items() if name not in left_out}
        if self.by_name:
            for name, one in fields["fields"].items():
                if "validation_alias" in one:
                    one["validation_alias"] = [*_choices(one["validation_alias"]), [name]]
        if left_out and cls.model_config.get("extra") in ("allow", "forbid"):  # which take notice of other keys
            keys = frozenset(key for name in left_out for key in _keys(name, all_fields[name]))
            *_, holder, _ = (node, *_layers(node["schema"]))
            holder["schema"] = {"type": "function-before", "function": _no_info(_ignoring(keys)), "schema": fields}

    def _unchecked(self, node: Node, cls: Model) -> Node:
        """On the way out, without the validator of a whole model that would look at what is left out."""
        if self.without is ReadOnly or not marked(cls, self.without):
            return node
        return {**node["schema"], **({"ref": node["ref"]} if "ref" in node else {})}


_NO_SCHEMAS = frozenset({"metadata", "default", "config", "expected"})  # though they may look like some


def optional(root: Node) -> Node:
    """For `Shape.of_outermost`: every field of the model may be absent."""
    copy = _copied(root)
    if (core := core_of(copy)) is not None and (fields := fields_of(core)) is not None:
        fields["fields"] = {name: {**one, "schema": _absent(one["schema"])} for name, one in fields["fields"].items()}
    return copy


def checks_of_the_whole(model: Model) -> Node | None:
    """A schema that runs a model's own ``after`` and ``wrap`` validators on an instance, and ``model_post_init``.

    None, where it has none of these.
    """
    copy = _copied(_found(*_core_schema(model)))
    *outer, core = _layers(copy)
    if core["type"] != "model" or not (outer or core.get("post_init")):
        return None
    inner: Node = {"type": "any"}
    if core.get("post_init"):
        inner = {"type": "function-after", "function": _no_info(_initialised), "schema": inner}
    if not outer:
        return inner
    outer[-1]["schema"] = inner
    return {key: value for key, value in copy.items() if key != "ref"}


def _initialised(instance: BaseModel) -> BaseModel:
    instance.model_post_init(None)
    return instance


def core_of(node: Node) -> Node | None:
    """The model that validator functions are wrapped around."""
    *_, last = _layers(node)
    return last if last.get("type") == "model" else None


def fields_of(core: Node) -> Node | None:
    """The fields of a model's node; None for a root model, which has none."""
    *_, last = _layers(core["schema"])
    return last if last.get("type") == "model-fields" else None


# ------------------------------------------------------------------------------------------------- core schemas
def _core_schema(model: Model) -> tuple[Node, list[Node]]:
    """A model's schema, and the definitions that it refers to."""
    if not model.__pydantic_complete__ and not model.model_rebuild(raise_errors=False):
        raise ImproperlyConfigured(
            f"{model.__name__} is not fully defined: it names types that do not exist yet; define them before the "
            "handler that has it as its serializer"
        )
    schema: Any = model.__pydantic_core_schema__
    return (schema["schema"], schema["definitions"]) if schema["type"] == "definitions" else (schema, [])


def _found(node: Node, definitions: list[Node]) -> Node:
    """A schema itself, where it may be the reference to one."""
    return next((one for one in definitions if one["ref"] == node.get("schema_ref")), node)


def _models_within(part: Any) -> Iterator[Node]:
    """The nodes of all models in a schema. Raises `ImproperlyConfigured` for markers where they do not count."""
    if isinstance(part, dict):
        if part.get("type") in ("dataclass", "typed-dict") and "cls" in part:
            _check_unmarked(part["cls"])
        if part.get("type") == "model" and "cls" in part:
            yield part
        part = [value for key, value in part.items() if key not in _NO_SCHEMAS or isinstance(value, dict)]
    if isinstance(part, list | tuple):
        for one in part:
            yield from _models_within(one)


def _with_definitions(root: Node, definitions: list[Node]) -> Node:
    return {"type": "definitions", "schema": root, "definitions": definitions} if definitions else root


def _layers(node: Node) -> Iterator[Node]:
    """A schema, and what it is wrapped around as long as it is a validator function's."""
    yield node
    while str(node.get("type")).startswith("function-") and "schema" in node:
        node = node["schema"]
        yield node


def _copied(node: Node) -> Node:
    """A copy as deep as the model's fields, which may be changed."""
    copy = dict(node)
    if isinstance(inner := copy.get("schema"), dict):
        copy["schema"] = _copied(inner)
    return copy


def _absent(schema: Node) -> Node:
    inner = schema["schema"] if schema["type"] == "default" else schema
    return {"type": "default", "schema": inner, "default_factory": _nothing, "validate_default": False}


def _nothing() -> None:
    return None


def _no_info(function: Callable[[Any], Any]) -> Node:
    return {"type": "no-info", "function": function}


def _choices(alias: Any) -> list[list[str | int]]:
    """A validation alias in its long form: of ``"a"``, ``[["a"]]``."""
    if isinstance(alias, str):
        return [[alias]]
    return alias if isinstance(alias[0], list) else [alias]


def _keys(name: str, model_field: Node) -> Iterator[Any]:
    """What a client may call a field."""
    yield name
    for path in _choices(model_field.get("validation_alias", name)):
        yield path[0]


def _ignoring(keys: frozenset[Any]) -> Callable[[Any], Any]:
    def ignore(value: Any) -> Any:
        return {key: member for key, member in value.items() if key not in keys} if isinstance(value, dict) else value

    return ignore


# ------------------------------------------------------------------------------------------------- misuse
def _is(marker: type, one: Any) -> bool:
    return one is marker or isinstance(one, marker)


def _metadata_within(annotation: Any) -> Iterator[Any]:
    """What ``Annotated`` says anywhere within a type."""
    if typing.get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
    for argument in typing.get_args(annotation):
        yield from _metadata_within(argument)


def _check_unmarked(cls: type) -> None:
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as exc:
        raise ImproperlyConfigured(f"the annotations of {cls.__name__} cannot be read: {exc}; define it first") from exc
    for one in (one for hint in hints.values() for one in _metadata_within(hint)):
        if _is(ReadOnly, one) or _is(WriteOnly, one):
            raise ImproperlyConfigured(
                f"{cls.__name__} marks a field as ReadOnly or WriteOnly, which counts in pydantic models only; "
                "make it a BaseModel"
            )
