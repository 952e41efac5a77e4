"""Event frames, which the server sends without a request. All recipients in a process share one text.

A layer carries an event as its *body*: the frame without the offset, in UTF-8. A line feed, which compact JSON never
contains, may separate it from a *private* part that only servers read.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from wsaction._protocol.frames import quote, size_of

if TYPE_CHECKING:
    from wsaction.layers.base import Position

__all__ = ("Event", "encode_body", "encode_event", "encode_notice", "is_body", "is_event", "reroute", "route_of")


class Event:
    """An event of a topic, in this process.

    ``frame`` is the text for every recipient and ``size`` its bytes; ``offset`` is 0 without history.
    ``Event(7, b'{"event":"moved","route":"boards/1/","data":3}').frame`` is
    ``{"event":"moved","route":"boards/1/","data":3,"offset":7}``.
    """

    __slots__ = ("_frames", "_message", "_route", "excludes", "frame", "offset", "shared", "size", "subject")

    def __init__(self, offset: int, body: bytes) -> None:
        public, _, private = body.partition(b"\n")
        self.offset = offset
        self.size = len(public) + 27
        self.frame = self.numbered(public.decode())
        self.excludes: str | None = None  # the subscriber who does not get it
        self.subject: Any = None  # the object of the event, to check whether a recipient may see it
        self.shared: Any = None  # what the filter of one recipient has read, for those of the others
        self._message: Mapping[str, Any] | None = None
        self._route: str | None = None
        self._frames: dict[str, str] | None = None  # by other routes of the topic
        if private:
            private_data = from_json(private)
            self.excludes = private_data.get("excludes")
            self.subject = private_data.get("subject")

    @property
    def message(self) -> Mapping[str, Any]:
        """The frame as an object, parsed once for all recipients."""
        if self._message is None:
            self._message = from_json(self.frame)
        return self._message

    def under(self, route: str) -> str:
        """The frame with another route of the topic, made once for all subscribers of that route."""
        if self._route is None:
            self._route = _quoted_route(self.frame) or ""
        quoted = quote(route)
        if self._route == quoted:
            return self.frame
        if self._frames is None:
            self._frames = {}
        text = self._frames.get(route)
        if text is None:
            text = self._frames[route] = reroute(self.frame, route, quoted)
        return text

    def size_under(self, route: str) -> int:
        """The bytes of the frame with that route."""
        text = self.under(route)
        return self.size if text is self.frame else size_of(text)

    def numbered(self, text: str) -> str:
        """``text``, a frame without an offset, with this event's offset. A filter may send it instead of ``frame``."""
        return f'{text[:-1]},"offset":{self.offset}}}' if self.offset else text


def encode_event(event: str, route: str, data: str) -> str:
    """The frame of an event. ``data`` is JSON already.

    ``encode_event("moved", "boards/1/", "3")`` is ``{"event":"moved","route":"boards/1/","data":3}``.
    """
    return f'{{"event":{quote(event)},"route":{quote(route)},"data":{data}}}'


def encode_notice(event: str, route: str, position: "Position") -> str:
    """A ``$position`` or ``$resync`` frame, which moves a client to a position."""
    return encode_event(event, route, f'{{"epoch":{quote(position.epoch)},"offset":{position.offset}}}')


def encode_body(text: str | bytes, excludes: str | None = None, subject: str | bytes | None = None) -> bytes:
    """The body of the event whose frame is ``text``. ``subject`` is JSON.

    Raises ``ValueError`` if ``text`` is not an event frame on one line, or ``subject`` is not JSON.
    """
    body = text.encode(errors="replace") if isinstance(text, str) else bytes(text)
    if not body.startswith(b'{"event":') or not body.endswith(b"}") or b"\n" in body:
        raise ValueError(f'an event is {{"event": ..., "route": ..., "data": ...}} as compact JSON, not {body[:100]!r}')
    if isinstance(text, bytes):
        text.decode()
    if excludes is None and subject is None:
        return body
    private = to_json({"excludes": excludes, "subject": None if subject is None else from_json(subject)})
    return body + b"\n" + private


def _quoted_route(text: str) -> str | None:
    """The route in an event's frame, as JSON.

    A search suffices: in a JSON string every quote has a backslash before it, so the searched text is never inside one.
    """
    start = text.find('","route":"') + 10
    end = text.find('","data":', start) + 1
    return text[start:end] if start >= 10 and end else None


def reroute(text: str, route: str, quoted: str | None = None) -> str:
    """An event's frame with another route. A text that is not wsaction's frame is returned unchanged.

    ``reroute('{"event":"a","route":"inbox/1/","data":1}', "inbox/")`` is ``{"event":"a","route":"inbox/","data":1}``.
    """
    current = _quoted_route(text)
    quoted = quoted or quote(route)
    if current is None or current == quoted:
        return text
    head, _, rest = text.partition(f'","route":{current},"data":')
    return f'{head}","route":{quoted},"data":{rest}'


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
