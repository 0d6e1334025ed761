"""How fast is a training step on an accelerator, compared with a bare bf16 + compile loop on the same model?

A video-text model of ViT-S size on frames that are on the host already; both loops copy them to the device. Prints a
table and, last, one JSON line; without an accelerator it says ``not run``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import torch
from antmmf.batch import Batch
from antmmf.checkpoint import Checkpoints
from antmmf.contracts import RunState, Term
from antmmf.data.loader import LoadedStep
from antmmf.distributed.parallel import prepare
from antmmf.optim import AdamW, Constant, build_optimizer
from antmmf.plugins import new_manager
from antmmf.step import Step
from antmmf.task import Task, TaskOutput
from antmmf.trainer import Trainer, TrainSettings
from torch import Tensor, nn

DIM, DEPTH, HEADS, PATCH, SIZE, FRAMES = 384, 12, 6, 16, 224, 4
LIMIT = 0.98


class Encoder(nn.Module):
    """Patches of four frames side by side, then a transformer: (B, DIM)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, DIM, PATCH, stride=PATCH)
        layer = nn.TransformerEncoderLayer(DIM, HEADS, 4 * DIM, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, DEPTH, enable_nested_tensor=False)

    def blocks(self) -> list[nn.Module]:
        return list(self.layers.layers)

    def forward(self, frames: Tensor) -> Tensor:
        flat = frames.flatten(0, 2).float() / 255  # (B * T, 3, H, W)
        tokens = self.patches(flat).flatten(2).mT.reshape(len(frames), -1, DIM)  # (B, T * cells, DIM)
        pooled: Tensor = self.layers(tokens).mean(1)
        return pooled


class Classify(Task):
    """The encoder with a head of 1,000 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = Encoder()
        self.head = nn.Linear(DIM, 1000)

    def collator(self, train: bool):  # type: ignore[no-untyped-def]
        raise NotImplementedError("its batches are ready")

    def forward(self, batch: Batch) -> TaskOutput:
        logits = self.head(self.vision(batch.frames))
        loss = nn.functional.cross_entropy(logits, batch.targets, reduction="sum")
        return TaskOutput(terms={"loss": Term(loss, float(len(batch)))})


class Ready:
    """Stands in for a Loader: pinned batches, given again and again; reads the clock in between."""

    def __init__(self, batches: list[Batch], *, warm: int, steps: int) -> None:
        self.batches, self.warm, self.steps = batches, warm, steps
        self.quarantine = SimpleNamespace(count=0, summary=lambda: None)
        self.num_steps = warm + steps + 1  # before the last one the clock is read
        self.batch_size, self.num_samples, self.seconds = len(batches[0]), 0, 0.0

    def __iter__(self) -> Iterator[Batch]:
        started = 0.0
        for number in range(self.num_steps):
            if number in (self.warm, self.warm + self.steps):
                torch.accelerator.synchronize()
                self.seconds, started = time.perf_counter() - started, time.perf_counter()
            yield self.batches[number % len(self.batches)]

    def stream(self, epoch: int, *, start: int = 0) -> Iterator[LoadedStep]:  # noqa: ARG002
        return (LoadedStep((batch,), len(batch), epoch) for batch in self)

    def keys(self, ids: object) -> list[str]:  # noqa: ARG002
        return []


def batches(size: int) -> list[Batch]:
    """Four different ones."""
    draw = torch.Generator().manual_seed(0)
    return [
        Batch(
            ids=torch.arange(size),
            frames=torch.randint(0, 256, (size, FRAMES, 1, 3, SIZE, SIZE), dtype=torch.uint8, generator=draw),
            sizes=torch.full((size, 2), SIZE),
            tokens=torch.zeros(0, 1, dtype=torch.long),
            token_mask=torch.zeros(0, 1, dtype=torch.bool),
            owner=torch.zeros(0, dtype=torch.long),
            targets=torch.randint(0, 1000, (size,), generator=draw),
        ).pin_memory()
        for _ in range(4)
    ]


def bare(ready: Ready, device: torch.device) -> None:
    """What one would write by hand."""
    task = Classify().to(device)
    task.vision.compile()
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-4, fused=True)
    for batch in ready:
        moved = batch.to(device, non_blocking=True)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = task.head(task.vision(moved.frames))
        nn.functional.cross_entropy(logits.float(), moved.targets).backward()
        optimizer.step()
        optimizer.zero_grad()


def ours(ready: Ready, device: torch.device) -> None:
    """The trainer with its defaults."""
    task = Classify().to(device)
    prepare(task, compile=True, activation_checkpointing=False, channels_last=False, sharded=False)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            task,
            model=Step(task, device=device, amp=torch.bfloat16),
            optimizer=build_optimizer(AdamW(lr=1e-4), task),
            schedule=Constant(),
            loader=ready,  # type: ignore[arg-type]
            settings=TrainSettings(max_steps=ready.num_steps, device=device, amp=torch.bfloat16, log_interval=20),
            hook=new_manager().hook,
            checkpoints=Checkpoints(Path(folder)),
        ).fit(RunState())


def main() -> None:
    """Time both in turn and print their rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("rounds", 3), ("steps", 100), ("warm", 30), ("batch", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if not torch.accelerator.is_available():
        print(json.dumps({"benchmark": "accelerator", "value": None, "limit": LIMIT, "pass": None, "note": "not run"}))
        sys.exit(0)
    current = torch.accelerator.current_accelerator()
    assert current is not None
    device = torch.device(current.type, 0)
    rates: dict[str, list[float]] = {"bare": [], "antmmf": []}
    for _ in range(options.rounds):
        for name, loop in (("bare", bare), ("antmmf", ours)):
            torch.compiler.reset()
            ready = Ready(batches(options.batch), warm=options.warm, steps=options.steps)
            loop(ready, device)
            rates[name].append(options.steps * options.batch / ready.seconds)
    for name, values in rates.items():
        print(f"{name:8} {statistics.median(values):10.1f} samples/s  ({min(values):.1f} to {max(values):.1f})")
    ratio = statistics.median(rates["antmmf"]) / statistics.median(rates["bare"])
    result = {"benchmark": "accelerator", "value": round(ratio, 4), "limit": LIMIT, "pass": ratio >= LIMIT}
    name = torch.get_device_module(device).get_device_name(0)
    print(json.dumps({**result, "device": name, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
