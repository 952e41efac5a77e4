"""Methods of a generated client: one for each action of each route, grouped into nested objects.

The literal segments of a route name the object: both ``boards/{pk}/columns/`` and ``boards/{pk}/columns/{column}/`` are
``client.boards.columns``. A named route uses its namespaces and name instead, unless the name ends with ``-list`` or
``-detail``, as `SimpleRouter` names them. An unnamed regex that cannot be filled in uses the name of its handler. The
methods of the empty route belong to the client itself.
"""

import keyword
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from wsaction.asyncapi._client_names import camel, pascal, snake, unique_name

Document = Mapping[str, Any]
Kind = Literal["call", "send", "stream", "subscribe"]

# Every client has these members. The names of its other members begin with "$".
RESERVED_NAMES = frozenset({"state", "connect", "close", "onState"})
OPTION_NAMES = frozenset({"query", "timeout", "signal", "snapshot", "since"})
ENVELOPE_KEYS = ("action", "route", "request_id")  # keys of a frame that are not parameters


@dataclass(frozen=True, slots=True)
class Route:
    """A route of a connection, as described by the document."""

    text: str
    captures: Mapping[str, Mapping[str, Any]]  # schemas by name
    required: tuple[str, ...]  # names of captures
    forms: tuple[str, ...]  # empty: the caller gives the whole route

    @classmethod
    def from_item(cls, item: Document) -> "Route":
        """Reads an item of a channel's ``routes``."""
        if item.get("is_regex"):
            return cls(item["route"], {"route": {"type": "string"}}, ("route",), ())
        parameters = item.get("parameters", {})
        required = tuple(name for name, parameter in parameters.items() if parameter["required"])
        schemas = {name: parameter["schema"] for name, parameter in parameters.items()}
        return cls(item["route"], schemas, required, tuple(item.get("forms", [item["route"]])))


@dataclass(frozen=True, slots=True)
class Method:
    """One overload of a client method: an action at a route.

    ``request`` is the schema of its frame. ``data`` is the schema of the reply's data, of a stream's items or of a
    subscription's snapshot. ``events`` maps the names of events to the schemas of their data.
    """

    kind: Kind
    action: str
    route: Route
    request: Document
    data: Any
    about: tuple[str, ...]
    operation: str = ""  # the name of the operation in the document
    query: tuple[str, ...] | None = None  # accepted query parameters; None: any
    fixed: Mapping[str, Any] = field(default_factory=dict)
    events: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Any]:
        """The schemas of the arguments that a caller passes beside the route's."""
        hidden = {*ENVELOPE_KEYS, *self.fixed, *(("since", "snapshot") if self.kind == "subscribe" else ())}
        return {name: schema for name, schema in self.request["properties"].items() if name not in hidden}

    def is_ambiguous_with(self, other: "Method") -> bool:
        """Whether the first argument of a call could belong to both overloads."""
        more, less = sorted((self, other), key=lambda method: -len(method.route.required))
        first = {*less.route.captures} or {*less.parameters} or OPTION_NAMES
        return {*more.route.required} <= first


class Style(NamedTuple):
    """How a language names the members of a client."""

    member: Callable[[str], str]
    has_overloads: bool  # whether one name may have several methods, which their captures tell apart
    reserved: frozenset[str]  # names that no member has


TYPESCRIPT = Style(camel, True, frozenset())
PYTHON = Style(snake, False, frozenset({*keyword.kwlist, "str", "int", "float", "bool", "self"}))


