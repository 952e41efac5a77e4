"""Output of commands: aligned tables, and files that are replaced atomically."""

import os
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

_FILE = click.Path(dir_okay=False, path_type=Path)
output_option = click.option(
    "-o", "--output", metavar="FILE", type=_FILE, help="Write to this file instead of standard output."
)


def write_output(text: str, output: Path | None) -> None:
    """Prints a text, or replaces a file with it if the file's content differs.

    :raises click.BadParameter: If the file cannot be written.
    """
    if output is None:
        click.echo(text, nl=False)
    elif output.exists() and not output.is_file():  # as /dev/stdout or a pipe, which cannot be replaced
        _write(output, text)
    elif read(output) == text:
        click.echo(f"{output} is up to date", err=True)
    else:
        _replace(output, text)
        click.echo(f"wrote {output}", err=True)


def read(file: Path) -> str | None:
    """Returns the text of a file; None if it does not exist."""
    return file.read_bytes().decode("utf-8", errors="replace") if file.exists() else None


def _write(output: Path, text: str) -> None:
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise click.BadParameter(f"{output} cannot be written to: {exc.strerror}", param_hint="-o") from exc


def _replace(output: Path, text: str) -> None:
    try:
        handle, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
    except OSError as exc:
        raise click.BadParameter(f"{output.parent} cannot be written to: {exc.strerror}", param_hint="-o") from exc
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        temporary.chmod(output.stat().st_mode & 0o777 if output.exists() else 0o644)
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], max_widths: Mapping[str, int]) -> str:
    """Returns rows aligned below their heads; ``max_widths`` maps heads to the width at which their cells wrap."""
    wrapped = [[_wrap(cell, max_widths.get(head)) for head, cell in zip(heads, row, strict=True)] for row in rows]
    widths = [
        max([len(head), *(len(line) for row in wrapped for line in row[number])]) for number, head in enumerate(heads)
    ]
    lines = [list(heads)]
    for row in wrapped:
        height = max(map(len, row))
        lines += [[cell[number] if number < len(cell) else "" for cell in row] for number in range(height)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _wrap(cell: str, width: int | None) -> list[str]:
    if width is None:
        return [cell]
    return textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False) or [""]
