"""The AsyncAPI 3.1 document of an application.

It has a channel for each connection route, an operation for each action of each route below it, and one operation for
the events of a route. Addresses and routes are templates, ``boards/{pk}/``; addresses are relative to the application's
root path. The extension ``x-wsaction`` holds what AsyncAPI cannot express. In the document: the protocol, the error
catalogue and the ways to authenticate. In a channel: its routes and limits. In an operation: its action, route, timeout
and permissions, among others.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import chain, count
from typing import Any

from wsaction._handlers.mounts import MountedHandler
from wsaction.asyncapi._addresses import Address, address_of
from wsaction.asyncapi._client_methods import groups_of
from wsaction.asyncapi._operations import (
    REQUEST_ID,
    Message,
    Place,
    auth_messages,
    events_of,
    facts_of,
    messages_of,
    text_of,
)
from wsaction.asyncapi._schemas import Schemas
from wsaction.authentication import BaseAuthentication, BearerAuthentication
from wsaction.authentication._state import Authenticator
from wsaction.exceptions import CATALOGUE
from wsaction.limits import Limits
from wsaction.routing import Router
from wsaction.routing._resolver import Leaf

VERSION = "3.1.0"
_ERROR_ITEM, _ERROR_TYPE = "wsaction.Error", "wsaction.ErrorType"  # model names have no dot, so these are free


def describe(
    router: Router, *, title: str, version: str, description: str, limits: Limits, authenticator: Authenticator | None
) -> dict[str, Any]:
    """Returns the AsyncAPI document of an application. The same declarations always give the same document.

    :param router: The connection routes.
    :param title: The ``title`` of the document's ``info``; ``version`` and ``description`` likewise.
    :param limits: The limits of consumers that declare none.
    :param authenticator: The authentication of the application; None if it has none.
    """
    writer = _Writer(limits, authenticator)
    for leaf in _reachable(router.leaves):
        writer.add_channel(leaf)
    info = {"title": title, "version": version, **({"description": description} if description else {})}
    document: dict[str, Any] = {
        "asyncapi": VERSION,
        "info": info,
        "defaultContentType": "application/json",
        "channels": writer.channels,
        "operations": writer.operations,
        "components": {
            "schemas": {**writer.schemas.components(), **_error_schemas()},
            "messages": {"error": _error()},
            "securitySchemes": {name: dict(scheme) for name, scheme in writer.security.items()},
        },
        "x-wsaction": {
            "protocol": "wsaction.v1",
            "authentication": _authentication(authenticator),
            "errors": {name: {"status": error.code[0], "msg": error.code[2]} for name, error in CATALOGUE.items()},
        },
    }
    _name_methods(document)
    return document


def _name_methods(document: dict[str, Any]) -> None:
    """Adds to each operation the methods of the TypeScript client that use it, as ``{"call": "cards.retrieve"}``."""
    for name, channel in document["channels"].items():
        if "x-wsaction" not in channel:
            continue
        for path, method in groups_of(document, name).methods_by_path():
            facts = document["operations"][method.operation]["x-wsaction"]
            facts.setdefault("typescript", {})[method.kind] = path


def _reachable(leaves: list[Leaf]) -> Iterator[Leaf]:
    """Leaves out endpoints that an earlier one with the same route hides."""
    seen: set[str] = set()
    for leaf in leaves:
        if leaf.route not in seen:
            seen.add(leaf.route)
            yield leaf


class _Writer:
    """Writes the channels and operations of one document."""

    def __init__(self, limits: Limits, authenticator: Authenticator | None) -> None:
        self.channels: dict[str, Any] = {}
        self.operations: dict[str, Any] = {}
        self.schemas = Schemas()
        self.security = _security(authenticator)
        self._limits = limits
        self._takes_auth = authenticator is not None and authenticator.takes_data

    def add_channel(self, leaf: Leaf) -> None:
        """Adds the channel of a connection route, with all its operations."""
        address, view = address_of(leaf), leaf.endpoint.view
        name = _unique(_dotted(address.text or "ws"), self.channels)
        parameters = {key: _text_parameter(schema) for key, schema in address.parameters.items()}
        channel: dict[str, Any] = {
            "address": None if address.template is None else "/" + address.template,
            **({"parameters": parameters} if parameters else {}),
            "messages": {},
            "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
        }
        self.channels[name] = channel
        if not hasattr(view, "handler_class") or not hasattr(view, "table"):
            channel["description"] = "Served by another ASGI application."
            return
        limits = view.handler_class.limits or self._limits
        channel |= {"title": view.handler_class.__name__, **text_of(view.handler_class)}
        channel["messages"]["error"] = {"$ref": "#/components/messages/error"}
        routes: list[dict[str, Any]] = []
        channel["x-wsaction"] = {**_parameters(address), "limits": asdict(limits), "routes": routes}
        for place in _places(view, address):
            self._add_route(name, place, routes, limits)
        protocol = Place(mounted=view.table.protocol, connection=address, route=Address("", regex=None))
        self._add_protocol_actions(name, protocol, limits)

    def _add_route(self, channel: str, place: Place, routes: list[dict[str, Any]], limits: Limits) -> None:
        """Adds a route of a connection: its actions and its events."""
        events = dict(events_of(place, self.schemas))
        declared = [name for name in events if not name.startswith("$")]
        cls = place.mounted.handler_class
        item = {
            "route": place.route.text,
            **({"name": place.name} if place.name else {}),
            "handler": cls.__name__,
            **text_of(cls),
            **_parameters(place.route),
        }
        if place.route.template is None:
            item["is_regex"] = True
        if len(place.route.forms) > 1:
            item["forms"] = list(place.route.forms)
        routes.append({**item, "actions": list(place.mounted.plans), "events": declared})
        self._add_actions(channel, place, limits)
        if events:
            base = _join(channel, place.route.text, "events")
            refs = [self._add_message(channel, f"{base}.{_dotted(name)}", message) for name, message in events.items()]
            self.operations[_unique(base, self.operations)] = {
                "action": "send",
                "channel": {"$ref": f"#/channels/{channel}"},
                "summary": f"The events that subscribers of {place.route.text or 'the empty route'} receive.",
                "messages": refs,
                "x-wsaction": {"route": place.route.text, "events": declared},
            }

    def _add_actions(self, channel: str, place: Place, limits: Limits) -> None:
        for name, plan in place.mounted.plans.items():
            options, function = plan.action.options, plan.action.function  # type: ignore[union-attr]
            summary, description = options.summary, text_of(function)
            operation = {
                **({"summary": summary} if summary else {}),
                **(description if description.get("description") != summary else {}),
                "x-wsaction": facts_of(name, plan, place, limits),
            }
            messages = messages_of(name, plan, place, self.schemas)
            self._add_operation(channel, _join(channel, place.route.text, _dotted(name)), operation, *messages)

    def _add_operation(
        self, channel: str, base: str, operation: dict[str, Any], request: Message, replies: list[tuple[str, Message]]
    ) -> None:
        name = _unique(base, self.operations)
        channel_ref = {"$ref": f"#/channels/{channel}"}
        request_refs = [self._add_message(channel, f"{name}.request", request)]
        reply_refs = [self._add_message(channel, f"{name}.{kind}", message) for kind, message in replies]
        security = [{"$ref": f"#/components/securitySchemes/{scheme}"} for scheme in self.security]
        self.operations[name] = {
            "action": "receive",
            "channel": channel_ref,
            "messages": request_refs,
            "reply": {
                "channel": channel_ref,
                "messages": [*reply_refs, {"$ref": f"#/channels/{channel}/messages/error"}],
            },
            **({"security": security} if security else {}),
            **operation,
        }

    def _add_protocol_actions(self, channel: str, place: Place, limits: Limits) -> None:
        """Adds the actions that every connection has, such as ``$ping``."""
        self._add_actions(channel, place, limits)
        if self._takes_auth:
            facts = {"action": "$auth", "route": "", "timeout": limits.auth_timeout, "ordered": False}
            summary = "Authenticates this connection, or renews its authentication."
            operation = {"summary": summary, "x-wsaction": facts}
            self._add_operation(channel, f"{channel}.auth", operation, *auth_messages())

    def _add_message(self, channel: str, name: str, message: Message) -> dict[str, str]:
        """Adds a message to a channel and returns a reference to it."""
        messages = self.channels[channel]["messages"]
        name = _unique(name.removeprefix(f"{channel}."), messages)
        messages[name] = message
        return {"$ref": f"#/channels/{channel}/messages/{name}"}


# names
def _dotted(text: str) -> str:
    """Returns text in the form that names may have: ``boards.pk`` for ``boards/{pk}/``."""
    return ".".join(re.findall(r"[\w-]+", text, re.ASCII)) or "x"


def _join(channel: str, route: str, last: str) -> str:
    return ".".join([channel, *([_dotted(route)] if route else []), last])


def _unique(name: str, taken: Mapping[str, Any]) -> str:
    candidates = chain([name], (f"{name}_{number}" for number in count(2)))
    return next(candidate for candidate in candidates if candidate not in taken)


# parameters, security, errors
def _parameters(address: Address) -> dict[str, Any]:
    """Returns the schemas of an address's parameters for ``x-wsaction``: AsyncAPI's own parameters have no schema."""
    if not address.parameters:
        return {}
    return {
        "parameters": {
            name: {"schema": dict(schema), "required": name not in address.optional}
            for name, schema in address.parameters.items()
        }
    }


def _text_parameter(schema: Mapping[str, Any]) -> dict[str, Any]:
    constraints = [f"{name} {value}" for name, value in schema.items() if name != "type"]
    return {"description": ", ".join([str(schema["type"]), *constraints])}


def _security(authenticator: Authenticator | None) -> dict[str, Mapping[str, Any]]:
    """Returns the security schemes of the authentication classes, by name."""
    schemes: dict[str, Mapping[str, Any]] = {}
    for authentication in () if authenticator is None else authenticator.classes:
        scheme = authentication.security_scheme
        if not scheme and type(authentication).authenticate_data is not BaseAuthentication.authenticate_data:
            scheme = {"type": "apiKey", "in": "password", "description": 'Sent as the data of `{"action": "$auth"}`.'}
        if scheme:
            schemes[_unique(_dotted(type(authentication).__name__), schemes)] = scheme
    return schemes


def _authentication(authenticator: Authenticator | None) -> dict[str, bool]:
    """Returns the ways to authenticate a connection; ``first_frame``: it must be done before any action."""
    if authenticator is None:
        return {"first_frame": False, "bearer": False, "auth_frame": False}
    bearer = any(isinstance(authentication, BearerAuthentication) for authentication in authenticator.classes)
    return {"first_frame": authenticator.first_frame, "bearer": bearer, "auth_frame": authenticator.takes_data}


def _error_schemas() -> dict[str, Any]:
    """Returns the schemas of an item of ``errors`` and of its ``type``."""
    known = {"title": "Known to wsaction", "enum": list(CATALOGUE)}
    other = {"title": "A validation error of pydantic, or an error of the application", "type": "string"}
    item = {
        "type": "object",
        "properties": {
            "type": {"$ref": f"#/components/schemas/{_ERROR_TYPE}"},
            "msg": {"type": "string", "description": "A text for people."},
            "loc": {"type": "array", "items": {"type": ["string", "integer"]}, "description": "The path to the error."},
            "ctx": {"type": "object", "description": "Details for programs."},
        },
        "required": ["type", "msg"],
    }
    return {_ERROR_ITEM: item, _ERROR_TYPE: {"anyOf": [known, other]}}


def _error() -> Message:
    """Returns the message of error replies, which all channels share."""
    properties = {
        "errors": {"type": "array", "minItems": 1, "items": {"$ref": f"#/components/schemas/{_ERROR_ITEM}"}},
        "data": {"type": "null"},
        "action": {"type": ["string", "null"]},
        "route": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "request_id": dict(REQUEST_ID),
    }
    required = [name for name in properties if name != "request_id"]
    return {
        "name": "error",
        "summary": "An error reply.",
        "payload": {"type": "object", "properties": properties, "required": required},
    }


def _places(view: Any, connection: Address) -> Iterator[Place]:
    """Yields the consumer itself, if no route hides its actions, then every route below it."""
    table = view.table
    if table.match("")[0] is None and table.root.plans:
        yield Place(mounted=table.root, connection=connection, route=Address(""))
    for leaf in _reachable(table.router.leaves):
        mounted: MountedHandler = leaf.endpoint.view
        name = ":".join([*leaf.namespaces, leaf.endpoint.name]) if leaf.endpoint.name else ""
        yield Place(mounted=mounted, connection=connection, route=address_of(leaf), name=name)
