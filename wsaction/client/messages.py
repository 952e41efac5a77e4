"""Messages of the client: `Event`, `Resync`, `Position`, and the parser and encoder of frames."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from typing_extensions import TypeVar  # with a default before Python 3.13

from wsaction.client.errors import ActionError, UnexpectedReply, action_error

__all__ = ("Event", "Kind", "Position", "Reply", "Resync", "encode_request", "position_in", "read", "validated")

T = TypeVar("T")
Data = TypeVar("Data", default=Any, covariant=True)
Snapshot = TypeVar("Snapshot", default=Any, covariant=True)

Kind = type[T] | TypeAdapter[T]
"""A type to validate data as. A union such as ``Card | None`` is no class: pass ``TypeAdapter(Card | None)``."""

ENVELOPE_KEYS = ("action", "route", "request_id")


@dataclass(frozen=True, slots=True)
class Position:
    """A position in a route's history. Pass it as ``since`` to receive the events after it."""

    epoch: str
    offset: int


@dataclass(frozen=True, slots=True)
class Event(Generic[Data]):
    """An event from the server. ``offset`` is None if the route keeps no history.

    ``data`` is an instance of the type that `Client.subscribe` was given for this event, else parsed JSON.
    ``traceparent`` names the span of its delivery if the server traces, as `wsaction.contrib.opentelemetry` does. To
    send one, pass it with a call: ``client.call("move", "cards/7/", data, traceparent=...)``.

    A reply to another client that the server broadcasts arrives as an event with the name of its action.
    """

    event: str
    route: str
    data: Data
    offset: int | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Resync(Generic[Snapshot]):
    """Events were lost here: reload the data that they are about. No event after this is missing.

    If the subscription asked for snapshots, ``snapshot`` is the new one. ``position`` is the position of this notice;
    it is None in `Events`.
    """

    position: Position | None = None
    snapshot: Snapshot = cast(Any, None)  # noqa: RUF009  # without snapshots, `Snapshot` is None


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply. ``size`` is the length of its message in characters."""

    status: int
    data: Any
    errors: list[Mapping[str, Any]]
    action: str
    route: str
    request_id: Any
    size: int

    @property
    def error(self) -> ActionError | None:
        """The exception for an error reply; None if it is a success."""
        return action_error(self.status, self.errors, self.action, self.route) if self.status >= 400 else None


def encode_request(action: str, route: str, keys: Mapping[str, Any], request_id: str | None) -> str:
    """Returns a request frame as JSON. The values of ``keys`` may be anything that pydantic can serialize.

    ``encode_request("move", "cards/7/", {"to": 2}, "a-1")`` returns
    ``{"action":"move","route":"cards/7/","to":2,"request_id":"a-1"}``.

    Raises ``TypeError`` for a key of the protocol, and pydantic's error for a value that it cannot serialize.
    """
    if taken := [name for name in ENVELOPE_KEYS if name in keys]:
        raise TypeError(f"{taken[0]} is a key of the protocol, not a parameter of an action; {action} got {keys!r}")
    frame = {"action": action, **({"route": route} if route else {}), **keys}
    if request_id is not None:
        frame["request_id"] = request_id
    return to_json(frame, inf_nan_mode="null").decode()


def read(text: str | bytes) -> Reply | Event:
    """Parses a message from the server. Raises `UnexpectedReply` if it is neither a reply nor an event."""
    try:
        body: Any = from_json(text, cache_strings="keys")
    except ValueError as exc:
        raise UnexpectedReply(f"the server sent a message that is not JSON: {text[:200]!r}") from exc
    match body:
        case {"event": str() as event}:
            offset, traceparent = body.get("offset"), body.get("traceparent")
            return Event(
                event,
                _text(body, "route"),
                body.get("data"),
                offset if type(offset) is int else None,
                traceparent if type(traceparent) is str else None,
            )
        case {"status": int() as status, "errors": list() as errors} if all(type(item) is dict for item in errors):
            action, route, request_id = _text(body, "action"), _text(body, "route"), body.get("request_id")
            return Reply(status, body.get("data"), errors, action, route, request_id, len(text))
    raise UnexpectedReply(f"the server sent a message that is neither a reply nor an event: {text[:200]!r}")


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)  # null if the server could not read the request's
    return value if isinstance(value, str) else ""


def position_in(data: Any) -> Position:
    """Returns the position in the data of a reply or event. Raises `UnexpectedReply` if there is none."""
    match data:
        case {"epoch": str() as epoch, "offset": int() as offset}:
            return Position(epoch, offset)
    raise UnexpectedReply(f"expected an epoch and an offset, got {data!r:.200}")


def validated(data: Any, kind: Kind[T], where: str) -> T:
    """Validates parsed JSON as a type. Raises pydantic's ``ValidationError``, with a note that names ``where``."""
    try:
        adapter: TypeAdapter[T] = kind if isinstance(kind, TypeAdapter) else _adapter(cast(Hashable, kind))
        return adapter.validate_json(to_json(data))
    except ValidationError as exc:
        exc.add_note(f"in {where.strip()}; the server sent {to_json(data)[:200].decode(errors='replace')}")
        raise


@lru_cache(maxsize=256)
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, kind))
