"""Markers for annotations: which fields of a model only go out or only come in, and what that makes of its schema.

    class Card(BaseModel):
        id: Annotated[int, ReadOnly]  # never taken from a client
        title: str
        pin: Annotated[str, WriteOnly]  # never shown to one

The model itself stays what it is. A `SchemaRewriter` writes a pydantic core schema anew, for the way in or the way out;
what `wsaction.serializers._write_only` does is for serializers. It is one thing: both ways walk the same schema.
"""

import re
import threading
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from wsaction.routing.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo  # whoever has a model has loaded it

__all__ = (
    "MAX_MODELS",
    "READ",
    "WRITTEN",
    "ReadOnly",
    "SchemaRewriter",
    "WriteOnly",
    "build",
    "by_names",
    "check_class",
    "check_unmarked",
    "core_of",
    "dropping",
    "fields_of",
    "map_member",
    "marked",
    "marked_fields",
    "marked_names",
    "model_validators",
    "whole_schema",
)

MAX_MODELS = 1_024  # that are kept: those of all handlers, and room for some made as one goes

Node = dict[str, Any]  # of a core schema
B = TypeVar("B")


class ReadOnly:
    """A field that is left out of input: what a client sends for it is ignored. ``Annotated[int, ReadOnly]``."""


class WriteOnly:
    """A field that is left out of output. ``Annotated[str, WriteOnly]``."""


Marker = type[ReadOnly] | type[WriteOnly]
Model = type[BaseModel]


def marked(model: Model, marker: Marker) -> "dict[str, FieldInfo]":
    """The fields of a model that bear a marker.

    Raises `ImproperlyConfigured` where it marks less than a field, as in ``Annotated[int, WriteOnly] | None``, and
    where it is said in a way that nothing reads.
    """
    _check_declarations(model, marker)
    for name, info in model.model_fields.items():
        if _has_marker(_metadata_within(info.annotation), marker):
            raise ImproperlyConfigured(
                f"{model.__name__}.{name}: {marker.__name__} marks a whole field; write "
                f"Annotated[..., {marker.__name__}] around all of its type"
            )
    for name, computed in model.model_computed_fields.items():
        if marker is WriteOnly and _has_marker(_metadata_within(computed.return_type), marker):
            raise ImproperlyConfigured(f"{model.__name__}.{name} is computed to be shown, so that it is not WriteOnly")
    found = {name: info for name, info in model.model_fields.items() if _has_marker(info.metadata, marker)}
    if found and getattr(model, "__pydantic_root_model__", False):
        raise ImproperlyConfigured(
            f"{model.__name__} is a RootModel, whose only field is all of it; mark the field that holds it"
        )
    return found


@lru_cache(MAX_MODELS)
def marked_names(model: Model, marker: Any) -> frozenset[str]:
    """The names of the fields that bear a marker. Raises as `marked` does."""
    return frozenset(marked(model, marker))


def marked_fields(core: Node, marker: Any) -> list[str]:
    """The names of the fields in a model's node that bear a marker. Raises as `marked` does."""
    names, fields = marked_names(core["cls"], marker), fields_of(core)
    return [] if fields is None else [name for name in fields["fields"] if name in names]


