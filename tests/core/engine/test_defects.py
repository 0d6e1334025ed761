"""Upstream's defects of the training loop: every check holds for ours and fails on a copy of the wrong rule.

Those of what a run keeps are in test_defects_state.py, of data and evaluation in test_defects_data.py, D29 and D30 of
checkpoints in test_sharded_checkpoints.py and test_weights.py, and those of losses and metrics in tests/tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from antmmf.check import check_run
from antmmf.config.schema import TrainingParameters
from antmmf.contracts import RunState
from antmmf.data.quarantine import Quarantine
from antmmf.errors import AntmmfError, ConfigError
from antmmf.optim import MultiStep
from antmmf.plan import plan_run
from antmmf.registry import Registry
from antmmf.trainer import Trainer
from defect_toys import BATCH_SIZE, NUM_SAMPLES, make_trainer, wrong
from torch import nn

# --- D1: the counter of steps is raised twice a batch -----------------------------------------------------------------


class CountsTwice(Trainer):
    """Upstream's rule: once before the forward pass and once when all is done; what is due sees odd numbers only."""

    def _between_steps(self, state: RunState) -> bool:
        stopped = super()._between_steps(state)
        state.step += 1
        return stopped


def test_D1_reports_evaluations_and_checkpoints_come_at_every_multiple_of_their_interval(tmp_path: Path) -> None:
    def check(kind: type[Trainer]) -> None:
        folder = tmp_path / kind.__name__
        trainer, course = make_trainer(
            folder, kind=kind, max_steps=12, log_interval=2, evaluation_interval=4, snapshot_interval=6
        )
        trainer.fit(RunState())
        saved = sorted(path.name for path in (folder / "checkpoints").glob("step_*"))
        assert course.reports == [2, 4, 6, 8, 10, 12]
        assert course.evaluations == [4, 8, 12]
        assert saved == ["step_000006", "step_000012"]

    check(Trainer)
    wrong(check, CountsTwice)


def test_D1_every_step_has_a_batch_and_an_update_of_its_own(tmp_path: Path) -> None:
    def check(kind: type[Trainer]) -> None:
        trainer, course = make_trainer(tmp_path / kind.__name__, kind=kind, max_steps=8)
        state = RunState()
        trainer.fit(state)
        assert len(course.rates) == 8
        assert NUM_SAMPLES * (state.epoch - 1) + state.position == 8 * BATCH_SIZE

    check(Trainer)
    wrong(check, CountsTwice)


def test_D1_the_rate_falls_after_as_many_updates_as_the_config_says(tmp_path: Path) -> None:
    def check(kind: type[Trainer]) -> None:
        trainer, course = make_trainer(
            tmp_path / kind.__name__, kind=kind, max_steps=8, schedule=MultiStep(lr_steps=[3, 6])
        )
        trainer.fit(RunState())
        assert course.rates == pytest.approx([1e-2] * 3 + [1e-3] * 3 + [1e-4] * 2)

    check(Trainer)
    wrong(check, CountsTwice)


def test_D1_accumulation_updates_after_every_group_of_micro_batches(tmp_path: Path) -> None:
    def check(num_micro_batches: int, num_updates: int) -> None:
        assert num_micro_batches == 8
        assert num_updates == 8 / 2

    def upstream(num_micro_batches: int, group: int) -> int:
        counter = updates = 0
        for _ in range(num_micro_batches):
            counter += 1
            updates += counter % group == 0
            counter += 1
        return updates

    trainer, course = make_trainer(tmp_path, max_steps=4, loading={"micro_batches": 2})
    seen: list[int] = []
    trainer.model.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    trainer.fit(RunState())
    check(sum(seen), len(course.rates))
    wrong(check, 8, upstream(8, 2))


def test_D1_a_step_without_a_good_sample_is_not_counted(tmp_path: Path) -> None:
    keys = [f"{'bad' if number < 4 else 'clip'}{number}" for number in range(12)]

    def counting_all(trainer: Trainer, state: RunState) -> None:
        """Upstream counts an empty batch once, which turns odd numbers into even ones."""
        stream = trainer.loader.stream

        def counted(epoch: int, *, start: int = 0) -> Any:
            for loaded in stream(epoch, start=start):
                state.step += not loaded.batches
                yield loaded

        trainer.loader.stream = counted  # type: ignore[method-assign]

    def check(spoil: Callable[[Trainer, RunState], None]) -> None:
        loading = {"keys": keys, "batch_size": 1, "quarantine": Quarantine(policy="skip", max_bad_rate=1)}
        trainer, course = make_trainer(tmp_path / spoil.__name__, max_steps=10, loading=loading)
        state = RunState()
        spoil(trainer, state)
        trainer.fit(state)
        assert len(course.rates) == 10
        assert (state.epoch, state.bad_samples) == (2, 4)  # 8 good samples an epoch

    def ours(trainer: Trainer, state: RunState) -> None:
        pass

    check(ours)
    wrong(check, counting_all)


