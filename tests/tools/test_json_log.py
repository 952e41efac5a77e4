"""`wsaction run --log-format json`, and `wsaction.server.JSONFormatter` by itself."""

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from websockets.exceptions import InvalidStatus

from tests.support.server_processes import Process, started
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.contrib.opentelemetry import OpenTelemetry
from wsaction.decorators import async_action
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.routing import path
from wsaction.server import JSONFormatter, run
from wsaction.testing import connect

RUN = ["-m", "wsaction", "run", "tests.support.logging_app:app", "--port", "0", "--log-format", "json"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # for the clients; a server has its own loop


# ------------------------------------------------------------------------------------------------ a real process
async def lines_until(server: Process, message: str) -> list[dict[str, Any]]:
    """Reads the log, each line of which has to be JSON, up to the line with this message."""

    def read() -> list[dict[str, Any]]:
        assert server.stderr is not None
        lines = []
        for line in iter(server.stderr.readline, ""):
            lines.append(json.loads(line))
            if message in lines[-1]["message"]:
                return lines
        raise AssertionError(f"no line with {message!r} in {lines!r}")

    return await asyncio.wait_for(asyncio.to_thread(read), 20)


@pytest.mark.parametrize("options", [[], pytest.param(["--workers", "2"], marks=pytest.mark.slow)], ids=str)
async def test_every_line_is_json_and_an_error_is_one_of_them(options: list[str]) -> None:
    async with started(*RUN, *options) as server:
        assert all(json.loads(line)["logger"] == "uvicorn.error" for line in server.log)
        async with server.connect() as ws:
            await ws.send(json.dumps({"action": "fail", "text": "one\ntwo", "request_id": 7}))
            error_id = json.loads(await ws.recv())["errors"][0]["ctx"]["error_id"]
            *_, failed = await lines_until(server, "failed")
            await ws.send(json.dumps({"action": "note", "route": ""}))
            await ws.recv()
            *_, noted = await lines_until(server, "noted")
        with pytest.raises(InvalidStatus):
            async with server.connect("/wss/"):
                pass
        *_, refused = await lines_until(server, "None of the")
        await server.stop()
    exception = failed.pop("exception")
    assert exception.startswith("Traceback (most recent call last):\n")
    assert exception.endswith("RuntimeError: one\ntwo")
    logged_at = datetime.fromisoformat(failed.pop("timestamp"))
    assert 0 <= (datetime.now(UTC) - logged_at).total_seconds() < 60
    assert failed == {
        "level": "ERROR",
        "logger": "wsaction",
        "message": f"fail  failed (error_id {error_id})",
        "path": "/ws/",
        "handler": "Shop",
        "action": "fail",
        "route": "",
        "request_id": 7,
        "error_id": error_id,
        "status": 500,
    }
    assert noted.pop("timestamp")
    assert noted == {
        "level": "WARNING",
        "logger": "shop",
        "message": "noted",
        "path": "/ws/",
        "handler": "Shop",
        "action": "note",
        "route": "",
        "basket": 3,
    }
    assert (refused["level"], refused["path"], refused["status"]) == ("INFO", "/wss/", 404)


# ------------------------------------------------------------------------------------------------ the formatter
class Lines(logging.Handler):
    """Keeps what is logged as the JSON that it is formatted to."""

    def __init__(self) -> None:
        super().__init__()
        self.formatter = JSONFormatter()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))

    def last(self) -> dict[str, Any]:
        assert "\n" not in self.texts[-1]
        line: dict[str, Any] = json.loads(self.texts[-1])
        return line


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, loggers = Lines(), [logging.getLogger(), logging.getLogger("uvicorn.access")]
    if loggers[-1].propagate:  # until uvicorn has configured it
        loggers.pop()
    for logger in loggers:
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)


class Card(AsyncAPIActionHandler):
    @async_action
    async def log(self) -> None:
        logging.getLogger("app").warning("logged")

    @async_action(timeout=0.01)
    async def stay(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await RELEASED.wait()


RELEASED = asyncio.Event()


class Root(AsyncAPIConsumer):
    routepatterns = [path("cards/<int:pk>/", Card.as_aaah())]


class User:
    is_authenticated = True

    def __init__(self, id: Any) -> None:
        self.id = id


async def test_a_line_of_an_action_says_whose_it_is(lines: Lines) -> None:
    app = WSAction([path("ws/<slug:room>/", Root.as_asgi())])
    async with connect(app, "/ws/den/", user=User(7)) as ws:
        await ws.call("log", "cards/3/?x=1")
    line = lines.last()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "WARNING",
        "logger": "app",
        "message": "logged",
        "path": "/ws/den/",
        "handler": "Card",
        "action": "log",
        "route": "cards/3/?x=1",
        "request_id": "test-1",
        "user": 7,
    }
    logging.getLogger("app").warning("outside")
    assert lines.last().keys() == {"timestamp", "level", "logger", "message"}


