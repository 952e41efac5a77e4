"""`JSONFormatter`: log records as JSON lines, with the action and the connection that they are about."""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from wsaction._protocol.frames import current_frame
from wsaction._protocol.scope import USER_ID_KEY
from wsaction.authentication._identity import user_id

_MAX_TEXT = 300  # characters of what a client wrote
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}


class JSONFormatter(logging.Formatter):
    """Formats each log record as one line of JSON. ``wsaction run --log-format json`` uses it.

    Each line has ``timestamp`` (ISO 8601, UTC), ``level``, ``logger`` and ``message``. An action's lines, those of the
    application's own loggers too, also have ``path`` (of the connection), ``handler``, ``action``, ``route``,
    ``request_id`` and ``user`` (the id). A line within a span of OpenTelemetry has ``trace_id`` and ``span_id``. What
    the call passes as ``extra`` is added, and an exception with its traceback is one string, ``exception``. ::

        {"timestamp":"2026-12-01T12:00:00.000Z","level":"ERROR","logger":"wsaction","message":"move cards/7/ failed...",
        "path":"/ws/","handler":"Cards","action":"move","route":"cards/7/","user":7,"error_id":"5f3c9d...",
        "status":500,"exception":"Traceback (most recent call last):..."}

    Use it under another server, in the configuration of ``logging``:

    >>> {"formatters": {"json": {"()": "wsaction.server.JSONFormatter"}}}
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as a line of JSON, without the line feed."""
        fields: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_action_fields(),
            **_trace_fields(),
        }
        if record.name == "uvicorn.access" and isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, path, _, status = record.args
            fields |= {"client": client, "method": method, "path": path, "status": status}
        fields |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        return "{" + ",".join(f"{json.dumps(name)}:{_encode(value)}" for name, value in fields.items()) + "}"


def _encode(value: Any) -> str:
    try:
        return json.dumps(value, default=str, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError):  # keys that are no strings, NaN, a cycle: a log line has to come all the same
        return json.dumps(repr(value))


def _action_fields() -> Mapping[str, Any]:
    """What is known of the frame whose action runs in this context."""
    if (frame := current_frame.get()) is None:
        return {}
    fields: dict[str, Any] = {}
    consumer, call = getattr(frame, "consumer", None), getattr(frame, "call", None)
    if consumer is not None:
        fields["path"] = consumer.scope.get("path")
    if call is not None and call.route_exists:
        fields["handler"] = call.mounted.handler_class.__name__
    fields["action"], fields["route"] = (frame.action or "")[:_MAX_TEXT], frame.route[:_MAX_TEXT]
    if frame.request_id is not None:
        fields["request_id"] = frame.request_id if type(frame.request_id) is int else str(frame.request_id)[:_MAX_TEXT]
    if consumer is not None and (user := _user_of(consumer.scope)) is not None:
        fields["user"] = user
    return fields


def _user_of(scope: Any) -> Any:
    try:
        return (scope.get(USER_ID_KEY) or user_id)(scope["user"])
    except Exception:  # the application's function and its user may do anything; the line is written without the id
        return None


def _trace_fields() -> Mapping[str, str]:
    """The ids of the current span, if anything in this process has loaded OpenTelemetry."""
    if (trace := sys.modules.get("opentelemetry.trace")) is None:
        return {}
    context = trace.get_current_span().get_span_context()
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"} if context.is_valid else {}
