"""The generated client, compiled by TypeScript and run by Node against real servers and a scripted server."""

import asyncio
import json
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support import boards
from tests.support.documents import GUIDE, blocks, load
from tests.support.kitchen_sink_app import everything, guarded
from tests.support.node import node
from tests.support.redis_servers import RedisServer, needs_redis_server
from tests.support.restarts import kept_port, listening, serving
from tests.support.scripted import WAIT, Peer, relayed, scripted
from tests.support.typescript import TYPESCRIPT, compiled
from wsaction.client import connect
from wsaction.codegen._typescript import typescript

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # npm may install packages first

HERE = Path(__file__).parent
BOARD = "boards/7/"


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """One backend, since Node is under test."""
    return str(request.param)


def generated() -> str:
    return typescript(boards.app.asyncapi(), "ws")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client of `tests.support.boards` and the scenarios, as JavaScript."""
    made = tmp_path_factory.mktemp("boards")
    user = "declare const process: { argv: string[] };\n" + (HERE / "codegen_scenarios.ts").read_text()
    done = compiled(made, boards=generated(), codegen_scenarios=user)
    assert done.returncode == 0, done.stdout
    return made


class Script:
    """A running scenario."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> Any:
        """The next line."""
        assert self._process.stdout is not None
        text = await asyncio.wait_for(self._process.stdout.readline(), WAIT)
        assert text, await self._errors()
        return json.loads(text)

    async def said(self, *wanted: Any) -> None:
        """Checks that these are the next lines."""
        assert [await self.line() for _ in wanted] == [*wanted]

    async def reach(self, *wanted: Any) -> None:
        """Reads lines until this one."""
        while await self.line() != [*wanted]:
            pass

    async def ended(self) -> list[Any]:
        """The remaining lines. Checks that the script ends without an error."""
        assert self._process.stdout is not None
        rest = await asyncio.wait_for(self._process.stdout.read(), WAIT)
        assert (await self._errors(), await asyncio.wait_for(self._process.wait(), WAIT)) == ("", 0)
        return [json.loads(line) for line in rest.splitlines()]

    async def _errors(self) -> str:
        assert self._process.stderr is not None
        text = (await asyncio.wait_for(self._process.stderr.read(), WAIT)).decode()
        kept = [
            line for line in text.splitlines() if "ExperimentalWarning" not in line and "trace-warnings" not in line
        ]
        return "\n".join(kept)


Play = Callable[[str, str], Any]


