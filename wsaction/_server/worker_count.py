"""Workers: how many processes a server was told to run, as far as a process can see, and what that means for events."""

import logging
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence

__all__ = ("WORKERS_VARIABLE", "count_workers", "warn_of_workers")

logger = logging.getLogger("wsaction")

WORKERS_VARIABLE = "WSACTION_WORKERS"  # where `wsaction.server.run` leaves it to the processes that it starts


def count_workers(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """How many processes serve: by ``--workers`` or ``-w`` (uvicorn, gunicorn, wsaction), or ``WEB_CONCURRENCY``.

    ``count_workers(["uvicorn", "main:app", "--workers", "4"], {}) == 4``; 1 where nothing is said.
    """
    environ = os.environ if environ is None else environ
    told = list(_options(sys.argv if argv is None else argv))
    try:
        told += _options(shlex.split(environ.get("GUNICORN_CMD_ARGS", "")))
    except ValueError as exc:  # gunicorn itself will say so
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
    """Warns where several processes serve, none of which hears what another one publishes."""
    if (count := count_workers()) > 1:
        logger.warning(
            "%s workers serve this app without a layer between them: an event reaches only those who are connected to "
            "the worker that published it. Give the app one, WSAction(..., layer=RedisLayer('redis://...')) of "
            "wsaction.layers.redis, or run one worker.",
            count,
        )
