"""The answer to a question: a table of figures, with aims for some of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ("Aim", "Answer", "Row", "rounded")


@dataclass(frozen=True, slots=True)
class Aim:
    """The aim of a figure: at most, or at least, ``bound``."""

    column: str
    bound: float
    at_least: bool = False

    def is_met(self, figure: float) -> bool:
        return figure >= self.bound if self.at_least else figure <= self.bound

    def told(self, figure: float) -> str:
        relation = "at least" if self.at_least else "at most"
        return f"{self.column} {relation} {self.bound:g}: {'met' if self.is_met(figure) else 'MISSED'}"


@dataclass(frozen=True, slots=True)
class Row:
    """One contestant's figures by column; None if it has no figure."""

    name: str
    figures: dict[str, float | None]
    aims: tuple[Aim, ...] = ()

    def aimed(self) -> list[tuple[Aim, float]]:
        return [(aim, figure) for aim in self.aims if (figure := self.figures.get(aim.column)) is not None]


@dataclass(slots=True)
class Answer:
    """The answer to one question. ``notes``: how it was measured, and why contestants were left out."""

    key: str  # in the JSON
    question: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for row in self.rows for column in row.figures))

    def as_json(self) -> dict[str, Any]:
        return {
            "question": self.question,
            "rows": {row.name: row.figures for row in self.rows},
            "aims": [
                {"row": row.name, "column": aim.column, "bound": aim.bound, "at_least": aim.at_least,
                 "figure": figure, "met": aim.is_met(figure)}
                for row in self.rows for aim, figure in row.aimed()
            ],
            "notes": self.notes,
        }  # fmt: skip

    def table(self) -> str:
        """The table as text, with the aims at the end of the rows."""
        head = ["", *self.columns, "aims"]
        lines = [head, *([row.name, *map(_cell, self._cells(row)), _aims(row)] for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        told = [_line(line, widths) for line in lines]
        return "\n".join([f"\n== {self.question}", *told, *(f"   {note}" for note in self.notes)])

    def _cells(self, row: Row) -> list[float | None]:
        return [row.figures.get(column) for column in self.columns]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *figures, aims = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join([name.strip().ljust(widths[0]), *figures, aims.strip()]).rstrip()


def _cell(figure: float | None) -> str:
    if figure is None:
        return "-"
    if abs(figure) >= 1000:
        return f"{figure:,.0f}"
    return f"{figure:.3g}" if abs(figure) < 1 else f"{figure:.4g}"


def _aims(row: Row) -> str:
    return "; ".join(aim.told(figure) for aim, figure in row.aimed())


def rounded(figure: float, digits: int = 4) -> float:
    """A figure rounded to significant digits: ``rounded(12.34567) == 12.35``."""
    return float(f"{figure:.{digits}g}")
