"""A trie that finds the patterns that could match a route, without trying every pattern.

A ``Trie`` is a filter. It knows the *outline* of each pattern: the literals that every matching text must have, and the
holes between them. For a route it returns all patterns whose outline fits, lowest index first. It may return too many,
never too few: only the compiled regex decides whether a pattern matches. So the filter is wrong only if an outline
claims a literal that a match can lack. Where a regex is not understood, the outline claims nothing.

An outline is cut at slashes, and the trie has one level per segment. A hole never holds a slash. A part that may hold
one (``<path:rest>``, or any converter or regex not proven otherwise) ends the outline, which is then *open*: of what
follows, only the literal at the very end is kept.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from wsaction.routing._patterns import Pattern

# One step of a regex: an escape, a class, the opening of a group, or a single character. It is compiled on first use,
# to keep the import cheap.
_STEP = (
    r"(?s)\\(?:x..|u.{4}|U.{8}|N\{[^}]*\}|[0-9]{1,3}|.)"
    r"|\[\^?+\]?+(?:\\.|[^\]\\])*+\]"
    r"|\((?:\?(?:P<\w+>|.))?"
    r"|."
)
_PLAIN_GROUP = r"\((?:\?P<\w+>|\?:)?"
_HOLE = ""


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """The shape of every text that a pattern, or a chain of patterns, matches.

    The text has the ``pieces`` in this order, where "" is a hole without slashes. If ``is_open``, any text may follow.
    The text ends with ``tail``.
    """

    pieces: tuple[str, ...]
    is_open: bool
    tail: str = ""

    def __add__(self, other: "Outline") -> "Outline":
        if self.is_open:
            return Outline(self.pieces, True, other.tail)
        return Outline(self.pieces + other.pieces, other.is_open, other.tail)


def outline(pattern: Pattern) -> Outline:
    r"""The outline of one pattern. ``^a/(?P<pk>\d+)/$`` has the pieces ``a``, ``/``, a hole and ``/``.

    A regex that may begin anywhere, or has alternatives at its top level, is open and has no pieces.
    """
    text = pattern.regex.pattern
    is_full_match = pattern.is_endpoint and pattern.is_regex and text.endswith("$")
    steps = re.findall(_STEP, text.removeprefix("^"))
    is_anchored_at_end = is_full_match or (pattern.is_endpoint and steps[-1:] == [r"\Z"])
    if is_anchored_at_end and steps[-1] in ("$", r"\Z"):
        steps.pop()
    scan = _Scan(steps)
    # Flags change what a literal means; comments and conditions break the count of parentheses.
    is_unsupported = pattern.regex.flags != re.UNICODE or "(?#" in text or "(?(" in text
    if scan.has_alternatives or is_unsupported:
        return Outline((), True)
    tail = scan.tail if is_anchored_at_end else ""
    if not (is_full_match or text.startswith("^")):
        return Outline((), True, tail)
    return Outline(tuple(scan.pieces), scan.is_cut or (pattern.is_endpoint and not is_anchored_at_end), tail)


class Trie:
    """The outlines of many patterns, by segment. Built by ``add`` in index order, then only read."""

    __slots__ = ("_depth", "_root")

    def __init__(self) -> None:
        self._root = _Node()
        self._depth = 0

    def add(self, pattern_outline: Outline, index: int) -> None:
        """Add a pattern: ``candidates`` returns ``index`` for every route that fits ``pattern_outline``."""
        segments = list(_segments(pattern_outline.pieces))
        last = segments.pop() if pattern_outline.is_open else None
        node = self._root
        for segment in segments:
            node = node.child(segment)
        (node.ending if last is None else node.open_child(last, pattern_outline.tail)).append(index)
        self._depth = max(self._depth, len(segments))

    def candidates(self, route: str) -> list[int]:
        """The indexes of all patterns that could match ``route``, ascending.

        The time grows with the segments of the route and with the candidates, not with the number of patterns. There
        is no recursion, because a client chooses the route.
        """
        segments = route.split("/", self._depth)
        size = len(segments)
        found: list[int] = []
        pending: list[tuple[_Node, int]] = []
        node, depth = self._root, 0
        while True:
            while depth < size:
                segment = segments[depth]
                depth += 1
                if node.has_literals:
                    pending += [(child, depth) for child in _matching(node.mixed, segment, segment)]
                    for indexes in _matching(node.open_ended, segment, route):
                        found += indexes
                child, hole = node.exact.get(segment), node.hole
                if child is None:
                    child = hole
                elif hole is not None:
                    pending.append((hole, depth))
                if child is None:
                    break
                node = child
            else:
                found += node.ending
            if not pending:
                break
            node, depth = pending.pop()
        if len(found) > 1:
            found.sort()
        return found


class _Node:
    """One level of the trie: the next nodes by kind of segment, and the patterns that end or open here."""

    __slots__ = ("ending", "exact", "has_literals", "hole", "mixed", "open_ended")

    def __init__(self) -> None:
        self.exact: dict[str, _Node] = {}
        self.hole: _Node | None = None  # a segment that is all hole
        self.mixed: _AffixTables[_Node] = []  # a segment with literals around its holes
        self.open_ended: _AffixTables[list[int]] = []  # a segment's beginning, then anything
        self.has_literals = False  # whether mixed or open_ended has entries
        self.ending: list[int] = []

    def child(self, segment: Sequence[str]) -> "_Node":
        """The node below this one for ``segment``. It is made if missing."""
        head, tail = _affixes(segment)
        if _HOLE not in segment:
            return self.exact.setdefault(head, _Node())
        if not head and not tail:
            self.hole = self.hole or _Node()
            return self.hole
        self.has_literals = True
        return _table_for(self.mixed, len(head), len(tail)).setdefault((head, tail), _Node())

    def open_child(self, segment: Sequence[str], tail: str) -> list[int]:
        """The patterns that open here after the head of ``segment`` and end with ``tail``."""
        head = _affixes(segment)[0]
        self.has_literals = True
        return _table_for(self.open_ended, len(head), len(tail)).setdefault((head, tail), [])


class _Scan:
    """Scans the steps of a valid regex once, for its pieces, its tail and whether it is cut."""

    def __init__(self, steps: Iterable[str]) -> None:
        self.pieces: list[str] = []
        self.tail = ""
        self.is_cut = False
        self.has_alternatives = False
        self._depth = 0
        self._is_safe = True  # whether the current group cannot match a slash
        for step in steps:
            self._step(step)

    def _step(self, step: str) -> None:
        if step[0] == "(":
            self._is_safe = (self._is_safe or not self._depth) and re.fullmatch(_PLAIN_GROUP, step) is not None
            self._depth += 1
        elif step == ")":
            self._depth -= 1
            if not self._depth:
                self._add_hole(self._is_safe)
        elif self._depth:
            self._is_safe = self._is_safe and not _may_be_slash(step)
        else:
            self._step_outside(step)

    def _step_outside(self, step: str) -> None:
        literal = _literal(step)
        if literal:
            self.tail += literal
            if not self.is_cut:
                self.pieces.append(literal)
        elif step in "*?+{":
            self._quantify(step)
        elif step == "|":
            self.has_alternatives = True
        else:
            self._add_hole(step not in ".^$}" and not _may_be_slash(step))

    def _quantify(self, step: str) -> None:
        """A repeated literal becomes a hole. A brace, which may be a literal or begin a count, cuts the outline."""
        repeated = self.pieces.pop() if self.pieces and not self.is_cut else _HOLE
        self._add_hole(repeated != "/" and step != "{")

    def _add_hole(self, is_safe: bool) -> None:
        self.tail = ""
        self.is_cut = self.is_cut or not is_safe
        if not self.is_cut:
            self.pieces.append(_HOLE)


_T = TypeVar("_T")
# (length of head, length of tail, the values by head and tail of these lengths)
_AffixTables = list[tuple[int, int, dict[tuple[str, str], _T]]]


def _table_for(tables: _AffixTables[_T], head: int, tail: int) -> dict[tuple[str, str], _T]:
    for head_size, tail_size, table in tables:
        if (head_size, tail_size) == (head, tail):
            return table
    tables.append((head, tail, {}))
    return tables[-1][2]


def _matching(tables: _AffixTables[_T], start: str, end: str) -> Iterator[_T]:
    for head_size, tail_size, table in tables:
        value = table.get((start[:head_size], end[len(end) - tail_size :]))
        if value is not None:
            yield value


def _segments(pieces: Iterable[str]) -> Iterator[list[str]]:
    segment: list[str] = []
    for piece in pieces:
        if piece == "/":
            yield segment
            segment = []
        else:
            segment.append(piece)
    yield segment


def _affixes(segment: Sequence[str]) -> tuple[str, str]:
    """The literals before the first hole, and those after the last."""
    if _HOLE not in segment:
        return "".join(segment), ""
    first, last = segment.index(_HOLE), len(segment) - segment[::-1].index(_HOLE)
    return "".join(segment[:first]), "".join(segment[last:])


def _literal(step: str) -> str:
    """The character that ``step`` stands for, or "" if it is not a literal."""
    if len(step) == 1:
        return "" if step in r".^$*+?{}[]\|()" else step
    is_literal = len(step) == 2 and step[0] == "\\" and not (step.isascii() and step[1].isalnum())
    return step[1] if is_literal else ""


def _may_be_slash(step: str) -> bool:
    """Whether a step inside a group could match a slash; yes if the step does not compile alone."""
    if len(step) == 1:
        return step in "./"
    if step[0] == "\\" and step[1].isdigit():  # a back reference, or a character in octal
        return True
    try:
        return re.match(step, "/") is not None
    except re.error:
        return True
