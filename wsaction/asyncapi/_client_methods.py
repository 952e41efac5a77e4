"""Members: what the objects of a generated client have, one method for each action of each route.

A method belongs to the object that its route's words lead to: ``boards/{pk}/columns/`` is ``client.boards.columns``,
and so is ``boards/{pk}/columns/{column}/``. A route that has a name is found by that, and by the namespaces before it,
unless it ends with ``-list`` or ``-detail``, as a `SimpleRouter` writes them. A regex that cannot be filled in and has
no name is found by its handler's name. What stands at the empty route is the client's own.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from wsaction.asyncapi._client_names import camel, free, pascal

__all__ = ("Group", "Method", "Route", "groups_of")

Document = Mapping[str, Any]
Kind = Literal["call", "send", "stream", "subscribe"]

OWN = frozenset({"state", "connect", "close", "onState"})  # what every client has; its other methods begin with a "$"
OPTIONS = frozenset({"query", "timeout", "signal", "snapshot", "since"})
PROTOCOL = ("action", "route", "request_id")  # keys of a frame that are no parameters


@dataclass(frozen=True, slots=True)
class Route:
    """A route of a connection, as the document tells it."""

    text: str
    captures: Mapping[str, Mapping[str, Any]]  # schemas
    required: tuple[str, ...]  # captures
    forms: tuple[str, ...]  # none: any text

    @classmethod
    def told(cls, told: Document) -> "Route":
        """That of an item of a channel's ``routes``."""
        if told.get("is_regex"):
            return cls(told["route"], {"route": {"type": "string"}}, ("route",), ())
        parameters = told.get("parameters", {})
        required = tuple(name for name, one in parameters.items() if one["required"])
        schemas = {name: one["schema"] for name, one in parameters.items()}
        return cls(told["route"], schemas, required, tuple(told.get("forms", [told["route"]])))


@dataclass(frozen=True, slots=True)
class Method:
    """One way to call a method: an action at a route. ``request`` is the schema of its frame, ``data`` what it gives:
    the schema of a reply's, an item's or a snapshot's data; ``events`` are messages by name."""

    kind: Kind
    action: str
    route: Route
    request: Document
    data: Any
    about: tuple[str, ...]
    operation: str = ""  # its name in the document
    query: tuple[str, ...] | None = None  # the parameters of a query that it takes; None: any
    fixed: Mapping[str, Any] = field(default_factory=dict)
    events: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Any]:
        """The schemas of what a caller says beside the route."""
        hidden = {*PROTOCOL, *self.fixed, *(("since", "snapshot") if self.kind == "subscribe" else ())}
        return {name: one for name, one in self.request["properties"].items() if name not in hidden}

    def clashes(self, other: "Method") -> bool:
        """Whether what is given first would not say which of the two is meant."""
        more, less = sorted((self, other), key=lambda one: -len(one.route.required))
        first = {*less.route.captures} or {*less.parameters} or OPTIONS
        return {*more.route.required} <= first


class Group:
    """An object of the client: its methods, each with one or more ways to call it, and the objects below it."""

    def __init__(self, name: str = "", taken: frozenset[str] = frozenset()) -> None:
        self.name = name  # of its type
        self.methods: dict[str, list[Method]] = {}
        self.groups: dict[str, Group] = {}
        self._taken = taken

    def add(self, method: Method, name: str) -> None:
        """Adds a method. One of the same name takes both, told apart by their captures, or else the new one is called
        after its captures too, ``subscribeByPk``, and gets a ``_`` where that is taken."""
        name = free(camel(name), self._taken)
        for told in (name, name + "By" + "".join(map(pascal, method.route.captures))):
            if not any(method.clashes(one) for one in self.methods.get(told, ())):
                self.methods.setdefault(told, []).append(method)
                return
        self.methods[free(told, self.methods)] = [method]

    def at(self, path: list[str]) -> "Group":
        """The object below this one that words lead to."""
        group = self
        for word in path:
            known = {camel(word): word for word in group.groups}
            if camel(word) not in known:
                group.groups[camel(word)] = Group(group.name + pascal(word), frozenset())
            group = group.groups[camel(word)]
        return group

    def walk(self, before: str = "") -> Iterator[tuple[str, Method]]:
        """Every way to call a method, with where it is: ``cards.partialUpdate``."""
        for name, ways in self.methods.items():
            yield from ((f"{before}{name}", method) for method in ways)
        for name, group in self.groups.items():
            yield from group.walk(f"{before}{name}.")

    def settle(self) -> None:
        """Gives objects that have the name of a method another one."""
        taken = {*self.methods, *self._taken}
        for name in [*self.groups]:
            group = self.groups.pop(name)
            group.settle()
            told = free(name, taken)
            taken.add(told)
            self.groups[told] = group


def groups_of(document: Document, channel: str) -> Group:
    """The client of a channel."""
    reader = _Reader(document, channel)
    root = Group(taken=OWN)
    for told in document["channels"][channel]["x-wsaction"]["routes"]:
        group, route = root.at(_path(told)), Route.told(told)
        for name, method in reader.methods(told, route):
            group.add(method, name)
    root.settle()
    return root


