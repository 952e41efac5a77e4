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
from typing import Any, Protocol

from wsaction._utils.backoff import Backoff
from wsaction.client.errors import ConnectionFailed, ConnectionLost, Overflow
from wsaction.client.messages import Reply, encode_request

__all__ = ("Asker", "Carrier", "Pacer", "Request", "was_not_run")

logger = logging.getLogger("wsaction.client")

MOST_SIZE = 524_288  # characters under way; half of what a server keeps by default, as `Client.max_in_flight` is
MOST_WAITING = 10_000  # requests that wait for their turn, or for a connection
FIRST_WAIT, LONGEST_WAIT = 0.01, 1.0  # seconds before a request that was refused as busy is sent again
QUEUE_BOUNDS = ("max_queued_actions", "max_queued_bytes")  # the server refuses past them before it runs anything


class Asker(Protocol):
    """Who is told of the replies to one request. Neither method waits; they are called by the one who reads."""

    def reply(self, reply: Reply) -> None:
        """A reply came; one with another status than 206 is the last."""

    def lost(self, exc: Exception) -> None:
        """None will come."""


class Request:
    """One request, until it is answered. Without an asker it is a `send`: its success is silent."""

    __slots__ = (
        "action", "asker", "carrier", "is_counted", "is_withdrawn", "number", "request_id", "route", "sent", "text",
    )  # fmt: skip

    def __init__(self, action: str, route: str, keys: Mapping[str, Any], asker: Asker | None) -> None:
        self.action, self.route, self.asker = action, route, asker
        self.text = encode_request(action, route, keys, None)
        self.number: int | None = None  # its turn; None: it does not wait for one
        self.carrier: Carrier | None = None  # the connection that it is under way on
        self.request_id = ""  # on that connection
        self.sent: asyncio.Future[None] | None = None  # of a send: whether it is on its way
        self.is_counted = self.is_withdrawn = False

    @property
    def size(self) -> int:
        """Characters of its message."""
        return len(self.text)

    def with_id(self) -> str:
        """Its message."""
        return f'{self.text[:-1]},"request_id":"{self.request_id}"}}'

    def fail(self, exc: Exception) -> None:
        """It will not be sent."""
        if self.asker is not None:
            self.asker.lost(exc)
        elif self.sent is not None and not self.sent.done():
            self.sent.set_exception(exc)
        else:
            logger.warning("%s was refused as busy and could not be sent again: %s", self, exc)

    def __str__(self) -> str:
        return f"{self.action} {self.route}".strip()


class Carrier(Protocol):
    """What a pacer asks of a connection."""

    def has_room(self, size: int) -> bool:
        """Whether one more request may be under way."""

    def put(self, request: Request) -> None:
        """Sends it."""

    def probe(self) -> None:
        """Asks the server which sends are done."""

    def cancel(self, request: Request) -> None:
        """Has it cancelled, if it is still under way."""


def was_not_run(reply: Reply) -> bool:
    """Whether the server refused the request before anything ran: for lack of room, or since it is being stopped."""
    if reply.status != 503 or not reply.errors:
        return False
    kind, ctx = reply.errors[0].get("type"), reply.errors[0].get("ctx")
    return kind == "shutting_down" or (kind == "busy" and isinstance(ctx, Mapping) and ctx.get("limit") in QUEUE_BOUNDS)


