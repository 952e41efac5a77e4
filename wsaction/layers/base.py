"""The protocol of a layer, which carries events between processes and keeps the history of each topic.

A layer knows no clients and no routes. A *topic* is a string. A *body* is bytes, never empty, that the layer need not
understand. If a topic keeps history, every publication has a *position*: an offset, which counts up by one, within an
epoch. All positions of an epoch belong to the same past, so they can be compared. A new epoch means that part of the
past may be lost.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from wsaction.routing.exceptions import ImproperlyConfigured

__all__ = (
    "MAX_OFFSET",
    "MAX_TOPIC_BYTES",
    "MAX_TTL",
    "META_TTL",
    "UNUSED_TTL",
    "History",
    "Layer",
    "Page",
    "Place",
    "Position",
    "Roster",
    "Sink",
    "check_bytes",
    "new_epoch",
)

META_TTL = 3_600.0  # seconds that a topic's position is kept after its last subscriber, or longer if its history is
UNUSED_TTL = 60.0  # the fewest seconds that a topic without events is remembered: several CHECK_INTERVALs
MAX_TTL = 86_400.0  # the longest ttl of a history, in seconds
MAX_TOPIC_BYTES = 1_048_576  # of a topic's history; a client gets at most half an outbox of it at once
MAX_OFFSET = 2**53  # the largest integers that JavaScript and Lua count exactly


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the history of a topic: after the publication with this offset. ``Position("k3Jx", 7)``."""

    epoch: str
    offset: int

    @property
    def is_sane(self) -> bool:
        """Whether a layer can have issued this position. A position from a client may be anything."""
        return 0 <= self.offset < MAX_OFFSET and 0 < len(self.epoch) <= 64 and self.epoch.isascii()


@dataclass(frozen=True, slots=True)
class History:
    """How much of a topic's history a layer keeps: the newest ``size`` events, until ``ttl`` seconds after the last.

    A layer keeps events only while a topic has subscribers, and for ``ttl`` seconds, at least a minute, after the last
    one has left. With ``always=True`` it keeps them without subscribers too. Layers also bound the bytes of each topic
    and of all topics.

    Raises ``ImproperlyConfigured`` if ``size`` is not 1 to 1,000,000 or ``ttl`` is not 0.001 to 86,400 seconds.
    ``History(100, 300)`` keeps a hundred events for five minutes.
    """

    size: int = 100
    ttl: float = 300.0
    always: bool = False

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 0 < self.size <= 1_000_000:
            raise ImproperlyConfigured(
                f"a history's size is 1 to 1,000,000 events, not {self.size!r}; for no history, use None instead"
            )
        if type(self.ttl) not in (int, float) or not 0.001 <= self.ttl <= MAX_TTL:
            raise ImproperlyConfigured(f"a history's ttl is 0.001 to {MAX_TTL:.0f} seconds, not {self.ttl!r}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a user can be present: a topic, the route of its presence events, and its history."""

    topic: str
    route: str
    history: History | None


@dataclass(frozen=True, slots=True)
class Page:
    """The events published after a position.

    ``position`` is the current position of the topic. ``events`` holds every event after the requested position, in
    order, as ``(offset, body)``; it is None if they cannot all be had, never a part of them. Up to the offset
    ``shared``, the requested epoch and ``position.epoch`` have the same past.
    """

    position: Position
    events: Sequence[tuple[int, bytes]] | None
    shared: int = 0


class Sink(Protocol):
    """Receives events from a layer.

    The layer calls these methods on the event loop, in order, and does not await them. They must not raise.
    """

    def message(self, topic: str, epoch: str, offset: int, body: bytes) -> None:
        """An event was published. Without history, ``epoch`` is ``""`` and ``offset`` 0.

        An empty body means that the past was cut off or, without history, that something was lost.
        """

    def subscribed(self, topic: str) -> None:
        """From now on every event of the topic arrives. Called after every connection and reconnection."""

    def lost(self) -> None:
        """No events arrive, of any topic, until `subscribed` is called for it again."""


class Layer(Protocol):
    """Carries events between processes. ``wsaction.testing.layers`` has the tests that every layer must pass.

    Methods other than `open` raise only ``LayerUnavailable``, which says whether the request may have been carried out.
    """

    async def open(self, sink: Sink) -> None:
        """Starts to deliver to ``sink``, on the running event loop.

        If the layer's server is unavailable, the layer keeps trying to connect. Raises ``ImproperlyConfigured`` for a
        problem that waiting does not solve, and ``RuntimeError`` if the layer is open already.
        """

    async def close(self) -> None:
        """Ends everything that `open` started. The layer may be opened again."""

    def subscribe(self, topic: str) -> None:
        """Subscribes to a topic without waiting. The layer calls ``sink.subscribed`` once it delivers, each time."""

    def unsubscribe(self, topic: str) -> None:
        """Ends the subscription to a topic without waiting."""

    async def publish(self, topic: str, body: bytes, history: History | None) -> Position | None:
        """Delivers a body to the subscribers in all processes, and keeps it as ``history`` says.

        Returns its position; None without history, or if nobody has asked for the topic's position.
        """

    async def read(self, topic: str, since: Position | None, limit: int, history: History, own: bool = False) -> Page:
        """The position of a topic, and all events after ``since`` if they are at most ``limit``.

        ``own`` means that the caller got everything up to ``since`` from this layer. If the layer no longer knows that
        position, it has lost acknowledged events, and announces that to all subscribers by a new epoch.
        """

    async def invalidate(self, topic: str, history: History | None) -> None:
        """Discards the history and begins a new epoch, so that all subscribers learn that they may miss events."""


class Roster(Protocol):
    """Counts the connections of users in topics. A layer with presence has one as its ``roster`` while it is open."""

    def change(self, place: Place, user: str, by: int) -> None:
        """Adds ``by`` (which may be negative) to the user's connections in this process, without waiting.

        The user's first connection in any process publishes ``join`` to the topic, the end of the last one ``leave``,
        with the data ``{"user": user}``.
        """

    async def who(self, topic: str) -> dict[str, int]:
        """The users in a topic, with their connections in all processes. Raises ``LayerUnavailable``."""


def new_epoch() -> str:
    """A new, random name for an epoch."""
    return secrets.token_urlsafe(6)


def check_bytes(owner: str, **bounds: int) -> None:
    """Raises ``ImproperlyConfigured`` if a bound in bytes is not an integer above 0."""
    for name, value in bounds.items():
        if type(value) is not int or value <= 0:
            raise ImproperlyConfigured(f"{owner}'s {name} is a whole number of bytes above 0, not {value!r}")
