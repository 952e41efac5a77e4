"""Presence over Redis: the users in each topic, with their connections counted across processes.

A process writes how many connections a user has in it. This is an absolute number, so writing it twice is harmless. The
user's first connection in any process publishes ``join`` to the topic, the end of the last one ``leave``. These are
ordinary events, with offsets if the topic keeps history.

Every process has a *lease* in Redis, by the server's clock, and renews it four times per lease. Each renewal also looks
for expired leases; the counts of those processes are removed, and ``leave`` is published for their users. So a killed
process is removed within a lease and a quarter. A process may lose its own lease, because it was paused or Redis was
wiped. Then it takes a new lease, under a new name, and writes all its counts again.

Redis may lose any of these keys. So once per lease each process checks that what it wrote is still there, and writes it
again if not. It also removes, in its topics, the counts of processes that Redis no longer knows.
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

logger = logging.getLogger("wsaction")

LEASE = 10.0  # seconds that a process counts as alive after a renewal
MAX_UNWRITTEN = 100_000  # unwritten changes; beyond that, a new lease is taken and all is written again
MAX_REAPED = 10  # expired processes that one renewal returns
RENEWALS = 4  # per lease
CHECK_BATCH = 256  # topics that are checked at once
META_TTL_MS = int(META_TTL * 1000)

Keys = Callable[[str], tuple[str, str, str]]

_Key = tuple[str, str]  # topic and user


class RedisRoster:
    """Counts the connections of users in topics, for all processes on one Redis.

    ``keys`` returns the keys of a topic; all other keys begin with ``shared``. ``lease`` is in seconds,
    ``max_topic_bytes`` bounds a topic's history.
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
        self._users: dict[str, set[str]] = {}  # the users in _counts, by topic
        self._written: set[_Key] = set()  # the counts that Redis should have of this process
        self._unwritten: dict[_Key, Place] = {}
        self._deferred: dict[_Key, Place] = {}  # users whose ``leave`` Redis deferred; see COUNT
        self._wake = asyncio.Event()
        self._known_processes: set[str] = set()  # those in Redis; empty if its list may be incomplete
        self._expired: set[str] = set()  # processes whose lease has expired, until they are removed
        self._has_expired = asyncio.Event()
        self.process = ""  # the name of this process, while it has a lease

    def change(self, place: Place, user: str, by: int) -> None:
        """Adds ``by`` to the user's connections in this process. The count is written soon."""
        key = place.topic, user  # routes of the same topic count together
        if (count := self._count(key) + by) > 0:
            self._users.setdefault(place.topic, set()).add(user)
            self._counts[key] = count, place
        elif self._counts.pop(key, None) is not None:
            self._users[place.topic].discard(user)
            if not self._users[place.topic]:
                del self._users[place.topic]
        self._unwritten[key] = place
        if len(self._unwritten) > MAX_UNWRITTEN:
            self._drop_lease()  # its counts expire; under the next lease all are written again
        self._wake.set()

    def _count(self, key: _Key) -> int:
        count, _ = self._counts.get(key, (0, None))
        return count

    async def who(self, topic: str) -> dict[str, int]:
        """The users in a topic, with their connections in all processes. Raises ``LayerUnavailable``."""
        by_user = await self._counts_by_user(topic)
        return {user: total for user, counts in by_user.items() if (total := sum(counts.values()))}

    async def _counts_by_user(self, topic: str) -> dict[str, dict[str, int]]:
        """For each user, the connections in each process."""
        answer = await self._requests.call("HGETALL", presence_key(self._keys(topic)[0]))
        pairs = [(name.decode(errors="surrogatepass"), value) for name, value in zip(*[iter(answer)] * 2, strict=True)]
        return {name[1:]: _parse_counts(value) for name, value in pairs if name.startswith(":")}

    def rewrite(self) -> None:
        """Writes all counts again, because Redis may have lost some."""
        if self._counts:
            self._unwritten.update({key: place for key, (_, place) in self._counts.items()})
            self._wake.set()

    def _drop_lease(self) -> None:
        """Gives up the lease. Under the next name, nothing is written yet."""
        self.process = ""
        self._written.clear()
        self._unwritten.clear()
        self._deferred.clear()

    # ------------------------------------------------------------------------------------------------ leases
    async def run_forever(self) -> None:
        """Renews the lease, removes expired processes and writes counts, once there is a first user."""
        await self._wake.wait()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self._renew, self._lease / RENEWALS))
            tasks.create_task(self._repeat(self._restore_lost, self._lease))
            tasks.create_task(self._remove_expired_forever())
            tasks.create_task(self._write_forever())

    async def withdraw(self) -> None:
        """Removes all counts of this process, at its end. Raises ``LayerUnavailable``."""
        if self.process:
            process = self.process
            self._drop_lease()
            self._counts.clear()
            self._users.clear()
            await self._remove_process(process)
            await self._requests.call("ZREM", f"{self._shared}:processes", process)

    async def _repeat(self, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        """Runs ``work`` at this interval, counted from its start, so that a late answer delays no renewal."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + seconds
            await self._run_logged(work)
            await asyncio.sleep(due - loop.time())

    async def _remove_expired_forever(self) -> None:
        """Removes expired processes. A task of its own, since a process in many topics may take longer than a lease."""
        while True:
            await self._has_expired.wait()
            self._has_expired.clear()
            for process in tuple(self._expired):
                self._expired.discard(process)  # if this fails, the next renewal returns it again
                await self._run_logged(partial(self._remove_process, process))

    async def _run_logged(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except LayerUnavailable as exc:
            logger.debug("presence could not be updated: %r", exc)
        except Exception:  # other programs may have written anything into Redis
            logger.exception("presence in Redis could not be updated")

    async def _request_lease(self, process: str, new: bool) -> tuple[bool, list[str], set[str]]:
        """Renews or takes a lease. Returns whether it has it, expired processes, and all processes if known."""
        keys = f"{self._shared}:processes", f"{self._shared}:ended"
        lease = str(self._lease), int(new), MAX_REAPED, META_TTL_MS
        alive, expired, names = await self._requests.run(RENEW, keys, process, *lease)
        return bool(alive), [name.decode() for name in expired], {name.decode() for name in names}

    async def _renew(self) -> None:
        """Renews or takes the lease, and notes the processes whose lease has expired."""
        new = not self.process
        name = self.process or secrets.token_urlsafe(9)
        alive, expired, self._known_processes = await self._request_lease(name, new)
        if not alive:
            self._drop_lease()
            await self._renew()
            # Another process may have removed the old name too early: before the last writes under it arrived.
            await self._remove_process(name)
            return
        self.process = name
        if new:
            self.rewrite()
        if expired:
            self._expired.update(expired)
            self._has_expired.set()

    # ------------------------------------------------------------------------------------------------ lost keys
    async def _restore_lost(self) -> None:
        """Writes counts again that Redis has lost, and removes counts of processes that it no longer knows."""
        if not self.process:
            return  # all is written with the next lease
        known = self._known_processes
        if self._deferred:
            self._unwritten = {**self._deferred, **self._unwritten}
            self._deferred.clear()
            self._wake.set()
        if self._users and not await self._requests.call("PEXPIRE", self._places(self.process), META_TTL_MS):
            self.rewrite()
        # The places are kept from here on: this process may have no users there any more when they are needed.
        places = [self._counts[topic, next(iter(users))][1] for topic, users in self._users.items()]
        unknown_processes: list[tuple[Place, set[str]]] = []
        for start in range(0, len(places), CHECK_BATCH):
            batch = places[start : start + CHECK_BATCH]
            for place, processes in zip(batch, await asyncio.gather(*map(self._processes_in, batch)), strict=True):
                if self.process not in processes:
                    self._write_again(place.topic)
                if known and (unknown := processes - known):
                    unknown_processes.append((place, unknown))
        # A process takes its lease before it writes counts. So a live one is in a list that is read after its counts.
        if unknown_processes and self.process:  # else the lease was lost meanwhile
            _, _, known = await self._request_lease(self.process, False)
            for place, unknown in unknown_processes:
                for process in unknown - known if known else ():
                    logger.warning("removing the presence counts of an unknown process from %r", place.topic)
                    await self._remove_from_place(process, place)

    async def _processes_in(self, place: Place) -> set[str]:
        meta = self._keys(place.topic)[0]
        processes = await self._requests.run(ALIVE, (presence_key(meta), meta), META_TTL_MS)
        return set((processes or b"").decode(errors="replace").split())

    def _write_again(self, topic: str) -> None:
        """Writes again what was written of a topic."""
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
                continue  # `_renew` writes all counts when it takes the lease
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
        if encoded_places:  # before the counts, so that whichever process removes this one finds them
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
            self._write_again(place.topic)  # the topic's other users were written before, and are lost
        for user, count in counts:
            key = place.topic, user
            if count or user in deferred:
                self._written.add(key)
            else:
                self._written.discard(key)
            if user in deferred:
                self._deferred[key] = place

    async def _run_count(
        self, process: str, place: Place, counts: list[tuple[str, int, bool]], has_users: bool
    ) -> tuple[bool, set[str]]:
        """Writes counts of users in a topic, each with whether the process had written one before.

        Returns whether the topic's hash named the process before, and the users whose ``leave`` is deferred. Those must
        be written again.
        """
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
        args = process, int(has_users), str(2 * self._lease)
        was_there, deferred = await self._requests.run(
            COUNT, (*keys, presence_key(keys[0])), new_epoch(), META_TTL_MS, *limits, *args, *per_user
        )
        return bool(was_there), {user.decode(errors="surrogatepass") for user in deferred}

    async def _remove_process(self, process: str) -> None:
        """Removes the counts of a process. If interrupted, another process removes the rest."""
        encoded_places = await self._requests.call("HGETALL", self._places(process))
        done = True
        for topic, encoded_place in zip(encoded_places[::2], encoded_places[1::2], strict=True):
            place = _decode_place(topic.decode(errors="surrogatepass"), encoded_place)
            done = await self._remove_from_place(process, place) and done
        if done:
            await self._requests.call("DEL", self._places(process))
            await self._requests.call("ZREM", f"{self._shared}:ended", process)

    async def _remove_from_place(self, process: str, place: Place) -> bool:
        """Removes the counts of a process from a topic. Returns False if a leave was deferred: then repeat it."""
        by_user = await self._counts_by_user(place.topic)
        counts = [(user, 0, True) for user, counts in by_user.items() if process in counts]
        _, deferred = await self._run_count(process, place, counts, False)
        return not deferred

    def _places(self, process: str) -> str:
        return f"{self._shared}:places:{process}"


def presence_key(meta: str) -> str:
    """The key of a topic's users, from the key of its meta."""
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
