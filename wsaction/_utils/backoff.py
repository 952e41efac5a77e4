"""Exponential back-off with jitter: how long to wait before the next try."""

import random
from collections.abc import Callable


class Backoff:
    """Exponential back-off with jitter. The bound doubles from ``first`` to ``longest`` seconds.

    Each wait is random, between the fraction ``least`` of its bound (0.0 is "full jitter") and the bound, so that many
    clients of a lost server do not come back at once. ``random_float`` returns a float from 0 to 1.

    Raises ``ValueError`` unless 0 < first <= longest. ``Backoff(0.5, 30, lambda: 1.0).seconds()`` is 0.5, then 1, 2, 4,
    8, 16, 30.
    """

    __slots__ = ("_first", "_least", "_longest", "_next", "_random_float")

    def __init__(
        self,
        first: float = 0.05,
        longest: float = 1.0,
        random_float: Callable[[], float] = random.random,
        *,
        least: float = 0.5,
    ) -> None:
        if not 0 < first <= longest:
            raise ValueError(f"a back-off needs 0 < first <= longest seconds, got first={first} and longest={longest}")
        self._first = first
        self._longest = longest
        self._random_float = random_float
        self._least = least
        self._next = first

    def seconds(self) -> float:
        """The next wait, in seconds."""
        bound = self._next
        self._next = min(bound * 2, self._longest)
        return bound * (self._least + (1 - self._least) * self._random_float())

    def reset(self) -> None:
        """Starts over after a success: the next wait is a first one."""
        self._next = self._first
