"""`wsaction._server.worker_count`: one warning if several processes have no layer between them."""

from typing import Any

import pytest

from tests.support.live_boards import Board, Root
from wsaction._server.worker_count import count_workers
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.layers.memory import MemoryLayer
from wsaction.routing import path
from wsaction.testing import connect


@pytest.mark.parametrize(
    ("argv", "environ", "count"),
    [
        ([], {}, 1),
        (["uvicorn", "main:app", "--workers", "4"], {"WEB_CONCURRENCY": "2"}, 4),
        (["wsaction", "run", "--workers=3", "main:app"], {}, 3),
        (["gunicorn", "-w", "5"], {}, 5),
        (["gunicorn", "-w6"], {}, 6),
        (["gunicorn"], {"GUNICORN_CMD_ARGS": "--bind :1 --workers 7"}, 7),
        (["gunicorn"], {"GUNICORN_CMD_ARGS": "'"}, 1),
        (["uvicorn"], {"WEB_CONCURRENCY": "2"}, 2),
        (["uvicorn"], {"WSACTION_WORKERS": "8", "WEB_CONCURRENCY": "2"}, 8),
        (["uvicorn", "--workers"], {}, 1),
        (["uvicorn", "--workers", "many"], {"WEB_CONCURRENCY": "²"}, 1),
    ],
)
def test_how_many_there_are(argv: list[str], environ: dict[str, str], count: int) -> None:
    assert count_workers(argv, environ) == count


@pytest.mark.parametrize("layer", [None, MemoryLayer()])
async def test_it_is_warned_of_once_at_start(
    layer: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WSACTION_WORKERS", "4")
    app = WSAction([path("ws/<str:tenant>/", Root.as_asgi())], layer=layer)
    async with app.lifespan(), connect(app, "/ws/a/") as ws:
        assert caplog.text.count("4 workers serve this app without a layer") == 1
        assert (await ws.call("subscribe", "boards/7/"))["status"] == 200
    assert caplog.text.count("without a layer") == 1


async def test_what_nobody_starts_warns_when_it_is_used_first(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WSACTION_WORKERS", "4")
    async with connect(Board.as_aaah(), "/") as ws:
        assert not caplog.text
        assert (await ws.call("subscribe"))["status"] == 200
    assert "without a layer" in caplog.text


async def test_who_tells_no_events_is_not_warned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WSACTION_WORKERS", "4")
    async with WSAction([path("ws/", AsyncAPIConsumer.as_asgi())]).lifespan():
        assert not caplog.text
