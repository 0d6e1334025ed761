"""Optimizers and learning-rate schedules as components: typed wrappers, because a signature is a config schema."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from antmmf.config.schema import TrainingParameters
from antmmf.contracts import Optimizer
from antmmf.errors import ConfigError
from antmmf.parameter_names import fitting
from antmmf.task import encoders_of

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Steps = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Group:
    """Settings of the parameters whose names fit the shell pattern; of several groups the first that fits holds.

    ``weight_decay`` (None: the optimizer's) is for what has more than one dimension; the rest never decays.
    """

    pattern: str
    lr_scale: float = 1.0
    weight_decay: float | None = None


_PLAIN = Group("*")


def build_optimizer(optimizer: Optimizer, trained: nn.Module | list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The torch optimizer of everything that is trained in a task, or of its ``parameter_groups``.

    A group's ``initial_lr``, which a schedule multiplies, is the optimizer's rate times ``lr_scale``.
    """
    built = optimizer(parameter_groups(trained) if isinstance(trained, nn.Module) else trained)
    assert isinstance(built, torch.optim.Optimizer)
    for group in built.param_groups:
        group["initial_lr"] = group["lr"] = group["lr"] * group.get("lr_scale", 1.0)
    return built


def parameter_groups(
    task: nn.Module, *, rules: Sequence[Group] = (), layer_lr_decay: float | None = None, encoder_lr_decay: float = 1
) -> list[dict[str, Any]]:
    """Torch's groups of what is trained, each parameter once, with its ``names``: first the largest ``lr_scale``.

    What has at most one dimension (biases, norms, scales) does not decay. ``layer_lr_decay`` lowers the rate from each
    block of an encoder to the one below, ``encoder_lr_decay`` that of all encoders. Raises ``ConfigError`` when a rule
    fits no parameter.
    """
    named = dict(task.named_parameters(remove_duplicate=False))
    rule_of: dict[nn.Parameter, Group] = {}
    for rule in rules:
        for name in fitting(rule.pattern, named, key="training_parameters.parameter_groups"):
            rule_of.setdefault(named[name], rule)
    scale_of = _layer_scales(task, layer_lr_decay) if layer_lr_decay is not None else {}
    encoded = {parameter for encoder in encoders_of(task) for parameter in encoder.parameters()}
    members: dict[tuple[float, float | None], dict[str, nn.Parameter]] = defaultdict(dict)
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            rule = rule_of.get(parameter, _PLAIN)
            decay = rule.weight_decay if parameter.ndim > 1 else 0.0
            scale = rule.lr_scale * scale_of.get(parameter, 1.0) * (encoder_lr_decay if parameter in encoded else 1.0)
            members[scale, decay][name] = parameter
    return [
        {
            "params": list(members[scale, decay].values()),
            "names": list(members[scale, decay]),
            "lr_scale": scale,
            **({} if decay is None else {"weight_decay": decay}),
        }
        for scale, decay in sorted(members, key=lambda key: (-key[0], key[1] is not None, key[1] or 0.0))
    ]


def configured_groups(task: nn.Module, train: TrainingParameters) -> list[dict[str, Any]]:
    """The ``parameter_groups`` that a config asks for. Raises ``ConfigError``."""
    rules = [Group(rule.pattern, rule.lr_scale, rule.weight_decay) for rule in train.parameter_groups]
    decay, encoders = train.layer_lr_decay, train.encoder_lr_decay
    return parameter_groups(task, rules=rules, layer_lr_decay=decay, encoder_lr_decay=encoders)


def _layer_scales(task: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """``decay`` to the number of levels above: blocks, and over them what is registered after them, which has 1.

    As in BEiT (Bao et al. 2021, arXiv:2106.08254) and timm: block i of n has ``decay ** (n - i)``, what is registered
    before the first (stem, embeddings) ``decay ** (n + 1)``. What stands between two blocks goes with the lower one.
    """
    scales: dict[nn.Parameter, float] = {}
    encoders: list[Any] = [encoder for encoder in encoders_of(task) if hasattr(encoder, "blocks")]
    for encoder in sorted(encoders, key=lambda module: len(list(module.parameters()))):  # inner ones first
        blocks = encoder.blocks()
        level_of = {parameter: level for level, block in enumerate(blocks) for parameter in block.parameters()}
        level, ahead = -1, set(level_of.values())
        for parameter in encoder.parameters():
            if parameter in level_of:
                level = level_of[parameter]
                ahead.discard(level)
            elif not ahead:
                level = len(blocks)
            scales.setdefault(parameter, decay ** (len(blocks) - level))
    if not scales:
        raise ConfigError("training_parameters.layer_lr_decay: no encoder of this task has blocks()")
    return scales


class AdamW:
    """Adam with decoupled weight decay; ``fused`` None: torch's fused implementation where it has one."""

    def __init__(
        self,
        *,
        lr: Positive = 1e-5,
        betas: tuple[Share, Share] = (0.9, 0.98),
        weight_decay: NotNegative = 1e-4,
        eps: Positive = 1e-8,
        fused: bool | None = None,
    ) -> None:
        self.lr = lr
        self.betas = betas
        self.weight_decay = weight_decay
        self.eps = eps
        self.fused = fused

    def __call__(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        fused = _has_fused(groups) if self.fused is None else self.fused
        return torch.optim.AdamW(
            groups, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, eps=self.eps, fused=fused
        )


class SGD:
    """Stochastic gradient descent with momentum."""

    def __init__(
        self,
        *,
        lr: Positive = 1e-2,
        momentum: Share = 0.9,
        weight_decay: NotNegative = 1e-4,
        nesterov: bool = False,
    ) -> None:
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.nesterov = nesterov

    def __call__(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            groups, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov
        )


class Constant:
    """The full rate after a linear warm-up from ``warmup_factor`` over ``warmup_iterations`` steps."""

    def __init__(self, *, warmup_iterations: Steps = 0, warmup_factor: Share = 0.1) -> None:
        self.warmup_iterations = warmup_iterations
        self.warmup_factor = warmup_factor

    def __call__(self, step: int, max_steps: int) -> float:  # noqa: ARG002
        return _warmup(step, self.warmup_iterations, self.warmup_factor)


class _Falling:
    """Falls from 1 after the warm-up to ``final_factor`` after the last step."""

    def __init__(self, *, final_factor: Share = 0.0, warmup_iterations: Steps = 0, warmup_factor: Share = 0.1) -> None:
        self.final_factor = final_factor
        self.warmup_iterations = warmup_iterations
        self.warmup_factor = warmup_factor

    def __call__(self, step: int, max_steps: int) -> float:
        if step < self.warmup_iterations:
            return _warmup(step, self.warmup_iterations, self.warmup_factor)
        # 0 at the end of the warm-up, 1 when all steps are done: the last step still learns
        done = min(1.0, (step - self.warmup_iterations) / max(1, max_steps - self.warmup_iterations))
        return self.final_factor + (1 - self.final_factor) * self._left(done)

    def _left(self, done: float) -> float:
        raise NotImplementedError


class Linear(_Falling):
    """A straight line from 1 after the warm-up to ``final_factor`` after the last step."""

    def _left(self, done: float) -> float:
        return 1 - done


class Cosine(_Falling):
    """Half a cosine from 1 after the warm-up to ``final_factor`` after the last step."""

    def _left(self, done: float) -> float:
        return (1 + math.cos(math.pi * done)) / 2


class MultiStep:
    """The rate times ``lr_ratio`` at each of ``lr_steps``."""

    def __init__(
        self,
        *,
        lr_steps: list[Steps],
        lr_ratio: Positive = 0.1,
        warmup_iterations: Steps = 0,
        warmup_factor: Share = 0.1,
    ) -> None:
        self.lr_steps = lr_steps
        self.lr_ratio = lr_ratio
        self.warmup_iterations = warmup_iterations
        self.warmup_factor = warmup_factor

    def __call__(self, step: int, max_steps: int) -> float:  # noqa: ARG002
        passed = sum(step >= milestone for milestone in self.lr_steps)
        factor: float = self.lr_ratio**passed
        return factor * _warmup(step, self.warmup_iterations, self.warmup_factor)


def _warmup(step: int, length: int, first: float) -> float:
    return 1.0 if step >= length else first + (1 - first) * step / length


def _has_fused(groups: list[dict[str, Any]]) -> bool:
    """Whether torch's AdamW has a fused step for all these parameters: it tells by refusing one."""
    kinds = {(parameter.device, parameter.dtype) for group in groups for parameter in group["params"]}
    try:
        for device, dtype in kinds:
            probe = torch.zeros(1, device=device, dtype=dtype)
            probe.grad = torch.zeros_like(probe)
            torch.optim.AdamW([probe], fused=True).step()
    except RuntimeError:
        return False
    return True
