"""`Connection`: one open WebSocket of a client, with its requests, until it is lost."""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from wsaction._protocol.close_codes import refuses
from wsaction.client._buffers import HARD_LIMIT_FACTOR, FlowControl, Outbox, StreamBuffer
from wsaction.client._pacing import Pacer, ReplyReceiver, Request, was_not_run
from wsaction.client._websocket import Socket
from wsaction.client.errors import ConnectionLost, Overflow, UnexpectedReply
from wsaction.client.messages import Event, Reply, encode_request, read

logger = logging.getLogger("wsaction.client")

INITIAL_PROBE_DELAY, MAX_PROBE_DELAY = 0.001, 0.25  # seconds between two probes, if somebody waits
IDLE_PROBE_DELAY = 1.0  # seconds until a probe, if nobody waits


class Connection:
    """One connection: writes requests, and passes replies to their receivers and events to ``on_event``, in order.

    `run` does this until the connection is lost. ``mark``: see `StreamBuffer`.

    A send gets no reply if it succeeds, so the client probes whether it has run. While a send is in flight, the server
    refuses any frame with the same ``request_id`` (409). A ``$ping`` with that id probes it without side effects.
    """

    def __init__(self, socket: Socket, on_event: Callable[[Event, int], None], mark: int, pacer: Pacer) -> None:
        self._socket = socket
        self._on_event = on_event
        self._mark = mark
        self._pacer = pacer
        self._requests: dict[str, Request] = {}  # by id, until the final reply
        self._count = 0  # requests that may wait in the server's queue
        self._size = 0  # characters of these requests
        self._sends: dict[str, deque[Request]] = {}  # those not known to be done, by route
        self._unconfirmed = 0  # number of these sends
        self._probes: set[str] = set()  # ids of the sends whose probes are in flight
        self._probe_wait = INITIAL_PROBE_DELAY
        self._probe_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._prefix = f"{secrets.token_hex(4)}-"
        self._number = 0
        self._outbox = Outbox()
        self._flow = FlowControl()
        self._early: list[tuple[Event, int]] = []  # events received before `run`
        self._lost: ConnectionLost | None = None
        self.is_accepted = False  # whether the server has sent anything but a 401
        self.last_sent_at = asyncio.get_running_loop().time()  # the time of the loop

    # ------------------------------------------------------------------------------------------------ lifecycle
    async def run(self) -> ConnectionLost:
        """Reads and writes until the connection is lost. Fails all open requests and returns the error."""
        writing = asyncio.create_task(self._write())
        try:
            early, self._early = self._early, []
            for event, size in early:
                self._on_event(event, size)
            while True:
                self.receive(await self._socket.receive())
                await self._flow.ready()
        except ConnectionLost as exc:
            self.fail(exc)
            return exc
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            self.fail(ConnectionLost(1000, "closed by this client"))

    async def _write(self) -> None:
        while True:
            text = await self._outbox.take()
            self.last_sent_at = asyncio.get_running_loop().time()
            try:
                await self._socket.send(text)
            except ConnectionLost:
                return  # the reader gets the error too, after all messages before it

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Closes the connection in bounded time."""
        self.fail(ConnectionLost(code, "closed by this client"))
        await self._socket.close(code, reason)

    def fail(self, exc: ConnectionLost) -> None:
        """Fails all open requests."""
        if self._lost is not None:
            return
        exc.refused = refuses(exc.code) and not self.is_accepted
        self._lost = exc
        for timer in (self._probe_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        requests, self._requests = self._requests, {}
        sends = [send for sends in self._sends.values() for send in sends if send.turn is not None]
        self._pacer.fail_sends(sends, exc)
        self._sends.clear()
        self._unconfirmed = 0
        for request in requests.values():
            if request.receiver is not None:
                request.receiver.on_lost(exc._copy())

    def abort(self) -> None:
        """Drops the connection at once."""
        self._socket.abort()

    @property
    def is_lost(self) -> bool:
        """Whether no more requests can be sent."""
        return self._lost is not None

    # ------------------------------------------------------------------------------------------------ requests
    def ask(self, action: str, route: str, keys: Mapping[str, Any], receiver: ReplyReceiver) -> Request:
        """Sends a request out of turn: the `Pacer` does not bound it. Raises `ConnectionLost`."""
        if self._lost is not None:
            raise self._lost._copy()
        request = Request(action, route, keys, receiver)
        self.put(request)
        return request

    def has_room(self, size: int) -> bool:
        """Whether another request may be in flight. One that is larger than the limit is sent alone."""
        if self._lost is not None:
            return False
        pacer = self._pacer
        return not self._count or (self._count < pacer.max_in_flight and self._size + size <= pacer.max_size)

    def put(self, request: Request) -> None:
        """Queues a request to be sent, without waiting."""
        self._number += 1
        request.connection = self
        request.request_id = f"{self._prefix}{self._number}"
        self._requests[request.request_id] = request
        self._count += 1
        self._size += request.size
        request.is_counted = True
        if isinstance(request.receiver, PendingReply):
            self._flow.begin_call()
        elif isinstance(request.receiver, StreamItems):
            request.receiver.begin(self._flow)
        self._outbox.put(request.with_id())
        if request.receiver is None:
            self._track_send(request)
            if request.sent is not None and not request.sent.done():
                request.sent.set_result(None)

    def cancel(self, request: Request) -> None:
        """Asks the server to cancel a request, if it is still in flight, and ignores its replies."""
        if self._requests.get(request.request_id) is not request or request.receiver is None:
            return
        self._outbox.put(encode_request("$cancel", "", {"data": request.request_id}, None))
        self._end_wait(request)
        request.receiver = request.turn = None
        if request.is_counted:  # an action with mode="none" never sends a final reply, so probe for its end
            self._track_send(request)

    def ping(self) -> None:
        """Sends ``$ping``; its reply is ignored."""
        self._outbox.put(encode_request("$ping", "", {}, None))

    async def call(self, action: str, route: str, keys: Mapping[str, Any]) -> Reply:
        """Sends a request out of turn and returns its final reply. If the call is cancelled, so is the request."""
        pending = PendingReply()
        request = self.ask(action, route, keys, pending)
        try:
            return await pending.future
        finally:
            self.cancel(request)

    async def open_with(self, action: str, route: str, keys: Mapping[str, Any]) -> Reply:
        """Does what `call` does, before `run`. Events that arrive meanwhile are delivered when `run` begins."""
        pending = PendingReply()
        self.ask(action, route, keys, pending)
        limit = self._mark * HARD_LIMIT_FACTOR
        on_event, self._on_event = self._on_event, lambda event, size: self._early.append((event, size))
        try:
            await self._socket.send(await self._outbox.take())
            while not pending.future.done():
                self.receive(await self._socket.receive())
                if sum(size for _, size in self._early) > limit:
                    raise Overflow(f"over {limit} characters of events arrived before the reply to {action}")
        finally:
            self._on_event = on_event
        return pending.future.result()

    # ------------------------------------------------------------------------------------------------ messages
    def receive(self, text: str | bytes) -> None:
        """Handles a message from the server. One that is not of the protocol is logged."""
        try:
            message = read(text)
            if isinstance(message, Event):
                self.is_accepted = True
                self._on_event(message, len(text))
            else:
                self.is_accepted = self.is_accepted or message.status != 401
                self._receive_reply(message)
        except UnexpectedReply as exc:
            logger.warning("%s", exc)

    def _receive_reply(self, reply: Reply) -> None:
        request_id = reply.request_id
        if isinstance(request_id, str) and request_id.startswith(self._prefix):
            if request_id in self._probes and reply.action == "$ping":
                self._handle_probe_reply(request_id, reply.status)
            elif (request := self._requests.get(request_id)) is not None:
                self._handle_reply(request, reply)
        elif not reply.action.startswith("$") and reply.error is None:  # a broadcast reply to another client
            self._on_event(Event(reply.action, reply.route, reply.data), reply.size)

    def _handle_reply(self, request: Request, reply: Reply) -> None:
        if reply.status != 206:
            del self._requests[request.request_id]
            if request.receiver is None:
                self._untrack_send(request)
            self._end_wait(request)
        self._release(request)
        if request.turn is not None and was_not_run(reply):
            self._pacer.retry(request, reply)
            return
        self._pacer.on_answered()
        if request.receiver is not None:
            request.receiver.on_reply(reply)
        elif request.turn is not None:
            if reply.error is not None:
                logger.warning("no caller waits for this reply: %s", reply.error)
            self._pacer.finish_send(request)
        self._pacer.send_waiting()

    def _release(self, request: Request) -> None:
        if request.is_counted:
            request.is_counted = False
            self._count -= 1
            self._size -= request.size

    def _end_wait(self, request: Request) -> None:
        if isinstance(request.receiver, PendingReply):
            self._flow.end_call()

    # ------------------------------------------------------------------------------------------------ sends
    def _track_send(self, request: Request) -> None:
        self._sends.setdefault(request.route, deque()).append(request)
        self._unconfirmed += 1
        if self._pacer.has_waiters or self._unconfirmed * 2 >= self._pacer.max_in_flight:
            self.probe()
        else:
            self._probe_later()

    def _untrack_send(self, request: Request) -> None:
        sends = self._sends.get(request.route)
        if sends is not None and request in sends:
            sends.remove(request)
            self._unconfirmed -= 1
            if not sends:
                del self._sends[request.route]

    def probe(self) -> None:
        """Probes for each route whether the send in the middle is done.

        The server runs the frames of a route in order, so a success confirms the sends before it as well.
        """
        if self._probes or self._probe_timer is not None or self._lost is not None:
            return
        for sends in self._sends.values():
            request_id = sends[(len(sends) - 1) // 2].request_id
            self._probes.add(request_id)
            self._flow.begin_call()
            self._outbox.put(encode_request("$ping", "", {}, request_id))

    def _handle_probe_reply(self, request_id: str, status: int) -> None:
        self._probes.discard(request_id)
        self._flow.end_call()
        request = self._requests.get(request_id)
        if request is not None and status < 400:
            self._probe_wait = INITIAL_PROBE_DELAY
            self._finish_sends_until(request)
        if not self._probes:
            self._pacer.send_waiting()
            if self._pacer.has_waiters and self._probe_timer is None:
                loop = asyncio.get_running_loop()
                self._probe_timer = loop.call_later(self._probe_wait, self._on_probe_timer)
                self._probe_wait = min(self._probe_wait * 2, MAX_PROBE_DELAY)
            elif self._unconfirmed:
                self._probe_later()

    def _probe_later(self) -> None:
        if self._idle_timer is None:
            self._idle_timer = asyncio.get_running_loop().call_later(IDLE_PROBE_DELAY, self._on_idle_timer)

    def _on_idle_timer(self) -> None:
        self._idle_timer = None
        self.probe()

    def _on_probe_timer(self) -> None:
        self._probe_timer = None
        self.probe()

    def _finish_sends_until(self, last: Request) -> None:
        """Records that the sends of a route are done up to this one."""
        sends = self._sends[last.route]
        while sends:
            request = sends.popleft()
            self._unconfirmed -= 1
            del self._requests[request.request_id]
            self._release(request)
            if request.turn is not None:
                self._pacer.finish_send(request)
            if request is last:
                break
        if not sends:
            del self._sends[last.route]


class PendingReply:
    """A `ReplyReceiver` with a future for the final reply."""

    def __init__(self) -> None:
        self.future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def on_reply(self, reply: Reply) -> None:
        if reply.status == 206:
            name = f"{reply.action} {reply.route}".strip()
            self.on_lost(UnexpectedReply(f"{name} is a stream; iterate over client.stream(...)"))
        elif (error := reply.error) is not None:
            self.on_lost(error)
        elif not self.future.done():
            self.future.set_result(reply)

    def on_lost(self, exc: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(exc)
            self.future.exception()  # mark it as retrieved: the caller may be gone, and asyncio would log it


class StreamItems:
    """A `ReplyReceiver` that buffers the items of a stream."""

    def __init__(self, pacer: Pacer, mark: int) -> None:
        self._pacer = pacer
        self._buffer: StreamBuffer[Any] = StreamBuffer(mark, self._give_up)
        self._has_items = False
        self.request: Request | None = None

    def begin(self, flow: FlowControl) -> None:
        """Binds the stream to the connection on which it begins: ``flow`` can pause its reading."""
        self._buffer.flow = flow

    def on_reply(self, reply: Reply) -> None:
        if reply.status == 206:
            self._has_items = True
            self._buffer.put(reply.data, reply.size)
            return
        if not self._has_items and reply.data is not None:  # the action does not stream: its data is the only item
            self._buffer.put(reply.data, reply.size)
        self._buffer.end(reply.error)

    def on_lost(self, exc: Exception) -> None:
        self._buffer.end(exc)

    async def get(self) -> Any:
        """Waits for the next item. After the last, raises ``StopAsyncIteration`` or the error of the stream."""
        return await self._buffer.get()

    def close(self) -> None:
        """Drops the items and cancels the stream if it is still in flight."""
        self._buffer.end()
        self._buffer.clear()
        self._give_up()

    def _give_up(self) -> None:
        if self.request is not None:
            self._pacer.withdraw(self.request)
