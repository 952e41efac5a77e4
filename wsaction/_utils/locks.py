"""Locks by name: each is there only while somebody has it or wants it."""

import asyncio
from collections.abc import Iterable

__all__ = ("Held", "Locks")


class _Lock:
    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock, self.users = asyncio.Lock(), 0


class Locks:
    """Who comes first has a name's lock first. Several names are asked for in their order, so that nobody waits in a
    circle."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[str, _Lock] = {}

    def __len__(self) -> int:
        return len(self._locks)

    async def acquire(self, names: Iterable[str]) -> "Held":
        """Waits until all names are ours."""
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
        if (known := self._locks.get(name)) is None:
            known = self._locks[name] = _Lock()
        known.users += 1
        try:
            await known.lock.acquire()
        except BaseException:
            self._leave(name, known)
            raise

    def _leave(self, name: str, known: _Lock) -> None:
        known.users -= 1
        if not known.users:
            del self._locks[name]

    def release(self, name: str) -> None:
        """Gives one up."""
        known = self._locks[name]
        known.lock.release()
        self._leave(name, known)


class Held:
    """What was acquired together."""

    __slots__ = ("_locks", "names")

    def __init__(self, locks: Locks) -> None:
        self._locks, self.names = locks, list[str]()

    def release(self) -> None:
        """Gives all of it up; the second time nothing happens."""
        names, self.names = self.names, []
        for name in names:
            self._locks.release(name)
