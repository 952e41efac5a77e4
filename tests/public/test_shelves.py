"""`examples/shelves.py`: a CRUD session over a real socket, in memory and in SQLite."""

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server

SOURCE = Path(__file__).parents[2] / "examples" / "shelves.py"
CARDS = "boards/1/cards/"


@pytest.fixture(params=["memory", "sqlite"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The example's app; for SQLite, with its one line changed."""
    line, changed = 'DATABASE = ""', f'DATABASE = "sqlite+aiosqlite:///{tmp_path}/shelves.db"'
    source = SOURCE.read_text()
    assert source.count(line) == 1
    module = types.ModuleType("shelves")
    exec(compile(source.replace(line, changed if request.param == "sqlite" else line), SOURCE, "exec"), vars(module))
    return module.app


class Client:
    """Calls actions. A call returns the status and the data, or the status and the first error's type and ``loc``."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.last: dict[str, Any] = {}

    async def __call__(self, action: str, route: str, data: Any = None, **parameters: Any) -> tuple[int, Any]:
        sent = {} if data is None else {"data": data}
        await self.socket.send(json.dumps({"action": action, "route": route, **sent, **parameters}))
        return await self.reply()

    async def reply(self) -> tuple[int, Any]:
        self.last = json.loads(await self.socket.recv())
        if self.last["errors"]:
            error = self.last["errors"][0]
            return self.last["status"], (error["type"], error.get("loc"))
        return self.last["status"], self.last["data"]

    async def titles(self, route: str) -> list[str]:
        status, data = await self("list", route)
        assert status == 200
        return [card["title"] for card in data["results"]]


async def test_the_whole_session(serve: Callable[..., Server], app: Any) -> None:
    server = serve(app)
    async with server.connect("/ws/ada/") as first, server.connect("/ws/eve/") as second:
        ada, eve = Client(first), Client(second)
        await create_boards(ada)
        await create_cards(ada)
        await read_lists(ada)
        await change_a_card(ada, eve)
        await delete_a_card(ada)
        await stream_a_list(ada)


async def create_boards(ada: Client) -> None:
    board = {"id": 1, "owner": "ada", "title": "Kitchen"}
    assert await ada("create", "boards/", {"title": "Kitchen", "owner": "eve", "id": 9}) == (201, board)
    assert await ada("create", "boards/", {"title": "Kitchen"}) == (409, ("conflict", None))
    assert await ada("create", "boards/", {}) == (400, ("missing", ["data", "title"]))
    assert await ada("create", "boards/") == (400, ("missing", ["data"]))
    status, garden = await ada("create", "boards/", {"title": "Garden"})
    assert (status, garden) == (201, {**board, "id": garden["id"], "title": "Garden"})
    assert await ada.titles(f"boards/{garden['id']}/cards/") == []
    assert await ada.titles("boards/?ordering=title") == ["Garden", "Kitchen"]


async def create_cards(ada: Client) -> None:
    for number in range(100):
        card = {"title": f"card {number:02}", "priority": number % 3, "done": number % 10 == 0}
        status, data = await ada("create", CARDS, card)
        assert (status, data) == (201, {"id": number + 1, "board_id": 1, "owner": "ada", "notes": None, **card})
    assert await ada("create", "boards/99/cards/", {"title": "nowhere"}) == (404, ("not_found", None))


async def read_lists(ada: Client) -> None:
    status, page = await ada("list", f"{CARDS}?page=4&page_size=20&ordering=title")
    assert (status, page["count"], [card["id"] for card in page["results"]]) == (200, 100, [*range(61, 81)])
    assert page["next"] == f"{CARDS}?page_size=20&ordering=title&page=5"
    assert page["previous"] == f"{CARDS}?page_size=20&ordering=title&page=3"
    assert (await ada("list", page["next"]))[1]["next"] is None
    assert await ada("list", f"{CARDS}?page=6&page_size=20") == (404, ("not_found", ["route", "page"]))
    assert await ada("list", f"{CARDS}?page=last&page_size=30&ordering=title") == (
        200,
        {
            "count": 100,
            "next": None,
            "previous": f"{CARDS}?page_size=30&ordering=title&page=3",
            "results": [
                {
                    "id": number + 1,
                    "board_id": 1,
                    "owner": "ada",
                    "title": f"card {number:02}",
                    "notes": None,
                    "priority": number % 3,
                    "done": number % 10 == 0,
                }
                for number in range(90, 100)
            ],
        },
    )
    assert await ada.titles(f'{CARDS}?search="card 4"') == sorted(
        (f"card {number}" for number in range(40, 50)), key=lambda title: (-(int(title[-2:]) % 3), title)
    )
    assert await ada.titles(f"{CARDS}?ordering=-done,-title&page_size=12") == [
        *(f"card {number:02}" for number in range(90, -1, -10)),
        "card 99",
        "card 98",
    ]
    assert await ada.titles(f"{CARDS}?done=true&priority__gte=2&search=card") == ["card 20", "card 50", "card 80"]
    assert await ada("list", f"{CARDS}?colour=red") == (400, ("extra_forbidden", ["route", "colour"]))
    assert await ada("list", f"{CARDS}?board_id=2") == (400, ("extra_forbidden", ["route", "board_id"]))
    assert await ada("list", f"{CARDS}?done=perhaps") == (400, ("value_error", ["route", "done"]))
    assert await ada("list", f"{CARDS}?ordering=owner") == (400, ("literal_error", ["route", "ordering"]))


async def change_a_card(ada: Client, eve: Client) -> None:
    route = f"{CARDS}7/"
    status, card = await eve("retrieve", route)
    assert (status, card["title"], card["owner"]) == (200, "card 06", "ada")
    for action, data in [("update", {"title": "hers"}), ("partial_update", {"title": "hers"}), ("destroy", None)]:
        assert await eve(action, route, data) == (403, ("permission_denied", None))
    assert await eve("toggle", route) == (403, ("permission_denied", None))
    assert await ada("retrieve", route) == (200, card)
    assert await ada("partial_update", route, {"notes": "two bottles"}) == (200, {**card, "notes": "two bottles"})
    assert await ada("partial_update", route, {"done": True}) == (
        200,
        card := {**card, "notes": "two bottles", "done": True},
    )
    assert await ada("partial_update", route, {"notes": None, "id": 8}) == (200, card := {**card, "notes": None})
    assert await ada("toggle", route) == (200, card := {**card, "done": False})
    assert await ada("partial_update", route, {"title": "card 05"}) == (409, ("conflict", None))
    assert await ada("partial_update", route, {"priority": 10}) == (400, ("less_than_equal", ["data", "priority"]))
    assert await ada("retrieve", route) == (200, card)
    whole = {"title": "rewritten", "priority": 9}
    assert await ada("update", route, whole) == (200, {**card, **whole})
    assert await ada("update", route, {"priority": 9}) == (400, ("missing", ["data", "title"]))
    for key in ("x", "7.5", "99999999999999999999", "1000"):
        assert await ada("retrieve", f"{CARDS}{key}/") == (404, ("not_found", None))
    assert await ada("retrieve", "boards/99/cards/7/") == (404, ("not_found", None))


async def delete_a_card(ada: Client) -> None:
    assert await ada("destroy", f"{CARDS}7/") == (204, None)
    assert await ada("retrieve", f"{CARDS}7/") == (404, ("not_found", None))
    assert await ada("destroy", f"{CARDS}7/") == (404, ("not_found", None))


async def stream_a_list(ada: Client) -> None:
    status, page = await ada("list", f"{CARDS}?ordering=title&page_size=40", stream=True)
    ids = []
    while status == 206:
        assert len(page) in (40, 19)
        ids += [card["id"] for card in page]
        status, page = await ada.reply()
    assert (status, page, ids) == (200, None, [number for number in range(1, 101) if number != 7])
