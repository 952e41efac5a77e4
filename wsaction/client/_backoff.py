"""How long to wait before the next try."""

import random
from collections.abc import Callable

__all__ = ("Backoff",)


class Backoff:
    """Waits of a random length, from none to a bound that doubles each time from ``first`` to ``most`` seconds ("full
    jitter"): many that lost the same server come back spread over the whole time.

    ``chance`` gives a float from 0 to 1. ``Backoff(0.5, 30, lambda: 1.0).seconds()`` is 0.5, then 1, 2, 4, 8, 16, 30.
    Raises ``ValueError`` unless 0 < first <= most.
    """

    def __init__(self, first: float = 0.5, most: float = 30.0, chance: Callable[[], float] = random.random) -> None:
        if not 0 < first <= most:
            raise ValueError(f"a back-off's first and longest wait: expected 0 < first <= most, got {first} and {most}")
        self._first, self._most, self._chance = first, most, chance
        self._next = first

    def seconds(self) -> float:
        """What to wait now."""
        bound, self._next = self._next, min(self._next * 2, self._most)
        return self._chance() * bound

    def reset(self) -> None:
        """It went well: the next wait is a first one."""
        self._next = self._first
