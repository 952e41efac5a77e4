"""The floors of the package: imports point down only, none within a floor, and heavy imports stay in their files."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wsaction

PACKAGE = Path(wsaction.__file__).parent

# A module imports from floors below its own only.
FLOORS = (
    ("converters", "limits", "concurrency", "origins", "lifespans"),
    ("exceptions", "patterns", "algebra"),
    ("frames", "serializers", "tries", "forms", "matches", "authentication", "redaction"),
    ("reversing", "actions", "querysets", "permissions", "admission"),
    ("routing", "outboxes", "declarations", "decorators", "runtime", "throttling", "gates"),
    ("connections",),
    ("mounts",),
    ("dispatch",),
    ("serving",),
    ("handlers",),
    ("consumers", "mixins"),
    ("generics",),
    ("applications",),
)
FLOOR = {name: number for number, floor in enumerate(FLOORS) for name in floor}

# Which of our modules may import what is not the standard library's.
THIRD_PARTY = {
    "starlette": {"applications", "handlers"},
    "pydantic": {"exceptions", "serializers", "actions", "declarations", "handlers", "querysets", "generics"},
    "pydantic_core": {"frames", "serializers", "serving"},
    "anyio": {"concurrency", "testing.transports"},
}


def modules() -> list[str]:
    paths = [path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")]
    return sorted(".".join(path.parts) for path in paths if path.name != "__init__")


def imports(module: str) -> Iterator[str]:
    source = (PACKAGE / Path(*module.split("."))).with_suffix(".py").read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ["wsaction", *module.split(".")[: -node.level]] if node.level else []
            yield ".".join([*package, *([node.module] if node.module else [])])


def test_every_module_has_a_floor() -> None:
    assert {name for name in modules() if not name.startswith("testing.")} == set(FLOOR)


@pytest.mark.parametrize("module", sorted(FLOOR))
def test_imports_point_down(module: str) -> None:
    for name in imports(module):
        if name.startswith("wsaction."):
            below = name.removeprefix("wsaction.")
            assert FLOOR[below] < FLOOR[module], f"{module} imports {below}, which is not below it"


@pytest.mark.parametrize("module", modules())
def test_third_parties_are_imported_where_they_belong(module: str) -> None:
    for name in {full.partition(".")[0] for full in imports(module)} - set(sys.stdlib_module_names) - {"wsaction"}:
        assert module in THIRD_PARTY.get(name, set()), f"{module} imports {name}"


@pytest.mark.parametrize("module", [name for name in modules() if name.startswith("testing.")])
def test_testing_stands_on_the_standard_library_and_anyio(module: str) -> None:
    assert all(name.startswith("wsaction.testing") for name in imports(module) if name.startswith("wsaction"))


@pytest.mark.parametrize("module", modules())
def test_a_module_has_a_docstring_and_at_most_350_lines(module: str) -> None:
    source = (PACKAGE / Path(*module.split("."))).with_suffix(".py").read_text()
    assert ast.get_docstring(ast.parse(source))
    assert source.count("\n") <= 350


def test_the_package_re_exports_nothing() -> None:
    assert {name for name in vars(wsaction) if not name.startswith("__")} <= set(modules()) | {"testing"}


def test_the_router_alone_loads_the_standard_library_only() -> None:
    code = "import sys, wsaction.routing; print(*{name.partition('.')[0] for name in sys.modules})"
    out = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=30)
    loaded = set(out.stdout.split()) - set(sys.stdlib_module_names) - {"wsaction", "__main__"}
    assert {name for name in loaded if not name.startswith(("_", "sitecustomize", "usercustomize"))} == set()
