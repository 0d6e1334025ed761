"""The training loop: exactness of resuming and accumulating, best and last, stopping, errors."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from antmmf.checkpoint import Checkpoints, load_checkpoint
from antmmf.contracts import Figure, RunState, StepReport
from antmmf.errors import AntmmfError, CheckpointError, ConfigError
from antmmf.hookspecs import hookimpl
from antmmf.meter import PARTS
from antmmf.optim import AdamW, Cosine, build_optimizer
from antmmf.plugins import new_manager
from antmmf.trainer import Trainer, TrainSettings
from engine_toys import ToyMetric, ToyTask, evaluate, toy_loader


class Listener:
    """Notes what it hears, and remembers the number of reports over a restart."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, StepReport]] = []
        self.evaluations: list[tuple[int, Mapping[str, Figure]]] = []
        self.num_reports = 0

    @hookimpl
    def antmmf_step_end(self, state: RunState, report: StepReport) -> None:
        self.num_reports += 1
        self.reports.append((state.step, report))

    @hookimpl
    def antmmf_eval_end(self, state: RunState, figures: Mapping[str, Figure]) -> None:
        self.evaluations.append((state.step, figures))

    def state_dict(self) -> dict[str, int]:
        return {"num_reports": self.num_reports}

    def load_state_dict(self, saved: Mapping[str, int]) -> None:
        self.num_reports = saved["num_reports"]


def make_trainer(
    folder: Path, *, max_steps: int, loading: dict[str, Any] | None = None, **options: Any
) -> tuple[Trainer, Listener]:
    torch.manual_seed(3)
    task = ToyTask()
    manager, listener = new_manager(), Listener()
    manager.register(listener)
    settings = {name: options.pop(name) for name in list(options) if name in TrainSettings.__dataclass_fields__}
    trainer = Trainer(
        task,
        optimizer=build_optimizer(AdamW(lr=1e-2), task),
        schedule=Cosine(warmup_iterations=3),
        loader=toy_loader(folder / "data", **(loading or {})),
        settings=TrainSettings(max_steps=max_steps, log_interval=2, **settings),
        hook=manager.hook,
        callbacks={"listener": listener},
        **options,
    )
    return trainer, listener


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.task.state_dict().items()}


