"""Optimizers, parameter groups and schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import pytest
import torch
from antmmf.errors import ConfigError
from antmmf.optim import SGD, AdamW, Constant, Cosine, Group, Linear, MultiStep, build_optimizer, parameter_groups
from torch import nn


class Encoder(nn.Module):
    """Two blocks between a stem and a norm; its position table is registered last, and torch names it first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.norm = nn.LayerNorm(4)
        self.position = nn.Parameter(torch.zeros(5, 4))

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)


class Model(nn.Module):
    """Two encoders, of which one ends in a tied table, and heads."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = Encoder()
        self.text = Encoder()
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.text.position
        self.scale = nn.Parameter(torch.zeros(()))


def setting(model: nn.Module, key: str, groups: list[dict[str, Any]]) -> dict[str, Any]:
    """The groups' ``key`` by parameter name; every trained parameter is in one group once."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = [(names[parameter], group.get(key)) for group in groups for parameter in group["params"]]
    assert sorted(name for name, _ in found) == sorted(n for n, p in model.named_parameters() if p.requires_grad)
    return dict(found)


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


def test_D27_no_norm_weight_decays_whatever_the_module_is_called() -> None:
    class Swin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch_embed = nn.Conv2d(3, 4, 2)
            self.norm1 = nn.LayerNorm(4)
            self.bn = nn.BatchNorm2d(4)

    model = Swin()

    def upstream(name: str) -> bool:  # its list of names
        return not any(part in name for part in ("bias", "LayerNorm.bias", "LayerNorm.weight"))

    decay = setting(model, "weight_decay", build_optimizer(AdamW(weight_decay=0.5), model).param_groups)
    assert {name for name, value in decay.items() if value} == {"patch_embed.weight"}
    assert {name for name in decay if upstream(name)} == {"patch_embed.weight", "norm1.weight", "bn.weight"}


def test_a_tied_weight_is_in_one_group_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    assert [len(group["params"]) for group in parameter_groups(model)] == [1]


def test_the_first_rule_that_fits_a_name_sets_rate_and_decay() -> None:
    model = Model()
    rules = [Group("vision.stem.*", 0.5), Group("vision.*", 0.1, 0.3), Group("*.weight", 2.0, 0.0)]
    groups = parameter_groups(model, rules=rules)
    scale, decay = setting(model, "lr_scale", groups), setting(model, "weight_decay", groups)
    for name in scale:
        rule = next((rule for rule in rules if fnmatchcase(name, rule.pattern)), Group("*"))
        if name == "text.position":  # it is head.weight too
            rule = rules[2]
        assert scale[name] == rule.lr_scale, name
        is_flat = name.endswith("bias") or "norm" in name or name == "scale"
        assert decay[name] == (0.0 if is_flat else rule.weight_decay), name


def test_the_group_of_the_largest_rate_stands_first() -> None:
    groups = parameter_groups(Model(), rules=[Group("vision.*", 0.0), Group("text.*", 3.0)])
    assert [group["lr_scale"] for group in groups] == [3.0, 3.0, 1.0, 0.0, 0.0]


def test_a_rule_that_fits_nothing_is_refused_and_the_near_name_given() -> None:
    with pytest.raises(ConfigError, match=r"parameter_groups: .*'vison\.\*' fits none.*'vision\.\*'"):
        parameter_groups(Model(), rules=[Group("vison.*", 0.1)])


def test_a_rule_may_name_what_is_frozen() -> None:
    model = Model()
    model.vision.requires_grad_(False)
    setting(model, "lr_scale", parameter_groups(model, rules=[Group("vision.*", 0.1)]))


def test_layer_decay_falls_from_the_heads_to_the_stem() -> None:
    model = Model()
    scale = setting(model, "lr_scale", parameter_groups(model, layer_lr_decay=0.5))
    for encoder in ("vision", "text"):
        assert {scale[f"{encoder}.{name}"] for name in ("stem.weight", "stem.bias", "position")} == {0.5**3}
        assert scale[f"{encoder}.layers.0.weight"] == 0.5**2
        assert scale[f"{encoder}.layers.1.bias"] == 0.5
        assert scale[f"{encoder}.norm.weight"] == 1.0
    assert scale["scale"] == 1.0


def test_layer_decay_multiplies_what_rules_say() -> None:
    model = Model()
    scale = setting(model, "lr_scale", parameter_groups(model, rules=[Group("vision.*", 0.1)], layer_lr_decay=0.5))
    assert scale["vision.layers.0.weight"] == pytest.approx(0.1 * 0.25)
    assert scale["text.layers.0.weight"] == 0.25


def test_encoders_learn_slower_than_the_rest_beside_what_else_is_said_of_them() -> None:
    model = Model()
    scale = setting(model, "lr_scale", parameter_groups(model, encoder_lr_decay=0.1))
    assert {value for name, value in scale.items() if name.startswith(("vision.", "text."))} == {0.1}
    assert scale["scale"] == 1.0
    both = parameter_groups(model, rules=[Group("vision.*", 0.5)], layer_lr_decay=0.5, encoder_lr_decay=0.1)
    assert setting(model, "lr_scale", both)["vision.layers.0.weight"] == pytest.approx(0.5 * 0.25 * 0.1)


