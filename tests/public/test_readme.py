"""The README and the guide's blocks do what the text says, beyond running; the tables match the code."""

import re
import time
from collections.abc import Callable
from keyword import iskeyword
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.conftest import Server
from tests.support.documents import GUIDE, PAGES, ROOT, load
from tests.support.documents import names_of as block
from wsaction.applications import WSAction
from wsaction.routing import path
from wsaction.testing import HandshakeRefused, connect

ROUTES, DATA, SIGN_IN, LIVE = (
    GUIDE / chapter / "README.md" for chapter in ("02-routes", "03-data", "04-permissions", "05-live")
)
WIRE = ROOT / "wsaction" / "_protocol" / "README.md"


class User:
    is_authenticated, is_staff = True, False

    def __init__(self, pk: int = 1) -> None:
        self.pk = self.id = pk


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250


async def test_the_smallest_program() -> None:
    for page in (ROOT / "README.md", GUIDE / "01-first-app" / "README.md"):
        async with connect(block("class Echo", page)["app"], "/ws/") as ws:
            assert (await ws.call("echo", text="hello"))["data"] == "hello"


async def test_the_routes_of_the_tour() -> None:
    app = WSAction([path("ws/", block("class CardHandler")["Boards"].as_asgi())])
    async with connect(app, "/ws/") as ws:
        assert (await ws.call("rename", "cards/1/", title="Done"))["data"] == "Done"
        assert (await ws.call("rename", "cards/2/", title="Done"))["errors"][0]["type"] == "not_found"
        assert (await ws.call("rename", "card/1/"))["errors"][0]["type"] == "route_not_found"
        assert (await ws.call("archive", "cards/1/"))["status"] == 405
        assert (await ws.call("rename", "cards/1/", title=1))["errors"][0]["loc"] == ["title"]


async def test_the_data_of_the_tour() -> None:
    app = WSAction([path("ws/", block("class TaskHandler")["Tasks"].as_asgi())])
    async with connect(app, "/ws/") as ws:
        assert (await ws.call("create", "tasks/", data={"title": "Milk"}))["status"] == 201
        assert (await ws.call("create", "tasks/", data={"title": "Milk"}))["status"] == 409
        assert (await ws.call("list", "tasks/?done=false&ordering=title&page_size=20"))["data"]["count"] == 1


async def test_the_permissions_of_the_tour() -> None:
    handler = block("class TicketHandler")["TicketHandler"]
    app = WSAction([path("tickets/<int:pk>/", handler.as_aaah())])
    await handler.queryset.create({"id": 1, "owner_id": 7, "text": "slow"})
    for user, status in ((None, 403), (User(8), 403), (User(7), 200)):
        async with connect(app, "/tickets/1/", user=user) as ws:
            assert (await ws.call("retrieve"))["status"] == status


async def test_the_chat_of_the_tour() -> None:
    chat = block("class ChatRoom")["chat"]
    async with connect(chat, "/ws/", user=User(7)) as first, connect(chat, "/ws/") as second:
        await first.call("subscribe", "rooms/tea/")
        assert (await first.event("join"))["data"] == {"user": "7"}
        await second.call("say", "rooms/tea/", data={"text": "hello"})
        assert (await first.event("said"))["data"] == {"text": "hello"}
        await chat.publish("rooms/tea/", "said", {"text": "from a job"})
        assert (await first.event("said"))["data"] == {"text": "from a job"}


async def test_the_client_of_the_tour(serve: Callable[..., Server]) -> None:
    from examples.quickstart import app

    defined = block("async def look")
    assert await defined["look"](serve(app).url("/ws/")) == defined["Card"](id=1, title="Read the README")


async def test_the_test_of_the_tour() -> None:
    await block("async def test_echo")["test_echo"]()


