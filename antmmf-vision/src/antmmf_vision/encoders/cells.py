"""From a network's grid of cells to ``Encoded``: which cells are real, their mean, one token a clip or all of them."""

from __future__ import annotations

from typing import Literal

import torch
from antmmf.contracts import Encoded
from torch import Tensor

from antmmf_vision.encoders.temporal import TemporalPool

Output = Literal["clip", "grid"]


def real_cells(sizes: Tensor, *, grid: tuple[int, int], stride: float) -> Tensor:
    """Which cells of a ``grid`` (h, w) see a picture of real ``sizes`` (B, 2): (B, h, w) bool.

    Cell i covers the pixels from ``i * stride`` on. It is real if one of them is: all cells of the lower and right
    border count that are only partly filled, and none beyond.
    """
    h, w = grid
    rows = torch.arange(h, device=sizes.device) * stride < sizes[:, :1]  # (B, h)
    columns = torch.arange(w, device=sizes.device) * stride < sizes[:, 1:]  # (B, w)
    return rows[:, :, None] & columns[:, None, :]


def mean_of_real(cells: Tensor, real: Tensor) -> Tensor:
    """The mean over the real ones of K ``cells`` (B, ..., K, D), of which ``real`` (B, K) says which: (B, ..., D)."""
    weight = real / real.sum(dim=1, keepdim=True)  # (B, K)
    between = [1] * (cells.ndim - 3)
    return (cells * weight.view(len(cells), *between, -1, 1).to(cells.dtype)).sum(dim=-2)


def encoded(cells: Tensor, vectors: Tensor, real: Tensor, *, output: Output, temporal: TemporalPool) -> Encoded:
    """``Encoded`` of C clips of F frames of K ``cells`` (B, C, F, K, D), whose frames are ``vectors`` (B, C, F, D).

    ``real`` (B, K) holds for every frame. A clip is pooled from its frames and the video from all frames, as
    ``temporal`` says. Tokens are the clips, or all cells in the order of time; a cell gets what its frame's vector
    gained from its place among the others.
    """
    clips, frames = vectors.shape[1:3]
    placed: Tensor = temporal(vectors.flatten(1, 2))  # (B, T, D)
    of_clip = temporal.pool(placed.reshape(vectors.shape))  # (B, C, D)
    if output == "grid":
        gained = placed.reshape(vectors.shape) - vectors  # (B, C, F, D)
        tokens = (cells + gained[:, :, :, None]).flatten(1, 3)  # (B, C * F * K, D)
        mask = real.repeat(1, clips * frames)
    else:
        tokens, mask = of_clip, real.new_ones(len(real), clips)
    return Encoded(tokens=tokens, mask=mask, pooled=temporal.pool(placed), clips=of_clip)
