"""`Subscription`: the events of one route, once and in order, through lost connections and slow consumers."""

import asyncio
import logging
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any, Protocol

from wsaction.client.backoff import Backoff
from wsaction.client.buffers import Buffer
from wsaction.client.errors import (
    ActionError,
    CallTimeout,
    ClientError,
    PermissionDenied,
    Throttled,
    Unavailable,
    UnexpectedReply,
)
from wsaction.client.links import Link
from wsaction.client.messages import Event, Position, Reply, Resync, position_in

__all__ = ("Line", "Registry", "Subscription")

logger = logging.getLogger("wsaction.client")

LEAVE_TIMEOUT = 5.0  # seconds that leaving waits for the server's word


class Line(Protocol):
    """What a subscription asks of the connection."""

    @property
    def link(self) -> Link | None:
        """The connection, while there is one."""

    async def connected(self) -> Link:
        """The connection; waits for it."""


class Registry(Protocol):
    """Who tells subscriptions of their events, and of each new connection."""

    def add(self, subscription: "Subscription") -> None:
        """Tells it from now on."""

    def remove(self, subscription: "Subscription") -> None:
        """Tells it nothing any more."""


class _State(Enum):
    IDLE = "not asked"
    ASKED = "asked, and not answered yet"
    LIVE = "live"
    BEHIND = "more waits than may; what comes is dropped, and asked for again once there is room"
    LEAVING = "nobody listens any more"