@dataclass(frozen=True, slots=True)
class SchemaRewriter:
    """How core schemas are written anew.

    ``name`` ends the names of the new schemas. ``without``: fields with this marker are left out, in nested models too.
    ``by_name``: fields are found by name before they are by alias, as the attributes of objects are. ``stand_in`` gives
    the class that stands for a model which is changed: pydantic would take the model's own schema for the model's
    class. Without it, what is made are instances of the model itself, to be built by `build`.
    """

    name: str
    without: Marker
    stand_in: Callable[[Model], Model] | None = None
    by_name: bool = False

    def of(self, model: Model) -> Node:
        """The new schema of ``model``.

        Raises `ImproperlyConfigured` for a model that is not fully defined yet, and for markers where none can be.
        """
        root, definitions = _core_schema(model)
        return _with_definitions(self._rewrite(root), self._rewrite(definitions))

    def of_outermost(self, model: Model, *, partial: bool = False) -> Node:
        """The new schema of ``model`` where it is the outermost one, which needs no class to stand for it. With
        ``partial``, every field of it may be absent.
        """
        root, definitions = _core_schema(model)
        root = _copy(_resolved(root, definitions))
        ref, core = root.pop("ref", None), core_of(root)
        if core is not None:
            core["outermost"] = True
        written: Node = self._rewrite(_optional(root) if partial else root)
        below = self._rewrite(definitions)
        if ref is not None:
            ref = _renamed(ref, ("Partial" if partial else "") + self.name)
            if all(definition["ref"] != ref for definition in below):
                written["ref"] = ref
        return _with_definitions(written, below)

    def of_schema(self, schema: Any) -> Node | None:
        """A schema of any type, written anew; None, where no field in it bears the marker."""
        if not any(marked_fields(core, self.without) for core in _models_within(schema)):
            return None
        written: Node = self._rewrite(schema)
        return written

    def changes(self, model: Model) -> bool:
        """Whether the new schema of ``model`` differs from its own."""
        return any(map(self._changes, _models_within(_core_schema(model))))

    def _changes(self, core: Node) -> bool:
        fields = fields_of(core)
        if fields is None:
            return False
        aliased = self.by_name and any("validation_alias" in field for field in fields["fields"].values())
        return aliased or bool(marked(core["cls"], self.without))

    def _rewrite(self, part: Any, within: bool = False) -> Any:
        """A part of a schema, written anew, with all that is below it; ``within``: of the validators around a model."""
        if type(part) in (list, tuple):
            return type(part)(map(self._rewrite, part))
        if type(part) is not dict:
            return part
        core = core_of(part)
        node = {
            key: self._rewrite(value, True)
            if key == "schema" and core not in (None, part)
            else self._rewrite_member(key, value)
            for key, value in part.items()
        }
        if core is None:
            return node
        if core is part:
            node = self._rewrite_model(node)
        elif part["type"] == "function-after":
            node = self._without_validator(node, core["cls"])
        return node if within or self.stand_in is not None else self._as_instance(node, core)

    def _rewrite_member(self, key: str, value: Any) -> Any:
        return _renamed(value, self.name) if key in ("ref", "schema_ref") else map_member(key, value, self._rewrite)

    def _rewrite_model(self, node: Node) -> Node:
        cls: Model = node["cls"]
        is_outermost = node.pop("outermost", False)
        if not self.changes(cls):
            return node
        if self.stand_in is None and self.without is ReadOnly and hasattr(cls, "__table__"):
            raise ImproperlyConfigured(
                f"{cls.__name__} is a table, of which no field can be left out; annotate a model of its own"
            )
        if not is_outermost and self.stand_in is not None:
            node["cls"] = self.stand_in(cls)
        node["custom_init"] = False  # which would validate by the model's own schema
        fields = fields_of(node)
        if fields is not None:
            self._leave_out(cls, node, fields)
        return node

    def _leave_out(self, cls: Model, node: Node, fields: Node) -> None:
        left_out, all_fields = marked(cls, self.without), fields["fields"]
        fields["fields"] = {name: field for name, field in all_fields.items() if name not in left_out}
        if self.by_name:
            for name, field in fields["fields"].items():
                if "validation_alias" in field:
                    field["validation_alias"] = [[name], *_choices(field["validation_alias"])]
        if not left_out:
            return
        *_, holder, _ = (node, *_layers(node["schema"]))
        if cls.model_config.get("extra") in ("allow", "forbid"):  # which take notice of other keys
            others = {key for name, field in fields["fields"].items() for key in _keys(name, field)}
            keys = frozenset(key for name in left_out for key in _keys(name, all_fields[name])) - others
            holder["schema"] = {"type": "function-before", "function": _no_info(dropping(keys)), "schema": fields}
        if self.stand_in is None:
            fill = _no_info(_fill_defaults(left_out, self.without is ReadOnly))
            holder["schema"] = {"type": "function-after", "function": fill, "schema": holder["schema"]}

    def _without_validator(self, node: Node, cls: Model) -> Node:
        """On the way out, without the validator of a whole model that would look at what is left out."""
        if self.without is ReadOnly or not marked(cls, self.without):
            return node
        return {**node["schema"], **({"ref": node["ref"]} if "ref" in node else {})}

    def _as_instance(self, node: Node, core: Node) -> Node:
        """A model that is made, as the application gets it. On the way out, its own instances are left as they are."""
        cls: Model = core["cls"]
        if not self.changes(cls):
            return node
        function: Callable[..., Any]
        if self.without is WriteOnly:
            function, kind = _pass_instances(cls), "function-wrap"
        elif required := [name for name, info in marked(cls, self.without).items() if info.is_required()]:
            function, kind = _unset_required(required), "function-after"
        else:
            return node
        ref = {"ref": node.pop("ref")} if "ref" in node else {}
        return {"type": kind, "function": _no_info(function), "schema": node, **ref}


