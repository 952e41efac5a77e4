"""The action job: what every contestant must do with a frame, and the replies it must send.

There are twenty routes, and the job's route is declared last. The user must be authenticated, the data is validated,
and the reply is the card. Each `frame` and its `expected` reply share a number, so that a cached reply is noticed.
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = (
    "CASES", "CHANX", "DCRF", "JSON", "SOCKET_IO", "Case", "Speech", "Turns", "User", "expected", "frame", "number_of",
    "pause", "scope",
)  # fmt: skip

ROUTE = "boards/7/cards/42/"


class User:
    id = pk = 1
    is_authenticated = True


def fields(number: int) -> dict[str, Any]:
    return {"title": f"Write the report {number:08}", "position": 3, "tags": ["urgent", "backend"]}


def frame(number: int, **changes: Any) -> str:
    """The request with this number; ``changes`` replace some of its keys."""
    body = {"action": "update", "route": ROUTE, "data": fields(number), "request_id": f"{number:08}", **changes}
    return json.dumps(body, separators=(",", ":"))


def expected(number: int) -> dict[str, Any]:
    """The reply to ``frame(number)``."""
    return {
        "errors": [],
        "data": {"id": 42, "board_id": 7, **fields(number)},
        "action": "update",
        "route": ROUTE,
        "status": 200,
        "request_id": f"{number:08}",
    }


def number_of(text: str | bytes) -> int:
    """The number of the frame that a reply answers: ``number_of(json.dumps(expected(7))) == 7``."""
    raw = text.encode() if isinstance(text, str) else text
    match = re.search(rb"Write the report (\d{8})", raw)
    if match is None:
        raise ValueError(f"no reply to the action job: {raw[:500]!r}")
    return int(match[1])


def scope(path: str = "/ws", query: bytes = b"", user: Any = User) -> dict[str, Any]:
    """An ASGI scope as servers create it, with a user as authentication middleware sets it."""
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": [(b"host", b"localhost"), (b"connection", b"Upgrade"), (b"upgrade", b"websocket")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "subprotocols": [],
        "extensions": {},
        "state": {},
        "user": user() if isinstance(user, type) else user,
    }


class Turns:
    """The time that a waiting action waits."""

    taken = 1  # iterations of the event loop


async def pause() -> None:
    """Waits for `Turns.taken` iterations of the event loop; the action of a `waiting_app` awaits it."""
    for _ in range(Turns.taken):
        await asyncio.sleep(0)


# ---------------------------------------------------------------------------------------------------- verification
@dataclass(frozen=True, slots=True)
class Case:
    """A request that a contestant must answer correctly before it is timed."""

    name: str
    status: int
    changes: Mapping[str, Any]
    user: Any = User


CASES = (
    Case("a card is updated", 200, {}),
    Case("bad data", 400, {"data": {**fields(1), "title": ""}}),
    Case("a route without this action", 405, {"route": "boards/7/members/42/"}),
    Case("no such route", 404, {"route": "nowhere/42/"}),
    Case("nobody", 403, {}, None),
)


# ------------------------------------------------------------------------------------------------------- envelopes
@dataclass(frozen=True, slots=True)
class Speech:
    """How a contestant's protocol carries the frames and replies of the job."""

    wrap: Callable[[str, int], str]  # a frame and its number to the contestant's message
    read: Callable[[str], dict[str, Any]]  # the contestant's message to the reply
    path: str = "/ws"
    query: bytes = b""
    hello: tuple[str, ...] = ()  # messages that a client sends first
    greetings: int = 0  # messages that the server sends before the first reply


def _as_it_is(text: str, number: int) -> str:
    return text


def _loads(text: str) -> dict[str, Any]:
    reply: dict[str, Any] = json.loads(text)
    return reply


def _with_response_status(text: str) -> dict[str, Any]:
    reply = _loads(text)
    reply["status"] = reply.pop("response_status")
    return reply


JSON = Speech(_as_it_is, _loads)


def _with_payload(text: str) -> dict[str, Any]:
    message = _loads(text)
    if message["action"] == "error":  # chanx's message for invalid data
        return {"status": 400, "errors": message["payload"], "data": None}
    reply: dict[str, Any] = message["payload"]
    return reply


DCRF = Speech(_as_it_is, _with_response_status)
CHANX = Speech(lambda text, number: f'{{"action":"update","payload":{text}}}', _with_payload)
SOCKET_IO = Speech(  # Engine.IO 4: "40" connects, "42<id>" is an event that wants to be acknowledged, "43<id>" does it
    lambda text, number: f'42{number}["update",{text}]',
    lambda text: json.loads(text[text.index("[") :])[0],
    path="/socket.io/",
    query=b"EIO=4&transport=websocket",
    hello=("40",),
    greetings=2,
)
