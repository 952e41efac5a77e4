"""asyncio client of wsaction: calls, streams, subscriptions that survive reconnects, and typed errors.

>>> async with connect("ws://127.0.0.1:8000/ws/") as client:
...     card = await client.call("retrieve", "cards/1/", returns=Card)
...     async for line in client.stream("tail", "logs/7/"):
...         print(line)
...     async with client.subscribe("boards/7/", snapshot=True) as board:
...         async for item in board:
...             ...  # an Event, or a Resync if events were lost

Install it with ``pip install 'wsaction[client]'``. It does not load the server.
"""

from wsaction.client._client import Client, connect
from wsaction.client._event_routing import Events
from wsaction.client._reconnect import State
from wsaction.client._subscriptions import Subscription, SubscriptionState
from wsaction.client.errors import (
    ActionError,
    ActionNotAllowed,
    ActionTimeout,
    CallTimeout,
    Cancelled,
    ClientError,
    Conflict,
    ConnectionFailed,
    ConnectionLost,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    Overflow,
    PermissionDenied,
    RouteNotFound,
    ServerError,
    Throttled,
    Unavailable,
    UnexpectedReply,
)
from wsaction.client.messages import Event, Position, Resync

__all__ = (
    "ActionError",
    "ActionNotAllowed",
    "ActionTimeout",
    "CallTimeout",
    "Cancelled",
    "Client",
    "ClientError",
    "Conflict",
    "ConnectionFailed",
    "ConnectionLost",
    "Event",
    "Events",
    "InvalidRequest",
    "NotAuthenticated",
    "NotFound",
    "Overflow",
    "PermissionDenied",
    "Position",
    "Resync",
    "RouteNotFound",
    "ServerError",
    "State",
    "Subscription",
    "SubscriptionState",
    "Throttled",
    "Unavailable",
    "UnexpectedReply",
    "connect",
)
