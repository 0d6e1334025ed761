"""Evaluation of one split: rows of all batches, then what needs the whole split, then the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from antmmf.contracts import Figure, Metric
from antmmf.data.loader import Loader
from antmmf.errors import DataError
from antmmf.task import Task


def evaluate(
    task: Task, loader: Loader, metrics: Sequence[Metric], *, device: torch.device | str, amp: torch.dtype | None
) -> dict[str, Figure]:
    """The figures of every metric over the loader's split; the task is left in the mode it was in.

    Raises ``DataError`` when no sample could be read, a row is NaN, or two metrics use one name.
    """
    was_training = task.training
    task.eval()
    try:
        with torch.inference_mode(), autocast(device, amp):
            rows = _concatenate(_rows(task, loader, device))
            whole = task.evaluate_split(rows)
    finally:
        task.train(was_training)
    return _measure(metrics, {name: _on_cpu(tensor, name) for name, tensor in whole.items()})


def monitored_fault(wanted: str | None, metrics: Sequence[Metric]) -> str | None:
    """What is wrong with a monitored metric that no metric measures; a metric need not say beforehand what it does."""
    if wanted is None or not all(hasattr(metric, "names") for metric in metrics):
        return None
    names = [name for metric in metrics for name in getattr(metric, "names")()]  # noqa: B009 - names is optional
    if wanted.removeprefix("val/") in names:
        return None
    return f"must be measured by metrics, is {wanted!r}; they measure: {', '.join(names)}"


def autocast(device: torch.device | str, amp: torch.dtype | None) -> AbstractContextManager[object]:
    """Autocast to ``amp``, or nothing."""
    return nullcontext() if amp is None else torch.autocast(torch.device(device).type, dtype=amp)


def _rows(task: Task, loader: Loader, device: torch.device | str) -> dict[str, list[Tensor]]:
    parts: dict[str, list[Tensor]] = {}
    for step in loader.epoch(0):
        for batch in step.batches:
            output = task(batch.to(device, non_blocking=True))
            for name, tensor in output.rows.items():
                parts.setdefault(name, []).append(_on_cpu(tensor, name))
    if not parts:
        summary = loader.quarantine.summary()
        raise DataError(f"there is nothing to evaluate: {summary or 'the task returned no rows'}")
    return parts


def _concatenate(parts: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat(tensors) for name, tensors in parts.items()}


def _on_cpu(tensor: Tensor, name: str) -> Tensor:
    """Half precision becomes float32, so that ties are not an artefact of rounding in a metric."""
    moved = tensor.detach().cpu()
    if not moved.is_floating_point():
        return moved
    if moved.isnan().any():  # an infinity may be meant: the logit of an option that is not there
        raise DataError(f"evaluation: rows {name!r} are NaN; the weights have diverged or an input is broken")
    return moved if moved.dtype == torch.float64 else moved.float()


def _measure(metrics: Sequence[Metric], rows: Mapping[str, Tensor]) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for metric in metrics:
        metric.reset()
        metric.update(rows)
        for name, figure in metric.compute().items():
            if name in figures:
                raise DataError(f"metrics: two metrics return {name!r}; leave one of them out")
            figures[name] = figure
        metric.reset()
    return figures
