"""Distributions that are broken in every way we know. ``python broken_plugins.py FOLDER`` writes them all there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from antmmf.testing import fake_distribution

READER = """
class Reader:
    def __init__(self, *, size: int = 3) -> None:
        self.size = size

    def read(self, source, pick):
        raise NotImplementedError
"""
HOOKS = "from antmmf import hookimpl\n"

# distribution: (what it is made of, the reason that must be told)
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "bad-dependency": (
        {"reader": "needy", "source": f"import surely_not_installed\n{READER}"},
        "it needs the module 'surely_not_installed', which is not installed",
    ),
    "bad-import": ({"reader": "raising", "source": "raise RuntimeError('no licence')"}, "RuntimeError: no licence"),
    "bad-exit": ({"reader": "leaving", "source": "import sys\nsys.exit('bye')"}, "SystemExit: bye"),
    "bad-syntax": ({"reader": "unreadable", "source": "class Reader"}, "SyntaxError: expected ':'"),
    "bad-kind": (
        {"reader": "wrong", "source": "class Reader:\n    def write(self): ..."},
        "is not a reader: Reader lacks read",
    ),
    "bad-value": ({"reader": "listed", "source": "Reader = [1, 2]"}, "must be a class or a function, is the list"),
    "bad-module": ({"reader": "ghost"}, "ModuleNotFoundError: No module named 'bad_module'"),
    "bad-attribute": ({"reader": "gone", "source": "READER = 1"}, "module 'bad_attribute' has no attribute 'Reader'"),
    "bad-reference": (
        {"entry_points": {"antmmf.readers": {"crooked": "not a module!"}}},
        "(not a module!) cannot be loaded: its entry point must be module:attribute",
    ),
    "bad-kwargs": (
        {"reader": "greedy", "source": "class Reader:\n    def __init__(self, **kwargs): ...\n    def read(self): ..."},
        "kwargs",
    ),
    "bad-positional": (
        {"reader": "placed", "source": "class Reader:\n    def __init__(self, size): ...\n    def read(self): ..."},
        "'size' must be keyword-only",
    ),
    "bad-callback": (
        {
            "entry_points": {"antmmf.callbacks": {"deaf": "bad_callback:Deaf"}},
            "source": "class Deaf:\n    def antmmf_step_end(self): ...",
        },
        "is not a callback: Deaf has no method marked with @hookimpl",
    ),
    "bad-command": (
        {"entry_points": {"antmmf.commands": {"bad-command": "bad_command:run"}}, "source": "def run(): ..."},
        "must be a click command, is the function run",
    ),
    "bad-recipes": (
        {"entry_points": {"antmmf.recipes": {"nowhere": "bad_recipes_folder"}}},
        "recipe 'nowhere' (bad_recipes_folder): there is no such folder",
    ),
    "bad-hook-import": ({"hooks": "import surely_not_installed"}, "it needs the module 'surely_not_installed'"),
    "bad-hook-name": (
        {"hooks": f"{HOOKS}@hookimpl\ndef antmmf_step_ned(state): ..."},
        "no hook is called 'antmmf_step_ned' (did you mean 'antmmf_step_end'?)",
    ),
    "bad-hook-argument": (
        {"hooks": f"{HOOKS}@hookimpl\ndef antmmf_step_end(state, tensors): ..."},
        "antmmf_step_end has no argument 'tensors'; it may take: state, report",
    ),
    "bad-hook-unmarked": (
        {"hooks": "def antmmf_step_end(state): ..."},
        "antmmf_step_end lacks the decorator @hookimpl",
    ),
    "bad-hook-none": ({"hooks": "NOTHING = 1"}, "it has no hook"),
    "bad-group": (
        {"entry_points": {"antmmf.reader": {"astray": "bad_group:Reader"}}},
        "offers 'astray' in the group antmmf.reader, which does not exist (did you mean 'readers'?)",
    ),
    "bad-twice": (
        {"entry_text": "[antmmf.readers]\nagain = bad_twice:Reader\nagain = bad_twice:Reader\n", "source": READER},
        "'again' stands twice",
    ),
    "bad-metadata": ({"reader": "nameless", "source": READER, "metadata": b""}, "its METADATA has no Name"),
    "bad-header": ({"reader": "garbled", "source": READER, "metadata": b"\xff\xfe"}, "its METADATA cannot be read"),
}
# Entry points that importlib.metadata cannot read: torch reads those of all packages, and cannot be imported.
FATAL: dict[str, tuple[dict[str, Any], str]] = {
    "bad-lines": (
        {"entry_text": "[antmmf.readers]\nno equals sign\nfine = bad_lines:Reader\n", "source": READER},
        "in [antmmf.readers] of its entry_points.txt, 'no equals sign' is not name = module:attribute",
    ),
    "bad-bytes": ({"entry_text": b"[antmmf.readers]\nx = \xff\xfe\n"}, "its entry_points.txt cannot be read: Unicode"),
}
CLASH = "reader 'twin' is offered by 2 packages; write "


def write_all(folder: Path) -> Path:
    """Write every distribution of ``BROKEN``, and two that clash, into ``folder``."""
    for name in BROKEN:
        write(folder, name)
    for name in ("bad-clash-one", "bad-clash-two"):
        module = name.replace("-", "_")
        fake_distribution(
            folder, name=name, entry_points={"antmmf.readers": {"twin": f"{module}:Reader"}}, modules={module: READER}
        )
    return folder


def write(folder: Path, name: str) -> Path:
    """Write one broken distribution into ``folder``."""
    parts, module = {**BROKEN, **FATAL}[name][0], name.replace("-", "_")
    source = parts.get("source", parts.get("hooks"))
    entry_points = parts.get("entry_points", {})
    if "reader" in parts:
        entry_points = {"antmmf.readers": {parts["reader"]: f"{module}:Reader"}}
    if "hooks" in parts:
        entry_points = {"antmmf.plugins": {"hooks": module}}
    fake_distribution(folder, name=name, entry_points=entry_points, modules={} if source is None else {module: source})
    for part, file in (("entry_text", "entry_points.txt"), ("metadata", "METADATA")):
        if part in parts:
            text = parts[part]
            (folder / f"{module}-1.0.dist-info" / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
