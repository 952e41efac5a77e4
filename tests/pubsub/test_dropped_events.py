"""``outbox_policy = "drop_oldest"``: a slow client stays connected and gets a `$resync` for each route with dropped
events.
"""

import asyncio
import random
from typing import Any

import pytest

from tests.support.hubs import TOPIC, RecordingSubscriber, ScriptedLayer, join, opened, publish
from tests.support.live_boards import Board, Lean
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.limits import Limits
from wsaction.routing import path
from wsaction.testing import WebSocketSession, connect

LIMITS = Limits(max_outbox_bytes=4_096)
PADDING = "x" * 400


class Rechecked(Board):
    """A board whose permissions are asked at each event."""

    recheck = True


class Slow(AsyncAPIConsumer):
    outbox_policy = "drop_oldest"
    routepatterns = [
        path("boards/<int:pk>/", Board.as_aaah()),
        path("lean/", Lean.as_aaah()),
        path("asked/", Rechecked.as_aaah()),
    ]


def app() -> WSAction:
    return WSAction([path("ws/", Slow.as_asgi())], limits=LIMITS)


async def flood(served: WSAction, route: str, events: int) -> None:
    for number in range(events):
        await served.publish(route, "told", {"number": number, "padding": PADDING})
        await asyncio.sleep(0)


async def events_until_last(ws: WebSocketSession) -> list[dict[str, Any]]:
    """All events up to the one named `last`."""
    events = []
    while (event := await ws.event())["event"] != "last":
        events.append(event)
    return events


async def test_each_route_with_dropped_events_gets_one_resync() -> None:
    served = app()
    async with connect(served, "/ws/") as ws:
        for route in ("boards/1/", "boards/2/", "boards/3/"):
            assert (await ws.call("subscribe", route))["status"] == 200
        ws.pause_reading()
        await flood(served, "boards/1/", 20)
        await flood(served, "boards/2/", 20)
        ws.resume_reading()
        await served.publish("boards/3/", "still", 1)
        events = [await ws.event("still")]
        await served.publish("boards/1/", "last")
        events += await events_until_last(ws)
        notices = {one["route"]: one["data"] for one in events if one["event"] == "$resync"}
        assert sum(one["event"] == "$resync" for one in events) == len(notices) == 2
        assert {route: data["offset"] for route, data in notices.items()} == {"boards/1/": 20, "boards/2/": 20}
        since = {"epoch": notices["boards/1/"]["epoch"], "offset": 20}
        assert (await ws.call("subscribe", "boards/1/", since=since))["data"]["recovered"] is True
        assert (await ws.event("last"))["offset"] == 21


@pytest.mark.parametrize("route", ["lean/", "asked/"])
async def test_routes_without_history_or_with_filters_get_a_resync(route: str) -> None:
    served = app()
    async with connect(served, "/ws/") as ws:
        assert (await ws.call("subscribe", route))["status"] == 200
        ws.pause_reading()
        await flood(served, route, 30)
        ws.resume_reading()
        notice = await ws.event("$resync")
        assert notice["route"] == route
        assert notice["data"]["offset"] == (0 if route == "lean/" else 30)
        await served.publish(route, "last")
        await events_until_last(ws)


async def test_every_hole_is_followed_by_a_resync_at_any_reading_speed() -> None:
    served, rng, resyncs = app(), random.Random(7), 0
    async with connect(served, "/ws/") as ws:
        offset = (await ws.call("subscribe", "boards/1/"))["data"]["offset"]
        for _ in range(30):
            ws.pause_reading()
            await flood(served, "boards/1/", rng.randrange(30))
            ws.resume_reading()
            await served.publish("boards/1/", "last")
            was_last = has_hole = False
            while has_hole or not was_last:
                event = await ws.event()
                if event["event"] == "$resync":
                    assert has_hole
                    assert event["data"]["offset"] >= offset
                    offset, has_hole, resyncs = event["data"]["offset"], False, resyncs + 1
                else:
                    assert event["offset"] > offset
                    has_hole = has_hole or event["offset"] > offset + 1
                    offset = event["offset"]
                    was_last = event["event"] == "last"
    assert resyncs > 5


async def test_an_event_larger_than_the_outbox_gets_a_resync() -> None:
    served = app()
    async with connect(served, "/ws/") as ws:
        await ws.call("subscribe", "boards/1/")
        ws.pause_reading()
        await flood(served, "boards/1/", 12)
        await served.publish("boards/1/", "huge", "x" * 5_000)  # larger than the outbox
        ws.resume_reading()
        assert (await ws.event("$resync"))["data"]["offset"] == 13
        await served.publish("boards/1/", "last")
        assert [event["offset"] for event in await events_until_last(ws)] == [1]  # it was already being sent


# ------------------------------------------------------------------------------------------- the hub
async def test_hub_resync_reaches_only_subscribed_connections() -> None:
    layer = ScriptedLayer()
    async with opened(layer) as one:
        live, ahead, joining = RecordingSubscriber(), RecordingSubscriber(), RecordingSubscriber()
        await join(one, live)
        await join(one, live, "boards/8/")
        first = await publish(one, 1)
        for number in range(2, 80):
            await publish(one, number)
        layer.drops_messages = True
        await publish(one, 80)
        await join(one, ahead, since=first)  # it received an event that this process has yet to receive
        layer.gate.clear()
        waiting = asyncio.create_task(join(one, joining, "boards/9/"))
        await asyncio.sleep(0)
        one.resync(live, {TOPIC})
        one.resync(ahead, None)
        one.resync(joining, None)  # its reply will contain everything
        one.resync(RecordingSubscriber(), None)
        notice = (await live.receive(2 + 79 + 1))[-1]
        assert (notice["event"], notice["route"], notice["data"]["offset"]) == ("$resync", TOPIC, 79)
        notice = (await ahead.receive(1 + 79 + 1))[-1]
        assert (notice["event"], notice["data"]["offset"]) == ("$resync", 80)
        one.resync(live, None)
        assert {notice["route"] for notice in (await live.receive(84))[-2:]} == {TOPIC, "boards/8/"}
        waiting.cancel()
        layer.gate.set()
        await asyncio.wait([waiting])
