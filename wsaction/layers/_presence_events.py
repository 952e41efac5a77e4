"""The events `join` and `leave`, which tell a topic's subscribers who came and who went."""

from wsaction._protocol.event_frames import encode_event
from wsaction._protocol.frames import quote
from wsaction.layers.base import Place

__all__ = ("encode_join", "encode_leave")


def encode_join(place: Place, user: str) -> bytes:
    """The body of the event that a user has come."""
    return _encode("join", place, user)


def encode_leave(place: Place, user: str) -> bytes:
    """The body of the event that a user has gone."""
    return _encode("leave", place, user)


def _encode(event: str, place: Place, user: str) -> bytes:
    return encode_event(event, place.route, f'{{"user":{quote(user)}}}').encode(errors="replace")
