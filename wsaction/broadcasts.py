"""Broadcasts, as rest_framework_channels has them: an action's answer told to a *group* of connections.

``@async_action(mode="broadcast")`` tells ``{"data": ..., "status": ...}`` to all connections of the consumer's path;
with ``group_send_lookup_kwargs = "room"``, to all that captured the same ``room``. With ``broadcast_type="card.moved"``
each of their consumers is asked instead: ``async def card_moved(self, event)``, whose ``event`` also has the ``type``,
and which tells its client what it likes (``await self.send_json(event)``).
"""

import inspect
import logging
from collections import deque
from typing import Any

from pydantic_core import from_json

from wsaction.addresses import connection_captures, connection_path, topic_of
from wsaction.events import encode_event
from wsaction.exceptions import ImproperlyConfigured
from wsaction.publishing import session_of, tell

__all__ = ("GENERAL", "Group", "broadcast", "join_group", "method_name")

logger = logging.getLogger("wsaction")

GENERAL = "general.broadcast"
MAX_WAITING = 1_024  # events that wait for a consumer's methods; past it its client is a slow consumer

_GENERAL_START = encode_event(GENERAL, "", "")[:-1]


def method_name(kind: str) -> str:
    """The method that an event is given to: ``method_name("card.moved") == "card_moved"``."""
    return kind.replace(".", "_")


async def broadcast(handler: Any, kind: str | None, data: str, status: int) -> None:
    """Tells an action's answer, ``data`` as JSON, to the group; after the commit where anything was changed."""
    text = encode_event(kind or GENERAL, "", f'{{"data":{data},"status":{status}}}')
    await tell(session_of(handler).runtime.hub, _topic(handler), text, None)


async def join_group(session: Any) -> "Group | None":
    """Joins a connection to the group of its consumer, where anything is ever told to it."""
    consumer = session.consumer
    if consumer.group_send_lookup_kwargs is None and not session.table.broadcasts:
        return None
    group = Group(session)
    await session.runtime.hub.join(group, _topic(consumer), "", reply=lambda *_: "{}")
    return group


def _topic(handler: Any) -> str:
    """The group's; its route is none that a client could subscribe to."""
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
        return topic_of("", f"?{known[name]}")
    return topic_of(connection_path(scope), "?")


class Group:
    """One connection in its group: a `recipients.Subscriber`."""

    __slots__ = ("_running", "_session", "_waiting")

    def __init__(self, session: Any) -> None:
        self._session = session
        self._waiting: deque[dict[str, Any]] = deque()
        self._running = False

    @property
    def capacity(self) -> int:
        """Bytes that may wait."""
        capacity: int = self._session.connection.capacity
        return capacity

    @property
    def ended(self) -> bool:
        """Whether the connection is over."""
        ended: bool = self._session.connection.ended
        return ended

    async def room(self, size: int) -> None:
        """Waits until so much more may be put."""
        await self._session.connection.room(size)

    def close(self, code: int, reason: str) -> None:
        """Ends the connection."""
        self._session.connection.close(code, reason)

    def put(self, text: str) -> None:
        """The hub's: something was told to the group."""
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
            self.close(1013, f"slow consumer; {MAX_WAITING} broadcasts wait for it")
            return
        self._waiting.append(event)
        if not self._running and not self.ended:
            self._running = True
            self._session.connection.spawn(self._work_off)

    async def _work_off(self) -> None:
        """Gives the events to the consumer's methods, one after the other."""
        consumer = self._session.consumer
        try:
            while self._waiting and not self.ended:
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
