"""A project that `wsaction new` made, on the Python packages that are installed here, and its server."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from tests.support.restarts import kept_port

__all__ = ("Project",)


class Project:
    """A new project in a folder. Its ``make`` finds the Python packages installed; those of Node it installs."""

    def __init__(self, folder: Path, name: str, *options: str) -> None:
        subprocess.run([sys.executable, "-m", "wsaction", "new", name, *options], cwd=folder, check=True, timeout=60)
        self.folder = folder / name
        self.port = kept_port()
        venv = self.folder / ".venv"
        venv.mkdir()
        for part in ("bin", "lib", "pyvenv.cfg"):
            (venv / part).symlink_to(Path(sys.prefix) / part)
        (venv / ".installed").touch()
        self._server: subprocess.Popen[str] | None = None

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def make(self, target: str) -> str:
        """Runs ``make`` with a target, which must succeed, and returns what it printed."""
        command = ["make", target]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=280)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        """Runs ``make run`` until `stop`."""
        command = ["make", "run", f"PORT={self.port}"]
        self._server = subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._server.stderr is not None
        is_up = threading.Event()
        threading.Thread(target=_read, args=(self._server.stderr, is_up)).start()
        if not is_up.wait(100):
            raise RuntimeError("the server did not start in 100 s")

    def stop(self) -> None:
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGTERM)  # make, and the server that it runs
            self._server.wait(20)
            self._server = None


def _read(log: IO[str], is_up: threading.Event) -> None:
    """Reads the log to its end, so that the server never waits for a reader."""
    with log:
        for line in log:
            if "running on" in line:
                is_up.set()
