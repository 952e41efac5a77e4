"""The connection that receives published events from Redis: one per process, monitored.

The pub/sub of a client library reconnects by itself without a notice, so what was published meanwhile is lost unseen.
This one reports every loss to the sink, and every confirmed subscription, again after each reconnection.
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

logger = logging.getLogger("wsaction")

PING_INTERVAL = 5.0  # seconds
SILENCE = 2.5  # ping intervals without a message after which the connection counts as lost
MAX_NAMES = 512  # channels in one command
MESSAGES_IN_A_ROW = 32  # messages before other tasks of the event loop get a turn


class PubSub:
    """Subscribes to channels, passes their messages to ``sink``, and reconnects whenever the connection breaks.

    ``is_body`` returns whether bytes are an event's body; other messages are ignored. ``on_change`` is called at every
    connection and loss.
    """

    def __init__(
        self,
        connect: Connect,
        sink: Sink,
        is_body: Callable[[bytes], bool],
        on_change: Callable[[], None],
        ping_interval: float,
        *,
        max_names: int = MAX_NAMES,
    ) -> None:
        self._connect = connect
        self._sink = sink
        self._is_body = is_body
        self._on_change = on_change
        self._ping_interval = ping_interval
        self._max_names = max_names
        self._topics: dict[str, str] = {}  # the subscribed topics, by channel
        self._pending: dict[str, bytes] = {}  # the last command that is yet to be sent, by channel
        self._wake = asyncio.Event()
        self._last_heard = 0.0
        self._is_up = False
        self._reconnect_reason = ""  # if not empty, the connection is replaced
        self.run_id: bytes | None = None  # of the connected server

    def subscribe(self, channel: str, topic: str) -> None:
        """Subscribes to a channel without waiting."""
        self._topics[channel] = topic
        self._enqueue(channel, b"SUBSCRIBE")

    def unsubscribe(self, channel: str) -> None:
        """Ends a subscription without waiting."""
        if self._topics.pop(channel, None) is not None:
            self._enqueue(channel, b"UNSUBSCRIBE")

    def _enqueue(self, channel: str, verb: bytes) -> None:
        if self._is_up:  # if not, all topics are subscribed once connected
            self._pending.pop(channel, None)  # so that the new command comes last
            self._pending[channel] = verb
            self._wake.set()

    def reconnect(self, reason: str) -> None:
        """Replaces the connection, because it may not receive everything that is published."""
        self._reconnect_reason = reason
        self._wake.set()

    # ------------------------------------------------------------------------------------------------ the connection
    async def run_forever(self) -> None:
        """Connects, and reconnects after each loss, until it is cancelled."""
        backoff = Backoff()
        is_logged = False
        while True:
            try:
                connection = await self._connect_to_master()
            except (OSError, ImproperlyConfigured) as exc:
                logger.log(logging.DEBUG if is_logged else logging.WARNING, "Redis is unavailable: %s", exc)
                is_logged = True
            else:
                try:
                    await self._serve(connection)
                except Exception as exc:  # whatever failed, reconnect
                    expected = isinstance(exc, (OSError, Refused))
                    reason = f"{type(exc).__name__}: {exc}"
                    logger.warning(
                        "the connection for events from Redis is lost (%s); reconnecting", reason, exc_info=not expected
                    )
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
        """Reads and writes until one of them fails, and raises its exception."""
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
                    raise ConnectionError(f"no message for {SILENCE * self._ping_interval} s") from None
                await connection.send(encode_command(b"PING"))
                continue
            self._wake.clear()
            if self._reconnect_reason:
                raise ConnectionError(self._reconnect_reason)
            while self._pending:
                await connection.send(self._next_command())

    def _next_command(self) -> bytes:
        """The next command: as many pending channels in a row as have the same verb, up to ``max_names``."""
        verb = next(iter(self._pending.values()))
        names = list[str]()
        for channel, pending_verb in self._pending.items():
            if pending_verb != verb or len(names) == self._max_names:
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
                continue  # a PONG while nothing is subscribed
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
    """The epoch, offset and body of a message on a channel; None if no layer can have sent it.

    ``parse_message(b"k3Jx 7\\n{}")`` is ``("k3Jx", 7, b"{}")``. Without history a message begins with ``- 0``, and
    its epoch is "".
    """
    head, newline, body = payload.partition(b"\n")
    epoch, space, offset = head.partition(b" ")
    if not (newline and space and epoch and offset) or len(head) > 100 or not epoch.isascii() or not offset.isdigit():
        return None
    if epoch == b"-":
        return ("", 0, body) if offset == b"0" else None
    return (epoch.decode(), int(offset), body) if int(offset) < MAX_OFFSET else None
