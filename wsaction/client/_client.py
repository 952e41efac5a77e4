"""`Client`: one address, one connection at a time, made again when it is lost."""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from wsaction._utils.backoff import Backoff
from wsaction.client._connection import PendingReply, StreamItems
from wsaction.client._event_routing import EventRouter, Events
from wsaction.client._handshake import Dialer, Token
from wsaction.client._pacing import Pacer, Request
from wsaction.client._reconnect import ConnectionManager, State
from wsaction.client._subscriptions import Subscription
from wsaction.client.errors import CallTimeout, ClientError
from wsaction.client.messages import Position, Reply, validated

__all__ = ("Client", "connect")

logger = logging.getLogger("wsaction.client")

T = TypeVar("T")

_DEFAULT: Any = object()


class Client:
    """A client of one wsaction address: an async context manager, which connects and, at its end, closes.

    Entering raises `ConnectionFailed` where the first connection cannot be made. One that is lost later is made again,
    after a wait of random length that grows from ``first_wait`` to ``longest_wait`` seconds, unless the server said no:
    a refused handshake (HTTP 4xx) or `$auth`, or a close with 1008 or 44xx (`close_codes`). After a refusal the client
    tries once more if ``token`` or ``auth`` is a callable, since it may give a fresh one. If the server closes with
    4401 after it had let the client in, the credential has expired: with a callable, the client connects again at once.
    Meanwhile calls wait, within their timeout; those that were under way raise `ConnectionLost` and are never sent
    again. Subscriptions go on.

    - ``token``: offered as the sub-protocol ``bearer.<token>`` or, with ``token_in="header"``, as ``Authorization``.
    - ``auth``: the data of ``$auth``, sent before anything else. Tokens and data may be callables, sync or async, which
      are asked for each connection; ``auth`` also at half the time for which what it gave holds.
    - ``timeout``: seconds that a call may take, and that a stream's first item may; None: as long as it takes.
    - ``buffer``: characters of what came that wait for the consumer, for each stream, subscription and `events`.
      Reading pauses while a stream is past it, for 5 s at most and not while somebody waits for a reply; at 16 times as
      much the stream ends in `Overflow`.
    - ``max_in_flight``: requests under way at once; more of them wait for their turn, in order. A server that has room
      for fewer says so, and the client keeps to that. What it refused for lack of room has not run, and is sent again.
    - ``heartbeat``: seconds of silence after which ``$ping`` is sent, so that the server does not close an idle
      connection (4408); None: never. Dead connections are found by WebSocket pings.
    - ``on_state``: is called with the new `State` and what led to it, None or an exception.
    - ``open_timeout``, ``close_timeout``: seconds that connecting and closing may take.
    - ``chance``: gives the floats from 0 to 1 that waits are cut by.
    - ``socket_options``: further keywords of ``websockets.asyncio.client.connect``, ``ssl`` or ``origin`` for example.

    >>> async with connect("wss://example.com/ws/", token=fetch_token) as client:
    ...     await client.call("move", "cards/7/", to="done")
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        token_in: Literal["subprotocol", "header"] = "subprotocol",  # noqa: S107  # where it goes
        auth: Any = None,
        timeout: float | None = 60.0,
        buffer: int = 1_048_576,
        max_in_flight: int = 128,
        reconnect: bool = True,
        first_wait: float = 0.5,
        longest_wait: float = 30.0,
        heartbeat: float | None = 120.0,
        on_state: Callable[[State, Exception | None], None] | None = None,
        open_timeout: float = 10.0,
        close_timeout: float = 5.0,
        chance: Callable[[], float] = random.random,
        **socket_options: Any,
    ) -> None:
        dialer = Dialer(
            url,
            token=token,
            token_in=token_in,
            auth=auth,
            open_timeout=open_timeout,
            close_timeout=close_timeout,
            buffer=buffer,
            socket_options=socket_options,
        )
        self._waits = (first_wait, longest_wait, chance)
        self._timeout = timeout
        self._buffer = buffer
        self._close_timeout = close_timeout
        self._pacer = Pacer(max_in_flight)
        self._router = EventRouter()
        backoff = Backoff(*self._waits, least=0.0)
        self._manager = ConnectionManager(dialer, self._router, backoff, reconnect, heartbeat, self._pacer)
        self._router.manager = self._manager
        if on_state is not None:
            self._manager.watch(on_state)

    # ------------------------------------------------------------------------------------------------ asking
    @overload
    async def call(
        self,
        action: str,
        route: str = "",
        /,
        *,
        returns: None = None,
        timeout: float | None = ...,
        params: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> Any: ...

    @overload
    async def call(
        self,
        action: str,
        route: str = "",
        /,
        *,
        returns: type[T],
        timeout: float | None = ...,
        params: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> T: ...

    async def call(
        self,
        action: str,
        route: str = "",
        /,
        *,
        returns: Any = None,
        timeout: float | None = _DEFAULT,
        params: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> Any:
        """Runs an action and returns its data, as an instance of ``returns`` where that is given.

        ``keys`` are the action's parameters, ``data`` among them: anything that pydantic can serialise. Those that
        have the name of a parameter of this method go into ``params``.

        Raises `ActionError` for an error reply; `ConnectionLost`; `CallTimeout`, after which the server is told to
        cancel it, as it is when the calling task is cancelled; `ConnectionFailed`; pydantic's ``ValidationError``
        where the data is not what ``returns`` says.

        ``await client.call("retrieve", "cards/1/", returns=Card)`` gives a ``Card``.
        """
        seconds = self._timeout if timeout is _DEFAULT else timeout
        reply = await self._within(seconds, f"{action} {route}", self._call(action, route, {**(params or {}), **keys}))
        return reply.data if returns is None else validated(reply.data, returns)

    async def _call(self, action: str, route: str, keys: Mapping[str, Any]) -> Reply:
        pending = PendingReply()
        request = self._submit(Request(action, route, keys, pending))
        try:
            return await pending.future
        finally:
            self._pacer.withdraw(request)

    def _submit(self, request: Request) -> Request:
        self._manager.check()
        self._pacer.submit(request)
        return request

    async def send(
        self, action: str, route: str = "", /, *, params: Mapping[str, Any] | None = None, **keys: Any
    ) -> None:
        """Runs an action that answers nothing (``mode="none"``). Returns once it is on its way; errors are logged.

        While ``max_in_flight`` requests are under way it waits, at most the client's ``timeout``. What the server
        refuses for lack of room is sent again. `flush` waits until all of them have run.
        """
        request = Request(action, route, {**(params or {}), **keys}, None)
        sent = request.sent = asyncio.get_running_loop().create_future()
        self._submit(request)
        try:
            await self._within(self._timeout, f"{action} {route}", sent)
        except BaseException:
            self._pacer.withdraw(request)
            raise

    async def flush(self, timeout: float | None = _DEFAULT) -> None:
        """Waits until every `send` so far has run, or was refused by an error, which is logged.

        Raises `ConnectionLost` if the connection was lost meanwhile: what was under way may have been carried out or
        not. Leaving the client's block does the same, for ``close_timeout`` seconds at most, and logs what is lost.
        """
        self._manager.check()
        await self._within(self._timeout if timeout is _DEFAULT else timeout, "flush", self._pacer.flush())

    @overload
    def stream(
        self,
        action: str,
        route: str = "",
        /,
        *,
        returns: None = None,
        timeout: float | None = ...,
        params: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> AsyncGenerator[Any, None]: ...

    @overload
    def stream(
        self,
        action: str,
        route: str = "",
        /,
        *,
        returns: type[T],
        timeout: float | None = ...,
        params: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> AsyncGenerator[T, None]: ...

    async def stream(
        self,
        action: str,
        route: str = "",
        /,
        *,
        returns: Any = None,
        timeout: float | None = _DEFAULT,
        params: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> AsyncGenerator[Any, None]:
        """The items of an action that is a stream, as they come; each an instance of ``returns``, if given.

        Leaving the loop has the server cancel it; ``contextlib.aclosing`` around it says when. It raises what `call`
        raises, the error at the stream's end after its last item, and `Overflow`.

        ``async for line in client.stream("tail", "logs/7/", lines=10)``
        """
        seconds = self._timeout if timeout is _DEFAULT else timeout
        items = StreamItems(self._pacer, self._buffer)
        items.request = self._submit(Request(action, route, {**(params or {}), **keys}, items))
        try:
            while True:
                data = await self._within(seconds, f"{action} {route}", items.get())
                seconds = None  # a timeout bounds the first item
                yield data if returns is None else validated(data, returns)
        except StopAsyncIteration:
            return
        finally:
            items.close()

    def subscribe(
        self, route: str, *, since: Position | None = None, snapshot: bool = False, timeout: float = 30.0
    ) -> Subscription:
        """The events of a route, in the form in which the server writes it; see `Subscription`.

        ``since``: all that came after this position is told first. ``snapshot``: what ``list`` or ``retrieve`` answers
        there, such that each change is in it or in a later event; after a loss there is a new one. ``timeout``: seconds
        until the server has answered. Several subscriptions of one route share one of the server's.

        >>> async with client.subscribe("boards/7/", snapshot=True) as board:
        ...     show(board.snapshot)
        ...     async for item in board:
        ...         show(item.snapshot) if isinstance(item, Resync) else apply(item.event, item.data)
        """
        return Subscription(
            self._manager,
            self._router,
            route,
            since=since,
            snapshot=snapshot,
            timeout=timeout,
            buffer=self._buffer,
            backoff=Backoff(*self._waits, least=0.0),
        )

    def events(self) -> Events:
        """What the server pushes of no subscription, from now on; see `Events`."""
        return self._router.listen(self._buffer)

    async def _within(self, seconds: float | None, name: str, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:  # nothing below raises one
            raise CallTimeout(name.strip(), seconds or 0) from None

    # ------------------------------------------------------------------------------------------------ its life
    async def __aenter__(self) -> Self:
        await self._manager.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self._manager.connection is not None:
            try:
                await self.flush(self._close_timeout)
            except ClientError as failure:
                logger.warning("the client is closed before all that was sent is known to have run: %s", failure)
        await self._manager.close()

    def on_state(self, watcher: Callable[[State, Exception | None], None]) -> Callable[[], None]:
        """Calls ``watcher`` with each new `State` and what led to it; returns a function that ends that."""
        return self._manager.watch(watcher)

    @property
    def state(self) -> State:
        """How it stands with the connection."""
        return self._manager.state


connect = Client
