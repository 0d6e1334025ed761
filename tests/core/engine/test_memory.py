"""How many micro-batches fit, and what is said when a step does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from antmmf.batch import Batch
from antmmf.checkpoint import Checkpoints, load_checkpoint
from antmmf.contracts import RunState
from antmmf.errors import AntmmfError
from antmmf.optim import AdamW, Constant, build_optimizer
from antmmf.plugins import new_manager
from antmmf.task import TaskOutput
from antmmf.trainer import Trainer, TrainSettings
from engine_toys import ToyTask, toy_loader


class Greedy(ToyTask):
    """Does not fit with more than ``most`` samples; a batch norm notices every forward pass."""

    def __init__(self, most: int) -> None:
        super().__init__(dropout=0.0)
        self.most = most
        self.norm = torch.nn.BatchNorm1d(96)

    def forward(self, batch: Batch) -> TaskOutput:
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.norm(batch.frames.flatten(1).float())
        return super().forward(batch)


def trainer(folder: Path, *, most: int, auto: bool = True) -> Trainer:
    torch.manual_seed(0)
    task = Greedy(most)
    return Trainer(
        task,
        optimizer=build_optimizer(AdamW(lr=1e-2), task),
        schedule=Constant(),
        loader=toy_loader(folder / "data", num=24, batch_size=8),
        settings=TrainSettings(max_steps=3, auto_micro_batches=auto),
        hook=new_manager().hook,
        checkpoints=Checkpoints(folder / "c"),
    )


@pytest.mark.parametrize(("most", "micro_batches"), [(8, 1), (5, 2), (2, 4)])
def test_auto_takes_as_few_micro_batches_as_fit(most: int, micro_batches: int, tmp_path: Path) -> None:
    run, state = trainer(tmp_path, most=most), RunState()
    run.fit(state)
    assert (state.micro_batches, state.step) == (micro_batches, 3)


def test_trying_changes_neither_weights_nor_statistics(tmp_path: Path) -> None:
    tried, told = trainer(tmp_path / "a", most=2), trainer(tmp_path / "b", most=2, auto=False)
    told.loader.micro_batches = 4
    for run in (tried, told):
        run.fit(RunState())
    torch.testing.assert_close(dict(tried.task.state_dict()), dict(told.task.state_dict()), rtol=0, atol=0)


def test_a_run_that_goes_on_keeps_what_was_found(tmp_path: Path) -> None:
    trainer(tmp_path, most=2).fit(RunState())
    again = trainer(tmp_path, most=8)
    state = again.restore(load_checkpoint(tmp_path / "c" / "step_000003"))
    again.fit(state)
    assert state.micro_batches == again.loader.micro_batches == 4


@pytest.mark.parametrize("auto", [True, False])
def test_too_little_memory_is_one_line_that_names_three_keys(auto: bool, tmp_path: Path) -> None:
    with pytest.raises(AntmmfError) as caught:
        trainer(tmp_path, most=0, auto=auto).fit(RunState())
    message = str(caught.value)
    assert "\n" not in message
    for key in ("micro_batch_size", "activation_checkpointing", "enable_amp"):
        assert f"training_parameters.{key}" in message
