"""Positions of cards: integers far apart, so that a moved card fits between its neighbours and no other card changes.

Only if no number is left between two neighbours are all cards of the column renumbered.
"""

from collections.abc import Iterator

STEP = 1 << 20  # between cards that were never moved; it can be halved twenty times


def between(above: int | None, below: int | None) -> int | None:
    """A position between two others, or beyond one if the other is None. Returns None if no number is left.

    ``between(None, None) == STEP``, ``between(10, 20) == 15``, ``between(10, 11) is None``.
    """
    if below is None:
        return (above or 0) + STEP
    middle = (above + below) // 2 if above is not None else below - STEP
    return None if middle in (above, below) else middle


def renumbered(count: int, above: int) -> Iterator[int]:
    """``count`` positions far apart, all above ``above``, so that none is in use while cards are renumbered."""
    return (above + STEP * number for number in range(1, count + 1))
