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
        prefixes: Mapping[Any, Any] = streams or {}
        for stream, prefix in prefixes.items():
            if not isinstance(stream, str) or not isinstance(prefix, str) or prefix.startswith("/"):
                raise ImproperlyConfigured(
                    f"DCRF: streams says where routes begin, as in {{'cards': 'cards/'}}, without a leading slash; "
                    f"not {{{stream!r}: {prefix!r}}}"
                )
        self.streams = streams
        self.subprotocol = subprotocol

    def converse(self) -> "DCRFConversation":
        """Begins to speak it, on a new connection."""
        return DCRFConversation(self)

    def route(self, stream: str | None, key: str | None) -> str:
        """The route of a stream, None for bare payloads, or of one of its objects.

        ``DCRF().route("cards", "7") == "cards/7/"``. Raises `RouteNotFound`.
        """
        if self.streams is not None:
            if (prefix := self.streams.get(stream or "")) is None:
                raise RouteNotFound("There is no such stream.")
        else:
            prefix = f"{stream}/" if stream else ""
        return prefix if key is None else f"{prefix}{key}/"

    def stream(self, route: str) -> str | None:
        """The stream that a route belongs to; None: that of bare payloads."""
        if self.streams is None:
            return route.partition("/")[0] or None
        matches = [(len(prefix), stream) for stream, prefix in self.streams.items() if route.startswith(prefix)]
        return max(matches)[1] or None if matches else None


class Payload(dict[str, Any]):
    """A frame's body, and what its answer has to say of where it came from."""

    __slots__ = ("action", "is_enveloped", "is_pending_subscription", "key", "request_id", "stream")

    action: str | None  # as the client called it
    is_enveloped: bool
    stream: str | None
    key: str | int | None  # its `pk`, with its JSON type
    request_id: str  # as JSON, which may be any
    is_pending_subscription: bool  # and is yet to be answered

    def __init__(self, body: Mapping[str, Any], stream: str | None = None, *, is_enveloped: bool = False) -> None:
        super().__init__(body)
        self.stream = stream
        self.is_enveloped = is_enveloped
        self.is_pending_subscription = False
        action, key = self.get("action"), self.get("pk")
        self.action = action if type(action) is str else None
        self.key = key if type(key) in (str, int) else None
        self.request_id = to_json(self.get("request_id")).decode()


