"""Converts the JSON Schemas of an AsyncAPI document to TypeScript types."""

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from wsaction.asyncapi._client_names import is_identifier, pascal, unique_name

Schema = Mapping[str, Any]

_REF = "#/components/schemas/"
_PRIMITIVES = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


class Types:
    """The types of one generated file. ``taken`` are names that models must not have.

    ``Types(components).of({"$ref": "#/components/schemas/Card"})`` is ``"Card"``; from then on, `declarations` has the
    declaration of ``Card``. A model has the name of its class. If it has another schema for input, that one is
    ``CardInput``. If two models have one name, their modules are added. If the name is taken, a ``_`` is added.
    """

    def __init__(self, components: Mapping[str, Schema], taken: Collection[str] = ()) -> None:
        self._components = components
        self._names: dict[str, str] = {}
        self._taken = set(taken)
        for component in sorted(components, key=lambda name: (_generic_argument(name) in components, name)):
            names = self._candidates(component)
            name = next((name for name in names if name not in self._taken), names[-1])
            self._names[component] = self.named(name)
        self._declarations: dict[str, str] = {}

    def _candidates(self, component: str) -> list[str]:
        """Names for a model, the best first."""
        argument = _generic_argument(component)
        if argument in self._names:  # Page_Card_: "Page" and the name of Card
            return [pascal(component.removesuffix(f"_{argument}_")) + self._names[argument], pascal(component)]
        short = _short(component)
        title = str(self._components[component].get("title", ""))
        derived = [pascal(title)] if title and short == f"{title}Output" else []
        return [*derived, pascal(short), pascal(component)]

    def named(self, name: str) -> str:
        """Reserves a name for a type. Adds ``_`` to it if it is taken."""
        name = unique_name(name, self._taken)
        self._taken.add(name)
        return name

    def declarations(self) -> Iterator[str]:
        """The declarations of the models that `of` returned and of those they refer to, in order of their names."""
        for name in sorted(self._declarations):
            yield self._declarations[name]

    def declare(self, name: str, schema: Schema) -> str:
        """Declares a schema under a name, as an interface or a type."""
        about = comment([_about(schema)], "")
        if _is_object(schema) and not _has_more(schema):
            members = self._members(schema["properties"], schema.get("required", ()))
            return f"{about}export interface {name} {members}\n"
        return f"{about}export type {name} = {self.of(schema)};\n"

    def of(self, schema: Any) -> str:
        """A schema as a type expression on one line."""
        if not isinstance(schema, Mapping):
            return "never" if schema is False else "unknown"
        if "$ref" in schema:
            return self._referred(str(schema["$ref"]))
        if "const" in schema:
            return literal(schema["const"])
        if "enum" in schema:
            return _union([literal(value) for value in schema["enum"]])
        for keyword, join in (("anyOf", _union), ("oneOf", _union), ("allOf", _intersection)):
            if keyword in schema:
                return join([self.of(part) for part in schema[keyword]])
        return self._of_type(schema)

    def _members(self, properties: Mapping[str, Schema], required: Collection[str]) -> str:
        """An object type with a line for each property."""
        lines = []
        for name, schema in properties.items():
            about = comment([_about(schema)], "  ")
            lines.append(f"{about}  {key(name)}{'' if name in required else '?'}: {self.of(schema)};\n")
        return "{\n" + "".join(lines) + "}"

    def _referred(self, ref: str) -> str:
        component = ref.removeprefix(_REF)
        name = self._names.get(component)
        if name is None:
            return "unknown"
        if name not in self._declarations:
            self._declarations[name] = ""  # it may refer to itself
            self._declarations[name] = self.declare(name, self._components[component])
        return name

    def _of_type(self, schema: Schema) -> str:
        kind = schema.get("type")
        if isinstance(kind, Sequence) and not isinstance(kind, str):
            return _union([self._of_type({**schema, "type": one}) for one in kind])
        if kind == "array":
            return self._array(schema)
        if _is_object(schema) or kind == "object":
            return self._object(schema)
        return _PRIMITIVES.get(str(kind), "unknown")

    def _array(self, schema: Schema) -> str:
        items = schema.get("items", {})
        if not isinstance(items, Sequence) or isinstance(items, str):
            return _listed(self.of(items))
        types = [self.of(item) for item in items]
        required = schema.get("minItems", 0)
        parts = [f"{_grouped(one)}?" if at >= required else one for at, one in enumerate(types)]
        more = schema.get("additionalItems", True)
        if more is not False and schema.get("maxItems", math.inf) > len(items):
            parts.append(f"...{_listed(self.of(more))}")
        return f"[{', '.join(parts)}]"

    def _object(self, schema: Schema) -> str:
        parts = []
        if _is_object(schema):
            required = schema.get("required", ())
            members = [
                f"{key(name)}{'' if name in required else '?'}: {self.of(member)}"
                for name, member in schema["properties"].items()
            ]
            parts.append(f"{{ {'; '.join(members)} }}")
        if _has_more(schema) or not parts:
            parts.append(self._mapping(schema, beside=bool(parts)))
        return _intersection(parts)

    def _mapping(self, schema: Schema, beside: bool) -> str:
        more = schema.get("additionalProperties")
        values = [self.of(one) for one in schema.get("patternProperties", {}).values()]
        if isinstance(more, Mapping):
            values.append(self.of(more))
        value = "unknown" if beside or not values else _union(values)
        names = self.of(schema["propertyNames"]) if "propertyNames" in schema else "string"
        if names not in ("string", "unknown"):
            return f"{{ [Key in {names}]?: {value} }}"
        return f"{{ [key: string]: {value} }}"


