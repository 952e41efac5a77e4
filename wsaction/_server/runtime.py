"""State that all connections of an app share, per event loop, and draining."""

import asyncio
import logging
import os
import random
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from wsaction._connection.flusher import Flusher
from wsaction._dispatch.middleware import ExceptionHandler, Middleware
from wsaction._events.reauthorization import end_subscription
from wsaction._events.users import Users
from wsaction._protocol.close_codes import SERVICE_RESTART
from wsaction._protocol.frames import current_frame
from wsaction._pubsub.hub import Hub
from wsaction._pubsub.subscription import Subscriber
from wsaction._server.origins import HostPolicy, OriginPolicy
from wsaction._server.worker_count import warn_of_workers
from wsaction._utils.blocking import BlockingMonitor
from wsaction._utils.threads import Threads, handed_over, is_loop_closed, note_process
from wsaction.authentication._identity import user_id
from wsaction.authentication._state import Authenticator
from wsaction.exceptions import ActionTimeout, Busy, LayerUnavailable
from wsaction.hooks import HookList
from wsaction.layers.base import Layer
from wsaction.layers.memory import MemoryLayer
from wsaction.limits import Limits
from wsaction.transactions import own_unit, run_as_unit

if TYPE_CHECKING:
    from wsaction._connection.connection import Connection
    from wsaction._dispatch.session import Session
    from wsaction.applications import WSAction

RESTARTING = "the server is restarting"
HAND_OVER_TIMEOUT = 10.0  # seconds to wait for work that another event loop runs

logger = logging.getLogger("wsaction")

T = TypeVar("T")


def _report_no_thread(max_threads: int) -> None:
    """Replaces the timeout of a frame that waited for a thread in vain: 503 `Busy`, since nothing of it was run."""
    if (frame := current_frame.get()) is not None and isinstance(frame.error, ActionTimeout):
        ctx = {"limit": "max_threads", "value": max_threads}
        frame.fail(Busy(f"No thread was free in time; max_threads is {max_threads}.", ctx))


class LoopState:
    """The state of an app on one event loop."""

    __slots__ = ("connections", "draining", "flusher", "hub", "is_serving", "monitor", "threads", "users")

    def __init__(self, limits: Limits, users: Users) -> None:
        self.threads = Threads(limits.max_threads, partial(_report_no_thread, limits.max_threads))
        self.connections: set[Connection] = set()  # accepted, and `disconnect()` has not finished
        self.draining = False
        self.is_serving = False  # whether connections are served on this loop, or will be
        self.flusher = Flusher()
        self.users = users
        self.hub: Hub | None = None  # created at the first use of `Runtime.hub`
        self.monitor: BlockingMonitor | None = None  # created at the first use of `Runtime.watched`

    def leave(self, connection: Subscriber, topic: str, route: str) -> None:
        """Ends a subscription, if there is one."""
        if self.hub is not None:
            self.hub.leave(connection, topic, route)

    def hold(self, connection: Subscriber, topic: str, route: str) -> Callable[[], None]:
        """Holds back a subscription's events until the returned function is called; see `Hub.hold`."""
        return (lambda: None) if self.hub is None else self.hub.hold(connection, topic, route)

    def resync(self, connection: Subscriber, routes: Collection[str] | None) -> None:
        """Sends ``$resync`` for the connection's subscriptions to these routes; None: to all its routes."""
        if self.hub is not None:
            self.hub.resync(connection, routes)

    def forget(self, session: "Session") -> None:
        """Ends all subscriptions of a closed connection and forgets its user."""
        for topic, route in {*session.grants, *session.attempts}:
            end_subscription(session, topic, route)
        self.users.forget(session)
        if self.hub is not None:
            self.hub.leave_all(session.connection)
            if session.group is not None:
                self.hub.leave_all(session.group)


