"""`wsaction.contrib.prometheus`: what is counted, by which labels, and served as an ASGI app."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.contrib.prometheus import MAX_EVENT_NAMES, Prometheus
from wsaction.decorators import async_action
from wsaction.exceptions import LayerUnavailable
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.hooks import Hooks
from wsaction.layers.base import History, Position
from wsaction.layers.memory import MemoryLayer
from wsaction.limits import Limits
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import connect
from wsaction.transactions import unit_of_work


class Row(BaseModel):
    id: int
    text: str


class Card(AsyncAPIActionHandler):
    @async_action
    async def look(self) -> None: ...


class Room(SubscribeMixin, AsyncAPIConsumer):
    routepatterns = [path("cards/<int:pk>/", Card.as_aaah())]

    @async_action
    async def tell(self, event: str = "told") -> None:
        await self.publish(event)

    @async_action(timeout=0.01)
    async def hang(self) -> None:
        await asyncio.get_running_loop().create_future()

    @async_action
    async def leave(self, code: int) -> None:
        self.connection.close(code)


class Counted:
    """An app and what it counts."""

    def __init__(self, *hooks: Hooks, **options: Any) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Prometheus(self.registry)
        routes = [path("ws/", Room.as_asgi())]
        self.app = WSAction(routes, hooks=[self.metrics, *hooks], limits=Limits(max_frame_bytes=500), **options)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"wsaction_{name}", labels)

    def labels(self, name: str) -> set[tuple[str, ...]]:
        """The values of the labels of a metric."""
        families = [one for one in self.registry.collect() if one.name == f"wsaction_{name}"]
        return {tuple(v for k, v in sample.labels.items() if k != "le") for one in families for sample in one.samples}


async def test_connections_and_close_codes() -> None:
    counted = Counted()
    async with connect(counted.app, "/ws/"), connect(counted.app, "/ws/"):
        assert counted.value("connections", consumer="Room") == 2
    assert counted.value("connections", consumer="Room") == 0
    assert counted.value("disconnections_total", consumer="Room", code="1000") == 2
    for code in (4403, 4000, 4999, 3000, 3999):
        async with connect(counted.app, "/ws/") as ws:
            await ws.send_json({"action": "leave", "code": code})
            await ws.wait_closed()
    codes = {
        code: counted.value("disconnections_total", consumer="Room", code=code) for code in ("4403", "4xxx", "3xxx")
    }
    assert codes == {"4403": 1, "4xxx": 2, "3xxx": 2}


async def test_actions_by_handler_action_and_status() -> None:
    counted = Counted()
    async with connect(counted.app, "/ws/") as ws:
        for pk in range(20):
            await ws.call("look", f"cards/{pk}/")
            await ws.call("look", f"nowhere/{pk}/")
            await ws.call(f"nothing-{pk}", f"cards/{pk}/")
        await ws.call("hang")
        await ws.call("$ping")
    assert counted.value("action_seconds_count", handler="Card", action="look", status="200") == 20
    assert counted.value("action_seconds_bucket", handler="Card", action="look", status="200", le="30.0") == 20
    assert counted.value("action_seconds_bucket", handler="Room", action="hang", status="408", le="0.005") == 0
    assert counted.labels("action_seconds") == {
        ("Card", "look", "200"),
        ("Card", "", "405"),
        ("", "", "404"),
        ("Room", "hang", "408"),
        ("ProtocolHandler", "ping", "200"),
    }


async def test_events_published_and_delivered() -> None:
    counted = Counted()
    async with connect(counted.app, "/ws/") as one, connect(counted.app, "/ws/") as two:
        for ws in (one, two):
            await ws.call("subscribe")
        await one.call("tell")
        await two.event("told")
        await one.event("told")
        assert counted.value("events_published_total", event="told") == 1
        assert counted.value("events_delivered_total", event="told") == 2
        for number in range(MAX_EVENT_NAMES + 5):
            await one.call("tell", event=f"made-up-{number}")
            await one.event()
            await two.event()
    assert len(counted.labels("events_published")) == MAX_EVENT_NAMES + 1
    assert counted.value("events_published_total", event="other") == 6
    assert counted.value("events_delivered_total", event="other") == 12


async def test_bounds_lost_events_and_the_layer() -> None:
    class Away(MemoryLayer):
        async def publish(self, topic: str, body: bytes, history: History | None) -> Position | None:
            raise LayerUnavailable("It is away.")

    counted = Counted(layer=Away())
    rows = MemoryQuerySet(Row)
    assert counted.value("layer_available") is None
    async with connect(counted.app, "/ws/") as ws:
        await ws.call("subscribe")
        assert counted.value("layer_available") == 1
        counted.app.runtime.hub.lost()
        assert counted.value("layer_available") == 0
        counted.app.runtime.hub.subscribed("ws/?")
        assert counted.value("layer_available") == 1
        async with unit_of_work():
            await rows.create({"text": "a"})
            await counted.app.publish("", "told")
        await ws.event("$resync")
        await ws.send_text("x" * 501)
        await ws.wait_closed()
    assert counted.value("events_unpublished_total") == 1
    assert counted.value("limits_reached_total", limit="max_frame_bytes") == 1


async def test_a_second_instance_counts_in_the_same_metrics() -> None:
    counted = Counted()
    second = WSAction([path("ws/", Room.as_asgi())], hooks=[Prometheus(counted.registry)])
    async with connect(counted.app, "/ws/"), connect(second, "/ws/"):
        assert counted.value("connections", consumer="Room") == 2


async def test_it_serves_its_metrics() -> None:
    counted = Counted()
    site = Starlette(
        routes=[Route("/metrics", counted.metrics), Mount("/", counted.app)], lifespan=counted.app.lifespan
    )
    async with connect(site, "/ws/") as ws:
        await ws.call("tell")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url="http://localhost") as http:
            response = await http.get("/metrics")
    assert response.status_code == 200
    assert 'wsaction_events_published_total{event="told"} 1.0' in response.text.splitlines()


WORKER = """
import asyncio, sys
from tests.dispatch.test_prometheus import Room
from wsaction.applications import WSAction
from wsaction.contrib.prometheus import Prometheus
from wsaction.routing import path
from wsaction.testing import connect

