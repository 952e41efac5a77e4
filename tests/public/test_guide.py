"""The documents do what they say: blocks run, frames are answered as shown, links lead somewhere."""

import json
import re
import shutil
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.support.documents import (
    CHAPTERS,
    GUIDE,
    PAGES,
    ROOT,
    Block,
    all_blocks,
    anchors,
    blocks,
    differences,
    excerpt_of,
    exchange,
    links,
    load,
    run_block,
)
from wsaction.applications import WSAction
from wsaction.cli.check import check
from wsaction.testing import WebSocketSession, connect

APPS = [chapter / "app.py" for chapter in CHAPTERS if (chapter / "app.py").exists()]
EXCHANGES = [page for page in PAGES if any(exchange(block) for block in blocks(page, "text"))]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture
def beside(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a page: what lies there can be imported, and what runs writes elsewhere."""
    folder: Path = request.param
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize(
    ("block", "beside"), [(block, block.page.parent) for block in all_blocks("python")], indirect=["beside"], ids=str
)
def test_every_python_block_runs(block: Block, beside: Path) -> None:
    if excerpt_of(block) is None:
        assert run_block(block)
    else:
        assert beside == block.page.parent


@pytest.mark.parametrize("block", all_blocks("py"), ids=str)
def test_code_of_other_frameworks_is_python(block: Block) -> None:
    compile(block.source, str(block), "exec")


@pytest.mark.parametrize(("app", "beside"), [(app, app.parent) for app in APPS], indirect=["beside"], ids=name)
async def test_the_app_of_a_chapter_has_no_mistakes(app: Path, beside: Path) -> None:
    module = load(app)
    assert callable(module.app)
    assert module.__doc__
    apps = [value for value in vars(module).values() if isinstance(value, WSAction)]
    assert apps
    for one in apps:
        assert [finding for finding in check(one) if finding.level == "error"] == []
        assert one.asyncapi()["operations"]


@pytest.mark.parametrize(("page", "beside"), [(page, page.parent) for page in EXCHANGES], indirect=["beside"], ids=name)
async def test_frames_are_answered_as_shown(page: Path, beside: Path) -> None:
    """A block's connections are its own; the app is that of the whole page."""
    app = beside / "app.py"
    made: Any = load(app if app.exists() else ROOT / "examples" / "quickstart.py").app
    for block in blocks(page, "text"):
        async with AsyncExitStack() as stack:
            sessions: dict[str, WebSocketSession] = {}
            for line in exchange(block):
                if (ws := sessions.get(line.who)) is None:
                    ws = sessions[line.who] = await stack.enter_async_context(
                        connect(made, "/ws/", origin="http://testserver")
                    )
                if line.sent:
                    await ws.send_text(line.text)
                else:
                    came = await ws.receive_json()
                    assert [*differences(json.loads(line.text), came)] == [], f"{block}: {came}"


COMMANDS = {
    *("cd", "cp", "curl", "docker", "export", "git", "grep", "kill", "kubectl", "make", "mkdir", "nginx", "npm", "npx"),
    *("pip", "pytest", "python", "redis-server", "source", "sudo", "systemctl", "ulimit", "uvicorn", "websockets"),
    "wsaction",
}


@pytest.mark.parametrize("block", all_blocks("sh"), ids=str)
def test_shell_blocks_have_known_commands(block: Block) -> None:
    bash = shutil.which("bash")
    assert bash
    parsed = subprocess.run([bash, "-n"], input=block.source, capture_output=True, text=True)
    assert parsed.returncode == 0, parsed.stderr
    makefile = (ROOT / "Makefile").read_text()
    from wsaction.cli import main

    for line in block.source.replace("\\\n", " ").splitlines():
        words = [*filter(None, line.partition(" #")[0].split())]
        while words and re.match(r"\w+=", words[0]):
            del words[0]
        if not words or words[0].startswith("#"):
            continue
        command = words[0].rpartition("/")[2]
        assert command in COMMANDS, f"{block}: {command}"
        if command == "make":
            for target in (word for word in words[1:] if "=" not in word):
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{block}: make {target}"
        if command == "wsaction":
            assert words[1] in main.commands, f"{block}: wsaction {words[1]}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"(https?|mailto):", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_the_path_leads_through_every_chapter() -> None:
    path = ROOT / "examples" / "README.md"
    linked = [link for link in links(path) if re.fullmatch(r"guide/[\w-]+/README\.md", link)]
    assert linked == [f"guide/{chapter.name}/README.md" for chapter in CHAPTERS]
    assert {entry.name for entry in GUIDE.iterdir() if entry.is_dir() and entry.name != "__pycache__"} >= {
        chapter.name for chapter in CHAPTERS
    }


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_named_files_exist(page: Path) -> None:
    for named in set(re.findall(r"`((?:tests|examples|wsaction|benchmarks)/[\w/.-]+)`", page.read_text())):
        assert (ROOT / named).exists(), named