_NO_SCHEMAS = frozenset({"metadata", "default", "config", "expected"})  # though they may look like some


def _fill_defaults(left_out: "Mapping[str, FieldInfo]", defaults: bool) -> Callable[[Any], Any]:
    """What gives a model's fields that were left out their defaults, or None. They count as not set."""

    def fill(parts: tuple[dict[str, Any], Any, set[str]]) -> tuple[dict[str, Any], Any, set[str]]:
        values, extra, sent = parts
        filled = dict(values)
        for name, info in left_out.items():
            filled[name] = _default(info, filled) if defaults else None
        return filled, extra, sent

    return fill


def _default(info: "FieldInfo", values: dict[str, Any]) -> Any:
    if info.default_factory is not None and getattr(info, "default_factory_takes_validated_data", False):
        return info.get_default(call_default_factory=True, validated_data=values)
    default = info.get_default(call_default_factory=True)
    return None if default is PydanticUndefined else default


def _unset_required(names: list[str]) -> Callable[[Any], Any]:
    """What takes fields away again that have no default; validators of the whole model have seen None."""

    def unset(made: Any) -> Any:
        if isinstance(made, BaseModel):
            for name in names:
                if made.__dict__.get(name) is None:
                    made.__dict__.pop(name, None)
        return made

    return unset


def _pass_instances(cls: type) -> Callable[[Any, Callable[[Any], Any]], Any]:
    return lambda value, validate: value if isinstance(value, cls) else validate(value)


def _optional(root: Node) -> Node:
    """A model's schema, every field of which may be absent."""
    copy = _copy(root)
    if (core := core_of(copy)) is not None and (fields := fields_of(core)) is not None:
        fields["fields"] = {
            name: {**field, "schema": _may_be_absent(field["schema"])} for name, field in fields["fields"].items()
        }
    return copy


def model_validators(model: Model) -> Node | None:
    """A schema that runs a model's own ``after`` and ``wrap`` validators on an instance, and ``model_post_init``.

    None, where it has none of these.
    """
    copy = _copy(_resolved(*_core_schema(model)))
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


READ = SchemaRewriter("", ReadOnly)  # of annotations: what comes in
WRITTEN = SchemaRewriter("", WriteOnly, by_name=True)  # what goes out

_building = threading.Lock()


def build(kind: Callable[..., B], schema: Node, *config: Any) -> B:
    """The validator or serializer of a schema that was written anew, ``kind(schema, *config)``.

    For a class that is complete, pydantic takes what the class has built for itself, whatever the schema says.
    """
    with _building:
        nodes = (node for node in _nodes(schema) if node.get("type") in ("model", "dataclass") and "cls" in node)
        complete = [cls for cls in {node["cls"] for node in nodes} if vars(cls).get("__pydantic_complete__")]
        try:
            for cls in complete:
                cls.__pydantic_complete__ = False
            return kind(schema, *config)
        finally:
            for cls in complete:
                cls.__pydantic_complete__ = True


