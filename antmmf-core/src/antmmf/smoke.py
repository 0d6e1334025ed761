"""``antmmf run --smoke``: does this run start, save, resume and evaluate here? Nothing is left behind."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from antmmf.data.loader import LoadedStep, Loader
from antmmf.device import peak_memory
from antmmf.distributed.world import World
from antmmf.plan import RunPlan
from antmmf.run import Run, assemble

STEPS = 3
EVALUATION_BATCHES = 2


class FirstBatches(Loader):
    """A loader that stops after a few batches of each epoch."""

    def __init__(self, whole: Loader, count: int) -> None:
        self.__dict__.update(whole.__dict__)
        self._count = count

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[LoadedStep]:
        return islice(super().epoch(epoch, start=start), self._count)


def smoke_run(plan: RunPlan, world: World | None = None) -> str:
    """Run 3 steps and 2 evaluation batches on the real device and data, save, resume, and report in one line."""
    world = world or World()
    changes: dict[str, Any] = {
        "resume": False,
        "snapshot_interval": None,
        "evaluation_interval": None,
        "log_interval": 1,
        "monitored_metric": None,
        "patience": None,
    }
    with tempfile.TemporaryDirectory(prefix="antmmf-smoke-") as name:
        folder = Path(world.broadcast(name)) / "run"
        plan = replace(plan, callbacks=())  # nothing but the result is printed or tracked
        run = assemble(_with_settings(plan, **changes), world=world, folder=folder, limit_steps=STEPS)
        _cut_evaluation(run)
        started = time.monotonic()
        run.execute()
        seconds = time.monotonic() - started
        resumed = _resume(plan, changes, folder, run)
        world.wait()  # the first process removes the folder
    rate = run.state.step * run.info.batch_size / max(seconds, 1e-9)
    memory = f"{peak_memory(run.device) / 2**20:,.0f} MiB on {run.device}"
    splits = ", ".join(split for split in run.loaders if split != "train") or "none"
    return (
        f"smoke: {run.state.step} steps, {EVALUATION_BATCHES} evaluation batches of {splits}, saved{resumed}\n"
        f"peak memory {memory}; {rate:,.1f} samples/s, everything included"
    )


def _cut_evaluation(run: Run) -> None:
    run.loaders = {
        split: loader if split == "train" else FirstBatches(loader, EVALUATION_BATCHES)
        for split, loader in run.loaders.items()
    }


def _with_settings(plan: RunPlan, **changes: Any) -> RunPlan:
    """The same plan with some ``training_parameters`` changed."""
    train = plan.config.training_parameters.model_copy(update=changes)
    return replace(plan, config=plan.config.model_copy(update={"training_parameters": train}))


def _resume(plan: RunPlan, changes: dict[str, Any], folder: Path, run: Run) -> str:
    if run.trainer is None:
        return ""
    settings = _with_settings(plan, **{**changes, "resume": "auto"})
    again = assemble(settings, world=run.world, folder=folder, limit_steps=STEPS + 1)
    _cut_evaluation(again)
    assert again.state.step == STEPS, f"resumed at step {again.state.step} instead of {STEPS}"
    again.execute()
    return f", resumed at step {STEPS} and went on"
