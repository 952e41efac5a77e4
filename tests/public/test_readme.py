"""The Python examples of the README run unchanged and do what the text says."""

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from prometheus_client import REGISTRY

from tests.conftest import Server
from tests.support.readme_blocks import BLOCKS, README, block
from tests.support.scripted import client_at, scripted
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.routing import path
from wsaction.testing import connect


class User:
    is_authenticated, is_staff = True, False

    def __init__(self, pk: int = 1) -> None:
        self.pk = self.id = pk


@pytest.mark.parametrize("source", BLOCKS, ids=lambda source: source.splitlines()[0])
def test_every_block_runs(source: str) -> None:
    assert block(source)


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


async def test_the_permissions_example() -> None:
    app = WSAction([path("tickets/<int:pk>/", block("class TicketHandler")["TicketHandler"].as_aaah())])

    async def answer(action: str, **who: Any) -> tuple[int, str | None]:
        async with connect(app, "/tickets/1/", **who) as ws:
            reply = await ws.call(action)
            return reply["status"], reply["errors"][0]["msg"] if reply["errors"] else None

    owner, staff, other = User(7), User(8), User(9)
    staff.is_staff = True
    for action in ("retrieve", "close", "reopen"):
        assert (await answer(action))[0] == 403
        assert (await answer(action, user=other))[0] == 403
    assert await answer("close", user=owner) == (200, None)
    assert await answer("close", user=staff) == (409, "This ticket is closed.")
    assert await answer("reopen", user=owner) == (403, "Only staff may do this.")
    assert await answer("reopen", user=staff) == (200, None)
    assert await answer("close", user=owner) == (200, None)


async def test_the_throttling_example() -> None:
    app = WSAction([path("ws/", block("class Invitations")["Invitations"].as_asgi())])
    async with connect(app, "/ws/", user=User(object())) as ws:  # a new user for each run, with a bucket of their own
        assert [(await ws.call("invite", name=name))["status"] for name in ("ada", "grace")] == [200, 200]
        (error,) = (await ws.call("invite", name="alan"))["errors"]
        assert error["type"] == "throttled"
        assert 25 < error["ctx"]["retry_after"] <= 30


async def test_the_data_example() -> None:
    app = WSAction([path("ws/", block("class TaskHandler")["Tasks"].as_asgi())])
    async with connect(app, "/ws/", user=User()) as ws, connect(app, "/ws/", user=User(2)) as other:
        made = await ws.call("create", "tasks/", data={"title": "Milk", "pin": "1234", "owner_id": 2})
        assert (made["status"], made["data"]) == (
            201,
            {"id": 1, "owner_id": 1, "title": "Milk", "notes": None, "done": False},
        )
        assert (await ws.call("create", "tasks/", data={"title": "Milk"}))["status"] == 409
        assert (await ws.call("list", "tasks/?done=false&search=milk&ordering=-done,title"))["data"] == {
            "count": 1,
            "next": None,
            "previous": None,
            "results": [made["data"]],
        }
        assert (await ws.call("list", "tasks/?page=4&page_size=20"))["status"] == 404
        assert (await ws.call("list", "tasks/?colour=red"))["status"] == 400
        assert (await ws.call("partial_update", "tasks/1/", data={"notes": None}))["data"] == made["data"]
        assert (await ws.call("finish", "tasks/1/"))["data"] == {**made["data"], "done": True}
        assert (await other.call("retrieve", "tasks/1/"))["status"] == 404
        assert (await ws.call("destroy", "tasks/1/"))["status"] == 204


@pytest.mark.parametrize(
    ("app", "at"), [("site", "/rooms/kitchen/"), ("site", "/room/kitchen"), ("api", "/rooms/kitchen/")]
)
async def test_embedding(app: str, at: str) -> None:
    async with connect(block("class Room")[app], at, origin="http://testserver") as ws:
        assert (await ws.call("where"))["data"] == "kitchen"


async def test_authentication() -> None:
    defined = block("class TokenAuthentication")
    app, claims = defined["app"], {"sub": "ada", "exp": time.time() + 60}
    token = jwt.encode(claims, defined["KEY"], "HS256")
    forged = jwt.encode(claims, "another key, of 32 bytes as well", "HS256")
    endless = jwt.encode({"sub": "ada"}, defined["KEY"], "HS256")
    async with connect(app, "/ws/", subprotocols=["wsaction.v1", f"bearer.{token}"]) as ws:
        assert ws.subprotocol == "wsaction.v1"
        assert (await ws.call("whoami"))["data"] == "ada"
    async with connect(app, "/ws/") as ws:
        assert (await ws.call("whoami"))["status"] == 401
        for bad in ("another", forged, endless):
            assert (await ws.call("$auth", data=bad))["status"] == 401
        assert (await ws.call("$auth", data=token))["status"] == 200
        assert (await ws.call("whoami"))["data"] == "ada"


