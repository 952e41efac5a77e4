"""`Line`: one connection at a time, made again when it is lost, for as long as that makes sense."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol

from wsaction.client.backoff import Backoff
from wsaction.client.dialing import Dialer, refusal
from wsaction.client.errors import ConnectionFailed, ConnectionLost
from wsaction.client.links import Link
from wsaction.client.messages import Event

__all__ = ("Hearer", "Line", "State")

logger = logging.getLogger("wsaction.client")

State = Literal["connecting", "connected", "waiting", "closed"]
"""``waiting``: until the next try to connect. ``closed``: for good."""

STABLE = 10.0  # seconds after which a connection counts as one that went well
MIN_REFRESH = 0.5  # seconds between two $auth


class Hearer(Protocol):
    """Who is told of what happens to the line. None of it waits."""

    def event(self, event: Event, size: int) -> None:
        """An event came, in a message of ``size`` characters."""

    def linked(self, link: Link) -> None:
        """There is a new connection."""

    def cut(self) -> None:
        """It was lost."""

    def ended(self, failure: ConnectionFailed | None) -> None:
        """There will be none any more; None: it was closed from here."""


class Line:
    """Keeps a link up from `open` until `close`, or until the server says no. See `clients.Client`."""

    def __init__(
        self,
        dialer: Dialer,
        hearer: Hearer,
        backoff: Backoff,
        reconnect: bool,
        heartbeat: float | None,
        on_state: Callable[[State, Exception | None], None] | None,
    ) -> None:
        self._dialer, self._hearer, self._backoff = dialer, hearer, backoff
        self._reconnect, self._heartbeat, self._on_state = reconnect, heartbeat, on_state
        self._link: Link | None = None
        self._up = asyncio.Event()
        self._failure: ConnectionFailed | None = None
        self._runner: asyncio.Task[None] | None = None
        self._refused = 0  # connections in a row that were closed by a no before they were stable
        self.state: State = "connecting"

    @property
    def link(self) -> Link | None:
        """The connection, while there is one."""
        return None if self._link is None or self._link.is_lost else self._link

    async def connected(self) -> Link:
        """The connection; waits for it. Raises `ConnectionFailed` where there will be none."""
        while (link := self.link) is None:
            if self._failure is not None:
                raise self._failure.again()
            if self._runner is None:
                raise RuntimeError("the client is not connected; use it in `async with connect(...) as client:`")
            self._up.clear()
            await self._up.wait()
        return link

    # ------------------------------------------------------------------------------------------------ its life
    async def open(self) -> None:
        """Connects for the first time, which is not tried twice."""
        if self._runner is not None or self._failure is not None:
            raise RuntimeError("this client was entered before; make a new one")
        self._tell("connecting")
        try:
            link, expires_at = await self._dialer.dial(self._hearer.event)
        except Exception as exc:
            self._end(exc if isinstance(exc, ConnectionFailed) else ConnectionFailed(f"the client failed: {exc!r}"))
            raise
        self._attach(link)
        self._runner = asyncio.create_task(self._run(link, expires_at))

    async def close(self) -> None:
        """Ends it; nothing of it runs any more then."""
        runner: Any = self._runner
        runner.cancel()
        try:
            await asyncio.wait([runner])
            if self._link is not None:  # the runner was cancelled before it began
                await self._link.close()
        except asyncio.CancelledError:
            if self._link is not None:
                self._link.abort()
            await asyncio.wait([runner])
            raise
        finally:
            self._link = None
            self._end(None)
        if not runner.cancelled():
            runner.result()  # a bug of ours is told

    async def _run(self, link: Link, expires_at: float | None) -> None:
        try:
            while True:
                lost = await self._serve(link, expires_at)
                link, expires_at = await self._connect_again(lost)
                self._attach(link)
        except ConnectionFailed as exc:
            self._end(exc)
        except Exception as exc:
            self._end(ConnectionFailed(f"the client failed: {exc!r}"))
            raise

    async def _serve(self, link: Link, expires_at: float | None) -> ConnectionLost:
        """A link's life."""
        began = time.monotonic()
        keeping = asyncio.create_task(self._keep(link, expires_at))
        try:
            lost = await link.run()
        finally:
            keeping.cancel()
            self._hearer.cut()
            await asyncio.gather(keeping, return_exceptions=True)
            await link.close()
            self._link = None
        if time.monotonic() - began >= STABLE:
            self._refused = 0
            self._backoff.reset()
        return lost

    def _attach(self, link: Link) -> None:
        self._link = link
        self._up.set()
        self._hearer.linked(link)
        self._tell("connected")

    async def _connect_again(self, lost: ConnectionLost) -> tuple[Link, float | None]:
        """The next link. Raises `ConnectionFailed` where there is none to come."""
        refused = refusal(self._dialer.url, lost)
        self._refused += refused.is_final
        if not self._reconnect or (refused.is_final and (self._refused > 1 or not self._dialer.can_renew)):
            raise refused from lost
        cause: Exception = lost
        while True:
            self._tell("waiting", cause)
            await asyncio.sleep(self._backoff.seconds())
            self._tell("connecting", cause)
            try:
                return await self._dialer.dial(self._hearer.event)
            except ConnectionFailed as exc:
                if exc.is_final:
                    raise
                cause = exc
            except Exception as exc:
                logger.warning("no credential to connect with", exc_info=exc)
                cause = exc

    # ------------------------------------------------------------------------------------------------ keeping it
    async def _keep(self, link: Link, expires_at: float | None) -> None:
        async with asyncio.TaskGroup() as tasks:
            if self._heartbeat is not None:
                tasks.create_task(self._beat(link, self._heartbeat))
            if expires_at is not None and self._dialer.can_refresh:
                tasks.create_task(self._refresh(link, expires_at))

    async def _beat(self, link: Link, seconds: float) -> None:
        while True:
            left = link.said_at + seconds - asyncio.get_running_loop().time()
            if left <= 0:
                link.ping()
            await asyncio.sleep(left if left > 0 else seconds)

    async def _refresh(self, link: Link, expires_at: float | None) -> None:
        """Authenticates again at half time, for as long as the server says that there is an end."""
        while expires_at is not None:
            await asyncio.sleep(max((expires_at - time.time()) / 2, MIN_REFRESH))
            try:
                expires_at = await self._dialer.authenticate(link.call)
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
        self._up.set()
        self._hearer.ended(failure)
        self._tell("closed", failure)

    def _tell(self, state: State, cause: Exception | None = None) -> None:
        self.state = state
        if self._on_state is not None:
            try:
                self._on_state(state, cause)
            except Exception:  # it is told of the connection, which must not end by it
                logger.exception("on_state(%r, ...) failed", state)
