"""A vision encoder that sees nothing but the colours of coarse cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from antmmf import Encoded
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F


class MeanColour(nn.Module):
    """One token a cell of ``patch`` x ``patch`` pixels of each frame: its mean colour through two linear layers."""

    image_size = None  # any
    masks_padding = True

    def __init__(self, *, dim: Annotated[int, Field(gt=0)] = 128, patch: Annotated[int, Field(gt=0)] = 16) -> None:
        super().__init__()
        self.dim, self._patch = dim, patch
        self.project = nn.Sequential(nn.Linear(3, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, frames: Tensor, sizes: Tensor) -> Encoded:
        """``frames`` (B, C, F, 3, H, W) uint8, ``sizes`` (B, 2); tokens are (B, C * F * cells, dim)."""
        height, width = frames.shape[-2:]
        rows = torch.arange(height, device=frames.device) < sizes[:, :1]  # (B, H)
        columns = torch.arange(width, device=frames.device) < sizes[:, 1:]  # (B, W)
        real = (
            (rows[:, :, None] & columns[:, None]).float()[:, None].expand(-1, frames.shape[1] * frames.shape[2], -1, -1)
        )
        pixels = (frames.flatten(1, 2) / 127.5 - 1) * real[:, :, None]  # (B, T, 3, H, W)
        share = F.avg_pool2d(real, self._patch, ceil_mode=True).flatten(1)  # (B, L), of each cell's pixels
        sums = F.avg_pool2d(pixels.flatten(0, 1), self._patch, ceil_mode=True)  # (B * T, 3, R, S)
        colours = sums.view(len(frames), -1, *sums.shape[1:]).movedim(2, -1).flatten(1, 3)  # (B, L, 3)
        tokens = self.project(colours / share.clamp(min=1e-6)[..., None])
        mask = share > 0
        pooled = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return Encoded(tokens=tokens, mask=mask, pooled=pooled)

    def blocks(self) -> Sequence[nn.Module]:
        """There is nothing that repeats."""
        return []
