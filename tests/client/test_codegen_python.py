"""The generated Python client, used against a real server. `slow/test_python_types` checks its types."""

import builtins
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tests.conftest import Server
from tests.support import boards
from tests.support.kitchen_sink_app import everything
from wsaction.applications import WSAction
from wsaction.client import Event, NotFound, connect
from wsaction.codegen import python
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.routing import path


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


Load = Callable[[WSAction, str], Any]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """``load(app, channel)`` imports the generated module."""
    names = []

    def loading(app: WSAction, channel: str) -> Any:
        name = f"generated_client_{len(names)}"
        file = tmp_path / f"{name}.py"
        file.write_text(python(app.asyncapi(), channel))
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        names.append(name)
        spec.loader.exec_module(module)
        return module

    yield loading
    for name in names:
        del sys.modules[name]


async def test_calls_streams_and_subscriptions(load: Load, serve: Callable[..., Server]) -> None:
    module = load(boards.app, "ws")
    url = serve(boards.app).url("")
    async with module.Client(module.Client.address(url), proxy=None) as client:
        assert await client.hello() == "Hello you"
        async with client.cards.subscribe(snapshot=True) as cards:
            assert isinstance(cards.snapshot, module.PageReplyCard)
            card = await client.cards.create(data={"title": "three", "note": "hidden"})
            assert card == module.Card(id=card.id, title="three", done=False)
            updated = await client.cards.partial_update(card.id, data={"done": True})
            assert (updated.title, updated.done) == ("three", True)
            await client.cards.destroy(card.id)
            events = [await anext(cards) for _ in range(3)]
        assert [event.data for event in events] == [card, updated, module.CardsDeletedData(pk=card.id)]
        assert [item async for item in client.boards.count(7, to=3)] == ["0", "1", "2"]
        assert [len(page) async for page in client.cards.list_stream(query={"page_size": 1})] == [1, 1]
        with pytest.raises(NotFound):
            await client.cards.retrieve(99)
        async with client.boards.subscribe(7) as board:
            assert await client.boards.move(7, data={"card": 1}) == 7
            assert await anext(board) == Event("moved", "boards/7/", module.Moved(card=1, to="done"), 1)
        pushed = client.events()
        await client.whisper(text="psst")
        assert (await anext(pushed)).data == "psst"


async def test_routes_and_queries(load: Load, serve: Callable[..., Server]) -> None:
    module = load(boards.app, "ws")
    async with module.Client(serve(boards.app).url("/ws/"), proxy=None) as client:
        key = "6f1b2c3d-0000-4000-8000-00000000000a"
        found = await client.echo.echo("a-b", key, "x/ü z", query={"a": "x y&z", "b": True, "c": None, "d": [1, 2]})
        assert found["query"] == {"a": "x y&z", "b": "true", "d": "2"}
        assert (found["slug"], found["rest"]) == ("a-b", "x/ü z")
        assert (await client.years.echo("2026"))["route"] == "years/2026/"
        assert (await client.years.echo("2026", 7))["route"] == "years/2026/7/"
        assert (await client.any.echo("b", query={"q": 1}))["route"] == "b?q=1"
        with pytest.raises(ValueError, match=r"pk: expected what \^\[0-9\]\+\$ matches, got -1"):
            await client.cards.retrieve(-1)


async def test_every_kind_of_declaration(load: Load, serve: Callable[..., Server]) -> None:
    app = everything()
    module = load(app, "ws.tenant")
    async with module.Client(module.Client.address(serve(app).url(""), 3), proxy=None) as client:
        assert await client.echo(text="a") == "a"
        tree = await client.forests.plant(
            7, data={"name": "oak", "children": [{"name": "twig"}], "pet": {"kind": "dog", "barks": True}}
        )
        assert tree.children[0].name == "twig"
        assert (tree.pet.kind, tree.since.year) == ("dog", 2026)
        pages = await client.forests.pages(7)
        assert (pages.results[0].shouted, pages.nextPage) == ("OAK", "2")
        assert [item async for item in client.forests.leaves.rings(7)] == [(0, "ring"), (1, "ring")]
        measured = await client.forests.measures(
            7, at={"x": 1, "y": 2}, size={"width": 1}, pair=[1, "a"], key="6f1b2c3d-0000-4000-8000-00000000000a"
        )
        assert measured["at"].x == 1


def test_names_that_python_has(load: Load) -> None:
    class Odd(BaseModel):
        id: int
        int: str
        copy_: str = ""

    class Root(AsyncAPIConsumer):
        @async_action(name="class")
        async def class_(self, timeout: float, query: str) -> Odd:
            raise NotImplementedError

        @async_action(name="call")
        async def call(self) -> builtins.int:
            raise NotImplementedError

    module = load(WSAction([path("ws/", Root.as_asgi())]), "ws")
    assert {"class_", "call_"} <= {*vars(module.Client)}
    assert [*module.Odd.model_fields] == ["id", "int_", "copy_"]
    assert module.Odd.model_validate({"id": 1, "int": "a", "copy_": ""}).int_ == "a"


def test_a_reply_of_another_type_says_where_it_came_from() -> None:
    from wsaction.client.messages import validated

    with pytest.raises(ValidationError) as caught:
        validated({"id": "x"}, boards.Card, "the reply to retrieve cards/1/")
    assert caught.value.__notes__ == ['in the reply to retrieve cards/1/; the server sent {"id":"x"}']


async def test_typed_subscriptions_of_the_client(serve: Callable[..., Server]) -> None:
    class Page(BaseModel):
        results: list[boards.Card]

    class Other(BaseModel):
        name: str

    async with connect(serve(boards.app).url("/ws/"), proxy=None) as client:
        async with client.subscribe("cards/", snapshot=Page, events={"updated": boards.Card}) as cards:
            assert isinstance(cards.snapshot.results[0], boards.Card)
            made = await client.call("create", "cards/", data={"title": "three"})
            await client.call("partial_update", f"cards/{made['id']}/", data={"done": True})
            await client.call("destroy", f"cards/{made['id']}/")
            item = await anext(cards)
            assert isinstance(item, Event)
            assert (item.data, item.offset) == (boards.Card(id=made["id"], title="three", done=True), 2)
        with pytest.raises(ValidationError) as caught:
            await client.subscribe("cards/", snapshot=Other).__aenter__()
        assert caught.value.__notes__[0].startswith("in the snapshot of cards/; the server sent {")
        async with client.subscribe("boards/7/", events={"moved": Other}) as board:
            await client.call("move", "boards/7/", data={"card": 1})
            with pytest.raises(ValidationError):
                await anext(board)
