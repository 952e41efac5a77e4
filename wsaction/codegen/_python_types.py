"""Converts the JSON Schemas of an AsyncAPI document to Python types.

What the server sends becomes pydantic models. What only a request has becomes a TypedDict, so that a field that is left
out is not sent: a partial update changes nothing else.
"""

import json
import keyword
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from wsaction.asyncapi._client_methods import PYTHON
from wsaction.asyncapi._client_names import pascal, unique_name
from wsaction.codegen._types import _generic_argument, _short

Schema = Mapping[str, Any]

_REF = "#/components/schemas/"
_PRIMITIVES = {"integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_FORMATS = {
    "date-time": "_datetime.datetime",
    "date": "_datetime.date",
    "time": "_datetime.time",
    "duration": "_datetime.timedelta",
    "uuid": "_uuid.UUID",
}
_NO_FIELDS = frozenset({*dir(BaseModel), *PYTHON.reserved})  # a field must not hide what annotations name


class PythonTypes:
    """The types of one generated module, named as those of TypeScript. See `wsaction.codegen._types.Types`."""

    def __init__(self, components: Mapping[str, Schema]) -> None:
        self._components = components
        self._taken = {"Client", *keyword.kwlist, *PYTHON.reserved}
        self._names: dict[str, str] = {}
        self._declarations: dict[str, str] = {}
        self._inline: dict[tuple[str, str, bool], str] = {}  # objects without a name of their own
        self._queries: dict[tuple[str, ...], str] = {}
        for component in sorted(components, key=lambda name: (_generic_argument(name) in components, name)):
            argument = _generic_argument(component)
            short = pascal(_short(component))
            title = pascal(str(components[component].get("title", "")))
            short = title if short == f"{title}Output" and title not in self._taken else short
            if argument in self._names:
                short = pascal(component.removesuffix(f"_{argument}_")) + self._names[argument]
            self._names[component] = self.named(short if short not in self._taken else pascal(component))

    def named(self, name: str) -> str:
        """Reserves a name. Adds ``_`` to it if it is taken."""
        name = unique_name(name, self._taken)
        self._taken.add(name)
        return name

    @staticmethod
    def local(name: str) -> str:
        """The name of an argument."""
        return name.lstrip("_") + "_" if name in PYTHON.reserved or keyword.iskeyword(name) else name

    def declarations(self) -> Iterator[str]:
        """The declarations, classes first: aliases name them when the module is imported."""
        yield from sorted(self._declarations.values(), key=lambda text: not text.startswith("class "))

    def of(self, schema: Any, context: str, *, is_request: bool = False) -> str:
        """A schema as a type expression. An object without a name is declared as ``context``."""
        if not isinstance(schema, Mapping):
            return "_Any"
        if "$ref" in schema:
            return self._referred(str(schema["$ref"]), is_request)
        if "const" in schema:
            return _literal([schema["const"]])
        if "enum" in schema:
            return _literal(schema["enum"])
        for key in ("anyOf", "oneOf"):
            if key in schema:
                parts = [
                    self.of(part, f"{context}{number or ''}", is_request=is_request)
                    for number, part in enumerate(schema[key])
                ]
                return union(parts)
        if len(schema.get("allOf", ())) == 1:
            return self.of(schema["allOf"][0], context, is_request=is_request)
        return self._of_type(schema, context, is_request)

    def _of_type(self, schema: Schema, context: str, is_request: bool) -> str:
        kind = schema.get("type")
        if isinstance(kind, Sequence) and not isinstance(kind, str):
            return union([self._of_type({**schema, "type": one}, context, is_request) for one in kind])
        if kind == "array":
            return self._array(schema, context, is_request)
        if schema.get("properties"):
            known = (context, json.dumps(schema, sort_keys=True), is_request)
            if known not in self._inline:
                self._inline[known] = self.named(context)
                self._declared(self._inline[known], schema, is_request)
            return self._inline[known]
        if kind == "object":
            values = [*schema.get("patternProperties", {}).values()]
            more = schema.get("additionalProperties")
            values += [more] if isinstance(more, Mapping) else []
            value = union([self.of(one, f"{context}Value", is_request=is_request) for one in values]) or "_Any"
            return f"_builtins.dict[str, {value}]"
        if kind == "string":
            return _FORMATS.get(str(schema.get("format")), "str")
        return _PRIMITIVES.get(str(kind), "_Any")

    def _array(self, schema: Schema, context: str, is_request: bool) -> str:
        items = schema.get("items", {})
        if not isinstance(items, Sequence) or isinstance(items, str):
            return f"_builtins.list[{self.of(items, f'{context}Item', is_request=is_request)}]"
        kinds = [self.of(item, f"{context}Item{at}", is_request=is_request) for at, item in enumerate(items)]
        if schema.get("minItems") == schema.get("maxItems") == len(items):
            return f"_builtins.tuple[{', '.join(kinds)}]"
        return f"_builtins.list[{union(kinds) or '_Any'}]"

    def _referred(self, ref: str, is_request: bool) -> str:
        component = ref.removeprefix(_REF)
        name = self._names.get(component)
        if name is None:
            return "_Any"
        if name not in self._declarations:
            schema = self._components[component]
            self._declarations[name] = ""  # it may refer to itself
            if schema.get("properties"):
                self._declared(name, schema, is_request and component.endswith("Input"))
            else:
                kind = self.of(schema, f"{name}Value", is_request=is_request)
                self._declarations[name] = f"{name} = _TypeAliasType({name!r}, {json.dumps(kind)})\n"
        return name

    def _declared(self, name: str, schema: Schema, is_request: bool) -> None:
        """Declares an object."""
        self._declarations[name] = ""
        properties, required = schema["properties"], schema.get("required", ())
        if is_request:
            self._declarations[name] = self._typed_dict(name, properties, required, name)
            return
        lines = [
            docstring([str(schema.get("description", ""))]),
            "    model_config = _ConfigDict(populate_by_name=True)\n",
        ]
        fields: set[str] = set()
        for key, one in properties.items():
            kind = self.of(one, f"{name}{pascal(key)}")
            field = _field(key, fields)
            fields.add(field)
            options = [] if key in required else ["default=None"]
            kind = kind if key in required else union([kind, "None"])
            options += [] if field == key else [f"alias={key!r}"]
            lines.append(
                f"    {field}: {_quoted(kind)}" + (f" = _Field({', '.join(options)})" if options else "") + "\n"
            )
        self._declarations[name] = f"class {name}(_BaseModel):\n" + "".join(lines) + "\n"

    def _typed_dict(self, name: str, properties: Schema, required: Collection[str], context: str) -> str:
        members = []
        for key, one in properties.items():
            kind = _quoted(self.of(one, f"{context}{pascal(key)}", is_request=True))
            members.append((key, kind if key in required else f"_NotRequired[{kind}]"))
        if all(re.fullmatch(r"[A-Za-z]\w*", key) and not keyword.iskeyword(key) for key, _ in members):
            return f"class {name}(_TypedDict):\n" + "".join(f"    {key}: {kind}\n" for key, kind in members) + "\n"
        fields = ", ".join(f"{key!r}: {kind}" for key, kind in members)
        return f"{name} = _TypedDict({name!r}, {{{fields}}})\n"

    def parameters(self, name: str, properties: Schema, required: Collection[str], context: str) -> str:
        """Declares the parameters of a method, and returns their name."""
        name = self.named(name)
        self._declarations[name] = self._typed_dict(name, properties, required, context)
        return name

    def query(self, name: str, names: Collection[str]) -> str:
        """Declares the query parameters of a method, and returns their name."""
        if tuple(names) not in self._queries:
            name = self._queries[tuple(names)] = self.named(name)
            fields = ", ".join(f"{one!r}: _QueryValue" for one in names)
            self._declarations[name] = f"{name} = _TypedDict({name!r}, {{{fields}}}, total=False)\n"
        return self._queries[tuple(names)]


