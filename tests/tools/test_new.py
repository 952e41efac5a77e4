"""`wsaction new`: what it writes and refuses, and that the project is as good as what is checked here."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

import wsaction
from wsaction.cli import main

LONGEST = "a-name-of-thirty-characters-ab"


def new(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["new", *arguments])
    return result.exit_code, result.output


def files(folder: Path) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder: Path, *command: str) -> str:
    """Runs a Python module in a project, and returns what it printed. It must succeed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=140
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ------------------------------------------------------------------------------------------------ what it writes
@pytest.mark.timeout(150)  # some five seconds of computing, on a machine that others may use too
def test_the_tests_of_a_new_project_pass(here: Path) -> None:
    status, output = new("help-desk")
    assert (status, output.splitlines()[0]) == (0, f"made {here / 'help-desk'}")
    out = run(here / "help-desk", "pytest", "-q", "-p", "no:cacheprovider")
    assert "18 passed" in out
    assert files(here) - {one for one in files(here) if "__pycache__" in one} == {
        f"help-desk/{name}"
        for name in (
            *(".gitignore", "Makefile", "README.md", "pyproject.toml"),
            *(f"help_desk/{name}.py" for name in ("__init__", "accounts", "app", "tables", "tasks")),
            *(f"tests/{name}.py" for name in ("conftest", "test_accounts", "test_tasks")),
            *("web/index.html", "web/main.js", "web/style.css"),
        )
    }


@pytest.mark.parametrize("name", ["x", LONGEST])
@pytest.mark.parametrize("option", [[], ["--react"]])
def test_a_new_project_passes_ruff_and_the_checks_of_wsaction(here: Path, name: str, option: list[str]) -> None:
    assert new(name, *option)[0] == 0
    run(here / name, "ruff", "check", "--no-cache", ".")
    run(here / name, "ruff", "format", "--no-cache", "--check", ".")
    found = json.loads(run(here / name, "wsaction", "check", "--json", f"{name.replace('-', '_')}.app:live"))
    assert [one["code"] for one in found["findings"]] == ["no_pagination", "any_host"]
    for path in files(here / name):
        text = (here / name / path).read_text("utf-8")
        for word in ("@name@", "@package@", "@page@", "@wsaction@", "@direct@", "@origin@"):
            assert word not in text, path
    assert {path for path in files(here / name) if path.startswith("web/")} >= {"web/index.html"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["desk", LONGEST])
def test_a_new_project_passes_mypy_strict(here: Path, name: str) -> None:
    assert new(name)[0] == 0
    assert "no issues found in 8 source files" in run(here / name, "mypy", "--cache-dir", str(here / "cache"))


def test_an_empty_folder_is_filled(here: Path) -> None:
    (here / "desk").mkdir()
    assert new("desk")[0] == 0
    assert (here / "desk" / "desk" / "app.py").exists()


# ------------------------------------------------------------------------------------------------ what it refuses
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "expected a name such as desk or help-desk, got ''"),
        (".", "expected a name such as desk or help-desk, got '.'"),
        ("../desk", "expected a name such as desk or help-desk, got '../desk'; did you mean 'desk'?"),
        ("/tmp/desk", "got '/tmp/desk'; did you mean 'tmp-desk'?"),
        ("a/b", "got 'a/b'; did you mean 'a-b'?"),
        ("Help Desk", "got 'Help Desk'; did you mean 'help-desk'?"),
        ("7up", "got '7up'; did you mean 'up'?"),
        ("desk-", "did you mean 'desk'?"),
        ("a--b", "did you mean 'a-b'?"),
        ("désk\n", "did you mean 'd-sk'?"),
        ("desk\n", "did you mean 'desk'?"),
        ("x" * 31, "expected at most 30 characters, got 31; choose a shorter name"),
        ("class", "class is a keyword of Python; choose another name, such as class-app"),
        ("json", "json is a module of Python's standard library; choose another name, such as json-app"),
        ("test", "test is a module of Python's standard library"),
        ("wsaction", "wsaction is a package that the project imports; choose another name, such as wsaction-app"),
        ("tests", "tests is another folder of the project"),
        ("web", "web is another folder of the project"),
    ],
)
def test_names_that_cannot_be_are_refused(here: Path, name: str, reason: str) -> None:
    status, output = new(name)
    assert status == 2
    assert reason in output
    assert list(here.iterdir()) == []


def test_nothing_is_overwritten(here: Path) -> None:
    (here / "desk").mkdir()
    (here / "desk" / ".env").write_text("mine")
    (here / "notes").write_text("mine")
    (here / "gone").symlink_to("nowhere")
    assert "the folder desk is not empty; choose another name or move what is in it" in new("desk")[1]
    assert "notes is a file; choose another name" in new("notes")[1]
    assert new("gone")[0] == 1
    assert files(here) == {"desk/.env", "notes"}
    assert (here / "desk" / ".env").read_text() == (here / "notes").read_text() == "mine"


def test_a_project_that_cannot_be_written_whole_is_not_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text

    def full(path: Path, *args: object, **options: object) -> int:
        if path.name == "README.md":
            raise OSError(28, "No space left on device")
        return write(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", full)
    assert new("desk") == (1, "Error: [Errno 28] No space left on device\n")
    assert list(here.iterdir()) == []


# ------------------------------------------------------------------------------------------------ where wsaction is
@pytest.mark.parametrize(
    ("origin", "requirement"),
    [
        (None, f"wsaction[standard,sqlalchemy]>={wsaction.__version__}"),
        ({"url": "file:///src/ws%20action", "dir_info": {"editable": True}}, "@ file:///src/ws%20action"),
        (
            {"url": "https://example.com/ws.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}},
            "@ git+https://example.com/ws.git@c0ffee",
        ),
    ],
)
def test_a_project_depends_on_wsaction_as_it_is_installed(
    here: Path, monkeypatch: pytest.MonkeyPatch, origin: object, requirement: str
) -> None:
    class Installed(metadata.Distribution):
        def read_text(self, filename: str) -> str | None:
            return None if origin is None else json.dumps(origin)

        def locate_file(self, path: object) -> Path:  # type: ignore[override]
            raise NotImplementedError

    monkeypatch.setattr(metadata, "distribution", lambda name: Installed())
    assert new("desk", "--react")[0] == 0
    project = (here / "desk" / "pyproject.toml").read_text()
    assert requirement in project
    assert ("allow-direct-references = true" in project) is (origin is not None)
    assert ("not on PyPI yet" in (here / "desk" / "README.md").read_text()) is (origin is not None)
