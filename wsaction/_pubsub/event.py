"""An event in this process: made once of what the layer brings, and shared by all who get it."""

from collections.abc import Mapping
from typing import Any

from wsaction._protocol.event_frames import decode_event
from wsaction._protocol.frames import quote, size_of

__all__ = ("Event", "reroute")


class Event:
    """One event of one topic in this process.

    ``frame`` is the text that every recipient gets, ``size`` its bytes, ``offset`` 0 where it is of no history:
    ``Event(7, b'{"event":"moved","route":"boards/1/","data":3}').frame`` is
    ``{"event":"moved","route":"boards/1/","data":3,"offset":7}``.
    """

    __slots__ = ("_frames", "_message", "_route", "excludes", "frame", "offset", "shared", "size", "subject")

    def __init__(self, offset: int, body: bytes) -> None:
        public, _, private = body.partition(b"\n")
        self.offset, self.size = offset, len(public) + 27
        self.frame = self.numbered(public.decode())
        self.excludes: str | None = None  # who is not told
        self.subject: Any = None  # what it is about, for those who ask whether a recipient may see it
        self.shared: Any = None  # what one recipient's filter has read that serves the others too
        self._message: Mapping[str, Any] | None = None
        self._route: str | None = None
        self._frames: dict[str, str] | None = None  # under other routes
        if private:
            known = decode_event(private)
            self.excludes, self.subject = known.get("excludes"), known.get("subject")

    @property
    def message(self) -> Mapping[str, Any]:
        """The frame as an object, parsed once for all recipients."""
        if self._message is None:
            self._message = decode_event(self.frame)
        return self._message

    def under(self, route: str) -> str:
        """The frame under one of its topic's routes, made once for all who are subscribed to that route."""
        if self._route is None:
            self._route = _quoted_route(self.frame) or ""
        if self._route == (quoted := quote(route)):
            return self.frame
        if self._frames is None:
            self._frames = {}
        if (text := self._frames.get(route)) is None:
            text = self._frames[route] = reroute(self.frame, route, quoted)
        return text

    def size_under(self, route: str) -> int:
        """The bytes of the frame under a route."""
        text = self.under(route)
        return self.size if text is self.frame else size_of(text)

    def numbered(self, text: str) -> str:
        """``text``, a frame without an offset, with this event's: what a filter may tell instead."""
        return f'{text[:-1]},"offset":{self.offset}}}' if self.offset else text


def _quoted_route(text: str) -> str | None:
    """The route in an event's frame, as JSON. Within a JSON string no quote stands without a backslash before it, so
    that what is searched for is found between the strings alone."""
    start = text.find('","route":"') + 10
    end = text.find('","data":', start) + 1
    return text[start:end] if start >= 10 and end else None


def reroute(text: str, route: str, quoted: str | None = None) -> str:
    """An event's frame under another route; what is no frame of ours is left as it is.

    ``reroute('{"event":"a","route":"inbox/1/","data":1}', "inbox/")`` is ``{"event":"a","route":"inbox/","data":1}``.
    """
    if (known := _quoted_route(text)) is None or known == (quoted := quoted or quote(route)):
        return text
    head, _, rest = text.partition(f'","route":{known},"data":')
    return f'{head}","route":{quoted},"data":{rest}'
