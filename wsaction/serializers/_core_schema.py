"""`ReadOnly` and `WriteOnly` fields: the markers, and pydantic core schemas without the marked fields.

    class Card(BaseModel):
        id: Annotated[int, ReadOnly]  # ignored when a client sends it
        title: str
        pin: Annotated[str, WriteOnly]  # never sent to a client

The model itself is not changed. A `SchemaRewriter` copies its core schema for validators of input or output;
`wsaction.serializers._write_only` does so for serializers. The module is one thing: all of it walks core schemas.
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
    from pydantic.fields import FieldInfo  # slow to import; defining a model loads it

MAX_MODELS = 1_024  # entries of a cache: the models of all handlers, and some that are created at run time

Node = dict[str, Any]  # one dict of a core schema
B = TypeVar("B")


class ReadOnly:
    """Marks a field that clients cannot write. Input for it is ignored: ``id: Annotated[int, ReadOnly]``."""


class WriteOnly:
    """Marks a field that clients cannot read. Output leaves it out: ``password: Annotated[str, WriteOnly]``."""


Marker = type[ReadOnly] | type[WriteOnly]
Model = type[BaseModel]


def marked(model: Model, marker: Marker) -> "dict[str, FieldInfo]":
    """The fields of a model that have a marker.

    Raises `ImproperlyConfigured` if the marker is on a part of a field's type, as in ``Annotated[int, WriteOnly] |
    None``, or if a field is declared read-only or write-only in a way that wsaction does not read.
    """
    _check_declarations(model, marker)
    for name, info in model.model_fields.items():
        if _has_marker(_metadata_within(info.annotation), marker):
            raise ImproperlyConfigured(
                f"{model.__name__}.{name}: {marker.__name__} marks a whole field; write "
                f"Annotated[..., {marker.__name__}] around the field's whole type"
            )
    for name, computed in model.model_computed_fields.items():
        if marker is WriteOnly and _has_marker(_metadata_within(computed.return_type), marker):
            raise ImproperlyConfigured(f"{model.__name__}.{name} is a computed field, which cannot be WriteOnly")
    found = {name: info for name, info in model.model_fields.items() if _has_marker(info.metadata, marker)}
    if found and getattr(model, "__pydantic_root_model__", False):
        raise ImproperlyConfigured(
            f"{model.__name__} is a RootModel, whose only field cannot be left out; mark the field that holds it"
        )
    return found


@lru_cache(MAX_MODELS)
def marked_names(model: Model, marker: Any) -> frozenset[str]:
    """The names of a model's fields that have a marker. Raises as `marked` does."""
    return frozenset(marked(model, marker))


def marked_fields(core: Node, marker: Any) -> list[str]:
    """The names of the fields in a model's node that have a marker. Raises as `marked` does."""
    names, fields = marked_names(core["cls"], marker), fields_of(core)
    return [] if fields is None else [name for name in fields["fields"] if name in names]


