"""What a run writes beside its checkpoints: config, provenance, plugin lock, environment, results."""

from __future__ import annotations

import csv
import functools
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

from antmmf.config.reader import write
from antmmf.contracts import Figure, RunState
from antmmf.distributed.environment import restarted, started
from antmmf.errors import ConfigError, Problem
from antmmf.plan import RunPlan
from antmmf.registry import Component
from antmmf.scan import versions


def choose_folder(plan: RunPlan) -> Path:
    """``save_dir``, or ``save/<recipe>/<time>``; one that is not empty is refused unless ``resume: auto``."""
    train = plan.config.training_parameters
    if train.save_dir is None:
        base = Path("save") / plan.name / (started() or datetime.now().strftime("%Y%m%d-%H%M%S"))
        folder, number = base, 1
        while folder.exists() and not restarted():
            folder, number = base.with_name(f"{base.name}-{number}"), number + 1
        return folder
    folder = Path(train.save_dir).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(_problem(plan, f"must be a folder, {folder} is a file"))
    in_use = folder.is_dir() and any(folder.iterdir())
    if in_use and not train.resume and not restarted():
        message = f"{folder} is not empty; set training_parameters.resume auto to go on, or choose another folder"
        raise ConfigError(_problem(plan, message))
    if in_use and not restarted() and not (folder / "provenance.json").is_file():
        raise ConfigError(_problem(plan, f"{folder} is not empty and is no run folder; choose another one"))
    if in_use and "train" not in train.run_type and (folder / "checkpoints").is_dir():
        raise ConfigError(_problem(plan, f"{folder} holds a run that was trained, whose results would be lost"))
    return folder


def _problem(plan: RunPlan, message: str) -> Problem:
    path = ("training_parameters", "save_dir")
    return Problem(".".join(path), plan.layers.where(path), message)


def carried_files(plan: RunPlan) -> dict[str, str]:
    """Name -> text of the files that each checkpoint carries too."""
    return {"config.yml": write(plan.resolved), "plugins.lock.json": _json(plugin_lock(plan))}


def write_start(
    folder: Path, plan: RunPlan, files: Mapping[str, str], *, split_tables: Mapping[str, list[tuple[str, ...]]]
) -> None:
    """Write the files that describe the run; called last, so that a run that is refused changes nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "provenance.json").write_text(_json(provenance(plan)), encoding="utf-8")
    (folder / "environment.json").write_text(_json(environment()), encoding="utf-8")
    if split_tables:
        rows = sorted({row for table in split_tables.values() for row in table})
        with (folder / "split.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("media", "group", "split"), *rows])


def write_results(
    folder: Path,
    figures: Mapping[str, Figure],
    state: RunState,
    seconds: float,
    time_shares: Mapping[str, float] | None = None,
) -> None:
    """``results.json``: the figures of the end, with intervals, and where the time of training went."""
    values = {
        name: {"value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n}
        for name, figure in figures.items()
    }
    result = {
        "step": state.step,
        "best_step": state.best_step,
        "seconds": round(seconds, 1),
        "time": {part: round(share, 4) for part, share in (time_shares or {}).items()},
        "figures": values,
    }
    temporary = folder / ".results.json"
    temporary.write_text(_json(result), encoding="utf-8")
    os.replace(temporary, folder / "results.json")


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """A nested config as dotted key -> value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {key: leaf for name, child in items for key, leaf in flat(child, f"{path}.{name}".lstrip(".")).items()}
    return found or {path: value}


def provenance(plan: RunPlan) -> dict[str, Any]:
    """For each value that somebody wrote: all its settings, the winner last."""
    return {
        ".".join(map(str, path)): [{"value": setting.value, "where": setting.where} for setting in settings]
        for path, settings in plan.layers.history.items()
    }


def plugin_lock(plan: RunPlan) -> dict[str, Any]:
    """Distributions, versions, entry points and source hashes of everything that takes part: components and hooks."""
    used = [planned.component for planned in plan.components()]
    hooked = [hook for hook in plan.registry.components("plugins") if plan.hooks.has_plugin(hook.full_name)]
    lock: dict[str, Any] = {}
    for component in (*(component for component in used if component), *hooked):
        entry = lock.setdefault(
            component.distribution,
            {"version": component.version, "source": source_hash(component), "components": {}},
        )
        entry["components"][f"{component.kind}/{component.name}"] = component.value
        probe = getattr(component.load(), "probe", None) if component.kind == "readers" else None
        if probe is not None:
            entry.setdefault("uses", {})[f"{component.kind}/{component.name}"] = probe()
    for module in plan.registry.files:  # also those that only have hooks
        lock.setdefault(
            Path(str(module.__file__)).stem, {"version": "file", "source": _source_hash(module), "components": {}}
        )
    for entry in lock.values():
        entry["components"] = dict(sorted(entry["components"].items()))
    resolved = sorted(planned.full_name for planned in plan.components() if planned.component is None)
    return {**dict(sorted(lock.items())), **({"resolved by hooks": resolved} if resolved else {})}


def source_hash(component: Component) -> str:
    """sha256 over the Python files of the package that a component comes from, or of its ``--plugin`` file."""
    return _source_hash(component.file or sys.modules.get(component.value.partition(":")[0].partition(".")[0]))


@functools.cache  # a module is loaded once, and asked for by each component and each split
def _source_hash(module: ModuleType | None) -> str:
    """sha256 over the Python files of a package, or over the one file of a module."""
    digest = hashlib.sha256()
    file = getattr(module, "__file__", None)
    root = Path(file).parent if file else Path()
    paths = sorted(root.rglob("*.py")) if file and hasattr(module, "__path__") else [Path(file)] if file else []
    for path in paths:
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def environment() -> dict[str, Any]:
    """Python, platform and the versions of all installed distributions."""
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "host": platform.node(),
        "command": sys.argv,
        "packages": dict(sorted(versions().items(), key=lambda item: item[0].lower())),
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
