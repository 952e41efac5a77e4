"""Path converters: the types of the parameters in a ``path()``, as in ``<int:pk>``.

The built-in converters are ``str`` (the default), ``int``, ``slug``, ``uuid`` and ``path``. Register your own with
`register_converter`.
"""

import difflib
import re
import uuid
from collections.abc import Callable
from typing import Any, Protocol

from wsaction.routing.exceptions import ImproperlyConfigured

__all__ = ("Converter", "get_converter", "is_pure", "register_converter")


class Converter(Protocol):
    """The members that a converter class needs.

    Set ``pure = True`` on the class if ``to_python`` depends only on its argument and returns an immutable value. Only
    then is the match of a route cached.
    """

    regex: str
    """The regular expression that the parameter's text matches, without named groups."""

    def to_python(self, value: str) -> Any:
        """The value of a matched text. Raise ``ValueError`` if the pattern does not match after all."""

    def to_url(self, value: Any) -> str:
        """The text of a value. Raise ``ValueError`` if the pattern cannot be reversed with it."""


class IntConverter:
    """``<int:pk>``: ASCII digits, as an int. ``07`` is 7. Over 4,300 digits, the limit of ``int()``, do not match."""

    regex = "[0-9]+"

    def to_python(self, value: str) -> int:
        return int(value)

    def to_url(self, value: Any) -> str:
        return str(value)


class StringConverter:
    """``<str:name>`` or ``<name>``: at least one character, and no slash."""

    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: Any) -> str:
        return value  # type: ignore[no-any-return]  # unchanged, as in Django; the caller formats it


class SlugConverter(StringConverter):
    """``<slug:title>``: ASCII letters, digits, hyphens and underscores."""

    regex = "[-a-zA-Z0-9_]+"


class PathConverter(StringConverter):
    """``<path:rest>``: at least one character, slashes included, and no newline."""

    regex = ".+"


class UUIDConverter:
    """``<uuid:key>``: a UUID in lower case with hyphens, as a ``uuid.UUID``."""

    regex = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

    def to_python(self, value: str) -> uuid.UUID:
        return uuid.UUID(value)

    def to_url(self, value: Any) -> str:
        return str(value)


_BUILT_IN: dict[str, Converter] = {
    "int": IntConverter(),
    "path": PathConverter(),
    "slug": SlugConverter(),
    "str": StringConverter(),
    "uuid": UUIDConverter(),
}
_registered: dict[str, Converter] = {}


def register_converter(converter: type[Converter], type_name: str) -> None:
    """Register a converter: ``<type_name:parameter>`` works in every ``path()`` declared after this call.

    Registering the same class again does nothing.

    :param converter: a class with ``regex``, ``to_python`` and ``to_url``; it is instantiated once.
    :param type_name: the name in angle brackets, without colons, angle brackets and white space.
    :raises ImproperlyConfigured: if the class lacks a member, its regex does not compile or has a named group, or
        another class has the name.

    After ``register_converter(YearConverter, "year")`` you can declare ``path("archive/<year:y>/", view)``.
    """
    if not re.fullmatch(r"[^\s<>:]+", type_name):
        raise ImproperlyConfigured(f"A converter's name has no white space and none of '<>:', got {type_name!r}.")
    existing = _BUILT_IN.get(type_name) or _registered.get(type_name)
    if existing is None:
        _registered[type_name] = _instantiate(converter)
    elif type(existing) is not converter:
        raise ImproperlyConfigured(
            f"Converter {type_name!r} is already registered, as {type(existing).__qualname__}; choose another name."
        )


def get_converter(type_name: str, route: str) -> Converter:
    """The converter that is registered as ``type_name``.

    :param route: the pattern that uses it, for the error message.
    :raises ImproperlyConfigured: if no converter has that name; the message suggests a similar one.
    """
    existing = _BUILT_IN.get(type_name) or _registered.get(type_name)
    if existing is not None:
        return existing
    known = sorted({*_BUILT_IN, *_registered})
    close_names = difflib.get_close_matches(type_name[:100], known, n=1)
    raise ImproperlyConfigured(
        f"Route {route!r} uses the invalid converter {type_name!r}."
        + (f" Did you mean {close_names[0]!r}?" if close_names else "")
        + f" There are {', '.join(known)}; register_converter() adds one."
    )


def is_pure(converter: Converter) -> bool:
    """Whether the results of ``to_python`` may be cached.

    True for the built-in converters, wsaction's and Django's, and for a class with ``pure = True`` of its own. A
    subclass does not inherit it, because it may override ``to_python``.
    """
    kind = type(converter)
    if kind.__module__ in (__name__, "django.urls.converters"):
        return True
    return vars(kind).get("pure") is True


def decoder(converter: Converter) -> Callable[[str], Any] | None:
    """The cheapest equivalent of ``to_python``: None if it returns its argument, ``int`` for ``<int:...>``."""
    function = getattr(converter.to_python, "__func__", None)
    if function is StringConverter.to_python:
        return None
    return int if function is IntConverter.to_python else converter.to_python


def check_regex(regex: object, owner: str) -> None:
    """Check that a converter's regex can stand inside a pattern.

    :raises ImproperlyConfigured: if it is not a string, does not compile, or has a named group. A named group would
        become a parameter that the route does not declare.
    """
    if not isinstance(regex, str):
        raise ImproperlyConfigured(f"Converter {owner} needs a 'regex' that is a string, got {regex!r}.")
    try:
        names = re.compile(regex).groupindex
    except (re.error, OverflowError, RecursionError) as error:
        raise ImproperlyConfigured(f"Converter {owner} has a regex that is not valid, {regex!r}: {error}.") from error
    if names:
        raise ImproperlyConfigured(f"Converter {owner} has a named group in its regex {regex!r}: write it as (?:...).")


def _instantiate(converter: type[Converter]) -> Converter:
    if not isinstance(converter, type):
        raise ImproperlyConfigured(f"register_converter() takes a class, got {converter!r}: pass the class itself.")
    for member in ("to_python", "to_url"):
        if not callable(getattr(converter, member, None)):
            raise ImproperlyConfigured(f"Converter {converter.__qualname__} needs a method {member}(self, value).")
    instance = converter()
    check_regex(getattr(instance, "regex", None), converter.__qualname__)
    return instance
