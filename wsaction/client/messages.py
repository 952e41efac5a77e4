"""What a client sends and what it is told, as text and as objects."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from wsaction.client.errors import ActionError, UnexpectedReply, action_error

__all__ = ("Event", "Position", "Reply", "Resync", "encode_request", "position_in", "read", "validated")

ENVELOPE_KEYS = ("action", "route", "request_id")


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a route's history: keep it, and pass it as ``since`` to be told what came after it."""

    epoch: str
    offset: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the server said unasked. ``offset`` is None where the route keeps no history.

    A reply that the server broadcast to others than the one who asked comes as an event named as its action.
    """

    event: str
    route: str
    data: Any
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Resync:
    """Something was lost here: load again what the events are about; what follows is without a hole.

    ``snapshot`` is what to load, where the subscription asked for snapshots. ``position`` is None where there is none:
    among pushed events, and on routes without history.
    """

    position: Position | None = None
    snapshot: Any = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply; ``size`` is the characters of its message."""

    status: int
    data: Any
    errors: list[Mapping[str, Any]]
    action: str
    route: str
    request_id: Any
    size: int

    @property
    def error(self) -> ActionError | None:
        """What it says is wrong; None: nothing."""
        return action_error(self.status, self.errors, self.action, self.route) if self.status >= 400 else None


def encode_request(action: str, route: str, keys: Mapping[str, Any], request_id: str | None) -> str:
    """The frame that asks, as JSON. Keys may hold whatever pydantic can serialise.

    Raises ``TypeError`` for a key that is the protocol's own, and pydantic's error for a value that is no JSON.

    ``encode_request("move", "cards/7/", {"to": 2}, "a-1")`` is
    ``{"action":"move","route":"cards/7/","to":2,"request_id":"a-1"}``.
    """
    if taken := [name for name in ENVELOPE_KEYS if name in keys]:
        raise TypeError(f"{taken[0]} is the protocol's own key, not a parameter; parameters of {action} are {keys!r}")
    frame = {"action": action, **({"route": route} if route else {}), **keys}
    if request_id is not None:
        frame["request_id"] = request_id
    return to_json(frame, inf_nan_mode="null").decode()


def read(text: str | bytes) -> Reply | Event:
    """The message that came; raises `UnexpectedReply` where it is not one of the protocol's."""
    try:
        body: Any = from_json(text, cache_strings="keys")
    except ValueError as exc:
        raise UnexpectedReply(f"the server sent what is no JSON: {text[:200]!r}") from exc
    match body:
        case {"event": str() as event}:
            offset = body.get("offset")
            return Event(event, _text(body, "route"), body.get("data"), offset if type(offset) is int else None)
        case {"status": int() as status, "errors": list() as errors} if all(type(item) is dict for item in errors):
            action, route, request_id = _text(body, "action"), _text(body, "route"), body.get("request_id")
            return Reply(status, body.get("data"), errors, action, route, request_id, len(text))
    raise UnexpectedReply(f"the server sent what is neither a reply nor an event: {text[:200]!r}")


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)  # null where the server could not read it
    return value if isinstance(value, str) else ""


def position_in(data: Any) -> Position:
    """The position that a reply or a notice tells; raises `UnexpectedReply` where it tells none."""
    match data:
        case {"epoch": str() as epoch, "offset": int() as offset}:
            return Position(epoch, offset)
    raise UnexpectedReply(f"expected an epoch and an offset, came {data!r:.200}")


def validated(data: Any, kind: Any) -> Any:
    """``data``, which came as JSON, as what ``kind`` says; raises pydantic's ``ValidationError``."""
    return _adapter(kind).validate_json(to_json(data))


@lru_cache(maxsize=256)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
