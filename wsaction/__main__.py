"""``python -m wsaction``, and what the command ``wsaction`` runs."""

import sys


def main() -> None:
    """Runs the command line; where its extra is not installed, says so in one line."""
    try:
        from wsaction.cli import main as command
    except ImportError as exc:
        sys.exit(f"wsaction: {exc}")
    command(prog_name="wsaction")


if __name__ == "__main__":
    main()