async def test_connecting_can_be_refused(capsys: pytest.CaptureFixture[str]) -> None:
    app = WSAction([path("ws/", block("class Office", GUIDE / "01-first-app" / "README.md")["Office"].as_asgi())])
    async with connect(app, "/ws/?key=let-me-in"):
        pass
    assert capsys.readouterr().out == "Closed with 1000\n"
    with pytest.raises(HandshakeRefused, match="HTTP 403"):
        async with connect(app, "/ws/"):
            pass


def test_the_document_of_an_app() -> None:
    document = block("class Prices", GUIDE / "01-first-app" / "README.md")["document"]
    assert document["info"] == {"title": "Prices", "version": "1.0", "description": "Shares and what they cost."}
    assert document["operations"]["ws.quote"]["summary"] == "What one share costs now."
    assert set(document["components"]["schemas"]) >= {"Price"}


@pytest.mark.parametrize(
    ("app", "at"), [("site", "/rooms/kitchen/"), ("site", "/room/kitchen"), ("api", "/rooms/kitchen/")]
)
async def test_embedding(app: str, at: str) -> None:
    async with connect(block("class Room", ROUTES)[app], at, origin="http://testserver") as ws:
        assert (await ws.call("where"))["data"] == "kitchen"


async def test_dependencies() -> None:
    defined = block("async def transaction", ROUTES)
    app = defined["app"]
    async with connect(app, "/ws/") as ws:
        assert (await ws.call("rename", pk=7, title="More"))["data"] == "Test is now More"
        app.dependency_overrides.clear()
        assert (await ws.call("rename", pk=1, title="Ideas"))["data"] == "Plans is now Ideas"
        assert (await ws.call("rename", pk=1, title="Plans"))["data"] == "Ideas is now Plans"
        assert (await ws.call("rename", pk=3, title="More"))["errors"][0]["type"] == "not_found"
        assert [error["loc"] for error in (await ws.call("rename", pk="x"))["errors"]] == [["pk"], ["title"]]
    assert defined["ROWS"] == {1: "Plans", 2: "Done"}


async def test_tenants() -> None:
    async with connect(block("class Office", ROUTES)["app"], "/ws/acme/") as ws:
        assert (await ws.call("where"))["data"] == "You are in acme."


async def test_actions_that_take_and_return_the_handlers_models() -> None:
    handler = block("class NoteHandler", DATA)["NoteHandler"]
    async with connect(WSAction([path("notes/", handler.as_aaah())]), "/notes/") as ws:
        for id, text in ((1, "a"), (2, "b")):
            assert (await ws.call("create", data={"id": id, "text": text}))["status"] == 201
        assert (await ws.call("replace_all", data={"id": 3, "text": "c"}))["data"] == {"id": 3, "text": "c"}
        assert (await ws.call("list"))["data"]["count"] == 1


async def test_units_of_work(capsys: pytest.CaptureFixture[str]) -> None:
    app = WSAction([path("ws/", block("class Transfers", DATA)["Transfers"].as_asgi())])
    async with connect(app, "/ws/") as ws:
        assert (await ws.call("transfer", amount=3))["data"] == "3 moved"
    assert capsys.readouterr().out == "The first part is kept.\n"


async def test_sqlalchemy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module: Any = load(DATA.parent / "with_sqlalchemy.py")
    async with module.app.lifespan(), connect(module.app, "/ws/") as ws:
        for title in ("Notes", "Sketches"):
            await module.books.create({"title": title, "author": module.Author(name="Ada L.")})
        assert [(book.title, book.author.name) async for book in module.adas] == [("Sketches", "Ada L.")]
        assert (await ws.call("sell", "books/1/", copies=3))["status"] == 200
        assert (await ws.call("sell", "books/1/", copies=4))["status"] == 200
        shown = {"id": 1, "title": "Notes", "sold": 7, "author_id": 1}
        assert (await ws.call("retrieve", "books/1/"))["data"] == shown
        reply = await ws.call("partial_update", "books/1/", data={"title": "Sketches"})
        assert reply["errors"][0]["ctx"] == {"fields": ["title"]}


