"""`Audience`: who of a client hears an event. `Events`: what a server pushes of no subscription."""

from weakref import WeakSet

from wsaction.client.buffers import Buffer
from wsaction.client.errors import ConnectionFailed
from wsaction.client.links import Link
from wsaction.client.messages import Event, Resync
from wsaction.client.subscriptions import Subscription

__all__ = ("Audience", "Events")


class Events:
    """The events of no subscription, from when it was made: an async iterator, which ends when the client is closed.

    A `Resync` among them says that some are lost here: the connection was lost, or more than ``buffer`` characters of
    them waited for the consumer. Each has one consumer; a client may have several.
    """

    def __init__(self, buffer: int) -> None:
        self._most = buffer
        self._buffer: Buffer[Event | Resync] = Buffer()

    def __aiter__(self) -> "Events":
        return self

    async def __anext__(self) -> Event | Resync:
        return await self._buffer.get()

    def told(self, event: Event, size: int) -> None:
        """An event came."""
        if self._buffer and self._buffer.size + size > self._most:
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


class Audience:
    """Hands each event to the subscription of its route or, where there is none, to all who listen.

    A `lines.Hearer` and a `subscriptions.Registry`. Who listens and is forgotten is let go.
    """

    def __init__(self) -> None:
        self._subscriptions: dict[str, Subscription] = {}
        self._listeners: WeakSet[Events] = WeakSet()
        self._was_cut = False
        self._end: tuple[ConnectionFailed | None] | None = None

    def listen(self, buffer: int) -> Events:
        """A new listener."""
        listener = Events(buffer)
        self._listeners.add(listener)
        if self._end is not None:
            listener.end(_again(*self._end))
        return listener

    # ------------------------------------------------------------------------------------------------ subscriptions
    def add(self, subscription: Subscription) -> None:
        """Raises ``ValueError`` where another one has its route."""
        known = self._subscriptions.get(subscription.route)
        if known is not None and not known.is_leaving:
            raise ValueError(f"this client is subscribed to {subscription.route!r} already; share that subscription")
        self._subscriptions[subscription.route] = subscription

    def remove(self, subscription: Subscription) -> None:
        """It is told nothing any more."""
        if self._subscriptions.get(subscription.route) is subscription:
            del self._subscriptions[subscription.route]

    # ------------------------------------------------------------------------------------------------ the line
    def event(self, event: Event, size: int) -> None:
        """Tells those whom it concerns."""
        subscription = self._subscriptions.get(event.route)
        if subscription is not None:
            subscription.told(event, size)
        else:
            for listener in tuple(self._listeners):
                listener.told(event, size)

    def linked(self, link: Link) -> None:
        """Subscribes everybody again; what was pushed meanwhile is lost."""
        for subscription in tuple(self._subscriptions.values()):
            subscription.ask(link)
        if self._was_cut:
            for listener in tuple(self._listeners):
                listener.miss()

    def cut(self) -> None:
        """Nothing comes until there is a new connection."""
        self._was_cut = True
        for subscription in tuple(self._subscriptions.values()):
            subscription.cut()

    def ended(self, failure: ConnectionFailed | None) -> None:
        """Ends everybody's iteration."""
        self._end = (failure,)
        for subscription in tuple(self._subscriptions.values()):
            subscription.end(_again(failure))
        for listener in tuple(self._listeners):
            listener.end(_again(failure))


def _again(failure: ConnectionFailed | None) -> ConnectionFailed | None:
    return None if failure is None else failure.again()