class Group:
    """An object of the client: its methods, each with one or more overloads, and the objects below it."""

    def __init__(self, name: str = "", taken: frozenset[str] = frozenset(), style: Style = TYPESCRIPT) -> None:
        self.name = name  # the stem of its type's name
        self._style = style
        self.methods: dict[str, list[Method]] = {}
        self.groups: dict[str, Group] = {}
        self._taken = taken

    def add(self, method: Method, name: str) -> None:
        """Adds a method.

        Methods of one name become overloads if their captures tell them apart. Otherwise the name of the new one also
        lists its captures, as in ``subscribeByPk``, and ends with ``_`` if even that is taken.
        """
        name = unique_name(self._style.member(name), {*self._taken, *self._style.reserved})
        captures = "_".join(["", "by", *method.route.captures])
        for candidate in (name, self._style.member(name + captures)):
            if not self._style.has_overloads and candidate in self.methods:
                continue
            if not any(method.is_ambiguous_with(other) for other in self.methods.get(candidate, ())):
                self.methods.setdefault(candidate, []).append(method)
                return
        self.methods[unique_name(candidate, self.methods)] = [method]

    def descend(self, path: list[str]) -> "Group":
        """Returns the object at a path below this one; creates it if necessary."""
        group = self
        for word in path:
            name = self._style.member(word)
            if name not in group.groups:
                group.groups[name] = Group(group.name + pascal(word), style=self._style)
            group = group.groups[name]
        return group

    def methods_by_path(self, prefix: str = "") -> Iterator[tuple[str, Method]]:
        """Yields every overload with the path of its method, as ``cards.partialUpdate``."""
        for name, ways in self.methods.items():
            yield from ((f"{prefix}{name}", method) for method in ways)
        for name, group in self.groups.items():
            yield from group.methods_by_path(f"{prefix}{name}.")

    def rename_clashing_groups(self) -> None:
        """Renames the objects below this one whose names are those of methods."""
        taken = {*self.methods, *self._taken, *self._style.reserved}
        for name in [*self.groups]:
            group = self.groups.pop(name)
            group.rename_clashing_groups()
            name = unique_name(name, taken)
            taken.add(name)
            self.groups[name] = group


def groups_of(
    document: Document, channel: str, taken: frozenset[str] = RESERVED_NAMES, style: Style = TYPESCRIPT
) -> Group:
    """Returns the root object of the client for a channel. It has none of the names ``taken``."""
    reader = _Reader(document, channel)
    root = Group("", taken, style)
    for item in document["channels"][channel]["x-wsaction"]["routes"]:
        group = root.descend(_path(item))
        for name, method in reader.methods(item, Route.from_item(item)):
            group.add(method, name)
    root.rename_clashing_groups()
    return root


def _path(item: Document) -> list[str]:
    name = item.get("name", "")
    if name and not name.endswith(("-list", "-detail")):
        return [part for part in name.split(":") if part]
    if item.get("is_regex"):
        return [item["handler"]]
    names = "|".join(map(re.escape, item.get("parameters", {})))
    text = re.sub(rf"\{{(?:{names})\}}", "", item["route"]) if names else item["route"]
    return [part for part in text.split("/") if re.search(r"\w", part)]


