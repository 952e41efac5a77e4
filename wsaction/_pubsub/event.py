"""An event in this process: decoded once from the layer's message, and shared by all recipients."""

from collections.abc import Mapping
from typing import Any

from wsaction._protocol.event_frames import decode_event, traced_frame
from wsaction._protocol.frames import quote, size_of


class Event:
    """One event of a topic, with the frame that recipients get.

    ``frame`` is the text of the frame, ``size`` an upper bound of its bytes. ``offset`` is 0 without history.
    ``Event(7, b'{"event":"moved","route":"boards/1/","data":3}').frame`` is
    ``{"event":"moved","route":"boards/1/","data":3,"offset":7}``.
    """

    __slots__ = (
        "_frames",
        "_message",
        "_route",
        "_text",
        "carried",
        "excluded_name",
        "filter_cache",
        "frame",
        "offset",
        "size",
        "subject",
    )

    def __init__(self, offset: int, body: bytes) -> None:
        public, _, private = body.partition(b"\n")
        self.offset = offset
        self.size = len(public) + 27
        self.carried: Mapping[str, str] = _NOTHING  # what hooks carry with it
        self.frame = self._text = self.with_offset(public.decode())
        self.excluded_name: str | None = None  # the name of the subscriber that does not get it
        self.subject: Any = None  # the object of the event, from which filters decide whether a recipient may see it
        self.filter_cache: Any = None  # data that one recipient's filter has read, for the filters of other recipients
        self._message: Mapping[str, Any] | None = None
        self._route: str | None = None
        self._frames: dict[str, str] | None = None  # the frames for other routes of the topic
        if private:
            private_data = decode_event(private)
            self.excluded_name = private_data.get("excludes")
            self.subject = private_data.get("subject")
            if type(carried := private_data.get("carried")) is dict:
                self.carry(carried)

    @property
    def message(self) -> Mapping[str, Any]:
        """The frame as an object, parsed once for all recipients."""
        if self._message is None:
            self._message = decode_event(self.frame)
        return self._message

    def frame_for(self, route: str) -> str:
        """Returns the frame with another route of the topic, built once for all subscribers of that route."""
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

    def frame_size_for(self, route: str) -> int:
        """The size of the frame with that route, in bytes."""
        text = self.frame_for(route)
        return self.size if text is self.frame else size_of(text)

    def with_offset(self, text: str) -> str:
        """Adds this event's offset to ``text``, a frame without one, and its traceparent. A filter may return it."""
        if self.offset:
            text = f'{text[:-1]},"offset":{self.offset}}}'
        return traced_frame(text, self.carried) if self.carried else text

    def carry(self, carried: Mapping[str, str]) -> None:
        """Sets what hooks carry with it. Recipients get a ``traceparent`` among that. To be called before `frame_for`.

        A layer may bring anything, of which only strings count.
        """
        self.carried = {name: value for name, value in carried.items() if type(value) is str}
        self.size -= size_of(self.frame)
        self.frame = traced_frame(self._text, self.carried)
        self.size += size_of(self.frame)


_NOTHING: Mapping[str, str] = {}


def _quoted_route(text: str) -> str | None:
    """The route in an event's frame, as JSON.

    Searching suffices: inside a JSON string every quote is escaped, so the text searched for cannot be inside one.
    """
    start = text.find('","route":"') + 10
    end = text.find('","data":', start) + 1
    return text[start:end] if start >= 10 and end else None


def reroute(text: str, route: str, quoted: str | None = None) -> str:
    """Replaces the route in an event's frame. Returns text that is not an event's frame unchanged.

    ``reroute('{"event":"a","route":"inbox/1/","data":1}', "inbox/")`` is ``{"event":"a","route":"inbox/","data":1}``.
    """
    current = _quoted_route(text)
    quoted = quoted or quote(route)
    if current is None or current == quoted:
        return text
    head, _, rest = text.partition(f'","route":{current},"data":')
    return f'{head}","route":{quoted},"data":{rest}'
