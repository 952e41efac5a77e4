"""Detects how many worker processes serve an app, and warns if they have no layer in common."""

import logging
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence

logger = logging.getLogger("wsaction")

WORKERS_VARIABLE = "WSACTION_WORKERS"  # set by `wsaction.server.run` for the processes that it starts


def count_workers(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """The number of workers, from ``--workers`` or ``-w`` (uvicorn, gunicorn, wsaction) or ``WEB_CONCURRENCY``.

    Returns 1 if none of them is set. ``count_workers(["uvicorn", "main:app", "--workers", "4"], {}) == 4``.
    """
    environ = os.environ if environ is None else environ
    told = list(_options(sys.argv if argv is None else argv))
    try:
        told += _options(shlex.split(environ.get("GUNICORN_CMD_ARGS", "")))
    except ValueError as exc:  # gunicorn reports the error itself
        logger.debug("GUNICORN_CMD_ARGS cannot be read: %s", exc)
    told += [environ.get(name, "") for name in (WORKERS_VARIABLE, "WEB_CONCURRENCY")]
    return next((int(one) for one in told if one.isascii() and one.isdigit()), 1)


def _options(argv: Sequence[str]) -> Iterable[str]:
    for at, one in enumerate(argv):
        if one in ("--workers", "-w"):
            yield argv[at + 1] if at + 1 < len(argv) else ""
        elif found := re.fullmatch(r"(?:--workers=|-w=?)(\d+)", one):
            yield found[1]


def warn_of_workers() -> None:
    """Logs a warning if several processes serve: without a layer, none receives the events of another."""
    if (count := count_workers()) > 1:
        logger.warning(
            "%s workers serve this app without a layer: an event reaches only the clients that are connected to the "
            "worker that published it. Set WSAction(..., layer=RedisLayer('redis://...')), which is in "
            "wsaction.layers.redis, or run one worker.",
            count,
        )
