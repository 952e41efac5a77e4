"""``wsaction call``: output, errors and exit codes."""

import asyncio
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.conftest import Server
from tests.support.guarded_app import Me, Tokens, guarded_app
from tests.support.scripted import scripted
from tests.support.worker_app import app as worker_app
from wsaction.applications import WSAction
from wsaction.cli import main
from wsaction.routing import path as pattern

ROUTE = "boards/7/"


@pytest.fixture
def url(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return serve(worker_app).url("/ws/")


def run(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(main, ["call", *arguments], **options)


def test_a_call_prints_the_data(url: str) -> None:
    result = run(url, "card")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {"id": 7, "due": "2026-11-23"}
    assert result.stdout.startswith('{\n  "id"')
    assert run(url, "card", "--json").stdout == '{"id":7,"due":"2026-11-23"}\n'


@pytest.mark.parametrize(
    ("arguments", "echoed"),
    [
        (["text=hello world"], "hello world"),
        (['text="7"'], "7"),
        (["", "text=é"], "é"),
        (["data=7"], 7),
        (['data={"a": [1, null]}'], {"a": [1, None]}),
        (["--data", "[1, 2]"], [1, 2]),
    ],
)
def test_parameters_are_json_or_text(url: str, arguments: list[str], echoed: Any) -> None:
    result = run(url, "echo", *arguments)
    assert (result.exit_code, json.loads(result.stdout)) == (0, echoed)


def test_data_from_standard_input(url: str) -> None:
    assert run(url, "echo", "--data", "-", "--json", input='{"a": 1}').stdout == '{"a":1}\n'


def test_a_stream_and_its_limit(url: str) -> None:
    assert run(url, "count", "to=3", "--stream", "--json").stdout == "0\n1\n2\n"
    assert run(url, "endless", "size=2", "--stream", "--limit", "2").stdout == '"xx"\n"xx"\n'


def test_a_stream_without_its_option_is_refused(url: str) -> None:
    result = run(url, "count", "to=3")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: count is a stream; pass --stream" in result.stderr


def test_an_error_reply_exits_with_1(url: str) -> None:
    result = run(url, "echo", "nowhere/")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "wsaction: 404 route_not_found: No such route. (echo nowhere/)\n"
    error = json.loads(run(url, "fail", "kind=own", "--json").stdout)
    assert error == {
        "status": 402,
        "errors": [{"type": "payment_required", "msg": "No boards left.", "ctx": {"plan": "free"}}],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'URL'"),
        (["ws://127.0.0.1/"], "Missing argument 'ACTION'"),
        (
            ["http://127.0.0.1/", "echo"],
            "Invalid value for URL: expected a URL like ws://127.0.0.1:8000/ws/, got 'http",
        ),
        (["ws://127.0.0.1/", "echo", "a/", "b/"], "expected KEY=VALUE after the route, as in text=hello, got 'b/'"),
        (
            ["ws://127.0.0.1:99999/", "echo"],
            "Invalid value for URL: expected a URL like ws://127.0.0.1:8000/ws/, got 'ws",
        ),
        (["ws://127.0.0.1:x/", "echo"], "Invalid value for URL"),
        (["ws://[::1/", "echo"], "Invalid value for URL"),
        (["ws:///ws/", "echo"], "Invalid value for URL"),
        (["ws://a b/", "echo"], "Invalid value for URL"),
        (["ws://127.0.0.1/#x", "echo"], "Invalid value for URL"),
        ([f"ws://{'a' * 300}/", "echo"], "Invalid value for URL"),
        (["ws://127.0.0.1/\udcff", "echo"], "Invalid value for URL: expected UTF-8"),
        (["ws://127.0.0.1/", "\udcff"], "Invalid value for ACTION: expected UTF-8"),
        (["ws://127.0.0.1/", "echo", "\udcff/"], "Invalid value for parameters: expected UTF-8"),
        (["ws://127.0.0.1/", "echo", "text=\udcff"], "Invalid value for parameters: expected UTF-8"),
        (["ws://127.0.0.1/", "echo", "--data", '"\udcff"'], "Invalid value for --data: expected UTF-8"),
        (["ws://127.0.0.1/", "echo", "--token", "\udcff"], "Invalid value for --token: expected UTF-8"),
        (["ws://127.0.0.1/", "echo", "action=7"], "action is a key of the protocol"),
        (["ws://127.0.0.1/", "echo", "a/", "route=7"], "route is a key of the protocol"),
        (["ws://127.0.0.1/", "echo", "request_id=7"], "request_id is a key of the protocol"),
        (["ws://127.0.0.1/", "echo", "--timeout", "nan"], "expected seconds, got nan"),
        (["ws://127.0.0.1/", "echo", "data={a"], "data: expected JSON, got '{a'"),
        (["ws://127.0.0.1/", "echo", "--data", "no"], "--data: expected JSON, got 'no'"),
        (["ws://127.0.0.1/", "echo", "--timeout", "0"], "Invalid value for '--timeout'"),
        (["ws://127.0.0.1/", "echo", "--token", "a/b="], "the token has characters that a sub-protocol cannot contain"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_invalid_or_closed_standard_input_exits_with_2(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("ws://127.0.0.1/", "echo", "--data", "-", input=b"\xff\xfe")
    assert (result.exit_code, "--data: expected JSON, got b'\\xff\\xfe'" in result.stderr) == (2, True)
    command = [sys.executable, "-m", "wsaction", "call", "ws://127.0.0.1/", "echo", "--data", "-"]
    closed = f"exec 0<&-; exec {shlex.join(command)}"
    done = subprocess.run(["sh", "-c", closed], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        "Error: --data - reads standard input, which is closed",
    )


def test_no_connection_and_no_reply_exit_with_3(url: str) -> None:
    result = run("ws://127.0.0.1:1/", "echo", "--json")
    assert result.exit_code == 3
    assert "wsaction: cannot connect to ws://127.0.0.1:1/" in result.stderr
    assert json.loads(result.stdout)["errors"][0]["type"] == "connection"
    result = run(url, "hang", "--timeout", "0.2")
    assert (result.exit_code, result.stderr) == (3, "wsaction: hang: no reply in 0.2 s\n")


def test_a_token_by_option_or_environment(serve: Callable[..., Server]) -> None:
    url = serve(guarded_app()).url("/ws/")
    assert run(url, "whoami", "--token", "good").stdout == '"ada"\n'
    assert run(url, "whoami", env={"WSACTION_TOKEN": "good"}).stdout == '"ada"\n'
    assert run(url, "whoami", "--token", "bad").exit_code == 3


@pytest.mark.parametrize(("path", "token", "code"), [("/nowhere/", "good", 4404), ("/ws/", "bad", 4401)])
def test_an_accepted_refusal_is_reported_as_a_refusal(
    serve: Callable[..., Server], path: str, token: str, code: int
) -> None:
    app = WSAction([pattern("ws/", Me.as_asgi())], accept_refused=True, authentication_classes=[Tokens])
    result = run(serve(app).url(path), "whoami", "--token", token)
    assert result.exit_code == 3
    assert "refused the connection" in result.stderr
    assert f"code {code}" in result.stderr
    assert "may have been carried out" not in result.stderr


async def test_the_events_of_a_route_over_a_lost_connection() -> None:
    async with scripted() as server:
        arguments = (server.url, "move", ROUTE, "to=3", "--subscribe", "--snapshot", "--limit", "3", "--json")
        running = asyncio.create_task(asyncio.to_thread(run, *arguments))
        peer = await server.accepted()
        request = await peer.frame("subscribe")
        await peer.reply(request, {"epoch": "e", "offset": 3, "recovered": None, "snapshot": [1]})
        request = await peer.frame("move")
        assert (request["route"], request["to"]) == (ROUTE, 3)
        await peer.event(4, "moved")
        await peer.reply(request, "done")
        peer.drop()
        peer = await server.accepted()
        await peer.reply(
            await peer.frame("subscribe"), {"epoch": "f", "offset": 9, "recovered": False, "snapshot": [2]}
        )
        await peer.event(10)
        await peer.frame("unsubscribe")
        result = await running
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        [
            "[1]",
            '"done"',
            '{"event":"moved","route":"boards/7/","data":"moved","offset":4}',
            '{"event":"$resync","position":{"epoch":"f","offset":9},"snapshot":[2]}',
            '{"event":"moved","route":"boards/7/","data":null,"offset":10}',
        ],
    )
    assert "the connection was lost (code 1006)" in result.stderr


async def test_the_action_subscribe_only_subscribes() -> None:
    async with scripted() as server:
        running = asyncio.create_task(asyncio.to_thread(run, server.url, "subscribe", ROUTE, "--limit", "1"))
        peer = await server.accepted()
        await peer.reply(await peer.frame("subscribe"), {"epoch": "e", "offset": 3, "recovered": None})
        await peer.event(4)
        await peer.frame("unsubscribe")
        assert json.loads((await running).stdout)["offset"] == 4


def test_ctrl_c_ends_it_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(work: Any) -> None:
        work.close()
        raise KeyboardInterrupt

    monkeypatch.setattr("asyncio.run", interrupted)
    assert run("ws://127.0.0.1/", "echo").exit_code == 130


def test_without_the_client_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("wsaction.client")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "websockets.asyncio.client", None)
    result = run("ws://127.0.0.1/", "echo")
    assert result.exit_code == 1
    assert "pip install 'wsaction[client]'" in result.stderr


def test_the_command_in_a_subprocess(url: str) -> None:
    command = [sys.executable, "-m", "wsaction", "call", url, "echo", "text=hello"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, '"hello"\n', "")
    text = run("--help").stdout
    assert "Exit codes: 0 success" in text