class Runtime:
    """The limits, policies, hooks, threads, connections and subscriptions of an app.

    A consumer that is served without an app gets a runtime with the defaults. An app that runs on several event loops
    has separate threads, connections and subscriptions on each (`LoopState`). If ``layer`` is None, events reach only
    the subscribers of their own loop.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        origins: OriginPolicy | None = None,
        hosts: HostPolicy | None = None,
        authenticator: Authenticator | None = None,
        middleware: Sequence[Middleware] = (),
        exception_handlers: Mapping[type[BaseException], ExceptionHandler] | None = None,
        hooks: HookList | None = None,
        layer: Layer | None = None,
        user_id: Callable[[Any], Any] = user_id,
        accept_refused: bool = False,
        debug: bool = False,
    ) -> None:
        self.limits = limits or Limits()
        self.origins = origins or OriginPolicy()
        self.hosts = hosts or HostPolicy()
        self.authenticator = authenticator  # None: the app sets no authentication_classes
        self.middleware = tuple(middleware)
        self.exception_handlers = exception_handlers or {}
        self.hooks = hooks or HookList()
        self.layer = layer
        self.user_id = user_id
        self.accept_refused = accept_refused  # whether a refused handshake is accepted and then closed
        self.debug = debug
        self._blocking: set[str] = set()  # what blocked a loop and was logged; in debug mode only
        self.app: WSAction | None = None  # the `WSAction`; None for a consumer served without an app
        self.dependency_overrides: dict[Callable[..., Any], Callable[..., Any]] = {}
        self._warned_of_workers = False
        self._warned_unserved = False
        self._loop_states: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopState] = WeakKeyDictionary()
        _runtimes.add(self)

    @property
    def loop_state(self) -> LoopState:
        """The state of the running event loop, created at first use."""
        loop = asyncio.get_running_loop()
        if (here := self._loop_states.get(loop)) is None:
            note_process(loop)
            users = Users(lambda: self.hub, self.user_id, shared=self.layer is not None)
            here = self._loop_states[loop] = LoopState(self.limits, users)
        return here

    @property
    def monitor(self) -> BlockingMonitor:
        """Watches the running event loop, created at first use; see `watched`."""
        here = self.loop_state
        if here.monitor is None:
            here.monitor = BlockingMonitor(self._blocking)
        return here.monitor

    def watched(self, work: Coroutine[Any, Any, T], name: str) -> Coroutine[Any, Any, T]:
        """The same coroutine. In debug mode, the log says if it blocks the event loop."""
        return self.monitor.watch(work, lambda: name) if self.debug else work

    @property
    def threads(self) -> Threads:
        """The threads that run sync functions. Must be read on the event loop."""
        return self.loop_state.threads

    @property
    def hub(self) -> Hub:
        """The topics and subscriptions of the running event loop, created at first use."""
        here = self.loop_state
        if here.hub is None:
            self.warn_of_workers()
            here.hub = Hub(self.layer or MemoryLayer(), hooks=self.hooks)
        return here.hub

    def warn_of_workers(self) -> None:
        """Logs a warning, once, if several workers serve the app without a layer."""
        if not self._warned_of_workers and isinstance(self.layer, MemoryLayer | None):
            self._warned_of_workers = True
            warn_of_workers()

    async def run_where_served(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs ``work`` on the event loops of this process that serve the app.

        If the running loop serves it, runs ``work`` there only. If no loop does, runs it on the running loop, and logs
        once that no client is reached unless the app has a layer. Raises what ``work`` raises, and `LayerUnavailable`
        if another loop takes longer than 10 s or ends meanwhile.
        """
        here = self._loop_states.get(asyncio.get_running_loop())
        if here is not None and here.is_serving:
            await work()
        elif serving := [loop for loop in self._running_loops() if self._loop_states[loop].is_serving]:
            await on_loops(serving, work)
        else:
            await work()
            if not self._warned_unserved and isinstance(self.layer, MemoryLayer | None):
                self._warned_unserved = True
                logger.warning(
                    "process %s serves no connections, and without a layer its events reach no other process. Set "
                    "WSAction(..., layer=RedisLayer('redis://...')), which is in wsaction.layers.redis.",
                    os.getpid(),
                )

    def _running_loops(self) -> list[asyncio.AbstractEventLoop]:
        loops = [ref() for ref in self._loop_states.keyrefs()]
        return [loop for loop in loops if loop is not None and loop.is_running() and not is_loop_closed(loop)]

    async def close(self) -> None:
        """Stops serving on the running event loop: no more events are delivered, and the layer is closed."""
        self.loop_state.is_serving = False
        await self.loop_state.users.stop()
        if self.loop_state.hub is not None:
            await self.loop_state.hub.close()

    def reopen(self) -> None:
        """Takes connections again after `drain` or `close`, as an app does when it starts again."""
        here = self.loop_state
        here.draining = False
        here.is_serving = True
        if here.hub is not None and here.hub.is_closed:
            here.hub = None

    async def drain(self) -> None:
        """Closes all connections of this loop within ``drain_timeout``; see `wsaction.applications.WSAction.drain`."""
        here = self.loop_state
        here.draining = True
        loop = asyncio.get_running_loop()
        seconds = self.limits.drain_timeout
        end_by = loop.time() + seconds
        for connection in here.connections:
            connection.drain(end_by)
        pause = min(LONGEST_PAUSE, seconds / 4 / (1 + len(here.connections) / BATCH))
        while here.connections and (left := end_by - seconds / 5 - loop.time()) > 0:
            idle = [connection for connection in here.connections if not (connection.is_closed or connection.busy)]
            random.shuffle(idle)
            for connection in idle[:BATCH]:
                connection.close(SERVICE_RESTART, RESTARTING)
            await asyncio.sleep(min(left, random.uniform(0.5, 1.5) * pause))  # noqa: S311  # jitter, no secret
        for connection in list(here.connections):  # those with actions that still run are out of time
            connection.close(SERVICE_RESTART, RESTARTING)
        while here.connections and loop.time() < end_by:  # noqa: ASYNC110  # there is no single event to wait for
            await asyncio.sleep(pause / 5)
        if here.connections:
            logger.error("%s connections are still open after drain_timeout, %g s", len(here.connections), seconds)


