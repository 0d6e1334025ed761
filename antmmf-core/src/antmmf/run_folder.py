"""What a run writes beside its checkpoints: config, provenance, plugin lock, environment, results."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import importlib_metadata as metadata
import yaml

from antmmf.contracts import Figure, RunState
from antmmf.errors import ConfigError, Problem
from antmmf.plan import RunPlan
from antmmf.registry import Component


def choose_folder(plan: RunPlan) -> Path:
    """``save_dir``, or ``save/<recipe>/<time>``; one that is not empty is refused unless ``resume: auto``."""
    train = plan.config.training_parameters
    if train.save_dir is None:
        base = Path("save") / plan.name / datetime.now().strftime("%Y%m%d-%H%M%S")
        folder, number = base, 1
        while folder.exists():
            folder, number = base.with_name(f"{base.name}-{number}"), number + 1
        return folder
    folder = Path(train.save_dir).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(_problem(plan, f"must be a folder, {folder} is a file"))
    if folder.is_dir() and any(folder.iterdir()) and train.resume != "auto" and train.resume is not True:
        message = f"{folder} is not empty; set training_parameters.resume auto to go on, or choose another folder"
        raise ConfigError(_problem(plan, message))
    return folder


def _problem(plan: RunPlan, message: str) -> Problem:
    path = ("training_parameters", "save_dir")
    return Problem(".".join(path), plan.layers.where(path), message)


def write_start(folder: Path, plan: RunPlan, *, split_tables: Mapping[str, list[tuple[str, ...]]]) -> dict[str, str]:
    """Write the files that describe the run; returns name -> text of those that each checkpoint also carries."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "config.yml": yaml.safe_dump(plan.resolved, sort_keys=False, allow_unicode=True),
        "plugins.lock.json": _json(plugin_lock(plan)),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "provenance.json").write_text(_json(provenance(plan)), encoding="utf-8")
    (folder / "environment.json").write_text(_json(environment()), encoding="utf-8")
    for rows in split_tables.values():
        with (folder / "split.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
    return files


def write_results(folder: Path, figures: Mapping[str, Figure], state: RunState, seconds: float) -> None:
    """``results.json``: the figures of the end, with intervals."""
    values = {
        name: {"value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n}
        for name, figure in figures.items()
    }
    result = {"step": state.step, "best_step": state.best_step, "seconds": round(seconds, 1), "figures": values}
    temporary = folder / ".results.json"
    temporary.write_text(_json(result), encoding="utf-8")
    os.replace(temporary, folder / "results.json")


def provenance(plan: RunPlan) -> dict[str, Any]:
    """For each value that somebody wrote: all its settings, the winner last."""
    return {
        ".".join(map(str, path)): [{"value": setting.value, "where": setting.where} for setting in settings]
        for path, settings in plan.layers.history.items()
    }


def plugin_lock(plan: RunPlan) -> dict[str, Any]:
    """Distributions, versions, entry points and source hashes of everything the run uses."""
    lock: dict[str, Any] = {}
    for used in plan.components():
        component = used.component
        if component is None:
            lock.setdefault("resolved by hooks", []).append(used.full_name)
            continue
        entry = lock.setdefault(
            component.distribution,
            {"version": component.version, "source": _source_hash(component), "components": {}},
        )
        entry["components"][f"{component.kind}/{component.name}"] = component.value
    for entry in lock.values():
        if isinstance(entry, dict):
            entry["components"] = dict(sorted(entry["components"].items()))
    return dict(sorted(lock.items()))


def _source_hash(component: Component) -> str:
    """sha256 over the Python files of the component's top package, or of its ``--plugin`` file."""
    digest = hashlib.sha256()
    if isinstance(component.origin, ModuleType):
        paths = [Path(str(component.origin.__file__))]
        root = paths[0].parent
    else:
        module = sys.modules.get(component.value.partition(":")[0].partition(".")[0])
        root = Path(str(module.__file__)).parent if module and module.__file__ else Path()
        paths = sorted(root.rglob("*.py")) if module and module.__file__ else []
    for path in paths:
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def environment() -> dict[str, Any]:
    """Python, platform and the versions of all installed distributions."""
    versions = {
        distribution.name: distribution.version for distribution in metadata.distributions() if distribution.name
    }
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "host": platform.node(),
        "command": sys.argv,
        "packages": dict(sorted(versions.items(), key=lambda item: item[0].lower())),
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
