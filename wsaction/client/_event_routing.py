"""`EventRouter`: delivers the events of a client. `Events`: an iterator over the events of no subscription."""

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from wsaction._utils.backoff import Backoff
from wsaction.client._buffers import Buffer
from wsaction.client._connection import Connection
from wsaction.client._subscriptions import SharedRoute
from wsaction.client.errors import ConnectionFailed
from wsaction.client.messages import Event, Resync

if TYPE_CHECKING:
    from wsaction.client._reconnect import ConnectionManager


class Events:
    """Async iterator over the events of no subscription, such as pushes. It ends when the client is closed.

    A `Resync` among them means that events were lost here: the connection was lost, or more than ``buffer`` characters
    waited for the consumer. Each iterator has one consumer; a client may have several iterators.
    """

    def __init__(self, buffer: int) -> None:
        self._max_size = buffer
        self._buffer: Buffer[Event[Any] | Resync[None]] = Buffer()

    def __aiter__(self) -> "Events":
        return self

    async def __anext__(self) -> Event[Any] | Resync[None]:
        return await self._buffer.get()

    def _on_event(self, event: Event, size: int) -> None:
        """Delivers an event."""
        if self._buffer and self._buffer.size + size > self._max_size:
            self._on_loss()
        else:
            self._buffer.put(event, size)

    def _on_loss(self) -> None:
        """Records that events were lost here."""
        if not isinstance(self._buffer.last, Resync):
            self._buffer.put(Resync(), 0)

    def _end(self, exc: Exception | None) -> None:
        """Ends the iteration, with ``exc`` if given."""
        self._buffer.end(exc)


class EventRouter:
    """Delivers each event to the subscriptions of its route or, without any, to all `Events` iterators.

    References to the iterators are weak, so one that the application dropped receives nothing more.
    """

    def __init__(self) -> None:
        self._routes: dict[str, SharedRoute] = {}
        self.manager: ConnectionManager  # set by the client, which creates both
        self._listeners: WeakSet[Events] = WeakSet()
        self._was_disconnected = False
        self._end: tuple[ConnectionFailed | None] | None = None

    def listen(self, buffer: int) -> Events:
        """Returns a new iterator over the events of no subscription."""
        listener = Events(buffer)
        self._listeners.add(listener)
        if self._end is not None:
            listener._end(_copy_of(*self._end))
        return listener

    # ------------------------------------------------------------------------------------------------ subscriptions
    def shared_route(self, name: str, backoff: Backoff) -> SharedRoute:
        """Returns the route of that name; creates it if it has no subscriptions."""
        if name not in self._routes:
            self._routes[name] = SharedRoute(name, self.manager, self, backoff)
        return self._routes[name]

    def rename(self, route: SharedRoute, name: str) -> SharedRoute:
        """Renames a route to the name in its events. If that name has a route, merges into it. Returns the result."""
        self.remove(route)
        route.name = name
        existing = self._routes.setdefault(name, route)
        if existing is not route:
            existing.merge(route)
        return existing

    def remove(self, route: SharedRoute) -> None:
        """Stops the delivery of events to a route."""
        if self._routes.get(route.name) is route:
            del self._routes[route.name]

    # ------------------------------------------------------------------------------------------------ the connection
    def on_event(self, event: Event, size: int) -> None:
        """Delivers an event, from a message of ``size`` characters."""
        route = self._routes.get(event.route)
        if route is not None:
            route.deliver(event, size)
        else:
            for listener in tuple(self._listeners):
                listener._on_event(event, size)

    def on_connected(self, connection: Connection) -> None:
        """Subscribes all routes again. Events without a subscription may have been lost since the disconnect."""
        for route in tuple(self._routes.values()):
            route.request_pending(connection)
        if self._was_disconnected:
            for listener in tuple(self._listeners):
                listener._on_loss()

    def on_disconnected(self) -> None:
        """Marks all subscriptions as pending until the next connection."""
        self._was_disconnected = True
        for route in tuple(self._routes.values()):
            route.on_disconnected()

    def on_closed(self, failure: ConnectionFailed | None) -> None:
        """Ends all subscriptions and iterators: with ``failure``, or normally if the application closed the client."""
        self._end = (failure,)
        for route in tuple(self._routes.values()):
            route.end(lambda: _copy_of(failure))
        self._routes.clear()
        for listener in tuple(self._listeners):
            listener._end(_copy_of(failure))


def _copy_of(failure: ConnectionFailed | None) -> ConnectionFailed | None:
    return None if failure is None else failure._copy()