BATCH = 50  # connections closed together; batches keep their clients from reconnecting all at once
LONGEST_PAUSE = 0.05  # seconds between two batches


async def on_loops(loops: Sequence[asyncio.AbstractEventLoop], work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs ``work`` on each loop by `on_loop`. If this task has an open unit of work, waits for its commit first."""
    if (unit := own_unit()) is None:
        for loop in loops:
            await on_loop(loop, work)
    else:
        committed = partial(run_as_unit, work, in_doubt=False)
        unknown = partial(run_as_unit, work, in_doubt=True)
        unit.on_commit(partial(on_loops, loops, committed), if_unknown=partial(on_loops, loops, unknown))


async def on_loop(
    loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, None]], seconds: float = HAND_OVER_TIMEOUT
) -> None:
    """Runs ``work`` on an event loop of another thread and waits for its end.

    Raises what ``work`` raises. Raises `LayerUnavailable` if the loop takes longer than ``seconds``, as it does if it
    ends meanwhile, and at once if the loop has ended or belongs to the parent that this process was forked from.
    """
    awaitable = work()
    coroutine = _run_handed_over(awaitable)
    try:
        if is_loop_closed(loop):
            raise RuntimeError("no event loop of this process")
        done = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError as exc:  # the loop may have been closed since the check
        coroutine.close()
        awaitable.close()
        raise LayerUnavailable("The event loop that serves the app has ended, or belongs to another process.") from exc
    try:
        async with asyncio.timeout(seconds) as deadline:
            await asyncio.wrap_future(done)
    except TimeoutError:
        if not deadline.expired():
            raise
        msg = f"The event loop that serves the app did not answer within {seconds:g} s."
        raise LayerUnavailable(msg, uncertain=True) from None


async def _run_handed_over(work: Coroutine[Any, Any, None]) -> None:
    handed_over.set(asyncio.current_task())
    await work


_runtimes: "WeakSet[Runtime]" = WeakSet()


async def drain_all() -> None:
    """Drains every app that has state on the running event loop."""
    loop = asyncio.get_running_loop()
    await asyncio.gather(*(runtime.drain() for runtime in list(_runtimes) if loop in runtime._loop_states))
