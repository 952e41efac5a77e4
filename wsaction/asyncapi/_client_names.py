"""Names of routes, actions and models in generated clients."""

import re
from collections.abc import Collection

# JavaScript gives these names a meaning on every object: with a `then`, it would be awaited like a promise.
RESERVED = frozenset({"__proto__", "constructor", "then", "toString", "valueOf", "toJSON", "hasOwnProperty"})


def words(text: str) -> list[str]:
    """Splits a name at underscores and at characters that no identifier may have.

    ``partial_update`` gives ``partial`` and ``update``; ``v2API-key`` gives ``v2API`` and ``key``.
    """
    return "".join(char if char != "_" and f"a{char}".isidentifier() else " " for char in text).split()


def camel(text: str) -> str:
    """Returns ``partialUpdate`` for ``partial_update``. A leading digit gets a ``_`` before it; no words give ``_``."""
    first, *rest = words(text) or [""]
    return _as_identifier(first[:1].lower() + first[1:] + "".join(map(_capitalize, rest)))


def snake(text: str) -> str:
    """Returns ``partial_update`` for ``partial-update``. A leading digit gets a ``_`` before it."""
    return _as_identifier("_".join(words(text)))


def pascal(text: str) -> str:
    """Returns ``PageReplyDog`` for ``PageReply_Dog_``."""
    return _as_identifier("".join(map(_capitalize, words(text))))


def _capitalize(word: str) -> str:
    return word[:1].upper() + word[1:]


def _as_identifier(name: str) -> str:
    return name if name.isidentifier() else f"_{name}"


def unique_name(name: str, taken: Collection[str]) -> str:
    """Returns a name that is neither taken nor reserved, by appending ``_`` as often as necessary."""
    while name in taken or name in RESERVED:
        name += "_"
    return name


_IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]*", re.ASCII)


def is_identifier(name: str) -> bool:
    """Whether an object key may be written without quotes."""
    return _IDENTIFIER.fullmatch(name) is not None