class Subscription:
    """The events of a route: an async context manager that subscribes, and an async iterator of what comes.

    Iterating gives each `Event` once and in order, and a `Resync` wherever something was lost: after a reconnect that
    came too late for the server's history, when the server says so, or where ``since`` could not be honoured. It ends
    when the client is closed, and raises the `ActionError` with which the server refuses to go on (the right to see the
    route was taken away), or `ConnectionFailed`. Events wait for their consumer, at most ``buffer`` characters of them;
    what comes beyond that is asked for again from the server's history, so that a slow consumer keeps nobody waiting.

    ``position`` is that of the last item that was handed out: keep it, and pass it as ``since`` another day.
    ``snapshot`` and ``recovered`` are what the server said on entering; ``recovered`` is None without ``since``.
    """

    def __init__(
        self,
        line: Line,
        registry: Registry,
        route: str,
        *,
        since: Position | None,
        snapshot: bool,
        timeout: float,
        buffer: int,
        backoff: Backoff,
    ) -> None:
        self._line, self._registry = line, registry
        self.asked_route, self._wants_snapshot = route, snapshot
        self.route = route.partition("?")[0]  # under which its events come
        self._timeout, self._most, self._backoff = timeout, buffer, backoff
        self.position = self._received = since
        self.recovered: bool | None = None
        self.snapshot: Any = None
        self._state = _State.IDLE
        self._buffer: Buffer[_Waiting] = Buffer()
        self._resync = False  # whether something was lost that the next answer makes good
        self._timer: asyncio.TimerHandle | None = None
        self._asking: _Asking | None = None
        self._entered: asyncio.Future[None] | None = None

    # ------------------------------------------------------------------------------------------------ its life
    async def __aenter__(self) -> "Subscription":
        if self._state is not _State.IDLE:
            raise RuntimeError(f"this subscription to {self.route!r} was entered before; make a new one")
        self._entered = asyncio.get_running_loop().create_future()
        self._registry.add(self)
        try:
            async with asyncio.timeout(self._timeout) as deadline:
                link = await self._line.connected()
                if self._state is _State.IDLE:  # not asked by a new connection yet
                    self.ask(link)
                await self._entered
        except BaseException:
            self._leave(self._line.link)
            if deadline.expired():
                raise CallTimeout(f"subscribe {self.asked_route}", self._timeout) from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        leaving = self._leave(self._line.link)
        if leaving is not None:
            try:
                async with asyncio.timeout(LEAVE_TIMEOUT):
                    await leaving.left.wait()
            except TimeoutError:
                logger.warning("unsubscribe %s: no reply in %g s", self.asked_route, LEAVE_TIMEOUT)

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Event | Resync:
        if self._entered is None:  # nothing would ever come
            raise RuntimeError(
                f"this subscription to {self.asked_route!r} was not entered; enter it: "
                f"async with client.subscribe({self.asked_route!r}) as subscription"
            )
        waiting = await self._buffer.get()
        self.position = waiting.position
        if self._state is _State.BEHIND and not self._buffer:
            self._ask_again()
        return waiting.item

    def end(self, exc: Exception | None = None) -> None:
        """Nothing more comes: because of ``exc``, or because the client is closed."""
        self._settle()
        self._asking = None
        self._buffer.end(exc)
        if self._entered is not None and not self._entered.done():
            self._entered.set_exception(exc or ClientError("the client is closed"))
            self._entered.exception()  # it is seen by whoever enters, who may have gone

    def _leave(self, link: Link | None) -> "_Leaving | None":
        """Unsubscribes; until the server has said that it is done, what comes is dropped."""
        self._settle()
        self._state = _State.LEAVING
        self._buffer.end()
        self._buffer.clear()
        if link is None or self._asking is None:  # the server does not know of it
            self._registry.remove(self)
            return None
        leaving = _Leaving(self._registry, self)
        link.ask("unsubscribe", self.asked_route, {}, leaving)
        return leaving

    def _settle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ------------------------------------------------------------------------------------------------ asking
    @property
    def is_leaving(self) -> bool:
        """Whether another one may take its place."""
        return self._state is _State.LEAVING

    def ask(self, link: Link) -> None:
        """Subscribes: for the first time, or again with all that is known by now."""
        if self._state is _State.LEAVING or self._buffer.ended:
            return
        self._settle()
        keys: dict[str, Any] = {"snapshot": True} if self._wants_snapshot else {}
        if (since := self._received) is not None and not self._resync:
            keys["since"] = {"epoch": since.epoch, "offset": since.offset}
        self._state = _State.ASKED
        self._asking = _Asking(self)
        link.ask("subscribe", self.asked_route, keys, self._asking)
        self._timer = asyncio.get_running_loop().call_later(self._timeout, self._ask_again)

    def _ask_again(self) -> None:
        if (link := self._line.link) is not None:  # else it is asked once there is one
            self.ask(link)

    def cut(self) -> None:
        """The connection was lost: what is known stays."""
        self._settle()
        self._asking = None

    def answered(self, reply: Reply, asking: "_Asking") -> None:
        """The server's word on subscribing."""
        if asking is not self._asking or self._state is not _State.ASKED:
            return  # it has been asked again since
        self._settle()
        if (error := reply.error) is not None:
            self._refused(error)
            return
        self._backoff.reset()
        try:
            position = position_in(reply.data)
            self._rename(reply.data.get("route"))
        except (UnexpectedReply, ValueError) as exc:
            self.end(exc)
            return
        self._joined(position, reply)

    def _rename(self, route: Any) -> None:
        """The server may say under which name its events come."""
        if isinstance(route, str) and route != self.route:
            self._registry.remove(self)
            self.route = route
            self._registry.add(self)

    def _refused(self, error: ActionError) -> None:
        """Ends, unless it was there before and the server may think better of it."""
        may_pass = isinstance(error, (Unavailable, Throttled))
        if not may_pass or self._entered is None or not self._entered.done():
            self.end(error)
            return
        wait = self._backoff.seconds()
        if isinstance(error, Throttled):
            wait += error.retry_after or 0
        logger.info("%s; asking again in %.3g s", error, wait)
        self._timer = asyncio.get_running_loop().call_later(wait, self._ask_again)

    def _joined(self, position: Position, reply: Reply) -> None:
        """From here on what comes follows without a hole."""
        recovered, snapshot, since = reply.data.get("recovered"), reply.data.get("snapshot"), self._received
        lost, self._resync = self._resync or (since is not None and not recovered), False
        self._state = _State.LIVE
        if since is not None and not lost:  # the position in the reply is the one before what follows
            position = Position(position.epoch, max(position.offset, since.offset))
        self._received = position
        if lost:
            self._keep_resync(Resync(position, snapshot), reply.size)
        else:
            self._moved(position)
        if self._entered is not None and not self._entered.done():
            self.recovered, self.snapshot = recovered, snapshot
            self._entered.set_result(None)

    # ------------------------------------------------------------------------------------------------ being told
    def told(self, event: Event, size: int) -> None:
        """An event of its route came."""
        if self._state is not _State.LIVE:
            return  # before the server's word, or dropped
        if event.event in ("$position", "$resync"):
            self._notice(event)
        elif event.event == "$unsubscribed":
            lost = {"type": "permission_denied", "msg": "The right to this was lost after it was subscribed to."}
            self.end(PermissionDenied(403, [lost], "subscribe", self.asked_route))
        elif self._buffer and self._buffer.size + size > self._most:
            self._state = _State.BEHIND
        elif event.offset is None:
            self._buffer.put(_Waiting(event, self._received), size)
        elif self._received is None or event.offset > self._received.offset:  # else it is known
            self._received = Position(self._received.epoch if self._received else "", event.offset)
            self._buffer.put(_Waiting(event, self._received), size)

    def _notice(self, event: Event) -> None:
        try:
            position = position_in(event.data)
        except UnexpectedReply as exc:
            logger.warning("%s of %s: %s", event.event, event.route, exc)
            return
        if event.event == "$position":
            self._received = position
            self._moved(position)
        elif self._wants_snapshot:  # what comes until there is a new one is in it, or comes after it
            self._resync = True
            self._ask_again()
        else:
            self._received = position
            self._keep_resync(Resync(position), size=1)

    def _keep_resync(self, item: Resync, size: int) -> None:
        """It always fits, as nothing follows it that does not, and one right after another takes its place."""
        last = self._buffer.last
        if last is not None and isinstance(last.item, Resync):
            last.item, last.position = item, item.position
        else:
            self._buffer.put(_Waiting(item, item.position), size)

    def _moved(self, position: Position) -> None:
        """The position behind the last item that waits is another."""
        if (last := self._buffer.last) is not None:
            last.position = position
        else:
            self.position = position


@dataclass(slots=True)
class _Waiting:
    """What waits for the consumer, and the position behind it."""

    item: Event | Resync
    position: Position | None


class _Asking:
    """The `links.Asker` of one request to subscribe."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def reply(self, reply: Reply) -> None:
        self._subscription.answered(reply, self)

    def lost(self, exc: Exception) -> None:
        """It is asked again on the next connection."""


class _Leaving:
    """The `links.Asker` of one request to unsubscribe."""

    def __init__(self, registry: Registry, subscription: Subscription) -> None:
        self.left = asyncio.Event()
        self._registry, self._subscription = registry, subscription

    def reply(self, reply: Reply) -> None:
        if reply.error is not None:
            logger.warning("%s", reply.error)
        self._done()

    def lost(self, exc: Exception) -> None:
        self._done()

    def _done(self) -> None:
        self._registry.remove(self._subscription)
        self.left.set()
