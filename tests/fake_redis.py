"""Redis as far as `RedisLayer` uses it, in virtual time, with every fault that a seed can draw.

The scripts are written once more, in Python: what the real ones do is checked against a real server elsewhere.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tests.virtual_time import now
from wsaction.layers.links import Link
from wsaction.layers.redis import RedisLayer
from wsaction.layers.scripts import INVALIDATE, PUBLISH, READ

SCRIPTS = {script.sha: script for script in (PUBLISH, READ, INVALIDATE)}


@dataclass
class Kept:
    """What is kept of one topic."""

    epoch: str = ""
    offset: int = 0
    run: bytes = b""
    old: str | None = None
    end: int = -1
    stream: list[tuple[int, bytes]] = field(default_factory=list)


class FakeServer:
    """``stop`` and ``start`` restart it; what was written last may be lost by that."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.links, self.topics = rng, set[FakeLink](), dict[bytes, Kept]()
        self.quiet_loss = 0.0  # how much of what is published is lost without a word
        self._undo: list[tuple[float, bytes, Kept | None]] = []
        self._starts = itertools.count(1)
        self.start()

    def start(self) -> None:
        self.is_up, self.run_id, self.loaded = True, b"run%037d" % next(self._starts), set[bytes]()

    def stop(self, lost_seconds: float = 0.0, *, wiped: bool = False) -> None:
        self.is_up = False
        for link in self.sorted_links():
            link.cut()
        while lost_seconds and self._undo and self._undo[-1][0] > now() - lost_seconds:
            _, key, before = self._undo.pop()
            if before is None:
                self.topics.pop(key, None)
            else:
                self.topics[key] = before
        if wiped:
            self.topics.clear()
            self._undo.clear()

    def sorted_links(self) -> list[FakeLink]:
        return sorted(self.links, key=lambda link: link.number)

    # -- commands
    def execute(self, link: FakeLink, verb: bytes, *args: bytes) -> None:
        match verb:
            case b"INFO":
                link.push(b"# Server\r\nredis_version:7.0.15\r\nrun_id:%b\r\n" % self.run_id)
            case b"SCRIPT":
                self.loaded |= {sha for sha, script in SCRIPTS.items() if script.text == args[1]}
                link.push(b"")
            case b"PING":
                link.push([b"pong", b""] if link.channels else b"PONG")
            case b"SUBSCRIBE":
                for channel in args:
                    link.channels.add(channel)
                    link.push([b"subscribe", channel, 1])
            case b"UNSUBSCRIBE":
                for channel in args:
                    link.channels.discard(channel)
                    link.push([b"unsubscribe", channel, 0])
            case b"PUBLISH":
                self.publish(*args)
                link.push(0)
            case b"EVALSHA":
                assert args[0] in self.loaded
                meta, _, channel, run, fresh, _, *rest = args[2:]
                link.push(self._run(SCRIPTS[args[0]], meta, channel, run, fresh.decode(), rest))
            case _:
                raise AssertionError(verb)

    def publish(self, channel: bytes, payload: bytes) -> None:
        for link in self.sorted_links():
            if channel in link.channels and not (self.quiet_loss and self.rng.random() < self.quiet_loss):
                link.push([b"message", channel, payload])

    def _run(self, script: Any, key: bytes, channel: bytes, run: bytes, fresh: str, rest: list[bytes]) -> Any:
        kept = self._fenced(key, run, fresh)
        if script is READ:
            return self._read(kept, channel, fresh, rest)
        if script is INVALIDATE:
            self._cut(kept, channel, fresh)
        else:
            kept.offset += 1
            kept.stream.append((kept.offset, rest[0]))
            del kept.stream[: -int(rest[1])]
            self.publish(channel, b"%b %d\n%b" % (kept.epoch.encode(), kept.offset, rest[0]))
        return [kept.epoch.encode(), kept.offset]

    def _fenced(self, key: bytes, run: bytes, fresh: str) -> Kept:
        before = self.topics.get(key)
        self._undo.append((now(), key, None if before is None else replace(before, stream=list(before.stream))))
        del self._undo[:-3000]
        kept = self.topics.setdefault(key, Kept())
        if not kept.epoch:
            kept = self.topics[key] = Kept(fresh, run=run)
        elif kept.run != run:
            kept.old, kept.end, kept.epoch, kept.run = kept.epoch, kept.offset, fresh, run
        return kept

    def _cut(self, kept: Kept, channel: bytes, fresh: str) -> None:
        kept.epoch, kept.old, kept.end, kept.stream = fresh + "!", None, -1, []
        self.publish(channel, b"%b %d\n" % (kept.epoch.encode(), kept.offset))

    def _read(self, kept: Kept, channel: bytes, fresh: str, rest: list[bytes]) -> Any:
        epoch, since, limit, own = rest[0].decode(), int(rest[1]), int(rest[2]), rest[3] == b"1"
        found, shared = None, 0
        if (epoch == kept.epoch and since <= kept.offset) or (epoch == kept.old and since <= kept.end):
            newer = [[b"%d-0" % offset, [b"d", body]] for offset, body in kept.stream if offset > since]
            if len(newer) == kept.offset - since <= limit or since == kept.offset:
                found, shared = newer, kept.offset if epoch == kept.epoch else kept.end
        elif own and kept.old:
            self._cut(kept, channel, fresh)
        return [kept.epoch.encode(), kept.offset, found, shared]


