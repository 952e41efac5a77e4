"""The README's Python runs as it stands, and does what the text beside it says."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wsaction.applications import WSAction
from wsaction.routing import path
from wsaction.testing import connect

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


class User:
    is_authenticated = True
    pk = 1


def block(containing: str) -> dict[str, Any]:
    """What the one Python block with this text defines."""
    (source,) = (source for source in BLOCKS if containing in source)
    namespace: dict[str, Any] = {"__name__": "readme"}
    exec(compile(source, "README.md", "exec"), namespace)
    return namespace


@pytest.mark.parametrize("source", BLOCKS, ids=lambda source: source.splitlines()[0])
def test_every_block_runs(source: str) -> None:
    assert compile(source, "README.md", "exec")
    exec(source, {"__name__": "readme"})


async def test_the_smallest_program() -> None:
    async with connect(block("class Echo")["app"], "/ws/") as ws:
        assert (await ws.call("echo", text="hello"))["data"] == "hello"


async def test_the_routing_example() -> None:
    app = WSAction([path("ws/", block("class ParentConsumer")["ParentConsumer"].as_asgi())])
    async with connect(app, "/ws/", user=User()) as ws:
        assert (await ws.call("retrieve", "test_child_route/1/"))["data"] == {"title": "first"}
        assert (await ws.call("recieve_path", "test_child_route"))["data"] == {"path": "handled"}
        assert (await ws.call("recieve_repath", "test_child_route/1/"))["data"] == {"repath": "handled"}
        assert (await ws.call("retrieve", "test_child_route/404/"))["errors"][0]["type"] == "not_found"
        assert (await ws.call("retrieve", "nowhere/"))["errors"][0]["type"] == "route_not_found"
        assert (await ws.call("nothing", "test_child_route"))["status"] == 405
    async with connect(app, "/ws/") as ws:
        assert (await ws.call("nothing", "test_child_route"))["status"] == 403


@pytest.mark.parametrize(
    ("app", "at"), [("site", "/rooms/kitchen/"), ("site", "/room/kitchen"), ("api", "/rooms/kitchen/")]
)
async def test_embedding(app: str, at: str) -> None:
    async with connect(block("class Room")[app], at, origin="http://testserver") as ws:
        assert (await ws.call("where"))["data"] == "kitchen"


async def test_authentication() -> None:
    app = block("class TokenAuthentication")["app"]
    async with connect(app, "/ws/", subprotocols=["wsaction.v1", "bearer.a-secret"]) as ws:
        assert ws.subprotocol == "wsaction.v1"
        assert (await ws.call("whoami"))["data"] == "ada"
    async with connect(app, "/ws/") as ws:
        assert (await ws.call("whoami"))["status"] == 401
        assert (await ws.call("$auth", data="another"))["status"] == 401
        assert (await ws.call("$auth", data="a-secret"))["status"] == 200
        assert (await ws.call("whoami"))["data"] == "ada"


async def test_testing_an_app() -> None:
    test: Callable[[], Any] = block("class Counter")["test_adding"]
    await asyncio.wait_for(test(), 10)


async def test_the_frames_shown_at_the_top_are_what_the_quickstart_says() -> None:
    from examples.quickstart import app

    sent, answered = re.findall(r"^(?:client|server)  (\{.*\})$", README, re.MULTILINE)
    async with connect(app, "/ws/") as ws:
        await ws.send_text(sent)
        assert await ws.receive_text() == answered


async def test_the_frames_to_type_are_answered() -> None:
    from examples.quickstart import app

    frames = re.findall(r'^(\{"action".*\})$', README, re.MULTILINE)
    assert len(frames) == 2
    async with connect(app, "/ws/") as ws:
        for frame in frames:
            await ws.send_text(frame)
            assert (await ws.receive_json())["errors"] == []


def test_the_table_of_bounds_is_that_of_limits() -> None:
    from dataclasses import fields

    from wsaction.limits import Limits

    told = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+)", README, re.MULTILINE))
    assert {name: float(value.replace(",", "")) for name, value in told.items()} == {
        field.name: float(getattr(Limits(), field.name)) for field in fields(Limits)
    }