class DCRFConversation:
    """The dialect on one connection, with its subscriptions: by route, and then by ``request_id`` as JSON."""

    __slots__ = ("_dialect", "_is_bare", "_pending_subscriptions", "_subscribed")

    def __init__(self, dialect: DCRF) -> None:
        self._dialect = dialect
        self._is_bare = True  # until an envelope comes
        self._pending_subscriptions = 0  # subscriptions that are yet to be answered
        self._subscribed: dict[str, dict[str, Payload]] = {}

    # ------------------------------------------------------------------------------------------------ requests
    def read(self, text: str | None, limits: Limits) -> Frame:
        """The frame of a message, enveloped or bare."""
        body, error = read_object(text, limits)
        payload, envelope_error = self._read_envelope(body)
        error = error or envelope_error
        if error is not None:
            return refused(payload, error)
        if payload.action is None:
            return refused(payload, malformed(payload))
        request_id, action = payload.get("request_id"), ACTIONS.get(payload.action, payload.action)
        frame = new_frame(payload, action, "", request_id if type(request_id) in (str, int) else None)
        try:
            frame.route = self._route(payload, limits)
            if payload.action == "subscribe_instance":
                self._check_max_subscriptions(limits)
                self._pending_subscriptions += 1
                payload.is_pending_subscription = True
        except APIError as exc:
            frame.error = exc
        return frame

    def _read_envelope(self, body: dict[str, Any]) -> tuple[Payload, APIError | None]:
        if "payload" not in body:
            return Payload(body), None
        stream, payload = body.get("stream"), body["payload"]
        if type(stream) is not str or not stream:
            return Payload({}), InvalidFrame("stream is a name.", loc=("stream",))
        if type(payload) is not dict:
            return Payload({}, stream, is_enveloped=True), InvalidFrame("payload is an object.", loc=("payload",))
        self._is_bare = False
        return Payload(payload, stream, is_enveloped=True), None

    def _route(self, payload: Payload, limits: Limits) -> str:
        action: str = payload.action or ""
        if action.startswith("$"):
            return ""
        key = None if action in OF_LISTS or payload.get("pk") is None else _route_segment(payload["pk"])
        route = self._dialect.route(payload.stream, key)
        maximum = limits.max_route_length
        if len(route) > maximum:
            ctx = {"limit": "max_route_length", "value": maximum}
            raise InvalidFrame(f"The route has {len(route)} characters; max_route_length is {maximum}.", ctx)
        return route

    def _check_max_subscriptions(self, limits: Limits) -> None:
        maximum = limits.max_subscriptions
        if self._pending_subscriptions + self._count_subscriptions() >= maximum:
            ctx = {"limit": "max_subscriptions", "value": maximum}
            raise Busy("This connection has as many subscriptions as it may.", ctx)

    def _count_subscriptions(self) -> int:
        return sum(map(len, self._subscribed.values()))

    # ------------------------------------------------------------------------------------------------ replies
    def reply(self, frame: Frame, text: str) -> Worded:
        """The reply with its names for action and status; that to a subscription has no data, and 201."""
        payload: Any = frame.body
        head, _, rest = text.rpartition(tail_of(frame))
        action = "null" if payload.action is None else quote(payload.action)
        then = None
        if payload.is_pending_subscription:
            self._pending_subscriptions -= 1
            payload.is_pending_subscription = False
        if rest.startswith("2") and payload.action == "subscribe_instance":
            head, rest = '{"errors":[],"data":null', f"201{rest[3:]}"
            then = partial(self._subscribe, str(frame.key), frame)
        if frame.request_id is None:
            rest = f'{rest[:-1]},"request_id":{payload.request_id}}}'
        return Worded(_envelope(payload.stream, f'{head},"action":{action},"response_status":{rest}'), then)

    def _subscribe(self, route: str, frame: Frame) -> None:
        """From here on events of the route are told with this frame's ``request_id``, and its key as it came."""
        payload: Any = frame.body
        self._subscribed.setdefault(route, {})[payload.request_id] = payload

    def subscribed(self, route: str, frame: Frame, most: int) -> None:
        """As `_subscribe`, by an action of the application's own; past the bound in the place of the route's oldest."""
        if isinstance(frame.body, Payload):
            known = self._subscribed.get(route)
            if known and self._count_subscriptions() >= most:
                known.pop(frame.body.request_id, None) or known.pop(next(iter(known)))
            self._subscribe(route, frame)

    def unsubscribed(self, route: str) -> None:
        """From here on nothing that is told of the route has the ids that had subscribed to it."""
        self._subscribed.pop(route, None)

    # ------------------------------------------------------------------------------------------------ events
    def event(self, text: str) -> Iterable[Worded] | None:
        """An event, once for each ``request_id`` that subscribed to its route; of the protocol's, `$resync` alone says
        something to these clients: that they have to come back."""
        message = from_json(text)
        event, route, data = message["event"], message["route"], message["data"]
        if event.startswith("$"):
            if event == "$unsubscribed":
                self.unsubscribed(route)
            return None if event == "$resync" else ()
        subscribed = self._subscribed.get(route)
        if not subscribed:  # it was pushed
            return (_encode_event(None if self._is_bare else self._dialect.stream(route), event, data, "null"),)
        return [
            _encode_event(payload.stream, event, _with_client_key(event, route, data, payload.key), request_id)
            for request_id, payload in subscribed.items()
        ]


def _route_segment(key: Any) -> str:
    """The part of a route that a ``pk`` is. Raises `InvalidFrame`."""
    if type(key) is int:
        return str(key)
    if type(key) is not str or not key or "/" in key or "?" in key:
        raise InvalidFrame("pk is a number, or text without / and ?.", loc=("pk",))
    return key


def _with_client_key(event: str, route: str, data: Any, key: str | int | None) -> Any:
    """The data of an event with its key as the client wrote it, by which it finds who waits for it."""
    if key is None or type(data) is not dict:
        return data
    if event == "deleted":
        return {**data, "pk": key}
    canonical = route.rstrip("/").rpartition("/")[2]
    return {name: key if name in KEYS and str(value) == canonical else value for name, value in data.items()}


def _encode_event(stream: str | None, event: str, data: Any, request_id: str) -> Worded:
    action, status = EVENTS.get(event, (event, 200))
    payload = to_json({"errors": [], "data": data, "action": action, "response_status": status}).decode()
    return Worded(_envelope(stream, f'{payload[:-1]},"request_id":{request_id}}}'))


def _envelope(stream: str | None, payload: str) -> str:
    return payload if stream is None else f'{{"stream":{quote(stream)},"payload":{payload}}}'
