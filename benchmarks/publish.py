"""Updates `benchmarks/README.md` from `results.json`: the table, the date and the machine of the last full run.

python -m benchmarks.publish
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ("markdown", "replaced")

HERE = Path(__file__).parent
BEGIN, END = "<!-- results: written by `python -m benchmarks.publish` -->", "<!-- end of results -->"
PLOT = "![The action job: wsaction beside the by-hand app and its peers](results.svg)"
Aims = list[dict[str, Any]]

# Lines of the page's table: label, key of the question, choice of its aims, format of a figure.
LINES: tuple[tuple[str, str, Callable[[Mapping[str, Any]], bool], str], ...] = (
    (
        "the action job in process, time, by hand = 1",
        "action",
        lambda aim: aim["column"] == "does not suspend",
        "{:.2f}",
    ),
    ("the same where the action suspends", "action", lambda aim: aim["column"] == "suspends", "{:.2f}"),
    (
        "the same where it waits for longer, so that another task reads on",
        "action",
        lambda aim: aim["column"] == "for 3 turns",
        "{:.2f}",
    ),
    ("the action job over uvicorn, actions a second, by hand = 1", "sockets", lambda aim: True, "{:.2f}"),
    (
        "`retrieve`, `list` of 50 and `update` on SQLite, time, by hand with FastAPI and SQLAlchemy = 1",
        "crud",
        lambda aim: aim["row"].startswith("SQLite"),
        "{:.2f}",
    ),
    ("the same in memory, by hand a dict = 1", "crud", lambda aim: aim["row"].startswith("memory"), "{:.2f}"),
    ("a route among 100 patterns, `django.urls` = 1", "routing", lambda aim: aim["bound"] == 0.1, "{:.2f}"),
    ("a route among 1,000 patterns, among 10 = 1", "routing", lambda aim: aim["bound"] == 1.5, "{:.2f}"),
    (
        "events that 500 clients of two workers, who drop and come back, miss or have twice",
        "recovery",
        lambda aim: True,
        "{:.0f}",
    ),
    (
        "one event to 1,000 sockets, for each second of the server's CPU, a `send` loop by hand = 1",
        "fanout",
        lambda aim: aim["column"] == "over uvicorn",
        "{:.2f}",
    ),
    (
        "how long the last of them wait beside a client that does not read, without = 1",
        "fanout",
        lambda aim: aim["column"] != "over uvicorn",
        "{:.2f}",
    ),
    ("an idle connection, KiB over a bare ASGI app's", "memory", lambda aim: True, "{:.1f}"),
    ("`import wsaction.applications`, ms over Starlette and pydantic", "imports", lambda aim: True, "{:.0f}"),
)


def markdown(results: Mapping[str, Any]) -> str:
    """The plot, the table with aims and results, and a line with date and machine."""
    lines = [PLOT, "", "| question | figure | aim | |", "|---|---|---|---|"]
    for label, key, wanted, form in LINES:
        aims: Aims = [aim for aim in results["questions"][key]["aims"] if wanted(aim)]
        if not aims:  # the question was left out
            continue
        figures = sorted(aim["figure"] for aim in aims)
        told = dict.fromkeys(form.format(figure) for figure in (figures[0], figures[-1]))
        bound = f"at {'least' if aims[0]['at_least'] else 'most'} {aims[0]['bound']:g}"
        lines.append(f"| {label} | {' to '.join(told)} | {bound} | {verdict(aims)} |")
    versions = results["versions"]
    told_versions = ", ".join(
        f"{name} {versions[name]}" for name in ("pydantic", "uvicorn", "uvloop") if name in versions
    )
    lines += ["", f"On {results['date']}, {results['python']}, {told_versions}; {results['machine']}."]
    return "\n".join(lines)


def verdict(aims: Aims) -> str:
    met = sum(aim["met"] for aim in aims)
    return "met" if met == len(aims) else "missed" if not met else f"met in {met} of {len(aims)} shapes"


def replaced(page: str, table: str) -> str:
    """The page with the table between its two marks. Raises ``ValueError`` if it has no marks."""
    whole = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not whole.search(page):
        raise ValueError(f"expected {BEGIN!r} and {END!r} in the page, around its table of results")
    return whole.sub(lambda _: f"{BEGIN}\n{table}\n{END}", page)


if __name__ == "__main__":
    target = HERE / "README.md"
    target.write_text(replaced(target.read_text(), markdown(json.loads((HERE / "results.json").read_text()))))
    print(target)
