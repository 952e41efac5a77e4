"""Traces: spans for connections, actions, publications and deliveries, by OpenTelemetry's API.

A frame may bring a W3C ``traceparent``, and ``tracestate``, as top-level keys. The span of its action is then part of
that trace, and so are the events that it publishes, in every process, through any layer. The subscribers' frames have a
``traceparent`` too, so that their clients can go on with the trace: a click is one trace, from browser to browser. ::

    click (browser)
      Cards/move                SERVER    the action: permissions, the method, the commit
        publish updated         PRODUCER  the event is given to the layer
          deliver updated       CONSUMER  a process sends it to its subscribers, each process its own span
            ... (browser)       what the subscribers' clients do with the event's traceparent

The application chooses the SDK, the sampler and the exporter. Without an SDK the spans do nothing.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import wsaction
from wsaction._protocol.scope import PATTERN_KEY
from wsaction.hooks import ActionInfo, Hooks

try:
    from opentelemetry.context import Context
    from opentelemetry.trace import (
        INVALID_SPAN,
        Link,
        Span,
        SpanKind,
        Status,
        StatusCode,
        TracerProvider,
        get_current_span,
        get_tracer,
        use_span,
    )
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as exc:
    raise ImportError(
        "wsaction.contrib.opentelemetry needs opentelemetry-api: pip install 'wsaction[opentelemetry]'"
    ) from exc

__all__ = ("OpenTelemetry",)

_PROPAGATOR = TraceContextTextMapPropagator()
_SPAN_KEY = "wsaction.opentelemetry.span"  # of a connection, in its scope
_MAX_TRACESTATE = 512  # characters; a longer one is not carried, as the specification allows


class OpenTelemetry(Hooks):
    """Hooks that make spans: ``WSAction(routes, hooks=[OpenTelemetry()])``.

    The span of an action is the current one while the action runs, so that the spans of a database or of the
    application are below it. A frame without ``traceparent`` begins a trace. Either way it has a link to the span of
    its connection, which may last for hours and is a trace of its own, or belongs to that of the handshake's
    ``traceparent`` header.

    :param tracer_provider: The provider of the spans; by default the global one, at the time of this call or later.

    >>> from opentelemetry import trace
    >>> trace.set_tracer_provider(provider)  # the application's, with its sampler and its exporter
    >>> app = WSAction(routes, hooks=[OpenTelemetry()])
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = get_tracer("wsaction", wsaction.__version__, tracer_provider)

    def on_connect(self, consumer: Any) -> None:
        """Begins the span of a connection, once it is accepted."""
        scope = consumer.scope
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", ())}
        attributes: dict[str, Any] = {"network.protocol.name": "websocket", "url.path": scope["path"]}
        if PATTERN_KEY in scope:
            attributes["http.route"] = scope[PATTERN_KEY][1]
        if scope.get("client"):
            attributes["client.address"] = scope["client"][0]
        scope[_SPAN_KEY] = self._tracer.start_span(
            f"connection {type(consumer).__name__}",
            context=_context_in(headers) or Context(),
            kind=SpanKind.SERVER,
            attributes=attributes,
        )

    def on_disconnect(self, consumer: Any, code: int) -> None:
        """Ends the span of a connection."""
        span: Span = consumer.scope.pop(_SPAN_KEY)
        span.set_attribute("wsaction.close_code", code)
        if code == 1011:
            span.set_attribute("error.type", str(code))
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    @contextmanager
    def around_action(self, consumer: Any, frame: Mapping[str, Any]) -> Iterator[None]:
        """The span of a frame; `on_action` gives it its name."""
        connection: Span | None = consumer.scope.get(_SPAN_KEY)
        with self._tracer.start_as_current_span(
            "wsaction",
            context=_context_in(frame) or Context(),
            kind=SpanKind.SERVER,
            attributes={"rpc.system.name": "wsaction"},
            links=[] if connection is None else [Link(connection.get_span_context())],
            record_exception=False,  # of the connection's end, which cancels actions
            set_status_on_exception=False,
        ):
            yield

    def on_action(self, info: ActionInfo) -> None:
        """Says in the span of a frame which action it was, and how it was answered."""
        span = get_current_span()
        if not span.is_recording():
            return
        if info.handler is None or info.action is None:
            span.set_attribute("rpc.method", "_OTHER")
        else:
            span.update_name(f"{info.handler}/{info.action}")
            span.set_attribute("rpc.method", f"{info.handler}/{info.action}")
        span.set_attribute("rpc.response.status_code", str(info.status))
        span.set_attribute("wsaction.route", info.route)
        if info.pattern is not None:
            span.set_attribute("wsaction.route_pattern", info.pattern)
        if info.request_id is not None:
            span.set_attribute("wsaction.request_id", str(info.request_id))
        if info.status >= 400:
            span.set_attribute("error.type", str(info.status) if info.error is None else info.error.type)
        if info.status >= 500:
            span.set_status(Status(StatusCode.ERROR, None if info.error is None else info.error.msg))
            if info.error is not None and (error_id := (info.error.ctx or {}).get("error_id")) is not None:
                span.set_attribute("wsaction.error_id", error_id)
            if info.exception is not None and info.exception is not info.error:
                span.record_exception(info.exception)

    @contextmanager
    def around_publish(self, topic: str, event: str) -> Iterator[Mapping[str, str]]:
        """The span of a publication, which is carried with the event."""
        with self._tracer.start_as_current_span(
            f"publish {event}", kind=SpanKind.PRODUCER, attributes=_messaging("publish", "send", topic, event)
        ) as span:
            try:
                yield _carried()
            except BaseException as exc:
                span.set_attribute("error.type", type(exc).__qualname__)
                raise

    @contextmanager
    def around_delivery(self, topic: str, event: str, carried: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
        """The span of a delivery in this process; without one if the publication has none, as those of presence."""
        if (context := _context_in(carried)) is None:
            with use_span(INVALID_SPAN):  # a layer in memory delivers within the span of whoever publishes
                yield {}
            return
        with self._tracer.start_as_current_span(
            f"deliver {event}",
            context=context,
            kind=SpanKind.CONSUMER,
            attributes=_messaging("deliver", "process", topic, event),
        ):
            yield _carried()

    def on_event(self, topic: str, event: str, recipients: int) -> None:
        """Says in the span of a delivery how many subscribers it was for."""
        get_current_span().set_attribute("wsaction.recipients", recipients)


def _messaging(name: str, kind: str, topic: str, event: str) -> dict[str, str]:
    return {
        "messaging.system": "wsaction",
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.destination.name": topic,
        "wsaction.event": event,
    }


def _carried() -> dict[str, str]:
    """The current span as ``traceparent`` and ``tracestate``; nothing if there is no SDK."""
    carried: dict[str, str] = {}
    _PROPAGATOR.inject(carried)
    return carried


def _context_in(carrier: Mapping[str, Any]) -> Context | None:
    """The context of a ``traceparent``; None if there is none, or an invalid one. A client may have sent anything."""
    traceparent, tracestate = carrier.get("traceparent"), carrier.get("tracestate")
    if not isinstance(traceparent, str):
        return None
    headers = {"traceparent": traceparent}
    if isinstance(tracestate, str) and len(tracestate) <= _MAX_TRACESTATE:
        headers["tracestate"] = tracestate
    context = _PROPAGATOR.extract(headers, Context())
    return context if get_current_span(context).get_span_context().is_valid else None
