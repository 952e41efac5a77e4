"""`Pacer`: limits the requests in flight, so that a burst waits in the client and the server does not refuse it.

A server queues a limited number of requests per connection and answers ``busy`` to any more. The client does not know
these limits. It keeps fewer requests in flight than the server's defaults allow, and adopts a lower limit if a refusal
names one. A request that was refused for lack of room has not run; the client sends it again, in its turn.
"""

import asyncio
import heapq
import itertools
import logging
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from wsaction._utils.backoff import Backoff
from wsaction.client.errors import ConnectionFailed, ConnectionLost, Overflow
from wsaction.client.messages import Reply, encode_request

if TYPE_CHECKING:
    from wsaction.client._connection import Connection

logger = logging.getLogger("wsaction.client")

MAX_SIZE = 524_288  # characters in flight; half of the server's default, as `Client.max_in_flight`
MAX_WAITING = 10_000  # requests that wait for their turn or for a connection
INITIAL_WAIT, MAX_WAIT = 0.01, 1.0  # seconds before a refused request is sent again
QUEUE_BOUNDS = ("max_queued_actions", "max_queued_bytes")  # the server checks these before it runs an action


class ReplyReceiver(Protocol):
    """Receives the replies to one request. Both methods must not block: the task that reads calls them."""

    def on_reply(self, reply: Reply) -> None:
        """Handles a reply. One with a status other than 206 is the last."""

    def on_lost(self, exc: Exception) -> None:
        """Handles a failure: there will be no more replies."""


@dataclass(slots=True, eq=False, repr=False)
class Request:
    """One request, until its final reply. Without a receiver it is a `send`, which gets no reply on success."""

    action: str
    route: str
    keys: InitVar[Mapping[str, Any]]
    receiver: ReplyReceiver | None
    text: str = field(init=False)
    turn: int | None = None  # its place in the order; None: sent out of turn
    connection: "Connection | None" = None  # the connection on which it is in flight
    request_id: str = ""  # unique on that connection
    sent: asyncio.Future[None] | None = None  # for a send: done once it is on its way
    is_counted: bool = False  # whether it counts as in flight on its connection
    is_withdrawn: bool = False

    def __post_init__(self, keys: Mapping[str, Any]) -> None:
        self.text = encode_request(self.action, self.route, keys, None)

    @property
    def size(self) -> int:
        """The length of its message in characters, without the id."""
        return len(self.text)

    def with_id(self) -> str:
        """Returns its message, with the id."""
        return f'{self.text[:-1]},"request_id":"{self.request_id}"}}'

    def fail(self, exc: Exception) -> None:
        """Fails the request, which will not be sent (again)."""
        if self.receiver is not None:
            self.receiver.on_lost(exc)
        elif self.sent is not None and not self.sent.done():
            self.sent.set_exception(exc)
        else:
            logger.warning("%s was refused as busy and could not be sent again: %s", self, exc)

    def __str__(self) -> str:
        return f"{self.action} {self.route}".strip()


def was_not_run(reply: Reply) -> bool:
    """Whether the server refused the request before it ran: for lack of room, or because the server is stopping."""
    if reply.status != 503 or not reply.errors:
        return False
    kind, ctx = reply.errors[0].get("type"), reply.errors[0].get("ctx")
    return kind == "shutting_down" or (kind == "busy" and isinstance(ctx, Mapping) and ctx.get("limit") in QUEUE_BOUNDS)