async def test_dependencies() -> None:
    defined = block("class Boards")
    app = defined["app"]
    async with connect(app, "/ws/") as ws:
        assert (await ws.call("rename", pk=1, title="Ideas"))["data"] == "Plans is now Ideas"
        assert (await ws.call("rename", pk=1, title="Plans"))["data"] == "Ideas is now Plans"
        assert (await ws.call("rename", pk=3, title="More"))["errors"][0]["type"] == "not_found"
        assert [error["loc"] for error in (await ws.call("rename", pk="x"))["errors"]] == [["pk"], ["title"]]
        app.dependency_overrides[defined["transaction"]] = lambda: {7: "Test"}
        assert (await ws.call("rename", pk=7, title="More"))["data"] == "Test is now More"
    assert defined["ROWS"] == {1: "Plans", 2: "Done"}


async def test_the_hooks_example() -> None:
    defined = block("import Prometheus")
    consumer = {"consumer": "Cards"}
    async with connect(defined["app"], "/ws/") as ws:
        assert (await ws.call("title", pk=1))["data"] == "READ THE README"
        reply = await ws.call("title", pk=2)
        assert (reply["status"], reply["errors"][0]["msg"]) == (404, "No card 2.")
        assert REGISTRY.get_sample_value("wsaction_connections", consumer) == 1
    assert REGISTRY.get_sample_value("wsaction_connections", consumer) == 0
    labels = {"handler": "Cards", "action": "title", "status": "404"}
    assert (REGISTRY.get_sample_value("wsaction_action_seconds_sum", labels) or 0) > 0


async def test_sqlalchemy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = block("class BookHandler")
    engine, books = names["sessions"].kw["bind"], names["books"]
    async with engine.begin() as connection:
        await connection.run_sync(names["Base"].metadata.create_all)
    for title in ("Notes", "Sketches"):
        await books.create({"title": title, "author": names["Author"](name="Ada L.")})
    assert [(book.title, book.author.name) async for book in names["adas"]] == [("Sketches", "Ada L.")]
    app = WSAction([path("books/<int:pk>/", names["BookHandler"].as_aaah())])
    async with connect(app, "/books/1/") as ws:
        assert (await ws.call("sell", copies=3))["status"] == 200
        assert (await ws.call("sell", copies=4))["status"] == 200
        assert (await ws.call("retrieve"))["data"] == {"id": 1, "title": "Notes", "sold": 7, "author_id": 1}
        assert (await ws.call("partial_update", data={"title": "Sketches"}))["errors"][0]["ctx"] == {
            "fields": ["title"]
        }
    await engine.dispose()


async def test_the_client(serve: Callable[..., Server]) -> None:
    from examples.quickstart import app

    defined = block("async def look")
    card, error = await defined["look"](serve(app).url("/ws/"))
    assert (card, error) == (defined["Card"](id=1, title="Read the README"), "not_found")
    shown: asyncio.Queue[Any] = asyncio.Queue()
    async with scripted() as server, client_at(server) as (client, peer):
        following = asyncio.create_task(defined["follow"](client, shown.put_nowait))
        await peer.reply(await peer.frame("subscribe"), {"epoch": "e", "offset": 1, "snapshot": ["all"]})
        await peer.event(2, 2)
        await peer.say(event="$resync", route="boards/7/", data={"epoch": "f", "offset": 1})
        await peer.reply(await peer.frame("subscribe"), {"epoch": "f", "offset": 3, "snapshot": ["new"]})
        async with asyncio.timeout(10):
            assert [await shown.get() for _ in range(3)] == [["all"], ("moved", 2), ["new"]]
        following.cancel()


def test_the_document_of_an_app() -> None:
    document = block("class Prices")["document"]
    assert document["info"] == {"title": "Prices", "version": "1.0", "description": "Shares and what they cost."}
    assert document["operations"]["ws.quote"]["summary"] == "What one share costs now."
    assert set(document["components"]["schemas"]) >= {"Price"}


async def test_the_chat() -> None:
    chat = block("class ChatRoom")["chat"]
    async with connect(chat, "/ws/", user=User(7)) as first, connect(chat, "/ws/") as second:
        at = (await first.call("subscribe", "rooms/tea/"))["data"]
        assert (await first.event("join"))["data"] == {"user": "7"}
        await second.call("say", "rooms/tea/", text="hello")
        event = await first.event("said")
        assert event["data"] == {"author": "somebody", "text": "hello"}
        assert (await second.call("presence", "rooms/tea/"))["data"] == {"7": 1}
        back = await second.call("subscribe", "rooms/tea/", since={**at, "offset": event["offset"] - 1})
        assert back["data"]["recovered"] is True
        assert await second.event() == event


