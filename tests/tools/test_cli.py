"""The commands ``routes``, ``asyncapi``, ``check``, ``codegen`` and ``run``, including wrong usage."""

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from examples.quickstart import app as quickstart
from wsaction.cli import main
from wsaction.cli._output import table, write_output
from wsaction.codegen import erase_types, react_hooks
from wsaction.codegen._typescript import runtime

QUICKSTART = "examples.quickstart:app"
EVERYTHING = ("tests.support.kitchen_sink_app:everything", "--factory")
ENTRY = [sys.executable, "-m", "wsaction"]

APPS = """
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.routing import path

class Root(AsyncAPIConsumer):
    @async_action
    async def echo(self, text: str) -> str:
        return text

class Settings:
    app = WSAction([path("ws/", Root.as_asgi())])

app = Settings.app
application = Settings.app
number = 7

def make():
    return WSAction([path("a/", Root.as_asgi()), path("b/<slug:tenant>/", Root.as_asgi())])

def broken():
    return 7
"""


@pytest.fixture(autouse=True)
def _paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores the path that commands extend."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[str]:
    """A folder with apps in ``cli_apps.py``, a module with a failing import, and a module without an app."""
    (tmp_path / "cli_apps.py").write_text(APPS)
    (tmp_path / "cli_broken.py").write_text("import surely_not_installed\n")
    (tmp_path / "cli_plain.py").write_text(
        "def app(scope, receive, send): ...\nclass Box:\n    __slots__ = ()\nbox = Box()\n"
    )
    yield str(tmp_path)
    for name in ("cli_apps", "cli_broken", "cli_plain"):
        sys.modules.pop(name, None)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments])


# ------------------------------------------------------------------------------------------------ the entry
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--version"], 0, "wsaction 0"),
        (["check", QUICKSTART], 0, "0 errors, 3 warnings"),
        pytest.param(["routes", QUICKSTART], 0, "cards/<int:pk>/", marks=pytest.mark.slow),
        pytest.param(["asyncapi", QUICKSTART], 0, '"asyncapi": "3.1.0"', marks=pytest.mark.slow),
        pytest.param(
            ["codegen", "typescript", QUICKSTART], 0, "export class Client extends BaseClient", marks=pytest.mark.slow
        ),
        pytest.param(["--help"], 0, "codegen", marks=pytest.mark.slow),
    ],
)
def test_each_command_in_a_subprocess(arguments: list[str], code: int, text: str) -> None:
    done = subprocess.run([*ENTRY, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (code, "")
    assert text in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["run"],
        *(
            pytest.param(c, marks=pytest.mark.slow)
            for c in (["routes"], ["asyncapi"], ["check"], ["codegen", "typescript"], ["codegen", "javascript"])
        ),
    ],
)
def test_wrong_usage_exits_with_2_and_one_line(command: list[str]) -> None:
    done = subprocess.run([*ENTRY, *command, "main"], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr.splitlines()[-1]
        == "Error: Invalid value for MODULE:APP: expected MODULE:APP, as in main:app, got 'main'"
    )
    assert "Traceback" not in done.stderr


def test_every_command_has_help() -> None:
    codegen = (["codegen"], *(["codegen", name] for name in ("typescript", "javascript", "python")))
    for command in (["routes"], ["asyncapi"], ["check"], *codegen, ["run"], ["call"]):
        text = run(*command, "--help")
        assert text.exit_code == 0
        assert "Usage: " in text.stdout


