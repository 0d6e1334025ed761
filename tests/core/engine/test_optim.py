"""Optimizers, parameter groups and schedules."""

from __future__ import annotations

import math

import pytest
import torch
from antmmf.optim import SGD, AdamW, Constant, Cosine, Linear, MultiStep, build_optimizer, parameter_groups
from torch import nn


def test_biases_and_norms_do_not_decay_and_frozen_weights_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[2].requires_grad_(False)
    optimizer = build_optimizer(AdamW(weight_decay=0.5), model)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {
        id(model[0].weight): 0.5,
        id(model[0].bias): 0.0,
        id(model[1].weight): 0.0,
        id(model[1].bias): 0.0,
    }


def test_a_tied_weight_is_in_one_group_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    assert [len(group["params"]) for group in parameter_groups(model)] == [1]


def test_what_is_configured_reaches_torch() -> None:
    model = nn.Linear(2, 2)
    adam = build_optimizer(AdamW(lr=0.1, betas=(0.5, 0.6), eps=1e-3), model)
    sgd = build_optimizer(SGD(lr=0.2, momentum=0.3, nesterov=True), model)
    assert isinstance(adam, torch.optim.AdamW)
    assert (adam.defaults["lr"], adam.defaults["betas"], adam.defaults["eps"]) == (0.1, (0.5, 0.6), 1e-3)
    assert (sgd.defaults["lr"], sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.2, 0.3, True)


def test_the_warm_up_is_a_straight_line_to_one() -> None:
    schedule = Constant(warmup_iterations=4, warmup_factor=0.2)
    assert [schedule(step, 10) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_cosine_falls_from_the_warm_up_to_the_final_factor() -> None:
    schedule = Cosine(warmup_iterations=10, final_factor=0.1)
    assert schedule(10, 110) == 1.0
    assert schedule(60, 110) == pytest.approx(0.55)
    assert schedule(35, 110) == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert schedule(110, 110) == pytest.approx(0.1)


def test_linear_falls_in_equal_steps_and_the_last_step_still_learns() -> None:
    assert [Linear()(step, 4) for step in range(4)] == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_multistep_multiplies_at_each_milestone() -> None:
    schedule = MultiStep(lr_steps=[2, 4], lr_ratio=0.1)
    assert [schedule(step, 6) for step in range(6)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("schedule", [Constant(), Linear(), Cosine(), MultiStep(lr_steps=[5])])
def test_a_run_of_one_step_has_the_full_rate(schedule: Constant) -> None:
    assert schedule(0, 1) == 1.0
