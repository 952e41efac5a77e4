"""Operations: what an action, or the events of a route, are in an AsyncAPI document."""

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

__all__ = (
    "REQUEST_ID",
    "Message",
    "Place",
    "auth_messages",
    "events_of",
    "facts_of",
    "messages_of",
    "permissions_of",
    "text_of",
)

Schema = dict[str, Any]
Message = dict[str, Any]

SNAPSHOTS = ("list", "retrieve")
REQUEST_ID: Mapping[str, Any] = {"type": ["string", "integer"], "description": "Echoed in every reply."}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Place:
    """A handler at a route of a connection."""

    mounted: MountedHandler
    connection: Address
    route: Address
    name: str = ""  # by which the route is reversed, its namespaces before it

    def frame_keys(self, action: Action) -> list[Input]:
        """What a frame has to say for an action here, and the routes do not."""
        captures = self.connection.captures | self.route.captures
        positional = [name for name in action.filled_by_args if name not in captures]
        taken = {*captures, *positional[: self.connection.unnamed + self.route.unnamed]}
        return [parameter for parameter in action.inputs if parameter.name not in taken]


# requests and replies
def messages_of(name: str, plan: Plan, place: Place, schemas: Schemas) -> tuple[Message, list[tuple[str, Message]]]:
    """The request of an action, and its replies by their kind: the ``partial`` ones of a stream, and the ``reply``."""
    action: Action = plan.action  # type: ignore[assignment]  # of a plan that a client can ask for
    streams = [variant for variant in (action, action.streamed) if variant is not None and variant.streams]
    replies = [("partial", _reply(name, 206, schemas.of(stream.returns, "serialization"))) for stream in streams]
    if action.name == "subscribe" and is_live(place):  # it answers by itself, before the events that follow
        recovered = {"type": ["boolean", "null"], "description": "Whether all that was missed follows."}
        route = {"type": "string", "description": "Of its events, where it was asked for as it is not written."}
        data = _position(recovered=recovered, route=route, snapshot=_snapshot(place, schemas))
        replies.append(("reply", _reply(name, 200, data)))
    elif not action.silent:
        status = None if action.returns_status is not False else action.status
        data = {"type": "null"} if action.streams else schemas.of(action.returns, "serialization")
        if streams and not action.streams:  # it is a stream only where the frame asks for one
            data = {"anyOf": [data, {"type": "null"}]}
        replies.append(("reply", _reply(name, status, data)))
    return _request(name, action, place, schemas), replies


def auth_messages() -> tuple[Message, list[tuple[str, Message]]]:
    """The same of ``$auth``."""
    properties = {
        "action": {"type": "string", "const": "$auth"},
        "data": {"description": "A token, or what else the authentication classes take."},
        "request_id": dict(REQUEST_ID),
    }
    payload = {"type": "object", "properties": properties, "required": ["action", "data"]}
    expires = {"type": ["number", "null"], "description": "In unix seconds; null: as long as the connection."}
    data = {"type": "object", "properties": {"expires_at": expires}, "required": ["expires_at"]}
    return {"name": "$auth", "payload": payload}, [("reply", _reply("$auth", 200, data))]


def _request(name: str, action: Action, place: Place, schemas: Schemas) -> Message:
    route: Schema = {"type": "string"}
    if place.route.pattern is not None:
        route["pattern"] = place.route.pattern
    properties: dict[str, Schema] = {"action": {"type": "string", "const": name}, "route": route}
    if place.route.regex == "^":  # the empty route, which need not be told
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
    """Whether a route can be subscribed to, by `SubscribeMixin`."""
    return place.mounted.attribute("_event_types") is not None


def _snapshot(place: Place, schemas: Schemas) -> Schema:
    """What a snapshot is: the answer of ``list`` or ``retrieve``, unless the handler chooses by itself."""
    actions = {} if place.mounted.attribute("decides_snapshot") else _actions(place)
    names = [name for name in SNAPSHOTS if name in actions]
    if len(names) == 2:
        key = place.mounted.attribute("lookup_url_kwarg") or place.mounted.attribute("lookup_field") or "pk"
        names = ["retrieve" if key in place.connection.captures | place.route.captures else "list"]
    return schemas.of(actions[names[0]].returns, "serialization") if names else {}


