"""Broadcasts, as rest_framework_channels has them: an action's answer told to a *group* of connections.

``@async_action(mode="broadcast")`` tells ``{"data": ..., "status": ...}`` to all connections of the consumer's path;
with ``group_send_lookup_kwargs = "room"``, to all whose path matched the same pattern and captured the same ``room``,
whatever else it captured: leave it out where tenants share a pattern. What an enclosing route captured, a ``Mount`` of
Starlette, keeps them apart. With ``broadcast_type="card.moved"``
each of their consumers is asked instead: ``async def card_moved(self, event)``, whose ``event`` also has the ``type``,
and which tells its client what it likes (``await self.send_json(event)``). Whose action it was is told after the reply.
A connection whose first frame has to authenticate is told nothing before that; else whoever may connect hears them:
`IsAuthenticated` lets anonymous users connect, `IsAuthenticatedStrictly` does not.
"""

import asyncio
import inspect
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

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

__all__ = ("GENERAL", "BroadcastOrderGate", "Group", "broadcast", "is_grouped", "join_group", "method_name")

logger = logging.getLogger("wsaction")

GENERAL = "general.broadcast"
MAX_WAITING = 1_024  # events that wait for a consumer's methods; past it its client is a slow consumer

_GENERAL_START = encode_event(GENERAL, "", "")[:-1]


def method_name(kind: str) -> str:
    """The method that an event is given to: ``method_name("card.moved") == "card_moved"``."""
    return kind.replace(".", "_")


async def broadcast(handler: "AsyncAPIActionHandler", kind: str | None, data: str, status: int) -> None:
    """Tells an action's answer, ``data`` as JSON, to the group; after the commit where anything was changed."""
    session = session_of(handler)
    if session.group is not None:
        session.group.hold(handler.frame)
    text = encode_event(kind or GENERAL, "", f'{{"data":{data},"status":{status}}}')
    hub, topic = hub_of(session), _topic(handler)
    if (unit := unit_to_wait_for()) is None:
        await hub.publish(topic, text)
    else:
        publish_after(unit, hub, topic, text, None)


def is_grouped(session: "Session") -> bool:
    """Whether anything is ever told to the group of a connection's consumer."""
    grouped: bool = session.consumer.group_send_lookup_kwargs is not None or session.table.broadcasts
    return grouped


async def join_group(session: "Session", *, hears: bool) -> "Group | None":
    """Joins a connection to the group of its consumer, where anything is ever told to it. ``hears``: from now on, else
    once it is allowed to."""
    if not is_grouped(session):
        return None
    group = Group(session, hears=hears)
    await session.runtime.hub.join(group, *group.place, reply=lambda *_: "{}")
    return group


def _topic(handler: "AsyncAPIActionHandler") -> str:
    """The group's: that of the connection path, or of all whose path matched the same pattern and captured the same by
    this name, whatever else it captured."""
    scope = handler.scope
    _, captured = connection_captures(scope)
    for owner, known in ((handler, handler.kwargs), (handler.consumer, captured)):
        name = owner.group_send_lookup_kwargs
        if name is None:
            continue
        if known.get(name) is None:
            raise ImproperlyConfigured(
                f"{type(owner).__name__}.group_send_lookup_kwargs is {name!r}, which its path does not capture; it has "
                f"{', '.join(known) or 'none'}"
            )
        pattern, asked = scope.get(PATTERN_KEY, ""), handler.consumer.group_send_lookup_kwargs or name
        return group_topic(pattern, asked, str(known[name]))
    return group_topic(connection_path(scope))


class Group:
    """One connection in its group: a `_pubsub.subscription.Subscriber`."""

    __slots__ = ("_held", "_running", "_session", "_under_way", "_waiting", "hears", "place")

    def __init__(self, session: "Session", *, hears: bool) -> None:
        self._session, self.hears = session, hears
        self.place = _topic(session.consumer), ""  # its topic, and the route that nobody sees
        self._waiting: deque[dict[str, Any]] = deque()
        self._running = False
        self._under_way: dict[Frame, bool] = {}  # whether what is told now is told after its reply
        self._held: deque[tuple[str, list[Frame]]] = deque()  # what was told, and after whose replies

    @property
    def capacity(self) -> int:
        """Bytes that may wait."""
        capacity: int = self._session.connection.capacity
        return capacity

    @property
    def is_closed(self) -> bool:
        """Whether the connection is over."""
        ended: bool = self._session.connection.is_closed
        return ended

    async def wait_for_space(self, size: int) -> None:
        """Waits until so much more may be put."""
        await self._session.connection.wait_for_space(size)

    def close(self, code: int, reason: str) -> None:
        """Ends the connection."""
        self._session.connection.close(code, reason)

    def begin(self, frame: Frame) -> None:
        """A frame of this connection is under way."""
        self._under_way[frame] = False

    def hold(self, frame: Frame) -> None:
        """It broadcasts: what is told from now on is told after its reply, unless it is a part of another's."""
        if frame in self._under_way:
            self._under_way[frame] = True

    def end(self, frame: Frame) -> None:
        """Its reply is made, and given to be sent before the loop has its next turn."""
        if self._under_way[frame]:
            asyncio.get_running_loop().call_soon(self._release, frame)
        else:
            del self._under_way[frame]

    def _release(self, frame: Frame) -> None:
        del self._under_way[frame]
        while self._held and not any(one in self._under_way for one in self._held[0][1]):
            self._tell(self._held.popleft()[0])

    def put(self, text: str) -> None:
        """The hub's: something was told to the group."""
        if not self.hears:
            return
        before = [frame for frame, holds in self._under_way.items() if holds]
        if not before and not self._held:
            self._tell(text)
        elif len(self._held) < MAX_WAITING:
            self._held.append((text, before))
        else:
            self._close()

    def _tell(self, text: str) -> None:
        consumer = self._session.consumer
        if text.startswith(_GENERAL_START) and not hasattr(consumer, method_name(GENERAL)):
            self._session.connection.put(text[len(_GENERAL_START) : -1])
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
            self._session.connection.spawn(self._work_off)

    def _close(self) -> None:
        self.close(TRY_AGAIN_LATER, f"slow consumer; {MAX_WAITING} broadcasts wait for it")

    async def _work_off(self) -> None:
        """Gives the events to the consumer's methods, one after the other."""
        consumer = self._session.consumer
        try:
            while self._waiting and not self.is_closed:
                event = self._waiting.popleft()
                method = getattr(consumer, method_name(event["type"]), None)
                try:
                    if method is None:
                        raise AttributeError(f"{type(consumer).__name__} has no method {method_name(event['type'])}")
                    if inspect.isawaitable(result := method(event)):
                        await result
                except Exception:  # the client has asked for nothing: there is only the log to tell
                    logger.exception("%s could not take a broadcast", type(consumer).__name__)
        finally:
            self._running = False


class BroadcastOrderGate:
    """A `_connection.connection.Dispatcher` around the session of a connection in a group, which learns of its
    frames."""

    __slots__ = ("_session",)

    def __init__(self, session: "Session") -> None:
        self._session = session

    def route(self, frame: Frame) -> None:
        """As the session's."""
        self._session.route(frame)

    def timeout(self, frame: Frame) -> float:
        """As the session's."""
        return self._session.timeout(frame)

    async def run(self, frame: Frame) -> str | None:
        """The frame's reply; what it broadcasts is told to its client after it."""
        group: Group = self._session.group  # type: ignore[assignment]  # which it joined before its first frame
        group.begin(frame)
        try:
            return await self._session.run(frame)
        finally:
            group.end(frame)
