"""uvicorn's WebSocket protocol with fair scheduling and bounded memory; `wsaction.server` uses it.

`wsaction.limits.Limits` applies to whole messages. Below that, uvicorn has four weaknesses that this protocol removes:

- It parses all that one read returned, up to 256 KiB. Thousands of small frames block the event loop, and so all other
  clients, for tens of milliseconds.
- It writes pongs into a buffer without a bound.
- It keeps each fragment of a message as an object of its own.
- It lets a client that has stopped reading keep its socket.

This module finds the end of each frame by its header, and unmasks and joins text, bytes and their fragments itself. All
other frames, and all frames of a connection with compression, go to the parser of `websockets`, one complete frame at a
time. That parser interprets them and reports protocol errors.

The class relies on internals of uvicorn 0.52 to 0.54. The tests show whether another version still has them.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from wsaction._protocol.close_codes import (
    INVALID_TEXT,
    MESSAGE_TOO_BIG,
    NO_CLOSE_FRAME,
    POLICY_VIOLATION,
    PROTOCOL_ERROR,
)
from wsaction._protocol.scope import SOCKET_EXTENSION
from wsaction.limits import Limits

try:
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
    from websockets.frames import Opcode
    from websockets.protocol import State
except ImportError as exc:
    raise ImportError("wsaction.server needs uvicorn and websockets: pip install 'wsaction[standard]'") from exc

try:
    from websockets.speedups import apply_mask
except ImportError:  # websockets was built without its C extension
    from websockets.utils import apply_mask

if TYPE_CHECKING:
    from wsaction._connection.connection import Connection

# Cost of parsing: 8 for a final frame, 1 for any other fragment, and 1 for each 128 bytes of payload.
SHARE = 64  # cost that one connection may cause before other connections have their turn
SHARED_BUDGET = 256  # cost of all connections within their share, per iteration of the event loop

NO_HANDSHAKE = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
    b"Content-Length: 55\r\n\r\nA WebSocket handshake is a GET request without a body.\n"
)
LINGER = 1.0  # seconds that a client has to read the close frame after a protocol error
MAX_DISCARDED = 1_048_576  # bytes that it may send meanwhile before the socket is aborted
DEFAULT_MAX_SIZE = Limits().max_frame_bytes  # bytes of a message if neither the server nor the app sets a limit


class Turns:
    """Schedules parsing among the connections of one event loop.

    A connection within its ``SHARE`` is parsed as soon as data arrives. When these connections have used up the
    ``SHARED_BUDGET`` of an iteration of the loop, the rest are parsed first in the next one. A connection that sends
    more waits in a queue, of which one connection has a turn per iteration. So forty floods delay the others no longer
    than one flood does.
    """

    __slots__ = ("_budget", "_is_scheduled", "_loop", "_postponed", "_queue")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_scheduled = False  # whether a call of `_run_iteration` is pending
        self._budget = SHARED_BUDGET  # cost that is left for this iteration
        self._postponed: deque[FairProtocol] = deque()  # within their share; parsed in the next iteration
        self._queue: deque[FairProtocol] = deque()  # over their share; one turn per iteration

    def run_now(self, connection: "FairProtocol") -> None:
        """Gives a connection within its share a turn now, or in the next iteration if the budget is used up."""
        if self._budget > 0:
            self._budget -= connection.take_turn()
        else:
            connection.queued = True
            self._postponed.append(connection)
        self._schedule()

    def enqueue(self, connection: "FairProtocol") -> None:
        """Gives a connection over its share a turn after those in the queue."""
        connection.queued = True
        self._queue.append(connection)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._run_iteration)

    def _run_iteration(self) -> None:
        """Starts a new budget, and gives turns to one queued connection and to the postponed ones."""
        self._is_scheduled = False
        self._budget = SHARED_BUDGET
        try:
            if self._queue:
                connection = self._queue.popleft()
                connection.queued = False
                connection.take_turn()
            for _ in range(len(self._postponed)):
                if self._budget <= 0:
                    break
                connection = self._postponed.popleft()
                connection.queued = False
                self._budget -= connection.take_turn()
        finally:  # an exception in one turn must not stop the others
            if self._postponed or self._queue:
                self._schedule()


_turns_of: "WeakKeyDictionary[asyncio.AbstractEventLoop, Turns]" = WeakKeyDictionary()


class FairProtocol(WebSocketsSansIOProtocol):
    """A WebSocket protocol class for uvicorn that parses connections in turns and bounds the memory of each.

    - Frames are parsed in `Turns`. The next turn begins when the app has received all messages of the last one; until
      then the socket is not read.
    - The limits of the consumer that serves the connection apply. A message has at most ``max_frame_bytes`` in all
      fragments, and at most ``--ws-max-size`` if that is set. It must be complete within ``message_timeout``.
    - After a protocol error the client gets one close frame, and has one second to read it.
    - A client that does not read gets no pongs.
    - A client that does not answer pings, or does not read its close frame within ``close_timeout`` (10 seconds), is
      disconnected, and data not yet sent is dropped.
    - Above ``--limit-concurrency``, handshakes get 503. uvicorn counts WebSockets, but refuses none.
    - A malformed handshake gets an error response, and the socket is closed. uvicorn leaves it open.
    - No log level shows headers or frames, since they may contain secrets.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn.debug = False  # else --log-level debug logs all frames and headers, tokens included
        if (turns := _turns_of.get(self.loop)) is None:
            turns = _turns_of[self.loop] = Turns(self.loop)
        self._turns = turns
        self.queued = False  # whether it waits for a turn; `Turns` sets and clears it
        self._exceeds_share = False  # whether data was left after its last turn
        self._unparsed = bytearray()
        self._needed = 1  # bytes of `_unparsed` that the next frame needs, as far as known
        self._cost = 0  # of the present turn, or the last one
        self._fragments: bytearray | None = None  # an incomplete message
        self._is_text = True  # whether the message is text
        self._message_began = 0.0  # loop time at which the incomplete message began; 0: none
        self._timeout_check: asyncio.TimerHandle | None = None  # the next `_check_timeout`
        self._is_discarding = False  # whether received data is discarded
        self._discarded = 0
        self._abort_timer: asyncio.TimerHandle | None = None
        self._connection: Connection | None = None
        self._timeout = Limits().message_timeout
        self._set_max_size(self.config.ws_max_size or DEFAULT_MAX_SIZE)

    def _set_max_size(self, size: int) -> None:
        self._max_size = self.conn.max_message_size = size

    def attach(self, connection: "Connection") -> None:
        """Applies the limits of ``connection``, which is closed when one is reached.

        To be called before the app accepts the handshake.
        """
        self._connection = connection
        self._timeout = connection.limits.message_timeout
        max_size = connection.limits.max_frame_bytes
        self._set_max_size(min(max_size, self.config.ws_max_size or max_size))

    # ------------------------------------------------------------------------------------------------ receiving
    def data_received(self, data: bytes) -> None:
        if self._is_discarding:
            self._discarded += len(data)
            if self._discarded > MAX_DISCARDED:
                self.transport.abort()
        elif not self.handshake_initiated:
            super().data_received(data)
        else:
            self._unparsed += data
            self._continue()

    @property
    def _can_deliver(self) -> bool:
        """Whether the app has received all messages, or receives no more since the connection is closing."""
        return self.handshake_complete and (self.queue.empty() or self.close_sent)

    def _continue(self) -> None:
        """Parses the received data, now or at its turn, and resumes reading when none is left."""
        if not self.queued and len(self._unparsed) >= self._needed and self._can_deliver:
            if self._exceeds_share:
                self._turns.enqueue(self)
            else:
                self._turns.run_now(self)
                return  # it had its turn and called `_update_reading`, or it waits for one
        self._update_reading()

    def take_turn(self) -> int:
        """Parses frames up to the share of one turn. Returns the cost."""
        at = 0
        self._cost = 0
        while self._cost < SHARE and not self._is_discarding and len(self._unparsed) - at >= self._needed:
            if (end := self._parse_frame(at)) == at:
                break
            at = end
            self._needed = 1
        if not self._is_discarding:
            del self._unparsed[:at]
            self._exceeds_share = self._cost >= SHARE and len(self._unparsed) >= self._needed
            # the share was spent on frames that complete no message, such as pings
            if self._exceeds_share and self._can_deliver and not self.queued:
                self._turns.enqueue(self)
            self._update_reading()
        return self._cost

    def _update_reading(self) -> None:
        """Pauses or resumes reading, and notes when an incomplete message began."""
        more = len(self._unparsed) >= self._needed
        if (more or self.queued) is not self.read_paused and not self.transport.is_closing():
            self.read_paused = not self.read_paused
            if self.read_paused:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()
        if self._fragments is None and (more or not self._unparsed):
            self._message_began = 0.0
        elif not self._message_began:
            self._message_began = self.loop.time()
            if self._timeout_check is None:
                self._timeout_check = self.loop.call_later(self._timeout, self._check_timeout)

    def _check_timeout(self) -> None:
        """Closes the connection if a message is not complete in time."""
        self._timeout_check = None
        if self._is_discarding or not self._message_began:
            return
        left = self._message_began + self._timeout - self.loop.time()
        # the rest may have arrived already, and is not parsed until the app has received the last message
        if left <= 0 and not self._can_deliver:
            left = self._timeout
        if left > 0:  # or another message has begun since the timer was set
            self._timeout_check = self.loop.call_later(left, self._check_timeout)
        else:
            self._close_for_limit(POLICY_VIOLATION, "message_timeout", "a message was not complete in time")

    def _parse_frame(self, at: int) -> int:
        """Parses one frame. Returns its end, or ``at`` if the frame is incomplete or ends the connection."""
        data = self._unparsed
        have = len(data) - at
        if have < 2:
            self._needed = 2
            return at
        first = data[at]
        size = data[at + 1] - 128
        head = 2
        if size < 0 or first & 7 > 2:  # not masked, or a reserved opcode: the parser of `websockets` reports it
            self._feed_parser(bytes(data[at : at + 2]))
            return at
        if first & 8 and (size > 125 or first < 128):
            self._fail(PROTOCOL_ERROR, "a control frame has at most 125 bytes and is not fragmented")
            return at
        if size > 125:
            head = 4 if size == 126 else 10
            if have < head:
                self._needed = head
                return at
            size = int.from_bytes(data[at + 2 : at + head], "big")
        if not first & 8 and (total := size + len(self._fragments or b"")) > self._max_size:
            if self._connection is not None and total > self._connection.limits.max_frame_bytes:
                self._close_for_limit(MESSAGE_TOO_BIG, "max_frame_bytes", f"a frame of {total} bytes")
            else:
                self._fail(MESSAGE_TOO_BIG, f"a frame of {total} bytes; --ws-max-size is {self._max_size}")
            return at
        start = at + head + 4
        end = start + size
        if end > len(data):
            self._needed = end - at
            return at
        self._cost += (8 if first > 127 else 1) + (size >> 7)
        if first & 0x78 or self.conn.extensions:
            self._feed_parser(bytes(data[at:end]))
        elif (first & 3 == 0) is (self._fragments is None):
            self._fail(PROTOCOL_ERROR, "a new message before the last fragment, or a continuation without a message")
            return at
        else:
            self._take_data(first & 3, first > 127, apply_mask(data[start:end], data[start - 4 : start]))
        return end

    def _take_data(self, opcode: int, fin: bool, data: Any) -> None:
        """Adds a frame of a message to its fragments, and delivers the message if it is complete."""
        fragments = self._fragments
        if opcode:
            self._is_text = opcode == Opcode.TEXT
            if not fin:
                self._fragments = bytearray(data)
        elif fragments is not None:
            fragments += data
            data = fragments
            if fin:
                self._fragments = None
        if fin:
            self._deliver(data)

    def _feed_parser(self, frame: bytes) -> None:
        self.conn.receive_data(frame)
        super().handle_events()
        if self.conn.parser_exc is not None and not self._is_discarding:
            self._send_failure()

    def handle_text(self, event: Any) -> None:
        self._take_data(event.opcode, event.fin, event.data)

    handle_bytes = handle_cont = handle_text

    def _deliver(self, data: Any) -> None:
        """Puts a message into the app's queue, unless the connection is closing."""
        if self.close_sent:
            return
        if not self._is_text:
            self.queue.put_nowait({"type": "websocket.receive", "bytes": bytes(data)})
            return
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self._fail(INVALID_TEXT, "a text message must be UTF-8")
        else:
            self.queue.put_nowait({"type": "websocket.receive", "text": text})

    def handle_ping(self) -> None:
        if self.writable.is_set() and not self.transport.is_closing():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # drops the pong: the client does not read, so it would stay in memory

    def handle_close(self, event: Any) -> None:
        super().handle_close(event)
        self._start_discarding()

    # ------------------------------------------------------------------------------------------------ errors
    def _close_for_limit(self, code: int, limit: str, reason: str) -> None:
        """Closes the connection for a limit. An attached `Connection` does so itself, and calls the hooks."""
        connection = self._connection
        if connection is None or self.close_sent:
            self._fail(code, reason)
        else:
            self._start_discarding()
            connection.close_for_limit(code, limit, reason)

    def _fail(self, code: int, reason: str) -> None:
        self.conn.fail(code, reason)
        self._send_failure()

    def _send_failure(self) -> None:
        """Sends the close frame or error response of the parser, and closes the socket soon."""
        self._start_discarding()
        self.transport.write(b"".join(self.conn.data_to_send()))
        if not self.close_sent:
            close = self.conn.close_sent
            self.close_sent = True
            self.queue.put_nowait(
                {"type": "websocket.disconnect", "code": close.code, "reason": close.reason}
                if close is not None
                else {"type": "websocket.disconnect", "code": NO_CLOSE_FRAME}
            )
        self._close_soon()

    def _start_discarding(self) -> None:
        """Discards data from now on, but still reads it.

        If a socket is closed with unread bytes, TCP sends a reset, which may overtake the close frame.
        """
        self._is_discarding = True
        self._unparsed = bytearray()
        self._fragments = None
        self._message_began = 0.0
        if self.read_paused and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()

    def _close_soon(self) -> None:
        """Closes the socket after ``LINGER`` seconds. The client's answer to the close frame is discarded unseen."""
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(LINGER, self._close)
        if self.transport.can_write_eof() and not self.transport.is_closing():
            with suppress(OSError):  # the client has gone; `connection_lost` follows
                self.transport.write_eof()

    def _close(self) -> None:
        self.transport.close()
        self._abort_unsent()

    # ------------------------------------------------------------------------------------------------ for the app
    async def receive(self) -> Any:
        queue = self.queue
        if queue.empty():
            if self._unparsed:
                self._continue()
            return await queue.get()
        return queue.get_nowait()

    def send(self, message: Any) -> Coroutine[Any, Any, None]:
        sending: Coroutine[Any, Any, None] = super().send(message)
        return sending if message["type"] == "websocket.send" else self._send_other(sending)

    async def _send_other(self, sending: Coroutine[Any, Any, None]) -> None:
        await sending
        if self.close_sent:
            self.handshake_complete = True  # for a handshake refused over HTTP; else uvicorn logs an error
            if self._is_discarding and self.conn.state is State.CLOSING:  # its answer to the close frame is discarded
                self._close_soon()
        if self._unparsed:  # frames sent with the handshake, or the client's close frame
            self._continue()

    # ------------------------------------------------------------------------------------------------ handshakes
    def handle_connect(self, event: Any) -> None:
        limit = self.config.limit_concurrency
        if limit is not None and len(self.connections) > limit:
            self.logger.warning("Exceeded concurrency limit.")
            self._reject(503, "Too many connections.\n")
        elif event.headers.get_all("Sec-WebSocket-Version") != ["13"]:
            self._reject(
                426, "Sec-WebSocket-Version must be 13.\n", {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
            )
        else:
            super().handle_connect(event)
            if not self.close_sent:
                extensions: dict[str, Any] = self.scope["extensions"]
                extensions[SOCKET_EXTENSION] = self

    def _reject(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        response = self.conn.reject(status, text)
        response.headers.update(headers or {})
        self.conn.send_response(response)
        self._send_refusal()

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.handshake_exc is not None and not self.handshake_initiated:  # it has a body, or too many headers
            self._send_refusal()

    def _send_refusal(self) -> None:
        """Sends the parser's error response, or 400 if it has none, and closes the socket."""
        self.handshake_complete = self.close_sent = True
        self.transport.write(b"".join(self.conn.data_to_send()) or NO_HANDSHAKE)
        self.transport.close()

    # ------------------------------------------------------------------------------------------------ closing
    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._abort_unsent()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        if not self.disconnected:
            self._abort_timer = self.loop.call_later(self.close_timeout, self._abort_unsent)

    def _abort_unsent(self) -> None:
        """Aborts the socket if the client has not read all data: ``close()`` alone would wait for ever."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._abort_timer, self._timeout_check):
            if timer is not None:
                timer.cancel()
        self._is_discarding = True
        self._unparsed = bytearray()
        self._fragments = None
        self._connection = None
        super().connection_lost(exc)
