"""The TypeScript compiler, with React and the package `ws` beside it."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.support.node import node, packages

__all__ = ("OPTIONS", "TYPESCRIPT", "bundled", "compiled")

TYPESCRIPT = "7.0.2"
BESIDE = ("ws@8.23.0", "react@19.3.1", "react-dom@19.3.1", "@types/react@19.3.3", "@types/react-dom@19.3.0")
ESBUILD = "0.28.2"
OPTIONS = {
    "strict": True,
    "noUncheckedIndexedAccess": True,
    "exactOptionalPropertyTypes": True,
    "noImplicitOverride": True,
    "noPropertyAccessFromIndexSignature": True,
    "noUnusedLocals": True,
    "noUnusedParameters": True,
    "erasableSyntaxOnly": True,
    "isolatedModules": True,
    "verbatimModuleSyntax": True,
    "target": "es2022",
    "module": "es2022",
    "moduleResolution": "bundler",
    "lib": ["es2022", "dom"],
    "types": [],
}


def compiled(
    folder: Path, version: str = TYPESCRIPT, options: Mapping[str, Any] = MappingProxyType({}), /, **files: str
) -> "subprocess.CompletedProcess[str]":
    """Compiles TypeScript files in a folder. ``options`` replace the default ones; None removes one.

    The names of ``files`` may have a suffix, such as ``page.tsx``; by default it is ``.ts``.
    """
    packages_beside = BESIDE if version == TYPESCRIPT else ()
    home = "typescript" if version == TYPESCRIPT else f"typescript-{version}"
    modules = packages(home, f"typescript@{version}", *packages_beside)
    told = {key: value for key, value in {**OPTIONS, **options}.items() if value is not None}
    texts = {name if name.endswith((".ts", ".tsx")) else f"{name}.ts": text for name, text in files.items()}
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": told, "files": [*texts]}))
    (folder / "package.json").write_text('{"type": "module"}')
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(modules)
    return node(str(modules / "typescript" / "bin" / "tsc"), "-p", str(folder))


def bundled(folder: Path, name: str) -> str:
    """One script for browsers, from a file in a folder that `compiled` was called for, with React's warnings."""
    esbuild = packages("esbuild", f"esbuild@{ESBUILD}") / "esbuild" / "bin" / "esbuild"
    options = ("--bundle", "--jsx=automatic", "--jsx-dev", '--define:process.env.NODE_ENV="development"')
    done = node(str(esbuild), str(folder / name), *options, "--log-level=warning")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
