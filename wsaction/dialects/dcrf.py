"""The dialect of djangochannelsrestframework, which the npm package ``dcrf-client`` speaks.

    client  {"stream": "cards", "payload": {"action": "patch", "pk": 7, "data": {"done": true}, "request_id": "a"}}
    server  {"stream":"cards","payload":{"errors":[],"data":{},"action":"patch","response_status":200,"request_id":"a"}}

A stream is the beginning of a route, and ``pk`` is its end: the frame above is ``partial_update`` of ``cards/7/``. Who
sends payloads bare, without the envelope, is answered so.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from pydantic_core import from_json, to_json

from wsaction._protocol.frames import Frame, malformed, new_frame, quote, read_object, refused, tail_of
from wsaction.dialects.base import Worded
from wsaction.exceptions import APIError, Busy, ImproperlyConfigured, InvalidFrame, RouteNotFound
from wsaction.limits import Limits

__all__ = ("ACTIONS", "DCRF", "EVENTS")

ACTIONS: Mapping[str, str] = {
    "delete": "destroy",
    "patch": "partial_update",
    "subscribe_instance": "subscribe",
    "unsubscribe_instance": "unsubscribe",
}
"""What its actions are called here; all others have the same name."""

EVENTS: Mapping[str, tuple[str, int]] = {
    "created": ("create", 201),
    "updated": ("update", 200),
    "deleted": ("delete", 204),
}
"""What events are called there, and their status; all others have the same name, and 200."""

OF_LISTS = frozenset({"create", "list"})  # these go to the stream's own route, whatever `pk` says
KEYS = ("pk", "id")  # what the key is called in the data of events


class DCRF:
    """The dialect; see the module. Made once, for all connections of a consumer.

    ``streams`` says where each stream's route begins, ``{"cards": "v1/cards/"}``; a stream that it does not name is
    answered 404, and ``""`` stands for bare payloads. Without it stream ``cards`` is ``cards/``, what
    ``SimpleRouter().register("cards", ...)`` makes, and bare payloads go to ``""``. ``subprotocol`` is what clients may
    offer to choose it. Raises `ImproperlyConfigured` for streams that are no such mapping.
    """

    def __init__(self, streams: Mapping[str, str] | None = None, subprotocol: str = "dcrf") -> None:
        told: Mapping[Any, Any] = streams or {}
        for stream, begin in told.items():
            if not isinstance(stream, str) or not isinstance(begin, str) or begin.startswith("/"):
                raise ImproperlyConfigured(
                    f"DCRF: streams says where routes begin, as in {{'cards': 'cards/'}}, without a leading slash; "
                    f"not {{{stream!r}: {begin!r}}}"
                )
        self.streams, self.subprotocol = streams, subprotocol

    def converse(self) -> "Talk":
        """Begins to speak it, on a new connection."""
        return Talk(self)

    def route(self, stream: str | None, key: str | None) -> str:
        """The route of a stream, None for bare payloads, or of one of its objects.

        ``DCRF().route("cards", "7") == "cards/7/"``. Raises `RouteNotFound`.
        """
        if self.streams is not None:
            if (begin := self.streams.get(stream or "")) is None:
                raise RouteNotFound("There is no such stream.")
        else:
            begin = f"{stream}/" if stream else ""
        return begin if key is None else f"{begin}{key}/"

    def stream(self, route: str) -> str | None:
        """The stream that a route belongs to; None: that of bare payloads."""
        if self.streams is None:
            return route.partition("/")[0] or None
        found = [(len(begin), stream) for stream, begin in self.streams.items() if route.startswith(begin)]
        return max(found)[1] or None if found else None


class Payload(dict[str, Any]):
    """A frame's body, and what its answer has to say of where it came from."""

    __slots__ = ("action", "enveloped", "key", "request_id", "stream", "subscribes")

    action: str | None  # as the client called it
    enveloped: bool
    stream: str | None
    key: str | int | None  # its `pk`, with its JSON type
    request_id: str  # as JSON, which may be any
    subscribes: bool  # and is yet to be answered

    def __init__(self, body: Mapping[str, Any], stream: str | None = None, *, enveloped: bool = False) -> None:
        super().__init__(body)
        self.stream, self.enveloped, self.subscribes = stream, enveloped, False
        action, key = self.get("action"), self.get("pk")
        self.action = action if type(action) is str else None
        self.key = key if type(key) in (str, int) else None
        self.request_id = to_json(self.get("request_id")).decode()


