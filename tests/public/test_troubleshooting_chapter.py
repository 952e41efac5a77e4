"""Chapter 10 quotes what the server really says, and leaves out no error type and no close code."""

import ast
import re
from functools import cache

import pytest

from tests.support.documents import FENCE, GUIDE, ROOT
from wsaction._protocol.close_codes import MEANINGS
from wsaction.exceptions import CATALOGUE

PAGE = (GUIDE / "10-troubleshooting" / "README.md").read_text()
TEXT = re.sub(r"`[^`\n]*`", "", FENCE.sub("", PAGE))  # without code
QUOTED = sorted({" ".join(text.split()) for text in re.findall(r'"([^"]+)"', TEXT)} - {"…"})


@cache
def said() -> frozenset[str]:
    """Every text in the source of wsaction, with ``…`` for what is put into it."""
    texts = set()
    for file in (ROOT / "wsaction").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            constants = [part.value if isinstance(part, ast.Constant) else "…" for part in parts]
            if all(isinstance(constant, str) for constant in constants) and constants != ["…"]:
                texts.add(re.sub(r"%[\d.]*[srdgf]", "…", "".join(map(str, constants))))
            elif isinstance(node, ast.Constant) and isinstance(node.value, bytes):
                texts.add(node.value.decode("latin-1"))
    return frozenset(texts)


def test_there_are_quotations() -> None:
    assert len(QUOTED) > 20


@pytest.mark.parametrize("text", QUOTED)
def test_the_server_says_what_is_quoted(text: str) -> None:
    """A quotation that ends in a value may be that of a limit, which every reason of a limit has at its end."""
    asked = text.removesuffix("; …") if text.endswith("; …") else text
    assert any(asked in one for one in said()), text


def test_a_text_that_nobody_says_is_found_out() -> None:
    assert not any("Pages of this origin may connect." in one for one in said())


def test_all_types_and_codes_are_explained() -> None:
    assert [name for name in CATALOGUE if f"`{name}`" not in PAGE] == []
    explained = {
        int(code)
        for cell in re.findall(r"^\| (\d{4}[^|]*)\|", PAGE, re.MULTILINE)
        for code in re.findall(r"\b\d{4}\b", cell)
    }
    assert explained >= set(MEANINGS)
