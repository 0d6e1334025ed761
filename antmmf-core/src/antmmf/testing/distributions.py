"""Distributions made up for a test: real metadata and modules in a folder, found as if pip had installed them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent


def fake_distribution(
    folder: Path,
    *,
    name: str,
    version: str = "1.0",
    entry_points: Mapping[str, Mapping[str, str]] | None = None,
    modules: Mapping[str, str] | None = None,
) -> Path:
    """Write a distribution into ``folder``, which then belongs on ``sys.path`` or ``PYTHONPATH``; returns ``folder``.

    ``entry_points`` are values by name by group (``{"antmmf.readers": {"mine": "module:Mine"}}``), ``modules`` sources
    by dotted name; the packages above a module are made where they are missing.
    """
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    sections = []
    for group, entries in (entry_points or {}).items():
        sections += [f"[{group}]", *(f"{entry} = {value}" for entry, value in entries.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(sections), encoding="utf-8")
    for module, source in (modules or {}).items():
        path = folder.joinpath(*module.split(".")).with_suffix(".py")
        if any(other.startswith(f"{module}.") for other in modules or {}):
            path = path.with_suffix("") / "__init__.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source), encoding="utf-8")
    return folder


@contextmanager
def on_path(folder: Path) -> Iterator[Path]:
    """Put ``folder`` in front of ``sys.path``; afterwards take it off, and forget the modules that came from it."""
    entry = str(folder)
    sys.path.insert(0, entry)
    importlib.invalidate_caches()
    try:
        yield folder
    finally:
        sys.path.remove(entry)
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(entry + os.sep):
                del sys.modules[name]
        importlib.invalidate_caches()
