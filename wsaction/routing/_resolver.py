"""Resolve a route against a tree of patterns: `ResolverMatch` and the leaves of the tree.

The tree is flattened into its leaves, the endpoints, in depth-first order. Each leaf knows the includes above it, and
matches a route level by level from the top.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from wsaction.routing._patterns import Endpoint, Include, Pattern, PatternMatch
from wsaction.routing.exceptions import Resolver404


class Level:
    """An include at one place in the tree."""

    __slots__ = ("include", "kwargs", "match_text", "pattern")

    def __init__(self, include: Include) -> None:
        self.include = include
        self.pattern = include.pattern
        self.match_text = include.pattern.match
        self.kwargs = dict(include.kwargs)


Memo = dict[Level, PatternMatch | None]
Resolve = Callable[[str], "ResolverMatch"]


class Leaf:
    """An endpoint at one place in the tree, with all that can be computed before a route comes."""

    __slots__ = (
        "app_names",
        "cacheable",
        "endpoint",
        "extra_kwargs",
        "index",
        "kwargs",
        "leaves",
        "levels",
        "match_text",
        "namespaces",
        "pattern",
        "patterns",
        "resolve",
        "route",
    )

    def __init__(self, endpoint: Endpoint, levels: tuple[Level, ...], leaves: "list[Leaf]", resolve: "Resolve") -> None:
        includes = [level.include for level in levels]
        self.endpoint = endpoint
        self.levels = levels
        self.leaves = leaves
        self.resolve = resolve
        self.index = len(leaves)
        self.pattern = endpoint.pattern
        self.patterns = (*(level.pattern for level in levels), endpoint.pattern)
        self.match_text = endpoint.pattern.match
        self.kwargs = dict(endpoint.kwargs)
        self.extra_kwargs: dict[str, Any] = {}
        for kwargs in (*(level.kwargs for level in levels), self.kwargs):
            self.extra_kwargs |= kwargs
        self.app_names = [include.app_name for include in includes if include.app_name]
        self.namespaces = [include.namespace for include in includes if include.namespace]
        self.route = _join_sources(self.patterns)
        self.cacheable = all(pattern.is_pure for pattern in self.patterns)

    def match(self, route: str, memo: Memo) -> "ResolverMatch | None":
        """Match ``route`` through every level. Returns None if it does not match.

        :param memo: the matches of includes for this route, so that each include is matched once for all its leaves.
        """
        if self.levels:
            return self._match_nested(route, memo)
        match = self.match_text(route)
        if match is None:
            return None
        found, args, captured = match
        return ResolverMatch(self, args, {**captured, **self.kwargs}, captured, found, ())

    def is_first_match(self, route: str) -> bool:
        """Whether a route resolves to this leaf, and not to an earlier one."""
        try:
            return self.resolve(route)._leaf is self
        except Resolver404:
            return False

    def _match_nested(self, route: str, memo: Memo) -> "ResolverMatch | None":
        kwargs: dict[str, Any] = {}
        include_matches: list[PatternMatch] = []
        for level in self.levels:
            match = memo[level] if level in memo else memo.setdefault(level, level.match_text(route))
            if match is None:
                return None
            include_matches.append(match)
            found, _, captured = match
            kwargs |= captured
            if level.kwargs:
                kwargs |= level.kwargs
            route = route[found.end() :]
        match = self.match_text(route)
        if match is None:
            return None
        found, args, captured = match
        kwargs |= captured
        if self.kwargs:
            kwargs |= self.kwargs
        if not (captured or self.kwargs):
            args = self._prepend_include_args(include_matches, args)
        return ResolverMatch(self, args, kwargs, captured, found, include_matches)

    def _prepend_include_args(self, include_matches: Sequence[PatternMatch], args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Unnamed groups of an include count only if neither it nor anything below it has keyword arguments."""
        for level, (_, above, named) in zip(reversed(self.levels), reversed(include_matches), strict=True):
            if named or level.kwargs:
                break
            args = above + args
        return args


