"""Positions: whole numbers far apart, so that a card which is moved gets one between its neighbours, and no other card
has to change. Only where there is no room left between two are the cards of a column numbered anew.
"""

from collections.abc import Iterator

STEP = 1 << 20  # between two cards that were never moved: room for twenty halvings


def between(above: int | None, below: int | None) -> int | None:
    """A position between two, or beyond one where the other is None; None where there is no room.

    ``between(None, None) == STEP``, ``between(10, 20) == 15``, ``between(10, 11) is None``.
    """
    if below is None:
        return (above or 0) + STEP
    middle = (above + below) // 2 if above is not None else below - STEP
    return None if middle in (above, below) else middle


def renumbered(count: int, above: int) -> Iterator[int]:
    """``count`` positions far apart, all above ``above``: none that is in use is used while cards are numbered."""
    return (above + STEP * number for number in range(1, count + 1))
