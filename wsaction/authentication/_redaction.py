"""Removes secrets from errors and logs."""

import traceback
from collections.abc import Collection, Iterator
from itertools import groupby
from typing import Any

from wsaction.exceptions import APIError, from_starlette

SHORTEST = 4  # characters; a shorter text does not count as a secret
TRACE = 8  # characters in a row that count as a trace of a secret
_MAX_TEXT = 16_384  # characters of a traceback
_FEW_RUNS = 256  # up to so many runs of characters are looked for one by one


class RedactedError(Exception):
    """An error of code that handles secrets: its traceback as text, with the secrets redacted."""


def redact(text: str, secrets: Collection[str]) -> str:
    """The text with "[redacted]" for 8 characters in a row that it shares with a secret, or a whole shorter one.

    This also finds a token that was cut, quoted or put into a URL. Texts of less than 4 characters are not redacted.

    >>> redact("no such token: 'eyJhbGciOi...", ["eyJhbGciOiJIUzI1NiJ9"])
    "no such token: '[redacted]..."
    """
    traces = _traces(text, [secret for secret in secrets if len(secret) >= SHORTEST])
    hidden = bytearray(len(text))
    for size in {len(trace) for trace in traces}:
        for at in range(len(text) - size + 1):
            if text[at : at + size] in traces:
                hidden[at : at + size] = b"\1" * size
    runs = groupby(zip(text, hidden, strict=True), key=lambda pair: pair[1])
    return "".join("[redacted]" if secret else "".join(character for character, _ in run) for secret, run in runs)


def _traces(text: str, secrets: Collection[str]) -> set[str]:
    """The parts of the secrets that may be in the text. It must be cheap, because a secret may have 64 KiB."""
    long = [secret for secret in secrets if len(secret) >= TRACE]
    runs = {text[at : at + TRACE] for at in range(len(text) - TRACE + 1)}
    if len(runs) <= _FEW_RUNS:  # an error's message: search for its runs in all secrets at once
        joined = "\n".join(long)
        found = {run for run in runs if run in joined and ("\n" not in run or any(run in secret for secret in long))}
    else:  # a traceback
        slices = (secret[at : at + TRACE] for secret in long for at in range(len(secret) - TRACE + 1))
        found = {part for part in slices if part in runs}
    return found.union(secret for secret in secrets if len(secret) < TRACE)


def texts(value: Any) -> Iterator[str]:
    """Every leaf of nested dicts, lists and tuples as text, without the keys."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
    else:
        yield str(value)


def without_secrets(exc: BaseException, secrets: Collection[str], where: str) -> Exception:
    """The exception to raise instead of ``exc``, without any trace of a secret.

    Raise it outside of the ``except`` block, else ``exc`` becomes its context. An `APIError` is returned itself,
    without its cause. If it contains a secret, its message is redacted and its ``ctx`` and ``loc`` are dropped. Any
    other exception becomes a `RedactedError`.
    """
    exc = from_starlette(exc) or exc
    try:
        if not isinstance(exc, APIError):
            text = "".join(traceback.format_exception(exc))
            return RedactedError(f"{where} raised this:\n{redact(text, secrets)[-_MAX_TEXT:]}")
        if any(redact(text, secrets) != text for text in {str(exc), *texts(exc.errors)}):
            return APIError(exc.status, redact(exc.type, secrets), redact(exc.msg, secrets))
    except Exception as failure:  # the error's own attributes may raise, and that may contain a secret
        return RedactedError(f"{where} raised {type(exc).__name__}, which raised {type(failure).__name__} when read")
    exc.__cause__ = exc.__context__ = None
    return exc.with_traceback(None)