def _path(told: Document) -> list[str]:
    name = told.get("name", "")
    if name and not name.endswith(("-list", "-detail")):
        return [part for part in name.split(":") if part]
    if told.get("is_regex"):
        return [told["handler"]]
    names = "|".join(map(re.escape, told.get("parameters", {})))
    text = re.sub(rf"\{{(?:{names})\}}", "", told["route"]) if names else told["route"]
    return [part for part in text.split("/") if re.search(r"\w", part)]


class _Reader:
    """Reads the operations of one channel."""

    def __init__(self, document: Document, channel: str) -> None:
        self._document = document
        self._messages = document["channels"][channel]["messages"]
        self._actions: dict[tuple[str, str], list[tuple[str, Document]]] = {}  # several, of routes written the same
        self._events: dict[str, list[Document]] = {}
        for name, one in document["operations"].items():
            if one["channel"]["$ref"] != f"#/channels/{channel}":
                continue
            facts = one["x-wsaction"]
            if one["action"] == "send":
                self._events.setdefault(facts["route"], []).append(one)
            else:
                self._actions.setdefault((facts["route"], facts["action"]), []).append((name, one))

    def methods(self, told: Document, route: Route) -> Iterator[tuple[str, Method]]:
        """The methods of a route, by the names that they are to have."""
        events = self._events_of(told)
        is_live = "$resync" in events and "subscribe" in told["actions"]
        listed = self._query_of_list(told)
        for action in told["actions"]:
            known = self._actions.get((route.text, action))
            if not known:  # somebody took it out of the document
                continue
            name, operation = known.pop(0)
            if is_live and action in ("subscribe", "unsubscribe"):
                made = [(action, self._subscription(route, operation, events))] if action == "subscribe" else []
            else:
                made = [*self._calls(action, route, operation)]
            query = operation["x-wsaction"].get("query", listed if action == "subscribe" else None)
            more: dict[str, Any] = {"operation": name, "query": None if query is None else tuple(query)}
            yield from ((told, replace(method, **more)) for told, method in made)

    def _query_of_list(self, told: Document) -> Any:
        """The query parameters of a snapshot, where it is what `list` answers."""
        if "list" not in told["actions"] or "retrieve" in told["actions"]:
            return None
        known = self._actions.get((told["route"], "list"))
        return known[0][1]["x-wsaction"].get("query") if known else None

    def _events_of(self, told: Document) -> dict[str, Any]:
        known = self._events.get(told["route"])
        if not known:
            return {}
        messages = [self._message(ref) for ref in known.pop(0)["messages"]]
        return {one["name"]: one["payload"]["properties"]["data"] for one in messages}

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
        else:  # a stream where the frame asks for one
            whole = reply["anyOf"][0] if reply and "anyOf" in reply else reply
            off = {"stream": False} if "stream" in request.get("required", ()) else {}
            hidden = {**request, "properties": {k: v for k, v in request["properties"].items() if k != "stream"}}
            yield action, Method("call", action, route, hidden, whole, about, fixed=off)
            yield f"{action}_stream", Method("stream", action, route, hidden, partial, about, fixed={"stream": True})

    def _subscription(self, route: Route, operation: Document, events: Mapping[str, Any]) -> Method:
        _, reply = self._replies(operation)
        snapshot = (reply or {}).get("properties", {}).get("snapshot", {})
        own = {name: one for name, one in events.items() if not name.startswith("$")}
        request = self._message(operation["messages"][0])["payload"]
        about = _about({**operation, "description": ""}, "subscribe", route)
        return Method("subscribe", "subscribe", route, request, snapshot, about, events=own)

    def _replies(self, operation: Document) -> tuple[Any, Any]:
        """The schemas of what partial replies and the final one hold; None: there is none."""
        found: dict[str, Any] = {}
        for ref in operation["reply"]["messages"]:
            properties = self._message(ref).get("payload", {}).get("properties", {})
            if properties.get("errors", {}).get("maxItems") == 0:
                kind = "partial" if properties["status"] == {"const": 206} else "reply"
                found[kind] = properties["data"]
        return found.get("partial"), found.get("reply")

    def _message(self, ref: Document) -> Any:
        """What a reference leads to: a message of the channel, or the error that all share."""
        name = str(ref["$ref"]).rpartition("/")[2].replace("~1", "/").replace("~0", "~")
        message = self._messages[name]
        return self._document["components"]["messages"][name] if "$ref" in message else message


def _about(operation: Document, action: str, route: Route) -> tuple[str, ...]:
    summary, more = operation.get("summary", ""), operation.get("description", "")
    where = f"`{action}` at `{route.text}`" if route.text else f"`{action}` at the empty route"
    told = more if more.startswith(summary) else f"{summary}\n{more}"
    return tuple(one.strip() for one in (told, where) if one.strip())
