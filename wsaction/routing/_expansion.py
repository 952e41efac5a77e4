"""Expand a regex into the texts it matches, with parameters in them, to reverse a pattern.

The rules are those of ``django.urls``, so that both reverse a pattern to the same text:

- A repeated item stands as often as its minimum says.
- An optional group with parameters stands once in one form and not at all in another.
- A character class gives its first character. A look-around gives nothing.
- A regex with alternatives outside a group gives only the empty text.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import NamedTuple

# The text of an escape; None: no text. Any other escaped character stands for itself.
_SAMPLES = {"A": None, "b": None, "B": None, "Z": None, "d": "0", "D": "x", "s": " ", "S": "x", "w": "x", "W": "!"}


class Form(NamedTuple):
    """A text with holes. ``pieces`` are literals and, as 1-tuples, parameter names; ``parameters`` are the arguments
    that the form takes, in order."""

    pieces: tuple[str | tuple[str], ...]
    parameters: tuple[str, ...]

    def fill(self, values: Mapping[str, object]) -> str | None:
        """The text with ``values`` in its holes, or None if a value is missing."""
        try:
            return "".join(piece if isinstance(piece, str) else str(values[piece[0]]) for piece in self.pieces)
        except KeyError:
            return None


_EMPTY = Form((), ())


class _Item(NamedTuple):
    """One item of a regex, with the forms it can take."""

    choices: tuple[Form, ...]
    has_group: bool = False


class _End(Exception):
    """The reader has reached the end of the regex."""


class _NotReversible(Exception):
    """The regex has a construct that cannot be reversed."""


def forms(regex: str) -> tuple[Form, ...]:
    r"""The forms of a regex, the shortest first; empty if the regex cannot be reversed.

    ``a/(?:(?P<x>\d+)/)?`` has two forms: ``a/`` without parameters, and ``a/``, x, ``/``.
    """
    try:
        items = _Reader(regex).read()
    except _NotReversible:
        return ()
    return _product(items)


class _Reader:
    """Reads a regex once from left to right. An escape counts as the character it stands for."""

    def __init__(self, regex: str) -> None:
        self._characters = _unescape(regex)
        self._pushed_back: tuple[str, bool] | None = None
        self._items: list[_Item] = []
        self._opened: list[int] = []
        self._unnamed = 0

    def read(self) -> list[_Item]:
        try:
            while True:
                self._step(*self._next())
        except _End:
            return self._items

    def _next(self) -> tuple[str, bool]:
        if self._pushed_back is not None:
            character, self._pushed_back = self._pushed_back, None
            return character
        for character in self._characters:
            return character
        raise _End

    def _step(self, character: str, is_escaped: bool) -> None:
        """Read one item."""
        if is_escaped:
            self._add_literal(character)
        elif character == "|":
            self._items = []
            raise _End
        elif character == "$":
            raise _End
        elif character == "(":
            self._read_group()
        elif character == ")":
            self._close_group()
        elif character == "[":
            self._read_class()
        elif character in "*?+{":
            self._quantify(character)
        elif character != "^":
            self._add_literal(character)

    def _add_literal(self, character: str) -> None:
        self._items.append(_Item((Form((character,), ()),)))

    def _read_class(self) -> None:
        self._add_literal(self._next()[0])
        while self._next() != ("]", False):
            pass

    def _read_group(self) -> None:
        character, is_escaped = self._next()
        if character != "?" or is_escaped:
            self._add_parameter(f"_{self._unnamed}")
            self._unnamed += 1
            self._skip_group(character)
            return
        character = self._next()[0]
        if character == ":":
            self._opened.append(len(self._items))
        elif character in "!=<":
            self._skip_group(character)
        elif character == "P":
            self._read_named_group()
        else:
            raise _NotReversible

    def _read_named_group(self) -> None:
        kind = self._next()[0]
        if kind not in "<=":
            raise _NotReversible
        end = ">" if kind == "<" else ")"
        name = ""
        while (character := self._next()[0]) != end:
            name += character
        self._add_parameter(name, is_counted=kind == "<")
        if kind == "<":
            self._skip_group(end)

    def _add_parameter(self, name: str, is_counted: bool = True) -> None:
        self._items.append(_Item((Form(((name,),), (name,) if is_counted else ()),), has_group=True))

    def _skip_group(self, character: str) -> None:
        depth = 2 if character == "(" else 1
        while depth:
            character, is_escaped = self._next()
            if not is_escaped:
                depth += {"(": 1, ")": -1}.get(character, 0)

    def _close_group(self) -> None:
        if not self._opened:
            raise _NotReversible
        start = self._opened.pop()
        inner = self._items[start:]
        self._items[start:] = [_Item(_product(inner), any(item.has_group for item in inner))]

    def _quantify(self, character: str) -> None:
        minimum = self._read_minimum() if character == "{" else int(character == "+")
        follower = next(self._characters, ("?", False))[0]
        if follower != "?":  # "?" only makes the quantifier lazy
            self._pushed_back = follower, False
        if minimum == 1:
            return
        if not self._items:
            raise _NotReversible
        item = self._items.pop()
        if minimum:
            self._items += [item] * minimum
        elif item.has_group:
            self._items.append(_Item((_EMPTY, *item.choices)))

    def _read_minimum(self) -> int:
        text = ""
        while (character := self._next()[0]) != "}":
            text += character
        try:
            return int(text.split(",")[0])
        except ValueError:
            raise _NotReversible from None


def _product(items: list[_Item]) -> tuple[Form, ...]:
    """Every combination of one choice for each item. The first item's choice changes last, as in Django."""
    return tuple(map(_concatenate, product(*(item.choices for item in items))))


def _concatenate(parts: Iterable[Form]) -> Form:
    pieces, parameters = list[str | tuple[str]](), list[str]()
    for part in parts:
        pieces += part.pieces
        parameters += part.parameters
    return Form(tuple(pieces), tuple(parameters))


def _unescape(regex: str) -> Iterator[tuple[str, bool]]:
    """The characters of a regex, each with whether it was escaped. Escapes without text are left out."""
    characters = iter(regex)
    for character in characters:
        if character != "\\":
            yield character, False
        elif (sample := _SAMPLES.get(escaped := next(characters, ""), escaped)) is not None:
            yield sample, True
