"""Action frames: JSON text in, one `Frame` on its way down, JSON text out.

A frame's way is decode (here) → route → permissions → parameters → action (`_dispatch`) → encode (here) → send
(`_connection`). Nothing here raises on what a client sends: the frame's ``error`` says what is wrong with it.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from enum import IntEnum
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from wsaction.exceptions import APIError, InvalidFrame, InvalidJSON
from wsaction.limits import Limits

if TYPE_CHECKING:
    from wsaction._handlers.route_table import Call
    from wsaction.consumers import AsyncAPIConsumer
    from wsaction.transactions import UnitOfWork

quote = encode_basestring  # a JSON string, not ASCII-escaped


@dataclass(frozen=True, slots=True, eq=False)
class AfterReply:
    """Work of an action that waits for the frame's reply: the events of a subscription, for example."""

    begin: Callable[[], None]  # the reply is on its way
    undo: Callable[[], None]  # the action failed
    send_reply: Callable[[str | None], None] | None = None
    """Sends the final reply in its place among events: the action's own, or, for None, the work's. It may raise."""
    data: Any = None  # the work's own reply: if the action returns it, or None, the work replies


class Lateness(IntEnum):
    """How far beyond its deadline a frame is that does not end."""

    NONE = 0
    COMMIT = 1  # it was committing, too late to be stopped, and got more time
    DETACHED = 2  # another frame was answered in its place


