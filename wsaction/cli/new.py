"""``wsaction new``: make a project with sign-in, a live list, a page and tests."""

import json
import keyword
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path

import click

import wsaction

__all__ = ("new",)

_TEMPLATES = Path(__file__).parent / "templates"
_NAME = r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*"
_MAX_LENGTH = 30  # so that no line of the project is longer than 120 characters
_IMPORTED = {"aiosqlite", "anyio", "click", "pydantic", "pytest", "sqlalchemy", "starlette", "uvicorn", "wsaction"}
_FOLDERS = {"tests", "web"}  # of the project, beside its package
_EXTRAS = {"plain": "standard,sqlalchemy,javascript", "react": "standard,sqlalchemy"}

_ORIGIN = """\
wsaction is not on PyPI yet. `pyproject.toml` names the place from which it was installed when this project was made;
put a place there that exists wherever you install the project.

"""


@click.command(short_help="Make a new project.")
@click.argument("name")
@click.option("--react", is_flag=True, help="Make the page with React, Vite and TypeScript; needs Node 20 or newer.")
def new(name: str, react: bool) -> None:
    """Make a project in the folder NAME: an app with sign-in and a live list, a page, tests and a Makefile.

    \b
    wsaction new desk
    cd desk
    make run     # serves the page and the explorer
    make test

    NAME has lower-case letters, digits, and single hyphens or underscores between them. Nothing is overwritten.

    Exit codes: 0 success, 1 the folder could not be written, 2 wrong usage.
    """
    _check(name)
    folder = Path(name)
    if folder.exists() and not folder.is_dir():
        raise _bad(f"{folder} is a file; choose another name")
    if folder.is_dir() and any(folder.iterdir()):
        raise _bad(f"the folder {folder} is not empty; choose another name or move what is in it")
    try:
        _write(folder, _files(name, "react" if react else "plain"))
    except BaseException:  # also if the user interrupts it: a part of a project is of no use
        shutil.rmtree(folder, ignore_errors=True)
        raise
    click.echo(f"made {folder.resolve()}\n\n  cd {folder}\n  make run     # README.md says more")


def _check(name: str) -> None:
    """Raises `click.BadParameter` if a project cannot have this name."""
    package = name.replace("-", "_")
    if not re.fullmatch(_NAME, name):
        near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")
        cure = f"; did you mean {near!r}?" if re.fullmatch(_NAME, near) else ""
        raise _bad(f"expected a name such as desk or help-desk, got {name!r}{cure}")
    if len(name) > _MAX_LENGTH:
        raise _bad(f"expected at most {_MAX_LENGTH} characters, got {len(name)}; choose a shorter name")
    if keyword.iskeyword(package):
        reason = "is a keyword of Python"
    elif package in sys.stdlib_module_names | {"test"}:
        reason = "is a module of Python's standard library"
    elif package in _IMPORTED:
        reason = "is a package that the project imports"
    elif package in _FOLDERS:
        reason = "is another folder of the project"
    else:
        return
    raise _bad(f"{name} {reason}; choose another name, such as {name}-app")


def _files(name: str, kind: str) -> dict[Path, str]:
    """The files of a project, by their paths in it."""
    package = name.replace("-", "_")
    requirement, is_direct = _requirement(_EXTRAS[kind])
    values = {
        "@name@": name,
        "@package@": package,
        "@page@": "web/dist" if kind == "react" else "web",
        "@wsaction@": requirement,
        "@direct@": "\n[tool.hatch.metadata]\nallow-direct-references = true\n" if is_direct else "",
        "@origin@": _ORIGIN if is_direct else "",
    }
    renamed = {"package": package, "dot-gitignore": ".gitignore"}  # a real .gitignore would count for the template
    files = {}
    for root in (_TEMPLATES / "project", _TEMPLATES / kind):
        for path in sorted(root.rglob("*.tmpl")):
            parts = path.relative_to(root).with_suffix("").parts
            target = Path(*(renamed.get(part, part) for part in parts))
            files[target] = _fill(path.read_text("utf-8"), values)
    return files


def _fill(text: str, values: dict[str, str]) -> str:
    return re.sub("|".join(values), lambda found: values[found.group()], text)


def _requirement(extras: str) -> tuple[str, bool]:
    """The requirement of wsaction as it is installed here, and whether it is a URL instead of a version."""
    try:
        origin = json.loads(metadata.distribution("wsaction").read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:  # imported from a checkout that is on sys.path
        origin = {"url": Path(wsaction.__file__).parents[1].as_uri()}
    if "url" not in origin:
        return f"wsaction[{extras}]>={wsaction.__version__}", False
    vcs = origin.get("vcs_info")
    url = origin["url"] if vcs is None else f"{vcs['vcs']}+{origin['url']}@{vcs['commit_id']}"
    return f"wsaction[{extras}] @ {url}", True


def _write(folder: Path, files: dict[Path, str]) -> None:
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="\n")


def _bad(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="NAME")
