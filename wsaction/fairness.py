"""uvicorn's WebSocket protocol, made fair: the ground that `wsaction.server` stands on.

What is bounded by `wsaction.limits.Limits` begins where a server hands over a message. Below that, uvicorn parses all
that one read brought, up to 256 KiB, in one go: thousands of small frames keep its loop, and all other clients, for
tens of milliseconds. It also answers pings into a buffer that nothing bounds, and lets a peer who stopped reading keep
its socket. This protocol does not.

It stands on how uvicorn 0.52 to 0.54 works inside; the tests say whether a newer one still does.
"""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

try:
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
except ImportError as exc:
    raise ImportError("wsaction.fairness needs uvicorn and websockets: pip install 'wsaction[standard]'") from exc

__all__ = ("FairProtocol",)

SLICE = 1_024  # bytes that are parsed at once, and up to four times as many within a large frame
TURN = 0.0005  # seconds that one connection may take before the loop, and with it all others, has its turn


class FairProtocol(WebSocketsSansIOProtocol):
    """Parses no more than the app asks for, gives others their turn in between, and lets nobody fill memory.

    What a read brought is parsed in small slices, the next one when the app has received all messages of those before;
    nothing is read meanwhile. An app that has had its half millisecond waits in ``receive`` until the loop has been
    round. A peer that does not read is sent no pongs. One that does not answer pings, or does not take its close frame
    within ``close_timeout`` (10 seconds), is cut off with what was not sent to it. ``--limit-concurrency`` holds for
    WebSockets too, which uvicorn itself counts but never refuses: 503. A handshake that cannot be read is answered and
    closed, where uvicorn leaves it open. Neither headers nor frames are logged, at any level: they may be secrets.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn.debug = False  # else --log-level debug has all that comes in the log, tokens too
        self._unparsed = bytearray()
        self._parsed = 0  # bytes at the beginning of these that are parsed already
        self._turn_until = 0.0
        self._cutting: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        if len(data) <= SLICE and not self._unparsed:
            super().data_received(data)
        else:
            self._unparsed += data
            self._parse()

    @property
    def _wanted(self) -> bool:
        """Whether another message may come: the app has received the last, or receives none any more."""
        return self.queue.empty() or self.close_sent

    def _parse(self) -> None:
        """Parses until there is a message, for a turn at most; the rest waits until the app has received that."""
        until, size = time.monotonic() + TURN, SLICE
        while self._unparsed and self._wanted:
            if time.monotonic() > until:  # spent on what is no message: pings, fragments
                self.loop.call_soon(self._parse)
                break
            data = bytes(self._unparsed[self._parsed : self._parsed + size])
            self._parsed += size
            size = min(2 * size, 4 * SLICE)
            if self._parsed >= len(self._unparsed):
                self._unparsed, self._parsed = bytearray(), 0
            super().data_received(data)
            if self.transport.is_closing():  # closed by the peer, or for what it sent: the rest is nothing any more
                self._unparsed, self._parsed = bytearray(), 0
        self._pause_or_resume()

    def _pause_or_resume(self) -> None:
        """Reads on when nothing is left of what was read before."""
        if self._unparsed:
            self.read_paused = True
            self.transport.pause_reading()
        elif self.read_paused and self._wanted:
            self.read_paused = False
            self.transport.resume_reading()

    async def receive(self) -> Any:
        queue = self.queue
        if queue.empty() and not self._unparsed:
            message = await queue.get()
            self._turn_until = time.monotonic() + TURN
        else:
            if time.monotonic() > self._turn_until:
                await asyncio.sleep(0)
                self._turn_until = time.monotonic() + TURN
            if self._unparsed:
                self._parse()
            message = await queue.get() if queue.empty() else queue.get_nowait()
        if self._unparsed or self.read_paused:  # else there is nothing to read on, or to wait with
            self._pause_or_resume()
        return message

    def send(self, message: Any) -> Coroutine[Any, Any, None]:
        sending: Coroutine[Any, Any, None] = super().send(message)
        return sending if message["type"] == "websocket.send" else self._send_and_close(sending)

    async def _send_and_close(self, sending: Coroutine[Any, Any, None]) -> None:
        await sending
        if self.close_sent:
            self.handshake_complete = True  # refused over HTTP; uvicorn would log an error for each
        if self.close_sent and self._unparsed:  # nobody receives any more; the peer's close frame is among it
            self._parse()

    def handle_connect(self, event: Any) -> None:
        most = self.config.limit_concurrency
        if most is None or len(self.connections) <= most:
            super().handle_connect(event)
            return
        self.logger.warning("Exceeded concurrency limit.")
        self.handshake_complete = self.close_sent = True
        self.conn.send_response(self.conn.reject(503, "Too many connections.\n"))
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.handshake_exc is not None and not self.handshake_initiated:  # more headers than it takes: 431
            self.handshake_complete = self.close_sent = True
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "bytes" or self.close_sent or self._is_utf8():
            super().send_receive_event_to_app()
            return
        self.frames = []  # uvicorn closes as well, and logs a traceback for what a client may send at any time
        self.logger.info("Invalid UTF-8 sequence received from client.")
        self.conn.send_close(1007, "a text message is UTF-8")
        self.handle_parser_exception()

    def _is_utf8(self) -> bool:
        """Whether the message that has come is; it is one piece then."""
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = [data]
        if data.isascii():
            return True
        try:
            data.decode()
        except UnicodeDecodeError:
            return False
        return True

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # the pong, which would wait in memory with all the others

    def handle_cont(self, event: Any) -> None:
        if event.data or event.fin:  # empty ones cost nothing on their way but a place in a list each
            super().handle_cont(event)

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._cut_off()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        if not self.disconnected:
            self._cutting = self.loop.call_later(self.close_timeout, self._cut_off)

    def _cut_off(self) -> None:
        """Drops what the peer does not take: closing alone waits for it, for ever."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._cutting is not None:
            self._cutting.cancel()
        self._unparsed, self._parsed = bytearray(), 0
        super().connection_lost(exc)
