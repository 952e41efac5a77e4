"""``MODULE:APP``: the app that a command is about, and what is said where there is none."""

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from wsaction.applications import WSAction
from wsaction.exceptions import ImproperlyConfigured

__all__ = (
    "EXISTING_FILE",
    "app_argument",
    "app_dir_option",
    "check_factory",
    "check_module",
    "check_served",
    "factory_option",
    "find_target",
    "load",
    "summarize",
)

TARGET = "MODULE:APP"
EXISTING_FILE = click.Path(exists=True, dir_okay=False)
_EXISTING_FOLDER = click.Path(exists=True, file_okay=False)
_CLI, _IMPORTLIB = Path(__file__).parent, Path(importlib.util.__file__).parent

app_dir_option = click.option(
    "--app-dir", default=".", show_default=True, type=_EXISTING_FOLDER, help="Look for MODULE here."
)
factory_option = click.option("--factory", is_flag=True, help="APP is a function that makes the app.")


def app_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the app that ``MODULE:APP`` names as its first argument, with the options that find it."""

    @click.argument("target", metavar=TARGET)
    @app_dir_option
    @factory_option
    @wraps(command)
    def with_app(target: str, app_dir: str, factory: bool, **options: Any) -> Any:
        return command(load(target, app_dir=app_dir, factory=factory), **options)

    return with_app


def load(target: str, *, app_dir: str = ".", factory: bool = False) -> WSAction:
    """The app named ``"module:app"``, whose module is looked for in ``app_dir`` first; ``factory``: what it returns.

    Raises click's ``BadParameter`` where there is none, with what is near. What the module itself raises is printed as
    its own traceback, without our frames, and ends the command with 1.
    """
    module, app = find_target(target, app_dir)
    if factory:
        check_factory(app, target)
        app = _run_user_code(app)
    if not isinstance(app, WSAction):
        is_function = callable(app) and getattr(app, "__name__", None) and not isinstance(app, type)
        cure = "pass --factory where it is a function that makes one"
        cure = _suggest_app(module) or (cure if is_function else "name the WSAction that it mounts or serves")
        raise _bad_target(f"{target} is a {type(app).__name__}, not a WSAction; {cure}")
    return app


def find_target(target: str, app_dir: str) -> tuple[ModuleType, Any]:
    """The module of ``"module:app"`` and what is called so in it, whatever that is. Raises as `load` does."""
    name, attribute = check_module(target, app_dir)
    module = _run_user_code(importlib.import_module, name)
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise _bad_target(f"{name} has no {attribute!r}{_suggest_attribute(part, value)}")
        value = getattr(value, part)
    return module, value


def _run_user_code(function: Callable[..., Any], *args: Any) -> Any:
    """Runs what is the user's code; what it raises is printed from the first frame that is theirs."""
    try:
        return function(*args)
    except ImproperlyConfigured:  # which is told in one line
        raise
    except Exception as exc:
        trace = exc.__traceback__
        while trace is not None and _is_internal(trace.tb_frame.f_code.co_filename):
            trace = trace.tb_next
        click.echo("".join(traceback.format_exception(type(exc), exc, trace)).rstrip(), err=True)
        sys.exit(1)


def _is_internal(file: str) -> bool:
    return file.startswith("<frozen ") or Path(file).parent in (_CLI, _IMPORTLIB)


def check_factory(app: Any, target: str) -> None:
    """Raises as `load` does for what is no function that makes an app."""
    if isinstance(app, WSAction) or not callable(app):
        raise _bad_target(f"--factory: {target} is a {type(app).__name__}, not a function; leave --factory out")


def check_served(app: Any, target: str, module: ModuleType) -> None:
    """Raises as `load` does for what a server cannot call, and for a class of ours, which it would take for a function
    that makes an app."""
    mount = "as_asgi" if hasattr(app, "as_asgi") else "as_aaah"
    if isinstance(app, type) and hasattr(app, mount):
        raise _bad_target(f"{target} is a class; write app = {app.__name__}.{mount}(), or put that in a WSAction")
    if not callable(app):
        cure = _suggest_app(module) or "write app = WSAction([...])"
        raise _bad_target(f"{target} is a {type(app).__name__}, not an app; {cure}")


def summarize(exc: Exception) -> str:
    """What an exception says, in one line, and which line of whose code it is about, if any is."""
    package = str(_CLI.parent)
    frames = [frame for frame in traceback.extract_tb(exc.__traceback__) if Path(frame.filename).is_file()]
    start = max((index for index, frame in enumerate(frames) if frame.filename == __file__), default=len(frames))
    user_frames = [frame for frame in frames[start:] if not frame.filename.startswith(package)]
    where = f" ({Path(user_frames[-1].filename).name}, line {user_frames[-1].lineno})" if user_frames else ""
    return " ".join(str(exc).split()) + where


def check_module(target: str, app_dir: str) -> tuple[str, str]:
    """The two parts of ``"module:app"``, whose module is there; modules of ``app_dir`` are importable from then on.

    Raises as `load` does. The module is not imported, only the packages that it is in.
    """
    name, colon, attribute = target.partition(":")
    if not (name and colon and attribute):
        raise _bad_target(f"expected MODULE:APP, as in main:app, got {target!r}")
    if not all(part.isidentifier() for part in name.split(".")):
        raise _bad_target(f"expected MODULE:APP, as in main:app, got {target!r}{_suggest_module(name, attribute)}")
    _add_to_path(app_dir)
    if not _module_exists(name):
        near = get_close_matches(name, [path.stem for path in Path(app_dir).glob("*.py")], 1)
        cure = f"; did you mean {near[0]!r}?" if near else _suggest_module(name, attribute)
        where = f" in {Path(app_dir).resolve()}; --app-dir says where it is"
        raise _bad_target(f"there is no module {name!r}{cure or where}")
    return name, attribute


def _suggest_module(name: str, attribute: str) -> str:
    """The cure for a file that is named as one."""
    path = Path(name.removesuffix(".py"))
    if str(path) == name or not path.name.isidentifier():
        return ""
    folder = "" if str(path.parent) == "." else f" --app-dir {path.parent}"
    return f"; a module has no folders and no .py: write {path.name}:{attribute}{folder}"


def _module_exists(name: str) -> bool:
    importlib.invalidate_caches()
    # __main__, and a module made by hand, have no spec.
    return name in sys.modules or _run_user_code(_find_spec, name) is not None


def _find_spec(name: str) -> Any:
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and f"{name}.".startswith(f"{exc.name}."):
            return None
        raise  # a package that it is in imports what is not there


def _add_to_path(folder: str) -> None:
    """Makes modules of a folder importable here and in the processes that are started from here."""
    path = str(Path(folder).resolve())
    if path not in sys.path[:1]:
        sys.path.insert(0, path)
    python_path = os.environ.get("PYTHONPATH")
    if path not in (python_path or "").split(os.pathsep)[:1]:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [path, python_path]))


def _suggest_attribute(name: str, owner: Any) -> str:
    apps = _app_names(owner)
    names = get_close_matches(name, [*apps, *dir(owner)], 1) or apps[:1]
    return f"; did you mean {names[0]!r}?" if names else ""


def _suggest_app(module: ModuleType) -> str:
    apps = _app_names(module)
    return f"did you mean {module.__name__}:{apps[0]}?" if apps else ""


def _app_names(owner: Any) -> list[str]:
    return [name for name, value in getattr(owner, "__dict__", {}).items() if isinstance(value, WSAction)]


def _bad_target(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint=TARGET)
