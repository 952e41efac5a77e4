"""Loading the app that ``MODULE:APP`` names, with errors that suggest a cure."""

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

TARGET = "MODULE:APP"
EXISTING_FILE = click.Path(exists=True, dir_okay=False)
_EXISTING_FOLDER = click.Path(exists=True, file_okay=False)
_CLI, _IMPORTLIB = Path(__file__).parent, Path(importlib.util.__file__).parent

app_dir_option = click.option(
    "--app-dir", default=".", show_default=True, type=_EXISTING_FOLDER, help="Look for MODULE here."
)
factory_option = click.option("--factory", is_flag=True, help="APP is a function that makes the app.")


def app_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a command: adds ``MODULE:APP`` and its options, and passes the app as the first argument."""

    @click.argument("target", metavar=TARGET)
    @app_dir_option
    @factory_option
    @wraps(command)
    def with_app(target: str, app_dir: str, factory: bool, **options: Any) -> Any:
        return command(load(target, app_dir=app_dir, factory=factory), **options)

    return with_app


def load(target: str, *, app_dir: str = ".", factory: bool = False) -> WSAction:
    """Returns the app that ``target``, as ``"module:app"``, names.

    :param app_dir: The folder in which the module is looked up first.
    :param factory: Whether ``target`` names a function that returns the app.
    :raises click.BadParameter: If there is no such app; the message suggests a similar name.

    If the module or the factory raises, its traceback is printed without the frames of this command, which then exits
    with 1.
    """
    module, app = find_target(target, app_dir)
    if factory:
        check_factory(app, target)
        app = _run_user_code(app)
    if not isinstance(app, WSAction):
        is_function = callable(app) and getattr(app, "__name__", None) and not isinstance(app, type)
        cure = "pass --factory if it is a function that makes one"
        cure = _suggest_app(module) or (cure if is_function else "name the WSAction that it mounts or serves")
        raise _bad_target(f"{target} is a {type(app).__name__}, not a WSAction; {cure}")
    return app


def find_target(target: str, app_dir: str) -> tuple[ModuleType, Any]:
    """Returns the module and the object, of any type, that ``"module:app"`` names. Raises as `load` does."""
    name, attribute = check_module(target, app_dir)
    module = _run_user_code(importlib.import_module, name)
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise _bad_target(f"{name} has no {attribute!r}{_suggest_attribute(part, value)}")
        value = getattr(value, part)
    return module, value


def _run_user_code(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function of the user. An exception is printed from the user's first frame on, and ends the command."""
    try:
        return function(*args)
    except ImproperlyConfigured:  # reported in one line by the command
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
    """Raises as `load` does if ``app`` is not a function that may return an app."""
    if isinstance(app, WSAction) or not callable(app):
        raise _bad_target(f"--factory: {target} is a {type(app).__name__}, not a function; leave --factory out")


def check_served(app: Any, target: str, module: ModuleType) -> None:
    """Raises as `load` does if a server cannot call ``app``, or if it is a handler class.

    A server would call the class as if it were a factory.
    """
    mount = "as_asgi" if hasattr(app, "as_asgi") else "as_aaah"
    if isinstance(app, type) and hasattr(app, mount):
        raise _bad_target(f"{target} is a class; write app = {app.__name__}.{mount}(), or put that in a WSAction")
    if not callable(app):
        cure = _suggest_app(module) or "write app = WSAction([...])"
        raise _bad_target(f"{target} is a {type(app).__name__}, not an app; {cure}")


def summarize(exc: Exception) -> str:
    """Returns an exception's message in one line, with the last line of the user's code that led to it, if any."""
    package = str(_CLI.parent)
    frames = [frame for frame in traceback.extract_tb(exc.__traceback__) if Path(frame.filename).is_file()]
    start = max((index for index, frame in enumerate(frames) if frame.filename == __file__), default=len(frames))
    user_frames = [frame for frame in frames[start:] if not frame.filename.startswith(package)]
    where = f" ({Path(user_frames[-1].filename).name}, line {user_frames[-1].lineno})" if user_frames else ""
    return " ".join(str(exc).split()) + where


def check_module(target: str, app_dir: str) -> tuple[str, str]:
    """Checks that the module of ``"module:app"`` exists, and returns both parts of the name.

    Makes the modules of ``app_dir`` importable. Imports the packages that contain the module, but not the module.
    Raises as `load` does.
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
    """Returns the cure if ``name`` is the path of a file, or an empty text."""
    path = Path(name.removesuffix(".py"))
    if str(path) == name or not path.name.isidentifier():
        return ""
    folder = "" if str(path.parent) == "." else f" --app-dir {path.parent}"
    return f"; a module has no folders and no .py: write {path.name}:{attribute}{folder}"


def _module_exists(name: str) -> bool:
    importlib.invalidate_caches()
    # `__main__` and modules created by hand have no spec.
    return name in sys.modules or _run_user_code(_find_spec, name) is not None


def _find_spec(name: str) -> Any:
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and f"{name}.".startswith(f"{exc.name}."):
            return None
        raise  # another module is missing, one that a package around this one imports


def _add_to_path(folder: str) -> None:
    """Makes the modules of a folder importable in this process and in those it starts."""
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
