"""`wsaction.codegen.erase_types`: kind by kind, without Node; `test_erase_types_node` asks the compiler."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.erasable import ERASED, REFUSED
from wsaction.codegen import erase_types
from wsaction.codegen._typescript import runtime


@pytest.mark.parametrize("kind", ERASED)
def test_types_are_erased_and_lines_kept(kind: str) -> None:
    typescript, javascript = ERASED[kind]
    assert erase_types(typescript) == javascript
    assert javascript.count("\n") == typescript.count("\n")


@pytest.mark.parametrize("kind", ERASED)
def test_javascript_is_left_unchanged(kind: str) -> None:
    javascript = ERASED[kind][1]
    assert erase_types(javascript) == javascript


@pytest.mark.parametrize("kind", REFUSED)
def test_unerasable_syntax_is_refused_with_its_position(kind: str) -> None:
    typescript, message = REFUSED[kind]
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # its message is what is asserted
        erase_types(typescript, "board.ts")
    assert str(caught.value).startswith(f"board.ts:{message}")


def test_the_clients_runtime_keeps_its_lines() -> None:
    lines = runtime().splitlines()
    erased = erase_types(runtime()).splitlines()
    assert len(erased) == len(lines)
    assert "class Link {" in erased
    assert erased.index("class Link {") == lines.index("class Link {")


def test_without_tree_sitter_the_error_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['tree_sitter'] = None\n"
        "from wsaction.codegen import erase_types, typescript\n"
        "try: erase_types('')\n"
        "except ImportError as error: print(error)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=30, check=True
    )
    assert done.stdout == "JavaScript needs tree-sitter: pip install 'wsaction[javascript]'\n"
