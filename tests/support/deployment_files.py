"""What the files of chapter 08 say, as Python values."""

import json
import re
import shlex
from typing import Any

import yaml

from tests.support.nginx import CHAPTER

__all__ = ("command", "compose", "dockerfile", "healthcheck", "kubernetes", "of_kind", "unit")


def dockerfile() -> list[tuple[str, str]]:
    """Its instructions as (name, rest). Lines that end with a backslash go on in the next one."""
    text = re.sub(r"\\\n\s*", "", (CHAPTER / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def command() -> list[str]:
    """The exec form of its CMD."""
    (rest,) = (rest for name, rest in dockerfile() if name == "CMD")
    words: list[str] = json.loads(rest)
    return words


def healthcheck() -> list[str]:
    """The exec form of its HEALTHCHECK."""
    (rest,) = (rest for name, rest in dockerfile() if name == "HEALTHCHECK")
    words: list[str] = json.loads(rest.partition("CMD ")[2])
    return words


def compose() -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load((CHAPTER / "compose.yaml").read_text())
    return made


def kubernetes() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CHAPTER / "kubernetes.yaml").read_text()))


def of_kind(kind: str) -> dict[str, Any]:
    (one,) = (resource for resource in kubernetes() if resource["kind"] == kind)
    return one


def unit() -> dict[str, list[str]]:
    """The settings of the unit of systemd, each with its values."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", (CHAPTER / "wsaction@.service").read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    assert shlex.split(found["ExecStart"][0])
    return found