class FakeLink:
    """A connection that takes its time, keeps the order in each direction, and can be cut: loudly, or so that nothing
    comes any more."""

    numbers = itertools.count()

    def __init__(self, server: FakeServer) -> None:
        self.server, self.number, self.channels = server, next(self.numbers), set[bytes]()
        self.is_cut = self.is_silent = False
        self._arrives = self._lands = 0.0
        self._came: asyncio.Queue[Any] = asyncio.Queue()

    def _latency(self) -> float:
        rng = self.server.rng
        if rng.random() < 0.002:
            return 0.5  # a hiccup, longer than a reconnection takes
        return rng.choice((0.0, 0.0005, 0.002, 0.002, 0.03)) * rng.random()

    async def send(self, data: bytes) -> None:
        if self.is_cut and not self.is_silent:
            raise ConnectionError("cut")
        loop = asyncio.get_running_loop()
        for command in _commands(data):
            self._arrives = max(self._arrives + 1e-7, now() + self._latency())
            loop.call_at(self._arrives, self._arrive, command)
        await asyncio.sleep(0)

    def _arrive(self, command: list[bytes]) -> None:
        if not self.is_cut and self.server.is_up:
            self.server.execute(self, *command)

    def push(self, answer: Any) -> None:
        self._lands = max(self._lands + 1e-7, now() + self._latency())
        asyncio.get_running_loop().call_at(self._lands, self._land, answer)

    def _land(self, answer: Any) -> None:
        if not self.is_cut:
            self._came.put_nowait(answer)

    def cut(self, *, silent: bool = False) -> None:
        """What is under way in either direction is gone."""
        self.server.links.discard(self)
        self.is_cut, self.is_silent = True, silent
        if not silent:
            self._came.put_nowait(ConnectionError("cut"))

    async def receive(self) -> Any:
        answer = await self._came.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        self.server.links.discard(self)
        self.is_cut = True


def _commands(data: bytes) -> Iterator[list[bytes]]:
    at = 0
    while at < len(data):
        end = data.index(b"\r\n", at)
        count, at, parts = int(data[at + 1 : end]), end + 2, []
        for _ in range(count):
            end = data.index(b"\r\n", at)
            size, at = int(data[at + 1 : end]), end + 2
            parts.append(data[at : at + size])
            at += size + 2
        yield parts


class FakeRedisLayer(RedisLayer):
    """The real layer over fake connections."""

    def __init__(self, server: FakeServer, ping_interval: float = 0.5) -> None:
        super().__init__("redis://fake", ping_interval=ping_interval)
        self._server = server

    async def _connect(self) -> Link:
        link = FakeLink(self._server)
        await asyncio.sleep(0.001 + link._latency())
        if not self._server.is_up:
            raise ConnectionError("refused")
        self._server.links.add(link)
        return link
