"""``wsaction codegen``: generate typed clients from an app."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from wsaction.applications import WSAction
from wsaction.cli._loading import app_argument
from wsaction.cli._output import output_option, read, write_output
from wsaction.codegen import erase_types, react_hooks
from wsaction.codegen import python as write_python
from wsaction.codegen import typescript as write_typescript

__all__ = ("codegen",)


@click.group(short_help="Generate typed clients.")
def codegen() -> None:
    """Generate typed clients from an app's routes and actions."""


_path_option = click.option(
    "--path",
    "path",
    metavar="PATH",
    help="Connection path, such as ws/<slug:tenant>/; required if the app has several connections.",
)
_check_option = click.option(
    "--check", is_flag=True, help="Write nothing; exit with 1 if FILE is missing or out of date."
)


@codegen.command(short_help="Generate a TypeScript client.")
@app_argument
@_path_option
@output_option
@click.option("--react", is_flag=True, help="Also write hooks for React: FILE.react.ts beside FILE.ts.")
@_check_option
def typescript(app: WSAction, path: str | None, output: Path | None, react: bool, check: bool) -> None:
    """Generate a TypeScript client: one file without dependencies, for browsers and Node.

    \b
    wsaction codegen typescript main:app -o web/client.ts
    wsaction codegen typescript main:app -o web/client.ts --react   # and web/client.react.ts
    wsaction codegen typescript main:app -o web/client.ts --check   # in CI

    Exit codes: 0 success, 1 --check found FILE missing or out of date, 2 wrong usage.
    """
    text = _client(app, path)
    if output is None:
        if react:
            raise click.UsageError("--react writes a second file; name the first one with -o FILE.ts")
        _print(text, check)
    elif not react:
        _write({output: text}, check)
    elif output.suffix != ".ts":
        raise click.BadParameter(f"{output} must end in .ts for --react", param_hint="-o")
    else:
        _write({output: text, output.with_suffix(".react.ts"): react_hooks(output.stem)}, check)


@codegen.command(short_help="Generate a JavaScript client.")
@app_argument
@_path_option
@output_option
@_check_option
def javascript(app: WSAction, path: str | None, output: Path | None, check: bool) -> None:
    """Generate the same client as JavaScript, for pages without a build step.

    With -o, its types are written too: web/client.ts beside web/client.js, where editors find them.

    \b
    wsaction codegen javascript main:app -o web/client.js
    wsaction codegen javascript main:app -o web/client.js --check   # in CI

    Exit codes: 0 success, 1 --check found a file missing or out of date, 2 wrong usage.
    """
    text = _client(app, path)
    try:
        script = erase_types(text)
    except ImportError as exc:
        raise click.ClickException(str(exc)) from exc
    if output is None:
        _print(script, check)
    elif output.suffix not in _TYPES:
        raise click.BadParameter(f"{output} must end in .js or .mjs", param_hint="-o")
    else:
        _write({output: script, output.with_suffix(_TYPES[output.suffix]): text}, check)


@codegen.command(short_help="Generate a Python client.")
@app_argument
@_path_option
@output_option
@_check_option
def python(app: WSAction, path: str | None, output: Path | None, check: bool) -> None:
    """Generate a Python client: one module with pydantic models, on top of wsaction.client.

    \b
    wsaction codegen python main:app -o board_client.py
    wsaction codegen python main:app -o board_client.py --check   # in CI

    Exit codes: 0 success, 1 --check found FILE missing or out of date, 2 wrong usage.
    """
    document = app.asyncapi()
    text = write_python(document, _channel(document, path))
    if output is None:
        _print(text, check)
    else:
        _write({output: text}, check)


_TYPES = {".js": ".ts", ".mjs": ".mts"}  # where editors look for the types of a module


def _client(app: WSAction, path: str | None) -> str:
    document = app.asyncapi()
    return write_typescript(document, _channel(document, path))


def _print(text: str, check: bool) -> None:
    if check:
        raise click.UsageError("--check needs a file to compare with; set it with -o FILE")
    write_output(text, None)


def _write(files: Mapping[Path, str], check: bool) -> None:
    """Writes the files. With ``check``, reports those that are missing or out of date instead, and exits with 1."""
    if not check:
        for file, text in files.items():
            write_output(text, file)
        return
    stale = {file: content for file, text in files.items() if (content := read(file)) != text}
    for file, content in stale.items():
        state = "missing" if content is None else "out of date"
        click.echo(f"{file} is {state}; run the command without --check", err=True)
    if stale:
        sys.exit(1)


def _channel(document: dict[str, Any], path: str | None) -> str:
    """The name of the channel for ``--path``, or of the only channel."""
    channels = document["channels"].items()
    addresses: dict[str, Any] = {name: channel["address"] for name, channel in channels if "x-wsaction" in channel}
    paths = ", ".join(repr((address or name).removeprefix("/")) for name, address in addresses.items())
    if path is None and len(addresses) == 1:
        return next(iter(addresses))
    if path is None:
        raise click.UsageError(
            f"the app has {len(addresses)} connections of wsaction; choose one with --path: {paths or 'none'}"
        )
    wanted = "/" + re.sub(r"<(?:[^<>:]+:)?(\w+)>", r"{\1}", path).removeprefix("/")
    for name, address in addresses.items():
        if address == wanted or (address is None and name == path):
            return name
    raise click.BadParameter(f"the app has no connection {path!r}; it has {paths or 'none'}", param_hint="--path")
