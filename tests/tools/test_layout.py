"""The six bands of the package: imports point to a lower band, or sideways without a cycle between packages."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import wsaction

PACKAGE = Path(wsaction.__file__).parent

BANDS = (
    "routing converters exceptions limits hooks _protocol _utils",
    "permissions authentication throttling transactions units querysets serializers filters pagination routers layers",
    "_connection _pubsub dialects",
    "_handlers _dispatch _events _server",
    "handlers consumers decorators dependencies subscriptions presence mixins generics",
    "applications server asyncapi codegen cli contrib __main__",
)
BAND = {name: number for number, line in enumerate(BANDS, 1) for name in line.split()}
BESIDE: dict[str, set[str]] = {  # packages beside the bands, with the packages that each may import
    "client": {"_protocol", "_utils"},
    "testing": {"querysets", "serializers", "transactions", "layers", "exceptions"},
}

# Only these packages import third-party libraries; `routing` and the ground below it import none.
THIRD_PARTY = {
    "anyio": "_utils testing",
    "click": "cli",
    "opentelemetry": "contrib",
    "prometheus_client": "contrib",
    "redis": "layers",
    "sqlalchemy": "contrib",
    "starlette": "applications handlers",
    "tree_sitter": "codegen",
    "tree_sitter_typescript": "codegen",
    "uvicorn": "server _server",
    "websockets": "client _server",
}
WITHOUT_PYDANTIC = {"routing", "_utils", "hooks", "limits", "layers", "_connection", "_pubsub", "testing"}


def modules() -> list[str]:
    paths = [path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")]
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths if path.parts != ("__init__",))


def tree_of(module: str) -> ast.Module:
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    return ast.parse((path if path.exists() else path.with_suffix("") / "__init__.py").read_text())


def package_of(module: str) -> str:
    """Returns the top-level package or module of a module, which has a band."""
    return module.partition(".")[0]


def imports(module: str) -> Iterator[str]:
    """Yields the imports of a module at run time, without those under ``if TYPE_CHECKING``."""
    nodes: list[ast.AST] = [tree_of(module)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes += node.orelse
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            name = node.module or ""
            yield from ([name] if name != "wsaction" else [f"wsaction.{alias.name}" for alias in node.names])
        else:
            nodes += ast.iter_child_nodes(node)


def edges() -> set[tuple[str, str]]:
    """Returns pairs of packages of which the first imports the second."""
    found = {
        (package_of(module), package_of(name.removeprefix("wsaction.")))
        for module in modules()
        for name in imports(module)
        if name.startswith("wsaction.") and name != "wsaction.__version__"
    }
    return {(above, below) for above, below in found if above != below}


def test_test_modules_import_no_other_test_module() -> None:
    for path in Path(__file__).parents[1].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert "test_" not in (node.module or ""), f"{path}: what test modules share is in tests/support"


def test_every_package_has_a_band() -> None:
    assert {package_of(module) for module in modules()} == set(BAND) | set(BESIDE)


def test_imports_point_to_a_lower_band_or_sideways() -> None:
    for above, below in edges():
        if above in BESIDE:
            assert below in BESIDE[above], f"{above} imports {below}"
        elif below == "client":
            assert above == "cli", f"{above} imports the client"
        else:
            assert BAND[below] <= BAND[above], f"{above} imports {below}, which is in a band above it"


def test_packages_have_no_import_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for above, below in edges():
        graph.setdefault(above, set()).add(below)
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle
    assert set(graph) <= set(order)


@pytest.mark.parametrize("module", modules())
def test_third_party_imports_are_limited_to_packages(module: str) -> None:
    package, foreign = package_of(module), {name.partition(".")[0] for name in imports(module)}
    for name in foreign - set(sys.stdlib_module_names) - {"wsaction"}:
        if name in ("pydantic", "pydantic_core", "typing_extensions"):
            assert package not in WITHOUT_PYDANTIC, f"{module} imports {name}"
        else:
            assert package in THIRD_PARTY[name].split(), f"{module} imports {name}"


@pytest.mark.parametrize("module", modules())
def test_modules_have_docstrings_and_long_ones_say_why(module: str) -> None:
    tree = tree_of(module)
    docstring = ast.get_docstring(tree)
    assert docstring
    assert (tree.body[-1].end_lineno or 0) <= 500 or "one thing" in docstring


def test_the_router_alone_loads_the_standard_library_only() -> None:
    code = "import sys, wsaction.routing; print(*{name.partition('.')[0] for name in sys.modules})"
    out = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=30)
    loaded = set(out.stdout.split()) - set(sys.stdlib_module_names) - {"wsaction", "__main__"}
    assert {name for name in loaded if not name.startswith(("_", "sitecustomize", "usercustomize"))} == set()


def test_importing_builds_nothing_with_pydantic() -> None:
    code = "import sys, wsaction.applications; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    slow = {"pydantic.fields", "pydantic.types", "pydantic.plugin._loader", "importlib.resources"}
    assert set(out.stdout.split()) & slow == set()
