"""`EventRouter`: who of a client hears an event. `Events`: what a server pushes of no subscription."""

from typing import TYPE_CHECKING
from weakref import WeakSet

from wsaction._utils.backoff import Backoff
from wsaction.client._buffers import Buffer
from wsaction.client._connection import Connection
from wsaction.client._subscriptions import SharedRoute
from wsaction.client.errors import ConnectionFailed
from wsaction.client.messages import Event, Resync

if TYPE_CHECKING:
    from wsaction.client._reconnect import ConnectionManager

__all__ = ("EventRouter", "Events")


class Events:
    """The events of no subscription, from when it was made: an async iterator, which ends when the client is closed.

    A `Resync` among them says that some are lost here: the connection was lost, or more than ``buffer`` characters of
    them waited for the consumer. Each has one consumer; a client may have several.
    """

    def __init__(self, buffer: int) -> None:
        self._max_size = buffer
        self._buffer: Buffer[Event | Resync] = Buffer()

    def __aiter__(self) -> "Events":
        return self

    async def __anext__(self) -> Event | Resync:
        return await self._buffer.get()

    def told(self, event: Event, size: int) -> None:
        """An event came."""
        if self._buffer and self._buffer.size + size > self._max_size:
            self.miss()
        else:
            self._buffer.put(event, size)

    def miss(self) -> None:
        """One or more are lost here."""
        if not isinstance(self._buffer.last, Resync):
            self._buffer.put(Resync(), 0)

    def end(self, exc: Exception | None) -> None:
        """Nothing more comes."""
        self._buffer.end(exc)


class EventRouter:
    """Hands each event to the subscriptions of its route or, where there are none, to all who listen.

    A `lines.EventRouter` and a `subscriptions.EventRouter`. Who listens and is forgotten is let go.
    """

    def __init__(self) -> None:
        self._routes: dict[str, SharedRoute] = {}
        self.manager: ConnectionManager  # that it hears; set by whoever makes both
        self._listeners: WeakSet[Events] = WeakSet()
        self._was_disconnected = False
        self._end: tuple[ConnectionFailed | None] | None = None

    def listen(self, buffer: int) -> Events:
        """A new listener."""
        listener = Events(buffer)
        self._listeners.add(listener)
        if self._end is not None:
            listener.end(_again(*self._end))
        return listener

    # ------------------------------------------------------------------------------------------------ subscriptions
    def shared_route(self, name: str, backoff: Backoff) -> SharedRoute:
        """The route of that name; a new one where nobody is subscribed to it."""
        if name not in self._routes:
            self._routes[name] = SharedRoute(name, self.manager, self, backoff)
        return self._routes[name]

    def rename(self, route: SharedRoute, name: str) -> SharedRoute:
        """Its events come under another name. Returns the one that has that name already, or the same."""
        self.remove(route)
        route.name = name
        existing = self._routes.setdefault(name, route)
        if existing is not route:
            existing.merge(route)
        return existing

    def remove(self, route: SharedRoute) -> None:
        """It is told nothing any more."""
        if self._routes.get(route.name) is route:
            del self._routes[route.name]

    # ------------------------------------------------------------------------------------------------ the line
    def on_event(self, event: Event, size: int) -> None:
        """Tells those whom it concerns."""
        route = self._routes.get(event.route)
        if route is not None:
            route.deliver(event, size)
        else:
            for listener in tuple(self._listeners):
                listener.told(event, size)

    def on_connected(self, connection: Connection) -> None:
        """Subscribes everybody again; what was pushed meanwhile is lost."""
        for route in tuple(self._routes.values()):
            route.request_pending(connection)
        if self._was_disconnected:
            for listener in tuple(self._listeners):
                listener.miss()

    def on_disconnected(self) -> None:
        """Nothing comes until there is a new connection."""
        self._was_disconnected = True
        for route in tuple(self._routes.values()):
            route.on_disconnected()

    def on_closed(self, failure: ConnectionFailed | None) -> None:
        """Ends everybody's iteration."""
        self._end = (failure,)
        for route in tuple(self._routes.values()):
            route.end(lambda: _again(failure))
        self._routes.clear()
        for listener in tuple(self._listeners):
            listener.end(_again(failure))


def _again(failure: ConnectionFailed | None) -> ConnectionFailed | None:
    return None if failure is None else failure.again()
