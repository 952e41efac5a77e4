"""What the connections of one app share."""

import asyncio
from weakref import WeakKeyDictionary

from wsaction.admission import Authenticator
from wsaction.concurrency import Threads
from wsaction.limits import Limits
from wsaction.origins import OriginPolicy

__all__ = ("RUNTIME_KEY", "Runtime")

RUNTIME_KEY = "wsaction.runtime"  # where an app leaves its runtime in the scope of a connection


class Runtime:
    """The bounds, the Origin policy, the authentication, the threads and the debug mode of all connections of an app.

    One made without arguments is what a consumer served on its own gets. An app that is
    used on several event loops has threads of their own in each.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        origins: OriginPolicy | None = None,
        authenticator: Authenticator | None = None,
        debug: bool = False,
    ) -> None:
        self.limits = limits or Limits()
        self.origins = origins or OriginPolicy()
        self.authenticator = authenticator  # None: the app has no classes of its own
        self.debug = debug
        self._threads: WeakKeyDictionary[asyncio.AbstractEventLoop, Threads] = WeakKeyDictionary()

    @property
    def threads(self) -> Threads:
        """Where sync functions run; to be asked for on the loop."""
        loop = asyncio.get_running_loop()
        if (threads := self._threads.get(loop)) is None:
            threads = self._threads[loop] = Threads(self.limits.max_threads)
        return threads
