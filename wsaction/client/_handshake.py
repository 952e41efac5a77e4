"""`Dialer`: opens a `Connection` to a URL and authenticates it."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from wsaction._protocol.close_codes import refuses, status_refuses
from wsaction.client._connection import Connection
from wsaction.client._pacing import Pacer
from wsaction.client._websocket import open_socket
from wsaction.client.errors import ActionError, ClientError, ConnectionFailed, ConnectionLost
from wsaction.client.messages import Event, Reply

logger = logging.getLogger("wsaction.client")

Token = str | Callable[[], "str | Awaitable[str]"]


class Dialer:
    """Opens connections. If ``token`` or ``auth`` is a callable, sync or async, it is called for each connection."""

    def __init__(
        self,
        url: str,
        *,
        token: Token | None,
        token_in: str,
        auth: Any,
        open_timeout: float,
        close_timeout: float,
        buffer: int,
        socket_options: Mapping[str, Any],
    ) -> None:
        if token_in not in ("subprotocol", "header"):
            raise ValueError(f"token_in: expected 'subprotocol' or 'header', got {token_in!r}")
        self.url = url
        self.open_timeout = open_timeout
        self._token = token
        self._auth = auth
        self._in_header = token_in == "header"  # noqa: S105  # a place, not a password
        self._close_timeout = close_timeout
        self._buffer = buffer
        self._options: dict[str, Any] = {"compression": None, "max_size": 16_777_216, **socket_options}

    @property
    def can_renew(self) -> bool:
        """Whether the next connection may have another credential."""
        return callable(self._token) or callable(self._auth)

    @property
    def can_refresh(self) -> bool:
        """Whether `authenticate` may be called again on an open connection."""
        return callable(self._auth)

    async def dial(self, on_event: Callable[[Event, int], None], pacer: Pacer) -> tuple[Connection, float | None]:
        """Returns an open connection and the expiry of its credential in unix seconds, None if unknown.

        The caller must run `Connection.run`. The server has already answered ``$auth``, or a ``$ping`` without one, so
        that a server that accepts the handshake only to refuse it by a close code is noticed before the first request.
        Raises `ConnectionFailed`, and any exception of a callable credential.
        """
        socket = await open_socket(
            self.url,
            token=None if self._token is None else await _resolve(self._token),
            token_in_header=self._in_header,
            open_timeout=self.open_timeout,
            close_timeout=self._close_timeout,
            **self._options,
        )
        connection = Connection(socket, on_event, self._buffer, pacer)
        try:
            return connection, await self._authenticate_or_ping(connection)
        except BaseException:
            await connection.close()
            raise

    async def _authenticate_or_ping(self, connection: Connection) -> float | None:
        try:
            if self._auth is not None:
                return await self.authenticate(connection.open_with)
            await self._ping(connection)
        except ActionError as exc:
            is_final = status_refuses(exc.status)
            raise ConnectionFailed(f"{self.url} refused $auth: {exc}", status=exc.status, is_final=is_final) from exc
        except ConnectionLost as exc:
            exc.refused = refuses(exc.code) and not connection.is_accepted
            raise refusal(self.url, exc) from exc
        except TimeoutError as exc:
            action = "$ping" if self._auth is None else "$auth"
            raise ConnectionFailed(f"{self.url} did not answer {action} in {self.open_timeout:g} s") from exc
        except ClientError as exc:
            raise ConnectionFailed(f"{self.url}: {exc}") from exc
        return None

    async def _ping(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(self.open_timeout):
                await connection.open_with("$ping", "", {})
        except ActionError as exc:  # 401: the server waits for $auth, which the application may send by `call`
            logger.debug("the first $ping was answered: %s", exc)

    async def authenticate(self, call: Callable[[str, str, Mapping[str, Any]], Awaitable[Reply]]) -> float | None:
        """Sends ``$auth``. Returns its expiry in unix seconds, or None."""
        data = await _resolve(self._auth)
        async with asyncio.timeout(self.open_timeout):
            reply = await call("$auth", "", {"data": data})
        match reply.data:
            case {"expires_at": int() | float() as at}:
                return float(at)
        return None


def refusal(url: str, lost: ConnectionLost) -> ConnectionFailed:
    """Returns the error for a lost connection; `is_final` if the close code refuses the client."""
    verb = "refused" if lost.refused else "closed"
    reason = f", {lost.reason!r}" if lost.reason else ""
    message = f"{url} {verb} the connection: code {lost.code}{reason}"
    return ConnectionFailed(message, code=lost.code, is_final=refuses(lost.code))


async def _resolve(value: Any) -> Any:
    """Returns a credential; calls it if it is a callable.

    If something that the callable awaits was cancelled, but not this task, that is an ordinary error.
    """
    try:
        if callable(value):
            value = value()
            if inspect.isawaitable(value):
                value = await value
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("the function for the credential awaited something that was cancelled") from exc
    return value
