"""`wsaction.codegen.erase_types` and the TypeScript compiler produce the same programs."""

import json
from pathlib import Path

import pytest

from examples.boards.live import live
from tests.support import boards
from tests.support.erasable import ERASED
from tests.support.kitchen_sink_app import everything
from tests.support.node import node, packages
from wsaction.codegen import erase_types, typescript

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # npm may install packages first

PAGE = Path(__file__).parents[2] / "examples" / "boards" / "page"
PACKAGES = ("typescript@7.0.2", "acorn@8.19.0")


def assert_the_compiler_agrees(folder: Path, sources: dict[str, str]) -> None:
    """Erases and compiles the sources, and compares the programs."""
    modules = packages("erase-types", *PACKAGES)
    for name, text in sources.items():
        for kind, written in (("sources", f"{name}.ts"), ("erased", f"{name}.js")):
            (folder / kind).mkdir(exist_ok=True)
            (folder / kind / written).write_text(text if kind == "sources" else erase_types(text, f"{name}.ts"))
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "same_javascript.mjs").write_text((Path(__file__).parent / "same_javascript.mjs").read_text())
    (folder / "node_modules").symlink_to(modules)
    options = {"target": "es2022", "module": "es2022", "moduleDetection": "force", "noCheck": True, "types": []}
    options["verbatimModuleSyntax"] = True
    config = {"compilerOptions": {**options, "outDir": "compiled", "rootDir": "sources"}, "include": ["sources"]}
    (folder / "tsconfig.json").write_text(json.dumps(config))
    done = node(str(modules / "typescript" / "bin" / "tsc"), "-p", str(folder))
    assert (done.returncode, done.stdout) == (0, "")
    assert {path.stem for path in (folder / "compiled").iterdir()} == set(sources)
    done = node("same_javascript.mjs", "compiled", "erased", cwd=folder)
    assert (done.stdout, done.stderr) == ("", "")


def test_each_kind_of_type(tmp_path: Path) -> None:
    assert_the_compiler_agrees(tmp_path, {kind.replace(" ", "_"): text for kind, (text, _) in ERASED.items()})


def test_the_clients_and_the_page(tmp_path: Path) -> None:
    document = everything().asyncapi()
    clients = {f"client{number}": typescript(document, name) for number, name in enumerate(document["channels"])
               if name != "plain"}  # fmt: skip
    page = {path.stem: path.read_text("utf-8") for path in PAGE.glob("*.ts") if path.stem != "client"}
    ours = {"client": typescript(live.asyncapi(), "ws"), "boards_client": typescript(boards.app.asyncapi(), "ws")}
    assert_the_compiler_agrees(tmp_path, {**clients, **page, **ours})


def test_node_runs_a_generated_client(tmp_path: Path) -> None:
    (tmp_path / "client.mjs").write_text(erase_types(typescript(live.asyncapi(), "ws")))
    (tmp_path / "use.mjs").write_text(
        'import { Client, NotFound } from "./client.mjs";\n'
        'console.log(Client.address("wss://example.com"), NotFound.name, typeof Client.prototype.$call);\n'
    )
    assert node("--check", str(tmp_path / "client.mjs")).stderr == ""
    assert node(str(tmp_path / "use.mjs")).stdout == "wss://example.com/ws/ NotFound function\n"
