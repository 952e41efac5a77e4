"""``wsaction codegen``: typed clients, written from what an app declares."""

import re
import sys
from pathlib import Path
from typing import Any

import click

from wsaction.applications import WSAction
from wsaction.cli._loading import app_argument
from wsaction.cli._output import output_option, put, read
from wsaction.codegen.typescript import typescript as write_typescript

__all__ = ("codegen",)


@click.group(short_help="Write typed clients.")
def codegen() -> None:
    """Write typed clients from what an app declares."""


@codegen.command(short_help="Write a TypeScript client.")
@app_argument
@click.option("--path", "path", metavar="PATH", help="The connection, ws/<slug:tenant>/ for example, where the app has "
              "more than one.")  # fmt: skip
@output_option
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where FILE is not what would be written.")
def typescript(app: WSAction, path: str | None, output: Path | None, check: bool) -> None:
    """Write a TypeScript client: one file without dependencies, for browsers and Node.

    \b
    wsaction codegen typescript main:app -o web/client.ts
    wsaction codegen typescript main:app -o web/client.ts --check   # in CI

    Exit codes: 0 fine, 1 --check found FILE out of date, 2 wrong use.
    """
    if check and output is None:
        raise click.UsageError("--check compares with a file; say which one with -o FILE")
    document = app.asyncapi()
    text = write_typescript(document, _channel(document, path))
    if not check or output is None:
        put(text, output)
    elif (known := read(output)) != text:
        told = "missing" if known is None else "out of date"
        click.echo(f"{output} is {told}; run the command without --check", err=True)
        sys.exit(1)


def _channel(document: dict[str, Any], path: str | None) -> str:
    """The name of the channel that is meant."""
    ours: dict[str, Any] = {name: one["address"] for name, one in document["channels"].items() if "x-wsaction" in one}
    told = ", ".join(repr((address or name).removeprefix("/")) for name, address in ours.items())
    if path is None and len(ours) == 1:
        return next(iter(ours))
    if path is None:
        raise click.UsageError(
            f"the app has {len(ours)} connections; say which one with --path: {told or 'none of ours'}"
        )
    wanted = "/" + re.sub(r"<(?:[^<>:]+:)?(\w+)>", r"{\1}", path).removeprefix("/")
    for name, address in ours.items():
        if address == wanted or (address is None and name == path):
            return name
    raise click.BadParameter(f"there is no connection {path!r}; there are {told or 'none'}", param_hint="--path")