# ------------------------------------------------------------------------------------------------ MODULE:APP
@pytest.mark.parametrize(
    ("target", "text"),
    [
        (":app", "expected MODULE:APP, as in main:app, got ':app'"),
        ("cli_apps:", "expected MODULE:APP, as in main:app, got 'cli_apps:'"),
        (
            "./cli_apps.py:app",
            "expected MODULE:APP, as in main:app, got './cli_apps.py:app'; a module has no folders and "
            "no .py: write cli_apps:app",
        ),
        (
            "up/cli_apps.py:app",
            "expected MODULE:APP, as in main:app, got 'up/cli_apps.py:app'; a module has no folders and "
            "no .py: write cli_apps:app --app-dir up",
        ),
        ("lost.py:app", "there is no module 'lost.py'; a module has no folders and no .py: write lost:app"),
        (".cli_apps:app", "expected MODULE:APP, as in main:app, got '.cli_apps:app'"),
        ("..:app", "expected MODULE:APP, as in main:app, got '..:app'"),
        ("a b:app", "expected MODULE:APP, as in main:app, got 'a b:app'"),
        ("cli_aps:app", "there is no module 'cli_aps'; did you mean 'cli_apps'?"),
        ("nowhere:app", "there is no module 'nowhere' in "),
        ("nowhere.below:app", "there is no module 'nowhere.below' in "),
        ("cli_apps:ap", "cli_apps has no 'ap'; did you mean 'app'?"),
        ("cli_apps:zzz", "cli_apps has no 'zzz'; did you mean 'app'?"),
        ("cli_apps:Settings.ap", "cli_apps has no 'Settings.ap'; did you mean 'app'?"),
        ("cli_plain:zzz", "cli_plain has no 'zzz'"),
        ("cli_plain:box.a", "cli_plain has no 'box.a'"),
        ("cli_apps:number", "cli_apps:number is a int, not a WSAction; did you mean cli_apps:app?"),
        (
            "cli_plain:app",
            "cli_plain:app is a function, not a WSAction; pass --factory if it is a function that makes",
        ),
        ("cli_plain:box", "cli_plain:box is a Box, not a WSAction; name the WSAction that it mounts or serves"),
    ],
)
def test_invalid_targets_are_refused(folder: str, target: str, text: str) -> None:
    result = run("routes", target, "--app-dir", folder)
    assert result.exit_code == 2
    assert f"Error: Invalid value for MODULE:APP: {text}" in result.stderr


def test_apps_are_found(folder: str) -> None:
    assert run("routes", "cli_apps:Settings.app", "--app-dir", folder).exit_code == 0
    assert "b/<slug:tenant>/" in run("routes", "cli_apps:make", "--factory", "--app-dir", folder).stdout
    result = run("routes", "cli_apps:app", "--factory", "--app-dir", folder)
    assert "--factory: cli_apps:app is a WSAction, not a function; leave --factory out" in result.stderr
    result = run("routes", "cli_apps:broken", "--factory", "--app-dir", folder)
    assert (result.exit_code, "is a int, not a WSAction" in result.stderr) == (2, True)
    assert os.environ["PYTHONPATH"].split(os.pathsep).count(folder) == 1


def test_an_import_error_of_a_module_is_shown(folder: str) -> None:
    result = run("routes", "cli_broken:app", "--app-dir", folder)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[0] == "Traceback (most recent call last):"
    assert result.stderr.splitlines()[1] == f'  File "{folder}/cli_broken.py", line 1, in <module>'  # the user's
    assert result.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'surely_not_installed'"


