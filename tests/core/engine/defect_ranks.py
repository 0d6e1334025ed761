"""Where processes have unequal shares of what is read; run by test_defects_data.py: python defect_ranks.py FOLDER.

Every process writes what it found to ``FOLDER/RANK.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from antmmf.batch import Batch
from antmmf.contracts import Collator, Figure, RunState, StepReport, Term
from antmmf.data.loader import Loader
from antmmf.data.order import Permutation
from antmmf.data.quarantine import Quarantine
from antmmf.distributed import parallel
from antmmf.distributed.world import World, joined_world
from antmmf.evaluate import measure, split_rows
from antmmf.hookspecs import hookimpl
from antmmf.optim import SGD, Constant, build_optimizer
from antmmf.plugins import new_manager
from antmmf.step import Step
from antmmf.task import Task, TaskOutput
from antmmf.trainer import Trainer, TrainSettings
from engine_toys import ToyCollator, toy_loader
from ranks_toys import Encoder, Pairs
from torch import Tensor, nn

SEED, NUM, BATCH_SIZE, STEPS, RATE = 7, 12, 4, 3, 0.01
HOLES = (2, 3, 4)
"""Positions of the bad samples: of two processes the second has none left at step 1, the first one of two at step 2."""


class Energy(Task):
    """One value a video, and their mean as the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = nn.Linear(2 * 3 * 16, 1)

    def collator(self, train: bool) -> Collator:  # noqa: ARG002
        return ToyCollator()

    def forward(self, batch: Batch) -> TaskOutput:
        values = self.values(batch)
        if self.training:
            return TaskOutput(terms={"energy": Term(values.sum(), len(values))})
        return TaskOutput(rows={"value": values, "video_id": batch.ids})

    def values(self, batch: Batch) -> Tensor:
        """A number (B,) for each video."""
        frames = batch.frames.flatten(1).to(self.vision.weight.dtype) / 255
        values: Tensor = self.vision(frames).square()[:, 0]
        return values


class ShortPairs(Pairs):
    """The contrastive toy for texts of two tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.text = Encoder(2, dropout=0.0)


@dataclass
class Median:
    """A figure of the whole split that figures of its parts do not give."""

    rows: list[Mapping[str, Tensor]] = field(default_factory=list)

    def update(self, rows: Mapping[str, Tensor]) -> None:
        self.rows.append(rows)

    def compute(self) -> dict[str, Figure]:
        values = torch.cat([rows["value"] for rows in self.rows])
        return {"median": Figure(float(np.median(values)), n=len(values))}

    def reset(self) -> None:
        self.rows.clear()


@dataclass
class Losses:
    found: list[float] = field(default_factory=list)

    @hookimpl
    def antmmf_step_end(self, report: StepReport) -> None:
        self.found.append(report.loss)


def made(kind: type[Task]) -> Task:
    """A task in float64, the same in every process."""
    torch.default_generator.manual_seed(3)
    return kind().double()


def train_loader(folder: Path, world: World) -> Loader:
    """Twelve samples of which those at ``HOLES`` of the first epoch cannot be read."""
    bad = Permutation(NUM, seed=SEED, epoch=1)(HOLES)
    keys = [f"{'bad' if row in bad else 'clip'}{row}" for row in range(NUM)]
    quarantine = Quarantine(policy="skip", max_bad_rate=1)
    share: dict[str, Any] = {"rank": world.rank, "num_ranks": world.size, "batch_size": BATCH_SIZE}
    return toy_loader(folder / "train", keys=keys, seed=SEED, quarantine=quarantine, **share)


def val_loader(folder: Path, world: World) -> Loader:
    """Nine samples, five and four for two processes."""
    return toy_loader(folder / "val", num=9, train=False, rank=world.rank, num_ranks=world.size, batch_size=2)


def train(kind: type[Task], folder: Path, world: World) -> dict[str, Any]:
    """One epoch: the losses of its steps, this process's forward passes, and the weights at the end."""
    task, losses, manager = made(kind), Losses(), new_manager()
    manager.register(losses)
    step = Step(task, world=world)
    passes: list[int] = []
    step.register_forward_hook(lambda *_: passes.append(1))
    trainer = Trainer(
        task,
        model=parallel.wrap(step, torch.device("cpu")) if world.size > 1 else step,
        world=world,
        optimizer=build_optimizer(SGD(lr=RATE, momentum=0.0, weight_decay=0.0), task),
        schedule=Constant(),
        loader=train_loader(folder, world),
        settings=TrainSettings(max_steps=STEPS, log_interval=1),
        hook=manager.hook,
    )
    state = RunState()
    trainer.fit(state)
    return {"bad": state.bad_samples, "losses": losses.found, "passes": len(passes), "weights": weights_of(task)}


def weights_of(task: Task) -> list[float]:
    return nn.utils.parameters_to_vector(task.parameters()).tolist()


def evaluate(folder: Path, world: World, together: World) -> Figure:
    """The median over this process's share of the split, with those of all processes in ``together``."""
    rows = split_rows(made(Energy), val_loader(folder, world), device="cpu", world=together)
    return measure([Median()], rows, together)["median"]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with joined_world("cpu") as world:
        found = {
            "energy": train(Energy, folder, world),
            "pairs": train(ShortPairs, folder, world),
            "of all": evaluate(folder, world, world).value,
            "own": evaluate(folder, world, World()).value,
        }
        (folder / f"{world.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
