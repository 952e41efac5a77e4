"""`wsaction.contrib.opentelemetry`: spans, and a trace from client to client."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import BaseModel

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.contrib.opentelemetry import OpenTelemetry
from wsaction.decorators import async_action
from wsaction.exceptions import LayerUnavailable, NotFound
from wsaction.generics import ModelAPIActionHandler
from wsaction.layers.base import History, Position
from wsaction.layers.memory import MemoryLayer
from wsaction.presence import PresenceMixin
from wsaction.querysets import MemoryQuerySet
from wsaction.routers import SimpleRouter
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import connect

TRACE = 0x0AF7651916CD43DD8448EB211C80319C
PARENT = f"00-{TRACE:032x}-b7ad6b7169203331-01"


class Card(BaseModel):
    id: int
    title: str


class Cards(SubscribeMixin, ModelAPIActionHandler):
    serializer_class = Card


class Room(PresenceMixin, AsyncAPIConsumer):
    tracer: Any = None

    @async_action
    async def look(self) -> None:
        with self.tracer.start_as_current_span("a query"):
            await asyncio.sleep(0)

    @async_action
    def look_in_a_thread(self) -> None:
        with self.tracer.start_as_current_span("a query"):
            pass

    @async_action
    async def fail(self, missing: bool = False) -> None:
        if missing:
            raise NotFound("No such card.")
        raise ZeroDivisionError("divided")

    @async_action
    async def wait(self) -> None:
        await asyncio.get_running_loop().create_future()

    @async_action
    async def stream(self) -> AsyncIterator[int]:
        for number in range(2):
            with self.tracer.start_as_current_span("an item"):
                yield number

    @async_action
    async def tell(self) -> None:
        await self.publish("told", 1)

    @async_action
    async def whisper(self) -> None:
        await self.push("whispered", 1)
        await self.app.push_user(7, "nudged", 2)


class Traced:
    """An app whose spans are kept in memory."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=options.pop("sampler", None))
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        router = SimpleRouter()
        router.register("cards", type("Cards", (Cards,), {"queryset": MemoryQuerySet(Card)}))
        room = type("Room", (Room,), {"routepatterns": router.urls, "tracer": provider.get_tracer("app")})
        self.app = WSAction([path("ws/", room.as_asgi())], hooks=[OpenTelemetry(provider)], **options)

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """The spans that have ended, by name."""
        return {span.name: span for span in self.exporter.get_finished_spans()}

    @asynccontextmanager
    async def connected(self, **options: Any) -> AsyncIterator[Any]:
        async with connect(self.app, "/ws/", **options) as ws:
            yield ws


def parent_of(span: ReadableSpan) -> int:
    return 0 if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def traceparent_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.trace_id


async def test_a_frame_with_a_traceparent_goes_on_with_its_trace() -> None:
    traced = Traced()
    async with traced.connected() as ws:
        await ws.call("look", traceparent=PARENT, tracestate="vendor=1")
    action, query, connection = (traced.spans[name] for name in ("Room/look", "a query", "connection Room"))
    assert (trace_of(action), parent_of(action)) == (TRACE, 0xB7AD6B7169203331)
    assert action.context is not None
    assert action.context.trace_state.to_header() == "vendor=1"
    assert action.kind is SpanKind.SERVER
    assert dict(action.attributes or {}) == {
        "rpc.system.name": "wsaction",
        "rpc.method": "Room/look",
        "rpc.response.status_code": "200",
        "wsaction.route": "",
        "wsaction.request_id": "test-1",
    }
    assert action.status.status_code is StatusCode.UNSET
    assert parent_of(query) == id_of(action)
    assert [link.context.span_id for link in action.links] == [id_of(connection)]
    assert trace_of(connection) != TRACE


@pytest.mark.parametrize("traceparent", [None, 7, "", "00-0-0-01", "00-" + "0" * 32 + "-b7ad6b7169203331-01", ["x"]])
async def test_a_frame_without_a_traceparent_begins_a_trace(traceparent: Any) -> None:
    traced = Traced()
    with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=False)), record_exception=False):
        async with traced.connected() as ws:  # within a span of the server
            await ws.call("look", traceparent=traceparent, tracestate=7)
    assert traced.spans["Room/look"].parent is None
    assert traced.spans["connection Room"].parent is None