# --- D2: an encoder says another size than it has ---------------------------------------------------------------------


def test_D2_an_encoder_whose_dim_is_not_its_outputs_is_named_before_it_is_used(tmp_path: Path) -> None:
    class Pvt(nn.Linear):
        """Says the size before its projection, as upstream's does."""

        dim = 9

    def upstream() -> nn.Module:
        return nn.Sequential(encoder := Pvt(3, 8), nn.Linear(encoder.dim, 8))  # bridges a difference that is none

    def ours() -> list[str]:
        (tmp_path / "run.yml").write_text(
            "model_attributes: {vision_encoder: {type: checked:vision, params: {fault: dim}}, "
            "text_encoder: checked:text}\n"
            "task_attributes: checked:task\n"
            "dataset_attributes: {train: [checked:data]}\n"
            "training_parameters: {max_iterations: 5, device: cpu}\n"
        )
        parts = Registry(files=[Path(__file__).parents[1] / "checked.py"])
        return check_run(plan_run(str(tmp_path / "run.yml"), [], registry=parts), files=False)

    def check(build: Callable[[], object]) -> None:
        said = ""
        try:
            build()
        except AntmmfError as error:
            said = str(error)
        assert "vision_encoder: pooled must be (2, 9) since dim is 9, is (2, 8)" in said

    check(ours)
    wrong(check, upstream)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        upstream()(torch.zeros(1, 3))


# --- D11: float16, accumulation and clipping --------------------------------------------------------------------------

CLIPPED: dict[str, Any] = {"max_steps": 4, "max_grad_l2_norm": 0.5, "log_interval": 1, "loading": {"micro_batches": 3}}


def test_D11_gradients_of_accumulated_micro_batches_are_unscaled_once(tmp_path: Path) -> None:
    def upstream(trainer: Trainer) -> None:
        assert trainer.scaler is not None
        loaded = next(trainer.loader.stream(1))
        for batch in loaded.batches:
            with torch.autocast("cpu", torch.float16):
                terms = trainer.task(batch).terms.values()
            trainer.scaler.scale(sum(term.sum / term.count / 3 for term in terms)).backward()
            trainer.scaler.unscale_(trainer.optimizer)
            nn.utils.clip_grad_norm_(trainer.task.parameters(), 0.5)
        trainer.scaler.step(trainer.optimizer)

    def ours(trainer: Trainer) -> None:
        trainer.fit(RunState())

    def check(train: Callable[[Trainer], None]) -> None:
        trainer, course = make_trainer(tmp_path / train.__name__, amp=torch.float16, **CLIPPED)
        train(trainer)
        assert len(course.rates) == 4

    check(ours)
    with pytest.raises(RuntimeError, match=r"unscale_\(\) has already been called"):
        check(upstream)


def test_D11_what_is_clipped_are_true_gradients(tmp_path: Path) -> None:
    def norms(name: str, *, amp: torch.dtype | None, unscaled: bool = True) -> list[float | None]:
        trainer, course = make_trainer(tmp_path / name, amp=amp, **CLIPPED)
        trainer.task.dropout.p = 0.0
        if amp is not None:
            trainer.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)  # too small to overflow
            if not unscaled:
                trainer.scaler.unscale_ = lambda _: None  # type: ignore[method-assign]
        trainer.fit(RunState())
        return course.norms

    exact = norms("exact", amp=None)

    def check(found: list[float | None]) -> None:
        assert found == pytest.approx(exact, rel=0.02)

    check(norms("ours", amp=torch.float16))
    wrong(check, norms("upstream", amp=torch.float16, unscaled=False))


# --- D12: an accuracy is monitored and minimised ----------------------------------------------------------------------


def test_D12_the_best_accuracy_is_the_largest_unless_the_config_says_otherwise(tmp_path: Path) -> None:
    def check(minimize: bool) -> None:
        trainer, _ = make_trainer(
            tmp_path / str(minimize), max_steps=3, evaluation_interval=1, values=[0.2, 0.6, 0.4],
            monitored_metric="accuracy", metric_minimize=minimize,
        )  # fmt: skip
        state = RunState()
        trainer.fit(state)
        assert (state.best_value, state.best_step) == (0.6, 2)

    check(TrainingParameters.model_fields["metric_minimize"].default)
    wrong(check, True)  # what upstream's base.yml says


def test_D12_a_monitored_metric_that_nobody_measures_ends_the_run(tmp_path: Path) -> None:
    trainer, _ = make_trainer(tmp_path, max_steps=1, monitored_metric="total_loss")
    with pytest.raises(ConfigError, match=r"'val/total_loss'.*there are val/accuracy"):
        trainer.fit(RunState())
