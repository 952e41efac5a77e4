"""`Link`: one connection of a client, from the moment that it is open until it is lost."""

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from wsaction.client.buffers import Flow, Outbox, StreamBuffer
from wsaction.client.errors import ConnectionLost, UnexpectedReply
from wsaction.client.messages import Event, Reply, encode_request, read
from wsaction.client.sockets import Socket, says_no

__all__ = ("Asker", "Link")

logger = logging.getLogger("wsaction.client")


class Asker(Protocol):
    """Who is told of the replies to one request. Neither method waits; they are called by the one who reads."""

    def reply(self, reply: Reply) -> None:
        """A reply came; one with another status than 206 is the last."""

    def lost(self, exc: Exception) -> None:
        """None will come."""


class Link:
    """One connection: requests out, each reply to whoever asked, events to ``on_event``; in the order they came.

    `run` does all of it until the connection is lost. ``mark``: see `buffers.StreamBuffer`.
    """

    def __init__(self, socket: Socket, on_event: Callable[[Event, int], None], mark: int) -> None:
        self._socket, self._on_event, self._mark = socket, on_event, mark
        self._askers: dict[str, Asker] = {}
        self._prefix, self._numbers = f"{secrets.token_hex(4)}-", itertools.count(1)
        self._outbox, self._flow = Outbox(), Flow()
        self._lost: ConnectionLost | None = None
        self._heard = False  # whether the server said anything
        self.said_at = asyncio.get_running_loop().time()  # when something was sent last

    # ------------------------------------------------------------------------------------------------ its life
    async def run(self) -> ConnectionLost:
        """Reads and writes until the connection is lost, and says how; whoever waits for a reply is told."""
        writing = asyncio.create_task(self._write())
        try:
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
        exc.refused = says_no(exc.code) and not self._heard
        self._lost = self._lost or exc
        self._outbox.close()
        askers, self._askers = self._askers, {}
        for asker in askers.values():
            asker.lost(exc.again())

    def abort(self) -> None:
        """Drops the connection at once."""
        self._socket.abort()

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._lost is not None

    # ------------------------------------------------------------------------------------------------ asking
    async def room(self) -> None:
        """Waits while too much waits to be sent."""
        await self._outbox.room()

    def ask(self, action: str, route: str, keys: Mapping[str, Any], asker: Asker | None) -> str:
        """Sends a request, without waiting, and returns its ``request_id``. Without an asker, errors are logged."""
        request_id = f"{self._prefix}{next(self._numbers)}"
        text = encode_request(action, route, keys, request_id)
        if self._lost is not None:
            raise self._lost
        if asker is not None:
            self._askers[request_id] = asker
        self._outbox.put(text)
        return request_id

    def cancel(self, request_id: str) -> None:
        """Asks the server to cancel a request whose replies nobody waits for any more, if it is still under way."""
        if self._askers.pop(request_id, None) is not None:
            self._outbox.put(encode_request("$cancel", "", {"data": request_id}, None))

    def ping(self) -> None:
        """Sends the protocol's own ping; the answer is dropped."""
        self._outbox.put(encode_request("$ping", "", {}, None))

    async def call(self, action: str, route: str, keys: Mapping[str, Any]) -> Reply:
        """The final reply. Whoever stops waiting for it has it cancelled."""
        await self.room()
        answer = Answer()
        request_id = self.ask(action, route, keys, answer)
        try:
            with self._waited_for():
                return await answer.future
        finally:
            self.cancel(request_id)

    async def stream(self, action: str, route: str, keys: Mapping[str, Any]) -> "Items":
        """Begins a stream; its `Items` have to be closed."""
        await self.room()
        items = Items(self, self._flow, self._mark)
        items.request_id = self.ask(action, route, keys, items)
        return items

    async def open_with(self, action: str, route: str, keys: Mapping[str, Any]) -> Reply:
        """What `call` does, before `run` has begun."""
        answer = Answer()
        self.ask(action, route, keys, answer)
        await self._socket.send(await self._outbox.take())
        while not answer.future.done():
            self.take(await self._socket.receive())
        return answer.future.result()

    @contextmanager
    def _waited_for(self) -> Iterator[None]:
        self._flow.begin_call()
        try:
            yield
        finally:
            self._flow.end_call()

    # ------------------------------------------------------------------------------------------------ being told
    def take(self, text: str | bytes) -> None:
        """Hands on one message."""
        self._heard = True
        try:
            message = read(text)
            if isinstance(message, Event):
                self._on_event(message, len(text))
            else:
                self._answer(message)
        except UnexpectedReply as exc:
            logger.warning("%s", exc)

    def _answer(self, reply: Reply) -> None:
        request_id = reply.request_id
        if isinstance(request_id, str) and request_id.startswith(self._prefix):
            asker = self._askers.get(request_id) if reply.status == 206 else self._askers.pop(request_id, None)
            if asker is not None:
                asker.reply(reply)
            elif reply.status not in (206, 499) and reply.error is not None:
                logger.warning("nobody waits for this reply: %s", reply.error)
        elif not reply.action.startswith("$") and reply.error is None:  # broadcast to others than who asked
            self._on_event(Event(reply.action, reply.route, reply.data), reply.size)


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

    def __init__(self, link: Link, flow: Flow, mark: int) -> None:
        self._link = link
        self._buffer: StreamBuffer[Any] = StreamBuffer(flow, mark, self._give_up)
        self._has_items = False
        self.request_id = ""

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
        self._link.cancel(self.request_id)
