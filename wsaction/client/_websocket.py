"""WebSocket connections, with the errors of this package. The only module that imports `websockets`."""

import asyncio
import logging
import re
from typing import Any

try:
    from websockets.asyncio.client import ClientConnection
    from websockets.asyncio.client import connect as websockets_connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
    from websockets.typing import Subprotocol
except ImportError as exc:
    raise ImportError("wsaction.client needs websockets: pip install 'wsaction[client]'") from exc

from wsaction._protocol.close_codes import NO_CLOSE_FRAME, status_refuses
from wsaction.client.errors import ConnectionFailed, ConnectionLost

logger = logging.getLogger("wsaction.client")

SUBPROTOCOL = "wsaction.v1"
_SUBPROTOCOL_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, token


class _Connect(websockets_connect):
    """Follows no redirects: they would send a token in a sub-protocol to another server."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


class Socket:
    """An open WebSocket. Its methods raise `ConnectionLost` after it has closed."""

    def __init__(self, connection: ClientConnection, close_timeout: float) -> None:
        self._connection = connection
        self._close_timeout = close_timeout

    async def receive(self) -> str | bytes:
        """Waits for the next message and returns it."""
        try:
            return await self._connection.recv()
        except ConnectionClosed as exc:
            raise _lost(exc) from exc

    async def send(self, text: str) -> None:
        """Sends a message. Waits while the server does not read."""
        try:
            await self._connection.send(text)
        except ConnectionClosed as exc:
            raise _lost(exc) from exc

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Closes within ``close_timeout`` seconds. Messages that still arrive are dropped."""
        closing = asyncio.ensure_future(self._connection.close(code, reason))
        try:
            async with asyncio.timeout(self._close_timeout):
                while True:  # the server's close frame comes after unread messages
                    await self._connection.recv()
        except ConnectionClosed:
            pass
        except TimeoutError:
            logger.debug("the server did not answer the close frame in %g s", self._close_timeout)
        finally:
            self._connection.transport.abort()
            await closing

    def abort(self) -> None:
        """Drops the connection at once."""
        self._connection.transport.abort()


async def open_socket(
    url: str, *, token: str | None, token_in_header: bool, close_timeout: float, **options: Any
) -> Socket:
    """Connects. ``options`` are those of ``websockets.asyncio.client.connect``. Raises `ConnectionFailed`."""
    subprotocols = [Subprotocol(SUBPROTOCOL)]
    if token is not None and token_in_header:
        options["additional_headers"] = [
            *_header_items(options.get("additional_headers")),
            ("Authorization", f"Bearer {token}"),
        ]
    elif token is not None:
        subprotocols.append(Subprotocol(_as_subprotocol(token)))
    try:
        connection = await _Connect(url, subprotocols=subprotocols, close_timeout=close_timeout, **options)
    except InvalidURI as exc:
        raise ConnectionFailed(f"expected a WebSocket URL such as ws://host/ws/, got {url!r}", is_final=True) from exc
    except InvalidStatus as exc:
        raise _refusal(url, exc) from exc
    except (OSError, TimeoutError, InvalidHandshake, EOFError) as exc:
        raise ConnectionFailed(f"cannot connect to {url}: {exc}") from exc
    return Socket(connection, close_timeout)


def _header_items(headers: Any) -> list[tuple[str, str]]:
    return list(headers.items() if hasattr(headers, "items") else headers or ())


def _as_subprotocol(token: str) -> str:
    if not _SUBPROTOCOL_TOKEN.fullmatch(token):
        raise ValueError(
            "the token has characters that a sub-protocol cannot contain, such as = and /; pass token_in='header'"
        )
    return f"bearer.{token}"


def _refusal(url: str, exc: InvalidStatus) -> ConnectionFailed:
    """Returns the error for a handshake that got an HTTP response, with its status and body."""
    status, body = exc.response.status_code, (exc.response.body or b"")[:500].decode(errors="replace")
    message = f"{url} refused the handshake: HTTP {status} {body}".rstrip()
    return ConnectionFailed(message, status=status, is_final=status_refuses(status))


def _lost(exc: ConnectionClosed) -> ConnectionLost:
    """Returns the error with the code of the side that closed first; 1006 without a close frame."""
    close = exc.sent if exc.sent is not None and not exc.rcvd_then_sent else exc.rcvd
    return ConnectionLost(NO_CLOSE_FRAME) if close is None else ConnectionLost(close.code, close.reason)
