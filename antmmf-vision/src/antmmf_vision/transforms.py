"""What happens to pixels between decoding and the batch; alike in all frames of a clip.

Frames stay bytes; encoders normalise them on the device. Scaling is bilinear with antialiasing and scales up as well as
down.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from antmmf.errors import ComponentError
from pydantic import Field
from torch import Tensor
from torchvision.transforms import v2  # type: ignore[import-untyped]

from antmmf_vision.randaugment import OPERATIONS, randaugment

Positive = Annotated[int, Field(gt=0)]

_MAX_RATIO = 8  # a strip of 600 x 3 pixels whose shorter side becomes 224 would take 30 MB a frame


class ResizeCrop:
    """Scale the shorter side to ``size``, then cut a square: anywhere in training, in the middle in evaluation.

    In training the shorter side becomes anything from ``size`` to ``max_scale * size``, and with ``flip`` half the
    clips are mirrored, which makes "left" and "right" in captions wrong. A frame of the right size is left alone; one
    more than 8 times as long as wide first loses its ends.
    """

    def __init__(
        self,
        *,
        size: Positive = 224,
        max_scale: Annotated[float, Field(ge=1)] = 1.0,
        flip: bool = False,
    ) -> None:
        self._size, self._max_scale, self._flip = size, max_scale, flip

    def __call__(self, frames: Tensor, rng: np.random.Generator | None) -> Tensor:
        """``frames`` (T, 3, H, W) uint8 to (T, 3, size, size) uint8."""
        side = round(self._size * rng.uniform(1, self._max_scale)) if rng is not None else self._size
        frames = _cut(_scaled(frames, side), self._size, rng)
        return _mirrored(frames, rng) if self._flip and rng is not None else frames


class LongSide:
    """Scale the longer side to ``max_size``, the shape kept: AntMMF's recipe for PVT and ResNet.

    With ``random_scale`` the longer side becomes one of 224, 256, ... up to ``max_size`` in training. AntMMF
    pre-trains with 768 and fine-tunes with 448. The batch pads what is smaller than its largest clip. No side falls
    below one pixel, so a strip of 600 x 3 becomes 448 x 2: too little for most encoders, but no error here.
    """

    def __init__(self, *, max_size: Positive = 448, random_scale: bool = True) -> None:
        self._max_size, self._random_scale = max_size, random_scale

    def __call__(self, frames: Tensor, rng: np.random.Generator | None) -> Tensor:
        """``frames`` (T, 3, H, W) uint8 to (T, 3, h, w) uint8 whose longer side is the drawn one."""
        side = self._max_size
        if rng is not None and self._random_scale:
            sides = range(min(224, self._max_size), self._max_size + 1, 32)
            side = sides[int(rng.integers(len(sides)))]
        height, width = frames.shape[-2:]
        longer = max(height, width)
        return _resized(frames, max(1, round(height * side / longer)), max(1, round(width * side / longer)))


class RandAugmentCrop:
    """Scale the shorter side, RandAugment, cut a square, mirror: AntMMF's recipe for Video Swin.

    In training the shorter side becomes any of ``min_scale * size`` to ``max_scale * size`` (268 to 336), then
    ``num_layers`` operations of strength ``magnitude`` of 10 are each applied with probability ``prob``. With ``flip``
    half the clips are mirrored, as AntMMF does, which makes "left" and "right" in captions wrong. In evaluation the
    shorter side becomes ``min_scale * size`` and the middle is cut.

    AntMMF augments before it scales; here it is after, so that the cost does not grow with the video: at 720p it would
    be about 6 times as many pixels. A frame more than 8 times as long as wide first loses its ends.
    """

    def __init__(
        self,
        *,
        size: Positive = 224,
        min_scale: Annotated[float, Field(ge=1)] = 1.2,
        max_scale: Annotated[float, Field(ge=1)] = 1.5,
        magnitude: Annotated[float, Field(ge=0, le=10)] = 9.0,
        num_layers: Annotated[int, Field(ge=0, le=len(OPERATIONS))] = 2,
        prob: Annotated[float, Field(ge=0, le=1)] = 0.5,
        flip: bool = True,
    ) -> None:
        if min_scale > max_scale:
            raise ComponentError(f"randaugment_crop: min_scale must not exceed max_scale, {min_scale} > {max_scale}")
        self._size, self._flip = size, flip
        self._sides = (int(min_scale * size), int(max_scale * size))
        self._magnitude, self._num_layers, self._prob = magnitude, num_layers, prob

    def __call__(self, frames: Tensor, rng: np.random.Generator | None) -> Tensor:
        """``frames`` (T, 3, H, W) uint8 to (T, 3, size, size) uint8."""
        smallest, largest = self._sides
        if rng is None:
            return _cut(_scaled(frames, smallest), self._size, None)
        frames = _scaled(frames, int(rng.integers(smallest, largest + 1)))
        frames = randaugment(frames, rng, magnitude=self._magnitude, num_layers=self._num_layers, prob=self._prob)
        frames = _cut(frames, self._size, rng)
        return _mirrored(frames, rng) if self._flip else frames


def _cut(frames: Tensor, size: int, rng: np.random.Generator | None) -> Tensor:
    """A square of ``size``: anywhere with ``rng``, else in the middle."""
    spare_rows, spare_columns = frames.shape[-2] - size, frames.shape[-1] - size
    top, left = spare_rows // 2, spare_columns // 2
    if rng is not None:
        top, left = int(rng.integers(spare_rows + 1)), int(rng.integers(spare_columns + 1))
    return frames[..., top : top + size, left : left + size]


def _mirrored(frames: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirror half the clips."""
    return frames.flip(-1) if rng.random() < 0.5 else frames


def _scaled(frames: Tensor, side: int) -> Tensor:
    """Scale so that the shorter side is ``side``; (T, 3, H, W) stays uint8."""
    height, width = frames.shape[-2:]
    shorter = min(height, width)
    if max(height, width) > _MAX_RATIO * shorter:
        longest = _MAX_RATIO * shorter
        height, width = min(height, longest), min(width, longest)
        frames = v2.functional.center_crop(frames, [height, width])
    return _resized(frames, max(side, round(height * side / shorter)), max(side, round(width * side / shorter)))


def _resized(frames: Tensor, height: int, width: int) -> Tensor:
    if tuple(frames.shape[-2:]) == (height, width):
        return frames
    resized: Tensor = v2.functional.resize(
        frames, [height, width], interpolation=v2.InterpolationMode.BILINEAR, antialias=True
    )
    return resized
