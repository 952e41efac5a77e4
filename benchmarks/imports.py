"""Benchmark of imports: the time that `import wsaction.applications` adds to Starlette and pydantic.

python -m benchmarks.imports [--quick]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

from benchmarks.report import Aim, Answer, Row, rounded

__all__ = ("answer",)

BASE = "from starlette.applications import Starlette; from pydantic import BaseModel, TypeAdapter"
OURS = {
    "wsaction.applications": "import wsaction.applications",
    "wsaction.consumers": "import wsaction.consumers",
    "wsaction.routing, alone": "import wsaction.routing",
}
MILLISECONDS, BASE_TOO = "ms over them", "ms with them"
TIMED = "from time import process_time as now; a = now(); {}; b = now(); {}; print(b - a, now() - b)"


def answer(quick: bool = False) -> Answer:
    """Answers the question. A first round, which does not count, compiles the byte code."""
    rounds = 7 if quick else 40
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in OURS}
    with tempfile.TemporaryDirectory() as kept:
        for _ in range(1 + rounds):
            for name, statement in OURS.items():
                samples[name].append(timed(name, statement, kept))
    rows = []
    for name, (_, *found) in samples.items():
        over = statistics.median(ours for _, ours in found)
        both = statistics.median(base + ours for base, ours in found)
        aims = (Aim(MILLISECONDS, 30.0),) if name == "wsaction.applications" else ()
        rows.append(Row(name, {MILLISECONDS: rounded(over, 3), BASE_TOO: rounded(both, 3)}, aims))
    return Answer("imports", "Import time over starlette + pydantic", rows, [f"medians of {rounds} fresh processes"])


def timed(name: str, statement: str, kept: str) -> tuple[float, float]:
    """Milliseconds of CPU for Starlette and pydantic, and for wsaction after them, in a fresh process.

    ``kept`` is the directory for byte code, regardless of the environment.
    """
    base = "pass" if "alone" in name else BASE
    code = TIMED.format(base, statement)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = kept
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
    first, second = map(float, out.split())
    return first * 1e3, second * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer processes")
    print(answer(parser.parse_args().quick).table())


if __name__ == "__main__":
    main()
