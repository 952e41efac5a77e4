"""Who is where: the users that are subscribed to a topic, with their connections counted, across processes.

A process writes how many connections of a user it has, as an absolute number, so that writing it twice changes nothing.
The first connection of a user anywhere is told to the topic as a ``join``, the end of the last one as a ``leave``:
ordinary events, with offsets where the topic keeps history.

On Redis every process has a *lease*, by the server's clock, which it renews four times as often as it runs out. Whoever
renews looks for leases that have run out, takes what those processes had written away, and tells who has left. So a
process that was killed is forgotten within a lease and a quarter. A process that finds its own lease gone, because it
was paused or Redis was wiped, takes another one and writes everything anew.

Redis may lose any of these keys. So once in a lease each process looks whether what it wrote is still there, and writes
it again if not; and whether a topic's hash names processes that nobody knows any more, whose counts it takes away.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from wsaction._utils.backoff import Backoff
from wsaction.exceptions import LayerUnavailable
from wsaction.layers._presence_events import encode_join, encode_leave
from wsaction.layers._redis_pipeline import Pipeline
from wsaction.layers._redis_scripts import ALIVE, COUNT, RENEW
from wsaction.layers.base import MAX_TOPIC_BYTES, META_TTL, History, Place, new_epoch

__all__ = ("LEASE", "RedisRoster", "presence_key")

logger = logging.getLogger("wsaction")

LEASE = 10.0  # seconds that a process is believed to live for without a word
MAX_UNWRITTEN = 100_000  # users whose count has changed, before a new lease is taken instead
MAX_REAPED = 10  # processes that are forgotten in one go
RENEWALS = 4  # of a lease, before it would run out; once in a lease it is looked for what was lost
CHECK_BATCH = 256  # topics that are looked at in one go
META_TTL_MS = int(META_TTL * 1000)

Tell = Callable[[str, bytes, History | None], object]
Keys = Callable[[str], tuple[str, str, str]]

_Key = tuple[str, str]  # topic and user


class RedisRoster:
    """The roster of all processes on one Redis.

    ``keys`` names a topic's keys, ``shared`` begins the names of those that are no topic's; ``lease`` is in seconds,
    ``max_topic_bytes`` the bound of a topic's history.
    """

    def __init__(
        self, requests: Pipeline, keys: Keys, shared: str, lease: float, max_topic_bytes: int = MAX_TOPIC_BYTES
    ) -> None:
        self._requests = requests
        self._keys = keys
        self._shared = shared
        self._lease = lease
        self._max_topic_bytes = max_topic_bytes
        self._counts: dict[_Key, tuple[int, Place]] = {}
        self._users: dict[str, set[str]] = {}  # those of them by topic
        self._written: set[_Key] = set()  # what Redis has of this process, as far as it knows
        self._unwritten: dict[_Key, Place] = {}
        self._deferred: dict[_Key, Place] = {}  # users who have left a topic that is healing
        self._wake = asyncio.Event()
        self._known_processes: set[str] = set()  # of all processes, none where they are not known
        self._expired: set[str] = set()  # whose lease has run out, until they are forgotten
        self._has_expired = asyncio.Event()
        self.process = ""  # the name that this process has leased, while it has one

    def change(self, place: Place, user: str, by: int) -> None:
        """So many connections of the user more, or less, in this process; written soon."""
        key = place.topic, user  # several routes may be of one topic, and count together
        if (count := self._count(key) + by) > 0:
            self._users.setdefault(place.topic, set()).add(user)
            self._counts[key] = count, place
        elif self._counts.pop(key, None) is not None:
            self._users[place.topic].discard(user)
            if not self._users[place.topic]:
                del self._users[place.topic]
        self._unwritten[key] = place
        if len(self._unwritten) > MAX_UNWRITTEN:
            self._drop_lease()  # what it had written runs out; under the next lease all is written anew
        self._wake.set()

    def _count(self, key: _Key) -> int:
        count, _ = self._counts.get(key, (0, None))
        return count

    async def who(self, topic: str) -> dict[str, int]:
        """Users and their connections, in all processes. Raises ``LayerUnavailable``."""
        by_user = await self._counts_by_user(topic)
        return {user: total for user, counts in by_user.items() if (total := sum(counts.values()))}

    async def _counts_by_user(self, topic: str) -> dict[str, dict[str, int]]:
        """How many connections each process has, by user."""
        answer = await self._requests.call("HGETALL", presence_key(self._keys(topic)[0]))
        pairs = [(name.decode(errors="surrogatepass"), value) for name, value in zip(*[iter(answer)] * 2, strict=True)]
        return {name[1:]: _parse_counts(value) for name, value in pairs if name.startswith(":")}

    def rewrite(self) -> None:
        """Has everything written anew: for a Redis that may have lost some of it."""
        if self._counts:
            self._unwritten.update({key: place for key, (_, place) in self._counts.items()})
            self._wake.set()

    def _drop_lease(self) -> None:
        """Nothing is written under the name of the next lease."""
        self.process = ""
        self._written.clear()
        self._unwritten.clear()
        self._deferred.clear()

    # ------------------------------------------------------------------------------------------------ its life
    async def run_forever(self) -> None:
        """Leases, renews, and forgets processes that did not, from the first who is here on."""
        await self._wake.wait()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self._renew, self._lease / RENEWALS))
            tasks.create_task(self._repeat(self._restore_lost, self._lease))
            tasks.create_task(self._remove_expired_forever())
            tasks.create_task(self._write_forever())

    async def withdraw(self) -> None:
        """Takes everything of this process away, as it ends. Raises ``LayerUnavailable``."""
        if self.process:
            process = self.process
            self._drop_lease()
            self._counts.clear()
            self._users.clear()
            await self._remove_process(process)
            await self._requests.call("ZREM", f"{self._shared}:processes", process)

    async def _repeat(self, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        """Does something every so many seconds, counted from its beginning: an answer that is late delays no lease."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + seconds
            await self._run_logged(work)
            await asyncio.sleep(due - loop.time())

    async def _remove_expired_forever(self) -> None:
        """Apart from renewing: who was in many topics takes longer to forget than a lease."""
        while True:
            await self._has_expired.wait()
            self._has_expired.clear()
            for process in tuple(self._expired):
                self._expired.discard(process)  # if it cannot be forgotten, the next renewal names it again
                await self._run_logged(partial(self._remove_process, process))

    async def _run_logged(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except LayerUnavailable as exc:
            logger.debug("presence could not be kept up: %r", exc)
        except Exception:  # what others wrote into Redis may be anything
            logger.exception("processes whose lease has run out could not be forgotten")

    async def _request_lease(self, process: str, new: bool) -> tuple[bool, list[str], set[str]]:
        """Renews a lease, or takes one. Whether it is had, those that have run out, and all names, if known."""
        keys = f"{self._shared}:processes", f"{self._shared}:ended"
        lease = str(self._lease), int(new), MAX_REAPED, META_TTL_MS
        alive, expired, names = await self._requests.run(RENEW, keys, process, *lease)
        return bool(alive), [name.decode() for name in expired], {name.decode() for name in names}

    async def _renew(self) -> None:
        """Renews the lease, or takes one; forgets those whose lease has run out."""
        new = not self.process
        name = self.process or secrets.token_urlsafe(9)
        alive, expired, self._known_processes = await self._request_lease(name, new)
        if not alive:
            self._drop_lease()
            await self._renew()
            # Another may have done so before what was on its way under that name was there.
            await self._remove_process(name)
            return
        self.process = name
        if new:
            self.rewrite()
        if expired:
            self._expired.update(expired)
            self._has_expired.set()

    # ------------------------------------------------------------------------------------------------ what was lost
    async def _restore_lost(self) -> None:
        """Writes again what Redis has lost of this process, and forgets processes that nobody knows."""
        if not self.process:
            return  # all is written anew with the next lease
        names = self._known_processes
        if self._deferred:
            self._unwritten = {**self._deferred, **self._unwritten}
            self._deferred.clear()
            self._wake.set()
        if self._users and not await self._requests.call("PEXPIRE", self._places(self.process), META_TTL_MS):
            self.rewrite()
        topics = list(self._users)
        unknown_processes: dict[str, set[str]] = {}
        for start in range(0, len(topics), CHECK_BATCH):
            batch = topics[start : start + CHECK_BATCH]
            for topic, processes in zip(batch, await asyncio.gather(*map(self._processes_in, batch)), strict=True):
                if self.process not in processes:
                    self._write_again(topic)
                if names and (unknown := processes - names):
                    unknown_processes[topic] = unknown
        if unknown_processes:  # what is there has a lease already, so a list that is read now has it too, if it lives
            _, _, names = await self._request_lease(self.process, False)
            for topic, unknown in unknown_processes.items():
                for process in unknown - names if names else ():
                    logger.warning("taking away what an unknown process has written of who is in %r", topic)
                    await self._remove_from_topic(topic, process)

    async def _processes_in(self, topic: str) -> set[str]:
        meta = self._keys(topic)[0]
        processes = await self._requests.run(ALIVE, (presence_key(meta), meta), META_TTL_MS)
        return set((processes or b"").decode(errors="replace").split())

    def _write_again(self, topic: str) -> None:
        """Has what was written of a topic written again."""
        lost = [key for user in self._users.get(topic, ()) if (key := (topic, user)) in self._written]
        if lost:
            self._unwritten.update({key: self._counts[key][1] for key in lost})
            self._wake.set()

    # ------------------------------------------------------------------------------------------------ writing
    async def _write_forever(self) -> None:
        backoff = Backoff()
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self.process:
                continue  # written by whoever takes the lease
            batch, self._unwritten = self._unwritten, {}
            process = self.process
            try:
                await self._write(process, batch)
                backoff.reset()
            except LayerUnavailable:
                if process == self.process:
                    self._unwritten = {**batch, **self._unwritten}
                self._wake.set()
                await asyncio.sleep(backoff.seconds())

    async def _write(self, process: str, batch: dict[_Key, Place]) -> None:
        places: dict[Place, list[tuple[str, int]]] = {}
        for key, place in batch.items():
            places.setdefault(place, []).append((key[1], self._count(key)))
        encoded_places = [item for place in places for item in (place.topic, _encode_place(place))]
        if encoded_places:  # before the counts, so that whoever forgets this process finds them
            writes: list[Awaitable[Any]] = [
                self._requests.call("HSET", self._places(process), *encoded_places),
                self._requests.call("PEXPIRE", self._places(process), META_TTL_MS),
            ]
            writes += [self._write_counts(process, place, counts) for place, counts in places.items()]
            await asyncio.gather(*writes)
        if empty := [place.topic for place in places if place.topic not in self._users]:
            await self._requests.call("HDEL", self._places(process), *empty)

    async def _write_counts(self, process: str, place: Place, counts: list[tuple[str, int]]) -> None:
        written = [(user, count, (place.topic, user) in self._written) for user, count in counts]
        was_there, deferred = await self._run_count(process, place, written, place.topic in self._users)
        if process != self.process:
            return
        if not was_there:
            self._write_again(place.topic)  # the others, that were written before and are lost
        for user, count in counts:
            key = place.topic, user
            if count or user in deferred:
                self._written.add(key)
            else:
                self._written.discard(key)
            if user in deferred:
                self._deferred[key] = place

    async def _run_count(
        self, process: str, place: Place, counts: list[tuple[str, int, bool]], stays: bool
    ) -> tuple[bool, set[str]]:
        """Writes counts; for each user also whether the process had written one. Returns whether the process was known
        there, and those whose leaving is told once the topic has healed, and who are to be written again then."""
        history = place.history
        limits: tuple[int, ...] = (0, 0, 0, 0)
        if history is not None:
            limits = history.size, int(history.ttl * 1000), self._max_topic_bytes, int(history.always)
        per_user = [
            item
            for user, count, was_written in counts
            for item in (user, count, int(was_written), encode_join(place, user), encode_leave(place, user))
        ]
        keys = self._keys(place.topic)
        args = process, int(stays), str(2 * self._lease)
        was_there, deferred = await self._requests.run(
            COUNT, (*keys, presence_key(keys[0])), new_epoch(), META_TTL_MS, *limits, *args, *per_user
        )
        return bool(was_there), {user.decode(errors="surrogatepass") for user in deferred}

    async def _remove_process(self, process: str) -> None:
        """Takes away what a process had written; whoever is cut off half-way leaves the rest to the next."""
        encoded_places = await self._requests.call("HGETALL", self._places(process))
        done = True
        for topic, encoded_place in zip(encoded_places[::2], encoded_places[1::2], strict=True):
            place = _decode_place(topic.decode(errors="surrogatepass"), encoded_place)
            done = await self._remove_from_topic(place.topic, process, place) and done
        if done:
            await self._requests.call("DEL", self._places(process))
            await self._requests.call("ZREM", f"{self._shared}:ended", process)

    async def _remove_from_topic(self, topic: str, process: str, place: Place | None = None) -> bool:
        """Takes away what a process had written of a topic; False where that has to be done again."""
        if place is None:  # a topic where this process has users, told as they are
            place = next(known for (name, _), (_, known) in self._counts.items() if name == topic)
        counts = [(user, 0, True) for user, counts in (await self._counts_by_user(topic)).items() if process in counts]
        _, deferred = await self._run_count(process, place, counts, False)
        return not deferred

    def _places(self, process: str) -> str:
        return f"{self._shared}:places:{process}"


def presence_key(meta: str) -> str:
    """The key of a topic's users, by that of its meta."""
    return meta.removesuffix(":meta") + ":people"


def _parse_counts(value: bytes) -> dict[str, int]:
    """``_counted(b"k3Jx 2 a7Qd 1")`` is ``{"k3Jx": 2, "a7Qd": 1}``."""
    words = value.decode(errors="replace").split()
    return {process: int(count) for process, count in zip(words[::2], words[1::2], strict=True)}


def _encode_place(place: Place) -> str:
    history = place.history
    return json.dumps([place.route, history and history.size, history and history.ttl, history and history.always])


def _decode_place(topic: str, encoded_place: bytes) -> Place:
    route, size, ttl, always = json.loads(encoded_place)
    return Place(topic, route, History(size, ttl, always) if size else None)
