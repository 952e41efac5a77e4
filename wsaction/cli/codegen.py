"""``wsaction codegen``: typed clients, written from what an app declares."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from wsaction.applications import WSAction
from wsaction.cli._loading import app_argument
from wsaction.cli._output import output_option, put, read
from wsaction.codegen import erase_types
from wsaction.codegen import typescript as write_typescript

__all__ = ("codegen",)


@click.group(short_help="Write typed clients.")
def codegen() -> None:
    """Write typed clients from what an app declares."""


_path_option = click.option(
    "--path",
    "path",
    metavar="PATH",
    help="The connection, ws/<slug:tenant>/ for example, where the app has more than one.",
)
_check_option = click.option(
    "--check", is_flag=True, help="Write nothing; exit with 1 where FILE is not what would be written."
)


@codegen.command(short_help="Write a TypeScript client.")
@app_argument
@_path_option
@output_option
@_check_option
def typescript(app: WSAction, path: str | None, output: Path | None, check: bool) -> None:
    """Write a TypeScript client: one file without dependencies, for browsers and Node.

    \b
    wsaction codegen typescript main:app -o web/client.ts
    wsaction codegen typescript main:app -o web/client.ts --check   # in CI

    Exit codes: 0 fine, 1 --check found FILE out of date, 2 wrong use.
    """
    text = _client(app, path)
    if output is None:
        _print(text, check)
    else:
        _write({output: text}, check)


@codegen.command(short_help="Write a JavaScript client.")
@app_argument
@_path_option
@output_option
@_check_option
def javascript(app: WSAction, path: str | None, output: Path | None, check: bool) -> None:
    """Write the same client as JavaScript, for pages without a build step.

    With -o its types come too: web/client.ts is written beside web/client.js, and editors find it there.

    \b
    wsaction codegen javascript main:app -o web/client.js
    wsaction codegen javascript main:app -o web/client.js --check   # in CI

    Exit codes: 0 fine, 1 --check found a file out of date, 2 wrong use.
    """
    text = _client(app, path)
    try:
        script = erase_types(text)
    except ImportError as exc:
        raise click.ClickException(str(exc)) from exc
    if output is None:
        _print(script, check)
    elif output.suffix not in _TYPES:
        raise click.BadParameter(f"{output} does not end in .js or .mjs", param_hint="-o")
    else:
        _write({output: script, output.with_suffix(_TYPES[output.suffix]): text}, check)


_TYPES = {".js": ".ts", ".mjs": ".mts"}  # where a module's types are looked for


def _client(app: WSAction, path: str | None) -> str:
    document = app.asyncapi()
    return write_typescript(document, _channel(document, path))


def _print(text: str, check: bool) -> None:
    if check:
        raise click.UsageError("--check compares with a file; say which one with -o FILE")
    put(text, None)


def _write(files: Mapping[Path, str], check: bool) -> None:
    """Puts the texts in their files, or says which of them are not there, and ends with 1."""
    if not check:
        for file, text in files.items():
            put(text, file)
        return
    stale = {file: content for file, text in files.items() if (content := read(file)) != text}
    for file, content in stale.items():
        state = "missing" if content is None else "out of date"
        click.echo(f"{file} is {state}; run the command without --check", err=True)
    if stale:
        sys.exit(1)


def _channel(document: dict[str, Any], path: str | None) -> str:
    """The name of the channel that is meant."""
    channels = document["channels"].items()
    addresses: dict[str, Any] = {name: channel["address"] for name, channel in channels if "x-wsaction" in channel}
    paths = ", ".join(repr((address or name).removeprefix("/")) for name, address in addresses.items())
    if path is None and len(addresses) == 1:
        return next(iter(addresses))
    if path is None:
        raise click.UsageError(
            f"the app has {len(addresses)} connections; say which one with --path: {paths or 'none of ours'}"
        )
    wanted = "/" + re.sub(r"<(?:[^<>:]+:)?(\w+)>", r"{\1}", path).removeprefix("/")
    for name, address in addresses.items():
        if address == wanted or (address is None and name == path):
            return name
    raise click.BadParameter(f"there is no connection {path!r}; there are {paths or 'none'}", param_hint="--path")
