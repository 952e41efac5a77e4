"""Locks by name. Each exists only while a task holds it or waits for it."""

import asyncio
from collections.abc import Iterable


class _Entry:
    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class Locks:
    """Fair locks by name. Several names are acquired in sorted order, so that tasks cannot deadlock."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._locks)

    async def acquire(self, names: Iterable[str]) -> "Held":
        """Waits until this task holds the locks of all names. Release them by `Held.release`."""
        held = Held(self)
        try:
            for name in sorted(set(names)):
                await self._acquire(name)
                held.names.append(name)
        except BaseException:
            held.release()
            raise
        return held

    async def _acquire(self, name: str) -> None:
        if (entry := self._locks.get(name)) is None:
            entry = self._locks[name] = _Entry()
        entry.users += 1
        try:
            await entry.lock.acquire()
        except BaseException:
            self._remove_user(name, entry)
            raise

    def _remove_user(self, name: str, entry: _Entry) -> None:
        entry.users -= 1
        if not entry.users:
            del self._locks[name]

    def release(self, name: str) -> None:
        """Releases one lock."""
        entry = self._locks[name]
        entry.lock.release()
        self._remove_user(name, entry)


class Held:
    """The locks that one `Locks.acquire` returned."""

    __slots__ = ("_locks", "names")

    def __init__(self, locks: Locks) -> None:
        self._locks = locks
        self.names: list[str] = []

    def release(self) -> None:
        """Releases all of them. A second call does nothing."""
        names, self.names = self.names, []
        for name in names:
            self._locks.release(name)
