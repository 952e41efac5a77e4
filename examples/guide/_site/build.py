"""Builds the documents as one static site, with a reference of every public name and a search: `make docs`.

The pages stay where they are read on GitHub. Sphinx gets a copy of them under `.docs/source`, in which each `README.md`
is an `index.md`, and a page for each public module. The site is `.docs/site/index.html`.
"""

import pkgutil
import re
import shutil
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

from sphinx.cmd.build import main as sphinx_build

import wsaction

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SOURCE, SITE = ROOT / ".docs" / "source", ROOT / ".docs" / "site"
LEFT_OUT = ("cli", "units")  # no modules to import; the former name of transactions
FAMILIES = ("contrib", "dialects", "layers", "testing")
MAINTAINERS = ("wsaction", "wsaction/_protocol", "tests", "benchmarks")
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """Returns the pages of the site, relative to the root."""
    chapters = sorted(page.parent.relative_to(ROOT).as_posix() for page in HERE.parent.glob("*/README.md"))
    return [Path(folder) / "README.md" for folder in (".", "examples", *chapters, *MAINTAINERS)]


@cache
def public_modules() -> list[str]:
    """Returns the names of the public modules: those of the package, and of its four families."""
    found = ["wsaction"]
    for module in pkgutil.walk_packages(wsaction.__path__, "wsaction."):
        parts = module.name.split(".")[1:]
        is_public = parts[0] not in LEFT_OUT and not any(part.startswith("_") for part in parts)
        if is_public and (names := set(getattr(import_module(module.name), "__all__", ()))):
            above = import_module(module.name.rpartition(".")[0])
            if len(parts) == 1 or (parts[0] in FAMILIES and not names <= set(getattr(above, "__all__", ()))):
                found.append(module.name)
    return found


def stage(page: Path) -> None:
    """Copies a page and the files that it links."""
    parts = FENCE.split((ROOT / page).read_text())
    text = "".join(part if part.startswith("```") else LINK.sub(lambda link: _link(page, link), part) for part in parts)
    if page == Path("README.md"):
        text += _contents()
    for file in sorted((ROOT / page).parent.glob("*")) if "guide" in page.parts else ():
        if file.is_file() and file.name != "README.md":
            _copy(file.relative_to(ROOT))
            language = {".py": "python", ".ts": "ts", ".tsx": "tsx", ".yaml": "yaml", ".toml": "toml"}.get(file.suffix)
            text += f"\n## {file.name}\n\n```{{literalinclude}} {file.name}\n:language: {language or 'text'}\n```\n"
    target = SOURCE / page.parent / "index.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def _link(page: Path, link: re.Match[str]) -> str:
    before, target, after = link.groups()
    if re.match(r"[a-z]+:", target):
        return link[0]
    path = (ROOT / page.parent / target).resolve().relative_to(ROOT)
    if path.name == "README.md":
        return f"{before}{target.removesuffix('README.md')}index.md{after}"
    _copy(path)
    return link[0]


def _copy(file: Path) -> None:
    (SOURCE / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / file, SOURCE / file)


def _contents() -> str:
    guide = [page.with_name("index").as_posix() for page in pages() if "guide" in page.parts]
    groups = {
        "Guide": ["examples/index", *guide],
        "Reference": [f"reference/{name}" for name in public_modules()],
        "Inside": [*(f"{folder}/index" for folder in MAINTAINERS), "CHANGELOG"],
    }
    trees = [
        f"\n```{{toctree}}\n:hidden:\n:maxdepth: 1\n:caption: {caption}\n\n" + "\n".join(documents) + "\n```\n"
        for caption, documents in groups.items()
    ]
    return "".join(trees)


def write_reference(module: str) -> None:
    """Writes the page of a public module: the names that live there, and links to others that it has too."""
    target = SOURCE / "reference" / f"{module}.rst"
    target.parent.mkdir(parents=True, exist_ok=True)
    text = f"{module}\n{'=' * len(module)}\n\n.. automodule:: {module}\n   :no-members:\n\n"
    elsewhere = []
    for name in import_module(module).__all__:
        home = home_of(name, module)
        if home != module:
            elsewhere.append(f"* `{name} <{home}.{name}>` of `{home}`")
            continue
        value = getattr(import_module(module), name)
        kind = "function" if callable(value) else "data"
        if isinstance(value, type):
            kind = "exception" if issubclass(value, BaseException) else "class"
        text += f".. auto{kind}:: {module}.{name}\n"
        text += "   :members:\n   :show-inheritance:\n\n" if kind in ("class", "exception") else "\n"
    target.write_text(text + "\n".join(elsewhere) + "\n")


def home_of(name: str, module: str) -> str:
    """Returns the public module where a name of ``module`` is described: the one that defines it, if it is public."""
    value = getattr(import_module(module), name)
    candidates = [
        other
        for other in public_modules()
        if other != "wsaction" and name in import_module(other).__all__ and getattr(import_module(other), name) is value
    ]
    defined_in = getattr(value, "__module__", None) or ""
    return max(candidates, key=lambda other: len(other) if f"{defined_in}.".startswith(f"{other}.") else 0)


def main() -> int:
    """Stages the pages and runs Sphinx. Returns its exit code: warnings are errors."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    for page in pages():
        stage(page)
    _copy(Path("CHANGELOG.md"))
    for module in public_modules():
        write_reference(module)
    # -n: a reference to what does not exist is a warning; -W: a warning fails
    options = ["-n", "-W", "--keep-going", "-q", "-j", "auto", "-b", "dirhtml", "-c", str(HERE)]
    code = sphinx_build([*options, "-d", str(ROOT / ".docs" / "doctrees"), str(SOURCE), str(SITE)])
    print(f"{SITE / 'index.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
