"""What a layer is: it carries bodies between processes, and keeps the history of each topic.

A layer knows no client and no route. A *topic* is a string; a *body* is bytes that the layer need not understand, never
empty. Where a topic keeps history, every publication has a *position*: an offset, which counts up by one, in an epoch.
Within one epoch there is one past, so two positions of it can be compared; a new epoch says that something of the past
may be gone.
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

META_TTL = 3_600.0  # seconds that a topic's position outlives its last subscriber, if its history does not for longer
UNUSED_TTL = 60.0  # seconds, several CHECK_INTERVALs, that a topic which never had an event is remembered at least
MAX_TTL = 86_400.0  # seconds that a history may be kept for
MAX_TOPIC_BYTES = 1_048_576  # of a topic's history; no client is sent more than half an outbox of it at once
MAX_OFFSET = 2**53  # what JavaScript and Lua count to


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the history of a topic: after the publication with this offset. ``Position("k3Jx", 7)``."""

    epoch: str
    offset: int

    @property
    def is_sane(self) -> bool:
        """Whether a layer can have given it out; what a client says it had may be anything."""
        return 0 <= self.offset < MAX_OFFSET and 0 < len(self.epoch) <= 64 and self.epoch.isascii()


@dataclass(frozen=True, slots=True)
class History:
    """How much of a topic's past is kept: the newest ``size`` events, until ``ttl`` seconds after the last.

    A layer also bounds the bytes of each topic and of all. It keeps events only while somebody is subscribed, and for
    ``ttl`` seconds (at least a minute) after the last subscriber has left; ``always``: whether anybody is or not.

    Raises ``ImproperlyConfigured`` for what cannot be kept. ``History(100, 300)`` is a hundred events for five minutes.
    """

    size: int = 100
    ttl: float = 300.0
    always: bool = False

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 0 < self.size <= 1_000_000:
            raise ImproperlyConfigured(
                f"a history's size is 1 to 1,000,000 events, not {self.size!r}; without history it is None"
            )
        if type(self.ttl) not in (int, float) or not 0.001 <= self.ttl <= MAX_TTL:
            raise ImproperlyConfigured(f"a history's ttl is 0.001 to {MAX_TTL:.0f} seconds, not {self.ttl!r}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where somebody may be: a topic, the route that its events are told under, and its history."""

    topic: str
    route: str
    history: History | None


@dataclass(frozen=True, slots=True)
class Page:
    """What was published after a position.

    ``position`` is where the topic stands. ``events``, (offset, body) each, are all that came after the position asked
    for, in order; None says that they cannot be had, and never are there some of them. Up to offset ``shared`` the past
    of the epoch asked for is also that of ``position.epoch``.
    """

    position: Position
    events: Sequence[tuple[int, bytes]] | None
    shared: int = 0


class Sink(Protocol):
    """Whom a layer tells what arrives: on the event loop, in order, never awaited. None of them raises."""

    def message(self, topic: str, epoch: str, offset: int, body: bytes) -> None:
        """Something was published; ``("", 0)`` where it is of no history. An empty body says that the past was cut off,
        or, without history, that something was lost."""

    def subscribed(self, topic: str) -> None:
        """From here on all that is published to the topic arrives. Told after every connection and reconnection."""

    def lost(self) -> None:
        """Nothing arrives, of any topic, until it is told as subscribed again."""


class Layer(Protocol):
    """What carries events. ``wsaction.testing.layers`` has the tests that each must pass.

    All but `open` raise nothing but ``LayerUnavailable``, which says whether the request may have been carried out.
    """

    async def open(self, sink: Sink) -> None:
        """Begins to tell ``sink``, on the running event loop. A server that is away is no error: it is looked for.

        Raises ``ImproperlyConfigured`` for what waiting does not cure, ``RuntimeError`` when it is open already.
        """

    async def close(self) -> None:
        """Ends everything that `open` began; nothing of it runs on. It may be opened again."""

    def subscribe(self, topic: str) -> None:
        """Wishes to be told what is published to the topic; never waits. Answered by ``sink.subscribed``, each time."""

    def unsubscribe(self, topic: str) -> None:
        """Takes the wish back; never waits."""

    async def publish(self, topic: str, body: bytes, history: History | None) -> Position | None:
        """Tells all who are subscribed, everywhere, and keeps it as `History` says; returns its position, None without
        history or where nobody has asked for the topic's."""

    async def read(self, topic: str, since: Position | None, limit: int, history: History, own: bool = False) -> Page:
        """Where the topic stands, and what came after ``since``: whole, at most ``limit`` events, or none.

        ``own`` says that who asks had all up to ``since`` from this layer: where the layer does not know of it any
        more, it has lost what it had acknowledged, and everybody is told by a new epoch.
        """

    async def invalidate(self, topic: str, history: History | None) -> None:
        """Cuts the past off: a new epoch begins, and who is subscribed finds that it may have missed something."""


class Roster(Protocol):
    """Who is where: a layer that knows has one as its ``roster``, while it is open."""

    def change(self, place: Place, user: str, by: int) -> None:
        """So many connections of the user more, or less, in this process; never waits. A user's first one anywhere is
        told to the topic as ``join``, the end of the last one as ``leave``, with ``{"user": user}`` as data."""

    async def who(self, topic: str) -> dict[str, int]:
        """Users and their connections, in all processes. Raises ``LayerUnavailable``."""


def new_epoch() -> str:
    """A name for an epoch that nobody has had before."""
    return secrets.token_urlsafe(6)


def check_bytes(owner: str, **bounds: int) -> None:
    """Raises ``ImproperlyConfigured`` for a bound in bytes that is no whole number above 0."""
    for name, value in bounds.items():
        if type(value) is not int or value <= 0:
            raise ImproperlyConfigured(f"{owner}'s {name} is a whole number of bytes above 0, not {value!r}")
