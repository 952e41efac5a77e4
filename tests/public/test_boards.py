"""`examples/boards`: who sees what, live; moves at once; HTTP beside the socket. Its page is in test_boards_page."""

import asyncio
import functools
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.boards import positions, sample, sign_in, tables
from examples.boards.app import app
from examples.boards.live import live
from tests.conftest import Server
from wsaction.testing import WebSocketSession, connect
from wsaction.throttling import MemoryThrottleStore, SimpleRateThrottle

CARDS = "boards/1/cards/"
PAGE = Path(__file__).parents[2] / "examples" / "boards" / "page"
HASHED = functools.cache(sign_in.hash_password)  # the sample's people have the passwords that they have in every test


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """One event loop is enough for an example: the package itself is tested on both."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database of its own for each test, which begins with the sample data; and nobody has guessed passwords yet."""
    path = tmp_path / "boards.db"
    monkeypatch.setattr(SimpleRateThrottle, "store", MemoryThrottleStore())
    monkeypatch.setattr(sample, "hash_password", HASHED)
    monkeypatch.setenv("BOARDS_DB", str(path))
    return path


@asynccontextmanager
async def signed_in(*names: str) -> AsyncIterator[list[WebSocketSession]]:
    """Connections of these users to the app as it starts."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(live.lifespan())
        yield [await stack.enter_async_context(user(name)) for name in names]


@asynccontextmanager
async def user(name: str) -> AsyncIterator[WebSocketSession]:
    token = sign_in.create_token(await tables.USERS.get(name=name))
    async with connect(live, "/ws/", subprotocols=["wsaction.v1", f"bearer.{token}"]) as ws:
        yield ws


async def data_of(ws: WebSocketSession, action: str, route: str, data: Any = None, **parameters: Any) -> Any:
    """The data of a call that succeeds."""
    reply = await ws.call(action, route, **({} if data is None else {"data": data}), **parameters)
    assert reply["errors"] == [], reply
    return reply["data"]


async def refused(
    ws: WebSocketSession, action: str, route: str, data: Any = None, **parameters: Any
) -> tuple[Any, ...]:
    reply = await ws.call(action, route, **({} if data is None else {"data": data}), **parameters)
    return reply["status"], reply["errors"][0]["type"]


# ------------------------------------------------------------------------------------------------ signing in
async def test_signing_in_gives_a_token_for_the_socket() -> None:
    async with live.lifespan(), connect(live, "/ws/") as ws:
        assert await refused(ws, "whoami", "") == (403, "permission_denied")
        assert await refused(ws, "list", "users/1/boards/") == (403, "permission_denied")
        for name, password in (("ada", "grace"), ("nobody", "nobody"), ("ada", "")):
            assert await refused(ws, "sign_in", "", name=name, password=password) == (403, "permission_denied")
        found = await data_of(ws, "sign_in", "", name="ada", password="ada")
        assert found["user"] == {"id": 1, "name": "ada"}
        assert (await ws.call("$auth", data=found["token"]))["status"] == 200
        assert await data_of(ws, "whoami", "") == {"id": 1, "name": "ada"}


async def test_guessing_passwords_is_throttled() -> None:
    async with live.lifespan(), connect(live, "/ws/") as ws:
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(ws.call("sign_in")) for _ in range(31)]  # wrong ones count too
        assert [call.result()["status"] for call in calls] == [400] * 30 + [429]


async def test_forged_and_expired_tokens_are_refused() -> None:
    async with signed_in():
        ada, grace = [await tables.USERS.get(name=name) for name in ("ada", "grace")]
        good, late = sign_in.create_token(ada), sign_in.create_token(ada, lifetime=-1)
        _, until, signature = good.split(".")
        forged = [
            late,
            f"{grace.id}.{until}.{signature}",
            f"{ada.id}.{int(until) + 1}.{signature}",
            f"9.{until}.{signature}",
        ]
        for token in (*forged, good[:-1], "x", "...", f"{ada.id}..", f"{good}\u00e9"):
            async with connect(live, "/ws/") as ws:
                assert (await ws.call("$auth", data=token))["status"] == 401, token
        await tables.USERS.update(ada, {"password": sign_in.hash_password("another")})
        async with connect(live, "/ws/") as ws:
            assert (await ws.call("$auth", data=good))["status"] == 401  # a new password ends all tokens


# ------------------------------------------------------------------------------------------------ who sees what
async def test_the_sample_data_is_created_once() -> None:
    for _ in range(2):
        async with signed_in("ada", "grace", "linus") as (ada, grace, linus):
            boards = await data_of(ada, "list", "users/1/boards/")
            assert [(board["title"], len(board["members"])) for board in boards] == [
                ("First steps", 2),
                ("Ada's own", 1),
            ]
            assert await data_of(grace, "list", "users/2/boards/") == boards[:1]
            assert await data_of(linus, "list", "users/3/boards/") == []
            columns = await data_of(grace, "list", "boards/1/columns/")
            assert [column["title"] for column in columns] == ["Ideas", "In progress", "Done"]
            assert len(await data_of(grace, "list", CARDS)) == 6


@pytest.mark.parametrize(
    ("action", "route", "keys"),
    [
        ("retrieve", "boards/1/", {}),
        ("subscribe", "boards/1/", {}),
        ("presence", "boards/1/", {}),
        ("destroy", "boards/1/", {}),
        ("invite", "boards/1/", {"name": "linus"}),
        ("list", "boards/1/columns/", {}),
        ("list", CARDS, {}),
        ("subscribe", CARDS, {"snapshot": True}),
        ("create", CARDS, {"data": {"column_id": 1, "title": "Mine"}}),
        ("move", f"{CARDS}1/", {"data": {"column_id": 1}}),
        ("list", f"{CARDS}1/comments/", {}),
        ("list", "users/1/boards/", {}),
        ("create", "users/1/boards/", {"data": {"title": "Hers"}}),
        ("nothing", f"{CARDS}1/", {}),
        ("retrieve", "boards/99/", {}),
    ],
)
async def test_a_stranger_cannot_tell_what_exists(action: str, route: str, keys: Any) -> None:
    async with signed_in("linus") as (linus,):
        reply = await linus.call(action, route, **keys)
        assert (reply["status"], reply["data"]) == (403, None)


async def test_members_may_do_all_but_what_the_owner_may() -> None:
    async with signed_in("ada", "grace") as (ada, grace):
        for action, keys in (
            ("partial_update", {"data": {"title": "Grace's"}}),
            ("update", {"data": {"title": "Grace's"}}),
            ("invite", {"name": "linus"}),
            ("dismiss", {"user_id": 2}),
            ("destroy", {}),
        ):
            assert await refused(grace, action, "boards/1/", **keys) == (403, "permission_denied")
        card = await data_of(grace, "create", CARDS, {"column_id": 1, "title": "Hers", "notes": "a"})
        assert (card["column_id"], card["comment_count"]) == (1, 0)
        route = f"{CARDS}{card['id']}/"
        assert (await data_of(ada, "partial_update", route, {"title": "Ours", "position": 1, "column_id": 2})) == {
            **card,
            "title": "Ours",
        }
        assert await data_of(ada, "destroy", route) is None
        column = await data_of(grace, "create", "boards/1/columns/", {"title": "Later"})
        assert (await data_of(ada, "partial_update", f"boards/1/columns/{column['id']}/", {"title": "Never"}))[
            "id"
        ] == 4
        assert await data_of(grace, "destroy", "boards/1/columns/4/") is None
        assert (await data_of(ada, "partial_update", "boards/1/", {"title": "First"}))["title"] == "First"
        assert await refused(ada, "dismiss", "boards/1/", user_id=1) == (409, "conflict")
        assert await refused(ada, "invite", "boards/1/", name="grace") == (409, "conflict")
        assert await refused(ada, "invite", "boards/1/", name="nobody") == (404, "not_found")


async def test_the_cards_of_a_board_are_bounded() -> None:
    async with signed_in("ada") as (ada,):
        longest = "\N{GRINNING FACE}" * 2_000
        for number in range(294):
            card = {"board_id": 1, "column_id": 1, "position": -1 - number, "title": "a", "notes": longest}
            await tables.CARDS.create({**card, "comment_count": 0})
        assert await refused(ada, "create", CARDS, {"column_id": 1, "title": "One more"}) == (409, "conflict")
        assert len((await data_of(ada, "subscribe", CARDS, snapshot=True))["snapshot"]) == 300
        await data_of(ada, "destroy", f"{CARDS}1/")
        await data_of(ada, "create", CARDS, {"column_id": 1, "title": "One more"})


async def test_routes_of_a_board_reach_no_other_board() -> None:
    async with signed_in("ada") as (ada,):
        column = await data_of(ada, "create", "boards/2/columns/", {"title": "Mine"})
        here = {"column_id": column["id"]}
        for action, route, data in (
            ("retrieve", "boards/2/cards/1/", None),
            ("move", "boards/2/cards/1/", here),
            ("create", "boards/2/cards/", {"column_id": 1, "title": "a"}),
            ("move", f"{CARDS}1/", here),
            ("create", "boards/2/cards/1/comments/", {"text": "a"}),
            ("destroy", "boards/2/columns/1/", None),
        ):
            assert await refused(ada, action, route, data) == (404, "not_found"), route
        assert await data_of(ada, "list", "boards/2/cards/4/comments/") == []


async def test_comments_belong_to_their_authors_and_are_counted() -> None:
    async with signed_in("ada", "grace") as (ada, grace):
        await data_of(ada, "subscribe", f"{CARDS}4/comments/")
        await data_of(ada, "subscribe", CARDS)
        before = int(time.time())
        comment = await data_of(grace, "create", f"{CARDS}4/comments/", {"text": "Both of us"})
        assert comment["author"] == {"id": 2, "name": "grace"}
        assert before <= comment["written_at"] <= time.time()
        assert (await ada.event("created"))["data"] == comment
        assert (await ada.event("updated"))["data"]["comment_count"] == 2
        route = f"{CARDS}4/comments/{comment['id']}/"
        assert await refused(ada, "destroy", route) == (403, "permission_denied")
        assert await refused(ada, "partial_update", route, {"text": "Hers"}) == (403, "permission_denied")
        assert await data_of(grace, "destroy", route) is None
        assert (await ada.event("deleted"))["data"] == {"pk": comment["id"]}
        assert (await ada.event("updated"))["data"]["comment_count"] == 1


# ------------------------------------------------------------------------------------------------ live
async def test_a_move_sends_the_card_and_the_user_who_moved_it() -> None:
    async with signed_in("ada", "grace") as (ada, grace):
        at = await data_of(ada, "subscribe", CARDS, snapshot=True)
        await data_of(grace, "move", f"{CARDS}6/", {"column_id": 1, "before": 2})
        card = (await ada.event("updated"))["data"]
        moved = await ada.event("moved")
        assert moved["data"] == {"card_id": 6, "column_id": 1, "by": {"id": 2, "name": "grace"}}
        cards = {card["id"]: card for card in at["snapshot"]} | {6: card}
        first = sorted((card for card in cards.values() if card["column_id"] == 1), key=lambda card: card["position"])
        assert [card["id"] for card in first] == [1, 6, 2, 3]
        async with user("ada") as again:
            back = await data_of(again, "subscribe", CARDS, since={"epoch": at["epoch"], "offset": at["offset"]})
            assert back["recovered"] is True
            assert [(await again.event())["event"] for _ in range(2)] == ["updated", "moved"]


async def test_invited_users_see_the_board_and_dismissed_users_do_not() -> None:
    async with signed_in("ada", "grace", "linus") as (ada, grace, linus):
        for ws, own in ((ada, "users/1/boards/"), (grace, "users/2/boards/"), (linus, "users/3/boards/")):
            await data_of(ws, "subscribe", own)
        await data_of(ada, "subscribe", "boards/1/")
        board = await data_of(ada, "invite", "boards/1/", name="linus")
        assert [member["name"] for member in board["members"]] == ["ada", "grace", "linus"]
        for ws in (ada, grace, linus):
            assert (await ws.event("updated"))["data"] == board
        snapshot = (await data_of(linus, "subscribe", "boards/1/", snapshot=True))["snapshot"]
        assert snapshot == board
        await data_of(linus, "subscribe", CARDS)
        assert [(await ada.event("join"))["data"] for _ in range(2)] == [{"user": "1"}, {"user": "3"}]
        assert (await linus.event("join"))["data"] == {"user": "3"}
        assert await data_of(ada, "presence", "boards/1/") == {"1": 1, "3": 1}
        await data_of(ada, "dismiss", "boards/1/", user_id=3)
        seen = set[tuple[str, str]]()
        must = {("deleted", "users/3/boards/"), ("$unsubscribed", "boards/1/"), ("$unsubscribed", CARDS)}
        while not must <= seen:
            event = await linus.event()
            seen.add((event["event"], event["route"]))
        assert seen - must <= {("deleted", "boards/1/")}  # unless that he may not see it any more is found out first
        assert (await ada.event("leave"))["data"] == {"user": "3"}
        await data_of(grace, "move", f"{CARDS}1/", {"column_id": 3})
        assert await refused(linus, "list", CARDS) == (403, "permission_denied")
        await linus.nothing()


async def test_only_members_get_events_about_a_board() -> None:
    async with signed_in("ada", "linus") as (ada, linus):
        await data_of(ada, "subscribe", "users/1/boards/")
        await data_of(linus, "subscribe", "users/3/boards/")
        board = await data_of(linus, "create", "users/3/boards/", {"title": "Penguins", "owner_id": 1})
        assert (board["owner_id"], [member["id"] for member in board["members"]]) == (3, [3])
        assert (await linus.event())["data"] == board
        await data_of(linus, "create", f"boards/{board['id']}/columns/", {"title": "Ice"})
        await data_of(linus, "destroy", f"boards/{board['id']}/")
        assert (await linus.event())["data"] == {"pk": board["id"]}
        await ada.nothing()


async def test_a_page_reloads_after_a_restart() -> None:
    async with signed_in("ada") as (ada,):
        at = await data_of(ada, "subscribe", CARDS, snapshot=True)
        await data_of(ada, "move", f"{CARDS}1/", {"column_id": 3})
    async with signed_in("ada") as (ada,):
        since = {"epoch": at["epoch"], "offset": at["offset"]}
        back = await data_of(ada, "subscribe", CARDS, since=since, snapshot=True)
        assert back["recovered"] is False
        assert next(card for card in back["snapshot"] if card["id"] == 1)["column_id"] == 3


# ------------------------------------------------------------------------------------------------ moves
async def order(ws: WebSocketSession, column: int) -> list[int]:
    cards = [card for card in await data_of(ws, "list", CARDS) if card["column_id"] == column]
    found = sorted(cards, key=lambda card: card["position"])
    assert len({card["position"] for card in found}) == len(found)
    return [card["id"] for card in found]


async def test_cards_go_where_they_are_moved() -> None:
    async with signed_in("ada") as (ada,):
        for move, wanted in (
            ({"column_id": 1, "before": 1}, [3, 1, 2]),
            ({"column_id": 1, "before": 2}, [1, 3, 2]),
            ({"column_id": 1}, [1, 2, 3]),
            ({"column_id": 1, "before": 99}, [1, 2, 3]),
            ({"column_id": 1, "before": 3}, [1, 2, 3]),
            ({"column_id": 3, "before": 6}, [1, 2]),
        ):
            await data_of(ada, "move", f"{CARDS}3/", move)
            assert await order(ada, 1) == wanted, move
        assert await order(ada, 3) == [3, 6]
        assert await refused(ada, "move", f"{CARDS}3/", {"column_id": 99}) == (404, "not_found")


async def test_cards_are_renumbered_if_there_is_no_position_between() -> None:
    async with signed_in("ada", "grace") as (ada, grace):
        snapshot = (await data_of(grace, "subscribe", CARDS, snapshot=True))["snapshot"]
        cards = {card["id"]: card for card in snapshot}
        for number in range(45):  # each time between 1 and what was put there before
            one, other = (2, 3) if number % 2 else (3, 2)
            await data_of(ada, "move", f"{CARDS}{one}/", {"column_id": 1, "before": other})
        await data_of(ada, "move", f"{CARDS}1/", {"column_id": 2})
        while cards[1]["column_id"] == 1:
            event = await grace.event("updated")
            cards[event["data"]["id"]] = event["data"]
        assert list(cards.values()) == sorted(cards.values(), key=lambda card: card["id"])
        assert {card["id"]: card for card in await data_of(ada, "list", CARDS)} == cards
        assert await order(ada, 1) == [3, 2]


async def test_concurrent_moves_give_every_page_the_same_order() -> None:
    async with signed_in("ada", "grace", "ada", "grace") as (one, two, three, four):
        sockets = (one, two, three, four)
        cards = {card["id"]: card for card in (await data_of(four, "subscribe", CARDS, snapshot=True))["snapshot"]}
        async with asyncio.TaskGroup() as group:
            calls = [
                group.create_task(
                    sockets[number % 3].call(
                        "move", f"{CARDS}{number % 6 + 1}/", {"column_id": 2, "before": (number * 5 + 1) % 6 + 1}
                    )
                )
                for number in range(48)
            ]
        assert {call.result()["status"] for call in calls} == {200}
        found = await order(one, 2)
        assert sorted(found) == [1, 2, 3, 4, 5, 6]
        for _ in range(48):
            await four.event("moved")
        seen = [event["data"] for event in [await four.event("updated") for _ in range(48)]]
        cards |= {card["id"]: card for card in seen}
        assert sorted(cards, key=lambda pk: cards[pk]["position"]) == found  # who only listened knows the same


def test_positions() -> None:
    step = positions.STEP
    assert [positions.between(*ends) for ends in ((None, None), (10, None), (10, 20), (10, 11), (None, 5))] == [
        step,
        10 + step,
        15,
        None,
        5 - step,
    ]
    assert list(positions.renumbered(2, above=7)) == [7 + step, 7 + 2 * step]


# ------------------------------------------------------------------------------------------------ over the network
async def test_a_change_over_http_reaches_the_socket(serve: Callable[..., Server]) -> None:
    server = serve(app)
    async with server.connect("/ws/") as ws, httpx.AsyncClient(base_url=server.url("", "http")) as http:

        async def call(action: str, route: str = "", **keys: Any) -> Any:
            await ws.send(json.dumps({"action": action, "route": route, **keys}))
            return json.loads(await ws.recv())["data"]

        token = (await call("sign_in", name="ada", password="ada"))["token"]
        await call("$auth", data=token)
        card = (await call("subscribe", CARDS, snapshot=True))["snapshot"][0]
        bearer = {"Authorization": f"Bearer {token}"}
        changed = await http.patch("/api/boards/1/cards/1", json={"title": "By HTTP"}, headers=bearer)
        assert (changed.status_code, changed.json()) == (200, {**card, "title": "By HTTP"})
        event = json.loads(await ws.recv())
        assert (event["event"], event["route"], event["data"]) == ("updated", CARDS, changed.json())
        for path, headers, status in (
            ("/api/boards/1/cards/1", {}, 401),
            ("/api/boards/1/cards/1", {"Authorization": "Bearer 1.2.3"}, 401),
            ("/api/boards/2/cards/1", bearer, 404),
            ("/api/boards/9/cards/1", bearer, 404),
        ):
            refusal = await http.patch(path, json={"title": "No"}, headers=headers)
            assert refusal.status_code == status
        assert (await http.patch("/api/boards/1/cards/1", json={"title": ""}, headers=bearer)).status_code == 422


async def test_the_page_gets_its_javascript_without_a_build_step() -> None:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        needed, served = ["main"], set()
        while needed:
            served.add(name := needed.pop())
            answer = await http.get(f"/page/{name}.js")
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
            needed += [name for name in re.findall(r'from "\./(\w+)\.js"', answer.text) if name not in served]
        assert served == {"client", *(path.stem for path in PAGE.glob("*.ts"))}
        assert "class Client extends BaseClient" in (await http.get("/page/client.js")).text
        for name in ("other", "..%2Fapp", "main.ts"):
            assert (await http.get(f"/page/{name}.js")).status_code == 404


async def test_pages_and_files_served_beside_the_socket(serve: Callable[..., Server]) -> None:
    server = serve(app)
    async with httpx.AsyncClient(base_url=server.url("", "http")) as http:
        for path, kind, has in (
            ("/", "text/html", "<title>Boards</title>"),
            ("/page/style.css", "text/css", "prefers-color-scheme"),
            ("/docs", "text/html", "<title>Explorer</title>"),
            ("/asyncapi.json", "application/json", "boards/{board}/cards/{pk}/"),
            ("/api/openapi.json", "application/json", "/api/boards/{board}/cards/{pk}"),
        ):
            answer = await http.get(path)
            assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)
            assert has in answer.text
        assert (await http.get("/ws/")).status_code == 426
