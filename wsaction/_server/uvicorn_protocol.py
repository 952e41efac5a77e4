"""uvicorn's WebSocket protocol, made fair: the ground that `wsaction.server` stands on.

What is bounded by `wsaction.limits.Limits` begins where a server hands over a message. Below that, uvicorn parses all
that one read brought, up to 256 KiB, in one go: thousands of small frames keep its loop, and all other clients, for
tens of milliseconds. It also answers pings into a buffer that nothing bounds, keeps each fragment of a message as an
object of its own, and lets a peer who stopped reading keep its socket. This protocol does not.

Frames are read here: where one ends is found by its head, and what is text, bytes or a fragment of these is unmasked
and joined. Any other frame, and all of a connection with compression, goes to the parser of `websockets`: one whole
frame at a time, which then says what it means or how it breaks the protocol.

It stands on how uvicorn 0.52 to 0.54 works inside; the tests say whether a newer one still does.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from wsaction._protocol.close_codes import POLICY_VIOLATION
from wsaction._protocol.scope import SOCKET_EXTENSION
from wsaction.limits import Limits

try:
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
    from websockets.frames import Opcode
    from websockets.protocol import State
except ImportError as exc:
    raise ImportError("wsaction.fairness needs uvicorn and websockets: pip install 'wsaction[standard]'") from exc

try:
    from websockets.speedups import apply_mask
except ImportError:  # without its C extension
    from websockets.utils import apply_mask

if TYPE_CHECKING:
    from wsaction._connection.connection import Connection

__all__ = ("FairProtocol", "Turns")

# A frame costs 8, a fragment that is not the last one 1, and each 128 bytes of it 1 more.
SHARE = 64  # what one connection may cost before others have their turn
SHARED_BUDGET = 256  # what all those may cost in one iteration of the event loop that keep within their share

NO_HANDSHAKE = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
    b"Content-Length: 55\r\n\r\nA WebSocket handshake is a GET request without a body.\n"
)
LINGER = 1.0  # seconds that a client who broke the protocol has to take its close frame
MAX_DISCARDED = 1_048_576  # bytes that it may send meanwhile before it is cut off
DEFAULT_MAX_SIZE = Limits().max_frame_bytes  # bytes of a message where neither the server nor the app has said how many


class Turns:
    """Whose frames are parsed when: the connections of one event loop share it.

    A connection whose client keeps within its share is served as soon as something came, up to a bound for all of
    them in one iteration of the loop, and past that first in the next. Whoever sends more waits in line: one of them
    has a turn in each iteration. So forty floods keep the others no longer than one does.
    """

    __slots__ = ("_budget", "_is_scheduled", "_loop", "_postponed", "_queue")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_scheduled = False  # whether `_run_iteration` is on its way
        self._budget = SHARED_BUDGET  # what may still be parsed at once in this iteration
        self._postponed: deque[FairProtocol] = deque()  # they wait for the next one
        self._queue: deque[FairProtocol] = deque()  # and these in line

    def run_now(self, connection: "FairProtocol") -> None:
        """Gives a connection that keeps within its share a turn now, or in the next iteration."""
        if self._budget > 0:
            self._budget -= connection.take_turn()
        else:
            connection.queued = True
            self._postponed.append(connection)
        self._schedule()

    def enqueue(self, connection: "FairProtocol") -> None:
        """Gives a connection a turn after all those that wait already."""
        connection.queued = True
        self._queue.append(connection)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._run_iteration)

    def _run_iteration(self) -> None:
        """An iteration of the loop is over."""
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
        finally:  # one whose turn fails keeps none of the others from theirs
            if self._postponed or self._queue:
                self._schedule()


_turns_of: "WeakKeyDictionary[asyncio.AbstractEventLoop, Turns]" = WeakKeyDictionary()


class FairProtocol(WebSocketsSansIOProtocol):
    """Parses no more than the app asks for, gives others their turn in between, and lets nobody fill memory.

    Frames are parsed in turns (`Turns`), the next ones when the app has received all messages of those before; nothing
    is read meanwhile. The bounds are those of the consumer that serves the connection: a message has at most
    ``max_frame_bytes``, in however many fragments, no more than ``--ws-max-size`` where that is given, and is whole
    ``message_timeout`` after it began. A client that breaks the protocol is told so by one close frame and has a second
    to take it. A peer that does not read is sent no pongs. One that does not answer pings, or does not take its close
    frame within ``close_timeout`` (10 seconds), is cut off with what was not sent to it. ``--limit-concurrency`` holds
    for WebSockets too, which uvicorn itself counts but never refuses: 503. A handshake that cannot be read is answered
    and closed, where uvicorn leaves it open. Neither headers nor frames are logged, at any level: they may be secrets.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn.debug = False  # else --log-level debug has all that comes in the log, tokens too
        if (turns := _turns_of.get(self.loop)) is None:
            turns = _turns_of[self.loop] = Turns(self.loop)
        self._turns = turns
        self.queued = False  # whether it waits for a turn; set by that
        self._exceeds_share = False  # whether its last turn was not enough for what it had sent
        self._unparsed = bytearray()
        self._needed = 1  # bytes of these that the next frame takes, as far as is known
        self._cost = 0  # of the last turn
        self._fragments: bytearray | None = None  # a message whose last fragment has yet to come
        self._is_text = True  # whether that is text
        self._message_began = 0.0  # when the message that is not whole began, on the loop's clock; 0: there is none
        self._timeout_check: asyncio.TimerHandle | None = None  # at whether it is whole by now
        self._is_discarding = False  # whether what comes is discarded
        self._discarded = 0
        self._abort_timer: asyncio.TimerHandle | None = None
        self._connection: Connection | None = None
        self._timeout = Limits().message_timeout
        self._set_max_size(self.config.ws_max_size or DEFAULT_MAX_SIZE)

    def _set_max_size(self, size: int) -> None:
        self._max_size = self.conn.max_message_size = size

    def attach(self, connection: "Connection") -> None:
        """From now on the bounds of this connection hold, and it is told when one is reached: for the app that serves
        it, before it accepts the handshake."""
        self._connection = connection
        self._timeout = connection.limits.message_timeout
        max_size = connection.limits.max_frame_bytes
        self._set_max_size(min(max_size, self.config.ws_max_size or max_size))

    # ------------------------------------------------------------------------------------------------ what comes
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
        """Whether another message may come: the app has received the last, or receives none any more."""
        return self.handshake_complete and (self.queue.empty() or self.close_sent)

    def _continue(self) -> None:
        """Parses what there is, now or in its turn, and reads on when nothing is left of what was read before."""
        if not self.queued and len(self._unparsed) >= self._needed and self._can_deliver:
            if self._exceeds_share:
                self._turns.enqueue(self)
            else:
                self._turns.run_now(self)
                return  # either it had its turn and has settled, or it waits for one
        self._update_reading()

    def take_turn(self) -> int:
        """Parses what is its share, and no more than the app wants; the cost."""
        at = 0
        self._cost = 0
        while self._cost < SHARE and not self._is_discarding and len(self._unparsed) - at >= self._needed:
            if (end := self._parse_frame(at)) == at:
                break
            at, self._needed = end, 1
        if not self._is_discarding:
            del self._unparsed[:at]
            self._exceeds_share = self._cost >= SHARE and len(self._unparsed) >= self._needed
            if (
                self._exceeds_share and self._can_deliver and not self.queued
            ):  # spent on what is no message: pings, fragments
                self._turns.enqueue(self)
            self._update_reading()
        return self._cost

    def _update_reading(self) -> None:
        """Reads on or not, and notes since when a message is not whole."""
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
        """Ends a connection whose message is not whole in time."""
        self._timeout_check = None
        if self._is_discarding or not self._message_began:
            return
        left = self._message_began + self._timeout - self.loop.time()
        if (
            left <= 0 and not self._can_deliver
        ):  # the rest may be here: it is the app that has yet to take what came before
            left = self._timeout
        if left > 0:  # or another message than the one that it was set for
            self._timeout_check = self.loop.call_later(left, self._check_timeout)
        else:
            self._close_for_limit(POLICY_VIOLATION, "message_timeout", "a message that is not whole")

    def _parse_frame(self, at: int) -> int:
        """Parses one frame. Returns where it ends, or ``at`` if it is not there yet, or the connection ends by it."""
        data = self._unparsed
        have = len(data) - at
        if have < 2:
            self._needed = 2
            return at
        first = data[at]
        size = data[at + 1] - 128
        head = 2
        if size < 0 or first & 7 > 2:  # not masked, or no opcode
            self._feed_parser(bytes(data[at : at + 2]))
            return at
        if first & 8 and (size > 125 or first < 128):
            self._fail(1002, "a control frame has at most 125 bytes and is not fragmented")
            return at
        if size > 125:
            head = 4 if size == 126 else 10
            if have < head:
                self._needed = head
                return at
            size = int.from_bytes(data[at + 2 : at + head], "big")
        if not first & 8 and (total := size + len(self._fragments or b"")) > self._max_size:
            if self._connection is not None and total > self._connection.limits.max_frame_bytes:
                self._close_for_limit(1009, "max_frame_bytes", f"a frame of {total} bytes")
            else:
                self._fail(1009, f"a frame of {total} bytes; --ws-max-size is {self._max_size}")
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
            self._fail(1002, "a message begins within another, or goes on without one")
            return at
        else:
            self._take_data(first & 3, first > 127, apply_mask(data[start:end], data[start - 4 : start]))
        return end

    def _take_data(self, opcode: int, fin: bool, data: Any) -> None:
        """Takes a message, or a fragment of one."""
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
        """Gives the app a message, which it may not want any more."""
        if self.close_sent:
            return
        if not self._is_text:
            self.queue.put_nowait({"type": "websocket.receive", "bytes": bytes(data)})
            return
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self._fail(1007, "a text message is UTF-8")
        else:
            self.queue.put_nowait({"type": "websocket.receive", "text": text})

    def handle_ping(self) -> None:
        if self.writable.is_set() and not self.transport.is_closing():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # the pong, which would wait in memory with all the others

    def handle_close(self, event: Any) -> None:
        super().handle_close(event)
        self._start_discarding()

    # ------------------------------------------------------------------------------------------------ what is wrong
    def _close_for_limit(self, code: int, limit: str, reason: str) -> None:
        """A bound is reached. A connection of ours closes itself by that, in its own words."""
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
        """Tells the client how it has broken the protocol, unless it was sent a close frame before."""
        self._start_discarding()
        self.transport.write(b"".join(self.conn.data_to_send()))
        if not self.close_sent:
            close = self.conn.close_sent
            self.close_sent = True
            self.queue.put_nowait(
                {"type": "websocket.disconnect", "code": close.code, "reason": close.reason}
                if close is not None
                else {"type": "websocket.disconnect", "code": 1006}
            )
        self._close_soon()

    def _start_discarding(self) -> None:
        """What still comes is nothing any more, but read: to close with bytes unread makes TCP answer them with a
        reset, which may overtake the close frame."""
        self._is_discarding = True
        self._unparsed = bytearray()
        self._fragments = None
        self._message_began = 0.0
        if self.read_paused and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()

    def _close_soon(self) -> None:
        """Closes the socket soon: the client has been sent its close frame, and whether it answers cannot be told."""
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(LINGER, self._close)
        if self.transport.can_write_eof() and not self.transport.is_closing():
            with suppress(OSError):  # the peer is gone already, as we are about to be told
                self.transport.write_eof()

    def _close(self) -> None:
        self.transport.close()
        self._abort_unsent()

    # ------------------------------------------------------------------------------------------------ the app's side
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
            self.handshake_complete = True  # refused over HTTP; uvicorn would log an error for each
            if self._is_discarding and self.conn.state is State.CLOSING:  # its answer is among what is discarded
                self._close_soon()
        if self._unparsed:  # accepted; or closed, and the peer's close frame is among it
            self._continue()

    # ------------------------------------------------------------------------------------------------ handshakes
    def handle_connect(self, event: Any) -> None:
        limit = self.config.limit_concurrency
        if limit is not None and len(self.connections) > limit:
            self.logger.warning("Exceeded concurrency limit.")
            self._reject(503, "Too many connections.\n")
        elif event.headers.get_all("Sec-WebSocket-Version") != ["13"]:
            self._reject(426, "Sec-WebSocket-Version is 13.\n", {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"})
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
        if self.conn.handshake_exc is not None and not self.handshake_initiated:  # a body, or too many headers: 431
            self._send_refusal()

    def _send_refusal(self) -> None:
        """The handshake is answered by an error: what is there to be sent, or 400 where its parser has no answer."""
        self.handshake_complete = self.close_sent = True
        self.transport.write(b"".join(self.conn.data_to_send()) or NO_HANDSHAKE)
        self.transport.close()

    # ------------------------------------------------------------------------------------------------ the end
    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._abort_unsent()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        if not self.disconnected:
            self._abort_timer = self.loop.call_later(self.close_timeout, self._abort_unsent)

    def _abort_unsent(self) -> None:
        """Drops what the peer does not take: closing alone waits for it, for ever."""
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