class Pacer:
    """Requests in the order in which they were made, each sent once there is a connection with room for it.

    ``most``: requests under way at once. `submit` raises `Overflow` where `MOST_WAITING` wait already.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"max_in_flight: expected at least 1, got {most}")
        self.most, self.most_size = most, MOST_SIZE
        self._link: Carrier | None = None
        self._queue: list[tuple[int, Request]] = []
        self._numbers = itertools.count()
        self._waiting = 0  # in the queue, and not withdrawn
        self._sends = 0  # that are not known to be done
        self._flushes: set[asyncio.Future[None]] = set()
        self._backoff = Backoff(FIRST_WAIT, LONGEST_WAIT, least=0.0)
        self._pause: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------------------------------------------ asking
    def submit(self, request: Request) -> None:
        """Sends a request in its turn."""
        if self._waiting >= MOST_WAITING:
            raise Overflow(f"{MOST_WAITING} requests wait to be sent; await some of them before asking more")
        request.number = next(self._numbers)
        if request.asker is None:
            self._sends += 1
        self._wait(request)
        self.pump()

    def withdraw(self, request: Request) -> None:
        """Nobody waits for its reply any more."""
        if request.carrier is not None:
            request.carrier.cancel(request)
        elif request.number is not None and not request.is_withdrawn:
            request.is_withdrawn = True
            self._waiting -= 1
            if request.asker is None:
                self.settled(request)
            if len(self._queue) > 2 * self._waiting + 64:
                self._queue = [one for one in self._queue if not one[1].is_withdrawn]
                heapq.heapify(self._queue)

    async def flush(self) -> None:
        """Waits until every send is known to be done; raises `ConnectionLost` if one may not be."""
        if not self._sends:
            return
        done = asyncio.get_running_loop().create_future()
        self._flushes.add(done)
        try:
            if self._link is not None:
                self._link.probe()
            await done
        finally:
            self._flushes.discard(done)

    @property
    def wants_to_know(self) -> bool:
        """Whether somebody waits until sends are done."""
        return bool(self._waiting or self._flushes)

    def _wait(self, request: Request) -> None:
        assert request.number is not None  # noqa: S101  # `submit` gave it one
        request.carrier = None
        self._waiting += 1
        heapq.heappush(self._queue, (request.number, request))

    def pump(self) -> None:
        """Sends what may be sent now."""
        while self._queue and self._link is not None and self._pause is None:
            request = self._queue[0][1]
            if not request.is_withdrawn:
                if not self._link.has_room(request.size):
                    self._link.probe()
                    return
                self._waiting -= 1
            heapq.heappop(self._queue)
            if not request.is_withdrawn:
                self._link.put(request)

    # ------------------------------------------------------------------------------------------------ being told
    def attach(self, link: Carrier) -> None:
        """There is a connection."""
        self._link = link
        self._backoff.reset()
        self.pump()

    def detach(self) -> None:
        """It was lost. What waits goes on waiting."""
        self._link = None

    def end(self, failure: ConnectionFailed) -> None:
        """There will be none any more."""
        self._link = None
        self._resume()
        queue, self._queue, self._waiting = self._queue, [], 0
        for _, request in sorted(queue, key=lambda one: one[0]):
            if not request.is_withdrawn:
                request.is_withdrawn = True
                request.fail(failure.again())
        self._sends = 0
        for flush in self._flushes:
            if not flush.done():
                flush.set_exception(failure.again())

    def refused(self, request: Request, reply: Reply) -> None:
        """The server had no room for a request: it is sent again, in its turn, after a wait; or the server is being
        stopped: it is sent on the next connection."""
        ctx = reply.errors[0].get("ctx") or {}
        if type(value := ctx.get("value")) is int and value > 0:
            if ctx["limit"] == "max_queued_actions":
                self.most = min(self.most, value)
            else:
                self.most_size = min(self.most_size, value)
        self._wait(request)
        if reply.errors[0].get("type") == "shutting_down":
            self._link = None  # it is about to be closed, and would lose what is under way
        elif self._pause is None:
            seconds = self._backoff.seconds()
            self._pause = asyncio.get_running_loop().call_later(seconds, self._resume)

    def answered(self) -> None:
        """The server had room for one."""
        self._backoff.reset()

    def settled(self, request: Request) -> None:
        """A send is done, or was refused by an error."""
        self._sends -= 1
        if not self._sends:
            for flush in self._flushes:
                if not flush.done():
                    flush.set_result(None)

    def lost(self, requests: list[Request], exc: ConnectionLost) -> None:
        """The connection was lost with sends under way, of which nobody knows whether they were carried out."""
        if not requests:
            return
        logger.warning("%d sent without waiting for a reply, %s first: %s", len(requests), requests[0], exc)
        self._sends -= len(requests)
        for flush in self._flushes:
            if not flush.done():
                flush.set_exception(exc.again())

    def _resume(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self.pump()
