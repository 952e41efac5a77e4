"""The connection that Redis tells what is published on: one per process, minded, its losses told.

A client library's own pub/sub reconnects by itself and says nothing, and what was published meanwhile is lost unseen.
Here every loss is told, and so is every subscription that is confirmed, after each connection again.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from wsaction._utils.backoff import Backoff
from wsaction.layers._redis_pipeline import Connect, Link, Refused, encode_command, greet, refusal
from wsaction.layers.base import MAX_OFFSET, Sink
from wsaction.routing.converters import ImproperlyConfigured

__all__ = ("PING_INTERVAL", "Channels", "parse_message")

logger = logging.getLogger("wsaction")

PING_INTERVAL = 5.0  # seconds
SILENCE = 2.5  # intervals without a word after which the connection is lost
MAX_NAMES = 512  # channels in one command
MESSAGES_IN_A_ROW = 32  # without the loop having had a turn


class Channels:
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
        *,
        max_names: int = MAX_NAMES,
    ) -> None:
        self._max_names = max_names
        self._connect, self._sink, self._is_body, self._on_change = connect, sink, is_body, on_change
        self._ping_interval = ping_interval
        self._topics: dict[str, str] = {}  # by channel: what is wished for
        self._wishes: dict[str, bytes] = {}  # what is yet to be sent, by channel: the last one counts
        self._wake = asyncio.Event()
        self._heard = 0.0
        self._is_up = False
        self._doubt = ""  # why the connection is not to be relied on
        self.run_id: bytes | None = None  # of the server that it is connected to

    def subscribe(self, channel: str, topic: str) -> None:
        """Wishes for a channel; never waits."""
        self._topics[channel] = topic
        self._wish(channel, b"SUBSCRIBE")

    def unsubscribe(self, channel: str) -> None:
        """Takes the wish back; never waits."""
        if self._topics.pop(channel, None) is not None:
            self._wish(channel, b"UNSUBSCRIBE")

    def _wish(self, channel: str, verb: bytes) -> None:
        if self._is_up:  # else all wishes are told when it is
            self._wishes.pop(channel, None)  # so that it stands last
            self._wishes[channel] = verb
            self._wake.set()

    def doubt(self, why: str) -> None:
        """Has the connection made anew: it may tell nothing, or not all, of what is published."""
        self._doubt = why
        self._wake.set()

    # ------------------------------------------------------------------------------------------------ its life
    async def run_forever(self) -> None:
        """Connects, and connects again, until it is cancelled."""
        backoff, told = Backoff(), False
        while True:
            try:
                link = await self._connect_to_master()
            except (OSError, ImproperlyConfigured) as exc:
                logger.log(logging.DEBUG if told else logging.WARNING, "Redis is away: %s", exc)
                told = True
            else:
                try:
                    await self._mind(link)
                except Exception as exc:  # whatever it is, it has to be connected again
                    expected = isinstance(exc, (OSError, Refused))
                    why = f"{type(exc).__name__}: {exc}"
                    logger.warning("Redis tells nothing any more (%s); connecting again", why, exc_info=not expected)
                    told = False
                    if self._heard:
                        backoff.reset()
                finally:
                    self._is_up, self.run_id = False, None
                    await link.close()
                    self._sink.lost()
                    self._on_change()
            await asyncio.sleep(backoff.seconds())

    async def _connect_to_master(self) -> Link:
        link = await self._connect()
        try:
            self.run_id = await greet(link)
        except Refused as exc:
            await link.close()
            raise refusal(exc) from exc
        except BaseException:
            await link.close()
            raise
        return link

    async def _mind(self, link: Link) -> None:
        """Reads and writes until one of both breaks, and raises that."""
        self._heard, self._is_up, self._doubt = 0.0, True, ""
        self._wishes = dict.fromkeys(self._topics, b"SUBSCRIBE")
        self._wake.set()
        self._on_change()
        async with _Both(self._read(link), self._write(link)) as both:
            await both.first()

    async def _write(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        connected = loop.time()
        while True:
            try:
                async with asyncio.timeout(self._ping_interval):
                    await self._wake.wait()
            except TimeoutError:
                if loop.time() - max(self._heard, connected) > SILENCE * self._ping_interval:
                    raise ConnectionError(f"nothing heard for {SILENCE * self._ping_interval} s") from None
                await link.send(encode_command(b"PING"))
                continue
            self._wake.clear()
            if self._doubt:
                raise ConnectionError(self._doubt)
            while self._wishes:
                await link.send(self._next_command())

    def _next_command(self) -> bytes:
        """As many wishes as one command holds; the order of those for one channel is that of its last one."""
        verb = next(iter(self._wishes.values()))
        names = list[str]()
        for channel, wish in self._wishes.items():
            if wish != verb or len(names) == self._max_names:
                break
            names.append(channel)
        for channel in names:
            del self._wishes[channel]
        return encode_command(verb, *(channel.encode() for channel in names))

    async def _read(self, link: Link) -> None:
        loop, count = asyncio.get_running_loop(), 0
        while True:
            told = await link.receive()
            self._heard = loop.time()
            if not isinstance(told, list) or len(told) < 2 or not isinstance(told[1], bytes):
                continue  # a PONG, where nothing is subscribed to
            topic = self._topics.get(told[1].decode(errors="replace"))
            if topic is None:
                continue
            if told[0] == b"message":
                self._pass_on(topic, told[2])
            elif told[0] == b"subscribe":
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
    head, feed, body = payload.partition(b"\n")
    epoch, space, offset = head.partition(b" ")
    if not (feed and space and epoch and offset) or len(head) > 100 or not epoch.isascii() or not offset.isdigit():
        return None
    if epoch == b"-":
        return ("", 0, body) if offset == b"0" else None
    return (epoch.decode(), int(offset), body) if int(offset) < MAX_OFFSET else None


class _Both:
    """Two tasks, both ended when the block is left."""

    def __init__(self, *work: Coroutine[Any, Any, None]) -> None:
        self._tasks = [asyncio.ensure_future(one) for one in work]

    async def __aenter__(self) -> "_Both":
        return self

    async def first(self) -> None:
        """Waits for the first to end, and raises what it raised."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
