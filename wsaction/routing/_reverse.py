"""Reverse a name and its arguments to a route.

Every pattern expands to forms (``wsaction.routing._expansion``): texts with parameters in them. The pattern declared
last under a name is tried first. Its first form that takes exactly these arguments is filled in. The text is the route
if the pattern matches it.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from wsaction.routing._expansion import Form, forms
from wsaction.routing._patterns import Endpoint, Include
from wsaction.routing.converters import Converter
from wsaction.routing.exceptions import NoReverseMatch


class Reverser:
    """The names of a tree of patterns. Namespaces below it are read when they are first needed.

    A pattern in an include without an app name is found by its name, one in a namespace by ``namespace:name``.
    """

    def __init__(self, patterns: Sequence[Endpoint | Include]) -> None:
        self.candidates: dict[Any, list[Candidate]] = {}
        self.namespaces: dict[str | None, Namespace] = {}
        self.apps: dict[str, list[str | None]] = {}
        self._candidates_by_name: dict[Any, list[Candidate]] = {}
        for pattern in reversed(patterns):
            if isinstance(pattern, Endpoint):
                self._add_endpoint(pattern)
            elif pattern.app_name:
                self.apps.setdefault(pattern.app_name, []).append(pattern.namespace)
                self.namespaces[pattern.namespace] = Namespace(
                    _unanchored(pattern), pattern.pattern.converters, pattern
                )
            else:
                self._add_include(pattern)

    def reverse(self, name: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """The route of ``name`` with these arguments.

        :raises NoReverseMatch: if the name or a namespace is unknown, or no pattern of the name takes the arguments.
        """
        candidates = self._candidates_by_name.get(name) if isinstance(name, str) else self._candidates_of(name)
        if candidates is None:
            candidates = self._candidates_by_name[name] = self._find(name)
        for candidate in candidates:
            route = candidate.reverse_with(args, kwargs)
            if route is not None:
                return route
        given = (
            f"arguments {_truncated_repr(tuple(args))}"
            if args
            else f"keyword arguments {_truncated_repr(dict(kwargs))}"
        )
        given = given if args or kwargs else "no arguments"
        tried = "; ".join(dict.fromkeys(map(str, candidates)))
        raise NoReverseMatch(
            f"Reverse for {_display_name(name)} with {given} not found. Tried, in this order: {tried}."
        )

    def _add_endpoint(self, endpoint: Endpoint) -> None:
        candidate = Candidate(_unanchored(endpoint), endpoint.kwargs, endpoint.pattern.converters)
        for key in (endpoint.view, endpoint.name):
            if key is not None and _is_hashable(key):
                self.candidates.setdefault(key, []).append(candidate)

    def _add_include(self, include: Include) -> None:
        below = Reverser(include.children)
        prefix, converters = _unanchored(include), include.pattern.converters
        for key, candidates in below.candidates.items():
            self.candidates.setdefault(key, []).extend(
                candidate.with_prefix(prefix, converters, include.kwargs) for candidate in candidates
            )
        for name, namespace in below.namespaces.items():
            self.namespaces[name] = Namespace(
                prefix + namespace.prefix, {**namespace.converters, **converters}, namespace.include
            )
        for app_name, namespaces in below.apps.items():
            self.apps.setdefault(app_name, []).extend(namespaces)

    def _candidates_of(self, key: Any) -> "list[Candidate]":
        found = self.candidates.get(key) if _is_hashable(key) else None
        if found is None:
            names = [name for name in self.candidates if isinstance(name, str)]
            raise NoReverseMatch(
                f"Reverse for {_display_name(key)} not found: no pattern has that name or view."
                + _did_you_mean(key, names)
            )
        return found

    def _find(self, name: str) -> "list[Candidate]":
        """The candidates of ``a:b:name``, where ``a`` and ``b`` are namespaces or app names."""
        *path, last = name.split(":")
        reverser, prefix, converters = self, "", dict[str, Converter]()
        for depth, wanted in enumerate(path):
            namespace = reverser.namespace(wanted)
            if namespace is None:
                inside = f" inside {':'.join(path[:depth])!r}" if depth else ""
                known = [*filter(None, reverser.namespaces), *reverser.apps]
                raise NoReverseMatch(
                    f"{wanted!r} is not a registered namespace{inside}." + _did_you_mean(wanted, known)
                )
            prefix += namespace.prefix
            converters.update(namespace.converters)
            reverser = namespace.reverser
        found = reverser._candidates_of(last)
        return [candidate.with_prefix(prefix, converters, {}) for candidate in found] if prefix else found

    def namespace(self, wanted: str) -> "Namespace | None":
        """The namespace ``wanted``, or the default instance of that app.

        The default instance is the one named like the app, or else the one declared last.
        """
        instances = self.apps.get(wanted)
        if instances is None or wanted in instances:
            return self.namespaces.get(wanted)
        return self.namespaces.get(instances[0])


class Namespace:
    """A namespace: the regex before its patterns, the converters in that prefix, and the names in the namespace."""

    def __init__(self, prefix: str, converters: Mapping[str, Converter], include: Include) -> None:
        self.prefix = prefix
        self.converters = converters
        self.include = include

    @cached_property
    def reverser(self) -> Reverser:
        return Reverser(self.include.children)


class Candidate:
    """A pattern and the prefixes before it, as one regex."""

    def __init__(self, regex: str, defaults: Mapping[str, Any], converters: Mapping[str, Converter]) -> None:
        self.regex = regex
        self.defaults = defaults
        self.converters = converters

    def with_prefix(self, prefix: str, converters: Mapping[str, Converter], defaults: Mapping[str, Any]) -> "Candidate":
        """The same pattern with ``prefix`` before it."""
        return Candidate(prefix + self.regex, {**self.defaults, **defaults}, {**converters, **self.converters})

    def reverse_with(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        """The route with these arguments, or None if they do not fit."""
        for form in self._forms:
            if args:
                if len(args) != len(form.parameters):
                    continue
                kwargs = dict(zip(form.parameters, args, strict=True))
            elif not self._accepts(form, kwargs):
                continue
            text = self._format(form, kwargs)
            if text is not None and self._compiled is not None and self._compiled.search(text):
                return text
        return None

    def __str__(self) -> str:
        taken = [f"({', '.join(form.parameters)})" for form in self._forms]
        return f"{self.regex!r} takes {' or '.join(taken) or 'nothing, it cannot be reversed'}"

    @cached_property
    def _forms(self) -> tuple[Form, ...]:
        return forms(self.regex)

    @cached_property
    def _compiled(self) -> re.Pattern[str] | None:
        try:
            return re.compile("^" + self.regex)
        except re.error:  # an include and a pattern below it share a parameter name, or one of them has flags
            return None

    def _accepts(self, form: Form, kwargs: Mapping[str, Any]) -> bool:
        """Whether just the form's parameters are given. A default may be given too, if its value is the same."""
        if set(kwargs).symmetric_difference(form.parameters).difference(self.defaults):
            return False
        rest = (name for name in self.defaults if name not in form.parameters)
        return all(kwargs.get(name, self.defaults[name]) == self.defaults[name] for name in rest)

    def _format(self, form: Form, kwargs: Mapping[str, Any]) -> str | None:
        values = {}
        try:
            for name, value in kwargs.items():
                values[name] = str(self.converters[name].to_url(value) if name in self.converters else value)
        except ValueError:
            return None
        return form.fill(values)


def _unanchored(pattern: Endpoint | Include) -> str:
    return pattern.pattern.regex.pattern.removeprefix("^")


def _is_hashable(key: Any) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True


def _display_name(name: Any) -> str:
    return repr(name if isinstance(name, str) else getattr(name, "__qualname__", name))


def _truncated_repr(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an int of more than 4,300 digits
        return f"of {type(value).__name__}"
    return text if len(text) <= 200 else text[:200] + "..."


def _did_you_mean(name: Any, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name)[:100], list(dict.fromkeys(known)), n=3)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
