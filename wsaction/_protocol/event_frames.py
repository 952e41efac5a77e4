"""Event frames, which the server sends without a request, as text. `_pubsub.event.Event` holds one in a process.

A layer carries an event as its *body*: the frame without the offset, in UTF-8. A line feed, which compact JSON never
contains, may separate it from a *private* part that only servers read.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from wsaction._protocol.frames import quote

if TYPE_CHECKING:
    from wsaction.layers.base import Position


def encode_event(event: str, route: str, data: str) -> str:
    """The frame of an event. ``data`` is JSON already.

    ``encode_event("moved", "boards/1/", "3")`` is ``{"event":"moved","route":"boards/1/","data":3}``.
    """
    return f'{{"event":{quote(event)},"route":{quote(route)},"data":{data}}}'


def encode_notice(event: str, route: str, position: "Position") -> str:
    """A ``$position`` or ``$resync`` frame, which moves a client to a position."""
    return encode_event(event, route, f'{{"epoch":{quote(position.epoch)},"offset":{position.offset}}}')


def encode_body(
    text: str | bytes,
    excludes: str | None = None,
    subject: str | bytes | None = None,
    carried: Mapping[str, str] | None = None,
) -> bytes:
    """The body of the event whose frame is ``text``. ``subject`` is JSON, ``carried`` what hooks carry with it.

    Raises ``ValueError`` if ``text`` is not an event frame on one line, or ``subject`` is not JSON.
    """
    body = text.encode(errors="replace") if isinstance(text, str) else bytes(text)
    if not body.startswith(b'{"event":') or not body.endswith(b"}") or b"\n" in body:
        raise ValueError(f'an event is {{"event": ..., "route": ..., "data": ...}} as compact JSON, not {body[:100]!r}')
    if isinstance(text, bytes):
        text.decode()
    if excludes is None and subject is None and not carried:
        return body
    private = {"excludes": excludes, "subject": None if subject is None else from_json(subject)}
    if carried:
        private["carried"] = dict(carried)
    return body + b"\n" + to_json(private)


def decode_event(text: str | bytes) -> Mapping[str, Any]:
    """An event's frame, or the private part of a body, as an object."""
    message: Mapping[str, Any] = from_json(text)
    return message


def event_name(text: str | bytes) -> str:
    """The name of the event whose frame this is: ``event_name('{"event":"moved","route":"","data":3}') == "moved"``.

    It is not parsed as a whole: inside a JSON string every quote is escaped. ``""`` for a frame that the application
    wrote in another order.
    """
    start, _, _ = (text if isinstance(text, str) else text.decode()).partition(',"route":')
    try:
        name = from_json(start.removeprefix('{"event":'))
    except ValueError:
        return ""
    return name if isinstance(name, str) else ""


def traced_frame(text: str, carried: Mapping[str, str]) -> str:
    """An event's frame with the ``traceparent`` that hooks carry with it, if there is one."""
    traceparent = carried.get("traceparent")
    return text if traceparent is None else f'{text[:-1]},"traceparent":{quote(traceparent)}}}'


def is_event(text: str) -> bool:
    """Whether a message is an event's frame, and not a reply."""
    return text.startswith('{"event":')


def route_of(text: str) -> str | None:
    """The route in an event's frame, such as ``"boards/7/"``; None if it has none."""
    try:
        route = from_json(text).get("route")
    except (ValueError, AttributeError):  # a frame that the application wrote itself
        return None
    return route if isinstance(route, str) else None


def is_body(body: bytes) -> bool:
    """Whether ``body`` is an event's. Bytes from outside the process may be anything."""
    public, _, private = body.partition(b"\n")
    if not public.startswith(b'{"event":') or not public.endswith(b"}"):
        return False
    try:
        from_json(public, allow_inf_nan=False, cache_strings="none")
        return not private or type(from_json(private)) is dict
    except ValueError:
        return False
