"""Names: what routes, actions and models are called in TypeScript."""

import re
from collections.abc import Collection

__all__ = ("camel", "free", "is_identifier", "pascal", "words")

# What an object has, or is taken for, whatever is put onto it; `then` would make it a promise.
RESERVED = frozenset({"__proto__", "constructor", "then", "toString", "valueOf", "toJSON", "hasOwnProperty"})


def words(text: str) -> list[str]:
    """The parts of a name: ``partial_update`` is ``partial`` and ``update``, ``v2API-key`` is ``v2API`` and ``key``.

    What cannot stand in an identifier is left out.
    """
    return "".join(char if char != "_" and f"a{char}".isidentifier() else " " for char in text).split()


def camel(text: str) -> str:
    """``partial_update`` is ``partialUpdate``; what begins with a digit gets ``_`` before it, nothing is ``_``."""
    first, *rest = words(text) or [""]
    return _as_identifier(first[:1].lower() + first[1:] + "".join(map(_capitalize, rest)))


def pascal(text: str) -> str:
    """``PageReply_Dog_`` is ``PageReplyDog``."""
    return _as_identifier("".join(map(_capitalize, words(text))))


def _capitalize(word: str) -> str:
    return word[:1].upper() + word[1:]


def _as_identifier(name: str) -> str:
    return name if name.isidentifier() else f"_{name}"


def free(name: str, taken: Collection[str]) -> str:
    """The name, with as many ``_`` after it as it takes to be another one than those that are taken."""
    while name in taken or name in RESERVED:
        name += "_"
    return name


_IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]*", re.ASCII)


def is_identifier(name: str) -> bool:
    """Whether a key of an object needs no quotes."""
    return _IDENTIFIER.fullmatch(name) is not None
