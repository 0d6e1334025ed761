"""Evaluation of one split: rows of all batches, then what needs the whole split, then the metrics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from antmmf.batch import Batch
from antmmf.cases import Cases
from antmmf.checkpoint.shards import is_sharded
from antmmf.contracts import Figure, Metric
from antmmf.data.loader import Loader
from antmmf.distributed.world import World
from antmmf.errors import ComponentError, DataError
from antmmf.task import Task


class StoppedError(Exception):
    """An evaluation was left because somebody asked a process to stop."""


def split_rows(
    task: Task,
    loader: Loader,
    *,
    device: torch.device | str,
    world: World | None = None,
    stop: Callable[[], bool] = bool,
) -> dict[str, Tensor]:
    """The rows of the loader's whole split, on the CPU, the same on every process; the task keeps its mode.

    Each process computes consecutive samples of the split, and leaves off once ``stop`` says so. Never in half
    precision, where a text's padding, so the size of its batch, would change its figures. Raises ``DataError``
    when no sample could be read or a row is NaN, and ``StoppedError``, on all processes, when one of them left off.
    """
    was_training, world = task.training, world or World()
    task.eval()
    try:
        with torch.no_grad():
            parts = batch_rows(task, _batches(task, loader, world, stop), device)
            if world.exchange([stop()]).any():
                raise StoppedError
            rows = _gathered(parts, loader, world)
            whole = task.evaluate_split(rows, world)
    finally:
        task.train(was_training)
    return {name: _on_cpu(tensor, name) for name, tensor in whole.items()}


def measure(
    metrics: Sequence[Metric],
    rows: Mapping[str, Tensor],
    world: World | None = None,
    *,
    cases: list[Cases] | None = None,
) -> dict[str, Figure]:
    """The figures of every metric; the first process computes them and tells the others.

    There, ``cases`` gets what the figures are means of. Raises ``DataError`` when two metrics use one name.
    """
    world = world or World()
    return world.broadcast(_measure(metrics, rows, [] if cases is None else cases) if world.is_first else {})


def metrics_faults(
    metrics: Sequence[Metric], monitored: str | None, rows: Collection[str] | None
) -> Iterator[tuple[str, str]]:
    """What is wrong with metrics of a task that gives ``rows``, each with the config's key: one that needs others, two
    that measure the same, none that measures what is ``monitored``. A metric need not say beforehand what it does."""
    telling: list[Any] = [metric for metric in metrics if hasattr(metric, "names")]
    try:
        names = [name for metric in telling for name in dict.fromkeys(metric.names(rows))]
    except ComponentError as error:
        yield "metrics", str(error)
        return
    for twice in [name for name in names if names.count(name) > 1][:1]:
        yield "metrics", f"must each measure something else, two of them measure {twice!r}; leave one out"
    wanted = (monitored or "").removeprefix("val/")
    if wanted and len(telling) == len(metrics) and not any(fnmatchcase(wanted, name) for name in names):  # l2@*/t2v/R1
        told = f"must be measured by metrics, is {monitored!r}; they measure: {', '.join(names)}"
        yield "training_parameters.monitored_metric", told


def batch_rows(
    task: Task, batches: Iterable[tuple[Batch, bool]], device: torch.device | str
) -> dict[str, list[Tensor]]:
    """The rows of each batch on the CPU, by name; of one that is a ghost they are left out."""
    parts: dict[str, list[Tensor]] = {}
    for batch, is_ghost in batches:
        output = task(batch.to(device, non_blocking=True))
        for name, tensor in output.rows.items() if not is_ghost else ():
            parts.setdefault(name, []).append(_on_cpu(tensor, name))
    return parts


def _batches(task: Task, loader: Loader, world: World, stop: Callable[[], bool]) -> Iterator[tuple[Batch, bool]]:
    """The batches of this process; of a sharded task as many as on any other: it repeats one of its own as a ghost."""
    own = (batch for step in loader.epoch(0) for batch in step.batches)
    if not any(map(is_sharded, task.parameters())):
        yield from ((batch, False) for batch in takewhile(lambda _: not stop(), own))
        return
    ghost: Batch | None = None
    while True:
        batch = next(own, None)
        table = world.exchange([batch is not None, stop()])
        if table[:, 1].any() or not table[:, 0].any():
            return
        ghost = batch or ghost or loader.any_batch()
        yield ghost, batch is None


def _gathered(parts: Mapping[str, list[Tensor]], loader: Loader, world: World) -> dict[str, Tensor]:
    """The rows of all processes in the order of the split."""
    own = {name: torch.cat(tensors) for name, tensors in parts.items()}
    every = world.collect(own)
    names = {name: None for rows in every for name in rows}
    if not names:
        summary = loader.quarantine.summary()
        raise DataError(f"there is nothing to evaluate: {summary or 'the task returned no rows'}")
    return {name: torch.cat([rows[name] for rows in every if name in rows]) for name in names}


def _on_cpu(tensor: Tensor, name: str) -> Tensor:
    """Half precision becomes float32, so that ties are not an artefact of rounding in a metric."""
    moved = tensor.detach().cpu()
    if not moved.is_floating_point():
        return moved
    if moved.isnan().any():  # an infinity may be meant: the logit of an option that is not there
        raise DataError(f"evaluation: rows {name!r} are NaN; the weights have diverged or an input is broken")
    return moved if moved.dtype == torch.float64 else moved.float()


def _measure(metrics: Sequence[Metric], rows: Mapping[str, Tensor], cases: list[Cases]) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for metric in metrics:
        metric.reset()
        metric.update(rows)
        for name, figure in metric.compute().items():
            if name in figures:
                raise DataError(f"metrics: two metrics return {name!r}; leave one of them out")
            figures[name] = figure
        if hasattr(metric, "cases"):
            cases += metric.cases()
        metric.reset()
    return figures