async def test_a_tracestate_that_is_too_long_is_left_out() -> None:
    traced = Traced()
    async with traced.connected() as ws:
        await ws.call("look", traceparent=PARENT, tracestate="vendor=" + "x" * 510)
    action = traced.spans["Room/look"]
    assert action.context is not None
    assert (trace_of(action), dict(action.context.trace_state)) == (TRACE, {})


async def test_a_connection_has_a_span_within_the_handshakes_trace() -> None:
    traced = Traced()
    async with traced.connected(headers={"traceparent": PARENT}) as ws:
        await ws.call("$ping")
    connection = traced.spans["connection Room"]
    assert trace_of(connection) == TRACE
    assert dict(connection.attributes or {}) == {
        "network.protocol.name": "websocket",
        "url.path": "/ws/",
        "http.route": "ws/",
        "client.address": "testclient",
        "wsaction.close_code": 1000,
    }


async def test_a_connection_that_the_server_fails_is_an_error() -> None:
    class Failing(AsyncAPIConsumer):
        @async_action
        async def stop(self) -> None:
            self.connection.close(1011, "failed")

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with connect(WSAction([path("", Failing.as_asgi())], hooks=[OpenTelemetry(provider)])) as ws:
        await ws.send_json({"action": "stop"})
        await ws.wait_closed()
    connection = next(span for span in exporter.get_finished_spans() if span.name == "connection Failing")
    assert connection.status.status_code is StatusCode.ERROR
    assert (connection.attributes or {})["error.type"] == "1011"


async def test_errors_in_spans() -> None:
    traced = Traced()
    async with traced.connected() as ws:
        error_id = (await ws.call("fail"))["errors"][0]["ctx"]["error_id"]
    failed = traced.spans["Room/fail"]
    attributes = dict(failed.attributes or {})
    assert (failed.status.status_code, attributes["error.type"]) == (StatusCode.ERROR, "server_error")
    assert attributes["wsaction.error_id"] == error_id
    (event,) = failed.events
    assert (event.attributes or {})["exception.message"] == "divided"
    traced.exporter.clear()
    async with traced.connected() as ws:
        await ws.call("fail", missing=True)
        await ws.call("nothing", "cards/")
        await ws.call("list", "nowhere/")
    refused, unknown = traced.spans["Room/fail"], traced.spans["wsaction"]
    assert (refused.status.status_code, refused.events) == (StatusCode.UNSET, ())
    assert (refused.attributes or {})["error.type"] == "not_found"
    assert (unknown.attributes or {})["rpc.method"] == "_OTHER"
    assert (unknown.attributes or {})["error.type"] == "route_not_found"


async def test_an_action_cut_short_and_a_stream_have_one_span() -> None:
    traced = Traced()
    async with traced.connected() as ws:
        assert [item async for item in ws.stream("stream")] == [0, 1]
        await ws.send_json({"action": "wait"})
        await ws.call("$ping")
    spans = traced.exporter.get_finished_spans()
    items = [span for span in spans if span.name == "an item"]
    (stream,) = [span for span in spans if span.name == "Room/stream"]
    assert [parent_of(item) for item in items] == [id_of(stream)] * 2
    assert (traced.spans["Room/wait"].attributes or {})["error.type"] == "499"


async def test_a_span_of_a_thread_is_below_its_action() -> None:
    traced = Traced()
    async with traced.connected() as ws:
        await ws.call("look_in_a_thread")
    assert parent_of(traced.spans["a query"]) == id_of(traced.spans["Room/look_in_a_thread"])


