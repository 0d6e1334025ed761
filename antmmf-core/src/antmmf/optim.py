"""Optimizers and learning-rate schedules as components: typed wrappers, because a signature is a config schema."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from antmmf.contracts import Optimizer

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Steps = Annotated[int, Field(ge=0)]


def build_optimizer(optimizer: Optimizer, task: nn.Module) -> torch.optim.Optimizer:
    """The torch optimizer of everything in ``task`` that is trained."""
    built = optimizer(parameter_groups(task))
    assert isinstance(built, torch.optim.Optimizer)
    return built


def parameter_groups(task: nn.Module) -> list[dict[str, Any]]:
    """Two groups: matrices, and what has at most one dimension (biases, norms, scales), which does not decay."""
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1]},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class AdamW:
    """Adam with decoupled weight decay; ``fused`` None leaves the implementation to torch."""

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
        return torch.optim.AdamW(
            groups, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, eps=self.eps, fused=self.fused
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


class Linear:
    """A straight line from 1 after the warm-up to ``final_factor`` after the last step."""

    def __init__(self, *, final_factor: Share = 0.0, warmup_iterations: Steps = 0, warmup_factor: Share = 0.1) -> None:
        self.final_factor = final_factor
        self.warmup_iterations = warmup_iterations
        self.warmup_factor = warmup_factor

    def __call__(self, step: int, max_steps: int) -> float:
        if step < self.warmup_iterations:
            return _warmup(step, self.warmup_iterations, self.warmup_factor)
        return 1 - (1 - self.final_factor) * _progress(step, max_steps, self.warmup_iterations)


class Cosine:
    """Half a cosine from 1 after the warm-up to ``final_factor`` after the last step."""

    def __init__(self, *, final_factor: Share = 0.0, warmup_iterations: Steps = 0, warmup_factor: Share = 0.1) -> None:
        self.final_factor = final_factor
        self.warmup_iterations = warmup_iterations
        self.warmup_factor = warmup_factor

    def __call__(self, step: int, max_steps: int) -> float:
        if step < self.warmup_iterations:
            return _warmup(step, self.warmup_iterations, self.warmup_factor)
        falling = (1 + math.cos(math.pi * _progress(step, max_steps, self.warmup_iterations))) / 2
        return self.final_factor + (1 - self.final_factor) * falling


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


def _progress(step: int, max_steps: int, warmup: int) -> float:
    """0 at the end of the warm-up, 1 when all steps are done: the last step still learns."""
    return min(1.0, (step - warmup) / max(1, max_steps - warmup))
