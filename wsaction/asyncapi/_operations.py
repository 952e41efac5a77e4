"""AsyncAPI operations: the messages and ``x-wsaction`` facts of actions, and the events of routes."""

import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wsaction._handlers.action import Action
from wsaction._handlers.mounts import MountedHandler, Plan
from wsaction._handlers.parameters import EMPTY, Input
from wsaction.asyncapi._addresses import Address
from wsaction.asyncapi._schemas import Schemas, json_of
from wsaction.limits import Limits
from wsaction.permissions._expressions import name_of
from wsaction.serializers import output_model

Schema = dict[str, Any]
Message = dict[str, Any]

SNAPSHOTS = ("list", "retrieve")
DESTRUCTIVE = ("destroy", "delete")  # as generic handlers, and methods of HTTP, name it
REQUEST_ID: Mapping[str, Any] = {"type": ["string", "integer"], "description": "Echoed in every reply."}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Place:
    """A handler at a route of a connection."""

    mounted: MountedHandler
    connection: Address
    route: Address
    name: str = ""  # the route's name with its namespaces, as `reverse()` takes it

    def frame_keys(self, action: Action) -> list[Input]:
        """Returns the parameters of an action that the frame fills, not the captures of the routes."""
        captures = self.connection.captures | self.route.captures
        positional = [name for name in action.filled_by_args if name not in captures]
        taken = {*captures, *positional[: self.connection.unnamed + self.route.unnamed]}
        return [parameter for parameter in action.inputs if parameter.name not in taken]


# requests and replies
def messages_of(name: str, plan: Plan, place: Place, schemas: Schemas) -> tuple[Message, list[tuple[str, Message]]]:
    """Returns the request of an action and its replies by kind: ``partial`` of streams, and the final ``reply``."""
    action: Action = plan.action  # type: ignore[assignment]  # plans of routes have one
    streams = [variant for variant in (action, action.streamed) if variant is not None and variant.streams]
    replies = [("partial", _reply(name, 206, schemas.of(stream.returns, "serialization"))) for stream in streams]
    if action.name == "subscribe" and is_live(place):  # silent, because it sends its reply itself, before any event
        recovered = {"type": ["boolean", "null"], "description": "Whether all missed events follow."}
        route = {"type": "string", "description": "The route that events carry, if the request wrote it differently."}
        data = _position(recovered=recovered, route=route, snapshot=_snapshot(place, schemas))
        replies.append(("reply", _reply(name, 200, data)))
    elif not action.silent:
        status = None if action.returns_status is not False else action.status
        data = {"type": "null"} if action.streams else schemas.of(action.returns, "serialization")
        if streams and not action.streams:  # the action streams only if the frame asks for it
            data = {"anyOf": [data, {"type": "null"}]}
        replies.append(("reply", _reply(name, status, data)))
    return _request(name, action, place, schemas), replies


def auth_messages() -> tuple[Message, list[tuple[str, Message]]]:
    """Returns the request and the replies of ``$auth``."""
    properties = {
        "action": {"type": "string", "const": "$auth"},
        "data": {"description": "A token, or other data that the authentication classes accept."},
        "request_id": dict(REQUEST_ID),
    }
    payload = {"type": "object", "properties": properties, "required": ["action", "data"]}
    expires = {"type": ["number", "null"], "description": "Unix time in seconds; null if it does not expire."}
    data = {"type": "object", "properties": {"expires_at": expires}, "required": ["expires_at"]}
    return {"name": "$auth", "payload": payload}, [("reply", _reply("$auth", 200, data))]


def _request(name: str, action: Action, place: Place, schemas: Schemas) -> Message:
    route: Schema = {"type": "string"}
    if place.route.pattern is not None:
        route["pattern"] = place.route.pattern
    properties: dict[str, Schema] = {"action": {"type": "string", "const": name}, "route": route}
    if place.route.regex == "^":  # a frame need not name the empty route
        route["default"] = ""
    required = ["action", *(["route"] if place.route.text else [])]
    for parameter in place.frame_keys(action):
        key, schema = parameter.name, _input_schema(parameter, schemas)
        properties[key] = {"allOf": [properties[key], schema]} if key in properties else schema
        if parameter.required and key not in required:
            required.append(key)
    properties["request_id"] = dict(REQUEST_ID)
    return {"name": name, "payload": {"type": "object", "properties": properties, "required": required}}


def _input_schema(parameter: Input, schemas: Schemas) -> Schema:
    schema = schemas.of(parameter.annotation, "validation")
    has_default = not parameter.required and parameter.default is not EMPTY
    default = json_of(parameter.annotation, parameter.default) if has_default else ()
    return {"allOf": [schema], "default": default[0]} if default else schema


def _reply(name: str, status: int | None, data: Schema) -> Message:
    properties = {
        "errors": {"type": "array", "maxItems": 0},
        "data": data,
        "action": {"type": "string", "const": name},
        "route": {"type": "string"},
        "status": {"type": "integer", "minimum": 200, "maximum": 599} if status is None else {"const": status},
        "request_id": dict(REQUEST_ID),
    }
    required = [key for key in properties if key != "request_id"]
    return {"name": name, "payload": {"type": "object", "properties": properties, "required": required}}


# events
def is_live(place: Place) -> bool:
    """Whether clients can subscribe to the route, by `SubscribeMixin`."""
    return place.mounted.attribute("_event_types") is not None