@dataclass(frozen=True, slots=True)
class SchemaRewriter:
    """Copies core schemas without the fields that have a marker, in nested models too.

    ``name`` is the suffix for the names of the new schemas. ``without`` is the marker. ``by_name``: a field is looked
    up by its name before its alias, as objects have attributes by name. ``stand_in`` returns the class that replaces a
    changed model: for the model's own class, pydantic would use the model's own schema. Without a ``stand_in``, the
    new schema makes instances of the model itself, and only `build` can build it.
    """

    name: str
    without: Marker
    stand_in: Callable[[Model], Model] | None = None
    by_name: bool = False

    def of(self, model: Model) -> Node:
        """The new schema of ``model``.

        Raises `ImproperlyConfigured` for a model that is not fully defined yet, and for misplaced markers.
        """
        root, definitions = _core_schema(model)
        return _with_definitions(self._rewrite(root), self._rewrite(definitions))

    def of_outermost(self, model: Model, *, partial: bool = False) -> Node:
        """The new schema of ``model`` as the outermost one, which keeps its class. With ``partial``, every field of it
        may be absent."""
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
        """The new schema for that of any type; None if no field in it has the marker."""
        if not any(marked_fields(core, self.without) for core in _models_within(schema)):
            return None
        written: Node = self._rewrite(schema)
        return written

    def changes(self, model: Model) -> bool:
        """Whether the new schema of ``model`` differs from the model's own."""
        return any(map(self._changes, _models_within(_core_schema(model))))

    def _changes(self, core: Node) -> bool:
        fields = fields_of(core)
        if fields is None:
            return False
        aliased = self.by_name and any("validation_alias" in field for field in fields["fields"].values())
        return aliased or bool(marked(core["cls"], self.without))

    def _rewrite(self, part: Any, within: bool = False) -> Any:
        """The new version of a part of a schema. ``within``: the part is inside the validators around a model."""
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
                f"{cls.__name__} is a table, of which no field can be left out; annotate with a model that is no table"
            )
        if not is_outermost and self.stand_in is not None:
            node["cls"] = self.stand_in(cls)
        node["custom_init"] = False  # a custom __init__ would validate by the model's own schema
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
        if cls.model_config.get("extra") in ("allow", "forbid"):  # others ignore unknown keys anyway
            others = {key for name, field in fields["fields"].items() for key in _keys(name, field)}
            keys = frozenset(key for name in left_out for key in _keys(name, all_fields[name])) - others
            holder["schema"] = {"type": "function-before", "function": _no_info(dropping(keys)), "schema": fields}
        if self.stand_in is None:
            fill = _no_info(_fill_defaults(left_out, self.without is ReadOnly))
            holder["schema"] = {"type": "function-after", "function": fill, "schema": holder["schema"]}

    def _without_validator(self, node: Node, cls: Model) -> Node:
        """For output, drops an ``after`` validator of the model, which may read a field that is left out."""
        if self.without is ReadOnly or not marked(cls, self.without):
            return node
        return {**node["schema"], **({"ref": node["ref"]} if "ref" in node else {})}

    def _as_instance(self, node: Node, core: Node) -> Node:
        """Wraps a model's node so that it yields what the application expects.

        Output: an instance of the model passes as it is. Input: a required `ReadOnly` field is missing, not None.
        """
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


_NO_SCHEMAS = frozenset({"metadata", "default", "config", "expected"})  # their values may look like schemas


def _fill_defaults(left_out: "Mapping[str, FieldInfo]", defaults: bool) -> Callable[[Any], Any]:
    """A validator that adds the fields that were left out, with their defaults or None. They count as not set."""

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
    """A validator that removes fields without a default from an instance, after the model's validators saw None."""

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
    """A copy of a model's schema in which every field may be absent."""
    copy = _copy(root)
    if (core := core_of(copy)) is not None and (fields := fields_of(core)) is not None:
        fields["fields"] = {
            name: {**field, "schema": _may_be_absent(field["schema"])} for name, field in fields["fields"].items()
        }
    return copy


def model_validators(model: Model) -> Node | None:
    """A schema that runs a model's ``after`` and ``wrap`` validators and its ``model_post_init`` on an instance.

    None if the model has none of these.
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
    """The node of a model, also if validator functions are wrapped around it; None for other nodes."""
    *_, last = _layers(node)
    return last if last.get("type") == "model" else None


def fields_of(core: Node) -> Node | None:
    """The ``model-fields`` node of a model's node; None for a root model, which has none."""
    *_, last = _layers(core["schema"])
    return last if last.get("type") == "model-fields" else None


READ = SchemaRewriter("", ReadOnly)  # for annotations of input
WRITTEN = SchemaRewriter("", WriteOnly, by_name=True)  # for annotations of output

_building = threading.Lock()


def build(kind: Callable[..., B], schema: Node, *config: Any) -> B:
    """Builds the validator or serializer of a rewritten schema: ``kind(schema, *config)``.

    For a class that is complete, pydantic uses the validator and serializer of the class and ignores the schema. So the
    classes count as incomplete meanwhile; the lock keeps other threads from that state.
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
    """A model's core schema. Raises `ImproperlyConfigured` for a model that is not fully defined yet."""
    return _with_definitions(*_core_schema(model))


