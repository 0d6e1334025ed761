"""Upstream's defects of what a run keeps: every check holds for ours and fails on a copy of the wrong rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from antmmf.batch import Batch
from antmmf.checkpoint import Checkpoint, load_checkpoint
from antmmf.contracts import RunState, Term
from antmmf.errors import CheckpointError
from antmmf.optim import Cosine
from antmmf.task import TaskOutput
from antmmf.trainer import Trainer
from defect_toys import make_trainer, wrong
from engine_toys import ToyTask
from torch import Tensor, nn

# --- D8: modules made at the first forward pass -----------------------------------------------------------------------


class LateQueue(ToyTask):
    """Pulls each video to the last ones that it saw; makes their queue when it first needs it, as upstream does."""

    queue: Tensor

    def make_queue(self) -> None:
        self.register_buffer("queue", torch.zeros(6, 8))

    def forward(self, batch: Batch) -> TaskOutput:
        if not hasattr(self, "queue"):
            self.make_queue()
        output = super().forward(batch)
        video = self.vision(batch.frames.flatten(1) / 255)  # (B, 8)
        pull = (video - self.queue.mean(0)).square().sum()
        self.queue = torch.cat([self.queue, video.detach()])[-6:]
        return TaskOutput(terms={**output.terms, "pull": Term(pull, len(video))})


class Queue(LateQueue):
    """Makes its queue with everything else."""

    def __init__(self) -> None:
        super().__init__()
        self.make_queue()


def tolerant(trainer: Trainer, checkpoint: Checkpoint) -> RunState:
    """Upstream's rule: what the model does not have (yet) is passed over."""
    own = trainer.task.state_dict()
    return trainer.restore(replace(checkpoint, model={name: checkpoint.model[name] for name in own}))


def strict(trainer: Trainer, checkpoint: Checkpoint) -> RunState:
    return trainer.restore(checkpoint)


def queue_trainer(folder: Path, kind: type[LateQueue], *, max_steps: int = 6) -> Trainer:
    torch.default_generator.manual_seed(3)
    return make_trainer(folder, task=kind(), max_steps=max_steps, snapshot_interval=3)[0]


def test_D8_a_queue_goes_on_where_it_was(tmp_path: Path) -> None:
    def check(kind: type[LateQueue], restore: Callable[[Trainer, Checkpoint], RunState]) -> None:
        whole = queue_trainer(tmp_path / kind.__name__, kind)
        whole.fit(RunState())
        saved = load_checkpoint(tmp_path / kind.__name__ / "checkpoints" / "step_000003")
        resumed = queue_trainer(tmp_path / f"{kind.__name__} resumed", kind)
        resumed.fit(restore(resumed, saved))
        assert_same(resumed.task, whole.task)

    check(Queue, strict)
    wrong(check, LateQueue, tolerant)


def test_D8_what_is_made_at_the_first_forward_pass_is_refused_by_name_not_dropped(tmp_path: Path) -> None:
    queue_trainer(tmp_path, LateQueue, max_steps=3).fit(RunState())
    saved = load_checkpoint(tmp_path / "checkpoints" / "step_000003")

    def check(restore: Callable[[Trainer, Checkpoint], RunState]) -> None:
        said = ""
        try:
            restore(queue_trainer(tmp_path / "resumed", LateQueue), saved)
        except CheckpointError as error:
            said = str(error)
        assert "step_000003 does not fit this run" in said
        assert '"queue"' in said

    check(strict)
    wrong(check, tolerant)


def assert_same(one: nn.Module, two: nn.Module) -> None:
    assert one.state_dict().keys() == two.state_dict().keys()
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


# --- D10: what else a resumed run must have ---------------------------------------------------------------------------


class OwnDraws(ToyTask):
    """Drops out by a generator that goes on from draw to draw and that nobody saves, as upstream's all do."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        self.draws = torch.Generator().manual_seed(1)
        self.vision.register_forward_hook(self.drop)

    def drop(self, _: nn.Module, __: object, video: Tensor) -> Tensor:
        return video * (torch.rand(video.shape, generator=self.draws) < 0.8)


def forget_all_but_the_weights(trainer: Trainer, state: RunState) -> RunState:
    forget_the_optimizer(trainer, state)
    forget_the_scale(trainer, state)
    return RunState()


def forget_the_optimizer(trainer: Trainer, state: RunState) -> RunState:
    trainer.optimizer.state.clear()
    return state


def forget_the_schedule(trainer: Trainer, state: RunState) -> RunState:
    schedule, done = trainer.schedule, state.step
    trainer.schedule = lambda step, max_steps: schedule(step - done, max_steps)
    return state


def forget_the_scale(trainer: Trainer, state: RunState) -> RunState:
    trainer.scaler = new_scaler()
    return state


def forget_the_position(trainer: Trainer, state: RunState) -> RunState:  # noqa: ARG001
    return replace(state, position=0)


def forget_nothing(trainer: Trainer, state: RunState) -> RunState:  # noqa: ARG001
    return state


def new_scaler() -> torch.amp.GradScaler:
    """Its first scale is too large for float16, so that the first updates are left out and it moves."""
    return torch.amp.GradScaler("cpu", init_scale=2.0**30, backoff_factor=2.0**-4)


def check_resumed(folder: Path, forget: Callable[[Trainer, RunState], RunState], kind: type[ToyTask] = ToyTask) -> None:
    """A float16 run that is stopped in its second epoch, after 7 of 12 steps, ends as if it had not been stopped."""

    def trainer(name: str) -> Trainer:
        torch.default_generator.manual_seed(3)
        made, _ = make_trainer(
            folder / name, task=kind(), max_steps=12, schedule=Cosine(warmup_iterations=3),
            amp=torch.float16, max_grad_l2_norm=1.0, snapshot_interval=7,
        )  # fmt: skip
        made.scaler = new_scaler()
        return made

    whole, resumed = trainer("whole"), trainer("resumed")
    whole.fit(RunState())
    state = resumed.restore(load_checkpoint(folder / "whole" / "checkpoints" / "step_000007"))
    assert (state.step, state.epoch, state.position) == (7, 2, 8)
    state = forget(resumed, state)
    resumed.fit(state)
    assert state.step == 12
    assert_same(resumed.task, whole.task)


def test_D10_a_resumed_run_has_all_that_moves(tmp_path: Path) -> None:
    check_resumed(tmp_path, forget_nothing)


@pytest.mark.parametrize(
    "forget",
    [
        forget_all_but_the_weights,
        forget_the_optimizer,
        forget_the_schedule,
        forget_the_scale,
        forget_the_position,
    ],
)
def test_D10_whatever_is_forgotten_changes_the_run(
    tmp_path: Path, forget: Callable[[Trainer, RunState], RunState]
) -> None:
    wrong(check_resumed, tmp_path, forget)


def test_D10_draws_are_keyed_so_that_no_generator_must_be_saved(tmp_path: Path) -> None:
    check_resumed(tmp_path / "ours", forget_nothing, ToyTask)
    wrong(check_resumed, tmp_path / "upstream", forget_nothing, OwnDraws)
