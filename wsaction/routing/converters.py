"""Path converters: what ``<int:pk>`` in a ``path()`` means, both ways.

A converter is a class with three members: ``regex``, the text it matches; ``to_python(text)``, which gives the value
and raises ValueError for "no match"; ``to_url(value)``, which gives the text and raises ValueError for "this pattern
does not fit". The built-in ones are ``str`` (the default), ``int``, ``slug``, ``uuid`` and ``path``.

Standard library only.
"""

import difflib
import re
import uuid
from collections.abc import Callable
from typing import Any, Protocol

from wsaction.routing.exceptions import ImproperlyConfigured

__all__ = ("Converter", "get_converter", "is_pure", "register_converter")


class Converter(Protocol):
    """What a converter has to have. Declare ``pure = True`` on the class where ``to_python`` depends on its argument
    alone and returns something immutable: only then may a caller keep the results of a match."""

    regex: str

    def to_python(self, value: str) -> Any: ...

    def to_url(self, value: Any) -> str: ...


class IntConverter:
    """``<int:pk>``: ASCII digits, as an int. ``07`` is 7; more digits than ``int()`` takes (4,300) do not match."""

    regex = "[0-9]+"

    def to_python(self, value: str) -> int:
        return int(value)

    def to_url(self, value: Any) -> str:
        return str(value)


class StringConverter:
    """``<str:name>`` and ``<name>``: anything but a slash, at least one character."""

    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: Any) -> str:
        return value  # type: ignore[no-any-return]  # whatever came, as in Django: what is not text is formatted later


class SlugConverter(StringConverter):
    """``<slug:title>``: ASCII letters, digits, hyphens and underscores."""

    regex = "[-a-zA-Z0-9_]+"


class PathConverter(StringConverter):
    """``<path:rest>``: anything but a newline, slashes included."""

    regex = ".+"


class UUIDConverter:
    """``<uuid:key>``: a UUID in lower case with its hyphens, as a ``uuid.UUID``."""

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
    """Make ``<type_name:parameter>`` usable in every ``path()`` declared after this call.

    :param converter: a class with ``regex``, ``to_python`` and ``to_url``, instantiated once, here.
    :param type_name: the name in angle brackets, without a colon, a ``>`` or white space.
    :raises ImproperlyConfigured: the class lacks a member, its regex does not compile or names a group, or the name is
        taken by another class (registering the same class again does nothing).

    ``register_converter(YearConverter, "year")`` lets ``path("archive/<year:y>/", view)`` be declared.
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
    """The converter registered as ``type_name``, for ``route``, which is named in the error.

    :raises ImproperlyConfigured: nothing is registered by that name; near names are suggested.
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
    """Whether what ``to_python`` returns may be kept: a built-in converter (ours or Django's own), or a class that
    itself says ``pure = True``. A subclass says it anew, as it may have changed ``to_python``."""
    kind = type(converter)
    if kind.__module__ in (__name__, "django.urls.converters"):
        return True
    return vars(kind).get("pure") is True


def decoder(converter: Converter) -> Callable[[str], Any] | None:
    """``to_python`` in its cheapest form: None where it returns its argument, ``int`` itself for ``<int:...>``."""
    function = getattr(converter.to_python, "__func__", None)
    if function is StringConverter.to_python:
        return None
    return int if function is IntConverter.to_python else converter.to_python


def check_regex(regex: object, owner: str) -> None:
    """Refuse a converter's regex that cannot stand inside a pattern.

    :raises ImproperlyConfigured: not text, does not compile, or has a named group, which would be a parameter that
        nobody declared.
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
