"""Where a run starts: exactly where one stopped, from the weights of a checkpoint, or fresh."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from antmmf.checkpoint import Checkpoint, Checkpoints, find_checkpoint, load_checkpoint
from antmmf.config.reader import parse
from antmmf.contracts import Json
from antmmf.distributed.environment import restarted
from antmmf.errors import CheckpointError, ConfigError, Problem
from antmmf.plan import RunPlan
from antmmf.plugin_lock import lock_changes
from antmmf.run_folder import flat


@dataclass(frozen=True)
class Origin:
    """The checkpoint to start from, whether all of it is taken or only the weights, and notes for the console.

    ``changed`` are the dotted keys that a run which goes on is told differently.
    """

    checkpoint: Checkpoint | None
    exact: bool
    notes: tuple[str, ...]
    changed: tuple[str, ...] = ()

    @property
    def measures_otherwise(self) -> bool:
        """Whether the best value so far is of another figure or other data than those that will be measured."""
        parts = ("monitored_metric", "metric_minimize", "metrics", "dataset_attributes.val")
        names = tuple(part if "." in part or part == "metrics" else f"training_parameters.{part}" for part in parts)
        return any(key.startswith(names) for key in self.changed)


def find_origin(plan: RunPlan, checkpoints: Checkpoints, lock: str) -> Origin:
    """Where a planned run starts; ``lock`` is its own plugins.lock.json.

    Raises ``CheckpointError`` when a checkpoint that is wanted is missing or damaged, or was written by other plugins
    and ``plugin_lock`` is ``strict``.
    """
    train = plan.config.training_parameters
    is_training = "train" in train.run_type.split("+")
    newest = checkpoints.newest_whole() if is_training and (train.resume or restarted()) else None
    if newest is not None:
        checkpoint = load_checkpoint(newest, verify=False)  # just verified
        note = f"going on from {newest}, step {checkpoint.state.step}"
        return _continued(plan, checkpoint, note, _lock_notes(plan, checkpoint, lock))
    if train.resume_file is None and not is_training:
        return Origin(None, False, ("no checkpoint: the weights are the encoders' own",))
    if train.resume_file is None:
        why = "; restart has no resume_file to take weights from" if train.restart else ""
        return Origin(None, False, (f"starting fresh with seed {train.seed}{why}",))
    weights_only = train.restart or not is_training
    path = find_checkpoint(Path(train.resume_file).expanduser(), prefer="best" if weights_only else "latest")
    checkpoint = load_checkpoint(path)
    locked = _lock_notes(plan, checkpoint, lock, same_run=not weights_only)
    if weights_only:
        return Origin(checkpoint, False, (f"weights from {path}, counting from 0", *locked))
    note = f"going on from {path}, counting from {checkpoint.state.step}"
    return _continued(plan, checkpoint, note, locked)


def check_weights(plan: RunPlan, task: nn.Module, other: nn.Module, names: Collection[str]) -> None:
    """That none of the tensors ``names`` of a model which nobody trains is random: ``other`` is the same model, built
    from another seed, and must have the same ones. Raises ``ConfigError``.
    """
    own, others = task.state_dict(), other.state_dict()
    drawn = [name for name in names if not torch.equal(own[name].cpu(), others[name])]
    if drawn:
        raise ConfigError(random_fault(plan, drawn))


def random_fault(plan: RunPlan, names: Sequence[str]) -> Problem:
    """What is wrong with a run that trains nothing, and whose model's tensors ``names`` nobody fills."""
    path = ("training_parameters", "resume_file")
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    message = (
        f"must name a checkpoint that has {shown}, which would be random; run_type "
        f"{plan.config.training_parameters.run_type!r} needs a model that is trained in all its parts"
    )
    return Problem(".".join(path), plan.layers.where(path), message)


def _continued(plan: RunPlan, checkpoint: Checkpoint, note: str, locked: tuple[str, ...]) -> Origin:
    changes = list(_changes(plan, checkpoint))
    lines = (f"changed since that checkpoint: {key} was {old!r}, is {new!r}" for key, old, new in changes)
    origin = Origin(checkpoint, True, (note, *lines, *locked), tuple(key for key, *_ in changes))
    if origin.measures_otherwise and checkpoint.state.best_value is not None:
        what = f"the best value so far, {checkpoint.state.best_value:.4g}, was measured otherwise and counts no more"
        return replace(origin, notes=(*origin.notes, what))
    return origin


def _changes(plan: RunPlan, checkpoint: Checkpoint) -> Iterator[tuple[str, Json, Json]]:
    """What a run that goes on is told differently from the run that stopped: key, before, now."""
    text = checkpoint.files.get("config.yml")
    before = flat(parse(text, name="config.yml").values) if text else {}
    after = flat(plan.resolved) if text else {}
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old != new and key.rpartition(".")[2] not in ("resume", "resume_file", "save_dir"):
            yield key, old, new


def _lock_notes(plan: RunPlan, checkpoint: Checkpoint, lock: str, *, same_run: bool = True) -> tuple[str, ...]:
    policy = plan.config.training_parameters.plugin_lock
    saved = checkpoint.files.get("plugins.lock.json")
    if policy == "ignore" or saved is None:
        return ()
    changes = lock_changes(json.loads(saved), json.loads(lock), same_run=same_run)
    if changes and policy == "strict":
        raise CheckpointError(
            f"{checkpoint.path} was written by other plugins: {'; '.join(changes)}; install those, "
            "or set training_parameters.plugin_lock warn"
        )
    return tuple(f"plugins changed since that checkpoint: {change}" for change in changes)
