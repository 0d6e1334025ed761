"""Frozen parts: no gradients, no optimizer state, evaluation mode."""

from __future__ import annotations

import pytest
import torch
from antmmf.batch import Batch
from antmmf.contracts import Collator, Term
from antmmf.errors import ConfigError
from antmmf.freeze import freeze
from antmmf.optim import AdamW, build_optimizer
from antmmf.task import Task, TaskOutput
from engine_toys import ToyTask
from torch import Tensor, nn


class Normed(Task):
    """``vision`` with statistics and dropout, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.head = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5))

    def collator(self, train: bool) -> Collator:
        raise NotImplementedError

    def forward(self, batch: Batch) -> TaskOutput:
        raise NotImplementedError

    def of(self, rows: Tensor) -> Term:
        out: Tensor = self.head(self.vision(rows))
        return Term(out.square().sum(), len(rows))


def modes(task: Task) -> dict[str, bool]:
    return {name: module.training for name, module in task.named_modules()}


def test_a_frozen_part_takes_no_gradient_and_the_rest_does() -> None:
    task = Normed()
    names = freeze(task, ["vision.*"])
    assert names == ["vision.0.weight", "vision.0.bias", "vision.1.weight", "vision.1.bias"]
    task.of(torch.randn(3, 4)).sum.backward()
    assert [name for name, parameter in task.named_parameters() if parameter.grad is not None] == [
        "head.0.weight",
        "head.0.bias",
    ]


def test_a_frozen_part_is_absent_from_the_optimizer() -> None:
    task = Normed()
    freeze(task, ["vision.*"])
    optimizer = build_optimizer(AdamW(), task)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in task.head.parameters()}


def test_training_moves_neither_weights_nor_statistics_of_a_frozen_part() -> None:
    def after_training(*patterns: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        torch.manual_seed(0)
        task = Normed()
        freeze(task, patterns)
        before = {name: value.clone() for name, value in task.state_dict().items()}
        optimizer = build_optimizer(AdamW(lr=0.1), task)
        for _ in range(3):
            task.eval()  # as an evaluation between the steps
            task.train()
            task.of(torch.randn(8, 4)).sum.backward()
            optimizer.step()
            optimizer.zero_grad()
        return before, task.state_dict()

    def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
        return {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}

    assert moved(*after_training("vision.*")) == {"head"}
    assert moved(*after_training()) == {"vision", "head"}


def test_only_what_is_wholly_frozen_stays_in_evaluation_mode() -> None:
    task = Normed()
    freeze(task, ["vision.1.*", "head.0.bias"])
    for _ in range(2):
        task.eval()
        assert not any(modes(task).values())
        task.train()
        expected = dict.fromkeys(modes(task), True) | {"vision.1": False}
        assert modes(task) == expected  # dropouts stay on: they belong to parts that are trained


def test_the_dropout_inside_a_frozen_part_is_off() -> None:
    task = Normed()
    freeze(task, ["vision.*"])
    task.train()
    assert [name for name, is_on in modes(task).items() if not is_on] == ["vision", "vision.0", "vision.1", "vision.2"]
    assert task.frozen == ("vision",)


def test_a_tied_weight_is_frozen_under_either_name_and_told_once() -> None:
    for name in ("text.weight", "head.weight"):
        task = ToyTask()
        assert freeze(task, [name]) == ["text.weight"]
        assert not task.head.weight.requires_grad
        assert task.frozen == ("text",)  # the head still has a bias to learn


def test_what_a_task_keeps_fixed_itself_is_not_put_into_evaluation_mode() -> None:
    task = Normed()
    task.vision.requires_grad_(False)  # as a momentum encoder is
    freeze(task, ["head.0.bias"])
    assert task.frozen == ()


def test_no_pattern_freezes_nothing() -> None:
    task = Normed()
    assert freeze(task, []) == []
    assert all(parameter.requires_grad for parameter in task.parameters())


def test_a_pattern_that_fits_nothing_is_refused_and_the_near_name_given() -> None:
    task = Normed()
    with pytest.raises(ConfigError, match=r"training_parameters.freeze: .*'vison\.\*' fits none.*'vision\.\*'"):
        freeze(task, ["head.*", "vison.*"])
    assert all(parameter.requires_grad for parameter in task.parameters())
    with pytest.raises(ConfigError, match=r"'qqq' fits none; there are vision\.\*, head\.\*"):
        freeze(task, ["qqq"])


def test_freezing_everything_is_refused() -> None:
    task = Normed()
    with pytest.raises(ConfigError, match=r"must leave something to train, vision\.\*, head\.\* freeze"):
        freeze(task, ["vision.*", "head.*"])
    assert all(parameter.requires_grad for parameter in task.parameters())
