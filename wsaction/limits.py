"""Limits: sizes, counts and timeouts of an app or a consumer, all finite by default.

To add one, declare and describe it in `Limits`; where it is reached, tell the app with ``on_limit``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from wsaction._utils.hints import did_you_mean

__all__ = ("Limits", "limit_in")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one app or consumer: ``Limits(max_concurrency=4)`` changes one and keeps the other defaults.

    Sizes are in bytes, times in seconds. `wsaction.hooks.Hooks.on_limit` receives the name of a limit that is reached.

    * ``max_frame_bytes``: size of an incoming message, over all its fragments. A larger one closes the connection with
      1009; the protocol of `wsaction.server` does so before it has read the message.
    * ``max_json_depth``: arrays and objects nested in each other. A deeper frame gets a 400.
    * ``max_route_length``: characters of a route. A longer one gets a 400.
    * ``max_concurrency``: actions of one connection that run at the same time. Others are queued.
    * ``max_queued_actions``, ``max_queued_bytes``: queued frames of one connection, and their characters in total.
      One more gets a 503 ``busy``.
    * ``max_subscriptions``: routes that one connection is subscribed to. One more gets a 503 ``busy``.
    * ``max_outbox_bytes``: data that waits to be sent to a client. A slower client is disconnected with 1013.
    * ``max_threads``: threads for sync actions, for the whole app. An action that gets none before its timeout is
      answered with a 503 ``busy``.
    * ``max_auth_failures``: refused credentials in the ``$auth`` frames of one connection. The last one closes it with
      1008.
    * ``message_timeout``: time for one message to arrive, with the protocol of `wsaction.server`. Then the connection
      closes with 1008.
    * ``send_timeout``: time for one message to be sent. Then the connection closes with 1013.
    * ``action_timeout``: time for an action, or for the first item of a stream. Then it is cancelled and gets a 408.
      All work before the response to the handshake, ``connect()`` included, has the same time in total.
    * ``auth_timeout``: time for a client to authenticate, where ``$auth`` is required.
    * ``idle_timeout``: time without a message in either direction and without a running action. Then the connection
      closes with 4408.
    * ``drain_timeout``: time for connections and actions to end. Then the server stops waiting for them.

    Raises ``ValueError`` for a limit that is not a positive number, ``TypeError`` for a name that is no limit.
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

    def __new__(cls, **limits: float) -> "Limits":
        for name in limits.keys() - {field.name for field in fields(cls)}:
            known = [field.name for field in fields(cls)]
            raise TypeError(f"Limits() has no limit {name!r}; {did_you_mean(name, known, 'it has')}")
        return object.__new__(cls)  # `slots` makes a second class, which super() does not know

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
                f"Limits.max_json_depth is at most 199, the limit of the JSON parser itself, not {self.max_json_depth}"
            )


_NAMES = tuple(field.name for field in fields(Limits))


def limit_in(ctx: Any) -> tuple[str, float] | None:
    """The name and value of the limit in an error's ``ctx``; None for any other ``ctx``, such as an application's."""
    if not isinstance(ctx, Mapping) or "value" not in ctx or ctx.get("limit") not in _NAMES:
        return None
    return ctx["limit"], ctx["value"]
