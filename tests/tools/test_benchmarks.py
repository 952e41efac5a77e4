"""The benchmarks verify their results, and the action job has not become slower by a third."""

import asyncio
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from benchmarks import crud, load, plot, publish, routing
from benchmarks.contestants import BY_HAND, CONTESTANTS, ECHO, OURS, Contestant, by_name
from benchmarks.driver import Unfit, turn, verify
from benchmarks.job import JSON, expected, frame, number_of, scope
from benchmarks.report import Aim, Answer, Row, rounded
from benchmarks.server import Server

INSTALLED = [one for one in CONTESTANTS if one.version is not None and one.name in ("wsaction", "by hand", "Starlette")]
# The measured ratios 0.60, 0.67 and 1.24, plus a third. A miss is measured again, since the machine may be busy.
WORST = {"does not suspend": 0.80, "suspends": 0.89, "for 3 turns": 1.65}


def in_process() -> dict[str, float]:
    """In a process of its own: coverage counts our lines, and not those of the by-hand app."""
    command = [sys.executable, "-m", "benchmarks.action", "--only", OURS.name, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


@pytest.mark.slow  # needs a core for itself
def test_the_action_job_has_not_become_slower_by_a_third() -> None:
    best = dict.fromkeys(WORST, float("inf"))
    for _ in range(4):
        found = in_process()
        best = {column: min(figure, found[column]) for column, figure in best.items()}
        if all(best[column] < worst for column, worst in WORST.items()):
            return
    pytest.fail(f"by hand = 1: {best}, at most {WORST}")


@pytest.mark.parametrize("waiting", [False, True])
@pytest.mark.parametrize("contestant", INSTALLED, ids=lambda contestant: contestant.module)
async def test_every_contestant_does_the_job(contestant: Contestant, waiting: bool) -> None:
    await verify(contestant.app(waiting), contestant.speech)


async def answers(scope: Any, receive: Any, send: Any, text: str) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": text})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": 500}, "expected status 200"),
        ({"errors": [1]}, "expected status 200"),
        ({"data": {}}, "expected the"),
    ],
)
async def test_a_wrong_reply_is_not_timed(changes: dict[str, Any], message: str) -> None:
    text = json.dumps({**expected(1), **changes})
    with pytest.raises(Unfit, match=message):
        await verify(lambda *asgi: answers(*asgi, text))


async def test_a_repeated_reply_is_not_timed() -> None:
    with pytest.raises(Unfit, match="the last reply is none"):
        await turn(lambda *asgi: answers(*asgi, json.dumps(expected(1))), JSON, 0, 10)


