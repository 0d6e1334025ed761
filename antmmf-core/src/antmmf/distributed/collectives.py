"""Collectives with gradient, for rows whose number differs from rank to rank."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from antmmf.distributed.world import World

_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)  # its name since torch 2.12


def gather_rows(rows: Tensor, world: World, counts: list[int] | None = None) -> Tensor:
    """The rows of every rank, (sum of counts, ...), in the order of ranks; gradients are added over the ranks.

    ``counts`` are the row numbers of all ranks where they are known; else they are exchanged. A rank may have none.
    """
    if world.size == 1:
        return rows
    if counts is None:
        counts = [int(count) for count in world.exchange([len(rows)])[:, 0]]
    gathered: Tensor = _Gather.apply(rows, world, counts)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """Pad to the longest, gather, trim: gloo aborts the process when row numbers differ."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, world: World, counts: list[int]) -> Tensor:
        ctx.world, ctx.counts = world, counts
        longest = max(counts)
        padded = rows.new_zeros(longest, *rows.shape[1:])
        padded[: len(rows)] = rows
        table = rows.new_empty(world.size * longest, *rows.shape[1:])
        if table.numel() > 0:
            _all_gather(table, padded)
        parts = table.view(world.size, longest, *rows.shape[1:])
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        total = grads[0].contiguous()
        if total.numel() > 0:
            dist.all_reduce(total)
        start = sum(ctx.counts[: ctx.world.rank])
        return total[start : start + ctx.counts[ctx.world.rank]], None, None
