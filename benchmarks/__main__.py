"""Runs all benchmarks: `python -m benchmarks [--quick] [QUESTION...]`, or `make bench`.

A question is a module with `answer(quick) -> Answer`, listed in `QUESTIONS`. The questions share `contestants`,
`driver`, `server` and `load`. Each table is printed when it is ready. At the end, a full run writes `results.json` and
the plot, which `benchmarks/README.md` shows. A quick run writes `results-quick.json`, which git ignores.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import time
import traceback
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.plot import plot
from benchmarks.report import Answer

QUESTIONS = ("action", "sockets", "crud", "routing", "recovery", "fanout", "memory", "imports")
HERE = Path(__file__).parent
VERSIONS = (
    "wsaction", "pydantic", "starlette", "uvicorn", "uvloop", "websockets", "msgspec", "fastapi", "sqlalchemy",
    "aiosqlite", "litestar", "chanx", "python-socketio", "channels", "djangochannelsrestframework",
    "rest-framework-channels", "django", "werkzeug",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute, fewer contestants, less precise")
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"some of {', '.join(QUESTIONS)}; all of them")
    options = parser.parse_args()
    if unknown := set(options.questions) - set(QUESTIONS):
        parser.error(f"no such question: {', '.join(sorted(unknown))}; there are {', '.join(QUESTIONS)}")
    told = about(options.quick)
    print("\n".join(f"{key}: {value}" for key, value in told.items()))
    answers, failed = ask(options.questions or QUESTIONS, options.quick)
    if set(answers) == set(QUESTIONS):
        save({**told, "questions": {key: one.as_json() for key, one in answers.items()}}, options.quick)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def ask(questions: Any, quick: bool) -> tuple[dict[str, Answer], list[str]]:
    """Answers each question and prints its table. Returns the answers, and the questions that failed."""
    answers: dict[str, Answer] = {}
    failed = []
    for name in questions:
        began = time.perf_counter()
        try:
            answers[name] = importlib.import_module(f"benchmarks.{name}").answer(quick)
        except Exception:
            traceback.print_exc()
            failed.append(name)
        else:
            print(answers[name].table())
            print(f"   {time.perf_counter() - began:.0f} s", flush=True)
    return answers, failed


def about(quick: bool) -> dict[str, Any]:
    """The date, the machine and the versions of the run."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "quick": quick,
        "machine": f"{os.cpu_count()} x {cpu()}, {platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {name: found for name in VERSIONS if (found := installed(name)) is not None},
    }


def cpu() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    return models[0] if models else platform.machine()


def installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def save(results: dict[str, Any], quick: bool) -> None:
    """Writes the JSON and the plot, and prints their paths."""
    target = HERE / f"results{'-quick' if quick else ''}.json"
    target.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    target.with_suffix(".svg").write_text(plot(results))
    print(f"\n{target}\n{target.with_suffix('.svg')}")


if __name__ == "__main__":
    main()
