"""The TypeScript client of an app: one file without dependencies, written from its AsyncAPI document.

In front stands the runtime, the same for all, put together from the ``.ts`` files in `client/`. Behind it are the
models, an interface for each object of the client, the client, and a table of what each of its methods asks.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

from wsaction.asyncapi._client_methods import Group, Method, Route, groups_of
from wsaction.asyncapi._client_names import pascal
from wsaction.codegen._types import Types, comment, key, literal

__all__ = ("runtime", "typescript")

_PARTS = (
    "errors",
    "messages",
    "pacing",
    "connection",
    "reconnect",
    "streams",
    "subscriptions",
    "event_routing",
    "calls",
)
_HEAD = """\
// Written by `wsaction codegen`: the client of {title}, connection {address}. Do not edit.
/* eslint-disable */

"""
_RULE = "// " + "-" * (113 - len(" this app")) + " this app\n\n"


@lru_cache(maxsize=1)
def runtime() -> str:
    """What stands in front of every generated file."""
    folder = files("wsaction") / "codegen" / "client"
    return "".join((folder / f"{name}.ts").read_text("utf-8") for name in _PARTS)


def typescript(document: Mapping[str, Any], channel: str) -> str:
    """The file for a channel of an AsyncAPI document that `wsaction.asyncapi` described.

    The same document gives the same text. Raises ``KeyError`` for a channel that there is not.
    """
    return _Writer(document, channel).text()


class _Writer:
    """Writes one file."""

    def __init__(self, document: Mapping[str, Any], channel: str) -> None:
        self._document = document
        self._channel = document["channels"][channel]
        self._root = groups_of(document, channel)
        self._types = Types(document["components"]["schemas"], _taken())
        self._api = self._types.named("Api")
        self._declared: list[str] = []
        self._events: dict[str, str] = {}  # names of unions, by what they are
        self._routes: dict[str, str] = {}  # names of routes, by what they are

    def text(self) -> str:
        """All of it."""
        apis = "\n".join(self._interfaces(self._root, self._api))  # declares what it needs on its way
        plans = f"const PLANS: Members = {self._plans(self._root, '')};\n"
        routes = "".join(f"const {name}: Route = {route};\n" for route, name in self._routes.items())
        declared = "\n".join([*self._types.declarations(), *self._declared])
        head = _HEAD.format(title=_line(self._document["info"]["title"]), address=_line(self._channel["address"]))
        parts = [declared, apis, self._client(), routes, plans]
        return head + runtime() + _RULE + "\n".join(part for part in parts if part)

    # ------------------------------------------------------------------------------------------------ interfaces
    def _interfaces(self, group: Group, name: str) -> Iterator[str]:
        """The interfaces of an object and of all below it."""
        lines, below = [], []
        for member, child in group.groups.items():
            api = self._types.named(f"{child.name}Api")
            lines.append(f"  readonly {key(member)}: {api};\n")
            below.append((child, api))
        for member, methods in group.methods.items():
            # The compiler tells of the last one: of options, where one takes captures and the other none.
            lines += [self._signature(member, method, group) for method in _most_captures_first(methods)]
        body = "".join(lines)
        yield f"export interface {name} {{\n{body}}}\n" if body else f"export interface {name} {{}}\n"
        for child, api in below:
            yield from self._interfaces(child, api)

    def _signature(self, name: str, method: Method, group: Group) -> str:
        arguments = self._arguments(method, group)
        about = comment(["\n\n".join(method.about)], "  ")
        if method.kind == "subscribe":
            events, snapshot = self._events_type(method, group), self._types.of(method.data)
            result = f"Subscription<{events}, SnapshotFor<Asked, {snapshot}>, FirstFor<Asked, Since, {snapshot}>>"
            arguments.append(f"options?: SubscribeOptions<{_query(method)}, Asked, Since>")
            generic = "<Asked extends boolean = false, Since extends Position | null = null>"
            return f"{about}  {key(name)}{generic}({', '.join(arguments)}): Promise<{result}>;\n"
        data = "void" if method.kind == "send" else self._types.of(method.data)
        result = f"Stream<{data}>" if method.kind == "stream" else f"Promise<{data}>"
        arguments.append(f"options?: {_options(method)}")
        return f"{about}  {key(name)}({', '.join(arguments)}): {result};\n"

    def _arguments(self, method: Method, group: Group) -> list[str]:
        """The captures and parameters, each where there are any; optional from where nothing that follows is needed."""
        route = method.route
        parameters = method.parameters
        required = method.request.get("required", ())
        needs_parameters = any(name in required for name in parameters)
        arguments = []
        if route.captures:
            optional = "" if route.required or needs_parameters else "?"
            arguments.append(f"captures{optional}: {_capture_types(route.captures, route.required)}")
        if parameters:
            types = {name: self._parameter(name, schema, method, group) for name, schema in parameters.items()}
            members = "; ".join(f"{key(name)}{'' if name in required else '?'}: {kind}" for name, kind in types.items())
            arguments.append(f"params{'' if needs_parameters else '?'}: {{ {members} }}")
        return arguments

    def _parameter(self, name: str, schema: Any, method: Method, group: Group) -> str:
        """Its type; that of data which is no model of its own, but made of one, gets a name."""
        if name == "data" and isinstance(schema, Mapping) and schema.get("properties"):
            model = self._types.named(f"{group.name}{pascal(method.action)}Data")
            self._declared.append(self._types.declare(model, schema))
            return model
        return self._types.of(schema)

    def _events_type(self, method: Method, group: Group) -> str:
        events = [f"ServerEvent<{json.dumps(name)}, {self._types.of(one)}>" for name, one in method.events.items()]
        if not events:
            return "ServerEvent"
        union = "".join(f"\n  | {one}" for one in events)
        if union not in self._events:
            self._events[union] = self._types.named(f"{group.name}Event")
            self._declared.append(f"export type {self._events[union]} ={union};\n")
        return self._events[union]

    # ------------------------------------------------------------------------------------------------ the client
    def _client(self) -> str:
        parameters = self._channel.get("x-wsaction", {}).get("parameters", {})
        schemas = {name: one["schema"] for name, one in parameters.items()}
        required = [name for name, one in parameters.items() if one["required"]]
        captures = f", captures: {_capture_types(schemas, required)}" if schemas else ""
        address = (self._channel["address"] or "/").removeprefix("/")
        route = _route(Route(address, schemas, tuple(required), (address,)))
        where = _line(self._channel["address"])
        about = comment([self._channel.get("description", ""), f"The client of {where}."], "")
        return f"""\
