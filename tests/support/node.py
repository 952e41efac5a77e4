"""Node and npm packages for tests, installed once per machine, in WSACTION_NODE_CACHE or the temporary folder."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

__all__ = ("node", "packages")


def packages(name: str, *wanted: str) -> Path:
    """A ``node_modules`` folder with packages such as ``"ws@8.23.0"``.

    Skips the test if there is no Node or npm.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip(f"node and npm are needed for {', '.join(wanted)}: apt-get install nodejs npm")
    base = Path(os.environ.get("WSACTION_NODE_CACHE", Path(tempfile.gettempdir()) / "wsaction-node"))
    home = base / name
    done = home / "installed"
    if not done.exists() or done.read_text() != " ".join(wanted):
        home.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(home)]
        subprocess.run([*command, *wanted], check=True, capture_output=True, timeout=280)
        done.write_text(" ".join(wanted))
    return home / "node_modules"


def node(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Runs Node until it ends, at most 100 seconds."""
    return subprocess.run(["node", *arguments], capture_output=True, text=True, check=False, timeout=100, **options)
