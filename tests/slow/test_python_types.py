"""The Python client and a generated one, checked by mypy and pyright, both strict."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import boards
from tests.support.kitchen_sink_app import everything
from tests.support.node import node, packages
from wsaction.codegen import python

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # npm may install pyright first

HERE = Path(__file__).parent
PYRIGHT = "1.1.414"
USE = """
from typing import assert_type

from boards_client import BoardsActions, Card, CardsDeletedData, Client, PageReplyCard

from wsaction.client import Event, Resync


async def use(client: Client) -> None:
    assert_type(client.boards, BoardsActions)
    assert_type(await client.hello(name="Ada"), str)
    assert_type(await client.cards.retrieve(1), Card)
    assert_type((await client.cards.list(query={"page": 1})).results, list[Card])
    card = await client.cards.create(data={"title": "three", "note": "hidden"})
    assert_type(await client.cards.destroy(card.id), None)
    async for line in client.boards.count(7, to=3):
        assert_type(line, str)
    async with client.cards.subscribe(snapshot=True) as cards:
        assert_type(cards.snapshot, PageReplyCard)
        async for item in cards:
            if isinstance(item, Resync):
                assert_type(item.snapshot, PageReplyCard)
            else:
                assert_type(item, Event[Card | CardsDeletedData])


async def mistakes(client: Client) -> None:
    await client.cards.retrieve("1")  # an error
    await client.cards.retrieve()  # an error
    await client.cards.list(query={"pages": 1})  # an error
    await client.cards.create(data={"name": "three"})  # an error
    await client.boards.count(7, too=3)  # an error
    (await client.cards.retrieve(1)).name  # an error
    client.cards.follow()  # an error
"""


def wanted(path: Path) -> set[int]:
    """The lines with a mistake that a type checker must find."""
    return {number for number, line in enumerate(path.read_text().splitlines(), 1) if line.endswith("# an error")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("types")
    shutil.copy(HERE / "client_types.py", made)
    (made / "use.py").write_text(USE)
    (made / "boards_client.py").write_text(python(boards.app.asyncapi(), "ws"))
    document = everything().asyncapi()
    for number, channel in enumerate(name for name in document["channels"] if name != "plain"):
        (made / f"client{number}.py").write_text(python(document, channel))
    return made


def test_mypy(folder: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", *map(str, sorted(folder.glob("*.py")))]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=200)
    found = {(name, int(line)) for name, line in re.findall(r"^(\w+\.py):(\d+): error", done.stdout, re.MULTILINE)}
    assert found == {(name, line) for name in ("client_types.py", "use.py") for line in wanted(folder / name)}, (
        done.stdout
    )


def test_pyright(folder: Path) -> None:
    modules = packages("pyright", f"pyright@{PYRIGHT}")
    (folder / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "strict", "reportUnusedExpression": False})
    )
    done = node(
        str(modules / "pyright" / "index.js"), "--outputjson", "--pythonpath", sys.executable, "-p", str(folder)
    )
    said = json.loads(done.stdout)["generalDiagnostics"]
    errors = {(Path(one["file"]).name, one["range"]["start"]["line"] + 1) for one in said if one["severity"] == "error"}
    assert errors == {(name, line) for name in ("client_types.py", "use.py") for line in wanted(folder / name)}, (
        done.stdout
    )
