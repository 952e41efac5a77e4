"""`Link`: one connection of a client, from the moment that it is open until it is lost."""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from wsaction._protocol.close_codes import refuses
from wsaction.client._buffers import HARD, Flow, Outbox, StreamBuffer
from wsaction.client._pacing import Asker, Pacer, Request, was_not_run
from wsaction.client._websocket import Socket
from wsaction.client.errors import ConnectionLost, Overflow, UnexpectedReply
from wsaction.client.messages import Event, Reply, encode_request, read

__all__ = ("Answer", "Items", "Link")

logger = logging.getLogger("wsaction.client")

FIRST_PROBE, LONGEST_PROBE = 0.001, 0.25  # seconds between two questions whether a send is done, if somebody waits
IDLE_PROBE = 1.0  # seconds until the question if nobody does


class Link:
    """One connection: requests out, each reply to whoever asked, events to ``on_event``; in the order they came.

    `run` does all of it until the connection is lost. ``mark``: see `buffers.StreamBuffer`.

    A send that succeeds is silent. Its ``request_id`` tells when it is done: as long as the send is under way, the
    server refuses another frame with that id (409), so a ``$ping`` with it asks without changing anything.
    """

    def __init__(self, socket: Socket, on_event: Callable[[Event, int], None], mark: int, pacer: Pacer) -> None:
        self._socket, self._on_event, self._mark, self._pacer = socket, on_event, mark, pacer
        self._requests: dict[str, Request] = {}  # by their ids, until the final reply
        self._count = self._size = 0  # of those that may wait in the server's queue
        self._sends: dict[str, deque[Request]] = {}  # not known to be done, by their routes
        self._silent = 0  # how many these are
        self._probes: set[str] = set()  # ids that the server was asked about
        self._probe_wait = FIRST_PROBE
        self._probe_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._prefix, self._number = f"{secrets.token_hex(4)}-", 0
        self._outbox, self._flow = Outbox(), Flow()
        self._early: list[tuple[Event, int]] = []  # events that came before `run`
        self._lost: ConnectionLost | None = None
        self.is_let_in = False  # whether the server has answered anything but 401
        self.said_at = asyncio.get_running_loop().time()  # when something was sent last

    # ------------------------------------------------------------------------------------------------ its life
    async def run(self) -> ConnectionLost:
        """Reads and writes until the connection is lost, and says how; whoever waits for a reply is told."""
        writing = asyncio.create_task(self._write())
        try:
            early, self._early = self._early, []
            for event, size in early:
                self._on_event(event, size)
            while True:
                self.take(await self._socket.receive())
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
            self.said_at = asyncio.get_running_loop().time()
            try:
                await self._socket.send(text)
            except ConnectionLost:
                return  # whoever reads is told too, once all that came before has been read

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Closes the connection, in bounded time."""
        self.fail(ConnectionLost(code, "closed by this client"))
        await self._socket.close(code, reason)

    def fail(self, exc: ConnectionLost) -> None:
        """Tells all who wait for replies that none will come."""
        if self._lost is not None:
            return
        exc.refused = refuses(exc.code) and not self.is_let_in
        self._lost = exc
        for timer in (self._probe_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        requests, self._requests = self._requests, {}
        self._pacer.lost([one for sends in self._sends.values() for one in sends if one.number is not None], exc)
        self._sends.clear()
        self._silent = 0
        for request in requests.values():
            if request.asker is not None:
                request.asker.lost(exc.again())

    def abort(self) -> None:
        """Drops the connection at once."""
        self._socket.abort()

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._lost is not None

    # ------------------------------------------------------------------------------------------------ asking
    def ask(self, action: str, route: str, keys: Mapping[str, Any], asker: Asker) -> Request:
        """Sends a request out of turn."""
        if self._lost is not None:
            raise self._lost.again()
        request = Request(action, route, keys, asker)
        self.put(request)
        return request

    def has_room(self, size: int) -> bool:
        """Whether one more request may be under way. One that is too large for any window goes alone."""
        if self._lost is not None:
            return False
        pacer = self._pacer
        return not self._count or (self._count < pacer.most and self._size + size <= pacer.most_size)

    def put(self, request: Request) -> None:
        """Sends a request, without waiting."""
        self._number += 1
        request.carrier, request.request_id = self, f"{self._prefix}{self._number}"
        self._requests[request.request_id] = request
        self._count += 1
        self._size += request.size
        request.is_counted = True
        if isinstance(request.asker, Answer):
            self._flow.begin_call()
        elif isinstance(request.asker, Items):
            request.asker.begin(self._flow)
        self._outbox.put(request.with_id())
        if request.asker is None:
            self._await_silence(request)
            if request.sent is not None and not request.sent.done():
                request.sent.set_result(None)

    def cancel(self, request: Request) -> None:
        """Asks the server to cancel a request whose replies nobody waits for any more, if it is still under way."""
        if self._requests.get(request.request_id) is not request or request.asker is None:
            return
        self._outbox.put(encode_request("$cancel", "", {"data": request.request_id}, None))
        self._unwait(request)
        request.asker = request.number = None
        if request.is_counted:  # its final reply may never come: its action may be one that succeeds in silence
            self._await_silence(request)

    def ping(self) -> None:
        """Sends the protocol's own ping; the answer is dropped."""
        self._outbox.put(encode_request("$ping", "", {}, None))

    async def call(self, action: str, route: str, keys: Mapping[str, Any]) -> Reply:
        """The final reply, out of turn. Whoever stops waiting for it has it cancelled."""
        answer = Answer()
        request = self.ask(action, route, keys, answer)
        try:
            return await answer.future
        finally:
            self.cancel(request)

    async def open_with(self, action: str, route: str, keys: Mapping[str, Any]) -> Reply:
        """What `call` does, before `run` has begun. Events that come meanwhile are told once it has."""
        answer = Answer()
        self.ask(action, route, keys, answer)
        on_event, self._on_event = self._on_event, lambda event, size: self._early.append((event, size))
        try:
            await self._socket.send(await self._outbox.take())
            while not answer.future.done():
                self.take(await self._socket.receive())
                if sum(size for _, size in self._early) > self._mark * HARD:
                    raise Overflow(f"over {self._mark * HARD} characters of events came before the answer to {action}")
        finally:
            self._on_event = on_event
        return answer.future.result()

    # ------------------------------------------------------------------------------------------------ being told
    def take(self, text: str | bytes) -> None:
        """Hands on one message."""
        try:
            message = read(text)
            if isinstance(message, Event):
                self.is_let_in = True
                self._on_event(message, len(text))
            else:
                self.is_let_in = self.is_let_in or message.status != 401
                self._answer(message)
        except UnexpectedReply as exc:
            logger.warning("%s", exc)

    def _answer(self, reply: Reply) -> None:
        request_id = reply.request_id
        if isinstance(request_id, str) and request_id.startswith(self._prefix):
            if request_id in self._probes and reply.action == "$ping":
                self._probed(request_id, reply.status)
            elif (request := self._requests.get(request_id)) is not None:
                self._reply(request, reply)
        elif not reply.action.startswith("$") and reply.error is None:  # broadcast to others than who asked
            self._on_event(Event(reply.action, reply.route, reply.data), reply.size)

    def _reply(self, request: Request, reply: Reply) -> None:
        if reply.status != 206:
            del self._requests[request.request_id]
            if request.asker is None:
                self._forget_send(request)
            self._unwait(request)
        self._uncount(request)
        if request.number is not None and was_not_run(reply):
            self._pacer.refused(request, reply)
            return
        self._pacer.answered()
        if request.asker is not None:
            request.asker.reply(reply)
        elif request.number is not None:
            if reply.error is not None:
                logger.warning("nobody waits for this reply: %s", reply.error)
            self._pacer.settled(request)
        self._pacer.pump()

    def _uncount(self, request: Request) -> None:
        if request.is_counted:
            request.is_counted = False
            self._count -= 1
            self._size -= request.size

    def _unwait(self, request: Request) -> None:
        if isinstance(request.asker, Answer):
            self._flow.end_call()

    # ------------------------------------------------------------------------------------------------ silent success
    def _await_silence(self, request: Request) -> None:
        self._sends.setdefault(request.route, deque()).append(request)
        self._silent += 1
        if self._pacer.wants_to_know or self._silent * 2 >= self._pacer.most:
            self.probe()
        else:
            self._probe_later()

    def _forget_send(self, request: Request) -> None:
        sends = self._sends.get(request.route)
        if sends is not None and request in sends:
            sends.remove(request)
            self._silent -= 1
            if not sends:
                del self._sends[request.route]

    def probe(self) -> None:
        """Asks the server which sends are done, of each route that in the middle: its frames run in order."""
        if self._probes or self._probe_timer is not None or self._lost is not None:
            return
        for sends in self._sends.values():
            request_id = sends[(len(sends) - 1) // 2].request_id
            self._probes.add(request_id)
            self._flow.begin_call()
            self._outbox.put(encode_request("$ping", "", {}, request_id))

    def _probed(self, request_id: str, status: int) -> None:
        self._probes.discard(request_id)
        self._flow.end_call()
        request = self._requests.get(request_id)
        if request is not None and status < 400:
            self._probe_wait = FIRST_PROBE
            self._settle_until(request)
        if not self._probes:
            self._pacer.pump()
            if self._pacer.wants_to_know and self._probe_timer is None:
                loop = asyncio.get_running_loop()
                self._probe_timer = loop.call_later(self._probe_wait, self._probe_again)
                self._probe_wait = min(self._probe_wait * 2, LONGEST_PROBE)
            elif self._silent:
                self._probe_later()

    def _probe_later(self) -> None:
        if self._idle_timer is None:
            self._idle_timer = asyncio.get_running_loop().call_later(IDLE_PROBE, self._probe_idly)

    def _probe_idly(self) -> None:
        self._idle_timer = None
        self.probe()

    def _probe_again(self) -> None:
        self._probe_timer = None
        self.probe()

    def _settle_until(self, last: Request) -> None:
        """Sends of a route are done up to this one."""
        sends = self._sends[last.route]
        while sends:
            request = sends.popleft()
            self._silent -= 1
            del self._requests[request.request_id]
            self._uncount(request)
            if request.number is not None:
                self._pacer.settled(request)
            if request is last:
                break
        if not sends:
            del self._sends[last.route]


class Answer:
    """An `Asker` that waits for the final reply."""

    def __init__(self) -> None:
        self.future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def reply(self, reply: Reply) -> None:
        if reply.status == 206:
            told = f"{reply.action} {reply.route}".strip()
            self.lost(UnexpectedReply(f"{told} is a stream; iterate over client.stream(...)"))
        elif (error := reply.error) is not None:
            self.lost(error)
        elif not self.future.done():
            self.future.set_result(reply)

    def lost(self, exc: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(exc)
            self.future.exception()  # who waited may have gone: that is no news for the log


class Items:
    """An `Asker` that keeps a stream's items until they are taken."""

    def __init__(self, pacer: Pacer, mark: int) -> None:
        self._pacer = pacer
        self._buffer: StreamBuffer[Any] = StreamBuffer(mark, self._give_up)
        self._has_items = False
        self.request: Request | None = None

    def begin(self, flow: Flow) -> None:
        """It was asked for on a connection; past its mark, reading there pauses."""
        self._buffer.flow = flow

    def reply(self, reply: Reply) -> None:
        if reply.status == 206:
            self._has_items = True
            self._buffer.put(reply.data, reply.size)
            return
        if not self._has_items and reply.data is not None:  # an action that is no stream: its data is the one item
            self._buffer.put(reply.data, reply.size)
        self._buffer.end(reply.error)

    def lost(self, exc: Exception) -> None:
        self._buffer.end(exc)

    async def get(self) -> Any:
        """The next item; raises ``StopAsyncIteration`` or the stream's error after the last."""
        return await self._buffer.get()

    def close(self) -> None:
        """Nobody takes items any more: cancels the stream, if it is still under way."""
        self._buffer.end()
        self._buffer.clear()
        self._give_up()

    def _give_up(self) -> None:
        if self.request is not None:
            self._pacer.withdraw(self.request)