@pytest.fixture
def play(folder: Path) -> Play:
    """``async with play(url, scenario) as script``"""
    version = tuple(map(int, node("--version").stdout.lstrip("v").split(".")[:2]))
    flags = ["--experimental-websocket"] if (20, 10) <= version < (22, 0) else []

    @asynccontextmanager
    async def playing(url: str, scenario: str) -> AsyncIterator[Script]:
        process = await asyncio.create_subprocess_exec(
            "node", *flags, "codegen_scenarios.js", url, scenario, cwd=folder,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            yield Script(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    return playing


async def played(play: Play, url: str, scenario: str) -> list[Any]:
    async with play(url, scenario) as script:
        found: list[Any] = await script.ended()
        return found


# ------------------------------------------------------------------------------------------------ the compiler
def test_it_is_strict_typescript(tmp_path: Path) -> None:
    document = everything().asyncapi()
    texts = {
        f"client{number}": typescript(document, name)
        for number, name in enumerate(document["channels"])
        if name != "plain"
    }
    done = compiled(tmp_path, guarded=typescript(guarded().asyncapi(), "ws"), **texts)
    assert done.returncode == 0, done.stdout


LOOSE: dict[str, Any] = {"strict": False, "exactOptionalPropertyTypes": False}
PROJECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "not strict": (TYPESCRIPT, LOOSE),
    "implicit any": (TYPESCRIPT, {"strict": False, "strictNullChecks": True, "noImplicitAny": False}),
    "no null checks": (TYPESCRIPT, {**LOOSE, "strict": True, "strictNullChecks": False}),
    "properties that may be undefined": (TYPESCRIPT, {"exactOptionalPropertyTypes": False}),
    "unchecked indexes": (TYPESCRIPT, {"noUncheckedIndexedAccess": False}),
    "declarations": (TYPESCRIPT, {"declaration": True, "isolatedDeclarations": True}),
    "ES2020, as older templates of Vite have it": (TYPESCRIPT, {"target": "es2020", "lib": ["es2020", "dom"]}),
    "ESNext": (TYPESCRIPT, {"target": "esnext", "module": "esnext", "lib": ["esnext", "dom"]}),
    "fields as assigned": (TYPESCRIPT, {"useDefineForClassFields": False}),
    "decorators": (TYPESCRIPT, {"experimentalDecorators": True}),
    "Node 16": (TYPESCRIPT, {"module": "node16", "moduleResolution": "node16"}),
    "Node, next": (TYPESCRIPT, {"module": "nodenext", "moduleResolution": "nodenext"}),
    "preserved modules": (TYPESCRIPT, {"module": "preserve"}),
    "all returns": (TYPESCRIPT, {"noImplicitReturns": True, "noFallthroughCasesInSwitch": True}),
    "unreachable": (TYPESCRIPT, {"allowUnreachableCode": False, "allowUnusedLabels": False}),
    "imports as they come": (TYPESCRIPT, {"verbatimModuleSyntax": False, "isolatedModules": False}),
    "TypeScript 5.0": ("5.0.4", {"erasableSyntaxOnly": None}),
    "TypeScript 5.0, not strict": ("5.0.4", {**LOOSE, "erasableSyntaxOnly": None}),
    "TypeScript 5.5": ("5.5.4", {"erasableSyntaxOnly": None}),
    "TypeScript 5.9": ("5.9.3", {}),
}
USE = """
import { Client } from "./client.js";
import type { Card } from "./client.js";

export async function titles(): Promise<string[]> {
  const client = new Client("ws://127.0.0.1/ws/", { onState: (state) => console.log(state) });
  const cards = await client.cards.subscribe({ snapshot: true, query: { page: 1 } });
  const found: string[] = cards.snapshot.results.map((card: Card) => card.title);
  for await (const item of cards) {
    if (item.event === "created") found.push(item.data.title);
    if (item.event === "$resync") found.push(...item.snapshot.results.map((card) => card.title));
  }
  for await (const line of client.boards.count({ pk: 7 }, { to: 3 })) found.push(line);
  return found;
}
"""


@pytest.mark.parametrize("project", PROJECTS)
def test_it_compiles_in_every_kind_of_project(tmp_path: Path, project: str) -> None:
    version, options = PROJECTS[project]
    done = compiled(tmp_path, version, options, client=generated(), use=USE)
    assert (done.returncode, done.stdout) == (0, "")
    misspelt = USE.replace("query: { page: 1 }", "query: { page: 1, pgae: 1 }")
    done = compiled(tmp_path, version, options, use=misspelt)
    assert "'pgae'" in done.stdout


def test_what_is_wrong_is_a_type_error(tmp_path: Path) -> None:
    text = (HERE / "codegen_types.ts").read_text()
    assert text.count("@ts-expect-error") == 16
    done = compiled(tmp_path, boards=generated(), codegen_types=text)
    assert done.returncode == 0, done.stdout
    done = compiled(tmp_path, codegen_types=text.replace('card: "3"', "card: 3"))
    assert "Unused '@ts-expect-error' directive" in done.stdout


def test_an_example_compiles(tmp_path: Path) -> None:
    example = (HERE / "codegen_example.ts").read_text()
    used = "export { page };\n"  # the example does not use it
    done = compiled(tmp_path, client=generated(), example=example + used)
    assert done.returncode == 0, done.stdout


def test_the_page_of_the_chat_that_was_of_socketio(tmp_path: Path) -> None:
    chapter = GUIDE / "13-from-socketio-and-channels"
    (example,) = blocks(chapter / "README.md", "ts")
    document = load(chapter / "app.py").app.asyncapi()
    client = typescript(document, "ws")
    done = compiled(tmp_path, client=client, example=example.source)
    assert done.returncode == 0, done.stdout
    done = compiled(tmp_path, client=client, example=example.source.replace('{ text: "hello" }', "{ text: 7 }"))
    assert "Type 'number' is not assignable to type 'string'" in done.stdout


def test_what_the_explorer_copies_is_what_the_client_has(tmp_path: Path) -> None:
    document = boards.app.asyncapi()
    operations, messages = document["operations"], document["channels"]["ws"]["messages"]
    asked: list[tuple[str, dict[str, Any], Any]] = [
        ("ws.hello", {"action": "hello", "name": "Ada"}, {}),
        ("ws.hello", {"action": "hello"}, {}),
        ("ws.whisper", {"action": "whisper", "text": "a"}, {}),
        ("ws.cards.list", {"action": "list", "route": "cards/?page=2", "stream": False}, {}),
        ("ws.cards.list", {"action": "list", "route": "cards/", "stream": True}, {}),
        ("ws.cards.pk.update", {"action": "update", "route": "cards/1/", "data": {"title": "a"}}, {"pk": 1}),
        (
            "ws.cards.pk.subscribe",
            {"action": "subscribe", "route": "cards/1/", "snapshot": True, "since": None},
            {"pk": 1},
        ),
        ("ws.cards.subscribe", {"action": "subscribe", "route": "cards/"}, {}),
        ("ws.boards.pk.count", {"action": "count", "route": "boards/7/", "to": 3}, {"pk": 7}),
        ("ws.years.year.month.echo", {"action": "echo", "route": "years/2026/?a=1"}, {"year": "2026"}),
        ("ws.boards.pk.count", {"action": "count", "route": "boards/7/", "to": 3}, None),
        ("ws.hello", {"action": "hello", "odd-name": [1, {"a": None}]}, None),
        ("ws.ping", {"action": "$ping"}, {}),
    ]
    snippets = []
    for operation, frame, captures in asked:
        name = operations[operation]["messages"][0]["$ref"].rpartition("/")[2]
        snippets.append(
            ["ws://127.0.0.1/", frame, operations[operation]["x-wsaction"], messages[name]["payload"], captures]
        )
    script = (HERE.parents[1] / "wsaction" / "_server" / "explorer" / "snippets.js").read_text()
    script += f"console.log(JSON.stringify({json.dumps(snippets)}.map((one) => typescriptSnippet(...one))));"
    texts: list[str] = json.loads(node("-e", script).stdout)
    calls = [text.splitlines()[3] for text in texts]
    assert 'client.cards.list({ query: { page: "2" } })' in calls[3]
    assert "client.cards.listStream()" in calls[4]
    assert "client.cards.subscribe({ pk: 1 }, { snapshot: true })" in calls[6]
    assert 'client.$stream("count", "boards/7/", { to: 3 })' in calls[10]
    files = {f"snippet{number}": text for number, text in enumerate(texts)}
    done = compiled(tmp_path, client=generated(), **files)
    assert done.returncode == 0, done.stdout


def test_what_the_explorer_copies_as_python_is_what_the_python_client_has() -> None:
    facts = {name: one["x-wsaction"] for name, one in boards.app.asyncapi()["operations"].items()}
    asked: list[tuple[str, dict[str, Any], str]] = [
        ("ws.hello", {"action": "hello", "name": "Ada"}, 'client.call("hello", name="Ada")'),
        ("ws.hello", {"action": "hello", "timeout": None}, 'client.call("hello", params={"timeout": None})'),
        ("ws.hello", {"action": "hello", "class": True}, 'client.call("hello", params={"class": True})'),
        ("ws.hello", {"action": "hello", "a-b": [1]}, 'client.call("hello", params={"a-b": [1]})'),
        ("ws.boards.pk.count", {"action": "count", "route": "b/7/", "to": 3}, 'client.stream("count", "b/7/", to=3)'),
        (
            "ws.cards.list",
            {"action": "list", "route": "cards/", "stream": True},
            'client.stream("list", "cards/", stream=True)',
        ),
        ("ws.cards.subscribe", {"action": "subscribe", "route": "cards/"}, 'client.subscribe("cards/")'),
        (
            "ws.cards.subscribe",
            {"action": "subscribe", "route": "cards/", "snapshot": True, "since": {"epoch": "e", "offset": 3}},
            'client.subscribe("cards/", since=Position("e", 3), snapshot=True)',
        ),
    ]
    snippets = [["ws://127.0.0.1/", frame, facts[operation]] for operation, frame, _ in asked]
    script = (HERE.parents[1] / "wsaction" / "_server" / "explorer" / "snippets.js").read_text()
    script += f"console.log(JSON.stringify({json.dumps(snippets)}.map((one) => pythonSnippet(...one))));"
    for (_, _, wanted), text in zip(asked, json.loads(node("-e", script).stdout), strict=True):
        assert wanted in text
        code = compile(text, "snippet", "exec")
        assert ("Position" in code.co_names) == ("Position(" in text)


# ------------------------------------------------------------------------------------------------ a real server
async def test_calls(play: Play, serve: Callable[..., Server]) -> None:
    url = serve(boards.app).url("/ws/")
    found = await played(play, url, "calls")
    assert found[:5] == [
        ["connecting", "Hello you", "Hello Ada", "open"],
        [2, ["one"]],
        [{"id": 3, "title": "three", "done": False}, {"id": 3, "title": "three", "done": True}],
        [None],
        [True, True, True, "NotFound", "404 not_found: Not found. (retrieve cards/99/)"],
    ]
    assert found[5:7] == [[1.5, False], [[400, ["data", "title"], "string_type"]]]
    assert [one[0] for one in found[7]] == ["ActionNotAllowed", "RouteNotFound"]
    assert found[8][0] == ["TypeError", "action is the protocol's own key, not a parameter of hello"]
    assert found[9:] == [["closed", *[["ConnectionFailed", "the client is closed"]] * 2]]


async def test_routes(play: Play, serve: Callable[..., Server]) -> None:
    found = await played(play, serve(boards.app).url("/ws/"), "routes")
    key = "6f1b2c3d-0000-4000-8000-00000000000a"
    assert found[0] == [
        {
            "route": f"echo/a-b/{key}/x/ü z?a=x%20y%26z%3D%C3%A9&b=true&e=1.5",
            "query": {"a": "x y&z=é", "b": "true", "e": "1.5"},
            "slug": "a-b",
            "key": key,
            "rest": "x/ü z",
        }
    ]
    assert [one["route"] for one in found[1]] == ["years/2026/", "years/2026/7/"]
    assert found[2] == [{"route": "b?q=1", "query": {"q": "1"}}]
    assert found[3] == [{"route": "c?q=1&r=2", "query": {"q": "1", "r": "2"}}]
    assert all(name == "InvalidRoute" for ((name, _),) in found[4:14])
    assert found[4] == [["InvalidRoute", 'slug: expected what ^[-a-zA-Z0-9_]+$ matches, got "a/b"']]
    assert found[8] == [["InvalidRoute", "echo/{slug}/{key}/{rest} has no form with only slug, key"]]
    assert found[9] == [["InvalidRoute", "pk: expected int, got -1"]]
    assert found[14] == ["wss://example.com/ws/", "wss://example.com/root/ws/"]


async def test_streams(play: Play, serve: Callable[..., Server]) -> None:
    found = await played(play, serve(boards.app).url("/ws/"), "streams")
    assert found[:2] == [[["0", "1", "2"], ["0", "1"]], [[2]]]
    assert [told[0] for (told,) in found[2:5]] == ["AbortError"] * 3
    assert found[5:8] == [
        [["CallTimeout", "slow boards/1/: no reply within 0.05 s"]],
        [False, "Hello you"],
        [["Error", "enough"]],
    ]
    assert found[8:] == [["overflow"]]


async def test_events(play: Play, serve: Callable[..., Server]) -> None:
    found = await played(play, serve(boards.app).url("/ws/"), "events")
    assert found[0] == [2, None, None, "cards/1/", False]
    assert found[1] == ["no error"]
    assert found[2] == ["updated", "uno", 1, 1]
    assert found[3:7] == [
        ["uno"],
        ["$resync", {"card": 3, "to": "done"}],
        ["whispered", "psst"],
        [None, ["InvalidRoute", "pk: expected int, got -1"]],
    ]
    assert found[7][0] is True
    assert found[7][1][0] == "AbortError"
    assert found[8:] == [[True], ["end"]]


async def test_a_burst_of_sends_and_calls_all_runs(play: Play, serve: Callable[..., Server]) -> None:
    assert await played(play, serve(boards.app).url("/ws/"), "burst") == [[1_000]]


async def test_subscriptions_of_one_route_are_shared(play: Play, serve: Callable[..., Server]) -> None:
    found = await played(play, serve(boards.app).url("/ws/"), "shared")
    assert found == [
        ["AbortError", "live", "live", "boards/7/", True],
        ["moved"],
        ["moved"],
        ["moved"],
        [["closed"], True],
        [{"card": 2, "to": "done"}],
        [{"card": 2, "to": "done"}],
        [{"card": 4, "to": "done"}],
        ["whispered", ["connecting", "open"]],
        [["connecting", "open"]],
    ]


async def test_shared_ones_come_back_together_and_a_slow_one_catches_up_alone(
    play: Play, serve: Callable[..., Server]
) -> None:
    server = serve(boards.app)
    async with (
        relayed(server.port) as relay,
        connect(server.url("/ws/"), proxy=None) as publisher,
        play(relay.url("/ws/"), "sharing") as script,
    ):
        found = [await script.line()]
        while found[-1] != ["subscribed"]:
            found.append(await script.line())
        for number in range(1, 61):
            await publisher.call("move", BOARD, data={"card": number, "to": "stop" if number == 60 else "done"})
            if number % 20 == 0 and number < 60:
                relay.cut()
                relay.is_open = True
        found += await script.ended()
    assert [one[1] for one in found if one[0] == "fast"] == [*range(1, 61)]
    assert [one[1] for one in found if one[0] == "slow"] == [*range(1, 61)]


async def test_what_is_refused_for_lack_of_room_is_sent_again(play: Play) -> None:
    full = {"type": "busy", "msg": ".", "ctx": {"limit": "max_queued_actions", "value": 2}}
    running = {"type": "duplicate_request_id", "msg": "."}
    async with scripted() as server, play(server.url, "busy") as script:
        peer = await server.accepted()
        first = [await peer.frame("hello") for _ in range(3)]
        await peer.reply(first[2], None, 503, full)
        await peer.reply(first[0], "a")
        await peer.reply(first[1], "b")
        again = [await peer.frame("hello") for _ in range(2)]
        assert [frame["name"] for frame in again] == ["c", "d"]
        for frame in again:
            await peer.reply(frame, frame["name"])
        assert await script.line() == [["a", "b", "c", "d"]]
        sent = await peer.frame("whisper")
        for status, errors in ((409, [running]), (200, [])):
            probe = await peer.frame("$ping")
            assert probe["request_id"] == sent["request_id"]
            await peer.reply(probe, None, status, *errors)
        assert await script.line() == ["flushed"]
        await peer.frame("whisper")
        await peer.frame("$ping")
        peer.drop()
        lines = [await script.line(), await script.line()]
        assert lines[0][0] == "sends that may have run before the connection was lost: 1"
        assert lines[1][0][0] == "ConnectionLost"
        peer = await server.accepted()
        assert [(await peer.frame("hello"))["name"] for _ in range(2)] == ["1", "2"]
        assert (await peer.frame())["action"] == "$cancel"  # it keeps the limit of two in flight
        assert (await script.ended())[0][0][0] == "CallTimeout"


async def test_events_of_a_route_that_is_written_otherwise(play: Play, serve: Callable[..., Server]) -> None:
    found = await played(play, serve(boards.app).url("/ws/"), "events_of_a_route_that_is_written_otherwise")
    assert found == [["boards/7/", "moved", "boards/7/"], ["AbortError"], ["moved"]]


async def test_the_package_ws(play: Play, serve: Callable[..., Server]) -> None:
    assert await played(play, serve(boards.app).url("/ws/"), "package") == [["Hello ws"]]


# ------------------------------------------------------------------------------------------------ killed and started
@needs_redis_server
async def test_a_server_that_is_killed_and_started_again_costs_no_event(play: Play, tmp_path: Path) -> None:
    ports = kept_port(), kept_port()
    redis = RedisServer(tmp_path)
    redis.start()
    try:
        with serving(ports[0], redis.url) as first, serving(ports[1], redis.url):
            for port in ports:
                await listening(port)
            async with connect(f"ws://127.0.0.1:{ports[1]}/ws/", proxy=None) as publisher:

                async def publish(*numbers: int) -> None:
                    for number in numbers:
                        await publisher.call("move", BOARD, data={"card": number})

                async with play(f"ws://127.0.0.1:{ports[0]}/ws/", "follow") as script:
                    await script.said(["state", "connecting"], ["state", "open"], ["subscribed"])
                    await publish(1, 2)
                    await script.said(*(["moved", {"card": number, "to": "done"}] for number in (1, 2)))
                    first.send_signal(signal.SIGKILL)
                    await script.said(["state", "waiting"])
                    await publish(*range(3, 40))
                    with serving(ports[0], redis.url):
                        states = [await script.line()]
                        while states[-1] != ["state", "open"]:
                            states.append(await script.line())
                        await publish(40)
                        await publisher.call("move", BOARD, data={"card": 41, "to": "stop"})
                        found = await script.ended()
        told = [data["card"] for event, data in found if event == "moved"]
        assert (told, found[-1]) == ([*range(3, 42)], ["state", "closed"])
        assert not [one for one in found if one[0] == "$resync"]
    finally:
        redis.kill()


async def test_a_connection_that_is_cut_again_and_again_costs_no_event(
    play: Play, serve: Callable[..., Server]
) -> None:
    server = serve(boards.app)
    async with (
        relayed(server.port) as relay,
        connect(server.url("/ws/"), proxy=None) as publisher,
        play(relay.url("/ws/"), "follow") as script,
    ):
        found = [await script.line()]
        while found[-1] != ["subscribed"]:
            found.append(await script.line())
        number, chance = 0, random.Random(7)  # the same cuts in each run
        for _ in range(20):
            for _ in range(chance.randrange(10)):
                number += 1
                await publisher.call("move", BOARD, data={"card": number})
                await asyncio.sleep(0)
            relay.cut()
            for _ in range(chance.randrange(10)):
                number += 1
                await publisher.call("move", BOARD, data={"card": number})
            relay.is_open = True
            for state in ("waiting", "open"):
                while found[-1] != ["state", state]:
                    found.append(await script.line())
            if chance.random() < 0.5:  # else the connection is cut before any message
                found.append(await script.line())
        await publisher.call("move", BOARD, data={"card": 0, "to": "stop"})
        found += await script.ended()
    assert [data["card"] for told, data in (one for one in found if len(one) == 2) if told == "moved"] == [
        *range(1, number + 1),
        0,
    ]
    assert [one for one in found if one[0] == "$resync"] == []
    assert found.count(["state", "open"]) == 21


# ------------------------------------------------------------------------------------------------ a scripted server
async def test_a_call_under_way_is_lost_and_never_sent_again(play: Play) -> None:
    async with scripted() as server, play(server.url, "lost") as script:
        peer = await server.accepted()
        assert (await peer.frame("hello"))["name"] == "lost"
        peer.drop()
        peer = await server.accepted()
        asked = await peer.frame("hello")
        assert asked["name"] == "again"
        await peer.reply(asked, "here")
        await script.said(["state", "connecting"], ["state", "open"])
        rest = await script.ended()
        assert rest[0][0][0] == "ConnectionLost"
        assert "code 1006" in rest[0][0][1]
        assert [one for one in rest if one[0] != "state"] == [rest[0], ["here"]]
        assert [state for told, state in rest[1:-2] if told == "state"] == ["waiting", "connecting", "open"]


async def test_it_wakes_up_with_the_network_and_the_page(play: Play) -> None:
    async with scripted() as server, play(server.url, "woken") as script:
        peer = await server.accepted()
        await peer.reply(await peer.frame("hello"), "hi")
        for _ in range(2):
            assert "dropped" in (await peer.frame("hello"))["name"]
            peer.drop()
            peer = await server.accepted()  # though the wait is 900 s
        await peer.reply(await peer.frame("hello"), "here")
        await peer.reply(await peer.frame("$ping"))
        await peer.reply(await peer.frame("hello"), "still here")
        assert [(await peer.frame())["action"] for _ in range(2)] == ["$ping", "hello"]
        peer = await server.accepted()  # after 3 s without an answer
        await peer.reply(await peer.frame("hello"), "back")
        found = await script.ended()
        states = [one for one in found if one[0] in ("state", "still")]
        open_, waits = [["state", "connecting"], ["state", "open"]], ["state", "waiting"]
        assert states == [*open_, waits, *open_, waits, ["still", "waiting"], *open_, *open_, ["state", "closed"]]
        lines = [one for one in found if one not in states]
        assert [lines[0], *lines[2:4]] == [["hi"], ["here", 2], ["still here"]]
        assert [name for name, _ in [*lines[1], lines[4][0]]] == ["ConnectionLost"] * 3
        assert "no answer to a ping within 3 s" in lines[4][0][1]
        assert [lines[4][1], lines[5]] == ["back", [0]]


async def test_a_no_is_final(play: Play) -> None:
    async with scripted() as server, play(server.url, "refused") as script:
        peer = await server.accepted()
        await peer.close(4403, "kicked")
        found = await script.ended()
        assert server.count == 1
        assert [one for one in found if one[0] == "state"][-1] == ["state", "closed"]  # it does not reconnect


async def test_a_refused_token_is_a_failure_from_the_first_call_on(play: Play) -> None:
    async with scripted(greets=False) as server, play(server.url, "renewed") as script:
        offered = []
        for _ in range(2):  # a function may return another token, so there is one more attempt
            peer = await server.accepted()
            offered.append(peer.socket.request.headers["Sec-WebSocket-Protocol"])
            assert (await peer.frame())["action"] == "$ping"  # no call is sent before this reply
            await peer.close(4401, "bad")
        found = await script.ended()
        assert offered == ["wsaction.v1, bearer.token-1", "wsaction.v1, bearer.token-2"]
        errors = [one[0] for one in found if one[0] != "state"]
        assert [name for name, _ in errors] == ["ConnectionFailed"] * 4
        assert all('closed the connection: code 4401, "bad"' in message for _, message in errors)


async def test_pushes_before_the_first_answer_reach_early_listeners(play: Play) -> None:
    async with scripted(greets=False) as server, play(server.url, "welcomed") as script:
        peer = await server.accepted()
        asked = await peer.frame("$ping")
        await peer.event(None, "hello", route="", event="welcome")
        await peer.reply(asked)
        await peer.event(None, "again", route="", event="more")
        assert await script.ended() == [["welcome", "more"]]


async def test_tokens_that_expire_are_renewed_again_and_again(play: Play) -> None:
    async with scripted() as server, play(server.url, "expiring") as script:
        for number in range(1, 5):
            peer = await server.accepted()
            assert f"bearer.token-{number}" in peer.socket.request.headers["Sec-WebSocket-Protocol"]
            await peer.close(4401, "the credential has expired")
        peer = await server.accepted()
        await peer.reply(await peer.frame("hello"), "hi")
        assert (await script.ended())[-2:] == [["hi", 5], ["state", "closed"]]


async def test_refusals_with_a_connection_that_was_let_in_between_are_not_in_a_row(play: Play) -> None:
    async with scripted() as server, play(server.url, "expiring") as script:
        for number in (2, 4, 6):
            peer = await server.accepted()
            await script.reach("state", "open")  # it has read the reply to `$ping`, so the drop
            server.greets = False  # ends a connection that was let in
            peer.drop()
            peer = await server.accepted()
            assert f"bearer.token-{number}" in peer.socket.request.headers["Sec-WebSocket-Protocol"]
            server.greets = True
            await peer.close(4401, "This token is not valid.")
        peer = await server.accepted()
        await peer.reply(await peer.frame("hello"), "hi")
        assert (await script.ended())[-2:] == [["hi", 7], ["state", "closed"]]


async def test_a_token_that_no_subprotocol_can_hold(play: Play) -> None:
    found = await played(play, "ws://127.0.0.1:1/", "badToken")
    assert found[-1][0] == [
        "ConnectionFailed",
        "the token has characters that a subprotocol cannot carry, such as = and /; use auth",
    ]


async def test_it_says_who_it_is_first_and_again_at_half_time(play: Play) -> None:
    async with scripted() as server, play(server.url, "introduced") as script:
        peer = await server.accepted()
        asked = await peer.frame("$auth")
        assert asked["data"] == {"code": 1}
        await peer.reply(asked, {"expires_at": time.time() + 1})
        hello = await peer.frame("hello")
        again = await peer.frame("$auth")
        assert again["data"] == {"code": 2}
        await peer.reply(again, {"expires_at": None})
        await peer.reply(hello, "hi")
        assert ["hi"] in await script.ended()


async def test_a_client_whose_clock_is_ahead_says_who_it_is_less_and_less_often(play: Play) -> None:
    async with scripted() as server, play(server.url, "introduced") as script:
        peer = await server.accepted()
        await peer.reply(await peer.frame("$auth"), {"expires_at": time.time() - 600})
        began, hello = time.monotonic(), await peer.frame("hello")
        for _ in range(2):
            await peer.reply(await peer.frame("$auth"), {"expires_at": time.time() - 600})
        assert time.monotonic() - began > 1.2  # 0.5 and 1 s
        await peer.reply(hello, "hi")
        assert ["hi"] in await script.ended()


async def test_an_auth_that_is_refused_is_final(play: Play) -> None:
    async with scripted() as server, play(server.url, "introduced") as script:
        for _ in range(2):  # a function may return other data, so there is one more attempt
            peer = await server.accepted()
            asked = await peer.frame("$auth")
            await peer.reply(asked, None, 401, {"type": "not_authenticated", "msg": "No."})
        with pytest.raises(AssertionError, match="refused"):  # the scenario does not catch it
            await script.ended()
        assert server.count == 2


async def test_nobody_there(play: Play) -> None:
    found = await played(play, "ws://127.0.0.1:1/", "unreachable")
    assert found[0][0][0] == "CallTimeout"
    assert found[0][0][1].startswith("hello: no reply within 0.3 s: cannot connect to ws://127.0.0.1:1/ (code 1006")
    assert found[1] == [10_000, ["Overflow", "10000 requests wait to be sent; await some of them before asking more"]]
    assert found[2][0][0] == "ConnectionFailed"


async def test_a_server_that_is_silent_is_given_up(play: Play) -> None:
    async with scripted() as server, play(server.url, "silent") as script:
        peer = await server.accepted()
        await peer.frame("hello")
        await peer.frame("$ping")
        peer = await server.accepted()
        await peer.reply(await peer.frame("hello"), "there")
        found = await script.ended()
        assert [one for one in found if one[0] != "state"][1:] == [["there"]]
        assert "no answer to a ping within 0.2 s" in str(found)


def place(offset: int, epoch: str = "e") -> dict[str, Any]:
    return {"epoch": epoch, "offset": offset}


def moved(card: int, to: str = "done") -> dict[str, Any]:
    return {"card": card, "to": to}


async def joined(peer: Peer, **data: Any) -> dict[str, Any]:
    """Answers the next `subscribe` of the board. Returns its frame."""
    asked = await peer.frame("subscribe")
    assert asked["route"] == BOARD
    await peer.reply(asked, {"recovered": None, **data})
    return asked


async def test_a_subscription_comes_back_with_its_position(play: Play) -> None:
    async with scripted() as server, play(server.url, "recover") as script:
        peer = await server.accepted()
        asked = await joined(peer, **place(3), snapshot=["a"])
        assert (asked["snapshot"], "since" in asked) == (True, False)
        await script.said(["state", "connecting"], ["state", "open"], ["snapshot", ["a"], place(3)])
        await peer.event(4, moved(4))
        await peer.event(4, moved(4))  # a duplicate
        await script.said(["moved", moved(4), place(4)])
        await peer.event(None, place(6), event="$position")
        await peer.event(7, moved(7))
        await script.said(["moved", moved(7), place(7)])
        peer.drop()
        peer = await server.accepted()
        asked = await joined(peer, **place(7), recovered=True)
        assert asked["since"] == place(7)
        await peer.event(8, moved(8))
        await script.said(
            ["state", "waiting"], ["state", "connecting"], ["state", "open"], ["moved", moved(8), place(8)]
        )
        await peer.event(None, place(20, "f"), event="$resync")
        asked = await joined(peer, **place(20, "f"), snapshot=["b"])
        assert "since" not in asked
        await script.said(["$resync", ["b"], place(20, "f")])
        peer.drop()
        peer = await server.accepted()
        await joined(peer, **place(2, "g"), recovered=False, snapshot=["c"])
        await peer.event(3, moved(3, "stop"))
        await script.said(["state", "waiting"], ["state", "connecting"], ["state", "open"])
        await script.said(["$resync", ["c"], place(2, "g")], ["moved", moved(3, "stop"), place(3, "g")])
        await peer.frame("unsubscribe")
        assert await script.ended() == [["state", "closed"]]


async def test_what_does_not_fit_is_asked_for_again(play: Play) -> None:
    async with scripted() as server, play(server.url, "behind") as script:
        peer = await server.accepted()
        await joined(peer, **place(0))
        hello = await peer.frame("hello")
        for number in range(1, 10):
            await peer.event(number, moved(number))
        await peer.reply(hello, "hi")
        asked = await peer.frame("subscribe")
        since = asked["since"]["offset"]
        assert 0 < since < 9
        await peer.reply(asked, {**place(since), "recovered": True})
        for number in range(since + 1, 10):
            await peer.event(number, moved(number))
            if (number - since) % 2 == 0:  # no faster than the client reads
                await peer.socket.ping()
        told = [await script.line() for _ in range(3 + since)]
        assert [one[0]["card"] for one in told[3:]] == [*range(1, since + 1)]
        await peer.event(10, moved(10, "stop"))
        rest = []
        while True:
            line = await script.line()
            rest.append(line[0]["card"])
            if line[0]["to"] == "stop":
                break
        assert rest == [*range(since + 1, 11)]
        await peer.frame("unsubscribe")
        await script.ended()


async def test_who_may_not_is_told_and_may_ask_again(play: Play) -> None:
    no = {"type": "permission_denied", "msg": "No."}
    async with scripted() as server, play(server.url, "denied") as script:
        peer = await server.accepted()
        await peer.reply(await peer.frame("subscribe"), None, 403, no)
        await joined(peer, **place(1))
        await script.said(["state", "connecting"], ["state", "open"])
        await script.said([["PermissionDenied", "403 permission_denied: No. (subscribe boards/7/)"]], ["subscribed"])
        peer.drop()
        peer = await server.accepted()
        busy = {"type": "busy", "msg": "Later."}
        await peer.reply(await peer.frame("subscribe"), None, 503, busy)
        await peer.reply(await peer.frame("subscribe"), None, 403, no)
        asked = await joined(peer, **place(5))
        assert "since" not in asked
        rest = await script.ended()
        assert rest[-3:-1] == [[["PermissionDenied", "403 permission_denied: No. (subscribe boards/7/)"]], [place(5)]]


async def test_who_may_not_any_more_is_told_behind_what_came_before(play: Play) -> None:
    async with scripted() as server, play(server.url, "withdrawn") as script:
        peer = await server.accepted()
        await joined(peer, **place(1))
        await peer.event(2, moved(2))
        await peer.say(event="$unsubscribed", route=BOARD, data={"reason": "permission_denied"})
        await script.said(["state", "connecting"], ["state", "open"], ["moved"])
        lost = "403 permission_denied: The permission for this subscription was withdrawn. (subscribe boards/7/)"
        await script.said([["PermissionDenied", lost]])
        assert "since" not in await joined(peer, **place(5))  # and no `unsubscribe` was sent
        assert await script.ended() == [[place(5)], ["state", "closed"]]
