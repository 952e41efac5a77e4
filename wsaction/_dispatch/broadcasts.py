"""Broadcasts, as in rest_framework_channels: the reply of an action is sent to a *group* of connections.

``@async_action(mode="broadcast")`` sends ``{"data": ..., "status": ...}`` to all connections of the consumer's path.
With ``group_send_lookup_kwargs = "room"`` the group is all connections whose path matched the same pattern and captured
the same ``room``, whatever else it captured: leave it out if tenants share a pattern. Captures of an enclosing
Starlette ``Mount`` keep groups apart. With ``broadcast_type="card.moved"`` each of their consumers gets a call instead,
``async def card_moved(self, event)``, whose ``event`` also has the ``type``; it may ``await self.send_json(event)``.
The client that called the action gets the broadcast after its reply. A connection whose first frame has to authenticate
gets none before that. All others get them: `IsAuthenticated` lets anonymous users connect, `IsAuthenticatedStrictly`
does not.
"""

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from wsaction._connection.gates import Gate
from wsaction._events.publish import hub_of, publish_after, session_of
from wsaction._protocol.close_codes import TRY_AGAIN_LATER
from wsaction._protocol.event_frames import encode_event
from wsaction._protocol.frames import Frame
from wsaction._protocol.scope import PATTERN_KEY, connection_captures, connection_path, group_topic
from wsaction.exceptions import ImproperlyConfigured
from wsaction.transactions import unit_to_wait_for

if TYPE_CHECKING:
    from wsaction._dispatch.session import Session
    from wsaction.handlers import AsyncAPIActionHandler

logger = logging.getLogger("wsaction")

GENERAL_BROADCAST = "general.broadcast"
MAX_WAITING = 1_024  # events that wait for a consumer's methods; past it its client is a slow consumer

_GENERAL_BROADCAST_START = encode_event(GENERAL_BROADCAST, "", "")[:-1]


def method_name(kind: str) -> str:
    """The method that an event is given to: ``method_name("card.moved") == "card_moved"``."""
    return kind.replace(".", "_")


async def broadcast(handler: "AsyncAPIActionHandler", kind: str | None, data: str, status: int) -> None:
    """Sends an action's result, ``data`` as JSON, to the group; after the commit if there is a unit of work."""
    session = session_of(handler)
    if session.group is not None:
        session.group.hold(handler.frame)
    text = encode_event(kind or GENERAL_BROADCAST, "", f'{{"data":{data},"status":{status}}}')
    hub, topic = hub_of(session), _topic(handler)
    if (unit := unit_to_wait_for()) is None:
        await hub.publish(topic, text)
    else:
        publish_after(unit, hub, topic, text, None)


def is_grouped(session: "Session") -> bool:
    """Whether any action broadcasts to the group of a connection's consumer."""
    return session.consumer.group_send_lookup_kwargs is not None or session.table.broadcasts


async def join_group(session: "Session", *, is_receiving: bool) -> "Group | None":
    """Joins a connection to the group of its consumer, if there are broadcasts.

    It gets them from now on if ``is_receiving``, otherwise once it has authenticated.
    """
    if not is_grouped(session):
        return None
    group = Group(session, is_receiving=is_receiving)
    await session.runtime.hub.join(group, *group.key, reply=lambda *_: "{}")
    return group


def _topic(handler: "AsyncAPIActionHandler") -> str:
    """The group's topic, by the connection's path, or by its pattern and the one capture that names the group."""
    scope = handler.scope
    _, captured = connection_captures(scope)
    for owner, captures in ((handler, handler.kwargs), (handler.consumer, captured)):
        name = owner.group_send_lookup_kwargs
        if name is None:
            continue
        if captures.get(name) is None:
            raise ImproperlyConfigured(
                f"{type(owner).__name__}.group_send_lookup_kwargs is {name!r}, which its path does not capture; it has "
                f"{', '.join(captures) or 'none'}"
            )
        group_name = handler.consumer.group_send_lookup_kwargs or name
        return group_topic(scope.get(PATTERN_KEY, ""), group_name, str(captures[name]))
    return group_topic(connection_path(scope))


