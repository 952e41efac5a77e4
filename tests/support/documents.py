"""The documents: their pages, links and blocks, and how blocks run.

- A ``python`` block either is an excerpt of a Python file beside its page (chunks of it, in their order, where a line
  ``# ...`` stands for what is left out) or runs by itself. ``py`` is code of other frameworks, which does not run.
- A ``text`` block whose lines are ``> {...}`` and ``< {...}`` is an exchange: frames that are sent to the app beside
  the page, and what comes back. ``ada > {...}`` is a connection of its own. What comes back may have more keys than are
  shown, but not within them; the value ``"…"`` stands for any.
- A ``sh`` block is parsed by bash, and its commands are looked up.
"""

import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "examples" / "guide"
CHAPTERS = sorted(page.parent for page in GUIDE.glob("*/README.md"))
PAGES = [
    ROOT / "README.md",
    ROOT / "examples" / "README.md",
    *(chapter / "README.md" for chapter in CHAPTERS),
    *(ROOT / folder / "README.md" for folder in ("wsaction", "wsaction/_protocol", "benchmarks", "tests")),
]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LEFT_OUT = re.compile(r"^[ \t]*# \.\.\.$\n?", re.MULTILINE)
ANY = "…"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. ``line`` is that of its first line within the page."""

    page: Path
    language: str
    source: str
    line: int

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, language: str) -> list[Block]:
    """Returns the blocks of a page in one language."""
    text = page.read_text()
    return [
        Block(page, found[1], found[2], text.count("\n", 0, found.start(2)) + 1)
        for found in FENCE.finditer(text)
        if found[1] == language
    ]


def all_blocks(language: str) -> list[Block]:
    """Returns the blocks of all pages in one language."""
    return [block for page in PAGES for block in blocks(page, language)]


def excerpt_of(block: Block) -> Path | None:
    """Returns the Python file beside the page that holds the block, if there is one."""
    return next((file for file in sorted(block.page.parent.glob("*.py")) if _is_excerpt(block.source, file)), None)


def _is_excerpt(source: str, file: Path) -> bool:
    text, at = file.read_text(), 0
    for indent in ("", "    "):
        at = 0
        for chunk in LEFT_OUT.split(source):
            chunk = textwrap.indent(chunk.strip("\n"), indent)
            found = text.find(chunk + "\n", at)
            if found < 0 or (found and text[found - 1] != "\n"):
                break
            at = found + len(chunk)
        else:
            return True
    return False


def run_block(block: Block) -> dict[str, Any]:
    """Runs a block by itself and returns the names that it defines. Errors name the line of the page."""
    namespace: dict[str, Any] = {"__name__": "document"}
    exec(compile("\n" * (block.line - 1) + block.source, str(block.page), "exec"), namespace)
    return namespace


def names_of(containing: str, page: Path = ROOT / "README.md") -> dict[str, Any]:
    """Runs the only Python block of a page that contains a text, and returns the names that it defines."""
    (block,) = (block for block in blocks(page, "python") if containing in block.source)
    return run_block(block)


def load(file: Path) -> ModuleType:
    """Runs a Python file beside a page anew, as a module of its own.

    What it imports from beside it is found if its folder is on `sys.path`.
    """
    name = re.sub(r"\W", "_", str(file.relative_to(ROOT).with_suffix("")))
    spec = spec_from_file_location(name, file)
    assert spec
    assert spec.loader
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Line:
    """A line of an exchange: who speaks (``""`` for the only client), whether it is sent, and the frame."""

    who: str
    sent: bool
    text: str
    block: Block


EXCHANGE = re.compile(r"^(?:(\w+) )?([<>]) (\{.*\})$")


def exchange(block: Block) -> list[Line]:
    """Returns the lines of an exchange, or nothing where the block is another text."""
    lines = block.source.splitlines()
    if not any(EXCHANGE.match(line) for line in lines):
        return []
    found = []
    for line in filter(None, lines):
        match = EXCHANGE.match(line)
        assert match, f"{block}: neither a frame that is sent (`> {{...}}`) nor one that comes (`< {{...}}`): {line}"
        found.append(Line(match[1] or "", match[2] == ">", match[3], block))
    return found


def differences(shown: Any, came: Any, place: str = "") -> Iterator[str]:
    """Yields where a frame that came is not what is shown of it. Only the frame itself may have more keys."""
    if shown == ANY:
        return
    if isinstance(shown, dict) and isinstance(came, dict):
        for key in shown.keys() | (came.keys() if place else set()):
            if key not in came or key not in shown:
                yield f"{place}/{key} is only {'shown' if key in shown else 'sent'}"
            else:
                yield from differences(shown[key], came[key], f"{place}/{key}")
    elif isinstance(shown, list) and isinstance(came, list) and len(shown) == len(came):
        for index, pair in enumerate(zip(shown, came, strict=True)):
            yield from differences(*pair, f"{place}/{index}")
    elif shown != came or type(shown) is not type(came):
        yield f"{place} is {came!r} instead of {shown!r}"


LINK = re.compile(r"(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


def links(page: Path) -> list[str]:
    """Returns the targets of a page's links, outside of its blocks."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))
    return [a or b for a, b in LINK.findall(text)]


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    made: set[str] = set()
    for title in re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        made.add(slug if slug not in made else next(s for n in range(1, 99) if (s := f"{slug}-{n}") not in made))
    return made
