"""`Dialer`: from an address and credentials to an open `Connection` that has said who it is."""

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

__all__ = ("Dialer", "Token", "refusal")

logger = logging.getLogger("wsaction.client")

Token = str | Callable[[], "str | Awaitable[str]"]


class Dialer:
    """Opens links. ``token`` and ``auth`` are asked anew for each, where they are callables, sync or async."""

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
        """Whether the next link may come with another credential."""
        return callable(self._token) or callable(self._auth)

    @property
    def can_refresh(self) -> bool:
        """Whether `authenticate` may be asked again on an open link."""
        return callable(self._auth)

    async def dial(self, on_event: Callable[[Event, int], None], pacer: Pacer) -> tuple[Connection, float | None]:
        """A link whose `Link.run` is to be run, and until when its credential holds, in unix seconds, if that is known.

        The server has answered on it: ``$auth``, or a ``$ping`` where there is none. So one that accepts a handshake
        only to refuse it by a close code is found out before anything is asked.

        Raises `ConnectionFailed`, and what a callable credential raises.
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
        except ActionError as exc:  # 401: it waits for an $auth, which the caller may send by `call`
            logger.debug("the first $ping was answered: %s", exc)

    async def authenticate(self, call: Callable[[str, str, Mapping[str, Any]], Awaitable[Reply]]) -> float | None:
        """Sends ``$auth``; returns until when that holds."""
        data = await _resolve(self._auth)
        async with asyncio.timeout(self.open_timeout):
            reply = await call("$auth", "", {"data": data})
        match reply.data:
            case {"expires_at": int() | float() as at}:
                return float(at)
        return None


def refusal(url: str, lost: ConnectionLost) -> ConnectionFailed:
    """What a close means for those who would connect again."""
    verb = "refused" if lost.refused else "closed"
    reason = f", {lost.reason!r}" if lost.reason else ""
    message = f"{url} {verb} the connection: code {lost.code}{reason}"
    return ConnectionFailed(message, code=lost.code, is_final=refuses(lost.code))


async def _resolve(value: Any) -> Any:
    """A credential. Where what its function waits for was cancelled, it could not be had, and we go on."""
    try:
        if callable(value):
            value = value()
            if inspect.isawaitable(value):
                value = await value
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("what the function for the credential waited for was cancelled") from exc
    return value
