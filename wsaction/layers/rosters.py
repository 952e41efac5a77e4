"""Who is where: the users that are subscribed to a topic, with their connections counted, across processes.

A process writes how many connections of a user it has, as an absolute number, so that writing it twice changes nothing.
The first connection of a user anywhere is told to the topic as a ``join``, the end of the last one as a ``leave``:
ordinary events, with offsets where the topic keeps history.

On Redis every process has a *lease*, by the server's clock, which it renews four times as often as it runs out. Whoever
renews looks for leases that have run out, takes what those processes had written away, and tells who has left. So a
process that was killed is forgotten within a lease and a quarter. A process that finds its own lease gone, because it
was paused or Redis was wiped, takes another one and writes everything anew.
"""

import asyncio
import json
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from wsaction.backoff import Backoff
from wsaction.events import encode_event
from wsaction.exceptions import LayerUnavailable
from wsaction.frames import quote
from wsaction.layers.base import META_TTL, History, Place, new_epoch
from wsaction.layers.links import Pipeline
from wsaction.layers.scripts import COUNT, RENEW

__all__ = ("LEASE", "MemoryRoster", "RedisRoster")

logger = logging.getLogger("wsaction")

LEASE = 10.0  # seconds that a process is believed to live for without a word
MAX_UNWRITTEN = 100_000  # users whose count has changed, before a new lease is taken instead
MAX_REAPED = 10  # processes that are forgotten in one go

Tell = Callable[[str, bytes, History | None], object]
Keys = Callable[[str], tuple[str, str, str]]

_Key = tuple[str, str]  # topic and user


def _data(user: str) -> str:
    return f'{{"user":{quote(user)}}}'


def _join(place: Place, user: str) -> bytes:
    return encode_event("join", place.route, _data(user)).encode(errors="replace")


def _leave(place: Place, user: str) -> bytes:
    return encode_event("leave", place.route, _data(user)).encode(errors="replace")