metrics = Prometheus()

async def main():
    async with connect(WSAction([path("ws/", Room.as_asgi())], hooks=[metrics]), "/ws/") as ws:
        await ws.call("subscribe")
        await ws.call("tell")
        if sys.argv[1:] == ["show"]:
            async def send(message):
                print(message.get("body", b"").decode())
            async def receive():
                return {"type": "http.request"}
            await metrics({"type": "http", "headers": []}, receive, send)
        else:
            print("ready", flush=True)
            sys.stdin.read()

asyncio.run(main())
"""


def test_several_workers_are_counted_together_without_the_dead(tmp_path: Path) -> None:
    root, environment = Path(__file__).parents[2], {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def worker(*arguments: str) -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments], cwd=root, env=environment, stdin=pipe, stdout=pipe, text=True
        )

    def shown() -> list[str]:
        with worker("show") as process:
            out, _ = process.communicate(timeout=30)
        return out.splitlines()

    with worker() as one, worker() as two:
        assert one.stdout is not None
        assert two.stdout is not None
        assert one.stdout.readline() == two.stdout.readline() == "ready\n"
        lines = shown()
        assert 'wsaction_connections{consumer="Room"} 3.0' in lines
        assert 'wsaction_events_published_total{event="told"} 3.0' in lines
        assert "wsaction_layer_available 1.0" in lines
        one.kill()
        one.wait()
        lines = shown()
        assert 'wsaction_connections{consumer="Room"} 2.0' in lines
        assert 'wsaction_events_published_total{event="told"} 4.0' in lines
        two.communicate(timeout=30)
