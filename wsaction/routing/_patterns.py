"""Compiled patterns: what ``path()`` and ``re_path()`` return.

A ``Pattern`` is the compiled text. An ``Endpoint`` is a pattern with a view; an ``Include`` is a pattern with more
patterns below it. All three are immutable, so the same pattern can be mounted in many places.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Union

from wsaction.routing.converters import Converter, check_regex, decoder, get_converter, is_pure
from wsaction.routing.exceptions import ImproperlyConfigured

_PARAMETER = r"<([^>]+)>"
_ASCII_SPACE = frozenset(" \t\n\r\x0b\x0c")

PatternMatch = tuple[re.Match[str], tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """One compiled pattern. ``compile_route`` and ``compile_regex`` make it; ``str(pattern)`` is its text."""

    source: str
    regex: re.Pattern[str]
    is_regex: bool
    is_endpoint: bool
    search: Callable[[str], re.Match[str] | None]
    converters: Mapping[str, Converter]
    decoders: tuple[tuple[str, Callable[[str], Any]], ...]
    template: tuple[tuple[str, str], ...]
    """The literals of a ``path()``, each with the parameter that follows it ("" at the end)."""
    is_pure: bool

    def __str__(self) -> str:
        return self.source

    def match(self, text: str) -> PatternMatch | None:
        """Match the beginning of ``text``, or all of it at an endpoint. Returns ``(match, args, kwargs)``, or None.

        ``<int:pk>/`` on ``07/x`` gives ``(<re.Match '07/'>, (), {"pk": 7})``.
        """
        found = self.search(text)
        if found is None:
            return None
        if not self.is_regex:
            captured = found.groupdict()
            try:
                for name, to_python in self.decoders:
                    captured[name] = to_python(captured[name])
            except ValueError:
                return None
            return found, (), captured
        if self.regex.groupindex:
            return found, (), {name: value for name, value in found.groupdict().items() if value is not None}
        return found, found.groups(), {}

    def canonical(self, found: re.Match[str], captured: Mapping[str, Any]) -> str:
        """The matched text, with each ``path()`` capture written back by its converter: ``07/`` becomes ``7/``.

        If ``to_url`` raises ValueError, the capture stays as it was.
        """
        if self.is_regex:
            return found.group()
        return "".join(self._canonical_parts(found, captured))

    def prefix(self) -> "Pattern":
        r"""This pattern as a prefix of other patterns. A regex loses the ``$`` or ``\Z`` at its end."""
        if not self.is_regex:
            return compile_route(self.source, False, self.converters)
        end = re.search(r"(?<!\\)(?:\\\\)*(\$|\\Z)\Z", self.source)
        return compile_regex(self.source[: end.start(1)] if end else self.source, False)

    def _canonical_parts(self, found: re.Match[str], captured: Mapping[str, Any]) -> Iterator[str]:
        for literal, name in self.template:
            yield literal
            if name:
                try:
                    yield str(self.converters[name].to_url(captured[name]))
                except ValueError:
                    yield found.group(name)


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """A pattern with a view: what ``path(route, view)`` returns.

    ``kwargs`` are the view's default keyword arguments; ``reverse`` finds the endpoint by ``name``.
    """

    pattern: Pattern
    view: Any
    kwargs: Mapping[str, Any]
    name: str | None

    def with_view(self, view: Any) -> "Endpoint":
        """A copy of this endpoint with another view."""
        return replace(self, view=view)


@dataclass(frozen=True, slots=True, eq=False)
class Include:
    """A pattern with patterns below it: what ``path(route, include(...))`` returns."""

    pattern: Pattern
    children: tuple[Union[Endpoint, "Include"], ...]
    kwargs: Mapping[str, Any]
    app_name: str | None
    namespace: str | None

    def with_children(self, children: "tuple[Endpoint | Include, ...]") -> "Include":
        """A copy of this include with other patterns below it."""
        return replace(self, children=children)


def compile_route(route: str, is_endpoint: bool, converters: Mapping[str, Converter] | None = None) -> Pattern:
    """Compile the text of a ``path()``.

    :param is_endpoint: whether the pattern must match a whole route; if not, it matches the beginning.
    :param converters: the converter of each parameter; by default, the registered ones.
    :raises ImproperlyConfigured: if angle brackets contain white space, a parameter is not an identifier or is used
        twice, or a converter is unknown.
    :raises TypeError: if ``route`` is not a string.

    ``compile_route("a/<int:pk>", True)`` matches ``a/7`` and captures ``{"pk": 7}``.
    """
    if not isinstance(route, str):
        raise TypeError(f"path() takes a string such as 'boards/<int:pk>/', got {type(route).__name__} {route!r}.")
    used: dict[str, Converter] = {}
    template: list[tuple[str, str]] = []
    end = 0
    for bracket in re.finditer(_PARAMETER, route):
        name, converter = _parameter(route, bracket, converters)
        if name in used:
            raise ImproperlyConfigured(f"Route {route!r} uses the parameter {name!r} twice; give each its own name.")
        used[name] = converter
        template.append((route[end : bracket.start()], name))
        end = bracket.end()
    template.append((route[end:], ""))
    text = "^" + "".join(re.escape(literal) + _group_regex(name, used) for literal, name in template)
    regex = _compile(text + r"\Z" if is_endpoint else text)
    decoders = tuple((name, to_python) for name in used if (to_python := decoder(used[name])) is not None)
    all_pure = all(map(is_pure, used.values()))
    return Pattern(route, regex, False, is_endpoint, regex.match, used, decoders, tuple(template), all_pure)


def compile_regex(regex: str, is_endpoint: bool) -> Pattern:
    """Compile the text of a ``re_path()``.

    An endpoint that ends with ``$`` must match a whole route. Any other regex is searched for: without ``^`` it may
    begin anywhere, and without ``$`` any text may follow.

    :raises ImproperlyConfigured: if the regex does not compile.
    :raises TypeError: if ``regex`` is not a string.

    ``compile_regex(r"^a/(?P<pk>[0-9]+)$", True)`` matches ``a/7`` and captures ``{"pk": "7"}``.
    """
    if not isinstance(regex, str):
        raise TypeError(f"re_path() takes a regex as a string, got {type(regex).__name__} {regex!r}.")
    compiled = _compile(regex)
    search = compiled.fullmatch if is_endpoint and regex.endswith("$") else compiled.search
    return Pattern(regex, compiled, True, is_endpoint, search, {}, (), (), True)


def _compile(regex: str) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except (re.error, OverflowError, RecursionError) as error:
        raise ImproperlyConfigured(f"{regex!r} is not a valid regular expression: {error}.") from error


def _parameter(route: str, bracket: re.Match[str], converters: Mapping[str, Converter] | None) -> tuple[str, Converter]:
    type_name, colon, name = bracket[1].partition(":")
    if not _ASCII_SPACE.isdisjoint(bracket[1]):
        raise ImproperlyConfigured(f"Route {route!r} cannot contain whitespace in angle brackets, got {bracket[0]!r}.")
    if not colon:
        type_name, name = "str", type_name
    if not name.isidentifier():
        raise ImproperlyConfigured(
            f"Route {route!r} uses the parameter name {name!r} which isn't a valid Python identifier; "
            "write <converter:parameter> or <parameter>."
        )
    if converters is None:
        return name, get_converter(type_name, route)
    converter = converters[name]
    check_regex(converter.regex, type(converter).__qualname__)
    return name, converter


def _group_regex(name: str, converters: Mapping[str, Converter]) -> str:
    return f"(?P<{name}>{converters[name].regex})" if name else ""