@dataclass(slots=True, init=False, repr=False, eq=False)
class Frame:
    """One request. Its fields say which state it is in; nothing changes that state but the functions named here.

    ==========  =============================  =====================================================================
    state       fields                         entered by
    ==========  =============================  =====================================================================
    read        none                           `decode`, `new_frame`
    refused     ``error``, no ``key``          `decode`, `refuse`: it is answered with its error and never runs
    failed      ``error``                      `fail`: as refused, once its turn has come
    routed      ``consumer call key``          `Dispatcher.route`
    waiting     ``size``                       `Lanes.admit`: for the frames before it, or for a place
    running     no ``task``                    `Connection._lead`: the leader runs it and it has not suspended yet
    under way   ``task deadline``              it has suspended, or had to wait: `Connection._hand_over`, `_answer`
    stopped     ``error``                      `stop`: it is cancelled, and answered with its error once it ends
    committing  ``unit`` is ``COMMITTING``     `Session.run`: from here on it cannot be stopped
    late        ``lateness`` ``COMMIT``        `Deadlines`: it is committing beyond its deadline, and gets more time
    answered    ``status``                     `Session.run`, `Session._error_reply`, `AuthenticationGate`
    detached    ``lateness`` ``DETACHED``      `answer_and_detach`: it did not end; what it replies later is dropped
    ==========  =============================  =====================================================================

    Any state before *committing* may lead to *stopped*, and both of them to *detached*. An `Unawaited` error is apart
    from these: the action goes on, but the frame fails, with `begin_check` as long as a check is not awaited. Frames
    within a frame never reach a connection; whoever makes them sets their ``task``. `transactions` alone begins and
    ends units. ``action`` is None and ``route`` is "" if they could not be read; ``request_id`` is None if there was
    none.
    """

    _kwargs: dict[str, Any]
    get_object_args: tuple[Any, Any]  # of get_object(), once that has found the object that the route names
    checked_object: Any  # the last one whose permissions were checked
    body: dict[str, Any]  # the JSON object
    action: str | None  # as the client wrote it; echoed
    route: str  # as the client wrote it, with its query; echoed
    request_id: str | int | None
    error: Exception | None  # it fails with this, whatever its action returns
    task: asyncio.Task[None] | None
    deadline: float | None  # when it is stopped, on the event loop's clock; None: its time is not counted yet
    lateness: Lateness
    size: int  # characters of its text
    held: list[AfterReply] | None
    has_sent_item: bool  # it is a stream's, whose first item waits for nothing any more
    recorded_changes: Any  # the changes that a hook of a generic action made, see `_events.crud.record_changes`
    status: int | None  # of its final reply
    failure: tuple[APIError, BaseException]  # of an error reply: what it says, and what was raised
    key: str | None  # frames with the same key run in order; None: in no order
    consumer: "AsyncAPIConsumer"  # the root of its connection
    call: "Call"
    unit: "UnitOfWork | None"  # None: nothing needs one yet

    @property
    def kwargs(self) -> dict[str, Any]:
        """The captures as a dict of the frame's own."""
        try:
            return self._kwargs
        except AttributeError:
            self._kwargs = dict(self.call.captures)
            return self._kwargs

    @property
    def is_refused(self) -> bool:
        """Whether it is not to run, or not to go on: it is refused or stopped."""
        return self.error is not None and not isinstance(self.error, Unawaited)

    @property
    def is_detached(self) -> bool:
        """Whether another frame was answered in its place."""
        return self.lateness is Lateness.DETACHED

    def refuse(self, error: Exception) -> None:
        """Has it answered with an error at once, whatever is before it. Not for a frame that waits: its key is kept."""
        self.error = error
        self.key = None

    def fail(self, error: Exception) -> None:
        """Has it answered with an error, whatever its action returns, if that still runs."""
        self.error = error

    def stop(self, error: Exception) -> None:
        """Cancels its task; it is answered with the error."""
        self.error = error
        if self.task is not None:  # else it is about to begin, and is refused by its error
            self.task.cancel()

    def answer_and_detach(self) -> "Frame":
        """A frame that is answered in the place of this one, with its error."""
        answered = new_frame(self.body, self.action, self.route, self.request_id)
        answered.error = self.error
        answered.consumer = self.consumer
        answered.call = self.call
        self.lateness = Lateness.DETACHED
        return answered

    # ------------------------------------------------------------------------------------------------ what waits for it
    def hold(self, work: AfterReply) -> None:
        """Has work wait for the reply. If there is none to come, the work goes on at once, or is undone."""
        if self.status is not None and self.status >= 400:
            work.undo()
        elif self is not current_frame.get() or self.status is not None or hasattr(self, "has_sent_item"):
            work.begin()
        elif self.held is None:
            self.held = [work]
        else:
            self.held.append(work)

    def is_answered_by_held(self, result: Any) -> bool:
        """Whether what the action returned says no more than the reply that the work it holds sends."""
        return any(w.send_reply is not None and (result is None or result is w.data) for w in self.held or ())

    def finish_held(self, *, failed: bool = False) -> None:
        """The work that waits for the reply goes on, or is undone."""
        held = self.held
        self.held = None
        for work in held or ():
            (work.undo if failed else work.begin)()

    # ------------------------------------------------------------------------------------------------ checks
    def begin_check(self, name: str) -> None:
        """A check has begun whose answer has to be awaited: until `end_check` the frame fails, as a check that nobody
        awaits refuses nothing."""
        if self.error is None:
            self.error = NotAwaited()
        if isinstance(self.error, NotAwaited):
            self.error.checks.append(name)

    def end_check(self, name: str) -> None:
        """The check is awaited: from now on it refuses by itself."""
        if isinstance(self.error, NotAwaited):
            self.error.checks.remove(name)
            if not self.error.checks:
                self.error = None

    def keywords(self) -> dict[str, Any]:
        """The keyword arguments for permissions: the frame's keys, overlaid by the route's captures.

        A frame can neither shadow a capture nor pass ``self``, ``scope``, ``handler``, ``obj`` or ``action``: with
        ``pk`` captured as 7, ``{"action": "a", "pk": 1, "scope": {}, "x": 2}`` offers ``{"pk": 7, "x": 2}``.
        """
        merged = {**self.body, **self.call.captures}
        for name in ("self", "scope", "handler", "obj", "action"):
            merged.pop(name, None)
        return merged


current_frame: ContextVar[Frame | None] = ContextVar("wsaction.current_frame", default=None)
"""The frame whose action runs in this context; None outside of one."""

connecting_frame: ContextVar[Frame | None] = ContextVar("wsaction.connecting_frame", default=None)
"""While a consumer's ``connect()`` runs, a frame for its errors; it is answered by the handshake."""


