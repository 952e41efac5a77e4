"""The command line: ``python -m wsaction``, or the command ``wsaction``."""

import sys


def main() -> None:
    """Runs the command line. If its extra is not installed, exits with one line that says so."""
    try:
        from wsaction.cli import main as command
    except ImportError as exc:
        sys.exit(f"wsaction: {exc}")
    command(prog_name="wsaction")


if __name__ == "__main__":
    main()
