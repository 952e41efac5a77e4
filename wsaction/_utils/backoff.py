"""How long to wait before the next try."""

import random

__all__ = ("Backoff",)


class Backoff:
    """Waits that double from ``first`` to ``most`` seconds, each cut by up to a half at random, so that many who lost
    the same server do not come back at once."""

    __slots__ = ("_first", "_most", "_next")

    def __init__(self, first: float = 0.05, most: float = 1.0) -> None:
        self._first = self._next = first
        self._most = most

    def seconds(self) -> float:
        """What to wait now: ``Backoff(1.0, 8.0)`` gives at most 1, 2, 4, 8, 8... and at least half of that."""
        wait, self._next = self._next, min(self._next * 2, self._most)
        return wait * random.uniform(0.5, 1.0)  # noqa: S311  # nothing secret

    def reset(self) -> None:
        """It went well: the next wait is a first one."""
        self._next = self._first