async def test_an_event_goes_on_with_the_trace_of_who_published_it() -> None:
    traced = Traced()
    async with traced.connected() as one, traced.connected() as two:
        await two.call("subscribe")
        await one.call("tell", traceparent=PARENT)
        event = await two.event("told")
    action, published, delivered = (traced.spans[name] for name in ("Room/tell", "publish told", "deliver told"))
    assert {trace_of(span) for span in (action, published, delivered)} == {TRACE}
    assert parent_of(published) == id_of(action)
    assert parent_of(delivered) == id_of(published)
    assert event["traceparent"] == traceparent_of(delivered)
    assert (published.kind, delivered.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert dict(published.attributes or {}) == {
        "messaging.system": "wsaction",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "ws/?",
        "wsaction.event": "told",
    }
    assert (delivered.attributes or {})["messaging.operation.type"] == "process"
    assert (delivered.attributes or {})["wsaction.recipients"] == 1


async def test_a_change_is_published_after_its_commit_within_its_trace() -> None:
    traced = Traced()
    async with traced.connected() as one, traced.connected() as two:
        await two.call("subscribe", "cards/")
        await one.call("create", "cards/", data={"id": 1, "title": "a"}, traceparent=PARENT)
        event = await two.event("created")
    assert parent_of(traced.spans["publish created"]) == id_of(traced.spans["Cards/create"])
    assert event["traceparent"] == traceparent_of(traced.spans["deliver created"])
    assert (traced.spans["Cards/create"].attributes or {})["wsaction.route_pattern"] == "cards/"


async def test_pushed_events_are_traced() -> None:
    class User:
        is_authenticated, id = True, 7

    traced = Traced()
    async with traced.connected(user=User()) as ws:
        await ws.send_json({"action": "whisper", "traceparent": PARENT})
        for name in ("whispered", "nudged"):
            event = await ws.event(name)
            assert event["traceparent"] == traceparent_of(traced.spans[f"publish {name}"])
    assert trace_of(traced.spans["publish nudged"]) == TRACE


async def test_a_missed_event_has_the_traceparent_of_its_delivery() -> None:
    traced = Traced()
    async with traced.connected() as one, traced.connected() as two:
        position = (await two.call("subscribe"))["data"]
        await one.call("tell", traceparent=PARENT)
        event = await two.event("told")
        await two.call("unsubscribe")
        await two.call("subscribe", since=position)
        assert await two.event("told") == event


async def test_events_of_presence_have_no_spans() -> None:
    traced = Traced()
    async with traced.connected() as one, traced.connected() as two:
        await one.call("subscribe", traceparent=PARENT)
        await two.call("subscribe", traceparent=PARENT)
        assert "traceparent" not in await one.event("join")
    names = [span.name for span in traced.exporter.get_finished_spans()]
    assert not any("join" in name for name in names)
    subscribed = [span for span in traced.exporter.get_finished_spans() if span.name == "Room/subscribe"]
    assert len(subscribed) == 2
    assert not any("wsaction.recipients" in (span.attributes or {}) for span in subscribed)


async def test_a_publication_that_fails_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    class Away(MemoryLayer):
        async def publish(self, topic: str, body: bytes, history: History | None) -> Position | None:
            raise LayerUnavailable("It is away.")

    caplog.set_level(logging.CRITICAL)
    traced = Traced(layer=Away())
    async with traced.connected() as ws:
        assert (await ws.call("tell"))["status"] == 503
    published = traced.spans["publish told"]
    assert published.status.status_code is StatusCode.ERROR
    assert (published.attributes or {})["error.type"] == "LayerUnavailable"


async def test_the_sampler_decides() -> None:
    traced = Traced(sampler=ParentBased(root=ALWAYS_OFF))
    async with traced.connected() as one, traced.connected() as two:
        await two.call("subscribe")
        await one.call("tell", traceparent=PARENT[:-2] + "00")
        event = await two.event("told")
    assert event["traceparent"].startswith(f"00-{TRACE:032x}-")
    assert event["traceparent"].endswith("-00")
    assert traced.exporter.get_finished_spans() == ()


async def test_without_an_sdk_nothing_is_added() -> None:
    room = type("Bare", (Room,), {})
    app = WSAction([path("ws/", room.as_asgi())], hooks=[OpenTelemetry(trace.NoOpTracerProvider())])
    async with connect(app, "/ws/") as ws:
        await ws.call("subscribe")
        await ws.send_json({"action": "tell"})
        assert "traceparent" not in await ws.event("told")
