"""Averaged weights on two processes; test_ema.py starts them, and their module must be found by its own name."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from antmmf.checkpoint import Checkpoints, load_checkpoint
from antmmf.contracts import RunState
from antmmf.distributed import parallel
from antmmf.distributed.world import World
from antmmf.ema import Ema
from antmmf.optim import AdamW, build_optimizer
from ranks_toys import Pairs, make_batch
from torch import Tensor


def train_and_look(rank: int, size: int, folder: Path) -> list[Tensor]:
    """Train under FSDP2 where ``size`` > 1, looking at the average between the steps, and save at the third step.

    Returns what the averages gave, the averages and the weights, all whole.
    """
    torch.set_default_dtype(torch.float64)
    torch.default_generator.manual_seed(0)
    task = Pairs()
    if size > 1:
        parallel.shard(task, World(rank, size), torch.device("cpu"))
    optimizer, ema = build_optimizer(AdamW(lr=1e-2), task), Ema(task, decay=0.9)
    assert optimizer.param_groups[0]["fused"] is True
    checkpoints = Checkpoints(folder / f"{size}", world=World(rank, size))
    seen = []
    for step in range(6):
        features = task.encode(make_batch([0, 1, 2, 3], step))
        terms = {**task.loss(features), **features.terms}  # every parameter takes part
        torch.stack([term.sum for term in terms.values()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.update(step)
        with torch.no_grad(), ema.swapped():
            seen.append(task.encode(make_batch([0, 1], 99)).text)
        if step == 2:
            checkpoints.save(RunState(step=3), model=task.state_dict(), ema=ema.state_dict())
    return seen + [_whole(tensor) for tensor in (*ema.state_dict().values(), *task.state_dict().values())]


def _whole(tensor: Tensor) -> Tensor:
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole


def one_rank(rank: int, folder: Path, expected: list[Tensor]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    try:
        torch.testing.assert_close(train_and_look(rank, 2, folder), expected, rtol=1e-9, atol=1e-12)
        task = Pairs()
        parallel.shard(task, World(rank, 2), torch.device("cpu"))
        ema, averages = Ema(task, decay=0.9), load_checkpoint(folder / "1" / "step_000003").ema
        assert averages is not None
        ema.load_state_dict(averages)
        found = {name: _whole(average) for name, average in ema.state_dict().items()}
        torch.testing.assert_close(found, dict(averages), rtol=0, atol=0)
    finally:
        dist.destroy_process_group()