class MemoryRoster:
    """The roster of one process."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._counts: dict[str, dict[str, int]] = {}

    def change(self, place: Place, user: str, by: int) -> None:
        """So many connections of the user more, or less."""
        counts = self._counts.setdefault(place.topic, {})
        before, after = counts.get(user, 0), counts.get(user, 0) + by
        if after > 0:
            counts[user] = after
        else:
            counts.pop(user, None)
        if not counts:
            del self._counts[place.topic]
        if before <= 0 < after:
            self._tell(place.topic, _join(place, user), place.history)
        elif after <= 0 < before:
            self._tell(place.topic, _leave(place, user), place.history)

    async def who(self, topic: str) -> dict[str, int]:
        """Users and their connections."""
        return dict(self._counts.get(topic, {}))

    def clear(self) -> None:
        """Forgets all, and tells nobody."""
        self._counts.clear()


class RedisRoster:
    """The roster of all processes on one Redis.

    ``keys`` names a topic's keys, ``shared`` begins the names of those that are no topic's; ``lease`` is in seconds.
    """

    def __init__(self, requests: Pipeline, keys: Keys, shared: str, lease: float) -> None:
        self._requests, self._keys, self._shared, self._lease = requests, keys, shared, lease
        self._counts: dict[_Key, tuple[int, Place]] = {}
        self._users = Counter[str]()  # how many of those are of each topic
        self._unwritten: dict[_Key, Place] = {}
        self._wake = asyncio.Event()
        self.process = ""  # the name that this process has leased, while it has one

    def change(self, place: Place, user: str, by: int) -> None:
        """So many connections of the user more, or less, in this process; written soon."""
        key = place.topic, user  # several routes may be of one topic, and count together
        if (count := self._count(key) + by) > 0:
            self._users[place.topic] += key not in self._counts
            self._counts[key] = count, place
        elif self._counts.pop(key, None) is not None:
            self._users[place.topic] -= 1
            if not self._users[place.topic]:
                del self._users[place.topic]
        self._unwritten[key] = place
        if len(self._unwritten) > MAX_UNWRITTEN:
            self._unwritten.clear()
            self.process = ""  # what it had written runs out; under the next lease all is written anew
        self._wake.set()

    def _count(self, key: _Key) -> int:
        known = self._counts.get(key)
        return known[0] if known is not None else 0

    async def who(self, topic: str) -> dict[str, int]:
        """Users and their connections, in all processes. Raises ``LayerUnavailable``."""
        return _counted(await self._requests.call("HGETALL", self._people(topic)))

    def rewrite(self) -> None:
        """Has everything written anew: for a Redis that may have lost some of it."""
        if self._counts:
            self._unwritten.update({key: place for key, (_, place) in self._counts.items()})
            self._wake.set()

    # ------------------------------------------------------------------------------------------------ its life
    async def run_forever(self) -> None:
        """Leases, renews, and forgets processes that did not, from the first who is here on."""
        await self._wake.wait()
        async with asyncio.TaskGroup() as both:
            both.create_task(self._renew_forever())
            both.create_task(self._write_forever())

    async def withdraw(self) -> None:
        """Takes everything of this process away, as it ends. Raises ``LayerUnavailable``."""
        if self.process:
            process, self.process = self.process, ""
            self._counts.clear()
            self._users.clear()
            await self._forget(process)
            await self._requests.call("ZREM", f"{self._shared}:processes", process)

    async def _renew_forever(self) -> None:
        while True:
            try:
                await self._renew()
            except LayerUnavailable as exc:
                logger.debug("the lease was not renewed: %r", exc)
            except Exception:  # what others wrote into Redis may be anything
                logger.exception("processes whose lease has run out could not be forgotten")
            await asyncio.sleep(self._lease / 4)

    async def _renew(self) -> None:
        """Renews the lease, or takes one; forgets those whose lease has run out."""
        new = not self.process
        name = self.process or secrets.token_urlsafe(9)
        keys = f"{self._shared}:processes", f"{self._shared}:ended"
        alive, ended = await self._requests.run(RENEW, keys, name, str(self._lease), int(new), MAX_REAPED)
        if not alive:
            self.process = ""
            await self._renew()
            await self._forget(name)  # another may have done so before what was on its way under that name was there
            return
        self.process = name
        if new:
            self.rewrite()
        for process in ended:
            await self._forget(process.decode())

    async def _write_forever(self) -> None:
        backoff = Backoff()
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self.process:
                continue  # written by whoever takes the lease
            batch, self._unwritten = self._unwritten, {}
            try:
                await self._write(self.process, batch)
                backoff.reset()
            except LayerUnavailable:
                self._unwritten = {**batch, **self._unwritten}
                self._wake.set()
                await asyncio.sleep(backoff.seconds())

    async def _write(self, process: str, batch: dict[_Key, Place]) -> None:
        places: dict[Place, list[tuple[str, int]]] = {}
        for key, place in batch.items():
            places.setdefault(place, []).append((key[1], self._count(key)))
        noted = [item for place in places for item in (place.topic, _noted(place))]
        if noted:  # before the counts, so that whoever forgets this process finds them
            writes: list[Awaitable[Any]] = [self._requests.call("HSET", self._places(process), *noted)]
            writes += [self._tell_counts(process, place, counts) for place, counts in places.items()]
            await asyncio.gather(*writes)
        if empty := [place.topic for place in places if place.topic not in self._users]:
            await self._requests.call("HDEL", self._places(process), *empty)

    def _tell_counts(self, process: str, place: Place, counts: list[tuple[str, int]]) -> Awaitable[Any]:
        size, ttl = (place.history.size, int(place.history.ttl * 1000)) if place.history else (0, 0)
        told = [item for user, n in counts for item in (user, n, _join(place, user), _leave(place, user))]
        keys = (*self._keys(place.topic), self._people(place.topic), f"{self._people(place.topic)}:{process}")
        return self._requests.run(COUNT, keys, new_epoch(), int(META_TTL * 1000), size, ttl, *told)

    async def _forget(self, process: str) -> None:
        """Takes away what a process had written; whoever is cut off half-way leaves the rest to the next."""
        noted = await self._requests.call("HGETALL", self._places(process))
        for topic, about in zip(noted[::2], noted[1::2], strict=True):
            place = _place(topic.decode(errors="surrogatepass"), about)
            written = await self._requests.call("HGETALL", f"{self._people(place.topic)}:{process}")
            if written:
                await self._tell_counts(process, place, [(user, 0) for user in _counted(written)])
        await self._requests.call("DEL", self._places(process))
        await self._requests.call("ZREM", f"{self._shared}:ended", process)

    def _people(self, topic: str) -> str:
        return self._keys(topic)[0].removesuffix(":meta") + ":people"

    def _places(self, process: str) -> str:
        return f"{self._shared}:places:{process}"


def _counted(answer: list[bytes]) -> dict[str, int]:
    pairs = zip(answer[::2], answer[1::2], strict=True)
    return {user.decode(errors="surrogatepass"): int(count) for user, count in pairs}


def _noted(place: Place) -> str:
    history = place.history
    return json.dumps([place.route, history and history.size, history and history.ttl])


def _place(topic: str, about: bytes) -> Place:
    route, size, ttl = json.loads(about)
    return Place(topic, route, History(size, ttl) if size else None)