def _field(key: str, taken: Collection[str]) -> str:
    """The name of a field: that of the property, if it can be."""
    name = re.sub(r"\W", "_", key).lstrip("_") or "field"
    name = name if name.isidentifier() else f"field_{name}"
    while name in taken or name in _NO_FIELDS or keyword.iskeyword(name):
        name += "_"
    return name


def _quoted(kind: str) -> str:
    """A type as a forward reference: it may be declared later."""
    return json.dumps(kind, ensure_ascii=False) if "Literal" not in kind else repr(kind)


def union(kinds: Sequence[str]) -> str:
    """A union of types; "" without any."""
    flat = list(dict.fromkeys(kinds))
    return "_Any" if "_Any" in flat else " | ".join([*(one for one in flat if one != "None"), *({"None"} & {*flat})])


def _literal(values: Sequence[Any]) -> str:
    """A type of these values. A float is no literal."""
    known = [value for value in values if isinstance(value, str | int | bool | None)]
    kinds = [f"_Literal[{', '.join(map(repr, known))}]"] if known else []
    return union([*kinds, *("float" for value in values if isinstance(value, float))]) or "_Any"


def docstring(paragraphs: Sequence[str], indent: str = "    ") -> str:
    """A docstring and a line break; an empty string if all paragraphs are empty."""
    text = "\n\n".join(one.strip() for one in paragraphs if one and one.strip())
    if not text:
        return ""
    lines = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').splitlines()
    if len(lines) == 1:
        end = " " if lines[0].endswith('"') else ""
        return f'{indent}"""{lines[0]}{end}"""\n'
    body = "".join(f"{indent}{line}".rstrip() + "\n" for line in lines[1:])
    return f'{indent}"""{lines[0]}\n{body}{indent}"""\n'
