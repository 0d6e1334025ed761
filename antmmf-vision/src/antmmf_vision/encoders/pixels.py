"""From the loader's uint8 frames to a network's input, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Pixels(nn.Module):
    """Normalise frames, and put the mean colour (0) wherever there is no real pixel.

    With a ``side``, every frame is laid in the upper left corner of a square of that many pixels: what a network sees
    of a frame is then the same whatever the batch was padded to. ``owner`` is named when frames do not fit.
    ``unit`` and ``offset`` are what the mean and deviation refer to: ``pixel * unit - offset``.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        *,
        owner: str,
        side: int | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        unit: float = 1 / 255,
        offset: float = 0.0,
    ) -> None:
        super().__init__()
        self.owner, self.side = owner, side
        deviation = torch.tensor(std, dtype=torch.float32)
        centre = torch.tensor(mean, dtype=torch.float32)
        self.register_buffer("scale", (unit / deviation)[:, None, None], persistent=False)  # (3, 1, 1)
        self.register_buffer("shift", ((-offset - centre) / deviation)[:, None, None], persistent=False)

    def forward(self, frames: Tensor, sizes: Tensor) -> Tensor:
        """``frames`` (B, C, F, 3, H, W) uint8 with real ``sizes`` (B, 2) to (B, C * F, 3, H or side, W or side).

        Raises ``ValueError`` when a frame is larger than ``side``.
        """
        height, width = frames.shape[-2:]
        rows = torch.arange(height, device=frames.device) < sizes[:, :1]  # (B, H)
        columns = torch.arange(width, device=frames.device) < sizes[:, 1:]  # (B, W)
        real = rows[:, None, None, :, None] & columns[:, None, None, None]  # (B, 1, 1, H, W)
        pixels = (frames.flatten(1, 2).to(self.scale.dtype) * self.scale + self.shift) * real  # (B, T, 3, H, W)
        if self.side is None:
            return pixels
        if max(height, width) > self.side:
            raise ValueError(
                f"{self.owner} takes {self.side} pixels at most, got {height} x {width}: "
                "let the transform resize, or raise image_size"
            )
        return F.pad(pixels, (0, self.side - width, 0, self.side - height))
