"""From the vectors of frames to one: how a video is pooled over time by encoders that see one frame at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["mean", "attention", "transformer"]

_POSITION_STD = 0.5  # with the usual 0.02 the order of events is never learnt (encoders/small_video.py)
_HEAD_SIZE = 64


class TemporalPool(nn.Module):
    """``mean``; ``attention``: a mean with learnt weights; ``transformer``: a mean after layers that know the order.

    All three begin as the plain mean: the scores of the attention and the gate behind the transformer are zero at
    first, so that pretrained vectors are not disturbed (the parameter-free and the sequential similarity of
    CLIP4Clip, arXiv:2104.08860). ``max_frames`` is how many frames the transformer has positions for.
    """

    def __init__(self, kind: Pooling, *, dim: int, depth: int, max_frames: int) -> None:
        super().__init__()
        self.kind, self._max_frames = kind, max_frames
        if kind == "attention":
            self.norm, self.score = nn.LayerNorm(dim), nn.Linear(dim, 1)
            nn.init.zeros_(self.score.weight)
        if kind == "transformer":
            heads = next(count for count in range(max(1, dim // _HEAD_SIZE), 0, -1) if dim % count == 0)
            self.norm = nn.LayerNorm(dim)
            self.position = nn.Parameter(torch.randn(max_frames, dim) * _POSITION_STD)
            layer = nn.TransformerEncoderLayer(
                dim, heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            self.layers = nn.TransformerEncoder(layer, depth, norm=nn.LayerNorm(dim), enable_nested_tensor=False)
            self.gate = nn.Parameter(torch.zeros(dim))

    def forward(self, vectors: Tensor) -> Tensor:
        """``vectors`` (B, T, D), each with what it gains from its place among the others; raises ``ValueError``."""
        if self.kind != "transformer":
            return vectors
        length = vectors.shape[1]
        if length > self._max_frames:
            raise ValueError(
                f"temporal: transformer takes {self._max_frames} frames at most, got {length}: raise max_frames"
            )
        gained: Tensor = self.layers(self.norm(vectors) + self.position[:length])
        return vectors + self.gate * gained

    def pool(self, vectors: Tensor) -> Tensor:
        """(..., T, D) to (..., D)."""
        if self.kind != "attention":
            return vectors.mean(dim=-2)
        weight: Tensor = self.score(self.norm(vectors)).softmax(dim=-2)  # (..., T, 1)
        return (weight * vectors).sum(dim=-2)

    def blocks(self) -> Sequence[nn.Module]:
        """The transformer's layers."""
        return list(self.layers.layers) if self.kind == "transformer" else []