class ResolverMatch:
    """The view that a route resolved to, and its arguments; unpacks as ``func, args, kwargs = match``.

    Call the view with ``args`` and ``kwargs``. ``captured_kwargs`` holds what the endpoint's own pattern captured.
    """

    __slots__ = ("_canonical", "_found", "_include_matches", "_leaf", "args", "captured_kwargs", "kwargs")

    def __init__(
        self,
        leaf: Leaf,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        captured_kwargs: dict[str, Any],
        found: re.Match[str],
        include_matches: Sequence[PatternMatch],
    ) -> None:
        self._leaf = leaf
        self._found = found
        self._include_matches = include_matches
        self._canonical: str | None = None
        self.args = args
        self.kwargs = kwargs
        self.captured_kwargs = captured_kwargs

    @property
    def func(self) -> Any:
        """The view."""
        return self._leaf.endpoint.view

    @property
    def url_name(self) -> str | None:
        """The name of the pattern, for ``Router.reverse()``; None if it has none."""
        return self._leaf.endpoint.name

    @property
    def route(self) -> str:
        """The text of the matched patterns, such as ``boards/<int:pk>/``."""
        return self._leaf.route

    @property
    def extra_kwargs(self) -> dict[str, Any]:
        """The ``kwargs`` that the matched patterns were declared with."""
        return dict(self._leaf.extra_kwargs)

    @property
    def app_names(self) -> list[str]:
        """The app names of the includes, outermost first."""
        return list(self._leaf.app_names)

    @property
    def app_name(self) -> str:
        """The app names, joined by colons."""
        return ":".join(self._leaf.app_names)

    @property
    def namespaces(self) -> list[str]:
        """The namespaces of the includes, outermost first."""
        return list(self._leaf.namespaces)

    @property
    def namespace(self) -> str:
        """The namespaces, joined by colons."""
        return ":".join(self._leaf.namespaces)

    @property
    def view_name(self) -> str:
        """The name to reverse: ``namespace:url_name``, or the dotted name of the view if the pattern has no name."""
        return ":".join([*self._leaf.namespaces, self.url_name or _dotted_name(self.func)])

    @property
    def tried(self) -> list[str]:
        """The texts of the patterns up to the one that matched, in the order of their declaration."""
        return [leaf.route for leaf in self._leaf.leaves[: self._leaf.index + 1]]

    @property
    def cacheable(self) -> bool:
        """Whether the same route always gives an equal match, so that you may cache it."""
        return self._leaf.cacheable

    @property
    def canonical(self) -> str:
        """The matched route in canonical form: ``boards/07/`` becomes ``boards/7/``.

        Each ``path()`` capture is written back by its converter; a ``re_path()`` part stays as it was. If the result
        resolves to another pattern, the text stays as it was too.
        """
        if self._canonical is None:
            above = zip(self._leaf.levels, self._include_matches, strict=True)
            parts = [level.pattern.canonical(found, captured) for level, (found, _, captured) in above]
            canonical = "".join(parts) + self._leaf.pattern.canonical(self._found, self.captured_kwargs)
            matched = "".join(found.group() for found, _, _ in self._include_matches) + self._found.group()
            self._canonical = canonical if canonical == matched or self._leaf.is_first_match(canonical) else matched
        return self._canonical

    def __iter__(self) -> Iterator[Any]:
        return iter((self.func, self.args, self.kwargs))

    def __getitem__(self, index: Any) -> Any:
        return (self.func, self.args, self.kwargs)[index]

    def __repr__(self) -> str:
        names = ("func", "args", "kwargs", "url_name", "app_names", "namespaces", "route")
        return f"ResolverMatch({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


def flatten(patterns: Sequence[Endpoint | Include], resolve: "Resolve") -> list[Leaf]:
    """The leaves of a tree of patterns, in the order in which they are tried.

    ``resolve`` returns the first match of a route, or raises `Resolver404`.
    """
    leaves: list[Leaf] = []
    _add_leaves(leaves, patterns, (), resolve)
    return leaves


def _add_leaves(
    leaves: list[Leaf], patterns: Sequence[Endpoint | Include], levels: tuple[Level, ...], resolve: "Resolve"
) -> None:
    for pattern in patterns:
        if isinstance(pattern, Include):
            _add_leaves(leaves, pattern.children, (*levels, Level(pattern)), resolve)
        else:
            leaves.append(Leaf(pattern, levels, leaves, resolve))


def _join_sources(patterns: Sequence[Pattern]) -> str:
    """The texts of the patterns, joined. A text after another one loses its ``^``."""
    route = patterns[-1].source
    for pattern in reversed(patterns[:-1]):
        if pattern.source:
            route = pattern.source + route.removeprefix("^")
    return route


def _dotted_name(view: Any) -> str:
    """The dotted name of a view, or of its class if it has a ``view_class`` or no name."""
    named = getattr(view, "view_class", view)
    if not hasattr(named, "__name__"):
        named = type(named)
    return f"{named.__module__}.{named.__name__}"
