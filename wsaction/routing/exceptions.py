"""The exceptions of the router: `ImproperlyConfigured`, `Resolver404` and `NoReverseMatch`.

All of wsaction raises ``ImproperlyConfigured`` for a wrong declaration. `wsaction.exceptions` exports it too.
"""

import difflib
import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsaction.routing._resolver import Leaf

__all__ = ("ImproperlyConfigured", "NoReverseMatch", "Resolver404")


class ImproperlyConfigured(Exception):
    """A declaration or a setting is wrong. The message says what was expected, what came, and the cure."""


class Resolver404(Exception):
    """No pattern matches ``route``. ``str()`` names the patterns that are most like it.

    The message and ``tried`` are built only when they are read, so raising this exception is cheap.
    """

    def __init__(self, route: str, leaves: "Sequence[Leaf]") -> None:
        super().__init__(route)
        self.route = route
        self._leaves = leaves

    @property
    def tried(self) -> list[str]:
        """The texts of all patterns, in the order of their declaration."""
        return [leaf.route for leaf in self._leaves]

    def nearest(self) -> list[str]:
        """The texts of at most three patterns like the route, the best first.

        The work is bounded, because a client chooses the route: only the first 200 characters of each text count, and
        only the 50 patterns that share most segments are compared.
        """
        route = self.route[:200]
        segments = set(route.split("/"))
        texts = dict.fromkeys(leaf.route[:200] for leaf in self._leaves)
        likely = heapq.nlargest(50, texts, key=lambda text: len(segments.intersection(text.lstrip("^").split("/"))))
        return difflib.get_close_matches(route, likely, n=3, cutoff=0.4)

    def __str__(self) -> str:
        shown = repr(self.route) if len(self.route) <= 200 else f"{self.route[:200]!r}..."
        near = ", ".join(map(repr, self.nearest()))
        return (
            f"None of the {len(self._leaves)} patterns matches the route {shown}."
            + (f" Did you mean one of {near}?" if near else "")
            + (" Routes have no leading slash." if self.route.startswith("/") else "")
        )


class NoReverseMatch(Exception):
    """No pattern of that name takes these arguments.

    The message lists the patterns that were tried and the arguments they take. For an unknown name it suggests similar
    names.
    """
