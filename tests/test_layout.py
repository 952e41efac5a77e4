"""The floors of the package: imports point down only, none within a floor, and heavy imports stay in their files."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wsaction

PACKAGE = Path(wsaction.__file__).parent

# A module imports from floors below its own only: each line is a floor.
FLOORS = [
    line.split()
    for line in """
converters limits concurrency alarms tasks backoff workers layers.scripts
misspellings
exceptions scopes lifespans origins hooks patterns algebra lookups markers fanouts locks layers.base
write_only
frames fairness serializers tries forms matches authentication redaction fields predicates paginators layers.links
schemas codegen.names showing
parameters addresses units layers.channels events codegen.members contrib.columns
dependencies recipients layers.rosters flushers announcements
topics outboxes layers.memory layers.redis layers.throttles
reversing signatures actions permissions admission narrowing memory cursors filters reconciliation
routing pagination declarations decorators throttling gates lanes querysets joins contrib.violations contrib.clauses
deadlines mounts routers hub grants contrib.sessions shadows middleware
users connections tables operations contrib.sqlalchemy
runtime
publishing visibility
broadcasts
dispatch asyncapi dialects.base inventory
serving changes dialects.dcrf
handlers pages
consumers mixins subscriptions
bases presence
generics
applications server
cli_call cli_loading cli_output checks codegen.types
codegen.typescript
cli_codegen cli_inspect
cli
__main__
""".strip().splitlines()
]
# Beside them, the client: it drives any server, and imports nothing of ours.
CLIENT_FLOORS = [
    line.split()
    for line in """
client.errors client.backoff client.close_codes
client.messages client.buffers client.sockets
client.pacing
client.links
client.dialing client.subscriptions
client.audiences client.lines
client.clients
""".strip().splitlines()
]
FLOOR = {name: number for number, floor in enumerate(FLOORS) for name in floor}
CLIENT_FLOOR = {name: number for number, floor in enumerate(CLIENT_FLOORS) for name in floor}

# Which of our modules may import what is not the standard library's.
THIRD_PARTY = {
    name: set(modules.split())
    for name, modules in {
        "starlette": "applications handlers",
        "pydantic": "actions exceptions serializers parameters dependencies signatures handlers querysets fields "
        "memory markers write_only mixins bases showing subscriptions client.messages schemas contrib.columns",
        "pydantic_core": "narrowing frames dialects.dcrf serializers signatures serving cursors bases events "
        "visibility users cli_call client.messages broadcasts consumers markers write_only memory schemas fields",
        "typing_extensions": "paginators",
        "sqlalchemy": "contrib.sqlalchemy contrib.sessions contrib.clauses contrib.columns contrib.violations",
        "redis": "layers.redis layers.throttles",
        "uvicorn": "server fairness",
        "click": "cli cli_call cli_codegen cli_inspect cli_loading cli_output",
        "websockets": "client.sockets fairness",
        "anyio": "concurrency testing.transports",
    }.items()
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
    assert {name for name in modules() if not name.startswith("testing.")} == set(FLOOR) | set(CLIENT_FLOOR)


@pytest.mark.parametrize("module", sorted(FLOOR))
def test_imports_point_down(module: str) -> None:
    for name in imports(module):
        if name.startswith("wsaction."):
            below = name.removeprefix("wsaction.")
            if below == "client" and module == "cli_call":
                continue
            assert FLOOR[below] < FLOOR[module], f"{module} imports {below}, which is not below it"


@pytest.mark.parametrize("module", sorted(CLIENT_FLOOR))
def test_the_client_imports_itself_only_downwards(module: str) -> None:
    for name in imports(module):
        if name.startswith("wsaction"):
            below = name.removeprefix("wsaction.")
            assert CLIENT_FLOOR[below] < CLIENT_FLOOR[module], f"{module} imports {below}, which is not below it"


@pytest.mark.parametrize("module", modules())
def test_third_parties_are_imported_where_they_belong(module: str) -> None:
    for name in {full.partition(".")[0] for full in imports(module)} - set(sys.stdlib_module_names) - {"wsaction"}:
        assert module in THIRD_PARTY.get(name, set()), f"{module} imports {name}"


@pytest.mark.parametrize("module", [name for name in modules() if name.startswith("testing.")])
def test_testing_stands_on_the_standard_library_and_anyio(module: str) -> None:
    own = [name.removeprefix("wsaction.") for name in imports(module) if name.startswith("wsaction")]
    if module in ("testing.querysets", "testing.things", "testing.layers"):  # contracts, with what they are about
        own = [name for name in own if FLOOR.get(name, 99) > FLOOR["narrowing"]]
    assert all(name.startswith("testing") for name in own)


@pytest.mark.parametrize("module", modules())
def test_a_module_has_a_docstring_and_one_of_over_500_lines_says_why_it_is_one_thing(module: str) -> None:
    source = (PACKAGE / Path(*module.split("."))).with_suffix(".py").read_text()
    docstring = ast.get_docstring(ast.parse(source))
    assert docstring
    assert source.count("\n") <= 500 or "one thing" in docstring


def test_the_package_re_exports_nothing() -> None:
    packages = {name.partition(".")[0] for name in modules()}
    assert {name for name in vars(wsaction) if not name.startswith("__")} <= set(modules()) | packages


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
