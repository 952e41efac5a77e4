"""How long to wait before the next try."""

import random
from collections.abc import Callable

__all__ = ("Backoff",)


class Backoff:
    """Waits whose bound doubles from ``first`` to ``longest`` seconds. Each is random, so that many who lost the same
    server do not come back at once: from ``least`` of its bound (0.0: "full jitter") up to all of it.

    ``random_float`` gives a float from 0 to 1. ``Backoff(0.5, 30, lambda: 1.0).seconds()`` is 0.5, then 1, 2, 4, 8,
    16, 30. Raises ``ValueError`` unless 0 < first <= most.
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
            raise ValueError(
                f"a back-off's first and longest wait: expected 0 < first <= most, got {first} and {longest}"
            )
        self._first = first
        self._longest = longest
        self._random_float = random_float
        self._least = least
        self._next = first

    def seconds(self) -> float:
        """What to wait now."""
        bound = self._next
        self._next = min(bound * 2, self._longest)
        return bound * (self._least + (1 - self._least) * self._random_float())

    def reset(self) -> None:
        """It went well: the next wait is a first one."""
        self._next = self._first
