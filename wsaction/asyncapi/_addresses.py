"""Addresses as documents and clients write them: ``boards/{pk}/``, and what stands in the braces."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any

from wsaction.routing._expansion import forms
from wsaction.routing._patterns import Endpoint, Include, Pattern
from wsaction.routing._resolver import Leaf
from wsaction.routing.converters import Converter

__all__ = ("Address", "address_of")

Pieces = list[str | tuple[str]]

MAX_FORMS = 32  # that are told of one route; each optional part doubles them


@dataclass(frozen=True, slots=True)
class Address:
    """A route, to be filled in by clients.

    ``parameters`` are JSON Schemas by name; of unnamed groups the names are ``_0``, ``_1`` and so on. ``template`` is
    None for a regex that cannot be filled in.
    """

    text: str  # the template, or else the patterns as they were declared
    template: str | None = ""
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()  # parameters that the route also goes without
    regex: str | None = "^"  # what it matches, for JavaScript too; None where that cannot be said
    captures: frozenset[str] = frozenset()  # keys that no frame has a say in
    unnamed: int = 0  # groups without a name, which fill parameters in turn
    forms: tuple[str, ...] = ()  # the template, and what it is without optional parameters; at most `MAX_FORMS`

    @property
    def pattern(self) -> str | None:
        """A regex of the route as a frame has it, its query included."""
        return None if self.regex is None else rf"{self.regex}(\?.*)?$"


def address_of(leaf: Leaf) -> Address:
    """The address of an endpoint. Of ``path("boards/<int:pk>/", ...)`` it is ``boards/{pk}/``, with a ``pk`` that is an
    integer."""
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
    """Every way to write the patterns one after the other, those with most parameters first."""
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
    """How many positional arguments its groups give: those of includes count while nothing below them has a name."""
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
    """Literals and, as 1-tuples, names; with the names that may be missing. None: it cannot be filled in."""
    if not pattern.is_regex:
        return _path_pieces(pattern), frozenset()
    known = forms(pattern.source)
    if not known:
        return None
    longest = max(known, key=lambda form: len(form.parameters))
    if set(pattern.regex.groupindex) - set(longest.parameters):
        return None  # what a form leaves out, as it does the second of two alternatives, is not to be told
    if not longest.parameters and not pattern.search("".join(map(str, longest.pieces))):
        return None
    return list(longest.pieces), frozenset(
        name for name in longest.parameters if any(name not in form.parameters for form in known)
    )


def _path_pieces(pattern: Pattern) -> Pieces:
    pieces: Pieces = [piece for literal, name in pattern.template for piece in (literal, (name,))]
    return [piece for piece in pieces if piece not in ("", ("",))]


def _number_unnamed(pieces: Pieces) -> Iterator[str | tuple[str]]:
    """The same, unnamed groups numbered through all patterns."""
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
    """What ``path()`` patterns match together; None where one is a regex, or a converter's cannot be told."""
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
