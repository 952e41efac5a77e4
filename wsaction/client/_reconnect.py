"""`Line`: one connection at a time, made again when it is lost, for as long as that makes sense."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol

from wsaction._protocol.close_codes import NOT_AUTHENTICATED, refuses
from wsaction._utils.backoff import Backoff
from wsaction.client._connection import Link
from wsaction.client._handshake import Dialer, refusal
from wsaction.client._pacing import Pacer
from wsaction.client.errors import ConnectionFailed, ConnectionLost
from wsaction.client.messages import Event

__all__ = ("Hearer", "Line", "State")

logger = logging.getLogger("wsaction.client")

State = Literal["connecting", "connected", "waiting", "closed"]
"""``waiting``: until the next try to connect. ``closed``: for good."""

OnState = Callable[[State, Exception | None], None]

STABLE = 10.0  # seconds after which a connection counts as one that went well
AT_ONCE = 1.0  # seconds that a credential has to last to be renewed without a wait when it expires
MIN_REFRESH, MAX_REFRESH = 0.5, 30.0  # seconds between two $auth where the time is up already, as far as we know


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
        pacer: Pacer,
    ) -> None:
        self._dialer, self._hearer, self._backoff, self._pacer = dialer, hearer, backoff, pacer
        self._reconnect, self._heartbeat = reconnect, heartbeat
        self._watchers: list[OnState] = []
        self._link: Link | None = None
        self._up = asyncio.Event()
        self._failure: ConnectionFailed | None = None
        self._runner: asyncio.Task[None] | None = None
        self._refused = 0  # in a row: between them no connection was let in that ended otherwise, or was stable
        self.state: State = "connecting"

    @property
    def link(self) -> Link | None:
        """The connection, while there is one."""
        return None if self._link is None or self._link.is_lost else self._link

    async def connected(self) -> Link:
        """The connection; waits for it. Raises `ConnectionFailed` where there will be none."""
        while (link := self.link) is None:
            self.check()
            self._up.clear()
            await self._up.wait()
        return link

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
        self._tell("connecting")
        try:
            link, expires_at = await self._dialer.dial(self._hearer.event, self._pacer)
        except Exception as exc:
            self._end(exc if isinstance(exc, ConnectionFailed) else ConnectionFailed(f"the client failed: {exc!r}"))
            raise
        self._runner = asyncio.create_task(self._run(link, expires_at))
        self._attach(link)

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
                began = time.monotonic()
                lost = await self._serve(link, expires_at)
                lasted = time.monotonic() - began
                if lasted >= STABLE:
                    self._backoff.reset()
                if lasted >= STABLE or (link.is_let_in and not refuses(lost.code)):
                    self._refused = 0
                is_expired = lost.code == NOT_AUTHENTICATED and link.is_let_in and self._dialer.can_renew
                link, expires_at = await self._connect_again(lost, is_expired, is_expired and lasted >= AT_ONCE)
                self._attach(link)
        except ConnectionFailed as exc:
            self._end(exc)
        except Exception as exc:
            self._end(ConnectionFailed(f"the client failed: {exc!r}"))
            raise

    async def _serve(self, link: Link, expires_at: float | None) -> ConnectionLost:
        """A link's life."""
        keeping = asyncio.create_task(self._keep(link, expires_at))
        try:
            lost = await link.run()
        finally:
            keeping.cancel()
            self._pacer.detach()
            self._hearer.cut()
            await asyncio.gather(keeping, return_exceptions=True)
            await link.close()
            self._link = None
        return lost

    def _attach(self, link: Link) -> None:
        self._link = link
        self._up.set()
        self._hearer.linked(link)
        self._pacer.attach(link)
        self._tell("connected")

    async def _connect_again(self, lost: ConnectionLost, is_expired: bool, at_once: bool) -> tuple[Link, float | None]:
        """The next link. Raises `ConnectionFailed` where there is none to come.

        ``is_expired``: the server closed because the credential has expired, which is no refusal of the next one.
        """
        failure, cause = refusal(self._dialer.url, lost), lost  # type: ConnectionFailed, Exception
        if is_expired:
            self._refused = 0
        if not self._reconnect or (not is_expired and self._is_final(failure)):
            raise failure from lost
        while True:
            if not at_once:
                self._tell("waiting", cause)
                await asyncio.sleep(self._backoff.seconds())
            at_once = False
            self._tell("connecting", cause)
            try:
                return await self._dialer.dial(self._hearer.event, self._pacer)
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
        self._refused += 1
        return self._refused > 1 or not self._dialer.can_renew

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
        """Authenticates again at half time, for as long as the server says that there is an end.

        Where that is up and the server has not closed, its clock is behind ours, or it cannot be asked: it is asked
        less and less often.
        """
        least = MIN_REFRESH
        while expires_at is not None:
            seconds = (expires_at - time.time()) / 2
            if seconds >= least:
                least = MIN_REFRESH
            else:
                seconds, least = least, min(least * 2, MAX_REFRESH)
            await asyncio.sleep(seconds)
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
        self._pacer.end(self._failure)
        self._hearer.ended(failure)
        self._tell("closed", failure)

    def _tell(self, state: State, cause: Exception | None = None) -> None:
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
