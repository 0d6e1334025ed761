"""What the architecture tests read: the source tree, as files."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
SOURCES = {
    "antmmf-core": ROOT / "antmmf-core/src/antmmf",
    "antmmf-vision": ROOT / "antmmf-vision/src/antmmf_vision",
    "antmmf-text": ROOT / "antmmf-text/src/antmmf_text",
    "antmmf-tasks": ROOT / "antmmf-tasks/src/antmmf_tasks",
}


def toml(path: Path) -> dict[str, Any]:
    """A TOML file's values."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def python_files(folder: Path) -> list[Path]:
    """Every Python file below a folder, sorted."""
    return sorted(folder.rglob("*.py"))


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """(name, lines) of every function of a file, nested ones and methods too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def hooks() -> dict[str, list[str]]:
    """Name -> arguments of every hook, in a run's order."""
    tree = ast.parse((SOURCES["antmmf-core"] / "hookspecs.py").read_text(encoding="utf-8"))
    return {
        node.name: [argument.arg for argument in node.args.args]
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("antmmf_")
    }


def entry_points() -> Iterator[tuple[str, str, str, str]]:
    """(distribution, kind, name, value) of every entry point of the four distributions."""
    for distribution in SOURCES:
        groups = toml(ROOT / distribution / "pyproject.toml")["project"].get("entry-points", {})
        for group, names in groups.items():
            for name, value in names.items():
                yield distribution, group.removeprefix("antmmf."), name, value


def shell_modules() -> list[str]:
    """Every module of the shell, as the import contract in pyproject.toml lists it."""
    contracts = toml(ROOT / "pyproject.toml")["tool"]["importlinter"]["contracts"]
    listed = next(contract for contract in contracts if contract["id"] == "shell")["source_modules"]
    source = SOURCES["antmmf-core"].parent
    found = []
    for name in listed:
        folder = source.joinpath(*name.split("."))
        inner = python_files(folder) if folder.is_dir() else [folder.with_suffix(".py")]
        found += [".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__") for path in inner]
    return found