def _actions(place: Place) -> dict[str, Action]:
    """The actions of a route by the names they were declared by."""
    return {plan.name: plan.action for plan in place.mounted.plans.values() if plan.name and plan.action}


def events_of(place: Place, schemas: Schemas) -> Iterator[tuple[str, Message]]:
    """The events that the subscribers of a route are sent, by name: those of its objects, its own, the protocol's."""
    declared = place.mounted.attribute("events")
    events: Mapping[str, Any] = declared if isinstance(declared, Mapping) else {}
    if is_live(place) and place.mounted.attribute("queryset") is not None:
        model = place.mounted.attribute("serializer_class")
        is_key_only = place.mounted.attribute("decides_serializer")
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
    """What is told of an object that was deleted: its key, and its version where it has one."""
    fields = {} if model is None else output_model(model).model_fields
    names = {"pk": getattr(mounted.attribute("queryset"), "pk", None)}
    if (version := mounted.attribute("version_field")) is not None:
        names[version] = version
    annotations = {key: fields[name].annotation if name in fields else Any for key, name in names.items()}
    properties = {key: schemas.of(annotation, "serialization") for key, annotation in annotations.items()}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _position(**more: Schema) -> Schema:
    """A position in what a route keeps as history."""
    properties = {"epoch": {"type": "string"}, "offset": {"type": "integer"}, **more}
    required = [name for name in properties if name not in ("route", "snapshot")]
    return {"type": "object", "properties": properties, "required": required}


def _event(name: str, data: Schema) -> Message:
    properties = {
        "event": {"type": "string", "const": name},
        "route": {"type": "string"},
        "data": data,
        "offset": {"type": "integer", "description": "Its place in what the route keeps as history."},
    }
    return {
        "name": name,
        "payload": {"type": "object", "properties": properties, "required": ["event", "route", "data"]},
    }


# what AsyncAPI has no words for
def facts_of(name: str, plan: Plan, place: Place, limits: Limits) -> dict[str, Any]:
    """What else clients and tools want to know of an action."""
    action: Action = plan.action  # type: ignore[assignment]
    timeout = limits.action_timeout if action.options.timeout is None else action.options.timeout
    return {
        "action": name,
        "route": place.route.text,
        "streams": action.streams,
        "silent": action.silent and not (action.name == "subscribe" and is_live(place)),
        "ordered": plan.ordered,
        "timeout": None if math.isinf(timeout) else timeout,
        "permissions": list(permissions_of(action, place.mounted)),
        "throttles": [type(throttle).__name__ for _, throttles in plan.throttles for throttle in throttles or ()],
        **_query(action, place.mounted),
    }


def _query(action: Action, mounted: MountedHandler) -> dict[str, list[str]]:
    """The query parameters that the list of a generic handler takes; others it refuses."""
    if action.name != "list" or mounted.attribute("decides_query") is not False:
        return {}
    try:
        return {"query": list(mounted.instance().known_parameters())}
    except AttributeError:  # a backend that looks at the frame, of which there is none here: it cannot be told
        return {}


def permissions_of(action: Action | None, mounted: MountedHandler) -> Iterator[str]:
    """Who has a say, outermost first, as a person would name them; of no action, those of the handler."""
    for handler in (*mounted.above, mounted):
        classes = handler.attribute("permission_classes")
        if handler.handler_class.decides_permissions:
            yield f"{handler.handler_class.__name__}.get_permissions()"
            continue
        if handler is mounted and action is not None and action.options.permission_classes is not None:
            classes = action.options.permission_classes
        yield from map(name_of, classes)


def text_of(documented: Any) -> dict[str, str]:
    """The docstring of a class or function, not that of its bases, as a ``description``."""
    text = documented.__doc__
    return {"description": inspect.cleandoc(text)} if text else {}
