"""`Pacer`: how many requests are under way at once, so that a burst waits here and is not refused by the server.

A server has room for so many requests of one connection, and answers ``busy`` to the next one. The client cannot see
these bounds, so it keeps fewer requests under way than the server's defaults allow, and takes a smaller bound from the
first refusal that names one. A request that was refused for lack of room has not run: it is sent again, in its turn.
"""

import asyncio
import heapq
import itertools
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from wsaction._utils.backoff import Backoff
from wsaction.client.errors import ConnectionFailed, ConnectionLost, Overflow
from wsaction.client.messages import Reply, encode_request

if TYPE_CHECKING:
    from wsaction.client._connection import Connection

__all__ = ("Pacer", "ReplyReceiver", "Request", "was_not_run")

logger = logging.getLogger("wsaction.client")

MAX_SIZE = 524_288  # characters under way; half of what a server keeps by default, as `Client.max_in_flight` is
MAX_WAITING = 10_000  # requests that wait for their turn, or for a connection
INITIAL_WAIT, MAX_WAIT = 0.01, 1.0  # seconds before a request that was refused as busy is sent again
QUEUE_BOUNDS = ("max_queued_actions", "max_queued_bytes")  # the server refuses past them before it runs anything


class ReplyReceiver(Protocol):
    """Who is told of the replies to one request. Neither method waits; they are called by the one who reads."""

    def on_reply(self, reply: Reply) -> None:
        """A reply came; one with another status than 206 is the last."""

    def on_lost(self, exc: Exception) -> None:
        """None will come."""


class Request:
    """One request, until it is answered. Without an asker it is a `send`: its success is silent."""

    __slots__ = (
        "action",
        "connection",
        "is_counted",
        "is_withdrawn",
        "receiver",
        "request_id",
        "route",
        "sent",
        "text",
        "turn",
    )

    def __init__(self, action: str, route: str, keys: Mapping[str, Any], receiver: ReplyReceiver | None) -> None:
        self.action = action
        self.route = route
        self.receiver = receiver
        self.text = encode_request(action, route, keys, None)
        self.turn: int | None = None  # its turn; None: it does not wait for one
        self.connection: Connection | None = None  # the connection that it is under way on
        self.request_id = ""  # on that connection
        self.sent: asyncio.Future[None] | None = None  # of a send: whether it is on its way
        self.is_counted = False
        self.is_withdrawn = False

    @property
    def size(self) -> int:
        """Characters of its message."""
        return len(self.text)

    def with_id(self) -> str:
        """Its message."""
        return f'{self.text[:-1]},"request_id":"{self.request_id}"}}'

    def fail(self, exc: Exception) -> None:
        """It will not be sent."""
        if self.receiver is not None:
            self.receiver.on_lost(exc)
        elif self.sent is not None and not self.sent.done():
            self.sent.set_exception(exc)
        else:
            logger.warning("%s was refused as busy and could not be sent again: %s", self, exc)

    def __str__(self) -> str:
        return f"{self.action} {self.route}".strip()


def was_not_run(reply: Reply) -> bool:
    """Whether the server refused the request before anything ran: for lack of room, or since it is being stopped."""
    if reply.status != 503 or not reply.errors:
        return False
    kind, ctx = reply.errors[0].get("type"), reply.errors[0].get("ctx")
    return kind == "shutting_down" or (kind == "busy" and isinstance(ctx, Mapping) and ctx.get("limit") in QUEUE_BOUNDS)