async def test_the_user_is_an_id_by_the_apps_function_or_left_out(lines: Lines) -> None:
    class Unstable(User):
        is_broken = False

    def failing(user: Any) -> Any:
        return 1 / (not user.is_broken)

    by_name = WSAction([path("", Root.as_asgi())], user_id=lambda user: f"user-{user.id}")
    anonymous = WSAction([path("", Root.as_asgi())])
    broken = WSAction([path("", Root.as_asgi())], user_id=failing)
    for app, user, expected in ((by_name, User(7), "user-7"), (anonymous, None, None), (broken, Unstable(7), None)):
        async with connect(app, **({} if user is None else {"user": user})) as ws:
            Unstable.is_broken = True
            await ws.call("log", "cards/3/")
            Unstable.is_broken = False
        line = next(one for text in reversed(lines.texts) if (one := json.loads(text))["message"] == "logged")
        assert line.get("user") == expected


async def test_a_line_within_a_span_has_its_ids(lines: Lines) -> None:
    app = WSAction([path("", Root.as_asgi())], hooks=[OpenTelemetry(TracerProvider())])
    async with connect(app) as ws:
        await ws.call("log", "cards/3/", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    line = lines.last()
    assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert len(line["span_id"]) == 16
    assert line["span_id"] != "b7ad6b7169203331"


async def test_an_action_that_does_not_end_is_named(lines: Lines) -> None:
    app = WSAction([path("ws/", Root.as_asgi())], limits=Limits(drain_timeout=0.05))
    async with connect(app, "/ws/") as ws:
        assert (await ws.call("stay", "cards/3/"))["status"] == 408
        RELEASED.set()
    line = lines.last()
    assert "goes on" in line["message"]
    assert (line["path"], line["action"], line["route"]) == ("/ws/", "stay", "cards/3/")


def test_anything_may_be_logged(lines: Lines) -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    extra = {
        "bytes": b"\xff",
        "nan": float("nan"),
        "keys": {(1, 2): 3},
        "cycle": cycle,
        "when": datetime(2026, 12, 1, tzinfo=UTC),
    }
    logging.getLogger("app").warning("\ud800 and\na line", extra=extra)
    line = lines.last()
    assert line["message"] == "\ud800 and\na line"
    assert (line["bytes"], line["nan"], line["keys"]) == ("b'\\xff'", "nan", "{(1, 2): 3}")
    assert (line["cycle"], line["when"]) == ("[[...]]", "2026-12-01 00:00:00+00:00")
    logging.getLogger("app").warning("with a stack", stack_info=True)
    assert lines.last()["stack"].startswith("Stack (most recent call last):\n")


def test_the_access_log_of_uvicorn_has_its_fields(lines: Lines) -> None:
    text, logger = '%s - "%s %s HTTP/%s" %d', logging.getLogger("uvicorn.access")
    logger.warning(text, "127.0.0.1:5", "GET", "/docs", "1.1", 200, extra={"color_message": "no"})
    line = lines.last()
    assert line["message"] == '127.0.0.1:5 - "GET /docs HTTP/1.1" 200'
    assert (line["client"], line["method"], line["path"], line["status"]) == ("127.0.0.1:5", "GET", "/docs", 200)
    assert "color_message" not in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"log_format": "xml"}, 'expected "text" or "json", got \'xml\''),
        ({"log_format": "json", "log_config": {"version": 1}}, "expected log_format or log_config, got both"),
    ],
)
def test_wrong_options_of_run(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run("main:app", **options)


def test_a_program_with_a_root_logger_of_its_own_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(sys.modules["uvicorn"], "run", lambda app, **settings: given.update(settings["log_config"]))
    run("main:app", log_format="json")  # the root logger has pytest's handler
    assert "root" not in given
    assert {one["()"] for one in given["formatters"].values()} == {"wsaction.server.JSONFormatter"}
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    run("main:app", log_format="json")
    assert given["root"] == {"handlers": ["default"], "level": "WARNING"}
