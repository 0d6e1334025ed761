"""What a run that goes on does with a changed config, and what it leaves when its last evaluation fails."""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from antmmf.checkpoint import Checkpoints, load_checkpoint
from antmmf.contracts import Figure, RunState
from antmmf.data.quarantine import Quarantine
from antmmf.ema import Ema
from antmmf.errors import AntmmfError, CheckpointError
from antmmf.evaluate import split_rows
from antmmf.memory import explained, is_out_of_memory
from antmmf.optim import AdamW, Constant, Group, build_optimizer, parameter_groups
from antmmf.plugins import new_manager
from antmmf.run_data import num_workers
from antmmf.step import Step
from antmmf.trainer import Trainer, TrainSettings
from engine_toys import ToyTask, toy_loader
from ranks_toys import Pairs, make_batch


def make(folder: Path, *, lr: float = 1e-2, rules: tuple[Group, ...] = (), **settings: Any) -> Trainer:
    torch.manual_seed(3)
    task = settings.pop("task", None) or ToyTask()
    evaluate = settings.pop("evaluate_val", None)
    return Trainer(
        task,
        optimizer=build_optimizer(AdamW(lr=lr, weight_decay=lr / 10), parameter_groups(task, rules=rules)),
        schedule=Constant(),
        loader=toy_loader(folder / "data", quarantine=Quarantine()),
        settings=TrainSettings(**{"max_steps": 4, "log_interval": 100, **settings}),
        hook=new_manager().hook,
        checkpoints=Checkpoints(folder / "c"),
        evaluate_val=evaluate,
    )


def saved_at_2(folder: Path, **options: Any) -> Path:
    make(folder, max_steps=2, **options).fit(RunState())
    return folder / "c" / "step_000002"


def test_a_changed_rate_and_decay_hold_from_the_next_step_on(tmp_path: Path) -> None:
    again = make(tmp_path, lr=1e-4)
    again.restore(load_checkpoint(saved_at_2(tmp_path, lr=1e-2)))
    for group in again.optimizer.param_groups:
        assert group["initial_lr"] == 1e-4
        assert group["weight_decay"] in (0.0, 1e-5)
    assert all(state["step"] == 2 for state in again.optimizer.state.values())


def test_parameters_in_other_groups_keep_their_own_moments(tmp_path: Path) -> None:
    first = make(tmp_path, max_steps=2, rules=(Group("vision.weight", lr_scale=0.1),))
    first.fit(RunState())
    saved = load_checkpoint(tmp_path / "c" / "step_000002")
    second = make(tmp_path, rules=(Group("text.weight", lr_scale=0.1),))
    second.restore(saved)
    names = {parameter: name for name, parameter in first.task.named_parameters()}
    moments = {names[parameter]: state["exp_avg"] for parameter, state in first.optimizer.state.items()}
    for name, parameter in second.task.named_parameters():
        torch.testing.assert_close(second.optimizer.state[parameter]["exp_avg"], moments[name], rtol=0, atol=0)
    rates = {name: group["initial_lr"] for group in second.optimizer.param_groups for name in group["names"]}
    assert rates["text.weight"] == pytest.approx(1e-3)
    assert rates["vision.weight"] == pytest.approx(1e-2)


def test_other_trained_parameters_are_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    task = ToyTask()
    task.vision.requires_grad_(False)
    path = saved_at_2(tmp_path)
    with pytest.raises(CheckpointError, match=r"does not fit this run: 2 parameters are trained in only one .*restart"):
        make(tmp_path, task=task).restore(load_checkpoint(path))


def test_a_last_evaluation_that_fails_loses_no_training(tmp_path: Path) -> None:
    def fail() -> dict[str, Figure]:
        raise AntmmfError("the metric is broken")

    with pytest.raises(AntmmfError, match="metric is broken"):
        make(tmp_path, evaluate_val=fail, monitored_metric="R1").fit(RunState())
    assert Checkpoints(tmp_path / "c").newest_whole() == tmp_path / "c" / "step_000004"


def test_a_last_evaluation_that_is_the_best_is_known_to_a_run_that_goes_on(tmp_path: Path) -> None:
    make(tmp_path, evaluate_val=lambda: {"R1": Figure(12.5)}, monitored_metric="R1").fit(RunState())
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.best() == checkpoints.latest() == tmp_path / "c" / "step_000004"
    state = load_checkpoint(tmp_path / "c" / "step_000004").state
    assert (state.best_step, state.best_value) == (4, 12.5)


