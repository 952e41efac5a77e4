"""All benchmarks in one run: `python -m benchmarks [--quick]`, or `make bench`."""

import argparse
import platform
import sys
from importlib.metadata import version

from benchmarks import action, routing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute, less precise")
    quick = parser.parse_args().quick
    names = ("wsaction", "pydantic", "starlette", "django", "uvloop")
    print(
        f"Python {platform.python_version()} on {platform.machine()}, {', '.join(f'{n} {version(n)}' for n in names)}"
    )
    print("\nThe action job in process, by hand = 1")
    action.main(quick)
    print("\nRouting, django.urls = 1")
    routing.main(quick)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
