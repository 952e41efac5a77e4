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

__all__ = ("app_argument", "check_factory", "check_module", "check_served", "find", "load", "told_where")

HINT = "MODULE:APP"


def app_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the app that ``MODULE:APP`` names as its first argument, with the options that find it."""

    @click.argument("target", metavar=HINT)
    @click.option("--app-dir", default=".", show_default=True, type=click.Path(exists=True, file_okay=False),
                  help="Look for MODULE here.")  # fmt: skip
    @click.option("--factory", is_flag=True, help="APP is a function that makes the app.")
    @wraps(command)
    def with_app(target: str, app_dir: str, factory: bool, **options: Any) -> Any:
        return command(load(target, app_dir=app_dir, factory=factory), **options)

    return with_app


def load(target: str, *, app_dir: str = ".", factory: bool = False) -> WSAction:
    """The app named ``"module:app"``, whose module is looked for in ``app_dir`` first; ``factory``: what it returns.

    Raises click's ``BadParameter`` where there is none, with what is near. What the module itself raises is printed as
    its own traceback, without our frames, and ends the command with 1.
    """
    module, found = find(target, app_dir)
    if factory:
        check_factory(found, target)
        found = _of_theirs(found)
    return _checked(found, target, module)


def find(target: str, app_dir: str) -> tuple[ModuleType, Any]:
    """The module of ``"module:app"`` and what is called so in it, whatever that is. Raises as `load` does."""
    name, attribute = check_module(target, app_dir)
    module = _of_theirs(importlib.import_module, name)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise _wrong(f"{name} has no {attribute!r}{_near(part, found)}")
        found = getattr(found, part)
    return module, found


def _of_theirs(function: Callable[..., Any], *args: Any) -> Any:
    """Runs what is the user's code; what it raises is printed from the first frame that is theirs."""
    try:
        return function(*args)
    except ImproperlyConfigured:  # which is told in one line
        raise
    except Exception as exc:
        trace = exc.__traceback__
        while trace is not None and _is_not_theirs(trace.tb_frame.f_code.co_filename):
            trace = trace.tb_next
        click.echo("".join(traceback.format_exception(type(exc), exc, trace)).rstrip(), err=True)
        sys.exit(1)


def _is_not_theirs(file: str) -> bool:
    return file.startswith("<frozen ") or Path(file).parent in (_OURS, _IMPORTLIB)


_OURS, _IMPORTLIB = Path(__file__).parent, Path(importlib.util.__file__).parent


def check_factory(found: Any, target: str) -> None:
    """Raises as `load` does for what is no function that makes an app."""
    if isinstance(found, WSAction) or not callable(found):
        raise _wrong(f"--factory: {target} is a {type(found).__name__}, not a function; leave --factory out")


def check_served(found: Any, target: str, module: ModuleType) -> None:
    """Raises as `load` does for what a server cannot call, and for a class of ours, which it would take for a function
    that makes an app."""
    mount = "as_asgi" if hasattr(found, "as_asgi") else "as_aaah"
    if isinstance(found, type) and hasattr(found, mount):
        raise _wrong(f"{target} is a class; write app = {found.__name__}.{mount}(), or put that in a WSAction")
    if not callable(found):
        cure = _near_app(module) or "write app = WSAction([...])"
        raise _wrong(f"{target} is a {type(found).__name__}, not an app; {cure}")


def told_where(exc: Exception) -> str:
    """What an exception says, in one line, and which line of whose code it is about, if any is."""
    ours = str(Path(__file__).parents[1])
    frames = [one for one in traceback.extract_tb(exc.__traceback__) if Path(one.filename).is_file()]
    imported = [at for at, one in enumerate(frames) if one.filename == __file__]
    theirs = [one for one in frames[imported[-1] :] if not one.filename.startswith(ours)] if imported else []
    where = f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""
    return " ".join(str(exc).split()) + where


def check_module(target: str, app_dir: str) -> tuple[str, str]:
    """The two parts of ``"module:app"``, whose module is there; modules of ``app_dir`` are importable from then on.

    Raises as `load` does. The module is not imported, only the packages that it is in.
    """
    name, colon, attribute = target.partition(":")
    if not (name and colon and attribute):
        raise _wrong(f"expected MODULE:APP, as in main:app, got {target!r}")
    if not all(part.isidentifier() for part in name.split(".")):
        raise _wrong(f"expected MODULE:APP, as in main:app, got {target!r}{_as_module(name, attribute)}")
    _import_from(app_dir)
    if not _is_there(name):
        known = [path.stem for path in Path(app_dir).glob("*.py")]
        near = get_close_matches(name, known, 1)
        told = f"; did you mean {near[0]!r}?" if near else _as_module(name, attribute)
        where = f" in {Path(app_dir).resolve()}; --app-dir says where it is"
        raise _wrong(f"there is no module {name!r}{told or where}")
    return name, attribute


def _as_module(name: str, attribute: str) -> str:
    """The cure for a file that is named as one."""
    path = Path(name.removesuffix(".py"))
    if str(path) == name or not path.name.isidentifier():
        return ""
    folder = "" if str(path.parent) == "." else f" --app-dir {path.parent}"
    return f"; a module has no folders and no .py: write {path.name}:{attribute}{folder}"


def _is_there(name: str) -> bool:
    importlib.invalidate_caches()
    return name in sys.modules or _of_theirs(_spec, name) is not None  # __main__, and one made by hand, have no spec


def _spec(name: str) -> Any:
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and f"{name}.".startswith(f"{exc.name}."):
            return None
        raise  # a package that it is in imports what is not there


def _import_from(folder: str) -> None:
    """Makes modules of a folder importable here and in the processes that are started from here."""
    path = str(Path(folder).resolve())
    if path not in sys.path[:1]:
        sys.path.insert(0, path)
    known = os.environ.get("PYTHONPATH")
    if path not in (known or "").split(os.pathsep)[:1]:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [path, known]))


def _near(wanted: str, found: Any) -> str:
    apps = [name for name, value in vars(found).items() if isinstance(value, WSAction)] if _has_names(found) else []
    names = get_close_matches(wanted, [*apps, *dir(found)], 1) or apps[:1]
    return f"; did you mean {names[0]!r}?" if names else ""


def _has_names(found: Any) -> bool:
    return hasattr(found, "__dict__")


def _checked(found: Any, target: str, module: ModuleType) -> WSAction:
    if isinstance(found, WSAction):
        return found
    if callable(found) and getattr(found, "__name__", None) and not isinstance(found, type):
        cure = "pass --factory where it is a function that makes one"
    else:
        cure = "name the WSAction that it mounts or serves"
    raise _wrong(f"{target} is a {type(found).__name__}, not a WSAction; {_near_app(module) or cure}")


def _near_app(module: ModuleType) -> str:
    apps = [name for name, value in vars(module).items() if isinstance(value, WSAction)]
    return f"did you mean {module.__name__}:{apps[0]}?" if apps else ""


def _wrong(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint=HINT)