def test_what_stands_between_two_blocks_goes_with_the_lower_one() -> None:
    class Staged(Encoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers.insert(1, nn.Linear(4, 4, bias=False))  # patch merging

        def blocks(self) -> list[nn.Module]:
            return [self.layers[0], self.layers[2]]

    model = nn.Module()
    model.vision = Staged()
    scale = setting(model, "lr_scale", parameter_groups(model, layer_lr_decay=0.5))
    assert [scale[f"vision.layers.{i}.weight"] for i in range(3)] == [0.25, 0.25, 0.5]


def test_an_encoder_inside_another_has_its_own_levels_once() -> None:
    model = Model()
    expected = setting(model, "lr_scale", parameter_groups(model, layer_lr_decay=0.5))
    for attribute in ("vision", "fusion"):  # an encoder that is registered before, or after, the one that it contains
        outer = Encoder()
        outer.inner = model.text
        both = Model()
        both.text = model.text
        both.head = model.head
        setattr(both, attribute, outer)
        scale = setting(both, "lr_scale", parameter_groups(both, layer_lr_decay=0.5))
        inner = {name.replace("vision.inner", "text"): value for name, value in scale.items()}
        assert {name: inner[name] for name in expected if "text" in name} == {
            name: value for name, value in expected.items() if "text" in name
        }
    same = Model()
    same.fusion = same.text
    assert setting(same, "lr_scale", parameter_groups(same, layer_lr_decay=0.5)) == expected


def test_layer_decay_of_a_task_without_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match="layer_lr_decay: no encoder of this task has blocks"):
        parameter_groups(nn.Linear(2, 2), layer_lr_decay=0.5)


@pytest.mark.parametrize("wrapper", [AdamW, SGD])
def test_the_scale_is_in_the_rate_that_a_schedule_multiplies_and_outlives_a_resume(wrapper: Callable[..., Any]) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    def built(scale: float) -> torch.optim.Optimizer:
        return build_optimizer(wrapper(lr=0.4), parameter_groups(model, rules=[Group("0.*", scale)]))

    optimizer = built(0.25)
    assert setting(model, "initial_lr", optimizer.param_groups)["0.weight"] == 0.1
    assert setting(model, "lr", optimizer.param_groups)["0.weight"] == 0.1
    assert setting(model, "initial_lr", optimizer.param_groups)["1.weight"] == 0.4
    again = built(0.5)
    again.load_state_dict(optimizer.state_dict())
    assert setting(model, "initial_lr", again.param_groups)["0.weight"] == 0.1
    assert setting(model, "lr_scale", again.param_groups)["0.weight"] == 0.25


def test_a_scale_of_zero_keeps_weights_where_they_are() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = build_optimizer(AdamW(lr=0.1), parameter_groups(model, rules=[Group("0.*", 0.0)]))
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert [torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)] == [
        True,
        True,
        False,
        False,
    ]


def test_adamw_is_fused_where_torch_has_that_for_all_parameters() -> None:
    def fused(model: nn.Module, asked: bool | None = None) -> Any:
        return build_optimizer(AdamW(fused=asked), model).param_groups[0]["fused"]

    assert fused(nn.Linear(2, 2)) is True
    assert fused(nn.Linear(2, 2).to(torch.bfloat16)) is True
    assert fused(nn.Linear(2, 2, device="meta")) is False
    assert fused(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, dtype=torch.complex64))) is False
    assert fused(nn.Linear(2, 2), False) is False


def test_the_fused_step_is_the_rule_of_adamw() -> None:
    lr, (b1, b2), decay, eps = 0.1, (0.9, 0.98), 0.3, 1e-8
    weight = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    model.weight.data.copy_(weight)
    optimizer = build_optimizer(AdamW(lr=lr, weight_decay=decay, fused=None), model)
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, 4):
        grad = torch.tensor([[0.5 * step, -1.0]], dtype=torch.float64)
        model.weight.grad = grad.clone()
        optimizer.step()
        weight = weight * (1 - lr * decay)
        mean, square = b1 * mean + (1 - b1) * grad, b2 * square + (1 - b2) * grad**2
        weight = weight - lr * (mean / (1 - b1**step)) / ((square / (1 - b2**step)).sqrt() + eps)
    torch.testing.assert_close(model.weight.detach(), weight, rtol=1e-9, atol=0)


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


def test_multistep_with_warm_up_is_the_schedule_of_upstream() -> None:
    schedule = MultiStep(lr_steps=[15_000, 20_000], lr_ratio=0.1, warmup_iterations=1000, warmup_factor=0.2)
    expected = {0: 0.2, 1: 0.2008, 250: 0.4, 500: 0.6, 999: 0.9992, 1000: 1.0, 1001: 1.0, 14_999: 1.0}
    expected |= {15_000: 0.1, 19_999: 0.1, 20_000: 0.01, 24_999: 0.01}
    assert {step: schedule(step, 25_000) for step in expected} == pytest.approx(expected, rel=1e-12)

    def upstream(i: int) -> float:  # factor * (1 - a) + a up to warmup_iterations, then ratio ** milestones passed
        a = i / 1000
        return 0.2 * (1 - a) + a if i <= 1000 else 0.1 ** sum(i >= step for step in (15_000, 20_000))

    assert [schedule(i, 25_000) for i in range(25_000)] == pytest.approx([upstream(i) for i in range(25_000)])


@pytest.mark.parametrize("schedule", [Constant(), Linear(), Cosine(), MultiStep(lr_steps=[5])])
def test_a_run_of_one_step_has_the_full_rate(schedule: Constant) -> None:
    assert schedule(0, 1) == 1.0
