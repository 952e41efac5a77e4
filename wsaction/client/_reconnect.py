"""`ConnectionManager`: keeps one connection open and reconnects until the server refuses the client."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from wsaction._protocol.close_codes import NOT_AUTHENTICATED, refuses
from wsaction._utils.backoff import Backoff
from wsaction.client._connection import Connection
from wsaction.client._handshake import Dialer, refusal
from wsaction.client._pacing import Pacer
from wsaction.client.errors import ConnectionFailed, ConnectionLost

if TYPE_CHECKING:
    from wsaction.client._event_routing import EventRouter

logger = logging.getLogger("wsaction.client")

State = Literal["connecting", "connected", "waiting", "closed"]
"""The state of a client: ``waiting`` until the next attempt to connect, ``closed`` for good."""

OnState = Callable[[State, Exception | None], None]

STABLE_AFTER = 10.0  # seconds after which a connection resets the back-off and the count of refusals
MIN_CREDENTIAL_LIFETIME = 1.0  # seconds; an expired credential that was valid for less is renewed only after a wait
MIN_REFRESH_WAIT, MAX_REFRESH_WAIT = 0.5, 30.0  # seconds between two $auth after the known expiry


class ConnectionManager:
    """Keeps a connection open from `open` until `close`, or until the server refuses the client. See `Client`."""

    def __init__(
        self,
        dialer: Dialer,
        router: "EventRouter",
        backoff: Backoff,
        reconnect: bool,
        heartbeat: float | None,
        pacer: Pacer,
        *,
        stable_after: float = STABLE_AFTER,
        min_credential_lifetime: float = MIN_CREDENTIAL_LIFETIME,
        min_refresh_wait: float = MIN_REFRESH_WAIT,
    ) -> None:
        self._dialer = dialer
        self._router = router
        self._backoff = backoff
        self._pacer = pacer
        self._can_reconnect = reconnect
        self._heartbeat = heartbeat
        self._stable_after = stable_after
        self._min_credential_lifetime = min_credential_lifetime
        self._min_refresh_wait = min_refresh_wait
        self._watchers: list[OnState] = []
        self._connection: Connection | None = None
        self._changed = asyncio.Event()
        self._failure: ConnectionFailed | None = None
        self._runner: asyncio.Task[None] | None = None
        self._refusals = 0  # consecutive; reset by a connection that was stable, or accepted and not refused later
        self.state: State = "connecting"

    @property
    def connection(self) -> Connection | None:
        """The open connection, or None."""
        return None if self._connection is None or self._connection.is_lost else self._connection

    async def connected(self) -> Connection:
        """Waits for an open connection and returns it. Raises `ConnectionFailed` if there will be none."""
        while (connection := self.connection) is None:
            self.check()
            self._changed.clear()
            await self._changed.wait()
        return connection

    def check(self) -> None:
        """Raises `ConnectionFailed` if there will be no connection, and ``RuntimeError`` before `open`."""
        if self._failure is not None:
            raise self._failure._copy()
        if self._runner is None:
            raise RuntimeError("the client is not connected; use it in `async with connect(...) as client:`")

    # ------------------------------------------------------------------------------------------------ lifecycle
    async def open(self) -> None:
        """Connects for the first time, in a single attempt."""
        if self._runner is not None or self._failure is not None:
            raise RuntimeError("this client was entered before; create a new one")
        self._set_state("connecting")
        try:
            connection, expires_at = await self._dialer.dial(self._router.on_event, self._pacer)
        except Exception as exc:
            self._end(exc if isinstance(exc, ConnectionFailed) else ConnectionFailed(f"the client failed: {exc!r}"))
            raise
        self._runner = asyncio.create_task(self._run(connection, expires_at))
        self._attach(connection)

    async def close(self) -> None:
        """Closes the connection for good. No task of the client runs afterwards."""
        runner: Any = self._runner
        runner.cancel()
        try:
            await asyncio.wait([runner])
            if self._connection is not None:  # the runner was cancelled before it began
                await self._connection.close()
        except asyncio.CancelledError:
            if self._connection is not None:
                self._connection.abort()
            await asyncio.wait([runner])
            raise
        finally:
            self._connection = None
            self._end(None)
        if not runner.cancelled():
            runner.result()  # raises an unexpected exception

    async def _run(self, connection: Connection, expires_at: float | None) -> None:
        try:
            while True:
                started_at = time.monotonic()
                lost = await self._serve(connection, expires_at)
                duration = time.monotonic() - started_at
                if duration >= self._stable_after:
                    self._backoff.reset()
                if duration >= self._stable_after or (connection.is_accepted and not refuses(lost.code)):
                    self._refusals = 0
                is_expired = lost.code == NOT_AUTHENTICATED and connection.is_accepted and self._dialer.can_renew
                at_once = is_expired and duration >= self._min_credential_lifetime
                connection, expires_at = await self._connect_again(lost, is_expired, at_once)
                self._attach(connection)
        except ConnectionFailed as exc:
            self._end(exc)
        except Exception as exc:
            self._end(ConnectionFailed(f"the client failed: {exc!r}"))
            raise

    async def _serve(self, connection: Connection, expires_at: float | None) -> ConnectionLost:
        """Runs a connection until it is lost, and cleans up."""
        maintaining = asyncio.create_task(self._maintain(connection, expires_at))
        try:
            lost = await connection.run()
        finally:
            maintaining.cancel()
            self._pacer.detach()
            self._router.on_disconnected()
            await asyncio.gather(maintaining, return_exceptions=True)
            await connection.close()
            self._connection = None
        return lost

    def _attach(self, connection: Connection) -> None:
        self._connection = connection
        self._changed.set()
        self._router.on_connected(connection)
        self._pacer.attach(connection)
        self._set_state("connected")

    async def _connect_again(
        self, lost: ConnectionLost, is_expired: bool, at_once: bool
    ) -> tuple[Connection, float | None]:
        """Returns the next connection. Raises `ConnectionFailed` if the server refuses the client.

        ``is_expired``: the server closed because the credential expired, which does not refuse the next one.
        """
        failure = refusal(self._dialer.url, lost)
        cause: Exception = lost
        if is_expired:
            self._refusals = 0
        if not self._can_reconnect or (not is_expired and self._is_final(failure)):
            raise failure from lost
        while True:
            if not at_once:
                self._set_state("waiting", cause)
                await asyncio.sleep(self._backoff.seconds())
            at_once = False
            self._set_state("connecting", cause)
            try:
                return await self._dialer.dial(self._router.on_event, self._pacer)
            except ConnectionFailed as exc:
                if self._is_final(exc):
                    raise
                cause = exc
            except Exception as exc:
                logger.warning("the credential could not be obtained", exc_info=exc)
                cause = exc

    def _is_final(self, failure: ConnectionFailed) -> bool:
        """Whether to give up. A callable credential gets one more attempt, since it may return another credential."""
        if not failure.is_final:
            return False
        self._refusals += 1
        return self._refusals > 1 or not self._dialer.can_renew

    # ------------------------------------------------------------------------------------------------ maintenance
    async def _maintain(self, connection: Connection, expires_at: float | None) -> None:
        async with asyncio.TaskGroup() as tasks:
            if self._heartbeat is not None:
                tasks.create_task(self._send_heartbeats(connection, self._heartbeat))
            if expires_at is not None and self._dialer.can_refresh:
                tasks.create_task(self._refresh(connection, expires_at))

    async def _send_heartbeats(self, connection: Connection, seconds: float) -> None:
        while True:
            remaining = connection.last_sent_at + seconds - asyncio.get_running_loop().time()
            if remaining <= 0:
                connection.ping()
            await asyncio.sleep(remaining if remaining > 0 else seconds)

    async def _refresh(self, connection: Connection, expires_at: float | None) -> None:
        """Authenticates again after half of the remaining lifetime, as long as the credential expires.

        If the expiry has passed and the connection is still open, the clocks differ or ``$auth`` fails. The waits then
        grow from ``min_refresh_wait`` to `MAX_REFRESH_WAIT`.
        """
        min_wait = self._min_refresh_wait
        while expires_at is not None:
            seconds = (expires_at - time.time()) / 2
            if seconds >= min_wait:
                min_wait = self._min_refresh_wait
            else:
                seconds = min_wait
                min_wait = min(min_wait * 2, MAX_REFRESH_WAIT)
            await asyncio.sleep(seconds)
            try:
                expires_at = await self._dialer.authenticate(connection.call)
            except ConnectionLost:
                return
            except Exception as exc:
                logger.warning("the credential could not be refreshed: %s", exc)

    # ------------------------------------------------------------------------------------------------ notifications
    def _end(self, failure: ConnectionFailed | None) -> None:
        """Ends everything that waits for a connection: with ``failure``, or because the client was closed."""
        if self._failure is not None:
            return
        self._failure = failure or ConnectionFailed("the client is closed")
        self._changed.set()
        self._pacer.end(self._failure)
        self._router.on_closed(failure)
        self._set_state("closed", failure)

    def _set_state(self, state: State, cause: Exception | None = None) -> None:
        self.state = state
        for watcher in tuple(self._watchers):
            try:
                watcher(state, cause)
            except Exception:  # a watcher must not break the connection
                logger.exception("on_state(%r, ...) failed", state)

    def watch(self, watcher: OnState) -> Callable[[], None]:
        """Calls ``watcher`` with each new state. Returns a function that removes it."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None
