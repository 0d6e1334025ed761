"""What happens to pixels between decoding and the batch; alike in all frames of a clip."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field
from torch import Tensor
from torchvision.transforms import v2  # type: ignore[import-untyped]


class ResizeCrop:
    """Scale the shorter side to ``size``, then cut a square: anywhere in training, in the middle in evaluation.

    In training the shorter side becomes anything from ``size`` to ``max_scale * size``, and with ``flip`` half the
    clips are mirrored, which makes "left" and "right" in captions wrong. A frame of the right size is left alone.
    """

    def __init__(
        self,
        *,
        size: Annotated[int, Field(gt=0)] = 224,
        max_scale: Annotated[float, Field(ge=1)] = 1.0,
        flip: bool = False,
    ) -> None:
        self._size, self._max_scale, self._flip = size, max_scale, flip

    def __call__(self, frames: Tensor, rng: np.random.Generator | None) -> Tensor:
        """``frames`` (T, 3, H, W) uint8 to (T, 3, size, size) uint8."""
        size = self._size
        side = round(size * rng.uniform(1, self._max_scale)) if rng is not None else size
        frames = _scaled(frames, side)
        spare_rows, spare_columns = frames.shape[-2] - size, frames.shape[-1] - size
        top, left = spare_rows // 2, spare_columns // 2
        if rng is not None:
            top, left = int(rng.integers(spare_rows + 1)), int(rng.integers(spare_columns + 1))
        frames = frames[..., top : top + size, left : left + size]
        if self._flip and rng is not None and rng.random() < 0.5:
            frames = frames.flip(-1)
        return frames


def _scaled(frames: Tensor, side: int) -> Tensor:
    """Scale so that the shorter side is ``side``; (T, 3, H, W) stays uint8."""
    height, width = frames.shape[-2:]
    shorter = min(height, width)
    if shorter == side:
        return frames
    sizes = [max(side, round(height * side / shorter)), max(side, round(width * side / shorter))]
    scaled: Tensor = v2.functional.resize(frames, sizes, interpolation=v2.InterpolationMode.BILINEAR, antialias=True)
    return scaled
