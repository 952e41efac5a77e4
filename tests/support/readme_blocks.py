"""The Python blocks of the README, run."""

import re
from pathlib import Path
from typing import Any

README = (Path(__file__).parents[2] / "README.md").read_text()


BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def block(containing: str) -> dict[str, Any]:
    """The names that a Python block defines; ``containing`` is a text in that block alone."""
    (source,) = (source for source in BLOCKS if containing in source)
    namespace: dict[str, Any] = {"__name__": "readme"}
    exec(compile(source, "README.md", "exec"), namespace)
    return namespace