class Unawaited(TypeError):
    """A frame's error for a forgotten ``await``. The action goes on, but whatever it returns, the frame fails."""


class NotAwaited(Unawaited):
    """The error of a frame while a check that it began is not awaited."""

    def __init__(self) -> None:
        self.checks: list[str] = []

    def __str__(self) -> str:
        return f"{self.checks[0]}() is awaited by nobody, so that it refuses nothing; did you forget `await`?"


class Dropped(Unawaited):
    """The error of a frame whose action called an async method and dropped the coroutine; see `_protocol.awaited`."""

    def __init__(self, caller: str, called: str) -> None:
        super().__init__(f"{caller} called {called}() without `await`, so that it did nothing; write await before it")


ON_TIME = Lateness.NONE  # a name of the module is read twice as fast, for each frame
_NO_BODY: dict[str, Any] = {}
_UNSET = object()
_NO_BRACKETS = len('"action":""')  # that every frame has


def set_since(base: Context) -> bool:
    """Whether the application has set a context variable since ``base``; values are compared by identity."""
    now = copy_context()
    return any(now.get(var, _UNSET) is not value for var, value in base.items() if var is not current_frame)


def decode(text: str | None, limits: Limits) -> Frame:
    """The frame of a text message, or of a binary one (None), with its ``error`` if it is malformed.

    ``decode('{"action": "list", "request_id": 7}', Limits())`` has ``route == ""`` and ``request_id == 7``.
    """
    try:
        body = from_json(text, allow_inf_nan=False, cache_strings="keys")  # type: ignore[arg-type]  # None is told below
        action = body["action"]  # of what is no object, a TypeError
    except (ValueError, TypeError, KeyError):
        return _without_action(text, limits)
    # `in` and a subscript cost half of what body.get() does, for each frame
    route = body["route"] if "route" in body else ""  # noqa: SIM401
    request_id = body["request_id"] if "request_id" in body else None  # noqa: SIM401
    if (
        type(action) is not str
        or type(route) is not str
        or not (type(request_id) is str or type(request_id) is int or "request_id" not in body)
    ):
        return refused(body, malformed(body))
    frame = Frame()  # as `new_frame` does, for each frame
    frame.body = body
    frame.action = action
    frame.route = route
    frame.request_id = request_id
    frame.error = frame.task = frame.key = frame.deadline = frame.unit = frame.held = frame.status = None
    frame.lateness = ON_TIME
    if len(route) > limits.max_route_length:
        frame.error = _over(
            "max_route_length", limits.max_route_length, f"The route has {len(route)} characters", "route"
        )
    max_depth = limits.max_json_depth
    if (
        # It was read, so it is a text. Shorter ones have no room for so many brackets, beside what they say.
        len(text) - len(action) - len(route) > 2 * max_depth + _NO_BRACKETS  # type: ignore[arg-type]
        and text.count("[") + text.count("{") > max_depth  # type: ignore[union-attr]
        and _deeper(body, max_depth)
    ):
        frame.error = _too_deep(max_depth)
    return frame


def read_object(text: str | None, limits: Limits) -> tuple[dict[str, Any], APIError | None]:
    """The JSON object of a message, or the error if it has none; for dialects, whose frames `decode` cannot read."""
    body, error = _parsed(text, limits)
    if error is None and _deeper(body, limits.max_json_depth):
        error = _too_deep(limits.max_json_depth)
    return body, error


def _parsed(text: str | None, limits: Limits) -> tuple[dict[str, Any], APIError | None]:
    try:
        body = from_json(text, allow_inf_nan=False, cache_strings="keys")  # type: ignore[arg-type]  # as in `decode`
    except (ValueError, TypeError) as exc:
        return _NO_BODY, _unreadable(text, exc, limits.max_json_depth)
    if type(body) is not dict:
        return _NO_BODY, InvalidFrame(f"A frame is a JSON object, not {_json_name(body)}.")
    return body, None