async def test_a_contestant_that_ends_early_is_not_timed() -> None:
    async def gives_up(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    with pytest.raises(Unfit, match="answered 0 of 10 frames"):
        await turn(gives_up, JSON, 0, 10)


def test_a_frame_and_its_reply_have_the_same_number() -> None:
    assert number_of(frame(42)) == number_of(json.dumps(expected(42)).encode()) == 42
    with pytest.raises(ValueError, match="no reply to the action job"):
        number_of("{}")


@pytest.mark.parametrize("contestant", CONTESTANTS, ids=lambda contestant: contestant.module)
def test_every_envelope_carries_the_unchanged_frame(contestant: Contestant) -> None:
    assert frame(7) in contestant.speech.wrap(frame(7), 7)
    assert scope(contestant.speech.path)["path"] == contestant.speech.path


def test_a_contestant_is_found_by_its_name() -> None:
    assert by_name("by hand") is BY_HAND
    with pytest.raises(LookupError, match="no contestant 'nobody'; there are wsaction, "):
        by_name("nobody")


# ---------------------------------------------------------------------------------------------------- over a socket
@pytest.mark.parametrize("size", [5, 125, 126, 65_535])
def test_a_message_is_masked_as_the_protocol_says(size: int) -> None:
    from websockets.frames import Frame
    from websockets.streams import StreamReader

    reader = StreamReader()
    reader.feed_data(load.masked("x" * size))
    parsing = Frame.parse(reader.read_exact, mask=True)
    with pytest.raises(StopIteration) as parsed:
        next(parsing)
    assert parsed.value.value.data == b"x" * size


@pytest.mark.slow
@pytest.mark.parametrize("contestant", [OURS, ECHO], ids=["ours", "echo"])
def test_the_load_is_answered(contestant: Contestant) -> None:
    with Server.of(contestant) as server:
        plan: dict[str, Any] = {"contestant": contestant.name, "port": server.port, "connections": 3}
        found = load.run(kind="flood", pid=server.pid, in_flight=2, seconds=0.3, **plan)
        assert found["rate"] > 100
        assert 0 <= found["idle"] <= 1
        found = load.run(kind="at_rate", rate=500, seconds=0.4, **plan)
        assert 0 < found["p50"] <= found["p99"]
        assert server.memory() > 1_000_000


@pytest.mark.slow
def test_a_load_without_a_server_is_unfit() -> None:
    with pytest.raises(Unfit, match="ConnectionRefusedError"):
        load.run(kind="flood", contestant="wsaction", port=1, pid=1, connections=1, in_flight=1, seconds=1)


# --------------------------------------------------------------------------------------------------------- routing
@pytest.mark.parametrize("shape", routing.SHAPES, ids=lambda shape: shape.name)
def test_every_router_finds_the_routes(shape: routing.Shape) -> None:
    found, _ = routing.libraries()
    assert found[0].name == "wsaction"
    for library in found:
        routing.contestant(shape, library, 20)  # raises if a result is wrong


# ------------------------------------------------------------------------------------------------------------ CRUD
async def test_every_contestant_does_the_crud_job(tmp_path: Path) -> None:
    pairs, close = await crud.made(tmp_path)
    try:
        for pair in pairs:
            for app in (pair.ours, pair.by_hand):
                await crud.verify(app)
                await crud.verify(app)  # verifying does not change the cards
                assert await crud.turn(app, crud.JOBS[-1], 1, 2) > 0
            assert all(part > 0 for part in await crud.compare(pair, crud.JOBS[0], 1, 0.001))
    finally:
        await close()


async def test_a_lost_update_is_not_timed(tmp_path: Path) -> None:
    replies = [json.dumps(job.expected(6)) for job in crud.JOBS]

    async def forgets(scope: Any, receive: Any, send: Any) -> None:
        await answers(scope, receive, send, replies.pop(0) if replies else json.dumps(crud.JOBS[0].expected(6)))

    with pytest.raises(Unfit, match="an update was not kept"):
        await crud.verify(forgets)
    with pytest.raises(Unfit, match="expected the reply"):
        await crud.turn(lambda *asgi: answers(*asgi, json.dumps(crud.JOBS[0].expected(1))), crud.JOBS[0], 0, 3)


# ------------------------------------------------------------------------------------------------------- the report
ANSWER = Answer(
    "action",
    "Which is less?",
    [Row("wsaction", {"does not suspend": 0.5, "µs": 1234.5}, (Aim("does not suspend", 0.4),)), Row("b", {"µs": None})],
    ["a note"],
)


def test_the_table_shows_aims_beside_figures() -> None:
    assert Aim("ratio", 0.5).told(0.5) == "ratio at most 0.5: met"
    assert Aim("ratio", 1.35, at_least=True).told(1.3) == "ratio at least 1.35: MISSED"
    lines = ANSWER.table().splitlines()
    assert lines[1:] == [
        "== Which is less?",
        "          does not suspend     µs  aims",
        "wsaction               0.5  1,234  does not suspend at most 0.4: MISSED",
        "b                        -      -",
        "   a note",
    ]
    answer = ANSWER.as_json()
    assert answer["rows"]["b"] == {"µs": None}
    assert [aim["met"] for aim in answer["aims"]] == [False]
    assert rounded(12.34567) == 12.35


def test_the_plot_is_xml_with_a_bar_for_each_contestant() -> None:
    svg = plot.plot({"questions": {"action": ANSWER.as_json()}})
    tree = ElementTree.fromstring(svg)
    assert len(tree.findall(".//{http://www.w3.org/2000/svg}rect")) == 1


async def test_a_stalled_contestant_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stalls(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr("benchmarks.driver.PATIENCE", 0.01)
    with pytest.raises(Unfit, match="answered 0 of 10 frames"):
        await turn(stalls, JSON, 0, 10)


def aim(column: str, bound: float, figure: float, met: bool) -> dict[str, Any]:
    return {"row": "wsaction", "column": column, "bound": bound, "at_least": False, "figure": figure, "met": met}


def test_the_readme_has_the_figures_of_a_run() -> None:
    questions = {
        "action": [
            aim("does not suspend", 0.5, 0.451, True),
            aim("suspends", 1.0, 1.2, False),
            aim("for 3 turns", 1.0, 1.3, False),
        ],
        "routing": [
            aim("to django", 0.1, 0.05, True),
            aim("to django", 0.1, 0.13, False),
            aim("1000/10", 1.5, 1, True),
        ],
        "crud": [
            {**aim("update", 1, 1.02, False), "row": "SQLite: wsaction"},
            {**aim("retrieve", 1, 0.95, True), "row": "SQLite: wsaction"},
            {**aim("retrieve", 1, 1.3, False), "row": "memory: wsaction"},
        ],
        "recovery": [aim("short", 0, 0, True), aim("wrong", 0, 0, True)],
        "fanout": [aim("over uvicorn", 0.8, 0.85, True), aim("p99 beside a deaf client", 1.5, 1.02, True)],
        **{key: [aim("x", 30, 20, True)] for key in ("sockets", "memory", "imports")},
    }
    run = {"date": "2026-11-23", "python": "CPython 3.11.7", "machine": "a machine", "versions": {"uvloop": "0.23"}}
    table = publish.markdown({**run, "questions": {key: {"aims": aims} for key, aims in questions.items()}})
    assert "| the action job in process, time, by hand = 1 | 0.45 | at most 0.5 | met |" in table
    assert "| the same where the action suspends | 1.20 | at most 1 | missed |" in table
    assert "| the same where it waits for longer, so that another task reads on | 1.30 | at most 1 | missed |" in table
    assert "SQLAlchemy = 1 | 0.95 to 1.02 | at most 1 | met in 1 of 2 shapes |" in table
    assert "by hand a dict = 1 | 1.30 | at most 1 | missed |" in table
    assert "`django.urls` = 1 | 0.05 to 0.13 | at most 0.1 | met in 1 of 2 shapes |" in table
    assert "who drop and come back, miss or have twice | 0 | at most 0 | met |" in table
    assert "a `send` loop by hand = 1 | 0.85 | " in table
    assert "does not read, without = 1 | 1.02 | at most 1.5 | met |" in table
    assert table.endswith("On 2026-11-23, CPython 3.11.7, uvloop 0.23; a machine.")
    without = {"questions": {key: {"aims": aims if key != "recovery" else []} for key, aims in questions.items()}}
    assert "drop and come back" not in publish.markdown({**run, **without})
    page = (Path(__file__).parents[2] / "benchmarks" / "README.md").read_text()
    assert table in publish.replaced(page, table)
    with pytest.raises(ValueError, match="around its table of results"):
        publish.replaced("", table)
