"""The presence events `join` and `leave`, published when a user's presence in a topic begins or ends."""

from wsaction._protocol.event_frames import encode_event
from wsaction._protocol.frames import quote
from wsaction.layers.base import Place


def encode_join(place: Place, user: str) -> bytes:
    """The body of a `join` event."""
    return _encode("join", place, user)


def encode_leave(place: Place, user: str) -> bytes:
    """The body of a `leave` event."""
    return _encode("leave", place, user)


def _encode(event: str, place: Place, user: str) -> bytes:
    return encode_event(event, place.route, f'{{"user":{quote(user)}}}').encode(errors="replace")
