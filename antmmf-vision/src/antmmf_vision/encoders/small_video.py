"""A small video encoder that learns from nothing in a minute or two, on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from antmmf.contracts import Encoded
from antmmf.errors import ComponentError
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

Positive = Annotated[int, Field(gt=0)]

_STRIDE = 16  # of the stem: 4 x 2 x 2
_POSITION_STD = 0.5  # with the usual 0.02 the order of events is never learnt


class SmallVideo(nn.Module):
    """A convolutional stem on each frame, then a transformer over the frames.

    ``pooled`` is a projection of all frames side by side, not of their mean: two clips of the same frames in another
    order differ from the first step on. A frame is laid on a gray square of ``image_size`` pixels, so that padding
    changes nothing. Frames beyond a clip's own, up to ``max_frames``, count as zeros.
    """

    masks_padding = True

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(gt=0, multiple_of=4)] = 128,
        depth: Positive = 2,
        heads: Positive = 4,
        image_size: Annotated[int, Field(gt=0, multiple_of=_STRIDE)] = 64,
        max_frames: Positive = 16,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        if dim % heads:
            raise ComponentError(f"heads must divide dim {dim}, is {heads}")
        super().__init__()
        self.dim, self.image_size = dim, image_size
        self._max_frames = max_frames
        cells = (image_size // _STRIDE) ** 2
        self.stem = nn.Sequential(
            nn.Conv2d(3, dim // 4, 4, stride=4),
            nn.GELU(),
            nn.Conv2d(dim // 4, dim // 2, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(dim * cells, dim),
            nn.LayerNorm(dim),
        )
        self.position = nn.Parameter(torch.randn(max_frames, dim) * _POSITION_STD)
        layer = nn.TransformerEncoderLayer(
            dim, heads, 4 * dim, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, depth, norm=nn.LayerNorm(dim), enable_nested_tensor=False)
        self.pool = nn.Linear(dim * max_frames, dim)

    def forward(self, frames: Tensor, sizes: Tensor) -> Encoded:
        """``frames`` (B, C, F, 3, H, W) uint8, ``sizes`` (B, 2); tokens are the frames, (B, C * F, dim).

        Raises ``ValueError`` when there are more frames or pixels than the encoder was made for.
        """
        b, c, f, _, height, width = frames.shape
        self._check(c * f, height, width)
        pixels = _on_canvas(frames.flatten(1, 2), sizes, self.image_size)  # (B, T, 3, S, S)
        x = self.stem(pixels.flatten(0, 1)).unflatten(0, (b, c * f))  # (B, T, D)
        tokens = self.transformer(x + self.position[: c * f])
        side_by_side = F.pad(tokens.flatten(1), (0, (self._max_frames - c * f) * self.dim))
        return Encoded(
            tokens=tokens,
            mask=torch.ones(b, c * f, dtype=torch.bool, device=tokens.device),
            pooled=self.pool(side_by_side),
            clips=tokens.unflatten(1, (c, f)).mean(dim=2),
        )

    def blocks(self) -> Sequence[nn.Module]:
        """The transformer's layers."""
        return list(self.transformer.layers)

    def _check(self, num_frames: int, height: int, width: int) -> None:
        if num_frames > self._max_frames:
            raise ValueError(f"small_video takes {self._max_frames} frames at most, got {num_frames}: raise max_frames")
        if max(height, width) > self.image_size:
            raise ValueError(
                f"small_video takes {self.image_size} pixels at most, got {height} x {width}: "
                "raise image_size or let the transform resize"
            )


def _on_canvas(frames: Tensor, sizes: Tensor, side: int) -> Tensor:
    """(B, T, 3, H, W) uint8 to floats around 0 on a square of ``side``, 0 (gray) wherever there is no real pixel."""
    height, width = frames.shape[-2:]
    rows = torch.arange(height, device=frames.device) < sizes[:, :1]  # (B, H)
    columns = torch.arange(width, device=frames.device) < sizes[:, 1:]  # (B, W)
    real = rows[:, None, None, :, None] & columns[:, None, None, None]  # (B, 1, 1, H, W)
    return F.pad((frames.float() / 127.5 - 1) * real, (0, side - width, 0, side - height))
