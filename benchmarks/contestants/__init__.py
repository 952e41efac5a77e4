"""The contestants. Each module does the action job in its own idiom: `app`, and `waiting_app`, whose action waits
(`benchmarks.job.pause`) before it answers.

A module may have `STATUSES`, the statuses in which it differs from the job, and `UNTOLD`, the keys that its replies
cannot have.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.job import CHANX, DCRF, JSON, SOCKET_IO, Speech

__all__ = ("BY_HAND", "CONTESTANTS", "ECHO", "OURS", "Contestant", "by_name")


@dataclass(frozen=True, slots=True)
class Contestant:
    """A row of the table: its name, its module, and the distribution whose version is reported."""

    name: str
    module: str
    distribution: str | None = None
    speech: Speech = JSON
    quick: bool = False  # whether it takes part in the quick run

    def load(self) -> Any:
        """Its module. Raises ``ImportError`` if the peer is not installed."""
        return importlib.import_module(f"benchmarks.contestants.{self.module}")

    def app(self, waiting: bool = False) -> Callable[..., Any]:
        module = self.load()
        app: Callable[..., Any] = module.waiting_app if waiting else module.app
        return app

    @property
    def version(self) -> str | None:
        """The version; None if it is not installed."""
        if self.distribution is None:
            return ""
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return None


OURS = Contestant("wsaction", "ours", "wsaction", quick=True)
BY_HAND = Contestant("by hand", "by_hand", quick=True)
ECHO = Contestant("echo, no work", "echo", quick=True)

CONTESTANTS = (
    OURS,
    BY_HAND,
    Contestant("by hand, msgspec", "by_hand_msgspec", "msgspec", quick=True),
    Contestant("litestar", "litestar_listener", "litestar", quick=True),
    Contestant("Starlette", "starlette_endpoint", "starlette", quick=True),
    Contestant("FastAPI", "fastapi_endpoint", "fastapi", quick=True),
    Contestant("chanx", "chanx_consumer", "chanx", CHANX),
    Contestant("python-socketio", "socketio_server", "python-socketio", SOCKET_IO),
    Contestant("djangochannelsrestframework", "dcrf_consumer", "djangochannelsrestframework", DCRF),
    Contestant("rest-framework-channels", "rfc_consumer", "rest-framework-channels"),
)


def by_name(name: str) -> Contestant:
    """The contestant with this name. Raises ``LookupError``."""
    for contestant in (*CONTESTANTS, ECHO):
        if contestant.name == name:
            return contestant
    raise LookupError(f"no contestant {name!r}; there are {', '.join(one.name for one in (*CONTESTANTS, ECHO))}")
