"""Draws the plot of the README as SVG from the JSON of the results.

python -m benchmarks.plot benchmarks/results.json benchmarks/results.svg
"""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

__all__ = ("plot",)

WIDTH, NAMES, TOLD = 720, 210, 60  # pixels: the plot, the names of contestants, the figures after the bars
BAR, GAP, HEAD = 16, 6, 46
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .head { font-weight: 600 } .one { stroke: #8c959f }
.small { font-size: 11px; fill: #59636e } rect { fill: #afb8c1 } .ours { fill: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .small { fill: #9198a1 } rect { fill: #59636e } .ours { fill: #4493f8 }
  .one { stroke: #9198a1 }
}
"""


def plot(results: Mapping[str, Any]) -> str:
    """The SVG of the action job in process and over uvicorn, as far as the results have them."""
    questions, parts, top = results["questions"], [], 0
    for key, column, head, logarithmic in (
        ("action", "does not suspend", "Time for an action in process; by hand = 1, less is better (log. scale)", True),
        ("sockets", "throughput", "Actions a second over uvicorn; by hand = 1, more is better", False),
    ):
        if key in questions:
            panel, height = bars(figures(questions[key]["rows"], column), head, logarithmic)
            parts.append(f'<g transform="translate(0 {top})">{panel}</g>')
            top += height
    box = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}"'
    return f"<svg {box}><style>{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"


def figures(rows: Mapping[str, Mapping[str, float | None]], column: str) -> dict[str, float]:
    return {name: figure for name, row in rows.items() if (figure := row.get(column)) is not None}


def bars(found: Mapping[str, float], head: str, logarithmic: bool) -> tuple[str, int]:
    """One panel and its height. On a logarithmic scale, bars begin at the power of ten below the smallest figure."""
    low = 10.0 ** (math.ceil(math.log10(min(found.values()))) - 1) if logarithmic else 0.0
    high = max(1.0, *found.values())
    room = WIDTH - NAMES - TOLD

    def width(figure: float) -> float:
        if not logarithmic:
            return room * figure / high
        return room * math.log(figure / low) / math.log(high / low)

    lines = [f'<text class="head" x="0" y="20">{escape(head)}</text>']
    for row, (name, figure) in enumerate(found.items()):
        y = HEAD - 10 + row * (BAR + GAP)
        ours = ' class="ours"' if name == "wsaction" else ""
        lines += [
            f'<text x="{NAMES - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>',
            f'<rect{ours} x="{NAMES}" y="{y}" width="{width(figure):.1f}" height="{BAR}" rx="2"/>',
            f'<text class="small" x="{NAMES + width(figure) + 5:.1f}" y="{y + 12}">{figure:.3g}</text>',
        ]
    height = HEAD + len(found) * (BAR + GAP)
    one = NAMES + width(1.0)
    lines.append(f'<line class="one" x1="{one:.1f}" x2="{one:.1f}" y1="{HEAD - 14}" y2="{height - 12}"/>')
    return "\n".join(lines), height


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    target.write_text(plot(json.loads(source.read_text())))
    print(target)
