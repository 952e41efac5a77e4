"""A traced site that several processes serve over Redis, for `tests.slow.test_traces`. ``/spans`` has its own spans."""

import os
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Mount, Route

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.contrib.opentelemetry import OpenTelemetry
from wsaction.decorators import async_action
from wsaction.layers.redis import RedisLayer
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))

PAGE = """<!doctype html><title>Room</title><button>Ring</button><pre id="log"></pre><script>
const log = document.querySelector("#log"), random = (bytes) =>
  [...crypto.getRandomValues(new Uint8Array(bytes))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const socket = new WebSocket("ws://" + location.host + "/ws/");
const say = (kind, text) => { log.textContent += JSON.stringify({ kind, ...text }) + "\\n"; };
socket.onopen = () => socket.send(JSON.stringify({ action: "subscribe", route: "" }));
socket.onmessage = (message) => {
  const frame = JSON.parse(message.data);
  say(frame.event ? "event" : "reply", frame);
};
document.querySelector("button").onclick = () => {
  const traceparent = "00-" + random(16) + "-" + random(8) + "-01"; // the span of the click
  say("click", { traceparent });
  socket.send(JSON.stringify({ action: "ring", traceparent, tracestate: "page=1" }));
};
</script>"""


class Room(SubscribeMixin, AsyncAPIConsumer):
    @async_action
    async def ring(self) -> None:
        with provider.get_tracer("app").start_as_current_span("look for the bell"):
            pass
        await self.publish("rang", {"by": "a page"})


async def page(request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


async def spans(request: Request) -> JSONResponse:
    """The spans of this process that have ended."""
    found: list[dict[str, Any]] = []
    for span in exporter.get_finished_spans():
        assert span.context is not None
        found.append(
            {
                "process": os.getpid(),
                "name": span.name,
                "trace": f"{span.context.trace_id:032x}",
                "id": f"{span.context.span_id:016x}",
                "parent": None if span.parent is None else f"{span.parent.span_id:016x}",
                "tracestate": span.context.trace_state.to_header(),
            }
        )
    return JSONResponse(found)


layer = RedisLayer(os.environ.get("TRACED_REDIS", "redis://127.0.0.1"))
room = WSAction([path("ws/", Room.as_asgi())], layer=layer, hooks=[OpenTelemetry(provider)])
app = Starlette(routes=[Route("/", page), Route("/spans", spans), Mount("/", room)], lifespan=room.lifespan)