def _without_action(text: str | None, limits: Limits) -> Frame:
    body, error = _parsed(text, limits)
    return refused(body, error or malformed(body))


def new_frame(body: dict[str, Any], action: str | None, route: str, request_id: str | int | None) -> Frame:
    """A frame that is read and not routed yet."""
    frame = Frame()
    frame.body = body
    frame.action = action
    frame.route = route
    frame.request_id = request_id
    frame.error = frame.task = frame.key = frame.deadline = frame.unit = frame.held = frame.status = None
    frame.lateness = ON_TIME
    return frame


def size_of(text: str) -> int:
    """The bytes that a message takes on the wire: ``size_of("é") == 2``."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def reply_tail(action: str, route: str) -> str:
    """The part of a reply that depends on its action and route alone, so that it is kept for the next frame."""
    return f',"action":{quote(action)},"route":{quote(route)},"status":'


def encode_reply(tail: str, data: str, status: int, request_id: str | int | None, errors: str = "[]") -> str:
    """The reply around ``data`` and ``errors``, which are JSON already.

    `_dispatch.session.Session.run` writes the same text by itself, for speed: change both. A test compares them.

    ``encode_reply(reply_tail("list", ""), "[]", 200, 7)`` is
    ``{"errors":[],"data":[],"action":"list","route":"","status":200,"request_id":7}``.
    """
    if request_id is None:
        return f'{{"errors":{errors},"data":{data}{tail}{status}}}'
    id_json = quote(request_id) if type(request_id) is str else request_id
    return f'{{"errors":{errors},"data":{data}{tail}{status},"request_id":{id_json}}}'


def tail_of(frame: Frame) -> str:
    """`reply_tail` of any frame, also of one whose action could not be read."""
    if frame.action is None:
        return f',"action":null,"route":{quote(frame.route)},"status":'
    return reply_tail(frame.action, frame.route)


def refused(body: dict[str, Any], error: APIError) -> Frame:
    """A frame that is answered with ``error``, and echoes the keys that could be read."""
    action, route, request_id = body.get("action"), body.get("route"), body.get("request_id")
    frame = new_frame(
        body,
        action if type(action) is str else None,
        route if type(route) is str else "",
        request_id if type(request_id) in (str, int) else None,
    )
    frame.error = error
    return frame


def _unreadable(text: str | None, exc: Exception, max_depth: int) -> APIError:
    if text is None:
        return InvalidFrame("A frame is a text message, not a binary one.")
    if "recursion limit" in str(exc):  # the parser's own, which lies above ours
        return _too_deep(max_depth)
    return InvalidJSON(f"A frame is one JSON object: {exc}.")


def malformed(body: dict[str, Any]) -> APIError:
    """The error for the first malformed key of a frame."""
    if "action" not in body:
        return InvalidFrame("action is a string; it is missing.", loc=("action",))
    for key, expected in (("action", "a string"), ("route", "a string, or absent")):
        if type(body.get(key, "")) is not str:
            return InvalidFrame(f"{key} is {expected}, not {_json_name(body[key])}.", loc=(key,))
    return InvalidFrame(
        f"request_id is a string or an integer, or absent, not {_json_name(body['request_id'])}.", loc=("request_id",)
    )


def _too_deep(max_depth: int) -> APIError:
    return _over("max_json_depth", max_depth, "Its arrays and objects are nested too deep")


def _over(limit: str, value: int, what: str, *loc: str) -> APIError:
    return InvalidFrame(f"{what}; {limit} is {value}.", {"limit": limit, "value": value}, loc=loc)


def _deeper(container: Any, limit: int) -> bool:
    """Whether arrays and objects are nested more than ``limit`` deep, the outermost counted."""
    level = [container]
    while level and limit:  # one level after the other, as calling a function for each costs most of a large frame
        limit -= 1
        level = [
            member
            for value in level
            if value
            for member in (value.values() if type(value) is dict else value)
            if (kind := type(member)) is list or kind is dict
        ]
    return bool(level)


_JSON_NAMES: Mapping[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


def _json_name(value: Any) -> str:
    return _JSON_NAMES[type(value)]