class Pacer:
    """Queues requests and sends them in their order, as soon as a connection has room.

    At most ``max_in_flight`` requests are in flight. If ``max_waiting`` requests wait already, `submit` raises
    `Overflow`.
    """

    def __init__(self, max_in_flight: int, max_waiting: int = MAX_WAITING) -> None:
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight: expected at least 1, got {max_in_flight}")
        self.max_in_flight = max_in_flight
        self.max_size = MAX_SIZE
        self._max_waiting = max_waiting
        self._connection: Connection | None = None
        self._queue: list[tuple[int, Request]] = []
        self._turns = itertools.count()
        self._waiting = 0  # number of requests in the queue, without withdrawn ones
        self._sends = 0  # number of sends not known to be done
        self._flushes: set[asyncio.Future[None]] = set()
        self._backoff = Backoff(INITIAL_WAIT, MAX_WAIT, least=0.0)
        self._retry_timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------------------------------------------ requests
    def submit(self, request: Request) -> None:
        """Queues a request and sends it in its turn. Raises `Overflow`."""
        if self._waiting >= self._max_waiting:
            raise Overflow(f"{self._max_waiting} requests wait to be sent; await some of them before asking more")
        request.turn = next(self._turns)
        if request.receiver is None:
            self._sends += 1
        self._enqueue(request)
        self.send_waiting()

    def withdraw(self, request: Request) -> None:
        """Gives up a request: cancels it on the server if it is in flight, or else does not send it."""
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
        """Waits until all sends are known to be done. Raises `ConnectionLost` if one of them may not have run."""
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
        """Whether requests or flushes wait until sends are done."""
        return bool(self._waiting or self._flushes)

    def _enqueue(self, request: Request) -> None:
        assert request.turn is not None  # noqa: S101  # set by `submit`
        request.connection = None
        self._waiting += 1
        heapq.heappush(self._queue, (request.turn, request))

    def send_waiting(self) -> None:
        """Sends waiting requests while there is room."""
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

    # ------------------------------------------------------------------------------------------------ notifications
    def attach(self, connection: "Connection") -> None:
        """Starts sending on a new connection."""
        self._connection = connection
        self._backoff.reset()
        self.send_waiting()

    def detach(self) -> None:
        """Stops sending after the connection was lost. Waiting requests stay in the queue."""
        self._connection = None

    def end(self, failure: ConnectionFailed) -> None:
        """Fails all waiting requests and flushes: there will be no more connections."""
        self._connection = None
        self._resume()
        queue, self._queue = self._queue, []
        self._waiting = 0
        for _, request in sorted(queue):
            if not request.is_withdrawn:
                request.is_withdrawn = True
                request.fail(failure._copy())
        self._sends = 0
        for flush in self._flushes:
            if not flush.done():
                flush.set_exception(failure._copy())

    def retry(self, request: Request, reply: Reply) -> None:
        """Queues a request again that the server refused without running it.

        If the server had no room, the request is sent after a wait. If the server is stopping, it is sent on the next
        connection.
        """
        ctx = reply.errors[0].get("ctx") or {}
        if type(value := ctx.get("value")) is int and value > 0:
            if ctx["limit"] == "max_queued_actions":
                self.max_in_flight = min(self.max_in_flight, value)
            else:
                self.max_size = min(self.max_size, value)
        self._enqueue(request)
        if reply.errors[0].get("type") == "shutting_down":
            self._connection = None  # it will close soon, and requests in flight would be lost
        elif self._retry_timer is None:
            seconds = self._backoff.seconds()
            self._retry_timer = asyncio.get_running_loop().call_later(seconds, self._resume)

    def on_answered(self) -> None:
        """Resets the back-off: the server had room for a request."""
        self._backoff.reset()

    def finish_send(self, request: Request) -> None:
        """Records that a send has run or has failed."""
        self._sends -= 1
        if not self._sends:
            for flush in self._flushes:
                if not flush.done():
                    flush.set_result(None)

    def fail_sends(self, requests: list[Request], exc: ConnectionLost) -> None:
        """Logs sends that were in flight on a lost connection, and fails the flushes: they may have run or not."""
        if not requests:
            return
        logger.warning("%d sent without waiting for a reply, %s first: %s", len(requests), requests[0], exc)
        self._sends -= len(requests)
        for flush in self._flushes:
            if not flush.done():
                flush.set_exception(exc._copy())

    def _resume(self) -> None:
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None
        self.send_waiting()