class Group:
    """One connection in its group: a `_pubsub.subscription.Subscriber`."""

    __slots__ = (
        "_held",
        "_running",
        "_session",
        "_under_way",
        "_waiting",
        "capacity",
        "close",
        "is_receiving",
        "key",
        "wait_for_space",
    )

    def __init__(self, session: "Session", *, is_receiving: bool) -> None:
        self._session = session
        self.is_receiving = is_receiving
        self.key = _topic(session.consumer), ""  # its topic, and a route that no client sees
        self._waiting: deque[dict[str, Any]] = deque()
        self._running = False
        self._under_way: dict[Frame, bool] = {}  # whether broadcasts wait for its reply
        self._held: deque[tuple[str, list[Frame]]] = deque()  # broadcasts, and the frames whose replies they wait for
        connection = session.connection
        self.capacity = connection.capacity
        self.wait_for_space = connection.wait_for_space
        self.close = connection.close

    @property
    def is_closed(self) -> bool:
        """Whether the connection is over."""
        return self._session.connection.is_closed

    def begin(self, frame: Frame) -> None:
        """A frame of this connection begins."""
        self._under_way[frame] = False

    def hold(self, frame: Frame) -> None:
        """The frame broadcasts: from now on broadcasts wait for its reply, unless it is a part of another frame."""
        if frame in self._under_way:
            self._under_way[frame] = True

    def end(self, frame: Frame) -> None:
        """The frame's reply is made; it is sent before the event loop has its next turn."""
        if self._under_way[frame]:
            asyncio.get_running_loop().call_soon(self._release, frame)
        else:
            del self._under_way[frame]

    def _release(self, frame: Frame) -> None:
        del self._under_way[frame]
        while self._held and not any(frame in self._under_way for frame in self._held[0][1]):
            self._deliver(self._held.popleft()[0])

    def put(self, text: str) -> None:
        """Called by the hub for each broadcast."""
        if not self.is_receiving:
            return
        frames = [frame for frame, holds in self._under_way.items() if holds]
        if not frames and not self._held:
            self._deliver(text)
        elif len(self._held) < MAX_WAITING:
            self._held.append((text, frames))
        else:
            self._close()

    def _deliver(self, text: str) -> None:
        consumer = self._session.consumer
        if text.startswith(_GENERAL_BROADCAST_START) and not hasattr(consumer, method_name(GENERAL_BROADCAST)):
            is_traced = '"traceparent":' in text  # or its data is
            self._session.connection.put(_untagged(text) if is_traced else text[len(_GENERAL_BROADCAST_START) : -1])
        elif text.startswith('{"event":"$'):
            logger.debug("broadcasts may have been missed")
        elif text.startswith('{"event":'):
            message = from_json(text)
            self._enqueue({"type": message["event"], **message["data"]})

    def _enqueue(self, event: dict[str, Any]) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._close()
            return
        self._waiting.append(event)
        if not self._running and not self.is_closed:
            self._running = True
            self._session.connection.spawn(self._run_methods)

    def _close(self) -> None:
        self.close(TRY_AGAIN_LATER, f"slow consumer; {MAX_WAITING} broadcasts wait for it")

    async def _run_methods(self) -> None:
        """Calls the consumer's methods with the events, one after the other."""
        consumer, runtime = self._session.consumer, self._session.runtime
        try:
            while self._waiting and not self.is_closed:
                event = self._waiting.popleft()
                method = getattr(consumer, method_name(event["type"]), None)
                try:
                    if method is None:
                        raise AttributeError(f"{type(consumer).__name__} has no method {method_name(event['type'])}")
                    await runtime.watched(_call(method, event), f"{type(consumer).__name__}.{event['type']}")
                except Exception:  # no client waits for an answer
                    logger.exception("%s could not take a broadcast", type(consumer).__name__)
        finally:
            self._running = False


async def _call(method: Callable[[dict[str, Any]], Any], event: dict[str, Any]) -> None:
    if inspect.isawaitable(result := method(event)):
        await result


def _untagged(text: str) -> str:
    """The data of an event's frame as JSON, with its ``traceparent`` if it has one."""
    message = from_json(text)
    traced = {"traceparent": message["traceparent"]} if "traceparent" in message else {}
    return to_json({**message["data"], **traced}).decode()


class BroadcastOrderGate(Gate):
    """Sends what a frame of a connection in a group broadcasts to its own client after the frame's reply."""

    __slots__ = ("_session",)

    def __init__(self, session: "Session") -> None:
        super().__init__(session)
        self._session = session

    async def run(self, frame: Frame) -> str | None:
        group: Group = self._session.group  # type: ignore[assignment]  # which it joined before its first frame
        group.begin(frame)
        try:
            return await self._session.run(frame)
        finally:
            group.end(frame)