@pytest.mark.parametrize(
    ("code", "last"),
    [
        ("def f(:", "SyntaxError: invalid syntax"),
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("raise ValueError('boom')", "ValueError: boom"),
        ("x = '\\N{nothing}'", "SyntaxError: (unicode error)"),
    ],
)
@pytest.mark.parametrize("command", [["check"], ["run"]])
def test_a_broken_module_shows_only_its_own_traceback(tmp_path: Path, command: list[str], code: str, last: str) -> None:
    (tmp_path / "cli_bad.py").write_text(code)
    result = run(*command, "cli_bad:app", "--app-dir", str(tmp_path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1].startswith(last)
    assert "cli_bad.py" in result.stderr
    assert "_loading.py" not in result.stderr
    assert "importlib" not in result.stderr


@pytest.mark.parametrize("factory", ["broken_factory", "wanting"])
def test_a_factory_that_fails_shows_its_own_traceback(folder: str, factory: str) -> None:
    (Path(folder) / "cli_factories.py").write_text(
        "def broken_factory():\n    raise ValueError('boom')\ndef wanting(x): ...\n"
    )
    result = run("check", f"cli_factories:{factory}", "--factory", "--app-dir", folder)
    assert (result.exit_code, "cli_loading.py" in result.stderr) == (1, False)
    assert result.stderr.splitlines()[-1] in (
        "ValueError: boom",
        "TypeError: wanting() missing 1 required positional argument: 'x'",
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--uds", "/nowhere/at.sock"], "Invalid value for --uds: there is no folder for /nowhere/at.sock"),
        (["--ssl-keyfile", __file__], "give --ssl-certfile too"),
    ],
)
def test_run_refuses_invalid_options(folder: str, options: list[str], text: str) -> None:
    result = run("run", "cli_apps:app", "--app-dir", folder, *options)
    assert (result.exit_code, text in result.stderr) == (2, True)


def test_an_os_error_is_reported_in_one_line(folder: str) -> None:
    options = ["--ssl-keyfile", __file__, "--ssl-certfile", __file__]
    result = run("run", "cli_apps:app", "--app-dir", folder, *options)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("Error: [SSL]")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["-o", "/dev/full"], []])
def test_a_full_disk_is_reported_in_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*ENTRY, "asyncapi", QUICKSTART, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode in (1, 2)
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


MISTAKES = """
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.decorators import async_action
from wsaction.routing import path

class Desk(AsyncAPIConsumer): ...
class Cards(AsyncAPIActionHandler): ...
"""


