"""Names: what routes, actions and models are called in TypeScript."""

import re
from collections.abc import Collection

__all__ = ("camel", "free", "is_identifier", "pascal", "words")

# What an object has, or is taken for, whatever is put onto it; `then` would make it a promise.
UNUSABLE = frozenset({"__proto__", "constructor", "then", "toString", "valueOf", "toJSON", "hasOwnProperty"})


def words(text: str) -> list[str]:
    """The parts of a name: ``partial_update`` is ``partial`` and ``update``, ``v2API-key`` is ``v2API`` and ``key``.

    What cannot stand in an identifier is left out.
    """
    kept = "".join(one if one != "_" and f"a{one}".isidentifier() else " " for one in text)
    return kept.split()


def camel(text: str) -> str:
    """``partial_update`` is ``partialUpdate``; what begins with a digit gets ``_`` before it, nothing is ``_``."""
    first, *rest = words(text) or [""]
    return _begun(first[:1].lower() + first[1:] + "".join(one[:1].upper() + one[1:] for one in rest))


def pascal(text: str) -> str:
    """``PageReply_Dog_`` is ``PageReplyDog``."""
    return _begun("".join(one[:1].upper() + one[1:] for one in words(text)))


def _begun(name: str) -> str:
    return name if name.isidentifier() else f"_{name}"


def free(name: str, taken: Collection[str]) -> str:
    """The name, with as many ``_`` after it as it takes to be another one than those that are taken."""
    while name in taken or name in UNUSABLE:
        name += "_"
    return name


_IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]*", re.ASCII)


def is_identifier(name: str) -> bool:
    """Whether a key of an object needs no quotes."""
    return _IDENTIFIER.fullmatch(name) is not None