export interface Client extends {self._api} {{}}

{about}export class Client extends BaseClient {{
  constructor(url: string, options: ClientOptions = {{}}) {{
    super(url, options);
    bind(this, PLANS, this);
  }}

  /** The address to connect to at a server: of "wss://example.com", `wss://example.com{where}`. */
  static address(server: string{captures}): string {{
    return addressOf(server, {route}, {"captures" if schemas else "{}"});
  }}
}}
"""

    def _plans(self, group: Group, indent: str) -> str:
        lines = []
        for name, child in group.groups.items():
            lines.append(f"{indent}  {key(name)}: {self._plans(child, indent + '  ')},\n")
        for name, methods in group.methods.items():
            plans = map(self._plan, _most_captures_first(methods))
            lines.append(f"{indent}  {key(name)}: [{', '.join(plans)}],\n")
        return "{\n" + "".join(lines) + indent + "}"

    def _plan(self, method: Method) -> str:
        route = _route(method.route)
        name = self._routes.setdefault(route, f"ROUTE_{len(self._routes) + 1}")
        takes = ", takes: true" if method.parameters else ""
        fixed = f", fixed: {_json(method.fixed)}" if method.fixed else ""
        return f'{{ kind: "{method.kind}", action: {_json(method.action)}, at: {name}{takes}{fixed} }}'


def _most_captures_first(methods: list[Method]) -> list[Method]:
    return sorted(methods, key=lambda method: -len(method.route.required))


def _options(method: Method) -> str:
    """The type of what goes with a call."""
    return "CallOptions" if method.query is None else f"CallOptions<{_query(method)}>"


def _query(method: Method) -> str:
    """The names that a route's query may have."""
    return "string" if method.query is None else " | ".join(map(literal, method.query)) or "never"


def _capture_types(schemas: Mapping[str, Any], required: Any) -> str:
    members = [f"{key(name)}{'' if name in required else '?'}: {_capture(one)}" for name, one in schemas.items()]
    return f"{{ {'; '.join(members)} }}"


def _capture(schema: Mapping[str, Any]) -> str:
    """What a converter takes: text may be a number, as keys are."""
    if schema.get("type") == "integer":
        return "number"
    return "string" if schema.get("format") == "uuid" else "string | number"


def _check(schema: Mapping[str, Any]) -> dict[str, str]:
    if schema.get("type") == "integer":
        return {"kind": "int"}
    if schema.get("format") == "uuid":
        return {"kind": "uuid"}
    return {"pattern": schema["pattern"]} if "pattern" in schema else {}


def _route(route: Route) -> str:
    captures = {name: _check(one) for name, one in route.captures.items()}
    return _json({"forms": list(route.forms), "captures": captures, "required": list(route.required)})


def _json(value: Any) -> str:
    """A value as TypeScript has it: JSON, with keys bare where they may be."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key(name)}: {_json(one)}' for name, one in value.items())} }}" if value else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_json, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _line(text: Any) -> str:
    """Text that may stand in a comment of one line."""
    return " ".join(str(text or "/").replace("*/", "*\\/").split())


@lru_cache(maxsize=1)
def _taken() -> frozenset[str]:
    """Names that the runtime uses, and the client's."""
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", runtime(), flags=re.DOTALL)
    return frozenset({*re.findall(r"\b[A-Z]\w*", code), "Client"})