def map_member(key: str, value: Any, change: Callable[[Any], Any]) -> Any:
    """The value of a node's key, with ``change`` applied to each schema in it."""
    if key in _NO_SCHEMAS:
        return value
    if key in ("fields", "choices") and type(value) is dict:  # keys are names of fields or tags: any text
        return {name: change(member) for name, member in value.items()}
    return change(value)


def by_names(schema: Any) -> Node | None:
    """A copy of a schema, for `build`, that looks up the fields of models by their names; None if it has no aliases.

    An alias counts too, unless it is the name of another field or a path into another field's value.
    """
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
        node["custom_init"] = False  # as in `SchemaRewriter`
    elif node.get("type") == "model-fields":
        for name, field in node["fields"].items():
            alias = field.pop("validation_alias", name)
            if plain := [path for path in _choices(alias) if len(path) == 1 and path[0] not in node["fields"]]:
                field["validation_alias"] = [[name], *plain]
    return node


def _core_schema(model: Model) -> tuple[Node, list[Node]]:
    """A model's schema and the definitions that it refers to."""
    if not model.__pydantic_complete__ and not model.model_rebuild(raise_errors=False):
        raise ImproperlyConfigured(
            f"{model.__name__} is not fully defined: it names types that do not exist yet; define them before the "
            "handler that uses it"
        )
    schema: Any = model.__pydantic_core_schema__
    return (schema["schema"], schema["definitions"]) if schema["type"] == "definitions" else (schema, [])


def _resolved(node: Node, definitions: list[Node]) -> Node:
    """The schema that a node refers to; the node itself if it is no reference."""
    return next((definition for definition in definitions if definition["ref"] == node.get("schema_ref")), node)


def _nodes(part: Any) -> Iterator[Node]:
    """All nodes of a schema, each before those in it."""
    if type(part) in (list, tuple):
        for item in part:
            yield from _nodes(item)
    elif type(part) is dict:
        yield part
        schemas: list[Any] = []
        for key, value in part.items():
            map_member(key, value, schemas.append)
        yield from _nodes(schemas)


def _models_within(schema: Any) -> Iterator[Node]:
    """The nodes of all models in a schema. Raises `ImproperlyConfigured` for markers in other classes."""
    for node in _nodes(schema):
        if node.get("type") in ("dataclass", "typed-dict", "named-tuple") and "cls" in node:
            check_class(node["cls"])
        if node.get("type") == "call" and isinstance(node["function"], type):  # a named tuple, in older pydantic
            check_class(node["function"])
        if node.get("type") == "model" and "cls" in node:
            yield node


def _with_definitions(root: Node, definitions: list[Node]) -> Node:
    return {"type": "definitions", "schema": root, "definitions": definitions} if definitions else root


def _layers(node: Node) -> Iterator[Node]:
    """A node, and each node inside it through validator functions, up to the first that is no function."""
    yield node
    while str(node.get("type")).startswith("function-") and "schema" in node:
        node = node["schema"]
        yield node


def _copy(node: Node) -> Node:
    """A copy of a model's node that is deep enough to replace its ``fields``."""
    copy = dict(node)
    if isinstance(inner := copy.get("schema"), dict):
        copy["schema"] = _copy(inner)
    return copy


def _may_be_absent(schema: Node) -> Node:
    inner = schema["schema"] if schema["type"] == "default" else schema
    return {"type": "default", "schema": inner, "default_factory": lambda: None, "validate_default": False}


def _renamed(ref: str, suffix: str) -> str:
    """A reference with a suffix after the name: pydantic's references are ``module.Name:id``."""
    return re.sub(r"(:\d+)?$", rf"{suffix}\1", ref, count=1)


def _no_info(function: Callable[..., Any]) -> Node:
    return {"type": "no-info", "function": function}


