"""`Client`: calls, streams and subscriptions over one connection, which reconnects by itself."""

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
from wsaction.client.messages import Kind, Position, validated

logger = logging.getLogger("wsaction.client")

T = TypeVar("T")
D = TypeVar("D")

_DEFAULT: Any = object()


class Client:
    """A client of one wsaction URL. As an async context manager, it connects on entering and closes at the end.

    Entering raises `ConnectionFailed` if the first connection fails. If the connection is lost later, the client
    reconnects after a random wait of at most ``first_wait`` seconds; this limit doubles with each attempt, up to
    ``longest_wait``. During a reconnect, calls wait within their timeout and subscriptions continue. Requests in flight
    raise `ConnectionLost`; the client never sends them again.

    The client does not reconnect after a refusal: a handshake or ``$auth`` with a 4xx status other than 408, 425 and
    429, or a close with 1008 or a corresponding 44xx code. If ``token`` or ``auth`` is a callable, it tries once more,
    since the callable may return a fresh credential. A close with 4401 after the server accepted the client means that
    the credential expired: with a callable, the client reconnects at once.

    :param token: The token, sent as the sub-protocol ``bearer.<token>``, or as ``Authorization`` header with
        ``token_in="header"``. It may be a sync or async callable, called for each connection.
    :param auth: The data of ``$auth``, which the client sends first. It may be a callable as well, also called when
        half of the credential's lifetime has passed.
    :param timeout: Seconds for each call and for the first item of a stream; None for no limit.
    :param buffer: Characters that may wait for the consumer, for each stream, each subscription and `events`. While a
        stream is over it, reading pauses for at most 5 s, and not while a call waits for a reply. A stream that is 16
        times over it ends with `Overflow`.
    :param max_in_flight: Requests in flight at once; more wait for their turn, in order. If the server names a lower
        limit, the client uses that. A request that the server refused for lack of room did not run; the client sends it
        again.
    :param reconnect: Whether to reconnect after a lost connection.
    :param heartbeat: Seconds of silence before the client sends ``$ping``, so that the server does not close an idle
        connection (4408); None to send none. WebSocket pings detect dead connections in any case.
    :param on_state: A function that is called with each new `State` and its cause, an exception or None.
    :param open_timeout: Seconds for connecting.
    :param close_timeout: Seconds for closing.
    :param chance: A function that returns random floats from 0 to 1, which scale the waits.
    :param socket_options: Other arguments of ``websockets.asyncio.client.connect``, such as ``ssl`` or ``origin``.

    >>> async with connect("wss://example.com/ws/", token=fetch_token) as client:
    ...     await client.call("move", "cards/7/", to="done")
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        token_in: Literal["subprotocol", "header"] = "subprotocol",  # noqa: S107  # a place, not a password
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

    # ------------------------------------------------------------------------------------------------ requests
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
        returns: Kind[T],
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
        """Calls an action and returns the data of its reply.

        ``await client.call("retrieve", "cards/1/", returns=Card)`` returns a ``Card``. If the call times out or is
        cancelled, the client asks the server to cancel the action.

        :param returns: A type to validate the data against, or a ``TypeAdapter`` where the type is no class:
            ``TypeAdapter(Card | None)``. Without it, the data is returned as parsed JSON.
        :param timeout: Seconds until `CallTimeout`; by default those of the client.
        :param params: Parameters of the action whose names are those of parameters of this method.
        :param keys: Parameters of the action, including ``data``: any values that pydantic can serialize.
        :raises ActionError: The reply is an error; each status has a subclass.
        :raises CallTimeout: No reply arrived in time.
        :raises ConnectionLost: The connection was lost before the reply. The action may have run.
        :raises ConnectionFailed: The client has no connection and will not reconnect.
        :raises pydantic.ValidationError: The data does not match ``returns``.
        """
        seconds = self._timeout if timeout is _DEFAULT else timeout
        pending = PendingReply()
        request = self._submit(Request(action, route, {**(params or {}), **keys}, pending))
        try:
            reply = await self._within(seconds, f"{action} {route}", pending.future)
        finally:
            self._pacer.withdraw(request)
        return reply.data if returns is None else validated(reply.data, returns, f"the reply to {action} {route}")

    def _submit(self, request: Request) -> Request:
        self._manager.check()
        self._pacer.submit(request)
        return request

    async def send(
        self, action: str, route: str = "", /, *, params: Mapping[str, Any] | None = None, **keys: Any
    ) -> None:
        """Calls an action that does not reply on success (``mode="none"``), without waiting for it to run.

        Returns once the request is on its way. Error replies are logged. If ``max_in_flight`` requests are in flight,
        it waits, for at most the client's ``timeout``. If the server refuses the request for lack of room, the client
        sends it again. `flush` waits until all sent requests have run.
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
        """Waits until every request of `send` has run or has failed; failures are logged.

        Leaving the client's block flushes too, for at most ``close_timeout`` seconds, and logs if that fails.

        :raises ConnectionLost: The connection was lost meanwhile. Requests in flight may have run or not.
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
        returns: Kind[T],
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
        """Calls a streaming action and yields its items as they arrive, each as an instance of ``returns`` if given.

        ``async for line in client.stream("tail", "logs/7/", lines=10)``. Closing the generator cancels the stream on
        the server; ``contextlib.aclosing`` closes it at the end of a block. ``timeout`` applies to the first item. The
        generator raises as `call` does, an error of the stream after its last item, and `Overflow`.
        """
        seconds = self._timeout if timeout is _DEFAULT else timeout
        items = StreamItems(self._pacer, self._buffer)
        items.request = self._submit(Request(action, route, {**(params or {}), **keys}, items))
        try:
            while True:
                data = await self._within(seconds, f"{action} {route}", items.get())
                seconds = None  # a timeout bounds the first item
                yield data if returns is None else validated(data, returns, f"an item of {action} {route}")
        except StopAsyncIteration:
            return
        finally:
            items.close()

    @overload
    def subscribe(
        self,
        route: str,
        *,
        since: Position | None = None,
        snapshot: Literal[False] = False,
        events: None = None,
        timeout: float = ...,
    ) -> Subscription[None, Any]: ...

    @overload
    def subscribe(
        self,
        route: str,
        *,
        since: Position | None = None,
        snapshot: Literal[False] = False,
        events: Mapping[str, type[D]],
        timeout: float = ...,
    ) -> Subscription[None, D]: ...

    @overload
    def subscribe(
        self, route: str, *, since: Position | None = None, snapshot: bool, events: None = None, timeout: float = ...
    ) -> Subscription[Any, Any]: ...

    @overload
    def subscribe(
        self,
        route: str,
        *,
        since: Position | None = None,
        snapshot: bool,
        events: Mapping[str, type[D]],
        timeout: float = ...,
    ) -> Subscription[Any, D]: ...

    @overload
    def subscribe(
        self, route: str, *, since: None = None, snapshot: Kind[T], events: None = None, timeout: float = ...
    ) -> Subscription[T, Any]: ...

    @overload
    def subscribe(
        self, route: str, *, since: None = None, snapshot: Kind[T], events: Mapping[str, type[D]], timeout: float = ...
    ) -> Subscription[T, D]: ...

    @overload
    def subscribe(
        self, route: str, *, since: Position | None = None, snapshot: Kind[T], events: None = None, timeout: float = ...
    ) -> Subscription[T | None, Any]: ...

    @overload
    def subscribe(
        self,
        route: str,
        *,
        since: Position | None = None,
        snapshot: Kind[T],
        events: Mapping[str, type[D]],
        timeout: float = ...,
    ) -> Subscription[T | None, D]: ...

    def subscribe(
        self,
        route: str,
        *,
        since: Position | None = None,
        snapshot: Any = False,
        events: Mapping[str, Any] | None = None,
        timeout: float = 30.0,
    ) -> Subscription[Any, Any]:
        """Returns a subscription to the events of a route; enter it to subscribe. See `Subscription`.

        Several subscriptions to one route share one subscription on the server.

        :param since: A position. Events after it are delivered first.
        :param snapshot: Whether to get the result of ``list`` or ``retrieve``, or the type to validate it against.
            Every change is either in the snapshot or in a later event. After lost events, `Resync` has a new snapshot.
            With ``since``, ``snapshot`` is None if nothing was lost.
        :param events: The names of the events to yield, each with the type of its data. By default all are yielded,
            with parsed JSON as data. Annotate several types: ``kinds: dict[str, type[Card | Deleted]] = {...}``.
        :param timeout: Seconds until the server must have answered.
        :raises pydantic.ValidationError: On entering, the snapshot does not match its type. While iterating, the data
            of an event does not; the next iteration continues after it.

        >>> async with client.subscribe("cards/", snapshot=list[Card], events={"created": Card}) as cards:
        ...     show(cards.snapshot)
        ...     async for item in cards:
        ...         show(item.snapshot) if isinstance(item, Resync) else apply(item.event, item.data)
        """
        return Subscription(
            self._manager,
            self._router,
            route,
            since=since,
            snapshot=snapshot,
            events=events,
            timeout=timeout,
            buffer=self._buffer,
            backoff=Backoff(*self._waits, least=0.0),
        )

    def events(self) -> Events:
        """Returns an iterator over the events of no subscription, such as pushes, from now on. See `Events`."""
        return self._router.listen(self._buffer)

    async def _within(self, seconds: float | None, name: str, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:  # no code below raises another TimeoutError
            raise CallTimeout(name.strip(), seconds or 0) from None

    # ------------------------------------------------------------------------------------------------ lifecycle
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
                logger.warning("the client closes before all sent requests are known to have run: %s", failure)
        await self._manager.close()

    def on_state(self, watcher: Callable[[State, Exception | None], None]) -> Callable[[], None]:
        """Calls ``watcher`` with each new `State` and its cause, if any. Returns a function that removes it."""
        return self._manager.watch(watcher)

    @property
    def state(self) -> State:
        """The current state of the connection."""
        return self._manager.state


connect = Client
