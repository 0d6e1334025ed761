"""Trains tiny pre-training tasks for a few steps on this process's share of fixed batches; run by test_ranks.py.

``python pretraining_ranks.py OUT`` writes what every step of each task gave, and the weights' sums, for each arm.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from antmmf.assets import RunAssets
from antmmf.batch import Batch
from antmmf.contracts import Encoded, Record, Sample
from antmmf.distributed import parallel
from antmmf.distributed.world import World, joined_world
from antmmf.step import Step, total
from antmmf_tasks.losses.infonce import InfoNCE
from antmmf_tasks.losses.mil_nce import MilNce
from antmmf_tasks.losses.moco import Moco
from antmmf_tasks.pretraining.settings import HardSamples, Masking, Matching, Weights
from antmmf_tasks.tasks.cnvid import Cnvid
from antmmf_tasks.tasks.pretraining import Pretraining
from antmmf_tasks.tasks.snps3 import Snps3
from antmmf_text.encoders.bert import Bert, BertFusion
from torch import Tensor, nn

STEPS, BATCH, CLIPS = 3, 16, 3
ARMS = tuple((mode, micro_batches) for mode in ("ddp", "fsdp2") for micro_batches in (1, 4))
TEXTS = [
    f"{number} {colour} {what} {how}"
    for number in ("one", "two")
    for colour in ("red", "blue", "green")
    for what in ("dog", "ball", "car")
    for how in ("runs fast", "jumps over the wall", "stops")
]
NAME = "google/bert_uncased_L-2_H-128_A-2"


class Clips(nn.Module):
    """A linear layer, a block and a norm on the pixels of each clip."""

    dim, image_size, masks_padding = 16, None, False

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3 * 8 * 8, 16)
        self.layer = nn.Sequential(nn.Linear(16, 16), nn.Tanh())
        self.norm = nn.LayerNorm(16)

    def blocks(self) -> list[nn.Module]:
        return [self.layer]

    def forward(self, frames: Tensor, sizes: Tensor) -> Encoded:  # noqa: ARG002
        x = self.stem(frames.flatten(2).to(self.stem.weight.dtype) / 255)  # (B, C, 16)
        x = self.norm(x + self.layer(x))
        return Encoded(x, torch.ones(x.shape[:2], dtype=torch.bool), x.mean(1), clips=x)


def make_tasks() -> dict[str, Pretraining]:
    """SNP-S3 with MoCo and every loss, P3E with MIL-NCE, CNVid, half of whose steps are hard from the second on."""
    every = Weights(clip_order=0.5, lvwm=0.7)
    return {
        "snps3": make_task(Snps3, contrast=Moco(momentum=0.9, video_queue=40, text_queue=20), weights=every),
        "p3e": make_task(Snps3, fusion=True, contrast=MilNce(), masking=Masking(policy="mlm", attentive=0)),
        "cnvid": make_task(
            Cnvid, contrast=InfoNCE(), hard_samples=HardSamples(change_iter=1, change_rate=0.5), weights=Weights(lvwm=0)
        ),
    }


def make_task(kind: type[Pretraining], *, fusion: bool = False, **settings: object) -> Pretraining:
    torch.default_generator.manual_seed(0)
    assets = RunAssets(texts=lambda: iter(TEXTS))
    text = {"name": NAME, "pretrained": False, "dropout": 0.0, "video_dim": 16, "assets": assets}
    return kind(
        vision=Clips(),
        text=Bert(**text, layers=1, max_length=10, attention=True),  # type: ignore[arg-type]
        fusion=BertFusion(**text, layers=1) if fusion else None,  # type: ignore[arg-type]
        assets=assets,
        **{"matching": Matching(group=4, at_once=12), "dropout": 0.0, "dim": 128, **settings},  # type: ignore[arg-type]
    )


def make_batch(task: Pretraining, rows: list[int], step: int) -> Batch:
    """Samples ``rows`` of the step's batch, each with what is drawn for it alone."""
    samples = []
    for row in rows:
        draw = torch.Generator().manual_seed(1000 * step + row)
        frames = torch.randint(0, 256, (CLIPS, 1, 3, 8, 8), dtype=torch.uint8, generator=draw)
        text = TEXTS[(7 * row + step) % len(TEXTS)]
        samples.append(Sample(row, Record(str(row), "", texts=(text,)), frames, (text,), seed=1000 * step + row))
    return task.collator(True)(samples)


def train(task: Pretraining, mode: str, micro_batches: int, world: World) -> dict[str, object]:
    """Every step's parts and gradient norm as the whole batch has them, and sums of weights and buffers at the end."""
    device = torch.device("cpu")
    sharded = mode == "fsdp2"
    parallel.prepare(task, compile=False, activation_checkpointing=False, channels_last=False, sharded=sharded)
    if sharded:
        parallel.shard(task, world, device)
    step = Step(task, world=world, seed=1)
    model = parallel.wrap(step, device) if world.size > 1 and not sharded else step
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=0.05)
    task.train()
    values, names = [], []
    for number in range(STEPS):
        own = np.array_split(np.arange(BATCH), world.size)[world.rank]
        rows = [part.tolist() for part in np.array_split(own, micro_batches) if len(part)]
        parts = model([make_batch(task, part, number) for part in rows], number)
        total(parts).backward()
        norm = nn.utils.get_total_norm([p.grad for p in task.parameters() if p.grad is not None])
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        optimizer.step()
        with torch.no_grad():
            task.after_step()
        optimizer.zero_grad()
        seen = torch.stack([*(part.detach() for part in parts.values()), norm])
        if world.size > 1:
            dist.all_reduce(seen)
        values.append((seen / world.size).tolist())
        names = [*parts, "norm"]
    state = {
        name: tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        for name, tensor in task.state_dict().items()
    }
    sums = {
        name: [float(tensor.double().sum()), float(tensor.double().square().sum())] for name, tensor in state.items()
    }
    return {"names": names, "values": values, "sums": sums}


def train_all(mode: str, micro_batches: int, world: World) -> dict[str, dict[str, object]]:
    """All tasks, in float64."""
    torch.set_default_dtype(torch.float64)
    try:
        return {name: train(task, mode, micro_batches, world) for name, task in make_tasks().items()}
    finally:
        torch.set_default_dtype(torch.float32)


def main(out: str) -> None:
    torch.set_num_threads(1)
    with joined_world("cpu") as world:
        values = {f"{mode} {micro_batches}": train_all(mode, micro_batches, world) for mode, micro_batches in ARMS}
        if world.is_first:
            Path(out).write_text(json.dumps(values))


if __name__ == "__main__":
    main(*sys.argv[1:])