class Pacer:
    """Requests in the order in which they were made, each sent once there is a connection with room for it.

    ``max_in_flight``: requests under way at once. `submit` raises `Overflow` where `MAX_WAITING` wait already.
    """

    def __init__(self, max_in_flight: int) -> None:
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight: expected at least 1, got {max_in_flight}")
        self.max_in_flight = max_in_flight
        self.max_size = MAX_SIZE
        self._connection: Connection | None = None
        self._queue: list[tuple[int, Request]] = []
        self._turns = itertools.count()
        self._waiting = 0  # in the queue, and not withdrawn
        self._sends = 0  # that are not known to be done
        self._flushes: set[asyncio.Future[None]] = set()
        self._backoff = Backoff(INITIAL_WAIT, MAX_WAIT, least=0.0)
        self._retry_timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------------------------------------------ asking
    def submit(self, request: Request) -> None:
        """Sends a request in its turn."""
        if self._waiting >= MAX_WAITING:
            raise Overflow(f"{MAX_WAITING} requests wait to be sent; await some of them before asking more")
        request.turn = next(self._turns)
        if request.receiver is None:
            self._sends += 1
        self._enqueue(request)
        self.send_waiting()

    def withdraw(self, request: Request) -> None:
        """Nobody waits for its reply any more."""
        if request.connection is not None:
            request.connection.cancel(request)
        elif request.turn is not None and not request.is_withdrawn:
            request.is_withdrawn = True
            self._waiting -= 1
            if request.receiver is None:
                self.finish_send(request)
            if len(self._queue) > 2 * self._waiting + 64:
                self._queue = [(turn, queued) for turn, queued in self._queue if not queued.is_withdrawn]
                heapq.heapify(self._queue)

    async def flush(self) -> None:
        """Waits until every send is known to be done; raises `ConnectionLost` if one may not be."""
        if not self._sends:
            return
        done = asyncio.get_running_loop().create_future()
        self._flushes.add(done)
        try:
            if self._connection is not None:
                self._connection.probe()
            await done
        finally:
            self._flushes.discard(done)

    @property
    def has_waiters(self) -> bool:
        """Whether somebody waits until sends are done."""
        return bool(self._waiting or self._flushes)

    def _enqueue(self, request: Request) -> None:
        assert request.turn is not None  # noqa: S101  # `submit` gave it one
        request.connection = None
        self._waiting += 1
        heapq.heappush(self._queue, (request.turn, request))

    def send_waiting(self) -> None:
        """Sends what may be sent now."""
        while self._queue and self._connection is not None and self._retry_timer is None:
            request = self._queue[0][1]
            if not request.is_withdrawn:
                if not self._connection.has_room(request.size):
                    self._connection.probe()
                    return
                self._waiting -= 1
            heapq.heappop(self._queue)
            if not request.is_withdrawn:
                self._connection.put(request)

    # ------------------------------------------------------------------------------------------------ being told
    def attach(self, connection: "Connection") -> None:
        """There is a connection."""
        self._connection = connection
        self._backoff.reset()
        self.send_waiting()

    def detach(self) -> None:
        """It was lost. What waits goes on waiting."""
        self._connection = None

    def end(self, failure: ConnectionFailed) -> None:
        """There will be none any more."""
        self._connection = None
        self._resume()
        queue, self._queue = self._queue, []
        self._waiting = 0
        for _, request in sorted(queue):
            if not request.is_withdrawn:
                request.is_withdrawn = True
                request.fail(failure.again())
        self._sends = 0
        for flush in self._flushes:
            if not flush.done():
                flush.set_exception(failure.again())

    def retry(self, request: Request, reply: Reply) -> None:
        """The server had no room for a request: it is sent again, in its turn, after a wait; or the server is being
        stopped: it is sent on the next connection."""
        ctx = reply.errors[0].get("ctx") or {}
        if type(value := ctx.get("value")) is int and value > 0:
            if ctx["limit"] == "max_queued_actions":
                self.max_in_flight = min(self.max_in_flight, value)
            else:
                self.max_size = min(self.max_size, value)
        self._enqueue(request)
        if reply.errors[0].get("type") == "shutting_down":
            self._connection = None  # it is about to be closed, and would lose what is under way
        elif self._retry_timer is None:
            seconds = self._backoff.seconds()
            self._retry_timer = asyncio.get_running_loop().call_later(seconds, self._resume)

    def on_answered(self) -> None:
        """The server had room for one."""
        self._backoff.reset()

    def finish_send(self, request: Request) -> None:
        """A send is done, or was refused by an error."""
        self._sends -= 1
        if not self._sends:
            for flush in self._flushes:
                if not flush.done():
                    flush.set_result(None)

    def fail_sends(self, requests: list[Request], exc: ConnectionLost) -> None:
        """The connection was lost with sends under way, of which nobody knows whether they were carried out."""
        if not requests:
            return
        logger.warning("%d sent without waiting for a reply, %s first: %s", len(requests), requests[0], exc)
        self._sends -= len(requests)
        for flush in self._flushes:
            if not flush.done():
                flush.set_exception(exc.again())

    def _resume(self) -> None:
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None
        self.send_waiting()
