"""Addresses of routes in documents and clients: ``boards/{pk}/`` and the schemas of its parameters."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any

from wsaction.routing._expansion import forms
from wsaction.routing._patterns import Endpoint, Include, Pattern
from wsaction.routing._resolver import Leaf
from wsaction.routing.converters import Converter

Pieces = list[str | tuple[str]]

MAX_FORMS = 32  # of one route: each optional part doubles their number


@dataclass(frozen=True, slots=True)
class Address:
    """A route whose parameters a client fills in.

    ``parameters`` maps names to JSON Schemas. Unnamed groups are called ``_0``, ``_1`` and so on. ``template`` is None
    if the route is a regex that cannot be filled in.
    """

    text: str  # the template; without one, the patterns as declared
    template: str | None = ""
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()  # parameters that may be left out
    regex: str | None = "^"  # valid in Python and JavaScript; None if there is no such regex
    captures: frozenset[str] = frozenset()  # arguments that the route fills, never the frame
    unnamed: int = 0  # number of unnamed groups, which fill positional arguments
    forms: tuple[str, ...] = ()  # the template, then those without optional parameters; at most `MAX_FORMS`

    @property
    def pattern(self) -> str | None:
        """A regex that matches the ``route`` of a frame, query string included."""
        return None if self.regex is None else rf"{self.regex}(\?.*)?$"


def address_of(leaf: Leaf) -> Address:
    """Returns the address of an endpoint.

    For ``path("boards/<int:pk>/", ...)`` it is ``boards/{pk}/``, with an integer ``pk``.
    """
    parts = [_template(pattern) for pattern in leaf.patterns]
    schemas = {name: schema for pattern in leaf.patterns for name, schema in _parameter_schemas(pattern)}
    captures = frozenset({*schemas, *leaf.extra_kwargs})
    if any(part is None for part in parts):
        return Address(leaf.route, None, {}, frozenset(), None, captures)
    pieces = list(_number_unnamed([piece for part in parts if part is not None for piece in part[0]]))
    named = [piece[0] for piece in pieces if isinstance(piece, tuple)]
    optional = frozenset(name for part in parts if part is not None for name in part[1])
    template = _join_pieces(pieces)
    return Address(
        text=template,
        template=template,
        parameters={name: schemas.get(name, {"type": "string"}) for name in named},
        optional=optional,
        regex=_route_regex(leaf.patterns),
        captures=captures - optional,
        unnamed=_count_unnamed(leaf),
        forms=tuple(dict.fromkeys([template, *islice(_forms(leaf.patterns), MAX_FORMS - 1)])),
    )


def _forms(patterns: tuple[Pattern, ...]) -> Iterator[str]:
    """Yields every text that the joined patterns may have; those with the most parameters come first."""
    choices: list[list[Pieces]] = []
    for pattern in patterns:
        if pattern.is_regex:
            known = sorted(forms(pattern.source), key=lambda form: -len(form.parameters))
            choices.append([list(form.pieces) for form in known])
        else:
            choices.append([_path_pieces(pattern)])
    for parts in product(*choices):
        yield _join_pieces(_number_unnamed([piece for part in parts for piece in part]))


def _join_pieces(pieces: Iterable[str | tuple[str]]) -> str:
    return "".join(piece if isinstance(piece, str) else f"{{{piece[0]}}}" for piece in pieces)


def _count_unnamed(leaf: Leaf) -> int:
    """Counts the unnamed groups that become positional arguments.

    An include's groups count only if neither it nor anything below it has named groups or extra arguments.
    """
    count = 0
    above: list[Endpoint | Include] = [level.include for level in reversed(leaf.levels)]
    for declared in (leaf.endpoint, *above):
        pattern = declared.pattern
        has_names = bool(pattern.regex.groupindex)
        if pattern.is_regex and not has_names and (declared is leaf.endpoint or not declared.kwargs):
            count += pattern.regex.groups
        if has_names or declared.kwargs:
            break
    return count


def _template(pattern: Pattern) -> tuple[Pieces, frozenset[str]] | None:
    """Returns the pieces of a pattern (literals, and names as 1-tuples) and the names that may be left out.

    None means that a client cannot fill in the pattern.
    """
    if not pattern.is_regex:
        return _path_pieces(pattern), frozenset()
    known = forms(pattern.source)
    if not known:
        return None
    longest = max(known, key=lambda form: len(form.parameters))
    if set(pattern.regex.groupindex) - set(longest.parameters):
        return None  # no single form has every group, as with two alternatives
    if not longest.parameters and not pattern.search("".join(map(str, longest.pieces))):
        return None
    return list(longest.pieces), frozenset(
        name for name in longest.parameters if any(name not in form.parameters for form in known)
    )


def _path_pieces(pattern: Pattern) -> Pieces:
    pieces: Pieces = [piece for literal, name in pattern.template for piece in (literal, (name,))]
    return [piece for piece in pieces if piece not in ("", ("",))]


def _number_unnamed(pieces: Pieces) -> Iterator[str | tuple[str]]:
    """Numbers the unnamed groups through all patterns: each pattern by itself begins with ``_0``."""
    count = 0
    for piece in pieces:
        if isinstance(piece, tuple) and re.fullmatch(r"_\d+", piece[0]):
            piece = (f"_{count}",)
            count += 1
        yield piece


_BY_REGEX: Mapping[str, Mapping[str, Any]] = {
    "[0-9]+": {"type": "integer", "minimum": 0},
    "[^/]+": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
    ".+": {"type": "string", "minLength": 1},
    "[-a-zA-Z0-9_]+": {"type": "string", "pattern": "^[-a-zA-Z0-9_]+$"},
    "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}": {"type": "string", "format": "uuid"},
}
_JAVASCRIPT_COMPATIBLE = r"(?:[\w\-,+*?|.^{}\[\]/]|\\[dws])+"


def _parameter_schemas(pattern: Pattern) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, converter in pattern.converters.items():
        yield name, _BY_REGEX.get(converter.regex) or _converter_schema(converter)
    if pattern.is_regex:
        yield from ((name, {"type": "string"}) for name in pattern.regex.groupindex)


def _converter_schema(converter: Converter) -> Mapping[str, Any]:
    if re.fullmatch(_JAVASCRIPT_COMPATIBLE, converter.regex):
        return {"type": "string", "pattern": f"^(?:{converter.regex})$"}
    return {"type": "string"}


def _route_regex(patterns: tuple[Pattern, ...]) -> str | None:
    """Returns a regex for the joined patterns, or None if one of them is a regex or a converter's is not portable."""
    text = "^"
    for pattern in patterns:
        if pattern.is_regex:
            return None
        for literal, name in pattern.template:
            text += re.sub(r"[\\^$.*+?()\[\]{}|/]", r"\\\g<0>", literal)
            regex = pattern.converters[name].regex if name else ""
            if name and not re.fullmatch(_JAVASCRIPT_COMPATIBLE, regex):
                return None
            text += f"(?:{regex})" if name else ""
    return text
