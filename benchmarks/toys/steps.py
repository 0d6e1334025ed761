"""The model, the batches and the clock of ``step_overhead.py``; the bare loop and ours. Peers: ``step_peers.py``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from antmmf.batch import Batch
from antmmf.callbacks.console import Console
from antmmf.callbacks.jsonl import JsonLines
from antmmf.checkpoint import Checkpoints
from antmmf.contracts import RunInfo, RunState, Sample, Term
from antmmf.data.loader import LoadedStep
from antmmf.optim import Cosine
from antmmf.plugins import new_manager, register
from antmmf.task import Task, TaskOutput
from antmmf.trainer import Trainer, TrainSettings
from torch import Tensor, nn

BATCH, NUM_IN, WIDTH, NUM_CLASSES = 8, 32, 64, 10
NUM_READY = 64  # different batches, given again and again
LR = 1e-3
SLICE = 100  # steps between two readings of the clock
LOG_INTERVAL = 20  # the default of training_parameters.log_interval

Pair = tuple[Tensor, Tensor]


class Mlp(nn.Sequential):
    """Three matrices: about the least that still is a network."""

    def __init__(self) -> None:
        first, second = nn.Linear(NUM_IN, WIDTH), nn.Linear(WIDTH, WIDTH)
        super().__init__(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(WIDTH, NUM_CLASSES))


class Stream:
    """``warm`` + ``steps`` + 1 ready batches, and a clock that is read when a batch is asked for: between two readings
    there are ``SLICE`` whole steps of any loop, without its start and its end.
    """

    def __init__(self, batches: Sequence[Any], *, warm: int, steps: int) -> None:
        self.batches = batches
        self.dataset = batches  # mmengine asks for it
        self.warm = warm
        self.steps = steps
        self._readings: list[tuple[float, float]] = []

    def __len__(self) -> int:
        return self.warm + self.steps + 1

    def __iter__(self) -> Iterator[Any]:
        for number in range(len(self)):
            if number >= self.warm and (number - self.warm) % SLICE == 0:
                self._readings.append((time.process_time(), time.perf_counter()))
            yield self.batches[number % len(self.batches)]

    def microseconds(self) -> tuple[float, float]:
        """Of a step, in the median slice: of the processor, and on the clock."""
        pairs = list(zip(self._readings, self._readings[1:], strict=False))
        cpu, wall = (median(after[kind] - before[kind] for before, after in pairs) / SLICE * 1e6 for kind in (0, 1))
        return cpu, wall


def pairs() -> list[Pair]:
    """Inputs and classes."""
    draw = torch.Generator().manual_seed(0)
    return [
        (torch.randn(BATCH, NUM_IN, generator=draw), torch.randint(NUM_CLASSES, (BATCH,), generator=draw))
        for _ in range(NUM_READY)
    ]


def optimizer_of(model: nn.Module, fused: bool) -> torch.optim.Optimizer:
    """The same in all columns."""
    return torch.optim.AdamW(model.parameters(), lr=LR, fused=fused)


def cosine_of(optimizer: torch.optim.Optimizer, num_steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """torch's own way to move the rate at each step; the peers take no other."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / num_steps)))


def bare(stream: Stream, _: Path, fused: bool) -> None:
    """The loop of every tutorial."""
    model = Mlp()
    optimizer = optimizer_of(model, fused)
    schedule = cosine_of(optimizer, len(stream))
    for inputs, classes in stream:
        loss = nn.functional.cross_entropy(model(inputs), classes)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def bare_by_hand(stream: Stream, _: Path, fused: bool) -> None:
    """The same without torch's scheduler: the rate is written into the optimizer, as our trainer does it."""
    model = Mlp()
    optimizer = optimizer_of(model, fused)
    num_steps = len(stream)
    for number, (inputs, classes) in enumerate(stream):
        for group in optimizer.param_groups:
            group["lr"] = LR * 0.5 * (1 + math.cos(math.pi * number / num_steps))
        loss = nn.functional.cross_entropy(model(inputs), classes)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


# --- ours -------------------------------------------------------------------------------------------------------------


class MlpTask(Task):
    """The same network as a task; its inputs travel in a batch's extras."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = Mlp()

    def collator(self, train: bool) -> Callable[[Sequence[Sample]], Batch]:
        raise NotImplementedError("its batches are ready")

    def forward(self, batch: Batch) -> TaskOutput:
        assert batch.targets is not None
        loss = nn.functional.cross_entropy(self.mlp(batch.extras["inputs"]), batch.targets, reduction="sum")
        return TaskOutput(terms={"loss": Term(loss, float(len(batch.targets)))})


class ReadyLoader:
    """Stands in for a Loader: one epoch of ready batches, with nothing to read."""

    def __init__(self, ready: Stream) -> None:
        self.ready = ready
        self.quarantine = SimpleNamespace(count=0, summary=lambda: None)
        self.num_samples = len(ready) * BATCH
        self.batch_size = BATCH
        self.micro_batches = 1
        self.steps_per_epoch = len(ready)

    def stream(self, epoch: int, *, start: int = 0) -> Iterator[LoadedStep]:
        assert (epoch, start) == (1, 0)
        return iter(self.ready)

    def keys(self, ids: Iterable[int]) -> list[str]:
        return [str(id) for id in ids]


def loaded_steps() -> list[LoadedStep]:
    """``pairs`` as our loader gives them."""
    return [LoadedStep((_batch(number, *pair),), samples=BATCH, epoch=1) for number, pair in enumerate(pairs())]


def _batch(number: int, inputs: Tensor, classes: Tensor) -> Batch:
    return Batch(
        ids=torch.arange(BATCH) + number * BATCH,
        frames=torch.zeros(BATCH, 1, 1, 3, 1, 1, dtype=torch.uint8),
        sizes=torch.ones(BATCH, 2, dtype=torch.int64),
        tokens=torch.zeros(0, 1, dtype=torch.int64),
        token_mask=torch.zeros(0, 1, dtype=torch.bool),
        owner=torch.zeros(0, dtype=torch.int64),
        targets=classes,
        extras={"inputs": inputs},
    )


def ours(stream: Stream, folder: Path, fused: bool) -> None:
    """``Trainer`` as ``antmmf run`` sets it up: meter, console, JSON lines, signals, a checkpoint at the end."""
    task = MlpTask()
    callbacks: Mapping[str, object] = {"console": Console(), "jsonl": JsonLines()}
    manager = new_manager()
    for name, callback in callbacks.items():
        register(manager, callback, name=name)
    state = RunState()
    info = RunInfo("toy", folder, len(stream), len(stream), BATCH, "cpu", (), {})
    manager.hook.antmmf_run_start(info=info, state=state)
    Trainer(
        task,
        optimizer=optimizer_of(task, fused),
        schedule=Cosine(),
        loader=ReadyLoader(stream),  # type: ignore[arg-type]
        settings=TrainSettings(max_steps=len(stream), log_interval=LOG_INTERVAL, async_save=True),
        hook=manager.hook,
        checkpoints=Checkpoints(folder / "checkpoints"),
        callbacks=callbacks,
    ).fit(state)
    manager.hook.antmmf_run_end(info=info, state=state, error=None)
