"""Parts of a task that are not trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from antmmf.errors import ConfigError
from antmmf.parameter_names import fitting

if TYPE_CHECKING:
    from antmmf.task import Task

_KEY = "training_parameters.freeze"


def freeze(task: Task, patterns: Sequence[str]) -> list[str]:
    """Take the gradients of all parameters whose names fit a shell pattern; returns their names, tied ones once.

    Modules of which nothing is left to train are added to ``task.frozen``: they stay in evaluation mode, so that norms
    keep their statistics and dropout is off. Raises ``ConfigError`` when a pattern fits nothing or all is frozen.
    """
    named = dict(task.named_parameters(remove_duplicate=False))
    held = {named[name] for pattern in patterns for name in fitting(pattern, named, key=_KEY)}
    if patterns and all(parameter in held or not parameter.requires_grad for parameter in named.values()):
        raise ConfigError(f"{_KEY}: must leave something to train, {', '.join(patterns)} freeze everything")
    for parameter in held:
        parameter.requires_grad_(False)
    task.frozen = (*task.frozen, *_outermost(task, held))
    return [name for name, parameter in task.named_parameters() if parameter in held]


def _outermost(task: nn.Module, held: set[nn.Parameter]) -> list[str]:
    """Names of the modules that have parameters, all of them ``held``; not of modules inside these."""
    found: list[str] = []
    for name, module in task.named_modules():  # a module comes right before those inside it
        if found and name.startswith(f"{found[-1]}."):
            continue
        parameters = set(module.parameters())
        if parameters and parameters <= held:
            found.append(name)
    return found
