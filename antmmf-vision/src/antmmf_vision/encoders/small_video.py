"""A small video encoder that learns from nothing in minutes, on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from antmmf.contracts import Encoded
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

Positive = Annotated[int, Field(gt=0)]

_POSITION_STD = 0.5  # with the usual 0.02 the order of events is never learnt
_STEM_STRIDE = 4


class SmallVideo(nn.Module):
    """A patch stem on each frame, then a transformer over all cells of all frames.

    Attention runs over time and space at once, so that the order of frames matters. ``pooled`` is a projection of
    the CLS token beside the mean of the real cells; a clip's vector is that of CLS beside its own cells' mean.
    Cells that hold padding only are masked, padding inside a cell is set to gray: padding changes nothing.
    """

    masks_padding = True

    def __init__(
        self,
        *,
        dim: Positive = 128,
        depth: Positive = 3,
        heads: Positive = 4,
        patch: Annotated[int, Field(gt=0, multiple_of=_STEM_STRIDE)] = 16,
        image_size: Positive = 64,
        max_frames: Positive = 16,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        self.dim, self.image_size = dim, image_size
        self._patch, self._max_frames = patch, max_frames
        grid = -(-image_size // patch)
        self.stem = nn.Sequential(
            nn.Conv2d(3, dim // 2, _STEM_STRIDE, stride=_STEM_STRIDE),
            nn.GELU(),
            nn.Conv2d(dim // 2, dim, patch // _STEM_STRIDE, stride=patch // _STEM_STRIDE),
        )
        self.cls = nn.Parameter(torch.zeros(dim))
        self.time_position = nn.Parameter(torch.randn(max_frames, 1, 1, dim) * _POSITION_STD)
        self.row_position = nn.Parameter(torch.randn(grid, 1, dim) * _POSITION_STD)
        self.column_position = nn.Parameter(torch.randn(1, grid, dim) * _POSITION_STD)
        self.layers = nn.ModuleList(Block(dim, heads=heads, dropout=dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.pool = nn.Linear(2 * dim, dim)

    def forward(self, frames: Tensor, sizes: Tensor) -> Encoded:
        """``frames`` (B, C, F, 3, H, W) uint8, ``sizes`` (B, 2); tokens are (B, C * F * rows * columns, dim).

        Raises ``ValueError`` when there are more frames or pixels than there are positions.
        """
        b, c, f, _, height, width = frames.shape
        self._check(c * f, height, width)
        cells = self.stem(_prepared(frames.flatten(1, 2), sizes, self._patch).flatten(0, 1))  # (B*T, D, R, S)
        rows, columns = cells.shape[-2:]
        cells = cells.view(b, c * f, self.dim, rows, columns).permute(0, 1, 3, 4, 2)  # (B, T, R, S, D)
        places = self.time_position[: c * f] + self.row_position[:rows] + self.column_position[:, :columns]
        tokens = (cells + places).flatten(1, 3)  # (B, L, D)
        mask = _real_cells(sizes, rows, columns, self._patch).repeat(1, c * f)  # (B, L)
        x = torch.cat([self.cls.expand(b, 1, -1).to(tokens.dtype), tokens], dim=1)
        seen = F.pad(mask, (1, 0), value=True)[:, None, None]  # (B, 1, 1, 1 + L)
        for layer in self.layers:
            x = layer(x, seen)
        x = self.norm(x)
        cls, tokens = x[:, 0], x[:, 1:].contiguous()
        means = _masked_mean(tokens.view(b, c, -1, self.dim), mask.view(b, c, -1))  # (B, C, D)
        clips = self.pool(torch.cat([cls[:, None].expand_as(means), means], dim=-1))
        return Encoded(tokens=tokens, mask=mask, pooled=clips.mean(dim=1), clips=clips)

    def blocks(self) -> Sequence[nn.Module]:
        """The transformer's layers."""
        return list(self.layers)

    def _check(self, num_frames: int, height: int, width: int) -> None:
        if num_frames > self._max_frames:
            raise ValueError(f"small_video takes {self._max_frames} frames at most, got {num_frames}: raise max_frames")
        if max(height, width) > self.image_size:
            raise ValueError(
                f"small_video takes {self.image_size} pixels at most, got {height} x {width}: "
                "raise image_size or let the transform resize"
            )


class Block(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, dim: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self._heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.queries_keys_values, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """``x`` (B, L, D); ``seen`` (B, 1, 1, L) True where a token may be attended to."""
        parts = self.queries_keys_values(self.attention_norm(x)).unflatten(-1, (3, self._heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, L, D / heads)
        mixed = _attention(q, k, v, seen)
        x = x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        y: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return y


def _attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Softmax attention; written out on a CPU, where the fused kernel's backward pass in bfloat16 is 8 times slower."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    hidden = torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill(~seen, -torch.inf)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + hidden
    return scores.softmax(dim=-1) @ v


def _prepared(frames: Tensor, sizes: Tensor, patch: int) -> Tensor:
    """(B, T, 3, H, W) uint8 to floats around 0, with 0 beyond the real size, padded to whole patches."""
    height, width = frames.shape[-2:]
    rows = torch.arange(height, device=frames.device) < sizes[:, :1]  # (B, H)
    columns = torch.arange(width, device=frames.device) < sizes[:, 1:]  # (B, W)
    real = rows[:, None, None, :, None] & columns[:, None, None, None]  # (B, 1, 1, H, W)
    pixels = (frames.float() / 127.5 - 1) * real
    return F.pad(pixels, (0, -width % patch, 0, -height % patch))


def _real_cells(sizes: Tensor, rows: int, columns: int, patch: int) -> Tensor:
    """(B, rows * columns) True where a cell holds a real pixel."""
    row_starts = torch.arange(rows, device=sizes.device) * patch < sizes[:, :1]  # (B, R)
    column_starts = torch.arange(columns, device=sizes.device) * patch < sizes[:, 1:]  # (B, S)
    return (row_starts[:, :, None] & column_starts[:, None]).flatten(1)


def _masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean over the last axis but one of what is real; 0 where nothing is."""
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(-2) / weights.sum(-2).clamp(min=1)