async def test_the_live_list() -> None:
    notes = block("class NoteHandler")["notes"]
    async with connect(notes, "/ws/", user=User(1)) as first, connect(notes, "/ws/", user=User(2)) as second:
        for ws in (first, second):
            assert (await ws.call("subscribe", "notes/", snapshot=True))["data"]["snapshot"]["results"] == []
        assert (await first.call("create", "notes/", {"owner_id": 1, "text": "a"}))["status"] == 201
        assert (await first.call("partial_update", "notes/1/", {"owner_id": 2}))["status"] == 200
        assert [(await first.event())["event"] for _ in range(2)] == ["created", "deleted"]
        assert (await second.event())["event"] == "created"
        await second.nothing()


async def test_testing_an_app() -> None:
    test: Callable[[], Any] = block("class Counter")["test_adding"]
    await asyncio.wait_for(test(), 10)


async def test_the_frames_at_the_top_match_the_quickstart() -> None:
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


def test_the_table_of_limits_matches_the_code() -> None:
    from dataclasses import fields

    from wsaction.limits import Limits

    documented = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+)", README, re.MULTILINE))
    assert {name: float(value.replace(",", "")) for name, value in documented.items()} == {
        field.name: float(getattr(Limits(), field.name)) for field in fields(Limits)
    }


async def test_the_migration_examples() -> None:
    app = WSAction([path("ws/", block("class BoardConsumer(")["BoardConsumer"].as_asgi())])
    async with connect(app, "/ws/", user=User()) as ws:
        assert (await ws.call("archive", "cards/1/"))["data"] == {"archived": True}
        assert (await ws.call("retrieve", "cards/1/"))["data"] == {"id": 1, "title": "Move", "archived": True}
    app = WSAction([path("ws/", block("class Streams(")["Streams"].as_asgi())])
    async with connect(app, "/ws/") as ws:
        for payload in ({"action": "subscribe_instance"}, {"action": "archive"}):
            await ws.send_json({"stream": "cards", "payload": {**payload, "pk": 1, "request_id": payload["action"]}})
        payloads = [(await ws.receive_json())["payload"] for _ in range(3)]
        assert [(payload["action"], payload["response_status"], payload["data"]) for payload in payloads] == [
            ("subscribe_instance", 201, None),
            ("update", 200, {"id": 1, "title": "Move", "archived": True}),
            ("archive", 200, {"archived": True}),
        ]


def test_named_modules_and_tests_exist() -> None:
    root = Path(__file__).parents[2]
    house = (root / "wsaction" / "README.md").read_text()
    for name in re.findall(r"`([a-z_/]+(?:\.py)?)`", "\n".join(re.findall(r"^\| (.*)$", house, re.MULTILINE))):
        of = root / "wsaction" / name
        assert of.exists() or of.with_suffix(".py").exists(), name
    for name in set(re.findall(r"`((?:tests|examples|wsaction)/[\w/.]+)`", README + house)):
        assert (root / name).exists(), name
    attacks = (root / "tests" / "slow" / "test_attacks.py").read_text()
    for name in set(re.findall(r"`(test_it_\w+)`", README)):
        assert f"def {name}(" in attacks, name


def test_the_table_of_errors_matches_the_catalogue() -> None:
    from wsaction.exceptions import CATALOGUE

    documented = {
        (int(status), name)
        for status, names in re.findall(r"^\| (\d{3}) \| ([^|]+) \|", README, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert documented == {cls.code[:2] for cls in CATALOGUE.values()}


async def test_the_debug_messages_are_those_sent() -> None:
    from wsaction.handlers import AsyncAPIActionHandler

    class Cards(AsyncAPIActionHandler):
        @async_action
        async def create(self) -> None: ...

        @async_action
        async def list(self) -> None: ...

    class Root(AsyncAPIConsumer):
        routepatterns = [path(f"{name}/", Cards.as_aaah()) for name in ("cards", "users")]

    async with connect(WSAction([path("ws/", Root.as_asgi())], debug=True), "/ws/") as ws:
        for action, route in (("list", "card/"), ("archive", "cards/")):
            msg = (await ws.call(action, route))["errors"][0]["msg"]
            sentence = msg.partition(". Did you mean")[0]
            assert f"`{sentence}`" in README.replace("\n", " ")
