"""Suggestions at the end of error messages: "did you mean 'title'?"."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: object, known: Iterable[str], otherwise: str) -> str:
    """Suggests the known name that is most like ``name``, or lists all names after ``otherwise`` if none is similar.

    ``did_you_mean("titel", ["title"], "there are")`` is ``"did you mean 'title'?"``; for ``"x"`` it is
    ``"there are title"``.
    """
    names = list(known)
    closest = get_close_matches(str(name)[:100], names, 1)
    return f"did you mean {closest[0]!r}?" if closest else f"{otherwise} {', '.join(names) or 'none'}"