@pytest.fixture
def mistaken(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Returns a function that writes a module ``cli_mistaken`` with this code at its end, and returns its folder."""

    def write(code: str) -> str:
        (tmp_path / "cli_mistaken.py").write_text(MISTAKES + code)
        return str(tmp_path)

    yield write
    sys.modules.pop("cli_mistaken", None)


@pytest.mark.parametrize("command", [["routes"], ["asyncapi"], ["check"], ["codegen", "typescript"], ["run"]])
def test_a_wrong_declaration_is_reported_in_one_line(mistaken: Callable[[str], str], command: list[str]) -> None:
    folder = mistaken("app = WSAction([path('ws/', Desk.as_asgi(colour=1))])\n")
    result = run(*command, "cli_mistaken:app", "--app-dir", folder)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.endswith(" (cli_mistaken.py, line 10)\n")
    assert result.stderr.count("\n") == 1


def test_an_error_found_by_a_command_is_reported_in_one_line(mistaken: Callable[[str], str]) -> None:
    folder = mistaken("Cards.routepatterns = [7]\napp = WSAction([path('ws/', Cards.as_aaah())])\n")
    result = run("routes", "cli_mistaken:app", "--app-dir", folder)  # read after the import: no line to name
    assert (result.exit_code, result.stderr) == (1, "Error: A pattern is what path() or re_path() returns, got 7.\n")


@pytest.mark.parametrize(("name", "mount"), [("Desk", "as_asgi"), ("Cards", "as_aaah")])
def test_run_refuses_a_class(mistaken: Callable[[str], str], name: str, mount: str) -> None:
    result = run("run", f"cli_mistaken:{name}", "--app-dir", mistaken(""))
    assert result.exit_code == 2
    text = f"cli_mistaken:{name} is a class; write app = {name}.{mount}(), or put that in a WSAction"
    assert text in result.stderr


@pytest.mark.parametrize(
    ("code", "options", "text"),
    [
        ("app = 3", [], "cli_mistaken:app is a int, not an app; write app = WSAction([...])"),
        ("app = [path('ws/', Desk.as_asgi())]", [], "cli_mistaken:app is a list, not an app; write app = WSAction"),
        ("app = None\nwhole = WSAction([])", [], "is a NoneType, not an app; did you mean cli_mistaken:whole?"),
        ("app = WSAction([])", ["--factory"], "--factory: cli_mistaken:app is a WSAction, not a function; leave"),
    ],
)
def test_run_refuses_what_is_not_an_app(
    mistaken: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, code: str, options: list[str], text: str
) -> None:
    monkeypatch.setattr("wsaction.cli.run_app", lambda *_, **__: None)
    result = run("run", "cli_mistaken:app", "--app-dir", mistaken(code), *options)
    assert (result.exit_code, text in result.stderr) == (2, True), result.stderr


def test_run_names_a_missing_module(folder: str) -> None:
    result = run("run", "cli_aps:app", "--app-dir", folder)
    assert (result.exit_code, "there is no module 'cli_aps'; did you mean 'cli_apps'?" in result.stderr) == (2, True)


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_run_names_a_missing_app(folder: str, workers: list[str]) -> None:
    result = run("run", "cli_apps:ap", "--app-dir", folder, *workers)
    assert (result.exit_code, "cli_apps has no 'ap'; did you mean 'app'?" in result.stderr) == (2, True)


def test_run_does_not_reload_several_workers(folder: str) -> None:
    result = run("run", "cli_apps:app", "--app-dir", folder, "--workers", "2", "--reload")
    assert (result.exit_code, "leave out --workers or --reload" in result.stderr) == (2, True)


def test_a_broken_package_and_a_module_without_a_spec(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(folder) / "cli_package"
    package.mkdir()
    (package / "__init__.py").write_text("import surely_not_installed\n")
    result = run("routes", "cli_package.main:app", "--app-dir", folder)
    assert (result.exit_code, "No module named 'surely_not_installed'" in result.stderr) == (1, True)
    by_hand = types.ModuleType("cli_by_hand")
    by_hand.__spec__ = None
    by_hand.app = quickstart  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cli_by_hand", by_hand)
    assert run("routes", "cli_by_hand:app", "--app-dir", folder).exit_code == 0


# ------------------------------------------------------------------------------------------------ routes, asyncapi
def test_routes() -> None:
    lines = run("routes", QUICKSTART).stdout.splitlines()
    assert lines[0].split() == ["CONNECTION", "ROUTE", "NAME", "HANDLER", "ACTIONS", "PERMISSIONS", "LIVE"]
    assert lines[3].split() == ["ws/", "cards/<int:pk>/", "-", "CardHandler", "retrieve", "-", "-"]
    text = run("routes", *EVERYTHING).stdout
    assert "plant, fell [DenyAll], pages, other," in text
    assert "(another ASGI app)" in text


def test_routes_as_json() -> None:
    text = json.loads(run("routes", *EVERYTHING, "--json").stdout)
    forest = next(entry for entry in text if entry["route"] == "forests/<int:pk>/")
    assert list(forest) == ["connection", "route", "name", "handler", "actions", "permissions", "live"]
    assert forest["actions"][1] == {"action": "fell", "streams": False, "permissions": ["DenyAll"]}
    assert [entry["name"] for entry in text if entry["name"]] == ["rows:row", "rows:row"]


def test_asyncapi(tmp_path: Path) -> None:
    assert json.loads(run("asyncapi", QUICKSTART).stdout) == quickstart.asyncapi()
    file = tmp_path / "asyncapi.json"
    assert run("asyncapi", QUICKSTART, "-o", str(file)).stderr == f"wrote {file}\n"
    assert json.loads(file.read_text()) == quickstart.asyncapi()


# ------------------------------------------------------------------------------------------------ check
def test_check() -> None:
    result = run("check", *EVERYTHING, "--workers", "2")
    assert result.exit_code == 1
    assert (
        "error    duplicate_route  (root) with/kwargs/\n         never reached: its pattern is the same as"
        in result.stdout
    )
    assert "         cure: remove one of the two" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("3 errors, ")


def test_check_as_json_and_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("check", QUICKSTART, "--json")
    text = json.loads(result.stdout)
    assert (result.exit_code, text["errors"], text["warnings"]) == (0, 0, 3)
    assert list(text["findings"][0]) == ["level", "code", "place", "msg", "cure"]
    assert run("check", QUICKSTART, "--strict").exit_code == 1
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    assert "memory_layer" in run("check", *EVERYTHING).stdout
    assert "memory_layer" not in run("check", *EVERYTHING, "--workers", "1").stdout


# ------------------------------------------------------------------------------------------------ codegen
def test_codegen_writes_a_file_only_if_it_changed(tmp_path: Path) -> None:
    file = tmp_path / "client.ts"
    command = ("codegen", "typescript", QUICKSTART, "-o", str(file))
    result = run(*command, "--check")
    assert (result.exit_code, result.stderr) == (1, f"{file} is missing; run the command without --check\n")
    assert run(*command).stderr == f"wrote {file}\n"
    assert file.read_text() == run("codegen", "typescript", QUICKSTART).stdout
    assert (file.stat().st_mode & 0o777, list(tmp_path.iterdir())) == (0o644, [file])
    assert run(*command, "--check").exit_code == 0
    written = file.stat().st_mtime_ns
    assert run(*command).stderr == f"{file} is up to date\n"
    assert file.stat().st_mtime_ns == written
    file.chmod(0o600)
    file.write_text("old")
    result = run(*command, "--check")
    assert (result.exit_code, result.stderr) == (1, f"{file} is out of date; run the command without --check\n")
    assert file.read_text() == "old"
    run(*command)
    assert (file.stat().st_mode & 0o777, runtime() in file.read_text()) == (0o600, True)


def test_codegen_writes_javascript_and_its_types_beside_it(tmp_path: Path) -> None:
    script, types = tmp_path / "client.js", tmp_path / "client.ts"
    command = ("codegen", "javascript", QUICKSTART, "-o", str(script))
    result = run(*command, "--check")
    again = "run the command without --check"
    assert (result.exit_code, result.stderr) == (1, f"{script} is missing; {again}\n{types} is missing; {again}\n")
    assert run(*command).stderr == f"wrote {script}\nwrote {types}\n"
    assert script.read_text() == run("codegen", "javascript", QUICKSTART).stdout == erase_types(types.read_text())
    assert types.read_text() == run("codegen", "typescript", QUICKSTART).stdout
    assert run(*command, "--check").exit_code == 0
    types.write_text("old")
    assert run(*command, "--check").stderr == f"{types} is out of date; {again}\n"
    assert run("codegen", "javascript", QUICKSTART, "-o", str(tmp_path / "a.mjs")).exit_code == 0
    assert (tmp_path / "a.mts").read_text() == run("codegen", "typescript", QUICKSTART).stdout


def test_codegen_writes_the_hooks_for_react_beside_the_client(tmp_path: Path) -> None:
    client, hooks = tmp_path / "cards.ts", tmp_path / "cards.react.ts"
    command = ("codegen", "typescript", QUICKSTART, "-o", str(client), "--react")
    assert run(*command).stderr == f"wrote {client}\nwrote {hooks}\n"
    assert client.read_text() == run("codegen", "typescript", QUICKSTART).stdout
    assert hooks.read_text() == react_hooks("cards")
    assert 'from "./cards";' in hooks.read_text()
    hooks.write_text("old")
    result = run(*command, "--check")
    assert (result.exit_code, result.stderr) == (1, f"{hooks} is out of date; run the command without --check\n")


def test_codegen_writes_python(tmp_path: Path) -> None:
    file = tmp_path / "client.py"
    command = ("codegen", "python", QUICKSTART, "-o", str(file))
    assert run(*command, "--check").exit_code == 1
    assert run(*command).stderr == f"wrote {file}\n"
    assert "class Client(_BaseClient):" in file.read_text()
    assert file.read_text() == run("codegen", "python", QUICKSTART).stdout
    assert run(*command, "--check").exit_code == 0


def test_codegen_of_javascript_names_the_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(source: str) -> str:
        raise ImportError("JavaScript needs tree-sitter")

    monkeypatch.setattr(
        sys.modules["wsaction.cli.codegen"], "erase_types", fails
    )  # the package has a group of that name
    result = run("codegen", "javascript", QUICKSTART)
    assert (result.exit_code, result.stderr) == (1, "Error: JavaScript needs tree-sitter\n")


def test_wrong_usage_of_codegen_of_javascript() -> None:
    result = run("codegen", "javascript", QUICKSTART, "-o", "client.ts")
    assert (result.exit_code, "client.ts must end in .js or .mjs" in result.stderr) == (2, True)
    assert run("codegen", "javascript", QUICKSTART, "--check").exit_code == 2


def test_a_failed_write_leaves_the_file_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("codegen", "typescript", QUICKSTART, "-o", str(tmp_path / "no" / "client.ts"))
    assert (result.exit_code, "cannot be written to: No such file or directory" in result.stderr) == (2, True)
    file = tmp_path / "client.ts"
    file.write_text("old")

    def fails(self: Path, target: Path) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="full"):
        write_output("new", file)
    assert (file.read_text(), list(tmp_path.iterdir())) == ("old", [file])


@pytest.mark.parametrize("text", ["ws/<int:tenant>/", "ws/{tenant}/", "/ws/{tenant}/", "ws/<tenant>/"])
def test_codegen_of_one_of_several_connections(text: str) -> None:
    result = run("codegen", "typescript", *EVERYTHING, "--path", text)
    assert "connection /ws/{tenant}/." in result.stdout


def test_codegen_of_a_regex_connection() -> None:
    assert run("codegen", "typescript", *EVERYTHING, "--path", "x.y").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            [*EVERYTHING],
            "the app has 5 connections of wsaction; choose one with --path: '', 'ws/{tenant}/', 'alone/', 'hidden/'",
        ),
        ([*EVERYTHING, "--path", "nowhere/"], "the app has no connection 'nowhere/'; it has '', 'ws/{tenant}/'"),
        ([QUICKSTART, "--check"], "--check needs a file to compare with; set it with -o FILE"),
        ([QUICKSTART, "-o", "/"], "is a directory"),
        ([QUICKSTART, "--react"], "--react writes a second file; name the first one with -o FILE.ts"),
        ([QUICKSTART, "-o", "client.mts", "--react"], "client.mts must end in .ts for --react"),
        ([], "Missing argument 'MODULE:APP'"),
    ],
)
def test_wrong_usage_of_codegen(arguments: list[str], text: str) -> None:
    result = run("codegen", "typescript", *arguments)
    assert result.exit_code == 2
    assert text in result.stderr


def test_an_app_without_connections(tmp_path: Path) -> None:
    (tmp_path / "cli_empty.py").write_text(
        'from wsaction.applications import WSAction\napp = WSAction([], allowed_hosts=["*"])\n'
    )
    result = run("codegen", "typescript", "cli_empty:app", "--app-dir", str(tmp_path))
    assert "the app has 0 connections" in result.stderr
    result = run("codegen", "typescript", "cli_empty:app", "--app-dir", str(tmp_path), "--path", "ws/")
    assert "the app has no connection 'ws/'; it has none" in result.stderr
    assert run("check", "cli_empty:app", "--app-dir", str(tmp_path)).stdout == "0 errors, 0 warnings\n"
    sys.modules.pop("cli_empty")


def test_tables() -> None:
    text = table(("A", "BB"), [("long one", "x y z"), ("", "averylongword b")], {"BB": 3})
    assert text.splitlines() == [
        "A         BB",
        "long one  x y",
        "          z",
        "          averylongword",
        "          b",
    ]
    assert table(("A",), [], {}) == "A"