def assert_same(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize(("stop", "num_workers"), [(3, 0), (5, 0), (7, 2)])
def test_a_resumed_run_is_bit_for_bit_the_run_that_never_stopped(tmp_path: Path, stop: int, num_workers: int) -> None:
    whole, _ = make_trainer(tmp_path, max_steps=11)
    whole.fit(RunState())

    first, _ = make_trainer(tmp_path, max_steps=11, checkpoints=Checkpoints(tmp_path / "c"), snapshot_interval=stop)
    first.fit(RunState())
    torch.randn(5)  # whatever happens to the default generator in between must not matter
    second, _ = make_trainer(tmp_path, max_steps=11, loading={"num_workers": num_workers})
    state = second.restore(load_checkpoint(tmp_path / "c" / f"step_{stop:06d}"))
    assert state.step == stop
    second.fit(state)
    second.loader.close()

    assert state.step == 11
    assert_same(weights(whole), weights(first))
    assert_same(weights(whole), weights(second))


def test_evaluating_and_saving_in_between_change_nothing(tmp_path: Path) -> None:
    plain, _ = make_trainer(tmp_path, max_steps=6)
    plain.fit(RunState())
    busy, _ = make_trainer(
        tmp_path, max_steps=6, evaluation_interval=1, snapshot_interval=2, checkpoints=Checkpoints(tmp_path / "c")
    )
    val = toy_loader(tmp_path / "val", num=5, train=False)
    busy.evaluate_val = lambda: evaluate(busy.task, val, [ToyMetric()])
    busy.fit(RunState())
    assert_same(weights(plain), weights(busy))


def test_training_learns(tmp_path: Path) -> None:
    trainer, listener = make_trainer(tmp_path, max_steps=300)
    trainer.fit(RunState())
    assert listener.reports[-1][1].loss < 0.6 * listener.reports[0][1].loss


def test_accumulation_changes_neither_loss_nor_weights(tmp_path: Path) -> None:
    trained = []
    for micro_batches in (1, 3):
        trainer, listener = make_trainer(
            tmp_path, max_steps=4, loading={"batch_size": 7, "micro_batches": micro_batches}, max_grad_l2_norm=1.0
        )
        trainer.task.dropout.p = 0.0  # its draws depend on the rows of a micro-batch
        trainer.fit(RunState())
        trained.append((weights(trainer), [report.loss for _, report in listener.reports]))
    torch.testing.assert_close(trained[0][1], trained[1][1])
    for name, value in trained[0][0].items():
        torch.testing.assert_close(value, trained[1][0][name], msg=name)


def test_reports_come_every_log_interval_with_means(tmp_path: Path) -> None:
    trainer, listener = make_trainer(tmp_path, max_steps=5, max_grad_l2_norm=1.0)
    trainer.fit(RunState())
    assert [step for step, _ in listener.reports] == [2, 4, 5]
    report = listener.reports[0][1]
    assert report.samples == 4
    assert report.loss == pytest.approx(sum(report.terms.values()))
    assert report.grad_norm is not None
    assert set(report.seconds) == set(PARTS)


def test_the_best_checkpoint_follows_the_monitored_metric(tmp_path: Path) -> None:
    values = iter([1.0, 3.0, float("nan"), 2.0])
    checkpoints = Checkpoints(tmp_path / "c", max_ckpt_num=1)
    trainer, listener = make_trainer(
        tmp_path,
        max_steps=8,
        checkpoints=checkpoints,
        evaluation_interval=2,
        snapshot_interval=2,
        monitored_metric="R1",
        evaluate_val=lambda: {"R1": Figure(next(values))},
    )
    state = RunState()
    trainer.fit(state)
    assert (state.best_value, state.best_step) == (3.0, 4)
    assert [path.name for path in (checkpoints.best(), checkpoints.latest()) if path] == ["step_000004", "step_000008"]
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["best", "latest", "step_000004", "step_000008"]
    assert [step for step, _ in listener.evaluations] == [2, 4, 6, 8]
    assert list(listener.evaluations[0][1]) == ["val/R1"]


def test_without_an_interval_the_end_is_evaluated_and_saved(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c")
    trainer, listener = make_trainer(
        tmp_path, max_steps=4, checkpoints=checkpoints, snapshot_interval=4, monitored_metric="val/R1",
        evaluate_val=lambda: {"R1": Figure(5.0)},
    )  # fmt: skip
    trainer.fit(RunState())
    assert [step for step, _ in listener.evaluations] == [4]
    assert checkpoints.best() == checkpoints.latest() == tmp_path / "c" / "step_000004"
    assert load_checkpoint(tmp_path / "c" / "step_000004").state.best_value == 5.0


def test_patience_ends_training_when_nothing_gets_better(tmp_path: Path) -> None:
    trainer, _ = make_trainer(
        tmp_path, max_steps=50, evaluation_interval=1, monitored_metric="loss", metric_minimize=True, patience=3,
        evaluate_val=lambda: {"loss": Figure(1.0)},
    )  # fmt: skip
    state = RunState()
    trainer.fit(state)
    assert (state.step, state.best_step) == (4, 1)


def test_a_plugin_may_stop_training(tmp_path: Path) -> None:
    class Stopper:
        @hookimpl
        def antmmf_should_stop(self, state: RunState) -> bool | None:
            return True if state.step >= 4 else None

    trainer, _ = make_trainer(tmp_path, max_steps=50, evaluation_interval=2, evaluate_val=dict)
    manager = new_manager()
    manager.register(Stopper())
    trainer.hook = manager.hook
    state = RunState()
    trainer.fit(state)
    assert state.step == 4


def test_an_unknown_monitored_metric_is_named_with_those_there_are(tmp_path: Path) -> None:
    trainer, _ = make_trainer(
        tmp_path, max_steps=2, monitored_metric="t2v/R1", evaluate_val=lambda: {"t2v/R5": Figure(1.0)}
    )
    with pytest.raises(ConfigError, match=r"'val/t2v/R1'.*there are val/t2v/R5"):
        trainer.fit(RunState())


def test_a_loss_that_is_not_finite_names_the_step_and_the_samples(tmp_path: Path) -> None:
    trainer, _ = make_trainer(
        tmp_path, max_steps=8, checkpoints=Checkpoints(tmp_path / "c"), loading={"num": 3, "batch_size": 3}
    )
    forward = type(trainer.task).forward
    calls = []

    def break_third(batch: Any) -> Any:
        calls.append(batch)
        output = forward(trainer.task, batch)
        if len(calls) == 3:
            object.__setattr__(output.terms["said"], "sum", torch.tensor(float("nan"), requires_grad=True))
        return output

    trainer.task.forward = break_third  # type: ignore[method-assign]
    with pytest.raises(AntmmfError, match=r"step 3: .*said nan.*clip0, clip1, clip2"):
        trainer.fit(RunState())
    assert Checkpoints(tmp_path / "c").latest() is None


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_finishes_the_step_and_saves(
    tmp_path: Path, number: signal.Signals, raised: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    class Interrupter:
        @hookimpl
        def antmmf_step_end(self) -> None:
            signal.raise_signal(number)

    trainer, _ = make_trainer(tmp_path, max_steps=50, checkpoints=Checkpoints(tmp_path / "c"))
    manager = new_manager()
    manager.register(Interrupter())
    trainer.hook = manager.hook
    state = RunState()
    with pytest.raises(raised):
        trainer.fit(state)
    assert state.step == 2
    assert load_checkpoint(tmp_path / "c" / "step_000002").state.step == 2
    assert f"{number.name}: stopped after step 2; training_parameters.resume auto goes on" in caplog.text


def test_callbacks_remember_over_a_restart(tmp_path: Path) -> None:
    first, _ = make_trainer(tmp_path, max_steps=4, checkpoints=Checkpoints(tmp_path / "c"))
    first.fit(RunState())
    second, listener = make_trainer(tmp_path, max_steps=4)
    second.restore(load_checkpoint(tmp_path / "c" / "step_000004"))
    assert listener.num_reports == 2


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    first, _ = make_trainer(tmp_path, max_steps=1, checkpoints=Checkpoints(tmp_path / "c"))
    first.fit(RunState())
    second, _ = make_trainer(tmp_path, max_steps=1)
    second.task.vision = torch.nn.Linear(96, 9)
    with pytest.raises(CheckpointError, match=r"step_000001 does not fit.*vision\.weight"):
        second.restore(load_checkpoint(tmp_path / "c" / "step_000001"))


def test_a_step_without_a_single_good_sample_is_not_counted(tmp_path: Path) -> None:
    from antmmf.data.quarantine import Quarantine

    loading = {"keys": ["bad0", "bad1", "ok"], "batch_size": 1, "quarantine": Quarantine(policy="skip", max_bad_rate=1)}
    trainer, _ = make_trainer(tmp_path, max_steps=2, loading=loading)
    state = RunState()
    trainer.fit(state)
    assert state.step == 2
    assert state.bad_samples == 2
    assert state.epoch == 2