class Talk:
    """The dialect on one connection, with its subscriptions: by route, and then by ``request_id`` as JSON."""

    __slots__ = ("_asked", "_bare", "_dialect", "_subscribed")

    def __init__(self, dialect: DCRF) -> None:
        self._dialect = dialect
        self._bare = True  # until an envelope comes
        self._asked = 0  # subscriptions that are yet to be answered
        self._subscribed: dict[str, dict[str, Payload]] = {}

    # ------------------------------------------------------------------------------------------------ requests
    def read(self, text: str | None, limits: Limits) -> Frame:
        """The frame of a message, enveloped or bare."""
        body, error = read_object(text, limits)
        payload, told = self._open(body)
        if (error := error or told) is not None:
            return refused(payload, error)
        if payload.action is None:
            return refused(payload, malformed(payload))
        request_id, action = payload.get("request_id"), ACTIONS.get(payload.action, payload.action)
        frame = new_frame(payload, action, "", request_id if type(request_id) in (str, int) else None)
        try:
            frame.route = self._route(payload, limits)
            if payload.action == "subscribe_instance":
                self._check_room(limits)
                self._asked, payload.subscribes = self._asked + 1, True
        except APIError as exc:
            frame.refuse(exc)
        return frame

    def _open(self, body: dict[str, Any]) -> tuple[Payload, APIError | None]:
        if "payload" not in body:
            return Payload(body), None
        stream, payload = body.get("stream"), body["payload"]
        if type(stream) is not str or not stream:
            return Payload({}), InvalidFrame("stream is a name.", loc=("stream",))
        if type(payload) is not dict:
            return Payload({}, stream, enveloped=True), InvalidFrame("payload is an object.", loc=("payload",))
        self._bare = False
        return Payload(payload, stream, enveloped=True), None

    def _route(self, payload: Payload, limits: Limits) -> str:
        action: str = payload.action or ""
        if action.startswith("$"):
            return ""
        key = None if action in OF_LISTS or payload.get("pk") is None else _segment(payload["pk"])
        route = self._dialect.route(payload.stream, key)
        if len(route) > (most := limits.max_route_length):
            ctx = {"limit": "max_route_length", "value": most}
            raise InvalidFrame(f"The route has {len(route)} characters; max_route_length is {most}.", ctx)
        return route

    def _check_room(self, limits: Limits) -> None:
        most = limits.max_subscriptions
        if self._asked + sum(map(len, self._subscribed.values())) >= most:
            raise Busy(
                "This connection has as many subscriptions as it may.", {"limit": "max_subscriptions", "value": most}
            )

    # ------------------------------------------------------------------------------------------------ replies
    def reply(self, frame: Frame, text: str) -> Worded:
        """The reply with its names for action and status; that to a subscription has no data, and 201."""
        payload: Any = frame.body
        head, _, rest = text.rpartition(tail_of(frame))
        action = "null" if payload.action is None else quote(payload.action)
        done, then = rest.startswith("2"), None
        if payload.subscribes:
            self._asked, payload.subscribes = self._asked - 1, False
        if done and payload.action == "subscribe_instance":
            head, rest = '{"errors":[],"data":null', f"201{rest[3:]}"
            then = partial(self._subscribe, str(frame.key), frame)
        if frame.request_id is None:
            rest = f'{rest[:-1]},"request_id":{payload.request_id}}}'
        return Worded(_enveloped(payload.stream, f'{head},"action":{action},"response_status":{rest}'), then)

    def _subscribe(self, route: str, frame: Frame) -> None:
        """From here on events of the route are told with this frame's ``request_id``, and its key as it came."""
        payload: Any = frame.body
        self._subscribed.setdefault(route, {})[payload.request_id] = payload

    def subscribed(self, route: str, frame: Frame, most: int) -> None:
        """As `_subscribe`, by an action of the application's own; past the bound in the place of the route's oldest."""
        if isinstance(frame.body, Payload):
            known = self._subscribed.get(route)
            if known and sum(map(len, self._subscribed.values())) >= most:
                known.pop(frame.body.request_id, None) or known.pop(next(iter(known)))
            self._subscribe(route, frame)

    def unsubscribed(self, route: str) -> None:
        """From here on nothing that is told of the route has the ids that had subscribed to it."""
        self._subscribed.pop(route, None)

    # ------------------------------------------------------------------------------------------------ events
    def event(self, text: str) -> Iterable[Worded] | None:
        """An event, once for each ``request_id`` that subscribed to its route; of the protocol's, `$resync` alone says
        something to these clients: that they have to come back."""
        told = from_json(text)
        event, route, data = told["event"], told["route"], told["data"]
        if event.startswith("$"):
            if event == "$unsubscribed":
                self.unsubscribed(route)
            return None if event == "$resync" else ()
        subscribed = self._subscribed.get(route)
        if not subscribed:  # it was pushed
            return (_event(None if self._bare else self._dialect.stream(route), event, data, "null"),)
        return [
            _event(payload.stream, event, _keyed(event, route, data, payload.key), request_id)
            for request_id, payload in subscribed.items()
        ]


def _segment(key: Any) -> str:
    """The part of a route that a ``pk`` is. Raises `InvalidFrame`."""
    if type(key) is int:
        return str(key)
    if type(key) is not str or not key or "/" in key or "?" in key:
        raise InvalidFrame("pk is a number, or text without / and ?.", loc=("pk",))
    return key


def _keyed(event: str, route: str, data: Any, key: str | int | None) -> Any:
    """The data of an event with its key as the client wrote it, by which it finds who waits for it."""
    if key is None or type(data) is not dict:
        return data
    if event == "deleted":
        return {**data, "pk": key}
    canonical = route.rstrip("/").rpartition("/")[2]
    return {name: key if name in KEYS and str(value) == canonical else value for name, value in data.items()}


def _event(stream: str | None, event: str, data: Any, request_id: str) -> Worded:
    action, status = EVENTS.get(event, (event, 200))
    told = to_json({"errors": [], "data": data, "action": action, "response_status": status}).decode()
    return Worded(_enveloped(stream, f'{told[:-1]},"request_id":{request_id}}}'))


def _enveloped(stream: str | None, payload: str) -> str:
    return payload if stream is None else f'{{"stream":{quote(stream)},"payload":{payload}}}'
