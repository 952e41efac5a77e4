"""The chapter on logs, metrics and traces: its blocks run, and its app logs, counts and traces what the page says."""

import asyncio
import json
import logging
import logging.config
import re
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from tests.support.server_processes import ROOT, Process, started
from wsaction.applications import WSAction
from wsaction.contrib.prometheus import Prometheus
from wsaction.limits import Limits
from wsaction.routing import path
from wsaction.testing import connect

CHAPTER = ROOT / "examples" / "guide" / "09-observability"
PAGE, APP = (CHAPTER / "README.md").read_text(), (CHAPTER / "app.py").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
RUN = ["-m", "wsaction", "run", "app:app", "--app-dir", str(CHAPTER), "--port", "0", "--log-format", "json"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # for the clients; a server has its own loop


def loaded() -> Any:
    """The app's module, run anew."""
    spec = spec_from_file_location("observability_app", CHAPTER / "app.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(block: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "chapter"}
    exec(compile(block, "README.md", "exec"), names)
    return names


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[0])
def test_a_block_is_a_part_of_the_app_or_runs(block: str) -> None:
    parts = [part.strip("\n") for part in block.split("# ...\n")]
    assert all(part in APP for part in parts) or run(block)


@pytest.fixture
def wsaction_logger() -> Iterator[logging.Logger]:
    """The logger, whose configuration is restored."""
    logger = logging.getLogger("wsaction")
    before = [*logger.handlers], logger.level, logger.propagate
    yield logger
    logger.handlers, logger.level, logger.propagate = before


def test_the_configuration_for_another_server(wsaction_logger: logging.Logger, capsys: Any) -> None:
    (block,) = [block for block in BLOCKS if "LOGGING" in block]
    logging.config.dictConfig(run(block)["LOGGING"])
    wsaction_logger.info("hello")
    assert json.loads(capsys.readouterr().err)["message"] == "hello"


async def test_hooks_of_ones_own(capsys: Any) -> None:
    (block,) = [block for block in BLOCKS if "class Slow" in block]
    module = loaded()
    board = WSAction([path("ws/", module.Board.as_asgi())], hooks=[run(block)["Slow"]()])
    async with connect(board, "/ws/") as ws:
        await ws.call("subscribe", "cards/")
        await ws.call("vote", "cards/1/")
        await ws.event("updated")
    assert "updated of ws" in capsys.readouterr().out.splitlines()


def test_the_page_lists_every_metric() -> None:
    registry = CollectorRegistry()
    Prometheus(registry).on_layer_state(True)
    exported = {f"{one.name}{'_total' * (one.type == 'counter')}" for one in registry.collect()}
    assert set(re.findall(r"^\| `(wsaction_\w+)` ", PAGE, re.MULTILINE)) == exported


def test_the_alerts_name_metrics_and_limits_that_exist() -> None:
    section = PAGE.partition("## What to alert on")[2].partition("\n## ")[0]
    registry = CollectorRegistry()
    Prometheus(registry).on_layer_state(True)
    exported = {one.name for one in registry.collect()}
    for name in re.findall(r"wsaction_\w+", section):
        assert re.sub(r"_(total|count|bucket)$", "", name) in exported
    (limits,) = re.findall(r'limit=~"([^"]+)"', section)
    for limit in limits.split(r"\|"):
        assert hasattr(Limits(), limit)


async def read_until(server: Process, name: str) -> dict[str, Any]:
    """The first line of the log that has this field."""

    def read() -> dict[str, Any]:
        assert server.stderr is not None
        lines = (json.loads(line) for line in iter(server.stderr.readline, ""))
        return next(line for line in lines if name in line)

    return await asyncio.wait_for(asyncio.to_thread(read), 20)


async def read_spans(server: Process, *names: str) -> dict[str, dict[str, Any]]:
    """The spans that the server prints, by name, once those of these names are there."""

    def read() -> dict[str, dict[str, Any]]:
        assert server.stdout is not None
        found: dict[str, dict[str, Any]] = {}
        while not found.keys() >= set(names):
            line = server.stdout.readline()
            if line.startswith("{"):
                span = json.loads(line)
                found[span["name"]] = span
        return found

    return await asyncio.wait_for(asyncio.to_thread(read), 20)


async def test_the_app_logs_counts_and_traces() -> None:
    click = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with started(*RUN) as server:
        async with server.connect() as ada, server.connect() as grace:
            await grace.send(json.dumps({"action": "subscribe", "route": "cards/"}))
            await grace.recv()
            await ada.send(json.dumps({"action": "vote", "route": "cards/1/", "traceparent": click}))
            assert json.loads(await ada.recv())["data"] == 1
            event = json.loads(await grace.recv())
            await ada.send(json.dumps({"action": "average", "route": "cards/1/", "voters": 0}))
            (error,) = json.loads(await ada.recv())["errors"]
            async with httpx.AsyncClient(trust_env=False) as http:
                text = (await http.get(f"http://127.0.0.1:{server.port}/metrics")).text
        voted = await read_until(server, "votes")
        failed = await read_until(server, "error_id")
        spans = await read_spans(
            server, "CardHandler/vote", "count the votes", "publish updated", "deliver updated", "CardHandler/average"
        )
    assert (voted["level"], voted["logger"], voted["votes"]) == ("WARNING", "board", 1)
    assert (voted["handler"], voted["action"], voted["route"]) == ("CardHandler", "vote", "cards/1/")
    assert voted["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert failed["error_id"] == error["ctx"]["error_id"]
    assert failed["exception"].endswith("ZeroDivisionError: division by zero")
    delivered = spans["deliver updated"]
    assert event["traceparent"].split("-")[2] == delivered["context"]["span_id"].removeprefix("0x")
    assert delivered["parent_id"] == spans["publish updated"]["context"]["span_id"]
    vote = spans["CardHandler/vote"]
    assert spans["publish updated"]["parent_id"] == spans["count the votes"]["parent_id"] == vote["context"]["span_id"]
    assert vote["parent_id"].removeprefix("0x") == "b7ad6b7169203331"
    assert spans["CardHandler/average"]["attributes"]["wsaction.error_id"] == error["ctx"]["error_id"]
    lines = text.splitlines()
    assert 'wsaction_connections{consumer="Board"} 2.0' in lines
    assert 'wsaction_action_seconds_count{action="vote",handler="CardHandler",status="200"} 1.0' in lines
    assert 'wsaction_action_seconds_count{action="average",handler="CardHandler",status="500"} 1.0' in lines
    assert 'wsaction_events_delivered_total{event="updated"} 1.0' in lines


@pytest.mark.slow
async def test_each_of_several_processes_answers_for_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def connections(server: Process) -> str:
        async with httpx.AsyncClient(trust_env=False) as http:
            text = (await http.get(f"http://127.0.0.1:{server.port}/metrics")).text
        (line,) = [line for line in text.splitlines() if line.startswith("wsaction_connections{")]
        return line.partition(" ")[2]

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    async with started(*RUN) as one, started(*RUN) as two, one.connect(), one.connect(), two.connect():
        assert [await connections(server) for server in (one, two)] == ["3.0", "3.0"]
        one.kill()
        one.wait()
        assert await connections(two) == "1.0"
