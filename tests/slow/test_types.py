"""What the type checkers of an application's authors say: mypy strict and pyright strict, each in a process."""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXPRESSIONS = ROOT / "tests" / "support" / "typed_expressions.py"
WRONG_USES = ROOT / "tests" / "support" / "wrong_uses.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run_mypy(paths: list[Path], cache: Path) -> Iterator[tuple[Path, int, str, str]]:
    """What mypy says of these files: each file, line, severity and message."""
    options = ["--strict", "--config-file=", f"--cache-dir={cache}", "--output=json", "--no-error-summary"]
    command = [sys.executable, "-m", "mypy", *options, *map(str, paths)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=500)
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    for line in ran.stdout.splitlines():
        said = json.loads(line)
        yield (ROOT / said["file"]).resolve(), said["line"], said["severity"], said["message"]


def run_pyright(paths: list[Path], folder: Path) -> Iterator[tuple[Path, int, str, str]]:
    """What pyright says of these files, in the same form."""
    included = [os.path.relpath(path, folder) for path in paths]  # it takes no absolute paths
    settings = {
        "typeCheckingMode": "strict",
        "include": included,
        "extraPaths": [os.path.relpath(ROOT, folder)],
        "reportUnusedExpression": False,
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    options = ["--outputjson", "--pythonpath", sys.executable]
    command = [sys.executable, "-m", "pyright", *options, "--project", str(folder / "pyrightconfig.json")]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=500)
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    for said in json.loads(ran.stdout)["generalDiagnostics"]:
        yield Path(said["file"]).resolve(), said["range"]["start"]["line"] + 1, said["severity"], said["message"]


CHECKERS = pytest.mark.parametrize("check", [run_mypy, run_pyright], ids=["mypy", "pyright"])


def revealed(message: str) -> str:
    """A revealed type without the modules of its names: ``x.Card | None`` is ``Card | None``."""
    if (found := re.search(r'Revealed type is "(.*)"|Type of ".*" is "(.*)"$', message, re.S)) is None:
        return message
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", found[1] or found[2])


@CHECKERS
def test_no_expression_of_a_handler_is_any(check, tmp_path: Path) -> None:
    expected = {
        number: line.partition("#")[2].strip()
        for number, line in enumerate(EXPRESSIONS.read_text().splitlines(), 1)
        if line.lstrip().startswith("reveal_type(")
    }
    assert len(expected) >= 30
    said = defaultdict(list)
    for _, line, _, message in check([EXPRESSIONS], tmp_path):
        said[line].append(revealed(message))
    for number, types in expected.items():
        assert len(said[number]) == 1, (number, said[number])
        pattern = re.escape(types).replace(re.escape("(Memory)?"), "(Memory)?")
        assert re.fullmatch(pattern, said[number][0]), (number, types, said[number])
    assert said.keys() == expected.keys()


@CHECKERS
def test_each_wrong_use_is_an_error_and_nothing_else_is(check, tmp_path: Path) -> None:
    lines = enumerate(WRONG_USES.read_text().splitlines(), 1)
    expected = {number for number, line in lines if line.endswith("# error")}
    assert len(expected) >= 30
    said = {line: message for _, line, severity, message in check([WRONG_USES], tmp_path) if severity == "error"}
    assert said.keys() == expected, {line: said.get(line) for line in said.keys() ^ expected}


@CHECKERS
def test_the_examples_are_typed(check, tmp_path: Path) -> None:
    files = sorted((ROOT / "examples").rglob("*.py"))
    for file in files:
        assert not re.search(r"\bAny\b|\bcast\(|type: ignore|pyright: ignore", file.read_text()), file
    assert not list(check(files, tmp_path))
