"""Find a checkpoint by any of its names, and read it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from antmmf.checkpoint.files import MANIFEST, check_files, read_json, step_folders
from antmmf.checkpoint.shards import StoredTensors, unpack
from antmmf.contracts import Json, RunState
from antmmf.errors import CheckpointError

log = logging.getLogger("antmmf")
Pointer = Literal["latest", "best"]
_OWN = {"optimizer.json", "state.json", "assets.json"}


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds; tensors are read when they are asked for. ``files`` are texts by name (the config)."""

    path: Path
    state: RunState
    model: Mapping[str, Tensor]
    ema: Mapping[str, Tensor] | None
    callbacks: Mapping[str, Json]
    assets: Mapping[str, Json]
    files: Mapping[str, str]

    @cached_property
    def optimizer(self) -> dict[str, Any] | None:
        """The optimizer's state with whole tensors, None where none was saved."""
        file = self.path / "optimizer.json"
        if not file.is_file():
            return None
        state: dict[str, Any] = unpack(read_json(file), StoredTensors(self.path, "optimizer"))
        return state


def load_checkpoint(path: Path, *, verify: bool = True) -> Checkpoint:
    """Open the checkpoint folder ``path``; ``verify`` compares every file with the manifest's hash.

    Raises ``CheckpointError`` naming the file that is missing or damaged, and the newest whole checkpoint beside it.
    """
    path = _moved(path)
    try:
        names = check_files(path, verify=verify)
    except CheckpointError as fault:
        whole = _whole_one(path.parent, [])
        advice = f"the newest whole one beside it is {whole.name}" if whole else "there is no whole one beside it"
        raise CheckpointError(f"{fault}; {advice}") from fault
    state = read_json(path / "state.json")
    try:
        run = _as_evaluated(path, RunState(**state["run"]))
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{path / 'state.json'} does not fit this version of antmmf: {error}") from error
    return Checkpoint(
        path=path,
        state=run,
        model=StoredTensors(path, "model"),
        ema=StoredTensors(path, "ema") if any(name.startswith("ema.") for name in names) else None,
        callbacks=state["callbacks"],
        assets=read_json(path / "assets.json"),
        files={name: (path / name).read_text(encoding="utf-8") for name in names if not _is_own(name)},
    )


def _is_own(name: str) -> bool:
    return name in _OWN or name.endswith((".safetensors", ".index.json"))


def find_checkpoint(path: Path, *, prefer: Pointer) -> Path:
    """The checkpoint folder that ``path`` means: itself, a pointer file, a run's folder, or its ``checkpoints``."""
    if path.is_file() and path.name in ("latest", "best"):
        return path.parent / _lines(path)[0]
    path = _moved(path)
    if (path / MANIFEST).is_file():
        return path
    for folder in (path, path / "checkpoints"):
        best = pointed(folder, "best") if prefer == "best" else None
        found = best or latest(folder)
        if found is not None:
            return found
    what = "has no checkpoint" if path.exists() else "does not exist"
    raise CheckpointError(f"{path} {what}; give a run's folder or one of its checkpoints/step_...")


def latest(folder: Path) -> Path | None:
    """The checkpoint that ``latest`` names, else the newest one; None when there is none."""
    return next(iter(_from_newest(folder)), None)


def pointed(folder: Path, pointer: Pointer) -> Path | None:
    """The checkpoint that the file ``latest`` or ``best`` names, None where it names none that is there."""
    path = folder / _lines(folder / pointer)[0] if (folder / pointer).is_file() else None
    return path if path in step_folders(folder) else None


def _lines(pointer: Path) -> list[str]:
    """A folder's name, and after it, in ``best``, the value that made it so, in ``latest`` perhaps ``ended``."""
    return pointer.read_text(encoding="utf-8").split() or [""]


def _as_evaluated(path: Path, run: RunState) -> RunState:
    """``run`` with what an evaluation found after that checkpoint was saved."""
    if pointed(path.parent, "latest") == path and "ended" in _lines(path.parent / "latest"):
        run = replace(run, ended=True)
    if run.best_step == run.step or pointed(path.parent, "best") != path:
        return run
    _, *value = _lines(path.parent / "best")
    return replace(run, best_step=run.step, best_value=float(value[0])) if value else run


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint whose files have the hashes of its manifest, None when there is none at all.

    Every damaged one that is passed over is logged; raises ``CheckpointError`` when no other is left.
    """
    faults: list[CheckpointError] = []
    path = _whole_one(folder, faults)
    if path is None and faults:
        reasons = "; ".join(map(str, faults[:3]))
        raise CheckpointError(f"{folder}: none of its {len(faults)} checkpoints is whole: {reasons}")
    for fault in faults:
        log.warning("%s; using %s instead", fault, path)
    return path


def _whole_one(folder: Path, faults: list[CheckpointError]) -> Path | None:
    """The newest whole one; what is wrong with those passed over is added to ``faults``."""
    for path in _from_newest(folder):
        try:
            check_files(path, verify=True)
        except CheckpointError as fault:
            faults.append(fault)
            continue
        return path
    return None


def _from_newest(folder: Path) -> list[Path]:
    """First the one that ``latest`` names: that file is written last, when ``best`` is right too."""
    first, found = pointed(folder, "latest"), step_folders(folder)
    return sorted(found, key=lambda path: (path == first, found[path]), reverse=True)


def _moved(path: Path) -> Path:
    """``path``, or where that step is now: saving it once more makes another folder and removes the first."""
    same = [other for other in step_folders(path.parent) if other.name.startswith(f"{path.name}-")]
    return same[-1] if same and not path.exists() else path