# ------------------------------------------------------------------------------------------------- core schemas
def whole_schema(model: Model) -> Node:
    """A model's core schema. Raises `ImproperlyConfigured` for one that is not fully defined yet."""
    return _with_definitions(*_core_schema(model))


def map_member(key: str, value: Any, change: Callable[[Any], Any]) -> Any:
    """The value of a node's key, with ``change`` made to all schemas in it."""
    if key in _NO_SCHEMAS:
        return value
    if key in ("fields", "choices") and type(value) is dict:  # schemas, by names that may be anything
        return {name: change(member) for name, member in value.items()}
    return change(value)


def by_names(schema: Any) -> Node | None:
    """A schema, to be built by `build`, that finds the fields of models by their names, or an alias that is no other
    field's name: never within another field's value. None for one without aliases."""
    holders = [fields for core in _models_within(schema) if (fields := fields_of(core)) is not None]
    if not any("validation_alias" in field for fields in holders for field in fields["fields"].values()):
        return None
    written: Node = _by_names(schema)
    return written


def _by_names(part: Any) -> Any:
    if type(part) in (list, tuple):
        return type(part)(map(_by_names, part))
    if type(part) is not dict:
        return part
    node = {key: map_member(key, value, _by_names) for key, value in part.items()}
    if node.get("type") == "model":
        node["custom_init"] = False  # which would validate by the model's own schema
    elif node.get("type") == "model-fields":
        for name, field in node["fields"].items():
            alias = field.pop("validation_alias", name)
            if plain := [path for path in _choices(alias) if len(path) == 1 and path[0] not in node["fields"]]:
                field["validation_alias"] = [[name], *plain]
    return node


def _core_schema(model: Model) -> tuple[Node, list[Node]]:
    """A model's schema, and the definitions that it refers to."""
    if not model.__pydantic_complete__ and not model.model_rebuild(raise_errors=False):
        raise ImproperlyConfigured(
            f"{model.__name__} is not fully defined: it names types that do not exist yet; define them before the "
            "handler that has it as its serializer"
        )
    schema: Any = model.__pydantic_core_schema__
    return (schema["schema"], schema["definitions"]) if schema["type"] == "definitions" else (schema, [])


def _resolved(node: Node, definitions: list[Node]) -> Node:
    """A schema itself, where it may be the reference to one."""
    return next((definition for definition in definitions if definition["ref"] == node.get("schema_ref")), node)


def _nodes(part: Any) -> Iterator[Node]:
    """All nodes of a schema, each before those in it."""
    if type(part) in (list, tuple):
        for item in part:
            yield from _nodes(item)
    elif type(part) is dict:
        yield part
        for key, value in part.items():
            if key in ("fields", "choices") and type(value) is dict:  # schemas, by names that may be anything
                yield from _nodes([*value.values()])
            elif key not in _NO_SCHEMAS:
                yield from _nodes(value)


def _models_within(schema: Any) -> Iterator[Node]:
    """The nodes of all models in a schema. Raises `ImproperlyConfigured` for markers where they do not count."""
    for node in _nodes(schema):
        if node.get("type") in ("dataclass", "typed-dict", "named-tuple") and "cls" in node:
            check_class(node["cls"])
        if node.get("type") == "call" and isinstance(node["function"], type):  # a named tuple, of older pydantic
            check_class(node["function"])
        if node.get("type") == "model" and "cls" in node:
            yield node


def _with_definitions(root: Node, definitions: list[Node]) -> Node:
    return {"type": "definitions", "schema": root, "definitions": definitions} if definitions else root


def _layers(node: Node) -> Iterator[Node]:
    """A schema, and what it is wrapped around as long as it is a validator function's."""
    yield node
    while str(node.get("type")).startswith("function-") and "schema" in node:
        node = node["schema"]
        yield node


def _copy(node: Node) -> Node:
    """A copy as deep as the model's fields, which may be changed."""
    copy = dict(node)
    if isinstance(inner := copy.get("schema"), dict):
        copy["schema"] = _copy(inner)
    return copy


