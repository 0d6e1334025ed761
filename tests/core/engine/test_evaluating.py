"""Evaluation of a split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from antmmf.batch import Batch
from antmmf.data.quarantine import Quarantine
from antmmf.distributed.world import World
from antmmf.errors import DataError
from antmmf.task import TaskOutput
from engine_toys import ToyMetric, ToyTask, evaluate, toy_loader, toy_reader
from torch import Tensor


def test_figures_are_those_of_the_whole_split_in_evaluation_mode(tmp_path: Path) -> None:
    task = ToyTask()
    figures = evaluate(task, toy_loader(tmp_path, num=10, train=False), [ToyMetric()])
    reader = toy_reader(tmp_path / "again", keys=[f"clip{i}" for i in range(10)], train=False)
    frames = torch.stack([reader.read(row, epoch=0).frames for row in range(10)])
    expected = task.vision(frames.flatten(1).float() / 255).mean().detach()
    assert figures["num"].value == 10
    assert figures["mean"].value == pytest.approx(float(expected), rel=1e-5)
    assert task.training


def test_the_task_sees_the_rows_of_the_split_once(tmp_path: Path) -> None:
    seen = []

    class Whole(ToyTask):
        def evaluate_split(self, rows: Mapping[str, Tensor], world: World) -> Mapping[str, Tensor]:  # noqa: ARG002
            seen.append(rows["video_id"].shape)
            assert not torch.is_grad_enabled()
            return {"video": rows["video"][:2]}

    figures = evaluate(Whole(), toy_loader(tmp_path, num=10, train=False), [ToyMetric()])
    assert seen == [(10,)]
    assert figures["num"].value == 2


def test_rows_of_half_precision_reach_metrics_in_full(tmp_path: Path) -> None:
    class Looking(ToyMetric):
        def update(self, rows: Mapping[str, Tensor]) -> None:
            assert rows["video"].dtype == torch.float32
            super().update(rows)

    class Half(ToyTask):
        def forward(self, batch: Batch) -> TaskOutput:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = super().forward(batch)
            assert found.rows is not None
            assert found.rows["video"].dtype == torch.bfloat16
            return found

    evaluate(Half(), toy_loader(tmp_path, num=4, train=False), [Looking()])


def test_bad_samples_are_left_out_of_the_count(tmp_path: Path) -> None:
    loader = toy_loader(tmp_path, keys=["a", "bad", "c"], train=False, quarantine=Quarantine(policy="skip"))
    assert evaluate(ToyTask(), loader, [ToyMetric()])["num"].value == 2


def test_a_split_of_which_nothing_can_be_read_is_an_error(tmp_path: Path) -> None:
    loader = toy_loader(tmp_path, keys=["bad"], train=False, quarantine=Quarantine(policy="skip"))
    with pytest.raises(DataError, match=r"nothing to evaluate: 1 bad sample \(1 no_video\),"):
        evaluate(ToyTask(), loader, [])


def test_rows_that_are_nan_are_named(tmp_path: Path) -> None:
    class Broken(ToyTask):
        def forward(self, batch):  # type: ignore[no-untyped-def]
            return TaskOutput(rows={"video": torch.full((len(batch), 2), float("nan"))})

    with pytest.raises(DataError, match="rows 'video' are NaN"):
        evaluate(Broken(), toy_loader(tmp_path, train=False), [])


def test_two_metrics_with_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two metrics return 'num'"):
        evaluate(ToyTask(), toy_loader(tmp_path, train=False), [ToyMetric(), ToyMetric()])