def _short(name: str) -> str:
    """The class name in a component's name, without its module and the suffix of output models."""
    return re.sub(r"^[a-z0-9_]+__", "", name).removesuffix("-Output") or name


def _generic_argument(name: str) -> str:
    """The argument of a generic model, from its component's name: ``Card`` for ``Page_Card_``."""
    found = re.fullmatch(r"[^_]+_(.+)_", name)
    return found[1] if found else ""


def _is_object(schema: Schema) -> bool:
    return bool(schema.get("properties"))


def _has_more(schema: Schema) -> bool:
    """Whether an object may have other properties than the named ones."""
    return bool(schema.get("additionalProperties") or schema.get("patternProperties"))


def _about(schema: Any) -> str:
    return str(schema.get("description", "")) if isinstance(schema, Mapping) else ""


def _union(parts: Sequence[str]) -> str:
    flat = list(dict.fromkeys(parts))
    return "unknown" if "unknown" in flat else " | ".join(flat) or "never"


def _intersection(parts: Sequence[str]) -> str:
    flat = [one for one in dict.fromkeys(parts) if one != "unknown"]
    return " & ".join(map(_grouped, flat)) if len(flat) > 1 else (flat or ["unknown"])[0]


def _grouped(text: str) -> str:
    return f"({text})" if " | " in text or " & " in text else text


def _listed(text: str) -> str:
    return f"Array<{text}>" if " " in text else f"{text}[]"


def literal(value: Any) -> str:
    """A JSON value as a literal type."""
    if value is None or isinstance(value, str | int | float):
        return json.dumps(value, ensure_ascii=False)
    return "unknown"


def key(name: str) -> str:
    """A property name, quoted if necessary."""
    return name if is_identifier(name) else json.dumps(name, ensure_ascii=False)


def comment(paragraphs: Sequence[str], indent: str) -> str:
    """A documentation comment and a line break; an empty string if all paragraphs are empty."""
    lines = [line.rstrip() for text in paragraphs if text for line in text.strip().replace("*/", "*\\/").splitlines()]
    if not lines:
        return ""
    if len(lines) == 1:
        return f"{indent}/** {lines[0]} */\n"
    body = "".join(re.sub(r" +$", "", f"{indent} * {line}") + "\n" for line in lines)
    return f"{indent}/**\n{body}{indent} */\n"