def _may_be_absent(schema: Node) -> Node:
    inner = schema["schema"] if schema["type"] == "default" else schema
    return {"type": "default", "schema": inner, "default_factory": lambda: None, "validate_default": False}


def _renamed(ref: str, suffix: str) -> str:
    """A reference with a suffix on its name, before the class's id: pydantic writes ``module.Name:id``."""
    return re.sub(r"(:\d+)?$", rf"{suffix}\1", ref, count=1)


def _no_info(function: Callable[..., Any]) -> Node:
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


def dropping(keys: frozenset[Any]) -> Callable[[Any], Any]:
    """What leaves keys out of a dict."""

    def ignore(value: Any) -> Any:
        return {key: member for key, member in value.items() if key not in keys} if isinstance(value, dict) else value

    return ignore


# ------------------------------------------------------------------------------------------------- misuse
def _has_marker(metadata: Iterable[Any], marker: Marker) -> bool:
    return any(isinstance(item, marker) or (isinstance(item, type) and issubclass(item, marker)) for item in metadata)


def _check_declarations(model: Model, marker: Marker) -> None:
    """Raises for a mark that is a field's default, a word for its JSON schema, or in DRF's ``class Meta``."""
    option = "read_only" if marker is ReadOnly else "write_only"
    keys, meta = {option, option.replace("_o", "O")}, getattr(model, "Meta", None)
    names = {*getattr(meta, f"{option}_fields", ()), *(getattr(meta, "exclude", ()) if marker is WriteOnly else ())}
    names |= {name for name, options in getattr(meta, "extra_kwargs", {}).items() if options.get(option)}
    for name, info in model.model_fields.items():
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        declared = name in names or _has_marker([info.default], marker) or any(extra.get(key) is True for key in keys)
        if declared and not _has_marker(info.metadata, marker):
            raise ImproperlyConfigured(
                f"{model.__name__}.{name} is said to be {option.replace('_', '-')} where nothing reads it; write "
                f"{name}: Annotated[..., {marker.__name__}]"
            )


def _metadata_within(annotation: Any, seen: frozenset[int] = frozenset()) -> Iterator[Any]:
    """What ``Annotated`` says anywhere within a type."""
    if id(annotation) in seen:  # `type Json = dict[str, Json]`
        return
    if typing.get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
    named = (getattr(annotation, "__value__", None), getattr(annotation, "__supertype__", None))  # a NewType's
    for argument in (*typing.get_args(annotation), *named):
        yield from _metadata_within(argument, seen | {id(annotation)})


def check_unmarked(annotation: Any) -> None:
    """Raises `ImproperlyConfigured` for a marker in an annotation, which is no field of a model."""
    for marker in (ReadOnly, WriteOnly):
        if _has_marker(_metadata_within(annotation), marker):
            raise ImproperlyConfigured(
                f"{marker.__name__} marks a field of a pydantic model, which {annotation!r} is not; make it one of a "
                f"BaseModel, or leave {marker.__name__} out"
            )


def check_class(cls: type) -> None:
    """Raises `ImproperlyConfigured` for a class, no model, that marks a field."""
    hints: Mapping[str, Any]
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception as exc:  # pydantic knows names that typing does not find, and annotations may raise anything
        hints = {name: hint for base in cls.__mro__ for name, hint in vars(base).get("__annotations__", {}).items()}
        if any(marker.__name__ in str(hint) for hint in hints.values() for marker in (ReadOnly, WriteOnly)):
            raise ImproperlyConfigured(
                f"the annotations of {cls.__name__} cannot be read: {exc}; define it first"
            ) from exc
    metadata = [item for hint in hints.values() for item in _metadata_within(hint)]
    if _has_marker(metadata, ReadOnly) or _has_marker(metadata, WriteOnly):
        raise ImproperlyConfigured(
            f"{cls.__name__} marks a field as ReadOnly or WriteOnly, which counts in pydantic models only; "
            "make it a BaseModel"
        )