def test_a_signal_ends_an_evaluation_on_the_way_and_nothing_is_lost(tmp_path: Path) -> None:
    seen = []

    class Slow(ToyTask):
        def forward(self, batch):  # type: ignore[no-untyped-def]
            if not self.training:
                seen.append(len(batch))
                os.kill(os.getpid(), signal.SIGTERM)
            return super().forward(batch)

    task = Slow()
    val = toy_loader(tmp_path / "val", num=40, train=False)

    def evaluate() -> dict[str, Figure]:
        split_rows(task, val, device="cpu", stop=trainer.is_told_to_stop)
        raise AssertionError("it went on to the end")

    trainer = make(
        tmp_path, task=task, evaluation_interval=3, max_steps=9, evaluate_val=evaluate, monitored_metric="R1"
    )
    with pytest.raises(SystemExit) as ended:
        trainer.fit(RunState())
    assert ended.value.code == 128 + signal.SIGTERM
    assert len(seen) == 1
    assert Checkpoints(tmp_path / "c").newest_whole() == tmp_path / "c" / "step_000003"


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    class Broken(ToyTask):
        """A loss that is finite, with a gradient that is not."""

        def forward(self, batch):  # type: ignore[no-untyped-def]
            output = super().forward(batch)
            if self.training:
                term = output.terms["distance"]
                zero = (self.vision.weight * 0).sum().clamp(min=0)
                terms = {**output.terms, "distance": replace(term, sum=term.sum + zero.sqrt() * 1e-9)}
                return replace(output, terms=terms)
            return output

    trainer = make(tmp_path, task=Broken(), max_steps=1)
    with pytest.raises(AntmmfError, match=r"step 1: the weights must be finite.*nothing was saved.*max_grad_l2_norm"):
        trainer.fit(RunState())
    assert Checkpoints(tmp_path / "c").latest() is None


def test_the_end_by_patience_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = iter([3.0, 2.0, 1.0, 0.0])
    trainer = make(
        tmp_path,
        max_steps=8,
        evaluation_interval=1,
        monitored_metric="R1",
        patience=2,
        evaluate_val=lambda: {"R1": Figure(next(values))},
    )
    with caplog.at_level(logging.INFO, logger="antmmf"):
        trainer.fit(RunState())
    assert "training ends at step 3: no better R1 for 2 steps (patience)" in caplog.text
    checkpoint = load_checkpoint(tmp_path / "c" / "step_000003")
    assert checkpoint.state.ended
    again = make(tmp_path, max_steps=8, patience=2, monitored_metric="R1", evaluate_val=lambda: {"R1": Figure(0.0)})
    state = again.restore(checkpoint)
    again.fit(state)  # what has ended does not go on
    assert (state.step, state.best_step) == (3, 1)


# --- errors of a step that a user can mend ---------------------------------------------------------------------------


def test_memory_of_the_cpu_can_run_out_too() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_an_error_of_the_compiler_is_one_line() -> None:
    class InductorError(RuntimeError):
        pass

    InductorError.__module__ = "torch._inductor.exc"
    known = explained(InductorError("no C++\ncompiler " + "x" * 900), device="cpu", batches=[])
    assert str(known).startswith("training_parameters.compile: torch cannot compile this model here (InductorError: no")
    assert len(str(known)) < 600
    assert explained(RuntimeError("a defect"), device="cpu", batches=[]) is None


def test_a_rehearsal_takes_the_loss_over_what_all_processes_would_send() -> None:
    batch = make_batch([1, 2, 3, 4], 0)
    seen = []

    class Spy(Pairs):
        def loss(self, features):  # type: ignore[no-untyped-def]
            seen.append((len(features.video), len(features.text), features.owner.tolist()))
            return super().loss(features)

    Step(Spy(), rehearsed=3)([batch], 0)
    own = batch.owner.tolist()
    shifted = [[owner + 4 * copy if owner >= 0 else -1 for owner in own] for copy in range(3)]
    assert seen == [(12, 3 * len(own), [owner for part in shifted for owner in part])]


def test_an_average_begins_anew_where_the_checkpoint_has_none(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.ema = Ema(trainer.task, decay=0.9)
    trainer.restore(load_checkpoint(saved_at_2(tmp_path)))
    assert trainer.ema is not None


@pytest.mark.parametrize(
    ("wanted", "device", "processes", "chosen"),
    [("auto", "cpu", 1, 0), ("auto", "cuda", 1, 11), ("auto", "cuda", 4, 2), ("auto", "cuda", 12, 1), (3, "cpu", 1, 3)],
)
def test_workers_fit_the_machine(
    monkeypatch: pytest.MonkeyPatch, wanted: int | str, device: str, processes: int, chosen: int
) -> None:
    monkeypatch.setattr("antmmf.run_data.num_cores", lambda: 12)
    plan: Any = SimpleNamespace(config=SimpleNamespace(training_parameters=SimpleNamespace(num_workers=wanted)))
    world: Any = SimpleNamespace(num_local=processes)
    assert num_workers(plan, torch.device(device), world) == chosen
