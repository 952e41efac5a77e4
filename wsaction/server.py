"""Running an app with uvicorn: its recommended settings, and a drain before it stops.

uvicorn closes its connections, 1012, before it tells an app that it stops. `DrainingProtocol` lets the apps of the
process drain first; uvicorn takes it as its WebSocket protocol, whatever starts it and with however many workers::

    wsaction run main:app
    uvicorn main:app --ws wsaction.server:DrainingProtocol --http wsaction.server:HTTPProtocol
"""

import asyncio
import copy
import logging
import os
from typing import Any
from weakref import WeakKeyDictionary

from wsaction._server.runtime import drain_all
from wsaction._server.worker_count import WORKERS_VARIABLE

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from wsaction._server.uvicorn_protocol import FairProtocol
except ImportError as exc:
    raise ImportError("wsaction.server needs uvicorn and websockets: pip install 'wsaction[standard]'") from exc

__all__ = ("DrainingProtocol", "HTTPProtocol", "run")

_CLOSE_TIMEOUT = 1.0  # seconds that a client has to take what was sent to it before its socket is cut


class DrainingProtocol(FairProtocol):
    """`wsaction._server.uvicorn_protocol.FairProtocol` that, told to shut down, waits until the apps have drained.

    That takes no longer than their ``drain_timeout``. What is open then, because its client does not answer or another
    app serves it, is closed as uvicorn does it, and cut off soon after.
    """

    def shutdown(self) -> None:
        if self.handshake_complete:
            _drain(self.loop).add_done_callback(self._shut_down)
        else:
            super().shutdown()

    def _shut_down(self, drained: "asyncio.Task[None]") -> None:
        if not self.transport.is_closing():
            super().shutdown()
        self.loop.call_later(_CLOSE_TIMEOUT, self.transport.abort)


class HTTPProtocol(H11Protocol):
    """uvicorn's on h11, which bounds the headers of a handshake at 64 KiB: by httptools they are not bounded.

    A handshake is at least HTTP/1.1 (RFC 6455, 4.2.1); uvicorn hides from its WebSocket protocol which it was. Several
    ``Connection`` headers, as some proxies send them, are one list (RFC 9110, 5.3); uvicorn takes the last of them.
    Frames that come in one segment with the handshake are read; uvicorn loses them.
    """

    def _get_upgrade(self) -> bytes | None:
        connection = b",".join(value for name, value in self.headers if name == b"connection")
        asks = b"upgrade" in [token.strip() for token in connection.lower().split(b",")]
        return next((value.lower() for name, value in self.headers if asks and name == b"upgrade"), None)

    def handle_websocket_upgrade(self, event: Any) -> None:
        if event.http_version < b"1.1":
            self.send_400_response("A WebSocket handshake is HTTP/1.1 or later.")
        else:
            super().handle_websocket_upgrade(event)
            early, _ = self.conn.trailing_data  # of a client that does not wait for the answer
            if early and not self.transport.is_closing():
                protocol: Any = self.transport.get_protocol()
                protocol.data_received(early)


_draining: "WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]]" = WeakKeyDictionary()


def _drain(loop: asyncio.AbstractEventLoop) -> "asyncio.Task[None]":
    """The one task that drains the apps of this loop; another one where it is another server that stops."""
    if (task := _draining.get(loop)) is None or task.done():
        task = _draining[loop] = loop.create_task(drain_all())
    return task


def _logging_config(level: str | int | None) -> dict[str, Any]:
    """uvicorn's logging with our logger as one of its own; it is handed on to the processes that are started."""
    config: dict[str, Any] = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    if isinstance(level, str):
        level = uvicorn.config.LOG_LEVELS[level.lower()]
    config["loggers"]["wsaction"] = {"handlers": ["default"], "level": level or logging.INFO, "propagate": False}
    return config


def run(app: Any, **options: Any) -> None:
    """Runs an app, or one named ``"module:app"``, until SIGTERM or Ctrl-C; connections are drained then.

    ``options`` are those of ``uvicorn.run`` and go before what is set here: `DrainingProtocol`, `HTTPProtocol`, no
    compression, and no bound of the server's for messages where there is the ``max_frame_bytes`` of what serves the
    connection. An app that is not of wsaction is sent no larger ones than that is by default.
    uvicorn's logging has the logger ``wsaction`` beside its own, at the same ``log_level``, unless the program has
    given that logger, or the root, a handler. ``run("main:app", port=9000, workers=2)``.
    """
    settings: dict[str, Any] = {
        "ws": "wsaction.server:DrainingProtocol",
        "ws_max_size": 65_536 if "ws" in options else None,
        "ws_per_message_deflate": False,
        "http": "wsaction.server:HTTPProtocol",
    }
    if not logging.getLogger("wsaction").hasHandlers():
        settings["log_config"] = _logging_config(options.get("log_level"))
    if options.get("workers"):
        os.environ[WORKERS_VARIABLE] = str(options["workers"])  # for the processes that are started
    try:
        uvicorn.run(app, **{**settings, **options})
    finally:
        os.environ.pop(WORKERS_VARIABLE, None)
