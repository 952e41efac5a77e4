"""What commands print and write: tables for people, files whole or not at all."""

import os
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

__all__ = ("output_option", "put", "read", "table")

output_option = click.option(
    "-o", "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write it, whole or not at all; standard output otherwise.",
)  # fmt: skip


def put(text: str, output: Path | None) -> None:
    """Prints a text, or puts it in a file's place if that has another one. Raises click's ``BadParameter``."""
    if output is None:
        click.echo(text, nl=False)
    elif output.exists() and not output.is_file():  # /dev/stdout, a pipe
        _write_into(output, text)
    elif read(output) == text:
        click.echo(f"{output} is up to date", err=True)
    else:
        _write(output, text)
        click.echo(f"wrote {output}", err=True)


def read(file: Path) -> str | None:
    """What is in a file; None where there is none."""
    return file.read_bytes().decode("utf-8", errors="replace") if file.exists() else None


def _write_into(output: Path, text: str) -> None:
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise click.BadParameter(f"{output} cannot be written to: {exc.strerror}", param_hint="-o") from exc


def _write(output: Path, text: str) -> None:
    try:
        handle, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
    except OSError as exc:
        raise click.BadParameter(f"{output.parent} cannot be written to: {exc.strerror}", param_hint="-o") from exc
    written = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        written.chmod(output.stat().st_mode & 0o777 if output.exists() else 0o644)
        written.replace(output)
    finally:
        written.unlink(missing_ok=True)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], widest: Mapping[str, int]) -> str:
    """Rows below their heads, aligned; cells of a head in ``widest`` are wrapped at so many characters."""
    wrapped = [[_wrapped(cell, widest.get(head)) for head, cell in zip(heads, row, strict=True)] for row in rows]
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


def _wrapped(cell: str, width: int | None) -> list[str]:
    if width is None:
        return [cell]
    return textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False) or [""]