class _Reader:
    """Reads the operations of one channel."""

    def __init__(self, document: Document, channel: str) -> None:
        self._document = document
        self._messages = document["channels"][channel]["messages"]
        self._actions: dict[tuple[str, str], list[tuple[str, Document]]] = {}  # several if routes have the same text
        self._events: dict[str, list[Document]] = {}
        for name, operation in document["operations"].items():
            if operation["channel"]["$ref"] != f"#/channels/{channel}":
                continue
            facts = operation["x-wsaction"]
            if operation["action"] == "send":
                self._events.setdefault(facts["route"], []).append(operation)
            else:
                self._actions.setdefault((facts["route"], facts["action"]), []).append((name, operation))

    def methods(self, item: Document, route: Route) -> Iterator[tuple[str, Method]]:
        """Yields the methods of a route with the names they should have.

        Consumes the operations that it reads: routes with the same text take theirs in the order of the document.
        """
        events = self._events_of(item)
        is_live = "$resync" in events and "subscribe" in item["actions"]
        snapshot_query = self._snapshot_query(item)
        for action in item["actions"]:
            operations = self._actions.get((route.text, action))
            if not operations:  # the application removed it from the document
                continue
            operation_name, operation = operations.pop(0)
            if not is_live or action not in ("subscribe", "unsubscribe"):
                methods = [*self._calls(action, route, operation)]
            else:
                methods = [(action, self._subscription(route, operation, events))] if action == "subscribe" else []
            query = operation["x-wsaction"].get("query", snapshot_query if action == "subscribe" else None)
            for name, method in methods:
                yield name, replace(method, operation=operation_name, query=None if query is None else tuple(query))

    def _snapshot_query(self, item: Document) -> Any:
        """Returns the query parameters of a snapshot if its data is what `list` returns."""
        if "list" not in item["actions"] or "retrieve" in item["actions"]:
            return None
        operations = self._actions.get((item["route"], "list"))
        return operations[0][1]["x-wsaction"].get("query") if operations else None

    def _events_of(self, item: Document) -> dict[str, Any]:
        operations = self._events.get(item["route"])
        if not operations:
            return {}
        messages = [self._message(ref) for ref in operations.pop(0)["messages"]]
        return {message["name"]: message["payload"]["properties"]["data"] for message in messages}

    def _calls(self, action: str, route: Route, operation: Document) -> Iterator[tuple[str, Method]]:
        facts, about = operation["x-wsaction"], _about(operation, action, route)
        request = self._message(operation["messages"][0])["payload"]
        partial, reply = self._replies(operation)
        if facts["silent"]:
            yield action, Method("send", action, route, request, None, about)
        elif facts["streams"]:
            yield action, Method("stream", action, route, request, partial, about)
        elif partial is None:
            yield action, Method("call", action, route, request, reply, about)
        else:  # the action streams only if the frame asks for it
            data = reply["anyOf"][0] if reply and "anyOf" in reply else reply
            off = {"stream": False} if "stream" in request.get("required", ()) else {}
            request = {**request, "properties": {k: v for k, v in request["properties"].items() if k != "stream"}}
            yield action, Method("call", action, route, request, data, about, fixed=off)
            yield f"{action}_stream", Method("stream", action, route, request, partial, about, fixed={"stream": True})

    def _subscription(self, route: Route, operation: Document, events: Mapping[str, Any]) -> Method:
        _, reply = self._replies(operation)
        snapshot = (reply or {}).get("properties", {}).get("snapshot", {})
        declared = {name: schema for name, schema in events.items() if not name.startswith("$")}
        request = self._message(operation["messages"][0])["payload"]
        about = _about({**operation, "description": ""}, "subscribe", route)
        return Method("subscribe", "subscribe", route, request, snapshot, about, events=declared)

    def _replies(self, operation: Document) -> tuple[Any, Any]:
        """Returns the schemas of the data in partial replies and in the final one; None for those that never come."""
        schemas: dict[str, Any] = {}
        for ref in operation["reply"]["messages"]:
            properties = self._message(ref).get("payload", {}).get("properties", {})
            if properties.get("errors", {}).get("maxItems") == 0:
                kind = "partial" if properties["status"] == {"const": 206} else "reply"
                schemas[kind] = properties["data"]
        return schemas.get("partial"), schemas.get("reply")

    def _message(self, ref: Document) -> Any:
        """Resolves a reference to a message of the channel or to the shared error message."""
        name = str(ref["$ref"]).rpartition("/")[2].replace("~1", "/").replace("~0", "~")
        message = self._messages[name]
        return self._document["components"]["messages"][name] if "$ref" in message else message


def _about(operation: Document, action: str, route: Route) -> tuple[str, ...]:
    summary, description = operation.get("summary", ""), operation.get("description", "")
    where = f"`{action}` at `{route.text}`" if route.text else f"`{action}` at the empty route"
    text = description if description.startswith(summary) else f"{summary}\n{description}"
    return tuple(part.strip() for part in (text, where) if part.strip())