def _choices(alias: Any) -> list[list[str | int]]:
    """A validation alias in its longest form, a list of paths: ``[["a"]]`` for ``"a"``."""
    if isinstance(alias, str):
        return [[alias]]
    return alias if isinstance(alias[0], list) else [alias]


def _keys(name: str, model_field: Node) -> Iterator[Any]:
    """The keys by which a client may send a field."""
    yield name
    for path in _choices(model_field.get("validation_alias", name)):
        yield path[0]


def dropping(keys: frozenset[Any]) -> Callable[[Any], Any]:
    """A function that removes keys from a dict."""

    def ignore(value: Any) -> Any:
        return {key: member for key, member in value.items() if key not in keys} if isinstance(value, dict) else value

    return ignore


# ------------------------------------------------------------------------------------------------- misuse
def _has_marker(metadata: Iterable[Any], marker: Marker) -> bool:
    return any(isinstance(item, marker) or (isinstance(item, type) and issubclass(item, marker)) for item in metadata)


def _check_declarations(model: Model, marker: Marker) -> None:
    """Raises for a marker that is a field's default or a string, and for DRF's ways: ``class Meta`` and the like."""
    option = "read_only" if marker is ReadOnly else "write_only"
    keys, meta = {option, option.replace("_o", "O")}, getattr(model, "Meta", None)
    names = {*getattr(meta, f"{option}_fields", ()), *(getattr(meta, "exclude", ()) if marker is WriteOnly else ())}
    names |= {name for name, options in getattr(meta, "extra_kwargs", {}).items() if options.get(option)}
    for name, info in model.model_fields.items():
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        is_text = any(
            isinstance(item, str) and item.lower() in (option, marker.__name__.lower()) for item in info.metadata
        )
        declared = is_text or name in names or _has_marker([info.default], marker)
        declared = declared or any(extra.get(key) is True for key in keys)
        if declared and not _has_marker(info.metadata, marker):
            raise ImproperlyConfigured(
                f"{model.__name__}.{name} is declared {option.replace('_', '-')} in a way that wsaction does not read; "
                f"write {name}: Annotated[..., {marker.__name__}]"
            )


def _metadata_within(annotation: Any, seen: frozenset[int] = frozenset()) -> Iterator[Any]:
    """The metadata of every ``Annotated`` in a type."""
    if id(annotation) in seen:  # a recursive alias: `type Json = dict[str, Json]`
        return
    if typing.get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
    named = (getattr(annotation, "__value__", None), getattr(annotation, "__supertype__", None))  # alias, NewType
    for argument in (*typing.get_args(annotation), *named):
        yield from _metadata_within(argument, seen | {id(annotation)})


def check_unmarked(annotation: Any) -> None:
    """Raises `ImproperlyConfigured` for a marker in an annotation that is not a field of a model."""
    for marker in (ReadOnly, WriteOnly):
        if _has_marker(_metadata_within(annotation), marker):
            raise ImproperlyConfigured(
                f"{marker.__name__} marks a field of a pydantic model, which {annotation!r} is not; make it a field of "
                f"a BaseModel, or leave {marker.__name__} out"
            )


def check_class(cls: type) -> None:
    """Raises `ImproperlyConfigured` for a marker in a class that is not a pydantic model."""
    hints: Mapping[str, Any]
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception as exc:  # pydantic resolves names that typing cannot, and annotations may raise anything
        hints = {name: hint for base in cls.__mro__ for name, hint in vars(base).get("__annotations__", {}).items()}
        if any(marker.__name__ in str(hint) for hint in hints.values() for marker in (ReadOnly, WriteOnly)):
            raise ImproperlyConfigured(
                f"the annotations of {cls.__name__} cannot be read: {exc}; define it first"
            ) from exc
    metadata = [item for hint in hints.values() for item in _metadata_within(hint)]
    if _has_marker(metadata, ReadOnly) or _has_marker(metadata, WriteOnly):
        raise ImproperlyConfigured(
            f"{cls.__name__} marks a field as ReadOnly or WriteOnly, which works in pydantic models only; "
            "make it a BaseModel"
        )
