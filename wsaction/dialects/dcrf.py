"""The protocol of djangochannelsrestframework, for clients such as the npm package ``dcrf-client``.

    client  {"stream": "cards", "payload": {"action": "patch", "pk": 7, "data": {"done": true}, "request_id": "a"}}
    server  {"stream":"cards","payload":{"errors":[],"data":{},"action":"patch","response_status":200,"request_id":"a"}}

A stream is the beginning of a route and ``pk`` its end: the frame above is ``partial_update`` on ``cards/7/``. A client
that sends payloads without the envelope gets replies without it.
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
"""The names of its actions in wsaction; other actions have the same name."""

EVENTS: Mapping[str, tuple[str, int]] = {
    "created": ("create", 201),
    "updated": ("update", 200),
    "deleted": ("delete", 204),
}
"""The names and statuses of wsaction's events there; other events have the same name, and status 200."""

OF_LISTS = frozenset({"create", "list"})  # actions on the stream's own route, whatever `pk` is
KEYS = ("pk", "id")  # names of the key in the data of events


class DCRF:
    """Serves clients of djangochannelsrestframework: ``dialect = DCRF()`` on a consumer.

    :param streams: the beginning of each stream's route, such as ``{"cards": "v1/cards/"}``; the key ``""`` is for
        payloads without an envelope. Other streams get 404. By default, stream ``cards`` has the routes of ``cards/``,
        as ``SimpleRouter().register("cards", ...)`` makes them, and payloads without an envelope go to ``""``.
    :param subprotocol: the sub-protocol that clients may offer to choose this dialect.
    :raises ImproperlyConfigured: if ``streams`` is not such a mapping.
    """

    def __init__(self, streams: Mapping[str, str] | None = None, subprotocol: str = "dcrf") -> None:
        prefixes: Mapping[Any, Any] = streams or {}
        for stream, prefix in prefixes.items():
            if not isinstance(stream, str) or not isinstance(prefix, str) or prefix.startswith("/"):
                raise ImproperlyConfigured(
                    f"DCRF: streams maps each stream to the beginning of its route, without a leading slash, as in "
                    f"{{'cards': 'cards/'}}; not {{{stream!r}: {prefix!r}}}"
                )
        self.streams = streams
        self.subprotocol = subprotocol

    def converse(self) -> "DCRFConversation":
        """Returns the conversation for a new connection."""
        return DCRFConversation(self)

    def route(self, stream: str | None, key: str | None) -> str:
        """The route of a stream, or of one of its objects. ``stream`` is None for payloads without an envelope.

        ``DCRF().route("cards", "7") == "cards/7/"``. Raises `RouteNotFound` for an unknown stream.
        """
        if self.streams is not None:
            if (prefix := self.streams.get(stream or "")) is None:
                raise RouteNotFound("There is no such stream.")
        else:
            prefix = f"{stream}/" if stream else ""
        return prefix if key is None else f"{prefix}{key}/"

    def stream(self, route: str) -> str | None:
        """The stream that a route belongs to; None for payloads without an envelope."""
        if self.streams is None:
            return route.partition("/")[0] or None
        matches = [(len(prefix), stream) for stream, prefix in self.streams.items() if route.startswith(prefix)]
        return max(matches)[1] or None if matches else None


class Payload(dict[str, Any]):
    """The body of a frame, with what its reply must repeat."""

    __slots__ = ("action", "is_enveloped", "is_pending_subscription", "key", "request_id", "stream")

    action: str | None  # the client's name for it
    is_enveloped: bool
    stream: str | None
    key: str | int | None  # `pk`, with its JSON type
    request_id: str  # as JSON, of any type
    is_pending_subscription: bool  # whether it subscribes and has no reply yet

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
    """The dialect on one connection, with its subscriptions by route and then by ``request_id`` as JSON."""

    __slots__ = ("_dialect", "_is_bare", "_pending_subscriptions", "_subscribed")

    def __init__(self, dialect: DCRF) -> None:
        self._dialect = dialect
        self._is_bare = True  # until the first envelope
        self._pending_subscriptions = 0  # subscriptions without a reply yet
        self._subscribed: dict[str, dict[str, Payload]] = {}

    # ------------------------------------------------------------------------------------------------ requests
    def read(self, text: str | None, limits: Limits) -> Frame:
        """The frame of a message, with or without an envelope."""
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
            frame.refuse(exc)
        return frame

    def _read_envelope(self, body: dict[str, Any]) -> tuple[Payload, APIError | None]:
        if "payload" not in body:
            return Payload(body), None
        stream, payload = body.get("stream"), body["payload"]
        if type(stream) is not str or not stream:
            return Payload({}), InvalidFrame("stream must be a name.", loc=("stream",))
        if type(payload) is not dict:
            return Payload({}, stream, is_enveloped=True), InvalidFrame("payload must be an object.", loc=("payload",))
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
            raise Busy("This connection has the maximum number of subscriptions.", ctx)

    def _count_subscriptions(self) -> int:
        return sum(map(len, self._subscribed.values()))

    # ------------------------------------------------------------------------------------------------ replies
    def reply(self, frame: Frame, text: str) -> Worded:
        """The reply with the client's names for action and status. A subscription gets 201 without data."""
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
        """From now on, events of the route carry this frame's ``request_id`` and the key as the client wrote it."""
        payload: Any = frame.body
        self._subscribed.setdefault(route, {})[payload.request_id] = payload

    def subscribed(self, route: str, frame: Frame, most: int) -> None:
        """Subscribes like `_subscribe`, for another action. Beyond the bound it replaces the route's oldest frame."""
        if isinstance(frame.body, Payload):
            known = self._subscribed.get(route)
            if known and self._count_subscriptions() >= most:
                known.pop(frame.body.request_id, None) or known.pop(next(iter(known)))
            self._subscribe(route, frame)

    def unsubscribed(self, route: str) -> None:
        """Forgets the ``request_id``s that subscribed to the route."""
        self._subscribed.pop(route, None)

    # ------------------------------------------------------------------------------------------------ events
    def event(self, text: str) -> Iterable[Worded] | None:
        """Translates an event, once for each ``request_id`` that subscribed to its route.

        Of the protocol's own events only `$resync` has an effect: None, so that the client reconnects.
        """
        message = from_json(text)
        event, route, data = message["event"], message["route"], message["data"]
        if event.startswith("$"):
            if event == "$unsubscribed":
                self.unsubscribed(route)
            return None if event == "$resync" else ()
        subscribed = self._subscribed.get(route)
        if not subscribed:  # the server pushed it, without a subscription by the client
            return (_encode_event(None if self._is_bare else self._dialect.stream(route), event, data, "null"),)
        return [
            _encode_event(payload.stream, event, _with_client_key(event, route, data, payload.key), request_id)
            for request_id, payload in subscribed.items()
        ]


def _route_segment(key: Any) -> str:
    """The segment of a route for a ``pk``. Raises `InvalidFrame`."""
    if type(key) is int:
        return str(key)
    if type(key) is not str or not key or "/" in key or "?" in key:
        raise InvalidFrame("pk must be a number, or a string without / and ?.", loc=("pk",))
    return key


def _with_client_key(event: str, route: str, data: Any, key: str | int | None) -> Any:
    """The data of an event with the key as the client wrote it; the client finds its listeners by that key."""
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