def _snapshot(place: Place, schemas: Schemas) -> Schema:
    """Returns the schema of a snapshot: the result of ``list`` or ``retrieve``; any value if a method decides it."""
    actions = {} if place.mounted.attribute("overrides_snapshot") else _actions(place)
    names = [name for name in SNAPSHOTS if name in actions]
    if len(names) == 2:
        key = place.mounted.attribute("lookup_url_kwarg") or place.mounted.attribute("lookup_field") or "pk"
        names = ["retrieve" if key in place.connection.captures | place.route.captures else "list"]
    return schemas.of(actions[names[0]].returns, "serialization") if names else {}


def _actions(place: Place) -> dict[str, Action]:
    """Returns the actions of a route by their declared names: those on the wire may differ."""
    return {plan.name: plan.action for plan in place.mounted.plans.values() if plan.name and plan.action}


def events_of(place: Place, schemas: Schemas) -> Iterator[tuple[str, Message]]:
    """Yields the events of a route by name: those of its objects, those it declares, and the protocol's."""
    declared = place.mounted.attribute("events")
    events: Mapping[str, Any] = declared if isinstance(declared, Mapping) else {}
    if is_live(place) and place.mounted.attribute("queryset") is not None:
        model = place.mounted.attribute("serializer_class")
        is_key_only = place.mounted.attribute("overrides_serializer")
        for name in ("created", "updated", "deleted"):
            if name in events or (model is None and name != "deleted"):
                continue
            if is_key_only or name == "deleted":
                yield name, _event(name, _key_and_version(place.mounted, model, schemas))
            else:
                yield name, _event(name, schemas.of(output_model(model), "serialization"))
    if is_live(place) and place.mounted.attribute("shows_presence"):
        user = {"type": "object", "properties": {"user": {"type": "string"}}, "required": ["user"]}
        yield from ((name, _event(name, user)) for name in ("join", "leave") if name not in events)
    for name, annotation in events.items():
        yield str(name), _event(str(name), schemas.of(Any if annotation is None else annotation, "serialization"))
    if is_live(place):
        yield from ((name, _event(name, _position())) for name in ("$position", "$resync"))
        reason = {"type": "object", "properties": {"reason": {"type": "string"}}, "required": ["reason"]}
        yield "$unsubscribed", _event("$unsubscribed", reason)


def _key_and_version(mounted: MountedHandler, model: Any, schemas: Schemas) -> Schema:
    """Returns the schema of a ``deleted`` event's data: the object's key, and its version if it has one."""
    fields = {} if model is None else output_model(model).model_fields
    names = {"pk": getattr(mounted.attribute("queryset"), "pk", None)}
    if (version := mounted.attribute("version_field")) is not None:
        names[version] = version
    annotations = {key: fields[name].annotation if name in fields else Any for key, name in names.items()}
    properties = {key: schemas.of(annotation, "serialization") for key, annotation in annotations.items()}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _position(**more: Schema) -> Schema:
    """Returns the schema of a position in the route's history."""
    properties = {"epoch": {"type": "string"}, "offset": {"type": "integer"}, **more}
    required = [name for name in properties if name not in ("route", "snapshot")]
    return {"type": "object", "properties": properties, "required": required}


def _event(name: str, data: Schema) -> Message:
    properties = {
        "event": {"type": "string", "const": name},
        "route": {"type": "string"},
        "data": data,
        "offset": {"type": "integer", "description": "The event's position in the route's history, if it keeps one."},
    }
    return {
        "name": name,
        "payload": {"type": "object", "properties": properties, "required": ["event", "route", "data"]},
    }


# x-wsaction
def facts_of(name: str, plan: Plan, place: Place, limits: Limits) -> dict[str, Any]:
    """Returns the facts of an action that AsyncAPI cannot express."""
    action: Action = plan.action  # type: ignore[assignment]
    timeout = limits.action_timeout if action.options.timeout is None else action.options.timeout
    return {
        "action": name,
        "route": place.route.text,
        "streams": action.streams,
        "destructive": plan.name in DESTRUCTIVE if action.options.destructive is None else action.options.destructive,
        "silent": action.silent and not (action.name == "subscribe" and is_live(place)),
        "ordered": plan.ordered,
        "timeout": None if math.isinf(timeout) else timeout,
        "permissions": list(permissions_of(action, place.mounted)),
        "throttles": [type(throttle).__name__ for _, throttles in plan.throttles for throttle in throttles or ()],
        **_query(action, place.mounted),
    }


def _query(action: Action, mounted: MountedHandler) -> dict[str, list[str]]:
    """Returns the query parameters that ``list`` of a generic handler accepts; it refuses all others."""
    if action.name != "list" or mounted.attribute("overrides_query") is not False:
        return {}
    try:
        return {"query": list(mounted.instance().known_parameters())}
    except AttributeError:  # a backend reads the frame, and there is none here: unknown
        return {}


def permissions_of(action: Action | None, mounted: MountedHandler) -> Iterator[str]:
    """Yields the names of the permissions that an action needs, those of the outermost handler first.

    Without an action, yields those of the handler.
    """
    for handler in (*mounted.above, mounted):
        classes = handler.attribute("permission_classes")
        if handler.handler_class.overrides_permissions:
            yield f"{handler.handler_class.__name__}.get_permissions()"
            continue
        if handler is mounted and action is not None and action.options.permission_classes is not None:
            classes = action.options.permission_classes
        yield from map(name_of, classes)


def text_of(documented: Any) -> dict[str, str]:
    """Returns the own docstring of a class or function as a ``description``; a base's is not used."""
    text = documented.__doc__
    return {"description": inspect.cleandoc(text)} if text else {}
