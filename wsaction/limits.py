"""Every bound by name, finite by default."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

__all__ = ("Limits", "bound_in")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one app or consumer. Sizes in bytes, times in seconds; each is told by its name when it is reached.

    ``max_frame_bytes``: a larger message closes the socket, 1009, in however many fragments it comes; the protocol of
    `wsaction.server` does not read it. ``max_json_depth``: arrays and objects within each other; ``max_route_length``:
    characters; both are answered 400. ``max_concurrency``: actions of one connection under way at once.
    ``max_queued_actions``, ``max_queued_bytes``: frames of one connection that wait their turn, how many and their
    characters together; one more is answered 503 ``busy``. ``max_subscriptions``: routes that one connection is
    subscribed to; one more is answered 503 ``busy``. ``max_outbox_bytes``: what waits to be sent; beyond it the client
    is a slow consumer and is closed, 1013. ``max_threads``: threads that sync actions run in, for the whole app; one
    that waited for a thread until its timeout is answered 503 ``busy``.
    ``max_auth_failures``: credentials that one connection may have refused in ``$auth`` frames; the last of them closes
    it, 1008.
    ``message_timeout``: a message that is not whole so long after it began closes the socket, 1008, where the protocol
    is that of `wsaction.server`. ``send_timeout``: a message that is on its way for longer closes the socket, 1013.
    ``action_timeout``: an action that runs for longer is cancelled and answered 408; of a stream, the time to its first
    item. ``connect()`` and what else is asked before a handshake is answered has as long. ``auth_timeout``: to
    authenticate in, where that is required. ``idle_timeout``: a socket on which nothing came, went or ran for so long
    is closed, 4408. ``drain_timeout``: what ends is waited for so long, then let go.

    Raises ``ValueError`` for a bound that is not a positive number. ``Limits(max_concurrency=4)`` keeps all the others.
    """

    max_frame_bytes: int = 65_536
    max_json_depth: int = 64
    max_route_length: int = 2_048
    max_concurrency: int = 16
    max_queued_actions: int = 256
    max_queued_bytes: int = 1_048_576
    max_subscriptions: int = 128
    max_outbox_bytes: int = 1_048_576
    max_threads: int = 16
    max_auth_failures: int = 10
    message_timeout: float = 10.0
    send_timeout: float = 10.0
    action_timeout: float = 30.0
    auth_timeout: float = 10.0
    idle_timeout: float = 300.0
    drain_timeout: float = 10.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            types = (int, float) if field.type is float else (int,)
            if isinstance(value, bool) or not isinstance(value, types) or not 0 < value < float("inf"):
                expected = "a number of seconds" if field.type is float else "a whole number"
                raise ValueError(
                    f"Limits.{field.name} must be {expected} above 0, not {value!r}; leave it out for the default"
                )
        if self.max_json_depth > 199:
            raise ValueError(
                f"Limits.max_json_depth is at most 199, what the JSON parser itself goes to, not {self.max_json_depth}"
            )


_NAMES = tuple(field.name for field in fields(Limits))


def bound_in(ctx: Any) -> tuple[str, float] | None:
    """The bound that an error's ``ctx`` tells of, and its value. What else an application's own error has there is
    its own."""
    if not isinstance(ctx, Mapping) or "value" not in ctx or ctx.get("limit") not in _NAMES:
        return None
    return ctx["limit"], ctx["value"]
