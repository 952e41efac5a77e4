"""The chapter about clients: its page in Chromium, its TypeScript compiled, its Python run against a server."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import Server
from tests.support.chromium import CHROMIUM, DRIVER, Page, chromium
from tests.support.documents import GUIDE, blocks, load
from tests.support.typescript import TYPESCRIPT, compiled
from wsaction.codegen import react_hooks, typescript

CHAPTER = GUIDE / "06-clients"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # npm may install packages first


@pytest.fixture
def chapter() -> Iterator[ModuleType]:
    module = load(CHAPTER / "app.py")
    yield module
    del sys.modules[module.__name__]


def test_its_typescript_compiles(tmp_path: Path, chapter: ModuleType) -> None:
    files = {name: (CHAPTER / name).read_text() for name in ("cards.ts", "Cards.tsx")}
    assert [block.source for block in blocks(CHAPTER / "README.md", "ts")] == [files["cards.ts"]]
    assert [block.source for block in blocks(CHAPTER / "README.md", "tsx")] == [files["Cards.tsx"]]
    (script,) = blocks(CHAPTER / "README.md", "js")
    assert script.source in (CHAPTER / "index.html").read_text()
    client = typescript(chapter.live.asyncapi(), "ws")
    files = {"cards.ts": files["cards.ts"], "CardList.tsx": files["Cards.tsx"]}
    done = compiled(
        tmp_path, TYPESCRIPT, {"jsx": "react-jsx"}, client=client, **{"client.react": react_hooks("client")}, **files
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.skipif(not CHROMIUM or not DRIVER, reason="apt-get install chromium chromium-driver")
def test_its_page(serve: Callable[..., Server], chapter: ModuleType) -> None:
    server = serve(chapter.app)
    driver = chromium()
    try:
        page = Page(driver).open(f"http://127.0.0.1:{server.port}/")
        page.until(lambda: page.texts("#cards li") == ["Write the guide"])
        assert page.texts("#state") == ["open"]
        page.one("input").send_keys("Read the guide")
        page.one("button").click()
        page.until(lambda: page.texts("#cards li") == ["Write the guide", "Read the guide"])
        assert page.complaints() == []
    finally:
        driver.quit()


def test_its_python(serve: Callable[..., Server], chapter: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    follow = load(CHAPTER / "follow.py").follow
    asyncio.run(follow(serve(chapter.app).url("/ws/"), "A card", 2))
    assert capsys.readouterr().out.splitlines() == [
        "connecting",
        "connected",
        "['Write the guide']",
        "400 bool_parsing",
        "created id=2 title='A card' done=False",
        "deleted pk=2",
        "closed",
    ]
