"""`ConnectionManager`: one connection at a time, made again when it is lost, for as long as that makes sense."""

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

__all__ = ("ConnectionManager", "State")

logger = logging.getLogger("wsaction.client")

State = Literal["connecting", "connected", "waiting", "closed"]
"""``waiting``: until the next try to connect. ``closed``: for good."""

OnState = Callable[[State, Exception | None], None]

STABLE_AFTER = 10.0  # seconds after which a connection counts as one that went well
MIN_CREDENTIAL_LIFETIME = 1.0  # seconds that a credential has to last to be renewed without a wait when it expires
MIN_REFRESH_WAIT, MAX_REFRESH_WAIT = 0.5, 30.0  # seconds between two $auth after the expiry, as far as we know


class ConnectionManager:
    """Keeps a link up from `open` until `close`, or until the server says no. See `clients.Client`."""

    def __init__(
        self,
        dialer: Dialer,
        router: "EventRouter",
        backoff: Backoff,
        reconnect: bool,
        heartbeat: float | None,
        pacer: Pacer,
    ) -> None:
        self._dialer = dialer
        self._router = router
        self._backoff = backoff
        self._pacer = pacer
        self._can_reconnect = reconnect
        self._heartbeat = heartbeat
        self._watchers: list[OnState] = []
        self._connection: Connection | None = None
        self._changed = asyncio.Event()
        self._failure: ConnectionFailed | None = None
        self._runner: asyncio.Task[None] | None = None
        self._refusals = 0  # in a row: between them no connection was let in that ended otherwise, or was stable
        self.state: State = "connecting"

    @property
    def connection(self) -> Connection | None:
        """The connection, while there is one."""
        return None if self._connection is None or self._connection.is_lost else self._connection

    async def connected(self) -> Connection:
        """The connection; waits for it. Raises `ConnectionFailed` where there will be none."""
        while (connection := self.connection) is None:
            self.check()
            self._changed.clear()
            await self._changed.wait()
        return connection

    def check(self) -> None:
        """Raises `ConnectionFailed` where there will be no connection, ``RuntimeError`` before `open`."""
        if self._failure is not None:
            raise self._failure.again()
        if self._runner is None:
            raise RuntimeError("the client is not connected; use it in `async with connect(...) as client:`")

    # ------------------------------------------------------------------------------------------------ its life
    async def open(self) -> None:
        """Connects for the first time, which is not tried twice."""
        if self._runner is not None or self._failure is not None:
            raise RuntimeError("this client was entered before; make a new one")
        self._set_state("connecting")
        try:
            connection, expires_at = await self._dialer.dial(self._router.on_event, self._pacer)
        except Exception as exc:
            self._end(exc if isinstance(exc, ConnectionFailed) else ConnectionFailed(f"the client failed: {exc!r}"))
            raise
        self._runner = asyncio.create_task(self._run(connection, expires_at))
        self._attach(connection)

    async def close(self) -> None:
        """Ends it; nothing of it runs any more then."""
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
            runner.result()  # a bug of ours is told

    async def _run(self, connection: Connection, expires_at: float | None) -> None:
        try:
            while True:
                started_at = time.monotonic()
                lost = await self._serve(connection, expires_at)
                duration = time.monotonic() - started_at
                if duration >= STABLE_AFTER:
                    self._backoff.reset()
                if duration >= STABLE_AFTER or (connection.is_accepted and not refuses(lost.code)):
                    self._refusals = 0
                is_expired = lost.code == NOT_AUTHENTICATED and connection.is_accepted and self._dialer.can_renew
                at_once = is_expired and duration >= MIN_CREDENTIAL_LIFETIME
                connection, expires_at = await self._connect_again(lost, is_expired, at_once)
                self._attach(connection)
        except ConnectionFailed as exc:
            self._end(exc)
        except Exception as exc:
            self._end(ConnectionFailed(f"the client failed: {exc!r}"))
            raise

    async def _serve(self, connection: Connection, expires_at: float | None) -> ConnectionLost:
        """A link's life."""
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
        """The next link. Raises `ConnectionFailed` where there is none to come.

        ``is_expired``: the server closed because the credential has expired, which is no refusal of the next one.
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
                logger.warning("no credential to connect with", exc_info=exc)
                cause = exc

    def _is_final(self, failure: ConnectionFailed) -> bool:
        """Whether it is not to be tried again. A function for the credential has one more try: it may give another."""
        if not failure.is_final:
            return False
        self._refusals += 1
        return self._refusals > 1 or not self._dialer.can_renew

    # ------------------------------------------------------------------------------------------------ maintaining it
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
        """Authenticates again at half time, for as long as the server says that there is an end.

        Where that is up and the server has not closed, its clock is behind ours, or it cannot be asked: it is asked
        less and less often.
        """
        min_wait = MIN_REFRESH_WAIT
        while expires_at is not None:
            seconds = (expires_at - time.time()) / 2
            if seconds >= min_wait:
                min_wait = MIN_REFRESH_WAIT
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

    # ------------------------------------------------------------------------------------------------ telling
    def _end(self, failure: ConnectionFailed | None) -> None:
        """No connection any more: everybody who waits for something is told."""
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
            except Exception:  # it is told of the connection, which must not end by it
                logger.exception("on_state(%r, ...) failed", state)

    def watch(self, watcher: OnState) -> Callable[[], None]:
        """Tells it of each new state; returns what ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None
