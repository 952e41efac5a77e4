"""Running an app with uvicorn, with safe settings and a graceful shutdown.

When uvicorn stops, it closes its connections with 1012 before the app learns of it. `DrainingProtocol` lets the apps of
the process drain first. It is a WebSocket protocol of uvicorn, for any way to start it and any number of workers::

    wsaction run main:app
    uvicorn main:app --ws wsaction.server:DrainingProtocol --http wsaction.server:HTTPProtocol
"""

import asyncio
import copy
import logging
import os
from typing import Any
from weakref import WeakKeyDictionary

from wsaction._server.json_log import JSONFormatter
from wsaction._server.runtime import drain_all
from wsaction._server.worker_count import WORKERS_VARIABLE

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from wsaction._server.uvicorn_protocol import FairProtocol
except ImportError as exc:
    raise ImportError("wsaction.server needs uvicorn and websockets: pip install 'wsaction[standard]'") from exc

__all__ = ("DrainingProtocol", "HTTPProtocol", "JSONFormatter", "run")

_CLOSE_TIMEOUT = 1.0  # seconds for a client to read what was sent to it, before its socket is aborted


class DrainingProtocol(FairProtocol):
    """A WebSocket protocol for uvicorn: ``--ws wsaction.server:DrainingProtocol``.

    On shutdown, it waits until the apps have drained, at most for their ``drain_timeout``. A connection that is still
    open then, because its client does not answer or because another app serves it, is closed by uvicorn and aborted
    after a second. All connections share the event loop fairly, and a message is bounded before it is read.
    """

    def shutdown(self) -> None:
        """Drains the apps, then closes the connection. uvicorn calls this when it stops."""
        if self.handshake_complete:
            _drain(self.loop).add_done_callback(self._shut_down)
        else:
            super().shutdown()

    def _shut_down(self, drained: "asyncio.Task[None]") -> None:
        if not self.transport.is_closing():
            super().shutdown()
        self.loop.call_later(_CLOSE_TIMEOUT, self.transport.abort)


class HTTPProtocol(H11Protocol):
    """An HTTP protocol for uvicorn: ``--http wsaction.server:HTTPProtocol``. It handles WebSocket handshakes better.

    It is based on h11, which limits the headers of a handshake to 64 KiB; httptools has no limit. Other differences
    from uvicorn's own:

    * A handshake in HTTP/1.0 gets a 400 (RFC 6455, 4.2.1). uvicorn hides the version from its WebSocket protocol.
    * Several ``Connection`` headers, which some proxies send, are one list (RFC 9110, 5.3). uvicorn reads the last one.
    * Frames in the same TCP segment as the handshake are read. uvicorn loses them.
    """

    def _get_upgrade(self) -> bytes | None:
        connection = b",".join(value for name, value in self.headers if name == b"connection")
        asks = b"upgrade" in [token.strip() for token in connection.lower().split(b",")]
        return next((value.lower() for name, value in self.headers if asks and name == b"upgrade"), None)

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Refuses HTTP/1.0, and gives the bytes after the handshake to the WebSocket protocol."""
        if event.http_version < b"1.1":
            self.send_400_response("A WebSocket handshake is HTTP/1.1 or later.")
        else:
            super().handle_websocket_upgrade(event)
            early, _ = self.conn.trailing_data  # from a client that did not wait for the response
            if early and not self.transport.is_closing():
                protocol: Any = self.transport.get_protocol()
                protocol.data_received(early)


_draining: "WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]]" = WeakKeyDictionary()


def _drain(loop: asyncio.AbstractEventLoop) -> "asyncio.Task[None]":
    """The task that drains the apps of this loop. All connections share it; a later shutdown gets a new one."""
    if (task := _draining.get(loop)) is None or task.done():
        task = _draining[loop] = loop.create_task(drain_all())
    return task


def _logging_config(level: str | int | None, log_format: str) -> dict[str, Any]:
    """uvicorn's logging configuration with the logger ``wsaction``. uvicorn passes it to its worker processes.

    If the format is JSON, warnings and errors of all other loggers are JSON lines too, unless the program has
    configured the root logger.
    """
    config: dict[str, Any] = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    if isinstance(level, str):
        level = uvicorn.config.LOG_LEVELS[level.lower()]
    config["loggers"]["wsaction"] = {"handlers": ["default"], "level": level or logging.INFO, "propagate": False}
    if log_format == "json":
        config["formatters"] = {key: {"()": "wsaction.server.JSONFormatter"} for key in ("default", "access")}
        if not logging.getLogger().handlers:
            config["root"] = {"handlers": ["default"], "level": "WARNING"}
    return config


def run(app: Any, *, log_format: str = "text", **options: Any) -> None:
    """Runs an app until SIGTERM or Ctrl-C, then drains its connections: ``run("main:app", port=9000, workers=2)``.

    ``app`` is an ASGI app, or ``"module:app"``. ``log_format`` is ``"text"``, or ``"json"`` for one line of JSON for
    each event, see `JSONFormatter`. ``options`` are those of ``uvicorn.run``; they override these defaults:

    * `DrainingProtocol` and `HTTPProtocol`.
    * No compression of messages.
    * No ``ws_max_size``: the limit is the ``max_frame_bytes`` of the consumer that serves the connection. For an app
      that is not of wsaction, and with another ``ws``, it is the default of ``max_frame_bytes``.
    * The logger ``wsaction`` has uvicorn's handler and ``log_level``, unless it or the root logger has a handler, and
      ``log_format`` is ``"text"``.

    Raises ``ValueError`` for another ``log_format``, or one beside a ``log_config``.
    """
    if log_format not in ("text", "json"):
        raise ValueError(f'log_format: expected "text" or "json", got {log_format!r}')
    if log_format == "json" and "log_config" in options:
        raise ValueError("log_format: expected log_format or log_config, got both; name JSONFormatter in log_config")
    settings: dict[str, Any] = {
        "ws": "wsaction.server:DrainingProtocol",
        "ws_max_size": 65_536 if "ws" in options else None,
        "ws_per_message_deflate": False,
        "http": "wsaction.server:HTTPProtocol",
    }
    if log_format == "json" or not logging.getLogger("wsaction").hasHandlers():
        settings["log_config"] = _logging_config(options.get("log_level"), log_format)
    if options.get("workers"):
        os.environ[WORKERS_VARIABLE] = str(options["workers"])  # for the worker processes
    try:
        uvicorn.run(app, **{**settings, **options})
    finally:
        os.environ.pop(WORKERS_VARIABLE, None)
