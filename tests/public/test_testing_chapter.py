"""The tests of chapter 07 run as its page says: with pytest, in its folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHAPTER = Path(__file__).parents[2] / "examples" / "guide" / "07-testing"


def run_pytest(directory: Path, *arguments: str) -> str:
    """Runs pytest in the chapter's folder, as a user does, and returns its last line; it has to succeed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environment["HYPOTHESIS_STORAGE_DIRECTORY"] = str(directory)
    ended = subprocess.run(command, cwd=CHAPTER, env=environment, capture_output=True, text=True, timeout=110)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.splitlines()[-1]


@pytest.mark.timeout(120)
def test_its_tests_pass(tmp_path: Path) -> None:
    files = [CHAPTER / "test_app.py", CHAPTER / "test_server.py"]
    count = sum(len(re.findall(r"^async def test_", file.read_text(), re.MULTILINE)) for file in files)
    assert run_pytest(tmp_path, *(file.name for file in files)).startswith(f"{count} passed")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_its_contracts_hold(tmp_path: Path) -> None:
    (count,) = re.findall(r"^(\d+) passed", run_pytest(tmp_path, "test_contracts.py"))
    assert int(count) > 20


def test_the_page_shows_its_pyproject() -> None:
    page = (CHAPTER / "README.md").read_text()
    (shown,) = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert shown == (CHAPTER / "pyproject.toml").read_text()
