"""A fake of Redis for `RedisLayer`, in virtual time, with random faults.

It implements the scripts in Python. Other tests check the real scripts on a real server.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support.virtual_time import now
from wsaction.layers._redis_pipeline import Demoted, RedisConnection
from wsaction.layers._redis_scripts import ALIVE, COUNT, INVALIDATE, PUBLISH, READ, RENEW, TELL, Script
from wsaction.layers.redis import RedisLayer

SCRIPTS = {script.sha: script for script in (ALIVE, COUNT, INVALIDATE, PUBLISH, READ, RENEW, TELL)}


@dataclass
class Kept:
    """The meta and the stream of one topic."""

    epoch: str = ""
    offset: int = 0
    run: bytes = b""
    old: str | None = None
    end: int = -1
    stream: list[tuple[int, bytes]] = field(default_factory=list)
    read: float | None = None
    people: bool = False


@dataclass
class People:
    """The users of one topic."""

    counts: dict[bytes, dict[bytes, int]] = field(default_factory=dict)  # by user, process; empty: leave deferred
    by: list[bytes] = field(default_factory=list)
    heal: float = 0.0


class FakeServer:
    """A server. ``stop`` and ``start`` restart it, which may lose the last writes.

    ``demote`` makes it a replica for its present connections; new connections reach the new master.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.links, self.topics = rng, set[FakeLink](), dict[bytes, Kept]()
        self.people: dict[bytes, People] = {}
        self.hashes: dict[bytes, dict[bytes, bytes]] = {}
        self.leases: dict[bytes, dict[bytes, float]] = {}  # sorted sets
        self.quiet_loss = 0.0  # the fraction of publications that is lost silently
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
            self.wipe()

    def wipe(self) -> None:
        for kept in (self.topics, self.people, self.hashes, self.leases, self._undo):
            kept.clear()

    def demote(self) -> None:
        """A failover. The new master has all the data."""
        for link in self.sorted_links():
            link.is_on_replica = True
        self.start()

    def sorted_links(self) -> list[FakeLink]:
        return sorted(self.links, key=lambda link: link.number)

    # -- commands
    def execute(self, link: FakeLink, verb: bytes, *args: bytes) -> None:
        match verb:
            case b"INFO":
                role = b"slave" if link.is_on_replica else b"master"
                run_id = link.run_id if link.is_on_replica else self.run_id
                link.push(b"# Server\r\nredis_version:7.0.15\r\nrun_id:%b\r\nrole:%b\r\n" % (run_id, role))
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
                if not link.is_on_replica:
                    self.publish(*args)
                link.push(0)
            case _ if link.is_on_replica:
                link.push(Demoted("READONLY") if verb != b"SCRIPT" else b"")
            case b"EVALSHA":
                assert args[0] in self.loaded
                count = int(args[1])
                link.push(self._run(SCRIPTS[args[0]], list(args[2 : 2 + count]), list(args[2 + count :])))
            case b"HGETALL":
                link.push(self._hgetall(args[0]))
            case b"HSET":
                self.hashes.setdefault(args[0], {}).update(zip(args[1::2], args[2::2], strict=True))
                link.push(1)
            case b"HDEL":
                for name in args[1:]:
                    self.hashes.get(args[0], {}).pop(name, None)
                link.push(1)
            case b"PEXPIRE":
                link.push(int(bool(self.hashes.get(args[0]))))
            case b"DEL":
                self.hashes.pop(args[0], None)
                link.push(1)
            case b"ZREM":
                self.leases.get(args[0], {}).pop(args[1], None)
                link.push(1)
            case _:
                raise AssertionError(verb)

    def _hgetall(self, key: bytes) -> list[bytes]:
        if (people := self.people.get(key)) is None:
            return [item for pair in self.hashes.get(key, {}).items() for item in pair]
        counts = {b":" + user: b" ".join(b"%b %d" % one for one in by.items()) for user, by in people.counts.items()}
        return [item for pair in ({b"by": b" ".join(people.by)} | counts).items() for item in pair]

    def publish(self, channel: bytes, payload: bytes) -> int:
        heard = 0
        for link in self.sorted_links():
            if channel in link.channels and not link.is_on_replica:
                heard += 1
                if not (self.quiet_loss and self.rng.random() < self.quiet_loss):
                    link.push([b"message", channel, payload])
        return heard

    def _run(self, script: Script, keys: list[bytes], args: list[bytes]) -> Any:
        if script is RENEW:
            return self._renew(*keys, args[1], float(args[2]), args[3] == b"1", int(args[4]))
        if script is ALIVE:
            return b" ".join(self.people[keys[0]].by) if keys[0] in self.people else None
        meta, _, channel, *people = keys
        if script is TELL:
            return self.publish(channel, b"- 0\n" + args[1])
        run, fresh, _, *rest = args
        if script is PUBLISH:
            return self._publish(meta, channel, run, fresh.decode(), rest)
        if script is COUNT:
            return self._count(meta, channel, people[0], run, fresh.decode(), rest)
        kept = self._fenced(meta, run, fresh.decode())
        if script is READ:
            kept.read = now()
            return self._read(kept, channel, fresh.decode(), rest)
        self._cut(kept, channel, fresh.decode())
        return [kept.epoch.encode(), kept.offset]

    def _publish(self, meta: bytes, channel: bytes, run: bytes, fresh: str, rest: list[bytes]) -> Any:
        body, size, ttl, most, always = rest[0], int(rest[1]), int(rest[2]) / 1000, int(rest[3]), rest[4] == b"1"
        is_new = meta not in self.topics
        kept = self._fenced(meta, run, fresh)
        kept.offset += 1
        heard = self.publish(channel, b"%b %d\n%b" % (kept.epoch.encode(), kept.offset, body))
        if not heard and not always and (kept.read is None or now() - kept.read > max(ttl, 60.0)):
            if is_new:
                del self.topics[meta]
                return None
            return [kept.epoch.encode(), kept.offset]
        kept.stream.append((kept.offset, body))
        while len(kept.stream) > size or sum(len(one) for _, one in kept.stream) > most:
            del kept.stream[0]
        return [kept.epoch.encode(), kept.offset]

    def _renew(self, running: bytes, ended: bytes, name: bytes, lease: float, new: bool, most: int) -> Any:
        leased, over = self.leases.setdefault(running, {}), self.leases.setdefault(ended, {})
        for process in [one for one, until in leased.items() if one and until <= now()]:
            del leased[process]
            over[process] = now()
        whole = leased.setdefault(b"", now() + lease) <= now()
        alive = new or name in leased or (not whole and name not in over)
        if alive:
            leased[name] = now() + lease
        else:
            over[name] = now()
        return [int(alive), list(over)[:most], [*leased, *over] if whole else []]

    def _count(self, meta: bytes, channel: bytes, key: bytes, run: bytes, fresh: str, rest: list[bytes]) -> Any:
        size, ttl, most, always, process, stays, heal, *told = rest
        was_known = key in self.people
        people = self.people.setdefault(key, People())
        kept = self._fenced(meta, run, fresh)
        if kept.people and not was_known:
            people.heal = now() + float(heal)
        deferred = []
        for at in range(0, len(told), 5):
            user, count, was, join, leave = told[at : at + 5]
            counts = people.counts.get(user)
            others = {name: number for name, number in (counts or {}).items() if name != process}
            if was == b"1" and process not in (counts or {}) and counts != {}:
                people.heal = now() + float(heal)
            body = None
            if int(count) or others:
                people.counts[user] = others | ({process: int(count)} if int(count) else {})
                body = join if counts is None and was == b"0" else None
            elif counts is not None or was == b"1":
                if now() < people.heal:
                    people.counts[user] = {}
                    deferred.append(user)
                else:
                    people.counts.pop(user, None)
                    body = leave
            if body is not None and size == b"0":
                self.publish(channel, b"- 0\n" + body)
            elif body is not None:
                self._publish(meta, channel, run, fresh, [body, size, ttl, most, always])
        was_there = process in people.by
        people.by = [*([process] if stays == b"1" else []), *(name for name in people.by if name != process)]
        kept.people = bool(people.counts) or now() < people.heal
        if not kept.people:
            del self.people[key]
        return [int(was_there), deferred]

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
    """A connection with latency, which keeps the order in each direction.

    It can be cut: with an error, or silently, so that nothing arrives any more.
    """

    numbers = itertools.count()

    def __init__(self, server: FakeServer) -> None:
        self.server, self.number, self.channels = server, next(self.numbers), set[bytes]()
        self.is_cut = self.is_silent = False
        self.is_on_replica, self.run_id = False, server.run_id
        self._arrives = self._lands = 0.0
        self._came: asyncio.Queue[Any] = asyncio.Queue()

    def _latency(self) -> float:
        rng = self.server.rng
        if rng.random() < 0.002:
            return 0.5  # longer than a reconnection takes
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
        """Cuts the connection. Data in transit is lost, in both directions."""
        self.server.links.discard(self)
        self.is_cut, self.is_silent = True, silent
        if not silent:
            self._came.put_nowait(ConnectionError("cut"))

    async def receive(self) -> Any:
        """The next answer. Raises it if it is an error."""
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

    def __init__(self, server: FakeServer, ping_interval: float = 0.5, **options: Any) -> None:
        super().__init__("redis://fake", ping_interval=ping_interval, **options)
        self._server = server

    async def _check_rights(self, link: RedisConnection, run_id: bytes) -> None:
        """Does nothing, because a fake refuses nothing."""

    async def _connect(self) -> RedisConnection:
        link = FakeLink(self._server)
        await asyncio.sleep(0.001 + link._latency())
        if not self._server.is_up:
            raise ConnectionError("refused")
        self._server.links.add(link)
        return link