async def test_signing_in_by_a_token() -> None:
    defined = block("import jwt", SIGN_IN)
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


async def test_hosts_and_origins() -> None:
    app = block("allowed_hosts=", SIGN_IN)["app"]
    for host, origin in (("example.com", None), ("a.example.org", None), ("example.com", "https://app.example.net")):
        async with connect(app, "/ws/", headers={"host": host}, origin=origin):
            pass
    for host, origin in (("evil.test", None), ("example.com", "https://evil.test")):
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(app, "/ws/", headers={"host": host}, origin=origin):
                pass
        assert refused.value.status == 403


async def test_an_http_endpoint_publishes() -> None:
    import httpx

    api = block("class OrderHandler", LIVE)["api"]
    http = httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://testserver")
    async with connect(api, "/ws/") as ws, http:
        await ws.call("subscribe", "orders/7/")
        assert (await http.post("/orders/7/ship")).status_code == 200
        assert (await ws.event("changed"))["data"] == {"number": 7, "state": "shipped"}


async def test_each_user_has_a_topic() -> None:
    app = WSAction([path("inbox/", block("class Inbox", LIVE)["Inbox"].as_aaah())])
    async with connect(app, "/inbox/", user=User(1)) as first, connect(app, "/inbox/", user=User(2)) as second:
        for ws in (first, second):
            await ws.call("subscribe")
        await first.call("note_to_self", text="tea")
        assert (await first.event("came"))["data"] == "tea"
        await second.nothing()


async def test_changes_from_elsewhere_are_told() -> None:
    defined = block("async def rename", LIVE)
    async with connect(defined["app"], "/ws/") as ws:
        await ws.call("subscribe", "items/")
        await defined["rename"](1, "coffee")
        event = await ws.event("updated")
        assert event["data"] == {"id": 1, "text": "coffee"}


def test_the_table_of_limits_matches_the_code() -> None:
    from dataclasses import fields

    from wsaction.limits import Limits

    documents = "\n".join(page.read_text() for page in PAGES)
    documented = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+)", documents, re.MULTILINE))
    assert {name: float(value.replace(",", "")) for name, value in documented.items()} == {
        field.name: float(getattr(Limits(), field.name)) for field in fields(Limits)
    }


def test_the_map_of_the_house_names_modules_that_exist() -> None:
    house = (ROOT / "wsaction" / "README.md").read_text()
    for name in re.findall(r"`([a-z_/]+(?:\.py)?)`", "\n".join(re.findall(r"^\| (.*)$", house, re.MULTILINE))):
        of = (ROOT if name.startswith("tests/") else ROOT / "wsaction") / name
        assert of.exists() or of.with_suffix(".py").exists() or iskeyword(name), name


def test_the_attacks_in_the_table_are_tested() -> None:
    attacks = (ROOT / "tests" / "slow" / "test_attacks.py").read_text()
    documented = set(re.findall(r"`(test_it_\w+)`", "\n".join(page.read_text() for page in PAGES)))
    assert documented
    for name in documented:
        assert f"def {name}(" in attacks, name


def test_the_table_of_errors_matches_the_catalogue() -> None:
    from wsaction.exceptions import CATALOGUE

    documented = {
        (int(status), name)
        for status, names in re.findall(r"^\| (\d{3}) \| ([^|]+) \|", WIRE.read_text(), re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert documented == {cls.code[:2] for cls in CATALOGUE.values()}


def test_the_close_codes_are_those_of_the_code() -> None:
    from wsaction._protocol.close_codes import MEANINGS, refuses

    rows = re.findall(r"^\| (\d{4}(?:, \d{4})*) \| [^|]+ \| ([^|]*) \|$", WIRE.read_text(), re.MULTILINE)
    documented = {int(code): told.strip() for codes, told in rows for code in codes.split(",")}
    assert documented.keys() == MEANINGS.keys() - {1006}
    assert {code for code, told in documented.items() if told == "no"} == {
        code for code in documented if refuses(code) and code != 4401
    }
