"""Find unreachable routes: routes that earlier patterns always match first."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, product

from wsaction.routing._expansion import forms
from wsaction.routing._patterns import Pattern
from wsaction.routing._resolver import Leaf
from wsaction.routing._urlconf import Router
from wsaction.routing.converters import Converter
from wsaction.routing.exceptions import Resolver404

_UUID = "6f1b2c3d-0000-4000-8000-00000000000a"
# Captures to try. Each built-in converter accepts one that no narrower converter accepts.
_CAPTURES = ["~!", "7", "40213", "x", "Ab-c_1", "2024", "x/~!", _UUID, "en", "2024-11-23"]
_MAX_EXAMPLES = 64  # routes for one pattern
_MAX_TRIED = 1_000  # texts that are tried to find them


@dataclass(frozen=True, slots=True)
class Unreachable:
    """``hidden`` is unreachable: ``by``, declared before it, matches its routes too, such as ``example``."""

    hidden: Leaf
    by: Leaf
    example: str

    @property
    def is_duplicate(self) -> bool:
        """Whether both have the same text."""
        return self.hidden.route == self.by.route


def find_unreachable(router: Router) -> Iterator[Unreachable]:
    """The unreachable routes of a router.

    They are found by example: routes are made from each pattern, and a pattern is reported if earlier ones match all of
    them. A regex that no example can be made from is skipped.

    Of ``[path("<str:pk>/", a), path("new/", b)]`` the second is hidden by the first; the example is ``"new/"``.
    """
    for leaf in router.leaves:
        resolved = [(found, route) for route in _examples(leaf) if (found := _resolved_leaf(router, route)) is not None]
        if resolved and all(found is not leaf for found, _ in resolved):
            yield Unreachable(leaf, *resolved[0])


def _resolved_leaf(router: Router, route: str) -> Leaf | None:
    try:
        return router.resolve(route)._leaf
    except Resolver404:  # the converter now refuses what it accepted before
        return None


def _examples(leaf: Leaf) -> Iterator[str]:
    """Routes that a leaf matches."""
    choices = [list(islice(_texts_of(pattern), _MAX_TRIED)) for pattern in leaf.patterns]
    texts = ("".join(parts) for parts in islice(product(*choices), _MAX_TRIED))
    yield from islice((route for route in dict.fromkeys(texts) if leaf.match(route, {}) is not None), _MAX_EXAMPLES)


def _texts_of(pattern: Pattern) -> Iterator[str]:
    if pattern.is_regex:
        for form in forms(pattern.source):
            count = len(form.parameters)  # first the same capture for all parameters, which often fits, then others
            for values in chain(([text] * count for text in _CAPTURES), product(_CAPTURES, repeat=count)):
                yield form.fill(dict(zip(form.parameters, values, strict=True))) or ""
        return
    named = [name for _, name in pattern.template if name]
    for values in product(*(_captures_for(pattern.converters[name]) for name in named)):
        filled = dict(zip(named, values, strict=True))
        yield "".join(literal + (filled[name] if name else "") for literal, name in pattern.template)


def _captures_for(converter: Converter) -> Iterator[str]:
    for text in _CAPTURES:
        if not re.fullmatch(converter.regex, text):
            continue
        try:
            converter.to_python(text)
        except ValueError:
            continue
        yield text
