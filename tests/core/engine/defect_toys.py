"""A trainer whose course is written down, and how a check is shown to find what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from antmmf.checkpoint import Checkpoints
from antmmf.contracts import Figure, RunState, Schedule, StepReport
from antmmf.hookspecs import hookimpl
from antmmf.optim import AdamW, Constant, build_optimizer
from antmmf.plugins import new_manager
from antmmf.trainer import Trainer, TrainSettings
from engine_toys import ToyTask, toy_loader

NUM_SAMPLES, BATCH_SIZE = 20, 4  # of an epoch, and of a step


@dataclass
class Course:
    """What a training did: at which steps it reported and evaluated, the rate of each update, norms of gradients."""

    reports: list[int] = field(default_factory=list)
    evaluations: list[int] = field(default_factory=list)
    norms: list[float | None] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    @hookimpl
    def antmmf_step_end(self, state: RunState, report: StepReport) -> None:
        self.reports.append(state.step)
        self.norms.append(report.grad_norm)

    @hookimpl
    def antmmf_eval_end(self, state: RunState) -> None:
        self.evaluations.append(state.step)


def make_trainer(
    folder: Path,
    *,
    max_steps: int,
    kind: type[Trainer] = Trainer,
    task: ToyTask | None = None,
    schedule: Schedule | None = None,
    values: list[float] | None = None,
    loading: Mapping[str, Any] | None = None,
    **settings: Any,
) -> tuple[Trainer, Course]:
    """A trainer on the toys, with the course that it takes; ``values`` are what evaluations give, one by one."""
    if task is None:
        torch.default_generator.manual_seed(3)
        task = ToyTask()
    manager, course, given = new_manager(), Course(), iter(values or ())
    manager.register(course)
    optimizer = build_optimizer(AdamW(lr=1e-2), task)
    optimizer.register_step_pre_hook(lambda made, *_: course.rates.append(made.param_groups[0]["lr"]))
    options = {"num": NUM_SAMPLES, "batch_size": BATCH_SIZE, **(loading or {})}
    trainer = kind(
        task,
        optimizer=optimizer,
        schedule=schedule or Constant(),
        loader=toy_loader(folder / "data", **options),
        settings=TrainSettings(max_steps=max_steps, **settings),
        hook=manager.hook,
        checkpoints=Checkpoints(folder / "checkpoints"),
        evaluate_val=lambda: {"accuracy": Figure(next(given, 0.0))},
    )
    return trainer, course


def wrong(check: Callable[..., None], *arguments: Any) -> None:
    """``check`` fails on what it is given."""
    with pytest.raises(AssertionError):
        check(*arguments)
