"""The connection that Redis tells what is published on: one per process, minded, its losses told.

A client library's own pub/sub reconnects by itself and says nothing, and what was published meanwhile is lost unseen.
Here every loss is told, and so is every subscription that is confirmed, after each connection again.
"""

import asyncio
import logging
from collections.abc import Callable

from wsaction._utils.backoff import Backoff
from wsaction.layers._redis_pipeline import (
    Connect,
    RedisConnection,
    Refused,
    check_server,
    encode_command,
    error_for_refusal,
)
from wsaction.layers.base import MAX_OFFSET, Sink
from wsaction.routing.exceptions import ImproperlyConfigured

__all__ = ("PING_INTERVAL", "PubSub", "parse_message")

logger = logging.getLogger("wsaction")

PING_INTERVAL = 5.0  # seconds
SILENCE = 2.5  # intervals without a word after which the connection is lost
MAX_NAMES = 512  # channels in one command
MESSAGES_IN_A_ROW = 32  # without the loop having had a turn


class PubSub:
    """Subscribes to channels, tells ``sink`` what comes, and connects again whenever that breaks.

    ``is_body`` says whether a message's body may be told; ``on_change`` is called at every connection and loss.
    """

    def __init__(
        self,
        connect: Connect,
        sink: Sink,
        is_body: Callable[[bytes], bool],
        on_change: Callable[[], None],
        ping_interval: float,
    ) -> None:
        self._connect = connect
        self._sink = sink
        self._is_body = is_body
        self._on_change = on_change
        self._ping_interval = ping_interval
        self._topics: dict[str, str] = {}  # by channel: what is wished for
        self._pending: dict[str, bytes] = {}  # what is yet to be sent, by channel: the last one counts
        self._wake = asyncio.Event()
        self._last_heard = 0.0
        self._is_up = False
        self._reconnect_reason = ""  # why the connection is not to be relied on
        self.run_id: bytes | None = None  # of the server that it is connected to

    def subscribe(self, channel: str, topic: str) -> None:
        """Wishes for a channel; never waits."""
        self._topics[channel] = topic
        self._enqueue(channel, b"SUBSCRIBE")

    def unsubscribe(self, channel: str) -> None:
        """Takes the wish back; never waits."""
        if self._topics.pop(channel, None) is not None:
            self._enqueue(channel, b"UNSUBSCRIBE")

    def _enqueue(self, channel: str, verb: bytes) -> None:
        if self._is_up:  # else all wishes are told when it is
            self._pending.pop(channel, None)  # so that it stands last
            self._pending[channel] = verb
            self._wake.set()

    def reconnect(self, reason: str) -> None:
        """Has the connection made anew: it may tell nothing, or not all, of what is published."""
        self._reconnect_reason = reason
        self._wake.set()

    # ------------------------------------------------------------------------------------------------ its life
    async def run_forever(self) -> None:
        """Connects, and connects again, until it is cancelled."""
        backoff = Backoff()
        is_logged = False
        while True:
            try:
                connection = await self._connect_to_master()
            except (OSError, ImproperlyConfigured) as exc:
                logger.log(logging.DEBUG if is_logged else logging.WARNING, "Redis is away: %s", exc)
                is_logged = True
            else:
                try:
                    await self._serve(connection)
                except Exception as exc:  # whatever it is, it has to be connected again
                    expected = isinstance(exc, (OSError, Refused))
                    reason = f"{type(exc).__name__}: {exc}"
                    logger.warning("Redis tells nothing any more (%s); connecting again", reason, exc_info=not expected)
                    is_logged = False
                    if self._last_heard:
                        backoff.reset()
                finally:
                    self._is_up = False
                    self.run_id = None
                    await connection.close()
                    self._sink.lost()
                    self._on_change()
            await asyncio.sleep(backoff.seconds())

    async def _connect_to_master(self) -> RedisConnection:
        connection = await self._connect()
        try:
            self.run_id = await check_server(connection)
        except Refused as exc:
            await connection.close()
            raise error_for_refusal(exc) from exc
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _serve(self, connection: RedisConnection) -> None:
        """Reads and writes until one of both breaks, and raises that."""
        self._last_heard = 0.0
        self._is_up = True
        self._reconnect_reason = ""
        self._pending = dict.fromkeys(self._topics, b"SUBSCRIBE")
        self._wake.set()
        self._on_change()
        tasks = [asyncio.ensure_future(work) for work in (self._read(connection), self._write(connection))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, connection: RedisConnection) -> None:
        loop = asyncio.get_running_loop()
        connected = loop.time()
        while True:
            try:
                async with asyncio.timeout(self._ping_interval):
                    await self._wake.wait()
            except TimeoutError:
                if loop.time() - max(self._last_heard, connected) > SILENCE * self._ping_interval:
                    raise ConnectionError(f"nothing heard for {SILENCE * self._ping_interval} s") from None
                await connection.send(encode_command(b"PING"))
                continue
            self._wake.clear()
            if self._reconnect_reason:
                raise ConnectionError(self._reconnect_reason)
            while self._pending:
                await connection.send(self._next_command())

    def _next_command(self) -> bytes:
        """As many wishes as one command holds; the order of those for one channel is that of its last one."""
        verb = next(iter(self._pending.values()))
        names = list[str]()
        for channel, pending_verb in self._pending.items():
            if pending_verb != verb or len(names) == MAX_NAMES:
                break
            names.append(channel)
        for channel in names:
            del self._pending[channel]
        return encode_command(verb, *(channel.encode() for channel in names))

    async def _read(self, connection: RedisConnection) -> None:
        loop, count = asyncio.get_running_loop(), 0
        while True:
            reply = await connection.receive()
            self._last_heard = loop.time()
            if not isinstance(reply, list) or len(reply) < 2 or not isinstance(reply[1], bytes):
                continue  # a PONG, where nothing is subscribed to
            topic = self._topics.get(reply[1].decode(errors="replace"))
            if topic is None:
                continue
            if reply[0] == b"message":
                self._pass_on(topic, reply[2])
            elif reply[0] == b"subscribe":
                self._sink.subscribed(topic)
            if (count := count + 1) % MESSAGES_IN_A_ROW == 0:
                await asyncio.sleep(0)

    def _pass_on(self, topic: str, payload: bytes) -> None:
        parsed = parse_message(payload)
        if parsed is None or (parsed[2] and not self._is_body(parsed[2])):
            logger.warning("ignoring a message on the channel of %r that is no event: %r", topic, payload[:100])
            return
        self._sink.message(topic, *parsed)


def parse_message(payload: bytes) -> tuple[str, int, bytes] | None:
    """Epoch, offset and body of what came on a channel; None for what no layer has sent.

    ``parse_message(b"k3Jx 7\\n{}")`` is ``("k3Jx", 7, b"{}")``; one of no history has ``- 0``, and "" for its epoch.
    """
    head, newline, body = payload.partition(b"\n")
    epoch, space, offset = head.partition(b" ")
    if not (newline and space and epoch and offset) or len(head) > 100 or not epoch.isascii() or not offset.isdigit():
        return None
    if epoch == b"-":
        return ("", 0, body) if offset == b"0" else None
    return (epoch.decode(), int(offset), body) if int(offset) < MAX_OFFSET else None
